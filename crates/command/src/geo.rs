//! Places on the Earth: GEOADD and what is told of members. They are sorted sets whose scores are
//! geohashes; see `data::geo`. Searching is in `geo_search.rs`.

use data::geo::Point;
use data::number::format_i64;
use resp::{Protocol, Reply};

use crate::call::{Call, Handler, float, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::zset::{Conditions, add_pairs};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Geo, "geoadd", -5, geoadd)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("3.2.0")
        .complexity("O(log(N)) for each place given, N being the members of the sorted set")
        .history(&[("6.2.0", "Has the options `CH`, `NX` and `XX`.")])
        .summary("Adds places to a sorted set, or moves them.")
        .syntax(
            "key [condition:(NX | XX)] [change:CH] \
             data:(longitude latitude member) [longitude latitude member ...]",
        ),
    Command::new(Group::Geo, "geodist", -4, geodist)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("3.2.0")
        .summary("Answers how far apart two members are.")
        .syntax("key member1 member2 [unit:(M | KM | FT | MI)]"),
    Command::new(Group::Geo, "geohash", -2, geohash)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("3.2.0")
        .complexity("O(1) for each member asked for")
        .summary("Answers where members are as geohashes of eleven letters.")
        .syntax("key [member [member ...]]"),
    Command::new(Group::Geo, "geopos", -2, geopos)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("3.2.0")
        .complexity("O(1) for each member asked for")
        .summary("Answers longitudes and latitudes of members.")
        .syntax("key [member [member ...]]"),
];

/// A unit of length, in meters.
pub(crate) fn unit(word: &[u8]) -> Result<f64> {
    const UNITS: [(&str, f64); 4] = [("M", 1.0), ("KM", 1000.0), ("FT", 0.3048), ("MI", 1609.34)];
    let found = UNITS.iter().find(|(name, _)| is(word, name));
    found
        .map(|(_, meters)| *meters)
        .ok_or(Error::of("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// A place that has a score.
pub(crate) fn point(longitude: &[u8], latitude: &[u8]) -> Result<Point> {
    let point = Point { longitude: float(longitude)?, latitude: float(latitude)? };
    if !point.is_valid() {
        let Point { longitude, latitude } = point;
        return Err(Error::new(format!(
            "ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"
        )));
    }
    Ok(point)
}

fn geoadd(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut conditions = Conditions::default();
    let mut count_changed = false;
    let mut places = &args[2..];
    while let [option, behind @ ..] = places {
        match option {
            option if is(option, "NX") => conditions.only_new = true,
            option if is(option, "XX") => conditions.only_old = true,
            option if is(option, "CH") => count_changed = true,
            _ => break,
        }
        places = behind;
    }
    let (places, rest) = places.as_chunks::<3>();
    if !rest.is_empty() || (conditions.only_new && conditions.only_old) {
        return Err(Error::SYNTAX);
    }
    let mut scores = Vec::with_capacity(places.len());
    for [longitude, latitude, _] in places {
        scores.push(format_i64(point(longitude, latitude)?.score() as i64));
    }
    let pairs =
        scores.iter().zip(places).flat_map(|(score, [.., member])| [score.as_bytes(), member]);
    let pairs: Vec<&[u8]> = pairs.collect();
    add_pairs(call, args[1], &pairs, conditions, false, count_changed)
}

fn geodist(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let unit = match &args[4..] {
        [] => 1.0,
        [word] => unit(word)?,
        _ => return Err(Error::SYNTAX),
    };
    let zset = call.txn.read_zset(args[1])?;
    let place = |member| Some(Point::of_score(zset?.score(member)?));
    match place(args[2]).zip(place(args[3])) {
        Some((one, other)) => reply_distance(&mut call.reply, one.distance(other) / unit),
        None => call.reply.null(),
    }
    Ok(())
}

fn geohash(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let zset = call.txn.read_zset(args[1])?;
    call.reply.array(args.len() - 2);
    for member in &args[2..] {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => call.reply.bulk(&Point::of_score(score).geohash()),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn geopos(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let zset = call.txn.read_zset(args[1])?;
    call.reply.array(args.len() - 2);
    for member in &args[2..] {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => reply_point(&mut call.reply, Point::of_score(score)),
            None => call.reply.null_array(),
        }
    }
    Ok(())
}

/// Four decimals, also in RESP3.
pub(crate) fn reply_distance(reply: &mut Reply<'_>, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

pub(crate) fn reply_point(reply: &mut Reply<'_>, point: Point) {
    reply.array(2);
    for degrees in [point.longitude, point.latitude] {
        // As many decimals as C's `long double` is printed with.
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        match reply.protocol() {
            Protocol::Resp2 => reply.bulk(text.as_bytes()),
            Protocol::Resp3 => reply.raw(format!(",{text}\r\n").as_bytes()),
        }
    }
}

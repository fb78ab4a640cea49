//! Searching for places: GEOSEARCH and GEOSEARCHSTORE, and the older GEORADIUS with its kin.

use data::geo::{Point, Polygon, Shape};
use data::{ScoreBound, ScoreRange, Zset};

use crate::call::{Call, Handler, Pace, integer, is, unless_stopped};
use crate::error::{Error, Result};
use crate::geo::{point, reply_distance, reply_point, unit};
use crate::keys::{Begin, Find, KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, MOVABLE_KEYS, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::zset::store;

const fn behind(word: &'static str, from: i16) -> KeySpec {
    KeySpec {
        begin: Begin::Keyword(word, from),
        find: Find::Range { last: 0, step: 1, limit: 0 },
        flags: k::OW | k::UPDATE,
        notes: "",
    }
}

const COMPLEXITY: &str =
    "O(N+log(M)) with N places in and around the area, M being the members of the sorted set";

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Geo, "georadius", -6, georadius)
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[KeySpec::first(k::RO | k::ACCESS), behind("STORE", 6), behind("STOREDIST", 6)])
        .since("3.2.0")
        .complexity(COMPLEXITY)
        .deprecated("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument")
        .history(&[
            ("6.2.0", "Has the option `ANY` for `COUNT`."),
            ("7.0.0", "Takes uppercase units."),
        ])
        .summary("Answers or stores what is within a radius around a place.")
        .syntax(
            "key longitude latitude radius unit:(M | KM | FT | MI) [WITHCOORD] [WITHDIST] \
             [WITHHASH] [count-block:(COUNT count [ANY])] [order:(ASC | DESC)] \
             [store:(STORE storekey:key@1 | STOREDIST storedistkey:key@2)]",
        ),
    Command::new(Group::Geo, "georadius_ro", -6, georadius_ro)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("3.2.10")
        .complexity(COMPLEXITY)
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` argument")
        .history(&[("6.2.0", "Has the option `ANY` for `COUNT`.")])
        .summary("Answers what is within a radius around a place.")
        .syntax(
            "key longitude latitude radius unit:(M | KM | FT | MI) [WITHCOORD] [WITHDIST] \
             [WITHHASH] [count-block:(COUNT count [ANY])] [order:(ASC | DESC)]",
        ),
    Command::new(Group::Geo, "georadiusbymember", -5, georadiusbymember)
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[KeySpec::first(k::RO | k::ACCESS), behind("STORE", 5), behind("STOREDIST", 5)])
        .since("3.2.0")
        .complexity(COMPLEXITY)
        .deprecated(
            "6.2.0",
            "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
        )
        .history(&[
            ("6.2.0", "Has the option `ANY` for `COUNT`."),
            ("7.0.0", "Takes uppercase units."),
        ])
        .summary("Answers or stores what is within a radius around a member.")
        .syntax(
            "key member radius unit:(M | KM | FT | MI) [WITHCOORD] [WITHDIST] [WITHHASH] \
             [count-block:(COUNT count [ANY])] [order:(ASC | DESC)] \
             [store:(STORE storekey:key@1 | STOREDIST storedistkey:key@2)]",
        ),
    Command::new(Group::Geo, "georadiusbymember_ro", -5, georadiusbymember_ro)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("3.2.10")
        .complexity(COMPLEXITY)
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments")
        .summary("Answers what is within a radius around a member.")
        .syntax(
            "key member radius unit:(M | KM | FT | MI) [WITHCOORD] [WITHDIST] [WITHHASH] \
             [count-block:(COUNT count [ANY])] [order:(ASC | DESC)]",
        ),
    Command::new(Group::Geo, "geosearch", -7, geosearch)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("6.2.0")
        .complexity(COMPLEXITY)
        .history(&[("7.0.0", "Takes uppercase units.")])
        .summary("Answers what is inside a circle, a box or a polygon.")
        .syntax(
            "key from:(FROMMEMBER member | fromlonlat:(FROMLONLAT longitude latitude)) \
             by:(circle:(BYRADIUS radius unit:(M | KM | FT | MI)) | \
             box:(BYBOX width height unit:(M | KM | FT | MI))) [order:(ASC | DESC)] \
             [count-block:(COUNT count [ANY])] [WITHCOORD] [WITHDIST] [WITHHASH]",
        ),
    Command::new(Group::Geo, "geosearchstore", -8, geosearchstore)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::OW | k::UPDATE), KeySpec::at(2, k::RO | k::ACCESS)])
        .since("6.2.0")
        .complexity(COMPLEXITY)
        .history(&[("7.0.0", "Takes uppercase units.")])
        .summary("Stores what is inside a circle, a box or a polygon.")
        .syntax(
            "destination:key source:key \
             from:(FROMMEMBER member | fromlonlat:(FROMLONLAT longitude latitude)) \
             by:(circle:(BYRADIUS radius unit:(M | KM | FT | MI)) | \
             box:(BYBOX width height unit:(M | KM | FT | MI))) [order:(ASC | DESC)] \
             [count-block:(COUNT count [ANY])] [STOREDIST]",
        ),
];

/// How one command differs from the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEOSEARCH.
    Search,
    /// GEOSEARCHSTORE.
    SearchStore,
    /// GEORADIUS and GEORADIUSBYMEMBER: what is asked for comes first, without words.
    Radius { stores: bool },
}

impl Form {
    fn is_search(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }
}

#[derive(Default)]
struct Options<'a> {
    /// `None` inside: of a member of no sorted set.
    center: Option<Option<Point>>,
    is_from_member: bool,
    extent: Option<Extent>,
    unit: f64,
    count: Option<usize>,
    any: bool,
    /// Descending, if any.
    order: Option<bool>,
    with_coordinates: bool,
    with_distance: bool,
    with_hash: bool,
    store: Option<&'a [u8]>,
    stores_distance: bool,
}

/// Lengths in meters.
enum Extent {
    Radius(f64),
    Box(f64, f64),
    Polygon(Polygon),
}

fn georadius(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    by_place(call, args, true)
}

fn georadius_ro(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    by_place(call, args, false)
}

fn by_place(call: &mut Call<'_, '_>, args: &[&[u8]], stores: bool) -> Result {
    let zset = call.txn.read_zset(args[1])?;
    let mut options =
        Options { center: Some(Some(point(args[2], args[3])?)), ..Options::default() };
    options.set_radius(args[4], args[5])?;
    options.parse(&args[6..], zset, Form::Radius { stores })?;
    search(call, args[1], options, "georadiusstore")
}

fn georadiusbymember(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    by_member(call, args, true)
}

fn georadiusbymember_ro(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    by_member(call, args, false)
}

fn by_member(call: &mut Call<'_, '_>, args: &[&[u8]], stores: bool) -> Result {
    let zset = call.txn.read_zset(args[1])?;
    let mut options = Options { center: Some(of_member(zset, args[2])?), ..Options::default() };
    if zset.is_some() {
        options.set_radius(args[3], args[4])?;
    }
    options.parse(&args[5..], zset, Form::Radius { stores })?;
    search(call, args[1], options, "georadiusstore")
}

fn geosearch(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let zset = call.txn.read_zset(args[1])?;
    let mut options = Options::default();
    options.parse(&args[2..], zset, Form::Search)?;
    options.check_search(args[0])?;
    search(call, args[1], options, "geosearchstore")
}

fn geosearchstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let zset = call.txn.read_zset(args[2])?;
    let mut options = Options { store: Some(args[1]), ..Options::default() };
    options.parse(&args[3..], zset, Form::SearchStore)?;
    options.check_search(args[0])?;
    search(call, args[2], options, "geosearchstore")
}

fn of_member(zset: Option<&Zset>, member: &[u8]) -> Result<Option<Point>> {
    let Some(zset) = zset else { return Ok(None) };
    let score = zset.score(member);
    let score = score.ok_or(Error::of("ERR could not decode requested zset member"))?;
    Ok(Some(Point::of_score(score)))
}

/// A number that has a name in the error.
fn length(arg: &[u8], otherwise: &'static str) -> Result<f64> {
    match data::number::parse_f64(arg) {
        Some(number) if !number.is_nan() => Ok(number),
        _ => Err(Error::of(otherwise)),
    }
}

impl<'a> Options<'a> {
    fn set_radius(&mut self, radius: &[u8], unit_word: &[u8]) -> Result {
        let radius = length(radius, "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(Error::of("ERR radius cannot be negative"));
        }
        self.unit = unit(unit_word)?;
        self.extent = Some(Extent::Radius(radius * self.unit));
        Ok(())
    }

    fn set_box(&mut self, width: &[u8], height: &[u8], unit_word: &[u8]) -> Result {
        let width = length(width, "ERR need numeric width")?;
        let height = length(height, "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(Error::of("ERR height or width cannot be negative"));
        }
        self.unit = unit(unit_word)?;
        self.extent = Some(Extent::Box(width * self.unit, height * self.unit));
        Ok(())
    }

    /// Reads the corners of a polygon; answers what comes behind them.
    fn set_polygon<'r>(&mut self, args: &'r [&'a [u8]]) -> Result<&'r [&'a [u8]]> {
        const CORNERS_MIN: usize = 3;
        let [count, rest @ ..] = args else { return Err(Error::SYNTAX) };
        let count = usize::try_from(integer(count)?).unwrap_or(0);
        if count < CORNERS_MIN {
            return Err(Error::of("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices"));
        }
        let places = count.checked_mul(2).and_then(|places| rest.split_at_checked(places));
        let Some((places, rest)) = places else { return Err(Error::SYNTAX) };
        let corners = places.as_chunks::<2>().0.iter();
        let corners = corners.map(|[longitude, latitude]| point(longitude, latitude));
        self.unit = 1.0;
        self.extent = Some(Extent::Polygon(Polygon::new(corners.collect::<Result<_>>()?)));
        Ok(rest)
    }

    fn parse(&mut self, args: &[&'a [u8]], zset: Option<&Zset>, form: Form) -> Result {
        let may_reply = form != Form::SearchStore;
        let is_search = form.is_search();
        let mut rest = args;
        while let [word, behind @ ..] = rest {
            rest = match behind {
                _ if is(word, "WITHDIST") => {
                    self.with_distance = true;
                    behind
                }
                _ if is(word, "WITHHASH") => {
                    self.with_hash = true;
                    behind
                }
                _ if is(word, "WITHCOORD") => {
                    self.with_coordinates = true;
                    behind
                }
                _ if is(word, "ANY") => {
                    self.any = true;
                    behind
                }
                _ if is(word, "ASC") || is(word, "DESC") => {
                    self.order = Some(is(word, "DESC"));
                    behind
                }
                [count, behind @ ..] if is(word, "COUNT") => {
                    let count = integer(count)?;
                    if count <= 0 {
                        return Err(Error::of("ERR COUNT must be > 0"));
                    }
                    self.count = Some(usize::try_from(count).unwrap_or(usize::MAX));
                    behind
                }
                [key, behind @ ..]
                    if form == (Form::Radius { stores: true })
                        && (is(word, "STORE") || is(word, "STOREDIST")) =>
                {
                    self.store = Some(key);
                    self.stores_distance = is(word, "STOREDIST");
                    behind
                }
                [member, behind @ ..]
                    if is_search
                        && is(word, "FROMMEMBER")
                        && (self.center.is_none() || self.is_from_member) =>
                {
                    self.center = Some(of_member(zset, member)?);
                    self.is_from_member = true;
                    behind
                }
                [longitude, latitude, behind @ ..]
                    if is_search && is(word, "FROMLONLAT") && !self.is_from_member =>
                {
                    self.center = Some(Some(point(longitude, latitude)?));
                    behind
                }
                [radius, unit, behind @ ..]
                    if is_search
                        && is(word, "BYRADIUS")
                        && matches!(self.extent, None | Some(Extent::Radius(_))) =>
                {
                    self.set_radius(radius, unit)?;
                    behind
                }
                [width, height, unit, behind @ ..]
                    if is_search
                        && is(word, "BYBOX")
                        && matches!(self.extent, None | Some(Extent::Box(..))) =>
                {
                    self.set_box(width, height, unit)?;
                    behind
                }
                _ if is_search && is(word, "BYPOLYGON") && self.extent.is_none() => {
                    self.set_polygon(behind)?
                }
                _ if form == Form::SearchStore && is(word, "STOREDIST") => {
                    self.stores_distance = true;
                    behind
                }
                _ => return Err(Error::SYNTAX),
            };
        }
        let with_any = self.with_coordinates || self.with_distance || self.with_hash;
        if self.store.is_some() && with_any {
            return Err(Error::of(match may_reply {
                true => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and \
                     WITHCOORD options"
                }
                false => {
                    "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD \
                     options"
                }
            }));
        }
        Ok(())
    }

    /// What GEOSEARCH needs beside correct words.
    fn check_search(&self, name: &[u8]) -> Result {
        let name = String::from_utf8_lossy(name);
        let is_polygon = matches!(self.extent, Some(Extent::Polygon(_)));
        if self.center.is_none() != is_polygon {
            return Err(Error::new(format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}"
            )));
        }
        if self.extent.is_none() {
            return Err(Error::new(format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {name}"
            )));
        }
        Ok(())
    }
}

/// A place that was found.
struct Place<'t> {
    member: &'t [u8],
    score: f64,
    point: Point,
    meters: f64,
}

fn search(
    call: &mut Call<'_, '_>,
    key: &[u8],
    options: Options<'_>,
    event: &'static str,
) -> Result {
    if options.any && options.count.is_none() {
        return Err(Error::of("ERR the ANY argument requires COUNT argument"));
    }
    let zset = match call.txn.peek(key).map(engine::Entry::get) {
        Some(engine::ValueRef::Zset(zset)) => zset,
        _ => {
            return match options.store {
                Some(destination) => store(call, destination, Zset::new(), event),
                None => {
                    call.reply.array(0);
                    Ok(())
                }
            };
        }
    };
    let shape = match (options.extent, options.center.flatten()) {
        (Some(Extent::Polygon(polygon)), _) => Shape::Polygon(polygon),
        (Some(Extent::Radius(radius)), Some(center)) => Shape::Circle { center, radius },
        (Some(Extent::Box(width, height)), Some(center)) => Shape::Box { center, width, height },
        _ => unreachable!("a member of a sorted set that is there was found"),
    };
    let enough = if options.any { options.count } else { None };
    let mut places = Vec::new();
    let mut pace = Pace::of(call.txn);
    for scores in shape.score_ranges() {
        let range = ScoreRange {
            min: ScoreBound { value: scores.start as f64, exclusive: false },
            max: ScoreBound { value: scores.end as f64, exclusive: true },
        };
        for (member, score) in zset.range(zset.score_range(&range)) {
            if enough.is_some_and(|enough| places.len() >= enough) || !pace.goes_on() {
                break;
            }
            let point = Point::of_score(score);
            if let Some(meters) = shape.distance_inside(point) {
                places.push(Place { member, score, point, meters });
            }
        }
    }
    unless_stopped(call.txn)?;
    // Those that are wanted are the nearest.
    let order = options.order.or((options.count.is_some() && !options.any).then_some(false));
    let count = options.count.unwrap_or(usize::MAX).min(places.len());
    if let Some(descending) = order {
        let compare = |one: &Place<'_>, other: &Place<'_>| match descending {
            true => other.meters.total_cmp(&one.meters),
            false => one.meters.total_cmp(&other.meters),
        };
        if count < places.len() {
            places.select_nth_unstable_by(count, compare);
            places.truncate(count);
        }
        places.sort_by(compare);
    }
    places.truncate(count);
    if let Some(destination) = options.store {
        let limits = call.txn.limits();
        let mut found = Zset::new();
        let longest = places.iter().map(|place| place.member.len()).max().unwrap_or(0);
        found.prepare(places.len(), longest, limits);
        for place in &places {
            let distance = place.meters / options.unit;
            let score = if options.stores_distance { distance } else { place.score };
            found.insert(place.member, score, limits);
        }
        return store(call, destination, found, event);
    }
    let extras = [options.with_distance, options.with_hash, options.with_coordinates];
    let extras = extras.into_iter().filter(|wanted| *wanted).count();
    call.reply.array(places.len());
    for place in places {
        if extras > 0 {
            call.reply.array(1 + extras);
        }
        call.reply.bulk(place.member);
        if options.with_distance {
            reply_distance(&mut call.reply, place.meters / options.unit);
        }
        if options.with_hash {
            call.reply.integer(place.score as i64);
        }
        if options.with_coordinates {
            reply_point(&mut call.reply, place.point);
        }
    }
    Ok(())
}

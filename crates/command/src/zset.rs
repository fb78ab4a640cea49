//! Sorted sets: scores, members and ranks. Ranges are in `zset_range.rs`, popping in
//! `zset_pop.rs`, set algebra in `zset_ops.rs`.

use data::Zset;
use engine::{Event, Mut};
use resp::{Protocol, Reply};
use smallvec::SmallVec;

use crate::call::{Call, Handler, float, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::set::{check_repeats, repeats, signed_count_with};
use crate::set_scan::{self, ScanOptions};

/// A row of the group, shared by all its files.
pub(crate) const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::SortedSet, name, arity, handler)
}

pub const TABLE: &[Command<Handler>] = &[
    row("zadd", -4, zadd)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("1.2.0")
        .complexity("O(log(N)) for each member given, N being the members of the sorted set")
        .summary("Adds members with their scores to a sorted set, or changes their scores.")
        .syntax("key [condition:(NX | XX)] [comparison:(GT | LT)] [change:CH] [increment:INCR] data:(score member) [score member ...]")
        .history(&[
            ("2.4.0", "Takes more than one member."),
            ("3.0.2", "Has the options NX, XX, CH and INCR."),
            ("6.2.0", "Has the options GT and LT."),
        ]),
    row("zincrby", 4, zincrby)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .since("1.2.0")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Adds to the score of a member.")
        .syntax("key increment member"),
    row("zrem", -3, zrem)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .since("1.2.0")
        .complexity("O(M*log(N)) for M members given and N of the sorted set")
        .summary("Removes members from a sorted set; the last one takes the key with it.")
        .syntax("key member [member ...]")
        .history(&[("2.4.0", "Takes more than one member.")]),
    row("zcard", 2, zcard)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .since("1.2.0")
        .summary("Counts the members of a sorted set.")
        .syntax("key"),
    row("zscore", 3, zscore)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("1.2.0")
        .summary("Answers the score of a member.")
        .syntax("key member"),
    row("zmscore", -3, zmscore)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("6.2.0")
        .complexity("O(N) for N members given")
        .summary("Answers the scores of several members.")
        .syntax("key member [member ...]"),
    row("zrank", -3, zrank)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.0.0")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Answers how many members stand before one, lowest score first.")
        .syntax("key member [WITHSCORE]")
        .history(&[("7.2.0", "Has the option WITHSCORE.")]),
    row("zrevrank", -3, zrevrank)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.0.0")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Answers how many members stand before one, highest score first.")
        .syntax("key member [WITHSCORE]")
        .history(&[("7.2.0", "Has the option WITHSCORE.")]),
    row("zrandmember", -2, zrandmember)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("6.2.0")
        .complexity("O(N) for N members answered")
        .summary("Answers random members; with a negative count one may come more than once.")
        .syntax("key [options:(count [WITHSCORES])]")
        .tips(&["nondeterministic_output"]),
    row("zscan", -3, zscan)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.8.0")
        .complexity("O(1) for each call, O(N) for all calls until the cursor is 0 again")
        .summary("Walks over the members of a sorted set in steps.")
        .history(&[("8.0.0", "Takes `NOSCORES`, as in Valkey.")])
        .syntax("key cursor [MATCH pattern] [COUNT count] [NOSCORES]")
        .tips(&["nondeterministic_output"]),
];

const NAN_SCORE: Error = Error::of("ERR resulting score is not a number (NaN)");
const XX_NX: Error = Error::of("ERR XX and NX options at the same time are not compatible");
const GT_LT_NX: Error =
    Error::of("ERR GT, LT, and/or NX options at the same time are not compatible");
const INCR_PAIR: Error = Error::of("ERR INCR option supports a single increment-element pair");

/// ZADD's conditions on a member and its old and new score.
#[derive(Clone, Copy, Default)]
pub(crate) struct Conditions {
    pub only_new: bool,
    pub only_old: bool,
    only_greater: bool,
    only_less: bool,
}

/// What became of one member.
enum Outcome {
    Added(f64),
    Updated(f64),
    /// It has this score already.
    Same(f64),
    /// A condition was not met.
    Refused,
}

impl Conditions {
    fn any(self) -> bool {
        self.only_new || self.only_old || self.only_greater || self.only_less
    }
}

/// A score as it is stored: zeros have no sign, as in Redis's listpacks.
pub(crate) fn unsigned_zero(score: f64) -> f64 {
    score + 0.0
}

/// Adds a member or changes its score, as the conditions say.
fn put(
    zset: &mut Mut<'_, '_, Zset>,
    member: &[u8],
    score: f64,
    increment: bool,
    conditions: Conditions,
) -> Result<Outcome> {
    if !increment && !conditions.any() {
        return Ok(match zset.insert(member, unsigned_zero(score)) {
            None => Outcome::Added(score),
            Some(old) if old == score => Outcome::Same(score),
            Some(_) => Outcome::Updated(score),
        });
    }
    let Some(old) = zset.score(member) else {
        if conditions.only_old {
            return Ok(Outcome::Refused);
        }
        zset.insert(member, unsigned_zero(score));
        return Ok(Outcome::Added(score));
    };
    if conditions.only_new {
        return Ok(Outcome::Refused);
    }
    let new = if increment { old + score } else { score };
    if new.is_nan() {
        return Err(NAN_SCORE);
    }
    if (conditions.only_less && new >= old) || (conditions.only_greater && new <= old) {
        return Ok(Outcome::Refused);
    }
    if new == old {
        return Ok(Outcome::Same(new));
    }
    zset.insert(member, unsigned_zero(new));
    Ok(Outcome::Updated(new))
}

fn zadd(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut conditions = Conditions::default();
    let (mut count_changed, mut increment) = (false, false);
    let mut at = 2;
    while at < args.len() {
        let option = args[at];
        if is(option, "NX") {
            conditions.only_new = true;
        } else if is(option, "XX") {
            conditions.only_old = true;
        } else if is(option, "GT") {
            conditions.only_greater = true;
        } else if is(option, "LT") {
            conditions.only_less = true;
        } else if is(option, "CH") {
            count_changed = true;
        } else if is(option, "INCR") {
            increment = true;
        } else {
            break;
        }
        at += 1;
    }
    let pairs = &args[at..];
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    let Conditions { only_new, only_old, only_greater, only_less } = conditions;
    if only_new && only_old {
        return Err(XX_NX);
    }
    if (only_new && (only_greater || only_less)) || (only_greater && only_less) {
        return Err(GT_LT_NX);
    }
    if increment && pairs.len() > 2 {
        return Err(INCR_PAIR);
    }
    add_pairs(call, args[1], pairs, conditions, increment, count_changed)
}

fn zincrby(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    add_pairs(call, args[1], &args[2..], Conditions::default(), true, false)
}

/// The common part of ZADD, ZINCRBY and GEOADD; `pairs` are scores and members in turn.
pub(crate) fn add_pairs(
    call: &mut Call<'_, '_>,
    key: &[u8],
    pairs: &[&[u8]],
    conditions: Conditions,
    increment: bool,
    count_changed: bool,
) -> Result {
    // All scores are read before anything changes.
    let scores = pairs.chunks_exact(2).map(|pair| float(pair[0]));
    let scores = scores.collect::<Result<SmallVec<[f64; 8]>>>()?;
    let (mut added, mut updated) = (0, 0);
    let mut last = None;
    if increment {
        call.txn.tell_as(Event::zset("zincr"));
    }
    let zset = if conditions.only_old {
        call.txn.write::<Zset>(key)?
    } else {
        Some(call.txn.write_or_create::<Zset>(key)?)
    };
    if let Some(mut zset) = zset {
        if scores.len() > 1 {
            let longest = pairs.chunks_exact(2).map(|pair| pair[1].len()).max().unwrap_or(0);
            zset.prepare(scores.len(), longest);
        }
        for (pair, &score) in pairs.chunks_exact(2).zip(&scores) {
            match put(&mut zset, pair[1], score, increment, conditions)? {
                Outcome::Added(score) => {
                    added += 1;
                    last = Some(score);
                }
                Outcome::Updated(score) => {
                    updated += 1;
                    last = Some(score);
                }
                Outcome::Same(score) => last = Some(score),
                Outcome::Refused => {}
            }
        }
    }
    match (increment, last) {
        (true, Some(score)) => call.reply.double(score),
        (true, None) => call.reply.null(),
        (false, _) if count_changed => call.reply.integer(added + updated),
        (false, _) => call.reply.integer(added),
    }
    Ok(())
}

fn zrem(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut removed = 0;
    if let Some(mut zset) = call.txn.write::<Zset>(args[1])? {
        for member in &args[2..] {
            removed += i64::from(zset.remove(member).is_some());
        }
    }
    call.reply.integer(removed);
    Ok(())
}

fn zcard(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let len = call.txn.read_zset(args[1])?.map_or(0, Zset::len);
    call.reply.integer(len as i64);
    Ok(())
}

fn zscore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.read_zset(args[1])?.and_then(|zset| zset.score(args[2])) {
        Some(score) => call.reply.double(score),
        None => call.reply.null(),
    }
    Ok(())
}

fn zmscore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let zset = call.txn.read_zset(args[1])?;
    call.reply.array(args.len() - 2);
    for member in &args[2..] {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => call.reply.double(score),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn zrank(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    rank(call, args, false, "zrank")
}

fn zrevrank(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    rank(call, args, true, "zrevrank")
}

fn rank(call: &mut Call<'_, '_>, args: &[&[u8]], reverse: bool, name: &str) -> Result {
    if args.len() > 4 {
        return Err(Error::arity(name));
    }
    if args.len() == 4 && !is(args[3], "WITHSCORE") {
        return Err(Error::SYNTAX);
    }
    let with_score = args.len() == 4;
    let zset = call.txn.read_zset(args[1])?;
    let found = zset.and_then(|zset| {
        let rank = zset.rank(args[2])?;
        let score = if with_score { zset.score(args[2])? } else { 0.0 };
        Some((if reverse { zset.len() - 1 - rank } else { rank }, score))
    });
    match found {
        None if with_score => call.reply.null_array(),
        None => call.reply.null(),
        Some((rank, score)) => {
            if with_score {
                call.reply.array(2);
            }
            call.reply.integer(rank as i64);
            if with_score {
                call.reply.double(score);
            }
        }
    }
    Ok(())
}

/// The header of `len` members: in RESP2 their scores stand between them, in RESP3 each member
/// with its score is an array of its own.
pub(crate) fn reply_pairs_header(reply: &mut Reply<'_>, len: usize, with_scores: bool) {
    let flat = with_scores && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { 2 * len } else { len });
}

/// One of the members announced by [`reply_pairs_header`].
pub(crate) fn reply_pair(reply: &mut Reply<'_>, member: &[u8], score: f64, with_scores: bool) {
    if with_scores && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(member);
    if with_scores {
        reply.double(score);
    }
}

/// Puts a result under its key and answers its size; an empty result removes the key.
pub(crate) fn store(
    call: &mut Call<'_, '_>,
    destination: &[u8],
    zset: Zset,
    name: &'static str,
) -> Result {
    if call.txn.should_stop() {
        call.txn.discard(engine::Collection::Zset(zset));
        return Err(Error::STOPPED);
    }
    let len = zset.len();
    if len == 0 {
        call.txn.remove(destination);
    } else {
        call.txn.tell_as(Event::zset(name));
        call.txn.put(destination, engine::Collection::Zset(zset), None);
    }
    call.reply.integer(len as i64);
    Ok(())
}

fn zrandmember(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    if args.len() == 2 {
        let zset = call.txn.read_zset(args[1])?;
        match zset.and_then(|zset| zset.random(&mut || call.txn.random())) {
            Some((member, _)) => call.reply.bulk(member),
            None => call.reply.null(),
        }
        return Ok(());
    }
    let (count, with_scores) = signed_count_with(args, "WITHSCORES")?;
    let Some(zset) = call.txn.read_zset(args[1])?.filter(|_| count != 0) else {
        call.reply.array(0);
        return Ok(());
    };
    let mut random = || call.txn.random();
    if count < 0 {
        let count = repeats(call, count)?;
        let start = call.reply.position();
        reply_pairs_header(&mut call.reply, count, with_scores);
        for _ in paced(call.txn, 0..count) {
            let (member, score) = zset.random(&mut random).expect("stored sets are not empty");
            reply_pair(&mut call.reply, member, score, with_scores);
            check_repeats(call, start)?;
        }
    } else if count as usize >= zset.len() {
        reply_pairs_header(&mut call.reply, zset.len(), with_scores);
        for (member, score) in paced(call.txn, zset.iter()) {
            reply_pair(&mut call.reply, member, score, with_scores);
        }
    } else {
        let members = zset.random_distinct(count as usize, &mut random);
        reply_pairs_header(&mut call.reply, members.len(), with_scores);
        for (member, score) in members {
            reply_pair(&mut call.reply, member, score, with_scores);
        }
    }
    Ok(())
}

fn zscan(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let cursor = set_scan::cursor(args[2])?;
    let Some(zset) = call.txn.read_zset(args[1])? else {
        set_scan::reply_nothing(&mut call.reply);
        return Ok(());
    };
    let (options, names_only) = ScanOptions::parse_with(&args[3..], "NOSCORES")?;
    set_scan::reply_step(&mut call.reply, |reply| {
        let mut items = 0;
        let next = zset.scan(cursor, options.count, |member, score| {
            if options.wants(member) {
                reply.bulk(member);
                items += 1;
                if !names_only {
                    // Bulk strings even in RESP3: all items of a scan are of one kind.
                    reply.bulk(&data::number::format_f64(score));
                    items += 1;
                }
            }
        });
        (next, items)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn zadd_counts_what_it_adds_or_changes() {
        let mut keys = Keyspace::new();
        keys.check("ZADD z 1 a 2 b 1 a", ":2");
        keys.check("ZADD z 1 a 5 b", ":0");
        assert_eq!(keys.effects.dirty, 1);
        keys.check("ZADD z 1 a 5 b", ":0");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("ZADD z CH 2 a 5 b 7 c", ":2");
        keys.check("ZSCORE z a", "$1 2");
        keys.check("ZCARD z", ":3");
        keys.check("ZREM z a x b", ":2");
        keys.check("ZREM z x", ":0");
        keys.check("ZMSCORE z c x", "*2 $1 7 $-1");
        keys.check("ZREM z c", ":1");
        keys.check("ZCARD z", ":0");
        keys.check("ZSCORE z c", "$-1");
        keys.check("SET str v", "+OK");
        for command in ["ZADD str 1 a", "ZREM str a", "ZSCORE str a", "ZCARD str", "ZRANK str a"] {
            keys.check(command, WRONG_TYPE);
        }
    }

    #[test]
    fn zadd_conditions() {
        let mut keys = Keyspace::new();
        keys.check("ZADD z XX 1 a", ":0");
        keys.check("ZCARD z", ":0");
        keys.check("ZADD z NX 1 a", ":1");
        keys.check("ZADD z NX CH 2 a", ":0");
        keys.check("ZADD z XX CH 2 a 3 b", ":1");
        keys.check("ZADD z GT CH 1 a 5 n", ":1");
        keys.check("ZADD z LT CH 1 a 9 n", ":1");
        keys.check("ZMSCORE z a n", "*2 $1 1 $1 5");
        keys.check("ZADD z INCR 2.5 a", "$3 3.5");
        keys.check("ZADD z INCR 0 a", "$3 3.5");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("ZADD z NX INCR 1 a", "$-1");
        keys.check("ZADD z XX INCR 1 x", "$-1");
        keys.check("ZADD z GT INCR -1 a", "$-1");
        keys.check("ZADD none XX INCR 1 x", "$-1");
        keys.check("ZINCRBY z 1 new", "$1 1");
        keys.protocol = Protocol::Resp3;
        keys.check("ZINCRBY z 1.5 new", ",2.5");
        keys.check("ZADD z NX INCR 1 a", "_");
    }

    #[test]
    fn zadd_refusals_change_nothing() {
        let mut keys = Keyspace::new();
        keys.check("ZADD z inf a", ":1");
        for (command, error) in [
            ("ZADD z 1 a 2", "syntax error"),
            ("ZADD z NX", "wrong number of arguments for 'zadd' command"),
            ("ZADD z NX XX CH", "syntax error"),
            ("ZADD z NX XX 1 a", "XX and NX options at the same time are not compatible"),
            ("ZADD z NX GT 1 a", "GT, LT, and/or NX options at the same time are not compatible"),
            ("ZADD z LT GT 1 a", "GT, LT, and/or NX options at the same time are not compatible"),
            ("ZADD z INCR 1 a 2 b", "INCR option supports a single increment-element pair"),
            ("ZADD z 1 a nan b", "value is not a valid float"),
            ("ZADD z 1 a x b", "value is not a valid float"),
            ("ZINCRBY z -inf a", "resulting score is not a number (NaN)"),
        ] {
            keys.check(command, &format!("-ERR {error}"));
            assert_eq!(keys.effects.dirty, 0);
        }
        keys.check("ZSCORE z a", "$3 inf");
        keys.check("ZCARD z", ":1");
    }

    #[test]
    fn ranks() {
        let mut keys = Keyspace::new();
        keys.check("ZADD z 1 a 2 b 3 c", ":3");
        keys.check("ZRANK z a", ":0");
        keys.check("ZREVRANK z a", ":2");
        keys.check("ZRANK z c WITHSCORE", "*2 :2 $1 3");
        keys.check("ZRANK z x", "$-1");
        keys.check("ZRANK z x WITHSCORE", "*-1");
        keys.check("ZRANK none x", "$-1");
        keys.check("ZRANK z a FOO", "-ERR syntax error");
        keys.check("ZREVRANK z a 1 2", "-ERR wrong number of arguments for 'zrevrank' command");
        keys.protocol = Protocol::Resp3;
        keys.check("ZREVRANK z c withscore", "*2 :0 ,3");
        keys.check("ZREVRANK none c WITHSCORE", "_");
    }

    #[test]
    fn random_members() {
        let mut keys = Keyspace::new();
        keys.check("ZRANDMEMBER z", "$-1");
        keys.check("ZRANDMEMBER z 2", "*0");
        keys.check("ZADD z 1 a", ":1");
        keys.check("ZRANDMEMBER z", "$1 a");
        keys.check("ZRANDMEMBER z 0", "*0");
        keys.check("ZRANDMEMBER z 9 WITHSCORES", "*2 $1 a $1 1");
        keys.check("ZRANDMEMBER z -2 WITHSCORES", "*4 $1 a $1 1 $1 a $1 1");
        keys.check("ZRANDMEMBER z 1 FOO", "-ERR syntax error");
        let range = "-ERR value is out of range";
        keys.check("ZRANDMEMBER z 9223372036854775807 WITHSCORES", range);
        keys.check("ZRANDMEMBER z -9223372036854775807", range);
        keys.protocol = Protocol::Resp3;
        keys.check("ZRANDMEMBER z -2 WITHSCORES", "*2 *2 $1 a ,1 *2 $1 a ,1");
        keys.check("ZRANDMEMBER z 1", "*1 $1 a");
    }

    #[test]
    fn scanning() {
        let mut keys = Keyspace::new();
        keys.check("ZSCAN z 0", "*2 $1 0 *0");
        keys.check("ZADD z 0.1 a 2 b", ":2");
        keys.check("ZSCAN z 0", "*2 $1 0 *4 $1 a $3 0.1 $1 b $1 2");
        keys.protocol = Protocol::Resp3;
        keys.check("ZSCAN z 0 MATCH b", "*2 $1 0 *2 $1 b $1 2");
        keys.check("ZSCAN z 0 COUNT 0", "-ERR syntax error");
    }
}

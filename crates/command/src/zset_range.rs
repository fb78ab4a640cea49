//! Ranges of sorted sets by rank, score or member: answering, counting, storing and removing them.

use std::ops::Range;

use data::{LexRange, ScoreRange, Zset, index_range};
use engine::{Event, Txn};

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::Command;
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::zset::{reply_pair, reply_pairs_header, row, store};

const READ_RANGE: &str = "O(log(N)+M) for N members of the sorted set and M in the range";

pub const TABLE: &[Command<Handler>] = &[
    row("zrange", -4, zrange)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("1.2.0")
        .complexity(READ_RANGE)
        .summary("Answers a range of members by rank, score or name.")
        .syntax("key start:string stop:string [sortby:(BYSCORE | BYLEX)] [REV] [LIMIT offset count] [WITHSCORES]")
        .history(&[("6.2.0", "Has the options REV, BYSCORE, BYLEX and LIMIT.")]),
    row("zrangestore", -5, zrangestore)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::at(1, k::OW | k::UPDATE), KeySpec::at(2, k::RO | k::ACCESS)])
        .since("6.2.0")
        .complexity("O(log(N)+M) for N members of the source and M stored")
        .summary("Stores a range of members of one sorted set as another.")
        .syntax("dst:key src:key min:string max:string [sortby:(BYSCORE | BYLEX)] [REV] [LIMIT offset count]"),
    row("zrevrange", -4, zrevrange)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("1.2.0")
        .complexity(READ_RANGE)
        .summary("Answers a range of members by rank, highest score first.")
        .syntax("key start stop [WITHSCORES]")
        .deprecated("6.2.0", "`ZRANGE` with the `REV` argument"),
    row("zrangebyscore", -4, zrangebyscore)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("1.0.5")
        .complexity(READ_RANGE)
        .summary("Answers the members with scores in a range.")
        .syntax("key min max [WITHSCORES] [LIMIT offset count]")
        .history(&[("2.0.0", "Has the option WITHSCORES.")])
        .deprecated("6.2.0", "`ZRANGE` with the `BYSCORE` argument"),
    row("zrevrangebyscore", -4, zrevrangebyscore)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.2.0")
        .complexity(READ_RANGE)
        .summary("Answers the members with scores in a range, highest score first.")
        .syntax("key max min [WITHSCORES] [LIMIT offset count]")
        .history(&[("2.1.6", "`min` and `max` can be exclusive.")])
        .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments"),
    row("zrangebylex", -4, zrangebylex)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.8.9")
        .complexity(READ_RANGE)
        .summary("Answers the members with names in a range, where all scores are the same.")
        .syntax("key min:string max:string [LIMIT offset count]")
        .deprecated("6.2.0", "`ZRANGE` with the `BYLEX` argument"),
    row("zrevrangebylex", -4, zrevrangebylex)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.8.9")
        .complexity(READ_RANGE)
        .summary("Answers the members with names in a range, last name first.")
        .syntax("key max:string min:string [LIMIT offset count]")
        .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments"),
    row("zcount", 4, zcount)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.0.0")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Counts the members with scores in a range.")
        .syntax("key min max"),
    row("zlexcount", 4, zlexcount)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.8.9")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Counts the members with names in a range.")
        .syntax("key min:string max:string"),
    row("zremrangebyrank", 4, zremrangebyrank)
        .flags(WRITE)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .since("2.0.0")
        .complexity(READ_RANGE)
        .summary("Removes the members with ranks in a range.")
        .syntax("key start stop"),
    row("zremrangebyscore", 4, zremrangebyscore)
        .flags(WRITE)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .since("1.2.0")
        .complexity(READ_RANGE)
        .summary("Removes the members with scores in a range.")
        .syntax("key min max"),
    row("zremrangebylex", 4, zremrangebylex)
        .flags(WRITE)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .since("2.8.9")
        .complexity(READ_RANGE)
        .summary("Removes the members with names in a range.")
        .syntax("key min:string max:string"),
];

/// What a range is given in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// What a command of the family leaves to its options (`None`) and what it fixes.
struct Form {
    /// Where the key, and behind it the two bounds, stand.
    key_at: usize,
    by: Option<By>,
    reverse: Option<bool>,
    /// The result is stored, so there is no WITHSCORES.
    stores: bool,
}

/// The bounds of a range, parsed.
enum Bounds<'a> {
    Rank(i64, i64),
    Score(ScoreRange),
    Lex(LexRange<'a>),
}

/// A whole query: bounds, direction, LIMIT and WITHSCORES.
struct Query<'a> {
    bounds: Bounds<'a>,
    reverse: bool,
    offset: i64,
    /// Negative: all.
    limit: i64,
    with_scores: bool,
}

const WITHSCORES_LEX: Error =
    Error::of("ERR syntax error, WITHSCORES not supported in combination with BYLEX");

impl<'a> Query<'a> {
    /// Reads the arguments of a command of this form; errors come in Redis's order.
    fn parse(form: &Form, args: &[&'a [u8]]) -> Result<Query<'a>> {
        let (mut by, mut reverse) = (form.by, form.reverse);
        let (mut offset, mut limit, mut with_scores) = (0, -1, false);
        let mut at = form.key_at + 3;
        while at < args.len() {
            let option = args[at];
            if !form.stores && is(option, "WITHSCORES") {
                with_scores = true;
            } else if is(option, "LIMIT") && at + 2 < args.len() {
                offset = integer(args[at + 1])?;
                limit = integer(args[at + 2])?;
                at += 2;
            } else if reverse.is_none() && is(option, "REV") {
                reverse = Some(true);
            } else if by.is_none() && is(option, "BYLEX") {
                by = Some(By::Lex);
            } else if by.is_none() && is(option, "BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(Error::SYNTAX);
            }
            at += 1;
        }
        let by = by.unwrap_or(By::Rank);
        let reverse = reverse.unwrap_or(false);
        if limit != -1 && by == By::Rank {
            return Err(Error::LIMIT_ALONE);
        }
        if with_scores && by == By::Lex {
            return Err(WITHSCORES_LEX);
        }
        let (first, second) = (args[form.key_at + 1], args[form.key_at + 2]);
        // In reverse, scores and names are given as max, min; ranks stay start, stop.
        let (min, max) = if reverse { (second, first) } else { (first, second) };
        let bounds = match by {
            By::Rank => Bounds::Rank(integer(first)?, integer(second)?),
            By::Score => Bounds::Score(score_range(min, max)?),
            By::Lex => Bounds::Lex(lex_range(min, max)?),
        };
        Ok(Query { bounds, reverse, offset, limit, with_scores })
    }
}

fn score_range(min: &[u8], max: &[u8]) -> Result<ScoreRange> {
    ScoreRange::parse(min, max).ok_or(Error::MIN_MAX_FLOAT)
}

fn lex_range<'a>(min: &'a [u8], max: &'a [u8]) -> Result<LexRange<'a>> {
    LexRange::parse(min, max).ok_or(Error::MIN_MAX_LEX)
}

impl Bounds<'_> {
    /// The ranks within the bounds, counted from the lowest score whatever the direction.
    fn ranks(&self, zset: &Zset, reverse: bool) -> Range<usize> {
        match self {
            Bounds::Rank(start, stop) => {
                let ranks = index_range(*start, *stop, zset.len());
                if reverse { zset.len() - ranks.end..zset.len() - ranks.start } else { ranks }
            }
            Bounds::Score(range) => zset.score_range(range),
            Bounds::Lex(range) => zset.lex_range(range),
        }
    }
}

impl Query<'_> {
    /// The ranks of the result, LIMIT applied from the end where the direction begins.
    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let Range { start, end } = self.bounds.ranks(zset, self.reverse);
        // By rank there is no LIMIT but the one that limits nothing.
        if matches!(self.bounds, Bounds::Rank(..)) {
            return start..end;
        }
        let Ok(offset) = usize::try_from(self.offset) else { return start..start };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let offset = offset.min(end - start);
        let len = limit.min(end - start - offset);
        if self.reverse {
            end - offset - len..end - offset
        } else {
            start + offset..start + offset + len
        }
    }

    /// Visits the members of the result in its order.
    fn visit<'z>(
        &self,
        txn: &Txn<'_>,
        zset: &'z Zset,
        ranks: Range<usize>,
        mut visit: impl FnMut(&'z [u8], f64),
    ) {
        let members = zset.range(ranks);
        if self.reverse {
            paced(txn, members.rev()).for_each(|(member, score)| visit(member, score));
        } else {
            paced(txn, members).for_each(|(member, score)| visit(member, score));
        }
    }
}

fn reply_range(
    call: &mut Call<'_, '_>,
    args: &[&[u8]],
    by: Option<By>,
    reverse: Option<bool>,
) -> Result {
    let query = Query::parse(&Form { key_at: 1, by, reverse, stores: false }, args)?;
    let Some(zset) = call.txn.read_zset(args[1])? else {
        call.reply.array(0);
        return Ok(());
    };
    let ranks = query.ranks(zset);
    reply_pairs_header(&mut call.reply, ranks.len(), query.with_scores);
    query.visit(call.txn, zset, ranks, |member, score| {
        reply_pair(&mut call.reply, member, score, query.with_scores);
    });
    Ok(())
}

fn zrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_range(call, args, None, None)
}

fn zrevrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_range(call, args, Some(By::Rank), Some(true))
}

fn zrangebyscore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_range(call, args, Some(By::Score), Some(false))
}

fn zrevrangebyscore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_range(call, args, Some(By::Score), Some(true))
}

fn zrangebylex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_range(call, args, Some(By::Lex), Some(false))
}

fn zrevrangebylex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_range(call, args, Some(By::Lex), Some(true))
}

fn zrangestore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let query = Query::parse(&Form { key_at: 2, by: None, reverse: None, stores: true }, args)?;
    let limits = call.txn.limits();
    let mut result = Zset::new();
    if let Some(zset) = call.txn.read_zset(args[2])? {
        let ranks = query.ranks(zset);
        let longest = zset.range(ranks.clone()).map(|(member, _)| member.len()).max();
        result.prepare(ranks.len(), longest.unwrap_or(0), limits);
        // Ascending whatever the direction: the order is lost in storing.
        for (member, score) in paced(call.txn, zset.range(ranks)) {
            result.insert(member, score, limits);
        }
    }
    store(call, args[1], result, "zrangestore")
}

fn zcount(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let range = score_range(args[2], args[3])?;
    let count = call.txn.read_zset(args[1])?.map_or(0, |zset| zset.score_range(&range).len());
    call.reply.integer(count as i64);
    Ok(())
}

fn zlexcount(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let range = lex_range(args[2], args[3])?;
    let count = call.txn.read_zset(args[1])?.map_or(0, |zset| zset.lex_range(&range).len());
    call.reply.integer(count as i64);
    Ok(())
}

fn remove_range(call: &mut Call<'_, '_>, key: &[u8], bounds: &Bounds<'_>) -> Result {
    call.txn.tell_as(Event::zset(match bounds {
        Bounds::Rank(..) => "zremrangebyrank",
        Bounds::Score(_) => "zremrangebyscore",
        Bounds::Lex(_) => "zremrangebylex",
    }));
    let mut removed = 0;
    if let Some(mut zset) = call.txn.write::<Zset>(key)? {
        let ranks = bounds.ranks(&zset, false);
        removed = zset.remove_range(ranks);
    }
    call.reply.integer(removed as i64);
    Ok(())
}

fn zremrangebyrank(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let bounds = Bounds::Rank(integer(args[2])?, integer(args[3])?);
    remove_range(call, args[1], &bounds)
}

fn zremrangebyscore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let bounds = Bounds::Score(score_range(args[2], args[3])?);
    remove_range(call, args[1], &bounds)
}

fn zremrangebylex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let bounds = Bounds::Lex(lex_range(args[2], args[3])?);
    remove_range(call, args[1], &bounds)
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    fn keyspace() -> Keyspace {
        let mut keys = Keyspace::new();
        keys.check("ZADD z 1 a 2 b 3 c 4 d", ":4");
        keys.check("ZADD l 0 a 0 b 0 c 0 d", ":4");
        keys
    }

    #[test]
    fn by_rank() {
        let mut keys = keyspace();
        keys.check("ZRANGE z 0 1", "*2 $1 a $1 b");
        keys.check("ZRANGE z -2 -1 WITHSCORES", "*4 $1 c $1 3 $1 d $1 4");
        keys.check("ZRANGE z 0 1 REV", "*2 $1 d $1 c");
        keys.check("ZREVRANGE z 3 9", "*1 $1 a");
        keys.check("ZRANGE z 5 9", "*0");
        keys.check("ZRANGE none 0 -1", "*0");
        keys.check("ZRANGE z a 1", "-ERR value is not an integer or out of range");
        keys.check("ZREVRANGE z 0 1 REV", "-ERR syntax error");
        let limit = "-ERR syntax error, LIMIT is only supported in combination with either \
                     BYSCORE or BYLEX";
        keys.check("ZRANGE z 0 1 LIMIT 0 1", limit);
        keys.check("ZRANGE z 0 1 LIMIT 1 -1", "*2 $1 a $1 b");
        keys.protocol = Protocol::Resp3;
        keys.check("ZRANGE z 0 1 WITHSCORES", "*2 *2 $1 a ,1 *2 $1 b ,2");
    }

    #[test]
    fn by_score() {
        let mut keys = keyspace();
        keys.check("ZRANGEBYSCORE z (1 3", "*2 $1 b $1 c");
        keys.check("ZRANGEBYSCORE z -inf +inf WITHSCORES LIMIT 1 1", "*2 $1 b $1 2");
        keys.check("ZREVRANGEBYSCORE z 3 (1", "*2 $1 c $1 b");
        keys.check("ZREVRANGEBYSCORE z +inf -inf LIMIT 1 2", "*2 $1 c $1 b");
        keys.check("ZREVRANGEBYSCORE z +inf -inf LIMIT 3 9", "*1 $1 a");
        keys.check("ZRANGE z 3 2 BYSCORE", "*0");
        keys.check("ZRANGE z 3 2 BYSCORE REV LIMIT 0 -1", "*2 $1 c $1 b");
        keys.check("ZRANGEBYSCORE z 0 9 LIMIT -1 2", "*0");
        keys.check("ZRANGEBYSCORE z 0 9 LIMIT 4 2", "*0");
        keys.check("ZRANGEBYSCORE z 0 9 LIMIT 0 0", "*0");
        keys.check("ZCOUNT z (1 (4", ":2");
        keys.check("ZCOUNT z 4 1", ":0");
        let error = "-ERR min or max is not a float";
        keys.check("ZCOUNT none x 1", error);
        keys.check("ZRANGEBYSCORE z (x 1", error);
        keys.check("ZRANGEBYSCORE z nan 1", error);
        keys.check("ZRANGEBYSCORE z 0 1 LIMIT 0", "-ERR syntax error");
        keys.check("ZRANGEBYSCORE z 0 1 BYLEX", "-ERR syntax error");
    }

    #[test]
    fn by_name() {
        let mut keys = keyspace();
        keys.check("ZRANGEBYLEX l - [b", "*2 $1 a $1 b");
        keys.check("ZRANGEBYLEX l (a (d", "*2 $1 b $1 c");
        keys.check("ZREVRANGEBYLEX l + (b LIMIT 0 1", "*1 $1 d");
        keys.check("ZRANGE l [c - BYLEX REV", "*3 $1 c $1 b $1 a");
        keys.check("ZRANGEBYLEX l + -", "*0");
        keys.check("ZLEXCOUNT l - +", ":4");
        keys.check("ZLEXCOUNT l [b (b", ":0");
        let error = "-ERR min or max not valid string range item";
        keys.check("ZLEXCOUNT l b +", error);
        keys.check("ZRANGEBYLEX none -x +", error);
        let scores = "-ERR syntax error, WITHSCORES not supported in combination with BYLEX";
        keys.check("ZRANGEBYLEX l - + WITHSCORES", scores);
    }

    #[test]
    fn storing() {
        let mut keys = keyspace();
        keys.check("SET d text", "+OK");
        keys.check("ZRANGESTORE d z 0 1", ":2");
        keys.check("ZRANGE d 0 -1 WITHSCORES", "*4 $1 a $1 1 $1 b $1 2");
        keys.check("ZRANGESTORE z z (2 +inf BYSCORE", ":2");
        keys.check("ZRANGE z 0 -1", "*2 $1 c $1 d");
        keys.check("ZRANGESTORE d z 5 9", ":0");
        keys.check("ZCARD d", ":0");
        keys.check("ZRANGESTORE d z 0 1 WITHSCORES", "-ERR syntax error");
        keys.check("ZRANGESTORE d l [c - BYLEX REV LIMIT 0 2", ":2");
        keys.check("ZRANGE d 0 -1", "*2 $1 b $1 c");
    }

    #[test]
    fn removing() {
        let mut keys = keyspace();
        keys.check("ZREMRANGEBYRANK z 0 0", ":1");
        keys.check("ZREMRANGEBYSCORE z (2 3", ":1");
        keys.check("ZREMRANGEBYSCORE z 9 10", ":0");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("ZRANGE z 0 -1", "*2 $1 b $1 d");
        keys.check("ZREMRANGEBYRANK z -1 -1", ":1");
        keys.check("ZREMRANGEBYLEX l - (d", ":3");
        keys.check("ZREMRANGEBYLEX l - +", ":1");
        keys.check("ZCARD l", ":0");
        keys.check("ZREMRANGEBYRANK none x 1", "-ERR value is not an integer or out of range");
    }
}

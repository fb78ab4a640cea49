//! Algebra of sorted sets, in which plain sets take part with scores of 1.

use std::borrow::Cow;
use std::cmp::Ordering;

use ahash::{AHashMap, AHashSet};
use data::{Member, Set, Zset};
use engine::{Txn, ValueRef};
use smallvec::SmallVec;

use crate::call::{Call, Handler, Pace, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::Command;
use crate::row::flag::{DENYOOM, MOVABLE_KEYS, READONLY, WRITE};
use crate::set::positive_count;
use crate::zset::{reply_pair, reply_pairs_header, row, store, unsigned_zero};

const UNION: &str = "O(N)+O(M*log(M)) for N members of all inputs and M of the result";
const INTER: &str =
    "O(N*K)+O(M*log(M)) for N members of the smallest of K inputs and M of the result";
const DIFF: &str = "O(N)+O(M*log(M)) for N members of all inputs and M of the result";

const READS: &[KeySpec] = &[KeySpec::counted(1, k::RO | k::ACCESS)];
const STORES: &[KeySpec] =
    &[KeySpec::at(1, k::OW | k::UPDATE), KeySpec::counted(2, k::RO | k::ACCESS)];

const fn reads(name: &'static str, handler: Handler) -> Command<Handler> {
    row(name, -3, handler).flags(READONLY | MOVABLE_KEYS).keys(READS)
}

const fn stores(name: &'static str, handler: Handler) -> Command<Handler> {
    row(name, -4, handler).flags(WRITE | DENYOOM | MOVABLE_KEYS).keys(STORES)
}

pub const TABLE: &[Command<Handler>] = &[
    reads("zunion", zunion)
        .since("6.2.0")
        .complexity(UNION)
        .summary("Answers the members that any of the sorted sets has.")
        .syntax("numkeys key [key ...] [WEIGHTS weight:integer [weight:integer ...]] [AGGREGATE aggregate:(SUM | MIN | MAX)] [WITHSCORES]"),
    stores("zunionstore", zunionstore)
        .since("2.0.0")
        .complexity(UNION)
        .summary("Stores the members that any of the sorted sets has.")
        .syntax("destination:key numkeys key [key ...] [WEIGHTS weight:integer [weight:integer ...]] [AGGREGATE aggregate:(SUM | MIN | MAX)]"),
    reads("zinter", zinter)
        .since("6.2.0")
        .complexity(INTER)
        .summary("Answers the members that all sorted sets have.")
        .syntax("numkeys key [key ...] [WEIGHTS weight:integer [weight:integer ...]] [AGGREGATE aggregate:(SUM | MIN | MAX)] [WITHSCORES]"),
    stores("zinterstore", zinterstore)
        .since("2.0.0")
        .complexity(INTER)
        .summary("Stores the members that all sorted sets have.")
        .syntax("destination:key numkeys key [key ...] [WEIGHTS weight:integer [weight:integer ...]] [AGGREGATE aggregate:(SUM | MIN | MAX)]"),
    reads("zintercard", zintercard)
        .since("7.0.0")
        .complexity("O(N*K) for N members of the smallest of K inputs")
        .summary("Counts the members that all sorted sets have, up to a limit.")
        .syntax("numkeys key [key ...] [LIMIT limit]"),
    reads("zdiff", zdiff)
        .since("6.2.0")
        .complexity(DIFF)
        .summary("Answers the members of the first sorted set that no other has.")
        .syntax("numkeys key [key ...] [WITHSCORES]"),
    stores("zdiffstore", zdiffstore)
        .since("6.2.0")
        .complexity(DIFF)
        .summary("Stores the members of the first sorted set that no other has.")
        .syntax("destination:key numkeys key [key ...]"),
];

/// A value that takes part; missing keys have no members.
#[derive(Clone, Copy)]
enum Source<'t> {
    Missing,
    Set(&'t Set),
    Zset(&'t Zset),
}

/// A member's name: borrowed, but for integers of plain sets, which have no bytes to borrow.
type Name<'t> = Cow<'t, [u8]>;

impl<'t> Source<'t> {
    fn read(txn: &'t Txn<'_>, key: &[u8]) -> Result<Source<'t>> {
        match txn.read(key).map(engine::Entry::get) {
            None => Ok(Source::Missing),
            Some(ValueRef::Set(set)) => Ok(Source::Set(set)),
            Some(ValueRef::Zset(zset)) => Ok(Source::Zset(zset)),
            Some(_) => Err(Error::WRONG_TYPE),
        }
    }

    fn len(self) -> usize {
        match self {
            Source::Missing => 0,
            Source::Set(set) => set.len(),
            Source::Zset(zset) => zset.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Missing => None,
            Source::Set(set) => set.contains(member).then_some(1.0),
            Source::Zset(zset) => zset.score(member),
        }
    }

    /// Visits members and scores until told to stop.
    fn visit(self, mut visit: impl FnMut(Name<'t>, f64) -> bool) {
        match self {
            Source::Missing => {}
            Source::Set(set) => {
                let _ = set.iter().all(|member| match member {
                    Member::Bytes(bytes) => visit(Cow::Borrowed(bytes), 1.0),
                    Member::Integer(digits) => visit(Cow::Owned(digits.to_vec()), 1.0),
                });
            }
            Source::Zset(zset) => {
                let _ = zset.iter().all(|(member, score)| visit(Cow::Borrowed(member), score));
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            // Infinities of both signs add up to 0.
            Aggregate::Sum => not_nan(a + b),
            Aggregate::Min if b < a => b,
            Aggregate::Max if b > a => b,
            Aggregate::Min | Aggregate::Max => a,
        }
    }
}

/// A weight of 0 makes nothing of an infinite score.
fn not_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
    Card,
}

struct Input<'t> {
    source: Source<'t>,
    weight: f64,
}

/// The arguments from the number of keys on.
struct Query<'t, 'e> {
    txn: &'t Txn<'e>,
    inputs: SmallVec<[Input<'t>; 8]>,
    aggregate: Aggregate,
    with_scores: bool,
    /// 0 for none.
    limit: usize,
}

impl<'t, 'e> Query<'t, 'e> {
    /// Reads the arguments; the inputs' types are looked at before the options, as in Redis.
    fn parse(
        txn: &'t Txn<'e>,
        name: &str,
        args: &[&[u8]],
        operation: Operation,
        stores: bool,
    ) -> Result<Query<'t, 'e>> {
        let numkeys = integer(args[0])?;
        if numkeys < 1 {
            return Err(Error::new(format!(
                "ERR at least 1 input key is needed for '{name}' command"
            )));
        }
        let numkeys = numkeys as usize;
        if numkeys > args.len() - 1 {
            return Err(Error::SYNTAX);
        }
        let (keys, mut options) = args[1..].split_at(numkeys);
        let mut inputs = SmallVec::with_capacity(numkeys);
        for key in keys {
            inputs.push(Input { source: Source::read(txn, key)?, weight: 1.0 });
        }
        let mut query =
            Query { txn, inputs, aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
        let weighs = matches!(operation, Operation::Union | Operation::Inter);
        while let [option, rest @ ..] = options {
            if weighs && rest.len() >= numkeys && is(option, "WEIGHTS") {
                let (weights, rest) = rest.split_at(numkeys);
                for (input, weight) in query.inputs.iter_mut().zip(weights) {
                    input.weight = crate::call::float(weight)
                        .map_err(|_| Error::of("ERR weight value is not a float"))?;
                }
                options = rest;
            } else if weighs && !rest.is_empty() && is(option, "AGGREGATE") {
                query.aggregate = match rest[0] {
                    word if is(word, "SUM") => Aggregate::Sum,
                    word if is(word, "MIN") => Aggregate::Min,
                    word if is(word, "MAX") => Aggregate::Max,
                    _ => return Err(Error::SYNTAX),
                };
                options = &rest[1..];
            } else if !stores && operation != Operation::Card && is(option, "WITHSCORES") {
                query.with_scores = true;
                options = rest;
            } else if operation == Operation::Card && !rest.is_empty() && is(option, "LIMIT") {
                query.limit = positive_count(rest[0])
                    .map_err(|_| Error::of("ERR LIMIT can't be negative"))?;
                options = &rest[1..];
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(query)
    }

    /// The result in the order of sorted sets.
    fn run(mut self, operation: Operation) -> Vec<(Name<'t>, f64)> {
        let mut result = match operation {
            Operation::Union => self.union(),
            Operation::Inter => {
                let mut common = Vec::new();
                self.intersect(|member, score| {
                    common.push((member, score));
                    true
                });
                common
            }
            Operation::Diff => self.difference(),
            Operation::Card => unreachable!("counted without a result"),
        };
        let by_score_and_name = |a: &(Name<'_>, f64), b: &(Name<'_>, f64)| {
            a.1.partial_cmp(&b.1).expect("scores are never NaN").then_with(|| a.0.cmp(&b.0))
        };
        sort(self.txn, &mut result, &by_score_and_name);
        result
    }

    /// Smallest first: scores are joined in this order, and an intersection walks the first.
    fn sort(&mut self) {
        self.inputs.sort_by_key(|input| input.source.len());
    }

    fn union(&mut self) -> Vec<(Name<'t>, f64)> {
        self.sort();
        let largest = self.inputs.last().map_or(0, |input| input.source.len());
        let mut pace = Pace::of(self.txn);
        let mut all: AHashMap<Name<'t>, f64> = AHashMap::with_capacity(largest);
        for input in &self.inputs {
            input.source.visit(|member, score| {
                if !pace.goes_on() {
                    return false;
                }
                let score = not_nan(score * input.weight);
                all.entry(member)
                    .and_modify(|sum| *sum = self.aggregate.join(*sum, score))
                    .or_insert(score);
                true
            });
        }
        all.into_iter().collect()
    }

    fn intersect(&mut self, mut visit: impl FnMut(Name<'t>, f64) -> bool) {
        self.sort();
        let Some((smallest, others)) = self.inputs.split_first() else { return };
        let mut pace = Pace::of(self.txn);
        smallest.source.visit(|member, score| {
            if !pace.goes_on() {
                return false;
            }
            let mut sum = not_nan(score * smallest.weight);
            for other in others {
                let Some(score) = other.source.score(&member) else { return true };
                sum = self.aggregate.join(sum, score * other.weight);
            }
            visit(member, sum)
        });
    }

    /// Each member of the first input is looked up in the others, or in the union of their names
    /// where that is cheaper.
    fn difference(&mut self) -> Vec<(Name<'t>, f64)> {
        let mut left = Vec::new();
        let Some((first, others)) = self.inputs.split_first() else { return left };
        let first = first.source;
        let mut pace = Pace::of(self.txn);
        let names: usize = others.iter().map(|other| other.source.len()).sum();
        let mut excluded: AHashSet<Name<'t>> = AHashSet::new();
        let join = first.len().saturating_mul(others.len()) > first.len() + names;
        if join {
            for other in others {
                other.source.visit(|member, _| {
                    excluded.insert(member);
                    pace.goes_on()
                });
            }
        }
        first.visit(|member, score| {
            let is_excluded = if join {
                excluded.contains(&member)
            } else {
                others.iter().any(|other| other.source.score(&member).is_some())
            };
            if !is_excluded {
                left.push((member, score));
            }
            pace.goes_on()
        });
        left
    }
}

/// Items that are sorted without a look at the stop flag.
const SORTED_AT_ONCE_MAX: usize = 1 << 16;

/// Sorts; breaks off when the script is to end.
fn sort<T>(txn: &Txn<'_>, items: &mut [T], order: &impl Fn(&T, &T) -> Ordering) {
    if items.len() <= SORTED_AT_ONCE_MAX {
        items.sort_unstable_by(order);
    } else if !txn.should_stop() {
        let (before, _, behind) = items.select_nth_unstable_by(items.len() / 2, order);
        sort(txn, before, order);
        sort(txn, behind, order);
    }
}

fn answer(call: &mut Call<'_, '_>, args: &[&[u8]], name: &str, operation: Operation) -> Result {
    let query = Query::parse(call.txn, name, &args[1..], operation, false)?;
    let with_scores = query.with_scores;
    let result = query.run(operation);
    reply_pairs_header(&mut call.reply, result.len(), with_scores);
    for (member, score) in paced(call.txn, result.iter()) {
        reply_pair(&mut call.reply, member, *score, with_scores);
    }
    Ok(())
}

fn store_result(
    call: &mut Call<'_, '_>,
    args: &[&[u8]],
    name: &'static str,
    operation: Operation,
) -> Result {
    let limits = call.txn.limits();
    let result = Query::parse(call.txn, name, &args[2..], operation, true)?.run(operation);
    let mut zset = Zset::new();
    let longest = result.iter().map(|(member, _)| member.len()).max().unwrap_or(0);
    zset.prepare(result.len(), longest, limits);
    for (member, score) in paced(call.txn, result.iter()) {
        zset.insert(member, unsigned_zero(*score), limits);
    }
    drop(result);
    store(call, args[1], zset, name)
}

fn zunion(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    answer(call, args, "zunion", Operation::Union)
}

fn zunionstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    store_result(call, args, "zunionstore", Operation::Union)
}

fn zinter(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    answer(call, args, "zinter", Operation::Inter)
}

fn zinterstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    store_result(call, args, "zinterstore", Operation::Inter)
}

fn zdiff(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    answer(call, args, "zdiff", Operation::Diff)
}

fn zdiffstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    store_result(call, args, "zdiffstore", Operation::Diff)
}

fn zintercard(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut query = Query::parse(call.txn, "zintercard", &args[1..], Operation::Card, false)?;
    let (mut count, limit) = (0, query.limit);
    query.intersect(|_, _| {
        count += 1;
        count != limit
    });
    call.reply.integer(count as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    fn keyspace() -> Keyspace {
        let mut keys = Keyspace::new();
        keys.check("ZADD a 1 x 2 y 3 z", ":3");
        keys.check("ZADD b 10 y 20 z 30 w", ":3");
        keys.check("SADD s z 7", ":2");
        keys
    }

    #[test]
    fn unions() {
        let mut keys = keyspace();
        keys.check("ZUNION 2 a b WITHSCORES", "*8 $1 x $1 1 $1 y $2 12 $1 z $2 23 $1 w $2 30");
        keys.check(
            "ZUNION 2 a s WITHSCORES AGGREGATE MIN",
            "*8 $1 7 $1 1 $1 x $1 1 $1 z $1 1 $1 y $1 2",
        );
        keys.check("ZUNION 2 a b WEIGHTS 2 0 AGGREGATE MAX", "*4 $1 w $1 x $1 y $1 z");
        keys.check("ZUNION 1 none", "*0");
        keys.check("ZADD inf inf m", ":1");
        keys.check("ZADD minus -inf m", ":1");
        keys.check("ZUNION 2 inf minus WITHSCORES", "*2 $1 m $1 0");
        keys.check("ZUNION 1 inf WEIGHTS 0 WITHSCORES", "*2 $1 m $1 0");
        keys.check("ZUNION 1 inf WEIGHTS -inf WITHSCORES", "*2 $1 m $4 -inf");
        keys.protocol = Protocol::Resp3;
        keys.check("ZUNION 1 s WITHSCORES", "*2 *2 $1 7 ,1 *2 $1 z ,1");
    }

    #[test]
    fn intersections_and_differences() {
        let mut keys = keyspace();
        keys.check("ZINTER 2 a b WITHSCORES", "*4 $1 y $2 12 $1 z $2 23");
        keys.check("ZINTER 3 a b s WITHSCORES WEIGHTS 1 1 100", "*2 $1 z $3 123");
        keys.check("ZINTER 2 a a WITHSCORES AGGREGATE MIN", "*6 $1 x $1 1 $1 y $1 2 $1 z $1 3");
        keys.check("ZINTER 2 a none", "*0");
        keys.check("ZINTERCARD 2 a b", ":2");
        keys.check("ZINTERCARD 2 a b LIMIT 1", ":1");
        keys.check("ZINTERCARD 2 a none LIMIT 0", ":0");
        keys.check("ZDIFF 2 a s WITHSCORES", "*4 $1 x $1 1 $1 y $1 2");
        keys.check("ZDIFF 2 s a", "*1 $1 7");
        keys.check("ZDIFF 9 a s s s s s s s s", "*2 $1 x $1 y");
        keys.check("ZDIFF 2 a a", "*0");
    }

    #[test]
    fn stores() {
        let mut keys = keyspace();
        keys.check("ZUNIONSTORE s 2 a s", ":4");
        keys.check("ZRANGE s 0 -1 WITHSCORES", "*8 $1 7 $1 1 $1 x $1 1 $1 y $1 2 $1 z $1 4");
        keys.check("ZINTERSTORE a 2 a b WEIGHTS 2 1", ":2");
        keys.check("ZRANGE a 0 -1 WITHSCORES", "*4 $1 y $2 14 $1 z $2 26");
        keys.check("ZDIFFSTORE a 2 a b", ":0");
        keys.check("ZCARD a", ":0");
    }

    #[test]
    fn refusals() {
        let mut keys = keyspace();
        keys.check("SET str v", "+OK");
        let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        for (command, reply) in [
            ("ZUNION 0 a", "-ERR at least 1 input key is needed for 'zunion' command"),
            ("ZINTERSTORE d 0 a", "-ERR at least 1 input key is needed for 'zinterstore' command"),
            ("ZUNION x a", "-ERR value is not an integer or out of range"),
            ("ZUNION 2 a", "-ERR syntax error"),
            ("ZUNION 2 a str FOO", wrong_type),
            ("ZUNION 2 a b WEIGHTS 1", "-ERR syntax error"),
            ("ZUNION 2 a b WEIGHTS 1 x", "-ERR weight value is not a float"),
            ("ZUNION 1 a AGGREGATE AVG", "-ERR syntax error"),
            ("ZUNIONSTORE d 1 a WITHSCORES", "-ERR syntax error"),
            ("ZDIFF 1 a WEIGHTS 1", "-ERR syntax error"),
            ("ZINTERCARD 1 a WITHSCORES", "-ERR syntax error"),
            ("ZINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative"),
        ] {
            keys.check(command, reply);
        }
    }
}

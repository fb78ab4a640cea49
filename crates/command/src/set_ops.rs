//! Set algebra: intersections, unions and differences, answered, counted or stored.

use engine::Event;
use std::cmp::Reverse;

use data::Set;
use smallvec::SmallVec;

use crate::call::{Call, Handler, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, MOVABLE_KEYS, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::set::positive_count;

const INTER: &str = "O(N*M) for N members of the smallest set and M sets";
const ALL_MEMBERS: &str = "O(N) for N members of all sets";

const READS: &[KeySpec] = &[KeySpec::all(k::RO | k::ACCESS)];
const STORES: &[KeySpec] =
    &[KeySpec::at(1, k::OW | k::UPDATE), KeySpec::range(2, -1, 1, k::RO | k::ACCESS)];
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Set, name, arity, handler)
}

pub const TABLE: &[Command<Handler>] = &[
    row("sinter", -2, sinter)
        .flags(READONLY)
        .keys(READS)
        .complexity(INTER)
        .summary("Answers the members that all sets have.")
        .syntax("key [key ...]")
        .tips(ANY_ORDER),
    row("sintercard", -3, sintercard)
        .flags(READONLY | MOVABLE_KEYS)
        .keys(&[KeySpec::counted(1, k::RO | k::ACCESS)])
        .since("7.0.0")
        .complexity(INTER)
        .summary("Counts the members that all sets have, up to a limit.")
        .syntax("numkeys key [key ...] [LIMIT limit]"),
    row("sinterstore", -3, sinterstore)
        .flags(WRITE | DENYOOM)
        .keys(STORES)
        .complexity(INTER)
        .summary("Stores the members that all sets have.")
        .syntax("destination:key key [key ...]"),
    row("sunion", -2, sunion)
        .flags(READONLY)
        .keys(READS)
        .complexity(ALL_MEMBERS)
        .summary("Answers the members that any of the sets has.")
        .syntax("key [key ...]")
        .tips(ANY_ORDER),
    row("sunionstore", -3, sunionstore)
        .flags(WRITE | DENYOOM)
        .keys(STORES)
        .complexity(ALL_MEMBERS)
        .summary("Stores the members that any of the sets has.")
        .syntax("destination:key key [key ...]"),
    row("sdiff", -2, sdiff)
        .flags(READONLY)
        .keys(READS)
        .complexity(ALL_MEMBERS)
        .summary("Answers the members of the first set that no other set has.")
        .syntax("key [key ...]")
        .tips(ANY_ORDER),
    row("sdiffstore", -3, sdiffstore)
        .flags(WRITE | DENYOOM)
        .keys(STORES)
        .complexity(ALL_MEMBERS)
        .summary("Stores the members of the first set that no other set has.")
        .syntax("destination:key key [key ...]"),
];

/// The sets of the given keys in their order, `None` for keys that are not there.
type Inputs<'t> = SmallVec<[Option<&'t Set>; 8]>;

fn inputs<'t>(txn: &'t engine::Txn<'_>, keys: &[&[u8]]) -> Result<Inputs<'t>> {
    keys.iter().map(|key| Ok(txn.read_set(key)?)).collect()
}

/// Visits the members that all sets have, until told to stop. The smallest set is walked and
/// looked up in the others, the likeliest to miss first.
fn intersect(txn: &engine::Txn<'_>, sets: &[Option<&Set>], mut visit: impl FnMut(&[u8]) -> bool) {
    let Some(mut sets) = sets.iter().copied().collect::<Option<SmallVec<[&Set; 8]>>>() else {
        return;
    };
    sets.sort_by_key(|set| set.len());
    let (smallest, others) = sets.split_first().expect("the arity asks for a key");
    for member in paced(txn, smallest.iter()) {
        let in_all =
            others.iter().all(|other| std::ptr::eq(*other, *smallest) || other.contains(&member));
        if in_all && !visit(&member) {
            return;
        }
    }
}

fn union(txn: &engine::Txn<'_>, sets: &[Option<&Set>]) -> Set {
    let limits = txn.limits();
    let mut all = Set::new();
    for member in paced(txn, sets.iter().flatten().flat_map(|set| set.iter())) {
        all.add(&member, limits);
    }
    all
}

/// The members of the first set without those of the others, by the cheaper of two ways: look up
/// each in the others, or take the others' members out of a copy.
fn difference(txn: &engine::Txn<'_>, sets: &[Option<&Set>]) -> Set {
    let limits = txn.limits();
    let Some((Some(first), others)) = sets.split_first() else { return Set::new() };
    let mut others: SmallVec<[&Set; 8]> = others.iter().copied().flatten().collect();
    let mut left = Set::new();
    if others.iter().any(|other| std::ptr::eq(*other, *first)) {
        return left;
    }
    let lookups = first.len() * (others.len() + 1) / 2;
    let removals = first.len() + others.iter().map(|set| set.len()).sum::<usize>();
    if lookups <= removals {
        // The largest is the likeliest to have a member.
        others.sort_by_key(|set| Reverse(set.len()));
        for member in paced(txn, first.iter()) {
            if !others.iter().any(|other| other.contains(&member)) {
                left.add(&member, limits);
            }
        }
    } else {
        for member in paced(txn, first.iter()) {
            left.add(&member, limits);
        }
        for member in paced(txn, others.iter().flat_map(|set| set.iter())) {
            left.remove(&member);
            if left.is_empty() {
                break;
            }
        }
    }
    left
}

fn reply_set(call: &mut Call<'_, '_>, set: &Set) {
    call.reply.set(set.len());
    paced(call.txn, set.iter()).for_each(|member| call.reply.bulk(&member));
}

/// Puts a result under its key and answers its size; an empty result removes the key.
fn store(call: &mut Call<'_, '_>, destination: &[u8], set: Set, name: &'static str) -> Result {
    if call.txn.should_stop() {
        call.txn.discard(engine::Collection::Set(set));
        return Err(Error::STOPPED);
    }
    let len = set.len();
    if len == 0 {
        call.txn.remove(destination);
    } else {
        call.txn.tell_as(Event::set(name));
        call.txn.put(destination, engine::Collection::Set(set), None);
    }
    call.reply.integer(len as i64);
    Ok(())
}

fn sinter(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let sets = inputs(call.txn, &args[1..])?;
    let members = call.reply.deferred_array();
    let mut count = 0;
    intersect(call.txn, &sets, |member| {
        call.reply.bulk(member);
        count += 1;
        true
    });
    call.reply.finish_set(members, count);
    Ok(())
}

fn sintercard(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let numkeys = match crate::call::integer(args[1]) {
        Ok(count @ 1..) => count as usize,
        _ => return Err(Error::NUMKEYS_POSITIVE),
    };
    if numkeys > args.len() - 2 {
        return Err(Error::of("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, mut options) = args[2..].split_at(numkeys);
    let mut limit = 0;
    while let [option, rest @ ..] = options {
        match rest {
            [value, rest @ ..] if is(option, "LIMIT") => {
                limit =
                    positive_count(value).map_err(|_| Error::of("ERR LIMIT can't be negative"))?;
                options = rest;
            }
            _ => return Err(Error::SYNTAX),
        }
    }
    let sets = inputs(call.txn, keys)?;
    let mut count = 0;
    intersect(call.txn, &sets, |_| {
        count += 1;
        count != limit
    });
    call.reply.integer(count as i64);
    Ok(())
}

fn sinterstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let limits = call.txn.limits();
    let sets = inputs(call.txn, &args[2..])?;
    let mut common = Set::new();
    intersect(call.txn, &sets, |member| {
        common.add(member, limits);
        true
    });
    drop(sets);
    store(call, args[1], common, "sinterstore")
}

fn sunion(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let all = union(call.txn, &inputs(call.txn, &args[1..])?);
    reply_set(call, &all);
    Ok(())
}

fn sunionstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let all = union(call.txn, &inputs(call.txn, &args[2..])?);
    store(call, args[1], all, "sunionstore")
}

fn sdiff(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let left = difference(call.txn, &inputs(call.txn, &args[1..])?);
    reply_set(call, &left);
    Ok(())
}

fn sdiffstore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let left = difference(call.txn, &inputs(call.txn, &args[2..])?);
    store(call, args[1], left, "sdiffstore")
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    fn keyspace() -> Keyspace {
        let mut keys = Keyspace::new();
        keys.check("SADD a 1 2 3 4", ":4");
        keys.check("SADD b 2 3 x", ":3");
        keys.check("SADD c 3 4", ":2");
        keys
    }

    #[test]
    fn answers() {
        let mut keys = keyspace();
        keys.check("SINTER a b", "*2 $1 2 $1 3");
        keys.check("SINTER a b c", "*1 $1 3");
        keys.check("SINTER a none", "*0");
        keys.check("SUNION a c", "*4 $1 1 $1 2 $1 3 $1 4");
        keys.check("SUNION none", "*0");
        keys.check("SDIFF a b", "*2 $1 1 $1 4");
        keys.check("SDIFF a b c", "*1 $1 1");
        keys.check("SDIFF a c a", "*0");
        keys.check("SDIFF none a", "*0");
        keys.protocol = Protocol::Resp3;
        keys.check("SINTER a b", "~2 $1 2 $1 3");
        keys.check("SINTER none", "~0");
        keys.check("SUNION c none", "~2 $1 3 $1 4");
        keys.check("SDIFF c b", "~1 $1 4");
    }

    #[test]
    fn differences_of_both_ways_agree() {
        let mut keys = Keyspace::new();
        let numbers = |from: i32, to: i32| {
            (from..to).map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
        };
        keys.run(&format!("SADD large {}", numbers(0, 100)));
        keys.run(&format!("SADD most {}", numbers(3, 100)));
        // One other set is cheapest to look up in, many small ones are cheapest to take out.
        keys.check("SDIFF large most", "*3 $1 0 $1 1 $1 2");
        keys.run("SADD tiny 0");
        let many = "tiny ".repeat(9);
        let expected = keys.run("SDIFF large tiny");
        keys.check(&format!("SDIFF large {}", many.trim_end()), &expected);
    }

    #[test]
    fn stores() {
        let mut keys = keyspace();
        keys.check("SET d text", "+OK");
        keys.check("SUNIONSTORE d a b", ":5");
        keys.check("SCARD d", ":5");
        keys.check("SINTERSTORE a a b", ":2");
        keys.check("SMEMBERS a", "*2 $1 2 $1 3");
        keys.check("SDIFFSTORE d a b", ":0");
        keys.check("SCARD d", ":0");
        keys.check("SINTERSTORE b b none", ":0");
        keys.check("SCARD b", ":0");
        keys.check("SINTERSTORE none none2 c", ":0");
        assert_eq!(keys.effects.dirty, 0);
    }

    #[test]
    fn counting() {
        let mut keys = keyspace();
        keys.check("SINTERCARD 2 a b", ":2");
        keys.check("SINTERCARD 2 a b LIMIT 0", ":2");
        keys.check("SINTERCARD 2 a b LIMIT 1", ":1");
        keys.check("SINTERCARD 2 a b LIMIT 9", ":2");
        keys.check("SINTERCARD 2 a none", ":0");
        keys.check("SINTERCARD 0 a", "-ERR numkeys should be greater than 0");
        keys.check("SINTERCARD x a", "-ERR numkeys should be greater than 0");
        keys.check("SINTERCARD 2 a", "-ERR Number of keys can't be greater than number of args");
        keys.check("SINTERCARD 1 a LIMIT", "-ERR syntax error");
        keys.check("SINTERCARD 1 a LIMIT -1", "-ERR LIMIT can't be negative");
    }

    #[test]
    fn wrong_types_are_refused_even_beside_missing_keys() {
        let mut keys = keyspace();
        keys.check("SET str v", "+OK");
        let error = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        for command in [
            "SINTER none str",
            "SUNION a str",
            "SDIFF none str",
            "SINTERCARD 2 none str",
            "SUNIONSTORE d a str",
        ] {
            keys.check(command, error);
        }
    }
}

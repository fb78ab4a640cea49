//! Taking members from the ends of sorted sets, at once or when there are some.

use data::Zset;
use engine::{Event, Mut};
use resp::{Protocol, Reply};

use crate::call::{Blocking, Call, OnTimeout, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::Command;
use crate::row::flag::{BLOCKING, FAST, MOVABLE_KEYS, WRITE};
use crate::set::positive_count;
use crate::zset::row;

const POPPED: u16 = k::RW | k::ACCESS | k::DELETE;
const MPOP: &str = "O(K) + O(M*log(N)) for K keys, N members of the sorted set and M popped";

pub const TABLE: &[Command<crate::Handler>] = &[
    row("zpopmin", -2, zpopmin)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(POPPED)])
        .since("5.0.0")
        .complexity("O(log(N)*M) for N members of the sorted set and M popped")
        .summary("Removes the members with the lowest scores and answers them.")
        .syntax("key [count]"),
    row("zpopmax", -2, zpopmax)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(POPPED)])
        .since("5.0.0")
        .complexity("O(log(N)*M) for N members of the sorted set and M popped")
        .summary("Removes the members with the highest scores and answers them.")
        .syntax("key [count]"),
    row("bzpopmin", -3, bzpopmin)
        .flags(WRITE | FAST | BLOCKING)
        .keys(&[KeySpec::range(1, -2, 1, POPPED)])
        .since("5.0.0")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Removes the member with the lowest score, waiting for one if need be.")
        .syntax("key [key ...] timeout:double")
        .history(&[("6.0.0", "The timeout is a double.")]),
    row("bzpopmax", -3, bzpopmax)
        .flags(WRITE | FAST | BLOCKING)
        .keys(&[KeySpec::range(1, -2, 1, POPPED)])
        .since("5.0.0")
        .complexity("O(log(N)) for N members of the sorted set")
        .summary("Removes the member with the highest score, waiting for one if need be.")
        .syntax("key [key ...] timeout:double")
        .history(&[("6.0.0", "The timeout is a double.")]),
    row("zmpop", -4, zmpop)
        .flags(WRITE | MOVABLE_KEYS)
        .keys(&[KeySpec::counted(1, POPPED)])
        .since("7.0.0")
        .complexity(MPOP)
        .summary("Removes members from one end of the first sorted set that is there.")
        .syntax("numkeys key [key ...] where:(MIN | MAX) [COUNT count]"),
    row("bzmpop", -5, bzmpop)
        .flags(WRITE | BLOCKING | MOVABLE_KEYS)
        .keys(&[KeySpec::counted(2, POPPED)])
        .since("7.0.0")
        .complexity(MPOP)
        .summary(
            "Removes members from one end of the first sorted set there is, waiting if need be.",
        )
        .syntax("timeout:double numkeys key [key ...] where:(MIN | MAX) [COUNT count]"),
];

/// From which end members are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

/// How popped members are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Member, score, member, score…
    Flat,
    /// An array for each member with its score.
    Pairs,
    /// The key first, then the only member and its score.
    KeyFlat,
    /// The key, and an array of pairs.
    KeyPairs,
}

/// Takes up to `count` (not 0) members and answers them.
fn pop(
    reply: &mut Reply<'_>,
    zset: &mut Mut<'_, '_, Zset>,
    key: &[u8],
    end: End,
    count: usize,
    layout: Layout,
) {
    let len = zset.len();
    let count = count.min(len);
    match layout {
        Layout::Flat => reply.array(2 * count),
        Layout::Pairs => reply.array(count),
        Layout::KeyFlat => {
            reply.array(1 + 2 * count);
            reply.bulk(key);
        }
        Layout::KeyPairs => {
            reply.array(2);
            reply.bulk(key);
            reply.array(count);
        }
    }
    let mut write = |member: &[u8], score: f64| {
        if matches!(layout, Layout::Pairs | Layout::KeyPairs) {
            reply.array(2);
        }
        reply.bulk(member);
        reply.double(score);
    };
    zset.tell_as(Event::zset(match end {
        End::Min => "zpopmin",
        End::Max => "zpopmax",
    }));
    match end {
        End::Min => {
            zset.remove_range_with(0..count, write);
        }
        End::Max => {
            for (step, (member, score)) in zset.range(len - count..len).rev().enumerate() {
                write(member, score);
                if step % 1024 == 1023 && zset.may_break_off() {
                    return;
                }
            }
            zset.remove_range(len - count..len);
        }
    }
}

fn zpopmin(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop_one_key(call, args, End::Min)
}

fn zpopmax(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop_one_key(call, args, End::Max)
}

fn pop_one_key(call: &mut Call<'_, '_>, args: &[&[u8]], end: End) -> Result {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let count = args.get(2).map(|arg| positive_count(arg)).transpose()?;
    let nested = count.is_some() && call.reply.protocol() == Protocol::Resp3;
    let layout = if nested { Layout::Pairs } else { Layout::Flat };
    match call.txn.write::<Zset>(args[1])? {
        Some(mut zset) if count != Some(0) => {
            pop(&mut call.reply, &mut zset, args[1], end, count.unwrap_or(1), layout);
        }
        _ => call.reply.array(0),
    }
    Ok(())
}

fn bzpopmin(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop_or_wait(call, &args[1..args.len() - 1], args[args.len() - 1], End::Min, 1, Layout::KeyFlat)
}

fn bzpopmax(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop_or_wait(call, &args[1..args.len() - 1], args[args.len() - 1], End::Max, 1, Layout::KeyFlat)
}

/// Pops from the first key that holds a sorted set, or waits for one.
fn pop_or_wait(
    call: &mut Call<'_, '_>,
    keys: &[&[u8]],
    timeout: &[u8],
    end: End,
    count: usize,
    layout: Layout,
) -> Result {
    let deadline_ms = call.deadline(timeout)?;
    for key in keys {
        let must_queue = call.must_queue(key);
        match call.txn.write::<Zset>(key) {
            Ok(None) => {}
            Ok(Some(_)) if must_queue => {}
            Ok(Some(mut zset)) => {
                pop(&mut call.reply, &mut zset, key, end, count, layout);
                return Ok(());
            }
            // A waiting client goes on waiting whatever the key became.
            Err(_) if call.blocking == Blocking::Again => {}
            Err(error) => return Err(error.into()),
        }
    }
    call.wait(keys, deadline_ms, OnTimeout::NullArray);
    Ok(())
}

/// What ZMPOP and BZMPOP say from the number of keys on.
struct MultiPop<'a, 'b> {
    keys: &'b [&'a [u8]],
    end: End,
    count: usize,
}

impl<'a, 'b> MultiPop<'a, 'b> {
    fn parse(args: &'b [&'a [u8]]) -> Result<MultiPop<'a, 'b>> {
        let numkeys = match integer(args[0]) {
            Ok(numkeys @ 1..) => numkeys as usize,
            _ => return Err(Error::NUMKEYS_POSITIVE),
        };
        if numkeys >= args.len() - 1 {
            return Err(Error::SYNTAX);
        }
        let (keys, options) = args[1..].split_at(numkeys);
        let end = match options[0] {
            word if is(word, "MIN") => End::Min,
            word if is(word, "MAX") => End::Max,
            _ => return Err(Error::SYNTAX),
        };
        let count = match &options[1..] {
            [] => 1,
            [word, count, rest @ ..] if is(word, "COUNT") => {
                let count = match integer(count) {
                    Ok(count @ 1..) => count as usize,
                    _ => return Err(Error::of("ERR count should be greater than 0")),
                };
                if !rest.is_empty() {
                    return Err(Error::SYNTAX);
                }
                count
            }
            _ => return Err(Error::SYNTAX),
        };
        Ok(MultiPop { keys, end, count })
    }
}

fn zmpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let MultiPop { keys, end, count } = MultiPop::parse(&args[1..])?;
    for key in keys {
        if let Some(mut zset) = call.txn.write::<Zset>(key)? {
            pop(&mut call.reply, &mut zset, key, end, count, Layout::KeyPairs);
            return Ok(());
        }
    }
    call.reply.null_array();
    Ok(())
}

fn bzmpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let MultiPop { keys, end, count } = MultiPop::parse(&args[2..])?;
    pop_or_wait(call, keys, args[1], end, count, Layout::KeyPairs)
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::Blocking;
    use crate::testing::Keyspace;

    fn keyspace() -> Keyspace {
        let mut keys = Keyspace::new();
        keys.check("ZADD z 1 a 2 b 3 c 4 d", ":4");
        keys.check("SET str v", "+OK");
        keys
    }

    #[test]
    fn from_one_key() {
        let mut keys = keyspace();
        keys.check("ZPOPMIN z", "*2 $1 a $1 1");
        keys.check("ZPOPMAX z 2", "*4 $1 d $1 4 $1 c $1 3");
        keys.check("ZPOPMIN z 0", "*0");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("ZPOPMIN none", "*0");
        keys.check("ZPOPMIN z -1", "-ERR value is out of range, must be positive");
        keys.check("ZPOPMIN z 1 2", "-ERR syntax error");
        keys.protocol = Protocol::Resp3;
        keys.check("ZADD z 9 n", ":1");
        keys.check("ZPOPMAX z", "*2 $1 n ,9");
        keys.check("ZPOPMAX z 9", "*1 *2 $1 b ,2");
        keys.check("ZCARD z", ":0");
    }

    #[test]
    fn from_the_first_of_several() {
        let mut keys = keyspace();
        keys.check("ZMPOP 2 none z MIN", "*2 $1 z *1 *2 $1 a $1 1");
        keys.check("ZMPOP 1 z MAX COUNT 9", "*2 $1 z *3 *2 $1 d $1 4 *2 $1 c $1 3 *2 $1 b $1 2");
        keys.check("ZMPOP 1 z MIN", "*-1");
        for (command, reply) in [
            ("ZMPOP 0 z MIN", "-ERR numkeys should be greater than 0"),
            ("ZMPOP 1 z MID", "-ERR syntax error"),
            ("ZMPOP 2 z MIN", "-ERR syntax error"),
            ("ZMPOP 1 z MIN COUNT 0", "-ERR count should be greater than 0"),
            ("ZMPOP 1 z MIN COUNT 1 COUNT 1", "-ERR syntax error"),
            ("ZMPOP 1 z MIN COUNT", "-ERR syntax error"),
        ] {
            keys.check(command, reply);
        }
    }

    #[test]
    fn blocking() {
        let mut keys = keyspace();
        keys.check("BZPOPMIN none z 0", "*3 $1 z $1 a $1 1");
        keys.check("BZMPOP 0 1 z MAX COUNT 2", "*2 $1 z *2 *2 $1 d $1 4 *2 $1 c $1 3");
        keys.check("BZPOPMAX none 0", "*-1");
        keys.blocking = Blocking::First;
        keys.check(
            "BZPOPMAX none str 0",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        keys.check("BZPOPMAX none other none 1.5", "");
        let wait = keys.wait.take().expect("nothing to pop");
        assert_eq!(wait.keys, [(0, Box::from(*b"none")), (0, Box::from(*b"other"))]);
        assert_eq!(wait.deadline_ms, Some(keys.now_ms + 1500));
        keys.blocking = Blocking::Again;
        keys.check("BZPOPMAX str none 0", "");
        assert_eq!(keys.wait.take().expect("still nothing").deadline_ms, None);
        keys.check("BZPOPMAX str z 0", "*3 $1 z $1 b $1 2");
        for (command, reply) in [
            ("BZPOPMIN z x", "-ERR timeout is not a float or out of range"),
            ("BZPOPMIN z -1", "-ERR timeout is negative"),
            ("BZMPOP x 0 z MIN", "-ERR numkeys should be greater than 0"),
            ("BZMPOP -1 1 z MIN", "-ERR timeout is negative"),
        ] {
            keys.check(command, reply);
        }
    }
}

//! Sets: members, random picks, moving and scanning. Set algebra is in `set_ops.rs`.

use data::Set;
use engine::Event;

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::set_scan::{self, ScanOptions};

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Set, name, arity, handler)
}

pub const TABLE: &[Command<Handler>] = &[
    row("sadd", -3, sadd)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .complexity("O(N) for N members given")
        .summary("Adds members to a set, making it if need be.")
        .syntax("key member [member ...]")
        .history(&[("2.4.0", "Takes more than one member.")]),
    row("srem", -3, srem)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(N) for N members given")
        .summary("Removes members from a set; the last one takes the key with it.")
        .syntax("key member [member ...]")
        .history(&[("2.4.0", "Takes more than one member.")]),
    row("sismember", 3, sismember)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Tells whether a member is in a set.")
        .syntax("key member"),
    row("smismember", -3, smismember)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("6.2.0")
        .complexity("O(N) for N members given")
        .summary("Tells of each given member whether it is in a set.")
        .syntax("key member [member ...]"),
    row("scard", 2, scard)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Counts the members of a set.")
        .syntax("key"),
    row("smembers", 2, smembers)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(N) for N members of the set")
        .summary("Answers all members of a set.")
        .syntax("key")
        .tips(&["nondeterministic_output_order"]),
    row("spop", -2, spop)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::DELETE)])
        .complexity("O(1), or O(N) for a count of N")
        .summary("Removes random members and answers them.")
        .syntax("key [count]")
        .tips(&["nondeterministic_output"])
        .history(&[("3.2.0", "Takes a count.")]),
    row("srandmember", -2, srandmember)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(1), or O(N) for a count of N or -N")
        .summary("Answers random members; with a negative count one may come more than once.")
        .syntax("key [count]")
        .tips(&["nondeterministic_output"])
        .history(&[("2.6.0", "Takes a count.")]),
    row("smove", 4, smove)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::at(1, k::RW | k::ACCESS | k::DELETE), KeySpec::at(2, k::RW | k::INSERT)])
        .summary("Moves a member from one set to another.")
        .syntax("source:key destination:key member"),
    row("sscan", -3, sscan)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.8.0")
        .complexity("O(1) for each call, O(N) for all calls until the cursor is 0 again")
        .summary("Walks over the members of a set in steps.")
        .syntax("key cursor [MATCH pattern] [COUNT count]")
        .tips(&["nondeterministic_output"]),
];

fn sadd(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut set = call.txn.write_or_create::<Set>(args[1])?;
    let members = &args[2..];
    set.prepare(members.len());
    let mut added = 0;
    for member in members {
        added += i64::from(set.add(member));
    }
    call.reply.integer(added);
    Ok(())
}

fn srem(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut removed = 0;
    if let Some(mut set) = call.txn.write::<Set>(args[1])? {
        for member in &args[2..] {
            removed += i64::from(set.remove(member));
        }
    }
    call.reply.integer(removed);
    Ok(())
}

fn sismember(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let found = call.txn.read_set(args[1])?.is_some_and(|set| set.contains(args[2]));
    call.reply.integer(i64::from(found));
    Ok(())
}

fn smismember(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let set = call.txn.read_set(args[1])?;
    call.reply.array(args.len() - 2);
    for member in &args[2..] {
        call.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn scard(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let len = call.txn.read_set(args[1])?.map_or(0, Set::len);
    call.reply.integer(len as i64);
    Ok(())
}

fn smembers(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.read_set(args[1])? {
        None => call.reply.set(0),
        Some(set) => {
            call.reply.set(set.len());
            paced(call.txn, set.iter()).for_each(|member| call.reply.bulk(&member));
        }
    }
    Ok(())
}

/// A count that must not be negative; whatever else it is, the error is the same.
pub(crate) fn positive_count(arg: &[u8]) -> Result<usize> {
    match integer(arg) {
        Ok(count @ 0..) => Ok(count as usize),
        _ => Err(Error::NOT_POSITIVE),
    }
}

/// A count whose sign says whether members may repeat.
pub(crate) fn signed_count(arg: &[u8]) -> Result<i64> {
    match integer(arg)? {
        i64::MIN => Err(COUNT_RANGE),
        count => Ok(count),
    }
}

/// `count [WITHVALUES]` from the third argument on: the count, and whether what belongs to the members is
/// asked for.
pub(crate) fn signed_count_with(args: &[&[u8]], option: &str) -> Result<(i64, bool)> {
    let count = signed_count(args[2])?;
    match &args[3..] {
        [] => Ok((count, false)),
        [arg] if is(arg, option) => match count.checked_mul(2) {
            Some(i64::MIN) | None => Err(Error::of("ERR value is out of range")),
            Some(_) => Ok((count, true)),
        },
        _ => Err(Error::SYNTAX),
    }
}

const COUNT_RANGE: Error = Error::of(
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
);

/// Fails when a reply with repeated members outgrows the longest string that may be sent: a
/// negative count can ask for more than there is memory.
pub(crate) fn check_repeats(call: &Call<'_, '_>, start: usize) -> Result {
    if call.reply.position() - start > call.bulk_bytes_max {
        return Err(REPEATS_RANGE);
    }
    Ok(())
}

/// The shortest bulk reply: `$0\r\n\r\n`.
const BULK_BYTES_MIN: usize = 6;

/// How many repeated members a negative count asks for, refused when they could not be sent
/// however short they are.
pub(crate) fn repeats(call: &Call<'_, '_>, count: i64) -> Result<usize> {
    let count = count.unsigned_abs() as usize;
    if count > call.bulk_bytes_max / BULK_BYTES_MIN {
        return Err(REPEATS_RANGE);
    }
    Ok(count)
}

const REPEATS_RANGE: Error = Error::of("ERR value is out of range");

fn spop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let count = args.get(2).map(|arg| positive_count(arg)).transpose()?;
    let Some(mut set) = call.txn.write::<Set>(args[1])? else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.set(0),
        }
        return Ok(());
    };
    set.tell_as(Event::set("spop"));
    let Some(count) = count else {
        let member = set.pop().expect("stored sets are not empty");
        call.reply.bulk(&member);
        return Ok(());
    };
    if count >= set.len() {
        call.reply.set(set.len());
        for (step, member) in set.iter().enumerate() {
            call.reply.bulk(&member);
            if step % 1024 == 1023 && set.may_break_off() {
                return Err(Error::STOPPED);
            }
        }
        drop(set);
        call.txn.tell(args[1], Event::set("spop"));
        call.txn.remove(args[1]);
        return Ok(());
    }
    call.reply.set(count);
    for step in 1..=count {
        let member = set.pop().expect("fewer are popped than there are");
        call.reply.bulk(&member);
        if step % 1024 == 0 && set.may_break_off() {
            return Err(Error::STOPPED);
        }
    }
    Ok(())
}

fn srandmember(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 3 {
        return Err(Error::SYNTAX);
    }
    let count = args.get(2).map(|arg| signed_count(arg)).transpose()?;
    let set = call.txn.read_set(args[1])?;
    let mut random = || call.txn.random();
    match (set, count) {
        (None, None) => call.reply.null(),
        (None, Some(_)) | (_, Some(0)) => call.reply.array(0),
        (Some(set), None) => {
            let member = set.random(&mut random).expect("stored sets are not empty");
            call.reply.bulk(&member);
        }
        (Some(set), Some(count)) if count < 0 => {
            let count = repeats(call, count)?;
            let start = call.reply.position();
            call.reply.array(count);
            for _ in paced(call.txn, 0..count) {
                let member = set.random(&mut random).expect("stored sets are not empty");
                call.reply.bulk(&member);
                check_repeats(call, start)?;
            }
        }
        (Some(set), Some(count)) if count as usize >= set.len() => {
            call.reply.array(set.len());
            paced(call.txn, set.iter()).for_each(|member| call.reply.bulk(&member));
        }
        (Some(set), Some(count)) => {
            let members = set.random_distinct(count as usize, &mut random);
            call.reply.array(members.len());
            members.iter().for_each(|member| call.reply.bulk(member));
        }
    }
    Ok(())
}

fn smove(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (source, destination, member) = (args[1], args[2], args[3]);
    // Used even when there is nothing to move.
    call.txn.look(destination);
    if call.txn.write::<Set>(source)?.is_none() {
        call.reply.integer(0);
        return Ok(());
    }
    // The destination's type counts even when there is nothing to move.
    call.txn.write::<Set>(destination)?;
    let mut set = call.txn.write::<Set>(source)?.expect("seen above");
    if source == destination {
        call.reply.integer(i64::from(set.contains(member)));
        return Ok(());
    }
    if !set.remove(member) {
        call.reply.integer(0);
        return Ok(());
    }
    drop(set);
    call.txn.write_or_create::<Set>(destination)?.add(member);
    call.reply.integer(1);
    Ok(())
}

fn sscan(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let cursor = set_scan::cursor(args[2])?;
    let Some(set) = call.txn.read_set(args[1])? else {
        set_scan::reply_nothing(&mut call.reply);
        return Ok(());
    };
    let options = ScanOptions::parse(&args[3..])?;
    set_scan::reply_step(&mut call.reply, |reply| {
        let mut found = 0;
        let next = set.scan(cursor, options.count, |member| {
            if options.wants(&member) {
                reply.bulk(&member);
                found += 1;
            }
        });
        (next, found)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn members_come_and_go() {
        let mut keys = Keyspace::new();
        keys.check("SADD s 3 1 2 1", ":3");
        keys.check("SADD s 3", ":0");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("SMEMBERS s", "*3 $1 1 $1 2 $1 3");
        keys.check("SCARD s", ":3");
        keys.check("SISMEMBER s 2", ":1");
        keys.check("SMISMEMBER s 2 x 3", "*3 :1 :0 :1");
        keys.check("SMISMEMBER none 2 x", "*2 :0 :0");
        keys.check("SREM s 1 x 2", ":2");
        keys.check("SREM s 3", ":1");
        keys.check("SCARD s", ":0");
        keys.check("SMEMBERS s", "*0");
        keys.check("SET str v", "+OK");
        for command in ["SADD str a", "SREM str a", "SISMEMBER str a", "SCARD str", "SMEMBERS str"]
        {
            keys.check(command, WRONG_TYPE);
        }
        keys.protocol = Protocol::Resp3;
        keys.check("SADD s b", ":1");
        keys.check("SMEMBERS s", "~1 $1 b");
        keys.check("SMEMBERS none", "~0");
    }

    #[test]
    fn random_members() {
        let mut keys = Keyspace::new();
        keys.check("SPOP none", "$-1");
        keys.check("SPOP none 3", "*0");
        keys.check("SRANDMEMBER none", "$-1");
        keys.check("SRANDMEMBER none -3", "*0");
        keys.check("SADD one m", ":1");
        keys.check("SRANDMEMBER one", "$1 m");
        keys.check("SRANDMEMBER one -3", "*3 $1 m $1 m $1 m");
        keys.check("SRANDMEMBER one 3", "*1 $1 m");
        keys.check("SRANDMEMBER one 0", "*0");
        keys.check("SPOP one 0", "*0");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("SPOP one", "$1 m");
        keys.check("SCARD one", ":0");
        keys.check("SADD s a b c d e f g", ":7");
        assert!(keys.run("SPOP s 3").starts_with("*3 "));
        keys.check("SCARD s", ":4");
        assert!(keys.run("SRANDMEMBER s 3").starts_with("*3 "));
        assert!(keys.run("SPOP s 4").starts_with("*4 "));
        keys.check("SCARD s", ":0");
    }

    #[test]
    fn counts_are_checked() {
        let mut keys = Keyspace::new();
        keys.check("SADD s a", ":1");
        let not_positive = "-ERR value is out of range, must be positive";
        keys.check("SPOP s -1", not_positive);
        keys.check("SPOP s x", not_positive);
        keys.check("SPOP s 1 2", "-ERR syntax error");
        keys.check("SRANDMEMBER s x", "-ERR value is not an integer or out of range");
        keys.check("SRANDMEMBER s 1 2", "-ERR syntax error");
        let range = "-ERR value is out of range, value must between -9223372036854775807 and \
                     9223372036854775807";
        keys.check("SRANDMEMBER s -9223372036854775808", range);
        keys.check("SRANDMEMBER s -9223372036854775807", "-ERR value is out of range");
        keys.check("SRANDMEMBER s 9223372036854775807", "*1 $1 a");
    }

    #[test]
    fn moving() {
        let mut keys = Keyspace::new();
        keys.check("SADD a 1 2", ":2");
        keys.check("SET str v", "+OK");
        keys.check("SMOVE none str 1", ":0");
        keys.check("SMOVE a str 1", WRONG_TYPE);
        keys.check("SMOVE str a 1", WRONG_TYPE);
        keys.check("SMOVE a b 1", ":1");
        keys.check("SMOVE a b 1", ":0");
        keys.check("SMOVE a a 2", ":1");
        assert_eq!(keys.effects.dirty, 0);
        keys.check("SMOVE a b 2", ":1");
        keys.check("SCARD a", ":0");
        keys.check("SMEMBERS b", "*2 $1 1 $1 2");
    }

    #[test]
    fn scanning() {
        let mut keys = Keyspace::new();
        keys.check("SSCAN none 0 FOO", "*2 $1 0 *0");
        keys.check("SADD s a b ab", ":3");
        keys.check("SSCAN s 0", "*2 $1 0 *3 $1 a $1 b $2 ab");
        keys.check("SSCAN s 0 MATCH a* COUNT 1", "*2 $1 0 *2 $1 a $2 ab");
        keys.check("SSCAN s x", "-ERR invalid cursor");
        keys.check("SSCAN s 0 COUNT 0", "-ERR syntax error");
        keys.check("SSCAN s 0 COUNT x", "-ERR value is not an integer or out of range");
        keys.check("SSCAN s 0 MATCH", "-ERR syntax error");
    }
}

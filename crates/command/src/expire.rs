//! When keys go away by themselves: EXPIRE, TTL, PERSIST and their kin.
//!
//! Times are absolute Unix milliseconds as soon as they are read; "now" is the transaction's.

use engine::Entry;

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string::persist as clear_expiry;

const SET: &[KeySpec] = &[KeySpec::first(k::RW | k::UPDATE)];
const ASK: &[KeySpec] = &[KeySpec::first(k::RO | k::ACCESS)];
const OPTIONS: &[(&str, &str)] = &[("7.0.0", "Added the options `NX`, `XX`, `GT` and `LT`.")];
const CHANGES_WITH_TIME: &[&str] = &["nondeterministic_output"];

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Generic, "expire", -3, expire)
        .flags(WRITE | FAST)
        .keys(SET)
        .history(OPTIONS)
        .summary("Sets the time to live of a key in seconds.")
        .syntax("key seconds [condition:(NX | XX | GT | LT)]"),
    Command::new(Group::Generic, "expireat", -3, expireat)
        .flags(WRITE | FAST)
        .keys(SET)
        .since("1.2.0")
        .history(OPTIONS)
        .summary("Sets the Unix time in seconds at which a key expires.")
        .syntax("key unix-time-seconds [condition:(NX | XX | GT | LT)]"),
    Command::new(Group::Generic, "expiretime", 2, expiretime)
        .flags(READONLY | FAST)
        .keys(ASK)
        .since("7.0.0")
        .summary("Answers the Unix time in seconds at which a key expires.")
        .syntax("key"),
    Command::new(Group::Generic, "persist", 2, persist)
        .flags(WRITE | FAST)
        .keys(SET)
        .since("2.2.0")
        .summary("Clears the expiry of a key.")
        .syntax("key"),
    Command::new(Group::Generic, "pexpire", -3, pexpire)
        .flags(WRITE | FAST)
        .keys(SET)
        .since("2.6.0")
        .history(OPTIONS)
        .summary("Sets the time to live of a key in milliseconds.")
        .syntax("key milliseconds [condition:(NX | XX | GT | LT)]"),
    Command::new(Group::Generic, "pexpireat", -3, pexpireat)
        .flags(WRITE | FAST)
        .keys(SET)
        .since("2.6.0")
        .history(OPTIONS)
        .summary("Sets the Unix time in milliseconds at which a key expires.")
        .syntax("key unix-time-milliseconds [condition:(NX | XX | GT | LT)]"),
    Command::new(Group::Generic, "pexpiretime", 2, pexpiretime)
        .flags(READONLY | FAST)
        .keys(ASK)
        .since("7.0.0")
        .summary("Answers the Unix time in milliseconds at which a key expires.")
        .syntax("key"),
    Command::new(Group::Generic, "pttl", 2, pttl)
        .flags(READONLY | FAST)
        .keys(ASK)
        .since("2.6.0")
        .tips(CHANGES_WITH_TIME)
        .history(&[("2.8.0", "Answers -2 when there is no key.")])
        .summary("Answers the time to live of a key in milliseconds.")
        .syntax("key"),
    Command::new(Group::Generic, "ttl", 2, ttl)
        .flags(READONLY | FAST)
        .keys(ASK)
        .tips(CHANGES_WITH_TIME)
        .history(&[("2.8.0", "Answers -2 when there is no key.")])
        .summary("Answers the time to live of a key in seconds.")
        .syntax("key"),
];

/// Under which condition the expiry is set. A key without one counts as living for ever.
#[derive(Default)]
struct Condition {
    /// NX
    without: bool,
    /// XX
    with: bool,
    /// GT
    later: bool,
    /// LT
    earlier: bool,
}

impl Condition {
    fn parse(args: &[&[u8]]) -> Result<Condition> {
        let mut condition = Condition::default();
        for word in args {
            if is(word, "NX") {
                condition.without = true;
            } else if is(word, "XX") {
                condition.with = true;
            } else if is(word, "GT") {
                condition.later = true;
            } else if is(word, "LT") {
                condition.earlier = true;
            } else {
                let word = String::from_utf8_lossy(word);
                return Err(Error::new(format!("ERR Unsupported option {word}")));
            }
        }
        let Condition { without, with, later, earlier } = condition;
        if without && (with || later || earlier) {
            return Err(Error::of(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if later && earlier {
            return Err(Error::of("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    fn holds(&self, current: Option<i64>, when: i64) -> bool {
        !(self.without && current.is_some()
            || self.with && current.is_none()
            || self.later && current.is_none_or(|current| when <= current)
            || self.earlier && current.is_some_and(|current| when >= current))
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Milliseconds,
}

fn expire(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    set_expiry(call, args, Unit::Seconds, now_ms, "expire")
}

fn pexpire(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    set_expiry(call, args, Unit::Milliseconds, now_ms, "pexpire")
}

fn expireat(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    set_expiry(call, args, Unit::Seconds, 0, "expireat")
}

fn pexpireat(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    set_expiry(call, args, Unit::Milliseconds, 0, "pexpireat")
}

/// `base_ms` is what the amount counts from. A time that has passed removes the key.
fn set_expiry(
    call: &mut Call<'_, '_>,
    args: &[&[u8]],
    unit: Unit,
    base_ms: i64,
    command: &str,
) -> Result {
    let key = args[1];
    let condition = Condition::parse(&args[3..])?;
    let amount = integer(args[2])?;
    let ms = match unit {
        Unit::Seconds => amount.checked_mul(1000),
        Unit::Milliseconds => Some(amount),
    };
    let when =
        ms.and_then(|ms| ms.checked_add(base_ms)).ok_or_else(|| Error::invalid_expire(command))?;
    let done = match call.txn.look(key).map(Entry::expire_at_ms) {
        Some(current) if condition.holds(current, when) => {
            if when <= call.now_ms() {
                call.txn.remove(key)
            } else {
                call.txn.set_expire(key, Some(when))
            }
        }
        _ => false,
    };
    call.reply.integer(i64::from(done));
    Ok(())
}

/// Answers -2 without a key, -1 without an expiry, else what `show` makes of the expiry.
fn reply_expiry(call: &mut Call<'_, '_>, key: &[u8], show: impl Fn(i64) -> i64) -> Result {
    let shown = match call.txn.probe(key).map(Entry::expire_at_ms) {
        None => -2,
        Some(None) => -1,
        Some(Some(when)) => show(when),
    };
    call.reply.integer(shown);
    Ok(())
}

/// To the nearest second.
fn seconds(ms: i64) -> i64 {
    ms / 1000 + i64::from(ms % 1000 >= 500)
}

fn ttl(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    reply_expiry(call, args[1], |when| seconds((when - now_ms).max(0)))
}

fn pttl(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    reply_expiry(call, args[1], |when| (when - now_ms).max(0))
}

fn expiretime(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_expiry(call, args[1], seconds)
}

fn pexpiretime(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    reply_expiry(call, args[1], |when| when)
}

fn persist(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let cleared = clear_expiry(call.txn, args[1]);
    call.reply.integer(i64::from(cleared));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Condition;
    use crate::testing::Keyspace;

    #[test]
    fn conditions() {
        let holds = |words: &[&[u8]], current, when| {
            Condition::parse(words).map(|condition| condition.holds(current, when))
        };
        assert_eq!(holds(&[], None, 5), Ok(true));
        assert_eq!(holds(&[b"nx"], None, 5), Ok(true));
        assert_eq!(holds(&[b"NX"], Some(1), 5), Ok(false));
        assert_eq!(holds(&[b"XX"], None, 5), Ok(false));
        assert_eq!(holds(&[b"GT"], None, 5), Ok(false));
        assert_eq!(holds(&[b"GT"], Some(5), 5), Ok(false));
        assert_eq!(holds(&[b"GT"], Some(4), 5), Ok(true));
        assert_eq!(holds(&[b"LT"], None, 5), Ok(true));
        assert_eq!(holds(&[b"LT"], Some(5), 5), Ok(false));
        assert_eq!(holds(&[b"LT", b"XX"], None, 5), Ok(false));
        assert_eq!(holds(&[b"LT", b"XX"], Some(6), 5), Ok(true));
        assert!(holds(&[b"NX", b"XX"], None, 5).is_err());
        assert!(holds(&[b"GT", b"LT"], None, 5).is_err());
        assert!(holds(&[b"EQ"], None, 5).is_err());
    }

    #[test]
    fn expiries() {
        let mut keys = Keyspace::new();
        keys.check("EXPIRE k 10", ":0");
        keys.check("TTL k", ":-2");
        keys.check("SET k v", "+OK");
        keys.check("TTL k", ":-1");
        keys.check("PEXPIRE k 1499", ":1");
        keys.check("TTL k", ":1");
        keys.check("PEXPIRE k 1500", ":1");
        keys.check("TTL k", ":2");
        keys.check("PEXPIRETIME k", ":1700000001500");
        keys.check("EXPIRETIME k", ":1700000002");
        keys.check("PERSIST k", ":1");
        keys.check("PERSIST k", ":0");
        keys.check("PEXPIREAT k 9223372036854775807", ":1");
        keys.check("EXPIRETIME k", ":9223372036854776");
        keys.check("EXPIRE k -1", ":1");
        keys.check("EXISTS k", ":0");
        for (command, amount) in [
            ("expire", i64::MAX),
            ("expire", i64::MIN),
            ("expire", i64::MAX / 1000),
            ("pexpire", i64::MAX),
            ("expireat", i64::MAX),
        ] {
            let expected = format!("-ERR invalid expire time in '{command}' command");
            keys.check(&format!("{command} k {amount}"), &expected);
        }
        keys.check("EXPIRE k x FOO", "-ERR Unsupported option FOO");
    }
}

//! Strings that change on a condition, or within bounds, in one command: what scripts were written
//! for before. DIGEST, DELEX and MSETEX are Redis 8.4's, INCREX is Redis 8.8's, DELIFEQ is Valkey 9's.
//!
//! The conditions of SET on its old value are here too; `string.rs` asks for them.

use std::cmp::Ordering;

use data::LongDouble;
use data::number::{format_i64, parse_i64};
use engine::{Entry, Event, Expiry, Str, Value};
use resp::Protocol;
use xxhash_rust::xxh3::xxh3_64;

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{Begin, Find, KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, MOVABLE_KEYS, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string::{Text, TimeOption, look_at_string, persist, time_option};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::String, "delex", -2, delex)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE | k::VARIABLE_FLAGS)])
        .since("8.4.0")
        .complexity("O(1) for IFEQ and IFNE, O(N) in the length of the string for IFDEQ and IFDNE")
        .summary("Removes a key if its string, or the digest of it, is or is not this one.")
        .syntax(
            "key [condition:(IFEQ ifeq-value | IFNE ifne-value | IFDEQ ifdeq-digest | \
             IFDNE ifdne-digest)]",
        ),
    Command::new(Group::String, "delifeq", 3, delifeq)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::DELETE)])
        .since("9.0.0")
        .summary("Removes a key if its string is this one.")
        .syntax("key value"),
    Command::new(Group::String, "digest", 2, digest)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("8.4.0")
        .complexity("O(N) in the length of the string")
        .summary("Answers the XXH3 digest of the string stored at a key.")
        .syntax("key"),
    Command::new(Group::String, "increx", -2, increx)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .since("8.8.0")
        .summary("Adds to the number stored at a key, within bounds, and sets the key's expiry.")
        .syntax(
            "key [increment:(BYFLOAT float:double | BYINT increment)] [LBOUND lowerbound] \
             [UBOUND upperbound] [SATURATE] [expiration:(EX seconds | PX milliseconds | \
             EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST)] [ENX]",
        ),
    Command::new(Group::String, "msetex", -4, msetex)
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .keys(&[KeySpec {
            begin: Begin::Index(1),
            find: Find::KeyNum { at: 0, first: 1, step: 2 },
            flags: k::OW | k::UPDATE,
            notes: "",
        }])
        .since("8.4.0")
        .complexity("O(N) with N the number of keys")
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .summary("Stores strings at several keys at once, with one expiry, or none of them.")
        .syntax(
            "numkeys data:(key value) [data:(key value) ...] [condition:(NX | XX)] \
             [expiration:(EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | KEEPTTL)]",
        ),
];

/// What the old value of a key must be like.
#[derive(Clone, Copy)]
pub(crate) enum Condition<'a> {
    Equal(&'a [u8]),
    Unequal(&'a [u8]),
    DigestEqual(u64),
    DigestUnequal(u64),
}

impl<'a> Condition<'a> {
    /// The condition that a word and its value state; `None` if the word is none of these.
    pub fn of(word: &[u8], value: &'a [u8]) -> Result<Option<Condition<'a>>> {
        Ok(Some(if is(word, "IFEQ") {
            Condition::Equal(value)
        } else if is(word, "IFNE") {
            Condition::Unequal(value)
        } else if is(word, "IFDEQ") {
            Condition::DigestEqual(parse_digest(value)?)
        } else if is(word, "IFDNE") {
            Condition::DigestUnequal(parse_digest(value)?)
        } else {
            return Ok(None);
        }))
    }

    /// Whether it holds. A key that is not there differs from everything.
    pub fn holds(self, old: Option<Str<'_>>) -> bool {
        let old = old.map(Text::from);
        match self {
            Condition::Equal(value) => old.is_some_and(|old| *old == *value),
            Condition::Unequal(value) => old.is_none_or(|old| *old != *value),
            Condition::DigestEqual(digest) => old.is_some_and(|old| xxh3_64(&old) == digest),
            Condition::DigestUnequal(digest) => old.is_none_or(|old| xxh3_64(&old) != digest),
        }
    }
}

/// Sixteen hexadecimal digits in any case.
fn parse_digest(text: &[u8]) -> Result<u64> {
    let digits = std::str::from_utf8(text).ok();
    let is_digest = |text: &&str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits
        .filter(is_digest)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(Error::of("ERR digest must be exactly 16 hexadecimal characters"))
}

fn digest(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.read_string(args[1])? {
        None => call.reply.null(),
        Some(value) => {
            let digest = format!("{:016x}", xxh3_64(&Text::from(value)));
            call.reply.bulk(digest.as_bytes());
        }
    }
    Ok(())
}

fn delex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let condition = match args[2..] {
        [] => {
            let is_gone = call.txn.remove(args[1]);
            call.reply.integer(i64::from(is_gone));
            return Ok(());
        }
        [word, value] => Condition::of(word, value)?.ok_or(Error::SYNTAX)?,
        _ => return Err(Error::arity("delex")),
    };
    remove_if(call, args[1], condition)
}

fn delifeq(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    remove_if(call, args[1], Condition::Equal(args[2]))
}

/// Removes a key that is there and meets a condition.
fn remove_if(call: &mut Call<'_, '_>, key: &[u8], condition: Condition<'_>) -> Result {
    let old = call.txn.read_string(key)?;
    let removes = old.is_some() && condition.holds(old);
    if removes {
        call.txn.remove(key);
    }
    call.reply.integer(i64::from(removes));
    Ok(())
}

fn msetex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let count = integer(args[1]).ok().and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0).ok_or(Error::of("ERR invalid numkeys value"))?;
    let behind = &args[2..];
    if count > behind.len() / 2 {
        return Err(Error::of("ERR wrong number of key-value pairs"));
    }
    let (pairs, mut rest) = behind.split_at(2 * count);
    let (mut only, mut expiry) = (None, None);
    while let [word, behind @ ..] = rest {
        rest = behind;
        let wants_old = is(word, "XX");
        if wants_old || is(word, "NX") {
            if only.replace(wants_old).is_some_and(|before| before != wants_old) {
                return Err(Error::SYNTAX);
            }
        } else if expiry.is_some() {
            return Err(Error::SYNTAX);
        } else if is(word, "KEEPTTL") {
            expiry = Some(Expiry::Keep);
        } else {
            let time = time_option(word).ok_or(Error::SYNTAX)?;
            let [amount, behind @ ..] = rest else { return Err(Error::SYNTAX) };
            rest = behind;
            expiry = Some(Expiry::At(time.expire_at_ms(amount, call.now_ms(), "msetex")?));
        }
    }
    let pairs = pairs.as_chunks::<2>().0;
    let does =
        only.is_none_or(|old| pairs.iter().all(|[key, _]| call.txn.look(key).is_some() == old));
    if does {
        for [key, value] in pairs {
            call.txn.set_string(key, value, expiry.unwrap_or(Expiry::Clear));
        }
    }
    call.reply.integer(i64::from(does));
    Ok(())
}

/// What INCREX does about the expiry.
#[derive(Clone, Copy)]
enum Lifetime<'a> {
    Keep,
    Persist,
    Time(TimeOption, &'a [u8]),
}

struct Increase<'a> {
    by_int: Option<&'a [u8]>,
    by_float: Option<&'a [u8]>,
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
    saturates: bool,
    lifetime: Lifetime<'a>,
    /// Only a key without an expiry gets one.
    only_new_expiry: bool,
}

impl<'a> Increase<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Increase<'a>> {
        let mut parsed = Increase {
            by_int: None,
            by_float: None,
            lower: None,
            upper: None,
            saturates: false,
            lifetime: Lifetime::Keep,
            only_new_expiry: false,
        };
        let mut rest = args;
        while let [word, behind @ ..] = rest {
            rest = behind;
            let is_free = matches!(parsed.lifetime, Lifetime::Keep);
            if is(word, "SATURATE") {
                parsed.saturates = true;
                continue;
            } else if is(word, "ENX") {
                parsed.only_new_expiry = true;
                continue;
            } else if is(word, "PERSIST") && is_free {
                parsed.lifetime = Lifetime::Persist;
                continue;
            }
            let [amount, behind @ ..] = rest else { return Err(Error::SYNTAX) };
            rest = behind;
            if let Some(time) = time_option(word).filter(|_| is_free) {
                parsed.lifetime = Lifetime::Time(time, amount);
                continue;
            }
            let slot = if is(word, "BYINT") && parsed.by_float.is_none() {
                &mut parsed.by_int
            } else if is(word, "BYFLOAT") && parsed.by_int.is_none() {
                &mut parsed.by_float
            } else if is(word, "LBOUND") {
                &mut parsed.lower
            } else if is(word, "UBOUND") {
                &mut parsed.upper
            } else {
                return Err(Error::SYNTAX);
            };
            if slot.replace(amount).is_some() {
                return Err(Error::SYNTAX);
            }
        }
        if parsed.only_new_expiry && !matches!(parsed.lifetime, Lifetime::Time(..)) {
            return Err(Error::SYNTAX);
        }
        Ok(parsed)
    }
}

const BOUNDS: Error = Error::of("ERR LBOUND must be less than or equal to UBOUND");

fn increx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, increase) = (args[1], Increase::parse(&args[2..])?);
    let when = match increase.lifetime {
        Lifetime::Time(time, amount) => Some(time.expire_at_ms(amount, call.now_ms(), "increx")?),
        _ => None,
    };
    let is_done = match increase.by_float {
        Some(by) => increase_float(call, key, &increase, by)?,
        None => increase_integer(call, key, &increase)?,
    };
    if !is_done {
        return Ok(());
    }
    match (increase.lifetime, when) {
        (Lifetime::Persist, _) => {
            persist(call.txn, key);
        }
        (_, Some(when)) => {
            let expires = call.txn.peek(key).is_some_and(|entry| entry.expire_at_ms().is_some());
            if !(increase.only_new_expiry && expires) {
                call.txn.set_expire(key, Some(when));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Answers whether the key was changed, or would have been by another increment than 0.
fn increase_integer(call: &mut Call<'_, '_>, key: &[u8], increase: &Increase<'_>) -> Result<bool> {
    let number = |text: Option<&[u8]>, default| text.map_or(Ok(default), integer);
    let by = number(increase.by_int, 1)?;
    let (lower, upper) = (number(increase.lower, i64::MIN)?, number(increase.upper, i64::MAX)?);
    if lower > upper {
        return Err(BOUNDS);
    }
    let old = match look_at_string(call.txn, key)? {
        None => 0,
        Some(Str::Int(number)) => number,
        Some(Str::Bytes(text)) => parse_i64(text).ok_or(Error::NOT_INTEGER)?,
    };
    let sum = i128::from(old) + i128::from(by);
    let fits = (i128::from(lower)..=i128::from(upper)).contains(&sum);
    call.reply.array(2);
    if !fits && !increase.saturates {
        call.reply.integer(old);
        call.reply.integer(0);
        return Ok(false);
    }
    let new = sum.clamp(lower.into(), upper.into()) as i64;
    let applied = new.checked_sub(old).ok_or(Error::OVERFLOW)?;
    call.reply.integer(new);
    call.reply.integer(applied);
    call.txn.tell_as(Event::string("incrby"));
    call.txn.set_string(key, format_i64(new).as_bytes(), Expiry::Keep);
    Ok(true)
}

/// The same of floating point numbers.
fn increase_float(
    call: &mut Call<'_, '_>,
    key: &[u8],
    increase: &Increase<'_>,
    by: &[u8],
) -> Result<bool> {
    let number = |text: &[u8]| LongDouble::parse(text).ok_or(Error::NOT_FLOAT);
    let bound = |text: Option<&[u8]>, default| text.map_or(Ok(default), number);
    let by = number(by)?;
    let (lower, upper) = (
        bound(increase.lower, LongDouble::MAX.negated())?,
        bound(increase.upper, LongDouble::MAX)?,
    );
    if lower.order(&upper) == Some(Ordering::Greater) {
        return Err(BOUNDS);
    }
    let old = match look_at_string(call.txn, key)? {
        None => LongDouble::from(0),
        Some(Str::Int(number)) => LongDouble::from(number),
        Some(Str::Bytes(text)) => number(text)?,
    };
    let sum = old.add(by);
    let is_below = sum.order(&lower) == Some(Ordering::Less);
    let is_above = sum.order(&upper) == Some(Ordering::Greater);
    if !by.is_finite() || !old.is_finite() {
        return Err(Error::NAN_OR_INFINITY);
    }
    let (new, applied) = match (is_below, is_above) {
        (false, false) => (sum, by),
        _ if !increase.saturates => {
            reply_floats(call, old, LongDouble::from(0));
            return Ok(false);
        }
        (true, _) => (lower, lower.add(old.negated())),
        _ => (upper, upper.add(old.negated())),
    };
    if !new.is_finite() || !applied.is_finite() {
        return Err(Error::NAN_OR_INFINITY);
    }
    reply_floats(call, new, applied);
    let expire_at_ms = call.txn.peek(key).and_then(Entry::expire_at_ms);
    call.txn.tell_as(Event::string("incrbyfloat"));
    call.txn.put(key, Value::Bytes(new.to_text()), expire_at_ms);
    Ok(true)
}

/// Doubles in protocol 3, else the texts.
fn reply_floats(call: &mut Call<'_, '_>, new: LongDouble, applied: LongDouble) {
    call.reply.array(2);
    for number in [new, applied] {
        let text = number.to_text();
        let double = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<f64>().ok());
        match (call.reply.protocol(), double) {
            (Protocol::Resp3, Some(double)) => call.reply.double(double),
            _ => call.reply.bulk(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn digests_are_those_of_redis() {
        let mut keys = Keyspace::new();
        keys.check("SET k test", "+OK");
        keys.check("DIGEST k", "$16 9ec9f7918d7dfc40");
        keys.check("SET k hello", "+OK");
        keys.check("DIGEST k", "$16 9555e8555c62dcfd");
        keys.check("DIGEST none", "$-1");
        keys.check("SET k v IFDEQ 9555E8555C62DCFD", "+OK");
        keys.check("SET k v IFDEQ 9555e8555c62dcfd", "$-1");
        keys.check("SET k v IFDEQ 9555", "-ERR digest must be exactly 16 hexadecimal characters");
    }

    #[test]
    fn set_on_conditions() {
        let mut keys = Keyspace::new();
        keys.check("SET k v IFEQ v", "$-1");
        keys.check("SET k v IFNE v", "+OK");
        keys.check("SET k w IFNE v", "$-1");
        keys.check("SET k 12 IFEQ v GET", "$1 v");
        keys.check("SET k 13 IFEQ 12 EX 10", "+OK");
        keys.check("SET k 14 IFEQ 12 GET", "$2 13");
        keys.check("TTL k", ":10");
        for options in ["IFEQ v NX", "XX IFEQ v", "IFEQ v IFNE w", "IFEQ"] {
            keys.check(&format!("SET k v {options}"), "-ERR syntax error");
        }
        keys.check("RPUSH l a", ":1");
        let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        keys.check("SET l v IFEQ v", wrong_type);
        keys.check("DELEX l IFEQ v", wrong_type);
        keys.check("DELIFEQ l v", wrong_type);
        keys.check("DELEX l", ":1");
    }

    #[test]
    fn removing_on_conditions() {
        let mut keys = Keyspace::new();
        keys.check("DELEX k", ":0");
        keys.check("DELEX k IFNE v", ":0");
        keys.check("SET k 12", "+OK");
        keys.check("DELEX k IFNE 12", ":0");
        keys.check("DELEX k IFEQ 13", ":0");
        keys.check("DELIFEQ k 13", ":0");
        keys.check("DELIFEQ k 12", ":1");
        keys.check("DELEX k NX v", "-ERR syntax error");
        keys.check("DELEX k IFEQ", "-ERR wrong number of arguments for 'delex' command");
    }

    #[test]
    fn several_strings_with_one_expiry() {
        let mut keys = Keyspace::new();
        keys.check("MSETEX 2 a 1 b 2 EX 10 NX", ":1");
        keys.check("TTL a", ":10");
        keys.check("MSETEX 2 b 3 c 4 NX", ":0");
        keys.check("MSETEX 2 b 3 c 4 XX", ":0");
        keys.check("MSETEX 2 a 3 b 4 KEEPTTL XX", ":1");
        keys.check("MGET a b c", "*3 $1 3 $1 4 $-1");
        keys.check("TTL b", ":10");
        keys.check("MSETEX 1 a 3", ":1");
        keys.check("TTL a", ":-1");
        keys.check("MSETEX 2 a 3 b", "-ERR wrong number of key-value pairs");
        keys.check("MSETEX 0 a 3", "-ERR invalid numkeys value");
        keys.check("MSETEX 1 a 3 NX XX", "-ERR syntax error");
        keys.check("MSETEX 1 a 3 EX 1 KEEPTTL", "-ERR syntax error");
        keys.check("MSETEX 1 a 3 EX 0", "-ERR invalid expire time in 'msetex' command");
    }

    #[test]
    fn numbers_within_bounds() {
        let mut keys = Keyspace::new();
        keys.check("INCREX n", "*2 :1 :1");
        keys.check("INCREX n BYINT 5 UBOUND 5", "*2 :1 :0");
        keys.check("INCREX n BYINT 5 UBOUND 5 SATURATE", "*2 :5 :4");
        keys.check("INCREX n BYINT -9 LBOUND 0 SATURATE EX 10", "*2 :0 :-5");
        keys.check("TTL n", ":10");
        keys.check("INCREX n EX 100 ENX", "*2 :1 :1");
        keys.check("TTL n", ":10");
        keys.check("INCREX n PERSIST", "*2 :2 :1");
        keys.check("TTL n", ":-1");
        keys.check("INCREX n BYINT 9223372036854775807", "*2 :2 :0");
        keys.check(
            "INCREX n BYINT 9223372036854775807 SATURATE",
            "*2 :9223372036854775807 :9223372036854775805",
        );
        keys.check("INCREX new UBOUND 0 EX 10", "*2 :0 :0");
        keys.check("EXISTS new", ":0");
        for options in ["ENX", "PERSIST ENX", "EX 1 PX 1", "BYINT 1 BYFLOAT 1", "BYINT"] {
            keys.check(&format!("INCREX n {options}"), "-ERR syntax error");
        }
        keys.check(
            "INCREX n LBOUND 2 UBOUND 1",
            "-ERR LBOUND must be less than or equal to UBOUND",
        );
        keys.check("INCREX n UBOUND 1.5", "-ERR value is not an integer or out of range");
    }

    #[test]
    fn floating_point_numbers_within_bounds() {
        let mut keys = Keyspace::new();
        keys.check("SET f 1.5", "+OK");
        keys.check("INCREX f BYFLOAT 0.25", "*2 $4 1.75 $4 0.25");
        keys.check("INCREX f BYFLOAT 0.25 UBOUND 1.9", "*2 $4 1.75 $1 0");
        keys.check("INCREX f BYFLOAT 0.5 UBOUND 2 SATURATE", "*2 $1 2 $4 0.25");
        keys.check("INCREX f BYFLOAT -5 LBOUND -1.5 SATURATE", "*2 $4 -1.5 $4 -3.5");
        keys.check("INCREX f", "-ERR value is not an integer or out of range");
        keys.check("INCREX f BYFLOAT inf", "-ERR increment would produce NaN or Infinity");
        keys.check("INCREX f BYFLOAT 1e4932 UBOUND 5", "*2 $4 -1.5 $1 0");
    }
}

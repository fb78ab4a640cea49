//! Strings that hold numbers: INCR and its kin.
//!
//! Integers are counted where they stand, by the engine's `increment`; INCRBYFLOAT goes through
//! Redis's extended precision, whose roundings clients see.

use data::LongDouble;
use engine::{Entry, Event, NotIncremented, Str, Value};

use crate::call::{Call, Handler, integer};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, WRITE};
use crate::row::{Command, Group};
use crate::string::look_at_string;

const KEY: &[KeySpec] = &[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)];

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::String, "decr", 2, decr)
        .flags(WRITE | DENYOOM | FAST)
        .keys(KEY)
        .summary("Takes one from the integer stored at a key; a missing key counts as 0.")
        .syntax("key"),
    Command::new(Group::String, "decrby", 3, decrby)
        .flags(WRITE | DENYOOM | FAST)
        .keys(KEY)
        .summary("Subtracts from the integer stored at a key; a missing key counts as 0.")
        .syntax("key decrement"),
    Command::new(Group::String, "incr", 2, incr)
        .flags(WRITE | DENYOOM | FAST)
        .keys(KEY)
        .summary("Adds one to the integer stored at a key; a missing key counts as 0.")
        .syntax("key"),
    Command::new(Group::String, "incrby", 3, incrby)
        .flags(WRITE | DENYOOM | FAST)
        .keys(KEY)
        .summary("Adds to the integer stored at a key; a missing key counts as 0.")
        .syntax("key increment"),
    Command::new(Group::String, "incrbyfloat", 3, incrbyfloat)
        .flags(WRITE | DENYOOM | FAST)
        .keys(KEY)
        .since("2.6.0")
        .summary("Adds to the floating point number stored at a key; a missing key counts as 0.")
        .syntax("key increment:double"),
];

fn incr(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    count(call, args[1], 1)
}

fn decr(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    count(call, args[1], -1)
}

fn incrby(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    count(call, args[1], integer(args[2])?)
}

fn decrby(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let by = integer(args[2])?;
    count(call, args[1], by.checked_neg().ok_or(Error::of("ERR decrement would overflow"))?)
}

fn count(call: &mut Call<'_, '_>, key: &[u8], by: i64) -> Result {
    call.txn.tell_as(Event::string("incrby"));
    let sum = call.txn.increment(key, by).map_err(|error| match error {
        NotIncremented::WrongType => Error::WRONG_TYPE,
        NotIncremented::NotInteger => Error::NOT_INTEGER,
        NotIncremented::Overflow => Error::OVERFLOW,
    })?;
    call.reply.integer(sum);
    Ok(())
}

fn incrbyfloat(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let stored = match look_at_string(call.txn, args[1])? {
        None => LongDouble::from(0),
        Some(Str::Int(n)) => LongDouble::from(n),
        Some(Str::Bytes(bytes)) => LongDouble::parse(bytes).ok_or(Error::NOT_FLOAT)?,
    };
    let by = LongDouble::parse(args[2]).ok_or(Error::NOT_FLOAT)?;
    let sum = stored.add(by);
    if !sum.is_finite() {
        return Err(Error::NAN_OR_INFINITY);
    }
    let text = sum.to_text();
    call.reply.bulk(&text);
    // Whole numbers stay text too: that is the encoding Redis reports for a floating point sum.
    let expire_at_ms = call.txn.peek(args[1]).and_then(Entry::expire_at_ms);
    call.txn.tell_as(Event::string("incrbyfloat"));
    call.txn.put(args[1], Value::Bytes(text), expire_at_ms);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn integers() {
        let mut keys = Keyspace::new();
        keys.check("INCR n", ":1");
        keys.check("EXPIRE n 100", ":1");
        keys.check("INCRBY n 9223372036854775806", ":9223372036854775807");
        keys.check("INCR n", "-ERR increment or decrement would overflow");
        keys.check("DECRBY n -9223372036854775808", "-ERR decrement would overflow");
        keys.check("DECR n", ":9223372036854775806");
        keys.check("TTL n", ":100");
        keys.check("APPEND a 1", ":1");
        keys.check("APPEND a 2", ":2");
        keys.check("INCR a", ":13");
        for text in ["x", "01", "1.0", "9223372036854775808"] {
            keys.check(&format!("SET s {text}"), "+OK");
            keys.check("INCR s", "-ERR value is not an integer or out of range");
        }
        keys.now_ms += 100_000;
        keys.check("INCR n", ":1");
        keys.check("TTL n", ":-1");
    }

    #[test]
    fn counting_in_place_is_a_change() {
        let mut keys = Keyspace::new();
        keys.check("INCR n", ":1");
        keys.check("INCR n", ":2");
        assert_eq!(keys.effects.dirty, 1);
        keys.check("INCRBY n 9223372036854775807", "-ERR increment or decrement would overflow");
        assert_eq!(keys.effects.dirty, 0);
    }

    #[test]
    fn floating_point_numbers() {
        let mut keys = Keyspace::new();
        keys.check("INCRBYFLOAT f 0.1", "$3 0.1");
        keys.check("INCRBYFLOAT f 0.2", "$3 0.3");
        keys.check("INCRBYFLOAT f -0.3", "$1 0");
        keys.check("INCRBYFLOAT f 1e3", "$4 1000");
        keys.check("INCR f", ":1001");
        keys.check("EXPIRE f 10", ":1");
        keys.check("INCRBYFLOAT f 1", "$4 1002");
        keys.check("TTL f", ":10");
        keys.check("INCRBYFLOAT f nan", "-ERR value is not a valid float");
        keys.check("INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity");
        keys.check("SET f x", "+OK");
        keys.check("INCRBYFLOAT f 1", "-ERR value is not a valid float");
    }
}

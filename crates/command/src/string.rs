//! Strings as whole values: GET, SET and their kin.
//!
//! Numbers in strings are in `string_counter.rs`, parts of strings in `string_range.rs`. Like all
//! handlers these see the keyspace through [`Call`] and know neither sockets nor locks.

use std::ops::Deref;

use data::number::Digits;
use engine::{Entry, Expiry, Str, Txn, ValueRef};
use resp::{Reply, Simple};

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string_conditional::Condition;

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::String, "get", 2, get)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .quick(get_quickly)
        .summary("Answers the string stored at a key.")
        .syntax("key"),
    Command::new(Group::String, "getdel", 2, getdel)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::DELETE)])
        .since("6.2.0")
        .summary("Answers the string stored at a key and removes the key.")
        .syntax("key"),
    Command::new(Group::String, "getex", -2, getex)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)
            .notes("RW and UPDATE because the expiry may change")])
        .since("6.2.0")
        .summary("Answers the string stored at a key and sets or clears the key's expiry.")
        .syntax(
            "key [expiration:(EX seconds | PX milliseconds | EXAT unix-time-seconds | \
             PXAT unix-time-milliseconds | PERSIST)]",
        ),
    Command::new(Group::String, "getset", 3, getset)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .deprecated("6.2.0", "`SET` with the `GET` argument")
        .summary("Stores a string at a key and answers the one that was there.")
        .syntax("key value"),
    Command::new(Group::String, "mget", -2, mget)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::all(k::RO | k::ACCESS)])
        .complexity("O(N) with N the number of keys")
        .tips(&["request_policy:multi_shard"])
        .summary("Answers the strings stored at several keys.")
        .syntax("key [key ...]"),
    Command::new(Group::String, "mset", -3, mset)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::range(1, -1, 2, k::OW | k::UPDATE)])
        .since("1.0.1")
        .complexity("O(N) with N the number of keys")
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .summary("Stores strings at several keys at once.")
        .syntax("data:(key value) [data:(key value) ...]"),
    Command::new(Group::String, "msetnx", -3, msetnx)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::range(1, -1, 2, k::OW | k::INSERT)])
        .since("1.0.1")
        .complexity("O(N) with N the number of keys")
        .summary("Stores strings at several keys at once, but only if none of the keys exists.")
        .syntax("data:(key value) [data:(key value) ...]"),
    Command::new(Group::String, "psetex", 4, psetex)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::OW | k::UPDATE)])
        .since("2.6.0")
        .deprecated("2.6.12", "`SET` with the `PX` argument")
        .summary("Stores a string at a key together with its time to live in milliseconds.")
        .syntax("key milliseconds value"),
    Command::new(Group::String, "set", -3, set)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE | k::VARIABLE_FLAGS)
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .history(&[
            ("2.6.12", "Added the options `EX`, `PX`, `NX` and `XX`."),
            ("6.0.0", "Added the option `KEEPTTL`."),
            ("6.2.0", "Added the options `GET`, `EXAT` and `PXAT`."),
            ("7.0.0", "`NX` and `GET` can be used together."),
            ("8.4.0", "Added the options `IFEQ`, `IFNE`, `IFDEQ` and `IFDNE`."),
        ])
        .quick(set_quickly)
        .summary("Stores a string at a key, whatever it held before.")
        .syntax(
            "key value [condition:(NX | XX | IFEQ ifeq-value | IFNE ifne-value | \
             IFDEQ ifdeq-digest | IFDNE ifdne-digest)] [GET] [expiration:(EX seconds | PX milliseconds | \
             EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL)]",
        ),
    Command::new(Group::String, "setex", 4, setex)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::OW | k::UPDATE)])
        .since("2.0.0")
        .deprecated("2.6.12", "`SET` with the `EX` argument")
        .summary("Stores a string at a key together with its time to live in seconds.")
        .syntax("key seconds value"),
    Command::new(Group::String, "setnx", 3, setnx)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::OW | k::INSERT)])
        .deprecated("2.6.12", "`SET` with the `NX` argument")
        .summary("Stores a string at a key that does not exist yet.")
        .syntax("key value"),
];

/// Writes a string value as a bulk reply, or the null for none.
pub(crate) fn reply_string(reply: &mut Reply<'_>, value: Option<Str<'_>>) {
    match value {
        None => reply.null(),
        Some(Str::Int(n)) => reply.bulk_integer(n),
        Some(Str::Bytes(bytes)) => reply.bulk(bytes),
    }
}

/// The bytes of a string value, whichever way it is stored.
pub(crate) enum Text<'a> {
    Stored(&'a [u8]),
    Number(Digits),
}

impl<'a> From<Str<'a>> for Text<'a> {
    fn from(value: Str<'a>) -> Text<'a> {
        match value {
            Str::Int(n) => Text::Number(data::number::format_i64(n)),
            Str::Bytes(bytes) => Text::Stored(bytes),
        }
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Text::Stored(bytes) => bytes,
            Text::Number(digits) => digits,
        }
    }
}

/// The string that a command may change. Unlike a read it counts neither a hit nor a miss.
pub(crate) fn look_at_string<'t>(txn: &'t Txn<'_>, key: &[u8]) -> Result<Option<Str<'t>>> {
    match txn.look(key).map(Entry::get) {
        None => Ok(None),
        Some(ValueRef::Str(value)) => Ok(Some(value)),
        Some(_) => Err(Error::WRONG_TYPE),
    }
}

/// How an option states a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeOption {
    Ex,
    Px,
    ExAt,
    PxAt,
}

impl TimeOption {
    fn is_absolute(self) -> bool {
        matches!(self, TimeOption::ExAt | TimeOption::PxAt)
    }

    /// As Unix time in ms. Times that are not positive are refused even where they are absolute.
    pub fn expire_at_ms(self, amount: &[u8], now_ms: i64, command: &str) -> Result<i64> {
        let amount = integer(amount)?;
        let in_seconds = matches!(self, TimeOption::Ex | TimeOption::ExAt);
        let ms = if in_seconds { amount.checked_mul(1000) } else { Some(amount) };
        let when = match ms {
            Some(ms) if ms <= 0 => None,
            Some(ms) if !self.is_absolute() => ms.checked_add(now_ms),
            ms => ms,
        };
        when.ok_or_else(|| Error::invalid_expire(command))
    }
}

/// What the options say of the expiry.
#[derive(Clone, Copy)]
enum Lifetime<'a> {
    Unsaid,
    Keep,
    Persist,
    Time(TimeOption, &'a [u8]),
}

/// The options of SET and GETEX.
struct Options<'a> {
    only_new: bool,
    only_old: bool,
    /// Of SET: what the old value must be like.
    condition: Option<Condition<'a>>,
    get_old: bool,
    lifetime: Lifetime<'a>,
}

impl<'a> Options<'a> {
    fn of_set(args: &[&'a [u8]]) -> Result<Options<'a>> {
        Options::parse(args, true)
    }

    fn of_getex(args: &[&'a [u8]]) -> Result<Options<'a>> {
        Options::parse(args, false)
    }

    /// An option may be repeated, the last one counts; options that exclude one another may not
    /// meet. Amounts are looked at later: a syntax error anywhere goes first.
    fn parse(args: &[&'a [u8]], set: bool) -> Result<Options<'a>> {
        let mut options = Options {
            only_new: false,
            only_old: false,
            condition: None,
            get_old: false,
            lifetime: Lifetime::Unsaid,
        };
        let mut rest = args;
        while let [word, behind @ ..] = rest {
            rest = behind;
            if let Some(time) = time_option(word) {
                let [amount, behind @ ..] = rest else { return Err(Error::SYNTAX) };
                rest = behind;
                match options.lifetime {
                    Lifetime::Unsaid => {}
                    Lifetime::Time(before, _) if before == time => {}
                    _ => return Err(Error::SYNTAX),
                }
                options.lifetime = Lifetime::Time(time, amount);
            } else if set && is(word, "NX") && !options.only_old && options.condition.is_none() {
                options.only_new = true;
            } else if set && is(word, "XX") && !options.only_new && options.condition.is_none() {
                options.only_old = true;
            } else if set
                && let [value, behind @ ..] = rest
                && let Some(condition) = Condition::of(word, value)?
            {
                rest = behind;
                if options.only_new || options.only_old || options.condition.is_some() {
                    return Err(Error::SYNTAX);
                }
                options.condition = Some(condition);
            } else if set && is(word, "GET") {
                options.get_old = true;
            } else if set
                && is(word, "KEEPTTL")
                && matches!(options.lifetime, Lifetime::Unsaid | Lifetime::Keep)
            {
                options.lifetime = Lifetime::Keep;
            } else if !set
                && is(word, "PERSIST")
                && matches!(options.lifetime, Lifetime::Unsaid | Lifetime::Persist)
            {
                options.lifetime = Lifetime::Persist;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(options)
    }
}

pub(crate) fn time_option(word: &[u8]) -> Option<TimeOption> {
    match word.len() {
        2 if is(word, "EX") => Some(TimeOption::Ex),
        2 if is(word, "PX") => Some(TimeOption::Px),
        4 if is(word, "EXAT") => Some(TimeOption::ExAt),
        4 if is(word, "PXAT") => Some(TimeOption::PxAt),
        _ => None,
    }
}

fn get(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let value = call.txn.read_string(args[1])?;
    reply_string(&mut call.reply, value);
    Ok(())
}

fn get_quickly<'t>(txn: &'t mut Txn<'_>, args: &[&[u8]]) -> Option<Simple<'t>> {
    txn.read_text(args[1]).map(Simple::Bulk)
}

fn getdel(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let value = call.txn.read_string(args[1])?;
    reply_string(&mut call.reply, value);
    if value.is_some() {
        call.txn.remove(args[1]);
    }
    Ok(())
}

fn getex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let key = args[1];
    let lifetime = Options::of_getex(&args[2..])?.lifetime;
    let now_ms = call.now_ms();
    let value = call.txn.read_string(key)?;
    if value.is_none() {
        call.reply.null();
        return Ok(());
    }
    let when = match lifetime {
        Lifetime::Time(time, amount) => Some(time.expire_at_ms(amount, now_ms, "getex")?),
        _ => None,
    };
    reply_string(&mut call.reply, value);
    match (lifetime, when) {
        (_, Some(when)) if when <= now_ms => {
            call.txn.remove(key);
        }
        (_, Some(when)) => {
            call.txn.set_expire(key, Some(when));
        }
        (Lifetime::Persist, None) => {
            persist(call.txn, key);
        }
        _ => {}
    }
    Ok(())
}

/// Clears the expiry of a key. False when it had none.
pub(crate) fn persist(txn: &mut Txn<'_>, key: &[u8]) -> bool {
    let expires = txn.look(key).is_some_and(|entry| entry.expire_at_ms().is_some());
    expires && txn.set_expire(key, None)
}

fn getset(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let old = call.txn.read_string(args[1])?;
    reply_string(&mut call.reply, old);
    call.txn.set_string(args[1], args[2], Expiry::Clear);
    Ok(())
}

fn mget(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    call.reply.array(args.len() - 1);
    for key in &args[1..] {
        // A key of another type has no string to answer: that is no error here.
        let value = call.txn.read_string(key).unwrap_or(None);
        reply_string(&mut call.reply, value);
    }
    Ok(())
}

fn mset(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let pairs = pairs(args, "mset")?;
    for [key, value] in pairs {
        call.txn.set_string(key, value, Expiry::Clear);
    }
    call.reply.ok();
    Ok(())
}

fn msetnx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let pairs = pairs(args, "msetnx")?;
    let free = !pairs.iter().any(|[key, _]| call.txn.look(key).is_some());
    if free {
        for [key, value] in pairs {
            call.txn.set_string(key, value, Expiry::Clear);
        }
    }
    call.reply.integer(i64::from(free));
    Ok(())
}

fn pairs<'s, 'a>(args: &'s [&'a [u8]], command: &str) -> Result<&'s [[&'a [u8]; 2]]> {
    match args[1..].as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => Err(Error::arity(command)),
    }
}

fn set_quickly<'t>(txn: &'t mut Txn<'_>, args: &[&[u8]]) -> Option<Simple<'t>> {
    let [_, key, value] = args else { return None };
    txn.set_string(key, value, Expiry::Clear);
    Some(Simple::Ok)
}

fn set(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, value) = (args[1], args[2]);
    if args.len() == 3 {
        call.txn.set_string(key, value, Expiry::Clear);
        call.reply.ok();
        return Ok(());
    }
    let options = Options::of_set(&args[3..])?;
    let expiry = match options.lifetime {
        Lifetime::Time(time, amount) => {
            Expiry::At(time.expire_at_ms(amount, call.now_ms(), "set")?)
        }
        Lifetime::Keep => Expiry::Keep,
        Lifetime::Unsaid | Lifetime::Persist => Expiry::Clear,
    };
    let mut holds = true;
    let exists = if options.get_old || options.condition.is_some() {
        let old = call.txn.read_string(key)?;
        if options.get_old {
            reply_string(&mut call.reply, old);
        }
        holds = options.condition.is_none_or(|condition| condition.holds(old));
        old.is_some()
    } else {
        (options.only_new || options.only_old) && call.txn.look(key).is_some()
    };
    let refused = !holds || (options.only_new && exists) || (options.only_old && !exists);
    if !refused {
        call.txn.set_string(key, value, expiry);
    }
    match (options.get_old, refused) {
        (true, _) => {}
        (false, true) => call.reply.null(),
        (false, false) => call.reply.ok(),
    }
    Ok(())
}

fn setex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    set_for(call, args, TimeOption::Ex, "setex")
}

fn psetex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    set_for(call, args, TimeOption::Px, "psetex")
}

fn set_for(call: &mut Call<'_, '_>, args: &[&[u8]], time: TimeOption, command: &str) -> Result {
    let when = time.expire_at_ms(args[2], call.now_ms(), command)?;
    call.txn.set_string(args[1], args[3], Expiry::At(when));
    call.reply.ok();
    Ok(())
}

fn setnx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let free = call.txn.look(args[1]).is_none();
    if free {
        call.txn.set_string(args[1], args[2], Expiry::Clear);
    }
    call.reply.integer(i64::from(free));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn set_and_its_options() {
        let mut keys = Keyspace::new();
        keys.check("SET k v", "+OK");
        keys.check("SET k w NX", "$-1");
        keys.check("SET k w NX GET", "$1 v");
        keys.check("SET new w NX GET", "$-1");
        keys.check("GET new", "$1 w");
        keys.check("SET none w XX", "$-1");
        keys.check("SET k 12 XX", "+OK");
        keys.check("SET k x GET", "$2 12");
        keys.check("SET k v EX 5 EX 10", "+OK");
        keys.check("TTL k", ":10");
        keys.check("SET k v KEEPTTL", "+OK");
        keys.check("TTL k", ":10");
        keys.check("SET k v", "+OK");
        keys.check("TTL k", ":-1");
    }

    #[test]
    fn what_set_refuses() {
        let mut keys = Keyspace::new();
        for options in ["NX XX", "EX 1 PX 1", "EX 1 KEEPTTL", "EX", "PERSIST", "EX x FOO"] {
            keys.check(&format!("SET k v {options}"), "-ERR syntax error");
        }
        for options in ["EX 0", "PX -1", "EX 9223372036854775807", "PX 9223372036854775807"] {
            let expected = "-ERR invalid expire time in 'set' command";
            keys.check(&format!("SET k v {options}"), expected);
        }
        keys.check("SET k v EX 1.5", "-ERR value is not an integer or out of range");
        keys.check("SETEX k 0 v", "-ERR invalid expire time in 'setex' command");
        keys.check("EXISTS k", ":0");
    }

    #[test]
    fn getex_looks_at_the_time_only_when_there_is_a_key() {
        let mut keys = Keyspace::new();
        keys.check("GETEX k EX 0", "$-1");
        keys.check("SET k v", "+OK");
        keys.check("GETEX k EX 0", "-ERR invalid expire time in 'getex' command");
        keys.check("GETEX k PX 1500", "$1 v");
        keys.check("PTTL k", ":1500");
        keys.check("GETEX k PERSIST", "$1 v");
        keys.check("TTL k", ":-1");
        keys.check("GETEX k KEEPTTL", "-ERR syntax error");
        keys.check("GETEX k PXAT 1", "$1 v");
        keys.check("EXISTS k", ":0");
    }

    #[test]
    fn several_keys() {
        let mut keys = Keyspace::new();
        keys.check("MSET a 1 b 2 a 3", "+OK");
        keys.check("MGET a none b", "*3 $1 3 $-1 $1 2");
        keys.check("MSETNX c 1 a 1", ":0");
        keys.check("EXISTS c", ":0");
        keys.check("MSETNX c 1 d 1", ":1");
        keys.check("MSET a", "-ERR wrong number of arguments for 'mset' command");
        keys.check("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command");
        keys.check("GETDEL a", "$1 3");
        keys.check("GETDEL a", "$-1");
    }

    #[test]
    fn expired_strings_are_gone() {
        let mut keys = Keyspace::new();
        keys.check("SET k v PX 10", "+OK");
        keys.now_ms += 9;
        keys.check("GET k", "$1 v");
        keys.now_ms += 1;
        keys.check("GET k", "$-1");
        keys.check("SET k v XX", "$-1");
    }
}

//! Fields that expire: HEXPIRE and its kin, HTTL, HPERSIST, and the commands that set or read fields
//! along with their time. The fields whose time has come are gone before a command sees them; see
//! `call::expire_fields`.

use data::Hash;
use engine::{Event, Mut};

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};

const CHANGED: &[KeySpec] = &[KeySpec::first(k::RW | k::UPDATE)];
const ASKED: &[KeySpec] = &[KeySpec::first(k::RO | k::ACCESS)];
const EACH: &str = "O(N) where N is the number of fields given.";

/// A row that sets times.
const fn expires(name: &'static str, handler: Handler) -> Command<Handler> {
    Command::new(Group::Hash, name, -6, handler)
        .flags(WRITE | DENYOOM | FAST)
        .keys(CHANGED)
        .since("7.4.0")
        .complexity(EACH)
}

/// A row that asks for times.
const fn asks(name: &'static str, handler: Handler) -> Command<Handler> {
    Command::new(Group::Hash, name, -5, handler)
        .flags(READONLY | FAST)
        .keys(ASKED)
        .since("7.4.0")
        .complexity(EACH)
        .syntax("key FIELDS fields:(numfields field [field ...])")
}

pub const TABLE: &[Command<Handler>] = &[
    expires("hexpire", hexpire).summary("Has fields expire in so many seconds.").syntax(
        "key seconds [condition:(NX | XX | GT | LT)] \
             FIELDS fields:(numfields field [field ...])",
    ),
    expires("hpexpire", hpexpire).summary("Has fields expire in so many milliseconds.").syntax(
        "key milliseconds [condition:(NX | XX | GT | LT)] \
             FIELDS fields:(numfields field [field ...])",
    ),
    expires("hexpireat", hexpireat).summary("Has fields expire at a Unix time in seconds.").syntax(
        "key unix-time-seconds:unix-time [condition:(NX | XX | GT | LT)] \
             FIELDS fields:(numfields field [field ...])",
    ),
    expires("hpexpireat", hpexpireat)
        .summary("Has fields expire at a Unix time in milliseconds.")
        .syntax(
            "key unix-time-milliseconds:unix-time [condition:(NX | XX | GT | LT)] \
             FIELDS fields:(numfields field [field ...])",
        ),
    asks("httl", httl)
        .tips(&["nondeterministic_output"])
        .summary("Answers in how many seconds fields expire."),
    asks("hpttl", hpttl)
        .tips(&["nondeterministic_output"])
        .summary("Answers in how many milliseconds fields expire."),
    asks("hexpiretime", hexpiretime)
        .summary("Answers the Unix times in seconds at which fields expire."),
    asks("hpexpiretime", hpexpiretime)
        .summary("Answers the Unix times in milliseconds at which fields expire."),
    Command::new(Group::Hash, "hpersist", -5, hpersist)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("7.4.0")
        .complexity(EACH)
        .summary("Has fields expire no more.")
        .syntax("key FIELDS fields:(numfields field [field ...])"),
    Command::new(Group::Hash, "hgetdel", -5, hgetdel)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::DELETE)])
        .since("8.0.0")
        .complexity(EACH)
        .summary("Answers the values of fields and removes them.")
        .syntax("key FIELDS fields:(numfields field [field ...])"),
    Command::new(Group::Hash, "hgetex", -5, hgetex)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .since("8.0.0")
        .complexity(EACH)
        .summary("Answers the values of fields and sets when they expire.")
        .syntax(
            "key [expiration:(EX seconds | PX milliseconds | \
             EXAT unix-time-seconds:unix-time | PXAT unix-time-milliseconds:unix-time | \
             PERSIST)] FIELDS fields:(numfields field [field ...])",
        ),
    Command::new(Group::Hash, "hsetex", -6, hsetex)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("8.0.0")
        .complexity(EACH)
        .summary("Sets fields and when they expire.")
        .syntax(
            "key [condition:(FNX | FXX)] [expiration:(EX seconds | PX milliseconds | \
             EXAT unix-time-seconds:unix-time | PXAT unix-time-milliseconds:unix-time | \
             KEEPTTL)] FIELDS fields:(numfields data:(field value) [field value ...])",
        ),
];

const NO_FIELD: i64 = -2;
const NO_TIME: i64 = -1;

/// As far as times go in Redis: 46 bits of milliseconds.
const TIME_MAX_MS: i64 = (1 << 46) - 1;

const NO_FIELDS: Error =
    Error::of("ERR Mandatory argument FIELDS is missing or not at the right position");
const COUNT: Error = Error::of("ERR Number of fields must be a positive integer");
const COUNT_DIFFERS: Error =
    Error::of("ERR The `numfields` parameter must match the number of arguments");

/// The fields behind the word FIELDS and their number, which begin these arguments; each has so
/// many words.
fn fields<'f, 'a>(args: &'f [&'a [u8]], words: usize, no_count: Error) -> Result<&'f [&'a [u8]]> {
    let [word, count, fields @ ..] = args else { return Err(NO_FIELDS) };
    if !is(word, "FIELDS") {
        return Err(NO_FIELDS);
    }
    let count = data::number::parse_i64(count).filter(|count| *count > 0).ok_or(no_count)?;
    let is_count = usize::try_from(count).ok().and_then(|count| count.checked_mul(words));
    if is_count != Some(fields.len()) {
        return Err(COUNT_DIFFERS);
    }
    Ok(fields)
}

/// A point in time, Unix ms: so many units of so many ms from a beginning on.
fn point(arg: &[u8], unit_ms: i64, from_ms: i64, name: &[u8]) -> Result<i64> {
    let number = integer(arg)?;
    if number < 0 {
        return Err(Error::of("ERR invalid expire time, must be >= 0"));
    }
    let at_ms = number.checked_mul(unit_ms).and_then(|ms| ms.checked_add(from_ms));
    at_ms
        .filter(|at_ms| *at_ms <= TIME_MAX_MS)
        .ok_or_else(|| Error::invalid_expire(&String::from_utf8_lossy(name).to_lowercase()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    HasNone,
    HasOne,
    Later,
    Earlier,
}

impl Condition {
    fn parse(word: &[u8]) -> Option<Condition> {
        Some(match word {
            word if is(word, "NX") => Condition::HasNone,
            word if is(word, "XX") => Condition::HasOne,
            word if is(word, "GT") => Condition::Later,
            word if is(word, "LT") => Condition::Earlier,
            _ => return None,
        })
    }

    /// Without a time a field stays for ever.
    fn allows(self, old: Option<i64>, new: i64) -> bool {
        match (self, old) {
            (Condition::Always, _) | (Condition::HasNone | Condition::Earlier, None) => true,
            (Condition::HasNone, Some(_)) | (Condition::HasOne | Condition::Later, None) => false,
            (Condition::HasOne, Some(_)) => true,
            (Condition::Later, Some(old)) => new > old,
            (Condition::Earlier, Some(old)) => new < old,
        }
    }
}

fn hexpire(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    expire(call, args, 1000, now_ms)
}

fn hpexpire(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    expire(call, args, 1, now_ms)
}

fn hexpireat(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    expire(call, args, 1000, 0)
}

fn hpexpireat(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    expire(call, args, 1, 0)
}

fn expire(call: &mut Call<'_, '_>, args: &[&[u8]], unit_ms: i64, from_ms: i64) -> Result {
    check_type(call, args[1])?;
    let at_ms = point(args[2], unit_ms, from_ms, args[0])?;
    let (condition, rest) = match Condition::parse(args[3]) {
        Some(condition) => (condition, &args[4..]),
        None => (Condition::Always, &args[3..]),
    };
    let no_count = Error::of("ERR Parameter `numFields` should be greater than 0");
    let fields = fields(rest, 1, no_count)?;
    let now_ms = call.now_ms();
    call.reply.array(fields.len());
    let Some(mut hash) = call.txn.write::<Hash>(args[1])? else {
        fields.iter().for_each(|_| call.reply.integer(NO_FIELD));
        return Ok(());
    };
    for field in fields {
        call.reply.integer(match hash.contains(field) {
            false => NO_FIELD,
            true if !condition.allows(hash.time_ms(field), at_ms) => 0,
            true => set_time(&mut hash, field, Some(at_ms), now_ms),
        });
    }
    Ok(())
}

/// Has a field that is there expire then; 2 if that time has come, so that it is gone, else 1.
fn set_time(hash: &mut Mut<'_, '_, Hash>, field: &[u8], at_ms: Option<i64>, now_ms: i64) -> i64 {
    if at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        hash.remove(field);
        return 2;
    }
    hash.expire(field, at_ms);
    1
}

/// Redis looks at the type before it looks at the other arguments.
fn check_type(call: &Call<'_, '_>, key: &[u8]) -> Result {
    match call.txn.peek(key).map(engine::Entry::get) {
        None | Some(engine::ValueRef::Hash(_)) => Ok(()),
        Some(_) => Err(Error::WRONG_TYPE),
    }
}

fn httl(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    times(call, args, |at_ms| (at_ms + 999 - now_ms) / 1000)
}

fn hpttl(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    times(call, args, |at_ms| at_ms - now_ms)
}

fn hexpiretime(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    times(call, args, |at_ms| (at_ms + 999) / 1000)
}

fn hpexpiretime(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    times(call, args, |at_ms| at_ms)
}

fn times(call: &mut Call<'_, '_>, args: &[&[u8]], say: impl Fn(i64) -> i64) -> Result {
    let hash = call.txn.read_hash(args[1])?;
    let fields = fields(&args[2..], 1, COUNT)?;
    call.reply.array(fields.len());
    for field in fields {
        let found = hash.filter(|hash| hash.contains(field));
        call.reply.integer(match found.map(|hash| hash.time_ms(field)) {
            None => NO_FIELD,
            Some(None) => NO_TIME,
            Some(Some(at_ms)) => say(at_ms),
        });
    }
    Ok(())
}

fn hpersist(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    check_type(call, args[1])?;
    let fields = fields(&args[2..], 1, COUNT)?;
    call.reply.array(fields.len());
    let Some(mut hash) = call.txn.write::<Hash>(args[1])? else {
        fields.iter().for_each(|_| call.reply.integer(NO_FIELD));
        return Ok(());
    };
    for field in fields {
        let had_time = hash.time_ms(field).is_some();
        call.reply.integer(match hash.contains(field) {
            false => NO_FIELD,
            true if !had_time => NO_TIME,
            true => {
                hash.expire(field, None);
                1
            }
        });
    }
    Ok(())
}

fn hgetdel(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    check_type(call, args[1])?;
    let fields = fields(&args[2..], 1, COUNT)?;
    call.reply.array(fields.len());
    let Some(mut hash) = call.txn.write::<Hash>(args[1])? else {
        fields.iter().for_each(|_| call.reply.null());
        return Ok(());
    };
    for field in fields {
        match hash.get(field) {
            Some(value) => call.reply.bulk(value),
            None => call.reply.null(),
        }
        hash.remove(field);
    }
    Ok(())
}

/// What HGETEX and HSETEX do with the times of fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    Leave,
    Clear,
    At(i64),
}

/// The options of HGETEX and HSETEX, in any order.
struct Options<'f, 'a> {
    time: Option<Time>,
    /// All fields must be there, or none of them.
    wants_fields: Option<bool>,
    fields: &'f [&'a [u8]],
}

impl<'f, 'a> Options<'f, 'a> {
    fn parse(call: &Call<'_, '_>, args: &'f [&'a [u8]], sets: bool) -> Result<Options<'f, 'a>> {
        let mut options = Options { time: None, wants_fields: None, fields: &[] };
        let mut rest = &args[2..];
        while let [word, behind @ ..] = rest {
            let time = match (word, behind) {
                (word, _) if sets && is(word, "KEEPTTL") => Some((Time::Leave, behind)),
                (word, _) if !sets && is(word, "PERSIST") => Some((Time::Clear, behind)),
                (word, [number, behind @ ..]) => {
                    let unit = match word {
                        word if is(word, "EX") => Some((1000, call.now_ms())),
                        word if is(word, "PX") => Some((1, call.now_ms())),
                        word if is(word, "EXAT") => Some((1000, 0)),
                        word if is(word, "PXAT") => Some((1, 0)),
                        _ => None,
                    };
                    let time =
                        unit.map(|(unit_ms, from_ms)| point(number, unit_ms, from_ms, args[0]));
                    time.transpose()?.map(|at_ms| (Time::At(at_ms), behind))
                }
                _ => None,
            };
            if let Some((time, behind)) = time {
                if options.time.replace(time).is_some() {
                    return Err(Error::of(match sets {
                        true => {
                            "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"
                        }
                        false => {
                            "ERR Only one of EX, PX, EXAT, PXAT or PERSIST arguments can be specified"
                        }
                    }));
                }
                rest = behind;
            } else if sets && (is(word, "FNX") || is(word, "FXX")) {
                if options.wants_fields.replace(is(word, "FXX")).is_some() {
                    return Err(Error::of("ERR Only one of FXX or FNX arguments can be specified"));
                }
                rest = behind;
            } else if is(word, "FIELDS") && options.fields.is_empty() {
                let words = if sets { 2 } else { 1 };
                // More options may follow the fields.
                let count = behind.first().and_then(|count| data::number::parse_i64(count));
                let count = count.filter(|count| *count > 0).ok_or(COUNT)?;
                let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(words));
                let split = len.and_then(|len| behind[1..].split_at_checked(len));
                (options.fields, rest) = split.ok_or(COUNT_DIFFERS)?;
            } else {
                let word = String::from_utf8_lossy(word);
                return Err(Error::new(format!("ERR unknown argument: {word}")));
            }
        }
        match options.fields {
            [] => Err(Error::of("ERR missing FIELDS argument")),
            _ => Ok(options),
        }
    }
}

fn hgetex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    check_type(call, args[1])?;
    let options = Options::parse(call, args, false)?;
    let now_ms = call.now_ms();
    call.reply.array(options.fields.len());
    let Some(mut hash) = call.txn.write::<Hash>(args[1])? else {
        options.fields.iter().for_each(|_| call.reply.null());
        return Ok(());
    };
    for field in options.fields {
        let Some(value) = hash.get(field) else {
            call.reply.null();
            continue;
        };
        call.reply.bulk(value);
        match options.time {
            Some(Time::At(at_ms)) => _ = set_time(&mut hash, field, Some(at_ms), now_ms),
            Some(Time::Clear) if hash.time_ms(field).is_some() => hash.expire(field, None),
            _ => {}
        }
    }
    Ok(())
}

fn hsetex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    check_type(call, args[1])?;
    let options = Options::parse(call, args, true)?;
    let now_ms = call.now_ms();
    let (pairs, _) = options.fields.as_chunks::<2>();
    if let Some(wanted) = options.wants_fields {
        let hash = call.txn.read_hash(args[1])?;
        let is_there = |field: &[u8]| hash.is_some_and(|hash| hash.contains(field));
        if pairs.iter().any(|[field, _]| is_there(field) != wanted) {
            call.reply.integer(0);
            return Ok(());
        }
    }
    let mut hash = call.txn.write_or_create::<Hash>(args[1])?;
    hash.prepare(pairs.len());
    for [field, value] in pairs {
        match options.time {
            Some(Time::Leave) => _ = hash.set_keeping(field, value),
            _ => _ = hash.set(field, value),
        }
        if let Some(Time::At(at_ms)) = options.time {
            hash.tell_as(Event::hash("hexpire"));
            set_time(&mut hash, field, Some(at_ms), now_ms);
            hash.tell_as(Event::hash("hset"));
        }
    }
    call.reply.integer(1);
    Ok(())
}

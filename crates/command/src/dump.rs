//! DUMP and RESTORE: values as bytes, in the format of RDB files.

use std::sync::OnceLock;

use data::Stream;
use engine::{Collection, Entry, Event, Value, ValueRef, access};
use persist::rdb::{self, RestoreError, Version};

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{ASKING, DENYOOM, READONLY, WRITE};
use crate::row::{Command, Group, category};

const RESTORE: &str = "key ttl:integer serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] \
                       [FREQ frequency:integer]";

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Generic, "dump", 2, dump)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.6.0")
        .complexity("O(N) with N the size of the value")
        .tips(&["nondeterministic_output"])
        .summary("Answers the value of a key in a form that RESTORE takes.")
        .syntax("key"),
    Command::new(Group::Generic, "restore", -4, restore)
        .flags(WRITE | DENYOOM)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .keys(&[KeySpec::first(k::OW | k::UPDATE)])
        .since("2.6.0")
        .complexity("O(N) with N the size of the value, O(N*log(N)) for sorted sets")
        .history(&[("3.0.0", "Takes REPLACE."), ("5.0.0", "Takes ABSTTL, IDLETIME and FREQ.")])
        .summary("Makes a key from what DUMP has answered.")
        .syntax(RESTORE),
    Command::new(Group::Server, "restore-asking", -4, restore)
        .flags(WRITE | DENYOOM | ASKING)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .keys(&[KeySpec::first(k::OW | k::UPDATE)])
        .since("3.0.0")
        .complexity("O(N) with N the size of the value, O(N*log(N)) for sorted sets")
        .history(&[("3.0.0", "Takes REPLACE."), ("5.0.0", "Takes ABSTTL, IDLETIME and FREQ.")])
        .summary("RESTORE, as nodes of a cluster send it to each other.")
        .syntax(RESTORE),
];

/// The payload says version 10, which holds every value and which Redis 7.0 takes as well as all
/// later ones.
fn dump(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.read(args[1]).map(Entry::get) {
        None => call.reply.null(),
        Some(value) => call.reply.bulk(&rdb::dump(value, Version::V10)),
    }
    Ok(())
}

#[derive(Default)]
struct Options {
    replaces: bool,
    is_absolute: bool,
    idle_seconds: Option<i64>,
    frequency: Option<i64>,
}

impl Options {
    fn parse(words: &[&[u8]]) -> Result<Options> {
        let mut options = Options::default();
        let mut rest = words;
        while let [word, behind @ ..] = rest {
            rest = behind;
            if is(word, "REPLACE") {
                options.replaces = true;
            } else if is(word, "ABSTTL") {
                options.is_absolute = true;
            } else if is(word, "IDLETIME")
                && let [value, behind @ ..] = rest
                && options.frequency.is_none()
            {
                rest = behind;
                options.idle_seconds = match integer(value)? {
                    seconds @ 0.. => Some(seconds),
                    _ => return Err(Error::of("ERR Invalid IDLETIME value, must be >= 0")),
                };
            } else if is(word, "FREQ")
                && let [value, behind @ ..] = rest
                && options.idle_seconds.is_none()
            {
                rest = behind;
                options.frequency = match integer(value)? {
                    counter @ 0..=255 => Some(counter),
                    _ => {
                        return Err(Error::of("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                    }
                };
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(options)
    }
}

static LOG: OnceLock<fn(&str)> = OnceLock::new();

/// Where it is told why a payload was refused, which the client is not told; set once.
pub fn tell_refusals(log: fn(&str)) {
    let _ = LOG.set(log);
}

fn restore(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, payload) = (args[1], args[3]);
    let options = Options::parse(&args[4..])?;
    if !options.replaces && call.txn.look(key).is_some() {
        return Err(Error::of("BUSYKEY Target key name already exists."));
    }
    let ttl_ms = match integer(args[2])? {
        ttl_ms @ 0.. => ttl_ms,
        _ => return Err(Error::of("ERR Invalid TTL value, must be >= 0")),
    };
    let value = match rdb::restore(payload, call.txn.limits()) {
        Ok(value) => value,
        Err(RestoreError::Footer) => {
            return Err(Error::of("ERR DUMP payload version or checksum are wrong"));
        }
        Err(RestoreError::Value(error)) => {
            if let Some(tell) = LOG.get() {
                let key = key.escape_ascii();
                tell(&format!("Bad data format in RESTORE of the key '{key}': {error}"));
            }
            return Err(Error::of("ERR Bad data format"));
        }
    };
    let now_ms = call.now_ms();
    let expire_at_ms = match (ttl_ms, options.is_absolute) {
        (0, _) => None,
        (when, true) => Some(when),
        // A time that no clock will show is as good as the last one.
        (after, false) => Some(now_ms.saturating_add(after)),
    };
    if expire_at_ms.is_some_and(|when| when <= now_ms) {
        call.txn.remove(key);
        call.reply.ok();
        return Ok(());
    }
    call.txn.tell_as(Event::generic("restore"));
    match value {
        Value::Collection(Collection::Stream(stream)) => {
            let dump = |stream: &Stream| rdb::dump(ValueRef::Stream(stream), Version::V10);
            call.txn.put_stream(key, stream, expire_at_ms, dump);
        }
        value => call.txn.put(key, value, expire_at_ms),
    }
    if let Some(entry) = call.txn.peek(key) {
        let worker = call.txn.worker();
        match (options.idle_seconds, options.frequency) {
            (Some(seconds), _) if !worker.settings.policy.is_lfu() => {
                access::set_idle_seconds(entry, seconds.try_into().unwrap_or(u32::MAX), now_ms);
            }
            (_, Some(counter)) if worker.settings.policy.is_lfu() => {
                access::set_lfu_count(entry, counter as u8, now_ms);
            }
            _ => {}
        }
    }
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    const FOOTER: &str = "-ERR DUMP payload version or checksum are wrong";

    /// The payload in a bulk reply.
    fn payload(reply: &[u8]) -> &[u8] {
        let start = reply.iter().position(|&byte| byte == b'\n').expect("a bulk reply") + 1;
        &reply[start..reply.len() - 2]
    }

    fn dumped(db: &mut Keyspace, key: &str) -> Vec<u8> {
        payload(&db.run_args(&[b"DUMP", key.as_bytes()])).to_vec()
    }

    #[track_caller]
    fn restores(db: &mut Keyspace, words: &str, payload: &[u8], expected: &str) {
        let mut args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        args.insert(0, b"RESTORE");
        args.insert(3, payload);
        let reply = db.run_args(&args);
        assert_eq!(String::from_utf8_lossy(&reply).trim_end(), expected, "{words}");
    }

    #[test]
    fn every_type_comes_back() {
        let mut db = Keyspace::new();
        db.check("SET s hello", "+OK");
        db.check("SET n 12", "+OK");
        db.check("RPUSH l a b 3", ":3");
        db.check("SADD t a 2", ":2");
        db.check("HSET h f v g 1", ":2");
        db.check("ZADD z 1.5 m -inf n", ":2");
        for key in ["s", "n", "l", "t", "h", "z"] {
            let payload = dumped(&mut db, key);
            restores(
                &mut db,
                &format!("{key} 0"),
                &payload,
                "-BUSYKEY Target key name already exists.",
            );
            restores(&mut db, &format!("{key} 0 REPLACE"), &payload, "+OK");
            assert!(db.effects.dirty > 0);
            restores(&mut db, &format!("{key}2 0"), &payload, "+OK");
        }
        db.check("GET s2", "$5 hello");
        db.check("INCR n2", ":13");
        db.check("LRANGE l2 0 -1", "*3 $1 a $1 b $1 3");
        db.check("SMISMEMBER t2 a 2 3", "*3 :1 :1 :0");
        db.check("HGETALL h2", "*4 $1 f $1 v $1 g $1 1");
        db.check("ZRANGE z2 0 -1 WITHSCORES", "*4 $1 n $4 -inf $1 m $3 1.5");
        db.check("DUMP none", "$-1");
    }

    #[test]
    fn times_to_live() {
        let mut db = Keyspace::new();
        db.check("SET s v PX 5000", "+OK");
        let payload = dumped(&mut db, "s");
        restores(&mut db, "a 0", &payload, "+OK");
        db.check("PTTL a", ":-1");
        restores(&mut db, "b 1500", &payload, "+OK");
        db.check("PTTL b", ":1500");
        restores(&mut db, "c 1700000002500 ABSTTL", &payload, "+OK");
        db.check("PTTL c", ":2500");
        restores(&mut db, "d 1699999999999 ABSTTL", &payload, "+OK");
        db.check("EXISTS d", ":0");
        assert_eq!(db.effects.dirty, 0);
        restores(&mut db, "b 1 ABSTTL REPLACE", &payload, "+OK");
        db.check("EXISTS b", ":0");
        restores(&mut db, "e 9223372036854775807", &payload, "+OK");
        db.check("EXISTS e", ":1");
    }

    #[test]
    fn what_is_refused() {
        let mut db = Keyspace::new();
        db.check("SET s value", "+OK");
        let good = dumped(&mut db, "s");
        restores(&mut db, "a 0 ABSENT", &good, "-ERR syntax error");
        restores(&mut db, "a 0 IDLETIME", &good, "-ERR syntax error");
        restores(&mut db, "a 0 IDLETIME 1 FREQ 2", &good, "-ERR syntax error");
        restores(&mut db, "a 0 IDLETIME -1", &good, "-ERR Invalid IDLETIME value, must be >= 0");
        restores(
            &mut db,
            "a 0 FREQ 256",
            &good,
            "-ERR Invalid FREQ value, must be >= 0 and <= 255",
        );
        restores(&mut db, "a 0 FREQ x", &good, "-ERR value is not an integer or out of range");
        restores(&mut db, "a -1", &good, "-ERR Invalid TTL value, must be >= 0");
        restores(&mut db, "a x", &good, "-ERR value is not an integer or out of range");
        restores(&mut db, "a 0", b"short", FOOTER);
        let mut bad = good.clone();
        bad[3] ^= 1;
        restores(&mut db, "a 0", &bad, FOOTER);
        // With a true checksum, of a type that is not there.
        let mut broken = vec![31, 0, 10, 0];
        broken.extend(persist::rdb::checksum(&broken).to_le_bytes());
        restores(&mut db, "a 0", &broken, "-ERR Bad data format");
        db.check("EXISTS a", ":0");
    }
}

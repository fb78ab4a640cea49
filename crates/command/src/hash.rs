//! Hashes: setting, reading and counting fields. Walking and drawing fields is in
//! `hash_scan.rs`.

use data::{Hash, LongDouble};
use engine::Event;

use crate::call::{Call, Handler, integer, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Hash, name, arity, handler).since("2.0.0")
}

/// The order of fields depends on hashing.
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

pub const TABLE: &[Command<Handler>] = &[
    row("hdel", -3, hdel)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(N) where N is the number of fields given.")
        .history(&[("2.4.0", "Takes several fields.")])
        .summary("Removes fields from a hash, and the hash with its last field.")
        .syntax("key field [field ...]"),
    row("hexists", 3, hexists)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Answers whether a hash has a field.")
        .syntax("key field"),
    row("hget", 3, hget)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .summary("Answers the value of a field of a hash.")
        .syntax("key field"),
    row("hgetall", 2, hgetall)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(N) where N is the number of fields.")
        .tips(ANY_ORDER)
        .summary("Answers all fields of a hash with their values.")
        .syntax("key"),
    row("hincrby", 4, hincrby)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .summary("Adds an integer to the value of a field, which is 0 if there is none.")
        .syntax("key field increment:integer"),
    row("hincrbyfloat", 4, hincrbyfloat)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .since("2.6.0")
        .summary("Adds a decimal number to the value of a field, which is 0 if there is none.")
        .syntax("key field increment:double"),
    row("hkeys", 2, hkeys)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(N) where N is the number of fields.")
        .tips(ANY_ORDER)
        .summary("Answers all fields of a hash.")
        .syntax("key"),
    row("hlen", 2, hlen)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Answers the number of fields of a hash.")
        .syntax("key"),
    row("hmget", -3, hmget)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(N) where N is the number of fields given.")
        .summary("Answers the values of several fields of a hash.")
        .syntax("key field [field ...]"),
    row("hmset", -4, hmset)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .complexity("O(N) where N is the number of fields given.")
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs")
        .summary("Sets fields of a hash, creating it if need be.")
        .syntax("key data:(field value) [data:(field value) ...]"),
    row("hset", -4, hset)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .complexity("O(N) where N is the number of fields given.")
        .history(&[("4.0.0", "Takes several fields with their values.")])
        .summary("Sets fields of a hash, creating it if need be, and counts the new ones.")
        .syntax("key data:(field value) [data:(field value) ...]"),
    row("hsetnx", 4, hsetnx)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .summary("Sets a field of a hash unless the field exists.")
        .syntax("key field value"),
    row("hstrlen", 3, hstrlen)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .since("3.2.0")
        .summary("Answers the length in bytes of a field's value.")
        .syntax("key field"),
    row("hvals", 2, hvals)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(N) where N is the number of fields.")
        .tips(ANY_ORDER)
        .summary("Answers the values of all fields of a hash.")
        .syntax("key"),
];

fn hset(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let added = set_pairs(call, args, "hset")?;
    call.reply.integer(added);
    Ok(())
}

fn hmset(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    set_pairs(call, args, "hmset")?;
    call.reply.ok();
    Ok(())
}

/// Sets all pairs and answers how many fields are new.
fn set_pairs(call: &mut Call<'_, '_>, args: &[&[u8]], name: &str) -> Result<i64> {
    let (pairs, rest) = args[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::arity(name));
    }
    let mut hash = call.txn.write_or_create::<Hash>(args[1])?;
    hash.prepare(pairs.len());
    let mut added = 0;
    for [field, value] in pairs {
        added += i64::from(hash.set(field, value));
    }
    Ok(added)
}

fn hsetnx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut hash = call.txn.write_or_create::<Hash>(args[1])?;
    let absent = !hash.contains(args[2]);
    if absent {
        hash.set(args[2], args[3]);
    }
    call.reply.integer(i64::from(absent));
    Ok(())
}

fn hget(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.read_hash(args[1])?.and_then(|hash| hash.get(args[2])) {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
    Ok(())
}

fn hmget(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let hash = call.txn.read_hash(args[1])?;
    let fields = &args[2..];
    call.reply.array(fields.len());
    for field in fields {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => call.reply.bulk(value),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn hgetall(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = call.txn.read_hash(args[1])? else {
        call.reply.map(0);
        return Ok(());
    };
    call.reply.map(hash.len());
    for (field, value) in paced(call.txn, hash.iter()) {
        call.reply.bulk(field);
        call.reply.bulk(value);
    }
    Ok(())
}

fn hkeys(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = call.txn.read_hash(args[1])? else {
        call.reply.array(0);
        return Ok(());
    };
    call.reply.array(hash.len());
    paced(call.txn, hash.iter()).for_each(|(field, _)| call.reply.bulk(field));
    Ok(())
}

fn hvals(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(hash) = call.txn.read_hash(args[1])? else {
        call.reply.array(0);
        return Ok(());
    };
    call.reply.array(hash.len());
    paced(call.txn, hash.iter()).for_each(|(_, value)| call.reply.bulk(value));
    Ok(())
}

fn hlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let len = call.txn.read_hash(args[1])?.map_or(0, Hash::len);
    call.reply.integer(len as i64);
    Ok(())
}

fn hstrlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let value = call.txn.read_hash(args[1])?.and_then(|hash| hash.get(args[2]));
    call.reply.integer(value.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn hexists(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let exists = call.txn.read_hash(args[1])?.is_some_and(|hash| hash.contains(args[2]));
    call.reply.integer(i64::from(exists));
    Ok(())
}

fn hdel(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut removed = 0;
    if let Some(mut hash) = call.txn.write::<Hash>(args[1])? {
        for field in &args[2..] {
            removed += i64::from(hash.remove(field));
        }
    }
    call.reply.integer(removed);
    Ok(())
}

fn hincrby(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let by = integer(args[3])?;
    let mut hash = call.txn.write_or_create::<Hash>(args[1])?;
    let old = match hash.get(args[2]) {
        None => 0,
        Some(value) => {
            data::number::parse_i64(value).ok_or(Error::of("ERR hash value is not an integer"))?
        }
    };
    let sum = old.checked_add(by).ok_or(Error::OVERFLOW)?;
    hash.tell_as(Event::hash("hincrby"));
    hash.set_keeping(args[2], &data::number::format_i64(sum));
    call.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let by = LongDouble::parse(args[3]).ok_or(Error::NOT_FLOAT)?;
    if !by.is_finite() {
        return Err(Error::of("ERR value is NaN or Infinity"));
    }
    let mut hash = call.txn.write_or_create::<Hash>(args[1])?;
    let old = match hash.get(args[2]) {
        None => LongDouble::from(0),
        Some(value) => {
            LongDouble::parse(value).ok_or(Error::of("ERR hash value is not a float"))?
        }
    };
    let sum = old.add(by);
    if !sum.is_finite() {
        return Err(Error::NAN_OR_INFINITY);
    }
    let text = sum.to_text();
    hash.tell_as(Event::hash("hincrbyfloat"));
    hash.set_keeping(args[2], &text);
    call.reply.bulk(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn sets_and_reads() {
        let mut db = Keyspace::new();
        db.check("HSET h a 1 b 2", ":2");
        db.check("HSET h a 3 c 4", ":1");
        db.check("HMSET h b 5", "+OK");
        db.check("HSETNX h a x", ":0");
        db.check("HGET h a", "$1 3");
        db.check("HMGET h a z b", "*3 $1 3 $-1 $1 5");
        db.check("HMGET none a", "*1 $-1");
        db.check("HGETALL h", "*6 $1 a $1 3 $1 b $1 5 $1 c $1 4");
        db.check("HKEYS h", "*3 $1 a $1 b $1 c");
        db.check("HVALS h", "*3 $1 3 $1 5 $1 4");
        db.check("HSTRLEN h a", ":1");
        db.check("HEXISTS h z", ":0");
        db.check("HDEL h a z b", ":2");
        db.check("HLEN h", ":1");
        db.check("HDEL h c", ":1");
        db.check("GET h", "$-1");
        db.protocol = Protocol::Resp3;
        db.check("HGETALL h", "%0");
        db.run("HSET h a 1");
        db.check("HGETALL h", "%1 $1 a $1 1");
        db.check("HGET h z", "_");
    }

    #[test]
    fn errors_leave_nothing_behind() {
        let mut db = Keyspace::new();
        db.check("HSET h a", "-ERR wrong number of arguments for 'hset' command");
        db.check("HMSET h a 1 b", "-ERR wrong number of arguments for 'hmset' command");
        db.check("HINCRBY h a x", "-ERR value is not an integer or out of range");
        db.check("HINCRBYFLOAT h a x", "-ERR value is not a valid float");
        db.check("HINCRBYFLOAT h a inf", "-ERR value is NaN or Infinity");
        db.check("GET h", "$-1");
        db.run("HSET h a text n 9223372036854775807");
        db.check("HINCRBY h a 1", "-ERR hash value is not an integer");
        db.check("HINCRBY h n 1", "-ERR increment or decrement would overflow");
        db.check("HINCRBYFLOAT h a 1", "-ERR hash value is not a float");
        assert_eq!(db.effects.dirty, 0);
        db.run("SET s text");
        db.check("HSET s a 1", WRONG_TYPE);
        db.check("HINCRBY s a 1", WRONG_TYPE);
        db.check("HGETALL s", WRONG_TYPE);
    }

    #[test]
    fn increments() {
        let mut db = Keyspace::new();
        db.check("HINCRBY h a 5", ":5");
        db.check("HINCRBY h a -7", ":-2");
        db.check("HINCRBYFLOAT h b 10.5", "$4 10.5");
        db.check("HINCRBYFLOAT h b 0.1", "$4 10.6");
        db.check("HINCRBYFLOAT h a 2", "$1 0");
    }

    #[test]
    fn what_changes_nothing_counts_as_no_change() {
        let mut db = Keyspace::new();
        db.run("HSET h a 1");
        for line in ["HDEL h z", "HSETNX h a 2", "HGET h a"] {
            db.run(line);
            assert_eq!(db.effects.dirty, 0, "{line}");
        }
    }
}

//! The keyspace as a whole: KEYS, SCAN, RANDOMKEY, DBSIZE, FLUSHALL, FLUSHDB, SWAPDB.
//!
//! Those that look walk shard by shard while others run; those that change it run exclusively.

use data::glob;
use engine::Entry;
use resp::Reply;

use crate::call::{Call, Handler, integer, integer_within, is};
use crate::error::{Error, Result};
use crate::row::flag::{FAST, READONLY, WRITE};
use crate::row::{Command, Group, Scope, category};

const ALL_SUCCEEDED: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Server, "dbsize", 1, dbsize)
        .flags(READONLY | FAST)
        .categories(category::KEYSPACE)
        .scope(Scope::Walk)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .summary("Answers how many keys the database has.")
        .syntax(""),
    Command::new(Group::Server, "flushall", -1, flushall)
        .flags(WRITE)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .scope(Scope::Exclusive)
        .complexity("O(1); the values are freed in the background")
        .tips(ALL_SUCCEEDED)
        .history(&[("4.0.0", "Added `ASYNC`."), ("6.2.0", "Added `SYNC`.")])
        .summary("Removes all keys of all databases.")
        .syntax("[flush-type:(ASYNC | SYNC)]"),
    Command::new(Group::Server, "flushdb", -1, flushdb)
        .flags(WRITE)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .scope(Scope::Exclusive)
        .complexity("O(1); the values are freed in the background")
        .tips(ALL_SUCCEEDED)
        .history(&[("4.0.0", "Added `ASYNC`."), ("6.2.0", "Added `SYNC`.")])
        .summary("Removes all keys of the database.")
        .syntax("[flush-type:(ASYNC | SYNC)]"),
    Command::new(Group::Generic, "keys", 2, keys)
        .flags(READONLY)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .scope(Scope::Walk)
        .complexity("O(N) with N the number of keys in the database")
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .summary("Answers all keys of the database that match a pattern.")
        .syntax("pattern"),
    Command::new(Group::Generic, "randomkey", 1, randomkey)
        .flags(READONLY)
        .scope(Scope::Walk)
        .tips(&["request_policy:all_shards", "response_policy:special", "nondeterministic_output"])
        .summary("Answers a random key of the database.")
        .syntax(""),
    Command::new(Group::Generic, "scan", -2, scan)
        .flags(READONLY)
        .scope(Scope::Walk)
        .since("2.8.0")
        .complexity("O(1) for a call, O(N) for a whole iteration with N the number of keys")
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .history(&[("6.0.0", "Added the option `TYPE`.")])
        .summary("Answers some keys of the database and the cursor to go on with.")
        .syntax("cursor [MATCH pattern] [COUNT count] [TYPE type]"),
    Command::new(Group::Server, "swapdb", 3, swapdb)
        .flags(WRITE | FAST)
        .categories(category::KEYSPACE | category::DANGEROUS)
        .scope(Scope::Exclusive)
        .since("4.0.0")
        .complexity("O(N) with N the clients that watch or wait for keys of both databases")
        .summary("Exchanges two databases.")
        .syntax("index1 index2"),
];

fn dbsize(call: &mut Call<'_, '_>, _args: &[&[u8]]) -> Result {
    let size = call.txn.db_size();
    call.reply.integer(size.keys as i64);
    Ok(())
}

fn flushall(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    flush(call, args, None)
}

fn flushdb(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let db = call.txn.db();
    flush(call, args, Some(db))
}

/// SYNC and ASYNC are both accepted and both free in the background.
fn flush(call: &mut Call<'_, '_>, args: &[&[u8]], db: Option<u32>) -> Result {
    match args {
        [_] => {}
        [_, how] if is(how, "SYNC") || is(how, "ASYNC") => {}
        _ => return Err(Error::SYNTAX),
    }
    call.txn.flush(db);
    call.reply.ok();
    Ok(())
}

fn keys(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let pattern = args[1];
    let list = call.reply.deferred_array();
    let mut found = 0;
    call.txn.for_each(|entry| {
        if glob::matches(pattern, entry.key(), false) {
            call.reply.bulk(entry.key());
            found += 1;
        }
    });
    call.reply.finish_array(list, found);
    Ok(())
}

fn randomkey(call: &mut Call<'_, '_>, _args: &[&[u8]]) -> Result {
    match call.txn.random_key() {
        Some(key) => call.reply.bulk(&key),
        None => call.reply.null(),
    }
    Ok(())
}

/// A cursor argument of SCAN, HSCAN, SSCAN and ZSCAN. Read as `strtoul` reads it, which takes the
/// empty text as 0 and wraps negative numbers.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64> {
    let (negative, digits) = match arg {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let value = match digits {
        [b'0'..=b'9', ..] => std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let value: u64 = value.ok_or(Error::CURSOR)?;
    Ok(if negative { value.wrapping_neg() } else { value })
}

const SCAN_COUNT: usize = 10;

fn scan(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let cursor = cursor(args[1])?;
    let (mut pattern, mut kind, mut count) = (None, None, SCAN_COUNT);
    let mut rest = &args[2..];
    while let [word, value, behind @ ..] = rest {
        if is(word, "COUNT") {
            count = usize::try_from(integer(value)?).unwrap_or(0);
            if count == 0 {
                return Err(Error::SYNTAX);
            }
        } else if is(word, "MATCH") {
            pattern = Some(*value);
        } else if is(word, "TYPE") {
            kind = Some(*value);
        } else {
            return Err(Error::SYNTAX);
        }
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(Error::SYNTAX);
    }
    let wanted = |entry: &Entry| {
        pattern.is_none_or(|pattern| glob::matches(pattern, entry.key(), false))
            && kind.is_none_or(|kind| is(kind, entry.value_type().name()))
    };
    // The next cursor stands before the keys, so these are written aside.
    let mut found = 0;
    let mut list = Vec::new();
    let mut keys = Reply::new(&mut list, call.reply.protocol());
    let next = call.txn.scan(cursor, count, |entry| {
        if wanted(entry) {
            keys.bulk(entry.key());
            found += 1;
        }
    });
    call.reply.array(2);
    // Cursors use all 64 bits, which i64 would show as negative.
    call.reply.bulk(next.to_string().as_bytes());
    call.reply.array(found);
    call.reply.raw(&list);
    Ok(())
}

fn swapdb(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let index = |arg: &[u8], text| {
        integer_within(arg, i32::MIN.into(), i32::MAX.into()).map_err(|_| Error::of(text))
    };
    let first = index(args[1], "ERR invalid first DB index")?;
    let second = index(args[2], "ERR invalid second DB index")?;
    let databases = 0..i64::from(call.txn.databases());
    if !databases.contains(&first) || !databases.contains(&second) {
        return Err(Error::DB_INDEX);
    }
    if first != second {
        call.txn.swap_dbs(first as u32, second as u32);
    }
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::cursor;
    use crate::testing::Keyspace;

    #[test]
    fn cursors() {
        for (text, value) in [("", 0), ("12", 12), ("+1", 1), ("-1", u64::MAX)] {
            assert_eq!(cursor(text.as_bytes()), Ok(value), "{text:?}");
        }
        for text in ["-", "+", " 1", "1 ", "1.5", "abc", "18446744073709551616", "--1", "+-1"] {
            assert!(cursor(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_whole_scan_sees_every_key() {
        let mut keys = Keyspace::new();
        for index in 0..500 {
            keys.check(&format!("SET key:{index} v"), "+OK");
        }
        for options in ["", " COUNT 1", " COUNT 1000", " TYPE STRING", " MATCH key:*"] {
            let mut seen = std::collections::HashSet::new();
            let mut cursor = "0".to_owned();
            loop {
                let reply = keys.run(&format!("SCAN {cursor}{options}"));
                let words: Vec<&str> = reply.split(' ').collect();
                seen.extend(
                    words
                        .iter()
                        .filter(|word| word.starts_with("key:"))
                        .map(|word| word.to_string()),
                );
                cursor = words[2].to_owned();
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(seen.len(), 500, "{options}");
        }
        keys.check("SCAN 0 COUNT 1000 TYPE list", "*2 $1 0 *0");
        keys.check("DBSIZE", ":500");
    }

    #[test]
    fn small_keyspaces() {
        let mut keys = Keyspace::new();
        keys.check("SCAN 0 COUNT 1", "*2 $1 0 *0");
        keys.check("RANDOMKEY", "$-1");
        keys.check("KEYS *", "*0");
        keys.check("MSET a 1 hello 2", "+OK");
        keys.check("KEYS h?ll[n-p]", "*1 $5 hello");
        keys.check("SCAN 0 MATCH h*", "*2 $1 0 *1 $5 hello");
        keys.check("DEL a", ":1");
        keys.check("RANDOMKEY", "$5 hello");
        keys.check("FLUSHDB SYNC ASYNC", "-ERR syntax error");
        keys.check("FLUSHALL async", "+OK");
        keys.check("DBSIZE", ":0");
        keys.check("SWAPDB 0 x", "-ERR invalid second DB index");
        keys.check("SWAPDB 0 16", "-ERR DB index is out of range");
    }
}

//! Keys whatever they hold: DEL, EXISTS, TYPE, RENAME, COPY and their kin, and WAIT.
//!
//! Expiry is in `expire.rs`, the keyspace as a whole in `keyspace.rs`, OBJECT in `object.rs`.

use engine::Entry;

use crate::call::{Call, Handler, integer_within, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};

const SUM_OVER_SHARDS: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Generic, "copy", -3, copy)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::at(1, k::RO | k::ACCESS), KeySpec::at(2, k::OW | k::UPDATE)])
        .since("6.2.0")
        .complexity("O(N) with N the size of the value")
        .summary("Copies a value with its expiry to another key or database.")
        .syntax("source:key destination:key [DB destination-db] [REPLACE]"),
    Command::new(Group::Generic, "del", -2, del)
        .flags(WRITE)
        .keys(&[KeySpec::all(k::RM | k::DELETE)])
        .complexity("O(N) with N the number of keys; large values are freed in the background")
        .tips(SUM_OVER_SHARDS)
        .summary("Removes keys and answers how many there were.")
        .syntax("key [key ...]"),
    Command::new(Group::Generic, "exists", -2, exists)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::all(k::RO)])
        .complexity("O(N) with N the number of keys")
        .tips(SUM_OVER_SHARDS)
        .history(&[("3.0.3", "Takes several keys.")])
        .summary("Answers how many of the keys exist; a key given twice counts twice.")
        .syntax("key [key ...]"),
    Command::new(Group::Generic, "move", 3, move_)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .summary("Moves a key to another database unless it exists there.")
        .syntax("key db"),
    Command::new(Group::Generic, "rename", 3, rename)
        .flags(WRITE)
        .keys(&[KeySpec::at(1, k::RW | k::ACCESS | k::DELETE), KeySpec::at(2, k::OW | k::UPDATE)])
        .history(&[("3.2.0", "Source and destination may be the same.")])
        .summary("Gives a key another name, replacing what is there.")
        .syntax("key newkey:key"),
    Command::new(Group::Generic, "renamenx", 3, renamenx)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::at(1, k::RW | k::ACCESS | k::DELETE), KeySpec::at(2, k::OW | k::INSERT)])
        .history(&[("3.2.0", "Source and destination may be the same.")])
        .summary("Gives a key another name that is not taken.")
        .syntax("key newkey:key"),
    Command::new(Group::Generic, "touch", -2, touch)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::all(k::RO)])
        .since("3.2.1")
        .complexity("O(N) with N the number of keys")
        .tips(SUM_OVER_SHARDS)
        .summary("Notes that keys were used and answers how many of them exist.")
        .syntax("key [key ...]"),
    Command::new(Group::Generic, "type", 2, type_)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Answers the type of the value stored at a key.")
        .syntax("key"),
    Command::new(Group::Generic, "unlink", -2, unlink)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::all(k::RM | k::DELETE)])
        .since("4.0.0")
        .complexity("O(N) with N the number of keys; large values are freed in the background")
        .tips(SUM_OVER_SHARDS)
        .summary("Removes keys and answers how many there were.")
        .syntax("key [key ...]"),
];

/// A database index argument.
fn database(call: &Call<'_, '_>, arg: &[u8]) -> Result<u32> {
    let index = integer_within(arg, i32::MIN.into(), i32::MAX.into())?;
    u32::try_from(index).ok().filter(|index| *index < call.txn.databases()).ok_or(Error::DB_INDEX)
}

/// Whether a key exists in another database.
fn exists_in(call: &mut Call<'_, '_>, key: &[u8], db: u32) -> bool {
    let home = call.txn.db();
    call.txn.select(db);
    let exists = call.txn.look(key).is_some();
    call.txn.select(home);
    exists
}

fn copy(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (from, to) = (args[1], args[2]);
    let (mut to_db, mut replace) = (call.txn.db(), false);
    let mut rest = &args[3..];
    while let [word, behind @ ..] = rest {
        rest = behind;
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB")
            && let [index, behind @ ..] = rest
        {
            to_db = database(call, index)?;
            rest = behind;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    if from == to && to_db == call.txn.db() {
        return Err(Error::SAME_OBJECT);
    }
    let copied = call.txn.read(from).is_some()
        && (replace || !exists_in(call, to, to_db))
        && call.txn.duplicate(from, to, to_db);
    call.reply.integer(i64::from(copied));
    Ok(())
}

fn del(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let removed = args[1..].iter().filter(|key| call.txn.remove(key)).count();
    call.reply.integer(removed as i64);
    Ok(())
}

/// The engine frees large values in the background either way.
fn unlink(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    del(call, args)
}

fn exists(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let found = args[1..].iter().filter(|key| call.txn.probe(key).is_some()).count();
    call.reply.integer(found as i64);
    Ok(())
}

fn move_(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let key = args[1];
    let to_db = database(call, args[2])?;
    if to_db == call.txn.db() {
        return Err(Error::SAME_OBJECT);
    }
    let moved = call.txn.look(key).is_some()
        && !exists_in(call, key, to_db)
        && call.txn.relocate(key, key, to_db);
    call.reply.integer(i64::from(moved));
    Ok(())
}

fn rename(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, to, db) = (args[1], args[2], call.txn.db());
    if call.txn.look(key).is_none() {
        return Err(Error::NO_KEY);
    }
    if key != to {
        call.txn.relocate(key, to, db);
    }
    call.reply.ok();
    Ok(())
}

fn renamenx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, to, db) = (args[1], args[2], call.txn.db());
    if call.txn.look(key).is_none() {
        return Err(Error::NO_KEY);
    }
    let free = call.txn.look(to).is_none();
    if free {
        call.txn.relocate(key, to, db);
    }
    call.reply.integer(i64::from(free));
    Ok(())
}

fn touch(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let found = args[1..].iter().filter(|key| call.txn.read(key).is_some()).count();
    call.reply.integer(found as i64);
    Ok(())
}

fn type_(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let name = call.txn.probe(args[1]).map(Entry::value_type).map_or("none", |kind| kind.name());
    call.reply.status(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn renaming_keeps_the_expiry() {
        let mut keys = Keyspace::new();
        keys.check("RENAME a b", "-ERR no such key");
        keys.check("SET a v EX 10", "+OK");
        keys.check("SET b w", "+OK");
        keys.check("RENAMENX a b", ":0");
        keys.check("RENAME a b", "+OK");
        keys.check("TTL b", ":10");
        keys.check("EXISTS a b b", ":2");
        keys.check("RENAME b b", "+OK");
        keys.check("RENAMENX b b", ":0");
        keys.check("RENAMENX b c", ":1");
        keys.check("GET c", "$1 v");
        keys.now_ms += 10_000;
        keys.check("RENAME c d", "-ERR no such key");
    }

    #[test]
    fn copies_and_moves() {
        let mut keys = Keyspace::new();
        keys.check("SET a v EX 10", "+OK");
        keys.check("SET b w", "+OK");
        keys.check("COPY a b", ":0");
        keys.check("COPY a b REPLACE", ":1");
        keys.check("TTL b", ":10");
        keys.check("COPY a a", "-ERR source and destination objects are the same");
        keys.check("COPY a a DB 1", ":1");
        keys.check("COPY a a DB 1", ":0");
        keys.check("COPY a b DB 16", "-ERR DB index is out of range");
        keys.check("COPY a b FOO", "-ERR syntax error");
        keys.check("MOVE a 1", ":0");
        keys.check("MOVE b 1", ":1");
        keys.check("MOVE a 0", "-ERR source and destination objects are the same");
        keys.check("EXISTS a b", ":1");
        keys.check("SWAPDB 0 1", "+OK");
        keys.check("EXISTS a b", ":2");
    }
}

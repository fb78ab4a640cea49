//! Walking a hash step by step, and drawing fields at random: HSCAN and HRANDFIELD.

use resp::{Protocol, Reply};

use crate::call::{Call, Handler, paced};
use crate::error::Result;
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::READONLY;
use crate::row::{Command, Group};
use crate::set::{check_repeats, repeats, signed_count_with};
use crate::set_scan::{ScanOptions, cursor, reply_nothing, reply_step};

const KEYS: &[KeySpec] = &[KeySpec::first(k::RO | k::ACCESS)];
/// Which fields a step or a draw finds depends on chance.
const CHANCE: &[&str] = &["nondeterministic_output"];

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Hash, name, arity, handler).flags(READONLY).keys(KEYS).tips(CHANCE)
}

pub const TABLE: &[Command<Handler>] = &[
    row("hrandfield", -2, hrandfield)
        .since("6.2.0")
        .complexity("O(N) where N is the number of fields answered.")
        .summary("Answers fields of a hash drawn at random.")
        .syntax("key [options:(count [WITHVALUES])]"),
    row("hscan", -3, hscan)
        .since("2.8.0")
        .complexity("O(1) for every step, O(N) for a whole walk over N fields.")
        .history(&[("7.4.0", "Takes `NOVALUES`.")])
        .summary("Walks over the fields of a hash, a step at a time.")
        .syntax("key cursor [MATCH pattern] [COUNT count] [NOVALUES]"),
];

fn hscan(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let from = cursor(args[2])?;
    // A missing key is answered before the options are looked at.
    let Some(hash) = call.txn.read_hash(args[1])? else {
        reply_nothing(&mut call.reply);
        return Ok(());
    };
    let (options, names_only) = ScanOptions::parse_with(&args[3..], "NOVALUES")?;
    reply_step(&mut call.reply, |reply| {
        let mut items = 0;
        let next = hash.scan(from, options.count, |field, value| {
            if options.wants(field) {
                reply.bulk(field);
                items += 1;
                if !names_only {
                    reply.bulk(value);
                    items += 1;
                }
            }
        });
        (next, items)
    });
    Ok(())
}

fn hrandfield(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    if args.len() == 2 {
        let hash = call.txn.read_hash(args[1])?;
        match hash.and_then(|hash| hash.random(&mut || call.txn.random())) {
            Some((field, _)) => call.reply.bulk(field),
            None => call.reply.null(),
        }
        return Ok(());
    }
    let (count, values) = signed_count_with(args, "WITHVALUES")?;
    let Some(hash) = call.txn.read_hash(args[1])?.filter(|_| count != 0) else {
        call.reply.array(0);
        return Ok(());
    };
    let mut random = || call.txn.random();
    if count < 0 {
        let count = repeats(call, count)?;
        let start = call.reply.position();
        reply_header(&mut call.reply, count, values);
        for _ in paced(call.txn, 0..count) {
            let pair = hash.random(&mut random).expect("stored hashes are not empty");
            reply_field(&mut call.reply, pair, values);
            check_repeats(call, start)?;
        }
    } else if count as usize >= hash.len() {
        reply_header(&mut call.reply, hash.len(), values);
        paced(call.txn, hash.iter()).for_each(|pair| reply_field(&mut call.reply, pair, values));
    } else {
        let drawn = hash.random_distinct(count as usize, &mut random);
        reply_header(&mut call.reply, drawn.len(), values);
        drawn.into_iter().for_each(|pair| reply_field(&mut call.reply, pair, values));
    }
    Ok(())
}

/// Fields stand alone, or with their values: as pairs of their own in RESP3, else all in a row.
fn reply_header(reply: &mut Reply<'_>, fields: usize, values: bool) {
    let flat = values && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { 2 * fields } else { fields });
}

fn reply_field(reply: &mut Reply<'_>, (field, value): (&[u8], &[u8]), values: bool) {
    if values && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(field);
    if values {
        reply.bulk(value);
    }
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use crate::testing::Keyspace;

    #[test]
    fn hscan_walks_large_and_small_hashes() {
        let mut db = Keyspace::new();
        db.check("HSCAN h 0 NONSENSE", "*2 $1 0 *0");
        db.check("HSCAN h x", "-ERR invalid cursor");
        db.check("HSET h a 1 b 2", ":2");
        db.check("HSCAN h 0", "*2 $1 0 *4 $1 a $1 1 $1 b $1 2");
        db.check("HSCAN h 0 NOVALUES", "*2 $1 0 *2 $1 a $1 b");
        db.check("HSCAN h 0 NOVALUES MATCH b COUNT 5", "*2 $1 0 *1 $1 b");
        db.check("HSCAN h 0 MATCH NOVALUES", "*2 $1 0 *0");
        db.check("HSCAN h 0 COUNT", "-ERR syntax error");
        db.check("HSCAN h 0 COUNT 0", "-ERR syntax error");
        db.check("HSCAN h 0 COUNT x", "-ERR value is not an integer or out of range");
        for n in 0..500 {
            db.run(&format!("HSET big field{n} {n}"));
        }
        let mut seen = std::collections::HashSet::new();
        let mut cursor = "0".to_string();
        loop {
            let reply = db.run(&format!("HSCAN big {cursor} NOVALUES"));
            let words: Vec<&str> = reply.split(' ').collect();
            seen.extend(words.iter().filter(|w| w.starts_with("field")).map(|w| w.to_string()));
            cursor = words[2].to_string();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 500);
    }

    #[test]
    fn hrandfield_counts() {
        let mut db = Keyspace::new();
        db.check("HRANDFIELD h", "$-1");
        db.check("HRANDFIELD h -5 WITHVALUES", "*0");
        db.check("HSET h a 1", ":1");
        db.check("HRANDFIELD h", "$1 a");
        db.check("HRANDFIELD h 0", "*0");
        db.check("HRANDFIELD h 3", "*1 $1 a");
        db.check("HRANDFIELD h -2 WITHVALUES", "*4 $1 a $1 1 $1 a $1 1");
        db.protocol = Protocol::Resp3;
        db.check("HRANDFIELD h -2 WITHVALUES", "*2 *2 $1 a $1 1 *2 $1 a $1 1");
        db.check("HRANDFIELD h 9 WITHVALUES", "*1 *2 $1 a $1 1");
        db.check("HRANDFIELD h x", "-ERR value is not an integer or out of range");
        db.check("HRANDFIELD h 1 WITHOUT", "-ERR syntax error");
        db.check(
            "HRANDFIELD h -9223372036854775808",
            "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        );
        db.check("HRANDFIELD h -9223372036854775807 WITHVALUES", "-ERR value is out of range");
        db.check("HRANDFIELD h -9223372036854775807", "-ERR value is out of range");
    }
}

//! HyperLogLogs: how many different elements were seen. They are strings; what their bytes mean is
//! in `data::hyperloglog`.

use data::hyperloglog::{self, Corrupted, Union};
use engine::{Event, Expiry, NotObserved, Str, Txn};

use crate::call::{Call, Handler, is, unless_stopped};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{ADMIN, DENYOOM, FAST, MAY_REPLICATE, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string::look_at_string;

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::HyperLogLog, "pfadd", -2, pfadd)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .since("2.8.9")
        .complexity("O(1) for each element")
        .summary("Shows elements to a HyperLogLog, creating it if there is none.")
        .syntax("key [element [element ...]]"),
    Command::new(Group::HyperLogLog, "pfcount", -2, pfcount)
        .flags(READONLY | MAY_REPLICATE)
        .keys(&[KeySpec::all(k::RW | k::ACCESS)])
        .since("2.8.9")
        .complexity("O(1) for one key that has not changed since, else O(N) with N keys")
        .summary("Estimates how many different elements HyperLogLogs have seen together.")
        .syntax("key [key ...]"),
    Command::new(Group::HyperLogLog, "pfdebug", 3, pfdebug)
        .flags(WRITE | DENYOOM | ADMIN)
        .keys(&[KeySpec::at(2, k::RW | k::ACCESS)])
        .since("2.8.9")
        .complexity("N/A")
        .summary("Shows what a HyperLogLog is made of.")
        .syntax("subcommand key"),
    Command::new(Group::HyperLogLog, "pfmerge", -2, pfmerge)
        .flags(WRITE | DENYOOM)
        .keys(&[
            KeySpec::first(k::RW | k::ACCESS | k::INSERT),
            KeySpec::range(2, -1, 1, k::RO | k::ACCESS),
        ])
        .since("2.8.9")
        .complexity("O(N) with N keys")
        .summary("Makes a HyperLogLog that has seen what others have seen.")
        .syntax("destkey:key [sourcekey:key [sourcekey:key ...]]"),
    Command::new(Group::HyperLogLog, "pfselftest", 1, pfselftest)
        .flags(ADMIN)
        .since("2.8.9")
        .complexity("N/A")
        .summary("Tests that both encodings tell the same, and how good the estimates are."),
];

const NO_HYPERLOGLOG: Error = Error::of("WRONGTYPE Key is not a valid HyperLogLog string value.");
const CORRUPTED: Error = Error::of("INVALIDOBJ Corrupted HLL object detected");

impl From<Corrupted> for Error {
    fn from(_: Corrupted) -> Error {
        CORRUPTED
    }
}

impl From<NotObserved> for Error {
    fn from(reason: NotObserved) -> Error {
        match reason {
            NotObserved::WrongType => Error::WRONG_TYPE,
            NotObserved::NoHyperLogLog => NO_HYPERLOGLOG,
            NotObserved::Corrupted => CORRUPTED,
        }
    }
}

/// The bytes of a string that is a HyperLogLog.
fn checked(stored: Option<Str<'_>>) -> Result<Option<&[u8]>> {
    match stored {
        None => Ok(None),
        Some(Str::Bytes(text)) if hyperloglog::is_one(text) => Ok(Some(text)),
        Some(_) => Err(NO_HYPERLOGLOG),
    }
}

fn pfadd(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let changed = call.txn.observe(args[1], &args[2..])?;
    call.reply.integer(i64::from(changed));
    Ok(())
}

fn pfcount(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let keys = &args[1..];
    if let [key] = keys {
        let Some(text) = checked(call.txn.read_string(key)?)? else {
            call.reply.integer(0);
            return Ok(());
        };
        let count = match hyperloglog::noted_count(text) {
            Some(count) => count,
            None => {
                let count = hyperloglog::count(text)?;
                // Noted for the next who asks: the one change that a reading command makes.
                call.txn.keep_count(key, count);
                count
            }
        };
        call.reply.integer(count as i64);
        return Ok(());
    }
    let union = union_of(call.txn, keys)?;
    call.reply.integer(union.registers.count() as i64);
    Ok(())
}

struct Merged {
    registers: Union,
    any_dense: bool,
}

fn union_of(txn: &Txn<'_>, keys: &[&[u8]]) -> Result<Merged> {
    let mut merged = Merged { registers: Union::default(), any_dense: false };
    for key in keys {
        unless_stopped(txn)?;
        if let Some(text) = checked(txn.read_string(key)?)? {
            merged.any_dense |= hyperloglog::is_dense(text);
            merged.registers.add(text)?;
        }
    }
    Ok(merged)
}

fn pfmerge(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let merged = union_of(call.txn, &args[1..])?;
    let stored = checked(look_at_string(call.txn, args[1])?)?.map(<[u8]>::to_vec);
    let mut text = stored.clone().unwrap_or_else(hyperloglog::empty);
    if merged.any_dense {
        hyperloglog::make_dense(&mut text)?;
    }
    let sparse_bytes_max = call.txn.limits().hll_sparse_max_bytes;
    merged.registers.raise_all(&mut text, sparse_bytes_max)?;
    call.txn.tell_as(Event::string("pfadd"));
    store(call.txn, args[1], stored.as_deref().unwrap_or(b""), &text)?;
    call.reply.ok();
    Ok(())
}

/// Writes what has changed of a string.
fn store(txn: &mut Txn<'_>, key: &[u8], before: &[u8], after: &[u8]) -> Result {
    if after.len() < before.len() {
        txn.set_string(key, after, Expiry::Keep);
        return Ok(());
    }
    let differs = |at: &usize| before.get(*at) != Some(&after[*at]);
    // As in Redis it counts as a change in any case; the encoding is always the same.
    let first = (0..after.len()).find(differs).unwrap_or(0);
    let last = (first..after.len()).rev().find(differs).unwrap_or(first);
    txn.overwrite(key, first, &after[first..=last])?;
    Ok(())
}

fn pfdebug(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(text) = checked(call.txn.read_string(args[2])?)? else {
        return Err(Error::of("ERR The specified key does not exist"));
    };
    match args[1] {
        word if is(word, "GETREG") => {
            let mut dense = text.to_vec();
            if hyperloglog::make_dense(&mut dense)? {
                let before = text.to_vec();
                store(call.txn, args[2], &before, &dense)?;
            }
            call.reply.array(hyperloglog::REGISTERS);
            hyperloglog::registers(&dense).for_each(|value| call.reply.integer(value.into()));
        }
        word if is(word, "DECODE") => {
            if hyperloglog::is_dense(text) {
                return Err(Error::of("ERR HLL encoding is not sparse"));
            }
            call.reply.bulk(hyperloglog::described(text)?.as_bytes());
        }
        word if is(word, "ENCODING") => {
            call.reply.status(if hyperloglog::is_dense(text) { "dense" } else { "sparse" });
        }
        word if is(word, "TODENSE") => {
            let before = text.to_vec();
            let mut dense = before.clone();
            let changes = hyperloglog::make_dense(&mut dense)?;
            if changes {
                store(call.txn, args[2], &before, &dense)?;
            }
            call.reply.integer(i64::from(changes));
        }
        word => {
            let word = String::from_utf8_lossy(word);
            return Err(Error::new(format!("ERR Unknown PFDEBUG subcommand '{word}'")));
        }
    }
    Ok(())
}

/// Ten times the standard error of 16384 registers, 1.04 / √16384.
const ERROR_MAX: f64 = 0.081;

fn pfselftest(call: &mut Call<'_, '_>, _args: &[&[u8]]) -> Result {
    const ELEMENTS: u64 = 100_000;
    let (mut dense, mut sparse) = (hyperloglog::empty(), hyperloglog::empty());
    hyperloglog::make_dense(&mut dense)?;
    let seed = call.txn.random();
    for number in 1..=ELEMENTS {
        let element = (seed ^ number).to_le_bytes();
        // A sparse one takes time in proportion to its length.
        for text in [&mut dense, &mut sparse].into_iter().take(if number < 3000 { 2 } else { 1 }) {
            if let Some(rise) = hyperloglog::rise(text, &element)? {
                hyperloglog::raise(text, rise, 3000)?;
            }
        }
        if number.is_power_of_two() || number == ELEMENTS {
            unless_stopped(call.txn)?;
            let count = hyperloglog::count(&dense)?;
            if number < 3000 && count != hyperloglog::count(&sparse)? {
                return Err(Error::new(format!(
                    "TESTFAILED Sparse and dense count differ at {number}"
                )));
            }
            if count.abs_diff(number) as f64 > (number as f64 * ERROR_MAX).max(2.0) {
                return Err(Error::new(format!(
                    "TESTFAILED Too big error: {count} at {number} elements"
                )));
            }
        }
    }
    call.reply.ok();
    Ok(())
}

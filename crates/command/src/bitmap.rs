//! Strings as rows of bits: SETBIT, BITCOUNT, BITOP and their kin. BITFIELD is in `bitfield.rs`.
//!
//! The work on bits is in `data::bits`; here it is about arguments and keys.

use std::ops::Range;

use data::bits::{self, Operation};
use engine::{Event, Expiry, Str};

use crate::call::{Call, Handler, integer, is, unless_stopped};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string::{Text, look_at_string};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Bitmap, "bitcount", -2, bitcount)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.6.0")
        .complexity("O(N) with N the length of the range")
        .history(&[("7.0.0", "Added the option `BYTE|BIT`.")])
        .summary("Counts the bits that are set in a string or a part of it.")
        .syntax("key [range:(start end [unit:(BYTE | BIT)])]"),
    Command::new(Group::Bitmap, "bitop", -4, bitop)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::at(2, k::OW | k::UPDATE), KeySpec::range(3, -1, 1, k::RO | k::ACCESS)])
        .since("2.6.0")
        .complexity("O(N) with N the length of all strings")
        .history(&[("8.2.0", "Added `DIFF`, `DIFF1`, `ANDOR` and `ONE`.")])
        .summary("Combines strings bit by bit and stores the result.")
        .syntax(
            "operation:(AND | OR | XOR | NOT | DIFF | DIFF1 | ANDOR | ONE) destkey:key key \
             [key ...]",
        ),
    Command::new(Group::Bitmap, "bitpos", -3, bitpos)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.8.7")
        .complexity("O(N) with N the length of the range")
        .history(&[("7.0.0", "Added the option `BYTE|BIT`.")])
        .summary("Finds the first bit that is set, or clear, in a string or a part of it.")
        .syntax("key bit:integer [range:(start [end-unit-block:(end [unit:(BYTE | BIT)])])]"),
    Command::new(Group::Bitmap, "getbit", 3, getbit)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.2.0")
        .summary("Answers one bit of a string.")
        .syntax("key offset"),
    Command::new(Group::Bitmap, "setbit", 4, setbit)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE)])
        .since("2.2.0")
        .summary("Sets or clears one bit of a string, filling gaps with zeros.")
        .syntax("key offset value:integer"),
];

const BIT_OFFSET: Error = Error::of("ERR bit offset is not an integer or out of range");

/// Bytes looked at between two looks whether the script is to end.
const STRETCH_BYTES: usize = 4 << 20;

/// A bit's place, in a string that a client could send. `#n` counts in steps of `width`, where
/// one is given.
pub(crate) fn bit_offset(call: &Call<'_, '_>, arg: &[u8], width: Option<u32>) -> Result<usize> {
    let (digits, step) = match (arg, width) {
        ([b'#', digits @ ..], Some(width)) => (digits, i64::from(width)),
        _ => (arg, 1),
    };
    let offset = data::number::parse_i64(digits).and_then(|number| number.checked_mul(step));
    match offset.map(usize::try_from) {
        Some(Ok(offset)) if offset / 8 < call.bulk_bytes_max => Ok(offset),
        _ => Err(BIT_OFFSET),
    }
}

fn setbit(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let offset = bit_offset(call, args[2], None)?;
    let on = match data::number::parse_i64(args[3]) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Error::of("ERR bit is not an integer or out of range")),
    };
    let mask = 0x80 >> (offset % 8);
    let stored = look_at_string(call.txn, args[1])?.map(Text::from);
    let before = stored.and_then(|text| text.get(offset / 8).copied());
    let was_on = before.is_some_and(|byte| byte & mask != 0);
    if before.is_none() || was_on != on {
        let byte = before.unwrap_or(0) & !mask | if on { mask } else { 0 };
        call.txn.tell_as(Event::string("setbit"));
        call.txn.overwrite(args[1], offset / 8, &[byte])?;
    }
    call.reply.integer(i64::from(was_on));
    Ok(())
}

fn getbit(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let offset = bit_offset(call, args[2], None)?;
    let text = Text::from(call.txn.read_string(args[1])?.unwrap_or(Str::Bytes(b"")));
    let on = text.get(offset / 8).is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1);
    call.reply.integer(i64::from(on));
    Ok(())
}

/// Whether a range is told in bits.
fn in_bits(word: &[u8]) -> Result<bool> {
    match word {
        word if is(word, "BIT") => Ok(true),
        word if is(word, "BYTE") => Ok(false),
        _ => Err(Error::SYNTAX),
    }
}

/// The bits between two places, both included, in a string of this length. As in Redis an end
/// before the first place means the first place.
fn bit_range(start: i64, end: i64, in_bits: bool, bytes: usize) -> Range<usize> {
    let len = (if in_bits { bytes * 8 } else { bytes }) as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    if start > end {
        return 0..0;
    }
    let width = if in_bits { 1 } else { 8 };
    start as usize * width..(end as usize + 1) * width
}

fn bitcount(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let range = match &args[2..] {
        [] => None,
        [start, end] => Some((integer(start)?, integer(end)?, false)),
        [start, end, unit] => Some((integer(start)?, integer(end)?, in_bits(unit)?)),
        _ => return Err(Error::SYNTAX),
    };
    let text = Text::from(call.txn.read_string(args[1])?.unwrap_or(Str::Bytes(b"")));
    let range = match range {
        None => 0..text.len() * 8,
        // Nothing even where clamping would make them meet at the first place.
        Some((start, end, _)) if start < 0 && end < 0 && start > end => 0..0,
        Some((start, end, in_bits)) => bit_range(start, end, in_bits, text.len()),
    };
    let mut ones = 0;
    let mut from = range.start;
    while from < range.end && !call.txn.should_stop() {
        let to = range.end.min(from + STRETCH_BYTES * 8);
        ones += bits::count_ones_within(&text, from..to);
        from = to;
    }
    call.reply.integer(ones as i64);
    Ok(())
}

fn bitpos(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let wanted = match integer(args[2])? {
        0 => false,
        1 => true,
        _ => return Err(Error::of("ERR The bit argument must be 1 or 0.")),
    };
    let (start, end, in_bits) = match &args[3..] {
        [] => (0, None, false),
        [start] => (integer(start)?, None, false),
        [start, end] => (integer(start)?, Some(integer(end)?), false),
        [start, end, unit] => {
            let start = integer(start)?;
            let in_bits = in_bits(unit)?;
            (start, Some(integer(end)?), in_bits)
        }
        _ => return Err(Error::SYNTAX),
    };
    let Some(text) = call.txn.read_string(args[1])?.map(Text::from) else {
        // As if there were zeros without end.
        call.reply.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let range = bit_range(start, end.unwrap_or(-1), in_bits, text.len());
    let is_empty = range.is_empty();
    let mut found = None;
    let mut from = range.start;
    while from < range.end && found.is_none() && !call.txn.should_stop() {
        let to = range.end.min(from + STRETCH_BYTES * 8);
        found = bits::position(&text, wanted, from..to);
        from = to;
    }
    let place = match found {
        Some(place) => place as i64,
        // Behind the string there are zeros, unless the end was told.
        None if !wanted && end.is_none() && !is_empty => text.len() as i64 * 8,
        None => -1,
    };
    call.reply.integer(place);
    Ok(())
}

fn operation(word: &[u8]) -> Option<Operation> {
    const OPERATIONS: [(&str, Operation); 8] = [
        ("AND", Operation::And),
        ("OR", Operation::Or),
        ("XOR", Operation::Xor),
        ("NOT", Operation::Not),
        ("DIFF", Operation::Diff),
        ("DIFF1", Operation::Diff1),
        ("ANDOR", Operation::AndOr),
        ("ONE", Operation::One),
    ];
    let found = OPERATIONS.iter().find(|(name, _)| is(word, name));
    found.map(|(_, operation)| *operation)
}

fn bitop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (destination, keys) = (args[2], &args[3..]);
    let operation = operation(args[1]).ok_or(Error::SYNTAX)?;
    match operation {
        Operation::Not if keys.len() != 1 => {
            return Err(Error::of("ERR BITOP NOT must be called with a single source key."));
        }
        Operation::Diff | Operation::Diff1 | Operation::AndOr if keys.len() < 2 => {
            let name = String::from_utf8_lossy(args[1]).to_ascii_uppercase();
            return Err(Error::new(format!(
                "ERR BITOP {name} must be called with at least two source keys."
            )));
        }
        _ => {}
    }
    let mut sources = Vec::with_capacity(keys.len());
    for key in keys {
        sources.push(Text::from(call.txn.read_string(key)?.unwrap_or(Str::Bytes(b""))));
    }
    let rows: Vec<&[u8]> = sources.iter().map(|text| &text[..]).collect();
    let result = bits::combine(operation, &rows, || !call.txn.should_stop());
    unless_stopped(call.txn)?;
    if result.is_empty() {
        call.txn.remove(destination);
    } else {
        call.txn.set_string(destination, &result, Expiry::Clear);
    }
    call.reply.integer(result.len() as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::bit_range;

    #[test]
    fn ranges_of_bits() {
        assert_eq!(bit_range(0, -1, false, 3), 0..24);
        assert_eq!(bit_range(0, -100, false, 3), 0..8);
        assert_eq!(bit_range(1, 1, false, 3), 8..16);
        assert_eq!(bit_range(-4, 30, true, 3), 20..24);
        assert_eq!(bit_range(24, 30, true, 3), 0..0);
        assert_eq!(bit_range(2, 1, false, 3), 0..0);
        assert_eq!(bit_range(0, -1, false, 0), 0..0);
        assert_eq!(bit_range(i64::MIN, i64::MAX, true, 2), 0..16);
    }
}

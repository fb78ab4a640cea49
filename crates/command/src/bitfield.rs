//! BITFIELD: integers of any width at any bit of a string.

use data::bits;
use engine::{Event, Str};

use crate::bitmap::bit_offset;
use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string::{Text, look_at_string};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Bitmap, "bitfield", -2, bitfield)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE | k::VARIABLE_FLAGS)
            .notes("RO and ACCESS when only `GET` is used")])
        .since("3.2.0")
        .complexity("O(1) for each operation")
        .summary("Reads, writes and counts integers of any width in a string.")
        .syntax(
            "key [operation:(GET get-block:(encoding offset) | \
             write:([OVERFLOW overflow-block:(WRAP | SAT | FAIL)] \
             write-operation:(SET set-block:(encoding offset value:integer) | \
             INCRBY incrby-block:(encoding offset increment)))) ...]",
        ),
    Command::new(Group::Bitmap, "bitfield_ro", -2, bitfield_ro)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("6.0.0")
        .complexity("O(1) for each operation")
        .summary("Reads integers of any width in a string.")
        .syntax("key [GET get-block:(encoding offset) [GET get-block:(encoding offset) ...]]"),
];

/// How an integer stands in its bits.
#[derive(Clone, Copy)]
struct Encoding {
    signed: bool,
    width: u32,
}

impl Encoding {
    fn parse(arg: &[u8]) -> Result<Encoding> {
        let parsed = match arg {
            [b'i', width @ ..] => Some((true, width, 64)),
            [b'u', width @ ..] => Some((false, width, 63)),
            _ => None,
        };
        parsed
            .and_then(|(signed, width, most)| {
                let width = data::number::parse_i64(width).filter(|width| *width <= most)?;
                let width = u32::try_from(width).ok().filter(|width| *width > 0)?;
                Some(Encoding { signed, width })
            })
            .ok_or(Error::of(
                "ERR Invalid bitfield type. Use something like i16 u8. \
                 Note that u64 is not supported but i64 is.",
            ))
    }

    fn value(self, bits: u64) -> i64 {
        if !self.signed {
            return bits as i64;
        }
        let unused = 64 - self.width;
        ((bits << unused) as i64) >> unused
    }

    fn range(self) -> (i128, i128) {
        match self.signed {
            true => (-(1_i128 << (self.width - 1)), (1_i128 << (self.width - 1)) - 1),
            false => (0, (1_i128 << self.width) - 1),
        }
    }

    /// What a number becomes here; `None` when it does not fit and must.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = self.range();
        if (min..=max).contains(&number) {
            return Some(number as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.value(number as u64 & (u64::MAX >> (64 - self.width)))),
            Overflow::Saturate => Some(number.clamp(min, max) as i64),
            Overflow::Fail => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64, Overflow),
    Increment(i64, Overflow),
}

struct Operation {
    encoding: Encoding,
    offset: usize,
    action: Action,
}

/// Everything is read before anything is done.
fn operations(call: &Call<'_, '_>, args: &[&[u8]]) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = args;
    while let [word, behind @ ..] = rest {
        if is(word, "OVERFLOW")
            && let [way, behind @ ..] = behind
        {
            overflow = match way {
                way if is(way, "WRAP") => Overflow::Wrap,
                way if is(way, "SAT") => Overflow::Saturate,
                way if is(way, "FAIL") => Overflow::Fail,
                _ => return Err(Error::of("ERR Invalid OVERFLOW type specified")),
            };
            rest = behind;
            continue;
        }
        let arguments = match word {
            word if is(word, "GET") => 2,
            word if is(word, "SET") || is(word, "INCRBY") => 3,
            _ => return Err(Error::SYNTAX),
        };
        let Some((arguments, behind)) = behind.split_at_checked(arguments) else {
            return Err(Error::SYNTAX);
        };
        let encoding = Encoding::parse(arguments[0])?;
        let offset = bit_offset(call, arguments[1], Some(encoding.width))?;
        let action = match arguments.get(2) {
            None => Action::Get,
            Some(number) if is(word, "SET") => Action::Set(integer(number)?, overflow),
            Some(number) => Action::Increment(integer(number)?, overflow),
        };
        operations.push(Operation { encoding, offset, action });
        rest = behind;
    }
    Ok(operations)
}

fn bitfield(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let operations = operations(call, &args[2..])?;
    run(call, args[1], &operations)
}

fn bitfield_ro(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let operations = operations(call, &args[2..])?;
    if operations.iter().any(|operation| !matches!(operation.action, Action::Get)) {
        return Err(Error::of("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    run(call, args[1], &operations)
}

fn run(call: &mut Call<'_, '_>, key: &[u8], operations: &[Operation]) -> Result {
    call.txn.tell_as(Event::string("setbit"));
    let dirty = call.txn.dirty();
    let writing = operations.iter().filter(|operation| !matches!(operation.action, Action::Get));
    let last = writing.map(|operation| operation.offset + operation.encoding.width as usize).max();
    let mut is_longer = false;
    if let Some(last) = last {
        let needed = last.div_ceil(8);
        let len = look_at_string(call.txn, key)?.map_or(0, |stored| Text::from(stored).len());
        // All of it is there from the beginning, even if nothing is written in the end.
        if len < needed {
            is_longer = true;
            call.txn.overwrite(key, needed - 1, &[0])?;
        }
    } else {
        call.txn.read_string(key)?;
    }
    call.reply.array(operations.len());
    let mut changes = 0;
    for Operation { encoding, offset, action } in operations {
        let stored = Text::from(look_at_string(call.txn, key)?.unwrap_or(Str::Bytes(b"")));
        let before = encoding.value(bits::unsigned_at(&stored, *offset, encoding.width));
        let (after, answers_new) = match *action {
            Action::Get => {
                call.reply.integer(before);
                continue;
            }
            Action::Set(number, overflow) => {
                // A negative number is a very large one where there are none.
                let number = if encoding.signed { number.into() } else { (number as u64).into() };
                (encoding.fit(number, overflow), false)
            }
            Action::Increment(by, overflow) => {
                (encoding.fit(i128::from(before) + i128::from(by), overflow), true)
            }
        };
        let Some(after) = after else {
            call.reply.null();
            continue;
        };
        call.reply.integer(if answers_new { after } else { before });
        changes += u64::from(is_longer || after != before);
        if after != before {
            let (held, len) = bits::with_integer(&stored, *offset, encoding.width, after as u64);
            call.txn.overwrite(key, offset / 8, &held[..len])?;
        }
    }
    call.txn.count_as(dirty, changes.max(u64::from(is_longer)));
    Ok(())
}

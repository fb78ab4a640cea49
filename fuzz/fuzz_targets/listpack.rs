//! Compact encodings, ours and those inside of RDB files.
//!
//! The first byte chooses. Ours: any operations on a listpack leave what they leave of a vector. Those
//! of files - listpacks, ziplists, integer sets, zipmaps, alone or as nodes of a list: any bytes are
//! refused or read, within memory that is in proportion to them, and what was read is written and read
//! again to the same value. Where the choice says so the header is made to be true, or few inputs would
//! get past it.
#![no_main]

#[path = "../shared/elements.rs"]
mod elements;
#[path = "../shared/limits.rs"]
mod limits;

use data::listpack::{Listpack, Position};
use elements::elements;
use engine::Entry;
use libfuzzer_sys::fuzz_target;
use limits::limits;
use persist::rdb::{Version, checksum, dump, restore};

/// A list of small integers, one byte and one for its size each, of which each may be its own node.
const MEMORY_FACTOR: usize = 100;
const MEMORY_BYTES_MIN: usize = 128 << 10;
/// Entries of a listpack that is operated on.
const ENTRIES_MAX: usize = 300;

/// How a value begins whose one string is the input, and how its header is to be made true.
const FORMATS: [(&[u8], Header); 10] = [
    (&[9], Header::None),
    (&[10], Header::Ziplist),
    (&[11], Header::Intset),
    (&[12], Header::Ziplist),
    (&[13], Header::Ziplist),
    (&[16], Header::Listpack),
    (&[17], Header::Listpack),
    (&[20], Header::Listpack),
    // A list of one node.
    (&[14, 1], Header::Ziplist),
    (&[18, 1, 2], Header::Listpack),
];

enum Header {
    None,
    Listpack,
    Ziplist,
    Intset,
}

fn frame(header: &Header, bytes: &mut Vec<u8>) {
    match header {
        Header::None => {}
        Header::Listpack => {
            let total = (bytes.len() + 7) as u32;
            bytes.splice(..0, total.to_le_bytes().into_iter().chain([0xff, 0xff]));
            bytes.push(0xff);
        }
        Header::Ziplist => {
            // Where the last entry begins, a byte of the input says, from the end.
            let back = usize::from(bytes.pop().unwrap_or(0));
            let (total, tail) = (bytes.len() + 11, (bytes.len() + 10).saturating_sub(back));
            let (total, tail) = (total as u32, tail as u32);
            let head = total.to_le_bytes().into_iter().chain(tail.to_le_bytes());
            bytes.splice(..0, head.chain([0xff, 0xff]));
            bytes.push(0xff);
        }
        Header::Intset => {
            let width = 2 << (bytes.pop().unwrap_or(0) % 3);
            bytes.truncate(bytes.len() / width * width);
            let count = (bytes.len() / width) as u32;
            let head = (width as u32).to_le_bytes().into_iter().chain(count.to_le_bytes());
            bytes.splice(..0, head);
        }
    }
}

fn read(choice: u8, input: &[u8]) {
    let (prefix, header) = &FORMATS[usize::from(choice / 4) % FORMATS.len()];
    let limits = limits(choice & 1 != 0);
    let mut bytes = input.to_vec();
    if choice & 2 != 0 {
        frame(header, &mut bytes);
    }
    let mut payload = prefix.to_vec();
    payload.push(0x80);
    payload.extend((bytes.len() as u32).to_be_bytes());
    payload.extend(&bytes);
    payload.extend(11_u16.to_le_bytes());
    payload.extend(checksum(&payload).to_le_bytes());
    let Ok(value) = restore(&payload, &limits) else { return };
    let entry = Entry::value(b"", value, None);
    let taken = entry.memory_bytes();
    let most = MEMORY_FACTOR * bytes.len() + MEMORY_BYTES_MIN;
    assert!(taken <= most, "{taken} bytes from {}", bytes.len());
    for version in [Version::V10, Version::V11] {
        let again = restore(&dump(entry.get(), version), &limits).expect("it was written by us");
        let again = Entry::value(b"", again, None);
        assert!(elements(again.get()) == elements(entry.get()));
    }
}

/// The bytes of the input as numbers and strings.
struct Wishes<'i>(&'i [u8]);

impl<'i> Wishes<'i> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Lengths around those where the size of an entry takes another byte, too.
    fn text(&mut self) -> Option<Vec<u8>> {
        let len = match self.byte()? {
            byte @ 0..=199 => usize::from(byte % 20),
            byte @ 200..=229 => 120 + usize::from(byte - 200),
            byte => 16_370 + usize::from(byte - 230),
        };
        let fill = self.byte()?;
        Some(vec![fill; len])
    }
}

fn operate(input: &[u8]) -> Option<()> {
    let mut wishes = Wishes(input);
    let mut pack = Listpack::new();
    let mut model: Vec<Vec<u8>> = Vec::new();
    loop {
        check(&pack, &model);
        let operation = wishes.byte();
        let at = usize::from(wishes.byte()?) % (model.len() + 1);
        let place = pack.seek(at);
        match operation? % 10 {
            0..3 if model.len() < ENTRIES_MAX => {
                let text = wishes.text()?;
                let (one, other) = text.split_at(text.len() / 3);
                assert_eq!(pack.insert_parts(place, &[one, other]), place);
                model.insert(at, text);
            }
            3 if at < model.len() => {
                let text = wishes.text()?;
                pack.replace(place, &text);
                model[at] = text;
            }
            4 => {
                let count = usize::from(wishes.byte()?) % 8;
                let end = (at + count).min(model.len());
                assert_eq!(pack.remove_many(place, count), model.drain(at..end).count());
            }
            5 => {
                let tail = pack.split_off(place);
                let model_tail = model.split_off(at);
                check(&tail, &model_tail);
                if wishes.byte()? % 2 == 0 {
                    pack.append(&tail);
                    model.extend(model_tail);
                }
            }
            6 if at < model.len() => {
                let to = usize::from(wishes.byte()?) % (model.len() + 1);
                if to != at {
                    let there = pack.seek(to);
                    let now: Position = pack.move_entry(place, there);
                    let text = model.remove(at);
                    let to = if to > at { to - 1 } else { to };
                    assert_eq!(pack.get(now), Some(&*text));
                    model.insert(to, text);
                }
            }
            7 => {
                let text = wishes.text()?;
                let step = 1 + usize::from(wishes.byte()?) % 3;
                let found = pack.find(&text, place, step);
                let mut tail = model[at..].iter().step_by(step);
                let expected = tail.position(|other| *other == text);
                assert_eq!(found, expected.map(|steps| pack.seek(at + steps * step)));
            }
            8 => pack = pack.clone(),
            9 if at == 0 => {
                pack.clear();
                model.clear();
            }
            _ => {}
        }
    }
}

fn check(pack: &Listpack, model: &[Vec<u8>]) {
    assert_eq!(pack.len(), model.len());
    assert!(pack.iter().eq(model.iter().map(|text| &**text)));
    assert!(pack.iter().rev().eq(model.iter().rev().map(|text| &**text)));
    assert_eq!(pack.back(), model.last().map(|text| &**text));
}

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        None => {}
        Some((&choice, rest)) if choice >= 0xc0 => _ = operate(rest),
        Some((&choice, rest)) => read(choice, rest),
    }
});

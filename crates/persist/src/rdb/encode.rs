//! Whole values to RDB bytes, piece by piece: nothing larger than a piece, a compact collection or
//! a block of a list is ever built in memory beside the value.

use std::collections::VecDeque;

use data::stream::Id;
use data::{Encoding, Hash, List, Member, Set, Stream, Zset, hash, listpack, number, set, zset};
use engine::{Str, ValueRef};

use super::json;
use super::lzf::Compressor;
use super::packed::{COUNT_UNKNOWN, END, put_backlen};
use super::stream::{Tail, put_block};
use super::{Version, kind, length, node};

/// Shorter strings are not worth compressing, as in Redis.
const COMPRESSED_BYTES_MIN: usize = 21;
/// Longer ones are written as they are, so that no piece takes long.
const COMPRESSED_BYTES_MAX: usize = 1 << 20;
/// The longest text that is tried as an integer.
const INTEGER_BYTES_MAX: usize = 11;
/// Integer sets larger than this are written member by member.
const INTSET_LEN_MAX: usize = 1 << 16;

/// How strings and values are written. Keeps what it needs from one to the next.
pub struct Encoder {
    version: Version,
    compressor: Option<Compressor>,
    /// A compact collection under construction.
    pub(super) packed: Vec<u8>,
}

/// Appends a length.
pub fn put_length(length: u64, out: &mut Vec<u8>) {
    match length {
        0..0x40 => out.push(length as u8),
        0x40..0x4000 => out.extend([length::BITS_14 | (length >> 8) as u8, length as u8]),
        0x4000..=0xffff_ffff => {
            out.push(length::BITS_32);
            out.extend((length as u32).to_be_bytes());
        }
        _ => {
            out.push(length::BITS_64);
            out.extend(length.to_be_bytes());
        }
    }
}

fn put_integer(value: i64, out: &mut Vec<u8>) -> bool {
    if let Ok(value) = i8::try_from(value) {
        out.push(length::CODED | length::INT8);
        out.extend(value.to_le_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        out.push(length::CODED | length::INT16);
        out.extend(value.to_le_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(length::CODED | length::INT32);
        out.extend(value.to_le_bytes());
    } else {
        return false;
    }
    true
}

impl Encoder {
    pub fn new(version: Version, compress: bool) -> Encoder {
        let compressor = compress.then(Compressor::default);
        Encoder { version, compressor, packed: Vec::new() }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Appends a string.
    pub fn string(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if !self.shortened(bytes, out) {
            put_length(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
    }

    /// Appends a string if it is shorter in another form than its own.
    fn shortened(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        if bytes.len() <= INTEGER_BYTES_MAX {
            return number::parse_i64(bytes).is_some_and(|value| put_integer(value, out));
        }
        let Some(compressor) = &mut self.compressor else { return false };
        if !(COMPRESSED_BYTES_MIN..=COMPRESSED_BYTES_MAX).contains(&bytes.len()) {
            return false;
        }
        let start = out.len();
        // The length is known afterwards; most fit the room of one in 14 bits.
        out.extend([length::CODED | length::LZF, 0, 0]);
        put_length(bytes.len() as u64, out);
        let from = out.len();
        if !compressor.compress(bytes, bytes.len() - 4, out) {
            out.truncate(start);
            return false;
        }
        let packed_bytes = (out.len() - from) as u64;
        let mut head = Vec::with_capacity(5);
        put_length(packed_bytes, &mut head);
        out.splice(start + 1..start + 3, head);
        true
    }

    /// The type that a value is written as.
    pub fn kind(&self, value: ValueRef<'_>) -> u8 {
        match value {
            ValueRef::Str(_) => kind::STRING,
            ValueRef::List(_) => kind::LIST_QUICKLIST_2,
            ValueRef::Set(set) => match set.encoding() {
                Encoding::Intset if set.len() <= INTSET_LEN_MAX => kind::SET_INTSET,
                Encoding::Listpack if self.version >= Version::V11 => kind::SET_LISTPACK,
                _ => kind::SET,
            },
            ValueRef::Hash(hash) if hash.has_times() => kind::HASH_METADATA,
            ValueRef::Hash(hash) => match hash.encoding() {
                Encoding::Listpack => kind::HASH_LISTPACK,
                _ => kind::HASH,
            },
            ValueRef::Zset(zset) => match zset.encoding() {
                Encoding::Listpack => kind::ZSET_LISTPACK,
                _ => kind::ZSET_2,
            },
            ValueRef::Stream(_) if self.version >= Version::V11 => kind::STREAM_LISTPACKS_3,
            ValueRef::Stream(_) => kind::STREAM_LISTPACKS_2,
            ValueRef::Json(_) => kind::MODULE_2,
        }
    }

    /// Makes `self.packed` a listpack of so many entries.
    pub fn pack(&mut self, count: usize, put_entries: impl FnOnce(&mut Vec<u8>)) {
        pack(self, count, put_entries);
    }

    /// Appends a string of which `self.packed` is the content.
    pub fn packed_string(&mut self, out: &mut Vec<u8>) {
        let packed = std::mem::take(&mut self.packed);
        self.string(&packed, out);
        self.packed = packed;
    }
}

/// A value on its way out, without its type.
pub struct Pieces<'a> {
    /// Parts of elements that stand before everything else.
    due: VecDeque<Part<'a>>,
    rest: Rest<'a>,
}

enum Part<'a> {
    Own(Vec<u8>),
    Of(&'a [u8]),
}

enum Rest<'a> {
    Nothing,
    Value(ValueRef<'a>),
    Blocks(&'a List, usize),
    /// The blocks of a stream behind this one.
    Entries(&'a Stream, Option<Id>),
    /// What stands behind them.
    Tail(&'a Stream, Tail),
    Members(set::Iter<'a>),
    Fields(hash::Iter<'a>),
    /// From the highest score down, as Redis has them: reading them in that order is cheap there.
    Scores(std::iter::Rev<zset::Iter<'a>>),
}

impl<'a> Pieces<'a> {
    pub fn of(value: ValueRef<'a>) -> Pieces<'a> {
        Pieces { due: VecDeque::new(), rest: Rest::Value(value) }
    }

    /// Appends the next piece, of about this size; false when it was the last. The value must not
    /// have changed since the piece before.
    pub fn next(&mut self, encoder: &mut Encoder, bytes: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len() + bytes.max(1);
        while out.len() < end {
            match self.due.pop_front() {
                Some(Part::Own(bytes)) => out.extend_from_slice(&bytes),
                Some(Part::Of(bytes)) => {
                    let (now, later) = bytes.split_at(bytes.len().min(end - out.len()));
                    out.extend_from_slice(now);
                    if !later.is_empty() {
                        self.due.push_front(Part::Of(later));
                    }
                }
                None if matches!(self.rest, Rest::Nothing) => return false,
                None => self.element(encoder, out),
            }
        }
        !self.due.is_empty() || !matches!(self.rest, Rest::Nothing)
    }

    /// Appends one element, or what stands before all of them.
    fn element(&mut self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        match &mut self.rest {
            Rest::Nothing => {}
            Rest::Value(value) => {
                let value = *value;
                self.rest = self.begin(value, encoder, out);
            }
            Rest::Blocks(list, number) => {
                let block = list.block(*number);
                *number += 1;
                match block {
                    Some(block) => self.block(block, encoder, out),
                    None => self.rest = Rest::Nothing,
                }
            }
            Rest::Entries(stream, behind) => match stream.block_behind(*behind) {
                Some((base, block)) => {
                    put_block(base, block, encoder, out);
                    *behind = Some(base);
                }
                None => self.rest = Rest::Tail(stream, Tail::Head),
            },
            Rest::Tail(..) => {
                if let Rest::Tail(stream, tail) = std::mem::replace(&mut self.rest, Rest::Nothing)
                    && let Some(next) = tail.put(stream, encoder, out)
                {
                    self.rest = Rest::Tail(stream, next);
                }
            }
            Rest::Members(members) => match members.next() {
                Some(Member::Bytes(bytes)) => self.string(bytes, encoder, out),
                Some(integer) => encoder.string(&integer, out),
                None => self.rest = Rest::Nothing,
            },
            Rest::Fields(fields) => match fields.next() {
                Some((field, value)) => {
                    self.string(field, encoder, out);
                    self.string(value, encoder, out);
                }
                None => self.rest = Rest::Nothing,
            },
            Rest::Scores(members) => match members.next() {
                Some((member, score)) => {
                    self.string(member, encoder, out);
                    self.put(&score.to_le_bytes(), out);
                }
                None => self.rest = Rest::Nothing,
            },
        }
    }

    /// Appends what stands before the elements, or all of a value that is compact.
    fn begin(&mut self, value: ValueRef<'a>, encoder: &mut Encoder, out: &mut Vec<u8>) -> Rest<'a> {
        match (value, encoder.kind(value)) {
            (ValueRef::Str(Str::Int(value)), _) => {
                if !put_integer(value, out) {
                    encoder.string(number::format_i64(value).as_bytes(), out);
                }
                Rest::Nothing
            }
            (ValueRef::Str(Str::Bytes(bytes)), _) => {
                self.string(bytes, encoder, out);
                Rest::Nothing
            }
            (ValueRef::List(list), _) => {
                put_length(list.block_count() as u64, out);
                Rest::Blocks(list, 0)
            }
            (ValueRef::Stream(stream), _) => {
                put_length(stream.block_count() as u64, out);
                Rest::Entries(stream, None)
            }
            (ValueRef::Json(json), _) => {
                json::put(json, encoder, out);
                Rest::Nothing
            }
            (ValueRef::Set(set), kind::SET_INTSET) => {
                pack_intset(set, &mut encoder.packed);
                encoder.packed_string(out);
                Rest::Nothing
            }
            (ValueRef::Set(set), kind::SET_LISTPACK) => {
                pack(encoder, set.len(), |packed| {
                    set.iter().for_each(|member| put_entry(&member, packed));
                });
                encoder.packed_string(out);
                Rest::Nothing
            }
            (ValueRef::Set(set), _) => {
                put_length(set.len() as u64, out);
                Rest::Members(set.iter())
            }
            (ValueRef::Hash(hash), kind::HASH_LISTPACK) => {
                pack_hash(hash, encoder);
                encoder.packed_string(out);
                Rest::Nothing
            }
            (ValueRef::Hash(hash), kind::HASH_METADATA) => {
                put_timed_hash(hash, encoder, out);
                Rest::Nothing
            }
            (ValueRef::Hash(hash), _) => {
                put_length(hash.len() as u64, out);
                Rest::Fields(hash.iter())
            }
            (ValueRef::Zset(zset), kind::ZSET_LISTPACK) => {
                pack_zset(zset, encoder);
                encoder.packed_string(out);
                Rest::Nothing
            }
            (ValueRef::Zset(zset), _) => {
                put_length(zset.len() as u64, out);
                Rest::Scores(zset.iter().rev())
            }
        }
    }

    /// Puts bytes behind what is due.
    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.due.is_empty() {
            true => out.extend_from_slice(bytes),
            false => self.due.push_back(Part::Own(bytes.to_vec())),
        }
    }

    /// Puts a string behind what is due; a long one becomes due itself.
    fn string(&mut self, bytes: &'a [u8], encoder: &mut Encoder, out: &mut Vec<u8>) {
        if bytes.len() <= COMPRESSED_BYTES_MAX && self.due.is_empty() {
            return encoder.string(bytes, out);
        }
        let mut head = Vec::new();
        if bytes.len() <= COMPRESSED_BYTES_MAX {
            encoder.string(bytes, &mut head);
            return self.put(&head, out);
        }
        put_length(bytes.len() as u64, &mut head);
        self.put(&head, out);
        self.due.push_back(Part::Of(bytes));
    }

    /// A block of a list as a node.
    fn block(&mut self, block: &'a listpack::Listpack, encoder: &mut Encoder, out: &mut Vec<u8>) {
        if let Some(element) = block.front()
            && block.len() == 1
            && element.len() > COMPRESSED_BYTES_MAX
        {
            // A listpack around an element that is copied once only, into the pieces.
            put_length(node::PACKED, out);
            let mut head = Vec::new();
            put_text_head(element.len(), &mut head);
            let mut tail = Vec::new();
            put_backlen(head.len() + element.len(), &mut tail);
            tail.push(END);
            let total = LISTPACK_HEADER + head.len() + element.len() + tail.len();
            put_length(total as u64, out);
            out.extend((total as u32).to_le_bytes());
            out.extend(1_u16.to_le_bytes());
            out.extend(head);
            self.due.extend([Part::Of(element), Part::Own(tail)]);
            return;
        }
        whole_block(block, encoder, out);
    }
}

/// A block of a list as a node, in one go.
pub fn whole_block(block: &listpack::Listpack, encoder: &mut Encoder, out: &mut Vec<u8>) {
    put_length(node::PACKED, out);
    pack(encoder, block.len(), |packed| {
        block.iter().for_each(|element| put_entry(element, packed));
    });
    encoder.packed_string(out);
}

const LISTPACK_HEADER: usize = 6;

/// Makes the encoder's packed buffer a listpack of so many entries.
fn pack(encoder: &mut Encoder, count: usize, put_entries: impl FnOnce(&mut Vec<u8>)) {
    let packed = &mut encoder.packed;
    packed.clear();
    packed.extend([0; LISTPACK_HEADER]);
    put_entries(packed);
    packed.push(END);
    let total = packed.len() as u32;
    packed[..4].copy_from_slice(&total.to_le_bytes());
    packed[4..6].copy_from_slice(&(count.min(COUNT_UNKNOWN) as u16).to_le_bytes());
}

fn pack_hash(hash: &Hash, encoder: &mut Encoder) {
    pack(encoder, hash.len() * 2, |packed| {
        for (field, value) in hash.iter() {
            put_entry(field, packed);
            put_entry(value, packed);
        }
    });
}

/// The earliest time, and in front of each field how much later its own is, plus one; 0 for none.
fn put_timed_hash(hash: &Hash, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let (earliest_ms, _) = hash.earliest().unwrap_or_default();
    out.extend_from_slice(&earliest_ms.to_le_bytes());
    put_length(hash.len() as u64, out);
    for (field, value) in hash.iter() {
        put_timed_field(hash, earliest_ms, field, value, encoder, out);
    }
}

pub fn put_timed_field(
    hash: &Hash,
    earliest_ms: i64,
    field: &[u8],
    value: &[u8],
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) {
    let time = hash.time_ms(field).map_or(0, |at_ms| at_ms.abs_diff(earliest_ms) + 1);
    put_length(time, out);
    encoder.string(field, out);
    encoder.string(value, out);
}

fn pack_zset(zset: &Zset, encoder: &mut Encoder) {
    pack(encoder, zset.len() * 2, |packed| {
        for (member, score) in zset.iter() {
            put_entry(member, packed);
            put_entry(number::format_f64(score).as_bytes(), packed);
        }
    });
}

fn pack_intset(set: &Set, packed: &mut Vec<u8>) {
    let values =
        || set.iter().map(|member| number::parse_i64(&member).expect("intsets hold integers"));
    let fits = |min: i64, max: i64| values().all(|value| (min..=max).contains(&value));
    let width: u32 = if fits(i64::from(i16::MIN), i64::from(i16::MAX)) {
        2
    } else if fits(i64::from(i32::MIN), i64::from(i32::MAX)) {
        4
    } else {
        8
    };
    packed.clear();
    packed.extend(width.to_le_bytes());
    packed.extend((set.len() as u32).to_le_bytes());
    for value in values() {
        packed.extend_from_slice(&value.to_le_bytes()[..width as usize]);
    }
}

/// The encoding of a text of a listpack, before its bytes.
fn put_text_head(len: usize, out: &mut Vec<u8>) {
    match len {
        0..0x40 => out.push(0x80 | len as u8),
        0x40..0x1000 => out.extend([0xe0 | (len >> 8) as u8, len as u8]),
        _ => {
            out.push(0xf0);
            out.extend((len as u32).to_le_bytes());
        }
    }
}

/// Appends an entry of a listpack.
pub fn put_entry(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    match number::parse_i64(bytes) {
        Some(value @ 0..=127) => out.push(value as u8),
        Some(value @ -4096..=4095) => {
            out.extend([0xc0 | (value >> 8) as u8 & 0x1f, value as u8]);
        }
        Some(value) => {
            let raw = value.to_le_bytes();
            let (head, width) = match value {
                -0x8000..=0x7fff => (0xf1, 2),
                -0x80_0000..=0x7f_ffff => (0xf2, 3),
                -0x8000_0000..=0x7fff_ffff => (0xf3, 4),
                _ => (0xf4, 8),
            };
            out.push(head);
            out.extend_from_slice(&raw[..width]);
        }
        None => {
            put_text_head(bytes.len(), out);
            out.extend_from_slice(bytes);
        }
    }
    put_backlen(out.len() - start, out);
}

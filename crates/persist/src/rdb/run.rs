//! Where records of keys begin and end, without a look into the values: so that one thread can cut a
//! file into pieces that others read.
//!
//! Values of which that is not told by lengths alone (streams) are not known here; they are
//! read where they stand. Whether what is cut out is sound is found by whoever reads it.

use super::{kind, length, opcode, part};

/// Whole records of keys, as they stand in a file.
pub struct Run {
    pub(super) bytes: Vec<u8>,
    /// Of the first byte.
    pub(super) offset: u64,
}

impl Run {
    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// How many bytes in front are whole records of keys.
pub fn whole_keys(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = key(&bytes[at..]) {
        at += next;
    }
    at
}

/// Whether a record that begins with this byte may be one of a key that is known here.
pub fn is_key(first: u8) -> bool {
    match first {
        opcode::EXPIRETIME | opcode::EXPIRETIME_MS | opcode::FREQ | opcode::IDLE => true,
        _ => Shape::of(first).is_some(),
    }
}

/// What a value is made of.
#[derive(Clone, Copy)]
enum Shape {
    String,
    /// As many as a length says.
    Strings,
    /// Twice as many.
    Pairs,
    /// Strings, each followed by a number in text.
    Texts,
    /// Strings, each followed by eight bytes.
    Doubles,
    /// Strings, each behind a length.
    Nodes,
    /// Behind eight bytes: pairs of strings, each behind a length.
    Timed,
    /// What a module wrote, each part behind what it is.
    Module,
}

impl Shape {
    fn of(kind: u8) -> Option<Shape> {
        Some(match kind {
            kind::STRING
            | kind::HASH_ZIPMAP
            | kind::LIST_ZIPLIST
            | kind::SET_INTSET
            | kind::ZSET_ZIPLIST
            | kind::HASH_ZIPLIST
            | kind::HASH_LISTPACK
            | kind::ZSET_LISTPACK
            | kind::SET_LISTPACK => Shape::String,
            kind::LIST | kind::SET | kind::LIST_QUICKLIST => Shape::Strings,
            kind::HASH => Shape::Pairs,
            kind::ZSET => Shape::Texts,
            kind::ZSET_2 => Shape::Doubles,
            kind::LIST_QUICKLIST_2 => Shape::Nodes,
            kind::HASH_METADATA => Shape::Timed,
            kind::MODULE_2 => Shape::Module,
            _ => return None,
        })
    }
}

/// The bytes of the first record; `None` if it is not whole, or not that of a key known here.
fn key(bytes: &[u8]) -> Option<usize> {
    let mut walk = Walk { rest: bytes };
    let shape = loop {
        match walk.byte()? {
            opcode::EXPIRETIME => walk.skip(4)?,
            opcode::EXPIRETIME_MS => walk.skip(8)?,
            opcode::FREQ => walk.skip(1)?,
            opcode::IDLE => {
                walk.length()?;
            }
            kind => break Shape::of(kind)?,
        }
    };
    walk.string()?;
    match shape {
        Shape::String => walk.string()?,
        Shape::Strings => walk.each(Walk::string)?,
        Shape::Pairs => walk.each(|walk| {
            walk.string()?;
            walk.string()
        })?,
        Shape::Texts => walk.each(|walk| {
            walk.string()?;
            walk.text()
        })?,
        Shape::Doubles => walk.each(|walk| {
            walk.string()?;
            walk.skip(8)
        })?,
        Shape::Nodes => walk.each(|walk| {
            walk.length()?;
            walk.string()
        })?,
        Shape::Timed => {
            walk.skip(8)?;
            walk.each(|walk| {
                walk.length()?;
                walk.string()?;
                walk.string()
            })?
        }
        Shape::Module => walk.module()?,
    }
    Some(bytes.len() - walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline]
    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn big_endian<const N: usize>(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length; what codes a string has none.
    #[inline]
    fn length(&mut self) -> Option<u64> {
        let first = self.byte()?;
        self.length_after(first)
    }

    #[inline]
    fn length_after(&mut self, first: u8) -> Option<u64> {
        let low = u64::from(first & 0b11_1111);
        match first & length::CODED {
            0 => Some(low),
            length::BITS_14 => Some(low << 8 | u64::from(self.byte()?)),
            _ if first == length::BITS_32 => self.big_endian::<4>(),
            _ if first == length::BITS_64 => self.big_endian::<8>(),
            _ => None,
        }
    }

    #[inline]
    fn string(&mut self) -> Option<()> {
        let first = self.byte()?;
        let bytes = match first.wrapping_sub(length::CODED) {
            length::INT8 => 1,
            length::INT16 => 2,
            length::INT32 => 4,
            length::LZF => {
                let packed_bytes = self.length()?;
                self.length()?;
                packed_bytes
            }
            _ => self.length_after(first)?,
        };
        self.skip(bytes)
    }

    /// A number in text, as sorted sets had it: one byte of length, or one that says what it is.
    fn text(&mut self) -> Option<()> {
        match self.byte()? {
            253..=255 => Some(()),
            bytes => self.skip(bytes.into()),
        }
    }

    fn module(&mut self) -> Option<()> {
        // Its type.
        self.length()?;
        loop {
            match self.length()? {
                part::END => return Some(()),
                part::SIGNED | part::UNSIGNED => {
                    self.length()?;
                }
                part::FLOAT => self.skip(4)?,
                part::DOUBLE => self.skip(8)?,
                part::STRING => self.string()?,
                _ => return None,
            }
        }
    }

    fn each(&mut self, part: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        (0..self.length()?).try_for_each(|_| part(self))
    }
}

//! The RDB format: snapshots of a keyspace, and single values in DUMP's payloads.
//!
//! A file is `REDIS` and a version of four digits, then records that begin with an opcode or the
//! type of a value, then `EOF` and a CRC-64 of all before it (0 where checksums are off). All types
//! and encodings that Redis 2.8 to 7.4 and Valkey 8 write are read, except those whose type is not
//! built yet: these are refused by name. Written are versions 10 (Redis 7.0) and 11 (Redis 7.2).
//!
//! Reading starts at [`Reader`], writing at [`Writer`]; `packed` knows the old and new compact
//! encodings, `decode` and `encode` whole values. Source: the format as Redis's `rdb.h`, `ziplist`,
//! `listpack`, `intset` and `zipmap` document it, byte by byte in `docs/formats/rdb.md`.

mod decode;
mod encode;
mod json;
mod long;
mod lzf;
mod packed;
mod payload;
mod reader;
mod run;
mod source;
mod stream;
mod writer;

use std::fmt;
use std::io;

use crc_fast::CrcAlgorithm::Crc64Redis;
use crc_fast::Digest;

pub use encode::{Encoder, Pieces};
pub use long::Long;
pub use payload::{
    FunctionsError, RestoreError, dump, dump_functions, restore, restore_functions, trust_checksums,
};
pub use reader::{Item, Key, Piece, Reader};
pub use run::Run;
pub use writer::{Access, Records, Writer};

/// How many times larger than the input what was read from it may be: LZF's densest code spells
/// 264 bytes in 3.
pub const EXPANSION_MAX: usize = 88;

/// The highest version that is read.
pub const VERSION_MAX: u16 = 12;

/// CRC-64 as RDB files and payloads have it.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Redis, bytes)
}

fn new_digest() -> Digest {
    Digest::new(Crc64Redis)
}

/// What files are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Redis 7.0.
    V10,
    /// Redis 7.2; small sets are listpacks.
    V11,
}

impl Version {
    pub fn number(self) -> u16 {
        match self {
            Version::V10 => 10,
            Version::V11 => 11,
        }
    }
}

/// The first byte of a record that is not a key.
mod opcode {
    /// Valkey 8: how many keys of a cluster slot follow.
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION2: u8 = 245;
    /// Only candidates of Redis 7.0 wrote these.
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZEDB: u8 = 251;
    pub const EXPIRETIME_MS: u8 = 252;
    pub const EXPIRETIME: u8 = 253;
    pub const SELECTDB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// The types of values, which are also how they are encoded.
mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_2: u8 = 5;
    pub const MODULE_PRE_GA: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM_LISTPACKS: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_LISTPACKS_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_LISTPACKS_3: u8 = 21;
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    pub const HASH_METADATA: u8 = 24;
    pub const HASH_LISTPACK_EX: u8 = 25;
}

/// What comes next in the value of a module.
mod part {
    pub const END: u64 = 0;
    pub const SIGNED: u64 = 1;
    pub const UNSIGNED: u64 = 2;
    pub const FLOAT: u64 = 3;
    pub const DOUBLE: u64 = 4;
    pub const STRING: u64 = 5;
}

/// Lengths, and what stands in their place: the two upper bits of the first byte tell.
mod length {
    pub const BITS_14: u8 = 0b01 << 6;
    pub const BITS_32: u8 = 0x80;
    pub const BITS_64: u8 = 0x81;
    /// No length: the string is coded in one of these ways.
    pub const CODED: u8 = 0b11 << 6;
    pub const INT8: u8 = 0;
    pub const INT16: u8 = 1;
    pub const INT32: u8 = 2;
    pub const LZF: u8 = 3;
}

/// The nodes of a list of [`kind::LIST_QUICKLIST_2`].
mod node {
    pub const PLAIN: u64 = 1;
    pub const PACKED: u64 = 2;
}

/// Why input could not be read.
#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// The input ends at this byte, in the middle of something.
    Truncated {
        offset: u64,
    },
    /// What stands before this byte is nothing that Redis writes.
    Corrupt {
        offset: u64,
        key: Option<Vec<u8>>,
        what: String,
    },
    /// A value of a type that is not built yet.
    NotBuilt {
        key: Vec<u8>,
        what: String,
    },
    /// Neither `REDIS` nor a version that is read.
    Version(String),
    Checksum {
        expected: u64,
        found: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "{error}"),
            Error::Truncated { offset } => write!(f, "the data ends early, at byte {offset}"),
            Error::Corrupt { offset, key: None, what } => write!(f, "{what}, at byte {offset}"),
            Error::Corrupt { offset, key: Some(key), what } => {
                write!(f, "{what}, at byte {offset}, in the value of '{}'", key.escape_ascii())
            }
            Error::NotBuilt { key, what } => {
                write!(f, "the key '{}' holds {what}, which is not supported", key.escape_ascii())
            }
            Error::Version(text) => write!(f, "{text}"),
            Error::Checksum { expected, found } => {
                write!(
                    f,
                    "CRC error: the checksum is {found:016x} where {expected:016x} was expected"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// Why a value could not be read, before it is known where that was.
#[derive(Debug)]
enum Fault {
    Io(io::Error),
    Truncated,
    Corrupt(String),
    NotBuilt(String),
}

impl Fault {
    fn corrupt<T>(what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::Corrupt(what.into()))
    }
}

impl From<packed::Broken> for Fault {
    fn from(broken: packed::Broken) -> Fault {
        Fault::Corrupt(broken.0.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn checksums_are_those_of_redis() {
        assert_eq!(super::checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for bytes in (0..600).chain([4096, 70_001]) {
            let text: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
            let expected = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&text);
            assert_eq!(super::checksum(&text), expected, "{bytes} bytes");
            let (first, second) = text.split_at(random.usize(..=bytes));
            let mut digest = super::new_digest();
            digest.update(first);
            digest.update(second);
            assert_eq!(digest.finalize(), expected, "{bytes} bytes in two");
        }
    }
}

//! Files: header, records, checksum.

use std::io::{self, Write};

use crc_fast::Digest;
use engine::ValueRef;

use super::encode::{Encoder, Pieces, put_length};
use super::{Version, new_digest, opcode};

/// Bytes that are gathered before they are written.
const PIECE_BYTES: usize = 64 << 10;

/// What is known of how a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Unknown,
    IdleSeconds(u64),
    /// The logarithmic counter.
    Frequency(u8),
}

/// Writes a file. It is not complete until `finish`.
pub struct Writer<W> {
    to: W,
    encoder: Encoder,
    buffer: Vec<u8>,
    /// `None` where checksums are off.
    digest: Option<Digest>,
    written_bytes: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W, version: Version, compress: bool, checksum: bool) -> Writer<W> {
        Writer {
            to,
            encoder: Encoder::new(version, compress),
            buffer: format!("REDIS{:04}", version.number()).into_bytes(),
            digest: checksum.then(new_digest),
            written_bytes: 0,
        }
    }

    /// Bytes that the file has so far.
    pub fn len_bytes(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    /// Something about the file or who writes it.
    pub fn aux(&mut self, name: &str, value: &[u8]) -> io::Result<()> {
        self.buffer.push(opcode::AUX);
        self.encoder.string(name.as_bytes(), &mut self.buffer);
        self.encoder.string(value, &mut self.buffer);
        self.flush_if_long()
    }

    /// The code of a library of functions.
    pub fn function(&mut self, code: &[u8]) -> io::Result<()> {
        self.buffer.push(opcode::FUNCTION2);
        self.encoder.string(code, &mut self.buffer);
        self.flush_if_long()
    }

    /// The keys that follow are in this database; how many there are, and how many of them expire,
    /// is a hint.
    pub fn select(&mut self, db: u32, keys: u64, expires: u64) -> io::Result<()> {
        self.buffer.push(opcode::SELECTDB);
        put_length(u64::from(db), &mut self.buffer);
        self.buffer.push(opcode::RESIZEDB);
        put_length(keys, &mut self.buffer);
        put_length(expires, &mut self.buffer);
        self.flush_if_long()
    }

    /// A key and its value.
    pub fn key(
        &mut self,
        key: &[u8],
        value: ValueRef<'_>,
        expire_at_ms: Option<i64>,
        access: Access,
    ) -> io::Result<()> {
        put_head(&mut self.encoder, key, value, expire_at_ms, access, &mut self.buffer);
        let mut pieces = Pieces::of(value);
        while pieces.next(&mut self.encoder, PIECE_BYTES, &mut self.buffer) {
            self.flush_if_long()?;
        }
        self.flush_if_long()
    }

    /// Records that were made elsewhere: see [`Records`].
    pub fn records(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() < PIECE_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        self.write(bytes)
    }

    /// Ends the file and hands back where it went.
    pub fn finish(mut self) -> io::Result<W> {
        self.buffer.push(opcode::EOF);
        self.flush()?;
        let sum = self.digest.take().map_or(0, |digest| digest.finalize());
        self.buffer.extend(sum.to_le_bytes());
        self.flush()?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn flush_if_long(&mut self) -> io::Result<()> {
        if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        buffer.clear();
        buffer.shrink_to(2 * PIECE_BYTES);
        self.buffer = buffer;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// What stands before a value: its expiry, the use of the key, its type and the key.
fn put_head(
    encoder: &mut Encoder,
    key: &[u8],
    value: ValueRef<'_>,
    expire_at_ms: Option<i64>,
    access: Access,
    out: &mut Vec<u8>,
) {
    if let Some(when) = expire_at_ms {
        out.push(opcode::EXPIRETIME_MS);
        out.extend(when.to_le_bytes());
    }
    match access {
        Access::Unknown => {}
        Access::IdleSeconds(seconds) => {
            out.push(opcode::IDLE);
            put_length(seconds, out);
        }
        Access::Frequency(counter) => out.extend([opcode::FREQ, counter]),
    }
    out.push(encoder.kind(value));
    encoder.string(key, out);
}

/// Records of keys on their own. What `take` answers tells the databases itself, so that a file can
/// be put together from several of these, in any order.
pub struct Records {
    encoder: Encoder,
    bytes: Vec<u8>,
    /// Of the last key.
    db: Option<u32>,
}

impl Records {
    pub fn new(version: Version, compress: bool) -> Records {
        Records { encoder: Encoder::new(version, compress), bytes: Vec::new(), db: None }
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a key and its value.
    pub fn add(
        &mut self,
        db: u32,
        key: &[u8],
        value: ValueRef<'_>,
        expire_at_ms: Option<i64>,
        access: Access,
    ) {
        self.head(db, key, value, expire_at_ms, access);
        self.value(value);
    }

    /// Adds what stands before a value.
    pub(super) fn head(
        &mut self,
        db: u32,
        key: &[u8],
        value: ValueRef<'_>,
        expire_at_ms: Option<i64>,
        access: Access,
    ) {
        if self.db.replace(db) != Some(db) {
            self.bytes.push(opcode::SELECTDB);
            put_length(u64::from(db), &mut self.bytes);
        }
        put_head(&mut self.encoder, key, value, expire_at_ms, access, &mut self.bytes);
    }

    pub(super) fn value(&mut self, value: ValueRef<'_>) {
        let mut pieces = Pieces::of(value);
        while pieces.next(&mut self.encoder, PIECE_BYTES, &mut self.bytes) {}
    }

    pub(super) fn parts(&mut self) -> (&mut Encoder, &mut Vec<u8>) {
        (&mut self.encoder, &mut self.bytes)
    }

    /// Hands over the records so far; those to come go to this buffer, which is emptied.
    pub fn take(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        self.db = None;
        std::mem::replace(&mut self.bytes, spare)
    }
}

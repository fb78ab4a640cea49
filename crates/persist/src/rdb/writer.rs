//! Files: header, records, checksum.

use std::io::{self, Write};

use crc::{Digest, Table};
use engine::ValueRef;

use super::encode::{Encoder, Pieces, put_length};
use super::{CRC, Version, opcode};

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
    digest: Option<Digest<'static, u64, Table<16>>>,
    written_bytes: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W, version: Version, compress: bool, checksum: bool) -> Writer<W> {
        Writer {
            to,
            encoder: Encoder::new(version, compress),
            buffer: format!("REDIS{:04}", version.number()).into_bytes(),
            digest: checksum.then(|| CRC.digest()),
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
        if let Some(when) = expire_at_ms {
            self.buffer.push(opcode::EXPIRETIME_MS);
            self.buffer.extend(when.to_le_bytes());
        }
        match access {
            Access::Unknown => {}
            Access::IdleSeconds(seconds) => {
                self.buffer.push(opcode::IDLE);
                put_length(seconds, &mut self.buffer);
            }
            Access::Frequency(counter) => self.buffer.extend([opcode::FREQ, counter]),
        }
        self.buffer.push(self.encoder.kind(value));
        self.encoder.string(key, &mut self.buffer);
        let mut pieces = Pieces::of(value);
        while pieces.next(&mut self.encoder, PIECE_BYTES, &mut self.buffer) {
            self.flush_if_long()?;
        }
        self.flush_if_long()
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
        self.to.write_all(&self.buffer)?;
        if let Some(digest) = &mut self.digest {
            digest.update(&self.buffer);
        }
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(2 * PIECE_BYTES);
        Ok(())
    }
}

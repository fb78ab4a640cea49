//! Where bytes are read from: buffered, counted, and summed up for the checksum.

use std::io::{ErrorKind, Read};

use crc::{Digest, Table};

use super::{CRC, Fault, length, lzf};

const BUFFER_BYTES: usize = 64 << 10;
/// Strings up to this are given their room at once; others as they arrive.
const TRUSTED_BYTES: u64 = 64 << 10;

pub struct Source<R> {
    from: R,
    buffer: Box<[u8]>,
    /// What of the buffer is still to be read.
    at: usize,
    end: usize,
    /// Bytes of the input before the buffer.
    before: u64,
    digest: Digest<'static, u64, Table<16>>,
    /// What of the buffer is in the digest.
    summed: usize,
    packed: Vec<u8>,
}

/// A length, or the coding of a string that stands in its place.
pub enum Length {
    Of(u64),
    Coded(u8),
}

impl<R: Read> Source<R> {
    pub fn new(from: R) -> Source<R> {
        Source::with_buffer(from, BUFFER_BYTES)
    }

    /// For input of so many bytes.
    pub fn short(from: R, bytes: usize) -> Source<R> {
        Source::with_buffer(from, bytes.clamp(16, BUFFER_BYTES))
    }

    fn with_buffer(from: R, bytes: usize) -> Source<R> {
        Source {
            from,
            buffer: vec![0; bytes].into(),
            at: 0,
            end: 0,
            before: 0,
            digest: CRC.digest(),
            summed: 0,
            packed: Vec::new(),
        }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// CRC-64 of the bytes read so far.
    pub fn sum(&mut self) -> u64 {
        self.digest.update(&self.buffer[self.summed..self.at]);
        self.summed = self.at;
        self.digest.clone().finalize()
    }

    /// Has at least one unread byte in the buffer.
    fn fill(&mut self) -> Result<(), Fault> {
        if self.at < self.end {
            return Ok(());
        }
        self.digest.update(&self.buffer[self.summed..self.at]);
        self.before += self.at as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        loop {
            match self.from.read(&mut self.buffer) {
                Ok(0) => return Err(Fault::Truncated),
                Ok(count) => {
                    self.end = count;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Fault> {
        self.fill()?;
        let byte = self.buffer[self.at];
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        if let Some(bytes) = self.buffer[self.at..self.end].first_chunk::<N>() {
            self.at += N;
            return Ok(*bytes);
        }
        for byte in &mut array {
            *byte = self.byte()?;
        }
        Ok(array)
    }

    /// Appends so many bytes.
    pub fn append(&mut self, count: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        if count <= TRUSTED_BYTES {
            out.reserve(count as usize);
        }
        let mut left = count;
        while left > 0 {
            self.fill()?;
            let now = ((self.end - self.at) as u64).min(left) as usize;
            out.extend_from_slice(&self.buffer[self.at..self.at + now]);
            self.at += now;
            left -= now as u64;
        }
        Ok(())
    }

    pub fn length_or_coding(&mut self) -> Result<Length, Fault> {
        let first = self.byte()?;
        let low = first & 0b11_1111;
        Ok(Length::Of(match first & length::CODED {
            0 => u64::from(low),
            length::BITS_14 => u64::from(low) << 8 | u64::from(self.byte()?),
            length::CODED => return Ok(Length::Coded(low)),
            _ if first == length::BITS_32 => u64::from(u32::from_be_bytes(self.array()?)),
            _ if first == length::BITS_64 => u64::from_be_bytes(self.array()?),
            _ => return Fault::corrupt(format!("a length begins with {first:#04x}")),
        }))
    }

    pub fn length(&mut self) -> Result<u64, Fault> {
        match self.length_or_coding()? {
            Length::Of(length) => Ok(length),
            Length::Coded(_) => Fault::corrupt("a coded string stands where a length must"),
        }
    }

    /// Reads a string into `out`, replacing what is there.
    pub fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.clear();
        let coding = match self.length_or_coding()? {
            Length::Of(length) => return self.append(length, out),
            Length::Coded(coding) => coding,
        };
        let number = match coding {
            length::INT8 => i64::from(i8::from_le_bytes(self.array()?)),
            length::INT16 => i64::from(i16::from_le_bytes(self.array()?)),
            length::INT32 => i64::from(i32::from_le_bytes(self.array()?)),
            length::LZF => return self.compressed(out),
            _ => return Fault::corrupt(format!("a string has the unknown coding {coding}")),
        };
        data::number::write_i64(out, number);
        Ok(())
    }

    fn compressed(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let packed_bytes = self.length()?;
        let bytes = self.length()?;
        let mut packed = std::mem::take(&mut self.packed);
        packed.clear();
        self.append(packed_bytes, &mut packed)?;
        let done = lzf::decompress(&packed, bytes, out);
        // One long string must not keep its room for ever.
        if packed.capacity() <= BUFFER_BYTES {
            self.packed = packed;
        }
        match done {
            Some(()) => Ok(()),
            None => Fault::corrupt("a compressed string does not unpack to its length"),
        }
    }

    /// Reads a string and forgets it.
    pub fn skip_string(&mut self) -> Result<(), Fault> {
        let count = match self.length_or_coding()? {
            Length::Of(length) => length,
            Length::Coded(length::INT8) => 1,
            Length::Coded(length::INT16) => 2,
            Length::Coded(length::INT32) => 4,
            Length::Coded(length::LZF) => {
                let packed_bytes = self.length()?;
                self.length()?;
                packed_bytes
            }
            Length::Coded(coding) => {
                return Fault::corrupt(format!("a string has the unknown coding {coding}"));
            }
        };
        self.skip(count)
    }

    pub fn skip(&mut self, count: u64) -> Result<(), Fault> {
        let mut left = count;
        while left > 0 {
            self.fill()?;
            let now = ((self.end - self.at) as u64).min(left);
            self.at += now as usize;
            left -= now;
        }
        Ok(())
    }

    /// Whether the input has ended.
    pub fn is_at_end(&mut self) -> Result<bool, Fault> {
        match self.fill() {
            Ok(()) => Ok(false),
            Err(Fault::Truncated) => Ok(true),
            Err(fault) => Err(fault),
        }
    }
}

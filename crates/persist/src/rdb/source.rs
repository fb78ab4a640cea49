//! Where bytes are read from: buffered, counted, and where it matters summed up for the checksum.

use std::io::{self, ErrorKind, Read};

use crc_fast::Digest;

use super::{Fault, length, lzf, new_digest};

const BUFFER_BYTES: usize = 64 << 10;
/// Strings up to this are given their room at once; others as they arrive.
const TRUSTED_BYTES: u64 = 64 << 10;

pub struct Source<R> {
    from: R,
    buffer: Vec<u8>,
    /// What of the buffer is still to be read.
    at: usize,
    end: usize,
    /// Bytes of the input before the buffer.
    before: u64,
    /// Where nobody asks for the sum there is none.
    digest: Option<Digest>,
    /// What of the buffer is in the digest.
    summed: usize,
    packed: Vec<u8>,
}

/// A length, or the coding of a string that stands in its place.
pub enum Length {
    Of(u64),
    Coded(u8),
}

impl Source<io::Empty> {
    /// Bytes that stand at this offset of something longer, without a sum.
    pub fn within(bytes: Vec<u8>, offset: u64) -> Source<io::Empty> {
        let end = bytes.len();
        Source { end, before: offset, ..Source::with(io::empty(), bytes) }
    }

    /// The buffer of the bytes.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl<R: Read> Source<R> {
    pub fn new(from: R) -> Source<R> {
        let buffer = vec![0; BUFFER_BYTES];
        Source { digest: Some(new_digest()), ..Source::with(from, buffer) }
    }

    /// For input of so many bytes, without a sum.
    pub fn short(from: R, bytes: usize) -> Source<R> {
        Source::with(from, vec![0; bytes.clamp(16, BUFFER_BYTES)])
    }

    fn with(from: R, buffer: Vec<u8>) -> Source<R> {
        Source {
            from,
            buffer,
            at: 0,
            end: 0,
            before: 0,
            digest: None,
            summed: 0,
            packed: Vec::new(),
        }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// CRC-64 of the bytes read so far; 0 where none is reckoned.
    pub fn sum(&mut self) -> u64 {
        self.add_up();
        self.digest.map_or(0, |digest| digest.finalize())
    }

    fn add_up(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest.update(&self.buffer[self.summed..self.at]);
        }
        self.summed = self.at;
    }

    /// What is in the buffer and not read yet.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.at..self.end]
    }

    /// Gets more of the input behind what is in the buffer, which has room for so many bytes. False
    /// if it is full, or the input has ended.
    pub fn fetch(&mut self, bytes_max: usize) -> Result<bool, Fault> {
        if self.at > 0 {
            self.add_up();
            self.before += self.at as u64;
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end, self.summed) = (0, self.end - self.at, 0);
        }
        if self.buffer.len() < bytes_max {
            self.buffer.resize(bytes_max, 0);
        }
        let got = self.read()?;
        self.end += got;
        Ok(got > 0)
    }

    /// Reads into what is free of the buffer.
    fn read(&mut self) -> Result<usize, Fault> {
        loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
    }

    /// Moves the first bytes of the buffer to `out`, replacing what is there.
    pub fn cut(&mut self, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.buffer[self.at..self.at + bytes]);
        self.at += bytes;
    }

    /// Has at least one unread byte in the buffer.
    fn fill(&mut self) -> Result<(), Fault> {
        if self.at < self.end {
            return Ok(());
        }
        self.add_up();
        self.before += self.at as u64;
        (self.at, self.end, self.summed) = (0, 0, 0);
        self.end = self.read()?;
        if self.end == 0 { Err(Fault::Truncated) } else { Ok(()) }
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

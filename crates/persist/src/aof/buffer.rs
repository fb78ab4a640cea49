//! Bytes on their way to a file, in memory that a disk can take them from.

use std::ops::Deref;

/// What a write past the system's cache begins at, in the file as in memory, and is as long as: a
/// multiple of this. Disks and file systems want 512 or 4096.
pub const PIECE_BYTES: usize = 4096;

/// Bytes that are appended to. Those that come into memory of a buffer that has been as long before
/// begin where [`PIECE_BYTES`] divides the address, without being moved there.
#[derive(Debug, Default)]
pub struct Buffer {
    /// What is in front of `start` means nothing.
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// To append to it. What is there already is to be left alone.
    #[inline]
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    pub fn clear(&mut self) {
        self.memory.clear();
        self.start = match self.memory.as_ptr().align_offset(PIECE_BYTES) {
            start if start < self.memory.capacity() => start,
            _ => 0,
        };
        self.memory.resize(self.start, 0);
    }

    /// Gives memory back of which there is more than so many bytes. To be called when it is empty.
    pub fn shrink_to(&mut self, bytes: usize) {
        debug_assert!(self.is_empty());
        if self.memory.capacity() > bytes + PIECE_BYTES {
            self.memory.shrink_to(bytes + PIECE_BYTES);
            self.clear();
        }
    }

    /// Has the bytes begin where they should, which may take a copy of them.
    pub(super) fn align(&mut self) {
        if self.as_ptr().addr().is_multiple_of(PIECE_BYTES) {
            return;
        }
        let bytes = self.len();
        self.memory.reserve(PIECE_BYTES);
        let start = self.memory.as_ptr().align_offset(PIECE_BYTES);
        if start > self.start {
            self.memory.resize(start + bytes, 0);
        }
        self.memory.copy_within(self.start..self.start + bytes, start);
        self.memory.truncate(start + bytes);
        self.start = start;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_as_they_are_wherever_they_begin() {
        let mut buffer = Buffer::default();
        for round in 0..50_usize {
            assert!(buffer.is_empty());
            let mut expected = Vec::new();
            for part in 0..round * 40 {
                let bytes = [part as u8; 97];
                buffer.tail().extend_from_slice(&bytes);
                expected.extend_from_slice(&bytes);
                if part % 1000 == 7 {
                    buffer.align();
                    assert!(buffer.as_ptr().addr().is_multiple_of(PIECE_BYTES));
                }
                assert_eq!(buffer.len(), expected.len());
            }
            assert!(*buffer == expected);
            buffer.align();
            assert!(*buffer == expected && buffer.as_ptr().addr().is_multiple_of(PIECE_BYTES));
            buffer.clear();
            if round % 10 == 9 {
                buffer.shrink_to(1 << 10);
            } else if round > 0 {
                assert!(buffer.as_ptr().addr().is_multiple_of(PIECE_BYTES));
            }
        }
    }
}

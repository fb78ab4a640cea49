//! `Bytes`: a byte string behind one thin pointer, its length in the same allocation.
//!
//! Set members are stored as these: a `Box<[u8]>` would be 16 bytes wide and would not fit a slot
//! of [`crate::Table`]. Lengths below 255 take one byte of header, others nine.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use crate::size_class::class_size;

/// The first header byte that says "eight more bytes hold the length".
const LONG: u8 = 255;

/// An immutable byte string in one allocation; the handle is 8 bytes and never null.
#[repr(transparent)]
pub struct Bytes(NonNull<u8>);

// SAFETY: `Bytes` owns its allocation alone and has no interior mutability.
unsafe impl Send for Bytes {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Bytes {}

impl Bytes {
    pub fn new(bytes: &[u8]) -> Bytes {
        let (layout, header) = layout_of(bytes.len());
        // SAFETY: the layout has a non-zero size (the header).
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the allocation holds `header + bytes.len()` bytes; the header is 1 or 9 of them.
        unsafe {
            if header == 1 {
                start.write(bytes.len() as u8);
            } else {
                start.write(LONG);
                start.add(1).cast::<u64>().write_unaligned(bytes.len() as u64);
            }
            start.add(header).as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Bytes(start)
    }

    #[inline]
    fn header_and_len(&self) -> (usize, usize) {
        // SAFETY: `new` wrote a header of one byte, or LONG and eight bytes of length.
        unsafe {
            match self.0.read() {
                LONG => (9, self.0.add(1).cast::<u64>().read_unaligned() as usize),
                short => (1, short as usize),
            }
        }
    }

    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let (header, len) = self.header_and_len();
        // SAFETY: `len` initialised bytes follow the header in the same allocation.
        unsafe { std::slice::from_raw_parts(self.0.add(header).as_ptr(), len) }
    }

    /// Bytes the allocator gave for this string.
    pub fn memory_bytes(&self) -> usize {
        let (header, len) = self.header_and_len();
        class_size(header + len)
    }
}

fn layout_of(len: usize) -> (Layout, usize) {
    let header = if len < LONG as usize { 1 } else { 9 };
    let layout = Layout::from_size_align(header + len, 1).expect("a slice is below isize::MAX");
    (layout, header)
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let (_, len) = self.header_and_len();
        // SAFETY: `new` allocated with the layout of this very length.
        unsafe { dealloc(self.0.as_ptr(), layout_of(len).0) }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Bytes {
        Bytes::new(self)
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_length() {
        for len in [0, 1, 7, 253, 254, 255, 256, 70_000] {
            let source: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let bytes = Bytes::new(&source);
            assert_eq!(bytes.as_slice(), source);
            assert_eq!(bytes.clone(), bytes);
            assert!(bytes.memory_bytes() > len);
        }
        assert_eq!(size_of::<Option<Bytes>>(), 8);
    }
}

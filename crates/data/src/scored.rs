//! `Scored`: a sorted set's member and its score in one allocation behind a thin pointer.
//!
//! The hash table of a large sorted set owns these; its tree holds [`MemberRef`]s, copies of the
//! same pointers.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::size_class::class_size;

/// The first length byte that says "eight more bytes hold the length".
const LONG: u8 = 255;
/// Layout: the score, then the length as one byte or nine, then the member.
const SCORE: usize = size_of::<f64>();

/// An owned member with its score.
#[repr(transparent)]
pub(crate) struct Scored(NonNull<u8>);

/// A copy of a [`Scored`]'s pointer; whoever keeps one sees to it that the owner lives.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct MemberRef(NonNull<u8>);

// SAFETY: `Scored` owns its allocation alone and has no interior mutability.
unsafe impl Send for Scored {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Scored {}
// SAFETY: a plain pointer; reading through it is unsafe and has its own contract.
unsafe impl Send for MemberRef {}
// SAFETY: as above.
unsafe impl Sync for MemberRef {}

fn layout(len: usize) -> Layout {
    let header = if len < LONG as usize { 1 } else { 9 };
    Layout::from_size_align(SCORE + header + len, align_of::<f64>())
        .expect("a slice and a header fit the address space")
}

/// # Safety
/// `start` is the pointer of a live `Scored`, and stays so for as long as the slice is used.
#[inline]
unsafe fn member_at<'a>(start: NonNull<u8>) -> &'a [u8] {
    // SAFETY: `Scored::new` wrote the length and that many bytes behind the score.
    unsafe {
        let at = start.add(SCORE);
        let (len, header) = match at.read() {
            LONG => (at.add(1).cast::<u64>().read_unaligned() as usize, 9),
            short => (short as usize, 1),
        };
        std::slice::from_raw_parts(at.add(header).as_ptr(), len)
    }
}

impl Scored {
    pub fn new(member: &[u8], score: f64) -> Scored {
        let layout = layout(member.len());
        // SAFETY: the layout has a non-zero size.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the allocation holds score, length and member, and is aligned for the score.
        unsafe {
            start.cast::<f64>().write(score);
            let at = start.add(SCORE);
            let header = if member.len() < LONG as usize {
                at.write(member.len() as u8);
                1
            } else {
                at.write(LONG);
                at.add(1).cast::<u64>().write_unaligned(member.len() as u64);
                9
            };
            let target = at.add(header).as_ptr();
            target.copy_from_nonoverlapping(member.as_ptr(), member.len());
        }
        Scored(start)
    }

    #[inline]
    pub fn member(&self) -> &[u8] {
        // SAFETY: `self` is live and borrowed.
        unsafe { member_at(self.0) }
    }

    #[inline]
    pub fn score(&self) -> f64 {
        // SAFETY: the allocation begins with the score.
        unsafe { self.0.cast::<f64>().read() }
    }

    pub fn set_score(&mut self, score: f64) {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.0.cast::<f64>().write(score) }
    }

    pub fn as_ref(&self) -> MemberRef {
        MemberRef(self.0)
    }

    /// Bytes the allocator gave.
    pub fn memory_bytes(&self) -> usize {
        class_size(layout(self.member().len()).size())
    }
}

impl Drop for Scored {
    fn drop(&mut self) {
        let layout = layout(self.member().len());
        // SAFETY: allocated with the layout of this length, which never changes.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

impl MemberRef {
    /// Asks the processor to load the member ahead of its use.
    #[inline]
    pub fn prefetch(self) {
        crate::bucket::prefetch(self.0.as_ptr());
    }

    /// Fills unused places of a node.
    pub const NONE: MemberRef = MemberRef(NonNull::dangling());

    /// # Safety
    /// The owner lives for as long as the slice is used.
    #[inline]
    pub unsafe fn member<'a>(self) -> &'a [u8] {
        // SAFETY: by contract.
        unsafe { member_at(self.0) }
    }
}

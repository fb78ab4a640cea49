//! Buckets of [`crate::Table`]: seven slots, their tags and a presence byte in one cache line.
//!
//! Raw memory only: which bucket a value belongs to, growth and chains' upkeep are the table's.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;

/// Slots of a bucket.
pub(crate) const SLOTS: usize = 7;
/// Flag in `presence`: the last slot links to an overflow bucket.
pub(crate) const CHAINED: u8 = 0x80;
/// All slots taken, no link.
pub(crate) const FULL: u8 = 0x7f;

pub(crate) union Slot<T> {
    pub item: ManuallyDrop<MaybeUninit<T>>,
    pub next: *mut Bucket<T>,
}

#[repr(C, align(64))]
pub(crate) struct Bucket<T> {
    /// Bit i: slot i holds a value. Bit 7: [`CHAINED`]. All zero is the empty bucket.
    pub presence: u8,
    pub tags: [u8; SLOTS],
    pub slots: [Slot<T>; SLOTS],
}

/// One array of buckets; `log2` is the number of index bits.
pub(crate) struct Space<T> {
    pub buckets: Option<NonNull<Bucket<T>>>,
    pub log2: u8,
}

impl<T> Clone for Space<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Space<T> {}

impl<T> Space<T> {
    pub const NONE: Space<T> = Space { buckets: None, log2: 0 };

    fn layout(log2: u8) -> Layout {
        Layout::array::<Bucket<T>>(1 << log2).expect("bucket count fits the address space")
    }

    pub fn allocate(log2: u8) -> Space<T> {
        let layout = Self::layout(log2);
        // SAFETY: the layout is not zero-sized; all-zero buckets are valid empty buckets (the slots
        // are unions that hold nothing until presence says so).
        let buckets = unsafe { alloc_zeroed(layout) }.cast::<Bucket<T>>();
        match NonNull::new(buckets) {
            Some(buckets) => Space { buckets: Some(buckets), log2 },
            None => handle_alloc_error(layout),
        }
    }

    /// Frees the array; the caller has emptied the buckets and freed their chains.
    pub fn free(self) {
        if let Some(buckets) = self.buckets {
            // SAFETY: allocated by `allocate` with this layout, and freed once: the owner replaces
            // its copy of the space when it calls this.
            unsafe { dealloc(buckets.as_ptr().cast(), Self::layout(self.log2)) }
        }
    }

    pub fn bucket_count(&self) -> usize {
        if self.buckets.is_some() { 1 << self.log2 } else { 0 }
    }

    pub fn mask(&self) -> u64 {
        (1u64 << self.log2) - 1
    }

    /// The first bucket of the chain that `index` (masked here) names.
    #[inline]
    pub fn bucket(&self, index: u64) -> Option<*mut Bucket<T>> {
        // SAFETY: the masked index is below the number of buckets allocated.
        self.buckets.map(|buckets| unsafe { buckets.as_ptr().add((index & self.mask()) as usize) })
    }
}

#[inline]
pub(crate) fn tag_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Bit i set where byte `i + 1` of `word` equals `tag` (byte 0 is the presence byte).
#[inline]
fn matching_tags(word: u64, tag: u8) -> u8 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is part of the x86-64 baseline.
        let equal = unsafe {
            let tags = _mm_cvtsi64_si128(word as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8)))
        };
        (equal as u8) >> 1
    }
    #[cfg(not(target_arch = "x86_64"))]
    matching_tags_portable(word, tag)
}

/// The same in plain integer arithmetic: zero bytes of `word ^ tag…` exactly, gathered to bits.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn matching_tags_portable(word: u64, tag: u8) -> u8 {
    const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = word ^ (u64::from(tag) * 0x0101_0101_0101_0101);
    let zero_bytes = !(((x & LOW_SEVEN) + LOW_SEVEN) | x | LOW_SEVEN);
    ((zero_bytes >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 57) as u8
}

impl<T> Bucket<T> {
    /// Slots whose tag agrees and which are taken.
    ///
    /// # Safety
    /// `bucket` points to a live bucket.
    #[inline]
    pub unsafe fn candidates(bucket: *const Bucket<T>, tag: u8) -> u8 {
        // SAFETY: live by contract; the first eight bytes are presence and tags, all initialised,
        // and the bucket is aligned to 64.
        let word = u64::from_le(unsafe { bucket.cast::<u64>().read() });
        let taken = taken_slots(word as u8);
        matching_tags(word, tag) & taken
    }

    /// # Safety
    /// `bucket` points to a live bucket.
    #[inline]
    pub unsafe fn next(bucket: *const Bucket<T>) -> Option<*mut Bucket<T>> {
        // SAFETY: live by contract; CHAINED says that the last slot was written as `next`.
        unsafe {
            if (*bucket).presence & CHAINED != 0 {
                Some((*bucket).slots[SLOTS - 1].next)
            } else {
                None
            }
        }
    }

    /// # Safety
    /// `bucket` points to a live bucket and slot `slot` is taken; the reference must not outlive
    /// the value nor meet a `&mut` to it.
    #[inline]
    pub unsafe fn item<'a>(bucket: *const Bucket<T>, slot: usize) -> &'a T {
        // SAFETY: by contract the slot was written as `item`.
        unsafe {
            (&*(&raw const (*bucket).slots[slot].item).cast::<MaybeUninit<T>>()).assume_init_ref()
        }
    }

    /// Puts a value into a free slot.
    ///
    /// # Safety
    /// `bucket` points to a live bucket whose slot `slot` is neither taken nor the link.
    #[inline]
    pub unsafe fn put(bucket: *mut Bucket<T>, slot: usize, tag: u8, value: T) {
        // SAFETY: live by contract; writing a union field of a free slot drops nothing.
        unsafe {
            (&raw mut (*bucket).slots[slot].item).cast::<T>().write(value);
            (*bucket).tags[slot] = tag;
            (*bucket).presence |= 1 << slot;
        }
    }

    /// Takes the value out of a taken slot.
    ///
    /// # Safety
    /// `bucket` points to a live bucket and slot `slot` is taken.
    #[inline]
    pub unsafe fn take(bucket: *mut Bucket<T>, slot: usize) -> T {
        // SAFETY: the slot holds a value by contract; clearing the bit makes the read the only
        // owner.
        unsafe {
            (*bucket).presence &= !(1 << slot);
            (&raw const (*bucket).slots[slot].item).cast::<T>().read()
        }
    }
}

/// Which slots of a bucket hold values.
#[inline]
pub(crate) fn taken_slots(presence: u8) -> u8 {
    // The last slot of a chained bucket is a link, and its presence bit is clear then.
    presence & FULL
}

/// Asks the processor to load an address; a hint.
#[inline]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The content of a slot as an address to prefetch.
///
/// # Safety
/// `bucket` is live and the slot taken.
pub(crate) unsafe fn bucket_word<T>(bucket: *const Bucket<T>, slot: usize) -> *const u8 {
    // SAFETY: a taken slot holds a T, which is as wide as a pointer; the result is only a hint.
    unsafe { (&raw const (*bucket).slots[slot]).cast::<*const u8>().read() }
}

pub(crate) fn bits(mut mask: u8) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        bit
    })
}

/// # Safety
/// `bucket` begins a live chain that nobody changes meanwhile.
pub(crate) unsafe fn for_each_in_chain<T>(
    mut bucket: *const Bucket<T>,
    mut each: impl FnMut(*const Bucket<T>, usize),
) {
    loop {
        // SAFETY: live by contract.
        let mut taken = taken_slots(unsafe { (*bucket).presence });
        while taken != 0 {
            each(bucket, taken.trailing_zeros() as usize);
            taken &= taken - 1;
        }
        // SAFETY: live by contract.
        match unsafe { Bucket::next(bucket) } {
            Some(next) => bucket = next,
            None => return,
        }
    }
}

/// # Safety
/// `bucket` begins a live chain that nobody changes meanwhile.
pub(crate) unsafe fn chain_len<T>(bucket: *const Bucket<T>) -> usize {
    let mut taken = 0;
    // SAFETY: passed on.
    unsafe { for_each_in_chain(bucket, |_, _| taken += 1) };
    taken
}

/// # Safety
/// `bucket` begins a live chain that nobody changes while the reference lives.
pub(crate) unsafe fn nth_in_chain<'a, T>(bucket: *const Bucket<T>, nth: usize) -> Option<&'a T> {
    let mut at = 0;
    let mut found = None;
    // SAFETY: passed on; visited slots are taken.
    unsafe {
        for_each_in_chain(bucket, |bucket, slot| {
            if at == nth {
                found = Some(Bucket::item(bucket, slot));
            }
            at += 1;
        });
    }
    found
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn tags_match_in_both_ways() {
        let mut word = 0x1234_5678_9abc_def0u64;
        for round in 0..10_000u64 {
            word = word.wrapping_mul(6364136223846793005).wrapping_add(round);
            for tag in [0, 1, 0x7f, 0x80, 0xff, (word >> 32) as u8] {
                let mut expected = 0;
                for i in 0..7 {
                    if (word >> (8 * (i + 1))) as u8 == tag {
                        expected |= 1 << i;
                    }
                }
                assert_eq!(matching_tags(word, tag), expected);
                assert_eq!(matching_tags_portable(word, tag), expected);
            }
        }
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!(size_of::<Bucket<usize>>(), 64);
        assert_eq!(align_of::<Bucket<usize>>(), 64);
    }
}

//! `Intset`: a sorted array of distinct integers behind one thin pointer.
//!
//! The array is 2, 4 or 8 bytes wide, by the widest value it has seen, as Redis's intset. Lookup is
//! a binary search; insertion moves the tail. Sets of integers are stored as these while small.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::fmt;
use std::ptr::NonNull;

use crate::size_class::class_size;

#[repr(C, align(8))]
struct Header {
    len: u32,
    capacity: u16,
    /// Bytes per value: 2, 4 or 8.
    width: u16,
}

const HEADER: usize = size_of::<Header>();
/// The header counts capacity in units of 16 bytes, which bounds an intset at 1 MB.
const CAPACITY_UNIT: usize = 16;

/// A sorted set of integers; the handle is 8 bytes and never null.
#[repr(transparent)]
pub struct Intset(NonNull<Header>);

// SAFETY: the intset owns its allocation alone and has no interior mutability.
unsafe impl Send for Intset {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Intset {}

/// The values at their width.
enum Values<'a> {
    Narrow(&'a [i16]),
    Middle(&'a [i32]),
    Wide(&'a [i64]),
}

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, align_of::<Header>()).expect("capacity is at most 1 MB")
}

/// The allocation for `len` values: a class, in whole units.
fn capacity_for(len: usize, width: usize) -> usize {
    class_size((HEADER + len * width).max(CAPACITY_UNIT))
}

impl Default for Intset {
    fn default() -> Self {
        Self::new()
    }
}

impl Intset {
    /// The most values an intset takes, whatever the configured limit.
    pub const LEN_MAX: usize = 64 * 1024;

    pub fn new() -> Intset {
        let layout = layout(CAPACITY_UNIT);
        // SAFETY: the layout has a non-zero size.
        let Some(header) = NonNull::new(unsafe { alloc(layout) }.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: freshly allocated, large enough and aligned for a header.
        unsafe { header.write(Header { len: 0, capacity: 1, width: 2 }) };
        Intset(header)
    }

    /// Asks the processor for the beginning, ahead of its use. False: there is no further part.
    #[inline]
    pub(crate) fn prefetch(&self) -> bool {
        crate::bucket::prefetch(self.0.as_ptr());
        false
    }

    fn header(&self) -> &Header {
        // SAFETY: the allocation begins with an initialised header for as long as `self` lives.
        unsafe { self.0.as_ref() }
    }

    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    fn width(&self) -> usize {
        self.header().width as usize
    }

    fn capacity(&self) -> usize {
        self.header().capacity as usize * CAPACITY_UNIT
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.header().len as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the allocator gave.
    pub fn memory_bytes(&self) -> usize {
        self.capacity()
    }

    fn values(&self) -> Values<'_> {
        let (len, width) = (self.len(), self.width());
        // SAFETY: `len` values of `width` bytes follow the header, written at that width; the
        // header is 8 bytes long and aligned to 8, so they are aligned.
        unsafe {
            let first = self.0.add(1);
            match width {
                2 => Values::Narrow(std::slice::from_raw_parts(first.cast().as_ptr(), len)),
                4 => Values::Middle(std::slice::from_raw_parts(first.cast().as_ptr(), len)),
                _ => Values::Wide(std::slice::from_raw_parts(first.cast().as_ptr(), len)),
            }
        }
    }

    /// `Ok(index)` of the value, or `Err(index)` where it would stand. O(log n).
    pub fn position(&self, value: i64) -> Result<usize, usize> {
        match self.values() {
            Values::Narrow(values) => {
                values.binary_search_by(|probe| i64::from(*probe).cmp(&value))
            }
            Values::Middle(values) => {
                values.binary_search_by(|probe| i64::from(*probe).cmp(&value))
            }
            Values::Wide(values) => values.binary_search(&value),
        }
    }

    pub fn contains(&self, value: i64) -> bool {
        self.position(value).is_ok()
    }

    /// The value with number `index` in ascending order.
    pub fn get(&self, index: usize) -> Option<i64> {
        match self.values() {
            Values::Narrow(values) => values.get(index).map(|value| i64::from(*value)),
            Values::Middle(values) => values.get(index).map(|value| i64::from(*value)),
            Values::Wide(values) => values.get(index).copied(),
        }
    }

    /// Adds a value; false if it was there. The set must hold fewer than [`Self::LEN_MAX`].
    pub fn insert(&mut self, value: i64) -> bool {
        let Err(at) = self.position(value) else { return false };
        let len = self.len();
        assert!(len < Self::LEN_MAX, "an intset outgrew its format");
        let width = self.width().max(width_of(value));
        let needed = capacity_for(len + 1, width);
        if needed > self.capacity() {
            self.resize(needed);
        }
        if width > self.width() {
            self.widen(width);
        }
        // SAFETY: the capacity holds `len + 1` values of `width`; the tail moves up by one and
        // the new value goes into the place it left.
        unsafe {
            let place = self.place(at, width);
            place.add(width).copy_from(place, (len - at) * width);
        }
        self.write(at, width, value);
        self.header_mut().len += 1;
        true
    }

    /// Removes a value; false if it was not there.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(at) = self.position(value) else { return false };
        let (len, width) = (self.len(), self.width());
        // SAFETY: value `at` exists; the tail behind it moves down by one.
        unsafe {
            let place = self.place(at, width);
            place.copy_from(place.add(width), (len - at - 1) * width);
        }
        self.header_mut().len -= 1;
        let needed = capacity_for(len - 1, width);
        if needed <= self.capacity() / 2 {
            self.resize(needed);
        }
        true
    }

    /// The values in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + DoubleEndedIterator + '_ {
        (0..self.len()).map(|index| self.get(index).expect("index is below len"))
    }

    /// # Safety
    /// `index * width` lies within the capacity behind the header.
    unsafe fn place(&mut self, index: usize, width: usize) -> *mut u8 {
        // SAFETY: by contract within the allocation.
        unsafe { self.0.add(1).cast::<u8>().add(index * width).as_ptr() }
    }

    fn write(&mut self, index: usize, width: usize, value: i64) {
        // SAFETY: callers made room for `index`; the place is aligned to `width`, and the value
        // fits it.
        unsafe {
            let place = self.place(index, width);
            match width {
                2 => place.cast::<i16>().write(value as i16),
                4 => place.cast::<i32>().write(value as i32),
                _ => place.cast::<i64>().write(value),
            }
        }
    }

    /// Rewrites all values at a greater width, from the last so that none is overwritten unread.
    /// The capacity must hold them.
    fn widen(&mut self, width: usize) {
        for index in (0..self.len()).rev() {
            let value = self.get(index).expect("index is below len");
            self.write(index, width, value);
        }
        self.header_mut().width = width as u16;
    }

    fn resize(&mut self, capacity: usize) {
        let old = layout(self.capacity());
        // SAFETY: allocated with this layout; the new capacity holds all values.
        let moved = unsafe { realloc(self.0.as_ptr().cast(), old, capacity) };
        match NonNull::new(moved.cast::<Header>()) {
            Some(header) => self.0 = header,
            None => handle_alloc_error(layout(capacity)),
        }
        self.header_mut().capacity = (capacity / CAPACITY_UNIT) as u16;
    }
}

impl Drop for Intset {
    fn drop(&mut self) {
        let layout = layout(self.capacity());
        // SAFETY: allocated with this layout and not used afterwards.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }
}

impl Clone for Intset {
    fn clone(&self) -> Intset {
        let mut copy = Intset::new();
        copy.resize(capacity_for(self.len(), self.width()).max(CAPACITY_UNIT));
        let (len, width) = (self.len(), self.width());
        let header = copy.header_mut();
        header.len = len as u32;
        header.width = width as u16;
        // SAFETY: the copy's capacity was made for exactly these values.
        unsafe { copy.place(0, width).copy_from(self.0.add(1).cast().as_ptr(), len * width) };
        copy
    }
}

impl fmt::Debug for Intset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![-20i64..20, -40_000i64..40_000, any::<i64>(), any::<i32>().prop_map(i64::from)]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in prop::collection::vec((value(), 0..3u8), 0..300)) {
            let mut set = Intset::new();
            let mut model = BTreeSet::new();
            for (value, kind) in steps {
                if kind > 0 {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    let value = model.iter().next().copied().unwrap_or(value);
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert_eq!(set.contains(value), model.contains(&value));
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.clone().iter().eq(model.iter().copied()));
            for (index, value) in model.iter().enumerate() {
                prop_assert_eq!(set.position(*value), Ok(index));
            }
        }
    }

    #[test]
    fn fills_up_to_its_bound() {
        let mut set = Intset::new();
        for value in 0..Intset::LEN_MAX as i64 {
            assert!(set.insert(value << 32));
        }
        assert_eq!(set.len(), Intset::LEN_MAX);
        for value in 0..Intset::LEN_MAX as i64 {
            assert!(set.remove(value << 32));
        }
        assert_eq!(set.memory_bytes(), 16);
    }
}

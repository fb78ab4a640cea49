//! `Listpack`: a sequence of byte strings packed into one allocation behind a thin pointer.
//!
//! Small collections are stored as these. The idea is Redis's listpack; the bytes are ours:
//!
//! ```text
//! header   end: u32, start: u32, count and capacity class: u32
//! gap      unused bytes before `start`, so that the front is as cheap to push and pop as the back
//! entry*   varint(len) bytes back     `back` is the size of varint(len) + bytes, readable from
//!                                     its end: low seven bits last, 0x80 says that more precede
//! slack    unused bytes from `end` to the capacity
//! ```
//!
//! Strings are stored raw, also those that look like numbers, so that reading is borrowing. A
//! [`Position`] is the place of an entry; any change of the listpack makes older ones stale (a
//! stale one gives wrong entries or a panic, never undefined behaviour). Capacities are allocator
//! classes; a listpack gives memory back when half of it would do.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::fmt;
use std::ptr::NonNull;

use crate::size_class::{class_index, class_of_index, class_size};

/// Bytes of an allocation that are not entries.
pub(crate) const HEADER: usize = size_of::<Header>();
const COUNT_MAX: usize = (1 << 24) - 1;
/// Collections must not grow a listpack of several entries beyond this.
const SEVERAL_MAX: usize = 1 << 30;
/// What the 32-bit offsets can hold; only a single huge entry comes near.
const TOTAL_MAX: usize = u32::MAX as usize - 64;

#[repr(C)]
struct Header {
    /// Offset of the first unused byte behind the entries.
    end: u32,
    /// Offset of the first entry.
    start: u32,
    /// Count of entries in the upper 24 bits, capacity class in the lower 8.
    count_and_class: u32,
}

/// A packed sequence of byte strings; the handle is 8 bytes and never null.
#[repr(transparent)]
pub struct Listpack(NonNull<Header>);

/// The place of an entry, or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(usize);

// SAFETY: the listpack owns its allocation alone and has no interior mutability.
unsafe impl Send for Listpack {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Listpack {}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, align_of::<Header>()).expect("capacity is below 4 GB")
}

impl Listpack {
    pub fn new() -> Listpack {
        Listpack::with_capacity(0)
    }

    /// Asks the processor for the beginning, ahead of its use. False: there is no further part.
    #[inline]
    pub(crate) fn prefetch(&self) -> bool {
        crate::bucket::prefetch(self.0.as_ptr());
        false
    }

    /// An empty listpack with room for `entry_bytes` bytes of entries (see [`entry_size`]).
    pub fn with_capacity(entry_bytes: usize) -> Listpack {
        assert!(entry_bytes <= TOTAL_MAX);
        let capacity = class_size(HEADER + entry_bytes);
        let layout = layout(capacity);
        // SAFETY: the layout has a non-zero size (the header).
        let Some(header) = NonNull::new(unsafe { alloc(layout) }.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        let empty = Header {
            end: HEADER as u32,
            start: HEADER as u32,
            count_and_class: u32::from(class_index(capacity)),
        };
        // SAFETY: freshly allocated, large enough and aligned for a header.
        unsafe { header.write(empty) };
        Listpack(header)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the allocation begins with an initialised header for as long as `self` lives.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn capacity(&self) -> usize {
        class_of_index(self.header().count_and_class as u8)
    }

    /// Number of entries. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        (self.header().count_and_class >> 8) as usize
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the entries with their length fields; the measure of size limits.
    #[inline]
    pub fn entry_bytes(&self) -> usize {
        let header = self.header();
        (header.end - header.start) as usize
    }

    /// Bytes the allocator gave.
    pub fn memory_bytes(&self) -> usize {
        self.capacity()
    }

    /// Whether `count` more entries of `entry_bytes` in total keep the listpack within its format.
    pub fn has_room(&self, count: usize, entry_bytes: usize) -> bool {
        let total_max = if self.len() + count <= 1 { TOTAL_MAX } else { SEVERAL_MAX };
        self.len().saturating_add(count) <= COUNT_MAX
            && self.entry_bytes().saturating_add(entry_bytes) <= total_max
    }

    /// All entries with their length fields.
    #[inline]
    fn entries(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: bytes from start to end lie in the allocation and were written as entries.
        unsafe {
            let first = self.0.cast::<u8>().add(header.start as usize);
            std::slice::from_raw_parts(first.as_ptr(), (header.end - header.start) as usize)
        }
    }

    /// The first entry, or the end of an empty listpack.
    #[inline]
    pub fn first(&self) -> Position {
        Position(0)
    }

    /// The position behind the last entry.
    #[inline]
    pub fn end(&self) -> Position {
        Position(self.entry_bytes())
    }

    #[inline]
    pub fn last(&self) -> Option<Position> {
        self.before(self.end())
    }

    /// The entry behind `at`, which must be an entry; the end follows the last.
    #[inline]
    pub fn after(&self, at: Position) -> Position {
        Position(at.0 + split_entry(self.entries(), at.0).1)
    }

    /// The entry before `at` (which may be the end).
    #[inline]
    pub fn before(&self, at: Position) -> Option<Position> {
        if at.0 == 0 {
            None
        } else {
            Some(Position(at.0 - size_of_entry_before(self.entries(), at.0)))
        }
    }

    /// The bytes of the entry at `at`; `None` at the end.
    #[inline]
    pub fn get(&self, at: Position) -> Option<&[u8]> {
        let entries = self.entries();
        if at.0 >= entries.len() { None } else { Some(split_entry(entries, at.0).0) }
    }

    /// The position of the entry with number `index` (the end for `len`). O(n) from the nearer
    /// end. `index` must not exceed `len`.
    pub fn seek(&self, index: usize) -> Position {
        let len = self.len();
        assert!(index <= len, "seek beyond the end of a listpack");
        let entries = self.entries();
        if index <= len / 2 {
            (0..index).fold(self.first(), |at, _| Position(at.0 + split_entry(entries, at.0).1))
        } else {
            (index..len)
                .fold(self.end(), |at, _| Position(at.0 - size_of_entry_before(entries, at.0)))
        }
    }

    /// The entry with number `index`.
    pub fn nth(&self, index: usize) -> Option<&[u8]> {
        if index < self.len() { self.get(self.seek(index)) } else { None }
    }

    pub fn front(&self) -> Option<&[u8]> {
        self.get(self.first())
    }

    pub fn back(&self) -> Option<&[u8]> {
        self.last().and_then(|at| self.get(at))
    }

    /// The first entry from `from` on that equals `value`, looking at every `step`-th entry
    /// (2 for the fields of field-value pairs).
    pub fn find(&self, value: &[u8], from: Position, step: usize) -> Option<Position> {
        let entries = self.entries();
        let mut at = from.0;
        while at < entries.len() {
            let (bytes, size) = split_entry(entries, at);
            if bytes == value {
                return Some(Position(at));
            }
            at += size;
            for _ in 1..step {
                if at < entries.len() {
                    at += split_entry(entries, at).1;
                }
            }
        }
        None
    }

    pub fn push_back(&mut self, value: &[u8]) {
        self.insert(self.end(), value);
    }

    pub fn push_front(&mut self, value: &[u8]) {
        self.insert(self.first(), value);
    }

    /// Appends one entry made of several parts.
    pub fn push_back_parts(&mut self, parts: &[&[u8]]) {
        self.insert_parts(self.end(), parts);
    }

    /// Inserts before `at` (an entry or the end) and returns the new entry's position.
    pub fn insert(&mut self, at: Position, value: &[u8]) -> Position {
        self.insert_parts(at, &[value])
    }

    /// Inserts one entry made of several parts before `at` and returns its position.
    pub fn insert_parts(&mut self, at: Position, parts: &[&[u8]]) -> Position {
        let len = parts.iter().map(|part| part.len()).sum();
        let size = entry_size(len);
        assert!(self.has_room(1, size), "a listpack outgrew its format");
        write_entry(self.open(at.0, size), len, parts);
        self.set_len(self.len() + 1);
        at
    }

    /// Replaces the bytes of the entry at `at`; the entry stays at `at`.
    pub fn replace(&mut self, at: Position, value: &[u8]) {
        self.replace_parts(at, &[value]);
    }

    /// Replaces the entry at `at` by one made of several parts.
    pub fn replace_parts(&mut self, at: Position, parts: &[&[u8]]) {
        let old_size = split_entry(self.entries(), at.0).1;
        let len = parts.iter().map(|part| part.len()).sum();
        let size = entry_size(len);
        assert!(self.has_room(0, size.saturating_sub(old_size)), "a listpack outgrew its format");
        if size > old_size {
            self.open(at.0, size - old_size);
        } else if size < old_size {
            self.close(at.0, old_size - size);
        }
        let entry = &mut self.entries_mut()[at.0..at.0 + size];
        write_entry(entry, len, parts);
    }

    /// Moves the entry at `from` before the entry at `to` (or to the end) and returns where it is
    /// then. Neither size nor capacity changes.
    pub fn move_entry(&mut self, from: Position, to: Position) -> Position {
        let size = split_entry(self.entries(), from.0).1;
        let entries = self.entries_mut();
        if to.0 > from.0 {
            entries[from.0..to.0].rotate_left(size);
            Position(to.0 - size)
        } else {
            entries[to.0..from.0 + size].rotate_right(size);
            to
        }
    }

    /// Removes the entry at `at`; `at` is then the entry that followed it.
    pub fn remove(&mut self, at: Position) {
        self.remove_many(at, 1);
    }

    /// Removes up to `count` entries from `at` on; `at` is then the entry that followed them.
    /// Returns how many there were.
    pub fn remove_many(&mut self, at: Position, count: usize) -> usize {
        let entries = self.entries();
        let mut to = at.0;
        let mut removed = 0;
        while removed < count && to < entries.len() {
            to += split_entry(entries, to).1;
            removed += 1;
        }
        self.set_len(self.len() - removed);
        self.close(at.0, to - at.0);
        removed
    }

    pub fn clear(&mut self) {
        *self = Listpack::new();
    }

    /// Moves the entries from `at` on into a listpack of their own.
    pub fn split_off(&mut self, at: Position) -> Listpack {
        let moved = &self.entries()[at.0..];
        let mut tail = Listpack::with_capacity(moved.len());
        tail.append_raw(moved);
        let count = tail.iter_from(tail.first()).count();
        tail.set_len(count);
        self.set_len(self.len() - count);
        self.close(at.0, self.entry_bytes() - at.0);
        tail
    }

    /// Appends all entries of `other`.
    pub fn append(&mut self, other: &Listpack) {
        assert!(self.has_room(other.len(), other.entry_bytes()), "a listpack outgrew its format");
        self.append_raw(other.entries());
        self.set_len(self.len() + other.len());
    }

    /// All entries in order; also from the back.
    pub fn iter(&self) -> Iter<'_> {
        Iter { entries: self.entries(), left: self.len() }
    }

    /// Entries from `at` to the end.
    pub fn iter_from(&self, at: Position) -> Entries<'_> {
        Entries { entries: &self.entries()[at.0..] }
    }

    fn append_raw(&mut self, raw: &[u8]) {
        let end = self.entry_bytes();
        self.open(end, raw.len()).copy_from_slice(raw);
    }

    fn set_len(&mut self, len: usize) {
        let header = self.header_mut();
        header.count_and_class = (len as u32) << 8 | header.count_and_class & 0xff;
    }

    fn entries_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.header().start as usize, self.header().end as usize);
        // SAFETY: as in `entries`, and `self` is borrowed exclusively.
        unsafe {
            let first = self.0.cast::<u8>().add(start);
            std::slice::from_raw_parts_mut(first.as_ptr(), end - start)
        }
    }

    /// Makes `size` bytes of room before offset `at` of the entries and returns them, zeroed or
    /// holding what was there: always initialised. The caller writes entries into them.
    fn open(&mut self, at: usize, size: usize) -> &mut [u8] {
        let used = self.entry_bytes();
        assert!(at <= used);
        let capacity = self.capacity();
        if HEADER + used + size > capacity {
            self.resize(class_size(HEADER + used + size));
        }
        let capacity = self.capacity();
        let (start, end) = (self.header().start as usize, self.header().end as usize);
        let slack = capacity - end;
        let gap = start - HEADER;
        // Where the entries begin afterwards: shift the shorter side if its room allows.
        let new_start = if gap >= size && at < used - at {
            start - size
        } else if slack >= size && (at > 0 || used == 0) {
            start
        } else {
            // The side to shift has no room: leave most of what remains on that side, so that a
            // queue does not come here for every push.
            let spare = gap + slack - size;
            if at < used - at { HEADER + spare } else { HEADER + spare / 4 }
        };
        let base = self.0.cast::<u8>().as_ptr();
        // SAFETY: both moves stay within HEADER..capacity, because new_start >= HEADER and
        // new_start + used + size <= capacity in each case above; `at <= used`. Whichever way the
        // front moves, moving the part that goes away from the other first would overwrite
        // nothing still needed: the front goes first when it moves down, last when it moves up.
        unsafe {
            let front = (base.add(start), base.add(new_start));
            let back = (base.add(start + at), base.add(new_start + at + size));
            if new_start <= start {
                front.1.copy_from(front.0, at);
                back.1.copy_from(back.0, used - at);
            } else {
                back.1.copy_from(back.0, used - at);
                front.1.copy_from(front.0, at);
            }
            base.add(new_start + at).write_bytes(0, size);
        }
        let header = self.header_mut();
        header.start = new_start as u32;
        header.end = (new_start + used + size) as u32;
        &mut self.entries_mut()[at..at + size]
    }

    /// Removes `size` bytes at offset `at` of the entries.
    fn close(&mut self, at: usize, size: usize) {
        let used = self.entry_bytes();
        assert!(at + size <= used);
        let (start, end) = (self.header().start as usize, self.header().end as usize);
        let base = self.0.cast::<u8>().as_ptr();
        let behind = used - at - size;
        if at < behind {
            // SAFETY: the front part moves up by `size`, which stays before `end`.
            unsafe { base.add(start + size).copy_from(base.add(start), at) };
            self.header_mut().start = (start + size) as u32;
        } else {
            // SAFETY: the back part moves down by `size` within start..end.
            unsafe { base.add(start + at).copy_from(base.add(start + at + size), behind) };
            self.header_mut().end = (end - size) as u32;
        }
        let needed = class_size(HEADER + used - size);
        if self.capacity() >= 64 && needed <= self.capacity() / 2 {
            self.compact_front();
            self.resize(needed);
        }
    }

    /// Moves the entries to the lowest place.
    fn compact_front(&mut self) {
        let (start, used) = (self.header().start as usize, self.entry_bytes());
        let base = self.0.cast::<u8>().as_ptr();
        // SAFETY: source and target lie within the allocation.
        unsafe { base.add(HEADER).copy_from(base.add(start), used) };
        let header = self.header_mut();
        header.start = HEADER as u32;
        header.end = (HEADER + used) as u32;
    }

    /// Changes the capacity to a class that holds everything up to `end`.
    fn resize(&mut self, capacity: usize) {
        debug_assert!(capacity >= self.header().end as usize);
        let old = layout(self.capacity());
        // SAFETY: allocated with this layout; the new size is not zero and below isize::MAX.
        let moved = unsafe { realloc(self.0.as_ptr().cast(), old, capacity) };
        match NonNull::new(moved.cast::<Header>()) {
            Some(header) => self.0 = header,
            None => handle_alloc_error(layout(capacity)),
        }
        let header = self.header_mut();
        header.count_and_class = header.count_and_class & !0xff | u32::from(class_index(capacity));
    }
}

impl Drop for Listpack {
    fn drop(&mut self) {
        let layout = layout(self.capacity());
        // SAFETY: allocated with this layout and not used afterwards.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }
}

impl Clone for Listpack {
    fn clone(&self) -> Listpack {
        let mut copy = Listpack::with_capacity(self.entry_bytes());
        copy.append(self);
        copy
    }
}

impl PartialEq for Listpack {
    fn eq(&self, other: &Listpack) -> bool {
        self.entries() == other.entries()
    }
}

impl fmt::Debug for Listpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|entry| entry.escape_ascii().to_string())).finish()
    }
}

/// Bytes that an entry of `len` bytes takes with its length fields.
#[inline]
pub fn entry_size(len: usize) -> usize {
    let front = varint_size(len) + len;
    front + varint_size(front)
}

#[inline]
fn varint_size(value: usize) -> usize {
    if value < 0x80 { 1 } else { (value.ilog2() as usize) / 7 + 1 }
}

/// The bytes of the entry at `at` and the size of the whole entry.
#[inline]
fn split_entry(entries: &[u8], at: usize) -> (&[u8], usize) {
    let first = entries[at];
    let (len, header) = if first < 0x80 { (first as usize, 1) } else { long_length(entries, at) };
    let front = header + len;
    (&entries[at + header..at + front], front + varint_size(front))
}

#[cold]
fn long_length(entries: &[u8], at: usize) -> (usize, usize) {
    let mut len = 0;
    for (i, &byte) in entries[at..].iter().take(5).enumerate() {
        len |= ((byte & 0x7f) as usize) << (7 * i);
        if byte < 0x80 {
            return (len, i + 1);
        }
    }
    unreachable!("a length field ends within five bytes")
}

/// The size of the entry that ends before offset `at`.
#[inline]
fn size_of_entry_before(entries: &[u8], at: usize) -> usize {
    let mut front = 0;
    let mut size = 0;
    loop {
        let byte = entries[at - 1 - size];
        front |= ((byte & 0x7f) as usize) << (7 * size);
        size += 1;
        if byte < 0x80 {
            return front + size;
        }
    }
}

fn write_entry(target: &mut [u8], len: usize, parts: &[&[u8]]) {
    let mut at = 0;
    let mut rest = len;
    while rest >= 0x80 {
        target[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    target[at] = rest as u8;
    at += 1;
    for part in parts {
        target[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    // The low bits come last; every byte but the one read last says that more precede it.
    let front = at;
    let mut rest = front;
    for place in (at..target.len()).rev() {
        let more = if place > at { 0x80 } else { 0 };
        target[place] = (rest & 0x7f) as u8 | more;
        rest >>= 7;
    }
    debug_assert_eq!(rest, 0);
}

/// Iterator over all entries, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    entries: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.entries.is_empty() {
            return None;
        }
        let (bytes, size) = split_entry(self.entries, 0);
        self.entries = &self.entries[size..];
        self.left -= 1;
        Some(bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    fn next_back(&mut self) -> Option<&'a [u8]> {
        if self.entries.is_empty() {
            return None;
        }
        let at = self.entries.len() - size_of_entry_before(self.entries, self.entries.len());
        let (bytes, _) = split_entry(self.entries, at);
        self.entries = &self.entries[..at];
        self.left -= 1;
        Some(bytes)
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Iterator over entries from a position on; their number is not known.
#[derive(Clone, Default)]
pub struct Entries<'a> {
    entries: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.entries.is_empty() {
            return None;
        }
        let (bytes, size) = split_entry(self.entries, 0);
        self.entries = &self.entries[size..];
        Some(bytes)
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

//! `Table<T>`: a hash table for pointer-sized values, the keyspace's and the collections' one.
//!
//! Buckets are cache lines: seven slots, a byte of hash (the tag) for each, and a byte that says
//! which slots are taken and whether the last slot is a link to an overflow bucket. A lookup
//! compares seven tags at once and follows only pointers whose tag agrees, so a miss touches about
//! one line and a hit two. The layout follows Valkey's hashtable of 2024.
//!
//! Growing and shrinking are incremental: the new array stands beside the old one and every insert
//! or removal moves a few old buckets, so no single operation pays for the table.
//! Moving needs hashes of stored values: operations that may move take a `hasher`, which must
//! give for every stored value the hash it was inserted with.
//!
//! The table uses the low bits of a hash for the bucket and the top eight for the tag. An empty
//! table owns no memory. Overflow chains are kept canonical: every bucket of a chain but the last
//! is full, and an overflow bucket holds at least two values.
//!
//! It knows nothing of what `T` points to. `find` takes `&self` and moves nothing, so shared
//! readers are fine.
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::bucket::{
    Bucket, CHAINED, FULL, SLOTS, Space, bits, bucket_word, chain_len, for_each_in_chain,
    nth_in_chain, prefetch, tag_of, taken_slots,
};
use crate::random::below;
use crate::size_class::class_size;

/// Old buckets moved by every insert or removal while the table grows.
const STEPS_PER_WRITE: usize = 2;
/// The same while it shrinks: the old buckets are nearly empty then, and there are many for the
/// new array, which must not fill up before they are done.
const STEPS_PER_WRITE_SHRINKING: usize = 16;
/// Empty old buckets that a step may skip for free.
const EMPTY_SKIPS_PER_STEP: usize = 16;
/// Values per bucket at which a table grows: above the seven slots, because a chain for one bucket
/// in two costs less memory than twice the buckets, and few lookups reach it.
const LOAD_MAX: usize = 8;
/// A table shrinks when less than one slot in this many is taken.
const SHRINK_FACTOR: usize = 8;

/// A hash table of values as wide as a pointer. See the module's text.
pub struct Table<T> {
    main: Space<T>,
    /// While the size changes: the array being emptied. Its buckets below `moved` are empty.
    old: Space<T>,
    moved: usize,
    len: usize,
    overflow_buckets: usize,
    owns: PhantomData<T>,
}

// SAFETY: the table owns its values and its buckets; the raw pointers are not shared.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: methods taking `&self` only read.
unsafe impl<T: Sync> Sync for Table<T> {}

/// Asks for what the values with the tag of `hash` in one bucket point to; false if there are none.
///
/// # Safety
/// `bucket` points to a live bucket.
#[inline]
unsafe fn prefetch_candidates<T>(bucket: *const Bucket<T>, hash: u64) -> bool {
    // SAFETY: live by contract; candidates are taken slots.
    unsafe {
        let candidates = Bucket::candidates(bucket, tag_of(hash));
        for slot in bits(candidates) {
            prefetch(bucket_word(bucket, slot));
        }
        candidates != 0
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    /// An empty table; allocates nothing.
    pub const fn new() -> Self {
        const {
            assert!(size_of::<T>() == size_of::<*const ()>(), "a slot is as wide as a pointer");
            assert!(align_of::<T>() <= align_of::<*const ()>());
        }
        Table {
            main: Space::NONE,
            old: Space::NONE,
            moved: 0,
            len: 0,
            overflow_buckets: 0,
            owns: PhantomData,
        }
    }

    /// A table that takes `count` values without growing.
    pub fn with_capacity(count: usize) -> Self {
        let mut table = Self::new();
        if count > 0 {
            table.main = Space::allocate(log2_for(count));
        }
        table
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the table is between two sizes.
    #[inline]
    pub fn is_rehashing(&self) -> bool {
        self.old.buckets.is_some()
    }

    /// Buckets of the (new) array and of the old one while rehashing.
    pub fn bucket_counts(&self) -> (usize, usize) {
        (self.main.bucket_count(), self.old.bucket_count())
    }

    /// Bytes allocated for buckets; what the values point to is not counted.
    pub fn memory_bytes(&self) -> usize {
        let array = |space: &Space<T>| class_size(space.bucket_count() * size_of::<Bucket<T>>());
        array(&self.main) + array(&self.old) + self.overflow_buckets * size_of::<Bucket<T>>()
    }

    /// Asks the processor to load the bucket of `hash`; worth it when other work comes between.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        for space in [&self.main, &self.old] {
            if let Some(bucket) = space.bucket(hash) {
                prefetch(bucket);
            }
        }
    }

    /// Asks the processor to load what the values with the tag of `hash` point to. It reads the
    /// bucket, which [`prefetch`](Self::prefetch) should have asked for before. True when nothing
    /// in it agrees but the chain goes on: its next bucket is asked for then, to be looked at by
    /// [`prefetch_chained_values`](Self::prefetch_chained_values).
    #[inline]
    pub fn prefetch_values(&self, hash: u64) -> bool {
        let mut goes_on = false;
        for space in [&self.main, &self.old] {
            let Some(bucket) = space.bucket(hash) else { continue };
            // SAFETY: the bucket is in an array of this table.
            if unsafe { prefetch_candidates(bucket, hash) } {
                return false;
            }
            // SAFETY: as above.
            if let Some(next) = unsafe { Bucket::next(bucket) } {
                prefetch(next);
                goes_on = true;
            }
        }
        goes_on
    }

    /// As [`prefetch_values`](Self::prefetch_values), for the second bucket of each chain.
    #[inline]
    pub fn prefetch_chained_values(&self, hash: u64) {
        for space in [&self.main, &self.old] {
            let Some(bucket) = space.bucket(hash) else { continue };
            // SAFETY: the bucket is in an array of this table, the next one linked from it.
            unsafe {
                if let Some(next) = Bucket::next(bucket) {
                    prefetch_candidates(next, hash);
                }
            }
        }
    }

    /// A value whose tag agrees with `hash`, in the first bucket of its chain: most likely the one
    /// with this hash, if there is any. For hints only.
    #[inline]
    pub fn likely(&self, hash: u64) -> Option<&T> {
        let bucket = self.main.bucket(hash)?;
        // SAFETY: the bucket is in the array of this table; candidates are taken slots.
        unsafe {
            let candidates = Bucket::candidates(bucket, tag_of(hash));
            (candidates != 0).then(|| Bucket::item(bucket, candidates.trailing_zeros() as usize))
        }
    }

    /// The bucket and slot of the value with this hash for which `eq` holds.
    #[inline]
    fn locate(&self, hash: u64, mut eq: impl FnMut(&T) -> bool) -> Option<Place<T>> {
        let tag = tag_of(hash);
        for space in [&self.main, &self.old] {
            let first = space.bucket(hash)?;
            let mut bucket = first;
            loop {
                // SAFETY: `bucket` is in an array of this table or linked from one; candidates are
                // taken slots, and nothing changes while `&self` is held.
                unsafe {
                    let mut candidates = Bucket::candidates(bucket, tag);
                    while candidates != 0 {
                        let slot = candidates.trailing_zeros() as usize;
                        if eq(Bucket::item(bucket, slot)) {
                            return Some(Place { first, bucket, slot });
                        }
                        candidates &= candidates - 1;
                    }
                    match Bucket::next(bucket) {
                        Some(next) => bucket = next,
                        None => break,
                    }
                }
            }
        }
        None
    }

    /// The value with this hash for which `eq` holds.
    #[inline]
    pub fn find(&self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&T> {
        // SAFETY: `locate` names a taken slot; the reference borrows `self`.
        self.locate(hash, eq).map(|place| unsafe { Bucket::item(place.bucket, place.slot) })
    }

    /// As [`find`](Self::find), to change the value in place; its hash must stay the same.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, eq: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.locate(hash, eq).map(|place| {
            // SAFETY: `locate` names a taken slot and `self` is borrowed exclusively.
            unsafe { &mut *(&raw mut (*place.bucket).slots[place.slot].item).cast::<T>() }
        })
    }

    /// Adds a value that is known to be absent. Amortised O(1), and O(1) in the worst case but for
    /// the allocation of the next array.
    pub fn insert_unique(&mut self, hash: u64, value: T, hasher: impl Fn(&T) -> u64) -> &mut T {
        if self.is_rehashing() {
            self.rehash_step(self.steps_per_write(), &hasher);
        } else if self.len >= self.main.bucket_count() * LOAD_MAX {
            self.start_resize(log2_for(self.len + 1));
        }
        self.len += 1;
        let (bucket, slot) = self.place(hash, value);
        // SAFETY: `place` has just written this slot, and `self` is borrowed exclusively.
        unsafe { &mut *(&raw mut (*bucket).slots[slot].item).cast::<T>() }
    }

    /// Puts `value` in the place of the value with this hash for which `eq` holds, or adds it.
    /// Returns the value replaced.
    pub fn replace(
        &mut self,
        hash: u64,
        value: T,
        eq: impl FnMut(&T) -> bool,
        hasher: impl Fn(&T) -> u64,
    ) -> Option<T> {
        match self.find_mut(hash, eq) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => {
                self.insert_unique(hash, value, hasher);
                None
            }
        }
    }

    /// Takes out the value with this hash for which `eq` holds.
    pub fn remove(
        &mut self,
        hash: u64,
        eq: impl FnMut(&T) -> bool,
        hasher: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let place = self.locate(hash, eq)?;
        let value = self.vacate(place);
        self.len -= 1;
        if self.len == 0 {
            self.release();
        } else if self.is_rehashing() {
            self.rehash_step(self.steps_per_write(), &hasher);
        } else {
            self.shrink_if_sparse();
        }
        Some(value)
    }

    /// Makes room for `additional` more values ahead of their insertion.
    pub fn reserve(&mut self, additional: usize) {
        let log2 = log2_for(self.len + additional);
        if self.main.buckets.is_none() {
            self.main = Space::allocate(log2);
        } else if !self.is_rehashing() && log2 > self.main.log2 {
            self.start_resize(log2);
        }
    }

    /// Moves up to `buckets` old buckets to the new array. True while there is more to move.
    /// Writes do this by themselves; an idle server may call it to finish early.
    pub fn rehash_step(&mut self, buckets: usize, hasher: impl Fn(&T) -> u64) -> bool {
        let old_count = self.old.bucket_count();
        if old_count == 0 {
            return false;
        }
        let mut skips = buckets * EMPTY_SKIPS_PER_STEP;
        let mut steps = buckets;
        while steps > 0 && self.moved < old_count {
            let bucket = self.old.bucket(self.moved as u64).expect("rehashing has an old array");
            // SAFETY: an index below the bucket count names a live bucket.
            if unsafe { (*bucket).presence } == 0 {
                if skips == 0 {
                    break;
                }
                skips -= 1;
            } else {
                self.move_chain(bucket, &hasher);
                steps -= 1;
            }
            self.moved += 1;
        }
        if self.moved < old_count {
            return true;
        }
        std::mem::replace(&mut self.old, Space::NONE).free();
        self.moved = 0;
        false
    }

    /// Drops every value and frees the buckets.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes every value out, in no order, and frees the buckets.
    pub fn drain(&mut self, mut each: impl FnMut(T)) {
        let mut emptied = std::mem::take(self);
        emptied.take_all(&mut each);
    }

    /// Visits a part of the table and returns the cursor of the next part; 0 begins and 0 ends.
    ///
    /// A value that is in the table from the first call to the last is visited at least once,
    /// whatever is inserted, removed or rehashed between the calls; a value may be visited twice.
    /// The cursor counts bucket numbers with their bits reversed, so that the buckets that one
    /// bucket splits into (or that merge into one) are neighbours in the order.
    pub fn scan<'a>(&'a self, cursor: u64, mut visit: impl FnMut(&'a T)) -> u64 {
        if self.len == 0 {
            return 0;
        }
        let mut each = |space: &Space<T>, index: u64| {
            if let Some(bucket) = space.bucket(index) {
                // SAFETY: a live chain of this table; visited values live while `self` is borrowed.
                unsafe {
                    for_each_in_chain(bucket, |bucket, slot| visit(Bucket::item(bucket, slot)))
                }
            }
        };
        if !self.is_rehashing() {
            each(&self.main, cursor);
            return next_cursor(cursor, self.main.mask());
        }
        let (small, large) = if self.main.log2 < self.old.log2 {
            (&self.main, &self.old)
        } else {
            (&self.old, &self.main)
        };
        each(small, cursor);
        let mut cursor = cursor;
        loop {
            each(large, cursor);
            cursor = next_cursor(cursor, large.mask());
            if cursor & (small.mask() ^ large.mask()) == 0 {
                return cursor;
            }
        }
    }

    /// A value chosen with (nearly) equal chances: a bucket and a place in its chain are drawn
    /// until they hit; values beyond the sixteenth of one chain share the chances of the sixteen.
    pub fn random(&self, rng: &mut impl FnMut() -> u64) -> Option<&T> {
        const PLACES: usize = 16;
        const DRAWS: usize = 256;
        if self.len == 0 {
            return None;
        }
        let buckets = self.chain_count();
        for _ in 0..DRAWS {
            let chain = self.numbered_bucket(below(rng, buckets));
            // SAFETY: a live chain of this table.
            let taken = unsafe { chain_len(chain) };
            let mut place = below(rng, PLACES);
            if place < taken {
                if taken > PLACES {
                    place = below(rng, taken);
                }
                // SAFETY: as above, and `place` is below the number of values of the chain.
                return unsafe { nth_in_chain(chain, place) };
            }
        }
        // A very sparse table: take the first value after a random bucket.
        let mut found = None;
        self.sample(1, rng, |value| found = Some(value));
        found
    }

    /// Visits up to `count` values that lie together, from a random bucket on: cheap and good
    /// enough for eviction. Fewer are visited if a stretch of the table is empty.
    pub fn sample<'a>(
        &'a self,
        count: usize,
        rng: &mut impl FnMut() -> u64,
        mut visit: impl FnMut(&'a T),
    ) {
        if self.len == 0 || count == 0 {
            return;
        }
        let buckets = self.chain_count();
        let start = below(rng, buckets);
        let mut left = count.min(self.len);
        let enough_steps = if count == 1 { buckets } else { buckets.min(count * 64) };
        for step in 0..enough_steps {
            let chain = self.numbered_bucket((start + step) % buckets);
            // SAFETY: a live chain of this table; values live while `self` is borrowed.
            unsafe {
                for_each_in_chain(chain, |bucket, slot| {
                    if left > 0 {
                        left -= 1;
                        visit(Bucket::item(bucket, slot));
                    }
                });
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Every value once, in no order.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { table: self, next_bucket: 0, bucket: ptr::null(), slots: 0, left: self.len }
    }

    /// The chain with this number among those that may hold values: the new array's first, then
    /// what is left of the old one.
    fn numbered_bucket(&self, number: usize) -> *mut Bucket<T> {
        let main = self.main.bucket_count();
        let bucket = if number < main {
            self.main.bucket(number as u64)
        } else {
            self.old.bucket((number - main + self.moved) as u64)
        };
        bucket.expect("numbers are below the count of buckets")
    }

    fn steps_per_write(&self) -> usize {
        if self.old.log2 > self.main.log2 { STEPS_PER_WRITE_SHRINKING } else { STEPS_PER_WRITE }
    }

    /// Chains that may hold values.
    fn chain_count(&self) -> usize {
        self.main.bucket_count() + self.old.bucket_count() - self.moved
    }

    /// Writes a value into the chain of its hash in the main array.
    fn place(&mut self, hash: u64, value: T) -> (*mut Bucket<T>, usize) {
        let tag = tag_of(hash);
        let mut bucket = self.main.bucket(hash).expect("an insert allocates first");
        // SAFETY: `bucket` walks a live chain of this table, exclusively borrowed. Free slots are
        // read off the presence byte; a new overflow bucket takes over the last slot's value
        // before that slot becomes the link.
        unsafe {
            while let Some(next) = Bucket::next(bucket) {
                bucket = next;
            }
            let presence = (*bucket).presence;
            if presence != FULL {
                let slot = (!presence).trailing_zeros() as usize;
                Bucket::put(bucket, slot, tag, value);
                return (bucket, slot);
            }
            let overflow = Space::<T>::allocate(0).buckets.expect("just allocated").as_ptr();
            self.overflow_buckets += 1;
            let last_tag = (*bucket).tags[SLOTS - 1];
            let last = Bucket::take(bucket, SLOTS - 1);
            Bucket::put(overflow, 0, last_tag, last);
            Bucket::put(overflow, 1, tag, value);
            (*bucket).slots[SLOTS - 1].next = overflow;
            (*bucket).presence |= CHAINED;
            (overflow, 1)
        }
    }

    /// Takes a value out and closes the hole from the end of the chain.
    fn vacate(&mut self, place: Place<T>) -> T {
        // SAFETY: the place was located under this exclusive borrow: its bucket is live and the
        // slot taken. `last` and `before` walk the same chain.
        unsafe {
            let value = Bucket::take(place.bucket, place.slot);
            let mut before = ptr::null_mut();
            let mut last = place.first;
            while let Some(next) = Bucket::next(last) {
                before = last;
                last = next;
            }
            if before.is_null() {
                return value;
            }
            if last != place.bucket {
                let slot = taken_slots((*last).presence).trailing_zeros() as usize;
                let tag = (*last).tags[slot];
                let moved = Bucket::take(last, slot);
                Bucket::put(place.bucket, place.slot, tag, moved);
            }
            let taken = taken_slots((*last).presence);
            if taken.count_ones() <= 1 {
                (*before).presence &= !CHAINED;
                if taken != 0 {
                    let slot = taken.trailing_zeros() as usize;
                    let tag = (*last).tags[slot];
                    let moved = Bucket::take(last, slot);
                    Bucket::put(before, SLOTS - 1, tag, moved);
                }
                self.free_overflow(last);
            }
            value
        }
    }

    /// # Safety
    /// `bucket` is an overflow bucket of this table, emptied and no longer linked.
    unsafe fn free_overflow(&mut self, bucket: *mut Bucket<T>) {
        self.overflow_buckets -= 1;
        Space { buckets: NonNull::new(bucket), log2: 0 }.free();
    }

    /// Moves the values of an old chain to the main array.
    fn move_chain(&mut self, first: *mut Bucket<T>, hasher: &impl Fn(&T) -> u64) {
        let mut bucket = first;
        loop {
            // SAFETY: `bucket` walks a live chain of the old array. Each value is hashed by
            // reference and only then taken; links are read before their bucket is freed. A
            // panicking hasher leaves the rest of the chain in place or leaks it.
            unsafe {
                let mut taken = taken_slots((*bucket).presence);
                for slot in bits(taken) {
                    prefetch(bucket_word(bucket, slot));
                }
                while taken != 0 {
                    let slot = taken.trailing_zeros() as usize;
                    let hash = hasher(Bucket::item(bucket, slot));
                    let value = Bucket::take(bucket, slot);
                    self.place(hash, value);
                    taken &= taken - 1;
                }
                let next = Bucket::next(bucket);
                (*bucket).presence = 0;
                if bucket != first {
                    self.free_overflow(bucket);
                }
                match next {
                    Some(next) => bucket = next,
                    None => return,
                }
            }
        }
    }

    fn start_resize(&mut self, log2: u8) {
        if self.main.buckets.is_none() {
            self.main = Space::allocate(log2);
        } else if log2 != self.main.log2 {
            self.old = std::mem::replace(&mut self.main, Space::allocate(log2));
            self.moved = 0;
        }
    }

    fn shrink_if_sparse(&mut self) {
        if self.main.log2 > 0 && self.len * SHRINK_FACTOR < self.main.bucket_count() * SLOTS {
            // Half full after the change, so that neither direction is near again.
            self.start_resize(log2_for(self.len * 2).min(self.main.log2 - 1));
        }
    }

    /// Frees all buckets of a table without values.
    fn release(&mut self) {
        debug_assert_eq!(self.overflow_buckets, 0);
        std::mem::replace(&mut self.main, Space::NONE).free();
        std::mem::replace(&mut self.old, Space::NONE).free();
        self.moved = 0;
    }

    /// Moves every value out and frees everything.
    fn take_all(&mut self, each: &mut impl FnMut(T)) {
        for number in 0..self.chain_count() {
            let first = self.numbered_bucket(number);
            let mut bucket = first;
            loop {
                // SAFETY: `bucket` walks a live chain; taken values have no other owner, links are
                // read before their bucket is freed.
                unsafe {
                    let mut taken = taken_slots((*bucket).presence);
                    while taken != 0 {
                        each(Bucket::take(bucket, taken.trailing_zeros() as usize));
                        self.len -= 1;
                        taken &= taken - 1;
                    }
                    let next = Bucket::next(bucket);
                    (*bucket).presence = 0;
                    if bucket != first {
                        self.free_overflow(bucket);
                    }
                    match next {
                        Some(next) => bucket = next,
                        None => break,
                    }
                }
            }
        }
        self.release();
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        self.take_all(&mut drop);
    }
}

struct Place<T> {
    first: *mut Bucket<T>,
    bucket: *mut Bucket<T>,
    slot: usize,
}

/// Index bits of an array for `count` values.
fn log2_for(count: usize) -> u8 {
    count.div_ceil(LOAD_MAX).next_power_of_two().trailing_zeros() as u8
}

fn next_cursor(cursor: u64, mask: u64) -> u64 {
    (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits()
}

/// Iterator of [`Table::iter`].
pub struct Iter<'a, T> {
    table: &'a Table<T>,
    next_bucket: usize,
    bucket: *const Bucket<T>,
    slots: u8,
    left: usize,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        if self.left == 0 {
            return None;
        }
        while self.slots == 0 {
            let next = if self.bucket.is_null() {
                None
            } else {
                // SAFETY: once set, `bucket` is a live bucket of the borrowed table.
                unsafe { Bucket::next(self.bucket) }
            };
            self.bucket = next.unwrap_or_else(|| {
                let bucket = self.table.numbered_bucket(self.next_bucket);
                self.next_bucket += 1;
                bucket
            });
            // SAFETY: as above.
            self.slots = taken_slots(unsafe { (*self.bucket).presence });
        }
        let slot = self.slots.trailing_zeros() as usize;
        self.slots &= self.slots - 1;
        self.left -= 1;
        // SAFETY: a taken slot of a live bucket, borrowed with the table.
        Some(unsafe { Bucket::item(self.bucket, slot) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T> IntoIterator for &'a Table<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_bits() {
        assert_eq!(log2_for(0), 0);
        assert_eq!(log2_for(8), 0);
        assert_eq!(log2_for(9), 1);
        assert_eq!(log2_for(16), 1);
        assert_eq!(log2_for(17), 2);
        assert_eq!(log2_for(1000), 7);
    }
}

//! `Table<T>`: a hash table for pointer-sized values, the keyspace's and the collections' one.
//!
//! Buckets are cache lines: seven slots, a byte of hash (the tag) for each, and a byte that says
//! which slots are taken and whether the last slot is a link to an overflow bucket. A lookup
//! compares seven tags at once and follows only pointers whose tag agrees, so a miss touches about
//! one line and a hit two. The layout follows Valkey's hashtable of 2024.
//!
//! Growing and shrinking are incremental: the new array stands beside the old one and every insert
//! or removal moves [`STEPS_PER_WRITE`] old buckets, so no single operation pays for the table.
//! Moving needs hashes of stored values: operations that may move take a `hasher`, which must
//! give for every stored value the hash it was inserted with.
//!
//! The table uses the low bits of a hash for the bucket and the top eight for the tag. An empty
//! table owns no memory. Overflow chains are kept canonical: every bucket of a chain but the last
//! is full, and an overflow bucket holds at least two values.
//!
//! It knows nothing of what `T` points to. `find` takes `&self` and moves nothing, so shared
//! readers are fine.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::random::below;
use crate::size_class::class_size;

/// Slots of a bucket.
const SLOTS: usize = 7;
/// Flag in `presence`: the last slot links to an overflow bucket.
const CHAINED: u8 = 0x80;
/// All slots taken, no link.
const FULL: u8 = 0x7f;
/// Old buckets moved by every insert or removal while the table changes size.
const STEPS_PER_WRITE: usize = 2;
/// Empty old buckets that a step may skip for free.
const EMPTY_SKIPS_PER_STEP: usize = 16;
/// A table shrinks when less than one slot in this many is taken.
const SHRINK_FACTOR: usize = 8;

union Slot<T> {
    item: std::mem::ManuallyDrop<MaybeUninit<T>>,
    next: *mut Bucket<T>,
}

#[repr(C, align(64))]
struct Bucket<T> {
    /// Bit i: slot i holds a value. Bit 7: [`CHAINED`]. All zero is the empty bucket.
    presence: u8,
    tags: [u8; SLOTS],
    slots: [Slot<T>; SLOTS],
}

/// One array of buckets; `log2` is the number of index bits.
struct Space<T> {
    buckets: Option<NonNull<Bucket<T>>>,
    log2: u8,
}

impl<T> Clone for Space<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Space<T> {}

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

impl<T> Space<T> {
    const NONE: Space<T> = Space { buckets: None, log2: 0 };

    fn layout(log2: u8) -> Layout {
        Layout::array::<Bucket<T>>(1 << log2).expect("bucket count fits the address space")
    }

    fn allocate(log2: u8) -> Space<T> {
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
    fn free(self) {
        if let Some(buckets) = self.buckets {
            // SAFETY: allocated by `allocate` with this layout, and freed once: the owner replaces
            // its copy of the space when it calls this.
            unsafe { dealloc(buckets.as_ptr().cast(), Self::layout(self.log2)) }
        }
    }

    fn bucket_count(&self) -> usize {
        if self.buckets.is_some() { 1 << self.log2 } else { 0 }
    }

    fn mask(&self) -> u64 {
        (1u64 << self.log2) - 1
    }

    /// The first bucket of the chain that `index` (masked here) names.
    #[inline]
    fn bucket(&self, index: u64) -> Option<*mut Bucket<T>> {
        // SAFETY: the masked index is below the number of buckets allocated.
        self.buckets.map(|buckets| unsafe { buckets.as_ptr().add((index & self.mask()) as usize) })
    }
}

#[inline]
fn tag_of(hash: u64) -> u8 {
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
    unsafe fn candidates(bucket: *const Bucket<T>, tag: u8) -> u8 {
        // SAFETY: live by contract; the first eight bytes are presence and tags, all initialised,
        // and the bucket is aligned to 64.
        let word = u64::from_le(unsafe { bucket.cast::<u64>().read() });
        let taken = taken_slots(word as u8);
        matching_tags(word, tag) & taken
    }

    /// # Safety
    /// `bucket` points to a live bucket.
    #[inline]
    unsafe fn next(bucket: *const Bucket<T>) -> Option<*mut Bucket<T>> {
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
    unsafe fn item<'a>(bucket: *const Bucket<T>, slot: usize) -> &'a T {
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
    unsafe fn put(bucket: *mut Bucket<T>, slot: usize, tag: u8, value: T) {
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
    unsafe fn take(bucket: *mut Bucket<T>, slot: usize) -> T {
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
fn taken_slots(presence: u8) -> u8 {
    // The last slot of a chained bucket is a link, and its presence bit is clear then.
    presence & FULL
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
        if let Some(bucket) = self.main.bucket(hash) {
            prefetch(bucket.cast());
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
            self.rehash_step(STEPS_PER_WRITE, &hasher);
        } else if self.len >= self.main.bucket_count() * SLOTS {
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
            self.rehash_step(STEPS_PER_WRITE, &hasher);
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
        let buckets = self.main.bucket_count() + self.old.bucket_count() - self.moved;
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
        let buckets = self.main.bucket_count() + self.old.bucket_count() - self.moved;
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
    count.div_ceil(SLOTS).next_power_of_two().trailing_zeros() as u8
}

fn next_cursor(cursor: u64, mask: u64) -> u64 {
    (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits()
}

#[inline]
fn prefetch(address: *const u8) {
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
unsafe fn bucket_word<T>(bucket: *const Bucket<T>, slot: usize) -> *const u8 {
    // SAFETY: a taken slot holds a T, which is as wide as a pointer; the result is only a hint.
    unsafe { (&raw const (*bucket).slots[slot]).cast::<*const u8>().read() }
}

fn bits(mask: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |bit| mask & (1 << bit) != 0)
}

/// # Safety
/// `bucket` begins a live chain that nobody changes meanwhile.
unsafe fn for_each_in_chain<T>(
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
unsafe fn chain_len<T>(bucket: *const Bucket<T>) -> usize {
    let mut taken = 0;
    // SAFETY: passed on.
    unsafe { for_each_in_chain(bucket, |_, _| taken += 1) };
    taken
}

/// # Safety
/// `bucket` begins a live chain that nobody changes while the reference lives.
unsafe fn nth_in_chain<'a, T>(bucket: *const Bucket<T>, nth: usize) -> Option<&'a T> {
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

    #[test]
    fn capacity_bits() {
        assert_eq!(log2_for(0), 0);
        assert_eq!(log2_for(7), 0);
        assert_eq!(log2_for(8), 1);
        assert_eq!(log2_for(14), 1);
        assert_eq!(log2_for(15), 2);
        assert_eq!(log2_for(1000), 8);
    }
}

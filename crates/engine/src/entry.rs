//! One key and its value in one allocation, behind one thin pointer.
//!
//! Layout, all parts in this order (source: `docs/ARCHITECTURE.md`, "Entry"):
//!
//! | part | bytes | there when |
//! |---|---|---|
//! | header: access clock and kind, key length | 8 | always |
//! | expiry, Unix ms, `NO_EXPIRY` = none | 8 | `EXPIRY` flag |
//! | payload: `i64`, `u32` length, `Vec<u8>` or [`Collection`] | 8, 4, 24, 16 | by kind |
//! | key | key length | always |
//! | value bytes | value length | inline strings |
//!
//! The allocation is rounded up to 16 bytes, so a new value whose rounded size is the same is
//! written in place. Knows nothing of tables, locks or policies; the shard is its only owner.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::mem::{ManuallyDrop, size_of};
use std::ptr::{NonNull, copy_nonoverlapping};

use data::{Encoding, Hash, Json, List, Set, Stream, Zset};

/// Longest string value kept inside the entry, in bytes.
const INLINE_BYTES_MAX: usize = 1024;
/// Longest string that Redis reports as `embstr`, in bytes.
const EMBSTR_BYTES_MAX: usize = 44;
const NO_EXPIRY: i64 = i64::MIN;
/// Nodes of a document that are counted to tell whether it is freed elsewhere.
const FREE_EFFORT_MAX: usize = 1024;

const KIND_MASK: u32 = 0b11;
const KIND_INT: u32 = 0;
const KIND_INLINE: u32 = 1;
const KIND_HEAP: u32 = 2;
const KIND_COLLECTION: u32 = 3;
const EXPIRY: u32 = 1 << 2;
/// The string was edited in place (APPEND, SETRANGE, SETBIT): Redis calls that `raw`.
const RAW: u32 = 1 << 3;
/// Which snapshot the entry was saved for, or is too new for: see `snapshot.rs`.
pub(crate) const EPOCH: u32 = 1 << 4;
const ACCESS_SHIFT: u32 = 8;

#[repr(C)]
struct Header {
    /// Bits 0-1 kind, 2 expiry slot, 3 raw, 4 epoch, 8-31 access clock.
    bits: Cell<u32>,
    key_bytes: u32,
}

/// A value that is not a string.
#[derive(Clone)]
pub enum Collection {
    List(List),
    Set(Set),
    Hash(Hash),
    Zset(Zset),
    Stream(Stream),
    Json(Json),
}

/// A whole value on its way into or out of the keyspace.
pub enum Value {
    Int(i64),
    /// Stored as they are, even where they spell an integer.
    Bytes(Vec<u8>),
    Collection(Collection),
}

impl From<Collection> for Value {
    fn from(collection: Collection) -> Self {
        Value::Collection(collection)
    }
}

/// A string value as stored: a canonical integer or its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Str<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

/// A borrowed value.
#[derive(Clone, Copy)]
pub enum ValueRef<'a> {
    Str(Str<'a>),
    List(&'a List),
    Set(&'a Set),
    Hash(&'a Hash),
    Zset(&'a Zset),
    Stream(&'a Stream),
    Json(&'a Json),
}

/// Type names as TYPE answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    String,
    List,
    Set,
    Zset,
    Hash,
    Stream,
    Json,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Set => "set",
            Type::Zset => "zset",
            Type::Hash => "hash",
            Type::Stream => "stream",
            // What RedisJSON calls its type.
            Type::Json => "ReJSON-RL",
        }
    }
}

/// Owning thin pointer to an entry. Not shared between threads: the shard's lock guards it.
#[repr(transparent)]
pub struct Entry(NonNull<Header>);

// SAFETY: an entry owns all it points to and has no thread affinity; the shard lock (or the
// exclusive gate) orders every access, including those through the `Cell` in the header.
unsafe impl Send for Entry {}

/// What a new entry's payload is made from.
enum Payload<'a> {
    Int(i64),
    Inline(&'a [u8]),
    Heap(Vec<u8>),
    Collection(Collection),
}

fn rounded(bytes: usize) -> usize {
    (bytes + 15) & !15
}

/// A canonical integer, the only kind of string stored as a number.
#[inline]
fn canonical_int(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [b'-' | b'0'..=b'9', ..] if bytes.len() <= 20 => data::number::parse_i64(bytes),
        _ => None,
    }
}

impl Entry {
    pub fn string(key: &[u8], value: &[u8], expire_at_ms: Option<i64>) -> Entry {
        match canonical_int(value) {
            Some(n) => Entry::build(key, Payload::Int(n), expire_at_ms, 0),
            None if value.len() <= INLINE_BYTES_MAX => {
                Entry::build(key, Payload::Inline(value), expire_at_ms, 0)
            }
            None => Entry::build(key, Payload::Heap(value.to_vec()), expire_at_ms, 0),
        }
    }

    pub fn value(key: &[u8], value: Value, expire_at_ms: Option<i64>) -> Entry {
        match value {
            Value::Int(n) => Entry::build(key, Payload::Int(n), expire_at_ms, 0),
            Value::Bytes(bytes) if bytes.len() <= INLINE_BYTES_MAX => {
                Entry::build(key, Payload::Inline(&bytes), expire_at_ms, 0)
            }
            Value::Bytes(bytes) => Entry::build(key, Payload::Heap(bytes), expire_at_ms, 0),
            Value::Collection(c) => Entry::build(key, Payload::Collection(c), expire_at_ms, 0),
        }
    }

    /// A string that counts as edited in place, which Redis calls `raw` whatever its length.
    pub fn raw_string(key: &[u8], value: Vec<u8>, expire_at_ms: Option<i64>) -> Entry {
        let payload = match value.len() {
            0..=INLINE_BYTES_MAX => Payload::Inline(&value),
            _ => Payload::Heap(value),
        };
        let entry = Entry::build(key, payload, expire_at_ms, 0);
        entry.header().bits.set(entry.header().bits.get() | RAW);
        entry
    }

    /// The same value, expiry and access clock under another key. O(1) beside copying the key
    /// and an inline value.
    pub fn renamed(self, key: &[u8]) -> Entry {
        let mut old = ManuallyDrop::new(self);
        let (expire, access) = (old.expire_at_ms(), old.access());
        let raw = old.header().bits.get() & RAW;
        let payload = match old.take_payload() {
            Taken::Int(n) => Payload::Int(n),
            Taken::Inline => {
                let Str::Bytes(bytes) = old.inline() else { unreachable!("inline is bytes") };
                Payload::Inline(bytes)
            }
            Taken::Heap(bytes) => Payload::Heap(bytes),
            Taken::Collection(c) => Payload::Collection(c),
        };
        let fresh = Entry::build(key, payload, expire, access);
        fresh.header().bits.set(fresh.header().bits.get() | raw);
        ManuallyDrop::into_inner(old).free_memory();
        fresh
    }

    /// A copy of the value under another key, with the same expiry and a fresh access clock.
    /// O(size of the value).
    pub fn duplicate(&self, key: &[u8]) -> Entry {
        let expire = self.expire_at_ms();
        let fresh = match (self.get(), self.collection()) {
            (_, Some(collection)) => {
                Entry::build(key, Payload::Collection(collection.clone()), expire, 0)
            }
            (ValueRef::Str(Str::Int(n)), _) => Entry::build(key, Payload::Int(n), expire, 0),
            (ValueRef::Str(Str::Bytes(bytes)), _) if bytes.len() <= INLINE_BYTES_MAX => {
                Entry::build(key, Payload::Inline(bytes), expire, 0)
            }
            (ValueRef::Str(Str::Bytes(bytes)), _) => {
                Entry::build(key, Payload::Heap(bytes.to_vec()), expire, 0)
            }
            _ => unreachable!("what is not a string is a collection"),
        };
        let raw = self.header().bits.get() & RAW;
        fresh.header().bits.set(fresh.header().bits.get() | raw);
        fresh
    }

    fn payload_bytes(kind: u32) -> usize {
        match kind {
            KIND_INT => size_of::<i64>(),
            KIND_INLINE => size_of::<u32>(),
            KIND_HEAP => size_of::<Vec<u8>>(),
            _ => size_of::<Collection>(),
        }
    }

    fn build(key: &[u8], payload: Payload<'_>, expire_at_ms: Option<i64>, access: u32) -> Entry {
        let (kind, tail) = match &payload {
            Payload::Int(_) => (KIND_INT, 0),
            Payload::Inline(bytes) => (KIND_INLINE, bytes.len()),
            Payload::Heap(_) => (KIND_HEAP, 0),
            Payload::Collection(_) => (KIND_COLLECTION, 0),
        };
        let slot = if expire_at_ms.is_some() { size_of::<i64>() } else { 0 };
        let total = size_of::<Header>() + slot + Entry::payload_bytes(kind) + key.len() + tail;
        let layout = Layout::from_size_align(rounded(total), 8).expect("entry size overflows");
        let mut bits = kind | (access << ACCESS_SHIFT);
        if expire_at_ms.is_some() {
            bits |= EXPIRY;
        }
        // SAFETY: the layout is not empty; every write below stays inside `total` bytes and the
        // header, expiry and payload offsets are multiples of 8.
        unsafe {
            let Some(base) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            let header = base.cast::<Header>();
            header.write(Header { bits: Cell::new(bits), key_bytes: key.len() as u32 });
            let mut at = base.as_ptr().add(size_of::<Header>());
            if let Some(when) = expire_at_ms {
                at.cast::<i64>().write(when);
                at = at.add(size_of::<i64>());
            }
            let key_at = at.add(Entry::payload_bytes(kind));
            match payload {
                Payload::Int(n) => at.cast::<i64>().write(n),
                Payload::Inline(bytes) => {
                    at.cast::<u32>().write(bytes.len() as u32);
                    copy_nonoverlapping(bytes.as_ptr(), key_at.add(key.len()), bytes.len());
                }
                Payload::Heap(bytes) => at.cast::<Vec<u8>>().write(bytes),
                Payload::Collection(c) => at.cast::<Collection>().write(c),
            }
            copy_nonoverlapping(key.as_ptr(), key_at, key.len());
            Entry(header)
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: the pointer is valid for as long as `self` owns the allocation.
        unsafe { self.0.as_ref() }
    }

    fn kind(&self) -> u32 {
        self.header().bits.get() & KIND_MASK
    }

    fn has_slot(&self) -> bool {
        self.header().bits.get() & EXPIRY != 0
    }

    fn slot_at(&self) -> *mut i64 {
        // SAFETY: the header is followed by at least 4 more bytes of the same allocation; callers
        // use the result only where `has_slot` says the expiry is there.
        unsafe { self.0.as_ptr().add(1).cast::<i64>() }
    }

    fn payload_at(&self) -> *mut u8 {
        let skip = if self.has_slot() { size_of::<i64>() } else { 0 };
        // SAFETY: the payload follows the header and the optional expiry.
        unsafe { self.0.as_ptr().add(1).cast::<u8>().add(skip) }
    }

    fn key_at(&self) -> *mut u8 {
        // SAFETY: the key follows the payload, whose size the kind gives.
        unsafe { self.payload_at().add(Entry::payload_bytes(self.kind())) }
    }

    fn inline_bytes(&self) -> usize {
        // SAFETY: called for inline strings only, whose payload is a `u32` length.
        unsafe { self.payload_at().cast::<u32>().read() as usize }
    }

    fn total_bytes(&self) -> usize {
        let tail = if self.kind() == KIND_INLINE { self.inline_bytes() } else { 0 };
        let skip = if self.has_slot() { size_of::<i64>() } else { 0 };
        size_of::<Header>()
            + skip
            + Entry::payload_bytes(self.kind())
            + self.header().key_bytes as usize
            + tail
    }

    pub fn key(&self) -> &[u8] {
        // SAFETY: `build` wrote `key_bytes` bytes there.
        unsafe { std::slice::from_raw_parts(self.key_at(), self.header().key_bytes as usize) }
    }

    /// Expiry, Unix time in ms.
    pub fn expire_at_ms(&self) -> Option<i64> {
        if !self.has_slot() {
            return None;
        }
        // SAFETY: the slot is there.
        let when = unsafe { self.slot_at().read() };
        (when != NO_EXPIRY).then_some(when)
    }

    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expire_at_ms().is_some_and(|when| when <= now_ms)
    }

    /// Sets or clears the expiry; reallocates (the pointer changes) when there is no slot for it.
    pub fn set_expire(&mut self, expire_at_ms: Option<i64>) {
        if self.has_slot() {
            // SAFETY: the slot is there and `&mut self` makes us its only user.
            unsafe { self.slot_at().write(expire_at_ms.unwrap_or(NO_EXPIRY)) };
            return;
        }
        let Some(when) = expire_at_ms else { return };
        let kept = self.header().bits.get() & (RAW | EPOCH);
        let access = self.access();
        let payload = self.take_payload();
        let mut inline = [0u8; INLINE_BYTES_MAX];
        let payload = match payload {
            Taken::Int(n) => Payload::Int(n),
            Taken::Inline => {
                let Str::Bytes(bytes) = self.inline() else { unreachable!("inline is bytes") };
                inline[..bytes.len()].copy_from_slice(bytes);
                Payload::Inline(&inline[..bytes.len()])
            }
            Taken::Heap(bytes) => Payload::Heap(bytes),
            Taken::Collection(c) => Payload::Collection(c),
        };
        let fresh = Entry::build(self.key(), payload, Some(when), access);
        fresh.header().bits.set(fresh.header().bits.get() | kept);
        let old = std::mem::replace(self, fresh);
        old.free_memory();
    }

    /// The access clock: 24 bits whose meaning (LRU seconds or LFU) belongs to the engine.
    pub fn access(&self) -> u32 {
        self.header().bits.get() >> ACCESS_SHIFT
    }

    pub fn set_access(&self, access: u32) {
        let low = self.header().bits.get() & ((1 << ACCESS_SHIFT) - 1);
        self.header().bits.set(low | (access << ACCESS_SHIFT));
    }

    /// The snapshot it was saved for or is too new for: [`EPOCH`] or nothing.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.header().bits.get() & EPOCH
    }

    #[inline]
    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.header().bits.set(self.header().bits.get() & !EPOCH | epoch);
    }

    fn inline(&self) -> Str<'_> {
        // SAFETY: an inline value follows the key.
        unsafe {
            let at = self.key_at().add(self.header().key_bytes as usize);
            Str::Bytes(std::slice::from_raw_parts(at, self.inline_bytes()))
        }
    }

    pub fn get(&self) -> ValueRef<'_> {
        // SAFETY: the kind says which payload was written, and it lives as long as `self`.
        unsafe {
            match self.kind() {
                KIND_INT => ValueRef::Str(Str::Int(self.payload_at().cast::<i64>().read())),
                KIND_INLINE => ValueRef::Str(self.inline()),
                KIND_HEAP => ValueRef::Str(Str::Bytes(&*self.payload_at().cast::<Vec<u8>>())),
                _ => match &*self.payload_at().cast::<Collection>() {
                    Collection::List(list) => ValueRef::List(list),
                    Collection::Set(set) => ValueRef::Set(set),
                    Collection::Hash(hash) => ValueRef::Hash(hash),
                    Collection::Zset(zset) => ValueRef::Zset(zset),
                    Collection::Stream(stream) => ValueRef::Stream(stream),
                    Collection::Json(json) => ValueRef::Json(json),
                },
            }
        }
    }

    /// Whether the string was edited in place.
    pub(crate) fn is_raw(&self) -> bool {
        self.header().bits.get() & RAW != 0
    }

    /// The bytes of a string too long to stand in the entry.
    pub(crate) fn heap_bytes(&self) -> Option<&[u8]> {
        // SAFETY: the kind says that a vector was written.
        (self.kind() == KIND_HEAP).then(|| unsafe { &**self.payload_at().cast::<Vec<u8>>() })
    }

    pub fn collection(&self) -> Option<&Collection> {
        // SAFETY: the kind says that a collection was written.
        (self.kind() == KIND_COLLECTION)
            .then(|| unsafe { &*self.payload_at().cast::<Collection>() })
    }

    /// Whether it is a hash of which some fields expire.
    pub fn has_field_times(&self) -> bool {
        matches!(self.collection(), Some(Collection::Hash(hash)) if hash.has_times())
    }

    /// Whether it is a hash with fields whose time has come.
    pub(crate) fn has_due_fields(&self, now_ms: i64) -> bool {
        let Some(Collection::Hash(hash)) = self.collection() else { return false };
        hash.earliest().is_some_and(|(at_ms, _)| at_ms <= now_ms)
    }

    pub fn collection_mut(&mut self) -> Option<&mut Collection> {
        // SAFETY: the kind says that a collection was written; `&mut self` is exclusive.
        (self.kind() == KIND_COLLECTION)
            .then(|| unsafe { &mut *self.payload_at().cast::<Collection>() })
    }

    /// Overwrites a string or integer value when it fits the same allocation and the expiry slot
    /// need not be added. Returns whether it did.
    #[inline]
    pub fn overwrite_string(&mut self, value: &[u8], expire_at_ms: Option<i64>) -> bool {
        let bits = self.header().bits.get();
        let skip = if bits & EXPIRY != 0 { size_of::<i64>() } else { 0 };
        if expire_at_ms.is_some() && skip == 0 {
            return false;
        }
        match (bits & KIND_MASK, canonical_int(value)) {
            (KIND_INT, Some(n)) => self.write_int(n),
            (KIND_INLINE, None) if value.len() <= INLINE_BYTES_MAX => {
                let key_bytes = self.header().key_bytes as usize;
                let fixed = size_of::<Header>() + skip + size_of::<u32>() + key_bytes;
                // SAFETY: an inline string has its length behind the header and the expiry, and
                // behind that the key; the rounded size is the same, so the bytes fit the
                // allocation.
                unsafe {
                    let base = self.0.as_ptr().cast::<u8>();
                    let len = base.add(size_of::<Header>() + skip).cast::<u32>();
                    if rounded(fixed + value.len()) != rounded(fixed + len.read() as usize) {
                        return false;
                    }
                    copy_nonoverlapping(value.as_ptr(), base.add(fixed), value.len());
                    len.write(value.len() as u32);
                }
            }
            _ => return false,
        }
        self.header().bits.set(bits & !RAW);
        if skip != 0 {
            self.set_expire(expire_at_ms);
        }
        true
    }

    /// Replaces the number of an integer string in place.
    pub fn overwrite_int(&mut self, value: i64) -> bool {
        if self.kind() != KIND_INT {
            return false;
        }
        self.write_int(value);
        true
    }

    /// Adds to the number of an integer string in place; `None`, and nothing is changed, if it is
    /// no integer or the sum is none.
    #[inline]
    pub fn add_to_int(&mut self, by: i64) -> Option<i64> {
        if self.kind() != KIND_INT {
            return None;
        }
        // SAFETY: the kind is an integer.
        let sum = unsafe { self.payload_at().cast::<i64>().read() }.checked_add(by)?;
        self.write_int(sum);
        Some(sum)
    }

    fn write_int(&mut self, value: i64) {
        // SAFETY: the kind is an integer and `&mut self` is exclusive.
        unsafe { self.payload_at().cast::<i64>().write(value) };
    }

    /// Turns the string into a growable buffer (the pointer may change), edits it and marks it as
    /// `raw`. Panics on collections: callers check the type first.
    pub fn edit_string<R>(&mut self, edit: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        assert!(self.kind() != KIND_COLLECTION, "edit_string on a collection");
        if self.kind() != KIND_HEAP {
            let mut bytes = match self.get() {
                ValueRef::Str(Str::Int(n)) => n.to_string().into_bytes(),
                ValueRef::Str(Str::Bytes(bytes)) => bytes.to_vec(),
                _ => unreachable!("checked above"),
            };
            let result = edit(&mut bytes);
            let expire = self.expire_at_ms();
            let access = self.access();
            let epoch = self.epoch();
            let fresh = if bytes.len() <= INLINE_BYTES_MAX {
                Entry::build(self.key(), Payload::Inline(&bytes), expire, access)
            } else {
                Entry::build(self.key(), Payload::Heap(bytes), expire, access)
            };
            *self = fresh;
            let bits = self.header().bits.get() | RAW | epoch;
            self.header().bits.set(bits);
            return result;
        }
        let bits = self.header().bits.get() | RAW;
        self.header().bits.set(bits);
        // SAFETY: the kind is a heap string and `&mut self` is exclusive.
        edit(unsafe { &mut *self.payload_at().cast::<Vec<u8>>() })
    }

    pub fn value_type(&self) -> Type {
        match self.get() {
            ValueRef::Str(_) => Type::String,
            ValueRef::List(_) => Type::List,
            ValueRef::Set(_) => Type::Set,
            ValueRef::Hash(_) => Type::Hash,
            ValueRef::Zset(_) => Type::Zset,
            ValueRef::Stream(_) => Type::Stream,
            ValueRef::Json(_) => Type::Json,
        }
    }

    /// The name OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match self.get() {
            ValueRef::Str(Str::Int(_)) => "int",
            ValueRef::Str(Str::Bytes(bytes)) => {
                if self.is_raw() || bytes.len() > EMBSTR_BYTES_MAX {
                    "raw"
                } else {
                    "embstr"
                }
            }
            ValueRef::List(list) => Encoding::name(list.encoding()),
            ValueRef::Set(set) => Encoding::name(set.encoding()),
            ValueRef::Hash(hash) => Encoding::name(hash.encoding()),
            ValueRef::Zset(zset) => Encoding::name(zset.encoding()),
            ValueRef::Stream(stream) => Encoding::name(stream.encoding()),
            // As of all values of modules.
            ValueRef::Json(_) => "raw",
        }
    }

    /// Bytes of this entry and all it owns.
    pub fn memory_bytes(&self) -> usize {
        let value = match self.get() {
            ValueRef::Str(_) if self.kind() == KIND_HEAP => {
                // SAFETY: the kind is a heap string.
                unsafe { (*self.payload_at().cast::<Vec<u8>>()).capacity() }
            }
            ValueRef::Str(_) => 0,
            ValueRef::List(list) => list.memory_bytes(),
            ValueRef::Set(set) => set.memory_bytes(),
            ValueRef::Hash(hash) => hash.memory_bytes(),
            ValueRef::Zset(zset) => zset.memory_bytes(),
            ValueRef::Stream(stream) => stream.memory_bytes(),
            ValueRef::Json(json) => json.memory_bytes(),
        };
        rounded(self.total_bytes()) + value
    }

    /// Elements that freeing this entry has to visit; decides whether it is freed elsewhere.
    pub fn free_effort(&self) -> usize {
        match self.get() {
            ValueRef::Str(_) => 1,
            ValueRef::List(list) => list.len() / 64 + 1,
            ValueRef::Set(set) => set.len(),
            ValueRef::Hash(hash) => hash.len(),
            ValueRef::Zset(zset) => zset.len(),
            ValueRef::Stream(stream) => stream.block_count() + stream.pending_count() + 1,
            ValueRef::Json(json) => json.count_nodes(FREE_EFFORT_MAX),
        }
    }

    /// Moves the payload out. The entry must then only be asked for its key and inline bytes, and
    /// be freed with `free_memory`.
    fn take_payload(&mut self) -> Taken {
        // SAFETY: the kind says what was written; the caller frees without dropping it again.
        unsafe {
            match self.kind() {
                KIND_INT => Taken::Int(self.payload_at().cast::<i64>().read()),
                KIND_INLINE => Taken::Inline,
                KIND_HEAP => Taken::Heap(self.payload_at().cast::<Vec<u8>>().read()),
                _ => Taken::Collection(self.payload_at().cast::<Collection>().read()),
            }
        }
    }

    /// Frees the allocation without dropping the payload.
    fn free_memory(self) {
        let this = ManuallyDrop::new(self);
        let layout = Layout::from_size_align(rounded(this.total_bytes()), 8);
        // SAFETY: `build` allocated with this very layout: in-place writes keep the rounded size.
        unsafe { dealloc(this.0.as_ptr().cast(), layout.unwrap_unchecked()) };
    }

    /// Asks for its memory: the key and what stands beside it.
    pub(crate) fn prefetch(&self) {
        let at = self.0.as_ptr().cast::<u8>().cast_const();
        data::prefetch(at);
        data::prefetch(at.wrapping_add(64));
    }

    /// Address, for the index of keys with an expiry.
    pub(crate) fn address(&self) -> EntryRef {
        EntryRef(self.0)
    }
}

enum Taken {
    Int(i64),
    Inline,
    Heap(Vec<u8>),
    Collection(Collection),
}

impl Drop for Entry {
    fn drop(&mut self) {
        drop(self.take_payload());
        Entry(self.0).free_memory();
    }
}

/// Non-owning pointer to an entry of the same shard.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct EntryRef(NonNull<Header>);

// SAFETY: used only under the lock of the shard that owns the entry.
unsafe impl Send for EntryRef {}

impl EntryRef {
    /// The entry it points to.
    ///
    /// # Safety
    /// The entry must still be in its shard, whose lock the caller holds.
    pub(crate) unsafe fn entry(&self) -> &Entry {
        // SAFETY: `Entry` is a transparent wrapper of the same pointer.
        unsafe { &*std::ptr::from_ref(self).cast::<Entry>() }
    }

    /// The entry it points to, to be changed where it stands.
    ///
    /// # Safety
    /// As `entry`, and nothing else may look at it meanwhile.
    pub(crate) unsafe fn entry_mut(&mut self) -> &mut Entry {
        // SAFETY: `Entry` is a transparent wrapper of the same pointer.
        unsafe { &mut *std::ptr::from_mut(self).cast::<Entry>() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(entry: &Entry) -> Vec<u8> {
        match entry.get() {
            ValueRef::Str(Str::Int(n)) => n.to_string().into_bytes(),
            ValueRef::Str(Str::Bytes(bytes)) => bytes.to_vec(),
            _ => panic!("not a string"),
        }
    }

    #[test]
    fn every_kind_keeps_key_value_and_expiry() {
        for len in [0usize, 1, 7, 16, 44, 45, 1024, 1025, 70_000] {
            let value = vec![b'v'; len];
            let mut entry = Entry::string(b"a key", &value, None);
            assert_eq!((entry.key(), text(&entry)), (&b"a key"[..], value.clone()));
            entry.set_access(77);
            entry.set_expire(Some(5));
            assert_eq!(entry.access(), 77);
            assert_eq!((entry.key(), text(&entry)), (&b"a key"[..], value));
            assert!(entry.is_expired(5) && !entry.is_expired(4));
            entry.set_expire(None);
            assert_eq!(entry.expire_at_ms(), None);
        }
    }

    #[test]
    fn overwrite_in_place_only_when_the_rounded_size_is_kept() {
        let mut entry = Entry::string(b"k", b"0123456789abcdef", None);
        let before = entry.address();
        assert!(entry.overwrite_string(b"fedcba9876543210", None));
        assert!(entry.address() == before);
        assert_eq!(text(&entry), b"fedcba9876543210");
        assert!(!entry.overwrite_string(&[b'x'; 64], None));
        assert!(!entry.overwrite_string(b"12", None));
        assert!(!entry.overwrite_string(b"fedcba9876543210", Some(1)));
    }

    #[test]
    fn editing_makes_raw_and_grows_to_the_heap() {
        let mut entry = Entry::string(b"k", b"12", Some(9));
        assert_eq!(entry.encoding(), "int");
        entry.edit_string(|bytes| bytes.extend_from_slice(b"ab"));
        assert_eq!((text(&entry), entry.encoding()), (b"12ab".to_vec(), "raw"));
        entry.edit_string(|bytes| bytes.resize(5000, 0));
        entry.edit_string(|bytes| bytes.push(1));
        assert_eq!(text(&entry).len(), 5001);
        assert_eq!(entry.expire_at_ms(), Some(9));
    }

    #[test]
    fn renamed_and_duplicated_values_keep_value_expiry_and_encoding() {
        for len in [0usize, 3, 44, 45, 1024, 1025] {
            let mut entry = Entry::string(b"old", &vec![b'v'; len], Some(7));
            entry.set_access(5);
            entry.edit_string(|bytes| bytes.push(b'1'));
            let copy = entry.duplicate(b"a longer key");
            let moved = entry.renamed(b"new");
            for (entry, key) in [(&copy, &b"a longer key"[..]), (&moved, b"new")] {
                assert_eq!((entry.key(), text(entry).len()), (key, len + 1));
                assert_eq!((entry.expire_at_ms(), entry.encoding()), (Some(7), "raw"));
            }
            assert_eq!((moved.access(), copy.access()), (5, 0));
        }
        let number = Entry::string(b"n", b"12", None).renamed(b"m");
        assert_eq!((text(&number), number.encoding()), (b"12".to_vec(), "int"));
    }
}

//! A block: neighbouring entries of a stream in one allocation.
//!
//! The idea is Redis's: most entries of a stream have the same fields, so a block keeps the fields
//! of its first entry once and the others only their values. The bytes are ours:
//!
//! ```text
//! fields   varint(count), then varint(length) and bytes of each
//! entry*   flags: u8, varint(ms - base), varint(zigzag(seq - base)),
//!          SAME:  varint(length) and bytes of each value
//!          else:  varint(count), then field and value in the same form
//!          back   size of all of the entry before it, readable from its end: low seven bits
//!                 last, 0x80 says that more precede
//! ```
//!
//! The base is the id that the stream finds the block by, that of its first entry. An entry that is
//! deleted stays as a tombstone until half of the block are tombstones.

use crate::class_size;
use crate::stream::Id;

const DELETED: u8 = 1;
/// The fields are those of the block.
const SAME: u8 = 2;

/// Entries in one allocation. Knows its base no more than the stream tells it.
#[derive(Clone)]
pub struct Block {
    bytes: Vec<u8>,
    /// Where the entries begin.
    start: u32,
    live: u32,
    /// Deleted since the block was begun; counted among its entries when it is asked whether it
    /// is full.
    deleted: u32,
    /// Those of them that still take room.
    tombstones: u32,
}

/// An entry as it stands in its block.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub id: Id,
    pub fields: Fields<'a>,
}

/// Fields and values of an entry, in their order.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    count: usize,
    /// The block's fields, where the entry has none of its own.
    names: Option<&'a [u8]>,
    rest: &'a [u8],
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    put_number(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let len = take_number(bytes) as usize;
    let (text, rest) = bytes.split_at(len);
    *bytes = rest;
    text
}

/// What a text takes in a block.
fn text_bytes(text: &[u8]) -> usize {
    text.len() + (64 - (text.len() as u64 | 1).leading_zeros() as usize).div_ceil(7)
}

fn zigzag(delta: i64) -> u64 {
    (delta << 1 ^ delta >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// A field and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        self.count = self.count.checked_sub(1)?;
        let field = match &mut self.names {
            Some(names) => take_text(names),
            None => take_text(&mut self.rest),
        };
        Some((field, take_text(&mut self.rest)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Fields<'_> {}

impl Fields<'_> {
    /// Whether these are the fields of the block, in its order.
    pub fn are_those_of_block(&self) -> bool {
        self.names.is_some()
    }
}

impl Block {
    /// An empty block for entries with these fields.
    pub fn new<'p>(fields: impl ExactSizeIterator<Item = Pair<'p>> + Clone) -> Block {
        let room: usize =
            fields.clone().map(|(field, value)| text_bytes(field) + text_bytes(value)).sum();
        let mut bytes = Vec::with_capacity(class_size(room + 24));
        put_number(fields.len() as u64, &mut bytes);
        for (field, _) in fields {
            put_text(field, &mut bytes);
        }
        Block { start: bytes.len() as u32, bytes, live: 0, deleted: 0, tombstones: 0 }
    }

    pub fn live(&self) -> usize {
        self.live as usize
    }

    /// Live entries and those deleted since the block was begun.
    pub fn entries_ever(&self) -> usize {
        self.live as usize + self.deleted as usize
    }

    /// Bytes that are in use.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that were allocated.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The fields of the first entry.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let (count, mut rest) = self.own_fields();
        (0..count).map(move |_| take_text(&mut rest))
    }

    fn own_fields(&self) -> (usize, &[u8]) {
        let mut rest = &self.bytes[..self.start as usize];
        let count = take_number(&mut rest);
        (count as usize, rest)
    }

    fn has_fields<'p>(&self, fields: impl ExactSizeIterator<Item = Pair<'p>>) -> bool {
        let (count, mut rest) = self.own_fields();
        count == fields.len() && fields.into_iter().all(|(field, _)| take_text(&mut rest) == field)
    }

    /// Adds an entry behind the others.
    pub fn push<'p>(
        &mut self,
        base: Id,
        id: Id,
        fields: impl ExactSizeIterator<Item = Pair<'p>> + Clone,
    ) {
        let same = self.has_fields(fields.clone());
        self.put(base, id, same, fields);
    }

    /// Adds an entry with the fields of the block, behind the others. There are as many values.
    pub fn push_same<'p>(
        &mut self,
        base: Id,
        id: Id,
        values: impl ExactSizeIterator<Item = &'p [u8]> + Clone,
    ) {
        self.put(base, id, true, values.map(|value| (&b""[..], value)));
    }

    /// Adds an entry; with the fields of the block, those given do not matter.
    fn put<'p>(
        &mut self,
        base: Id,
        id: Id,
        same: bool,
        fields: impl ExactSizeIterator<Item = Pair<'p>> + Clone,
    ) {
        let names = |field: &[u8]| if same { 0 } else { text_bytes(field) };
        let room: usize =
            fields.clone().map(|(field, value)| names(field) + text_bytes(value)).sum();
        // The rest of an entry: flags, two numbers, a count and the way back.
        self.make_room(room + 32);
        let at = self.bytes.len();
        let out = &mut self.bytes;
        out.push(if same { SAME } else { 0 });
        put_number(id.ms - base.ms, out);
        put_number(zigzag(id.seq.wrapping_sub(base.seq) as i64), out);
        if !same {
            put_number(fields.len() as u64, out);
        }
        for (field, value) in fields {
            if !same {
                put_text(field, out);
            }
            put_text(value, out);
        }
        let size = out.len() - at;
        let groups = (usize::BITS - (size | 1).leading_zeros()).div_ceil(7);
        for group in (0..groups).rev() {
            let more = if group + 1 == groups { 0 } else { 0x80 };
            out.push((size >> (7 * group)) as u8 & 0x7f | more);
        }
        self.live += 1;
    }

    fn make_room(&mut self, more: usize) {
        let need = self.bytes.len() + more;
        if need > self.bytes.capacity() {
            let target = class_size(need.max(self.bytes.len() / 2 * 3));
            self.bytes.reserve_exact(target - self.bytes.len());
        }
    }

    /// Gives back what is allocated and not used; for a block that nothing will be added to.
    pub fn fit(&mut self) {
        self.bytes.shrink_to(class_size(self.bytes.len()));
    }

    /// The first entry at `at` or behind it that is not deleted, where it stands, and where the
    /// next one does.
    fn live_from(&self, base: Id, mut at: usize) -> Option<(Entry<'_>, usize, usize)> {
        while at < self.bytes.len() {
            let (entry, next) = self.entry(base, at);
            if self.bytes[at] & DELETED == 0 {
                return Some((entry, at, next));
            }
            at = next;
        }
        None
    }

    /// The entry at `at`, and where the next one stands.
    fn entry(&self, base: Id, at: usize) -> (Entry<'_>, usize) {
        let mut rest = &self.bytes[at..];
        let flags = rest[0];
        rest = &rest[1..];
        let ms = base.ms + take_number(&mut rest);
        let seq = base.seq.wrapping_add(unzigzag(take_number(&mut rest)) as u64);
        let (count, names) = match flags & SAME {
            0 => (take_number(&mut rest) as usize, None),
            _ => {
                let (count, names) = self.own_fields();
                (count, Some(names))
            }
        };
        let fields = Fields { count, names, rest };
        let mut behind = rest;
        let texts = if names.is_some() { count } else { count * 2 };
        for _ in 0..texts {
            take_text(&mut behind);
        }
        // The way back: its last byte is the one that no other precedes.
        let size = self.bytes.len() - behind.len() - at;
        let groups = (usize::BITS - (size | 1).leading_zeros()).div_ceil(7) as usize;
        (Entry { id: Id { ms, seq }, fields }, at + size + groups)
    }

    /// Where the entry before `at` stands.
    fn before(&self, at: usize) -> Option<usize> {
        if at <= self.start as usize {
            return None;
        }
        let (mut size, mut shift, mut from) = (0, 0, at);
        loop {
            from -= 1;
            let byte = self.bytes[from];
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return Some(from - size);
            }
        }
    }

    pub fn iter(&self, base: Id) -> Iter<'_> {
        Iter { block: self, base, front: self.start as usize, back: self.bytes.len() }
    }

    fn find(&self, base: Id, id: Id) -> Option<usize> {
        let mut at = self.start as usize;
        while let Some((entry, found, next)) = self.live_from(base, at) {
            if entry.id >= id {
                return (entry.id == id).then_some(found);
            }
            at = next;
        }
        None
    }

    pub fn get(&self, base: Id, id: Id) -> Option<Entry<'_>> {
        self.find(base, id).map(|at| self.entry(base, at).0)
    }

    /// Deletes an entry; false if there is none.
    pub fn delete(&mut self, base: Id, id: Id) -> bool {
        let Some(at) = self.find(base, id) else { return false };
        self.bury(at);
        self.sweep(base);
        true
    }

    /// Deletes entries from the first on while `goes` says so.
    pub fn delete_first(&mut self, base: Id, mut goes: impl FnMut(Id) -> bool) {
        let mut at = self.start as usize;
        while let Some((entry, found, next)) = self.live_from(base, at) {
            if !goes(entry.id) {
                break;
            }
            at = next;
            self.bury(found);
        }
        self.sweep(base);
    }

    fn bury(&mut self, at: usize) {
        self.bytes[at] |= DELETED;
        self.live -= 1;
        self.deleted += 1;
        self.tombstones += 1;
    }

    /// Gets rid of the tombstones if they are more than the entries.
    fn sweep(&mut self, base: Id) {
        if self.tombstones <= self.live || self.live == 0 {
            return;
        }
        let mut kept = Vec::with_capacity(self.bytes.len());
        kept.extend_from_slice(&self.bytes[..self.start as usize]);
        let mut at = self.start as usize;
        while let Some((_, found, next)) = self.live_from(base, at) {
            kept.extend_from_slice(&self.bytes[found..next]);
            at = next;
        }
        self.bytes = kept;
        self.tombstones = 0;
        self.fit();
    }
}

/// The live entries of a block, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    block: &'a Block,
    base: Id,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        while self.front < self.back {
            let at = self.front;
            let (entry, next) = self.block.entry(self.base, at);
            self.front = next;
            if self.block.bytes[at] & DELETED == 0 {
                return Some(entry);
            }
        }
        None
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        while self.front < self.back {
            self.back = self.block.before(self.back)?;
            if self.block.bytes[self.back] & DELETED == 0 {
                return Some(self.block.entry(self.base, self.back).0);
            }
        }
        None
    }
}

/// Fields and values as one string of bytes, for [`unpack`].
pub fn pack<'p>(fields: impl ExactSizeIterator<Item = Pair<'p>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_number(fields.len() as u64, &mut bytes);
    for (field, value) in fields {
        put_text(field, &mut bytes);
        put_text(value, &mut bytes);
    }
    bytes
}

/// Reads what [`pack`] has made. Anything else makes it panic.
pub fn unpack(mut bytes: &[u8]) -> Fields<'_> {
    let count = take_number(&mut bytes) as usize;
    Fields { count, names: None, rest: bytes }
}

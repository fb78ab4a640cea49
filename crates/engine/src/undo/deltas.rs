//! What undoes the changes of one large value, change by change.
//!
//! For hashes, sets and sorted sets, and for the blocks of a stream, the first change of a member is
//! all that counts, so the log grows with the members touched and not with the changes. Lists and
//! long strings note places, and consumer groups what each change did, which mean something only in
//! the order of the changes; they are undone backwards.

use ahash::AHashMap;
use data::json::Inverse;
use data::stream::{Block, Head, Id};
use data::{Encoding, End, Limits, List, hash_bytes};
use smallvec::SmallVec;

use crate::entry::{Collection, Entry};
use crate::undo::groups::GroupDelta;

/// Bytes that stand in the log itself.
pub(crate) const SMALL_BYTES: usize = 24;
/// Bytes of a key, a member or a value, most of them short.
pub(crate) type Small = SmallVec<[u8; SMALL_BYTES]>;

/// With more changes than this, members are found by their hash.
const LINEAR_MAX: usize = 8;
/// Changes that memory is kept for.
const KEPT_MAX: usize = 32;
/// Changes of a string that are looked at for one that covers the next.
const COVERING_MAX: usize = 8;
/// The log of one value is first compared with the value itself at this size, bytes.
const CHECK_BYTES_MIN: usize = 64 << 10;

/// The inverse of one change.
pub(crate) enum Delta {
    /// The hash had this value in the field, with this time, or no such field.
    Field { field: Small, old: Option<Small>, at_ms: Option<i64> },
    /// The set had the member, or had it not.
    Member { member: Small, was_there: bool },
    /// The sorted set had the member at this score, or had it not.
    Score { member: Small, old: Option<f64> },
    /// The stream remembered this.
    Head { name: Small, old: Head },
    /// The stream had this block, found by the id in these bytes, or no such block.
    Block { base: Small, old: Option<Box<Block>> },
    /// What a consumer group of the stream was. These mean something only in their order.
    Group(Box<GroupDelta>),
    /// So many elements came to an end of the list.
    Pushed { end: End, count: usize },
    /// The list had this element at the end.
    Popped { end: End, value: Small },
    /// The list had another element at the index.
    Replaced { index: usize, old: Small },
    /// The list had no element there: what stood there, stands behind it now.
    Inserted { index: usize },
    /// The list had these elements from the index on.
    Removed { index: usize, elements: List },
    /// The list had the value at these indexes, which ascend and count each other.
    RemovedEqual { value: Small, indexes: Vec<usize> },
    /// The string had these bytes there.
    Bytes { offset: usize, old: Small },
    /// What takes back an edit of a document.
    Json(Inverse),
}

impl Delta {
    fn member(&self) -> Option<&[u8]> {
        match self {
            Delta::Field { field: member, .. }
            | Delta::Member { member, .. }
            | Delta::Score { member, .. }
            | Delta::Head { name: member, .. }
            | Delta::Block { base: member, .. } => Some(member),
            _ => None,
        }
    }

    fn memory_bytes(&self) -> usize {
        let spilled = |small: &Small| if small.spilled() { small.capacity() } else { 0 };
        let owned = match self {
            Delta::Field { field, old, .. } => spilled(field) + old.as_ref().map_or(0, spilled),
            Delta::Member { member, .. } | Delta::Score { member, .. } => spilled(member),
            Delta::Popped { value, .. } => spilled(value),
            Delta::Replaced { old, .. } | Delta::Bytes { old, .. } => spilled(old),
            Delta::Removed { elements, .. } => elements.memory_bytes(),
            Delta::RemovedEqual { value, indexes } => {
                spilled(value) + indexes.capacity() * size_of::<usize>()
            }
            Delta::Block { old, .. } => {
                old.as_ref().map_or(0, |block| size_of::<Block>() + block.memory_bytes())
            }
            Delta::Group(delta) => delta.memory_bytes(),
            Delta::Json(inverse) => inverse.own_bytes(),
            Delta::Pushed { .. } | Delta::Inserted { .. } | Delta::Head { .. } => 0,
        };
        size_of::<Delta>() + owned
    }
}

/// The inverse of all changes of one value. The value stays where it is.
#[derive(Default)]
pub(crate) struct Deltas {
    /// The expiry before, once that changed.
    pub expire_at_ms: Option<Option<i64>>,
    /// A string's length before.
    text_bytes: usize,
    edits: Vec<Delta>,
    /// Hash of a member to its place among `edits`, once there are many.
    seen: AHashMap<u64, usize>,
    bytes: usize,
    check_at_bytes: usize,
}

impl Deltas {
    /// Those of another value: a string of so many bytes, or a collection.
    pub fn begin(&mut self, expire_at_ms: Option<Option<i64>>, text_bytes: usize) {
        debug_assert!(self.edits.is_empty() && self.seen.is_empty());
        (self.expire_at_ms, self.text_bytes) = (expire_at_ms, text_bytes);
        (self.bytes, self.check_at_bytes) = (0, CHECK_BYTES_MIN);
    }

    /// Forgets them. Answers whether the memory is little enough to be kept.
    pub fn clear(&mut self) -> bool {
        self.edits.clear();
        if !self.seen.is_empty() {
            self.seen.clear();
        }
        self.edits.capacity().max(self.seen.capacity()) <= KEPT_MAX
    }

    /// Whether what a member was is noted already; then later changes of it need not be.
    #[inline]
    pub fn covers(&self, member: &[u8]) -> bool {
        if self.edits.len() <= LINEAR_MAX {
            return self.edits.iter().any(|edit| edit.member() == Some(member));
        }
        let at = self.seen.get(&hash_bytes(member));
        at.is_some_and(|&at| self.edits[at].member() == Some(member))
    }

    /// Notes a change; answers the bytes it takes.
    pub fn note(&mut self, delta: Delta) -> usize {
        let mut bytes = delta.memory_bytes();
        let is_member = delta.member().is_some();
        self.edits.push(delta);
        if is_member && self.edits.len() > LINEAR_MAX {
            let unseen = if self.seen.is_empty() { 0 } else { self.edits.len() - 1 };
            for at in unseen..self.edits.len() {
                // Those of consumer groups have none.
                let Some(member) = self.edits[at].member() else { continue };
                // Two members of one hash: the second is noted anew at each change.
                self.seen.entry(hash_bytes(member)).or_insert(at);
            }
            bytes += 2 * size_of::<(u64, usize)>();
        }
        self.bytes += bytes;
        bytes
    }

    /// Notes that an element came to an end of the list.
    pub fn note_push(&mut self, end: End) -> usize {
        match self.edits.last_mut() {
            Some(Delta::Pushed { end: last, count }) if *last == end => {
                *count += 1;
                0
            }
            _ => self.note(Delta::Pushed { end, count: 1 }),
        }
    }

    /// Notes that an element goes from an end of the list.
    pub fn note_pop(&mut self, end: End, value: &[u8]) -> usize {
        match self.edits.last_mut() {
            Some(Delta::Pushed { end: last, count }) if *last == end => {
                *count -= 1;
                if *count == 0 {
                    self.edits.pop();
                }
                0
            }
            _ => self.note(Delta::Popped { end, value: Small::from_slice(value) }),
        }
    }

    /// Notes an edit of a document.
    pub fn note_json(&mut self, inverse: Inverse) -> usize {
        if let Some(Delta::Json(last)) = self.edits.last_mut()
            && last.covers(&inverse)
        {
            return 0;
        }
        // What moved here was there before, but it tells how the log compares with the document.
        self.bytes += inverse.moved_bytes();
        self.note(Delta::Json(inverse))
    }

    /// Notes that the bytes of a string from `start` to `end` are about to be overwritten. What
    /// lies behind the string's length before will be cut off anyhow.
    pub fn note_bytes(&mut self, text: &[u8], start: usize, end: usize) -> usize {
        let end = end.min(self.text_bytes).min(text.len());
        if start >= end {
            return 0;
        }
        let mut latest = self.edits.iter().rev().take(COVERING_MAX);
        let covered = latest.any(|edit| match edit {
            Delta::Bytes { offset, old } => *offset <= start && end <= offset + old.len(),
            _ => false,
        });
        if covered {
            return 0;
        }
        self.note(Delta::Bytes { offset: start, old: Small::from_slice(&text[start..end]) })
    }

    /// Whether undoing from a copy takes less memory than these changes do: `Some` with a copy of
    /// the value as it was. Asks only when the log has doubled, so the copies cost no more than
    /// the changes did.
    #[inline]
    pub fn outgrown(&mut self, entry: &Entry, limits: &Limits) -> Option<Entry> {
        if self.bytes < self.check_at_bytes { None } else { self.outgrown_now(entry, limits) }
    }

    fn outgrown_now(&mut self, entry: &Entry, limits: &Limits) -> Option<Entry> {
        self.check_at_bytes = self.bytes * 2;
        let key = entry.key();
        let mut copy = match entry.collection() {
            None if self.bytes > self.text_bytes => {
                let text = entry.heap_bytes().expect("only long strings have deltas");
                Entry::raw_string(key, text[..self.text_bytes].to_vec(), entry.expire_at_ms())
            }
            Some(Collection::List(list)) if self.bytes > list.memory_bytes() => {
                entry.duplicate(key)
            }
            Some(Collection::Stream(stream)) if self.bytes > stream.memory_bytes() => {
                entry.duplicate(key)
            }
            Some(Collection::Json(json)) if self.bytes > json.memory_bytes() => {
                entry.duplicate(key)
            }
            _ => return None,
        };
        std::mem::take(self).undo(&mut copy, limits);
        Some(copy)
    }

    /// Makes the value what it was, expiry included. The entry must not be in a table if the
    /// expiry changed.
    pub fn undo(mut self, entry: &mut Entry, limits: &Limits) {
        if let Some(when) = self.expire_at_ms.take() {
            entry.set_expire(when);
        }
        match entry.collection_mut() {
            None => entry.edit_string(|bytes| {
                // It may have become shorter; all of it was noted then.
                bytes.resize(bytes.len().max(self.text_bytes), 0);
                for edit in self.edits.into_iter().rev() {
                    let Delta::Bytes { offset, old } = edit else { unreachable!("a string") };
                    bytes[offset..offset + old.len()].copy_from_slice(&old);
                }
                bytes.truncate(self.text_bytes);
            }),
            Some(collection) => {
                for edit in self.edits.into_iter().rev() {
                    edit.undo(collection, limits);
                }
                if let Collection::List(list) = collection
                    && list.encoding() != Encoding::Quicklist
                {
                    list.make_blocks();
                }
            }
        }
    }
}

impl Delta {
    fn undo(self, collection: &mut Collection, limits: &Limits) {
        match (self, collection) {
            (Delta::Field { field, old: Some(old), at_ms }, Collection::Hash(hash)) => {
                hash.set(&field, &old, limits);
                hash.set_time(&field, at_ms);
            }
            (Delta::Field { field, old: None, .. }, Collection::Hash(hash)) => {
                hash.remove(&field);
            }
            (Delta::Member { member, was_there: true }, Collection::Set(set)) => {
                set.add(&member, limits);
            }
            (Delta::Member { member, was_there: false }, Collection::Set(set)) => {
                set.remove(&member);
            }
            (Delta::Score { member, old: Some(old) }, Collection::Zset(zset)) => {
                zset.insert(&member, old, limits);
            }
            (Delta::Score { member, old: None }, Collection::Zset(zset)) => {
                zset.remove(&member);
            }
            (Delta::Head { old, .. }, Collection::Stream(stream)) => stream.set_head(old),
            (Delta::Block { base, old }, Collection::Stream(stream)) => {
                let base = base.as_slice().try_into().expect("an id is sixteen bytes");
                stream.restore_block(Id::from_bytes(base), old.map(|block| *block));
            }
            (Delta::Group(delta), Collection::Stream(stream)) => delta.undo(stream),
            (Delta::Json(inverse), Collection::Json(json)) => json.undo(inverse),
            (delta, Collection::List(list)) => delta.undo_in_list(list, limits),
            _ => unreachable!("a value with deltas keeps its type"),
        }
    }

    fn undo_in_list(self, list: &mut List, limits: &Limits) {
        match self {
            Delta::Pushed { end, count } => {
                let len = list.len();
                let range = match end {
                    End::Head => 0..count,
                    End::Tail => len - count..len,
                };
                list.remove_range(range, limits);
            }
            Delta::Popped { end, value } => list.push(end, &value, limits),
            Delta::Replaced { index, old } => {
                list.set(index as i64, &old, limits);
            }
            Delta::Inserted { index } => {
                list.remove_at(index, limits);
            }
            Delta::Removed { index: 0, elements } => {
                elements.iter().rev().for_each(|value| list.push_front(value, limits));
            }
            Delta::Removed { index, elements } => {
                let behind = index == list.len();
                for (step, value) in elements.iter().enumerate() {
                    match behind {
                        true => list.push_back(value, limits),
                        false => list.insert(index + step, value, limits),
                    }
                }
            }
            Delta::RemovedEqual { value, indexes } => {
                indexes.into_iter().for_each(|index| list.insert(index, &value, limits));
            }
            _ => unreachable!("a change of a list"),
        }
    }
}

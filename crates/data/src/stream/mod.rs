//! `Stream`: an append-only sequence of entries, each with an id and fields, and consumer groups.
//!
//! Entries stand in blocks of some KB ([`Block`]), found by the id of their first entry in an
//! ordered map, so adding and trimming cost next to nothing, and anything else one search and a
//! walk through a block. A stream may be empty and still be there: its ids go on ascending.

mod block;
mod group;
mod id;
mod references;
mod trim;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::{Bound, RangeInclusive};

pub use block::{Block, Entry, Fields, Pair, pack, unpack};
pub use group::{Consumer, Group, Pending, RemovedConsumer};
pub use id::{Id, Seq, Text, Written};
pub use references::{References, Taken};
pub use trim::{Step, Strategy, Trim};

use crate::{Encoding, Limits};

/// No block grows beyond this, whatever the configuration says; a single entry may.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Counts do not go beyond what a command takes.
pub const COUNT_MAX: u64 = i64::MAX as u64;
/// Longest entry, bytes of fields and values; that of Redis.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// A stream; the handle is 8 bytes.
#[derive(Clone)]
pub struct Stream(Box<Body>);

#[derive(Clone)]
struct Body {
    blocks: BTreeMap<Id, Block>,
    len: u64,
    head: Head,
    groups: BTreeMap<Box<[u8]>, Group>,
    /// Allocated by the blocks.
    block_bytes: usize,
}

/// What a stream remembers of entries that need not be there any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last id that was given; all that come are larger.
    pub last_id: Id,
    /// The largest id that was deleted by itself; trimming does not count.
    pub max_deleted_id: Id,
    /// Entries that were ever added.
    pub entries_added: u64,
}

/// One more, as far as commands can say it.
fn counted(count: u64) -> u64 {
    count.saturating_add(1).min(COUNT_MAX)
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

impl Stream {
    pub fn new() -> Stream {
        Stream(Box::new(Body {
            blocks: BTreeMap::new(),
            len: 0,
            head: Head::default(),
            groups: BTreeMap::new(),
            block_bytes: 0,
        }))
    }

    /// Number of entries. O(1).
    pub fn len(&self) -> usize {
        self.0.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    pub fn encoding(&self) -> Encoding {
        Encoding::Stream
    }

    /// Room that it takes, about. O(number of consumers).
    pub fn memory_bytes(&self) -> usize {
        const BLOCK_BYTES: usize = (size_of::<Id>() + size_of::<Block>()) * 2;
        const GROUP_BYTES: usize = (size_of::<Group>() + size_of::<Box<[u8]>>()) * 2;
        let groups = self.0.groups.iter();
        let group_bytes: usize = groups
            .map(|(name, group)| crate::class_size(name.len()) + GROUP_BYTES + group.memory_bytes())
            .sum();
        crate::class_size(size_of::<Body>())
            + self.0.block_bytes
            + self.0.blocks.len() * BLOCK_BYTES
            + group_bytes
    }

    /// Whether a copy of it is soon made: one block, and little pending.
    pub fn is_small(&self) -> bool {
        const SMALL_BYTES: usize = 8 << 10;
        const SMALL_COUNT: usize = 64;
        let body = &self.0;
        let parts = |group: &Group| 1 + group.consumers().len() + group.pending_count();
        body.blocks.len() <= 1
            && body.block_bytes <= SMALL_BYTES
            && body.groups.len() <= SMALL_COUNT
            && body.groups.values().map(parts).sum::<usize>() <= SMALL_COUNT
    }

    /// What is pending in all groups.
    pub fn pending_count(&self) -> usize {
        self.0.groups.values().map(Group::pending_count).sum()
    }

    pub fn head(&self) -> Head {
        self.0.head
    }

    pub fn set_head(&mut self, head: Head) {
        self.0.head = head;
    }

    pub fn last_id(&self) -> Id {
        self.0.head.last_id
    }

    /// The first entry that is there; 0-0 if there is none.
    pub fn first_id(&self) -> Id {
        self.iter().next().map_or(Id::MIN, |entry| entry.id)
    }

    /// The last entry that is there; 0-0 if there is none.
    pub fn last_entry_id(&self) -> Id {
        self.iter().next_back().map_or(Id::MIN, |entry| entry.id)
    }

    /// Adds an entry, whose id must be larger than the last.
    pub fn add<'p>(
        &mut self,
        id: Id,
        fields: impl ExactSizeIterator<Item = Pair<'p>> + Clone,
        limits: &Limits,
    ) {
        let body = &mut *self.0;
        debug_assert!(id > body.head.last_id || body.head.last_id == Id::MIN);
        let text_bytes: usize =
            fields.clone().map(|(field, value)| field.len() + value.len()).sum();
        let bytes_max = match limits.stream_node_max_bytes {
            0 => BLOCK_BYTES_MAX,
            bytes => bytes.min(BLOCK_BYTES_MAX),
        };
        let entries_max = limits.stream_node_max_entries;
        let is_full = |block: &Block| {
            block.len_bytes() + text_bytes >= bytes_max
                || entries_max > 0 && block.entries_ever() >= entries_max
        };
        let mut last = body.blocks.last_entry();
        if let Some(block) = last.as_mut().map(btree_map::OccupiedEntry::get_mut)
            && is_full(block)
        {
            body.block_bytes -= block.memory_bytes();
            block.fit();
            body.block_bytes += block.memory_bytes();
            last = None;
        }
        match last {
            Some(mut last) => {
                let base = *last.key();
                let block = last.get_mut();
                body.block_bytes -= block.memory_bytes();
                block.push(base, id, fields);
                body.block_bytes += block.memory_bytes();
            }
            None => {
                let mut block = Block::new(fields.clone());
                block.push(id, id, fields);
                body.block_bytes += block.memory_bytes();
                body.blocks.insert(id, block);
            }
        }
        body.len += 1;
        body.head.entries_added = counted(body.head.entries_added);
        body.head.last_id = id;
    }

    /// Adds a block whose base is larger than the last id; one without entries is dropped.
    pub fn add_block(&mut self, base: Id, mut block: Block) {
        let Some(last) = block.iter(base).next_back().map(|entry| entry.id) else { return };
        let body = &mut *self.0;
        debug_assert!(base > body.head.last_id || body.head.last_id == Id::MIN);
        block.fit();
        body.block_bytes += block.memory_bytes();
        body.len += block.live() as u64;
        body.head.entries_added += block.live() as u64;
        body.head.last_id = last;
        body.blocks.insert(base, block);
    }

    /// The block that has the entry if there is one.
    fn block_of(&self, id: Id) -> Option<(Id, &Block)> {
        self.0.blocks.range(..=id).next_back().map(|(base, block)| (*base, block))
    }

    /// The id that the block of an entry is found by; that of an entry to be added if the block
    /// is to be new.
    pub fn base_of(&self, id: Id) -> Id {
        self.block_of(id).map_or(id, |(base, _)| base)
    }

    pub fn get(&self, id: Id) -> Option<Entry<'_>> {
        let (base, block) = self.block_of(id)?;
        block.get(base, id)
    }

    pub fn contains(&self, id: Id) -> bool {
        self.get(id).is_some()
    }

    pub fn first_block(&self) -> Option<(Id, &Block)> {
        self.0.blocks.first_key_value().map(|(base, block)| (*base, block))
    }

    pub fn block_count(&self) -> usize {
        self.0.blocks.len()
    }

    pub fn block(&self, base: Id) -> Option<&Block> {
        self.0.blocks.get(&base)
    }

    /// The first block whose base is behind this id, or the first of all.
    pub fn block_behind(&self, base: Option<Id>) -> Option<(Id, &Block)> {
        let from = base.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.blocks.range((from, Bound::Unbounded)).next().map(|(base, block)| (*base, block))
    }

    /// All entries, from both ends.
    pub fn iter(&self) -> Iter<'_> {
        Iter { blocks: self.0.blocks.range(..), front: None, back: None, ids: Id::MIN..=Id::MAX }
    }

    /// The entries of a range of ids, from both ends.
    pub fn range(&self, ids: RangeInclusive<Id>) -> Iter<'_> {
        if ids.is_empty() {
            let nothing = self.0.blocks.range((Bound::Excluded(Id::MAX), Bound::Unbounded));
            return Iter { blocks: nothing, front: None, back: None, ids };
        }
        let from = self.base_of(*ids.start()).min(*ids.start());
        let blocks = self.0.blocks.range(from..=*ids.end());
        Iter { blocks, front: None, back: None, ids }
    }

    /// Takes out the block found by this id.
    pub fn take_block(&mut self, base: Id) -> Option<Block> {
        let block = self.0.blocks.remove(&base)?;
        self.0.block_bytes -= block.memory_bytes();
        self.0.len -= block.live() as u64;
        Some(block)
    }

    /// Makes the block found by this id what it was, or not there.
    pub fn restore_block(&mut self, base: Id, was: Option<Block>) {
        drop(self.take_block(base));
        if let Some(block) = was {
            self.0.block_bytes += block.memory_bytes();
            self.0.len += block.live() as u64;
            self.0.blocks.insert(base, block);
        }
    }

    /// Changes a block; one without entries goes.
    fn edit_block(&mut self, base: Id, edit: impl FnOnce(&mut Block)) {
        let body = &mut *self.0;
        let Some(block) = body.blocks.get_mut(&base) else { return };
        let before = (block.live(), block.memory_bytes());
        edit(block);
        body.len -= (before.0 - block.live()) as u64;
        body.block_bytes = body.block_bytes - before.1 + block.memory_bytes();
        if block.live() == 0 {
            drop(self.take_block(base));
        }
    }

    /// Deletes an entry, which is remembered as deleted; false if there is none.
    pub fn delete(&mut self, id: Id) -> bool {
        let len = self.len();
        let base = self.base_of(id);
        self.edit_block(base, |block| {
            block.delete(base, id);
        });
        let deleted = self.len() < len;
        if deleted {
            let head = &mut self.0.head;
            head.max_deleted_id = head.max_deleted_id.max(id);
        }
        deleted
    }

    /// Does the next step of a trim; false when there is nothing left to do.
    pub fn trim_step(&mut self, trim: &Trim, step: Step) -> bool {
        let Some((base, _)) = self.first_block() else { return false };
        match step {
            Step::Nothing => false,
            Step::Block(_) => {
                drop(self.take_block(base));
                true
            }
            Step::Entries => {
                let mut len = self.0.len;
                self.edit_block(base, |block| {
                    block.delete_first(base, |id| {
                        let goes = trim.takes(id, len);
                        len -= u64::from(goes);
                        goes
                    });
                });
                false
            }
        }
    }

    /// Trims; answers how many entries went.
    pub fn trim(&mut self, trim: &Trim) -> u64 {
        let before = self.0.len;
        while self.trim_step(trim, trim.step(self, before - self.0.len)) {}
        before - self.0.len
    }

    /// Groups in the order of their names.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.0.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// The first group whose name is behind this one, or the first of all.
    pub fn group_behind(&self, name: Option<&[u8]>) -> Option<(&[u8], &Group)> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.0.groups.range::<[u8], _>((from, Bound::Unbounded));
        behind.next().map(|(name, group)| (&**name, group))
    }

    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.0.groups.get(name)
    }

    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.0.groups.get_mut(name)
    }

    /// Adds a group, or replaces it; answers the one before.
    pub fn put_group(&mut self, name: &[u8], group: Group) -> Option<Group> {
        self.0.groups.insert(name.into(), group)
    }

    pub fn remove_group(&mut self, name: &[u8]) -> Option<Group> {
        self.0.groups.remove(name)
    }

    /// Whether deleted entries may lie behind this id.
    pub fn has_gaps_behind(&self, id: Id) -> bool {
        let deleted = self.0.head.max_deleted_id;
        !self.is_empty() && deleted != Id::MIN && id <= deleted
    }

    /// How many entries were ever added up to this id; `None` where that cannot be known.
    pub fn added_up_to(&self, id: Id) -> Option<u64> {
        let Head { last_id, max_deleted_id, entries_added } = self.0.head;
        if entries_added == 0 {
            return Some(0);
        }
        if self.is_empty() && id <= last_id {
            return Some(entries_added);
        }
        if id != Id::MIN && id < max_deleted_id {
            return None;
        }
        if id >= last_id {
            return (id == last_id).then_some(entries_added);
        }
        let first = self.first_id();
        if max_deleted_id != Id::MIN && max_deleted_id >= first || id > first {
            return None;
        }
        let before_first = entries_added.saturating_sub(self.0.len);
        Some(before_first + u64::from(id == first))
    }

    /// How many entries a group has still to read; `None` where that cannot be known.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let Head { max_deleted_id, entries_added, .. } = self.0.head;
        if entries_added == 0 || self.is_empty() {
            return Some(0);
        }
        let first = self.first_id();
        if group.last_id < first && max_deleted_id < first {
            return Some(self.0.len as i64);
        }
        let read = match group.entries_read {
            Some(read) if !self.has_gaps_behind(group.last_id) => read,
            _ => self.added_up_to(group.last_id)?,
        };
        Some((entries_added as i64).wrapping_sub(read as i64))
    }

    /// How many entries a group has read once it has read this one, when it stood at `last_id`
    /// before and had read so many.
    pub fn read_by(&self, last_id: Id, read: Option<u64>, id: Id) -> Option<u64> {
        match read {
            Some(read) if !self.has_gaps_behind(last_id) => Some(counted(read)),
            known if self.0.head.entries_added == 0 => known,
            _ => self.added_up_to(id),
        }
    }

    /// Whether an entry is still needed by a group: it was not delivered to it yet, or is pending.
    pub fn is_referenced(&self, id: Id) -> bool {
        self.0.groups.values().any(|group| group.last_id < id || group.get(id).is_some())
    }
}

/// Entries of a stream, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    blocks: btree_map::Range<'a, Id, Block>,
    front: Option<block::Iter<'a>>,
    back: Option<block::Iter<'a>>,
    ids: RangeInclusive<Id>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let Some(block) = &mut self.front else {
                self.front = match self.blocks.next() {
                    Some((base, block)) => Some(block.iter(*base)),
                    None => Some(self.back.take()?),
                };
                continue;
            };
            match block.next() {
                None => self.front = None,
                Some(entry) if entry.id < *self.ids.start() => {}
                Some(entry) if entry.id > *self.ids.end() => return None,
                Some(entry) => return Some(entry),
            }
        }
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let Some(block) = &mut self.back else {
                self.back = match self.blocks.next_back() {
                    Some((base, block)) => Some(block.iter(*base)),
                    None => Some(self.front.take()?),
                };
                continue;
            };
            match block.next_back() {
                None => self.back = None,
                Some(entry) if entry.id > *self.ids.end() => {}
                Some(entry) if entry.id < *self.ids.start() => return None,
                Some(entry) => return Some(entry),
            }
        }
    }
}

//! `List`: a small list is one listpack, a large one a deque of listpack blocks.
//!
//! `list-max-listpack-size` bounds a block: in entries if positive, in bytes (4 to 64 KB) if
//! negative; an element beyond the bound has a block of its own. A list starts as a single
//! listpack, becomes a deque when it would exceed one block, and goes back when what is left
//! fits half a block, as Redis 7.2 does.
//!
//! Blocks stand in a `VecDeque` with their counts beside them, so that finding an index reads a
//! short array and not every block. Positions are indexes from the head.

use std::collections::VecDeque;
use std::ops::Range;

use crate::encoding::{Encoding, Limits};
use crate::listpack::{self, Listpack, Position, entry_size};
use crate::size_class::class_size;
use crate::span::index_at;

/// A list of byte strings; the handle is 16 bytes.
#[derive(Clone, Debug)]
pub struct List(Form);

#[derive(Clone, Debug)]
enum Form {
    Packed(Listpack),
    Blocks(Box<Blocks>),
}

#[derive(Clone, Debug, Default)]
struct Blocks {
    blocks: VecDeque<Block>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Block {
    entries: Listpack,
    count: usize,
}

/// What a block may hold: bytes of entries, and entries.
#[derive(Clone, Copy)]
struct Bound {
    bytes: usize,
    count: usize,
}

impl Bound {
    /// The byte bound of a block whose limit is given in entries.
    const SAFETY_BYTES: usize = 8192;

    fn of(limits: &Limits) -> Bound {
        let (total, count) = match limits.list_max_listpack_size {
            -1 => (4096, usize::MAX),
            -2 => (8192, usize::MAX),
            -3 => (16384, usize::MAX),
            -4 => (32768, usize::MAX),
            i32::MIN..=-5 => (65536, usize::MAX),
            count => (Self::SAFETY_BYTES, count.max(1) as usize),
        };
        // The header counts, so that a full block is a whole allocator class.
        Bound { bytes: total - listpack::HEADER, count }
    }

    /// Half of the configured limit; the byte bound behind a limit in entries stays.
    fn half(self) -> Bound {
        if self.count == usize::MAX {
            Bound { bytes: self.bytes / 2, ..self }
        } else {
            Bound { count: self.count / 2, ..self }
        }
    }

    fn allows(self, bytes: usize, count: usize) -> bool {
        bytes <= self.bytes && count <= self.count
    }
}

impl Block {
    fn of(value: &[u8]) -> Block {
        let mut entries = Listpack::with_capacity(entry_size(value.len()));
        entries.push_back(value);
        Block { entries, count: 1 }
    }

    fn takes(&self, value: &[u8], bound: Bound) -> bool {
        bound.allows(self.entries.entry_bytes() + entry_size(value.len()), self.count + 1)
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

/// The end of a list that an element comes to or goes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Head,
    Tail,
}

impl List {
    /// Asks the processor for what the handle points to, ahead of its use.
    #[inline]
    pub fn prefetch(&self) {
        match &self.0 {
            Form::Packed(entries) => {
                entries.prefetch();
            }
            Form::Blocks(blocks) => crate::bucket::prefetch(&raw const **blocks),
        }
    }

    pub fn new() -> List {
        List(Form::Packed(Listpack::new()))
    }

    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(entries) => entries.len(),
            Form::Blocks(blocks) => blocks.len,
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Packed(_) => Encoding::Listpack,
            Form::Blocks(_) => Encoding::Quicklist,
        }
    }

    /// How many blocks the elements stand in.
    pub fn block_count(&self) -> usize {
        match &self.0 {
            Form::Packed(_) => 1,
            Form::Blocks(blocks) => blocks.blocks.len(),
        }
    }

    /// The block of this number, for those who write a list down piece by piece.
    pub fn block(&self, number: usize) -> Option<&Listpack> {
        match &self.0 {
            Form::Packed(entries) => (number == 0).then_some(entries),
            Form::Blocks(blocks) => blocks.blocks.get(number).map(|block| &block.entries),
        }
    }

    /// Bytes allocated, the handle excluded.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Packed(entries) => entries.memory_bytes(),
            Form::Blocks(blocks) => {
                class_size(size_of::<Blocks>())
                    + class_size(blocks.blocks.capacity() * size_of::<Block>())
                    + blocks.blocks.iter().map(|block| block.entries.memory_bytes()).sum::<usize>()
            }
        }
    }

    pub fn push_front(&mut self, value: &[u8], limits: &Limits) {
        self.push(End::Head, value, limits);
    }

    pub fn push_back(&mut self, value: &[u8], limits: &Limits) {
        self.push(End::Tail, value, limits);
    }

    pub fn push(&mut self, end: End, value: &[u8], limits: &Limits) {
        let bound = Bound::of(limits);
        self.grow(1, entry_size(value.len()), bound);
        match (&mut self.0, end) {
            (Form::Packed(entries), End::Head) => entries.push_front(value),
            (Form::Packed(entries), End::Tail) => entries.push_back(value),
            (Form::Blocks(blocks), _) => blocks.push(end, value, bound),
        }
    }

    pub fn front(&self) -> Option<&[u8]> {
        self.peek(End::Head)
    }

    pub fn back(&self) -> Option<&[u8]> {
        self.peek(End::Tail)
    }

    /// The element at one end.
    pub fn peek(&self, end: End) -> Option<&[u8]> {
        let entries = match (&self.0, end) {
            (Form::Packed(entries), _) => entries,
            (Form::Blocks(blocks), End::Head) => &blocks.blocks.front()?.entries,
            (Form::Blocks(blocks), End::Tail) => &blocks.blocks.back()?.entries,
        };
        match end {
            End::Head => entries.front(),
            End::Tail => entries.back(),
        }
    }

    pub fn pop_front(&mut self, limits: &Limits) -> Option<Vec<u8>> {
        self.pop(End::Head, limits)
    }

    pub fn pop_back(&mut self, limits: &Limits) -> Option<Vec<u8>> {
        self.pop(End::Tail, limits)
    }

    pub fn pop(&mut self, end: End, limits: &Limits) -> Option<Vec<u8>> {
        self.pop_with(end, limits, |value| value.to_vec())
    }

    /// Shows the element at one end to `read` and removes it: no copy is made.
    pub fn pop_with<R>(
        &mut self,
        end: End,
        limits: &Limits,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let result = read(self.peek(end)?);
        match &mut self.0 {
            Form::Packed(entries) => {
                let at = match end {
                    End::Head => entries.first(),
                    End::Tail => entries.last().expect("peek found an element"),
                };
                entries.remove(at);
            }
            Form::Blocks(blocks) => {
                blocks.drop_end(end);
                self.shrink(limits);
            }
        }
        Some(result)
    }

    /// The element at `index`; negative indexes count from the tail, -1 being the last.
    pub fn get(&self, index: i64) -> Option<&[u8]> {
        let index = index_at(index, self.len())?;
        match &self.0 {
            Form::Packed(entries) => entries.nth(index),
            Form::Blocks(blocks) => {
                let (block, offset) = blocks.locate(index);
                blocks.blocks[block].entries.nth(offset)
            }
        }
    }

    /// Replaces the element at `index` (negative from the tail); false if there is none.
    pub fn set(&mut self, index: i64, value: &[u8], limits: &Limits) -> bool {
        let Some(index) = index_at(index, self.len()) else { return false };
        let bound = Bound::of(limits);
        // As in Redis, the old element still counts.
        self.grow(1, entry_size(value.len()), bound);
        match &mut self.0 {
            Form::Packed(entries) => entries.replace(entries.seek(index), value),
            Form::Blocks(blocks) => {
                blocks.set(index, value, bound);
                self.shrink(limits);
            }
        }
        true
    }

    /// Inserts before the element at `index`, or at the tail for `index == len`. `index` must not
    /// exceed `len`.
    pub fn insert(&mut self, index: usize, value: &[u8], limits: &Limits) {
        let bound = Bound::of(limits);
        self.grow(1, entry_size(value.len()), bound);
        match &mut self.0 {
            Form::Packed(entries) => {
                entries.insert(entries.seek(index), value);
            }
            Form::Blocks(blocks) => blocks.insert(index, value, bound),
        }
    }

    /// Inserts before or behind the first element that equals `pivot`; returns the new element's
    /// index, or `None` if there is no such element.
    pub fn insert_at_pivot(
        &mut self,
        pivot: &[u8],
        before: bool,
        value: &[u8],
        limits: &Limits,
    ) -> Option<usize> {
        let index = self.iter().position(|element| element == pivot)? + usize::from(!before);
        self.insert(index, value, limits);
        Some(index)
    }

    /// Removes the element at `index`; false if there is none.
    pub fn remove_at(&mut self, index: usize, limits: &Limits) -> bool {
        index < self.len() && self.remove_range(index..index + 1, limits) == 1
    }

    /// Removes elements equal to `value`: the first `count` from the head if positive, the last
    /// `-count` from the tail if negative, all if 0. Returns how many were removed.
    pub fn remove(&mut self, value: &[u8], count: i64, limits: &Limits) -> usize {
        let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
        let removed = match &mut self.0 {
            Form::Packed(entries) => remove_equal(entries, value, most, count < 0),
            Form::Blocks(blocks) => blocks.remove_equal(value, most, count < 0, Bound::of(limits)),
        };
        if removed > 0 {
            self.shrink(limits);
        }
        removed
    }

    /// Removes the elements of a range, clamped to the list; returns how many there were.
    pub fn remove_range(&mut self, range: Range<usize>, limits: &Limits) -> usize {
        let len = self.len();
        let range = range.start.min(len)..range.end.min(len);
        if range.is_empty() {
            return 0;
        }
        match &mut self.0 {
            Form::Packed(entries) => {
                entries.remove_many(entries.seek(range.start), range.len());
            }
            Form::Blocks(blocks) => {
                blocks.remove_range(range.clone(), Bound::of(limits));
                self.shrink(limits);
            }
        }
        range.len()
    }

    /// Keeps only the elements of a range (LTRIM); returns how many were removed.
    pub fn retain_range(&mut self, range: Range<usize>, limits: &Limits) -> usize {
        let len = self.len();
        let start = range.start.min(len);
        let end = range.end.clamp(start, len);
        self.remove_range(end..len, limits) + self.remove_range(0..start, limits)
    }

    /// All elements from head to tail; `rev()` walks from the tail.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// The elements of a range, clamped to the list; `rev()` walks it from its end. Finding the
    /// ends costs O(blocks) at most, each step O(1).
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        let len = self.len();
        let start = range.start.min(len);
        let left = range.end.clamp(start, len) - start;
        let mut iter = Iter {
            blocks: None,
            front: 0,
            back: 0,
            head: listpack::Entries::default(),
            tail: None,
            left,
            end: start + left,
        };
        match &self.0 {
            _ if left == 0 => {}
            Form::Packed(entries) => {
                iter.head = entries.iter_from(entries.seek(start));
                iter.tail = Some((entries, entries.seek(start + left)));
            }
            Form::Blocks(blocks) => {
                let (block, offset) = blocks.locate(start);
                let entries = &blocks.blocks[block].entries;
                iter.head = entries.iter_from(entries.seek(offset));
                iter.front = block + 1;
                iter.blocks = Some(blocks);
            }
        }
        iter
    }

    /// Becomes a deque if `count` more entries of `bytes` would not fit one block.
    fn grow(&mut self, count: usize, bytes: usize, bound: Bound) {
        let Form::Packed(entries) = &mut self.0 else { return };
        if bound.allows(entries.entry_bytes() + bytes, entries.len() + count) {
            return;
        }
        self.make_blocks();
    }

    /// Becomes a deque whatever its size; undo puts a list back this way that was one before.
    pub fn make_blocks(&mut self) {
        let Form::Packed(entries) = &mut self.0 else { return };
        let count = entries.len();
        let entries = std::mem::take(entries);
        let mut blocks = Box::new(Blocks { blocks: VecDeque::new(), len: count });
        if count > 0 {
            blocks.blocks.push_back(Block { entries, count });
        }
        self.0 = Form::Blocks(blocks);
    }

    /// Becomes a listpack again if one block is left and it is half empty.
    fn shrink(&mut self, limits: &Limits) {
        let Form::Blocks(blocks) = &mut self.0 else { return };
        let entries = match blocks.blocks.len() {
            0 => Listpack::new(),
            1 => {
                let block = &mut blocks.blocks[0];
                if !Bound::of(limits).half().allows(block.entries.entry_bytes(), block.count) {
                    return;
                }
                std::mem::take(&mut block.entries)
            }
            _ => return,
        };
        self.0 = Form::Packed(entries);
    }
}

/// Removes up to `most` entries equal to `value`, from the back if `backward`.
fn remove_equal(entries: &mut Listpack, value: &[u8], most: usize, backward: bool) -> usize {
    let mut removed = 0;
    if backward {
        let mut at = entries.last();
        while let Some(here) = at
            && removed < most
        {
            at = entries.before(here);
            if entries.get(here) == Some(value) {
                entries.remove(here);
                removed += 1;
            }
        }
    } else {
        let mut at = entries.first();
        while removed < most
            && let Some(found) = entries.find(value, at, 1)
        {
            entries.remove(found);
            removed += 1;
            at = found;
        }
    }
    removed
}

impl Blocks {
    fn push(&mut self, end: End, value: &[u8], bound: Bound) {
        self.len += 1;
        let block = match end {
            End::Head => self.blocks.front_mut(),
            End::Tail => self.blocks.back_mut(),
        };
        if let Some(block) = block
            && block.takes(value, bound)
        {
            block.count += 1;
            match end {
                End::Head => block.entries.push_front(value),
                End::Tail => block.entries.push_back(value),
            }
            return;
        }
        match end {
            End::Head => self.blocks.push_front(Block::of(value)),
            End::Tail => self.blocks.push_back(Block::of(value)),
        }
    }

    /// Removes the element at one end of a list that is not empty.
    fn drop_end(&mut self, end: End) {
        let block = match end {
            End::Head => self.blocks.front_mut(),
            End::Tail => self.blocks.back_mut(),
        };
        let block = block.expect("a list with elements has blocks");
        self.len -= 1;
        block.count -= 1;
        if block.count == 0 {
            match end {
                End::Head => self.blocks.pop_front(),
                End::Tail => self.blocks.pop_back(),
            };
            return;
        }
        let at = match end {
            End::Head => block.entries.first(),
            End::Tail => block.entries.last().expect("blocks are not empty"),
        };
        block.entries.remove(at);
    }

    /// The block of element `index` and its number there; the end is behind the last element of
    /// the last block. Walks from the nearer end.
    fn locate(&self, index: usize) -> (usize, usize) {
        debug_assert!(index <= self.len);
        if index <= self.len / 2 {
            let mut before = 0;
            for (number, block) in self.blocks.iter().enumerate() {
                if index < before + block.count {
                    return (number, index - before);
                }
                before += block.count;
            }
        } else {
            let mut behind = self.len;
            for (number, block) in self.blocks.iter().enumerate().rev() {
                behind -= block.count;
                if index >= behind {
                    return (number, index - behind);
                }
            }
        }
        (0, 0)
    }

    fn set(&mut self, index: usize, value: &[u8], bound: Bound) {
        let (number, offset) = self.locate(index);
        let block = &mut self.blocks[number];
        let at = block.entries.seek(offset);
        let old = block.entries.get(at).expect("the index is below len").len();
        let bytes = block.entries.entry_bytes() - entry_size(old) + entry_size(value.len());
        if block.count == 1 || bound.allows(bytes, block.count) {
            block.entries.replace(at, value);
            return;
        }
        block.entries.remove(at);
        block.count -= 1;
        self.len -= 1;
        self.insert_in_block(number, offset, value, bound);
    }

    fn insert(&mut self, index: usize, value: &[u8], bound: Bound) {
        if self.blocks.is_empty() || index == self.len {
            return self.push(End::Tail, value, bound);
        }
        let (number, offset) = self.locate(index);
        self.insert_in_block(number, offset, value, bound);
    }

    /// Inserts before the element `offset` of a block (or behind its last), into the block, into a
    /// neighbour that the place touches, or into a block of its own between two halves.
    fn insert_in_block(&mut self, number: usize, offset: usize, value: &[u8], bound: Bound) {
        self.len += 1;
        let block = &mut self.blocks[number];
        if block.takes(value, bound) {
            block.entries.insert(block.entries.seek(offset), value);
            block.count += 1;
            return;
        }
        if offset == 0 {
            if number > 0 && self.blocks[number - 1].takes(value, bound) {
                let before = &mut self.blocks[number - 1];
                before.entries.push_back(value);
                before.count += 1;
            } else {
                self.blocks.insert(number, Block::of(value));
            }
            return;
        }
        if offset == block.count {
            match self.blocks.get_mut(number + 1) {
                Some(behind) if behind.takes(value, bound) => {
                    behind.entries.push_front(value);
                    behind.count += 1;
                }
                _ => self.blocks.insert(number + 1, Block::of(value)),
            }
            return;
        }
        let tail = block.entries.split_off(block.entries.seek(offset));
        let tail = Block { count: block.count - offset, entries: tail };
        block.count = offset;
        if block.takes(value, bound) {
            block.entries.push_back(value);
            block.count += 1;
            self.blocks.insert(number + 1, tail);
            self.merge_behind(number + 1, bound);
        } else {
            self.blocks.insert(number + 1, Block::of(value));
            self.blocks.insert(number + 2, tail);
            self.merge_behind(number + 2, bound);
        }
        if number > 0 {
            self.merge_behind(number - 1, bound);
        }
    }

    /// Joins a block with the one behind it if both fit one block.
    fn merge_behind(&mut self, number: usize, bound: Bound) {
        let (Some(block), Some(behind)) = (self.blocks.get(number), self.blocks.get(number + 1))
        else {
            return;
        };
        let bytes = block.entries.entry_bytes() + behind.entries.entry_bytes();
        if bound.allows(bytes, block.count + behind.count) {
            let behind = self.blocks.remove(number + 1).expect("there is one behind");
            let block = &mut self.blocks[number];
            block.entries.append(&behind.entries);
            block.count += behind.count;
        }
    }

    fn remove_range(&mut self, range: Range<usize>, bound: Bound) {
        let (first, mut offset) = self.locate(range.start);
        let mut left = range.len();
        self.len -= left;
        let mut number = first;
        let mut emptied = first..first;
        while left > 0 {
            let block = &mut self.blocks[number];
            let here = left.min(block.count - offset);
            left -= here;
            if here == block.count {
                if emptied.is_empty() {
                    emptied = number..number;
                }
                emptied.end = number + 1;
            } else {
                block.entries.remove_many(block.entries.seek(offset), here);
                block.count -= here;
            }
            offset = 0;
            number += 1;
        }
        let seam = emptied.start;
        self.blocks.drain(emptied);
        // Only the blocks at the cut can have become small; join them if that leaves room.
        self.merge_behind(seam, bound.half());
        if seam > 0 {
            self.merge_behind(seam - 1, bound.half());
        }
    }

    fn remove_equal(&mut self, value: &[u8], most: usize, backward: bool, bound: Bound) -> usize {
        let mut removed = 0;
        let count = self.blocks.len();
        for step in 0..count {
            if removed == most {
                break;
            }
            let number = if backward { count - 1 - step } else { step };
            let block = &mut self.blocks[number];
            let here = remove_equal(&mut block.entries, value, most - removed, backward);
            block.count -= here;
            removed += here;
        }
        if removed == 0 {
            return 0;
        }
        self.len -= removed;
        let half = bound.half();
        let mut kept: VecDeque<Block> = VecDeque::with_capacity(self.blocks.len());
        for block in std::mem::take(&mut self.blocks) {
            if block.count == 0 {
                continue;
            }
            match kept.back_mut() {
                Some(last)
                    if half.allows(
                        last.entries.entry_bytes() + block.entries.entry_bytes(),
                        last.count + block.count,
                    ) =>
                {
                    last.entries.append(&block.entries);
                    last.count += block.count;
                }
                _ => kept.push_back(block),
            }
        }
        self.blocks = kept;
        removed
    }
}

/// Iterator over a range of a list, from both ends.
#[derive(Clone)]
pub struct Iter<'a> {
    /// For a deque: its blocks; `front` is the next block to enter from the head.
    blocks: Option<&'a Blocks>,
    front: usize,
    /// The block that `tail` walks.
    back: usize,
    head: listpack::Entries<'a>,
    /// The listpack walked from the tail and the position behind the next element; found when the
    /// first element is asked for from the back.
    tail: Option<(&'a Listpack, Position)>,
    left: usize,
    /// Index behind the range in the list.
    end: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        loop {
            if let Some(element) = self.head.next() {
                return Some(element);
            }
            let entries = &self.blocks?.blocks[self.front].entries;
            self.head = entries.iter_from(entries.first());
            self.front += 1;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    fn next_back(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        if self.tail.is_none() {
            let blocks = self.blocks?;
            let (block, offset) = blocks.locate(self.end);
            let entries = &blocks.blocks[block].entries;
            self.back = block;
            self.tail = Some((entries, entries.seek(offset)));
        }
        loop {
            let (entries, behind) = self.tail?;
            if let Some(at) = entries.before(behind) {
                self.tail = Some((entries, at));
                return entries.get(at);
            }
            self.back = self.back.checked_sub(1)?;
            let entries = &self.blocks?.blocks[self.back].entries;
            self.tail = Some((entries, entries.end()));
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a List {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

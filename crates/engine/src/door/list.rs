//! Changes of a list.

use std::ops::Range;

use data::{End, List, index_at};

use crate::change::Change;
use crate::door::{LOOKS_EVERY, Mut};
use crate::txn::Kind;
use crate::undo::{Delta, Small};

impl Mut<'_, '_, List> {
    pub fn push(&mut self, end: End, value: &[u8]) {
        if let Some((mut log, _)) = self.inverse() {
            log.note_push(end);
        }
        let limits = self.limits();
        self.value().push(end, value, limits);
        self.did(Change::Push { end, value });
        if self.len() == 1 {
            self.did_begin();
        }
    }

    pub fn pop(&mut self, end: End) -> Option<Vec<u8>> {
        self.pop_with(end, |value| value.to_vec())
    }

    /// Shows the element at one end to `read` and removes it: no copy is made, unless for undo.
    pub fn pop_with<R>(&mut self, end: End, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if let Some((mut log, list)) = self.inverse() {
            log.note_pop(end, list.peek(end)?);
        }
        let limits = self.limits();
        let popped = self.value().pop_with(end, limits, read);
        if popped.is_some() {
            self.did(Change::Pop { end, count: 1 });
        }
        popped
    }

    /// Replaces the element at `index` (negative from the tail); false if there is none.
    pub fn set(&mut self, index: i64, value: &[u8]) -> bool {
        let Some(index) = index_at(index, self.len()) else { return false };
        if let Some((mut log, list)) = self.inverse() {
            let old = list.get(index as i64).expect("the index is below the length");
            let old = Small::from_slice(old);
            log.note(Delta::Replaced { index, old });
        }
        let limits = self.limits();
        self.did(Change::Replace { index, value });
        self.value().set(index as i64, value, limits)
    }

    /// Inserts before or behind the first element that equals `pivot`; returns the new element's
    /// index, or `None` if there is no such element.
    pub fn insert_at_pivot(&mut self, pivot: &[u8], before: bool, value: &[u8]) -> Option<usize> {
        let found = self.equal(pivot, self.iter().enumerate()).next();
        let index = found? + usize::from(!before);
        if let Some((mut log, _)) = self.inverse() {
            log.note(Delta::Inserted { index });
        }
        let limits = self.limits();
        self.did(Change::Insert { pivot, before, value });
        self.value().insert(index, value, limits);
        Some(index)
    }

    /// Removes elements equal to `value`: the first `count` from the head if positive, the last
    /// `-count` from the tail if negative, all if 0. Returns how many were removed.
    pub fn remove(&mut self, value: &[u8], count: i64) -> usize {
        if self.inverse().is_some() {
            let (len, most) = match count {
                0 => (self.len(), usize::MAX),
                _ => (self.len(), count.unsigned_abs() as usize),
            };
            let mut indexes: Vec<usize> = if count < 0 {
                let from_tail = self.equal(value, self.iter().rev().enumerate()).take(most);
                from_tail.map(|step| len - 1 - step).collect()
            } else {
                self.equal(value, self.iter().enumerate()).take(most).collect()
            };
            if count < 0 {
                indexes.reverse();
            }
            if indexes.is_empty() || self.may_break_off() {
                return 0;
            }
            if let Some((mut log, _)) = self.inverse() {
                log.note(Delta::RemovedEqual { value: Small::from_slice(value), indexes });
            }
        }
        let limits = self.limits();
        let removed = self.value().remove(value, count, limits);
        if removed > 0 {
            self.did(Change::RemoveEqual { value, count });
        }
        removed
    }

    /// The numbers of the elements that equal `value`; no more of them come when the script that
    /// asks is to end.
    fn equal<'a>(
        &self,
        value: &[u8],
        elements: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> impl Iterator<Item = usize> {
        let is_look = |step: usize| step % LOOKS_EVERY == LOOKS_EVERY - 1;
        elements
            .take_while(move |(step, _)| !is_look(*step) || !self.may_break_off())
            .filter(move |(_, element)| *element == value)
            .map(|(step, _)| step)
    }

    /// Removes the elements of a range, clamped to the list; returns how many there were.
    pub fn remove_range(&mut self, range: Range<usize>) -> usize {
        let len = self.len();
        let range = range.start.min(len)..range.end.min(len);
        if range.is_empty() {
            return 0;
        }
        if range.start == 0 {
            self.did(Change::Pop { end: End::Head, count: range.end });
        } else if range.end == len {
            self.did(Change::Pop { end: End::Tail, count: range.len() });
        } else {
            self.did_remove_middle(range.clone());
        }
        self.cut(range)
    }

    /// Logs that a range was taken out from between other elements: no command does that, so all
    /// behind it are taken off and come back.
    fn did_remove_middle(&mut self, range: Range<usize>) {
        self.did(Change::Retain { start: 0, end: range.start });
        if self.txn.logs() {
            let at = self.at;
            // SAFETY: as in `value`; only read here.
            let entry = unsafe { at.entry() };
            let list = entry.collection().and_then(List::of).expect("the door checked the type");
            let behind = list.range(range.end..list.len());
            behind.for_each(|value| {
                self.txn.log(entry.key(), Change::Push { end: End::Tail, value });
            });
        }
    }

    /// Removes the elements of a range, which is not empty; all is logged.
    fn cut(&mut self, range: Range<usize>) -> usize {
        let len = self.len();
        let limits = self.limits();
        if self.inverse().is_none() {
            return self.value().remove_range(range, limits);
        }
        if range.len() == len {
            self.empty_out();
            return len;
        }
        // Piece by piece from the outside: undone the other way round, each comes to an end of
        // the list.
        let is_tail = range.end == len;
        let mut left = range.clone();
        while !left.is_empty() && !self.may_break_off() {
            let count = left.len().min(LOOKS_EVERY);
            let now = match is_tail {
                true => left.end - count..left.end,
                false => left.start..left.start + count,
            };
            if let Some((mut log, list)) = self.inverse() {
                let mut elements = List::new();
                list.range(now.clone()).for_each(|value| elements.push_back(value, limits));
                log.note(Delta::Removed { index: now.start, elements });
            }
            self.value().remove_range(now, limits);
            // At the head, what comes next moves to where this was.
            left.end -= count;
        }
        range.len() - left.len()
    }

    /// Keeps only the elements of a range (LTRIM); returns how many were removed.
    pub fn retain_range(&mut self, range: Range<usize>) -> usize {
        let len = self.len();
        let start = range.start.min(len);
        let end = range.end.clamp(start, len);
        if start == end {
            return self.remove_range(0..len);
        }
        if len == end - start {
            return 0;
        }
        self.did(Change::Retain { start, end });
        let behind = if end < len { self.cut(end..len) } else { 0 };
        behind + if start > 0 { self.cut(0..start) } else { 0 }
    }
}

//! Changes of a list.

use std::ops::Range;

use data::{End, List};

use crate::door::Mut;

impl Mut<'_, '_, List> {
    pub fn push(&mut self, end: End, value: &[u8]) {
        let limits = self.limits();
        self.changed = true;
        self.value().push(end, value, limits);
    }

    pub fn pop(&mut self, end: End) -> Option<Vec<u8>> {
        self.pop_with(end, |value| value.to_vec())
    }

    /// Shows the element at one end to `read` and removes it: no copy is made.
    pub fn pop_with<R>(&mut self, end: End, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let limits = self.limits();
        let popped = self.value().pop_with(end, limits, read);
        self.changed |= popped.is_some();
        popped
    }

    /// Replaces the element at `index` (negative from the tail); false if there is none.
    pub fn set(&mut self, index: i64, value: &[u8]) -> bool {
        let limits = self.limits();
        let set = self.value().set(index, value, limits);
        self.changed |= set;
        set
    }

    /// Inserts before or behind the first element that equals `pivot`; returns the new element's
    /// index, or `None` if there is no such element.
    pub fn insert_at_pivot(&mut self, pivot: &[u8], before: bool, value: &[u8]) -> Option<usize> {
        let limits = self.limits();
        let index = self.value().insert_at_pivot(pivot, before, value, limits);
        self.changed |= index.is_some();
        index
    }

    /// Removes elements equal to `value`: the first `count` from the head if positive, the last
    /// `-count` from the tail if negative, all if 0. Returns how many were removed.
    pub fn remove(&mut self, value: &[u8], count: i64) -> usize {
        let limits = self.limits();
        let removed = self.value().remove(value, count, limits);
        self.changed |= removed > 0;
        removed
    }

    /// Removes the elements of a range, clamped to the list; returns how many there were.
    pub fn remove_range(&mut self, range: Range<usize>) -> usize {
        let limits = self.limits();
        let removed = self.value().remove_range(range, limits);
        self.changed |= removed > 0;
        removed
    }

    /// Keeps only the elements of a range (LTRIM); returns how many were removed.
    pub fn retain_range(&mut self, range: Range<usize>) -> usize {
        let len = self.len();
        let start = range.start.min(len);
        let end = range.end.clamp(start, len);
        if start == end {
            return self.remove_range(0..len);
        }
        self.remove_range(end..len) + self.remove_range(0..start)
    }
}

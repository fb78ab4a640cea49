//! Changes of a sorted set.

use std::ops::Range;

use data::Zset;

use crate::door::Mut;

impl Mut<'_, '_, Zset> {
    /// Tells that `count` members, the longest of `longest` bytes, are about to be added at once.
    pub fn prepare(&mut self, count: usize, longest: usize) {
        let limits = self.limits();
        self.value().prepare(count, longest, limits);
    }

    /// Adds a member or gives it another score, which must not be NaN; returns the old score if it
    /// was there. The same score is no change. O(log n).
    pub fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let limits = self.limits();
        let old = self.value().insert(member, score, limits);
        self.changed |= old != Some(score);
        old
    }

    /// Removes a member; returns the score it had. O(log n).
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let removed = self.value().remove(member);
        self.changed |= removed.is_some();
        removed
    }

    /// Removes a range of ranks (clamped); returns how many there were.
    pub fn remove_range(&mut self, range: Range<usize>) -> usize {
        self.remove_range_with(range, |_, _| {})
    }

    /// As [`remove_range`](Self::remove_range), showing each member before it goes.
    pub fn remove_range_with(
        &mut self,
        range: Range<usize>,
        each: impl FnMut(&[u8], f64),
    ) -> usize {
        let removed = self.value().remove_range_with(range, each);
        self.changed |= removed > 0;
        removed
    }
}

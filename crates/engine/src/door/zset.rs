//! Changes of a sorted set.

use std::ops::Range;

use data::Zset;

use crate::change::Change;
use crate::door::{LOOKS_EVERY, Mut};
use crate::undo::{Delta, Small};

impl Mut<'_, '_, Zset> {
    /// Tells that `count` members, the longest of `longest` bytes, are about to be added at once.
    pub fn prepare(&mut self, count: usize, longest: usize) {
        self.inverse();
        let limits = self.limits();
        self.value().prepare(count, longest, limits);
    }

    /// Adds a member or gives it another score, which must not be NaN; returns the old score if it
    /// was there. The same score is no change. O(log n).
    pub fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        self.inverse();
        let limits = self.limits();
        let old = self.value().insert(member, score, limits);
        if old != Some(score) {
            self.note(member, old);
            self.did(Change::SetScore { member, score });
            if old.is_none() && self.len() == 1 {
                self.did_begin();
            }
        }
        old
    }

    /// Removes a member; returns the score it had. O(log n).
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        self.inverse();
        let removed = self.value().remove(member);
        if removed.is_some() {
            self.note(member, removed);
            self.did(Change::RemoveScored { member });
        }
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
        mut each: impl FnMut(&[u8], f64),
    ) -> usize {
        let len = self.len();
        let range = range.start.min(len)..range.end.min(len);
        if range.is_empty() {
            return 0;
        }
        if self.inverse().is_none() {
            self.did(Change::RemoveRanks { start: range.start, end: range.end });
            return self.value().remove_range_with(range, each);
        }
        if range.len() == len {
            for (step, (member, score)) in self.iter().enumerate() {
                each(member, score);
                if step % LOOKS_EVERY == LOOKS_EVERY - 1 && self.may_break_off() {
                    return 0;
                }
            }
            self.empty_out();
            self.did(Change::RemoveRanks { start: 0, end: len });
            return len;
        }
        self.did(Change::RemoveRanks { start: range.start, end: range.end });
        let mut left = range.len();
        while left > 0 && !self.may_break_off() {
            let now = range.start..range.start + left.min(LOOKS_EVERY);
            if let Some((mut log, zset)) = self.inverse() {
                for (member, score) in zset.range(now.clone()) {
                    each(member, score);
                    if !log.covers(member) {
                        let member = Small::from_slice(member);
                        log.note(Delta::Score { member, old: Some(score) });
                    }
                }
                self.value().remove_range(now.clone());
            } else {
                self.value().remove_range_with(now.clone(), &mut each);
            }
            left -= now.len();
        }
        range.len() - left
    }

    fn note(&mut self, member: &[u8], old: Option<f64>) {
        if let Some(mut log) = self.log()
            && !log.covers(member)
        {
            log.note(Delta::Score { member: Small::from_slice(member), old });
        }
    }
}

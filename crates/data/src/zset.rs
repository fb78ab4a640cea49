//! `Zset`: a small sorted set in a listpack, a large one in a table and a counted B+-tree.
//!
//! The order is by score, then by the member's bytes. A position in the order, the *rank*, is the
//! one cursor: score and lex ranges become ranges of ranks ([`Zset::score_range`],
//! [`Zset::lex_range`]), and [`Zset::range`] walks ranks in both directions, so offsets, limits,
//! counts and reversed commands are arithmetic on ranks.
//!
//! A listpack entry is the score's eight bytes followed by the member. A large set stores each
//! member once, [`Scored`]: the table owns it and finds it by name, the tree holds pointers in
//! order. Scores are never NaN: callers refuse those.

use std::fmt;
use std::ops::Range;

use crate::ahead::Part;
use crate::encoding::{Encoding, Limits};
use crate::listpack::{Listpack, Position, entry_size};
use crate::random::{below, distinct, hash_bytes};
use crate::score_range::{LexRange, ScoreRange};
use crate::scored::Scored;
use crate::set::{distinct_of_table, scan_table};
use crate::size_class::class_size;
use crate::table::Table;
use crate::tree::{self, Tree};

/// A sorted set of byte strings; the handle is 16 bytes.
#[derive(Debug)]
pub struct Zset(Form);

enum Form {
    Packed(Listpack),
    Ranked(Box<Ranked>),
}

/// Invariant: the tree holds exactly the members that the table owns, at their scores.
#[derive(Default)]
struct Ranked {
    order: Tree,
    members: Table<Scored>,
    /// What the allocator gave for the members.
    member_bytes: usize,
}

const SCORE: usize = size_of::<f64>();

fn hash_of(stored: &Scored) -> u64 {
    hash_bytes(stored.member())
}

/// Splits a listpack entry.
#[inline]
fn split(entry: &[u8]) -> (&[u8], f64) {
    let (score, member) = entry.split_first_chunk::<SCORE>().expect("entries begin with a score");
    (member, f64::from_le_bytes(*score))
}

/// The position in the listpack of the first entry for which `before` does not hold, and its rank.
fn packed_partition(entries: &Listpack, before: impl Fn(&[u8], f64) -> bool) -> (Position, usize) {
    let mut at = entries.first();
    let mut rank = 0;
    while let Some(entry) = entries.get(at) {
        let (member, score) = split(entry);
        if !before(member, score) {
            break;
        }
        at = entries.after(at);
        rank += 1;
    }
    (at, rank)
}

/// Position, rank and score of a member in a listpack.
fn packed_find(entries: &Listpack, member: &[u8]) -> Option<(Position, usize, f64)> {
    let (at, rank) = packed_partition(entries, |other, _| other != member);
    entries.get(at).map(|entry| (at, rank, split(entry).1))
}

/// Where a member is in a listpack and where it belongs with a score: one pass finds both.
struct PackedPlace {
    found: Option<(Position, f64)>,
    /// The first other entry that stands behind (score, member), or the end.
    target: Position,
}

fn packed_place(entries: &Listpack, member: &[u8], score: f64) -> PackedPlace {
    let mut found = None;
    let mut target = None;
    let mut at = entries.first();
    while let Some(entry) = entries.get(at) {
        let (other, other_score) = split(entry);
        if other == member {
            found = Some((at, other_score));
        } else if target.is_none()
            && (other_score > score || other_score == score && other > member)
        {
            target = Some(at);
        }
        if found.is_some() && target.is_some() {
            break;
        }
        at = entries.after(at);
    }
    PackedPlace { found, target: target.unwrap_or(entries.end()) }
}

/// Gives the entry at `from` another score; `target` is where it then belongs.
fn packed_rescore(
    entries: &mut Listpack,
    from: Position,
    target: Position,
    member: &[u8],
    score: f64,
) {
    let at = entries.move_entry(from, target);
    entries.replace_parts(at, &[&score.to_le_bytes(), member]);
}

impl Default for Zset {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Zset {
    fn clone(&self) -> Zset {
        match &self.0 {
            Form::Packed(entries) => Zset(Form::Packed(entries.clone())),
            Form::Ranked(_) => Zset(Form::Ranked(self.ranked_copy(0))),
        }
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        match self {
            Form::Packed(entries) => list.entries(entries.iter().map(split)),
            Form::Ranked(ranked) => list.entries(ranked.order.range(0..usize::MAX)),
        }
        .finish()
    }
}

impl Zset {
    pub fn new() -> Zset {
        Zset(Form::Packed(Listpack::new()))
    }

    /// Tells that `count` members, the longest of `longest` bytes, are about to be added at once:
    /// if that is too many or too long for a listpack, the set becomes a tree now, as in Redis.
    pub fn prepare(&mut self, count: usize, longest: usize, limits: &Limits) {
        if matches!(self.0, Form::Packed(_))
            && (count > limits.zset_max_listpack_entries
                || longest > limits.zset_max_listpack_value)
        {
            self.make_ranked(count);
        }
    }

    /// Becomes a listpack if it is within the limits, as results of ZUNIONSTORE and its kin do.
    pub fn compact(&mut self, limits: &Limits) {
        if matches!(self.0, Form::Packed(_)) || self.len() > limits.zset_max_listpack_entries {
            return;
        }
        let mut entries = Listpack::new();
        for (member, score) in self.iter() {
            let size = entry_size(SCORE + member.len());
            if member.len() > limits.zset_max_listpack_value || !entries.has_room(1, size) {
                return;
            }
            entries.push_back_parts(&[&score.to_le_bytes(), member]);
        }
        self.0 = Form::Packed(entries);
    }

    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(entries) => entries.len(),
            Form::Ranked(ranked) => ranked.members.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Packed(_) => Encoding::Listpack,
            Form::Ranked(_) => Encoding::Skiplist,
        }
    }

    /// Bytes allocated, the handle excluded. Reads a thousandth of a large set.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Packed(entries) => entries.memory_bytes(),
            Form::Ranked(ranked) => {
                class_size(size_of::<Ranked>())
                    + ranked.order.memory_bytes()
                    + ranked.members.memory_bytes()
                    + ranked.member_bytes
            }
        }
    }

    /// The score of a member. O(1) expected.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Form::Packed(entries) => packed_find(entries, member).map(|(_, _, score)| score),
            Form::Ranked(ranked) => ranked.find(member).map(Scored::score),
        }
    }

    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        self.score(member).is_some()
    }

    /// Asks the processor for the next part of the way to a member with this hash; false when there
    /// is no further part.
    #[inline]
    pub fn prefetch(&self, part: Part, hash: u64) -> bool {
        match (&self.0, part) {
            (Form::Packed(entries), _) => entries.prefetch(),
            (Form::Ranked(ranked), part) => {
                // The body must have arrived before the tree can be asked for.
                let tree_goes_on = part != Part::Body && ranked.order.prefetch(part);
                part.of_table(ranked, |ranked| &ranked.members, hash) || tree_goes_on
            }
        }
    }

    /// Adds a member or gives it another score; returns the old score if it was there. `score`
    /// must not be NaN. O(log n).
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        debug_assert!(!score.is_nan(), "callers refuse NaN");
        if let Form::Packed(entries) = &mut self.0 {
            let PackedPlace { found, target } = packed_place(entries, member, score);
            if let Some((from, old)) = found {
                if old != score {
                    packed_rescore(entries, from, target, member, score);
                }
                return Some(old);
            }
            if entries.len() < limits.zset_max_listpack_entries
                && member.len() <= limits.zset_max_listpack_value
                && entries.has_room(1, entry_size(SCORE + member.len()))
            {
                entries.insert_parts(target, &[&score.to_le_bytes(), member]);
                return None;
            }
            self.make_ranked(1);
        }
        let Form::Ranked(ranked) = &mut self.0 else { unreachable!("ranked since above") };
        ranked.insert(member, score)
    }

    /// Removes a member; returns the score it had. O(log n).
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Form::Packed(entries) => {
                let (at, _, score) = packed_find(entries, member)?;
                entries.remove(at);
                Some(score)
            }
            Form::Ranked(ranked) => ranked.remove(member),
        }
    }

    /// The number of members before this one, from the lowest score. O(log n).
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Form::Packed(entries) => packed_find(entries, member).map(|(_, rank, _)| rank),
            Form::Ranked(ranked) => {
                let score = ranked.find(member)?.score();
                Some(ranked.order.rank(score, member))
            }
        }
    }

    /// The member of a rank and its score. O(log n).
    pub fn at(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.range(rank..rank.saturating_add(1)).next()
    }

    /// The ranks of the members whose scores lie in a range; its length is ZCOUNT. O(log n).
    pub fn score_range(&self, range: &ScoreRange) -> Range<usize> {
        let (start, end) = match &self.0 {
            Form::Packed(entries) => (
                packed_partition(entries, |_, score| range.is_below(score)).1,
                packed_partition(entries, |_, score| range.is_within_max(score)).1,
            ),
            Form::Ranked(ranked) => {
                // Windows that slide ask for what is too old, which mostly is nothing.
                let order = &ranked.order;
                let lowest = order.first().map_or(f64::INFINITY, |entry| entry.score);
                match (range.is_below(lowest), range.is_within_max(lowest)) {
                    (_, false) => (0, 0),
                    (below, true) => (
                        if below { order.rank_where(|e| range.is_below(e.score)) } else { 0 },
                        order.rank_where(|e| range.is_within_max(e.score)),
                    ),
                }
            }
        };
        start..end.max(start)
    }

    /// The ranks of the members in a range of names, if all scores are equal. O(log n).
    pub fn lex_range(&self, range: &LexRange<'_>) -> Range<usize> {
        let (start, end) = match &self.0 {
            Form::Packed(entries) => (
                packed_partition(entries, |member, _| range.is_below(member)).1,
                packed_partition(entries, |member, _| range.is_within_max(member)).1,
            ),
            Form::Ranked(ranked) => (
                ranked.order.rank_of_member(|member| range.is_below(member)),
                ranked.order.rank_of_member(|member| range.is_within_max(member)),
            ),
        };
        start..end.max(start)
    }

    /// Members and scores of a range of ranks (clamped), lowest first; `rev()` walks down.
    /// O(log n) to begin, O(1) for each.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        let start = range.start.min(self.len());
        let end = range.end.clamp(start, self.len());
        Iter(match &self.0 {
            Form::Packed(entries) => {
                let from = entries.seek(start);
                let left = end - start;
                IterForm::Packed { entries, from, to: None, end, left }
            }
            Form::Ranked(ranked) => IterForm::Ranked(ranked.order.range(start..end)),
        })
    }

    /// All members and scores, lowest first.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
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
        let start = range.start.min(self.len());
        let end = range.end.clamp(start, self.len());
        match &mut self.0 {
            Form::Packed(entries) => {
                let from = entries.seek(start);
                for entry in entries.iter_from(from).take(end - start) {
                    let (member, score) = split(entry);
                    each(member, score);
                }
                entries.remove_many(from, end - start);
            }
            Form::Ranked(ranked) => {
                for _ in start..end {
                    let removed = ranked.remove_at(start);
                    each(removed.member(), removed.score());
                }
            }
        }
        end - start
    }

    /// Removes the member with the lowest score.
    pub fn pop_min(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_at(0)
    }

    /// Removes the member with the highest score.
    pub fn pop_max(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_at(self.len().checked_sub(1)?)
    }

    fn pop_at(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        let mut popped = None;
        self.remove_range_with(rank..rank + 1, |member, score| {
            popped = Some((member.to_vec(), score));
        });
        popped
    }

    /// Visits about `count` members from `cursor` on and returns the next cursor, 0 at the end; a
    /// listpack is visited whole. See [`Table::scan`] for the guarantee.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match &self.0 {
            Form::Packed(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
            Form::Ranked(ranked) => scan_table(&ranked.members, cursor, count, |stored| {
                visit(stored.member(), stored.score());
            }),
        }
    }

    /// A member and its score, drawn with equal chances.
    pub fn random(&self, rng: &mut impl FnMut() -> u64) -> Option<(&[u8], f64)> {
        if self.is_empty() { None } else { self.at(below(rng, self.len())) }
    }

    /// `count` different members (all if there are fewer) with scores, in random order.
    pub fn random_distinct(
        &self,
        count: usize,
        rng: &mut impl FnMut() -> u64,
    ) -> Vec<(&[u8], f64)> {
        match &self.0 {
            Form::Packed(_) => {
                let all: Vec<_> = self.iter().collect();
                distinct(rng, all.len(), count).into_iter().map(|at| all[at]).collect()
            }
            Form::Ranked(ranked) => distinct_of_table(&ranked.members, count, rng)
                .into_iter()
                .map(|stored| (stored.member(), stored.score()))
                .collect(),
        }
    }

    fn make_ranked(&mut self, additional: usize) {
        self.0 = Form::Ranked(self.ranked_copy(additional));
    }

    fn ranked_copy(&self, additional: usize) -> Box<Ranked> {
        let mut ranked = Box::new(Ranked::default());
        ranked.members.reserve(self.len() + additional);
        for (member, score) in self.iter() {
            ranked.add_new(hash_bytes(member), member, score);
        }
        ranked
    }
}

impl Ranked {
    fn find(&self, member: &[u8]) -> Option<&Scored> {
        self.members.find(hash_bytes(member), |stored| stored.member() == member)
    }

    fn add_new(&mut self, hash: u64, member: &[u8], score: f64) {
        let stored = Scored::new(member, score);
        let pointer = stored.as_ref();
        self.member_bytes += stored.memory_bytes();
        self.members.insert_unique(hash, stored, hash_of);
        // SAFETY: the table owns the member from here until `remove` or `remove_at`, which take it
        // out of the tree first. Dropping a `Ranked` drops the tree without reading members.
        unsafe { self.order.insert(score, pointer) };
    }

    fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let hash = hash_bytes(member);
        let Some(stored) = self.members.find_mut(hash, |stored| stored.member() == member) else {
            self.add_new(hash, member, score);
            return None;
        };
        let old = stored.score();
        if old == score {
            return Some(old);
        }
        if !self.order.rescore_in_place(old, member, score) {
            let rank = self.order.rank(old, member);
            let removed = self.order.remove_at(rank);
            debug_assert!(removed.member == stored.as_ref());
            // SAFETY: as in `add_new`; the table still owns the member.
            unsafe { self.order.insert(score, stored.as_ref()) };
        }
        stored.set_score(score);
        Some(old)
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.find(member)?.score();
        let rank = self.order.rank(score, member);
        Some(self.remove_at(rank).score())
    }

    /// Takes the member of a rank, which must exist, out of tree and table.
    fn remove_at(&mut self, rank: usize) -> Scored {
        let pointer = self.order.remove_at(rank).member;
        // SAFETY: the table owns the member until the next statement has taken it out.
        let hash = hash_bytes(unsafe { pointer.member() });
        let removed = self
            .members
            .remove(hash, |stored| stored.as_ref() == pointer, hash_of)
            .expect("the table owns every member of the tree");
        self.member_bytes -= removed.memory_bytes();
        removed
    }
}

/// Iterator over members and scores in order, from both ends.
#[derive(Clone)]
pub struct Iter<'a>(IterForm<'a>);

#[derive(Clone)]
enum IterForm<'a> {
    Packed {
        entries: &'a Listpack,
        from: Position,
        /// The position behind the last entry, once it was asked for.
        to: Option<Position>,
        /// The rank behind the range.
        end: usize,
        left: usize,
    },
    Ranked(tree::Iter<'a>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterForm::Packed { entries, from, left, .. } => {
                *left = left.checked_sub(1)?;
                let entry = entries.get(*from)?;
                *from = entries.after(*from);
                Some(split(entry))
            }
            IterForm::Ranked(iter) => iter.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            IterForm::Packed { left, .. } => *left,
            IterForm::Ranked(iter) => iter.len(),
        };
        (left, Some(left))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterForm::Packed { entries, to, end, left, .. } => {
                *left = left.checked_sub(1)?;
                let behind = to.unwrap_or_else(|| entries.seek(*end));
                let at = entries.before(behind)?;
                *to = Some(at);
                entries.get(at).map(split)
            }
            IterForm::Ranked(iter) => iter.next_back(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Zset {
    type Item = (&'a [u8], f64);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

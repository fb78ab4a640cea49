//! `Tree`: a counted B+-tree of (score, member), the order of a large sorted set.
//!
//! Leaves hold scores in one array and member pointers in another, so that a search by score stays
//! within a few cache lines and looks at members only where scores tie. Inner nodes hold for each
//! child its first entry and the number of entries below it; that makes a position in the order
//! (a rank) the tree's only cursor: every kind of range is turned into ranks by
//! [`Tree::rank_where`], and iterators walk ranks, descending again once per leaf.
//!
//! Full nodes split in halves, or, at the right edge, by appending an empty one: ascending scores
//! fill leaves completely. Before a leaf splits it tries to pass entries to a neighbour. A node
//! that falls below a quarter joins or evens out with a neighbour. No node is ever empty.
//!
//! Members belong to somebody else: see [`Tree::insert`].

use std::cmp::Ordering;
use std::ops::Range;

use crate::ahead::Part;
use crate::bucket::prefetch;
use crate::scored::MemberRef;
use crate::size_class::class_size;

/// Entries of a leaf; with the length field a leaf takes 1016 bytes, just below a size class.
const LEAF: usize = 63;
/// Children of an inner node, likewise.
const FAN: usize = 25;
/// How many members ahead of its use an iterator asks for a member's memory.
const AHEAD: usize = 8;
/// A full leaf passes entries to a neighbour that has at least this much room, and splits otherwise.
const ROOM_TO_PASS: usize = LEAF / 8;

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub score: f64,
    pub member: MemberRef,
}

impl Entry {
    const NONE: Entry = Entry { score: 0.0, member: MemberRef::NONE };

    /// # Safety
    /// The member of `self` is live.
    #[inline]
    unsafe fn is_before(&self, score: f64, member: &[u8]) -> bool {
        // Scores are never NaN.
        match self.score.partial_cmp(&score) {
            Some(Ordering::Less) => true,
            // SAFETY: live by contract.
            Some(Ordering::Equal) => unsafe { self.member.member() < member },
            _ => false,
        }
    }
}

// The lines of memory that one end of a node takes part in are few in this order.
#[repr(C)]
struct Leaf {
    len: usize,
    scores: [f64; LEAF],
    members: [MemberRef; LEAF],
}

#[repr(C)]
struct Inner {
    len: usize,
    firsts: [Entry; FAN],
    counts: [usize; FAN],
    children: [Option<Node>; FAN],
}

enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Tree {
    root: Option<Node>,
    len: usize,
}

impl Leaf {
    fn new() -> Box<Leaf> {
        Box::new(Leaf { len: 0, scores: [0.0; LEAF], members: [MemberRef::NONE; LEAF] })
    }

    #[inline]
    fn entry(&self, at: usize) -> Entry {
        Entry { score: self.scores[at], member: self.members[at] }
    }

    /// The number of leading entries for which `before` holds.
    #[inline]
    fn partition(&self, before: &impl Fn(&Entry) -> bool) -> usize {
        partition(self.len, |at| before(&self.entry(at)))
    }

    /// Asks the processor for what an entry added behind `len` of them touches.
    fn prefetch_end(&self, len: usize) {
        let last = len.min(LEAF) - 1;
        prefetch(&raw const *self);
        prefetch(&raw const self.scores[last]);
        prefetch(&raw const self.members[last]);
    }

    fn insert(&mut self, at: usize, entry: Entry) {
        self.scores.copy_within(at..self.len, at + 1);
        self.members.copy_within(at..self.len, at + 1);
        self.scores[at] = entry.score;
        self.members[at] = entry.member;
        self.len += 1;
    }

    fn remove(&mut self, at: usize) -> Entry {
        let entry = self.entry(at);
        self.scores.copy_within(at + 1..self.len, at);
        self.members.copy_within(at + 1..self.len, at);
        self.len -= 1;
        entry
    }

    /// Moves the first `count` entries to the end of `left`.
    fn shift_to_left(&mut self, left: &mut Leaf, count: usize) {
        left.scores[left.len..left.len + count].copy_from_slice(&self.scores[..count]);
        left.members[left.len..left.len + count].copy_from_slice(&self.members[..count]);
        left.len += count;
        self.scores.copy_within(count..self.len, 0);
        self.members.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// Moves the last `count` entries to the front of `right`.
    fn shift_to_right(&mut self, right: &mut Leaf, count: usize) {
        let from = self.len - count;
        right.scores.copy_within(0..right.len, count);
        right.members.copy_within(0..right.len, count);
        right.scores[..count].copy_from_slice(&self.scores[from..self.len]);
        right.members[..count].copy_from_slice(&self.members[from..self.len]);
        right.len += count;
        self.len = from;
    }
}

impl Inner {
    fn new() -> Box<Inner> {
        Box::new(Inner {
            len: 0,
            firsts: [Entry::NONE; FAN],
            counts: [0; FAN],
            children: [const { None }; FAN],
        })
    }

    fn child(&self, at: usize) -> &Node {
        self.children[at].as_ref().expect("children below len exist")
    }

    fn child_mut(&mut self, at: usize) -> &mut Node {
        self.children[at].as_mut().expect("children below len exist")
    }

    /// Two neighbours, `at` and the one behind it.
    fn pair_mut(&mut self, at: usize) -> (&mut Node, &mut Node) {
        let (left, right) = self.children.split_at_mut(at + 1);
        let left = left[at].as_mut().expect("children below len exist");
        (left, right[0].as_mut().expect("children below len exist"))
    }

    /// Reads first entry and count of a child again.
    fn refresh(&mut self, at: usize) {
        self.firsts[at] = self.child(at).first();
        self.counts[at] = self.child(at).count();
    }

    fn insert(&mut self, at: usize, child: Node) {
        self.firsts.copy_within(at..self.len, at + 1);
        self.counts.copy_within(at..self.len, at + 1);
        self.children[at..=self.len].rotate_right(1);
        self.children[at] = Some(child);
        self.len += 1;
        self.refresh(at);
    }

    fn remove(&mut self, at: usize) {
        self.firsts.copy_within(at + 1..self.len, at);
        self.counts.copy_within(at + 1..self.len, at);
        self.children[at] = None;
        self.children[at..self.len].rotate_left(1);
        self.len -= 1;
    }

    /// Moves the first `count` children to the end of `left`.
    fn shift_to_left(&mut self, left: &mut Inner, count: usize) {
        for at in 0..count {
            left.children[left.len + at] = self.children[at].take();
        }
        left.firsts[left.len..left.len + count].copy_from_slice(&self.firsts[..count]);
        left.counts[left.len..left.len + count].copy_from_slice(&self.counts[..count]);
        left.len += count;
        self.children[..self.len].rotate_left(count);
        self.firsts.copy_within(count..self.len, 0);
        self.counts.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// Moves the last `count` children to the front of `right`.
    fn shift_to_right(&mut self, right: &mut Inner, count: usize) {
        let from = self.len - count;
        right.firsts.copy_within(0..right.len, count);
        right.counts.copy_within(0..right.len, count);
        right.children[..right.len + count].rotate_right(count);
        for at in 0..count {
            right.children[at] = self.children[from + at].take();
        }
        right.firsts[..count].copy_from_slice(&self.firsts[from..self.len]);
        right.counts[..count].copy_from_slice(&self.counts[from..self.len]);
        right.len += count;
        self.len = from;
    }

    /// The child that holds the entry of this rank, and the rank within it.
    #[inline]
    fn child_of_rank(&self, mut rank: usize) -> (usize, usize) {
        let mut at = 0;
        while at + 1 < self.len && rank >= self.counts[at] {
            rank -= self.counts[at];
            at += 1;
        }
        (at, rank)
    }

    /// Repairs child `at` after it lost an entry: drops it if empty, joins it with a neighbour or
    /// evens them out if it is too small.
    fn rebalance(&mut self, at: usize) {
        let (len, capacity) = self.child(at).fill();
        if len == 0 {
            self.remove(at);
            return;
        }
        if len * 4 >= capacity || self.len == 1 {
            self.refresh(at);
            return;
        }
        let left = if at > 0 { at - 1 } else { at };
        let joined = {
            let (a, b) = self.pair_mut(left);
            let (a_len, b_len) = (a.fill().0, b.fill().0);
            match (a, b) {
                (Node::Leaf(a), Node::Leaf(b)) if a_len + b_len <= capacity => {
                    b.shift_to_left(a, b_len);
                }
                (Node::Inner(a), Node::Inner(b)) if a_len + b_len <= capacity => {
                    b.shift_to_left(a, b_len);
                }
                (Node::Leaf(a), Node::Leaf(b)) if a_len < b_len => {
                    b.shift_to_left(a, (b_len - a_len) / 2);
                }
                (Node::Leaf(a), Node::Leaf(b)) => a.shift_to_right(b, (a_len - b_len) / 2),
                (Node::Inner(a), Node::Inner(b)) if a_len < b_len => {
                    b.shift_to_left(a, (b_len - a_len) / 2);
                }
                (Node::Inner(a), Node::Inner(b)) => a.shift_to_right(b, (a_len - b_len) / 2),
                _ => unreachable!("neighbours are of one kind"),
            }
            a_len + b_len <= capacity
        };
        self.refresh(left);
        if joined {
            self.remove(left + 1);
        } else {
            self.refresh(left + 1);
        }
    }

    /// Makes room in the full leaf `at` by passing entries to a neighbour, if one has room.
    fn pass_to_neighbour(&mut self, at: usize) -> bool {
        let room = |node: &Node| node.fill().1 - node.fill().0;
        if at + 1 < self.len && room(self.child(at + 1)) >= ROOM_TO_PASS {
            if let (Node::Leaf(a), Node::Leaf(b)) = self.pair_mut(at) {
                a.shift_to_right(b, (a.len - b.len).div_ceil(2));
            }
            self.refresh(at);
            self.refresh(at + 1);
            return true;
        }
        if at > 0 && room(self.child(at - 1)) >= ROOM_TO_PASS {
            if let (Node::Leaf(a), Node::Leaf(b)) = self.pair_mut(at - 1) {
                b.shift_to_left(a, (b.len - a.len).div_ceil(2));
            }
            self.refresh(at - 1);
            self.refresh(at);
            return true;
        }
        false
    }
}

impl Node {
    fn first(&self) -> Entry {
        match self {
            Node::Leaf(leaf) => leaf.entry(0),
            Node::Inner(inner) => inner.firsts[0],
        }
    }

    /// Entries below.
    fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len,
            Node::Inner(inner) => inner.counts[..inner.len].iter().sum(),
        }
    }

    /// Used and available places.
    fn fill(&self) -> (usize, usize) {
        match self {
            Node::Leaf(leaf) => (leaf.len, LEAF),
            Node::Inner(inner) => (inner.len, FAN),
        }
    }

    /// Inserts an entry; returns the node that split off to the right, if one did. `rightmost`
    /// tells that no node stands to the right of this one.
    fn insert(
        &mut self,
        entry: Entry,
        before: &impl Fn(&Entry) -> bool,
        rightmost: bool,
    ) -> Option<Node> {
        match self {
            Node::Leaf(leaf) => {
                let at = leaf.partition(before);
                if leaf.len < LEAF {
                    leaf.insert(at, entry);
                    return None;
                }
                let mut split = Leaf::new();
                if rightmost && at == LEAF {
                    split.insert(0, entry);
                    return Some(Node::Leaf(split));
                }
                leaf.shift_to_right(&mut split, LEAF / 2);
                if at <= leaf.len {
                    leaf.insert(at, entry);
                } else {
                    split.insert(at - leaf.len, entry);
                }
                Some(Node::Leaf(split))
            }
            Node::Inner(inner) => {
                let mut at = inner.child_for(before);
                let rightmost_child = rightmost && at + 1 == inner.len;
                if let Node::Leaf(leaf) = inner.child(at)
                    && leaf.len == LEAF
                    && !(rightmost_child && leaf.partition(before) == LEAF)
                    && inner.pass_to_neighbour(at)
                {
                    at = inner.child_for(before);
                }
                let rightmost_child = rightmost && at + 1 == inner.len;
                let Some(child) = inner.child_mut(at).insert(entry, before, rightmost_child) else {
                    inner.counts[at] += 1;
                    if at == 0 {
                        inner.firsts[0] = inner.child(0).first();
                    }
                    return None;
                };
                inner.refresh(at);
                if inner.len < FAN {
                    inner.insert(at + 1, child);
                    return None;
                }
                let mut split = Inner::new();
                if rightmost && at + 1 == FAN {
                    split.insert(0, child);
                    return Some(Node::Inner(split));
                }
                inner.shift_to_right(&mut split, FAN / 2);
                if at < inner.len {
                    inner.insert(at + 1, child);
                } else {
                    split.insert(at + 1 - inner.len, child);
                }
                Some(Node::Inner(split))
            }
        }
    }

    /// Removes the entry of a rank, which must exist.
    fn remove_at(&mut self, rank: usize) -> Entry {
        match self {
            Node::Leaf(leaf) => leaf.remove(rank),
            Node::Inner(inner) => {
                let (at, rank) = inner.child_of_rank(rank);
                let entry = inner.child_mut(at).remove_at(rank);
                inner.rebalance(at);
                entry
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Node::Leaf(_) => class_size(size_of::<Leaf>()),
            Node::Inner(inner) => {
                let below = inner.children[..inner.len].iter().flatten();
                class_size(size_of::<Inner>()) + below.map(Node::memory_bytes).sum::<usize>()
            }
        }
    }
}

impl Inner {
    /// The child that an entry belongs to, given what stands before it.
    #[inline]
    fn child_for(&self, before: &impl Fn(&Entry) -> bool) -> usize {
        partition(self.len, |at| before(&self.firsts[at])).saturating_sub(1)
    }
}

/// The number of leading indexes below `len` for which `before` holds, which must hold for a prefix.
/// The last one is asked first: what is ordered by time grows at its end.
#[inline]
fn partition(len: usize, before: impl Fn(usize) -> bool) -> usize {
    if len == 0 || before(len - 1) {
        return len;
    }
    let (mut low, mut high) = (0, len - 1);
    while low < high {
        let middle = (low + high) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl Tree {
    /// Bytes of all nodes. O(nodes).
    pub fn memory_bytes(&self) -> usize {
        self.root.as_ref().map_or(0, Node::memory_bytes)
    }

    /// Adds a member that is not in the tree.
    ///
    /// # Safety
    /// The member's owner lives until the member is removed from the tree or the tree is dropped
    /// or no longer used.
    pub unsafe fn insert(&mut self, score: f64, member: MemberRef) {
        debug_assert!(!score.is_nan());
        self.len += 1;
        let entry = Entry { score, member };
        // SAFETY: the new member is live by contract, and so is every member of the tree.
        let before = |other: &Entry| unsafe { other.is_before(score, member.member()) };
        let Some(root) = &mut self.root else {
            let mut leaf = Leaf::new();
            leaf.insert(0, entry);
            self.root = Some(Node::Leaf(leaf));
            return;
        };
        if let Some(split) = root.insert(entry, &before, true) {
            let mut top = Inner::new();
            let old = self.root.take().expect("just borrowed");
            top.insert(0, old);
            top.insert(1, split);
            self.root = Some(Node::Inner(top));
        }
    }

    /// Asks the processor for the next part of the way to the highest entry, where most are added;
    /// false when there is no further part.
    pub fn prefetch(&self, part: Part) -> bool {
        match (&self.root, part) {
            (Some(Node::Leaf(leaf)), Part::Bucket) => prefetch(&raw const **leaf),
            (Some(Node::Inner(inner)), Part::Bucket) => prefetch(&raw const **inner),
            (Some(Node::Leaf(leaf)), Part::Values) => leaf.prefetch_end(leaf.len),
            (Some(Node::Inner(inner)), Part::Values) => {
                let last = inner.len - 1;
                prefetch(&raw const inner.firsts[last]);
                prefetch(&raw const inner.counts[last]);
                prefetch(&raw const inner.children[last]);
            }
            (Some(Node::Inner(inner)), Part::ChainedValues) => {
                let last = inner.len - 1;
                match inner.child(last) {
                    Node::Leaf(leaf) => leaf.prefetch_end(inner.counts[last]),
                    Node::Inner(inner) => prefetch(&raw const **inner),
                }
            }
            _ => {}
        }
        matches!(self.root, Some(Node::Inner(_))) && part != Part::ChainedValues
    }

    /// The lowest entry. O(1).
    pub fn first(&self) -> Option<Entry> {
        self.root.as_ref().map(Node::first)
    }

    /// The number of leading entries for which `before` holds; it must hold for a prefix of the
    /// order.
    pub fn rank_where(&self, before: impl Fn(&Entry) -> bool) -> usize {
        let mut rank = 0;
        let mut node = self.root.as_ref();
        while let Some(Node::Inner(inner)) = node {
            let at = inner.child_for(&before);
            rank += inner.counts[..at].iter().sum::<usize>();
            node = Some(inner.child(at));
        }
        match node {
            Some(Node::Leaf(leaf)) => rank + leaf.partition(&before),
            _ => rank,
        }
    }

    /// The number of entries before (score, member).
    pub fn rank(&self, score: f64, member: &[u8]) -> usize {
        // SAFETY: every member of the tree is live.
        self.rank_where(|entry| unsafe { entry.is_before(score, member) })
    }

    /// The number of leading entries whose members satisfy `before`.
    pub fn rank_of_member(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        // SAFETY: every member of the tree is live.
        self.rank_where(|entry| before(unsafe { entry.member.member() }))
    }

    /// Removes the entry of a rank, which must exist.
    pub fn remove_at(&mut self, rank: usize) -> Entry {
        assert!(rank < self.len);
        let root = self.root.as_mut().expect("a tree with entries has a root");
        let entry = root.remove_at(rank);
        self.len -= 1;
        loop {
            match &mut self.root {
                Some(Node::Inner(inner)) if inner.len == 1 => {
                    let only = inner.children[0].take();
                    self.root = only;
                }
                Some(node) if node.fill().0 == 0 => {
                    self.root = None;
                    return entry;
                }
                _ => return entry,
            }
        }
    }

    /// Gives the entry (`old`, `member`) another score if it keeps its place and its leaf's edges
    /// are not concerned; false if it has to be removed and inserted.
    pub fn rescore_in_place(&mut self, old: f64, member: &[u8], new: f64) -> bool {
        // SAFETY: every member of the tree is live.
        let before = |entry: &Entry| unsafe { entry.is_before(old, member) };
        let mut node = self.root.as_mut();
        while let Some(Node::Inner(inner)) = node {
            let at = inner.child_for(&before);
            node = inner.children[at].as_mut();
            // An entry equal to a child's first one is in that child's predecessor by this
            // search, where it is not found: the slow way handles it.
        }
        let Some(Node::Leaf(leaf)) = node else { return false };
        let at = leaf.partition(&before);
        if at == 0 || at + 1 >= leaf.len {
            return false;
        }
        // SAFETY: as above.
        let keeps_place = unsafe {
            debug_assert!(leaf.members[at].member() == member);
            leaf.entry(at - 1).is_before(new, member) && !leaf.entry(at + 1).is_before(new, member)
        };
        if keeps_place {
            leaf.scores[at] = new;
        }
        keeps_place
    }

    fn leaf_of(&self, mut rank: usize) -> Option<(&Leaf, usize)> {
        if rank >= self.len {
            return None;
        }
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Leaf(leaf) => return Some((leaf, rank)),
                Node::Inner(inner) => {
                    let (at, below) = inner.child_of_rank(rank);
                    node = inner.child(at);
                    rank = below;
                }
            }
        }
    }

    /// The entries of a range of ranks, clamped, from both ends.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        let start = range.start.min(self.len);
        let end = range.end.clamp(start, self.len);
        Iter { tree: self, start, end, front: &[], front_scores: &[], back: &[], back_scores: &[] }
    }
}

/// Iterator over a range of ranks. Yields members that live as long as the tree is borrowed.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    tree: &'a Tree,
    /// Ranks not yet yielded.
    start: usize,
    end: usize,
    /// What is left of the leaf entered last from either side, beginning at `start` or ending at
    /// `end`; may reach beyond the other side, which the ranks check.
    front: &'a [MemberRef],
    front_scores: &'a [f64],
    back: &'a [MemberRef],
    back_scores: &'a [f64],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.start == self.end {
            return None;
        }
        if self.front.is_empty() {
            let (leaf, at) = self.tree.leaf_of(self.start)?;
            self.front = &leaf.members[at..leaf.len];
            self.front_scores = &leaf.scores[at..leaf.len];
            self.front.iter().take(AHEAD).for_each(|member| member.prefetch());
        } else if let Some(member) = self.front.get(AHEAD) {
            member.prefetch();
        }
        self.start += 1;
        let (member, score) = (self.front[0], self.front_scores[0]);
        self.front = &self.front[1..];
        self.front_scores = &self.front_scores[1..];
        // SAFETY: every member of the tree is live while the tree is borrowed.
        Some((unsafe { member.member() }, score))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.start, Some(self.end - self.start))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.start == self.end {
            return None;
        }
        if self.back.is_empty() {
            let (leaf, at) = self.tree.leaf_of(self.end - 1)?;
            self.back = &leaf.members[..=at];
            self.back_scores = &leaf.scores[..=at];
            self.back.iter().rev().take(AHEAD).for_each(|member| member.prefetch());
        } else if let Some(member) = self.back.len().checked_sub(AHEAD + 1) {
            self.back[member].prefetch();
        }
        self.end -= 1;
        let last = self.back.len() - 1;
        let (member, score) = (self.back[last], self.back_scores[last]);
        self.back = &self.back[..last];
        self.back_scores = &self.back_scores[..last];
        // SAFETY: every member of the tree is live while the tree is borrowed.
        Some((unsafe { member.member() }, score))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scored::Scored;
    use proptest::prelude::*;

    /// Checks everything the module's text promises; returns depth and entries below.
    fn check(node: &Node, last: &mut Option<(f64, Vec<u8>)>) -> (usize, usize) {
        assert!(node.fill().0 > 0, "no node is empty");
        match node {
            Node::Leaf(leaf) => {
                for at in 0..leaf.len {
                    let entry = leaf.entry(at);
                    // SAFETY: the test keeps all members of the tree.
                    let member = unsafe { entry.member.member() };
                    if let Some((score, before)) = last {
                        let ascends = *score < entry.score
                            || *score == entry.score && before.as_slice() < member;
                        assert!(ascends, "entries ascend");
                    }
                    *last = Some((entry.score, member.to_vec()));
                }
                (1, leaf.len)
            }
            Node::Inner(inner) => {
                let mut depth = None;
                for at in 0..inner.len {
                    let child = inner.child(at);
                    let first = child.first();
                    assert!(first.member == inner.firsts[at].member, "first entries are known");
                    assert_eq!(first.score, inner.firsts[at].score);
                    let (below, count) = check(child, last);
                    assert_eq!(count, inner.counts[at], "counts are right");
                    assert_eq!(*depth.get_or_insert(below), below, "leaves lie equally deep");
                }
                assert!(inner.children[inner.len..].iter().all(Option::is_none));
                (depth.unwrap_or(0) + 1, node.count())
            }
        }
    }

    fn check_tree(tree: &Tree) -> usize {
        let Some(root) = &tree.root else {
            assert_eq!(tree.len, 0);
            return 0;
        };
        let (depth, count) = check(root, &mut None);
        assert_eq!(count, tree.len);
        if let Node::Inner(root) = root {
            assert!(root.len > 1, "a root with one child is replaced by it");
        }
        depth
    }

    /// Adds a member and keeps its owner.
    fn insert(tree: &mut Tree, owners: &mut Vec<Scored>, number: usize, score: f64) {
        let owner = Scored::new(format!("m{number:06}").as_bytes(), score);
        // SAFETY: the owner is kept in `owners` until the tree is dropped.
        unsafe { tree.insert(score, owner.as_ref()) };
        owners.push(owner);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { count: usize, ascending: bool },
        RemoveRun { at: prop::sample::Index, count: usize },
        RemoveSpread { count: usize },
        Rescore { at: prop::sample::Index, by: f64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            3 => (1usize..3000, any::<bool>())
                .prop_map(|(count, ascending)| Step::Insert { count, ascending }),
            2 => (index(), 1usize..2500).prop_map(|(at, count)| Step::RemoveRun { at, count }),
            2 => (1usize..2500).prop_map(|count| Step::RemoveSpread { count }),
            2 => (index(), -2.0f64..2.0).prop_map(|(at, by)| Step::Rescore { at, by }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn keeps_its_invariants(steps in prop::collection::vec(step(), 1..25)) {
            let mut owners = Vec::new();
            let mut tree = Tree::default();
            let mut seed = 1u64;
            for step in steps {
                let len = tree.len;
                match step {
                    Step::Insert { count, ascending } => for _ in 0..count {
                        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                        let number = owners.len();
                        let random = (seed >> 40) as f64 / 1000.0;
                        let score = if ascending { 20_000.0 + number as f64 } else { random };
                        insert(&mut tree, &mut owners, number, score);
                    },
                    Step::RemoveRun { at, count } if len > 0 => {
                        let from = at.index(len);
                        for _ in from..len.min(from + count) {
                            tree.remove_at(from);
                        }
                    }
                    Step::RemoveSpread { count } => for step in 0..count.min(len) {
                        tree.remove_at(step * 7919 % tree.len);
                    },
                    Step::Rescore { at, by } if len > 0 => {
                        let (member, old) = tree.range(at.index(len)..len).next().unwrap();
                        let member = member.to_vec();
                        let changed = tree.rescore_in_place(old, &member, old + by);
                        let now = if changed { old + by } else { old };
                        let rank = tree.rank(now, &member);
                        prop_assert_eq!(tree.range(rank..rank + 1).next(), Some((&*member, now)));
                    }
                    Step::RemoveRun { .. } | Step::Rescore { .. } => {}
                }
                let depth = check_tree(&tree);
                prop_assert!(depth <= 4, "{} entries stand {depth} deep", tree.len);
            }
        }
    }

    #[test]
    fn ascending_scores_fill_leaves() {
        let mut owners = Vec::new();
        let mut tree = Tree::default();
        let count = 100_000;
        for number in 0..count {
            insert(&mut tree, &mut owners, number, number as f64);
        }
        check_tree(&tree);
        let bytes = tree.memory_bytes() as f64 / count as f64;
        assert!(bytes < 17.5, "{bytes} bytes for an entry of 16");
    }

    #[test]
    fn random_scores_fill_leaves_well() {
        let mut owners = Vec::new();
        let mut tree = Tree::default();
        let count = 100_000;
        for number in 0..count {
            let score = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64;
            insert(&mut tree, &mut owners, number, score);
        }
        check_tree(&tree);
        let bytes = tree.memory_bytes() as f64 / count as f64;
        assert!(bytes < 21.0, "{bytes} bytes for an entry of 16");
    }
}

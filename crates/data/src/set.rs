//! `Set`: integers in an intset, a few strings in a listpack, many in a hash table.
//!
//! A set only moves towards the larger encodings, by the rules of Redis 7.2: an intset beyond
//! `set-max-intset-entries` becomes a table; a string added to an intset makes it a listpack if
//! the listpack's limits allow, else a table; a listpack beyond its limits becomes a table.
//!
//! Members of an intset have no bytes to borrow, so reading yields [`Member`], which dereferences
//! to bytes either way.

use std::fmt;
use std::ops::Deref;

use crate::ahead::Part;
use crate::bytes::Bytes;
use crate::encoding::{Encoding, Limits};
use crate::intset::Intset;
use crate::listpack::{self, Listpack, entry_size};
use crate::number::{Digits, format_i64, parse_i64};
use crate::random::{below, distinct, hash_bytes};
use crate::size_class::class_size;
use crate::table::{self, Table};

/// A set of byte strings; the handle is 16 bytes.
#[derive(Debug)]
pub struct Set(Form);

enum Form {
    Integers(Intset),
    Packed(Listpack),
    Hashed(Box<Hashed>),
}

#[derive(Default)]
struct Hashed {
    table: Table<Bytes>,
    /// What the allocator gave for the members.
    member_bytes: usize,
}

impl Hashed {
    fn with_capacity(count: usize) -> Box<Hashed> {
        Box::new(Hashed { table: Table::with_capacity(count), member_bytes: 0 })
    }

    /// Adds a member known to be absent.
    fn add_new(&mut self, hash: u64, member: Bytes) {
        self.member_bytes += member.memory_bytes();
        self.table.insert_unique(hash, member, hash_of);
    }
}

/// A member of a set: borrowed bytes, or the text of an integer.
#[derive(Clone, Copy)]
pub enum Member<'a> {
    Bytes(&'a [u8]),
    Integer(Digits),
}

impl Deref for Member<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Member::Bytes(bytes) => bytes,
            Member::Integer(digits) => digits.as_bytes(),
        }
    }
}

impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Integers(set) => set.fmt(f),
            Form::Packed(set) => set.fmt(f),
            Form::Hashed(hashed) => f.debug_set().entries(&hashed.table).finish(),
        }
    }
}

fn hash_of(member: &Bytes) -> u64 {
    hash_bytes(member)
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Set {
    fn clone(&self) -> Set {
        Set(match &self.0 {
            Form::Integers(set) => Form::Integers(set.clone()),
            Form::Packed(set) => Form::Packed(set.clone()),
            Form::Hashed(hashed) => {
                let mut copy = Hashed::with_capacity(hashed.table.len());
                for member in &hashed.table {
                    copy.add_new(hash_of(member), member.clone());
                }
                Form::Hashed(copy)
            }
        })
    }
}

impl Set {
    /// An empty set, ready for integers.
    pub fn new() -> Set {
        Set(Form::Integers(Intset::new()))
    }

    /// An empty set in the encoding that suits `first` and the `count` members about to be added.
    pub fn for_members(first: &[u8], count: usize, limits: &Limits) -> Set {
        Set(if parse_i64(first).is_some() && count <= limits.set_max_intset_entries {
            Form::Integers(Intset::new())
        } else if count <= limits.set_max_listpack_entries {
            Form::Packed(Listpack::new())
        } else {
            Form::Hashed(Hashed::with_capacity(count))
        })
    }

    /// Tells that `count` members are about to be added at once: a compact set for which that is
    /// too many becomes a table now, as Redis does.
    pub fn prepare(&mut self, count: usize, limits: &Limits) {
        let too_many = match &self.0 {
            Form::Integers(_) => count > limits.set_max_intset_entries,
            Form::Packed(_) => count > limits.set_max_listpack_entries,
            Form::Hashed(_) => false,
        };
        if too_many {
            self.make_table(count);
        }
    }

    /// Becomes an intset if all members are integers and few enough, as results of SINTERSTORE do.
    pub fn compact_integers(&mut self, limits: &Limits) {
        if self.encoding() == Encoding::Intset || self.len() > intset_max(limits) {
            return;
        }
        let mut integers = Intset::new();
        for member in self.iter() {
            match parse_i64(&member) {
                Some(value) => integers.insert(value),
                None => return,
            };
        }
        self.0 = Form::Integers(integers);
    }

    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Integers(set) => set.len(),
            Form::Packed(set) => set.len(),
            Form::Hashed(hashed) => hashed.table.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Integers(_) => Encoding::Intset,
            Form::Packed(_) => Encoding::Listpack,
            Form::Hashed(_) => Encoding::Hashtable,
        }
    }

    /// Bytes allocated, the handle excluded.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Integers(set) => set.memory_bytes(),
            Form::Packed(set) => set.memory_bytes(),
            Form::Hashed(hashed) => {
                class_size(size_of::<Hashed>()) + hashed.table.memory_bytes() + hashed.member_bytes
            }
        }
    }

    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.0 {
            Form::Integers(set) => parse_i64(member).is_some_and(|value| set.contains(value)),
            Form::Packed(set) => set.find(member, set.first(), 1).is_some(),
            Form::Hashed(hashed) => {
                let is_member = |stored: &Bytes| stored.as_slice() == member;
                hashed.table.find(hash_bytes(member), is_member).is_some()
            }
        }
    }

    /// Adds a member; false if it was there.
    pub fn add(&mut self, member: &[u8], limits: &Limits) -> bool {
        match &mut self.0 {
            Form::Integers(set) => {
                if let Some(value) = parse_i64(member) {
                    if set.contains(value) {
                        return false;
                    }
                    if set.len() < intset_max(limits) {
                        return set.insert(value);
                    }
                    self.make_table(1);
                } else if self.fits_listpack(member, limits) {
                    self.make_listpack();
                } else {
                    self.make_table(1);
                }
                self.add_new(member);
                true
            }
            Form::Packed(set) => {
                if set.find(member, set.first(), 1).is_some() {
                    return false;
                }
                if set.len() >= limits.set_max_listpack_entries
                    || member.len() > limits.set_max_listpack_value
                    || !set.has_room(1, entry_size(member.len()))
                {
                    self.make_table(1);
                }
                self.add_new(member);
                true
            }
            Form::Hashed(hashed) => {
                let hash = hash_bytes(member);
                if hashed.table.find(hash, |stored| stored.as_slice() == member).is_some() {
                    return false;
                }
                hashed.add_new(hash, Bytes::new(member));
                true
            }
        }
    }

    /// Removes a member; false if it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Form::Integers(set) => parse_i64(member).is_some_and(|value| set.remove(value)),
            Form::Packed(set) => match set.find(member, set.first(), 1) {
                Some(at) => {
                    set.remove(at);
                    true
                }
                None => false,
            },
            Form::Hashed(hashed) => {
                let is_member = |stored: &Bytes| stored.as_slice() == member;
                match hashed.table.remove(hash_bytes(member), is_member, hash_of) {
                    Some(removed) => {
                        hashed.member_bytes -= removed.memory_bytes();
                        true
                    }
                    None => false,
                }
            }
        }
    }

    /// Asks the processor for the next part of the way to a member with this hash; false when there
    /// is no further part.
    #[inline]
    pub fn prefetch(&self, part: Part, hash: u64) -> bool {
        match (&self.0, part) {
            (Form::Integers(set), _) => set.prefetch(),
            (Form::Packed(set), _) => set.prefetch(),
            (Form::Hashed(hashed), part) => part.of_table(hashed, |hashed| &hashed.table, hash),
        }
    }

    /// All members, in no promised order (integers ascend).
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.0 {
            Form::Integers(set) => IterForm::Integers { set, next: 0 },
            Form::Packed(set) => IterForm::Packed(set.iter()),
            Form::Hashed(hashed) => IterForm::Hashed(hashed.table.iter()),
        })
    }

    /// Visits about `count` members from `cursor` on and returns the next cursor, 0 at the end;
    /// compact sets are visited whole. See [`Table::scan`] for the guarantee.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Member<'_>)) -> u64 {
        match &self.0 {
            Form::Hashed(hashed) => {
                scan_table(&hashed.table, cursor, count, |member| visit(Member::Bytes(member)))
            }
            _ => {
                self.iter().for_each(visit);
                0
            }
        }
    }

    /// A member drawn with (nearly) equal chances.
    pub fn random(&self, rng: &mut impl FnMut() -> u64) -> Option<Member<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.0 {
            Form::Integers(set) => {
                let index = below(rng, set.len());
                set.get(index).map(|value| Member::Integer(format_i64(value)))
            }
            Form::Packed(set) => set.nth(below(rng, set.len())).map(Member::Bytes),
            Form::Hashed(hashed) => hashed.table.random(rng).map(|member| Member::Bytes(member)),
        }
    }

    /// `count` different members (all of them if there are fewer), in random order.
    pub fn random_distinct(&self, count: usize, rng: &mut impl FnMut() -> u64) -> Vec<Member<'_>> {
        if let Form::Hashed(hashed) = &self.0 {
            return distinct_of_table(&hashed.table, count, rng)
                .into_iter()
                .map(|member| Member::Bytes(member))
                .collect();
        }
        let members: Vec<_> = self.iter().collect();
        distinct(rng, members.len(), count).into_iter().map(|at| members[at]).collect()
    }

    /// Removes and returns a member drawn with (nearly) equal chances.
    pub fn pop(&mut self, rng: &mut impl FnMut() -> u64) -> Option<Vec<u8>> {
        let member = self.random(rng)?.to_vec();
        self.remove(&member);
        Some(member)
    }

    /// Adds a member known to be absent and to fit the encoding.
    fn add_new(&mut self, member: &[u8]) {
        match &mut self.0 {
            Form::Integers(_) => unreachable!("the caller has chosen an encoding for strings"),
            Form::Packed(set) => set.push_back(member),
            Form::Hashed(hashed) => {
                hashed.add_new(hash_bytes(member), Bytes::new(member));
            }
        }
    }

    /// Whether an intset and one more string would make a listpack within the limits.
    fn fits_listpack(&self, member: &[u8], limits: &Limits) -> bool {
        let Form::Integers(set) = &self.0 else { return false };
        let text_len = |value: Option<i64>| value.map_or(0, |value| format_i64(value).len());
        // The longest texts belong to the least and the greatest.
        let longest = text_len(set.get(0)).max(text_len(set.get(set.len().wrapping_sub(1))));
        set.len() < limits.set_max_listpack_entries
            && member.len() <= limits.set_max_listpack_value
            && longest <= limits.set_max_listpack_value
    }

    fn make_listpack(&mut self) {
        let mut packed = Listpack::new();
        for member in self.iter() {
            packed.push_back(&member);
        }
        self.0 = Form::Packed(packed);
    }

    fn make_table(&mut self, additional: usize) {
        let mut hashed = Hashed::with_capacity(self.len() + additional);
        for member in self.iter() {
            hashed.add_new(hash_bytes(&member), Bytes::new(&member));
        }
        self.0 = Form::Hashed(hashed);
    }
}

fn intset_max(limits: &Limits) -> usize {
    limits.set_max_intset_entries.min(Intset::LEN_MAX)
}

/// Scans a table until about `count` values have been visited or ten times as many buckets.
pub(crate) fn scan_table<'a, T>(
    table: &'a Table<T>,
    mut cursor: u64,
    count: usize,
    mut visit: impl FnMut(&'a T),
) -> u64 {
    let mut visited = 0;
    for _ in 0..count.max(1).saturating_mul(10) {
        cursor = table.scan(cursor, |value| {
            visited += 1;
            visit(value);
        });
        if cursor == 0 || visited >= count {
            break;
        }
    }
    cursor
}

/// `count` different values of a table in random order.
pub(crate) fn distinct_of_table<'a, T>(
    table: &'a Table<T>,
    count: usize,
    rng: &mut impl FnMut() -> u64,
) -> Vec<&'a T> {
    /// With fewer than one in this many wanted, drawing until new is cheaper than listing all.
    const SPARSE: usize = 3;
    let count = count.min(table.len());
    let mut chosen = Vec::with_capacity(count);
    if count * SPARSE > table.len() {
        let all: Vec<&T> = table.iter().collect();
        chosen.extend(distinct(rng, all.len(), count).into_iter().map(|at| all[at]));
        return chosen;
    }
    let mut seen = std::collections::HashSet::with_capacity(count);
    // Values too deep in a chain are drawn rarely, so the draws are bounded and the rest listed.
    for _ in 0..count * 16 {
        if chosen.len() == count {
            return chosen;
        }
        if let Some(value) = table.random(rng)
            && seen.insert(std::ptr::from_ref(value))
        {
            chosen.push(value);
        }
    }
    let missing = count - chosen.len();
    chosen.extend(
        table.iter().filter(|value| !seen.contains(&std::ptr::from_ref(*value))).take(missing),
    );
    chosen
}

/// Iterator over the members of a set.
pub struct Iter<'a>(IterForm<'a>);

enum IterForm<'a> {
    Integers { set: &'a Intset, next: usize },
    Packed(listpack::Iter<'a>),
    Hashed(table::Iter<'a, Bytes>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Member<'a>;

    #[inline]
    fn next(&mut self) -> Option<Member<'a>> {
        match &mut self.0 {
            IterForm::Integers { set, next } => {
                let value = set.get(*next)?;
                *next += 1;
                Some(Member::Integer(format_i64(value)))
            }
            IterForm::Packed(iter) => iter.next().map(Member::Bytes),
            IterForm::Hashed(iter) => iter.next().map(|member| Member::Bytes(member)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            IterForm::Integers { set, next } => set.len() - next,
            IterForm::Packed(iter) => iter.len(),
            IterForm::Hashed(iter) => iter.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Set {
    type Item = Member<'a>;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

//! `Hash`: a few fields in a listpack (field, value, field, value…), many in a hash table.
//!
//! A hash only moves from listpack to table, when it has more fields than
//! `hash-max-listpack-entries` or a field or value longer than `hash-max-listpack-value`. In a
//! table each field is one allocation, [`Field`], holding name and value.
//!
//! Fields may have a time at which they are to go; what that means is the engine's affair. The times
//! stand beside the fields, so a hash without any pays nothing for them.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::BTreeSet;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use ahash::AHashMap;

use crate::ahead::Part;
use crate::encoding::{Encoding, Limits};
use crate::listpack::{self, Listpack, Position, entry_size};
use crate::random::{below, distinct, hash_bytes};
use crate::set::{distinct_of_table, scan_table};
use crate::size_class::class_size;
use crate::table::{self, Table};

/// A map from byte strings to byte strings; the handle is 16 bytes.
#[derive(Debug)]
pub struct Hash(Form);

enum Form {
    Packed(Listpack),
    Hashed(Box<Hashed>),
    Timed(Box<Timed>),
}

/// A hash of which some fields have a time.
#[derive(Clone)]
struct Timed {
    /// In one of the other forms.
    fields: Hash,
    times_ms: AHashMap<Arc<[u8]>, i64>,
    /// The same, the earliest first.
    order: BTreeSet<(i64, Arc<[u8]>)>,
    name_bytes: usize,
}

impl Timed {
    fn set_time(&mut self, field: &[u8], at_ms: Option<i64>) {
        if let Some((name, old)) = self.times_ms.remove_entry(field) {
            self.name_bytes -= name.len();
            self.order.remove(&(old, name));
        }
        if let Some(at_ms) = at_ms {
            let name: Arc<[u8]> = field.into();
            self.name_bytes += name.len();
            self.order.insert((at_ms, name.clone()));
            self.times_ms.insert(name, at_ms);
        }
    }

    fn memory_bytes(&self) -> usize {
        /// Of an `Arc`, beside the name; and about what a tree and a table take for each.
        const EACH: usize = 16 + 2 * (size_of::<(i64, Arc<[u8]>)>() + 8);
        size_of::<Timed>() + self.fields.memory_bytes() + self.name_bytes + self.order.len() * EACH
    }
}

#[derive(Default)]
struct Hashed {
    table: Table<Field>,
    /// What the allocator gave for the fields.
    field_bytes: usize,
}

impl Hashed {
    fn with_capacity(count: usize) -> Box<Hashed> {
        Box::new(Hashed { table: Table::with_capacity(count), field_bytes: 0 })
    }

    /// Adds a field known to be absent.
    fn add_new(&mut self, hash: u64, field: Field) {
        self.field_bytes += field.memory_bytes();
        self.table.insert_unique(hash, field, hash_of);
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Packed(fields) => fields.fmt(f),
            Form::Hashed(hashed) => f.debug_set().entries(&hashed.table).finish(),
            Form::Timed(timed) => write!(f, "{:?} at {:?}", timed.fields, timed.times_ms),
        }
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Hash {
    fn clone(&self) -> Hash {
        Hash(match &self.0 {
            Form::Packed(fields) => Form::Packed(fields.clone()),
            Form::Hashed(hashed) => {
                let mut copy = Hashed::with_capacity(hashed.table.len());
                for stored in &hashed.table {
                    let (field, value) = stored.pair();
                    copy.add_new(hash_of(stored), Field::new(field, value));
                }
                Form::Hashed(copy)
            }
            Form::Timed(timed) => Form::Timed(timed.clone()),
        })
    }
}

fn hash_of(field: &Field) -> u64 {
    hash_bytes(field.name())
}

impl Hash {
    pub fn new() -> Hash {
        Hash(Form::Packed(Listpack::new()))
    }

    /// Tells that `count` fields are about to be set at once: if that is too many for a listpack,
    /// the hash becomes a table now, as Redis does.
    pub fn prepare(&mut self, count: usize, limits: &Limits) {
        if let Form::Timed(timed) = &mut self.0 {
            return timed.fields.prepare(count, limits);
        }
        if matches!(self.0, Form::Packed(_)) && count > limits.hash_max_listpack_entries {
            self.make_table(count);
        }
    }

    /// Number of fields.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(fields) => fields.len() / 2,
            Form::Hashed(hashed) => hashed.table.len(),
            Form::Timed(timed) => timed.fields.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn encoding(&self) -> Encoding {
        match &self.0 {
            Form::Packed(_) => Encoding::Listpack,
            Form::Hashed(_) => Encoding::Hashtable,
            Form::Timed(timed) => match timed.fields.encoding() {
                Encoding::Listpack => Encoding::ListpackEx,
                other => other,
            },
        }
    }

    /// Whether any field has a time.
    pub fn has_times(&self) -> bool {
        matches!(self.0, Form::Timed(_))
    }

    /// The time of a field, Unix ms, if it has one.
    pub fn time_ms(&self, field: &[u8]) -> Option<i64> {
        let Form::Timed(timed) = &self.0 else { return None };
        timed.times_ms.get(field).copied()
    }

    /// The field whose time is the earliest.
    pub fn earliest(&self) -> Option<(i64, &[u8])> {
        let Form::Timed(timed) = &self.0 else { return None };
        timed.order.first().map(|(at_ms, field)| (*at_ms, &**field))
    }

    /// Gives a field that is there a time, or takes it away.
    pub fn set_time(&mut self, field: &[u8], at_ms: Option<i64>) {
        if let Form::Timed(timed) = &mut self.0 {
            timed.set_time(field, at_ms);
            if timed.times_ms.is_empty() {
                let fields = std::mem::take(&mut timed.fields);
                *self = fields;
            }
        } else if at_ms.is_some() {
            let mut timed = Timed {
                fields: std::mem::take(self),
                times_ms: AHashMap::new(),
                order: BTreeSet::new(),
                name_bytes: 0,
            };
            timed.set_time(field, at_ms);
            self.0 = Form::Timed(Box::new(timed));
        }
    }

    /// Bytes allocated, the handle excluded.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Packed(fields) => fields.memory_bytes(),
            Form::Hashed(hashed) => {
                class_size(size_of::<Hashed>()) + hashed.table.memory_bytes() + hashed.field_bytes
            }
            Form::Timed(timed) => timed.memory_bytes(),
        }
    }

    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.0 {
            Form::Packed(fields) => fields.get(value_position(fields, field)?),
            Form::Hashed(hashed) => {
                let is_field = |stored: &Field| stored.name() == field;
                hashed.table.find(hash_bytes(field), is_field).map(Field::value)
            }
            Form::Timed(timed) => timed.fields.get(field),
        }
    }

    #[inline]
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field; true if it is new. Its time stays.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.set_telling(field, value, limits, |_| {})
    }

    /// The same, telling before what the field has been.
    #[inline]
    pub fn set_telling(
        &mut self,
        field: &[u8],
        value: &[u8],
        limits: &Limits,
        tell: impl FnOnce(Option<&[u8]>),
    ) -> bool {
        if let Form::Timed(timed) = &mut self.0 {
            tell(timed.fields.get(field));
            return timed.fields.set(field, value, limits);
        }
        if let Form::Packed(fields) = &mut self.0 {
            let longest = field.len().max(value.len());
            let bytes = entry_size(field.len()) + entry_size(value.len());
            if longest <= limits.hash_max_listpack_value && fields.has_room(2, bytes) {
                if let Some(at) = value_position(fields, field) {
                    tell(fields.get(at));
                    fields.replace(at, value);
                    return false;
                }
                if fields.len() / 2 < limits.hash_max_listpack_entries {
                    tell(None);
                    fields.push_back(field);
                    fields.push_back(value);
                    return true;
                }
            }
            self.make_table(1);
        }
        let Form::Hashed(hashed) = &mut self.0 else { unreachable!("a table since above") };
        let hash = hash_bytes(field);
        if let Some(stored) = hashed.table.find_mut(hash, |stored| stored.name() == field) {
            tell(Some(stored.value()));
            hashed.field_bytes -= stored.memory_bytes();
            stored.set_value(value);
            hashed.field_bytes += stored.memory_bytes();
            return false;
        }
        tell(None);
        hashed.add_new(hash, Field::new(field, value));
        true
    }

    /// Removes a field with its time; false if there was none.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        if self.time_ms(field).is_some() {
            self.set_time(field, None);
        }
        match &mut self.0 {
            Form::Timed(timed) => timed.fields.remove(field),
            Form::Packed(fields) => match fields.find(field, fields.first(), 2) {
                Some(at) => {
                    fields.remove_many(at, 2);
                    true
                }
                None => false,
            },
            Form::Hashed(hashed) => {
                let is_field = |stored: &Field| stored.name() == field;
                match hashed.table.remove(hash_bytes(field), is_field, hash_of) {
                    Some(removed) => {
                        hashed.field_bytes -= removed.memory_bytes();
                        true
                    }
                    None => false,
                }
            }
        }
    }

    /// Asks the processor for the next part of the way to a field with this hash; false when there
    /// is no further part.
    #[inline]
    pub fn prefetch(&self, part: Part, hash: u64) -> bool {
        match (&self.0, part) {
            (Form::Packed(fields), _) => fields.prefetch(),
            (Form::Hashed(hashed), part) => part.of_table(hashed, |hashed| &hashed.table, hash),
            (Form::Timed(_), _) => false,
        }
    }

    /// All fields with their values, in no promised order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.0 {
            Form::Packed(fields) => IterForm::Packed(fields.iter()),
            Form::Hashed(hashed) => IterForm::Hashed(hashed.table.iter()),
            Form::Timed(timed) => return timed.fields.iter(),
        })
    }

    /// Visits about `count` fields from `cursor` on and returns the next cursor, 0 at the end; a
    /// listpack is visited whole. See [`Table::scan`] for the guarantee.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], &[u8])) -> u64 {
        match &self.0 {
            Form::Packed(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Hashed(hashed) => scan_table(&hashed.table, cursor, count, |stored| {
                let (field, value) = stored.pair();
                visit(field, value);
            }),
            Form::Timed(timed) => timed.fields.scan(cursor, count, visit),
        }
    }

    /// A field and its value, drawn with (nearly) equal chances.
    pub fn random(&self, rng: &mut impl FnMut() -> u64) -> Option<(&[u8], &[u8])> {
        match &self.0 {
            Form::Packed(fields) => {
                if fields.is_empty() {
                    return None;
                }
                let at = fields.seek(below(rng, fields.len() / 2) * 2);
                Some((fields.get(at)?, fields.get(fields.after(at))?))
            }
            Form::Hashed(hashed) => hashed.table.random(rng).map(Field::pair),
            Form::Timed(timed) => timed.fields.random(rng),
        }
    }

    /// `count` different fields (all if there are fewer) with their values, in random order.
    pub fn random_distinct(
        &self,
        count: usize,
        rng: &mut impl FnMut() -> u64,
    ) -> Vec<(&[u8], &[u8])> {
        match &self.0 {
            Form::Packed(_) => {
                let pairs: Vec<_> = self.iter().collect();
                distinct(rng, pairs.len(), count).into_iter().map(|at| pairs[at]).collect()
            }
            Form::Hashed(hashed) => {
                distinct_of_table(&hashed.table, count, rng).into_iter().map(Field::pair).collect()
            }
            Form::Timed(timed) => timed.fields.random_distinct(count, rng),
        }
    }

    fn make_table(&mut self, additional: usize) {
        let mut hashed = Hashed::with_capacity(self.len() + additional);
        for (field, value) in self.iter() {
            hashed.add_new(hash_bytes(field), Field::new(field, value));
        }
        self.0 = Form::Hashed(hashed);
    }
}

fn value_position(fields: &Listpack, field: &[u8]) -> Option<Position> {
    fields.find(field, fields.first(), 2).map(|at| fields.after(at))
}

/// A field of a table: name and value in one allocation behind a thin pointer.
///
/// Layout: name length and value length as one byte each (255: eight bytes follow), name, value.
#[repr(transparent)]
struct Field(NonNull<u8>);

// SAFETY: `Field` owns its allocation alone and has no interior mutability.
unsafe impl Send for Field {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Field {}

/// The first byte of a length that takes nine.
const LONG: u8 = 255;

#[derive(Clone, Copy, PartialEq)]
struct Lengths {
    header: usize,
    name: usize,
    value: usize,
}

impl Lengths {
    fn of(name: usize, value: usize) -> Lengths {
        let size = |len: usize| if len < LONG as usize { 1 } else { 9 };
        Lengths { header: size(name) + size(value), name, value }
    }

    /// The allocation is a whole class, so that a value may grow a little in place.
    fn layout(self) -> Layout {
        let total = class_size(self.header + self.name + self.value);
        Layout::from_size_align(total, 1).expect("name and value fit the address space")
    }
}

impl Field {
    fn new(name: &[u8], value: &[u8]) -> Field {
        let lengths = Lengths::of(name.len(), value.len());
        let layout = lengths.layout();
        // SAFETY: the layout has a non-zero size (the header).
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the allocation holds header, name and value.
        unsafe {
            let behind = write_length(write_length(start, name.len()), value.len());
            behind.as_ptr().copy_from_nonoverlapping(name.as_ptr(), name.len());
            let at_value = behind.add(name.len()).as_ptr();
            at_value.copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
        Field(start)
    }

    #[inline]
    fn lengths(&self) -> Lengths {
        // SAFETY: the allocation begins with two lengths as `write_length` wrote them.
        unsafe {
            let (name, name_size) = read_length(self.0);
            let (value, value_size) = read_length(self.0.add(name_size));
            Lengths { header: name_size + value_size, name, value }
        }
    }

    #[inline]
    fn pair(&self) -> (&[u8], &[u8]) {
        let lengths = self.lengths();
        // SAFETY: name and value follow the header, initialised, in one allocation.
        unsafe {
            let name = self.0.add(lengths.header);
            let value = name.add(lengths.name);
            (
                std::slice::from_raw_parts(name.as_ptr(), lengths.name),
                std::slice::from_raw_parts(value.as_ptr(), lengths.value),
            )
        }
    }

    #[inline]
    fn name(&self) -> &[u8] {
        self.pair().0
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.pair().1
    }

    fn memory_bytes(&self) -> usize {
        self.lengths().layout().size()
    }

    fn set_value(&mut self, value: &[u8]) {
        let old = self.lengths();
        let new = Lengths::of(old.name, value.len());
        if new.header != old.header || new.layout() != old.layout() {
            *self = Field::new(self.name(), value);
            return;
        }
        // SAFETY: same header size and same allocation size: the new value fits behind the name,
        // and the value's length stands behind the name's length.
        unsafe {
            let (_, name_size) = read_length(self.0);
            write_length(self.0.add(name_size), value.len());
            let at_value = self.0.add(old.header + old.name).as_ptr();
            at_value.copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
    }
}

/// Writes a length and returns the place behind it.
///
/// # Safety
/// One byte at `at` is writable, or nine if `len` is 255 or more.
unsafe fn write_length(at: NonNull<u8>, len: usize) -> NonNull<u8> {
    // SAFETY: by contract.
    unsafe {
        if len < LONG as usize {
            at.write(len as u8);
            at.add(1)
        } else {
            at.write(LONG);
            at.add(1).cast::<u64>().write_unaligned(len as u64);
            at.add(9)
        }
    }
}

/// A length and the bytes it takes.
///
/// # Safety
/// `write_length` has written a length at `at`.
#[inline]
unsafe fn read_length(at: NonNull<u8>) -> (usize, usize) {
    // SAFETY: by contract.
    unsafe {
        match at.read() {
            LONG => (at.add(1).cast::<u64>().read_unaligned() as usize, 9),
            short => (short as usize, 1),
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // SAFETY: allocated with the layout of these lengths: `set_value` keeps it or reallocates.
        unsafe { dealloc(self.0.as_ptr(), self.lengths().layout()) }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = self.pair();
        write!(f, "\"{}\": \"{}\"", name.escape_ascii(), value.escape_ascii())
    }
}

/// Iterator over the fields of a hash and their values.
pub struct Iter<'a>(IterForm<'a>);

enum IterForm<'a> {
    Packed(listpack::Iter<'a>),
    Hashed(table::Iter<'a, Field>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterForm::Packed(iter) => Some((iter.next()?, iter.next()?)),
            IterForm::Hashed(iter) => iter.next().map(Field::pair),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            IterForm::Packed(iter) => iter.len() / 2,
            IterForm::Hashed(iter) => iter.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Hash {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_with_their_fields() {
        let limits = Limits { hash_max_listpack_entries: 8, ..Limits::default() };
        let mut hash = Hash::new();
        for number in 0..20_u8 {
            hash.set(&[number], b"v", &limits);
            if number % 2 == 0 {
                hash.set_time(&[number], Some(1000 - i64::from(number)));
            }
            let encoding = if number < 8 { Encoding::ListpackEx } else { Encoding::Hashtable };
            assert_eq!(hash.encoding(), encoding);
        }
        assert_eq!(hash.earliest(), Some((982, &[18][..])));
        hash.set(&[18], b"w", &limits);
        assert_eq!(hash.time_ms(&[18]), Some(982));
        assert_eq!(hash.get(&[18]), Some(&b"w"[..]));
        let copy = hash.clone();
        assert!(hash.remove(&[18]));
        assert_eq!(hash.time_ms(&[18]), None);
        assert_eq!(hash.earliest(), Some((984, &[16][..])));
        assert_eq!(copy.earliest(), Some((982, &[18][..])));
        hash.set_time(&[16], Some(5000));
        assert_eq!(hash.earliest(), Some((986, &[14][..])));
        (0..20).for_each(|number| hash.set_time(&[number], None));
        assert!(!hash.has_times());
        assert_eq!(hash.len(), 19);
    }
}

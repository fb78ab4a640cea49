//! The keys of a table in an order that depends on the keys alone, for encoders: the order in
//! which they lie in memory differs between VMs with the same content.

use std::cmp::Ordering;
use std::ops::Range;

use crate::internals::{self, Bits, Table, Value, value_of};
use crate::sort;
use crate::sys::lua_State;

/// Tables of up to this many keys at this many depths have their order remembered.
const SHAPE_KEYS_MAX: usize = 64;
const SHAPES: usize = 8;

/// Larger tables are sorted with looks at the interrupt.
const ENTRIES_AT_ONCE: usize = 4096;

#[derive(Clone, Copy)]
struct Entry {
    key: Bits,
    value: Bits,
}

/// The order of the last table at a depth: most tables of a list look alike.
#[derive(Default)]
struct Shape {
    /// Keys as they lie in the table, and the sorted order as indexes into them.
    keys: Vec<Bits>,
    order: Vec<u8>,
}

/// Entries of the tables being encoded, innermost last.
#[derive(Default)]
pub struct Order {
    entries: Vec<Entry>,
    shapes: [Shape; SHAPES],
    large: [Vec<Entry>; 2],
}

impl Order {
    /// Before a new encoding: what was remembered may point to strings that are gone.
    pub fn clear(&mut self) {
        self.entries.clear();
        for shape in &mut self.shapes {
            shape.keys.clear();
        }
    }

    /// Collects a table's entries: numbers first, then strings by their bytes, then the rest.
    ///
    /// # Safety
    /// The table is live and nothing changes Lua's heap until `release`; may raise.
    pub unsafe fn collect(
        &mut self,
        L: *mut lua_State,
        table: *const Table,
        depth: i32,
    ) -> Range<usize> {
        let first = self.entries.len();
        let mut all_strings = true;
        // SAFETY: by the caller.
        unsafe {
            for (index, &value) in internals::array_part(table).iter().enumerate() {
                if value != internals::NIL {
                    all_strings = false;
                    let key = internals::number_bits(index as f64);
                    self.entries.push(Entry { key, value });
                }
            }
            for (key, value) in internals::hash_part(table) {
                all_strings &= matches!(value_of(key), Value::Str(_));
                self.entries.push(Entry { key, value });
            }
            self.sort(L, first, all_strings, depth);
        }
        first..self.entries.len()
    }

    /// Key and value of a collected entry.
    pub fn get(&self, index: usize) -> (Bits, Bits) {
        let Entry { key, value } = self.entries[index];
        (key, value)
    }

    pub fn release(&mut self, entries: Range<usize>) {
        self.entries.truncate(entries.start);
    }

    unsafe fn sort(&mut self, L: *mut lua_State, first: usize, all_strings: bool, depth: i32) {
        let entries = &mut self.entries[first..];
        if entries.len() < 2 {
            return;
        }
        if entries.len() > ENTRIES_AT_ONCE {
            let [values, spare] = &mut self.large;
            values.clear();
            values.extend_from_slice(entries);
            // SAFETY: keys of a live table; the buffers outlive an error raised meanwhile.
            unsafe {
                let order = |a: &Entry, b: &Entry| compare(a.key, b.key);
                let piece = |piece: &mut [Entry]| piece.sort_by(order);
                sort::sort(L, values, spare, piece, order, |entry| bytes_of(entry.key));
            }
            entries.copy_from_slice(values);
            self.large.iter_mut().for_each(crate::context::shrink);
            return;
        }
        if !all_strings || entries.len() > SHAPE_KEYS_MAX {
            // SAFETY: keys of a live table.
            entries.sort_by(|a, b| unsafe { compare(a.key, b.key) });
            return;
        }
        let shape = &mut self.shapes[depth as usize % SHAPES];
        let known = shape.keys.len() == entries.len()
            && shape.keys.iter().zip(entries.iter()).all(|(key, entry)| *key == entry.key);
        if !known {
            shape.keys.clear();
            shape.keys.extend(entries.iter().map(|entry| entry.key));
            shape.order.clear();
            shape.order.extend(0..entries.len() as u8);
            let keys = &shape.keys;
            // SAFETY: keys of a live table.
            shape.order.sort_unstable_by(|&a, &b| unsafe {
                compare(keys[usize::from(a)], keys[usize::from(b)])
            });
        }
        let mut unsorted = [Entry { key: 0, value: 0 }; SHAPE_KEYS_MAX];
        unsorted[..entries.len()].copy_from_slice(entries);
        for (slot, &from) in entries.iter_mut().zip(&shape.order) {
            *slot = unsorted[usize::from(from)];
        }
    }
}

/// How many bytes a comparison may have to look at.
///
/// # Safety
/// A live value.
unsafe fn bytes_of(key: Bits) -> usize {
    match value_of(key) {
        // SAFETY: by the caller.
        Value::Str(string) => unsafe { internals::string_bytes(string).len() },
        _ => 0,
    }
}

/// # Safety
/// Both are live values.
unsafe fn compare(a: Bits, b: Bits) -> Ordering {
    match (value_of(a), value_of(b)) {
        // SAFETY: by the caller.
        (Value::Str(a), Value::Str(b)) => unsafe {
            internals::string_bytes(a).cmp(internals::string_bytes(b))
        },
        (Value::Number(a), Value::Number(b)) => a.total_cmp(&b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn rank(value: Value) -> u32 {
    match value {
        Value::Number(_) => 0,
        Value::Str(_) => 1,
        Value::False => 2,
        Value::True => 3,
        _ => 4,
    }
}

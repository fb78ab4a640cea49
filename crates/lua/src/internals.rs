//! LuaJIT's values and tables as they lie in memory (GC64), for reading tables without a call per
//! element and for building them. `glue.c` refuses to compile when the layout is another.
//!
//! Used by cjson, `table.sort` and the start of a run. Everything here is unsafe in the same way: a pointer is good until the
//! garbage collector runs, and it runs in no function of this module except `push`.

use std::ffi::c_int;

use crate::interrupt;
use crate::sys::{lua_State, lua_tolstring, luar_collect_step};

/// A value: a double, or a tag in the upper 17 bits and a pointer below.
pub type Bits = u64;

const POINTER_MASK: u64 = (1 << 47) - 1;

const fn tagged(tag: u64) -> u64 {
    (!tag) << 47
}

pub const NIL: Bits = u64::MAX;
pub const FALSE: Bits = tagged(1) | POINTER_MASK;
pub const TRUE: Bits = tagged(2) | POINTER_MASK;
const TAG_STRING: u64 = 4;
const TAG_TABLE: u64 = 11;
const TAG_NUMBER: u64 = 13;

#[repr(C)]
pub struct Table {
    _header: [u64; 2],
    array: *const Bits,
    _list: u64,
    metatable: *const Table,
    node: *const Node,
    array_len: u32,
    hash_mask: u32,
}

#[repr(C)]
pub struct Node {
    pub value: Bits,
    pub key: Bits,
    _next: u64,
}

#[repr(C)]
pub struct Str {
    _header: [u32; 5],
    len: u32,
}

/// What a value is, as far as cjson cares.
#[derive(Clone, Copy)]
pub enum Value {
    Nil,
    False,
    True,
    Number(f64),
    Str(*const Str),
    Table(*const Table),
    /// The number is the type's tag.
    Other(u32),
}

#[inline]
pub fn value_of(bits: Bits) -> Value {
    let tag = !((bits as i64 >> 47) as u32);
    match tag {
        TAG_DOUBLE_OR_MORE.. => Value::Number(f64::from_bits(bits)),
        13 => Value::Number(f64::from(bits as i32)), // dual-number mode, as on arm64
        4 => Value::Str((bits & POINTER_MASK) as *const Str),
        11 => Value::Table((bits & POINTER_MASK) as *const Table),
        0 => Value::Nil,
        1 => Value::False,
        2 => Value::True,
        other => Value::Other(other),
    }
}

/// Doubles have tags above that of any other value; on x86-64 tag 13 itself is one of them only
/// as a NaN pattern that LuaJIT never makes.
const TAG_DOUBLE_OR_MORE: u32 = TAG_NUMBER as u32 + 1;

#[inline]
pub fn string_bits(string: *const Str) -> Bits {
    tagged(TAG_STRING) | string as u64
}

#[inline]
pub fn table_bits(table: *const Table) -> Bits {
    tagged(TAG_TABLE) | table as u64
}

/// A number as LuaJIT stores it; any NaN becomes the one it knows.
#[inline]
pub fn number_bits(value: f64) -> Bits {
    if value.is_nan() { 0xfff8_0000_0000_0000 } else { value.to_bits() }
}

impl Value {
    /// The name of the type in error messages.
    pub fn type_name(self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::False | Value::True => "boolean",
            Value::Number(_) => "number",
            Value::Str(_) => "string",
            Value::Table(_) => "table",
            Value::Other(3 | 12) => "userdata",
            Value::Other(6) => "thread",
            Value::Other(8) => "function",
            Value::Other(_) => "cdata",
        }
    }
}

/// # Safety
/// `string` is a live Lua string.
#[inline]
pub unsafe fn string_bytes<'a>(string: *const Str) -> &'a [u8] {
    // SAFETY: the bytes follow the header of a live string.
    unsafe { std::slice::from_raw_parts(string.add(1).cast(), (*string).len as usize) }
}

/// Whether a text at least as long as the string begins with it.
///
/// # Safety
/// `string` is live, and `text` lies in a Lua string, so that as many bytes as a string's header
/// takes may be read in front of it.
#[inline]
pub unsafe fn starts_with(text: &[u8], string: *const Str) -> bool {
    // SAFETY: words that begin in front of the bytes lie in the headers in front of them.
    unsafe {
        let len = (*string).len as usize;
        debug_assert!(text.len() >= len);
        let (a, b) = (text.as_ptr(), string.add(1).cast::<u8>());
        let word = |from: *const u8, at: usize| {
            from.offset(at as isize - 8).cast::<u64>().read_unaligned()
        };
        let mut left = len;
        while left >= 8 {
            if word(a, left) != word(b, left) {
                return false;
            }
            left -= 8;
        }
        // The bytes in front of what is left are shifted out.
        left == 0 || u64::from_le(word(a, left) ^ word(b, left)) >> (64 - 8 * left) == 0
    }
}

/// Array slots 0 to n (slot 0 is the key 0).
///
/// # Safety
/// `table` is live and not changed meanwhile.
#[inline]
pub unsafe fn array_part<'a>(table: *const Table) -> &'a [Bits] {
    // SAFETY: a live table's array has `array_len` slots; it is null if that is 0.
    unsafe {
        match (*table).array_len as usize {
            0 => &[],
            len => std::slice::from_raw_parts((*table).array, len),
        }
    }
}

/// Slots 1 to `count` of the array part for writing; None if it does not reach that far.
///
/// # Safety
/// As `array_part`; what is written was in the table before, so that the collector needs no
/// barrier.
pub unsafe fn list_slots<'a>(table: *const Table, count: usize) -> Option<&'a mut [Bits]> {
    // SAFETY: a live table's array has `array_len` slots.
    unsafe {
        ((*table).array_len as usize > count)
            .then(|| std::slice::from_raw_parts_mut((*table).array.add(1).cast_mut(), count))
    }
}

/// The metatable, null if there is none.
///
/// # Safety
/// `table` is live.
#[inline]
pub unsafe fn metatable(table: *const Table) -> *const Table {
    // SAFETY: by the caller.
    unsafe { (*table).metatable }
}

/// All nodes of the hash part; free ones have the value nil.
///
/// # Safety
/// As `array_part`.
#[inline]
pub unsafe fn nodes<'a>(table: *const Table) -> &'a [Node] {
    // SAFETY: a table always has at least one node (a shared empty one if it has no hash part).
    unsafe { std::slice::from_raw_parts((*table).node, (*table).hash_mask as usize + 1) }
}

/// Keys and values of the hash part, free slots left out.
///
/// # Safety
/// As `array_part`.
#[inline]
pub unsafe fn hash_part<'a>(table: *const Table) -> impl Iterator<Item = (Bits, Bits)> + 'a {
    // SAFETY: by the caller.
    let nodes = unsafe { nodes(table) };
    nodes.iter().filter(|node| node.value != NIL).map(|node| (node.key, node.value))
}

/// The value at integer key `key`.
///
/// # Safety
/// As `array_part`.
pub unsafe fn value_at(table: *const Table, key: usize) -> Bits {
    // SAFETY: by the caller.
    unsafe {
        if let Some(&value) = array_part(table).get(key) {
            return value;
        }
        match i32::try_from(key) {
            Ok(key) => luar_value_at(table, key),
            Err(_) => NIL,
        }
    }
}

unsafe extern "C-unwind" {
    fn luar_value_at(table: *const Table, key: i32) -> Bits;
    fn luar_push_value(L: *mut lua_State, bits: Bits);
    fn luar_new_array(L: *mut lua_State, values: *const Bits, count: u32) -> *mut Table;
    fn luar_new_table(L: *mut lua_State, keys: u32) -> *mut Table;
    fn luar_set_pairs(L: *mut lua_State, table: *mut Table, pairs: *const Bits, count: u32);
    fn luar_slots_of(table: *const Table, pairs: *const Bits, count: u32, slots: *mut u8) -> c_int;
    fn luar_new_object_like(
        L: *mut lua_State,
        like: *const Table,
        slots: *const u8,
        pairs: *const Bits,
        count: u32,
    ) -> *mut Table;
    fn luar_argument(L: *mut lua_State, place: u32) -> Bits;
    fn luar_mark_new(table: *const Table, metatable: *const Table);
    fn luar_list_len(table: *const Table) -> u32;
    fn luar_old_list(L: *mut lua_State, t: *const Table, name: *const Str, count: u32)
    -> *mut Bits;
    fn luar_push_list(L: *mut lua_State, count: u32) -> *mut Bits;
    fn luar_set_field(L: *mut lua_State, table: *const Table, name: *const Str);
    fn luar_new_string(L: *mut lua_State, text: *const u8, len: usize) -> *mut Str;
}

/// Pushes a value, then lets the garbage collector take a step if it is due.
///
/// # Safety
/// The stack has room; may raise.
pub unsafe fn push(L: *mut lua_State, bits: Bits) {
    // SAFETY: by the caller.
    unsafe { luar_push_value(L, bits) }
}

/// # Safety
/// The values are live; may raise.
pub unsafe fn new_array(L: *mut lua_State, values: &[Bits]) -> Bits {
    // SAFETY: by the caller.
    unsafe { table_bits(luar_new_array(L, values.as_ptr(), values.len() as u32)) }
}

/// A table of string keys and values, alternating; the last of equal keys stays.
///
/// # Safety
/// As `new_array`.
pub unsafe fn new_object(L: *mut lua_State, pairs: &[Bits]) -> Bits {
    const PAIRS_AT_ONCE: usize = 16 << 10;
    let count = (pairs.len() / 2) as u32;
    // SAFETY: by the caller. Nothing collects the table between the pieces.
    unsafe {
        let table = luar_new_table(L, count);
        for (at, piece) in pairs.chunks(2 * PAIRS_AT_ONCE).enumerate() {
            if at > 0 {
                interrupt::poll(L);
            }
            luar_set_pairs(L, table, piece.as_ptr(), (piece.len() / 2) as u32);
        }
        table_bits(table)
    }
}

/// What it takes to make tables with the keys of a given one.
pub struct Likeness {
    table: *const Table,
    slots: [u8; LIKENESS_KEYS_MAX],
}

pub const LIKENESS_KEYS_MAX: usize = 64;

impl Likeness {
    /// Of a table made by `new_object` from the same pairs and not changed since.
    ///
    /// # Safety
    /// `object` is such a table; what is made of this is used only while the table lives on
    /// unchanged.
    pub unsafe fn of(object: Bits, pairs: &[Bits]) -> Option<Likeness> {
        let count = pairs.len() / 2;
        let Value::Table(table) = value_of(object) else { return None };
        let mut slots = [0; LIKENESS_KEYS_MAX];
        let fits = count <= LIKENESS_KEYS_MAX
            // SAFETY: by the caller; there is room for so many slots.
            && unsafe { luar_slots_of(table, pairs.as_ptr(), count as u32, slots.as_mut_ptr()) }
                != 0;
        fits.then_some(Likeness { table, slots })
    }

    /// A table of the same keys in the same order with these values.
    ///
    /// # Safety
    /// `pairs` has the keys that the likeness was made of; may raise.
    pub unsafe fn new_object(&self, L: *mut lua_State, pairs: &[Bits]) -> Bits {
        let (slots, count) = (self.slots.as_ptr(), (pairs.len() / 2) as u32);
        // SAFETY: by the caller.
        unsafe { table_bits(luar_new_object_like(L, self.table, slots, pairs.as_ptr(), count)) }
    }
}

/// Stores a list of strings in a table as field `name`, a string that lives on. A list of that
/// length that is there already is filled anew.
///
/// # Safety
/// Table and name live on, and there is room for one value on the stack; nobody else uses a list
/// that is there already; may raise.
pub unsafe fn set_list(L: *mut lua_State, table: *const Table, name: *const Str, values: &[&[u8]]) {
    // SAFETY: by the caller.
    unsafe {
        let old = luar_old_list(L, table, name, values.len() as u32);
        if old.is_null() {
            push_list(L, values);
            luar_set_field(L, table, name);
        } else {
            fill(L, old, values);
            luar_collect_step(L);
        }
    }
}

/// Pushes a list of strings. No garbage is collected by that.
///
/// # Safety
/// There is room for one value on the stack; may raise.
#[inline(always)]
pub unsafe fn push_list(L: *mut lua_State, values: &[&[u8]]) {
    // SAFETY: by the caller.
    unsafe { fill(L, luar_push_list(L, values.len() as u32), values) }
}

/// Writes strings from a place in a list on.
#[inline(always)]
unsafe fn fill(L: *mut lua_State, list: *mut Bits, values: &[&[u8]]) {
    // SAFETY: the list has room; making strings runs no collector and leaves it where it is.
    unsafe {
        for (at, value) in values.iter().enumerate() {
            list.add(at).write(string_bits(new_string(L, value)));
        }
    }
}

/// The string on top of the stack, which stays there.
///
/// # Safety
/// There is one.
pub unsafe fn string_on_top(L: *mut lua_State) -> *const Str {
    // SAFETY: a string's bytes follow its header.
    unsafe { lua_tolstring(L, -1, std::ptr::null_mut()).cast::<Str>().sub(1) }
}

/// The argument at `place` (from 1) of the running C function.
///
/// # Safety
/// There are that many.
pub unsafe fn argument(L: *mut lua_State, place: u32) -> Bits {
    // SAFETY: by the caller.
    unsafe { luar_argument(L, place) }
}

/// Gives a table just made its metatable.
///
/// # Safety
/// `table` is one that nothing else was done with; the metatable lives as long as the VM.
pub unsafe fn mark_new(table: Bits, metatable: *const Table) {
    // SAFETY: by the caller.
    unsafe { luar_mark_new((table & POINTER_MASK) as *const Table, metatable) }
}

/// `#table`, without metamethods.
///
/// # Safety
/// `table` is live.
pub unsafe fn list_len(table: *const Table) -> usize {
    // SAFETY: by the caller.
    unsafe { luar_list_len(table) as usize }
}

/// # Safety
/// May raise.
pub unsafe fn new_string(L: *mut lua_State, text: &[u8]) -> *const Str {
    // SAFETY: by the caller.
    unsafe { luar_new_string(L, text.as_ptr(), text.len()) }
}

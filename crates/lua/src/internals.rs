//! LuaJIT's values and tables as they lie in memory (GC64), for reading tables without a call per
//! element and for building them. `glue.c` refuses to compile when the layout is another.
//!
//! Used by cjson only. Everything here is unsafe in the same way: a pointer is good until the
//! garbage collector runs, and it runs in no function of this module except `push`.

use crate::sys::lua_State;

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
    _links: [u64; 2],
    node: *const Node,
    array_len: u32,
    hash_mask: u32,
}

#[repr(C)]
struct Node {
    value: Bits,
    key: Bits,
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

/// Keys and values of the hash part, free slots left out.
///
/// # Safety
/// As `array_part`.
#[inline]
pub unsafe fn hash_part<'a>(table: *const Table) -> impl Iterator<Item = (Bits, Bits)> + 'a {
    // SAFETY: a table always has at least one node (a shared empty one if it has no hash part).
    let nodes =
        unsafe { std::slice::from_raw_parts((*table).node, (*table).hash_mask as usize + 1) };
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
    fn luar_new_object(L: *mut lua_State, pairs: *const Bits, count: u32) -> *mut Table;
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
    // SAFETY: by the caller.
    unsafe { table_bits(luar_new_object(L, pairs.as_ptr(), (pairs.len() / 2) as u32)) }
}

/// # Safety
/// May raise.
pub unsafe fn new_string(L: *mut lua_State, text: &[u8]) -> *const Str {
    // SAFETY: by the caller.
    unsafe { luar_new_string(L, text.as_ptr(), text.len()) }
}

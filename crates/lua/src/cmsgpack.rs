//! The `cmsgpack` library: MessagePack, as Redis ships it.
//!
//! One deliberate difference: like `cjson.encode`, `pack` writes the keys of a map in an order
//! that depends on the content alone.

use std::ffi::{CStr, c_int};

use crate::bridge::{self, context_upvalue};
use crate::context::{Context, stack_place};
use crate::convert::push_bytes;
use crate::internals::{self, Bits, Table, Value, value_of};
use crate::interrupt;
use crate::order::Order;
use crate::raise;
use crate::sys::*;

/// Tables nested deeper are packed as nil, which is also what ends a cycle.
const NESTING_MAX: u32 = 16;

/// How deep unpacked values may nest; keeps native recursion bounded.
const UNPACK_NESTING_MAX: u32 = 4000;

const MANY_VALUES: &CStr =
    c"too many return values at once; use unpack_one or unpack_limit instead.";

/// Pushes the `cmsgpack` table.
///
/// # Safety
/// Called at set-up inside a protected call; may raise.
pub unsafe fn push_library(L: *mut lua_State, context: *mut Context) {
    // SAFETY: by the caller.
    unsafe {
        lua_createtable(L, 0, 8);
        for (name, function) in [
            (c"pack", pack as lua_CFunction),
            (c"unpack", unpack as lua_CFunction),
            (c"unpack_one", unpack_one as lua_CFunction),
            (c"unpack_limit", unpack_limit as lua_CFunction),
        ] {
            bridge::push_function(L, context, function);
            lua_setfield(L, -2, name.as_ptr());
        }
        for (name, text) in [
            (c"_NAME", &b"cmsgpack"[..]),
            (c"_VERSION", b"lua-cmsgpack 0.4.0"),
            (c"_COPYRIGHT", b"Copyright (C) 2012, Salvatore Sanfilippo"),
            (c"_DESCRIPTION", b"MessagePack C implementation for Lua"),
        ] {
            push_bytes(L, text);
            lua_setfield(L, -2, name.as_ptr());
        }
    }
}

// ---- pack -------------------------------------------------------------------------------------

unsafe extern "C-unwind" fn pack(L: *mut lua_State) -> c_int {
    // SAFETY: the result is built in the context's buffer; nothing with a destructor is held.
    unsafe {
        let count = lua_gettop(L);
        if count == 0 {
            luaL_argerror(L, 0, c"MessagePack pack needs input.".as_ptr());
        }
        let context = context_upvalue(L);
        let out = &raw mut (*context).scratch;
        (*out).clear();
        let order = &raw mut (*context).order;
        (*order).clear();
        // A list of all arguments gives their raw values.
        lua_createtable(L, count, 0);
        for index in 1..=count {
            lua_pushvalue(L, index);
            lua_rawseti(L, count + 1, index);
        }
        let list: *const Table = lua_topointer(L, count + 1).cast();
        let limit_bytes = (*context).meter.limit_bytes;
        let mut packer = Packer { L, limit_bytes, out: &mut *out, order: &mut *order };
        for index in 1..=count as usize {
            packer.value(internals::value_at(list, index), 0);
        }
        push_bytes(L, (*out).as_slice());
        crate::context::shrink(&mut *out);
        1
    }
}

struct Packer<'a> {
    L: *mut lua_State,
    limit_bytes: usize,
    out: &'a mut Vec<u8>,
    order: &'a mut Order,
}

/// Values after which the interrupt is looked at.
const VALUES_AT_ONCE: usize = 1024;

impl Packer<'_> {
    /// # Safety
    /// `bits` is live and nothing changes Lua's heap meanwhile; may raise.
    unsafe fn value(&mut self, bits: Bits, depth: u32) {
        match value_of(bits) {
            Value::False => self.out.push(0xc2),
            Value::True => self.out.push(0xc3),
            Value::Number(value) => self.number(value),
            // SAFETY: by the caller.
            Value::Str(string) => unsafe { self.string(internals::string_bytes(string)) },
            // SAFETY: by the caller.
            Value::Table(table) if depth < NESTING_MAX => unsafe { self.table(table, depth) },
            Value::Nil | Value::Table(_) | Value::Other(_) => self.out.push(0xc0),
        }
    }

    fn number(&mut self, value: f64) {
        let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
        if fits && (value as i64) as f64 == value {
            return self.integer(value as i64);
        }
        let single = value as f32;
        if f64::from(single) == value {
            self.out.push(0xca);
            self.out.extend_from_slice(&single.to_be_bytes());
        } else {
            self.out.push(0xcb);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    }

    fn integer(&mut self, value: i64) {
        let bytes = value.to_be_bytes();
        let (kind, len) = match value {
            -32..=127 => return self.out.push(value as u8),
            0x80..=0xff => (0xcc, 1),
            0x100..=0xffff => (0xcd, 2),
            0x1_0000..=0xffff_ffff => (0xce, 4),
            0x1_0000_0000.. => (0xcf, 8),
            -0x80..=-33 => (0xd0, 1),
            -0x8000..=-0x81 => (0xd1, 2),
            -0x8000_0000..=-0x8001 => (0xd2, 4),
            _ => (0xd3, 8),
        };
        self.out.push(kind);
        self.out.extend_from_slice(&bytes[8 - len..]);
    }

    /// A header with a length: a short form below `short_max`, else 1 (if given), 2 or 4 bytes.
    fn header(&mut self, len: usize, short: u8, short_max: usize, kinds: [Option<u8>; 3]) {
        let bytes = (len as u32).to_be_bytes();
        if len < short_max {
            self.out.push(short | len as u8);
        } else if let (true, Some(kind)) = (len <= 0xff, kinds[0]) {
            self.out.extend_from_slice(&[kind, bytes[3]]);
        } else if let (true, Some(kind)) = (len <= 0xffff, kinds[1]) {
            self.out.extend_from_slice(&[kind, bytes[2], bytes[3]]);
        } else {
            self.out.push(kinds[2].unwrap_or_default());
            self.out.extend_from_slice(&bytes);
        }
    }

    unsafe fn string(&mut self, bytes: &[u8]) {
        // SAFETY: may raise; the frames up to `pack` hold no destructors.
        unsafe { self.check(bytes.len()) };
        self.header(bytes.len(), 0xa0, 32, [Some(0xd9), Some(0xda), Some(0xdb)]);
        self.out.extend_from_slice(bytes);
    }

    /// Before much is added: memory, and whether the script was killed.
    unsafe fn check(&mut self, more_bytes: usize) {
        // SAFETY: may raise; the frames up to `pack` hold no destructors.
        unsafe {
            if self.out.len() + more_bytes > self.limit_bytes {
                push_bytes(self.L, b"not enough memory");
                lua_error(self.L);
            }
            interrupt::poll(self.L);
        }
    }

    unsafe fn table(&mut self, table: *const Table, depth: u32) {
        // SAFETY: by the caller; may raise where `check` does.
        unsafe {
            self.check(0);
            if let Some(len) = list_len(table) {
                self.header(len, 0x90, 16, [None, Some(0xdc), Some(0xdd)]);
                for index in 1..=len {
                    self.value(internals::value_at(table, index), depth + 1);
                    if index % VALUES_AT_ONCE == 0 {
                        self.check(0);
                    }
                }
                return;
            }
            let entries = self.order.collect(self.L, table, 0);
            self.header(entries.len(), 0x80, 16, [None, Some(0xde), Some(0xdf)]);
            for index in entries.clone() {
                if index % VALUES_AT_ONCE == 0 {
                    self.check(0);
                }
                let (key, value) = self.order.get(index);
                self.value(key, depth + 1);
                self.value(value, depth + 1);
            }
            self.order.release(entries);
        }
    }
}

/// The length if the keys are exactly 1 to n.
unsafe fn list_len(table: *const Table) -> Option<usize> {
    let (mut highest, mut count) = (0.0f64, 0usize);
    // SAFETY: by the caller.
    unsafe {
        for (index, &value) in internals::array_part(table).iter().enumerate() {
            if value != internals::NIL {
                if index == 0 {
                    return None;
                }
                highest = index as f64;
                count += 1;
            }
        }
        for (key, _) in internals::hash_part(table) {
            match value_of(key) {
                Value::Number(key) if key > 0.0 && key.floor() == key => {
                    highest = highest.max(key);
                    count += 1;
                }
                _ => return None,
            }
        }
    }
    (highest == count as f64).then_some(count)
}

// ---- unpack -----------------------------------------------------------------------------------

unsafe extern "C-unwind" fn unpack(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe { unpack_values(L, None, 0) }
}

unsafe extern "C-unwind" fn unpack_one(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        let offset = luaL_optinteger(L, 2, 0);
        unpack_values(L, Some(1), offset)
    }
}

unsafe extern "C-unwind" fn unpack_limit(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        let limit = luaL_checkinteger(L, 2);
        let offset = luaL_optinteger(L, 3, 0);
        unpack_values(L, Some(limit), offset)
    }
}

/// Pushes up to `limit` values from `offset` on; with a limit, the next offset (or -1) comes
/// first.
unsafe fn unpack_values(L: *mut lua_State, limit: Option<isize>, offset: isize) -> c_int {
    // SAFETY: the argument stays on the stack; nothing with a destructor is held.
    unsafe {
        let mut len = 0;
        let text = luaL_checklstring(L, 1, &mut len);
        lua_settop(L, 1);
        // As the original: a limit and offset of zero ask for everything.
        let limit = limit.filter(|&limit| limit != 0 || offset != 0);
        if offset < 0 || limit.is_some_and(|limit| limit < 0) {
            raise::format(
                L,
                format_args!(
                    "Invalid request to unpack with offset of {} and limit of {len}.",
                    offset as i32
                ),
            );
        }
        if offset as usize > len {
            raise::format(
                L,
                format_args!("Start offset {offset} greater than input length {len}."),
            );
        }
        let bytes: &[u8] = std::slice::from_raw_parts(text.cast(), len);
        let mut unpacker = Unpacker {
            L,
            rest: &bytes[offset as usize..],
            stack_floor: (*context_upvalue(L)).stack_floor,
        };
        let mut count = 0;
        while !unpacker.rest.is_empty() && limit.is_none_or(|limit| count < limit) {
            luaL_checkstack(L, 1, MANY_VALUES.as_ptr());
            unpacker.value(0);
            count += 1;
        }
        if limit.is_some() {
            let next = len - unpacker.rest.len();
            luaL_checkstack(L, 1, c"in function mp_unpack_full".as_ptr());
            lua_pushnumber(L, if unpacker.rest.is_empty() { -1.0 } else { next as f64 });
            lua_insert(L, 2);
            count += 1;
        }
        count as c_int
    }
}

struct Unpacker<'a> {
    L: *mut lua_State,
    rest: &'a [u8],
    stack_floor: usize,
}

impl<'a> Unpacker<'a> {
    /// The next `len` bytes, or an error.
    unsafe fn take(&mut self, len: usize) -> &'a [u8] {
        if len > self.rest.len() {
            // SAFETY: may raise; the frames up to the library's function hold no destructors.
            unsafe { raise::format(self.L, format_args!("Missing bytes in input.")) };
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    unsafe fn unsigned(&mut self, len: usize) -> u64 {
        // SAFETY: by the caller.
        unsafe { self.take(len).iter().fold(0, |value, &byte| value << 8 | u64::from(byte)) }
    }

    /// Pushes the next value.
    unsafe fn value(&mut self, depth: u32) {
        let L = self.L;
        // SAFETY: stack room is checked before each container; may raise.
        unsafe {
            let kind = self.take(1)[0];
            match kind {
                0x00..=0x7f => lua_pushnumber(L, f64::from(kind)),
                0xe0..=0xff => lua_pushnumber(L, f64::from(kind as i8)),
                0x80..=0x8f => self.map(usize::from(kind & 15), depth),
                0x90..=0x9f => self.list(usize::from(kind & 15), depth),
                0xa0..=0xbf => push_bytes(L, self.take(usize::from(kind & 31))),
                0xc0 => lua_pushnil(L),
                0xc2 => lua_pushboolean(L, 0),
                0xc3 => lua_pushboolean(L, 1),
                0xca => {
                    let bits = self.unsigned(4) as u32;
                    lua_pushnumber(L, f64::from(f32::from_bits(bits)));
                }
                0xcb => {
                    let bits = self.unsigned(8);
                    lua_pushnumber(L, f64::from_bits(bits));
                }
                0xcc..=0xcf => {
                    let value = self.unsigned(1 << (kind - 0xcc));
                    lua_pushnumber(L, value as i64 as f64);
                }
                0xd0..=0xd3 => {
                    let len = 1 << (kind - 0xd0);
                    let unused = 64 - 8 * len as u32;
                    let value = (self.unsigned(len) << unused) as i64 >> unused;
                    lua_pushnumber(L, value as f64);
                }
                0xd9..=0xdb => {
                    let len = self.unsigned(1 << (kind - 0xd9)) as usize;
                    push_bytes(L, self.take(len));
                }
                0xdc | 0xdd => {
                    let len = self.unsigned(2 << (kind - 0xdc)) as usize;
                    self.list(len, depth);
                }
                0xde | 0xdf => {
                    let len = self.unsigned(2 << (kind - 0xde)) as usize;
                    self.map(len, depth);
                }
                _ => raise::format(L, format_args!("Bad data format in input.")),
            }
        }
    }

    unsafe fn list(&mut self, len: usize, depth: u32) {
        let L = self.L;
        // SAFETY: as `value`.
        unsafe {
            self.descend(depth, c"in function mp_decode_to_lua_array");
            // A length is no promise: reserve no more than the bytes at hand can fill.
            lua_createtable(L, len.min(self.rest.len()) as c_int, 0);
            for index in 1..=len {
                self.value(depth + 1);
                lua_rawseti(L, -2, index as c_int);
                if index % VALUES_AT_ONCE == 0 {
                    interrupt::poll(L);
                }
            }
        }
    }

    unsafe fn map(&mut self, len: usize, depth: u32) {
        let L = self.L;
        // SAFETY: as `value`.
        unsafe {
            self.descend(depth, MANY_VALUES);
            lua_createtable(L, 0, len.min(self.rest.len() / 2) as c_int);
            for index in 0..len {
                if index % VALUES_AT_ONCE == 0 {
                    interrupt::poll(L);
                }
                self.value(depth + 1);
                let key = lua_type(L, -1);
                let bad = if key == LUA_TNIL {
                    Some(&b"table index is nil"[..])
                } else if key == LUA_TNUMBER && lua_tonumber(L, -1).is_nan() {
                    Some(&b"table index is NaN"[..])
                } else {
                    None
                };
                if let Some(text) = bad {
                    push_bytes(L, text);
                    lua_error(L);
                }
                self.value(depth + 1);
                lua_rawset(L, -3);
            }
        }
    }

    unsafe fn descend(&mut self, depth: u32, place: &CStr) {
        // SAFETY: may raise; the frames up to the library's function hold no destructors.
        unsafe {
            let fits = depth < UNPACK_NESTING_MAX && stack_place() >= self.stack_floor;
            let size = if fits { 4 } else { c_int::MAX / 2 };
            luaL_checkstack(self.L, size, place.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(value: f64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut packer = Packer {
            L: std::ptr::null_mut(),
            limit_bytes: usize::MAX,
            out: &mut out,
            order: &mut Order::default(),
        };
        packer.number(value);
        out
    }

    #[test]
    fn numbers_take_the_shortest_form() {
        for (value, bytes) in [
            (0.0, &[0x00][..]),
            (127.0, &[0x7f]),
            (128.0, &[0xcc, 0x80]),
            (256.0, &[0xcd, 1, 0]),
            (65536.0, &[0xce, 0, 1, 0, 0]),
            (4294967296.0, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
            (-32.0, &[0xe0]),
            (-33.0, &[0xd0, 0xdf]),
            (-129.0, &[0xd1, 0xff, 0x7f]),
            (-32769.0, &[0xd2, 0xff, 0xff, 0x7f, 0xff]),
            (1.5, &[0xca, 0x3f, 0xc0, 0, 0]),
            (0.1, &[0xcb, 0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]),
        ] {
            assert_eq!(packed(value), bytes, "{value}");
        }
    }
}

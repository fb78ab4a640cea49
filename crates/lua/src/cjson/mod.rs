//! The `cjson` library: lua-cjson 2.1.0 as Redis ships it, written anew.
//!
//! Same results and error texts with one deliberate difference: `encode` writes the keys of an
//! object sorted by their bytes, so that a text depends on the content alone and is the same on
//! every worker and after a restart (the order of a table's keys in memory is not). What it has
//! beyond that is off until a script turns it on.

mod decode;
mod encode;
mod shape;

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use crate::bridge::context_upvalue;
use crate::context::Context;
use crate::convert::push_bytes;
use crate::internals::{self, Bits, Table};
use crate::sys::*;

/// Nesting beyond this fails whatever the settings say; it keeps native recursion bounded.
const DEPTH_LIMIT: c_int = 4000;

/// Buffers larger than this are given back after use.
const KEPT_BUFFER_BYTES_MAX: usize = 4 << 20;

/// The settings of one `cjson` table. Those of the global one last for one run.
#[derive(Clone, Copy)]
pub struct Config {
    sparse_convert: bool,
    sparse_ratio: c_int,
    sparse_safe: c_int,
    encode_max_depth: c_int,
    decode_max_depth: c_int,
    number_precision: c_int,
    keep_buffer: bool,
    encode_invalid: c_int,
    decode_invalid: bool,
    // What Redis's copy does not have; see docs/scripting.md.
    empty_as_object: bool,
    mark_arrays: bool,
    exact_integers: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_max_depth: 1000,
            decode_max_depth: 1000,
            number_precision: 14,
            keep_buffer: true,
            encode_invalid: 0,
            decode_invalid: true,
            empty_as_object: true,
            mark_arrays: false,
            exact_integers: false,
        }
    }
}

/// Values that mean something to `encode`. The tables are anchored in the registry.
#[derive(Clone, Copy)]
pub struct Marks {
    /// `cjson.null` and `cjson.empty_array` as raw values.
    null: Bits,
    empty_array: Bits,
    /// Metatables: `cjson.array_mt`, `cjson.empty_array_mt` and that of integers beyond 2^53.
    array: *const Table,
    empty_array_mt: *const Table,
    integer: *const Table,
}

/// What cjson keeps per VM.
pub struct Shared {
    /// Settings of the global `cjson`, in a userdata that its functions hold.
    global: *mut Config,
    marks: Marks,
    encode: encode::Buffers,
    decode: decode::Buffers,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            global: ptr::null_mut(),
            marks: Marks {
                null: internals::NIL,
                empty_array: internals::NIL,
                array: ptr::null(),
                empty_array_mt: ptr::null(),
                integer: ptr::null(),
            },
            encode: encode::Buffers::default(),
            decode: decode::Buffers::default(),
        }
    }
}

impl Shared {
    /// At the start of a run: one script's settings are not the next one's.
    pub fn reset(&mut self) {
        // SAFETY: the userdata lives as long as the VM's globals.
        if let Some(config) = unsafe { self.global.as_mut() } {
            *config = Config::default();
        }
    }
}

/// Pushes the `cjson` table.
///
/// # Safety
/// Called at set-up inside a protected call; may raise.
pub unsafe fn push_library(L: *mut lua_State, context: *mut Context) {
    // SAFETY: by the caller.
    unsafe {
        let anchor = |key| {
            lua_createtable(L, 0, 4);
            let table: *const Table = lua_topointer(L, -1).cast();
            lua_rawseti(L, LUA_REGISTRYINDEX, key);
            table
        };
        let raw = |pointer| {
            lua_createtable(L, 1, 0);
            lua_pushlightuserdata(L, pointer);
            lua_rawseti(L, -2, 1);
            let bits = internals::value_at(lua_topointer(L, -1).cast(), 1);
            lua_settop(L, -2);
            bits
        };
        (*context).cjson.marks = Marks {
            null: raw(ptr::null_mut()),
            empty_array: raw(EMPTY_ARRAY),
            array: anchor(ARRAY_KEY),
            empty_array_mt: anchor(EMPTY_ARRAY_KEY),
            integer: anchor(INTEGER_KEY),
        };
        (*context).cjson.global = push_table(L, context);
        // The sandbox fills it and hides it.
        lua_rawgeti(L, LUA_REGISTRYINDEX, INTEGER_KEY);
        lua_setfield(L, -2, c"integer_mt".as_ptr());
    }
}

/// An address that is nothing else's, so that `cjson.empty_array` is equal to nothing else.
const EMPTY_ARRAY: *mut std::ffi::c_void = ptr::without_provenance_mut(8);

/// Registry slots of the metatables (positive numbers belong to luaL_ref).
const ARRAY_KEY: c_int = -7311;
const EMPTY_ARRAY_KEY: c_int = -7312;
const INTEGER_KEY: c_int = -7313;

/// Whether a text is an integer as JSON writes it.
fn is_integer(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [] => false,
        [b'0', _, ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    }
}

unsafe fn push_table(L: *mut lua_State, context: *mut Context) -> *mut Config {
    const FUNCTIONS: &[(&CStr, lua_CFunction)] = &[
        (c"encode", encode::encode),
        (c"decode", decode::decode),
        (c"encode_sparse_array", encode_sparse_array),
        (c"encode_max_depth", encode_max_depth),
        (c"decode_max_depth", decode_max_depth),
        (c"encode_number_precision", encode_number_precision),
        (c"encode_keep_buffer", encode_keep_buffer),
        (c"encode_invalid_numbers", encode_invalid_numbers),
        (c"decode_invalid_numbers", decode_invalid_numbers),
        (c"encode_empty_table_as_object", encode_empty_table_as_object),
        (c"decode_array_with_array_mt", decode_array_with_array_mt),
        (c"exact_integers", exact_integers),
        (c"integer", integer),
        (c"new", new),
    ];
    // SAFETY: by the caller.
    unsafe {
        lua_createtable(L, 0, 32);
        let config: *mut Config = lua_newuserdata(L, size_of::<Config>()).cast();
        config.write(Config::default());
        for &(name, function) in FUNCTIONS {
            lua_pushlightuserdata(L, context.cast());
            lua_pushvalue(L, -2);
            lua_pushcclosure(L, function, 2);
            lua_setfield(L, -3, name.as_ptr());
        }
        lua_settop(L, -2);
        lua_pushlightuserdata(L, ptr::null_mut());
        lua_setfield(L, -2, c"null".as_ptr());
        lua_pushlightuserdata(L, EMPTY_ARRAY);
        lua_setfield(L, -2, c"empty_array".as_ptr());
        lua_rawgeti(L, LUA_REGISTRYINDEX, ARRAY_KEY);
        lua_setfield(L, -2, c"array_mt".as_ptr());
        lua_rawgeti(L, LUA_REGISTRYINDEX, EMPTY_ARRAY_KEY);
        lua_setfield(L, -2, c"empty_array_mt".as_ptr());
        push_bytes(L, b"cjson");
        lua_setfield(L, -2, c"_NAME".as_ptr());
        push_bytes(L, b"2.1.0");
        lua_setfield(L, -2, c"_VERSION".as_ptr());
        config
    }
}

/// The settings in the second upvalue of the running function.
unsafe fn config_upvalue<'a>(L: *mut lua_State) -> &'a mut Config {
    // SAFETY: every function of the library is made with them by `push_table`.
    unsafe { &mut *lua_touserdata(L, lua_upvalueindex(2)).cast() }
}

unsafe extern "C-unwind" fn new(L: *mut lua_State) -> c_int {
    // SAFETY: C functions have room for a few values.
    unsafe {
        let context = context_upvalue(L);
        push_table(L, context);
    }
    1
}

/// At most `count` arguments, missing ones as nil.
unsafe fn settle_arguments(L: *mut lua_State, count: c_int) {
    // SAFETY: C functions have room for a few values.
    unsafe {
        if lua_gettop(L) > count {
            luaL_argerror(L, count + 1, c"found too many arguments".as_ptr());
        }
        lua_settop(L, count);
    }
}

unsafe fn integer_option(
    L: *mut lua_State,
    index: c_int,
    now: c_int,
    min: c_int,
    max: c_int,
) -> c_int {
    // SAFETY: the message is written to a buffer without a destructor and copied by Lua.
    unsafe {
        if lua_type(L, index) == LUA_TNIL {
            return now;
        }
        let value = luaL_checkinteger(L, index);
        if value < min as isize || value > max as isize {
            let mut message = [0u8; 64];
            let mut rest = &mut message[..];
            let _ = std::io::Write::write_fmt(
                &mut rest,
                format_args!("expected integer between {min} and {max}"),
            );
            luaL_argerror(L, 1, message.as_ptr().cast());
        }
        value as c_int
    }
}

/// A setting among named ones; `true` and `false` stand for the second and first.
unsafe fn enum_option(
    L: *mut lua_State,
    index: c_int,
    now: c_int,
    names: &[*const c_char],
) -> c_int {
    // SAFETY: `names` ends with null.
    unsafe {
        match lua_type(L, index) {
            LUA_TNIL => now,
            LUA_TBOOLEAN => lua_toboolean(L, index),
            _ => luaL_checkoption(L, index, ptr::null(), names.as_ptr()),
        }
    }
}

unsafe fn push_enum(L: *mut lua_State, setting: c_int, names: &[*const c_char]) {
    // SAFETY: C functions have room for a few values; names are C strings.
    unsafe {
        if setting < 2 {
            lua_pushboolean(L, setting);
        } else {
            push_bytes(L, CStr::from_ptr(names[setting as usize]).to_bytes());
        }
    }
}

const ON_OFF: [*const c_char; 3] = [c"off".as_ptr(), c"on".as_ptr(), ptr::null()];
const ON_OFF_NULL: [*const c_char; 4] =
    [c"off".as_ptr(), c"on".as_ptr(), c"null".as_ptr(), ptr::null()];

unsafe extern "C-unwind" fn encode_sparse_array(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        settle_arguments(L, 3);
        let config = config_upvalue(L);
        config.sparse_convert = enum_option(L, 1, c_int::from(config.sparse_convert), &ON_OFF) == 1;
        config.sparse_ratio = integer_option(L, 2, config.sparse_ratio, 0, c_int::MAX);
        config.sparse_safe = integer_option(L, 3, config.sparse_safe, 0, c_int::MAX);
        lua_pushboolean(L, c_int::from(config.sparse_convert));
        lua_pushnumber(L, f64::from(config.sparse_ratio));
        lua_pushnumber(L, f64::from(config.sparse_safe));
        3
    }
}

/// Defines a function that reads and sets one number of the settings.
macro_rules! number_setting {
    ($name:ident, $min:expr, $max:expr, $field:ident) => {
        unsafe extern "C-unwind" fn $name(L: *mut lua_State) -> c_int {
            // SAFETY: nothing with a destructor is held.
            unsafe {
                settle_arguments(L, 1);
                let config = config_upvalue(L);
                config.$field = integer_option(L, 1, config.$field, $min, $max);
                lua_pushnumber(L, f64::from(config.$field));
                1
            }
        }
    };
}

number_setting!(encode_max_depth, 1, c_int::MAX, encode_max_depth);
number_setting!(decode_max_depth, 1, c_int::MAX, decode_max_depth);
number_setting!(encode_number_precision, 1, 14, number_precision);

/// Defines a function that reads and sets one switch of the settings.
macro_rules! switch {
    ($name:ident, $field:ident) => {
        unsafe extern "C-unwind" fn $name(L: *mut lua_State) -> c_int {
            // SAFETY: nothing with a destructor is held.
            unsafe {
                settle_arguments(L, 1);
                let config = config_upvalue(L);
                config.$field = enum_option(L, 1, c_int::from(config.$field), &ON_OFF) == 1;
                lua_pushboolean(L, c_int::from(config.$field));
                1
            }
        }
    };
}

switch!(encode_keep_buffer, keep_buffer);
switch!(decode_invalid_numbers, decode_invalid);
switch!(encode_empty_table_as_object, empty_as_object);
switch!(decode_array_with_array_mt, mark_arrays);
switch!(exact_integers, exact_integers);

/// `cjson.integer(digits)`: an integer of any size for `encode`, from its decimal digits.
unsafe extern "C-unwind" fn integer(L: *mut lua_State) -> c_int {
    // SAFETY: the argument stays on the stack while its bytes are read.
    unsafe {
        let mut len = 0;
        let text: *const u8 = luaL_checklstring(L, 1, &mut len).cast();
        if !is_integer(std::slice::from_raw_parts(text, len)) {
            luaL_argerror(L, 1, c"decimal digits expected".as_ptr());
        }
        let digits = internals::argument(L, 1);
        let marks = (*context_upvalue(L)).cjson.marks;
        let table = internals::new_array(L, &[digits]);
        internals::mark_new(table, marks.integer);
        internals::push(L, table);
        1
    }
}

unsafe extern "C-unwind" fn encode_invalid_numbers(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        settle_arguments(L, 1);
        let config = config_upvalue(L);
        config.encode_invalid = enum_option(L, 1, config.encode_invalid, &ON_OFF_NULL);
        push_enum(L, config.encode_invalid, &ON_OFF_NULL);
        1
    }
}

//! The `cjson` library: lua-cjson 2.1.0 as Redis ships it, written anew.
//!
//! Same results and error texts with one deliberate difference: `encode` writes the keys of an
//! object sorted by their bytes, so that a text depends on the content alone and is the same on
//! every worker and after a restart (the order of a table's keys in memory is not).

mod decode;
mod encode;

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use crate::bridge::context_upvalue;
use crate::context::Context;
use crate::convert::push_bytes;
use crate::internals::{self, Bits};
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
        }
    }
}

/// What cjson keeps per VM.
pub struct Shared {
    /// Settings of the global `cjson`, in a userdata that its functions hold.
    global: *mut Config,
    /// `cjson.null` as a raw value.
    null: Bits,
    encode: encode::Buffers,
    decode: decode::Buffers,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            global: ptr::null_mut(),
            null: internals::NIL,
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
        lua_createtable(L, 1, 0);
        lua_pushlightuserdata(L, ptr::null_mut());
        lua_rawseti(L, -2, 1);
        let probe: *const internals::Table = lua_topointer(L, -1).cast();
        (*context).cjson.null = internals::value_at(probe, 1);
        lua_settop(L, -2);
        (*context).cjson.global = push_table(L, context);
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
        (c"new", new),
    ];
    // SAFETY: by the caller.
    unsafe {
        lua_createtable(L, 0, 16);
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

unsafe extern "C-unwind" fn encode_keep_buffer(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        settle_arguments(L, 1);
        let config = config_upvalue(L);
        config.keep_buffer = enum_option(L, 1, c_int::from(config.keep_buffer), &ON_OFF) == 1;
        lua_pushboolean(L, c_int::from(config.keep_buffer));
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

unsafe extern "C-unwind" fn decode_invalid_numbers(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        settle_arguments(L, 1);
        let config = config_upvalue(L);
        config.decode_invalid = enum_option(L, 1, c_int::from(config.decode_invalid), &ON_OFF) == 1;
        lua_pushboolean(L, c_int::from(config.decode_invalid));
        1
    }
}

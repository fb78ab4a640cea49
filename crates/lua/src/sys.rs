//! The part of LuaJIT's public C API that this crate uses.
//!
//! Functions that may raise a Lua error are `C-unwind`: the error passes through the calling Rust
//! function. The rule of the whole crate is therefore: **a function that calls one of them holds
//! no value with a destructor at that moment**. Buffers live in the VM's context, which outlives
//! every call, and are reached by pointer.

#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_int, c_void};

/// An interpreter or one of its coroutines.
#[repr(C)]
pub struct lua_State {
    _private: [u8; 0],
}

pub type lua_CFunction = unsafe extern "C-unwind" fn(*mut lua_State) -> c_int;
pub type lua_Alloc = unsafe extern "C" fn(
    ud: *mut c_void,
    block: *mut c_void,
    old: usize,
    new: usize,
) -> *mut c_void;
pub type lua_Hook = unsafe extern "C-unwind" fn(*mut lua_State, *mut lua_Debug);
pub type lua_Writer =
    unsafe extern "C" fn(*mut lua_State, *const c_void, usize, *mut c_void) -> c_int;

#[repr(C)]
pub struct lua_Debug {
    pub event: c_int,
    pub name: *const c_char,
    pub namewhat: *const c_char,
    pub what: *const c_char,
    pub source: *const c_char,
    pub currentline: c_int,
    pub nups: c_int,
    pub linedefined: c_int,
    pub lastlinedefined: c_int,
    pub short_src: [c_char; 60],
    pub i_ci: c_int,
}

pub const LUA_REGISTRYINDEX: c_int = -10000;
pub const LUA_GLOBALSINDEX: c_int = -10002;

pub const LUA_OK: c_int = 0;
pub const LUA_ERRRUN: c_int = 2;
pub const LUA_ERRMEM: c_int = 4;

pub const LUA_TNIL: c_int = 0;
pub const LUA_TBOOLEAN: c_int = 1;
pub const LUA_TNUMBER: c_int = 3;
pub const LUA_TSTRING: c_int = 4;
pub const LUA_TTABLE: c_int = 5;
pub const LUA_TFUNCTION: c_int = 6;

pub const LUA_MASKCALL: c_int = 1;
pub const LUA_MASKRET: c_int = 2;
pub const LUA_MASKLINE: c_int = 4;
pub const LUA_MASKCOUNT: c_int = 8;

pub const LUA_GCCOLLECT: c_int = 2;

pub const fn lua_upvalueindex(index: c_int) -> c_int {
    LUA_GLOBALSINDEX - index
}

unsafe extern "C-unwind" {
    pub fn lua_newstate(alloc: lua_Alloc, ud: *mut c_void) -> *mut lua_State;
    pub fn lua_close(L: *mut lua_State);
    pub fn luaL_openlibs(L: *mut lua_State);

    pub fn lua_gettop(L: *mut lua_State) -> c_int;
    pub fn lua_settop(L: *mut lua_State, index: c_int);
    pub fn lua_pushvalue(L: *mut lua_State, index: c_int);
    pub fn lua_remove(L: *mut lua_State, index: c_int);
    pub fn lua_insert(L: *mut lua_State, index: c_int);
    pub fn lua_replace(L: *mut lua_State, index: c_int);
    pub fn lua_checkstack(L: *mut lua_State, size: c_int) -> c_int;

    pub fn lua_type(L: *mut lua_State, index: c_int) -> c_int;
    pub fn lua_typename(L: *mut lua_State, kind: c_int) -> *const c_char;
    pub fn lua_isnumber(L: *mut lua_State, index: c_int) -> c_int;
    pub fn lua_tonumber(L: *mut lua_State, index: c_int) -> f64;
    pub fn lua_toboolean(L: *mut lua_State, index: c_int) -> c_int;
    pub fn lua_tolstring(L: *mut lua_State, index: c_int, len: *mut usize) -> *const c_char;
    pub fn lua_touserdata(L: *mut lua_State, index: c_int) -> *mut c_void;
    pub fn lua_objlen(L: *mut lua_State, index: c_int) -> usize;
    pub fn lua_topointer(L: *mut lua_State, index: c_int) -> *const c_void;

    pub fn lua_pushnil(L: *mut lua_State);
    pub fn lua_pushnumber(L: *mut lua_State, value: f64);
    pub fn lua_pushlstring(L: *mut lua_State, text: *const c_char, len: usize);
    pub fn lua_pushcclosure(L: *mut lua_State, function: lua_CFunction, upvalues: c_int);
    pub fn lua_pushboolean(L: *mut lua_State, value: c_int);
    pub fn lua_pushlightuserdata(L: *mut lua_State, pointer: *mut c_void);

    pub fn lua_rawget(L: *mut lua_State, index: c_int);
    pub fn lua_rawgeti(L: *mut lua_State, index: c_int, key: c_int);
    pub fn lua_createtable(L: *mut lua_State, array: c_int, hash: c_int);
    pub fn lua_setfield(L: *mut lua_State, index: c_int, key: *const c_char);
    pub fn lua_rawset(L: *mut lua_State, index: c_int);
    pub fn lua_rawseti(L: *mut lua_State, index: c_int, key: c_int);
    pub fn lua_newuserdata(L: *mut lua_State, size: usize) -> *mut c_void;
    pub fn lua_concat(L: *mut lua_State, count: c_int);
    pub fn lua_next(L: *mut lua_State, index: c_int) -> c_int;

    pub fn lua_call(L: *mut lua_State, args: c_int, results: c_int);
    pub fn lua_pcall(L: *mut lua_State, args: c_int, results: c_int, handler: c_int) -> c_int;
    pub fn lua_dump(L: *mut lua_State, writer: lua_Writer, data: *mut c_void) -> c_int;
    pub fn lua_error(L: *mut lua_State) -> c_int;
    pub fn lua_gc(L: *mut lua_State, what: c_int, data: c_int) -> c_int;

    pub fn lua_sethook(
        L: *mut lua_State,
        hook: Option<lua_Hook>,
        mask: c_int,
        count: c_int,
    ) -> c_int;
    pub fn lua_gethookmask(L: *mut lua_State) -> c_int;
    pub fn lua_getstack(L: *mut lua_State, level: c_int, ar: *mut lua_Debug) -> c_int;
    pub fn lua_getinfo(L: *mut lua_State, what: *const c_char, ar: *mut lua_Debug) -> c_int;

    /// Ours (glue.c), as the next four.
    pub fn luar_trace_count(L: *mut lua_State) -> u32;
    pub fn luar_code_top(L: *mut lua_State) -> *mut c_void;
    pub fn luar_in_trace(L: *mut lua_State) -> c_int;
    pub fn luar_collect_soon(L: *mut lua_State);
    /// Ours (glue.c): collects a step of garbage if it is time.
    pub fn luar_collect_step(L: *mut lua_State);
    /// Ours (build.rs): calls from C to Lua fail when the machine's stack has grown down to here.
    pub fn luar_set_stack_floor(floor: *const c_char);
    pub fn luar_stack_is_deep() -> c_int;
    /// Ours (build.rs): while on, this thread parses main chunks as functions without `...`.
    pub fn luar_fix_main_chunk(on: c_int);

    pub fn luaL_loadbufferx(
        L: *mut lua_State,
        text: *const c_char,
        len: usize,
        name: *const c_char,
        mode: *const c_char,
    ) -> c_int;
    pub fn luaL_checklstring(L: *mut lua_State, arg: c_int, len: *mut usize) -> *const c_char;
    pub fn luaL_checkinteger(L: *mut lua_State, arg: c_int) -> isize;
    pub fn luaL_checknumber(L: *mut lua_State, arg: c_int) -> f64;
    pub fn luaL_checkoption(
        L: *mut lua_State,
        arg: c_int,
        default: *const c_char,
        names: *const *const c_char,
    ) -> c_int;
    pub fn luaL_checkstack(L: *mut lua_State, size: c_int, message: *const c_char);
    pub fn luaL_optinteger(L: *mut lua_State, arg: c_int, default: isize) -> isize;
    pub fn luaL_ref(L: *mut lua_State, index: c_int) -> c_int;
    pub fn luaL_unref(L: *mut lua_State, index: c_int, reference: c_int);
    pub fn luaL_where(L: *mut lua_State, level: c_int);
    pub fn luaL_argerror(L: *mut lua_State, arg: c_int, message: *const c_char) -> c_int;
}

//! `redis.call` and `redis.pcall`: the way from a script's call to `Host::call` and back.
//!
//! Two roads lead there. Calls with up to nine arguments go through LuaJIT's FFI (`bridge.lua`),
//! which compiled code does without leaving the trace: strings cross as pointer and length,
//! numbers as doubles, and the answer is a *kind* that the Lua side branches on. These functions
//! never touch the Lua state and never raise. Calls with more arguments, and replies that become
//! tables, go through ordinary C functions (`call_wide`, `push_last_reply`).

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use crate::context::{Arg, Context, Name, WINDOW_ARGS, Window};
use crate::convert::{self, bytes_at, push_bytes};
use crate::number;
use crate::sys::*;
use crate::{Answer, Host, Protocol, Short};

/// Kinds of replies, as bridge.lua knows them.
const BULK: i32 = 1;
const NUMBER: i32 = 2;
const FALSE: i32 = 3;
const STATUS: i32 = 4;
const ERROR: i32 = 5;
const TABLE: i32 = 6;
const NIL: i32 = 7;
const OK: i32 = 8;

/// Distinct spellings of command names remembered per VM; more of them share one slot.
const NAMES_MAX: usize = 4096;

pub const BAD_ARGUMENTS: &[u8] = b"ERR Lua redis lib command arguments must be strings or integers";
pub const NO_ARGUMENTS: &[u8] = b"ERR Please specify at least one argument for this redis lib call";
const UNKNOWN_COMMAND: &str = "ERR Unknown Redis command called from script";

/// Calls the host, keeping a panic away from the Lua frames: it is carried in the context and
/// resumed when the run has ended. None if there is no host or it panicked.
///
/// # Safety
/// `context` is live, and during a run `host` points to a live host that nobody else uses.
pub unsafe fn with_host<R>(
    context: *mut Context,
    call: impl FnOnce(&mut dyn Host) -> R,
) -> Option<R> {
    // SAFETY: by the caller.
    unsafe {
        let host = (*context).host?.as_mut();
        match catch_unwind(AssertUnwindSafe(|| call(host))) {
            Ok(result) => Some(result),
            Err(panic) => {
                (*context).killed = true;
                (*context).panic = Some(panic);
                None
            }
        }
    }
}

/// Runs a command and says what came back. The reply stays in `context.answer`; a number, or a
/// string's place, goes to the window.
unsafe fn dispatch(context: *mut Context, name: u32, args: &[&[u8]]) -> i32 {
    // SAFETY: `context` is live; fields are borrowed one at a time.
    unsafe {
        let command = (&(*context).names)[name as usize].command;
        let protocol = (*context).protocol;
        let answer: *mut Answer = &raw mut (*context).answer;
        match command {
            None => (*answer).reply(protocol).error(UNKNOWN_COMMAND),
            Some(command) => {
                let done =
                    with_host(context, |host| host.call(command, args, protocol, &mut *answer));
                if done.is_none() {
                    (*answer).reply(protocol).error("ERR internal error");
                }
            }
        }
        let window = &mut (*context).window;
        match (*answer).short {
            Short::No => classify(window, &(*answer).bytes),
            Short::Integer(number) => {
                window.number = number as f64;
                NUMBER
            }
            Short::Bulk => show_text(window, &(*answer).bytes, BULK),
            Short::Null if protocol == Protocol::Resp2 => FALSE,
            Short::Null => NIL,
            Short::Ok => OK,
            // SAFETY: the host lent it until the next call.
            Short::Lent(text) => show_text(window, &*text, BULK),
        }
    }
}

fn show_text(window: &mut Window, text: &[u8], kind: i32) -> i32 {
    (window.text, window.len) = (text.as_ptr(), text.len());
    kind
}

fn classify(window: &mut Window, reply: &[u8]) -> i32 {
    let Some((&kind, rest)) = reply.split_first() else { return NIL };
    match kind {
        b'$' => {
            let (len, next) = convert::number_line(reply, 1);
            if len < 0 {
                return FALSE;
            }
            show_text(window, reply.get(next..next + len as usize).unwrap_or_default(), BULK)
        }
        b':' => {
            window.number = convert::number_line(reply, 1).0 as f64;
            NUMBER
        }
        b'+' | b'-' => {
            let text = rest.strip_suffix(b"\r\n").unwrap_or(rest);
            show_text(window, text, if kind == b'+' { STATUS } else { ERROR })
        }
        b'*' if rest.first() == Some(&b'-') => FALSE,
        b'_' => NIL,
        _ => TABLE,
    }
}

/// The spelling's index in `names`, resolving and remembering it at first sight; 0 if the host
/// knows no such command.
unsafe fn name_index(context: *mut Context, text: &[u8]) -> u32 {
    // SAFETY: `context` is live; fields are borrowed one at a time.
    unsafe {
        if let Some(&index) = (*context).name_index.get(text) {
            return index;
        }
        let Some(Some(command)) = with_host(context, |host| host.resolve(text)) else { return 0 };
        let name = Name { command: Some(command), text: text.into() };
        let names = &mut (*context).names;
        if names.len() > NAMES_MAX {
            // The last slot is rewritten for every further spelling and never remembered.
            names[NAMES_MAX] = name;
            return NAMES_MAX as u32;
        }
        let index = names.len() as u32;
        if names.len() < NAMES_MAX {
            (*context).name_index.insert(text.into(), index);
        }
        names.push(name);
        index
    }
}

// ---- called through the FFI -------------------------------------------------------------------

/// # Safety
/// Called by bridge.lua with pointers to live Lua strings.
unsafe extern "C" fn ffi_resolve(context: *mut Context, text: *const u8, len: usize) -> i32 {
    // SAFETY: by the caller.
    unsafe { name_index(context, slice::from_raw_parts(text, len)) as i32 }
}

/// Whether Lua may remember this index under the spelling it was resolved from.
unsafe extern "C" fn ffi_is_stable(_context: *mut Context, name: u32) -> i32 {
    i32::from(name != 0 && (name as usize) < NAMES_MAX)
}

unsafe fn name_text<'a>(context: *mut Context, name: u32) -> &'a [u8] {
    // SAFETY: names are never removed, and the one slot that is rewritten is so only by
    // `name_index`, which no command calls.
    unsafe {
        let text: *const [u8] = &raw const *(&(*context).names)[name as usize].text;
        &*text
    }
}

/// # Safety
/// As `ffi_resolve`; `name` came from it.
unsafe extern "C" fn ffi_call1(context: *mut Context, name: u32, a: *const u8, n: usize) -> i32 {
    // SAFETY: by the caller.
    unsafe { dispatch(context, name, &[name_text(context, name), slice::from_raw_parts(a, n)]) }
}

/// # Safety
/// As `ffi_call1`.
unsafe extern "C" fn ffi_call2(
    context: *mut Context,
    name: u32,
    a: *const u8,
    a_len: usize,
    b: *const u8,
    b_len: usize,
) -> i32 {
    // SAFETY: by the caller.
    unsafe {
        let args = [
            name_text(context, name),
            slice::from_raw_parts(a, a_len),
            slice::from_raw_parts(b, b_len),
        ];
        dispatch(context, name, &args)
    }
}

/// # Safety
/// As `ffi_call1`.
unsafe extern "C" fn ffi_call2_number(
    context: *mut Context,
    name: u32,
    a: *const u8,
    a_len: usize,
    b: f64,
) -> i32 {
    let mut text = [0; number::TEXT_BYTES_MAX];
    let len = number::argument(b, &mut text);
    // SAFETY: by the caller.
    unsafe {
        let args = [name_text(context, name), slice::from_raw_parts(a, a_len), &text[..len]];
        dispatch(context, name, &args)
    }
}

/// # Safety
/// As `ffi_call1`.
unsafe extern "C" fn ffi_call3(
    context: *mut Context,
    name: u32,
    a: *const u8,
    a_len: usize,
    b: *const u8,
    b_len: usize,
    c: *const u8,
    c_len: usize,
) -> i32 {
    // SAFETY: by the caller.
    unsafe {
        let args = [
            name_text(context, name),
            slice::from_raw_parts(a, a_len),
            slice::from_raw_parts(b, b_len),
            slice::from_raw_parts(c, c_len),
        ];
        dispatch(context, name, &args)
    }
}

/// Calls with the first `count` arguments of the window.
///
/// # Safety
/// As `ffi_call1`; the window's strings are live.
unsafe extern "C" fn ffi_call_window(context: *mut Context, name: u32, count: u32) -> i32 {
    let mut texts = [[0u8; number::TEXT_BYTES_MAX]; WINDOW_ARGS];
    let mut args: [&[u8]; WINDOW_ARGS + 1] = [b""; WINDOW_ARGS + 1];
    let count = (count as usize).min(WINDOW_ARGS);
    // SAFETY: by the caller.
    unsafe {
        args[0] = name_text(context, name);
        for (index, text) in texts.iter_mut().enumerate().take(count) {
            let Arg { text: bytes, len, number } = (*context).window.args[index];
            args[index + 1] = if len < 0 {
                let len = number::argument(number, text);
                &text[..len]
            } else {
                slice::from_raw_parts(bytes, len as usize)
            };
        }
        dispatch(context, name, &args[..=count])
    }
}

// ---- C functions ------------------------------------------------------------------------------

/// The context in a C function's first upvalue.
///
/// # Safety
/// The running function was made by `push_function`.
pub unsafe fn context_upvalue(L: *mut lua_State) -> *mut Context {
    // SAFETY: by the caller.
    unsafe { lua_touserdata(L, lua_upvalueindex(1)).cast() }
}

/// Pushes a C function that finds the context in its first upvalue.
///
/// # Safety
/// Needs room for two values; may raise.
pub unsafe fn push_function(L: *mut lua_State, context: *mut Context, function: lua_CFunction) {
    // SAFETY: by the caller.
    unsafe {
        lua_pushlightuserdata(L, context.cast());
        lua_pushcclosure(L, function, 1);
    }
}

/// Pushes the last reply as a Lua value.
unsafe extern "C-unwind" fn push_last_reply(L: *mut lua_State) -> c_int {
    // SAFETY: the reply buffer is not written while it is decoded; no destructors here.
    unsafe {
        let context = context_upvalue(L);
        convert::push_answer(L, &raw const (*context).answer, (*context).protocol);
        1
    }
}

/// `redis.call` with any number of arguments; raises errors.
unsafe extern "C-unwind" fn call_wide(L: *mut lua_State) -> c_int {
    // SAFETY: as `push_last_reply`.
    unsafe {
        if push_call_result(L) == ERROR {
            return lua_error(L);
        }
        1
    }
}

/// `redis.pcall` with any number of arguments; returns errors.
unsafe extern "C-unwind" fn pcall_wide(L: *mut lua_State) -> c_int {
    // SAFETY: as `push_last_reply`.
    unsafe {
        push_call_result(L);
        1
    }
}

unsafe fn push_call_result(L: *mut lua_State) -> i32 {
    // SAFETY: all arguments are checked to be strings or numbers; the strings stay on the stack
    // during the call; number texts live in the context, which is not resized after the loop
    // that takes their addresses.
    unsafe {
        let context = context_upvalue(L);
        let count = lua_gettop(L);
        if count == 0 {
            push_plain_error(L, NO_ARGUMENTS);
            return ERROR;
        }
        if !collect_args(L, context, count) {
            push_plain_error(L, BAD_ARGUMENTS);
            return ERROR;
        }
        let args: *const [&'static [u8]] = &raw const *(*context).wide_args.as_slice();
        let name = name_index(context, (&*args)[0]);
        let kind = dispatch(context, name, &*args);
        // Where as many values stood as a function may have, there is no room for another.
        lua_settop(L, 0);
        convert::push_answer(L, &raw const (*context).answer, (*context).protocol);
        kind
    }
}

/// Puts the first `count` values of the stack into `wide_args`; false if one is neither a string
/// nor a number.
///
/// # Safety
/// The strings stay on the stack while `wide_args` is used.
pub unsafe fn collect_args(L: *mut lua_State, context: *mut Context, count: c_int) -> bool {
    // SAFETY: number texts live in the context, whose buffer is reserved before their addresses
    // are taken and not resized afterwards.
    unsafe {
        (*context).wide_args.clear();
        (*context).wide_numbers.clear();
        (*context).wide_numbers.reserve(count as usize);
        for index in 1..=count {
            let kind = lua_type(L, index);
            if kind == LUA_TSTRING {
                let bytes: &'static [u8] = bytes_at(L, index);
                (*context).wide_args.push(bytes);
            } else if kind == LUA_TNUMBER {
                let mut text = [0; number::TEXT_BYTES_MAX];
                let len = number::argument(lua_tonumber(L, index), &mut text);
                (*context).wide_numbers.push(text);
                let kept = (*context).wide_numbers.last().map_or([].as_ptr(), |t| t.as_ptr());
                (*context).wide_args.push(slice::from_raw_parts(kept, len));
            } else {
                return false;
            }
        }
        true
    }
}

/// Pushes the error table of a mistake made in the script itself.
///
/// # Safety
/// Needs room for two values; may raise.
pub unsafe fn push_plain_error(L: *mut lua_State, text: &[u8]) {
    // SAFETY: by the caller.
    unsafe {
        lua_createtable(L, 0, 1);
        push_bytes(L, text);
        lua_setfield(L, -2, c"err".as_ptr());
    }
}

/// The Lua side's source: a function of the FFI library and the addresses below that returns
/// `call` and `pcall`. The fixed-arity functions are written by a loop, because a vararg
/// function cannot begin a trace.
fn source() -> String {
    let mut text = String::from(include_str!("bridge.lua"));
    let mut functions = String::new();
    for (prefix, finish) in [("call", "finish"), ("pcall", "pfinish")] {
        for count in 4..=WINDOW_ARGS {
            let names: Vec<String> = (1..=count).map(|index| format!("a{index}")).collect();
            functions += &format!("local function {prefix}{count}(c, {})\n", names.join(", "));
            functions += "local id = index[c] or lookup(c)\nif not id then return bad(";
            functions += if prefix == "call" { "true" } else { "false" };
            functions += ") end\nif not (";
            let puts: Vec<String> =
                names.iter().enumerate().map(|(at, name)| format!("put({at}, {name})")).collect();
            functions += &puts.join(" and ");
            functions += ") then return bad(";
            functions += if prefix == "call" { "true" } else { "false" };
            functions +=
                &format!(") end\nreturn {finish}(call_window(context, id, {count}))\nend\n");
        }
        functions += &format!("local function {prefix}(...)\nlocal count = select('#', ...)\n");
        for count in 0..=WINDOW_ARGS {
            let names: Vec<String> = (0..=count).map(|index| format!("a{index}")).collect();
            let names = names.join(", ");
            let keyword = if count == 0 { "if" } else { "elseif" };
            functions += &format!(
                "{keyword} count == {} then local {names} = ... return {prefix}{count}({names})\n",
                count + 1
            );
        }
        functions += &format!("end\nreturn {prefix}_wide(...)\nend\n");
    }
    text += &functions;
    text += "return call, pcall\n";
    text
}

/// Pushes `redis.call` and `redis.pcall`. The FFI library is on top of the stack and is popped.
///
/// # Safety
/// Called at set-up inside a protected call; may raise.
pub unsafe fn push_call_functions(L: *mut lua_State, context: *mut Context) {
    // SAFETY: by the caller; the source text is dropped only if nothing raised, which leaks it
    // otherwise and is harmless.
    unsafe {
        let source = std::mem::ManuallyDrop::new(source());
        crate::vm::load_internal(L, source.as_bytes());
        drop(std::mem::ManuallyDrop::into_inner(source));
        lua_insert(L, -2);
        let addresses: [*const c_void; 8] = [
            context.cast_const().cast(),
            ffi_resolve as *const c_void,
            ffi_is_stable as *const c_void,
            ffi_call1 as *const c_void,
            ffi_call2 as *const c_void,
            ffi_call2_number as *const c_void,
            ffi_call3 as *const c_void,
            ffi_call_window as *const c_void,
        ];
        for address in addresses {
            lua_pushlightuserdata(L, address.cast_mut());
        }
        push_function(L, context, push_last_reply);
        push_function(L, context, call_wide);
        push_function(L, context, pcall_wide);
        lua_call(L, 1 + addresses.len() as c_int + 3, 2);
    }
}

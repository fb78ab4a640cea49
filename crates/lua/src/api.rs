//! The functions of the `redis` table other than call and pcall.

use std::ffi::{CStr, c_int};

use sha1::{Digest, Sha1};

use crate::bridge::{self, context_upvalue, push_plain_error, with_host};
use crate::context::{Context, Loading};
use crate::convert::{bytes_at, push_bytes};
use crate::interrupt;
use crate::sys::*;
use crate::{LogLevel, Protocol, library, script};

/// Pushes the `redis` table; `call` and `pcall` are on top of the stack and are popped.
///
/// # Safety
/// Called at set-up inside a protected call; may raise.
pub unsafe fn push_table(L: *mut lua_State, context: *mut Context) {
    const FUNCTIONS: &[(&CStr, lua_CFunction)] = &[
        (c"error_reply", error_reply),
        (c"status_reply", status_reply),
        (c"log", log),
        (c"sha1hex", sha1hex),
        (c"setresp", setresp),
        (c"set_repl", set_repl),
        (c"replicate_commands", replicate_commands),
        (c"breakpoint", breakpoint),
        (c"debug", debug),
        (c"acl_check_cmd", acl_check_cmd),
        (c"register_function", library::register_function),
    ];
    // SAFETY: by the caller.
    unsafe {
        lua_createtable(L, 0, 32);
        lua_insert(L, -3);
        lua_setfield(L, -3, c"pcall".as_ptr());
        lua_setfield(L, -2, c"call".as_ptr());
        for &(name, function) in FUNCTIONS {
            bridge::push_function(L, context, function);
            lua_setfield(L, -2, name.as_ptr());
        }
    }
}

/// Raises the error table of a misuse of the API.
///
/// # Safety
/// C functions have room for what it pushes.
pub unsafe fn fail(L: *mut lua_State, text: &[u8]) -> c_int {
    // SAFETY: C functions have room for a few values.
    unsafe {
        push_plain_error(L, text);
        lua_error(L)
    }
}

/// The only argument if it is a string.
unsafe fn only_string<'a>(L: *mut lua_State) -> Option<&'a [u8]> {
    // SAFETY: a string argument stays on the stack while the function runs.
    unsafe { (lua_gettop(L) == 1 && lua_type(L, 1) == LUA_TSTRING).then(|| bytes_at(L, 1)) }
}

unsafe extern "C-unwind" fn error_reply(L: *mut lua_State) -> c_int {
    // SAFETY: only slices of the argument are held; the text is built in the context.
    unsafe {
        let Some(text) = only_string(L) else {
            push_plain_error(L, b"ERR wrong number or type of arguments");
            return 1;
        };
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let buffer = &raw mut (*context_upvalue(L)).scratch;
        (*buffer).clear();
        let message = match text.iter().position(|&byte| byte == b' ') {
            Some(space) => {
                (*buffer).extend_from_slice(&text[..space]);
                &text[space + 1..]
            }
            None => {
                (*buffer).extend_from_slice(b"ERR");
                text
            }
        };
        let start = message.iter().take_while(|byte| is_line_end(byte)).count();
        let end = message.iter().rposition(|byte| !is_line_end(byte)).map_or(start, |at| at + 1);
        (*buffer).push(b' ');
        (*buffer).extend_from_slice(&message[start..end]);
        let buffer: *const Vec<u8> = buffer;
        push_plain_error(L, (*buffer).as_slice());
        1
    }
}

unsafe extern "C-unwind" fn status_reply(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        if only_string(L).is_none() {
            push_plain_error(L, b"ERR wrong number or type of arguments");
            return 1;
        }
        lua_createtable(L, 0, 1);
        lua_pushvalue(L, 1);
        lua_setfield(L, -2, c"ok".as_ptr());
        1
    }
}

unsafe extern "C-unwind" fn log(L: *mut lua_State) -> c_int {
    // SAFETY: the message is built in the context's buffer.
    unsafe {
        let count = lua_gettop(L);
        if count < 2 {
            return fail(L, b"ERR redis.log() requires two arguments or more.");
        }
        if !is_number(L, 1) {
            return fail(L, b"ERR First argument must be a number (log level).");
        }
        let level = match lua_tonumber(L, 1) as i64 {
            0 => LogLevel::Debug,
            1 => LogLevel::Verbose,
            2 => LogLevel::Notice,
            3 => LogLevel::Warning,
            _ => return fail(L, b"ERR Invalid debug level."),
        };
        let context = context_upvalue(L);
        // What a library says as it is loaded was heard once.
        if (*context).loading == Loading::Again {
            return 0;
        }
        (*context).scratch.clear();
        for index in 2..=count {
            let mut len = 0;
            let text = lua_tolstring(L, index, &mut len);
            if text.is_null() {
                continue;
            }
            if index > 2 {
                (*context).scratch.push(b' ');
            }
            (*context).scratch.extend_from_slice(std::slice::from_raw_parts(text.cast(), len));
        }
        let message: *const Vec<u8> = &raw const (*context).scratch;
        with_host(context, |host| host.log(level, (*message).as_slice()));
        0
    }
}

unsafe extern "C-unwind" fn sha1hex(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held while pushing.
    unsafe {
        if lua_gettop(L) != 1 {
            return fail(L, b"ERR wrong number of arguments");
        }
        let mut len = 0;
        let text = lua_tolstring(L, 1, &mut len);
        let bytes: &[u8] =
            if text.is_null() { b"" } else { std::slice::from_raw_parts(text.cast(), len) };
        let mut hasher = Sha1::new();
        for piece in bytes.chunks(1 << 20) {
            interrupt::poll(L);
            hasher.update(piece);
        }
        let digits = script::hex(&hasher.finalize().into());
        push_bytes(L, &digits);
        1
    }
}

unsafe extern "C-unwind" fn setresp(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        if lua_gettop(L) != 1 {
            return fail(L, b"ERR redis.setresp() requires one argument.");
        }
        (*context_upvalue(L)).protocol = match lua_tonumber(L, 1) as i64 {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return fail(L, b"ERR RESP version must be 2 or 3."),
        };
        0
    }
}

unsafe extern "C-unwind" fn set_repl(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        if lua_gettop(L) != 1 {
            return fail(L, b"ERR redis.set_repl() requires two arguments.");
        }
        let flags = lua_tonumber(L, 1) as i64;
        if flags & !3 != 0 {
            return fail(
                L,
                b"ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
            );
        }
        with_host(context_upvalue(L), |host| host.set_repl(flags & 1 != 0, flags & 2 != 0));
        0
    }
}

unsafe extern "C-unwind" fn replicate_commands(L: *mut lua_State) -> c_int {
    // SAFETY: C functions have room for a few values.
    unsafe { lua_pushboolean(L, 1) };
    1
}

unsafe extern "C-unwind" fn breakpoint(L: *mut lua_State) -> c_int {
    // SAFETY: C functions have room for a few values.
    unsafe { lua_pushboolean(L, 0) };
    1
}

unsafe extern "C-unwind" fn debug(_L: *mut lua_State) -> c_int {
    0
}

unsafe extern "C-unwind" fn acl_check_cmd(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        let context = context_upvalue(L);
        let count = lua_gettop(L);
        if count == 0 {
            return fail(L, bridge::NO_ARGUMENTS);
        }
        if !bridge::collect_args(L, context, count) {
            return fail(L, bridge::BAD_ARGUMENTS);
        }
        let args: *const [&'static [u8]] = &raw const *(*context).wide_args.as_slice();
        match with_host(context, |host| host.acl_check(&*args)) {
            Some(Ok(allowed)) => {
                lua_pushboolean(L, c_int::from(allowed));
                1
            }
            _ => fail(L, b"ERR Invalid command passed to redis.acl_check_cmd()"),
        }
    }
}

/// A number, or a string that reads as one.
unsafe fn is_number(L: *mut lua_State, index: c_int) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let kind = lua_type(L, index);
        kind == LUA_TNUMBER || (kind == LUA_TSTRING && lua_isnumber(L, index) != 0)
    }
}

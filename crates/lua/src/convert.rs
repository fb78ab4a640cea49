//! Values crossing between Lua and RESP: what a script returns becomes a reply, what a command
//! replies becomes a Lua value.

use std::ffi::{CStr, c_int};

use crate::context::{Context, stack_place};
use crate::internals;
use crate::interrupt;
use crate::number;
use crate::sys::*;
use crate::{Answer, Protocol, Short};

/// Pushes `bytes` as a Lua string.
///
/// # Safety
/// `L` is a live state with room for one value; may raise, see `sys`.
#[inline]
pub unsafe fn push_bytes(L: *mut lua_State, bytes: &[u8]) {
    // SAFETY: pointer and length describe `bytes`; Lua copies them.
    unsafe { lua_pushlstring(L, bytes.as_ptr().cast(), bytes.len()) }
}

/// The bytes of the string at `index`.
///
/// # Safety
/// The value there is a string, and stays on the stack while the slice is used.
#[inline]
pub unsafe fn bytes_at<'a>(L: *mut lua_State, index: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: the value is a string, so Lua gives a pointer to `len` bytes that live with it.
    unsafe {
        let text = lua_tolstring(L, index, &mut len);
        std::slice::from_raw_parts(text.cast(), len)
    }
}

/// A Lua number as Redis turns it into an integer reply: cut towards zero, and the smallest
/// integer for everything that does not fit.
pub fn integer_of(value: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// Elements after which the interrupt is looked at.
const VALUES_AT_ONCE: c_int = 4096;

// ---- Lua to RESP ------------------------------------------------------------------------------

/// Writes the value on top of the stack as one reply and pops it.
///
/// # Safety
/// Called inside a protected call with `context` of this state; may raise.
pub unsafe fn write_reply(
    L: *mut lua_State,
    context: *mut Context,
    out: &mut Vec<u8>,
    client: Protocol,
) {
    // SAFETY: stack use is covered by the check below; `context` is live during a run.
    unsafe {
        if lua_checkstack(L, 6) == 0 || stack_place() < (*context).stack_floor {
            out.extend_from_slice(b"-ERR reached lua stack limit\r\n");
            lua_settop(L, -2);
            return;
        }
        match lua_type(L, -1) {
            LUA_TSTRING => write_bulk(out, bytes_at(L, -1)),
            LUA_TNUMBER => write_integer(out, integer_of(lua_tonumber(L, -1))),
            LUA_TBOOLEAN => {
                let value = lua_toboolean(L, -1) != 0;
                match ((*context).protocol, client) {
                    (Protocol::Resp2, _) if !value => write_null(out, client),
                    (Protocol::Resp3, Protocol::Resp3) => {
                        out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" });
                    }
                    _ => write_integer(out, i64::from(value)),
                }
            }
            LUA_TTABLE => {
                interrupt::poll(L);
                check_size(L, context, out);
                write_table(L, context, out, client);
            }
            _ => write_null(out, client),
        }
        lua_settop(L, -2);
    }
}

/// Pushes field `name` of the table on top, without metamethods, and returns its type.
unsafe fn field(L: *mut lua_State, name: &CStr) -> c_int {
    // SAFETY: the caller checked for stack room; the table is on top.
    unsafe {
        push_bytes(L, name.to_bytes());
        lua_rawget(L, -2);
        lua_type(L, -1)
    }
}

/// Writes the table on top of the stack, leaving it there.
unsafe fn write_table(
    L: *mut lua_State,
    context: *mut Context,
    out: &mut Vec<u8>,
    client: Protocol,
) {
    // SAFETY: as `write_reply`, which checked for room for the few slots used here.
    unsafe {
        let table = lua_topointer(L, -1).cast();
        if internals::hash_part(table).next().is_none() {
            // What is no list has a field.
            return write_list(L, context, out, client, table);
        }
        if field(L, c"err") == LUA_TSTRING {
            write_error(out, bytes_at(L, -1));
            lua_settop(L, -2);
            return;
        }
        lua_settop(L, -2);
        if field(L, c"ok") == LUA_TSTRING {
            out.push(b'+');
            write_line(out, bytes_at(L, -1));
            lua_settop(L, -2);
            return;
        }
        lua_settop(L, -2);
        if field(L, c"double") == LUA_TNUMBER {
            write_double(out, lua_tonumber(L, -1), client);
            lua_settop(L, -2);
            return;
        }
        lua_settop(L, -2);
        if field(L, c"map") == LUA_TTABLE {
            write_pairs(L, context, out, client, true);
            lua_settop(L, -2);
            return;
        }
        lua_settop(L, -2);
        if field(L, c"set") == LUA_TTABLE {
            write_pairs(L, context, out, client, false);
            lua_settop(L, -2);
            return;
        }
        lua_settop(L, -2);
        if field(L, c"big_number") == LUA_TSTRING {
            let digits = bytes_at(L, -1);
            if client == Protocol::Resp3 {
                out.push(b'(');
                write_line(out, digits);
            } else {
                let start = out.len();
                write_bulk(out, digits);
                blank_line_ends(out, start, digits.len());
            }
            lua_settop(L, -2);
            return;
        }
        lua_settop(L, -2);
        if field(L, c"verbatim_string") == LUA_TTABLE {
            let text = field(L, c"string") == LUA_TSTRING;
            lua_pushvalue(L, -2);
            let format = field(L, c"format") == LUA_TSTRING;
            if text && format {
                write_verbatim(out, bytes_at(L, -1), bytes_at(L, -3), client);
                lua_settop(L, -5);
                return;
            }
            lua_settop(L, -4);
        }
        lua_settop(L, -2);
        // Counting first is cheaper than moving what was written behind its header.
        let mut count = 0;
        loop {
            lua_rawgeti(L, -1, count + 1);
            let end = lua_type(L, -1) == LUA_TNIL;
            lua_settop(L, -2);
            if end {
                break;
            }
            count += 1;
            if count % VALUES_AT_ONCE == 0 {
                interrupt::poll(L);
            }
        }
        write_header(out, b'*', count as usize);
        for index in 1..=count {
            lua_rawgeti(L, -1, index);
            write_reply(L, context, out, client);
            if index % VALUES_AT_ONCE == 0 {
                interrupt::poll(L);
            }
        }
    }
}

/// Writes the table on top of the stack, which has an array part alone.
unsafe fn write_list(
    L: *mut lua_State,
    context: *mut Context,
    out: &mut Vec<u8>,
    client: Protocol,
    table: *const internals::Table,
) {
    // SAFETY: as `write_reply`. The array stays where it is: no Lua code runs.
    unsafe {
        let values = internals::array_part(table).get(1..).unwrap_or_default();
        let count = values.iter().take_while(|&&value| value != internals::NIL).count();
        write_header(out, b'*', count);
        for (index, &value) in (1..).zip(&values[..count]) {
            match internals::value_of(value) {
                internals::Value::Number(number) => write_integer(out, integer_of(number)),
                internals::Value::Str(text) => {
                    write_bulk(out, internals::string_bytes(text));
                    check_size(L, context, out);
                }
                _ => {
                    lua_rawgeti(L, -1, index);
                    write_reply(L, context, out, client);
                }
            }
            if index % VALUES_AT_ONCE == 0 {
                interrupt::poll(L);
            }
        }
    }
}

/// Raises an error when a reply takes more memory than the script may.
unsafe fn check_size(L: *mut lua_State, context: *mut Context, out: &[u8]) {
    // SAFETY: as `write_reply`.
    unsafe {
        if out.len() > (*context).meter.limit_bytes {
            push_bytes(L, b"not enough memory");
            lua_error(L);
        }
    }
}

/// Writes the table on top of the stack as a map, or its keys as a set.
unsafe fn write_pairs(
    L: *mut lua_State,
    context: *mut Context,
    out: &mut Vec<u8>,
    client: Protocol,
    map: bool,
) {
    // SAFETY: as `write_reply`.
    unsafe {
        let mut count = 0;
        lua_pushnil(L);
        while lua_next(L, -2) != 0 {
            lua_settop(L, -2);
            count += 1;
        }
        match (client, map) {
            (Protocol::Resp3, true) => write_header(out, b'%', count),
            (Protocol::Resp3, false) => write_header(out, b'~', count),
            (Protocol::Resp2, true) => write_header(out, b'*', 2 * count),
            (Protocol::Resp2, false) => write_header(out, b'*', count),
        }
        lua_pushnil(L);
        while lua_next(L, -2) != 0 {
            if map {
                lua_pushvalue(L, -2);
                write_reply(L, context, out, client);
                write_reply(L, context, out, client);
            } else {
                lua_settop(L, -2);
                lua_pushvalue(L, -1);
                write_reply(L, context, out, client);
            }
        }
    }
}

/// Appends an integer's decimal digits.
pub fn write_digits(out: &mut Vec<u8>, value: i64) {
    let mut text = [0u8; number::TEXT_BYTES_MAX];
    let len = number::integer(value, &mut text);
    out.extend_from_slice(&text[..len]);
}

/// An aggregate's header: its kind and the number of its elements.
fn write_header(out: &mut Vec<u8>, kind: u8, count: usize) {
    let mut text = [0u8; number::TEXT_BYTES_MAX];
    let len = number::integer(count as i64, &mut text);
    out.push(kind);
    out.extend_from_slice(&text[..len]);
    out.extend_from_slice(b"\r\n");
}

pub fn write_integer(out: &mut Vec<u8>, value: i64) {
    let mut text = [0u8; number::TEXT_BYTES_MAX];
    let len = number::integer(value, &mut text);
    out.push(b':');
    out.extend_from_slice(&text[..len]);
    out.extend_from_slice(b"\r\n");
}

pub fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut text = [0u8; number::TEXT_BYTES_MAX];
    let len = number::integer(bytes.len() as i64, &mut text);
    out.reserve(bytes.len() + len + 5);
    out.push(b'$');
    out.extend_from_slice(&text[..len]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

pub fn write_null(out: &mut Vec<u8>, client: Protocol) {
    out.extend_from_slice(match client {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Writes an error reply: trailing line ends are dropped, inner ones become blanks.
pub fn write_error(out: &mut Vec<u8>, text: &[u8]) {
    let used = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
    out.push(b'-');
    write_line(out, &text[..used]);
}

/// Text up to CRLF, with any line ends inside it blanked.
fn write_line(out: &mut Vec<u8>, text: &[u8]) {
    let start = out.len();
    out.extend_from_slice(text);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Blanks line ends in the payload of the bulk string just written at `start`.
fn blank_line_ends(out: &mut [u8], start: usize, len: usize) {
    let end = out.len() - 2;
    debug_assert!(start + len < end);
    for byte in &mut out[end - len..end] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

fn write_double(out: &mut Vec<u8>, value: f64, client: Protocol) {
    let mut text = [0u8; number::TEXT_BYTES_MAX];
    let len = if value.is_nan() {
        text[..3].copy_from_slice(b"nan");
        3
    } else if value == 0.0 {
        number::shortest(value, &mut text)
    } else {
        number::argument(value, &mut text)
    };
    if client == Protocol::Resp3 {
        out.push(b',');
        out.extend_from_slice(&text[..len]);
        out.extend_from_slice(b"\r\n");
    } else {
        write_bulk(out, &text[..len]);
    }
}

fn write_verbatim(out: &mut Vec<u8>, format: &[u8], text: &[u8], client: Protocol) {
    if client == Protocol::Resp2 {
        return write_bulk(out, text);
    }
    let mut name = *b"   ";
    for (slot, byte) in name.iter_mut().zip(format) {
        *slot = *byte;
    }
    let mut digits = [0u8; number::TEXT_BYTES_MAX];
    let len = number::integer(text.len() as i64 + 4, &mut digits);
    out.push(b'=');
    out.extend_from_slice(&digits[..len]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&name);
    out.push(b':');
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

// ---- RESP to Lua ------------------------------------------------------------------------------

/// How deep replies may nest; commands reply with three or four levels at most.
const REPLY_DEPTH_MAX: u32 = 128;

/// The line at `at` without its CRLF, and where the next element begins.
fn line(reply: &[u8], at: usize) -> (&[u8], usize) {
    let rest = reply.get(at..).unwrap_or_default();
    let len = rest.iter().position(|&byte| byte == b'\r').unwrap_or(rest.len());
    (&rest[..len], at + len + 2)
}

/// The number of a header or integer reply whose digits begin at `at`, and where what follows
/// its line begins.
#[inline]
pub fn number_line(reply: &[u8], mut at: usize) -> (i64, usize) {
    let negative = reply.get(at) == Some(&b'-');
    at += usize::from(negative);
    let mut value = 0i64;
    while let Some(&byte) = reply.get(at)
        && byte != b'\r'
    {
        // Counting down holds i64::MIN as well.
        value = value.wrapping_mul(10).wrapping_sub(i64::from(byte.wrapping_sub(b'0') & 15));
        at += 1;
    }
    (if negative { value } else { value.wrapping_neg() }, at + 2)
}

/// Decimal digits with an optional minus sign; anything else counts as zero.
fn parse_integer(digits: &[u8]) -> i64 {
    number_line(digits, 0).0
}

fn parse_double(text: &[u8]) -> f64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

/// Pushes a reply.
///
/// # Safety
/// Called inside a protected call; `answer` is live and not changed meanwhile; may raise.
pub unsafe fn push_answer(L: *mut lua_State, answer: *const Answer, protocol: Protocol) {
    // SAFETY: by the caller; a function has room for some values.
    unsafe {
        let Answer { short, bytes } = &*answer;
        match *short {
            Short::No => {
                push_reply(L, bytes, 0, 0);
            }
            Short::Integer(number) => lua_pushnumber(L, number as f64),
            Short::Bulk => push_bytes(L, bytes),
            Short::Null if protocol == Protocol::Resp2 => lua_pushboolean(L, 0),
            Short::Null => lua_pushnil(L),
            Short::Ok => push_tagged(L, c"ok", b"OK"),
            // SAFETY: the host lent it until the next call.
            Short::Lent(text) => push_bytes(L, &*text),
        }
    }
}

/// Pushes the element of `reply` that begins at `at`; returns where the next one begins.
///
/// # Safety
/// Called inside a protected call; `reply` is not changed meanwhile; may raise.
pub unsafe fn push_reply(L: *mut lua_State, reply: &[u8], at: usize, depth: u32) -> usize {
    // SAFETY: stack room is checked here; nothing with a destructor is held.
    unsafe {
        if depth > REPLY_DEPTH_MAX || lua_checkstack(L, 6) == 0 {
            push_bytes(L, b"reached lua stack limit");
            lua_error(L);
        }
        let kind = reply.get(at).copied().unwrap_or(b'_');
        let (head, next) = line(reply, at + 1);
        match kind {
            b':' => lua_pushnumber(L, parse_integer(head) as f64),
            b'$' => {
                let len = parse_integer(head);
                if len < 0 {
                    lua_pushboolean(L, 0);
                    return next;
                }
                let end = next + len as usize;
                push_bytes(L, reply.get(next..end).unwrap_or_default());
                return end + 2;
            }
            b'+' => push_tagged(L, c"ok", head),
            b'-' => push_error(L, head),
            b'*' | b'>' => {
                let count = parse_integer(head);
                if count < 0 {
                    lua_pushboolean(L, 0);
                    return next;
                }
                lua_createtable(L, count.min(1 << 20) as c_int, 0);
                let mut next = next;
                for index in 1..=count {
                    next = push_reply(L, reply, next, depth + 1);
                    lua_rawseti(L, -2, index as c_int);
                    if index as c_int % VALUES_AT_ONCE == 0 {
                        interrupt::poll(L);
                    }
                }
                return next;
            }
            b'_' => lua_pushnil(L),
            b'#' => lua_pushboolean(L, c_int::from(head == b"t")),
            b',' => {
                lua_createtable(L, 0, 1);
                lua_pushnumber(L, parse_double(head));
                lua_setfield(L, -2, c"double".as_ptr());
            }
            b'(' => push_tagged(L, c"big_number", head),
            b'%' => {
                let count = parse_integer(head).max(0);
                lua_createtable(L, 0, 1);
                lua_createtable(L, 0, count.min(1 << 20) as c_int);
                let mut next = next;
                for _ in 0..count {
                    next = push_reply(L, reply, next, depth + 1);
                    next = push_reply(L, reply, next, depth + 1);
                    set_pair(L);
                }
                lua_setfield(L, -2, c"map".as_ptr());
                return next;
            }
            b'~' => {
                let count = parse_integer(head).max(0);
                lua_createtable(L, 0, 1);
                lua_createtable(L, 0, count.min(1 << 20) as c_int);
                let mut next = next;
                for _ in 0..count {
                    next = push_reply(L, reply, next, depth + 1);
                    lua_pushboolean(L, 1);
                    set_pair(L);
                }
                lua_setfield(L, -2, c"set".as_ptr());
                return next;
            }
            // Said of the reply behind it; scripts do not see it.
            b'|' => {
                let count = parse_integer(head).max(0);
                let mut next = next;
                for _ in 0..count.saturating_mul(2) {
                    next = push_reply(L, reply, next, depth + 1);
                    lua_settop(L, -2);
                }
                return push_reply(L, reply, next, depth + 1);
            }
            b'=' => {
                let end = next + parse_integer(head).max(0) as usize;
                let text = reply.get(next..end).unwrap_or_default();
                let (format, text) = text.split_at(text.len().min(4));
                lua_createtable(L, 0, 1);
                lua_createtable(L, 0, 2);
                push_bytes(L, &format[..format.len().min(3)]);
                lua_setfield(L, -2, c"format".as_ptr());
                push_bytes(L, text);
                lua_setfield(L, -2, c"string".as_ptr());
                lua_setfield(L, -2, c"verbatim_string".as_ptr());
                return end + 2;
            }
            _ => lua_pushnil(L),
        }
        next
    }
}

/// Stores value and key from the top of the stack in the table below; a nil or NaN key, which no
/// table can hold, is dropped.
unsafe fn set_pair(L: *mut lua_State) {
    // SAFETY: the caller pushed table, key and value.
    unsafe {
        let kind = lua_type(L, -2);
        if kind == LUA_TNIL || (kind == LUA_TNUMBER && lua_tonumber(L, -2).is_nan()) {
            lua_settop(L, -3);
        } else {
            lua_rawset(L, -3);
        }
    }
}

unsafe fn push_tagged(L: *mut lua_State, tag: &CStr, text: &[u8]) {
    // SAFETY: the caller checked for stack room.
    unsafe {
        lua_createtable(L, 0, 1);
        push_bytes(L, text);
        lua_setfield(L, -2, tag.as_ptr());
    }
}

/// Pushes an error reply of a command as the table scripts see.
///
/// # Safety
/// Needs room for three values; may raise.
pub unsafe fn push_error(L: *mut lua_State, text: &[u8]) {
    // SAFETY: the caller checked for stack room.
    unsafe {
        lua_createtable(L, 0, 2);
        push_bytes(L, text);
        lua_setfield(L, -2, c"err".as_ptr());
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, c"ignore_error_stats_update".as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_replies() {
        for value in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(parse_integer(value.to_string().as_bytes()), value);
        }
    }

    #[test]
    fn numbers_that_do_not_fit_an_integer() {
        assert_eq!(integer_of(3.99), 3);
        assert_eq!(integer_of(-3.99), -3);
        assert_eq!(integer_of(f64::NAN), i64::MIN);
        assert_eq!(integer_of(1e300), i64::MIN);
    }
}

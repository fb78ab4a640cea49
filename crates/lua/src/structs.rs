//! The `struct` library: C structures to strings and back, as Redis ships it.

use std::ffi::c_int;

use crate::bridge::{self, context_upvalue};
use crate::context::Context;
use crate::convert::{bytes_at, integer_of, push_bytes};
use crate::interrupt;
use crate::raise;
use crate::sys::*;

const INTEGER_BYTES_MAX: usize = 32;
const ALIGN_DEFAULT: usize = 8;

/// Pushes the `struct` table.
///
/// # Safety
/// Called at set-up inside a protected call; may raise.
pub unsafe fn push_library(L: *mut lua_State, context: *mut Context) {
    // SAFETY: by the caller.
    unsafe {
        lua_createtable(L, 0, 3);
        for (name, function) in [
            (c"pack", pack as lua_CFunction),
            (c"unpack", unpack as lua_CFunction),
            (c"size", size as lua_CFunction),
        ] {
            bridge::push_function(L, context, function);
            lua_setfield(L, -2, name.as_ptr());
        }
    }
}

/// A walk through a format, with the byte order and alignment in force.
struct Format<'a> {
    L: *mut lua_State,
    text: &'a [u8],
    at: usize,
    big_endian: bool,
    align: usize,
    /// Options until the interrupt is looked at.
    countdown: u32,
}

const OPTIONS_AT_ONCE: u32 = 4096;

impl<'a> Format<'a> {
    /// The format in the first argument; a NUL ends it.
    unsafe fn argument(L: *mut lua_State) -> Format<'a> {
        // SAFETY: the string stays on the stack while the function runs; may raise.
        let text: &[u8] = unsafe {
            luaL_checklstring(L, 1, std::ptr::null_mut());
            bytes_at(L, 1)
        };
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let big_endian = cfg!(target_endian = "big");
        Format { L, text, at: 0, big_endian, align: 1, countdown: OPTIONS_AT_ONCE }
    }

    /// The next option and its size; None at the end.
    unsafe fn next(&mut self) -> Option<(u8, usize)> {
        let option = *self.text.get(self.at)?;
        self.at += 1;
        self.countdown -= 1;
        if self.countdown == 0 {
            self.countdown = OPTIONS_AT_ONCE;
            // SAFETY: may raise; nothing with a destructor is held.
            unsafe { interrupt::poll(self.L) };
        }
        // SAFETY: may raise; nothing with a destructor is held.
        let size = unsafe {
            match option {
                b'B' | b'b' | b'x' => 1,
                b'H' | b'h' => 2,
                b'L' | b'l' | b'T' | b'd' => 8,
                b'f' => 4,
                b'c' => self.number(1),
                b'i' | b'I' => {
                    let size = self.number(4);
                    if size > INTEGER_BYTES_MAX {
                        let limit = INTEGER_BYTES_MAX;
                        raise::format(
                            self.L,
                            format_args!("integral size {size} is larger than limit of {limit}"),
                        );
                    }
                    size
                }
                _ => 0,
            }
        };
        Some((option, size))
    }

    unsafe fn number(&mut self, default: usize) -> usize {
        let mut value: Option<i32> = None;
        while let Some(digit) = self.text.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            let next = value
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|value| value.checked_add(i32::from(digit - b'0')));
            if next.is_none() {
                // SAFETY: may raise; nothing with a destructor is held.
                unsafe { raise::format(self.L, format_args!("integral size overflow")) };
            }
            value = next;
            self.at += 1;
        }
        value.map_or(default, |value| value as usize)
    }

    /// Bytes to skip so that an element of `size` is aligned at `place`.
    fn padding(&self, place: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.align);
        // As the original: exact for powers of two, and only those are aligned in practice.
        size.wrapping_sub(place & (size - 1)) & (size - 1)
    }

    /// An option that is no element: byte order, alignment, blanks.
    unsafe fn control(&mut self, option: u8) {
        // SAFETY: may raise; nothing with a destructor is held.
        unsafe {
            match option {
                b' ' => {}
                b'>' => self.big_endian = true,
                b'<' => self.big_endian = false,
                b'!' => {
                    let align = self.number(ALIGN_DEFAULT);
                    if !align.is_power_of_two() {
                        raise::format(
                            self.L,
                            format_args!("alignment {align} is not a power of 2"),
                        );
                    }
                    self.align = align;
                }
                _ => {
                    let mut message = *b"invalid format option '?'\0";
                    message[23] = option;
                    luaL_argerror(self.L, 1, message.as_ptr().cast());
                }
            }
        }
    }
}

unsafe extern "C-unwind" fn pack(L: *mut lua_State) -> c_int {
    // SAFETY: the result is built in the context's buffer; nothing with a destructor is held.
    unsafe {
        let mut format = Format::argument(L);
        let out = &raw mut (*context_upvalue(L)).scratch;
        (*out).clear();
        let mut arg = 2;
        // Ends the arguments, so that a missing one reads as nil.
        lua_pushnil(L);
        while let Some((option, size)) = format.next() {
            let padding = format.padding((*out).len(), option, size);
            (*out).resize((*out).len() + padding, 0);
            match option {
                b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                    let number = luaL_checknumber(L, arg);
                    let value = if number < 0.0 {
                        integer_of(number) as u64
                    } else if number < 18_446_744_073_709_551_616.0 {
                        number as u64
                    } else {
                        0
                    };
                    let mut bytes = [0u8; INTEGER_BYTES_MAX];
                    bytes[..8].copy_from_slice(&value.to_le_bytes());
                    if format.big_endian {
                        bytes[..size].reverse();
                    }
                    (*out).extend_from_slice(&bytes[..size]);
                    arg += 1;
                }
                b'x' => (*out).push(0),
                b'f' => {
                    let value = luaL_checknumber(L, arg) as f32;
                    let bytes =
                        if format.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
                    (*out).extend_from_slice(&bytes);
                    arg += 1;
                }
                b'd' => {
                    let value = luaL_checknumber(L, arg);
                    let bytes =
                        if format.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
                    (*out).extend_from_slice(&bytes);
                    arg += 1;
                }
                b'c' | b's' => {
                    let mut len = 0;
                    let text = luaL_checklstring(L, arg, &mut len);
                    arg += 1;
                    let size = if size == 0 { len } else { size };
                    if len < size {
                        luaL_argerror(L, arg, c"string too short".as_ptr());
                    }
                    if (*out).len() + size > (*context_upvalue(L)).meter.limit_bytes {
                        push_bytes(L, b"not enough memory");
                        lua_error(L);
                    }
                    (*out).extend_from_slice(std::slice::from_raw_parts(text.cast(), size));
                    if option == b's' {
                        (*out).push(0);
                    }
                }
                _ => format.control(option),
            }
        }
        push_bytes(L, (*out).as_slice());
        1
    }
}

unsafe extern "C-unwind" fn unpack(L: *mut lua_State) -> c_int {
    // SAFETY: the data string stays on the stack; nothing with a destructor is held.
    unsafe {
        let mut format = Format::argument(L);
        luaL_checklstring(L, 2, std::ptr::null_mut());
        let data: &[u8] = bytes_at(L, 2);
        let place = if lua_type(L, 3) <= LUA_TNIL { 1 } else { luaL_checkinteger(L, 3) };
        if place == 0 {
            luaL_argerror(L, 3, c"offset must be 1 or greater".as_ptr());
        }
        // A negative offset is far beyond the data.
        let mut place = (place as usize).wrapping_sub(1);
        let mut results = 0;
        let need = |place: usize, size: usize| {
            if size > data.len() || place > data.len() - size {
                luaL_argerror(L, 2, c"data string too short".as_ptr());
            }
        };
        while let Some((option, mut size)) = format.next() {
            place = place.wrapping_add(format.padding(place, option, size));
            need(place, size);
            luaL_checkstack(L, 2, c"too many results".as_ptr());
            match option {
                b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                    let bytes = &data[place..place + size];
                    let signed = option.is_ascii_lowercase();
                    lua_pushnumber(L, integer(bytes, format.big_endian, signed));
                    results += 1;
                }
                b'x' => {}
                b'f' => {
                    let mut bytes = [0; 4];
                    bytes.copy_from_slice(&data[place..place + 4]);
                    let value = if format.big_endian {
                        f32::from_be_bytes(bytes)
                    } else {
                        f32::from_le_bytes(bytes)
                    };
                    lua_pushnumber(L, f64::from(value));
                    results += 1;
                }
                b'd' => {
                    let mut bytes = [0; 8];
                    bytes.copy_from_slice(&data[place..place + 8]);
                    let value = if format.big_endian {
                        f64::from_be_bytes(bytes)
                    } else {
                        f64::from_le_bytes(bytes)
                    };
                    lua_pushnumber(L, value);
                    results += 1;
                }
                b'c' => {
                    if size == 0 {
                        if results == 0 || lua_isnumber(L, -1) == 0 {
                            raise::format(L, format_args!("format 'c0' needs a previous size"));
                        }
                        size = integer_of(lua_tonumber(L, -1)) as usize;
                        lua_settop(L, -2);
                        results -= 1;
                        need(place, size);
                    }
                    push_bytes(L, &data[place..place + size]);
                    results += 1;
                }
                b's' => {
                    let Some(len) = data[place..].iter().position(|&byte| byte == 0) else {
                        raise::format(L, format_args!("unfinished string in data"));
                    };
                    push_bytes(L, &data[place..place + len]);
                    size = len + 1;
                    results += 1;
                }
                _ => format.control(option),
            }
            place += size;
        }
        lua_pushnumber(L, (place + 1) as f64);
        results + 1
    }
}

/// An integer of any size; bytes beyond the lower eight fall away.
fn integer(bytes: &[u8], big_endian: bool, signed: bool) -> f64 {
    let shift_in = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let mut value = if big_endian {
        bytes.iter().fold(0, shift_in)
    } else {
        bytes.iter().rev().fold(0, shift_in)
    };
    if !signed {
        return value as f64;
    }
    let mask = u64::MAX.wrapping_shl((bytes.len() as u32 * 8).wrapping_sub(1));
    if value & mask != 0 {
        value |= mask;
    }
    value as i64 as f64
}

unsafe extern "C-unwind" fn size(L: *mut lua_State) -> c_int {
    // SAFETY: nothing with a destructor is held.
    unsafe {
        let mut format = Format::argument(L);
        let mut place = 0;
        while let Some((option, size)) = format.next() {
            place += format.padding(place, option, size);
            if option == b's' {
                luaL_argerror(L, 1, c"option 's' has no fixed size".as_ptr());
            } else if option == b'c' && size == 0 {
                luaL_argerror(L, 1, c"option 'c0' has no fixed size".as_ptr());
            }
            if !option.is_ascii_alphanumeric() {
                format.control(option);
            }
            place += size;
        }
        lua_pushnumber(L, place as f64);
        1
    }
}

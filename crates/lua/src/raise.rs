//! Raising errors with a formatted text from C functions.

use std::fmt::Arguments;
use std::io::Write as _;

use crate::convert::push_bytes;
use crate::sys::*;

/// Longer texts are cut.
const TEXT_BYTES_MAX: usize = 512;

/// Raises an error with the position of the running function's caller in front, as luaL_error.
///
/// # Safety
/// As for any raising function; the arguments hold nothing with a destructor.
pub unsafe fn format(L: *mut lua_State, text: Arguments<'_>) -> ! {
    let mut buffer = [0u8; TEXT_BYTES_MAX];
    let mut rest = &mut buffer[..];
    let _ = rest.write_fmt(text);
    let left = rest.len();
    // SAFETY: by the caller; the buffer has no destructor.
    unsafe {
        luaL_where(L, 1);
        push_bytes(L, &buffer[..TEXT_BYTES_MAX - left]);
        lua_concat(L, 2);
        lua_error(L);
    }
    unreachable!("lua_error returns to its pcall")
}

//! `table.sort` without an order function: lists of numbers and lists of strings, sorted outside
//! Lua and written back in one go.
//!
//! Equal numbers and equal strings cannot be told apart, so the result is the one of any sorting
//! method. What could tell them apart or needs Lua's comparisons (NaN, minus zero, other values,
//! mixed lists, lists outside the array part) is left to LuaJIT's own function; lists with an
//! order function are sorted in Lua (`sandbox.lua`), where the compiler reaches it.

use std::cmp::Ordering;
use std::ffi::c_int;

use crate::bridge::context_upvalue;
use crate::context::shrink;
use crate::internals::{self, Bits, Str, Value, value_of};
use crate::interrupt;
use crate::sys::*;

/// Values, or bytes of strings, that are sorted or merged between two looks at the interrupt.
const VALUES_AT_ONCE: usize = 16 << 10;
const BYTES_AT_ONCE: usize = 4 << 20;

/// Longer lists would take too much memory beside the Lua heap.
const VALUES_MAX: usize = 4 << 20;

/// Lists while they are sorted; kept for the next one.
#[derive(Default)]
pub struct Buffers {
    numbers: [Vec<u64>; 2],
    strings: [Vec<Text>; 2],
}

/// A string with its first eight bytes, which decide most comparisons.
#[derive(Clone, Copy)]
struct Text {
    front: u64,
    string: *const Str,
}

impl Text {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the list being sorted holds the string.
        unsafe { internals::string_bytes(self.string) }
    }

    fn compare(&self, other: &Text) -> Ordering {
        self.front.cmp(&other.front).then_with(|| {
            if self.string == other.string {
                Ordering::Equal
            } else {
                self.bytes().cmp(other.bytes())
            }
        })
    }
}

/// `sort_values(list)`: whether the list is sorted now; if not it is as it was.
pub unsafe extern "C-unwind" fn sort_values(L: *mut lua_State) -> c_int {
    // SAFETY: the list stays on the stack and nothing changes it meanwhile: only a look at the
    // interrupt runs foreign code, which changes no Lua value. Buffers belong to the context.
    unsafe {
        let buffers = &raw mut (*context_upvalue(L)).sort;
        let sorted = lua_type(L, 1) == LUA_TTABLE && {
            let count = lua_objlen(L, 1);
            match internals::list_slots(lua_topointer(L, 1).cast(), count) {
                Some(list) if (2..=VALUES_MAX).contains(&count) => match value_of(list[0]) {
                    Value::Number(_) => sort_numbers(L, &mut (*buffers).numbers, list),
                    Value::Str(_) => sort_strings(L, &mut (*buffers).strings, list),
                    _ => false,
                },
                _ => count < 2,
            }
        };
        lua_pushboolean(L, c_int::from(sorted));
        1
    }
}

/// # Safety
/// May raise.
unsafe fn sort_numbers(L: *mut lua_State, buffers: &mut [Vec<u64>; 2], list: &mut [Bits]) -> bool {
    const SIGN: u64 = 1 << 63;
    let [values, spare] = buffers;
    values.clear();
    values.reserve(list.len());
    for &bits in &*list {
        match value_of(bits) {
            Value::Number(value) if !value.is_nan() && value.to_bits() != SIGN => {
                // As an integer that sorts like the number.
                let bits = value.to_bits();
                values.push(if bits & SIGN == 0 { bits | SIGN } else { !bits });
            }
            _ => return false,
        }
    }
    // SAFETY: by the caller.
    unsafe { sort(L, values, spare, <[u64]>::sort_unstable, u64::cmp, |_| 0) };
    for (slot, &bits) in list.iter_mut().zip(&*values) {
        *slot = if bits & SIGN == 0 { !bits } else { bits & !SIGN };
    }
    buffers.iter_mut().for_each(shrink);
    true
}

/// # Safety
/// May raise.
unsafe fn sort_strings(L: *mut lua_State, buffers: &mut [Vec<Text>; 2], list: &mut [Bits]) -> bool {
    let [values, spare] = buffers;
    values.clear();
    values.reserve(list.len());
    for &bits in &*list {
        let Value::Str(string) = value_of(bits) else { return false };
        // SAFETY: the list holds the string.
        let bytes = unsafe { internals::string_bytes(string) };
        let mut front = [0; 8];
        let len = bytes.len().min(8);
        front[..len].copy_from_slice(&bytes[..len]);
        values.push(Text { front: u64::from_be_bytes(front), string });
    }
    // SAFETY: by the caller.
    unsafe {
        let piece = |piece: &mut [Text]| piece.sort_by(Text::compare);
        sort(L, values, spare, piece, Text::compare, |text| text.bytes().len());
    }
    for (slot, text) in list.iter_mut().zip(&*values) {
        *slot = internals::string_bits(text.string);
    }
    buffers.iter_mut().for_each(shrink);
    true
}

/// Sorts pieces of bounded cost, then merges them, with looks at the interrupt in between.
///
/// # Safety
/// May raise; the buffers must be owned by somebody who outlives that.
pub unsafe fn sort<T: Copy>(
    L: *mut lua_State,
    values: &mut Vec<T>,
    spare: &mut Vec<T>,
    sort_piece: impl Fn(&mut [T]),
    compare: impl Fn(&T, &T) -> Ordering,
    weight: impl Fn(&T) -> usize,
) {
    let count = values.len();
    let mut bytes = 0;
    let mut start = 0;
    for at in 0..count {
        bytes += weight(&values[at]);
        // Merging expects pieces at multiples of VALUES_AT_ONCE. A piece of heavy strings is sorted
        // several times while it grows, which costs little where most of it is in order.
        let is_end = (at + 1) % VALUES_AT_ONCE == 0 || at + 1 == count;
        if is_end || bytes > BYTES_AT_ONCE {
            sort_piece(&mut values[start..=at]);
            // SAFETY: by the caller.
            unsafe { interrupt::poll(L) };
            bytes = 0;
            if is_end {
                start = at + 1;
            }
        }
    }
    let mut width = VALUES_AT_ONCE;
    while width < count {
        spare.clear();
        spare.reserve(count);
        let mut cost = 0;
        for pair in (0..count).step_by(2 * width) {
            let middle = (pair + width).min(count);
            let end = (pair + 2 * width).min(count);
            let (mut left, mut right) = (pair, middle);
            while left < middle && right < end {
                let from_right = compare(&values[right], &values[left]) == Ordering::Less;
                let next = if from_right { values[right] } else { values[left] };
                right += usize::from(from_right);
                left += usize::from(!from_right);
                spare.push(next);
                cost += 64 + weight(&next);
                if cost > BYTES_AT_ONCE {
                    cost = 0;
                    // SAFETY: by the caller.
                    unsafe { interrupt::poll(L) };
                }
            }
            spare.extend_from_slice(&values[left..middle]);
            spare.extend_from_slice(&values[right..end]);
        }
        std::mem::swap(values, spare);
        width *= 2;
    }
}

//! The VM's allocator: Rust's global allocator with a meter and a limit.
//!
//! Every block of the Lua heap passes through `allocate`, so the meter is exact; machine code of
//! compiled traces is mapped by LuaJIT itself and is not in it (`maxmcode` bounds it). When a
//! request would cross the limit the answer is NULL, which LuaJIT turns into the Lua error
//! "not enough memory"; shrinking and freeing never fail.

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::ffi::c_void;

/// LuaJIT asks malloc's alignment of its allocator.
const ALIGN: usize = 16;

/// Meter and limit of one VM. Touched only by the VM's thread.
pub struct Meter {
    pub used_bytes: usize,
    pub limit_bytes: usize,
    /// A request was refused since this was last cleared.
    pub refused: bool,
}

impl Meter {
    pub fn new(limit_bytes: usize) -> Meter {
        Meter { used_bytes: 0, limit_bytes, refused: false }
    }
}

/// LuaJIT's allocation callback; `ud` points to the VM's `Meter`.
///
/// # Safety
/// Called by LuaJIT only: `block` is null or a block of `old` bytes from this function.
pub unsafe extern "C" fn allocate(
    ud: *mut c_void,
    block: *mut c_void,
    old: usize,
    new: usize,
) -> *mut c_void {
    // SAFETY: `ud` is the Meter that outlives the VM, and only the VM's thread comes here.
    let meter = unsafe { &mut *ud.cast::<Meter>() };
    let old = if block.is_null() { 0 } else { old };
    if new > old && meter.used_bytes - old + new > meter.limit_bytes {
        meter.refused = true;
        return std::ptr::null_mut();
    }
    // SAFETY: sizes are below isize::MAX (the limit is), alignment is a power of two, and a
    // non-null block came from this function with `old` bytes.
    unsafe {
        let fresh = if new == 0 {
            if old != 0 {
                dealloc(block.cast(), Layout::from_size_align_unchecked(old, ALIGN));
            }
            std::ptr::null_mut()
        } else if old == 0 {
            alloc(Layout::from_size_align_unchecked(new, ALIGN))
        } else {
            realloc(block.cast(), Layout::from_size_align_unchecked(old, ALIGN), new)
        };
        if fresh.is_null() && new != 0 {
            meter.refused = true;
            return std::ptr::null_mut();
        }
        meter.used_bytes = meter.used_bytes - old + new;
        fresh.cast()
    }
}

//! The VM's allocator: Rust's global allocator with a meter and a limit.
//!
//! Every block of the Lua heap passes through `allocate`, so the meter is exact; machine code of
//! compiled traces is mapped by LuaJIT itself and is not in it (`maxmcode` bounds it). When a
//! request would cross the limit the answer is NULL, which LuaJIT turns into the Lua error
//! "not enough memory"; shrinking and freeing never fail.

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::ffi::c_void;

use crate::sys::{lua_State, luar_collect_soon};

/// LuaJIT asks malloc's alignment of its allocator.
const ALIGN: usize = 16;

/// Meter and limit of one VM. Touched only by the VM's thread.
pub struct Meter {
    pub used_bytes: usize,
    pub limit_bytes: usize,
    /// Above this the collector is asked to begin a cycle now, not at twice the live heap.
    hurry_bytes: usize,
    /// The VM's main state; null while it is being made.
    pub state: *mut lua_State,
    /// A request was refused since this was last cleared.
    pub refused: bool,
}

impl Meter {
    pub fn new(limit_bytes: usize) -> Meter {
        let state = std::ptr::null_mut();
        Meter { used_bytes: 0, limit_bytes, hurry_bytes: limit_bytes / 2, state, refused: false }
    }

    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
        self.relax();
    }

    /// At the start of a run: no hurry before half of the limit is used again.
    pub fn relax(&mut self) {
        self.hurry_bytes = (self.limit_bytes / 2).max(self.used_bytes);
    }

    /// LuaJIT does not collect when an allocation fails, so collection must be ahead of the
    /// limit: from half of it on, a cycle begins whenever a quarter of what is left was taken.
    #[cold]
    fn hurry(&mut self, would_use: usize) {
        self.hurry_bytes = would_use + (self.limit_bytes - would_use) / 4 + 4096;
        // SAFETY: the state is live, and lowering the threshold is a plain write that the next
        // regular check of the collector sees.
        unsafe { luar_collect_soon(self.state) };
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
    if new > old {
        let would_use = meter.used_bytes - old + new;
        if would_use > meter.limit_bytes {
            meter.refused = true;
            return std::ptr::null_mut();
        }
        if would_use > meter.hurry_bytes && !meter.state.is_null() {
            meter.hurry(would_use);
        }
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

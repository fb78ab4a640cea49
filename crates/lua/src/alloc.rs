//! The VM's allocator: Rust's global allocator with a meter and a limit.
//!
//! Every block of the Lua heap passes through `allocate`, so the meter is exact; machine code of
//! compiled traces is mapped by LuaJIT itself and is not in it (`maxmcode` bounds it). When a
//! request would cross the limit the answer is NULL, which LuaJIT turns into the Lua error
//! "not enough memory"; shrinking and freeing never fail.
//!
//! Small blocks that were freed are kept for the next of their size ([`Spare`]): a script that makes
//! tables in one run has them swept in a later one, in batches larger than what the global
//! allocator keeps at hand for a thread.

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::ffi::c_void;

use crate::sys::{lua_State, luar_collect_soon};

/// LuaJIT asks malloc's alignment of its allocator.
const ALIGN: usize = 16;

/// Blocks of up to so many bytes are kept when they are freed.
const SMALL_BYTES_MAX: usize = 512;
/// So many bytes of them are kept per VM.
const KEPT_BYTES_MAX: usize = 1 << 20;
const SIZES: usize = SMALL_BYTES_MAX / ALIGN;

/// Freed blocks, by their size in steps of `ALIGN`: chains through their first word.
struct Spare {
    first: [*mut c_void; SIZES],
    /// How many more bytes may be kept.
    room_bytes: usize,
}

impl Spare {
    fn new() -> Spare {
        Spare { first: [std::ptr::null_mut(); SIZES], room_bytes: KEPT_BYTES_MAX }
    }

    /// The place of blocks of so many bytes, 1 to `SMALL_BYTES_MAX`.
    #[inline]
    fn place(bytes: usize) -> usize {
        (bytes - 1) / ALIGN
    }

    /// A block of `(place + 1) * ALIGN` bytes; null if there is no memory.
    #[inline]
    fn take(&mut self, place: usize) -> *mut c_void {
        let block = self.first[place];
        if block.is_null() {
            // SAFETY: the size is not 0, and the alignment a power of two.
            return unsafe { alloc(Self::layout(place)) }.cast();
        }
        // SAFETY: kept blocks hold the next one of their chain.
        self.first[place] = unsafe { *block.cast::<*mut c_void>() };
        self.room_bytes += Self::layout(place).size();
        block
    }

    /// # Safety
    /// The block came from `take` of the same place and is used no more.
    #[inline]
    unsafe fn give(&mut self, place: usize, block: *mut c_void) {
        // SAFETY: by the caller; a block has room for a pointer.
        unsafe {
            let layout = Self::layout(place);
            if self.room_bytes < layout.size() {
                return dealloc(block.cast(), layout);
            }
            self.room_bytes -= layout.size();
            *block.cast::<*mut c_void>() = self.first[place];
        }
        self.first[place] = block;
    }

    /// A block of `new` bytes with what the old one held; null if `new` is 0 or there is no memory.
    ///
    /// # Safety
    /// The block came from here with `old` bytes, unless `old` is 0. Sizes are below isize::MAX.
    #[inline]
    unsafe fn resize(&mut self, block: *mut c_void, old: usize, new: usize) -> *mut c_void {
        // SAFETY: by the caller; alignment is a power of two.
        unsafe {
            let large = |bytes| Layout::from_size_align_unchecked(bytes, ALIGN);
            let was_small = (1..=SMALL_BYTES_MAX).contains(&old);
            let is_small = (1..=SMALL_BYTES_MAX).contains(&new);
            if old == 0 {
                return match new {
                    0 => std::ptr::null_mut(),
                    _ if is_small => self.take(Self::place(new)),
                    _ => alloc(large(new)).cast(),
                };
            }
            if new == 0 {
                match was_small {
                    true => self.give(Self::place(old), block),
                    false => dealloc(block.cast(), large(old)),
                }
                return std::ptr::null_mut();
            }
            if !was_small && !is_small {
                return realloc(block.cast(), large(old), new).cast();
            }
            if was_small && is_small && Self::place(old) == Self::place(new) {
                return block;
            }
            let fresh = self.resize(std::ptr::null_mut(), 0, new);
            if !fresh.is_null() {
                fresh.copy_from_nonoverlapping(block, old.min(new));
                self.resize(block, old, 0);
            }
            fresh
        }
    }

    #[inline]
    fn layout(place: usize) -> Layout {
        // SAFETY: a small size, and a power of two.
        unsafe { Layout::from_size_align_unchecked((place + 1) * ALIGN, ALIGN) }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        for place in 0..SIZES {
            while !self.first[place].is_null() {
                let block = self.take(place);
                // SAFETY: it came from `alloc` with this layout.
                unsafe { dealloc(block.cast(), Self::layout(place)) };
            }
        }
    }
}

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
    spare: Spare,
}

impl Meter {
    pub fn new(limit_bytes: usize) -> Meter {
        let state = std::ptr::null_mut();
        Meter {
            used_bytes: 0,
            limit_bytes,
            hurry_bytes: limit_bytes / 2,
            state,
            refused: false,
            spare: Spare::new(),
        }
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
    // Most blocks asked for are new and small, and most given back are small.
    let is_small = |bytes: usize| (1..=SMALL_BYTES_MAX).contains(&bytes);
    if block.is_null() && is_small(new) {
        let would_use = meter.used_bytes + new;
        if would_use <= meter.hurry_bytes.min(meter.limit_bytes) {
            let fresh = meter.spare.take(Spare::place(new));
            meter.used_bytes += if fresh.is_null() { 0 } else { new };
            meter.refused |= fresh.is_null();
            return fresh;
        }
    } else if new == 0 && !block.is_null() && is_small(old) {
        // SAFETY: a block came from this function with `old` bytes.
        unsafe { meter.spare.give(Spare::place(old), block) };
        meter.used_bytes -= old;
        return std::ptr::null_mut();
    }
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
    // SAFETY: a non-null block came from this function with `old` bytes.
    let fresh = unsafe { meter.spare.resize(block, old, new) };
    if fresh.is_null() && new != 0 {
        meter.refused = true;
        return std::ptr::null_mut();
    }
    meter.used_bytes = meter.used_bytes - old + new;
    fresh
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of all sizes live side by side, keep what they hold when resized, and are all given
    /// back.
    #[test]
    fn blocks_keep_what_they_hold() {
        let mut meter = Meter::new(1 << 30);
        let ud: *mut c_void = (&raw mut meter).cast();
        let mut blocks: Vec<(*mut c_void, usize, u8)> = Vec::new();
        let mut random = 1_u64;
        let mut next = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % limit
        };
        for turn in 0..20_000_usize {
            let new = if next(4) == 0 { next(5000) } else { next(600) };
            let at = next(200);
            // SAFETY: blocks and their sizes are those the allocator answered.
            unsafe {
                if at < blocks.len() {
                    let (block, old, mark) = blocks[at];
                    let fresh = allocate(ud, block, old, new);
                    if new > 0 {
                        let kept = std::slice::from_raw_parts(fresh.cast::<u8>(), new.min(old));
                        assert!(kept.iter().all(|&byte| byte == mark));
                        fresh.cast::<u8>().write_bytes(mark, new);
                        blocks[at] = (fresh, new, mark);
                    } else {
                        blocks.swap_remove(at);
                    }
                } else if new > 0 {
                    let mark = turn as u8;
                    let fresh = allocate(ud, std::ptr::null_mut(), 0, new);
                    assert!((fresh as usize).is_multiple_of(ALIGN));
                    fresh.cast::<u8>().write_bytes(mark, new);
                    blocks.push((fresh, new, mark));
                }
            }
            assert_eq!(meter_used(ud), blocks.iter().map(|(_, size, _)| size).sum::<usize>());
        }
        for (block, size, _) in blocks {
            // SAFETY: as above.
            unsafe { allocate(ud, block, size, 0) };
        }
        assert_eq!(meter_used(ud), 0);
    }

    fn meter_used(ud: *mut c_void) -> usize {
        // SAFETY: it points to the meter of the test.
        unsafe { (*ud.cast::<Meter>()).used_bytes }
    }
}

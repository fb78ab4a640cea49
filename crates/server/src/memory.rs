//! What the process has allocated, read from jemalloc without asking it to sum anything up.
//!
//! jemalloc counts per thread what was ever allocated and freed. Long-lived threads register
//! their two counters here; the difference of the sums is `used_memory`, exact to the size class.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tikv_jemalloc_ctl::{epoch, raw, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As INFO names it.
pub const ALLOCATOR_NAME: &str = "jemalloc-5.3.0";

struct Counters {
    allocated: *mut u64,
    deallocated: *mut u64,
}

// SAFETY: the pointers lead into the thread's jemalloc state, which lives as long as the thread;
// only threads that live as long as the process register. They are only read, atomically.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

static THREADS: RwLock<Vec<Counters>> = RwLock::new(Vec::new());
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Has the calling thread counted. Call once, at the start of a thread that never ends.
pub fn register_thread() {
    // SAFETY: both names are those of pointers to `u64` in jemalloc's documentation, and end in
    // a zero byte.
    let counters =
        unsafe { (raw::read(b"thread.allocatedp\0"), raw::read(b"thread.deallocatedp\0")) };
    if let (Ok(allocated), Ok(deallocated)) = counters {
        THREADS.write().push(Counters { allocated, deallocated });
    }
}

/// Bytes allocated and not freed by all registered threads.
pub fn used_bytes() -> u64 {
    let (mut allocated, mut deallocated) = (0u64, 0u64);
    for counters in THREADS.read().iter() {
        // SAFETY: valid, aligned `u64`s for as long as the process runs (see `Counters`).
        let (plus, minus) = unsafe {
            (AtomicU64::from_ptr(counters.allocated), AtomicU64::from_ptr(counters.deallocated))
        };
        deallocated = deallocated.wrapping_add(minus.load(Ordering::Relaxed));
        allocated = allocated.wrapping_add(plus.load(Ordering::Relaxed));
    }
    let used = allocated.saturating_sub(deallocated);
    PEAK.fetch_max(used, Ordering::Relaxed);
    used
}

/// What the process takes beside `used_bytes`: fragmentation, the allocator's own structures, the
/// program. As of the last `measure_overhead`.
static OVERHEAD: AtomicU64 = AtomicU64::new(0);

/// Measures the overhead; called now and then, as it asks the kernel.
pub fn measure_overhead() {
    OVERHEAD.store(resident_bytes().saturating_sub(used_bytes()), Ordering::Relaxed);
}

/// Below this a limit is about data alone: the program takes more than that by itself.
const SMALL_LIMIT_BYTES: u64 = 16 << 20;

/// How much may be allocated so that the process as a whole stays at a limit. At most a sixteenth is
/// taken off for the overhead, and less of a small limit, so that it still holds data.
pub fn allocation_limit(limit_bytes: u64) -> u64 {
    let most = (limit_bytes / 16).min(limit_bytes.saturating_sub(SMALL_LIMIT_BYTES) / 8);
    limit_bytes - OVERHEAD.load(Ordering::Relaxed).min(most)
}

/// The most `used_bytes` has ever answered.
pub fn peak_bytes() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

/// Statistics of the allocator, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllocatorStats {
    pub allocated: u64,
    pub active: u64,
    pub resident: u64,
}

/// Asks jemalloc; takes tens of microseconds.
pub fn allocator_stats() -> AllocatorStats {
    let _ = epoch::advance();
    AllocatorStats {
        allocated: stats::allocated::read().unwrap_or(0) as u64,
        active: stats::active::read().unwrap_or(0) as u64,
        resident: stats::resident::read().unwrap_or(0) as u64,
    }
}

/// The allocator's report in words.
pub fn malloc_stats() -> String {
    let mut report = Vec::new();
    match tikv_jemalloc_ctl::stats_print::stats_print(&mut report, Default::default()) {
        Ok(()) => String::from_utf8_lossy(&report).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// Returns unused pages of all arenas to the system.
pub fn purge() {
    // 4096 stands for all arenas (MALLCTL_ARENAS_ALL in jemalloc's documentation).
    let mut name = *b"arena.4096.purge\0";
    // SAFETY: the name ends in a zero byte; the control takes and gives no value.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_mut_ptr().cast(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        );
    }
}

/// Resident set of the process, from the kernel.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    // SAFETY: sysconf has no preconditions.
    pages.unwrap_or(0) * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// Memory of the machine.
pub fn system_bytes() -> u64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) as u64 * libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

//! The 24-bit access clock of an entry: seconds for LRU, minutes and a logarithmic counter for
//! LFU. Source: the description of approximated LRU and LFU in the Redis documentation.

use crate::entry::Entry;
use crate::worker::Worker;

const LRU_MASK: u32 = 0x00ff_ffff;
/// Counter of a new key, so that it is not evicted before it had a chance.
const LFU_INITIAL: u32 = 5;

pub fn lru_clock(now_ms: i64) -> u32 {
    (now_ms / 1000) as u32 & LRU_MASK
}

fn lfu_minutes(now_ms: i64) -> u32 {
    (now_ms / 60_000) as u32 & 0xffff
}

/// The clock under LFU of a key that has just been created.
pub fn lfu_fresh(now_ms: i64) -> u32 {
    (lfu_minutes(now_ms) << 8) | LFU_INITIAL
}

/// Notes under LFU that a key was used.
pub fn lfu_touch(entry: &Entry, worker: &Worker, now_ms: i64) {
    let counter = lfu_count(entry, worker, now_ms);
    let counter = increment(counter, worker);
    entry.set_access((lfu_minutes(now_ms) << 8) | counter);
}

/// Seconds since the last use.
pub fn idle_seconds(entry: &Entry, now_ms: i64) -> u32 {
    lru_clock(now_ms).wrapping_sub(entry.access()) & LRU_MASK
}

/// Sets the clock as if the last use was `seconds` ago (COPY, RESTORE IDLETIME).
pub fn set_idle_seconds(entry: &Entry, seconds: u32, now_ms: i64) {
    entry.set_access(lru_clock(now_ms).wrapping_sub(seconds) & LRU_MASK);
}

/// Sets the logarithmic use counter, as if the last use was now (RESTORE FREQ).
pub fn set_lfu_count(entry: &Entry, counter: u8, now_ms: i64) {
    entry.set_access((lfu_minutes(now_ms) << 8) | u32::from(counter));
}

/// The logarithmic use counter after decay, 0 to 255.
pub fn lfu_count(entry: &Entry, worker: &Worker, now_ms: i64) -> u32 {
    let last = entry.access() >> 8;
    let counter = entry.access() & 0xff;
    let elapsed = lfu_minutes(now_ms).wrapping_sub(last) & 0xffff;
    match worker.settings.lfu_decay_minutes {
        0 => counter,
        period => counter.saturating_sub(elapsed / period),
    }
}

/// Counts one use with probability 1 / (base * factor + 1).
fn increment(counter: u32, worker: &Worker) -> u32 {
    if counter == 255 {
        return 255;
    }
    let base = f64::from(counter.saturating_sub(LFU_INITIAL));
    let chance = 1.0 / (base * f64::from(worker.settings.lfu_log_factor) + 1.0);
    if worker.rng.borrow_mut().f64() < chance { counter + 1 } else { counter }
}

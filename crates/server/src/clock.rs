//! The wall clock that commands see. `luar script test` holds it still and moves it by hand, so
//! that a script's time is what its test says; a server never does.
//!
//! Only the keyspace's time is held: how long things take is measured by `Instant` as ever.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix ms at which the clock is held; 0 when it runs.
static HELD_MS: AtomicI64 = AtomicI64::new(0);

/// Unix time, and whether it stands still.
pub fn read() -> (Duration, bool) {
    match HELD_MS.load(Ordering::Acquire) {
        0 => (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), false),
        held_ms => (Duration::from_millis(held_ms.unsigned_abs()), true),
    }
}

/// Holds the clock of this process at a Unix time in ms, above zero, until it is set again.
pub fn hold(unix_ms: i64) {
    HELD_MS.store(unix_ms, Ordering::Release);
}

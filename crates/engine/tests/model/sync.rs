//! The engine's `sync` under the model checker: the same names, but shuttle decides who runs next
//! at every use. Time does not pass here: a lock with a time limit may give up whenever it is not
//! had at once.

use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::yield_now;

pub use shuttle::sync::atomic::{AtomicBool, AtomicU8};

/// A lock without a guard. Waiting is real waiting, so that a deadlock is seen as one.
pub struct RawMutex {
    locked: Mutex<bool>,
    freed: Condvar,
}

// SAFETY: `locked` changes from false to true in one critical section, so one holder at a time.
unsafe impl lock_api::RawMutex for RawMutex {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: RawMutex = RawMutex { locked: Mutex::new(false), freed: Condvar::new() };

    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        let mut locked = self.locked.lock().unwrap();
        while *locked {
            locked = self.freed.wait(locked).unwrap();
        }
        *locked = true;
    }

    fn try_lock(&self) -> bool {
        !std::mem::replace(&mut *self.locked.lock().unwrap(), true)
    }

    unsafe fn unlock(&self) {
        let held = std::mem::replace(&mut *self.locked.lock().unwrap(), false);
        assert!(held, "unlocked by somebody who does not hold it");
        self.freed.notify_one();
    }
}

// SAFETY: unlocking fairly is one way of unlocking.
unsafe impl lock_api::RawMutexFair for RawMutex {
    unsafe fn unlock_fair(&self) {
        // SAFETY: the caller's promise.
        unsafe { lock_api::RawMutex::unlock(self) };
    }
}

// SAFETY: true is only answered when `try_lock` has taken it.
unsafe impl lock_api::RawMutexTimed for RawMutex {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_for(&self, _: Duration) -> bool {
        loop {
            if lock_api::RawMutex::try_lock(self) {
                return true;
            }
            if thread_rng().gen_bool(0.2) {
                return false;
            }
            yield_now();
        }
    }

    fn try_lock_until(&self, _: Instant) -> bool {
        self.try_lock_for(Duration::ZERO)
    }
}

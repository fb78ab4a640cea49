//! Gates: how one plan gets the whole keyspace to itself without taking 1024 locks.
//!
//! Every worker holds its own gate while it runs a batch of commands. Going exclusive takes the
//! turnstile, raises a flag that batches check between commands, and then takes every gate. The
//! lock order is turnstile, gates ascending, shards ascending (see `docs/locking.md`); a worker
//! gives its own gate back before it asks for all of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lock_api::{RawMutex as _, RawMutexFair as _, RawMutexTimed as _};

use crate::sync::{AtomicBool, RawMutex};

#[repr(align(128))]
struct Gate(RawMutex);

/// One gate a worker, plus one for threads that are not workers.
pub struct Gates {
    own: Box<[Gate]>,
    turnstile: RawMutex,
    wanted: AtomicBool,
}

impl Gates {
    pub fn new(count: usize) -> Gates {
        Gates {
            own: (0..count).map(|_| Gate(RawMutex::INIT)).collect(),
            turnstile: RawMutex::INIT,
            wanted: AtomicBool::new(false),
        }
    }

    /// Takes the gate of `worker`, letting a waiting exclusive plan go first. False when it could
    /// not be had in time; without a limit it waits for ever.
    #[must_use]
    pub fn enter(&self, worker: usize, patience: Option<Duration>) -> bool {
        let gate = &self.own[worker].0;
        if !self.wanted.load(Ordering::Relaxed) && gate.try_lock() {
            return true;
        }
        self.enter_slowly(worker, patience.map(|patience| Instant::now() + patience))
    }

    #[cold]
    fn enter_slowly(&self, worker: usize, deadline: Option<Instant>) -> bool {
        if !self.wait_turn(deadline) {
            return false;
        }
        let gate = &self.own[worker].0;
        match deadline {
            None => {
                gate.lock();
                true
            }
            Some(deadline) => gate.try_lock_until(deadline),
        }
    }

    fn wait_turn(&self, deadline: Option<Instant>) -> bool {
        let passed = match deadline {
            None => {
                self.turnstile.lock();
                true
            }
            Some(deadline) => self.turnstile.try_lock_until(deadline),
        };
        if passed {
            // SAFETY: locked two lines above by this thread.
            unsafe { self.turnstile.unlock_fair() };
        }
        passed
    }

    /// Gives the gate of `worker` back.
    ///
    /// # Safety
    /// The calling thread must have entered it.
    pub unsafe fn leave(&self, worker: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.own[worker].0.unlock() };
    }

    /// Whether somebody waits to go exclusive: batches give their gate back between commands.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Takes every gate. False when another exclusive plan did not end in time, or when a batch
    /// did not and `give_up`, asked each time the patience is over, says so. The caller must hold
    /// none of them.
    #[must_use]
    pub fn enter_all(&self, patience: Option<Duration>, give_up: impl Fn() -> bool) -> bool {
        match patience {
            None => self.turnstile.lock(),
            Some(patience) => {
                if !self.turnstile.try_lock_for(patience) {
                    return false;
                }
            }
        }
        self.wanted.store(true, Ordering::Relaxed);
        for (index, gate) in self.own.iter().enumerate() {
            let Some(patience) = patience else {
                gate.0.lock();
                continue;
            };
            // The turnstile is kept meanwhile: who waits for long commands keeps its turn.
            while !gate.0.try_lock_for(patience) {
                if give_up() {
                    // SAFETY: the turnstile and the gates before this one were locked above.
                    unsafe { self.release(index) };
                    return false;
                }
            }
        }
        true
    }

    /// Gives every gate back.
    ///
    /// # Safety
    /// The calling thread must have entered all.
    pub unsafe fn leave_all(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.release(self.own.len()) };
    }

    /// Gives the first `taken` gates and the turnstile back.
    ///
    /// # Safety
    /// The calling thread must have locked them.
    unsafe fn release(&self, taken: usize) {
        self.wanted.store(false, Ordering::Relaxed);
        for gate in &self.own[..taken] {
            // SAFETY: the caller's promise.
            unsafe { gate.0.unlock() };
        }
        // SAFETY: the caller's promise. Fair, or a script loop would starve the others.
        unsafe { self.turnstile.unlock_fair() };
    }
}

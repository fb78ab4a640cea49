//! Clients that wait for a key: the registry half of BLPOP and its kin.
//!
//! A waiter stands in the queue of each of its keys, in the shard of the key, in the order of
//! arrival. Who finds the key ready claims the first waiter, runs its command, and either
//! finishes it or puts it back. The state word makes sure that one thread at a time does so and
//! that no wake-up is lost meanwhile. Thread safety: queues are guarded by their shard's lock;
//! the state is atomic.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::AtomicU8;

const WAITING: u8 = 0;
const SERVING: u8 = 1;
/// Another of its keys became ready while it was being served.
const SERVING_AGAIN: u8 = 2;
const DONE: u8 = 3;

/// Database and key.
pub type KeyName = (u32, Box<[u8]>);

pub struct Waiter {
    state: AtomicU8,
    /// Its place in the order of arrival, the same in all its queues; 0 before it is queued.
    pub(crate) ticket: AtomicU64,
    pub keys: Vec<KeyName>,
    /// What the server needs to run and answer it.
    pub body: Box<dyn Any + Send + Sync>,
}

impl Waiter {
    pub fn new(keys: Vec<KeyName>, body: Box<dyn Any + Send + Sync>) -> Arc<Waiter> {
        Arc::new(Waiter { state: AtomicU8::new(WAITING), ticket: AtomicU64::new(0), keys, body })
    }

    /// Claims it for serving. When somebody else serves it already, makes that one look again.
    pub fn claim(&self) -> bool {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let (next, claimed) = match state {
                WAITING => (SERVING, true),
                SERVING => (SERVING_AGAIN, false),
                _ => return false,
            };
            if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
            {
                return claimed;
            }
        }
    }

    /// Puts a claimed waiter back. False when a key became ready meanwhile: it stays claimed and
    /// the caller must try again.
    #[must_use]
    pub fn put_back(&self) -> bool {
        if self
            .state
            .compare_exchange(SERVING, WAITING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            return true;
        }
        // Only the claimer leaves SERVING_AGAIN, so a plain store is enough.
        self.state.store(SERVING, Ordering::Release);
        false
    }

    /// Ends a claimed waiter.
    pub fn finish(&self) {
        self.state.store(DONE, Ordering::Release);
    }

    /// Ends a waiter that nobody serves right now: timeout, disconnect, UNBLOCK. False when it is
    /// being served or has been. Who holds all gates meets nobody who serves: there false means
    /// that it is done.
    pub fn cancel(&self) -> bool {
        self.state.compare_exchange(WAITING, DONE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }
}

/// The next client in the queue of a key, as `Engine::claim_waiter` found it.
pub struct Claim {
    /// Passed to the next claim, it has the queue looked through behind this client.
    pub ticket: u64,
    /// `None` when it is being served already; it was told to look again.
    pub waiter: Option<Arc<Waiter>>,
}

/// The flag of one connection's WATCHes: set by the door when a watched key changes.
#[derive(Default)]
pub struct Watch(AtomicU8);

impl Watch {
    pub fn mark(&self) {
        self.0.store(1, Ordering::Release);
    }

    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

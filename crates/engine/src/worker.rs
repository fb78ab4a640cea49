//! What one thread brings along to run transactions: its gate, counters and randomness.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::change::Changes;
use crate::notice::Notices;
use crate::settings::Settings;
use crate::undo::Recorder;

/// Counters with one writer, the worker, and any number of readers.
#[derive(Default)]
#[repr(align(128))]
pub struct Stats {
    pub keyspace_hits: Counter,
    pub keyspace_misses: Counter,
    pub expired_keys: Counter,
    pub evicted_keys: Counter,
    pub dirty: Counter,
}

/// A counter that only its worker adds to, so it needs no locked instruction.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds on the owning thread.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// CONFIG RESETSTAT; an addition that runs at the same time may be lost.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// One per thread that runs transactions; not shared.
pub struct Worker {
    pub id: usize,
    pub settings: Arc<Settings>,
    pub stats: Arc<Stats>,
    pub rng: RefCell<fastrand::Rng>,
    /// An undo log that was used and emptied, for the next transaction that records.
    pub(crate) spare_log: Cell<Option<Box<Recorder>>>,
    /// The same of a change log.
    pub(crate) spare_changes: Cell<Option<Box<Changes>>>,
    /// And of notices.
    pub(crate) spare_notices: Cell<Option<Box<RefCell<Notices>>>>,
    /// The runs that somebody wants to end.
    stopped_runs: Arc<StoppedRuns>,
}

/// Which runs of a worker's scripts somebody wants to end. Two can be going on, one of them from
/// within the other: their numbers are even and odd, and each kind has a word of its own. See
/// [`Txn::set_run`](crate::Txn::set_run).
#[derive(Default)]
pub struct StoppedRuns([AtomicU64; 2]);

impl StoppedRuns {
    /// Has a run end. It forgets what it was told before of runs with numbers of this kind.
    pub fn stop(&self, run: u64) {
        self.0[(run & 1) as usize].store(run, Ordering::Release);
    }

    #[inline]
    pub fn is_stopped(&self, run: u64) -> bool {
        self.0[(run & 1) as usize].load(Ordering::Relaxed) == run
    }
}

impl Worker {
    pub fn new(id: usize, settings: Arc<Settings>, stats: Arc<Stats>) -> Worker {
        Worker {
            id,
            settings,
            stats,
            rng: RefCell::new(fastrand::Rng::new()),
            spare_log: Cell::default(),
            spare_changes: Cell::default(),
            spare_notices: Cell::default(),
            stopped_runs: Arc::default(),
        }
    }

    /// The same with the place where others write which of its runs is to end.
    pub fn stopped_by(self, stopped_runs: Arc<StoppedRuns>) -> Worker {
        Worker { stopped_runs, ..self }
    }

    #[inline]
    pub(crate) fn is_stopped(&self, run: u64) -> bool {
        self.stopped_runs.is_stopped(run)
    }

    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().u64(..)
    }
}

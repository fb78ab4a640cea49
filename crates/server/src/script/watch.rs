//! The watch over running scripts: who runs since when, SCRIPT KILL, and the thread that
//! interrupts scripts which run for too long.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lua::Interrupter;
use parking_lot::Mutex;

use crate::server::{Server, unix_ms};

/// How often the watchdog looks, and how often a request to a busy script is repeated.
const WATCH_PERIOD: Duration = Duration::from_millis(10);

/// What is known of one worker.
#[derive(Default)]
struct Watched {
    interrupter: Mutex<Option<Interrupter>>,
    /// Unix ms when the script that runs now began; 0 when none runs.
    started_ms: AtomicI64,
    /// It has changed the keyspace, so SCRIPT KILL is refused.
    has_written: AtomicBool,
    /// Of its Lua heap.
    used_bytes: AtomicU64,
}

/// Answers to SCRIPT KILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillError {
    NotBusy,
    HasWritten,
}

pub struct Watch {
    workers: Vec<Watched>,
    /// A script runs for longer than busy-reply-threshold.
    busy: AtomicBool,
    kill: AtomicBool,
}

impl Watch {
    pub fn new(workers: usize) -> Watch {
        Watch {
            workers: (0..workers).map(|_| Watched::default()).collect(),
            busy: AtomicBool::new(false),
            kill: AtomicBool::new(false),
        }
    }

    /// The VM of a worker was made.
    pub fn set_interrupter(&self, worker: usize, interrupter: Interrupter) {
        *self.workers[worker].interrupter.lock() = Some(interrupter);
    }

    /// A script begins on a worker.
    pub fn begin(&self, worker: usize) {
        let watched = &self.workers[worker];
        watched.has_written.store(false, Ordering::Release);
        watched.started_ms.store(unix_ms(), Ordering::Release);
    }

    /// The script of a worker has changed the keyspace.
    pub fn note_write(&self, worker: usize) {
        self.workers[worker].has_written.store(true, Ordering::Release);
    }

    /// The script of a worker has ended, with a Lua heap of this size.
    pub fn end(&self, worker: usize, used_bytes: usize) {
        let watched = &self.workers[worker];
        watched.used_bytes.store(used_bytes as u64, Ordering::Relaxed);
        watched.started_ms.store(0, Ordering::Release);
        self.kill.store(false, Ordering::Release);
        self.busy.store(false, Ordering::Release);
    }

    /// Bytes of all Lua heaps.
    pub fn used_bytes(&self) -> u64 {
        self.workers.iter().map(|worker| worker.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Whether a script runs for longer than others should have to wait.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether any script runs now.
    pub fn is_running(&self) -> bool {
        self.workers.iter().any(|worker| worker.started_ms.load(Ordering::Acquire) != 0)
    }

    /// Whether the script that runs now is to end.
    pub fn is_killed(&self) -> bool {
        self.kill.load(Ordering::Acquire)
    }

    /// Has the script that runs now end with an error.
    pub fn kill(&self) -> Result<(), KillError> {
        let running =
            self.workers.iter().find(|worker| worker.started_ms.load(Ordering::Acquire) != 0);
        let Some(running) = running else { return Err(KillError::NotBusy) };
        if running.has_written.load(Ordering::Acquire) {
            return Err(KillError::HasWritten);
        }
        self.kill.store(true, Ordering::Release);
        self.interrupt_all();
        Ok(())
    }

    /// Makes every running script stop and think.
    pub fn interrupt_all(&self) {
        for worker in &self.workers {
            if let Some(interrupter) = &*worker.interrupter.lock() {
                interrupter.request();
            }
        }
    }

    /// One look of the watchdog at all workers.
    fn look(&self, threshold_ms: u64, now_ms: i64, is_shutting_down: bool) {
        let mut any_busy = false;
        for worker in &self.workers {
            let started_ms = worker.started_ms.load(Ordering::Acquire);
            if started_ms == 0 {
                continue;
            }
            let too_long = now_ms.saturating_sub(started_ms) as u64 >= threshold_ms.max(1);
            if too_long {
                any_busy = true;
            }
            if (too_long || is_shutting_down)
                && let Some(interrupter) = &*worker.interrupter.lock()
            {
                interrupter.request();
            }
        }
        if any_busy && !self.busy.swap(true, Ordering::AcqRel) {
            crate::log_warning!(
                "Slow script detected: still in execution after {threshold_ms} milliseconds. You \
                 can try killing the script using the SCRIPT KILL command."
            );
        }
    }
}

/// The watchdog's thread: runs until the server shuts down and no script is left.
pub fn watch(server: &Server) {
    let mut rounds = 0u32;
    while !server.is_shutting_down() || server.scripts.watch.is_running() {
        if rounds.is_multiple_of(10) {
            server.sample_rates();
            crate::memory::measure_overhead();
        }
        rounds = rounds.wrapping_add(1);
        let threshold_ms = server.config.current().busy_reply_threshold_ms;
        server.scripts.watch.look(threshold_ms, unix_ms(), server.is_shutting_down());
        std::thread::park_timeout(WATCH_PERIOD);
    }
}

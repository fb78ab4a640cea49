//! The watch over running scripts: who runs since when and with which locks, SCRIPT KILL, and the
//! thread that interrupts scripts.
//!
//! A script that runs for a while is interrupted every few ms so that its worker serves its other
//! connections; one that runs for longer than `busy-reply-threshold` is *busy*: commands that
//! cannot run because of it are answered BUSY.
//!
//! Thread safety: a worker writes what is noted of it, the watchdog sets and clears its busy mark,
//! anybody reads and kills. A run has a number, so that a kill cannot hit the next script.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lua::Interrupter;
use parking_lot::Mutex;

use crate::server::{Server, unix_ms};

/// How often the watchdog looks, and how often scripts are interrupted.
const WATCH_PERIOD: Duration = Duration::from_millis(10);
/// Scripts that run beside others for longer than this, ms, keep exclusive plans from waiting for
/// all gates: everybody would wait with them.
const LONG_MS: i64 = 20;

const AT_EASE: u8 = 0;
const BUSY: u8 = 1;
const BUSY_EXCLUSIVE: u8 = 2;

/// What is known of one worker.
#[derive(Default)]
#[repr(align(128))]
struct Watched {
    interrupter: Mutex<Option<Interrupter>>,
    /// Unix ms when the script that runs now began; 0 when none runs.
    started_ms: AtomicI64,
    /// Number of the run.
    run: AtomicU64,
    /// The run that is to end. Commands look here too.
    stopped_run: Arc<AtomicU64>,
    /// When the run that is going on is to end by itself, ms since the watch began; 0 for never.
    deadline_ms: AtomicU64,
    is_exclusive: AtomicBool,
    /// The number of the run times four, plus what was decided on it. One word, because either
    /// SCRIPT KILL or the first write that cannot be undone comes first, never both.
    fate: AtomicU64,
    busy: AtomicU8,
    /// The shards of a busy script.
    held: Mutex<Vec<u16>>,
    /// Of its Lua heap.
    used_bytes: AtomicU64,
}

/// Answers to SCRIPT KILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillError {
    NotBusy,
    HasWritten,
}

/// What keeps a command from running now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The gate of its worker could not be had: an exclusive plan runs.
    Gate,
    /// Not all gates could be had.
    AllGates,
    /// Somebody works on this shard.
    Shard(u16),
    /// The same, met by a walk, which needs all of them.
    Walk(u16),
    /// A script, and a script runs on its worker already.
    Vm,
    /// A script, and a plan for all keys waits for those that run already.
    Turn,
}

pub struct Watch {
    began: Instant,
    workers: Vec<Watched>,
    /// How many scripts are busy, and how many of them exclusive ones.
    busy: AtomicUsize,
    busy_exclusive: AtomicUsize,
    /// Workers where plans for all keys wait for running scripts to end.
    waiting: AtomicUsize,
}

impl Watch {
    pub fn new(workers: usize) -> Watch {
        Watch {
            began: Instant::now(),
            workers: (0..workers).map(|_| Watched::default()).collect(),
            busy: AtomicUsize::new(0),
            busy_exclusive: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The VM of a worker was made.
    pub fn set_interrupter(&self, worker: usize, interrupter: Interrupter) {
        *self.workers[worker].interrupter.lock() = Some(interrupter);
    }

    /// Where it is written which run of a worker is to end.
    pub fn stopped_run(&self, worker: usize) -> Arc<AtomicU64> {
        self.workers[worker].stopped_run.clone()
    }

    /// A script begins on a worker. Answers the number of the run.
    pub fn begin(&self, worker: usize, is_exclusive: bool, deadline: Option<Instant>) -> u64 {
        let watched = &self.workers[worker];
        watched.is_exclusive.store(is_exclusive, Ordering::Release);
        let deadline_ms = deadline.map_or(0, |at| self.ms_of(at) + 1);
        watched.deadline_ms.store(deadline_ms, Ordering::Release);
        let run = watched.run.load(Ordering::Relaxed) + 1;
        watched.fate.store(fate(run, OPEN), Ordering::Release);
        watched.run.store(run, Ordering::Release);
        watched.started_ms.store(unix_ms(), Ordering::SeqCst);
        run
    }

    fn ms_of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_millis() as u64
    }

    /// Has the script that runs on a worker end.
    pub fn stop(&self, worker: usize) {
        let watched = &self.workers[worker];
        watched.stopped_run.store(watched.run.load(Ordering::SeqCst), Ordering::Release);
        watched.interrupt();
    }

    /// The script of a worker is about to change the keyspace for good. False when it was killed
    /// before: then it must not.
    #[must_use]
    pub fn note_write(&self, worker: usize) -> bool {
        let watched = &self.workers[worker];
        watched.decide(watched.run.load(Ordering::Relaxed), WRITTEN)
    }

    /// The script of a worker has ended, with a Lua heap of this size.
    pub fn end(&self, worker: usize, used_bytes: usize) {
        let watched = &self.workers[worker];
        watched.used_bytes.store(used_bytes as u64, Ordering::Relaxed);
        watched.started_ms.store(0, Ordering::SeqCst);
        // The watchdog marks first and then looks whether the script still runs; here it is the
        // other way round, so one of the two clears the mark.
        if watched.busy.load(Ordering::SeqCst) != AT_EASE {
            self.clear_busy(watched);
        }
    }

    fn mark_busy(&self, watched: &Watched, run: u64) {
        let exclusive = watched.is_exclusive.load(Ordering::Acquire);
        let mark = if exclusive { BUSY_EXCLUSIVE } else { BUSY };
        if watched.busy.compare_exchange(AT_EASE, mark, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            watched.held.lock().clear();
            self.busy.fetch_add(1, Ordering::AcqRel);
            self.busy_exclusive.fetch_add(usize::from(exclusive), Ordering::AcqRel);
        }
        let has_ended = watched.started_ms.load(Ordering::SeqCst) == 0;
        if has_ended || watched.run.load(Ordering::SeqCst) != run {
            self.clear_busy(watched);
        }
    }

    fn clear_busy(&self, watched: &Watched) {
        let mark = watched.busy.swap(AT_EASE, Ordering::SeqCst);
        self.busy.fetch_sub(usize::from(mark != AT_EASE), Ordering::AcqRel);
        self.busy_exclusive.fetch_sub(usize::from(mark == BUSY_EXCLUSIVE), Ordering::AcqRel);
    }

    /// Bytes of all Lua heaps.
    pub fn used_bytes(&self) -> u64 {
        self.workers.iter().map(|worker| worker.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Whether a script runs for longer than others should have to wait.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// The same of a script that has the whole keyspace.
    pub fn is_exclusive_busy(&self) -> bool {
        self.busy_exclusive.load(Ordering::Acquire) > 0
    }

    /// The script of a worker notes the shards it holds, if it is busy.
    pub fn note_held(&self, worker: usize, shards: &[u16]) {
        let watched = &self.workers[worker];
        if watched.busy.load(Ordering::Acquire) == BUSY {
            let mut held = watched.held.lock();
            if held.len() != shards.len() {
                held.clear();
                held.extend_from_slice(shards);
            }
        }
    }

    /// Whether a busy script is what keeps a command of a worker from running.
    pub fn is_to_blame(&self, worker: usize, obstacle: Obstacle) -> bool {
        match obstacle {
            _ if !self.is_busy() => false,
            Obstacle::Gate => self.is_exclusive_busy(),
            Obstacle::AllGates | Obstacle::Turn => true,
            Obstacle::Vm => self.workers[worker].busy.load(Ordering::Acquire) != AT_EASE,
            Obstacle::Shard(shard) | Obstacle::Walk(shard) => self.workers.iter().any(|worker| {
                worker.busy.load(Ordering::Acquire) == BUSY && worker.held.lock().contains(&shard)
            }),
        }
    }

    /// Whether any script runs now.
    pub fn is_running(&self) -> bool {
        self.workers.iter().any(|worker| worker.started_ms.load(Ordering::Acquire) != 0)
    }

    /// Whether a script that runs beside others has been running for long.
    pub fn is_long(&self) -> bool {
        let mut now_ms = None;
        self.workers.iter().any(|worker| {
            let started_ms = worker.started_ms.load(Ordering::Acquire);
            started_ms != 0
                && !worker.is_exclusive.load(Ordering::Acquire)
                && *now_ms.get_or_insert_with(unix_ms) - started_ms >= LONG_MS
        })
    }

    /// A worker begins or ceases to have plans for all keys that wait for scripts to end.
    pub fn set_waiting(&self, waits: bool) {
        match waits {
            true => self.waiting.fetch_add(1, Ordering::AcqRel),
            false => self.waiting.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Whether plans for all keys wait for scripts to end, so that no further ones may begin.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Whether the script of a worker is to end.
    pub fn is_stopped(&self, worker: usize) -> bool {
        let watched = &self.workers[worker];
        watched.stopped_run.load(Ordering::Acquire) == watched.run.load(Ordering::Relaxed)
    }

    /// SCRIPT KILL: has the scripts end that are busy, or else the one that runs for longest.
    pub fn kill(&self) -> Result<(), KillError> {
        let running = |worker: &&Watched| worker.started_ms.load(Ordering::Acquire) != 0;
        let is_busy = |worker: &&Watched| worker.busy.load(Ordering::Acquire) != AT_EASE;
        let mut victims: Vec<&Watched> = self.workers.iter().filter(is_busy).collect();
        if victims.is_empty() {
            let since = |worker: &&Watched| worker.started_ms.load(Ordering::Acquire);
            victims.extend(self.workers.iter().filter(running).min_by_key(since));
        }
        let mut outcome = Err(KillError::NotBusy);
        for worker in victims {
            let run = worker.run.load(Ordering::SeqCst);
            if !running(&worker) {
                continue;
            }
            if !worker.decide(run, KILLED) {
                if worker.fate.load(Ordering::Acquire) == fate(run, WRITTEN) {
                    return Err(KillError::HasWritten);
                }
                continue;
            }
            worker.stopped_run.store(run, Ordering::Release);
            worker.interrupt();
            outcome = Ok(());
        }
        outcome
    }

    /// One look of the watchdog at all workers.
    fn look(&self, threshold_ms: u64, now_ms: i64, is_shutting_down: bool) {
        for worker in &self.workers {
            let run = worker.run.load(Ordering::SeqCst);
            let started_ms = worker.started_ms.load(Ordering::SeqCst);
            if started_ms == 0 {
                continue;
            }
            let since_ms = now_ms.saturating_sub(started_ms).max(0) as u64;
            let was_busy = worker.busy.load(Ordering::Acquire) != AT_EASE;
            if since_ms >= threshold_ms.max(1) && !was_busy {
                self.mark_busy(worker, run);
                crate::log_warning!(
                    "Slow script detected: still in execution after {threshold_ms} milliseconds. \
                     You can try killing the script using the SCRIPT KILL command."
                );
            }
            let is_exclusive = worker.is_exclusive.load(Ordering::Acquire);
            let deadline_ms = worker.deadline_ms.load(Ordering::Acquire);
            let is_late = deadline_ms != 0 && self.ms_of(Instant::now()) >= deadline_ms;
            if is_late || is_shutting_down {
                worker.stopped_run.store(run, Ordering::Release);
            }
            let is_stopped = worker.stopped_run.load(Ordering::Acquire) == run;
            // An exclusive script has nobody to serve until it is busy.
            if was_busy || is_stopped || (!is_exclusive && since_ms > 0) {
                worker.interrupt();
            }
        }
    }
}

/// What was decided on a run.
const OPEN: u64 = 0;
const WRITTEN: u64 = 1;
const KILLED: u64 = 2;

fn fate(run: u64, decided: u64) -> u64 {
    run * 4 + decided
}

impl Watched {
    /// Decides on a run. False when it was decided otherwise, or the run is over.
    fn decide(&self, run: u64, wanted: u64) -> bool {
        let wanted = fate(run, wanted);
        self.fate
            .compare_exchange(fate(run, OPEN), wanted, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            || self.fate.load(Ordering::Acquire) == wanted
    }

    /// Makes the script stop and think.
    fn interrupt(&self) {
        if let Some(interrupter) = &*self.interrupter.lock() {
            interrupter.request();
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

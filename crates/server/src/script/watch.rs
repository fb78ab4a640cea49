//! The watch over running scripts: who runs since when and with which locks, SCRIPT KILL, and the
//! thread that interrupts scripts.
//!
//! A script that runs for a while is interrupted every few ms so that its worker serves its other
//! connections; one that runs for longer than `busy-reply-threshold` is *busy*: commands that
//! cannot run because of it are answered BUSY.
//!
//! Two scripts can be going on in a worker: one of another connection may run *nested*, from within
//! the turn that the first serves others in. It is on a leash (`NEST_LEASH`), and ends with the
//! first. Its runs have odd numbers, those of the others even ones.
//!
//! Thread safety: a worker writes what is noted of it, the watchdog sets and clears its busy mark,
//! anybody reads and kills. A run has a number, so that a kill cannot hit the next script.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::StoppedRuns;
use lua::Interrupter;
use parking_lot::Mutex;

use crate::server::Server;

/// How often the watchdog looks, and how often scripts are interrupted.
const WATCH_PERIOD: Duration = Duration::from_millis(10);
/// Scripts that run beside others for longer than this, ms, keep exclusive plans from waiting for
/// all gates: everybody would wait with them.
const LONG_MS: i64 = 20;
/// A script that has run for longer than this, ms, when a plan for all keys begins to wait for it
/// does not keep other scripts from beginning meanwhile: they would all wait for its end.
const RUNAWAY_MS: i64 = 500;
/// How long a script may run from within another one, which meanwhile keeps its keys and cannot be
/// ended: a killed script is to be gone within 50 ms, and this is looked at every `WATCH_PERIOD`.
/// A rate limiter takes a hundredth of it.
pub const NEST_LEASH: Duration = Duration::from_millis(10);

const AT_EASE: u8 = 0;
const BUSY: u8 = 1;
const BUSY_EXCLUSIVE: u8 = 2;

/// What is known of one worker.
#[derive(Default)]
#[repr(align(128))]
struct Watched {
    interrupter: Mutex<Option<Interrupter>>,
    /// When the script that runs now began, as `time_of` has it; 0 when none runs.
    started_ms: AtomicI64,
    /// Number of the run.
    run: AtomicU64,
    /// Which runs are to end. Commands look here too.
    stopped: Arc<StoppedRuns>,
    nested: Nested,
    /// When the run that is going on is to end by itself, ms since the watch began; 0 for never.
    deadline_ms: AtomicU64,
    is_exclusive: AtomicBool,
    /// It is a function, or a library that is loaded.
    is_function: AtomicBool,
    /// The function that runs, once it has run for a moment.
    function: Mutex<Option<RunningFunction>>,
    /// The number of the run times four, plus what was decided on it. One word, because either
    /// SCRIPT KILL or the first write that cannot be undone comes first, never both.
    fate: AtomicU64,
    busy: AtomicU8,
    /// The shards of a busy script.
    held: Mutex<Vec<u16>>,
    /// Of its Lua heaps.
    used_bytes: [AtomicU64; 2],
    /// Since when plans for all keys wait here for scripts to end, likewise; 0 when none does.
    waiting_since_ms: AtomicI64,
}

/// The script that runs from within the one of its worker.
#[derive(Default)]
struct Nested {
    /// Number of the run; 0 when there is none.
    run: AtomicU64,
    /// The last number that was given.
    last_run: AtomicU64,
    /// When its leash or its deadline is over, ms since the watch began.
    until_ms: AtomicU64,
}

/// A function that runs.
#[derive(Clone)]
pub struct RunningFunction {
    run: u64,
    /// The command that called it.
    pub command: Vec<Box<[u8]>>,
    /// As the watch tells times.
    started_ms: i64,
}

/// What SCRIPT KILL and FUNCTION KILL end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killed {
    Scripts,
    Functions,
}

/// Answers to SCRIPT KILL and FUNCTION KILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillError {
    NotBusy,
    HasWritten,
    /// What runs is for the other one of the two to kill.
    Other,
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
    /// A script, and one runs on its worker already that it cannot run from within.
    Vm,
    /// A script, and a plan for all keys waits for those that run already.
    Turn,
    /// Too much waits to be written to a file.
    Disk,
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

/// A run of a script.
#[derive(Clone, Copy, Debug)]
pub struct RunNumber(pub u64);

impl RunNumber {
    /// Whether it runs from within another one.
    pub fn is_nested(self) -> bool {
        self.0 & 1 == 1
    }
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
    pub fn stopped_runs(&self, worker: usize) -> Arc<StoppedRuns> {
        self.workers[worker].stopped.clone()
    }

    /// A script begins on a worker at this time, as `time_of` tells it.
    #[inline]
    pub fn begin(
        &self,
        worker: usize,
        is_exclusive: bool,
        is_function: bool,
        now_ms: i64,
        deadline: Option<Instant>,
    ) -> RunNumber {
        let watched = &self.workers[worker];
        watched.is_exclusive.store(is_exclusive, Ordering::Release);
        watched.is_function.store(is_function, Ordering::Release);
        let deadline_ms = deadline.map_or(0, |at| self.ms_of(at) + 1);
        watched.deadline_ms.store(deadline_ms, Ordering::Release);
        let run = watched.run.load(Ordering::Relaxed) + 2;
        watched.fate.store(fate(run, OPEN), Ordering::Release);
        watched.run.store(run, Ordering::Release);
        watched.started_ms.store(now_ms, Ordering::Release);
        RunNumber(run)
    }

    /// A script begins on a worker from within the one that runs there, and is to end at that time.
    pub fn begin_nested(&self, worker: usize, until: Instant) -> RunNumber {
        let nested = &self.workers[worker].nested;
        let run = nested.last_run.load(Ordering::Relaxed).max(1) + 2;
        nested.last_run.store(run, Ordering::Relaxed);
        nested.until_ms.store(self.ms_of(until) + 1, Ordering::Relaxed);
        nested.run.store(run, Ordering::Release);
        RunNumber(run)
    }

    #[inline]
    fn ms_of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_millis() as u64
    }

    /// A point in time as it is noted here, in ms: never 0.
    pub fn time_of(&self, at: Instant) -> i64 {
        self.ms_of(at) as i64 + 1
    }

    pub fn now_ms(&self) -> i64 {
        self.time_of(Instant::now())
    }

    /// Has a script that runs on a worker end.
    pub fn stop(&self, worker: usize, run: RunNumber) {
        let watched = &self.workers[worker];
        watched.stopped.stop(run.0);
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
        watched.used_bytes[0].store(used_bytes as u64, Ordering::Relaxed);
        watched.started_ms.store(0, Ordering::SeqCst);
        // The watchdog marks first and then looks whether the script still runs; here it is the
        // other way round, so one of the two clears the mark.
        if watched.busy.load(Ordering::SeqCst) != AT_EASE {
            self.clear_busy(watched);
        }
    }

    /// The script that ran from within the one of a worker has ended, with a Lua heap of this size.
    pub fn end_nested(&self, worker: usize, used_bytes: usize) {
        let watched = &self.workers[worker];
        watched.used_bytes[1].store(used_bytes as u64, Ordering::Relaxed);
        watched.nested.run.store(0, Ordering::Release);
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
        self.used_bytes_of_workers().iter().sum()
    }

    /// The same, worker by worker.
    pub fn used_bytes_of_workers(&self) -> Vec<u64> {
        let heaps = |worker: &Watched| {
            worker.used_bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
        };
        self.workers.iter().map(heaps).collect()
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

    /// The function of a worker still runs; what it was called with is noted once.
    pub fn note_function(
        &self,
        worker: usize,
        run: RunNumber,
        command: impl FnOnce() -> Vec<Box<[u8]>>,
    ) {
        let watched = &self.workers[worker];
        let mut function = watched.function.lock();
        if function.as_ref().is_none_or(|noted| noted.run != run.0) {
            let started_ms = watched.started_ms.load(Ordering::Acquire);
            *function = Some(RunningFunction { run: run.0, command: command(), started_ms });
        }
    }

    /// The function that has been running for longest, and for how many ms.
    pub fn running_function(&self) -> Option<(RunningFunction, i64)> {
        let running = |worker: &Watched| {
            let noted = worker.function.lock();
            let is_it = |noted: &&RunningFunction| {
                worker.started_ms.load(Ordering::Acquire) != 0
                    && worker.run.load(Ordering::Acquire) == noted.run
            };
            noted.as_ref().filter(is_it).cloned()
        };
        let longest =
            self.workers.iter().filter_map(running).min_by_key(|function| function.started_ms);
        longest.map(|function| {
            let ms = (self.now_ms() - function.started_ms).max(0);
            (function, ms)
        })
    }

    /// Whether what is busy is a function.
    pub fn is_function_busy(&self) -> bool {
        self.workers.iter().any(|worker| {
            worker.busy.load(Ordering::Acquire) != AT_EASE
                && worker.is_function.load(Ordering::Acquire)
        })
    }

    /// Whether a busy script is what keeps a command of a worker from running.
    pub fn is_to_blame(&self, worker: usize, obstacle: Obstacle) -> bool {
        match obstacle {
            _ if !self.is_busy() => false,
            Obstacle::Disk => false,
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

    /// Whether some script has been running for so many ms.
    pub fn has_run_for(&self, ms: i64) -> bool {
        let now_ms = self.now_ms();
        self.workers.iter().any(|worker| {
            let started_ms = worker.started_ms.load(Ordering::Acquire);
            started_ms != 0 && now_ms - started_ms >= ms
        })
    }

    /// Whether a script that runs beside others has been running for long.
    pub fn is_long(&self) -> bool {
        let mut now_ms = None;
        self.workers.iter().any(|worker| {
            let started_ms = worker.started_ms.load(Ordering::Acquire);
            started_ms != 0
                && !worker.is_exclusive.load(Ordering::Acquire)
                && *now_ms.get_or_insert_with(|| self.now_ms()) - started_ms >= LONG_MS
        })
    }

    /// A worker begins or ceases to have plans for all keys that wait for scripts to end.
    pub fn set_waiting(&self, worker: usize, waits: bool) {
        let since_ms = &self.workers[worker].waiting_since_ms;
        if waits {
            since_ms.store(self.now_ms(), Ordering::Release);
            self.waiting.fetch_add(1, Ordering::AcqRel);
        } else {
            since_ms.store(0, Ordering::Release);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether plans for all keys wait for scripts to end, so that no further ones may begin.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 && !self.is_waited_for_in_vain()
    }

    /// Whether what waits for scripts waits for one that was there before it and runs away. Others
    /// may begin meanwhile; not so once that one has ended, or what waits would wait for ever.
    fn is_waited_for_in_vain(&self) -> bool {
        let since = |worker: &Watched| worker.waiting_since_ms.load(Ordering::Acquire);
        let first_ms = self.workers.iter().map(since).filter(|since_ms| *since_ms != 0).min();
        let Some(first_ms) = first_ms else { return false };
        let now_ms = self.now_ms();
        self.workers.iter().any(|worker| {
            let started_ms = worker.started_ms.load(Ordering::Acquire);
            started_ms != 0 && started_ms <= first_ms && now_ms - started_ms >= RUNAWAY_MS
        })
    }

    /// Whether the script of a worker is to end.
    pub fn is_stopped(&self, worker: usize) -> bool {
        let watched = &self.workers[worker];
        watched.stopped.is_stopped(watched.run.load(Ordering::Relaxed))
    }

    /// SCRIPT KILL and FUNCTION KILL: has the scripts or functions end that are busy, or else the one
    /// that runs for longest.
    pub fn kill(&self, what: Killed) -> Result<(), KillError> {
        let running = |worker: &&Watched| worker.started_ms.load(Ordering::Acquire) != 0;
        let wanted = |worker: &&Watched| {
            worker.is_function.load(Ordering::Acquire) == (what == Killed::Functions)
        };
        let is_busy = |worker: &&Watched| worker.busy.load(Ordering::Acquire) != AT_EASE;
        let mut victims: Vec<&Watched> =
            self.workers.iter().filter(wanted).filter(is_busy).collect();
        if victims.is_empty() {
            let since = |worker: &&Watched| worker.started_ms.load(Ordering::Acquire);
            let others = self.workers.iter().filter(wanted).filter(running);
            victims.extend(others.min_by_key(since));
        }
        if victims.is_empty() && self.is_running() {
            return Err(KillError::Other);
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
            worker.stopped.stop(run);
            worker.stop_nested();
            worker.interrupt();
            // It is gone in a moment: nobody is to hear BUSY because of it.
            self.clear_busy(worker);
            outcome = Ok(());
        }
        outcome
    }

    /// One look of the watchdog at all workers.
    fn look(&self, threshold_ms: u64, is_shutting_down: bool) {
        let now_ms = self.now_ms();
        for worker in &self.workers {
            let run = worker.run.load(Ordering::SeqCst);
            let started_ms = worker.started_ms.load(Ordering::SeqCst);
            if started_ms == 0 {
                continue;
            }
            let since_ms = now_ms.saturating_sub(started_ms).max(0) as u64;
            let was_busy = worker.busy.load(Ordering::Acquire) != AT_EASE;
            let is_killed = worker.fate.load(Ordering::Acquire) == fate(run, KILLED);
            if since_ms >= threshold_ms.max(1) && !was_busy && !is_killed {
                self.mark_busy(worker, run);
                crate::log_warning!(
                    "Slow script detected: still in execution after {threshold_ms} milliseconds. \
                     You can try killing the script using the {} KILL command.",
                    if worker.is_function.load(Ordering::Acquire) { "FUNCTION" } else { "SCRIPT" }
                );
            }
            let deadline_ms = worker.deadline_ms.load(Ordering::Acquire);
            let is_late = deadline_ms != 0 && self.ms_of(Instant::now()) >= deadline_ms;
            if is_late || is_shutting_down {
                worker.stopped.stop(run);
            }
            let is_stopped = worker.stopped.is_stopped(run);
            let until_ms = worker.nested.until_ms.load(Ordering::Relaxed);
            if is_stopped || self.ms_of(Instant::now()) >= until_ms {
                worker.stop_nested();
            }
            if was_busy || is_stopped || since_ms > 0 {
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

    /// Has the script end that runs from within the other one, if there is one.
    fn stop_nested(&self) {
        let run = self.nested.run.load(Ordering::Acquire);
        if run != 0 {
            self.stopped.stop(run);
        }
    }

    /// Makes the script stop and think that runs in the worker's thread, whichever of the two.
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
        server.scripts.watch.look(threshold_ms, server.is_shutting_down());
        std::thread::park_timeout(WATCH_PERIOD);
    }
}

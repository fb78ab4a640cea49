//! The append-only file as the server sees it: turned on and off, rewritten, and what INFO says.
//!
//! One thread does what needs all gates (`Task`), one after the other: beginning to log, ending it,
//! and rewrites.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use command::Error;
use engine::{Plan, Txn};
use parking_lot::Mutex;
use persist::aof::{Append, Directory, Folder, Torn};

use super::commands;
use super::journal::{self, Journal, Pressure};
use super::keeper::{Keeper, Order, Report};
use super::replay;
use super::save::{Moment, Syncing};
use crate::config::{Config, ConfigView, reason};
use crate::mailbox::Mail;
use crate::server::{Server, unix_ms};

/// A sync may take so long before commands that change something wait for it, as with Redis.
pub const SYNC_MS_MAX: u64 = 2000;
/// How soon a rewrite looks again whether another snapshot is over.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(10);
/// How long the end waits for what is to be written.
const END_PATIENCE: Duration = Duration::from_secs(10);

pub type AofJournal = Journal<Order<Folder>>;

/// Files that were loaded, and where one of them is torn.
pub type Loaded = (Directory<Folder>, Option<(String, Torn)>);

enum Task {
    /// Log from here on, into files of a new beginning.
    TurnOn(Directory<Folder>),
    TurnOff,
    Rewrite,
}

/// Shared by all threads.
pub struct Aof {
    pub journal: Arc<AofJournal>,
    report: Arc<Report>,
    tasks: Mutex<Sender<Task>>,
    /// For the thread, until it starts.
    received: Mutex<Option<Receiver<Task>>>,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
    /// It is on, or is being turned on.
    is_wanted: AtomicBool,
    /// A rewrite was asked for and has not begun.
    is_scheduled: AtomicBool,
    /// Unix s; 0 when none runs.
    rewrite_since_s: AtomicI64,
    /// Of the last rewrite; -1 when there was none.
    last_rewrite_seconds: AtomicI64,
    has_rewrite_failed: AtomicBool,
    rewrites_failed_in_a_row: AtomicI64,
}

impl Aof {
    pub fn new(workers: usize) -> Aof {
        let (tasks, received) = mpsc::channel();
        Aof {
            journal: Arc::new(Journal::new(workers)),
            report: Arc::default(),
            tasks: Mutex::new(tasks),
            received: Mutex::new(Some(received)),
            keeper: Mutex::new(None),
            is_wanted: AtomicBool::new(false),
            is_scheduled: AtomicBool::new(false),
            rewrite_since_s: AtomicI64::new(0),
            last_rewrite_seconds: AtomicI64::new(-1),
            has_rewrite_failed: AtomicBool::new(false),
            rewrites_failed_in_a_row: AtomicI64::new(0),
        }
    }

    /// Starts the threads. `loaded`: the files that were loaded and where they are torn, if the
    /// configuration wants them kept. The error is for the user.
    pub fn start(&self, server: &Arc<Server>, loaded: Option<Loaded>) -> Result<(), String> {
        journal::connect(&self.journal, &server.engine);
        let waker = server.clone();
        let asker = server.clone();
        let mut keeper = Keeper::new(
            self.journal.clone(),
            self.report.clone(),
            ConfigView::new(server.config.clone()),
            Box::new(move |worker| waker.mailboxes[worker].send(Mail::Wake)),
            Box::new(move || {
                asker.durability.aof.schedule_rewrite();
            }),
        );
        if let Some((mut directory, torn)) = loaded {
            let failed =
                |error: io::Error| format!("can't write the append-only file: {}", reason(&error));
            directory.clean_up().map_err(failed)?;
            let file = directory.go_on(torn).map_err(failed)?;
            keeper.go_on(directory, file).map_err(failed)?;
            self.is_wanted.store(true, Ordering::Relaxed);
            under_all_gates(server, || server.engine.set_logging(true));
        }
        let failed = |error: io::Error| format!("can't start a thread: {error}");
        let keeper = thread::Builder::new().name("aof".into()).spawn(move || {
            crate::memory::register_thread();
            keeper.run();
        });
        *self.keeper.lock() = Some(keeper.map_err(failed)?);
        if let Some(tasks) = self.received.lock().take() {
            let server = server.clone();
            let work = move || {
                crate::memory::register_thread();
                tasks.into_iter().for_each(|task| server.durability.aof.work(&server, task));
            };
            thread::Builder::new().name("aof-rewrite".into()).spawn(work).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes and syncs what there is; nothing may change any more. To be called once.
    pub fn end(&self) {
        let Some(keeper) = self.keeper.lock().take() else { return };
        self.journal.order(Order::Stop);
        // It ends, unless the disk hangs.
        let deadline = Instant::now() + END_PATIENCE;
        while !keeper.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if !keeper.is_finished() {
            crate::log_warning!("The AOF file could not be written to its end in time");
        }
    }

    /// Whether it is on, or is being turned on.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Why commands that change something are refused, if they are.
    #[cold]
    pub fn refuses_writes(&self) -> Option<Error> {
        (self.journal.pressure() == Pressure::Denied).then(|| {
            Error::new(format!(
                "MISCONF Errors writing to the AOF file: {}",
                self.journal.trouble()
            ))
        })
    }

    /// What a change of its directives entails. The error is its reason.
    pub fn apply(&self, config: &Config) -> Result<(), String> {
        if config.appendonly != self.is_wanted() {
            let task = match config.appendonly {
                true => Task::TurnOn(
                    replay::open(config).map(|(directory, _)| directory).map_err(|error| {
                        crate::log_warning!("{error}");
                        "Unable to turn on AOF. Check server logs.".to_owned()
                    })?,
                ),
                false => Task::TurnOff,
            };
            self.is_wanted.store(config.appendonly, Ordering::Relaxed);
            self.send(task);
        }
        Ok(())
    }

    fn send(&self, task: Task) {
        // Fails only when the process ends.
        let _ = self.tasks.lock().send(task);
    }

    pub fn is_rewriting(&self) -> bool {
        self.rewrite_since_s.load(Ordering::Relaxed) > 0
    }

    /// Has a rewrite begin as soon as no other runs. False when one was asked for already.
    pub fn schedule_rewrite(&self) -> bool {
        let is_new = !self.is_scheduled.swap(true, Ordering::AcqRel);
        if is_new {
            self.send(Task::Rewrite);
        }
        is_new
    }

    fn work(&self, server: &Arc<Server>, task: Task) {
        match task {
            Task::TurnOn(directory) => self.rewrite(server, Some(directory)),
            Task::TurnOff => {
                under_all_gates(server, || {
                    server.engine.set_logging(false);
                    self.journal.order(Order::Close);
                });
            }
            Task::Rewrite => {
                // BGREWRITEAOF without a log writes one for later, as with Redis.
                let directory = match self.is_wanted() {
                    true => Ok(None),
                    false => replay::open(&server.config.current()).map(|(found, _)| Some(found)),
                };
                match directory {
                    Ok(directory) => self.rewrite(server, directory),
                    Err(error) => crate::log_warning!("{error}"),
                }
                self.is_scheduled.store(false, Ordering::Release);
                if !self.is_wanted() {
                    self.work(server, Task::TurnOff);
                }
            }
        }
    }

    fn rewrite(&self, server: &Arc<Server>, directory: Option<Directory<Folder>>) {
        let started = Instant::now();
        self.rewrite_since_s.store(unix_ms() / 1000, Ordering::Relaxed);
        let done = self.try_rewrite(server, directory);
        self.rewrite_since_s.store(0, Ordering::Relaxed);
        self.last_rewrite_seconds.store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
        self.has_rewrite_failed.store(done.is_err(), Ordering::Relaxed);
        match done {
            Ok(()) => {
                self.report.rewrites.fetch_add(1, Ordering::Relaxed);
                self.rewrites_failed_in_a_row.store(0, Ordering::Relaxed);
                crate::log_notice!("Background AOF rewrite finished successfully");
            }
            Err(error) => {
                self.rewrites_failed_in_a_row.fetch_add(1, Ordering::Relaxed);
                crate::log_warning!("AOF rewrite failed: {}", reason(&error));
            }
        }
    }

    fn try_rewrite(
        &self,
        server: &Arc<Server>,
        mut directory: Option<Directory<Folder>>,
    ) -> io::Result<()> {
        let (answer, answered) = mpsc::channel();
        let moment = loop {
            let begun = under_all_gates(server, || {
                let worker = server.own_worker();
                let mut txn = Txn::begin(&server.engine, &worker, Plan::Exclusive, unix_ms());
                let moment = Moment::now(server, &mut txn);
                txn.commit();
                if moment.is_some() {
                    // What is logged from here on comes behind the moment.
                    server.engine.set_logging(true);
                    let directory = directory.take();
                    self.journal.order(Order::Begin { directory, answer: answer.clone() });
                }
                moment
            });
            match begun {
                Some(moment) => break moment,
                // Another snapshot is being taken.
                None if server.is_shutting_down() => {
                    return Err(io::Error::other("the server ends"));
                }
                None => thread::park_timeout(SNAPSHOT_PAUSE),
            }
        };
        drop(answer);
        self.is_scheduled.store(false, Ordering::Release);
        let snapshot = moment.snapshot(server, true);
        let mut rewrite = gone(answered.recv())??;
        let config = server.config.current();
        let is_rdb = config.aof_use_rdb_preamble;
        let file = &mut rewrite.base;
        let written = match (is_rdb, config.aof_rewrite_incremental_fsync) {
            (true, true) => snapshot.write_to(Syncing::new(file)),
            (true, false) => snapshot.write_to(file),
            (false, true) => commands::write(snapshot, &config, Syncing::new(file)),
            (false, false) => commands::write(snapshot, &config, file),
        };
        let synced = written
            .and_then(|()| rewrite.base.sync())
            .and_then(|()| Ok(rewrite.base.metadata()?.len()));
        let base_bytes = match synced {
            Ok(bytes) => bytes,
            Err(error) => {
                self.journal.order(Order::Abandon(rewrite));
                return Err(error);
            }
        };
        let (answer, answered) = mpsc::channel();
        self.journal.order(Order::Finish { rewrite, base_bytes, is_rdb, answer });
        gone(answered.recv())?
    }

    // --- INFO --------------------------------------------------------------------------------

    /// The fields of INFO persistence.
    pub fn info(&self) -> Vec<(&'static str, String)> {
        let report = &self.report;
        let since_s = self.rewrite_since_s.load(Ordering::Relaxed);
        let failed = self.has_rewrite_failed.load(Ordering::Relaxed);
        let has_trouble = report.has_failed.load(Ordering::Relaxed);
        let status = |failed: bool| if failed { "err" } else { "ok" }.to_owned();
        let flag = |flag: bool| u8::from(flag).to_string();
        let now_s = unix_ms() / 1000;
        let mut fields = vec![
            ("aof_enabled", flag(self.is_wanted())),
            ("aof_rewrite_in_progress", flag(since_s > 0)),
            ("aof_rewrite_scheduled", flag(self.is_scheduled.load(Ordering::Relaxed))),
            (
                "aof_last_rewrite_time_sec",
                self.last_rewrite_seconds.load(Ordering::Relaxed).to_string(),
            ),
            (
                "aof_current_rewrite_time_sec",
                if since_s > 0 { (now_s - since_s).max(0) } else { -1 }.to_string(),
            ),
            ("aof_last_bgrewrite_status", status(failed)),
            ("aof_rewrites", report.rewrites.load(Ordering::Relaxed).to_string()),
            (
                "aof_rewrites_consecutive_failures",
                self.rewrites_failed_in_a_row.load(Ordering::Relaxed).to_string(),
            ),
            ("aof_last_write_status", status(has_trouble)),
            ("aof_last_cow_size", "0".to_owned()),
        ];
        if has_trouble {
            fields.push(("aof_last_write_error", self.journal.trouble()));
        }
        if self.is_wanted() {
            let queued_bytes = self.journal.queued_bytes();
            fields.extend([
                ("aof_current_size", report.current_bytes.load(Ordering::Relaxed).to_string()),
                ("aof_base_size", report.base_bytes.load(Ordering::Relaxed).to_string()),
                ("aof_pending_rewrite", flag(false)),
                ("aof_buffer_length", queued_bytes.to_string()),
                ("aof_pending_bio_fsync", flag(self.journal.is_syncing())),
                (
                    "aof_delayed_fsync",
                    self.journal.delayed_syncs.load(Ordering::Relaxed).to_string(),
                ),
            ]);
        }
        fields
    }
}

/// The other side of a channel is gone only when the keeper has ended.
fn gone<T>(received: Result<T, mpsc::RecvError>) -> io::Result<T> {
    received.map_err(|_| io::Error::other("the server shuts down"))
}

/// Runs something while nobody else does anything.
fn under_all_gates<T>(server: &Server, run: impl FnOnce() -> T) -> T {
    let gates = server.engine.gates();
    if !gates.enter_all(None, || false) {
        unreachable!("it waits for as long as it takes");
    }
    let result = run();
    // SAFETY: entered above, on this thread.
    unsafe { gates.leave_all() };
    result
}

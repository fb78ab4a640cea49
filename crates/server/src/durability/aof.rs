//! The append-only file as the server sees it: turned on and off, rewritten, and what INFO says.
//!
//! One thread does what needs all gates (`Task`), one after the other: beginning to log, ending it,
//! and rewrites.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use command::Error;
use engine::{Plan, Txn};
use parking_lot::Mutex;
use persist::aof::{Append, Directory, Folder, Torn};

use super::commands;
use super::file;
use super::journal::{self, Journal, Pressure};
use super::keeper::{Keeper, Order, Report};
use super::replay;
use super::save::{self, Moment};
use crate::config::{Config, ConfigView, reason};
use crate::mailbox::Mail;
use crate::server::{Server, unix_ms};

/// How soon a rewrite looks again whether another snapshot is over.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(10);
/// How long the end waits for what is to be written.
const END_PATIENCE: Duration = Duration::from_secs(10);

pub type AofJournal = Journal<Order<Folder>>;

/// Files that were loaded, and where one of them is torn.
pub type Loaded = (Directory<Folder>, Option<(String, Torn)>);

enum Task {
    /// Log from here on, into files of a new beginning.
    TurnOn(Directory<Folder>, Option<Form>),
    TurnOff,
    Rewrite(Option<Form>),
}

/// What a base file is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Rdb,
    Commands,
}

impl Form {
    fn of(config: &Config) -> Form {
        match config.aof_use_rdb_preamble {
            true => Form::Rdb,
            false => Form::Commands,
        }
    }
}

/// The way to the thread that works. Tasks are numbered from 1.
struct Tasks {
    to: Sender<(u64, Task)>,
    last: u64,
}

/// Shared by all threads.
pub struct Aof {
    pub journal: Arc<AofJournal>,
    report: Arc<Report>,
    tasks: Mutex<Tasks>,
    /// For the thread, until it starts.
    received: Mutex<Option<Receiver<(u64, Task)>>>,
    /// Rewrites up to this task are to come to nothing.
    cancelled: AtomicU64,
    /// One of them is not over yet.
    winds_up: AtomicBool,
    keeper: Mutex<Option<thread::JoinHandle<()>>>,
    /// It is on, or is being turned on.
    is_wanted: AtomicBool,
    /// A rewrite was asked for and has not begun.
    is_scheduled: AtomicBool,
    /// Unix s; 0 when none runs. One that was asked for while nothing is in its way counts as one
    /// that runs.
    rewrite_since_s: AtomicI64,
    /// Of the last rewrite; -1 when there was none.
    last_rewrite_seconds: AtomicI64,
    has_rewrite_failed: AtomicBool,
    rewrites_failed_in_a_row: AtomicI64,
}

impl Aof {
    pub fn new(workers: usize) -> Aof {
        let (to, received) = mpsc::channel();
        Aof {
            journal: Arc::new(Journal::new(workers)),
            report: Arc::default(),
            tasks: Mutex::new(Tasks { to, last: 0 }),
            received: Mutex::new(Some(received)),
            cancelled: AtomicU64::new(0),
            winds_up: AtomicBool::new(false),
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
                asker.durability.aof.request_rewrite(&asker, true);
            }),
        );
        let noter = server.clone();
        keeper.note = Box::new(move |event, took| {
            let threshold_ms = noter.config.current().latency_monitor_threshold_ms;
            noter.latency.note(event, took.as_nanos() as u64, threshold_ms, unix_ms());
        });
        if let Some((mut directory, torn)) = loaded {
            let failed =
                |error: io::Error| format!("can't write the append-only file: {}", reason(&error));
            directory.clean_up().map_err(failed)?;
            if directory.manifest().files().next().is_none() {
                begin_empty(&mut directory, &server.config.current()).map_err(failed)?;
            }
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
                let aof = &server.durability.aof;
                tasks.into_iter().for_each(|(number, task)| aof.work(&server, number, task));
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

    /// Whether a block, and all before it, will be there again whatever happens to this process.
    pub fn is_safe(&self, block: u64) -> bool {
        self.is_wanted()
            && self.report.is_on.load(Ordering::Relaxed)
            && self.journal.durable() >= block
    }

    /// Has every write of the file take so much longer.
    pub fn delay_writes(&self, delay_us: u64) {
        self.report.write_delay_us.store(delay_us, Ordering::Relaxed);
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
    pub fn apply(&self, server: &Server, config: &Config) -> Result<(), String> {
        if config.appendonly == self.is_wanted() {
            return Ok(());
        }
        if !config.appendonly {
            self.cancel_rewrites(server);
            self.is_wanted.store(false, Ordering::Relaxed);
            // Transactions go on to log until all gates can be had.
            self.journal.set_closed(true);
            self.send(Task::TurnOff);
            return Ok(());
        }
        let (directory, _) = replay::open(config).map_err(|error| {
            crate::log_warning!("{error}");
            "Unable to turn on AOF. Check server logs.".to_owned()
        })?;
        // What is being written is not for a log that goes on.
        self.cancel_rewrites(server);
        self.is_wanted.store(true, Ordering::Relaxed);
        let begins = self.may_begin(server);
        self.note_request(begins);
        self.send(Task::TurnOn(directory, begins.then(|| Form::of(config))));
        Ok(())
    }

    /// Removes files that no longer count, if they were kept on purpose.
    pub fn collect_garbage(&self) {
        if !self.is_wanted() {
            return;
        }
        let (answer, answered) = mpsc::channel();
        self.journal.order(Order::CollectGarbage(answer));
        // It is in the log if it fails; should the disk hang, nobody is to hang with it.
        let _ = answered.recv_timeout(END_PATIENCE);
    }

    fn send(&self, task: Task) {
        let mut tasks = self.tasks.lock();
        tasks.last += 1;
        let number = tasks.last;
        // Fails only when the process ends.
        let _ = tasks.to.send((number, task));
    }

    /// Rewrites that run or were asked for come to nothing.
    fn cancel_rewrites(&self, server: &Server) {
        if self.is_rewriting() || self.is_scheduled.load(Ordering::Relaxed) {
            // Tools look for words about a child; here is none.
            crate::log_notice!("Killing the running AOF rewrite (a thread, no child process)");
            self.winds_up.store(server.engine.has_snapshot(), Ordering::Release);
            self.cancelled.store(self.tasks.lock().last, Ordering::Release);
            self.is_scheduled.store(false, Ordering::Release);
            self.rewrite_since_s.store(0, Ordering::Relaxed);
        }
    }

    fn is_cancelled(&self, number: u64) -> bool {
        self.cancelled.load(Ordering::Acquire) >= number
    }

    /// It is being turned on, and nothing is promised before it is.
    pub fn is_beginning(&self) -> bool {
        self.is_wanted() && !self.report.is_on.load(Ordering::Relaxed)
    }

    pub fn is_rewriting(&self) -> bool {
        self.rewrite_since_s.load(Ordering::Relaxed) > 0
    }

    /// Has a rewrite begin as soon as no other snapshot is taken: `at_once` if it may. Answers
    /// whether nothing is in its way.
    pub fn request_rewrite(&self, server: &Server, at_once: bool) -> bool {
        let begins = at_once && !self.is_rewriting() && self.may_begin(server);
        if self.note_request(begins) {
            let form = begins.then(|| Form::of(&server.config.current()));
            self.send(Task::Rewrite(form));
        }
        begins
    }

    /// Whether no other snapshot is in its way, or only one that ends in a moment.
    fn may_begin(&self, server: &Server) -> bool {
        !server.engine.has_snapshot() || self.winds_up.load(Ordering::Acquire)
    }

    /// False when one was asked for already.
    fn note_request(&self, begins: bool) -> bool {
        if begins {
            self.rewrite_since_s.store(unix_ms() / 1000, Ordering::Relaxed);
        }
        !self.is_scheduled.swap(true, Ordering::AcqRel)
    }

    fn work(&self, server: &Arc<Server>, number: u64, task: Task) {
        match task {
            Task::TurnOn(directory, form) => {
                self.rewrite(server, number, form, Some(directory), true);
            }
            Task::TurnOff => {
                under_all_gates(server, || {
                    server.engine.set_logging(false);
                    self.journal.order(Order::Close);
                });
            }
            Task::Rewrite(form) => {
                // BGREWRITEAOF without a log writes one for later, as with Redis.
                let is_for_later = !self.is_wanted();
                let directory = match is_for_later {
                    false => Ok(None),
                    true => replay::open(&server.config.current()).map(|(found, _)| Some(found)),
                };
                match directory {
                    Ok(directory) => self.rewrite(server, number, form, directory, !is_for_later),
                    Err(error) => {
                        crate::log_warning!("{error}");
                        self.is_scheduled.store(false, Ordering::Release);
                        self.rewrite_since_s.store(0, Ordering::Relaxed);
                    }
                }
                if is_for_later {
                    self.work(server, number, Task::TurnOff);
                }
            }
        }
    }

    fn rewrite(
        &self,
        server: &Arc<Server>,
        number: u64,
        form: Option<Form>,
        directory: Option<Directory<Folder>>,
        keeps_blocks: bool,
    ) {
        let started = Instant::now();
        let done = self.try_rewrite(server, number, form, directory, keeps_blocks);
        if self.is_cancelled(number) {
            // It does not count as one that runs, another may.
            self.winds_up.store(false, Ordering::Release);
            if done.is_err() {
                crate::log_notice!("AOF rewrite given up: it is not wanted any more");
                return;
            }
        } else {
            self.rewrite_since_s.store(0, Ordering::Relaxed);
        }
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
        number: u64,
        form: Option<Form>,
        mut directory: Option<Directory<Folder>>,
        keeps_blocks: bool,
    ) -> io::Result<()> {
        let (answer, answered) = mpsc::channel();
        let moment = loop {
            let begun = under_all_gates(server, || {
                // Whoever is told that nothing is logged any more has a gate meanwhile.
                if self.is_cancelled(number) {
                    return None;
                }
                let worker = server.own_worker();
                let mut txn = Txn::begin(&server.engine, &worker, Plan::Exclusive, unix_ms());
                let moment = Moment::now(server, &mut txn);
                txn.commit();
                if moment.is_some() {
                    // What is logged from here on comes behind the moment.
                    server.engine.set_logging(true);
                    self.journal.set_closed(false);
                    let directory = directory.take();
                    self.journal.order(Order::Begin { directory, answer: answer.clone() });
                }
                moment
            });
            match begun {
                Some(moment) => break moment,
                // Another snapshot is being taken.
                None if server.is_shutting_down() || self.is_cancelled(number) => {
                    return Err(io::Error::other("it is not wanted any more"));
                }
                None => thread::park_timeout(SNAPSHOT_PAUSE),
            }
        };
        drop(answer);
        if !self.is_cancelled(number) {
            self.rewrite_since_s.store(unix_ms() / 1000, Ordering::Relaxed);
            self.is_scheduled.store(false, Ordering::Release);
        }
        let is_wanted = || !self.is_cancelled(number) && !server.is_shutting_down();
        let snapshot = moment.snapshot(server, true, &is_wanted);
        let mut rewrite = gone(answered.recv())??;
        let config = server.config.current();
        let is_rdb = form.unwrap_or_else(|| Form::of(&config)) == Form::Rdb;
        let to = file::writer(&mut rewrite.base, config.aof_rewrite_incremental_fsync);
        let written = match is_rdb {
            true => snapshot.write_to(to),
            false => commands::write(snapshot, &config, to),
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
        self.journal.order(Order::Finish { rewrite, base_bytes, is_rdb, keeps_blocks, answer });
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
            (
                "aof_rewrite_scheduled",
                flag(since_s == 0 && self.is_scheduled.load(Ordering::Relaxed)),
            ),
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

/// The base of a log that begins with nothing.
fn begin_empty(directory: &mut Directory<Folder>, config: &Config) -> io::Result<()> {
    let mut content = Vec::new();
    let form = Form::of(config);
    match form {
        Form::Rdb => {
            save::begin(&mut content, config, true)?.finish()?;
        }
        Form::Commands => commands::put_time(config, &mut content),
    }
    directory.begin_empty(&content, form == Form::Rdb)
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

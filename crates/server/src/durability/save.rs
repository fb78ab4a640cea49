//! Writing the keyspace to RDB files: at once, under all gates (SAVE, SHUTDOWN), or as a snapshot that
//! a thread writes out while everything goes on (BGSAVE, save points, the base of a log).
//!
//! A file is written beside the old one, synced, and takes its name; the folder is synced as well.
//! So whatever happens, the old file or the new one is there, whole.
//!
//! A snapshot is what `engine::Snapshot` hands to [`Gathered`], which encodes it at once, for each
//! thread apart: the walking thread's share and what the others had to save before they changed it.
//! The walking thread takes these bytes and writes them, without any lock. When more than
//! [`BACKLOG_BYTES_MAX`] have gathered, writing commands wait, outside of all locks, until half of
//! that is written; each worker may pass the bound by what its running transaction changes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command::Error;
use engine::{Entry, Image, Plan, Saved, Step, Txn, Worker, access};
use parking_lot::Mutex;
use persist::rdb::{Access, Long, Records, Version, Writer};

use super::file;
use crate::REDIS_VERSION;
use crate::config::{Config, RdbVersion, reason};
use crate::memory;
use crate::script::Libraries;
use crate::server::{Server, unix_ms};

const MISCONF: Error = Error::of(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
     disk. Commands that may modify the data set are disabled, because this instance is configured \
     to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). \
     Please check the Redis logs for details about the RDB error.",
);

/// Bytes of a snapshot that may wait to be written before writing commands wait for them.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// What the walk gathers under one hold of a shard, and how long it holds it.
const STEP_BYTES: usize = 64 << 10;
const STEP_TIME: Duration = Duration::from_micros(500);
/// How long a walk rests when all that is left is locked.
const HELD_PAUSE: Duration = Duration::from_millis(1);
/// How long after a failure a save point tries again.
const RETRY_SECONDS: i64 = 5;

/// What became of the saves so far, and what goes on.
pub struct Saves {
    /// The last one in the background failed.
    has_failed: AtomicBool,
    /// Unix time of the last that succeeded, or of the start.
    last_seconds: AtomicI64,
    /// Changes counted when that one began.
    changes_before: AtomicU64,
    count: AtomicU64,
    /// One is being written in the background, since then (Unix time).
    is_running: AtomicBool,
    running_since_seconds: AtomicI64,
    /// How long the last one in the background took; -1 before the first.
    took_seconds: AtomicI64,
    /// Bytes that waited to be written, at most, in the last one.
    backlog_bytes_max: AtomicUsize,
    /// Bytes that it encoded without a break, at most.
    part_bytes_max: AtomicUsize,
    is_scheduled: AtomicBool,
    /// Saves are numbered as they begin; of two files the one of the later stays.
    begun: AtomicU64,
    /// Those up to this one, if they run in the background, are to come to nothing.
    cancelled: AtomicU64,
    published: Mutex<u64>,
    gathered: Mutex<Option<Arc<Gathered>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Writing commands are to wait.
    is_backed_up: Arc<AtomicBool>,
}

impl Default for Saves {
    fn default() -> Saves {
        Saves {
            has_failed: AtomicBool::new(false),
            last_seconds: AtomicI64::new(unix_ms() / 1000),
            changes_before: AtomicU64::new(0),
            count: AtomicU64::new(0),
            is_running: AtomicBool::new(false),
            running_since_seconds: AtomicI64::new(0),
            took_seconds: AtomicI64::new(-1),
            backlog_bytes_max: AtomicUsize::new(0),
            part_bytes_max: AtomicUsize::new(0),
            is_scheduled: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            published: Mutex::new(0),
            gathered: Mutex::default(),
            thread: Mutex::default(),
            is_backed_up: Arc::default(),
        }
    }
}

impl Saves {
    /// Why commands that change anything are refused now, if they are.
    #[inline]
    pub fn refuses_writes(&self, config: &Config) -> Option<Error> {
        let refuses = self.has_failed.load(Ordering::Relaxed)
            && config.stop_writes_on_bgsave_error
            && !config.save.0.is_empty();
        refuses.then_some(MISCONF)
    }

    /// Unix time of the last success, or of the start.
    pub fn last_seconds(&self) -> i64 {
        self.last_seconds.load(Ordering::Relaxed)
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Files written since the start.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Changes that are in no file.
    pub fn unsaved_changes(&self, server: &Server) -> u64 {
        changes(server).saturating_sub(self.changes_before.load(Ordering::Relaxed))
    }

    /// Whether commands that write are to wait until some of a snapshot is on the disk.
    #[inline]
    pub fn is_backed_up(&self) -> bool {
        self.is_backed_up.load(Ordering::Relaxed)
    }

    /// Whether one is being written in the background.
    pub fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// Has one begin in the background as soon as that is possible.
    pub fn schedule(&self) {
        self.is_scheduled.store(true, Ordering::Release);
    }

    /// Has the one that runs come to nothing. It is no failure.
    pub fn cancel(&self) {
        self.cancelled.store(self.begun.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Takes back what was scheduled; false when there was nothing.
    pub fn unschedule(&self) -> bool {
        self.is_scheduled.swap(false, Ordering::AcqRel)
    }

    /// Seconds that the last one in the background took, and that the running one takes so far.
    pub fn times_seconds(&self) -> (i64, i64) {
        let since_seconds = self.running_since_seconds.load(Ordering::Relaxed);
        let current = match self.is_running() {
            true => (unix_ms() / 1000 - since_seconds).max(0),
            false => -1,
        };
        (self.took_seconds.load(Ordering::Relaxed), current)
    }

    /// Of the snapshot that is being taken: keys saved, keys in all, bytes that wait to be written,
    /// and how many these were at most.
    pub fn progress(&self) -> (u64, u64, usize, usize) {
        self.gathered.lock().as_ref().map_or_else(Default::default, |gathered| {
            (
                gathered.keys.load(Ordering::Relaxed),
                gathered.keys_total,
                gathered.bytes.load(Ordering::Relaxed),
                gathered.bytes_max.load(Ordering::Relaxed),
            )
        })
    }

    /// Bytes that waited to be written, at most, in the last one.
    pub fn backlog_bytes_max(&self) -> usize {
        self.backlog_bytes_max.load(Ordering::Relaxed)
    }

    /// Bytes that were encoded without a break, at most, in the last one.
    pub fn part_bytes_max(&self) -> usize {
        self.part_bytes_max.load(Ordering::Relaxed)
    }

    /// Waits for the thread that writes, which gives up as the server ends.
    pub fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // It has told the log what went wrong, if something did.
            let _ = thread.join();
        }
    }

    /// Whether a file may take the name that all go by: not when a later one has it. Kept locked
    /// until it has.
    fn may_publish(&self, number: u64) -> io::Result<impl Sized> {
        let mut published = self.published.lock();
        if *published > number {
            return Err(io::Error::other("a later one was saved meanwhile"));
        }
        *published = number;
        Ok(published)
    }

    fn succeeded(&self, changes_before: u64) {
        self.changes_before.store(changes_before, Ordering::Relaxed);
        self.last_seconds.store(unix_ms() / 1000, Ordering::Relaxed);
        self.has_failed.store(false, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

fn changes(server: &Server) -> u64 {
    server.engine.total(|stats| stats.dirty.value())
}

/// Saves to the file that the configuration names, here and now. The transaction is exclusive. The
/// reason of a failure is in the log.
pub fn in_foreground(server: &Server, txn: &mut Txn<'_>, worker: &Worker) -> io::Result<()> {
    let config = server.config.current();
    let changes_before = changes(server) + txn.dirty();
    let path = config.dbfilename.as_path();
    let saves = &server.durability.saves;
    let number = saves.begun.fetch_add(1, Ordering::Relaxed) + 1;
    let write = |file: &mut File| {
        let to = file::writer(file, config.rdb_save_incremental_fsync);
        let mut writer = begin(to, &config, false)?;
        write_all(&mut writer, server, txn, worker)?;
        writer.finish().map(drop)
    };
    let temporary = format!("temp-{}.rdb", std::process::id());
    file::replace(path, &temporary, write, || saves.may_publish(number))
        .inspect(|()| {
            crate::log_notice!("DB saved on disk");
            saves.succeeded(changes_before);
        })
        .inspect_err(|error| log_failure(path, error))
}

fn log_failure(path: &Path, error: &io::Error) {
    let folder = std::env::current_dir().unwrap_or_default();
    crate::log_warning!(
        "Failed to save the DB as '{}' in '{}': {}",
        path.display(),
        folder.display(),
        reason(error)
    );
}

/// The same for whoever holds all gates and has no transaction.
pub fn at_shutdown(server: &Server) -> io::Result<()> {
    let worker = server.own_worker();
    let mut txn = Txn::begin(&server.engine, &worker, Plan::Exclusive, unix_ms());
    let done = in_foreground(server, &mut txn, &worker);
    txn.commit();
    done
}

pub fn version(config: &Config) -> Version {
    match config.rdb_version {
        RdbVersion::V10 => Version::V10,
        RdbVersion::V11 => Version::V11,
    }
}

/// Begins a file with what it says of itself.
pub fn begin<W: Write>(to: W, config: &Config, is_aof_base: bool) -> io::Result<Writer<W>> {
    let mut writer = Writer::new(to, version(config), config.rdbcompression, config.rdbchecksum);
    writer.aux("redis-ver", REDIS_VERSION.as_bytes())?;
    writer.aux("redis-bits", usize::BITS.to_string().as_bytes())?;
    writer.aux("ctime", (unix_ms() / 1000).to_string().as_bytes())?;
    writer.aux("used-mem", memory::used_bytes().to_string().as_bytes())?;
    writer.aux("aof-base", if is_aof_base { b"1" } else { b"0" })?;
    Ok(writer)
}

/// What a file is to say about the use of a key, as with Redis: what the policy goes by.
fn access_of(entry: &Entry, worker: &Worker, now_ms: i64) -> Access {
    let policy = worker.settings.policy;
    if policy.is_lfu() {
        Access::Frequency(access::lfu_count(entry, worker, now_ms) as u8)
    } else if policy.is_lru() {
        Access::IdleSeconds(u64::from(access::idle_seconds(entry, now_ms)))
    } else {
        Access::Unknown
    }
}

fn write_libraries<W: Write>(writer: &mut Writer<W>, libraries: &Libraries) -> io::Result<()> {
    libraries.iter().try_for_each(|loaded| writer.function(loaded.library.source()))
}

/// Writes all libraries and keys. The transaction is exclusive.
fn write_all<W: Write>(
    writer: &mut Writer<W>,
    server: &Server,
    txn: &mut Txn<'_>,
    worker: &Worker,
) -> io::Result<()> {
    write_libraries(writer, &server.scripts.functions.current())?;
    let delay_us = server.config.current().rdb_key_save_delay_us;
    let ends = || server.ending.is_insisted();
    let (home, now_ms) = (txn.db(), txn.now_ms());
    let mut done = Ok(());
    for db in 0..txn.databases() {
        txn.select(db);
        let size = txn.db_size();
        if size.keys == 0 || done.is_err() {
            continue;
        }
        done = writer.select(db, size.keys as u64, size.expires as u64);
        txn.for_each(|entry| {
            if done.is_ok() {
                super::delay(1, || delay_us, ends);
                if ends() {
                    done = Err(io::Error::other("the server ends at once"));
                    return;
                }
                let access = access_of(entry, worker, now_ms);
                done = writer.key(entry.key(), entry.get(), entry.expire_at_ms(), access);
            }
        });
    }
    txn.select(home);
    done
}

/// Takes down what a snapshot is of, for each thread apart.
struct Gathered {
    /// By the number of the worker.
    records: Box<[Mutex<Records>]>,
    /// Gathered and not written yet; and at most.
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    keys: AtomicU64,
    keys_total: u64,
    /// For how long a key was not used.
    now_ms: i64,
    /// Nothing will be written any more.
    is_given_up: AtomicBool,
    is_backed_up: Arc<AtomicBool>,
    /// Long values that are being saved in parts. Nothing may come between the parts of one: those of
    /// the first are written as they come, the others wait until they are whole.
    long: Mutex<VecDeque<LongValue>>,
    has_long: AtomicBool,
    /// Bytes of the longest part that was encoded without a break.
    part_bytes_max: AtomicUsize,
    config: Arc<Config>,
}

struct LongValue {
    db: u32,
    key: Box<[u8]>,
    long: Long,
    records: Records,
    is_whole: bool,
}

impl LongValue {
    fn is_of(&self, db: u32, entry: &Entry) -> bool {
        !self.is_whole && self.db == db && *self.key == *entry.key()
    }
}

impl Image for Gathered {
    /// Begins, or goes on with, one long value at a time.
    fn save_some(&self, worker: &Worker, db: u32, entry: &Entry) -> Saved {
        if !engine::is_long(entry) || self.is_given_up.load(Ordering::Relaxed) {
            self.save(worker, db, entry);
            return Saved::Whole;
        }
        let mut values = self.long.lock();
        let is_next = values.is_empty() || values.iter().any(|value| value.is_of(db, entry));
        match is_next {
            true => self.save_part(&mut values, worker, db, entry),
            false => Saved::Later,
        }
    }

    /// Several of these may be under way.
    fn save_ahead(&self, worker: &Worker, db: u32, entry: &Entry) -> Saved {
        if self.is_given_up.load(Ordering::Relaxed) {
            return Saved::Whole;
        }
        self.save_part(&mut self.long.lock(), worker, db, entry)
    }

    fn save(&self, worker: &Worker, db: u32, entry: &Entry) {
        if self.is_given_up.load(Ordering::Relaxed) {
            return;
        }
        if self.has_long.load(Ordering::Relaxed)
            && let Some(value) = self.long.lock().iter_mut().find(|value| value.is_of(db, entry))
        {
            self.go_on(value, entry, usize::MAX);
            return;
        }
        let mut records = self.records[worker.id].lock();
        let before_bytes = records.len_bytes();
        let access = access_of(entry, worker, self.now_ms);
        records.add(db, entry.key(), entry.get(), entry.expire_at_ms(), access);
        let more_bytes = records.len_bytes() - before_bytes;
        drop(records);
        self.part_bytes_max.fetch_max(more_bytes, Ordering::Relaxed);
        self.keys.fetch_add(1, Ordering::Relaxed);
        self.gathered(more_bytes);
    }
}

impl Gathered {
    /// Begins a long value, or goes on with it.
    fn save_part(
        &self,
        values: &mut VecDeque<LongValue>,
        worker: &Worker,
        db: u32,
        entry: &Entry,
    ) -> Saved {
        let known = values.iter().position(|value| value.is_of(db, entry));
        let at = known.unwrap_or_else(|| {
            let mut records = Records::new(version(&self.config), self.config.rdbcompression);
            let access = access_of(entry, worker, self.now_ms);
            let (key, expiry) = (entry.key(), entry.expire_at_ms());
            let long = Long::begin(&mut records, db, key, entry.get(), expiry, access);
            self.has_long.store(true, Ordering::Relaxed);
            self.gathered(records.len_bytes());
            values.push_back(LongValue { db, key: key.into(), long, records, is_whole: false });
            values.len() - 1
        });
        match self.go_on(&mut values[at], entry, STEP_BYTES) {
            true => Saved::Whole,
            false => Saved::Partly,
        }
    }

    /// Saves some more of a long value; true when that was the last of it.
    fn go_on(&self, value: &mut LongValue, entry: &Entry, bytes: usize) -> bool {
        let before_bytes = value.records.len_bytes();
        value.is_whole = value.long.go_on(&mut value.records, entry.get(), bytes);
        let more_bytes = value.records.len_bytes() - before_bytes;
        self.part_bytes_max.fetch_max(more_bytes, Ordering::Relaxed);
        self.gathered(more_bytes);
        self.keys.fetch_add(u64::from(value.is_whole), Ordering::Relaxed);
        value.is_whole
    }

    fn gathered(&self, more_bytes: usize) {
        let bytes = self.bytes.fetch_add(more_bytes, Ordering::Relaxed) + more_bytes;
        self.bytes_max.fetch_max(bytes, Ordering::Relaxed);
        if bytes > BACKLOG_BYTES_MAX {
            self.is_backed_up.store(true, Ordering::Relaxed);
        }
    }

    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
        self.is_backed_up.store(false, Ordering::Relaxed);
    }

    /// Writes out what has gathered.
    fn drain<W: Write>(&self, writer: &mut Writer<W>, spare: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut values = self.long.lock();
            let Some(value) = values.front_mut() else { break };
            let bytes = value.records.take(std::mem::take(spare));
            let is_whole = value.is_whole;
            if is_whole {
                values.pop_front();
                self.has_long.store(!values.is_empty(), Ordering::Relaxed);
            }
            drop(values);
            self.write(bytes, writer, spare)?;
            if !is_whole {
                return Ok(());
            }
        }
        for records in &self.records {
            let mut records = records.lock();
            if records.len_bytes() > 0 {
                let bytes = records.take(std::mem::take(spare));
                drop(records);
                self.write(bytes, writer, spare)?;
            }
        }
        Ok(())
    }

    fn write<W: Write>(
        &self,
        bytes: Vec<u8>,
        writer: &mut Writer<W>,
        spare: &mut Vec<u8>,
    ) -> io::Result<()> {
        writer.records(&bytes)?;
        let left_bytes = self.bytes.fetch_sub(bytes.len(), Ordering::Relaxed) - bytes.len();
        if left_bytes < BACKLOG_BYTES_MAX / 2 {
            self.is_backed_up.store(false, Ordering::Relaxed);
        }
        *spare = bytes;
        spare.shrink_to(4 * STEP_BYTES);
        Ok(())
    }
}

/// The keyspace as it was at one moment, to be written somewhere. One at a time.
///
/// To be made under all gates; `write_to` is for another thread, as is dropping it, which takes a
/// walk over all keys when it was not written.
pub struct Snapshot<'s> {
    server: &'s Server,
    worker: Worker,
    walk: Option<engine::Snapshot>,
    gathered: Arc<Gathered>,
    libraries: Arc<Libraries>,
    config: Arc<Config>,
    is_aof_base: bool,
    is_wanted: &'s dyn Fn() -> bool,
}

/// What makes a [`Snapshot`] on another thread: its moment is told there.
pub struct Moment {
    walk: engine::Snapshot,
    gathered: Arc<Gathered>,
    libraries: Arc<Libraries>,
}

impl Moment {
    /// The keyspace as it is now. The transaction is exclusive; `None` while another snapshot is
    /// being taken.
    pub fn now(server: &Server, txn: &mut Txn<'_>) -> Option<Moment> {
        if server.engine.has_snapshot() {
            return None;
        }
        let config = server.config.current();
        let version = version(&config);
        let records = || Mutex::new(Records::new(version, config.rdbcompression));
        let saves = &server.durability.saves;
        let keys_total = txn.key_count() as u64;
        let gathered = Arc::new(Gathered {
            records: (0..=server.mailboxes.len()).map(|_| records()).collect(),
            bytes: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(0),
            keys: AtomicU64::new(0),
            keys_total,
            now_ms: txn.now_ms(),
            is_given_up: AtomicBool::new(false),
            is_backed_up: saves.is_backed_up.clone(),
            long: Mutex::default(),
            has_long: AtomicBool::new(false),
            part_bytes_max: AtomicUsize::new(0),
            config: config.clone(),
        });
        let walk = txn.begin_snapshot(gathered.clone())?;
        *saves.gathered.lock() = Some(gathered.clone());
        Some(Moment { walk, gathered, libraries: server.scripts.functions.current() })
    }

    /// To be called on the thread that writes it. `is_wanted` is asked now and then whether it is
    /// to go on.
    pub fn snapshot<'s>(
        self,
        server: &'s Server,
        is_aof_base: bool,
        is_wanted: &'s dyn Fn() -> bool,
    ) -> Snapshot<'s> {
        let (worker, config) = (server.own_worker(), server.config.current());
        let Moment { walk, gathered, libraries } = self;
        let walk = Some(walk);
        Snapshot { server, worker, walk, gathered, libraries, config, is_aof_base, is_wanted }
    }
}

impl Snapshot<'_> {
    /// Writes it as an RDB file. Fails when it is not wanted any more.
    pub fn write_to<W: Write>(mut self, to: W) -> io::Result<()> {
        let mut writer = begin(to, &self.config, self.is_aof_base)?;
        write_libraries(&mut writer, &self.libraries)?;
        let sizes = self.walk.iter().flat_map(|walk| walk.sizes()).enumerate();
        for (db, size) in sizes.filter(|(_, size)| size.keys > 0) {
            writer.select(db as u32, size.keys as u64, size.expires as u64)?;
        }
        let (mut spare, mut saved_keys) = (Vec::new(), 0);
        loop {
            let step = self.step();
            self.gathered.drain(&mut writer, &mut spare)?;
            let keys = self.gathered.keys.load(Ordering::Relaxed);
            let delay_us = || self.server.config.current().rdb_key_save_delay_us;
            super::delay(keys - saved_keys, delay_us, || !(self.is_wanted)());
            saved_keys = keys;
            match step {
                Step::Done => break,
                Step::More => {}
                Step::Held => thread::park_timeout(HELD_PAUSE),
            }
            if !(self.is_wanted)() {
                return Err(io::Error::other("it is not wanted any more"));
            }
        }
        writer.finish().map(drop)
    }

    fn step(&mut self) -> Step {
        let Some(walk) = &mut self.walk else { return Step::Done };
        let (engine, worker) = (&self.server.engine, &self.worker);
        if !engine.gates().enter(worker.id, None) {
            unreachable!("it waits for as long as it takes");
        }
        let records = &self.gathered.records[worker.id];
        let until = Instant::now() + STEP_TIME;
        let is_enough = || records.lock().len_bytes() >= STEP_BYTES || Instant::now() >= until;
        let step = walk.step(engine, worker, is_enough);
        // SAFETY: entered above, on this thread.
        unsafe { engine.gates().leave(worker.id) };
        step
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // What was not written is walked through, or the next one could not begin.
        self.gathered.give_up();
        loop {
            match self.step() {
                Step::Done => break,
                _ if self.server.is_shutting_down() => return,
                Step::More => {}
                Step::Held => thread::park_timeout(HELD_PAUSE),
            }
        }
        let saves = &self.server.durability.saves;
        let bytes_max = self.gathered.bytes_max.load(Ordering::Relaxed);
        saves.backlog_bytes_max.store(bytes_max, Ordering::Relaxed);
        let part_bytes_max = self.gathered.part_bytes_max.load(Ordering::Relaxed);
        saves.part_bytes_max.store(part_bytes_max, Ordering::Relaxed);
        *saves.gathered.lock() = None;
        if let Some(walk) = self.walk.take() {
            walk.end(&self.server.engine);
        }
    }
}

/// Begins to save in the background. The transaction is exclusive, and no snapshot is being taken.
pub fn in_background(server: &Arc<Server>, txn: &mut Txn<'_>) -> io::Result<()> {
    let saves = &server.durability.saves;
    let changes_before = changes(server) + txn.dirty();
    let number = saves.begun.fetch_add(1, Ordering::Relaxed) + 1;
    let (sender, receiver) = mpsc::channel::<Moment>();
    let shared = server.clone();
    let write = move || {
        crate::memory::register_thread();
        // Nothing comes when another snapshot was there first.
        if let Ok(moment) = receiver.recv() {
            write_in_background(&shared, moment, number, changes_before);
        }
    };
    saves.running_since_seconds.store(unix_ms() / 1000, Ordering::Relaxed);
    saves.join();
    let started = thread::Builder::new().name("save".into()).spawn(write);
    let thread = started.inspect_err(|error| {
        saves.has_failed.store(true, Ordering::Relaxed);
        crate::log_warning!("Can't save in background: {error}");
    })?;
    let Some(moment) = Moment::now(server, txn) else {
        return Err(io::Error::other("a snapshot is being taken"));
    };
    saves.is_running.store(true, Ordering::Release);
    saves.is_scheduled.store(false, Ordering::Release);
    *saves.thread.lock() = Some(thread);
    crate::log_notice!("Background saving started");
    let _ = sender.send(moment);
    Ok(())
}

fn write_in_background(server: &Server, moment: Moment, number: u64, changes_before: u64) {
    let saves = &server.durability.saves;
    let started = Instant::now();
    let is_cancelled = || saves.cancelled.load(Ordering::Acquire) >= number;
    let is_wanted = || !is_cancelled() && !server.is_shutting_down();
    let snapshot = moment.snapshot(server, false, &is_wanted);
    let config = server.config.current();
    let path = config.dbfilename.as_path();
    let write =
        |file: &mut File| snapshot.write_to(file::writer(file, config.rdb_save_incremental_fsync));
    let temporary = format!("temp-{}-{number}.rdb", std::process::id());
    match file::replace(path, &temporary, write, || saves.may_publish(number)) {
        Ok(()) => {
            saves.succeeded(changes_before);
            crate::log_notice!("DB saved on disk");
            crate::log_notice!("Background saving terminated with success");
        }
        Err(_) if server.is_shutting_down() => {
            crate::log_notice!("Background saving given up: the server ends");
        }
        Err(_) if is_cancelled() => crate::log_notice!("Background saving cancelled"),
        Err(error) => {
            saves.has_failed.store(true, Ordering::Relaxed);
            log_failure(path, &error);
            crate::log_warning!("Background saving error");
        }
    }
    saves.took_seconds.store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
    saves.is_running.store(false, Ordering::Release);
}

/// Why a save is due in the background now, if one is.
pub fn is_due(server: &Server, config: &Config) -> bool {
    let saves = &server.durability.saves;
    if config.save.0.is_empty() && !saves.is_scheduled.load(Ordering::Acquire) {
        return false;
    }
    if saves.is_running() || server.engine.has_snapshot() || server.durability.loading.is_on() {
        return false;
    }
    let now_seconds = unix_ms() / 1000;
    let tried_seconds = saves.running_since_seconds.load(Ordering::Relaxed);
    if saves.has_failed() && now_seconds - tried_seconds <= RETRY_SECONDS {
        return false;
    }
    if saves.is_scheduled.load(Ordering::Acquire) {
        return true;
    }
    let age_seconds = now_seconds - saves.last_seconds();
    let unsaved = saves.unsaved_changes(server);
    let point = config.save.0.iter().find(|point| {
        unsaved >= point.changes && age_seconds > point.seconds.min(i64::MAX as u64) as i64
    });
    if let Some(point) = point {
        crate::log_notice!("{} changes in {} seconds. Saving...", point.changes, point.seconds);
    }
    point.is_some()
}

//! Loading what was saved, while clients are told to wait.
//!
//! One thread reads the file and cuts it into runs of keys; others, as many as there are workers,
//! build the values of a run and put them into the keyspace. Workers run meanwhile and refuse what is
//! not allowed yet. What is in a file is `persist`'s to know.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use command::Error;
use data::Limits;
use engine::{Arrival, Entry, Plan, Txn, Worker, access};
use parking_lot::Mutex;
use persist::aof::{Directory, Folder};
use persist::rdb::{Item, Key, Piece, Reader, Run};

use super::libraries::FileLibraries;
use super::replay;
use crate::config::reason;
use crate::script::Present;
use crate::server::{Server, unix_ms};

/// Entries put in under one hold of all gates, and their rough size.
const BATCH_KEYS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// Threads that build values: what they put in, one after the other puts in.
const THREADS_MAX: usize = 16;
/// How often the log tells how far it is.
const REPORT_PERIOD: Duration = Duration::from_secs(5);
/// A key takes more of a file than this: what a file says of its keys is believed up to there.
const KEY_BYTES_MIN: u64 = 6;
/// The log names so many keys that hold nothing.
const EMPTY_TOLD_MAX: u64 = 10;

pub const REFUSAL: Error = Error::of("LOADING Redis is loading the dataset in memory");

/// How far the loading is.
#[derive(Default)]
pub struct Loading {
    is_on: AtomicBool,
    started_ms: AtomicI64,
    total_bytes: AtomicU64,
    loaded_bytes: AtomicU64,
    /// Memory in use when the file was written, as it says.
    used_memory_bytes: AtomicU64,
    /// Of the last file.
    keys_loaded: AtomicU64,
    keys_expired: AtomicU64,
}

impl Loading {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// From here on clients are told to wait, until `end`.
    pub fn begin(&self, total_bytes: u64) {
        self.started_ms.store(unix_ms(), Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.loaded_bytes.store(0, Ordering::Relaxed);
        self.used_memory_bytes.store(0, Ordering::Relaxed);
        self.is_on.store(true, Ordering::Release);
    }

    /// So many bytes were read so far.
    pub fn advance(&self, loaded_bytes: u64) {
        self.loaded_bytes.store(loaded_bytes, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.is_on.store(false, Ordering::Release);
    }

    pub fn keys_loaded(&self) -> u64 {
        self.keys_loaded.load(Ordering::Relaxed)
    }

    pub fn keys_expired(&self) -> u64 {
        self.keys_expired.load(Ordering::Relaxed)
    }

    /// What INFO says while it goes on.
    pub fn progress(&self) -> Progress {
        let total_bytes = self.total_bytes.load(Ordering::Relaxed);
        let loaded_bytes = self.loaded_bytes.load(Ordering::Relaxed);
        let started_ms = self.started_ms.load(Ordering::Relaxed);
        let elapsed_seconds = (unix_ms() - started_ms).max(0) as u64 / 1000;
        let left_bytes = total_bytes.saturating_sub(loaded_bytes);
        Progress {
            started_seconds: started_ms / 1000,
            total_bytes,
            loaded_bytes,
            used_memory_bytes: self.used_memory_bytes.load(Ordering::Relaxed),
            percent: loaded_bytes as f64 * 100.0 / total_bytes.max(1) as f64,
            // As Redis guesses: at the pace so far, and 1 while there is none.
            eta_seconds: match (elapsed_seconds * left_bytes).checked_div(loaded_bytes) {
                Some(seconds) if elapsed_seconds > 0 => seconds,
                _ => 1,
            },
        }
    }
}

pub struct Progress {
    pub started_seconds: i64,
    pub total_bytes: u64,
    pub loaded_bytes: u64,
    pub used_memory_bytes: u64,
    pub percent: f64,
    pub eta_seconds: u64,
}

/// Where a file stands among all that are loaded.
pub struct Part {
    /// Bytes of the files before it.
    pub before_bytes: u64,
    /// Its own, as far as is known.
    pub bytes: u64,
    /// Keys whose time has come are left out. Not where a log follows that goes by them.
    pub drops_expired: bool,
    /// Keys that are there already give way; else they are an error.
    pub replaces: bool,
    pub gates: Gates,
}

/// Whether all gates are held for whoever loads, or it takes and leaves them as it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    Held,
    Free,
}

impl Gates {
    pub fn enter(self, server: &Server) {
        if self == Gates::Free && !server.engine.gates().enter_all(None, || false) {
            unreachable!("it waits for as long as it takes");
        }
    }

    /// To be called by who entered, on the same thread.
    pub fn leave(self, server: &Server) {
        if self == Gates::Free {
            // SAFETY: entered before, as the caller says.
            unsafe { server.engine.gates().leave_all() };
        }
    }
}

/// What was saved, and is to be loaded.
pub struct Saved {
    rdb: Option<File>,
    append_only: Option<Directory<Folder>>,
}

/// Looks what there is to load, and has clients told to wait if there is something. To be called
/// before the first one is served. The error is for the user.
pub fn prepare(server: &Server) -> Result<Saved, String> {
    look(server).inspect_err(log_fatal)
}

fn log_fatal(error: &String) {
    crate::log_warning!("Fatal error loading the DB: {error}. Exiting.");
}

fn look(server: &Server) -> Result<Saved, String> {
    let config = server.config.current();
    if config.appendonly {
        let (directory, bytes) = replay::open(&config)?;
        // Even if there is nothing: what is written before the log is kept would not be in it.
        server.durability.loading.begin(bytes);
        return Ok(Saved { rdb: None, append_only: Some(directory) });
    }
    let path = config.dbfilename.as_path();
    let rdb = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(path, &reason(&error))),
    };
    if let Some(file) = &rdb {
        server.durability.loading.begin(file.metadata().map_or(0, |metadata| metadata.len()));
    }
    Ok(Saved { rdb, append_only: None })
}

/// Loads what there is. The error is for the user.
pub fn load(server: &Arc<Server>, saved: Saved) -> Result<(), String> {
    let Saved { rdb, append_only } = saved;
    let mut done = rdb.map_or(Ok(()), |file| rdb_file(server, file));
    if done.is_ok() {
        let loaded = match append_only {
            Some(directory) => {
                replay::load(server, &directory, Gates::Free).map(|torn| Some((directory, torn)))
            }
            None => Ok(None),
        };
        done = loaded.and_then(|loaded| match server.is_shutting_down() {
            true => Ok(()),
            false => server.durability.aof.start(server, loaded),
        });
    }
    server.durability.loading.end();
    done.inspect_err(log_fatal)
}

fn failed(path: &Path, error: &dyn Display) -> String {
    format!("can't load the file '{}': {error}", path.display())
}

fn rdb_file(server: &Server, file: File) -> Result<(), String> {
    let started = Instant::now();
    let config = server.config.current();
    let path = config.dbfilename.as_path();
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let (drops_expired, replaces, gates) = (true, false, Gates::Free);
    let part = Part { before_bytes: 0, bytes, drops_expired, replaces, gates };
    let mut reader = Reader::new(file, &crate::settings::of(&config).limits)
        .map_err(|error| failed(path, &error))?;
    keys(server, &mut reader, &part).map_err(|error| {
        crate::log_warning!("{error}. Terminating server after rdb file reading failure.");
        failed(path, &error)
    })?;
    crate::log_notice!("DB loaded from disk: {:.3} seconds", started.elapsed().as_secs_f64());
    Ok(())
}

/// Loads all keys that a reader has. Clients must have been told to wait. The error is for the user.
pub fn keys<R: Read>(server: &Server, reader: &mut Reader<R>, part: &Part) -> Result<(), String> {
    let loading = &server.durability.loading;
    let empty = AtomicU64::new(0);
    let arriving = Arriving { server, part, now_ms: unix_ms(), keys: 0, expired: 0, empty: &empty };
    let limits = crate::settings::of(&server.config.current()).limits;
    let threads = server.mailboxes.len().min(THREADS_MAX);
    let (sender, receiver) = sync_channel(2 * threads);
    let (spare_sender, spares) = channel();
    let turn = Mutex::new(());
    let builder = Builder {
        arriving: arriving.clone(),
        limits,
        parcels: Arc::new(Mutex::new(receiver)),
        turn: &turn,
        spares: spare_sender,
        failed_at: Arc::new(AtomicU64::new(u64::MAX)),
    };
    let (keys, expired) = thread::scope(|scope| {
        let builders = (0..threads).map(|_| {
            let builder = builder.clone();
            let thread = thread::Builder::new().name("load".into());
            thread.spawn_scoped(scope, move || builder.build_all())
        });
        let builders: Vec<_> = builders.collect();
        let failed_at = builder.failed_at.clone();
        // The queue ends with those who take from it.
        drop(builder);
        let is_delayed = server.config.current().key_load_delay_us != 0;
        let (libraries, db) = (None, 0);
        let mut cutter = Cutter { arriving, sender, spares, failed_at, is_delayed, libraries, db };
        let cut = cutter.cut_all(reader);
        let Cutter { arriving: Arriving { mut keys, mut expired, .. }, sender, .. } = cutter;
        drop(sender);
        let mut failures = Vec::new();
        for builder in builders {
            let builder = builder.map_err(|error| error.to_string())?;
            let built = builder.join().map_err(|_| "a thread panicked".to_owned())?;
            keys += built.keys;
            expired += built.expired;
            failures.extend(built.failure);
        }
        // What is wrong first, in the file's order.
        match failures.into_iter().min() {
            Some((_, why)) => Err(why),
            None => cut.map(|()| (keys, expired)),
        }
    })?;
    loading.keys_loaded.store(keys, Ordering::Relaxed);
    loading.keys_expired.store(expired, Ordering::Relaxed);
    let skipped = match empty.into_inner() {
        0 => String::new(),
        empty => format!(", empty keys skipped: {empty}"),
    };
    crate::log_notice!("Done loading RDB, keys loaded: {keys}, keys expired: {expired}{skipped}.");
    Ok(())
}

/// What goes from the reading thread to the others.
enum Parcel {
    /// So many keys of a database will come, and so many of them expire.
    Expect(u32, usize, usize),
    /// The first stood at this byte or behind it.
    Entries(u64, Vec<Arrival>),
    /// Keys of a database.
    Run(u32, Run),
}

/// Makes entries of what is read.
#[derive(Clone)]
struct Arriving<'s> {
    server: &'s Server,
    part: &'s Part,
    now_ms: i64,
    keys: u64,
    expired: u64,
    /// Of all threads: keys that are none.
    empty: &'s AtomicU64,
}

impl Arriving<'_> {
    fn pass_over(&self, empty: &[u8]) {
        if self.empty.fetch_add(1, Ordering::Relaxed) < EMPTY_TOLD_MAX {
            crate::log_notice!("skipping empty key: {}", empty.escape_ascii());
        }
    }

    fn arrival(&mut self, db: u32, key: Key) -> Option<Arrival> {
        let Key { key, value, expire_at_ms, idle_seconds, frequency } = key;
        if self.part.drops_expired && expire_at_ms.is_some_and(|when| when <= self.now_ms) {
            self.expired += 1;
            return None;
        }
        self.keys += 1;
        let hash = self.server.engine.hash(&key);
        let entry = Entry::value(&key, value, expire_at_ms);
        if let Some(counter) = frequency {
            access::set_lfu_count(&entry, counter, self.now_ms);
        } else if let Some(seconds) = idle_seconds {
            access::set_idle_seconds(&entry, seconds.try_into().unwrap_or(u32::MAX), self.now_ms);
        }
        Some(Arrival { db, hash, entry })
    }
}

/// Reads the file and cuts it into runs of keys; what is none is read here.
struct Cutter<'s> {
    arriving: Arriving<'s>,
    sender: SyncSender<Parcel>,
    /// Buffers of runs that are done.
    spares: Receiver<Vec<u8>>,
    /// Something is wrong at this byte.
    failed_at: Arc<AtomicU64>,
    /// By `key-load-delay`, as it was in the beginning.
    is_delayed: bool,
    /// Made when the first library comes.
    libraries: Option<FileLibraries<'s>>,
    db: u32,
}

impl Cutter<'_> {
    /// Reads to the end, unless the other side has failed or the server is to end.
    fn cut_all<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<(), String> {
        let Arriving { server, part, .. } = self.arriving;
        let loading = &server.durability.loading;
        let (mut batch, mut batch_start) = (Vec::new(), 0);
        let mut spare = Vec::new();
        let mut reported = Instant::now();
        loop {
            if batch.is_empty() {
                batch_start = reader.offset();
            }
            let piece = match self.is_delayed {
                true => reader.item().map(|item| item.map(Piece::Item)),
                false => reader.piece(&mut spare),
            };
            let Some(piece) = piece.map_err(|error| error.to_string())? else { break };
            let parcel = match piece {
                Piece::Item(Item::Key(key)) => {
                    if self.is_delayed {
                        self.delay();
                    }
                    batch.extend(self.arriving.arrival(self.db, key));
                    None
                }
                Piece::Item(item) => self.note(item)?,
                Piece::Run(run) => {
                    spare = self.spares.try_recv().unwrap_or_default();
                    Some(Parcel::Run(self.db, run))
                }
            };
            let offset = reader.offset();
            let is_full = batch.len() >= BATCH_KEYS || offset - batch_start >= BATCH_BYTES as u64;
            let entries = (is_full && !batch.is_empty())
                .then(|| Parcel::Entries(batch_start, std::mem::take(&mut batch)));
            if entries.is_none() && parcel.is_none() {
                continue;
            }
            for parcel in [entries, parcel].into_iter().flatten() {
                if !self.send(parcel) {
                    return Ok(());
                }
            }
            loading.advance(part.before_bytes + offset);
            if reported.elapsed() >= REPORT_PERIOD {
                reported = Instant::now();
                let Progress { percent, eta_seconds, .. } = loading.progress();
                crate::log_notice!("Loading: {percent:.2}% done, about {eta_seconds} seconds left");
            }
        }
        loading.advance(part.before_bytes + reader.offset());
        self.send(Parcel::Entries(batch_start, batch));
        Ok(())
    }

    /// False when there is no need to go on.
    fn send(&self, parcel: Parcel) -> bool {
        self.sender.send(parcel).is_ok()
            && self.failed_at.load(Ordering::Relaxed) == u64::MAX
            && !self.arriving.server.is_shutting_down()
    }

    /// What is no key. Answers what the others are to know of it.
    fn note(&mut self, item: Item) -> Result<Option<Parcel>, String> {
        match item {
            Item::Key(_) => {}
            Item::Aux { name, value } => self.aux(&name, &value),
            Item::Select(db) => self.select(db)?,
            Item::Resize { keys, expires } => {
                let believed = self.arriving.part.bytes / KEY_BYTES_MIN;
                let count = |count: u64| count.min(believed) as usize;
                return Ok(Some(Parcel::Expect(self.db, count(keys), count(expires))));
            }
            Item::Function(code) => self.library(&code)?,
            Item::Empty(key) => self.arriving.pass_over(&key),
            Item::Skipped(what) => crate::log_warning!("Not loaded: {what}"),
        }
        Ok(None)
    }

    /// Libraries of functions are there at once.
    fn library(&mut self, code: &[u8]) -> Result<(), String> {
        let Arriving { server, part, .. } = self.arriving;
        let libraries = self.libraries.get_or_insert_with(|| FileLibraries::new(server));
        let present = if part.replaces { Present::GiveWay } else { Present::Stay };
        let done = libraries.add(code, present);
        done.map_err(|error| format!("a library of functions cannot be loaded: {}", error.0))
    }

    fn delay(&self) {
        let delay_us = || self.arriving.server.config.current().key_load_delay_us;
        super::delay(1, delay_us, || self.arriving.server.is_shutting_down());
    }

    fn select(&mut self, db: u32) -> Result<(), String> {
        let databases = self.arriving.server.config.current().databases;
        if db >= databases {
            return Err(format!(
                "it has keys in database {db}, and 'databases' allows for {databases} only"
            ));
        }
        self.db = db;
        Ok(())
    }

    /// What a file says of itself goes to the log, as with Redis.
    fn aux(&self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        match name {
            b"redis-ver" => crate::log_notice!("Loading RDB produced by version {text}"),
            b"ctime" => {
                if let Ok(then) = text.parse::<i64>() {
                    let age_seconds = (self.arriving.now_ms / 1000 - then).max(0);
                    crate::log_notice!("RDB age {age_seconds} seconds");
                }
            }
            b"used-mem" => {
                if let Ok(bytes) = text.parse::<u64>() {
                    let loading = &self.arriving.server.durability.loading;
                    loading.used_memory_bytes.store(bytes, Ordering::Relaxed);
                    let megabytes = bytes as f64 / f64::from(1 << 20);
                    crate::log_notice!("RDB memory usage when created {megabytes:.2} Mb");
                }
            }
            _ => {}
        }
    }
}

/// Builds the values of runs and puts them in, beside others of its kind.
#[derive(Clone)]
struct Builder<'s> {
    arriving: Arriving<'s>,
    limits: Limits,
    parcels: Arc<Mutex<Receiver<Parcel>>>,
    /// Of the one that puts something in.
    turn: &'s Mutex<()>,
    spares: Sender<Vec<u8>>,
    /// The first byte where one of them has found something wrong. What comes behind it is dropped.
    failed_at: Arc<AtomicU64>,
}

/// What became of it.
struct Built {
    keys: u64,
    expired: u64,
    /// Where, and why.
    failure: Option<(u64, String)>,
}

impl Builder<'_> {
    fn build_all(mut self) -> Built {
        crate::memory::register_thread();
        let worker = self.arriving.server.own_worker();
        let mut failure = None;
        loop {
            let next = self.parcels.lock().recv();
            let Ok(parcel) = next else { break };
            let offset = match &parcel {
                Parcel::Expect(..) => 0,
                Parcel::Entries(offset, _) => *offset,
                Parcel::Run(_, run) => run.offset(),
            };
            if offset > self.failed_at.load(Ordering::Acquire) {
                continue;
            }
            let done = match parcel {
                Parcel::Expect(db, keys, expires) => self.alone(&worker, |txn| {
                    txn.expect_keys(db, keys, expires);
                    Ok(())
                }),
                Parcel::Entries(_, mut entries) => self.put_in(&worker, &mut entries),
                Parcel::Run(db, run) => self.run(&worker, db, run),
            };
            if let Err(why) = done {
                self.failed_at.fetch_min(offset, Ordering::AcqRel);
                failure.get_or_insert((offset, why));
            }
        }
        Built { keys: self.arriving.keys, expired: self.arriving.expired, failure }
    }

    fn run(&mut self, worker: &Worker, db: u32, run: Run) -> Result<(), String> {
        let mut reader = Reader::of_run(run, &self.limits);
        let mut batch = Vec::with_capacity(BATCH_KEYS);
        while let Some(item) = reader.item().map_err(|error| error.to_string())? {
            match item {
                Item::Key(key) => batch.extend(self.arriving.arrival(db, key)),
                Item::Empty(key) => self.arriving.pass_over(&key),
                _ => return Err("something else stands among the keys".into()),
            }
            if batch.len() == BATCH_KEYS {
                self.put_in(worker, &mut batch)?;
            }
        }
        self.put_in(worker, &mut batch)?;
        // Whoever wanted it may be done.
        let _ = self.spares.send(reader.into_buffer());
        Ok(())
    }

    fn put_in(&self, worker: &Worker, batch: &mut Vec<Arrival>) -> Result<(), String> {
        let replaces = self.arriving.part.replaces;
        self.alone(worker, |txn| {
            for arrival in batch.iter().filter(|_| replaces) {
                txn.select(arrival.db);
                txn.remove(arrival.entry.key());
            }
            txn.load(batch).map_err(|twice| {
                let key = twice.entry.key().escape_ascii().to_string();
                format!("it has the key '{key}' of database {} twice", twice.db)
            })
        })
    }

    /// Does something with the whole keyspace. The gates are free between two batches.
    fn alone<T>(&self, worker: &Worker, what: impl FnOnce(&mut Txn<'_>) -> T) -> T {
        let Arriving { server, part, now_ms, .. } = self.arriving;
        // Where the gates are held for all of them.
        let _turn = self.turn.lock();
        part.gates.enter(server);
        let mut txn = Txn::begin(&server.engine, worker, Plan::Exclusive, now_ms);
        let done = what(&mut txn);
        txn.commit();
        part.gates.leave(server);
        done
    }
}

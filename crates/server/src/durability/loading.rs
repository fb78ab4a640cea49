//! Loading what was saved, while clients are told to wait.
//!
//! The file is read and its values are built on one thread, and another one puts them into the
//! keyspace; workers run meanwhile and refuse what is not allowed yet. What is in a file is
//! `persist`'s to know.

use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use command::Error;
use engine::{Arrival, Entry, Plan, Txn, access};
use persist::aof::{Directory, Folder};
use persist::rdb::{Item, Key, Reader};

use super::replay;
use crate::config::reason;
use crate::server::{Server, unix_ms};

/// Entries put in under one hold of all gates, and their rough size.
const BATCH_KEYS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait to be put in.
const BATCHES: usize = 4;
/// How often the log tells how far it is.
const REPORT_PERIOD: Duration = Duration::from_secs(5);
/// A key takes more of a file than this: what a file says of its keys is believed up to there.
const KEY_BYTES_MIN: u64 = 6;

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
            Some(directory) => replay::load(server, &directory).map(|torn| Some((directory, torn))),
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
    let part = Part { before_bytes: 0, bytes, drops_expired: true };
    let mut reader = Reader::new(file, &crate::settings::of(&config).limits)
        .map_err(|error| failed(path, &error))?;
    keys(server, &mut reader, &part).map_err(|error| failed(path, &error))?;
    crate::log_notice!("DB loaded from disk: {:.3} seconds", started.elapsed().as_secs_f64());
    Ok(())
}

/// Loads all keys that a reader has. Clients must have been told to wait. The error is for the user.
pub fn keys<R: Read>(server: &Server, reader: &mut Reader<R>, part: &Part) -> Result<(), String> {
    let loading = &server.durability.loading;
    let now_ms = unix_ms();
    let (sender, receiver) = sync_channel::<Batch>(BATCHES);
    let (keys, expired) = thread::scope(|scope| {
        let inserting = thread::Builder::new()
            .name("load".into())
            .spawn_scoped(scope, move || insert_all(server, receiver, now_ms))
            .map_err(|error| error.to_string())?;
        let is_delayed = server.config.current().key_load_delay_us != 0;
        let mut from = Unpacking { server, part, now_ms, is_delayed, db: 0, keys: 0, expired: 0 };
        let read = from.send_all(reader, |batch| sender.send(batch).is_ok());
        drop(sender);
        let inserted = inserting.join().map_err(|_| "a thread panicked".to_owned())?;
        inserted.and(read).map(|()| (from.keys, from.expired))
    })?;
    loading.keys_loaded.store(keys, Ordering::Relaxed);
    loading.keys_expired.store(expired, Ordering::Relaxed);
    crate::log_notice!("Done loading RDB, keys loaded: {keys}, keys expired: {expired}.");
    Ok(())
}

/// What goes from the reading thread to the other.
enum Batch {
    /// So many keys of a database will come, and so many of them expire.
    Expect(u32, usize, usize),
    Entries(Vec<Arrival>),
}

struct Unpacking<'s> {
    server: &'s Server,
    part: &'s Part,
    now_ms: i64,
    /// By `key-load-delay`, as it was in the beginning.
    is_delayed: bool,
    db: u32,
    keys: u64,
    expired: u64,
}

impl Unpacking<'_> {
    /// Reads to the end, unless the other side is gone or the server is to end.
    fn send_all<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        mut send: impl FnMut(Batch) -> bool,
    ) -> Result<(), String> {
        let loading = &self.server.durability.loading;
        let (mut batch, mut batch_start) = (Vec::with_capacity(BATCH_KEYS), 0);
        let mut reported = Instant::now();
        while let Some(item) = reader.item().map_err(|error| error.to_string())? {
            match item {
                Item::Key(key) => {
                    if self.is_delayed {
                        self.delay();
                    }
                    batch.extend(self.arrival(key));
                }
                Item::Aux { name, value } => self.note(&name, &value),
                Item::Select(db) => self.select(db)?,
                Item::Resize { keys, expires } => {
                    let believed = self.part.bytes / KEY_BYTES_MIN;
                    let count = |count: u64| count.min(believed) as usize;
                    send(Batch::Expect(self.db, count(keys), count(expires)));
                }
                Item::Function(_) => {
                    return Err("it has a library of functions, which are not supported".into());
                }
                Item::Skipped(what) => crate::log_warning!("Not loaded: {what}"),
            }
            let offset = reader.offset();
            if batch.len() < BATCH_KEYS && offset - batch_start < BATCH_BYTES as u64 {
                continue;
            }
            batch_start = offset;
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_KEYS));
            if !send(Batch::Entries(full)) || self.server.is_shutting_down() {
                return Ok(());
            }
            loading.advance(self.part.before_bytes + offset);
            if reported.elapsed() >= REPORT_PERIOD {
                reported = Instant::now();
                let Progress { percent, eta_seconds, .. } = loading.progress();
                crate::log_notice!("Loading: {percent:.2}% done, about {eta_seconds} seconds left");
            }
        }
        loading.advance(self.part.before_bytes + reader.offset());
        send(Batch::Entries(batch));
        Ok(())
    }

    fn delay(&self) {
        let delay_us = || self.server.config.current().key_load_delay_us;
        super::delay(1, delay_us, || self.server.is_shutting_down());
    }

    fn select(&mut self, db: u32) -> Result<(), String> {
        let databases = self.server.config.current().databases;
        if db >= databases {
            return Err(format!(
                "it has keys in database {db}, and 'databases' allows for {databases} only"
            ));
        }
        self.db = db;
        Ok(())
    }

    fn arrival(&mut self, key: Key) -> Option<Arrival> {
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
        Some(Arrival { db: self.db, hash, entry })
    }

    /// What a file says of itself goes to the log, as with Redis.
    fn note(&self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        match name {
            b"redis-ver" => crate::log_notice!("Loading RDB produced by version {text}"),
            b"ctime" => {
                if let Ok(then) = text.parse::<i64>() {
                    let age_seconds = (self.now_ms / 1000 - then).max(0);
                    crate::log_notice!("RDB age {age_seconds} seconds");
                }
            }
            b"used-mem" => {
                if let Ok(bytes) = text.parse::<u64>() {
                    let loading = &self.server.durability.loading;
                    loading.used_memory_bytes.store(bytes, Ordering::Relaxed);
                    let megabytes = bytes as f64 / f64::from(1 << 20);
                    crate::log_notice!("RDB memory usage when created {megabytes:.2} Mb");
                }
            }
            _ => {}
        }
    }
}

/// Puts in what comes. The gates are free between two batches.
fn insert_all(server: &Server, batches: Receiver<Batch>, now_ms: i64) -> Result<(), String> {
    crate::memory::register_thread();
    let worker = server.own_worker();
    let gates = server.engine.gates();
    for batch in batches {
        if !gates.enter_all(None, || false) {
            unreachable!("it waits for as long as it takes");
        }
        let mut txn = Txn::begin(&server.engine, &worker, Plan::Exclusive, now_ms);
        let done = match batch {
            Batch::Expect(db, keys, expires) => {
                txn.expect_keys(db, keys, expires);
                Ok(())
            }
            Batch::Entries(mut entries) => txn.load(&mut entries).map_err(|twice| {
                let key = twice.entry.key().escape_ascii().to_string();
                format!("it has the key '{key}' of database {} twice", twice.db)
            }),
        };
        txn.commit();
        // SAFETY: entered above, on this thread.
        unsafe { gates.leave_all() };
        done?;
    }
    Ok(())
}

//! Writing the keyspace to an RDB file: under all gates (SAVE, SHUTDOWN), in one go.
//!
//! A file is written beside the old one, synced, and takes its name; the folder is synced as well.
//! So whatever happens, the old file or the new one is there, whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use command::Error;
use engine::{Entry, Plan, Txn, Worker, access};
use persist::rdb::{Access, Version, Writer};

use crate::REDIS_VERSION;
use crate::config::{Config, RdbVersion, reason};
use crate::memory;
use crate::server::{Server, unix_ms};

const MISCONF: Error = Error::of(
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
     disk. Commands that may modify the data set are disabled, because this instance is configured \
     to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). \
     Please check the Redis logs for details about the RDB error.",
);

/// What became of the saves so far.
pub struct Saves {
    /// The last one in the background failed.
    has_failed: AtomicBool,
    /// Unix time of the last that succeeded, or of the start.
    last_seconds: AtomicI64,
    /// Changes counted when that one began.
    changes_before: AtomicU64,
    count: AtomicU64,
}

impl Default for Saves {
    fn default() -> Saves {
        Saves {
            has_failed: AtomicBool::new(false),
            last_seconds: AtomicI64::new(unix_ms() / 1000),
            changes_before: AtomicU64::new(0),
            count: AtomicU64::new(0),
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
    let write = |file: &mut File| {
        let mut writer = begin(file, &config, false)?;
        write_all(&mut writer, txn, worker)?;
        writer.finish().map(drop)
    };
    match replace_file(path, write) {
        Ok(()) => {
            crate::log_notice!("DB saved on disk");
            server.durability.saves.succeeded(changes_before);
            Ok(())
        }
        Err(error) => {
            let folder = std::env::current_dir().unwrap_or_default();
            crate::log_warning!(
                "Failed to save the DB as '{}' in '{}': {}",
                path.display(),
                folder.display(),
                reason(&error)
            );
            Err(error)
        }
    }
}

/// The same for whoever holds all gates and has no transaction.
pub fn at_shutdown(server: &Server) -> io::Result<()> {
    let worker = server.own_worker();
    let mut txn = Txn::begin(&server.engine, &worker, Plan::Exclusive, unix_ms());
    let done = in_foreground(server, &mut txn, &worker);
    txn.commit();
    done
}

/// Begins a file with what it says of itself.
pub fn begin<W: Write>(to: W, config: &Config, is_aof_base: bool) -> io::Result<Writer<W>> {
    let version = match config.rdb_version {
        RdbVersion::V10 => Version::V10,
        RdbVersion::V11 => Version::V11,
    };
    let mut writer = Writer::new(to, version, config.rdbcompression, config.rdbchecksum);
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

/// Writes all keys. The transaction is exclusive.
pub fn write_all<W: Write>(
    writer: &mut Writer<W>,
    txn: &mut Txn<'_>,
    worker: &Worker,
) -> io::Result<()> {
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
                let access = access_of(entry, worker, now_ms);
                done = writer.key(entry.key(), entry.get(), entry.expire_at_ms(), access);
            }
        });
    }
    txn.select(home);
    done
}

/// A file on its way to its name; removed if it does not get there.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nobody misses it; what went wrong before is the error to be told.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a file beside the one of this name, which it replaces once it is safe on the disk.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // `dir` may change before the end.
    let path = std::path::absolute(path)?;
    let temporary = path.with_file_name(format!("temp-{}.rdb", std::process::id()));
    let mut file = File::create(&temporary)?;
    let unfinished = Unfinished(temporary);
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&unfinished.0, &path)?;
    std::mem::forget(unfinished);
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

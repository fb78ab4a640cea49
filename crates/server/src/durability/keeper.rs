//! The thread that writes the append-only file, and syncs it as `appendfsync` says.
//!
//! A write that fails (a full disk) is taken back to the end of the last whole block and tried again
//! until it succeeds; what came meanwhile waits. After a sync that failed nothing is known of the
//! file: it is not trusted any more, and its data is written anew (`aof.rs`). Either way commands that
//! change something are refused until all is well.
//!
//! Generic over the disk, so that tests can put one in its place that fails.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use persist::aof::{Append, Buffer, Directory, Disk, Log, Rewrite, Writer};

use super::journal::{Batch, Journal, Patience};
use crate::config::{Appendfsync, ConfigView, reason};
use crate::server::unix_ms;

const SYNC_PERIOD: Duration = Duration::from_secs(1);
/// The part of a sync's time that the next one is put off for, if that makes it one for more.
const PATIENCE_DIVISOR: u32 = 4;
const PATIENCE_MAX: Duration = Duration::from_millis(5);
/// How soon what failed is tried again.
const RETRY_PERIOD: Duration = Duration::from_millis(100);
const REWRITE_RETRY_PERIOD: Duration = Duration::from_secs(1);
/// How soon a rewrite that failed is begun again because the file has grown.
const AUTO_REWRITE_PERIOD: Duration = Duration::from_secs(60);
/// A buffer that has become larger is given back.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// What the keeper can be told to do, at its place among the blocks.
pub enum Order<D: Disk> {
    /// The blocks behind it come after a new base, which is about to be written. A directory comes
    /// along when there is none yet.
    Begin {
        directory: Option<Directory<D>>,
        answer: Sender<io::Result<Rewrite<D::File>>>,
    },
    /// The new base is whole and synced, so many bytes long.
    Finish {
        rewrite: Rewrite<D::File>,
        base_bytes: u64,
        is_rdb: bool,
        /// The blocks are wanted that came since.
        keeps_blocks: bool,
        answer: Sender<io::Result<()>>,
    },
    Abandon(Rewrite<D::File>),
    /// Somebody is about to read the files.
    Write(Sender<io::Result<()>>),
    /// Removes files that no longer count, and tells when that is done.
    CollectGarbage(Sender<()>),
    /// Nothing is logged any more.
    Close,
    /// The process ends.
    Stop,
}

impl<D: Disk> Order<D> {
    /// Whether it makes what waits to be written needless, or cannot wait for that.
    fn overtakes(&self) -> bool {
        matches!(self, Order::Begin { .. } | Order::Close | Order::Stop)
    }
}

/// For INFO, and for those who want to know how the keeper does.
#[derive(Default)]
pub struct Report {
    /// The file is kept: base and incremental files hold all data.
    pub is_on: AtomicBool,
    pub base_bytes: AtomicU64,
    pub current_bytes: AtomicU64,
    pub has_failed: AtomicBool,
    pub is_rewriting: AtomicBool,
    /// DEBUG AOF-FLUSH-SLEEP: what every write takes longer.
    pub write_delay_us: AtomicU64,
    pub rewrites: AtomicU64,
}

/// Room that is made ahead in the file while every write is synced: see [`Log`].
#[derive(Clone, Copy)]
struct Room {
    /// Not before so many bytes were written to a file.
    after_bytes: u64,
    /// When less than this is left.
    least_bytes: u64,
    /// So much at once.
    more_bytes: u64,
}

const ROOM: Room = Room { after_bytes: 1 << 20, least_bytes: 256 << 10, more_bytes: 2 << 20 };
/// When writes go past the system's cache.
#[derive(Clone, Copy)]
struct Direct {
    /// So much at once is worth that, and so much once they do.
    from_bytes: usize,
    least_bytes: usize,
    /// More would be in nobody's hands but ours for too long.
    most_bytes: usize,
    /// How long they go through the cache after one was too small.
    pause: Duration,
}

const DIRECT: Direct = Direct {
    from_bytes: 256 << 10,
    least_bytes: 32 << 10,
    most_bytes: 16 << 20,
    pause: Duration::from_millis(100),
};
/// A write past the cache that takes so long is one to a disk that is slow or busy, and the next ones
/// go through the cache: what is there survives the process.
const DIRECT_TIME_MAX: Duration = Duration::from_millis(100);
const SLOW_DISK_PAUSE: Duration = Duration::from_secs(10);

/// How long none is made after that has failed.
const ROOM_RETRY_PERIOD: Duration = Duration::from_secs(10);

/// The file that is written to.
enum File<F> {
    None,
    Open(Log<F>),
    /// A write failed: what came behind the last whole block is to be cut off first.
    Frayed,
    /// A sync failed, or what it lacks was dropped. It is not written to any more.
    Lost,
}

pub struct Keeper<D: Disk> {
    journal: Arc<Journal<Order<D>>>,
    report: Arc<Report>,
    config: ConfigView,
    /// Wakes a worker.
    wake: Box<dyn Fn(usize) + Send>,
    /// Has a rewrite begun.
    rewrite: Box<dyn Fn() + Send>,
    directory: Option<Directory<D>>,
    file: File<D::File>,
    /// Its name.
    name: String,
    /// Bytes of it that are whole blocks.
    file_bytes: u64,
    /// How many there were when it was opened.
    opened_bytes: u64,
    room: Room,
    /// None is made before.
    room_from: Instant,
    room_retry_period: Duration,
    direct: Direct,
    /// None goes past the cache before; `None` if the file cannot.
    direct_from: Option<Instant>,
    /// To be written.
    out: Buffer,
    writer: Writer,
    /// The last block that was taken, and the last one written.
    taken: u64,
    written: u64,
    /// Since when there is something to sync.
    unsynced_since: Option<Instant>,
    last_sync: Instant,
    /// The file begins a new log whose base is not there yet: what is in it is not safe.
    is_provisional: bool,
    /// When to ask for a rewrite: the log needs one.
    needs_rewrite_at: Option<Instant>,
    auto_rewrite_from: Instant,
    trouble_logged: Option<Instant>,
    /// The batch at hand has an order that makes what comes before it needless.
    is_overtaken: bool,
    retry_period: Duration,
    patience: Patience,
    /// Told of each write and sync, for the latency monitor.
    pub note: Box<dyn Fn(&'static str, Duration) + Send>,
}

impl<D: Disk> Keeper<D> {
    pub fn new(
        journal: Arc<Journal<Order<D>>>,
        report: Arc<Report>,
        config: ConfigView,
        wake: Box<dyn Fn(usize) + Send>,
        rewrite: Box<dyn Fn() + Send>,
    ) -> Keeper<D> {
        let now = Instant::now();
        Keeper {
            journal,
            report,
            config,
            wake,
            rewrite,
            directory: None,
            file: File::None,
            name: String::new(),
            file_bytes: 0,
            opened_bytes: 0,
            room: ROOM,
            room_from: now,
            room_retry_period: ROOM_RETRY_PERIOD,
            direct: DIRECT,
            direct_from: Some(now),
            out: Buffer::default(),
            writer: Writer::default(),
            taken: 0,
            written: 0,
            unsynced_since: None,
            last_sync: now,
            is_provisional: false,
            needs_rewrite_at: None,
            auto_rewrite_from: now,
            trouble_logged: None,
            is_overtaken: false,
            retry_period: RETRY_PERIOD,
            patience: Patience::default(),
            note: Box::new(|_, _| {}),
        }
    }

    /// Goes on with the files that were loaded. What is in them is safe before anything else is.
    pub fn go_on(&mut self, directory: Directory<D>, mut file: D::File) -> io::Result<()> {
        file.sync()?;
        let (base_bytes, incremental_bytes) = directory.bytes()?;
        let name = directory.current_name(None).unwrap_or_default().to_owned();
        self.file_bytes = directory.disk().bytes(&name)?;
        self.report.base_bytes.store(base_bytes + incremental_bytes, Ordering::Relaxed);
        self.report.current_bytes.store(base_bytes + incremental_bytes, Ordering::Relaxed);
        self.report.is_on.store(true, Ordering::Relaxed);
        self.directory = Some(directory);
        self.opened_bytes = self.file_bytes;
        self.file = File::Open(Log::new(file, self.file_bytes));
        self.name = name;
        self.writer = Writer::new(self.config.aof_timestamp_enabled);
        self.apply_policy();
        Ok(())
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        let mut spare = Buffer::default();
        loop {
            let spare_now = std::mem::take(&mut spare);
            let mut batch = self.journal.next(self.due(), spare_now, self.patience);
            if self.config.refresh() {
                self.writer = Writer::new(self.config.aof_timestamp_enabled);
            }
            self.apply_policy();
            let goes_on = self.process(&mut batch);
            self.journal.note_written(batch.last);
            if !goes_on {
                return;
            }
            self.look_around();
            spare = batch.bytes;
            spare.clear();
            spare.shrink_to(KEPT_BYTES_MAX);
        }
    }

    /// When there is something to do though nothing comes.
    fn due(&self) -> Option<Instant> {
        let sync = match self.policy() {
            Appendfsync::Everysec => self.unsynced_since.map(|_| self.last_sync + SYNC_PERIOD),
            _ => None,
        };
        let is_rewriting = self.report.is_rewriting.load(Ordering::Relaxed);
        let rewrite = self.needs_rewrite_at.filter(|_| !is_rewriting);
        [sync, rewrite].into_iter().flatten().min()
    }

    /// Syncs when, as things are.
    fn policy(&self) -> Appendfsync {
        let rewrites = self.report.is_rewriting.load(Ordering::Relaxed);
        match self.config.no_appendfsync_on_rewrite && rewrites {
            true => Appendfsync::No,
            false => self.config.appendfsync,
        }
    }

    fn apply_policy(&self) {
        let is_kept = !self.is_provisional && self.report.is_on.load(Ordering::Relaxed);
        self.journal.set_holds_replies(is_kept && self.policy() == Appendfsync::Always);
    }

    fn wake(&self, workers: Vec<usize>) {
        workers.into_iter().for_each(|worker| (self.wake)(worker));
    }

    /// Writes a batch and follows its orders. False when the process ends.
    fn process(&mut self, batch: &mut Batch<Order<D>>) -> bool {
        let mut from = 0;
        self.patience = Patience { blocks: batch.count, wait: Duration::ZERO };
        let mut orders = std::mem::take(&mut batch.orders).into_iter();
        while let Some(order) = orders.next() {
            self.is_overtaken = order.what.overtakes()
                || orders.as_slice().iter().any(|order| order.what.overtakes());
            self.put_time(order.at > from);
            self.take(&batch.bytes[from..order.at], order.last);
            from = order.at;
            if !self.follow(order.what) {
                return false;
            }
        }
        self.is_overtaken = false;
        self.put_time(batch.bytes.len() > from);
        if from == 0 && self.out.is_empty() && self.keeps_blocks() {
            std::mem::swap(&mut self.out, &mut batch.bytes);
            self.taken = batch.last;
        } else {
            self.take(&batch.bytes[from..], batch.last);
        }
        self.write_or_wait();
        let is_due = match self.policy() {
            Appendfsync::Always => true,
            Appendfsync::Everysec => self.last_sync.elapsed() >= SYNC_PERIOD,
            Appendfsync::No => false,
        };
        if is_due || batch.wants_sync {
            self.sync();
        }
        self.see_to_room();
        true
    }

    /// Makes room for the writes to come, or gives it back when it is not needed.
    fn see_to_room(&mut self) {
        let is_wanted = self.policy() == Appendfsync::Always;
        let is_synced = self.unsynced_since.is_none();
        let File::Open(log) = &mut self.file else { return };
        if !is_wanted {
            if let Err(error) = log.cut_room() {
                self.deny(&error, "syncing");
                self.lose();
            }
        } else if is_synced
            && log.room_bytes() < self.room.least_bytes
            && log.len_bytes() - self.opened_bytes >= self.room.after_bytes
            && self.room_from <= Instant::now()
        {
            let made = log.make_room(self.room.more_bytes);
            self.file_bytes = log.len_bytes();
            if made.is_ok() {
                // Before it is written over: so there is nothing else where a frame begins.
                self.unsynced_since = Some(Instant::now());
                self.sync();
            } else {
                // Nobody needs it. What there is of it is cut off with the next write.
                self.file = File::Frayed;
                self.room_from = Instant::now() + self.room_retry_period;
            }
        }
    }

    fn keeps_blocks(&self) -> bool {
        !matches!(self.file, File::None | File::Lost)
    }

    /// Takes blocks, up to the one of this number.
    fn take(&mut self, blocks: &[u8], last: u64) {
        if self.keeps_blocks() {
            self.out.tail().extend_from_slice(blocks);
        }
        self.taken = last;
    }

    /// Says what time it is if blocks follow.
    fn put_time(&mut self, blocks_follow: bool) {
        if blocks_follow && self.keeps_blocks() {
            self.writer.time(unix_ms() / 1000, self.out.tail());
        }
    }

    /// Writes what there is, and does not come back before that has succeeded, or is no longer
    /// needed.
    fn write_or_wait(&mut self) {
        while let Err(error) = self.write() {
            self.deny(&error, "writing");
            if self.is_provisional || matches!(self.file, File::Lost) {
                self.lose();
                return;
            }
            // Only orders can change what is to be done.
            let patience = if self.is_overtaken { Duration::ZERO } else { self.retry_period };
            let orders = self.journal.orders_within(patience, Order::overtakes);
            if self.is_overtaken || orders.contains_overtaking {
                self.lose();
                return;
            }
            for order in orders.others {
                self.follow(order);
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if let (File::Frayed, Some(directory)) = (&self.file, &self.directory) {
            let cut = directory.cut_back(&self.name, self.file_bytes);
            self.file = File::Lost;
            self.file = File::Open(Log::new(cut?, self.file_bytes));
        }
        if let File::Open(log) = &self.file
            && log.needs_sync()
            && !self.out.is_empty()
        {
            self.sync();
        }
        let goes_direct = self.goes_direct()?;
        if let File::Open(log) = &mut self.file
            && !self.out.is_empty()
        {
            let began = Instant::now();
            let delay_us = self.report.write_delay_us.load(Ordering::Relaxed);
            if delay_us > 0 {
                std::thread::sleep(Duration::from_micros(delay_us));
            }
            if !goes_direct && log.is_direct() {
                self.direct_from = Some(began + self.direct.pause);
            }
            let written = match goes_direct {
                true => log.write_direct(&mut self.out).and_then(|is_possible| {
                    if is_possible {
                        return Ok(());
                    }
                    self.direct_from = None;
                    log.write(&self.out)
                }),
                false => log.write(&self.out),
            };
            if let Err(error) = written {
                return Err(self.fray(error));
            }
            if goes_direct && began.elapsed() > DIRECT_TIME_MAX {
                self.direct_from = self.direct_from.map(|_| began + SLOW_DISK_PAUSE);
            }
            let is_rewriting = self.report.is_rewriting.load(Ordering::Relaxed);
            (self.note)("aof-write", began.elapsed());
            let which = if is_rewriting { "aof-write-active-child" } else { "aof-write-alone" };
            (self.note)(which, began.elapsed());
            self.note_growth();
            self.unsynced_since.get_or_insert_with(Instant::now);
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES_MAX);
        }
        self.written = self.taken;
        self.journal.note_written(self.written);
        if self.trouble_logged.is_some()
            && matches!(self.file, File::Open(_))
            && !self.is_provisional
        {
            crate::log_warning!("AOF write error looks solved. The server can write again.");
            self.recover();
        }
        Ok(())
    }

    /// Whether what is to be written goes past the system's cache: not if somebody waits for every
    /// write, or nobody wants syncs, without which nothing may. What stands before it is synced then.
    fn goes_direct(&mut self) -> io::Result<bool> {
        let is_wanted = self.policy() == Appendfsync::Everysec;
        let is_time = self.direct_from.is_some_and(|from| from <= Instant::now());
        let File::Open(log) = &mut self.file else { return Ok(false) };
        let Direct { from_bytes, least_bytes, most_bytes, .. } = self.direct;
        let least_bytes = if log.is_direct() { least_bytes } else { from_bytes };
        if !is_wanted
            || !is_time
            || log.room_bytes() > 0
            || !(least_bytes..=most_bytes).contains(&self.out.len())
        {
            return Ok(false);
        }
        if log.may_go_direct() {
            return Ok(true);
        }
        let filled = log.fill_up();
        self.note_growth();
        if let Err(error) = filled {
            return Err(self.fray(error));
        }
        self.unsynced_since.get_or_insert_with(Instant::now);
        self.sync();
        Ok(matches!(self.file, File::Open(_)))
    }

    /// A write has failed.
    fn fray(&mut self, error: io::Error) -> io::Error {
        if let File::Open(log) = &mut self.file {
            // Nobody else will ask whether what was written before is safe.
            let is_safe = self.unsynced_since.is_none() || log.sync().is_ok();
            self.file = if is_safe { File::Frayed } else { File::Lost };
        }
        error
    }

    /// The file has become longer.
    fn note_growth(&mut self) {
        let File::Open(log) = &self.file else { return };
        let bytes = log.len_bytes() - self.file_bytes;
        self.file_bytes += bytes;
        self.report.current_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sync(&mut self) {
        let File::Open(log) = &mut self.file else { return };
        self.last_sync = Instant::now();
        if self.unsynced_since.take().is_some() {
            self.journal.note_sync(true);
            let synced = log.sync();
            self.journal.note_sync(false);
            if self.policy() == Appendfsync::Always {
                (self.note)("aof-fsync-always", self.last_sync.elapsed());
            }
            let part = self.last_sync.elapsed() / PATIENCE_DIVISOR;
            self.patience.wait = part.min(PATIENCE_MAX);
            if let Err(error) = synced {
                self.deny(&error, "syncing");
                self.lose();
                return;
            }
        }
        if !self.is_provisional {
            self.wake(self.journal.set_durable(self.written));
        }
    }

    /// Commands that change something are refused from here on.
    fn deny(&mut self, error: &io::Error, what: &str) {
        let text = reason(error);
        let now = Instant::now();
        if self.trouble_logged.is_none_or(|at| now - at > Duration::from_secs(30)) {
            crate::log_warning!(
                "Error {what} the AOF file {}: {text}. Commands that change data are refused until \
                 that is over.",
                self.name
            );
            self.trouble_logged = Some(now);
        }
        // Where there is no log yet, none is needed.
        if self.report.is_on.load(Ordering::Relaxed) {
            self.report.has_failed.store(true, Ordering::Relaxed);
            self.wake(self.journal.deny(text));
        }
    }

    /// The file is not trusted any more: the data is to be written anew.
    fn lose(&mut self) {
        self.file = File::Lost;
        self.out.clear();
        self.unsynced_since = None;
        self.needs_rewrite_at = Some(Instant::now());
    }

    fn recover(&mut self) {
        self.trouble_logged = None;
        self.report.has_failed.store(false, Ordering::Relaxed);
        self.journal.allow();
    }

    /// False when the process ends.
    fn follow(&mut self, order: Order<D>) -> bool {
        match order {
            Order::Begin { directory, answer } => {
                self.directory = directory.or(self.directory.take());
                let begun = self.begin();
                if begun.is_ok() {
                    self.report.is_rewriting.store(true, Ordering::Relaxed);
                }
                if let Err(std::sync::mpsc::SendError(Ok(rewrite))) = answer.send(begun) {
                    self.abandon(rewrite);
                }
            }
            Order::Finish { rewrite, base_bytes, is_rdb, keeps_blocks, answer } => {
                // Whoever waits for the answer may be gone: it is in the log as well.
                let _ = answer.send(self.finish(rewrite, base_bytes, is_rdb, keeps_blocks));
            }
            Order::Abandon(rewrite) => self.abandon(rewrite),
            Order::Write(answer) => {
                // Whoever waits may have given up.
                let _ = answer.send(self.write());
            }
            Order::CollectGarbage(answer) => {
                self.collect_garbage();
                let _ = answer.send(());
            }
            Order::Close => {
                match self.write() {
                    Ok(()) => self.sync(),
                    Err(error) => {
                        crate::log_warning!("The AOF file lacks its end: {}", reason(&error));
                    }
                }
                self.close();
            }
            Order::Stop => {
                // Without a further try: somebody waits for the end.
                let written = self.write();
                if let Err(error) = written {
                    crate::log_warning!("The AOF file lacks its end: {}", reason(&error));
                } else if !self.is_provisional {
                    self.sync();
                }
                self.cut_room();
                return false;
            }
        }
        self.apply_policy();
        true
    }

    fn cut_room(&mut self) {
        if let File::Open(log) = &mut self.file
            && let Err(error) = log.cut_room()
        {
            crate::log_warning!("The AOF file ends in room for more: {}", reason(&error));
        }
    }

    fn close(&mut self) {
        self.cut_room();
        self.file = File::None;
        self.directory = None;
        self.is_provisional = false;
        self.needs_rewrite_at = None;
        self.report.is_on.store(false, Ordering::Relaxed);
        self.recover();
        self.wake(self.journal.set_durable(self.taken));
    }

    fn begin(&mut self) -> io::Result<Rewrite<D::File>> {
        if matches!(self.file, File::Open(_) | File::Frayed) && !self.is_provisional {
            // What comes behind counts only with what came before.
            match self.write() {
                Ok(()) => self.sync(),
                Err(error) => {
                    // What it lacks is in no other file: nobody is to be told that it is safe.
                    self.deny(&error, "writing");
                    self.lose();
                }
            }
        }
        let Some(directory) = &mut self.directory else {
            return Err(io::Error::other("there is no directory for it"));
        };
        let rewrite = match &mut self.file {
            File::Open(log) if !self.is_provisional => {
                if let Err(error) = log.cut_room() {
                    // What is there is synced. Where it ends is not known.
                    self.file = File::Frayed;
                    return Err(error);
                }
                let rewrite = directory.begin_rewrite(log.file())?;
                log.begin_again();
                rewrite
            }
            _ => {
                let (rewrite, file) = directory.begin_anew()?;
                self.file = File::Open(Log::new(file, 0));
                self.is_provisional = true;
                self.out.clear();
                self.written = self.taken;
                rewrite
            }
        };
        self.name = directory.current_name(Some(&rewrite)).unwrap_or_default().to_owned();
        self.writer = Writer::new(self.config.aof_timestamp_enabled);
        (self.file_bytes, self.opened_bytes) = (0, 0);
        self.unsynced_since = None;
        self.needs_rewrite_at = None;
        Ok(rewrite)
    }

    fn finish(
        &mut self,
        rewrite: Rewrite<D::File>,
        base_bytes: u64,
        is_rdb: bool,
        keeps_blocks: bool,
    ) -> io::Result<()> {
        self.report.is_rewriting.store(false, Ordering::Relaxed);
        if self.is_provisional {
            // It counts only with its beginning.
            match self.write() {
                Ok(()) => self.sync(),
                Err(error) => {
                    // What it lacks is in no other file: nobody is to be told that it is safe.
                    self.deny(&error, "writing");
                    self.lose();
                }
            }
        }
        let (Some(directory), File::Open(_) | File::Frayed) = (&mut self.directory, &self.file)
        else {
            // Its new beginning was lost meanwhile.
            self.abandon(rewrite);
            return Err(io::Error::other("the new incremental file cannot be written"));
        };
        if let Err(error) = directory.finish_rewrite(rewrite, is_rdb, keeps_blocks) {
            // The manifest names the old files or the new ones. Both end in the one that is written
            // to, unless that one was to begin a new log.
            self.auto_rewrite_from = Instant::now() + AUTO_REWRITE_PERIOD;
            if std::mem::take(&mut self.is_provisional) {
                self.lose();
                self.needs_rewrite_at = Some(Instant::now() + REWRITE_RETRY_PERIOD);
            }
            return Err(error);
        }
        // It may have got its name only now.
        self.name = directory.current_name(None).unwrap_or_default().to_owned();
        if !self.config.aof_disable_auto_gc {
            self.collect_garbage();
        }
        let bytes = base_bytes + self.file_bytes;
        self.report.base_bytes.store(bytes, Ordering::Relaxed);
        self.report.current_bytes.store(bytes, Ordering::Relaxed);
        self.report.is_on.store(true, Ordering::Relaxed);
        if std::mem::take(&mut self.is_provisional) {
            self.recover();
            self.wake(self.journal.set_durable(self.written));
        }
        Ok(())
    }

    fn collect_garbage(&mut self) {
        let forgotten = self.directory.as_mut().map_or(Ok(()), |it| it.forget_history());
        if let Err(error) = forgotten {
            crate::log_warning!("Can't remove old AOF files: {}", reason(&error));
        }
    }

    fn abandon(&mut self, rewrite: Rewrite<D::File>) {
        self.report.is_rewriting.store(false, Ordering::Relaxed);
        self.auto_rewrite_from = Instant::now() + AUTO_REWRITE_PERIOD;
        let Some(directory) = &mut self.directory else { return };
        if let Err(error) = directory.abandon_rewrite(rewrite) {
            crate::log_warning!("Can't remove what a rewrite left: {}", reason(&error));
        }
        if std::mem::take(&mut self.is_provisional) {
            crate::log_notice!("Removing the temp incr aof file: its rewrite came to nothing");
            self.lose();
            self.needs_rewrite_at = Some(Instant::now() + REWRITE_RETRY_PERIOD);
        }
    }

    /// Has a rewrite begun if it is time for one.
    fn look_around(&mut self) {
        let now = Instant::now();
        if self.report.is_rewriting.load(Ordering::Relaxed) {
            return;
        }
        if self.needs_rewrite_at.is_some_and(|at| at <= now) {
            // Should it come to nothing, it is asked for again.
            self.needs_rewrite_at = Some(now + REWRITE_RETRY_PERIOD);
            (self.rewrite)();
        }
        let current_bytes = self.report.current_bytes.load(Ordering::Relaxed);
        let base_bytes = self.report.base_bytes.load(Ordering::Relaxed).max(1);
        let percentage = u64::from(self.config.auto_aof_rewrite_percentage);
        let grown = current_bytes.saturating_sub(base_bytes).saturating_mul(100) / base_bytes;
        if matches!(self.file, File::Open(_))
            && !self.is_provisional
            && percentage > 0
            && current_bytes > self.config.auto_aof_rewrite_min_size_bytes
            && grown >= percentage
            && self.auto_rewrite_from <= now
        {
            crate::log_notice!("Starting automatic rewriting of AOF on {grown}% growth");
            self.auto_rewrite_from = now + REWRITE_RETRY_PERIOD;
            (self.rewrite)();
        }
    }
}

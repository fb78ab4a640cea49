//! Snapshots: the whole keyspace as it was at one moment, written out while it goes on changing.
//!
//! A snapshot begins under all gates, when no transaction is under way. It turns the *epoch* over,
//! one bit: from then on an entry whose bit is another is of before and not saved yet. A walk
//! saves entries shard by shard, in short holds of their locks, and sets their bits; the door
//! saves an entry of before ahead of its first change, whatever that is (removal, expiry, eviction
//! and renaming too). So each entry is saved once, as it was at the beginning. What is made later
//! gets the bit at once. FLUSHALL hands whole tables over to the walk; a table knows itself how far
//! it was walked and which database it belonged to, so SWAPDB changes nothing.
//!
//! Long values are saved in parts, between which the lock is free. One that is removed or replaced
//! goes to the walk as it is, from the undo log when the transaction is to stay. A change of one needs
//! the rest saved first: the server has commands wait outside of all locks until the walk is through
//! with it ([`Txn::is_long_unsaved`]), and scripts, which touch what they like, save it in parts
//! themselves ([`Txn::save_part`]). Only what does neither has it saved in one go.
//!
//! A rollback needs nothing: what it puts back was saved before it was changed, or is as it was, bit
//! and all. There is no step without a lock: the bits belong to the shard, and the epoch is
//! turned under all gates.
//!
//! What an entry is saved as is the [`Image`]'s to know: see the server's `durability/save.rs`.
//! To take one: hold all gates, begin an exclusive transaction, [`Txn::begin_snapshot`]; let go, and
//! call [`Snapshot::step`] in one's own gate until it is done; then [`Snapshot::end`]. A snapshot
//! that is given up must be walked to its end as well, with an image that saves nothing: a bit left
//! behind would be taken for the next epoch's.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data::Encoding;
use smallvec::SmallVec;

use crate::engine::{Engine, Garbage};
use crate::entry::{EPOCH, Entry, Str, ValueRef};
use crate::shard::{Db, SHARDS, Saving};
use crate::sizes::DbSize;
use crate::txn::{Plan, Txn};
use crate::worker::Worker;

/// How long a step waits for a shard before it goes to the next.
const PATIENCE: Duration = Duration::from_millis(1);

/// Entries that are saved between two questions whether it is enough.
const TOGETHER: usize = 32;

/// Beside the epoch's bit: there is a snapshot.
const RUNNING: u32 = 1;

/// Where entries are saved to. Called by many threads at once, each of which holds the shard of the
/// entry: it must be quick, and must not look at the keyspace.
pub trait Image: Send + Sync {
    /// Takes down what an entry of this database was, or what is left of it when some of it was.
    /// Called once for each.
    fn save(&self, worker: &Worker, db: u32, entry: &Entry);

    /// The same of the walk, which may do it in parts: it comes again then, in another hold of the
    /// lock, unless others have done the rest meanwhile. The entry is as it was, but may be in
    /// another place in memory.
    fn save_some(&self, worker: &Worker, db: u32, entry: &Entry) -> Saved {
        self.save(worker, db, entry);
        Saved::Whole
    }

    /// The same of somebody who has to have it saved soon: it is not put off for another one.
    fn save_ahead(&self, worker: &Worker, db: u32, entry: &Entry) -> Saved {
        self.save_some(worker, db, entry)
    }

    /// Whether saving an entry takes long enough that nobody should do it in passing.
    fn is_long(&self, entry: &Entry) -> bool {
        is_long(entry)
    }
}

/// How much of an entry is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    Whole,
    Partly,
    /// Nothing yet: another one has to be saved as a whole before this one is begun.
    Later,
}

/// Values with more elements, or bytes, are better saved in parts.
const ELEMENTS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 20;

/// Whether an entry has more than it takes to be worth parts.
pub fn is_long(entry: &Entry) -> bool {
    let (len, encoding) = match entry.get() {
        ValueRef::Str(Str::Int(_)) => return false,
        ValueRef::Str(Str::Bytes(bytes)) => return bytes.len() > BYTES_MAX,
        ValueRef::List(list) => (list.len(), list.encoding()),
        ValueRef::Set(set) => (set.len(), set.encoding()),
        ValueRef::Hash(hash) => (hash.len(), hash.encoding()),
        ValueRef::Zset(zset) => (zset.len(), zset.encoding()),
        ValueRef::Stream(stream) => (stream.len() + stream.pending_count(), stream.encoding()),
        ValueRef::Json(json) => return json.exceeds(ELEMENTS_MAX, BYTES_MAX),
    };
    len > ELEMENTS_MAX && !matches!(encoding, Encoding::Listpack | Encoding::Intset)
}

/// What a transaction knows of snapshots: none begins while it runs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Epoch(u32);

impl Epoch {
    #[inline]
    pub fn bit(self) -> u32 {
        self.0 & EPOCH
    }

    #[inline]
    fn is_running(self) -> bool {
        self.0 & RUNNING != 0
    }
}

/// The snapshot that is being taken, if any.
#[derive(Default)]
pub(crate) struct Snapshots {
    epoch: AtomicU32,
    running: Mutex<Option<Running>>,
}

struct Running {
    image: Arc<dyn Image>,
    /// What is in no table of a shard any more and still to be saved.
    taken: Vec<Taken>,
    /// Shards of long values that somebody waits for.
    wanted: Vec<u16>,
}

/// What was taken out of the keyspace before it was saved.
enum Taken {
    /// A table that was emptied at once.
    Table(Db),
    /// A long value, with the database it was in when the snapshot began.
    Entry(u32, Garbage),
}

impl Snapshots {
    #[inline]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn image(&self) -> Option<Arc<dyn Image>> {
        self.running().as_ref().map(|running| running.image.clone())
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// All that is left is locked by others, or waits for what is.
    Held,
    Done,
}

/// A snapshot on its way.
pub struct Snapshot {
    image: Arc<dyn Image>,
    epoch: Epoch,
    sizes: Vec<DbSize>,
    /// Shards to be walked.
    shards: VecDeque<u16>,
    /// What was handed over and is being saved.
    taken: Option<Taken>,
    /// The next step is not about such: the long value they wait for may be in a shard.
    passes_taken: bool,
    /// How many shards in turn could not be had, or have to wait for another.
    held: usize,
}

impl Engine {
    /// Whether a snapshot is being taken.
    pub fn has_snapshot(&self) -> bool {
        self.snapshots.epoch().is_running()
    }

    /// Frees tables that were taken out, once a snapshot has saved what it needs of them.
    pub(crate) fn let_go(&self, dbs: Vec<Db>, objects: usize) {
        let mut running = self.snapshots.running();
        let Some(running) = running.as_mut() else {
            return self.reclaim(None, dbs, objects);
        };
        let (due, dbs): (Vec<Db>, _) = dbs.into_iter().partition(|db| db.saving.is_due);
        running.taken.extend(due.into_iter().map(Taken::Table));
        self.reclaim(None, dbs, 0);
    }

    /// The same of a long value that is not saved yet. The caller holds the shard it was in.
    #[cold]
    pub(crate) fn hand_over(&self, db: u32, entry: Entry) {
        match self.snapshots.running().as_mut() {
            Some(running) => {
                let garbage = self.garbage(Some(entry), Vec::new(), 1);
                running.taken.push(Taken::Entry(db, garbage));
            }
            None => self.discard(entry),
        }
    }
}

impl Txn<'_> {
    /// Begins a snapshot of what is there now. Exclusive, and not while it records; `None` if one is
    /// being taken already.
    pub fn begin_snapshot(&mut self, image: Arc<dyn Image>) -> Option<Snapshot> {
        assert!(self.is_exclusive() && !self.is_recording(), "others could be in the middle");
        let snapshots = &self.engine.snapshots;
        let mut running = snapshots.running();
        if running.is_some() {
            return None;
        }
        *running = Some(Running { image: image.clone(), taken: Vec::new(), wanted: Vec::new() });
        let epoch = Epoch((snapshots.epoch().bit() ^ EPOCH) | RUNNING);
        snapshots.epoch.store(epoch.0, Ordering::Release);
        drop(running);
        self.epoch = epoch;
        let mut sizes = vec![DbSize::default(); self.databases() as usize];
        for shard in 0..SHARDS as u16 {
            for (number, db) in self.shard_mut(shard).dbs.iter_mut().enumerate() {
                db.saving.is_due = !db.keys.is_empty();
                db.saving.db = number as u32;
                db.saving.cursor = 0;
                sizes[number].keys += db.keys.len();
                sizes[number].expires += db.expires.len();
            }
        }
        let shards = (0..SHARDS as u16).collect();
        Some(Snapshot { image, epoch, sizes, shards, taken: None, passes_taken: false, held: 0 })
    }

    /// Whether a snapshot is being taken.
    #[inline]
    pub fn has_snapshot(&self) -> bool {
        self.epoch.is_running()
    }

    /// Whether a key holds a long value that a snapshot has not saved yet: whoever is to change it
    /// should wait, or it has to be saved as a whole there and then. It is seen to soon. The plan
    /// must cover the key.
    pub fn is_long_unsaved(&self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let shard = Engine::shard_of(hash);
        let entry = self.shard(shard).db(self.db).and_then(|db| db.find(hash, key));
        if !entry.is_some_and(|entry| self.is_unsaved(entry)) {
            return false;
        }
        let mut running = self.engine.snapshots.running();
        let Some(running) = running.as_mut() else { return false };
        let waits = entry.is_some_and(|entry| running.image.is_long(entry));
        if waits && !running.wanted.contains(&shard) {
            running.wanted.push(shard);
        }
        waits
    }

    /// Saves a part of the value of a key, if it is a long one that is not saved yet: for whoever
    /// is to change it and cannot wait. True when that was the last of it. The plan must cover the
    /// key.
    pub fn save_part(&self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let entry =
            self.shard(Engine::shard_of(hash)).db(self.db).and_then(|db| db.find(hash, key));
        let Some(entry) = entry.filter(|entry| self.is_unsaved(entry)) else { return true };
        let Some(image) = self.engine.snapshots.image() else { return true };
        if !image.is_long(entry) {
            return true;
        }
        let saved = image.save_ahead(self.worker, self.snapshot_db(hash), entry);
        if saved == Saved::Whole {
            entry.set_epoch(self.epoch.bit());
        }
        saved == Saved::Whole
    }

    #[inline]
    fn is_unsaved(&self, entry: &Entry) -> bool {
        self.epoch.is_running() && entry.epoch() != self.epoch.bit()
    }

    /// To be called ahead of every change of an entry that is in its table, or was until now.
    #[inline]
    pub(crate) fn preserve(&self, entry: &Entry) {
        if self.is_unsaved(entry) {
            self.preserve_now(entry, false);
        }
    }

    /// The same of one that is not changed but taken out: false when it is a long one that is not
    /// saved, and to be handed over.
    #[inline]
    pub(crate) fn preserve_short(&self, entry: &Entry) -> bool {
        !self.is_unsaved(entry) || self.preserve_now(entry, true)
    }

    #[cold]
    fn preserve_now(&self, entry: &Entry, if_short: bool) -> bool {
        // The snapshot may have ended since this transaction began, but not with this entry left.
        let Some(image) = self.engine.snapshots.image() else { return true };
        if if_short && image.is_long(entry) {
            return false;
        }
        image.save(self.worker, self.snapshot_db(self.engine.hash(entry.key())), entry);
        entry.set_epoch(self.epoch.bit());
        true
    }

    /// The database that the table of a hash was of when the snapshot began.
    pub(crate) fn snapshot_db(&self, hash: u64) -> u32 {
        let shard = self.shard(Engine::shard_of(hash));
        shard.db(self.db).map_or(self.db, |db| db.saving.db)
    }
}

impl Taken {
    /// As with a table that is in its shard.
    fn save(
        &mut self,
        image: &dyn Image,
        worker: &Worker,
        epoch: Epoch,
        is_enough: &mut impl FnMut() -> bool,
    ) -> Saved {
        match self {
            Taken::Table(table) => table.save(image, worker, epoch, is_enough),
            Taken::Entry(db, garbage) => {
                garbage.entry().map_or(Saved::Whole, |entry| image.save_some(worker, *db, entry))
            }
        }
    }
}

impl Db {
    /// Saves entries that are not saved yet, until it is enough for now.
    fn save(
        &mut self,
        image: &dyn Image,
        worker: &Worker,
        epoch: Epoch,
        is_enough: &mut impl FnMut() -> bool,
    ) -> Saved {
        let Saving { is_due, db, cursor } = &mut self.saving;
        while *is_due {
            // Some at once, whose memory is on its way while those before them are saved.
            let mut entries: SmallVec<[&Entry; 64]> = SmallVec::new();
            let mut next = *cursor;
            while entries.len() < TOGETHER {
                next = self.keys.scan(next, |entry| {
                    entry.prefetch();
                    entries.push(entry);
                });
                if next == 0 {
                    break;
                }
            }
            let mut saved = Saved::Whole;
            for entry in entries.into_iter().filter(|entry| entry.epoch() != epoch.bit()) {
                match image.save_some(worker, *db, entry) {
                    Saved::Whole => entry.set_epoch(epoch.bit()),
                    Saved::Partly => saved = Saved::Partly,
                    Saved::Later if saved == Saved::Whole => saved = Saved::Later,
                    Saved::Later => {}
                }
            }
            if saved != Saved::Whole {
                // The same ones once more.
                return saved;
            }
            *cursor = next;
            *is_due = next != 0;
            if is_enough() {
                break;
            }
        }
        if *is_due { Saved::Partly } else { Saved::Whole }
    }
}

impl Snapshot {
    /// What the databases held at the beginning.
    pub fn sizes(&self) -> &[DbSize] {
        &self.sizes
    }

    /// Saves some entries of one shard, until `is_enough`, which is asked every few entries, says
    /// so. The caller is in its gate and holds no shard.
    pub fn step(
        &mut self,
        engine: &Engine,
        worker: &Worker,
        mut is_enough: impl FnMut() -> bool,
    ) -> Step {
        // What nobody else has any more goes first: it takes memory.
        if !mem::take(&mut self.passes_taken) {
            let next = || engine.snapshots.running().as_mut().and_then(|r| r.taken.pop());
            if let Some(mut taken) = self.taken.take().or_else(next) {
                match taken.save(&*self.image, worker, self.epoch, &mut is_enough) {
                    Saved::Whole => {
                        if let Taken::Entry(_, garbage) = taken {
                            engine.dispose(garbage);
                        }
                    }
                    Saved::Partly => self.taken = Some(taken),
                    Saved::Later => {
                        self.passes_taken = true;
                        if let Some(running) = engine.snapshots.running().as_mut() {
                            running.taken.insert(0, taken);
                        }
                    }
                }
                return Step::More;
            }
        }
        let wanted = engine.snapshots.running().as_mut().and_then(|r| r.wanted.pop());
        if let Some(shard) = wanted
            && let Some(at) = self.shards.iter().position(|other| *other == shard)
        {
            self.shards.remove(at);
            self.shards.push_front(shard);
        }
        let Some(&shard) = self.shards.front() else {
            // What was passed over is still to be seen to.
            let is_done = engine.snapshots.running().as_ref().is_none_or(|r| r.taken.is_empty());
            return if is_done { Step::Done } else { Step::More };
        };
        let begun = Txn::try_begin(engine, worker, Plan::shard(shard), 0, Some(PATIENCE));
        let Ok(mut txn) = begun else {
            return self.pass_over();
        };
        let mut saved = Saved::Whole;
        for db in &mut txn.shard_mut(shard).dbs {
            saved = db.save(&*self.image, worker, self.epoch, &mut is_enough);
            if saved != Saved::Whole {
                break;
            }
        }
        txn.commit();
        match saved {
            Saved::Whole => _ = self.shards.pop_front(),
            Saved::Partly => {}
            // What all wait for may be in a shard that is held.
            Saved::Later => return self.pass_over(),
        }
        self.held = 0;
        Step::More
    }

    /// Goes on with the next shard.
    fn pass_over(&mut self) -> Step {
        self.shards.rotate_left(1);
        self.held += 1;
        if self.held > self.shards.len() { Step::Held } else { Step::More }
    }

    /// Ends it, once all is saved.
    pub fn end(self, engine: &Engine) {
        let ended = mem::take(&mut *engine.snapshots.running());
        let is_whole = self.shards.is_empty() && self.taken.is_none();
        assert!(is_whole && ended.is_some_and(|r| r.taken.is_empty()), "it was not done");
        engine.snapshots.epoch.store(self.epoch.bit(), Ordering::Release);
    }
}

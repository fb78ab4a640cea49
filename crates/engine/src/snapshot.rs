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
//! A rollback needs nothing: what it puts back was saved before it was changed, and it puts back
//! what it was. There is no step without a lock: the bits belong to the shard, and the epoch is
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

use crate::engine::Engine;
use crate::entry::{EPOCH, Entry};
use crate::shard::{Db, SHARDS, Saving};
use crate::sizes::DbSize;
use crate::txn::{Plan, Txn};
use crate::worker::Worker;

/// How long a step waits for a shard before it goes to the next.
const PATIENCE: Duration = Duration::from_millis(1);

/// Beside the epoch's bit: there is a snapshot.
const RUNNING: u32 = 1;

/// Where entries are saved to. Called by many threads at once, each of which holds the shard of the
/// entry: it must be quick, and must not look at the keyspace.
pub trait Image: Send + Sync {
    /// Takes down what an entry of this database was. Called once for each.
    fn save(&self, worker: &Worker, db: u32, entry: &Entry);
}

/// What a transaction knows of snapshots: none begins while it runs.
#[derive(Clone, Copy)]
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
    /// Tables that were emptied at once, with what is in them to be saved.
    taken: Vec<Db>,
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
    /// All that is left is locked by others.
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
    /// A table that was handed over, being walked.
    table: Option<Db>,
    /// How many shards in turn could not be had.
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
        let (due, dbs) = dbs.into_iter().partition(|db| db.saving.is_due);
        running.taken.extend::<Vec<Db>>(due);
        self.reclaim(None, dbs, 0);
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
        *running = Some(Running { image: image.clone(), taken: Vec::new() });
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
        Some(Snapshot { image, epoch, sizes, shards, table: None, held: 0 })
    }

    /// To be called ahead of every change of an entry that is in its table, or was until now.
    #[inline]
    pub(crate) fn preserve(&self, entry: &Entry) {
        if self.epoch.is_running() && entry.epoch() != self.epoch.bit() {
            self.preserve_now(entry);
        }
    }

    #[cold]
    fn preserve_now(&self, entry: &Entry) {
        // The snapshot may have ended since this transaction began, but not with this entry left.
        let Some(image) = self.engine.snapshots.image() else { return };
        let shard = Engine::shard_of(self.engine.hash(entry.key()));
        let db = self.shard(shard).db(self.db).map_or(self.db, |db| db.saving.db);
        image.save(self.worker, db, entry);
        entry.set_epoch(self.epoch.bit());
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
    ) {
        let Saving { is_due, db, cursor } = &mut self.saving;
        while *is_due {
            *cursor = self.keys.scan(*cursor, |entry| {
                if entry.epoch() != epoch.bit() {
                    image.save(worker, *db, entry);
                    entry.set_epoch(epoch.bit());
                }
            });
            *is_due = *cursor != 0;
            if is_enough() {
                return;
            }
        }
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
        // Tables that nobody else has any more go first: they take memory.
        if self.table.is_none() {
            self.table = engine.snapshots.running().as_mut().and_then(|r| r.taken.pop());
        }
        if let Some(table) = &mut self.table {
            table.save(&*self.image, worker, self.epoch, &mut is_enough);
            if !table.saving.is_due {
                self.table = None;
            }
            return Step::More;
        }
        let Some(&shard) = self.shards.front() else { return Step::Done };
        let begun = Txn::try_begin(engine, worker, Plan::shard(shard), 0, Some(PATIENCE));
        let Ok(mut txn) = begun else {
            self.shards.rotate_left(1);
            self.held += 1;
            return if self.held > self.shards.len() { Step::Held } else { Step::More };
        };
        self.held = 0;
        let mut is_done = true;
        for db in &mut txn.shard_mut(shard).dbs {
            if is_done {
                db.save(&*self.image, worker, self.epoch, &mut is_enough);
            }
            is_done &= !db.saving.is_due;
        }
        txn.commit();
        if is_done {
            self.shards.pop_front();
        }
        Step::More
    }

    /// Ends it, once all is saved.
    pub fn end(self, engine: &Engine) {
        let ended = mem::take(&mut *engine.snapshots.running());
        let is_whole = self.shards.is_empty() && self.table.is_none();
        assert!(is_whole && ended.is_some_and(|r| r.taken.is_empty()), "it was not done");
        engine.snapshots.epoch.store(self.epoch.bit(), Ordering::Release);
    }
}

//! The keyspace as a whole: shards, gates, and what looks at more than one key.
//!
//! Shared by all threads. Time comes in as an argument, threads and sockets are the server's.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::change::{Change, Journal};
use crate::entry::Entry;
use crate::gate::Gates;
use crate::notice::Herald;
use crate::shard::{Db, SHARDS, Shard};
use crate::sizes::LastLook;
use crate::snapshot::Snapshots;
use crate::txn::{Plan, Txn};
use crate::wait::{Claim, KeyName, Waiter, Watch};
use crate::worker::Stats;

/// Hashes keys. Seeded from the operating system: keys come from clients (HashDoS).
#[derive(Default)]
pub struct KeyHasher(ahash::RandomState);

impl KeyHasher {
    pub fn new() -> KeyHasher {
        KeyHasher::default()
    }

    /// The bytes alone: the length, which a slice would put in front, is in their hash already.
    #[inline]
    pub fn hash_one(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// Values with more elements than this are freed on the reclaiming thread.
const FREE_INLINE_ELEMENTS_MAX: usize = 64;

/// What is freed away from the workers.
pub struct Garbage {
    entry: Option<Entry>,
    dbs: Vec<Db>,
    freeing: Arc<Freeing>,
    objects: usize,
}

/// What the reclaiming thread has to do, and what it has done.
#[derive(Default)]
struct Freeing {
    pending: AtomicUsize,
    freed: AtomicUsize,
}

impl Garbage {
    pub(crate) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        drop(self.entry.take());
        self.dbs.clear();
        self.freeing.freed.fetch_add(self.objects, Ordering::Relaxed);
        self.freeing.pending.fetch_sub(self.objects, Ordering::Relaxed);
    }
}

pub struct Engine {
    pub(crate) shards: Box<[Shard]>,
    gates: Gates,
    pub(crate) hasher: KeyHasher,
    stats: Box<[Arc<Stats>]>,
    reclaim: OnceLock<Sender<Garbage>>,
    freeing: Arc<Freeing>,
    /// Given to waiters so far.
    tickets: AtomicU64,
    journal: OnceLock<Box<dyn Journal>>,
    is_logging: AtomicBool,
    herald: OnceLock<Box<dyn Herald>>,
    is_tracking: AtomicBool,
    /// There was a hash with a field that expires.
    has_field_times: AtomicBool,
    pub(crate) snapshots: Snapshots,
    pub(crate) last_look: LastLook,
}

impl Engine {
    /// `threads`: how many will run transactions; ids below that are theirs.
    pub fn new(threads: usize) -> Engine {
        Engine {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            gates: Gates::new(threads),
            hasher: KeyHasher::new(),
            stats: (0..threads).map(|_| Arc::default()).collect(),
            reclaim: OnceLock::new(),
            freeing: Arc::default(),
            tickets: AtomicU64::new(0),
            journal: OnceLock::new(),
            is_logging: AtomicBool::new(false),
            herald: OnceLock::new(),
            is_tracking: AtomicBool::new(false),
            has_field_times: AtomicBool::new(false),
            snapshots: Snapshots::default(),
            last_look: LastLook::default(),
        }
    }

    /// From here on fields may expire.
    pub(crate) fn note_field_times(&self) {
        self.has_field_times.store(true, Ordering::Relaxed);
    }

    /// Whether there may be a hash with a field that expires. Whoever holds its shard knows.
    #[inline]
    pub fn has_field_times(&self) -> bool {
        self.has_field_times.load(Ordering::Relaxed)
    }

    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    pub fn stats(&self, thread: usize) -> Arc<Stats> {
        self.stats[thread].clone()
    }

    /// A counter summed over all threads.
    pub fn total(&self, counter: impl Fn(&Stats) -> u64) -> u64 {
        self.stats.iter().map(|stats| counter(stats)).sum()
    }

    pub fn reset_stats(&self) {
        for stats in &self.stats {
            stats.keyspace_hits.reset();
            stats.keyspace_misses.reset();
            stats.expired_keys.reset();
            stats.evicted_keys.reset();
        }
        self.freeing.freed.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The shard of a key's hash, from bits that its table does not use.
    #[inline]
    pub fn shard_of(hash: u64) -> u16 {
        ((hash >> 40) as usize & (SHARDS - 1)) as u16
    }

    pub fn key_shard(&self, key: &[u8]) -> u16 {
        Engine::shard_of(self.hash(key))
    }

    /// Where large values go to be freed; without it they are freed in place.
    pub fn set_reclaim(&self, sender: Sender<Garbage>) {
        let _ = self.reclaim.set(sender);
    }

    /// Where the changes of all transactions go while they are logged; set once.
    pub fn set_journal(&self, journal: Box<dyn Journal>) {
        let is_first = self.journal.set(journal).is_ok();
        assert!(is_first, "there is a journal already");
    }

    /// Begins or ends to log all changes. The caller holds every gate, so that the journal gets
    /// whole transactions and all of them from here on.
    pub fn set_logging(&self, on: bool) {
        assert!(!on || self.journal.get().is_some(), "there is no journal");
        self.is_logging.store(on, Ordering::Release);
    }

    /// Whether transactions that begin now log their changes.
    #[inline]
    pub fn is_logging(&self) -> bool {
        self.is_logging.load(Ordering::Acquire)
    }

    pub(crate) fn journal(&self) -> Option<&dyn Journal> {
        self.journal.get().map(|journal| &**journal)
    }

    /// Who tells of what the door has noted; set once.
    pub fn set_herald(&self, herald: Box<dyn Herald>) {
        let is_first = self.herald.set(herald).is_ok();
        assert!(is_first, "there is a herald already");
    }

    pub(crate) fn herald(&self) -> Option<&dyn Herald> {
        self.herald.get().map(|herald| &**herald)
    }

    /// Whether transactions that begin now tell of every change, whatever the settings say.
    #[inline]
    pub fn is_tracking(&self) -> bool {
        self.is_tracking.load(Ordering::Acquire)
    }

    /// Begins or ends to tell of every change. Transactions that run already do not, until they take
    /// more locks; so who has begun, and then reads a key under its lock, is told of all later
    /// changes of it.
    pub fn set_tracking(&self, on: bool) {
        self.is_tracking.store(on, Ordering::Release);
    }

    /// Objects handed over and not freed yet.
    pub fn pending_free(&self) -> usize {
        self.freeing.pending.load(Ordering::Relaxed)
    }

    /// Objects freed like that since the statistics were reset.
    pub fn freed(&self) -> usize {
        self.freeing.freed.load(Ordering::Relaxed)
    }

    pub(crate) fn discard(&self, entry: Entry) {
        if entry.free_effort() > FREE_INLINE_ELEMENTS_MAX {
            self.reclaim(Some(entry), Vec::new(), 1);
        }
    }

    pub(crate) fn reclaim(&self, entry: Option<Entry>, dbs: Vec<Db>, objects: usize) {
        self.dispose(self.garbage(entry, dbs, objects));
    }

    /// What is to be freed, once that may be done.
    pub(crate) fn garbage(&self, entry: Option<Entry>, dbs: Vec<Db>, objects: usize) -> Garbage {
        self.freeing.pending.fetch_add(objects, Ordering::Relaxed);
        Garbage { entry, dbs, freeing: self.freeing.clone(), objects }
    }

    pub(crate) fn dispose(&self, garbage: Garbage) {
        if let Some(sender) = self.reclaim.get() {
            // A reclaiming thread that is gone leaves the freeing to us: `send` hands it back.
            drop(sender.send(garbage));
        }
    }

    /// Ends the registration of a waiter that is done or cancelled. Takes each shard's lock in
    /// turn; the caller holds its gate and no shard. False when one could not be had in time: it
    /// is to be called again.
    #[must_use]
    pub fn forget_waiter(
        &self,
        worker: &crate::Worker,
        waiter: &Arc<Waiter>,
        patience: Option<Duration>,
    ) -> bool {
        waiter.keys.iter().all(|name| {
            let shard = self.key_shard(&name.1);
            let Ok(mut txn) = Txn::try_begin(self, worker, Plan::shard(shard), 0, patience) else {
                return false;
            };
            let queues = &mut txn.shard_mut(shard).waiters;
            if let Some(queue) = queues.get_mut(name) {
                queue.retain(|other| !Arc::ptr_eq(other, waiter));
                if queue.is_empty() {
                    queues.remove(name);
                }
            }
            true
        })
    }

    /// Claims the first client in the queue of a key that came after `passed_over`, the ticket of
    /// the last one that was looked at (0: from the front). Not a place in the queue: clients in
    /// front may leave at any time, and nobody behind them may be skipped for it. The error is
    /// the shard that could not be had in time.
    pub fn claim_waiter(
        &self,
        worker: &crate::Worker,
        name: &KeyName,
        passed_over: u64,
        patience: Option<Duration>,
    ) -> Result<Option<Claim>, u16> {
        let shard = self.key_shard(&name.1);
        let mut txn = Txn::try_begin(self, worker, Plan::shard(shard), 0, patience)?;
        let Some(queue) = txn.shard_mut(shard).waiters.get_mut(name) else { return Ok(None) };
        queue.retain(|waiter| !waiter.is_done());
        let ticket = |waiter: &Arc<Waiter>| waiter.ticket.load(Ordering::Relaxed);
        let next = queue.get(queue.partition_point(|waiter| ticket(waiter) <= passed_over));
        Ok(next
            .map(|next| Claim { ticket: ticket(next), waiter: next.claim().then(|| next.clone()) }))
    }

    /// Takes a watch off a key. The caller holds its gate and no shard. False when the shard
    /// could not be had in time: it is to be called again.
    #[must_use]
    pub fn forget_watch(
        &self,
        worker: &crate::Worker,
        name: &KeyName,
        watch: &Arc<Watch>,
        patience: Option<Duration>,
    ) -> bool {
        let plan = Plan::shard(self.key_shard(&name.1));
        match Txn::try_begin(self, worker, plan, 0, patience) {
            Ok(mut txn) => {
                txn.unwatch(name, watch);
                true
            }
            Err(_) => false,
        }
    }
}

impl Txn<'_> {
    /// Puts a waiter into the queues of its keys. The plan must cover them.
    ///
    /// A key that is there already was left to the clients before it in the queue. They may be
    /// unable to use it (BZPOPMIN on a list), so the queue is looked through once more.
    pub fn wait(&mut self, waiter: &Arc<Waiter>) {
        // Drawn under the locks of all its queues, so each of them is in the order of tickets.
        let ticket = self.engine.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        waiter.ticket.store(ticket, Ordering::Relaxed);
        for name in &waiter.keys {
            if self.exists(&name.1) {
                self.effects.ready.push(name.clone());
            }
            let shard = self.engine.key_shard(&name.1);
            let data = self.shard_mut(shard);
            data.is_observed = true;
            data.waiters.entry(name.clone()).or_default().push_back(waiter.clone());
            // Queued behind clients that cannot use what is there (a list's waiters on a sorted
            // set): nobody else will look at the key on its behalf.
            if self.peek(&name.1).is_some() {
                self.effects.ready.push(name.clone());
            }
        }
    }

    /// Has the watch marked when the key changes. The plan must cover the key.
    pub fn watch(&mut self, key: &[u8], watch: &Arc<Watch>) {
        let name = (self.db, Box::from(key));
        let shard = self.engine.key_shard(key);
        let data = self.shard_mut(shard);
        data.is_observed = true;
        data.watches.entry(name).or_default().push(watch.clone());
    }

    pub fn unwatch(&mut self, name: &KeyName, watch: &Arc<Watch>) {
        let shard = self.engine.key_shard(&name.1);
        let watches = &mut self.shard_mut(shard).watches;
        if let Some(list) = watches.get_mut(name) {
            list.retain(|other| !Arc::ptr_eq(other, watch));
            if list.is_empty() {
                watches.remove(name);
            }
        }
    }

    /// Visits every live entry of the current database. Exclusive or walking.
    pub fn for_each(&mut self, mut visit: impl FnMut(&Entry)) {
        let (db, now_ms) = (self.db, self.now_ms);
        for shard in 0..SHARDS as u16 {
            if self.should_stop() || !self.walk_to(shard) {
                break;
            }
            if let Some(db) = self.shard(shard).db(db) {
                db.keys.iter().filter(|entry| !entry.is_expired(now_ms)).for_each(&mut visit);
            }
        }
    }

    /// One step of SCAN over the current database: visits about `count` entries from `cursor` on
    /// and answers the next cursor, 0 at the end. Every key that is there from the first step to
    /// the last is visited at least once. Exclusive or walking.
    pub fn scan(&mut self, cursor: u64, count: usize, mut visit: impl FnMut(&Entry)) -> u64 {
        let (db, now_ms) = (self.db, self.now_ms);
        let mut shard = (cursor % SHARDS as u64) as u16;
        let mut position = cursor / SHARDS as u64;
        // Empty buckets count too, so that a sparse keyspace cannot hold the lock for long. Empty
        // shards do not: passing all of them takes microseconds, and clients expect to see a
        // small keyspace in one call.
        let mut seen = 0;
        let mut steps = 0;
        while seen < count && steps < count.saturating_mul(10) {
            if self.should_stop() || !self.walk_to(shard) {
                return 0;
            }
            let mut expired: Vec<Box<[u8]>> = Vec::new();
            position = match self.shard(shard).db(db) {
                Some(db) if !db.keys.is_empty() => {
                    steps += 1;
                    db.keys.scan(position, |entry| {
                        seen += 1;
                        match entry.is_expired(now_ms) {
                            false => visit(entry),
                            true => expired.push(entry.key().into()),
                        }
                    })
                }
                _ => 0,
            };
            for key in expired {
                self.remove_if_expired(&key);
            }
            if position == 0 {
                shard += 1;
                if shard as usize == SHARDS {
                    return 0;
                }
            }
        }
        position * SHARDS as u64 + u64::from(shard)
    }

    /// A random live key of the current database. Exclusive or walking.
    pub fn random_key(&mut self) -> Option<Box<[u8]>> {
        let (db, now_ms) = (self.db, self.now_ms);
        // Expired keys that nobody removed yet are drawn too; give up when there seem to be
        // nothing else.
        for attempt in 0..200 {
            let keys = self.db_size().keys;
            if keys == 0 {
                return None;
            }
            let mut nth = (self.random() % keys as u64) as usize;
            for shard in 0..SHARDS as u16 {
                if !self.walk_to(shard) {
                    return None;
                }
                let len = self.shard(shard).db(db).map_or(0, |db| db.keys.len());
                if nth >= len {
                    nth -= len;
                    continue;
                }
                let db = self.shard(shard).db(db)?;
                if let Some(entry) = db.keys.random(&mut || self.random())
                    && (!entry.is_expired(now_ms) || attempt == 199)
                {
                    return Some(entry.key().into());
                }
                break;
            }
        }
        None
    }

    /// Empties one database, or all. Exclusive. Answers how many keys there were.
    pub fn flush(&mut self, db: Option<u32>) -> usize {
        let (recording, now_ms) = (self.is_recording(), self.now_ms);
        let mut taken = Vec::new();
        let mut removed = 0;
        let (mut marks, mut ready) = (Vec::new(), Vec::new());
        for shard in 0..SHARDS as u16 {
            let engine = self.engine;
            let data = self.shard_mut(shard);
            let range = match db {
                Some(db) if (db as usize) < data.dbs.len() => db as usize..db as usize + 1,
                Some(_) => 0..0,
                None => 0..data.dbs.len(),
            };
            for index in range {
                if data.dbs[index].keys.is_empty() {
                    continue;
                }
                let old = std::mem::take(&mut data.dbs[index]);
                removed += old.keys.len();
                for (name, watches) in &data.watches {
                    // What had expired is nothing that goes now.
                    let is_live = |entry: &Entry| !entry.is_expired(now_ms);
                    let found = old.find(engine.hash(&name.1), &name.1);
                    if name.0 as usize != index || !found.is_some_and(is_live) {
                        continue;
                    }
                    match recording {
                        true => marks.push(name.clone()),
                        false => watches.iter().for_each(|watch| watch.mark()),
                    }
                }
                // Some wait for what a key holds: they are told that it holds nothing.
                let was_there = |name: &&KeyName| {
                    let hash = engine.hash(&name.1);
                    name.0 as usize == index && old.find(hash, &name.1).is_some()
                };
                ready.extend(data.waiters.keys().filter(was_there).cloned());
                taken.push((shard, index as u32, old));
            }
        }
        self.note_flush();
        // Even if there was nothing, as in Redis: others may have had something.
        let home = self.db;
        match db {
            Some(db) => {
                self.db = db;
                self.log(b"", Change::FlushDb);
            }
            None => {
                self.effects.flushed_all = true;
                self.log(b"", Change::FlushAll);
            }
        }
        self.db = home;
        self.effects.dirty += removed as u64;
        self.effects.ready.extend(ready);
        self.mark_at_commit(marks);
        self.release_tables(taken, removed);
        removed
    }

    /// SWAPDB. Exclusive.
    pub fn swap_dbs(&mut self, a: u32, b: u32) {
        let (recording, now_ms) = (self.is_recording(), self.now_ms);
        let mut marks = Vec::new();
        let mut ready = Vec::new();
        self.swap_tables(a, b);
        self.note_swapped(a, b);
        self.log(b"", Change::SwapDbs { a, b });
        for shard in 0..SHARDS as u16 {
            let engine = self.engine;
            let data = self.shard_mut(shard);
            let is_live = |db: u32, key: &[u8]| {
                let found = data.db(db).and_then(|db| db.find(engine.hash(key), key));
                found.is_some_and(|entry| !entry.is_expired(now_ms))
            };
            for (name, watches) in &data.watches {
                if name.0 != a && name.0 != b {
                    continue;
                }
                // Of no key, or one that had expired, comes no key, or one that has.
                if !is_live(a, &name.1) && !is_live(b, &name.1) {
                    continue;
                }
                match recording {
                    true => marks.push(name.clone()),
                    false => watches.iter().for_each(|watch| watch.mark()),
                }
            }
            ready.extend(data.waiters.keys().filter(|name| name.0 == a || name.0 == b).cloned());
        }
        self.mark_at_commit(marks);
        self.effects.dirty += 1;
        self.effects.ready.extend(ready);
    }

    /// Whether all databases were emptied.
    pub fn flushed_all(&self) -> bool {
        self.effects.flushed_all
    }

    /// What was changed since there were so many changes counts as no more than these: a command may
    /// take several steps to what is one change to its caller.
    pub fn count_as(&mut self, before: u64, changes: u64) {
        self.effects.dirty = self.effects.dirty.min(before + changes);
    }

    /// Notes that something changed which is not in the keyspace, in the words of whoever reads the
    /// log. Undoing it is not for this transaction.
    pub fn log_beside(&mut self, request: &[u8]) {
        self.log(b"", Change::Beside { request });
        self.effects.dirty += 1;
    }

    pub(crate) fn swap_tables(&mut self, a: u32, b: u32) {
        for shard in 0..SHARDS as u16 {
            let data = self.shard_mut(shard);
            data.db_mut(a.max(b));
            data.dbs.swap(a as usize, b as usize);
        }
    }
}

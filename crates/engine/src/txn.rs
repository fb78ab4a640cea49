//! A transaction: the guard through which every command, MULTI block and script sees the keyspace.
//!
//! It holds the locks of its plan from `begin` to `commit` and sees one `now`. Reads borrow it
//! shared, so several values can be looked at together; all changes go through the door
//! (`door.rs`).

use std::cell::RefCell;

use lock_api::RawMutex as _;
use smallvec::SmallVec;

use crate::engine::Engine;
use crate::entry::{Entry, ValueRef};
use crate::shard::ShardData;
use crate::wait::KeyName;
use crate::worker::Worker;
use crate::{Collection, Str, access};
use data::{Hash, List, Set, Zset};

/// The value is of another type than the command works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// Which locks a command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// These shards, ascending and without doubles; empty for commands that touch no key.
    Shards(SmallVec<[u16; 4]>),
    /// The whole keyspace. The caller holds every gate.
    Exclusive,
    /// One shard after the other, each locked only while it is looked at.
    Walk,
}

impl Plan {
    pub fn none() -> Plan {
        Plan::Shards(SmallVec::new())
    }

    /// Sorts and deduplicates.
    pub fn shards(mut shards: SmallVec<[u16; 4]>) -> Plan {
        if shards.len() > 1 {
            shards.sort_unstable();
            shards.dedup();
        }
        Plan::Shards(shards)
    }
}

/// What a transaction leaves to be done after its locks are released.
#[derive(Default)]
pub struct Effects {
    /// Keys that became interesting to blocked clients, in the order of their changes.
    pub ready: Vec<KeyName>,
    /// Changes made.
    pub dirty: u64,
}

/// Expired keys that one transaction notes for removal, so that a script reading one in a loop
/// does not fill memory. The others are left to the next reader or active expiry.
const EXPIRED_NOTED_MAX: usize = 64;

/// The guard. Dropping it releases the locks; `commit` does so and hands over the effects.
pub struct Txn<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) worker: &'e Worker,
    plan: Plan,
    /// The shard a walk holds at present.
    walking: Option<u16>,
    pub(crate) db: u32,
    pub(crate) now_ms: i64,
    /// Keys that a read found expired; removed at commit.
    expired: RefCell<Vec<KeyName>>,
    pub(crate) effects: Effects,
    /// CLIENT NO-TOUCH: reads leave the access clock alone.
    pub(crate) no_touch: bool,
    locked: bool,
}

impl<'e> Txn<'e> {
    /// Takes the locks of the plan. The caller has entered its worker's gate, or all of them for
    /// an exclusive plan, and keeps them until the transaction ends.
    pub fn begin(engine: &'e Engine, worker: &'e Worker, plan: Plan, now_ms: i64) -> Txn<'e> {
        if let Plan::Shards(shards) = &plan {
            for &shard in shards {
                engine.shards[shard as usize].lock.lock();
            }
        }
        Txn {
            engine,
            worker,
            plan,
            walking: None,
            db: 0,
            now_ms,
            expired: RefCell::default(),
            effects: Effects::default(),
            no_touch: false,
            locked: true,
        }
    }

    /// Ends the transaction: its changes become visible to others.
    pub fn commit(mut self) -> Effects {
        for (db, key) in std::mem::take(self.expired.get_mut()) {
            self.db = db;
            self.remove_if_expired(&key);
        }
        self.unlock();
        if self.effects.dirty > 0 {
            self.worker.stats.dirty.add(self.effects.dirty);
        }
        std::mem::take(&mut self.effects)
    }

    fn unlock(&mut self) {
        if !std::mem::take(&mut self.locked) {
            return;
        }
        if let Plan::Shards(shards) = &self.plan {
            for &shard in shards {
                // SAFETY: `begin` locked exactly these on this thread.
                unsafe { self.engine.shards[shard as usize].lock.unlock() };
            }
        }
        self.leave_walk();
    }

    pub(crate) fn leave_walk(&mut self) {
        if let Some(shard) = self.walking.take() {
            // SAFETY: `walk_to` locked it on this thread.
            unsafe { self.engine.shards[shard as usize].lock.unlock() };
        }
    }

    /// Makes the walk hold this shard; nothing to do under the other plans.
    pub(crate) fn walk_to(&mut self, shard: u16) {
        if self.plan == Plan::Walk && self.walking != Some(shard) {
            self.leave_walk();
            self.engine.shards[shard as usize].lock.lock();
            self.walking = Some(shard);
        }
    }

    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    pub fn worker(&self) -> &'e Worker {
        self.worker
    }

    /// The one "now" of the transaction, Unix ms.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    pub fn db(&self) -> u32 {
        self.db
    }

    /// How many databases there are.
    pub fn databases(&self) -> u32 {
        self.worker.settings.databases
    }

    /// Chooses the database that keys are looked up in.
    pub fn select(&mut self, db: u32) {
        self.db = db;
    }

    pub fn set_no_touch(&mut self, no_touch: bool) {
        self.no_touch = no_touch;
    }

    pub fn limits(&self) -> &'e data::Limits {
        &self.worker.settings.limits
    }

    pub fn is_exclusive(&self) -> bool {
        self.plan == Plan::Exclusive
    }

    pub fn random(&self) -> u64 {
        self.worker.random()
    }

    fn holds(&self, shard: u16) -> bool {
        match &self.plan {
            Plan::Exclusive => true,
            Plan::Walk => self.walking == Some(shard),
            Plan::Shards(held) if held.len() <= 8 => held.contains(&shard),
            Plan::Shards(held) => held.binary_search(&shard).is_ok(),
        }
    }

    pub(crate) fn shard(&self, shard: u16) -> &ShardData {
        assert!(self.holds(shard), "a command touched a key outside its lock plan");
        // SAFETY: this transaction holds the shard's lock or the exclusive gate; writers need
        // `&mut self`, so no exclusive reference exists beside this shared one.
        unsafe { &*self.engine.shards[shard as usize].data.get() }
    }

    pub(crate) fn shard_mut(&mut self, shard: u16) -> &mut ShardData {
        assert!(self.holds(shard), "a command touched a key outside its lock plan");
        // SAFETY: as above, and `&mut self` rules out other references from this transaction.
        unsafe { &mut *self.engine.shards[shard as usize].data.get() }
    }

    /// The live entry of a key: neither statistics nor access clock change.
    pub fn peek(&self, key: &[u8]) -> Option<&Entry> {
        let hash = self.engine.hash(key);
        let entry = self.shard(Engine::shard_of(hash)).db(self.db)?.find(hash, key)?;
        if entry.is_expired(self.now_ms) {
            let mut expired = self.expired.borrow_mut();
            if expired.len() < EXPIRED_NOTED_MAX {
                expired.push((self.db, key.into()));
            }
            return None;
        }
        Some(entry)
    }

    /// The live entry of a key, as a command that reads it: counts a hit or a miss and touches
    /// the access clock.
    pub fn read(&self, key: &[u8]) -> Option<&Entry> {
        let found = self.probe(key);
        if let Some(entry) = found {
            self.touch(entry);
        }
        found
    }

    /// The live entry of a key, as a command that asks about it (EXISTS, TTL): counts a hit or a
    /// miss and leaves the access clock alone.
    pub fn probe(&self, key: &[u8]) -> Option<&Entry> {
        let found = self.peek(key);
        match found {
            Some(_) => self.worker.stats.keyspace_hits.add(1),
            None => self.worker.stats.keyspace_misses.add(1),
        }
        found
    }

    pub(crate) fn touch(&self, entry: &Entry) {
        if !self.no_touch {
            access::touch(entry, self.worker, self.now_ms);
        }
    }

    pub fn exists(&self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    pub fn read_string(&self, key: &[u8]) -> Result<Option<Str<'_>>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Str(text)) => Ok(Some(text)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn read_list(&self, key: &[u8]) -> Result<Option<&List>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::List(list)) => Ok(Some(list)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn read_set(&self, key: &[u8]) -> Result<Option<&Set>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Set(set)) => Ok(Some(set)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn read_hash(&self, key: &[u8]) -> Result<Option<&Hash>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn read_zset(&self, key: &[u8]) -> Result<Option<&Zset>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Zset(zset)) => Ok(Some(zset)),
            Some(_) => Err(WrongType),
        }
    }

    /// Whether blocked clients stand in the queue of a key.
    pub fn has_waiters(&self, key: &[u8]) -> bool {
        let shard = self.shard(Engine::shard_of(self.engine.hash(key)));
        !shard.waiters.is_empty()
            && shard
                .waiters
                .get(&(self.db, Box::from(key)))
                .is_some_and(|queue| queue.iter().any(|waiter| !waiter.is_done()))
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// A collection type that a key can hold.
pub trait Kind: Sized + Send + 'static {
    fn empty() -> Self;
    fn is_empty(&self) -> bool;
    fn of(collection: &Collection) -> Option<&Self>;
    fn of_mut(collection: &mut Collection) -> Option<&mut Self>;
    fn wrap(self) -> Collection;
}

macro_rules! kind {
    ($type:ident) => {
        impl Kind for $type {
            fn empty() -> Self {
                $type::new()
            }
            fn is_empty(&self) -> bool {
                $type::is_empty(self)
            }
            fn of(collection: &Collection) -> Option<&Self> {
                match collection {
                    Collection::$type(inner) => Some(inner),
                    _ => None,
                }
            }
            fn of_mut(collection: &mut Collection) -> Option<&mut Self> {
                match collection {
                    Collection::$type(inner) => Some(inner),
                    _ => None,
                }
            }
            fn wrap(self) -> Collection {
                Collection::$type(self)
            }
        }
    };
}

kind!(List);
kind!(Set);
kind!(Hash);
kind!(Zset);

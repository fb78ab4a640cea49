//! A transaction: the guard through which every command, MULTI block and script sees the keyspace.
//!
//! It holds the locks of its plan from `begin` to `commit` and sees one `now`. Reads borrow it
//! shared, so several values can be looked at together; all changes go through the door
//! (`door/`).

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use lock_api::{RawMutex as _, RawMutexTimed as _};
use smallvec::SmallVec;

use crate::change::{Change, Changes};
use crate::engine::Engine;
use crate::entry::{Entry, EntryRef, ValueRef};
use crate::notice::Notices;
use crate::shard::{SHARDS, ShardData, same};
use crate::snapshot::Epoch;
use crate::sync::RawMutex;
use crate::undo::Recorder;
use crate::wait::KeyName;
use crate::worker::Worker;
use crate::{Collection, Str, access};
use data::{Hash, Json, List, Set, Stream, Zset};

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

    pub fn shard(shard: u16) -> Plan {
        Plan::Shards(SmallVec::from_slice(&[shard]))
    }

    /// Sorts and deduplicates.
    pub fn shards(mut shards: SmallVec<[u16; 4]>) -> Plan {
        match bits_of(&shards) {
            Some(bits) => {
                // No more of them than there were.
                let mut places = shards.iter_mut();
                let mut count = 0;
                for (word, &bits) in bits.iter().enumerate() {
                    let mut left = bits;
                    while left != 0
                        && let Some(place) = places.next()
                    {
                        *place = (word * 64) as u16 + left.trailing_zeros() as u16;
                        left &= left - 1;
                        count += 1;
                    }
                }
                shards.truncate(count);
            }
            None => {
                shards.sort_unstable();
                shards.dedup();
            }
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
    /// FLUSHALL was among them.
    pub flushed_all: bool,
    /// Place of what was logged in the journal; 0 when nothing was.
    pub sequence: u64,
    /// What its client is to be sent behind its reply.
    pub pushes: Vec<u8>,
}

/// Expired keys that one transaction notes for removal, so that a script reading one in a loop
/// does not fill memory. The others are left to the next reader or active expiry.
const EXPIRED_NOTED_MAX: usize = 64;

/// The key that the running command works on, with its hash. It is known by its place in memory,
/// so it must be forgotten before the memory may hold something else.
struct Hashed {
    address: usize,
    len: usize,
    hash: u64,
}

impl Hashed {
    const NONE: Hashed = Hashed { address: 0, len: 0, hash: 0 };
}

/// The entry that a script's transaction found last: its calls often come back to one key.
#[derive(Clone, Copy)]
struct Found {
    db: u32,
    hash: u64,
    /// Its place in its table; null when there is none.
    slot: *const Entry,
    /// The undo log has all of what it was.
    is_saved: bool,
    /// It is an integer, and whatever a change of it needs beside the number is done.
    is_counter: bool,
}

impl Found {
    const NOTHING: Found =
        Found { db: 0, hash: 0, slot: std::ptr::null(), is_saved: false, is_counter: false };
}

/// The guard. Dropping it releases the locks; `commit` does so and hands over the effects. While
/// it records (`undo`), its changes can be rolled back, and dropping it does that too.
pub struct Txn<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) worker: &'e Worker,
    plan: Plan,
    /// The shard a walk holds at present.
    walking: Option<u16>,
    /// How long a walk waits for a shard; `None` for as long as it takes.
    patience: Option<Duration>,
    /// The shard that a walk could not have. It is over then.
    obstacle: Option<u16>,
    pub(crate) db: u32,
    pub(crate) now_ms: i64,
    /// What the access clock of a key used now says; none under LFU, where that depends on the key.
    pub(crate) lru_clock: Option<u32>,
    /// Keys that a read found expired; removed at commit.
    expired: RefCell<Vec<KeyName>>,
    pub(crate) effects: Effects,
    /// CLIENT NO-TOUCH: reads leave the access clock alone.
    pub(crate) no_touch: bool,
    /// While it records: what puts everything back.
    pub(crate) undo: Option<Box<Recorder>>,
    /// Whether somebody wants to know of changes: the change log, or those who listen.
    logs: bool,
    /// Whether it is the change log.
    fills_log: bool,
    /// What those who listen are to be told; none when nobody does.
    pub(crate) notices: Option<Box<RefCell<Notices>>>,
    /// The client whose doing it is.
    pub(crate) client: u64,
    /// What entries must have that need not be saved for a snapshot before they change.
    pub(crate) epoch: Epoch,
    /// Those logged so far.
    pub(crate) changes: Option<Box<Changes>>,
    /// The script it belongs to, as a number that others can stop; 0 for none.
    run: u64,
    hashed: Hashed,
    found: Cell<Found>,
    /// What was found last is the entry of the key hashed last.
    is_hashed: Cell<bool>,
    /// A shard that is held; a guess that spares a search.
    held_last: u16,
    /// The shards held, a bit each, if they are many.
    held_bits: Option<Box<[u64; SHARDS / 64]>>,
    locked: bool,
}

impl<'e> Txn<'e> {
    /// Takes the locks of the plan. The caller has entered its worker's gate, or all of them for
    /// an exclusive plan, and keeps them until the transaction ends.
    pub fn begin(engine: &'e Engine, worker: &'e Worker, plan: Plan, now_ms: i64) -> Txn<'e> {
        match Txn::try_begin(engine, worker, plan, now_ms, None) {
            Ok(txn) => txn,
            Err(_) => unreachable!("nobody waits for ever and gives up"),
        }
    }

    /// The same with a limit to the patience. The error is a shard that could not be had; then no
    /// lock is held. A walk begins in any case: see `obstacle`.
    pub fn try_begin(
        engine: &'e Engine,
        worker: &'e Worker,
        plan: Plan,
        now_ms: i64,
        patience: Option<Duration>,
    ) -> Result<Txn<'e>, u16> {
        let mut txn = Txn::idle(engine, worker, now_ms);
        txn.lock(plan, patience)?;
        Ok(txn)
    }

    /// A transaction that holds nothing: it begins when it takes its locks.
    pub fn idle(engine: &'e Engine, worker: &'e Worker, now_ms: i64) -> Txn<'e> {
        Txn {
            engine,
            worker,
            plan: Plan::none(),
            walking: None,
            patience: None,
            obstacle: None,
            db: 0,
            now_ms,
            lru_clock: (!worker.settings.policy.is_lfu()).then(|| access::lru_clock(now_ms)),
            expired: RefCell::default(),
            effects: Effects::default(),
            no_touch: false,
            undo: None,
            logs: false,
            fills_log: false,
            notices: None,
            client: 0,
            epoch: Epoch::default(),
            changes: None,
            run: 0,
            hashed: Hashed::NONE,
            found: Cell::new(Found::NOTHING),
            is_hashed: Cell::new(false),
            held_last: u16::MAX,
            held_bits: None,
            locked: false,
        }
    }

    /// Takes the locks of the plan, as `try_begin` does. Once only, and before anything else.
    #[inline]
    pub fn lock(&mut self, plan: Plan, patience: Option<Duration>) -> Result<(), u16> {
        assert!(!self.locked, "a transaction has one plan");
        if let Plan::Shards(shards) = &plan {
            lock_all(self.engine, shards, patience)?;
            self.held_bits = bits_of(shards);
        }
        (self.plan, self.patience, self.locked) = (plan, patience, true);
        // What others may have begun meanwhile to wish to know.
        let is_tracked = self.engine.is_tracking();
        if is_tracked || !self.worker.settings.events.is_empty() {
            self.notices = Some(notices_of(self.worker, is_tracked));
        }
        self.fills_log = self.engine.is_logging();
        self.logs = self.fills_log || self.notices.is_some();
        self.epoch = self.engine.snapshots.epoch();
        Ok(())
    }

    /// Adds shards to the plan while it runs. Others may hold them and wait for one of ours, so
    /// this must not wait for ever: false when one could not be had in time, and then none of
    /// them was added.
    #[must_use]
    #[inline]
    pub fn extend(&mut self, shards: &[u16], patience: Duration) -> bool {
        shards.iter().all(|&shard| self.holds(shard)) || self.extend_slowly(shards, patience)
    }

    fn extend_slowly(&mut self, shards: &[u16], patience: Duration) -> bool {
        let held = match &self.plan {
            Plan::Exclusive => return true,
            Plan::Walk => return false,
            Plan::Shards(held) => held,
        };
        let is_missing = |shard: &&u16| held.binary_search(shard).is_err();
        let mut missing: SmallVec<[u16; 4]> = shards.iter().filter(is_missing).copied().collect();
        missing.sort_unstable();
        missing.dedup();
        if lock_all(self.engine, &missing, Some(patience)).is_err() {
            return false;
        }
        self.look_for_listeners();
        if let Plan::Shards(held) = &mut self.plan {
            held.extend(missing);
            held.sort_unstable();
            self.held_bits = bits_of(held);
        }
        true
    }

    /// Whether the shard of this key is held. Until `forget_key`, which must come before the key's
    /// memory is used for anything else, the key is not hashed again.
    #[inline(always)]
    pub fn expect_key(&mut self, key: &[u8]) -> bool {
        let found = *self.found.get_mut();
        // SAFETY: as in `found_last`.
        if let Some(entry) = unsafe { found.slot.as_ref() }
            && found.db == self.db
            && same(entry.key(), key)
        {
            let (address, len) = (key.as_ptr().addr(), key.len());
            self.hashed = Hashed { address, len, hash: found.hash };
            *self.is_hashed.get_mut() = true;
            return true;
        }
        self.expect_other_key(key)
    }

    fn expect_other_key(&mut self, key: &[u8]) -> bool {
        let hash = self.engine.hash(key);
        self.hashed = Hashed { address: key.as_ptr().addr(), len: key.len(), hash };
        *self.is_hashed.get_mut() = false;
        let shard = Engine::shard_of(hash);
        let holds = self.holds(shard);
        if holds && self.plan != Plan::Walk {
            self.held_last = shard;
        }
        holds
    }

    #[inline]
    pub fn forget_key(&mut self) {
        self.hashed.address = Hashed::NONE.address;
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        match self.is_expected(key) {
            true => self.hashed.hash,
            false => self.engine.hash(key),
        }
    }

    /// Whether this is the key of `expect_key`.
    #[inline]
    fn is_expected(&self, key: &[u8]) -> bool {
        // No slice is at address 0.
        key.as_ptr().addr() == self.hashed.address && key.len() == self.hashed.len
    }

    #[inline]
    fn found_last(&self, key: &[u8]) -> Option<Found> {
        let found = self.found.get();
        if self.is_expected(key) {
            // Compared already.
            let is_it = self.is_hashed.get() && found.db == self.db && !found.slot.is_null();
            return is_it.then_some(found);
        }
        // SAFETY: it was found in a shard that this transaction still holds, and whatever may move
        // or free entries goes through `shard_mut`, which forgets it.
        let entry = unsafe { found.slot.as_ref() }?;
        (found.db == self.db && same(entry.key(), key)).then_some(found)
    }

    /// Whether this is the entry found last, and the undo log has all of what it was.
    #[inline]
    pub(crate) fn is_known_saved(&self, entry: EntryRef) -> bool {
        let found = self.found.get();
        // SAFETY: as in `found_last`.
        found.is_saved && unsafe { found.slot.as_ref() }.map(Entry::address) == Some(entry)
    }

    /// The undo log has all of what this entry was.
    pub(crate) fn note_saved(&self, entry: EntryRef) {
        let found = self.found.get();
        // SAFETY: as in `found_last`.
        if unsafe { found.slot.as_ref() }.map(Entry::address) == Some(entry) {
            self.found.set(Found { is_saved: true, ..found });
        }
    }

    /// The undo log begins anew: it has nothing yet.
    pub(crate) fn forget_found(&self) {
        self.found.set(Found::NOTHING);
    }

    /// The entry of a key, expired or not.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        if self.is_hashed.get() && self.is_expected(key) {
            let found = self.found.get();
            // SAFETY: as in `found_last`.
            if let Some(entry) = unsafe { found.slot.as_ref() }
                && found.db == self.db
            {
                return Some(entry);
            }
        }
        self.look_up(hash, key)
    }

    fn look_up(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        // Which key it is was found out already if it is the expected one.
        let is_expected = self.is_expected(key);
        if (!is_expected || self.is_hashed.get())
            && let Some(found) = self.found_last(key)
        {
            // SAFETY: as in `found_last`; changes need `&mut self`.
            return unsafe { found.slot.as_ref() };
        }
        let entry = self.shard(Engine::shard_of(hash)).db(self.db)?.find(hash, key)?;
        if self.run != 0 {
            self.found.set(Found { db: self.db, hash, slot: entry, ..Found::NOTHING });
            self.is_hashed.set(is_expected);
        }
        Some(entry)
    }

    /// The key's entry if it was counted before in this transaction and needs no care.
    #[inline]
    pub(crate) fn counter(&self, key: &[u8]) -> Option<EntryRef> {
        let found = self.found_last(key).filter(|found| found.is_counter)?;
        // SAFETY: as in `found_last`.
        unsafe { found.slot.as_ref() }.map(Entry::address)
    }

    /// This integer was counted. If nobody else watches its shard and it is saved, as far as that
    /// is needed, the next time is only about the number: its expiry and clock are those of now.
    #[inline]
    pub(crate) fn note_counted(&self, hash: u64, entry: EntryRef) {
        let found = self.found.get();
        let is_counter = (found.is_saved || !self.is_recording())
            && !found.is_counter
            && !self.logs
            && self.lru_clock.is_some()
            && !self.shard(Engine::shard_of(hash)).is_observed
            // SAFETY: as in `found_last`.
            && unsafe { found.slot.as_ref() }.map(Entry::address) == Some(entry);
        if is_counter {
            self.found.set(Found { is_counter: true, ..found });
        }
    }

    /// The shards held now, ascending; none of an exclusive plan.
    pub fn held(&self) -> &[u16] {
        match &self.plan {
            Plan::Shards(held) => held,
            Plan::Exclusive | Plan::Walk => &[],
        }
    }

    /// The shard that ended a walk because it could not be had in time: what the walk answered
    /// is to be forgotten.
    pub fn obstacle(&self) -> Option<u16> {
        self.obstacle
    }

    /// Ends the transaction: its changes become visible to others.
    // Inlined, or the transaction would be copied to be given away.
    #[inline(always)]
    pub fn commit(mut self) -> Effects {
        self.end()
    }

    fn end(&mut self) -> Effects {
        let log = self.keep_changes();
        for (db, key) in std::mem::take(self.expired.get_mut()) {
            self.db = db;
            self.remove_if_expired(&key);
        }
        self.publish();
        self.worker.spare_notices.set(self.notices.take());
        self.unlock();
        if let Some(log) = log {
            self.drop_log(log);
        }
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
            self.publish();
            // SAFETY: `walk_to` locked it on this thread.
            unsafe { self.engine.shards[shard as usize].lock.unlock() };
        }
    }

    /// Makes the walk hold this shard; nothing to do under the other plans. False when it could
    /// not be had in time, now or before.
    #[must_use]
    pub(crate) fn walk_to(&mut self, shard: u16) -> bool {
        if self.plan != Plan::Walk || self.walking == Some(shard) {
            return true;
        }
        self.leave_walk();
        if self.obstacle.is_none() {
            let lock = &self.engine.shards[shard as usize].lock;
            match lock_within(lock, self.patience) {
                true => {
                    self.walking = Some(shard);
                    self.look_for_listeners();
                }
                false => self.obstacle = Some(shard),
            }
        }
        self.obstacle.is_none()
    }

    /// More locks were taken. Somebody who tracks keys may have read one there since this began, and
    /// would not hear of it; of the keys that were locked before, nobody did.
    #[inline]
    fn look_for_listeners(&mut self) {
        if self.notices.is_none() && self.engine.is_tracking() {
            self.notices = Some(notices_of(self.worker, true));
            self.logs = true;
            self.forget_found();
        }
    }

    /// Notes a change in the log alone.
    #[inline]
    pub(crate) fn log(&mut self, key: &[u8], change: Change<'_>) {
        if self.logs {
            self.log_now(key, &change);
        }
    }

    /// Notes a change for all who want to know.
    #[inline]
    pub(crate) fn log_and_note(&mut self, key: &[u8], change: Change<'_>) {
        if self.logs {
            self.note_change(key, &change);
            self.log_now(key, &change);
        }
    }

    /// Whether somebody wants to know of changes: what is needed for that alone may be left out
    /// otherwise.
    #[inline]
    pub(crate) fn logs(&self) -> bool {
        self.logs
    }

    #[inline(never)]
    pub(crate) fn log_now(&mut self, key: &[u8], change: &Change<'_>) {
        if !self.fills_log {
            return;
        }
        let (worker, db) = (self.worker, self.db);
        let spare = || worker.spare_changes.take().unwrap_or_default();
        self.changes.get_or_insert_with(spare).add_change(db, key, change);
    }

    /// Logs the changes from here on, though nobody else may want to know. Answers a mark.
    pub(crate) fn start_logging(&mut self) -> usize {
        (self.logs, self.fills_log) = (true, true);
        self.forget_found();
        self.mark_changes()
    }

    /// Logs no more, unless all changes are logged. What was must have been rolled back.
    pub(crate) fn stop_logging(&mut self) {
        self.fills_log = self.engine.is_logging();
        self.logs = self.fills_log || self.notices.is_some();
    }

    pub(crate) fn mark_changes(&mut self) -> usize {
        self.changes.as_mut().map_or(0, |changes| changes.mark())
    }

    pub(crate) fn cut_changes_back(&mut self, mark: usize) {
        if let Some(changes) = &mut self.changes {
            changes.cut_back(mark);
        }
    }

    /// Hands what was logged to the journal, and tells those who listen. The locks are still held.
    #[inline]
    fn publish(&mut self) {
        if self.changes.is_some() {
            self.publish_now();
        }
        if self.notices.is_some() {
            self.tell_notices();
        }
    }

    fn publish_now(&mut self) {
        let Some(mut changes) = self.changes.take() else { return };
        if self.engine.is_logging()
            && !changes.is_empty()
            && let Some(journal) = self.engine.journal()
        {
            self.effects.sequence = journal.append(&changes);
        }
        changes.clear();
        self.worker.spare_changes.set(Some(changes));
    }

    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    pub fn worker(&self) -> &'e Worker {
        self.worker
    }

    /// Changes made so far.
    pub fn dirty(&self) -> u64 {
        self.effects.dirty
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

    /// From here on the transaction belongs to this run of a script; 0 to none.
    pub fn set_run(&mut self, run: u64) {
        self.run = run;
        self.forget_key();
    }

    /// Whether the script is to end, killed or past its deadline. Commands look here in loops
    /// that can take more than a few ms, and give up with an error.
    #[inline]
    pub fn should_stop(&self) -> bool {
        self.run != 0 && self.worker.is_stopped(self.run)
    }

    /// The same for changes of many elements in one command: they break off only where all of it
    /// will be rolled back, so that nobody sees the half of a command.
    #[inline]
    pub(crate) fn may_break_off(&self) -> bool {
        self.is_recording() && self.should_stop()
    }

    /// Frees a collection that was made and is not needed, a large one in the background.
    pub fn discard(&self, collection: Collection) {
        self.engine.discard(crate::entry::Entry::value(b"", collection.into(), None));
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

    #[inline]
    pub(crate) fn holds(&self, shard: u16) -> bool {
        shard == self.held_last || self.looks_held(shard)
    }

    fn looks_held(&self, shard: u16) -> bool {
        match &self.plan {
            Plan::Exclusive => true,
            Plan::Walk => self.walking == Some(shard),
            Plan::Shards(held) => match &self.held_bits {
                None => held.contains(&shard),
                Some(bits) => {
                    let word = bits.get(usize::from(shard) / 64);
                    word.is_some_and(|word| word >> (shard % 64) & 1 == 1)
                }
            },
        }
    }

    #[inline]
    pub(crate) fn shard(&self, shard: u16) -> &ShardData {
        assert!(self.holds(shard), "a command touched a key outside its lock plan");
        // SAFETY: this transaction holds the shard's lock or the exclusive gate; writers need
        // `&mut self`, so no exclusive reference exists beside this shared one.
        unsafe { &*self.engine.shards[shard as usize].data.get() }
    }

    #[inline]
    pub(crate) fn shard_mut(&mut self, shard: u16) -> &mut ShardData {
        self.forget_found();
        assert!(self.holds(shard), "a command touched a key outside its lock plan");
        // SAFETY: as above, and `&mut self` rules out other references from this transaction.
        unsafe { &mut *self.engine.shards[shard as usize].data.get() }
    }

    /// The live entry of a key: neither statistics nor access clock change.
    #[inline]
    pub fn peek(&self, key: &[u8]) -> Option<&Entry> {
        let hash = self.hash(key);
        let entry = self.find(hash, key)?;
        if entry.is_expired(self.now_ms) {
            self.note_expired(key);
            return None;
        }
        Some(entry)
    }

    #[cold]
    fn note_expired(&self, key: &[u8]) {
        let mut expired = self.expired.borrow_mut();
        if expired.len() < EXPIRED_NOTED_MAX {
            self.note_expired_once(key);
            expired.push((self.db, key.into()));
        }
    }

    /// The live entry of a key, as a command that reads it: counts a hit or a miss and touches
    /// the access clock.
    #[inline]
    pub fn read(&self, key: &[u8]) -> Option<&Entry> {
        let found = self.probe(key);
        if let Some(entry) = found {
            self.touch(entry);
        }
        found
    }

    /// The live entry of a key, as a command that asks about it (EXISTS, TTL): counts a hit or a
    /// miss and leaves the access clock alone.
    #[inline]
    pub fn probe(&self, key: &[u8]) -> Option<&Entry> {
        let found = self.peek(key);
        match found {
            Some(_) => self.worker.stats.keyspace_hits.add(1),
            None => {
                self.worker.stats.keyspace_misses.add(1);
                self.note_miss(key);
            }
        }
        found
    }

    /// The live entry of a key, as a command that may change it looks it up: counts neither a hit nor
    /// a miss, and touches the access clock, which is so for commands that change nothing in the
    /// end, too. Under LFU the change is what counts as a use, so that one command counts once.
    #[inline]
    pub fn look(&self, key: &[u8]) -> Option<&Entry> {
        let found = self.peek(key);
        if let (Some(entry), Some(_)) = (found, self.lru_clock) {
            self.touch(entry);
        }
        found
    }

    #[inline]
    pub(crate) fn touch(&self, entry: &Entry) {
        if self.no_touch {
            return;
        }
        match self.lru_clock {
            Some(clock) if clock == entry.access() => {}
            Some(clock) => entry.set_access(clock),
            None => access::lfu_touch(entry, self.worker, self.now_ms),
        }
    }

    /// The access clock of a key that is created now.
    #[inline]
    pub(crate) fn fresh_clock(&self) -> u32 {
        self.lru_clock.unwrap_or_else(|| access::lfu_fresh(self.now_ms))
    }

    pub fn exists(&self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    #[inline]
    pub fn read_string(&self, key: &[u8]) -> Result<Option<Str<'_>>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Str(text)) => Ok(Some(text)),
            Some(_) => Err(WrongType),
        }
    }

    /// The text of a string that is stored as such, read as by `read_string`. `None`, and nothing was
    /// counted, for anything else.
    #[inline]
    pub fn read_text(&self, key: &[u8]) -> Option<&[u8]> {
        let entry = self.peek(key)?;
        let ValueRef::Str(Str::Bytes(text)) = entry.get() else { return None };
        self.worker.stats.keyspace_hits.add(1);
        self.touch(entry);
        Some(text)
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

    pub fn read_stream(&self, key: &[u8]) -> Result<Option<&Stream>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Stream(stream)) => Ok(Some(stream)),
            Some(_) => Err(WrongType),
        }
    }

    pub fn read_json(&self, key: &[u8]) -> Result<Option<&Json>, WrongType> {
        match self.read(key).map(Entry::get) {
            None => Ok(None),
            Some(ValueRef::Json(json)) => Ok(Some(json)),
            Some(_) => Err(WrongType),
        }
    }

    /// Whether blocked clients stand in the queue of a key.
    pub fn has_waiters(&self, key: &[u8]) -> bool {
        let shard = self.shard(Engine::shard_of(self.engine.hash(key)));
        shard.is_observed
            && shard
                .waiters
                .get(&(self.db, Box::from(key)))
                .is_some_and(|queue| queue.iter().any(|waiter| !waiter.is_done()))
    }
}

#[cold]
fn notices_of(worker: &Worker, is_tracked: bool) -> Box<RefCell<Notices>> {
    let mut notices = worker.spare_notices.take().unwrap_or_default();
    let fresh = notices.get_mut();
    (fresh.classes, fresh.is_tracked) = (worker.settings.events, is_tracked);
    notices
}

/// More shards than these are found by their bits.
const LINEAR_SHARDS_MAX: usize = 8;

#[inline]
fn bits_of(shards: &[u16]) -> Option<Box<[u64; SHARDS / 64]>> {
    (shards.len() > LINEAR_SHARDS_MAX).then(|| {
        let mut bits = Box::new([0; SHARDS / 64]);
        for &shard in shards {
            bits[usize::from(shard) / 64] |= 1 << (shard % 64);
        }
        bits
    })
}

/// Locks a shard; false when it could not be had in time.
fn lock_within(lock: &RawMutex, patience: Option<Duration>) -> bool {
    match patience {
        None => {
            lock.lock();
            true
        }
        Some(patience) => lock.try_lock() || (!patience.is_zero() && lock.try_lock_for(patience)),
    }
}

/// Locks all of these shards, which ascend, or none: then the error is the one that was not had
/// in time.
#[inline]
fn lock_all(engine: &Engine, shards: &[u16], patience: Option<Duration>) -> Result<(), u16> {
    // Counted from the first lock that is not free.
    let mut deadline = None;
    for (index, &shard) in shards.iter().enumerate() {
        let lock = &engine.shards[shard as usize].lock;
        let Some(patience) = patience else {
            lock.lock();
            continue;
        };
        if lock.try_lock() {
            continue;
        }
        let had = !patience.is_zero() && {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + patience);
            lock.try_lock_until(deadline)
        };
        if !had {
            for &shard in &shards[..index] {
                // SAFETY: locked above.
                unsafe { engine.shards[shard as usize].lock.unlock() };
            }
            return Err(shard);
        }
    }
    Ok(())
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        if self.undo.is_some() && !std::thread::panicking() {
            self.roll_back();
        }
        self.publish();
        self.worker.spare_notices.set(self.notices.take());
        self.unlock();
    }
}

/// A collection type that a key can hold.
pub trait Kind: Sized + Send + 'static {
    fn empty() -> Self;
    /// Whether it holds so little that its key goes.
    fn is_empty(&self) -> bool;
    fn of(collection: &Collection) -> Option<&Self>;
    fn of_mut(collection: &mut Collection) -> Option<&mut Self>;
    fn wrap(self) -> Collection;
}

macro_rules! kind {
    ($type:ident, $is_empty:expr) => {
        impl Kind for $type {
            fn empty() -> Self {
                $type::new()
            }
            fn is_empty(&self) -> bool {
                $is_empty(self)
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

kind!(List, List::is_empty);
kind!(Set, Set::is_empty);
kind!(Hash, Hash::is_empty);
kind!(Zset, Zset::is_empty);
// A stream stays when its entries are gone: its ids go on.
kind!(Stream, |_| false);
// Its root is a value, too.
kind!(Json, |_| false);

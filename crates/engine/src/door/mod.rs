//! The one door: every change of a key passes here.
//!
//! Behind it, and nowhere else, stand lazy expiry, the index of keys with an expiry, WATCH,
//! waking blocked clients, the dirty counter, undo, snapshots, the change log and the notices for
//! those who listen. A handler that forgets one of them cannot exist.

mod hash;
mod hyperloglog;
mod json;
mod list;
mod logged;
mod set;
mod stream;
mod stream_group;
mod text;
mod zset;

use std::marker::PhantomData;
use std::ops::Deref;

use data::{Encoding, Hash, Limits, List, Set, Stream, Zset};

use crate::change::Change;
use crate::engine::Engine;
use crate::entry::{Collection, Entry, EntryRef, Str, Value, ValueRef};
use crate::notice::{Cause, Event};
use crate::txn::{Kind, Txn, WrongType};
use crate::undo::{Edits, Log, Small};

pub use hyperloglog::NotObserved;

/// Elements between two looks whether the script that changes them is to end.
const LOOKS_EVERY: usize = 4096;

/// What becomes of the expiry when a value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Clear,
    Keep,
    /// Unix time in ms.
    At(i64),
}

/// Why a value was not incremented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIncremented {
    WrongType,
    NotInteger,
    Overflow,
}

impl<'e> Txn<'e> {
    /// Notes a change of a key.
    #[inline(always)]
    fn changed(&mut self, hash: u64, key: &[u8], change: Change<'_>) {
        self.log_and_note(key, change);
        self.announce(hash, key);
    }

    /// Notes a change of a key that was logged already.
    #[inline]
    fn announce(&mut self, hash: u64, key: &[u8]) {
        self.effects.dirty += 1;
        if self.shard(Engine::shard_of(hash)).is_observed {
            self.changed_in_sight(hash, key, true);
        }
    }

    /// The same for a change that nobody can be waiting for.
    fn announce_quietly(&mut self, hash: u64, key: &[u8]) {
        self.effects.dirty += 1;
        if self.shard(Engine::shard_of(hash)).is_observed {
            self.changed_in_sight(hash, key, false);
        }
    }

    /// The same for a key whose time was over. That it is removed now changes nothing for those who
    /// watch it: EXEC finds out by itself whether its time had come when it was watched.
    fn announce_expired(&mut self, hash: u64, key: &[u8]) {
        self.effects.dirty += 1;
        let shard = self.shard(Engine::shard_of(hash));
        if shard.is_observed && !shard.waiters.is_empty() {
            let name = (self.db, Box::from(key));
            if shard.waiters.contains_key(&name) && !self.effects.ready.contains(&name) {
                self.effects.ready.push(name);
            }
        }
    }

    #[cold]
    fn changed_in_sight(&mut self, hash: u64, key: &[u8], may_wake: bool) {
        let (db, recording) = (self.db, self.is_recording());
        let shard = self.shard_mut(Engine::shard_of(hash));
        if shard.watches.is_empty() && shard.waiters.is_empty() {
            shard.is_observed = false;
            return;
        }
        let name = (db, Box::from(key));
        let wakes = may_wake && shard.waiters.contains_key(&name);
        if let Some(watches) = shard.watches.get(&name) {
            if recording {
                self.mark_at_commit([name.clone()]);
            } else {
                watches.iter().for_each(|watch| watch.mark());
            }
        }
        if wakes && !self.effects.ready.contains(&name) {
            self.effects.ready.push(name);
        }
    }

    /// Removes the key if its time has come; true when it was there and is gone now.
    pub(crate) fn remove_if_expired(&mut self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let (db, now_ms) = (self.db, self.now_ms);
        let hasher = &self.engine.hasher;
        let shard = self.shard_mut(Engine::shard_of(hash));
        let due = shard
            .db(db)
            .and_then(|db| db.find(hash, key))
            .is_some_and(|entry| entry.is_expired(now_ms));
        if due && let Some(entry) = shard.db_mut(db).remove(hasher, hash, key) {
            self.worker.stats.expired_keys.add(1);
            self.note_expired_once(key);
            self.log(key, Change::Remove);
            self.announce_expired(hash, key);
            self.release(hash, key, Some(entry));
        }
        due
    }

    /// The live entry of a key that is about to change; an expired one is removed.
    fn meet(&mut self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let now_ms = self.now_ms;
        let found = self.find(hash, key)?;
        if found.is_expired(now_ms) {
            self.remove_if_expired(key);
            return None;
        }
        self.preserve(found);
        self.touch(found);
        // SAFETY: the reference is into the slot found above, and nothing has changed since; that
        // the other branch borrows anew is what the borrow checker cannot tell apart.
        Some(unsafe { &*std::ptr::from_ref(found) })
    }

    /// Puts an entry under its key, replacing what is there; true when something was.
    fn place(&mut self, hash: u64, entry: Entry) -> bool {
        let at = entry.address();
        let old = self.put_in(hash, entry);
        // SAFETY: just put in, and `release` moves no entry of a table.
        let key = unsafe { at.entry() }.key();
        let replaced = old.is_some();
        self.release(hash, key, old);
        replaced
    }

    /// Puts an entry under its key and takes out what was there, which `release` is to have. Nothing
    /// is recorded.
    pub(crate) fn put_in(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        if entry.access() == 0 {
            entry.set_access(self.fresh_clock());
        }
        entry.set_epoch(self.epoch.bit());
        let (db, at) = (self.db, entry.address());
        let old = self.put_back(hash, entry);
        if old.is_none() && self.logs() {
            // SAFETY: just put in; a note moves no entry of a table.
            self.note_in(db, unsafe { at.entry() }.key(), Event::NEW, Cause::Client);
        }
        old
    }

    /// The same of an entry that is what it was when it was taken out.
    pub(crate) fn put_back(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        let engine = self.engine;
        let db = self.db;
        let has_expiry = entry.expire_at_ms().is_some();
        let address = entry.address();
        let has_times = entry.has_field_times();
        if has_times {
            engine.note_field_times();
        }
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        tables.field_times.is_due |= has_times;
        let old = match tables.find_mut(hash, entry.key()) {
            Some(slot) => Some(std::mem::replace(slot, entry)),
            None => {
                tables.keys.insert_unique(hash, entry, |entry| engine.hash(entry.key()));
                None
            }
        };
        if let Some(old) = &old
            && old.expire_at_ms().is_some()
        {
            tables.forget_expiry(&engine.hasher, hash, old.address());
        }
        if has_expiry {
            tables.note_expiry(&engine.hasher, hash, address);
        }
        old
    }

    /// SET: stores a string. O(value length).
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        let hash = self.hash(key);
        let expire = match expiry {
            Expiry::At(when) => Some(when),
            Expiry::Clear => None,
            // It may be too long to be saved for a snapshot in passing, which need not be.
            Expiry::Keep => match self.remove_if_expired(key) {
                true => None,
                false => self.find(hash, key).and_then(Entry::expire_at_ms),
            },
        };
        let mut in_place = false;
        if let Some(mut at) =
            self.find(hash, key).filter(|entry| self.preserve_short(entry)).map(Entry::address)
            && (!self.is_recording() || self.note_overwritten(hash, at))
        {
            // SAFETY: found above, and a note moves no entry of a table.
            let entry = unsafe { at.entry_mut() };
            // The index of expiries does not change when both or neither has one.
            let same_index = entry.expire_at_ms().is_some() == expire.is_some();
            in_place = same_index && entry.overwrite_string(value, expire);
            if in_place && let Some(clock) = self.lru_clock {
                entry.set_access(clock);
            }
        }
        if !in_place {
            self.place(hash, Entry::string(key, value, expire));
        }
        self.changed(hash, key, Change::Set { value, expiry });
    }

    /// Stores a whole value, replacing what is there. O(1) beside freeing the old value.
    pub fn put(&mut self, key: &[u8], value: impl Into<Value>, expire_at_ms: Option<i64>) {
        self.put_logged(key, value.into(), expire_at_ms, Txn::log_value);
    }

    /// The same for a stream, which no elements say whole: its dump says it, if one is needed.
    pub fn put_stream(
        &mut self,
        key: &[u8],
        stream: Stream,
        expire_at_ms: Option<i64>,
        dump: impl FnOnce(&Stream) -> Vec<u8>,
    ) {
        let value = Value::Collection(stream.wrap());
        self.put_logged(key, value, expire_at_ms, |txn, entry, _| {
            let stream = entry.collection().and_then(Stream::of).expect("just put in");
            txn.log_now(key, &Change::Restore { payload: &dump(stream) });
            if expire_at_ms.is_some() {
                txn.log_now(key, &Change::Expire { at_ms: expire_at_ms });
            }
        });
    }

    fn put_logged(
        &mut self,
        key: &[u8],
        value: Value,
        expire_at_ms: Option<i64>,
        log: impl FnOnce(&mut Self, &Entry, bool),
    ) {
        let hash = self.hash(key);
        let entry = Entry::value(key, value, expire_at_ms);
        let at = entry.address();
        let replaced = self.place(hash, entry);
        if self.logs() {
            // SAFETY: just put in, and logging moves no entry of a table.
            let entry = unsafe { at.entry() };
            self.note_put(key, entry.value_type());
            log(self, entry, replaced);
        }
        self.announce(hash, key);
    }

    /// Removes a key. Large values are freed on another thread.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.remove_as(key, Event::DEL, Cause::Client)
    }

    /// Removes a key because memory is short.
    pub(crate) fn evict(&mut self, key: &[u8]) {
        self.remove_as(key, Event::EVICTED, Cause::Server);
    }

    fn remove_as(&mut self, key: &[u8], event: Event, cause: Cause) -> bool {
        let hash = self.hash(key);
        let Some(entry) = self.unlink(hash, key) else { return false };
        if self.logs() {
            self.note_in(self.db, key, event, cause);
            self.log_now(key, &Change::Remove);
        }
        self.release(hash, key, Some(entry));
        true
    }

    /// Takes out the live entry of a key; nothing is saved, recorded or logged.
    fn unlink(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        if self.remove_if_expired(key) {
            return None;
        }
        let (db, engine) = (self.db, self.engine);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        let entry = tables.remove(&engine.hasher, hash, key)?;
        self.announce(hash, key);
        Some(entry)
    }

    /// Sets (or with `None` clears) the expiry of an existing key. False when there is no key.
    pub fn set_expire(&mut self, key: &[u8], expire_at_ms: Option<i64>) -> bool {
        let hash = self.hash(key);
        let Some(entry) = self.meet(hash, key) else { return false };
        let before = entry.expire_at_ms();
        self.note_expiry(hash, key, before);
        let (db, engine) = (self.db, self.engine);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        tables.set_expire(&engine.hasher, hash, key, expire_at_ms);
        self.changed(hash, key, Change::Expire { at_ms: expire_at_ms });
        true
    }

    /// Replaces an integer string in place, creating it if need be; the expiry stays.
    pub fn set_integer(&mut self, key: &[u8], value: i64) {
        let hash = self.hash(key);
        let expire = match self.meet(hash, key) {
            Some(entry) => {
                let expire = entry.expire_at_ms();
                if let ValueRef::Str(Str::Int(stored)) = entry.get() {
                    let mut at = entry.address();
                    self.note_int(hash, at, stored, expire);
                    // SAFETY: found above, and a note moves no entry of a table.
                    unsafe { at.entry_mut() }.overwrite_int(value);
                    self.changed_to(hash, key, value);
                    return;
                }
                expire
            }
            None => None,
        };
        self.place(hash, Entry::value(key, Value::Int(value), expire));
        self.changed_to(hash, key, value);
    }

    /// Adds to an integer string where it stands, creating it from 0 if need be; the expiry
    /// stays. One lookup and no allocation when the key holds an integer.
    pub fn increment(&mut self, key: &[u8], by: i64) -> Result<i64, NotIncremented> {
        if let Some(mut at) = self.counter(key) {
            // SAFETY: found in this transaction and not moved since.
            let entry = unsafe { at.entry_mut() };
            if let Some(sum) = entry.add_to_int(by) {
                self.effects.dirty += 1;
                return Ok(sum);
            }
        }
        let hash = self.hash(key);
        if let Some(entry) = self.find(hash, key)
            && let ValueRef::Str(Str::Int(stored)) = entry.get()
            && !entry.is_expired(self.now_ms)
        {
            let sum = stored.checked_add(by).ok_or(NotIncremented::Overflow)?;
            self.preserve(entry);
            self.touch(entry);
            let (mut at, expire) = (entry.address(), entry.expire_at_ms());
            self.note_int(hash, at, stored, expire);
            // SAFETY: found above, and a note moves no entry of a table.
            unsafe { at.entry_mut() }.overwrite_int(sum);
            self.changed_to(hash, key, sum);
            self.note_counted(hash, at);
            return Ok(sum);
        }
        let (stored, expire) = match self.meet(hash, key) {
            None => (0, None),
            Some(entry) => match entry.get() {
                ValueRef::Str(Str::Bytes(bytes)) => {
                    let stored = data::number::parse_i64(bytes);
                    (stored.ok_or(NotIncremented::NotInteger)?, entry.expire_at_ms())
                }
                ValueRef::Str(Str::Int(stored)) => (stored, entry.expire_at_ms()),
                _ => return Err(NotIncremented::WrongType),
            },
        };
        let sum = stored.checked_add(by).ok_or(NotIncremented::Overflow)?;
        self.place(hash, Entry::value(key, Value::Int(sum), expire));
        self.changed_to(hash, key, sum);
        Ok(sum)
    }

    /// Moves a value with its expiry to another key or database, replacing what is there (RENAME,
    /// MOVE). False when there is no key. The plan must cover both keys, which must differ.
    pub fn relocate(&mut self, key: &[u8], to: &[u8], to_db: u32) -> bool {
        let hash = self.hash(key);
        let home = self.db;
        let Some(entry) = self.unlink(hash, key) else { return false };
        self.preserve(&entry);
        let entry = if key == to { entry } else { entry.renamed(to) };
        if self.logs() {
            self.log_move(key, to, to_db);
        }
        if self.is_recording() && !self.is_saved_whole(hash, key) {
            // Undo moves it back. That is a step of its own, so its new place is emptied first.
            let home = std::mem::replace(&mut self.db, to_db);
            let (engine, to_hash) = (self.engine, self.engine.hash(to));
            let tables = self.shard_mut(Engine::shard_of(to_hash)).db_mut(to_db);
            if let Some(old) = tables.remove(&engine.hasher, to_hash, to) {
                self.release(to_hash, to, Some(old));
            }
            self.note_relocated((home, key), (to_db, to));
            self.put_in(to_hash, entry);
            self.announce(to_hash, to);
            self.db = home;
        } else {
            self.arrive(entry, to, to_db);
        }
        if self.logs() {
            let (gone, come) = match home == to_db {
                true => ("rename_from", "rename_to"),
                false => ("move_from", "move_to"),
            };
            self.note_in(home, key, Event::generic(gone), Cause::Client);
            self.note_in(to_db, to, Event::generic(come), Cause::Client);
        }
        true
    }

    /// Copies a value with its expiry to another key or database, replacing what is there (COPY).
    /// False when there is no key, or when the script that does it is to end. O(size of the value).
    pub fn duplicate(&mut self, key: &[u8], to: &[u8], to_db: u32) -> bool {
        let limits = self.limits();
        let goes_on = || !self.should_stop();
        let copy = self.peek(key).and_then(|entry| match entry.collection() {
            None => Some(entry.duplicate(to)),
            Some(collection) => {
                let copy = copied_while(collection, limits, goes_on)?;
                Some(Entry::value(to, copy.into(), entry.expire_at_ms()))
            }
        });
        let Some(entry) = copy else { return false };
        self.log(key, Change::Copy { to, to_db });
        self.arrive(entry, to, to_db);
        self.note_in(to_db, to, Event::generic("copy_to"), Cause::Client);
        true
    }

    fn arrive(&mut self, entry: Entry, to: &[u8], to_db: u32) {
        let home = std::mem::replace(&mut self.db, to_db);
        let hash = self.engine.hash(to);
        if self.place(hash, entry) {
            // What was there went first.
            self.note_in(to_db, to, Event::NEW, Cause::Client);
        }
        self.announce(hash, to);
        self.db = home;
    }

    /// An existing collection, to be changed.
    pub fn write<T: Kind>(&mut self, key: &[u8]) -> Result<Option<Mut<'_, 'e, T>>, WrongType> {
        let hash = self.hash(key);
        match self.meet(hash, key) {
            None => Ok(None),
            Some(entry) if entry.collection().and_then(T::of).is_none() => Err(WrongType),
            Some(entry) => {
                let at = entry.address();
                Ok(Some(Mut::new(self, hash, at)))
            }
        }
    }

    /// A collection to be changed, created when there is none. It is gone again if it is still
    /// empty when the handle is dropped.
    pub fn write_or_create<T: Kind>(&mut self, key: &[u8]) -> Result<Mut<'_, 'e, T>, WrongType> {
        let hash = self.hash(key);
        let at = match self.meet(hash, key) {
            Some(entry) if entry.collection().and_then(T::of).is_none() => return Err(WrongType),
            Some(entry) => entry.address(),
            None => {
                let entry = Entry::value(key, Value::Collection(T::empty().wrap()), None);
                let at = entry.address();
                self.place(hash, entry);
                at
            }
        };
        Ok(Mut::new(self, hash, at))
    }
}

/// A deep copy of a collection; `None` if it was not to go on.
fn copied_while(
    collection: &Collection,
    limits: &Limits,
    goes_on: impl Fn() -> bool,
) -> Option<Collection> {
    // Compact ones are copied in one go, and small ones too.
    const ELEMENTS_MIN: usize = 100_000;
    let mut steps = 0_usize;
    let mut pace = || {
        steps += 1;
        !steps.is_multiple_of(LOOKS_EVERY) || goes_on()
    };
    // What is a table or a tree stays one whatever the limits are now.
    let forced = Limits {
        set_max_intset_entries: 0,
        set_max_listpack_entries: 0,
        hash_max_listpack_entries: 0,
        zset_max_listpack_entries: 0,
        ..*limits
    };
    let (len, encoding) = match collection {
        Collection::Hash(hash) if hash.has_times() => return Some(collection.clone()),
        Collection::List(list) => (list.len(), list.encoding()),
        Collection::Set(set) => (set.len(), set.encoding()),
        Collection::Hash(hash) => (hash.len(), hash.encoding()),
        Collection::Zset(zset) => (zset.len(), zset.encoding()),
        // Their blocks and nodes are copied in one go.
        Collection::Stream(_) | Collection::Json(_) => return Some(collection.clone()),
    };
    if len < ELEMENTS_MIN || matches!(encoding, Encoding::Listpack | Encoding::Intset) {
        return Some(collection.clone());
    }
    match collection {
        Collection::List(list) => {
            let mut copy = List::new();
            list.iter()
                .all(|element| {
                    copy.push_back(element, limits);
                    pace()
                })
                .then_some(Collection::List(copy))
        }
        Collection::Set(set) => {
            let mut copy = Set::new();
            copy.prepare(len, &forced);
            set.iter()
                .all(|member| {
                    copy.add(&member, &forced);
                    pace()
                })
                .then_some(Collection::Set(copy))
        }
        Collection::Hash(hash) => {
            let mut copy = Hash::new();
            copy.prepare(len, &forced);
            hash.iter()
                .all(|(field, value)| {
                    copy.set(field, value, &forced);
                    pace()
                })
                .then_some(Collection::Hash(copy))
        }
        Collection::Zset(zset) => {
            let mut copy = Zset::new();
            copy.prepare(len, 0, &forced);
            zset.iter()
                .all(|(member, score)| {
                    copy.insert(member, score, &forced);
                    pace()
                })
                .then_some(Collection::Zset(copy))
        }
        Collection::Stream(_) | Collection::Json(_) => unreachable!("copied above"),
    }
}

/// A collection being changed: reads go through it, changes through the mutators of its type, in
/// the file of that type. Only what really changed something counts as a change; an empty
/// collection is removed with its key when the handle is dropped.
pub struct Mut<'t, 'e, T: Kind> {
    txn: &'t mut Txn<'e>,
    hash: u64,
    at: EntryRef,
    changed: bool,
    /// Changed in a way that nobody waits for.
    changed_quietly: bool,
    edits: Edits,
    kind: PhantomData<T>,
}

impl<'t, 'e, T: Kind> Mut<'t, 'e, T> {
    fn new(txn: &'t mut Txn<'e>, hash: u64, at: EntryRef) -> Mut<'t, 'e, T> {
        let edits = if txn.is_recording() { Edits::Unknown } else { Edits::Off };
        Mut { txn, hash, at, changed: false, changed_quietly: false, edits, kind: PhantomData }
    }

    /// To be called before every change: where its inverse is to be noted, with the collection
    /// as it still is. `None` when there is nothing to note.
    #[inline]
    fn inverse(&mut self) -> Option<(Log<'_>, &mut T)> {
        self.edits = match self.edits {
            Edits::Off | Edits::Whole => return None,
            Edits::Unknown => self.txn.begin_edit(self.hash, self.at),
            Edits::Deltas(at) => self.txn.go_on_editing(at, self.at),
        };
        let Edits::Deltas(at) = self.edits else { return None };
        let log = self.txn.undo.as_mut().expect("recording").log(at);
        // SAFETY: as in `value`; the log is no part of it.
        let entry = unsafe { self.at.entry_mut() };
        Some((log, entry.collection_mut().and_then(T::of_mut).expect("the door checked the type")))
    }

    /// The same behind a change, where nothing may be saved whole any more.
    fn log(&mut self) -> Option<Log<'_>> {
        let Edits::Deltas(at) = self.edits else { return None };
        Some(self.txn.undo.as_mut().expect("recording").log(at))
    }

    /// Takes all elements out at once: a collection under deltas moves into the log as it is.
    /// Only after `inverse` has answered something.
    fn empty_out(&mut self) {
        let Edits::Deltas(at) = self.edits else { unreachable!("there are deltas") };
        let all = std::mem::replace(self.value(), T::empty());
        // SAFETY: as in `value`; only read here.
        let entry = unsafe { self.at.entry() };
        let (key, expire) = (entry.key(), entry.expire_at_ms());
        self.txn.note_emptied(at, Entry::value(key, Value::Collection(all.wrap()), expire));
        self.edits = Edits::Whole;
    }

    /// Whether the script is to end, so that the rest of a long change need not be made: what was
    /// changed will be rolled back.
    #[inline]
    pub fn may_break_off(&self) -> bool {
        self.txn.may_break_off()
    }

    /// As [`Txn::heard`].
    pub fn heard(&self) -> usize {
        self.txn.heard()
    }

    /// As [`Txn::tell`], of its key.
    pub fn tell(&mut self, event: Event) {
        let at = self.at;
        // SAFETY: as in `value`; only read here.
        self.txn.tell(unsafe { at.entry() }.key(), event);
    }

    /// As [`Txn::tell_as`].
    pub fn tell_as(&mut self, event: Event) {
        self.txn.tell_as(event);
    }

    fn limits(&self) -> &'e Limits {
        self.txn.limits()
    }

    /// To be called behind every change, with what it was.
    #[inline]
    fn did(&mut self, change: Change<'_>) {
        let again = std::mem::replace(&mut self.changed, true);
        self.log_change(change, again);
    }

    /// The same behind a change that nobody can be waiting for.
    fn did_quietly(&mut self, change: Change<'_>) {
        self.changed_quietly = true;
        self.log_change(change, false);
    }

    #[inline]
    fn log_change(&mut self, change: Change<'_>, again: bool) {
        if self.txn.logs() {
            let at = self.at;
            // SAFETY: as in `value`; only read here.
            let key = unsafe { at.entry() }.key();
            self.txn.note_edit(key, &change, again);
            self.txn.log_now(key, &change);
        }
    }

    /// Logs what follows from the change before; nobody is told.
    fn log_only(&mut self, change: Change<'_>) {
        let at = self.at;
        // SAFETY: as in `value`; only read here.
        self.txn.log(unsafe { at.entry() }.key(), change);
    }

    /// To be called behind the change that brought the first element. A collection that was
    /// emptied by this handle is still there with its expiry; replayed, it is a new one.
    #[inline]
    fn did_begin(&mut self) {
        if self.txn.logs() {
            let at = self.at;
            // SAFETY: as in `value`; only read here.
            let entry = unsafe { at.entry() };
            if let Some(when) = entry.expire_at_ms() {
                self.txn.log(entry.key(), Change::Expire { at_ms: Some(when) });
            }
        }
    }

    /// The collection itself, for the mutators.
    fn value(&mut self) -> &mut T {
        // SAFETY: the entry stays where it is while this handle borrows the transaction: nothing
        // else can reach the shard, and the handle never reallocates the entry.
        let entry = unsafe { self.at.entry_mut() };
        entry.collection_mut().and_then(T::of_mut).expect("the door checked the type")
    }
}

impl<T: Kind> Deref for Mut<'_, '_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as in `value`; only read here.
        let entry = unsafe { self.at.entry() };
        entry.collection().and_then(T::of).expect("the door checked the type")
    }
}

impl<T: Kind> Drop for Mut<'_, '_, T> {
    fn drop(&mut self) {
        let empty = T::is_empty(&**self);
        if !empty && !self.changed && !self.changed_quietly {
            return;
        }
        let at = self.at;
        // SAFETY: as in `value`; below it is kept alive until its key was used.
        let entry = unsafe { at.entry() };
        if self.changed {
            self.txn.announce(self.hash, entry.key());
        } else if self.changed_quietly {
            self.txn.announce_quietly(self.hash, entry.key());
        }
        if empty {
            let (db, hasher) = (self.txn.db, &self.txn.engine.hasher);
            let shard = self.txn.shard_mut(Engine::shard_of(self.hash));
            let gone = shard.db_mut(db).remove(hasher, self.hash, entry.key());
            // A key of its own: what is released may be freed.
            let key = Small::from_slice(entry.key());
            match self.changed {
                true => self.txn.note_in(db, &key, Event::DEL, Cause::Client),
                false => self.txn.forget_new(db, &key),
            }
            self.txn.release(self.hash, &key, gone);
        }
    }
}

//! The one door: every change of a key passes here.
//!
//! Behind it, and nowhere else, stand lazy expiry, the index of keys with an expiry, WATCH,
//! waking blocked clients and the dirty counter; undo, snapshots and client tracking will stand
//! here too. A handler that forgets one of them cannot exist.

mod hash;
mod list;
mod set;
mod zset;

use std::marker::PhantomData;
use std::ops::Deref;

use data::Limits;

use crate::access;
use crate::engine::Engine;
use crate::entry::{Entry, EntryRef, Str, Value, ValueRef};
use crate::txn::{Kind, Txn, WrongType};

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
    fn changed(&mut self, hash: u64, key: &[u8]) {
        self.effects.dirty += 1;
        let db = self.db;
        let shard = self.shard_mut(Engine::shard_of(hash));
        if shard.watches.is_empty() && shard.waiters.is_empty() {
            return;
        }
        let name = (db, Box::from(key));
        if let Some(watches) = shard.watches.get(&name) {
            watches.iter().for_each(|watch| watch.mark());
        }
        if shard.waiters.contains_key(&name) && !self.effects.ready.contains(&name) {
            self.effects.ready.push(name);
        }
    }

    /// Removes the key if its time has come; true when it was there and is gone now.
    pub(crate) fn remove_if_expired(&mut self, key: &[u8]) -> bool {
        let hash = self.engine.hash(key);
        let (db, now_ms) = (self.db, self.now_ms);
        let hasher = &self.engine.hasher;
        let shard = self.shard_mut(Engine::shard_of(hash));
        let due = shard
            .db(db)
            .and_then(|db| db.find(hash, key))
            .is_some_and(|entry| entry.is_expired(now_ms));
        if due && let Some(entry) = shard.db_mut(db).remove(hasher, hash, key) {
            self.worker.stats.expired_keys.add(1);
            self.changed(hash, key);
            self.engine.discard(entry);
        }
        due
    }

    /// The live entry behind the door; an expired one is removed first.
    fn open(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let (db, now_ms) = (self.db, self.now_ms);
        let found = self.shard(Engine::shard_of(hash)).db(db)?.find(hash, key)?;
        if found.is_expired(now_ms) {
            self.remove_if_expired(key);
            return None;
        }
        self.touch(found);
        self.shard_mut(Engine::shard_of(hash)).db_mut(db).find_mut(hash, key)
    }

    /// Puts an entry under its key, replacing what is there.
    fn place(&mut self, hash: u64, entry: Entry) {
        let engine = self.engine;
        let db = self.db;
        if entry.access() == 0 {
            entry.set_access(access::fresh(self.worker, self.now_ms));
        }
        let has_expiry = entry.expire_at_ms().is_some();
        let address = entry.address();
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
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
        if let Some(old) = old {
            engine.discard(old);
        }
    }

    /// SET: stores a string. O(value length).
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        let hash = self.engine.hash(key);
        let expire = match expiry {
            Expiry::At(when) => Some(when),
            Expiry::Clear => None,
            Expiry::Keep => match self.open(hash, key) {
                Some(entry) => entry.expire_at_ms(),
                None => None,
            },
        };
        let (db, clock) = (self.db, access::fresh(self.worker, self.now_ms));
        let lfu = self.worker.settings.policy.is_lfu();
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        let mut in_place = false;
        if let Some(entry) = tables.find_mut(hash, key) {
            // The index of expiries does not change when both or neither has one.
            let same_index = entry.expire_at_ms().is_some() == expire.is_some();
            in_place = same_index && entry.overwrite_string(value, expire);
            if in_place && !lfu {
                entry.set_access(clock);
            }
        }
        if !in_place {
            self.place(hash, Entry::string(key, value, expire));
        }
        self.changed(hash, key);
    }

    /// Stores a whole value, replacing what is there. O(1) beside freeing the old value.
    pub fn put(&mut self, key: &[u8], value: impl Into<Value>, expire_at_ms: Option<i64>) {
        let hash = self.engine.hash(key);
        self.place(hash, Entry::value(key, value.into(), expire_at_ms));
        self.changed(hash, key);
    }

    /// Removes a key. Large values are freed on another thread.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.unlink(key).map(|entry| self.engine.discard(entry)).is_some()
    }

    /// Removes a key and hands over its value and expiry.
    pub fn take(&mut self, key: &[u8]) -> Option<(Value, Option<i64>)> {
        self.unlink(key).map(|entry| {
            let expire = entry.expire_at_ms();
            (entry.into_value(), expire)
        })
    }

    fn unlink(&mut self, key: &[u8]) -> Option<Entry> {
        if self.remove_if_expired(key) {
            return None;
        }
        let hash = self.engine.hash(key);
        let (db, engine) = (self.db, self.engine);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        let entry = tables.remove(&engine.hasher, hash, key)?;
        self.changed(hash, key);
        Some(entry)
    }

    /// Sets (or with `None` clears) the expiry of an existing key. False when there is no key.
    pub fn set_expire(&mut self, key: &[u8], expire_at_ms: Option<i64>) -> bool {
        let hash = self.engine.hash(key);
        let Some(entry) = self.open(hash, key) else { return false };
        let had = entry.expire_at_ms().is_some();
        entry.set_expire(expire_at_ms);
        let address = entry.address();
        let (db, engine) = (self.db, self.engine);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        match (had, expire_at_ms.is_some()) {
            (false, true) => tables.note_expiry(&engine.hasher, hash, address),
            (true, false) => tables.forget_expiry(&engine.hasher, hash, address),
            _ => {}
        }
        self.changed(hash, key);
        true
    }

    /// Replaces an integer string in place, creating it if need be; the expiry stays.
    pub fn set_integer(&mut self, key: &[u8], value: i64) {
        let hash = self.engine.hash(key);
        let expire = match self.open(hash, key) {
            Some(entry) => {
                if entry.overwrite_int(value) {
                    self.changed(hash, key);
                    return;
                }
                entry.expire_at_ms()
            }
            None => None,
        };
        self.place(hash, Entry::value(key, Value::Int(value), expire));
        self.changed(hash, key);
    }

    /// Adds to an integer string where it stands, creating it from 0 if need be; the expiry
    /// stays. One lookup and no allocation when the key holds an integer.
    pub fn increment(&mut self, key: &[u8], by: i64) -> Result<i64, NotIncremented> {
        let hash = self.engine.hash(key);
        let (db, now_ms, worker, no_touch) = (self.db, self.now_ms, self.worker, self.no_touch);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        if let Some(entry) = tables.find_mut(hash, key)
            && let ValueRef::Str(Str::Int(stored)) = entry.get()
            && !entry.is_expired(now_ms)
        {
            let sum = stored.checked_add(by).ok_or(NotIncremented::Overflow)?;
            entry.overwrite_int(sum);
            if !no_touch {
                access::touch(entry, worker, now_ms);
            }
            self.changed(hash, key);
            return Ok(sum);
        }
        let (stored, expire) = match self.open(hash, key) {
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
        self.changed(hash, key);
        Ok(sum)
    }

    /// Moves a value with its expiry to another key or database, replacing what is there (RENAME,
    /// MOVE). False when there is no key. The plan must cover both keys, which must differ.
    pub fn relocate(&mut self, key: &[u8], to: &[u8], to_db: u32) -> bool {
        let Some(entry) = self.unlink(key) else { return false };
        let entry = if key == to { entry } else { entry.renamed(to) };
        self.arrive(entry, to, to_db);
        true
    }

    /// Copies a value with its expiry to another key or database, replacing what is there (COPY).
    /// False when there is no key. O(size of the value).
    pub fn duplicate(&mut self, key: &[u8], to: &[u8], to_db: u32) -> bool {
        let Some(entry) = self.peek(key).map(|entry| entry.duplicate(to)) else { return false };
        self.arrive(entry, to, to_db);
        true
    }

    fn arrive(&mut self, entry: Entry, to: &[u8], to_db: u32) {
        let home = std::mem::replace(&mut self.db, to_db);
        let hash = self.engine.hash(to);
        self.place(hash, entry);
        self.changed(hash, to);
        self.db = home;
    }

    /// Edits the bytes of a string (APPEND, SETRANGE), creating an empty one if need be.
    pub fn edit_string<R>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> Result<R, WrongType> {
        let hash = self.engine.hash(key);
        let Some(entry) = self.open(hash, key) else {
            let mut bytes = Vec::new();
            let result = edit(&mut bytes);
            self.place(hash, Entry::raw_string(key, bytes, None));
            self.changed(hash, key);
            return Ok(result);
        };
        if !matches!(entry.get(), ValueRef::Str(_)) {
            return Err(WrongType);
        }
        let expires = entry.expire_at_ms().is_some();
        let before = entry.address();
        let (db, engine) = (self.db, self.engine);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        // The edit may move the entry, so the index lets go of it first.
        if expires {
            tables.forget_expiry(&engine.hasher, hash, before);
        }
        let entry = tables.find_mut(hash, key).expect("found above");
        let result = entry.edit_string(edit);
        let after = entry.address();
        if expires {
            tables.note_expiry(&engine.hasher, hash, after);
        }
        self.changed(hash, key);
        Ok(result)
    }

    /// An existing collection, to be changed.
    pub fn write<T: Kind>(&mut self, key: &[u8]) -> Result<Option<Mut<'_, 'e, T>>, WrongType> {
        let hash = self.engine.hash(key);
        let at = match self.open(hash, key) {
            None => return Ok(None),
            Some(entry) => match entry.collection_mut().map(|c| T::of_mut(c).is_some()) {
                Some(true) => entry.address(),
                _ => return Err(WrongType),
            },
        };
        Ok(Some(Mut { txn: self, hash, at, changed: false, kind: PhantomData }))
    }

    /// A collection to be changed, created when there is none. It is gone again if it is still
    /// empty when the handle is dropped.
    pub fn write_or_create<T: Kind>(&mut self, key: &[u8]) -> Result<Mut<'_, 'e, T>, WrongType> {
        let hash = self.engine.hash(key);
        let at = match self.open(hash, key) {
            Some(entry) => match entry.collection_mut().map(|c| T::of_mut(c).is_some()) {
                Some(true) => entry.address(),
                _ => return Err(WrongType),
            },
            None => {
                let entry = Entry::value(key, Value::Collection(T::empty().wrap()), None);
                let at = entry.address();
                self.place(hash, entry);
                at
            }
        };
        Ok(Mut { txn: self, hash, at, changed: false, kind: PhantomData })
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
    kind: PhantomData<T>,
}

impl<'e, T: Kind> Mut<'_, 'e, T> {
    fn limits(&self) -> &'e Limits {
        self.txn.limits()
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
        if !empty && !self.changed {
            return;
        }
        let at = self.at;
        // SAFETY: as in `value`; below it is kept alive until its key was used.
        let entry = unsafe { at.entry() };
        let db = self.txn.db;
        let gone = if empty {
            let hasher = &self.txn.engine.hasher;
            let shard = self.txn.shard_mut(Engine::shard_of(self.hash));
            shard.db_mut(db).remove(hasher, self.hash, entry.key())
        } else {
            None
        };
        if self.changed {
            self.txn.changed(self.hash, entry.key());
        }
        drop(gone);
    }
}

//! Changes of a hash.

use data::Hash;

use crate::change::Change;
use crate::door::Mut;
use crate::engine::Engine;
use crate::notice::Event;
use crate::txn::Txn;
use crate::undo::{Delta, Log, Small};

impl Mut<'_, '_, Hash> {
    /// Tells that `count` fields are about to be set at once.
    pub fn prepare(&mut self, count: usize) {
        self.inverse();
        let limits = self.limits();
        self.value().prepare(count, limits);
    }

    /// Sets a field, which expires no more; true if it is new. It is a change even where the value is
    /// the same, as in Redis.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let is_new = self.set_value(field, value);
        if !is_new && self.time_ms(field).is_some() {
            self.value().set_time(field, None);
        }
        is_new
    }

    /// The same, but the field expires when it did before.
    pub fn set_keeping(&mut self, field: &[u8], value: &[u8]) -> bool {
        let is_new = self.set_value(field, value);
        // What is logged as HSET has taken the time away.
        if let at_ms @ Some(_) = self.time_ms(field) {
            self.log_only(Change::ExpireField { field, at_ms });
        }
        is_new
    }

    /// Has a field that is there expire then, or never.
    pub fn expire(&mut self, field: &[u8], at_ms: Option<i64>) {
        self.note(field);
        self.value().set_time(field, at_ms);
        if at_ms.is_some() {
            let (hash, db) = (self.hash, self.txn.db);
            self.txn.engine.note_field_times();
            self.txn.shard_mut(Engine::shard_of(hash)).db_mut(db).field_times.is_due = true;
        }
        self.did(Change::ExpireField { field, at_ms });
    }

    fn set_value(&mut self, field: &[u8], value: &[u8]) -> bool {
        let limits = self.limits();
        let is_new = match self.inverse() {
            None => self.value().set(field, value, limits),
            Some((log, hash)) => {
                let at_ms = hash.time_ms(field);
                hash.set_telling(field, value, limits, |old| note(log, field, old, at_ms))
            }
        };
        self.did(Change::SetField { field, value });
        if is_new && self.len() == 1 {
            self.did_begin();
        }
        is_new
    }

    /// Removes a field; false if there was none.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.note(field);
        let removed = self.value().remove(field);
        if removed {
            self.did(Change::RemoveField { field });
        }
        removed
    }

    /// Removes all fields whose time has come.
    fn remove_due(&mut self, now_ms: i64) {
        self.tell_as(Event::hash("hexpired"));
        while let Some((at_ms, field)) = self.earliest()
            && at_ms <= now_ms
        {
            let field = Small::from_slice(field);
            self.remove(&field);
        }
    }

    fn note(&mut self, field: &[u8]) {
        if let Some((log, hash)) = self.inverse() {
            note(log, field, hash.get(field), hash.time_ms(field));
        }
    }
}

fn note(mut log: Log<'_>, field: &[u8], old: Option<&[u8]>, at_ms: Option<i64>) {
    if !log.covers(field) {
        let old = old.map(Small::from_slice);
        log.note(Delta::Field { field: Small::from_slice(field), old, at_ms });
    }
}

impl Txn<'_> {
    /// Removes the fields of a hash whose time has come; true if there were any.
    pub fn expire_fields(&mut self, key: &[u8]) -> bool {
        let (hash, now_ms) = (self.hash(key), self.now_ms);
        let is_due =
            |entry: &crate::entry::Entry| !entry.is_expired(now_ms) && entry.has_due_fields(now_ms);
        if !self.find(hash, key).is_some_and(is_due) {
            return false;
        }
        if let Ok(Some(mut fields)) = self.write::<Hash>(key) {
            fields.remove_due(now_ms);
        }
        true
    }
}

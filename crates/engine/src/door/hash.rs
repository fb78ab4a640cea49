//! Changes of a hash.

use data::Hash;

use crate::change::Change;
use crate::door::Mut;
use crate::undo::{Delta, Small};

impl Mut<'_, '_, Hash> {
    /// Tells that `count` fields are about to be set at once.
    pub fn prepare(&mut self, count: usize) {
        self.inverse();
        let limits = self.limits();
        self.value().prepare(count, limits);
    }

    /// Sets a field; true if it is new. It is a change even where the value is the same, as in
    /// Redis.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.note(field);
        let limits = self.limits();
        let is_new = self.value().set(field, value, limits);
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

    fn note(&mut self, field: &[u8]) {
        if let Some((mut log, hash)) = self.inverse()
            && !log.covers(field)
        {
            log.note(Delta::Field {
                field: Small::from_slice(field),
                old: hash.get(field).map(Small::from_slice),
            });
        }
    }
}

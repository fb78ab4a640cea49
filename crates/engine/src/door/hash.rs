//! Changes of a hash.

use data::Hash;

use crate::door::Mut;

impl Mut<'_, '_, Hash> {
    /// Tells that `count` fields are about to be set at once.
    pub fn prepare(&mut self, count: usize) {
        let limits = self.limits();
        self.value().prepare(count, limits);
    }

    /// Sets a field; true if it is new. It is a change even where the value is the same, as in
    /// Redis.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let limits = self.limits();
        self.changed = true;
        self.value().set(field, value, limits)
    }

    /// Removes a field; false if there was none.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.value().remove(field);
        self.changed |= removed;
        removed
    }
}

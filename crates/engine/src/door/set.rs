//! Changes of a set.

use data::Set;

use crate::change::Change;
use crate::door::Mut;
use crate::undo::{Delta, Small};

impl Mut<'_, '_, Set> {
    /// Tells that `count` members are about to be added at once.
    pub fn prepare(&mut self, count: usize) {
        self.inverse();
        let limits = self.limits();
        self.value().prepare(count, limits);
    }

    /// Adds a member; false if it was there.
    pub fn add(&mut self, member: &[u8]) -> bool {
        self.inverse();
        let limits = self.limits();
        let added = self.value().add(member, limits);
        if added {
            self.note(member, false);
            self.did(Change::AddMember { member });
            if self.len() == 1 {
                self.did_begin();
            }
        }
        added
    }

    /// Removes a member; false if it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        self.inverse();
        let removed = self.value().remove(member);
        if removed {
            self.note(member, true);
            self.did(Change::RemoveMember { member });
        }
        removed
    }

    /// Removes and returns a member drawn with (nearly) equal chances.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let worker = self.txn.worker;
        let member = self.random(&mut || worker.random())?.to_vec();
        self.remove(&member);
        Some(member)
    }

    fn note(&mut self, member: &[u8], was_there: bool) {
        if let Some(mut log) = self.log()
            && !log.covers(member)
        {
            log.note(Delta::Member { member: Small::from_slice(member), was_there });
        }
    }
}

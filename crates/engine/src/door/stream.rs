//! Changes of the entries of a stream.

use data::Stream;
use data::stream::{Head, Id, Pair, References, Step, Strategy, Taken, Trim, pack};

use crate::change::Change;
use crate::door::Mut;
use crate::notice::Event;
use crate::undo::{Delta, Small};

/// What the notes of a stream's head are known by; those of blocks by the ids of these.
const HEAD: &[u8] = b"head";

impl Mut<'_, '_, Stream> {
    /// Adds an entry, whose id must be larger than the last.
    pub fn add<'p>(&mut self, id: Id, fields: impl ExactSizeIterator<Item = Pair<'p>> + Clone) {
        self.note_head();
        // The last block may be full: then the entry begins one of its own.
        self.note_block(self.base_of(id));
        self.note_block(id);
        let limits = self.limits();
        self.value().add(id, fields.clone(), limits);
        if self.txn.logs() {
            self.did(Change::AddEntry { id, fields: &pack(fields) });
        } else {
            self.changed = true;
        }
    }

    /// Deletes an entry; false if there is none.
    pub fn delete(&mut self, id: Id) -> bool {
        if !self.contains(id) {
            return false;
        }
        self.note_head();
        self.note_block(self.base_of(id));
        self.value().delete(id);
        self.did(Change::DeleteEntry { id });
        true
    }

    /// Takes entries from the front; answers how many. Breaks off if the script is to end.
    pub fn trim(&mut self, trim: &Trim) -> u64 {
        let before = self.len();
        while let Some((base, _)) = self.first_block()
            && !self.may_break_off()
        {
            let step = trim.step(self, (before - self.len()) as u64);
            if step == Step::Nothing {
                break;
            }
            self.note_block(base);
            if !self.value().trim_step(trim, step) {
                break;
            }
        }
        let gone = before - self.len();
        if gone > 0 {
            let first = self.iter().next().map(|entry| entry.id);
            self.did(Change::TrimEntries { first });
        }
        gone as u64
    }

    /// The same, with an eye on what consumer groups refer to. An entry that goes while one before
    /// it stays is remembered as deleted.
    pub fn trim_referenced(&mut self, trim: &Trim, references: References) -> u64 {
        if references == References::Keep {
            return self.trim(trim);
        }
        let Taken { first, others } = trim.taken(self, references);
        if references == References::Drop {
            first.iter().for_each(|id| self.acknowledge_everywhere(*id));
        }
        let mut gone = 0;
        if !first.is_empty() {
            let strategy = Strategy::MaxLen((self.len() - first.len()) as u64);
            gone += self.trim(&Trim { strategy, approximate: false, limit: None });
        }
        if !others.is_empty() {
            self.tell_as(Event::stream("xtrim"));
        }
        gone + others.into_iter().filter(|id| self.delete(*id)).count() as u64
    }

    pub fn set_head(&mut self, head: Head) {
        self.note_head();
        self.value().set_head(head);
        self.did(Change::SetHead { head });
    }

    fn note_head(&mut self) {
        if let Some((mut log, stream)) = self.inverse()
            && !log.covers(HEAD)
        {
            log.note(Delta::Head { name: Small::from_slice(HEAD), old: stream.head() });
        }
    }

    fn note_block(&mut self, base: Id) {
        if let Some((mut log, stream)) = self.inverse()
            && !log.covers(&base.to_bytes())
        {
            let old = stream.block(base).cloned().map(Box::new);
            log.note(Delta::Block { base: Small::from_slice(&base.to_bytes()), old });
        }
    }
}

//! What a HyperLogLog sees: PFADD. What it is made of is in `data::hyperloglog`.

use data::hyperloglog::{self, Corrupted};

use crate::change::Change;
use crate::door::Expiry;
use crate::entry::{Entry, Str, ValueRef};
use crate::notice::Event;
use crate::txn::{Txn, WrongType};

/// Why nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotObserved {
    WrongType,
    /// The string is no HyperLogLog.
    NoHyperLogLog,
    Corrupted,
}

impl From<WrongType> for NotObserved {
    fn from(_: WrongType) -> NotObserved {
        NotObserved::WrongType
    }
}

impl From<Corrupted> for NotObserved {
    fn from(_: Corrupted) -> NotObserved {
        NotObserved::Corrupted
    }
}

impl Txn<'_> {
    /// Shows elements to the HyperLogLog of a key, creating it if need be. Answers whether that
    /// changed anything. Each element takes O(1) if it is dense, O(its bytes) else.
    pub fn observe(&mut self, key: &[u8], elements: &[&[u8]]) -> Result<bool, NotObserved> {
        let hash = self.hash(key);
        let mut created = false;
        match self.meet(hash, key).map(Entry::get) {
            Some(ValueRef::Str(Str::Bytes(text))) if hyperloglog::is_one(text) => {}
            Some(ValueRef::Str(_)) => return Err(NotObserved::NoHyperLogLog),
            Some(_) => return Err(NotObserved::WrongType),
            None => {
                let mut text = hyperloglog::empty();
                hyperloglog::forget_count(&mut text);
                if elements.is_empty() {
                    let change = Change::Set { value: &text, expiry: Expiry::Clear };
                    self.log(key, change);
                }
                self.place(hash, Entry::raw_string(key, text, None));
                created = true;
            }
        }
        let mut seen = 0;
        for element in elements {
            if self.observe_one(hash, key, element, elements.len() > 1 && seen == 0)? {
                self.log(key, Change::Observe { element });
                seen += 1;
            }
        }
        let changed = created || seen > 0;
        if changed {
            self.tell(key, Event::string("pfadd"));
            self.announce(hash, key);
        }
        Ok(changed)
    }

    /// Notes the count of a HyperLogLog in it, for the next who asks. Nobody is told.
    pub fn keep_count(&mut self, key: &[u8], count: u64) {
        let hash = self.hash(key);
        let Some(entry) = self.meet(hash, key) else { return };
        let (offset, bytes) = (hyperloglog::COUNT_AT, count.to_le_bytes());
        let is_one = match entry.get() {
            ValueRef::Str(Str::Bytes(text)) => hyperloglog::is_one(text),
            _ => false,
        };
        if !is_one {
            return;
        }
        let at = entry.address();
        if self.is_recording() {
            self.note_text(hash, at, Some(offset), bytes.len());
        }
        self.edit_noted(hash, key, |text| {
            text[offset..offset + bytes.len()].copy_from_slice(&bytes);
        });
        self.log(key, Change::Overwrite { offset, bytes: &bytes });
        self.announce(hash, key);
    }

    fn observe_one(
        &mut self,
        hash: u64,
        key: &[u8],
        element: &[u8],
        checks: bool,
    ) -> Result<bool, NotObserved> {
        let entry = self.find(hash, key).expect("found or created above");
        let ValueRef::Str(Str::Bytes(text)) = entry.get() else { unreachable!("checked above") };
        let Some(rise) = hyperloglog::rise(text, element)? else { return Ok(false) };
        if checks {
            // So that none of the elements fails when others were added.
            hyperloglog::check(text)?;
        }
        if self.is_recording() {
            let (len, is_dense, at) = (text.len(), hyperloglog::is_dense(text), entry.address());
            if is_dense {
                let (offset, count) = rise.dense_place();
                self.note_text(hash, at, Some(hyperloglog::COUNT_AT), size_of::<u64>());
                self.note_text(hash, at, Some(offset), count);
            } else {
                self.note_text(hash, at, Some(0), len);
            }
        }
        let bytes_max = self.limits().hll_sparse_max_bytes;
        self.edit_noted(hash, key, |text| hyperloglog::raise(text, rise, bytes_max))?;
        Ok(true)
    }
}

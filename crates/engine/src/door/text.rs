//! Changes of a part of a string: APPEND, SETRANGE and what writes bits.

use crate::change::Change;
use crate::engine::Engine;
use crate::entry::{Entry, Str, ValueRef};
use crate::txn::{Txn, WrongType};

impl Txn<'_> {
    /// Adds bytes behind a string, creating it if need be; answers the new length. O(bytes).
    pub fn append(&mut self, key: &[u8], more: &[u8]) -> Result<usize, WrongType> {
        self.write_bytes(key, None, more)
    }

    /// Overwrites a string from `offset` on, creating it if need be; zeros fill a gap. Answers the
    /// new length. O(bytes).
    pub fn overwrite(
        &mut self,
        key: &[u8],
        offset: usize,
        bytes: &[u8],
    ) -> Result<usize, WrongType> {
        if bytes.is_empty() {
            // Only the gap is written, if there is one.
            let len = match self.peek(key).map(Entry::get) {
                Some(ValueRef::Str(Str::Int(number))) => {
                    data::number::format_i64(number).as_bytes().len()
                }
                Some(ValueRef::Str(Str::Bytes(text))) => text.len(),
                _ => 0,
            };
            return self.write_bytes(key, None, &vec![0; offset.saturating_sub(len)]);
        }
        self.write_bytes(key, Some(offset), bytes)
    }

    fn write_bytes(
        &mut self,
        key: &[u8],
        offset: Option<usize>,
        more: &[u8],
    ) -> Result<usize, WrongType> {
        let hash = self.hash(key);
        let change = match offset {
            Some(offset) => Change::Overwrite { offset, bytes: more },
            None => Change::Append { bytes: more },
        };
        let Some(entry) = self.meet(hash, key) else {
            let mut text = Vec::new();
            let len = write_into(&mut text, offset, more);
            self.place(hash, Entry::raw_string(key, text, None));
            self.changed(hash, key, change);
            return Ok(len);
        };
        let ValueRef::Str(_) = entry.get() else { return Err(WrongType) };
        let before = entry.address();
        if self.is_recording() {
            self.note_text(hash, before, offset, more.len());
        }
        let len = self.edit_noted(hash, key, |text| write_into(text, offset, more));
        self.changed(hash, key, change);
        Ok(len)
    }

    /// Edits a string that is there; what undoes it is noted already.
    pub(super) fn edit_noted<R>(
        &mut self,
        hash: u64,
        key: &[u8],
        edit: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        let (db, engine) = (self.db, self.engine);
        let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
        let entry = tables.find_mut(hash, key).expect("the door has found it");
        let (before, expires) = (entry.address(), entry.expire_at_ms().is_some());
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
        result
    }
}

/// Writes at an offset or at the end; answers the new length.
fn write_into(text: &mut Vec<u8>, offset: Option<usize>, more: &[u8]) -> usize {
    let offset = offset.unwrap_or(text.len());
    let end = offset + more.len();
    if text.len() < end {
        reserve(text, end);
        text.resize(end, 0);
    }
    text[offset..end].copy_from_slice(more);
    text.len()
}

/// Makes room for `len` bytes. Long strings grow by a bounded amount instead of doubling.
fn reserve(text: &mut Vec<u8>, len: usize) {
    const GROWTH_MAX: usize = 1 << 20;
    if len > text.capacity() && len > GROWTH_MAX {
        text.reserve_exact(len - text.len() + GROWTH_MAX);
    }
}

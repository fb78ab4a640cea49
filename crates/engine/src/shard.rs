//! One lock partition of the keyspace: tables per database, waiters and watches of its keys.
//!
//! Reached only through a transaction, which holds the shard's lock or the exclusive gate.

use std::cell::UnsafeCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use data::Table;
use lock_api::RawMutex as _;
use smallvec::SmallVec;

use crate::engine::KeyHasher;
use crate::entry::{Entry, EntryRef};
use crate::sync::RawMutex;
use crate::wait::{KeyName, Waiter, Watch};

/// Lock partitions of the keyspace. Bounds the stall of growing one table (1 ms at 4 M keys).
pub const SHARDS: usize = 1024;

/// The lock and the first database begin in one cache line.
#[repr(C, align(128))]
pub(crate) struct Shard {
    pub lock: RawMutex,
    pub data: UnsafeCell<ShardData>,
}

// SAFETY: `data` is reached only under `lock` or the exclusive gate (see `Txn`).
unsafe impl Sync for Shard {}

impl Shard {
    pub fn new() -> Shard {
        Shard { lock: RawMutex::INIT, data: UnsafeCell::new(ShardData::default()) }
    }
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct ShardData {
    /// Clients wait for or watch a key of this shard, or did: most changes need no look at the
    /// maps, which are some cache lines away.
    pub is_observed: bool,
    /// The first one, which is the only one in most servers, stands here itself.
    pub dbs: SmallVec<[Db; 1]>,
    pub waiters: HashMap<KeyName, VecDeque<Arc<Waiter>>>,
    pub watches: HashMap<KeyName, Vec<Arc<Watch>>>,
}

/// The keys of one database in one shard.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Db {
    pub keys: Table<Entry>,
    /// Those of `keys` with an expiry.
    pub expires: Table<EntryRef>,
    /// Where the active expiry cycle goes on.
    pub expire_cursor: u64,
    pub field_times: FieldTimes,
    /// Sum of remaining times of the last cycle's sample, ms, and its size: for `avg_ttl`.
    pub ttl_sample: (i64, u32),
    pub saving: Saving,
}

/// How far the search for hashes with fields whose time has come is. There is no index of them: where
/// there are any, the keys are looked through all the time.
#[derive(Default)]
pub(crate) struct FieldTimes {
    /// There may be such hashes.
    pub is_due: bool,
    /// One was seen in this round.
    pub was_seen: bool,
    pub cursor: u64,
}

/// How far a snapshot is with a table. It goes where the table goes.
#[derive(Default)]
pub(crate) struct Saving {
    /// There may be entries that are not saved yet.
    pub is_due: bool,
    /// The database whose table it was when the snapshot began.
    pub db: u32,
    pub cursor: u64,
}

/// Whether two keys are the same. Most keys are short: comparing them here is cheaper than a call.
#[inline(always)]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    // Words that overlap in the middle.
    match len {
        8..=16 => {
            a.first_chunk::<8>() == b.first_chunk::<8>()
                && a.last_chunk::<8>() == b.last_chunk::<8>()
        }
        4..8 => {
            a.first_chunk::<4>() == b.first_chunk::<4>()
                && a.last_chunk::<4>() == b.last_chunk::<4>()
        }
        17..=32 => {
            a.first_chunk::<16>() == b.first_chunk::<16>()
                && a.last_chunk::<16>() == b.last_chunk::<16>()
        }
        _ => a == b,
    }
}

impl ShardData {
    pub fn db(&self, db: u32) -> Option<&Db> {
        self.dbs.get(db as usize)
    }

    #[inline]
    pub fn db_mut(&mut self, db: u32) -> &mut Db {
        let index = db as usize;
        if self.dbs.len() <= index {
            self.add_dbs(index + 1);
        }
        &mut self.dbs[index]
    }

    #[cold]
    fn add_dbs(&mut self, count: usize) {
        self.dbs.resize_with(count, Db::default);
    }
}

impl Db {
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.keys.find(hash, |entry| same(entry.key(), key))
    }

    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        self.keys.find_mut(hash, |entry| same(entry.key(), key))
    }

    /// Takes the entry out of both tables.
    pub fn remove(&mut self, hasher: &KeyHasher, hash: u64, key: &[u8]) -> Option<Entry> {
        let rehash = |entry: &Entry| hasher.hash_one(entry.key());
        let entry = self.keys.remove(hash, |entry| same(entry.key(), key), rehash)?;
        if entry.expire_at_ms().is_some() {
            self.forget_expiry(hasher, hash, entry.address());
        }
        Some(entry)
    }

    /// Sets or clears the expiry of an entry of `keys`. False when there is no such key.
    pub fn set_expire(
        &mut self,
        hasher: &KeyHasher,
        hash: u64,
        key: &[u8],
        expire_at_ms: Option<i64>,
    ) -> bool {
        let Some(entry) = self.find_mut(hash, key) else { return false };
        let had = entry.expire_at_ms().is_some();
        entry.set_expire(expire_at_ms);
        let address = entry.address();
        match (had, expire_at_ms.is_some()) {
            (false, true) => self.note_expiry(hasher, hash, address),
            (true, false) => self.forget_expiry(hasher, hash, address),
            _ => {}
        }
        true
    }

    /// Adds an entry of `keys` to the index of those with an expiry.
    pub fn note_expiry(&mut self, hasher: &KeyHasher, hash: u64, address: EntryRef) {
        self.expires.insert_unique(hash, address, |at| {
            // SAFETY: every address in the index is an entry of `keys`.
            hasher.hash_one(unsafe { at.entry() }.key())
        });
    }

    /// Takes an entry out of the index; it must still be alive.
    pub fn forget_expiry(&mut self, hasher: &KeyHasher, hash: u64, address: EntryRef) {
        self.expires.remove(
            hash,
            |at| *at == address,
            // SAFETY: every address in the index is a live entry.
            |at| hasher.hash_one(unsafe { at.entry() }.key()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn keys_are_the_same_only_with_all_their_bytes() {
        for len in 0..70 {
            let key = vec![b'k'; len];
            assert!(same(&key, &key.clone()));
            assert!(!same(&key, &vec![b'k'; len + 1]));
            for at in 0..len {
                let mut other = key.clone();
                other[at] = b'x';
                assert!(!same(&key, &other), "{len} bytes, other at {at}");
            }
        }
    }
}

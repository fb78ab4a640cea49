//! Loading: entries of a file put in by the thousand, past the door.
//!
//! Nobody sees the keyspace while it is loaded, so there is nobody to wake, nothing to log and
//! nothing to put back. The server calls this between two looks at its gates.

use crate::engine::Engine;
use crate::entry::Entry;
use crate::shard::SHARDS;
use crate::txn::Txn;

/// How many entries ahead the bucket is asked for.
const AHEAD: usize = 12;
/// And the shard, which says where that is: all of them are more than a processor has near.
const SHARD_AHEAD: usize = 2 * AHEAD;

/// An entry on its way in.
pub struct Arrival {
    pub db: u32,
    /// Of its key.
    pub hash: u64,
    pub entry: Entry,
}

impl Txn<'_> {
    /// Makes room for so many keys of a database. Exclusive.
    pub fn expect_keys(&mut self, db: u32, keys: usize, expires: usize) {
        // Shards are not equally full: most have less than this.
        let share = |count: usize| {
            let mean = count.div_ceil(SHARDS);
            mean + 2 * mean.isqrt()
        };
        for shard in 0..SHARDS as u16 {
            let tables = self.shard_mut(shard).db_mut(db);
            if keys >= SHARDS {
                tables.keys.reserve(share(keys));
            }
            if expires >= SHARDS {
                tables.expires.reserve(share(expires));
            }
        }
    }

    /// Puts entries in, in their order. Exclusive. The error is the first that was there already;
    /// those behind it are dropped.
    pub fn load(&mut self, batch: &mut Vec<Arrival>) -> Result<(), Arrival> {
        let engine = self.engine;
        let clock = self.fresh_clock();
        let ahead: Vec<(u32, u64)> = batch.iter().map(|new| (new.db, new.hash)).collect();
        for (at, arrival) in batch.drain(..).enumerate() {
            if let Some(&(_, hash)) = ahead.get(at + SHARD_AHEAD) {
                engine.prefetch_shard(Engine::shard_of(hash));
            }
            if let Some(&(db, hash)) = ahead.get(at + AHEAD)
                && let Some(tables) = self.shard(Engine::shard_of(hash)).db(db)
            {
                tables.keys.prefetch(hash);
            }
            let Arrival { db, hash, entry } = arrival;
            entry.set_epoch(self.epoch.bit());
            let has_times = entry.has_field_times();
            if has_times {
                engine.note_field_times();
            }
            let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
            tables.field_times.is_due |= has_times;
            if tables.find(hash, entry.key()).is_some() {
                return Err(Arrival { db, hash, entry });
            }
            if entry.access() == 0 {
                entry.set_access(clock);
            }
            let address = entry.address();
            let expires = entry.expire_at_ms().is_some();
            tables.keys.insert_unique(hash, entry, |entry| engine.hash(entry.key()));
            if expires {
                tables.note_expiry(&engine.hasher, hash, address);
            }
        }
        Ok(())
    }
}

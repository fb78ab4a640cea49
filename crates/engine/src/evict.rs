//! Eviction: which key goes when memory is full.
//!
//! Approximated as Redis describes it: sample a few keys, keep the best candidates in a pool,
//! evict the best of the pool. Each worker has its own pool; shards are locked one at a time.

use std::time::Duration;

use crate::access;
use crate::engine::Engine;
use crate::entry::Entry;
use crate::settings::Policy;
use crate::shard::SHARDS;
use crate::txn::{Plan, Txn};
use crate::wait::KeyName;
use crate::worker::Worker;

const POOL: usize = 16;
/// Shards tried for a sample before the keyspace is taken as empty.
const SHARD_TRIES: usize = 8;
/// How long eviction waits for a shard before it looks elsewhere.
const PATIENCE: Duration = Duration::from_micros(100);

/// Candidates found so far, the best last.
#[derive(Default)]
pub struct Pool(Vec<(u64, KeyName)>);

impl Engine {
    /// Evicts one key by the policy. False when there is nothing it may evict. The caller is in
    /// its gate and holds no shard.
    pub fn evict_one(
        &self,
        worker: &Worker,
        pool: &mut Pool,
        now_ms: i64,
        ready: &mut Vec<KeyName>,
    ) -> bool {
        let policy = worker.settings.policy;
        if policy == Policy::NoEviction {
            return false;
        }
        for _ in 0..4 {
            self.fill(worker, pool, now_ms);
            while let Some((_, name)) = pool.0.pop() {
                let shard = self.key_shard(&name.1);
                // What somebody works on for long is not what would be missed least.
                let Ok(mut txn) =
                    Txn::try_begin(self, worker, Plan::shard(shard), now_ms, Some(PATIENCE))
                else {
                    continue;
                };
                txn.select(name.0);
                let evictable = txn
                    .peek(&name.1)
                    .is_some_and(|entry| !policy.is_volatile() || entry.expire_at_ms().is_some());
                if evictable {
                    txn.evict(&name.1);
                    worker.stats.evicted_keys.add(1);
                }
                ready.extend(txn.commit().ready);
                if evictable {
                    return true;
                }
            }
        }
        false
    }

    /// Adds samples of one shard to the pool; of all shards in turn when the random ones are
    /// empty.
    fn fill(&self, worker: &Worker, pool: &mut Pool, now_ms: i64) {
        let first = worker.random() as usize;
        let mut found = 0;
        for step in 0..SHARDS {
            // A few random shards, then, in a sparse keyspace, one after the other.
            let shard = match step {
                0..SHARD_TRIES => worker.random() as usize % SHARDS,
                _ => (first + step) % SHARDS,
            };
            let walk = Txn::try_begin(self, worker, Plan::Walk, now_ms, Some(PATIENCE));
            let Ok(mut txn) = walk else { continue };
            if txn.walk_to(shard as u16) {
                found += txn.sample(shard as u16, pool);
            }
            txn.commit();
            if found >= worker.settings.maxmemory_samples {
                break;
            }
        }
        pool.0.sort_by_key(|(score, _)| *score);
        let excess = pool.0.len().saturating_sub(POOL);
        pool.0.drain(..excess);
    }
}

impl Txn<'_> {
    fn sample(&mut self, shard: u16, pool: &mut Pool) -> usize {
        let settings = &self.worker.settings;
        let (policy, wanted) = (settings.policy, settings.maxmemory_samples);
        let mut found = 0;
        for (index, db) in self.shard(shard).dbs.iter().enumerate() {
            let mut offer = |entry: &Entry| {
                found += 1;
                let name = (index as u32, Box::from(entry.key()));
                if !pool.0.iter().any(|(_, other)| *other == name) {
                    pool.0.push((score(entry, policy, self), name));
                }
            };
            if policy.is_volatile() {
                for _ in 0..wanted.min(db.expires.len()) {
                    if let Some(at) = db.expires.random(&mut || self.random()) {
                        // SAFETY: the index only holds entries of this shard, which we hold.
                        offer(unsafe { at.entry() });
                    }
                }
            } else {
                for _ in 0..wanted.min(db.keys.len()) {
                    if let Some(entry) = db.keys.random(&mut || self.random()) {
                        offer(entry);
                    }
                }
            }
        }
        found
    }
}

/// How well a key would be missed least: the highest goes first.
fn score(entry: &Entry, policy: Policy, txn: &Txn<'_>) -> u64 {
    match policy {
        Policy::AllKeysLru | Policy::VolatileLru => {
            u64::from(access::idle_seconds(entry, txn.now_ms))
        }
        Policy::AllKeysLfu | Policy::VolatileLfu => {
            255 - u64::from(access::lfu_count(entry, txn.worker, txn.now_ms))
        }
        Policy::VolatileTtl => u64::MAX - entry.expire_at_ms().unwrap_or(i64::MAX) as u64,
        Policy::AllKeysRandom | Policy::VolatileRandom | Policy::NoEviction => txn.random(),
    }
}

//! How many keys the databases hold: exactly, under a plan for all keys, and as of the last look
//! for those who only report and must wait for nobody (INFO).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::shard::{SHARDS, ShardData};
use crate::txn::{Plan, Txn};

/// How long a look at all shards waits for locks altogether.
const PATIENCE: Duration = Duration::from_millis(1);

/// Keys of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbSize {
    pub keys: usize,
    pub expires: usize,
    /// Mean remaining time of sampled keys, ms.
    pub avg_ttl_ms: i64,
}

/// The same of one shard, or a sum over shards.
#[derive(Clone, Copy, Default)]
struct Count {
    keys: usize,
    expires: usize,
    /// Sum of remaining times, ms, and of how many keys.
    ttl: (i64, i64),
}

impl Count {
    fn of(data: &ShardData, db: u32) -> Count {
        let Some(db) = data.db(db) else { return Count::default() };
        let (keys, expires) = (db.keys.len(), db.expires.len());
        let (sum_ms, sampled) = db.ttl_sample;
        let ttl = if expires > 0 { (sum_ms, i64::from(sampled)) } else { (0, 0) };
        Count { keys, expires, ttl }
    }

    fn add(&mut self, more: Count) {
        self.keys += more.keys;
        self.expires += more.expires;
        // A key may live for almost all the milliseconds there are.
        self.ttl = (self.ttl.0.saturating_add(more.ttl.0), self.ttl.1 + more.ttl.1);
    }

    fn size(self) -> DbSize {
        let avg_ttl_ms = if self.ttl.1 > 0 { self.ttl.0 / self.ttl.1 } else { 0 };
        DbSize { keys: self.keys, expires: self.expires, avg_ttl_ms }
    }
}

/// The databases of each shard as of the last look at it. Held for a copy, and nothing else is
/// taken meanwhile.
#[derive(Default)]
pub(crate) struct LastLook(Mutex<Vec<SmallVec<[Count; 1]>>>);

impl Txn<'_> {
    /// Keys of the current database, expired ones included. Exclusive or walking; a walk may end
    /// early (`Txn::obstacle`).
    pub fn db_size(&mut self) -> DbSize {
        let db = self.db;
        let mut sum = Count::default();
        for shard in 0..SHARDS as u16 {
            if !self.walk_to(shard) {
                break;
            }
            sum.add(Count::of(self.shard(shard), db));
        }
        sum.size()
    }

    /// Keys of all databases. Exclusive.
    pub fn key_count(&mut self) -> usize {
        (0..SHARDS as u16)
            .map(|shard| self.shard(shard).dbs.iter().map(|db| db.keys.len()).sum::<usize>())
            .sum()
    }

    /// Sizes of all databases under any plan, without waiting: a shard that somebody keeps locked
    /// counts as it did when somebody looked at it last, and so do all that are not ours when the
    /// caller holds no gate.
    pub fn sizes_at_a_glance(&self, has_gate: bool) -> Vec<DbSize> {
        let count =
            |data: &ShardData| (0..data.dbs.len() as u32).map(|db| Count::of(data, db)).collect();
        let deadline = Instant::now() + PATIENCE;
        let look = |shard: u16| {
            if self.holds(shard) {
                return Some(count(self.shard(shard)));
            }
            if !has_gate {
                return None;
            }
            let begin = |patience| {
                let plan = Plan::shard(shard);
                Txn::try_begin(self.engine, self.worker, plan, self.now_ms, Some(patience)).ok()
            };
            let txn = begin(Duration::ZERO)
                .or_else(|| begin(deadline.saturating_duration_since(Instant::now())))?;
            Some(count(txn.shard(shard)))
        };
        let fresh: Vec<Option<SmallVec<[Count; 1]>>> = (0..SHARDS as u16).map(look).collect();
        let mut last = self.engine.last_look.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.resize_with(SHARDS, SmallVec::new);
        let mut sums = vec![Count::default(); self.databases() as usize];
        for (last, fresh) in last.iter_mut().zip(fresh) {
            if let Some(fresh) = fresh {
                *last = fresh;
            }
            sums.iter_mut().zip(last.iter()).for_each(|(sum, one)| sum.add(*one));
        }
        sums.into_iter().map(Count::size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_lives_have_a_mean() {
        let mut sum = Count::default();
        for _ in 0..3 {
            sum.add(Count { keys: 1, expires: 1, ttl: (i64::MAX - 5, 1) });
        }
        let size = sum.size();
        assert_eq!((size.keys, size.expires, size.avg_ttl_ms), (3, 3, i64::MAX / 3));
    }
}

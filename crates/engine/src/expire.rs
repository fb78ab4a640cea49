//! Active expiry: removes keys whose time has come though nobody asks for them.
//!
//! Each worker walks its own share of the shards, samples the index of keys with an expiry and
//! stays with a shard while a good part of the sample was due. Bounded by a budget the caller
//! measures through `out_of_time`.

use std::time::Duration;

use crate::engine::Engine;
use crate::shard::{Db, SHARDS};
use crate::txn::{Plan, Txn};
use crate::worker::Worker;

/// Keys looked at in one lock hold.
const SAMPLE: usize = 20;

impl Engine {
    /// One cycle over the shards `worker`, `worker + workers`, … Stops when `out_of_time` says so
    /// and answers where to go on.
    pub fn expire_cycle(
        &self,
        worker: &Worker,
        workers: usize,
        start: usize,
        now_ms: i64,
        mut out_of_time: impl FnMut() -> bool,
    ) -> (usize, Vec<crate::wait::KeyName>) {
        let mut ready = Vec::new();
        let acceptable_percent = 10 - worker.settings.expire_effort.min(10) as usize / 2;
        let own = SHARDS.div_ceil(workers);
        for step in 0..own {
            let turn = (start + step) % own;
            let shard = turn * workers + worker.id;
            if shard >= SHARDS {
                continue;
            }
            loop {
                let walk = Txn::try_begin(self, worker, Plan::Walk, now_ms, Some(Duration::ZERO));
                let Ok(mut txn) = walk else { break };
                // Somebody works there: its turn comes again.
                if !txn.walk_to(shard as u16) {
                    break;
                }
                let (looked_at, removed) = txn.expire_sample(shard as u16);
                if self.has_field_times() {
                    txn.expire_fields_of(shard as u16);
                }
                ready.extend(txn.commit().ready);
                if looked_at == 0 || removed * 100 <= looked_at * acceptable_percent {
                    break;
                }
                if out_of_time() {
                    return (turn, ready);
                }
            }
            if step % 16 == 15 && out_of_time() {
                return (turn + 1, ready);
            }
        }
        (start, ready)
    }
}

impl Txn<'_> {
    /// Looks through some keys of a shard for hashes with fields whose time has come.
    fn expire_fields_of(&mut self, shard: u16) {
        let now_ms = self.now_ms;
        for db in 0..self.shard(shard).dbs.len() {
            let Db { keys, field_times, .. } = &mut self.shard_mut(shard).dbs[db];
            if !field_times.is_due {
                continue;
            }
            let mut due: Vec<Box<[u8]>> = Vec::new();
            let mut looked_at = 0;
            while looked_at < SAMPLE {
                field_times.cursor = keys.scan(field_times.cursor, |entry| {
                    looked_at += 1;
                    field_times.was_seen |= entry.has_field_times();
                    if entry.has_due_fields(now_ms) {
                        due.push(entry.key().into());
                    }
                });
                if field_times.cursor == 0 {
                    field_times.is_due = std::mem::take(&mut field_times.was_seen);
                    break;
                }
            }
            self.db = db as u32;
            for key in due {
                self.expire_fields(&key);
            }
        }
    }

    /// Looks at some keys with an expiry in each database of a shard. Answers how many it looked
    /// at and how many it removed.
    fn expire_sample(&mut self, shard: u16) -> (usize, usize) {
        let (mut looked_at, mut removed) = (0, 0);
        let now_ms = self.now_ms;
        for db in 0..self.shard(shard).dbs.len() {
            let data = &mut self.shard_mut(shard).dbs[db];
            if data.expires.is_empty() {
                continue;
            }
            let mut due: Vec<Box<[u8]>> = Vec::new();
            let (mut ttl_ms, mut live) = (0i64, 0u32);
            let (mut cursor, mut sampled) = (data.expire_cursor, 0);
            for _ in 0..SAMPLE * 4 {
                cursor = data.expires.scan(cursor, |at| {
                    // SAFETY: the index only holds entries of this shard, which we hold.
                    let entry = unsafe { at.entry() };
                    sampled += 1;
                    match entry.expire_at_ms() {
                        Some(when) if when <= now_ms => due.push(entry.key().into()),
                        Some(when) => {
                            ttl_ms = ttl_ms.saturating_add(when - now_ms);
                            live += 1;
                        }
                        None => {}
                    }
                });
                if cursor == 0 || sampled >= SAMPLE {
                    break;
                }
            }
            data.expire_cursor = cursor;
            if live > 0 {
                data.ttl_sample = (ttl_ms, live);
            }
            self.db = db as u32;
            for key in due {
                removed += usize::from(self.remove_if_expired(&key));
            }
            looked_at += sampled;
        }
        (looked_at, removed)
    }
}

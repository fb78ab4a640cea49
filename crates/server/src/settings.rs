//! From the configuration to what the engine obeys.

use engine::{Classes, Policy, Settings};

use crate::config::{Config, MaxmemoryPolicy};

pub fn of(config: &Config) -> Settings {
    let policy = match config.maxmemory_policy {
        MaxmemoryPolicy::Noeviction => Policy::NoEviction,
        MaxmemoryPolicy::AllkeysLru => Policy::AllKeysLru,
        MaxmemoryPolicy::AllkeysLfu => Policy::AllKeysLfu,
        MaxmemoryPolicy::AllkeysRandom => Policy::AllKeysRandom,
        MaxmemoryPolicy::VolatileLru => Policy::VolatileLru,
        MaxmemoryPolicy::VolatileLfu => Policy::VolatileLfu,
        MaxmemoryPolicy::VolatileRandom => Policy::VolatileRandom,
        MaxmemoryPolicy::VolatileTtl => Policy::VolatileTtl,
    };
    let entries = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Settings {
        databases: config.databases,
        limits: data::Limits {
            list_max_listpack_size: config.list_max_listpack_size,
            list_compress_depth: config.list_compress_depth,
            hash_max_listpack_entries: entries(config.hash_max_listpack_entries),
            hash_max_listpack_value: entries(config.hash_max_listpack_value),
            set_max_intset_entries: entries(config.set_max_intset_entries),
            set_max_listpack_entries: entries(config.set_max_listpack_entries),
            set_max_listpack_value: entries(config.set_max_listpack_value),
            zset_max_listpack_entries: entries(config.zset_max_listpack_entries),
            zset_max_listpack_value: entries(config.zset_max_listpack_value),
            stream_node_max_bytes: entries(config.stream_node_max_bytes),
            stream_node_max_entries: entries(config.stream_node_max_entries),
            hll_sparse_max_bytes: entries(config.hll_sparse_max_bytes),
        },
        policy,
        maxmemory_bytes: config.maxmemory_bytes,
        maxmemory_samples: config.maxmemory_samples as usize,
        lfu_log_factor: config.lfu_log_factor,
        lfu_decay_minutes: config.lfu_decay_time_minutes,
        hz: config.hz,
        expire_effort: config.active_expire_effort,
        events: Classes::of(|letter| config.notify_keyspace_events.contains(letter)),
    }
}

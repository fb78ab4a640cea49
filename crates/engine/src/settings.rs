//! The part of the configuration that the engine obeys, as one immutable snapshot.

use crate::notice::Classes;

/// Which keys go first when memory is full (maxmemory-policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    NoEviction,
    AllKeysLru,
    AllKeysLfu,
    AllKeysRandom,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

impl Policy {
    pub fn is_lfu(self) -> bool {
        matches!(self, Policy::AllKeysLfu | Policy::VolatileLfu)
    }

    pub fn is_lru(self) -> bool {
        matches!(self, Policy::AllKeysLru | Policy::VolatileLru)
    }

    /// Only keys with an expiry may be evicted.
    pub fn is_volatile(self) -> bool {
        matches!(
            self,
            Policy::VolatileLru
                | Policy::VolatileLfu
                | Policy::VolatileRandom
                | Policy::VolatileTtl
        )
    }
}

/// Read by every transaction; replaced as a whole when the configuration changes.
#[derive(Clone, Debug)]
pub struct Settings {
    pub databases: u32,
    pub limits: data::Limits,
    pub policy: Policy,
    /// 0 = no limit.
    pub maxmemory_bytes: u64,
    pub maxmemory_samples: usize,
    pub lfu_log_factor: u32,
    pub lfu_decay_minutes: u32,
    /// SCAN-like work and expiry cycles a second.
    pub hz: u32,
    /// 1 to 10, as active-expire-effort.
    pub expire_effort: u32,
    /// Events that subscribers may hear of; none when they are off.
    pub events: Classes,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            databases: 16,
            limits: data::Limits::default(),
            policy: Policy::NoEviction,
            maxmemory_bytes: 0,
            maxmemory_samples: 5,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
            hz: 10,
            expire_effort: 1,
            events: Classes::default(),
        }
    }
}

//! What clients take, and maxmemory-clients: when all of them take too much, the greatest go.
//!
//! Each worker reports what its connections hold whenever that changes; the sum is kept in one
//! counter. Whoever finds it too high marks the greatest clients as closing and has their workers
//! close them. Knows nothing of requests.
//!
//! Thread safety: the share of a client in the sum is in its `memory_bytes`, which is exchanged as
//! a whole, so that what is added and taken off agree whoever does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::ClientInfo;
use crate::config::{Config, MemoryShare};
use crate::connection::Connection;
use crate::server::Server;

/// A limit below this would leave nobody connected to raise it.
const LIMIT_BYTES_MIN: usize = 128 * 1024;

/// What a connection takes that has nothing to read or to send.
pub const IDLE_BYTES: usize = size_of::<Connection>() + size_of::<ClientInfo>();

#[derive(Default)]
pub struct ClientMemory {
    total_bytes: AtomicUsize,
}

impl ClientMemory {
    pub fn total_bytes(&self) -> usize {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Takes over what a client takes now.
    pub fn note(&self, info: &ClientInfo, bytes: usize) {
        let before = info.memory_bytes.load(Ordering::Relaxed);
        // One that is being closed was taken off already.
        if bytes != before && !info.is_closing.load(Ordering::Acquire) {
            self.exchange(info, bytes);
        }
    }

    /// Takes a client off that is closed or will be.
    pub fn forget(&self, info: &ClientInfo) {
        self.exchange(info, 0);
    }

    fn exchange(&self, info: &ClientInfo, bytes: usize) {
        let before = info.memory_bytes.swap(bytes, Ordering::AcqRel);
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Whether clients take more than they may.
    pub fn is_over_limit(&self, config: &Config) -> bool {
        limit_bytes(config).is_some_and(|limit| self.total_bytes() >= limit)
    }
}

/// What maxmemory-clients allows; `None` when there is no limit.
fn limit_bytes(config: &Config) -> Option<usize> {
    let limit = match config.maxmemory_clients {
        MemoryShare::Bytes(0) | MemoryShare::Percent(0) => return None,
        MemoryShare::Bytes(bytes) => bytes,
        MemoryShare::Percent(_) if config.maxmemory_bytes == 0 => return None,
        MemoryShare::Percent(percent) => {
            (u128::from(config.maxmemory_bytes) * u128::from(percent) / 100) as u64
        }
    };
    Some(usize::try_from(limit).unwrap_or(usize::MAX).max(LIMIT_BYTES_MIN))
}

/// Whether there is a client to close: if not, nobody needs to be kept waiting for it.
pub fn is_anyone_mortal(server: &Server) -> bool {
    let is_mortal = |info: &Arc<ClientInfo>| {
        !info.no_evict.load(Ordering::Relaxed) && !info.is_closing.load(Ordering::Acquire)
    };
    server.clients.lock().values().any(is_mortal)
}

/// Has the greatest clients closed until the rest is within the limit. The caller holds all gates:
/// nobody else evicts for the same bytes, and no blocked client is served in the same moment.
pub fn evict(server: &Server, config: &Config, describe: impl Fn(&ClientInfo) -> String) {
    let memory = &server.client_memory;
    let mut clients: Vec<(usize, Arc<ClientInfo>)> = {
        let clients = server.clients.lock();
        let mortal = clients.values().filter(|info| !info.no_evict.load(Ordering::Relaxed));
        mortal.map(|info| (info.memory_bytes.load(Ordering::Relaxed), info.clone())).collect()
    };
    clients.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    for (_, info) in clients {
        if !memory.is_over_limit(config) {
            return;
        }
        let line = describe(&info);
        if server.close_client(&info) {
            crate::log_notice!("Evicting client: {line}");
            memory.forget(&info);
            server.stats.evicted_clients.fetch_add(1, Ordering::Relaxed);
        }
    }
}

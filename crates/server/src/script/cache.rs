//! The scripts the server knows, compiled once and shared by the VMs of all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use lua::{Script, Sha};
use parking_lot::RwLock;

use super::plan::Known;

#[derive(Default)]
pub struct Cache {
    scripts: RwLock<HashMap<Sha, Arc<Known>>>,
    used_bytes: AtomicU64,
    generation: AtomicU64,
}

impl Cache {
    pub fn get(&self, sha: &Sha) -> Option<Arc<Known>> {
        self.scripts.read().get(sha).cloned()
    }

    /// Keeps a script; answers the one that is kept.
    pub fn insert(&self, script: Script) -> Arc<Known> {
        let mut scripts = self.scripts.write();
        scripts
            .entry(*script.sha())
            .or_insert_with(|| {
                self.used_bytes.fetch_add(script.used_bytes() as u64, Ordering::Relaxed);
                Arc::new(Known::new(script))
            })
            .clone()
    }

    /// SCRIPT FLUSH.
    pub fn flush(&self) {
        self.scripts.write().clear();
        self.used_bytes.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn len(&self) -> usize {
        self.scripts.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Raised by every flush: VMs forget what they loaded.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

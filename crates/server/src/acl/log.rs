//! ACL LOG: the last requests that were refused, alike ones counted together.

use std::collections::VecDeque;

/// Refusals further apart than this, ms, are entries of their own.
const GROUP_MS: i64 = 60_000;
/// How many of the latest entries a refusal is compared with.
const COMPARED_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Auth => "auth",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    TopLevel,
    Multi,
    Lua,
}

impl Context {
    pub fn name(self) -> &'static str {
        match self {
            Context::TopLevel => "toplevel",
            Context::Multi => "multi",
            Context::Lua => "lua",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub count: u64,
    pub reason: Reason,
    pub context: Context,
    /// The command, key or channel that was refused.
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    /// As CLIENT INFO had it at the latest refusal.
    pub client: String,
    pub id: u64,
    pub created_ms: i64,
    pub updated_ms: i64,
}

#[derive(Debug, Default)]
pub struct Log {
    next_id: u64,
    /// The latest first.
    entries: VecDeque<Entry>,
}

impl Log {
    /// Takes in a refusal; `count` and `id` are given here. No more than `len_max` are kept.
    pub fn add(&mut self, mut entry: Entry, len_max: usize) {
        let is_alike = |old: &Entry| {
            old.reason == entry.reason
                && old.context == entry.context
                && old.object == entry.object
                && old.user == entry.user
                && entry.updated_ms - old.updated_ms <= GROUP_MS
        };
        let alike = self.entries.iter().take(COMPARED_MAX).position(is_alike);
        match alike.and_then(|at| self.entries.remove(at)) {
            Some(old) => {
                (entry.count, entry.id, entry.created_ms) = (old.count + 1, old.id, old.created_ms);
            }
            None => {
                (entry.count, entry.id) = (1, self.next_id);
                self.next_id += 1;
            }
        }
        self.entries.push_front(entry);
        self.entries.truncate(len_max);
    }

    /// The latest entries first.
    pub fn latest(&self, count: usize) -> Vec<Entry> {
        self.entries.iter().take(count).cloned().collect()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: &str, at_ms: i64) -> Entry {
        Entry {
            count: 0,
            reason: Reason::Key,
            context: Context::TopLevel,
            object: object.into(),
            user: b"u".to_vec(),
            client: String::new(),
            id: 0,
            created_ms: at_ms,
            updated_ms: at_ms,
        }
    }

    #[test]
    fn alike_refusals_are_counted_and_come_to_the_front() {
        let mut log = Log::default();
        log.add(entry("a", 0), 3);
        log.add(entry("b", 1), 3);
        log.add(entry("a", GROUP_MS), 3);
        let seen = log.latest(9);
        let seen: Vec<_> = seen.iter().map(|e| (&*e.object, e.count, e.id, e.created_ms)).collect();
        assert_eq!(seen, [(&b"a"[..], 2, 0, 0), (b"b", 1, 1, 1)]);
        log.add(entry("b", GROUP_MS + 2), 3);
        assert_eq!(log.latest(9).len(), 3, "too late to be counted together");
        log.add(entry("c", GROUP_MS + 3), 3);
        assert_eq!(log.latest(9).len(), 3, "the oldest goes");
    }
}

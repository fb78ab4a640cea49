//! The slow log: the last commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Arguments kept of one entry, and bytes of one argument, as Redis keeps them.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

#[derive(Clone, Debug)]
pub struct SlowEntry {
    pub id: i64,
    pub at_seconds: i64,
    pub duration_us: u64,
    pub args: Vec<Vec<u8>>,
    pub address: String,
    pub name: Vec<u8>,
}

#[derive(Default)]
pub struct Slowlog(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    next_id: i64,
    entries: VecDeque<SlowEntry>,
}

fn shorten(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let shown = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut short: Vec<Vec<u8>> = args[..shown]
        .iter()
        .map(|arg| {
            if arg.len() <= ARG_BYTES_MAX {
                return arg.to_vec();
            }
            let mut cut = arg[..ARG_BYTES_MAX].to_vec();
            let left = arg.len() - ARG_BYTES_MAX;
            cut.extend_from_slice(format!("... ({left} more bytes)").as_bytes());
            cut
        })
        .collect();
    if shown < args.len() {
        short.push(format!("... ({} more arguments)", args.len() - shown).into_bytes());
    }
    short
}

impl Slowlog {
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &self,
        at_seconds: i64,
        duration_us: u64,
        args: &[&[u8]],
        about_script: Option<String>,
        address: String,
        name: Vec<u8>,
        len_max: usize,
    ) {
        let mut args = shorten(args);
        // Where clients that know Redis's six fields show it.
        args.extend(about_script.map(String::into_bytes));
        let mut log = self.0.lock();
        let id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(SlowEntry { id, at_seconds, duration_us, args, address, name });
        log.entries.truncate(len_max);
    }

    /// The newest entries, newest first.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.0.lock().entries.iter().take(count).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the oldest entries beyond this many.
    pub fn shorten(&self, len_max: usize) {
        self.0.lock().entries.truncate(len_max);
    }

    pub fn reset(&self) {
        self.0.lock().entries.clear();
    }
}

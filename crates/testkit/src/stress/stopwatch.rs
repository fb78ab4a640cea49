//! How long a server took, on a machine that others keep busy.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::server::Server;

/// Time since a moment, without what threads waited for a core meanwhile: the one of the server that
/// waited longest, and the one that looks at the clock. On an idle machine that is next to nothing.
pub struct Stopwatch {
    tasks: String,
    began: Instant,
    /// When it began.
    waits: Waits,
}

/// Nanoseconds for which threads have waited for a core so far: this one, and others by their ids.
struct Waits {
    own_ns: u64,
    others_ns: HashMap<String, u64>,
}

impl Stopwatch {
    pub fn start(server: &Server) -> Stopwatch {
        let tasks = format!("/proc/{}/task", server.pid());
        Stopwatch { waits: Waits::read(&tasks), tasks, began: Instant::now() }
    }

    pub fn elapsed(&self) -> Duration {
        let elapsed = self.began.elapsed();
        let now = Waits::read(&self.tasks);
        let before = |task| self.waits.others_ns.get(task).copied().unwrap_or_default();
        let waits = now.others_ns.iter().map(|(task, ns)| ns.saturating_sub(before(task)));
        let own_ns = now.own_ns.saturating_sub(self.waits.own_ns);
        elapsed.saturating_sub(Duration::from_nanos(own_ns + waits.max().unwrap_or_default()))
    }
}

impl Waits {
    fn read(tasks: &str) -> Waits {
        // Nanoseconds on a core, nanoseconds waiting for one, and how often it got one.
        let ns = |path: &str| {
            let text = fs::read_to_string(format!("{path}/schedstat")).ok()?;
            text.split(' ').nth(1)?.parse::<u64>().ok()
        };
        let threads = fs::read_dir(tasks).into_iter().flatten().flatten();
        let threads = threads.filter_map(|task| task.path().into_os_string().into_string().ok());
        Waits {
            own_ns: ns("/proc/thread-self").unwrap_or_default(),
            // One may have ended since it was listed.
            others_ns: threads.filter_map(|task| ns(&task).map(|ns| (task, ns))).collect(),
        }
    }
}

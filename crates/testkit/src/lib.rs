//! The test side of Luar: a client, a server process under test, and the talk-file runner.
//!
//! Nothing here may depend on the crates it tests: the reader below is a second, plain
//! implementation of the protocol, so that a mistake in `resp` cannot hide itself. Called by
//! `xtask test` and by the integration tests of this crate.

pub mod client;
pub mod draw;
pub mod info;
pub mod pattern;
pub mod peer;
pub mod port;
pub mod replay;
pub mod rewrite;
pub mod run;
pub mod server;
pub mod stress;
pub mod talk;
pub mod value;

use std::time::{Duration, Instant};

/// How long a condition may take to become true before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `ready` again and again until it answers with something or `patience` is over.
///
/// The pause between two questions only keeps the machine free for the server that is being
/// waited for; nothing depends on its length.
pub fn poll<T>(patience: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(found) = ready() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

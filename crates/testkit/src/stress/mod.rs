//! Stress tests from outside: many clients against one server process.
//!
//! Each test starts a server of its own, and ends with a fact that must hold whatever the
//! threads did. They run against any binary that takes redis-server's arguments, so that the
//! tests themselves can be checked against Redis. Called by `xtask test stress`.

mod atomicity;
mod blocking;
mod bounds;
mod caches;
mod clients;
mod crashes;
mod history;
mod limiter;
mod linearizability;
mod many_scripts;
mod memory;
mod model;
mod nested;
mod parallel;
mod process;
mod scan;
mod scripts;
mod stopping;
mod templates;
mod undone;

use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Client, ReadError};
use crate::server::Server;
use crate::value::Value;

/// Why a test failed, for a reader.
pub type Verdict = Result<String, String>;

/// What the tests run against.
#[derive(Clone, Debug)]
pub struct Arena {
    pub binary: PathBuf,
    /// The binary is Redis, which has no `--workers`.
    pub oracle: bool,
    /// Smaller numbers, for a quick look.
    pub quick: bool,
    pub seed: u64,
}

pub struct Test {
    pub name: &'static str,
    pub run: fn(&Arena) -> Verdict,
}

pub const ALL: &[Test] = &[
    Test { name: "bad starts are refused", run: process::refuses },
    Test { name: "it lives and ends as a process should", run: process::lives_and_ends },
    Test { name: "SHUTDOWN ends it", run: process::shutdown },
    Test { name: "directory, pid file and log file", run: process::files },
    Test { name: "in the background, and under systemd", run: process::supervised },
    Test { name: "CONFIG REWRITE and a restart keep everything", run: process::rewrite },
    Test { name: "every element is consumed exactly once", run: atomicity::exactly_once },
    Test { name: "optimistic counters lose no increment", run: atomicity::watched_counters },
    Test { name: "MSET, EXEC and scripts are seen whole", run: atomicity::seen_whole },
    Test { name: "elements that move are conserved", run: atomicity::conserved },
    Test { name: "scripts on undeclared keys stay atomic", run: atomicity::undeclared_keys },
    Test { name: "a fixed-window limiter lets exactly its limit pass", run: limiter::fixed_window },
    Test { name: "a sliding-window limiter lets exactly its limit pass", run: limiter::sliding },
    Test { name: "SCAN returns what stays, while keys come and go", run: scan::guarantees },
    Test { name: "blocked clients are served first come, first served", run: blocking::in_order },
    Test { name: "queues with blocked consumers lose and double nothing", run: blocking::queue },
    Test { name: "clients that leave while blocked take nothing along", run: blocking::leaving },
    Test { name: "UNBLOCK is exact while others try to serve", run: blocking::unblocked },
    Test { name: "a reader that does not read costs bounded memory", run: bounds::slow_reader },
    Test { name: "a subscriber that does not read is let go", run: bounds::slow_subscriber },
    Test { name: "half a request costs nothing", run: bounds::half_requests },
    Test { name: "maxmemory-clients closes the greatest", run: clients::client_memory },
    Test { name: "output limits, hard and soft, of both classes", run: clients::output_limits },
    Test { name: "CLIENT PAUSE ends when it is over", run: clients::pause_ends },
    Test { name: "MONITOR tells microseconds", run: clients::monitor_time },
    Test { name: "maxclients is kept and given back", run: bounds::many_connections },
    Test { name: "endless scripts are answered BUSY and killed", run: scripts::killed },
    Test { name: "a script that wrote ends only with the server", run: scripts::unkillable },
    Test { name: "a script that ends in time ends before the server", run: scripts::finished },
    Test { name: "SHUTDOWN NOSAVE gives up an endless script", run: scripts::given_up },
    Test { name: "a runaway script keeps only its own keys", run: parallel::runaway },
    Test { name: "scripts run from within a runaway", run: nested::beside_a_runaway },
    Test { name: "a script's reply follows another", run: nested::answered_behind_another },
    Test { name: "a kill is heard among nested scripts", run: nested::killed_among_others },
    Test { name: "scripts end at any moment and leave nothing", run: undone::at_any_moment },
    Test { name: "undone scripts have logged nothing", run: undone::log_lines },
    Test { name: "caches of clients hold what is true", run: caches::none_is_stale },
    Test { name: "scripts that find their keys conserve money", run: parallel::bank },
    Test { name: "every history has an order that explains it", run: linearizability::histories },
    Test { name: "exclusive commands come between long scripts", run: parallel::exclusive },
    Test { name: "killed scripts leave long commands at once", run: stopping::long_commands },
    Test { name: "a script that takes too much memory fails alone", run: scripts::memory_limit },
    Test { name: "every run of a script is counted once", run: many_scripts::counted },
    Test { name: "scripts with values in them are forgotten", run: many_scripts::interpolated },
    Test { name: "crashes lose nothing that was synced", run: crashes::always },
    Test { name: "crashes lose at most the last second", run: crashes::every_second },
    Test { name: "crashes leave whole snapshots", run: crashes::snapshots },
    Test { name: "maxmemory holds in process memory", run: memory::policies_hold },
    Test { name: "LRU keeps what is read, TTL what lives long", run: memory::policies_choose },
];

impl Arena {
    pub fn start(&self, workers: usize, args: &[&str]) -> Result<Server, String> {
        self.start_after(&[], workers, args)
    }

    /// The same with a configuration file, which goes before all other arguments.
    fn start_with_config(&self, config: &str, args: &[&str]) -> Result<Server, String> {
        self.start_after(&[config], 2, args)
    }

    fn start_after(&self, first: &[&str], workers: usize, args: &[&str]) -> Result<Server, String> {
        let workers = workers.to_string();
        let mut all = first.to_vec();
        if !self.oracle {
            all.extend(["--workers", &workers]);
        }
        all.extend_from_slice(args);
        Server::start(&self.binary, &all).map_err(|error| error.to_string())
    }

    /// A count, a tenth of it when quick.
    pub fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }
}

/// A small generator: a test that used it prints its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        // xorshift64*, by Marsaglia and Vigna.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

fn connect(server: &Server) -> Result<Client, String> {
    let mut client = server.connect().map_err(|error| error.to_string())?;
    client.patience = Duration::from_secs(60);
    Ok(client)
}

/// Calls and refuses errors.
fn call(client: &mut Client, args: &[&str]) -> Result<Value, String> {
    let reply = client.call(args).map_err(|error: ReadError| format!("{args:?}: {error}"))?;
    if let Value::Error(text) = &reply {
        return Err(format!("{args:?} answered -{}", String::from_utf8_lossy(text)));
    }
    Ok(reply)
}

fn integer(client: &mut Client, args: &[&str]) -> Result<i64, String> {
    let reply = call(client, args)?;
    reply.integer().ok_or_else(|| format!("{args:?} answered {}", reply.to_talk()))
}

/// Runs `work` in `count` threads, each with its number; the first error wins.
fn in_threads<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .map(|number| {
                let work = &work;
                scope.spawn(move || work(number))
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().map_err(|_| "a client thread panicked".to_owned())?)
            .collect()
    })
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

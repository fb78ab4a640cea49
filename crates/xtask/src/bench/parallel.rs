//! Whether scripts run beside each other: two clients, each with a script on a key of its own,
//! against Luar with one worker and with two.
//!
//! A script runs for some milliseconds inside of the server, so that clients and sockets cost next
//! to nothing. The figure needs two idle cores. Called by the bench's main.

use std::thread;
use std::time::{Duration, Instant};

use super::measure::median;
use super::server::{Client, Config, Server};

const SCRIPT: &str = "for i = 1, 5000 do redis.call('INCR', KEYS[1]) end
return redis.call('GET', KEYS[1])";

/// How much more two workers must do than one.
pub const TARGET: f64 = 1.7;

const WORKERS: [usize; 2] = [1, 2];

/// Medians over the rounds, for one worker and for two.
pub struct Parallel {
    pub runs_per_second: [f64; 2],
    pub cpu_us_per_run: [f64; 2],
}

impl Parallel {
    pub fn ratio(&self) -> f64 {
        self.runs_per_second[1] / self.runs_per_second[0]
    }

    /// What two cores that nobody else uses would give, by the CPU time of a run.
    pub fn ratio_by_cpu(&self) -> f64 {
        2.0 * self.cpu_us_per_run[0] / self.cpu_us_per_run[1]
    }

    pub fn line(&self) -> String {
        format!(
            "scripts on different keys: {:.0} and {:.0} runs/s with 1 and 2 workers, {:.2}× \
             (target {TARGET}×; by CPU time per run {:.2}×)",
            self.runs_per_second[0],
            self.runs_per_second[1],
            self.ratio(),
            self.ratio_by_cpu()
        )
    }
}

/// Rounds on both servers in turn.
///
/// # Errors
/// A server does not start or a script fails.
pub fn measure(luar: &Config, rounds: usize, round_time: Duration) -> Result<Parallel, String> {
    let start = |workers: usize| {
        let name = format!("luar, {workers}");
        Server::start(&Config { name, workers: Some(workers), ..luar.clone() })
    };
    let servers = [start(WORKERS[0])?, start(WORKERS[1])?];
    let (mut speeds, mut costs) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..rounds {
        for (at, server) in servers.iter().enumerate() {
            let (speed, cpu_us) = one_round(server, round, round_time)?;
            speeds[at].push(speed);
            costs[at].push(cpu_us);
        }
    }
    Ok(Parallel { runs_per_second: speeds.map(median), cpu_us_per_run: costs.map(median) })
}

/// Runs per second, and microseconds of CPU for each.
fn one_round(server: &Server, round: usize, time: Duration) -> Result<(f64, f64), String> {
    // Connections are dealt to the workers in turn.
    let clients = [server.client()?, server.client()?];
    let cpu_before_ns = server.cpu_ns()?;
    let start = Instant::now();
    let runs = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                // Other keys each time: two may happen to share a shard.
                let key = format!("parallel:{round}:{number}");
                scope.spawn(move || run_for(client, &key, start + time))
            })
            .collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            Ok::<u64, String>(sum + thread.join().map_err(|_| "a client panicked".to_owned())??)
        })
    })?;
    let elapsed = start.elapsed();
    let cpu_ns = server.cpu_ns()? - cpu_before_ns;
    Ok((runs as f64 / elapsed.as_secs_f64(), cpu_ns as f64 / 1e3 / runs as f64))
}

fn run_for(mut client: Client, key: &str, end: Instant) -> Result<u64, String> {
    let mut runs = 0;
    while Instant::now() < end {
        client.call(&[b"EVAL", SCRIPT.as_bytes(), b"1", key.as_bytes()])?;
        runs += 1;
    }
    if runs == 0 {
        return Err("no script ran".to_owned());
    }
    Ok(runs)
}

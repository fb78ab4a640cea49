//! One measurement: prepares a workload on every server, compares their answers, then runs rounds
//! that alternate between the servers, so that a disturbance of the machine meets all of them.
//!
//! Knows no targets and no output. Called by the bench's main, read by `report`.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::load::{self, Load};
use super::server::{Client, Config, Server};
use super::wire::{Numbers, Template};
use super::workloads::{Answers, MemoryLoad, Workload};

/// How long and how often.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    /// The first server is given about this much work per round; the others the same operations.
    pub round_time: Duration,
    /// Items of a memory load.
    pub memory_items: u64,
}

/// What one server did in one workload: medians over the rounds, latencies over all of them.
pub struct Summary {
    pub operations_per_second: f64,
    pub server_cpu_us: f64,
    /// Smallest and largest `server_cpu_us` of a round.
    pub server_cpu_us_spread: (f64, f64),
    pub client_cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

/// Runs one workload on all servers, in the order given.
///
/// # Errors
/// A server fails, answers with an error, or answers otherwise than the first.
pub fn workload(
    servers: &[Server],
    workload: &Workload,
    effort: Effort,
) -> Result<Vec<Summary>, String> {
    let mut first_answer: Option<Vec<u8>> = None;
    for (index, server) in servers.iter().enumerate() {
        let (templates, preload) = workload.sends(index == 0);
        let context = |error| format!("{}, {}: {error}", workload.name, server.name);
        let mut client = server.client()?;
        client.call(&[b"FLUSHALL"]).map_err(context)?;
        for (template, count) in preload {
            fill(&mut client, template, *count).map_err(context)?;
        }
        let mut request = Vec::new();
        templates[0].append(&mut request, &mut Numbers::Random(1));
        let mut answer = client.exchange(&request, 1).map_err(context)?;
        match workload.answers {
            Answers::Equal => {}
            Answers::Reordered => answer.sort_unstable(),
            Answers::Any => answer.clear(),
        }
        match &first_answer {
            None => first_answer = Some(answer),
            Some(first) if *first == answer => {}
            Some(first) => {
                return Err(context(format!(
                    "answers {} where {} answers {}",
                    excerpt(&answer),
                    servers[0].name,
                    excerpt(first)
                )));
            }
        }
    }

    let batch = (workload.connections * workload.pipeline) as u64;
    let run = |index: usize, operations: u64, time_max: Duration, seed: u64| {
        let server = &servers[index];
        let load = Load {
            templates: workload.sends(index == 0).0,
            connections: workload.connections,
            pipeline: workload.pipeline,
            operations,
            time_max,
            seed,
        };
        let cpu_before_ns = server.cpu_ns()?;
        let measured = load::run(server.port, &load)
            .map_err(|error| format!("{}, {}: {error}", workload.name, server.name))?;
        Ok::<_, String>((server.cpu_ns()? - cpu_before_ns, measured))
    };

    // The first server's speed decides how much a round is; everyone warms up on half of it.
    let (_, trial) = run(0, u64::MAX, effort.round_time / 2, 1)?;
    let per_second = trial.operations as f64 / trial.elapsed.as_secs_f64();
    let operations = ((per_second * effort.round_time.as_secs_f64()) as u64).max(2 * batch);
    let time_max = effort.round_time * 20;
    for index in 1..servers.len() {
        run(index, operations / 2, time_max, 1)?;
    }

    let mut rounds: Vec<Rounds> = servers.iter().map(|_| Rounds::new()).collect();
    for round in 0..effort.rounds {
        for (index, rounds) in rounds.iter_mut().enumerate() {
            // Random numbers differ between rounds and are the same for every server.
            let (server_cpu_ns, measured) = run(index, operations, time_max, 100 * round as u64)?;
            rounds.add(server_cpu_ns, &measured);
        }
    }
    Ok(rounds.into_iter().map(Rounds::summary).collect())
}

struct Rounds {
    operations_per_second: Vec<f64>,
    server_cpu_us: Vec<f64>,
    client_cpu_us: Vec<f64>,
    latency_ns: Histogram<u64>,
}

impl Rounds {
    fn new() -> Rounds {
        Rounds {
            operations_per_second: Vec::new(),
            server_cpu_us: Vec::new(),
            client_cpu_us: Vec::new(),
            latency_ns: load::new_histogram(),
        }
    }

    fn add(&mut self, server_cpu_ns: u64, measured: &load::Measured) {
        let operations = measured.operations as f64;
        self.operations_per_second.push(operations / measured.elapsed.as_secs_f64());
        self.server_cpu_us.push(server_cpu_ns as f64 / 1000.0 / operations);
        self.client_cpu_us.push(measured.client_cpu_ns as f64 / 1000.0 / operations);
        self.latency_ns += &measured.latency_ns;
    }

    fn summary(self) -> Summary {
        let percentile_us = |quantile| self.latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        let (p50_us, p99_us, p999_us) =
            (percentile_us(0.5), percentile_us(0.99), percentile_us(0.999));
        let least = self.server_cpu_us.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.server_cpu_us.iter().copied().fold(0.0, f64::max);
        Summary {
            operations_per_second: median(self.operations_per_second),
            server_cpu_us: median(self.server_cpu_us),
            server_cpu_us_spread: (least, most),
            client_cpu_us: median(self.client_cpu_us),
            p50_us,
            p99_us,
            p999_us,
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Bytes per item after a memory load.
pub struct Weight {
    pub used_memory: f64,
    pub rss: f64,
}

/// Fills a fresh server and weighs it.
///
/// # Errors
/// The server fails, or holds another number of items than it was given.
pub fn weight(config: &Config, load: &MemoryLoad) -> Result<Weight, String> {
    let server = Server::start(config)?;
    let mut client = server.client()?;
    let used_before = server.used_memory_bytes()?;
    let rss_before = server.rss_bytes()?;
    fill(&mut client, &load.template, load.count)?;
    // The connection's own buffers are part of used_memory: a new one has small ones.
    drop(client);
    server.client()?.call(&[b"PING"])?;
    let per_item =
        |after: u64, before: u64| after.saturating_sub(before) as f64 / load.count as f64;
    Ok(Weight {
        used_memory: per_item(server.used_memory_bytes()?, used_before),
        rss: per_item(server.rss_bytes()?, rss_before),
    })
}

/// Sends counting copies of a template.
fn fill(client: &mut Client, template: &Template, count: u64) -> Result<(), String> {
    const BATCH: u64 = 500;
    let mut numbers = Numbers::Counting(0);
    let mut request = Vec::new();
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        request.clear();
        for _ in 0..batch {
            template.append(&mut request, &mut numbers);
        }
        client.exchange(&request, batch as usize)?;
        left -= batch;
    }
    Ok(())
}

fn excerpt(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_it() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}

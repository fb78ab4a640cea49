//! Counters of the server. Each worker writes its own, without locked instructions; whoever
//! reports sums them up.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::Counter;

use crate::table::table;

/// Buckets of a latency histogram: powers of two of a nanosecond.
const BUCKETS: usize = 48;

/// Latencies of one command. Bucket i counts calls that took less than 2^i ns.
pub struct Histogram(Box<[Counter; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Histogram(Box::new(std::array::from_fn(|_| Counter::default())))
    }
}

impl Histogram {
    fn add(&self, ns: u64) {
        let bucket = (64 - ns.leading_zeros() as usize).min(BUCKETS - 1);
        self.0[bucket].add(1);
    }
}

/// What one worker has seen of one command.
#[derive(Default)]
pub struct CommandStats {
    pub calls: Counter,
    pub ns: Counter,
    pub rejected: Counter,
    pub failed: Counter,
    histogram: Histogram,
}

/// One command over all workers.
#[derive(Clone, Debug, Default)]
pub struct CommandTotals {
    pub calls: u64,
    pub ns: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Count and upper bound in ns of every bucket in use, ascending.
    pub buckets: Vec<(u64, u64)>,
}

impl CommandTotals {
    /// The latency in ns below which this share (0 to 100) of the calls stayed.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        let total: u64 = self.buckets.iter().map(|(count, _)| count).sum();
        let wanted = (total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (count, bound_ns) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return *bound_ns;
            }
        }
        0
    }
}

/// The counters of one worker, in cache lines of their own.
#[repr(align(128))]
pub struct WorkerStats {
    commands: Box<[CommandStats]>,
    pub total_commands: Counter,
    pub net_input_bytes: Counter,
    pub net_output_bytes: Counter,
    pub unexpected_errors: Counter,
    pub reads: Counter,
    pub writes: Counter,
    pub event_loop_cycles: Counter,
    pub event_loop_ns: Counter,
    pub command_ns: Counter,
}

impl Default for WorkerStats {
    fn default() -> Self {
        WorkerStats {
            commands: table().all.iter().map(|_| CommandStats::default()).collect(),
            total_commands: Counter::default(),
            net_input_bytes: Counter::default(),
            net_output_bytes: Counter::default(),
            unexpected_errors: Counter::default(),
            reads: Counter::default(),
            writes: Counter::default(),
            event_loop_cycles: Counter::default(),
            event_loop_ns: Counter::default(),
            command_ns: Counter::default(),
        }
    }
}

impl WorkerStats {
    pub fn ran(&self, command: usize, ns: u64, failed: bool, with_histogram: bool) {
        let stats = &self.commands[command];
        stats.calls.add(1);
        stats.ns.add(ns);
        if failed {
            stats.failed.add(1);
        }
        if with_histogram {
            stats.histogram.add(ns);
        }
        self.total_commands.add(1);
        self.command_ns.add(ns);
    }

    /// A call from a script. It is not timed: the script that makes it is. Nor does it count among
    /// all commands: the run adds its calls at once.
    #[inline]
    pub fn ran_in_script(&self, command: usize, failed: bool) {
        let stats = &self.commands[command];
        stats.calls.add(1);
        if failed {
            stats.failed.add(1);
        }
    }

    pub fn rejected(&self, command: usize) {
        self.commands[command].rejected.add(1);
    }

    pub fn reset(&self) {
        for stats in &self.commands {
            stats.calls.reset();
            stats.ns.reset();
            stats.rejected.reset();
            stats.failed.reset();
            stats.histogram.0.iter().for_each(Counter::reset);
        }
        self.total_commands.reset();
        self.net_input_bytes.reset();
        self.net_output_bytes.reset();
        self.unexpected_errors.reset();
        self.reads.reset();
        self.writes.reset();
        self.event_loop_cycles.reset();
        self.event_loop_ns.reset();
        self.command_ns.reset();
    }
}

/// One command summed over the workers.
pub fn command_totals<'a>(
    workers: impl Iterator<Item = &'a WorkerStats>,
    command: usize,
) -> CommandTotals {
    let mut totals = CommandTotals::default();
    let mut counts = [0u64; BUCKETS];
    for worker in workers {
        let stats = &worker.commands[command];
        totals.calls += stats.calls.value();
        totals.ns += stats.ns.value();
        totals.rejected += stats.rejected.value();
        totals.failed += stats.failed.value();
        for (count, bucket) in counts.iter_mut().zip(stats.histogram.0.iter()) {
            *count += bucket.value();
        }
    }
    totals.buckets = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(index, count)| (*count, 1u64 << index))
        .collect();
    totals
}

/// Counters that many threads write, rarely.
#[derive(Default)]
pub struct SharedStats {
    pub connections_received: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub evicted_clients: AtomicU64,
    pub query_buffer_disconnections: AtomicU64,
    pub output_buffer_disconnections: AtomicU64,
    pub auth_failures: AtomicU64,
    /// Requests that ACL refused, by reason.
    pub denied_commands: AtomicU64,
    pub denied_keys: AtomicU64,
    pub denied_channels: AtomicU64,
    pub total_errors: AtomicU64,
    pub evicted_ns: AtomicU64,
    pub published: AtomicU64,
}

impl SharedStats {
    pub fn reset(&self) {
        for counter in [
            &self.connections_received,
            &self.rejected_connections,
            &self.evicted_clients,
            &self.query_buffer_disconnections,
            &self.output_buffer_disconnections,
            &self.auth_failures,
            &self.denied_commands,
            &self.denied_keys,
            &self.denied_channels,
            &self.total_errors,
            &self.evicted_ns,
            &self.published,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

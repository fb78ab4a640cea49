//! What is counted of each script: each worker counts its own runs, without locked instructions,
//! and whoever reports sums them up.
//!
//! Thread safety: a tally is written by its worker alone and read by anybody. RESET may lose what a
//! worker adds at the same moment.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use engine::Counter;
use parking_lot::Mutex;

/// Buckets of run times: four for each power of two from `FIRST_NS` on, the last one for all that
/// is longer (137 s). A bucket's bound is at most a quarter above what it counts.
const BUCKETS: usize = 29 * 4;
const FIRST_NS: u64 = 1 << FIRST_BITS;
const FIRST_BITS: usize = 8;

fn bucket(ns: u64) -> usize {
    let ns = ns.max(FIRST_NS);
    let bits = ns.ilog2() as usize;
    let quarter = (ns >> (bits - 2)) as usize & 3;
    ((bits - FIRST_BITS) * 4 + quarter).min(BUCKETS - 1)
}

/// All in a bucket are below this.
fn bound_ns(bucket: usize) -> u64 {
    (5 + (bucket as u64 & 3)) << (FIRST_BITS - 2 + bucket / 4)
}

/// Run times, summed over the workers.
pub struct Times([u64; BUCKETS]);

impl Times {
    /// The time in ns below which this share (0 to 100) of the runs stayed; at most a quarter too
    /// much, and no more than the longest run.
    pub fn percentile_ns(&self, percent: f64, max_ns: u64) -> u64 {
        let total: u64 = self.0.iter().sum();
        let wanted = (total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return bound_ns(index).min(max_ns);
            }
        }
        0
    }
}

/// Declares what is counted: fields that add up, and fields of which the greatest counts.
macro_rules! tally {
    (
        sums { $( $(#[$sum_doc:meta])* $sum:ident, )* }
        greatest { $( $(#[$max_doc:meta])* $max:ident, )* }
    ) => {
        /// What one worker has seen of one script.
        pub struct Tally {
            $( $sum: Counter, )*
            $( $max: Counter, )*
            times: [AtomicU32; BUCKETS],
        }

        impl Default for Tally {
            fn default() -> Tally {
                Tally {
                    $( $sum: Counter::default(), )*
                    $( $max: Counter::default(), )*
                    times: std::array::from_fn(|_| AtomicU32::new(0)),
                }
            }
        }

        /// A script over all workers, or all scripts.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $( $(#[$sum_doc])* pub $sum: u64, )*
            $( $(#[$max_doc])* pub $max: u64, )*
        }

        impl Tally {
            fn reset(&self) {
                $( self.$sum.reset(); )*
                $( self.$max.reset(); )*
                self.times.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            }

            fn totals(&self) -> Totals {
                Totals {
                    $( $sum: self.$sum.value(), )*
                    $( $max: self.$max.value(), )*
                }
            }
        }

        impl Totals {
            pub fn add(&mut self, other: &Totals) {
                $( self.$sum += other.$sum; )*
                $( self.$max = self.$max.max(other.$max); )*
            }
        }
    };
}

tally! {
    sums {
        /// Runs that came to their end, whatever that was.
        calls,
        ns,
        /// Those that answered an error.
        errors,
        /// Those that had written something and left nothing behind.
        rollbacks,
        kills,
        deadlines,
        /// Runs that were undone to begin again under other locks.
        restarts,
        /// Runs with the whole keyspace.
        exclusive,
        commands,
        /// Of keys and arguments, and of replies.
        bytes_in,
        bytes_out,
        /// Pieces of machine code compiled while it ran.
        traces,
        /// Runs whose calls were all timed, how long they took, and how much of that the calls.
        sampled,
        sampled_ns,
        sampled_command_ns,
    }
    greatest {
        max_ns,
        /// Different keys of one of the sampled runs.
        keys,
        /// The longest call that was timed: its ns and, in the last 16 bits, its command.
        slowest,
        last_used_ms,
    }
}

/// A run that came to its end.
#[derive(Default)]
pub struct Finished {
    pub ns: u64,
    pub at_ms: i64,
    pub is_error: bool,
    pub is_rolled_back: bool,
    pub is_killed: bool,
    pub is_late: bool,
    pub is_exclusive: bool,
    pub bytes_in: usize,
    pub bytes_out: usize,
    pub traces: u32,
}

/// Runs of a script on a worker whose calls are all timed: the first ones, then one of so many.
const SAMPLED_FIRST: u64 = 16;
const SAMPLED_EVERY: u64 = 256;

impl Tally {
    pub fn samples_next_run(&self) -> bool {
        let calls = self.calls.value();
        calls < SAMPLED_FIRST || calls.is_multiple_of(SAMPLED_EVERY)
    }

    pub fn note(&self, run: &Finished, meter: &super::Meter) {
        self.calls.add(1);
        self.ns.add(run.ns);
        raise(&self.max_ns, run.ns);
        let count = &self.times[bucket(run.ns)];
        count.store(count.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        self.commands.add(meter.commands);
        self.bytes_in.add(run.bytes_in as u64);
        self.bytes_out.add(run.bytes_out as u64);
        raise(&self.last_used_ms, run.at_ms.max(0) as u64);
        if run.is_exclusive {
            self.exclusive.add(1);
        }
        if run.is_error {
            self.errors.add(1);
            self.rollbacks.add(run.is_rolled_back.into());
            self.kills.add(run.is_killed.into());
            self.deadlines.add(run.is_late.into());
        }
        if run.traces > 0 {
            self.traces.add(run.traces.into());
        }
        if let Some(slowest) = meter.slowest() {
            raise(&self.slowest, slowest.ns.min(u64::MAX >> 16) << 16 | slowest.command as u64);
        }
        if let Some(sample) = &meter.sample {
            self.sampled.add(1);
            self.sampled_ns.add(run.ns);
            self.sampled_command_ns.add(sample.ns.min(run.ns));
            raise(&self.keys, sample.keys.len() as u64);
        }
    }

    pub fn note_restart(&self) {
        self.restarts.add(1);
    }
}

fn raise(greatest: &Counter, value: u64) {
    let now = greatest.value();
    if value > now {
        greatest.add(value - now);
    }
}

impl Totals {
    /// An estimate: the share that calls had in the sampled runs is taken for that of all.
    pub fn command_ns(&self) -> u64 {
        let share = self.sampled_command_ns as f64 / self.sampled_ns.max(1) as f64;
        (self.ns as f64 * share) as u64
    }

    /// The longest call that was timed: ns and command.
    pub fn slowest(&self) -> Option<(u64, usize)> {
        (self.slowest > 0).then_some((self.slowest >> 16, (self.slowest & 0xffff) as usize))
    }
}

/// What scripts that are gone leave behind in the totals.
pub type Gone = Arc<Mutex<Totals>>;

/// One script over all workers. A worker's part is made when the script first runs there.
pub struct ScriptStats {
    workers: Box<[OnceLock<Box<Tally>>]>,
    gone: Gone,
}

impl ScriptStats {
    pub fn new(workers: usize, gone: Gone) -> ScriptStats {
        ScriptStats { workers: (0..workers).map(|_| OnceLock::new()).collect(), gone }
    }

    pub fn of(&self, worker: usize) -> &Tally {
        self.workers[worker].get_or_init(Box::default)
    }

    fn tallies(&self) -> impl Iterator<Item = &Tally> {
        self.workers.iter().filter_map(|worker| worker.get().map(|tally| &**tally))
    }

    /// No worker has run it.
    pub fn is_empty(&self) -> bool {
        self.tallies().next().is_none()
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.tallies().for_each(|tally| totals.add(&tally.totals()));
        totals
    }

    pub fn times(&self) -> Times {
        let mut times = [0; BUCKETS];
        for tally in self.tallies() {
            for (sum, count) in times.iter_mut().zip(&tally.times) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        Times(times)
    }

    pub fn reset(&self) {
        self.tallies().for_each(Tally::reset);
    }

    /// What it takes once all workers have run the script.
    pub fn bytes(&self) -> usize {
        self.workers.len() * (size_of::<OnceLock<Box<Tally>>>() + size_of::<Tally>())
    }
}

impl Drop for ScriptStats {
    fn drop(&mut self) {
        let mut totals = self.totals();
        // It is about one script that is no more.
        totals.slowest = 0;
        self.gone.lock().add(&totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_below_the_bound_of_its_bucket_and_near_it() {
        let mut ns = FIRST_NS;
        while ns < 100_000_000_000 {
            let bound = bound_ns(bucket(ns));
            assert!(ns < bound && bound <= ns + ns / 4 + 1, "{ns} {bound}");
            ns += ns / 7;
        }
        assert_eq!((bucket(0), bucket(1), bucket(u64::MAX)), (0, 0, BUCKETS - 1));
        assert!((1..BUCKETS).all(|index| bound_ns(index) > bound_ns(index - 1)));
    }

    fn run(ns: u64) -> Finished {
        Finished { ns, bytes_in: 10, bytes_out: 20, ..Finished::default() }
    }

    #[test]
    fn percentiles_are_those_of_the_runs() {
        let stats = ScriptStats::new(2, Gone::default());
        let meter = super::super::Meter::new(false);
        for us in 1..=1000 {
            stats.of(us as usize % 2).note(&run(us * 1000), &meter);
        }
        let (totals, times) = (stats.totals(), stats.times());
        assert_eq!((totals.calls, totals.max_ns, totals.bytes_in), (1000, 1_000_000, 10_000));
        for (percent, ns) in [(50.0, 500_000), (99.0, 990_000), (99.9, 999_000)] {
            let found = times.percentile_ns(percent, totals.max_ns);
            assert!((ns..=ns + ns / 4).contains(&found), "{percent}: {found}");
        }
        assert_eq!(times.percentile_ns(100.0, totals.max_ns), 1_000_000);
        stats.reset();
        assert_eq!(stats.totals(), Totals::default());
        assert_eq!(stats.times().percentile_ns(50.0, 0), 0);
    }

    #[test]
    fn totals_outlive_their_script() {
        let gone = Gone::default();
        let stats = ScriptStats::new(1, gone.clone());
        let meter = super::super::Meter::new(false);
        stats.of(0).note(&Finished { is_error: true, is_rolled_back: true, ..run(5) }, &meter);
        stats.of(0).note_restart();
        drop(stats);
        let totals = gone.lock().clone();
        assert_eq!((totals.calls, totals.errors, totals.rollbacks, totals.restarts), (1, 1, 1, 1));
    }

    #[test]
    fn the_first_runs_and_some_of_the_others_are_sampled() {
        let tally = Tally::default();
        let meter = super::super::Meter::new(false);
        let sampled = (0..1025)
            .filter(|_| {
                let samples = tally.samples_next_run();
                tally.note(&run(5), &meter);
                samples
            })
            .count();
        assert_eq!(sampled, 16 + 4);
    }
}

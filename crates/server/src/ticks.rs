//! Short times, cheaply: how long one command took, measured between any two commands.
//!
//! Reading the system's clock costs about as much as a small command's own work. Where the kernel
//! itself keeps time by the processor's counter, that counter is read directly and its rate is
//! measured against the system's clock as the process goes on; elsewhere the system's clock
//! serves. Used by the worker's loop only; a value is good on the worker that read it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// One ns in the units of a rate.
const ONE_NS: u64 = 1 << 32;
/// How long the rate is measured at the start.
const FIRST_LOOK: Duration = Duration::from_micros(20);

pub struct Ticker {
    is_counter: bool,
    anchor: (Instant, u64),
    /// In units of 2^-32 ns.
    ns_per_tick: Cell<u64>,
    /// Ticks between two readings with nothing between them.
    cost: u64,
}

impl Ticker {
    pub fn new() -> Ticker {
        let mut ticker = Ticker {
            is_counter: is_counter_reliable(),
            anchor: (Instant::now(), 0),
            ns_per_tick: Cell::new(ONE_NS),
            cost: 0,
        };
        ticker.cost = (0..32).map(|_| ticker.step()).min().unwrap_or(0);
        ticker.anchor.1 = ticker.now();
        while ticker.is_counter && ticker.anchor.0.elapsed() < FIRST_LOOK {}
        ticker.adjust(Instant::now());
        ticker
    }

    /// Ticks since some point in the past.
    #[inline]
    pub fn now(&self) -> u64 {
        if self.is_counter { counter() } else { self.anchor.0.elapsed().as_nanos() as u64 }
    }

    fn step(&self) -> u64 {
        let from = self.now();
        self.now().saturating_sub(from)
    }

    /// Ticks that go by between two readings with nothing between them.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Measures the rate again; `now` is the system's clock at this moment.
    pub fn adjust(&self, now: Instant) {
        if self.is_counter {
            let ticks = self.now().saturating_sub(self.anchor.1).max(1);
            let ns = now.saturating_duration_since(self.anchor.0).as_nanos();
            let ns_per_tick = ns * u128::from(ONE_NS) / u128::from(ticks);
            self.ns_per_tick.set(u64::try_from(ns_per_tick).unwrap_or(u64::MAX));
        }
    }

    /// From one reading to a later one, ns; 0 if it is not later.
    #[inline]
    pub fn ns_between(&self, from: u64, to: u64) -> u64 {
        let ticks = u128::from(to.saturating_sub(from));
        ((ticks * u128::from(self.ns_per_tick.get())) >> ONE_NS.trailing_zeros()) as u64
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: reading the time stamp counter has no precondition on x86-64.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    unreachable!("no counter is used on this processor")
}

/// Whether the counter runs at one rate and agrees between cores: the kernel has checked that
/// when it keeps its own time by it.
fn is_counter_reliable() -> bool {
    const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    cfg!(target_arch = "x86_64")
        && std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|source| source.trim() == "tsc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_as_long_as_the_system_clock_says() {
        let ticker = Ticker::new();
        let (started, from) = (Instant::now(), ticker.now());
        while started.elapsed() < Duration::from_millis(20) {}
        let to = ticker.now();
        let elapsed_ns = started.elapsed().as_nanos() as f64;
        ticker.adjust(Instant::now());
        let ratio = ticker.ns_between(from, to) as f64 / elapsed_ns;
        // The process may lose the processor between the two clocks, so the bound is wide.
        assert!((0.5..1.5).contains(&ratio), "{ratio}");
        assert_eq!(ticker.ns_between(to, from), 0);
    }
}

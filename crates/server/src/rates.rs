//! Rates per second, as INFO shows them: means over the last samples.

use std::time::Instant;

/// Samples kept; the watchdog takes one every tenth of a second.
const SAMPLES: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub commands: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
}

#[derive(Default)]
pub struct Rates {
    samples: Vec<(Instant, Totals)>,
}

impl Rates {
    pub fn sample(&mut self, now: Instant, totals: Totals) {
        if self.samples.len() == SAMPLES {
            self.samples.remove(0);
        }
        self.samples.push((now, totals));
    }

    /// Growth a second between the oldest and the newest sample.
    pub fn per_second(&self) -> Totals {
        let (Some((from, old)), Some((to, new))) = (self.samples.first(), self.samples.last())
        else {
            return Totals::default();
        };
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        let rate = |new: u64, old: u64| match seconds > 0.0 {
            true => (new.saturating_sub(old) as f64 / seconds) as u64,
            false => 0,
        };
        Totals {
            commands: rate(new.commands, old.commands),
            input_bytes: rate(new.input_bytes, old.input_bytes),
            output_bytes: rate(new.output_bytes, old.output_bytes),
        }
    }
}

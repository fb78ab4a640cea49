//! The latency monitor: what took longer than `latency-monitor-threshold`, by kind of event.
//!
//! Thread safety: one lock, taken only for what was slow and by LATENCY.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// Samples that are kept of an event.
const SAMPLES_MAX: usize = 160;

/// Columns and rows of a graph, and what a column is drawn with, from low to high.
const COLUMNS: usize = 80;
const ROWS: usize = 4;
const STROKES: &[u8] = b"_o#";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at_seconds: i64,
    pub ms: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Series {
    pub samples: VecDeque<Sample>,
    /// The longest ever, samples that are gone included.
    pub max_ms: u32,
}

#[derive(Default)]
pub struct Latency(Mutex<BTreeMap<&'static str, Series>>);

impl Latency {
    /// Notes what took `ns` if that is at least the threshold; 0 of that notes nothing.
    #[inline]
    pub fn note(&self, event: &'static str, ns: u64, threshold_ms: u64, at_ms: i64) {
        if threshold_ms > 0 && ns / 1_000_000 >= threshold_ms {
            self.add(event, at_ms / 1000, u32::try_from(ns / 1_000_000).unwrap_or(u32::MAX));
        }
    }

    #[cold]
    fn add(&self, event: &'static str, at_seconds: i64, ms: u32) {
        let mut events = self.0.lock();
        let series = events.entry(event).or_default();
        series.max_ms = series.max_ms.max(ms);
        // One sample for each second: its longest.
        match series.samples.back_mut() {
            Some(last) if last.at_seconds == at_seconds => last.ms = last.ms.max(ms),
            _ => {
                if series.samples.len() == SAMPLES_MAX {
                    series.samples.pop_front();
                }
                series.samples.push_back(Sample { at_seconds, ms });
            }
        }
    }

    pub fn events(&self) -> Vec<(&'static str, Series)> {
        self.0.lock().iter().map(|(event, series)| (*event, series.clone())).collect()
    }

    pub fn series(&self, event: &[u8]) -> Option<Series> {
        let events = self.0.lock();
        let name = std::str::from_utf8(event).ok()?;
        events.get(name).cloned()
    }

    /// Forgets these events, or all; answers how many there were.
    pub fn reset(&self, names: &[&[u8]]) -> usize {
        let mut events = self.0.lock();
        let before = events.len();
        events.retain(|event, _| !names.is_empty() && !names.contains(&event.as_bytes()));
        before - events.len()
    }
}

impl Series {
    /// The samples as columns of characters, each with its age written below from top to bottom.
    pub fn graph(&self, event: &str, now_seconds: i64) -> String {
        let values = || self.samples.iter().map(|sample| sample.ms);
        let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
        let mut text = format!(
            "{event} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
            self.max_ms,
            "-".repeat(COLUMNS)
        );
        let columns: Vec<Vec<u8>> =
            self.samples.iter().map(|sample| column(sample, low, high, now_seconds)).collect();
        for (index, part) in columns.chunks(COLUMNS).enumerate() {
            if index > 0 {
                text.push('\n');
            }
            let height = part.iter().map(Vec::len).max().unwrap_or(0);
            for row in 0..height {
                let line = part.iter().map(|column| char::from(*column.get(row).unwrap_or(&b' ')));
                text.extend(line);
                text.push('\n');
            }
        }
        text
    }
}

fn column(sample: &Sample, low: u32, high: u32, now_seconds: i64) -> Vec<u8> {
    let steps = STROKES.len() * ROWS;
    let range = u64::from((high - low).max(1));
    let step = u64::from(sample.ms - low) * steps as u64 / range;
    let step = (step as usize).min(steps - 1);
    let mut column = Vec::with_capacity(ROWS + 4);
    for row in 0..ROWS {
        let below = (ROWS - row - 1) * STROKES.len();
        column.push(match step.checked_sub(below) {
            None => b' ',
            Some(stroke) => STROKES.get(stroke).copied().unwrap_or(b'|'),
        });
    }
    column.push(b' ');
    let age = (now_seconds - sample.at_seconds).max(0);
    let label = match age {
        0..60 => format!("{age}s"),
        60..3600 => format!("{}m", age / 60),
        3600..86400 => format!("{}h", age / 3600),
        _ => format!("{}d", age / 86400),
    };
    column.extend(label.as_bytes());
    column
}

/// What an event's samples say together.
pub struct Summary {
    pub count: usize,
    pub average_ms: u64,
    /// How far samples are from it on average.
    pub deviation_ms: u64,
    /// Between two samples on average.
    pub period_seconds: f64,
    pub max_ms: u32,
}

impl Series {
    pub fn summary(&self, now_seconds: i64) -> Summary {
        let count = self.samples.len();
        let mean = |sum: u64| sum.checked_div(count as u64).unwrap_or(0);
        let average_ms = mean(self.samples.iter().map(|sample| u64::from(sample.ms)).sum());
        let distance = |sample: &Sample| u64::from(sample.ms).abs_diff(average_ms);
        let oldest = self.samples.front().map_or(now_seconds, |sample| sample.at_seconds);
        let seconds = (now_seconds - oldest).max(1);
        Summary {
            count,
            average_ms,
            deviation_ms: mean(self.samples.iter().map(distance).sum()),
            period_seconds: seconds as f64 / count.max(1) as f64,
            max_ms: self.max_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn only_what_is_slow_is_kept() {
        let latency = Latency::default();
        latency.note("command", 9 * MS, 10, 1000);
        latency.note("command", 50 * MS, 0, 1000);
        assert!(latency.events().is_empty());
        latency.note("command", 10 * MS, 10, 1000);
        latency.note("command", 30 * MS, 10, 1500);
        latency.note("command", 20 * MS, 10, 1999);
        let series = latency.series(b"command").unwrap();
        assert_eq!(series.samples, [Sample { at_seconds: 1, ms: 30 }], "one for each second");
        for second in 2..300 {
            latency.note("command", 10 * MS, 10, second * 1000);
        }
        let series = latency.series(b"command").unwrap();
        assert_eq!((series.samples.len(), series.max_ms), (SAMPLES_MAX, 30));
        assert_eq!(latency.reset(&[b"other"]), 0);
        assert_eq!(latency.reset(&[]), 1);
    }

    #[test]
    fn graphs() {
        let latency = Latency::default();
        for (second, ms) in [(1, 10), (2, 40), (3, 16)] {
            latency.note("command", ms * MS, 10, second * 1000);
        }
        let graph = latency.series(b"command").unwrap().graph("command", 63);
        let rows = [" # ", " | ", " | ", "_|#", "   ", "111", "mmm"].join("\n");
        let head = "command - high 40 ms, low 10 ms (all time high 40 ms)";
        assert_eq!(graph, format!("{head}\n{}\n{rows}\n", "-".repeat(80)));
    }
}

//! Turns measurements into text: a line per workload while they run, the verdict on the targets,
//! and docs/benchmarks.md.
//!
//! Measures nothing. Called by the bench's main; the figures are drawn by `plot`.

use std::fmt::Write as _;

use super::UNDO_MODES;
use super::measure::{Summary, Weight};
use super::workloads::{Group, Target};

/// A workload's name and numbers: Redis first, then Luar's configurations.
pub struct Row {
    pub name: String,
    pub group: Group,
    pub pipeline: usize,
    pub targets: Vec<Target>,
    pub results: Vec<Summary>,
}

pub struct MemoryRow {
    pub name: &'static str,
    pub target: Option<f64>,
    /// Redis, then Luar.
    pub weights: [Weight; 2],
}

/// Where and with what it was measured.
pub struct Setting {
    pub machine: String,
    pub versions: Vec<String>,
    pub names: Vec<String>,
    pub rounds: usize,
    pub memory_items: u64,
    pub cross_check: Vec<String>,
    pub minutes: f64,
}

pub struct Verdict {
    pub text: String,
    pub met: bool,
}

impl Row {
    pub fn title(&self) -> String {
        format!("{}, pipeline {}", self.name, self.pipeline)
    }

    pub fn cpu_ratio(&self, index: usize) -> f64 {
        self.results[index].server_cpu_us / self.results[0].server_cpu_us
    }

    pub fn throughput_ratio(&self, index: usize) -> f64 {
        self.results[index].operations_per_second / self.results[0].operations_per_second
    }

    /// The targets, held against the first Luar, which has one worker unless told otherwise.
    pub fn verdicts(&self) -> Vec<Verdict> {
        self.targets
            .iter()
            .map(|target| match *target {
                Target::CpuMax(limit) => verdict("CPU", self.cpu_ratio(1), "≤", limit),
                Target::ThroughputMin(limit) => {
                    verdict("throughput", self.throughput_ratio(1), "≥", limit)
                }
                Target::SpeedMin(limit) => verdict("speed", 1.0 / self.cpu_ratio(1), "≥", limit),
            })
            .collect()
    }
}

impl MemoryRow {
    pub fn ratio(&self) -> f64 {
        self.weights[1].used_memory / self.weights[0].used_memory
    }

    pub fn rss_ratio(&self) -> f64 {
        self.weights[1].rss / self.weights[0].rss
    }

    pub fn verdicts(&self) -> Vec<Verdict> {
        // Both counts must hold: our own, and the kernel's.
        self.target
            .iter()
            .flat_map(|limit| {
                [
                    verdict("used_memory", self.ratio(), "≤", *limit),
                    verdict("RSS", self.rss_ratio(), "≤", *limit),
                ]
            })
            .collect()
    }
}

fn verdict(what: &str, value: f64, relation: &str, limit: f64) -> Verdict {
    let met = if relation == "≤" { value <= limit } else { value >= limit };
    let mark = if met { "met" } else { "MISSED" };
    Verdict { text: format!("{what} {value:.2}× ({relation} {limit}× {mark})"), met }
}

/// The line printed when a workload is done.
pub fn line(row: &Row, names: &[String]) -> String {
    let mut text = format!("{:<32} P{:<3}", row.name, row.pipeline);
    for (name, result) in names.iter().zip(&row.results) {
        let _ = write!(
            text,
            " │ {name} {} {:.2} µs CPU, p50/p99/p99.9 {}/{}/{} µs",
            rate(result.operations_per_second),
            result.server_cpu_us,
            short(result.p50_us),
            short(result.p99_us),
            short(result.p999_us)
        );
    }
    for (index, name) in names.iter().enumerate().skip(1) {
        let (cpu, throughput) = (row.cpu_ratio(index), row.throughput_ratio(index));
        let _ = write!(text, " │ {name} CPU {cpu:.2}× rate {throughput:.2}×");
    }
    for verdict in row.verdicts() {
        let _ = write!(text, " │ {}", verdict.text);
    }
    text
}

pub fn memory_line(row: &MemoryRow) -> String {
    let [redis, luar] = &row.weights;
    let mut text = format!(
        "{:<32} │ redis {:.1} B, RSS {:.1} B │ luar {:.1} B, RSS {:.1} B │ {:.2}×, RSS {:.2}×",
        row.name,
        redis.used_memory,
        redis.rss,
        luar.used_memory,
        luar.rss,
        row.ratio(),
        row.rss_ratio()
    );
    for verdict in row.verdicts() {
        let _ = write!(text, " │ {}", verdict.text);
    }
    text
}

/// The page docs/benchmarks.md.
pub fn page(setting: &Setting, rows: &[Row], memory: &[MemoryRow], notes: &str) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        page,
        "Written by `cargo xtask bench`, which runs a Redis and Luar side by side on one machine. \
         Change the bench, not this page. \
         Files and snapshots: [benchmarks-persistence.md](benchmarks-persistence.md).\n"
    );
    let _ = writeln!(page, "- {}", setting.machine);
    for version in &setting.versions {
        let _ = writeln!(page, "- {version}");
    }
    let _ = writeln!(
        page,
        "- Both servers run at once on loopback ports and one of them works at a time: {} rounds, \
         alternating, the same operations for each. Redis runs with `--save \"\" --appendonly no`.\n\
         - Rates and CPU times are medians of the rounds; latencies are over all rounds. CPU is the \
         server's own, read from the scheduler; the load generator's is counted apart.\n\
         - The load generator is one thread with 50 connections (fewer for long scripts). Each sends \
         as many commands as the pipeline is deep, waits for all replies, and sends again. A latency \
         is from sending a batch to one of its replies, so it grows with the depth.\n\
         - Keys are random among 100,000.\n\
         - The whole run took {:.0} minutes.",
        setting.rounds, setting.minutes
    );
    for check in &setting.cross_check {
        let _ = writeln!(page, "- {check}");
    }

    let verdicts: Vec<(String, Verdict)> = rows
        .iter()
        .flat_map(|row| row.verdicts().into_iter().map(|verdict| (row.title(), verdict)))
        .chain(memory.iter().flat_map(|row| {
            row.verdicts().into_iter().map(|verdict| (row.name.to_owned(), verdict))
        }))
        .collect();
    let missed: Vec<_> = verdicts.iter().filter(|(_, verdict)| !verdict.met).collect();
    let _ = writeln!(page, "\n## Targets\n");
    let _ = writeln!(page, "{} of {} met.", verdicts.len() - missed.len(), verdicts.len());
    if !missed.is_empty() {
        let _ = writeln!(page, "\n| Missed | by |\n|---|---|");
        for (title, verdict) in missed {
            let _ = writeln!(page, "| {title} | {} |", verdict.text.replace(" MISSED", ""));
        }
    }
    if !notes.is_empty() {
        let _ = writeln!(page, "\n{}", notes.trim());
    }

    for (group, title, figures) in [
        (
            Group::Command,
            "Commands",
            &["commands-cpu", "commands-throughput", "commands-latency"][..],
        ),
        (Group::Script, "Scripts", &["scripts"][..]),
    ] {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(page, "\n## {title}\n");
        for figure in figures {
            let _ = writeln!(page, "![{title}](bench-{figure}.svg)\n");
        }
        table(&mut page, &setting.names, &rows);
    }

    let undo: Vec<&Row> = rows.iter().filter(|row| row.group == Group::Undo).collect();
    if !undo.is_empty() {
        let _ = writeln!(
            page,
            "\n## Undo\n\nLuar against itself: scripts of one small write where none can be undone \
             (`script-atomicity isolation`), and where all can (`rollback`).\n"
        );
        table(&mut page, &UNDO_MODES.map(str::to_owned), &undo);
    }

    if !memory.is_empty() {
        let _ = writeln!(
            page,
            "\n## Memory\n\nBytes per item with {} items, by the server's own `used_memory` and by \
             the kernel's resident size.\n\n![Memory](bench-memory.svg)\n",
            setting.memory_items
        );
        let _ = writeln!(page, "| | Redis | Luar | ratio | Redis RSS | Luar RSS | ratio |");
        let _ = writeln!(page, "|---|--:|--:|--:|--:|--:|--:|");
        for row in memory {
            let [redis, luar] = &row.weights;
            let _ = writeln!(
                page,
                "| {} | {:.1} | {:.1} | {:.2}× | {:.1} | {:.1} | {:.2}× |",
                row.name,
                redis.used_memory,
                luar.used_memory,
                row.ratio(),
                redis.rss,
                luar.rss,
                row.rss_ratio()
            );
        }
    }
    page
}

fn table(page: &mut String, names: &[String], rows: &[&Row]) {
    let _ = write!(page, "| | P |");
    for name in names {
        let _ = write!(page, " {name}: ops/s | CPU µs | p50/p99/p99.9 µs |");
    }
    for name in &names[1..] {
        let _ = write!(page, " {name}: CPU | rate |");
    }
    let _ = write!(page, " client CPU µs |\n|---|--:|");
    for _ in 0..names.len() * 3 + (names.len() - 1) * 2 + 1 {
        page.push_str("--:|");
    }
    page.push('\n');
    for row in rows {
        let _ = write!(page, "| {} | {} |", row.name, row.pipeline);
        for result in &row.results {
            let (least, most) = result.server_cpu_us_spread;
            let _ = write!(
                page,
                " {} | {} ({}–{}) | {}/{}/{} |",
                rate(result.operations_per_second),
                short(result.server_cpu_us),
                short(least),
                short(most),
                short(result.p50_us),
                short(result.p99_us),
                short(result.p999_us)
            );
        }
        for index in 1..row.results.len() {
            let _ = write!(
                page,
                " {:.2}× | {:.2}× |",
                row.cpu_ratio(index),
                row.throughput_ratio(index)
            );
        }
        let clients: Vec<String> =
            row.results.iter().map(|result| short(result.client_cpu_us)).collect();
        let _ = writeln!(page, " {} |", clients.join("/"));
    }
}

/// Three significant digits without an exponent.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e6 => format!("{:.2} M/s", rate / 1e6),
        rate if rate >= 1e3 => format!("{} k/s", short(rate / 1e3)),
        rate => format!("{}/s", short(rate)),
    }
}

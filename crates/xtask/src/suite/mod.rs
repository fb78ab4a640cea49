//! `cargo xtask suite valkey`: the test suite of Valkey against Luar.
//!
//! The suite is not part of this repository, and neither is it of the continuous tests: it is read
//! from a checkout whose tools are built. In drop-in mode its harness starts Luar in place of
//! `src/valkey-server`; in external mode it talks to one that runs already. One file of it is run
//! after the other, and what fails is compared with `suites/valkey/expected-failures.txt`, which
//! has a reason for everything.

mod expected;
mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::talk::root;
use expected::Expected;
use harness::{FileRun, Mode, Workplace};

const USAGE: &str = "usage: cargo xtask suite valkey --checkout DIR [options] [FILE ...]
  --checkout DIR      Valkey's source with its tools built (src/valkey-cli and its kin)
  --drop-in           its harness starts Luar with a configuration file (default)
  --external          its harness talks to a Luar that was started for each file
  --address HOST:PORT with --external: to this server instead, which loses all its keys
  --binary PATH       test this instead of building target/release/luar
  --tags TAGS         as of the harness: only these tests, or none of those with a - before them
                      (default in drop-in mode: none of replication, clusters, defragmentation)
  --minutes N         time limit of each file (default 10)
  --keep              keep the files of the servers
  --verbose           what the harness prints, too
FILE is a name such as unit/type/hash, or has a * in it; the default is what is to pass in this mode.";

/// Files about persistence and the life of the process are only for drop-in mode.
const DROP_IN: &[&str] = &[
    "integration/aof",
    "integration/aof-multi-part",
    "integration/aof-race",
    "integration/rdb",
    "integration/convert-*",
    "integration/corrupt-dump",
    "integration/shutdown",
    "unit/*",
    "unit/type/*",
];
const EXTERNAL: &[&str] = &["unit/*", "unit/type/*"];

pub fn main(args: &[String]) -> Result<bool, String> {
    let mut rest = args.iter();
    match rest.next().map(String::as_str) {
        Some("valkey") => {}
        _ => return Err(USAGE.to_owned()),
    }
    let (mut checkout, mut binary, mut address) = (None, None, None);
    let (mut external, mut keep, mut verbose, mut minutes) = (false, false, false, 10);
    let (mut tags, mut wanted) = (String::new(), Vec::new());
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--checkout" => checkout = Some(PathBuf::from(value()?)),
            "--binary" => binary = Some(PathBuf::from(value()?)),
            "--address" => address = Some(value()?),
            "--tags" => tags = value()?,
            "--minutes" => minutes = value()?.parse().map_err(|_| "--minutes needs a number")?,
            "--drop-in" => external = false,
            "--external" => external = true,
            "--keep" => keep = true,
            "--verbose" => verbose = true,
            "--help" => return Err(USAGE.to_owned()),
            other if other.starts_with("--") => return Err(format!("unknown {other}\n{USAGE}")),
            file => wanted.push(file.to_owned()),
        }
    }
    let checkout = checkout.ok_or("--checkout DIR is needed: Valkey's source, built")?;
    let checkout = absolute(&checkout)?;
    let binary = match binary {
        Some(binary) => absolute(&binary)?,
        None => build()?,
    };
    let mode = match (external, address) {
        (false, None) => Mode::DropIn,
        (true, address) => Mode::External(address),
        (false, Some(_)) => return Err("--address goes with --external".into()),
    };
    if wanted.is_empty() {
        let default = if external { EXTERNAL } else { DROP_IN };
        wanted = default.iter().map(|&name| name.to_owned()).collect();
    }
    let files = select(&harness::files(&checkout)?, &wanted)?;
    let expected = Expected::read(&root().join("suites/valkey/expected-failures.txt"))?;
    let mut workplace = Workplace::new(&checkout, &binary, mode)?;
    workplace.tags = tags;
    workplace.limit = Duration::from_secs(60 * minutes);
    workplace.verbose = verbose;
    let mut summary = Summary::default();
    for file in &files {
        if let Some(reason) = expected.whole(file) {
            println!("{file}: not run. {reason}");
            summary.left_out.push(file.clone());
            continue;
        }
        let run = workplace.run(file, expected.not_run(file))?;
        summary.add(file, &run, &expected);
    }
    if !keep {
        workplace.remove();
    }
    Ok(summary.print())
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}

fn build() -> Result<PathBuf, String> {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "-p", "luar"])
        .current_dir(root())
        .status()
        .map_err(|error| error.to_string())?;
    match built.success() {
        true => absolute(&root().join("target/release/luar")),
        false => Err("luar does not build".into()),
    }
}

/// The files that are meant, each once, in the order they were asked for.
fn select(files: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    let mut chosen: Vec<String> = Vec::new();
    for pattern in wanted {
        // `unit/*` is not meant to reach into `unit/type`.
        let depth = pattern.matches('/').count();
        let before = chosen.len();
        let fitting = files.iter().filter(|file| file.matches('/').count() == depth);
        for file in fitting.filter(|file| expected::matches(pattern, file)) {
            if !chosen.contains(file) {
                chosen.push(file.clone());
            }
        }
        if chosen.len() == before && !chosen.contains(pattern) {
            return Err(format!("the checkout has no file {pattern}"));
        }
    }
    Ok(chosen)
}

/// What came of all files.
#[derive(Default)]
struct Summary {
    lines: Vec<String>,
    left_out: Vec<String>,
    /// `file: test`, and what was said about it.
    unexpected: Vec<(String, String)>,
    /// Listed as failing, and did not.
    healed: Vec<String>,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Summary {
    fn add(&mut self, file: &str, run: &FileRun, expected: &Expected) {
        let mut unexpected = 0;
        for failure in &run.failures {
            if !expected.has(file, &failure.test) {
                unexpected += 1;
                let test = format!("{file}: {}", failure.test);
                self.unexpected.push((test, failure.details.clone()));
            }
        }
        for listed in expected.of(file) {
            let fails = run.failures.iter().any(|failure| expected::matches(listed, &failure.test));
            let passes = run.passed.iter().any(|test| expected::matches(listed, test));
            if passes && !fails {
                self.healed.push(format!("{file}: {listed}"));
            }
        }
        self.passed += run.passed.len();
        self.failed += run.failures.len();
        self.skipped += run.skipped;
        let line = format!(
            "{file:36} {:6} {:6} {:10} {:7} {:7.1}",
            run.passed.len(),
            run.failures.len(),
            unexpected,
            run.skipped,
            run.elapsed.as_secs_f64(),
        );
        println!("{line}");
        self.lines.push(line);
    }

    /// True when nothing failed but what is listed.
    fn print(&self) -> bool {
        for (test, details) in &self.unexpected {
            // Of a server that did not start, the configuration comes first.
            let details = details.split_once("\nERROR:\n").map_or(details.as_str(), |(_, why)| why);
            println!("\nfails, and is not listed: {test}\n{}", indent(details));
        }
        for test in &self.healed {
            println!("\nlisted, and passes: {test}");
        }
        println!(
            "\n{:36} {:>6} {:>6} {:>10} {:>7} {:>7}",
            "file", "passed", "failed", "unexpected", "skipped", "seconds"
        );
        self.lines.iter().for_each(|line| println!("{line}"));
        let run = self.passed + self.failed;
        println!(
            "\n{} of {run} tests passed ({:.1} %), {} failed, {} of them not listed; {} were skipped, \
             {} files were not run",
            self.passed,
            self.passed as f64 * 100.0 / run.max(1) as f64,
            self.failed,
            self.unexpected.len(),
            self.skipped,
            self.left_out.len(),
        );
        self.unexpected.is_empty() && run > 0
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

//! `cargo xtask talk`: runs talk files by hand, and fills in their expectations.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::replay::Replay;
use testkit::run::{self, Failure, Options, Outcome, Target};

const USAGE: &str = "usage: cargo xtask talk [options] [path-filter]
  --server PATH       start this binary for each file (default target/release/luar)
  --redis             the same with redis-server, as the oracle
  --address HOST:PORT run against a server that is already there; it loses all its keys
  --oracle            that server is Redis: deliberate differences apply
  --replay NAME       plain (default), multi, eval or tiny
  --arg ARG           one more argument for the started server (repeatable)
  --jobs N            files at the same time (default 2)
  --rewrite           replace expectations that do not fit
  --brief             one line for each failure";

/// The repository's root, wherever the task is run from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The scripts that talk files speak of.
pub fn cookbook() -> PathBuf {
    root().join("examples/scripts")
}

/// Runs every talk file whose path contains `filter`.
pub fn run_all(options: &Options, filter: &str, jobs: usize) -> Result<Outcome, String> {
    let files = run::files(&root().join("tests/talk"), filter).map_err(|e| e.to_string())?;
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run::run_file(path, options);
                    if let Ok(mut total) = total.lock() {
                        total.add(outcome);
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().map_err(|_| "a runner thread panicked".to_owned())?;
    total.failures.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(total)
}

pub fn print(failure: &Failure, brief: bool) {
    let path = failure.path.strip_prefix(root().join("tests/talk")).unwrap_or(&failure.path);
    let place = format!("{}:{}", path.display(), failure.line);
    if brief {
        let short = |text: &str| {
            let line = text.replace('\n', " ");
            line.chars().take(150).collect::<String>()
        };
        let (expected, actual) = (short(&failure.expected), short(&failure.actual));
        println!("{place} {} | expected {expected} | got {actual}", failure.step);
    } else {
        println!("{place} [{}]\n  {}", failure.section, failure.step);
        println!(
            "  expected:\n{}\n  got:\n{}\n",
            indent(&failure.expected),
            indent(&failure.actual)
        );
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

pub fn main(args: &[String]) -> Result<bool, String> {
    let mut binary = root().join("target/release/luar");
    let mut address = None;
    let mut server_args = Vec::new();
    let mut filter = String::new();
    let mut jobs = 2;
    let mut brief = false;
    let (mut oracle, mut rewrite, mut replay) = (false, false, Replay::Plain);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--server" => binary = PathBuf::from(value()?),
            "--redis" => {
                binary = PathBuf::from("redis-server");
                oracle = true;
            }
            "--address" => address = Some(value()?),
            "--oracle" => oracle = true,
            "--replay" => {
                let name = value()?;
                replay = Replay::named(&name).ok_or_else(|| format!("no replay {name}"))?;
            }
            "--arg" => server_args.push(value()?),
            "--jobs" => jobs = value()?.parse().map_err(|_| "--jobs needs a number".to_owned())?,
            "--rewrite" => rewrite = true,
            "--brief" => brief = true,
            "--help" => return Err(USAGE.to_owned()),
            other if other.starts_with("--") => return Err(format!("unknown {other}\n{USAGE}")),
            other => other.clone_into(&mut filter),
        }
    }
    let target = match address {
        Some(address) => Target::Address(address),
        None => Target::Binary { path: binary, args: server_args },
    };
    if matches!(target, Target::Address(_)) {
        jobs = 1;
    }
    let outcome = run_all(
        &Options { target, oracle, replay, rewrite, scripts: Some(cookbook()), clock: None },
        &filter,
        jobs,
    )?;
    for failure in &outcome.failures {
        print(failure, brief);
    }
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    Ok(outcome.failed == 0)
}

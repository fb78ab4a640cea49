//! The stages of `cargo xtask test`, one function each.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use testkit::peer;
use testkit::replay::Replay;
use testkit::run::{Options, Outcome, Target};
use testkit::server::Server;
use testkit::stress;

use super::install;
use super::{Tally, Wish};
use crate::fuzz_peer;
use crate::talk::{cookbook, print, root, run_all};

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

fn holds(mut command: Command) -> Result<Tally, String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    Ok(Tally::of(status.success()))
}

/// Runs a command, shows what it prints, and answers that with whether it succeeded.
fn shown(mut command: Command) -> Result<(String, bool), String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    Ok((text, output.status.success()))
}

/// The sum of all numbers that a pattern finds in a text.
fn sum(text: &str, pattern: &str) -> usize {
    let Ok(pattern) = Regex::new(pattern) else { return 0 };
    pattern.captures_iter(text).filter_map(|found| found[1].parse::<usize>().ok()).sum()
}

pub fn fmt(_: &Wish) -> Result<Tally, String> {
    holds(cargo(&["fmt", "--all", "--check"]))
}

pub fn clippy(_: &Wish) -> Result<Tally, String> {
    holds(cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

pub fn unit(_: &Wish) -> Result<Tally, String> {
    // Not nextest: this runs the examples in documentation too, and is there on a bare machine.
    rust_tests(&["test", "--quiet", "--workspace", "--no-fail-fast"])
}

/// Runs tests by cargo and counts them.
fn rust_tests(args: &[&str]) -> Result<Tally, String> {
    let (text, succeeded) = shown(cargo(args))?;
    let mut tally =
        Tally { passed: sum(&text, r"(\d+) passed;"), failed: sum(&text, r"(\d+) failed;") };
    if !succeeded && tally.failed == 0 {
        // It did not compile, or a test process died.
        tally.failed = 1;
    }
    Ok(tally)
}

pub fn build(wish: &Wish) -> Result<Tally, String> {
    if let Some(binary) = &wish.luar {
        return if binary.exists() || install::present(&binary.to_string_lossy()) {
            Ok(Tally::of(true))
        } else {
            Err(format!("{} is not there", binary.display()))
        };
    }
    let tally = holds(cargo(&["build", "--quiet", "--release", "--package", "luar"]))?;
    if tally.failed > 0 { Err("luar does not build".to_owned()) } else { Ok(tally) }
}

fn report(outcome: Outcome) -> Tally {
    for failure in &outcome.failures {
        print(failure, false);
    }
    Tally { passed: outcome.passed, failed: outcome.failed }
}

fn talk_files(wish: &Wish, binary: &Path, args: &[&str], replay: Replay) -> Result<Tally, String> {
    let oracle = binary == Path::new("redis-server");
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let target = Target::Binary { path: binary.to_owned(), args };
    let scripts = Some(cookbook());
    let options = Options { target, oracle, replay, rewrite: false, scripts, clock: None };
    Ok(report(run_all(&options, &wish.filter, 2)?))
}

pub fn oracle(wish: &Wish) -> Result<Tally, String> {
    install::package("redis-server", "redis-server")?;
    let version = Command::new("redis-server")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    if !version.contains("v=7.0.") {
        println!("expectations were recorded with 7.0, this is {version}");
    }
    // The number and glob rules under random inputs: ignored where there may be no Redis.
    let mut tally =
        rust_tests(&["test", "--quiet", "-p", "data", "--test", "oracle", "--", "--ignored"])?;
    // The change log of random commands, loaded by a Redis.
    let propagate = ["test", "--quiet", "-p", "command", "--test", "propagate", "--", "--ignored"];
    tally.add(rust_tests(&propagate)?);
    // Its append-only files are read here, and ours there.
    let aof = ["test", "--quiet", "-p", "persist", "--test", "aof_redis", "--", "--ignored"];
    tally.add(rust_tests(&aof)?);
    // Whole servers start from each other's.
    let servers = ["test", "--quiet", "-p", "luar", "--test", "aof", "--", "--ignored"];
    tally.add(rust_tests(&servers)?);
    tally.add(talk_files(wish, Path::new("redis-server"), &[], Replay::Plain)?);
    Ok(tally)
}

pub fn talk(wish: &Wish) -> Result<Tally, String> {
    talk_files(wish, &wish.binary(), &[], Replay::Plain)
}

pub fn replay(wish: &Wish) -> Result<Tally, String> {
    let mut total = Tally::default();
    let rounds: [(Replay, &[&str]); 5] = [
        (Replay::Plain, &["--workers", "1"]),
        (Replay::Plain, &["--workers", "4"]),
        (Replay::Multi, &["--workers", "2"]),
        (Replay::Eval, &["--workers", "2"]),
        (Replay::Tiny, &["--workers", "2"]),
    ];
    for (replay, args) in rounds {
        let tally = talk_files(wish, &wish.binary(), args, replay)?;
        println!(
            "{} with {}: {} passed, {} failed",
            replay.name(),
            args.join(" "),
            tally.passed,
            tally.failed
        );
        total.add(tally);
    }
    Ok(total)
}

/// Random commands to luar and to Redis.
pub fn random(wish: &Wish) -> Result<Tally, String> {
    install::package("redis-server", "redis-server")?;
    let outcome = peer::run(&peer::Wish {
        ours: (wish.binary(), Vec::new()),
        peer: "redis-server".into(),
        differences: fuzz_peer::differences()?,
        seed: wish.seed,
        session: 0,
        commands: if wish.quick { 50_000 } else { 300_000 },
        limit: Some(Duration::from_secs(90)),
        families: Vec::new(),
        failures: 1,
    })?;
    fuzz_peer::report(&outcome);
    Ok(Tally::of(outcome.failures == 0))
}

pub fn e2e(wish: &Wish) -> Result<Tally, String> {
    install::package("redis-cli", "redis-tools")?;
    install::package("node", "nodejs")?;
    install::package("npm", "npm")?;
    install::python_venv()?;
    let mut total = Tally::default();
    for suite in ["examples-node", "examples-python", "clients-node", "clients-python"] {
        if !suite.contains(&wish.filter) {
            continue;
        }
        let server = Server::start::<&str>(&wish.binary(), &[]).map_err(|e| e.to_string())?;
        let mut command = Command::new(root().join("tests/e2e/run"));
        command.arg(server.port().to_string()).arg(suite);
        let (text, succeeded) = shown(command)?;
        // node:test and pytest count by themselves, each in its own words.
        let mut tally = Tally {
            passed: sum(&text, r"(?m)^\S+ pass (\d+)") + sum(&text, r"(\d+) passed"),
            failed: sum(&text, r"(?m)^\S+ fail (\d+)") + sum(&text, r"(\d+) failed"),
        };
        let counted = tally.passed + tally.failed > 0;
        if !counted || (!succeeded && tally.failed == 0) {
            tally.add(Tally::of(succeeded));
        }
        if server.log().contains("panicked at") {
            println!("{suite}: the server panicked\n{}", server.log());
            tally.failed += 1;
        }
        total.add(tally);
    }
    Ok(total)
}

pub fn stress(wish: &Wish) -> Result<Tally, String> {
    let binary = wish.binary();
    let oracle = binary.ends_with("redis-server");
    let arena = stress::Arena { binary, oracle, quick: wish.quick, seed: wish.seed };
    let mut total = Tally::default();
    for test in stress::ALL.iter().filter(|test| test.name.contains(&wish.filter)) {
        let begun = Instant::now();
        let verdict = (test.run)(&arena);
        let seconds = begun.elapsed().as_secs_f32();
        match &verdict {
            Ok(fact) => println!("{}: {fact} ({seconds:.1} s)", test.name),
            Err(why) => println!("FAILED {}: {why} ({seconds:.1} s)", test.name),
        }
        total.add(Tally::of(verdict.is_ok()));
    }
    if total.failed > 0 {
        println!("seed {}", wish.seed);
    }
    Ok(total)
}

pub fn fuzz(wish: &Wish) -> Result<Tally, String> {
    install::cargo_tool("cargo-fuzz")?;
    let seconds = if wish.quick { 5 } else { 15 };
    let mut total = Tally::default();
    let targets = root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&targets).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .filter(|name| name.contains(&wish.filter))
        .collect();
    names.sort();
    for name in names {
        let mut command = cargo(&["fuzz", "run", &name, "--"]);
        // Sanitizers are unstable flags; the stable compiler takes them when told so.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
            .arg(format!("-max_total_time={seconds}"))
            .args(["-rss_limit_mb=4096", "-verbosity=0"]);
        let tally = holds(command)?;
        println!("fuzz {name}: {}", if tally.failed > 0 { "FAILED" } else { "nothing found" });
        total.add(tally);
    }
    Ok(total)
}

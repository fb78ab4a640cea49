//! `cargo xtask test`: everything that must hold, from formatting to fuzzing.
//!
//! A stage installs what it needs, runs, and answers how much passed and failed. Stages share
//! one release build of `luar`. Not for daily unit tests: `cargo nextest run` is.

mod install;
mod stages;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use crate::talk::root;

const USAGE: &str = "usage: cargo xtask test [stage ...] [options]
  --filter TEXT   only talk files, stress tests or suites whose name contains TEXT
  --luar PATH     test this binary instead of building target/release/luar
  --quick         smaller numbers in stress and fuzz stages
  --seed N        seed of the random tests (printed when they fail)
stages, in this order without any named:";

/// How many checks of a stage held and how many did not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    pub fn of(held: bool) -> Tally {
        Tally { passed: held.into(), failed: (!held).into() }
    }

    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// What the stages were asked for.
pub struct Wish {
    pub filter: String,
    pub luar: Option<PathBuf>,
    pub quick: bool,
    pub seed: u64,
}

impl Wish {
    /// The server under test, built once.
    pub fn binary(&self) -> PathBuf {
        self.luar.clone().unwrap_or_else(|| root().join("target/release/luar"))
    }
}

struct Stage {
    name: &'static str,
    about: &'static str,
    run: fn(&Wish) -> Result<Tally, String>,
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "rustfmt has nothing to change", run: stages::fmt },
    Stage { name: "clippy", about: "no warnings", run: stages::clippy },
    Stage { name: "unit", about: "unit and property tests", run: stages::unit },
    Stage { name: "build", about: "the release build of luar", run: stages::build },
    Stage { name: "oracle", about: "talk files against redis-server", run: stages::oracle },
    Stage { name: "talk", about: "talk files against luar", run: stages::talk },
    Stage { name: "replay", about: "the same in other circumstances", run: stages::replay },
    Stage { name: "table", about: "COMMAND agrees with Redis, row by row", run: table::run },
    Stage { name: "random", about: "random commands, compared with Redis", run: stages::random },
    Stage { name: "e2e", about: "examples and client libraries", run: stages::e2e },
    Stage { name: "stress", about: "many clients at once", run: stages::stress },
    Stage { name: "fuzz", about: "each fuzz target for some seconds", run: stages::fuzz },
];

pub fn main(args: &[String]) -> Result<bool, String> {
    let mut wish = Wish { filter: String::new(), luar: None, quick: false, seed: clock_seed() };
    let mut chosen: Vec<&Stage> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--filter" => wish.filter = value()?,
            "--luar" => wish.luar = Some(PathBuf::from(value()?)),
            "--quick" => wish.quick = true,
            "--seed" => wish.seed = value()?.parse().map_err(|_| "--seed needs a number")?,
            "--help" => return Err(usage()),
            name => match STAGES.iter().find(|stage| stage.name == name) {
                Some(stage) => chosen.push(stage),
                None => return Err(format!("no stage {name}\n{}", usage())),
            },
        }
    }
    let all = chosen.is_empty();
    if all {
        chosen = STAGES.iter().collect();
    }
    let needs_luar = ["talk", "replay", "table", "random", "e2e", "stress"];
    let builds = chosen.iter().any(|stage| stage.name == "build");
    if !builds && chosen.iter().any(|stage| needs_luar.contains(&stage.name)) {
        stages::build(&wish)?;
    }
    let mut total = Tally::default();
    let mut summary = Vec::new();
    for stage in chosen {
        println!("== {}: {}", stage.name, stage.about);
        let begun = Instant::now();
        let tally = (stage.run)(&wish).unwrap_or_else(|error| {
            println!("{}: {error}", stage.name);
            Tally::of(false)
        });
        total.add(tally);
        let line = format!(
            "{:8} {:6} passed {:4} failed {:6.1} s",
            stage.name,
            tally.passed,
            tally.failed,
            begun.elapsed().as_secs_f32()
        );
        println!("{line}\n");
        summary.push(line);
    }
    println!("{}", summary.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn usage() -> String {
    let stages = STAGES.iter().map(|stage| format!("\n  {:8} {}", stage.name, stage.about));
    USAGE.to_owned() + &stages.collect::<String>()
}

pub fn clock_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_nanos() as u64)
}

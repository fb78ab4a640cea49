//! `cargo xtask fuzz-peer`: random commands to Luar and to a Redis, until they disagree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::peer::{self, Outcome, Wish};

use crate::talk::root;

const USAGE: &str = "usage: cargo xtask fuzz-peer [options]
  --peer PATH      the other server (default redis-server; any Redis from 7.0 or Valkey)
  --binary PATH    luar (default target/release/luar)
  --seed N         draws the same commands again (default: from the clock)
  --session N      begins with this session of the seed
  --commands N     how many commands to send (default 1000000)
  --seconds N      ends after so long
  --families LIST  groups or beginnings of names, with commas (default: all commands)
  --failures N     goes on until so many different failures (default 1)
  --arg ARG        one more argument for luar (repeatable)
What may differ is listed in tests/peer/differences.txt.";

/// The list of differences.
pub fn differences() -> Result<String, String> {
    let path = root().join("tests/peer/differences.txt");
    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

pub fn report(outcome: &Outcome) {
    println!(
        "{} commands in {} sessions, {} failures",
        outcome.commands, outcome.sessions, outcome.failures
    );
    if !outcome.never.is_empty() {
        println!("never answered without an error: {}", outcome.never.join(" "));
    }
}

pub fn main(args: &[String]) -> Result<bool, String> {
    let mut wish = Wish {
        ours: (root().join("target/release/luar"), Vec::new()),
        peer: PathBuf::from("redis-server"),
        differences: differences()?,
        seed: crate::test::clock_seed(),
        session: 0,
        commands: 1_000_000,
        limit: None,
        families: Vec::new(),
        failures: 1,
    };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        let number =
            |text: String| text.parse::<u64>().map_err(|_| format!("{arg} needs a number"));
        match arg.as_str() {
            "--peer" => wish.peer = PathBuf::from(value()?),
            "--binary" => wish.ours.0 = PathBuf::from(value()?),
            "--seed" => wish.seed = number(value()?)?,
            "--session" => wish.session = number(value()?)?,
            "--commands" => wish.commands = number(value()?)?,
            "--seconds" => wish.limit = Some(Duration::from_secs(number(value()?)?)),
            "--failures" => wish.failures = number(value()?)? as usize,
            "--families" => wish.families = value()?.split(',').map(str::to_owned).collect(),
            "--arg" => wish.ours.1.push(value()?),
            _ => return Err(USAGE.to_owned()),
        }
    }
    if wish.ours.0.is_relative() && !wish.ours.0.exists() && wish.ours.0 != Path::new("luar") {
        return Err(format!("{} is not there", wish.ours.0.display()));
    }
    let outcome = peer::run(&wish)?;
    report(&outcome);
    Ok(outcome.failures == 0)
}

//! Development tasks: `cargo xtask test`, `cargo xtask talk`, `cargo xtask bench`,
//! `cargo xtask suite`, `cargo xtask fuzz-peer`.
//!
//! Only dispatches; each task is a module. Never part of the server.

mod bench;
mod fuzz_peer;
mod suite;
mod talk;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <task>
  bench  measure beside redis-server (see `cargo xtask bench --help`)
  fuzz-peer  send random commands here and to a Redis (see `cargo xtask fuzz-peer --help`)
  suite  run the test suite of Valkey (see `cargo xtask suite --help`)
  talk   run talk files (see `cargo xtask talk --help`)
  test   run everything, or some stages (see `cargo xtask test --help`)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("", &[][..]),
    };
    let outcome = match task {
        "bench" => bench::main(rest),
        "fuzz-peer" => fuzz_peer::main(rest),
        "suite" => suite::main(rest),
        "talk" => talk::main(rest),
        "test" => test::main(rest),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

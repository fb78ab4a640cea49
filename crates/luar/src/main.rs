//! The `luar` binary: `luar [FILE] [--directive value ...]` serves, `luar script …` helps authors,
//! `luar check-aof` and `luar check-rdb` look at files.

mod check_aof;
mod check_rdb;

use std::ffi::OsString;
use std::process::ExitCode;

const HELP: &str = "\
Luar, a Redis-compatible in-memory server whose Lua scripts are transactions.

Usage: luar [/path/to/redis.conf] [--directive value ...] [-]
       luar script check | test | types ...
       luar check-aof [--fix] FILE ...
       luar check-rdb FILE ...
       luar --version | --help

Without a file the defaults apply: 127.0.0.1:6379, one worker for each core.
Every directive of the file can be given as an option and then goes before the file:
  luar --port 7777 --maxmemory 2gb --maxmemory-policy allkeys-lru
  luar /etc/redis.conf --loglevel verbose
A single - reads more directives from standard input.
";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|arg| arg.to_str()) {
        Some("--version" | "-v") => {
            println!(
                "Luar v={} redis_version={} bits={}",
                server::LUAR_VERSION,
                server::REDIS_VERSION,
                usize::BITS
            );
            return ExitCode::SUCCESS;
        }
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("script") => return author::main(&args[1..]),
        Some("check-aof") => return check_aof::main(&args[1..]),
        Some("check-rdb") => return check_rdb::main(&args[1..]),
        _ => {}
    }
    let result = match server::config::load(&args, &mut std::io::stdin()) {
        Ok(loaded) => server::run(loaded),
        // As with Redis, and who starts servers looks for it.
        Err(error) => Err(format!("*** FATAL CONFIG FILE ERROR *** {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("luar: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `luar script test`: talk files and `*.test.lua` against a server inside this process, whose clock
//! stands still until a test moves it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use server::{clock, config};
use tempfile::TempDir;
use testkit::client::Client;
use testkit::poll;
use testkit::port::free_port;
use testkit::replay::Replay;
use testkit::run::{self, Clock, Failure, Options, Outcome, Target};

use crate::{diff, lua_test};

/// Where every test's time begins: 2030-01-01. Expirations and scores are the same in each run.
const BEGIN_MS: i64 = 1_893_456_000_000;

/// How long the server may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How often another port is tried when somebody else was faster.
const PORTS_TRIED: usize = 5;

/// The time of the server in this process.
static NOW_MS: AtomicI64 = AtomicI64::new(BEGIN_MS);

fn now_ms() -> i64 {
    NOW_MS.load(Ordering::Acquire)
}

fn advance(ms: i64) {
    clock::hold(NOW_MS.fetch_add(ms, Ordering::AcqRel) + ms);
}

/// What to run and how.
pub struct TestPlan {
    /// A test file or a directory of them.
    pub path: PathBuf,
    /// Where the scripts are; `None`: beside each test file.
    pub scripts: Option<PathBuf>,
    /// Write what the server answered into the files.
    pub rewrite: bool,
}

/// Runs the test files and prints what went otherwise. One at a time in a process, whose clock it
/// stops.
pub fn run_tests(plan: &TestPlan) -> Result<Outcome, String> {
    let failed = |error: io::Error| format!("{}: {error}", plan.path.display());
    // Asked for by itself: a directory that is not there is no directory without tests.
    std::fs::metadata(&plan.path).map_err(failed)?;
    let mut files = run::files(&plan.path, "").map_err(failed)?;
    lua_files(&plan.path, &mut files).map_err(failed)?;
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no talk files and no *.test.lua", plan.path.display()));
    }
    // The server has a directory of its own: it must neither load nor write files of those here.
    let here = std::env::current_dir().map_err(|error| format!("current directory: {error}"))?;
    let scripts = plan.scripts.as_ref().map(|scripts| here.join(scripts));
    let engine = Engine::start()?;
    let options = Options {
        target: Target::Address(engine.address.clone()),
        oracle: false,
        replay: Replay::Plain,
        rewrite: plan.rewrite,
        scripts: scripts.clone(),
        clock: Some(Clock { now_ms, advance }),
    };
    let mut total = Outcome::default();
    for file in &files {
        let path = here.join(file);
        let mut outcome = match is_lua(file) {
            true => lua_outcome(&path, &engine.address, scripts.as_deref()),
            false => run::run_file(&path, &options),
        };
        outcome.failures.iter_mut().for_each(|failure| failure.path.clone_from(file));
        if outcome.passed + outcome.failed == 0 {
            println!("{}: nothing in it can be run here", file.display());
            total.failed += 1;
        }
        for failure in &outcome.failures {
            print!("{}", shown(failure));
        }
        total.add(outcome);
    }
    engine.stop()?;
    std::env::set_current_dir(&here).map_err(|error| format!("{}: {error}", here.display()))?;
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total)
}

/// Whether a file holds tests in Lua.
pub fn is_lua(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".test.lua"))
}

fn lua_files(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            lua_files(&entry?.path(), found)?;
        }
    } else if is_lua(path) {
        found.push(path.to_owned());
    }
    Ok(())
}

fn lua_outcome(file: &Path, address: &str, scripts: Option<&Path>) -> Outcome {
    match lua_test::run_file(file, address, scripts, advance) {
        Ok(results) => Outcome {
            passed: results.passed,
            failed: results.failures.len(),
            failures: results.failures,
        },
        Err(error) => {
            println!("{}: {error}", file.display());
            Outcome { passed: 0, failed: 1, failures: Vec::new() }
        }
    }
}

fn shown(failure: &Failure) -> String {
    let Failure { path, line, section, step, expected, actual } = failure;
    let mut text = format!("{}:{line}: in \"{section}\"\n  {step}\n", path.display());
    if !(expected.is_empty() && actual.is_empty()) {
        text += &diff::show(expected, actual);
        text.push('\n');
    }
    text
}

/// A server in a thread of this process.
struct Engine {
    address: String,
    ended: mpsc::Receiver<Result<(), String>>,
    /// Where it keeps files.
    _directory: TempDir,
}

impl Engine {
    fn start() -> Result<Engine, String> {
        clock::hold(now_ms());
        let mut last = String::new();
        for _ in 0..PORTS_TRIED {
            match Engine::try_start() {
                Ok(engine) => return Ok(engine),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_start() -> Result<Engine, String> {
        let port = free_port().map_err(|error| error.to_string())?.to_string();
        let directory = TempDir::new().map_err(|error| format!("temporary directory: {error}"))?;
        let args = ["--port", &port, "--bind", "127.0.0.1", "--workers", "2", "--save", ""];
        let quiet = ["--loglevel", "warning", "--enable-debug-command", "yes", "--dir"];
        let mut args: Vec<OsString> = args.iter().chain(&quiet).map(OsString::from).collect();
        args.push(directory.path().into());
        let loaded = config::load(&args, &mut io::empty()).map_err(|error| error.to_string())?;
        let (tell, ended) = mpsc::channel();
        thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                // Nobody listens any more when the tests are through.
                let _ = tell.send(server::run(loaded));
            })
            .map_err(|error| error.to_string())?;
        let address = format!("127.0.0.1:{port}");
        let engine = Engine { address, ended, _directory: directory };
        let answer = poll(START_PATIENCE, || {
            if let Ok(Err(error)) = engine.ended.try_recv() {
                return Some(Err(error));
            }
            let reply = Client::connect(&engine.address).ok()?.call(&["PING"]).ok()?;
            (!reply.is_error()).then_some(Ok(()))
        });
        match answer {
            Some(Ok(())) => Ok(engine),
            Some(Err(error)) => Err(error),
            None => Err("the server does not answer".to_owned()),
        }
    }

    fn stop(self) -> Result<(), String> {
        let mut client = Client::connect(&self.address).map_err(|error| error.to_string())?;
        // It answers by closing the connection.
        let _ = client.call(&["SHUTDOWN", "NOSAVE"]);
        self.ended.recv_timeout(START_PATIENCE).map_err(|error| error.to_string())?
    }
}

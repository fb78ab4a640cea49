//! Running Valkey's harness: a folder that looks like its checkout, and what it prints.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::talk::root;

/// What the harness runs on.
pub enum Mode {
    DropIn,
    /// At this address, or one that is started for each file.
    External(Option<String>),
}

/// What a server for external mode has to allow, as the harness's own configuration does.
const EXTERNAL_OPTIONS: &[&str] = &[
    "--enable-protected-configs",
    "yes",
    "--enable-debug-command",
    "yes",
    "--save",
    "",
    "--latency-monitor-threshold",
    "1",
];

/// Files about scripts that run for too long and are killed. Luar rolls such a script back and goes on
/// serving meanwhile, unless it is to keep them apart as Redis does.
const ISOLATED: &[&str] = &["unit/scripting", "unit/functions", "unit/multi"];
const ISOLATION: [&str; 2] = ["script-atomicity", "isolation"];

/// In drop-in mode servers are set up as replicas, in clusters and to defragment, which is not built; what comes
/// behind that in the same file could not be run. MIGRATE, though, only needs two servers.
const NOT_BUILT: &str = "-needs:repl -cluster -defrag";
const REPLICAS: &str = " -repl";
const WITH_TWO_SERVERS: &str = "unit/dump";

pub struct Failure {
    pub test: String,
    pub details: String,
}

/// What came of one file.
#[derive(Default)]
pub struct FileRun {
    pub passed: Vec<String>,
    pub failures: Vec<Failure>,
    pub skipped: usize,
    pub elapsed: Duration,
}

/// The names of all test files of a checkout.
pub fn files(checkout: &Path) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for folder in ["unit", "unit/type", "integration"] {
        let path = checkout.join("tests").join(folder);
        let entries = fs::read_dir(&path).map_err(|error| {
            format!("{} is not a checkout of Valkey: {error}", checkout.display())
        })?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.extension().is_some_and(|extension| extension == "tcl")
                && let Some(stem) = path.file_stem()
            {
                names.push(format!("{folder}/{}", stem.to_string_lossy()));
            }
        }
    }
    names.sort();
    Ok(names)
}

/// A folder of links to a checkout, in which `src/valkey-server` is another server.
pub struct Workplace {
    path: PathBuf,
    binary: PathBuf,
    mode: Mode,
    pub tags: String,
    pub limit: Duration,
    pub verbose: bool,
}

impl Workplace {
    pub fn new(checkout: &Path, binary: &Path, mode: Mode) -> Result<Workplace, String> {
        for tool in ["valkey-cli", "valkey-benchmark", "valkey-check-aof", "valkey-check-rdb"] {
            if !checkout.join("src").join(tool).exists() {
                return Err(format!("src/{tool} is not built in {}", checkout.display()));
            }
        }
        let name = format!("target/suites/valkey-{}", std::process::id());
        let path = std::path::absolute(root().join(name)).map_err(|error| error.to_string())?;
        let built = lay_out(&path, checkout, binary);
        built.map_err(|error| format!("{}: {error}", path.display()))?;
        let limit = Duration::from_secs(600);
        let (tags, verbose, binary) = (String::new(), false, binary.to_owned());
        Ok(Workplace { path, binary, mode, tags, limit, verbose })
    }

    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Runs one file to its end, or to the time limit, without some of its tests.
    pub fn run<'t>(
        &self,
        file: &str,
        without: impl Iterator<Item = &'t str>,
    ) -> Result<FileRun, String> {
        let failed = |error: io::Error| format!("{file}: {error}");
        let begun = Instant::now();
        let base_port = free_port().map_err(failed)?;
        let mut command = Command::new("tclsh");
        command.arg("tests/test_helper.tcl").args(["--single", file, "--clients", "1"]);
        // An exception is a failed test, and the file goes on.
        command.args(["--durable", "--dont-clean", "--no-latency"]);
        command.args(["--baseport", &base_port.to_string(), "--portcount", "200"]);
        let mut tags = self.tags.clone();
        if tags.is_empty() && matches!(self.mode, Mode::DropIn) {
            tags.push_str(NOT_BUILT);
            if file != WITH_TWO_SERVERS {
                tags.push_str(REPLICAS);
            }
        }
        if !tags.is_empty() {
            command.args(["--tags", &tags]);
        }
        for test in without {
            command.args(["--skiptest", test]);
        }
        let isolation = ISOLATED.contains(&file).then_some(ISOLATION);
        if let Some(words) = isolation {
            command.arg("--config").args(words);
        }
        let mut server = None;
        if let Mode::External(address) = &self.mode {
            let (host, port) = match address {
                Some(address) => {
                    let (host, port) =
                        address.rsplit_once(':').ok_or("--address needs HOST:PORT")?;
                    (host.to_owned(), port.to_owned())
                }
                None => {
                    let port = free_port().map_err(failed)?;
                    server = Some(Ended(self.start(port, isolation).map_err(failed)?));
                    ("127.0.0.1".to_owned(), port.to_string())
                }
            };
            command.args(["--host", &host, "--port", &port]);
        }
        let log = self.path.join(format!("{}.log", file.replace('/', "-")));
        let errors = File::create(&log).map_err(failed)?;
        command.current_dir(&self.path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        // A group of their own: the harness, its clients and their servers end together.
        let mut harness = Ended(command.process_group(0).spawn().map_err(failed)?);
        let output = harness.0.stdout.take().ok_or("the harness has no output")?;
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(plain(&line)).is_err() {
                    break;
                }
            }
        });
        let mut report = Report::new(file);
        loop {
            let left = self.limit.saturating_sub(begun.elapsed());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    if self.verbose {
                        println!("{line}");
                    }
                    report.line(&line);
                    if report.is_over {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    report.fail("(the time limit)", "the file did not end in time");
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    report.fail("(the harness)", "it ended before the file did");
                    break;
                }
            }
        }
        drop(harness);
        drop(server);
        drop(lines);
        // What was started in the background with the output open may have left the group.
        drop(reader);
        let mut run = report.finish();
        run.elapsed = begun.elapsed();
        Ok(run)
    }

    fn start(&self, port: u16, isolation: Option<[&str; 2]>) -> io::Result<Child> {
        let folder = self.path.join(format!("external-{port}"));
        fs::create_dir_all(&folder)?;
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(&self.binary);
        command.args(["--port", &port.to_string()]).args(EXTERNAL_OPTIONS).current_dir(&folder);
        if let Some([name, value]) = isolation {
            command.args([&format!("--{name}"), value]);
        }
        let mut child = command.process_group(0).stdin(Stdio::null()).stdout(log).spawn()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(io::Error::other("the server does not start"));
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        Ok(child)
    }
}

/// A process that ends with this, and its group with it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// A port with room for the harness's own below and its servers' above it.
fn free_port() -> io::Result<u16> {
    let mut base = 20_200 + (std::process::id() % 60) as u16 * 120;
    loop {
        match TcpListener::bind(("127.0.0.1", base)) {
            Ok(_) => return Ok(base),
            Err(_) if base < 29_000 => base += 7,
            Err(error) => return Err(error),
        }
    }
}

fn lay_out(path: &Path, checkout: &Path, binary: &Path) -> io::Result<()> {
    fs::create_dir_all(path.join("src"))?;
    fs::create_dir_all(path.join("tests/tmp"))?;
    link_all(&checkout.join("tests"), &path.join("tests"), |name| name != "tmp")?;
    link_all(&checkout.join("src"), &path.join("src"), |name| name != "valkey-server")?;
    link_all(checkout, path, |name| name != "src" && name != "tests")?;
    symlink(binary, path.join("src/valkey-server"))
}

fn link_all(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A line without colours.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

/// Understands what the harness prints.
struct Report {
    /// As it names the file behind a test that failed.
    mark: String,
    run: FileRun,
    /// Lines that follow belong to the last failure.
    in_failure: bool,
    is_over: bool,
}

impl Report {
    fn new(file: &str) -> Report {
        let mark = format!(" in tests/{file}.tcl");
        Report { mark, run: FileRun::default(), in_failure: false, is_over: false }
    }

    fn line(&mut self, line: &str) {
        let status = line.strip_prefix('[').and_then(|line| line.split_once("]: "));
        match status {
            Some(("ok", test)) => {
                // Behind it, in brackets, is the time it took.
                let test = test.rsplit_once(" (").map_or(test, |(test, _)| test);
                self.run.passed.push(test.to_owned());
                self.in_failure = false;
            }
            Some(("err", text)) => match text.strip_suffix(self.mark.as_str()) {
                Some(test) => self.fail(test, ""),
                None => self.fail("(outside of tests)", text),
            },
            Some(("exception", text)) => {
                self.fail("(an exception)", text);
            }
            Some(("skip" | "ignore", _)) => {
                self.run.skipped += 1;
                self.in_failure = false;
            }
            Some((status, _)) if status.ends_with("done") => {
                self.in_failure = false;
                self.is_over = true;
            }
            _ if self.in_failure => {
                if let Some(failure) = self.run.failures.last_mut()
                    && failure.details.len() < 4000
                {
                    failure.details.push_str(line);
                    failure.details.push('\n');
                }
            }
            _ => {}
        }
    }

    fn fail(&mut self, test: &str, details: &str) {
        let details = if details.is_empty() { String::new() } else { format!("{details}\n") };
        self.run.failures.push(Failure { test: test.to_owned(), details });
        self.in_failure = true;
    }

    fn finish(self) -> FileRun {
        self.run
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, plain};

    #[test]
    fn what_is_printed_is_understood() {
        let mut report = Report::new("unit/x");
        for line in [
            "[ready]: 12",
            "[\u{1b}[0;32mok\u{1b}[0m]: one (of two) (3 ms)",
            "[err]: two in tests/unit/x.tcl",
            "Expected 1",
            "[ignore]: three: not here",
            "[err]: something else",
            "[1/1 done]: unit/x (2 seconds)",
        ] {
            report.line(&plain(line.as_bytes()));
        }
        assert!(report.is_over);
        let run = report.finish();
        assert_eq!((run.passed, run.skipped), (vec!["one (of two)".to_owned()], 1));
        let failures: Vec<_> =
            run.failures.iter().map(|f| (f.test.as_str(), f.details.as_str())).collect();
        assert_eq!(failures, [("two", "Expected 1\n"), ("(outside of tests)", "something else\n")]);
    }
}

//! `*.test.lua`: tests of scripts written in Lua themselves.
//!
//! A test file runs in a VM of its own, whose `redis.call` is a client of the server under test.
//! `harness.lua` stands in front of its first line and gives it `test`, `equal`, `fails`, `run`
//! and `advance`; what these want from here they ask for as commands that no server has.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lua::{Answer, Host, LogLevel, Outcome, Protocol, Tick, Vm, VmOptions};
use resp::{Reply, ReplyScanner};
use testkit::run::Failure;

/// The names that test files have besides those of scripts.
pub const NAMES: [&str; 5] = ["test", "equal", "fails", "run", "advance"];

/// How long a test waits for a reply.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);

/// What the harness asks for, and any other command.
const REQUESTS: [&str; 6] =
    ["test|begin", "test|pass", "test|fail", "test|differ", "test|source", "test|advance"];
const OF_SERVER: u32 = REQUESTS.len() as u32;

/// What became of the tests of one file.
#[derive(Debug, Default)]
pub struct Results {
    pub passed: usize,
    pub failures: Vec<Failure>,
}

/// Runs a file against the server at `address`, which loses all its keys. `scripts` is where
/// `run` finds scripts; beside the file if there is none.
pub fn run_file(
    path: &Path,
    address: &str,
    scripts: Option<&Path>,
    advance: fn(i64),
) -> io::Result<Results> {
    let text = std::fs::read(path)?;
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_PATIENCE))?;
    let beside = path.parent().unwrap_or(Path::new("."));
    let mut host = Tests {
        stream,
        protocol: Protocol::Resp2,
        path: path.to_owned(),
        scripts: scripts.unwrap_or(beside).to_owned(),
        advance,
        name: None,
        differ: None,
        results: Results::default(),
    };
    // On one line, so that lines of the file keep their numbers; it counts on that to find them.
    let harness = include_str!("harness.lua").replace('\n', " ");
    let source = [harness.as_bytes(), b" ", &text].concat();
    let mut vm = Vm::new(VmOptions::default());
    match vm.compile(&source) {
        Err(message) => host.fail(&String::from_utf8_lossy(&message)),
        Ok(script) => {
            let mut reply = Vec::new();
            let outcome = vm.run(&mut host, &script, &[], &[], Protocol::Resp2, &mut reply);
            if outcome != Outcome::Ok {
                let line = String::from_utf8_lossy(&reply);
                host.fail(without_place(line.trim_start_matches('-').trim_end()));
            }
        }
    }
    Ok(host.results)
}

/// The text of an error without the hash of the test file, which says nothing.
fn without_place(text: &str) -> &str {
    text.split_once(" script: ").map_or(text, |(text, _)| text)
}

/// A running test file.
struct Tests {
    stream: TcpStream,
    protocol: Protocol,
    path: PathBuf,
    scripts: PathBuf,
    advance: fn(i64),
    /// Of the test that runs.
    name: Option<String>,
    /// Expected and actual values of the comparison that failed last.
    differ: Option<(String, String)>,
    results: Results,
}

impl Tests {
    /// Notes a failure: of the test that runs, or of the file.
    fn fail(&mut self, message: &str) {
        let message = message.strip_prefix("ERR ").unwrap_or(message);
        let placed = message
            .split_once("user_script:")
            .and_then(|(_, rest)| rest.split_once(": "))
            .and_then(|(line, text)| Some((line.parse().ok()?, text)));
        let (line, step) = placed.unwrap_or((1, message));
        let (expected, actual) = self.differ.take().unwrap_or_default();
        let section = self.name.take().unwrap_or_default();
        let step = step.strip_prefix("ERR ").unwrap_or(step).to_owned();
        let path = self.path.clone();
        self.results.failures.push(Failure { path, line, section, step, expected, actual });
    }

    fn begin(&mut self, name: &str) -> io::Result<()> {
        (self.name, self.differ) = (Some(name.to_owned()), None);
        let mut reply = Vec::new();
        for command in [&[&b"FLUSHALL"[..]][..], &[b"SELECT", b"0"]] {
            reply.clear();
            self.ask(command, self.protocol, &mut reply)?;
        }
        Ok(())
    }

    /// Sends a command to the server and appends its reply.
    fn ask(&mut self, args: &[&[u8]], protocol: Protocol, out: &mut Vec<u8>) -> io::Result<()> {
        if protocol != self.protocol {
            self.protocol = protocol;
            let version = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
            self.ask(&[b"HELLO", version], protocol, out)?;
            out.clear();
        }
        let mut request = Vec::new();
        let mut writer = Reply::new(&mut request, Protocol::Resp2);
        writer.array(args.len());
        args.iter().for_each(|arg| writer.bulk(arg));
        self.stream.write_all(&request)?;
        let mut scanner = ReplyScanner::new();
        let mut chunk = [0; 1 << 16];
        loop {
            match scanner.scan(out) {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(()),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => out.extend_from_slice(&chunk[..len]),
            }
        }
    }

    fn answer(&mut self, request: u32, args: &[&[u8]], reply: &mut Reply<'_>) -> io::Result<()> {
        let text = |at: usize| {
            String::from_utf8_lossy(args.get(at).copied().unwrap_or_default()).into_owned()
        };
        match REQUESTS[request as usize] {
            "test|begin" => self.begin(&text(1))?,
            "test|pass" => {
                self.name = None;
                self.results.passed += 1;
            }
            "test|fail" => self.fail(&text(1)),
            "test|differ" => self.differ = Some((text(1), text(2))),
            "test|source" => {
                let path = self.scripts.join(format!("{}.lua", text(1)));
                let source = std::fs::read(&path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
                reply.bulk(&source);
                return Ok(());
            }
            _ => match text(1).parse() {
                Ok(ms) => (self.advance)(ms),
                Err(_) => return Err(io::Error::other("advance wants a whole number of ms")),
            },
        }
        reply.ok();
        Ok(())
    }
}

impl Host for Tests {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let request = REQUESTS.iter().position(|request| request.as_bytes() == name);
        Some(request.map_or(OF_SERVER, |at| at as u32))
    }

    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        let done = match command {
            OF_SERVER => self.ask(args, protocol, answer.encoded()),
            request => self.answer(request, args, &mut answer.reply(protocol)),
        };
        if let Err(error) = done {
            answer.reply(protocol).error(&format!("ERR {error}"));
        }
    }

    fn log(&mut self, _: LogLevel, message: &[u8]) {
        println!("{}", String::from_utf8_lossy(message));
    }

    fn acl_check(&mut self, _: &[&[u8]]) -> Result<bool, ()> {
        Ok(true)
    }

    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
}

//! The same scripts here and in a real redis-server: replies must agree byte for byte.
//!
//! `tests/oracle/*.txt` hold one script per line (`⏎` stands for a line end). A line that begins
//! with `~` gives the reason why the next script's reply differs on purpose; if it does not
//! differ, that is a failure too. Skipped, with a note, where no redis-server is installed.

mod support;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use lua::{Answer, Host, LogLevel, Outcome, Protocol, Tick, Vm, VmOptions};
use resp::Reply;
use testkit::server::Server;

const KEYS: &[&[u8]] = &[b"key:1"];
const ARGS: &[&[u8]] = &[b"first", b"2"];

struct Oracle {
    stream: TcpStream,
    _server: Server,
}

impl Oracle {
    fn start() -> Option<Oracle> {
        let none: [&str; 0] = [];
        let server = match Server::start(Path::new("redis-server"), &none) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            outcome => outcome.expect("redis-server comes up"),
        };
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Some(Oracle { stream, _server: server })
    }

    /// The raw reply to a command; what follows it is recognised by a marker.
    fn ask(&mut self, args: &[&[u8]]) -> Vec<u8> {
        const MARKER: &[u8] = b"$11\r\n*-*marker*-*\r\n";
        let mut request = Vec::new();
        for command in [args, &[b"ECHO", b"*-*marker*-"]] {
            request.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for arg in command {
                request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                request.extend_from_slice(arg);
                request.extend_from_slice(b"\r\n");
            }
        }
        self.stream.write_all(&request).unwrap();
        let marker = [b"$11\r\n", &MARKER[5..16], b"\r\n"].concat();
        let mut reply = Vec::new();
        let mut chunk = [0; 65536];
        while !reply.ends_with(&marker) {
            let count = self.stream.read(&mut chunk).expect("the oracle answers");
            assert!(count > 0, "the oracle hung up");
            reply.extend_from_slice(&chunk[..count]);
        }
        reply.truncate(reply.len() - marker.len());
        reply
    }

    fn eval(&mut self, source: &[u8]) -> Vec<u8> {
        let mut args: Vec<&[u8]> = vec![b"EVAL", source, b"1"];
        args.extend_from_slice(KEYS);
        args.extend_from_slice(ARGS);
        self.ask(&args)
    }
}

/// A host that knows the few commands which need no keyspace.
struct Keyless;

impl Host for Keyless {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let names: [&[u8]; 3] = [b"ping", b"echo", b"get"];
        names.iter().position(|known| name.eq_ignore_ascii_case(known)).map(|at| at as u32)
    }

    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        let mut reply = answer.reply(protocol);
        match (command, args) {
            (0, [_]) => reply.status("PONG"),
            (0 | 1, [_, text]) => reply.bulk(text),
            _ => reply.error("ERR Wrong number of args calling Redis command from script"),
        }
    }

    fn log(&mut self, _level: LogLevel, _message: &[u8]) {}

    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()> {
        self.resolve(args[0]).map(|_| true).ok_or(())
    }

    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
}

fn ours(vm: &mut Vm, source: &[u8], protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    match vm.compile(source) {
        Ok(script) => {
            let outcome = vm.run(&mut Keyless, &script, KEYS, ARGS, protocol, &mut out);
            assert!(matches!(outcome, Outcome::Ok | Outcome::Error), "{outcome:?}");
        }
        Err(text) => Reply::new(&mut out, protocol).error_bytes(&text),
    }
    out
}

#[test]
fn replies_agree_with_redis() {
    let Some(mut server) = Oracle::start() else {
        eprintln!("no redis-server here: nothing compared");
        return;
    };
    let mut vm = Vm::new(VmOptions::default());
    let (mut compared, mut failures) = (0, Vec::new());
    let files = [
        ("conversions", include_str!("oracle/conversions.txt")),
        ("errors", include_str!("oracle/errors.txt")),
        ("sandbox", include_str!("oracle/sandbox.txt")),
        ("language", include_str!("oracle/language.txt")),
        ("cjson", include_str!("oracle/cjson.txt")),
        ("binary", include_str!("oracle/binary.txt")),
    ];
    let mut replies = vec![Vec::new(); 2];
    for (protocol, hello) in [(Protocol::Resp2, b"2"), (Protocol::Resp3, b"3")] {
        server.ask(&[b"HELLO", hello]);
        for (file, text) in files {
            for (number, line) in text.lines().enumerate() {
                if line.is_empty() || line.starts_with(['~']) || is_note(line) {
                    continue;
                }
                let source = line.replace('⏎', "\n");
                let theirs = server.eval(source.as_bytes());
                let ours = ours(&mut vm, source.as_bytes(), protocol);
                replies[protocol as usize].push((file, number, ours, theirs));
            }
        }
    }
    let both = replies[0].iter().zip(&replies[1]);
    for ((file, number, ours, theirs), (_, _, ours3, theirs3)) in both {
        compared += 2;
        let text = files.iter().find(|(name, _)| name == file).unwrap().1;
        let lines: Vec<&str> = text.lines().collect();
        let deliberate = *number > 0 && lines[number - 1].starts_with('~');
        let differs = ours != theirs || ours3 != theirs3;
        if differs != deliberate {
            let (ours, theirs) = if ours != theirs { (ours, theirs) } else { (ours3, theirs3) };
            failures.push(format!(
                "{file}.txt:{}: {}\n   ours: {}\n  redis: {}",
                number + 1,
                lines[*number],
                support::tidy(ours),
                support::tidy(theirs)
            ));
        }
    }
    assert!(compared > 1000, "only {compared} compared");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

/// A comment line, as opposed to a script that begins with a shebang or the length operator.
fn is_note(line: &str) -> bool {
    line.starts_with("# ")
}

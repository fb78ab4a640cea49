//! A host with a keyspace in a HashMap, and ways to run a script against it.
#![allow(dead_code)] // Each test binary uses its own part.

use std::collections::HashMap;

use lua::{Answer, Host, LogLevel, Outcome, Protocol, Tick, Vm, VmOptions};
use resp::{Reply, Simple};

#[derive(Default)]
pub struct FakeHost {
    pub strings: HashMap<Vec<u8>, Vec<u8>>,
    pub lists: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    pub log: Vec<(LogLevel, Vec<u8>)>,
    pub calls: u64,
    pub ticks: u64,
    /// Kill at the first tick, or once this many ticks passed.
    pub kill_after_ticks: u64,
    pub replication: Option<(bool, bool)>,
    pub last_args: Vec<Vec<u8>>,
}

const COMMANDS: &[&str] =
    &["get", "set", "incr", "rpush", "lrange", "echo", "shapes", "nested", "panic", "count"];

impl Host for FakeHost {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let name = name.to_ascii_lowercase();
        COMMANDS.iter().position(|known| known.as_bytes() == name).map(|at| at as u32)
    }

    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        self.calls += 1;
        if let ("get", [key]) = (COMMANDS[command as usize], &args[1..])
            && let Some(value) = self.strings.get(*key)
        {
            return answer.lend(Simple::Bulk(value));
        }
        let mut reply = answer.reply(protocol);
        match (COMMANDS[command as usize], &args[1..]) {
            ("get", [_]) => reply.null(),
            ("set", [key, value]) => {
                self.strings.insert(key.to_vec(), value.to_vec());
                reply.ok();
            }
            ("incr", [key]) => {
                let text = self.strings.get(*key).cloned().unwrap_or_else(|| b"0".to_vec());
                match String::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()) {
                    Some(value) => {
                        self.strings.insert(key.to_vec(), (value + 1).to_string().into_bytes());
                        reply.integer(value + 1);
                    }
                    None => reply.error("ERR value is not an integer or out of range"),
                }
            }
            ("rpush", [key, values @ ..]) => {
                let list = self.lists.entry(key.to_vec()).or_default();
                list.extend(values.iter().map(|value| value.to_vec()));
                reply.integer(list.len() as i64);
            }
            ("lrange", [key, ..]) => {
                let list = self.lists.get(*key).cloned().unwrap_or_default();
                reply.array(list.len());
                for value in list {
                    reply.bulk(&value);
                }
            }
            ("echo", values) => {
                self.last_args = args.iter().map(|arg| arg.to_vec()).collect();
                reply.array(values.len());
                for value in values {
                    reply.bulk(value);
                }
            }
            ("shapes", []) => {
                reply.array(8);
                reply.map(1);
                reply.bulk(b"key");
                reply.integer(1);
                reply.set(2);
                reply.bulk(b"a");
                reply.bulk(b"b");
                reply.double(1.5);
                reply.boolean(true);
                reply.null();
                reply.big_number("123456789012345678901234567890");
                reply.verbatim("txt", b"hello");
                reply.status("FINE");
            }
            ("nested", []) => {
                reply.array(2);
                reply.error("ERR inner");
                reply.null_array();
            }
            ("panic", _) => panic!("the host panicked"),
            ("count", values) => reply.integer(values.len() as i64),
            _ => reply.error("ERR Wrong number of args calling Redis command from script"),
        }
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        self.log.push((level, message.to_vec()));
    }

    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()> {
        self.resolve(args[0]).map(|_| args.len() < 4).ok_or(())
    }

    fn tick(&mut self) -> Tick {
        self.ticks += 1;
        if self.ticks > self.kill_after_ticks { Tick::Kill } else { Tick::Continue }
    }

    fn set_repl(&mut self, aof: bool, replicas: bool) {
        self.replication = Some((aof, replicas));
    }
}

pub struct Bench {
    pub vm: Vm,
    pub host: FakeHost,
    pub protocol: Protocol,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(VmOptions::default())
    }

    pub fn with(options: VmOptions) -> Bench {
        Bench { vm: Vm::new(options), host: FakeHost::default(), protocol: Protocol::Resp2 }
    }

    pub fn eval_args(&mut self, source: &[u8], keys: &[&[u8]], args: &[&[u8]]) -> Vec<u8> {
        self.outcome_args(source, keys, args).1
    }

    pub fn outcome_args(
        &mut self,
        source: &[u8],
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> (Outcome, Vec<u8>) {
        let mut out = b"before".to_vec();
        let script = match self.vm.compile(source) {
            Ok(script) => script,
            Err(text) => {
                let mut reply = Vec::new();
                Reply::new(&mut reply, Protocol::Resp2).error_bytes(&text);
                return (Outcome::Error, reply);
            }
        };
        let outcome = self.vm.run(&mut self.host, &script, keys, args, self.protocol, &mut out);
        assert!(out.starts_with(b"before"), "a run keeps what the buffer held");
        (outcome, out.split_off(6))
    }

    /// The reply with CRLF as `|` and a run's ` script: <sha>` cut out.
    pub fn eval(&mut self, source: &str) -> String {
        let reply = self.eval_args(source.as_bytes(), &[], &[]);
        tidy(&reply)
    }
}

pub fn tidy(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).replace("\r\n", "|");
    match text.find(" script: ") {
        Some(at) if text.len() >= at + 49 => format!("{}{}", &text[..at], &text[at + 49..]),
        _ => text,
    }
}

//! A keyspace on one thread, to test handlers without a server: commands come in as text, replies
//! go out as text. It goes the way of the server's dispatch: row, arity, lock plan, handler.

use std::sync::Arc;

use engine::{Effects, Engine, Plan, Settings, Txn, Worker};
use resp::{Protocol, Reply, Simple};

use crate::{Blocking, Call, Command, Error, FAMILIES, Handler, Scope, Wait};

pub(crate) struct Keyspace {
    engine: Engine,
    worker: Worker,
    pub now_ms: i64,
    pub protocol: Protocol,
    pub blocking: Blocking,
    /// Commands are called as scripts do that, and so many were.
    pub is_quick: bool,
    pub quick_count: usize,
    /// What the last command wished to wait for, and what its transaction left behind.
    pub wait: Option<Wait>,
    pub effects: Effects,
}

impl Keyspace {
    pub fn new() -> Keyspace {
        Keyspace::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Keyspace {
        let engine = Engine::new(1);
        let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
        Keyspace {
            engine,
            worker,
            now_ms: 1_700_000_000_000,
            protocol: Protocol::Resp2,
            blocking: Blocking::Never,
            is_quick: false,
            quick_count: 0,
            wait: None,
            effects: Effects::default(),
        }
    }

    /// Runs a command written as words between spaces; `""` is the empty word. Answers the reply
    /// with a space for each line end.
    pub fn run(&mut self, line: &str) -> String {
        let words = line.split(' ').map(|word| if word == "\"\"" { "" } else { word });
        let args: Vec<&[u8]> = words.map(str::as_bytes).collect();
        String::from_utf8_lossy(&self.run_args(&args)).trim_end().replace("\r\n", " ")
    }

    /// Runs a command and answers its reply as it would be sent.
    pub fn run_args(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let command = find(args[0]);
        let row = &command.row;
        let mut out = Vec::new();
        if !row.accepts(args.len()) {
            Reply::new(&mut out, self.protocol).error(&Error::arity(row.name).0);
            return out;
        }
        let plan = match row.scope {
            Scope::Exclusive => Plan::Exclusive,
            Scope::Walk => Plan::Walk,
            Scope::Keys => match row.key_positions(args) {
                Ok(keys) => {
                    Plan::shards(keys.iter().map(|&at| self.engine.key_shard(args[at])).collect())
                }
                Err(_) => Plan::none(),
            },
        };
        let gates = self.engine.gates();
        // One thread: one gate is all of them.
        assert!(gates.enter(0, None), "nobody else holds the gate");
        let mut txn = Txn::begin(&self.engine, &self.worker, plan, self.now_ms);
        let quick = command.quick.filter(|_| self.is_quick);
        if let Some(value) = quick.and_then(|quick| quick(&mut txn, args)) {
            let mut reply = Reply::new(&mut out, self.protocol);
            match value {
                Simple::Integer(number) => reply.integer(number),
                Simple::Bulk(text) => reply.bulk(text),
                Simple::Null => reply.null(),
                Simple::Ok => reply.ok(),
            }
            self.quick_count += 1;
            self.effects = txn.commit();
            // SAFETY: entered above on this thread.
            unsafe { gates.leave(0) };
            return out;
        }
        let reply = Reply::new(&mut out, self.protocol);
        let mut call = Call::new(&mut txn, reply, self.blocking);
        let handler = command.handler.expect("containers are not run by themselves");
        let result = handler(&mut call, args);
        self.wait = call.wait.take();
        if let Err(error) = result {
            call.reply.truncate(0);
            call.reply.error(&error.0);
        }
        self.effects = txn.commit();
        // SAFETY: entered above on this thread.
        unsafe { gates.leave(0) };
        out
    }

    /// Runs a command that must answer exactly this.
    #[track_caller]
    pub fn check(&mut self, line: &str, expected: &str) {
        assert_eq!(self.run(line), expected, "{line}");
    }
}

fn find(name: &[u8]) -> &'static Command<Handler> {
    FAMILIES
        .iter()
        .flat_map(|family| family.iter())
        .find(|command| name.eq_ignore_ascii_case(command.row.name.as_bytes()))
        .unwrap_or_else(|| panic!("no command {}", name.escape_ascii()))
}

/// What commands answer in the plain case, and leave behind, is what their handlers do.
#[test]
fn quick_calls_are_calls() {
    const LINES: &[&str] = &[
        "GET text",
        "GET number",
        "GET none",
        "GET list",
        "GET short",
        "GET due",
        "GET long",
        "SET text other",
        "SET number 18",
        "SET number text",
        "SET list text",
        "SET short x",
        "SET due x",
        "SET none x",
        "SET text 17",
        "SET long x",
        "SET text",
        "SET text v NX",
        "SET text v XX GET",
        "SET text v KEEPTTL",
        "SET short v EX 10",
        "SET text v BAD",
    ];
    let run = |is_quick: bool, line: &str| {
        let mut keyspace = Keyspace::new();
        keyspace.run("SET text some");
        keyspace.run("SET number 17");
        keyspace.run("RPUSH list a b");
        keyspace.run("SET short text PX 1000");
        keyspace.run("SET due text PX 5");
        keyspace.run(&format!("SET long {}", "x".repeat(5000)));
        keyspace.now_ms += 10;
        keyspace.is_quick = is_quick;
        let reply = keyspace.run(line);
        let stats = keyspace.engine.stats(0);
        let counts = (stats.keyspace_hits.value(), stats.keyspace_misses.value());
        let dirty = keyspace.effects.dirty;
        keyspace.is_quick = false;
        let keys = ["text", "number", "list", "short", "due", "none"];
        let left: Vec<String> = keys
            .iter()
            .flat_map(|key| ["TYPE", "GET", "PTTL"].map(|ask| format!("{ask} {key}")))
            .map(|ask| keyspace.run(&ask))
            .collect();
        ((reply, counts, dirty, left), keyspace.quick_count)
    };
    let mut quick_count = 0;
    for line in LINES {
        let (quickly, count) = run(true, line);
        assert_eq!(quickly, run(false, line).0, "{line}");
        quick_count += count;
    }
    assert!(quick_count >= 12, "{quick_count} quick calls");
}

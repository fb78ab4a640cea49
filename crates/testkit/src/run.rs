//! Runs talk files against a server and reports every step that went otherwise.
//!
//! Each section starts with an empty keyspace and connections of its own, so sections can be
//! read, and fail, alone. Called by `xtask`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Client, ReadError};
use crate::pattern::{Leniency, Pattern, Saved};
use crate::poll;
use crate::replay::Replay;
use crate::rewrite::{self, Edit};
use crate::server::Server;
use crate::talk::{self, Action, Arg, Expectation, File, Section, Step};
use crate::value::Value;

/// How long one reply or one polled condition may take.
const STEP_PATIENCE: Duration = Duration::from_secs(5);

/// What to run files against.
#[derive(Clone, Debug)]
pub enum Target {
    /// A server started for each file.
    Binary { path: PathBuf, args: Vec<String> },
    /// A server that is already there; it loses all its keys.
    Address(String),
}

/// A clock of the server that stands still until it is moved.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Unix ms.
    pub now_ms: fn() -> i64,
    pub advance: fn(i64),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub target: Target,
    /// The target is Redis itself: deliberate differences apply.
    pub oracle: bool,
    pub replay: Replay,
    /// Replace expectations that do not fit.
    pub rewrite: bool,
    /// Where `%{script name}` finds `name.lua`; `None`: beside the talk file.
    pub scripts: Option<PathBuf>,
    /// `None`: the server's clock runs, as everybody's.
    pub clock: Option<Clock>,
}

#[derive(Debug)]
pub struct Failure {
    pub path: PathBuf,
    pub line: usize,
    pub section: String,
    pub step: String,
    pub expected: String,
    pub actual: String,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
    pub failures: Vec<Failure>,
}

impl Outcome {
    pub fn add(&mut self, other: Outcome) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }
}

/// Every talk file below a directory (or the file itself), whose path contains `filter`.
pub fn files(root: &Path, filter: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "talk")
            && path.to_string_lossy().contains(filter)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs one file; an unreadable file or a server that does not start is a failure like others.
pub fn run_file(path: &Path, options: &Options) -> Outcome {
    let broken = |step: &str, error: String| Outcome {
        passed: 0,
        failed: 1,
        failures: vec![Failure {
            path: path.to_owned(),
            line: 1,
            section: String::new(),
            step: step.to_owned(),
            expected: String::new(),
            actual: error,
        }],
    };
    let file = match File::read(path) {
        Ok(file) => file,
        Err(error) => return broken("reading the file", error),
    };
    let mut server = None;
    let address = match &options.target {
        Target::Address(address) => {
            if !file.server_args.is_empty() {
                return Outcome::default();
            }
            address.clone()
        }
        Target::Binary { path: binary, args } => {
            let args: Vec<&String> = args.iter().chain(&file.server_args).collect();
            let args: Vec<&str> = args.iter().map(|arg| arg.as_str()).collect();
            match Server::start(binary, &args) {
                Ok(started) => server.insert(started).address(),
                Err(error) => return broken("starting the server", error.to_string()),
            }
        }
    };
    let mut run = match FileRun::new(&file, &address, options) {
        Ok(run) => run,
        Err(error) => return broken("preparing the server", error),
    };
    for section in &file.sections {
        let excluded =
            |word: &String| word == options.replay.name() || (word == "redis" && options.oracle);
        let replay_sets = options.replay.config();
        let conflicting =
            section.config.iter().any(|(name, _)| replay_sets.iter().any(|(set, _)| set == name));
        if section.not.iter().any(excluded) || conflicting {
            continue;
        }
        run.section(section);
    }
    let FileRun { mut outcome, edits, .. } = run;
    if let Some(server) = &mut server {
        let log = server.log();
        if server.ended().is_some() || log.contains("panicked at") || log.contains("BUG REPORT") {
            let mut crash = broken("the server died or panicked", log);
            crash.passed = 0;
            outcome.add(crash);
        }
    }
    if options.rewrite && !edits.is_empty() {
        let text = rewrite::apply(&file.lines, edits);
        if let Err(error) = std::fs::write(path, text) {
            outcome.add(broken("rewriting the file", error.to_string()));
        }
    }
    outcome
}

struct Connection {
    client: Client,
    id: Option<i64>,
    in_transaction: bool,
    watching: bool,
    subscribed: bool,
    resp3: bool,
}

struct FileRun<'a> {
    file: &'a File,
    address: &'a str,
    options: &'a Options,
    control: Client,
    outcome: Outcome,
    edits: Vec<Edit>,
}

/// A step that cannot be judged; the rest of the section would only repeat the trouble.
struct Broken(String);

impl<'a> FileRun<'a> {
    fn new(file: &'a File, address: &'a str, options: &'a Options) -> Result<Self, String> {
        let mut control = control(file, address).map_err(|error| error.to_string())?;
        for (name, value) in options.replay.config() {
            // Redis 7.0 does not know all of them; a server that knows none has no encodings.
            control.call(&["CONFIG", "SET", name, value]).map_err(|error| error.to_string())?;
        }
        Ok(FileRun {
            file,
            address,
            options,
            control,
            outcome: Outcome::default(),
            edits: Vec::new(),
        })
    }

    fn section(&mut self, section: &Section) {
        let failures_before = self.outcome.failures.len();
        let mut previous = Vec::new();
        let prepared = self.prepare(section, &mut previous);
        let (file, options) = (self.file, self.options);
        let beside = file.path.parent().unwrap_or(Path::new("."));
        let mut run = SectionRun {
            connections: HashMap::new(),
            saved: Saved::new(),
            section,
            scripts: options.scripts.as_deref().unwrap_or(beside),
            clock: options.clock,
        };
        match prepared {
            Ok(()) => {
                for step in &section.steps {
                    if let Err(Broken(what)) = self.step(&mut run, step) {
                        self.fail(section, step, &step.expected, &what);
                        break;
                    }
                }
                self.leftovers(&mut run);
            }
            Err(error) => {
                self.outcome.failures.push(Failure {
                    path: self.file.path.clone(),
                    line: section.line + 1,
                    section: section.title.clone(),
                    step: "preparing the section".to_owned(),
                    expected: String::new(),
                    actual: error,
                });
            }
        }
        for (name, value) in previous {
            // The server may be gone; then the next section says so.
            let _ = self.ask(&["CONFIG", "SET", &name, &value]);
        }
        self.forget_connections(run);
        if self.outcome.failures.len() == failures_before {
            self.outcome.passed += 1;
        } else {
            self.outcome.failed += 1;
        }
    }

    /// Calls on the control connection, on a new one if a section had it closed.
    fn ask(&mut self, command: &[&str]) -> Result<Value, String> {
        self.control
            .call(command)
            .or_else(|_| {
                self.control = control(self.file, self.address)?;
                self.control.call(command)
            })
            .map_err(|error| error.to_string())
    }

    fn prepare(
        &mut self,
        section: &Section,
        previous: &mut Vec<(String, String)>,
    ) -> Result<(), String> {
        self.ask(&["FLUSHALL"])?;
        for (name, value) in &section.config {
            let reply =
                self.control.call(&["CONFIG", "GET", name]).map_err(|error| error.to_string())?;
            if let Some([_, old]) = reply.elements() {
                previous.push((name.clone(), old.text().unwrap_or_default()));
            }
            let reply = self.ask(&["CONFIG", "SET", name, value])?;
            if reply.is_error() && !(self.options.oracle && name.starts_with("set-max-listpack")) {
                return Err(format!("CONFIG SET {name} {value}: {}", reply.to_talk()));
            }
        }
        Ok(())
    }

    /// Closes the connections and waits until the server has noticed, so that a dead blocked
    /// client or subscriber cannot meddle with the next section.
    fn forget_connections(&mut self, run: SectionRun<'_>) {
        let ids: Vec<i64> = run.connections.values().filter_map(|c| c.id).collect();
        drop(run.connections);
        if ids.is_empty() {
            return;
        }
        let mut command = vec!["CLIENT".to_owned(), "LIST".to_owned(), "ID".to_owned()];
        command.extend(ids.iter().map(i64::to_string));
        let control = &mut self.control;
        poll(Duration::from_secs(1), || match control.call(&command) {
            Ok(list) => list.text().is_none_or(|text| !text.contains("id=")).then_some(()),
            Err(_) => Some(()),
        });
    }

    fn leftovers(&mut self, run: &mut SectionRun<'_>) {
        let Some(last) = run.section.steps.last() else { return };
        let mut names: Vec<&String> = run.connections.keys().collect();
        names.sort();
        let names: Vec<String> = names.into_iter().cloned().collect();
        for name in names {
            if let Some(connection) = run.connections.get_mut(&name) {
                let bytes = connection.client.leftover();
                if !bytes.is_empty() {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let nothing = Expectation::default();
                    let what = format!("unread on @{name}: {text:?}");
                    self.fail(run.section, last, &nothing, &what);
                }
            }
        }
    }

    fn step(&mut self, run: &mut SectionRun<'_>, step: &Step) -> Result<(), Broken> {
        let options = self.options;
        let excluded =
            |word: &String| word == options.replay.name() || (word == "redis" && options.oracle);
        if step.not.iter().any(excluded) {
            return Ok(());
        }
        let expected = match &step.redis {
            Some(difference) if options.oracle => &difference.expected,
            _ => &step.expected,
        };
        let unchecked = options.oracle && step.redis.is_some() && expected.patterns.is_empty();
        let name = &step.connection;
        match &step.action {
            Action::Advance(ms) => {
                let clock = self.options.clock;
                let clock = clock.ok_or_else(|| Broken("this server's clock runs".to_owned()))?;
                (clock.advance)(*ms);
                return Ok(());
            }
            Action::Close => {
                run.connections.remove(name);
                return Ok(());
            }
            Action::Closed => {
                if !run.connection(name, self.address)?.client.wait_closed(STEP_PATIENCE) {
                    self.fail(run.section, step, expected, "the connection is still open");
                }
                return Ok(());
            }
            Action::Hello3 => {
                let connection = run.connection(name, self.address)?;
                connection.resp3 = true;
                let reply = read_call(&mut connection.client, &[b"HELLO".to_vec(), b"3".to_vec()])?;
                if !matches!(reply, Value::Map(_)) {
                    self.fail(run.section, step, expected, &reply.to_talk());
                }
                return Ok(());
            }
            Action::Raw(args) => {
                let bytes = run.expand(args)?.concat();
                // A server that closes on the first bad byte may refuse the rest.
                let _ = run.connection(name, self.address)?.client.send_raw(&bytes);
                if !expected.patterns.is_empty() {
                    let values = self.receive(run, step, expected.patterns.len())?;
                    self.judge(run, step, expected, &values, Leniency::default());
                }
                return Ok(());
            }
            Action::Send(args) => {
                let command = run.expand(args)?;
                let connection = run.connection(name, self.address)?;
                connection.client.send(&command).map_err(|error| Broken(error.to_string()))?;
                return Ok(());
            }
            Action::Block(args) => {
                let command = run.expand(args)?;
                let connection = run.connection(name, self.address)?;
                connection.client.send(&command).map_err(|error| Broken(error.to_string()))?;
                let id = connection.id.ok_or_else(|| Broken("CLIENT ID is not answered".into()))?;
                return self.wait_blocked(id);
            }
            Action::Receive => {
                let values = self.receive(run, step, expected.patterns.len().max(1))?;
                self.judge(run, step, expected, &values, Leniency::default());
                return Ok(());
            }
            Action::Poll(args) => {
                let command = run.expand(args)?;
                let mut last = Value::Nil;
                let saved = &mut run.saved.clone();
                let connection = run.connection(name, self.address)?;
                let found = poll(STEP_PATIENCE, || {
                    match read_call(&mut connection.client, &command) {
                        Ok(value) => {
                            last = value;
                            expected.patterns.first().is_none_or(|pattern| {
                                pattern.check(&last, saved, Leniency::default())
                            })
                        }
                        Err(Broken(_)) => false,
                    }
                    .then_some(())
                });
                if found.is_none() && !unchecked {
                    self.fail(run.section, step, expected, &last.to_talk());
                }
                return Ok(());
            }
            Action::Scan(args) => {
                let command = run.expand(args)?;
                let connection = run.connection(name, self.address)?;
                let value = scan(&mut connection.client, command)?;
                self.judge(run, step, expected, &[value], Leniency::default());
                return Ok(());
            }
            Action::Call(_) => {}
        }
        let Action::Call(args) = &step.action else { return Ok(()) };
        let command = run.expand(args)?;
        let word = |at: usize| {
            command
                .get(at)
                .map(|arg| String::from_utf8_lossy(arg).to_lowercase())
                .unwrap_or_default()
        };
        let (command_name, first) = (word(0), word(1));
        let address = self.address;
        let connection = run.connection(name, address)?;
        let free = !connection.in_transaction
            && !connection.watching
            && !connection.subscribed
            && !self.file.server_args.iter().any(|arg| arg == "--requirepass");
        let wraps = free && expected.patterns.len() == 1 && options.replay.wraps(&command_name);
        let (values, lenient) = if wraps && options.replay == Replay::Multi {
            (vec![in_transaction(&mut connection.client, &command)?], Leniency::default())
        } else if wraps
            && options.replay == Replay::Eval
            && !connection.resp3
            && !expected.patterns.iter().any(Pattern::exceeds_lua_integers)
        {
            let mut call: Vec<Vec<u8>> =
                [&b"EVAL"[..], b"return redis.call(unpack(ARGV))", b"0"].map(<[u8]>::to_vec).into();
            call.extend(command.clone());
            let value = read_call(&mut connection.client, &call)?;
            (vec![value], Leniency { nulls: true, script_errors: true })
        } else {
            connection.client.send(&command).map_err(|error| Broken(error.to_string()))?;
            let count = match expected.patterns.len() {
                0 => replies(&command_name, command.len()),
                known => known,
            };
            (self.receive(run, step, count)?, Leniency::default())
        };
        run.follow(name, &command_name, &first, &command, &values);
        if options.replay.skips(&command_name, &first) || unchecked {
            return Ok(());
        }
        self.judge(run, step, expected, &values, lenient);
        Ok(())
    }

    fn receive(
        &mut self,
        run: &mut SectionRun<'_>,
        step: &Step,
        count: usize,
    ) -> Result<Vec<Value>, Broken> {
        let client = &mut run.connection(&step.connection, self.address)?.client;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            match client.read(STEP_PATIENCE) {
                Ok(value) => values.push(value),
                Err(error) => {
                    let seen: Vec<String> = values.iter().map(Value::to_talk).collect();
                    return Err(Broken(format!("{}{error}", seen.join("\n") + "\n")));
                }
            }
        }
        Ok(values)
    }

    /// Waits until `CLIENT LIST` shows the client as blocked.
    fn wait_blocked(&mut self, id: i64) -> Result<(), Broken> {
        let mut last = String::new();
        let command = ["CLIENT", "LIST", "ID", &id.to_string()].map(str::to_owned);
        poll(STEP_PATIENCE, || {
            let reply = self.control.call(&command).ok()?;
            last = reply.text().unwrap_or_default();
            let flags = last.split(' ').find_map(|field| field.strip_prefix("flags="))?;
            flags.contains('b').then_some(())
        })
        .ok_or_else(|| Broken(format!("the client does not block: {last}")))
    }

    fn judge(
        &mut self,
        run: &mut SectionRun<'_>,
        step: &Step,
        expected: &Expectation,
        values: &[Value],
        lenient: Leniency,
    ) {
        let fits = expected.patterns.len() == values.len()
            && expected
                .patterns
                .iter()
                .zip(values)
                .all(|(pattern, value)| pattern.check(value, &mut run.saved, lenient));
        if fits {
            return;
        }
        let command_name = match &step.action {
            Action::Call(args) | Action::Scan(args) => match args.first() {
                Some(Arg::Literal(name)) => String::from_utf8_lossy(name).to_lowercase(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        let scan = matches!(step.action, Action::Scan(_));
        let text: Vec<String> = values
            .iter()
            .map(|value| order_marker(&command_name, scan, value) + &value.to_talk())
            .collect();
        let text = text.join("\n");
        if self.options.rewrite {
            self.edits.push(Edit { lines: expected.lines.clone(), text });
        } else {
            self.fail(run.section, step, expected, &text);
        }
    }

    fn fail(&mut self, section: &Section, step: &Step, expected: &Expectation, actual: &str) {
        self.outcome.failures.push(Failure {
            path: self.file.path.clone(),
            line: step.line + 1,
            section: section.title.clone(),
            step: self.file.lines[step.line].clone(),
            expected: self.file.lines[expected.lines.clone()].join("\n"),
            actual: actual.to_owned(),
        });
    }
}

struct SectionRun<'a> {
    connections: HashMap<String, Connection>,
    saved: Saved,
    section: &'a Section,
    scripts: &'a Path,
    clock: Option<Clock>,
}

impl SectionRun<'_> {
    fn connection(&mut self, name: &str, address: &str) -> Result<&mut Connection, Broken> {
        if !self.connections.contains_key(name) {
            let mut client = Client::connect(address).map_err(|error| Broken(error.to_string()))?;
            let id = match client.call(&["CLIENT", "ID"]) {
                Ok(Value::Integer(id)) => Some(id),
                _ => None,
            };
            let connection = Connection {
                client,
                id,
                in_transaction: false,
                watching: false,
                subscribed: false,
                resp3: false,
            };
            self.connections.insert(name.to_owned(), connection);
        }
        Ok(self.connections.get_mut(name).expect("inserted above"))
    }

    fn expand(&self, args: &[Arg]) -> Result<Vec<Vec<u8>>, Broken> {
        let now_ms = match self.clock {
            Some(clock) => (clock.now_ms)(),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                now.as_millis() as i64
            }
        };
        talk::expand(args, &self.saved, now_ms, self.scripts).map_err(Broken)
    }

    /// Notes what the command did to its connection, for the replays.
    fn follow(
        &mut self,
        connection: &str,
        name: &str,
        first: &str,
        command: &[Vec<u8>],
        replies: &[Value],
    ) {
        let Some(connection) = self.connections.get_mut(connection) else { return };
        let done = replies.iter().any(|reply| !reply.is_error());
        match name {
            "multi" if command.len() == 1 && done => connection.in_transaction = true,
            "exec" | "discard" if command.len() == 1 => {
                connection.in_transaction = false;
                connection.watching = false;
            }
            "watch" if done && !connection.in_transaction => connection.watching = true,
            "unwatch" => connection.watching = false,
            "reset" => {
                connection.in_transaction = false;
                connection.watching = false;
                connection.subscribed = false;
                connection.resp3 = false;
            }
            // Whether the last subscription is gone is not tracked: such a connection is left alone.
            "subscribe" | "psubscribe" | "ssubscribe" => connection.subscribed |= done,
            "hello" if done => {
                connection.resp3 = first == "3" || (first.is_empty() && connection.resp3)
            }
            _ => {}
        }
    }
}

/// A connection of the runner itself, for what surrounds the steps.
fn control(file: &File, address: &str) -> Result<Client, ReadError> {
    let mut client = Client::connect(address).map_err(ReadError::Io)?;
    let password = file.server_args.iter().position(|arg| arg == "--requirepass");
    if let Some(password) = password.and_then(|at| file.server_args.get(at + 1)) {
        client.call(&["AUTH", password])?;
    }
    Ok(client)
}

fn read_call(client: &mut Client, command: &[Vec<u8>]) -> Result<Value, Broken> {
    client.send(command).map_err(|error| Broken(error.to_string()))?;
    client.read(STEP_PATIENCE).map_err(|error: ReadError| Broken(error.to_string()))
}

/// Runs one command between MULTI and EXEC and answers what it would have answered alone.
fn in_transaction(client: &mut Client, command: &[Vec<u8>]) -> Result<Value, Broken> {
    let status = |text: &str| Value::Status(text.as_bytes().to_vec());
    let begun = read_call(client, &[b"MULTI".to_vec()])?;
    if begun != status("OK") {
        return Err(Broken(format!("MULTI answered {}", begun.to_talk())));
    }
    let queued = read_call(client, command)?;
    let executed = read_call(client, &[b"EXEC".to_vec()])?;
    match (queued, executed) {
        (refused @ Value::Error(_), executed) => {
            let aborted = b"EXECABORT Transaction discarded because of previous errors.".to_vec();
            if executed == Value::Error(aborted) {
                Ok(refused)
            } else {
                Err(Broken(format!("EXEC after an error answered {}", executed.to_talk())))
            }
        }
        (queued, Value::Array(mut replies)) if queued == status("QUEUED") && replies.len() == 1 => {
            Ok(replies.remove(0))
        }
        (queued, executed) => Err(Broken(format!(
            "in MULTI: queueing answered {}, EXEC answered {}",
            queued.to_talk(),
            executed.to_talk()
        ))),
    }
}

/// Follows a cursor to its end and answers every element once.
fn scan(client: &mut Client, mut command: Vec<Vec<u8>>) -> Result<Value, Broken> {
    let whole_keyspace = command[0].eq_ignore_ascii_case(b"scan");
    let cursor_at = if whole_keyspace { 1 } else { 2 };
    let pairs =
        command[0].eq_ignore_ascii_case(b"hscan") || command[0].eq_ignore_ascii_case(b"zscan");
    let mut elements: Vec<Value> = Vec::new();
    for _ in 0..100_000 {
        let reply = read_call(client, &command)?;
        let parts = reply.elements().unwrap_or_default();
        let (Some(cursor), Some(found)) =
            (parts.first().and_then(Value::bytes), parts.get(1).and_then(Value::elements))
        else {
            return Ok(reply);
        };
        for element in found.chunks(if pairs { 2 } else { 1 }) {
            if !elements.chunks(element.len()).any(|seen| seen == element) {
                elements.extend_from_slice(element);
            }
        }
        if cursor == b"0" {
            return Ok(Value::Array(elements));
        }
        command[cursor_at] = cursor.to_vec();
    }
    Err(Broken("the cursor never came back to zero".to_owned()))
}

/// How many replies a command has that answers once for each argument.
fn replies(name: &str, words: usize) -> usize {
    match name {
        "subscribe" | "psubscribe" | "ssubscribe" | "unsubscribe" | "punsubscribe"
        | "sunsubscribe" => words.saturating_sub(1).max(1),
        _ => 1,
    }
}

/// The marker a new expectation needs when the order of its elements means nothing.
fn order_marker(name: &str, scan: bool, value: &Value) -> String {
    let many = match value {
        Value::Map(pairs) => pairs.len() > 1,
        _ => value.elements().is_some_and(|items| items.len() > 1),
    };
    let pairs = matches!(value, Value::Array(_));
    let marker = match name {
        _ if !many => "",
        "hscan" | "zscan" if scan && pairs => "any-order-pairs ",
        "hgetall" if pairs => "any-order-pairs ",
        "smembers" | "sinter" | "sunion" | "sdiff" | "hkeys" | "hvals" | "keys" | "hgetall" => {
            "any-order "
        }
        _ if scan => "any-order ",
        _ => "",
    };
    marker.to_owned()
}

//! Two servers that are sent the same, and where their answers part.
//!
//! A session begins with empty servers and ends with a look at all that is in them. It can be run
//! again and again with the same outcome, which is what shrinking lives on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::rules::{Rules, sort_tables};
use crate::client::{Client, encode};
use crate::draw::DBS;
use crate::replay::Replay;
use crate::server::Server;
use crate::value::Value;

/// How long a reply may take before a server counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same once it is known that one hangs.
const SHORT_PATIENCE: Duration = Duration::from_secs(4);
/// Requests sent in one write.
const BATCH: usize = 128;

/// Runs the commands in ARGV, each behind the number of its words.
const SCRIPT: &str = "local replies, at = {}, 1
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
  if reply == nil then reply = 'nothing' end
  replies[#replies + 1] = reply
  at = at + words + 1
end
return replies";

/// What stands in front of it for replies of RESP3 in the script, too.
const SETRESP: &str = "redis.setresp(3)\n";

/// The library whose functions do the same. Its name is not drawn, so it is there unless all
/// libraries are flushed.
fn library() -> String {
    format!(
        "#!lua name=session
local function run(KEYS, ARGV)
{SCRIPT}
end
redis.register_function('run', run)
redis.register_function{{function_name='run_ro', callback=run, flags={{'no-writes'}}}}"
    )
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// `object|freq` for a subcommand.
    pub name: String,
    pub args: Vec<Vec<u8>>,
    /// Its client would wait for it outside of transactions.
    pub blocks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    Plain,
    Multi,
    Eval,
    /// A script that asks for replies of RESP3.
    Eval3,
    /// A function.
    Fcall,
    /// A function that may not write.
    FcallRo,
}

impl Wrap {
    pub fn is_script(self) -> bool {
        !matches!(self, Wrap::Plain | Wrap::Multi)
    }
}

/// Commands that are sent together.
#[derive(Clone, Debug)]
pub struct Step {
    pub wrap: Wrap,
    pub commands: Vec<Command>,
}

/// What a session begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    pub resp3: bool,
    /// Collections leave their compact encodings at once.
    pub tiny: bool,
}

/// Where two servers stopped agreeing.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The step, or none if it was seen at the end.
    pub step: Option<usize>,
    pub command: String,
    pub ours: String,
    pub theirs: String,
}

struct Side {
    binary: PathBuf,
    args: Vec<String>,
    server: Server,
    client: Client,
    /// It did not answer.
    hangs: bool,
}

pub struct Pair {
    sides: [Side; 2],
    patience: Duration,
}

impl Setup {
    fn limits(self) -> Vec<(&'static str, &'static str)> {
        let tiny = Replay::Tiny.config().iter().chain(&[("stream-node-max-entries", "3")]);
        let usual = |directive: &str| match directive {
            "list-max-listpack-size" => "-2",
            "list-compress-depth" => "0",
            "set-max-intset-entries" => "512",
            "stream-node-max-entries" => "100",
            name if name.ends_with("value") => "64",
            _ => "128",
        };
        let chosen = tiny.map(|(name, value)| (*name, if self.tiny { value } else { usual(name) }));
        chosen.collect()
    }

    /// As lines of a talk file.
    pub fn to_talk(self) -> Vec<String> {
        let limits = self.limits().into_iter();
        let limits = limits.filter(|_| self.tiny).map(|(n, v)| format!("> CONFIG SET {n} {v}"));
        limits.chain(self.resp3.then(|| "> HELLO 3".to_owned())).collect()
    }
}

impl Side {
    fn start(binary: PathBuf, args: Vec<String>) -> io::Result<Side> {
        let server = Server::start(&binary, &args)?;
        let client = server.connect()?;
        Ok(Side { binary, args, server, client, hangs: false })
    }

    /// A new connection, to a new server if this one is no more.
    fn reconnect(&mut self) -> io::Result<()> {
        let is_gone = self.server.ended().is_some();
        if self.hangs || is_gone || self.server.log().contains("panicked at") {
            self.hangs = false;
            self.server = Server::start(&self.binary, &self.args)?;
        }
        self.client = self.server.connect()?;
        self.client.patience = PATIENCE;
        Ok(())
    }

    fn call(&mut self, words: &[&str]) -> Result<Value, String> {
        self.client
            .call(words)
            .map_err(|error| format!("{} to {}: {error}", words.join(" "), self.binary.display()))
    }
}

impl Step {
    /// The requests of a step in bytes, and how many there are.
    fn encode(&self, out: &mut Vec<u8>) -> usize {
        let all = |out: &mut Vec<u8>| self.commands.iter().for_each(|c| encode(&c.args, out));
        match self.wrap {
            Wrap::Plain => {
                all(out);
                self.commands.len()
            }
            Wrap::Multi => {
                encode(&["MULTI"], out);
                all(out);
                encode(&["EXEC"], out);
                self.commands.len() + 2
            }
            _ => {
                encode(&self.script(), out);
                1
            }
        }
    }

    fn script(&self) -> Vec<Vec<u8>> {
        let setresp = if self.wrap == Wrap::Eval3 { SETRESP } else { "" };
        let script = [setresp, SCRIPT].concat();
        let call = match self.wrap {
            Wrap::Fcall => ["FCALL", "run"],
            Wrap::FcallRo => ["FCALL_RO", "run_ro"],
            _ => ["EVAL", &script],
        };
        let mut args = [&call[..], &["0"]].concat().into_iter().map(Into::into).collect::<Vec<_>>();
        for command in &self.commands {
            args.push(command.args.len().to_string().into_bytes());
            args.extend(command.args.iter().cloned());
        }
        args
    }

    /// The first command whose reply may not differ so, and the two replies.
    fn compare(
        &self,
        rules: &Rules,
        ours: &[Value],
        theirs: &[Value],
    ) -> Option<(String, Value, Value)> {
        let differ = |command: &Command, ours: &Value, theirs: &Value| {
            let alike = rules.alike(&command.name, &command.args, ours, theirs);
            (!alike).then(|| (talk(&command.args), ours.clone(), theirs.clone()))
        };
        let each = |ours: &[Value], theirs: &[Value]| {
            let replies = ours.iter().zip(theirs);
            let mut all = self.commands.iter().zip(replies);
            all.find_map(|(command, (ours, theirs))| differ(command, ours, theirs))
        };
        // All replies at once: those of EXEC or of a script.
        let whole =
            |name: &str, ours: &Value, theirs: &Value| match (ours.elements(), theirs.elements()) {
                (Some(ours), Some(theirs))
                    if ours.len() == self.commands.len() && theirs.len() == ours.len() =>
                {
                    each(ours, theirs)
                }
                _ => (ours != theirs).then(|| (name.to_owned(), ours.clone(), theirs.clone())),
            };
        match self.wrap {
            Wrap::Plain => each(ours, theirs),
            Wrap::Multi => {
                let last = self.commands.len() + 1;
                each(&ours[1..last], &theirs[1..last])
                    .or_else(|| whole("EXEC", &ours[last], &theirs[last]))
            }
            Wrap::Eval => whole("EVAL", &ours[0], &theirs[0]),
            Wrap::Fcall | Wrap::FcallRo => whole("FCALL", &ours[0], &theirs[0]),
            Wrap::Eval3 => {
                let [mut ours, mut theirs] = [ours[0].clone(), theirs[0].clone()];
                sort_tables(&mut ours);
                sort_tables(&mut theirs);
                whole("EVAL", &ours, &theirs)
            }
        }
    }

    /// As lines of a talk file.
    pub fn to_talk(&self) -> Vec<String> {
        let commands = self.commands.iter().map(|command| format!("> {}", talk(&command.args)));
        match self.wrap {
            Wrap::Plain => commands.collect(),
            Wrap::Multi => {
                let first = std::iter::once("> MULTI".to_owned());
                first.chain(commands).chain(std::iter::once("> EXEC".to_owned())).collect()
            }
            _ => vec![format!("> {}", talk(&self.script()))],
        }
    }
}

/// A command as a line of a talk file has it.
pub fn talk(args: &[Vec<u8>]) -> String {
    let word = |arg: &Vec<u8>| {
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        match std::str::from_utf8(arg) {
            Ok(text) if !text.is_empty() && arg.iter().all(is_plain) => text.to_owned(),
            _ => {
                let mut quoted = String::from("\"");
                for byte in arg {
                    match byte {
                        b'"' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
                        b'\n' => quoted.push_str("\\n"),
                        b' '..=b'~' => quoted.push(char::from(*byte)),
                        other => quoted.push_str(&format!("\\x{other:02x}")),
                    }
                }
                quoted + "\""
            }
        }
    };
    args.iter().map(word).collect::<Vec<_>>().join(" ")
}

impl Pair {
    pub fn start(ours: (PathBuf, Vec<String>), theirs: (PathBuf, Vec<String>)) -> io::Result<Pair> {
        let sides = [Side::start(ours.0, ours.1)?, Side::start(theirs.0, theirs.1)?];
        Ok(Pair { sides, patience: PATIENCE })
    }

    /// A connection of its own to us, and to the peer.
    pub fn clients(&self) -> io::Result<[Client; 2]> {
        Ok([self.sides[0].server.connect()?, self.sides[1].server.connect()?])
    }

    /// Sends the same to both; their replies.
    fn ask(&mut self, requests: &[u8], count: usize) -> Result<[Vec<Value>; 2], Difference> {
        for side in &mut self.sides {
            // A server that is gone is noticed when its replies are read.
            let _ = side.client.send_raw(requests);
        }
        let mut replies = [Vec::with_capacity(count), Vec::with_capacity(count)];
        let mut why = [const { String::new() }; 2];
        for ((side, replies), why) in self.sides.iter_mut().zip(&mut replies).zip(&mut why) {
            while replies.len() < count && why.is_empty() {
                match side.client.read(self.patience) {
                    Ok(reply) => replies.push(reply),
                    Err(error) => *why = error.to_string(),
                }
            }
            if !why.is_empty() {
                side.hangs = true;
                *why = format!("{why} after {} of {count} replies", replies.len());
                let log = side.server.log();
                let from = log.lines().count().saturating_sub(30);
                log.lines().skip(from).for_each(|line| why.push_str(&format!("\n{line}")));
            }
        }
        if why.iter().all(String::is_empty) {
            return Ok(replies);
        }
        // Who makes a script of this will see it hang many times.
        self.patience = SHORT_PATIENCE;
        let [ours, theirs] = why;
        let command = "a server does not answer".to_owned();
        Err(Difference { step: None, command, ours, theirs })
    }

    fn ask_all(&mut self, commands: &[Vec<&[u8]>]) -> Result<[Vec<Value>; 2], Difference> {
        let mut requests = Vec::new();
        commands.iter().for_each(|command| encode(command, &mut requests));
        self.ask(&requests, commands.len())
    }

    fn begin(&mut self, setup: Setup) -> Result<(), String> {
        for side in &mut self.sides {
            side.reconnect().map_err(|error| error.to_string())?;
            for (directive, value) in setup.limits() {
                // Redis 7.0 does not have all of them.
                side.call(&["CONFIG", "SET", directive, value])?;
            }
            side.call(&["FLUSHALL", "SYNC"])?;
            side.call(&["FUNCTION", "FLUSH", "SYNC"])?;
            side.call(&["FUNCTION", "LOAD", &library()])?;
            if setup.resp3 {
                side.call(&["HELLO", "3"])?;
            }
        }
        Ok(())
    }

    /// Waits as long as at the beginning.
    pub fn be_patient(&mut self) {
        self.patience = PATIENCE;
    }

    /// Sends the steps to both servers, beginning with nothing. Counts commands that succeeded
    /// by calling `seen` with each and whether it did.
    pub fn run(
        &mut self,
        rules: &Rules,
        setup: Setup,
        steps: &[Step],
        mut seen: impl FnMut(&Step, &[Value]),
    ) -> Result<Option<Difference>, String> {
        self.begin(setup)?;
        let mut from = 0;
        while from < steps.len() {
            let mut requests = Vec::new();
            let mut counts = Vec::new();
            let mut to = from;
            while to < steps.len() && counts.iter().sum::<usize>() < BATCH {
                counts.push(steps[to].encode(&mut requests));
                to += 1;
            }
            let [ours, theirs] = match self.ask(&requests, counts.iter().sum()) {
                Ok(replies) => replies,
                // Which step it was is found out by shrinking.
                Err(difference) => {
                    return Ok(Some(Difference { step: Some(to - 1), ..difference }));
                }
            };
            let mut at = 0;
            for (step, count) in counts.into_iter().enumerate() {
                let replies = at..at + count;
                at += count;
                let index = from + step;
                seen(&steps[index], &ours[replies.clone()]);
                let found = steps[index].compare(rules, &ours[replies.clone()], &theirs[replies]);
                if let Some((command, ours, theirs)) = found {
                    let (ours, theirs) = (ours.to_talk(), theirs.to_talk());
                    return Ok(Some(Difference { step: Some(index), command, ours, theirs }));
                }
            }
            from = to;
        }
        let found = self.compare_keyspaces(rules).unwrap_or_else(Some);
        let panicked = self.sides[0].server.log().contains("panicked at");
        Ok(found.or_else(|| {
            panicked.then(|| Difference {
                step: None,
                command: "a thread panicked".to_owned(),
                ours: self.sides[0].server.log(),
                theirs: String::new(),
            })
        }))
    }

    /// All libraries and keys, what these are, how they are encoded and when they expire; then the
    /// digests.
    fn compare_keyspaces(&mut self, rules: &Rules) -> Result<Option<Difference>, Difference> {
        let differ = |db: u32, args: &[&[u8]], name: &str, ours: &Value, theirs: &Value| {
            let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.to_vec()).collect();
            (!rules.alike(name, &args, ours, theirs)).then(|| Difference {
                step: None,
                command: format!("in database {db} at the end: {}", talk(&args)),
                ours: ours.to_talk(),
                theirs: theirs.to_talk(),
            })
        };
        let whole: [Vec<&[u8]>; 1] = [vec![b"DEBUG", b"DIGEST"]];
        let digests = self.ask_all(&whole)?;
        let same = digests[0] == digests[1];
        let mut is_explained = same;
        let libraries: [&[u8]; 3] = [b"FUNCTION", b"LIST", b"WITHCODE"];
        let [ours, theirs] = self.ask_all(&[libraries.to_vec()])?;
        if let Some(found) = differ(0, &libraries, "function|list", &ours[0], &theirs[0]) {
            return Ok(Some(found));
        }
        for db in 0..DBS {
            let db_text = db.to_string();
            let all: [Vec<&[u8]>; 2] = [vec![b"SELECT", db_text.as_bytes()], vec![b"KEYS", b"*"]];
            let [ours, theirs] = self.ask_all(&all)?;
            if let Some(found) = differ(db, &[b"KEYS", b"*"], "keys", &ours[1], &theirs[1]) {
                return Ok(Some(found));
            }
            let keys: Vec<&[u8]> =
                ours[1].elements().unwrap_or_default().iter().filter_map(Value::bytes).collect();
            let mut asked: Vec<(&str, Vec<&[u8]>)> = Vec::new();
            for key in keys {
                // Before a command that uses the key.
                asked.push(("object|idletime", vec![b"OBJECT", b"IDLETIME", key]));
                asked.push(("type", vec![b"TYPE", key]));
                asked.push(("object|encoding", vec![b"OBJECT", b"ENCODING", key]));
                asked.push(("pexpiretime", vec![b"PEXPIRETIME", key]));
                asked.push((
                    "xinfo|stream",
                    vec![b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"],
                ));
                if !same {
                    asked.push(("debug|digest", vec![b"DEBUG", b"DIGEST-VALUE", key]));
                }
            }
            let commands: Vec<Vec<&[u8]>> = asked.iter().map(|(_, args)| args.clone()).collect();
            let [ours, theirs] = self.ask_all(&commands)?;
            let replies = ours.iter().zip(&theirs);
            for ((name, args), (ours, theirs)) in asked.iter().zip(replies) {
                if *name == "debug|digest" {
                    if ours != theirs {
                        is_explained = true;
                        if let Some(found) = self.content(rules, db, args[2])? {
                            return Ok(Some(found));
                        }
                    }
                    continue;
                }
                if let Some(found) = differ(db, args, name, ours, theirs) {
                    return Ok(Some(found));
                }
            }
        }
        // Only what the digests of all values do not tell.
        Ok((!is_explained).then(|| Difference {
            step: None,
            command: "DEBUG DIGEST at the end".to_owned(),
            ours: digests[0][0].to_talk(),
            theirs: digests[1][0].to_talk(),
        }))
    }

    /// A value whose digests differ. Those of sorted sets do where its scores are only printed in
    /// another way.
    fn content(
        &mut self,
        rules: &Rules,
        db: u32,
        key: &[u8],
    ) -> Result<Option<Difference>, Difference> {
        let reads: [Vec<&[u8]>; 6] = [
            vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
            vec![b"GET", key],
            vec![b"LRANGE", key, b"0", b"-1"],
            vec![b"SORT", key, b"ALPHA"],
            vec![b"HGETALL", key],
            vec![b"XRANGE", key, b"-", b"+"],
        ];
        let [ours, theirs] = self.ask_all(&reads)?;
        let zrange: Vec<Vec<u8>> = reads[0].iter().map(|word| word.to_vec()).collect();
        if !ours[0].is_error() && rules.alike("zrange", &zrange, &ours[0], &theirs[0]) {
            return Ok(None);
        }
        let shown = |replies: &[Value]| {
            let fitting = replies.iter().filter(|reply| !reply.is_error());
            fitting.map(Value::to_talk).collect::<Vec<_>>().join("\n")
        };
        Ok(Some(Difference {
            step: None,
            command: format!("in database {db} at the end: the value of {}", talk(&[key.to_vec()])),
            ours: shown(&ours),
            theirs: shown(&theirs),
        }))
    }
}

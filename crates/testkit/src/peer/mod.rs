//! The differential fuzzer: random commands to Luar and to a Redis, whose replies and keyspaces
//! must be the same.
//!
//! Commands are drawn from the peer's own table (`table`), so that each of them is sent which both
//! have, and in sessions that begin with nothing (`pair`). What may differ is listed with
//! its reason (`rules`). A session that fails is shrunk to a script that a person can read
//! (`shrink`). Called by `cargo xtask fuzz-peer` and `cargo xtask test random`.

pub mod pair;
pub mod rules;
mod shrink;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::draw::{DBS, Draw, Taste};
use crate::value::Value;
use pair::{Command, Pair, Setup, Step, Wrap};
use rules::Rules;
use table::Known;

/// Steps of a session: later ones meet values that are made up of many things.
const SESSION_STEPS: usize = 600;
/// Some time of our days: the servers have real clocks, and a seed draws the same at any time.
const NOW_MS: i64 = 1_800_000_000_000;
/// These leave little to do for the commands behind them.
const SWEEPING: &[&str] = &["flushall", "flushdb", "swapdb", "function|flush"];

/// What a run is asked for.
pub struct Wish {
    /// Our binary and its arguments.
    pub ours: (PathBuf, Vec<String>),
    pub peer: PathBuf,
    /// The text of the list of differences.
    pub differences: String,
    pub seed: u64,
    /// The session to begin with, of those of the seed.
    pub session: u64,
    pub commands: u64,
    /// The run ends after so long, whatever was sent.
    pub limit: Option<Duration>,
    /// Groups or names of commands; all if empty.
    pub families: Vec<String>,
    /// After so many different failures a run is over.
    pub failures: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub commands: u64,
    pub sessions: u64,
    pub failures: usize,
    /// Commands of which none was answered without an error.
    pub never: Vec<String>,
}

/// Runs until there is something to tell of or all commands were sent; says so on the way.
pub fn run(wish: &Wish) -> Result<Outcome, String> {
    let text = |error: std::io::Error| error.to_string();
    // Strings grow to what both refuse in the same words.
    let databases = DBS.to_string();
    let bounds = ["--proto-max-bulk-len", "1mb", "--databases", &databases].map(str::to_owned);
    let (binary, args) = &wish.ours;
    let ours = (binary.clone(), [&bounds[..], args].concat());
    // Redis shares small integers, with the times of their last use, unless it is to evict by these.
    let own = ["--maxmemory", "1000gb", "--maxmemory-policy", "volatile-lru"].map(str::to_owned);
    let theirs = (wish.peer.clone(), [&bounds[..], &own].concat());
    let mut pair = Pair::start(ours, theirs).map_err(text)?;
    let [mut ours, mut theirs] = pair.clients().map_err(text)?;
    let info = theirs.call(&["INFO", "server"]).map_err(|error| error.to_string())?;
    let version = version(&info.text().unwrap_or_default());
    let rules = Rules::parse(&wish.differences, &version)?;
    let known_here: BTreeSet<String> =
        table::of(&mut ours)?.into_iter().map(|known| known.name).collect();
    let mut table = table::of(&mut theirs)?;
    table.retain(|known| known_here.contains(&known.name) && !rules.skip_all(&known.name));
    let families = &wish.families;
    let is_wanted = |name: &String| families.iter().any(|family| name.starts_with(family));
    table.retain(|known| {
        families.is_empty() || families.contains(&known.shape.group) || is_wanted(&known.name)
    });
    if table.is_empty() {
        return Err("no command is left to draw".to_owned());
    }
    println!("{} commands of {version}, seed {}", table.len(), wish.seed);
    let mut fuzzer = Fuzzer { rules, table, payloads: Vec::new(), succeeded: BTreeMap::new() };
    fuzzer.gather_payloads(&mut pair, wish.seed)?;
    fuzzer.run(&mut pair, wish)
}

/// `7.0.15`, or `valkey-8.0.1`.
fn version(info: &str) -> String {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    let valkey = field("valkey_version:").map(|version| format!("valkey-{}", version.trim()));
    valkey.or_else(|| field("redis_version:").map(|v| v.trim().to_owned())).unwrap_or_default()
}

struct Fuzzer {
    rules: Rules,
    table: Vec<Known>,
    /// What the peer answered to DUMP.
    payloads: Vec<Vec<u8>>,
    succeeded: BTreeMap<String, u64>,
}

impl Fuzzer {
    fn run(&mut self, pair: &mut Pair, wish: &Wish) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let begun = Instant::now();
        let mut told = begun;
        let mut met: BTreeSet<String> = BTreeSet::new();
        let is_late = || wish.limit.is_some_and(|limit| begun.elapsed() > limit);
        while outcome.commands < wish.commands && !is_late() {
            let session = wish.session + outcome.sessions;
            let (setup, steps) = self.session(wish.seed, session);
            outcome.sessions += 1;
            let succeeded = &mut self.succeeded;
            let mut sent = 0;
            let found = pair.run(&self.rules, setup, &steps, |step, replies| {
                sent += step.commands.len() as u64;
                count(succeeded, step, replies);
            })?;
            outcome.commands += sent;
            if let Some(difference) = found {
                let shrunk = shrink::shrink(pair, &self.rules, setup, steps, difference)?;
                pair.be_patient();
                let last = shrunk.steps.last().and_then(|step| step.commands.last());
                let name = last.map_or("", |command| command.name.as_str());
                // The same mistake is met again and again.
                let sign = match &shrunk.difference {
                    found if found.step.is_some() => format!("{name} {}", found.theirs),
                    found => format!("{name} {}", found.command),
                };
                if met.insert(sign) {
                    outcome.failures += 1;
                    println!("{}", tell(&shrunk, wish.seed, session));
                }
                if outcome.failures >= wish.failures {
                    break;
                }
            }
            if told.elapsed() > Duration::from_secs(20) {
                told = Instant::now();
                let rate = outcome.commands as f64 / begun.elapsed().as_secs_f64();
                println!("{} commands, {rate:.0} per second", outcome.commands);
            }
        }
        let never = self.table.iter().map(|known| known.name.clone());
        outcome.never = never.filter(|name| !self.succeeded.contains_key(name)).collect();
        Ok(outcome)
    }

    /// A session of the seed, the same whenever it is asked for.
    fn session(&self, seed: u64, session: u64) -> (Setup, Vec<Step>) {
        let mut rng =
            Rng::with_seed(seed.wrapping_add(session.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let setup = Setup { resp3: rng.u8(..3) == 0, tiny: rng.u8(..3) == 0 };
        let steps = (0..SESSION_STEPS).map(|_| self.step(&mut rng, setup)).collect();
        (setup, steps)
    }

    fn step(&self, rng: &mut Rng, setup: Setup) -> Step {
        let wrap = match rng.u8(..11) {
            0 => Wrap::Multi,
            1 => Wrap::Eval,
            3 if rng.bool() => Wrap::Fcall,
            3 => Wrap::FcallRo,
            // To other clients its maps could not be told from lists.
            2 if setup.resp3 => Wrap::Eval3,
            2 => Wrap::Eval,
            _ => Wrap::Plain,
        };
        let count = match wrap {
            Wrap::Plain => 1,
            _ => rng.usize(1..5),
        };
        let mut commands = Vec::new();
        while commands.len() < count {
            commands.extend(self.command(rng, wrap));
        }
        let has_to_wait = |command: &Command| command.blocks;
        let wrap = match wrap {
            Wrap::Plain if commands.iter().any(has_to_wait) => Wrap::Multi,
            wrap => wrap,
        };
        Step { wrap, commands }
    }

    fn command(&self, rng: &mut Rng, wrap: Wrap) -> Option<Command> {
        let known = &self.table[rng.usize(..self.table.len())];
        if SWEEPING.contains(&known.name.as_str()) && rng.u8(..20) > 0 {
            return None;
        }
        if known.no_script && wrap.is_script() {
            return None;
        }
        let mut payload = |rng: &mut Rng| match self.payloads.len() {
            0 => b"\x00\x01x\x0a\x00".to_vec(),
            len => {
                let mut payload = self.payloads[rng.usize(..len)].clone();
                if rng.u8(..10) == 0 {
                    let at = rng.usize(..payload.len());
                    payload[at] ^= 1 << rng.u8(..8);
                }
                payload
            }
        };
        let taste = Taste::Steady;
        let mut draw = Draw { rng, now_ms: NOW_MS, taste, payload: &mut payload };
        let mut args = draw.command(&known.shape);
        let words = known.shape.words.len();
        // Mistakes of those who write commands.
        match rng.u8(..60) {
            0 if args.len() > words => drop(args.remove(rng.usize(words..args.len()))),
            1 if args.len() > words => {
                let at = rng.usize(words..args.len());
                args.insert(at, args[at].clone());
            }
            2 if args.len() > words + 1 => {
                let other = rng.usize(words..args.len());
                args.swap(words, other);
            }
            _ => {}
        }
        if self.rules.skip(&known.name, &args) {
            return None;
        }
        let waits = |arg: &Vec<u8>| arg.eq_ignore_ascii_case(b"BLOCK");
        let blocks = known.blocks && (!known.name.starts_with("xread") || args.iter().any(waits));
        // Redis has an error of its own for XREAD there, and the key would not be read.
        if blocks && known.name.starts_with("xread") && wrap.is_script() {
            return None;
        }
        Some(Command { name: known.name.clone(), args, blocks })
    }

    /// Values of all types as the peer dumps them, after a session that nobody compares.
    fn gather_payloads(&mut self, pair: &mut Pair, seed: u64) -> Result<(), String> {
        let [_, mut theirs] = pair.clients().map_err(|error| error.to_string())?;
        let mut call = |args: &[Vec<u8>]| theirs.call(args).map_err(|error| error.to_string());
        let words = |line: &str| line.split(' ').map(|word| word.into()).collect::<Vec<Vec<u8>>>();
        let mut rng = Rng::with_seed(seed);
        for _ in 0..2 {
            for _ in 0..SESSION_STEPS {
                if let Some(command) = self.command(&mut rng, Wrap::Plain)
                    && !command.blocks
                {
                    call(&command.args)?;
                }
            }
            let mut keys: Vec<Vec<u8>> = match call(&words("KEYS *"))? {
                Value::Array(keys) => {
                    keys.iter().filter_map(|k| Some(k.bytes()?.to_vec())).collect()
                }
                _ => Vec::new(),
            };
            keys.sort();
            for key in keys {
                if let Value::Bulk(payload) = call(&[b"DUMP".to_vec(), key])?
                    && payload.len() < 4096
                {
                    self.payloads.push(payload);
                }
            }
            if let Value::Bulk(payload) = call(&words("FUNCTION DUMP"))? {
                self.payloads.push(payload);
            }
            call(&words("FLUSHALL"))?;
        }
        Ok(())
    }
}

/// Notes which commands were answered without an error.
fn count(succeeded: &mut BTreeMap<String, u64>, step: &Step, replies: &[Value]) {
    let replies = match step.wrap {
        Wrap::Plain => replies,
        _ => replies.last().and_then(Value::elements).unwrap_or_default(),
    };
    for (command, reply) in step.commands.iter().zip(replies) {
        if !reply.is_error() {
            match succeeded.get_mut(&command.name) {
                Some(count) => *count += 1,
                None => drop(succeeded.insert(command.name.clone(), 1)),
            }
        }
    }
}

/// A failure as a talk file would have it.
fn tell(shrunk: &shrink::Shrunk, seed: u64, session: u64) -> String {
    let mut lines = vec![format!("== they differ: --seed {seed} --session {session}")];
    let found = &shrunk.difference;
    lines.extend(shrunk.setup.to_talk());
    lines.extend(shrunk.steps.iter().flat_map(Step::to_talk));
    lines.push(format!("-- {}", found.command));
    lines.push(format!("-- ours:\n{}", found.ours));
    lines.push(format!("-- peer:\n{}\n", found.theirs));
    lines.join("\n")
}

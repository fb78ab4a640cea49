//! What one run of a script measures of the commands it calls.
//!
//! Reading the clock twice takes about as long as a small command, so few calls are timed: all
//! those of a sampled run, those of commands that may take long, and the first thousand after each
//! tick of a run that lasts.

use engine::Engine;
use hashbrown::HashSet;

use crate::table::{Registered, table};

/// Calls timed behind each tick, which comes every 10 ms.
const TIMED_AFTER_TICK: u32 = 1000;
/// Different keys counted of one run.
const KEYS_MAX: usize = 10_000;
/// A call that is the slowest so far is remembered with its arguments if it takes so long.
const NOTABLE_NS: u64 = 50_000;
/// As much of them as is remembered.
const TEXT_BYTES_MAX: usize = 160;

/// Commands whose arguments do not tell how long they may take.
const LONG: &[&str] = &[
    "copy",
    "dbsize",
    "flushall",
    "flushdb",
    "getrange",
    "hgetall",
    "hkeys",
    "hrandfield",
    "hscan",
    "hvals",
    "keys",
    "lcs",
    "linsert",
    "lpop",
    "lpos",
    "lmpop",
    "lrange",
    "lrem",
    "ltrim",
    "publish",
    "rpop",
    "scan",
    "sdiff",
    "sdiffstore",
    "setrange",
    "sinter",
    "sintercard",
    "sinterstore",
    "smembers",
    "spop",
    "srandmember",
    "sscan",
    "sunion",
    "sunionstore",
    "swapdb",
    "zdiff",
    "zdiffstore",
    "zinter",
    "zintercard",
    "zinterstore",
    "zmpop",
    "zpopmax",
    "zpopmin",
    "zrandmember",
    "zrange",
    "zrangebylex",
    "zrangebyscore",
    "zrangestore",
    "zremrangebylex",
    "zremrangebyrank",
    "zremrangebyscore",
    "zrevrange",
    "zrevrangebylex",
    "zrevrangebyscore",
    "zscan",
    "zunion",
    "zunionstore",
];

/// Whether calls of a command are always timed.
pub fn may_be_long(full_name: &str) -> bool {
    LONG.contains(&full_name)
}

/// What a sampled run measures.
#[derive(Default)]
pub struct Sample {
    /// Of all its calls.
    pub ns: u64,
    /// Hashes of the keys that were given to commands.
    pub keys: HashSet<u64>,
}

/// The longest call that was timed.
pub struct Slowest {
    pub ns: u64,
    pub command: usize,
    /// With its arguments, if it was long enough.
    text: String,
}

#[derive(Default)]
pub struct Meter {
    /// Calls that ran a command, told at the end of the run.
    pub commands: u64,
    pub sample: Option<Box<Sample>>,
    timed_left: u32,
    slowest: Option<Slowest>,
}

impl Meter {
    pub fn new(is_sampled: bool) -> Meter {
        Meter { sample: is_sampled.then(Box::default), ..Meter::default() }
    }

    /// Whether the next call is to be timed whatever it is.
    pub fn times_all(&self) -> bool {
        self.timed_left > 0 || self.sample.is_some()
    }

    /// The run lasts.
    pub fn tick(&mut self) {
        self.timed_left = TIMED_AFTER_TICK;
    }

    /// A call that was timed.
    pub fn note(
        &mut self,
        engine: &Engine,
        db: u32,
        command: &Registered,
        args: &[&[u8]],
        ns: u64,
    ) {
        self.timed_left = self.timed_left.saturating_sub(1);
        if let Some(sample) = &mut self.sample {
            sample.ns += ns;
            if sample.keys.len() < KEYS_MAX
                && let Ok(positions) = command.row.key_positions(args)
            {
                // The call may have had too few arguments.
                let keys = positions.iter().filter_map(|at| args.get(*at));
                let name = |key: &&[u8]| engine.hash(key).wrapping_add(u64::from(db));
                sample.keys.extend(keys.map(name));
            }
        }
        if self.slowest.as_ref().is_none_or(|slowest| ns > slowest.ns) {
            let text = if ns >= NOTABLE_NS { text_of(args) } else { String::new() };
            self.slowest = Some(Slowest { ns, command: command.id, text });
        }
    }

    pub fn slowest(&self) -> Option<&Slowest> {
        self.slowest.as_ref()
    }

    /// For the slow log.
    pub fn describe(&self, script: &str) -> String {
        let plural = if self.commands == 1 { "" } else { "s" };
        let mut text = format!("... (script {script}: {} command{plural}", self.commands);
        if let Some(slowest) = &self.slowest {
            let name = table().all[slowest.command].full_name;
            let what = if slowest.text.is_empty() { name } else { &slowest.text };
            text += &format!("; slowest {} us: {what}", slowest.ns / 1000);
        }
        text + ")"
    }
}

fn text_of(args: &[&[u8]]) -> String {
    let mut text = String::new();
    for arg in args {
        let left = TEXT_BYTES_MAX.saturating_sub(text.len() + 1);
        if left == 0 {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(String::from_utf8_lossy(&arg[..arg.len().min(left)]).escape_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_commands() {
        for name in LONG {
            let command = table().by_name(name.as_bytes());
            assert!(command.is_some_and(|command| command.may_be_long), "{name}");
        }
    }

    #[test]
    fn a_run_tells_its_slowest_call_and_its_keys() {
        let engine = Engine::new(1);
        let mut meter = Meter::new(true);
        let get = table().by_name(b"get").unwrap();
        let mget = table().by_name(b"mget").unwrap();
        meter.note(&engine, 0, get, &[b"GET", b"a"], 900);
        meter.note(&engine, 0, mget, &[b"MGET", b"a", b"b\n"], 60_000);
        meter.note(&engine, 0, get, &[b"GET", b"c"], 900);
        meter.note(&engine, 1, get, &[b"GET", b"c"], 900);
        meter.note(&engine, 0, get, &[b"GET"], 900);
        meter.commands = 4;
        assert_eq!(meter.sample.as_ref().unwrap().ns, 63_600);
        assert_eq!(meter.sample.as_ref().unwrap().keys.len(), 4);
        let text = "... (script x: 4 commands; slowest 60 us: MGET a b\\n)";
        assert_eq!(meter.describe("x"), text);
    }

    #[test]
    fn ticks_have_some_calls_timed() {
        let get = table().by_name(b"get").unwrap();
        let engine = Engine::new(1);
        let mut meter = Meter::new(false);
        assert!(!meter.times_all());
        meter.tick();
        let timed = std::iter::repeat_with(|| {
            let times = meter.times_all();
            meter.note(&engine, 0, get, &[b"GET", b"a"], 5);
            times
        });
        assert_eq!(timed.take(5000).filter(|times| *times).count(), TIMED_AFTER_TICK as usize);
    }

    #[test]
    fn long_arguments_are_cut() {
        let text = text_of(&[b"SET", &[b'x'; 500], b"more"]);
        assert_eq!(text.len(), TEXT_BYTES_MAX);
    }
}

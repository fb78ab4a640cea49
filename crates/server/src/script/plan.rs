//! Which locks a script begins with, and what is remembered of how that went.
//!
//! A script begins with the shards of its KEYS and takes others as it touches them; one that
//! cannot have a lock is rolled back and run again under an exclusive plan. Scripts that keep
//! doing so begin with that one, and try the other way every so often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use engine::{Counter, Plan};
use lua::{Script, Sha};

use super::{Ended, Obstacle, ScriptStats};
use crate::config::ScriptAtomicity;
use crate::dispatch;
use crate::table::Registered;
use crate::worker::{Shift, WorkerLoop};

/// Runs that begin exclusive after so many restarts that few runs without one lie between. One
/// restart may be chance.
const PENALTIES: [u32; 6] = [0, 0, 8, 32, 128, 512];

/// How long, ms, a script that took too long to run from within another one is not tried that way
/// again: it wastes the length of the leash and a new VM at most so often.
const NEST_PAUSE_MS: i64 = 1000;

/// A script the server knows, with what it has learned about it.
pub struct Known {
    pub script: Script,
    pub stats: ScriptStats,
    /// It came as number so many.
    pub number: u64,
    /// Restarts lately.
    streak: AtomicU32,
    /// So many further runs begin exclusive.
    penalty: AtomicU32,
    /// Twice the number of the newest script when it was last used, and one more; or twice its own.
    last_use: AtomicU64,
    /// SCRIPT LOAD has asked for it: it is not evicted.
    stays: AtomicBool,
    /// From when on, Unix ms, it may run from within other scripts.
    nests_from_ms: AtomicI64,
    /// It was evicted or flushed.
    is_gone: AtomicBool,
}

impl Known {
    pub fn new(script: Script, number: u64, stats: ScriptStats) -> Known {
        Known {
            script,
            stats,
            number,
            streak: AtomicU32::new(0),
            penalty: AtomicU32::new(0),
            last_use: AtomicU64::new(2 * number),
            stays: AtomicBool::new(false),
            nests_from_ms: AtomicI64::new(0),
            is_gone: AtomicBool::new(false),
        }
    }

    /// The cache knows it no more.
    pub(super) fn set_gone(&self) {
        self.is_gone.store(true, Ordering::Release);
    }

    /// What it takes in the cache.
    pub fn bytes(&self) -> u64 {
        let own = self.script.used_bytes() + size_of::<Known>() - size_of::<Script>();
        (own + self.stats.bytes()) as u64
    }

    pub(super) fn never_ran(&self) -> bool {
        self.stats.is_empty()
    }

    pub fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// Has it stay. False when it did already.
    pub(super) fn set_stays(&self) -> bool {
        !self.stays.swap(true, Ordering::Relaxed)
    }

    pub(super) fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }

    /// Workers that use the same scripts all the time write nothing here.
    pub(super) fn note_use(&self, now: u64) {
        if self.last_use.load(Ordering::Relaxed) != now {
            self.last_use.store(now, Ordering::Relaxed);
        }
    }

    // Updates of two workers may overwrite each other, which only makes the guess a worse one.

    /// Whether its next run had better begin exclusive. Counts that run.
    fn takes_penalty(&self) -> bool {
        let penalty = self.penalty.load(Ordering::Relaxed);
        if penalty > 0 {
            self.penalty.store(penalty - 1, Ordering::Relaxed);
        }
        penalty > 0
    }

    /// Whether it has lately taken too long to run from within another script.
    fn is_too_long_to_nest(&self, now_ms: i64) -> bool {
        let from_ms = self.nests_from_ms.load(Ordering::Relaxed);
        // A clock that was set back does not count.
        now_ms < from_ms && from_ms - now_ms <= NEST_PAUSE_MS
    }

    fn note_restart(&self) {
        let streak = self.streak.load(Ordering::Relaxed) + 1;
        let streak = streak.min(PENALTIES.len() as u32 - 1);
        self.streak.store(streak, Ordering::Relaxed);
        self.penalty.store(PENALTIES[streak as usize], Ordering::Relaxed);
    }

    fn note_success(&self) {
        let streak = self.streak.load(Ordering::Relaxed);
        if streak > 0 {
            self.streak.store(streak - 1, Ordering::Relaxed);
        }
    }
}

/// The script that a worker ran last by its SHA1. It is the next one more often than not, and is
/// found here without touching what workers share.
pub struct Recent(pub Arc<Known>);

impl Recent {
    /// Takes it out if these are its digits and it is still kept.
    fn take(lp: &WorkerLoop, digits: &[u8]) -> Option<Arc<Known>> {
        let Recent(known) = lp.recent_script.take()?;
        let is_it = known.script.sha_digits() == digits && !known.is_gone.load(Ordering::Acquire);
        is_it.then(|| {
            lp.server.scripts.cache.note_use(&known);
            known
        })
    }
}

/// How the scripts of one worker ran.
#[derive(Default)]
#[repr(align(128))]
pub struct Runs {
    /// Beside others, from beginning to end.
    pub parallel: Counter,
    /// Begun beside others, and then rolled back and run again.
    pub restarts: Counter,
    /// With the whole keyspace: restarted ones, those in EXEC, and all in isolation mode.
    pub exclusive: Counter,
    /// Of the parallel ones: from within another script of the worker.
    pub nested: Counter,
    /// Begun from within another script, and then rolled back and run again.
    pub unleashed: Counter,
}

impl Runs {
    /// Counts a run that came to its end, or to where it has to begin again.
    pub fn note(
        &self,
        script: &Known,
        is_exclusive: bool,
        is_nested: bool,
        ended: Ended,
        now_ms: i64,
    ) {
        match ended {
            Ended::Postponed => {
                self.unleashed.add(1);
                script.nests_from_ms.store(now_ms + NEST_PAUSE_MS, Ordering::Relaxed);
            }
            Ended::Restarts => {
                self.restarts.add(1);
                script.note_restart();
            }
            Ended::Answered if is_exclusive => self.exclusive.add(1),
            Ended::Answered => {
                self.parallel.add(1);
                self.nested.add(u64::from(is_nested));
                script.note_success();
            }
        }
    }
}

/// The locks that a command of the EVAL or FCALL family begins with, and its script if the server knows it
/// already. The error is what keeps it from beginning.
pub fn plan(
    lp: &WorkerLoop,
    shift: &Shift,
    command: &Registered,
    args: &[&[u8]],
    is_restarted: bool,
) -> Result<(Plan, Option<Arc<Known>>), Obstacle> {
    if shift.config.script_atomicity == ScriptAtomicity::Isolation || is_restarted {
        return Ok((Plan::Exclusive, None));
    }
    let cache = &lp.server.scripts.cache;
    let by_sha = |digits| parse_sha(digits).and_then(|sha| cache.get(&sha));
    let by_source = |source| cache.get(&lua::sha_of(source));
    let script = match command.row.name {
        "evalsha" | "evalsha_ro" => Recent::take(lp, args[1]).or_else(|| by_sha(args[1])),
        "fcall" | "fcall_ro" => lp.server.scripts.functions.find(args[1]),
        "dryrun" if command.full_name == "function|dryrun" => {
            lp.server.scripts.functions.find(args[2])
        }
        "dryrun" => by_sha(args[2]).or_else(|| by_source(args[2])),
        _ => by_source(args[1]),
    };
    let watch = &lp.server.scripts.watch;
    if let Some(known) = &script {
        if lp.is_pinned() && known.is_too_long_to_nest(lp.now_ms()) {
            return Err(Obstacle::Vm);
        }
        // Behind a long script it would wait for that one, and beside it it may have luck.
        if !watch.is_long() && known.takes_penalty() {
            return Ok((Plan::Exclusive, script));
        }
    }
    if watch.is_waited_for() {
        return Err(Obstacle::Turn);
    }
    Ok((dispatch::plan(&lp.server.engine, command.row, args), script))
}

/// Whether the script of a command of the EVAL or FCALL family declares that it changes nothing.
pub fn only_reads(lp: &WorkerLoop, command: &Registered, args: &[&[u8]]) -> bool {
    let scripts = &lp.server.scripts;
    let flags = |known: Arc<Known>| known.script.flags();
    let flags = match command.full_name {
        "eval" => lua::Flags::of(args[1]),
        "evalsha" => parse_sha(args[1]).and_then(|sha| scripts.cache.get(&sha)).map(flags),
        "fcall" => scripts.functions.find(args[1]).map(flags),
        _ => None,
    };
    flags.is_some_and(|flags| flags.no_writes)
}

/// Forty hexadecimal digits in any case.
pub fn parse_sha(digits: &[u8]) -> Option<Sha> {
    let mut sha = Sha::default();
    if digits.len() != 2 * sha.len() {
        return None;
    }
    for (byte, pair) in sha.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(sha)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let mut vm = lua::Vm::new(lua::VmOptions::default());
        let stats = ScriptStats::new(1, crate::script::Gone::default());
        Known::new(vm.compile(b"return 1").unwrap(), 1, stats)
    }

    /// Runs until the script begins beside others again; answers how many did not.
    fn exclusive_runs(script: &Known) -> usize {
        std::iter::repeat_with(|| script.takes_penalty()).take_while(|penalty| *penalty).count()
    }

    #[test]
    fn scripts_that_keep_restarting_begin_exclusive_and_try_again() {
        let script = known();
        let runs: Vec<usize> = std::iter::repeat_with(|| {
            script.note_restart();
            exclusive_runs(&script)
        })
        .take(6)
        .collect();
        assert_eq!(runs, [0, 8, 32, 128, 512, 512]);
    }

    #[test]
    fn a_restart_now_and_then_is_forgiven() {
        let script = known();
        for _ in 0..100 {
            script.note_restart();
            assert_eq!(exclusive_runs(&script), 0);
            script.note_success();
        }
    }
}

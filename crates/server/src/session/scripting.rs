//! EVAL, EVALSHA, SCRIPT.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use command::call::is;
use command::keys::{KeySpec, key_flag as k};
use command::row::flag::{
    ALLOW_BUSY, MAY_REPLICATE, MOVABLE_KEYS, NO_MANDATORY_KEYS, NOSCRIPT, READONLY, SCRIPT,
    SKIP_MONITOR, STALE,
};
use command::{Command, Error, Group, Result};

use crate::dispatch;
use crate::request::{Request, SessionHandler, row};
use crate::script::{self, Brought, Ended, KillError, Killed, Known, parse_sha};
use crate::session::{dry_run, monitor, script_report};

const GROUP: Group = Group::Scripting;
const EVAL: u32 =
    NOSCRIPT | SKIP_MONITOR | MAY_REPLICATE | NO_MANDATORY_KEYS | STALE | MOVABLE_KEYS | SCRIPT;
const EVAL_RO: u32 =
    NOSCRIPT | SKIP_MONITOR | NO_MANDATORY_KEYS | STALE | READONLY | MOVABLE_KEYS | SCRIPT;
const COST: &str = "Depends on the script that is executed.";

const KEYS_RW: &[KeySpec] = &[KeySpec::counted(2, k::RW | k::ACCESS | k::UPDATE)
    .notes("We cannot tell how the keys will be used so we assume the worst, RW and UPDATE")];
const KEYS_RO: &[KeySpec] = &[KeySpec::counted(2, k::RO | k::ACCESS)
    .notes("We cannot tell how the keys will be used so we assume the worst, RO and ACCESS")];

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "eval", -3, eval)
        .flags(EVAL)
        .keys(KEYS_RW)
        .since("2.6.0")
        .complexity(COST)
        .summary("Runs a Lua script as one transaction.")
        .syntax("script numkeys [key [key ...]] [arg [arg ...]]"),
    row(GROUP, "evalsha", -3, evalsha)
        .flags(EVAL)
        .keys(KEYS_RW)
        .since("2.6.0")
        .complexity(COST)
        .summary("Runs a Lua script that the server knows by its SHA1.")
        .syntax("sha1 numkeys [key [key ...]] [arg [arg ...]]"),
    row(GROUP, "eval_ro", -3, eval_ro)
        .flags(EVAL_RO)
        .keys(KEYS_RO)
        .since("7.0.0")
        .complexity(COST)
        .summary("Runs a Lua script that may not write.")
        .syntax("script numkeys [key [key ...]] [arg [arg ...]]"),
    row(GROUP, "evalsha_ro", -3, evalsha_ro)
        .flags(EVAL_RO)
        .keys(KEYS_RO)
        .since("7.0.0")
        .complexity(COST)
        .summary("Runs a known Lua script that may not write.")
        .syntax("sha1 numkeys [key [key ...]] [arg [arg ...]]"),
    Command::container(
        GROUP,
        "script",
        -2,
        &[
            row(GROUP, "load", 3, load)
                .flags(NOSCRIPT | STALE)
                .since("2.6.0")
                .complexity("O(N) in the length of the script")
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .summary("Keeps a Lua script for EVALSHA.")
                .syntax("script"),
            row(GROUP, "exists", -3, exists)
                .flags(NOSCRIPT)
                .since("2.6.0")
                .complexity("O(N) in the scripts asked for")
                .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"])
                .summary("Says which scripts the server knows.")
                .syntax("sha1 [sha1 ...]"),
            row(GROUP, "flush", -2, flush)
                .flags(NOSCRIPT)
                .since("2.6.0")
                .complexity("O(N) in the scripts kept")
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .history(&[("6.2.0", "Added the `ASYNC` and `SYNC` flushing mode modifiers.")])
                .summary("Forgets all scripts.")
                .syntax("[flush-type:(ASYNC | SYNC)]"),
            row(GROUP, "kill", 2, kill)
                .flags(NOSCRIPT | ALLOW_BUSY)
                .since("2.6.0")
                .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
                .summary("Ends the script that runs now."),
            row(GROUP, "debug", 3, debug)
                .flags(NOSCRIPT)
                .since("3.2.0")
                .summary("Chooses how EVAL is debugged.")
                .syntax("mode:(YES | SYNC | NO)"),
            row(GROUP, "dryrun", -4, dry_run::dryrun)
                .flags(NOSCRIPT | NO_MANDATORY_KEYS | MOVABLE_KEYS | SCRIPT)
                .keys(&[KeySpec::counted(3, k::RO | k::ACCESS)])
                .since("7.2.4")
                .complexity(COST)
                .summary("Runs a script, says what it would change, and undoes it.")
                .syntax("script numkeys [key [key ...]] [arg [arg ...]]"),
            row(GROUP, "list", -2, script_report::list)
                .flags(NOSCRIPT | STALE | ALLOW_BUSY)
                .since("7.2.4")
                .complexity("O(N*log(N)) in the scripts kept")
                .tips(&["nondeterministic_output"])
                .summary("Lists the scripts the server knows.")
                .syntax("[cursor] [COUNT count]"),
            row(GROUP, "show", 3, script_report::show)
                .flags(NOSCRIPT)
                .since("8.0.0")
                .complexity("O(1) by sha, O(N) in the scripts kept by name")
                .summary("Shows the source of a script.")
                .syntax("script:(sha1 | name)"),
            row(GROUP, "stats", -2, script_report::stats)
                .flags(NOSCRIPT | STALE | ALLOW_BUSY)
                .since("7.2.4")
                .complexity("O(1) for a script by its sha, O(N*log(N)) in the scripts kept for all")
                .tips(&["nondeterministic_output"])
                .summary("Tells how often scripts ran, for how long and with what outcome.")
                .syntax("[script:(sha1 | name)] [RESET]"),
            row(GROUP, "help", 2, help)
                .flags(command::row::flag::LOADING | STALE)
                .since("5.0.0")
                .summary("Says what SCRIPT can do."),
        ],
    )
    .categories(0)
    .since("2.6.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about kept scripts."),
];

/// Runs a script with the keys and arguments of EVAL.
fn run(
    request: &mut Request<'_, '_>,
    args: &[&[u8]],
    read_only: bool,
    find: impl FnOnce(&mut Request<'_, '_>) -> Result<Arc<Known>>,
) -> Result {
    let keys = key_count(args[2], &args[3..])?;
    let found = request.lp.found_script.take();
    let script = match found {
        Some(script) => script,
        None => find(request)?,
    };
    run_known(request, args, read_only, script, keys)
}

/// Runs a script with so many keys.
pub(super) fn run_known(
    request: &mut Request<'_, '_>,
    args: &[&[u8]],
    read_only: bool,
    script: Arc<Known>,
    keys: usize,
) -> Result {
    let (keys, values) = args[3..].split_at(keys);
    let flags = script.script.flags();
    if flags.declared && !flags.no_writes {
        may_write(request, read_only, flags.allow_oom)?;
    }
    // Shown before the calls it makes, though its row says that MONITOR skips it.
    if request.lp.server.monitor_count.load(Ordering::Relaxed) > 0 {
        let info = &request.client.info;
        monitor::show(request.lp, &info.address, request.client.db, args);
    }
    let mut out = request.lp.script_reply.take();
    let ended = script::run(
        request.lp,
        request.shift,
        request.client,
        request.txn,
        script,
        keys,
        values,
        args[0],
        read_only,
        request.origin,
        &mut out,
    );
    request.lp.script_ended.set(ended);
    if ended == Ended::Answered {
        request.reply.raw(&out);
    }
    if out.capacity() <= SPARE_BYTES_MAX {
        out.clear();
        request.lp.script_reply.set(out);
    }
    Ok(())
}

/// Refuses a script that has declared that it writes, where nobody may.
fn may_write(request: &Request<'_, '_>, read_only: bool, allow_oom: bool) -> Result {
    if !allow_oom && dispatch::is_over_memory_limit(request.shift) {
        return Err(Error::OOM);
    }
    if let Some(error) = request.server().durability.refuses_writes(request.config()) {
        return Err(error);
    }
    match read_only {
        true => Err(Error::of("ERR Can not execute a script with write flag using *_ro command.")),
        false => Ok(()),
    }
}

/// A buffer larger than this is not kept for the next reply.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// How many of the arguments behind their number are keys.
pub fn key_count(numkeys: &[u8], args: &[&[u8]]) -> Result<usize> {
    let count = command::call::integer(numkeys)?;
    if count > args.len() as i64 {
        return Err(Error::of("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| Error::of("ERR Number of keys can't be negative"))
}

pub(super) fn by_source(request: &mut Request<'_, '_>, source: &[u8]) -> Result<Arc<Known>> {
    script::load(request.lp, request.shift, source, Brought::ByEval)
}

pub(super) fn by_sha(request: &mut Request<'_, '_>, digits: &[u8]) -> Result<Arc<Known>> {
    parse_sha(digits)
        .and_then(|sha| request.lp.server.scripts.cache.get(&sha))
        .ok_or(Error::NO_SCRIPT)
}

fn eval(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    run(request, args, false, |request| by_source(request, args[1]))
}

fn eval_ro(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    run(request, args, true, |request| by_source(request, args[1]))
}

fn evalsha(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    run(request, args, false, |request| by_sha(request, args[1]))
}

fn evalsha_ro(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    run(request, args, true, |request| by_sha(request, args[1]))
}

fn load(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let script = script::load(request.lp, request.shift, args[2], Brought::ToStay)?;
    request.reply.bulk(script.script.sha_hex().as_bytes());
    Ok(())
}

fn exists(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    request.reply.array(args.len() - 2);
    for digits in &args[2..] {
        let cache = &request.server().scripts.cache;
        let is_known = parse_sha(digits).is_some_and(|sha| cache.contains(&sha));
        request.reply.integer(i64::from(is_known));
    }
    Ok(())
}

fn flush(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    match &args[2..] {
        [] => {}
        [mode] if is(mode, "SYNC") || is(mode, "ASYNC") => {}
        _ => return Err(Error::of("ERR SCRIPT FLUSH only support SYNC|ASYNC option")),
    }
    request.lp.server.scripts.cache.flush();
    request.reply.ok();
    Ok(())
}

fn kill(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    kill_running(request, Killed::Scripts)
}

/// SCRIPT KILL and FUNCTION KILL.
pub(super) fn kill_running(request: &mut Request<'_, '_>, what: Killed) -> Result {
    match request.lp.server.scripts.watch.kill(what) {
        Ok(()) => request.reply.ok(),
        Err(KillError::Other) => {
            return Err(match what {
                Killed::Scripts => dispatch::BUSY_FUNCTION,
                Killed::Functions => dispatch::BUSY,
            });
        }
        Err(KillError::NotBusy) => {
            return Err(Error::of("NOTBUSY No scripts in execution right now."));
        }
        Err(KillError::HasWritten) => {
            return Err(Error::of(
                "UNKILLABLE Sorry the script already executed write commands against the \
                 dataset. You can either wait the script termination or kill the server in a \
                 hard way using the SHUTDOWN NOSAVE command.",
            ));
        }
    }
    Ok(())
}

fn debug(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if is(args[2], "NO") {
        request.reply.ok();
        return Ok(());
    }
    if is(args[2], "YES") || is(args[2], "SYNC") {
        return Err(Error::of("ERR the Lua debugger is not part of this version"));
    }
    Err(Error::of("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "SCRIPT",
        &[
            "DEBUG (YES|SYNC|NO)",
            "    How EVAL is debugged; only NO in this version.",
            "DRYRUN <script|sha1> <numkeys> [<key> ...] [<arg> ...]",
            "    Run a script, say what it would change and publish, and undo it.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Which of these scripts are kept.",
            "FLUSH [ASYNC|SYNC]",
            "    Forget all scripts.",
            "KILL",
            "    End the script that runs for longest; what it did is undone. In isolation mode it is",
            "    refused if the script has written.",
            "LIST [<cursor>] [COUNT <count>]",
            "    The scripts that are kept, in the order they came in.",
            "LOAD <script>",
            "    Keep a script without running it.",
            "SHOW <sha1>|<name>",
            "    The source of a script.",
            "STATS [<sha1>|<name>] [RESET]",
            "    What is counted of a script, or of all; or begin to count anew.",
        ],
    );
    Ok(())
}

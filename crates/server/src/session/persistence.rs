//! SAVE, BGSAVE, LASTSAVE, SHUTDOWN, WAIT, WAITAOF: what a client can ask of the files, and of
//! replicas, which there are none of.

use command::call::{integer, integer_within, is};
use command::row::category;
use command::row::flag::{
    ADMIN, ALLOW_BUSY, BLOCKING, FAST, LOADING, NO_ASYNC_LOADING, NO_MULTI, NOSCRIPT, STALE,
};
use command::{Blocking, Command, Error, Group, OnTimeout, Result, Scope, Wait};
use resp::Reply;

use crate::config::ScriptAtomicity;
use crate::durability::save;
use crate::request::{Origin, Request, SessionHandler, row};
use crate::server::{AtRest, Server, ShutdownHow};
use crate::session::migrate;

const GROUP: Group = Group::Server;

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "save", 1, save)
        .flags(ADMIN | NO_ASYNC_LOADING | NO_MULTI | NOSCRIPT)
        .scope(Scope::Exclusive)
        .complexity("O(N) where N is the total number of keys in all databases")
        .summary("Writes all data to the RDB file while everybody waits."),
    row(GROUP, "bgrewriteaof", 1, bgrewriteaof)
        .flags(ADMIN | NO_ASYNC_LOADING | NOSCRIPT)
        .complexity("O(1)")
        .summary("Writes the append-only file anew, as short as can be, while others go on."),
    // Exclusive while it begins, and only then.
    row(GROUP, "bgsave", -1, bgsave)
        .flags(ADMIN | NO_ASYNC_LOADING | NOSCRIPT)
        .scope(Scope::Exclusive)
        .complexity("O(1)")
        .history(&[("3.2.2", "Added the `SCHEDULE` option.")])
        .summary("Writes all data, as it is now, to the RDB file while everything goes on.")
        .syntax("[SCHEDULE]"),
    row(GROUP, "lastsave", 1, lastsave)
        .flags(LOADING | STALE | FAST)
        .categories(category::ADMIN | category::DANGEROUS)
        .tips(&["nondeterministic_output"])
        .summary("Answers when the data was last saved."),
    row(GROUP, "shutdown", -1, shutdown)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY)
        .complexity(
            "O(N) when saving, where N is the total number of keys in all databases when saving \
             data, otherwise O(1)",
        )
        .history(&[("7.0.0", "Added the `NOW`, `FORCE` and `ABORT` modifiers.")])
        .summary("Saves the data, if it is to be, and ends the server.")
        .syntax("[save-selector:(NOSAVE | SAVE)] [NOW] [FORCE] [ABORT]"),
    row(Group::Generic, "wait", 3, wait)
        .flags(BLOCKING)
        .categories(category::CONNECTION)
        .since("3.0.0")
        .tips(MIN_OVER_SHARDS)
        .summary("Answers how many replicas have confirmed the connection's writes.")
        .syntax("numreplicas timeout:integer"),
    row(Group::Generic, "waitaof", 4, waitaof)
        .flags(BLOCKING)
        .categories(category::CONNECTION)
        .since("7.2.0")
        .tips(MIN_OVER_SHARDS)
        .summary("Answers how many servers have the connection's writes on disk.")
        .syntax("numlocal numreplicas timeout:integer"),
];

const MIN_OVER_SHARDS: &[&str] = &["request_policy:all_shards", "response_policy:agg_min"];

const IS_RUNNING: Error = Error::of("ERR Background save already in progress");

fn save(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    if request.server().durability.saves.is_running() {
        return Err(IS_RUNNING);
    }
    let (server, worker) = (request.server(), &request.shift.worker);
    match save::in_foreground(server, request.txn, worker) {
        Ok(()) => {
            request.reply.ok();
            Ok(())
        }
        // All that Redis says; the log says more.
        Err(_) => Err(Error::of("ERR")),
    }
}

fn bgrewriteaof(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let aof = &request.server().durability.aof;
    if aof.is_rewriting() {
        return Err(Error::of("ERR Background append only file rewriting already in progress"));
    }
    let begins = aof.request_rewrite(request.server(), request.origin != Origin::Exec);
    let what = if begins { "started" } else { "scheduled" };
    request.reply.status(&format!("Background append only file rewriting {what}"));
    Ok(())
}

fn bgsave(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let server = &request.lp.server;
    let saves = &server.durability.saves;
    let schedules = match &args[1..] {
        [] => false,
        [option] if is(option, "SCHEDULE") => true,
        [option] if is(option, "CANCEL") => return cancel(request),
        _ => return Err(Error::SYNTAX),
    };
    if saves.is_running() {
        return Err(IS_RUNNING);
    }
    let in_exec = request.origin == Origin::Exec;
    let is_taken = server.engine.has_snapshot() || server.durability.aof.is_rewriting();
    if in_exec || (schedules && is_taken) {
        saves.schedule();
        request.reply.status("Background saving scheduled");
    } else if is_taken {
        return Err(Error::of(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE \
             in order to schedule a BGSAVE whenever possible.",
        ));
    } else {
        // The log says what went wrong.
        save::in_background(server, request.txn).map_err(|_| Error::of("ERR"))?;
        request.reply.status("Background saving started");
    }
    Ok(())
}

/// BGSAVE CANCEL, as in Valkey 8.1.
fn cancel(request: &mut Request<'_, '_>) -> Result {
    let saves = &request.lp.server.durability.saves;
    if saves.is_running() {
        saves.cancel();
        request.reply.status("Background saving cancelled");
    } else if saves.unschedule() {
        request.reply.status("Scheduled background saving cancelled");
    } else {
        return Err(Error::of("ERR Background saving is currently not in progress or scheduled"));
    }
    Ok(())
}

fn lastsave(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let seconds = request.server().durability.saves.last_seconds();
    request.reply.integer(seconds);
    Ok(())
}

/// How long a script may have been running that SHUTDOWN NOSAVE waits for.
const NOSAVE_SCRIPT_MS: i64 = 100;

fn shutdown(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (mut how, mut abort, mut now) = (ShutdownHow::default(), false, false);
    for option in &args[1..] {
        match () {
            () if is(option, "NOSAVE") => how.nosave = true,
            () if is(option, "SAVE") => how.save = true,
            () if is(option, "NOW") => now = true,
            () if is(option, "FORCE") => how.force = true,
            () if is(option, "ABORT") => abort = true,
            () => return Err(Error::SYNTAX),
        }
    }
    if (how.save && how.nosave) || (abort && (how.save || how.nosave || how.force || now)) {
        return Err(Error::SYNTAX);
    }
    let server = request.server();
    if abort {
        // No replicas are waited for: only what a signal asked for may not have begun yet.
        if !server.ending.abort() {
            return Err(Error::of("ERR No shutdown in progress."));
        }
        crate::log_notice!("Shutdown manually aborted.");
        request.reply.ok();
        return Ok(());
    }
    crate::log_notice!("User requested shutdown...");
    let lp = request.lp;
    lp.leave_gate();
    if server.durability.loading.is_on() {
        // What is loaded is in its file, and more than is here.
        server.shut_down();
        request.client.close_after_reply = true;
        return Ok(());
    }
    // Scripts end first. One that takes too long is given up by NOSAVE alone, as with Redis; soon,
    // where that leaves nothing half done.
    let rolls_back = request.config().script_atomicity == ScriptAtomicity::Rollback;
    let script_ms_max = (how.nosave && rolls_back).then_some(NOSAVE_SCRIPT_MS);
    // Nor is there anything to wait for inside of a script, which would wait for itself.
    let ended = match lp.is_pinned() {
        true => AtRest::Busy,
        false => server.shut_down_at_rest(script_ms_max, how),
    };
    match ended {
        AtRest::Done => {}
        AtRest::Refused => {
            return Err(Error::of("ERR Errors trying to SHUTDOWN. Check logs."));
        }
        AtRest::Busy if how.nosave => server.shut_down(),
        AtRest::Busy => {
            return Err(Error::of(
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN \
                 NOSAVE.",
            ));
        }
    }
    // As with Redis, the closed connection is the answer.
    request.client.close_after_reply = true;
    Ok(())
}

/// A timeout in whole milliseconds as a point in time; 0 is none.
fn deadline_ms(request: &Request<'_, '_>, arg: &[u8]) -> Result<Option<i64>> {
    let timeout_ms = data::number::parse_i64(arg)
        .ok_or(Error::of("ERR timeout is not an integer or out of range"))?;
    match timeout_ms {
        0 => Ok(None),
        ..0 => Err(Error::TIMEOUT_NEGATIVE),
        _ => request.txn.now_ms().checked_add(timeout_ms).map(Some).ok_or(Error::TIMEOUT_RANGE),
    }
}

fn wait(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let is_enough = integer(args[1])? <= 0;
    let deadline_ms = deadline_ms(request, args[2])?;
    wait_or_answer(request, is_enough, deadline_ms, OnTimeout::Replicas);
    Ok(())
}

pub const NO_AOF: Error =
    Error::of("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");

fn waitaof(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let local = integer_within(args[1], 0, 1)? > 0;
    let replicas = integer(args[2]).ok().filter(|count| *count >= 0).ok_or(Error::NOT_POSITIVE)?;
    let deadline_ms = deadline_ms(request, args[3])?;
    let aof = &request.server().durability.aof;
    if local && !aof.is_wanted() {
        return Err(NO_AOF);
    }
    let block = request.client.last_block;
    let is_enough = replicas == 0 && (!local || aof.is_safe(block));
    let on_timeout = OnTimeout::Synced { block, local, replicas: replicas > 0 };
    wait_or_answer(request, is_enough, deadline_ms, on_timeout);
    Ok(())
}

/// Has the client wait until what it asked for is true or its time is over, if it is not yet and may.
fn wait_or_answer(
    request: &mut Request<'_, '_>,
    is_enough: bool,
    deadline_ms: Option<i64>,
    on_timeout: OnTimeout,
) {
    if is_enough || request.blocking == Blocking::Never {
        return answer(request.server(), on_timeout, &mut request.reply);
    }
    request.wait = Some(Wait { keys: Vec::new(), deadline_ms, on_timeout, again_as: None });
}

/// Answers what is true now.
pub fn answer(server: &Server, on_timeout: OnTimeout, reply: &mut Reply<'_>) {
    match on_timeout {
        OnTimeout::Null => reply.null(),
        OnTimeout::NullArray => reply.null_array(),
        OnTimeout::Replicas => reply.integer(0),
        OnTimeout::Synced { block, .. } => {
            reply.array(2);
            reply.integer(i64::from(server.durability.aof.is_safe(block)));
            reply.integer(0);
        }
        OnTimeout::Target => reply.error(&migrate::NO_ANSWER.0),
    }
}

//! SAVE, BGSAVE, LASTSAVE, SHUTDOWN: what a client can ask of the files.

use command::call::is;
use command::row::category;
use command::row::flag::{
    ADMIN, ALLOW_BUSY, FAST, LOADING, NO_ASYNC_LOADING, NO_MULTI, NOSCRIPT, STALE,
};
use command::{Command, Error, Group, Result, Scope};

use crate::config::ScriptAtomicity;
use crate::durability::save;
use crate::request::{Origin, Request, SessionHandler, row};
use crate::server::{AtRest, ShutdownHow};

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
];

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
    if aof.is_rewriting() || !aof.schedule_rewrite() {
        return Err(Error::of("ERR Background append only file rewriting already in progress"));
    }
    request.reply.status("Background append only file rewriting started");
    Ok(())
}

fn bgsave(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let schedules = match &args[1..] {
        [] => false,
        [option] if is(option, "SCHEDULE") => true,
        _ => return Err(Error::SYNTAX),
    };
    let server = &request.lp.server;
    let saves = &server.durability.saves;
    if saves.is_running() {
        return Err(IS_RUNNING);
    }
    let in_exec = request.origin == Origin::Exec;
    if in_exec || (schedules && server.engine.has_snapshot()) {
        saves.schedule();
        request.reply.status("Background saving scheduled");
    } else if server.engine.has_snapshot() {
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
    if abort {
        // Only replicas that lag behind are waited for, and there are none.
        return Err(Error::of("ERR No shutdown in progress."));
    }
    let server = request.server();
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

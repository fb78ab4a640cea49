//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.

use std::sync::atomic::Ordering;

use command::call::is;
use command::keys::{KeySpec, key_flag as k};
use command::row::flag::{
    ALLOW_BUSY, DENYOOM, FAST, LOADING, NOSCRIPT, SCRIPT, SKIP_SLOWLOG, STALE, WRITE,
};
use command::{Blocking, Command, Error, Group, Result, Row, Scope};
use engine::{Engine, Plan, Txn};
use resp::Reply;
use smallvec::SmallVec;

use crate::acl::log::Context;
use crate::client::{Client, Transaction};
use crate::dispatch;
use crate::request::{Origin, Request, SessionHandler, row};
use crate::session::{acl, monitor};
use crate::table::{Registered, table};
use crate::worker::{Chore, Shift, WorkerLoop};

const GROUP: Group = Group::Transactions;

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "multi", -1, multi)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY)
        .since("1.2.0")
        .summary("Begins to collect commands for one transaction.")
        .syntax("[ROLLBACK]"),
    row(GROUP, "exec", 1, exec)
        .flags(NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG)
        .since("1.2.0")
        .complexity("That of the commands it runs")
        .summary("Runs the collected commands as one transaction."),
    row(GROUP, "discard", 1, discard_command)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY)
        .since("2.0.0")
        .complexity("O(N) in the collected commands")
        .summary("Forgets the collected commands."),
    row(GROUP, "watch", -2, watch)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY)
        .keys(&[KeySpec::all(k::RO)])
        .since("2.2.0")
        .complexity("O(1) per key")
        .summary("Has EXEC refused if one of the keys changes before it.")
        .syntax("key [key ...]"),
    row(GROUP, "unwatch", 1, unwatch)
        .flags(NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY)
        .since("2.2.0")
        .summary("Forgets all watched keys."),
];

/// Commands that act at once while others are queued.
pub fn runs_at_once(row: &Row) -> bool {
    matches!(row.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
        && matches!(row.group, Group::Transactions | Group::Connection)
}

pub fn needs_memory(client: &Client) -> bool {
    any_queued(client, DENYOOM)
}

pub fn writes(client: &Client) -> bool {
    any_queued(client, WRITE)
}

fn any_queued(client: &Client, flag: u32) -> bool {
    client.transaction.queued.iter().any(|queued| table().all[queued.command].row.has(flag))
}

/// The locks of EXEC: those of its commands and of the watched keys.
pub fn plan(engine: &Engine, client: &Client) -> Plan {
    let mut shards: SmallVec<[u16; 4]> = SmallVec::new();
    for queued in &client.transaction.queued {
        let row = table().all[queued.command].row;
        // The keys of a script do not bound what it touches.
        if row.scope != Scope::Keys || row.has(SCRIPT) {
            return Plan::Exclusive;
        }
        let args: SmallVec<[&[u8]; 8]> = queued.args.iter().map(|arg| &**arg).collect();
        match dispatch::plan(engine, row, &args) {
            Plan::Shards(more) => shards.extend(more),
            _ => return Plan::Exclusive,
        }
    }
    let watched = client.transaction.watched.iter();
    shards.extend(watched.map(|((_, key), _)| engine.key_shard(key)));
    Plan::shards(shards)
}

fn multi(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let undoes = match &args[1..] {
        [] => false,
        [mode] if is(mode, "ROLLBACK") => true,
        _ => {
            // As of any other command with too many arguments.
            request.client.transaction.is_broken |= request.client.transaction.is_open;
            return Err(Error::arity("multi"));
        }
    };
    if request.client.transaction.is_open {
        return Err(Error::of("ERR MULTI calls can not be nested"));
    }
    request.client.transaction.is_open = true;
    request.client.transaction.undoes = undoes;
    request.client.info.multi.store(0, Ordering::Relaxed);
    request.reply.ok();
    Ok(())
}

fn exec(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let done = run_queued(request);
    show(request, &table().all[table().exec], args);
    done
}

fn run_queued(request: &mut Request<'_, '_>) -> Result {
    if !request.client.transaction.is_open {
        return Err(Error::of("ERR EXEC without MULTI"));
    }
    let is_broken = request.client.transaction.is_broken;
    let is_stale = has_watched_change(request.txn, &request.client.transaction);
    let undoes = request.client.transaction.undoes;
    let queued = std::mem::take(&mut request.client.transaction.queued);
    end(request.txn, request.client);
    if is_broken {
        return Err(Error::of("EXECABORT Transaction discarded because of previous errors."));
    }
    if is_stale {
        request.reply.null_array();
        return Ok(());
    }
    // CLIENT INFO among the commands still sees the transaction.
    request.client.info.multi.store(queued.len() as i64, Ordering::Relaxed);
    request.reply.array(queued.len());
    let (db, said) = (request.client.db, request.lp.outbox.borrow().mark());
    let functions = undoes.then(|| request.server().scripts.functions.current());
    if undoes {
        request.txn.record();
    }
    let mut out = Vec::new();
    for (index, item) in queued.iter().enumerate() {
        let command = &table().all[item.command];
        let args: SmallVec<[&[u8]; 8]> = item.args.iter().map(|arg| &**arg).collect();
        out.clear();
        request.txn.select(request.client.db);
        // The rules may have changed since it was queued.
        if let Err(denied) = request.client.user.check(command, &args) {
            let client = &*request.client;
            acl::refused(request.lp, client, denied, command, &args, Context::Multi);
            let text = format!(
                "NOPERM ACLs rules changed between the moment the transaction was accumulated and \
                 the EXEC call. This command is no longer allowed for the following reason: {}",
                denied.text_in_exec()
            );
            Reply::new(&mut out, client.protocol).error(&text);
            request.server().count_error("NOPERM");
        } else {
            show(request, command, &args);
            dispatch::execute(
                request.lp,
                request.shift,
                request.client,
                command,
                &args,
                request.txn,
                &mut out,
                Origin::Exec,
                Blocking::Never,
            );
        }
        let failed = out.first() == Some(&b'-');
        let (lp, shift, now_ms) = (request.lp, request.shift, request.lp.now_ms());
        let ns = dispatch::finish(lp, shift, request.client, command, &args, failed, now_ms);
        if lp.server.hot_keys.is_on() {
            dispatch::note_hot(lp, command, &args, ns, out.len());
        }
        request.reply.raw(&out);
        if undoes && let Some(text) = reason_to_undo(request, &out) {
            request.txn.roll_back();
            if let Some(functions) = functions {
                let scripts = &request.server().scripts;
                scripts.functions.put_back(&scripts.cache, functions);
            }
            request.lp.outbox.borrow_mut().cut_back(said);
            request.client.db = db;
            request.client.info.db.store(db, Ordering::Relaxed);
            request.client.info.multi.store(-1, Ordering::Relaxed);
            return Err(Error::new(format!(
                "EXECABORT Transaction rolled back because of command {} '{}': {text}",
                index + 1,
                command.full_name
            )));
        }
    }
    request.client.info.multi.store(-1, Ordering::Relaxed);
    Ok(())
}

/// Why MULTI ROLLBACK goes no further behind a command that has answered this.
fn reason_to_undo(request: &Request<'_, '_>, reply: &[u8]) -> Option<String> {
    if let Some(text) = reply.strip_prefix(b"-") {
        return Some(String::from_utf8_lossy(text.trim_ascii_end()).into_owned());
    }
    let limit_bytes = request.config().script_undo_limit_bytes as usize;
    let bytes = request.txn.undo_bytes() + request.lp.outbox.borrow().bytes();
    (bytes > limit_bytes)
        .then(|| format!("ERR it takes more than script-undo-limit ({limit_bytes} bytes) to undo"))
}

/// MONITOR sees the commands of a transaction as they run, and EXEC behind them.
fn show(request: &Request<'_, '_>, command: &Registered, args: &[&[u8]]) {
    if request.lp.server.monitor_count.load(Ordering::Relaxed) > 0 {
        let client = &request.client;
        monitor::feed(request.lp, &client.info.address, client.db, command, args);
    }
}

fn has_watched_change(txn: &mut Txn<'_>, transaction: &Transaction) -> bool {
    if transaction.watch.is_marked() {
        return true;
    }
    let db = txn.db();
    // A key that expired since it was watched has changed, even if nobody removed it yet.
    let expired = transaction.watched.iter().any(|((key_db, key), was_gone)| {
        txn.select(*key_db);
        !was_gone && !txn.exists(key)
    });
    txn.select(db);
    expired
}

/// Forgets what was queued and watched. The transaction covers the watched keys.
fn end(txn: &mut Txn<'_>, client: &mut Client) {
    let transaction = std::mem::take(&mut client.transaction);
    for (name, _) in &transaction.watched {
        txn.unwatch(name, &transaction.watch);
    }
    client.info.multi.store(-1, Ordering::Relaxed);
    client.info.multi_bytes.store(0, Ordering::Relaxed);
    client.info.watching.store(0, Ordering::Relaxed);
    client.info.watched_bytes.store(0, Ordering::Relaxed);
}

/// Forgets what was queued and watched, from outside of any transaction.
pub fn discard(lp: &WorkerLoop, shift: &Shift, client: &mut Client) {
    unwatch_all(lp, shift, client);
    client.transaction = Transaction::default();
    client.info.multi.store(-1, Ordering::Relaxed);
    client.info.multi_bytes.store(0, Ordering::Relaxed);
}

fn unwatch_all(lp: &WorkerLoop, shift: &Shift, client: &mut Client) {
    let watched = std::mem::take(&mut client.transaction.watched);
    let watch = std::mem::take(&mut client.transaction.watch);
    client.info.watching.store(0, Ordering::Relaxed);
    client.info.watched_bytes.store(0, Ordering::Relaxed);
    for (name, _) in watched {
        lp.see_to(shift, Chore::Watch(name, watch.clone()));
    }
}

fn discard_command(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    if !request.client.transaction.is_open {
        return Err(Error::of("ERR DISCARD without MULTI"));
    }
    discard(request.lp, request.shift, request.client);
    request.reply.ok();
    Ok(())
}

fn watch(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if request.client.transaction.is_open {
        return Err(Error::of("ERR WATCH inside MULTI is not allowed"));
    }
    let db = request.client.db;
    for key in &args[1..] {
        let name = (db, Box::from(*key));
        if request.client.transaction.watched.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let is_gone = !request.txn.exists(key);
        request.txn.watch(key, &request.client.transaction.watch);
        // The name stands here and in the shard.
        let bytes = 2 * (key.len() + size_of_val(&name));
        request.client.info.watched_bytes.fetch_add(bytes, Ordering::Relaxed);
        request.client.transaction.watched.push((name, is_gone));
    }
    let count = request.client.transaction.watched.len();
    request.client.info.watching.store(count, Ordering::Relaxed);
    request.reply.ok();
    Ok(())
}

fn unwatch(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    // Inside EXEC nothing is watched any more.
    if request.origin == Origin::Network {
        unwatch_all(request.lp, request.shift, request.client);
    }
    request.reply.ok();
    Ok(())
}

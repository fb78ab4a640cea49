//! From the arguments of a request to its reply: checks, lock plan, transaction, effects.
//!
//! `run` takes a client's request through the checks of the server; `execute` runs one command
//! inside a transaction and is what EXEC and scripts use too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use command::keys::{Begin, Find};
use command::{Blocking, Call, Error, Row, Scope, Wait, flag};
use engine::{Effects, Engine, KeyName, Plan, Txn, Waiter};
use resp::{Protocol, Reply};
use smallvec::SmallVec;

use crate::acl::log::Context;
use crate::client::{Attempt, Client, ClientInfo, Queued, ReplyMode};
use crate::connection::{Connection, Hold};
use crate::durability::loading;
use crate::mailbox::Mail;
use crate::memory;
use crate::request::{Origin, Request};
use crate::script::{self, Ended, Obstacle};
use crate::session::{acl, monitor, pubsub, transactions};
use crate::table::{Registered, Run, table};
use crate::worker::{Blocked, Chore, Shift, WorkerLoop};

const BUSY: Error = Error::of(
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
);

/// What a waiting client's command needs to run again.
struct Waiting {
    command: &'static Registered,
    args: Vec<Box<[u8]>>,
    info: Arc<ClientInfo>,
    protocol: Protocol,
    db: u32,
}

/// Runs one request. False when it is held back and must be offered again: CLIENT PAUSE, or locks
/// that somebody keeps.
pub fn run(
    lp: &WorkerLoop,
    shift: &Shift,
    token: usize,
    connection: &mut Connection,
    args: &[&[u8]],
) -> bool {
    let now_ms = lp.now_ms();
    let info = &connection.client.info;
    info.last_active_ms.store(now_ms, Ordering::Relaxed);
    let position = connection.output.len();
    let outcome = checked(lp, shift, &mut connection.client, args, now_ms);
    match outcome {
        Verdict::Hold => {
            connection.hold = Hold::Paused;
            lp.hold_paused(token);
            return false;
        }
        Verdict::Refuse(None, _) if is_http(args[0]) => {
            crate::log_warning!(
                "Possible SECURITY ATTACK detected: HTTP sent to the Redis port by {}. Connection \
                 closed.",
                connection.client.info.address
            );
            connection.is_dead = true;
        }
        Verdict::Refuse(command, error) => {
            reject(lp, shift, &mut connection.client, &mut connection.output, command, &error);
        }
        Verdict::Queue(command) => {
            let client = &mut connection.client;
            let args: Vec<Box<[u8]>> = args.iter().map(|arg| Box::from(*arg)).collect();
            client.transaction.queued_bytes += args.iter().map(|arg| arg.len() + 16).sum::<usize>();
            client.transaction.queued.push(Queued { command: command.id, args });
            client.info.multi.store(client.transaction.queued.len() as i64, Ordering::Relaxed);
            client.info.multi_bytes.store(client.transaction.queued_bytes, Ordering::Relaxed);
            Reply::new(&mut connection.output, client.protocol).status("QUEUED");
        }
        Verdict::Stall(obstacle) => {
            lp.stall(token, connection, obstacle);
            return false;
        }
        Verdict::Run(command) => match in_transaction(lp, shift, connection, command, args) {
            Ran::Done(waits) => {
                if let Some((waiter, wait)) = waits {
                    connection.hold = Hold::Blocked;
                    let Wait { deadline_ms, on_timeout, .. } = wait;
                    let blocked = Blocked { waiter, deadline_ms, on_timeout };
                    lp.block(token, &connection.client.info, blocked);
                }
                let failed = connection.output.get(position) == Some(&b'-');
                finish(lp, shift, &connection.client, command, args, failed, now_ms);
            }
            Ran::Not(obstacle) if lp.server.scripts.watch.is_to_blame(lp.id, obstacle) => {
                let Connection { client, output, .. } = connection;
                reject(lp, shift, client, output, Some(command), &BUSY);
            }
            Ran::Not(obstacle) => {
                lp.stall(token, connection, obstacle);
                return false;
            }
        },
    }
    connection.client.attempt = Attempt::default();
    if connection.hold != Hold::Blocked && !lets_reply_through(&mut connection.client) {
        connection.output.truncate(position);
    }
    true
}

/// A web page that has a browser send HTTP to this port gets none of its commands through.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

enum Verdict {
    Run(&'static Registered),
    Queue(&'static Registered),
    Refuse(Option<&'static Registered>, Error),
    Hold,
    Stall(Obstacle),
}

/// What became of a request that passed its checks.
enum Ran {
    /// It ran, and waits now if there is a waiter.
    Done(Option<(Arc<Waiter>, Wait)>),
    /// It did not begin, or what it did is to be forgotten.
    Not(Obstacle),
}

/// The checks every request passes, in Redis's order.
fn checked(
    lp: &WorkerLoop,
    shift: &Shift,
    client: &mut Client,
    args: &[&[u8]],
    now_ms: i64,
) -> Verdict {
    let command = match table().find(args) {
        Ok(command) => command,
        Err(error) => {
            // Even an unknown command is not told apart before authentication.
            return Verdict::Refuse(table().by_name(args[0]), error);
        }
    };
    let row = command.row;
    let refuse = |error| Verdict::Refuse(Some(command), error);
    // A connection from when there was a password needs none once it is gone.
    let needs_password = !client.is_authenticated && lp.server.acl.needs_password();
    if needs_password && !row.has(flag::NO_AUTH) {
        return refuse(Error::NO_AUTH);
    }
    if client.transaction.is_open && row.has(flag::NO_MULTI) {
        return refuse(Error::of("ERR Command not allowed inside a transaction"));
    }
    if let Err(denied) = client.user.check(command, args) {
        let context = match client.transaction.is_open {
            true => Context::Multi,
            false => Context::TopLevel,
        };
        let text = acl::refused(lp, client, denied, command, args, context);
        return refuse(Error::new(format!("NOPERM {text}")));
    }
    if lp.server.scripts.watch.is_exclusive_busy() && !row.has(flag::ALLOW_BUSY) {
        return refuse(BUSY);
    }
    if is_over_memory_limit(shift) {
        let room = make_room(lp, shift, now_ms);
        let needs_memory = || {
            row.has(flag::DENYOOM)
                || (command.id == table().exec && transactions::needs_memory(client))
        };
        match room {
            Ok(true) => {}
            Ok(false) if needs_memory() => return refuse(Error::OOM),
            Err(obstacle) if needs_memory() => return Verdict::Stall(obstacle),
            _ => {}
        }
    }
    if let Some(error) = lp.server.durability.refuses_writes(&shift.config)
        && (row.has(flag::WRITE)
            || command.full_name == "ping"
            || (command.id == table().exec && transactions::writes(client)))
    {
        return refuse(error);
    }
    if lp.server.durability.delays_writes()
        && (row.has(flag::WRITE)
            || row.has(flag::SCRIPT)
            || (command.id == table().exec && transactions::writes(client)))
    {
        return Verdict::Stall(Obstacle::Disk);
    }
    if client.protocol == Protocol::Resp2
        && client.is_subscriber()
        && !pubsub::allowed_while_subscribed(row)
    {
        return refuse(Error::new(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
             are allowed in this context",
            command.full_name
        )));
    }
    if lp.server.durability.loading.is_on() && !row.has(flag::LOADING) {
        return refuse(loading::REFUSAL);
    }
    if client.transaction.is_open && !transactions::runs_at_once(row) {
        return Verdict::Queue(command);
    }
    let writes = row.has(flag::WRITE)
        || row.has(flag::MAY_REPLICATE)
        || (command.id == table().exec && transactions::writes(client));
    if lp.server.is_paused(writes, now_ms) && !row.has(flag::ADMIN) && !is_exempt_from_pause(row) {
        return Verdict::Hold;
    }
    Verdict::Run(command)
}

/// What must work while clients are paused, or nobody could end it.
fn is_exempt_from_pause(row: &Row) -> bool {
    row.group == command::Group::Connection
}

fn reject(
    lp: &WorkerLoop,
    shift: &Shift,
    client: &mut Client,
    out: &mut Vec<u8>,
    command: Option<&'static Registered>,
    error: &Error,
) {
    if let Some(command) = command {
        lp.stats.rejected(command.id);
        if command.id == table().exec {
            // EXEC that is refused ends the transaction, as Redis does.
            transactions::discard(lp, shift, client);
            let text = error.0.strip_prefix(error.code()).unwrap_or("").trim_start();
            let text = format!("EXECABORT Transaction discarded because of: {text}");
            Reply::new(out, client.protocol).error(&text);
            lp.server.count_error("EXECABORT");
            return;
        }
    }
    if client.transaction.is_open {
        client.transaction.is_broken = true;
    }
    Reply::new(out, client.protocol).error(&error.0);
    lp.server.count_error(error.code());
}

/// Statistics and slow log of a command that ran.
pub fn finish(
    lp: &WorkerLoop,
    shift: &Shift,
    client: &Client,
    command: &Registered,
    args: &[&[u8]],
    failed: bool,
    now_ms: i64,
) {
    let ns = lp.lap();
    lp.stats.ran(command.id, ns, failed, shift.config.latency_tracking);
    let mut script = lp.ran_script.take();
    if let Some(script) = &mut script {
        script.count(lp.id, ns);
    }
    let limit_us = shift.config.slowlog_log_slower_than_us;
    if limit_us >= 0
        && ns / 1000 >= limit_us as u64
        && shift.config.slowlog_max_len > 0
        && !command.row.has(flag::SKIP_SLOWLOG)
        && is_slow_now(lp, ns / 1000)
    {
        let about_script = script.map(|script| script.describe());
        lp.server.slowlog.add(
            now_ms / 1000,
            ns / 1000,
            &acl::without_passwords(command, args),
            about_script,
            client.info.address.clone(),
            client.info.name.lock().to_vec(),
            shift.config.slowlog_max_len as usize,
        );
    }
}

/// Looks at the limit again, which this very command may have changed (CONFIG SET).
fn is_slow_now(lp: &WorkerLoop, us: u64) -> bool {
    let limit_us = lp.server.config.current().slowlog_log_slower_than_us;
    limit_us >= 0 && us >= limit_us as u64
}

/// CLIENT REPLY: whether the reply of the command that ends now is sent.
pub fn lets_reply_through(client: &mut Client) -> bool {
    match client.reply_mode {
        ReplyMode::On => true,
        ReplyMode::Off => false,
        ReplyMode::SkipNext => {
            client.reply_mode = ReplyMode::Skip;
            false
        }
        ReplyMode::Skip => {
            client.reply_mode = ReplyMode::On;
            false
        }
    }
}

/// The locks a command needs.
pub fn plan(engine: &Engine, row: &Row, args: &[&[u8]]) -> Plan {
    if let Some(key) = only_key(row, args) {
        return Plan::shard(engine.key_shard(key));
    }
    match row.scope {
        Scope::Exclusive => Plan::Exclusive,
        Scope::Walk => Plan::Walk,
        Scope::Keys if row.keys.is_empty() => Plan::none(),
        Scope::Keys => plan_all(engine, row, args),
    }
}

/// The one key of a command that has its place in the row, as most have.
#[inline]
pub fn only_key<'a>(row: &Row, args: &[&'a [u8]]) -> Option<&'a [u8]> {
    only_key_at(row).map(|at| args[at])
}

/// Which argument that is.
#[inline]
pub fn only_key_at(row: &Row) -> Option<usize> {
    let [only] = row.keys else { return None };
    match (row.scope, only.find, only.begin) {
        (Scope::Keys, Find::Range { last: 0, .. }, Begin::Index(at)) => Some(at as usize),
        _ => None,
    }
}

fn plan_all(engine: &Engine, row: &Row, args: &[&[u8]]) -> Plan {
    match row.key_positions(args) {
        Ok(positions) => {
            Plan::shards(positions.iter().map(|&at| engine.key_shard(args[at])).collect())
        }
        // The handler will refuse the arguments, but until then anything must be safe.
        Err(_) => Plan::Exclusive,
    }
}

/// Takes the locks of a plan.
#[inline]
fn begin<'e>(lp: &'e WorkerLoop, shift: &'e Shift, plan: Plan) -> Result<Txn<'e>, Obstacle> {
    match &plan {
        Plan::Shards(shards) if shards.is_empty() => {}
        Plan::Exclusive if !lp.enter_all_gates() => return Err(Obstacle::AllGates),
        Plan::Exclusive => {}
        _ if !lp.enter_gate() => return Err(Obstacle::Gate),
        _ => {}
    }
    let patience = lp.lock_patience(&plan);
    Txn::try_begin(&lp.server.engine, &shift.worker, plan, lp.now_ms(), Some(patience))
        .map_err(|shard| lp.refused(shard))
}

/// Whether a command needs the Lua VM of its worker.
fn needs_vm(command: &Registered, client: &Client) -> bool {
    let needs =
        |command: &Registered| command.row.has(flag::SCRIPT) || command.full_name == "script|load";
    let mut queued = client.transaction.queued.iter();
    needs(command)
        || (command.id == table().exec && queued.any(|queued| needs(&table().all[queued.command])))
}

/// Runs a command under its own plan.
fn in_transaction(
    lp: &WorkerLoop,
    shift: &Shift,
    connection: &mut Connection,
    command: &'static Registered,
    args: &[&[u8]],
) -> Ran {
    let Connection { client, output: out, .. } = connection;
    if lp.is_pinned() && needs_vm(command, client) && !lp.can_nest() {
        return Ran::Not(Obstacle::Vm);
    }
    let engine = &lp.server.engine;
    let is_script = command.row.has(flag::SCRIPT);
    let mut found_script = None;
    let plan = if is_script {
        match script::plan(lp, shift, command, args, client.attempt.is_restarted) {
            Ok((plan, script)) => {
                found_script = script;
                plan
            }
            Err(obstacle) => return Ran::Not(obstacle),
        }
    } else if command.id == table().exec {
        transactions::plan(engine, client)
    } else {
        plan(engine, command.row, args)
    };
    let is_walk = plan == Plan::Walk;
    // A script without keys may find some while it runs.
    if is_script && plan == Plan::none() && !lp.enter_gate() {
        return Ran::Not(Obstacle::Gate);
    }
    let mut txn = match begin(lp, shift, plan) {
        Ok(txn) => txn,
        Err(obstacle) => return Ran::Not(obstacle),
    };
    if txn.has_snapshot() && waits_for_snapshot(&mut txn, client, command.row, args) {
        txn.commit();
        return Ran::Not(Obstacle::Disk);
    }
    if !is_walk && !std::mem::replace(&mut client.attempt.is_announced, true) {
        announce(lp, client, command, args);
    }
    txn.select(client.db);
    txn.set_no_touch(client.no_touch);
    let position = out.len();
    if is_script {
        *lp.found_script.borrow_mut() = found_script;
        if !txn.is_exclusive() {
            monitor::hold(lp);
        }
    }
    let wait =
        execute(lp, shift, client, command, args, &mut txn, out, Origin::Network, Blocking::First);
    if let Some(shard) = txn.obstacle() {
        out.truncate(position);
        lp.refused(shard);
        return Ran::Not(Obstacle::Walk(shard));
    }
    if is_script {
        lp.found_script.take();
        let ended = lp.script_ended.take();
        monitor::release(lp, ended == Ended::Answered);
        match ended {
            Ended::Answered => {}
            Ended::Restarts => {
                txn.commit();
                client.attempt.is_restarted = true;
                return in_transaction(lp, shift, connection, command, args);
            }
            Ended::Postponed => {
                txn.commit();
                return Ran::Not(Obstacle::Vm);
            }
        }
    }
    if is_walk {
        announce(lp, client, command, args);
    }
    let waits = wait.map(|wait| {
        let body = Waiting {
            command,
            args: match &wait.again_as {
                Some(again) => again.to_vec(),
                None => args.iter().map(|arg| Box::from(*arg)).collect(),
            },
            info: client.info.clone(),
            protocol: client.protocol,
            db: client.db,
        };
        let argument_bytes = args.iter().map(|arg| arg.len()).sum();
        client.info.argument_bytes.store(argument_bytes, Ordering::Relaxed);
        let waiter = Waiter::new(wait.keys.clone(), Box::new(body));
        txn.wait(&waiter);
        (waiter, wait)
    });
    let exclusive = txn.is_exclusive();
    let effects = txn.commit();
    if exclusive {
        lp.leave_all_gates();
    }
    // What it only removed because its time was over is nothing that its client was told.
    if effects.sequence > 0
        && (command.row.has(flag::WRITE) || is_script || command.id == table().exec)
        && lp.server.durability.aof.journal.holds_replies()
    {
        connection.hold_back(position, effects.sequence);
    }
    after(lp, shift, effects);
    Ran::Done(waits)
}

/// Whether a command is about to change a long value that a snapshot has to save first. Under an
/// exclusive plan, for which others wait, that is done there and then.
#[cold]
fn waits_for_snapshot(txn: &mut Txn<'_>, client: &Client, row: &Row, args: &[&[u8]]) -> bool {
    let is_about_keys = !txn.held().is_empty() && (row.has(flag::WRITE) || row.has(flag::SCRIPT));
    if !is_about_keys {
        return false;
    }
    txn.select(client.db);
    // Arguments that do not tell their keys are refused in a moment.
    let positions = row.key_positions(args).unwrap_or_default();
    positions.iter().any(|&at| txn.is_long_unsaved(args[at]))
}

/// Notes that a command runs: once, though it may have been offered before.
fn announce(lp: &WorkerLoop, client: &Client, command: &Registered, args: &[&[u8]]) {
    client.info.last_command.store(command.id, Ordering::Relaxed);
    // Written by this worker alone, so it needs no locked instruction.
    let commands = client.info.commands.load(Ordering::Relaxed) + 1;
    client.info.commands.store(commands, Ordering::Relaxed);
    if lp.server.monitor_count.load(Ordering::Relaxed) > 0 && command.id != table().exec {
        monitor::feed(lp, &client.info.address, client.db, command, args);
    }
}

/// What is done once the locks of a transaction are released.
fn after(lp: &WorkerLoop, shift: &Shift, effects: Effects) {
    if !lp.outbox.borrow().is_empty() {
        pubsub::deliver(lp);
    }
    if !effects.ready.is_empty() {
        serve_waiters(lp, shift, effects.ready);
    }
}

/// Runs one command inside a transaction. Its reply, or its error, is appended to `out`.
#[allow(clippy::too_many_arguments)]
#[inline]
pub fn execute<'e>(
    lp: &WorkerLoop,
    shift: &'e Shift,
    client: &mut Client,
    command: &Registered,
    args: &[&[u8]],
    txn: &mut Txn<'e>,
    out: &mut Vec<u8>,
    origin: Origin,
    blocking: Blocking,
) -> Option<Wait> {
    let position = out.len();
    let protocol = client.protocol;
    let reply = Reply::new(out, protocol);
    let result = match command.run {
        Some(Run::Keyspace(handler)) => {
            let mut call = Call::new(txn, reply, blocking);
            call.bulk_bytes_max = shift.config.proto_max_bulk_len as usize;
            handler(&mut call, args).map(|()| call.wait)
        }
        Some(Run::Session(handler)) => {
            let mut request =
                Request { lp, shift, client, txn, reply, origin, blocking, wait: None };
            handler(&mut request, args).map(|()| request.wait)
        }
        None => Err(Error::arity(command.full_name)),
    };
    match result {
        Ok(wait) => wait,
        Err(error) => {
            out.truncate(position);
            Reply::new(out, protocol).error(&error.0);
            lp.server.count_error(error.code());
            None
        }
    }
}

/// Runs the commands of clients that wait for these keys, first come first served, and hands the
/// replies to their workers.
pub fn serve_waiters(lp: &WorkerLoop, shift: &Shift, ready: Vec<KeyName>) {
    let engine = &lp.server.engine;
    let mut queue = VecDeque::from(ready);
    while let Some(name) = queue.pop_front() {
        // Waiters that could not use the key (BLPOP on a sorted set) are passed over.
        let mut passed_over = 0;
        loop {
            if !lp.enter_gate() {
                lp.unserved.borrow_mut().push(name);
                break;
            }
            let patience = Some(lp.lock_patience(&Plan::none()));
            let claim = match engine.claim_waiter(&shift.worker, &name, passed_over, patience) {
                Ok(Some(claim)) => claim,
                Ok(None) => break,
                Err(shard) => {
                    lp.refused(shard);
                    lp.unserved.borrow_mut().push(name);
                    break;
                }
            };
            let Some(waiter) = claim.waiter else {
                passed_over = claim.ticket;
                continue;
            };
            match serve_claimed(lp, shift, &waiter, &mut queue) {
                Ok(true) => {}
                Ok(false) => passed_over = claim.ticket,
                Err(shard) => {
                    lp.refused(shard);
                    lp.unserved.borrow_mut().push(name);
                    break;
                }
            }
        }
    }
}

/// Serves one client, whom nobody else serves meanwhile. False when it waits on; the error is a
/// shard that its command needs and that could not be had in time.
fn serve_claimed(
    lp: &WorkerLoop,
    shift: &Shift,
    waiter: &Arc<Waiter>,
    queue: &mut VecDeque<KeyName>,
) -> Result<bool, u16> {
    loop {
        let served = serve(lp, shift, waiter);
        if let Ok((Some(reply), ready)) = served {
            waiter.finish();
            lp.see_to(shift, Chore::Waiter(waiter.clone()));
            let waiting = waiting(waiter);
            lp.server.send(&waiting.info, |to| Mail::Unblocked(to, reply));
            queue.extend(ready);
            return Ok(true);
        }
        if waiter.put_back() {
            return served.map(|_| false);
        }
    }
}

fn waiting(waiter: &Waiter) -> &Waiting {
    waiter.body.downcast_ref().expect("the server made every waiter")
}

/// Tries a waiting client's command again. Answers its reply, unless it still waits, and the keys
/// its changes made ready; the error is a shard that could not be had in time.
fn serve(
    lp: &WorkerLoop,
    shift: &Shift,
    waiter: &Waiter,
) -> Result<(Option<Vec<u8>>, Vec<KeyName>), u16> {
    let waiting = waiting(waiter);
    let args: SmallVec<[&[u8]; 8]> = waiting.args.iter().map(|arg| &**arg).collect();
    let engine = &lp.server.engine;
    let Some(Run::Keyspace(handler)) = waiting.command.run else {
        unreachable!("only keyspace commands wait");
    };
    let plan = plan(engine, waiting.command.row, &args);
    let patience = Some(lp.lock_patience(&plan));
    let mut txn = Txn::try_begin(engine, &shift.worker, plan, lp.now_ms(), patience)?;
    txn.select(waiting.db);
    let mut out = Vec::new();
    let mut call = Call::new(&mut txn, Reply::new(&mut out, waiting.protocol), Blocking::Again);
    call.bulk_bytes_max = shift.config.proto_max_bulk_len as usize;
    let result = handler(&mut call, &args);
    let waits = call.wait.is_some();
    if let Err(error) = result {
        out.clear();
        Reply::new(&mut out, waiting.protocol).error(&error.0);
    }
    let effects = txn.commit();
    Ok(((!waits).then_some(out), effects.ready))
}

/// Takes a client out of everything the server knows it in.
pub fn forget_client(lp: &WorkerLoop, shift: &Shift, client: &mut Client) {
    pubsub::unsubscribe_all(lp, client);
    crate::session::monitor::stop(lp, client);
    transactions::discard(lp, shift, client);
}

pub fn is_over_memory_limit(shift: &Shift) -> bool {
    let limit_bytes = shift.worker.settings.maxmemory_bytes;
    limit_bytes > 0 && memory::used_bytes() > memory::allocation_limit(limit_bytes)
}

/// Evicts until memory is within its limit. False when that was not possible; the error is what
/// kept it from trying.
pub fn make_room(lp: &WorkerLoop, shift: &Shift, now_ms: i64) -> Result<bool, Obstacle> {
    let engine = &lp.server.engine;
    let started = Instant::now();
    let mut ready = Vec::new();
    let mut outcome = Ok(true);
    while is_over_memory_limit(shift) {
        if engine.pending_free() > 0 {
            // What was evicted already is still being freed: wait for that, not for more keys.
            std::thread::yield_now();
            if started.elapsed().as_millis() > 5 {
                break;
            }
            continue;
        }
        if !lp.enter_gate() {
            outcome = Err(Obstacle::Gate);
            break;
        }
        if !engine.evict_one(&shift.worker, &mut lp.pool.borrow_mut(), now_ms, &mut ready) {
            outcome = Ok(false);
            break;
        }
    }
    lp.server.stats.evicted_ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    serve_waiters(lp, shift, ready);
    outcome
}

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

use crate::acl::User;
use crate::acl::log::Context;
use crate::client::{Attempt, Client, ClientInfo, Queued, ReplyMode};
use crate::connection::{Connection, Hold};
use crate::durability::{loading, save};
use crate::mailbox::Mail;
use crate::memory;
use crate::migrate;
use crate::request::{Origin, Request};
use crate::script::{self, Ended, Obstacle, RanScript};
use crate::session::{acl, monitor, pubsub, tracking, transactions};
use crate::table::{Registered, Run, table};
use crate::worker::{Blocked, Chore, Shift, WorkerLoop};

pub const BUSY: Error = Error::of(
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
);

pub const BUSY_FUNCTION: Error = Error::of(
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
);

/// What is said while a script or a function runs for too long.
pub fn busy(lp: &WorkerLoop) -> Error {
    if lp.server.scripts.watch.is_function_busy() { BUSY_FUNCTION } else { BUSY }
}

/// What a waiting client's command needs to run again.
struct Waiting {
    command: &'static Registered,
    args: Vec<Box<[u8]>>,
    info: Arc<ClientInfo>,
    user: Arc<User>,
    protocol: Protocol,
    db: u32,
    /// It keeps a cache of what it reads.
    is_followed: bool,
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
                    let waiter = blocked.waiter.clone();
                    lp.block(token, &connection.client.info, blocked);
                    if let Some(migration) = lp.migration.take() {
                        migrate::begin(lp, shift, migration, waiter);
                        finish(lp, shift, &connection.client, command, args, false, now_ms);
                    } else {
                        // It counts once it has come to something.
                        lp.lap();
                    }
                } else {
                    let failed = connection.output.get(position) == Some(&b'-');
                    let ns = finish(lp, shift, &connection.client, command, args, failed, now_ms);
                    if lp.server.hot_keys.is_on() && command.id != table().exec {
                        let reply_bytes = connection.output.len().saturating_sub(position);
                        note_hot(lp, command, args, ns, reply_bytes);
                    }
                }
            }
            Ran::Not(obstacle) if lp.server.scripts.watch.is_to_blame(lp.id, obstacle) => {
                let Connection { client, output, .. } = connection;
                reject(lp, shift, client, output, Some(command), &busy(lp));
            }
            Ran::Not(obstacle) => {
                lp.stall(token, connection, obstacle);
                return false;
            }
        },
    }
    let Connection { client, output, .. } = connection;
    client.attempt = Attempt::default();
    if connection.hold != Hold::Blocked
        && !lets_reply_through(client)
        && !is_push(args[0], &output[position.min(output.len())..])
    {
        output.truncate(position);
    }
    output.append(&mut client.pushes);
    if client.caching && !client.transaction.is_open && !args[0].eq_ignore_ascii_case(b"client") {
        client.caching = false;
    }
    true
}

/// SUBSCRIBE and its kin have no reply: what they send are messages, which CLIENT REPLY leaves alone.
#[cold]
fn is_push(name: &[u8], sent: &[u8]) -> bool {
    let word = b"subscribe";
    let end = name.len().checked_sub(word.len()).map(|from| &name[from..]);
    end.is_some_and(|end| end.eq_ignore_ascii_case(word)) && !sent.starts_with(b"-")
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
        // As the log is to say it of the client.
        client.info.last_command.store(command.id, Ordering::Relaxed);
        let text = acl::refused(lp, client, denied, command, args, context);
        return refuse(Error::new(format!("{} {text}", denied.code())));
    }
    if lp.server.scripts.watch.is_exclusive_busy() && !row.has(flag::ALLOW_BUSY) {
        return refuse(busy(lp));
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
    if lp.server.is_paused(true, now_ms)
        && !row.has(flag::ADMIN)
        && !is_exempt_from_pause(row)
        && (lp.server.is_paused(false, now_ms) || may_change(lp, client, command, args))
    {
        return Verdict::Hold;
    }
    Verdict::Run(command)
}

/// Whether a request is held back by CLIENT PAUSE WRITE.
#[cold]
fn may_change(lp: &WorkerLoop, client: &Client, command: &Registered, args: &[&[u8]]) -> bool {
    if command.id == table().exec {
        return client.transaction.queued.iter().any(|queued| {
            let args: SmallVec<[&[u8]; 8]> = queued.args.iter().map(|arg| &**arg).collect();
            let command = &table().all[queued.command];
            command.id != table().exec && may_change(lp, client, command, &args)
        });
    }
    let row = command.row;
    row.has(flag::WRITE)
        || (row.has(flag::MAY_REPLICATE)
            && !(row.has(flag::SCRIPT) && script::only_reads(lp, command, args)))
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
            let text = error.0.strip_prefix("ERR ").unwrap_or(&error.0);
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

/// HOTKEYS: what a command took, and its request and reply on the wire.
#[cold]
pub fn note_hot(
    lp: &WorkerLoop,
    command: &Registered,
    args: &[&[u8]],
    ns: u64,
    reply_bytes: usize,
) {
    let digits = |n: usize| n.checked_ilog10().unwrap_or(0) as usize + 1;
    // A line with its length before each argument, and line ends.
    let framed = |arg: &&[u8]| arg.len() + digits(arg.len()) + 5;
    let request_bytes = args.iter().map(framed).sum::<usize>() + digits(args.len()) + 3;
    let keys = command.row.key_positions(args).unwrap_or_default();
    let keys: SmallVec<[&[u8]; 8]> = keys.iter().map(|&at| args[at]).collect();
    let bytes = (request_bytes + reply_bytes) as u64;
    lp.server.hot_keys.note(keys.iter().copied(), ns, bytes, lp.now_ms());
}

/// Statistics and slow log of a command that ran; answers how long it took.
pub fn finish(
    lp: &WorkerLoop,
    shift: &Shift,
    client: &Client,
    command: &Registered,
    args: &[&[u8]],
    failed: bool,
    now_ms: i64,
) -> u64 {
    let ns = lp.lap();
    let mut script = lp.ran_script.take();
    if let Some(script) = &mut script {
        script.count(lp.id, ns);
    }
    count(lp, shift, &client.info, command, args, failed, now_ms, ns, script.as_ref());
    if let Some(script) = script {
        script.keep(lp, command.row);
    }
    ns
}

/// Counts a command that took so long.
#[allow(clippy::too_many_arguments)]
#[inline]
fn count(
    lp: &WorkerLoop,
    shift: &Shift,
    info: &ClientInfo,
    command: &Registered,
    args: &[&[u8]],
    failed: bool,
    now_ms: i64,
    ns: u64,
    script: Option<&RanScript>,
) {
    lp.stats.ran(command.id, ns, failed, shift.config.latency_tracking);
    // Written by nobody else meanwhile, so it needs no locked instruction.
    let called = script.map_or(0, RanScript::commands);
    let commands = info.commands.load(Ordering::Relaxed) + 1 + called;
    info.commands.store(commands, Ordering::Relaxed);
    let threshold_ms = shift.config.latency_monitor_threshold_ms;
    if threshold_ms > 0 {
        let is_fast = command.row.has(flag::FAST);
        let event = if is_fast { "fast-command" } else { "command" };
        lp.server.latency.note(event, ns, threshold_ms, now_ms);
    }
    let limit_us = shift.config.slowlog_log_slower_than_us;
    if limit_us >= 0
        && ns / 1000 >= limit_us as u64
        && !command.row.has(flag::SKIP_SLOWLOG)
        && is_slow_now(lp, ns / 1000)
    {
        let about_script = script.map(RanScript::describe);
        lp.server.slowlog.add(
            now_ms / 1000,
            ns / 1000,
            &acl::without_passwords(command, args),
            about_script,
            info.address.clone(),
            info.name.lock().to_vec(),
            lp.server.config.current().slowlog_max_len as usize,
        );
    }
}

/// Counts a command that waited, and ends without having been run again.
pub fn count_waited(lp: &WorkerLoop, shift: &Shift, waiter: &Waiter, failed: bool) {
    let Waiting { command, args, info, .. } = waiting(waiter);
    let args: SmallVec<[&[u8]; 8]> = args.iter().map(|arg| &**arg).collect();
    count(lp, shift, info, command, &args, failed, lp.now_ms(), 0, None);
}

/// Looks at the limits again, which this very command may have changed (CONFIG SET).
#[cold]
fn is_slow_now(lp: &WorkerLoop, us: u64) -> bool {
    let config = lp.server.config.current();
    let limit_us = config.slowlog_log_slower_than_us;
    limit_us >= 0 && us >= limit_us as u64 && config.slowlog_max_len > 0
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
    if row.scope == Scope::Keys
        && let Some(keys) = row.counted_keys(args)
    {
        return match &args[keys] {
            [key] => Plan::shard(engine.key_shard(key)),
            keys => Plan::shards(keys.iter().map(|key| engine.key_shard(key)).collect()),
        };
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
    if row.more_keys(args).reaches_others {
        return Plan::Exclusive;
    }
    match row.key_positions(args) {
        Ok(positions) => {
            Plan::shards(positions.iter().map(|&at| engine.key_shard(args[at])).collect())
        }
        // The handler will refuse the arguments, but until then anything must be safe.
        Err(_) => Plan::Exclusive,
    }
}

/// A transaction that is to begin.
#[inline]
fn idle<'e>(lp: &'e WorkerLoop, shift: &'e Shift) -> Txn<'e> {
    Txn::idle(&lp.server.engine, &shift.worker, lp.now_ms())
}

/// Begins a transaction with the locks of a plan.
#[inline]
fn begin(lp: &WorkerLoop, txn: &mut Txn<'_>, plan: Plan) -> Result<(), Obstacle> {
    match &plan {
        Plan::Shards(shards) if shards.is_empty() => {}
        Plan::Exclusive if !lp.enter_all_gates() => return Err(Obstacle::AllGates),
        Plan::Exclusive => {}
        _ if !lp.enter_gate() => return Err(Obstacle::Gate),
        _ => {}
    }
    let patience = lp.lock_patience(&plan);
    txn.lock(plan, Some(patience)).map_err(|shard| lp.refused(shard))
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
    // Everybody waits for an exclusive plan, and it must not begin for nothing.
    if plan == Plan::Exclusive && engine.has_snapshot() {
        let changed = changed_keys(client, command, args);
        let shards = changed.iter().map(|(_, key)| engine.key_shard(key)).collect();
        let mut look = idle(lp, shift);
        if let Err(obstacle) = begin(lp, &mut look, Plan::shards(shards)) {
            return Ran::Not(obstacle);
        }
        let waits = waits_for_snapshot(&mut look, &changed).is_some();
        look.commit();
        if waits {
            return Ran::Not(Obstacle::Disk);
        }
    }
    let is_walk = plan == Plan::Walk;
    // A script without keys may find some while it runs.
    if is_script && plan == Plan::none() && !lp.enter_gate() {
        return Ran::Not(Obstacle::Gate);
    }
    let mut txn = idle(lp, shift);
    if let Err(obstacle) = begin(lp, &mut txn, plan) {
        return Ran::Not(obstacle);
    }
    if txn.has_snapshot()
        && !txn.is_exclusive()
        && waits_for_snapshot(&mut txn, &changed_keys(client, command, args)).is_some()
    {
        txn.commit();
        return Ran::Not(Obstacle::Disk);
    }
    if !is_walk && !std::mem::replace(&mut client.attempt.is_announced, true) {
        announce(lp, client, command, args);
    }
    txn.select(client.db);
    txn.set_no_touch(client.no_touch);
    txn.set_client(client.info.id);
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
            user: client.user.clone(),
            protocol: client.protocol,
            db: client.db,
            is_followed: tracking::follows(client, command.row),
        };
        let argument_bytes = args.iter().map(|arg| arg.len()).sum();
        client.info.argument_bytes.store(argument_bytes, Ordering::Relaxed);
        let waiter = Waiter::new(wait.keys.clone(), Box::new(body));
        txn.wait(&waiter);
        (waiter, wait)
    });
    let exclusive = txn.is_exclusive();
    if txn.flushed_all() {
        forget_saves(lp, shift, &mut txn);
    }
    let mut effects = txn.commit();
    client.pushes.append(&mut effects.pushes);
    if exclusive {
        lp.leave_all_gates();
    }
    // What it only removed because its time was over is nothing that its client was told.
    if effects.sequence > 0
        && (command.row.has(flag::WRITE) || is_script || command.id == table().exec)
    {
        connection.client.last_block = effects.sequence;
        if lp.server.durability.aof.journal.holds_replies() {
            connection.hold_back(position, effects.sequence);
        }
    }
    after(lp, shift, effects);
    Ran::Done(waits)
}

/// After FLUSHALL: a running save would be of what nobody has any more, and a file is not to bring it
/// back.
#[cold]
fn forget_saves(lp: &WorkerLoop, shift: &Shift, txn: &mut Txn<'_>) {
    lp.server.durability.saves.cancel();
    if !shift.config.save.0.is_empty() {
        // The log says what went wrong.
        let _ = save::in_foreground(&lp.server, txn, &shift.worker);
    }
}

/// The keys that a command of a client may change, as far as it says so, with their databases.
#[cold]
fn changed_keys<'a>(
    client: &'a Client,
    command: &Registered,
    args: &[&'a [u8]],
) -> Vec<(u32, &'a [u8])> {
    let mut db = client.db;
    let mut changed = Vec::new();
    if command.id != table().exec {
        add_changed_keys(&mut changed, db, command.row, args);
        return changed;
    }
    for queued in &client.transaction.queued {
        let command = &table().all[queued.command];
        let args: SmallVec<[&[u8]; 8]> = queued.args.iter().map(|arg| &**arg).collect();
        match (command.full_name, &args[..]) {
            ("select", [_, number]) => {
                let number = data::number::parse_i64(number).and_then(|n| u32::try_from(n).ok());
                db = number.unwrap_or(db);
            }
            _ => add_changed_keys(&mut changed, db, command.row, &args),
        }
    }
    changed
}

fn add_changed_keys<'a>(changed: &mut Vec<(u32, &'a [u8])>, db: u32, row: &Row, args: &[&'a [u8]]) {
    changed.extend(row.keys_changed(args).into_iter().map(|at| (db, args[at])));
}

/// The first of these keys that holds a long value which a snapshot has to save before it changes.
#[cold]
fn waits_for_snapshot<'a>(txn: &mut Txn<'_>, changed: &[(u32, &'a [u8])]) -> Option<&'a [u8]> {
    let mut changed = changed.iter();
    let waits = changed.find(|(db, key)| {
        txn.select(*db);
        txn.is_long_unsaved(key)
    });
    waits.map(|(_, key)| *key)
}

/// Notes that a command runs: once, though it may have been offered before.
fn announce(lp: &WorkerLoop, client: &Client, command: &Registered, args: &[&[u8]]) {
    client.info.last_command.store(command.id, Ordering::Relaxed);
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
            command::expire_fields(txn, command.row, args);
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
    if client.tracker.is_some() && tracking::follows(client, command.row) {
        tracking::note_reads(lp, shift, txn, client.info.id, command.row, args);
    }
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

/// Whether a waiting client is told when its key goes. The others wait for one to come.
pub fn waits_for_what_is_there(waiter: &Waiter) -> bool {
    waiting(waiter).command.row.name == "xreadgroup"
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
    // The rules may have changed since it began to wait.
    if let Err(denied) = waiting.user.check(waiting.command, &args) {
        let Waiting { command, info, user, .. } = waiting;
        let name = &user.name;
        let text = acl::refused_to(lp, info, name, denied, command, &args, Context::TopLevel);
        let mut out = Vec::new();
        Reply::new(&mut out, waiting.protocol).error(&format!("{} {text}", denied.code()));
        lp.server.count_error(denied.code());
        lp.stats.rejected(command.id);
        return Ok((Some(out), Vec::new()));
    }
    let begun = lp.ticks();
    let plan = plan(engine, waiting.command.row, &args);
    let patience = Some(lp.lock_patience(&plan));
    let mut txn = Txn::try_begin(engine, &shift.worker, plan, lp.now_ms(), patience)?;
    if txn.has_snapshot() {
        let mut changed = Vec::new();
        add_changed_keys(&mut changed, waiting.db, waiting.command.row, &args);
        if let Some(key) = waits_for_snapshot(&mut txn, &changed) {
            return Err(engine.key_shard(key));
        }
    }
    txn.select(waiting.db);
    txn.set_client(waiting.info.id);
    command::expire_fields(&mut txn, waiting.command.row, &args);
    let mut out = Vec::new();
    let mut call = Call::new(&mut txn, Reply::new(&mut out, waiting.protocol), Blocking::Again);
    call.bulk_bytes_max = shift.config.proto_max_bulk_len as usize;
    let result = handler(&mut call, &args);
    let waits = call.wait.is_some();
    let failed = result.is_err();
    if let Err(error) = result {
        out.clear();
        Reply::new(&mut out, waiting.protocol).error(&error.0);
        lp.server.count_error(error.code());
    }
    if waiting.is_followed && !waits && waiting.info.tracker.lock().is_some() {
        let (id, row) = (waiting.info.id, waiting.command.row);
        tracking::note_reads(lp, shift, &mut txn, id, row, &args);
    }
    let effects = txn.commit();
    if !waits {
        let ns = lp.ns_since(begun);
        let Waiting { command, info, .. } = waiting;
        count(lp, shift, info, command, &args, failed, lp.now_ms(), ns, None);
    }
    out.extend(effects.pushes);
    Ok(((!waits).then_some(out), effects.ready))
}

/// Takes a client out of everything the server knows it in.
pub fn forget_client(lp: &WorkerLoop, shift: &Shift, client: &mut Client) {
    pubsub::unsubscribe_all(lp, client);
    tracking::stop(lp, client);
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
    let ns = started.elapsed().as_nanos() as u64;
    lp.server.stats.evicted_ns.fetch_add(ns, Ordering::Relaxed);
    let threshold_ms = shift.config.latency_monitor_threshold_ms;
    lp.server.latency.note("eviction-cycle", ns, threshold_ms, now_ms);
    serve_waiters(lp, shift, ready);
    outcome
}

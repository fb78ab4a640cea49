//! Scripts in the server: each worker's VM, and one run of a script inside a transaction.
//!
//! `plan.rs` chooses the locks a script begins with, `cache.rs` keeps what is shared, `host.rs` is
//! what a script sees of the server, `watch.rs` ends scripts that run too long. `meter.rs` measures
//! one run, `stats.rs` adds them up. `functions.rs` has the libraries whose functions are scripts that
//! go by a name.

mod cache;
mod functions;
mod host;
mod meter;
mod plan;
mod stats;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use command::{Error, Row};
use engine::Txn;
use lua::{Outcome, Vm, VmOptions};
use resp::Reply;

pub use cache::{Brought, Cache};
pub use functions::{FileLoader, Functions, Libraries, Loaded, Present, WorkerLoader, restored};
pub use host::minds;
use host::{Called, End, ScriptHost, state};
use meter::Meter;
pub use meter::may_be_long;
pub use plan::{Known, Recent, Runs, only_reads, parse_sha, plan};
use stats::Finished;
pub use stats::{Gone, ScriptStats, Totals};
pub use watch::{KillError, Killed, NEST_LEASH, Obstacle, Watch, watch};

use crate::client::Client;
use crate::config::ScriptAtomicity;
use crate::dispatch;
use crate::request::Origin;
use crate::table::table;
use crate::worker::{Shift, WorkerLoop};

/// Shared by all workers.
pub struct Scripts {
    pub cache: Cache,
    pub functions: Functions,
    pub watch: Watch,
    /// Of each worker.
    pub runs: Vec<Runs>,
    /// Scripts may call what is not for them, too (DEBUG).
    pub may_call_all: AtomicBool,
}

impl Scripts {
    pub fn new(workers: usize) -> Scripts {
        Scripts {
            cache: Cache::new(workers),
            functions: Functions::default(),
            watch: Watch::new(workers),
            runs: (0..workers).map(|_| Runs::default()).collect(),
            may_call_all: AtomicBool::new(false),
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&self) {
        for runs in &self.runs {
            runs.parallel.reset();
            runs.restarts.reset();
            runs.exclusive.reset();
            runs.nested.reset();
            runs.unleashed.reset();
        }
        self.cache.reset_stats();
        self.functions.reset_stats();
    }

    /// Bytes of the Lua heap of each worker.
    pub fn vm_bytes_of_workers(&self) -> Vec<u64> {
        self.watch.used_bytes_of_workers()
    }

    /// Bytes of all Lua heaps.
    pub fn vm_bytes(&self) -> u64 {
        self.watch.used_bytes()
    }
}

/// How a run of a script ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// With a reply.
    #[default]
    Answered,
    /// It could not have a lock it needs: it has done nothing and is to be run again under an
    /// exclusive plan.
    Restarts,
    /// It took too long to run from within another script, or that one is to end: it has done
    /// nothing and is to be run again once that one has ended.
    Postponed,
}

/// One of a worker's two VMs, made when it is first needed: the second one runs scripts of other
/// connections from within a script that runs in the first.
#[derive(Default)]
pub struct WorkerVm {
    vm: Option<Vm>,
    generation: u64,
    /// Scripts evicted from the cache that it knows of.
    evictions: u64,
}

impl WorkerVm {
    fn vm(&mut self, lp: &WorkerLoop, shift: &Shift, level: usize) -> &mut Vm {
        let cache = &lp.server.scripts.cache;
        let (generation, evictions) = (cache.generation(), cache.evictions());
        let limit = shift.config.lua_memory_limit_bytes as usize;
        let vm = self.vm.get_or_insert_with(|| {
            let vm = Vm::new(VmOptions {
                memory_limit_bytes: limit,
                jit: shift.config.script_jit,
                redis_version: crate::REDIS_VERSION.into(),
            });
            // It reaches whichever of the two runs.
            if level == 0 {
                lp.server.scripts.watch.set_interrupter(lp.id, vm.interrupter());
            }
            vm
        });
        if self.generation != generation {
            self.generation = generation;
            vm.forget_all();
        }
        if self.evictions != evictions {
            let (list, now) = cache.evicted_since(self.evictions);
            self.evictions = now;
            match list {
                Some(list) => list.iter().for_each(|sha| vm.forget(sha)),
                None => {
                    let functions = lp.server.scripts.functions.shas();
                    vm.forget_all_but(|sha| cache.contains(sha) || functions.contains(sha));
                }
            }
        }
        vm.set_memory_limit(limit);
        vm
    }
}

/// Compiles a source and keeps it in the shared cache.
pub fn load(
    lp: &WorkerLoop,
    shift: &Shift,
    source: &[u8],
    brought: Brought,
) -> Result<Arc<Known>, Error> {
    let cache = &lp.server.scripts.cache;
    if let Some(known) = cache.get(&lua::sha_of(source)) {
        if brought == Brought::ToStay {
            cache.keep(&known);
        }
        return Ok(known);
    }
    let level = lp.level();
    let mut vm = lp.vms[level].borrow_mut();
    let compiled = vm.vm(lp, shift, level).compile(source);
    match compiled {
        Ok(script) => Ok(cache.insert(script, brought, shift.config.script_cache_entries)),
        Err(text) => Err(Error::new(String::from_utf8_lossy(&text).into_owned())),
    }
}

/// Runs a script inside a transaction; its reply, errors included, is appended to `out`, which is
/// empty. In rollback mode it leaves nothing behind unless it comes to its own end.
#[allow(clippy::too_many_arguments)]
pub fn run<'e>(
    lp: &WorkerLoop,
    shift: &'e Shift,
    client: &mut Client,
    txn: &mut Txn<'e>,
    known: Arc<Known>,
    keys: &[&[u8]],
    args: &[&[u8]],
    command: &[u8],
    read_only: bool,
    origin: Origin,
    out: &mut Vec<u8>,
) -> Ended {
    let script = &known.script;
    let flags = script.flags();
    let config = &shift.config;
    let deadline_ms = flags.deadline_ms.unwrap_or(config.script_deadline_ms);
    // Of a script that was restarted, from its first beginning.
    let began = (deadline_ms > 0).then(|| client.attempt.began.unwrap_or_else(Instant::now));
    let deadline = began.and_then(|at| at.checked_add(Duration::from_millis(deadline_ms)));
    let watch = &lp.server.scripts.watch;
    // Inside of a transaction that records already, that one is rolled back.
    let undoes_itself = config.script_atomicity == ScriptAtomicity::Rollback && !txn.is_recording();
    if undoes_itself {
        txn.record();
    }
    let undo_limit_bytes = txn.is_recording().then_some(config.script_undo_limit_bytes as usize);
    let said = lp.outbox.borrow().mark();
    let level = lp.pin();
    let run = match level {
        0 => {
            let now_ms = match origin {
                Origin::Network => lp.watch_ms(),
                _ => watch.now_ms(),
            };
            let is_function = script.library().is_some();
            watch.begin(lp.id, txn.is_exclusive(), is_function, now_ms, deadline)
        }
        _ => {
            let leash = Instant::now() + NEST_LEASH;
            watch.begin_nested(lp.id, deadline.map_or(leash, |at| at.min(leash)))
        }
    };
    txn.set_run(run.0);
    let (db, protocol) = (client.db, client.protocol);
    let transaction_db = txn.db();
    let out_of_memory = dispatch::is_over_memory_limit(shift);
    let mut state = state::UNWRITTEN | state::ANY;
    // With care also if what it reads is noted for its client.
    if !client.user.may_do_everything() || client.tracker.is_some() {
        state |= state::RESTRICTED;
    }
    if read_only || flags.no_writes {
        state |= state::READ_ONLY;
    }
    // A script that declares itself is trusted to have said what it needs.
    if out_of_memory && !flags.allow_oom {
        state |= state::OUT_OF_MEMORY;
    }
    if txn.has_snapshot() || lp.server.durability.refuses_writes(config).is_some() {
        state |= state::DISK;
    }
    let tally = known.stats.of(lp.id);
    let meter = Meter::new(tally.samples_next_run());
    if meter.times_all() {
        state |= state::TIMED;
    }
    let counted_calls = client.attempt.calls;
    let mut host = ScriptHost {
        commands: &table().all,
        bulk_bytes_max: config.proto_max_bulk_len as usize,
        lp,
        shift,
        client,
        txn,
        state,
        run,
        written_from: None,
        undo_limit_bytes,
        undo_room_bytes: undo_limit_bytes.map_or(usize::MAX, |limit_bytes| {
            limit_bytes.saturating_sub(lp.outbox.borrow().bytes())
        }),
        deadline: deadline.map(|at| (at, deadline_ms)),
        end: None,
        called: script.library().map(|_| Called { script, keys, args, command }),
        calls: 0,
        counted_calls,
        has_counted_error: false,
        restarts: false,
        meter,
    };
    let mut worker_vm = lp.vms[level].borrow_mut();
    let vm = worker_vm.vm(lp, shift, level);
    let mut outcome = vm.run(&mut host, script, keys, args, protocol, out);
    let calls = host.calls;
    lp.stats.total_commands.add(calls.saturating_sub(counted_calls));
    let ended = match host.end {
        Some(End::Leash) => Ended::Postponed,
        None if host.restarts => Ended::Restarts,
        _ => Ended::Answered,
    };
    let (written_from, has_written, end) = (host.written_from, host.has_written(), host.end);
    let mut meter = std::mem::take(&mut host.meter);
    meter.commands = host.calls;
    if let Some(end) = host.end
        && outcome != Outcome::Killed
    {
        // It has come to an end of its own before the interrupt came: its calls were refused, and
        // it may have caught that.
        let is_told = out.get(1..).is_some_and(|told| told.starts_with(end.text().as_bytes()));
        outcome = Outcome::Killed;
        if !is_told {
            out.clear();
            let text = format!("{} script: {}", end.text(), script.label());
            Reply::new(out, protocol).error(&text);
        }
    }
    // The error of a call was counted when it was made; any other is counted here.
    if out.first() == Some(&b'-') && !host.has_counted_error && ended == Ended::Answered {
        let line = String::from_utf8_lossy(&out[1..]);
        lp.server.count_error(line.split([' ', '\r']).next().unwrap_or("ERR"));
    }
    let (used_bytes, traces) = (vm.used_bytes(), vm.fresh_traces());
    drop(worker_vm);
    client.db = db;
    client.protocol = protocol;
    txn.select(transaction_db);
    txn.set_run(0);
    if undoes_itself && (ended != Ended::Answered || outcome != Outcome::Ok) {
        txn.roll_back();
        let mut outbox = lp.outbox.borrow_mut();
        // What it logged before it wrote anything stays said.
        let told = match ended {
            Ended::Answered => said.with_lines_of(written_from.unwrap_or(outbox.mark())),
            Ended::Restarts | Ended::Postponed => said,
        };
        outbox.cut_back(told);
    } else if undoes_itself && origin == Origin::Exec {
        // What else EXEC runs cannot be undone.
        txn.keep();
    }
    lp.unpin();
    match level {
        0 => watch.end(lp.id, used_bytes),
        _ => watch.end_nested(lp.id, used_bytes),
    }
    // The time it waits for another script is not its own.
    client.attempt.began = began.filter(|_| ended == Ended::Restarts);
    client.attempt.calls = match ended {
        Ended::Answered => 0,
        Ended::Restarts | Ended::Postponed => calls.max(counted_calls),
    };
    let is_nested = level > 0;
    let now_ms = lp.now_ms();
    lp.server.scripts.runs[lp.id].note(&known, txn.is_exclusive(), is_nested, ended, now_ms);
    if ended != Ended::Answered {
        tally.note_restart();
        return ended;
    }
    let bytes = |list: &[&[u8]]| list.iter().map(|item| item.len()).sum::<usize>();
    let finished = Finished {
        ns: 0,
        at_ms: now_ms,
        is_error: out.first() == Some(&b'-'),
        is_rolled_back: undoes_itself && outcome != Outcome::Ok && has_written,
        is_killed: end == Some(End::Killed),
        is_late: matches!(end, Some(End::Deadline(_))),
        is_exclusive: txn.is_exclusive(),
        bytes_in: bytes(keys) + bytes(args),
        bytes_out: out.len(),
        traces,
    };
    lp.ran_script.replace(Some(RanScript { known, finished, meter }));
    ended
}

/// A run that is to be counted once it is known how long its command took.
pub struct RanScript {
    known: Arc<Known>,
    finished: Finished,
    meter: Meter,
}

impl RanScript {
    pub fn count(&mut self, worker: usize, ns: u64) {
        self.finished.ns = ns;
        self.known.stats.of(worker).note(&self.finished, &self.meter);
    }

    /// How many commands it called.
    pub fn commands(&self) -> u64 {
        self.meter.commands
    }

    /// Keeps the script of an EVALSHA for the next one.
    pub fn keep(self, lp: &WorkerLoop, row: &Row) {
        if row.name.starts_with("evalsha") {
            lp.recent_script.set(Some(Recent(self.known)));
        }
    }

    /// For the slow log.
    pub fn describe(&self) -> String {
        let script = &self.known.script;
        self.meter.describe(script.name().unwrap_or(script.sha_hex()))
    }
}

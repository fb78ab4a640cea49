//! Scripts in the server: the cache all workers share, each worker's VM, the bridge from
//! `redis.call` to commands, and the watch over scripts that run too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use command::{Blocking, Error, flag};
use engine::Txn;
use hashbrown::HashMap;
use lua::{Host, Interrupter, LogLevel, Script, Sha, Tick, Vm, VmOptions};
use parking_lot::{Mutex, RwLock};
use resp::{Protocol, Reply};

use crate::client::Client;
use crate::dispatch;
use crate::log::Level;
use crate::request::Origin;
use crate::server::{Server, unix_ms};
use crate::table::{Registered, table};
use crate::worker::{Shift, WorkerLoop};

/// How often the watchdog looks, and how often a request to a busy script is repeated.
const WATCH_PERIOD: Duration = Duration::from_millis(10);

/// What the watchdog knows of one worker.
struct Watched {
    interrupter: Mutex<Option<Interrupter>>,
    /// Unix ms when the script that runs now began; 0 when none runs.
    started_ms: AtomicI64,
    /// It has changed the keyspace, so SCRIPT KILL is refused.
    has_written: AtomicBool,
    used_bytes: AtomicU64,
}

/// Shared by all workers.
pub struct Scripts {
    cache: RwLock<HashMap<Sha, Arc<Script>>>,
    cached_bytes: AtomicU64,
    /// Raised by SCRIPT FLUSH: VMs forget what they loaded.
    generation: AtomicU64,
    workers: Vec<Watched>,
    /// A script runs for longer than busy-reply-threshold.
    busy: AtomicBool,
    kill: AtomicBool,
}

/// Answers to SCRIPT KILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillError {
    NotBusy,
    HasWritten,
}

impl Scripts {
    pub fn new(workers: usize) -> Scripts {
        Scripts {
            cache: RwLock::default(),
            cached_bytes: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            workers: (0..workers)
                .map(|_| Watched {
                    interrupter: Mutex::new(None),
                    started_ms: AtomicI64::new(0),
                    has_written: AtomicBool::new(false),
                    used_bytes: AtomicU64::new(0),
                })
                .collect(),
            busy: AtomicBool::new(false),
            kill: AtomicBool::new(false),
        }
    }

    pub fn get(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.cache.read().get(sha).cloned()
    }

    /// Keeps a script; answers the one that is kept.
    pub fn insert(&self, script: Script) -> Arc<Script> {
        let mut cache = self.cache.write();
        cache
            .entry(*script.sha())
            .or_insert_with(|| {
                self.cached_bytes.fetch_add(script.used_bytes() as u64, Ordering::Relaxed);
                Arc::new(script)
            })
            .clone()
    }

    pub fn flush(&self) {
        self.cache.write().clear();
        self.cached_bytes.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn len(&self) -> usize {
        self.cache.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the shared cache.
    pub fn cached_bytes(&self) -> u64 {
        self.cached_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all Lua heaps.
    pub fn vm_bytes(&self) -> u64 {
        self.workers.iter().map(|worker| worker.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Whether a script runs for longer than others should have to wait.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Whether any script runs now.
    pub fn is_running(&self) -> bool {
        self.workers.iter().any(|worker| worker.started_ms.load(Ordering::Acquire) != 0)
    }

    /// Has the script that runs now end with an error.
    pub fn kill(&self) -> Result<(), KillError> {
        let running =
            self.workers.iter().find(|worker| worker.started_ms.load(Ordering::Acquire) != 0);
        let Some(running) = running else { return Err(KillError::NotBusy) };
        if running.has_written.load(Ordering::Acquire) {
            return Err(KillError::HasWritten);
        }
        self.kill.store(true, Ordering::Release);
        self.interrupt_all();
        Ok(())
    }

    /// Makes every running script stop and think.
    pub fn interrupt_all(&self) {
        for worker in &self.workers {
            if let Some(interrupter) = &*worker.interrupter.lock() {
                interrupter.request();
            }
        }
    }

    /// One look of the watchdog at all workers.
    fn watch(&self, threshold_ms: u64, now_ms: i64, is_shutting_down: bool) {
        let mut any_busy = false;
        for worker in &self.workers {
            let started_ms = worker.started_ms.load(Ordering::Acquire);
            if started_ms == 0 {
                continue;
            }
            let too_long = now_ms.saturating_sub(started_ms) as u64 >= threshold_ms.max(1);
            if too_long {
                any_busy = true;
            }
            if (too_long || is_shutting_down)
                && let Some(interrupter) = &*worker.interrupter.lock()
            {
                interrupter.request();
            }
        }
        if any_busy && !self.busy.swap(true, Ordering::AcqRel) {
            crate::log_warning!(
                "Slow script detected: still in execution after {threshold_ms} milliseconds. You \
                 can try killing the script using the SCRIPT KILL command."
            );
        }
    }
}

/// The watchdog's thread: runs until the server shuts down and no script is left.
pub fn watch(server: &Server) {
    let mut rounds = 0u32;
    while !server.is_shutting_down() || server.scripts.is_running() {
        if rounds.is_multiple_of(10) {
            server.sample_rates();
            crate::memory::measure_overhead();
        }
        rounds = rounds.wrapping_add(1);
        let threshold_ms = server.config.current().busy_reply_threshold_ms;
        server.scripts.watch(threshold_ms, unix_ms(), server.is_shutting_down());
        std::thread::park_timeout(WATCH_PERIOD);
    }
}

/// A worker's VM, made when the first script comes.
#[derive(Default)]
pub struct WorkerVm {
    vm: Option<Vm>,
    generation: u64,
}

impl WorkerVm {
    fn vm(&mut self, lp: &WorkerLoop, shift: &Shift) -> &mut Vm {
        let generation = lp.server.scripts.generation.load(Ordering::Acquire);
        let limit = shift.config.lua_memory_limit_bytes as usize;
        let vm = self.vm.get_or_insert_with(|| {
            let vm = Vm::new(VmOptions {
                memory_limit_bytes: limit,
                jit: shift.config.script_jit,
                redis_version: crate::REDIS_VERSION.into(),
            });
            *lp.server.scripts.workers[lp.id].interrupter.lock() = Some(vm.interrupter());
            vm
        });
        if self.generation != generation {
            self.generation = generation;
            vm.forget_all();
        }
        vm.set_memory_limit(limit);
        vm
    }
}

/// Compiles a source and keeps it in the shared cache.
pub fn load(lp: &WorkerLoop, shift: &Shift, source: &[u8]) -> Result<Arc<Script>, Error> {
    if let Some(script) = lp.server.scripts.get(&lua::sha_of(source)) {
        return Ok(script);
    }
    let mut vm = lp.vm.borrow_mut();
    let compiled = vm.vm(lp, shift).compile(source);
    match compiled {
        Ok(script) => Ok(lp.server.scripts.insert(script)),
        Err(text) => Err(Error::new(String::from_utf8_lossy(&text).into_owned())),
    }
}

/// Runs a script inside a transaction; its reply, errors included, is appended to `out`.
#[allow(clippy::too_many_arguments)]
pub fn run<'e>(
    lp: &WorkerLoop,
    shift: &'e Shift,
    client: &mut Client,
    txn: &mut Txn<'e>,
    script: &Script,
    keys: &[&[u8]],
    args: &[&[u8]],
    read_only: bool,
    out: &mut Vec<u8>,
) {
    let flags = script.flags();
    let watched = &lp.server.scripts.workers[lp.id];
    watched.has_written.store(false, Ordering::Release);
    watched.started_ms.store(unix_ms(), Ordering::Release);
    let (db, protocol) = (client.db, client.protocol);
    let transaction_db = txn.db();
    let out_of_memory = dispatch::is_over_memory_limit(shift);
    let mut host = ScriptHost {
        lp,
        shift,
        client,
        txn,
        read_only: read_only || flags.no_writes,
        // A script that declares itself is trusted to have said what it needs.
        refuse_oom: out_of_memory && !flags.allow_oom,
        has_written: false,
        has_counted_error: false,
    };
    let mut worker_vm = lp.vm.borrow_mut();
    let vm = worker_vm.vm(lp, shift);
    vm.run(&mut host, script, keys, args, protocol, out);
    // The error of a call was counted when it was made; any other is counted here.
    if out.first() == Some(&b'-') && !host.has_counted_error {
        let line = String::from_utf8_lossy(&out[1..]);
        lp.server.count_error(line.split([' ', '\r']).next().unwrap_or("ERR"));
    }
    watched.used_bytes.store(vm.used_bytes() as u64, Ordering::Relaxed);
    drop(worker_vm);
    client.db = db;
    client.protocol = protocol;
    txn.select(transaction_db);
    watched.started_ms.store(0, Ordering::Release);
    lp.server.scripts.kill.store(false, Ordering::Release);
    lp.server.scripts.busy.store(false, Ordering::Release);
}

/// What a running script sees of the server.
struct ScriptHost<'h, 'e> {
    lp: &'h WorkerLoop,
    shift: &'e Shift,
    client: &'h mut Client,
    txn: &'h mut Txn<'e>,
    read_only: bool,
    refuse_oom: bool,
    has_written: bool,
    /// An error reply of a call went into the statistics.
    has_counted_error: bool,
}

impl ScriptHost<'_, '_> {
    /// Why a script may not run this command now.
    fn refusal(&self, command: &Registered) -> Option<Error> {
        let row = command.row;
        if row.has(flag::NOSCRIPT) {
            return Some(Error::of("ERR This Redis command is not allowed from script"));
        }
        if self.read_only && row.has(flag::WRITE) {
            return Some(Error::of("ERR Write commands are not allowed from read-only scripts."));
        }
        if self.refuse_oom && row.has(flag::DENYOOM) && !self.has_written {
            return Some(Error::OOM);
        }
        None
    }
}

impl Host for ScriptHost<'_, '_> {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let command = table().by_name(name)?;
        command.parent.is_none().then_some(command.id as u32)
    }

    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        let mut command = &table().all[command as usize];
        if !command.subcommands.is_empty() || !command.row.accepts(args.len()) {
            command = match table().find(args) {
                Ok(command) => command,
                Err(error) => {
                    let text = match command.row.accepts(args.len()) {
                        true => &*error.0,
                        false => "ERR Wrong number of args calling Redis command from script",
                    };
                    Reply::new(reply, protocol).error(text);
                    return;
                }
            };
        }
        if let Some(error) = self.refusal(command) {
            self.lp.stats.rejected(command.id);
            Reply::new(reply, protocol).error(&error.0);
            return;
        }
        if command.row.has(flag::WRITE) && !self.has_written {
            self.has_written = true;
            self.lp.server.scripts.workers[self.lp.id].has_written.store(true, Ordering::Release);
        }
        if self.lp.server.monitor_count.load(Ordering::Relaxed) > 0 {
            let now_ms = self.txn.now_ms();
            crate::session::monitor::feed(self.lp, "lua", self.client.db, command, args, now_ms);
        }
        self.client.protocol = protocol;
        let wait = dispatch::execute(
            self.lp,
            self.shift,
            self.client,
            command,
            args,
            self.txn,
            reply,
            Origin::Script,
            Blocking::Never,
        );
        debug_assert!(wait.is_none(), "nothing waits inside a script");
        let failed = reply.first() == Some(&b'-');
        self.has_counted_error |= failed;
        self.lp.stats.ran_in_script(command.id, failed);
        self.txn.select(self.client.db);
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        let level = match level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Verbose => Level::Verbose,
            LogLevel::Notice => Level::Notice,
            LogLevel::Warning => Level::Warning,
        };
        crate::log::write(level, format_args!("{}", String::from_utf8_lossy(message)));
    }

    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()> {
        // There is one user, who may do everything.
        table().find(args).map(|_| true).map_err(|_| ())
    }

    fn tick(&mut self) -> Tick {
        let server = &self.lp.server;
        if server.scripts.kill.load(Ordering::Acquire) || server.is_shutting_down() {
            return Tick::Kill;
        }
        if server.scripts.is_busy() {
            self.lp.poll_while_busy();
        }
        let server = &self.lp.server;
        if server.scripts.kill.load(Ordering::Acquire) || server.is_shutting_down() {
            return Tick::Kill;
        }
        Tick::Continue
    }
}

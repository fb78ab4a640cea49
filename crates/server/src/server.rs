//! What all workers share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::Engine;
use parking_lot::{Mutex, RwLock};

use crate::acl::Acl;
use crate::client::ClientInfo;
use crate::client_memory::ClientMemory;
use crate::config::ConfigStore;
use crate::durability::Durability;
use crate::hot_keys::HotKeys;
use crate::latency::Latency;
use crate::listener::Listeners;
use crate::mailbox::{Address, Mail, Mailbox};
use crate::migrate::Migrations;
use crate::notify::Crier;
use crate::process::Supervisor;
use crate::pubsub::PubSub;
use crate::rates::{Rates, Totals};
use crate::script::Scripts;
use crate::slowlog::Slowlog;
use crate::stats::{SharedStats, WorkerStats};
use crate::tracking::Tracking;

/// Distinct error codes that errorstats keeps; more are counted together.
const ERROR_CODES_MAX: usize = 128;

/// How often who waits for the end of all commands looks whether a script is to blame.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(20);

/// CLIENT PAUSE.
#[derive(Default)]
pub struct Pause {
    /// Unix ms; 0 when nothing is paused.
    pub until_ms: AtomicI64,
    /// Only commands that write are held back.
    pub writes_only: AtomicBool,
}

impl Pause {
    /// Of two pauses the one that ends later and the one that holds back more both count.
    pub fn extend(&self, until_ms: i64, writes_only: bool, now_ms: i64) {
        let is_new = self.until_ms.load(Ordering::Acquire) <= now_ms;
        if is_new || !writes_only {
            self.writes_only.store(writes_only, Ordering::Relaxed);
        }
        self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }
}

/// How the server was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shutdown {
    No,
    Requested,
}

/// What is to be done before the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownHow {
    /// Save whatever the configuration says; else it goes by the save points.
    pub save: bool,
    pub nosave: bool,
    /// Whatever goes wrong.
    pub force: bool,
}

/// What became of a signal that ends the server.
#[derive(Default)]
pub struct Ending(AtomicU8);

impl Ending {
    const NONE: u8 = 0;
    const ASKED: u8 = 1;
    const BEGUN: u8 = 2;
    const INSISTED: u8 = 3;

    fn step(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A signal came.
    pub fn ask(&self) {
        self.step(Ending::NONE, Ending::ASKED);
    }

    /// Nothing was done about it yet, and nothing is to be: false when that is not so.
    pub fn abort(&self) -> bool {
        self.step(Ending::ASKED, Ending::NONE)
    }

    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire) == Ending::ASKED
    }

    /// False when it was aborted.
    pub fn begin(&self) -> bool {
        self.step(Ending::ASKED, Ending::BEGUN)
    }

    /// The server goes on after all.
    pub fn give_up(&self) {
        self.step(Ending::BEGUN, Ending::NONE);
    }

    /// Another signal came: whatever is done before the end is not to be waited for. False when
    /// nothing is.
    pub fn insist(&self) -> bool {
        self.step(Ending::BEGUN, Ending::INSISTED)
    }

    pub fn is_insisted(&self) -> bool {
        self.0.load(Ordering::Acquire) == Ending::INSISTED
    }
}

/// What became of a request to end once nothing runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRest {
    Done,
    /// A script runs for longer than others should have to wait, or than was asked for: nothing
    /// was done.
    Busy,
    /// The data could not be saved: the server goes on.
    Refused,
}

pub struct Server {
    pub engine: Engine,
    pub config: Arc<ConfigStore>,
    pub durability: Durability,
    pub acl: Acl,
    pub listeners: Listeners,
    pub supervisor: Supervisor,
    pub mailboxes: Arc<[Mailbox]>,
    pub client_memory: ClientMemory,
    pub clients: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    pub connected: AtomicUsize,
    pub blocked: AtomicUsize,
    next_client: AtomicU64,
    pub pubsub: Arc<PubSub>,
    pub tracking: Arc<Tracking>,
    /// Those that sent MONITOR.
    pub monitors: RwLock<Vec<Arc<ClientInfo>>>,
    pub monitor_count: AtomicUsize,
    pub scripts: Scripts,
    pub slowlog: Slowlog,
    pub latency: Latency,
    pub hot_keys: HotKeys,
    pub migrations: Migrations,
    errors: Mutex<HashMap<Box<str>, u64>>,
    pub stats: SharedStats,
    pub worker_stats: Vec<Arc<WorkerStats>>,
    /// Of all workers, for INFO.
    pub rates: Mutex<Rates>,
    /// Memory in use once the server was ready.
    pub startup_bytes: AtomicU64,
    pub pause: Pause,
    pub active_expire: AtomicBool,
    /// DEBUG PAUSE-CRON.
    pub is_cron_paused: AtomicBool,
    pub ending: Ending,
    shutdown: AtomicU8,
    pub started: Instant,
    pub started_ms: i64,
    /// 40 hexadecimal digits, new at every start.
    pub run_id: String,
    pub replication_id: Mutex<String>,
    pub executable: String,
}

/// Unix time in ms.
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

pub fn random_hex(digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(fastrand::u32(..16), 16).unwrap_or('0')).collect()
}

impl Server {
    pub fn new(
        config: Arc<ConfigStore>,
        mailboxes: Vec<Mailbox>,
        listeners: Listeners,
        acl: Acl,
    ) -> Server {
        let workers = mailboxes.len();
        let mailboxes: Arc<[Mailbox]> = mailboxes.into();
        let pubsub = Arc::<PubSub>::default();
        // One more than workers: threads that are not workers share the last gate's id.
        let engine = Engine::new(workers + 1);
        let tracking = Arc::new(Tracking::new(mailboxes.clone()));
        engine.set_herald(Box::new(Crier {
            pubsub: pubsub.clone(),
            tracking: tracking.clone(),
            mailboxes: mailboxes.clone(),
        }));
        Server {
            engine,
            supervisor: Supervisor::find(&config.current()),
            config,
            durability: Durability::new(workers),
            acl,
            listeners,
            mailboxes,
            client_memory: ClientMemory::default(),
            clients: Mutex::default(),
            connected: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            next_client: AtomicU64::new(1),
            pubsub,
            tracking,
            monitors: RwLock::default(),
            monitor_count: AtomicUsize::new(0),
            scripts: Scripts::new(workers),
            slowlog: Slowlog::default(),
            latency: Latency::default(),
            hot_keys: HotKeys::default(),
            migrations: Migrations::default(),
            errors: Mutex::default(),
            stats: SharedStats::default(),
            worker_stats: (0..workers).map(|_| Arc::default()).collect(),
            rates: Mutex::default(),
            startup_bytes: AtomicU64::new(0),
            pause: Pause::default(),
            active_expire: AtomicBool::new(true),
            is_cron_paused: AtomicBool::new(false),
            ending: Ending::default(),
            shutdown: AtomicU8::new(Shutdown::No as u8),
            started: Instant::now(),
            started_ms: unix_ms(),
            run_id: random_hex(40),
            replication_id: Mutex::new(random_hex(40)),
            executable: std::env::current_exe()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
        }
    }

    pub fn next_client_id(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    pub fn send(&self, info: &ClientInfo, mail: impl FnOnce(Address) -> Mail) {
        let address = Address { token: info.token, client: info.id };
        self.mailboxes[info.worker].send(mail(address));
    }

    /// Wakes every worker.
    pub fn broadcast(&self, mail: impl Fn() -> Mail) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(mail()));
    }

    /// What threads that are not workers run transactions with. They share its gate.
    pub fn own_worker(&self) -> engine::Worker {
        let id = self.mailboxes.len();
        let settings = Arc::new(crate::settings::of(&self.config.current()));
        engine::Worker::new(id, settings, self.engine.stats(id))
    }

    /// Has every worker stop once no command runs, and the data saved if it is to be. The caller
    /// holds no gate.
    #[must_use]
    pub fn shut_down_at_rest(&self, script_ms_max: Option<i64>, how: ShutdownHow) -> AtRest {
        let (gates, watch) = (self.engine.gates(), &self.scripts.watch);
        let gives_up = || watch.is_busy() || script_ms_max.is_some_and(|ms| watch.has_run_for(ms));
        while !gates.enter_all(Some(SHUTDOWN_PATIENCE), gives_up) {
            if gives_up() {
                return AtRest::Busy;
            }
        }
        let is_ready = self.durability.prepare_shutdown(self, how);
        if is_ready {
            self.shut_down();
        }
        // SAFETY: entered above, on this thread.
        unsafe { gates.leave_all() };
        if is_ready { AtRest::Done } else { AtRest::Refused }
    }

    /// Has every worker stop. Safe to call from a signal-handling thread.
    pub fn shut_down(&self) {
        self.shutdown.store(Shutdown::Requested as u8, Ordering::Release);
        self.broadcast(|| Mail::Wake);
    }

    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::Acquire) != Shutdown::No as u8
    }

    /// Counts an error reply under its code.
    pub fn count_error(&self, code: &str) {
        self.stats.total_errors.fetch_add(1, Ordering::Relaxed);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < ERROR_CODES_MAX {
            errors.insert(code.into(), 1);
        } else {
            *errors.entry("OTHER".into()).or_default() += 1;
        }
    }

    pub fn errors(&self) -> Vec<(Box<str>, u64)> {
        let mut errors: Vec<_> =
            self.errors.lock().iter().map(|(code, count)| (code.clone(), *count)).collect();
        errors.sort();
        errors
    }

    pub fn reset_stats(&self) {
        self.engine.reset_stats();
        self.stats.reset();
        self.worker_stats.iter().for_each(|stats| stats.reset());
        self.scripts.reset_stats();
        self.errors.lock().clear();
    }

    /// Adds a sample to the rates INFO shows.
    pub fn sample_rates(&self) {
        let sum = |count: fn(&WorkerStats) -> u64| self.worker_stats.iter().map(|w| count(w)).sum();
        let totals = Totals {
            commands: sum(|stats| stats.total_commands.value()),
            input_bytes: sum(|stats| stats.net_input_bytes.value()),
            output_bytes: sum(|stats| stats.net_output_bytes.value()),
        };
        self.rates.lock().sample(Instant::now(), totals);
    }

    /// Has another client's worker close it; false when somebody else did already. The caller
    /// holds all gates: a client that waits for a key is not served any more.
    pub fn close_client(&self, info: &ClientInfo) -> bool {
        if info.is_closing.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(waiter) = &*info.waiter.lock() {
            waiter.cancel();
        }
        self.send(info, Mail::Kill);
        true
    }

    /// Whether this kind of command is held back now.
    pub fn is_paused(&self, is_write: bool, now_ms: i64) -> bool {
        let until_ms = self.pause.until_ms.load(Ordering::Acquire);
        until_ms > now_ms && (is_write || !self.pause.writes_only.load(Ordering::Relaxed))
    }
}

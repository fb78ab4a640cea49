//! A worker: one thread, one event loop, its own connections.
//!
//! One turn of the loop reads and executes every connection that is ready, then sends all the
//! replies, then does its share of the periodic work. While commands run the worker holds its
//! gate; it gives it back between commands when somebody wants to go exclusive, and before it
//! sends. The loop's parts are cells of their own because a long script calls back into the loop
//! to keep other connections served (`stall.rs`): no borrow may last over a command.
//!
//! Here are the loop and the life of a connection; what is done for it stands in `requests.rs`,
//! `output.rs` and `waiting.rs`, the rest of a turn in `periodic.rs`.

mod output;
mod periodic;
mod requests;
mod stall;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command::OnTimeout;
use engine::{Pool, Waiter};
use mio::event::Event;
use mio::{Events, Poll, Registry, Token};
use resp::Span;

use crate::client::{Client, ClientInfo};
use crate::config::{Config, ConfigView};
use crate::connection::{Connection, Hold, Stream};
use crate::listener::LISTENERS_MAX;
use crate::mailbox::Mail;
use crate::script::Watch;
use crate::server::Server;
use crate::stats::WorkerStats;
use crate::ticks::Ticker;
use crate::{clock, dispatch};

pub use stall::Chore;
use stall::STALL_PERIOD;

/// The shared read buffer of a worker.
const READ_BYTES: usize = 64 * 1024;

/// How long the end waits for what is to be safe on disk before it is answered.
const END_PATIENCE: Duration = Duration::from_secs(5);

pub const WAKER: Token = Token(usize::MAX);
/// Listeners have the tokens from here on.
pub const FIRST_LISTENER: usize = WAKER.0 - LISTENERS_MAX;

/// What stays the same until the configuration changes.
pub struct Shift {
    pub worker: engine::Worker,
    pub config: Arc<Config>,
}

impl Shift {
    fn new(server: &Server, id: usize, config: Arc<Config>) -> Shift {
        let settings = Arc::new(crate::settings::of(&config));
        let worker = engine::Worker::new(id, settings, server.engine.stats(id))
            .stopped_by(server.scripts.watch.stopped_runs(id));
        Shift { worker, config }
    }
}

/// A client that waits for a key, or for the disk.
pub struct Blocked {
    pub waiter: Arc<Waiter>,
    pub deadline_ms: Option<i64>,
    pub on_timeout: OnTimeout,
}

/// What the poller said of one source.
#[derive(Clone, Copy)]
struct Ready {
    token: Token,
    readable: bool,
    writable: bool,
    /// The peer will send nothing more.
    ended: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Ready {
        Ready {
            token: event.token(),
            readable: event.is_readable(),
            writable: event.is_writable(),
            ended: event.is_read_closed(),
        }
    }
}

/// Time as of the last look at the clock.
#[derive(Clone, Copy)]
struct Clock {
    wall_ms: i64,
    at: Instant,
    /// The same time, as the watch over scripts tells it.
    watch_ms: i64,
    /// The ticker's reading; beyond all others when time stands still between two looks.
    ticks: u64,
}

impl Clock {
    fn read(at: Instant, ticker: &Ticker, watch: &Watch) -> Clock {
        let (wall, stands_still) = clock::read();
        let ticks = if stands_still { u64::MAX } else { ticker.now() };
        Clock { wall_ms: wall.as_millis() as i64, at, watch_ms: watch.time_of(at), ticks }
    }
}

pub struct WorkerLoop {
    pub server: Arc<Server>,
    pub id: usize,
    poll: RefCell<Poll>,
    registry: Registry,
    connections: RefCell<Vec<Option<Box<Connection>>>>,
    free_tokens: RefCell<Vec<usize>>,
    /// Connections with output to send.
    dirty: RefCell<Vec<usize>>,
    /// Connections that have input left to execute or to read.
    unfinished: RefCell<VecDeque<usize>>,
    /// Events of this turn that are not handled yet.
    ready: RefCell<VecDeque<Ready>>,
    /// A command runs now: this is a turn from within a long script.
    is_busy: Cell<bool>,
    blocked: RefCell<hashbrown::HashMap<usize, Blocked>>,
    deadlines: RefCell<BTreeSet<(i64, usize)>>,
    paused: RefCell<Vec<usize>>,
    /// Connections whose events came while their own script ran.
    missed: RefCell<Vec<usize>>,
    /// Mails for a connection whose script ran when they came.
    postponed_mail: RefCell<Vec<Mail>>,
    /// Connections whose output waits for the append-only file.
    held_back: RefCell<Vec<usize>>,
    /// Connections blocked in WAITAOF.
    syncing: RefCell<Vec<usize>>,
    /// What was safe when they were looked at.
    seen_durable: Cell<u64>,
    /// Connections that wait for locks.
    stalled: RefCell<VecDeque<usize>>,
    /// One of them waits for all keys; and one of those that were offered again in this turn.
    is_waiting: Cell<bool>,
    is_waiting_again: Cell<bool>,
    /// What could not be done yet because somebody kept a lock.
    chores: RefCell<Vec<Chore>>,
    /// Keys whose waiters could not be served yet for the same reason.
    pub unserved: RefCell<Vec<engine::KeyName>>,
    view: RefCell<ConfigView>,
    shift: RefCell<Rc<Shift>>,
    /// The configuration was changed here: nothing more is executed under the old one.
    is_shift_over: Cell<bool>,
    in_gate: Cell<bool>,
    /// How many scripts run here, each from within the one before. While there are any, the gates
    /// stay as they are.
    scripts: Cell<usize>,
    /// Until when scripts may begin in this turn from within the one that runs.
    nests_until: Cell<Option<Instant>>,
    /// Somebody has waited in vain in this turn, and the others need not.
    is_gate_refused: Cell<bool>,
    is_shard_refused: Cell<bool>,
    clock: Cell<Clock>,
    /// The end of the last command, which is the beginning of the next.
    mark: Cell<u64>,
    ticker: Ticker,
    unsent_bytes: Cell<usize>,
    /// Received and not executed of the connection that runs now, this command included.
    pub request_bytes: Cell<usize>,
    read_buffer: RefCell<Vec<u8>>,
    spans: RefCell<Vec<Span>>,
    spare_buffers: RefCell<Vec<Vec<u8>>>,
    /// Messages published by the transaction that runs now.
    pub outbox: RefCell<crate::outbox::Outbox>,
    /// What MONITOR is to be shown of the script that runs now, once it is sure that it need not
    /// run again.
    pub held_lines: RefCell<Option<Vec<Arc<[u8]>>>>,
    /// The second is for scripts that run from within one in the first.
    pub vms: [RefCell<crate::script::WorkerVm>; 2],
    /// The script of the command that runs now, as its planning found it.
    pub found_script: RefCell<Option<Arc<crate::script::Known>>>,
    /// The script that just ran, to be counted at the end of its command.
    pub ran_script: RefCell<Option<crate::script::RanScript>>,
    /// How the script ended that just ran.
    pub script_ended: Cell<crate::script::Ended>,
    /// The script that ran last by its SHA1.
    pub recent_script: Cell<Option<crate::script::Recent>>,
    /// The migration of the command that runs now, to be begun once its client waits for it.
    pub migration: Cell<Option<crate::migrate::Migration>>,
    /// An empty buffer for the reply of the next script.
    pub script_reply: Cell<Vec<u8>>,
    pub pool: RefCell<Pool>,
    pub stats: Arc<WorkerStats>,
    next_accept: Cell<usize>,
    expire_turn: Cell<usize>,
    cron_at: Cell<Instant>,
}

impl WorkerLoop {
    pub fn new(server: Arc<Server>, id: usize, poll: Poll) -> io::Result<WorkerLoop> {
        let registry = poll.registry().try_clone()?;
        let view = ConfigView::new(server.config.clone());
        let shift = Rc::new(Shift::new(&server, id, view.snapshot()));
        let stats = server.worker_stats[id].clone();
        let now = Instant::now();
        let ticker = Ticker::new();
        let clock = Clock::read(now, &ticker, &server.scripts.watch);
        Ok(WorkerLoop {
            server,
            id,
            poll: RefCell::new(poll),
            registry,
            connections: RefCell::default(),
            free_tokens: RefCell::default(),
            dirty: RefCell::default(),
            unfinished: RefCell::default(),
            ready: RefCell::default(),
            is_busy: Cell::new(false),
            blocked: RefCell::default(),
            deadlines: RefCell::default(),
            paused: RefCell::default(),
            missed: RefCell::default(),
            postponed_mail: RefCell::default(),
            held_back: RefCell::default(),
            syncing: RefCell::default(),
            seen_durable: Cell::default(),
            stalled: RefCell::default(),
            is_waiting: Cell::new(false),
            is_waiting_again: Cell::new(false),
            chores: RefCell::default(),
            unserved: RefCell::default(),
            view: RefCell::new(view),
            shift: RefCell::new(shift),
            is_shift_over: Cell::new(false),
            in_gate: Cell::new(false),
            scripts: Cell::new(0),
            nests_until: Cell::new(None),
            is_gate_refused: Cell::new(false),
            is_shard_refused: Cell::new(false),
            clock: Cell::new(clock),
            mark: Cell::new(ticker.now()),
            ticker,
            unsent_bytes: Cell::new(0),
            request_bytes: Cell::new(0),
            read_buffer: RefCell::new(vec![0; READ_BYTES]),
            spans: RefCell::default(),
            spare_buffers: RefCell::default(),
            outbox: RefCell::default(),
            held_lines: RefCell::default(),
            vms: Default::default(),
            found_script: RefCell::default(),
            ran_script: RefCell::default(),
            script_ended: Cell::default(),
            recent_script: Cell::default(),
            migration: Cell::default(),
            script_reply: Cell::default(),
            pool: RefCell::default(),
            stats,
            next_accept: Cell::new(0),
            expire_turn: Cell::new(0),
            cron_at: Cell::new(now),
        })
    }

    /// Serves until the server shuts down.
    pub fn run(&self) {
        let mut events = Events::with_capacity(1024);
        let mut mails = Vec::new();
        while !self.server.is_shutting_down() {
            let polled = self.poll.borrow_mut().poll(&mut events, Some(self.patience()));
            match polled {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    crate::log_warning!("worker {}: polling failed: {error}", self.id);
                    self.server.shut_down();
                    break;
                }
                _ => {}
            }
            self.look_at_clock();
            let started = self.clock.get().at;
            self.renew_shift();
            self.renew_patience();
            let shift = self.shift.borrow().clone();
            self.ready.borrow_mut().extend(events.iter().map(Ready::from));
            // What a client is told of keys it has cached, before what it asks next.
            if !self.server.mailboxes[self.id].is_empty() {
                self.read_mail(&shift, &mut mails);
            }
            self.offer_stalled(&shift);
            self.on_ready(&shift);
            self.read_mail(&shift, &mut mails);
            self.go_on_with_unfinished(&shift);
            self.do_chores(&shift);
            self.leave_gate();
            self.release_held_back();
            self.release_synced(&shift);
            self.flush_all(&shift);
            self.look_at_clock();
            self.time_out_blocked(&shift);
            self.end_pause();
            self.evict_clients(&shift);
            if self.clock.get().at >= self.cron_at.get() {
                self.cron(&shift);
                self.leave_gate();
                self.flush_all(&shift);
            }
            self.leave_gate();
            self.stats.event_loop_cycles.add(1);
            self.stats.event_loop_ns.add(started.elapsed().as_nanos() as u64);
        }
        self.close_all();
    }

    /// How long the loop may sleep.
    fn patience(&self) -> Duration {
        if !self.unfinished.borrow().is_empty()
            || !self.server.mailboxes[self.id].is_empty()
            || self.may_release()
        {
            return Duration::ZERO;
        }
        let mut patience = self.cron_at.get().saturating_duration_since(Instant::now());
        if self.is_held_up() {
            patience = patience.min(STALL_PERIOD);
        }
        let deadline_ms = self.deadlines.borrow().first().map(|(deadline_ms, _)| *deadline_ms);
        let is_paused = !self.paused.borrow().is_empty();
        let pause_ms = is_paused.then(|| self.server.pause.until_ms.load(Ordering::Acquire));
        if let Some(next_ms) = [deadline_ms, pause_ms].into_iter().flatten().min() {
            let left_ms = (next_ms - clock::read().0.as_millis() as i64).max(0) as u64;
            patience = patience.min(Duration::from_millis(left_ms));
        }
        patience
    }

    fn look_at_clock(&self) {
        let at = Instant::now();
        self.ticker.adjust(at);
        self.clock.set(Clock::read(at, &self.ticker, &self.server.scripts.watch));
    }

    /// Ends a command: answers how long it took, ns. The next one begins here.
    pub fn lap(&self) -> u64 {
        let now = self.ticker.now();
        self.ticker.ns_between(self.mark.replace(now), now)
    }

    /// The ticker's reading, for `ns_since`.
    #[inline]
    pub fn ticks(&self) -> u64 {
        self.ticker.now()
    }

    /// How long ago a reading was, without what the two readings take.
    #[inline]
    pub fn ns_since(&self, ticks: u64) -> u64 {
        self.ticker.ns_between(ticks + self.ticker.cost(), self.ticker.now())
    }

    /// Unix time in ms when the command that runs now began.
    pub fn now_ms(&self) -> i64 {
        self.clock.get().wall_ms + self.ms_since_clock()
    }

    /// The same as the watch over scripts tells time, which nobody sets back.
    pub fn watch_ms(&self) -> i64 {
        self.clock.get().watch_ms + self.ms_since_clock()
    }

    #[inline]
    fn ms_since_clock(&self) -> i64 {
        let since = self.clock.get().ticks;
        (self.ticker.ns_between(since, self.mark.get()) / 1_000_000) as i64
    }

    /// Has the next command run under a fresh look at the configuration.
    pub fn end_shift(&self) {
        self.is_shift_over.set(true);
    }

    /// Answers whether the configuration has changed.
    fn renew_shift(&self) -> bool {
        self.is_shift_over.set(false);
        let mut view = self.view.borrow_mut();
        let is_stale = view.refresh();
        if is_stale {
            let fresh = Shift::new(&self.server, self.id, view.snapshot());
            *self.shift.borrow_mut() = Rc::new(fresh);
        }
        is_stale
    }

    // --- connections -------------------------------------------------------------------------

    fn take(&self, token: usize) -> Option<Box<Connection>> {
        self.connections.borrow_mut().get_mut(token)?.take()
    }

    /// Puts a connection back after it ran, or closes it.
    fn put(&self, shift: &Shift, token: usize, mut connection: Box<Connection>) {
        if connection.client.close_after_reply && connection.pending_output() == 0 {
            connection.is_dead = true;
        }
        if connection.is_dead {
            self.close(shift, token, connection);
            return;
        }
        if connection.pending_output() > 0 && !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.borrow_mut().push(token);
        }
        self.report_memory(&connection, false);
        self.connections.borrow_mut()[token] = Some(connection);
    }

    fn accept(&self, listener: Token) {
        loop {
            let stream = match self.server.listeners.accept(listener) {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    crate::log_warning!("Accepting client connection: {error}");
                    return;
                }
            };
            // Round robin over the workers: few connections still use all cores.
            let to = self.next_accept.get() % self.server.mailboxes.len();
            self.next_accept.set(to + 1);
            if to == self.id {
                self.adopt(stream);
            } else {
                self.server.mailboxes[to].send(Mail::Accepted(stream));
            }
        }
    }

    /// Starts to serve an accepted connection.
    fn adopt(&self, mut stream: Stream) {
        let shift = self.shift.borrow().clone();
        let config = &shift.config;
        if !stream.is_opening() {
            self.server.stats.connections_received.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(refusal) = crate::listener::refusal(&self.server, config, &stream) {
            self.server.stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write(refusal.as_bytes());
            return;
        }
        crate::listener::tune(&stream, config);
        let token = self.free_tokens.borrow_mut().pop().unwrap_or_else(|| {
            let mut connections = self.connections.borrow_mut();
            connections.push(None);
            connections.len() - 1
        });
        if stream.register(&self.registry, Token(token)).is_err() {
            self.free_tokens.borrow_mut().push(token);
            return;
        }
        let now_ms = self.clock.get().wall_ms;
        let id = self.server.next_client_id();
        let user = self.server.acl.default_user().clone();
        let info = Arc::new(ClientInfo::new(id, self.id, token, &stream, user, now_ms));
        self.server.clients.lock().insert(id, info.clone());
        self.server.connected.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(info, !self.server.acl.needs_password());
        self.connections.borrow_mut()[token] = Some(Box::new(Connection::new(stream, client)));
    }

    fn close(&self, shift: &Shift, token: usize, mut connection: Box<Connection>) {
        connection.stream.close(&self.registry);
        if connection.hold == Hold::Stalled {
            self.forget_stalled(token);
        }
        if connection.hold == Hold::Paused {
            self.server.blocked.fetch_sub(1, Ordering::Relaxed);
        }
        self.unblock(shift, token, true);
        dispatch::forget_client(self, shift, &mut connection.client);
        // From here on nobody counts it: whoever evicts meanwhile finds it closing.
        connection.client.info.is_closing.store(true, Ordering::Release);
        self.server.client_memory.forget(&connection.client.info);
        self.server.clients.lock().remove(&connection.client.info.id);
        self.server.connected.fetch_sub(1, Ordering::Relaxed);
        self.free_tokens.borrow_mut().push(token);
    }

    fn close_all(&self) {
        let shift = self.shift.borrow().clone();
        let count = self.connections.borrow().len();
        for token in 0..count {
            if let Some(mut connection) = self.take(token) {
                let block = connection.held_back_for();
                if block == 0
                    || self.server.durability.aof.journal.wait_durable(block, END_PATIENCE)
                {
                    connection.flush(|| block);
                }
                self.close(&shift, token, connection);
            }
        }
        self.leave_gate();
    }
}

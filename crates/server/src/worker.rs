//! A worker: one thread, one event loop, its own connections.
//!
//! One turn of the loop reads and executes every connection that is ready, then sends all the
//! replies, then does its share of the periodic work. While commands run the worker holds its
//! gate; it gives it back between commands when somebody wants to go exclusive, and before it
//! sends. The loop's parts are cells of their own because a long script calls back into the loop
//! to keep other connections served (`stall.rs`): no borrow may last over a command.

mod stall;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command::OnTimeout;
use engine::{Plan, Pool, Txn, Waiter};
use mio::event::Event;
use mio::{Events, Poll, Registry, Token};
use resp::{Limits, Parsed, Reply, Span};
use smallvec::SmallVec;

use crate::client::{Client, ClientInfo};
use crate::config::{Config, ConfigView};
use crate::connection::{Connection, Hold, Stream};
use crate::durability::aof::SYNC_MS_MAX;
use crate::listener::LISTENERS_MAX;
use crate::mailbox::{Address, Mail, WaitEnd};
use crate::server::Server;
use crate::stats::WorkerStats;
use crate::ticks::Ticker;
use crate::{client_memory, clock, dispatch, durability, look_ahead, memory, tls};

pub use stall::Chore;
use stall::STALL_PERIOD;

/// The shared read buffer of a worker.
const READ_BYTES: usize = 64 * 1024;
/// Replies waiting in one turn before they are sent, so that latency stays bounded.
const FLUSH_BYTES: usize = 1 << 20;
/// While a connection has more than this to take, none of its further requests is executed. They
/// are still read, so that a client which sends all before it reads anything gets there; how many
/// is up to client-query-buffer-limit.
const OUTPUT_PAUSE_BYTES: usize = 16 << 20;
/// Bytes read from one connection in one turn.
const TURN_BYTES: usize = 4 << 20;
/// Output buffers up to this size are kept for the next connection that replies.
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;
const SPARE_BUFFERS_MAX: usize = 64;

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

/// A client that waits for a key.
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
    /// The ticker's reading; beyond all others when time stands still between two looks.
    ticks: u64,
}

impl Clock {
    fn read(at: Instant, ticker: &Ticker) -> Clock {
        let (wall, stands_still) = clock::read();
        let ticks = if stands_still { u64::MAX } else { ticker.now() };
        Clock { wall_ms: wall.as_millis() as i64, at, ticks }
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
            clock: Cell::new(Clock::read(now, &ticker)),
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
            self.offer_stalled(&shift);
            self.on_ready(&shift);
            self.read_mail(&shift, &mut mails);
            self.go_on_with_unfinished(&shift);
            self.do_chores(&shift);
            self.leave_gate();
            self.release_held_back();
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
        self.clock.set(Clock::read(at, &self.ticker));
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
        let clock = self.clock.get();
        clock.wall_ms + (self.ticker.ns_between(clock.ticks, self.mark.get()) / 1_000_000) as i64
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

    /// Looks ahead over a batch and asks for the memory of its keys. Returns where the next look
    /// is due.
    fn prefetch(&self, db: u32, buffer: &[u8], from: usize) -> usize {
        let (targets, next) = look_ahead::targets(buffer, from);
        if targets.len() > 1 && self.enter_gate() {
            self.server.engine.prefetch(db, &targets);
        }
        next
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

    fn on_event(&self, shift: &Shift, token: usize, ready: Ready) {
        let Some(mut connection) = self.take(token) else { return };
        connection.is_ending |= ready.ended;
        let has_output = connection.pending_output() > 0 || connection.stream.wants_write();
        if ready.writable && has_output && !connection.is_dirty {
            self.flush(&mut connection);
            self.go_on_if_drained(token, &connection);
        }
        if ready.readable && !connection.is_dead {
            self.receive(shift, token, &mut connection);
        }
        self.put(shift, token, connection);
    }

    /// Reads what there is and executes it.
    fn receive(&self, shift: &Shift, token: usize, connection: &mut Connection) {
        let mut received = 0;
        connection.may_read = true;
        if connection.stream.is_opening() && !self.shake_hands(shift, connection) {
            connection.may_read = false;
            return;
        }
        while connection.may_read && !connection.is_dead && received < TURN_BYTES {
            if connection.client.close_after_reply || self.is_shift_over.get() {
                break;
            }
            let count = if connection.input.is_empty() && connection.hold == Hold::None {
                let mut buffer = self.take_read_buffer();
                let count = self.read(connection, &mut buffer, 0);
                if count > 0 {
                    let used = self.execute(shift, token, connection, &mut buffer[..count]);
                    connection.input.extend_from_slice(&buffer[used..count]);
                }
                *self.read_buffer.borrow_mut() = buffer;
                count
            } else {
                let mut input = std::mem::take(&mut connection.input);
                let old = input.len();
                resp::reserve_for(&mut input, connection.needed, READ_BYTES);
                let room = (input.capacity() - old).clamp(1, 1 << 20);
                input.resize(old + room, 0);
                let count = self.read(connection, &mut input, old);
                input.truncate(old + count);
                if count > 0 && connection.hold == Hold::None {
                    let used = self.execute(shift, token, connection, &mut input);
                    input.drain(..used);
                }
                if input.is_empty() {
                    input = Vec::new();
                }
                connection.input = input;
                count
            };
            received += count;
            if count == 0 {
                break;
            }
            if connection.input.len() as u64 > shift.config.client_query_buffer_limit_bytes {
                self.server.stats.query_buffer_disconnections.fetch_add(1, Ordering::Relaxed);
                connection.is_dead = true;
            }
        }
        if connection.may_read && !connection.is_dead && !connection.client.close_after_reply {
            self.unfinished.borrow_mut().push_back(token);
        }
    }

    /// Goes on with the handshake of a connection; true once it may send requests.
    fn shake_hands(&self, shift: &Shift, connection: &mut Connection) -> bool {
        match connection.stream.shake_hands() {
            Ok(false) => return false,
            Ok(true) => {}
            Err(error) => {
                self.give_up_handshake(connection, &error);
                return false;
            }
        }
        let denial = crate::listener::denial(&self.server, &shift.config, &connection.stream);
        let stats = &self.server.stats;
        match denial {
            Some(denial) => {
                stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
                connection.output.extend_from_slice(denial.as_bytes());
                connection.client.close_after_reply = true;
            }
            None => drop(stats.connections_received.fetch_add(1, Ordering::Relaxed)),
        }
        denial.is_none()
    }

    fn give_up_handshake(&self, connection: &mut Connection, why: &dyn std::fmt::Display) {
        let info = &connection.client.info;
        crate::log_warning!(
            "Error accepting a client connection: {why} (addr={} laddr={})",
            info.address,
            info.local_address
        );
        connection.is_dead = true;
    }

    fn take_read_buffer(&self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut *self.read_buffer.borrow_mut());
        // Empty when a long script polls from within a command that was read into it.
        if buffer.is_empty() {
            buffer.resize(READ_BYTES, 0);
        }
        buffer
    }

    /// One read into `buffer[from..]`. Clears `may_read` when the socket is drained.
    fn read(&self, connection: &mut Connection, buffer: &mut [u8], from: usize) -> usize {
        let room = buffer.len() - from;
        loop {
            match connection.stream.read(&mut buffer[from..]) {
                Ok(0) => {
                    // It may have ended only its side, and wait for replies.
                    let has_replies = connection.pending_output() > 0;
                    connection.client.close_after_reply |= has_replies;
                    connection.is_dead |= !has_replies;
                    connection.may_read = false;
                    return 0;
                }
                Ok(count) => {
                    connection.may_read =
                        count == room || connection.is_ending || connection.stream.has_more();
                    self.stats.net_input_bytes.add(count as u64);
                    self.stats.reads.add(1);
                    let info = &connection.client.info;
                    info.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
                    return count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.may_read = connection.stream.has_more();
                    connection.is_ending = false;
                    return 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.is_dead = true;
                    return 0;
                }
            }
        }
    }

    /// Executes the requests in `buffer`; answers how many bytes are done with.
    fn execute(
        &self,
        shift: &Shift,
        token: usize,
        connection: &mut Connection,
        buffer: &mut [u8],
    ) -> usize {
        if connection.output.capacity() == 0
            && let Some(spare) = self.spare_buffers.borrow_mut().pop()
        {
            connection.output = spare;
        }
        self.request_bytes.set(buffer.len());
        let before = connection.pending_output();
        let mut spans = std::mem::take(&mut *self.spans.borrow_mut());
        let mut used = 0;
        connection.needed = 0;
        self.mark.set(self.ticker.now());
        let mut prefetched = 0;
        while connection.hold == Hold::None
            && !connection.client.close_after_reply
            && !connection.is_dead
            && !connection.client.info.is_closing.load(Ordering::Acquire)
            && !self.is_shift_over.get()
            && connection.pending_output() < OUTPUT_PAUSE_BYTES
            && used < buffer.len()
        {
            if used >= prefetched {
                prefetched = self.prefetch(connection.client.db, buffer, used);
            }
            let limits = Limits {
                bulk_len_max: shift.config.proto_max_bulk_len,
                authenticated: connection.client.is_authenticated,
            };
            match connection.parser.parse(&mut buffer[used..], &limits, &mut spans) {
                Ok(Parsed::Command { consumed }) => {
                    let request = &buffer[used..];
                    let args: SmallVec<[&[u8]; 16]> =
                        spans.iter().map(|span| span.of(request)).collect();
                    let outer = self.is_busy.replace(true);
                    let ran = dispatch::run(self, shift, token, connection, &args);
                    self.is_busy.set(outer);
                    if !ran {
                        // Held back: it is parsed again when the connection goes on.
                        break;
                    }
                    used += consumed;
                    if self.view.borrow().is_stale() && used < buffer.len() {
                        // The rest of the batch is to see the new configuration.
                        self.unfinished.borrow_mut().push_back(token);
                        break;
                    }
                }
                Ok(Parsed::Empty { consumed }) => used += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    connection.needed = needed;
                    break;
                }
                Err(error) => {
                    let protocol = connection.client.protocol;
                    error.write(&mut Reply::new(&mut connection.output, protocol));
                    self.server.count_error("ERR");
                    connection.client.close_after_reply = true;
                    used = buffer.len();
                }
            }
        }
        *self.spans.borrow_mut() = spans;
        if self.is_shift_over.get() && used < buffer.len() {
            self.unfinished.borrow_mut().push_back(token);
        }
        let fresh = connection.pending_output().saturating_sub(before);
        self.unsent_bytes.set(self.unsent_bytes.get() + fresh);
        used
    }

    /// Handles what the poller reported. One event at a time leaves the queue: those behind a
    /// script that runs for long are then handled by `serve_others`.
    fn on_ready(&self, shift: &Shift) {
        loop {
            let Some(ready) = self.ready.borrow_mut().pop_front() else { return };
            match ready.token {
                WAKER => {}
                token if token.0 >= FIRST_LISTENER => self.accept(token),
                Token(token) if self.is_running(token) => self.missed.borrow_mut().push(token),
                Token(token) => self.on_event(shift, token, ready),
            }
            if self.unsent_bytes.get() > FLUSH_BYTES {
                self.leave_gate();
                self.flush_all(shift);
            }
        }
    }

    /// Whether a command of this connection runs now, so that it cannot be looked at.
    fn is_running(&self, token: usize) -> bool {
        self.is_busy.get() && self.connections.borrow().get(token).is_some_and(Option::is_none)
    }

    /// Goes on with connections that were cut short in an earlier turn or just released.
    fn go_on_with_unfinished(&self, shift: &Shift) {
        let missed = std::mem::take(&mut *self.missed.borrow_mut());
        for token in missed {
            if self.is_running(token) {
                self.missed.borrow_mut().push(token);
            } else if let Some(Some(connection)) = self.connections.borrow_mut().get_mut(token) {
                connection.may_read = true;
                // Nobody looked at what the event said.
                connection.is_ending = true;
                self.unfinished.borrow_mut().push_back(token);
            }
        }
        let count = self.unfinished.borrow().len();
        for _ in 0..count {
            let Some(token) = self.unfinished.borrow_mut().pop_front() else { return };
            if self.is_running(token) {
                self.missed.borrow_mut().push(token);
            } else {
                self.go_on(shift, token);
            }
        }
    }

    fn go_on(&self, shift: &Shift, token: usize) {
        let Some(mut connection) = self.take(token) else { return };
        if connection.hold == Hold::None && !connection.input.is_empty() {
            let mut input = std::mem::take(&mut connection.input);
            let used = self.execute(shift, token, &mut connection, &mut input);
            input.drain(..used);
            connection.input = if input.is_empty() { Vec::new() } else { input };
        }
        if connection.may_read && !connection.is_dead {
            self.receive(shift, token, &mut connection);
        }
        self.put(shift, token, connection);
    }

    // --- output ------------------------------------------------------------------------------

    fn flush(&self, connection: &mut Connection) {
        let count = connection.flush(|| self.server.durability.aof.journal.durable());
        if count > 0 {
            self.stats.net_output_bytes.add(count as u64);
            self.stats.writes.add(1);
            connection.client.info.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
        }
        if connection.output.is_empty() && connection.output.capacity() > 0 {
            let buffer = std::mem::take(&mut connection.output);
            let mut spare = self.spare_buffers.borrow_mut();
            if buffer.capacity() <= SPARE_BUFFER_BYTES_MAX && spare.len() < SPARE_BUFFERS_MAX {
                spare.push(buffer);
            }
        }
        self.report_memory(connection, true);
    }

    /// Whether some of what waits for the append-only file may go now.
    fn may_release(&self) -> bool {
        let journal = &self.server.durability.aof.journal;
        !self.held_back.borrow().is_empty()
            && (journal.durable() != self.seen_durable.get() || journal.is_denied())
    }

    /// Has output sent that is safe now. Who waits for what may never be safe is disconnected: what
    /// became of its commands is not known.
    fn release_held_back(&self) {
        if !self.may_release() {
            return;
        }
        let journal = &self.server.durability.aof.journal;
        let durable = journal.durable();
        self.seen_durable.set(durable);
        for token in std::mem::take(&mut *self.held_back.borrow_mut()) {
            let mut connections = self.connections.borrow_mut();
            let Some(Some(connection)) = connections.get_mut(token) else { continue };
            connection.is_listed = false;
            if journal.is_denied() && connection.held_back_for() > durable {
                connection.is_dead = true;
            }
            if !connection.is_dirty {
                connection.is_dirty = true;
                self.dirty.borrow_mut().push(token);
            }
        }
    }

    /// Keeps count of what clients take.
    fn report_memory(&self, connection: &Connection, is_flushed: bool) {
        connection.report_buffers(is_flushed);
        let info = &connection.client.info;
        self.server.client_memory.note(info, info.sum_of_parts());
    }

    /// maxmemory-clients.
    fn evict_clients(&self, shift: &Shift) {
        if self.server.client_memory.is_over_limit(&shift.config)
            && client_memory::is_anyone_mortal(&self.server)
            && self.enter_all_gates()
        {
            let now_ms = self.clock.get().wall_ms;
            let describe = |info: &ClientInfo| crate::session::client::describe(info, now_ms);
            client_memory::evict(&self.server, &shift.config, describe);
            self.leave_all_gates();
        }
    }

    /// Has a connection go on whose requests waited for its output to be taken.
    fn go_on_if_drained(&self, token: usize, connection: &Connection) {
        let has_requests = !connection.input.is_empty() && !connection.parser.is_partial();
        if has_requests
            && connection.hold == Hold::None
            && connection.pending_output() < OUTPUT_PAUSE_BYTES
        {
            self.unfinished.borrow_mut().push_back(token);
        }
    }

    fn flush_all(&self, shift: &Shift) {
        self.unsent_bytes.set(0);
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        let mut holds_back = false;
        for token in dirty.drain(..) {
            let Some(mut connection) = self.take(token) else { continue };
            connection.is_dirty = false;
            self.flush(&mut connection);
            self.go_on_if_drained(token, &connection);
            if connection.pending_output() > 0 {
                self.limit_output(shift, &mut connection);
            }
            if connection.is_held_back() {
                holds_back = true;
                if !std::mem::replace(&mut connection.is_listed, true) {
                    self.held_back.borrow_mut().push(token);
                }
            }
            // It is still over when `put` sees output left: the poller says when to go on.
            if connection.is_dead
                || (connection.client.close_after_reply && connection.pending_output() == 0)
            {
                self.close(shift, token, connection);
            } else {
                self.connections.borrow_mut()[token] = Some(connection);
            }
        }
        let mut list = self.dirty.borrow_mut();
        if list.is_empty() {
            *list = dirty;
        }
        if holds_back {
            self.server.durability.aof.journal.wait(self.id);
        }
    }

    /// client-output-buffer-limit: disconnects whoever does not read what it asked for.
    fn limit_output(&self, shift: &Shift, connection: &mut Connection) {
        let class = if connection.client.is_subscriber() {
            &shift.config.client_output_buffer_limit.pubsub
        } else {
            &shift.config.client_output_buffer_limit.normal
        };
        let pending = connection.pending_output() as u64;
        let now_ms = self.clock.get().wall_ms;
        let over_hard = class.hard_bytes > 0 && pending > class.hard_bytes;
        let over_soft = class.soft_bytes > 0 && pending > class.soft_bytes;
        let since = match (over_soft, connection.over_soft_limit_since_ms) {
            (false, _) => None,
            (true, None) => Some(now_ms),
            (true, since) => since,
        };
        connection.over_soft_limit_since_ms = since;
        let too_long = since.is_some_and(|since| now_ms - since > class.soft_seconds as i64 * 1000);
        if over_hard || too_long {
            crate::log_warning!(
                "Client id={} addr={} closed for overcoming of output buffer limits.",
                connection.client.info.id,
                connection.client.info.address
            );
            self.server.stats.output_buffer_disconnections.fetch_add(1, Ordering::Relaxed);
            connection.is_dead = true;
        }
    }

    // --- mail --------------------------------------------------------------------------------

    fn read_mail(&self, shift: &Shift, mails: &mut Vec<Mail>) {
        mails.append(&mut self.postponed_mail.borrow_mut());
        self.server.mailboxes[self.id].take(mails);
        self.handle_mail(shift, mails);
    }

    fn handle_mail(&self, shift: &Shift, mails: &mut Vec<Mail>) {
        for mail in mails.drain(..) {
            match mail {
                Mail::Wake => {}
                Mail::Accepted(stream) => self.adopt(stream),
                Mail::Push(to, bytes) => self.push(shift, to, &bytes),
                Mail::Unblocked(to, reply) => self.on_unblocked(shift, to, reply),
                Mail::WaitEnded(to, end) => self.end_wait(shift, to, end),
                Mail::Kill(to) => {
                    if let Some((token, mut connection)) = self.take_addressed(to) {
                        connection.is_dead = true;
                        self.put(shift, token, connection);
                    }
                }
                Mail::Resume => {
                    let paused = std::mem::take(&mut *self.paused.borrow_mut());
                    for token in paused {
                        if let Some(mut connection) = self.take(token) {
                            if connection.hold == Hold::Paused {
                                connection.hold = Hold::None;
                                self.unfinished.borrow_mut().push_back(token);
                            }
                            self.put(shift, token, connection);
                        }
                    }
                }
            }
        }
    }

    fn take_addressed(&self, to: Address) -> Option<(usize, Box<Connection>)> {
        let mut connections = self.connections.borrow_mut();
        let slot = connections.get_mut(to.token)?;
        if slot.as_ref()?.client.info.id != to.client {
            return None;
        }
        slot.take().map(|connection| (to.token, connection))
    }

    fn push(&self, shift: &Shift, to: Address, bytes: &[u8]) {
        let Some((token, mut connection)) = self.take_addressed(to) else { return };
        if !connection.client.close_after_reply {
            connection.output.extend_from_slice(bytes);
            self.unsent_bytes.set(self.unsent_bytes.get() + bytes.len());
            self.limit_output(shift, &mut connection);
        }
        self.put(shift, token, connection);
    }

    // --- waiting -----------------------------------------------------------------------------

    /// Registers that the command of a connection waits.
    pub fn block(&self, token: usize, info: &ClientInfo, blocked: Blocked) {
        if let Some(deadline_ms) = blocked.deadline_ms {
            self.deadlines.borrow_mut().insert((deadline_ms, token));
        }
        *info.waiter.lock() = Some(blocked.waiter.clone());
        // Whoever killed it meanwhile saw no waiter to cancel.
        if info.is_closing.load(Ordering::Acquire) {
            blocked.waiter.cancel();
        }
        self.server.blocked.fetch_add(1, Ordering::Relaxed);
        self.blocked.borrow_mut().insert(token, blocked);
    }

    /// Ends the wait of a connection, however it came to its end.
    fn unblock(&self, shift: &Shift, token: usize, cancel: bool) -> Option<Blocked> {
        let blocked = self.blocked.borrow_mut().remove(&token)?;
        if let Some(deadline_ms) = blocked.deadline_ms {
            self.deadlines.borrow_mut().remove(&(deadline_ms, token));
        }
        self.server.blocked.fetch_sub(1, Ordering::Relaxed);
        if cancel {
            blocked.waiter.cancel();
            self.see_to(shift, Chore::Waiter(blocked.waiter.clone()));
        }
        Some(blocked)
    }

    fn on_unblocked(&self, shift: &Shift, to: Address, reply: Vec<u8>) {
        let Some((token, mut connection)) = self.take_addressed(to) else { return };
        if connection.hold == Hold::Blocked {
            self.unblock(shift, token, false);
            *connection.client.info.waiter.lock() = None;
            connection.client.info.argument_bytes.store(0, Ordering::Relaxed);
            connection.hold = Hold::None;
            if dispatch::lets_reply_through(&mut connection.client) {
                let journal = &self.server.durability.aof.journal;
                if journal.holds_replies() {
                    connection.hold_back(connection.output.len(), journal.last());
                }
                connection.output.extend_from_slice(&reply);
            }
            self.unfinished.borrow_mut().push_back(token);
        }
        self.put(shift, token, connection);
    }

    fn time_out_blocked(&self, shift: &Shift) {
        loop {
            let due = self.deadlines.borrow().first().copied();
            let Some((deadline_ms, token)) = due else { return };
            if deadline_ms > self.clock.get().wall_ms {
                return;
            }
            self.deadlines.borrow_mut().remove(&(deadline_ms, token));
            match self.blocked.borrow_mut().get_mut(&token) {
                Some(blocked) if blocked.waiter.cancel() => {}
                // Being served right now, which may come to nothing: look again soon.
                Some(blocked) if !blocked.waiter.is_done() => {
                    let again_ms = self.clock.get().wall_ms + 1;
                    blocked.deadline_ms = Some(again_ms);
                    self.deadlines.borrow_mut().insert((again_ms, token));
                    continue;
                }
                // Its reply is on the way.
                _ => continue,
            }
            let client = self.connections.borrow()[token].as_ref().map(|c| c.client.info.id);
            if let Some(client) = client {
                self.end_wait(shift, Address { token, client }, WaitEnd::Timeout);
            }
        }
    }

    /// Answers a blocked client whose waiter was cancelled, which goes on then.
    fn end_wait(&self, shift: &Shift, to: Address, end: WaitEnd) {
        let blocked = self.blocked.borrow();
        let Some(Blocked { waiter, on_timeout, .. }) = blocked.get(&to.token) else { return };
        let (waiter, on_timeout) = (waiter.clone(), *on_timeout);
        drop(blocked);
        let protocol = match self.connections.borrow().get(to.token) {
            Some(Some(connection)) if connection.client.info.id == to.client => {
                connection.client.protocol
            }
            _ => return,
        };
        self.see_to(shift, Chore::Waiter(waiter));
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, protocol);
        match (end, on_timeout) {
            (WaitEnd::Timeout, OnTimeout::Null) => reply.null(),
            (WaitEnd::Timeout, OnTimeout::NullArray) => reply.null_array(),
            (WaitEnd::Error, _) => {
                reply.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                self.server.count_error("UNBLOCKED");
            }
        }
        self.on_unblocked(shift, to, out);
    }

    /// Holds a connection back until CLIENT PAUSE is over.
    pub fn hold_paused(&self, token: usize) {
        self.paused.borrow_mut().push(token);
    }

    /// Has connections go on once CLIENT PAUSE is over.
    fn end_pause(&self) {
        let until_ms = self.server.pause.until_ms.load(Ordering::Acquire);
        if !self.paused.borrow().is_empty() && until_ms <= self.clock.get().wall_ms {
            self.server.mailboxes[self.id].send(Mail::Resume);
        }
    }

    // --- periodic work -----------------------------------------------------------------------

    fn cron(&self, shift: &Shift) {
        let period = Duration::from_millis(1000 / u64::from(shift.config.hz.clamp(1, 500)));
        self.cron_at.set(self.clock.get().at + period);
        let now_ms = self.clock.get().wall_ms;
        let is_loading = self.server.durability.loading.is_on();
        if self.server.active_expire.load(Ordering::Relaxed)
            && !is_loading
            && !self.server.durability.delays_writes()
            && !self.server.is_paused(true, now_ms)
            && self.enter_gate()
        {
            // A quarter of the period, as Redis allows its slow cycle.
            let budget = period / 4;
            let started = Instant::now();
            let (turn, ready) = self.server.engine.expire_cycle(
                &shift.worker,
                self.server.mailboxes.len(),
                self.expire_turn.get(),
                now_ms,
                || started.elapsed() > budget || self.server.engine.gates().is_wanted(),
            );
            self.expire_turn.set(turn);
            dispatch::serve_waiters(self, shift, ready);
        }
        if !is_loading && dispatch::is_over_memory_limit(shift) {
            let _ = dispatch::make_room(self, shift, now_ms);
        }
        if self.id == 0
            && durability::save::is_due(&self.server, &shift.config)
            && self.enter_all_gates()
        {
            let engine = &self.server.engine;
            let mut txn = Txn::begin(engine, &shift.worker, Plan::Exclusive, now_ms);
            // The log says what went wrong; it is tried again.
            let _ = durability::save::in_background(&self.server, &mut txn);
            txn.commit();
            self.leave_all_gates();
        }
        self.close_idle(shift, now_ms);
        self.server.durability.aof.journal.look_at_sync(SYNC_MS_MAX);
        // The peak has to be seen now and then even if nobody asks.
        memory::used_bytes();
    }

    /// timeout: closes clients that were silent for too long.
    fn close_idle(&self, shift: &Shift, now_ms: i64) {
        let count = self.connections.borrow().len();
        for token in 0..count {
            let Some(mut connection) = self.take(token) else { continue };
            if connection.over_soft_limit_since_ms.is_some() {
                self.limit_output(shift, &mut connection);
            }
            let last_ms = connection.client.info.last_active_ms.load(Ordering::Relaxed);
            let limit_ms = i64::from(shift.config.timeout_seconds) * 1000;
            let exempt = connection.hold == Hold::Blocked
                || connection.client.is_subscriber()
                || connection.client.is_monitor;
            if limit_ms > 0 && !exempt && now_ms - last_ms > limit_ms {
                connection.is_dead = true;
            }
            if connection.stream.is_opening()
                && now_ms - connection.client.info.created_ms > tls::HANDSHAKE_MS_MAX
            {
                self.give_up_handshake(&mut connection, &"the handshake takes too long");
            }
            if connection.is_dead {
                self.close(shift, token, connection);
            } else {
                self.connections.borrow_mut()[token] = Some(connection);
            }
        }
    }
}

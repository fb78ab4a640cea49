//! A client's session: what outlives one command.
//!
//! [`Client`] belongs to the worker of its connection. [`ClientInfo`] is the part that other
//! threads may look at (CLIENT LIST, CLIENT KILL); its fields are atomics or have their own lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
use std::time::Instant;

use engine::{KeyName, Waiter, Watch};
use hashbrown::HashSet;
use parking_lot::Mutex;
use resp::Protocol;

use crate::acl::User;
use crate::client_memory::IDLE_BYTES;
use crate::connection::Stream;
use crate::tracking::Tracker;

/// How much CLIENT REPLY lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// The next command's reply is dropped, then it is on again.
    SkipNext,
    /// This command's reply is dropped.
    Skip,
}

/// What others may know of a client.
pub struct ClientInfo {
    pub id: u64,
    pub worker: usize,
    /// Its place in the worker's table of connections.
    pub token: usize,
    pub fd: i32,
    pub address: String,
    pub local_address: String,
    pub created_ms: i64,
    pub name: Mutex<Box<[u8]>>,
    pub lib_name: Mutex<Box<[u8]>>,
    pub lib_version: Mutex<Box<[u8]>>,
    pub user: Mutex<Arc<User>>,
    pub db: AtomicU32,
    pub resp: AtomicU8,
    pub subscriptions: AtomicUsize,
    pub patterns: AtomicUsize,
    pub shard_subscriptions: AtomicUsize,
    /// Commands queued in MULTI; -1 outside.
    pub multi: AtomicI64,
    /// What those commands take.
    pub multi_bytes: AtomicUsize,
    pub watching: AtomicUsize,
    /// What the watched keys take.
    pub watched_bytes: AtomicUsize,
    /// What the names of its channels and patterns take.
    pub subscribed_bytes: AtomicUsize,
    /// What the prefixes take that it hears of.
    pub prefix_bytes: AtomicUsize,
    /// The arguments of the command it is blocked in.
    pub argument_bytes: AtomicUsize,
    pub last_active_ms: AtomicI64,
    /// Index of the last command in the command table.
    pub last_command: AtomicUsize,
    /// Received and not executed.
    pub query_buffer_bytes: AtomicUsize,
    /// Room for more in the same buffer.
    pub query_buffer_free_bytes: AtomicUsize,
    /// Not sent yet, and the buffer it waits in.
    pub output_buffer_bytes: AtomicUsize,
    pub output_capacity_bytes: AtomicUsize,
    /// All it takes, as counted by `ClientMemory`.
    pub memory_bytes: AtomicUsize,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub commands: AtomicU64,
    pub is_monitor: AtomicBool,
    pub is_unix_socket: bool,
    /// What is kept for its TLS session.
    pub session_bytes: usize,
    pub no_evict: AtomicBool,
    pub no_touch: AtomicBool,
    /// CLIENT CAPA redirect: to be told where to go, by a server that is none of those that say so.
    pub follows_redirects: AtomicBool,
    /// Killed: its worker will close it, and it runs nothing more.
    pub is_closing: AtomicBool,
    /// Set while it is blocked.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    /// How it is told of changes of keys, if it keeps a cache.
    pub tracker: Mutex<Option<Arc<Tracker>>>,
}

impl ClientInfo {
    pub fn new(
        id: u64,
        worker: usize,
        token: usize,
        stream: &Stream,
        user: Arc<User>,
        now_ms: i64,
    ) -> ClientInfo {
        let (address, local_address) = crate::listener::addresses(stream);
        ClientInfo {
            id,
            worker,
            token,
            fd: stream.fd(),
            address,
            local_address,
            created_ms: now_ms,
            name: Mutex::default(),
            lib_name: Mutex::default(),
            lib_version: Mutex::default(),
            user: Mutex::new(user),
            db: AtomicU32::new(0),
            resp: AtomicU8::new(2),
            subscriptions: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            shard_subscriptions: AtomicUsize::new(0),
            multi: AtomicI64::new(-1),
            multi_bytes: AtomicUsize::new(0),
            watching: AtomicUsize::new(0),
            watched_bytes: AtomicUsize::new(0),
            subscribed_bytes: AtomicUsize::new(0),
            prefix_bytes: AtomicUsize::new(0),
            argument_bytes: AtomicUsize::new(0),
            last_active_ms: AtomicI64::new(now_ms),
            last_command: AtomicUsize::new(NO_COMMAND),
            query_buffer_bytes: AtomicUsize::new(0),
            query_buffer_free_bytes: AtomicUsize::new(0),
            output_buffer_bytes: AtomicUsize::new(0),
            output_capacity_bytes: AtomicUsize::new(0),
            memory_bytes: AtomicUsize::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            is_monitor: AtomicBool::new(false),
            is_unix_socket: stream.is_unix(),
            session_bytes: stream.session_bytes(),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            follows_redirects: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            waiter: Mutex::new(None),
            tracker: Mutex::new(None),
        }
    }
}

impl ClientInfo {
    /// All the memory it takes, from what its worker reported of the parts.
    pub fn sum_of_parts(&self) -> usize {
        let parts = [
            &self.query_buffer_bytes,
            &self.query_buffer_free_bytes,
            &self.output_capacity_bytes,
            &self.multi_bytes,
            &self.watched_bytes,
            &self.subscribed_bytes,
            &self.prefix_bytes,
            &self.argument_bytes,
        ];
        parts
            .iter()
            .fold(IDLE_BYTES + self.session_bytes, |sum, part| sum + part.load(Ordering::Relaxed))
    }

    pub fn is_subscriber(&self) -> bool {
        [&self.subscriptions, &self.patterns, &self.shard_subscriptions]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether it connects from this machine.
    pub fn is_local(&self) -> bool {
        let address = self.address.parse::<SocketAddr>();
        self.is_unix_socket || address.is_ok_and(|address| address.ip().is_loopback())
    }
}

/// `last_command` of a client that has not sent one yet.
pub const NO_COMMAND: usize = usize::MAX;

/// A command held back in MULTI.
pub struct Queued {
    pub command: usize,
    pub args: Vec<Box<[u8]>>,
}

/// MULTI, EXEC, WATCH.
#[derive(Default)]
pub struct Transaction {
    pub is_open: bool,
    /// A command could not be queued: EXEC will be refused.
    pub is_broken: bool,
    /// MULTI ROLLBACK: the first error undoes all.
    pub undoes: bool,
    pub queued: Vec<Queued>,
    pub queued_bytes: usize,
    pub watch: Arc<Watch>,
    /// Watched keys, and whether each had expired already when it was watched.
    pub watched: Vec<(KeyName, bool)>,
}

#[derive(Default)]
pub struct Subscriptions {
    pub channels: HashSet<Box<[u8]>>,
    pub patterns: HashSet<Box<[u8]>>,
    pub shard_channels: HashSet<Box<[u8]>>,
}

impl Subscriptions {
    pub fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0 && self.shard_channels.is_empty()
    }
}

/// What is known of a request that had begun before.
#[derive(Default)]
pub struct Attempt {
    /// Its script could not have its locks, and begins exclusive now.
    pub is_restarted: bool,
    /// It was shown to MONITOR, and counted.
    pub is_announced: bool,
    /// When its script began first, if it was restarted.
    pub began: Option<Instant>,
    /// Calls that its script has made in runs that were undone. They are in the statistics, and
    /// the next run counts only what it does beyond them.
    pub calls: u64,
}

pub struct Client {
    pub info: Arc<ClientInfo>,
    pub db: u32,
    pub protocol: Protocol,
    pub user: Arc<User>,
    /// It has said who it is, or did not need to.
    pub is_authenticated: bool,
    pub reply_mode: ReplyMode,
    pub transaction: Transaction,
    pub subscriptions: Subscriptions,
    pub is_monitor: bool,
    pub no_touch: bool,
    /// The last block of the append-only file that tells of a change of its own.
    pub last_block: u64,
    /// QUIT, a protocol error, a kill: close once the output is flushed.
    pub close_after_reply: bool,
    /// Of the request that runs or is offered again.
    pub attempt: Attempt,
    /// It keeps a cache, and is told when keys change.
    pub tracker: Option<Arc<Tracker>>,
    /// CLIENT CACHING was said of the next command.
    pub caching: bool,
    /// What it is to be sent behind the reply.
    pub pushes: Vec<u8>,
}

impl Client {
    /// From now on it is this user.
    pub fn become_user(&mut self, user: Arc<User>, is_authenticated: bool) {
        *self.info.user.lock() = user.clone();
        self.user = user;
        self.is_authenticated = is_authenticated;
    }

    pub fn new(info: Arc<ClientInfo>, is_authenticated: bool) -> Client {
        let user = info.user.lock().clone();
        Client {
            user,
            info,
            db: 0,
            protocol: Protocol::Resp2,
            is_authenticated,
            reply_mode: ReplyMode::On,
            transaction: Transaction::default(),
            subscriptions: Subscriptions::default(),
            is_monitor: false,
            no_touch: false,
            last_block: 0,
            close_after_reply: false,
            attempt: Attempt::default(),
            tracker: None,
            caching: false,
            pushes: Vec::new(),
        }
    }

    /// RESP2 clients with subscriptions may only send a few commands.
    pub fn is_subscriber(&self) -> bool {
        !self.subscriptions.is_empty()
    }
}

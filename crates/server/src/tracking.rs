//! Client-side caching: which clients have read which keys, and who is told when those change.
//!
//! A read notes its keys here while it holds their locks, and changes are looked up here while theirs
//! are held, so between a read and a change there is no gap in which an invalidation could be lost.
//! What is sent to a client goes through its worker's mailbox, and so comes behind the replies that
//! were written before; what the client did itself comes behind that command's reply.
//!
//! Thread safety: keys are in partitions with a lock each. It comes behind the locks of the keyspace;
//! under it no other lock is taken. The other two are read by every change that is told: that of the
//! prefixes comes before that of the clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::{Cause, Class, Engine, KeyHasher, Notice, Notices};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use resp::{Protocol, Reply};

use crate::client::ClientInfo;
use crate::mailbox::{Address, Mail, Mailbox};

const CHANNEL: &[u8] = b"__redis__:invalidate";
const PARTITIONS: usize = 64;

/// What a prefix takes beside its two texts, about.
const PLACE_BYTES: usize = 96;

/// Whose reads are noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All.
    #[default]
    Reads,
    /// Those behind CLIENT CACHING YES.
    OptIn,
    /// All but those behind CLIENT CACHING NO.
    OptOut,
    /// None: it hears of all changes under its prefixes.
    Broadcast,
}

/// How one client wants to be told.
#[derive(Default)]
pub struct Tracker {
    pub mode: Mode,
    /// Not of its own changes.
    pub skips_own: bool,
    /// Another client that hears it in its place.
    pub redirect: Option<Arc<ClientInfo>>,
    /// That one is gone.
    pub is_broken: AtomicBool,
    pub prefixes: Vec<Box<[u8]>>,
}

impl Tracker {
    pub fn redirect_id(&self) -> u64 {
        self.redirect.as_ref().map_or(0, |info| info.id)
    }
}

type Readers = HashMap<Box<[u8]>, Vec<u64>>;

pub struct Tracking {
    mailboxes: Arc<[Mailbox]>,
    hasher: KeyHasher,
    partitions: Box<[Mutex<Readers>]>,
    keys: AtomicUsize,
    items: AtomicUsize,
    clients: RwLock<HashMap<u64, Arc<ClientInfo>>>,
    /// With the clients that want to hear of what begins so.
    prefixes: RwLock<BTreeMap<Box<[u8]>, Vec<u64>>>,
}

fn read_at<'a>((at, notice): (usize, Notice<'a>)) -> Option<(&'a [u8], usize)> {
    match notice {
        Notice::Read { key } => Some((key, at)),
        _ => None,
    }
}

/// What became invalid.
enum Invalid<'a> {
    Keys(&'a [&'a [u8]]),
    All,
}

impl Tracking {
    pub fn new(mailboxes: Arc<[Mailbox]>) -> Tracking {
        Tracking {
            mailboxes,
            hasher: KeyHasher::new(),
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            clients: RwLock::default(),
            prefixes: RwLock::default(),
        }
    }

    pub fn clients(&self) -> usize {
        self.clients.read().len()
    }

    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Keys, each as often as there are clients that have read it.
    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    pub fn prefixes(&self) -> usize {
        self.prefixes.read().len()
    }

    /// From here on this client is told.
    pub fn enable(&self, engine: &Engine, info: &Arc<ClientInfo>, tracker: Arc<Tracker>) {
        let mut prefixes = self.prefixes.write();
        let mut clients = self.clients.write();
        for prefix in &tracker.prefixes {
            let ids = prefixes.entry(prefix.clone()).or_default();
            if !ids.contains(&info.id) {
                ids.push(info.id);
            }
        }
        let bytes = tracker.prefixes.iter().map(|prefix| 2 * prefix.len() + PLACE_BYTES);
        info.prefix_bytes.store(bytes.sum(), Ordering::Relaxed);
        *info.tracker.lock() = Some(tracker);
        clients.insert(info.id, info.clone());
        engine.set_tracking(true);
    }

    /// From here on it is not. What it has read is forgotten when it changes.
    pub fn disable(&self, engine: &Engine, info: &ClientInfo) {
        let Some(tracker) = info.tracker.lock().take() else { return };
        info.prefix_bytes.store(0, Ordering::Relaxed);
        let mut prefixes = self.prefixes.write();
        let mut clients = self.clients.write();
        for prefix in &tracker.prefixes {
            if let Some(ids) = prefixes.get_mut(prefix) {
                ids.retain(|id| *id != info.id);
                if ids.is_empty() {
                    prefixes.remove(prefix);
                }
            }
        }
        clients.remove(&info.id);
        if clients.is_empty() {
            engine.set_tracking(false);
            self.forget_all();
        }
    }

    fn forget_all(&self) {
        for partition in &self.partitions {
            let gone = std::mem::take(&mut *partition.lock());
            self.keys.fetch_sub(gone.len(), Ordering::Relaxed);
            self.items.fetch_sub(gone.values().map(Vec::len).sum(), Ordering::Relaxed);
        }
    }

    fn partition(&self, key: &[u8]) -> &Mutex<Readers> {
        &self.partitions[self.hasher.hash_one(key) as usize % PARTITIONS]
    }

    /// A client has read a key, whose lock is held. Answers whether it had not before. O(clients that
    /// have).
    pub fn remember(&self, client: u64, key: &[u8]) -> bool {
        let mut readers = self.partition(key).lock();
        let ids = readers.entry_ref(key).or_insert_with(|| {
            self.keys.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        });
        let is_new = !ids.contains(&client);
        if is_new {
            ids.push(client);
            self.items.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// tracking-table-max-keys: while there are too many keys, some are told to have changed.
    pub fn limit(&self, keys_max: u64) {
        let keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX);
        let mut at = fastrand::usize(..PARTITIONS);
        while keys_max > 0 && self.keys() > keys_max {
            let mut left = self.keys() - keys_max;
            let mut gone = Vec::new();
            let mut readers = self.partitions[at % PARTITIONS].lock();
            // A walk over the partition for one key alone would be dear.
            left = left.max(readers.len() / 16);
            readers.retain(|key, ids| {
                let goes = left > 0;
                if goes {
                    left -= 1;
                    gone.push((key.clone(), std::mem::take(ids)));
                }
                !goes
            });
            drop(readers);
            for (key, ids) in gone {
                self.keys.fetch_sub(1, Ordering::Relaxed);
                self.items.fetch_sub(ids.len(), Ordering::Relaxed);
                let keys = [&key[..]];
                ids.iter().for_each(|id| self.send(*id, &Invalid::Keys(&keys), None));
            }
            at += 1;
        }
    }

    /// Tells of the changes of a transaction, whose locks are held. Answers what its own client is
    /// to be sent behind its reply.
    pub fn tell(&self, notices: &Notices, client: u64) -> Vec<u8> {
        let mut own = Vec::new();
        let mut told: Vec<(&[u8], Cause)> = Vec::new();
        let mut last = None;
        // What was changed before its own client first read it is no news to that client.
        let reads: HashMap<&[u8], usize> = notices.iter().enumerate().filter_map(read_at).collect();
        for (at, notice) in notices.iter().enumerate() {
            match notice {
                Notice::Event { key, event, cause, .. } => {
                    let changes = !matches!(event.class, Class::New | Class::Miss);
                    // One change has several events.
                    if changes && last.replace((key, cause)) != Some((key, cause)) {
                        told.push((key, cause));
                        let keeper =
                            reads.get(key).is_some_and(|read| *read > at).then_some(client);
                        self.invalidate(key, cause, client, keeper, &mut own);
                    }
                }
                Notice::Read { .. } => last = None,
                Notice::Flush => {
                    self.forget_all();
                    let ids: Vec<u64> = self.clients.read().keys().copied().collect();
                    for id in ids {
                        let own = (id == client).then_some(&mut own);
                        self.send(id, &Invalid::All, own);
                    }
                }
                Notice::Message { .. } => {}
            }
        }
        if !told.is_empty() {
            self.broadcast(&told, client, &mut own);
        }
        own
    }

    /// Tells those who have read a key, but the keeper, whose copy is still good.
    fn invalidate(
        &self,
        key: &[u8],
        cause: Cause,
        client: u64,
        keeper: Option<u64>,
        own: &mut Vec<u8>,
    ) {
        let ids = {
            let mut readers = self.partition(key).lock();
            let Some(mut ids) = readers.remove(key) else { return };
            let kept = ids.extract_if(.., |id| Some(*id) == keeper).collect::<Vec<_>>();
            if kept.is_empty() {
                self.keys.fetch_sub(1, Ordering::Relaxed);
            } else {
                readers.insert(key.into(), kept);
            }
            ids
        };
        self.items.fetch_sub(ids.len(), Ordering::Relaxed);
        let keys = [key];
        for id in ids {
            let is_own = id == client;
            // What it read before it chose to hear by prefixes is no matter any more.
            if self.is(id, |tracker| tracker.mode == Mode::Broadcast)
                || (is_own && cause == Cause::Client && self.skips_own(id))
            {
                continue;
            }
            self.send(id, &Invalid::Keys(&keys), is_own.then_some(&mut *own));
        }
    }

    /// Tells those who want to hear of all keys that begin in some way.
    fn broadcast(&self, told: &[(&[u8], Cause)], client: u64, own: &mut Vec<u8>) {
        let prefixes = self.prefixes.read();
        for (prefix, ids) in &*prefixes {
            let under = told.iter().filter(|(key, _)| key.starts_with(prefix));
            let mut under: Vec<(&[u8], Cause)> = under.copied().collect();
            under.sort_unstable_by_key(|(key, _)| *key);
            under.dedup_by_key(|(key, _)| *key);
            for &id in ids {
                let skips_own = id == client && self.skips_own(id);
                let wanted =
                    under.iter().filter(|(_, cause)| !skips_own || *cause == Cause::Server);
                let keys: Vec<&[u8]> = wanted.map(|(key, _)| *key).collect();
                if !keys.is_empty() {
                    self.send(id, &Invalid::Keys(&keys), (id == client).then_some(&mut *own));
                }
            }
        }
    }

    fn skips_own(&self, id: u64) -> bool {
        self.is(id, |tracker| tracker.skips_own)
    }

    /// Whether something holds for how a client is told.
    fn is(&self, id: u64, holds: impl Fn(&Tracker) -> bool) -> bool {
        let info = self.clients.read().get(&id).cloned();
        info.is_some_and(|info| info.tracker.lock().as_ref().is_some_and(|t| holds(t)))
    }

    /// Tells one client, or the one that hears it in its place. What it is to be told behind its
    /// reply goes to `own`.
    fn send(&self, id: u64, invalid: &Invalid<'_>, own: Option<&mut Vec<u8>>) {
        let Some(info) = self.clients.read().get(&id).cloned() else { return };
        let Some(tracker) = info.tracker.lock().clone() else { return };
        let mut out = Vec::new();
        let mut to = &info;
        match &tracker.redirect {
            Some(other) if other.is_closing.load(Ordering::Acquire) => {
                tracker.is_broken.store(true, Ordering::Relaxed);
                if protocol_of(&info) == Protocol::Resp2 {
                    return;
                }
                let mut reply = Reply::new(&mut out, Protocol::Resp3);
                reply.push(2);
                reply.bulk(b"tracking-redir-broken");
                reply.integer(other.id as i64);
            }
            redirect => {
                to = redirect.as_ref().unwrap_or(&info);
                let protocol = protocol_of(to);
                let mut reply = Reply::new(&mut out, protocol);
                if protocol == Protocol::Resp3 {
                    reply.push(2);
                    reply.bulk(b"invalidate");
                } else if redirect.is_some() && to.is_subscriber() {
                    reply.array(3);
                    reply.bulk(b"message");
                    reply.bulk(CHANNEL);
                } else {
                    return;
                }
                match invalid {
                    Invalid::All => reply.null(),
                    Invalid::Keys(keys) => {
                        reply.array(keys.len());
                        keys.iter().for_each(|key| reply.bulk(key));
                    }
                }
            }
        }
        match own {
            Some(own) if to.id == id => own.append(&mut out),
            _ => {
                let address = Address { token: to.token, client: to.id };
                self.mailboxes[to.worker].send(Mail::Push(address, out.into()));
            }
        }
    }
}

fn protocol_of(info: &ClientInfo) -> Protocol {
    match info.resp.load(Ordering::Relaxed) {
        3 => Protocol::Resp3,
        _ => Protocol::Resp2,
    }
}

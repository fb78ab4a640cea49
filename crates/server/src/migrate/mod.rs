//! MIGRATE, off the workers: keys that are on their way to another server.
//!
//! The command itself only packs the keys and has its client wait. A thread sends them while everybody
//! goes on; nothing is locked meanwhile, so a target that does not answer costs nobody but the client
//! that asked. Each key is watched: one that nobody changed is removed once the target has it. One that
//! was changed is sent again, as it is then; one that is gone is removed at the target. What keeps
//! changing is held while it is sent for the last time, for a second at most.
//!
//! `session/migrate.rs` begins migrations; `link.rs` talks to targets.

mod link;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use command::{Error, Result as Outcome};
use engine::{Entry, KeyName, Plan, Txn, Waiter, Watch, Worker};
use parking_lot::Mutex;
use persist::rdb::{self, Version};
use resp::{Protocol, Reply, write_request};

pub use link::{Answers, Target};
use link::{Broken, Links, Phase};

use crate::client::ClientInfo;
use crate::mailbox::Mail;
use crate::server::{Server, unix_ms};
use crate::worker::{Chore, Shift, WorkerLoop};

/// Migrations that run at the same time; more wait for their turn.
const THREADS_MAX: usize = 16;

/// How often changed keys are sent again before they are held.
const ROUNDS_MAX: usize = 3;

/// How long they may be held.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// How soon is seen that CLIENT PAUSE is over.
const PAUSE_PATIENCE: Duration = Duration::from_millis(10);

/// How long is waited for shards with the gate held, and then without.
const SHARD_PATIENCE: Duration = Duration::from_millis(1);

/// Keys that are to be sent, with the requests that make them at the target.
#[derive(Default)]
pub struct Batch {
    pub keys: Vec<(Box<[u8]>, Arc<Watch>)>,
    pub requests: Vec<u8>,
}

impl Batch {
    /// As they are now. Those that are not there are left out.
    pub fn pack<'k>(txn: &Txn<'_>, keys: impl Iterator<Item = &'k [u8]>, replaces: bool) -> Batch {
        let mut batch = Batch::default();
        for key in keys {
            let Some(entry) = txn.read(key) else { continue };
            batch.add(key, entry, replaces, txn.now_ms());
        }
        batch
    }

    fn add(&mut self, key: &[u8], entry: &Entry, replaces: bool, now_ms: i64) {
        // 0 would be for ever.
        let ttl_ms = entry.expire_at_ms().map_or(0, |at_ms| (at_ms - now_ms).max(1));
        let ttl_ms = ttl_ms.to_string();
        let payload = rdb::dump(entry.get(), Version::V10);
        let words: [&[u8]; 5] = [b"RESTORE", key, ttl_ms.as_bytes(), &payload, b"REPLACE"];
        let count = if replaces { 5 } else { 4 };
        write_request(&mut self.requests, &words[..count]);
        self.keys.push((key.into(), Arc::default()));
    }

    /// One that is gone here, and must not stay there.
    fn add_removal(&mut self, key: &[u8]) {
        write_request(&mut self.requests, &[&b"DEL"[..], key]);
        self.keys.push((key.into(), Arc::default()));
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Has changes of the keys noted. The transaction holds them.
    pub fn watch(&self, txn: &mut Txn<'_>) {
        self.keys.iter().for_each(|(key, watch)| txn.watch(key, watch));
    }

    /// The keys that the target has now.
    pub fn arrived<'b>(
        &'b self,
        answers: &'b Answers,
    ) -> impl Iterator<Item = (&'b [u8], &'b Arc<Watch>)> {
        let answered = self.keys.iter().zip(&answers.replies);
        answered.filter(|(_, reply)| reply.is_ok()).map(|((key, watch), _)| (&**key, watch))
    }

    fn plan(&self, server: &Server) -> Plan {
        Plan::shards(self.keys.iter().map(|(key, _)| server.engine.key_shard(key)).collect())
    }
}

/// What a migration has come to, as Redis says it.
pub fn outcome(answers: &Answers) -> Outcome {
    let refusal = answers.replies.iter().find_map(|reply| reply.as_ref().err());
    match (refusal, answers.broken) {
        (Some(text), _) => {
            Err(Error::new(format!("ERR Target instance replied with error: {text}")))
        }
        (None, Some(Broken { phase, .. })) => Err(Error::of(match phase {
            Phase::Connecting => "IOERR error or timeout connecting to the client",
            Phase::Writing => "IOERR error or timeout writing to target instance",
            Phase::Reading => "IOERR error or timeout reading to target instance",
        })),
        (None, None) => Ok(()),
    }
}

/// One that a client waits for.
pub struct Migration {
    pub target: Target,
    pub batch: Batch,
    pub copies: bool,
    pub db: u32,
    pub info: Arc<ClientInfo>,
    pub protocol: Protocol,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Migration, Arc<Waiter>)>,
    running: usize,
}

/// All migrations. Thread safety: nothing is locked under the queue's lock.
#[derive(Default)]
pub struct Migrations {
    pub links: Links,
    queue: Mutex<Queue>,
}

/// Has it run. Its client waits already.
pub fn begin(lp: &WorkerLoop, shift: &Shift, migration: Migration, waiter: Arc<Waiter>) {
    let server = &lp.server;
    {
        let mut queue = server.migrations.queue.lock();
        queue.waiting.push_back((migration, waiter));
        if queue.running >= THREADS_MAX {
            return;
        }
        queue.running += 1;
    }
    let on_thread = server.clone();
    let started = thread::Builder::new().name("migrate".into()).spawn(move || work(&on_thread));
    let Err(error) = started else { return };
    crate::log_warning!("MIGRATE: no thread for it: {error}");
    let mut queue = server.migrations.queue.lock();
    queue.running -= 1;
    // Those that run go on with it.
    let stays = queue.running > 0;
    let given_up = if stays { VecDeque::new() } else { std::mem::take(&mut queue.waiting) };
    drop(queue);
    for (migration, waiter) in given_up {
        for (key, watch) in &migration.batch.keys {
            lp.see_to(shift, Chore::Watch((migration.db, key.clone()), watch.clone()));
        }
        let broken = Broken { phase: Phase::Connecting, is_timeout: false };
        let answers = Answers { broken: Some(broken), ..Answers::default() };
        Journey { server, migration, waiter, pushes: Vec::new() }.end(&answers);
    }
}

fn work(server: &Arc<Server>) {
    loop {
        let (migration, waiter) = {
            let mut queue = server.migrations.queue.lock();
            match queue.waiting.pop_front() {
                Some(next) => next,
                None => {
                    queue.running -= 1;
                    return;
                }
            }
        };
        Journey { server, migration, waiter, pushes: Vec::new() }.run();
    }
}

/// A migration that runs.
struct Journey<'s> {
    server: &'s Arc<Server>,
    migration: Migration,
    waiter: Arc<Waiter>,
    /// What its client is to be sent behind the reply.
    pushes: Vec<u8>,
}

impl Journey<'_> {
    fn run(mut self) {
        let mut batch = std::mem::take(&mut self.migration.batch);
        let mut answers = self.send(&batch);
        // All that went wrong.
        let mut failures = Answers::default();
        if self.migration.copies {
            failures.add(answers);
            return self.end(&failures);
        }
        for round in 1..=ROUNDS_MAX {
            batch = self.settle(&batch, &answers, &mut failures, round == ROUNDS_MAX);
            failures.add(answers);
            if batch.is_empty() {
                break;
            }
            answers = self.send(&batch);
        }
        self.end(&failures);
    }

    /// Nobody waits for it any more.
    fn is_over(&self) -> bool {
        self.waiter.is_done() || self.server.is_shutting_down()
    }

    fn send(&self, batch: &Batch) -> Answers {
        let links = &self.server.migrations.links;
        let is_over = || self.is_over();
        links.ask(&self.migration.target, &batch.requests, batch.keys.len(), &is_over)
    }

    /// Removes the keys that are at the target as they are here. Answers those that changed meanwhile,
    /// packed anew. For the last time they are held and sent at once instead.
    fn settle(
        &mut self,
        batch: &Batch,
        answers: &Answers,
        failures: &mut Answers,
        is_last: bool,
    ) -> Batch {
        let server = self.server.clone();
        let worker = server.own_worker();
        let gates = server.engine.gates();
        let mut txn = self.hold(&worker, batch.plan(&server));
        for (key, watch) in &batch.keys {
            let name: KeyName = (self.migration.db, key.clone());
            txn.unwatch(&name, watch);
        }
        let mut changed = Batch::default();
        // While it is claimed its client is not let go.
        if !server.is_shutting_down() && self.waiter.claim() {
            for (key, watch) in batch.arrived(answers) {
                if !watch.is_marked() {
                    txn.remove(key);
                } else if answers.broken.is_none() {
                    match txn.peek(key) {
                        Some(entry) => changed.add(key, entry, true, txn.now_ms()),
                        None => changed.add_removal(key),
                    }
                }
            }
            if is_last && !changed.is_empty() {
                let held = std::mem::take(&mut changed);
                let mut target = self.migration.target.clone();
                target.timeout = target.timeout.min(HOLD_MAX);
                let until = Instant::now() + HOLD_MAX;
                let is_over = || Instant::now() >= until || server.is_shutting_down();
                let links = &server.migrations.links;
                let answers = links.ask(&target, &held.requests, held.keys.len(), &is_over);
                for (key, _) in held.arrived(&answers) {
                    txn.remove(key);
                }
                failures.add(answers);
            }
            changed.watch(&mut txn);
            // Nobody else serves it: it waits for no key.
            while !self.waiter.put_back() {}
        }
        let effects = txn.commit();
        // SAFETY: entered by `hold`, on this thread.
        unsafe { gates.leave(worker.id) };
        self.pushes.extend(effects.pushes);
        if !effects.ready.is_empty() {
            server.mailboxes[self.migration.info.worker].send(Mail::Ready(effects.ready));
        }
        changed
    }

    /// Enters the gate of this thread and begins a transaction, once nobody wants that nothing changes. Who is to have all gates does not wait
    /// for it behind a long script that has one of its shards.
    fn hold<'t>(&'t self, worker: &'t Worker, plan: Plan) -> Txn<'t> {
        let engine = &self.server.engine;
        while self.server.is_paused(true, unix_ms()) && !self.is_over() {
            thread::park_timeout(PAUSE_PATIENCE);
        }
        loop {
            if !engine.gates().enter(worker.id, None) {
                unreachable!("it waits for as long as it takes");
            }
            match Txn::try_begin(engine, worker, plan.clone(), unix_ms(), Some(SHARD_PATIENCE)) {
                Ok(mut txn) => {
                    txn.select(self.migration.db);
                    txn.set_client(self.migration.info.id);
                    return txn;
                }
                Err(_) => {
                    // SAFETY: entered above, on this thread.
                    unsafe { engine.gates().leave(worker.id) };
                    thread::park_timeout(SHARD_PATIENCE);
                }
            }
        }
    }

    /// Answers its client.
    fn end(self, answers: &Answers) {
        if !self.waiter.claim() {
            return;
        }
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.migration.protocol);
        match outcome(answers) {
            Ok(()) => reply.ok(),
            Err(error) => {
                reply.error(&error.0);
                self.server.count_error(error.code());
            }
        }
        out.extend(self.pushes);
        self.waiter.finish();
        self.server.send(&self.migration.info, |to| Mail::Unblocked(to, out));
    }
}

//! Blocked clients: no wake-up is lost, nobody is served twice, who is cancelled is not served.
//!
//! A small server on the real registry: clients wait for lists, pushes make keys ready, and
//! `serve_waiters` goes the way of the server's function of that name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use data::{End, List};
use shuttle::thread::{self, yield_now};

use crate::{Collection, Engine, KeyName, Plan, Settings, Txn, Waiter, Worker, explore};

/// What a client waits with: whether it can use lists at all, and how often it was answered.
struct Client {
    takes_lists: bool,
    served: AtomicUsize,
    cancelled: AtomicBool,
}

fn client(waiter: &Waiter) -> &Client {
    waiter.body.downcast_ref().unwrap()
}

fn name(key: &str) -> KeyName {
    (0, Box::from(key.as_bytes()))
}

fn waiter(keys: &[&str], takes_lists: bool) -> Arc<Waiter> {
    let client =
        Client { takes_lists, served: AtomicUsize::new(0), cancelled: AtomicBool::new(false) };
    Waiter::new(keys.iter().map(|key| name(key)).collect(), Box::new(client))
}

/// One thread of the server.
struct Seat {
    engine: Arc<Engine>,
    worker: Worker,
}

impl Seat {
    fn new(engine: &Arc<Engine>, id: usize) -> Seat {
        let worker = Worker::new(id, Arc::new(Settings::default()), engine.stats(id));
        Seat { engine: engine.clone(), worker }
    }

    fn in_gate<R>(&self, work: impl FnOnce() -> R) -> R {
        assert!(self.engine.gates().enter(self.worker.id, None));
        let result = work();
        // SAFETY: entered above.
        unsafe { self.engine.gates().leave(self.worker.id) };
        result
    }

    fn begin(&self, keys: &[KeyName]) -> Txn<'_> {
        let shards = keys.iter().map(|name| self.engine.key_shard(&name.1)).collect();
        Txn::begin(&self.engine, &self.worker, Plan::shards(shards), 0)
    }

    fn push(&self, key: &str) {
        let ready = self.in_gate(|| {
            let mut txn = self.begin(&[name(key)]);
            txn.write_or_create::<List>(key.as_bytes()).unwrap().push(End::Tail, b"x");
            txn.commit().ready
        });
        self.serve_waiters(ready);
    }

    /// BLPOP: takes an element or waits.
    fn block(&self, waiter: &Arc<Waiter>) {
        let ready = self.in_gate(|| {
            let mut txn = self.begin(&waiter.keys);
            if pop(&mut txn, waiter) {
                client(waiter).served.fetch_add(1, Ordering::SeqCst);
                waiter.claim();
                waiter.finish();
            } else {
                txn.wait(waiter);
            }
            txn.commit().ready
        });
        self.serve_waiters(ready);
    }

    /// A timeout: who is being served at that moment may be put back, so it is tried until one
    /// of the two ends it.
    fn cancel(&self, waiter: &Arc<Waiter>) {
        while !waiter.is_done() {
            if waiter.cancel() {
                client(waiter).cancelled.store(true, Ordering::SeqCst);
                assert!(self.in_gate(|| self.engine.forget_waiter(&self.worker, waiter, None)));
            }
            yield_now();
        }
    }

    /// CLIENT UNBLOCK: its answer is exact, since whoever serves does so inside of a gate.
    fn unblock(&self, waiter: &Arc<Waiter>) {
        assert!(self.engine.gates().enter_all(None, || false));
        let was_done = waiter.is_done();
        let unblocked = waiter.cancel();
        assert_ne!(unblocked, was_done, "neither unblocked nor done");
        // SAFETY: entered above.
        unsafe { self.engine.gates().leave_all() };
        if unblocked {
            client(waiter).cancelled.store(true, Ordering::SeqCst);
            assert!(self.in_gate(|| self.engine.forget_waiter(&self.worker, waiter, None)));
        }
    }

    /// As the server's function of that name: from claim to answer without leaving the gate.
    fn serve_waiters(&self, ready: Vec<KeyName>) {
        let mut queue = VecDeque::from(ready);
        while let Some(name) = queue.pop_front() {
            let mut passed_over = 0;
            while let Some(ticket) =
                self.in_gate(|| self.serve_next(&name, passed_over, &mut queue))
            {
                passed_over = ticket;
            }
        }
    }

    /// Serves the first client of a key behind a ticket; answers from where to go on.
    fn serve_next(
        &self,
        name: &KeyName,
        passed_over: u64,
        queue: &mut VecDeque<KeyName>,
    ) -> Option<u64> {
        let claim = self.engine.claim_waiter(&self.worker, name, passed_over, None).unwrap()?;
        let Some(waiter) = claim.waiter else { return Some(claim.ticket) };
        loop {
            let mut txn = self.begin(&waiter.keys);
            let popped = pop(&mut txn, &waiter);
            queue.extend(txn.commit().ready);
            if popped {
                waiter.finish();
                assert!(self.engine.forget_waiter(&self.worker, &waiter, None));
                client(&waiter).served.fetch_add(1, Ordering::SeqCst);
                return Some(passed_over);
            }
            if waiter.put_back() {
                return Some(claim.ticket);
            }
        }
    }

    fn len(&self, key: &str) -> usize {
        let txn = self.begin(&[name(key)]);
        txn.read_list(key.as_bytes()).unwrap().map_or(0, List::len)
    }
}

fn pop(txn: &mut Txn<'_>, waiter: &Waiter) -> bool {
    client(waiter).takes_lists
        && waiter.keys.iter().any(|name| {
            let list = txn.write::<List>(&name.1).unwrap();
            list.is_some_and(|mut list| list.pop(End::Head).is_some())
        })
}

/// Has the `first` of all waiters wait, runs the jobs at the same time, each on a thread with a gate of its own, and checks what must
/// hold when all is quiet.
fn run(
    keys: &[&str],
    first: &[Arc<Waiter>],
    waiters: &[Arc<Waiter>],
    pushed: usize,
    jobs: Vec<Job>,
) {
    let engine = Arc::new(Engine::new(jobs.len() + 1));
    let main = Seat::new(&engine, jobs.len());
    for waiter in first {
        main.block(waiter);
    }
    let threads: Vec<_> = jobs
        .into_iter()
        .enumerate()
        .map(|(id, job)| {
            let seat = Seat::new(&engine, id);
            thread::spawn(move || job(&seat))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    let mut served = 0;
    for waiter in waiters {
        let client = client(waiter);
        let times = client.served.load(Ordering::SeqCst);
        assert!(times <= 1, "served twice");
        if client.cancelled.load(Ordering::SeqCst) {
            assert_eq!(times, 0, "cancelled and served");
        } else if times == 0 && client.takes_lists {
            let waits_in_vain = waiter.keys.iter().any(|name| {
                let key = std::str::from_utf8(&name.1).unwrap();
                main.len(key) > 0
            });
            assert!(!waits_in_vain, "a wake-up was lost");
            assert!(!waiter.is_done());
        }
        served += times;
    }
    let left: usize = keys.iter().map(|key| main.len(key)).sum();
    assert_eq!(pushed, served + left, "an element got lost");

    // Nobody who is done stays in a queue.
    for waiter in waiters {
        main.cancel(waiter);
    }
    for key in keys {
        let mut txn = main.begin(&[name(key)]);
        let shard = engine.key_shard(key.as_bytes());
        assert!(txn.shard_mut(shard).waiters.is_empty(), "a queue of waiters that are done");
    }
}

type Job = Box<dyn FnOnce(&Seat) + Send>;

#[test]
fn two_clients_two_keys_two_pushes_and_a_timeout() {
    explore(1500, || {
        let waiters = [waiter(&["a", "b"], true), waiter(&["b", "a"], true)];
        let cancelled = waiters[0].clone();
        run(
            &["a", "b"],
            &waiters,
            &waiters,
            2,
            vec![
                Box::new(|seat| seat.push("a")),
                Box::new(|seat| seat.push("b")),
                Box::new(move |seat| seat.cancel(&cancelled)),
            ],
        );
    });
}

#[test]
fn a_client_that_comes_while_keys_change() {
    explore(1500, || {
        let early = waiter(&["a"], true);
        let late = waiter(&["a", "b"], true);
        let waiters = [early, late.clone()];
        let jobs: Vec<Job> = vec![
            Box::new(|seat| {
                seat.push("a");
                seat.push("a");
            }),
            Box::new(|seat| seat.push("b")),
            Box::new(move |seat| seat.block(&late)),
        ];
        run(&["a", "b"], &waiters[..1], &waiters, 3, jobs);
    });
}

#[test]
fn clients_behind_one_that_cannot_use_the_key_and_goes_away() {
    explore(2000, || {
        let other = waiter(&["a"], false);
        let waiters = [other.clone(), waiter(&["a"], true), waiter(&["a"], true)];
        run(
            &["a"],
            &waiters,
            &waiters,
            2,
            vec![
                Box::new(|seat| {
                    seat.push("a");
                    seat.push("a");
                }),
                Box::new(move |seat| seat.cancel(&other)),
            ],
        );
    });
}

#[test]
fn unblocking_a_client_that_is_served_and_put_back() {
    explore(2000, || {
        let waiters = [waiter(&["a"], false), waiter(&["a", "b"], true)];
        let (first, second) = (waiters[0].clone(), waiters[1].clone());
        run(
            &["a", "b"],
            &waiters,
            &waiters,
            2,
            vec![
                Box::new(|seat| {
                    seat.push("a");
                    seat.push("b");
                }),
                Box::new(move |seat| {
                    seat.unblock(&first);
                    seat.unblock(&second);
                }),
            ],
        );
    });
}

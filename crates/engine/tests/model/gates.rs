//! Exclusive plans against batches: mutual exclusion, no deadlock, nothing kept after a timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shuttle::sync::atomic::AtomicBool;
use shuttle::thread::{self, yield_now};

use crate::explore;
use crate::gate::Gates;

/// The gates, and who believes to be inside.
struct Arena {
    gates: Gates,
    batches: AtomicUsize,
    exclusive: AtomicUsize,
}

impl Arena {
    fn new(workers: usize) -> Arc<Arena> {
        Arc::new(Arena {
            gates: Gates::new(workers),
            batches: AtomicUsize::new(0),
            exclusive: AtomicUsize::new(0),
        })
    }

    /// One command inside an entered gate.
    fn command(&self) {
        self.batches.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.exclusive.load(Ordering::SeqCst), 0, "a batch beside an exclusive plan");
        yield_now();
        assert_eq!(self.exclusive.load(Ordering::SeqCst), 0, "a batch beside an exclusive plan");
        self.batches.fetch_sub(1, Ordering::SeqCst);
    }

    fn exclusive_command(&self) {
        assert_eq!(self.exclusive.fetch_add(1, Ordering::SeqCst), 0, "two exclusive plans");
        assert_eq!(self.batches.load(Ordering::SeqCst), 0, "an exclusive plan beside a batch");
        yield_now();
        assert_eq!(self.batches.load(Ordering::SeqCst), 0, "an exclusive plan beside a batch");
        self.exclusive.fetch_sub(1, Ordering::SeqCst);
    }

    /// A worker as the server runs it: a batch that makes way between its commands, then an
    /// exclusive command, then another batch.
    fn work(&self, worker: usize, patience: Option<Duration>) {
        for round in 0..2 {
            self.enter(worker, patience);
            for _ in 0..2 {
                if self.gates.is_wanted() {
                    // SAFETY: this thread entered it.
                    unsafe { self.gates.leave(worker) };
                    self.enter(worker, patience);
                }
                self.command();
            }
            // SAFETY: this thread entered it.
            unsafe { self.gates.leave(worker) };
            if round == 0 {
                while !self.gates.enter_all(patience, || true) {
                    yield_now();
                }
                self.exclusive_command();
                // SAFETY: this thread entered all.
                unsafe { self.gates.leave_all() };
            }
        }
    }

    fn enter(&self, worker: usize, patience: Option<Duration>) {
        while !self.gates.enter(worker, patience) {
            yield_now();
        }
    }

    /// Nobody holds anything any more.
    fn assert_free(&self, workers: usize) {
        assert!(!self.gates.is_wanted());
        assert!(self.gates.enter_all(None, || false));
        // SAFETY: entered above.
        unsafe { self.gates.leave_all() };
        for worker in 0..workers {
            assert!(self.gates.enter(worker, None));
            // SAFETY: entered above.
            unsafe { self.gates.leave(worker) };
        }
    }
}

fn workers_and_exclusive_plans(patience: Option<Duration>, workers: usize) {
    let arena = Arena::new(workers);
    let threads: Vec<_> = (0..workers)
        .map(|worker| {
            let arena = arena.clone();
            thread::spawn(move || arena.work(worker, patience))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    arena.assert_free(workers);
}

#[test]
fn exclusive_plans_and_batches_exclude_each_other_and_all_end() {
    explore(1500, || workers_and_exclusive_plans(None, 2));
    explore(500, || workers_and_exclusive_plans(None, 3));
}

#[test]
fn a_timeout_keeps_nothing() {
    explore(1000, || workers_and_exclusive_plans(Some(Duration::from_secs(1)), 3));
}

#[test]
fn an_exclusive_plan_can_give_a_batch_up_that_does_not_end() {
    explore(1000, || {
        let arena = Arena::new(3);
        let over = Arc::new(AtomicBool::new(false));
        // Gate 1 stays taken: the gates on both sides of it must be free afterwards.
        assert!(arena.gates.enter(1, None));
        let exclusive = {
            let (arena, over) = (arena.clone(), over.clone());
            thread::spawn(move || {
                let had = arena.gates.enter_all(Some(Duration::ZERO), || true);
                assert!(!had, "all gates while one is taken");
                over.store(true, Ordering::SeqCst);
            })
        };
        let other = {
            let arena = arena.clone();
            thread::spawn(move || {
                arena.enter(0, None);
                arena.command();
                // SAFETY: entered above.
                unsafe { arena.gates.leave(0) };
                arena.enter(2, Some(Duration::ZERO));
                arena.command();
                // SAFETY: entered above.
                unsafe { arena.gates.leave(2) };
            })
        };
        other.join().unwrap();
        exclusive.join().unwrap();
        assert!(over.load(Ordering::SeqCst));
        // SAFETY: entered at the beginning.
        unsafe { arena.gates.leave(1) };
        arena.assert_free(3);
    });
}

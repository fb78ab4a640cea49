//! Real threads on one engine: transfers, exclusive sums, scans and expiry at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use engine::{Engine, Expiry, Plan, Settings, Str, Txn, Worker};

const THREADS: usize = 4;
const ACCOUNTS: usize = 200;
const START: i64 = 1000;
const ROUNDS: usize = 15_000;
const NOW_MS: i64 = 1_700_000_000_000;

fn account(n: usize) -> Vec<u8> {
    format!("account:{n}").into_bytes()
}

fn balance(txn: &Txn<'_>, account: &[u8]) -> i64 {
    match txn.read_string(account) {
        Ok(Some(Str::Int(amount))) => amount,
        other => panic!("{other:?}"),
    }
}

struct Seat<'e> {
    engine: &'e Engine,
    worker: Worker,
}

impl Seat<'_> {
    fn new(engine: &Engine, id: usize) -> Seat<'_> {
        Seat { engine, worker: Worker::new(id, Arc::new(Settings::default()), engine.stats(id)) }
    }

    fn enter(&self) {
        assert!(self.engine.gates().enter(self.worker.id, None));
    }

    fn leave(&self) {
        // SAFETY: only called after `enter`, on the same thread.
        unsafe { self.engine.gates().leave(self.worker.id) };
    }

    fn transfer(&self, from: &[u8], to: &[u8], amount: i64) {
        let shards = [from, to].iter().map(|key| self.engine.key_shard(key)).collect();
        let mut txn = Txn::begin(self.engine, &self.worker, Plan::shards(shards), NOW_MS);
        let rest = balance(&txn, from) - amount;
        let sum = balance(&txn, to) + amount;
        // In place, and by a new entry.
        txn.set_integer(from, rest);
        txn.set_string(to, sum.to_string().as_bytes(), Expiry::At(NOW_MS + 1 + amount));
        txn.commit();
    }

    fn assert_sum(&self) {
        assert!(self.engine.gates().enter_all(None, || false));
        let txn = Txn::begin(self.engine, &self.worker, Plan::Exclusive, NOW_MS);
        let sum: i64 = (0..ACCOUNTS).map(|n| balance(&txn, &account(n))).sum();
        txn.commit();
        // SAFETY: entered above.
        unsafe { self.engine.gates().leave_all() };
        assert_eq!(sum, START * ACCOUNTS as i64);
    }

    fn assert_scan_sees_all(&self) {
        let (mut cursor, mut seen) = (0, std::collections::HashSet::new());
        loop {
            let mut txn = Txn::begin(self.engine, &self.worker, Plan::Walk, NOW_MS);
            cursor = txn.scan(cursor, 10, |entry| {
                seen.insert(entry.key().to_vec());
            });
            txn.commit();
            if cursor == 0 {
                break;
            }
        }
        assert!((0..ACCOUNTS).all(|n| seen.contains(&account(n))), "a key was missed");
    }

    /// Batches of commands, as a worker of the server runs them.
    fn work(&self, sums: &AtomicUsize) {
        let mut rng = fastrand::Rng::with_seed(self.worker.id as u64);
        self.enter();
        for round in 0..ROUNDS {
            if round % 32 == 31 || self.engine.gates().is_wanted() {
                self.leave();
                self.enter();
            }
            match rng.u32(0..1000) {
                0..3 => {
                    self.leave();
                    self.assert_sum();
                    sums.fetch_add(1, Ordering::Relaxed);
                    self.enter();
                }
                3..6 => self.assert_scan_sees_all(),
                6..9 => {
                    let workers = self.engine.expire_cycle(
                        &self.worker,
                        THREADS,
                        rng.usize(..1024),
                        NOW_MS,
                        || false,
                    );
                    assert!(workers.1.is_empty(), "nobody waits for anything");
                }
                _ => {
                    let from = rng.usize(..ACCOUNTS);
                    let to = (from + rng.usize(1..ACCOUNTS)) % ACCOUNTS;
                    self.transfer(&account(from), &account(to), rng.i64(1..50));
                }
            }
        }
        self.leave();
    }
}

#[test]
fn transfers_keep_the_sum_under_load() {
    let engine = Engine::new(THREADS);
    let first = Seat::new(&engine, 0);
    for n in 0..ACCOUNTS {
        let key = account(n);
        let plan = Plan::shards([engine.key_shard(&key)].into_iter().collect());
        first.enter();
        let mut txn = Txn::begin(&engine, &first.worker, plan, NOW_MS);
        txn.set_string(&key, START.to_string().as_bytes(), Expiry::Clear);
        txn.commit();
        first.leave();
    }
    let sums = AtomicUsize::new(0);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (engine, sums) = (&engine, &sums);
            scope.spawn(move || Seat::new(engine, id).work(sums));
        }
    });
    first.assert_sum();
    assert!(sums.into_inner() > 0, "no sum was taken beside the transfers");
}

/// What is not had in time is said, and nothing is held then.
#[test]
fn who_does_not_wait_learns_what_is_in_the_way() {
    let engine = Engine::new(2);
    let seat = |id| Worker::new(id, Arc::new(Settings::default()), engine.stats(id));
    let (script, other) = (seat(0), seat(1));
    let patience = Some(Duration::from_millis(1));
    let mut held = Txn::begin(&engine, &script, Plan::shard(7), 0);
    assert!(held.extend(&[9, 3, 7, 9], Duration::ZERO));
    assert_eq!(held.held(), [3, 7, 9]);

    let begin = |shards: &[u16]| {
        let plan = Plan::shards(shards.iter().copied().collect());
        Txn::try_begin(&engine, &other, plan, 0, patience)
    };
    assert_eq!(begin(&[2, 7]).err(), Some(7));
    let mut beside = begin(&[2]).expect("it was let go, for 7 was not had");
    assert!(!beside.extend(&[5, 9], Duration::ZERO));
    assert_eq!(beside.held(), [2]);
    beside.commit();
    begin(&[2, 5]).expect("nothing of the failed extension is left").commit();

    let mut walk = Txn::try_begin(&engine, &other, Plan::Walk, 0, patience).unwrap();
    walk.db_size();
    assert_eq!(walk.obstacle(), Some(3));
    walk.commit();
    begin(&[2]).expect("the walk holds nothing").commit();

    held.commit();
    begin(&[3, 7, 9]).expect("all were given back").commit();
    let mut walk = Txn::try_begin(&engine, &other, Plan::Walk, 0, patience).unwrap();
    walk.db_size();
    assert_eq!(walk.obstacle(), None);
    walk.commit();
}

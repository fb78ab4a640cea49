//! Snapshots: whatever is done while one is walked, and however it is cut into steps, it has every
//! key once, as it was at the beginning.
//!
//! `SNAPSHOT_SEED` and `SNAPSHOT_ROUNDS` repeat a failure and make it longer.

mod operations;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use engine::{Engine, Entry, Expiry, Image, Plan, Saved as HowMuch};
use engine::{Settings, Step, Str, Txn, ValueRef, Worker};
use fastrand::Rng;
use operations::*;

/// Keys beside those of the random operations, so that tables have several buckets.
const CROWD: usize = 20_000;

type Saved = ((u32, Vec<u8>), Seen);

/// Values with as many elements are long ones here.
const LONG: usize = 8;

/// What was saved, in the order in which it came.
#[derive(Default)]
struct Collected {
    saved: Mutex<Vec<Saved>>,
    /// What is being saved in parts, and how many are left.
    begun: Mutex<Vec<(Saved, usize)>>,
    /// Long values that were saved in parts, and those that had to be in one go.
    in_parts: AtomicUsize,
    in_one_go: AtomicUsize,
}

impl Collected {
    fn add(&self, saved: Saved) {
        self.saved.lock().unwrap().push(saved);
    }
}

impl Image for Collected {
    fn save(&self, _: &Worker, db: u32, entry: &Entry) {
        let saved = ((db, entry.key().to_vec()), Seen::of(entry));
        let mut begun = self.begun.lock().unwrap();
        if let Some(at) = begun.iter().position(|(before, _)| before.0 == saved.0) {
            assert_eq!(begun.swap_remove(at).0, saved, "it changed between two parts");
        }
        self.in_one_go.fetch_add(usize::from(self.is_long(entry)), Ordering::Relaxed);
        self.add(saved);
    }

    fn save_some(&self, worker: &Worker, db: u32, entry: &Entry) -> HowMuch {
        if !self.is_long(entry) {
            self.save(worker, db, entry);
            return HowMuch::Whole;
        }
        let begun = self.begun.lock().unwrap();
        let name = (db, entry.key().to_vec());
        if !begun.is_empty() && begun.iter().all(|(before, _)| before.0 != name) {
            return HowMuch::Later;
        }
        drop(begun);
        self.save_ahead(worker, db, entry)
    }

    fn save_ahead(&self, _: &Worker, db: u32, entry: &Entry) -> HowMuch {
        let saved = ((db, entry.key().to_vec()), Seen::of(entry));
        let mut begun = self.begun.lock().unwrap();
        let parts = saved.1.elements.len();
        let at = begun.iter().position(|(before, _)| before.0 == saved.0).unwrap_or_else(|| {
            begun.push((saved.clone(), parts));
            begun.len() - 1
        });
        let (before, left) = &mut begun[at];
        assert_eq!(*before, saved, "it changed between two parts");
        *left -= 1;
        if *left > 0 {
            return HowMuch::Partly;
        }
        begun.remove(at);
        self.in_parts.fetch_add(1, Ordering::Relaxed);
        self.add(saved);
        HowMuch::Whole
    }

    fn is_long(&self, entry: &Entry) -> bool {
        Seen::of(entry).elements.len() >= LONG
    }
}

impl Collected {
    /// What a loader would have of it.
    fn live_at(&self, now_ms: i64) -> Dump {
        let mut dump = Dump::new();
        for (name, seen) in self.saved.lock().unwrap().drain(..) {
            let is_live = seen.expire_at_ms.is_none_or(|when| when > now_ms);
            let twice = dump.contains_key(&name);
            assert!(!twice, "{name:?} was saved twice");
            if is_live {
                dump.insert(name, seen);
            }
        }
        dump
    }
}

fn crowd(number: usize) -> Vec<u8> {
    format!("crowd:{number}").into_bytes()
}

/// Something that happens to one of the crowd.
fn jostle(txn: &mut Txn<'_>, rng: &mut Rng) {
    let (one, other) = (crowd(rng.usize(..CROWD)), crowd(rng.usize(..CROWD)));
    match rng.u8(..6) {
        0 => txn.set_string(&one, b"changed", Expiry::Keep),
        1 => _ = txn.remove(&one),
        2 if one != other => _ = txn.relocate(&one, &other, rng.u32(..DBS)),
        3 => _ = txn.set_expire(&one, Some(START_MS + rng.i64(..3000))),
        4 => _ = txn.increment(&one, 1),
        _ => _ = txn.duplicate(&one, &other, rng.u32(..DBS)),
    }
}

/// Does as the server does ahead of a change of a long value: waits, here for ever, or has it saved
/// first, which may be given up. Answers whether to go ahead.
fn is_ready(txn: &Txn<'_>, op: &Op, rng: &mut Rng) -> bool {
    let Some(key) = op.changes().filter(|key| txn.is_long_unsaved(key)) else { return true };
    let mut patience = rng.usize(..40);
    while patience > 0 && !txn.save_part(&key) {
        patience -= 1;
    }
    patience > 0
}

/// A few transactions, some of them undone. `waits`: they do what spares others from having to save
/// a long value in one go.
fn go_on(side: &Side, rng: &mut Rng, now_ms: i64, waits: bool) {
    for _ in 0..rng.usize(..4) {
        let mut txn = side.begin(now_ms);
        let records = rng.bool();
        if records {
            txn.record();
        }
        for _ in 0..rng.usize(..40) {
            if rng.bool() {
                jostle(&mut txn, rng);
            } else {
                let op = op(rng);
                if !waits || is_ready(&txn, &op, rng) {
                    apply(&mut txn, &op);
                }
            }
        }
        if records && rng.bool() {
            txn.roll_back();
        }
        txn.commit();
    }
    if rng.u8(..10) == 0 {
        side.engine.expire_cycle(&side.worker, 1, rng.usize(..1024), now_ms, || false);
    }
}

#[test]
fn a_snapshot_is_what_was_there_when_it_began() {
    let seed = number("SNAPSHOT_SEED", fastrand::u64(..));
    println!("SNAPSHOT_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let side = Side::new(small_limits());
    let mut now_ms = START_MS;
    let (mut in_parts, mut in_one_go) = (0, 0);
    for round in 0..number("SNAPSHOT_ROUNDS", if cfg!(miri) { 2 } else { 60 }) {
        let mut txn = side.begin(now_ms);
        if round % 4 == 0 {
            let crowd_size = rng.usize(..CROWD);
            for number in 0..if cfg!(miri) { 20 } else { crowd_size } {
                txn.set_string(&crowd(number), b"1", Expiry::Clear);
            }
        }
        txn.commit();
        let waits = rng.bool();
        go_on(&side, &mut rng, now_ms, waits);

        let collected = Arc::new(Collected::default());
        let mut txn = side.begin(now_ms);
        let expected = dump(&mut txn).0;
        let mut snapshot = txn.begin_snapshot(collected.clone()).expect("there is none yet");
        assert!(txn.begin_snapshot(collected.clone()).is_none(), "one at a time");
        txn.commit();
        let began_ms = now_ms;
        let is_calm = rng.u8(..5) == 0;
        let pace = 1 + rng.usize(..400);
        'walk: loop {
            for _ in 0..rng.usize(..=pace) {
                let mut asked = 0;
                let most = rng.usize(..6);
                let is_enough = || {
                    asked += 1;
                    asked > most
                };
                match snapshot.step(&side.engine, &side.worker, is_enough) {
                    // Long values wait for one that was taken out: they are passed over.
                    Step::More | Step::Held => {}
                    Step::Done => break 'walk,
                }
                if !collected.begun.lock().unwrap().is_empty() && rng.bool() {
                    break;
                }
            }
            if !is_calm {
                go_on(&side, &mut rng, now_ms, waits);
                now_ms += rng.i64(0..3);
            }
        }
        // What happens between the last step and the end is of no concern to it.
        go_on(&side, &mut rng, now_ms, waits);
        assert!(side.engine.has_snapshot());
        snapshot.end(&side.engine);
        assert!(!side.engine.has_snapshot());
        let saved = collected.live_at(began_ms);
        assert!(saved == expected, "round {round}: {}", difference(&saved, &expected));
        let went_whole = collected.in_one_go.load(Ordering::Relaxed);
        assert!(!waits || went_whole == 0, "round {round}: {went_whole} long ones in one go");
        in_parts += collected.in_parts.load(Ordering::Relaxed);
        in_one_go += went_whole;
        now_ms += rng.i64(0..20);
        if round % 10 == 9 {
            now_ms = START_MS;
        }
    }
    println!("long values: {in_parts} in parts, {in_one_go} in one go");
}

fn difference(saved: &Dump, expected: &Dump) -> String {
    let keys = saved.keys().chain(expected.keys());
    let differs = keys.filter(|key| saved.get(*key) != expected.get(*key)).take(3);
    let lines = differs.map(|key| {
        format!("{key:?}: saved {:?}, there was {:?}", saved.get(key), expected.get(key))
    });
    lines.collect::<Vec<_>>().join("; ")
}

const ACCOUNTS: usize = 3000;
const BALANCE: i64 = 1000;
const TELLERS: usize = 3;

fn account(number: usize) -> Vec<u8> {
    format!("account:{number}").into_bytes()
}

fn transfer(engine: &Engine, teller: &Worker, rng: &mut Rng) {
    let from = rng.usize(..ACCOUNTS);
    let to = (from + rng.usize(1..ACCOUNTS)) % ACCOUNTS;
    let (from, to) = (account(from), account(to));
    let plan = Plan::shards([&from, &to].iter().map(|key| engine.key_shard(key)).collect());
    let mut txn = Txn::begin(engine, teller, plan, START_MS);
    let undoes = rng.u8(..4) == 0;
    if undoes {
        txn.record();
    }
    let amount = rng.i64(1..100);
    txn.increment(&from, -amount).unwrap();
    let held = match txn.read_string(&to) {
        Ok(Some(Str::Int(held))) => held,
        other => panic!("{other:?}"),
    };
    match rng.u8(..3) {
        0 => txn.set_string(&to, (held + amount).to_string().as_bytes(), Expiry::Clear),
        1 => {
            txn.remove(&to);
            txn.set_integer(&to, held + amount);
        }
        _ => _ = txn.increment(&to, amount).unwrap(),
    }
    if undoes {
        txn.roll_back();
    }
    txn.commit();
}

/// The balances that were saved.
#[derive(Default)]
struct Balances(Mutex<BTreeMap<Vec<u8>, i64>>);

impl Image for Balances {
    fn save(&self, _: &Worker, _: u32, entry: &Entry) {
        let ValueRef::Str(Str::Int(held)) = entry.get() else { panic!("no balance") };
        let before = self.0.lock().unwrap().insert(entry.key().to_vec(), held);
        assert!(before.is_none(), "an account was saved twice");
    }
}

#[test]
fn a_snapshot_beside_real_threads_has_every_account_and_the_sum() {
    let engine = Engine::new(TELLERS + 1);
    let seat = |id| Worker::new(id, Arc::new(Settings::default()), engine.stats(id));
    let walker = seat(TELLERS);
    let exclusive = |act: &mut dyn FnMut(&mut Txn<'_>)| {
        assert!(engine.gates().enter_all(None, || false));
        let mut txn = Txn::begin(&engine, &walker, Plan::Exclusive, START_MS);
        act(&mut txn);
        txn.commit();
        // SAFETY: entered above.
        unsafe { engine.gates().leave_all() };
    };
    exclusive(&mut |txn| (0..ACCOUNTS).for_each(|n| txn.set_integer(&account(n), BALANCE)));
    let is_over = AtomicBool::new(false);
    let transfers = AtomicUsize::new(0);
    thread::scope(|scope| {
        for id in 0..TELLERS {
            let (engine, is_over, transfers) = (&engine, &is_over, &transfers);
            scope.spawn(move || {
                let teller = Worker::new(id, Arc::new(Settings::default()), engine.stats(id));
                let mut rng = Rng::with_seed(id as u64);
                while !is_over.load(Ordering::Relaxed) {
                    assert!(engine.gates().enter(id, None));
                    (0..20).for_each(|_| transfer(engine, &teller, &mut rng));
                    // SAFETY: entered above.
                    unsafe { engine.gates().leave(id) };
                    transfers.fetch_add(20, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            let balances = Arc::new(Balances::default());
            let mut begun = None;
            exclusive(&mut |txn| begun = txn.begin_snapshot(balances.clone()));
            let mut snapshot = begun.expect("the one before has ended");
            let before = transfers.load(Ordering::Relaxed);
            loop {
                assert!(engine.gates().enter(TELLERS, None));
                let step = snapshot.step(&engine, &walker, || true);
                // SAFETY: entered above.
                unsafe { engine.gates().leave(TELLERS) };
                if step == Step::Done && transfers.load(Ordering::Relaxed) > before {
                    break;
                }
            }
            snapshot.end(&engine);
            let balances = balances.0.lock().unwrap();
            assert_eq!(balances.len(), ACCOUNTS);
            assert_eq!(balances.values().sum::<i64>(), BALANCE * ACCOUNTS as i64);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

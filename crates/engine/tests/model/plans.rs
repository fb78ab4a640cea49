//! Transactions over several shards: all or nothing to everybody else, and no deadlock.

use std::sync::Arc;
use std::time::Duration;

use shuttle::thread::{self, yield_now};

use crate::{Engine, Expiry, Plan, Settings, Str, Txn, Worker, explore};

const ACCOUNTS: [&[u8]; 3] = [b"alice", b"bob", b"carol"];
const START: i64 = 100;

fn balance(txn: &Txn<'_>, account: &[u8]) -> i64 {
    match txn.read_string(account) {
        Ok(Some(Str::Int(amount))) => amount,
        other => panic!("{other:?}"),
    }
}

fn transfer(engine: &Engine, worker: &Worker, from: &[u8], to: &[u8]) {
    assert!(engine.gates().enter(worker.id, None));
    // As the client named them; the plan brings them into order.
    let shards = [from, to].iter().map(|key| engine.key_shard(key)).collect();
    let mut txn = Txn::begin(engine, worker, Plan::shards(shards), 0);
    move_one(&mut txn, from, to);
    txn.commit();
    // SAFETY: entered above.
    unsafe { engine.gates().leave(worker.id) };
}

/// A transfer as a script makes it: it begins with one account, finds out about the other while it
/// runs, and begins anew with the whole keyspace when it cannot have that one at once.
fn transfer_by_script(engine: &Engine, worker: &Worker, from: &[u8], to: &[u8]) {
    assert!(engine.gates().enter(worker.id, None));
    let plan = Plan::shard(engine.key_shard(from));
    let patience = Some(Duration::ZERO);
    let mut txn = loop {
        match Txn::try_begin(engine, worker, plan.clone(), 0, patience) {
            Ok(txn) => break txn,
            Err(obstacle) => assert_eq!(obstacle, engine.key_shard(from)),
        }
        // As a stalled client: others go on meanwhile, exclusive ones too.
        // SAFETY: entered above.
        unsafe { engine.gates().leave(worker.id) };
        yield_now();
        assert!(engine.gates().enter(worker.id, None));
    };
    let before = balance(&txn, from);
    yield_now();
    assert_eq!(balance(&txn, from), before, "changed by another under our lock");
    if txn.extend(&[engine.key_shard(to)], Duration::ZERO) {
        move_one(&mut txn, from, to);
        txn.commit();
        // SAFETY: entered above.
        unsafe { engine.gates().leave(worker.id) };
        return;
    }
    assert_eq!(txn.held(), [engine.key_shard(from)], "a failed extension adds nothing");
    txn.commit();
    // SAFETY: entered above.
    unsafe { engine.gates().leave(worker.id) };
    assert!(engine.gates().enter_all(None, || false));
    let mut txn = Txn::begin(engine, worker, Plan::Exclusive, 0);
    assert!(txn.extend(&[engine.key_shard(to)], Duration::ZERO), "it has all of them");
    move_one(&mut txn, from, to);
    txn.commit();
    // SAFETY: entered above.
    unsafe { engine.gates().leave_all() };
}

fn move_one(txn: &mut Txn<'_>, from: &[u8], to: &[u8]) {
    let (source, target) = (balance(txn, from), balance(txn, to));
    yield_now();
    txn.set_integer(from, source - 1);
    yield_now();
    txn.set_integer(to, target + 1);
}

fn assert_sum(engine: &Engine, worker: &Worker) {
    assert!(engine.gates().enter_all(None, || false));
    let txn = Txn::begin(engine, worker, Plan::Exclusive, 0);
    let mut sum = 0;
    for account in ACCOUNTS {
        sum += balance(&txn, account);
        yield_now();
    }
    txn.commit();
    // SAFETY: entered above.
    unsafe { engine.gates().leave_all() };
    assert_eq!(sum, START * ACCOUNTS.len() as i64);
}

type Transfer = fn(&Engine, &Worker, &[u8], &[u8]);

fn transfers_keep_the_sum(schedules: usize, by: [Transfer; 2]) {
    explore(schedules, move || {
        let engine = Arc::new(Engine::new(3));
        let seat = |id| Worker::new(id, Arc::new(Settings::default()), engine.stats(id));
        let auditor = seat(2);
        assert!(engine.gates().enter_all(None, || false));
        let mut txn = Txn::begin(&engine, &auditor, Plan::Exclusive, 0);
        for account in ACCOUNTS {
            txn.set_string(account, START.to_string().as_bytes(), Expiry::Clear);
        }
        txn.commit();
        // SAFETY: entered above.
        unsafe { engine.gates().leave_all() };

        let [a, b, c] = ACCOUNTS;
        let threads: Vec<_> = [[(a, b), (c, a)], [(b, a), (b, c)]]
            .into_iter()
            .enumerate()
            .map(|(id, transfers)| {
                let (engine, worker) = (engine.clone(), seat(id));
                thread::spawn(move || {
                    for (from, to) in transfers {
                        by[id](&engine, &worker, from, to);
                    }
                })
            })
            .collect();
        assert_sum(&engine, &auditor);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_sum(&engine, &auditor);
    });
}

#[test]
fn transfers_in_every_direction_keep_the_sum() {
    transfers_keep_the_sum(700, [transfer, transfer]);
}

#[test]
fn scripts_that_find_their_keys_while_they_run_keep_the_sum() {
    transfers_keep_the_sum(500, [transfer_by_script, transfer_by_script]);
    transfers_keep_the_sum(500, [transfer, transfer_by_script]);
}

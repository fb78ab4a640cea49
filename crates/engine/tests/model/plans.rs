//! Transactions over several shards: all or nothing to everybody else, and no deadlock.

use std::sync::Arc;

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
    let (source, target) = (balance(&txn, from), balance(&txn, to));
    yield_now();
    txn.set_integer(from, source - 1);
    yield_now();
    txn.set_integer(to, target + 1);
    txn.commit();
    // SAFETY: entered above.
    unsafe { engine.gates().leave(worker.id) };
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

#[test]
fn transfers_in_every_direction_keep_the_sum() {
    explore(700, || {
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
                        transfer(&engine, &worker, from, to);
                    }
                })
            })
            .collect();
        assert_sum(&engine, &auditor);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_sum(&engine, &auditor);
    });
}

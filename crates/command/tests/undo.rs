//! Every command that writes can be undone, and changes nothing when it answers an error.
//!
//! A sequence of random commands (`random`) runs in one recording transaction that stops at a
//! random point and is rolled back: the keyspace must be as before. Then another sequence runs and
//! stays. `UNDO_SEED` repeats a run, `UNDO_COMMANDS` sets its length.

mod random;

use std::sync::Arc;

use command::Scope;
use engine::{Classes, Engine, Plan, Settings, Txn, Worker};
use fastrand::Rng;

use random::{DBS, Dump, Row, START_MS, Seen, draw, dump, number, rows, run, small_limits};

/// The keys that a command names, in every database; all there are for one that names none.
fn dump_named(txn: &mut Txn<'_>, row: &Row, args: &[Vec<u8>]) -> Dump {
    if row.command.row.keys.is_empty() || row.command.row.scope != Scope::Keys {
        return dump(txn).0;
    }
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let positions = row.command.row.key_positions(&args).unwrap_or_default();
    let home = txn.db();
    let mut dump = Dump::new();
    for db in 0..DBS {
        txn.select(db);
        for &at in &positions {
            if let Some(entry) = txn.peek(args[at]) {
                dump.insert((db, args[at].to_vec()), Seen::of(entry));
            }
        }
    }
    txn.select(home);
    dump
}

/// What they change nobody is told of, as in Redis.
const SILENT: &[&str] =
    &["swapdb", "xack", "xackdel", "xclaim", "xautoclaim", "xreadgroup", "pfcount"];

/// Without what may change though the value is the same: its encoding, and the order it gives.
fn contents(mut dump: Dump) -> Dump {
    for seen in dump.values_mut() {
        seen.encoding = "";
        seen.elements.sort();
    }
    dump
}

/// A run of random commands in one transaction.
fn sequence(
    txn: &mut Txn<'_>,
    rng: &mut Rng,
    rows: &[Row],
    succeeded: &mut [u64],
) -> (u64, Vec<String>) {
    let mut history = Vec::new();
    let count = rng.u64(..60);
    for _ in 0..count {
        let at = rng.usize(..rows.len());
        let row = &rows[at];
        // They leave little to do for the commands behind them.
        if row.command.row.scope == Scope::Exclusive && rng.u8(..12) > 0 {
            continue;
        }
        if rng.u8(..20) == 0 {
            txn.select(rng.u32(..DBS));
        }
        let args = draw(rng, row, txn.now_ms());
        let text: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
        history.push(format!("{}> {}", txn.db(), text.join(" ")));
        // Scripts come back to what they have just touched, and the transaction remembers it.
        let times = if rng.u8(..4) == 0 { rng.u8(2..5) } else { 1 };
        for _ in 0..times {
            let before = dump_named(txn, row, &args);
            if row.command.row.scope == Scope::Keys && args.len() > 1 && rng.bool() {
                assert!(txn.expect_key(&args[1]), "the plan is exclusive");
            }
            let heard = txn.heard();
            let now_ms = txn.now_ms();
            let did = run(txn, row.command, &args, now_ms);
            txn.forget_key();
            if did {
                succeeded[at] += 1;
                if txn.is_heard()
                    && contents(dump_named(txn, row, &args)) != contents(before.clone())
                {
                    let is_heard = txn.heard() > heard || SILENT.contains(&row.command.row.name);
                    assert!(is_heard, "nobody hears of {:?}", history.last());
                }
            } else {
                let after = dump_named(txn, row, &args);
                assert_eq!(after, before, "an error changed something: {:?}", history.last());
            }
        }
    }
    (count, history)
}

#[test]
fn every_writing_command_can_be_undone() {
    let seed = number("UNDO_SEED", fastrand::u64(..));
    let commands = number("UNDO_COMMANDS", 100_000);
    println!("UNDO_SEED={seed} UNDO_COMMANDS={commands}");
    let mut rng = Rng::with_seed(seed);
    let rows = rows();
    let mut succeeded = vec![0; rows.len()];
    let limits = small_limits();
    let engine = Engine::new(1);
    let settings = Settings { limits, ..Settings::default() };
    let told = Settings { events: Classes::of(|_| true), ..settings.clone() };
    let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
    let heard_worker = Worker::new(0, Arc::new(told), engine.stats(0));
    *worker.rng.borrow_mut() = Rng::with_seed(seed);
    assert!(engine.gates().enter(0, None), "nobody else holds the gate");
    let mut now_ms = START_MS;
    let mut done = 0;
    while done < commands {
        // Somebody listens, or nobody.
        let worker = if rng.bool() { &worker } else { &heard_worker };
        let mut txn = Txn::begin(&engine, worker, Plan::Exclusive, now_ms);
        // A script's transaction remembers more than others.
        txn.set_run(rng.u64(..2));
        let before = dump(&mut txn);
        let heard = txn.heard();
        txn.record();
        let (count, history) = sequence(&mut txn, &mut rng, &rows, &mut succeeded);
        done += count;
        if rng.bool() {
            // A trial in the midst of it leaves what was recorded as it was.
            let midway = dump(&mut txn);
            let trial = txn.start_trial();
            let (count, history) = sequence(&mut txn, &mut rng, &rows, &mut succeeded);
            done += count;
            txn.end_trial(trial);
            assert!(dump(&mut txn) == midway, "tried:\n{}", history.join("\n"));
            let (count, _) = sequence(&mut txn, &mut rng, &rows, &mut succeeded);
            done += count;
        }
        txn.roll_back();
        assert_eq!(txn.heard(), heard, "somebody hears of what was undone");
        let after = dump(&mut txn);
        if after != before {
            let gone: Vec<_> =
                before.0.iter().filter(|held| after.0.get(held.0) != Some(held.1)).collect();
            let came: Vec<_> =
                after.0.iter().filter(|held| before.0.get(held.0) != Some(held.1)).collect();
            panic!(
                "undone:\n{}\nbefore {gone:#?}\nafter {came:#?}\nsizes {:?} and {:?}",
                history.join("\n"),
                before.1,
                after.1
            );
        }
        let (count, _) = sequence(&mut txn, &mut rng, &rows, &mut succeeded);
        done += count;
        txn.commit();
        now_ms += rng.i64(0..3000);
    }
    // The index of expiries leads to every key that has one, and to nothing else.
    engine.expire_cycle(&worker, 1, 0, i64::MAX, || false);
    let mut txn = Txn::begin(&engine, &worker, Plan::Exclusive, i64::MIN);
    assert!(dump(&mut txn).0.values().all(|seen| seen.expire_at_ms.is_none()));
    txn.commit();
    if commands >= 50_000 {
        for (row, succeeded) in rows.iter().zip(succeeded) {
            assert!(
                succeeded > 0,
                "{} never succeeded: draw better arguments",
                row.command.row.name
            );
        }
    }
}

//! What commands change is in the change log, whole and in order.
//!
//! Sequences of random commands (`random`) run with logging, some of them rolled back in the middle
//! or at the end. The log of each transaction, said in commands, runs on a second engine: both must
//! hold the same. `PROPAGATE_SEED` repeats a run, `PROPAGATE_COMMANDS` sets its length.
//! `PROPAGATE_AOF` writes the whole log to a file, for a Redis to load.

mod random;

use std::sync::{Arc, Mutex};

use command::propagate::Propagation;
use command::{Command, FAMILIES, Handler, Scope};
use engine::{Changes, Engine, Journal, Plan, Records, Settings, Txn, Worker};
use fastrand::Rng;
use resp::{Item, Reader};

use random::{DBS, Dump, Row, START_MS, draw, dump, number, rows, run, small_limits};

/// Keeps the blocks that it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl Kept {
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Journal for Kept {
    fn append(&self, block: &Changes) -> u64 {
        let mut blocks = self.0.lock().unwrap();
        blocks.push(block.as_bytes().to_vec());
        blocks.len() as u64
    }
}

/// An engine and its one thread.
struct Side {
    engine: Engine,
    worker: Worker,
}

impl Side {
    fn new(seed: u64) -> Side {
        let engine = Engine::new(1);
        let settings = Settings { limits: small_limits(), ..Settings::default() };
        let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
        *worker.rng.borrow_mut() = Rng::with_seed(seed);
        assert!(engine.gates().enter(0, None), "nobody else holds the gate");
        Side { engine, worker }
    }

    fn begin(&self, now_ms: i64) -> Txn<'_> {
        Txn::begin(&self.engine, &self.worker, Plan::Exclusive, now_ms)
    }

    fn dump(&self, now_ms: i64) -> Dump {
        let mut txn = self.begin(now_ms);
        let (mut dump, _) = dump(&mut txn);
        txn.commit();
        for seen in dump.values_mut() {
            // The same value may be encoded in another way, and in another order then.
            seen.encoding = "";
            if matches!(seen.value_type, "set" | "hash") {
                seen.elements.sort();
            }
        }
        dump
    }
}

/// Runs commands as they stand in a file, one transaction for all.
struct Replay {
    side: Side,
    rows: Vec<&'static Command<Handler>>,
}

impl Replay {
    fn new() -> Replay {
        let rows = FAMILIES.iter().flat_map(|family| family.iter()).collect();
        Replay { side: Side::new(0), rows }
    }

    fn run(&self, text: &[u8]) {
        // Long before anything expires.
        let mut txn = self.side.begin(1);
        let mut reader = Reader::new(text);
        while let Some(item) = reader.next_item().expect("well formed") {
            let Item::Array(len) = item else { panic!("{item:?} is no command") };
            let args: Vec<Vec<u8>> = (0..len)
                .map(|_| match reader.next_item() {
                    Ok(Some(Item::Bulk(arg))) => arg.to_vec(),
                    other => panic!("{other:?} is no argument"),
                })
                .collect();
            let name = String::from_utf8_lossy(&args[0]).to_lowercase();
            if name == "select" {
                txn.select(String::from_utf8_lossy(&args[1]).parse().expect("a database"));
                continue;
            }
            let command = self.rows.iter().find(|command| command.row.name == name);
            let command = command.unwrap_or_else(|| panic!("no command {name}"));
            assert!(command.row.accepts(args.len()), "{name} with {} arguments", args.len());
            let row = Row { command, arguments: Vec::new() };
            assert!(run(&mut txn, &row, &args), "{name} answers an error");
        }
        txn.commit();
    }
}

fn sequence(
    txn: &mut Txn<'_>,
    rng: &mut Rng,
    rows: &[Row],
    count: u64,
    logged: &mut [u64],
) -> Vec<String> {
    let mut history = Vec::new();
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
        logged[at] += u64::from(run(txn, row, &args));
    }
    history
}

#[test]
fn replayed_changes_make_the_same_keyspace() {
    let seed = number("PROPAGATE_SEED", fastrand::u64(..));
    let commands = number("PROPAGATE_COMMANDS", 100_000);
    println!("PROPAGATE_SEED={seed} PROPAGATE_COMMANDS={commands}");
    let mut rng = Rng::with_seed(seed);
    let rows = rows();
    let original = Side::new(seed);
    let replay = Replay::new();
    let journal = Kept::default();
    original.engine.set_journal(Box::new(journal.clone()));
    original.engine.set_logging(true);
    let mut whole = Propagation::new(Some(0));
    let mut file = Vec::new();
    let keeps_file = std::env::var_os("PROPAGATE_AOF");
    let mut logged = vec![0; rows.len()];
    let mut now_ms = START_MS;
    let mut done = 0;
    while done < commands {
        let mut history = Vec::new();
        let mut txn = original.begin(now_ms);
        for _ in 0..rng.u64(1..4) {
            let count = rng.u64(..25);
            let records = rng.u8(..3) > 0;
            if records {
                txn.record();
            }
            history.extend(sequence(&mut txn, &mut rng, &rows, count, &mut logged));
            done += count;
            if records {
                match rng.u8(..3) {
                    0 => {
                        txn.roll_back();
                        history.push("undone".into());
                    }
                    1 => txn.keep(),
                    // The rest of the transaction is recorded with it.
                    _ => {}
                }
            }
        }
        let effects = txn.commit();
        let blocks = journal.take();
        assert!(blocks.len() <= 1, "a transaction is one block");
        assert_eq!(effects.sequence, blocks.len() as u64);
        let mut said = Vec::new();
        for block in &blocks {
            Propagation::new(None).write(Records::new(block), &mut said);
            if keeps_file.is_some() {
                whole.write(Records::new(block), &mut file);
            }
        }
        replay.run(&said);
        let (wanted, replayed) = (original.dump(now_ms), replay.side.dump(now_ms));
        if wanted != replayed {
            let only = |here: &Dump, there: &Dump| -> Vec<String> {
                let differs = here.iter().filter(|held| there.get(held.0) != Some(held.1));
                differs
                    .map(|((db, key), seen)| format!("{db}> {} {seen:?}", key.escape_ascii()))
                    .collect()
            };
            panic!(
                "ran:\n{}\nlogged:\n{}\nwanted {:#?}\nreplayed {:#?}",
                history.join("\n"),
                said.escape_ascii().to_string().replace("\\r\\n*", "\n*").replace("\\r\\n", " "),
                only(&wanted, &replayed),
                only(&replayed, &wanted),
            );
        }
        now_ms += rng.i64(0..3000);
    }
    if let Some(path) = keeps_file {
        std::fs::write(path, file).expect("the file can be written");
    }
    if commands >= 50_000 {
        for (row, logged) in rows.iter().zip(logged) {
            assert!(logged > 0, "{} never succeeded: draw better arguments", row.command.row.name);
        }
    }
}

#[test]
fn what_is_rolled_back_leaves_no_byte() {
    let side = Side::new(1);
    let journal = Kept::default();
    side.engine.set_journal(Box::new(journal.clone()));
    side.engine.set_logging(true);
    let mut txn = side.begin(START_MS);
    txn.record();
    txn.set_string(b"key", b"value", engine::Expiry::Clear);
    txn.write_or_create::<data::List>(b"list").unwrap().push(data::End::Tail, b"element");
    txn.roll_back();
    assert_eq!(txn.commit().sequence, 0);
    assert_eq!(journal.take(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_trial_is_read_and_forgotten() {
    let side = Side::new(1);
    let mut txn = side.begin(START_MS);
    txn.set_string(b"before", b"1", engine::Expiry::Clear);
    let trial = txn.start_trial();
    txn.set_string(b"key", b"value", engine::Expiry::At(START_MS + 1));
    let mut said = Vec::new();
    let count = Propagation::new(Some(0)).write(txn.tried(&trial), &mut said);
    txn.end_trial(trial);
    txn.set_string(b"behind", b"1", engine::Expiry::Clear);
    assert_eq!(txn.commit().sequence, 0);
    assert_eq!(count, 1);
    let text = String::from_utf8(said).unwrap();
    let wanted = "*5 $3 SET $3 key $5 value $4 PXAT $13 1700000000001 ";
    assert_eq!(text.replace("\r\n", " "), wanted);
}

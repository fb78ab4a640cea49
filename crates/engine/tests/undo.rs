//! Undo: whatever a transaction did through the door, rolling it back leaves the keyspace as it
//! was, and recording changes nothing about what a transaction does.
//!
//! Two engines get the same random operations. On the first, every transaction is first recorded,
//! run up to a random point and rolled back, which must leave a full dump as it was; then it is
//! recorded, run and committed. The second engine never records. `UNDO_SEED` and `UNDO_ROUNDS`
//! repeat a failure and make it longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use data::{Encoding, End, Hash, Limits, List, Set, Zset};
use engine::{
    Collection, Engine, Entry, Expiry, Plan, Settings, StoppedRuns, Str, Txn, Value, ValueRef,
    Waiter, Watch, Worker,
};
use fastrand::Rng;

const DBS: u32 = 2;
const KEYS: usize = 6;
const START_MS: i64 = 1_000_000;

/// What is seen of a key from outside.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    encoding: String,
    expire_at_ms: Option<i64>,
    elements: Vec<Vec<u8>>,
}

impl Seen {
    fn of(entry: &Entry) -> Seen {
        let mut elements: Vec<Vec<u8>> = match entry.get() {
            ValueRef::Str(Str::Int(number)) => vec![number.to_string().into_bytes()],
            ValueRef::Str(Str::Bytes(bytes)) => vec![bytes.to_vec()],
            ValueRef::List(list) => list.iter().map(<[u8]>::to_vec).collect(),
            ValueRef::Set(set) => set.iter().map(|member| member.to_vec()).collect(),
            ValueRef::Hash(hash) => {
                hash.iter().map(|(field, value)| [field, b"=", value].concat()).collect()
            }
            ValueRef::Zset(zset) => zset
                .iter()
                .map(|(member, score)| [member, b"=", score.to_string().as_bytes()].concat())
                .collect(),
        };
        // The order of a table means nothing; that of compact encodings is seen by clients.
        if entry.encoding() == Encoding::Hashtable.name() {
            elements.sort();
        }
        let encoding = format!("{} {}", entry.value_type().name(), entry.encoding());
        Seen { encoding, expire_at_ms: entry.expire_at_ms(), elements }
    }
}

type Dump = BTreeMap<(u32, Vec<u8>), Seen>;

#[derive(Clone, Debug)]
enum Op {
    Select(u32),
    SetString(usize, Vec<u8>, Option<i64>),
    SetKeeping(usize, Vec<u8>),
    Put(usize, Vec<u8>, Option<i64>),
    PutList(usize, Vec<Vec<u8>>),
    PutZset(usize, Vec<Vec<u8>>),
    Remove(usize),
    SetExpire(usize, Option<i64>),
    SetInteger(usize, i64),
    Increment(usize, i64),
    Append(usize, Vec<u8>),
    Overwrite(usize, usize, Vec<u8>),
    Relocate(usize, usize, u32),
    Duplicate(usize, usize, u32),
    Push(usize, bool, Vec<Vec<u8>>),
    Pop(usize, bool, usize),
    ListSet(usize, i64, Vec<u8>),
    ListInsert(usize, Vec<u8>, bool, Vec<u8>),
    ListRemove(usize, Vec<u8>, i64),
    RemoveRange(usize, usize, usize),
    RetainRange(usize, usize, usize),
    Add(usize, Vec<Vec<u8>>),
    Drop(usize, Vec<Vec<u8>>),
    HashSet(usize, Vec<Vec<u8>>, Vec<u8>),
    HashRemove(usize, Vec<Vec<u8>>),
    Insert(usize, Vec<Vec<u8>>, i64),
    ZsetRemove(usize, Vec<Vec<u8>>),
    ZsetRemoveRange(usize, usize, usize),
    CreateNothing(usize, u8),
    Read(usize),
    Flush(Option<u32>),
    Swap(u32, u32),
}

fn member(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..8) {
        0..4 => rng.u8(..40).to_string().into_bytes(),
        4..7 => format!("member:{}", rng.u8(..40)).into_bytes(),
        _ => vec![b'm'; rng.usize(..30)],
    }
}

fn text(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..6) {
        0 => rng.i64(-3..3).to_string().into_bytes(),
        1 => rng.i64(..).to_string().into_bytes(),
        2 => vec![b'x'; rng.usize(1000..1050)],
        3 => vec![b'y'; rng.usize(1..4000)],
        _ => vec![b'z'; rng.usize(..60)],
    }
}

fn op(rng: &mut Rng) -> Op {
    let key = rng.usize(..KEYS);
    let db = |rng: &mut Rng| rng.u32(..DBS);
    // Some are over already.
    let when = |rng: &mut Rng| rng.bool().then(|| START_MS + rng.i64(-50..2000));
    let members = |rng: &mut Rng, most: usize| -> Vec<Vec<u8>> {
        (0..rng.usize(1..=most)).map(|_| member(rng)).collect()
    };
    match rng.u8(..66) {
        0..2 => Op::Select(db(rng)),
        2..5 => Op::SetString(key, text(rng), when(rng)),
        5 => Op::SetKeeping(key, text(rng)),
        6 => Op::Put(key, text(rng), when(rng)),
        7..9 => Op::PutList(key, members(rng, 30)),
        9..11 => Op::PutZset(key, members(rng, 30)),
        11..14 => Op::Remove(key),
        14..18 => Op::SetExpire(key, when(rng)),
        18 => Op::SetInteger(key, rng.i64(-100..100)),
        19..22 => Op::Increment(key, rng.i64(-100..100)),
        22..24 => Op::Append(key, text(rng)),
        24..27 => Op::Overwrite(key, rng.usize(..3000), text(rng)),
        27..30 => {
            let to = (key + rng.usize(1..KEYS)) % KEYS;
            Op::Relocate(key, to, db(rng))
        }
        30 => Op::Duplicate(key, (key + 1) % KEYS, db(rng)),
        31..35 => Op::Push(key, rng.bool(), members(rng, 12)),
        35..38 => Op::Pop(key, rng.bool(), rng.usize(..20)),
        38 => Op::ListSet(key, rng.i64(-20..20), member(rng)),
        39 => Op::ListInsert(key, member(rng), rng.bool(), member(rng)),
        40 => Op::ListRemove(key, member(rng), rng.i64(-3..3)),
        41 => Op::RemoveRange(key, rng.usize(..20), rng.usize(..60)),
        42 => Op::RetainRange(key, rng.usize(..20), rng.usize(..60)),
        43..46 => Op::Add(key, members(rng, 12)),
        46..48 => Op::Drop(key, members(rng, 20)),
        48..51 => Op::HashSet(key, members(rng, 12), text(rng)),
        51..53 => Op::HashRemove(key, members(rng, 20)),
        53..57 => Op::Insert(key, members(rng, 12), rng.i64(-5..5)),
        57..59 => Op::ZsetRemove(key, members(rng, 20)),
        59 => Op::ZsetRemoveRange(key, rng.usize(..20), rng.usize(..60)),
        60 => Op::CreateNothing(key, rng.u8(..4)),
        61..64 => Op::Read(key),
        64 if rng.u8(..6) == 0 => Op::Flush(rng.bool().then(|| rng.u32(..DBS))),
        65 if rng.u8(..3) == 0 => Op::Swap(db(rng), db(rng)),
        _ => Op::SetExpire(key, when(rng)),
    }
}

fn key(number: usize) -> Vec<u8> {
    // One that does not fit a short key's place.
    match number {
        0 => b"a key that is longer than most keys are".to_vec(),
        _ => format!("key:{number}").into_bytes(),
    }
}

fn end(head: bool) -> End {
    if head { End::Head } else { End::Tail }
}

fn apply(txn: &mut Txn<'_>, op: &Op) {
    let limits = txn.limits();
    match op {
        Op::Select(db) => txn.select(*db),
        Op::SetString(at, value, when) => {
            txn.set_string(&key(*at), value, when.map_or(Expiry::Clear, Expiry::At));
        }
        Op::SetKeeping(at, value) => txn.set_string(&key(*at), value, Expiry::Keep),
        Op::Put(at, value, when) => txn.put(&key(*at), Value::Bytes(value.clone()), *when),
        Op::PutList(at, values) => {
            let mut list = List::new();
            values.iter().for_each(|value| list.push_back(value, limits));
            txn.put(&key(*at), Collection::List(list), None);
        }
        Op::PutZset(at, members) => {
            let mut zset = Zset::new();
            for (score, member) in members.iter().enumerate() {
                zset.insert(member, score as f64, limits);
            }
            txn.put(&key(*at), Collection::Zset(zset), None);
        }
        Op::Remove(at) => _ = txn.remove(&key(*at)),
        Op::SetExpire(at, when) => _ = txn.set_expire(&key(*at), *when),
        Op::SetInteger(at, number) => txn.set_integer(&key(*at), *number),
        Op::Increment(at, by) => _ = txn.increment(&key(*at), *by),
        Op::Append(at, more) => _ = txn.append(&key(*at), more),
        Op::Overwrite(at, offset, bytes) => _ = txn.overwrite(&key(*at), *offset, bytes),
        Op::Relocate(at, to, db) => _ = txn.relocate(&key(*at), &key(*to), *db),
        Op::Duplicate(at, to, db) => _ = txn.duplicate(&key(*at), &key(*to), *db),
        Op::Push(at, head, values) => {
            if let Ok(mut list) = txn.write_or_create::<List>(&key(*at)) {
                values.iter().for_each(|value| list.push(end(*head), value));
            }
        }
        Op::CreateNothing(at, kind) => match kind {
            0 => drop(txn.write_or_create::<List>(&key(*at))),
            1 => drop(txn.write_or_create::<Set>(&key(*at))),
            2 => drop(txn.write_or_create::<Hash>(&key(*at))),
            _ => drop(txn.write_or_create::<Zset>(&key(*at))),
        },
        Op::Add(at, members) => {
            if let Ok(mut set) = txn.write_or_create::<Set>(&key(*at)) {
                set.prepare(members.len());
                members.iter().for_each(|member| _ = set.add(member));
            }
        }
        Op::HashSet(at, fields, value) => {
            if let Ok(mut hash) = txn.write_or_create::<Hash>(&key(*at)) {
                hash.prepare(fields.len());
                fields.iter().for_each(|field| _ = hash.set(field, value));
            }
        }
        Op::Insert(at, members, score) => {
            if let Ok(mut zset) = txn.write_or_create::<Zset>(&key(*at)) {
                let longest = members.iter().map(Vec::len).max().unwrap_or(0);
                zset.prepare(members.len(), longest);
                for (step, member) in members.iter().enumerate() {
                    zset.insert(member, (*score + step as i64) as f64);
                }
            }
        }
        Op::Read(at) => _ = txn.read(&key(*at)).is_some(),
        Op::Flush(db) => _ = txn.flush(*db),
        Op::Swap(a, b) => txn.swap_dbs(*a, *b),
        _ => apply_to_existing(txn, op),
    }
}

fn apply_to_existing(txn: &mut Txn<'_>, op: &Op) {
    match op {
        Op::Pop(at, head, count) => {
            if let Ok(Some(mut list)) = txn.write::<List>(&key(*at)) {
                (0..*count).for_each(|_| _ = list.pop(end(*head)));
            }
        }
        Op::ListSet(at, index, value) => {
            if let Ok(Some(mut list)) = txn.write::<List>(&key(*at)) {
                list.set(*index, value);
            }
        }
        Op::ListInsert(at, pivot, before, value) => {
            if let Ok(Some(mut list)) = txn.write::<List>(&key(*at)) {
                list.insert_at_pivot(pivot, *before, value);
            }
        }
        Op::ListRemove(at, value, count) => {
            if let Ok(Some(mut list)) = txn.write::<List>(&key(*at)) {
                list.remove(value, *count);
            }
        }
        Op::RemoveRange(at, start, count) => {
            if let Ok(Some(mut list)) = txn.write::<List>(&key(*at)) {
                list.remove_range(*start..start + count);
            }
        }
        Op::RetainRange(at, start, count) => {
            if let Ok(Some(mut list)) = txn.write::<List>(&key(*at)) {
                list.retain_range(*start..start + count);
            }
        }
        Op::Drop(at, members) => {
            if let Ok(Some(mut set)) = txn.write::<Set>(&key(*at)) {
                members.iter().for_each(|member| _ = set.remove(member));
            }
        }
        Op::HashRemove(at, fields) => {
            if let Ok(Some(mut hash)) = txn.write::<Hash>(&key(*at)) {
                fields.iter().for_each(|field| _ = hash.remove(field));
            }
        }
        Op::ZsetRemove(at, members) => {
            if let Ok(Some(mut zset)) = txn.write::<Zset>(&key(*at)) {
                members.iter().for_each(|member| _ = zset.remove(member));
            }
        }
        Op::ZsetRemoveRange(at, start, count) => {
            if let Ok(Some(mut zset)) = txn.write::<Zset>(&key(*at)) {
                zset.remove_range(*start..start + count);
            }
        }
        _ => unreachable!("the others need no value"),
    }
}

/// One engine on one thread, which has the only gate and so all of them.
struct Side {
    engine: Engine,
    worker: Worker,
}

impl Side {
    fn new(limits: Limits) -> Side {
        let engine = Engine::new(1);
        let settings = Settings { limits, ..Settings::default() };
        let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
        assert!(engine.gates().enter(0, None));
        Side { engine, worker }
    }

    fn begin(&self, now_ms: i64) -> Txn<'_> {
        Txn::begin(&self.engine, &self.worker, Plan::Exclusive, now_ms)
    }
}

/// All live keys, and how many entries and expiries each database has, stale ones included.
fn dump(txn: &mut Txn<'_>) -> (Dump, Vec<(usize, usize)>) {
    let home = txn.db();
    let mut dump = Dump::new();
    let mut sizes = Vec::new();
    for db in 0..DBS {
        txn.select(db);
        txn.for_each(|entry| {
            let before = dump.insert((db, entry.key().to_vec()), Seen::of(entry));
            assert!(before.is_none(), "a key is there twice");
        });
        let size = txn.db_size();
        sizes.push((size.keys, size.expires));
    }
    txn.select(home);
    (dump, sizes)
}

/// Lists and compact encodings of a few elements, so that large values come soon.
fn small_limits() -> Limits {
    Limits {
        list_max_listpack_size: 6,
        hash_max_listpack_entries: 8,
        hash_max_listpack_value: 50,
        set_max_intset_entries: 8,
        set_max_listpack_entries: 8,
        zset_max_listpack_entries: 8,
        ..Limits::default()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn a_rollback_leaves_everything_as_it_was() {
    let seed = number("UNDO_SEED", fastrand::u64(..));
    println!("UNDO_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (ours, plain) = (Side::new(small_limits()), Side::new(small_limits()));
    let mut now_ms = START_MS;
    for round in 0..number("UNDO_ROUNDS", if cfg!(miri) { 3 } else { 1500 }) {
        if round % 100 == 0 {
            now_ms = START_MS;
            for side in [&ours, &plain] {
                let mut txn = side.begin(now_ms);
                txn.flush(None);
                txn.commit();
            }
        }
        let ops = |rng: &mut Rng| -> Vec<Op> { (0..rng.usize(..60)).map(|_| op(rng)).collect() };

        let undone = ops(&mut rng);
        let mut txn = ours.begin(now_ms);
        let before = dump(&mut txn);
        txn.record();
        undone.iter().for_each(|op| apply(&mut txn, op));
        txn.select(0);
        txn.roll_back();
        assert!(!txn.is_recording());
        assert_eq!(dump(&mut txn), before, "round {round}: {undone:#?}");
        txn.commit();

        let kept = ops(&mut rng);
        let mut dumps = Vec::new();
        for side in [&ours, &plain] {
            let mut txn = side.begin(now_ms);
            if std::ptr::eq(side, &ours) {
                txn.record();
            }
            kept.iter().for_each(|op| apply(&mut txn, op));
            txn.commit();
            let mut txn = side.begin(now_ms);
            let mut seen = dump(&mut txn).0;
            // How a list is cut into blocks may differ after a rollback, and with it the time at
            // which it becomes a listpack.
            for seen in seen.values_mut().filter(|seen| seen.encoding.starts_with("list")) {
                seen.encoding = "list".to_owned();
            }
            dumps.push(seen);
            txn.commit();
        }
        assert_eq!(dumps[0], dumps[1], "round {round}: {kept:#?}");
        now_ms += rng.i64(0..20);

        // The index of expiries leads to every key that has one, and to nothing else.
        if round % 10 == 9 {
            let far_ms = now_ms + 1_000_000;
            for side in [&ours, &plain] {
                side.engine.expire_cycle(&side.worker, 1, 0, far_ms, || false);
                let (_, sizes) = dump(&mut side.begin(far_ms));
                let mut txn = side.begin(i64::MIN);
                let all = dump(&mut txn);
                assert!(all.0.values().all(|seen| seen.expire_at_ms.is_none()), "{sizes:?}");
                txn.commit();
            }
        }
    }
}

fn filled_zset(side: &Side, members: usize) {
    let mut txn = side.begin(START_MS);
    let mut zset = txn.write_or_create::<Zset>(b"z").unwrap();
    for member in 0..members {
        zset.insert(format!("member:{member}").as_bytes(), member as f64);
    }
    drop(zset);
    txn.commit();
}

#[test]
#[cfg_attr(miri, ignore = "millions of steps")]
fn a_large_value_moves_into_the_log_and_back() {
    let side = Side::new(Limits::default());
    filled_zset(&side, 1_000_000);
    let place = |txn: &Txn<'_>| -> *const Zset { txn.read_zset(b"z").unwrap().unwrap() };
    let mut txn = side.begin(START_MS);
    let before = place(&txn);
    for change in [
        |txn: &mut Txn<'_>| _ = txn.remove(b"z"),
        |txn: &mut Txn<'_>| txn.set_string(b"z", b"text", Expiry::At(START_MS + 1)),
        |txn: &mut Txn<'_>| _ = txn.flush(None),
    ] {
        txn.record();
        change(&mut txn);
        assert!(!matches!(txn.read_zset(b"z"), Ok(Some(_))));
        assert!(txn.undo_bytes() < 1000, "{} bytes for one move", txn.undo_bytes());
        txn.roll_back();
        assert_eq!(place(&txn), before, "the same value came back to its key");
    }
    // A new name is a new entry, but the elements stay where they are.
    let first = |txn: &Txn<'_>, key: &[u8]| -> *const u8 {
        txn.read_zset(key).unwrap().unwrap().at(0).unwrap().0.as_ptr()
    };
    let before = first(&txn, b"z");
    txn.record();
    txn.relocate(b"z", b"elsewhere", 0);
    assert_eq!(first(&txn, b"elsewhere"), before);
    assert!(txn.undo_bytes() < 1000);
    txn.roll_back();
    assert_eq!(first(&txn, b"z"), before);
    // All elements at once.
    txn.record();
    assert_eq!(txn.write::<Zset>(b"z").unwrap().unwrap().remove_range(0..usize::MAX), 1_000_000);
    assert!(!txn.exists(b"z"));
    assert!(txn.undo_bytes() < 1000);
    txn.roll_back();
    assert_eq!(first(&txn, b"z"), before);
    txn.commit();
}

#[test]
#[cfg_attr(miri, ignore = "millions of steps")]
fn a_small_change_of_a_large_value_makes_a_small_log() {
    let side = Side::new(Limits::default());
    filled_zset(&side, 100_000);
    let mut txn = side.begin(START_MS);
    let limits = txn.limits();
    let (mut list, mut set, mut hash) = (List::new(), Set::new(), Hash::new());
    for number in 0..100_000 {
        let member = format!("member:{number}").into_bytes();
        list.push_back(&member, limits);
        set.add(&member, limits);
        hash.set(&member, b"value", limits);
    }
    txn.put(b"l", Collection::List(list), None);
    txn.put(b"s", Collection::Set(set), None);
    txn.put(b"h", Collection::Hash(hash), None);
    txn.set_string(b"t", &vec![b't'; 1_000_000], Expiry::Clear);
    let before = dump(&mut txn);
    for change in [
        |txn: &mut Txn<'_>| _ = txn.write::<Zset>(b"z").unwrap().unwrap().insert(b"new", 1.5),
        |txn: &mut Txn<'_>| _ = txn.write::<Zset>(b"z").unwrap().unwrap().insert(b"member:7", 9e9),
        |txn: &mut Txn<'_>| _ = txn.write::<Zset>(b"z").unwrap().unwrap().remove_range(0..2),
        |txn: &mut Txn<'_>| _ = txn.write::<List>(b"l").unwrap().unwrap().pop(End::Head),
        |txn: &mut Txn<'_>| txn.write::<List>(b"l").unwrap().unwrap().push(End::Tail, b"new"),
        |txn: &mut Txn<'_>| _ = txn.write::<List>(b"l").unwrap().unwrap().set(50_000, b"other"),
        |txn: &mut Txn<'_>| _ = txn.write::<Set>(b"s").unwrap().unwrap().pop(),
        |txn: &mut Txn<'_>| _ = txn.write::<Hash>(b"h").unwrap().unwrap().set(b"new", b"value"),
        |txn: &mut Txn<'_>| _ = txn.append(b"t", b"more"),
        |txn: &mut Txn<'_>| _ = txn.overwrite(b"t", 500_000, b"other"),
        |txn: &mut Txn<'_>| _ = txn.set_expire(b"h", Some(START_MS + 5)),
    ] {
        txn.record();
        change(&mut txn);
        assert_ne!(dump(&mut txn), before);
        assert!(txn.undo_bytes() < 700, "{} bytes for one change", txn.undo_bytes());
        txn.roll_back();
        assert_eq!(dump(&mut txn), before);
    }
    txn.commit();
}

/// A script that changes the same things over and over does not fill memory.
#[test]
#[cfg_attr(miri, ignore = "millions of steps")]
fn the_log_does_not_grow_with_repetitions() {
    let side = Side::new(Limits::default());
    filled_zset(&side, 1000);
    let mut txn = side.begin(START_MS);
    let limits = txn.limits();
    let mut list = List::new();
    (0..3000).for_each(|number| list.push_back(format!("{number:08}").as_bytes(), limits));
    txn.put(b"l", Collection::List(list), None);
    txn.set_string(b"t", &vec![b't'; 100_000], Expiry::Clear);
    txn.set_string(b"n", b"0", Expiry::Clear);
    let before = dump(&mut txn);
    txn.record();
    for turn in 0..100_000usize {
        let mut zset = txn.write::<Zset>(b"z").unwrap().unwrap();
        zset.insert(format!("member:{}", turn % 100).as_bytes(), -(turn as f64));
        drop(zset);
        let mut list = txn.write::<List>(b"l").unwrap().unwrap();
        let value = list.pop(End::Head).unwrap();
        list.push(End::Tail, &value);
        drop(list);
        txn.overwrite(b"t", turn, b"x").unwrap();
        txn.increment(b"n", 1).unwrap();
    }
    assert!(txn.undo_bytes() < 1 << 20, "{} bytes", txn.undo_bytes());
    txn.roll_back();
    assert_eq!(dump(&mut txn), before);
    txn.commit();
}

#[test]
fn watches_and_effects_wait_for_the_commit() {
    let side = Side::new(Limits::default());
    let watch = Arc::new(Watch::default());
    let mut txn = side.begin(START_MS);
    txn.watch(b"k", &watch);
    txn.set_string(b"other", b"v", Expiry::Clear);
    txn.record();
    txn.set_string(b"k", b"v", Expiry::Clear);
    txn.flush(None);
    txn.swap_dbs(0, 1);
    assert!(!watch.is_marked());
    txn.roll_back();
    assert!(!watch.is_marked());
    assert_eq!(txn.commit().dirty, 1, "what came before the recording counts");
    let mut txn = side.begin(START_MS);
    txn.record();
    txn.increment(b"k", 1).unwrap();
    assert!(!watch.is_marked());
    assert_eq!(txn.commit().dirty, 1);
    assert!(watch.is_marked());
}

#[test]
fn what_is_kept_stays_when_a_later_recording_is_rolled_back() {
    let side = Side::new(Limits::default());
    let mut txn = side.begin(START_MS);
    txn.set_string(b"before", b"1", Expiry::Clear);
    txn.record();
    txn.set_string(b"kept", b"1", Expiry::Clear);
    txn.keep();
    assert!(!txn.is_recording());
    txn.record();
    txn.set_string(b"before", b"2", Expiry::Clear);
    txn.remove(b"kept");
    txn.roll_back();
    for key in [&b"before"[..], b"kept"] {
        assert_eq!(txn.read_string(key), Ok(Some(Str::Int(1))));
    }
    assert_eq!(txn.commit().dirty, 2);
}

#[test]
fn blocked_clients_are_woken_by_the_commit_only() {
    let side = Side::new(Limits::default());
    let name = (0, Box::from(&b"l"[..]));
    let waiter = Waiter::new(vec![name.clone()], Box::new(()));
    let mut txn = side.begin(START_MS);
    txn.wait(&waiter);
    txn.record();
    txn.write_or_create::<List>(b"l").unwrap().push(End::Tail, b"v");
    txn.swap_dbs(0, 1);
    txn.roll_back();
    assert!(txn.commit().ready.is_empty());
    let mut txn = side.begin(START_MS);
    txn.record();
    txn.write_or_create::<List>(b"l").unwrap().push(End::Tail, b"v");
    assert_eq!(txn.commit().ready, [name]);
}

#[test]
fn a_transaction_that_is_dropped_while_it_records_is_rolled_back() {
    let side = Side::new(Limits::default());
    let mut txn = side.begin(START_MS);
    txn.record();
    txn.set_string(b"k", b"v", Expiry::Clear);
    drop(txn);
    let txn = side.begin(START_MS);
    assert!(!txn.exists(b"k"));
    txn.commit();
}

#[test]
fn long_changes_break_off_when_they_will_be_undone() {
    const MEMBERS: usize = 300_000;
    let name = |number: usize| format!("member:{number}").into_bytes();
    let limits = Limits::default();
    let (mut list, mut zset, mut hash) = (List::new(), Zset::new(), Hash::new());
    for number in 0..MEMBERS {
        list.push_back(&name(number), &limits);
        zset.insert(&name(number), number as f64, &limits);
        hash.set(&name(number), b"value", &limits);
    }
    let change = |txn: &mut Txn<'_>| {
        let mut removed = Vec::new();
        let list = |txn: &mut Txn<'_>, range| {
            let mut list = txn.write::<List>(b"list").expect("a list").expect("is there");
            list.remove_range(range)
        };
        removed.push(list(txn, 10..100_000));
        let left = MEMBERS - removed[0];
        removed.push(list(txn, left - 50_000..left));
        let mut zset = txn.write::<Zset>(b"zset").expect("a sorted set").expect("is there");
        removed.push(zset.remove_range(5..100_000));
        drop(zset);
        (removed, txn.duplicate(b"hash", b"copy", 0))
    };

    let stopped_runs = Arc::new(StoppedRuns::default());
    let engine = Engine::new(1);
    let worker = Worker::new(0, Arc::new(Settings::default()), engine.stats(0));
    let worker = worker.stopped_by(stopped_runs.clone());
    let side = Side { engine, worker };
    assert!(side.engine.gates().enter(0, None));
    let mut txn = side.begin(START_MS);
    txn.put(b"list", Collection::List(list), None);
    txn.put(b"zset", Collection::Zset(zset), None);
    txn.put(b"hash", Collection::Hash(hash), None);
    let before = dump(&mut txn);

    // A script that is stopped: nothing is finished, and all of it comes back.
    stopped_runs.stop(7);
    txn.set_run(7);
    txn.record();
    let (removed, is_copied) = change(&mut txn);
    assert!(removed.iter().all(|&count| count < 40_000) && !is_copied, "{removed:?}");
    txn.roll_back();
    // Walks break off as well.
    txn.set_run(0);
    assert!(dump(&mut txn) == before);

    // One that goes on, and comes back all the same.
    txn.set_run(8);
    txn.record();
    let whole = (vec![99_990, 50_000, 99_995], true);
    assert_eq!(change(&mut txn), whole);
    txn.roll_back();
    assert!(dump(&mut txn) == before);

    // What is not recorded is not left half done.
    txn.set_run(7);
    let (removed, _) = change(&mut txn);
    assert_eq!(removed, whole.0);
    txn.commit();
}

/// Not a test but a measurement: how long the locks are held for a rollback of 1 M keys.
/// `cargo test --release -p engine --test undo -- --ignored --nocapture rolling_back_takes`
#[test]
#[ignore = "a measurement"]
fn rolling_back_takes() {
    const KEYS: usize = 1_000_000;
    let side = Side::new(Limits::default());
    let key = |number: usize| format!("key:{number}").into_bytes();
    type Change = fn(&mut Txn<'_>, &[u8]);
    let changes: [(&str, Change); 4] = [
        ("created", |txn, key| txn.set_string(key, b"something", Expiry::Clear)),
        ("incremented", |txn, key| _ = txn.increment(key, 1)),
        ("overwritten", |txn, key| txn.set_string(key, &[b'x'; 100], Expiry::Clear)),
        ("removed", |txn, key| _ = txn.remove(key)),
    ];
    for (step, (name, change)) in changes.into_iter().enumerate() {
        let mut txn = side.begin(START_MS);
        txn.record();
        (0..KEYS).for_each(|number| change(&mut txn, &key(number)));
        let begun = std::time::Instant::now();
        txn.roll_back();
        println!("{name}: {:?}", begun.elapsed());
        if step == 0 {
            (0..KEYS).for_each(|number| txn.set_integer(&key(number), number as i64));
        }
        txn.commit();
    }
}

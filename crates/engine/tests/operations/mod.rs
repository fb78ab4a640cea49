//! Random operations on a keyspace, and what is seen of it: for tests that compare.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use data::{Encoding, End, Hash, Limits, List, Set, Zset};
use engine::{
    Collection, Engine, Entry, Expiry, Plan, Settings, Str, Txn, Value, ValueRef, Worker,
};
use fastrand::Rng;

pub const DBS: u32 = 2;
pub const KEYS: usize = 6;
pub const START_MS: i64 = 1_000_000;

/// What is seen of a key from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub encoding: String,
    pub expire_at_ms: Option<i64>,
    pub elements: Vec<Vec<u8>>,
}

impl Seen {
    pub fn of(entry: &Entry) -> Seen {
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
            ValueRef::Stream(_) | ValueRef::Json(_) => panic!("nobody made one"),
        };
        // The order of a table means nothing; that of compact encodings is seen by clients.
        if entry.encoding() == Encoding::Hashtable.name() {
            elements.sort();
        }
        let encoding = format!("{} {}", entry.value_type().name(), entry.encoding());
        Seen { encoding, expire_at_ms: entry.expire_at_ms(), elements }
    }
}

pub type Dump = BTreeMap<(u32, Vec<u8>), Seen>;

#[derive(Clone, Debug)]
pub enum Op {
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

pub fn member(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..8) {
        0..4 => rng.u8(..40).to_string().into_bytes(),
        4..7 => format!("member:{}", rng.u8(..40)).into_bytes(),
        _ => vec![b'm'; rng.usize(..30)],
    }
}

pub fn text(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..6) {
        0 => rng.i64(-3..3).to_string().into_bytes(),
        1 => rng.i64(..).to_string().into_bytes(),
        2 => vec![b'x'; rng.usize(1000..1050)],
        3 => vec![b'y'; rng.usize(1..4000)],
        _ => vec![b'z'; rng.usize(..60)],
    }
}

pub fn op(rng: &mut Rng) -> Op {
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

impl Op {
    /// The key whose value, or its place, this changes; what is only replaced or removed is not
    /// changed.
    pub fn changes(&self) -> Option<Vec<u8>> {
        match self {
            Op::Select(_) | Op::Flush(_) | Op::Swap(..) | Op::Read(_) | Op::Remove(_) => None,
            Op::SetString(..) | Op::SetKeeping(..) => None,
            Op::Put(..) | Op::PutList(..) | Op::PutZset(..) => None,
            Op::Duplicate(..) => None,
            Op::SetExpire(at, _)
            | Op::SetInteger(at, _)
            | Op::Increment(at, _)
            | Op::Append(at, _)
            | Op::Overwrite(at, ..)
            | Op::Relocate(at, ..)
            | Op::Push(at, ..)
            | Op::Pop(at, ..)
            | Op::ListSet(at, ..)
            | Op::ListInsert(at, ..)
            | Op::ListRemove(at, ..)
            | Op::RemoveRange(at, ..)
            | Op::RetainRange(at, ..)
            | Op::Add(at, _)
            | Op::Drop(at, _)
            | Op::HashSet(at, ..)
            | Op::HashRemove(at, _)
            | Op::Insert(at, ..)
            | Op::ZsetRemove(at, _)
            | Op::ZsetRemoveRange(at, ..)
            | Op::CreateNothing(at, _) => Some(key(*at)),
        }
    }
}

pub fn key(number: usize) -> Vec<u8> {
    // One that does not fit a short key's place.
    match number {
        0 => b"a key that is longer than most keys are".to_vec(),
        _ => format!("key:{number}").into_bytes(),
    }
}

pub fn end(head: bool) -> End {
    if head { End::Head } else { End::Tail }
}

pub fn apply(txn: &mut Txn<'_>, op: &Op) {
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

pub fn apply_to_existing(txn: &mut Txn<'_>, op: &Op) {
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
pub struct Side {
    pub engine: Engine,
    pub worker: Worker,
}

impl Side {
    pub fn new(limits: Limits) -> Side {
        let engine = Engine::new(1);
        let settings = Settings { limits, ..Settings::default() };
        let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
        assert!(engine.gates().enter(0, None));
        Side { engine, worker }
    }

    pub fn begin(&self, now_ms: i64) -> Txn<'_> {
        Txn::begin(&self.engine, &self.worker, Plan::Exclusive, now_ms)
    }
}

/// All live keys, and how many entries and expiries each database has, stale ones included.
pub fn dump(txn: &mut Txn<'_>) -> (Dump, Vec<(usize, usize)>) {
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
pub fn small_limits() -> Limits {
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

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

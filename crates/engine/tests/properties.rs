//! The engine against a plain map: any sequence of changes through the door, on any clock.
//!
//! The keys are chosen so that several share a shard, and so a table. Where the engine's hasher
//! puts them differs from run to run; the operations of a failure are printed and shrunk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use data::{End, Hash, List};
use engine::{
    Collection, Engine, Entry, Expiry, NotIncremented, Plan, Policy, Pool, Settings, Str, Txn,
    Value, ValueRef, Worker, WrongType,
};
use proptest::prelude::*;

const KEYS: usize = 16;
const DBS: u32 = 3;
const START_MS: i64 = 1_000_000;

#[derive(Clone, Debug, PartialEq)]
enum Model {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

impl Model {
    fn of(entry: &Entry) -> Model {
        match entry.get() {
            ValueRef::Str(Str::Int(number)) => Model::Text(number.to_string().into_bytes()),
            ValueRef::Str(Str::Bytes(bytes)) => Model::Text(bytes.to_vec()),
            ValueRef::List(list) => Model::List(list.iter().map(<[u8]>::to_vec).collect()),
            ValueRef::Hash(hash) => {
                Model::Hash(hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect())
            }
            ValueRef::Set(_) | ValueRef::Zset(_) | ValueRef::Stream(_) | ValueRef::Json(_) => {
                panic!("nobody made one")
            }
        }
    }
}

#[derive(Clone, Debug)]
enum When {
    Clear,
    Keep,
    In(i64),
}

#[derive(Clone, Debug)]
enum Change {
    SetString(Vec<u8>, When),
    SetInteger(i64),
    Increment(i64),
    Append(Vec<u8>),
    /// From so many bytes on.
    Overwrite(usize, Vec<u8>),
    SetExpire(Option<i64>),
    Push(Vec<Vec<u8>>),
    Pop(usize),
    HashSet(Vec<u8>, Vec<u8>),
    HashRemove(Vec<u8>),
    Remove,
    PutText(Vec<u8>, Option<i64>),
    PutList(Vec<u8>, Option<i64>),
    Relocate(usize, u32),
    Duplicate(usize, u32),
    Read,
}

#[derive(Clone, Debug)]
enum Op {
    Change(u32, usize, Change),
    Flush(Option<u32>),
    Swap(u32, u32),
    Pass(i64),
    ExpireCycle,
    Evict,
    RandomKey(u32),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop::sample::select(vec![0usize, 1, 7, 16, 17, 44, 45, 1023, 1024, 1025, 3000]);
    prop_oneof![
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        1 => (-3i64..3).prop_map(|number| number.to_string().into_bytes()),
        3 => lengths.prop_map(|len| vec![b'v'; len]),
    ]
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![&b"a"[..], b"b", b"c", b""]).prop_map(<[u8]>::to_vec)
}

/// From now on, ms; also what is over already.
fn offset() -> impl Strategy<Value = i64> {
    -2i64..60
}

fn change() -> impl Strategy<Value = Change> {
    let when =
        prop_oneof![Just(When::Clear), Just(When::Keep), offset().prop_map(When::In)].boxed();
    let maybe = || prop::option::of(offset());
    let words = prop::collection::vec(word(), 0..4);
    prop_oneof![
        4 => (text(), when).prop_map(|(text, when)| Change::SetString(text, when)),
        1 => any::<i64>().prop_map(Change::SetInteger),
        2 => prop_oneof![any::<i64>(), -5i64..5].prop_map(Change::Increment),
        1 => text().prop_map(Change::Append),
        1 => (0usize..50, text()).prop_map(|(offset, text)| Change::Overwrite(offset, text)),
        4 => maybe().prop_map(Change::SetExpire),
        2 => words.prop_map(Change::Push),
        2 => (0usize..4).prop_map(Change::Pop),
        2 => (word(), word()).prop_map(|(field, value)| Change::HashSet(field, value)),
        2 => word().prop_map(Change::HashRemove),
        1 => Just(Change::Remove),
        1 => (text(), maybe()).prop_map(|(text, when)| Change::PutText(text, when)),
        1 => (word(), maybe()).prop_map(|(word, when)| Change::PutList(word, when)),
        2 => (0..KEYS, 0..DBS).prop_map(|(to, db)| Change::Relocate(to, db)),
        2 => (0..KEYS, 0..DBS).prop_map(|(to, db)| Change::Duplicate(to, db)),
        1 => Just(Change::Read),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => (0..DBS, 0..KEYS, change()).prop_map(|(db, key, what)| Op::Change(db, key, what)),
        1 => prop::option::of(0..DBS + 1).prop_map(Op::Flush),
        2 => (0..DBS, 0..DBS).prop_map(|(a, b)| Op::Swap(a, b)),
        5 => (0i64..20).prop_map(Op::Pass),
        2 => Just(Op::ExpireCycle),
        2 => Just(Op::Evict),
        2 => (0..DBS).prop_map(Op::RandomKey),
    ]
}

/// Four keys in each of a few shards, so that they meet in tables.
fn keys(engine: &Engine) -> Vec<Vec<u8>> {
    let mut shards: HashMap<u16, usize> = HashMap::new();
    let mut fits = |key: &Vec<u8>| {
        let shard = engine.key_shard(key);
        if shards.len() == KEYS / 4 && !shards.contains_key(&shard) {
            return false;
        }
        let count = shards.entry(shard).or_insert(0);
        *count += 1;
        *count <= 4
    };
    (0..).map(|n| format!("key:{n}").into_bytes()).filter(|key| fits(key)).take(KEYS).collect()
}

struct Pair {
    engine: Engine,
    worker: Worker,
    keys: Vec<Vec<u8>>,
    model: HashMap<(u32, usize), (Model, Option<i64>)>,
    now_ms: i64,
    cycle: usize,
    pool: Pool,
}

impl Pair {
    fn new(policy: Policy) -> Pair {
        let engine = Engine::new(1);
        let settings = Settings { policy, ..Settings::default() };
        let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
        let keys = keys(&engine);
        assert!(engine.gates().enter(0, None));
        Pair {
            engine,
            worker,
            keys,
            model: HashMap::new(),
            now_ms: START_MS,
            cycle: 0,
            pool: Pool::default(),
        }
    }

    /// The only thread: it has the only gate, which is all of them.
    fn exclusive<R>(&self, now_ms: i64, work: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        let mut txn = Txn::begin(&self.engine, &self.worker, Plan::Exclusive, now_ms);
        let result = work(&mut txn);
        txn.commit();
        result
    }

    /// What the model holds of a key that is not over.
    fn live(&self, db: u32, key: usize) -> Option<&(Model, Option<i64>)> {
        let held = self.model.get(&(db, key))?;
        held.1.is_none_or(|when| when > self.now_ms).then_some(held)
    }

    fn live_keys(&self, db: u32) -> HashSet<usize> {
        (0..KEYS).filter(|&key| self.live(db, key).is_some()).collect()
    }

    fn change(&mut self, db: u32, at: usize, change: &Change) {
        let at_ms = |offset: &Option<i64>| offset.map(|offset| START_MS.max(self.now_ms) + offset);
        let key = self.keys[at].clone();
        let before = self.live(db, at).cloned();
        let expire = before.as_ref().and_then(|held| held.1);
        let mut places = vec![at];
        if let Change::Relocate(to, _) | Change::Duplicate(to, _) = change {
            places.push(*to);
        }
        let shards = places.iter().map(|&at| self.engine.key_shard(&self.keys[at])).collect();
        let mut txn = Txn::begin(&self.engine, &self.worker, Plan::shards(shards), self.now_ms);
        txn.select(db);
        let limits = txn.limits();
        let after: Option<(Model, Option<i64>)> = match change {
            Change::SetString(text, when) => {
                let (door, expire) = match when {
                    When::Clear => (Expiry::Clear, None),
                    When::Keep => (Expiry::Keep, expire),
                    When::In(offset) => {
                        (Expiry::At(self.now_ms + offset), Some(self.now_ms + offset))
                    }
                };
                txn.set_string(&key, text, door);
                Some((Model::Text(text.clone()), expire))
            }
            Change::SetInteger(number) => {
                txn.set_integer(&key, *number);
                Some((Model::Text(number.to_string().into_bytes()), expire))
            }
            Change::Increment(by) => {
                let expected = match &before {
                    None => Ok(*by),
                    Some((Model::Text(text), _)) => {
                        let stored = data::number::parse_i64(text);
                        stored.ok_or(NotIncremented::NotInteger).and_then(|stored| {
                            stored.checked_add(*by).ok_or(NotIncremented::Overflow)
                        })
                    }
                    Some(_) => Err(NotIncremented::WrongType),
                };
                assert_eq!(txn.increment(&key, *by), expected);
                match expected {
                    Ok(sum) => Some((Model::Text(sum.to_string().into_bytes()), expire)),
                    Err(_) => before.clone(),
                }
            }
            Change::Append(more) | Change::Overwrite(_, more) => {
                let done = match change {
                    Change::Overwrite(offset, _) => txn.overwrite(&key, *offset, more),
                    _ => txn.append(&key, more),
                };
                let mut bytes = match &before {
                    None => Vec::new(),
                    Some((Model::Text(text), _)) => text.clone(),
                    Some(_) => {
                        assert_eq!(done, Err(WrongType));
                        txn.commit();
                        return;
                    }
                };
                let offset = match change {
                    Change::Overwrite(offset, _) => *offset,
                    _ => bytes.len(),
                };
                bytes.resize(bytes.len().max(offset + more.len()), 0);
                bytes[offset..offset + more.len()].copy_from_slice(more);
                assert_eq!(done, Ok(bytes.len()));
                Some((Model::Text(bytes), expire))
            }
            Change::SetExpire(offset) => {
                let when = at_ms(offset);
                assert_eq!(txn.set_expire(&key, when), before.is_some());
                before.map(|held| (held.0, when))
            }
            Change::Push(words) => match (txn.write_or_create::<List>(&key), before) {
                (Err(WrongType), Some(held)) => {
                    assert!(!matches!(held.0, Model::List(_)));
                    Some(held)
                }
                (Err(WrongType), None) => panic!("no key has the wrong type"),
                (Ok(mut list), before) => {
                    words.iter().for_each(|word| list.push(End::Tail, word));
                    drop(list);
                    let mut all = match before {
                        Some((Model::List(all), _)) => all,
                        None => Vec::new(),
                        Some(_) => panic!("a list of another type"),
                    };
                    all.extend(words.iter().cloned());
                    (!all.is_empty()).then_some((Model::List(all), expire))
                }
            },
            Change::Pop(count) => match (txn.write::<List>(&key), before) {
                (Ok(None), None) => None,
                (Ok(Some(mut list)), Some((Model::List(mut all), _))) => {
                    for _ in 0..*count {
                        let expected = (!all.is_empty()).then(|| all.remove(0));
                        assert_eq!(list.pop(End::Head), expected);
                    }
                    (!all.is_empty()).then_some((Model::List(all), expire))
                }
                (Err(WrongType), Some(held)) => {
                    assert!(!matches!(held.0, Model::List(_)));
                    Some(held)
                }
                (list, before) => panic!("{:?} but {before:?}", list.map(|list| list.is_some())),
            },
            Change::HashSet(field, value) => match (txn.write_or_create::<Hash>(&key), before) {
                (Ok(mut hash), before) => {
                    let mut all = match before {
                        Some((Model::Hash(all), _)) => all,
                        None => BTreeMap::new(),
                        Some(_) => panic!("a hash of another type"),
                    };
                    let fresh = all.insert(field.clone(), value.clone()).is_none();
                    assert_eq!(hash.set(field, value), fresh);
                    Some((Model::Hash(all), expire))
                }
                (Err(WrongType), before) => {
                    assert!(!matches!(before, None | Some((Model::Hash(_), _))));
                    before
                }
            },
            Change::HashRemove(field) => match (txn.write::<Hash>(&key), before) {
                (Ok(None), None) => None,
                (Ok(Some(mut hash)), Some((Model::Hash(mut all), _))) => {
                    assert_eq!(hash.remove(field), all.remove(field).is_some());
                    (!all.is_empty()).then_some((Model::Hash(all), expire))
                }
                (Err(WrongType), Some(held)) => {
                    assert!(!matches!(held.0, Model::Hash(_)));
                    Some(held)
                }
                (hash, before) => panic!("{:?} but {before:?}", hash.map(|hash| hash.is_some())),
            },
            Change::Remove => {
                assert_eq!(txn.remove(&key), before.is_some());
                None
            }
            Change::PutText(text, offset) => {
                txn.put(&key, Value::Bytes(text.clone()), at_ms(offset));
                Some((Model::Text(text.clone()), at_ms(offset)))
            }
            Change::PutList(word, offset) => {
                let mut list = List::new();
                list.push_back(word, limits);
                txn.put(&key, Collection::List(list), at_ms(offset));
                Some((Model::List(vec![word.clone()]), at_ms(offset)))
            }
            Change::Relocate(to, to_db) | Change::Duplicate(to, to_db) => {
                if (*to, *to_db) == (at, db) {
                    txn.commit();
                    return;
                }
                let moves = matches!(change, Change::Relocate(..));
                let target = &self.keys[*to];
                let done = match moves {
                    true => txn.relocate(&key, target, *to_db),
                    false => txn.duplicate(&key, target, *to_db),
                };
                assert_eq!(done, before.is_some());
                assert_eq!(txn.db(), db, "the transaction went to another database");
                if let Some(held) = &before {
                    self.model.insert((*to_db, *to), held.clone());
                }
                if moves { None } else { before }
            }
            Change::Read => {
                let read = txn.read(&key).map(|entry| (Model::of(entry), entry.expire_at_ms()));
                assert_eq!(read, before);
                before
            }
        };
        txn.commit();
        match after {
            Some(held) => self.model.insert((db, at), held),
            None => self.model.remove(&(db, at)),
        };
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Change(db, key, change) => self.change(*db, *key, change),
            Op::Flush(db) => {
                self.exclusive(self.now_ms, |txn| txn.flush(*db));
                self.model.retain(|(held, _), _| db.is_some_and(|db| db != *held));
            }
            Op::Swap(a, b) => {
                self.exclusive(self.now_ms, |txn| txn.swap_dbs(*a, *b));
                let swapped = |db| match db {
                    db if db == *a => *b,
                    db if db == *b => *a,
                    db => db,
                };
                let model = std::mem::take(&mut self.model).into_iter();
                self.model = model.map(|((db, key), held)| ((swapped(db), key), held)).collect();
            }
            Op::Pass(ms) => self.now_ms += ms,
            Op::ExpireCycle => {
                let cycle =
                    self.engine.expire_cycle(&self.worker, 1, self.cycle, self.now_ms, || false);
                self.cycle = cycle.0;
                assert!(cycle.1.is_empty(), "nobody waits for anything");
            }
            Op::Evict => self.evict(),
            Op::RandomKey(db) => {
                let stale = self.stored(*db).0 - self.live_keys(*db).len();
                let drawn = self.exclusive(self.now_ms, |txn| {
                    txn.select(*db);
                    txn.random_key()
                });
                let live = self.live_keys(*db);
                match drawn {
                    None => assert!(live.is_empty(), "no key of {live:?}"),
                    Some(key) => {
                        let at = self.keys.iter().position(|known| **known == *key);
                        let at = at.expect("a key that nobody made");
                        // Redis too gives an expired key in the end when it finds nothing else.
                        assert!(live.contains(&at) || (stale > 0 && live.len() < KEYS / 4));
                    }
                }
            }
        }
    }

    fn evict(&mut self) {
        let volatile = self.worker.settings.policy.is_volatile();
        let mut ready = Vec::new();
        let stale: usize = (0..DBS).map(|db| self.stored(db).0 - self.live_keys(db).len()).sum();
        let evicted = self.engine.evict_one(&self.worker, &mut self.pool, self.now_ms, &mut ready);
        let mut gone = Vec::new();
        let mut eligible = 0;
        for db in 0..DBS {
            for at in self.live_keys(db) {
                let expires = self.model[&(db, at)].1.is_some();
                eligible += usize::from(expires || !volatile);
                let exists = self.exclusive(self.now_ms, |txn| {
                    txn.select(db);
                    txn.exists(&self.keys[at])
                });
                if !exists {
                    assert!(expires || !volatile, "evicted a key that stays for ever");
                    gone.push((db, at));
                }
            }
        }
        assert_eq!(gone.len(), usize::from(evicted));
        // Expired keys may use up all the samples.
        assert!(evicted || eligible == 0 || stale > 0, "nothing evicted of {eligible}");
        gone.iter().for_each(|place| {
            self.model.remove(place);
        });
    }

    /// Entries of a database and those with an expiry, whether they are over or not, counted one
    /// by one; checked against what the engine says.
    fn stored(&self, db: u32) -> (usize, usize) {
        self.exclusive(i64::MIN, |txn| {
            txn.select(db);
            let (mut keys, mut expires) = (0, 0);
            txn.for_each(|entry| {
                keys += 1;
                expires += usize::from(entry.expire_at_ms().is_some());
            });
            let size = txn.db_size();
            assert_eq!((size.keys, size.expires), (keys, expires), "the index of expiries");
            (keys, expires)
        })
    }

    /// Both hold the same.
    fn compare(&self) {
        for db in 0..DBS {
            self.stored(db);
            let (mut held, mut scanned) = (HashMap::new(), HashSet::new());
            self.exclusive(self.now_ms, |txn| {
                txn.select(db);
                txn.for_each(|entry| {
                    let value = (Model::of(entry), entry.expire_at_ms());
                    assert!(held.insert(entry.key().to_vec(), value).is_none());
                });
                let mut cursor = 0;
                loop {
                    cursor = txn.scan(cursor, 3, |entry| {
                        scanned.insert(entry.key().to_vec());
                    });
                    if cursor == 0 {
                        break;
                    }
                }
            });
            let live = self.live_keys(db);
            assert_eq!(held.len(), live.len());
            for at in live {
                assert_eq!(held.get(&self.keys[at]), self.live(db, at), "key {at} of {db}");
            }
            assert_eq!(scanned, held.into_keys().collect());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(
        policy in prop::sample::select(vec![
            Policy::AllKeysRandom, Policy::AllKeysLru, Policy::AllKeysLfu,
            Policy::VolatileTtl, Policy::VolatileRandom,
        ]),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new(policy);
        for op in &ops {
            pair.apply(op);
            pair.compare();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Tables grow and shrink between the steps; what stays is seen, what never was is not.
    #[test]
    fn a_scan_sees_every_key_that_stays(
        staying in 1usize..3000,
        count in 1usize..200,
        churn in prop::collection::vec((0usize..20_000, 0usize..3000, any::<bool>()), 1..20),
    ) {
        let engine = Engine::new(1);
        let worker = Worker::new(0, Arc::new(Settings::default()), engine.stats(0));
        prop_assert!(engine.gates().enter(0, None));
        let change = |key: &str, stays: bool| {
            let plan = Plan::shards([engine.key_shard(key.as_bytes())].into_iter().collect());
            let mut txn = Txn::begin(&engine, &worker, plan, START_MS);
            if stays {
                txn.set_string(key.as_bytes(), b"v", Expiry::Clear);
            } else {
                txn.remove(key.as_bytes());
            }
            txn.commit();
        };
        (0..staying).for_each(|n| change(&format!("stays:{n}"), true));
        let mut seen = HashSet::new();
        let mut turns = churn.iter().cycle();
        let (mut cursor, mut steps) = (0, 0);
        loop {
            let mut txn = Txn::begin(&engine, &worker, Plan::Walk, START_MS);
            cursor = txn.scan(cursor, count, |entry| {
                seen.insert(String::from_utf8(entry.key().to_vec()).unwrap());
            });
            txn.commit();
            if cursor == 0 {
                break;
            }
            steps += 1;
            // Not in every step: a scan of few keys at a time takes thousands.
            if steps % (1 + 2000 / count) == 0 {
                let &(first, len, comes) = turns.next().unwrap();
                (first..first + len).for_each(|n| change(&format!("comes:{n}"), comes));
            }
            prop_assert!(steps < 1_000_000, "the scan does not end");
        }
        for n in 0..staying {
            prop_assert!(seen.contains(&format!("stays:{n}")), "stays:{n} was missed");
        }
    }
}

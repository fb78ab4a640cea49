use std::collections::{HashMap, HashSet};

use data::Table;
use proptest::prelude::*;

use crate::common::source;

/// Boxed, so that leaks and double frees show under a sanitizer.
type Value = Box<u64>;

/// Few distinct low bits and tags for some values, so that chains and tag collisions come up.
fn hash_of(value: u64) -> u64 {
    if value.is_multiple_of(4) {
        value.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    } else {
        (value % 64) << 3 | (value % 5) << 56
    }
}

fn hasher(value: &Value) -> u64 {
    hash_of(**value)
}

fn insert(table: &mut Table<Value>, value: u64) {
    table.insert_unique(hash_of(value), Box::new(value), hasher);
}

fn remove(table: &mut Table<Value>, value: u64) -> bool {
    table.remove(hash_of(value), |stored| **stored == value, hasher).is_some()
}

fn contains(table: &Table<Value>, value: u64) -> bool {
    table.find(hash_of(value), |stored| **stored == value).is_some()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u16),
    Remove(u64, u16),
    Replace(u64),
    Reserve(usize),
    Rehash(usize),
    Clear,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..3000, 0u16..200).prop_map(|(from, n)| Step::Insert(from, n)),
        8 => (0u64..3000, 0u16..400).prop_map(|(from, n)| Step::Remove(from, n)),
        3 => (0u64..3000).prop_map(Step::Replace),
        1 => (0usize..500).prop_map(Step::Reserve),
        1 => (0usize..30).prop_map(Step::Rehash),
        1 => Just(Step::Clear),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_map(steps in prop::collection::vec(step(), 0..60), seed in any::<u64>()) {
        let mut table: Table<Value> = Table::new();
        let mut model: HashSet<u64> = HashSet::new();
        let mut rng = source(seed);
        for step in steps {
            match step {
                Step::Insert(from, n) => for value in from..from + u64::from(n) {
                    if model.insert(value) {
                        insert(&mut table, value);
                    }
                },
                Step::Remove(from, n) => for value in from..from + u64::from(n) {
                    prop_assert_eq!(remove(&mut table, value), model.remove(&value));
                },
                Step::Replace(value) => {
                    let new = Box::new(value);
                    let old = table.replace(hash_of(value), new, |v| **v == value, hasher);
                    prop_assert_eq!(old.is_none(), model.insert(value));
                }
                Step::Reserve(n) => table.reserve(n),
                Step::Rehash(n) => {
                    let more = table.rehash_step(n, hasher);
                    prop_assert_eq!(more, table.is_rehashing());
                }
                Step::Clear => { table.clear(); model.clear(); }
                Step::Drain => {
                    let mut drained = HashSet::new();
                    table.drain(|value| { drained.insert(*value); });
                    prop_assert_eq!(&drained, &model);
                    model.clear();
                }
            }
            prop_assert_eq!(table.len(), model.len());
            let all: Vec<u64> = table.iter().map(|value| **value).collect();
            prop_assert_eq!(all.len(), model.len());
            prop_assert_eq!(&all.iter().copied().collect::<HashSet<_>>(), &model);
            for value in (0..3200).step_by(7) {
                prop_assert_eq!(contains(&table, value), model.contains(&value));
            }
            match table.random(&mut rng) {
                Some(value) => prop_assert!(model.contains(&**value)),
                None => prop_assert!(model.is_empty()),
            }
            let mut sampled = Vec::new();
            table.sample(5, &mut rng, |value| sampled.push(**value));
            prop_assert!(sampled.len() <= 5 && sampled.iter().all(|v| model.contains(v)));
        }
    }

    /// What is in the table from the first call of a scan to the last is visited, whatever
    /// happens between the calls; nothing is visited that was never there.
    #[test]
    fn a_scan_misses_nothing(
        start in 1u64..2000,
        changes in prop::collection::vec((any::<bool>(), 1u64..400), 1..40),
        seed in any::<u64>(),
    ) {
        let mut rng = source(seed);
        let mut table: Table<Value> = Table::new();
        let mut model: HashSet<u64> = HashSet::new();
        for value in 0..start {
            insert(&mut table, value);
            model.insert(value);
        }
        let mut always = model.clone();
        let mut ever = model.clone();
        let mut visited = HashSet::new();
        let mut next = start;
        let mut cursor = 0;
        let mut calls = 0;
        loop {
            cursor = table.scan(cursor, |value| { visited.insert(**value); });
            if cursor == 0 {
                break;
            }
            // Changes come between some of the calls, so that scans end.
            calls += 1;
            if calls % 3 != 0 {
                continue;
            }
            let (grow, count) = changes[(calls / 3) % changes.len()];
            if calls / 3 > changes.len() * 2 {
                continue;
            }
            for _ in 0..count {
                if grow {
                    insert(&mut table, next);
                    model.insert(next);
                    ever.insert(next);
                    next += 1;
                } else if let Some(value) = table.random(&mut rng).map(|value| **value) {
                    prop_assert!(remove(&mut table, value));
                    model.remove(&value);
                    always.remove(&value);
                }
            }
        }
        prop_assert!(always.is_subset(&visited), "missed {:?}", always.difference(&visited));
        prop_assert!(visited.is_subset(&ever));
    }
}

#[test]
fn an_empty_table_owns_nothing() {
    let mut table: Table<Value> = Table::new();
    assert_eq!(table.memory_bytes(), 0);
    assert_eq!(table.scan(12345, |_| unreachable!()), 0);
    assert!(table.random(&mut source(1)).is_none());
    assert!(!remove(&mut table, 1));
    insert(&mut table, 1);
    assert_eq!(table.memory_bytes(), 64);
    assert!(remove(&mut table, 1));
    assert_eq!(table.memory_bytes(), 0);
    assert!(size_of::<Table<Value>>() <= 56);
}

#[test]
fn growth_and_shrinking_are_spread_over_operations() {
    let mut table: Table<Value> = Table::new();
    let mut largest_move = 0;
    let mut moved = |table: &mut Table<Value>, change: &mut dyn FnMut(&mut Table<Value>)| {
        let calls = std::cell::Cell::new(0);
        change(table);
        table.rehash_step(0, |value| {
            calls.set(calls.get() + 1);
            hasher(value)
        });
        largest_move = largest_move.max(calls.get());
    };
    for value in 0..200_000u64 {
        let hash = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        let hashes = std::cell::Cell::new(0);
        moved(&mut table, &mut |table| {
            table.insert_unique(hash, Box::new(value), |value| {
                hashes.set(hashes.get() + 1);
                value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
            });
        });
        assert!(hashes.get() <= 80, "{} values moved by one insert", hashes.get());
    }
    let full = table.memory_bytes();
    assert!(full < 200_000 * 20, "{full}");
    for value in 0..199_990u64 {
        let hash = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        table.remove(
            hash,
            |stored| **stored == value,
            |value| value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32),
        );
    }
    while table.rehash_step(100, |v| v.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)) {}
    assert_eq!(table.len(), 10);
    assert!(table.memory_bytes() <= 64 * 64, "{}", table.memory_bytes());
    assert_eq!(largest_move, 0, "rehash_step(0) moves nothing");
}

/// A table that shrinks and is filled again at once does not crowd its new, small array.
#[test]
fn filling_a_shrinking_table_does_not_crowd_it() {
    let hasher = |value: &Value| value.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    let hash_of = |value: u64| hasher(&Box::new(value));
    let mut table: Table<Value> = Table::new();
    for value in 0..200_000u64 {
        table.insert_unique(hash_of(value), Box::new(value), hasher);
    }
    while table.rehash_step(1000, hasher) {}
    let mut gone = 0;
    while table.bucket_counts().1 == 0 {
        table.remove(hash_of(gone), |stored| **stored == gone, hasher);
        gone += 1;
    }
    let (new, old) = table.bucket_counts();
    assert!(new < old, "it shrinks");
    let mut value = 200_000;
    while table.is_rehashing() {
        table.insert_unique(hash_of(value), Box::new(value), hasher);
        value += 1;
    }
    assert!(table.len() <= new * 8, "{} values in {new} buckets", table.len());
}

#[test]
fn equal_hashes_only_lengthen_a_chain() {
    let mut table: Table<Value> = Table::new();
    let hasher = |_: &Value| 42;
    for value in 0..500u64 {
        table.insert_unique(42, Box::new(value), hasher);
    }
    let mut rng = source(3);
    let mut drawn: HashMap<u64, u32> = HashMap::new();
    for _ in 0..20_000 {
        *drawn.entry(**table.random(&mut rng).unwrap()).or_default() += 1;
    }
    assert!(drawn.len() > 490, "only {} of 500 drawn", drawn.len());
    for value in (0..500u64).rev() {
        assert!(table.remove(42, |stored| **stored == value, hasher).is_some());
    }
    assert!(table.is_empty());
}

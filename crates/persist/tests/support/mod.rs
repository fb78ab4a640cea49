//! Values in a plain form that can be compared, and random ones in every encoding.

#![allow(dead_code, reason = "not every test file makes values")]

use std::collections::{BTreeMap, BTreeSet};

use data::{Hash, Limits, List, Set, Zset};
use engine::{Collection, Entry, Str, Value, ValueRef};
use fastrand::Rng;

/// The content of a value, without its encoding.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Zset(BTreeMap<Vec<u8>, f64>),
    /// Its head, entries and groups, told.
    Stream(String),
    /// Its text.
    Json(String),
}

pub fn plain(value: ValueRef<'_>) -> Plain {
    match value {
        ValueRef::Str(Str::Int(value)) => Plain::Text(value.to_string().into_bytes()),
        ValueRef::Str(Str::Bytes(bytes)) => Plain::Text(bytes.to_vec()),
        ValueRef::List(list) => Plain::List(list.iter().map(<[u8]>::to_vec).collect()),
        ValueRef::Set(set) => Plain::Set(set.iter().map(|member| member.to_vec()).collect()),
        ValueRef::Hash(hash) => Plain::Hash(
            hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect(),
        ),
        ValueRef::Zset(zset) => {
            Plain::Zset(zset.iter().map(|(member, score)| (member.to_vec(), score)).collect())
        }
        ValueRef::Json(json) => {
            let mut text = Vec::new();
            json.root().write(&mut text);
            Plain::Json(String::from_utf8(text).unwrap())
        }
        ValueRef::Stream(stream) => {
            let mut told = format!("{:?}", stream.head());
            for entry in stream.iter() {
                told += &format!(" {:?}", entry.id);
                for (field, value) in entry.fields {
                    told += &format!(" {}={}", field.escape_ascii(), value.escape_ascii());
                }
            }
            for (name, group) in stream.groups() {
                let (name, read) = (name.escape_ascii(), group.entries_read);
                told += &format!(" group {name} at {} {read:?}:", group.last_id);
                for (id, pending) in group.pending(..) {
                    let owner = group.owner(pending);
                    assert!(owner.pending(id..=id).eq([id]));
                    let (owner, count) = (owner.name().escape_ascii(), pending.deliveries);
                    told += &format!(" {id} {owner} {} {count}", pending.delivered_ms);
                }
                for consumer in group.consumers() {
                    let (seen_ms, active_ms) = (consumer.seen_ms, consumer.active_ms);
                    told += &format!(
                        " {} {seen_ms} {active_ms:?} {}",
                        consumer.name().escape_ascii(),
                        consumer.pending_count()
                    );
                }
            }
            Plain::Stream(told)
        }
    }
}

/// The entry that a loaded value becomes.
pub fn entry(value: Value) -> Entry {
    Entry::value(b"", value, None)
}

pub fn build(plain: &Plain, limits: &Limits) -> Value {
    match plain {
        Plain::Text(bytes) => match data::number::parse_i64(bytes) {
            Some(value) => Value::Int(value),
            None => Value::Bytes(bytes.clone()),
        },
        Plain::List(elements) => {
            let mut list = List::new();
            elements.iter().for_each(|element| list.push_back(element, limits));
            Collection::List(list).into()
        }
        Plain::Set(members) => {
            let mut set = Set::new();
            for member in members {
                set.add(member, limits);
            }
            Collection::Set(set).into()
        }
        Plain::Hash(fields) => {
            let mut hash = Hash::new();
            for (field, value) in fields {
                hash.set(field, value, limits);
            }
            Collection::Hash(hash).into()
        }
        Plain::Stream(_) | Plain::Json(_) => unreachable!("these are not drawn"),
        Plain::Zset(scores) => {
            let mut zset = Zset::new();
            for (member, score) in scores {
                zset.insert(member, *score, limits);
            }
            Collection::Zset(zset).into()
        }
    }
}

/// A string: often a number, mostly short, now and then long, sometimes with a pattern in it.
pub fn text(random: &mut Rng) -> Vec<u8> {
    let len = match random.u8(..20) {
        0..10 => return random.choice(INTEGERS).expect("there are some").to_string().into_bytes(),
        10 => random.i64(..) >> random.u8(..64),
        11..16 => random.i64(..70),
        16..18 => random.i64(..700),
        18 => random.i64(..5000),
        _ => random.i64(..20_000),
    };
    if !(0..=20_000).contains(&len) {
        return len.to_string().into_bytes();
    }
    let letters = 1 << random.u8(1..8);
    (0..len).map(|_| random.u8(..letters)).collect()
}

/// The bounds of all encodings of integers.
const INTEGERS: &[i64] = &[
    0,
    1,
    12,
    13,
    -1,
    127,
    128,
    -128,
    -129,
    4095,
    4096,
    -4096,
    -4097,
    32_767,
    32_768,
    -32_768,
    -32_769,
    8_388_607,
    8_388_608,
    -8_388_608,
    -8_388_609,
    2_147_483_647,
    2_147_483_648,
    -2_147_483_648,
    -2_147_483_649,
    i64::MAX,
    i64::MIN,
];

fn score(random: &mut Rng) -> f64 {
    match random.u8(..8) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2..5 => random.i32(..) as f64,
        5 => random.i64(..) as f64,
        _ => (random.f64() - 0.5) * 10_f64.powi(random.i32(-20..20)),
    }
}

/// A value of any type and encoding.
pub fn value(random: &mut Rng) -> Plain {
    let count = match random.u8(..10) {
        0..6 => random.usize(1..20),
        6..8 => random.usize(1..200),
        _ => random.usize(1..900),
    };
    let integers = random.bool();
    // Of one size, so that both compact encodings of sets and many large ones come about.
    let member = |random: &mut Rng| match integers {
        true => random.i32(..).to_string().into_bytes(),
        false if count < 100 => text(random),
        false => format!("member:{}", random.u32(..)).into_bytes(),
    };
    match random.u8(..5) {
        0 => Plain::Text(text(random)),
        1 => Plain::List((0..count).map(|_| text(random)).collect()),
        2 => Plain::Set((0..count).map(|_| member(random)).collect()),
        3 => Plain::Hash((0..count).map(|_| (member(random), text(random))).collect()),
        _ => Plain::Zset((0..count).map(|_| (member(random), score(random))).collect()),
    }
}

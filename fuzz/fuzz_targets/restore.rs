//! Any bytes under a true checksum are refused or restored, within memory that is in proportion to
//! them; what was restored is dumped and restored again to the same value.
//!
//! The first byte chooses the limits of the compact encodings, the second is the type.
#![no_main]

use std::collections::BTreeMap;

use data::Limits;
use engine::{Entry, Str, ValueRef};
use libfuzzer_sys::fuzz_target;
use persist::rdb::{Version, checksum, dump, restore};

/// A compressed list of small integers has the densest elements there are.
const MEMORY_FACTOR: usize = 400;
const MEMORY_BYTES_MIN: usize = 128 << 10;

/// The elements in an order that does not depend on the encoding.
fn elements(value: ValueRef<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let numbered = |(at, value): (usize, &[u8])| (at.to_be_bytes().to_vec(), value.to_vec());
    match value {
        ValueRef::Str(Str::Int(number)) => [(Vec::new(), number.to_string().into())].into(),
        ValueRef::Str(Str::Bytes(bytes)) => [(Vec::new(), bytes.to_vec())].into(),
        ValueRef::List(list) => list.iter().enumerate().map(numbered).collect(),
        ValueRef::Set(set) => set.iter().map(|member| (member.to_vec(), Vec::new())).collect(),
        ValueRef::Hash(hash) => {
            hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
        }
        ValueRef::Stream(stream) => stream
            .iter()
            .flat_map(|entry| {
                let id = (entry.id.to_bytes().to_vec(), Vec::new());
                let pairs = entry.fields.map(|(field, value)| (field.to_vec(), value.to_vec()));
                std::iter::once(id).chain(pairs)
            })
            .collect(),
        ValueRef::Zset(zset) => {
            let bits = |score: f64| score.to_bits().to_be_bytes().to_vec();
            zset.iter().map(|(member, score)| (member.to_vec(), bits(score))).collect()
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let few = match choice % 2 {
        0 => Limits::default(),
        _ => Limits {
            list_max_listpack_size: 3,
            hash_max_listpack_entries: 3,
            set_max_listpack_entries: 3,
            set_max_intset_entries: 3,
            zset_max_listpack_entries: 3,
            ..Limits::default()
        },
    };
    let mut payload = body.to_vec();
    payload.extend(11_u16.to_le_bytes());
    payload.extend(checksum(&payload).to_le_bytes());
    let Ok(value) = restore(&payload, &few) else { return };
    let entry = Entry::value(b"", value, None);
    let bytes = entry.memory_bytes();
    assert!(
        bytes <= MEMORY_FACTOR * body.len() + MEMORY_BYTES_MIN,
        "{bytes} bytes from {}",
        body.len()
    );
    for version in [Version::V10, Version::V11] {
        let again = restore(&dump(entry.get(), version), &few).expect("what is dumped is restored");
        let again = Entry::value(b"", again, None);
        assert!(elements(again.get()) == elements(entry.get()));
    }
});

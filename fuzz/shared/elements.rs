//! What is in a value, to be compared.

use std::collections::BTreeMap;

use engine::{Str, ValueRef};

/// The elements in an order that does not depend on the encoding.
pub fn elements(value: ValueRef<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
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
        ValueRef::Json(json) => {
            let mut text = Vec::new();
            json.root().write(&mut text);
            [(Vec::new(), text)].into()
        }
        ValueRef::Zset(zset) => {
            let bits = |score: f64| score.to_bits().to_be_bytes().to_vec();
            zset.iter().map(|(member, score)| (member.to_vec(), bits(score))).collect()
        }
    }
}

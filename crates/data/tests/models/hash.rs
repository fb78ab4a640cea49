use std::collections::BTreeMap;

use data::{Encoding, Hash, Limits};
use proptest::prelude::*;

use crate::common::{element, limits, source};

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>, Vec<u8>),
    Overwrite(prop::sample::Index, Vec<u8>),
    Remove(Vec<u8>),
    RemoveSome(prop::sample::Index),
    Random(usize, u64),
    Prepare(usize),
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => (element(), element()).prop_map(|(f, v)| Step::Set(f, v)),
        6 => (index(), element()).prop_map(|(i, v)| Step::Overwrite(i, v)),
        2 => element().prop_map(Step::Remove),
        4 => index().prop_map(Step::RemoveSome),
        2 => (0usize..40, any::<u64>()).prop_map(|(n, seed)| Step::Random(n, seed)),
        1 => (0usize..20).prop_map(Step::Prepare),
        1 => Just(Step::Clone),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn some_field(model: &Model, index: prop::sample::Index) -> Vec<u8> {
    model.keys().nth(index.index(model.len())).unwrap().clone()
}

proptest! {
    #[test]
    fn behaves_as_a_map(limits in limits(), steps in prop::collection::vec(step(), 0..200)) {
        let mut hash = Hash::new();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Set(f, v) => {
                    prop_assert_eq!(hash.set(&f, &v, &limits), model.insert(f, v).is_none());
                }
                Step::Overwrite(i, v) if !model.is_empty() => {
                    let field = some_field(&model, i);
                    prop_assert!(!hash.set(&field, &v, &limits));
                    prop_assert_eq!(hash.get(&field), Some(v.as_slice()));
                    model.insert(field, v);
                }
                Step::Remove(f) => prop_assert_eq!(hash.remove(&f), model.remove(&f).is_some()),
                Step::RemoveSome(i) if !model.is_empty() => {
                    let field = some_field(&model, i);
                    prop_assert!(hash.remove(&field));
                    prop_assert!(!hash.contains(&field));
                    model.remove(&field);
                }
                Step::Random(n, seed) => {
                    let mut rng = source(seed);
                    let chosen = hash.random_distinct(n, &mut rng);
                    prop_assert_eq!(chosen.len(), n.min(model.len()));
                    let chosen: Model =
                        chosen.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect();
                    prop_assert_eq!(chosen.len(), n.min(model.len()));
                    for (field, value) in &chosen {
                        prop_assert_eq!(model.get(field), Some(value));
                    }
                    match hash.random(&mut rng) {
                        Some((f, v)) => prop_assert_eq!(model.get(f).map(Vec::as_slice), Some(v)),
                        None => prop_assert!(model.is_empty()),
                    }
                }
                Step::Prepare(n) => hash.prepare(n, &limits),
                Step::Clone => hash = hash.clone(),
                Step::Overwrite(..) | Step::RemoveSome(_) => {}
            }
            prop_assert_eq!(hash.len(), model.len());
            prop_assert_eq!(hash.iter().len(), model.len());
            let all: Model = hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(&all, &model);
            let mut scanned = Model::new();
            let mut cursor = 0;
            loop {
                cursor = hash.scan(cursor, 3, |f, v| { scanned.insert(f.to_vec(), v.to_vec()); });
                if cursor == 0 { break; }
            }
            prop_assert_eq!(&scanned, &model);
        }
    }
}

#[test]
fn encodings_change_as_in_redis() {
    let limits = Limits::default();
    let mut hash = Hash::new();
    for i in 0..128 {
        assert!(hash.set(format!("f{i}").as_bytes(), b"v", &limits));
    }
    assert_eq!(hash.encoding(), Encoding::Listpack);
    hash.set(b"f0", b"w", &limits);
    assert_eq!(hash.encoding(), Encoding::Listpack);
    hash.set(b"f128", b"v", &limits);
    assert_eq!(hash.encoding(), Encoding::Hashtable);

    let mut hash = Hash::new();
    hash.set(b"f", &[b'v'; 64], &limits);
    assert_eq!(hash.encoding(), Encoding::Listpack);
    hash.set(b"f", &[b'v'; 65], &limits);
    assert_eq!(hash.encoding(), Encoding::Hashtable);
    assert_eq!(hash.get(b"f"), Some(&[b'v'; 65][..]));
}

use data::listpack::Listpack;
use proptest::prelude::*;

use crate::common::element;

#[derive(Clone, Debug)]
enum Step {
    PushFront(Vec<u8>),
    PushBack(Vec<u8>),
    Insert(prop::sample::Index, Vec<u8>),
    Replace(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Split(prop::sample::Index),
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => element().prop_map(Step::PushFront),
        4 => element().prop_map(Step::PushBack),
        3 => (index(), element()).prop_map(|(i, e)| Step::Insert(i, e)),
        3 => (index(), element()).prop_map(|(i, e)| Step::Replace(i, e)),
        4 => (index(), 0usize..4).prop_map(|(i, n)| Step::Remove(i, n)),
        1 => index().prop_map(Step::Split),
        1 => Just(Step::Clone),
    ]
}

fn same(pack: &Listpack, model: &[Vec<u8>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(pack.len(), model.len());
    prop_assert!(pack.iter().eq(model.iter().map(Vec::as_slice)));
    prop_assert!(pack.iter().rev().eq(model.iter().rev().map(Vec::as_slice)));
    prop_assert_eq!(pack.front(), model.first().map(Vec::as_slice));
    prop_assert_eq!(pack.back(), model.last().map(Vec::as_slice));
    prop_assert!(pack.memory_bytes() >= pack.entry_bytes());
    // Slack is bounded: a quarter above, and half below before it is given back.
    prop_assert!(pack.memory_bytes() <= 64 + pack.entry_bytes() * 5 / 2);
    Ok(())
}

proptest! {
    #[test]
    fn behaves_as_a_vector(steps in prop::collection::vec(step(), 0..120)) {
        let mut pack = Listpack::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::PushFront(e) => { pack.push_front(&e); model.insert(0, e); }
                Step::PushBack(e) => { pack.push_back(&e); model.push(e); }
                Step::Insert(i, e) => {
                    let at = i.index(model.len() + 1);
                    let place = pack.insert(pack.seek(at), &e);
                    prop_assert_eq!(pack.get(place), Some(e.as_slice()));
                    model.insert(at, e);
                }
                Step::Replace(i, e) if !model.is_empty() => {
                    let at = i.index(model.len());
                    pack.replace(pack.seek(at), &e);
                    model[at] = e;
                }
                Step::Remove(i, n) if !model.is_empty() => {
                    let at = i.index(model.len());
                    let removed = pack.remove_many(pack.seek(at), n);
                    let to = (at + n).min(model.len());
                    prop_assert_eq!(removed, to - at);
                    model.drain(at..to);
                }
                Step::Split(i) => {
                    let at = i.index(model.len() + 1);
                    let tail = pack.split_off(pack.seek(at));
                    same(&pack, &model[..at])?;
                    same(&tail, &model[at..])?;
                    pack.append(&tail);
                }
                Step::Clone => pack = pack.clone(),
                Step::Replace(..) | Step::Remove(..) => {}
            }
            same(&pack, &model)?;
            for (at, e) in model.iter().enumerate() {
                prop_assert_eq!(pack.nth(at), Some(e.as_slice()));
                let first = model.iter().position(|other| other == e).unwrap();
                prop_assert_eq!(pack.find(e, pack.first(), 1), Some(pack.seek(first)));
            }
        }
    }
}

#[test]
fn long_entries_keep_their_back_length() {
    let mut pack = Listpack::new();
    let mut model = Vec::new();
    for len in [0, 126, 127, 128, 16_380, 16_383, 16_384, 2_097_150, 2_097_152, 5] {
        let element = vec![len as u8; len];
        pack.push_front(&element);
        model.insert(0, element);
    }
    assert!(pack.iter().eq(model.iter().map(Vec::as_slice)));
    assert!(pack.iter().rev().eq(model.iter().rev().map(Vec::as_slice)));
}

use std::collections::BTreeSet;

use data::{Encoding, Limits, Set};
use proptest::prelude::*;

use crate::common::{element, limits, source};

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u8>),
    Remove(Vec<u8>),
    RemoveSome(prop::sample::Index),
    Pop(u64),
    Random(usize, u64),
    Prepare(usize),
    CompactIntegers,
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => element().prop_map(Step::Add),
        3 => element().prop_map(Step::Remove),
        6 => any::<prop::sample::Index>().prop_map(Step::RemoveSome),
        2 => any::<u64>().prop_map(Step::Pop),
        3 => (0usize..40, any::<u64>()).prop_map(|(n, seed)| Step::Random(n, seed)),
        1 => (0usize..20).prop_map(Step::Prepare),
        1 => Just(Step::CompactIntegers),
        1 => Just(Step::Clone),
    ]
}

fn members(set: &Set) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = set.iter().map(|member| member.to_vec()).collect();
    all.sort();
    all
}

proptest! {
    #[test]
    fn behaves_as_a_set(limits in limits(), steps in prop::collection::vec(step(), 0..200)) {
        let mut set = Set::new();
        let mut model: BTreeSet<Vec<u8>> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Add(e) => prop_assert_eq!(set.add(&e, &limits), model.insert(e)),
                Step::Remove(e) => prop_assert_eq!(set.remove(&e), model.remove(&e)),
                Step::RemoveSome(i) if !model.is_empty() => {
                    let e = model.iter().nth(i.index(model.len())).unwrap().clone();
                    prop_assert!(set.contains(&e));
                    prop_assert!(set.remove(&e));
                    prop_assert!(!set.contains(&e));
                    model.remove(&e);
                }
                Step::Pop(seed) => match set.pop(&mut source(seed)) {
                    Some(e) => prop_assert!(model.remove(&e)),
                    None => prop_assert!(model.is_empty()),
                },
                Step::Random(n, seed) => {
                    let mut rng = source(seed);
                    let chosen = set.random_distinct(n, &mut rng);
                    prop_assert_eq!(chosen.len(), n.min(model.len()));
                    let chosen: BTreeSet<_> = chosen.iter().map(|m| m.to_vec()).collect();
                    prop_assert_eq!(chosen.len(), n.min(model.len()));
                    prop_assert!(chosen.is_subset(&model));
                    match set.random(&mut rng) {
                        Some(member) => prop_assert!(model.contains(&*member)),
                        None => prop_assert!(model.is_empty()),
                    }
                }
                Step::Prepare(n) => set.prepare(n, &limits),
                Step::CompactIntegers => {
                    let all_integers = model.iter().all(|e| data::number::parse_i64(e).is_some());
                    set.compact_integers(&limits);
                    let few = model.len() <= limits.set_max_intset_entries;
                    if all_integers && few {
                        prop_assert_eq!(set.encoding(), Encoding::Intset);
                    }
                }
                Step::Clone => set = set.clone(),
                Step::RemoveSome(_) => {}
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.iter().len(), model.len());
            prop_assert!(members(&set).iter().eq(model.iter()));
            let mut scanned = BTreeSet::new();
            let mut cursor = 0;
            loop {
                cursor = set.scan(cursor, 3, |member| { scanned.insert(member.to_vec()); });
                if cursor == 0 { break; }
            }
            prop_assert_eq!(&scanned, &model);
        }
    }
}

#[test]
fn encodings_change_as_in_redis() {
    let limits = Limits::default();
    let mut set = Set::new();
    for i in 0..512 {
        assert!(set.add(i.to_string().as_bytes(), &limits));
    }
    assert_eq!(set.encoding(), Encoding::Intset);
    set.add(b"512", &limits);
    assert_eq!(set.encoding(), Encoding::Hashtable);

    let mut set = Set::new();
    set.add(b"1", &limits);
    set.add(b"a", &limits);
    assert_eq!(set.encoding(), Encoding::Listpack);
    set.add(&[b'x'; 65], &limits);
    assert_eq!(set.encoding(), Encoding::Hashtable);

    let mut set = Set::new();
    for i in 0..200 {
        set.add(i.to_string().as_bytes(), &limits);
    }
    set.add(b"a", &limits);
    assert_eq!(set.encoding(), Encoding::Hashtable, "200 members are too many for a listpack");

    let mut set = Set::for_members(b"a", 128, &limits);
    for i in 0..128 {
        set.add(format!("m{i}").as_bytes(), &limits);
    }
    assert_eq!(set.encoding(), Encoding::Listpack);
    set.add(b"more", &limits);
    assert_eq!(set.encoding(), Encoding::Hashtable);
}

#[test]
fn draws_are_fair() {
    let limits = Limits::default();
    for (count, encoding) in [(100, Encoding::Intset), (1000, Encoding::Hashtable)] {
        let mut set = Set::new();
        for i in 0..count {
            set.add(i.to_string().as_bytes(), &limits);
        }
        assert_eq!(set.encoding(), encoding);
        let mut rng = source(7);
        let mut hits = vec![0u32; count];
        let rounds = 200;
        for _ in 0..count * rounds {
            let member = set.random(&mut rng).unwrap();
            hits[data::number::parse_i64(&member).unwrap() as usize] += 1;
        }
        // 200 expected hits have a standard deviation of 14; members deep in a chain of more than
        // sixteen would be drawn less, but a thousand members hardly have one.
        let (least, most) = (*hits.iter().min().unwrap(), *hits.iter().max().unwrap());
        assert!(least > 120 && most < 290, "{least}..{most}");
    }
}

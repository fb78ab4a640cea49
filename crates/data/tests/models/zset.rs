use std::collections::{BTreeMap, BTreeSet};

use data::{Encoding, LexBound, LexRange, Limits, ScoreBound, ScoreRange, Zset};
use proptest::prelude::*;

use crate::common::{element, limits, source};

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>, f64),
    Rescore(prop::sample::Index, f64),
    Remove(Vec<u8>),
    RemoveSome(prop::sample::Index),
    Pop(bool),
    RemoveRange(prop::sample::Index, usize),
    ScoreRange(ScoreRange),
    LexRange(Vec<u8>, Vec<u8>, u8),
    Range(prop::sample::Index, usize, usize),
    Random(usize, u64),
    Prepare(usize, usize),
    Compact,
    Clone,
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-5i32..6).prop_map(f64::from),
        2 => any::<f64>().prop_filter("not NaN", |score| !score.is_nan()),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
    ]
}

fn bound() -> impl Strategy<Value = ScoreBound> {
    (score(), any::<bool>()).prop_map(|(value, exclusive)| ScoreBound { value, exclusive })
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        16 => (element(), score()).prop_map(|(e, s)| Step::Insert(e, s)),
        6 => (index(), score()).prop_map(|(i, s)| Step::Rescore(i, s)),
        2 => element().prop_map(Step::Remove),
        5 => index().prop_map(Step::RemoveSome),
        2 => any::<bool>().prop_map(Step::Pop),
        1 => (index(), 0usize..10).prop_map(|(i, n)| Step::RemoveRange(i, n)),
        3 => (bound(), bound()).prop_map(|(min, max)| Step::ScoreRange(ScoreRange { min, max })),
        2 => (element(), element(), any::<u8>()).prop_map(|(a, b, k)| Step::LexRange(a, b, k)),
        2 => (index(), 0usize..40, 0usize..10).prop_map(|(i, n, m)| Step::Range(i, n, m)),
        1 => (0usize..40, any::<u64>()).prop_map(|(n, seed)| Step::Random(n, seed)),
        1 => (0usize..20, 0usize..40).prop_map(|(n, l)| Step::Prepare(n, l)),
        1 => Just(Step::Compact),
        1 => Just(Step::Clone),
    ]
}

#[derive(Default)]
struct Model(BTreeMap<Vec<u8>, f64>);

impl Model {
    fn sorted(&self) -> Vec<(Vec<u8>, f64)> {
        let mut all: Vec<_> = self.0.iter().map(|(m, s)| (m.clone(), *s)).collect();
        all.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then_with(|| a.0.cmp(&b.0)));
        all
    }

    fn some(&self, index: prop::sample::Index) -> Vec<u8> {
        self.0.keys().nth(index.index(self.0.len())).unwrap().clone()
    }
}

fn same(zset: &Zset, sorted: &[(Vec<u8>, f64)]) -> Result<(), TestCaseError> {
    prop_assert_eq!(zset.len(), sorted.len());
    prop_assert!(zset.iter().eq(sorted.iter().map(|(m, s)| (m.as_slice(), *s))));
    prop_assert!(zset.iter().rev().eq(sorted.iter().rev().map(|(m, s)| (m.as_slice(), *s))));
    for (rank, (member, score)) in sorted.iter().enumerate() {
        prop_assert_eq!(zset.rank(member), Some(rank));
        prop_assert_eq!(zset.score(member), Some(*score));
        prop_assert_eq!(zset.at(rank), Some((member.as_slice(), *score)));
    }
    prop_assert_eq!(zset.at(sorted.len()), None);
    Ok(())
}

fn lex_bound(member: &[u8], kind: u8) -> LexBound<'_> {
    match kind % 6 {
        0 => LexBound::Lowest,
        1 => LexBound::Highest,
        2 | 3 => LexBound::Inclusive(member),
        _ => LexBound::Exclusive(member),
    }
}

proptest! {
    #[test]
    fn behaves_as_a_sorted_map(
        limits in limits(),
        steps in prop::collection::vec(step(), 0..200),
        equal_scores in any::<bool>(),
    ) {
        let mut zset = Zset::new();
        let mut model = Model::default();
        for step in steps {
            let sorted = model.sorted();
            let pairs = |range: std::ops::Range<usize>| {
                sorted[range].iter().map(|(m, s)| (m.as_slice(), *s))
            };
            match step {
                Step::Insert(e, s) => {
                    let s = if equal_scores { 1.0 } else { s };
                    prop_assert_eq!(zset.insert(&e, s, &limits), model.0.insert(e, s));
                }
                Step::Rescore(i, s) if !sorted.is_empty() && !equal_scores => {
                    let member = model.some(i);
                    let old = model.0.insert(member.clone(), s);
                    prop_assert_eq!(zset.insert(&member, s, &limits), old);
                }
                Step::Remove(e) => prop_assert_eq!(zset.remove(&e), model.0.remove(&e)),
                Step::RemoveSome(i) if !sorted.is_empty() => {
                    let member = model.some(i);
                    prop_assert_eq!(zset.remove(&member), model.0.remove(&member));
                    prop_assert_eq!(zset.score(&member), None);
                    prop_assert_eq!(zset.rank(&member), None);
                }
                Step::Pop(max) => {
                    let expected = if max { sorted.last() } else { sorted.first() };
                    let popped = if max { zset.pop_max() } else { zset.pop_min() };
                    prop_assert_eq!(popped.as_ref(), expected);
                    if let Some((member, _)) = popped {
                        model.0.remove(&member);
                    }
                }
                Step::RemoveRange(i, n) => {
                    let from = i.index(sorted.len() + 1);
                    let to = (from + n).min(sorted.len());
                    let mut shown = Vec::new();
                    let removed = zset.remove_range_with(from..from + n, |m, s| {
                        shown.push((m.to_vec(), s));
                    });
                    prop_assert_eq!(removed, to - from);
                    prop_assert_eq!(&shown, &sorted[from..to]);
                    for (member, _) in shown {
                        model.0.remove(&member);
                    }
                }
                Step::ScoreRange(range) => {
                    let ranks = zset.score_range(&range);
                    let expected = sorted.iter().filter(|(_, s)| range.contains(*s));
                    prop_assert!(zset.range(ranks.clone())
                        .eq(expected.map(|(m, s)| (m.as_slice(), *s))));
                    prop_assert_eq!(ranks.len(), zset.range(ranks).len());
                }
                Step::LexRange(a, b, kinds) if equal_scores => {
                    let (min, max) = (lex_bound(&a, kinds), lex_bound(&b, kinds / 6));
                    let range = LexRange { min, max };
                    let expected = sorted.iter().filter(|(m, _)| range.contains(m));
                    prop_assert!(zset.range(zset.lex_range(&range))
                        .eq(expected.map(|(m, s)| (m.as_slice(), *s))));
                }
                Step::Range(i, n, both) => {
                    let from = i.index(sorted.len() + 1);
                    let to = (from + n).min(sorted.len());
                    let mut iter = zset.range(from..from + n);
                    prop_assert_eq!(iter.len(), to - from);
                    let mut expected = pairs(from..to);
                    for _ in 0..both {
                        prop_assert_eq!(iter.next(), expected.next());
                        prop_assert_eq!(iter.next_back(), expected.next_back());
                    }
                    prop_assert!(iter.eq(expected));
                }
                Step::Random(n, seed) => {
                    let mut rng = source(seed);
                    let chosen = zset.random_distinct(n, &mut rng);
                    prop_assert_eq!(chosen.len(), n.min(sorted.len()));
                    let distinct: BTreeSet<_> = chosen.iter().map(|(m, _)| m.to_vec()).collect();
                    prop_assert_eq!(distinct.len(), chosen.len());
                    for (member, score) in chosen.into_iter().chain(zset.random(&mut rng)) {
                        prop_assert_eq!(model.0.get(member), Some(&score));
                    }
                }
                Step::Prepare(n, longest) => zset.prepare(n, longest, &limits),
                Step::Compact => {
                    zset.compact(&limits);
                    let small = sorted.len() <= limits.zset_max_listpack_entries
                        && sorted.iter().all(|(m, _)| m.len() <= limits.zset_max_listpack_value);
                    if small {
                        prop_assert_eq!(zset.encoding(), Encoding::Listpack);
                    }
                }
                Step::Clone => zset = zset.clone(),
                Step::Rescore(..) | Step::RemoveSome(_) | Step::LexRange(..) => {}
            }
            same(&zset, &model.sorted())?;
            let mut scanned = BTreeMap::new();
            let mut cursor = 0;
            loop {
                cursor = zset.scan(cursor, 3, |m, s| { scanned.insert(m.to_vec(), s); });
                if cursor == 0 { break; }
            }
            prop_assert_eq!(&scanned, &model.0);
        }
    }
}

/// Trees of several levels: random, ascending and descending insertion, rescoring, and removal
/// down to nothing.
#[test]
fn large_sets_agree_with_a_sorted_map() {
    let limits = Limits::default();
    for order in 0..3 {
        let mut rng = source(order);
        let mut zset = Zset::new();
        let mut model: BTreeMap<(i64, Vec<u8>), ()> = BTreeMap::new();
        let count = 30_000i64;
        let score_of = |i: i64, random: u64| match order {
            0 => (random % 5000) as i64,
            1 => i,
            _ => -i,
        };
        let mut scores = Vec::new();
        for i in 0..count {
            let score = score_of(i, rng());
            scores.push(score);
            let member = format!("member:{i}").into_bytes();
            assert_eq!(zset.insert(&member, score as f64, &limits), None);
            model.insert((score, member), ());
        }
        let check = |zset: &Zset, model: &BTreeMap<(i64, Vec<u8>), ()>| {
            assert_eq!(zset.len(), model.len());
            let pairs = model.keys().map(|(score, member)| (member.as_slice(), *score as f64));
            assert!(zset.iter().eq(pairs.clone()), "order {order}");
            assert!(zset.iter().rev().eq(pairs.clone().rev()));
            for (rank, (member, _)) in pairs.enumerate().step_by(37) {
                assert_eq!(zset.rank(member), Some(rank));
                assert_eq!(zset.at(rank).map(|(m, _)| m), Some(member));
            }
        };
        check(&zset, &model);
        for _ in 0..20_000 {
            let i = (rng() % count as u64) as usize;
            let member = format!("member:{i}").into_bytes();
            let new = scores[i] + (rng() % 7) as i64 - 3;
            assert_eq!(zset.insert(&member, new as f64, &limits), Some(scores[i] as f64));
            model.remove(&(scores[i], member.clone()));
            model.insert((new, member), ());
            scores[i] = new;
        }
        check(&zset, &model);
        check(&zset.clone(), &model);
        for low in [-100.0, 0.0, 17.0, 2500.0] {
            let range = ScoreRange {
                min: ScoreBound::inclusive(low),
                max: ScoreBound { value: low + 40.0, exclusive: true },
            };
            let expected = model.keys().filter(|(score, _)| range.contains(*score as f64)).count();
            assert_eq!(zset.score_range(&range).len(), expected);
        }
        let removed = zset.remove_range(1000..9000);
        assert_eq!(removed, 8000);
        let gone: Vec<_> = model.keys().skip(1000).take(8000).cloned().collect();
        for key in gone {
            model.remove(&key);
        }
        check(&zset, &model);
        while model.len() > 100 {
            let at = (rng() % model.len().min(500) as u64) as usize;
            let key = model.keys().nth(at).unwrap().clone();
            assert_eq!(zset.remove(&key.1), Some(key.0 as f64));
            model.remove(&key);
        }
        check(&zset, &model);
        while let Some((member, score)) = zset.pop_max() {
            let ((last, name), ()) = model.pop_last().unwrap();
            assert_eq!((name, last as f64), (member, score));
        }
        assert!(model.is_empty());
    }
}

#[test]
fn encodings_change_as_in_redis() {
    let limits = Limits::default();
    let mut zset = Zset::new();
    for i in 0..128 {
        zset.insert(format!("m{i}").as_bytes(), 1.0, &limits);
    }
    assert_eq!(zset.encoding(), Encoding::Listpack);
    zset.insert(b"m0", 2.0, &limits);
    assert_eq!(zset.encoding(), Encoding::Listpack);
    zset.insert(b"more", 1.0, &limits);
    assert_eq!(zset.encoding(), Encoding::Skiplist);
    zset.remove(b"more");
    assert_eq!(zset.encoding(), Encoding::Skiplist);
    zset.compact(&limits);
    assert_eq!(zset.encoding(), Encoding::Listpack);
    zset.insert(&[b'x'; 65], 1.0, &limits);
    assert_eq!(zset.encoding(), Encoding::Skiplist);
    assert_eq!(zset.encoding().name(), "skiplist");
}

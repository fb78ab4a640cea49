use std::collections::VecDeque;

use data::{Encoding, End, Limits, List};
use proptest::prelude::*;

use crate::common::{element, limits};

#[derive(Clone, Debug)]
enum Step {
    Push(bool, Vec<u8>),
    Pop(bool),
    Set(i64, Vec<u8>),
    Insert(prop::sample::Index, Vec<u8>),
    Pivot(Vec<u8>, bool, Vec<u8>),
    Remove(Vec<u8>, i64),
    Trim(usize, usize),
    RemoveRange(prop::sample::Index, usize),
    Range(prop::sample::Index, usize, usize),
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        14 => (any::<bool>(), element()).prop_map(|(tail, e)| Step::Push(tail, e)),
        5 => any::<bool>().prop_map(Step::Pop),
        3 => (-40i64..40, element()).prop_map(|(i, e)| Step::Set(i, e)),
        4 => (index(), element()).prop_map(|(i, e)| Step::Insert(i, e)),
        2 => (element(), any::<bool>(), element()).prop_map(|(p, b, e)| Step::Pivot(p, b, e)),
        2 => (element(), -3i64..4).prop_map(|(e, n)| Step::Remove(e, n)),
        1 => (0usize..6, 0usize..6).prop_map(|(a, b)| Step::Trim(a, b)),
        2 => (index(), 0usize..12).prop_map(|(i, n)| Step::RemoveRange(i, n)),
        3 => (index(), 0usize..30, 0usize..30).prop_map(|(i, n, m)| Step::Range(i, n, m)),
        1 => Just(Step::Clone),
    ]
}

fn end(tail: bool) -> End {
    if tail { End::Tail } else { End::Head }
}

fn model_remove(model: &mut VecDeque<Vec<u8>>, value: &[u8], count: i64) -> usize {
    let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let mut hits: Vec<usize> = (0..model.len()).filter(|at| model[*at] == value).collect();
    if count < 0 {
        hits.reverse();
    }
    hits.truncate(most);
    hits.sort_unstable_by(|a, b| b.cmp(a));
    for at in &hits {
        model.remove(*at);
    }
    hits.len()
}

proptest! {
    #[test]
    fn behaves_as_a_deque(limits in limits(), steps in prop::collection::vec(step(), 0..250)) {
        let mut list = List::new();
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for step in steps {
            match step {
                Step::Push(true, e) => { list.push_back(&e, &limits); model.push_back(e); }
                Step::Push(false, e) => { list.push_front(&e, &limits); model.push_front(e); }
                Step::Pop(tail) => {
                    let expected = if tail { model.pop_back() } else { model.pop_front() };
                    prop_assert_eq!(list.peek(end(tail)).map(<[u8]>::to_vec), expected.clone());
                    prop_assert_eq!(list.pop(end(tail), &limits), expected);
                }
                Step::Set(i, e) => {
                    let at = data::index_at(i, model.len());
                    prop_assert_eq!(list.set(i, &e, &limits), at.is_some());
                    if let Some(at) = at { model[at] = e; }
                }
                Step::Insert(i, e) => {
                    let at = i.index(model.len() + 1);
                    list.insert(at, &e, &limits);
                    model.insert(at, e);
                }
                Step::Pivot(pivot, before, e) => {
                    let at = model.iter().position(|other| *other == pivot)
                        .map(|at| at + usize::from(!before));
                    prop_assert_eq!(list.insert_at_pivot(&pivot, before, &e, &limits), at);
                    if let Some(at) = at { model.insert(at, e); }
                }
                Step::Remove(e, n) => {
                    prop_assert_eq!(list.remove(&e, n, &limits), model_remove(&mut model, &e, n));
                }
                Step::Trim(a, b) => {
                    let to = model.len().saturating_sub(b);
                    let removed = list.retain_range(a..to, &limits);
                    let before = model.len();
                    model.truncate(to.max(a.min(before)));
                    model.drain(..a.min(model.len()));
                    prop_assert_eq!(removed, before - model.len());
                }
                Step::RemoveRange(i, n) => {
                    let from = i.index(model.len() + 1);
                    let to = (from + n).min(model.len());
                    prop_assert_eq!(list.remove_range(from..from + n, &limits), to - from);
                    model.drain(from..to);
                }
                Step::Range(i, n, front) => {
                    let from = i.index(model.len() + 1);
                    let to = (from + n).min(model.len());
                    let mut iter = list.range(from..from + n);
                    prop_assert_eq!(iter.len(), to - from);
                    let mut expected = model.range(from..to);
                    for _ in 0..front {
                        prop_assert_eq!(iter.next(), expected.next().map(Vec::as_slice));
                        prop_assert_eq!(iter.next_back(), expected.next_back().map(Vec::as_slice));
                    }
                    prop_assert!(iter.eq(expected.map(Vec::as_slice)));
                }
                Step::Clone => list = list.clone(),
            }
            prop_assert_eq!(list.len(), model.len());
            prop_assert_eq!(list.front(), model.front().map(Vec::as_slice));
            prop_assert_eq!(list.back(), model.back().map(Vec::as_slice));
            prop_assert!(list.iter().eq(model.iter().map(Vec::as_slice)));
            prop_assert!(list.iter().rev().eq(model.iter().rev().map(Vec::as_slice)));
            for at in 0..model.len() {
                prop_assert_eq!(list.get(at as i64), Some(model[at].as_slice()));
                let back = at as i64 - model.len() as i64;
                prop_assert_eq!(list.get(back), Some(model[at].as_slice()));
            }
            prop_assert_eq!(list.get(model.len() as i64), None);
        }
    }
}

#[test]
fn encodings_change_as_in_redis() {
    let limits = Limits { list_max_listpack_size: 4, ..Limits::default() };
    let mut list = List::new();
    for _ in 0..4 {
        list.push_back(b"a", &limits);
    }
    assert_eq!(list.encoding(), Encoding::Listpack);
    list.push_back(b"a", &limits);
    assert_eq!(list.encoding(), Encoding::Quicklist);
    list.pop_back(&limits);
    list.pop_back(&limits);
    assert_eq!(list.encoding(), Encoding::Quicklist, "three of four entries are above half");
    list.pop_back(&limits);
    assert_eq!(list.encoding(), Encoding::Listpack);
    list.set(0, &[b'x'; 9000], &limits);
    assert_eq!(list.encoding(), Encoding::Quicklist, "an element above 8 KB is a block");
}

#[test]
fn a_long_list_is_compact() {
    let limits = Limits::default();
    let mut list = List::new();
    for i in 0..100_000u32 {
        list.push_back(format!("{i:010}").as_bytes(), &limits);
    }
    let bytes = list.memory_bytes() as f64 / 100_000.0;
    assert!(bytes < 14.0, "{bytes} bytes for an element of 10");
    assert_eq!(list.get(54_321), Some(&b"0000054321"[..]));
    assert_eq!(list.remove_range(10..99_990, &limits), 99_980);
    assert_eq!(list.get(10), Some(&b"0000099990"[..]));
    assert_eq!(list.encoding(), Encoding::Listpack);
}

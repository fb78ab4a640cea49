//! Streams against an ordered map of entries.

use std::collections::BTreeMap;

use data::stream::{Id, Strategy, Trim};
use data::{Limits, Stream};
use fastrand::Rng;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn content(stream: &Stream) -> Vec<(Id, Pairs)> {
    let pairs = |fields: data::stream::Fields<'_>| {
        fields.map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
    };
    stream.iter().map(|entry| (entry.id, pairs(entry.fields))).collect()
}

#[test]
fn streams_do_what_an_ordered_map_does() {
    let seed = std::env::var("STREAM_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("STREAM_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..300 {
        let limits = Limits {
            stream_node_max_entries: rng.usize(0..12),
            stream_node_max_bytes: [0, 60, 4096][rng.usize(..3)],
            ..Limits::default()
        };
        let (mut stream, mut model) = (Stream::new(), BTreeMap::<Id, Pairs>::new());
        let mut id = Id::new(rng.u64(1..1 << 40), rng.u64(..));
        for _ in 0..rng.usize(..120) {
            let known = Id::new(id.ms.saturating_sub(rng.u64(..8)), rng.u64(..4));
            match rng.u8(..10) {
                0..6 => {
                    id = match rng.bool() {
                        true => id.next().expect("far from the last"),
                        false => Id::new(id.ms + rng.u64(1..4), rng.u64(..4)),
                    };
                    let fields = rng.usize(1..3);
                    let pairs: Pairs = (0..fields)
                        .map(|at| (vec![b'a' + at as u8], vec![b'v'; rng.usize(..200)]))
                        .collect();
                    stream.add(id, pairs.iter().map(|(f, v)| (&**f, &**v)), &limits);
                    model.insert(id, pairs);
                }
                6..8 => assert_eq!(stream.delete(known), model.remove(&known).is_some()),
                _ => {
                    let strategy = match rng.bool() {
                        true => Strategy::MaxLen(rng.u64(..30)),
                        false => Strategy::MinId(known),
                    };
                    let before = stream.len();
                    let gone = stream.trim(&Trim { strategy, approximate: false, limit: None });
                    match strategy {
                        Strategy::MaxLen(len) => {
                            while model.len() as u64 > len {
                                model.pop_first();
                            }
                        }
                        Strategy::MinId(id) => model = model.split_off(&id),
                    }
                    assert_eq!(gone as usize, before - model.len());
                }
            }
            assert_eq!(stream.len(), model.len());
            let (low, high) = (known.min(id), known.max(id));
            let forwards: Vec<Id> = stream.range(low..=high).map(|entry| entry.id).collect();
            let mut backwards: Vec<Id> =
                stream.range(low..=high).rev().map(|entry| entry.id).collect();
            backwards.reverse();
            let wanted: Vec<Id> = model.range(low..=high).map(|(id, _)| *id).collect();
            assert_eq!(forwards, wanted);
            assert_eq!(backwards, wanted);
        }
        assert_eq!(content(&stream), model.into_iter().collect::<Vec<_>>());
    }
}

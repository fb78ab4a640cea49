//! What is written is read again, whole, in pieces and single.

mod support;

use data::Limits;
use engine::{Entry, Type};
use fastrand::Rng;
use persist::rdb::{self, Access, Encoder, Item, Pieces, Reader, Version, Writer};
use support::{build, entry, plain, text, value};

fn small_limits(random: &mut Rng) -> Limits {
    Limits {
        list_max_listpack_size: *random.choice(&[-2, -1, 3, 128]).expect("there are some"),
        set_max_intset_entries: random.usize(..600),
        ..Limits::default()
    }
}

#[test]
fn files_come_back() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for round in 0..40 {
        let limits = small_limits(&mut random);
        let version = if round % 2 == 0 { Version::V10 } else { Version::V11 };
        let mut writer = Writer::new(Vec::new(), version, random.bool(), round % 3 > 0);
        let mut written = Vec::new();
        let to_memory = "memory does not fail";
        writer.aux("redis-ver", b"7.2.4").expect(to_memory);
        for db in [0, 3] {
            writer.select(db, 30, 0).expect(to_memory);
            for _ in 0..30 {
                let (key, value) = (text(&mut random), value(&mut random));
                let entry = entry(build(&value, &limits));
                let when = random.bool().then(|| random.i64(..));
                let access = match random.u8(..3) {
                    0 => Access::Unknown,
                    1 => Access::IdleSeconds(random.u64(..)),
                    _ => Access::Frequency(random.u8(..)),
                };
                writer.key(&key, entry.get(), when, access).expect(to_memory);
                written.push((db, key, value, entry.encoding(), when, access));
            }
        }
        writer.function(b"#!lua name=x").expect(to_memory);
        let claimed = writer.len_bytes();
        let bytes = writer.finish().expect(to_memory);
        assert_eq!(bytes.len() as u64, claimed + 9);

        let mut reader = Reader::new(&*bytes, &limits).expect("the header is right");
        assert_eq!(reader.version(), version.number());
        let (mut db, mut read, mut others) = (u32::MAX, 0, Vec::new());
        while let Some(item) = reader.item().unwrap_or_else(|error| panic!("{error}")) {
            match item {
                Item::Select(number) => db = number,
                Item::Key(key) => {
                    let (at, name, value, encoding, when, access) = &written[read];
                    let entry = entry(key.value);
                    assert_eq!((db, &key.key, key.expire_at_ms), (*at, name, *when));
                    assert!(plain(entry.get()) == *value, "{}", name.escape_ascii());
                    // Version 10 has no listpacks of sets.
                    if version > Version::V10 || entry.value_type() != Type::Set {
                        assert_eq!(entry.encoding(), *encoding, "{}", name.escape_ascii());
                    }
                    let found = match (key.idle_seconds, key.frequency) {
                        (Some(seconds), None) => Access::IdleSeconds(seconds),
                        (None, Some(counter)) => Access::Frequency(counter),
                        (both, _) => {
                            assert!(both.is_none());
                            Access::Unknown
                        }
                    };
                    assert_eq!(found, *access);
                    read += 1;
                }
                Item::Aux { name, value } => others.push([name, value]),
                Item::Resize { keys, .. } => assert_eq!(keys, 30),
                Item::Function(code) => others.push([b"function".to_vec(), code]),
                Item::Skipped(what) => panic!("{what} was skipped"),
            }
        }
        assert_eq!(read, written.len());
        let expected = [["redis-ver", "7.2.4"], ["function", "#!lua name=x"]];
        assert_eq!(others, expected.map(|pair| pair.map(|text| text.as_bytes().to_vec())));
        assert_eq!(reader.offset(), bytes.len() as u64);
    }
}

#[test]
fn pieces_of_any_size_make_the_same_whole() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let limits = Limits::default();
    let long = support::Plain::Text(vec![b'x'; 3 << 20]);
    let values = (0..60).map(|_| value(&mut random)).chain([
        long,
        support::Plain::List(vec![vec![b'y'; 3 << 20], b"short".to_vec()]),
        support::Plain::Hash([(vec![b'f'; 2 << 20], vec![b'v'; 2 << 20])].into()),
        support::Plain::Zset([(vec![b'm'; 2 << 20], 1.5), (b"n".to_vec(), 2.5)].into()),
    ]);
    for value in values.collect::<Vec<_>>() {
        let entry: Entry = entry(build(&value, &limits));
        let write = |bytes: usize| {
            let mut encoder = Encoder::new(Version::V11, true);
            let mut pieces = Pieces::of(entry.get());
            let mut out = Vec::new();
            loop {
                let before = out.len();
                let more = pieces.next(&mut encoder, bytes, &mut out);
                // An element that is compressed or packed is not cut.
                assert!(out.len() - before <= bytes + (2 << 20) + 100);
                if !more {
                    return out;
                }
            }
        };
        let whole = write(usize::MAX / 2);
        assert!(write(1) == whole && write(1000) == whole && write(1 << 20) == whole);
    }
}

#[test]
fn payloads_come_back_and_nothing_else_does() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for round in 0..300 {
        let limits = small_limits(&mut random);
        let value = value(&mut random);
        let made = entry(build(&value, &limits));
        let version = if round % 2 == 0 { Version::V10 } else { Version::V11 };
        let payload = rdb::dump(made.get(), version);
        let back = entry(rdb::restore(&payload, &limits).expect("what was dumped is restored"));
        assert!(plain(back.get()) == value);
        if version > Version::V10 || made.value_type() != Type::Set {
            assert_eq!(back.encoding(), made.encoding());
        }
        let mut broken = payload.clone();
        let at = random.usize(..broken.len());
        broken[at] ^= 1 << random.u8(..8);
        assert!(
            rdb::restore(&broken, &limits).is_err(),
            "a bit at {at} of {} counts",
            broken.len()
        );
        assert!(rdb::restore(&payload[..at], &limits).is_err());
    }
}

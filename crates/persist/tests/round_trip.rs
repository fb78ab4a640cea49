//! What is written is read again, whole, in pieces and single.

mod support;

use std::io;

use data::stream::{Group, Id};
use data::{Hash, Json, Limits, Stream};
use engine::{Entry, Type, ValueRef};
use fastrand::Rng;
use persist::rdb::{
    self, Access, Encoder, Error, Item, Key, Long, Piece, Pieces, Reader, Records, Version, Writer,
};
use support::{Plain, build, entry, plain, text, value};

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
                Item::Empty(key) => panic!("{} is empty", key.escape_ascii()),
                Item::Skipped(what) => panic!("{what} was skipped"),
            }
        }
        assert_eq!(read, written.len());
        let expected = [["redis-ver", "7.2.4"], ["function", "#!lua name=x"]];
        assert_eq!(others, expected.map(|pair| pair.map(|text| text.as_bytes().to_vec())));
        assert_eq!(reader.offset(), bytes.len() as u64);
    }
}

/// All that a file's items say, and why they end early.
fn items<R: io::Read>(reader: &mut Reader<R>, said: &mut Vec<Told>) -> Result<(), String> {
    while let Some(item) = reader.item().map_err(|error| error.to_string())? {
        said.push(telling(item));
    }
    Ok(())
}

#[derive(PartialEq)]
enum Told {
    Key(Vec<u8>, Plain, Option<i64>, Option<u64>, Option<u8>),
    Other(String),
}

fn telling(item: Item) -> Told {
    Told::Other(match item {
        Item::Key(Key { key, value, expire_at_ms, idle_seconds, frequency }) => {
            let value = plain(entry(value).get());
            return Told::Key(key, value, expire_at_ms, idle_seconds, frequency);
        }
        Item::Aux { name, value } => format!("{name:?} {value:?}"),
        Item::Select(db) => format!("db {db}"),
        Item::Resize { keys, expires } => format!("{keys} {expires}"),
        Item::Function(code) => format!("{code:?}"),
        Item::Empty(key) => format!("empty {key:?}"),
        Item::Skipped(what) => what,
    })
}

/// The same by pieces. Answers how many runs there were.
fn pieces(file: &[u8], limits: &Limits, said: &mut Vec<Told>) -> (usize, Result<(), String>) {
    let (mut runs, mut spare) = (0, Vec::new());
    let mut read = || {
        let text = |error: Error| error.to_string();
        let mut reader = Reader::new(file, limits).map_err(text)?;
        while let Some(piece) = reader.piece(&mut spare).map_err(text)? {
            match piece {
                Piece::Item(item) => said.push(telling(item)),
                Piece::Run(run) => {
                    runs += 1;
                    let mut within = Reader::of_run(run, limits);
                    items(&mut within, said)?;
                    spare = within.into_buffer();
                }
            }
        }
        Ok(())
    };
    let done = read();
    (runs, done)
}

#[test]
fn pieces_of_a_file_say_what_its_items_say() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for round in 0..8 {
        let limits = small_limits(&mut random);
        let to_memory = "memory does not fail";
        let mut writer = Writer::new(Vec::new(), Version::V11, random.bool(), true);
        for db in [0, 3] {
            writer.select(db, 40, 0).expect(to_memory);
            for _ in 0..40 {
                let bytes = match random.u8(..20) {
                    // Longer than any run.
                    0 => 300_000,
                    1..10 => random.usize(..20_000),
                    _ => 0,
                };
                if random.u8(..30) == 0 {
                    writer.aux("between", b"keys").expect(to_memory);
                }
                let value = match bytes {
                    0 => value(&mut random),
                    _ => Plain::Text((0..bytes).map(|_| random.u8(..)).collect()),
                };
                let entry = entry(build(&value, &limits));
                let when = random.bool().then(|| random.i64(..));
                let access = match random.bool() {
                    true => Access::IdleSeconds(random.u64(..)),
                    false => Access::Frequency(random.u8(..)),
                };
                writer.key(&text(&mut random), entry.get(), when, access).expect(to_memory);
            }
        }
        let mut file = writer.finish().expect(to_memory);
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        items(&mut Reader::new(&*file, &limits).expect("a header"), &mut expected).expect("whole");
        let (runs, done) = pieces(&file, &limits, &mut found);
        done.expect("whole");
        assert!(runs > 0 && expected == found, "round {round}: {runs} runs");
        // And what is broken is broken in the same way.
        for _ in 0..8 {
            let at = random.usize(9..file.len());
            let byte = std::mem::replace(&mut file[at], random.u8(..));
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            let mut reader = Reader::new(&*file, &limits).expect("a header");
            let fails = items(&mut reader, &mut expected);
            let (_, fails_too) = pieces(&file, &limits, &mut found);
            assert_eq!(fails, fails_too, "round {round}, byte {at}");
            assert!(expected == found, "round {round}, byte {at}");
            file[at] = byte;
        }
    }
}

#[test]
fn pieces_of_any_size_make_the_same_whole() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let limits = Limits::default();
    let long = Plain::Text(vec![b'x'; 3 << 20]);
    let values = (0..60).map(|_| value(&mut random)).chain([
        long,
        Plain::List(vec![vec![b'y'; 3 << 20], b"short".to_vec()]),
        Plain::Hash([(vec![b'f'; 2 << 20], vec![b'v'; 2 << 20])].into()),
        Plain::Zset([(vec![b'm'; 2 << 20], 1.5), (b"n".to_vec(), 2.5)].into()),
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

/// Parts end anywhere in a stream: between its blocks, in a group, in what is pending with one.
#[test]
fn parts_of_a_stream_make_the_same_whole() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for _ in 0..60 {
        let mut stream = Stream::new();
        let mut groups: Vec<Group> =
            (0..random.u64(..4)).map(|read| Group::new(Id::new(9, 9), Some(read))).collect();
        for group in &mut groups {
            for name in [&b"a"[..], b"", b"cc"].iter().take(random.usize(1..4)) {
                group.add_consumer(name, random.i64(..), random.bool().then_some(5));
            }
        }
        let limits = Limits { stream_node_max_entries: random.usize(1..9), ..Limits::default() };
        for ms in 1..random.u64(2..300) {
            let id = Id::new(ms, random.u64(..));
            stream.add(id, [(&b"field"[..], &text(&mut random)[..])].into_iter(), &limits);
            for group in &mut groups {
                let owner = group.consumers().nth(random.usize(..4)).map(|owner| owner.name());
                if let Some(owner) = owner.map(<[u8]>::to_vec) {
                    group.set_pending(id, &owner, random.i64(..), random.u64(..1000));
                }
            }
            if random.u8(..9) == 0 {
                stream.delete(id);
            }
        }
        for (number, group) in groups.into_iter().enumerate() {
            stream.put_group(format!("group {number}").as_bytes(), group);
        }
        let value = ValueRef::Stream(&stream);
        for version in [Version::V10, Version::V11] {
            let mut whole = Records::new(version, true);
            whole.add(0, b"key", value, Some(7), Access::Unknown);
            let mut parts = Records::new(version, true);
            let mut long = Long::begin(&mut parts, 0, b"key", value, Some(7), Access::Unknown);
            while !long.go_on(&mut parts, value, random.usize(..700)) {}
            assert!(parts.take(Vec::new()) == whole.take(Vec::new()));
        }
        // 7.2 has all that a stream knows.
        let loaded = rdb::restore(&rdb::dump(value, Version::V11), &limits).expect("our own");
        assert_eq!(plain(entry(loaded).get()), plain(value));
    }
}

/// A value that is written in parts, some of them empty, and read again; and by pieces as by items.
fn through_parts(value: ValueRef<'_>, random: &mut Rng, limits: &Limits) -> Entry {
    let to_memory = "memory does not fail";
    let mut parts = Records::new(Version::V11, random.bool());
    let mut long = Long::begin(&mut parts, 0, b"key", value, Some(7), Access::Unknown);
    let mut longest = 0;
    loop {
        let before = parts.len_bytes();
        let is_last = long.go_on(&mut parts, value, random.usize(..700));
        longest = longest.max(parts.len_bytes() - before);
        if is_last {
            break;
        }
    }
    assert!(longest < 2000, "{longest} bytes at once");
    let mut writer = Writer::new(Vec::new(), Version::V11, true, true);
    for _ in 0..2 {
        writer.records(&parts.take(Vec::new())).expect(to_memory);
        parts.add(0, b"other", value, None, Access::Unknown);
    }
    let file = writer.finish().expect(to_memory);
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    items(&mut Reader::new(&*file, limits).expect("a header"), &mut expected).expect("whole");
    let (_, done) = pieces(&file, limits, &mut found);
    done.expect("whole");
    assert!(expected == found);
    let mut reader = Reader::new(&*file, limits).expect("a header");
    loop {
        match reader.item().expect("whole").expect("there is a key") {
            Item::Key(key) => return entry(key.value),
            _ => continue,
        }
    }
}

#[test]
fn documents_and_hashes_with_times_come_in_parts() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    for _ in 0..20 {
        let limits = Limits::default();
        // Smaller ones are one part.
        let count = random.usize(200..3000);
        let mut hash = Hash::new();
        for number in 0..count {
            let field = format!("field {number}");
            hash.set(field.as_bytes(), random.u64(..).to_string().as_bytes(), &limits);
            if random.bool() || number == 0 {
                hash.set_time(field.as_bytes(), Some(random.i64(0..)));
            }
        }
        let back = through_parts(ValueRef::Hash(&hash), &mut random, &limits);
        let ValueRef::Hash(found) = back.get() else { panic!("it is no hash") };
        assert_eq!(found.len(), hash.len());
        for (field, value) in hash.iter() {
            assert_eq!(found.get(field), Some(value));
            assert_eq!(found.time_ms(field), hash.time_ms(field));
        }

        let member = |random: &mut Rng| match random.u8(..5) {
            0 => "[]".to_owned(),
            1 => format!("{{\"a\":{},\"b\":{{\"c\":[1.5]}}}}", random.i64(..)),
            2 => format!("\"{}\"", "\\n".repeat(random.usize(..50))),
            _ => random.i32(..).to_string(),
        };
        let members: Vec<String> = (0..count).map(|_| member(&mut random)).collect();
        let json = Json::parse(&format!("[{}]", members.join(","))).expect("it is JSON");
        let back = through_parts(ValueRef::Json(&json), &mut random, &limits);
        let ValueRef::Json(found) = back.get() else { panic!("it is no document") };
        assert!(*found == json);
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

//! Files as old and foreign servers write them, built here byte by byte, and broken ones.

mod support;

use data::Limits;
use persist::rdb::{Error, Item, Reader};
use support::{Plain, entry, plain};

/// A file of this version with a key `k` of this type and body.
fn file(version: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut file = format!("REDIS{version:04}").into_bytes();
    // Before version 7 there is no hint of sizes.
    file.extend([254, 0]);
    file.push(kind);
    file.extend(string(b"k"));
    file.extend(body);
    ended(version, file)
}

/// With the end of a file; the checksum is 0, which is none.
fn ended(version: u16, mut file: Vec<u8>) -> Vec<u8> {
    file.push(255);
    if version >= 5 {
        file.extend([0; 8]);
    }
    file
}

fn length(length: usize) -> Vec<u8> {
    match length {
        0..64 => vec![length as u8],
        64..16384 => vec![0x40 | (length >> 8) as u8, length as u8],
        _ => [&[0x80][..], &(length as u32).to_be_bytes()].concat(),
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [length(bytes.len()), bytes.to_vec()].concat()
}

/// Entries of a ziplist are given as their encoding and data.
fn ziplist(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    let (mut last, mut previous) = (10, 0);
    for entry in entries {
        last = 10 + body.len();
        let before = body.len();
        match previous {
            0..254 => body.push(previous as u8),
            _ => {
                body.push(254);
                body.extend((previous as u32).to_le_bytes());
            }
        }
        body.extend(entry);
        previous = body.len() - before;
    }
    let total = 10 + body.len() + 1;
    let mut all = (total as u32).to_le_bytes().to_vec();
    all.extend((last as u32).to_le_bytes());
    all.extend((entries.len() as u16).to_le_bytes());
    all.extend(body);
    all.push(255);
    all
}

/// A text in a ziplist.
fn text(bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len();
    let head = match len {
        0..64 => vec![len as u8],
        64..16384 => vec![0x40 | (len >> 8) as u8, len as u8],
        _ => [&[0x80][..], &(len as u32).to_be_bytes()].concat(),
    };
    [head, bytes.to_vec()].concat()
}

/// Entries of a listpack are given as their encoding and data, and the size of both.
fn listpack(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let body: Vec<u8> =
        entries.iter().flat_map(|(entry, back)| [&entry[..], back].concat()).collect();
    let mut all = ((7 + body.len()) as u32).to_le_bytes().to_vec();
    all.extend((entries.len() as u16).to_le_bytes());
    all.extend(body);
    all.push(255);
    all
}

/// A short text in a listpack.
fn word(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([&[0x80 | bytes.len() as u8][..], bytes].concat(), vec![bytes.len() as u8 + 1])
}

fn intset(width: u32, values: &[i64]) -> Vec<u8> {
    let mut all = width.to_le_bytes().to_vec();
    all.extend((values.len() as u32).to_le_bytes());
    values.iter().for_each(|value| all.extend(&value.to_le_bytes()[..width as usize]));
    all
}

/// A key, its value and its expiry.
type Loaded = (Vec<u8>, Plain, Option<i64>);

fn load(file: &[u8]) -> Result<Vec<Loaded>, Error> {
    let mut reader = Reader::new(file, &Limits::default())?;
    let mut keys = Vec::new();
    while let Some(item) = reader.item()? {
        if let Item::Key(key) = item {
            let entry = entry(key.value);
            keys.push((key.key, plain(entry.get()), key.expire_at_ms));
        }
    }
    Ok(keys)
}

#[track_caller]
fn holds(version: u16, kind: u8, body: &[u8], expected: &Plain) {
    let keys = load(&file(version, kind, body)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(keys, [(b"k".to_vec(), expected.clone(), None)]);
}

#[track_caller]
fn refused(kind: u8, body: &[u8], why: &str) {
    let error = load(&file(11, kind, body)).expect_err("this is broken");
    assert!(error.to_string().contains(why), "{error}");
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn list(all: &[&str]) -> Plain {
    Plain::List(texts(all))
}

fn set(all: &[&str]) -> Plain {
    Plain::Set(texts(all).into_iter().collect())
}

fn hash(all: &[(&str, &str)]) -> Plain {
    Plain::Hash(
        all.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).collect(),
    )
}

fn zset(all: &[(&str, f64)]) -> Plain {
    Plain::Zset(all.iter().map(|(name, score)| (name.as_bytes().into(), *score)).collect())
}

#[test]
fn plain_encodings_of_the_first_versions() {
    let elements = [length(2), string(b"a"), string(b"-7")].concat();
    holds(1, 0, &string(b"value"), &Plain::Text(b"value".to_vec()));
    holds(1, 1, &elements, &list(&["a", "-7"]));
    holds(2, 2, &elements, &set(&["a", "-7"]));
    let pair = [length(1), string(b"a"), string(b"-7")].concat();
    holds(3, 4, &pair, &hash(&[("a", "-7")]));
    // Scores are digits, or one of three lengths.
    let scores = [length(4), string(b"a"), vec![3], b"1.5".to_vec(), string(b"b"), vec![254]];
    let more =
        [string(b"c"), vec![255], string(b"d"), vec![25], b"-1.2500000000000000000e-5".to_vec()];
    let scored =
        zset(&[("a", 1.5), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", -1.25e-5)]);
    holds(4, 3, &[scores.concat(), more.concat()].concat(), &scored);
    refused(3, &[length(1), string(b"a"), vec![253]].concat(), "not a number");
    let binary = [length(1), string(b"a"), 2.25_f64.to_le_bytes().to_vec()].concat();
    holds(8, 5, &binary, &zset(&[("a", 2.25)]));
}

#[test]
fn strings_in_every_coding() {
    let holds = |body: &[u8], text: &str| holds(6, 0, body, &Plain::Text(text.into()));
    holds(&[0xc0, 0xfb], "-5");
    holds(&[0xc1, 0x39, 0x30], "12345");
    holds(&[0xc2, 0x15, 0xcd, 0x5b, 0x07], "123456789");
    holds(&[&[0x80, 0, 0, 0, 3][..], b"abc"].concat(), "abc");
    holds(&[&[0x81, 0, 0, 0, 0, 0, 0, 0, 3][..], b"abc"].concat(), "abc");
    holds(&[0xc3, 4, 9, 0, b'x', 0xc0, 0], "xxxxxxxxx");
    refused(0, &[0xc4, 0], "unknown coding 4");
    refused(0, &[0xc3, 4, 10, 0, b'x', 0xc0, 0], "does not unpack");
    refused(0, &[0x82, 0, 0], "a length begins with 0x82");
}

#[test]
fn ziplists() {
    let long = vec![b'l'; 300];
    let huge = vec![b'h'; 20_000];
    let entries = vec![
        text(b"a"),
        vec![0xf1],
        vec![0xfd],
        vec![0xfe, 0x80],
        vec![0xc0, 0x39, 0x30],
        vec![0xf0, 0xff, 0xff, 0x7f],
        vec![0xf0, 0x00, 0x00, 0x80],
        vec![0xd0, 0xff, 0xff, 0xff, 0x7f],
        [vec![0xe0], i64::MIN.to_le_bytes().to_vec()].concat(),
        text(&long),
        text(&huge),
        text(b""),
    ];
    let mut expected = texts(&[
        "a",
        "0",
        "12",
        "-128",
        "12345",
        "8388607",
        "-8388608",
        "2147483647",
        "-9223372036854775808",
    ]);
    expected.extend([long, huge, Vec::new()]);
    let packed = ziplist(&entries);
    holds(6, 10, &string(&packed), &Plain::List(expected.clone()));
    // A list of version 7 is a list of these.
    let nodes = [length(2), string(&packed), string(&ziplist(&[text(b"last")]))].concat();
    expected.push(b"last".to_vec());
    holds(7, 14, &nodes, &Plain::List(expected));

    let pairs = ziplist(&[text(b"a"), vec![0xf3], text(b"b"), text(b"2.5")]);
    holds(6, 13, &string(&pairs), &hash(&[("a", "2"), ("b", "2.5")]));
    holds(6, 12, &string(&pairs), &zset(&[("a", 2.0), ("b", 2.5)]));
    refused(13, &string(&ziplist(&[text(b"a")])), "has no value");
    refused(12, &string(&ziplist(&[text(b"a")])), "has no score");
    refused(12, &string(&ziplist(&[text(b"a"), text(b"b")])), "no number");
    let twice = ziplist(&[text(b"a"), vec![0xf3], text(b"a"), vec![0xf4]]);
    refused(13, &string(&twice), "twice");
    refused(12, &string(&twice), "twice");

    let small = ziplist(&[text(b"a"), text(b"b")]);
    let broken = |at: usize, to: u8, why: &str| {
        let mut broken = small.clone();
        broken[at] = to;
        refused(10, &string(&broken), why);
    };
    broken(0, 99, "not the length it claims");
    broken(4, 10, "ends elsewhere");
    broken(8, 3, "ends elsewhere");
    broken(10, 1, "no entry");
    broken(11, 9, "no entry");
    broken(13, 4, "no entry");
    broken(14, 0xff, "no entry");
    refused(10, &string(&small[..5]), "shorter than its header");
    refused(10, &string(b""), "shorter than its header");
}

#[test]
fn listpacks() {
    let integer = |head: u8, data: &[u8]| {
        let entry = [&[head][..], data].concat();
        let back = vec![entry.len() as u8];
        (entry, back)
    };
    let long = vec![b'l'; 300];
    let entries = [
        word(b"a"),
        (vec![127], vec![1]),
        (vec![0xdf, 0xff], vec![2]),
        (vec![0xcf, 0xff], vec![2]),
        (vec![0xd0, 0x00], vec![2]),
        integer(0xf1, &(-12345_i16).to_le_bytes()),
        integer(0xf2, &[0, 0, 0x80]),
        integer(0xf3, &i32::MAX.to_le_bytes()),
        integer(0xf4, &i64::MIN.to_le_bytes()),
        ([vec![0xe1, 0x2c], long.clone()].concat(), vec![2, 0x80 | 46]),
        ([vec![0xf0, 5, 0, 0, 0], b"fives".to_vec()].concat(), vec![10]),
    ];
    let mut expected =
        texts(&["a", "127", "-1", "4095", "-4096", "-12345", "-8388608", "2147483647"]);
    expected.extend([i64::MIN.to_string().into_bytes(), long, b"fives".to_vec()]);
    let node = [length(2), length(2), string(&listpack(&entries)), length(1), string(b"plain")];
    expected.push(b"plain".to_vec());
    holds(10, 18, &node.concat(), &Plain::List(expected));
    refused(18, &[length(1), length(3), string(b"x")].concat(), "no container 3");
    refused(18, &[length(1), length(1), string(b"")].concat(), "node of a list is empty");

    let pairs = listpack(&[word(b"a"), (vec![2], vec![1]), word(b"b"), word(b"2.5")]);
    holds(10, 16, &string(&pairs), &hash(&[("a", "2"), ("b", "2.5")]));
    holds(10, 17, &string(&pairs), &zset(&[("a", 2.0), ("b", 2.5)]));
    holds(11, 20, &string(&pairs), &set(&["a", "2", "b", "2.5"]));
    let twice = listpack(&[word(b"a"), word(b"a"), word(b"a"), word(b"a")]);
    refused(20, &string(&twice), "twice");

    let small = listpack(&[word(b"a"), word(b"b")]);
    let broken = |at: usize, to: u8, why: &str| {
        let mut broken = small.clone();
        broken[at] = to;
        refused(20, &string(&broken), why);
    };
    broken(0, 99, "not the length it claims");
    broken(4, 3, "ends elsewhere");
    broken(6, 0xf5, "no entry");
    broken(6, 0x8f, "no entry");
    broken(8, 3, "another size");
    broken(9, 0xff, "ends elsewhere");
    let unknown_count = {
        let mut small = small.clone();
        small[4..6].copy_from_slice(&[255, 255]);
        small
    };
    holds(11, 20, &string(&unknown_count), &set(&["a", "b"]));
}

#[test]
fn integer_sets() {
    holds(6, 11, &string(&intset(2, &[-5, 7])), &set(&["-5", "7"]));
    holds(6, 11, &string(&intset(4, &[-70_000, 7])), &set(&["-70000", "7"]));
    holds(
        6,
        11,
        &string(&intset(8, &[i64::MIN, i64::MAX])),
        &set(&["-9223372036854775808", "9223372036854775807"]),
    );
    refused(11, &string(&intset(2, &[7, -5])), "do not ascend");
    refused(11, &string(&intset(2, &[7, 7])), "do not ascend");
    refused(11, &string(&intset(2, &[1, 2])[..11]), "not the length it claims");
    refused(11, &string(&intset(3, &[])), "no width");
    refused(11, &string(b"\x02\0\0\0"), "shorter than its header");
}

#[test]
fn zipmaps() {
    let map = [&[2][..], b"\x01a\x03\x00one", b"\x01b\x01\x022..", &[255]].concat();
    holds(2, 9, &string(&map), &hash(&[("a", "one"), ("b", "2")]));
    let long = [&[254][..], b"\xfe\x01\0\0\0a\x01\x00x", &[255]].concat();
    holds(2, 9, &string(&long), &hash(&[("a", "x")]));
    refused(9, &string(&map[..map.len() - 1]), "no element");
    refused(9, &string(&[&[3][..], &map[1..]].concat()), "ends elsewhere");
    refused(9, &string(&[&[1][..], b"\x01a", &[255]].concat()), "no element");
    refused(9, &string(&[&[1][..], b"\x01a\x09\x00x", &[255]].concat()), "no element");
    refused(9, &string(b""), "no element");
}

#[test]
fn what_stands_before_keys() {
    let mut file = b"REDIS0011".to_vec();
    file.extend([&[250][..], &string(b"redis-ver"), &string(b"7.2.0")].concat());
    // A module's data: signed, float, double, string, end.
    let id = (0..9).fold(0_u64, |id, at| id << 6 | (at + 1)) << 10 | 3;
    file.push(247);
    file.push(0x81);
    file.extend(id.to_be_bytes());
    file.extend([2, 1, 1, 5, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0xc0, 9, 0]);
    file.extend([245].into_iter().chain(string(b"code")));
    file.extend([254, 3, 251, 2, 1, 244, 1, 2, 3]);
    file.extend([&[253][..], &5_u32.to_le_bytes(), &[0], &string(b"a"), &string(b"1")].concat());
    file.extend(
        [&[252][..], &6_u64.to_le_bytes(), &[248, 9, 0], &string(b"b"), &string(b"2")].concat(),
    );
    file.extend([&[249, 200, 0][..], &string(b"c"), &string(b"3")].concat());
    file.extend([&[4][..], &string(b"empty"), &[0]].concat());
    let file = ended(11, file);
    let mut reader = Reader::new(&*file, &Limits::default()).expect("a header");
    let mut seen = Vec::new();
    while let Some(item) = reader.item().unwrap_or_else(|error| panic!("{error}")) {
        seen.push(match item {
            Item::Aux { name, value } => {
                format!("{}={}", name.escape_ascii(), value.escape_ascii())
            }
            Item::Select(db) => format!("db {db}"),
            Item::Resize { keys, expires } => format!("{keys} keys, {expires} expire"),
            Item::Key(key) => format!(
                "{} {:?} {:?} {:?}",
                key.key.escape_ascii(),
                key.expire_at_ms,
                key.idle_seconds,
                key.frequency
            ),
            Item::Function(code) => format!("function {}", code.escape_ascii()),
            Item::Empty(key) => format!("empty {}", key.escape_ascii()),
            Item::Skipped(what) => what,
        });
    }
    assert_eq!(
        seen,
        [
            "redis-ver=7.2.0",
            "data of the module type 'BCDEFGHIJ'",
            "function code",
            "db 3",
            "2 keys, 1 expire",
            "a Some(5000) None None",
            "b Some(6) Some(9) None",
            "c None None Some(200)",
            "empty empty",
        ]
    );
}

#[test]
fn fields_with_times() {
    let earliest = 5_000_000_000_000_u64;
    let field =
        |time: Vec<u8>, name: &[u8], value: &[u8]| [time, string(name), string(value)].concat();
    let long = |number: u64| [&[0x81][..], &number.to_be_bytes()].concat();
    let late = [
        &earliest.to_le_bytes()[..],
        &length(3),
        &field(length(1), b"a", b"x"),
        &field(length(0), b"b", b"y"),
        &field(length(301), b"c", b"z"),
    ]
    .concat();
    let early = [
        &length(3)[..],
        &field(long(earliest), b"a", b"x"),
        &field(length(0), b"b", b"y"),
        &field(long(earliest + 300), b"c", b"z"),
    ]
    .concat();
    for (kind, body) in [(24, late.clone()), (22, early)] {
        let file = file(12, kind, &body);
        let mut reader = Reader::new(&file[..], &Limits::default()).expect("a head");
        let mut hashes = 0;
        while let Some(item) = reader.item().unwrap_or_else(|error| panic!("{error}")) {
            let Item::Key(key) = item else { continue };
            let entry = entry(key.value);
            let engine::ValueRef::Hash(hash) = entry.get() else { panic!("no hash") };
            assert_eq!(hash.len(), 3);
            assert_eq!(hash.time_ms(b"a"), Some(earliest as i64));
            assert_eq!(hash.time_ms(b"b"), None);
            assert_eq!(hash.time_ms(b"c"), Some(earliest as i64 + 300));
            // As Redis 7.4 writes it.
            let payload = persist::rdb::dump(entry.get(), persist::rdb::Version::V11);
            assert_eq!(payload[0], 24);
            assert_eq!(payload[1..payload.len() - 10], late);
            hashes += 1;
        }
        assert_eq!(hashes, 1);
    }
    let too_late =
        [&u64::MAX.to_le_bytes()[..], &length(1), &field(length(2), b"a", b"x")].concat();
    refused(24, &too_late, "at no time there is");
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let error = load(&file(12, 6, b"")).expect_err("not built");
    let what = "the key 'k' holds a value of a module, which is not supported";
    assert_eq!(error.to_string(), what);
    refused(8, b"", "there is no type 8");
    let error = load(b"REDIS0013\xff").map(|_| ()).expect_err("too new");
    assert_eq!(error.to_string(), "RDB files of version 13 cannot be read, only 1 to 12");
    assert!(load(b"RODIS0011\xff").is_err());
    assert!(load(b"REDIS").is_err());
}

/// A block of a stream whose entries have these fields and one value each, 1 ms apart.
fn stream_block(base: [u64; 2], names: &[&[u8]], values: &[&[u8]]) -> Vec<u8> {
    let small = |number: usize| (vec![number as u8], vec![1]);
    let long = |text: &[u8]| {
        let entry = [&[0xf0], &(text.len() as u32).to_le_bytes()[..], text].concat();
        let size = entry.len();
        let back = [(size >> 14) as u8, 0x80 | (size >> 7) as u8, 0x80 | size as u8].to_vec();
        (entry, back)
    };
    let count = |number: usize| match number {
        0..128 => small(number),
        _ => ([&[0xf1], &(number as u16).to_le_bytes()[..]].concat(), vec![3]),
    };
    let mut entries = vec![count(values.len()), small(0), small(names.len())];
    entries.extend(names.iter().map(|name| if name.len() < 64 { word(name) } else { long(name) }));
    entries.push(small(0));
    for (at, value) in values.iter().enumerate() {
        entries.extend([small(2), count(at), small(0)]);
        entries.extend(names.iter().map(|_| word(value)));
        entries.push(small(names.len() + 3));
    }
    let base: Vec<u8> = base.iter().flat_map(|part| part.to_be_bytes()).collect();
    [string(&base), string(&listpack(&entries))].concat()
}

#[test]
fn streams() {
    let id = |ms: usize, seq: usize| [length(ms), length(seq)].concat();
    let one = stream_block([5, 0], &[b"a", b"b"], &[b"x", b"y"]);
    let two = stream_block([9, 3], &[b"c"], &[b"z"]);
    let tail = [length(3), id(9, 3)].concat();
    let told = |head: &str| {
        let entries = "5-0 a=x b=x 6-0 a=y b=y 9-3 c=z";
        Plain::Stream(format!("Head {{ {head} }} {entries}"))
    };
    // Redis 5 and 6, 7.0, 7.2.
    let old = told("last_id: 9-3, max_deleted_id: 0-0, entries_added: 3");
    holds(9, 15, &[length(2), one.clone(), two.clone(), tail.clone(), length(0)].concat(), &old);
    let new = told("last_id: 10-1, max_deleted_id: 7-7, entries_added: 40");
    let more = [length(3), id(10, 1), id(5, 0), id(7, 7), length(40), length(0)].concat();
    for (version, kind) in [(10, 19), (11, 21)] {
        let body = [length(2), one.clone(), two.clone(), more.clone()].concat();
        holds(version, kind, &body, &new);
    }

    let behind = [length(2), two.clone(), one.clone(), tail.clone(), length(0)].concat();
    refused(15, &behind, "blocks of a stream do not ascend");
    let fewer = [length(1), one.clone(), tail.clone(), length(0)].concat();
    refused(15, &fewer, "not as many entries");
    let early = [length(2), one.clone(), two.clone(), length(3), id(9, 2), length(0)].concat();
    refused(15, &early, "behind its last id");
    let short = [length(1), string(b"short"), string(b"")].concat();
    refused(15, &short, "sixteen bytes");
}

/// The time of a consumer group, a consumer or a pending entry.
fn time(ms: i64) -> Vec<u8> {
    ms.to_le_bytes().to_vec()
}

fn raw_id(ms: u64, seq: u64) -> Vec<u8> {
    [ms.to_be_bytes(), seq.to_be_bytes()].concat()
}

#[test]
fn consumer_groups() {
    let block = stream_block([5, 0], &[b"a"], &[b"x"]);
    let id = |ms: usize, seq: usize| [length(ms), length(seq)].concat();
    let before = |kind: u8| {
        let new = [id(5, 0), id(0, 0), length(1)].concat();
        let more = if kind == 15 { Vec::new() } else { new };
        [length(1), block.clone(), length(1), id(5, 0), more, length(1), string(b"g"), id(5, 0)]
            .concat()
    };
    let pending = |ids: &[(u64, i64, usize)]| {
        let entries =
            ids.iter().map(|(ms, at, count)| [raw_id(*ms, 0), time(*at), length(*count)].concat());
        [length(ids.len()), entries.collect::<Vec<_>>().concat()].concat()
    };
    let consumer = |name: &[u8], times: &[i64], ids: &[u64]| {
        let times: Vec<u8> = times.iter().copied().flat_map(time).collect();
        let ids: Vec<u8> = ids.iter().flat_map(|ms| raw_id(*ms, 0)).collect();
        [string(name), times, length(ids.len() / 16), ids].concat()
    };
    let told = |read: &str, first: &str, second: &str| {
        Plain::Stream(format!(
            "Head {{ last_id: 5-0, max_deleted_id: 0-0, entries_added: 1 }} 5-0 a=x \
             group g at 5-0 {read}: 4-0 d 70 2 5-0 c 71 1 c {first} 1 d {second} 1"
        ))
    };
    let both = pending(&[(4, 70, 2), (5, 71, 1)]);
    // Redis 5 and 6, 7.0, 7.2: how much was read came with the second, active consumers with the
    // third.
    let body = |kind: u8, read: &[u8], times: &[&[i64]; 2]| {
        let consumers = [consumer(b"c", times[0], &[5]), consumer(b"d", times[1], &[4])].concat();
        [before(kind), read.to_vec(), both.clone(), length(2), consumers].concat()
    };
    let old: [&[i64]; 2] = [&[80], &[90]];
    holds(9, 15, &body(15, b"", &old), &told("Some(1)", "80 Some(80)", "90 Some(90)"));
    holds(10, 19, &body(19, &length(1), &old), &told("Some(1)", "80 Some(80)", "90 Some(90)"));
    let unknown = [&[0x81], &u64::MAX.to_be_bytes()[..]].concat();
    holds(10, 19, &body(19, &unknown, &old), &told("None", "80 Some(80)", "90 Some(90)"));
    let new: [&[i64]; 2] = [&[80, 81], &[90, -1]];
    holds(11, 21, &body(21, &length(1), &new), &told("Some(1)", "80 Some(81)", "90 None"));

    let broken =
        |parts: &[Vec<u8>], why: &str| refused(15, &[before(15), parts.concat()].concat(), why);
    broken(&[pending(&[(5, 1, 1), (4, 1, 1)])], "does not ascend");
    broken(&[pending(&[(5, 1, 1), (5, 1, 1)])], "does not ascend");
    broken(&[both.clone(), length(1), consumer(b"c", &[1], &[5])], "with no consumer");
    broken(&[both.clone(), length(1), consumer(b"c", &[1], &[5, 5])], "not pending in its group");
    broken(&[both.clone(), length(1), consumer(b"c", &[1], &[6])], "not pending in its group");
    let twice = [consumer(b"c", &[1], &[4]), consumer(b"c", &[1], &[5])].concat();
    broken(&[both, length(2), twice], "a consumer twice");
    let again = [length(0), length(0), string(b"g"), id(1, 1), length(0), length(0)].concat();
    let mut two = before(15);
    let at = two.len() - [string(b"g"), id(5, 0)].concat().len() - 1;
    assert_eq!(two[at], 1);
    two[at] = 2;
    refused(15, &[two, again].concat(), "a consumer group twice");
}

/// What RedisJSON writes: the id of its type, then parts with what they are in front.
#[test]
fn documents() {
    // Nine letters of six bits, ten bits of encoding.
    let id = |encoding: u8| vec![0x81, 0x45, 0xe2, 0x52, 0x38, 0xdf, 0x91, 0x2c, encoding];
    let text = br#"{"a":[1,2.0,null],"b":"x"}"#;
    let told = Plain::Json(String::from_utf8(text.to_vec()).unwrap());
    let new = [id(3), vec![5], string(text), vec![0]].concat();
    holds(9, 7, &new, &told);
    let old = [id(2), vec![5], string(text), vec![2, 0, 0]].concat();
    holds(9, 7, &old, &told);
    let index = [vec![2, 1, 5], string(b"i"), vec![5], string(b"p"), vec![0]].concat();
    holds(9, 7, &[id(2), vec![5], string(text), index].concat(), &told);

    refused(7, &[id(3), vec![5], string(b"{"), vec![0]].concat(), "no JSON");
    refused(7, &[id(3), vec![5], string(b"\xff"), vec![0]].concat(), "no JSON");
    refused(7, &[id(3), vec![2], string(text), vec![0]].concat(), "not made of the parts");
    refused(7, &[id(3), vec![5], string(text), vec![5]].concat(), "not made of the parts");
    let error = load(&file(12, 7, &[id(0), vec![5], string(text), vec![0]].concat()));
    let error = error.expect_err("an old encoding").to_string();
    assert!(
        error.ends_with("a JSON document in the encoding 0, which is not supported"),
        "{error}"
    );
}

/// Fields that a block says once are in memory once, whatever the configuration thinks of blocks.
#[test]
fn streams_stay_as_small_as_their_file() {
    const ENTRIES: usize = 2_000;
    let name = vec![b'n'; 100_000];
    let block = stream_block([1, 0], &[&name], &[&b""[..]; ENTRIES]);
    let id = [length(ENTRIES), length(0)].concat();
    let body = [length(1), block, length(ENTRIES), id, length(0)].concat();
    let file = file(9, 15, &body);
    let mut reader = Reader::new(&file[..], &Limits::default()).expect("a file");
    while let Some(item) = reader.item().expect("it is whole") {
        if let Item::Key(key) = item {
            let bytes = entry(key.value).memory_bytes();
            assert!(bytes < 4 * file.len(), "{bytes} bytes of {}", file.len());
            return;
        }
    }
    panic!("there is a key");
}

#[test]
fn checksums() {
    // The known check value of CRC-64 as Redis has it.
    assert_eq!(
        crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(b"123456789"),
        0xe9c6_d914_c4b8_d9ca
    );
    let mut good = file(9, 0, &string(b"value"));
    let end = good.len() - 8;
    let sum = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&good[..end]);
    good[end..].copy_from_slice(&sum.to_le_bytes());
    assert!(load(&good).is_ok());
    good[end - 3] ^= 1;
    assert!(matches!(load(&good), Err(Error::Checksum { .. })));
}

#[test]
fn claims_take_no_memory_and_broken_bytes_no_panic() {
    // Each claims far more than there is.
    for body in [&[0x81, 0x40, 0, 0, 0, 0, 0, 0, 0][..], &[0x80, 0xff, 0xff, 0xff, 0xff]] {
        for kind in [0, 1, 2, 3, 4, 5, 14, 18] {
            let error = load(&file(11, kind, body)).expect_err("this ends early");
            assert!(matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }), "{error}");
        }
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let entry = |word: &[u8]| text(word);
    let good = [
        file(6, 10, &string(&ziplist(&[entry(b"abc"), vec![0xf3], entry(b"d")]))),
        file(
            11,
            18,
            &[length(1), length(2), string(&listpack(&[word(b"abc"), word(b"d")]))].concat(),
        ),
        file(11, 17, &string(&listpack(&[word(b"abc"), word(b"1")]))),
        file(2, 9, &string(b"\x01\x01a\x03\x00one\xff")),
        file(6, 11, &string(&intset(4, &[1, 2, 3]))),
        file(6, 0, &[0xc3, 4, 9, 0, b'x', 0xc0, 0]),
        file(6, 4, &[length(1), string(b"f"), string(b"v")].concat()),
    ];
    for good in good {
        assert!(load(&good).is_ok());
        for cut in 0..good.len() {
            assert!(load(&good[..cut]).is_err(), "cut at {cut}");
        }
        for _ in 0..3000 {
            let mut bad = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(9..bad.len());
                bad[at] = random.u8(..);
            }
            // Whatever it is, it is an answer.
            let _ = load(&bad);
        }
    }
}

//! Files and payloads go back and forth between us and a real redis-server, with every type and
//! encoding. Skipped, with a note, where no redis-server is installed.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use data::Limits;
use engine::Type;
use persist::rdb::{self, Access, Item, Reader, Version, Writer};
use support::{Plain, build, entry, plain, value};
use testkit::client::Client;
use testkit::server::Server;
use testkit::value::Value;

fn redis(args: &[&str]) -> Option<Server> {
    let binary = Path::new("redis-server");
    if Command::new(binary).arg("--version").output().is_err() {
        println!("skipped: there is no redis-server");
        return None;
    }
    Some(Server::start(binary, args).expect("redis-server starts"))
}

fn call(client: &mut Client, args: &[&[u8]]) -> Value {
    let reply = client.call(args).unwrap_or_else(|error| panic!("{error}"));
    assert!(!reply.is_error(), "{} answered {}", args[0].escape_ascii(), reply.to_talk());
    reply
}

/// The commands that make a value.
fn fill(client: &mut Client, key: &[u8], value: &Plain) {
    let mut add = |name: &str, parts: Vec<Vec<u8>>| {
        for chunk in parts.chunks(200) {
            let mut args = vec![name.as_bytes(), key];
            args.extend(chunk.iter().map(Vec::as_slice));
            call(client, &args);
        }
    };
    match value {
        Plain::Text(bytes) => add("SET", vec![bytes.clone()]),
        Plain::List(elements) => add("RPUSH", elements.clone()),
        Plain::Set(members) => add("SADD", members.iter().cloned().collect()),
        Plain::Hash(fields) => {
            add("HSET", fields.iter().flat_map(|(f, v)| [f.clone(), v.clone()]).collect());
        }
        Plain::Stream(_) | Plain::Json(_) => unreachable!("these are not drawn"),
        Plain::Zset(scores) => {
            let part = |(member, score): (&Vec<u8>, &f64)| {
                [data::number::format_f64(*score).as_bytes().to_vec(), member.clone()]
            };
            add("ZADD", scores.iter().flat_map(part).collect());
        }
    }
}

fn values(seed: u64) -> BTreeMap<Vec<u8>, Plain> {
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all: BTreeMap<_, _> =
        (0..150).map(|n| (format!("key:{n}").into_bytes(), value(&mut random))).collect();
    all.insert(b"long".to_vec(), Plain::Text(b"0123456789".repeat(300_000)));
    all.insert(b"noise".to_vec(), Plain::Text((0..70_000).map(|_| random.u8(..)).collect()));
    all.insert(b"nodes".to_vec(), Plain::List(vec![vec![b'x'; 2_000_000], b"y".to_vec()]));
    all
}

fn digests(client: &mut Client, keys: &BTreeMap<Vec<u8>, Plain>) -> Vec<(Vec<u8>, String, String)> {
    let mut digest = |key: &Vec<u8>| {
        let digest = call(client, &[b"DEBUG", b"DIGEST-VALUE", key]).to_talk();
        let encoding = call(client, &[b"OBJECT", b"ENCODING", key]).to_talk();
        (key.clone(), digest, encoding)
    };
    keys.keys().map(&mut digest).collect()
}

#[test]
fn files_of_redis_are_read() {
    let Some(server) = redis(&["--maxmemory-policy", "allkeys-lfu"]) else { return };
    let mut client = server.connect().expect("it listens");
    let all = values(fastrand::u64(..));
    for (key, value) in &all {
        fill(&mut client, key, value);
    }
    call(&mut client, &[b"PEXPIREAT", b"long", b"4000000000123"]);
    call(
        &mut client,
        &[b"FUNCTION", b"LOAD", b"#!lua name=l\nredis.register_function('f', function() end)"],
    );
    call(&mut client, &[b"SELECT", b"9"]);
    call(&mut client, &[b"SET", b"elsewhere", b"1"]);
    call(&mut client, &[b"SAVE"]);
    let file = File::open(server.directory().join("dump.rdb")).expect("it was saved");
    let mut reader = Reader::new(file, &Limits::default()).expect("a header");
    let (mut db, mut seen, mut functions) = (0, BTreeMap::new(), 0);
    while let Some(item) = reader.item().unwrap_or_else(|error| panic!("{error}")) {
        match item {
            Item::Select(number) => db = number,
            Item::Key(key) if db == 9 => assert_eq!(key.key, b"elsewhere"),
            Item::Key(key) => {
                let expected = (key.key == b"long").then_some(4_000_000_000_123);
                assert_eq!(key.expire_at_ms, expected);
                assert!(key.frequency.is_some() && key.idle_seconds.is_none());
                seen.insert(key.key, plain(entry(key.value).get()));
            }
            Item::Function(_) => functions += 1,
            Item::Empty(key) => panic!("{} is empty", key.escape_ascii()),
            Item::Skipped(what) => panic!("{what}"),
            Item::Aux { .. } | Item::Resize { .. } => {}
        }
    }
    assert_eq!((seen.len(), functions), (all.len(), 1));
    assert!(seen == all);
}

/// A directory that is gone afterwards.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn redis_reads_our_files() {
    let Some(filled) = redis(&[]) else { return };
    let mut client = filled.connect().expect("it listens");
    let all = values(fastrand::u64(..));
    for (key, value) in &all {
        fill(&mut client, key, value);
    }
    // A digest tells that a key expires.
    call(&mut client, &[b"PEXPIREAT", b"long", b"4000000000123"]);
    let expected = digests(&mut client, &all);
    // The one of Debian reads version 10.
    for compress in [true, false] {
        let name = format!("luar-rdb-{}-{compress}", std::process::id());
        let directory = Directory(std::env::temp_dir().join(name));
        fs::create_dir_all(&directory.0).expect("there is room");
        let file = File::create(directory.0.join("dump.rdb")).expect("there is room");
        let mut writer = Writer::new(file, Version::V10, compress, true);
        let write = "there is room";
        writer.aux("redis-bits", b"64").expect(write);
        writer.select(0, all.len() as u64, 1).expect(write);
        for (key, value) in &all {
            let entry = entry(build(value, &Limits::default()));
            let when = (key == b"long").then_some(4_000_000_000_123);
            writer.key(key, entry.get(), when, Access::IdleSeconds(7)).expect(write);
        }
        writer.finish().expect(write);
        let path = directory.0.to_string_lossy().into_owned();
        let loaded =
            redis(&["--dir", &path, "--sanitize-dump-payload", "yes"]).expect("it is there");
        let mut client = loaded.connect().expect("it listens");
        let found = digests(&mut client, &all);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{}", found.0.escape_ascii());
        }
        let when = call(&mut client, &[b"PEXPIRETIME", b"long"]);
        assert_eq!(when.integer(), Some(4_000_000_000_123));
        assert_eq!(call(&mut client, &[b"DBSIZE"]).integer(), Some(all.len() as i64));
    }
}

#[test]
fn payloads_go_both_ways() {
    let Some(server) = redis(&["--sanitize-dump-payload", "yes"]) else { return };
    let mut client = server.connect().expect("it listens");
    for (key, value) in &values(fastrand::u64(..)) {
        fill(&mut client, key, value);
        let dumped = call(&mut client, &[b"DUMP", key]);
        let payload = dumped.bytes().expect("a payload");
        let restored = rdb::restore(payload, &Limits::default()).unwrap_or_else(|error| {
            panic!("{}: {error:?}", key.escape_ascii());
        });
        let restored = entry(restored);
        assert!(plain(restored.get()) == *value, "{}", key.escape_ascii());
        let ours = rdb::dump(restored.get(), Version::V10);
        call(&mut client, &[b"RESTORE", b"again", b"0", &ours, b"REPLACE"]);
        let digest = |client: &mut Client, key: &[u8]| {
            call(client, &[b"DEBUG", b"DIGEST-VALUE", key]).to_talk()
        };
        assert_eq!(
            digest(&mut client, b"again"),
            digest(&mut client, key),
            "{}",
            key.escape_ascii()
        );
        let encoding = |client: &mut Client, key: &[u8]| {
            call(client, &[b"OBJECT", b"ENCODING", key]).to_talk()
        };
        // Sets of Redis 7.0 have no listpacks, lists no other encoding than quicklist.
        if restored.value_type() != Type::Set {
            let key = key.as_slice();
            assert_eq!(encoding(&mut client, b"again"), encoding(&mut client, key));
        }
    }
}

/// The commands that make a stream with groups, of which some entries are gone.
fn fill_stream(client: &mut Client, key: &[u8], random: &mut fastrand::Rng) {
    let groups: [&[u8]; 3] = [b"group", b"", &[b'g'; 70]];
    let consumers: [&[u8]; 3] = [b"12", b"consumer", b"\xff\x00"];
    let count = random.usize(1..250);
    for group in groups.iter().take(random.usize(..4)) {
        call(client, &[b"XGROUP", b"CREATE", key, group, b"0", b"MKSTREAM"]);
    }
    let mut ms = random.u64(1..1 << 45);
    for _ in 0..count {
        ms += random.u64(..300);
        let id = format!("{ms}-*");
        let (one, two) = (support::text(random), support::text(random));
        let fields: [&[u8]; 4] = [b"field", &one, b"another", &two];
        let fields = if random.u8(..5) > 0 { &fields[..] } else { &fields[..2] };
        call(client, &[&[b"XADD", key, id.as_bytes()][..], fields].concat());
    }
    for _ in 0..random.usize(..12) {
        let group = groups[random.usize(..3)];
        let consumer = consumers[random.usize(..3)];
        let many = random.usize(1..60).to_string();
        let mut args: Vec<&[u8]> = vec![b"XREADGROUP", b"GROUP", group, consumer, b"COUNT"];
        args.extend([many.as_bytes(), b"STREAMS", key, b">"]);
        // There may be no such group.
        client.call(&args).expect("it answers");
    }
    let entries = call(client, &[b"XRANGE", key, b"-", b"+"]);
    for entry in entries.elements().expect("entries") {
        let id = entry.elements().expect("id and fields")[0].bytes().expect("an id");
        match random.u8(..12) {
            0..2 => drop(call(client, &[b"XDEL", key, id])),
            2 => drop(call(client, &[b"XACK", key, groups[0], id])),
            _ => {}
        }
    }
    if random.bool() {
        call(client, &[b"XTRIM", key, b"MAXLEN", random.usize(..count).to_string().as_bytes()]);
    }
}

#[test]
fn streams_go_both_ways() {
    let Some(server) = redis(&["--sanitize-dump-payload", "yes"]) else { return };
    let mut client = server.connect().expect("it listens");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let info = |client: &mut Client, key: &[u8]| {
        call(client, &[b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]).to_talk()
    };
    let mut all = BTreeMap::new();
    for number in 0..40 {
        let key = format!("stream:{number}").into_bytes();
        fill_stream(&mut client, &key, &mut random);
        let dumped = call(&mut client, &[b"DUMP", &key]);
        let payload = dumped.bytes().expect("a payload");
        let restored = rdb::restore(payload, &Limits::default()).unwrap_or_else(|error| {
            panic!("{}: {error:?}", key.escape_ascii());
        });
        let restored = entry(restored);
        let ours = rdb::dump(restored.get(), Version::V10);
        call(&mut client, &[b"RESTORE", b"again", b"0", &ours, b"REPLACE"]);
        let wanted = info(&mut client, &key);
        assert_eq!(info(&mut client, b"again"), wanted);
        // Of 7.2, which says more of consumers.
        let newer = rdb::dump(restored.get(), Version::V11);
        let newer = entry(rdb::restore(&newer, &Limits::default()).expect("our own"));
        assert_eq!(plain(newer.get()), plain(restored.get()));
        all.insert(key, (restored, wanted));
    }
    call(&mut client, &[b"DEL", b"again"]);
    call(&mut client, &[b"SAVE"]);
    let file = File::open(server.directory().join("dump.rdb")).expect("it was saved");
    let mut reader = Reader::new(file, &Limits::default()).expect("a header");
    let mut seen = 0;
    while let Some(item) = reader.item().unwrap_or_else(|error| panic!("{error}")) {
        if let Item::Key(key) = item {
            let (restored, _) = &all[&key.key];
            assert_eq!(plain(entry(key.value).get()), plain(restored.get()));
            seen += 1;
        }
    }
    assert_eq!(seen, all.len());

    let name = format!("luar-streams-{}", std::process::id());
    let directory = Directory(std::env::temp_dir().join(name));
    fs::create_dir_all(&directory.0).expect("there is room");
    let file = File::create(directory.0.join("dump.rdb")).expect("there is room");
    let mut writer = Writer::new(file, Version::V10, true, true);
    writer.select(0, all.len() as u64, 0).expect("there is room");
    for (key, (value, _)) in &all {
        writer.key(key, value.get(), None, Access::IdleSeconds(7)).expect("there is room");
    }
    writer.finish().expect("there is room");
    let path = directory.0.to_string_lossy().into_owned();
    let loaded = redis(&["--dir", &path, "--sanitize-dump-payload", "yes"]).expect("it is there");
    let mut client = loaded.connect().expect("it listens");
    for (key, (_, wanted)) in &all {
        assert_eq!(info(&mut client, key), *wanted, "{}", key.escape_ascii());
    }
}

//! The configuration compared with a running redis-server 7.0: names and defaults, accepted and
//! refused values, and the error texts.

use server::config::{Config, ConfigStore, DIRECTIVES, load};
use std::collections::BTreeMap;
use std::path::Path;
use testkit::client::Client;
use testkit::server::Server;
use testkit::value::Value;

fn oracle() -> (Server, Client) {
    let args = ["--enable-protected-configs", "yes"];
    let server = Server::start(Path::new("redis-server"), &args)
        .expect("redis-server, which this test compares with, must be installed");
    let client = server.connect().expect("it listens");
    (server, client)
}

fn oracle_get(client: &mut Client, pattern: &str) -> BTreeMap<String, String> {
    let Value::Array(items) = client.call(&["CONFIG", "GET", pattern]).unwrap() else {
        panic!("CONFIG GET answers an array");
    };
    let text = |value: &Value| match value {
        Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("not a bulk string: {other:?}"),
    };
    let (pairs, []) = items.as_chunks::<2>() else { panic!("names and values alternate") };
    pairs.iter().map(|[name, value]| (text(name), text(value))).collect()
}

fn store() -> ConfigStore {
    let args = ["--enable-protected-configs", "yes", "--enable-debug-command", "yes"];
    let args = args.map(Into::into);
    ConfigStore::new(load(&args, &mut std::io::empty()).unwrap().config, None)
}

/// The only pattern asked for here is that for all names.
fn matches(pattern: &[u8], _name: &[u8]) -> bool {
    pattern == b"*"
}

fn our_get(store: &ConfigStore, pattern: &str) -> BTreeMap<String, String> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let found = store.get(&[pattern.as_bytes()], matches);
    found.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// Set by the test's own command line.
const SET_BY_THE_TEST: &[&str] =
    &["bind", "port", "dir", "save", "enable-debug-command", "enable-protected-configs"];

/// What Luar has and Redis 7.0 has not, and why.
const OURS: &[(&str, &str)] = &[
    ("workers", "ours"),
    ("lua-memory-limit", "ours"),
    ("script-jit", "ours"),
    ("script-atomicity", "ours"),
    ("script-undo-limit", "ours"),
    ("script-deadline", "ours"),
    ("script-cache-entries", "ours"),
    ("rdb-version", "ours"),
    ("set-max-listpack-entries", "Redis 7.2"),
    ("set-max-listpack-value", "Redis 7.2"),
    ("locale-collate", "Redis 7.2"),
    ("cluster-announce-human-nodename", "Redis 7.2"),
];

#[test]
fn names_and_defaults() {
    let (_server, mut client) = oracle();
    let mut theirs = oracle_get(&mut client, "*");
    let mut ours = our_get(&ConfigStore::new(Config::default(), None), "*");
    for name in SET_BY_THE_TEST {
        assert!(ours.remove(*name).is_some(), "{name}");
        assert!(theirs.remove(*name).is_some(), "{name}");
    }
    for (name, why) in OURS {
        assert!(ours.remove(*name).is_some(), "{name} ({why})");
    }
    assert_eq!(ours, theirs);
}

/// Sets the same on both sides: the replies must be the same, and the values after it.
fn compare(client: &mut Client, store: &ConfigStore, args: &[&str]) -> Result<(), String> {
    let theirs = match client.call(&[&["CONFIG", "SET"], args].concat()).unwrap() {
        Value::Status(text) | Value::Error(text) => text,
        other => panic!("not a reply of CONFIG SET: {other:?}"),
    };
    let bytes: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
    let ours = match store.set(&bytes, true, |_, _| Ok(())) {
        Ok(()) => b"OK".to_vec(),
        Err(error) => error.reply(),
    };
    let [ours, theirs] = [ours, theirs].map(|text| String::from_utf8_lossy(&text).into_owned());
    if ours != theirs {
        return Err(format!("CONFIG SET {args:?}:\n  ours   {ours}\n  theirs {theirs}"));
    }
    for name in args.iter().step_by(2).filter(|name| !SET_BY_THE_TEST.contains(name)) {
        let (ours, theirs) = (our_get(store, name), oracle_get(client, name));
        if ours != theirs {
            return Err(format!("CONFIG SET {args:?}:\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    Ok(())
}

/// Values that are tried on every directive which can be set at run time.
const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "-3",
    "7",
    "00",
    "+1",
    "1.5",
    "100",
    "101",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999",
    "1kb",
    "1KB",
    "3mb",
    "1gb",
    "1x",
    "kb",
    "5%",
    "101%",
    "%",
    "-5%",
    "yes",
    "NO",
    "maybe",
    "a b",
    "a/b",
    "0 1",
    "900 1 300 10",
    "50 99.9",
    "nosave force",
    "save nosave",
    "KEA",
    "gxe$",
    "nmE$",
    "Z",
    "normal 1 2",
    "normal 1k 2kb 3",
    "slave 0 0 0 pubsub 1 1 1",
    "master 0 0 0",
    "pubsub x 0 0",
    "1 2 3",
    "1 2 3000",
    "{title}",
    "{nope}",
    "{title",
    "title}",
    "allkeys-LRU",
    "everysec",
];

/// Not tried, and why.
const UNTRIED: &[(&str, &str)] = &[
    ("bind", "the oracle would be out of reach"),
    ("port", "the oracle would be out of reach"),
    ("tls-port", "certificates would have to be there"),
    ("appendonly", "not built"),
    ("activedefrag", "not built"),
    ("requirepass", "the oracle would ask for it"),
    ("dir", "other tests may use the directory"),
    ("maxclients", "the oracle's limit of open files is another"),
    ("maxmemory-clients", "the oracle might close the test's connection"),
    ("maxmemory", "the oracle might refuse what follows"),
    ("min-replicas-to-write", "not built"),
    ("tls-cluster", "not built"),
    ("tls-replication", "not built"),
    ("latency-tracking-info-percentiles", "the oracle prints rounded percentiles, tried below"),
    ("cluster-announce-hostname", "host names are checked when clusters are built"),
    ("oom-score-adj", "depends on the kernel's permission"),
    ("oom-score-adj-values", "depends on the kernel's permission"),
    ("jemalloc-bg-thread", "depends on the oracle's allocator"),
    ("replica-announce-ip", "nothing to find"),
];

#[test]
fn every_value_on_every_directive() {
    let (_server, mut client) = oracle();
    let store = store();
    let mut differences = Vec::new();
    for directive in DIRECTIVES {
        let ours = OURS.iter().any(|(name, _)| *name == directive.name);
        let untried = UNTRIED.iter().any(|(name, _)| *name == directive.name)
            // Files that do not exist; nothing to do with how values are read.
            || directive.name.starts_with("tls-");
        if ours || untried || directive.traits.concealed {
            continue;
        }
        for value in VALUES {
            if let Err(difference) = compare(&mut client, &store, &[directive.name, value]) {
                differences.push(difference);
            }
        }
        let default = String::from_utf8(directive.text(&Config::default())).unwrap();
        let _ = client.call(&["CONFIG", "SET", directive.name, &default]);
        let _ = store.set(&[directive.name.as_bytes(), default.as_bytes()], true, |_, _| Ok(()));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn several_at_once() {
    let (_server, mut client) = oracle();
    let store = store();
    for args in [
        &["maxclients", "5", "port"][..],
        &["nope", "1"],
        &["maxclients", "5", "NOPE", "1"],
        &["nope", "1", "databases", "5"],
        &["databases", "5", "nope", "1"],
        &["hz", "x", "nope", "1"],
        &["hz", "20", "HZ", "30"],
        &["hz", "20", "lua-time-limit", "30"],
        &["hz", "40", "lua-time-limit", "x"],
        &["LUA-time-limit", "x"],
        &["Databases", "5"],
        &["lua-time-limit", "3", "lua-TIME-limit", "4"],
        &["latency-tracking-info-percentiles", "50 101"],
        &["latency-tracking-info-percentiles", "a"],
        &["latency-tracking-info-percentiles", "50 99.999"],
        &["latency-tracking-info-percentiles", ""],
        &["maxmemory", "1gb", "maxmemory-policy", "allkeys-lru"],
        &["maxmemory", "0"],
        &["maxmemory-clients", "200%"],
        &["maxmemory-clients", "x"],
        &["oom-score-adj", "x"],
        &["oom-score-adj-values", "1 2"],
        &["oom-score-adj-values", "1 2 x"],
        &["oom-score-adj-values", "1 2 2001"],
        &["dir", "/does/not/exist"],
    ] {
        if let Err(difference) = compare(&mut client, &store, args) {
            panic!("{difference}");
        }
    }
}

//! Other servers start from our files and we from theirs, with every type and encoding there is and with
//! libraries of functions: snapshots and append-only files, of the redis-server that is installed and of those that `LUAR_PEERS` names
//! (paths, with colons between them), Redis 7.2 and Valkey before all.
//!
//! `LUAR_PEER_MODULE`, the path of a module that writes of itself into snapshots (`testrdb` of Redis), has
//! the first of them load it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testkit::client::Client;
use testkit::poll;
use testkit::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

/// Another server.
struct Peer {
    binary: PathBuf,
    name: String,
    /// Redis 7.0 or before: small sets and lists have other encodings, and RDB version 11 is too new.
    is_old: bool,
}

/// All there are. Says aloud which are missing, whether or not the test's output is shown.
fn peers() -> Vec<Peer> {
    let named = std::env::var("LUAR_PEERS").unwrap_or_default();
    if named.is_empty() {
        let note = "SKIPPED: files of Redis 7.2 and Valkey: LUAR_PEERS names no server\n";
        std::io::stderr().write_all(note.as_bytes()).expect("standard error is open");
    }
    let named = named.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut peers = Vec::new();
    for binary in named.chain([PathBuf::from("redis-server")]) {
        let is_installed = binary.components().count() == 1;
        match Command::new(&binary).arg("--version").output() {
            Ok(output) => {
                let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                let is_old = name.contains(" v=7.0.");
                peers.push(Peer { binary, name, is_old });
            }
            Err(_) if is_installed => {
                let note = "SKIPPED: files of the redis-server that is installed: there is none\n";
                std::io::stderr().write_all(note.as_bytes()).expect("standard error is open");
            }
            Err(error) => panic!("{}: {error}", binary.display()),
        }
    }
    peers
}

/// A folder, with a server's files, removed at the end.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn start(&self, binary: &Path, args: &[&str]) -> Server {
        let dir = self.0.path().to_str().expect("a plain path");
        let args = [&["--dir", dir], args].concat();
        Server::start(binary, &args).unwrap_or_else(|error| panic!("{}: {error}", binary.display()))
    }

    fn luar(&self, args: &[&str]) -> Server {
        self.start(Path::new(env!("CARGO_BIN_EXE_luar")), args)
    }
}

fn ask(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).unwrap_or_else(|error| panic!("{line}: {error}")).to_talk()
}

/// The same of a line that must succeed.
fn tell(client: &mut Client, line: &str) -> String {
    let reply = ask(client, line);
    assert!(!reply.starts_with('-'), "{line}: {reply}");
    reply
}

fn connect(server: &Server) -> Client {
    server.connect().expect("a connection")
}

/// Ends a server whose files are complete.
fn end(mut server: Server, how: &str) {
    let mut client = connect(&server);
    client.send(&["SHUTDOWN", how]).expect("it is sent");
    assert!(poll(PATIENCE, || server.ended()).is_some(), "{}", server.log());
}

/// When a key of `fill` expires.
const EXPIRES_MS: &str = "4000000000123";

/// A command with so many arguments, of which each is made of its number.
fn many(command: &str, count: usize, one: impl Fn(usize) -> String) -> String {
    let items: Vec<String> = (0..count).map(one).collect();
    format!("{command} {}", items.join(" "))
}

/// Commands for a value of every type and encoding.
fn values() -> Vec<String> {
    let mut lines: Vec<String> = [
        "SET string:int 12345",
        "SET string:negative -129",
        "SET string:int32 -2147483648",
        "SET string:int64 9223372036854775807",
        "SET string:almost 9223372036854775808",
        "SET string:short hello",
        "SET string:empty ",
        "RPUSH list:small a 1 b -70000 5000000000 xyz",
        "SADD set:int16 1 2 -3",
        "SADD set:int32 70000 2 -3",
        "SADD set:int64 5000000000 2 -3",
        "SADD set:small a b 17 -40000",
        "HSET hash:small f v 1 2 long-field 99999999",
        "ZADD zset:small 1 a -inf b inf c 0.5 d 17 17 -2.25 e",
        "XADD stream:small 1-1 f v",
        "XADD stream:small 1-2 f w",
        "XADD stream:small 5-0 other 1 fields 2",
        "XADD stream:empty 7-7 f v",
        "XTRIM stream:empty MAXLEN 0",
        "XADD stream:marked 1-1 f v",
        "XSETID stream:marked 9-9",
    ]
    .map(str::to_owned)
    .into();
    lines.extend([
        format!("SET string:raw {}", "x".repeat(45)),
        format!("SET string:compressed {}", "abcdefgh".repeat(5000)),
        many("RPUSH list:many", 3000, |n| format!("element:{n}")),
        // An element that has a node to itself.
        format!("RPUSH list:plain small {} small", "y".repeat(20_000)),
        many("SADD set:manyints", 700, |n| (n * 3).to_string()),
        many("SADD set:many", 700, |n| format!("member:{n}")),
        format!("SADD set:longmember {} b", "m".repeat(100)),
        many("HSET hash:many", 700, |n| format!("field:{n} {n}")),
        format!("HSET hash:longvalue f {}", "v".repeat(100)),
        many("ZADD zset:many", 700, |n| format!("{}.25 member:{n}", n * 7 % 100)),
        format!("ZADD zset:longmember 1 {}", "m".repeat(100)),
    ]);
    lines.extend((1..500).map(|n| format!("XADD stream:many {n}-0 n {n} same fields")));
    lines.extend((100..180).map(|n| format!("XDEL stream:many {n}-0")));
    // Groups with entries that were read and not acknowledged, some by nobody who is there.
    lines.extend((1..300).map(|n| format!("XADD stream:groups {n}-0 n {n}")));
    let groups = [
        "XGROUP CREATE stream:groups first 0",
        "XGROUP CREATE stream:groups last $",
        "XGROUP CREATE stream:groups counted 100-0 ENTRIESREAD 100",
        "XGROUP CREATE stream:none-yet group 0 MKSTREAM",
        "XREADGROUP GROUP first one COUNT 150 STREAMS stream:groups >",
        "XREADGROUP GROUP first other COUNT 20 STREAMS stream:groups >",
        "XREADGROUP GROUP counted one COUNT 5 NOACK STREAMS stream:groups >",
        "XGROUP CREATECONSUMER stream:groups last idle",
        "XACK stream:groups first 1-0 2-0 160-0",
        "XCLAIM stream:groups first third 0 5-0 6-0 TIME 1700000000000 RETRYCOUNT 7",
        "XDEL stream:groups 7-0 155-0",
    ];
    lines.extend(groups.map(str::to_owned));
    lines
}

/// Digests of Redis 7.0 have other digits of these scores than later ones.
const FRACTIONS: &str = "ZADD zset:fractions 0.1 a 1e300 b 1e-7 c 123456789012345678 d 5e-324 e";

/// Libraries, each with functions of its name and two numbers.
const LIBRARIES: [&str; 3] = ["plain", "second", "flagged"];

fn library(name: &str, answer: &str) -> String {
    let flags = if name == "flagged" { "flags={'no-writes','allow-stale'}," } else { "" };
    format!(
        "#!lua name={name}\n-- {name} \u{e4}\u{3bb}\n\
         redis.register_function('{name}_one', function(keys, args) return '{answer}' end)\n\
         redis.register_function{{function_name='{name}_two', description='of {name}', {flags}\
         callback=function(keys, args) return redis.call('GET', keys[1]) end}}"
    )
}

fn load_library(client: &mut Client, name: &str, answer: &str) {
    let reply = client.call(&["FUNCTION", "LOAD", "REPLACE", &library(name, answer)]);
    assert_eq!(reply.expect("a reply").to_talk(), format!("\"{name}\""));
}

/// What is seen of all libraries: their code, their functions and what these answer.
fn functions_seen(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    let reply = client.call(&["FUNCTION", "LIST", "WITHCODE"]).expect("a reply");
    seen.push(reply.elements().expect("libraries").len().to_string());
    for name in LIBRARIES {
        let args = ["FUNCTION", "LIST", "LIBRARYNAME", name, "WITHCODE"];
        let reply = client.call(&args).expect("a reply").to_talk();
        // Which function comes first is left to the server.
        let mut words: Vec<&str> = reply.split_whitespace().collect();
        words.sort_unstable();
        seen.push(words.join(" "));
        seen.push(ask(client, &format!("FCALL {name}_one 0")));
        seen.push(ask(client, &format!("FCALL_RO {name}_two 1 string:short")));
    }
    seen
}

fn fill(client: &mut Client, peer: &Peer) {
    for name in LIBRARIES {
        load_library(client, name, "first");
    }
    for line in values() {
        tell(client, &line);
    }
    for key in ["string:short", "list:many", "set:small", "hash:many", "zset:small", "stream:small"]
    {
        tell(client, &format!("PEXPIREAT {key} {EXPIRES_MS}"));
    }
    tell(client, "SELECT 9");
    tell(client, "SET elsewhere 1");
    tell(client, "SELECT 0");
    if !peer.is_old {
        tell(client, FRACTIONS);
    }
    // Bytes that are no text.
    let bytes: Vec<u8> = (0..=255).collect();
    let reply = client.call(&[&b"SET"[..], b"string:binary\xff\x00", &bytes]);
    assert!(!reply.expect("a reply").is_error());
}

/// What is seen of all keys: their names, what they hold, when they expire, and how they are kept if
/// servers agree on that.
fn seen(client: &mut Client, with_encodings: bool) -> Vec<String> {
    let mut seen = vec![ask(client, "DEBUG DIGEST")];
    let keys = client.call(&["KEYS", "*"]).expect("a reply");
    let mut keys: Vec<Vec<u8>> = match keys {
        testkit::value::Value::Array(keys) => {
            keys.iter().map(|key| key.bytes().expect("a key").to_vec()).collect()
        }
        other => panic!("{}", other.to_talk()),
    };
    keys.sort();
    for key in keys {
        let mut of = |args: &[&[u8]]| {
            let args: Vec<&[u8]> = args.iter().copied().chain([&*key]).collect();
            client.call(&args).expect("a reply").to_talk()
        };
        let mut line = vec![
            key.escape_ascii().to_string(),
            of(&[b"TYPE"]),
            of(&[b"DEBUG", b"DIGEST-VALUE"]),
            of(&[b"PEXPIRETIME"]),
        ];
        if key.starts_with(b"stream:") {
            line.push(of(&[b"XINFO", b"GROUPS"]));
        }
        if with_encodings {
            line.push(of(&[b"OBJECT", b"ENCODING"]));
        }
        seen.push(line.join(" "));
    }
    for (group, consumer) in
        [("first", "one"), ("first", "other"), ("first", "third"), ("last", "idle")]
    {
        seen.push(ask(client, &format!("XPENDING stream:groups {group}")));
        // How often each was delivered, without for how long it has been pending.
        let range = format!("XPENDING stream:groups {group} - + 1000 {consumer}");
        let args: Vec<&str> = range.split(' ').collect();
        let pending = client.call(&args).expect("a reply");
        let testkit::value::Value::Array(entries) = pending else {
            panic!("{}", pending.to_talk())
        };
        let of = |entry: &testkit::value::Value| match entry {
            testkit::value::Value::Array(fields) => {
                format!("{} {}", fields[0].to_talk(), fields[3].to_talk())
            }
            other => other.to_talk(),
        };
        seen.push(entries.iter().map(of).collect::<Vec<_>>().join(", "));
    }
    seen.extend(functions_seen(client));
    seen
}

fn assert_same(found: &[String], expected: &[String], what: &str) {
    let differs = |(found, expected): &(&String, &String)| found != expected;
    if let Some((found, expected)) = found.iter().skip(1).zip(&expected[1..]).find(differs) {
        panic!("{what}: {found} where there was {expected}");
    }
    assert_eq!(found, expected, "{what}");
}

/// Limits of the compact encodings.
fn limits(peer: &Peer, are_tiny: bool) -> Vec<&'static str> {
    let mut args = Vec::new();
    if are_tiny {
        args.extend(["--list-max-listpack-size", "3", "--hash-max-listpack-entries", "2"]);
        args.extend(["--zset-max-listpack-entries", "2", "--set-max-intset-entries", "2"]);
        args.extend(["--stream-node-max-entries", "4"]);
        if !peer.is_old {
            args.extend(["--set-max-listpack-entries", "2"]);
        }
    }
    args
}

#[test]
fn snapshots_go_both_ways() {
    for peer in peers() {
        for are_tiny in [false, true] {
            let what = format!("{}, tiny: {are_tiny}", peer.name);
            let (folder, own) = (Folder::new(), Folder::new());
            let args = limits(&peer, are_tiny);
            let theirs = folder.start(&peer.binary, &args);
            let mut client = connect(&theirs);
            fill(&mut client, &peer);
            let before = seen(&mut client, !peer.is_old);
            end(theirs, "SAVE");
            fs::copy(folder.0.path().join("dump.rdb"), own.0.path().join("dump.rdb"))
                .expect("a file");
            for version in if peer.is_old { &["10"][..] } else { &["10", "11"] } {
                let args = [&args[..], &["--rdb-version", version]].concat();
                let ours = own.luar(&args);
                let mut client = connect(&ours);
                assert_same(&seen(&mut client, !peer.is_old), &before, &format!("{what}, to us"));
                // A snapshot is written otherwise than what SHUTDOWN writes.
                tell(&mut client, "BGSAVE");
                let saved = poll(PATIENCE, || {
                    let info = client.call(&["INFO", "persistence"]).expect("a reply");
                    info.text()?.contains("rdb_saves:1\r").then_some(())
                });
                assert!(saved.is_some(), "{}", ours.log());
                end(ours, "NOSAVE");
                let bytes = fs::read(own.0.path().join("dump.rdb")).expect("it was saved");
                assert!(bytes.starts_with(format!("REDIS00{version}").as_bytes()));
                let back = Folder::new();
                fs::copy(own.0.path().join("dump.rdb"), back.0.path().join("dump.rdb"))
                    .expect("a file");
                let mut peer_args = limits(&peer, are_tiny);
                peer_args.extend(["--sanitize-dump-payload", "yes"]);
                let theirs = back.start(&peer.binary, &peer_args);
                let found = seen(&mut connect(&theirs), !peer.is_old);
                assert_same(&found, &before, &format!("{what}, version {version}, from us"));
            }
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).expect("a file"),
        }
    }
}

fn wait_for_rewrite(client: &mut Client) {
    let is_over = poll(PATIENCE, || {
        let info = client.call(&["INFO", "persistence"]).expect("a reply");
        let text = info.text()?;
        let is_over = text.contains("aof_rewrite_in_progress:0\r")
            && text.contains("aof_rewrite_scheduled:0\r");
        is_over.then_some(())
    });
    assert!(is_over.is_some(), "it takes too long");
}

#[test]
fn append_only_files_go_both_ways() {
    for peer in peers() {
        for preamble in ["yes", "no"] {
            let what = format!("{}, preamble {preamble}", peer.name);
            let args = ["--appendonly", "yes", "--aof-use-rdb-preamble", preamble];
            let folder = Folder::new();
            let theirs = folder.start(&peer.binary, &args);
            let mut client = connect(&theirs);
            fill(&mut client, &peer);
            tell(&mut client, "BGREWRITEAOF");
            wait_for_rewrite(&mut client);
            // Behind the base.
            for line in [
                "SPOP set:many 10",
                "MULTI",
                "INCRBYFLOAT float 10.25",
                "GETEX string:empty EX 100000000",
                "EXEC",
                "XADD stream:many * n later",
                "XREADGROUP GROUP first one COUNT 3 STREAMS stream:groups >",
                "XAUTOCLAIM stream:groups first third 0 20-0 COUNT 2",
                "EVAL redis.call('SET','by','script') 0",
                "COPY list:many list:copy",
                "RESTORE again 0 x REPLACE",
            ] {
                let reply = ask(&mut client, line);
                assert!(!reply.starts_with('-') || line.starts_with("RESTORE"), "{line}: {reply}");
            }
            load_library(&mut client, "plain", "loaded again");
            end(theirs, "NOSAVE");
            // As it loads them itself: how many entries a group has read is not in its files.
            let theirs = folder.start(&peer.binary, &args);
            let mut before = seen(&mut connect(&theirs), !peer.is_old);
            end(theirs, "NOSAVE");
            let own = Folder::new();
            copy_folder(folder.0.path(), own.0.path());
            let ours = own.luar(&args);
            let mut client = connect(&ours);
            assert_same(&seen(&mut client, !peer.is_old), &before, &format!("{what}, to us"));
            for line in
                ["SPOP set:many 10", "LMOVE list:many list:copy LEFT RIGHT", "PERSIST set:small"]
            {
                tell(&mut client, line);
            }
            tell(&mut client, "FUNCTION DELETE second");
            tell(&mut client, "CONFIG SET rdb-version 10");
            tell(&mut client, "BGREWRITEAOF");
            wait_for_rewrite(&mut client);
            for line in [
                "SPOP set:many 10",
                "ZINCRBY zset:small 2.5 a",
                "XADD stream:small * f later",
                "XREADGROUP GROUP first one COUNT 3 STREAMS stream:groups >",
                "XACK stream:groups first 11-0",
            ] {
                tell(&mut client, line);
            }
            load_library(&mut client, "second", "is back");
            load_library(&mut client, "flagged", "again");
            before = seen(&mut client, !peer.is_old);
            end(ours, "NOSAVE");
            let back = Folder::new();
            copy_folder(own.0.path(), back.0.path());
            let theirs = back.start(&peer.binary, &args);
            let found = seen(&mut connect(&theirs), !peer.is_old);
            assert_same(&found, &before, &format!("{what}, from us"));
        }
    }
}

#[test]
fn use_of_keys_goes_both_ways() {
    for peer in peers() {
        // Counters are those of the file while nothing decays, and each use counts.
        let lfu = ["--maxmemory-policy", "allkeys-lfu", "--lfu-decay-time", "0"];
        let lfu = [&lfu[..], &["--lfu-log-factor", "0", "--rdb-version", "10"]].concat();
        let lru = ["--maxmemory-policy", "allkeys-lru", "--rdb-version", "10"];
        for (is_lfu, ours) in [(true, &lfu[..]), (false, &lru)] {
            let theirs = &ours[..ours.len() - 2];
            let what = format!("{}, {}", peer.name, ours[1]);
            let folder = Folder::new();
            let server = folder.start(&peer.binary, theirs);
            let mut client = connect(&server);
            tell(&mut client, "SET often v");
            tell(&mut client, "SET seldom v");
            for _ in 0..20 {
                tell(&mut client, "GET often");
            }
            let payload = client.call(&["DUMP", "often"]).expect("a reply");
            let payload = payload.bytes().expect("a payload");
            let (option, value) = if is_lfu { ("FREQ", "77") } else { ("IDLETIME", "5000") };
            let args: [&[u8]; 6] =
                [b"RESTORE", b"restored", b"0", payload, option.as_bytes(), value.as_bytes()];
            assert!(!client.call(&args).expect("a reply").is_error());
            let use_of = |client: &mut Client| -> Vec<i64> {
                let subcommand = if is_lfu { "FREQ" } else { "IDLETIME" };
                let mut of = |key: &str| {
                    let reply = client.call(&["OBJECT", subcommand, key]).expect("a reply");
                    reply.integer().unwrap_or_else(|| panic!("{}", reply.to_talk()))
                };
                ["often", "seldom", "restored"].map(&mut of).into()
            };
            let before = use_of(&mut client);
            assert!(before[2] >= if is_lfu { 77 } else { 5000 });
            end(server, "SAVE");
            let mut binary = Path::new(env!("CARGO_BIN_EXE_luar"));
            let mut args = ours;
            for way in ["to us", "from us"] {
                let server = folder.start(binary, args);
                let found = use_of(&mut connect(&server));
                for (found, before) in found.iter().zip(&before) {
                    // Time goes by between two looks.
                    let most = before + if is_lfu { 0 } else { 60 };
                    assert!(
                        (*before..=most).contains(found),
                        "{what}, {way}: {found}, not {before}"
                    );
                }
                end(server, "SAVE");
                (binary, args) = (&peer.binary, theirs);
            }
        }
    }
}

#[test]
fn what_modules_wrote_is_passed_over() {
    let Ok(module) = std::env::var("LUAR_PEER_MODULE") else {
        let note = "SKIPPED: what modules write into snapshots: LUAR_PEER_MODULE names none\n";
        std::io::stderr().write_all(note.as_bytes()).expect("standard error is open");
        return;
    };
    let peer = &peers()[0];
    let folder = Folder::new();
    let load = ["--loadmodule", &module, "2"];
    let theirs = folder.start(&peer.binary, &load);
    let mut client = connect(&theirs);
    tell(&mut client, "testrdb.set.before of-it");
    tell(&mut client, "SET k v");
    end(theirs, "SAVE");
    let ours = folder.luar(&[]);
    assert_eq!(ask(&mut connect(&ours), "GET k"), "\"v\"");
    assert!(ours.log().contains("module type 'test__rdb'"), "{}", ours.log());
    drop(ours);
    // A key of its type cannot be passed over.
    let theirs = folder.start(&peer.binary, &load);
    tell(&mut connect(&theirs), "testrdb.set.key strange v");
    end(theirs, "SAVE");
    let dir = folder.0.path().to_str().expect("a plain path");
    let Err(error) = Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), &["--dir", dir]) else {
        panic!("it starts");
    };
    assert!(error.to_string().contains("'strange'"), "{error}");
}

#[test]
fn room_in_the_file_of_a_killed_server_disturbs_nobody() {
    const KEYS: usize = 3000;
    // Redis 7.0 is to read it too.
    let always = ["--appendonly", "yes", "--appendfsync", "always", "--rdb-version", "10"];
    let folder = Folder::new();
    let mut ours = folder.luar(&always);
    let mut client = connect(&ours);
    // More than what is written before there is room.
    for first in (0..KEYS).step_by(20) {
        let set = |n: usize| ["SET".to_owned(), format!("k:{n}"), "x".repeat(900 + n % 100)];
        let batch: Vec<Vec<String>> = (first..first + 20).map(|n| set(n).to_vec()).collect();
        let replies = client.pipeline(&batch).expect("replies");
        assert!(replies.iter().all(|reply| reply.to_talk() == "+OK"));
    }
    let digest = ask(&mut client, "DEBUG DIGEST");
    ours.crash().expect("it is killed");
    let file = folder.0.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    let has = |text: &[u8]| {
        let bytes = fs::read(&file).expect("it is there");
        bytes.windows(text.len()).any(|window| window == text)
    };
    assert!(has(b"#SUM:") && has(b"#ROOM"));
    for peer in peers() {
        let copy = Folder::new();
        copy_folder(folder.0.path(), copy.0.path());
        let theirs = copy.start(&peer.binary, &["--appendonly", "yes"]);
        let mut client = connect(&theirs);
        assert_eq!(ask(&mut client, "DBSIZE"), format!(":{KEYS}"), "{}", peer.name);
        assert_eq!(ask(&mut client, "DEBUG DIGEST"), digest, "{}", peer.name);
    }
    let ours = folder.luar(&["--appendonly", "yes"]);
    let mut client = connect(&ours);
    assert_eq!(ask(&mut client, "DEBUG DIGEST"), digest);
    assert!(!ours.log().contains("are lost"), "{}", ours.log());
    assert!(has(b"#SUM:") && !has(b"#ROOM"), "it is given back");
    end(ours, "NOSAVE");
}

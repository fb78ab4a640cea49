//! RDB files of a running server: what was saved is there again, with us and with a real
//! redis-server; a snapshot under load is of one moment; what happens when a file cannot be
//! written or read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use testkit::client::Client;
use testkit::info::{info, wait_for};
use testkit::poll;
use testkit::port::free_port;
use testkit::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

fn luar(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), args).expect("the server starts")
}

fn redis(args: &[&str]) -> Option<Server> {
    if Command::new("redis-server").arg("--version").output().is_err() {
        println!("skipped: there is no redis-server");
        return None;
    }
    Some(Server::start(Path::new("redis-server"), args).expect("redis-server starts"))
}

fn call(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).expect("a reply").to_talk()
}

fn connect(server: &Server) -> Client {
    server.connect().expect("a connection")
}

/// A folder of this test, removed at its end.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--dir", self.0.path().to_str().expect("a plain path")], more].concat()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dump(&self) -> PathBuf {
        self.file("dump.rdb")
    }
}

/// Has one key of every type and encoding, in two databases.
fn fill(client: &mut Client) {
    let many = |command: &str, pair: &dyn Fn(usize) -> String| {
        let items: Vec<String> = (0..700).map(pair).collect();
        format!("{command} {}", items.join(" "))
    };
    for line in [
        "SET text hello".to_owned(),
        "SET number 12345".to_owned(),
        format!("SET long {}", "abc".repeat(1000)),
        "SET lasting v EX 10000".to_owned(),
        "SET brief v PX 1".to_owned(),
        "RPUSH list a 1 b 2".to_owned(),
        many("RPUSH biglist", &|n| format!("element:{n}")),
        "SADD integers 1 2 3".to_owned(),
        "SADD set a b c".to_owned(),
        many("SADD bigset", &|n| format!("member:{n}")),
        "HSET hash f v g 1".to_owned(),
        many("HSET bighash", &|n| format!("field:{n} {n}")),
        "ZADD zset 1.5 a -inf b 3 c".to_owned(),
        many("ZADD bigzset", &|n| format!("{n} member:{n}")),
        "SELECT 3".to_owned(),
        "SET elsewhere 1".to_owned(),
        "SELECT 0".to_owned(),
    ] {
        let reply = call(client, &line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
}

/// What is seen of the keys that `fill` has made.
fn seen(client: &mut Client) -> Vec<String> {
    let lines = [
        "DBSIZE",
        "GET text",
        "GET number",
        "GET long",
        "PEXPIRETIME lasting",
        "LRANGE list 0 -1",
        "LRANGE biglist 0 -1",
        "SCARD integers",
        "SMISMEMBER integers 1 2 3 4",
        "SMISMEMBER set a b c d",
        "SCARD bigset",
        "SMISMEMBER bigset member:0 member:350 member:699 member:700",
        "HMGET hash f g",
        "HLEN bighash",
        "HMGET bighash field:0 field:350 field:699",
        "ZRANGE zset 0 -1 WITHSCORES",
        "ZRANGE bigzset 0 -1 WITHSCORES",
        "SELECT 3",
        "GET elsewhere",
        "SELECT 0",
    ];
    lines.iter().map(|line| format!("{line}: {}", call(client, line))).collect()
}

/// The brief key must be gone before anything is compared.
fn without_expired(client: &mut Client) -> Vec<String> {
    let gone = poll(PATIENCE, || (call(client, "DBSIZE") == ":13").then_some(()));
    assert!(gone.is_some(), "{}", call(client, "DBSIZE"));
    seen(client)
}

fn end(mut server: Server, line: &str) {
    let mut client = connect(&server);
    let args: Vec<&str> = line.split(' ').collect();
    client.send(&args).expect("it is sent");
    let ended = poll(PATIENCE, || server.ended());
    assert!(ended.expect("it ends").success(), "{}", server.log());
}

#[test]
fn what_was_saved_is_there_again() {
    for how in ["SAVE", "BGSAVE", "SHUTDOWN", "signal"] {
        let folder = Folder::new();
        let points = if how == "SHUTDOWN" || how == "signal" { "3600 1" } else { "" };
        let args = folder.args(&["--save", points]);
        let mut server = luar(&args);
        let mut client = connect(&server);
        fill(&mut client);
        let before = without_expired(&mut client);
        match how {
            "SHUTDOWN" => end(server, "SHUTDOWN"),
            "signal" => {
                let pid = server.pid().to_string();
                let sent = Command::new("kill").arg(&pid).status().expect("kill runs");
                assert!(sent.success());
                assert!(poll(PATIENCE, || server.ended()).expect("it ends").success());
            }
            _ => {
                assert!(call(&mut client, how).starts_with('+'));
                wait_for(&mut client, "rdb_bgsave_in_progress", "0");
                assert_eq!(info(&mut client, "rdb_saves"), "1");
                assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "0");
                call(&mut client, "SET later v");
                end(server, "SHUTDOWN NOSAVE");
            }
        }
        let names: Vec<_> = fs::read_dir(folder.0.path()).expect("the folder").flatten().collect();
        assert_eq!(names.len(), 1, "only the file is left: {names:?}");
        let again = luar(&args);
        let mut client = connect(&again);
        assert_eq!(seen(&mut client), before, "{how}");
        assert_eq!(info(&mut client, "rdb_last_load_keys_loaded"), "14");
    }
}

#[test]
fn files_go_back_and_forth_between_us_and_redis() {
    let folder = Folder::new();
    let args = folder.args(&["--rdb-version", "10"]);
    let plain = folder.args(&[]);
    let Some(theirs) = redis(&plain) else { return };
    let mut client = connect(&theirs);
    fill(&mut client);
    let before = without_expired(&mut client);
    end(theirs, "SHUTDOWN SAVE");
    // From Redis to us, and on to Redis from a snapshot of ours.
    let ours = luar(&args);
    let mut client = connect(&ours);
    assert_eq!(seen(&mut client), before);
    fs::remove_file(folder.dump()).expect("there was one");
    assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    end(ours, "SHUTDOWN NOSAVE");
    let theirs = redis(&plain).expect("it started before");
    assert_eq!(seen(&mut connect(&theirs)), before);
}

const ACCOUNTS: usize = 2000;
const BALANCE: i64 = 100;
const TRANSFER: &str = "redis.call('DECRBY', KEYS[1], ARGV[1])
if ARGV[2] == 'fails' then error('undone') end
redis.call('HINCRBY', KEYS[2], 'balance', ARGV[1])";

/// Elements of the long values.
const LONG: usize = 20_000;
const WEIGH: &str = "redis.call('ZINCRBY', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZINCRBY', KEYS[1], -ARGV[1], ARGV[3])";

fn fill_long(client: &mut Client) {
    for first in (0..LONG).step_by(1000) {
        let names = (first..first + 1000).map(|number| format!("m:{number}"));
        let list: Vec<String> =
            ["RPUSH", "l:0"].map(String::from).into_iter().chain(names).collect();
        client.call(&list).expect("a reply");
        let scored = list[2..].iter().flat_map(|name| ["0".to_owned(), name.clone()]);
        let zset: Vec<String> = ["ZADD", "z"].map(String::from).into_iter().chain(scored).collect();
        client.call(&zset).expect("a reply");
    }
}

fn assert_long_is_whole(client: &mut Client) {
    let script = "local sum, seen = 0, {}
local zset = redis.call('ZRANGE', 'z', 0, -1, 'WITHSCORES')
for n = 2, #zset, 2 do sum = sum + zset[n] end
for _, key in ipairs({'l:0', 'l:1'}) do
  for _, element in ipairs(redis.call('LRANGE', key, 0, -1)) do seen[element] = true end
end
local count = 0
for _ in pairs(seen) do count = count + 1 end
return {sum, #zset / 2, redis.call('LLEN', 'l:0') + redis.call('LLEN', 'l:1'), count}";
    let reply = client.call(&["EVAL", script, "0"]).expect("a reply").to_talk();
    assert_eq!(reply, format!("[:0 :{LONG} :{LONG} :{LONG}]"));
}

/// Transfers between strings and hashes, by scripts (some of which fail) and transactions.
fn transfer_until(server: &Server, seed: u64, is_over: &AtomicBool, transfers: &AtomicUsize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = connect(server);
    while !is_over.load(Ordering::Relaxed) {
        let from = format!("s:{}", random.usize(..ACCOUNTS));
        let to = format!("h:{}", random.usize(..ACCOUNTS));
        let amount = random.i64(1..10).to_string();
        if random.u8(..4) == 0 {
            // Long values, which a snapshot writes in parts.
            let end = ["LEFT", "RIGHT"][random.usize(..2)];
            let (from, to) = if random.bool() { ("l:0", "l:1") } else { ("l:1", "l:0") };
            client.call(&["LMOVE", from, to, "RIGHT", end]).expect("a reply");
            let member = |random: &mut fastrand::Rng| format!("m:{}", random.usize(..LONG));
            let (one, other) = (member(&mut random), member(&mut random));
            client.call(&["EVAL", WEIGH, "1", "z", &amount, &one, &other]).expect("a reply");
        } else if random.bool() {
            let end = if random.u8(..3) == 0 { "fails" } else { "" };
            client.call(&["EVAL", TRANSFER, "2", &from, &to, &amount, end]).expect("a reply");
        } else {
            for args in [
                &["MULTI"][..],
                &["DECRBY", &from, &amount],
                &["HINCRBY", &to, "balance", &amount],
                &["EXEC"],
            ] {
                client.call(args).expect("a reply");
            }
        }
        transfers.fetch_add(1, Ordering::Relaxed);
    }
}

fn sum(client: &mut Client) -> i64 {
    let script = "local sum = 0
for n = 0, ARGV[1] - 1 do
  sum = sum + redis.call('GET', 's:' .. n) + redis.call('HGET', 'h:' .. n, 'balance')
end
return sum";
    let reply = client.call(&["EVAL", script, "0", &ACCOUNTS.to_string()]).expect("a reply");
    reply.to_talk().trim_start_matches(':').parse().expect("a number")
}

#[test]
fn a_snapshot_under_load_is_of_one_moment() {
    let folder = Folder::new();
    let args = folder.args(&["--workers", "2"]);
    let server = luar(&args);
    let mut client = connect(&server);
    for number in 0..ACCOUNTS {
        call(&mut client, &format!("SET s:{number} {BALANCE}"));
        call(&mut client, &format!("HSET h:{number} balance {BALANCE}"));
    }
    fill_long(&mut client);
    let keys = call(&mut client, "DBSIZE");
    let (is_over, transfers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut files = Vec::new();
    thread::scope(|scope| {
        for seed in 0..4 {
            let (server, is_over, transfers) = (&server, &is_over, &transfers);
            scope.spawn(move || transfer_until(server, seed, is_over, transfers));
        }
        for number in 0..5 {
            let before = transfers.load(Ordering::Relaxed);
            let moved = || (transfers.load(Ordering::Relaxed) > before + 100).then_some(());
            poll(PATIENCE, moved).expect("transfers go on");
            assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
            wait_for(&mut client, "rdb_bgsave_in_progress", "0");
            let kept = folder.file(&format!("kept-{number}.rdb"));
            fs::rename(folder.dump(), &kept).expect("it was saved");
            files.push(kept);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(sum(&mut client), 2 * BALANCE * ACCOUNTS as i64);
    end(server, "SHUTDOWN NOSAVE");
    for file in files {
        fs::rename(&file, folder.dump()).expect("it is there");
        let again = luar(&args);
        let mut client = connect(&again);
        // One of the lists may be empty.
        let size = call(&mut client, "DBSIZE");
        assert!(size == keys || size == format!(":{}", 2 * ACCOUNTS + 3), "{file:?}: {size}");
        assert_long_is_whole(&mut client);
        assert_eq!(sum(&mut client), 2 * BALANCE * ACCOUNTS as i64, "{file:?}");
    }
}

/// Long values that are changed, each in its way, while a snapshot has still to save them.
const WAYS: [&str; 15] = [
    "SADD", "EXEC", "ROLLBACK", "SCRIPT", "UNDONE", "QUEUED", "BLOCKED", "DEL", "SET", "KEEP",
    "STORE", "EXPIRE", "EVICT", "HSET", "JSON",
];
/// So many of each, as some are saved before their time comes.
const OF_EACH: usize = 3;
/// What is encoded in one go: a part, and what goes over it.
const PART_BYTES_MAX: usize = 66_000;

fn change_in_all_ways(server: &Server, client: &mut Client) {
    let mut blocked: Vec<Client> = (0..OF_EACH).map(|_| connect(server)).collect();
    for (n, waiting) in blocked.iter_mut().enumerate() {
        let line = format!("BLMOVE source:{n} BLOCKED:{n} LEFT RIGHT 0");
        waiting.send(&line.split(' ').collect::<Vec<_>>()).expect("it is sent");
    }

    let seen = poll(PATIENCE, || {
        let text = client.call(&["INFO", "clients"]).expect("a reply");
        text.text()?.contains(&format!("blocked_clients:{OF_EACH}")).then_some(())
    });
    assert!(seen.is_some(), "they wait");
    for n in 0..OF_EACH {
        call(client, &format!("PEXPIRE EXPIRE:{n} 300"));
    }
    assert_eq!(call(client, "BGSAVE"), "+Background saving started");
    let add = "redis.call('SADD', ARGV[1], 'more')";
    for (n, waiting) in blocked.iter_mut().enumerate() {
        for (mode, way) in [("MULTI", "EXEC"), ("MULTI ROLLBACK", "ROLLBACK")] {
            assert_eq!(call(client, mode), "+OK");
            assert_eq!(call(client, &format!("SADD {way}:{n} more")), "+QUEUED");
            assert_eq!(call(client, "EXEC"), "[:1]");
        }
        assert_eq!(call(client, &format!("DEL DEL:{n}")), ":1");
        assert_eq!(call(client, &format!("SET SET:{n} v")), "+OK");
        assert_eq!(call(client, &format!("SET KEEP:{n} v KEEPTTL")), "+OK");
        assert_eq!(call(client, &format!("SDIFFSTORE STORE:{n} SADD:{n} DEL:{n}")), ":10000");
        let script = format!("return {add}");
        let reply = client.call(&["EVAL", &script, "0", &format!("SCRIPT:{n}")]).expect("a reply");
        assert_eq!(reply.to_talk(), ":1");
        let script = format!("{add} redis.call('DEL', ARGV[2]) error('undone')");
        let (one, other) = (format!("UNDONE:{n}"), format!("UNDONE:{}", (n + 1) % OF_EACH));
        let reply = client.call(&["EVAL", &script, "0", &one, &other]).expect("a reply");
        assert!(reply.to_talk().contains("undone"), "{}", reply.to_talk());
        assert_eq!(call(client, "MULTI"), "+OK");
        client
            .call(&["EVAL", &format!("return {add}"), "0", &format!("QUEUED:{n}")])
            .expect("a reply");
        assert_eq!(call(client, "EXEC"), "[:1]");
        assert_eq!(call(client, &format!("LPUSH source:{n} moved")), ":1");
        assert_eq!(waiting.read(PATIENCE).expect("a reply").to_talk(), "\"moved\"");
        assert_eq!(call(client, &format!("SADD SADD:{n} more")), ":1");
        assert_eq!(call(client, &format!("HSET HSET:{n} more v")), ":1");
        let appended = call(client, &format!("JSON.ARRAPPEND JSON:{n} . \"more\""));
        assert_eq!(appended, ":10001");
    }
}

/// Gives a key 10,000 elements.
fn fill_with_elements(client: &mut Client, way: &str, key: &str) {
    let (command, count) = match way {
        "BLOCKED" => ("RPUSH", "LLEN"),
        "HSET" => ("HSET", "HLEN"),
        "JSON" => ("JSON.ARRAPPEND", "JSON.ARRLEN"),
        _ => ("SADD", "SCARD"),
    };
    let script = "local command, count, key = ARGV[1], ARGV[2], KEYS[1]
if command == 'JSON.ARRAPPEND' then redis.call('JSON.SET', key, '.', '[]') end
for n = 1, 10000 do
  local element = 'element:' .. n
  if command == 'HSET' then
    redis.call(command, key, element, 'v')
    redis.call('HEXPIRE', key, 10000 + n, 'FIELDS', 1, element)
  elseif command == 'JSON.ARRAPPEND' then
    redis.call(command, key, '.', '\"' .. element .. '\"')
  else
    redis.call(command, key, element)
  end
end
return redis.call(count, key)";
    let filled = client.call(&["EVAL", script, "1", key, command, count]);
    assert_eq!(filled.expect("a reply").to_talk(), ":10000");
}

#[test]
fn no_long_value_is_saved_in_one_go() {
    let folder = Folder::new();
    // So slowly that most are not saved yet when they are to change.
    let slow = ["--rdb-key-save-delay", "20000", "--workers", "2"];
    let args = folder.args(&slow);
    let server = luar(&args);
    let mut client = connect(&server);
    for way in WAYS {
        for n in 0..OF_EACH {
            fill_with_elements(&mut client, way, &format!("{way}:{n}"));
        }
    }
    change_in_all_ways(&server, &mut client);
    call(&mut client, "CONFIG SET maxmemory-policy allkeys-random");
    call(&mut client, "CONFIG SET maxmemory 1");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    call(&mut client, "CONFIG SET maxmemory 0");
    assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "ok");
    let longest: usize = info(&mut client, "rdb_last_part_size").parse().expect("a number");
    assert!((1..=PART_BYTES_MAX).contains(&longest), "{longest} bytes in one go");
    end(server, "SHUTDOWN NOSAVE");
    let again = luar(&args);
    let mut client = connect(&again);
    for way in WAYS.iter().filter(|way| **way != "EXPIRE") {
        let count = match *way {
            "BLOCKED" => "LLEN",
            "HSET" => "HLEN",
            "JSON" => "JSON.ARRLEN",
            _ => "SCARD",
        };
        for n in 0..OF_EACH {
            assert_eq!(call(&mut client, &format!("{count} {way}:{n}")), ":10000", "{way}:{n}");
        }
    }
}

#[test]
fn what_cannot_be_saved_is_told_until_it_can() {
    let folder = Folder::new();
    let server = luar(&folder.args(&["--save", "3600 1", "--enable-protected-configs", "yes"]));
    let mut client = connect(&server);
    assert_eq!(call(&mut client, "SET k v"), "+OK");
    // A folder of the file's name is in the way, for root too.
    fs::create_dir(folder.dump()).expect("a folder");
    assert_eq!(call(&mut client, "SAVE"), "-ERR");
    assert_eq!(call(&mut client, "SET k w"), "+OK", "SAVE tells who asked");
    assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
    wait_for(&mut client, "rdb_last_bgsave_status", "err");
    let refusal = "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to \
                   persist to disk. Commands that may modify the data set are disabled, because \
                   this instance is configured to report errors during writes if RDB snapshotting \
                   fails (stop-writes-on-bgsave-error option). Please check the Redis logs for \
                   details about the RDB error.";
    assert_eq!(call(&mut client, "SET k x"), refusal);
    assert_eq!(call(&mut client, "PING"), refusal);
    assert_eq!(call(&mut client, "GET k"), "\"w\"");
    let script = client.call(&["EVAL", "return redis.call('SET', 'k', 'x')", "1", "k"]);
    assert!(script.expect("a reply").to_talk().starts_with("-MISCONF "));
    assert_eq!(call(&mut client, "SHUTDOWN"), "-ERR Errors trying to SHUTDOWN. Check logs.");
    assert_eq!(call(&mut client, "CONFIG SET stop-writes-on-bgsave-error no"), "+OK");
    assert_eq!(call(&mut client, "SET k x"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET stop-writes-on-bgsave-error yes"), "+OK");
    fs::remove_dir(folder.dump()).expect("it is empty");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
    wait_for(&mut client, "rdb_last_bgsave_status", "ok");
    assert_eq!(call(&mut client, "SET k y"), "+OK");
    fs::remove_file(folder.dump()).expect("it was written");
    fs::create_dir(folder.dump()).expect("a folder");
    end(server, "SHUTDOWN FORCE");
}

#[test]
fn save_points_save() {
    let folder = Folder::new();
    let server = luar(&folder.args(&["--save", "1 3"]));
    let mut client = connect(&server);
    for number in 0..3 {
        call(&mut client, &format!("SET k:{number} v"));
    }
    wait_for(&mut client, "rdb_saves", "1");
    assert!(folder.dump().exists());
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "0");
    assert!(server.log().contains("3 changes in 1 seconds. Saving..."), "{}", server.log());
}

#[test]
fn a_damaged_file_is_refused_with_the_reason() {
    let folder = Folder::new();
    let args = folder.args(&[]);
    let server = luar(&args);
    let mut client = connect(&server);
    fill(&mut client);
    assert_eq!(call(&mut client, "SAVE"), "+OK");
    drop(server);
    let whole = fs::read(folder.dump()).expect("it was saved");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cases = [
        (whole[..whole.len() / 2].to_vec(), "the data ends early, at byte "),
        (flipped, "can't load the file 'dump.rdb': "),
        (b"no RDB".to_vec(), "the data ends early, at byte 6"),
        (b"REDIS9999".to_vec(), "RDB files of version 9999 cannot be read"),
    ];
    let path = Path::new(env!("CARGO_BIN_EXE_luar"));
    for (bytes, reason) in cases {
        fs::write(folder.dump(), bytes).expect("it is written");
        let Err(error) = Server::start(path, &args) else { panic!("it starts: {reason}") };
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// Runs a server in this folder that was told its port and nothing else, until a signal ends it.
fn run_as_it_comes(folder: &Folder, act: impl FnOnce(&mut Client)) {
    let port = free_port().expect("a port").to_string();
    let mut process = Command::new(env!("CARGO_BIN_EXE_luar"))
        .args(["--port", &port])
        .current_dir(folder.0.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let client = poll(PATIENCE, || {
        let mut client = Client::connect(&format!("127.0.0.1:{port}")).ok()?;
        (call(&mut client, "PING") == "+PONG").then_some(client)
    });
    act(&mut client.expect("it answers"));
    let sent = Command::new("kill").arg(process.id().to_string()).status();
    assert!(sent.expect("kill runs").success());
    let ended = poll(PATIENCE, || process.try_wait().expect("it is our child"));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
fn who_configures_nothing_keeps_his_data() {
    let folder = Folder::new();
    run_as_it_comes(&folder, |client| {
        assert_eq!(call(client, "SET k v"), "+OK");
        assert_eq!(call(client, "CONFIG GET save"), r#"["save" "3600 1 300 100 60 10000"]"#);
    });
    assert!(folder.dump().exists());
    run_as_it_comes(&folder, |client| {
        assert_eq!(call(client, "GET k"), "\"v\"");
        assert_eq!(call(client, "CONFIG SET save "), "+OK");
        assert_eq!(call(client, "SET k w"), "+OK");
    });
    run_as_it_comes(&folder, |client| assert_eq!(call(client, "GET k"), "\"v\""));
}

fn check_rdb(path: &Path) -> Output {
    let luar = env!("CARGO_BIN_EXE_luar");
    Command::new(luar).arg("check-rdb").arg(path).output().expect("it runs")
}

#[test]
fn check_rdb_tells_what_is_in_a_file() {
    let folder = Folder::new();
    let server = luar(&folder.args(&[]));
    let mut client = connect(&server);
    fill(&mut client);
    without_expired(&mut client);
    assert_eq!(call(&mut client, "SAVE"), "+OK");
    let output = check_rdb(&folder.dump());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for part in [
        "whole: version 11, of Redis 7.2.4, ",
        "database 0: 13 keys",
        "database 3: 1 keys",
        "1 keys expire, 0 of them have already",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut bytes = fs::read(folder.dump()).expect("it was saved");
    bytes.truncate(bytes.len() / 2);
    fs::write(folder.dump(), bytes).expect("it is written");
    let output = check_rdb(&folder.dump());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(": damaged behind "));
    assert_eq!(check_rdb(&folder.file("nosuch")).status.code(), Some(2));
}

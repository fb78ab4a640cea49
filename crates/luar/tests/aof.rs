//! The append-only file of a running server: what survives when it is killed, what happens when the
//! disk fails, and that redis-server and Luar start from each other's files.
//!
//! `AOF_SEED` repeats the choices of a run, `AOF_CRASHES` says how often a server is killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use testkit::client::Client;
use testkit::server::Server;
use testkit::value::Value;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of a test's own, which outlives its servers.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("luar-e2e-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("it can be made");
        Place(path)
    }

    fn start(&self, binary: &Path, args: &[&str]) -> Server {
        let directory = self.0.to_string_lossy();
        let mut all = vec!["--dir", &directory, "--appendonly", "yes"];
        all.extend(args);
        Server::start(binary, &all).expect("the server starts")
    }

    fn luar(&self, args: &[&str]) -> Server {
        self.start(Path::new(env!("CARGO_BIN_EXE_luar")), args)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn ask(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).expect("the server answers").to_talk()
}

fn integer(client: &mut Client, key: &str) -> i64 {
    match client.call(&["GET", key]).expect("the server answers") {
        Value::Bulk(text) => String::from_utf8_lossy(&text).parse().expect("a number"),
        Value::Nil => 0,
        other => panic!("{}", other.to_talk()),
    }
}

/// What one client did to its counter.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    answered: AtomicU64,
    /// As it was a while ago.
    answered_before: AtomicU64,
}

const CLIENTS: usize = 6;
const TRANSFER: &str = "local n = redis.call('INCR', KEYS[1]) redis.call('INCR', KEYS[2]) \
    redis.call('DECR', KEYS[3]) return n";

/// Counts, in one way or another, until the server is gone.
fn count(address: &str, own: &str, tally: &Tally, way: usize) {
    let Ok(mut client) = Client::connect(address) else { return };
    loop {
        tally.sent.fetch_add(1, Ordering::SeqCst);
        let answer = match way % 3 {
            0 => client.call(&["INCR", own]),
            1 => client.call(&["EVAL", TRANSFER, "3", own, "debit", "credit"]),
            _ => client
                .call(&["MULTI"])
                .and_then(|_| client.call(&["INCR", own]))
                .and_then(|_| client.call(&["INCR", "debit"]))
                .and_then(|_| client.call(&["DECR", "credit"]))
                .and_then(|_| client.call(&["EXEC"])),
        };
        match answer {
            Ok(Value::Integer(n)) => tally.answered.store(n as u64, Ordering::SeqCst),
            Ok(Value::Array(replies)) => match &replies[..] {
                [Value::Integer(n), ..] => tally.answered.store(*n as u64, Ordering::SeqCst),
                _ => panic!("{replies:?}"),
            },
            Ok(other) => panic!("{}", other.to_talk()),
            Err(_) => return,
        }
    }
}

/// Kills servers under load, at random moments. Answers nothing is lost but what may be.
fn kill_again_and_again(name: &str, policy: &str, keeps_all: bool) {
    let seed = number("AOF_SEED", fastrand::u64(..));
    let crashes = number("AOF_CRASHES", 6);
    println!("AOF_SEED={seed} AOF_CRASHES={crashes}");
    let mut rng = Rng::with_seed(seed);
    let place = Place::new(name);
    let tallies: Vec<Tally> = (0..CLIENTS).map(|_| Tally::default()).collect();
    for crash in 0..=crashes {
        let mut server = Some(place.luar(&["--appendfsync", policy, "--workers", "2"]));
        let address = server.as_ref().map(Server::address).expect("it was started");
        let mut client = Client::connect(&address).expect("it answers");
        for (index, tally) in tallies.iter().enumerate() {
            let there = integer(&mut client, &format!("c{index}")) as u64;
            let least = match keeps_all {
                true => tally.answered.load(Ordering::SeqCst),
                false => tally.answered_before.load(Ordering::SeqCst),
            };
            let most = tally.sent.load(Ordering::SeqCst);
            assert!((least..=most).contains(&there), "{crash}: {least} <= {there} <= {most}");
            // It goes on from there.
            [&tally.sent, &tally.answered, &tally.answered_before]
                .into_iter()
                .for_each(|count| count.store(there, Ordering::SeqCst));
        }
        let (debit, credit) = (integer(&mut client, "debit"), integer(&mut client, "credit"));
        assert_eq!(debit + credit, 0, "{crash}: a block is torn");
        assert!(crash == 0 || debit > 0, "{crash}: nothing was written");
        if crash == crashes {
            return;
        }
        let until = Duration::from_millis(rng.u64(20..700));
        let rewrites = rng.bool();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (index, tally) in tallies.iter().enumerate() {
                let address = &address;
                scope.spawn(move || count(address, &format!("c{index}"), tally, index));
            }
            let is_over = &is_over;
            let tallies = &tallies;
            scope.spawn(move || {
                // What was answered longer ago than the policy may lose.
                let mut seen: Vec<(Instant, Vec<u64>)> = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    let now: Vec<u64> =
                        tallies.iter().map(|t| t.answered.load(Ordering::SeqCst)).collect();
                    seen.push((Instant::now(), now));
                    if let Some((_, old)) =
                        seen.iter().rev().find(|(at, _)| at.elapsed() > Duration::from_millis(1200))
                    {
                        for (tally, old) in tallies.iter().zip(old) {
                            tally.answered_before.fetch_max(*old, Ordering::SeqCst);
                        }
                    }
                    thread::park_timeout(Duration::from_millis(10));
                }
            });
            let started = Instant::now();
            while started.elapsed() < until {
                if rewrites {
                    let _ = client.call(&["BGREWRITEAOF"]);
                }
                thread::park_timeout(Duration::from_millis(5));
            }
            is_over.store(true, Ordering::SeqCst);
            // Kill -9.
            drop(server.take());
        });
    }
}

#[test]
fn what_was_answered_survives_with_always() {
    kill_again_and_again("always", "always", true);
}

#[test]
fn what_was_answered_a_while_ago_survives_with_everysec() {
    kill_again_and_again("everysec", "everysec", false);
}

/// Sets how large the files of a process may become.
fn limit_files(server: &Server, limit: &str) {
    let pid = server.pid().to_string();
    let size = format!("--fsize={limit}:unlimited");
    let done = Command::new("prlimit").args(["--pid", &pid, &size]).status();
    assert!(done.expect("prlimit runs").success(), "the limit can be set");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let place = Place::new("full");
    let server = place.luar(&["--appendfsync", "always", "--workers", "2"]);
    let mut client = server.connect().expect("it answers");
    assert_eq!(ask(&mut client, "SET before 1"), "+OK");
    limit_files(&server, "300000");
    let value = "x".repeat(50_000);
    // The one that finds the disk full gets no answer: what became of it is not known.
    let mut stored = 0;
    while let Ok(answer) = client.call(&["SET", &format!("big{stored}"), &value]) {
        assert_eq!(answer.to_talk(), "+OK");
        stored += 1;
        assert!(stored < 10, "the disk is never full");
    }
    assert!(stored > 2, "{stored}");
    let mut client = server.connect().expect("it answers");
    let refusal = "-MISCONF Errors writing to the AOF file: File too large";
    assert_eq!(ask(&mut client, "SET more 1"), refusal);
    assert_eq!(ask(&mut client, "PING"), refusal);
    assert_eq!(ask(&mut client, "GET before"), "\"1\"");
    let script = client.call(&["EVAL", "return redis.call('SET', 'k', 'v')", "1", "k"]);
    let script = script.expect("it answers").to_talk();
    assert!(script.starts_with(refusal), "{script}");
    let info = ask(&mut client, "INFO persistence");
    assert!(info.contains("aof_last_write_status:err"), "{info}");
    assert!(info.contains("aof_last_write_error:File too large"), "{info}");
    limit_files(&server, "unlimited");
    let resumed =
        testkit::poll(PATIENCE, || (ask(&mut client, "SET more 2") == "+OK").then_some(()));
    assert!(resumed.is_some(), "it never goes on");
    let info = ask(&mut client, "INFO persistence");
    assert!(info.contains("aof_last_write_status:ok"), "{info}");
    drop(server);
    let server = place.luar(&[]);
    let mut client = server.connect().expect("it answers");
    assert_eq!(ask(&mut client, "GET more"), "\"2\"");
    for number in 0..stored {
        assert_eq!(ask(&mut client, &format!("STRLEN big{number}")), ":50000");
    }
}

#[test]
fn a_torn_end_is_cut_off_and_damage_is_refused() {
    let place = Place::new("torn");
    let server = place.luar(&["--appendfsync", "always"]);
    let mut client = server.connect().expect("it answers");
    assert_eq!(ask(&mut client, "SET whole 1"), "+OK");
    drop(server);
    let file = place.0.join("appendonlydir/appendonly.aof.1.incr.aof");
    let whole = std::fs::read(&file).expect("it is there");
    let torn = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$1\r\n1\r\n*3\r\n$3\r\nSE";
    std::fs::write(&file, [&whole[..], torn].concat()).expect("it can be written");
    let refused = Server::start(
        Path::new(env!("CARGO_BIN_EXE_luar")),
        &["--dir", &place.0.to_string_lossy(), "--appendonly", "yes", "--aof-load-truncated", "no"],
    );
    let why = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(why.contains("Unexpected end of file reading the append only file"), "{why}");
    let server = place.luar(&[]);
    let mut client = server.connect().expect("it answers");
    assert_eq!(ask(&mut client, "GET whole"), "\"1\"");
    assert_eq!(ask(&mut client, "EXISTS torn"), ":0");
    let lost = format!("{} bytes and 2 commands are lost", torn.len());
    assert!(server.log().contains(&lost), "{}", server.log());
    drop(server);
    assert_eq!(std::fs::read(&file).expect("it is there"), whole);
    std::fs::write(&file, [&whole[..5], b"x", &whole[6..]].concat()).expect("it can be written");
    let refused = Server::start(
        Path::new(env!("CARGO_BIN_EXE_luar")),
        &["--dir", &place.0.to_string_lossy(), "--appendonly", "yes"],
    );
    let why = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(why.contains("Bad file format reading the append only file"), "{why}");
    assert!(why.contains("damaged at byte"), "{why}");
}

#[test]
fn a_file_of_redis_6_becomes_the_base() {
    let place = Place::new("old");
    let old = b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    std::fs::write(place.0.join("appendonly.aof"), old).expect("it can be written");
    for round in 0..2 {
        let server = place.luar(&["--appendfsync", "always"]);
        let mut client = server.connect().expect("it answers");
        assert_eq!(ask(&mut client, "SELECT 1"), "+OK");
        assert_eq!(ask(&mut client, "GET k"), "\"v\"");
        assert_eq!(ask(&mut client, "APPEND l x"), format!(":{}", round + 1));
    }
    assert!(!place.0.join("appendonly.aof").exists());
}

#[test]
fn scripts_in_old_files_are_run_again() {
    let place = Place::new("scripts");
    let mut old = String::new();
    let adds = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    let fails = "redis.call('SET', KEYS[1], 'stays') redis.call('SELECT', '2') \
                 redis.call('PUBLISH', 'c', 'm') redis.call('SET', KEYS[1], 'there') error('no')";
    for args in [
        &["SELECT", "1"][..],
        &["EVAL", adds, "1", "n", "5"],
        &["EVALSHA", "8cd00688c05c46bde4a2e60658ef20a2e5c0b248", "1", "n", "6"],
        &["SCRIPT", "LOAD", "return 'kept'"],
        &["MULTI"],
        &["EVAL", fails, "1", "k"],
        &["SET", "behind", "1"],
        &["EXEC"],
    ] {
        old.push_str(&format!("*{}\r\n", args.len()));
        args.iter().for_each(|arg| old.push_str(&format!("${}\r\n{arg}\r\n", arg.len())));
    }
    std::fs::write(place.0.join("appendonly.aof"), old).expect("it can be written");
    for _ in 0..2 {
        let server = place.luar(&["--appendfsync", "always"]);
        let mut client = server.connect().expect("it answers");
        assert_eq!(ask(&mut client, "SELECT 1"), "+OK");
        assert_eq!(ask(&mut client, "MGET n k behind"), r#"["11" "stays" "1"]"#);
        let kept = "SCRIPT EXISTS 831718c21eb8cace8e6f31e7782a9d8e38ed5600";
        assert_eq!(ask(&mut client, kept), "[:1]");
        assert_eq!(ask(&mut client, "SELECT 2"), "+OK");
        assert_eq!(ask(&mut client, "GET k"), "\"there\"");
        assert_eq!(ask(&mut client, "DBSIZE"), ":1");
    }
}

#[test]
fn what_is_rolled_back_leaves_no_byte() {
    let place = Place::new("rollback");
    let server = place.luar(&["--appendfsync", "always"]);
    let mut client = server.connect().expect("it answers");
    let script = "redis.call('SET', KEYS[1], 'gone') error('no')";
    let answer = client.call(&["EVAL", script, "1", "undone"]).expect("it answers");
    assert!(matches!(answer, Value::Error(_)));
    assert_eq!(ask(&mut client, "SET k v"), "+OK");
    drop(server);
    let file = place.0.join("appendonlydir/appendonly.aof.1.incr.aof");
    let text = String::from_utf8_lossy(&std::fs::read(file).expect("it is there")).into_owned();
    assert!(text.contains("$1\r\nk\r\n") && !text.contains("undone"), "{text}");
}

const WRITES: [&str; 9] = [
    "SET s v EX 1000",
    "RPUSH l a b c",
    "SADD set a b",
    "HSET h f v g w",
    "ZADD z 1.5 a -inf b",
    "INCRBY n 7",
    "SELECT 3",
    "SET other 1",
    "SELECT 0",
];

fn content(client: &mut Client) -> Vec<String> {
    let reads = [
        "GET s",
        "LRANGE l 0 -1",
        "SISMEMBER set b",
        "HGET h g",
        "ZRANGE z 0 -1 WITHSCORES",
        "GET n",
        "LLEN list",
        "ZRANGE zset 0 -1",
        "DBSIZE",
        "SELECT 3",
        "GET other",
        "SELECT 0",
    ];
    reads.iter().map(|line| ask(client, line)).collect()
}

fn rewrite(client: &mut Client) {
    ask(client, "BGREWRITEAOF");
    let done = testkit::poll(PATIENCE, || {
        let info = ask(client, "INFO persistence");
        let is_done = info.contains("aof_rewrite_in_progress:0")
            && info.contains("aof_rewrite_scheduled:0")
            && info.contains("aof_last_bgrewrite_status:ok");
        is_done.then_some(())
    });
    assert!(done.is_some(), "the rewrite ends");
}

/// Fills a key of each kind with more than one command takes.
fn fill(client: &mut Client, count: usize) {
    for index in 0..count {
        for line in [
            format!("RPUSH list {index}"),
            format!("SADD numbers {index}"),
            format!("SADD words m{index}"),
            format!("HSET hash f{index} {index}"),
            format!("ZADD zset {index}.5 m{index}"),
        ] {
            assert_eq!(ask(client, &line).as_bytes()[0], b':', "{line}");
        }
    }
}

/// The name of a base file of this ending, if there is one.
fn base(place: &Place, ending: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(place.0.join("appendonlydir")).expect("it is there");
    let mut paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.find(|path| path.to_string_lossy().ends_with(ending))
}

#[test]
fn a_base_of_commands_has_all_that_an_rdb_file_has() {
    let place = Place::new("commands");
    let args = ["--appendfsync", "always", "--aof-use-rdb-preamble", "no"];
    let server = place.luar(&args);
    let mut client = server.connect().expect("it answers");
    WRITES.iter().for_each(|line| drop(ask(&mut client, line)));
    fill(&mut client, 150);
    assert_eq!(ask(&mut client, "PEXPIREAT zset 99999999999999"), ":1");
    assert_eq!(ask(&mut client, "XADD stream 5-1 f v"), "\"5-1\"");
    assert_eq!(ask(&mut client, "XADD stream 6-1 f w"), "\"6-1\"");
    assert_eq!(ask(&mut client, "XGROUP CREATE stream g 0"), "+OK");
    ask(&mut client, "XREADGROUP GROUP g c COUNT 1 STREAMS stream >");
    assert_eq!(ask(&mut client, "XGROUP CREATECONSUMER stream g d"), ":1");
    assert_eq!(ask(&mut client, "XDEL stream 5-1"), ":1");
    let reads = [
        "PEXPIRETIME s",
        "PEXPIRETIME zset",
        "PEXPIRETIME list",
        "LRANGE list 0 -1",
        "SINTERCARD 1 numbers",
        "SMISMEMBER words m0 m149 m150",
        "HLEN hash",
        "HMGET hash f0 f63 f64 f149",
        "ZRANGE zset 0 -1 WITHSCORES",
        "OBJECT ENCODING numbers",
        "XRANGE stream - +",
        "XINFO GROUPS stream",
        "XPENDING stream g",
    ];
    let seen = |client: &mut Client| {
        let more: Vec<String> = reads.iter().map(|line| ask(client, line)).collect();
        [content(client), more].concat()
    };
    rewrite(&mut client);
    let path = base(&place, ".base.aof").expect("the base says commands");
    assert!(std::fs::read(path).expect("it can be read").starts_with(b"*2\r\n$6\r\nSELECT\r\n"));
    let before = seen(&mut client);
    drop((client, server));
    let server = place.luar(&args);
    let mut client = server.connect().expect("it answers");
    assert_eq!(seen(&mut client), before);
    // And back.
    assert_eq!(ask(&mut client, "CONFIG SET aof-use-rdb-preamble yes"), "+OK");
    rewrite(&mut client);
    assert!(base(&place, ".base.rdb").is_some() && base(&place, ".base.aof").is_none());
    drop((client, server));
    let server = place.luar(&args);
    assert_eq!(seen(&mut server.connect().expect("it answers")), before);
}

#[test]
fn nothing_is_logged_behind_the_answer_that_it_is_off() {
    for _ in 0..10 {
        let place = Place::new("off");
        let mut server = place.luar(&["--save", ""]);
        let mut client = server.connect().expect("it answers");
        assert_eq!(ask(&mut client, "SET before 1"), "+OK");
        assert_eq!(ask(&mut client, "CONFIG SET appendonly no"), "+OK");
        for number in 0..20 {
            assert_eq!(ask(&mut client, &format!("SET behind {number}")), "+OK");
        }
        client.send(&["SHUTDOWN"]).expect("it is there");
        let deadline = Instant::now() + PATIENCE;
        while server.ended().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            thread::yield_now();
        }
        let file = place.0.join("appendonlydir/appendonly.aof.1.incr.aof");
        let text = std::fs::read_to_string(&file).expect("it is there");
        assert!(text.contains("before") && !text.contains("behind"), "{text}");
    }
}

/// Writes so much at once that it goes past the system's cache.
#[test]
fn a_log_that_is_written_fast_is_whole() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 40;
    const TOGETHER: usize = 400;
    let place = Place::new("fast");
    let mut server = place.luar(&["--appendfsync", "everysec", "--save", ""]);
    let address = server.address();
    thread::scope(|scope| {
        for own in 0..CLIENTS {
            let address = &address;
            scope.spawn(move || {
                let mut client = Client::connect(address).expect("it answers");
                let value = "v".repeat(1000);
                for round in 0..ROUNDS {
                    let keys = (0..TOGETHER).map(|key| format!("{own}:{key}"));
                    let values = (0..TOGETHER).map(|key| format!("{round}:{key}:{value}"));
                    let requests: Vec<Vec<String>> = keys
                        .zip(values)
                        .map(|(key, value)| vec!["SET".into(), key, value])
                        .collect();
                    client.pipeline(&requests).expect("it answers");
                }
            });
        }
    });
    let mut client = server.connect().expect("it answers");
    // It waits for what its own connection has written, and so for all before that.
    assert_eq!(ask(&mut client, "SET last 1"), "+OK");
    let before = ask(&mut client, "DEBUG DIGEST");
    assert_eq!(ask(&mut client, "WAITAOF 1 0 0"), "[:1 :0]");
    let file = place.0.join("appendonlydir/appendonly.aof.1.incr.aof");
    let bytes = std::fs::metadata(&file).expect("it is there").len();
    assert!(bytes > (CLIENTS * ROUNDS * TOGETHER * 1000) as u64);
    drop(client);
    server.crash().expect("it is there");
    server.restart().expect("it starts again");
    let mut client = server.connect().expect("it answers");
    assert_eq!(ask(&mut client, "DEBUG DIGEST"), before);
}

/// What is answered while the log's thread is stuck would be lost with the process, however long ago
/// that was: there is to be little of it.
#[test]
fn commands_wait_while_a_write_takes_long() {
    const STUCK: Duration = Duration::from_secs(3);
    let place = Place::new("stuck");
    let server = place.luar(&["--appendfsync", "everysec"]);
    let mut client = server.connect().expect("it answers");
    let delay_us = STUCK.as_micros();
    assert_eq!(ask(&mut client, &format!("DEBUG AOF-FLUSH-SLEEP {delay_us}")), "+OK");
    let began = Instant::now();
    let mut sent = began;
    while sent.elapsed() < STUCK / 3 {
        sent = Instant::now();
        assert!(sent - began < PATIENCE, "no command has waited");
        assert_eq!(ask(&mut client, "SET k v"), "+OK");
    }
    let answered = sent - began;
    assert!(answered < STUCK / 2, "commands were answered for {answered:?}");
    assert_eq!(ask(&mut client, "DEBUG AOF-FLUSH-SLEEP 0"), "+OK");
}

#[test]
fn writes_that_take_long_are_latency_events() {
    let place = Place::new("latency");
    let server = place.luar(&["--appendfsync", "always", "--latency-monitor-threshold", "5"]);
    let mut client = server.connect().expect("it answers");
    assert_eq!(ask(&mut client, "DEBUG AOF-FLUSH-SLEEP 20000"), "+OK");
    assert_eq!(ask(&mut client, "SET k v"), "+OK");
    let latest = ask(&mut client, "LATENCY LATEST");
    assert!(latest.contains("\"aof-write\"") && latest.contains("\"aof-write-alone\""), "{latest}");
    assert_eq!(ask(&mut client, "LATENCY HISTORY aof-write-active-child"), "[]");
}

#[test]
#[ignore = "needs redis-server"]
fn redis_and_luar_start_from_each_others_files() {
    exchange(&["--aof-use-rdb-preamble", "yes"]);
    exchange(&["--aof-use-rdb-preamble", "no"]);
}

fn exchange(args: &[&str]) {
    let place = Place::new("both");
    let mut seen = Vec::new();
    for round in 0..4 {
        let ours = ["--appendfsync", "always", "--rdb-version", "10"];
        let server = match round % 2 {
            0 => place.luar(&[&ours, args].concat()),
            _ => place.start(Path::new("redis-server"), args),
        };
        let mut client = server.connect().expect("it answers");
        match round {
            0 => {
                // Before and behind the base.
                WRITES.iter().take(4).for_each(|line| drop(ask(&mut client, line)));
                rewrite(&mut client);
                WRITES.iter().skip(4).for_each(|line| drop(ask(&mut client, line)));
                fill(&mut client, 100);
            }
            _ => assert_eq!(content(&mut client), seen, "round {round}"),
        }
        if round == 1 {
            rewrite(&mut client);
        }
        assert_eq!(ask(&mut client, "RPUSH l more"), format!(":{}", 4 + round));
        assert_eq!(ask(&mut client, "CONFIG SET appendfsync always"), "+OK");
        assert_eq!(ask(&mut client, "SET s w KEEPTTL"), "+OK");
        seen = content(&mut client);
    }
}

//! Crashes at random moments: the process is killed under load and started again on what it left.
//!
//! Several clients write in blocks, by MULTI and by script; each block writes the same number to
//! keys of four types, so that a torn one shows. Transfers between shared accounts conserve their
//! sum. Scripts that fail must leave nothing. Meanwhile the log is rewritten, or snapshots are
//! taken. After each crash what is there is compared with what had been acknowledged and sent, and
//! the next round goes on from it.
//!
//! `LUAR_CRASHES` is how many crashes each of the tests makes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Arena, Random, Verdict, call, connect, expect, in_threads};
use crate::client::Client;
use crate::poll;
use crate::server::Server;
use crate::value::Value;

const WRITERS: usize = 6;
/// Blocks under way of one writer.
const AHEAD_MAX: usize = 8;
const ACCOUNTS: usize = 16;
const BALANCE: i64 = 1000;
/// Values that give a rewrite or a snapshot something to do.
const FILLERS: usize = 20_000;
/// Numbers that a list keeps.
const KEPT: i64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

/// What may be missing after a crash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Nothing that was acknowledged.
    Everything,
    /// What was acknowledged within the last second.
    AllButASecond,
    /// What came after the last snapshot that was completed.
    Snapshot,
}

pub fn always(arena: &Arena) -> Verdict {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    survive(arena, Promise::Everything, &settings, 60)
}

pub fn every_second(arena: &Arena) -> Verdict {
    let settings = ["--appendonly", "yes", "--appendfsync", "everysec"];
    survive(arena, Promise::AllButASecond, &settings, 40)
}

pub fn snapshots(arena: &Arena) -> Verdict {
    survive(arena, Promise::Snapshot, &["--appendonly", "no"], 40)
}

/// What one writer writes: a number to all of its keys, one higher each time.
fn block(writer: usize, number: i64, by_script: bool) -> (Vec<Vec<String>>, usize) {
    let key = |end: &str| format!("{{{writer}}}{end}");
    let text = number.to_string();
    let kept = (-KEPT).to_string();
    let changes = vec![
        vec!["SET".into(), key("text"), text.clone()],
        vec!["HSET".into(), key("hash"), "field".into(), text.clone()],
        vec!["ZADD".into(), key("zset"), text.clone(), "member".into()],
        vec!["RPUSH".into(), key("list"), text.clone()],
        vec!["LTRIM".into(), key("list"), kept.clone(), "-1".into()],
    ];
    if by_script {
        const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1])
            redis.call('HSET', KEYS[2], 'field', ARGV[1])
            redis.call('ZADD', KEYS[3], ARGV[1], 'member')
            redis.call('RPUSH', KEYS[4], ARGV[1])
            redis.call('LTRIM', KEYS[4], ARGV[2], '-1')";
        let mut request: Vec<String> = vec!["EVAL".into(), SCRIPT.into(), "4".into()];
        request.extend([key("text"), key("hash"), key("zset"), key("list"), text, kept]);
        return (vec![request], 1);
    }
    let replies = changes.len() + 2;
    let mut requests = vec![vec!["MULTI".to_owned()]];
    requests.extend(changes);
    requests.push(vec!["EXEC".to_owned()]);
    (requests, replies)
}

const TRANSFER: &str = "redis.call('DECRBY', KEYS[1], ARGV[1])
    redis.call('INCRBY', KEYS[2], ARGV[1])";

fn transfer(random: &mut Random) -> (Vec<Vec<String>>, usize) {
    let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
    let (from, to) = (format!("account:{from}"), format!("account:{to}"));
    let amount = random.below(100).to_string();
    if random.below(2) == 0 {
        let words = ["EVAL", TRANSFER, "2", &from, &to, &amount];
        return (vec![words.map(str::to_owned).to_vec()], 1);
    }
    let requests = [
        vec!["MULTI".to_owned()],
        vec!["DECRBY".into(), from, amount.clone()],
        vec!["INCRBY".into(), to, amount],
        vec!["EXEC".into()],
    ];
    (requests.to_vec(), 4)
}

/// A script that fails after it wrote, which Luar undoes.
fn failure(writer: usize) -> (Vec<Vec<String>>, usize) {
    const SCRIPT: &str = "redis.call('SET', KEYS[1], 'junk') error('on purpose')";
    let words = ["EVAL", SCRIPT, "1", &format!("{{{writer}}}junk")];
    (vec![words.map(str::to_owned).to_vec()], 1)
}

/// What a request under way is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Transfer,
    Failure,
}

/// What is known of a writer at the moment of the crash.
struct Log {
    sent: i64,
    acked: i64,
    /// When what was acknowledged, in ascending order.
    history: Vec<(Instant, i64)>,
}

/// Writes until the connection breaks, from this number on.
fn write(
    arena: &Arena,
    address: &str,
    writer: usize,
    first: i64,
    seed: u64,
    acked: &AtomicU64,
) -> Result<Log, String> {
    let mut client = Client::connect(address).map_err(|error| error.to_string())?;
    client.patience = PATIENCE;
    let mut random = Random::new(seed);
    let mut log = Log { sent: first, acked: first, history: Vec::new() };
    let mut under_way = VecDeque::new();
    loop {
        while under_way.len() < 1 + random.below(AHEAD_MAX) {
            let (kind, (requests, replies)) = match random.below(8) {
                0 if !arena.oracle => (Kind::Failure, failure(writer)),
                1 | 2 => (Kind::Transfer, transfer(&mut random)),
                choice => {
                    log.sent += 1;
                    (Kind::Block, block(writer, log.sent, choice % 2 == 0))
                }
            };
            under_way.push_back((kind, replies));
            if requests.iter().any(|request| client.send(request).is_err()) {
                return Ok(log);
            }
        }
        let Some((kind, replies)) = under_way.pop_front() else { continue };
        for _ in 0..replies {
            match client.read(client.patience) {
                Ok(Value::Error(text)) if kind != Kind::Failure => {
                    return Err(format!("answered -{}", String::from_utf8_lossy(&text)));
                }
                Ok(_) => {}
                Err(_) => return Ok(log),
            }
        }
        if kind == Kind::Block {
            log.acked += 1;
            acked.store(log.acked as u64, Ordering::Release);
            log.history.push((Instant::now(), log.acked));
        }
    }
}

/// Has the server work in the background until it is gone. Answers what each writer had
/// acknowledged when the last snapshot began that is known to be complete.
fn disturb(
    address: &str,
    promise: Promise,
    acked: &[AtomicU64],
    seed: u64,
) -> Result<Option<Vec<i64>>, String> {
    let mut random = Random::new(seed);
    let mut completed = None;
    let Ok(mut client) = Client::connect(address) else { return Ok(None) };
    // Every other round of a log is without a rewrite.
    while promise == Promise::Snapshot || random.below(2) == 0 {
        let begun: Vec<i64> =
            acked.iter().map(|acked| acked.load(Ordering::Acquire) as i64).collect();
        let command = match promise {
            Promise::Snapshot => ["BGSAVE", "SCHEDULE"].as_slice(),
            _ if random.below(4) == 0 => &["BGSAVE", "SCHEDULE"],
            _ => &["BGREWRITEAOF"],
        };
        match client.call(command) {
            // It began by itself.
            Ok(Value::Error(text)) if text.ends_with(b"already in progress") => {}
            Ok(Value::Error(text)) => {
                return Err(format!("{command:?} answered -{}", String::from_utf8_lossy(&text)));
            }
            Ok(_) => {}
            Err(_) => return Ok(completed),
        }
        let ended = poll(PATIENCE, || match client.call(&["INFO", "persistence"]) {
            Ok(info) => {
                let info = info.text().unwrap_or_default();
                let is_over = ["rdb_bgsave_in_progress:0", "aof_rewrite_in_progress:0"]
                    .iter()
                    .chain(&["aof_rewrite_scheduled:0"])
                    .all(|line| info.contains(line));
                is_over.then_some(Some(info))
            }
            Err(_) => Some(None),
        });
        match ended {
            Some(Some(info)) => {
                let is_good = ["rdb_last_bgsave_status:ok", "aof_last_bgrewrite_status:ok"];
                for line in is_good {
                    expect(info.contains(line), || format!("{command:?}: no {line} in\n{info}"))?;
                }
                completed = Some(begun);
            }
            Some(None) => return Ok(completed),
            None => return Err(format!("{command:?} does not end")),
        }
    }
    Ok(completed)
}

/// What a writer's keys hold; an error if they do not agree.
fn recovered(client: &mut Client, writer: usize) -> Result<i64, String> {
    let key = |end: &str| format!("{{{writer}}}{end}");
    let mut number = |words: &[&str]| -> Result<i64, String> {
        match call(client, words)?.text() {
            None => Ok(0),
            Some(text) => text.parse().map_err(|_| format!("{words:?} is {text:?}")),
        }
    };
    let text = number(&["GET", &key("text")])?;
    let hash = number(&["HGET", &key("hash"), "field"])?;
    let zset = number(&["ZSCORE", &key("zset"), "member"])?;
    let list = call(client, &["LRANGE", &key("list"), "0", "-1"])?;
    let list: Vec<i64> = list
        .elements()
        .unwrap_or_default()
        .iter()
        .filter_map(|element| element.text()?.parse().ok())
        .collect();
    let expected: Vec<i64> = ((text - KEPT).max(0) + 1..=text).collect();
    expect(hash == text && zset == text && list == expected, || {
        format!("writer {writer} is torn: text {text}, hash {hash}, zset {zset}, list {list:?}")
    })?;
    let junk = call(client, &["EXISTS", &key("junk")])?;
    expect(junk == Value::Integer(0), || {
        format!("writer {writer}: a failed script left something")
    })?;
    Ok(text)
}

fn balance(client: &mut Client) -> Result<i64, String> {
    let keys: Vec<String> = (0..ACCOUNTS).map(|account| format!("account:{account}")).collect();
    let mut command = vec!["MGET"];
    command.extend(keys.iter().map(String::as_str));
    let values = call(client, &command)?;
    let values = values.elements().unwrap_or_default().iter();
    Ok(values.filter_map(|value| value.text()?.parse::<i64>().ok()).sum())
}

/// Accounts and fillers, which are there before the first crash.
fn prepare(server: &Server, promise: Promise) -> Result<(), String> {
    let mut client = connect(server)?;
    for first in (0..FILLERS).step_by(1000) {
        let mut command = vec!["MSET".to_owned()];
        for number in first..first + 1000 {
            command.extend([format!("filler:{number}"), format!("{number:0200}")]);
        }
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        call(&mut client, &words)?;
    }
    for account in 0..ACCOUNTS {
        call(&mut client, &["SET", &format!("account:{account}"), &BALANCE.to_string()])?;
    }
    if promise == Promise::Snapshot {
        call(&mut client, &["SAVE"])?;
    }
    if promise == Promise::AllButASecond {
        // What is a second old is safe.
        let began = Instant::now();
        poll(PATIENCE, || (began.elapsed() > Duration::from_millis(1100)).then_some(()));
    }
    Ok(())
}

fn survive(arena: &Arena, promise: Promise, settings: &[&str], crashes: usize) -> Verdict {
    let crashes = match std::env::var("LUAR_CRASHES") {
        Ok(text) => text.parse().map_err(|_| format!("LUAR_CRASHES is {text:?}"))?,
        Err(_) => arena.count(crashes),
    };
    let mut random = Random::new(arena.seed);
    let mut server = arena.start(4, settings)?;
    prepare(&server, promise)?;
    let mut numbers = vec![0; WRITERS];
    let mut blocks = 0;
    for round in 0..crashes {
        let context = |error: String, server: &Server| {
            let log = server.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!("seed {}, crash {round}: {error}\n{}", arena.seed, tail.join("\n"))
        };
        let before = numbers.clone();
        let round = crash(arena, &mut server, promise, &numbers, &mut random);
        let (logs, floors, crashed) = round.map_err(|error| context(error, &server))?;
        server.restart().map_err(|error| context(error.to_string(), &server))?;
        numbers = check(&server).map_err(|error| context(error, &server))?;
        for (writer, log) in logs.iter().enumerate() {
            let floor = match promise {
                Promise::Everything => log.acked,
                Promise::AllButASecond => {
                    let old = |(at, _): &&(Instant, i64)| crashed - *at > Duration::from_secs(1);
                    log.history.iter().rev().find(old).map_or(before[writer], |(_, number)| *number)
                }
                Promise::Snapshot => {
                    floors.as_ref().map_or(before[writer], |floors| floors[writer])
                }
            };
            expect((floor..=log.sent).contains(&numbers[writer]), || {
                let (found, acked, sent) = (numbers[writer], log.acked, log.sent);
                let text = format!(
                    "writer {writer} is at {found}: it began at {}, {acked} were acknowledged, \
                     {sent} sent, and {floor} must be there",
                    before[writer]
                );
                context(text, &server)
            })?;
            blocks += log.acked - before[writer];
        }
    }
    Ok(format!("{crashes} crashes, {blocks} blocks"))
}

type Round = (Vec<Log>, Option<Vec<i64>>, Instant);

/// One round of load, and its crash.
fn crash(
    arena: &Arena,
    server: &mut Server,
    promise: Promise,
    numbers: &[i64],
    random: &mut Random,
) -> Result<Round, String> {
    let acked: Vec<AtomicU64> = numbers.iter().map(|n| AtomicU64::new(*n as u64)).collect();
    let sum = || acked.iter().map(|acked| acked.load(Ordering::Acquire)).sum::<u64>();
    // Some seconds at most.
    let blocks_max = match promise {
        Promise::Everything => 6_000,
        Promise::AllButASecond => 60_000,
        Promise::Snapshot => 20_000,
    };
    let goal = sum() + 1 + random.below(blocks_max) as u64;
    let seeds: Vec<u64> = (0..=WRITERS).map(|_| random.below(1 << 30) as u64).collect();
    let is_over = AtomicBool::new(false);
    let address = server.address();
    std::thread::scope(|scope| {
        let writers = scope.spawn(|| {
            let logs = in_threads(WRITERS, |writer| {
                write(arena, &address, writer, numbers[writer], seeds[writer], &acked[writer])
            });
            is_over.store(true, Ordering::Release);
            logs
        });
        let disturber = scope.spawn(|| disturb(&address, promise, &acked, seeds[WRITERS]));
        // Writers end early only when something is wrong, which their result tells.
        let reached =
            poll(PATIENCE, || (sum() >= goal || is_over.load(Ordering::Acquire)).then_some(()));
        let crashed = Instant::now();
        let killed = server.crash();
        let logs = writers.join().map_err(|_| "a writer panicked".to_owned())??;
        let floors = disturber.join().map_err(|_| "the disturber panicked".to_owned())??;
        killed.map_err(|error| error.to_string())?;
        expect(reached.is_some(), || format!("only {} of {goal} blocks", sum()))?;
        Ok((logs, floors, crashed))
    })
}

/// Looks at everything after a restart. Answers the numbers of the writers.
fn check(server: &Server) -> Result<Vec<i64>, String> {
    let mut client = connect(server)?;
    let total = balance(&mut client)?;
    let expected = ACCOUNTS as i64 * BALANCE;
    expect(total == expected, || format!("the accounts hold {total} and not {expected}"))?;
    let keys = call(&mut client, &["DBSIZE"])?.integer().unwrap_or_default();
    let least = (FILLERS + ACCOUNTS) as i64;
    expect(keys >= least, || format!("{keys} keys are there, and not {least} or more"))?;
    (0..WRITERS).map(|writer| recovered(&mut client, writer)).collect()
}

//! Scripts beside others: who does not need the keys of a script is served while it runs, scripts
//! that find their keys while they run lose nothing, and exclusive plans get their turn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Arena, Random, Verdict, call, connect, expect, in_threads, integer};
use crate::client::{Client, ReadError};
use crate::info;
use crate::poll;
use crate::server::Server;
use crate::value::Value;

/// How soon somebody must be served who has nothing to do with a script.
const SOON: Duration = Duration::from_millis(100);

/// Asserts that nothing is answered for a while.
pub fn is_waiting(client: &mut Client, who: &str) -> Result<(), String> {
    match client.read(Duration::from_millis(50)) {
        Err(ReadError::Timeout) => Ok(()),
        Err(error) => Err(format!("{who}: {error}")),
        Ok(reply) => Err(format!("{who} was answered {}", reply.to_talk())),
    }
}

fn send(client: &mut Client, args: &[&str]) -> Result<(), String> {
    client.send(args).map_err(|error| error.to_string())
}

/// Starts an endless script that changes `stuck`, and waits until it runs.
pub fn run_away(server: &Server, runner: &mut Client) -> Result<(), String> {
    let script = "redis.call('SET', KEYS[1], 'half') redis.call('PUBLISH', 'news', 'half')
        while true do end";
    let mut probe = connect(server)?;
    call(&mut probe, &["SET", "stuck", "whole"])?;
    send(runner, &["EVAL", script, "1", "stuck"])?;
    // Runs once a reader of its key has to wait.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        send(&mut probe, &["GET", "stuck"])?;
        match probe.read(Duration::from_millis(50)) {
            Err(ReadError::Timeout) => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(reply) if Instant::now() > deadline => {
                return Err(format!("the script does not run: {}", reply.to_talk()));
            }
            Ok(_) => {}
        }
    }
}

/// What is served meanwhile, from connections of every worker.
fn serve_others(others: &mut [Client], worst: &mut Duration) -> Result<(), String> {
    for (number, client) in others.iter_mut().enumerate() {
        let (key, list) = (format!("free:{number}"), format!("list:{number}"));
        let commands: [&[&str]; 8] = [
            &["PING"],
            &["SET", &key, "1"],
            &["INCR", &key],
            &["MULTI"],
            &["INCR", &key],
            &["EXEC"],
            &["BLPOP", &list, "0.01"],
            &["INFO", "scripts"],
        ];
        for command in commands {
            let started = Instant::now();
            call(client, command)?;
            *worst = (*worst).max(started.elapsed());
            expect(started.elapsed() < SOON, || {
                format!("{command:?} on connection {number} took {:?}", started.elapsed())
            })?;
        }
    }
    Ok(())
}

pub fn runaway(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, where a script keeps everybody waiting".to_owned());
    }
    let server = arena.start(2, &["--busy-reply-threshold", "1500"])?;
    // Both workers have some: connections are dealt out in turn.
    let mut others: Vec<Client> = (0..4).map(|_| connect(&server)).collect::<Result<_, _>>()?;
    let mut waiting: Vec<Client> = (0..4).map(|_| connect(&server)).collect::<Result<_, _>>()?;
    let mut subscriber = connect(&server)?;
    call(&mut subscriber, &["SUBSCRIBE", "news"])?;
    let mut worst = Duration::ZERO;

    // Killed before the threshold: who waited goes on, and sees nothing of it.
    let mut runner = connect(&server)?;
    run_away(&server, &mut runner)?;
    for client in &mut waiting {
        send(client, &["APPEND", "stuck", "!"])?;
    }
    serve_others(&mut others, &mut worst)?;
    call(&mut others[0], &["PUBLISH", "news", "other"])?;
    let push = subscriber.read(SOON).map_err(|error| format!("the subscriber: {error}"))?;
    let of_other = push.elements().is_some_and(|push| push[2].text().as_deref() == Some("other"));
    expect(of_other, || format!("the subscriber heard {}", push.to_talk()))?;
    for client in &mut waiting {
        is_waiting(client, "a command on the key of a script")?;
    }
    call(&mut others[1], &["SCRIPT", "KILL"])?;
    let reply = runner.read(Duration::from_secs(5)).map_err(|error| error.to_string())?;
    expect(reply.to_talk().contains("Script killed by user"), || reply.to_talk())?;
    let mut lengths = Vec::new();
    for client in &mut waiting {
        let reply = client.read(Duration::from_secs(5)).map_err(|error| error.to_string())?;
        lengths.push(reply.integer().ok_or_else(|| reply.to_talk())?);
    }
    lengths.sort_unstable();
    expect(lengths == [6, 7, 8, 9], || format!("lengths after the script: {lengths:?}"))?;
    is_waiting(&mut subscriber, "the subscriber of what a killed script published")?;

    // Past the threshold: BUSY for its keys and for what needs all keys, nobody else.
    run_away(&server, &mut runner)?;
    let needs_it: [&[&str]; 4] = [
        &["APPEND", "stuck", "!"],
        &["EVAL", "return redis.call('GET', KEYS[1])", "1", "stuck"],
        &["FLUSHALL"],
        &["DBSIZE"],
    ];
    for (client, command) in waiting.iter_mut().zip(needs_it) {
        send(client, command)?;
    }
    serve_others(&mut others, &mut worst)?;
    for (client, command) in waiting.iter_mut().zip(needs_it) {
        let reply = client.read(Duration::from_secs(5));
        let reply = reply.map_err(|error| format!("{command:?}: {error}"))?;
        expect(reply.to_talk().starts_with("-BUSY "), || {
            format!("{command:?} answered {}", reply.to_talk())
        })?;
    }
    serve_others(&mut others, &mut worst)?;
    // A client that leaves while it is stalled leaves nothing behind.
    send(&mut waiting[0], &["GET", "stuck"])?;
    waiting.clear();
    call(&mut others[2], &["SCRIPT", "KILL"])?;
    let value = poll(Duration::from_secs(5), || others[3].call(&["GET", "stuck"]).ok()?.text());
    expect(value.as_deref() == Some("whole"), || format!("left behind: {value:?}"))?;
    for client in &mut others {
        call(client, &["EVAL", "return 1", "0"])?;
    }
    Ok(format!("others waited {worst:?} at most"))
}

const ACCOUNTS: usize = 12;
const START: i64 = 1000;

/// Declares the source, finds the target, and sometimes fails in the middle.
const TRANSFER: &str = "local from, to = KEYS[1], 'account:' .. ARGV[1]
redis.call('DECRBY', from, ARGV[2])
if ARGV[3] == 'fail' then error('changed my mind') end
redis.call('INCRBY', to, ARGV[2])
redis.call('RPUSH', 'journal:' .. ARGV[1], from)
return 1";

const SUM: &str = "local sum = 0
for i = 0, 11 do sum = sum + redis.call('GET', 'account:' .. i) end
return sum";

pub fn bank(arena: &Arena) -> Verdict {
    let each = arena.count(20_000);
    let server = arena.start(4, &[])?;
    let mut client = connect(&server)?;
    for number in 0..ACCOUNTS {
        call(&mut client, &["SET", &format!("account:{number}"), &START.to_string()])?;
    }
    let total = ACCOUNTS as i64 * START;
    let written = AtomicUsize::new(0);
    let seed = arena.seed;
    in_threads(8, |thread| {
        let mut client = connect(&server)?;
        let mut random = Random::new(seed + thread as u64);
        for round in 0..each {
            let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
            let (source, target) = (format!("account:{from}"), format!("account:{to}"));
            let amount = random.below(10).to_string();
            match random.below(8) {
                // In Redis a script that fails in the middle leaves the half of it.
                0 if !arena.oracle => {
                    let (to, fail) = (to.to_string(), "fail");
                    let args = ["EVAL", TRANSFER, "1", &source, &to, &amount, fail];
                    let reply = client.call(&args).map_err(|error| error.to_string())?;
                    expect(reply.to_talk().contains("changed my mind"), || reply.to_talk())?;
                }
                0 | 1 => {
                    call(&mut client, &["MULTI"])?;
                    call(&mut client, &["DECRBY", &source, &amount])?;
                    call(&mut client, &["INCRBY", &target, &amount])?;
                    call(&mut client, &["EXEC"])?;
                }
                2 => {
                    let names: Vec<String> =
                        (0..ACCOUNTS).map(|number| format!("account:{number}")).collect();
                    let mut command = vec!["MGET"];
                    command.extend(names.iter().map(String::as_str));
                    let reply = call(&mut client, &command)?;
                    let balances = reply.elements().unwrap_or_default();
                    let sum: i64 = balances
                        .iter()
                        .filter_map(|balance| balance.text()?.parse::<i64>().ok())
                        .sum();
                    expect(sum == total, || format!("MGET sees {sum} of {total}; seed {seed}"))?;
                }
                3 if round % 4 == 0 => {
                    let sum = integer(&mut client, &["EVAL", SUM, "0"])?;
                    expect(sum == total, || format!("a script sees {sum}; seed {seed}"))?;
                }
                3 => {
                    call(&mut client, &["MULTI"])?;
                    let to = to.to_string();
                    call(&mut client, &["EVAL", TRANSFER, "1", &source, &to, &amount])?;
                    let reply = call(&mut client, &["EXEC"])?;
                    expect(!reply.to_talk().contains("-ERR"), || reply.to_talk())?;
                    written.fetch_add(1, Ordering::Relaxed);
                }
                _ => {
                    let to = to.to_string();
                    call(&mut client, &["EVAL", TRANSFER, "1", &source, &to, &amount])?;
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    })?;
    let sum = integer(&mut client, &["EVAL", SUM, "0"])?;
    expect(sum == total, || format!("{sum} of {total} are left; seed {seed}"))?;
    let mut entries = 0;
    for number in 0..ACCOUNTS {
        entries += integer(&mut client, &["LLEN", &format!("journal:{number}")])?;
    }
    let written = written.into_inner() as i64;
    expect(entries == written, || {
        format!("{entries} journal entries for {written} transfers; seed {seed}")
    })?;
    if arena.oracle {
        return Ok(format!("{written} transfers"));
    }
    let restarts = info::number(&mut client, "script_restarts")?;
    let parallel = info::number(&mut client, "script_parallel_runs")?;
    let exclusive = info::number(&mut client, "script_exclusive_runs")?;
    expect(restarts > 0 && parallel > 0 && exclusive > 0, || {
        format!("{parallel} parallel runs, {restarts} restarts, {exclusive} exclusive runs")
    })?;
    Ok(format!("{parallel} parallel runs, {restarts} restarts, {exclusive} exclusive runs"))
}

/// Long scripts on every worker, one after the other; each takes 40 ms of processor time.
const LONG: &str = "local stop = os.clock() + 0.04
while os.clock() < stop do end
return redis.call('INCR', KEYS[1])";

/// Long scripts that may end before an exclusive command is served: those that run when it comes
/// and those that stood in line before it, by far.
const BEFORE_MAX: usize = 16;

pub fn exclusive(arena: &Arena) -> Verdict {
    let server = arena.start(2, &[])?;
    let done = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    let rounds = arena.count(200);
    // Counted in scripts and not in time, which a loaded machine stretches.
    let worst = in_threads(6, |number| {
        let mut client = connect(&server)?;
        if number < 4 {
            let key = format!("long:{number}");
            while !done.load(Ordering::Acquire) {
                call(&mut client, &["EVAL", LONG, "1", &key])?;
                ended.fetch_add(1, Ordering::AcqRel);
            }
            return Ok(0);
        }
        let mut worst = 0;
        let commands: [&[&str]; 4] = [
            &["SWAPDB", "2", "3"],
            &["KEYS", "*"],
            &["EVAL", "return redis.call('DBSIZE')", "0"],
            &["FLUSHDB"],
        ];
        let served = (0..rounds).try_for_each(|round| {
            let before = ended.load(Ordering::Acquire);
            let command = commands[round % commands.len()];
            let reply = call(&mut client, command)?;
            worst = worst.max(ended.load(Ordering::Acquire) - before);
            expect(!matches!(reply, Value::Error(_)), || reply.to_talk())?;
            expect(worst <= BEFORE_MAX, || format!("{command:?} waited for {worst} scripts"))
        });
        done.store(true, Ordering::Release);
        served.map(|()| worst)
    })?;
    let worst = worst.into_iter().max().unwrap_or_default();
    Ok(format!("behind {worst} of {} scripts at most", ended.into_inner()))
}

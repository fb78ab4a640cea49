//! Scripts on a worker that is inside of another script: they run from within it, their effects
//! happen exactly once, and they do not keep it from being killed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::parallel::{is_waiting, run_away};
use super::{Arena, Random, Verdict, call, connect, expect, in_threads, integer};
use crate::client::Client;
use crate::info;
use crate::poll;
use crate::server::Server;
use crate::value::Value;

/// How long a short script may take beside an endless one. It waits for the next interrupt, 10 ms,
/// behind those that came before it.
const SOON: Duration = Duration::from_millis(250);
/// How soon the keys of a killed script are free.
const FREE: Duration = Duration::from_millis(50);

/// So many that every worker has some.
const CLIENTS: usize = 8;
const KEYS: usize = 4;
const KILLS: usize = 9;

/// Lets so many through per window; the second key is not declared.
const LIMITER: &str = "local n = redis.call('INCR', KEYS[1])
    if n == 1 then redis.call('EXPIRE', KEYS[1], 600) end
    redis.call('HINCRBY', 'passed:' .. ARGV[2], KEYS[1], n <= tonumber(ARGV[1]) and 1 or 0)
    return n <= tonumber(ARGV[1]) and 1 or 0";

/// Beyond the leash of a nested script, and undone then.
const LONG: &str = "local n = redis.call('INCR', KEYS[1])
    redis.call('RPUSH', KEYS[2], n)
    local stop = os.clock() + 0.06
    while os.clock() < stop do end
    return n";

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Rate limiters from connections of every worker, beside a script that does not end.
fn limit(server: &Server, each: usize, seed: u64) -> Result<Duration, String> {
    let limit = (CLIENTS * each / 2 / KEYS) as i64;
    let passed: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(0)).collect();
    let worst = in_threads(CLIENTS, |thread| {
        let mut client = connect(server)?;
        let mut random = Random::new(seed + thread as u64);
        let mut worst = Duration::ZERO;
        for _ in 0..each {
            let number = random.below(KEYS);
            let (key, field) = (format!("limit:{number}"), number.to_string());
            let started = Instant::now();
            let command = ["EVAL", LIMITER, "1", &key, &limit.to_string(), &field];
            let one = integer(&mut client, &command)?;
            worst = worst.max(started.elapsed());
            passed[number].fetch_add(one as usize, Ordering::Relaxed);
        }
        Ok(worst)
    })?;
    let mut client = connect(server)?;
    for (number, passed) in passed.iter().enumerate() {
        let (key, passed) = (format!("limit:{number}"), passed.load(Ordering::Relaxed) as i64);
        let tried = integer(&mut client, &["INCRBY", &key, "0"])?;
        expect(passed == limit.min(tried), || {
            format!("{passed} of {tried} passed, limit {limit}; seed {seed}")
        })?;
        let told = call(&mut client, &["HGET", &format!("passed:{number}"), &key])?.text();
        expect(told == Some(passed.to_string()), || {
            format!("{passed} passed, {told:?} were written; seed {seed}")
        })?;
    }
    Ok(worst.into_iter().max().unwrap_or_default())
}

pub fn beside_a_runaway(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, where a script keeps everybody waiting".to_owned());
    }
    let server = arena.start(2, &["--busy-reply-threshold", "60000"])?;
    let mut others: Vec<Client> =
        (0..CLIENTS).map(|_| connect(&server)).collect::<Result<_, _>>()?;
    let mut runner = connect(&server)?;
    run_away(&server, &mut runner)?;

    let worst = limit(&server, arena.count(400), arena.seed)?;
    expect(worst < SOON, || format!("a rate limiter took {worst:?} beside a runaway script"))?;
    expect(info::number(&mut others[0], "script_nested_runs")? > 0, || {
        "none was nested".to_owned()
    })?;

    // What needs all keys waits for the runaway, and keeps no script from beginning meanwhile.
    let mut walker = connect(&server)?;
    walker.send(&["DBSIZE"]).map_err(text)?;
    is_waiting(&mut walker, "DBSIZE")?;

    // Whatever else is done with scripts, on every connection.
    for (number, client) in others.iter_mut().enumerate() {
        let source = format!("return ARGV[1] + {number}");
        let sha = call(client, &["SCRIPT", "LOAD", &source])?.text().unwrap_or_default();
        let sum = integer(client, &["EVALSHA", &sha, "0", "1"])?;
        expect(sum == number as i64 + 1, || format!("EVALSHA answered {sum}"))?;
        let reply = client.call(&["EVAL", "redis.call('SET', KEYS[1], 'x') error('no')", "1", "n"]);
        expect(reply.map_err(text)?.is_error(), || "no error".to_owned())?;
        expect(integer(client, &["EXISTS", "n"])? == 0, || "an error left a key".to_owned())?;
        let deep = "local function f(n) return n == 0 and 0 or 1 + f(n - 1) end
            local t = {} for i = 1, 100 do t = {t} end
            return f(1000) + #cjson.encode(t)";
        expect(integer(client, &["EVAL", deep, "0"])? == 1202, || "a deep script".to_owned())?;
        call(client, &["SCRIPT", "FLUSH"])?;
        let started = Instant::now();
        call(client, &["INFO"])?;
        let took = started.elapsed();
        expect(took < SOON, || format!("INFO took {took:?} beside a runaway script"))?;
    }

    // Those that take too long beside it end once it has ended, and count once.
    let began = Instant::now();
    for client in &mut others {
        client.send(&["EVAL", LONG, "2", "long", "order"]).map_err(text)?;
    }
    // Half of them are on the other worker.
    let mut control = connect(&server)?;
    let half = poll(Duration::from_secs(30), || {
        let count = integer(&mut control, &["LLEN", "order"]).ok()?;
        let undone = info::number(&mut control, "script_nested_runs_undone").ok()?;
        (count >= CLIENTS as i64 / 2 && undone > 0).then_some(())
    });
    expect(half.is_some(), || "long scripts of the other worker did not end".to_owned())?;
    let undone = info::number(&mut control, "script_nested_runs_undone")?;
    let tries = began.elapsed().as_secs() as i64 + 2;
    expect(undone <= tries, || format!("tried {undone} times in {:?}", began.elapsed()))?;
    call(&mut control, &["SCRIPT", "KILL"])?;
    let value = call(&mut control, &["GET", "stuck"])?.text();
    expect(value.as_deref() == Some("whole"), || format!("left behind: {value:?}"))?;
    let mut numbers = Vec::new();
    for client in &mut others {
        let reply = client.read(Duration::from_secs(30)).map_err(text)?;
        numbers.push(reply.integer().ok_or_else(|| reply.to_talk())?);
    }
    numbers.sort_unstable();
    let all: Vec<i64> = (1..=CLIENTS as i64).collect();
    expect(numbers == all, || format!("long scripts answered {numbers:?}"))?;
    let order = call(&mut control, &["LRANGE", "order", "0", "-1"])?;
    let order: Vec<_> = order.elements().unwrap_or_default().iter().map(Value::text).collect();
    let all: Vec<_> = all.iter().map(|number| Some(number.to_string())).collect();
    expect(order == all, || format!("they wrote {order:?}"))?;
    let size = walker.read(Duration::from_secs(5)).map_err(text)?;
    expect(size.integer().is_some(), || format!("DBSIZE answered {}", size.to_talk()))?;
    let killed = runner.read(Duration::from_secs(5)).map_err(text)?;
    expect(killed.to_talk().contains("Script killed by user"), || killed.to_talk())?;

    let nested = info::number(&mut control, "script_nested_runs")?;
    Ok(format!("{nested} nested runs, {worst:.1?} at most"))
}

/// A reply waits to be sent when a long script of the same connection begins in the same turn of
/// the worker, and others are served from within it: the script's own reply is sent as well.
pub fn answered_behind_another(arena: &Arena) -> Verdict {
    let server = arena.start(1, &[])?;
    let (mut client, mut other) = (connect(&server)?, connect(&server)?);
    let long = "local n = 0 for i = 1, 5e7 do n = n + i % 3 end return ARGV[1]";
    let rounds = 3;
    for round in 0..rounds {
        let round = round.to_string();
        client.send(&["BLPOP", "queue", "0"]).map_err(text)?;
        client.send(&["EVAL", long, "0", &round]).map_err(text)?;
        poll(Duration::from_secs(10), || {
            (info::number(&mut other, "blocked_clients").ok()? == 1).then_some(())
        })
        .ok_or("BLPOP does not wait")?;
        call(&mut other, &["RPUSH", "queue", &round])?;
        for expected in [format!("[\"queue\" \"{round}\"]"), format!("\"{round}\"")] {
            let reply = client.read(Duration::from_secs(30)).map_err(text)?.to_talk();
            expect(reply == expected, || format!("{reply} instead of {expected}"))?;
        }
    }
    Ok(format!("{rounds} long scripts were answered"))
}

/// Endless scripts are killed while others keep their worker busy with nested ones, and their keys
/// are free soon.
pub fn killed_among_others(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, where a script keeps everybody waiting".to_owned());
    }
    let server = arena.start(2, &["--busy-reply-threshold", "500"])?;
    let mut control = connect(&server)?;
    let mut killers: Vec<Client> = (0..2).map(|_| connect(&server)).collect::<Result<_, _>>()?;
    let done = AtomicBool::new(false);
    let flood = |number: usize| {
        let mut client = connect(&server)?;
        let (key, list) = (format!("flood:{number}"), format!("list:{number}"));
        let script = [LIMITER, LONG][number / 2 % 2];
        while !done.load(Ordering::Acquire) {
            // One that waits for the endless one hears BUSY.
            let command = ["EVAL", script, "2", &key, &list, "1", "flood"];
            client.call(&command).map_err(text)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let floods = scope.spawn(|| in_threads(CLIENTS, flood));
        let mut kills = || {
            let mut took = Vec::new();
            for _ in 0..KILLS {
                took.push(kill(&server, &mut control, &mut killers)?);
            }
            // One or another may be the machine's fault.
            took.sort_unstable();
            let median = took[KILLS / 2];
            expect(median <= FREE, || format!("the keys were free after {took:?}"))?;
            Ok(format!("free after {median:.1?}, the median of {KILLS}"))
        };
        let outcome = kills();
        done.store(true, Ordering::Release);
        floods.join().map_err(|_| "a client thread panicked".to_owned())??;
        outcome
    })
}

/// Runs an endless script and kills it once it is busy. Answers how long its key was not free
/// after that.
fn kill(server: &Server, control: &mut Client, killers: &mut [Client]) -> Result<Duration, String> {
    call(control, &["SET", "stuck", "whole"])?;
    let mut runner = connect(server)?;
    let script = "redis.call('SET', KEYS[1], 'half') while true do end";
    runner.send(&["EVAL", script, "1", "stuck"]).map_err(text)?;
    let busy = poll(Duration::from_secs(20), || {
        // On a loaded machine it may hear itself that others are busy.
        if runner.read(Duration::from_millis(1)).is_ok() {
            runner.send(&["EVAL", script, "1", "stuck"]).ok()?;
        }
        let reply = control.call(&["GET", "stuck"]).ok()?;
        reply.to_talk().starts_with("-BUSY").then_some(())
    });
    expect(busy.is_some(), || "the script is never busy".to_owned())?;
    let killer = &mut killers[0];
    let started = Instant::now();
    call(killer, &["SCRIPT", "KILL"])?;
    let reply = control.call(&["GET", "stuck"]).map_err(text)?;
    let took = started.elapsed();
    expect(reply == Value::bulk("whole"), || format!("left behind: {}", reply.to_talk()))?;
    let reply = runner.read(Duration::from_secs(5)).map_err(text)?;
    expect(reply.to_talk().contains("Script killed by user"), || reply.to_talk())?;
    killers.rotate_left(1);
    Ok(took)
}

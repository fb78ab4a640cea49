//! Scripts that are killed inside one long command: how soon others have their keys again.

use std::time::{Duration, Instant};

use super::{Arena, Verdict, call, connect, expect};
use crate::client::Client;
use crate::poll;
use crate::server::Server;

/// How soon the keys of a killed script are free.
const SOON: Duration = Duration::from_millis(50);
const TRIES: usize = 3;
/// So many that each worker has one.
const KILLERS: usize = 8;

const COMMANDS: &[&str] = &[
    "'ZUNIONSTORE', 'out', 2, 'zset', 'other'",
    "'ZINTERSTORE', 'out', 2, 'zset', 'other'",
    "'ZDIFFSTORE', 'out', 1, 'zset'",
    "'ZRANGESTORE', 'out', 'zset', 0, -1",
    "'ZRANGE', 'zset', 0, -1, 'WITHSCORES'",
    "'SUNIONSTORE', 'out', 'set', 'zset-free'",
    "'SDIFF', 'set'",
    "'SMEMBERS', 'set'",
    "'HGETALL', 'hash'",
    "'LRANGE', 'list', 0, -1",
    "'LPOS', 'list', 'none'",
    "'LINSERT', 'list', 'BEFORE', 'none', 'x'",
    "'LREM', 'list', 0, 'none'",
    "'SRANDMEMBER', 'set', -1000000",
    "'HRANDFIELD', 'hash', -1000000",
    "'ZRANDMEMBER', 'zset', -1000000",
    "'COPY', 'hash', 'out', 'REPLACE'",
    "'COPY', 'zset', 'out', 'REPLACE'",
    "'KEYS', '*none*'",
    "'SCAN', 0, 'COUNT', 100000000",
    "'LCS', 'text', 'text', 'LEN'",
];

fn fill(client: &mut Client, elements: usize) -> Result<(), String> {
    let script = format!(
        "for i = 1, {elements}, 10 do
            local zset, other, set, hash, list, keys = {{}}, {{}}, {{}}, {{}}, {{}}, {{}}
            for j = i, i + 9 do
                local name = 'member:' .. j
                for _, pair in ipairs({{ {{zset, j}}, {{other, -j}} }}) do
                    pair[1][#pair[1] + 1] = pair[2]
                    pair[1][#pair[1] + 1] = name
                end
                set[#set + 1] = name
                hash[#hash + 1] = name
                hash[#hash + 1] = j
                list[#list + 1] = name
                keys[#keys + 1] = 'key:' .. j
                keys[#keys + 1] = j
            end
            redis.call('ZADD', 'zset', unpack(zset))
            redis.call('ZADD', 'other', unpack(other))
            redis.call('SADD', 'set', unpack(set))
            redis.call('HSET', 'hash', unpack(hash))
            redis.call('RPUSH', 'list', unpack(list))
            redis.call('MSET', unpack(keys))
        end
        redis.call('SET', 'text', string.rep('abcdefghij', 1000))"
    );
    call(client, &["EVAL", &script, "0"]).map(|_| ())
}

/// Kills a script that repeats a command, and answers how long its keys were not free after that.
/// There is a killer on each worker: the one that runs the script hears it between commands only.
fn kill(
    server: &Server,
    control: &mut Client,
    killers: &mut [Client],
    command: &str,
) -> Result<Duration, String> {
    let script = format!("redis.call('SET', 'mark', 1) while true do redis.call({command}) end");
    let mut runner = connect(server)?;
    runner.send(&["EVAL", &script, "1", "mark"]).map_err(|error| error.to_string())?;
    let name = command.split('\'').nth(1).unwrap_or_default().to_lowercase();
    let began = poll(Duration::from_secs(20), || {
        let reply = control.call(&["INFO", "commandstats"]).ok()?;
        // Who needs all keys is alone, and after a while others hear that.
        let is_alone = reply.to_talk().starts_with("-BUSY");
        (is_alone || reply.text().is_some_and(|text| text.contains(&format!("cmdstat_{name}:"))))
            .then_some(())
    });
    expect(began.is_some(), || format!("{command} never ran"))?;
    let mut killed_at = Instant::now();
    let killed = poll(Duration::from_secs(20), || {
        killed_at = Instant::now();
        for killer in killers.iter_mut() {
            killer.send(&["SCRIPT", "KILL"]).ok()?;
        }
        let patience = Duration::from_secs(20);
        let replies: Option<Vec<_>> =
            killers.iter_mut().map(|killer| killer.read(patience).ok()).collect();
        replies?.iter().any(|reply| reply.to_talk() == "+OK").then_some(())
    });
    expect(killed.is_some(), || format!("{command} was not killed"))?;
    // Waits for the key, and then finds it as it was before.
    let free = poll(Duration::from_secs(20), || {
        let reply = control.call(&["EXISTS", "mark", "out"]).ok()?;
        (!reply.is_error()).then_some(reply)
    });
    let took = killed_at.elapsed();
    let left = free.and_then(|reply| reply.integer());
    expect(left == Some(0), || format!("{command} left {left:?}"))?;
    let reply = runner.read(Duration::from_secs(20)).map_err(|error| error.to_string())?;
    expect(reply.is_error(), || format!("{command}: the script heard {}", reply.to_talk()))?;
    call(control, &["CONFIG", "RESETSTAT"])?;
    Ok(took)
}

pub fn long_commands(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, which looks at kills between commands only".to_owned());
    }
    let server = arena.start(2, &["--busy-reply-threshold", "50"])?;
    let mut control = connect(&server)?;
    let mut killers = Vec::new();
    for _ in 0..KILLERS {
        killers.push(connect(&server)?);
    }
    let elements = arena.count(1_000_000);
    fill(&mut control, elements)?;
    call(&mut control, &["CONFIG", "RESETSTAT"])?;
    let mut worst = (Duration::ZERO, "");
    for command in COMMANDS {
        let mut took = Vec::new();
        for _ in 0..TRIES {
            took.push(kill(&server, &mut control, &mut killers, command)?);
        }
        // One of three may be the machine's fault.
        took.sort_unstable();
        let median = took[TRIES / 2];
        expect(median <= SOON, || format!("{command}: the keys were free after {took:?}"))?;
        worst = worst.max((median, command));
    }
    let (took, command) = worst;
    let commands = COMMANDS.len();
    Ok(format!(
        "{commands} commands over {elements} elements, free after {took:.1?}, the median \
         of the slowest ({command})"
    ))
}

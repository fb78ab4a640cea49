//! Scripts of random commands that are ended at a random moment: the keyspace is as before, and
//! nobody has heard of them.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Arena, Random, Verdict, call, connect, expect, integer, templates};
use crate::client::Client;
use crate::poll;
use crate::server::Server;
use crate::value::Value;

/// Runs the commands given in ARGV, each behind its length, over and over; fails after as many as
/// the first argument says. The second says what it fills besides.
const BODY: &str = "local left, at, commands = tonumber(ARGV[1]), 3, {}
    while at <= #ARGV do
        local command = {}
        for i = 1, tonumber(ARGV[at]) do command[i] = ARGV[at + i] end
        commands[#commands + 1] = command
        at = at + #command + 1
    end
    local heap = {}
    while true do
        for _, command in ipairs(commands) do
            if left == 0 then error('enough') end
            left = left - 1
            redis.pcall(unpack(command))
            if ARGV[2] == 'heap' then heap[#heap + 1] = string.rep('x', 5000) .. left end
            if ARGV[2] == 'keys' then redis.call('SET', 'new:' .. left, left) end
        end
    end";

/// Commands in one script.
const COMMANDS: usize = 40;

/// How a script is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Error,
    Kill,
    Deadline,
    UndoLimit,
    Memory,
}

const ENDS: &[(End, &str)] = &[
    (End::Error, "enough"),
    (End::Kill, "Script killed by user"),
    (End::Deadline, "ended by its deadline"),
    (End::UndoLimit, "script-undo-limit"),
    (End::Memory, "not enough memory"),
];

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// All there is in the first two databases, but for what others work on meanwhile.
fn dump(client: &mut Client) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for db in ["0", "1"] {
        call(client, &["SELECT", db])?;
        let keys = call(client, &["KEYS", "*"])?;
        let keys = keys.elements().unwrap_or_default().iter().filter_map(Value::text);
        let mut keys: Vec<String> = keys.filter(|key| !key.starts_with("limit:")).collect();
        keys.sort();
        for key in keys {
            let value_type = call(client, &["TYPE", &key])?.to_talk();
            let read: &[&str] = match value_type.as_str() {
                "+string" => &["GET", &key],
                "+list" => &["LRANGE", &key, "0", "-1"],
                "+set" => &["SMEMBERS", &key],
                "+hash" => &["HGETALL", &key],
                "+zset" => &["ZRANGE", &key, "0", "-1", "WITHSCORES"],
                other => return Err(format!("{key} is {other}")),
            };
            let value = call(client, read)?;
            let mut elements: Vec<String> = match value.elements() {
                Some(elements) => elements.iter().map(Value::to_talk).collect(),
                None => vec![value.to_talk()],
            };
            if matches!(read[0], "SMEMBERS" | "HGETALL") {
                // Pairs keep together.
                let width = if read[0] == "HGETALL" { 2 } else { 1 };
                elements = elements.chunks(width).map(|pair| pair.join(" = ")).collect();
                elements.sort();
            }
            let encoding = call(client, &["OBJECT", "ENCODING", &key])?.to_talk();
            let expires = integer(client, &["PEXPIRETIME", &key])?;
            lines.push(format!("{db} {key} {encoding} {expires} {}", elements.join(" ")));
        }
    }
    call(client, &["SELECT", "0"])?;
    Ok(lines)
}

/// A command that may stand in such a script, of the whole keyspace only if asked for: those make
/// it run alone.
fn command(random: &mut Random, whole: bool) -> Vec<String> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    match random.below(30) {
        0 => return words("PUBLISH news undone"),
        1 => return words("RPUSH queue undone"),
        2 => return words("DEL queue"),
        3 if whole => return words("FLUSHALL"),
        4 if whole => return words("SWAPDB 0 1"),
        5 => return words("MOVE k1 1"),
        6 => return words("SELECT 1"),
        7 => return words("SELECT 0"),
        _ => {}
    }
    loop {
        let command = templates::command(random);
        if whole || !matches!(command[0].as_str(), "KEYS" | "DBSIZE") {
            return command;
        }
    }
}

/// Collections that have left their compact encodings.
fn fill(client: &mut Client, random: &mut Random) -> Result<(), String> {
    call(client, &["FLUSHALL"])?;
    for _ in 0..200 {
        let command = templates::command(random);
        client.call(&command).map_err(text)?;
    }
    let script = "for i = 1, 600 do
            redis.call('RPUSH', KEYS[1], 'm' .. i) redis.call('SADD', KEYS[2], 'm' .. i)
            redis.call('HSET', KEYS[3], 'm' .. i, i) redis.call('ZADD', KEYS[4], i % 7, 'm' .. i)
        end";
    let keys: Vec<String> = (0..4).map(|number| format!("k{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    call(client, &[&["DEL"], &keys[..]].concat())?;
    call(client, &[&["EVAL", script, "4"], &keys[..]].concat())?;
    call(client, &["DEL", "queue"])?;
    Ok(())
}

/// Who must not notice any of it.
struct Witnesses {
    subscriber: Client,
    blocked: Client,
    watcher: Client,
}

impl Witnesses {
    fn new(server: &Server) -> Result<Witnesses, String> {
        let mut subscriber = connect(server)?;
        call(&mut subscriber, &["SUBSCRIBE", "news"])?;
        Ok(Witnesses { subscriber, blocked: connect(server)?, watcher: connect(server)? })
    }

    fn begin(&mut self) -> Result<(), String> {
        let watch = ["WATCH", "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "lex0", "queue"];
        call(&mut self.watcher, &watch)?;
        self.blocked.send(&["BLPOP", "queue", "0"]).map_err(text)
    }

    /// Each of them hears what comes afterwards, and nothing before it.
    fn end(&mut self, control: &mut Client) -> Result<(), String> {
        call(&mut self.watcher, &["MULTI"])?;
        call(&mut self.watcher, &["PING"])?;
        let reply = call(&mut self.watcher, &["EXEC"])?;
        expect(reply.elements().is_some(), || "a WATCH was tripped".to_owned())?;
        call(control, &["PUBLISH", "news", "afterwards"])?;
        let patience = Duration::from_secs(20);
        let push = self.subscriber.read(patience).map_err(text)?.to_talk();
        expect(push.contains("afterwards"), || format!("the subscriber heard {push}"))?;
        let blocked = poll(patience, || {
            let info = call(control, &["INFO", "clients"]).ok()?.text()?;
            info.contains("blocked_clients:1\r\n").then_some(())
        });
        expect(blocked.is_some(), || "the blocked client is not blocked".to_owned())?;
        call(control, &["RPUSH", "queue", "afterwards"])?;
        let popped = self.blocked.read(patience).map_err(text)?.to_talk();
        expect(popped.contains("afterwards"), || format!("BLPOP answered {popped}"))
    }
}

/// One script, ended that way. Answers what its client heard.
fn run(
    end: End,
    runner: &mut Client,
    control: &mut Client,
    random: &mut Random,
) -> Result<String, String> {
    let whole = random.below(6) == 0;
    let left = match end {
        End::Error => random.below(3_000) as i64,
        _ => -1,
    };
    let body = match end {
        End::Deadline => format!("#!lua deadline={}\n{BODY}", 1 + random.below(20)),
        _ => BODY.to_owned(),
    };
    let limit = match end {
        End::UndoLimit => 1_000 + random.below(200_000),
        _ => 256 << 20,
    };
    call(control, &["CONFIG", "SET", "script-undo-limit", &limit.to_string()])?;
    let fills = match end {
        End::Memory => "heap",
        // The same few keys, written over and over, are recorded once.
        End::UndoLimit => "keys",
        _ => "nothing",
    };
    let mut words: Vec<String> =
        ["EVAL", &body, "1", "k0", &left.to_string(), fills].map(str::to_owned).to_vec();
    for _ in 0..COMMANDS {
        let command = command(random, whole);
        words.push(command.len().to_string());
        words.extend(command);
    }
    runner.send(&words).map_err(text)?;
    if end == End::Kill {
        // At any moment, also before it begins.
        let moment = Instant::now() + Duration::from_micros(random.below(20_000) as u64);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        let killed = poll(Duration::from_secs(20), || {
            control.call(&["SCRIPT", "KILL"]).ok()?;
            // It may have hit one of the others.
            runner.read(Duration::from_millis(20)).ok()
        });
        return killed.map(|reply| reply.to_talk()).ok_or_else(|| "not killed".to_owned());
    }
    let reply = runner.read(Duration::from_secs(60));
    let reply = reply.map_err(|error| format!("{end:?}: {error}"))?;
    expect(reply.is_error(), || format!("{end:?}: {}", reply.to_talk()))?;
    Ok(reply.to_talk())
}

pub fn at_any_moment(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, which keeps what a script wrote".to_owned());
    }
    let server =
        arena.start(2, &["--lua-memory-limit", "8mb", "--busy-reply-threshold", "60000"])?;
    let rounds = arena.count(400);
    println!("seed of the undone scripts: {}", arena.seed);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Nested scripts, on both workers.
        let others: Vec<_> = (0..2)
            .map(|number| {
                let (server, done) = (&server, &done);
                scope.spawn(move || {
                    let mut client = connect(server)?;
                    let (key, mut count) = (format!("limit:{number}"), 0);
                    let script = "return redis.call('INCR', KEYS[1])";
                    while !done.load(Ordering::Acquire) {
                        // What is flushed begins anew. A kill may hit it.
                        let reply = client.call(&["EVAL", script, "1", &key]).map_err(text)?;
                        let Some(next) = reply.integer() else { continue };
                        expect(next == count + 1 || next == 1, || {
                            format!("INCR of {count} is {next}")
                        })?;
                        count = next;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        let outcome = all_rounds(&server, rounds, arena.seed);
        done.store(true, Ordering::Release);
        for other in others {
            other.join().map_err(|_| "a client thread panicked".to_owned())??;
        }
        outcome.map_err(|why| format!("{why}\nseed {}", arena.seed))
    })
}

fn all_rounds(server: &Server, rounds: usize, seed: u64) -> Verdict {
    let mut random = Random::new(seed);
    let mut control = connect(server)?;
    let mut runners = [connect(server)?, connect(server)?];
    let mut witnesses = Witnesses::new(server)?;
    for round in 0..rounds {
        if round % 20 == 0 {
            fill(&mut control, &mut random)?;
        }
        let (end, expected) = ENDS[random.below(ENDS.len())];
        let before = dump(&mut control)?;
        witnesses.begin()?;
        let runner = &mut runners[round % 2];
        let heard = run(end, runner, &mut control, &mut random)?;
        expect(heard.contains(expected), || format!("round {round}, {end:?}: {heard}"))?;
        let after = dump(&mut control)?;
        if let Some(gone) = before.iter().find(|line| !after.contains(line)) {
            return Err(format!("round {round}, {end:?}: gone or changed: {gone}"));
        }
        if let Some(came) = after.iter().find(|line| !before.contains(line)) {
            return Err(format!("round {round}, {end:?}: came: {came}"));
        }
        witnesses.end(&mut control).map_err(|why| format!("round {round}, {end:?}: {why}"))?;
    }
    Ok(format!("{rounds} scripts ended by errors, kills, deadlines and limits"))
}

/// `redis.log` of a script that is undone: what it said before it wrote anything stays.
pub fn log_lines(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, which keeps what a script wrote".to_owned());
    }
    let path = std::env::temp_dir().join(format!("luar-undone-{}.log", std::process::id()));
    let name = path.to_string_lossy().into_owned();
    let server = arena.start(2, &["--logfile", &name])?;
    let mut client = connect(&server)?;
    let said = |word: &str| format!("redis.log(redis.LOG_WARNING, '{word}') ");
    let fails = said("before-failure")
        + "redis.call('SET', KEYS[1], 1) "
        + &said("behind-failure")
        + "error('no')";
    let reply = client.call(&["EVAL", &fails, "1", "k"]).map_err(text)?;
    expect(reply.is_error(), || reply.to_talk())?;
    let killed = said("before-kill")
        + "redis.call('SET', KEYS[1], 1) "
        + &said("behind-kill")
        + "while true do end";
    let killed = format!("#!lua deadline=20\n{killed}");
    let reply = client.call(&["EVAL", &killed, "1", "k"]).map_err(text)?;
    expect(reply.is_error(), || reply.to_talk())?;
    let exec = said("before-exec") + "redis.call('SET', KEYS[1], 1) " + &said("behind-exec");
    call(&mut client, &["MULTI", "ROLLBACK"])?;
    call(&mut client, &["EVAL", &exec, "1", "k"])?;
    call(&mut client, &["INCR", "k"])?;
    call(&mut client, &["LPUSH", "k", "x"])?;
    let reply = client.call(&["EXEC"]).map_err(text)?;
    expect(reply.to_talk().starts_with("-EXECABORT"), || reply.to_talk())?;
    let kept = said("before-end") + "redis.call('SET', KEYS[1], 1) " + &said("behind-end");
    call(&mut client, &["EVAL", &kept, "1", "k"])?;
    let log = poll(Duration::from_secs(20), || {
        let log = fs::read_to_string(&path).ok()?;
        log.contains("behind-end").then_some(log)
    });
    let outcome = log.ok_or_else(|| "the last line never came".to_owned()).and_then(|log| {
        for word in ["before-failure", "before-kill", "before-end"] {
            expect(log.contains(word), || format!("{word} is missing in {log}"))?;
        }
        for word in ["behind-failure", "behind-kill", "behind-exec"] {
            expect(!log.contains(word), || format!("{word} stands in {log}"))?;
        }
        Ok("lines before the first write stay, those behind it go with it".to_owned())
    });
    drop(server);
    let _ = fs::remove_file(&path);
    outcome
}

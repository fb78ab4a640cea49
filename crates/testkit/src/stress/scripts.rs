//! Scripts that would not end or would take everything.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{Arena, Verdict, call, connect, expect};
use crate::client::ReadError;
use crate::poll;
use crate::value::Value;

/// Endless in the interpreter, compiled, in calls, in C functions, in handlers of errors.
const ENDLESS: &[(&str, &str)] = &[
    ("an empty loop", "while true do end"),
    ("a compiled loop", "local n = 0 for i = 1, 1e18 do n = n + i end return n"),
    ("a loop of calls", "while true do redis.call('GET', 'k') end"),
    ("pcall", "while true do pcall(function() while true do end end) end"),
    ("xpcall", "xpcall(function() error('x') end, function() while true do end end)"),
    ("a coroutine", "coroutine.wrap(function() while true do end end)()"),
    (
        "recursion",
        "local function f(n) if n == 0 then return 0 end return f(n - 1) end \
                   while true do f(100) end",
    ),
    ("string building", "while true do local s = '' for i = 1, 1000 do s = s .. 'x' end end"),
    ("tables", "while true do local t = {} for i = 1, 1000 do t[i] = {i} end end"),
    ("JSON", "local t = {1, 2, {3}} while true do t = cjson.decode(cjson.encode(t)) end"),
    (
        "a metamethod",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) \
                      while true do pcall(function() return t[1] end) end",
    ),
];

pub fn killed(arena: &Arena) -> Verdict {
    let server = arena.start(2, &["--busy-reply-threshold", "100"])?;
    let mut others = [connect(&server)?, connect(&server)?, connect(&server)?];
    for (name, script) in ENDLESS {
        // Redis cannot end this one.
        if arena.oracle && *name == "xpcall" {
            continue;
        }
        call(&mut others[0], &["SET", "k", "v"])?;
        call(&mut others[0], &["SET", "n", "7"])?;
        let mut runner = connect(&server)?;
        runner.send(&["EVAL", script, "2", "k", "n"]).map_err(|error| error.to_string())?;
        let mut last = String::new();
        let killed = poll(Duration::from_secs(20), || {
            let [first, second, _] = &mut others;
            // Everybody hears BUSY before the script is killed.
            for client in [first, second] {
                let reply = client.call(&["INCR", "n"]).ok()?;
                last = reply.to_talk();
                if !last.starts_with("-BUSY ") {
                    return None;
                }
            }
            let reply = others[2].call(&["SCRIPT", "KILL"]).ok()?;
            last = reply.to_talk();
            (last == "+OK").then_some(())
        });
        expect(killed.is_some(), || format!("{name}: not killed; the last reply was {last}"))?;
        let reply = runner.read(Duration::from_secs(20));
        let reply = reply.map_err(|error| format!("{name}: the killed script: {error}"))?;
        let told = matches!(&reply, Value::Error(text)
            if String::from_utf8_lossy(text).contains("Script killed by user with SCRIPT KILL"));
        expect(told, || format!("{name}: its client heard {}", reply.to_talk()))?;
        let alive = poll(Duration::from_secs(10), || {
            let replies: Option<Vec<Value>> =
                others.iter_mut().map(|client| client.call(&["GET", "n"]).ok()).collect();
            let replies = replies?;
            last = replies[0].to_talk();
            (!replies.iter().any(Value::is_error)).then_some(())
        });
        expect(alive.is_some(), || format!("{name}: afterwards GET answers {last}"))?;
        let after = call(&mut others[0], &["EVAL", "return 1 + 1", "0"])?;
        expect(after == Value::Integer(2), || format!("{name}: then EVAL: {}", after.to_talk()))?;
    }
    Ok(format!("{} kinds of endless script", ENDLESS.len()))
}

/// Where what a script has written stays, it cannot be killed: only the server can be ended.
pub fn unkillable(arena: &Arena) -> Verdict {
    let mut args = vec!["--busy-reply-threshold", "100"];
    if !arena.oracle {
        args.extend(["--script-atomicity", "isolation"]);
    }
    let mut server = arena.start(2, &args)?;
    let mut client = connect(&server)?;
    let mut runner = connect(&server)?;
    let script = "while true do redis.call('INCR', 'n') end";
    runner.send(&["EVAL", script, "1", "n"]).map_err(|error| error.to_string())?;
    let mut last = String::new();
    let refused = poll(Duration::from_secs(20), || {
        // Before the threshold SHUTDOWN would just end the server; and before its first write the
        // script can be killed.
        last = client.call(&["PING"]).ok()?.to_talk();
        if !last.starts_with("-BUSY ") {
            return None;
        }
        last = client.call(&["SCRIPT", "KILL"]).ok()?.to_talk();
        last.starts_with("-UNKILLABLE ").then_some(())
    });
    expect(refused.is_some(), || format!("SCRIPT KILL answers {last}"))?;
    let reply = client.call(&["SHUTDOWN"]).map_err(|error| error.to_string())?;
    expect(reply.to_talk().starts_with("-BUSY "), || format!("SHUTDOWN: {}", reply.to_talk()))?;
    client.send(&["SHUTDOWN", "NOSAVE"]).map_err(|error| error.to_string())?;
    let ended = poll(Duration::from_secs(10), || server.ended());
    expect(ended.is_some(), || "SHUTDOWN NOSAVE does not end the server".to_owned())?;
    Ok("refused by SCRIPT KILL, ended by SHUTDOWN NOSAVE".to_owned())
}

/// A script that ends in time has its reply before the server ends, however it is told to.
pub fn finished(arena: &Arena) -> Verdict {
    let script = "for i = 1, 1500000 do redis.call('EXISTS', KEYS[1]) end redis.call('SET', KEYS[1], 'x') return 'finished'";
    let ends: [&[&str]; 3] = [&["SHUTDOWN", "NOSAVE"], &["SHUTDOWN"], &["SIGTERM"]];
    for end in ends {
        // In rollback mode NOSAVE waits for short ones only.
        let isolated: &[&str] = &["--script-atomicity", "isolation"];
        let keeps = !arena.oracle && end.contains(&"NOSAVE");
        let mut server = arena.start(4, if keeps { isolated } else { &[] })?;
        let mut runner = connect(&server)?;
        let mut probe = connect(&server)?;
        let mut last = connect(&server)?;
        runner.send(&["EVAL", script, "1", "key"]).map_err(|error| error.to_string())?;
        let running = poll(Duration::from_secs(10), || {
            probe.send(&["EXISTS", "key"]).ok()?;
            probe.read(Duration::from_millis(50)).is_err().then_some(())
        });
        expect(running.is_some(), || format!("{end:?}: the script never ran"))?;
        if end == ["SIGTERM"] {
            let sent = Command::new("kill").arg(server.pid().to_string()).status();
            expect(sent.is_ok_and(|status| status.success()), || "kill failed".to_owned())?;
        } else {
            last.send(end).map_err(|error| error.to_string())?;
        }
        match runner.read(Duration::from_secs(10)) {
            Ok(reply) => {
                expect(reply == Value::bulk("finished"), || {
                    format!("{end:?}: {}", reply.to_talk())
                })?;
            }
            // Redis ends before it sends what the last command answered.
            Err(ReadError::Closed) if arena.oracle => {}
            Err(error) => return Err(format!("{end:?}: {error}")),
        }
        let status = poll(Duration::from_secs(10), || server.ended());
        expect(status.is_some_and(|status| status.code() == Some(0)), || {
            format!("{end:?}: {status:?}")
        })?;
    }
    Ok("SHUTDOWN and SIGTERM wait for it".to_owned())
}

/// SHUTDOWN NOSAVE does not wait for `busy-reply-threshold` where what a script did can be undone.
pub fn given_up(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, which hears nothing meanwhile".to_owned());
    }
    let mut worst = Duration::ZERO;
    // From the worker of the script, and from the other one.
    for which in 0..2 {
        let mut server = arena.start(2, &["--busy-reply-threshold", "60000"])?;
        let mut clients = [connect(&server)?, connect(&server)?];
        let mut runner = connect(&server)?;
        let script = "redis.call('SET', KEYS[1], 1) while true do end";
        runner.send(&["EVAL", script, "1", "key"]).map_err(|error| error.to_string())?;
        let mut probe = connect(&server)?;
        let running = poll(Duration::from_secs(10), || {
            probe.send(&["GET", "key"]).ok()?;
            probe.read(Duration::from_millis(50)).is_err().then_some(())
        });
        expect(running.is_some(), || "the script never ran".to_owned())?;
        let started = Instant::now();
        clients[which].send(&["SHUTDOWN", "NOSAVE"]).map_err(|error| error.to_string())?;
        let status = poll(Duration::from_secs(20), || server.ended());
        worst = worst.max(started.elapsed());
        expect(status.is_some_and(|status| status.code() == Some(0)), || format!("{status:?}"))?;
    }
    expect(worst < Duration::from_secs(5), || format!("the server ended after {worst:?}"))?;
    Ok(format!("after {worst:.1?} at most"))
}

pub fn memory_limit(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, which has no such limit".to_owned());
    }
    let server = arena.start(2, &["--lua-memory-limit", "64mb"])?;
    let mut client = connect(&server)?;
    let scripts = [
        "local t = {} for i = 1, 1e9 do t[i] = {i} end",
        "local s = 'x' while true do s = s .. s end",
        "return string.rep('x', 2e9)",
        "local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 1000) .. i end",
        "local t = {} while true do t[#t + 1] = redis.call('GET', 'k') .. #t end",
        "local t = {} while true do pcall(function() t[#t + 1] = string.rep('y', 1e6) .. #t end) \
         if #t > 1e6 then break end end",
    ];
    call(&mut client, &["SET", "k", &"v".repeat(10_000)])?;
    let mut peak = 0;
    for round in 0..4 {
        for (number, script) in scripts.iter().enumerate() {
            if number == 5 {
                // It catches the error and goes on: only SCRIPT KILL ends that one.
                continue;
            }
            let reply = client.call(&["EVAL", script, "0"]).map_err(|error| {
                format!("round {round}, script {number}: {error}\n{}", server.log())
            })?;
            expect(reply.is_error(), || format!("script {number}: {}", reply.to_talk()))?;
            let resident = server.resident_bytes().map_err(|error| error.to_string())?;
            peak = peak.max(resident >> 20);
            let after = call(&mut client, &["EVAL", "return redis.call('STRLEN', 'k')", "0"])?;
            expect(after == Value::Integer(10_000), || after.to_talk())?;
        }
    }
    expect(peak < 512, || format!("the process grew to {peak} MiB"))?;
    Ok(format!("{} failures, {peak} MiB at most", 4 * (scripts.len() - 1)))
}

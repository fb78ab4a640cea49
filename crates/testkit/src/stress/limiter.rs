//! Rate limiters as scripts: the number let through is exact under concurrency.

use super::{Arena, Verdict, connect, expect, in_threads, integer};

/// Tries `attempts` times from each of eight clients and counts what was let through.
fn allowed(
    arena: &Arena,
    script: &str,
    attempts: usize,
    arguments: &[&str],
) -> Result<i64, String> {
    let server = arena.start(4, &[])?;
    let sums = in_threads(8, |number| {
        let mut client = connect(&server)?;
        let mut sum = 0;
        for attempt in 0..attempts {
            let member = format!("{number}:{attempt}");
            let mut command = vec!["EVAL", script, "1", "limit:{10.0.0.1}"];
            command.extend_from_slice(arguments);
            command.push(&member);
            sum += integer(&mut client, &command)?;
        }
        Ok(sum)
    })?;
    Ok(sums.iter().sum())
}

pub fn fixed_window(arena: &Arena) -> Verdict {
    let script = "local n = redis.call('INCR', KEYS[1])
        if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
        return n <= tonumber(ARGV[1]) and 1 or 0";
    let passed = allowed(arena, script, 2_000, &["1000", "600"])?;
    expect(passed == 1000, || format!("{passed} passed instead of 1000"))?;
    Ok("1000 of 16000 passed".to_owned())
}

pub fn sliding(arena: &Arena) -> Verdict {
    let script = "local now = redis.call('TIME')
        local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - ARGV[2])
        if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
        redis.call('ZADD', KEYS[1], now_ms, ARGV[3])
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return 1";
    let passed = allowed(arena, script, 1_000, &["700", "600000"])?;
    expect(passed == 700, || format!("{passed} passed instead of 700"))?;
    Ok("700 of 8000 passed".to_owned())
}

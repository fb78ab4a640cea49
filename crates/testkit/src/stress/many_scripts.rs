//! An application that writes values into its scripts: every source is a new one.

use super::parallel::info;
use super::{Arena, Random, Verdict, call, connect, expect, in_threads};
use crate::value::Value;

const ENTRIES_MAX: usize = 1000;
const BATCH: usize = 200;
const HOT: &str = "return redis.call('INCR', KEYS[1])";

/// Memory stays within bounds, and the scripts that others use or have loaded stay.
pub fn interpolated(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis 7.0, which keeps every script".to_owned());
    }
    let server = arena.start(2, &["--script-cache-entries", &ENTRIES_MAX.to_string()])?;
    let mut control = connect(&server)?;
    let loaded = call(&mut control, &["SCRIPT", "LOAD", "return 'loaded'"])?;
    let loaded = loaded.text().ok_or("SCRIPT LOAD answers no sha")?;
    call(&mut control, &["EVAL", HOT, "1", "hot"])?;
    let hot = call(&mut control, &["EVAL", "return redis.sha1hex(ARGV[1])", "0", HOT])?;
    let hot = hot.text().ok_or("no sha of the hot script")?;
    let threads = 4;
    let batches = arena.count(100_000) / threads / BATCH;
    let before = server.resident_bytes().map_err(|error| error.to_string())?;
    let peaks = in_threads(threads, |thread| {
        let mut client = connect(&server)?;
        let mut random = Random::new(arena.seed + thread as u64);
        let mut peak = 0;
        for batch in 0..batches {
            let mut commands: Vec<Vec<String>> = (0..BATCH)
                .map(|at| {
                    let number = (thread * batches + batch) * BATCH + at;
                    let padding = "x".repeat(random.below(2000));
                    let source = format!("local t = {{'{padding}'}} return {number} + #t");
                    vec!["EVAL".into(), source, "0".into()]
                })
                .collect();
            commands.push(["EVALSHA", &hot, "1", "hot"].map(String::from).to_vec());
            let replies = client.pipeline(&commands).map_err(|error| error.to_string())?;
            for (at, reply) in replies[..BATCH].iter().enumerate() {
                let number = (thread * batches + batch) * BATCH + at;
                expect(*reply == Value::Integer(number as i64 + 1), || reply.to_talk())?;
            }
            let reply = &replies[BATCH];
            expect(reply.integer().is_some(), || format!("the hot script: {}", reply.to_talk()))?;
            peak = peak.max(server.resident_bytes().map_err(|error| error.to_string())?);
        }
        Ok(peak)
    })?;
    let count = threads * batches * BATCH;
    let kept = info(&mut control, "number_of_cached_scripts")?;
    // Beside those of the limit, the loaded one.
    expect(kept == ENTRIES_MAX as i64 + 1, || format!("{kept} scripts are kept"))?;
    let evicted = info(&mut control, "evicted_scripts")?;
    // The hot one and the one that asked for its sha came with EVAL too.
    let expected = (count + 2 - ENTRIES_MAX) as i64;
    expect(evicted == expected, || format!("{evicted} evicted instead of {expected}"))?;
    let reply = call(&mut control, &["EVALSHA", &loaded, "0"])?;
    expect(reply == Value::bulk("loaded"), || reply.to_talk())?;
    let runs = call(&mut control, &["EVALSHA", &hot, "1", "hot"])?;
    let expected = (threads * batches + 2) as i64;
    expect(runs.integer() == Some(expected), || format!("the hot script: {}", runs.to_talk()))?;
    let peak = peaks.into_iter().max().unwrap_or(before);
    let grown = peak.saturating_sub(before) >> 20;
    // Some KB for each of the kept ones, and what the VMs have not collected yet.
    expect(grown < 96, || format!("{count} scripts cost {grown} MiB"))?;
    Ok(format!("{count} different scripts cost {grown} MiB at most"))
}

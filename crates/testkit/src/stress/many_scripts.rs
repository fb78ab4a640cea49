//! What the server keeps of scripts: those of an application that writes values into them, where
//! every source is a new one, and the statistics of those that come again and again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Arena, Random, Verdict, call, connect, expect, in_threads};
use crate::client::Client;
use crate::info;
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
    let kept = info::number(&mut control, "number_of_cached_scripts")?;
    // Beside those of the limit, the loaded one.
    expect(kept == ENTRIES_MAX as i64 + 1, || format!("{kept} scripts are kept"))?;
    let evicted = info::number(&mut control, "evicted_scripts")?;
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

/// Name, source, and whether it answers an error.
const COUNTED: [(&str, &str, bool); 3] = [
    ("good", "-- @name good\nreturn redis.call('INCR', KEYS[1])", false),
    (
        "bad",
        "-- @name bad\nredis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1], 'x')",
        true,
    ),
    ("all", "-- @name all\nredis.call('INCR', KEYS[1]) return redis.call('DBSIZE')", false),
];

/// A number in the answer of SCRIPT STATS.
fn told(client: &mut Client, args: &[&str], field: &str) -> Result<i64, String> {
    let reply = call(client, args)?;
    let pairs = reply.elements().unwrap_or_default().chunks(2);
    let mut found = pairs.filter(|pair| pair[0].text().as_deref() == Some(field));
    let value = found.next().and_then(|pair| pair.get(1)).and_then(Value::integer);
    value.ok_or_else(|| format!("no {field} in {}", reply.to_talk()))
}

/// Statistics are exact whatever else runs, read all the while, and outlive the scripts.
pub fn counted(arena: &Arena) -> Verdict {
    if arena.oracle {
        return Ok("not for Redis, which counts nothing of scripts".to_owned());
    }
    let server = arena.start(4, &[])?;
    let threads = 6;
    let each = arena.count(20_000);
    let is_over = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = connect(&server)?;
            let mut reads = 0;
            while !is_over.load(Ordering::Acquire) {
                call(&mut client, &["SCRIPT", "STATS"])?;
                call(&mut client, &["SCRIPT", "LIST"])?;
                info::number(&mut client, "script_calls")?;
                reads += 1;
            }
            Ok::<usize, String>(reads)
        });
        let runs = in_threads(threads, |thread| {
            let mut client = connect(&server)?;
            let mut random = Random::new(arena.seed + thread as u64);
            let mut runs = [0i64; COUNTED.len()];
            for _ in 0..each {
                // The one that runs alone is rare.
                let which = if random.below(50) == 0 { 2 } else { random.below(2) };
                let (_, source, fails) = COUNTED[which];
                let key = format!("key{}", random.below(100));
                let reply = client.call(&["EVAL", source, "1", &key]);
                let reply = reply.map_err(|error| error.to_string())?;
                expect(reply.is_error() == fails, || reply.to_talk())?;
                runs[which] += 1;
            }
            Ok(runs)
        });
        is_over.store(true, Ordering::Release);
        let reads = reader.join().map_err(|_| "the reader panicked".to_owned())??;
        expect(reads > 0, || "nobody read".to_owned())?;
        runs
    })?;
    let runs: Vec<i64> =
        (0..COUNTED.len()).map(|which| runs.iter().map(|runs| runs[which]).sum()).collect();
    let mut client = connect(&server)?;
    for ((name, _, fails), runs) in COUNTED.into_iter().zip(&runs) {
        let mut tell = |field: &str| told(&mut client, &["SCRIPT", "STATS", name], field);
        let (calls, errors, rollbacks) = (tell("calls")?, tell("errors")?, tell("rollbacks")?);
        let failed = if fails { *runs } else { 0 };
        expect((calls, errors, rollbacks) == (*runs, failed, failed), || {
            format!("{name}: {calls} calls, {errors} errors, {rollbacks} rollbacks of {runs} runs")
        })?;
        let (parallel, exclusive) = (tell("parallel-runs")?, tell("exclusive-runs")?);
        expect(parallel + exclusive == *runs, || format!("{name}: {parallel} + {exclusive}"))?;
        let alone = if name == "all" { *runs } else { 0 };
        expect(exclusive >= alone, || format!("{name}: {exclusive} exclusive of {runs}"))?;
    }
    call(&mut client, &["SCRIPT", "FLUSH"])?;
    let all = told(&mut client, &["SCRIPT", "STATS"], "calls")?;
    expect(all == runs.iter().sum(), || format!("{all} calls in all of {runs:?}"))?;
    Ok(format!("{all} runs"))
}

//! maxmemory: the process stays below it, and the policies choose well.

use std::time::Duration;

use super::{Arena, Random, Verdict, connect, expect, in_threads, integer};
use crate::client::Client;
use crate::poll;
use crate::server::Server;
use crate::value::Value;

const MEBIBYTE: u64 = 1 << 20;
const MAXMEMORY_MIB: u64 = 200;

/// Writes `mebibytes` of values of mixed sizes from four clients; refusals are counted.
fn write(server: &Server, arena: &Arena, mebibytes: usize, expire: bool) -> Result<usize, String> {
    let refused = in_threads(4, |number| {
        let mut client = connect(server)?;
        let mut random = Random::new(arena.seed + number as u64);
        let mut refused = 0;
        let mut written = 0;
        let mut next = 0;
        while written < mebibytes << 18 {
            let mut commands: Vec<Vec<String>> = Vec::new();
            for _ in 0..100 {
                next += 1;
                let size = [20, 100, 900, 4000][random.below(4)];
                written += size;
                let mut command =
                    vec!["SET".into(), format!("key:{number}:{next}"), "x".repeat(size)];
                if expire {
                    command.extend(["EX".into(), (1000 + random.below(100_000)).to_string()]);
                }
                commands.push(command);
            }
            for reply in client.pipeline(&commands).map_err(|error| error.to_string())? {
                match &reply {
                    Value::Error(text) if text.starts_with(b"OOM ") => refused += 1,
                    Value::Error(_) => return Err(format!("SET answered {}", reply.to_talk())),
                    _ => {}
                }
            }
        }
        Ok(refused)
    })?;
    Ok(refused.iter().sum())
}

pub fn policies_hold(arena: &Arena) -> Verdict {
    let policies = [
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ];
    let mebibytes = if arena.quick { 300 } else { 500 };
    let mut report = Vec::new();
    let mut broken = Vec::new();
    for policy in policies {
        let limit = format!("{MAXMEMORY_MIB}mb");
        let server = arena.start(4, &["--maxmemory", &limit, "--maxmemory-policy", policy])?;
        let volatile = policy.starts_with("volatile");
        let refused = write(&server, arena, mebibytes, volatile)?;
        let resident = server.resident_bytes().map_err(|error| error.to_string())?;
        let mut client = connect(&server)?;
        let keys = integer(&mut client, &["DBSIZE"])?;
        expect(keys > 10_000, || format!("{policy}: only {keys} keys are left"))?;
        if policy == "noeviction" {
            expect(refused > 0, || "noeviction refused nothing".to_owned())?;
            let reply = client.call(&["GET", "key:0:1"]).map_err(|error| error.to_string())?;
            expect(matches!(reply, Value::Bulk(_)), || format!("GET: {}", reply.to_talk()))?;
        } else {
            expect(refused == 0, || format!("{policy}: {refused} writes were refused"))?;
        }
        report.push(format!("{policy} {} MiB", resident / MEBIBYTE));
        if resident > MAXMEMORY_MIB * MEBIBYTE * 105 / 100 {
            broken.push(format!("{policy} {} MiB", resident / MEBIBYTE));
        }
    }
    // Redis counts only its own allocations, so the process may hold more there.
    expect(broken.is_empty() || arena.oracle, || {
        format!("above {MAXMEMORY_MIB} MiB by more than 5 %: {}", broken.join(", "))
    })?;
    Ok(report.join(", "))
}

/// Which of the keys `prefix:0..count` are there.
fn survivors(server: &Server, prefix: &str, count: usize) -> Result<usize, String> {
    let mut client = connect(server)?;
    let mut found = 0;
    for first in (0..count).step_by(500) {
        let names: Vec<String> = (first..first + 500).map(|n| format!("{prefix}:{n}")).collect();
        let mut command = vec!["EXISTS"];
        command.extend(names.iter().map(String::as_str));
        found += integer(&mut client, &command)? as usize;
    }
    Ok(found)
}

/// Runs commands in batches and refuses errors.
fn all(client: &mut Client, commands: &[Vec<String>]) -> Result<(), String> {
    for batch in commands.chunks(100) {
        for reply in client.pipeline(batch).map_err(|error| error.to_string())? {
            expect(!reply.is_error(), || reply.to_talk())?;
        }
    }
    Ok(())
}

/// Hot keys, a tenth of all, must outlive an eviction of half the keyspace; chance would keep
/// about half of them.
pub fn policies_choose(arena: &Arena) -> Verdict {
    const HOT: usize = 5_000;
    const COLD: usize = 40_000;
    const LATE: usize = 35_000;
    let value = "x".repeat(1000);
    let set = |prefix: &str, number: usize, seconds: &str| {
        ["SET", &format!("{prefix}:{number}"), &value, "EX", seconds].map(str::to_owned).to_vec()
    };
    let get = |number: usize| vec!["GET".to_owned(), format!("hot:{}", number % HOT)];
    let mut report = Vec::new();
    for policy in ["allkeys-lru", "allkeys-lfu", "volatile-ttl"] {
        let server = arena.start(2, &["--maxmemory", "60mb", "--maxmemory-policy", policy])?;
        let mut client = connect(&server)?;
        let far = if policy == "volatile-ttl" { "100000" } else { "5000" };
        all(&mut client, &(0..HOT).map(|n| set("hot", n, far)).collect::<Vec<_>>())?;
        all(&mut client, &(0..COLD).map(|n| set("cold", n, "5000")).collect::<Vec<_>>())?;
        match policy {
            "allkeys-lru" => {
                // The clock of LRU ticks in seconds: the cold keys must have seen it tick.
                let idle = poll(Duration::from_secs(20), || {
                    let last = format!("cold:{}", COLD - 1);
                    let idle = integer(&mut client, &["OBJECT", "IDLETIME", &last]).ok()?;
                    (idle >= 3).then_some(())
                });
                expect(idle.is_some(), || "keys do not grow idle".to_owned())?;
                all(&mut client, &(0..HOT).map(get).collect::<Vec<_>>())?;
            }
            "allkeys-lfu" => all(&mut client, &(0..20 * HOT).map(get).collect::<Vec<_>>())?,
            _ => {}
        }
        all(&mut client, &(0..LATE).map(|n| set("late", n, "5000")).collect::<Vec<_>>())?;
        let left = integer(&mut client, &["DBSIZE"])? as usize;
        let evicted = HOT + COLD + LATE - left;
        expect(evicted > 20_000, || format!("{policy} evicted only {evicted} keys"))?;
        let kept = survivors(&server, "hot", HOT)?;
        report.push(format!("{policy} kept {} %", kept * 100 / HOT));
        expect(kept * 100 >= HOT * 85, || format!("{policy} kept only {kept} of {HOT}"))?;
    }
    Ok(report.join(", "))
}

//! SCAN's guarantee: what is there from beginning to end is returned; what never was is not.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Arena, Random, Verdict, call, connect, expect, in_threads};
use crate::client::Client;
use crate::server::Server;
use crate::value::Value;

fn fill(client: &mut Client, prefix: &str, count: usize) -> Result<(), String> {
    for first in (0..count).step_by(1000) {
        let last = (first + 1000).min(count);
        let commands: Vec<Vec<String>> = (first..last)
            .map(|n| vec!["SET".into(), format!("{prefix}:{n}"), "v".into()])
            .collect();
        client.pipeline(&commands).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Scans once and answers which of the staying keys came up.
fn scan_once(server: &Server, stay: usize, random: &mut Random) -> Result<Vec<bool>, String> {
    let mut client = connect(server)?;
    let mut seen = vec![false; stay];
    let mut cursor = "0".to_owned();
    loop {
        let count = (100 + random.below(2000)).to_string();
        let reply = call(&mut client, &["SCAN", &cursor, "COUNT", &count])?;
        let Some([next, keys]) = reply.elements() else {
            return Err(format!("SCAN answered {}", reply.to_talk()));
        };
        for key in keys.elements().unwrap_or_default().iter().filter_map(Value::text) {
            let (prefix, number) = key.split_once(':').unwrap_or_default();
            let number: usize = number.parse().map_err(|_| format!("{key} was never there"))?;
            match prefix {
                "stay" if number < stay => seen[number] = true,
                "goes" | "new" => {}
                _ => return Err(format!("{key} was never there")),
            }
        }
        cursor = next.text().unwrap_or_default();
        if cursor == "0" {
            return Ok(seen);
        }
    }
}

pub fn guarantees(arena: &Arena) -> Verdict {
    let stay = arena.count(600_000);
    let goes = arena.count(400_000);
    let server = arena.start(4, &[])?;
    let mut client = connect(&server)?;
    fill(&mut client, "stay", stay)?;
    fill(&mut client, "goes", goes)?;
    let done = AtomicBool::new(false);
    let scans = in_threads(5, |number| {
        let mut random = Random::new(arena.seed + number as u64);
        if number < 3 {
            let outcome = (0..2)
                .map(|_| {
                    let seen = scan_once(&server, stay, &mut random)?;
                    let missing = seen.iter().filter(|seen| !**seen).count();
                    expect(missing == 0, || {
                        format!("{missing} of {stay} keys did not come up; seed {}", arena.seed)
                    })
                })
                .collect::<Result<Vec<()>, String>>();
            done.store(true, Ordering::Release);
            return outcome.map(|scans| scans.len());
        }
        // Growth on one connection, shrinking and overwriting on the other.
        let mut client = connect(&server)?;
        let mut next = 0;
        while !done.load(Ordering::Acquire) {
            let commands: Vec<Vec<String>> = (0..200)
                .map(|_| {
                    next += 1;
                    match number {
                        3 => vec!["SET".into(), format!("new:{next}"), "v".into()],
                        _ if next % 3 == 0 => {
                            vec!["SET".into(), format!("stay:{}", random.below(stay)), "w".into()]
                        }
                        _ => vec!["DEL".into(), format!("goes:{}", random.below(goes))],
                    }
                })
                .collect();
            client.pipeline(&commands).map_err(|error| error.to_string())?;
        }
        Ok(0)
    })?;
    Ok(format!("{} scans over {} keys", scans.iter().sum::<usize>(), stay + goes))
}

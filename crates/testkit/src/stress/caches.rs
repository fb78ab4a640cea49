//! Clients with caches of their own: in the end none of them holds what is not true any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Arena, Random, Verdict, call, connect, expect};
use crate::client::Client;
use crate::server::Server;
use crate::value::Value;

const KEYS: usize = 30;
const READERS: usize = 6;
const WRITERS: usize = 4;

/// A client and what it has read.
struct Reader {
    client: Client,
    cache: HashMap<String, Value>,
    invalidations: usize,
}

impl Reader {
    fn new(server: &Server) -> Result<Reader, String> {
        let mut client = connect(server)?;
        call(&mut client, &["HELLO", "3"])?;
        call(&mut client, &["CLIENT", "TRACKING", "ON"])?;
        Ok(Reader { client, cache: HashMap::new(), invalidations: 0 })
    }

    /// Calls, and does as it is told meanwhile.
    fn ask(&mut self, args: &[&str]) -> Result<Value, String> {
        self.client.send(args).map_err(|error| error.to_string())?;
        loop {
            let reply = self.client.read(Duration::from_secs(60));
            match reply.map_err(|error| format!("{args:?}: {error}"))? {
                Value::Push(parts) => self.forget(&parts)?,
                reply => return Ok(reply),
            }
        }
    }

    fn forget(&mut self, parts: &[Value]) -> Result<(), String> {
        self.invalidations += 1;
        match parts {
            [_, Value::Array(keys)] => {
                for key in keys {
                    self.cache.remove(&key.text().unwrap_or_default());
                }
            }
            [_, Value::Null] => self.cache.clear(),
            _ => return Err(format!("a push of {parts:?}")),
        }
        Ok(())
    }

    fn read(&mut self, random: &mut Random) -> Result<(), String> {
        let key = key(random);
        if self.cache.contains_key(&key) {
            // Now and then it looks what it has been told.
            if random.below(20) == 0 {
                self.ask(&["PING"])?;
            }
            return Ok(());
        }
        let value = match random.below(5) {
            0 => self.ask(&["EVAL", "return redis.call('GET', KEYS[1])", "1", &key])?,
            _ => self.ask(&["GET", &key])?,
        };
        self.cache.insert(key, value);
        Ok(())
    }
}

fn key(random: &mut Random) -> String {
    format!("key:{}", random.below(KEYS))
}

fn write(client: &mut Client, random: &mut Random) -> Result<(), String> {
    let (one, other) = (key(random), key(random));
    let milliseconds = (1 + random.below(5)).to_string();
    match random.below(500) {
        0 => call(client, &["FLUSHALL"])?,
        1..50 => call(client, &["DEL", &one])?,
        50..100 => call(client, &["SET", &one, "1", "PX", &milliseconds])?,
        // Most of them fail, as there is no such key.
        100..150 => client.call(&["RENAME", &one, &other]).map_err(|error| error.to_string())?,
        150..200 => {
            let script = "redis.call('INCR', KEYS[1]) redis.call('INCR', ARGV[1]) return 1";
            call(client, &["EVAL", script, "1", &one, &other])?
        }
        200..250 => {
            let script =
                "redis.call('SET', KEYS[1], 'undone') redis.call('DEL', ARGV[1]) error('no')";
            client.call(&["EVAL", script, "1", &one, &other]).map_err(|error| error.to_string())?
        }
        250..300 => {
            call(client, &["MULTI"])?;
            call(client, &["INCR", &one])?;
            call(client, &["INCR", &other])?;
            call(client, &["EXEC"])?
        }
        _ => call(client, &["INCR", &one])?,
    };
    Ok(())
}

pub fn none_is_stale(arena: &Arena) -> Verdict {
    let server = arena.start(4, &[])?;
    let is_over = AtomicBool::new(false);
    let readers: Vec<Reader> = std::thread::scope(|scope| {
        let (server, is_over) = (&server, &is_over);
        let writing = (0..WRITERS).map(|number| {
            scope.spawn(move || -> Result<(), String> {
                let mut client = connect(server)?;
                let mut random = Random::new(arena.seed + number as u64);
                while !is_over.load(Ordering::Relaxed) {
                    write(&mut client, &mut random)?;
                }
                Ok(())
            })
        });
        let writing: Vec<_> = writing.collect();
        let until = Instant::now() + Duration::from_millis(arena.count(10_000) as u64);
        let reading = (0..READERS).map(|number| {
            scope.spawn(move || -> Result<Reader, String> {
                let mut reader = Reader::new(server)?;
                let mut random = Random::new(arena.seed + 100 + number as u64);
                while Instant::now() < until {
                    reader.read(&mut random)?;
                }
                Ok(reader)
            })
        });
        let reading: Vec<_> = reading.collect();
        let died = |_| "a client thread panicked".to_owned();
        let readers: Result<Vec<_>, String> =
            reading.into_iter().map(|thread| thread.join().map_err(died)?).collect();
        is_over.store(true, Ordering::Relaxed);
        for thread in writing {
            thread.join().map_err(died)??;
        }
        readers
    })?;
    let mut control = connect(&server)?;
    // What still has a time to live loses it, so that nothing changes any more.
    for number in 0..KEYS {
        call(&mut control, &["PERSIST", &format!("key:{number}")])?;
    }
    let (mut told, mut kept) = (0, 0);
    for mut reader in readers {
        // What was sent before comes before the answer.
        reader.ask(&["PING"])?;
        for (key, value) in std::mem::take(&mut reader.cache) {
            let now = call(&mut control, &["GET", &key])?;
            let is_true = now.text() == value.text();
            expect(is_true, || {
                format!("seed {}: {key} is {}, not {}", arena.seed, now.to_talk(), value.to_talk())
            })?;
            kept += 1;
        }
        told += reader.invalidations;
    }
    expect(told > 100, || format!("only {told} invalidations"))?;
    Ok(format!("{told} invalidations, {kept} values in caches"))
}

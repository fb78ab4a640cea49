//! Blocked clients: the order they are served in, and what happens when they leave.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Arena, Random, Verdict, call, connect, expect, in_threads, integer};
use crate::client::{Client, ReadError};
use crate::poll;
use crate::server::Server;
use crate::value::Value;

/// Sends a blocking command and waits until the server counts one more blocked client.
fn block(
    client: &mut Client,
    control: &mut Client,
    blocked: usize,
    args: &[&str],
) -> Result<(), String> {
    client.send(args).map_err(|error| error.to_string())?;
    wait_blocked(control, blocked)
}

fn wait_blocked(control: &mut Client, blocked: usize) -> Result<(), String> {
    let wanted = format!("blocked_clients:{blocked}\r\n");
    let mut last = String::new();
    poll(Duration::from_secs(10), || {
        last = call(control, &["INFO", "clients"]).ok()?.text()?;
        last.contains(&wanted).then_some(())
    })
    .ok_or_else(|| format!("never saw {wanted:?}:\n{last}"))
}

fn connections(server: &Server, count: usize) -> Result<Vec<Client>, String> {
    (0..count).map(|_| connect(server)).collect()
}

fn popped(client: &mut Client) -> Result<String, String> {
    let reply = client.read(Duration::from_secs(10)).map_err(|error| error.to_string())?;
    let items = reply.elements().unwrap_or_default();
    items.get(1).and_then(Value::text).ok_or_else(|| format!("popped {}", reply.to_talk()))
}

pub fn in_order(arena: &Arena) -> Verdict {
    const CLIENTS: usize = 60;
    let server = arena.start(4, &[])?;
    let mut control = connect(&server)?;
    for (round, push) in ["one push", "many pushes", "a transaction", "a script"].iter().enumerate()
    {
        let mut clients = connections(&server, CLIENTS)?;
        for (number, client) in clients.iter_mut().enumerate() {
            // Everybody waits for the same list, some for others as well.
            let command: &[&str] = match number % 3 {
                0 => &["BLPOP", "queue", "0"],
                1 => &["BLPOP", "elsewhere", "queue", "0"],
                _ => &["BRPOP", "queue", "queue", "0"],
            };
            block(client, &mut control, number + 1, command)?;
        }
        let elements: Vec<String> = (0..CLIENTS).map(|number| number.to_string()).collect();
        let mut pushes = connect(&server)?;
        // All from the left, so that BRPOP takes the same end as one element at a time does.
        match round {
            1 => {
                for element in &elements {
                    call(&mut pushes, &["RPUSH", "queue", element])?;
                }
            }
            2 => {
                call(&mut pushes, &["MULTI"])?;
                for element in &elements {
                    call(&mut pushes, &["RPUSH", "queue", element])?;
                }
                call(&mut pushes, &["EXEC"])?;
            }
            3 => {
                let script = "for i = 1, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end";
                let mut command = vec!["EVAL", script, "1", "queue"];
                command.extend(elements.iter().map(String::as_str));
                call(&mut pushes, &command)?;
            }
            _ => {
                let mut command = vec!["RPUSH", "queue"];
                command.extend(elements.iter().map(String::as_str));
                call(&mut pushes, &command)?;
            }
        }
        // What is left decides what each end gives: the model is a plain deque.
        let mut model: std::collections::VecDeque<String> = elements.iter().cloned().collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let wanted = if round == 1 {
                elements[number].clone()
            } else if number % 3 == 2 {
                model.pop_back().unwrap_or_default()
            } else {
                model.pop_front().unwrap_or_default()
            };
            let got = popped(client)?;
            expect(got == wanted, || {
                format!("{push}: client {number} got {got} instead of {wanted}")
            })?;
        }
        wait_blocked(&mut control, 0)?;
    }
    Ok(format!("{CLIENTS} clients in four ways"))
}

pub fn queue(arena: &Arena) -> Verdict {
    const PRODUCERS: usize = 4;
    const CONSUMERS: usize = 6;
    let each = arena.count(15_000);
    let total = PRODUCERS * each;
    let server = arena.start(4, &[])?;
    let seen = Mutex::new(HashSet::new());
    let taken = AtomicUsize::new(0);
    let keys = ["q:0", "q:1", "q:2"];
    in_threads(PRODUCERS + CONSUMERS, |number| {
        let mut client = connect(&server)?;
        let mut random = Random::new(arena.seed + number as u64);
        if number < PRODUCERS {
            for element in 0..each {
                let name = format!("{number}:{element}");
                let key = keys[random.below(keys.len())];
                match random.below(3) {
                    0 => {
                        let script = "return redis.call('LPUSH', KEYS[1], ARGV[1])";
                        call(&mut client, &["EVAL", script, "1", key, &name])?
                    }
                    1 => call(&mut client, &["LPUSH", key, &name])?,
                    _ => call(&mut client, &["RPUSH", key, &name])?,
                };
            }
            return Ok(());
        }
        while taken.load(Ordering::Acquire) < total {
            let reply = match number % 3 {
                0 => call(&mut client, &["BRPOP", keys[0], keys[1], keys[2], "0.2"])?,
                1 => call(&mut client, &["BLPOP", keys[2], keys[0], keys[1], "0.2"])?,
                _ => {
                    let key = keys[random.below(keys.len())];
                    let moved = call(&mut client, &["BLMOVE", key, "done", "LEFT", "LEFT", "0.2"])?;
                    match moved {
                        Value::Bulk(_) => Value::Array(vec![Value::bulk("done"), moved]),
                        other => other,
                    }
                }
            };
            let Some([_, element]) = reply.elements() else { continue };
            let name = element.text().unwrap_or_default();
            let mut seen = seen.lock().map_err(|_| "poisoned".to_owned())?;
            expect(seen.insert(name.clone()), || {
                format!("{name} came twice; seed {}", arena.seed)
            })?;
            taken.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    })?;
    let count = seen.into_inner().map_err(|_| "poisoned".to_owned())?.len();
    expect(count == total, || format!("{count} of {total} arrived; seed {}", arena.seed))?;
    Ok(format!("{total} elements"))
}

/// Half of the waiting clients disconnect; the pushed elements go to the other half.
pub fn leaving(arena: &Arena) -> Verdict {
    let server = arena.start(4, &[])?;
    let mut control = connect(&server)?;
    for _ in 0..20 {
        let mut clients = connections(&server, 40)?;
        for (number, client) in clients.iter_mut().enumerate() {
            block(client, &mut control, number + 1, &["BLPOP", "queue", "0"])?;
        }
        let mut staying: Vec<Client> = Vec::new();
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 == 1 {
                staying.push(client);
            }
        }
        wait_blocked(&mut control, staying.len())?;
        for (number, client) in staying.iter_mut().enumerate() {
            call(&mut control, &["RPUSH", "queue", &number.to_string()])?;
            let got = popped(client)?;
            expect(got == number.to_string(), || format!("client {number} got {got}"))?;
        }
        let left = integer(&mut control, &["LLEN", "queue"])?;
        expect(left == 0, || format!("{left} elements are left"))?;
    }
    // A timeout while elements arrive: each element is popped or still there, never both.
    let each = arena.count(3_000);
    let taken = AtomicUsize::new(0);
    in_threads(4, |number| {
        let mut client = connect(&server)?;
        for _ in 0..each {
            if number < 2 {
                call(&mut client, &["RPUSH", "race", "x"])?;
            } else {
                client.send(&["BLPOP", "race", "0.001"]).map_err(|error| error.to_string())?;
                match client.read(Duration::from_secs(10)) {
                    Ok(Value::Array(_)) => {
                        taken.fetch_add(1, Ordering::AcqRel);
                    }
                    Ok(Value::NilArray) | Err(ReadError::Timeout) => {}
                    Ok(other) => return Err(format!("BLPOP answered {}", other.to_talk())),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        Ok(())
    })?;
    let left = integer(&mut control, &["LLEN", "race"])? as usize;
    let taken = taken.into_inner();
    expect(left + taken == 2 * each, || format!("{taken} taken and {left} left of {}", 2 * each))?;
    Ok("20 rounds of leaving, and a race with timeouts".to_owned())
}

/// UNBLOCK while the blocked client's key comes and goes with a value it cannot use: somebody
/// tries to serve it all the time, nobody can, and the answer is 1 every time.
pub fn unblocked(arena: &Arena) -> Verdict {
    let rounds = arena.count(1_000);
    let server = arena.start(4, &[])?;
    let over = AtomicBool::new(false);
    in_threads(4, |number| {
        let mut client = connect(&server)?;
        if number > 0 {
            while !over.load(Ordering::Acquire) {
                call(&mut client, &["ZADD", "queue", "1", "member"])?;
                call(&mut client, &["DEL", "queue"])?;
            }
            return Ok(());
        }
        let outcome = unblock_rounds(&mut client, &server, rounds);
        over.store(true, Ordering::Release);
        outcome
    })?;
    Ok(format!("{rounds} times"))
}

fn unblock_rounds(control: &mut Client, server: &Server, rounds: usize) -> Result<(), String> {
    let mut waiting = connect(server)?;
    let id = integer(&mut waiting, &["CLIENT", "ID"])?.to_string();
    for round in 0..rounds {
        // To be blocked it must not meet the sorted set, so it is there to wait for another key
        // as well.
        waiting.send(&["BLMPOP", "0", "2", "queue", "other", "LEFT"]).map_err(|e| e.to_string())?;
        let mut reply = None;
        let blocked = poll(Duration::from_secs(10), || {
            if let Ok(early) = waiting.read(Duration::from_micros(1)) {
                reply = Some(early);
                return Some(false);
            }
            let list = call(control, &["CLIENT", "LIST", "ID", &id]).ok()?.text()?;
            list.contains(" flags=b ").then_some(true)
        });
        match (blocked, reply) {
            (Some(true), _) => {}
            (Some(false), Some(Value::Error(text))) if text.starts_with(b"WRONGTYPE") => continue,
            (_, reply) => return Err(format!("round {round}: not blocked: {reply:?}")),
        }
        let unblocked = integer(control, &["CLIENT", "UNBLOCK", &id])?;
        expect(unblocked == 1, || format!("round {round}: UNBLOCK answered {unblocked}"))?;
        let reply = waiting.read(Duration::from_secs(10)).map_err(|error| error.to_string())?;
        expect(reply == Value::NilArray, || format!("round {round}: {}", reply.to_talk()))?;
    }
    Ok(())
}

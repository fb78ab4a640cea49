//! Clients that misbehave: what they may cost the server.

use std::time::{Duration, Instant};

use super::{Arena, Verdict, call, connect, expect, integer};
use crate::client::{Client, encode};
use crate::poll;
use crate::server::Server;
use crate::value::Value;

const MEBIBYTE: u64 = 1 << 20;

/// Keeps the highest resident size seen.
fn watch(server: &Server, peak: &mut u64) -> Result<(), String> {
    let now = server.resident_bytes().map_err(|error| error.to_string())?;
    *peak = (*peak).max(now);
    Ok(())
}

/// Another client must be served quickly all the while.
fn responsive(client: &mut Client) -> Result<(), String> {
    let begun = Instant::now();
    call(client, &["PING"])?;
    let took = begun.elapsed();
    expect(took < Duration::from_secs(2), || format!("PING took {took:?} beside it"))
}

/// Asks for gigabytes and reads nothing.
pub fn slow_reader(arena: &Arena) -> Verdict {
    // Redis has no limit for normal clients unless one is set; ours must hold by itself.
    let limit = ["--client-output-buffer-limit", "normal 64mb 32mb 10"];
    let server = arena.start(2, if arena.oracle { &limit } else { &[] })?;
    let mut control = connect(&server)?;
    let value = "x".repeat(1 << 20);
    call(&mut control, &["SET", "big", &value])?;
    let before = server.resident_bytes().map_err(|error| error.to_string())?;
    let mut peak = before;
    let mut greedy = connect(&server)?;
    let mut request = Vec::new();
    for _ in 0..500 {
        encode(&["GET", "big"], &mut request);
    }
    // 500 requests are 14 KB: they fit into the socket whether or not the server reads on.
    for _ in 0..4 {
        if greedy.send_raw(&request).is_err() {
            break;
        }
        for _ in 0..20 {
            watch(&server, &mut peak)?;
            responsive(&mut control)?;
        }
    }
    poll(Duration::from_secs(3), || {
        let _ = watch(&server, &mut peak);
        None::<()>
    });
    let grown = (peak - before) / MEBIBYTE;
    expect(grown < 256, || format!("2000 unread replies of 1 MiB cost {grown} MiB"))?;
    drop(greedy);
    let again = poll(Duration::from_secs(10), || {
        let now = server.resident_bytes().ok()?;
        (now < before + 64 * MEBIBYTE).then_some(now)
    });
    expect(again.is_some(), || "the memory did not come back".to_owned())?;
    Ok(format!("{grown} MiB at most for 2000 MiB asked for"))
}

/// Subscribes and reads nothing while others publish.
pub fn slow_subscriber(arena: &Arena) -> Verdict {
    let server = arena.start(2, &["--client-output-buffer-limit", "pubsub 16mb 8mb 60"])?;
    let mut control = connect(&server)?;
    let before = server.resident_bytes().map_err(|error| error.to_string())?;
    let mut peak = before;
    let mut deaf = connect(&server)?;
    call(&mut deaf, &["SUBSCRIBE", "news"])?;
    let mut listening = connect(&server)?;
    call(&mut listening, &["SUBSCRIBE", "news"])?;
    let message = "m".repeat(100_000);
    let mut heard_by = 2;
    for number in 0..2_000 {
        heard_by = integer(&mut control, &["PUBLISH", "news", &message])?;
        let got = listening.read(Duration::from_secs(10)).map_err(|error| error.to_string())?;
        expect(got.elements().is_some_and(|items| items.len() == 3), || got.to_talk())?;
        if number % 50 == 0 {
            watch(&server, &mut peak)?;
        }
    }
    expect(heard_by == 1, || format!("{heard_by} still subscribed"))?;
    let grown = (peak - before) / MEBIBYTE;
    expect(grown < 100, || format!("an unread subscriber cost {grown} MiB"))?;
    Ok(format!("let go, {grown} MiB at most for 200 MiB published"))
}

/// Announces large arguments and never sends them.
pub fn half_requests(arena: &Arena) -> Verdict {
    const CLIENTS: usize = 400;
    let server = arena.start(2, &[])?;
    let mut control = connect(&server)?;
    let before = server.resident_bytes().map_err(|error| error.to_string())?;
    let beginnings: [&[u8]; 5] = [
        b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$500000000\r\nabc",
        b"*1000000\r\n$4\r\nMSET\r\n",
        b"*2\r\n$536870912\r\n",
        b"*1024\r\n",
        b"SET inline without end",
    ];
    let mut halves = Vec::new();
    for number in 0..CLIENTS {
        let mut client = connect(&server)?;
        client
            .send_raw(beginnings[number % beginnings.len()])
            .map_err(|error| error.to_string())?;
        halves.push(client);
    }
    let mut peak = before;
    for _ in 0..200 {
        watch(&server, &mut peak)?;
        responsive(&mut control)?;
    }
    let grown = (peak - before) / MEBIBYTE;
    let allowed = if arena.oracle { u64::MAX } else { 48 };
    expect(grown < allowed, || format!("{CLIENTS} halves cost {grown} MiB"))?;
    // Each of them can still be completed or dropped.
    let mut last = halves.pop().ok_or("no client")?;
    last.send_raw(b"\r\n").map_err(|error| error.to_string())?;
    let reply = last.read(Duration::from_secs(10)).map_err(|error| error.to_string())?;
    expect(matches!(reply, Value::Error(_)), || reply.to_talk())?;
    drop(halves);
    let gone = poll(Duration::from_secs(10), || {
        let text = call(&mut control, &["INFO", "clients"]).ok()?.text()?;
        text.contains("connected_clients:2\r\n").then_some(())
    });
    expect(gone.is_some(), || "dropped connections are still counted".to_owned())?;
    Ok(format!("{CLIENTS} halves, {grown} MiB"))
}

/// One connection more than allowed is refused with Redis's text, and room comes back.
pub fn many_connections(arena: &Arena) -> Verdict {
    let server = arena.start(2, &["--maxclients", "100"])?;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut client = connect(&server)?;
        // The process that started the server may not have been let go of yet.
        match client.call(&["PING"]) {
            Ok(Value::Status(_)) => held.push(client),
            _ => break,
        }
    }
    expect(held.len() >= 98, || format!("only {} connections were let in", held.len()))?;
    let refused = poll(Duration::from_secs(10), || {
        let mut client = server.connect().ok()?;
        match client.call(&["PING"]) {
            Ok(Value::Error(text)) => Some(String::from_utf8_lossy(&text).into_owned()),
            Ok(_) => {
                held.push(client);
                None
            }
            Err(_) => None,
        }
    });
    expect(refused.as_deref() == Some("ERR max number of clients reached"), || {
        format!("the connection too many heard {refused:?}")
    })?;
    held.truncate(10);
    let room = poll(Duration::from_secs(10), || {
        let mut client = server.connect().ok()?;
        matches!(client.call(&["PING"]), Ok(Value::Status(_))).then_some(())
    });
    expect(room.is_some(), || "no room came back".to_owned())?;
    Ok("100 connections".to_owned())
}

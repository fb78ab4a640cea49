//! What the server says and decides about each of its clients: their memory, their limits, the
//! time they are paused for.

use std::time::{Duration, Instant};

use super::{Arena, Verdict, call, connect, expect, integer};
use crate::client::{Client, encode};
use crate::poll;
use crate::value::Value;

const MEBIBYTE: u64 = 1 << 20;

/// Queues a transaction of `count` megabytes; true when the server let all of it in.
fn queue_megabytes(client: &mut Client, count: usize) -> bool {
    let value = "x".repeat(MEBIBYTE as usize);
    client.call(&["MULTI"]).is_ok()
        && (0..count).all(|_| {
            matches!(client.call(&["SET", "never", &value]), Ok(Value::Status(text)) if text == b"QUEUED")
        })
}

fn field(client: &mut Client, section: &str, name: &str) -> Result<u64, String> {
    let text = call(client, &["INFO", section])?.text().unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no {name} in {text}"))
}

/// A number of the line of CLIENT LIST about a client.
fn about(control: &mut Client, id: &str, name: &str) -> Result<u64, String> {
    let line = call(control, &["CLIENT", "LIST", "ID", id])?.text().unwrap_or_default();
    let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no {name} in {line}"))
}

/// Clients that take too much together: the greatest goes, whatever it takes the memory for.
pub fn client_memory(arena: &Arena) -> Verdict {
    let server = arena.start(2, &["--maxmemory-clients", "12mb"])?;
    let mut control = connect(&server)?;
    call(&mut control, &["CLIENT", "NO-EVICT", "ON"])?;
    let value = "x".repeat(MEBIBYTE as usize);
    call(&mut control, &["SET", "big", &value])?;
    let mut small: Vec<Client> = Vec::new();
    for _ in 0..5 {
        let mut client = connect(&server)?;
        call(&mut client, &["PING"])?;
        small.push(client);
    }

    // Below the limit it is told what a transaction takes.
    let mut queueing = connect(&server)?;
    let id = integer(&mut queueing, &["CLIENT", "ID"])?.to_string();
    expect(queue_megabytes(&mut queueing, 5), || "5 MiB were too much".to_owned())?;
    for name in ["multi-mem", "tot-mem"] {
        let bytes = about(&mut control, &id, name)?;
        let fits = (5 * MEBIBYTE..8 * MEBIBYTE).contains(&bytes);
        expect(fits, || format!("{name} of 5 MiB in MULTI is {bytes}"))?;
    }
    let all = field(&mut control, "memory", "mem_clients_normal")?;
    expect((5 * MEBIBYTE..9 * MEBIBYTE).contains(&all), || format!("all clients take {all}"))?;
    call(&mut queueing, &["DISCARD"])?;
    let bytes = about(&mut control, &id, "tot-mem")?;
    expect(bytes < 2 * MEBIBYTE, || format!("tot-mem after DISCARD is {bytes}"))?;

    // Three ways to take too much: queued commands, replies not read, half a request.
    expect(!queue_megabytes(&mut queueing, 20), || "20 MiB in MULTI were let in".to_owned())?;
    let mut deaf = connect(&server)?;
    let mut request = Vec::new();
    (0..60).for_each(|_| encode(&["GET", "big"], &mut request));
    deaf.send_raw(&request).map_err(|error| error.to_string())?;
    let mut half = connect(&server)?;
    let mut request = b"*3\r\n$3\r\nSET\r\n$5\r\nnever\r\n$40000000\r\n".to_vec();
    request.resize(20 << 20, b'x');
    // It may be closed before it has sent all.
    let _ = half.send_raw(&request);
    let evicted = poll(Duration::from_secs(10), || {
        let evicted = field(&mut control, "stats", "evicted_clients").ok()?;
        (evicted == 3).then_some(())
    });
    expect(evicted.is_some(), || {
        format!("evicted_clients is {:?}", field(&mut control, "stats", "evicted_clients"))
    })?;
    expect(half.wait_closed(Duration::from_secs(10)), || "half a request stays".to_owned())?;
    for client in &mut small {
        call(client, &["PING"])?;
    }

    // Who is not to be evicted stays, at the cost of everybody else.
    let mut kept = connect(&server)?;
    call(&mut kept, &["CLIENT", "NO-EVICT", "ON"])?;
    expect(queue_megabytes(&mut kept, 20), || "NO-EVICT did not help".to_owned())?;
    for client in &mut small {
        expect(client.wait_closed(Duration::from_secs(10)), || "a small one stays".to_owned())?;
    }
    call(&mut kept, &["DISCARD"])?;

    // A share of maxmemory, set while the memory is taken.
    call(&mut control, &["CONFIG", "SET", "maxmemory-clients", "0"])?;
    let mut again = connect(&server)?;
    expect(queue_megabytes(&mut again, 20), || "there was no limit".to_owned())?;
    call(&mut control, &["CONFIG", "SET", "maxmemory", "200mb", "maxmemory-clients", "5%"])?;
    expect(again.wait_closed(Duration::from_secs(10)), || "5% of 200 MiB do not hold".to_owned())?;
    let evicted = field(&mut control, "stats", "evicted_clients")?;
    Ok(format!("{evicted} clients evicted"))
}

/// client-output-buffer-limit: at once above the hard limit, after its seconds above the soft one.
pub fn output_limits(arena: &Arena) -> Verdict {
    let limits = "normal 8mb 0 0 pubsub 32mb 2mb 1";
    let server = arena.start(2, &["--client-output-buffer-limit", limits])?;
    let mut control = connect(&server)?;
    let value = "x".repeat(MEBIBYTE as usize);
    call(&mut control, &["SET", "big", &value])?;
    let closed = |control: &mut Client, wanted: u64| {
        let name = "client_output_buffer_limit_disconnections";
        // The oracle does not count them.
        if arena.oracle {
            return Ok(());
        }
        poll(Duration::from_secs(20), || {
            let count = field(control, "stats", name).ok()?;
            (count == wanted).then_some(())
        })
        .ok_or_else(|| format!("{name} is not {wanted}"))
    };
    // What the sockets hold goes first: their buffers take some megabytes.
    let ask = |client: &mut Client, count: usize| -> Result<(), String> {
        let mut request = Vec::new();
        (0..count).for_each(|_| encode(&["GET", "big"], &mut request));
        client.send_raw(&request).map_err(|error| error.to_string())
    };
    let mut hard = connect(&server)?;
    ask(&mut hard, 40)?;
    closed(&mut control, 1)?;
    expect(drained(&mut hard), || "above the hard limit it stays".to_owned())?;

    call(&mut control, &["CONFIG", "SET", "client-output-buffer-limit", "normal 0 2mb 1"])?;
    let mut soft = connect(&server)?;
    let begun = Instant::now();
    ask(&mut soft, 12)?;
    closed(&mut control, 2)?;
    let took = begun.elapsed();
    expect(arena.oracle || took >= Duration::from_secs(1), || format!("closed after {took:?}"))?;
    expect(drained(&mut soft), || "above the soft limit it stays".to_owned())?;

    // Who reads in between is let be.
    let mut reader = connect(&server)?;
    for _ in 0..4 {
        ask(&mut reader, 12)?;
        for _ in 0..12 {
            let reply = reader.read(Duration::from_secs(10)).map_err(|error| error.to_string())?;
            expect(reply == Value::bulk(&value), || "another value".to_owned())?;
        }
    }

    let mut listener = connect(&server)?;
    call(&mut listener, &["SUBSCRIBE", "news"])?;
    let begun = Instant::now();
    let mut published = 0;
    // Until the sockets are full and more than the soft limit waits.
    while integer(&mut control, &["PUBLISH", "news", &value])? == 1 && published < 12 {
        published += 1;
    }
    let gone = poll(Duration::from_secs(20), || {
        (integer(&mut control, &["PUBLISH", "news", "x"]).ok()? == 0).then_some(())
    });
    expect(gone.is_some(), || "the listener stays".to_owned())?;
    let took = begun.elapsed();
    expect(took >= Duration::from_secs(1), || format!("the listener is gone after {took:?}"))?;
    Ok("hard and soft, normal and pubsub".to_owned())
}

/// Reads what was sent until the server's end of the connection is closed.
fn drained(client: &mut Client) -> bool {
    poll(Duration::from_secs(20), || client.read(Duration::from_secs(5)).err()).is_some()
}

/// A pause ends at its time, without waiting for a timer that is due anyway.
pub fn pause_ends(arena: &Arena) -> Verdict {
    // One tick a second, so that ending at the next one would be far too late.
    let server = arena.start(2, &["--hz", "1"])?;
    let mut control = connect(&server)?;
    let mut worst = Duration::ZERO;
    for round in 0..4 {
        let begun = Instant::now();
        call(&mut control, &["CLIENT", "PAUSE", "150", "ALL"])?;
        let mut held = connect(&server)?;
        call(&mut held, &["GET", "k"])?;
        let took = begun.elapsed();
        expect(took >= Duration::from_millis(149), || format!("held for {took:?} only"))?;
        worst = worst.max(took);
        let late = Duration::from_millis(300);
        expect(arena.oracle || took < late, || format!("round {round}: held for {took:?}"))?;
    }
    Ok(format!("150 ms took {worst:?} at most"))
}

/// MONITOR tells the time of a command to the microsecond.
pub fn monitor_time(arena: &Arena) -> Verdict {
    let server = arena.start(2, &[])?;
    let mut control = connect(&server)?;
    let mut monitor = connect(&server)?;
    call(&mut monitor, &["MONITOR"])?;
    let mut times = Vec::new();
    for _ in 0..20 {
        call(&mut control, &["GET", "k"])?;
        let line = monitor.read(Duration::from_secs(10)).map_err(|error| error.to_string())?;
        let Value::Status(line) = &line else { return Err(line.to_talk()) };
        let text = String::from_utf8_lossy(line).into_owned();
        let time = text.split(' ').next().and_then(|time| time.split_once('.'));
        let (seconds, fraction) = time.ok_or_else(|| text.clone())?;
        expect(fraction.len() == 6, || text.clone())?;
        let number = format!("{seconds}{fraction}").parse::<u64>();
        times.push(number.map_err(|error| format!("{text}: {error}"))?);
    }
    expect(times.is_sorted(), || format!("{times:?}"))?;
    expect(times.iter().any(|time| time % 1000 != 0), || format!("milliseconds: {times:?}"))?;
    Ok(format!("{} lines", times.len()))
}

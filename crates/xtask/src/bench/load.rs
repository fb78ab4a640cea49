//! The load generator: one thread, many connections, each a closed loop that sends a batch of
//! commands and waits for its replies before it sends the next, as redis-benchmark does.
//!
//! Knows neither servers' names nor what the commands mean. Called by the bench's measurements.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::server::own_cpu_ns;
use super::wire::{Numbers, Template, reply_end};

const STALL_DEADLINE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 256 * 1024;

/// What to send and how.
pub struct Load<'a> {
    /// Sent in turn; each is one operation.
    pub templates: &'a [Template],
    pub connections: usize,
    pub pipeline: usize,
    /// Stops after this many operations, rounded up to whole batches…
    pub operations: u64,
    /// …or after this time, whichever comes first.
    pub time_max: Duration,
    pub seed: u64,
}

/// What came back.
pub struct Measured {
    pub operations: u64,
    pub elapsed: Duration,
    pub client_cpu_ns: u64,
    /// From a batch's write to each of its replies, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

/// Latencies from 1 µs to 60 s with three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).expect("bounds are valid")
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    written: usize,
    /// Received bytes that do not yet make a whole reply.
    partial: Vec<u8>,
    /// Replies of the current batch still to come.
    outstanding: usize,
    sent_at: Instant,
    numbers: Numbers,
    next_template: usize,
}

/// Runs the load against a loopback port.
///
/// # Errors
/// A connection fails, a reply is an error, or nothing arrives for a minute.
pub fn run(port: u16, load: &Load<'_>) -> Result<Measured, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut poll = Poll::new().map_err(text)?;
    let mut events = Events::with_capacity(load.connections.max(64));
    let mut connections = Vec::with_capacity(load.connections);
    for index in 0..load.connections {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let std_stream = std::net::TcpStream::connect(address).map_err(text)?;
        std_stream.set_nodelay(true).map_err(text)?;
        std_stream.set_nonblocking(true).map_err(text)?;
        let mut stream = TcpStream::from_std(std_stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(index), interest).map_err(text)?;
        connections.push(Connection {
            stream,
            request: Vec::new(),
            written: 0,
            partial: Vec::new(),
            outstanding: 0,
            sent_at: Instant::now(),
            // Any odd multiplier keeps the seeds apart and away from zero.
            numbers: Numbers::Random(
                (load.seed + index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            ),
            next_template: index % load.templates.len(),
        });
    }

    let mut buffer = vec![0; READ_BYTES];
    let mut latency_ns = new_histogram();
    let mut left = load.operations;
    let mut done = 0;
    let mut busy = 0;
    let cpu_before_ns = own_cpu_ns();
    let start = Instant::now();
    let end = start + load.time_max;
    for connection in &mut connections {
        if connection.send(load, &mut left)? {
            busy += 1;
        }
    }
    while busy > 0 {
        poll.poll(&mut events, Some(STALL_DEADLINE)).map_err(text)?;
        if events.is_empty() {
            return Err(format!("no reply for {STALL_DEADLINE:?}"));
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            if event.is_writable() {
                connection.flush()?;
            }
            if !event.is_readable() || connection.outstanding == 0 {
                continue;
            }
            done += connection.receive(&mut buffer, &mut latency_ns)?;
            if connection.outstanding == 0 {
                if Instant::now() >= end {
                    left = 0;
                }
                if !connection.send(load, &mut left)? {
                    busy -= 1;
                }
            }
        }
    }
    let elapsed = start.elapsed();
    let client_cpu_ns = own_cpu_ns().saturating_sub(cpu_before_ns);
    Ok(Measured { operations: done, elapsed, client_cpu_ns, latency_ns })
}

impl Connection {
    /// Sends the next batch; false when nothing is left to send.
    fn send(&mut self, load: &Load<'_>, left: &mut u64) -> Result<bool, String> {
        if *left == 0 {
            return Ok(false);
        }
        *left = left.saturating_sub(load.pipeline as u64);
        self.request.clear();
        self.written = 0;
        for _ in 0..load.pipeline {
            load.templates[self.next_template].append(&mut self.request, &mut self.numbers);
            self.next_template = (self.next_template + 1) % load.templates.len();
        }
        self.outstanding = load.pipeline;
        self.sent_at = Instant::now();
        self.flush()?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Reads what is there and returns how many replies ended in it.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        latency_ns: &mut Histogram<u64>,
    ) -> Result<u64, String> {
        let mut replies = 0;
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(replies),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            let waited_ns = self.sent_at.elapsed().as_nanos() as u64;
            let ended = self.take(&buffer[..count])?;
            if ended > 0 {
                latency_ns.saturating_record_n(waited_ns, ended);
            }
            replies += ended;
            // A short read has drained the socket: the next bytes bring a new event.
            if count < buffer.len() {
                return Ok(replies);
            }
        }
    }

    fn take(&mut self, received: &[u8]) -> Result<u64, String> {
        // Only a reply cut in two is copied.
        let joined = !self.partial.is_empty();
        if joined {
            self.partial.extend_from_slice(received);
        }
        let bytes = if joined { &self.partial[..] } else { received };
        let mut at = 0;
        let mut ended = 0;
        while at < bytes.len() {
            let Some(end) = reply_end(bytes, at)? else { break };
            if bytes[at] == b'-' {
                return Err(String::from_utf8_lossy(&bytes[at..end]).trim_end().to_owned());
            }
            at = end;
            ended += 1;
        }
        if ended > self.outstanding {
            return Err("more replies than commands".to_owned());
        }
        self.outstanding -= ended;
        if joined {
            self.partial.drain(..at);
        } else {
            self.partial.extend_from_slice(&received[at..]);
        }
        Ok(ended as u64)
    }
}

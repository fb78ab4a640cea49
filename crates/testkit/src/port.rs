//! Ports for servers under test.

use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what the kernel hands out by itself, so that no connection's own end takes one, and below
/// what the harness of Valkey's suite uses.
const RANGE: Range<u32> = 10_000..20_000;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A TCP port of the loopback interface that nobody listens on.
///
/// This process never gets the same one twice (until it has had all), and processes with
/// neighbouring ids begin far from each other: a server told to listen on it has it for itself,
/// where a port asked of the kernel and given back may be handed to the next who asks.
pub fn free_port() -> io::Result<u16> {
    let count = RANGE.end - RANGE.start;
    let first = process::id().wrapping_mul(617);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..count {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = (RANGE.start + first.wrapping_add(step) % count) as u16;
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[test]
fn no_port_is_given_out_twice() {
    let ports: Vec<u16> = (0..500).map(|_| free_port().expect("a port")).collect();
    let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
    assert_eq!(distinct.len(), ports.len(), "{ports:?}");
}

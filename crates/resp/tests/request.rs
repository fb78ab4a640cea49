//! The request parser against literal requests and against every way of cutting them.

use proptest::prelude::*;
use resp::{Limits, Parsed, Parser, Protocol, ProtocolError, Reply, reserve_for, write_request};

/// Everything a stream of requests led to: commands, and the error reply that ended it, if any.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    commands: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
    unread: usize,
}

/// Feeds `chunks` one after the other, as a connection does.
fn feed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut outcome = Outcome::default();
    let mut parser = Parser::new();
    let mut spans = Vec::new();
    let mut pending = Vec::new();
    for chunk in chunks {
        pending.extend_from_slice(chunk);
        let mut start = 0;
        loop {
            let rest = &mut pending[start..];
            match parser.parse(rest, limits, &mut spans) {
                Ok(Parsed::Command { consumed }) => {
                    assert!(!spans.is_empty());
                    let args = spans.iter().map(|span| span.of(rest).to_vec()).collect();
                    outcome.commands.push(args);
                    start += consumed;
                }
                Ok(Parsed::Empty { consumed }) => start += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    assert!(needed > rest.len());
                    assert!(spans.is_empty());
                    break;
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
        pending.drain(..start);
    }
    outcome.unread = pending.len();
    assert!(parser.is_partial() || pending.is_empty());
    outcome
}

fn whole(bytes: &[u8]) -> Outcome {
    feed([bytes], &Limits::default())
}

#[track_caller]
fn check(bytes: &[u8], expected: &[&[&[u8]]]) {
    let outcome = whole(bytes);
    assert_eq!(outcome.commands, expected);
    assert_eq!((outcome.error, outcome.unread), (None, 0));
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    refused_with(bytes, &Limits::default(), expected);
}

#[track_caller]
fn refused_with(bytes: &[u8], limits: &Limits, expected: &str) {
    let error = feed([bytes], limits).error.expect("an error");
    let mut out = Vec::new();
    error.write(&mut Reply::new(&mut out, Protocol::Resp2));
    assert_eq!(String::from_utf8(out).unwrap(), format!("-ERR Protocol error: {expected}\r\n"));
}

#[track_caller]
fn unfinished(bytes: &[u8]) {
    let expected = Outcome { unread: bytes.len(), ..Outcome::default() };
    assert_eq!(whole(bytes), expected);
}

#[test]
fn arrays_of_bulk_strings() {
    check(b"*1\r\n$4\r\nPING\r\n", &[&[b"PING"]]);
    check(b"*2\r\n$0\r\n\r\n$3\r\na\r\n\r\n", &[&[b"", b"a\r\n"]]);
    check(b"*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n", &[&[b"a"], &[b"b"]]);
}

#[test]
fn inline_commands() {
    check(b"PING\r\n", &[&[b"PING"]]);
    check(b"set a \"x y\\x00\" 'z'\nget a\n", &[&[b"set", b"a", b"x y\0", b"z"], &[b"get", b"a"]]);
    check(b"a\r\n*1\r\n$1\r\nb\r\nc\n", &[&[b"a"], &[b"b"], &[b"c"]]);
}

#[test]
fn nothing_to_do() {
    check(b"\r\n\n  \r\n*0\r\n*-1\r\n*-10\r\nPING\r\n", &[&[b"PING"]]);
}

#[test]
fn line_feeds_are_taken_on_trust() {
    check(b"*1\rx$1\rxayz", &[&[b"a"]]);
}

#[test]
fn unfinished_requests() {
    for bytes in [
        &b"*"[..],
        b"*1",
        b"*1\r",
        b"*1\r\n",
        b"*1\r\n$",
        b"*1\r\n$4",
        b"*1\r\n$4\r",
        b"*1\r\n$4\r\nPING",
        b"*1\r\n$4\r\nPING\r",
        b"*2\r\n$4\r\nPING\r\nx",
        b"PING",
        b"PING\r",
    ] {
        unfinished(bytes);
    }
}

#[test]
fn malformed_requests() {
    refused(b"*abc\r\n", "invalid multibulk length");
    refused(b"*\r\n", "invalid multibulk length");
    refused(b"*+1\r\n", "invalid multibulk length");
    refused(b"*01\r\n", "invalid multibulk length");
    refused(b"*-0\r\n", "invalid multibulk length");
    refused(b"* 1\r\n", "invalid multibulk length");
    refused(b"*2147483648\r\n", "invalid multibulk length");
    refused(b"*99999999999999999999999\r\n", "invalid multibulk length");
    refused(b"*1\r\nabc\r\n", "expected '$', got 'a'");
    refused(b"*1\r\n\r\n", "expected '$', got ' '");
    refused(b"*1\r\n$-1\r\n", "invalid bulk length");
    refused(b"*1\r\n$x\r\n", "invalid bulk length");
    refused(b"*1\r\n$\r\n", "invalid bulk length");
    refused(b"*1\r\n$536870913\r\n", "invalid bulk length");
    refused(b"\"a\r\n", "unbalanced quotes in request");
    refused(b"a 'b'c\r\n", "unbalanced quotes in request");
}

#[test]
fn endless_lines() {
    let long = vec![b'1'; 64 * 1024 + 1];
    refused(&long, "too big inline request");
    refused(&[b"*", &long[1..]].concat(), "too big mbulk count string");
    refused(&[b"*1\r\n$", &long[1..]].concat(), "too big bulk count string");
    unfinished(&long[1..]);
}

#[test]
fn argument_lengths() {
    let limits = Limits { bulk_len_max: 3, ..Limits::default() };
    refused_with(b"*1\r\n$4\r\n", &limits, "invalid bulk length");
    assert_eq!(feed([&b"*1\r\n$3\r\nabc\r\n"[..]], &limits).commands.len(), 1);
    let limits = Limits { bulk_len_max: u64::MAX, ..Limits::default() };
    refused_with(b"*1\r\n$4294967295\r\n", &limits, "invalid bulk length");
    refused_with(b"*1\r\n$9223372036854775807\r\n", &limits, "invalid bulk length");
}

#[test]
fn before_authentication() {
    let limits = Limits { authenticated: false, ..Limits::default() };
    refused_with(b"*11\r\n", &limits, "unauthenticated multibulk length");
    refused_with(b"*1\r\n$16385\r\n", &limits, "unauthenticated bulk length");
    let outcome = feed([&b"*10\r\n$16384\r\n"[..]], &limits);
    assert_eq!(outcome.error, None);
}

#[test]
fn announced_lengths_cost_nothing() {
    let mut parser = Parser::new();
    let mut spans = Vec::new();
    let mut request = b"*2000000000\r\n$500000000\r\nx".to_vec();
    let parsed = parser.parse(&mut request, &Limits::default(), &mut spans).unwrap();
    assert_eq!(parsed, Parsed::Incomplete { needed: 25 + 500_000_000 + 2 });
    assert!(parser.used_bytes() < 200);
    let Parsed::Incomplete { needed } = parsed else { unreachable!() };
    reserve_for(&mut request, needed, 4096);
    assert!(request.capacity() <= 26 + 4096);
}

#[test]
fn many_arguments_byte_by_byte_are_linear() {
    // Quadratic work would be 10^11 steps.
    let args = vec![b"x"; 50_000];
    let mut request = Vec::new();
    write_request(&mut request, &args);
    let mut parser = Parser::new();
    let mut spans = Vec::new();
    for end in 1..request.len() {
        let parsed = parser.parse(&mut request[..end], &Limits::default(), &mut spans);
        assert!(matches!(parsed, Ok(Parsed::Incomplete { .. })));
    }
    let parsed = parser.parse(&mut request, &Limits::default(), &mut spans);
    assert_eq!(parsed, Ok(Parsed::Command { consumed: request.len() }));
    assert_eq!(spans.len(), 50_000);
    assert_eq!(parser.used_bytes(), 0);
}

#[test]
fn requests_that_wait_to_be_executed_are_read_in_large_pieces() {
    const STEP: usize = 16_384;
    let mut buffer = vec![b'x'; 100];
    let mut reads = 0;
    while buffer.len() < 20_000_000 {
        // Nothing is parsed meanwhile, so what was needed last is there long since.
        reserve_for(&mut buffer, 100, STEP);
        let room = buffer.capacity() - buffer.len();
        assert!(room >= STEP, "{room} bytes behind {}", buffer.len());
        buffer.resize(buffer.len() + room, b'x');
        reads += 1;
    }
    assert!(reads < 20, "{reads} times copied");
}

#[test]
fn room_for_a_large_argument_grows_with_what_arrived_and_ends_exact() {
    let needed = 10_000_000;
    let mut buffer = Vec::new();
    let mut copied = 0;
    while buffer.len() < needed {
        let before = buffer.capacity();
        reserve_for(&mut buffer, needed, 16_384);
        if buffer.capacity() != before {
            copied += buffer.len();
        }
        assert!(buffer.capacity() <= 2 * buffer.len() + 16_384);
        let room = buffer.capacity() - buffer.len();
        assert!(room > 0);
        buffer.resize(buffer.len() + room.min(10_000), 1);
    }
    assert_eq!((buffer.len(), buffer.capacity()), (needed, needed));
    assert!(copied < 2 * needed);
}

/// Streams that mix well-formed requests of both kinds with damaged ones.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let request =
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..15).prop_map(|args| {
            let mut out = Vec::new();
            write_request(&mut out, &args);
            out
        });
    let part = prop_oneof![
        8 => request,
        4 => "[a-z '\"\\\\x0-9\t]{0,20}(\r\n|\n)".prop_map(String::into_bytes),
        2 => Just(b"*0\r\n".to_vec()),
        1 => prop::collection::vec(
            prop::sample::select(&b"*$-+0123\r\n\"' ax\0"[..]), 0..12),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn cutting_makes_no_difference(bytes in stream(), authenticated: bool) {
        let limits = Limits { bulk_len_max: 16, authenticated };
        let expected = feed([&bytes[..]], &limits);
        prop_assert_eq!(&feed(bytes.chunks(1), &limits), &expected);
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            prop_assert_eq!(&feed([left, right], &limits), &expected, "cut at {}", cut);
        }
    }

    #[test]
    fn requests_survive(requests: Vec<Vec<Vec<u8>>>) {
        let mut bytes = Vec::new();
        for args in &requests {
            write_request(&mut bytes, args);
        }
        let expected: Vec<_> = requests.into_iter().filter(|args| !args.is_empty()).collect();
        prop_assert_eq!(whole(&bytes).commands, expected);
    }
}

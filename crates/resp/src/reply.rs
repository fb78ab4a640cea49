//! The one way a handler answers: a writer of RESP2 or RESP3 into a byte buffer.
//!
//! It does not check that the written parts add up to whole replies (an array header says how many
//! items follow and nobody counts them); the talk tests do. Handlers of `command` and `server` call
//! it, and scripts read their replies back from these bytes.

use crate::DoubleText;
use crate::answer::Short;

/// Which dialect the client speaks: RESP2 until it says `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Writes replies at the end of a buffer.
///
/// ```
/// use resp::{Protocol, Reply};
/// let mut out = Vec::new();
/// let mut reply = Reply::new(&mut out, Protocol::Resp2);
/// reply.array(2);
/// reply.bulk(b"one");
/// reply.null();
/// assert_eq!(out, b"*2\r\n$3\r\none\r\n$-1\r\n");
/// ```
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
    /// Where a reply that is one simple value goes instead, if the program itself reads it.
    short: Option<&'a mut Short>,
}

/// An aggregate whose length is not known yet; give it back to one of the `finish_` methods.
#[must_use = "an unfinished aggregate leaves a placeholder in the reply"]
#[derive(Debug)]
pub struct Deferred {
    position: usize,
}

/// Room for a type byte, the digits of any i64 and CRLF.
const HEADER_MAX: usize = 24;

/// What a deferred header looks like until its length is known. Lengths below ten fit in place.
const PLACEHOLDER: &[u8; 4] = b"*0\r\n";

impl<'a> Reply<'a> {
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Reply<'a> {
        Reply { out, protocol, short: None }
    }

    pub(crate) fn to_answer(
        out: &'a mut Vec<u8>,
        protocol: Protocol,
        short: &'a mut Short,
    ) -> Reply<'a> {
        Reply { out, protocol, short: Some(short) }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// A reply writer in another dialect on the same buffer: `HELLO` answers in the new one, and
    /// scripts are answered in theirs.
    pub fn with_protocol(&mut self, protocol: Protocol) -> Reply<'_> {
        Reply { out: self.out, protocol, short: self.short.as_deref_mut() }
    }

    /// Answers with a value if that is possible: inside of an aggregate it is not.
    #[inline]
    fn is_short(&mut self, value: Short) -> bool {
        match &mut self.short {
            Some(short) if self.out.is_empty() => {
                **short = value;
                true
            }
            _ => false,
        }
    }

    #[inline]
    pub fn ok(&mut self) {
        if self.is_short(Short::Ok) {
            return;
        }
        self.out.extend_from_slice(b"+OK\r\n");
    }

    pub fn status(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error with its code in front (`ERR …`). Line breaks inside become spaces, since they
    /// would end the reply early; those at the end are left out.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// An error whose text repeats bytes the client sent, which need not be UTF-8.
    pub fn error_bytes(&mut self, text: &[u8]) {
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let len = text.iter().rposition(|byte| !is_break(byte)).map_or(0, |last| last + 1);
        self.line(b'-', &text[..len]);
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        if !self.is_short(Short::Integer(value)) {
            self.encode_integer(value);
        }
    }

    fn encode_integer(&mut self, value: i64) {
        if let 0..=9 = value {
            self.out.extend_from_slice(&[b':', b'0' + value as u8, b'\r', b'\n']);
            return;
        }
        self.header(b':', value);
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.is_short(Short::Bulk) {
            self.out.extend_from_slice(bytes);
            return;
        }
        self.encoded_bulk(bytes);
    }

    fn encoded_bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + HEADER_MAX + 2);
        self.length(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer as a bulk string, as values read from the keyspace are replied.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    pub fn null(&mut self) {
        if self.is_short(Short::Null) {
            return;
        }
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    pub fn null_array(&mut self) {
        if self.is_short(Short::Null) {
            return;
        }
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    pub fn array(&mut self, len: usize) {
        self.length(b'*', len);
    }

    /// A map of `pairs` keys, each followed by its value; in RESP2 a flat array.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', 2 * pairs),
            Protocol::Resp3 => self.length(b'%', pairs),
        }
    }

    pub fn set(&mut self, len: usize) {
        self.length(self.resp3_or_array(b'~'), len);
    }

    /// An out-of-band message; in RESP2 an array like any other.
    pub fn push(&mut self, len: usize) {
        self.length(self.resp3_or_array(b'>'), len);
    }

    pub fn double(&mut self, value: f64) {
        let text = DoubleText::new(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => self.line_unchecked(b',', text.as_bytes()),
        }
    }

    pub fn boolean(&mut self, value: bool) {
        if self.protocol == Protocol::Resp2 {
            return self.integer(i64::from(value));
        }
        self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" });
    }

    /// An integer of any size, given as its decimal digits; in RESP2 a bulk string.
    pub fn big_number(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// A text with a three-letter format (`txt`, `mkd`); in RESP2 a bulk string of the text alone.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3, "a verbatim format has three letters");
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.length(b'=', text.len() + 4);
                self.out.extend_from_slice(format.as_bytes());
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Bytes that are a reply, or parts of one, already.
    pub fn raw(&mut self, resp: &[u8]) {
        self.out.extend_from_slice(resp);
    }

    /// Where the next byte goes, for [`Reply::truncate`]. Finishing a deferred aggregate may shift
    /// what was written after its start, so a mark taken inside one is good until it is finished.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// Drops everything written since `position`.
    pub fn truncate(&mut self, position: usize) {
        self.out.truncate(position);
        if let Some(short) = &mut self.short
            && position == 0
        {
            **short = Short::No;
        }
    }

    /// What was written since `position`.
    pub fn written_since(&self, position: usize) -> &[u8] {
        &self.out[position..]
    }

    /// Starts an aggregate whose length is known only when its items are written. Up to nine items
    /// cost nothing extra; beyond, finishing moves the items by a few bytes.
    pub fn deferred_array(&mut self) -> Deferred {
        let position = self.out.len();
        self.out.extend_from_slice(PLACEHOLDER);
        Deferred { position }
    }

    pub fn finish_array(&mut self, deferred: Deferred, len: usize) {
        self.finish(deferred, b'*', len);
    }

    /// Ends a deferred aggregate as a map of `pairs` keys with their values.
    pub fn finish_map(&mut self, deferred: Deferred, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.finish(deferred, b'*', 2 * pairs),
            Protocol::Resp3 => self.finish(deferred, b'%', pairs),
        }
    }

    pub fn finish_set(&mut self, deferred: Deferred, len: usize) {
        self.finish(deferred, self.resp3_or_array(b'~'), len);
    }

    pub fn finish_push(&mut self, deferred: Deferred, len: usize) {
        self.finish(deferred, self.resp3_or_array(b'>'), len);
    }

    fn resp3_or_array(&self, resp3: u8) -> u8 {
        match self.protocol {
            Protocol::Resp2 => b'*',
            Protocol::Resp3 => resp3,
        }
    }

    fn finish(&mut self, deferred: Deferred, kind: u8, len: usize) {
        let header = Header::new(kind, len as i64);
        let header = header.as_bytes();
        let body = deferred.position + PLACEHOLDER.len();
        let body_end = self.out.len();
        if header.len() > PLACEHOLDER.len() {
            self.out.resize(body_end + header.len() - PLACEHOLDER.len(), 0);
            self.out.copy_within(body..body_end, deferred.position + header.len());
        }
        self.out[deferred.position..deferred.position + header.len()].copy_from_slice(header);
    }

    fn length(&mut self, kind: u8, len: usize) {
        // Most lengths are short; constant-size appends compile to single stores.
        if len < 10 {
            self.out.extend_from_slice(&[kind, b'0' + len as u8, b'\r', b'\n']);
        } else if len < 100 {
            let (tens, ones) = ((len / 10) as u8, (len % 10) as u8);
            self.out.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
        } else {
            self.header(kind, len as i64);
        }
    }

    /// Writes in place: copying digits just written would wait for them to reach the cache.
    fn header(&mut self, kind: u8, value: i64) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER_MAX]);
        if let Some(room) = self.out.last_chunk_mut() {
            let len = write_header(room, kind, value);
            self.out.truncate(start + len);
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        let start = self.out.len();
        self.line_unchecked(kind, text);
        if memchr::memchr2(b'\r', b'\n', text).is_some() {
            let end = self.out.len() - 2;
            for byte in &mut self.out[start..end] {
                if matches!(byte, b'\r' | b'\n') {
                    *byte = b' ';
                }
            }
        }
    }

    fn line_unchecked(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }
}

/// The numbers from 00 to 99: half as many divisions as digit by digit.
const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut number = 0;
    while number < 100 {
        pairs[2 * number] = b'0' + (number / 10) as u8;
        pairs[2 * number + 1] = b'0' + (number % 10) as u8;
        number += 1;
    }
    pairs
};

/// Writes a type byte, a number and CRLF; returns their length.
fn write_header(bytes: &mut [u8; HEADER_MAX], kind: u8, value: i64) -> usize {
    let (first, rest) = bytes.split_at_mut(1);
    first[0] = kind;
    let end = 1 + write_integer(rest, value);
    bytes[end..end + 2].copy_from_slice(b"\r\n");
    end + 2
}

/// Digits of a number in base ten. O(1): from its bits, and one look at the power of ten nearby.
#[inline]
fn digits(value: u64) -> usize {
    const POWERS: [u64; 20] = {
        let mut powers = [0; 20];
        let mut at = 1;
        let mut power = 1;
        while at < 20 {
            power *= 10;
            powers[at] = power;
            at += 1;
        }
        powers
    };
    // 1233 / 4096 is log10(2), close enough for 64 bits.
    let least = (((64 - (value | 1).leading_zeros()) * 1233) >> 12) as usize;
    least + usize::from(value >= POWERS[least])
}

/// Writes the decimal digits of an integer to the front of `bytes`, which has room for 20; returns
/// their number.
pub fn write_integer(bytes: &mut [u8], value: i64) -> usize {
    bytes[0] = b'-';
    let mut rest = value.unsigned_abs();
    let first = usize::from(value < 0);
    let end = first + digits(rest);
    let mut place = end;
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        place -= 2;
        bytes[place..place + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        let pair = rest as usize * 2;
        bytes[first..first + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        bytes[first] = b'0' + rest as u8;
    }
    end
}

/// A type byte, a number and CRLF, put together on the stack so that it is one append.
struct Header {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl Header {
    fn new(kind: u8, value: i64) -> Header {
        let mut bytes = [0; HEADER_MAX];
        let len = write_header(&mut bytes, kind, value);
        Header { bytes, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::{Protocol, Reply};

    #[track_caller]
    fn check(write: impl Fn(&mut Reply<'_>), resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = b"before".to_vec();
            write(&mut Reply::new(&mut out, protocol));
            assert_eq!(String::from_utf8_lossy(&out[6..]), expected, "{protocol:?}");
        }
    }

    #[track_caller]
    fn same(write: impl Fn(&mut Reply<'_>), expected: &str) {
        check(write, expected, expected);
    }

    #[test]
    fn simple_types() {
        same(|r| r.ok(), "+OK\r\n");
        same(|r| r.status("QUEUED"), "+QUEUED\r\n");
        same(|r| r.error("ERR a\r\nb"), "-ERR a  b\r\n");
        same(|r| r.error("ERR a\r\n\n"), "-ERR a\r\n");
        same(|r| r.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n");
        same(|r| r.bulk(b""), "$0\r\n\r\n");
        same(|r| r.bulk_integer(-12), "$3\r\n-12\r\n");
        same(|r| r.raw(b":1\r\n"), ":1\r\n");
        check(|r| r.null(), "$-1\r\n", "_\r\n");
        check(|r| r.null_array(), "*-1\r\n", "_\r\n");
        check(|r| r.boolean(true), ":1\r\n", "#t\r\n");
        check(|r| r.boolean(false), ":0\r\n", "#f\r\n");
        check(|r| r.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|r| r.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        check(|r| r.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
        check(|r| r.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn integers_of_every_width() {
        let mut value: i64 = 0;
        loop {
            for value in [value, -value] {
                same(|r| r.integer(value), &format!(":{value}\r\n"));
            }
            let Some(next) = value.checked_mul(10).and_then(|v| v.checked_add(9)) else { break };
            value = next;
        }
        same(|r| r.integer(i64::MIN), ":-9223372036854775808\r\n");
        same(|r| r.integer(i64::MAX), ":9223372036854775807\r\n");
    }

    #[test]
    fn lengths_of_every_width() {
        for len in [0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 123_456_789] {
            same(|r| r.array(len), &format!("*{len}\r\n"));
            check(|r| r.map(len), &format!("*{}\r\n", 2 * len), &format!("%{len}\r\n"));
            check(|r| r.set(len), &format!("*{len}\r\n"), &format!("~{len}\r\n"));
            check(|r| r.push(len), &format!("*{len}\r\n"), &format!(">{len}\r\n"));
        }
    }

    #[test]
    fn deferred_lengths() {
        for len in [0, 1, 9, 10, 99, 100, 1234] {
            let items = ":7\r\n".repeat(len);
            let write = |r: &mut Reply<'_>| {
                let deferred = r.deferred_array();
                for _ in 0..len {
                    r.integer(7);
                }
                deferred
            };
            let array = format!("*{len}\r\n{items}");
            same(
                |r| {
                    let deferred = write(r);
                    r.finish_array(deferred, len);
                },
                &array,
            );
            check(
                |r| {
                    let deferred = write(r);
                    r.finish_set(deferred, len);
                },
                &array,
                &format!("~{len}\r\n{items}"),
            );
            check(
                |r| {
                    let deferred = write(r);
                    r.finish_map(deferred, len);
                },
                &format!("*{}\r\n{items}", 2 * len),
                &format!("%{len}\r\n{items}"),
            );
        }
    }

    #[test]
    fn deferred_aggregates_nest() {
        same(
            |r| {
                let outer = r.deferred_array();
                for _ in 0..12 {
                    let inner = r.deferred_array();
                    (0..11).for_each(|_| r.ok());
                    r.finish_array(inner, 11);
                }
                r.finish_array(outer, 12);
                r.ok();
            },
            &format!("*12\r\n{}+OK\r\n", format!("*11\r\n{}", "+OK\r\n".repeat(11)).repeat(12)),
        );
    }

    #[test]
    fn truncating_drops_what_came_after_the_mark() {
        same(
            |r| {
                r.ok();
                let mark = r.position();
                r.array(3);
                r.bulk(b"x");
                assert_eq!(r.written_since(mark), b"*3\r\n$1\r\nx\r\n");
                r.truncate(mark);
                r.integer(1);
            },
            "+OK\r\n:1\r\n",
        );
    }
}

//! Requests: from the bytes a client sent to the arguments of one command at a time.
//!
//! The parser keeps no copy of the bytes. The connection keeps an unfinished request's bytes and
//! shows them again with more behind them; the parser remembers how far it came, so a request that
//! arrives byte by byte costs the same as one that arrives at once. Nothing is reserved from a
//! length the client merely announced.
//!
//! Called by the server's connections. Knows neither commands nor sockets.

use crate::{Reply, inline};

/// The longest line a client may send: an inline command, or a header that never ends.
const LINE_MAX: usize = 64 * 1024;

/// The longest argument whose length has two digits.
const SHORT_MAX: u64 = 99;

/// What a client that has not authenticated yet may send.
const UNAUTHENTICATED_ARGS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_MAX: i64 = 16 * 1024;

/// Where an argument lies in the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub(crate) fn new(start: usize, len: usize) -> Span {
        debug_assert!(start + len <= u32::MAX as usize, "the parser bounds requests");
        Span { start: start as u32, len: len as u32 }
    }

    /// The argument itself; `buffer` is what was given to [`Parser::parse`].
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }
}

/// What the parser refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `proto-max-bulk-len`: the longest argument, in bytes. An argument must also end within the
    /// first 4 GiB of its request.
    pub bulk_len_max: u64,
    /// Whether the client may send more than a few small arguments.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bulk_len_max: 512 * 1024 * 1024, authenticated: true }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The spans hold the arguments, at least one; the request took this many bytes.
    Command { consumed: usize },
    /// A blank line or an empty array: nothing to do or to answer, these bytes are done with.
    Empty { consumed: usize },
    /// Show the same bytes again with more behind them. Nothing new can be said before `needed`
    /// bytes are there, counted from the start of the request.
    Incomplete { needed: usize },
}

/// The request cannot be read on; the connection is to be closed after the error is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    InvalidMultibulkLength,
    UnauthenticatedMultibulkLength,
    TooBigMultibulkCount,
    InvalidBulkLength,
    UnauthenticatedBulkLength,
    TooBigBulkCount,
    ExpectedBulk { got: u8 },
    TooBigInline,
    UnbalancedQuotes,
}

impl ProtocolError {
    /// Writes the error reply.
    pub fn write(self, reply: &mut Reply<'_>) {
        let mut text = b"ERR Protocol error: ".to_vec();
        text.extend_from_slice(self.reason().as_bytes());
        if let ProtocolError::ExpectedBulk { got } = self {
            text.extend_from_slice(&[got, b'\'']);
        }
        reply.error_bytes(&text);
    }

    fn reason(self) -> &'static str {
        match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::TooBigMultibulkCount => "too big mbulk count string",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::TooBigBulkCount => "too big bulk count string",
            Self::ExpectedBulk { .. } => "expected '$', got '",
            Self::TooBigInline => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
        }
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())?;
        match self {
            Self::ExpectedBulk { got } => write!(f, "{}'", got.escape_ascii()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Parses one connection's requests, one call per request.
///
/// Between requests it is one null pointer. After [`Parsed::Incomplete`] the next call must show
/// the same bytes, from the request's first one on; after anything else, the bytes that follow.
#[derive(Debug, Default)]
pub struct Parser {
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    progress: Progress,
    spans: Vec<Span>,
    needed: usize,
}

/// How far into a request the parser came.
#[derive(Debug, Default)]
struct Progress {
    /// Everything before this index is parsed.
    position: usize,
    /// Arguments still to come; zero until the first line is read.
    missing: usize,
    /// The length of the argument at `position`, once its header is read.
    bulk_len: Option<usize>,
}

impl Parser {
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Reads the request at the start of `buffer`. The arguments of a [`Parsed::Command`] are left
    /// in `spans`, whose former content is dropped; it is an argument so that a worker can use one
    /// vector for all its connections. Escapes of inline commands are decoded in place.
    ///
    /// Linear in the bytes not seen before.
    pub fn parse(
        &mut self,
        buffer: &mut [u8],
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Parsed, ProtocolError> {
        spans.clear();
        let Some(partial) = &mut self.partial else {
            let mut progress = Progress::default();
            let parsed = progress.advance(buffer, limits, spans)?;
            if let Parsed::Incomplete { needed } = parsed
                && !buffer.is_empty()
            {
                let partial = Partial { progress, spans: spans.clone(), needed };
                self.partial = Some(Box::new(partial));
                spans.clear();
            }
            return Ok(parsed);
        };
        if buffer.len() < partial.needed {
            return Ok(Parsed::Incomplete { needed: partial.needed });
        }
        let parsed = partial.progress.advance(buffer, limits, &mut partial.spans)?;
        match parsed {
            Parsed::Incomplete { needed } => partial.needed = needed,
            Parsed::Command { .. } | Parsed::Empty { .. } => {
                spans.extend_from_slice(&partial.spans);
                self.partial = None;
            }
        }
        Ok(parsed)
    }

    /// Whether a request has begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Bytes held for an unfinished request, beside the bytes the connection keeps.
    pub fn used_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.spans.capacity() * size_of::<Span>()
        })
    }
}

impl Progress {
    fn advance(
        &mut self,
        buffer: &mut [u8],
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Parsed, ProtocolError> {
        if self.missing == 0 {
            match buffer.first() {
                None => return Ok(Parsed::Incomplete { needed: 1 }),
                Some(b'*') => {}
                Some(_) => return parse_inline(buffer, spans),
            }
            let (count, next) = match length_line(buffer, 1) {
                Line::Number { value, next } => (value, next),
                Line::Unfinished if buffer.len() > LINE_MAX => {
                    return Err(ProtocolError::TooBigMultibulkCount);
                }
                Line::Unfinished | Line::LastByteMissing => {
                    return Ok(Parsed::Incomplete { needed: buffer.len() + 1 });
                }
                Line::NotANumber => return Err(ProtocolError::InvalidMultibulkLength),
            };
            if count > i64::from(i32::MAX) {
                return Err(ProtocolError::InvalidMultibulkLength);
            }
            if count > UNAUTHENTICATED_ARGS_MAX && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedMultibulkLength);
            }
            if count <= 0 {
                return Ok(Parsed::Empty { consumed: next });
            }
            self.missing = count as usize;
            self.position = next;
        }
        if self.bulk_len.is_none() && limits.bulk_len_max >= SHORT_MAX {
            self.take_short(buffer, spans);
        }
        while self.missing > 0 {
            let len = match self.bulk_len {
                Some(len) => len,
                None => match self.bulk_header(buffer, limits)? {
                    Some(len) => len,
                    None => return Ok(Parsed::Incomplete { needed: buffer.len() + 1 }),
                },
            };
            let next = self.position + len + 2;
            if buffer.len() < next {
                self.bulk_len = Some(len);
                return Ok(Parsed::Incomplete { needed: next });
            }
            spans.push(Span::new(self.position, len));
            self.bulk_len = None;
            self.position = next;
            self.missing -= 1;
        }
        Ok(Parsed::Command { consumed: self.position })
    }

    /// Reads arguments as long as they are whole and no longer than `SHORT_MAX`, as most are.
    #[inline]
    fn take_short(&mut self, buffer: &[u8], spans: &mut Vec<Span>) {
        let (mut position, mut missing) = (self.position, self.missing);
        while missing > 0 {
            let rest = &buffer[position..];
            let (start, len) = match *rest {
                [b'$', ones @ b'0'..=b'9', b'\r', _, ..] => (4, ones - b'0'),
                [b'$', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _, ..] => {
                    (5, 10 * (tens - b'0') + (ones - b'0'))
                }
                _ => break,
            };
            let end = start + usize::from(len) + 2;
            if rest.len() < end || position + end > u32::MAX as usize {
                break;
            }
            spans.push(Span::new(position + start, usize::from(len)));
            position += end;
            missing -= 1;
        }
        (self.position, self.missing) = (position, missing);
    }

    /// Reads `$<length>` at `position` and moves behind it; `None` if it has not all arrived.
    #[inline]
    fn bulk_header(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let start = self.position;
        let line = length_line(buffer, start + 1);
        match line {
            Line::Unfinished if buffer.len() - start > LINE_MAX => {
                return Err(ProtocolError::TooBigBulkCount);
            }
            Line::Unfinished | Line::LastByteMissing => return Ok(None),
            Line::Number { .. } | Line::NotANumber => {}
        }
        if buffer[start] != b'$' {
            return Err(ProtocolError::ExpectedBulk { got: buffer[start] });
        }
        let Line::Number { value, next } = line else {
            return Err(ProtocolError::InvalidBulkLength);
        };
        if value < 0 || value as u64 > limits.bulk_len_max {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if value > UNAUTHENTICATED_BULK_MAX && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        let len = value as usize;
        if next.saturating_add(len) > u32::MAX as usize {
            return Err(ProtocolError::InvalidBulkLength);
        }
        self.position = next;
        Ok(Some(len))
    }
}

fn parse_inline(buffer: &mut [u8], spans: &mut Vec<Span>) -> Result<Parsed, ProtocolError> {
    let Some(newline) = memchr::memchr(b'\n', buffer) else {
        if buffer.len() > LINE_MAX {
            return Err(ProtocolError::TooBigInline);
        }
        return Ok(Parsed::Incomplete { needed: buffer.len() + 1 });
    };
    let consumed = newline + 1;
    if u32::try_from(consumed).is_err() {
        return Err(ProtocolError::TooBigInline);
    }
    let line = match &mut buffer[..newline] {
        [line @ .., b'\r'] => line,
        line => line,
    };
    inline::split_in_place(line, spans).map_err(|_| ProtocolError::UnbalancedQuotes)?;
    if spans.is_empty() {
        return Ok(Parsed::Empty { consumed });
    }
    Ok(Parsed::Command { consumed })
}

enum Line {
    /// No carriage return yet.
    Unfinished,
    /// All but the line feed is there.
    LastByteMissing,
    /// A number, and the index behind the line. Whether the carriage return is followed by a line
    /// feed is not looked at, nor does Redis.
    Number {
        value: i64,
        next: usize,
    },
    NotANumber,
}

/// Reads the number between `start` and the next CRLF.
#[inline]
fn length_line(buffer: &[u8], start: usize) -> Line {
    // Nearly all lengths have one or two digits.
    match buffer.get(start..) {
        Some([ones @ b'0'..=b'9', b'\r', _, ..]) => {
            return Line::Number { value: i64::from(ones - b'0'), next: start + 3 };
        }
        Some([tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _, ..]) => {
            let value = 10 * i64::from(tens - b'0') + i64::from(ones - b'0');
            return Line::Number { value, next: start + 4 };
        }
        _ => {}
    }
    // At most nine digits cannot overflow, and are what real requests have.
    let mut value = 0;
    let mut index = start;
    while let Some(digit) = buffer.get(index).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
        && index < start + 9
    {
        value = value * 10 + i64::from(digit);
        index += 1;
    }
    let plain = index > start && (buffer[start] != b'0' || index == start + 1);
    if plain && buffer.get(index) == Some(&b'\r') && buffer.len() > index + 1 {
        return Line::Number { value, next: index + 2 };
    }
    unusual_length_line(buffer, start)
}

#[cold]
fn unusual_length_line(buffer: &[u8], start: usize) -> Line {
    // The type byte may itself be the carriage return.
    let first = start - 1;
    let Some(offset) = buffer.get(first..).and_then(|rest| memchr::memchr(b'\r', rest)) else {
        return Line::Unfinished;
    };
    let end = first + offset;
    if buffer.len() < end + 2 {
        return Line::LastByteMissing;
    }
    match buffer.get(start..end).and_then(strict_integer) {
        Some(value) => Line::Number { value, next: end + 2 },
        None => Line::NotANumber,
    }
}

/// Digits in their shortest form with an optional minus: no plus, no leading zero, no space.
fn strict_integer(digits: &[u8]) -> Option<i64> {
    let shortest = matches!(digits, b"0" | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..]);
    if !shortest {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Makes room behind an unfinished request of which `needed` bytes are awaited, for the next read.
/// If so many are there already, nobody knows what comes: requests that wait to be executed.
///
/// The room grows with what has arrived, never with what was announced, and is capped at what is
/// needed: copying stays linear for an argument of any size, and the buffer ends up no larger than
/// its request. There is room for at least `step` bytes, unless fewer are needed.
pub fn reserve_for(buffer: &mut Vec<u8>, needed: usize, step: usize) {
    let missing = match needed.checked_sub(buffer.len()) {
        Some(missing @ 1..) => missing,
        // In proportion, or a long queue of requests would be copied for each step.
        _ => buffer.len().max(step),
    };
    if buffer.capacity() - buffer.len() < missing.min(step) {
        buffer.reserve_exact(missing.min(buffer.len().max(step)));
    }
}

/// Appends a request as clients send it: an array of bulk strings.
pub fn write_request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    let mut writer = Reply::new(out, crate::Protocol::Resp2);
    writer.array(args.len());
    for arg in args {
        writer.bulk(arg.as_ref());
    }
}

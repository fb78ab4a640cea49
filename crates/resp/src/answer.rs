//! A reply that the program itself reads, as scripts do with those of their calls: what is one
//! simple value never becomes bytes of the protocol. Handlers do not notice: they write to a
//! [`Reply`] as always.

use crate::{Protocol, Reply};

/// A reply of one simple value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Short {
    /// It is none: the bytes say what it is.
    #[default]
    No,
    Integer(i64),
    /// The bytes are the string itself.
    Bulk,
    /// Nothing, be it a string or an array that is missing.
    Null,
    /// The status OK.
    Ok,
    /// This string, which is whoever's it was lent from.
    Lent(*const [u8]),
}

/// A simple value as a reply, lent by what it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simple<'a> {
    Integer(i64),
    Bulk(&'a [u8]),
    Null,
    Ok,
}

/// One reply.
///
/// ```
/// use resp::{Answer, Protocol, Short};
/// let mut answer = Answer::default();
/// answer.reply(Protocol::Resp2).bulk(b"text");
/// assert_eq!((answer.short, &answer.bytes[..]), (Short::Bulk, &b"text"[..]));
/// answer.reply(Protocol::Resp2).status("PONG");
/// assert_eq!((answer.short, &answer.bytes[..]), (Short::No, &b"+PONG\r\n"[..]));
/// ```
#[derive(Debug, Default)]
pub struct Answer {
    pub short: Short,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// A writer for another reply in place of this one.
    #[inline]
    pub fn reply(&mut self, protocol: Protocol) -> Reply<'_> {
        self.clear();
        Reply::to_answer(&mut self.bytes, protocol, &mut self.short)
    }

    /// Room for another reply as bytes.
    pub fn encoded(&mut self) -> &mut Vec<u8> {
        self.clear();
        &mut self.bytes
    }

    /// Puts a value in place of what is in there. A string is not copied: it must be read before
    /// what it was lent from changes.
    #[inline]
    pub fn lend(&mut self, value: Simple<'_>) {
        self.short = match value {
            Simple::Integer(number) => Short::Integer(number),
            Simple::Bulk(text) => Short::Lent(text),
            Simple::Null => Short::Null,
            Simple::Ok => Short::Ok,
        };
    }

    #[inline]
    fn clear(&mut self) {
        self.short = Short::No;
        self.bytes.clear();
    }

    #[inline]
    pub fn is_error(&self) -> bool {
        self.short == Short::No && self.bytes.first() == Some(&b'-')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(write: impl Fn(&mut Reply<'_>), short: Short, bytes: &[u8]) {
        let mut answer = Answer { short: Short::Ok, bytes: b"before".to_vec() };
        write(&mut answer.reply(Protocol::Resp2));
        assert_eq!((answer.short, &answer.bytes[..]), (short, bytes));
    }

    #[test]
    fn simple_values_are_short() {
        check(|r| r.integer(-5), Short::Integer(-5), b"");
        check(|r| r.boolean(true), Short::Integer(1), b"");
        check(|r| r.bulk(b""), Short::Bulk, b"");
        check(|r| r.bulk_integer(17), Short::Bulk, b"17");
        check(|r| r.double(1.5), Short::Bulk, b"1.5");
        check(|r| r.null(), Short::Null, b"");
        check(|r| r.null_array(), Short::Null, b"");
        check(|r| r.ok(), Short::Ok, b"");
        check(|r| r.with_protocol(Protocol::Resp3).integer(3), Short::Integer(3), b"");
    }

    #[test]
    fn all_else_is_bytes() {
        check(|r| r.error("ERR no"), Short::No, b"-ERR no\r\n");
        check(|r| r.array(0), Short::No, b"*0\r\n");
        check(|r| r.with_protocol(Protocol::Resp3).boolean(true), Short::No, b"#t\r\n");
        let elements = |r: &mut Reply<'_>| {
            r.array(4);
            r.integer(1);
            r.bulk(b"x");
            r.null();
            r.ok();
        };
        check(elements, Short::No, b"*4\r\n:1\r\n$1\r\nx\r\n$-1\r\n+OK\r\n");
    }

    #[test]
    fn what_is_taken_back_is_none() {
        let taken_back = |r: &mut Reply<'_>| {
            let place = r.position();
            r.integer(1);
            r.truncate(place);
        };
        check(taken_back, Short::No, b"");
    }
}

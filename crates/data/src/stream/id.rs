//! Entry ids: a time in ms and a sequence number, ordered, written `ms-seq`.

use std::fmt;

/// The id of an entry of a stream.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub ms: u64,
    pub seq: u64,
}

/// Longer texts are no ids, as in Redis.
const TEXT_BYTES_MAX: usize = 127;

/// An id as clients write it: the sequence number may be missing, or left to the server (`5-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub ms: u64,
    pub seq: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seq {
    Given(u64),
    Missing,
    Any,
}

impl Id {
    pub const MIN: Id = Id { ms: 0, seq: 0 };
    pub const MAX: Id = Id { ms: u64::MAX, seq: u64::MAX };

    pub const fn new(ms: u64, seq: u64) -> Id {
        Id { ms, seq }
    }

    /// The id behind this one; none behind the last.
    pub fn next(self) -> Option<Id> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Id { ms: self.ms, seq }),
            None => Some(Id { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id before this one; none before 0-0.
    pub fn previous(self) -> Option<Id> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Id { ms: self.ms, seq }),
            None => Some(Id { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Reads `ms-seq`, or `ms` alone with this sequence number.
    pub fn parse(text: &[u8], missing_seq: u64) -> Option<Id> {
        let written = Written::parse(text)?;
        match written.seq {
            Seq::Given(seq) => Some(Id { ms: written.ms, seq }),
            Seq::Missing => Some(Id { ms: written.ms, seq: missing_seq }),
            Seq::Any => None,
        }
    }

    /// Sixteen bytes in whose order ids are ordered.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Id {
        let both = u128::from_be_bytes(bytes);
        Id { ms: (both >> 64) as u64, seq: both as u64 }
    }

    /// The text, without an allocation.
    pub fn text(self) -> Text {
        let mut text = Text { bytes: [0; TEXT_BYTES], start: TEXT_BYTES };
        text.put(self.seq);
        text.start -= 1;
        text.bytes[text.start] = b'-';
        text.put(self.ms);
        text
    }
}

impl Written {
    pub fn parse(text: &[u8]) -> Option<Written> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let Some(dash) = text.iter().position(|&byte| byte == b'-') else {
            return Some(Written { ms: number(text)?, seq: Seq::Missing });
        };
        let seq = match &text[dash + 1..] {
            b"*" => Seq::Any,
            seq => Seq::Given(number(seq)?),
        };
        Some(Written { ms: number(&text[..dash])?, seq })
    }
}

/// An unsigned number as C reads one: white space and a plus may stand before it, and zeros.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number.checked_mul(10)?.checked_add(u64::from(digit)))?
    })
}

const TEXT_BYTES: usize = 41;

/// An id written out.
pub struct Text {
    bytes: [u8; TEXT_BYTES],
    start: usize,
}

impl Text {
    fn put(&mut self, mut number: u64) {
        loop {
            self.start -= 1;
            self.bytes[self.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return;
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        let max = u64::MAX;
        for (text, id) in [
            ("0-0", Id::MIN),
            ("12-345", Id::new(12, 345)),
            ("18446744073709551615-18446744073709551615", Id::MAX),
        ] {
            assert_eq!(Id::parse(text.as_bytes(), 7), Some(id));
            assert_eq!(id.text().as_bytes(), text.as_bytes());
            assert_eq!(id.to_string(), text);
            assert_eq!(Id::from_bytes(id.to_bytes()), id);
        }
        assert_eq!(Id::parse(b"5", max), Some(Id::new(5, max)));
        assert_eq!(Id::parse(b"+05-007", 0), Some(Id::new(5, 7)));
        for text in
            ["", "-", "1-", "-1", "x", "1-x", "1-*", "1--1", "18446744073709551616", "1-1-1"]
        {
            assert_eq!(Id::parse(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(Written::parse(b"5-*"), Some(Written { ms: 5, seq: Seq::Any }));
        assert_eq!(Id::parse(&[b'0'; 128], 0), None);
    }

    #[test]
    fn neighbours() {
        assert_eq!(Id::MAX.next(), None);
        assert_eq!(Id::MIN.previous(), None);
        assert_eq!(Id::new(1, u64::MAX).next(), Some(Id::new(2, 0)));
        assert_eq!(Id::new(2, 0).previous(), Some(Id::new(1, u64::MAX)));
        assert_eq!(Id::new(2, 3).next(), Some(Id::new(2, 4)));
        assert!(Id::new(2, 3).to_bytes() < Id::new(10, 0).to_bytes());
    }
}

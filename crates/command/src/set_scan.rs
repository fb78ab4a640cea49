//! What HSCAN, SSCAN and ZSCAN share: the cursor, MATCH and COUNT.

use resp::Reply;
use smallvec::SmallVec;

use crate::call::{integer, is};
use crate::error::{Error, Result};

/// Members a step visits unless COUNT says otherwise.
const COUNT_DEFAULT: usize = 10;

/// The options of a step.
pub(crate) struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    pub count: usize,
}

impl<'a> ScanOptions<'a> {
    /// Reads the arguments behind the cursor.
    pub fn parse(args: &[&'a [u8]]) -> Result<ScanOptions<'a>> {
        let mut options = ScanOptions { pattern: None, count: COUNT_DEFAULT };
        let mut rest = args;
        while let [option, value, after @ ..] = rest {
            if is(option, "COUNT") {
                let count = integer(value)?;
                if count < 1 {
                    return Err(Error::SYNTAX);
                }
                options.count = count as usize;
            } else if is(option, "MATCH") {
                options.pattern = Some(value);
            } else {
                return Err(Error::SYNTAX);
            }
            rest = after;
        }
        if rest.is_empty() { Ok(options) } else { Err(Error::SYNTAX) }
    }

    /// The same with a word that stands by itself among them; and whether it is there.
    pub fn parse_with(args: &[&'a [u8]], word: &str) -> Result<(ScanOptions<'a>, bool)> {
        let mut shared: SmallVec<[&[u8]; 4]> = SmallVec::new();
        let mut has_word = false;
        let mut rest = args;
        while let [option, after @ ..] = rest {
            rest = after;
            if is(option, word) {
                has_word = true;
                continue;
            }
            shared.push(option);
            if let [value, after @ ..] = rest {
                shared.push(value);
                rest = after;
            }
        }
        Ok((ScanOptions::parse(&shared)?, has_word))
    }

    pub fn wants(&self, member: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| data::glob::matches(pattern, member, false))
    }
}

/// A cursor as C's `strtoul` reads it, for that is what clients could always send: a sign is
/// taken, no text is 0.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64> {
    let (negative, digits) = match arg {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::CURSOR);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Error::CURSOR)?;
    let value: u64 = text.parse().map_err(|_| Error::CURSOR)?;
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// The reply where there is nothing to scan.
pub(crate) fn reply_nothing(reply: &mut Reply<'_>) {
    reply.array(2);
    reply.bulk(b"0");
    reply.array(0);
}

/// The reply of a step: `visit` writes what it finds and answers the next cursor and the number of
/// items written. The cursor stands first but is known last, so the items wait in a buffer.
pub(crate) fn reply_step(
    reply: &mut Reply<'_>,
    visit: impl FnOnce(&mut Reply<'_>) -> (u64, usize),
) {
    let mut items = Vec::new();
    let (next, count) = visit(&mut Reply::new(&mut items, reply.protocol()));
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(count);
    reply.raw(&items);
}

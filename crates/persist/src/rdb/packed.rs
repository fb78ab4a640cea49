//! The compact encodings inside RDB strings: ziplists, listpacks, integer sets and zipmaps. Each is
//! an iterator over its elements that checks every bound before it looks, and at the end whether
//! what its header claims is true.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// An element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element<'a> {
    Bytes(&'a [u8]),
    Integer(i64),
}

type Step<'a> = Option<Result<Element<'a>, Broken>>;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

fn slice(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

/// A little-endian integer of three bytes.
fn int24(bytes: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, bytes[0], bytes[1], bytes[2]]) >> 8)
}

/// A listpack, the compact encoding since Redis 7.0.
///
/// `bytes: u32, count: u16 (65535: unknown), entries, 0xff`; an entry is its encoding, the data and
/// the size of both again, to be read backwards.
pub struct Listpack<'a> {
    bytes: &'a [u8],
    at: usize,
    count: usize,
    claimed: usize,
}

const LISTPACK_HEADER: usize = 6;
pub const END: u8 = 0xff;
pub const COUNT_UNKNOWN: usize = 0xffff;

/// Bytes that tell the size of an entry of a listpack, from its end.
pub fn backlen_bytes(entry: usize) -> usize {
    match entry {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// Appends the size of an entry of a listpack.
pub fn put_backlen(entry: usize, out: &mut Vec<u8>) {
    let bytes = backlen_bytes(entry);
    for step in (0..bytes).rev() {
        let more = if step + 1 == bytes { 0 } else { 0x80 };
        out.push((entry >> (7 * step)) as u8 & 0x7f | more);
    }
}

impl<'a> Listpack<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Listpack<'a>, Broken> {
        let (Some(total), Some(count)) = (array(bytes, 0), array(bytes, 4)) else {
            return Err(Broken("a listpack is shorter than its header"));
        };
        if u32::from_le_bytes(total) as usize != bytes.len() {
            return Err(Broken("a listpack has not the length it claims"));
        }
        let claimed = usize::from(u16::from_le_bytes(count));
        Ok(Listpack { bytes, at: LISTPACK_HEADER, count: 0, claimed })
    }

    /// The element at `self.at` and the size of its encoding and data.
    fn element(&self) -> Option<(Element<'a>, usize)> {
        let (bytes, at) = (self.bytes, self.at);
        let first = *bytes.get(at)?;
        let integer = |value: i64, size: usize| Some((Element::Integer(value), size));
        let text = |head: usize, len: usize| {
            Some((Element::Bytes(slice(bytes, at + head, len)?), head + len))
        };
        match first {
            0..=0x7f => integer(i64::from(first), 1),
            0x80..=0xbf => text(1, usize::from(first & 0x3f)),
            0xc0..=0xdf => {
                let raw = i64::from(first & 0x1f) << 8 | i64::from(*bytes.get(at + 1)?);
                integer(if raw >= 1 << 12 { raw - (1 << 13) } else { raw }, 2)
            }
            0xe0..=0xef => {
                let low = usize::from(*bytes.get(at + 1)?);
                text(2, usize::from(first & 0x0f) << 8 | low)
            }
            0xf0 => text(5, u32::from_le_bytes(array(bytes, at + 1)?) as usize),
            0xf1 => integer(i64::from(i16::from_le_bytes(array(bytes, at + 1)?)), 3),
            0xf2 => integer(int24(array(bytes, at + 1)?), 4),
            0xf3 => integer(i64::from(i32::from_le_bytes(array(bytes, at + 1)?)), 5),
            0xf4 => integer(i64::from_le_bytes(array(bytes, at + 1)?), 9),
            _ => None,
        }
    }
}

impl<'a> Iterator for Listpack<'a> {
    type Item = Result<Element<'a>, Broken>;

    fn next(&mut self) -> Step<'a> {
        if self.bytes.get(self.at) == Some(&END) {
            let is_last = self.at + 1 == self.bytes.len();
            let counts = self.claimed == COUNT_UNKNOWN || self.claimed == self.count;
            return match is_last && counts {
                true => None,
                false => Some(Err(Broken("a listpack ends elsewhere than it claims"))),
            };
        }
        let Some((element, size)) = self.element() else {
            return Some(Err(Broken("an entry of a listpack is no entry")));
        };
        let back = backlen_bytes(size);
        let is_right = slice(self.bytes, self.at + size, back).is_some_and(|found| {
            let group = |value: usize, byte: &u8| value << 7 | usize::from(byte & 0x7f);
            let marked = found.iter().skip(1).all(|byte| byte & 0x80 != 0);
            found[0] & 0x80 == 0 && marked && found.iter().fold(0, group) == size
        });
        if !is_right {
            return Some(Err(Broken("an entry of a listpack has another size than it claims")));
        }
        self.at += size + back;
        self.count += 1;
        Some(Ok(element))
    }
}

/// A ziplist, the compact encoding before Redis 7.0.
///
/// `bytes: u32, offset of the last entry: u32, count: u16 (65535: unknown), entries, 0xff`; an
/// entry is the size of the one before it (one byte, or 254 and four), its encoding and the data.
pub struct Ziplist<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the entry before begins.
    last: usize,
    count: usize,
    claimed: usize,
    tail: usize,
}

const ZIPLIST_HEADER: usize = 10;
const LONG_PREVIOUS: u8 = 254;

impl<'a> Ziplist<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Ziplist<'a>, Broken> {
        let (Some(total), Some(tail), Some(count)) =
            (array(bytes, 0), array(bytes, 4), array(bytes, 8))
        else {
            return Err(Broken("a ziplist is shorter than its header"));
        };
        if u32::from_le_bytes(total) as usize != bytes.len() {
            return Err(Broken("a ziplist has not the length it claims"));
        }
        Ok(Ziplist {
            bytes,
            at: ZIPLIST_HEADER,
            last: ZIPLIST_HEADER,
            count: 0,
            claimed: usize::from(u16::from_le_bytes(count)),
            tail: u32::from_le_bytes(tail) as usize,
        })
    }

    /// The size that the entry here gives for the one before, and where its encoding begins.
    fn previous(&self) -> Option<(usize, usize)> {
        match *self.bytes.get(self.at)? {
            LONG_PREVIOUS => {
                let size = u32::from_le_bytes(array(self.bytes, self.at + 1)?);
                Some((size as usize, self.at + 5))
            }
            size => Some((usize::from(size), self.at + 1)),
        }
    }

    /// The element whose encoding stands here, and where the next entry begins.
    fn element(&self, at: usize) -> Option<(Element<'a>, usize)> {
        let bytes = self.bytes;
        let first = *bytes.get(at)?;
        let integer = |value: i64, size: usize| Some((Element::Integer(value), at + 1 + size));
        let text = |head: usize, len: usize| {
            Some((Element::Bytes(slice(bytes, at + head, len)?), at + head + len))
        };
        match first {
            0..=0x3f => text(1, usize::from(first)),
            0x40..=0x7f => {
                let low = usize::from(*bytes.get(at + 1)?);
                text(2, usize::from(first & 0x3f) << 8 | low)
            }
            0x80 => text(5, u32::from_be_bytes(array(bytes, at + 1)?) as usize),
            0xc0 => integer(i64::from(i16::from_le_bytes(array(bytes, at + 1)?)), 2),
            0xd0 => integer(i64::from(i32::from_le_bytes(array(bytes, at + 1)?)), 4),
            0xe0 => integer(i64::from_le_bytes(array(bytes, at + 1)?), 8),
            0xf0 => integer(int24(array(bytes, at + 1)?), 3),
            0xfe => integer(i64::from(i8::from_le_bytes(array(bytes, at + 1)?)), 1),
            0xf1..=0xfd => integer(i64::from(first - 0xf1), 0),
            _ => None,
        }
    }
}

impl<'a> Iterator for Ziplist<'a> {
    type Item = Result<Element<'a>, Broken>;

    fn next(&mut self) -> Step<'a> {
        if self.bytes.get(self.at) == Some(&END) {
            let is_last = self.at + 1 == self.bytes.len() && self.tail == self.last;
            let counts = self.claimed == COUNT_UNKNOWN || self.claimed == self.count;
            return match is_last && counts {
                true => None,
                false => Some(Err(Broken("a ziplist ends elsewhere than it claims"))),
            };
        }
        let entry = self.previous().and_then(|(previous, encoding)| {
            let (element, next) = self.element(encoding)?;
            (previous == self.at - self.last).then_some((element, next))
        });
        let Some((element, next)) = entry else {
            return Some(Err(Broken("an entry of a ziplist is no entry")));
        };
        self.last = self.at;
        self.at = next;
        self.count += 1;
        Some(Ok(element))
    }
}

/// A zipmap, how Redis 2.4 kept small hashes: fields and values in turn.
///
/// `count: u8 (254: unknown), pairs, 0xff`; lengths are one byte, or 254 and four; a value is
/// followed by as many unused bytes as the byte before it says.
pub struct Zipmap<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: usize,
}

impl<'a> Zipmap<'a> {
    pub fn new(bytes: &'a [u8]) -> Zipmap<'a> {
        Zipmap { bytes, at: 1, elements: 0 }
    }

    fn element(&self) -> Option<(&'a [u8], usize)> {
        let (len, mut at) = match *self.bytes.get(self.at)? {
            254 => (u32::from_le_bytes(array(self.bytes, self.at + 1)?) as usize, self.at + 5),
            len => (usize::from(len), self.at + 1),
        };
        let is_value = self.elements % 2 == 1;
        let unused = if is_value { usize::from(*self.bytes.get(at)?) } else { 0 };
        at += usize::from(is_value);
        let text = slice(self.bytes, at, len)?;
        Some((text, at + len + unused))
    }
}

impl<'a> Iterator for Zipmap<'a> {
    type Item = Result<Element<'a>, Broken>;

    fn next(&mut self) -> Step<'a> {
        let is_value = self.elements % 2 == 1;
        if self.bytes.get(self.at) == Some(&END) && !is_value {
            let claimed = usize::from(self.bytes[0]);
            let counts = claimed >= 254 || claimed * 2 == self.elements;
            return match self.at + 1 == self.bytes.len() && counts {
                true => None,
                false => Some(Err(Broken("a zipmap ends elsewhere than it claims"))),
            };
        }
        match self.element() {
            Some((text, next)) if self.bytes.get(self.at) != Some(&END) => {
                self.at = next;
                self.elements += 1;
                Some(Ok(Element::Bytes(text)))
            }
            _ => Some(Err(Broken("an element of a zipmap is no element"))),
        }
    }
}

/// The members of an integer set: `width: u32 (2, 4 or 8), count: u32`, and the integers ascending.
pub fn intset(bytes: &[u8]) -> Result<impl Iterator<Item = i64> + '_, Broken> {
    let (Some(width), Some(count)) = (array(bytes, 0), array(bytes, 4)) else {
        return Err(Broken("an intset is shorter than its header"));
    };
    let (width, count) = (u32::from_le_bytes(width) as usize, u32::from_le_bytes(count) as usize);
    if !matches!(width, 2 | 4 | 8) {
        return Err(Broken("the integers of an intset have no width that there is"));
    }
    let body = &bytes[8..];
    if count.checked_mul(width) != Some(body.len()) {
        return Err(Broken("an intset has not the length it claims"));
    }
    let values = move || {
        body.chunks_exact(width).map(|chunk| match *chunk {
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => i64::from_le_bytes(chunk.try_into().expect("the only other width")),
        })
    };
    if !values().is_sorted_by(|a, b| a < b) {
        return Err(Broken("the integers of an intset do not ascend"));
    }
    Ok(values())
}

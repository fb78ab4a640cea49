//! Replies read back: RESP2 and RESP3 bytes to items, and items to a tree.
//!
//! Three ways in, by need: [`Reader`] walks the bytes of complete replies without copying (scripts),
//! [`decode`] builds a [`Value`] (tests), and [`ReplyScanner`] only finds where a reply ends, and
//! remembers how far it came (the benchmark client). All take any bytes without panicking.

/// How deep aggregates may nest in [`decode`].
const DEPTH_MAX: usize = 128;

/// How many items are made room for before any of them has been seen.
const RESERVED_ITEMS_MAX: usize = 1024;

/// The longest line of a scalar.
const LINE_MAX: usize = 1 << 20;

/// Part of a reply: a scalar, or the header of an aggregate whose items follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    Status(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Bulk(&'a [u8]),
    /// `$-1`, RESP2's null.
    NullBulk,
    /// `*-1`, RESP2's null array.
    NullArray,
    /// `_`, RESP3's null.
    Null,
    Boolean(bool),
    /// The text of a double, checked to be one.
    Double(&'a str),
    BigNumber(&'a [u8]),
    Verbatim {
        format: &'a [u8],
        text: &'a [u8],
    },
    Array(usize),
    /// Pairs: twice as many items follow.
    Map(usize),
    Set(usize),
    Push(usize),
    /// Pairs that belong to the value behind them.
    Attribute(usize),
}

impl Item<'_> {
    /// How many items the aggregate consists of, itself not counted.
    fn children(self) -> Result<usize, DecodeError> {
        match self {
            Item::Array(len) | Item::Set(len) | Item::Push(len) => Ok(len),
            Item::Map(pairs) => pairs.checked_mul(2).ok_or(DecodeError::BadLength),
            Item::Attribute(pairs) => {
                let items = pairs.checked_mul(2).and_then(|items| items.checked_add(1));
                items.ok_or(DecodeError::BadLength)
            }
            _ => Ok(0),
        }
    }
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    UnknownType { got: u8 },
    BadLength,
    BadNumber,
    BadBoolean,
    BadVerbatim,
    MissingLineEnd,
    LineTooLong,
    TooDeep,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownType { got } => {
                write!(f, "no reply type starts with '{}'", got.escape_ascii())
            }
            Self::BadLength => f.write_str("a length is no number, or too large"),
            Self::BadNumber => f.write_str("a number is malformed"),
            Self::BadBoolean => f.write_str("a boolean is neither t nor f"),
            Self::BadVerbatim => f.write_str("a verbatim string lacks its format"),
            Self::MissingLineEnd => f.write_str("a carriage return and line feed are missing"),
            Self::LineTooLong => f.write_str("a line does not end"),
            Self::TooDeep => f.write_str("nested too deeply"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads the item at the start of `bytes` and how many bytes it takes; `None` if not all of it is
/// there.
pub fn item(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>, DecodeError> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if !b"+-:$*_#,(=%~>|".contains(&kind) {
        return Err(DecodeError::UnknownType { got: kind });
    }
    let Some((line, next)) = line(bytes)? else { return Ok(None) };
    let item = match kind {
        b'+' => Item::Status(line),
        b'-' => Item::Error(line),
        b':' => Item::Integer(integer(line)?),
        b'$' if line == b"-1" => Item::NullBulk,
        b'*' if line == b"-1" => Item::NullArray,
        b'$' | b'=' => {
            let Some((blob, next)) = blob(bytes, next, length(line)?)? else { return Ok(None) };
            if kind == b'$' {
                return Ok(Some((Item::Bulk(blob), next)));
            }
            let Some((format, [b':', text @ ..])) = blob.split_at_checked(3) else {
                return Err(DecodeError::BadVerbatim);
            };
            return Ok(Some((Item::Verbatim { format, text }, next)));
        }
        b'_' if line.is_empty() => Item::Null,
        b'_' => return Err(DecodeError::BadLength),
        b'#' => match line {
            b"t" => Item::Boolean(true),
            b"f" => Item::Boolean(false),
            _ => return Err(DecodeError::BadBoolean),
        },
        b',' => {
            let text = std::str::from_utf8(line).map_err(|_| DecodeError::BadNumber)?;
            text.parse::<f64>().map_err(|_| DecodeError::BadNumber)?;
            Item::Double(text)
        }
        b'(' => {
            let digits = line.strip_prefix(b"-").unwrap_or(line);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(DecodeError::BadNumber);
            }
            Item::BigNumber(line)
        }
        b'*' => Item::Array(length(line)?),
        b'%' => Item::Map(length(line)?),
        b'~' => Item::Set(length(line)?),
        b'>' => Item::Push(length(line)?),
        _ => Item::Attribute(length(line)?),
    };
    Ok(Some((item, next)))
}

/// What stands between the type byte and CRLF, and the index behind it.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, DecodeError> {
    match memchr::memchr(b'\r', bytes) {
        Some(end) => match bytes.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((&bytes[1..end], end + 2))),
            Some(_) => Err(DecodeError::MissingLineEnd),
        },
        None if bytes.len() > LINE_MAX => Err(DecodeError::LineTooLong),
        None => Ok(None),
    }
}

fn blob(bytes: &[u8], start: usize, len: usize) -> Result<Option<(&[u8], usize)>, DecodeError> {
    let end = start.checked_add(len).ok_or(DecodeError::BadLength)?;
    let next = end.checked_add(2).ok_or(DecodeError::BadLength)?;
    match bytes.get(end..next) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&bytes[start..end], next))),
        Some(_) => Err(DecodeError::MissingLineEnd),
    }
}

fn integer(digits: &[u8]) -> Result<i64, DecodeError> {
    let text = std::str::from_utf8(digits).map_err(|_| DecodeError::BadNumber)?;
    text.parse().map_err(|_| DecodeError::BadNumber)
}

fn length(digits: &[u8]) -> Result<usize, DecodeError> {
    let value = integer(digits).map_err(|_| DecodeError::BadLength)?;
    usize::try_from(value).map_err(|_| DecodeError::BadLength)
}

/// Walks the items of complete replies, in the order they stand: an aggregate's header, then its
/// items.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next item; `None` at the end of the bytes, be it in the middle of a reply.
    pub fn next_item(&mut self) -> Result<Option<Item<'a>>, DecodeError> {
        let Some((item, next)) = item(self.rest)? else { return Ok(None) };
        self.rest = &self.rest[next..];
        Ok(Some(item))
    }
}

/// A reply as a tree. Texts are kept as they came, so that two spellings of a number differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Status(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    NullBulk,
    NullArray,
    Null,
    Boolean(bool),
    Double(String),
    BigNumber(Vec<u8>),
    Verbatim { format: Vec<u8>, text: Vec<u8> },
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Attributed { attributes: Vec<(Value, Value)>, value: Box<Value> },
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null | Value::NullBulk | Value::NullArray)
    }
}

/// Decodes the reply at the start of `bytes`, and how many bytes it takes; `None` if not all of it
/// is there. Starts over each time: ask a [`ReplyScanner`] first where replies come in pieces.
pub fn decode(bytes: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = value(&mut reader, DEPTH_MAX)?;
    Ok(value.map(|value| (value, bytes.len() - reader.rest.len())))
}

fn value(reader: &mut Reader<'_>, depth_left: usize) -> Result<Option<Value>, DecodeError> {
    let Some(item) = reader.next_item()? else { return Ok(None) };
    let depth_left = match item {
        Item::Array(_) | Item::Map(_) | Item::Set(_) | Item::Push(_) | Item::Attribute(_) => {
            depth_left.checked_sub(1).ok_or(DecodeError::TooDeep)?
        }
        _ => depth_left,
    };
    Ok(Some(match item {
        Item::Status(text) => Value::Status(text.to_vec()),
        Item::Error(text) => Value::Error(text.to_vec()),
        Item::Integer(value) => Value::Integer(value),
        Item::Bulk(bytes) => Value::Bulk(bytes.to_vec()),
        Item::NullBulk => Value::NullBulk,
        Item::NullArray => Value::NullArray,
        Item::Null => Value::Null,
        Item::Boolean(value) => Value::Boolean(value),
        Item::Double(text) => Value::Double(text.to_owned()),
        Item::BigNumber(digits) => Value::BigNumber(digits.to_vec()),
        Item::Verbatim { format, text } => {
            Value::Verbatim { format: format.to_vec(), text: text.to_vec() }
        }
        Item::Array(len) => match values(reader, len, depth_left)? {
            Some(values) => Value::Array(values),
            None => return Ok(None),
        },
        Item::Set(len) => match values(reader, len, depth_left)? {
            Some(values) => Value::Set(values),
            None => return Ok(None),
        },
        Item::Push(len) => match values(reader, len, depth_left)? {
            Some(values) => Value::Push(values),
            None => return Ok(None),
        },
        Item::Map(len) => match pairs(reader, len, depth_left)? {
            Some(pairs) => Value::Map(pairs),
            None => return Ok(None),
        },
        Item::Attribute(len) => {
            let Some(attributes) = pairs(reader, len, depth_left)? else { return Ok(None) };
            let Some(value) = value(reader, depth_left)? else { return Ok(None) };
            Value::Attributed { attributes, value: Box::new(value) }
        }
    }))
}

fn values(
    reader: &mut Reader<'_>,
    len: usize,
    depth_left: usize,
) -> Result<Option<Vec<Value>>, DecodeError> {
    let mut values = Vec::with_capacity(len.min(RESERVED_ITEMS_MAX).min(reader.rest.len()));
    for _ in 0..len {
        let Some(value) = value(reader, depth_left)? else { return Ok(None) };
        values.push(value);
    }
    Ok(Some(values))
}

type Pairs = Vec<(Value, Value)>;

fn pairs(
    reader: &mut Reader<'_>,
    len: usize,
    depth_left: usize,
) -> Result<Option<Pairs>, DecodeError> {
    let mut pairs = Vec::with_capacity(len.min(RESERVED_ITEMS_MAX).min(reader.rest.len()));
    for _ in 0..len {
        let Some(key) = value(reader, depth_left)? else { return Ok(None) };
        let Some(value) = value(reader, depth_left)? else { return Ok(None) };
        pairs.push((key, value));
    }
    Ok(Some(pairs))
}

/// Finds the end of a reply that arrives in pieces, looking at each item once.
///
/// After `None` the next call must show the same bytes with more behind them; after an end, the
/// bytes that follow it.
#[derive(Clone, Debug)]
pub struct ReplyScanner {
    position: usize,
    missing: usize,
}

impl Default for ReplyScanner {
    fn default() -> ReplyScanner {
        ReplyScanner::new()
    }
}

impl ReplyScanner {
    pub fn new() -> ReplyScanner {
        ReplyScanner { position: 0, missing: 1 }
    }

    /// How many bytes the reply at the start of `bytes` takes, or `None` if it goes on.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        while self.missing > 0 {
            let rest = bytes.get(self.position..).unwrap_or_default();
            let Some((item, next)) = item(rest)? else { return Ok(None) };
            let missing = (self.missing - 1).checked_add(item.children()?);
            self.missing = missing.ok_or(DecodeError::BadLength)?;
            self.position += next;
        }
        let end = self.position;
        *self = ReplyScanner::new();
        Ok(Some(end))
    }
}

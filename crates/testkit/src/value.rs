//! Replies as typed values, and the text they have in talk files.
//!
//! Doubles and big numbers keep the digits the server sent: how a number is written is part of
//! what is tested. Knows nothing of sockets; used by `client`, `pattern` and `rewrite`.

use std::fmt::Write;

/// One reply of a server, in either protocol version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Status(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    Nil,
    /// `*-1`
    NilArray,
    /// `_`, the one null of RESP3
    Null,
    Double(String),
    Boolean(bool),
    BigNumber(String),
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    pub fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    /// The bytes of a bulk, status, error or verbatim reply.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Status(b) | Value::Error(b) | Value::Bulk(b) | Value::Verbatim(b) => Some(b),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Elements of an array, set or push.
    pub fn elements(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            _ => None,
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// The value as talk files write it, on as many lines as it needs.
    pub fn to_talk(&self) -> String {
        let mut inline = String::new();
        if self.write_inline(&mut inline, true) && inline.len() <= 96 {
            return inline;
        }
        let mut out = String::new();
        self.write_block(&mut out, 0);
        out
    }

    /// Writes on one line; false if the value cannot be read back from there.
    fn write_inline(&self, out: &mut String, alone: bool) -> bool {
        let list = |out: &mut String, open: &str, items: &[Value]| {
            out.push_str(open);
            let fits = items.iter().enumerate().all(|(i, item)| {
                if i > 0 {
                    out.push(' ');
                }
                item.write_inline(out, false)
            });
            out.push(']');
            fits
        };
        match self {
            Value::Status(text) | Value::Error(text) => {
                out.push(if matches!(self, Value::Status(_)) { '+' } else { '-' });
                escape_into(text, out, false);
                if out.ends_with(' ') {
                    // Spaces at the end of a line are easily lost.
                    out.pop();
                    out.push_str("\\x20");
                }
                alone || text.iter().all(u8::is_ascii_alphanumeric)
            }
            Value::Integer(number) => write!(out, ":{number}").is_ok(),
            Value::Bulk(bytes) => {
                out.push('"');
                escape_into(bytes, out, true);
                out.push('"');
                true
            }
            Value::Nil => write!(out, "(nil)").is_ok(),
            Value::NilArray => write!(out, "(nil-array)").is_ok(),
            Value::Null => write!(out, "(null)").is_ok(),
            Value::Double(digits) => write!(out, ",{digits}").is_ok(),
            Value::Boolean(truth) => write!(out, "#{}", if *truth { 't' } else { 'f' }).is_ok(),
            Value::BigNumber(digits) => write!(out, "(big {digits})").is_ok(),
            Value::Verbatim(bytes) => {
                out.push_str("=\"");
                escape_into(bytes, out, true);
                out.push('"');
                true
            }
            Value::Array(items) => list(out, "[", items),
            Value::Set(items) => list(out, "set[", items),
            Value::Push(items) => list(out, "push[", items),
            Value::Map(pairs) => {
                out.push('{');
                let fits = pairs.iter().enumerate().all(|(i, (key, value))| {
                    if i > 0 {
                        out.push(' ');
                    }
                    let key_fits = key.write_inline(out, false);
                    out.push_str("=>");
                    key_fits && value.write_inline(out, false)
                });
                out.push('}');
                fits
            }
        }
    }

    fn write_block(&self, out: &mut String, depth: usize) {
        let mut line = String::new();
        let fits = self.write_inline(&mut line, true);
        let scalar = self.elements().is_none() && !matches!(self, Value::Map(_));
        if scalar || (fits && line.len() + 2 * depth <= 96) {
            out.push_str(&line);
            return;
        }
        let indent = |out: &mut String, depth: usize| {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        };
        match self {
            Value::Map(pairs) => {
                out.push('{');
                for (key, value) in pairs {
                    indent(out, depth + 1);
                    key.write_block(out, depth + 1);
                    out.push_str("=>");
                    value.write_block(out, depth + 1);
                }
                indent(out, depth);
                out.push('}');
            }
            _ => {
                out.push_str(match self {
                    Value::Set(_) => "set[",
                    Value::Push(_) => "push[",
                    _ => "[",
                });
                for item in self.elements().unwrap_or_default() {
                    indent(out, depth + 1);
                    item.write_block(out, depth + 1);
                }
                indent(out, depth);
                out.push(']');
            }
        }
    }
}

/// Writes bytes readably: printable ASCII and whole UTF-8 characters as they are, the rest as
/// escapes. Inside quotes the quote itself is escaped too.
fn escape_into(bytes: &[u8], out: &mut String, quoted: bool) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' if quoted => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                control if control.is_control() => {
                    let mut utf8 = [0; 4];
                    for byte in control.encode_utf8(&mut utf8).bytes() {
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                }
                plain => out.push(plain),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// Reads the escapes of `escape_into` and of redis-cli's double quotes.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' || at + 1 == bytes.len() {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let hex = text.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at + 1], hex) {
            (b'x', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'n', _) => out.push(b'\n'),
            (b'r', _) => out.push(b'\r'),
            (b't', _) => out.push(b'\t'),
            (b'b', _) => out.push(8),
            (b'a', _) => out.push(7),
            (other, _) => out.push(other),
        }
        at += 2;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_read_back() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for quoted in [true, false] {
            let mut text = String::new();
            escape_into(&every_byte, &mut text, quoted);
            assert_eq!(unescape(&text), every_byte);
        }
    }
}

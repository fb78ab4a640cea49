//! Splitting a line into arguments: inline commands, and lines of a configuration file.
//!
//! Words are separated by white space. A part in double quotes takes `\n \r \t \b \a`, `\xHH` and
//! a backslash before any other byte; a part in single quotes takes only `\'`. A closing quote must
//! end its word. A NUL byte ends the line. These are Redis's rules.

use crate::Span;

/// A quote was left open, or a closing quote is followed by something other than white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unbalanced;

impl std::fmt::Display for Unbalanced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unbalanced quotes")
    }
}

impl std::error::Error for Unbalanced {}

/// Splits `line` into owned arguments.
pub fn split_args(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
    let mut bytes = line.to_vec();
    let mut spans = Vec::new();
    split_in_place(&mut bytes, &mut spans)?;
    Ok(spans.iter().map(|span| span.of(&bytes).to_vec()).collect())
}

/// Splits `line`, decoding quotes and escapes in place: an argument never takes more bytes decoded
/// than it took on the wire, so the decoded arguments fit where they came from. `out` receives
/// their spans. On an error the line's contents are unspecified.
pub(crate) fn split_in_place(line: &mut [u8], out: &mut Vec<Span>) -> Result<(), Unbalanced> {
    let end = memchr::memchr(0, line).unwrap_or(line.len());
    let mut read = 0;
    let mut write = 0;
    loop {
        while read < end && is_space(line[read]) {
            read += 1;
        }
        if read == end {
            return Ok(());
        }
        let start = write;
        while read < end && !matches!(line[read], b' ' | b'\n' | b'\r' | b'\t') {
            let byte = line[read];
            read += 1;
            match byte {
                b'"' => {
                    (read, write) = unquote_double(&mut line[..end], read, write)?;
                    break;
                }
                b'\'' => {
                    (read, write) = unquote_single(&mut line[..end], read, write)?;
                    break;
                }
                _ => {
                    line[write] = byte;
                    write += 1;
                }
            }
        }
        out.push(Span::new(start, write - start));
    }
}

/// Decodes from behind an opening `"`; returns the positions behind the closing one.
fn unquote_double(
    line: &mut [u8],
    mut read: usize,
    mut write: usize,
) -> Result<(usize, usize), Unbalanced> {
    loop {
        let (byte, taken) = match line[read..] {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(high) << 4 | hex_digit(low), 4)
            }
            [b'\\', escaped, ..] => (unescape(escaped), 2),
            [b'"', ..] => return closed(line, read, write),
            [byte, ..] => (byte, 1),
            [] => return Err(Unbalanced),
        };
        line[write] = byte;
        write += 1;
        read += taken;
    }
}

fn unquote_single(
    line: &mut [u8],
    mut read: usize,
    mut write: usize,
) -> Result<(usize, usize), Unbalanced> {
    loop {
        let (byte, taken) = match line[read..] {
            [b'\\', b'\'', ..] => (b'\'', 2),
            [b'\'', ..] => return closed(line, read, write),
            [byte, ..] => (byte, 1),
            [] => return Err(Unbalanced),
        };
        line[write] = byte;
        write += 1;
        read += taken;
    }
}

/// A closing quote at `read` must be followed by white space or the end of the line.
fn closed(line: &[u8], read: usize, write: usize) -> Result<(usize, usize), Unbalanced> {
    match line.get(read + 1) {
        Some(&byte) if !is_space(byte) => Err(Unbalanced),
        _ => Ok((read + 1, write)),
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}

/// C's `isspace`, which includes the vertical tab that Rust's `is_ascii_whitespace` leaves out.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::{Unbalanced, split_args};
    use proptest::prelude::*;

    #[track_caller]
    fn check(line: &str, expected: &[&[u8]]) {
        let args = split_args(line.as_bytes()).unwrap();
        assert_eq!(args, expected, "{line:?}");
    }

    #[test]
    fn words_quotes_and_escapes() {
        check("", &[]);
        check(" \t\x0b ", &[]);
        check("set  key\tvalue\r", &[b"set", b"key", b"value"]);
        check(r#"a "" '' b"#, &[b"a", b"", b"", b"b"]);
        check(r#""a\x00\xfF\n\r\t\b\a\q\"""#, &[b"a\0\xff\n\r\t\x08\x07q\""]);
        check(r#""\xzz" "\x1""#, &[b"xzz", b"x1"]);
        check(r#"'it\'s \n "raw"'"#, &[br#"it's \n "raw""#]);
        check(r#"foo"bar baz" end"#, &[b"foobar baz", b"end"]);
        check("before\0after", &[b"before"]);
        check("a\x0bb", &[b"a\x0bb"]);
    }

    #[test]
    fn unbalanced() {
        for line in [r#"""#, "'", r#""a"b"#, "'a'b", r#""a\"#, r#"a"b"c"#, "'a\\'", "\"a\0\""] {
            assert_eq!(split_args(line.as_bytes()), Err(Unbalanced), "{line:?}");
        }
    }

    fn quote(arg: &[u8]) -> String {
        let escaped: String = arg.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{escaped}\"")
    }

    proptest! {
        #[test]
        fn quoted_arguments_survive(args: Vec<Vec<u8>>) {
            let line = args.iter().map(|arg| quote(arg)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_args(line.as_bytes()).unwrap(), args);
        }

        #[test]
        fn any_line_is_answered(line: Vec<u8>) {
            if let Ok(args) = split_args(&line) {
                prop_assert!(args.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        }
    }
}

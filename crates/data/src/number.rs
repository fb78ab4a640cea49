//! Numbers as Redis reads and writes them: strict integers, scores, and the texts of doubles.
//!
//! Long doubles (INCRBYFLOAT) are in [`crate::long_double`]. Nothing here allocates but for the
//! caller's buffer.

use std::fmt;
use std::io::Write;
use std::ops::Deref;

use crate::float_text::{FloatText, Magnitude};

/// The text of a number, held inline.
#[derive(Clone, Copy)]
pub struct Digits {
    text: [u8; Self::LEN_MAX],
    len: u8,
}

impl Digits {
    const LEN_MAX: usize = 31;

    const EMPTY: Digits = Digits { text: [0; Self::LEN_MAX], len: 0 };

    fn push(&mut self, bytes: &[u8]) {
        let at = self.len as usize;
        self.text[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    fn push_zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.push(b"0");
        }
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len as usize]
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("numbers are written in ASCII")
    }
}

impl Deref for Digits {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads an integer exactly as it would be written: no plus sign, no leading zeros, no spaces, no
/// `-0`; `None` out of range.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    // Nineteen digits stay below 2^64.
    let mut value = 0u64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    if negative {
        if value <= 1 << 63 { Some((value as i64).wrapping_neg()) } else { None }
    } else {
        i64::try_from(value).ok()
    }
}

const PAIRS: [u8; 200] = {
    let mut pairs = [0; 200];
    let mut i = 0;
    while i < 100 {
        pairs[2 * i] = b'0' + (i / 10) as u8;
        pairs[2 * i + 1] = b'0' + (i % 10) as u8;
        i += 1;
    }
    pairs
};

/// The decimal text of an integer.
#[inline]
pub fn format_i64(value: i64) -> Digits {
    let mut reversed = [0u8; 20];
    let mut at = reversed.len();
    let mut rest = value.unsigned_abs();
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        reversed[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        at -= 2;
        reversed[at..at + 2].copy_from_slice(&PAIRS[rest as usize * 2..rest as usize * 2 + 2]);
    } else {
        at -= 1;
        reversed[at] = b'0' + rest as u8;
    }
    if value < 0 {
        at -= 1;
        reversed[at] = b'-';
    }
    let mut digits = Digits::EMPTY;
    digits.push(&reversed[at..]);
    digits
}

/// Appends the decimal text of an integer.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&format_i64(value));
}

/// Reads a double as Redis reads scores and increments: C's `strtod` over the whole text, no
/// leading space; NaN, overflow, and underflow to zero are refused. `inf` in its spellings and
/// hexadecimal are accepted.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    if text.first().is_some_and(u8::is_ascii_whitespace) {
        return None;
    }
    if let Some(value) = whole(text) {
        return Some(value);
    }
    let number = FloatText::parse(text)?;
    let value = f64_of(&number)?;
    let overflow = value.is_infinite() && !matches!(number.magnitude, Magnitude::Infinity);
    let underflow = value == 0.0 && !number.is_zero();
    if value.is_nan() || overflow || underflow { None } else { Some(value) }
}

/// Reads the end of a score range as Redis does: as [`parse_f64`], but leading space is skipped, an
/// empty text is zero, and overflow is infinity.
pub fn parse_f64_bound(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii_start();
    if text.is_empty() {
        return Some(0.0);
    }
    if let Some(value) = whole(text) {
        return Some(value);
    }
    f64_of(&FloatText::parse(text)?).filter(|value| !value.is_nan())
}

/// What most scores are: a whole number that a double holds exactly.
#[inline]
fn whole(text: &[u8]) -> Option<f64> {
    const EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;
    parse_i64(text).filter(|value| value.unsigned_abs() <= EXACT_MAX).map(|value| value as f64)
}

fn f64_of(number: &FloatText<'_>) -> Option<f64> {
    let magnitude = match number.magnitude {
        Magnitude::Infinity => f64::INFINITY,
        Magnitude::NotANumber => f64::NAN,
        Magnitude::Decimal { text, .. } => std::str::from_utf8(text).ok()?.parse().ok()?,
        Magnitude::Hexadecimal { mantissa, sticky, exponent } => {
            crate::float_text::hexadecimal_to_f64(mantissa, sticky, exponent)
        }
    };
    Some(if number.negative { -magnitude } else { magnitude })
}

/// The text of a double in replies: integers up to 2^62 in full, otherwise the shortest digits
/// that read back, laid out as Redis 7.2 does (`0.1`, `1e+20`, `1.2345123456789e+4`).
pub fn format_f64(value: f64) -> Digits {
    /// Beyond this a double is not tried as an integer.
    const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;
    let mut out = Digits::EMPTY;
    if value.is_nan() {
        out.push(b"nan");
        return out;
    }
    if value.is_infinite() {
        out.push(if value > 0.0 { b"inf" } else { b"-inf" });
        return out;
    }
    if value == 0.0 {
        out.push(if value.is_sign_negative() { b"-0" } else { b"0" });
        return out;
    }
    if value.abs() <= INTEGER_MAX && value == (value as i64) as f64 {
        return format_i64(value as i64);
    }
    let mut scientific = [0u8; 40];
    let mut rest = &mut scientific[..];
    write!(rest, "{:e}", value.abs()).expect("17 digits and an exponent fit");
    let left = rest.len();
    let text = &scientific[..scientific.len() - left];
    let e = text.iter().position(|byte| *byte == b'e').expect("the format writes an exponent");
    let exponent = parse_i64(&text[e + 1..]).expect("the exponent is an integer") as i32;
    let mut digits = [0u8; 20];
    let mut count = 0;
    for &byte in text[..e].iter().filter(|byte| **byte != b'.') {
        digits[count] = byte;
        count += 1;
    }
    if value < 0.0 {
        out.push(b"-");
    }
    lay_out(&mut out, &digits[..count], exponent);
    out
}

/// Writes `digits` with the first one worth 10^`exponent`: plainly while that is short, by the
/// rules of the library Redis uses (fpconv).
fn lay_out(out: &mut Digits, digits: &[u8], exponent: i32) {
    let count = digits.len() as i32;
    let last_exponent = exponent - (count - 1);
    if last_exponent >= 0 && exponent.abs() < count + 7 {
        out.push(digits);
        out.push_zeros(last_exponent as usize);
    } else if last_exponent < 0 && (last_exponent > -7 || exponent.abs() < 4) {
        if exponent < 0 {
            out.push(b"0.");
            out.push_zeros((-exponent - 1) as usize);
            out.push(digits);
        } else {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            out.push(whole);
            out.push(b".");
            out.push(fraction);
        }
    } else {
        out.push(&digits[..1]);
        if count > 1 {
            out.push(b".");
            out.push(&digits[1..]);
        }
        out.push(if exponent < 0 { b"e-" } else { b"e+" });
        out.push(&format_i64(i64::from(exponent.abs())));
    }
}

/// Appends the text of a double in replies.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&format_f64(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_strictly() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("18446744073709551616", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_does() {
        for (text, value) in [
            ("1", Some(1.0)),
            ("+1.5", Some(1.5)),
            ("-.5e1", Some(-5.0)),
            ("1.", Some(1.0)),
            ("inf", Some(f64::INFINITY)),
            ("+Infinity", Some(f64::INFINITY)),
            ("-INF", Some(f64::NEG_INFINITY)),
            ("0x10", Some(16.0)),
            ("-0x1.8p1", Some(-3.0)),
            ("0x.1p4", Some(1.0)),
            ("nan", None),
            ("1e400", None),
            ("1e-400", None),
            ("0e-400", Some(0.0)),
            ("1e-310", Some(1e-310)),
            (" 1", None),
            ("1 ", None),
            (".", None),
            ("1e", None),
            ("1e+", None),
            ("0x", None),
            ("infin", None),
            ("1_0", None),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), value, "{text:?}");
        }
        assert_eq!(parse_f64_bound(b""), Some(0.0));
        assert_eq!(parse_f64_bound(b" 2"), Some(2.0));
        assert_eq!(parse_f64_bound(b"1e400"), Some(f64::INFINITY));
        assert_eq!(parse_f64_bound(b"nan"), None);
        assert_eq!(parse_f64_bound(b"x"), None);
    }

    #[test]
    fn doubles_are_written_as_redis_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.5, "-3.5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e17, "100000000000000000"),
            (2f64.powi(62), "4611686018427387904"),
            (1e19, "1e+19"),
            (1e20, "1e+20"),
            (1.2345678901234567e19, "12345678901234567000"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1.23456e-4, "1.23456e-4"),
            (12345.123456789, "1.2345123456789e+4"),
            (1234.123456789, "1234.123456789"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (3.0e100, "3e+100"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(format_f64(value).as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn integers_read_back(value in any::<i64>()) {
            let text = format_i64(value);
            prop_assert_eq!(text.as_str(), value.to_string());
            prop_assert_eq!(parse_i64(&format_i64(value)), Some(value));
        }

        #[test]
        fn doubles_read_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(parse_f64(&format_f64(value)), Some(value));
        }

        #[test]
        fn strict_integers_agree_with_their_own_text(text in "[-+ 0-9]{0,22}") {
            let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), expected);
        }
    }
}

//! The grammar of C's `strtod`, shared by doubles and long doubles.
//!
//! Splits a text into sign and magnitude; what the digits are worth is for the callers, who know
//! their precision.

/// A text that is a number as a whole.
pub(crate) struct FloatText<'a> {
    pub negative: bool,
    pub magnitude: Magnitude<'a>,
}

pub(crate) enum Magnitude<'a> {
    Infinity,
    NotANumber,
    /// Digits with at most one point, then perhaps an exponent; `text` is all of it without sign.
    Decimal {
        text: &'a [u8],
        mantissa: &'a [u8],
        exponent: i32,
    },
    /// `mantissa × 2^exponent`, plus a trifle if `sticky`.
    Hexadecimal {
        mantissa: u128,
        sticky: bool,
        exponent: i32,
    },
}

impl<'a> FloatText<'a> {
    /// `None` if the text is not a number from its first byte to its last.
    pub fn parse(text: &'a [u8]) -> Option<FloatText<'a>> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let magnitude = match rest {
            [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
            [b'0'..=b'9' | b'.', ..] => decimal(rest)?,
            _ if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") => {
                Magnitude::Infinity
            }
            _ if rest.eq_ignore_ascii_case(b"nan") => Magnitude::NotANumber,
            _ => return None,
        };
        Some(FloatText { negative, magnitude })
    }

    pub fn is_zero(&self) -> bool {
        match self.magnitude {
            Magnitude::Decimal { mantissa, .. } => {
                mantissa.iter().all(|byte| matches!(byte, b'0' | b'.'))
            }
            Magnitude::Hexadecimal { mantissa, sticky, .. } => mantissa == 0 && !sticky,
            Magnitude::Infinity | Magnitude::NotANumber => false,
        }
    }
}

fn decimal(text: &[u8]) -> Option<Magnitude<'_>> {
    let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(end);
    let points = mantissa.iter().filter(|byte| **byte == b'.').count();
    let digits = mantissa.iter().filter(|byte| byte.is_ascii_digit()).count();
    if points > 1 || digits == 0 || points + digits != mantissa.len() {
        return None;
    }
    let exponent = if exponent.is_empty() { 0 } else { exponent_of(&exponent[1..])? };
    Some(Magnitude::Decimal { text, mantissa, exponent })
}

/// Reads an exponent, holding it where every format has long overflowed.
fn exponent_of(text: &[u8]) -> Option<i32> {
    const BOUND: i32 = 1_000_000;
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0i32, |value, digit| (value * 10 + i32::from(digit - b'0')).min(BOUND));
    Some(if negative { -value } else { value })
}

fn hexadecimal(text: &[u8]) -> Option<Magnitude<'_>> {
    let end = text.iter().position(|byte| matches!(byte, b'p' | b'P')).unwrap_or(text.len());
    let (digits, power) = text.split_at(end);
    let mut mantissa = 0u128;
    let mut sticky = false;
    let mut exponent = if power.is_empty() { 0 } else { exponent_of(&power[1..])? };
    let mut seen_point = false;
    let mut seen_digit = false;
    for &byte in digits {
        if byte == b'.' && !seen_point {
            seen_point = true;
            continue;
        }
        let digit = (byte as char).to_digit(16)?;
        seen_digit = true;
        if mantissa >> 120 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
            exponent -= if seen_point { 4 } else { 0 };
        } else {
            sticky |= digit != 0;
            exponent = exponent.saturating_add(if seen_point { 0 } else { 4 });
        }
    }
    seen_digit.then_some(Magnitude::Hexadecimal { mantissa, sticky, exponent })
}

/// Rounds `mantissa × 2^exponent` (plus a trifle if `sticky`) to `precision` bits, ties to even,
/// with no exponent below `exponent_min`. The result may be `2^precision`, one bit too wide.
/// With `sticky` the mantissa must have more than `precision` bits.
pub(crate) fn round(
    mantissa: u128,
    sticky: bool,
    exponent: i32,
    precision: u32,
    exponent_min: i32,
) -> (u128, i32) {
    if mantissa == 0 {
        return (0, exponent_min);
    }
    let width = (128 - mantissa.leading_zeros()) as i32;
    let shift = (width - precision as i32).max(exponent_min - exponent);
    if shift <= 0 {
        return (mantissa << -shift, exponent + shift);
    }
    if shift > 128 {
        return (0, exponent_min);
    }
    let kept = if shift == 128 { 0 } else { mantissa >> shift };
    let lost = if shift == 128 { mantissa } else { mantissa & ((1 << shift) - 1) };
    let half = 1u128 << (shift - 1);
    let up = lost > half || lost == half && (sticky || kept & 1 == 1);
    (kept + u128::from(up), exponent + shift)
}

pub(crate) fn hexadecimal_to_f64(mantissa: u128, sticky: bool, exponent: i32) -> f64 {
    // A sticky mantissa is at least 121 bits wide, as `round` wants it.
    let (mantissa, exponent) = round(mantissa, sticky, exponent, 53, -1074);
    if exponent > 1023 {
        return f64::INFINITY;
    }
    // Both factors are exact, and only one product can round: none does, since `round` kept the
    // exponent where the result is representable (or overflows to infinity, as it should).
    let half = exponent / 2;
    mantissa as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
}

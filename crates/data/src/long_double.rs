//! `LongDouble`: the 80-bit extended format of x87, in software, as far as INCRBYFLOAT needs it.
//!
//! Redis computes INCRBYFLOAT and HINCRBYFLOAT in C's `long double` and prints with 17 decimals.
//! Clients see the results (0.1 + 0.2 is 0.3 there), so they are part of the protocol; this type
//! reads, adds and prints with the same roundings on every machine: 64 bits of mantissa, to
//! nearest, ties to even.

use std::cmp::Ordering;

use num_bigint::BigUint;

use crate::float_text::{FloatText, Magnitude, round};

const PRECISION: u32 = 64;
/// The exponent of the mantissa's last bit in the smallest numbers.
const EXPONENT_MIN: i32 = -16445;
/// The same in the largest.
const EXPONENT_MAX: i32 = 16320;
/// Redis reads numbers through a buffer of this size.
const TEXT_MAX: usize = 5 * 1024 - 1;
const DECIMALS: usize = 17;
const TEN_TO_DECIMALS: u128 = 100_000_000_000_000_000;

/// An 80-bit extended precision number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LongDouble {
    /// `±mantissa × 2^exponent`; the top bit of the mantissa is set unless the exponent is minimal.
    Finite {
        negative: bool,
        mantissa: u64,
        exponent: i32,
    },
    Infinite {
        negative: bool,
    },
    NotANumber,
}

impl From<i64> for LongDouble {
    fn from(value: i64) -> LongDouble {
        LongDouble::rounded(value < 0, u128::from(value.unsigned_abs()), false, 0)
    }
}

impl LongDouble {
    /// Reads a whole text as Redis does: `strtold` without leading space; NaN, overflow and
    /// underflow to zero are refused, infinities are not.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.is_empty() || text.len() > TEXT_MAX || text[0].is_ascii_whitespace() {
            return None;
        }
        let number = FloatText::parse(text)?;
        let value = match number.magnitude {
            Magnitude::Infinity => {
                return Some(LongDouble::Infinite { negative: number.negative });
            }
            Magnitude::NotANumber => return None,
            Magnitude::Decimal { mantissa, exponent, .. } => {
                LongDouble::from_decimal(number.negative, mantissa, exponent)
            }
            Magnitude::Hexadecimal { mantissa, sticky, exponent } => {
                LongDouble::rounded(number.negative, mantissa, sticky, exponent)
            }
        };
        match value {
            LongDouble::Finite { mantissa: 0, .. } if !number.is_zero() => None,
            LongDouble::Finite { .. } => Some(value),
            LongDouble::Infinite { .. } | LongDouble::NotANumber => None,
        }
    }

    /// The greatest number.
    pub const MAX: LongDouble =
        LongDouble::Finite { negative: false, mantissa: u64::MAX, exponent: EXPONENT_MAX };

    /// The number with the other sign.
    pub fn negated(self) -> LongDouble {
        match self {
            LongDouble::Finite { negative, mantissa, exponent } => {
                LongDouble::Finite { negative: !negative, mantissa, exponent }
            }
            LongDouble::Infinite { negative } => LongDouble::Infinite { negative: !negative },
            LongDouble::NotANumber => self,
        }
    }

    /// Which one is the greater; none if one of them is not a number, or both are the same infinity.
    pub fn order(&self, other: &LongDouble) -> Option<Ordering> {
        // What is left of a difference has its sign, however small it is.
        match self.add(other.negated()) {
            LongDouble::NotANumber => None,
            LongDouble::Finite { mantissa: 0, .. } => Some(Ordering::Equal),
            LongDouble::Finite { negative: true, .. } | LongDouble::Infinite { negative: true } => {
                Some(Ordering::Less)
            }
            LongDouble::Finite { .. } | LongDouble::Infinite { .. } => Some(Ordering::Greater),
        }
    }

    pub fn is_finite(&self) -> bool {
        matches!(self, LongDouble::Finite { .. })
    }

    /// The sum, rounded once.
    #[expect(clippy::should_implement_trait, reason = "one operation does not make an algebra")]
    pub fn add(self, other: LongDouble) -> LongDouble {
        use LongDouble::{Finite, Infinite, NotANumber};
        let (a, b) = match (self, other) {
            (NotANumber, _) | (_, NotANumber) => return NotANumber,
            (Infinite { negative: a }, Infinite { negative: b }) if a != b => return NotANumber,
            (Infinite { negative }, _) | (_, Infinite { negative }) => {
                return Infinite { negative };
            }
            (
                Finite { negative: a_negative, mantissa: a, exponent: a_exponent },
                Finite { negative: b_negative, mantissa: b, exponent: b_exponent },
            ) => {
                let a = (a_exponent, a, a_negative);
                let b = (b_exponent, b, b_negative);
                if (a.0, a.1) >= (b.0, b.1) { (a, b) } else { (b, a) }
            }
        };
        // `a` is the larger magnitude. 62 guard bits: with exponents that differ by more, what `b`
        // loses is below half a unit of the result and only its presence counts.
        const GUARD: i32 = 62;
        let wide_a = u128::from(a.1) << GUARD;
        let wide_b = u128::from(b.1) << GUARD;
        let shift = (a.0 - b.0) as u32;
        let (shifted_b, sticky) = if shift == 0 {
            (wide_b, false)
        } else if shift < 128 {
            (wide_b >> shift, wide_b & ((1 << shift) - 1) != 0)
        } else {
            (0, wide_b != 0)
        };
        let (negative, sum) = if a.2 == b.2 {
            (a.2, wide_a + shifted_b)
        } else {
            let difference = wide_a - shifted_b - u128::from(sticky);
            (a.2 && difference != 0, difference)
        };
        LongDouble::rounded(negative, sum, sticky, a.0 - GUARD)
    }

    /// The text of Redis's "human" format: 17 decimals, trailing zeros removed, no exponent.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            LongDouble::NotANumber => out.extend_from_slice(b"nan"),
            LongDouble::Infinite { negative } => {
                out.extend_from_slice(if negative { b"-inf" } else { b"inf" });
            }
            LongDouble::Finite { negative, mantissa, exponent } => {
                let start = out.len();
                if negative {
                    out.push(b'-');
                }
                if exponent >= 0 {
                    let whole = BigUint::from(mantissa) << exponent as u32;
                    out.extend_from_slice(whole.to_string().as_bytes());
                } else {
                    write_with_decimals(out, mantissa, exponent.unsigned_abs());
                }
                if &out[start..] == b"-0" {
                    out.remove(start);
                }
            }
        }
    }

    /// As [`write`](Self::write), into a new string.
    pub fn to_text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The nearest number to `mantissa × 2^exponent`. With `sticky` (a trifle more) the mantissa
    /// has more than 64 bits.
    fn rounded(negative: bool, mantissa: u128, sticky: bool, exponent: i32) -> LongDouble {
        let (mut mantissa, mut exponent) =
            round(mantissa, sticky, exponent, PRECISION, EXPONENT_MIN);
        if mantissa >> PRECISION != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
        if exponent > EXPONENT_MAX {
            return LongDouble::Infinite { negative };
        }
        LongDouble::Finite { negative, mantissa: mantissa as u64, exponent }
    }

    /// `mantissa` is digits with at most one point.
    fn from_decimal(negative: bool, mantissa: &[u8], exponent: i32) -> LongDouble {
        let point = mantissa.iter().position(|byte| *byte == b'.');
        let decimals = point.map_or(0, |point| mantissa.len() - point - 1);
        let digits: Vec<u8> = mantissa.iter().copied().filter(|byte| *byte != b'.').collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let digits = &digits[zeros..];
        let ten = exponent - decimals as i32;
        if digits.is_empty() {
            return LongDouble::rounded(negative, 0, false, 0);
        }
        let magnitude = digits.len() as i32 + ten;
        if magnitude > 4940 {
            return LongDouble::Infinite { negative };
        }
        if magnitude < -4970 {
            return LongDouble::rounded(negative, 0, false, 0);
        }
        if digits.len() <= 19 && (-18..=18).contains(&ten) {
            let value = digits.iter().fold(0u128, |value, d| value * 10 + u128::from(d - b'0'));
            let power = 10u128.pow(ten.unsigned_abs());
            if ten >= 0 {
                return LongDouble::rounded(negative, value * power, false, 0);
            }
            // The quotient of a 128-bit and an at most 60-bit number has 68 bits or more.
            let shift = value.leading_zeros();
            let value = value << shift;
            let (quotient, remainder) = (value / power, value % power);
            return LongDouble::rounded(negative, quotient, remainder != 0, -(shift as i32));
        }
        let value = BigUint::parse_bytes(digits, 10).expect("only digits are left");
        if ten >= 0 {
            return LongDouble::from_big(negative, value * ten_to(ten.unsigned_abs()), false, 0);
        }
        let power = ten_to(ten.unsigned_abs());
        let shift = (power.bits() + 68).saturating_sub(value.bits());
        let value = value << shift;
        let quotient = &value / &power;
        let remainder = value - &quotient * power;
        let sticky = remainder != BigUint::ZERO;
        LongDouble::from_big(negative, quotient, sticky, -(shift as i32))
    }

    fn from_big(negative: bool, value: BigUint, sticky: bool, exponent: i32) -> LongDouble {
        let shift = value.bits().saturating_sub(128);
        let top = &value >> shift;
        let lost = shift > 0 && value.trailing_zeros().is_some_and(|zeros| zeros < shift);
        let top = u128::try_from(top).expect("128 bits are left");
        LongDouble::rounded(negative, top, sticky || lost, exponent + shift as i32)
    }
}

fn ten_to(power: u32) -> BigUint {
    BigUint::from(10u8).pow(power)
}

/// Writes `mantissa / 2^shift` with 17 decimals, rounded exactly, without trailing zeros.
fn write_with_decimals(out: &mut Vec<u8>, mantissa: u64, shift: u32) {
    let mantissa = u128::from(mantissa);
    let (mut whole, fraction) =
        if shift < 64 { (mantissa >> shift, mantissa & ((1 << shift) - 1)) } else { (0, mantissa) };
    // Below 2^64 × 10^17 < 2^121; with a shift beyond that everything rounds to zero.
    let scaled = fraction * TEN_TO_DECIMALS;
    let mut decimals = if shift > 122 { 0 } else { scaled >> shift };
    if shift <= 122 {
        let lost = scaled & ((1 << shift) - 1);
        let half = 1 << (shift - 1);
        if lost > half || lost == half && decimals & 1 == 1 {
            decimals += 1;
        }
    }
    if decimals == TEN_TO_DECIMALS {
        decimals = 0;
        whole += 1;
    }
    out.extend_from_slice(whole.to_string().as_bytes());
    if decimals != 0 {
        let text = format!("{decimals:0width$}", width = DECIMALS);
        out.push(b'.');
        out.extend_from_slice(text.trim_end_matches('0').as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let a = LongDouble::parse(a.as_bytes()).unwrap();
        let b = LongDouble::parse(b.as_bytes()).unwrap();
        String::from_utf8(a.add(b).to_text()).unwrap()
    }

    /// Texts as redis-server 7.0 answers them on x86-64.
    #[test]
    fn sums_of_incrbyfloat() {
        for (a, b, text) in [
            ("0.1", "0.2", "0.3"),
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("3.0e-1", "0", "0.3"),
            ("1", "-1", "0"),
            ("-1", "1", "0"),
            ("-0.1", "0.1", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            ("4e-18", "0", "0"),
            ("-4e-18", "0", "0"),
            ("6e-18", "0", "0.00000000000000001"),
            ("1e19", "1", "10000000000000000001"),
            ("1e20", "1", "100000000000000000000"),
            ("0.99999999999999999999", "0", "1"),
            ("17179869184", "1.5", "17179869185.5"),
            ("0x10", "0", "16"),
        ] {
            assert_eq!(sum(a, b), text, "{a} + {b}");
        }
    }

    #[test]
    fn refused_texts() {
        for text in ["", " 1", "1 ", "nan", "1e5000", "1e-5000", "abc", "1e", "--1", "0x"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LongDouble::parse(b"-inf"), Some(LongDouble::Infinite { negative: true }));
        let infinite = LongDouble::parse(b"inf").unwrap();
        assert!(!infinite.add(LongDouble::from(1)).is_finite());
        let minus = LongDouble::parse(b"-inf").unwrap();
        assert_eq!(infinite.add(minus), LongDouble::NotANumber);
        let largest = LongDouble::parse(b"1.18973149535723176502e+4932").unwrap();
        assert!(!largest.add(largest).is_finite());
        assert!(largest.to_text().len() == 4933);
    }

    #[test]
    fn the_short_way_agrees_with_the_long() {
        let mut seed = 42u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let digits = (seed >> 3).to_string();
            let digits = &digits[..1 + (seed % digits.len() as u64) as usize];
            let ten = (seed >> 40) as i32 % 19;
            let short = LongDouble::from_decimal(false, digits.as_bytes(), -ten);
            // Thirty zeros more make the same number take the long way.
            let long = format!("{digits}{}", "0".repeat(30));
            let long = LongDouble::from_decimal(false, long.as_bytes(), -ten - 30);
            assert_eq!(short, long, "{digits}e-{ten}");
        }
    }
}

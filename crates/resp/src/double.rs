//! Doubles as text, the way Redis 7.2 replies them. Knows nothing of protocols; [`crate::Reply`]
//! and whoever formats a double for a client call it.

/// The text of a double: the shortest digits that read back as the same value, in Redis's notation.
///
/// - integers up to ±2^62 are printed as integers,
/// - larger ones are filled up with at most seven zeros,
/// - fractions are written plainly if they have at most six decimals or a magnitude between
///   0.001 and 9999, and everything else with an exponent (`1.5e-7`, `1e+20`).
pub struct DoubleText {
    bytes: [u8; DoubleText::CAPACITY],
    len: usize,
}

/// The range in which Redis prints integral doubles with its integer formatter.
const INTEGER_LIMIT: f64 = (i64::MAX / 2) as f64;

impl DoubleText {
    const CAPACITY: usize = 40;

    pub fn new(value: f64) -> DoubleText {
        let mut text = DoubleText { bytes: [0; Self::CAPACITY], len: 0 };
        if value.is_nan() {
            text.push(b"nan");
        } else if value.is_infinite() {
            text.push(if value < 0.0 { b"-inf" } else { b"inf" });
        } else if value == 0.0 {
            text.push(if value.is_sign_negative() { b"-0" } else { b"0" });
        } else if value.abs() <= INTEGER_LIMIT && value.trunc() == value {
            text.push(itoa::Buffer::new().format(value as i64).as_bytes());
        } else {
            text.push_finite(value);
        }
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("only ASCII is pushed")
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push_zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }

    fn push_finite(&mut self, value: f64) {
        if value < 0.0 {
            self.push(b"-");
        }
        let decimal = Decimal::of(value.abs());
        let digits = &decimal.digits[..decimal.count];
        let count = decimal.count as i32;
        let scale = decimal.scale;
        // The power of ten of the first digit.
        let exponent = scale + count - 1;

        if scale >= 0 && exponent < count + 7 {
            self.push(digits);
            self.push_zeros(scale as usize);
        } else if scale < 0 && (scale > -7 || exponent.abs() < 4) {
            let whole = count + scale;
            if whole <= 0 {
                self.push(b"0.");
                self.push_zeros(-whole as usize);
                self.push(digits);
            } else {
                self.push(&digits[..whole as usize]);
                self.push(b".");
                self.push(&digits[whole as usize..]);
            }
        } else {
            self.push(&digits[..1]);
            if digits.len() > 1 {
                self.push(b".");
                self.push(&digits[1..]);
            }
            self.push(if exponent < 0 { b"e-" } else { b"e+" });
            self.push(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
        }
    }
}

/// A positive finite double as `digits × 10^scale`, shortest digits, no zeros at either end.
struct Decimal {
    digits: [u8; 20],
    count: usize,
    scale: i32,
}

impl Decimal {
    fn of(value: f64) -> Decimal {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value).as_bytes();
        let mut decimal = Decimal { digits: [0; 20], count: 0, scale: 0 };
        // Zeros are held back until a later digit shows that they are not trailing.
        let mut zeros = 0;
        let mut after_point = false;
        for (index, &byte) in text.iter().enumerate() {
            match byte {
                b'0' => {
                    zeros += 1;
                    decimal.scale -= i32::from(after_point);
                }
                b'1'..=b'9' => {
                    if decimal.count > 0 {
                        decimal.digits[decimal.count..decimal.count + zeros].fill(b'0');
                        decimal.count += zeros;
                    }
                    zeros = 0;
                    decimal.digits[decimal.count] = byte;
                    decimal.count += 1;
                    decimal.scale -= i32::from(after_point);
                }
                b'.' => after_point = true,
                _ => {
                    let exponent = std::str::from_utf8(&text[index + 1..]).expect("ASCII");
                    decimal.scale += exponent.parse::<i32>().expect("a small exponent");
                    break;
                }
            }
        }
        decimal.scale += zeros as i32;
        decimal
    }
}

#[cfg(test)]
mod tests {
    use super::DoubleText;
    use proptest::prelude::*;

    #[track_caller]
    fn check(value: f64, expected: &str) {
        assert_eq!(DoubleText::new(value).as_str(), expected, "{value:e}");
    }

    #[test]
    fn specials_and_integers() {
        check(f64::NAN, "nan");
        check(-f64::NAN, "nan");
        check(f64::INFINITY, "inf");
        check(f64::NEG_INFINITY, "-inf");
        check(0.0, "0");
        check(-0.0, "-0");
        check(3.0, "3");
        check(-17.0, "-17");
        check(1e17, "100000000000000000");
        check(4611686018427387904.0, "4611686018427387904");
    }

    #[test]
    fn notation() {
        check(2.5, "2.5");
        check(0.1 + 0.2, "0.30000000000000004");
        check(1.0 / 3.0, "0.3333333333333333");
        check(-0.000001, "-0.000001");
        check(0.0000015, "1.5e-6");
        check(1e-7, "1e-7");
        check(0.00012345678901234567, "1.2345678901234567e-4");
        check(0.0012345678, "0.0012345678");
        check(1234.56789012345, "1234.56789012345");
        check(12345.67890123, "1.234567890123e+4");
        check(12345.678901, "12345.678901");
        check(1e19, "1e+19");
        check(1.2345678e19, "1.2345678e+19");
        check(1.23456789012345e19, "12345678901234500000");
        check(-1.23456789012345e21, "-1234567890123450000000");
        check(-1.23456789012345e22, "-1.23456789012345e+22");
        check(f64::MAX, "1.7976931348623157e+308");
        check(f64::MIN_POSITIVE, "2.2250738585072014e-308");
        check(5e-324, "5e-324");
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_double(bits: u64) {
            let value = f64::from_bits(bits);
            let back: f64 = DoubleText::new(value).as_str().parse().unwrap();
            if value.is_nan() {
                prop_assert!(back.is_nan());
            } else {
                prop_assert_eq!(back.to_bits(), bits);
            }
        }
    }
}

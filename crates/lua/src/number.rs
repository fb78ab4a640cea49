//! How numbers become text where a script hands them to the server.

use std::io::Write as _;

/// Longest text these functions write.
pub const TEXT_BYTES_MAX: usize = 32;

/// Text of a number given to `redis.call`, as Redis 7.2 writes it: whole numbers (below 2^62 in
/// magnitude) as integers, others with the fewest digits that read back to the same number.
/// Returns the length written.
pub fn argument(value: f64, out: &mut [u8; TEXT_BYTES_MAX]) -> usize {
    const WHOLE_LIMIT: f64 = 4_611_686_018_427_387_904.0;
    if (-WHOLE_LIMIT..=WHOLE_LIMIT).contains(&value) {
        let whole = value as i64;
        if whole as f64 == value {
            return integer(whole, out);
        }
    }
    shortest(value, out)
}

/// Decimal digits of an integer. Returns the length written.
pub fn integer(value: i64, out: &mut [u8; TEXT_BYTES_MAX]) -> usize {
    resp::write_integer(out, value)
}

/// The fewest digits that read back, laid out as Redis 7.2 lays them out: plain while the point
/// stays within seven zeros or three digits of the text, else with an exponent.
pub fn shortest(value: f64, out: &mut [u8; TEXT_BYTES_MAX]) -> usize {
    let mut len = 0;
    if value.is_sign_negative() {
        out[0] = b'-';
        len = 1;
    }
    if !value.is_finite() {
        out[len..len + 3].copy_from_slice(if value.is_nan() { b"nan" } else { b"inf" });
        return len + 3;
    }
    if value == 0.0 {
        out[len] = b'0';
        return len + 1;
    }
    let Digits { digits, count, exponent: scale } = digits(value.abs());
    let digits = &digits[..count];
    // value = digits * 10^scale; `magnitude` is the exponent of the first digit.
    let first = scale + count as i32 - 1;
    let magnitude = first.unsigned_abs() as usize;
    if scale >= 0 && magnitude < count + 7 {
        out[len..len + count].copy_from_slice(digits);
        out[len + count..len + count + scale as usize].fill(b'0');
        return len + count + scale as usize;
    }
    if scale < 0 && (scale > -7 || magnitude < 4) {
        let point = count as i32 + scale;
        if point <= 0 {
            let zeros = (-point) as usize;
            out[len] = b'0';
            out[len + 1] = b'.';
            out[len + 2..len + 2 + zeros].fill(b'0');
            out[len + 2 + zeros..len + 2 + zeros + count].copy_from_slice(digits);
            return len + 2 + zeros + count;
        }
        let point = point as usize;
        out[len..len + point].copy_from_slice(&digits[..point]);
        out[len + point] = b'.';
        out[len + point + 1..len + count + 1].copy_from_slice(&digits[point..]);
        return len + count + 1;
    }
    out[len] = digits[0];
    len += 1;
    if count > 1 {
        out[len] = b'.';
        out[len + 1..len + count].copy_from_slice(&digits[1..]);
        len += count;
    }
    out[len] = b'e';
    out[len + 1] = if first < 0 { b'-' } else { b'+' };
    len += 2;
    let mut rest = [0u8; TEXT_BYTES_MAX];
    let written = integer(magnitude as i64, &mut rest);
    out[len..len + written].copy_from_slice(&rest[..written]);
    len + written
}

/// The shortest digits of a positive finite number: `0.digits… = digits * 10^exponent`, without
/// trailing zeros.
struct Digits {
    digits: [u8; 20],
    count: usize,
    exponent: i32,
}

fn digits(value: f64) -> Digits {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    let mut found = Digits { digits: [0; 20], count: 0, exponent: 0 };
    let mut after_point = false;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'.' => after_point = true,
            b'e' | b'E' => {
                let exponent = std::str::from_utf8(&text[at + 1..]).unwrap_or_default();
                found.exponent += exponent.trim_start_matches('+').parse::<i32>().unwrap_or(0);
                break;
            }
            digit => {
                if found.count == 20 {
                    // A whole number written out in full; all further digits are zeros.
                    found.exponent += i32::from(!after_point);
                } else if found.count > 0 || digit != b'0' {
                    found.digits[found.count] = digit;
                    found.count += 1;
                    found.exponent -= i32::from(after_point);
                } else {
                    found.exponent -= i32::from(after_point);
                }
            }
        }
        at += 1;
    }
    while found.count > 1 && found.digits[found.count - 1] == b'0' {
        found.count -= 1;
        found.exponent += 1;
    }
    found
}

/// Appends a number as C's `%.<precision>g` writes it (cjson and `tostring` use 14).
pub fn general(value: f64, precision: usize, out: &mut Vec<u8>) {
    if !value.is_finite() {
        let sign = if value.is_sign_negative() { "-" } else { "" };
        let name = if value.is_nan() { "nan" } else { "inf" };
        let _ = write!(out, "{sign}{name}");
        return;
    }
    if precision >= 14 && value.abs() < 1e14 {
        let whole = value as i64;
        if whole as f64 == value && (whole != 0 || value.is_sign_positive()) {
            append(out, |text| integer(whole, text));
            return;
        }
        if precision == 14 && append(out, |text| short_decimal(value, text)) > 0 {
            return;
        }
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value == 0.0 {
        out.push(b'0');
        return;
    }
    // A shortest form within the precision (at most 15 digits) is also the correctly rounded one.
    let mut found = digits(value.abs());
    // Below the normal range fewer digits suffice to read back, and they are not the same ones.
    if precision > 15 || found.count > precision || value.abs() < f64::MIN_POSITIVE {
        found = rounded(value.abs(), precision);
    }
    let first = found.exponent + found.count as i32 - 1;
    let digits = &found.digits[..found.count];
    if first < -4 || first >= precision as i32 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if first < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", first.unsigned_abs());
    } else if first < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-first - 1) as usize));
        out.extend_from_slice(digits);
    } else {
        let whole = first as usize + 1;
        if digits.len() <= whole {
            out.extend_from_slice(digits);
            out.extend(std::iter::repeat_n(b'0', whole - digits.len()));
        } else {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

/// Appends what `write` writes and says how long it is. It writes in place: copying digits just
/// written would wait for them to reach the cache.
fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut [u8; TEXT_BYTES_MAX]) -> usize) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; TEXT_BYTES_MAX]);
    let len = out.last_chunk_mut().map_or(0, write);
    out.truncate(start + len);
    len
}

/// A number with at most four decimals and ten digits in front, as prices and coordinates are:
/// its text with `%.14g`. 0 if it is none.
fn short_decimal(value: f64, out: &mut [u8; TEXT_BYTES_MAX]) -> usize {
    let magnitude = value.abs();
    if !(1e-4..1e9).contains(&magnitude) {
        return 0;
    }
    // Each power is a constant here, so that dividing by it is a multiplication.
    with_decimals::<1, 10>(value, out)
        .or_else(|| with_decimals::<2, 100>(value, out))
        .or_else(|| with_decimals::<3, 1000>(value, out))
        .or_else(|| with_decimals::<4, 10_000>(value, out))
        .unwrap_or(0)
}

/// The same with so many decimals, if they tell all of it; `POWER` is ten to their number.
#[inline(always)]
fn with_decimals<const DECIMALS: usize, const POWER: u64>(
    value: f64,
    out: &mut [u8; TEXT_BYTES_MAX],
) -> Option<usize> {
    let magnitude = value.abs();
    let scaled = (magnitude * POWER as f64 + 0.5) as u64;
    // A decimal of at most 13 digits whose nearest double is the value is what the value reads as
    // when rounded to 14.
    if scaled as f64 / POWER as f64 != magnitude {
        return None;
    }
    let whole = (scaled / POWER) as i64;
    let mut len = integer(if value < 0.0 { -whole } else { whole }, out);
    if value < 0.0 && whole == 0 {
        out[..2].copy_from_slice(b"-0");
        len = 2;
    }
    out[len] = b'.';
    let mut rest = scaled % POWER;
    for place in (len + 1..=len + DECIMALS).rev() {
        out[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    Some(len + 1 + DECIMALS)
}

/// The digits of a positive number correctly rounded to `precision` (at most 20) of them.
fn rounded(value: f64, precision: usize) -> Digits {
    let mut text = [0u8; 40];
    let mut rest = &mut text[..];
    let _ = write!(rest, "{value:.*e}", precision - 1);
    let left = rest.len();
    let used = text.len() - left;
    let mut found = Digits { digits: [0; 20], count: 0, exponent: 0 };
    for (at, &byte) in text[..used].iter().enumerate() {
        match byte {
            b'.' => {}
            b'e' => {
                let exponent = std::str::from_utf8(&text[at + 1..used]).unwrap_or_default();
                found.exponent = exponent.parse::<i32>().unwrap_or(0) - (found.count as i32 - 1);
                break;
            }
            digit => {
                found.digits[found.count] = digit;
                found.count += 1;
            }
        }
    }
    while found.count > 1 && found.digits[found.count - 1] == b'0' {
        found.count -= 1;
        found.exponent += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument_text(value: f64) -> String {
        let mut out = [0; TEXT_BYTES_MAX];
        let len = argument(value, &mut out);
        String::from_utf8(out[..len].to_vec()).unwrap()
    }

    fn general_text(value: f64, precision: usize) -> String {
        let mut out = Vec::new();
        general(value, precision, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn c_general(value: f64, precision: usize) -> String {
        let mut text = [0u8; 64];
        // SAFETY: the buffer is longer than any %.17g text, and the format matches the arguments.
        let len = unsafe {
            libc::snprintf(
                text.as_mut_ptr().cast(),
                text.len(),
                c"%.*g".as_ptr(),
                precision as i32,
                value,
            )
        };
        String::from_utf8(text[..len as usize].to_vec()).unwrap()
    }

    #[test]
    fn arguments_are_written_as_redis_7_2_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (3.0, "3"),
            (-17.0, "-17"),
            (1e15, "1000000000000000"),
            (9007199254740993.0, "9007199254740992"),
            (4.611686018427388e18, "4611686018427387904"),
            (1e19, "1e+19"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (1.5, "1.5"),
            (1.0 / 3.0, "0.3333333333333333"),
            (0.1, "0.1"),
            (3.25, "3.25"),
            (1e-5, "0.00001"),
            (1e-7, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (123456.789, "123456.789"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(argument_text(value), text, "{value:e}");
        }
    }

    #[test]
    fn arguments_read_back() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let value = f64::from_bits(state);
            if value.is_finite() {
                assert_eq!(argument_text(value).parse::<f64>().unwrap(), value, "{state:x}");
            }
        }
    }

    #[test]
    fn general_format_agrees_with_c() {
        let mut state = 88172645463325252u64;
        let mut values = vec![
            5e-324,
            2.2e-308,
            0.0,
            -0.0,
            1e14,
            1e13,
            123456789012345.0,
            0.1,
            2.5,
            1e-5,
            0.0001,
        ];
        for _ in 0..30_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values.push(f64::from_bits(state));
            values.push((state % 1_000_000_007) as f64 / 1000.0);
            values.push((state % 1_000_007) as f64 / -100.0);
            values.push((state % 10_000_000_019) as f64 / 10_000.0);
            values.push((state % 100_000_000_000_000_000) as f64 / 1e9);
        }
        for value in values {
            for precision in [1, 5, 13, 14, 15, 16, 17] {
                if value.is_finite() {
                    assert_eq!(
                        general_text(value, precision),
                        c_general(value, precision),
                        "{value:e} {precision}"
                    );
                }
            }
        }
    }
}

//! Bytes as rows of bits: counting, searching, combining, and integers at any bit. Bit 0 is the
//! highest of the first byte. Knows nothing of keys; the bitmap commands call it.

use std::ops::Range;

/// How many bits are set. O(bytes), many bytes at a time.
pub fn count_ones(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("popcnt")
    {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { count_ones_avx2(bytes) };
    }
    count_ones_anywhere(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn count_ones_avx2(bytes: &[u8]) -> u64 {
    count_ones_anywhere(bytes)
}

#[inline(always)]
fn count_ones_anywhere(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let ones = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones()));
    ones.sum::<u64>() + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// How many bits of this range are set; it must lie within the bytes.
pub fn count_ones_within(bytes: &[u8], bits: Range<usize>) -> u64 {
    if bits.is_empty() {
        return 0;
    }
    let (first, last) = (bits.start / 8, (bits.end - 1) / 8);
    let before = bytes[first] & !(0xff >> (bits.start % 8));
    let behind = bytes[last] & !head_mask((bits.end - 1) % 8 + 1);
    let outside = before.count_ones() + behind.count_ones();
    count_ones(&bytes[first..=last]) - u64::from(outside)
}

/// The first `bits` bits of a byte.
fn head_mask(bits: usize) -> u8 {
    !(0xff_u16 >> bits) as u8
}

/// The first bit of this range that is as wanted; the range must lie within the bytes. O(bytes).
pub fn position(bytes: &[u8], wanted: bool, bits: Range<usize>) -> Option<usize> {
    if bits.is_empty() {
        return None;
    }
    let flip = if wanted { 0 } else { 0xff };
    let (first, last) = (bits.start / 8, (bits.end - 1) / 8);
    let found = |at: usize, byte: u8| {
        let bit = at * 8 + byte.leading_zeros() as usize;
        (byte != 0 && bit < bits.end).then_some(bit)
    };
    let head = (bytes[first] ^ flip) & (0xff >> (bits.start % 8));
    if head != 0 || first == last {
        return found(first, head);
    }
    let (words, _) = bytes[first + 1..=last].as_chunks::<8>();
    let dull = if wanted { [0; 8] } else { [0xff; 8] };
    let skipped = words.iter().take_while(|word| **word == dull).count() * 8;
    let from = first + 1 + skipped;
    let at = bytes[from..=last].iter().position(|byte| byte ^ flip != 0)? + from;
    found(at, bytes[at] ^ flip)
}

/// How several rows of bits become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    And,
    Or,
    Xor,
    Not,
    /// Those of the first that no other has.
    Diff,
    /// Those of others that the first does not have.
    Diff1,
    /// Those of the first that another has too.
    AndOr,
    /// Those that exactly one has.
    One,
}

/// Bytes combined at a time, so that they stay near the processor.
const BLOCK_BYTES: usize = 8 << 10;

/// Combines rows of bits; a shorter one goes on with zeros. `goes_on` is asked now and then, and
/// what there is then is answered. O(bytes of all).
pub fn combine(operation: Operation, sources: &[&[u8]], goes_on: impl Fn() -> bool) -> Vec<u8> {
    let len = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let mut result = vec![0; len];
    let Some((first, others)) = sources.split_first() else { return result };
    // What more than one has.
    let mut twice = vec![0; if operation == Operation::One { BLOCK_BYTES.min(len) } else { 0 }];
    for (number, block) in result.chunks_mut(BLOCK_BYTES).enumerate() {
        if number.is_multiple_of(128) && !goes_on() {
            break;
        }
        let from = number * BLOCK_BYTES;
        let to = from + block.len();
        let part = |source: &[u8]| from.min(source.len())..to.min(source.len());
        let own = &first[part(first)];
        let parts = others.iter().map(|source| &source[part(source)]);
        match operation {
            Operation::And => {
                let (head, tail) = block.split_at_mut(own.len());
                head.copy_from_slice(own);
                tail.fill(0);
                for other in parts {
                    let len = block.len();
                    let (head, tail) = block.split_at_mut(other.len().min(len));
                    apply(head, other, |a, b| a & b);
                    tail.fill(0);
                }
            }
            Operation::Not => {
                block[..own.len()].copy_from_slice(own);
                block.iter_mut().for_each(|byte| *byte = !*byte);
            }
            Operation::Or | Operation::Xor => {
                block[..own.len()].copy_from_slice(own);
                for other in parts {
                    match operation {
                        Operation::Or => apply(block, other, |a, b| a | b),
                        _ => apply(block, other, |a, b| a ^ b),
                    }
                }
            }
            Operation::Diff | Operation::Diff1 | Operation::AndOr => {
                parts.for_each(|other| apply(block, other, |a, b| a | b));
                match operation {
                    Operation::Diff1 => apply(block, own, |any, own| any & !own),
                    _ => {
                        let (head, tail) = block.split_at_mut(own.len());
                        tail.fill(0);
                        match operation {
                            Operation::Diff => apply(head, own, |any, own| own & !any),
                            _ => apply(head, own, |any, own| own & any),
                        }
                    }
                }
            }
            Operation::One => {
                let twice = &mut twice[..block.len()];
                twice.fill(0);
                block[..own.len()].copy_from_slice(own);
                for other in parts {
                    for ((once, twice), other) in block.iter_mut().zip(twice.iter_mut()).zip(other)
                    {
                        *twice |= *once & other;
                        *once |= other;
                    }
                }
                apply(block, twice, |once, twice| once & !twice);
            }
        }
    }
    result
}

#[inline(always)]
fn apply(to: &mut [u8], from: &[u8], operation: impl Fn(u8, u8) -> u8) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = operation(*to, *from);
    }
}

/// An integer of up to 64 bits at any bit; zeros follow behind the bytes.
pub fn unsigned_at(bytes: &[u8], offset: usize, width: u32) -> u64 {
    let shift = (offset % 8) as u32;
    let window = window(bytes, offset / 8) << shift;
    (window >> (128 - width)) as u64
}

/// The sixteen bytes from here on.
fn window(bytes: &[u8], from: usize) -> u128 {
    let rest = &bytes[from.min(bytes.len())..];
    let mut window = [0; 16];
    let len = rest.len().min(16);
    window[..len].copy_from_slice(&rest[..len]);
    u128::from_be_bytes(window)
}

/// The bytes that hold the bits from `offset` on once the low `width` bits of `value` stand there,
/// and how many they are. `bytes` is what there is now.
pub fn with_integer(bytes: &[u8], offset: usize, width: u32, value: u64) -> ([u8; 9], usize) {
    let shift = (offset % 8) as u32;
    let place = 128 - shift - width;
    let mask = (u128::MAX >> (128 - width)) << place;
    let changed = window(bytes, offset / 8) & !mask | (u128::from(value) << place) & mask;
    let mut held = [0; 9];
    held.copy_from_slice(&changed.to_be_bytes()[..9]);
    (held, (shift + width).div_ceil(8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit(bytes: &[u8], at: usize) -> bool {
        bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
    }

    /// Long runs of equal bytes among others, so that words are skipped.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => Just(0), 4 => Just(0xff), 1 => any::<u8>()];
        let run = (byte, 0..40_usize).prop_map(|(byte, len)| vec![byte; len]);
        prop::collection::vec(run, 0..6).prop_map(|runs| runs.concat())
    }

    proptest! {
        #[test]
        fn counted_and_found(bytes in bytes(), a in 0..2000_usize, b in 0..2000_usize) {
            let len = bytes.len() * 8;
            let (a, b) = (a % (len + 1), b % (len + 1));
            let range = a.min(b)..a.max(b);
            let ones = range.clone().filter(|at| bit(&bytes, *at)).count() as u64;
            prop_assert_eq!(count_ones_within(&bytes, range.clone()), ones);
            for wanted in [false, true] {
                let first = range.clone().find(|at| bit(&bytes, *at) == wanted);
                prop_assert_eq!(position(&bytes, wanted, range.clone()), first);
            }
        }

        #[test]
        fn combined(sources in prop::collection::vec(bytes(), 1..5), long in any::<bool>()) {
            let mut sources = sources;
            if long {
                let more = sources[0].repeat(200);
                sources.push(more);
            }
            let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
            let len = sources.iter().map(|source| source.len()).max().unwrap() * 8;
            use Operation::*;
            for operation in [And, Or, Xor, Not, Diff, Diff1, AndOr, One] {
                let result = combine(operation, &sources, || true);
                prop_assert_eq!(result.len() * 8, len);
                for at in 0..len {
                    let own = bit(sources[0], at);
                    let others = sources[1..].iter().filter(|source| bit(source, at)).count();
                    let count = others + usize::from(own);
                    let expected = match operation {
                        And => count == sources.len(),
                        Or => count > 0,
                        Xor => count % 2 == 1,
                        Not => !own,
                        Diff => own && others == 0,
                        Diff1 => !own && others > 0,
                        AndOr => own && others > 0,
                        One => count == 1,
                    };
                    prop_assert_eq!(bit(&result, at), expected, "{:?} at {}", operation, at);
                }
            }
        }

        #[test]
        fn integers_anywhere(bytes in bytes(), at in 0..1500_usize, width in 1..65_u32, value: u64) {
            let (held, len) = with_integer(&bytes, at, width, value);
            let mut after = bytes.clone();
            after.resize(bytes.len().max(at / 8 + len), 0);
            after[at / 8..at / 8 + len].copy_from_slice(&held[..len]);
            let low = value & (u64::MAX >> (64 - width));
            prop_assert_eq!(unsigned_at(&after, at, width), low);
            for other in 0..after.len() * 8 {
                if !(at..at + width as usize).contains(&other) {
                    prop_assert_eq!(bit(&after, other), bit(&bytes, other));
                }
            }
        }
    }
}

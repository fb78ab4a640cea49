//! LZF, the compression of strings in RDB files.
//!
//! A control byte below 32 is followed by that many literal bytes and one more. Any other is a copy
//! from before: three bits of length (7: one more byte of it follows), thirteen of distance. Two are
//! to be added to the length and one to the distance. Source: the format of liblzf.

use super::EXPANSION_MAX;

const LITERALS_MAX: usize = 32;
const COPY_MIN: usize = 3;
const COPY_MAX: usize = 264;
const DISTANCE_MAX: usize = 8192;
/// For long strings, and for those whose table is to stay in the fastest cache.
const TABLE_BITS: u32 = 14;
const SHORT_TABLE_BITS: u32 = 11;
const SHORT_BYTES_MAX: usize = 4096;
/// After so many places in a row where nothing was found, one more is passed over at each step.
const PATIENCE_BITS: u32 = 5;

/// Compresses; keeps its table from one string to the next.
pub struct Compressor {
    /// Where three bytes with this hash were last seen, counted on from string to string.
    seen: Box<[u32]>,
    /// What positions of this string begin at.
    base: u32,
}

impl Default for Compressor {
    fn default() -> Self {
        Compressor { seen: vec![0; 1 << TABLE_BITS].into(), base: 1 }
    }
}

/// Three bytes, of four.
fn three(bytes: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*bytes) & 0x00ff_ffff
}

impl Compressor {
    /// Appends the compressed input; false, with nothing appended, if that takes more than
    /// `bytes_max`.
    pub fn compress(&mut self, input: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let Some(next) = u32::try_from(input.len()).ok().and_then(|len| self.base.checked_add(len))
        else {
            if input.len() >= u32::MAX as usize {
                return false;
            }
            self.seen.fill(0);
            self.base = 1;
            return self.compress(input, bytes_max, out);
        };
        let start = out.len();
        let bits = if input.len() <= SHORT_BYTES_MAX { SHORT_TABLE_BITS } else { TABLE_BITS };
        let (mut at, mut literals_from) = (0, 0);
        let fits = loop {
            let Some(four) = input.get(at..).and_then(<[u8]>::first_chunk) else {
                let literals = &input[literals_from..];
                let more_bytes = literals.len() + literals.len().div_ceil(LITERALS_MAX);
                let fits = out.len() - start + more_bytes <= bytes_max;
                if fits {
                    put_literals(literals, out);
                }
                break fits;
            };
            let here = three(four);
            let slot = &mut self.seen[(here.wrapping_mul(0x9E37_79B1) >> (32 - bits)) as usize];
            let seen = std::mem::replace(slot, self.base + at as u32);
            let from = seen.wrapping_sub(self.base) as usize;
            let is_match = seen >= self.base
                && at - from <= DISTANCE_MAX
                && input[from..].first_chunk().is_some_and(|four| three(four) == here);
            if !is_match {
                at += 1 + ((at - literals_from) >> PATIENCE_BITS);
                continue;
            }
            if out.len() - start + (at - literals_from) > bytes_max {
                break false;
            }
            let most = COPY_MAX.min(input.len() - at);
            let more = input[at + COPY_MIN..at + most].iter().zip(&input[from + COPY_MIN..]);
            let count = COPY_MIN + more.take_while(|(a, b)| a == b).count();
            put_literals(&input[literals_from..at], out);
            put_copy(at - from - 1, count - 2, out);
            at += count;
            literals_from = at;
        };
        self.base = next;
        if !fits {
            out.truncate(start);
        }
        fits
    }
}

fn put_literals(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(LITERALS_MAX) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

fn put_copy(distance: usize, length: usize, out: &mut Vec<u8>) {
    let high = (distance >> 8) as u8;
    if length < 7 {
        out.push((length as u8) << 5 | high);
    } else {
        out.push(7 << 5 | high);
        out.push((length - 7) as u8);
    }
    out.push(distance as u8);
}

/// Appends what the input spells, which must be `len` bytes.
pub fn decompress(mut input: &[u8], len: u64, out: &mut Vec<u8>) -> Option<()> {
    if len > input.len() as u64 * EXPANSION_MAX as u64 {
        return None;
    }
    let len = len as usize;
    let start = out.len();
    out.reserve(len);
    while let Some((&control, rest)) = input.split_first() {
        let control = usize::from(control);
        if control < LITERALS_MAX {
            let (literals, rest) = rest.split_at_checked(control + 1)?;
            out.extend_from_slice(literals);
            input = rest;
        } else {
            let (more, rest) = match control >> 5 {
                7 => rest.split_first().map(|(&more, rest)| (usize::from(more), rest))?,
                _ => (0, rest),
            };
            let (&low, rest) = rest.split_first()?;
            input = rest;
            let distance = ((control & 31) << 8 | usize::from(low)) + 1;
            let mut left = (control >> 5) + more + 2;
            if distance > out.len() - start || out.len() - start + left > len {
                return None;
            }
            // A copy may run into what it makes: then it repeats itself.
            while left > 0 {
                let from = out.len() - distance;
                let now = left.min(distance);
                out.extend_from_within(from..from + now);
                left -= now;
            }
        }
        if out.len() - start > len {
            return None;
        }
    }
    (out.len() - start == len).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(compressor: &mut Compressor, input: &[u8]) -> Option<usize> {
        let mut packed = b"before".to_vec();
        if !compressor.compress(input, input.len(), &mut packed) {
            assert_eq!(packed, b"before");
            return None;
        }
        let mut back = b"front".to_vec();
        decompress(&packed[6..], input.len() as u64, &mut back).expect("what was packed unpacks");
        assert!(&back[5..] == input);
        Some(packed.len() - 6)
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let mut compressor = Compressor::default();
        assert!(round_trip(&mut compressor, &[b'a'; 100_000]).is_some_and(|n| n < 1200));
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let bits = random.u32(1..15);
            let len = random.usize(..1 << bits);
            let letters = 1 << random.u8(..9).min(7);
            let input: Vec<u8> = (0..len).map(|_| random.u8(..letters)).collect();
            let packed = round_trip(&mut compressor, &input);
            assert!(letters > 2 || len < 1000 || packed.is_some(), "seed {seed}, {len} bytes");
        }
    }

    #[test]
    fn its_positions_may_wrap() {
        let mut compressor = Compressor { base: u32::MAX - 50, ..Compressor::default() };
        for _ in 0..5 {
            assert!(round_trip(&mut compressor, &b"again and ".repeat(4)).is_some());
        }
    }

    #[test]
    fn broken_input_is_refused() {
        let all = |input: &[u8], len| decompress(input, len, &mut Vec::new());
        assert!(all(&[0, b'a', 0x20, 0], 4).is_some());
        assert!(all(&[0, b'a', 0x20, 0], 3).is_none(), "too long");
        assert!(all(&[0, b'a', 0x20, 0], 5).is_none(), "too short");
        assert!(all(&[0, b'a', 0x20, 1], 4).is_none(), "copies from before the beginning");
        assert!(all(&[5, b'a'], 6).is_none(), "literals are missing");
        assert!(all(&[0, b'a', 0xe0], 10).is_none(), "a length is missing");
        assert!(all(&[0, b'a'], 1 << 40).is_none(), "a claim that nothing can hold");
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let input: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
            let len = random.u64(..2000);
            let mut out = Vec::new();
            let result = decompress(&input, len, &mut out);
            assert!(result.is_none() || out.len() as u64 == len, "seed {seed}");
        }
    }
}

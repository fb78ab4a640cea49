//! Small helpers over a caller's random source.
//!
//! The crate draws no randomness of its own: a source is `&mut impl FnMut() -> u64`, so that the
//! server can seed it and a test can replay it.

/// A uniform number below `bound` (which must not be 0), by Lemire's multiplication method; the
/// bias is below `bound / 2^64`.
pub(crate) fn below(rng: &mut impl FnMut() -> u64, bound: usize) -> usize {
    ((u128::from(rng()) * bound as u128) >> 64) as usize
}

/// `count` distinct positions of `0..len` in random order, the beginning of a shuffle; `count` is
/// cut to `len`. O(len).
pub(crate) fn distinct(rng: &mut impl FnMut() -> u64, len: usize, count: usize) -> Vec<usize> {
    let count = count.min(len);
    let mut positions: Vec<usize> = (0..len).collect();
    for at in 0..count {
        let other = at + below(rng, len - at);
        positions.swap(at, other);
    }
    positions.truncate(count);
    positions
}

/// The hash of a byte string under keys drawn once per process, so that clients cannot aim
/// collisions at a table. [`crate::Table`] takes the bucket from the low bits and the tag from the
/// top eight; bits 40 to 55 are free for choosing a shard.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::LazyLock;
    static KEYS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);
    let mut hasher = KEYS.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

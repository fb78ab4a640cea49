//! Index ranges as commands write them: inclusive, negative from the end.

use std::ops::Range;

/// Turns `start stop` of LRANGE, ZRANGE, GETRANGE and their kin into positions of a sequence of
/// `len` elements. Out-of-range ends are clamped; a range that holds nothing is `0..0`.
pub fn index_range(start: i64, stop: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let from = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let to = if stop < 0 { stop.saturating_add(len) } else { stop.min(len - 1) };
    if from > to || from >= len { 0..0 } else { from as usize..to as usize + 1 }
}

/// The position that `index` names in a sequence of `len` elements, if there is one.
pub fn index_at(index: i64, len: usize) -> Option<usize> {
    let position = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(position).ok().filter(|&position| position < len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_clamped() {
        assert_eq!(index_range(0, -1, 5), 0..5);
        assert_eq!(index_range(-100, 100, 5), 0..5);
        assert_eq!(index_range(1, 1, 5), 1..2);
        assert_eq!(index_range(3, 1, 5), 0..0);
        assert_eq!(index_range(5, 9, 5), 0..0);
        assert_eq!(index_range(0, -6, 5), 0..0);
        assert_eq!(index_range(0, 0, 0), 0..0);
        assert_eq!(index_range(i64::MIN, i64::MAX, 3), 0..3);
        assert_eq!(index_range(i64::MAX, i64::MIN, 3), 0..0);
    }

    #[test]
    fn single_positions() {
        assert_eq!(index_at(-1, 3), Some(2));
        assert_eq!(index_at(-4, 3), None);
        assert_eq!(index_at(3, 3), None);
        assert_eq!(index_at(i64::MIN, 3), None);
        assert_eq!(index_at(0, 1), Some(0));
    }
}

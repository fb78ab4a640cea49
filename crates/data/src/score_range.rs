//! The ends of sorted-set ranges: by score and by member ("lex"), as commands write them.

/// One end of a range of scores; infinities are ordinary values here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreBound {
    pub value: f64,
    pub exclusive: bool,
}

/// A range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    pub min: ScoreBound,
    pub max: ScoreBound,
}

impl ScoreBound {
    /// Reads `1.5`, `(1.5`, `-inf`, `+inf`; `None` if the text is not a float.
    pub fn parse(text: &[u8]) -> Option<ScoreBound> {
        let (exclusive, number) = match text {
            [b'(', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        crate::number::parse_f64_bound(number).map(|value| ScoreBound { value, exclusive })
    }

    pub fn inclusive(value: f64) -> ScoreBound {
        ScoreBound { value, exclusive: false }
    }
}

impl ScoreRange {
    pub fn parse(min: &[u8], max: &[u8]) -> Option<ScoreRange> {
        Some(ScoreRange { min: ScoreBound::parse(min)?, max: ScoreBound::parse(max)? })
    }

    pub fn contains(&self, score: f64) -> bool {
        !self.is_below(score) && self.is_within_max(score)
    }

    /// Whether `score` lies before the range.
    pub(crate) fn is_below(&self, score: f64) -> bool {
        if self.min.exclusive { score <= self.min.value } else { score < self.min.value }
    }

    /// Whether `score` does not lie behind the range.
    pub(crate) fn is_within_max(&self, score: f64) -> bool {
        if self.max.exclusive { score < self.max.value } else { score <= self.max.value }
    }
}

/// One end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`: before every member.
    Lowest,
    /// `+`: behind every member.
    Highest,
    Inclusive(&'a [u8]),
    Exclusive(&'a [u8]),
}

/// A range of members, meant for sets whose scores are all equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LexRange<'a> {
    pub min: LexBound<'a>,
    pub max: LexBound<'a>,
}

impl<'a> LexBound<'a> {
    /// Reads `-`, `+`, `[member`, `(member`; `None` for anything else.
    pub fn parse(text: &'a [u8]) -> Option<LexBound<'a>> {
        match text {
            b"-" => Some(LexBound::Lowest),
            b"+" => Some(LexBound::Highest),
            [b'[', member @ ..] => Some(LexBound::Inclusive(member)),
            [b'(', member @ ..] => Some(LexBound::Exclusive(member)),
            _ => None,
        }
    }
}

impl<'a> LexRange<'a> {
    pub fn parse(min: &'a [u8], max: &'a [u8]) -> Option<LexRange<'a>> {
        Some(LexRange { min: LexBound::parse(min)?, max: LexBound::parse(max)? })
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        !self.is_below(member) && self.is_within_max(member)
    }

    /// Whether `member` lies before the range.
    pub(crate) fn is_below(&self, member: &[u8]) -> bool {
        match self.min {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Inclusive(min) => member < min,
            LexBound::Exclusive(min) => member <= min,
        }
    }

    /// Whether `member` does not lie behind the range.
    pub(crate) fn is_within_max(&self, member: &[u8]) -> bool {
        match self.max {
            LexBound::Lowest => false,
            LexBound::Highest => true,
            LexBound::Inclusive(max) => member <= max,
            LexBound::Exclusive(max) => member < max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_bounds() {
        let exclusive = |value| Some(ScoreBound { value, exclusive: true });
        assert_eq!(ScoreBound::parse(b"1.5"), Some(ScoreBound::inclusive(1.5)));
        assert_eq!(ScoreBound::parse(b"(1.5"), exclusive(1.5));
        assert_eq!(ScoreBound::parse(b"(-inf"), exclusive(f64::NEG_INFINITY));
        assert_eq!(ScoreBound::parse(b"+inf"), Some(ScoreBound::inclusive(f64::INFINITY)));
        assert_eq!(ScoreBound::parse(b"nan"), None);
        assert_eq!(ScoreBound::parse(b"[1"), None);
        let range = ScoreRange::parse(b"(1", b"2").unwrap();
        assert!(!range.contains(1.0) && range.contains(1.5) && range.contains(2.0));
        assert!(!range.contains(2.5));
    }

    #[test]
    fn lex_bounds() {
        assert_eq!(LexBound::parse(b"-"), Some(LexBound::Lowest));
        assert_eq!(LexBound::parse(b"[a"), Some(LexBound::Inclusive(b"a")));
        assert_eq!(LexBound::parse(b"("), Some(LexBound::Exclusive(b"")));
        assert_eq!(LexBound::parse(b"a"), None);
        assert_eq!(LexBound::parse(b"+a"), None);
        assert_eq!(LexBound::parse(b""), None);
        let range = LexRange::parse(b"(a", b"[c").unwrap();
        assert!(!range.contains(b"a") && range.contains(b"aa") && range.contains(b"c"));
        assert!(!range.contains(b"ca"));
    }
}

//! Where a command's keys stand among its arguments: Redis's key specifications.
//!
//! Source: "Command key specifications" in the Redis documentation.

use std::ops::Range;

use smallvec::SmallVec;

use crate::call::is;
use crate::row::{Row, flag};

/// Key spec flags, a bit set.
pub mod key_flag {
    pub const RO: u16 = 1 << 0;
    pub const RW: u16 = 1 << 1;
    pub const OW: u16 = 1 << 2;
    pub const RM: u16 = 1 << 3;
    pub const ACCESS: u16 = 1 << 4;
    pub const UPDATE: u16 = 1 << 5;
    pub const INSERT: u16 = 1 << 6;
    pub const DELETE: u16 = 1 << 7;
    pub const NOT_KEY: u16 = 1 << 8;
    pub const INCOMPLETE: u16 = 1 << 9;
    pub const VARIABLE_FLAGS: u16 = 1 << 10;

    /// Flags with the names COMMAND answers, in its order.
    pub const NAMES: &[(u16, &str)] = &[
        (RO, "RO"),
        (RW, "RW"),
        (OW, "OW"),
        (RM, "RM"),
        (ACCESS, "access"),
        (UPDATE, "update"),
        (INSERT, "insert"),
        (DELETE, "delete"),
        (NOT_KEY, "not_key"),
        (INCOMPLETE, "incomplete"),
        (VARIABLE_FLAGS, "variable_flags"),
    ];
}

/// Where to begin to look for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Index(i16),
    /// After this word, looked for from this argument on (from the end when negative).
    Keyword(&'static str, i16),
    Unknown,
}

/// How to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// `last` is relative to the beginning, or to the end of all arguments when negative;
    /// `limit` divides what is left when `last` is -1.
    Range {
        last: i16,
        step: i16,
        limit: i16,
    },
    /// The argument at `at` says how many keys follow from `first` on.
    KeyNum {
        at: i16,
        first: i16,
        step: i16,
    },
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    pub begin: Begin,
    pub find: Find,
    pub flags: u16,
    pub notes: &'static str,
}

impl KeySpec {
    /// The argument at `index` alone.
    pub const fn at(index: i16, flags: u16) -> KeySpec {
        KeySpec::range(index, 0, 1, flags)
    }

    /// The first argument alone: 141 of 219 specs in Valkey.
    pub const fn first(flags: u16) -> KeySpec {
        KeySpec::at(1, flags)
    }

    /// From `begin` to `last` (relative, or from the end when negative) in steps.
    pub const fn range(begin: i16, last: i16, step: i16, flags: u16) -> KeySpec {
        let find = Find::Range { last, step, limit: 0 };
        KeySpec { begin: Begin::Index(begin), find, flags, notes: "" }
    }

    /// From the first argument to the last.
    pub const fn all(flags: u16) -> KeySpec {
        KeySpec::range(1, -1, 1, flags)
    }

    /// The number of keys at `at`, the keys behind it.
    pub const fn counted(at: i16, flags: u16) -> KeySpec {
        let find = Find::KeyNum { at: 0, first: 1, step: 1 };
        KeySpec { begin: Begin::Index(at), find, flags, notes: "" }
    }

    pub const fn notes(mut self, notes: &'static str) -> KeySpec {
        self.notes = notes;
        self
    }

    /// Positions of the keys. `None` when the arguments do not fit the spec.
    fn positions(&self, args: &[&[u8]], out: &mut KeyPositions) -> Option<()> {
        let argc = args.len() as i64;
        let begin = match self.begin {
            Begin::Index(index) => i64::from(index),
            Begin::Keyword(word, from) => {
                let is_word = |i: &usize| args[*i].eq_ignore_ascii_case(word.as_bytes());
                let found = if from >= 0 {
                    (from as usize..args.len()).find(is_word)
                } else {
                    (1..(argc + i64::from(from) + 1).max(1) as usize).rev().find(is_word)
                };
                // The word is optional, so there are no keys without it.
                let Some(found) = found else { return Some(()) };
                found as i64 + 1
            }
            Begin::Unknown => return Some(()),
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => {
                let last = i64::from(last);
                let last = if last >= 0 {
                    begin + last
                } else if limit <= 1 {
                    argc + last
                } else {
                    begin + (argc - begin) / i64::from(limit) + last
                };
                (begin, last, i64::from(step))
            }
            Find::KeyNum { at, first, step } => {
                let count = args.get((begin + i64::from(at)) as usize)?;
                let count = data::number::parse_i64(count)?;
                let first = begin + i64::from(first);
                if count < 0 || count > argc {
                    return None;
                }
                (first, first + (count - 1) * i64::from(step), i64::from(step))
            }
            Find::Unknown => return Some(()),
        };
        if last >= argc || first < 0 {
            return None;
        }
        let (first, end) = (first as usize, (last + 1).max(first) as usize);
        match step {
            1 => out.extend(first..end),
            _ => out.extend((first..end).step_by(step as usize)),
        }
        Some(())
    }
}

/// Keys that no key spec can tell: those of SORT and MIGRATE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoreKeys {
    /// The keys are these arguments, from the first up to the second, and no others: the specs do not
    /// hold. Their flags are those of the first spec.
    pub only: Option<(usize, usize)>,
    /// The argument that names one more, with what is done to it.
    pub named: Option<(usize, u16)>,
    /// It looks at keys that are not among its arguments.
    pub reaches_others: bool,
    /// The option for which a user must be allowed to read every key.
    pub by: Option<usize>,
}

/// Finds them among arguments that may be wrong.
pub type FindMore = fn(&[&[u8]]) -> MoreKeys;

/// Argument positions of keys.
pub type KeyPositions = SmallVec<[usize; 4]>;

/// The arguments do not fit the command's key specs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKeys;

impl Row {
    /// Where the keys are of a command that counts them and has no others, as EVALSHA does. `None`
    /// for every other command, and for arguments that do not fit.
    #[inline]
    pub fn counted_keys(&self, args: &[&[u8]]) -> Option<Range<usize>> {
        let [KeySpec { begin: Begin::Index(at), find, flags, .. }] = self.keys else { return None };
        let is_only = flags & key_flag::NOT_KEY == 0 && self.find_more.is_none();
        if !is_only || *find != (Find::KeyNum { at: 0, first: 1, step: 1 }) {
            return None;
        }
        let at = *at as usize;
        let count = match *args.get(at)? {
            [digit @ b'0'..=b'9'] => usize::from(digit - b'0'),
            count => usize::try_from(data::number::parse_i64(count)?).ok()?,
        };
        let keys = at + 1..(at + 1).checked_add(count)?;
        (keys.end <= args.len()).then_some(keys)
    }

    /// Positions of all keys among `args`, in the order of the specs.
    pub fn key_positions(&self, args: &[&[u8]]) -> Result<KeyPositions, InvalidKeys> {
        let mut out = KeyPositions::new();
        let more = self.more_keys(args);
        if let Some((from, end)) = more.only {
            out.extend(from..end);
            return Ok(out);
        }
        for spec in self.keys {
            if spec.flags & key_flag::NOT_KEY != 0 {
                continue;
            }
            spec.positions(args, &mut out).ok_or(InvalidKeys)?;
        }
        out.extend(more.named.map(|(at, _)| at));
        Ok(out)
    }

    /// Positions of all keys among `args`, with the key flags that hold for these arguments.
    pub fn keys_with_flags(&self, args: &[&[u8]]) -> Result<Vec<(usize, u16)>, InvalidKeys> {
        let more = self.more_keys(args);
        if let (Some((from, end)), Some(spec)) = (more.only, self.keys.first()) {
            return Ok((from..end).map(|at| (at, spec.flags)).collect());
        }
        let mut keys = Vec::new();
        for spec in self.keys.iter().filter(|spec| spec.flags & key_flag::NOT_KEY == 0) {
            let mut out = KeyPositions::new();
            spec.positions(args, &mut out).ok_or(InvalidKeys)?;
            let flags = match spec.flags & key_flag::VARIABLE_FLAGS {
                0 => spec.flags,
                _ => self.actual_flags(args, spec.flags & !key_flag::VARIABLE_FLAGS),
            };
            keys.extend(out.into_iter().map(|at| (at, flags)));
        }
        keys.extend(more.named);
        Ok(keys)
    }

    /// What the specs do not tell.
    pub fn more_keys(&self, args: &[&[u8]]) -> MoreKeys {
        self.find_more.map(|find| find(args)).unwrap_or_default()
    }

    /// Positions of the keys whose value is changed where it is, as far as the row tells: not of those
    /// that are only read, replaced or removed.
    pub fn keys_changed(&self, args: &[&[u8]]) -> KeyPositions {
        if !self.has(flag::WRITE) && !self.has(flag::SCRIPT) {
            return KeyPositions::new();
        }
        // Arguments that do not tell their keys are refused in a moment.
        let keys = self.keys_with_flags(args).unwrap_or_default();
        // XREADGROUP says of its keys that it only reads them, and SORT means it.
        let only_reads = keys.iter().all(|(_, flags)| flags & key_flag::RO != 0);
        let is_odd = only_reads && self.has(flag::WRITE) && self.find_more.is_none();
        let mask = if is_odd { key_flag::RO } else { key_flag::RW };
        let changed = keys.into_iter().filter(|(_, flags)| flags & mask != 0);
        changed.map(|(at, _)| at).collect()
    }

    /// What a command does to its key when that depends on its options: SET without GET does not
    /// look at the old value, and BITFIELD with nothing but GET leaves it.
    fn actual_flags(&self, args: &[&[u8]], flags: u16) -> u16 {
        match self.name {
            "set" => {
                let reads = args.iter().skip(3).any(|arg| is(arg, "GET"));
                if reads { flags } else { key_flag::OW | key_flag::UPDATE }
            }
            "bitfield" => {
                let operations = args.get(2..).unwrap_or_default();
                let only_gets = operations.chunks(3).all(|words| is(words[0], "GET"));
                if only_gets { key_flag::RO | key_flag::ACCESS } else { flags }
            }
            _ => flags,
        }
    }

    /// First, last and step as COMMAND's old-style answer gives them.
    pub fn legacy_range(&self) -> (i64, i64, i64) {
        let Some(first) = self.keys.first() else { return (0, 0, 0) };
        let Begin::Index(begin) = first.begin else { return (0, 0, 0) };
        let Find::Range { last, step, .. } = first.find else { return (0, 0, 0) };
        let begin = i64::from(begin);
        let mut last = i64::from(last);
        if last >= 0 {
            last += begin;
        }
        // Adjacent single-key specs are one range to old clients.
        for spec in &self.keys[1..] {
            match (spec.begin, spec.find) {
                (Begin::Index(at), Find::Range { last: next, step: 1, .. })
                    if i64::from(at) == last + 1 && step == 1 =>
                {
                    last = if next >= 0 { i64::from(at + next) } else { i64::from(next) };
                }
                _ => break,
            }
        }
        (begin, last, i64::from(step))
    }
}

#[cfg(test)]
mod tests {
    use super::key_flag::*;
    use super::*;

    fn positions(spec: KeySpec, args: &[&str]) -> Option<Vec<usize>> {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let mut out = KeyPositions::new();
        spec.positions(&args, &mut out)?;
        Some(out.to_vec())
    }

    #[test]
    fn ranges_steps_counts_and_keywords() {
        assert_eq!(positions(KeySpec::first(RO), &["get", "a"]), Some(vec![1]));
        assert_eq!(positions(KeySpec::all(RO), &["del", "a", "b"]), Some(vec![1, 2]));
        let pairs = KeySpec::range(1, -1, 2, OW);
        assert_eq!(positions(pairs, &["mset", "a", "1", "b", "2"]), Some(vec![1, 3]));
        let counted = KeySpec::counted(2, RO);
        assert_eq!(positions(counted, &["eval", "s", "2", "a", "b", "x"]), Some(vec![3, 4]));
        assert_eq!(positions(counted, &["eval", "s", "9", "a"]), None);
        assert_eq!(positions(counted, &["eval", "s", "0"]), Some(vec![]));
        let keyword = KeySpec {
            begin: Begin::Keyword("STREAMS", 1),
            find: Find::Range { last: -1, step: 1, limit: 2 },
            flags: RO,
            notes: "",
        };
        assert_eq!(
            positions(keyword, &["xread", "count", "1", "streams", "a", "b", "0", "0"]),
            Some(vec![4, 5])
        );
    }
}

//! LCS: the longest common subsequence of two strings.
//!
//! The classical table of prefix lengths, filled forwards and walked backwards. Its size is
//! bounded by proto-max-bulk-len, as in Redis.

use engine::{Entry, Str, Txn, ValueRef};

use crate::call::{Call, Handler, integer, is, unless_stopped};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::READONLY;
use crate::row::{Command, Group};
use crate::string::Text;

pub const TABLE: &[Command<Handler>] = &[Command::new(Group::String, "lcs", -3, lcs)
    .flags(READONLY)
    .keys(&[KeySpec::range(1, 1, 1, k::RO | k::ACCESS)])
    .since("7.0.0")
    .complexity("O(N*M) with N and M the lengths of the strings")
    .summary("Finds the longest common subsequence of the strings stored at two keys.")
    .syntax("key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]")];

#[derive(Default)]
struct Options {
    len: bool,
    ranges: bool,
    match_len_min: i64,
    with_match_len: bool,
}

fn options(args: &[&[u8]]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = args;
    while let [word, behind @ ..] = rest {
        rest = behind;
        if is(word, "IDX") {
            options.ranges = true;
        } else if is(word, "LEN") {
            options.len = true;
        } else if is(word, "WITHMATCHLEN") {
            options.with_match_len = true;
        } else if is(word, "MINMATCHLEN")
            && let [len, behind @ ..] = rest
        {
            options.match_len_min = integer(len)?;
            rest = behind;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    if options.len && options.ranges {
        return Err(Error::of("ERR If you want both the length and indexes, please just use IDX."));
    }
    Ok(options)
}

fn lcs(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (first, second) = (operand(call.txn, args[1]), operand(call.txn, args[2]));
    let (Some(a), Some(b)) = (first, second) else {
        return Err(Error::of("ERR The specified keys must contain string values"));
    };
    let options = options(&args[3..])?;
    let Some(table) = Table::of(&a, &b, call.bulk_bytes_max, || !call.txn.should_stop()) else {
        return Err(Error::of(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    };
    if options.len {
        call.reply.integer(i64::from(table.len()));
        return Ok(());
    }
    unless_stopped(call.txn)?;
    let matches = table.matches(&a, &b);
    if !options.ranges {
        let mut common = Vec::with_capacity(table.len() as usize);
        for run in matches.iter().rev() {
            common.extend_from_slice(&a[run.in_a..run.in_a + run.len]);
        }
        call.reply.bulk(&common);
        return Ok(());
    }
    let shown = |run: &&Match| run.len as i64 >= options.match_len_min;
    call.reply.map(2);
    call.reply.bulk(b"matches");
    call.reply.array(matches.iter().filter(shown).count());
    for run in matches.iter().filter(shown) {
        call.reply.array(if options.with_match_len { 3 } else { 2 });
        for start in [run.in_a, run.in_b] {
            call.reply.array(2);
            call.reply.integer(start as i64);
            call.reply.integer((start + run.len - 1) as i64);
        }
        if options.with_match_len {
            call.reply.integer(run.len as i64);
        }
    }
    call.reply.bulk(b"len");
    call.reply.integer(i64::from(table.len()));
    Ok(())
}

/// `None` when the key holds another type.
fn operand<'t>(txn: &'t Txn<'_>, key: &[u8]) -> Option<Text<'t>> {
    match txn.read(key).map(Entry::get) {
        None => Some(Text::from(Str::Bytes(b""))),
        Some(ValueRef::Str(value)) => Some(Text::from(value)),
        Some(_) => None,
    }
}

/// A run of bytes that both strings have.
#[derive(Debug, PartialEq, Eq)]
struct Match {
    in_a: usize,
    in_b: usize,
    len: usize,
}

/// At row `i` and column `j` the length of the LCS of the first `i` bytes of `a` and the first
/// `j` of `b`.
struct Table {
    cells: Vec<u32>,
    columns: usize,
}

impl Table {
    /// Filled row by row as long as `goes_on` holds. `None` when the table would take more than `bytes_max` bytes.
    fn of(a: &[u8], b: &[u8], bytes_max: usize, goes_on: impl Fn() -> bool) -> Option<Table> {
        let columns = b.len() + 1;
        let cells = (a.len() + 1).checked_mul(columns)?;
        if cells.checked_mul(size_of::<u32>())? > bytes_max {
            return None;
        }
        let mut table = Table { cells: vec![0; cells], columns };
        for (i, byte_a) in a.iter().enumerate() {
            if !goes_on() {
                break;
            }
            let (above, row) = table.cells[i * columns..].split_at_mut(columns);
            for (j, byte_b) in b.iter().enumerate() {
                row[j + 1] = if byte_a == byte_b { above[j] + 1 } else { above[j + 1].max(row[j]) };
            }
        }
        Some(table)
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.columns + j]
    }

    fn len(&self) -> u32 {
        self.cells.last().copied().unwrap_or(0)
    }

    /// The runs of one LCS, the last one first. Where several are as long, the one that Redis
    /// finds: ties go back in `b`.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        let mut in_run = false;
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                i -= 1;
                j -= 1;
                match matches.last_mut() {
                    Some(run) if in_run => {
                        run.in_a = i;
                        run.in_b = j;
                        run.len += 1;
                    }
                    _ => matches.push(Match { in_a: i, in_b: j, len: 1 }),
                }
                in_run = true;
            } else {
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
                in_run = false;
            }
        }
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::{Match, Table};
    use crate::testing::Keyspace;

    #[test]
    fn runs_from_the_back() {
        let table = Table::of(b"ohmytext", b"mynewtext", 1 << 20, || true).unwrap();
        assert_eq!(table.len(), 6);
        assert_eq!(
            table.matches(b"ohmytext", b"mynewtext"),
            [Match { in_a: 4, in_b: 5, len: 4 }, Match { in_a: 2, in_b: 0, len: 2 }]
        );
        assert!(Table::of(&[b'a'; 1000], &[b'b'; 1000], 1 << 20, || true).is_none());
        assert_eq!(Table::of(b"", b"abc", 1 << 20, || true).unwrap().len(), 0);
    }

    #[test]
    fn replies() {
        let mut keys = Keyspace::new();
        keys.check("MSET a ohmytext b mynewtext", "+OK");
        keys.check("LCS a b", "$6 mytext");
        keys.check("LCS a b LEN", ":6");
        keys.check(
            "LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
            "*4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6",
        );
        keys.check("LCS a none", "$0");
        keys.check(
            "LCS a b LEN IDX",
            "-ERR If you want both the length and indexes, please just use IDX.",
        );
        keys.check("LCS a b MINMATCHLEN", "-ERR syntax error");
    }
}

//! What XTRIM takes away: whole blocks from the front, then single entries if it is to be exact.

use crate::stream::{Id, Stream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// So many entries stay at most.
    MaxLen(u64),
    /// Entries below this one go.
    MinId(Id),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    pub strategy: Strategy,
    /// Only whole blocks go.
    pub approximate: bool,
    /// Entries that go at most, if any; only whole blocks then.
    pub limit: Option<u64>,
}

/// The next that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of the first block, so many entries.
    Block(u64),
    /// Some entries of the first block, as `Trim::takes` says.
    Entries,
    Nothing,
}

impl Trim {
    /// What is to go next, when so many have gone already.
    pub fn step(&self, stream: &Stream, gone: u64) -> Step {
        let Some((base, block)) = stream.first_block() else { return Step::Nothing };
        let live = block.live() as u64;
        if self.limit.is_some_and(|limit| gone + live > limit) {
            return Step::Nothing;
        }
        let (any, all) = match self.strategy {
            Strategy::MaxLen(len) => (stream.len() as u64 > len, stream.len() as u64 - live >= len),
            Strategy::MinId(id) => {
                let last = || block.iter(base).next_back().map(|entry| entry.id);
                (base < id, base < id && last().is_some_and(|last| last < id))
            }
        };
        match (any, all) {
            (false, _) => Step::Nothing,
            (_, true) => Step::Block(live),
            (true, false) if self.approximate => Step::Nothing,
            _ => Step::Entries,
        }
    }

    /// Whether an entry goes that is the first of so many.
    pub fn takes(&self, id: Id, len: u64) -> bool {
        match self.strategy {
            Strategy::MaxLen(max) => len > max,
            Strategy::MinId(min) => id < min,
        }
    }
}

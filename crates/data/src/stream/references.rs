//! What becomes of the references that consumer groups have to entries which are to go, as Redis 8.2
//! has it.

use crate::stream::{Id, Strategy, Stream, Trim};

/// Whether entries that groups still refer to go, and what becomes of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum References {
    /// They go, and stay pending.
    #[default]
    Keep,
    /// They go, and are pending no more.
    Drop,
    /// They stay: a group has not read them yet, or they are pending.
    Respect,
}

/// What a trim that looks at references takes away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The first entries of the stream.
    pub first: Vec<Id>,
    /// Those behind one that stays.
    pub others: Vec<Id>,
}

impl Trim {
    /// What goes, entry by entry, so that it does not matter whether whole blocks do.
    pub fn taken(&self, stream: &Stream, references: References) -> Taken {
        let mut taken = Taken::default();
        let mut len = stream.len() as u64;
        let mut is_first = true;
        let mut base = None;
        while let Some((at, block)) = stream.block_behind(base) {
            base = Some(at);
            let live = block.live() as u64;
            let gone = stream.len() as u64 - len;
            if self.limit.is_some_and(|limit| gone + live > limit) {
                break;
            }
            // The rest of a stream is looked at as long as whole blocks could go.
            let goes_on = match self.strategy {
                Strategy::MaxLen(max) => len.saturating_sub(live) >= max,
                Strategy::MinId(id) => block.iter(at).next_back().is_some_and(|last| last.id < id),
            };
            for entry in block.iter(at) {
                if !self.takes(entry.id, len) {
                    return taken;
                }
                if references == References::Respect && stream.is_referenced(entry.id) {
                    is_first = false;
                    continue;
                }
                len -= 1;
                match is_first {
                    true => taken.first.push(entry.id),
                    false => taken.others.push(entry.id),
                }
            }
            if !goes_on {
                break;
            }
        }
        taken
    }
}

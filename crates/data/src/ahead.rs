//! Asking the processor for the memory of a collection ahead of its use, one dependent load at a
//! time, so that the loads of several commands overlap.
//!
//! Only hints: nothing is read but what an earlier part has asked for, and nothing changes. The
//! engine calls it for the commands of a batch.

use crate::bucket::prefetch;
use crate::table::Table;

/// The parts of the way from a collection's handle to one of its members, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the handle points to: all of a small collection, or a table's own fields.
    Body,
    /// The bucket of the member's hash.
    Bucket,
    /// The values in that bucket whose tag agrees.
    Values,
    /// The values in the next bucket of the chain.
    ChainedValues,
}

impl Part {
    /// Asks for this part of a collection in a table; false when there is no further part.
    #[inline]
    pub(crate) fn of_table<B, T>(
        self,
        body: &B,
        table: impl FnOnce(&B) -> &Table<T>,
        hash: u64,
    ) -> bool {
        match self {
            Part::Body => {
                let start = std::ptr::from_ref(body).cast::<u8>();
                prefetch(start);
                prefetch(start.wrapping_add(size_of::<B>() - 1));
                true
            }
            Part::Bucket => {
                table(body).prefetch(hash);
                true
            }
            Part::Values => table(body).prefetch_values(hash),
            Part::ChainedValues => {
                table(body).prefetch_chained_values(hash);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hash, Limits, Set, Zset, hash_bytes};

    /// The parts a collection has on the way to a member.
    fn parts(ask: impl Fn(Part) -> bool) -> usize {
        let all = [Part::Body, Part::Bucket, Part::Values, Part::ChainedValues];
        all.into_iter().take_while(|part| ask(*part)).count()
    }

    #[test]
    fn a_small_collection_has_one_part_and_a_table_more() {
        let limits = Limits::default();
        let (mut hash, mut set, mut zset) = (Hash::new(), Set::new(), Zset::new());
        for round in 0..5000 {
            let name = format!("member:{round}");
            let name = name.as_bytes();
            hash.set(name, b"value", &limits);
            set.add(name, &limits);
            zset.insert(name, f64::from(round), &limits);
            let at = hash_bytes(name);
            let found =
                [parts(|part| hash.prefetch(part, at)), parts(|part| set.prefetch(part, at))];
            let found = [found[0], found[1], parts(|part| zset.prefetch(part, at))];
            let compact = [
                hash.encoding().name() == "listpack",
                set.encoding().name() == "listpack",
                zset.encoding().name() == "listpack",
            ];
            for (found, compact) in found.into_iter().zip(compact) {
                // A member in the second bucket of its chain makes it three.
                assert!(if compact { found == 0 } else { found == 2 || found == 3 }, "{found}");
            }
        }
    }

    #[test]
    fn what_is_likely_is_what_is_found() {
        let mut table = Table::new();
        let hash_of = |value: &u64| hash_bytes(&value.to_le_bytes());
        for value in 0..3000u64 {
            table.insert_unique(hash_of(&value), value, hash_of);
        }
        let right = (0..3000).filter(|value| table.likely(hash_of(value)) == Some(value)).count();
        // The others are in overflow buckets or in the old array, or share a tag.
        assert!(right > 1500, "{right}");
        assert!(Table::<u64>::new().likely(5).is_none());
    }
}

//! Property tests: each collection does what a collection of `std` does, under limits so small
//! that every encoding and every conversion comes up. A failing case is printed and kept by
//! proptest; the random sources handed to the collections are seeded from the case.

mod common {
    use data::Limits;
    use proptest::prelude::*;

    /// Byte strings from a small alphabet, so that operations meet the same ones again, with
    /// integers, and some long ones.
    pub fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => (0u16..60).prop_map(|i| format!("e{i}").into_bytes()),
            4 => (-40i64..40).prop_map(|i| i.to_string().into_bytes()),
            1 => any::<i64>().prop_map(|i| i.to_string().into_bytes()),
            1 => prop::collection::vec(any::<u8>(), 0..12),
            1 => (0usize..700, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        ]
    }

    pub fn limits() -> impl Strategy<Value = Limits> {
        let default = Limits::default();
        prop_oneof![
            1 => Just(default),
            4 => (prop_oneof![-5i32..0, 0i32..8], 0usize..12, 0usize..30).prop_map(
                move |(list, entries, value)| Limits {
                    list_max_listpack_size: list,
                    hash_max_listpack_entries: entries,
                    hash_max_listpack_value: value,
                    set_max_intset_entries: entries * 2,
                    set_max_listpack_entries: entries,
                    set_max_listpack_value: value,
                    zset_max_listpack_entries: entries,
                    zset_max_listpack_value: value,
                    ..default
                }
            ),
        ]
    }

    /// A replayable source of randomness (SplitMix64).
    pub fn source(mut seed: u64) -> impl FnMut() -> u64 {
        move || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }
}

mod hash;
mod json;
mod list;
mod listpack;
mod set;
mod stream;
mod table;
mod zset;

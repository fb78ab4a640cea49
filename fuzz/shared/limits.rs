//! Limits of the compact encodings.

use data::Limits;

/// Those of Redis, or such that few inputs are too short to be past them.
pub fn limits(are_small: bool) -> Limits {
    match are_small {
        false => Limits::default(),
        true => Limits {
            list_max_listpack_size: 3,
            hash_max_listpack_entries: 3,
            set_max_listpack_entries: 3,
            set_max_intset_entries: 3,
            zset_max_listpack_entries: 3,
            ..Limits::default()
        },
    }
}

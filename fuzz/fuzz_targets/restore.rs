//! Any bytes under a true checksum are refused or restored, within memory that is in proportion to
//! them; what was restored is dumped and restored again to the same value.
//!
//! The first byte chooses the limits of the compact encodings, the second is the type.
#![no_main]

#[path = "../shared/elements.rs"]
mod elements;
#[path = "../shared/limits.rs"]
mod limits;

use elements::elements;
use engine::Entry;
use libfuzzer_sys::fuzz_target;
use limits::limits;
use persist::rdb::{Version, checksum, dump, restore};

/// A compressed list of small integers has the densest elements there are.
const MEMORY_FACTOR: usize = 400;
const MEMORY_BYTES_MIN: usize = 128 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let few = limits(choice % 2 != 0);
    let mut payload = body.to_vec();
    payload.extend(11_u16.to_le_bytes());
    payload.extend(checksum(&payload).to_le_bytes());
    let Ok(value) = restore(&payload, &few) else { return };
    let entry = Entry::value(b"", value, None);
    let bytes = entry.memory_bytes();
    assert!(
        bytes <= MEMORY_FACTOR * body.len() + MEMORY_BYTES_MIN,
        "{bytes} bytes from {}",
        body.len()
    );
    for version in [Version::V10, Version::V11] {
        let again = restore(&dump(entry.get(), version), &few).expect("what is dumped is restored");
        let again = Entry::value(b"", again, None);
        assert!(elements(again.get()) == elements(entry.get()));
    }
});

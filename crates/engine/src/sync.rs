//! The primitives that threads of the engine meet at, in one place.
//!
//! `tests/model.rs` compiles the same sources against a `sync` of its own, whose primitives a
//! model checker schedules. So nothing else in the engine may name a lock or an atomic that
//! decides who runs; counters that nobody waits for are the exception.

pub use std::sync::atomic::{AtomicBool, AtomicU8};

pub use parking_lot::RawMutex;

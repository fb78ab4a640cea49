//! The keyspace: shards and entries, lock plans, transactions and the one door for changes,
//! expiry, eviction, waiters and watches.
//!
//! It must not know the network, Lua or any command. The server decides which locks a command
//! needs ([`Plan`]), begins a [`Txn`], lets the handler work on it and commits; time comes in as
//! an argument. Start reading at `txn.rs`, then `door/mod.rs`.

pub mod access;
mod ahead;
mod change;
mod door;
mod engine;
mod entry;
mod evict;
mod expire;
mod gate;
mod load;
mod notice;
mod settings;
mod shard;
mod sizes;
mod snapshot;
mod sync;
mod txn;
mod undo;
mod wait;
mod worker;

pub use ahead::{Inside, PREFETCH_KEYS_MAX, Target};
pub use change::{Change, Changes, Journal, Record, Records};
pub use door::{Expiry, Mut, NotIncremented, NotObserved};
pub use engine::{Engine, Garbage, KeyHasher};
pub use entry::{Collection, Entry, Str, Type, Value, ValueRef};
pub use evict::Pool;
pub use gate::Gates;
pub use load::Arrival;
pub use notice::{Cause, Class, Classes, Event, Herald, Notice, Notices};
pub use settings::{Policy, Settings};
pub use shard::SHARDS;
pub use sizes::DbSize;
pub use snapshot::{Image, Saved, Snapshot, Step, is_long};
pub use txn::{Effects, Kind, Plan, Txn, WrongType};
pub use undo::Trial;
pub use wait::{Claim, KeyName, Waiter, Watch};
pub use worker::{Counter, Stats, StoppedRuns, Worker};

//! The command table: one row per command, one file per family with its rows first and its
//! handlers below.
//!
//! Handlers see the keyspace through [`Call`]; they never lock and know neither sockets nor
//! files. To add a command, add its row and handler to the family's file and a talk file under
//! `tests/talk`; everything else reads the row.

pub mod bitfield;
pub mod bitmap;
pub mod call;
pub mod dump;
pub mod error;
pub mod expire;
pub mod generic;
pub mod geo;
mod geo_search;
pub mod hash;
mod hash_expire;
mod hash_scan;
pub mod help;
pub mod hyperloglog;
pub mod json;
mod json_array;
mod json_value;
pub mod keys;
pub mod keyspace;
pub mod list;
mod list_blocking;
mod list_move;
pub mod object;
pub mod propagate;
pub mod row;
pub mod set;
mod set_ops;
mod set_scan;
pub mod sort;
pub mod stream;
mod stream_claim;
mod stream_group;
mod stream_info;
mod stream_read;
pub mod string;
pub mod string_conditional;
pub mod string_counter;
pub mod string_lcs;
pub mod string_range;
pub mod syntax;
#[cfg(test)]
mod testing;
pub mod zset;
mod zset_ops;
mod zset_pop;
mod zset_range;

pub use call::{Blocking, Call, Handler, OnTimeout, Quick, Wait, expire_fields};
pub use error::{Error, Result};
pub use keys::{InvalidKeys, KeyPositions, KeySpec, MoreKeys};
pub use row::{Command, Group, Row, Scope, flag};

/// Every keyspace command, family by family.
pub const FAMILIES: &[&[Command<Handler>]] = &[
    string::TABLE,
    string_conditional::TABLE,
    string_counter::TABLE,
    string_range::TABLE,
    string_lcs::TABLE,
    bitmap::TABLE,
    bitfield::TABLE,
    hyperloglog::TABLE,
    generic::TABLE,
    dump::TABLE,
    expire::TABLE,
    keyspace::TABLE,
    sort::TABLE,
    object::TABLE,
    set::TABLE,
    set_ops::TABLE,
    zset::TABLE,
    zset_range::TABLE,
    zset_ops::TABLE,
    zset_pop::TABLE,
    geo::TABLE,
    geo_search::TABLE,
    list::TABLE,
    list_move::TABLE,
    list_blocking::TABLE,
    hash::TABLE,
    hash_scan::TABLE,
    hash_expire::TABLE,
    stream::TABLE,
    stream_read::TABLE,
    stream_group::TABLE,
    stream_claim::TABLE,
    stream_info::TABLE,
    json::TABLE,
    json_array::TABLE,
    json_value::TABLE,
];

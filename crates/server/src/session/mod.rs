//! Session families: commands about the connection, the server and scripts rather than a key.
//!
//! One file per family, its rows first and its handlers below, as in the `command` crate.

pub mod acl;
pub mod admin;
pub mod client;
pub mod command_info;
pub mod config;
pub mod connection;
mod debug;
mod dry_run;
pub mod functions;
mod hot_keys;
pub mod info;
mod latency;
mod migrate;
mod modules;
pub mod monitor;
pub mod observe;
pub mod persistence;
pub mod pubsub;
mod script_report;
pub mod scripting;
pub mod tracking;
pub mod transactions;

use command::Command;

use crate::request::SessionHandler;

/// Every session command, family by family.
pub const FAMILIES: &[&[Command<SessionHandler>]] = &[
    acl::TABLE,
    admin::TABLE,
    client::TABLE,
    command_info::TABLE,
    config::TABLE,
    connection::TABLE,
    debug::TABLE,
    functions::TABLE,
    hot_keys::TABLE,
    info::TABLE,
    migrate::TABLE,
    modules::TABLE,
    monitor::TABLE,
    observe::TABLE,
    persistence::TABLE,
    pubsub::TABLE,
    scripting::TABLE,
    transactions::TABLE,
];

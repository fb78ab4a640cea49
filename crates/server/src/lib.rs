//! Workers, connections, config, dispatch.

pub mod config;

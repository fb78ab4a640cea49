//! What outlives the process: Redis's RDB format and append-only files.
//!
//! Everything here turns values of the engine into bytes and back. Bytes come from any
//! [`std::io::Read`] and go to any [`std::io::Write`]; what is the time and where files are is for
//! the caller to know. The crate must not know sockets, commands or the configuration: the server
//! loads and saves with it, DUMP and RESTORE use [`rdb::dump`] and [`rdb::restore`].
//!
//! Input is never trusted: a length in it is a claim, and memory is taken as the bytes arrive, at
//! most [`rdb::EXPANSION_MAX`] times what has been read, beside the encoding of the values
//! themselves. Broken input is an error, never a panic.

#![forbid(unsafe_code)]

pub mod aof;
pub mod rdb;

//! Append-only files, in Redis's multi-part format.
//!
//! A directory holds a base file (a snapshot, as RDB or as commands), incremental files with what
//! came after it, and a manifest that says which of them count. Incremental files hold commands as
//! clients send them. A transaction of more than one command stands between MULTI and EXEC: a
//! *block*, of which after a crash either all counts or nothing. The formats byte by byte:
//! `docs/formats/aof.md`.
//!
//! [`Writer`] makes blocks of commands and [`Reader`] finds them again, over any bytes;
//! [`Log`] is the file that is appended to, [`Manifest`] is the manifest's text; [`Directory`] keeps the files in order through crashes, over
//! a [`Disk`]. Who renders commands, runs them, and decides when to sync is for the caller to know.

mod buffer;
mod directory;
mod disk;
mod log;
mod manifest;
mod reader;
mod writer;

pub use buffer::{Buffer, PIECE_BYTES};
pub use directory::{Directory, Load, OpenError, Rewrite};
pub use disk::{Append, Disk, Folder, Memory};
pub use log::Log;
pub use manifest::{File, Kind, Manifest, ManifestError};
pub use reader::{Block, Error, Next, Reader, Torn};
pub use writer::{Writer, put_block};

//! The configuration: `redis.conf`, the command line, and `CONFIG GET`, `SET` and `REWRITE`.
//!
//! Everything follows from the table in `directives.rs`. [`load`] reads files and arguments when the
//! server starts; [`ConfigStore`] holds the values while it runs, and each worker reads them through
//! its own [`ConfigView`]. What a change entails, such as listening on another port, is done by the
//! caller of [`ConfigStore::set`], which is told the [`Effect`]s.
//!
//! Knows nothing of connections, the keyspace or replies.

mod directives;
mod load;
mod rewrite;
mod special;
mod store;
mod value;

pub use directives::{Config, DIRECTIVES, Directive, Effect, Traits};
pub use load::{LoadError, Loaded, Place, load};
pub use rewrite::RewriteError;
pub use special::*;
pub use store::{ConfigStore, ConfigView, SetError};
pub use value::Text;

/// What the operating system says about an error, without Rust's error number behind it.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

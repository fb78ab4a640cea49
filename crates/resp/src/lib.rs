//! RESP2 and RESP3: bytes to requests, replies to bytes, and replies back to values, sans-IO.
//!
//! Start reading at [`Parser`] (what a connection feeds) and [`Reply`] (what a handler writes to).
//! [`Reader`] and [`decode`] go the other way, for whoever has to look at replies: scripts, tests
//! and the benchmark client.
//!
//! Nothing here knows a command, a socket, a clock or the keyspace. The server's workers call the
//! parser, the handlers of `command` and `server` call the reply writer.
#![forbid(unsafe_code)]

mod answer;
mod decode;
mod double;
mod inline;
mod reply;
mod request;

pub use answer::{Answer, Short, Simple};
pub use decode::{DecodeError, Item, Reader, ReplyScanner, Value, decode, item};
pub use double::DoubleText;
pub use inline::{Unbalanced, split_args};
pub use reply::{Deferred, Protocol, Reply, write_integer};
pub use request::{Limits, Parsed, Parser, ProtocolError, Span, reserve_for, write_request};

//! Tools for people who write scripts: `luar script check`, `luar script types`, `luar script test`.
//!
//! Everything is read from what the server runs with: the compiler says what is valid, a VM what a
//! script can name, and the command table what can be called.
//!
//! Reading order: `check` (one source to findings), `scope` (which name means what), `calls`
//! (`redis.call` against the command table), `types` (definition files for editors), `test` and
//! `lua_test` (test files against a server in this process), `cli`.

mod calls;
mod check;
mod cli;
mod diff;
mod finding;
mod lua_test;
mod names;
mod returns;
mod scope;
mod test;
mod tree;
mod types;
mod usage;

pub use check::Checker;
pub use cli::main;
pub use finding::{Finding, Rule, Severity};
pub use test::{TestPlan, run_tests};
pub use types::{TypeFile, type_files};

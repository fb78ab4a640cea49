//! LuaJIT and everything a script may call.
//!
//! A [`Vm`] belongs to one worker thread; it compiles sources to [`Script`]s, which any VM can
//! run. What a script asks of the server goes through the [`Host`] trait: this crate knows
//! neither the keyspace nor connections. `docs/scripting.md` says what scripts may rely on.
//!
//! Reading order: `vm` (life of a VM and of a run), `bridge` (`redis.call`), `sandbox.lua`
//! (what scripts see), `convert` (RESP to Lua and back), `interrupt` (killing a script).

#![allow(non_snake_case)] // `L` is what every Lua text calls the state.

mod alloc;
mod api;
mod bridge;
mod cjson;
mod cmsgpack;
mod context;
mod convert;
mod internals;
mod interrupt;
mod library;
mod number;
mod order;
mod raise;
mod script;
mod sort;
mod structs;
mod sys;
mod vm;

pub use interrupt::{Interrupter, in_compiled_code};
pub use library::{Function, Library, library_name};
pub use resp::{Answer, Protocol, Short};
pub use script::{Flags, Script, Sha, sha_of};
pub use vm::{Outcome, Vm, VmOptions};

/// Level of a `redis.log` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// What a running script is told when it was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    Continue,
    /// End the script with an error that it cannot catch.
    Kill,
}

/// The server, as a running script sees it. All calls come one at a time on the VM's thread.
///
/// A panic in one of them ends the script and is resumed by [`Vm::run`].
pub trait Host {
    /// The command of that name, in any case. The VM remembers the answer, so a number must mean
    /// the same command for the life of the process.
    fn resolve(&mut self, name: &[u8]) -> Option<u32>;

    /// Runs a command and puts its one reply into `answer`, in place of what is in there.
    /// `args[0]` is the name as the script wrote it.
    fn call(&mut self, command: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer);

    fn log(&mut self, level: LogLevel, message: &[u8]);

    /// `redis.acl_check_cmd`: whether the caller may run it; Err if it is no valid command.
    #[allow(clippy::result_unit_err)] // There is nothing more to say than that it is none.
    fn acl_check(&mut self, args: &[&[u8]]) -> Result<bool, ()>;

    /// Called between two instructions after [`Interrupter::request`].
    fn tick(&mut self) -> Tick;

    /// Why `tick` answered Kill: the error text that the client gets. Asked once the run is over.
    fn kill_reason(&self) -> String {
        String::from_utf8_lossy(interrupt::KILLED_TEXT).into_owned()
    }

    /// `redis.set_repl`: whether the effects of further calls go to the AOF and to replicas.
    fn set_repl(&mut self, aof: bool, replicas: bool) {
        let _ = (aof, replicas);
    }
}

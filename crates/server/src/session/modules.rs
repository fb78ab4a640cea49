//! MODULE: there are none, and none can be loaded. Tools ask nevertheless.

use command::row::flag::{ADMIN, LOADING, NO_ASYNC_LOADING, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result};

use crate::request::{Request, SessionHandler, row};

const GROUP: Group = Group::Server;

pub const TABLE: &[Command<SessionHandler>] = &[Command::container(
    GROUP,
    "module",
    -2,
    &[
        row(GROUP, "help", 2, help)
            .flags(LOADING | STALE)
            .since("5.0.0")
            .summary("Says what MODULE can do."),
        row(GROUP, "list", 2, list)
            .flags(ADMIN | NOSCRIPT)
            .since("4.0.0")
            .complexity("O(N) in the modules")
            .tips(&["nondeterministic_output_order"])
            .summary("Answers which modules are loaded: none."),
        row(GROUP, "load", -3, load)
            .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING)
            .since("4.0.0")
            .summary("Refused: there are no modules.")
            .syntax("path [arg [arg ...]]"),
        row(GROUP, "loadex", -3, load)
            .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING)
            .since("7.0.0")
            .summary("Refused: there are no modules.")
            .syntax(
                "path [CONFIG configs:(name value) [CONFIG configs:(name value) ...]] \
                 [ARGS args [args ...]]",
            ),
        row(GROUP, "unload", 3, unload)
            .flags(ADMIN | NOSCRIPT | NO_ASYNC_LOADING)
            .since("4.0.0")
            .summary("Refused: there are no modules.")
            .syntax("name"),
    ],
)
.since("4.0.0")
.complexity("Depends on subcommand.")
.summary("Holds the commands about modules.")];

fn must_be_allowed(request: &Request<'_, '_>) -> Result {
    let allowed = request.config().enable_module_command;
    request.must_be_allowed(allowed, "MODULE", "enable-module-command")
}

fn list(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.reply.array(0);
    Ok(())
}

fn load(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    must_be_allowed(request)?;
    let path = String::from_utf8_lossy(args[2]);
    crate::log_warning!("Module {path} was not loaded: this server has no modules");
    Err(Error::of("ERR Error loading the extension. Please check the server logs."))
}

fn unload(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    must_be_allowed(request)?;
    Err(Error::of("ERR Error unloading module: no such module with that name"))
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "MODULE",
        &[
            "LIST",
            "    Answers no modules: there are none.",
            "LOAD <path> [<arg> ...]",
            "    Refused.",
            "LOADEX <path> [CONFIG <name> <value> [...]] [ARGS <arg> ...]",
            "    Refused.",
            "UNLOAD <name>",
            "    Refused.",
        ],
    );
    Ok(())
}

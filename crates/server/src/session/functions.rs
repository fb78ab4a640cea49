//! FUNCTION, FCALL, FCALL_RO.

use std::sync::Arc;

use command::call::{integer, is};
use command::keys::{KeySpec, key_flag as k};
use command::row::flag::{
    ALLOW_BUSY, DENYOOM, LOADING, MAY_REPLICATE, MOVABLE_KEYS, NO_MANDATORY_KEYS, NOSCRIPT,
    READONLY, SCRIPT, SKIP_MONITOR, STALE, WRITE,
};
use command::{Command, Error, Group, Result, Scope};
use resp::Reply;

use crate::durability::save;
use crate::request::{Request, SessionHandler, row};
use crate::script::{Killed, Known, Libraries, Loaded, Present, WorkerLoader, restored};
use crate::session::{dry_run, scripting};

const GROUP: Group = Group::Scripting;
const COST: &str = "Depends on the function that is executed.";
const ALL_SHARDS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "fcall", -3, fcall)
        .flags(
            NOSCRIPT
                | SKIP_MONITOR
                | MAY_REPLICATE
                | NO_MANDATORY_KEYS
                | STALE
                | MOVABLE_KEYS
                | SCRIPT,
        )
        .keys(&[KeySpec::counted(2, k::RW | k::ACCESS | k::UPDATE).notes(
            "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE",
        )])
        .since("7.0.0")
        .complexity(COST)
        .summary("Runs a function of a library as one transaction.")
        .syntax("function numkeys [key [key ...]] [arg [arg ...]]"),
    row(GROUP, "fcall_ro", -3, fcall_ro)
        .flags(
            NOSCRIPT | SKIP_MONITOR | NO_MANDATORY_KEYS | STALE | READONLY | MOVABLE_KEYS | SCRIPT,
        )
        .keys(&[KeySpec::counted(2, k::RO | k::ACCESS).notes(
            "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS",
        )])
        .since("7.0.0")
        .complexity(COST)
        .summary("Runs a function of a library that does not write.")
        .syntax("function numkeys [key [key ...]] [arg [arg ...]]"),
    Command::container(
        GROUP,
        "function",
        -2,
        &[
            row(GROUP, "load", -3, load)
                .flags(NOSCRIPT | WRITE | DENYOOM)
                .scope(Scope::Exclusive)
                .since("7.0.0")
                .complexity("O(1) (considering compilation time is redundant)")
                .tips(ALL_SHARDS)
                .summary("Loads a library of functions.")
                .syntax("[REPLACE] function-code"),
            row(GROUP, "delete", 3, delete)
                .flags(NOSCRIPT | WRITE)
                .scope(Scope::Exclusive)
                .since("7.0.0")
                .complexity("O(N) in the functions there are")
                .tips(ALL_SHARDS)
                .summary("Deletes a library and its functions.")
                .syntax("library-name"),
            row(GROUP, "flush", -2, flush)
                .flags(NOSCRIPT | WRITE)
                .scope(Scope::Exclusive)
                .since("7.0.0")
                .complexity("O(N) in the functions deleted")
                .tips(ALL_SHARDS)
                .summary("Deletes all libraries.")
                .syntax("[flush-type:(ASYNC | SYNC)]"),
            row(GROUP, "restore", -3, restore)
                .flags(NOSCRIPT | WRITE | DENYOOM)
                .scope(Scope::Exclusive)
                .since("7.0.0")
                .complexity("O(N) in the functions of the payload")
                .tips(ALL_SHARDS)
                .summary("Loads all libraries of a payload.")
                .syntax("serialized-value [policy:(FLUSH | APPEND | REPLACE)]"),
            row(GROUP, "dump", 2, dump)
                .flags(NOSCRIPT)
                .since("7.0.0")
                .complexity("O(N) in the functions there are")
                .summary("Answers all libraries as one payload."),
            row(GROUP, "list", -2, list)
                .flags(NOSCRIPT)
                .since("7.0.0")
                .complexity("O(N) in the functions there are")
                .tips(&["nondeterministic_output_order"])
                .summary("Lists libraries and their functions.")
                .syntax("[LIBRARYNAME library-name-pattern] [WITHCODE]"),
            row(GROUP, "stats", 2, stats)
                .flags(NOSCRIPT | ALLOW_BUSY)
                .since("7.0.0")
                .complexity("O(N) in the libraries there are")
                .tips(&[
                    "nondeterministic_output",
                    "request_policy:all_shards",
                    "response_policy:special",
                ])
                .summary("Tells which function runs, and how many there are."),
            row(GROUP, "kill", 2, kill)
                .flags(NOSCRIPT | ALLOW_BUSY)
                .since("7.0.0")
                .complexity("O(1)")
                .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
                .summary("Ends the function that runs now."),
            row(GROUP, "dryrun", -4, dryrun)
                .flags(NOSCRIPT | NO_MANDATORY_KEYS | MOVABLE_KEYS | SCRIPT)
                .keys(&[KeySpec::counted(3, k::RO | k::ACCESS)])
                .since("7.2.4")
                .complexity(COST)
                .summary("Runs a function, says what it would change, and undoes it.")
                .syntax("function numkeys [key [key ...]] [arg [arg ...]]"),
            row(GROUP, "help", 2, help)
                .flags(LOADING | STALE)
                .since("7.0.0")
                .complexity("O(1)")
                .summary("Says what FUNCTION can do."),
        ],
    )
    .categories(0)
    .since("7.0.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about libraries of functions."),
];

/// The function of a call, which may have been found already, and how many keys it gets.
fn called(
    request: &Request<'_, '_>,
    name: &[u8],
    numkeys: &[u8],
    args: &[&[u8]],
) -> Result<(Arc<Known>, usize)> {
    let find = || request.server().scripts.functions.find(name);
    let found = request.lp.found_script.take().or_else(find);
    let function = found.ok_or(Error::of("ERR Function not found"))?;
    if integer(numkeys).is_err() {
        return Err(Error::of("ERR Bad number of keys provided"));
    }
    Ok((function, scripting::key_count(numkeys, args)?))
}

fn fcall(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (function, keys) = called(request, args[1], args[2], &args[3..])?;
    scripting::run_known(request, args, false, function, keys)
}

fn fcall_ro(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (function, keys) = called(request, args[1], args[2], &args[3..])?;
    scripting::run_known(request, args, true, function, keys)
}

fn dryrun(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (function, keys) = called(request, args[2], args[3], &args[4..])?;
    dry_run::try_out(request, args, function, keys)
}

/// Has other libraries from here on, and logs the command that did it.
fn set(request: &mut Request<'_, '_>, libraries: Libraries, args: &[&[u8]]) {
    let scripts = &request.server().scripts;
    scripts.functions.set(&scripts.cache, Arc::new(libraries));
    let mut words = Vec::new();
    resp::write_request(&mut words, args);
    request.txn.log_beside(&words);
}

/// The libraries as they are, to be changed.
fn copy(request: &Request<'_, '_>) -> Libraries {
    Libraries::clone(&request.server().scripts.functions.current())
}

/// How the arguments of FUNCTION LOAD read: what to do about a library of that name, and the code.
pub fn load_arguments<'a>(args: &[&'a [u8]]) -> Result<(Present, &'a [u8])> {
    let (code, options) = args.split_last().ok_or(Error::SYNTAX)?;
    let mut present = Present::Stay;
    for option in options {
        if !is(option, "REPLACE") {
            let option = String::from_utf8_lossy(option);
            return Err(Error::new(format!("ERR Unknown option given: {option}")));
        }
        present = Present::GiveWay;
    }
    Ok((present, code))
}

fn load(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (present, code) = load_arguments(&args[2..])?;
    let mut libraries = copy(request);
    let loader = WorkerLoader { lp: request.lp, shift: request.shift };
    let loaded = loader.add(&mut libraries, code, present)?;
    set(request, libraries, args);
    request.reply.bulk(loaded.library.name().as_bytes());
    Ok(())
}

fn delete(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let mut libraries = copy(request);
    if !std::str::from_utf8(args[2]).is_ok_and(|name| libraries.remove(name)) {
        return Err(Error::of("ERR Library not found"));
    }
    set(request, libraries, args);
    request.reply.ok();
    Ok(())
}

fn wrong_arguments(subcommand: &[u8]) -> Error {
    let subcommand = String::from_utf8_lossy(subcommand);
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try FUNCTION HELP."
    ))
}

fn flush(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    match &args[2..] {
        [] => {}
        [mode] if is(mode, "SYNC") || is(mode, "ASYNC") => {}
        [_] => return Err(Error::of("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
        _ => return Err(wrong_arguments(args[1])),
    }
    set(request, Libraries::default(), args);
    request.reply.ok();
    Ok(())
}

/// What FUNCTION RESTORE does about the libraries that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Flush,
    Append,
    Replace,
}

/// The libraries that FUNCTION RESTORE makes of its arguments and of those that are there.
pub fn restore_arguments(
    args: &[&[u8]],
    current: &Libraries,
    add: impl FnMut(&mut Libraries, &[u8]) -> Result<Arc<Loaded>>,
) -> Result<Libraries> {
    let policy = match &args[3..] {
        [] => Policy::Append,
        [policy] if is(policy, "APPEND") => Policy::Append,
        [policy] if is(policy, "REPLACE") => Policy::Replace,
        [policy] if is(policy, "FLUSH") => Policy::Flush,
        [_] => {
            return Err(Error::of(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
        _ => return Err(wrong_arguments(args[1])),
    };
    let restored = restored(args[2], add)?;
    if policy == Policy::Flush {
        return Ok(restored);
    }
    let present = if policy == Policy::Append { Present::Stay } else { Present::GiveWay };
    let mut libraries = current.clone();
    let joined = libraries.join(&restored, present);
    joined.map(|()| libraries).map_err(|text| Error::new(format!("ERR {text}")))
}

fn restore(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let loader = WorkerLoader { lp: request.lp, shift: request.shift };
    let current = request.server().scripts.functions.current();
    let libraries = restore_arguments(args, &current, |libraries, source| {
        loader.add(libraries, source, Present::Stay)
    })?;
    set(request, libraries, args);
    request.reply.ok();
    Ok(())
}

fn dump(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let libraries = request.server().scripts.functions.current();
    let payload = libraries.dump(save::version(request.config()));
    request.reply.bulk(&payload);
    Ok(())
}

fn list(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (mut with_code, mut pattern) = (false, None);
    let mut rest = args[2..].iter();
    while let Some(arg) = rest.next() {
        if !with_code && is(arg, "WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && is(arg, "LIBRARYNAME") {
            let given = rest.next();
            pattern = Some(given.ok_or(Error::of("ERR library name argument was not given"))?);
        } else {
            let arg = String::from_utf8_lossy(arg);
            return Err(Error::new(format!("ERR Unknown argument {arg}")));
        }
    }
    let libraries = request.server().scripts.functions.current();
    let fits = |loaded: &&Arc<Loaded>| {
        let name = loaded.library.name().as_bytes();
        pattern.is_none_or(|pattern| data::glob::matches(pattern, name, true))
    };
    let told: Vec<&Arc<Loaded>> = libraries.iter().filter(fits).collect();
    let reply = &mut request.reply;
    reply.array(told.len());
    for loaded in told {
        let library = &loaded.library;
        reply.map(if with_code { 4 } else { 3 });
        reply.bulk(b"library_name");
        reply.bulk(library.name().as_bytes());
        reply.bulk(b"engine");
        reply.bulk(b"LUA");
        reply.bulk(b"functions");
        reply.array(library.functions().len());
        for function in library.functions() {
            tell_function(reply, function);
        }
        if with_code {
            reply.bulk(b"library_code");
            reply.bulk(library.source());
        }
    }
    Ok(())
}

fn tell_function(reply: &mut Reply<'_>, function: &lua::Function) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(function.name().as_bytes());
    reply.bulk(b"description");
    match function.description() {
        Some(text) => reply.bulk(text),
        None => reply.null(),
    }
    reply.bulk(b"flags");
    let names = function.flags().names();
    reply.set(names.len());
    names.iter().for_each(|name| reply.status(name));
}

fn stats(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let scripts = &request.server().scripts;
    let (libraries, running) = (scripts.functions.current(), scripts.watch.running_function());
    let reply = &mut request.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some((running, duration_ms)) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&running.command[1]);
            reply.bulk(b"command");
            reply.array(running.command.len());
            running.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.integer(duration_ms);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(libraries.library_count() as i64);
    reply.bulk(b"functions_count");
    reply.integer(libraries.function_count() as i64);
    Ok(())
}

fn kill(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    scripting::kill_running(request, Killed::Functions)
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "FUNCTION",
        &[
            "DELETE <library>",
            "    Delete a library and its functions.",
            "DRYRUN <function> <numkeys> [<key> ...] [<arg> ...]",
            "    Run a function, say what it would change and publish, and undo it.",
            "DUMP",
            "    All libraries as a payload for RESTORE.",
            "FLUSH [ASYNC|SYNC]",
            "    Delete all libraries.",
            "KILL",
            "    End the function that runs for longest; what it did is undone. In isolation mode it",
            "    is refused if the function has written.",
            "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
            "    Libraries with their functions, and their code if that is asked for.",
            "LOAD [REPLACE] <code>",
            "    Load a library; the name stands in its first line.",
            "RESTORE <payload> [FLUSH|APPEND|REPLACE]",
            "    Load all libraries of a payload. FLUSH deletes the others before, APPEND (the default)",
            "    fails if one is there already, REPLACE replaces it.",
            "STATS",
            "    The function that runs, and how many libraries and functions there are.",
        ],
    );
    Ok(())
}

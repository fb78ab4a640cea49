//! OBJECT: how a value is stored and when it was used.

use engine::{Entry, Str, ValueRef, access};

use crate::call::{Call, Handler};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{LOADING, READONLY, STALE};
use crate::row::{Command, Group};

pub const TABLE: &[Command<Handler>] =
    &[Command::container(Group::Generic, "object", -2, SUBCOMMANDS)
        .categories(0)
        .since("2.2.3")
        .complexity("Depends on subcommand.")
        .summary("Holds the commands about the inside of values.")];

const KEY: &[KeySpec] = &[KeySpec::at(2, k::RO)];

const SUBCOMMANDS: &[Command<Handler>] = &[
    about_key("encoding", encoding).summary("Answers how the value of a key is stored."),
    about_key("freq", freq)
        .since("4.0.0")
        .summary("Answers how often a key is used, on a logarithmic scale."),
    Command::new(Group::Generic, "help", 2, help)
        .flags(LOADING | STALE)
        .since("6.2.0")
        .summary("Explains the subcommands.")
        .syntax(""),
    about_key("idletime", idletime).summary("Answers how many seconds a key has not been used."),
    about_key("refcount", refcount)
        .summary("Answers how many references there are to the value of a key."),
];

const fn about_key(name: &'static str, handler: Handler) -> Command<Handler> {
    Command::new(Group::Generic, name, 3, handler)
        .flags(READONLY)
        .keys(KEY)
        .since("2.2.3")
        .tips(&["nondeterministic_output"])
        .syntax("key")
}

fn encoding(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.peek(args[2]).map(Entry::encoding) {
        Some(name) => call.reply.bulk(name.as_bytes()),
        None => call.reply.null(),
    }
    Ok(())
}

fn freq(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(entry) = call.txn.peek(args[2]) else {
        call.reply.null();
        return Ok(());
    };
    let worker = call.txn.worker();
    if !worker.settings.policy.is_lfu() {
        return Err(Error::of(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take some \
             time to adjust.",
        ));
    }
    let count = access::lfu_count(entry, worker, call.txn.now_ms());
    call.reply.integer(i64::from(count));
    Ok(())
}

fn idletime(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(entry) = call.txn.peek(args[2]) else {
        call.reply.null();
        return Ok(());
    };
    if call.txn.worker().settings.policy.is_lfu() {
        return Err(Error::of(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that \
             when switching between policies at runtime LRU and LFU data will take some time to \
             adjust.",
        ));
    }
    let idle_seconds = access::idle_seconds(entry, call.txn.now_ms());
    call.reply.integer(i64::from(idle_seconds));
    Ok(())
}

/// Values are never shared between keys. Redis shares small integers and answers the largest
/// count for them, so that clients can tell; we answer as it does.
fn refcount(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.peek(args[2]).map(Entry::get) {
        Some(ValueRef::Str(Str::Int(0..10_000))) => call.reply.integer(i32::MAX.into()),
        Some(_) => call.reply.integer(1),
        None => call.reply.null(),
    }
    Ok(())
}

fn help(call: &mut Call<'_, '_>, _args: &[&[u8]]) -> Result {
    let lines = &[
        "ENCODING <key>",
        "    How the value of the key is stored.",
        "FREQ <key>",
        "    How often the key is used, on a logarithmic scale. Needs an LFU policy.",
        "IDLETIME <key>",
        "    Seconds since the key was last used. Needs a policy other than LFU.",
        "REFCOUNT <key>",
        "    How many references there are to the value of the key.",
    ];
    crate::help::write(&mut call.reply, "OBJECT", lines);
    Ok(())
}

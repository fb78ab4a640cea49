//! Consumer groups of streams: XGROUP and its subcommands, and XACK.

use data::Stream;
use data::stream::{COUNT_MAX, Id};
use engine::{Event, Mut};

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, LOADING, STALE, WRITE};
use crate::row::{Command, Group};
use crate::stream::{id, look_at_stream};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Stream, "xack", -4, xack)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("5.0.0")
        .complexity("O(log N) for each id.")
        .summary("Ends that entries are pending in a consumer group, answers how many were.")
        .syntax("key group id [id ...]"),
    Command::container(Group::Stream, "xgroup", -2, SUBCOMMANDS)
        .categories(0)
        .since("5.0.0")
        .complexity("Depends on subcommand.")
        .summary("Holds the commands about consumer groups."),
];

const fn about_group(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Stream, name, arity, handler).flags(WRITE).since("5.0.0")
}

const SUBCOMMANDS: &[Command<Handler>] = &[
    about_group("create", -5, create)
        .flags(DENYOOM)
        .keys(&[KeySpec::at(2, k::RW | k::INSERT)])
        .summary("Makes a consumer group.")
        .syntax(
            "key group id-selector:(id | new-id:$) [MKSTREAM] \
             [ENTRIESREAD entries-read:integer]",
        ),
    about_group("createconsumer", 5, createconsumer)
        .flags(DENYOOM)
        .keys(&[KeySpec::at(2, k::RW | k::INSERT)])
        .since("6.2.0")
        .summary("Adds a consumer to a group.")
        .syntax("key group consumer"),
    about_group("delconsumer", 5, delconsumer)
        .keys(&[KeySpec::at(2, k::RW | k::DELETE)])
        .complexity("O(N log N) for N entries that are pending with it.")
        .summary("Removes a consumer from a group, answers how many entries were pending with it.")
        .syntax("key group consumer"),
    about_group("destroy", 4, destroy)
        .keys(&[KeySpec::at(2, k::RW | k::DELETE)])
        .complexity("O(N) for N entries that are pending in it.")
        .summary("Removes a consumer group.")
        .syntax("key group"),
    Command::new(Group::Stream, "help", 2, help)
        .flags(LOADING | STALE)
        .since("5.0.0")
        .summary("Explains the subcommands.")
        .syntax(""),
    about_group("setid", -5, setid)
        .keys(&[KeySpec::at(2, k::RW | k::UPDATE)])
        .summary("Sets which entry a consumer group has read last.")
        .syntax("key group id-selector:(id | new-id:$) [ENTRIESREAD entries-read:integer]"),
];

/// A stream without this group, or none at all.
pub(crate) fn no_group(key: &[u8], group: &[u8]) -> Error {
    Error::new(format!(
        "NOGROUP No such key '{}' or consumer group '{}'",
        String::from_utf8_lossy(key),
        String::from_utf8_lossy(group)
    ))
}

/// A stream without this group.
pub(crate) fn no_such_group(key: &[u8], group: &[u8]) -> Error {
    Error::new(format!(
        "NOGROUP No such consumer group '{}' for key name '{}'",
        String::from_utf8_lossy(group),
        String::from_utf8_lossy(key)
    ))
}

fn xack(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let group = args[2];
    if call.txn.read_stream(args[1])?.is_none_or(|stream| stream.group(group).is_none()) {
        call.reply.integer(0);
        return Ok(());
    }
    let ids: Vec<Id> = args[3..].iter().map(|arg| id(arg, 0)).collect::<Result<_>>()?;
    let Some(mut stream) = call.txn.write::<Stream>(args[1])? else { return Err(Error::NO_KEY) };
    let acknowledged = ids.into_iter().filter(|id| stream.acknowledge(group, *id)).count();
    call.reply.integer(acknowledged as i64);
    Ok(())
}

#[derive(Default)]
struct Options {
    makes_stream: bool,
    entries_read: Option<u64>,
}

/// What stands behind the id of CREATE and SETID.
fn options(args: &[&[u8]], creates: bool) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = &args[5..];
    while let [word, behind @ ..] = rest {
        rest = behind;
        if creates && is(word, "MKSTREAM") {
            options.makes_stream = true;
        } else if is(word, "ENTRIESREAD")
            && let [value, behind @ ..] = rest
        {
            rest = behind;
            options.entries_read = match integer(value)? {
                -1 => None,
                count @ 0.. => Some((count as u64).min(COUNT_MAX)),
                _ => {
                    return Err(Error::of("ERR value for ENTRIESREAD must be positive or -1"));
                }
            };
        } else {
            return Err(unknown(args[1], "XGROUP"));
        }
    }
    // So many words at most, whatever they are.
    match args.len() {
        ..=8 if creates => Ok(options),
        5 | 7 => Ok(options),
        _ => Err(unknown(args[1], "XGROUP")),
    }
}

/// A subcommand that does not understand its arguments.
pub(crate) fn unknown(subcommand: &[u8], container: &str) -> Error {
    let shown = &subcommand[..subcommand.len().min(128)];
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try {container} HELP.",
        String::from_utf8_lossy(shown)
    ))
}

/// The stream of a subcommand that needs one, to be changed.
fn existing<'t, 'e>(call: &'t mut Call<'_, 'e>, args: &[&[u8]]) -> Result<Mut<'t, 'e, Stream>> {
    call.txn.write::<Stream>(args[2])?.ok_or(Error::of(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want \
         to use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// The same, where the group must be there too.
fn grouped<'t, 'e>(call: &'t mut Call<'_, 'e>, args: &[&[u8]]) -> Result<Mut<'t, 'e, Stream>> {
    let stream = existing(call, args)?;
    match stream.group(args[3]) {
        Some(_) => Ok(stream),
        None => Err(no_such_group(args[2], args[3])),
    }
}

fn create(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let options = options(args, true)?;
    let last_id = match look_at_stream(call.txn, args[2])? {
        None if !options.makes_stream => {
            existing(call, args)?;
            Id::MIN
        }
        None => Id::MIN,
        Some(stream) => stream.last_id(),
    };
    let last_id = if args[4] == b"$" { last_id } else { id(args[4], 0)? };
    let mut stream: Mut<'_, '_, Stream> = call.txn.write_or_create(args[2])?;
    if !stream.add_group(args[3], last_id, options.entries_read) {
        return Err(Error::of("BUSYGROUP Consumer Group name already exists"));
    }
    call.reply.ok();
    Ok(())
}

fn setid(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let options = options(args, false)?;
    let mut stream = grouped(call, args)?;
    let last_id = match args[4] {
        b"$" => stream.last_id(),
        b"-" => Id::MIN,
        b"+" => Id::MAX,
        text => id(text, 0)?,
    };
    stream.tell_as(Event::stream("xgroup-setid"));
    stream.set_group(args[3], last_id, options.entries_read);
    drop(stream);
    call.reply.ok();
    Ok(())
}

fn destroy(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let gone = existing(call, args)?.remove_group(args[3]);
    call.reply.integer(gone.into());
    Ok(())
}

fn createconsumer(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let clock_ms = call.clock_ms;
    let added = grouped(call, args)?.add_consumer(args[3], args[4], clock_ms);
    call.reply.integer(added.into());
    Ok(())
}

fn delconsumer(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let pending = grouped(call, args)?.remove_consumer(args[3], args[4]);
    call.reply.integer(pending.unwrap_or(0) as i64);
    Ok(())
}

fn help(call: &mut Call<'_, '_>, _args: &[&[u8]]) -> Result {
    let lines = &[
        "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
        "    Makes a consumer group that reads what is behind the id, and the stream if need be.",
        "CREATECONSUMER <key> <group> <consumer>",
        "    Adds a consumer to a group.",
        "DELCONSUMER <key> <group> <consumer>",
        "    Removes a consumer and what is pending with it.",
        "DESTROY <key> <group>",
        "    Removes a group and what is pending in it.",
        "SETID <key> <group> <id|$> [ENTRIESREAD <count>]",
        "    Sets which entry the group has read last, and how many it has read.",
    ];
    crate::help::write(&mut call.reply, "XGROUP", lines);
    Ok(())
}

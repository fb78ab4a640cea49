//! XINFO: what a stream, its consumer groups and their consumers are.

use data::Stream;
use data::stream;
use resp::Reply;

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{LOADING, READONLY, STALE};
use crate::row::{Command, Group};
use crate::stream::reply_entry;
use crate::stream_group::{no_such_group, unknown};

pub const TABLE: &[Command<Handler>] =
    &[Command::container(Group::Stream, "xinfo", -2, SUBCOMMANDS)
        .categories(0)
        .since("5.0.0")
        .complexity("Depends on subcommand.")
        .summary("Holds the commands that tell about streams.")];

const KEY: &[KeySpec] = &[KeySpec::at(2, k::RO | k::ACCESS)];

const fn about_stream(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Stream, name, arity, handler).flags(READONLY).keys(KEY).since("5.0.0")
}

const SUBCOMMANDS: &[Command<Handler>] = &[
    about_stream("consumers", 4, consumers)
        .complexity("O(N) for N consumers.")
        .tips(&["nondeterministic_output"])
        .history(&[("7.2.0", "Answers inactive, too.")])
        .summary("Answers the consumers of a group.")
        .syntax("key group"),
    about_stream("groups", 3, groups)
        .complexity("O(N) for N groups.")
        .history(&[("7.0.0", "Answers entries-read and lag, too.")])
        .summary("Answers the consumer groups of a stream.")
        .syntax("key"),
    Command::new(Group::Stream, "help", 2, help)
        .flags(LOADING | STALE)
        .since("5.0.0")
        .summary("Explains the subcommands.")
        .syntax(""),
    about_stream("stream", -3, stream_info)
        .history(&[
            ("6.0.0", "Takes FULL."),
            ("7.0.0", "Answers max-deleted-entry-id, entries-added and recorded-first-entry-id."),
            ("7.2.0", "Answers active-time of consumers; seen-time is when they last asked."),
        ])
        .summary("Answers what a stream is, with its groups if asked to.")
        .syntax("key [full-block:(FULL [COUNT count])]"),
];

/// A count where it is known.
fn known(reply: &mut Reply<'_>, count: Option<i64>) {
    match count {
        Some(count) => reply.integer(count),
        None => reply.null(),
    }
}

fn consumers(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let now_ms = call.now_ms();
    let stream = call.txn.read_stream(args[2])?.ok_or(Error::NO_KEY)?;
    let group = stream.group(args[3]).ok_or_else(|| no_such_group(args[2], args[3]))?;
    let reply = &mut call.reply;
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        reply.bulk(b"pending");
        reply.integer(consumer.pending_count() as i64);
        reply.bulk(b"idle");
        reply.integer(now_ms.saturating_sub(consumer.seen_ms).max(0));
        reply.bulk(b"inactive");
        reply.integer(consumer.active_ms.map_or(-1, |when| now_ms.saturating_sub(when)));
    }
    Ok(())
}

fn groups(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let stream = call.txn.read_stream(args[2])?.ok_or(Error::NO_KEY)?;
    let reply = &mut call.reply;
    reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        reply.bulk(b"consumers");
        reply.integer(group.consumers().len() as i64);
        reply.bulk(b"pending");
        reply.integer(group.pending_count() as i64);
        progress(stream, group, reply);
    }
    Ok(())
}

/// How far a group has come.
fn progress(stream: &Stream, group: &stream::Group, reply: &mut Reply<'_>) {
    reply.bulk(b"last-delivered-id");
    reply.bulk(group.last_id.text().as_bytes());
    reply.bulk(b"entries-read");
    known(reply, group.entries_read.map(|read| read as i64));
    reply.bulk(b"lag");
    known(reply, stream.lag(group));
}

/// Elements of each list in the full answer, where the client does not say.
const FULL_COUNT: usize = 10;

fn stream_info(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let stream = call.txn.read_stream(args[2])?.ok_or(Error::NO_KEY)?;
    let most = match &args[3..] {
        [] => None,
        [word] if is(word, "FULL") => Some(FULL_COUNT),
        [word, count, value] if is(word, "FULL") && is(count, "COUNT") => {
            Some(match integer(value)? {
                ..0 => FULL_COUNT,
                0 => usize::MAX,
                count => count as usize,
            })
        }
        _ => return Err(unknown(args[1], "XINFO")),
    };
    let reply = &mut call.reply;
    let head = stream.head();
    reply.map(if most.is_some() { 9 } else { 10 });
    reply.bulk(b"length");
    reply.integer(stream.len() as i64);
    // There is a node for each block, and one above them.
    reply.bulk(b"radix-tree-keys");
    reply.integer(stream.block_count() as i64);
    reply.bulk(b"radix-tree-nodes");
    reply.integer(stream.block_count() as i64 + 1);
    reply.bulk(b"last-generated-id");
    reply.bulk(head.last_id.text().as_bytes());
    reply.bulk(b"max-deleted-entry-id");
    reply.bulk(head.max_deleted_id.text().as_bytes());
    reply.bulk(b"entries-added");
    reply.integer(head.entries_added as i64);
    reply.bulk(b"recorded-first-entry-id");
    reply.bulk(stream.first_id().text().as_bytes());
    if let Some(most) = most {
        reply.bulk(b"entries");
        reply.array(stream.len().min(most));
        paced(call.txn, stream.iter().take(most)).for_each(|entry| reply_entry(reply, entry));
        reply.bulk(b"groups");
        reply.array(stream.groups().len());
        for (name, group) in stream.groups() {
            reply.map(7);
            reply.bulk(b"name");
            reply.bulk(name);
            progress(stream, group, reply);
            full_group(call.txn, group, most, reply);
        }
        return Ok(());
    }
    reply.bulk(b"groups");
    reply.integer(stream.groups().len() as i64);
    for (name, entry) in
        [("first-entry", stream.iter().next()), ("last-entry", stream.iter().next_back())]
    {
        reply.bulk(name.as_bytes());
        match entry {
            Some(entry) => reply_entry(reply, entry),
            None => reply.null(),
        }
    }
    Ok(())
}

/// What is pending in a group, and its consumers.
fn full_group(txn: &engine::Txn<'_>, group: &stream::Group, most: usize, reply: &mut Reply<'_>) {
    reply.bulk(b"pel-count");
    reply.integer(group.pending_count() as i64);
    reply.bulk(b"pending");
    reply.array(group.pending_count().min(most));
    for (id, pending) in paced(txn, group.pending(..).take(most)) {
        reply.array(4);
        reply.bulk(id.text().as_bytes());
        reply.bulk(group.owner(pending).name());
        reply.integer(pending.delivered_ms);
        reply.integer(pending.deliveries as i64);
    }
    reply.bulk(b"consumers");
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply.map(5);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        reply.bulk(b"seen-time");
        reply.integer(consumer.seen_ms);
        reply.bulk(b"active-time");
        reply.integer(consumer.active_ms.unwrap_or(-1));
        reply.bulk(b"pel-count");
        reply.integer(consumer.pending_count() as i64);
        reply.bulk(b"pending");
        reply.array(consumer.pending_count().min(most));
        for id in paced(txn, consumer.pending(..).take(most)) {
            let pending = group.get(id).expect("what a consumer has is pending in its group");
            reply.array(3);
            reply.bulk(id.text().as_bytes());
            reply.integer(pending.delivered_ms);
            reply.integer(pending.deliveries as i64);
        }
    }
}

fn help(call: &mut Call<'_, '_>, _args: &[&[u8]]) -> Result {
    let lines = &[
        "CONSUMERS <key> <group>",
        "    The consumers of a group.",
        "GROUPS <key>",
        "    The consumer groups of a stream.",
        "STREAM <key> [FULL [COUNT <count>]]",
        "    What a stream is; with FULL also its entries, groups and what is pending.",
    ];
    crate::help::write(&mut call.reply, "XINFO", lines);
    Ok(())
}

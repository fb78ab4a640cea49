//! SLOWLOG, LATENCY, MEMORY: where time and memory go.

use std::sync::atomic::Ordering;

use command::call::{integer, is};
use command::keys::{KeySpec, key_flag as k};
use command::row::flag::{ADMIN, LOADING, NOSCRIPT, READONLY, STALE};
use command::{Command, Error, Group, Result, Scope};

use crate::memory as process;
use crate::request::{Request, SessionHandler, row};
use crate::session::latency;
use crate::stats::command_totals;
use crate::table::table;

const GROUP: Group = Group::Server;
const SUBCOMMANDS: &str = "Depends on subcommand.";
const ALL_SHARDS: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
const ALL_NODES: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

pub const TABLE: &[Command<SessionHandler>] = &[
    Command::container(
        GROUP,
        "slowlog",
        -2,
        &[
            row(GROUP, "get", -2, slowlog_get)
                .flags(ADMIN | LOADING | STALE)
                .since("2.2.12")
                .complexity("O(N) in the entries answered")
                .tips(&["request_policy:all_nodes", "nondeterministic_output"])
                .history(&[("4.0.0", "Added client IP address, port and name to the reply.")])
                .summary("Answers the newest entries of the slow log.")
                .syntax("[count]"),
            row(GROUP, "len", 2, slowlog_len)
                .flags(ADMIN | LOADING | STALE)
                .since("2.2.12")
                .tips(&[
                    "request_policy:all_nodes",
                    "response_policy:agg_sum",
                    "nondeterministic_output",
                ])
                .summary("Counts the entries of the slow log."),
            row(GROUP, "reset", 2, slowlog_reset)
                .flags(ADMIN | LOADING | STALE)
                .since("2.2.12")
                .complexity("O(N) in the entries")
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .summary("Empties the slow log."),
            row(GROUP, "help", 2, slowlog_help)
                .flags(LOADING | STALE)
                .since("6.2.0")
                .summary("Says what SLOWLOG can do."),
        ],
    )
    .since("2.2.12")
    .complexity(SUBCOMMANDS)
    .summary("Holds the commands about slow commands."),
    Command::container(
        GROUP,
        "latency",
        -2,
        &[
            row(GROUP, "doctor", 2, latency::doctor)
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .since("2.8.13")
                .tips(ALL_NODES)
                .summary("Reports what was slow, and what may be done about it."),
            row(GROUP, "graph", 3, latency::graph)
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .since("2.8.13")
                .tips(ALL_NODES)
                .summary("Draws the samples of an event.")
                .syntax("event"),
            row(GROUP, "history", 3, latency::history)
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .since("2.8.13")
                .tips(ALL_NODES)
                .summary("Answers the samples of an event, the oldest first.")
                .syntax("event"),
            row(GROUP, "latest", 2, latency::latest)
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .since("2.8.13")
                .tips(ALL_NODES)
                .summary("Answers the last and the longest sample of every event."),
            row(GROUP, "reset", -2, latency::reset)
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .since("2.8.13")
                .tips(&["request_policy:all_nodes", "response_policy:agg_sum"])
                .summary("Forgets the samples of events, or of all.")
                .syntax("[event [event ...]]"),
            row(GROUP, "histogram", -2, latency_histogram)
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .since("7.0.0")
                .complexity("O(N) in the commands")
                .tips(ALL_NODES)
                .summary("Answers how the latencies of commands are distributed.")
                .syntax("[command [command ...]]"),
            row(GROUP, "help", 2, latency_help)
                .flags(LOADING | STALE)
                .since("2.8.13")
                .summary("Says what LATENCY can do."),
        ],
    )
    .since("2.8.13")
    .complexity(SUBCOMMANDS)
    .summary("Holds the commands about latency."),
    Command::container(
        GROUP,
        "memory",
        -2,
        &[
            row(GROUP, "usage", -3, memory_usage)
                .flags(READONLY)
                .keys(&[KeySpec::at(2, k::RO)])
                .since("4.0.0")
                .complexity("O(N) in the elements of the value")
                .summary("Estimates the memory of a key and its value.")
                .syntax("key [SAMPLES count]"),
            row(GROUP, "stats", 2, memory_stats)
                .scope(Scope::Walk)
                .since("4.0.0")
                .tips(ALL_SHARDS)
                .summary("Says what memory is used for."),
            row(GROUP, "doctor", 2, memory_doctor)
                .since("4.0.0")
                .tips(ALL_SHARDS)
                .summary("Reports what is odd about the memory."),
            row(GROUP, "malloc-stats", 2, memory_malloc_stats)
                .since("4.0.0")
                .complexity("Depends on how much memory is allocated, could be slow")
                .tips(ALL_SHARDS)
                .summary("Answers the allocator's own statistics."),
            row(GROUP, "purge", 2, memory_purge)
                .since("4.0.0")
                .complexity("Depends on how much memory is allocated, could be slow")
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
                .summary("Has the allocator return what it does not use."),
            row(GROUP, "help", 2, memory_help)
                .flags(LOADING | STALE)
                .since("4.0.0")
                .summary("Says what MEMORY can do."),
        ],
    )
    .since("4.0.0")
    .complexity(SUBCOMMANDS)
    .summary("Holds the commands about memory."),
];

fn slowlog_get(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let count = match args {
        [_, _] => 10,
        [_, _, count] => integer(count)
            .ok()
            .filter(|count| *count >= -1)
            .ok_or(Error::of("ERR count should be greater than or equal to -1"))?,
        _ => return Err(Error::arity("slowlog|get")),
    };
    let count = if count < 0 { usize::MAX } else { count as usize };
    let entries = request.server().slowlog.newest(count);
    request.reply.array(entries.len());
    for entry in &entries {
        request.reply.array(6);
        request.reply.integer(entry.id);
        request.reply.integer(entry.at_seconds);
        request.reply.integer(entry.duration_us as i64);
        request.reply.array(entry.args.len());
        entry.args.iter().for_each(|arg| request.reply.bulk(arg));
        request.reply.bulk(entry.address.as_bytes());
        request.reply.bulk(&entry.name);
    }
    Ok(())
}

fn slowlog_len(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let len = request.server().slowlog.len();
    request.reply.integer(len as i64);
    Ok(())
}

fn slowlog_reset(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.server().slowlog.reset();
    request.reply.ok();
    Ok(())
}

fn slowlog_help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    The newest entries, 10 unless told; -1 for all. An entry is:",
            "    id, time, duration in microseconds, arguments, client address, client name",
            "LEN",
            "    How many entries there are.",
            "RESET",
            "    Empty the slow log.",
        ],
    );
    Ok(())
}

/// Counts are cumulative, by powers of two of a microsecond.
fn latency_histogram(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let server = request.lp.server.clone();
    let ids: Vec<usize> = match &args[2..] {
        [] => (0..table().all.len()).collect(),
        names => {
            let found = names.iter().filter_map(|name| table().by_name(name));
            found.flat_map(|c| std::iter::once(c.id).chain(c.subcommands.clone())).collect()
        }
    };
    let workers = || server.worker_stats.iter().map(|stats| &**stats);
    let used: Vec<_> = ids
        .into_iter()
        .map(|id| (table().all[id].full_name, command_totals(workers(), id)))
        .filter(|(_, totals)| !totals.buckets.is_empty())
        .collect();
    request.reply.map(used.len());
    for (name, totals) in used {
        let mut by_us: Vec<(u64, u64)> = Vec::new();
        let mut total = 0;
        for (count, bound_ns) in &totals.buckets {
            total += count;
            let bound_us = bound_ns.div_ceil(1024).max(1);
            match by_us.last_mut() {
                Some((bound, count)) if *bound == bound_us => *count = total,
                _ => by_us.push((bound_us, total)),
            }
        }
        request.reply.bulk(name.as_bytes());
        request.reply.map(2);
        request.reply.bulk(b"calls");
        request.reply.integer(total as i64);
        request.reply.bulk(b"histogram_usec");
        request.reply.map(by_us.len());
        for (bound_us, count) in by_us {
            request.reply.integer(bound_us as i64);
            request.reply.integer(count as i64);
        }
    }
    Ok(())
}

fn latency_help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "LATENCY",
        &[
            "DOCTOR",
            "    What was slow, and what may be done about it.",
            "GRAPH <event>",
            "    The samples of an event, drawn.",
            "HISTOGRAM [<command> ...]",
            "    How many calls took up to how many microseconds, for each command.",
            "HISTORY <event>",
            "    The samples of an event: time and milliseconds.",
            "LATEST",
            "    The last and the longest sample of every event.",
            "RESET [<event> ...]",
            "    Forget the samples of these events, or of all.",
        ],
    );
    Ok(())
}

fn memory_usage(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    match &args[3..] {
        [] => {}
        [word, count] if is(word, "SAMPLES") => {
            if integer(count)? < 0 {
                return Err(Error::SYNTAX);
            }
        }
        _ => return Err(Error::SYNTAX),
    }
    match request.txn.peek(args[2]) {
        // Beside the entry: its slot in the table and the byte of hash.
        Some(entry) => request.reply.integer(entry.memory_bytes() as i64 + 9),
        None => request.reply.null(),
    }
    Ok(())
}

fn memory_stats(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let used = process::used_bytes();
    let allocator = process::allocator_stats();
    let resident = process::resident_bytes();
    let startup = request.server().startup_bytes.load(Ordering::Relaxed);
    let scripts = request.server().scripts.vm_bytes() + request.server().scripts.cache.used_bytes();
    let clients = request.server().client_memory.total_bytes() as u64;
    let db = request.txn.db();
    let mut databases = Vec::new();
    for index in 0..request.config().databases {
        request.txn.select(index);
        let size = request.txn.db_size();
        if size.keys > 0 {
            databases.push((index, size));
        }
    }
    request.txn.select(db);
    let keys: usize = databases.iter().map(|(_, size)| size.keys).sum();
    let overhead = startup + scripts + clients;
    let dataset = used.saturating_sub(overhead);
    let integers: &[(&str, u64)] = &[
        ("peak.allocated", process::peak_bytes()),
        ("total.allocated", used),
        ("startup.allocated", startup),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", clients),
        ("cluster.links", 0),
        ("aof.buffer", 0),
        ("lua.caches", scripts),
        ("functions.caches", 0),
    ];
    let totals: &[(&str, u64)] = &[
        ("overhead.total", overhead),
        ("keys.count", keys as u64),
        ("keys.bytes-per-key", if keys > 0 { dataset / keys as u64 } else { 0 }),
        ("dataset.bytes", dataset),
    ];
    let of = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let ratios: &[(&str, f64)] = &[
        ("dataset.percentage", of(dataset * 100, used.saturating_sub(startup))),
        ("peak.percentage", of(used * 100, process::peak_bytes())),
    ];
    let allocators: &[(&str, u64)] = &[
        ("allocator.allocated", allocator.allocated),
        ("allocator.active", allocator.active),
        ("allocator.resident", allocator.resident),
    ];
    let differences: &[(&str, f64, &str, i64)] = &[
        (
            "allocator-fragmentation.ratio",
            of(allocator.active, allocator.allocated),
            "allocator-fragmentation.bytes",
            allocator.active as i64 - allocator.allocated as i64,
        ),
        (
            "allocator-rss.ratio",
            of(allocator.resident, allocator.active),
            "allocator-rss.bytes",
            allocator.resident as i64 - allocator.active as i64,
        ),
        (
            "rss-overhead.ratio",
            of(resident, allocator.resident),
            "rss-overhead.bytes",
            resident as i64 - allocator.resident as i64,
        ),
        ("fragmentation", of(resident, used), "fragmentation.bytes", resident as i64 - used as i64),
    ];
    let reply = &mut request.reply;
    reply.map(
        integers.len()
            + databases.len()
            + totals.len()
            + ratios.len()
            + allocators.len()
            + 2 * differences.len(),
    );
    let mut integer = |name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    };
    integers.iter().for_each(|(name, value)| integer(name, *value as i64));
    for (index, size) in &databases {
        reply.bulk(format!("db.{index}").as_bytes());
        reply.map(2);
        reply.bulk(b"overhead.hashtable.main");
        reply.integer(size.keys as i64 * 9);
        reply.bulk(b"overhead.hashtable.expires");
        reply.integer(size.expires as i64 * 9);
    }
    for (name, value) in totals.iter().chain(allocators) {
        reply.bulk(name.as_bytes());
        reply.integer(*value as i64);
    }
    for (name, value) in ratios {
        reply.bulk(name.as_bytes());
        reply.double(*value);
    }
    for (ratio, value, bytes, difference) in differences {
        reply.bulk(ratio.as_bytes());
        reply.double(*value);
        reply.bulk(bytes.as_bytes());
        reply.integer(*difference);
    }
    Ok(())
}

fn memory_doctor(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let used = process::used_bytes();
    let resident = process::resident_bytes();
    let mut findings = Vec::new();
    if used < 5 << 20 {
        findings.push(
            "This instance holds next to nothing, so there is nothing to find out about its \
             memory. Ask again when it holds data."
                .to_owned(),
        );
    } else {
        if process::peak_bytes() as f64 > used as f64 * 1.5 {
            findings.push(format!(
                "Peak: at its peak the process used {} bytes, now {used}. The allocator may keep \
                 some of the difference; MEMORY PURGE asks for it back.",
                process::peak_bytes()
            ));
        }
        if resident as f64 > used as f64 * 1.4 && resident - used > 10 << 20 {
            findings.push(format!(
                "Fragmentation: the process takes {resident} bytes for {used} bytes of data and \
                 structures."
            ));
        }
        let limit = request.config().maxmemory_bytes;
        if limit > 0 && used as f64 > limit as f64 * 0.95 {
            findings.push(format!(
                "Limit: {used} of {limit} bytes (maxmemory) are used; the policy is {}.",
                request.config().maxmemory_policy.as_str()
            ));
        }
    }
    let text = match findings.is_empty() {
        true => "Nothing odd about the memory of this instance.".to_owned(),
        false => findings.join("\n"),
    };
    request.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn memory_malloc_stats(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.reply.verbatim("txt", process::malloc_stats().as_bytes());
    Ok(())
}

fn memory_purge(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    process::purge();
    request.reply.ok();
    Ok(())
}

fn memory_help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "MEMORY",
        &[
            "DOCTOR",
            "    What is odd about the memory.",
            "MALLOC-STATS",
            "    The allocator's own statistics.",
            "PURGE",
            "    Have the allocator return what it does not use.",
            "STATS",
            "    What memory is used for.",
            "USAGE <key> [SAMPLES <count>]",
            "    Memory of a key and its value. All elements are looked at, whatever <count> is.",
        ],
    );
    Ok(())
}

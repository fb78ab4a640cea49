//! TIME, ROLE, LOLWUT.

use std::time::Duration;

use command::row::category;
use command::row::flag::{FAST, LOADING, NOSCRIPT, READONLY, STALE};
use command::{Command, Group, Result};

use crate::request::{Origin, Request, SessionHandler, row};

const GROUP: Group = Group::Server;

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "time", 1, time)
        .flags(LOADING | STALE | FAST)
        .since("2.6.0")
        .tips(&["nondeterministic_output"])
        .summary("Answers the server's time."),
    row(GROUP, "role", 1, role)
        .flags(NOSCRIPT | LOADING | STALE | FAST)
        .categories(category::ADMIN | category::DANGEROUS)
        .since("2.8.12")
        .summary("Answers the role of the server in replication."),
    row(GROUP, "lolwut", -1, lolwut)
        .flags(READONLY | FAST)
        .since("5.0.0")
        .summary("Answers a small picture and the version.")
        .syntax("[VERSION version]"),
];

fn time(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let now = match request.origin {
        // Time stands still while a script runs.
        Origin::Script => Duration::from_millis(request.txn.now_ms() as u64),
        _ => crate::clock::read().0,
    };
    request.reply.array(2);
    request.reply.bulk_integer(now.as_secs() as i64);
    request.reply.bulk_integer(i64::from(now.subsec_micros()));
    Ok(())
}

/// A primary without replicas: replication is not part of this version.
fn role(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.reply.array(3);
    request.reply.bulk(b"master");
    request.reply.integer(0);
    request.reply.array(0);
    Ok(())
}

fn lolwut(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let moon = "      _..._\n    .:::::::.\n   :::::::::::   \n   `:::::::::'\n     `':::''\n";
    let text =
        format!("{moon}\nRedis ver. {} (Luar {})\n", crate::REDIS_VERSION, crate::LUAR_VERSION);
    request.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

//! TIME, ROLE, FAILOVER, LOLWUT.

use std::time::Duration;

use command::call::{integer, is};
use command::row::category;
use command::row::flag::{ADMIN, FAST, LOADING, NOSCRIPT, READONLY, STALE};
use command::{Command, Error, Group, Result};

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
    row(GROUP, "failover", -1, failover)
        .flags(ADMIN | NOSCRIPT | STALE)
        .since("6.2.0")
        .summary("Would hand over to a replica.")
        .syntax("[TO target:(host port [FORCE])] [ABORT] [TIMEOUT milliseconds]"),
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

/// There are no replicas to hand over to, which is told after mistakes.
fn failover(_: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if let [word] = &args[1..]
        && is(word, "ABORT")
    {
        return Err(Error::of("ERR No failover in progress."));
    }
    let (mut timeout_ms, mut has_target, mut is_forced) = (0, false, false);
    let mut rest = &args[1..];
    while let [word, behind @ ..] = rest {
        rest = match behind {
            [ms, behind @ ..] if is(word, "TIMEOUT") && timeout_ms == 0 => {
                timeout_ms = integer(ms)?;
                if timeout_ms <= 0 {
                    return Err(Error::of("ERR FAILOVER timeout must be greater than 0"));
                }
                behind
            }
            [_, port, behind @ ..] if is(word, "TO") && !has_target => {
                integer(port)?;
                has_target = true;
                behind
            }
            behind if is(word, "FORCE") && !is_forced => {
                is_forced = true;
                behind
            }
            _ => return Err(Error::SYNTAX),
        };
    }
    Err(Error::of("ERR FAILOVER requires connected replicas."))
}

fn lolwut(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let moon = "      _..._\n    .:::::::.\n   :::::::::::   \n   `:::::::::'\n     `':::''\n";
    let text =
        format!("{moon}\nRedis ver. {} (Luar {})\n", crate::REDIS_VERSION, crate::LUAR_VERSION);
    request.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

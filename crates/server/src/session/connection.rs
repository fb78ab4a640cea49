//! The connection itself: PING, HELLO, AUTH, SELECT, RESET.

use std::sync::atomic::Ordering;

use command::call::{integer_within, is};
use command::row::flag::{ALLOW_BUSY, FAST, LOADING, NO_AUTH, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result};
use resp::Protocol;

use crate::acl::DEFAULT;
use crate::acl::log::{Context, Reason};
use crate::client::ReplyMode;
use crate::request::{Request, SessionHandler, row};
use crate::session::{acl, monitor, pubsub, tracking, transactions};

const GROUP: Group = Group::Connection;

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "ping", -1, ping)
        .flags(FAST)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .summary("Answers PONG, or the message it is given.")
        .syntax("[message]"),
    row(GROUP, "echo", 2, echo)
        .flags(LOADING | STALE | FAST)
        .summary("Answers the message it is given.")
        .syntax("message"),
    row(GROUP, "select", 2, select)
        .flags(LOADING | STALE | FAST)
        .summary("Chooses the database of this connection.")
        .syntax("index"),
    row(GROUP, "auth", -2, auth)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .complexity("O(1)")
        .history(&[("6.0.0", "Added ACL style (username and password).")])
        .summary("Proves who the client is.")
        .syntax("[username] password"),
    row(GROUP, "hello", -1, hello)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .since("6.0.0")
        .summary("Chooses the protocol; may authenticate and name the client too.")
        .syntax("[arguments:(protover [AUTH username password] [SETNAME clientname])]"),
    row(GROUP, "quit", -1, quit)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .deprecated("7.2.0", "just closing the connection")
        .summary("Closes the connection."),
    row(GROUP, "reset", 1, reset)
        .flags(NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY)
        .since("6.2.0")
        .summary("Makes the connection as new."),
];

fn ping(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if args.len() > 2 {
        return Err(Error::arity("ping"));
    }
    if request.client.protocol == Protocol::Resp2 && request.client.is_subscriber() {
        request.reply.array(2);
        request.reply.bulk(b"pong");
        request.reply.bulk(args.get(1).copied().unwrap_or_default());
        return Ok(());
    }
    match args.get(1) {
        Some(message) => request.reply.bulk(message),
        None => request.reply.status("PONG"),
    }
    Ok(())
}

fn echo(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    request.reply.bulk(args[1]);
    Ok(())
}

fn select(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let index = integer_within(args[1], i64::from(i32::MIN), i64::from(i32::MAX))?;
    let databases = i64::from(request.config().databases);
    if !(0..databases).contains(&index) {
        return Err(Error::DB_INDEX);
    }
    request.client.db = index as u32;
    request.client.info.db.store(index as u32, Ordering::Relaxed);
    request.txn.select(index as u32);
    request.reply.ok();
    Ok(())
}

fn authenticate(
    request: &mut Request<'_, '_>,
    command: &[u8],
    name: &[u8],
    password: &[u8],
) -> Result {
    let Some(user) = request.server().acl.authenticate(name, password) else {
        let context = match request.client.transaction.is_open {
            true => Context::Multi,
            false => Context::TopLevel,
        };
        acl::note(request.lp, &request.client.info, Reason::Auth, context, command.to_vec(), name);
        return Err(Error::of("WRONGPASS invalid username-password pair or user is disabled."));
    };
    request.client.become_user(user, true);
    Ok(())
}

fn auth(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    match args {
        [_, password] => {
            if request.server().acl.default_user().rules().is_nopass {
                return Err(Error::of(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                ));
            }
            authenticate(request, args[0], DEFAULT, password)?;
        }
        [_, user, password] => authenticate(request, args[0], user, password)?,
        _ => return Err(Error::SYNTAX),
    }
    request.reply.ok();
    Ok(())
}

/// Whether a name may be given to a client: printable and without blanks.
pub fn is_valid_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub const INVALID_NAME: Error =
    Error::of("ERR Client names cannot contain spaces, newlines or special characters.");

fn hello(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let mut protocol = request.client.protocol;
    let mut options = 1;
    if let Some(version) = args.get(1) {
        let version = data::number::parse_i64(version)
            .ok_or(Error::of("ERR Protocol version is not an integer or out of range"))?;
        protocol = match version {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(Error::of("NOPROTO unsupported protocol version")),
        };
        options = 2;
    }
    let (mut name, mut credentials) = (None, None);
    let mut rest = args.get(options..).unwrap_or_default();
    while let Some((option, tail)) = rest.split_first() {
        rest = match tail {
            [user, password, rest @ ..] if is(option, "AUTH") => {
                credentials = Some((*user, *password));
                rest
            }
            [given, rest @ ..] if is(option, "SETNAME") => {
                if !is_valid_name(given) {
                    return Err(INVALID_NAME);
                }
                name = Some(*given);
                rest
            }
            _ => {
                let shown = String::from_utf8_lossy(option);
                return Err(Error::new(format!("ERR Syntax error in HELLO option '{shown}'")));
            }
        };
    }
    // The last word counts, and nothing before it.
    if let Some((user, password)) = credentials {
        authenticate(request, args[0], user, password)?;
    }
    if !request.client.is_authenticated && request.server().acl.needs_password() {
        return Err(Error::of(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        *request.client.info.name.lock() = Box::from(name);
    }
    request.client.protocol = protocol;
    let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
    request.client.info.resp.store(number, Ordering::Relaxed);
    let id = request.client.info.id;
    let mut reply = request.reply.with_protocol(protocol);
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", crate::REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(i64::from(number));
    reply.bulk(b"id");
    reply.integer(id as i64);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn quit(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.client.close_after_reply = true;
    request.reply.ok();
    Ok(())
}

fn reset(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let client = &mut *request.client;
    transactions::discard(request.lp, request.shift, client);
    pubsub::unsubscribe_all(request.lp, client);
    tracking::stop(request.lp, client);
    monitor::stop(request.lp, client);
    client.db = 0;
    client.info.db.store(0, Ordering::Relaxed);
    client.protocol = Protocol::Resp2;
    client.info.resp.store(2, Ordering::Relaxed);
    let acl = &request.lp.server.acl;
    client.become_user(acl.default_user().clone(), !acl.needs_password());
    client.reply_mode = ReplyMode::On;
    client.no_touch = false;
    client.info.no_touch.store(false, Ordering::Relaxed);
    client.info.no_evict.store(false, Ordering::Relaxed);
    *client.info.name.lock() = Box::default();
    request.reply.with_protocol(Protocol::Resp2).status("RESET");
    Ok(())
}

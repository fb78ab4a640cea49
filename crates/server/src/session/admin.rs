//! TIME, ROLE, LOLWUT, DEBUG.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command::call::{float, integer};
use command::row::category;
use command::row::flag::{ADMIN, FAST, LOADING, NOSCRIPT, READONLY, STALE};
use command::{Command, Error, Group, Result, Scope};
use engine::Expiry;

use crate::config::Allowed;
use crate::request::{Origin, Request, SessionHandler, row};
use crate::server::random_hex;

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
    // DEBUG may look anywhere.
    row(GROUP, "debug", -2, debug)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE)
        .scope(Scope::Exclusive)
        .complexity("Depends on subcommand.")
        .summary("Holds what test suites need to look inside."),
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

fn debug(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let is_local = request.client.info.is_unix_socket
        || request.client.info.address.starts_with("127.")
        || request.client.info.address.starts_with("[::1]");
    let allowed = match request.config().enable_debug_command {
        Allowed::Yes => true,
        Allowed::Local => is_local,
        Allowed::No => false,
    };
    if !allowed {
        return Err(Error::of(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
             you can run it from a local connection, otherwise you need to set this option in the \
             configuration file, and then restart the server.",
        ));
    }
    let name = String::from_utf8_lossy(args[1]).to_ascii_lowercase();
    match (name.as_str(), &args[2..]) {
        ("jmap", []) => request.reply.ok(),
        ("sleep", [seconds]) => {
            // As Redis reads it: what is no number is 0.
            let seconds = float(seconds).unwrap_or(0.0);
            let until = Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e6));
            // The point is that nothing else runs, as it is in Redis.
            while Instant::now() < until && !request.server().is_shutting_down() {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::park_timeout(left.min(Duration::from_millis(50)));
            }
            request.reply.ok();
        }
        ("set-active-expire", [on]) => {
            request.server().active_expire.store(integer(on)? != 0, Ordering::Relaxed);
            request.reply.ok();
        }
        ("set-skip-checksum-validation", [on]) => {
            persist::rdb::trust_checksums(integer(on)? != 0);
            request.reply.ok();
        }
        ("change-repl-id", []) => {
            *request.server().replication_id.lock() = random_hex(40);
            request.reply.ok();
        }
        ("object", [key, ..]) => {
            let Some(entry) = request.txn.peek(key) else { return Err(Error::NO_KEY) };
            let text = format!(
                "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} \
                 lru_seconds_idle:{}",
                entry.encoding(),
                entry.memory_bytes(),
                entry.access(),
                engine::access::idle_seconds(entry, request.txn.now_ms()),
            );
            request.reply.status(&text);
        }
        ("listpack", [key]) => {
            let Some(entry) = request.txn.peek(key) else { return Err(Error::NO_KEY) };
            if entry.encoding() != "listpack" {
                return Err(Error::of("ERR Not a listpack encoded object."));
            }
            let text = format!("listpack of {} bytes", entry.memory_bytes());
            request.reply.status(&text);
        }
        ("populate", [count, rest @ ..]) if rest.len() <= 2 => {
            let count = integer(count)?;
            let prefix = rest.first().copied().unwrap_or(b"key");
            let size = rest.get(1).map(|size| integer(size)).transpose()?;
            populate(request, count, prefix, size.map(|size| size.max(0) as usize));
            request.reply.ok();
        }
        ("log", [message]) => {
            crate::log_warning!("DEBUG LOG: {}", String::from_utf8_lossy(message));
            request.reply.ok();
        }
        ("error", [message]) => {
            return Err(Error::new(String::from_utf8_lossy(message).into_owned()));
        }
        ("stringmatch-len", [pattern, text]) => {
            let matches = data::glob::matches(pattern, text, false);
            request.reply.integer(i64::from(matches));
        }
        ("protocol", [kind]) => protocol(request, kind)?,
        ("help", []) => help(request),
        _ => return Err(unknown(args)),
    }
    Ok(())
}

fn unknown(args: &[&[u8]]) -> Error {
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
        String::from_utf8_lossy(args[1])
    ))
}

fn populate(request: &mut Request<'_, '_>, count: i64, prefix: &[u8], size: Option<usize>) {
    for number in 0..count {
        let key = [prefix, b":", number.to_string().as_bytes()].concat();
        if request.txn.exists(&key) {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size {
            value.resize(size, 0);
        }
        request.txn.set_string(&key, &value, Expiry::Clear);
    }
}

/// One reply of each type, for the tests of client libraries.
fn protocol(request: &mut Request<'_, '_>, kind: &[u8]) -> Result {
    let reply = &mut request.reply;
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(3.25),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|n| reply.integer(n));
        }
        b"map" => {
            reply.map(3);
            for n in 0..3 {
                reply.integer(n);
                reply.boolean(n == 1);
            }
        }
        b"bignum" => reply.big_number("1234567999999999999999999999999999999"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        _ => {
            return Err(Error::of(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|\
                 double|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn help(request: &mut Request<'_, '_>) {
    crate::help::write(
        &mut request.reply,
        "DEBUG",
        &[
            "CHANGE-REPL-ID",
            "    Take a new replication id.",
            "ERROR <string>",
            "    Answer this error.",
            "JMAP",
            "    Do nothing.",
            "LISTPACK <key>",
            "    Facts about the listpack of a key.",
            "LOG <message>",
            "    Write a line to the log.",
            "OBJECT <key>",
            "    Facts about the value of a key.",
            "POPULATE <count> [<prefix>] [<size>]",
            "    Make <count> string keys, <prefix>:0 and so on.",
            "PROTOCOL <type>",
            "    Answer a reply of this type.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Whether keys expire though nobody asks for them.",
            "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
            "    Whether RESTORE believes the checksums of payloads.",
            "SLEEP <seconds>",
            "    Stop everything for a while.",
        ],
    );
}

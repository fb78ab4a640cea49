//! DEBUG: what test suites need to look inside of the server, and to put it under strain.

mod digest;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use command::call::{float, integer, is};
use command::row::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result, Scope};
use engine::Expiry;
use resp::Protocol;

use crate::durability::{reload, save};
use crate::request::{Origin, Request, SessionHandler, row};
use crate::server::random_hex;

const GROUP: Group = Group::Server;
/// A write of the append-only file is made to take so much longer at most.
const WRITE_DELAY_US_MAX: i64 = 10_000_000;

pub const TABLE: &[Command<SessionHandler>] = &[
    // DEBUG may look anywhere.
    row(GROUP, "debug", -2, debug)
        .flags(ADMIN | NOSCRIPT | LOADING | STALE)
        .scope(Scope::Exclusive)
        .complexity("Depends on subcommand.")
        .summary("Holds what test suites need to look inside."),
];

fn debug(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let allowed = request.config().enable_debug_command;
    request.must_be_allowed(allowed, "DEBUG", "enable-debug-command")?;
    let name = String::from_utf8_lossy(args[1]).to_ascii_lowercase();
    match (name.as_str(), &args[2..]) {
        ("jmap", []) => request.reply.ok(),
        ("digest", []) => {
            let digest = digest::Digest::of_all(request.txn);
            request.reply.status(&digest.hex());
        }
        ("digest-value", keys) => {
            request.reply.array(keys.len());
            for key in keys {
                let digest = request.txn.peek(key).map(digest::Digest::of_value);
                request.reply.status(&digest.unwrap_or_default().hex());
            }
        }
        ("reload", options) => reload_rdb(request, options)?,
        ("loadaof", []) => {
            let loaded = outside_of_exec(request).and_then(|()| {
                reload::from_log(&request.lp.server).map_err(|error| {
                    crate::log_warning!("Can't load the append-only files: {error}");
                    Error::of("ERR Error trying to load the AOF files, check server logs.")
                })
            });
            loaded?;
            crate::log_warning!("Append Only File loaded by DEBUG LOADAOF");
            request.reply.ok();
        }
        ("aof-flush-sleep", [us]) => {
            let delay_us = integer(us)?.clamp(0, WRITE_DELAY_US_MAX);
            request.server().durability.aof.delay_writes(delay_us as u64);
            request.reply.ok();
        }
        ("pause-cron", [on]) => {
            request.server().is_cron_paused.store(integer(on)? != 0, Ordering::Relaxed);
            request.reply.ok();
        }
        // Lists have no nodes of another kind for large elements here.
        ("quicklist-packed-threshold", [size]) if starts_with_digit(size) => request.reply.ok(),
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
        ("set-disable-deny-scripts", [on]) => {
            let may_call_all = &request.server().scripts.may_call_all;
            may_call_all.store(integer(on)? != 0, Ordering::Relaxed);
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

fn starts_with_digit(size: &[u8]) -> bool {
    size.first().is_some_and(u8::is_ascii_digit)
}

/// RELOAD and LOADAOF: other commands of a transaction may have changed what goes now.
fn outside_of_exec(request: &Request<'_, '_>) -> Result {
    match request.origin {
        Origin::Network => Ok(()),
        _ => Err(Error::of("ERR Not inside of a transaction")),
    }
}

fn reload_rdb(request: &mut Request<'_, '_>, options: &[&[u8]]) -> Result {
    let (mut saves, mut flushes, mut merges) = (true, true, false);
    for option in options {
        match () {
            () if is(option, "NOSAVE") => saves = false,
            () if is(option, "NOFLUSH") => flushes = false,
            () if is(option, "MERGE") => merges = true,
            () => {
                return Err(Error::of(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    outside_of_exec(request)?;
    let server = &request.lp.server;
    if saves {
        // The log says what went wrong.
        save::in_foreground(server, request.txn, &request.shift.worker)
            .map_err(|_| Error::of("ERR"))?;
    }
    reload::from_rdb(server, flushes, merges).map_err(|error| {
        crate::log_warning!("Can't load the RDB file {error}");
        Error::of("ERR Error trying to load the RDB dump, check server logs.")
    })?;
    crate::log_warning!("DB reloaded by DEBUG RELOAD");
    request.reply.ok();
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

/// One reply of each type, for the tests of client libraries, which know the number.
#[allow(clippy::approx_constant)]
fn protocol(request: &mut Request<'_, '_>, kind: &[u8]) -> Result {
    let reply = &mut request.reply;
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(3.141),
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
        // What is said of a reply, which only RESP3 can.
        b"attrib" => {
            if reply.protocol() == Protocol::Resp3 {
                reply.raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if reply.protocol() == Protocol::Resp2 {
                return Err(Error::of("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
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
    command::help::write(
        &mut request.reply,
        "DEBUG",
        &[
            "AOF-FLUSH-SLEEP <microseconds>",
            "    Have every write of the append-only file take so much longer.",
            "CHANGE-REPL-ID",
            "    Take a new replication id.",
            "DIGEST",
            "    A hash of all data, the same whatever order and encoding that is in.",
            "DIGEST-VALUE <key> [<key> ...]",
            "    A hash of each value.",
            "ERROR <string>",
            "    Answer this error.",
            "JMAP",
            "    Do nothing.",
            "LISTPACK <key>",
            "    Facts about the listpack of a key.",
            "LOADAOF",
            "    Throw all data away and load the append-only files.",
            "LOG <message>",
            "    Write a line to the log.",
            "OBJECT <key>",
            "    Facts about the value of a key.",
            "PAUSE-CRON <0|1>",
            "    Whether nothing is done now and then: expiry, saves, the end after a signal.",
            "POPULATE <count> [<prefix>] [<size>]",
            "    Make <count> string keys, <prefix>:0 and so on.",
            "PROTOCOL <type>",
            "    Answer a reply of this type.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Do nothing: lists keep elements of any size in one way.",
            "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
            "    Save all data, throw it away and load the RDB file; MERGE replaces what is there.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Whether keys expire though nobody asks for them.",
            "SET-DISABLE-DENY-SCRIPTS <0|1>",
            "    Whether scripts may call any command.",
            "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
            "    Whether RESTORE believes the checksums of payloads.",
            "SLEEP <seconds>",
            "    Stop everything for a while.",
        ],
    );
}

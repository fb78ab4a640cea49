//! CLIENT: what connections there are, and what one may be told to do.
//!
//! Other clients are seen through their [`ClientInfo`] only; what is to happen to one of them goes
//! to its worker by mail.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use command::call::{integer, is};
use command::row::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result, Scope};

use crate::client::{Client, ClientInfo, NO_COMMAND, ReplyMode};
use crate::mailbox::{Mail, WaitEnd};
use crate::request::{Request, SessionHandler, row};
use crate::session::connection::{INVALID_NAME, is_valid_name};
use crate::session::tracking::{caching, getredir, tracking, trackinginfo};
use crate::table::table;
use crate::tracking::Mode;

const GROUP: Group = Group::Connection;
const COMMON: u32 = NOSCRIPT | LOADING | STALE;
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub const TABLE: &[Command<SessionHandler>] = &[Command::container(
    GROUP,
    "client",
    -2,
    &[
        row(GROUP, "caching", 3, caching)
            .flags(COMMON)
            .since("6.0.0")
            .summary("Says whether the keys that the next command reads are tracked.")
            .syntax("mode:(YES | NO)"),
        row(GROUP, "capa", -3, capa)
            .flags(COMMON)
            .since("8.0.0")
            .summary("Says what this connection's client can do.")
            .syntax("capability [capability ...]"),
        row(GROUP, "getname", 2, getname)
            .flags(COMMON)
            .since("2.6.9")
            .summary("Answers the name of this connection."),
        row(GROUP, "getredir", 2, getredir)
            .flags(COMMON)
            .since("6.0.0")
            .summary("Answers which client hears of changed keys in the place of this one."),
        row(GROUP, "help", 2, help)
            .flags(LOADING | STALE)
            .since("5.0.0")
            .summary("Says what CLIENT can do."),
        row(GROUP, "id", 2, id)
            .flags(COMMON)
            .since("5.0.0")
            .summary("Answers the number of this connection."),
        row(GROUP, "info", 2, info)
            .flags(COMMON)
            .since("6.2.0")
            .tips(&["nondeterministic_output"])
            .summary("Describes this connection in one line."),
        // With all gates closed nobody is in the middle of serving a blocked client: whether it
        // still waits is decided, and what is pushed afterwards does not go to it.
        row(GROUP, "kill", -3, kill)
            .flags(ADMIN | COMMON)
            .scope(Scope::Exclusive)
            .since("2.4.0")
            .complexity("O(N) in the connections")
            .history(&[
                ("2.8.12", "Added new filter format."),
                ("2.8.12", "`ID` option."),
                ("3.2.0", "Added `master` type in for `TYPE` option."),
                ("5.0.0", "Replaced `slave` `TYPE` with `replica`. `slave` still supported."),
                ("6.2.0", "`LADDR` option."),
                ("7.4.0", "`MAXAGE` option."),
            ])
            .summary("Closes connections.")
            .syntax(
                "filter:(old-format=ip:port | new-format:([ID client-id] \
                 | [TYPE client-type:(NORMAL | MASTER | SLAVE | REPLICA | PUBSUB)] \
                 | [USER username] | [ADDR addr=ip:port] | [LADDR laddr=ip:port] \
                 | [SKIPME skipme:(YES | NO)] | [MAXAGE maxage] | [NAME name] | [IDLE idle] \
                 | [FLAGS flags] | [LIB-NAME lib-name] | [LIB-VER lib-ver] | [DB db] | [CAPA capa] \
                 | [IP ip]) ...)",
            ),
        row(GROUP, "list", -2, list)
            .flags(ADMIN | COMMON)
            .since("2.4.0")
            .complexity("O(N) in the connections")
            .tips(&["nondeterministic_output"])
            .history(&[
                ("2.8.12", "Added unique client `id` field."),
                ("5.0.0", "Added optional `TYPE` filter."),
                ("6.0.0", "Added `user` field."),
                (
                    "6.2.0",
                    "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and `ID` filter.",
                ),
                ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
                ("7.0.3", "Added `ssub` field."),
            ])
            .summary("Describes all connections, one in a line.")
            .syntax(
                "[TYPE client-type:(NORMAL | MASTER | REPLICA | PUBSUB)] \
                 [ID client-id [client-id ...]] [USER username] [ADDR addr] [LADDR laddr] \
                 [SKIPME skipme:(YES | NO)] [MAXAGE maxage] [NAME name] [IDLE idle] [FLAGS flags] \
                 [LIB-NAME lib-name] [LIB-VER lib-ver] [DB db] [CAPA capa] [IP ip]",
            ),
        row(GROUP, "no-evict", 3, no_evict)
            .flags(ADMIN | COMMON)
            .since("7.0.0")
            .summary("Keeps this connection from being closed when clients take too much memory.")
            .syntax("enabled:(ON | OFF)"),
        row(GROUP, "no-touch", 3, no_touch)
            .flags(COMMON)
            .since("7.2.0")
            .summary("Has this connection read keys without their access time or count changing.")
            .syntax("enabled:(ON | OFF)"),
        row(GROUP, "pause", -3, pause)
            .flags(ADMIN | COMMON)
            .since("3.0.0")
            .history(&[("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option.")])
            .summary("Holds back the commands of all clients for some time.")
            .syntax("timeout [mode:(WRITE | ALL)]"),
        row(GROUP, "reply", 3, reply)
            .flags(COMMON)
            .since("3.2.0")
            .summary("Says whether commands of this connection are answered.")
            .syntax("action:(ON | OFF | SKIP)"),
        row(GROUP, "setinfo", 4, setinfo)
            .flags(COMMON)
            .since("7.2.0")
            .tips(ALL_NODES)
            .summary("Tells the name or the version of the client library.")
            .syntax("attr:(LIB-NAME libname | LIB-VER libver)"),
        row(GROUP, "setname", 3, setname)
            .flags(COMMON)
            .since("2.6.9")
            .tips(ALL_NODES)
            .summary("Names this connection.")
            .syntax("connection-name"),
        row(GROUP, "tracking", -3, tracking)
            .flags(COMMON)
            .since("6.0.0")
            .complexity("O(1). Some options may introduce additional complexity.")
            .summary("Has this connection told when keys change that it has read.")
            .syntax(
                "status:(ON | OFF) [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] \
                 [OPTIN] [OPTOUT] [NOLOOP]",
            ),
        row(GROUP, "trackinginfo", 2, trackinginfo)
            .flags(COMMON)
            .since("6.2.0")
            .summary("Answers how this connection is told of changed keys."),
        // As for KILL.
        row(GROUP, "unblock", -3, unblock)
            .flags(ADMIN | COMMON)
            .scope(Scope::Exclusive)
            .since("5.0.0")
            .complexity("O(log N) in the connections")
            .summary("Ends the wait of a blocked client.")
            .syntax("client-id [unblock-type:(TIMEOUT | ERROR)]"),
        row(GROUP, "unpause", 2, unpause)
            .flags(ADMIN | COMMON)
            .since("6.2.0")
            .complexity("O(N) in the clients held back")
            .summary("Lets all clients go on."),
    ],
)
.categories(0)
.since("2.4.0")
.complexity("Depends on subcommand.")
.summary("Holds the commands about connections.")];

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Track the keys that the next command reads, or do not.",
            "CAPA <capability> [<capability> ...]",
            "    Say what this client can do: redirect.",
            "GETREDIR",
            "    Which client hears of changed keys in the place of this one.",
            "GETNAME",
            "    The name of this connection.",
            "ID",
            "    The number of this connection.",
            "INFO",
            "    One line about this connection.",
            "KILL <ip:port>",
            "    Close the connection from this address.",
            "KILL <filter> <value> [<filter> <value> ...]",
            "    Close all connections that fit every filter:",
            "    * ADDR <ip:port>, IP <ip>, LADDR <ip:port>",
            "      Their own address, or the one they connected to.",
            "    * DB <number>, FLAGS <letters>, NAME <name>, LIB-NAME <name>, LIB-VER <version>",
            "      As LIST shows them.",
            "    * ID <client-id> [<client-id> ...]",
            "    * IDLE <seconds>, MAXAGE <seconds>",
            "      Silent, or connected, for at least so long.",
            "    * SKIPME (YES|NO)",
            "      Whether this connection is spared; yes unless told otherwise.",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "    * USER <username>",
            "    With NOT- before them, all but IDLE, MAXAGE and SKIPME mean those that do not fit.",
            "LIST [<filter> <value> ...]",
            "    One line about every connection, or those that fit every filter, as for KILL.",
            "NO-EVICT (ON|OFF)",
            "    Spare this connection when clients take too much memory.",
            "NO-TOUCH (ON|OFF)",
            "    Leave the access time of keys alone when this connection reads them.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Hold back commands, or those that write, for that many milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Answer this connection, do not, or do not answer its next command.",
            "SETINFO (LIB-NAME <name>|LIB-VER <version>)",
            "    Tell which client library is used.",
            "SETNAME <name>",
            "    Name this connection.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Tell this connection when keys change that it has read.",
            "TRACKINGINFO",
            "    How this connection is told of changed keys.",
            "UNBLOCK <client-id> [TIMEOUT|ERROR]",
            "    End the wait of a client as its timeout would, or with an error.",
            "UNPAUSE",
            "    End PAUSE.",
        ],
    );
    Ok(())
}

fn id(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.reply.integer(request.client.info.id as i64);
    Ok(())
}

// --- names -----------------------------------------------------------------------------------

fn getname(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let name = request.client.info.name.lock();
    if name.is_empty() {
        request.reply.null();
    } else {
        request.reply.bulk(&name);
    }
    Ok(())
}

fn setname(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if !is_valid_name(args[2]) {
        return Err(INVALID_NAME);
    }
    *request.client.info.name.lock() = Box::from(args[2]);
    request.reply.ok();
    Ok(())
}

fn setinfo(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (option, value) = (args[2], args[3]);
    let shown = String::from_utf8_lossy(option);
    let info = &request.client.info;
    let field = if is(option, "LIB-NAME") {
        &info.lib_name
    } else if is(option, "LIB-VER") {
        &info.lib_version
    } else {
        return Err(Error::new(format!("ERR Unrecognized option '{shown}'")));
    };
    if !is_valid_name(value) {
        let text = "cannot contain spaces, newlines or special characters.";
        return Err(Error::new(format!("ERR {shown} {text}")));
    }
    *field.lock() = Box::from(value);
    request.reply.ok();
    Ok(())
}

// --- INFO and LIST ---------------------------------------------------------------------------

/// What kinds of clients there are to LIST and KILL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Normal,
    /// There are none of these yet, but one may ask for them.
    Master,
    Replica,
    PubSub,
}

impl Type {
    fn parse(name: &[u8]) -> Result<Type> {
        let known = [
            ("normal", Type::Normal),
            ("slave", Type::Replica),
            ("replica", Type::Replica),
            ("pubsub", Type::PubSub),
            ("master", Type::Master),
        ];
        known.iter().find(|(word, _)| is(name, word)).map(|(_, kind)| *kind).ok_or_else(|| {
            let shown = String::from_utf8_lossy(name);
            Error::new(format!("ERR Unknown client type '{shown}'"))
        })
    }

    fn of(info: &ClientInfo) -> Type {
        if info.is_subscriber() { Type::PubSub } else { Type::Normal }
    }
}

/// One letter for each state a client is in.
fn flags(info: &ClientInfo) -> String {
    let tracker = info.tracker.lock().clone();
    let states = [
        ('O', info.is_monitor.load(Relaxed)),
        ('P', info.is_subscriber()),
        ('x', info.multi.load(Relaxed) >= 0),
        ('b', info.waiter.lock().is_some()),
        ('t', tracker.is_some()),
        ('R', tracker.as_ref().is_some_and(|tracker| tracker.is_broken.load(Relaxed))),
        ('B', tracker.as_ref().is_some_and(|tracker| tracker.mode == Mode::Broadcast)),
        ('A', info.is_closing.load(Relaxed)),
        ('U', info.is_unix_socket),
        ('e', info.no_evict.load(Relaxed)),
        ('T', info.no_touch.load(Relaxed)),
    ];
    let letters: String = states.iter().filter(|(_, is)| *is).map(|(letter, _)| letter).collect();
    if letters.is_empty() { "N".into() } else { letters }
}

/// Bytes of an output buffer that Redis would keep in the client itself; what is beyond them it
/// reports as `omem`, which tools watch.
pub const OUTPUT_BUFFER_BYTES: usize = 16 * 1024;

/// What is known of the client that asks only while its command runs.
struct Running {
    query_bytes: usize,
    argument_bytes: usize,
    unsent_bytes: usize,
}

impl Running {
    fn of(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Running {
        Running {
            query_bytes: request.lp.request_bytes.get(),
            argument_bytes: args.iter().map(|arg| arg.len()).sum(),
            unsent_bytes: request.reply.position(),
        }
    }
}

/// The line of CLIENT LIST about one client. It is printable: names are checked when they are set.
pub fn describe(info: &ClientInfo, now_ms: i64) -> String {
    line_about(info, now_ms, None)
}

fn line_about(info: &ClientInfo, now_ms: i64, running: Option<&Running>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let seconds_since = |ms: i64| (now_ms - ms).max(0) / 1000;
    let command = match info.last_command.load(Relaxed) {
        NO_COMMAND => "NULL",
        index => table().all[index].full_name,
    };
    let mut query_bytes = info.query_buffer_bytes.load(Relaxed);
    let mut argument_bytes = info.argument_bytes.load(Relaxed);
    let mut pending_bytes = info.output_buffer_bytes.load(Relaxed);
    let mut total_bytes = info.sum_of_parts();
    if let Some(running) = running {
        // Its request is in the buffer all connections of the worker share.
        query_bytes = running.query_bytes;
        argument_bytes = running.argument_bytes;
        pending_bytes = running.unsent_bytes;
        total_bytes += query_bytes + argument_bytes + pending_bytes;
    }
    let output_capacity_bytes = info.output_capacity_bytes.load(Relaxed).max(pending_bytes);
    let in_buffer_bytes = pending_bytes.min(OUTPUT_BUFFER_BYTES);
    let beyond_bytes = pending_bytes - in_buffer_bytes;
    let queued_bytes = info.multi_bytes.load(Relaxed);
    let mut line = String::with_capacity(400);
    // Writing to a string does not fail.
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} \
         multi={} watch={} qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll={} \
         omem={} tot-mem={} events={} cmd={} user={} redir={} resp={} capa={} lib-name={} lib-ver={} \
         tot-net-in={} tot-net-out={} tot-cmds={}",
        info.id,
        info.address,
        info.local_address,
        info.fd,
        text(&info.name.lock()),
        seconds_since(info.created_ms),
        seconds_since(info.last_active_ms.load(Relaxed)),
        flags(info),
        info.db.load(Relaxed),
        info.subscriptions.load(Relaxed),
        info.patterns.load(Relaxed),
        info.shard_subscriptions.load(Relaxed),
        info.multi.load(Relaxed),
        info.watching.load(Relaxed),
        query_bytes,
        info.query_buffer_free_bytes.load(Relaxed),
        argument_bytes,
        queued_bytes,
        output_capacity_bytes.min(OUTPUT_BUFFER_BYTES),
        in_buffer_bytes,
        in_buffer_bytes,
        usize::from(beyond_bytes > 0),
        beyond_bytes,
        total_bytes,
        if pending_bytes > 0 { "rw" } else { "r" },
        command,
        text(&info.user.lock().name),
        info.tracker.lock().as_ref().map_or(-1, |tracker| tracker.redirect_id() as i64),
        info.resp.load(Relaxed),
        capabilities(info),
        text(&info.lib_name.lock()),
        text(&info.lib_version.lock()),
        info.bytes_in.load(Relaxed),
        info.bytes_out.load(Relaxed),
        info.commands.load(Relaxed),
    );
    line
}

/// A letter for each thing the client has said it can do.
fn capabilities(info: &ClientInfo) -> &'static str {
    if info.follows_redirects.load(Relaxed) { "r" } else { "" }
}

/// What is unknown is left to the future.
fn capa(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if args[2..].iter().any(|capability| is(capability, "redirect")) {
        request.client.info.follows_redirects.store(true, Relaxed);
    }
    request.reply.ok();
    Ok(())
}

fn info(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let running = Running::of(request, args);
    let line = line_about(&request.client.info, request.lp.now_ms(), Some(&running)) + "\n";
    request.reply.verbatim("txt", line.as_bytes());
    Ok(())
}

fn list(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let clients = open_clients(request);
    let chosen: Vec<&Arc<ClientInfo>> = match &args[2..] {
        [] => clients.iter().collect(),
        [option, name] if is(option, "TYPE") => {
            let wanted = Type::parse(name)?;
            clients.iter().filter(|info| Type::of(info) == wanted).collect()
        }
        [option, ids @ ..]
            if is(option, "ID") && !ids.is_empty() && ids.iter().all(|id| !is_option(id)) =>
        {
            let mut chosen = Vec::with_capacity(ids.len());
            for id in ids {
                let id = integer(id).map_err(|_| Error::of("ERR Invalid client ID"))?;
                let found = clients.binary_search_by_key(&id, |info| info.id as i64);
                chosen.extend(found.ok().map(|at| &clients[at]));
            }
            chosen
        }
        options => {
            let is_user = |name: &[u8]| request.lp.server.acl.user(name).is_some();
            let filter = Filter::parse(options, is_user)?;
            let (me, now_ms) = (request.client.info.id, request.lp.now_ms());
            let may_be_it = |info: &ClientInfo| info.id != me || filter.may_be_me != Some(false);
            let fitting = clients.iter();
            fitting.filter(|info| may_be_it(info) && filter.fits(info, now_ms)).collect()
        }
    };
    let now_ms = request.lp.now_ms();
    let running = Running::of(request, args);
    let me = request.client.info.id;
    let lines = chosen.iter().map(|info| {
        let running = (info.id == me).then_some(&running);
        line_about(info, now_ms, running) + "\n"
    });
    let lines: String = lines.collect();
    request.reply.verbatim("txt", lines.as_bytes());
    Ok(())
}

/// All clients that are not being closed, by their ids.
fn open_clients(request: &Request<'_, '_>) -> Vec<Arc<ClientInfo>> {
    let clients = request.server().clients.lock();
    clients.values().filter(|info| !info.is_closing.load(Acquire)).cloned().collect()
}

// --- KILL and UNBLOCK ------------------------------------------------------------------------

/// Words that begin a filter of CLIENT LIST and KILL, each but the last two also with NOT- before it.
const FILTERS: &[&str] = &[
    "ID", "TYPE", "USER", "ADDR", "LADDR", "NAME", "FLAGS", "LIB-NAME", "LIB-VER", "DB", "CAPA",
    "IP", "MAXAGE", "IDLE",
];
const FILTERS_WITHOUT_NOT: &[&str] = &["MAXAGE", "IDLE"];

/// What a client must be, or must not be.
enum Trait<'a> {
    Ids(Vec<u64>),
    Type(Type),
    User(&'a [u8]),
    Address(&'a [u8]),
    LocalAddress(&'a [u8]),
    Name(&'a [u8]),
    Flags(&'a [u8]),
    LibName(&'a [u8]),
    LibVersion(&'a [u8]),
    Db(u32),
    Capabilities(&'a [u8]),
    Ip(&'a [u8]),
    AgeSeconds(i64),
    IdleSeconds(i64),
}

/// What CLIENT LIST and KILL look for: clients that fit everything that was given.
#[derive(Default)]
struct Filter<'a> {
    /// By their words; a word that comes again takes the place of the one before.
    traits: Vec<(&'static str, bool, Trait<'a>)>,
    may_be_me: Option<bool>,
}

fn is_option(arg: &[u8]) -> bool {
    filter_word(arg).is_some() || is(arg, "SKIPME")
}

/// The filter that an argument names, and whether it is turned round.
fn filter_word(arg: &[u8]) -> Option<(&'static str, bool)> {
    let (is_not, bare) = match arg.split_at_checked(4) {
        Some((not, bare)) if is(not, "NOT-") => (true, bare),
        _ => (false, arg),
    };
    let word = FILTERS.iter().find(|word| is(bare, word))?;
    (!is_not || !FILTERS_WITHOUT_NOT.contains(word)).then_some((*word, is_not))
}

impl<'a> Filter<'a> {
    fn parse(options: &[&'a [u8]], is_user: impl Fn(&[u8]) -> bool) -> Result<Filter<'a>> {
        let mut filter = Filter::default();
        let mut rest = options;
        while let [option, value, more @ ..] = rest {
            rest = more;
            if is(option, "SKIPME") {
                filter.may_be_me = Some(match value {
                    value if is(value, "YES") => false,
                    value if is(value, "NO") => true,
                    _ => return Err(Error::SYNTAX),
                });
                continue;
            }
            let (word, is_not) = filter_word(option).ok_or(Error::SYNTAX)?;
            let seconds = |name: &str| -> Result<i64> {
                let text = format!("ERR {name} is not an integer or out of range");
                let seconds = integer(value).map_err(|_| Error::new(text))?;
                let text = format!("ERR {name} should be greater than 0");
                if seconds > 0 { Ok(seconds) } else { Err(Error::new(text)) }
            };
            let wanted = match word {
                "ID" => {
                    let mut ids = vec![client_id(value)?];
                    while let [id, more @ ..] = rest
                        && data::number::parse_i64(id).is_some()
                    {
                        ids.push(client_id(id)?);
                        rest = more;
                    }
                    Trait::Ids(ids)
                }
                "TYPE" => Trait::Type(Type::parse(value)?),
                "USER" if !is_user(value) => {
                    let shown = String::from_utf8_lossy(value);
                    return Err(Error::new(format!("ERR No such user '{shown}'")));
                }
                "USER" => Trait::User(value),
                "ADDR" => Trait::Address(value),
                "LADDR" => Trait::LocalAddress(value),
                "NAME" => Trait::Name(value),
                "FLAGS" => Trait::Flags(value),
                "LIB-NAME" => Trait::LibName(value),
                "LIB-VER" => Trait::LibVersion(value),
                "DB" => {
                    let db = integer(value).ok().and_then(|db| u32::try_from(db).ok());
                    Trait::Db(db.ok_or(Error::of("ERR DB is not an integer or out of range"))?)
                }
                "CAPA" => Trait::Capabilities(value),
                "IP" => Trait::Ip(value),
                "MAXAGE" => Trait::AgeSeconds(seconds("maxage")?),
                _ => Trait::IdleSeconds(seconds("idle")?),
            };
            filter.traits.retain(|(other, other_not, _)| (*other, *other_not) != (word, is_not));
            filter.traits.push((word, is_not, wanted));
        }
        if rest.is_empty() { Ok(filter) } else { Err(Error::SYNTAX) }
    }

    fn fits(&self, info: &ClientInfo, now_ms: i64) -> bool {
        self.traits.iter().all(|(_, is_not, wanted)| wanted.is_of(info, now_ms) != *is_not)
    }
}

fn client_id(arg: &[u8]) -> Result<u64> {
    let id = integer(arg).ok().filter(|id| *id > 0);
    id.map(|id| id as u64).ok_or(Error::of("ERR client-id should be greater than 0"))
}

impl Trait<'_> {
    fn is_of(&self, info: &ClientInfo, now_ms: i64) -> bool {
        match *self {
            Trait::Ids(ref ids) => ids.contains(&info.id),
            Trait::Type(kind) => kind == Type::of(info),
            Trait::User(name) => *name == *info.user.lock().name,
            Trait::Address(address) => address == info.address.as_bytes(),
            Trait::LocalAddress(address) => address == info.local_address.as_bytes(),
            Trait::Name(name) => *name == **info.name.lock(),
            Trait::Flags(wanted) => {
                let flags = flags(info);
                wanted.iter().all(|flag| flags.as_bytes().contains(flag))
            }
            Trait::LibName(name) => *name == **info.lib_name.lock(),
            Trait::LibVersion(version) => *version == **info.lib_version.lock(),
            Trait::Db(db) => db == info.db.load(Relaxed),
            Trait::Capabilities(wanted) => {
                let own = capabilities(info);
                wanted.iter().all(|letter| own.as_bytes().contains(letter))
            }
            Trait::Ip(ip) => {
                let host = info.address.rsplit_once(':').map_or("", |(host, _)| host);
                ip == host.trim_start_matches('[').trim_end_matches(']').as_bytes()
            }
            Trait::AgeSeconds(age) => (now_ms - info.created_ms) / 1000 >= age,
            Trait::IdleSeconds(idle) => (now_ms - info.last_active_ms.load(Relaxed)) / 1000 >= idle,
        }
    }
}

fn kill(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let old_form = args.len() == 3;
    let filter = if old_form {
        let address = ("ADDR", false, Trait::Address(args[2]));
        Filter { traits: vec![address], may_be_me: Some(true) }
    } else {
        Filter::parse(&args[2..], |name| request.lp.server.acl.user(name).is_some())?
    };
    let now_ms = request.lp.now_ms();
    let me = request.client.info.id;
    let mut killed = 0;
    for info in open_clients(request) {
        let is_me = info.id == me;
        if (is_me && filter.may_be_me != Some(true)) || !filter.fits(&info, now_ms) {
            continue;
        }
        if is_me {
            request.client.close_after_reply = true;
        } else if !request.server().close_client(&info) {
            continue;
        }
        killed += 1;
    }
    match (old_form, killed) {
        (true, 0) => return Err(Error::of("ERR No such client")),
        (true, _) => request.reply.ok(),
        (false, _) => request.reply.integer(killed),
    }
    Ok(())
}

fn unblock(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let end = match &args[3..] {
        [] => WaitEnd::Timeout,
        [reason] if is(reason, "TIMEOUT") => WaitEnd::Timeout,
        [reason] if is(reason, "ERROR") => WaitEnd::Error,
        [_] => return Err(Error::of("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(wrong_arguments(args[1])),
    };
    let id = integer(args[2])?;
    let info = u64::try_from(id).ok().and_then(|id| {
        let clients = request.server().clients.lock();
        clients.get(&id).cloned()
    });
    // Whoever cancels the waiter answers the client: its timeout, a push, or this command.
    let unblocked = info.is_some_and(|info| {
        let cancelled = info.waiter.lock().as_ref().is_some_and(|waiter| waiter.cancel());
        if cancelled {
            request.server().send(&info, |to| Mail::WaitEnded(to, end));
        }
        cancelled
    });
    request.reply.integer(i64::from(unblocked));
    Ok(())
}

/// Some subcommands count their arguments themselves.
fn wrong_arguments(subcommand: &[u8]) -> Error {
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try CLIENT HELP.",
        String::from_utf8_lossy(subcommand)
    ))
}

// --- PAUSE -----------------------------------------------------------------------------------

fn pause(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let writes_only = match &args[3..] {
        [] => false,
        [mode] if is(mode, "ALL") => false,
        [mode] if is(mode, "WRITE") => true,
        [_] => return Err(Error::of("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(wrong_arguments(args[1])),
    };
    let timeout_ms =
        integer(args[2]).map_err(|_| Error::of("ERR timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(Error::TIMEOUT_NEGATIVE);
    }
    let now_ms = request.lp.now_ms();
    let until_ms = now_ms.checked_add(timeout_ms).ok_or(Error::TIMEOUT_RANGE)?;
    request.server().pause.extend(until_ms, writes_only, now_ms);
    request.reply.ok();
    Ok(())
}

fn unpause(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.server().pause.end();
    request.server().broadcast(|| Mail::Resume);
    request.reply.ok();
    Ok(())
}

// --- switches --------------------------------------------------------------------------------

fn reply(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let client: &mut Client = request.client;
    if is(args[2], "ON") {
        client.reply_mode = ReplyMode::On;
        request.reply.ok();
    } else if is(args[2], "OFF") {
        client.reply_mode = ReplyMode::Off;
    } else if is(args[2], "SKIP") {
        if client.reply_mode != ReplyMode::Off {
            client.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(Error::SYNTAX);
    }
    Ok(())
}

fn on_or_off(arg: &[u8]) -> Result<bool> {
    match arg {
        arg if is(arg, "ON") => Ok(true),
        arg if is(arg, "OFF") => Ok(false),
        _ => Err(Error::SYNTAX),
    }
}

fn no_evict(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let on = on_or_off(args[2])?;
    request.client.info.no_evict.store(on, Relaxed);
    request.reply.ok();
    Ok(())
}

fn no_touch(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let on = on_or_off(args[2])?;
    request.client.no_touch = on;
    request.client.info.no_touch.store(on, Relaxed);
    request.txn.set_no_touch(on);
    request.reply.ok();
    Ok(())
}

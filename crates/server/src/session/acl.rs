//! ACL.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use command::call::is;
use command::row::category;
use command::row::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result};

use crate::acl::log::{Context, Entry, Reason};
use crate::acl::{DEFAULT, Denied, Selector, User};
use crate::client::{Client, ClientInfo};
use crate::config::DIRECTIVES;
use crate::request::{Request, SessionHandler, row};
use crate::session::client::describe;
use crate::session::migrate;
use crate::table::{Registered, table};
use crate::worker::WorkerLoop;

const GROUP: Group = Group::Server;
const ANYBODY: u32 = LOADING | NOSCRIPT | STALE;
const USERS_COST: &str = "O(N) in the users.";
const EVERYWHERE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

/// Entries of ACL LOG that are shown unless told otherwise.
const LOG_SHOWN: i64 = 10;
/// Bits of a password that ACL GENPASS makes unless told otherwise.
const PASSWORD_BITS: i64 = 256;
const PASSWORD_BITS_MAX: i64 = 4096;

pub const TABLE: &[Command<SessionHandler>] = &[Command::container(
    GROUP,
    "acl",
    -2,
    &[
        row(GROUP, "cat", -2, cat)
            .flags(ANYBODY)
            .since("6.0.0")
            .complexity("O(1), as categories and commands are a fixed set.")
            .summary("Lists the categories, or the commands of one.")
            .syntax("[category]"),
        row(GROUP, "deluser", -3, deluser)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity("O(N) in the connected clients.")
            .tips(EVERYWHERE)
            .summary("Removes users and closes their connections.")
            .syntax("username [username ...]"),
        row(GROUP, "dryrun", -4, dryrun)
            .flags(ADMIN | ANYBODY)
            .since("7.0.0")
            .summary("Says whether a user may run a command, without running it.")
            .syntax("username command [arg [arg ...]]"),
        row(GROUP, "genpass", -2, genpass)
            .flags(ANYBODY)
            .since("6.0.0")
            .summary("Makes up a password.")
            .syntax("[bits]"),
        row(GROUP, "getuser", 3, getuser)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity("O(N) in the passwords and rules of the user.")
            .history(&[
                ("6.2.0", "Added Pub/Sub channel patterns."),
                (
                    "7.0.0",
                    "Added selectors and changed the format of key and channel patterns from a list \
                     to their rule representation.",
                ),
            ])
            .summary("Shows the rules of a user.")
            .syntax("username"),
        row(GROUP, "list", 2, list)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity(USERS_COST)
            .summary("Shows all users as lines of an ACL file."),
        row(GROUP, "load", 2, load)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity(USERS_COST)
            .summary("Reads the users from the ACL file again."),
        row(GROUP, "log", -2, log)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity("O(N) in the entries shown.")
            .history(&[("7.2.0", "Added entry ID, timestamp created, and timestamp last updated.")])
            .summary("Shows what was refused lately.")
            .syntax("[operation:(count | RESET)]"),
        row(GROUP, "save", 2, save)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity(USERS_COST)
            .tips(EVERYWHERE)
            .summary("Writes the users into the ACL file."),
        row(GROUP, "setuser", -3, setuser)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity("O(N) in the rules given.")
            .history(&[
                ("6.2.0", "Added Pub/Sub channel patterns."),
                ("7.0.0", "Added selectors and key based permissions."),
            ])
            .tips(EVERYWHERE)
            .summary("Makes a user or changes one.")
            .syntax("username [rule [rule ...]]"),
        row(GROUP, "users", 2, users)
            .flags(ADMIN | ANYBODY)
            .since("6.0.0")
            .complexity(USERS_COST)
            .summary("Lists the names of all users."),
        row(GROUP, "whoami", 2, whoami)
            .flags(ANYBODY)
            .since("6.0.0")
            .summary("Names the user of this connection."),
        row(GROUP, "help", 2, help)
            .flags(LOADING | STALE)
            .since("6.0.0")
            .summary("Says what ACL can do."),
    ],
)
.categories(0)
.since("6.0.0")
.complexity("Depends on subcommand.")
.summary("Holds the commands about users and what they may do.")];

/// Counts and logs a refusal and says it.
pub fn refused(
    lp: &WorkerLoop,
    client: &Client,
    denied: Denied,
    command: &Registered,
    args: &[&[u8]],
    context: Context,
) -> String {
    refused_to(lp, &client.info, &client.user.name, denied, command, args, context)
}

/// The same for a client of whom no more is at hand.
pub fn refused_to(
    lp: &WorkerLoop,
    info: &ClientInfo,
    user: &[u8],
    denied: Denied,
    command: &Registered,
    args: &[&[u8]],
    context: Context,
) -> String {
    note(lp, info, denied.reason(), context, denied.object(command, args), user);
    denied.text(user, command, args, false)
}

/// Counts and logs a refusal.
pub fn note(
    lp: &WorkerLoop,
    info: &ClientInfo,
    reason: Reason,
    context: Context,
    object: Vec<u8>,
    user: &[u8],
) {
    let stats = &lp.server.stats;
    let counter = match reason {
        Reason::Command => &stats.denied_commands,
        Reason::Key => &stats.denied_keys,
        Reason::Channel => &stats.denied_channels,
        Reason::Auth => &stats.auth_failures,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let now_ms = lp.now_ms();
    let entry = Entry {
        count: 0,
        reason,
        context,
        object,
        user: user.to_vec(),
        client: describe(info, now_ms),
        id: 0,
        created_ms: now_ms,
        updated_ms: now_ms,
    };
    let len_max = lp.server.config.current().acllog_max_len as usize;
    lp.server.acl.log.lock().add(entry, len_max);
}

/// The arguments as others may see them, in MONITOR and the slow log.
pub fn without_passwords<'a>(command: &Registered, args: &'a [&'a [u8]]) -> Cow<'a, [&'a [u8]]> {
    let hidden = match command.full_name {
        "auth" => 1..args.len(),
        "hello" => args.len().min(3)..args.len(),
        "acl|setuser" => args.len().min(3)..args.len(),
        "config|set" => args.len().min(2)..args.len(),
        "migrate" => migrate::credentials(args),
        _ => return Cow::Borrowed(args),
    };
    let is_secret = |at: usize| match command.full_name {
        // Values behind the names of passwords.
        "config|set" => at % 2 == 1 && names_password(args[at - 1]),
        _ => true,
    };
    let show = |(at, arg): (usize, &&'a [u8])| match hidden.contains(&at) && is_secret(at) {
        true => &b"(redacted)"[..],
        false => *arg,
    };
    Cow::Owned(args.iter().enumerate().map(show).collect())
}

fn names_password(directive: &[u8]) -> bool {
    let name = String::from_utf8_lossy(directive).to_ascii_lowercase();
    DIRECTIVES.iter().any(|known| known.name == name && known.traits.sensitive)
}

fn cat(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    match &args[2..] {
        [] => {
            request.reply.array(category::NAMES.len());
            for (_, name) in category::NAMES {
                request.reply.bulk(&name.as_bytes()[1..]);
            }
            Ok(())
        }
        [wanted] => {
            let is_it =
                |(_, name): &&(u32, &str)| name.as_bytes()[1..].eq_ignore_ascii_case(wanted);
            let Some((bit, _)) = category::NAMES.iter().find(is_it) else {
                let wanted = String::from_utf8_lossy(wanted);
                return Err(Error::new(format!("ERR Unknown category '{wanted}'")));
            };
            let all = table().all.iter();
            let names: Vec<&str> = all
                .filter(|command| command.row.all_categories() & bit != 0)
                .map(|command| command.full_name)
                .collect();
            request.reply.array(names.len());
            names.iter().for_each(|name| request.reply.bulk(name.as_bytes()));
            Ok(())
        }
        _ => Err(arity(args[1])),
    }
}

/// What Redis says of a subcommand whose number of arguments its row lets through.
fn arity(subcommand: &[u8]) -> Error {
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try ACL HELP.",
        String::from_utf8_lossy(subcommand)
    ))
}

fn setuser(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let name = args[2];
    if name.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b)) {
        return Err(Error::of("ERR Usernames can't contain spaces or null characters"));
    }
    let acl = &request.server().acl;
    acl.set_user(name, &args[3..], request.config())?;
    if let Some(user) = acl.user(name) {
        close_listeners(request, &user);
    }
    request.reply.ok();
    Ok(())
}

/// Closes the connections of a user that listen to channels it may not listen to any more.
fn close_listeners(request: &mut Request<'_, '_>, user: &Arc<User>) {
    let rules = user.rules();
    let denied = request.server().pubsub.listeners_where(|info, name, is_pattern| {
        Arc::ptr_eq(&info.user.lock(), user) && !rules.allows_channel(name, is_pattern)
    });
    for info in denied {
        close(request, &info);
    }
}

fn close(request: &mut Request<'_, '_>, info: &crate::client::ClientInfo) {
    match info.id == request.client.info.id {
        true => request.client.close_after_reply = true,
        false => _ = request.server().close_client(info),
    }
}

/// Closes all connections of these users.
fn close_clients(request: &mut Request<'_, '_>, users: &[Arc<User>]) {
    let clients: Vec<_> = request.server().clients.lock().values().cloned().collect();
    for info in clients {
        let user = info.user.lock().clone();
        if users.iter().any(|gone| Arc::ptr_eq(gone, &user)) {
            close(request, &info);
        }
    }
}

fn deluser(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    if args[2..].contains(&DEFAULT) {
        return Err(Error::of("ERR The 'default' user cannot be removed"));
    }
    let gone = request.server().acl.remove(&args[2..]);
    close_clients(request, &gone);
    request.reply.integer(gone.len() as i64);
    Ok(())
}

fn getuser(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(user) = request.server().acl.user(args[2]) else {
        request.reply.null();
        return Ok(());
    };
    let rules = user.rules();
    let reply = &mut request.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags = rules.flags();
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    let passwords: Vec<String> = rules.passwords().collect();
    reply.array(passwords.len());
    passwords.iter().for_each(|digits| reply.bulk(digits.as_bytes()));
    let show = |reply: &mut resp::Reply<'_>, selector: &Selector| {
        reply.bulk(b"commands");
        reply.bulk(selector.commands_text().as_bytes());
        reply.bulk(b"keys");
        reply.bulk(&selector.keys_text());
        reply.bulk(b"channels");
        reply.bulk(&selector.channels_text());
    };
    let selectors: Vec<&Selector> = rules.selectors().collect();
    show(reply, selectors[0]);
    reply.bulk(b"selectors");
    reply.array(selectors.len() - 1);
    for selector in &selectors[1..] {
        reply.map(3);
        show(reply, selector);
    }
    Ok(())
}

fn list(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let lines = request.server().acl.lines();
    request.reply.array(lines.len());
    lines.iter().for_each(|line| request.reply.bulk(line));
    Ok(())
}

fn users(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let users = request.server().acl.users();
    request.reply.array(users.len());
    users.iter().for_each(|user| request.reply.bulk(&user.name));
    Ok(())
}

fn whoami(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.reply.bulk(&request.client.user.name);
    Ok(())
}

fn genpass(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let bits = match &args[2..] {
        [] => PASSWORD_BITS,
        [bits] => command::call::integer(bits)?,
        _ => return Err(arity(args[1])),
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Err(Error::of(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to 4096",
        ));
    }
    let mut bytes = vec![0; (bits as usize).div_ceil(8)];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(format!("ERR no random numbers to be had: {error}")))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    request.reply.bulk(&digits.as_bytes()[..(bits as usize).div_ceil(4)]);
    Ok(())
}

fn dryrun(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(user) = request.server().acl.user(args[2]) else {
        let name = String::from_utf8_lossy(args[2]);
        return Err(Error::new(format!("ERR User '{name}' not found")));
    };
    let wanted = &args[3..];
    let Some(command) = table().resolve(wanted) else {
        let name = String::from_utf8_lossy(wanted[0]);
        return Err(Error::new(format!("ERR Command '{name}' not found")));
    };
    if !command.row.accepts(wanted.len()) {
        return Err(Error::arity(command.full_name));
    }
    match user.check(command, wanted) {
        Ok(()) => request.reply.ok(),
        Err(denied) => {
            let text = denied.text(&user.name, command, wanted, true);
            request.reply.bulk(text.as_bytes());
        }
    }
    Ok(())
}

const NO_FILE: Error = Error::of(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users \
     via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis \
     configuration file set) in order to store users in the Redis configuration.",
);

fn load(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    if request.config().aclfile.is_empty() {
        return Err(NO_FILE);
    }
    let server = request.server();
    let path = request.config().aclfile.as_path().to_owned();
    match server.acl.load(&path, request.config()) {
        Ok(affected) => {
            // The default user stays, whatever it may do now.
            let others: Vec<_> =
                affected.into_iter().filter(|user| *user.name != *DEFAULT).collect();
            close_clients(request, &others);
            let default = server.acl.default_user().clone();
            close_listeners(request, &default);
            request.reply.ok();
            Ok(())
        }
        Err(text) => Err(Error::new(format!("ERR {text}"))),
    }
}

fn save(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    if request.config().aclfile.is_empty() {
        return Err(NO_FILE);
    }
    if let Err(error) = request.server().acl.save(request.config().aclfile.as_path()) {
        crate::log_warning!("ACL SAVE failed: {}", crate::config::reason(&error));
        return Err(Error::of(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more \
             information",
        ));
    }
    request.reply.ok();
    Ok(())
}

fn log(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let server = request.server();
    let count = match &args[2..] {
        [] => LOG_SHOWN,
        [word] if is(word, "RESET") => {
            server.acl.log.lock().clear();
            request.reply.ok();
            return Ok(());
        }
        [count] => command::call::integer(count)?,
        _ => return Err(arity(args[1])),
    };
    let entries = server.acl.log.lock().latest(count.max(0) as usize);
    let now_ms = request.lp.now_ms();
    let reply = &mut request.reply;
    reply.array(entries.len());
    for entry in &entries {
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(entry.count as i64);
        for (field, value) in [
            ("reason", entry.reason.name().as_bytes()),
            ("context", entry.context.name().as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ] {
            reply.bulk(field.as_bytes());
            reply.bulk(value);
        }
        reply.bulk(b"age-seconds");
        reply.double((now_ms - entry.updated_ms) as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(entry.client.as_bytes());
        for (field, value) in [
            ("entry-id", entry.id as i64),
            ("timestamp-created", entry.created_ms),
            ("timestamp-last-updated", entry.updated_ms),
        ] {
            reply.bulk(field.as_bytes());
            reply.integer(value);
        }
    }
    Ok(())
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "ACL",
        &[
            "CAT [<category>]",
            "    The categories of commands, or the commands of one.",
            "DELUSER <username> [<username> ...]",
            "    Remove users and close their connections.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Whether the user may run the command, which is not run.",
            "GENPASS [<bits>]",
            "    Make up a password of 256 bits, or of as many as given.",
            "GETUSER <username>",
            "    The rules of a user.",
            "LIST",
            "    All users as lines of an ACL file.",
            "LOAD",
            "    Read the ACL file again.",
            "LOG [<count> | RESET]",
            "    What was refused lately.",
            "SAVE",
            "    Write the ACL file.",
            "SETUSER <username> <rule> [<rule> ...]",
            "    Make a user or change one.",
            "USERS",
            "    The names of all users.",
            "WHOAMI",
            "    The user of this connection.",
        ],
    );
    Ok(())
}

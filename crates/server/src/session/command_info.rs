//! COMMAND: what commands there are, as their rows tell.

use command::call::is;
use command::keys::{Begin, Find, KeySpec, key_flag};
use command::row::flag::{LOADING, STALE};
use command::row::{category, flag};
use command::syntax::{self, Argument, Kind};
use command::{Command, Error, Group, Result, Row};
use resp::Reply;

use crate::request::{Request, SessionHandler, row};
use crate::table::{Registered, table};

const GROUP: Group = Group::Server;
const COMMON: u32 = LOADING | STALE;
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

pub const TABLE: &[Command<SessionHandler>] = &[row(GROUP, "command", -1, command)
    .flags(COMMON)
    .categories(category::CONNECTION)
    .since("2.8.13")
    .complexity("O(N) in the commands")
    .tips(ANY_ORDER)
    .summary("Describes all commands.")
    .subcommands(&[
        subcommand("count", 2, count)
            .since("2.8.13")
            .summary("Answers how many commands there are."),
        subcommand("docs", -2, docs)
            .since("7.0.0")
            .complexity("O(N) in the commands asked for")
            .tips(ANY_ORDER)
            .summary("Answers what people want to know of commands.")
            .syntax("[command-name [command-name ...]]"),
        subcommand("getkeys", -3, getkeys)
            .since("2.8.13")
            .complexity("O(N) in the arguments of the command")
            .summary("Picks the keys out of a command.")
            .syntax("command [arg [arg ...]]"),
        subcommand("getkeysandflags", -3, getkeysandflags)
            .since("7.0.0")
            .complexity("O(N) in the arguments of the command")
            .summary("Picks the keys out of a command, with what is done to them.")
            .syntax("command [arg [arg ...]]"),
        subcommand("help", 2, help).since("5.0.0").summary("Says what COMMAND can do."),
        subcommand("info", -2, info)
            .since("2.8.13")
            .complexity("O(N) in the commands asked for")
            .tips(ANY_ORDER)
            .history(&[(
                "7.0.0",
                "Allowed to be called with no argument to get info on all commands.",
            )])
            .summary("Describes commands for programs.")
            .syntax("[command-name [command-name ...]]"),
        subcommand("list", -2, list)
            .since("7.0.0")
            .complexity("O(N) in the commands")
            .tips(ANY_ORDER)
            .summary("Answers the names of commands.")
            .syntax("[FILTERBY filterby:(MODULE module-name | ACLCAT category | PATTERN pattern)]"),
    ])];

const fn subcommand(
    name: &'static str,
    arity: i16,
    handler: SessionHandler,
) -> Command<SessionHandler> {
    row(GROUP, name, arity, handler).flags(COMMON).categories(category::CONNECTION)
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Describe all commands.",
            "COUNT",
            "    How many commands there are.",
            "DOCS [<command-name> ...]",
            "    What people want to know of all commands, or of these.",
            "GETKEYS <full-command>",
            "    The keys of a command with its arguments.",
            "GETKEYSANDFLAGS <full-command>",
            "    The keys of a command, and what it does to them.",
            "INFO [<command-name> ...]",
            "    Describe all commands, or these.",
            "LIST [FILTERBY (MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>)]",
            "    The names of all commands, or of some.",
        ],
    );
    Ok(())
}

fn top_level() -> impl Iterator<Item = &'static Registered> {
    table().all.iter().filter(|command| command.parent.is_none())
}

fn subcommands(command: &Registered) -> impl ExactSizeIterator<Item = &'static Registered> {
    command.subcommands.iter().map(|&id| &table().all[id])
}

fn count(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.reply.integer(top_level().count() as i64);
    Ok(())
}

/// What COMMAND LIST looks for.
enum Filter<'a> {
    All,
    /// There are no modules, hence no commands of one.
    Module,
    /// A set of ACL categories.
    Categories(u32),
    Pattern(&'a [u8]),
}

fn list(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let filter = match &args[2..] {
        [] => Filter::All,
        [option, by, value] if is(option, "FILTERBY") => match by {
            by if is(by, "MODULE") => Filter::Module,
            by if is(by, "ACLCAT") => Filter::Categories(category_named(value)),
            by if is(by, "PATTERN") => Filter::Pattern(value),
            _ => return Err(Error::SYNTAX),
        },
        _ => return Err(Error::SYNTAX),
    };
    let fits = |command: &&Registered| match filter {
        Filter::All => true,
        Filter::Module => false,
        Filter::Categories(wanted) => command.row.all_categories() & wanted != 0,
        Filter::Pattern(pattern) => {
            data::glob::matches(pattern, command.full_name.as_bytes(), true)
        }
    };
    let found: Vec<&Registered> = table().all.iter().filter(fits).collect();
    request.reply.array(found.len());
    for command in found {
        request.reply.bulk(command.full_name.as_bytes());
    }
    Ok(())
}

/// An ACL category by its name without `@`; no bits when there is none.
fn category_named(name: &[u8]) -> u32 {
    let known = category::NAMES.iter().find(|(_, known)| is(name, &known[1..]));
    known.map_or(0, |(bits, _)| *bits)
}

// --- INFO ------------------------------------------------------------------------------------

fn command(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    all_info(&mut request.reply);
    Ok(())
}

fn all_info(reply: &mut Reply<'_>) {
    let all: Vec<_> = top_level().collect();
    reply.array(all.len());
    all.into_iter().for_each(|command| write_info(reply, command));
}

fn info(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let reply = &mut request.reply;
    if args.len() == 2 {
        all_info(reply);
        return Ok(());
    }
    reply.array(args.len() - 2);
    for name in &args[2..] {
        match table().by_name(name) {
            Some(command) => write_info(reply, command),
            None => reply.null(),
        }
    }
    Ok(())
}

fn write_info(reply: &mut Reply<'_>, command: &Registered) {
    let row = command.row;
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.integer(i64::from(row.arity));
    write_set(reply, row.flags, flag::NAMES);
    let (first, last, step) = row.legacy_range();
    for position in [first, last, step] {
        reply.integer(position);
    }
    write_set(reply, row.all_categories(), category::NAMES);
    reply.set(row.tips.len());
    row.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(row.keys.len());
    row.keys.iter().for_each(|spec| write_key_spec(reply, spec));
    reply.set(command.subcommands.len());
    subcommands(command).for_each(|subcommand| write_info(reply, subcommand));
}

/// A bit set as a set of names.
fn write_set<B>(reply: &mut Reply<'_>, set: B, names: &[(B, &str)])
where
    B: Copy + std::ops::BitAnd<Output = B> + PartialEq + Default,
{
    let is_in = |(bit, _): &&(B, &str)| set & *bit != B::default();
    reply.set(names.iter().filter(is_in).count());
    names.iter().filter(is_in).for_each(|(_, name)| reply.status(name));
}

fn write_key_spec(reply: &mut Reply<'_>, spec: &KeySpec) {
    let has_notes = !spec.notes.is_empty();
    reply.map(3 + usize::from(has_notes));
    if has_notes {
        reply.bulk(b"notes");
        reply.bulk(spec.notes.as_bytes());
    }
    reply.bulk(b"flags");
    write_set(reply, spec.flags, key_flag::NAMES);
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => write_step(reply, "index", &[("index", index)]),
        Begin::Keyword(word, from) => {
            write_type(reply, "keyword");
            reply.map(2);
            reply.bulk(b"keyword");
            reply.bulk(word.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(i64::from(from));
        }
        Begin::Unknown => write_step(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let fields = [("lastkey", last), ("keystep", step), ("limit", limit)];
            write_step(reply, "range", &fields);
        }
        Find::KeyNum { at, first, step } => {
            let fields = [("keynumidx", at), ("firstkey", first), ("keystep", step)];
            write_step(reply, "keynum", &fields);
        }
        Find::Unknown => write_step(reply, "unknown", &[]),
    }
}

/// One of the two steps in which a key spec finds keys.
fn write_step(reply: &mut Reply<'_>, kind: &str, fields: &[(&str, i16)]) {
    write_type(reply, kind);
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.integer(i64::from(*value));
    }
}

fn write_type(reply: &mut Reply<'_>, kind: &str) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
}

// --- DOCS ------------------------------------------------------------------------------------

fn docs(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let commands: Vec<&Registered> = if args.len() == 2 {
        top_level().collect()
    } else {
        args[2..].iter().filter_map(|name| table().by_name(name)).collect()
    };
    request.reply.map(commands.len());
    for command in commands {
        request.reply.bulk(command.full_name.as_bytes());
        write_docs(&mut request.reply, command);
    }
    Ok(())
}

fn write_docs(reply: &mut Reply<'_>, command: &Registered) {
    let row = command.row;
    let deferred = reply.deferred_array();
    let mut fields = 4;
    let words = [
        ("summary", row.summary),
        ("since", row.since),
        ("group", row.group.name()),
        ("complexity", row.complexity),
    ];
    for (field, value) in words {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if let Some((since, replaced_by)) = row.deprecated {
        fields += 3;
        reply.bulk(b"doc_flags");
        reply.set(1);
        reply.status("deprecated");
        reply.bulk(b"deprecated_since");
        reply.bulk(since.as_bytes());
        reply.bulk(b"replaced_by");
        reply.bulk(replaced_by.as_bytes());
    }
    if !row.history.is_empty() {
        fields += 1;
        reply.bulk(b"history");
        reply.set(row.history.len());
        for (version, change) in row.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
    }
    let arguments = arguments(row);
    if !arguments.is_empty() {
        fields += 1;
        reply.bulk(b"arguments");
        write_arguments(reply, &arguments);
    }
    if !command.subcommands.is_empty() {
        fields += 1;
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        for subcommand in subcommands(command) {
            reply.bulk(subcommand.full_name.as_bytes());
            write_docs(reply, subcommand);
        }
    }
    reply.finish_map(deferred, fields);
}

/// The arguments of a row. A line that cannot be read is a mistake that a test finds; here it
/// counts as none.
fn arguments(row: &Row) -> Vec<Argument> {
    syntax::parse(row.syntax, row.keys.len()).unwrap_or_default()
}

fn write_arguments(reply: &mut Reply<'_>, arguments: &[Argument]) {
    reply.array(arguments.len());
    for argument in arguments {
        let deferred = reply.deferred_array();
        let mut fields = 2;
        let field = |reply: &mut Reply<'_>, name: &str, value: &str| {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        };
        field(reply, "name", &argument.name);
        field(reply, "type", argument.kind.name());
        let is_group = matches!(argument.kind, Kind::OneOf | Kind::Block);
        if !is_group {
            fields += 1;
            field(reply, "display_text", argument.display.as_ref().unwrap_or(&argument.name));
        }
        if let Some(spec) = argument.key_spec {
            fields += 1;
            reply.bulk(b"key_spec_index");
            reply.integer(spec as i64);
        }
        if let Some(token) = &argument.token {
            fields += 1;
            field(reply, "token", token);
        }
        let flags: Vec<&str> = [
            (argument.optional, "optional"),
            (argument.multiple, "multiple"),
            (argument.multiple_token, "multiple_token"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
        .collect();
        if !flags.is_empty() {
            fields += 1;
            reply.bulk(b"flags");
            reply.set(flags.len());
            flags.into_iter().for_each(|flag| reply.status(flag));
        }
        if is_group {
            fields += 1;
            reply.bulk(b"arguments");
            write_arguments(reply, &argument.arguments);
        }
        reply.finish_map(deferred, fields);
    }
}

// --- GETKEYS ---------------------------------------------------------------------------------

/// The keys of a command given with its arguments: their positions, and what is done to them.
fn keys_of(args: &[&[u8]]) -> Result<Vec<(usize, u16)>> {
    let Some(command) = table().resolve(args) else {
        return Err(Error::of("ERR Invalid command specified"));
    };
    let row = command.row;
    if row.keys.iter().all(|spec| spec.flags & key_flag::NOT_KEY != 0) {
        return Err(Error::of("ERR The command has no key arguments"));
    }
    if !row.accepts(args.len()) {
        return Err(Error::of("ERR Invalid number of arguments specified for command"));
    }
    match row.keys_with_flags(args) {
        Ok(keys) if !keys.is_empty() => Ok(keys),
        _ if row.has(flag::NO_MANDATORY_KEYS) => Ok(Vec::new()),
        _ => Err(Error::of("ERR Invalid arguments specified for command")),
    }
}

fn getkeys(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let args = &args[2..];
    let keys = keys_of(args)?;
    request.reply.array(keys.len());
    for (at, _) in keys {
        request.reply.bulk(args[at]);
    }
    Ok(())
}

fn getkeysandflags(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let args = &args[2..];
    let keys = keys_of(args)?;
    request.reply.array(keys.len());
    for (at, flags) in keys {
        request.reply.array(2);
        request.reply.bulk(args[at]);
        write_set(&mut request.reply, flags, key_flag::NAMES);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syntax_line_can_be_read() {
        let wrong = |command: &Registered| {
            let error = syntax::parse(command.row.syntax, command.row.keys.len()).err()?;
            Some(format!("{}: {}: {error}", command.full_name, command.row.syntax))
        };
        let wrong: Vec<String> = table().all.iter().filter_map(wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Commands that take arguments without saying which, as in Redis.
    const TAKE_ANYTHING: [&str; 3] = ["command", "debug", "quit"];

    /// A command whose arity is fixed takes exactly the arguments of its syntax line, and others may
    /// have more.
    #[test]
    fn syntax_lines_agree_with_the_arity() {
        let mut wrong = Vec::new();
        for command in table().all.iter().filter(|command| command.run.is_some()) {
            let row = command.row;
            let names = 1 + usize::from(command.parent.is_some());
            let (least, most) = counts(&arguments(row));
            let (least, most) = (names + least, most.map(|most| names + most));
            let arity = usize::from(row.arity.unsigned_abs());
            let agrees = match row.arity {
                1.. => least == arity && most == Some(arity),
                // Some check more themselves, so that the error is theirs.
                _ if TAKE_ANYTHING.contains(&row.name) => row.syntax.is_empty(),
                _ => least >= arity && most != Some(arity),
            };
            if !agrees {
                wrong.push((command.full_name, row.arity, row.syntax, least, most));
            }
        }
        assert_eq!(wrong, []);
    }

    /// The least and the most words (`None`: any number) that arguments take.
    fn counts(arguments: &[Argument]) -> (usize, Option<usize>) {
        let mut sum = (0, Some(0));
        for argument in arguments {
            let (least, most) = match argument.kind {
                Kind::PureToken => (0, Some(0)),
                Kind::Block => counts(&argument.arguments),
                Kind::OneOf => {
                    // Once chosen, it is there.
                    let one = |argument: &Argument| {
                        counts(&[Argument { optional: false, ..argument.clone() }])
                    };
                    let (least, most): (Vec<_>, Vec<_>) =
                        argument.arguments.iter().map(one).unzip();
                    let most: Option<Vec<_>> = most.into_iter().collect();
                    (least.into_iter().min().unwrap_or(0), most.and_then(|m| m.into_iter().max()))
                }
                _ => (1, Some(1)),
            };
            let token = usize::from(argument.token.is_some());
            let least = if argument.optional { 0 } else { least + token };
            let most = if argument.multiple { None } else { most.map(|most| most + token) };
            sum = (sum.0 + least, sum.1.zip(most).map(|(a, b)| a + b));
        }
        sum
    }
}

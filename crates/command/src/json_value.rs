//! Numbers, texts, booleans and objects in JSON documents, and what empties or shows values.

use data::json::{Node, Object, Path, Place};
use resp::{Protocol, Reply};

use crate::call::{Call, Handler, is, paced};
use crate::error::{Error, Result};
use crate::json::{
    CHANGE, MISSING_KEY, MISSING_PATH, READ, at_most, copies_fit, deepest_first, path, read,
    read_or_null, reply_fits, reply_number, value, write,
};
use crate::keys::{Begin, Find, KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, READONLY, WRITE};
use crate::row::{Command, Group};

const AFTER_MEMORY: &[KeySpec] = &[KeySpec {
    begin: Begin::Keyword("MEMORY", 1),
    find: Find::Range { last: 0, step: 1, limit: 0 },
    flags: k::RO,
    notes: "",
}];

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Json, "json.clear", -2, json_clear)
        .flags(WRITE)
        .keys(CHANGE)
        .since("2.0.0")
        .complexity("O(N) for documents of N nodes.")
        .summary("Empties arrays and objects, and sets numbers to 0.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.debug", -2, json_debug)
        .flags(READONLY)
        .keys(AFTER_MEMORY)
        .complexity("O(N) for documents of N nodes.")
        .summary("Answers how much memory values take, or which subcommands there are.")
        .syntax("subcommand:(MEMORY | HELP) [key] [path]"),
    Command::new(Group::Json, "json.numincrby", 4, json_numincrby)
        .flags(WRITE)
        .keys(CHANGE)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Adds to numbers.")
        .syntax("key path value:double"),
    Command::new(Group::Json, "json.nummultby", 4, json_nummultby)
        .flags(WRITE)
        .keys(CHANGE)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Multiplies numbers.")
        .syntax("key path value:double"),
    Command::new(Group::Json, "json.objkeys", -2, json_objkeys)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for objects of N members, or documents of N nodes.")
        .summary("Answers the names of the members of objects.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.objlen", -2, json_objlen)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Answers how many members objects have.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.resp", -2, json_resp)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for documents of N nodes.")
        .summary("Answers values in the types of the protocol.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.strappend", -3, json_strappend)
        .flags(WRITE | DENYOOM)
        .keys(CHANGE)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Adds letters behind strings.")
        .syntax("key [path] text"),
    Command::new(Group::Json, "json.strlen", -2, json_strlen)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Answers how long strings are, in bytes.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.toggle", 3, json_toggle)
        .flags(WRITE)
        .keys(CHANGE)
        .since("2.0.0")
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Turns true to false and false to true.")
        .syntax("key path"),
];

pub(crate) fn missing_or(what: &str) -> Error {
    Error::new(format!("ERR Path does not exist or {what}"))
}

pub(crate) fn expected(what: &str) -> Error {
    Error::new(format!("WRONGTYPE wrong type of path value - expected {what}"))
}

/// Answers a number for each match that has one, or for the first with a legacy path.
pub(crate) fn reply_counts(call: &mut Call<'_, '_>, path: &Path, counts: &[Option<i64>]) {
    let reply = |reply: &mut Reply<'_>, count: &Option<i64>| match count {
        Some(count) => reply.integer(*count),
        None => reply.null(),
    };
    if path.is_legacy() {
        reply(&mut call.reply, counts.first().unwrap_or(&None));
        return;
    }
    call.reply.array(counts.len());
    for count in paced(call.txn, counts.iter()) {
        reply(&mut call.reply, count);
    }
}

/// A command that answers a number for each value of a kind and changes nothing.
fn reply_measures(
    call: &mut Call<'_, '_>,
    key: &[u8],
    path: &Path,
    measure: impl Fn(&Node) -> Option<usize>,
    errors: (Error, Option<Error>, Error),
) -> Result {
    let (missing_key, missing_path, wrong_kind) = errors;
    let Some(json) = read_or_null(call.txn, &mut call.reply, key, path, missing_key)? else {
        return Ok(());
    };
    let found = path.select(json)?;
    let counts: Vec<Option<i64>> =
        found.into_iter().map(|node| measure(node).map(|count| count as i64)).collect();
    if path.is_legacy() {
        match (counts.first(), missing_path) {
            (None, Some(error)) => return Err(error),
            (Some(None), _) => return Err(wrong_kind),
            _ => {}
        }
    }
    reply_counts(call, path, &counts);
    Ok(())
}

fn json_strlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let measure = |node: &Node| node.as_str().map(str::len);
    let errors = (MISSING_KEY, Some(MISSING_PATH), expected("string"));
    reply_measures(call, args[1], &path, measure, errors)
}

fn json_objlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let measure = |node: &Node| node.as_object().map(Object::len);
    let errors = (missing_or("not an object"), None, expected("object"));
    reply_measures(call, args[1], &path, measure, errors)
}

fn json_objkeys(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let json = read_or_null(call.txn, &mut call.reply, args[1], &path, MISSING_KEY)?;
    let Some(json) = json else { return Ok(()) };
    let reply = |reply: &mut Reply<'_>, node: &Node| match node.as_object() {
        Some(object) => {
            reply.array(object.len());
            object.iter().for_each(|(name, _)| reply.bulk(name.as_bytes()));
        }
        None => reply.null(),
    };
    let found = path.select(json)?;
    if !path.is_legacy() {
        call.reply.array(found.len());
        for node in paced(call.txn, found.into_iter()) {
            reply(&mut call.reply, node);
        }
        return Ok(());
    }
    match found.first() {
        Some(node) if node.as_object().is_none() => return Err(missing_or("not an object")),
        Some(node) => reply(&mut call.reply, node),
        None => call.reply.null(),
    }
    Ok(())
}

fn json_resp(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let Some(json) = read(call.txn, args[1])? else {
        call.reply.null();
        return Ok(());
    };
    let found = path.select(json)?;
    let start = call.reply.position();
    if path.is_legacy() {
        reply_resp(found.first().ok_or(MISSING_PATH)?, &mut call.reply);
        return Ok(());
    }
    call.reply.array(found.len());
    for node in paced(call.txn, found.into_iter()) {
        reply_resp(node, &mut call.reply);
        reply_fits(&call.reply, start, call.bulk_bytes_max)?;
    }
    Ok(())
}

fn reply_resp(node: &Node, reply: &mut Reply<'_>) {
    match node {
        Node::Null => reply.null(),
        Node::Bool(value) => reply.status(if *value { "true" } else { "false" }),
        Node::Int(value) => reply.integer(*value),
        Node::Unsigned(_) | Node::Float(_) => {
            let mut text = Vec::new();
            node.write(&mut text);
            reply.bulk(&text);
        }
        Node::Text(text) => reply.bulk(text.as_str().as_bytes()),
        Node::Array(nodes) => {
            reply.array(nodes.len() + 1);
            reply.status("[");
            nodes.iter().for_each(|node| reply_resp(node, reply));
        }
        Node::Object(object) => {
            reply.array(2 * object.len() + 1);
            reply.status("{");
            for (name, node) in object.iter() {
                reply.bulk(name.as_bytes());
                reply_resp(node, reply);
            }
        }
    }
}

fn json_debug(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    if is(args[1], "HELP") {
        call.reply.array(2);
        call.reply.bulk(b"MEMORY <key> [path] - reports memory usage");
        call.reply.bulk(b"HELP                - this message");
        return Ok(());
    }
    if !is(args[1], "MEMORY") {
        return Err(Error::of("ERR unknown subcommand - try `JSON.DEBUG HELP`"));
    }
    let key = args.get(2).ok_or_else(|| Error::arity("json.debug"))?;
    let path = path(args.get(3))?;
    let Some(json) = read(call.txn, key)? else {
        match path.is_legacy() {
            true => call.reply.integer(0),
            false => call.reply.array(0),
        }
        return Ok(());
    };
    let bytes = |node: &&Node| Some((size_of::<Node>() + node.heap_bytes()) as i64);
    let found = path.select(json)?;
    if path.is_legacy() && found.is_empty() {
        return Err(MISSING_PATH);
    }
    let counts: Vec<Option<i64>> = paced(call.txn, found.iter()).map(bytes).collect();
    reply_counts(call, &path, &counts);
    Ok(())
}

#[derive(Clone, Copy)]
enum Operation {
    Add,
    Multiply,
}

fn json_numincrby(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    calculate(call, args, Operation::Add)
}

fn json_nummultby(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    calculate(call, args, Operation::Multiply)
}

/// Integers stay integers as long as both are within 64 bits with a sign.
fn result(node: &Node, operation: Operation, by: &Node) -> Result<Node> {
    if let (Node::Int(left), Node::Int(right)) = (node, by) {
        let result = match operation {
            Operation::Add => left.checked_add(*right),
            Operation::Multiply => left.checked_mul(*right),
        };
        return result.map(Node::Int).ok_or(Error::of("ERR numeric overflow"));
    }
    let result = node.as_f64().zip(by.as_f64()).map(|(left, right)| match operation {
        Operation::Add => left + right,
        Operation::Multiply => left * right,
    });
    let result = result.filter(|result| result.is_finite());
    result.map(Node::Float).ok_or(Error::of("ERR result is not a number"))
}

fn calculate(call: &mut Call<'_, '_>, args: &[&[u8]], operation: Operation) -> Result {
    let (path, by) = (path(args.get(2))?, value(args[3])?);
    if by.as_f64().is_none() {
        return Err(Error::of("ERR result is not a number"));
    }
    let name = match operation {
        Operation::Add => "json.numincrby",
        Operation::Multiply => "json.nummultby",
    };
    let mut json = write(call.txn, args[1], name)?.ok_or(MISSING_KEY)?;
    let mut results: Vec<Node> = Vec::new();
    let mut changes: Vec<(Place, Node)> = Vec::new();
    for place in path.locate(&json)? {
        match json.at(&place) {
            Some(node @ (Node::Int(_) | Node::Unsigned(_) | Node::Float(_))) => {
                let result = result(node, operation, &by)?;
                results.push(result.clone());
                changes.push((place, result));
            }
            _ => results.push(Node::Null),
        }
    }
    let last = changes.last().map(|(_, result)| result.clone());
    if path.is_legacy() && last.is_none() {
        return Err(missing_or("does not contains a number"));
    }
    for (place, result) in changes {
        if json.may_break_off() {
            break;
        }
        json.replace(&place, result);
    }
    drop(json);
    if !path.is_legacy() && call.reply.protocol() == Protocol::Resp3 {
        call.reply.array(results.len());
        for result in &results {
            match result {
                Node::Null => call.reply.null(),
                number => reply_number(number, &mut call.reply),
            }
        }
        return Ok(());
    }
    let mut text = Vec::new();
    match last {
        Some(last) if path.is_legacy() => last.write(&mut text),
        _ => Node::array(results).write(&mut text),
    }
    call.reply.bulk(&text);
    Ok(())
}

fn json_toggle(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let mut json = write(call.txn, args[1], "json.toggle")?.ok_or(MISSING_KEY)?;
    let places = path.locate(&json)?;
    let mut counts = Vec::with_capacity(places.len());
    for place in &places {
        let toggled = match json.at(place) {
            Some(Node::Bool(value)) => Some(!value),
            _ => None,
        };
        if let Some(value) = toggled
            && !json.may_break_off()
        {
            json.replace(place, Node::Bool(value));
        }
        counts.push(toggled.map(i64::from));
    }
    drop(json);
    if !path.is_legacy() {
        reply_counts(call, &path, &counts);
        return Ok(());
    }
    let last = counts.into_iter().flatten().last().ok_or_else(|| missing_or("not a bool"))?;
    call.reply.bulk(if last == 1 { b"true" } else { b"false" });
    Ok(())
}

fn json_strappend(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    at_most(args, 4, "json.strappend")?;
    let path = path((args.len() == 4).then(|| &args[2]))?;
    let more = value(args[args.len() - 1])?;
    let more = more.as_str().ok_or_else(|| expected("string"))?;
    let bytes_max = call.bulk_bytes_max;
    let mut json = write(call.txn, args[1], "json.strappend")?.ok_or(MISSING_KEY)?;
    let places = path.locate(&json)?;
    let len = |place: &Place| {
        let text = json.at(place).and_then(Node::as_str);
        text.map(|text| text.len() + more.len())
    };
    let lens: Vec<Option<usize>> = places.iter().map(len).collect();
    let last = lens.iter().flatten().next_back();
    if path.is_legacy() && last.is_none() {
        return Err(missing_or("not a string"));
    }
    if lens.iter().flatten().any(|len| *len > bytes_max) {
        return Err(Error::STRING_TOO_LONG);
    }
    copies_fit(lens.iter().flatten().count(), more.len(), bytes_max)?;
    for (place, _) in places.iter().zip(&lens).filter(|(_, len)| len.is_some()) {
        if json.may_break_off() {
            break;
        }
        json.append_text(place, more);
    }
    drop(json);
    match last {
        Some(last) if path.is_legacy() => call.reply.integer(*last as i64),
        _ => {
            let counts: Vec<_> = lens.iter().map(|len| len.map(|len| len as i64)).collect();
            reply_counts(call, &path, &counts);
        }
    }
    Ok(())
}

fn json_clear(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    at_most(args, 3, "json.clear")?;
    let path = path(args.get(2))?;
    let mut json = write(call.txn, args[1], "json.clear")?.ok_or(MISSING_KEY)?;
    let places = path.locate(&json)?;
    let mut cleared = 0;
    for at in deepest_first(&places) {
        if json.may_break_off() {
            break;
        }
        let empty = match json.at(&places[at]) {
            Some(Node::Array(nodes)) if !nodes.is_empty() => Node::array(Vec::new()),
            Some(Node::Object(object)) if !object.is_empty() => Node::object(Object::new()),
            Some(Node::Int(value)) if *value != 0 => Node::Int(0),
            Some(Node::Unsigned(_)) => Node::Int(0),
            Some(Node::Float(value)) if *value != 0.0 => Node::Int(0),
            _ => continue,
        };
        json.replace(&places[at], empty);
        cleared += 1;
    }
    drop(json);
    call.reply.integer(cleared);
    Ok(())
}

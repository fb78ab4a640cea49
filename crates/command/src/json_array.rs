//! Arrays in JSON documents.

use data::json::{DEPTH_MAX, Node, Path, Place};
use resp::Reply;

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::json::{
    CHANGE, Format, MISSING_KEY, MISSING_PATH, READ, TOO_DEEP, at_most, copies_fit, deepest_first,
    path, read, read_or_null, value, write,
};
use crate::json_value::{expected, missing_or, reply_counts};
use crate::row::flag::{DENYOOM, READONLY, WRITE};
use crate::row::{Command, Group};

const NOT_ARRAY: &str = "not an array";

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Json, "json.arrappend", -4, json_arrappend)
        .flags(WRITE | DENYOOM)
        .keys(CHANGE)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Adds elements at the end of arrays.")
        .syntax("key path value [value ...]"),
    Command::new(Group::Json, "json.arrindex", -4, json_arrindex)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for arrays of N elements, or documents of N nodes.")
        .summary("Answers where in arrays a value stands first.")
        .syntax("key path value [range:(start [stop])]"),
    Command::new(Group::Json, "json.arrinsert", -5, json_arrinsert)
        .flags(WRITE | DENYOOM)
        .keys(CHANGE)
        .complexity("O(N) for arrays of N elements, or documents of N nodes.")
        .summary("Adds elements before one in arrays.")
        .syntax("key path index value [value ...]"),
    Command::new(Group::Json, "json.arrlen", -2, json_arrlen)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Answers how many elements arrays have.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.arrpop", -2, json_arrpop)
        .flags(WRITE)
        .keys(CHANGE)
        .complexity("O(N) for arrays of N elements, or documents of N nodes; O(1) for the last.")
        .summary("Removes an element of arrays and answers it.")
        .syntax("key [FORMAT format:(STRINGS | EXPAND | EXPAND1)] [where:(path [index])]"),
    Command::new(Group::Json, "json.arrtrim", 5, json_arrtrim)
        .flags(WRITE)
        .keys(CHANGE)
        .complexity("O(N) for arrays of N elements, or documents of N nodes.")
        .summary("Removes the elements of arrays that are not in a range.")
        .syntax("key path start stop"),
];

fn array<'j>(json: &'j data::Json, place: &Place) -> Option<&'j [Node]> {
    json.at(place).and_then(Node::as_array)
}

/// Answers what became of the arrays: with a legacy path of the last one.
fn reply_changed(call: &mut Call<'_, '_>, path: &Path, lens: &[Option<i64>]) -> Result {
    match lens.iter().flatten().next_back() {
        Some(last) if path.is_legacy() => call.reply.integer(*last),
        None if path.is_legacy() => return Err(missing_or(NOT_ARRAY)),
        _ => reply_counts(call, path, lens),
    }
    Ok(())
}

fn json_arrappend(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    insert(call, args, 3, "json.arrappend", Some)
}

fn json_arrinsert(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let index = integer(args[3])?;
    insert(call, args, 4, "json.arrinsert", |len| {
        let index = if index < 0 { index.checked_add(len as i64)? } else { index };
        usize::try_from(index).ok().filter(|&index| index <= len)
    })
}

/// Inserts the values from an argument on, where an array of a length says.
fn insert(
    call: &mut Call<'_, '_>,
    args: &[&[u8]],
    from: usize,
    name: &'static str,
    index: impl Fn(usize) -> Option<usize>,
) -> Result {
    let path = path(args.get(2))?;
    let nodes = args[from..].iter().map(|arg| value(arg)).collect::<Result<Vec<Node>>>()?;
    let depth = nodes.iter().map(Node::depth).max().unwrap_or(0);
    let bytes_max = call.bulk_bytes_max;
    let mut json = write(call.txn, args[1], name)?.ok_or(MISSING_KEY)?;
    let places = path.locate(&json)?;
    let mut lens = Vec::with_capacity(places.len());
    for place in &places {
        let len = array(&json, place).map(<[Node]>::len);
        if let Some(len) = len {
            if index(len).is_none() {
                return Err(Error::of("ERR index out of bounds"));
            }
            if place.len() + 1 + depth > DEPTH_MAX {
                return Err(TOO_DEEP);
            }
        }
        lens.push(len.map(|len| (len + nodes.len()) as i64));
    }
    let bytes = args[from..].iter().map(|arg| arg.len()).sum();
    copies_fit(lens.iter().flatten().count(), bytes, bytes_max)?;
    for at in deepest_first(&places) {
        if json.may_break_off() {
            break;
        }
        if let Some(len) = array(&json, &places[at]).map(<[Node]>::len)
            && let Some(index) = index(len)
        {
            json.insert(&places[at], index, nodes.clone());
        }
    }
    drop(json);
    reply_changed(call, &path, &lens)
}

fn json_arrlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let json = read_or_null(call.txn, &mut call.reply, args[1], &path, MISSING_KEY)?;
    let Some(json) = json else { return Ok(()) };
    let found = path.select(json)?;
    let len = |node: &Node| node.as_array().map(|nodes| nodes.len() as i64);
    let lens: Vec<Option<i64>> = found.into_iter().map(len).collect();
    if path.is_legacy() {
        lens.first().ok_or(MISSING_PATH)?.ok_or_else(|| missing_or(NOT_ARRAY))?;
    }
    reply_counts(call, &path, &lens);
    Ok(())
}

fn json_arrindex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    at_most(args, 6, "json.arrindex")?;
    let (path, wanted) = (path(args.get(2))?, value(args[3])?);
    let start = args.get(4).map_or(Ok(0), |arg| integer(arg))?;
    let stop = args.get(5).map_or(Ok(0), |arg| integer(arg))?;
    let json = read(call.txn, args[1])?.ok_or(MISSING_PATH)?;
    let find = |nodes: &[Node]| {
        let len = nodes.len() as i64;
        let from_end =
            |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
        let start = from_end(start).min((len - 1).max(0)) as usize;
        // 0 is the end, as it always was.
        let stop = if stop == 0 { len } else { from_end(stop).min(len) } as usize;
        let range = start..stop.max(start);
        let at = paced(call.txn, nodes[range].iter()).position(|node| *node == wanted);
        at.map_or(-1, |at| (start + at) as i64)
    };
    let found = path.select(json)?;
    let at: Vec<Option<i64>> = match path.is_legacy() {
        true => {
            let node = found.first().ok_or(MISSING_PATH)?;
            vec![Some(find(node.as_array().ok_or_else(|| expected("array"))?))]
        }
        false => found.into_iter().map(|node| node.as_array().map(find)).collect(),
    };
    reply_counts(call, &path, &at);
    Ok(())
}

fn json_arrpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut format = Format::Text;
    let mut rest = &args[2..];
    if let [word, name, more @ ..] = rest
        && is(word, "FORMAT")
    {
        format = Format::parse(name, "STRINGS", call.reply.protocol())?;
        rest = more;
    }
    let path = path(rest.first())?;
    let index = rest.get(1).and_then(|arg| integer(arg).ok()).unwrap_or(-1);
    if path.is_legacy() && format != Format::Text {
        return Err(Error::of("Legacy paths are supported only with FORMAT STRINGS"));
    }
    let protocol = call.reply.protocol();
    let mut json = write(call.txn, args[1], "json.arrpop")?.ok_or(MISSING_KEY)?;
    let places = path.locate(&json)?;
    let last = places.iter().rposition(|place| array(&json, place).is_some());
    if path.is_legacy() && last.is_none() {
        return Err(missing_or(NOT_ARRAY));
    }
    let mut answers: Vec<Option<Vec<u8>>> = vec![None; places.len()];
    for at in deepest_first(&places) {
        if json.may_break_off() {
            break;
        }
        let len = array(&json, &places[at]).map_or(0, |nodes| nodes.len() as i64);
        let index = if index < 0 { index.saturating_add(len).max(0) } else { index.min(len - 1) };
        let mut place = places[at].clone();
        place.push(usize::try_from(index).unwrap_or(0));
        if len == 0 {
            continue;
        }
        let Some(node) = json.at(&place) else { continue };
        let mut answer = Vec::new();
        // Without a bound: an error must leave everything as it is.
        format.reply(node, usize::MAX, &mut Reply::new(&mut answer, protocol))?;
        answers[at] = Some(answer);
        json.remove(&place);
    }
    drop(json);
    if path.is_legacy() {
        match last.and_then(|at| answers[at].as_ref()) {
            Some(answer) => call.reply.raw(answer),
            None => call.reply.null(),
        }
        return Ok(());
    }
    call.reply.array(answers.len());
    for answer in paced(call.txn, answers.iter()) {
        match answer {
            Some(answer) => call.reply.raw(answer),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn json_arrtrim(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let (start, stop) = (integer(args[3])?, integer(args[4])?);
    let range = |len: usize| {
        let len = len as i64;
        let from_end = |index: i64| if index < 0 { (index + len).max(0) } else { index };
        let (start, stop) = (from_end(start), from_end(stop).min(len - 1));
        if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
    };
    let mut json = write(call.txn, args[1], "json.arrtrim")?.ok_or(MISSING_KEY)?;
    let places = path.locate(&json)?;
    let lens: Vec<Option<i64>> = places
        .iter()
        .map(|place| array(&json, place).map(|nodes| range(nodes.len()).len() as i64))
        .collect();
    for at in deepest_first(&places) {
        if json.may_break_off() {
            break;
        }
        let Some(len) = array(&json, &places[at]).map(<[Node]>::len) else { continue };
        match range(len) {
            left if left.len() == len => {}
            left if left.is_empty() => json.replace(&places[at], Node::array(Vec::new())),
            left => json.retain(&places[at], left),
        }
    }
    drop(json);
    reply_changed(call, &path, &lens)
}

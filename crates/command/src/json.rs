//! JSON documents: JSON.SET, GET and what works on values of any kind. Numbers, texts and objects
//! are in `json_value.rs`, arrays in `json_array.rs`.
//!
//! Replies and error texts are those of RedisJSON 2.6 and Redis 8. Paths that begin with `$` answer
//! an array with one part for each match; legacy paths answer one value.

use ahash::AHashSet;
use data::Json;
use data::json::{Budget, DEPTH_MAX, Node, Object, Path, Place, Style, TooLong, TooMuch, Writer};
use engine::{Collection, Event, Mut, Txn};
use resp::{Protocol, Reply};

use crate::call::{Call, Handler, is, paced, unless_stopped};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, READONLY, WRITE};
use crate::row::{Command, Group};

pub(crate) const READ: &[KeySpec] = &[KeySpec::at(1, k::RO)];
pub(crate) const CHANGE: &[KeySpec] = &[KeySpec::at(1, k::RW)];
const TRIPLETS: &[KeySpec] = &[KeySpec::range(1, -1, 3, k::RW)];
const MANY: &[KeySpec] = &[KeySpec::range(1, -2, 1, k::RO)];

pub(crate) const MISSING_KEY: Error =
    Error::of("ERR could not perform this operation on a key that doesn't exist");
pub(crate) const MISSING_PATH: Error = Error::of("ERR Path does not exist");
pub(crate) const TOO_DEEP: Error = Error::of("ERR recursion limit exceeded");
const WRONG_KEY: Error = Error::of("Existing key has wrong Redis type");
const NEW_AT_ROOT: Error = Error::of("ERR new objects must be created at the root");
const WRONG_FORMAT: Error = Error::of("ERR wrong reply format");
const NO_FORMAT: Error = Error::of("ERR FORMAT argument is not supported on RESP2");

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Json, "json.del", -2, json_del)
        .flags(WRITE)
        .keys(CHANGE)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Deletes what a path leads to, or the whole key.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.forget", -2, json_del)
        .flags(WRITE)
        .keys(CHANGE)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Another name of JSON.DEL.")
        .syntax("key [path]"),
    Command::new(Group::Json, "json.get", -2, json_get)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for documents of N nodes.")
        .summary("Answers what paths lead to as JSON text.")
        .syntax(
            "key [INDENT indent] [NEWLINE newline] [SPACE space] \
             [FORMAT format:(STRING | EXPAND | EXPAND1)] [path [path ...]]",
        ),
    Command::new(Group::Json, "json.merge", 4, json_merge)
        .flags(WRITE | DENYOOM)
        .keys(CHANGE)
        .since("2.6.0")
        .complexity("O(N+M) for documents of N nodes and a value of M.")
        .summary("Merges a value into what a path leads to; members that are null are deleted.")
        .syntax("key path value"),
    Command::new(Group::Json, "json.mget", -3, json_mget)
        .flags(READONLY)
        .keys(MANY)
        .complexity("O(K*N) for K keys with documents of N nodes.")
        .summary("Answers what a path leads to in several documents.")
        .syntax("key [key ...] path"),
    Command::new(Group::Json, "json.mset", -4, json_mset)
        .flags(WRITE | DENYOOM)
        .keys(TRIPLETS)
        .since("2.6.0")
        .complexity("O(K*(N+M)) for K triplets, documents of N nodes and values of M.")
        .summary("Sets values in several documents at once.")
        .syntax("triplet:(key path value) [triplet:(key path value) ...]"),
    Command::new(Group::Json, "json.set", -4, json_set)
        .flags(WRITE | DENYOOM)
        .keys(CHANGE)
        .complexity("O(N+M) for documents of N nodes and a value of M.")
        .summary("Sets what a path leads to, adds a member, or creates a document.")
        .syntax("key path value [condition:(NX | XX)]"),
    Command::new(Group::Json, "json.type", -2, json_type)
        .flags(READONLY)
        .keys(READ)
        .complexity("O(N) for documents of N nodes; O(1) for a path to one value.")
        .summary("Answers of what kind the values are that a path leads to.")
        .syntax("key [path]"),
];

impl From<TooMuch> for Error {
    fn from(_: TooMuch) -> Error {
        Error::of("ERR the path looks at too many values")
    }
}

impl From<TooLong> for Error {
    fn from(_: TooLong) -> Error {
        Error::STRING_TOO_LONG
    }
}

pub(crate) fn utf8(arg: &[u8]) -> Result<&str> {
    std::str::from_utf8(arg).map_err(|_| Error::of("ERR Couldn't parse as UTF-8 string"))
}

/// A path argument; without one it is the root, the legacy way.
pub(crate) fn path(arg: Option<&&[u8]>) -> Result<Path> {
    let text = arg.map_or(Ok("."), |arg| utf8(arg))?;
    Path::parse(text).map_err(|error| Error::new(error.to_string()))
}

/// A JSON argument.
pub(crate) fn value(arg: &[u8]) -> Result<Node> {
    Node::parse(utf8(arg)?).map_err(|error| Error::new(error.to_string()))
}

pub(crate) fn read<'t>(txn: &'t Txn<'_>, key: &[u8]) -> Result<Option<&'t Json>> {
    txn.read_json(key).map_err(|_| WRONG_KEY)
}

/// A document that is asked something. Of one that is not there a legacy path answers nothing, which is
/// answered here; with another path that is an error.
pub(crate) fn read_or_null<'t>(
    txn: &'t Txn<'_>,
    reply: &mut Reply<'_>,
    key: &[u8],
    path: &Path,
    missing: Error,
) -> Result<Option<&'t Json>> {
    let found = read(txn, key)?;
    match found {
        None if path.is_legacy() => reply.null(),
        None => return Err(missing),
        Some(_) => {}
    }
    Ok(found)
}

/// A document to be changed; those who listen are told of it by this name.
pub(crate) fn write<'t, 'e>(
    txn: &'t mut Txn<'e>,
    key: &[u8],
    name: &'static str,
) -> Result<Option<Mut<'t, 'e, Json>>> {
    txn.tell_as(Event::module(name));
    txn.write(key).map_err(|_| WRONG_KEY)
}

/// A path can lead to very many places: what would be put there must not take much more memory than
/// it had to be sent.
pub(crate) fn copies_fit(count: usize, bytes: usize, bytes_max: usize) -> Result {
    match count.saturating_sub(1).saturating_mul(bytes) > bytes_max {
        true => Err(Error::of("ERR the path leads to too many places for a value of this size")),
        false => Ok(()),
    }
}

/// What is answered must not be much longer than the longest string.
pub(crate) fn reply_fits(reply: &Reply<'_>, start: usize, bytes_max: usize) -> Result {
    if reply.position() - start > bytes_max { Err(Error::STRING_TOO_LONG) } else { Ok(()) }
}

/// No more than the path and the arguments that a command knows may come.
pub(crate) fn at_most(args: &[&[u8]], count: usize, name: &str) -> Result {
    if args.len() > count { Err(Error::arity(name)) } else { Ok(()) }
}

/// The numbers of places in the order to change them in: those inside others first, so that the
/// places of all stay what they are.
pub(crate) fn deepest_first(places: &[Place]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(places[at].len()));
    order
}

/// Those places that are in no other of them, backwards: what stands behind is removed first, so
/// that the places of all stay what they are.
fn outermost(mut places: Vec<Place>) -> Vec<Place> {
    places.sort_unstable();
    let mut outer: Vec<Place> = Vec::with_capacity(places.len());
    for place in places {
        if outer.last().is_none_or(|last| !place.starts_with(last)) {
            outer.push(place);
        }
    }
    outer.reverse();
    outer
}

fn json_del(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    let Some(mut json) = write(call.txn, args[1], "json.del")? else {
        call.reply.integer(0);
        return Ok(());
    };
    let places = outermost(path.locate(&json)?);
    if places.iter().any(|place| place.is_empty()) {
        drop(json);
        call.txn.remove(args[1]);
    } else {
        for place in &places {
            if json.may_break_off() {
                break;
            }
            json.remove(place);
        }
    }
    call.reply.integer(places.len() as i64);
    Ok(())
}

fn json_type(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let path = path(args.get(2))?;
    if call.reply.protocol() == Protocol::Resp3 {
        call.reply.array(1);
    }
    let Some(json) = read(call.txn, args[1])? else {
        call.reply.null();
        return Ok(());
    };
    let found = path.select(json)?;
    if path.is_legacy() {
        match found.first() {
            Some(node) => call.reply.bulk(node.type_name().as_bytes()),
            None => call.reply.null(),
        }
        return Ok(());
    }
    call.reply.array(found.len());
    for node in paced(call.txn, found.into_iter()) {
        call.reply.bulk(node.type_name().as_bytes());
    }
    Ok(())
}

/// How JSON.GET and JSON.ARRPOP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON text.
    Text,
    /// Scalars in RESP3, all else as JSON text.
    Scalars,
    /// Everything in RESP3.
    Whole,
}

impl Format {
    pub fn parse(arg: &[u8], text: &str, protocol: Protocol) -> Result<Format> {
        let format = match arg {
            b"EXPAND" => Format::Whole,
            b"EXPAND1" => Format::Scalars,
            _ if arg == text.as_bytes() => Format::Text,
            _ => return Err(WRONG_FORMAT),
        };
        if protocol == Protocol::Resp2 { Err(NO_FORMAT) } else { Ok(format) }
    }

    /// Answers a value.
    pub fn reply(self, node: &Node, bytes_max: usize, reply: &mut Reply<'_>) -> Result {
        match node {
            Node::Array(_) | Node::Object(_) if self != Format::Whole => {
                reply_text(node, bytes_max, reply)
            }
            _ if self == Format::Text => reply_text(node, bytes_max, reply),
            Node::Null => {
                reply.null();
                Ok(())
            }
            Node::Bool(value) => {
                reply.boolean(*value);
                Ok(())
            }
            Node::Int(_) | Node::Unsigned(_) | Node::Float(_) => {
                reply_number(node, reply);
                Ok(())
            }
            Node::Text(_) if self == Format::Scalars => reply_text(node, bytes_max, reply),
            Node::Text(text) => {
                reply.bulk(text.as_str().as_bytes());
                Ok(())
            }
            Node::Array(nodes) => {
                reply.array(nodes.len());
                nodes.iter().try_for_each(|node| self.reply(node, bytes_max, reply))
            }
            Node::Object(object) => {
                reply.map(object.len());
                object.iter().try_for_each(|(name, node)| {
                    reply.bulk(name.as_bytes());
                    self.reply(node, bytes_max, reply)
                })
            }
        }
    }
}

/// Answers a number in RESP3.
pub(crate) fn reply_number(node: &Node, reply: &mut Reply<'_>) {
    match *node {
        Node::Int(value) => reply.integer(value),
        Node::Unsigned(value) => reply.big_number(&value.to_string()),
        _ => reply.double(node.as_f64().unwrap_or(f64::NAN)),
    }
}

pub(crate) fn reply_text(node: &Node, bytes_max: usize, reply: &mut Reply<'_>) -> Result {
    let mut text = Vec::new();
    node.write_in(Style::default(), bytes_max, &mut text)?;
    reply.bulk(&text);
    Ok(())
}

fn json_get(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut style = Style::default();
    let mut format = Format::Text;
    let mut at = 2;
    while let Some(&option) = args.get(at) {
        let target = match option {
            _ if is(option, "INDENT") => &mut style.indent,
            _ if is(option, "NEWLINE") => &mut style.newline,
            _ if is(option, "SPACE") => &mut style.space,
            _ if is(option, "NOESCAPE") => {
                at += 1;
                continue;
            }
            _ if is(option, "FORMAT") => {
                let name = args.get(at + 1).ok_or(Error::arity("json.get"))?;
                format = Format::parse(name, "STRING", call.reply.protocol())?;
                at += 2;
                continue;
            }
            _ => break,
        };
        *target = args.get(at + 1).ok_or(Error::arity("json.get"))?;
        at += 2;
    }
    let mut paths: Vec<(&str, Path)> = Vec::new();
    let mut names = AHashSet::new();
    for arg in &args[at..] {
        let text = utf8(arg)?;
        // They become members of an object.
        if names.insert(text) || format != Format::Text {
            paths.push((text, path(Some(arg))?));
        }
    }
    if paths.is_empty() {
        let root = if format == Format::Text { "." } else { "$" };
        paths.push((root, path(Some(&root.as_bytes()))?));
    }
    let Some(json) = read(call.txn, args[1])? else {
        call.reply.null();
        return Ok(());
    };
    let bytes_max = call.bulk_bytes_max;
    let mut budget = Budget::default();
    if format != Format::Text {
        let start = call.reply.position();
        call.reply.array(paths.len());
        for (_, path) in &paths {
            let found = path.select_within(json, &mut budget)?;
            unless_stopped(call.txn)?;
            call.reply.array(found.len());
            for node in paced(call.txn, found.into_iter()) {
                format.reply(node, bytes_max, &mut call.reply)?;
                reply_fits(&call.reply, start, bytes_max)?;
            }
        }
        return Ok(());
    }
    let is_legacy = paths.iter().all(|(_, path)| path.is_legacy());
    let mut text = Vec::new();
    let mut writer = Writer::new(&mut text, style, bytes_max);
    // One path after the other: all that they lead to is more than the document.
    let mut write = |writer: &mut Writer<'_>, path: &Path| -> Result {
        let nodes = path.select_within(json, &mut budget)?;
        unless_stopped(call.txn)?;
        match nodes.first() {
            Some(first) if is_legacy => writer.node(first)?,
            None if is_legacy => return Err(MISSING_PATH),
            _ => writer.array(nodes.into_iter())?,
        }
        Ok(())
    };
    match &paths[..] {
        [(_, path)] => write(&mut writer, path)?,
        _ => {
            let mut failed = None;
            let members = paths.iter().map(|(name, path)| (*name, path));
            let whole = writer.object(members, |writer, path| {
                write(writer, path).map_err(|error| {
                    failed = Some(error);
                    TooLong
                })
            });
            if let Err(too_long) = whole {
                return Err(failed.unwrap_or(too_long.into()));
            }
        }
    }
    call.reply.bulk(&text);
    Ok(())
}

fn json_mget(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (keys, last) = args[1..].split_at(args.len() - 2);
    let path = path(last.first())?;
    call.reply.array(keys.len());
    let mut text = Vec::new();
    let (mut budget, mut names) = (Budget::default(), AHashSet::new());
    for key in paced(call.txn, keys.iter()) {
        let Ok(Some(json)) = call.txn.read_json(key) else {
            call.reply.null();
            continue;
        };
        if names.insert(*key) {
            budget.renew();
        }
        let found = path.select_within(json, &mut budget)?;
        text.clear();
        let mut writer = Writer::new(&mut text, Style::default(), call.bulk_bytes_max);
        match (path.is_legacy(), found.first()) {
            (false, _) => writer.array(found.into_iter())?,
            (true, Some(first)) => writer.node(first)?,
            (true, None) => {
                call.reply.null();
                continue;
            }
        }
        call.reply.bulk(&text);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    /// Only what is not there.
    New,
    /// Only what is there.
    Existing,
}

fn json_set(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut condition = None;
    let mut options = args[4..].iter();
    while let Some(option) = options.next() {
        let wished = match *option {
            option if is(option, "NX") => Condition::New,
            option if is(option, "XX") => Condition::Existing,
            option if is(option, "FORMAT") => match options.next() {
                Some(&b"STRING" | &b"JSON") => continue,
                Some(_) => return Err(Error::of("ERR wrong format")),
                None => return Err(Error::arity("json.set")),
            },
            _ => return Err(Error::SYNTAX),
        };
        if condition.replace(wished).is_some() {
            return Err(Error::SYNTAX);
        }
    }
    let (path, node) = (path(args.get(2))?, value(args[3])?);
    let fits = |count| copies_fit(count, args[3].len(), call.bulk_bytes_max);
    let condition = condition.unwrap_or(Condition::Always);
    match set(call.txn, args[1], &path, node, condition, "json.set", fits)? {
        true => call.reply.ok(),
        false => call.reply.null(),
    }
    Ok(())
}

/// Where a value is to go.
enum Targets {
    /// These are replaced.
    Places(Vec<Place>),
    /// A member of this name is added to these objects.
    Member(Vec<Place>, String),
}

/// Where a path says that a value is to go in a document.
fn targets(json: &Json, path: &Path, condition: Condition) -> Result<Targets> {
    let places = path.locate(json)?;
    let replaces = !places.is_empty() && condition != Condition::New;
    if replaces || condition == Condition::Existing {
        return Ok(Targets::Places(places));
    }
    if !path.is_static() {
        return Err(Error::of("Err wrong static path"));
    }
    match path.last_name() {
        Some(name) => {
            let is_free = |place: &Place| {
                let object = json.at(place).and_then(Node::as_object);
                object.is_some_and(|object| object.find(name).is_none())
            };
            let mut parents = path.locate_parents(json)?;
            parents.retain(is_free);
            Ok(Targets::Member(parents, name.to_owned()))
        }
        None if places.is_empty() => Err(Error::of("ERR array index out of range")),
        None => Ok(Targets::Places(Vec::new())),
    }
}

/// Answers whether it was set wherever it should.
fn set(
    txn: &mut Txn<'_>,
    key: &[u8],
    path: &Path,
    node: Node,
    condition: Condition,
    name: &'static str,
    fits: impl Fn(usize) -> Result,
) -> Result<bool> {
    let Some(mut json) = write(txn, key, name)? else {
        if condition == Condition::Existing {
            return Ok(false);
        }
        if !path.is_root() {
            return Err(NEW_AT_ROOT);
        }
        txn.put(key, Collection::Json(Json::of(node)), None);
        return Ok(true);
    };
    if path.is_root() {
        if condition != Condition::New {
            json.replace(&[], node);
        }
        return Ok(condition != Condition::New);
    }
    let depth = node.depth();
    let (mut places, member) = match targets(&json, path, condition)? {
        Targets::Places(places) => (outermost(places), None),
        Targets::Member(parents, name) => (parents, Some(name)),
    };
    let wished = places.len();
    fits(wished)?;
    let steps = usize::from(member.is_some());
    places.retain(|place| place.len() + steps + depth <= DEPTH_MAX);
    let all = wished > 0 && places.len() == wished;
    let mut node = Some(node);
    while let Some(place) = places.pop() {
        if json.may_break_off() {
            break;
        }
        // The last one needs no copy.
        let node = if places.is_empty() { node.take() } else { node.clone() };
        let Some(node) = node else { break };
        match &member {
            None => json.replace(&place, node),
            Some(name) => json.add(&place, name, node),
        }
    }
    Ok(all)
}

fn json_mset(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (triplets, rest) = args[1..].as_chunks::<3>();
    if !rest.is_empty() {
        return Err(Error::arity("json.mset"));
    }
    let mut parsed = Vec::with_capacity(triplets.len());
    for [key, path_arg, value_arg] in triplets {
        let path = path(Some(path_arg))?;
        match read(call.txn, key)? {
            _ if path.is_root() => {}
            None => return Err(NEW_AT_ROOT),
            Some(json) => drop(targets(json, &path, Condition::Always)?),
        }
        parsed.push((*key, path, value(value_arg)?, value_arg.len()));
    }
    let mut all = true;
    let bytes_max = call.bulk_bytes_max;
    for (key, path, node, bytes) in parsed {
        let fits = |count| copies_fit(count, bytes, bytes_max);
        // What fails now, fails because of a triplet before it.
        all &=
            set(call.txn, key, &path, node, Condition::Always, "json.mset", fits).unwrap_or(false);
    }
    match all {
        true => call.reply.ok(),
        false => call.reply.null(),
    }
    Ok(())
}

fn json_merge(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (path, patch) = (path(args.get(2))?, value(args[3])?);
    let bytes_max = call.bulk_bytes_max;
    let Some(mut json) = write(call.txn, args[1], "json.merge")? else {
        if !path.is_root() {
            return Err(NEW_AT_ROOT);
        }
        call.txn.put(args[1], Collection::Json(Json::of(patch)), None);
        call.reply.ok();
        return Ok(());
    };
    let depth = patch.depth();
    let mut merged = 0;
    match targets(&json, &path, Condition::Always)? {
        Targets::Places(mut places) => {
            copies_fit(places.len(), args[3].len(), bytes_max)?;
            places.retain(|place| place.len() + depth <= DEPTH_MAX);
            for at in deepest_first(&places) {
                if json.may_break_off() {
                    break;
                }
                merge(&mut json, &mut places[at].clone(), &patch);
            }
            merged = places.len();
        }
        Targets::Member(places, name) => {
            for place in places.iter().filter(|place| place.len() + 1 + depth <= DEPTH_MAX) {
                json.add(place, &name, patch.clone());
                merged += 1;
            }
        }
    }
    match merged {
        0 => call.reply.null(),
        _ => call.reply.ok(),
    }
    Ok(())
}

/// Merges as RFC 7396 has it.
fn merge(json: &mut Mut<'_, '_, Json>, place: &mut Place, patch: &Node) {
    let object = json.at(place).and_then(Node::as_object);
    let (Some(_), Some(members)) = (object, patch.as_object()) else {
        json.replace(place, without_nulls(patch));
        return;
    };
    for (name, node) in members.iter() {
        if json.may_break_off() {
            return;
        }
        let object = json.at(place).and_then(Node::as_object);
        let number = object.and_then(|object| object.find(name));
        match (number, node) {
            (None, Node::Null) => {}
            (None, _) => json.add(place, name, without_nulls(node)),
            (Some(number), _) => {
                place.push(number);
                match node {
                    Node::Null => json.remove(place),
                    _ => merge(json, place, node),
                }
                place.pop();
            }
        }
    }
}

/// What a patch makes where nothing was.
fn without_nulls(patch: &Node) -> Node {
    let Some(members) = patch.as_object() else { return patch.clone() };
    let mut object = Object::new();
    for (name, node) in members.iter().filter(|(_, node)| **node != Node::Null) {
        object.set(name, without_nulls(node));
    }
    Node::object(object)
}

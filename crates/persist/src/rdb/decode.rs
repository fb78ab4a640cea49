//! Whole values from RDB bytes, in every encoding that there was.
//!
//! Values are built element by element under the caller's limits, so they end in the encoding that
//! the configuration asks for, whatever they were written as.

use std::io::Read;

use data::{Hash, Limits, List, Set, Zset, number};
use engine::{Collection, Value};

use super::packed::{self, Broken, Element, Listpack, Ziplist, Zipmap};
use super::source::Source;
use super::{Fault, kind, node};

/// Elements that room is made for on the word of a length; the rest as they arrive.
const TRUSTED_ELEMENTS: u64 = 1024;

/// Buffers for the strings of one value, kept for the next.
#[derive(Default)]
pub struct Scratch {
    one: Vec<u8>,
    two: Vec<u8>,
}

/// The elements that the types of integer are told apart for.
fn text(element: Element<'_>, out: &mut Vec<u8>) {
    out.clear();
    match element {
        Element::Bytes(bytes) => out.extend_from_slice(bytes),
        Element::Integer(value) => number::write_i64(out, value),
    }
}

/// Reads a value of this type; `None` if it is an empty collection, which no key can hold.
pub fn value<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Option<Value>, Fault> {
    read_value(source, kind, limits, scratch).map_err(|fault| match (fault, compact(kind)) {
        (Fault::Corrupt(what), Some(name)) => {
            // In Redis's words, which tools know.
            Fault::Corrupt(format!("{name} integrity check failed: {what}"))
        }
        (fault, _) => fault,
    })
}

/// What values of this type are packed into.
fn compact(kind: u8) -> Option<&'static str> {
    Some(match kind {
        kind::LIST_ZIPLIST | kind::LIST_QUICKLIST => "Ziplist",
        kind::LIST_QUICKLIST_2 => "Listpack",
        kind::SET_INTSET => "Intset",
        kind::SET_LISTPACK => "Set listpack",
        kind::HASH_ZIPMAP => "Zipmap",
        kind::HASH_ZIPLIST => "Hash ziplist",
        kind::HASH_LISTPACK => "Hash listpack",
        kind::ZSET_ZIPLIST => "Zset ziplist",
        kind::ZSET_LISTPACK => "Zset listpack",
        kind::STREAM_LISTPACKS | kind::STREAM_LISTPACKS_2 | kind::STREAM_LISTPACKS_3 => {
            "Stream listpack"
        }
        _ => return None,
    })
}

fn read_value<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Option<Value>, Fault> {
    let collection = match kind {
        kind::STRING => return string(source, scratch).map(Some),
        kind::LIST => list(source, limits, scratch),
        kind::LIST_ZIPLIST => {
            let mut list = List::new();
            source.string(&mut scratch.one)?;
            push_all(&mut list, Ziplist::new(&scratch.one)?, limits, &mut scratch.two)?;
            Ok(Collection::List(list))
        }
        kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => quicklist(source, kind, limits, scratch),
        kind::SET => set(source, limits, scratch),
        kind::SET_INTSET => {
            let mut set = Set::new();
            source.string(&mut scratch.one)?;
            for value in packed::intset(&scratch.one)? {
                set.add(number::format_i64(value).as_bytes(), limits);
            }
            Ok(Collection::Set(set))
        }
        kind::SET_LISTPACK => {
            source.string(&mut scratch.one)?;
            packed_set(Listpack::new(&scratch.one)?, limits, &mut scratch.two)
        }
        kind::HASH => hash(source, limits, scratch),
        kind::HASH_ZIPMAP => {
            source.string(&mut scratch.one)?;
            match packed_hash(Zipmap::new(&scratch.one), limits)? {
                Collection::Hash(hash) if hash.is_empty() => {
                    return Fault::corrupt("a zipmap has no elements");
                }
                hash => Ok(hash),
            }
        }
        kind::HASH_ZIPLIST => {
            source.string(&mut scratch.one)?;
            packed_hash(Ziplist::new(&scratch.one)?, limits)
        }
        kind::HASH_LISTPACK => {
            source.string(&mut scratch.one)?;
            packed_hash(Listpack::new(&scratch.one)?, limits)
        }
        kind::ZSET | kind::ZSET_2 => zset(source, kind, limits, scratch),
        kind::ZSET_ZIPLIST => {
            source.string(&mut scratch.one)?;
            packed_zset(Ziplist::new(&scratch.one)?, limits)
        }
        kind::ZSET_LISTPACK => {
            source.string(&mut scratch.one)?;
            packed_zset(Listpack::new(&scratch.one)?, limits)
        }
        kind::STREAM_LISTPACKS | kind::STREAM_LISTPACKS_2 | kind::STREAM_LISTPACKS_3 => {
            let stream = super::stream::read(source, kind, &mut scratch.one);
            scratch.let_go();
            return stream.map(|stream| Some(stream.into()));
        }
        kind::MODULE_PRE_GA => return Err(Fault::NotBuilt("a value of a module".to_owned())),
        kind::MODULE_2 => {
            let json = super::json::read(source, &mut scratch.one);
            scratch.let_go();
            return json.map(|json| Some(Collection::Json(json).into()));
        }
        kind::HASH_METADATA_PRE_GA | kind::HASH_METADATA => {
            timed_hash(source, kind, limits, scratch)
        }
        kind::HASH_LISTPACK_EX_PRE_GA | kind::HASH_LISTPACK_EX => {
            if kind == kind::HASH_LISTPACK_EX {
                // The earliest of the times that follow.
                source.array::<8>()?;
            }
            source.string(&mut scratch.one)?;
            packed_timed_hash(Listpack::new(&scratch.one)?, limits)
        }
        _ => return Fault::corrupt(format!("there is no type {kind} of values")),
    }?;
    let is_empty = match &collection {
        Collection::List(list) => list.is_empty(),
        Collection::Set(set) => set.is_empty(),
        Collection::Hash(hash) => hash.is_empty(),
        Collection::Zset(zset) => zset.is_empty(),
        // Without entries it is still a stream, and any value is a document.
        Collection::Stream(_) | Collection::Json(_) => false,
    };
    scratch.let_go();
    Ok((!is_empty).then(|| collection.into()))
}

impl Scratch {
    /// One long string must not keep its room for ever.
    fn let_go(&mut self) {
        const KEPT_BYTES: usize = 1 << 20;
        for buffer in [&mut self.one, &mut self.two] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}

/// The name in the id of a module's type: nine characters of six bits, then ten bits of version.
pub fn module_name(id: u64) -> String {
    (0..9).map(|at| char::from(LETTERS[(id >> (58 - 6 * at)) as usize & 63])).collect()
}

/// The id of a module's type in a version of its encoding.
pub fn module_id(name: &[u8; 9], encoding: u64) -> u64 {
    let number = |letter| LETTERS.iter().position(|known| known == letter).unwrap_or(0) as u64;
    name.iter().fold(0, |id, letter| id << 6 | number(letter)) << 10 | encoding
}

/// Of the names of modules' types.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn string<R: Read>(source: &mut Source<R>, scratch: &mut Scratch) -> Result<Value, Fault> {
    source.string(&mut scratch.one)?;
    if let Some(value) = number::parse_i64(&scratch.one) {
        return Ok(Value::Int(value));
    }
    let mut bytes = std::mem::take(&mut scratch.one);
    bytes.shrink_to_fit();
    Ok(Value::Bytes(bytes))
}

fn list<R: Read>(
    source: &mut Source<R>,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Collection, Fault> {
    let mut list = List::new();
    for _ in 0..source.length()? {
        source.string(&mut scratch.one)?;
        list.push_back(&scratch.one, limits);
    }
    Ok(Collection::List(list))
}

fn push_all<'a>(
    list: &mut List,
    elements: impl Iterator<Item = Result<Element<'a>, Broken>>,
    limits: &Limits,
    buffer: &mut Vec<u8>,
) -> Result<(), Fault> {
    for element in elements {
        match element? {
            Element::Bytes(bytes) => list.push_back(bytes, limits),
            integer => {
                text(integer, buffer);
                list.push_back(buffer, limits);
            }
        }
    }
    Ok(())
}

fn quicklist<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Collection, Fault> {
    let mut list = List::new();
    for _ in 0..source.length()? {
        let container = match kind {
            kind::LIST_QUICKLIST_2 => Some(source.length()?),
            _ => None,
        };
        source.string(&mut scratch.one)?;
        match container {
            None => {
                push_all(&mut list, Ziplist::new(&scratch.one)?, limits, &mut scratch.two)?;
            }
            Some(node::PACKED) => {
                push_all(&mut list, Listpack::new(&scratch.one)?, limits, &mut scratch.two)?;
            }
            Some(node::PLAIN) if scratch.one.is_empty() => {
                return Fault::corrupt("a node of a list is empty");
            }
            Some(node::PLAIN) => list.push_back(&scratch.one, limits),
            Some(other) => {
                return Fault::corrupt(format!("there is no container {other} of list nodes"));
            }
        }
    }
    Ok(Collection::List(list))
}

fn set<R: Read>(
    source: &mut Source<R>,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Collection, Fault> {
    let count = source.length()?;
    let mut set = Set::new();
    set.prepare(count.min(TRUSTED_ELEMENTS) as usize, limits);
    for _ in 0..count {
        source.string(&mut scratch.one)?;
        if !set.add(&scratch.one, limits) {
            return Fault::corrupt("a set has a member twice");
        }
    }
    Ok(Collection::Set(set))
}

fn packed_set<'a>(
    members: impl Iterator<Item = Result<Element<'a>, Broken>>,
    limits: &Limits,
    buffer: &mut Vec<u8>,
) -> Result<Collection, Fault> {
    let mut set = Set::new();
    for (step, member) in members.enumerate() {
        text(member?, buffer);
        if step == 0 {
            // What was a listpack is no intset.
            set = Set::for_members(buffer, 0, &Limits { set_max_intset_entries: 0, ..*limits });
        }
        if !set.add(buffer, limits) {
            return Fault::corrupt("a set has a member twice");
        }
    }
    Ok(Collection::Set(set))
}

fn hash<R: Read>(
    source: &mut Source<R>,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Collection, Fault> {
    let count = source.length()?;
    let mut hash = Hash::new();
    hash.prepare(count.min(TRUSTED_ELEMENTS) as usize, limits);
    for _ in 0..count {
        source.string(&mut scratch.one)?;
        source.string(&mut scratch.two)?;
        if !hash.set(&scratch.one, &scratch.two, limits) {
            return Fault::corrupt("a hash has a field twice");
        }
    }
    Ok(Collection::Hash(hash))
}

/// In front of each field stands its time, Unix ms, or 0; in later files how much later than the
/// earliest it is, plus one.
fn timed_hash<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Collection, Fault> {
    let earliest_ms = match kind {
        kind::HASH_METADATA => u64::from_le_bytes(source.array()?),
        _ => 1,
    };
    let count = source.length()?;
    let mut hash = Hash::new();
    hash.prepare(count.min(TRUSTED_ELEMENTS) as usize, limits);
    for _ in 0..count {
        let time = source.length()?;
        source.string(&mut scratch.one)?;
        source.string(&mut scratch.two)?;
        if !hash.set(&scratch.one, &scratch.two, limits) {
            return Fault::corrupt("a hash has a field twice");
        }
        if time != 0 {
            let at_ms = earliest_ms.checked_add(time - 1).map(i64::try_from);
            let Some(Ok(at_ms)) = at_ms else {
                return Fault::corrupt("a field expires at no time there is");
            };
            hash.set_time(&scratch.one, Some(at_ms));
        }
    }
    Ok(Collection::Hash(hash))
}

/// Fields, values and times, Unix ms, in turn; 0 for none.
fn packed_timed_hash<'a>(
    mut elements: impl Iterator<Item = Result<Element<'a>, Broken>>,
    limits: &Limits,
) -> Result<Collection, Fault> {
    let mut hash = Hash::new();
    let (mut name, mut content, mut time) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(field) = elements.next() {
        text(field?, &mut name);
        let (Some(value), Some(at_ms)) = (elements.next(), elements.next()) else {
            return Fault::corrupt("the last field of a hash has no value or no time");
        };
        text(value?, &mut content);
        text(at_ms?, &mut time);
        let at_ms = number::parse_i64(&time).filter(|at_ms| *at_ms >= 0);
        let Some(at_ms) = at_ms else {
            return Fault::corrupt("a field expires at no time there is");
        };
        if !hash.set(&name, &content, limits) {
            return Fault::corrupt("a hash has a field twice");
        }
        hash.set_time(&name, (at_ms > 0).then_some(at_ms));
    }
    Ok(Collection::Hash(hash))
}

fn packed_hash<'a>(
    mut elements: impl Iterator<Item = Result<Element<'a>, Broken>>,
    limits: &Limits,
) -> Result<Collection, Fault> {
    let mut hash = Hash::new();
    let (mut name, mut content) = (Vec::new(), Vec::new());
    while let Some(field) = elements.next() {
        text(field?, &mut name);
        let Some(value) = elements.next() else {
            return Fault::corrupt("the last field of a hash has no value");
        };
        text(value?, &mut content);
        if !hash.set(&name, &content, limits) {
            return Fault::corrupt("a hash has a field twice");
        }
    }
    Ok(Collection::Hash(hash))
}

fn zset<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Collection, Fault> {
    let count = source.length()?;
    let mut zset = Zset::new();
    zset.prepare(count.min(TRUSTED_ELEMENTS) as usize, 0, limits);
    for _ in 0..count {
        source.string(&mut scratch.one)?;
        let score = match kind {
            kind::ZSET_2 => f64::from_le_bytes(source.array()?),
            _ => spelled_score(source, &mut scratch.two)?,
        };
        add_scored(&mut zset, &scratch.one, score, limits)?;
    }
    Ok(Collection::Zset(zset))
}

/// A score as versions before 8 wrote it: a length and digits, or one of three lengths that mean
/// something else.
fn spelled_score<R: Read>(source: &mut Source<R>, buffer: &mut Vec<u8>) -> Result<f64, Fault> {
    match source.byte()? {
        253 => Ok(f64::NAN),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        len => {
            buffer.clear();
            source.append(u64::from(len), buffer)?;
            parsed_score(buffer)
        }
    }
}

fn parsed_score(text: &[u8]) -> Result<f64, Fault> {
    number::parse_f64(text).ok_or_else(|| Fault::Corrupt("a score is no number".to_owned()))
}

fn add_scored(zset: &mut Zset, member: &[u8], score: f64, limits: &Limits) -> Result<(), Fault> {
    if score.is_nan() {
        return Fault::corrupt("a score is not a number");
    }
    match zset.insert(member, score, limits) {
        None => Ok(()),
        Some(_) => Fault::corrupt("a sorted set has a member twice"),
    }
}

fn packed_zset<'a>(
    mut elements: impl Iterator<Item = Result<Element<'a>, Broken>>,
    limits: &Limits,
) -> Result<Collection, Fault> {
    let mut zset = Zset::new();
    let mut name = Vec::new();
    while let Some(member) = elements.next() {
        text(member?, &mut name);
        let score = match elements.next() {
            Some(Ok(Element::Integer(score))) => score as f64,
            Some(Ok(Element::Bytes(text))) => parsed_score(text)?,
            Some(Err(broken)) => return Err(broken.into()),
            None => return Fault::corrupt("the last member of a sorted set has no score"),
        };
        add_scored(&mut zset, &name, score, limits)?;
    }
    Ok(Collection::Zset(zset))
}

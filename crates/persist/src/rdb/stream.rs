//! Streams: blocks of entries as listpacks, then what the stream remembers, then its consumer groups:
//! what is pending in each, and with whom.

use std::io::Read;
use std::ops::Bound::{Excluded, Unbounded};

use data::stream::{Block, COUNT_MAX, Consumer, Group, Head, Id};
use data::{Stream, number};
use engine::Collection;

use super::encode::{Encoder, put_entry, put_length};
use super::packed::{Element, Listpack};
use super::source::Source;
use super::{Fault, Version, kind};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
const ID_BYTES: usize = 16;
/// In place of the time of something that has not happened yet.
const NEVER_MS: i64 = -1;

/// A block: the id of its first entry, and a listpack of them all.
pub fn put_block(base: Id, block: &Block, encoder: &mut Encoder, out: &mut Vec<u8>) {
    put_length(ID_BYTES as u64, out);
    out.extend(base.to_bytes());
    let names = block.names().len();
    let elements = |same: bool, count: usize| if same { count + 4 } else { 2 * count + 5 };
    let all = block.iter(base);
    let count: usize =
        all.map(|entry| elements(entry.fields.are_those_of_block(), entry.fields.len())).sum();
    encoder.pack(count + names + 4, |packed| {
        let put = |value: i64, packed: &mut Vec<u8>| {
            put_entry(number::format_i64(value).as_bytes(), packed);
        };
        put(block.live() as i64, packed);
        put(0, packed);
        put(names as i64, packed);
        block.names().for_each(|name| put_entry(name, packed));
        put(0, packed);
        for entry in block.iter(base) {
            let same = entry.fields.are_those_of_block();
            put(if same { SAME_FIELDS } else { 0 }, packed);
            put((entry.id.ms - base.ms) as i64, packed);
            put(entry.id.seq.wrapping_sub(base.seq) as i64, packed);
            if !same {
                put(entry.fields.len() as i64, packed);
            }
            for (field, value) in entry.fields {
                if !same {
                    put_entry(field, packed);
                }
                put_entry(value, packed);
            }
            put(elements(same, entry.fields.len()) as i64 - 1, packed);
        }
    });
    encoder.packed_string(out);
}

/// Pending entries of one piece.
const TOGETHER: usize = 64;

type Name = Box<[u8]>;

/// Where the next piece of what stands behind the blocks begins. A place and no borrow, as that of
/// a long value.
pub enum Tail {
    Head,
    /// The groups behind this one.
    Groups(Option<Name>),
    /// What is pending in this group behind this id.
    Pending(Name, Option<Id>),
    /// The consumers of this group behind this one.
    Consumers(Name, Option<Name>),
    /// What is pending with this consumer of this group behind this id.
    Owned(Name, Name, Option<Id>),
}

impl Tail {
    /// Appends a piece; answers where the next one begins.
    pub fn put(self, stream: &Stream, encoder: &mut Encoder, out: &mut Vec<u8>) -> Option<Tail> {
        let behind = |id: Option<Id>| (id.map_or(Unbounded, Excluded), Unbounded);
        let group = |name: &[u8]| stream.group(name).expect("the value is what it was");
        let owner = |name: &[u8], consumer: &[u8]| -> &Consumer {
            let found = stream.group(name).and_then(|group| group.consumer(consumer));
            found.expect("the value is what it was")
        };
        Some(match self {
            Tail::Head => {
                put_head(stream, out);
                put_length(stream.groups().len() as u64, out);
                Tail::Groups(None)
            }
            Tail::Groups(before) => {
                let (name, group) = stream.group_behind(before.as_deref())?;
                encoder.string(name, out);
                put_id(group.last_id, out);
                // All bits set where it is not known.
                put_length(group.entries_read.unwrap_or(u64::MAX), out);
                put_length(group.pending_count() as u64, out);
                Tail::Pending(name.into(), None)
            }
            Tail::Pending(name, from) => {
                let mut last = None;
                for (id, pending) in group(&name).pending(behind(from)).take(TOGETHER) {
                    out.extend(id.to_bytes());
                    out.extend(pending.delivered_ms.to_le_bytes());
                    put_length(pending.deliveries, out);
                    last = Some(id);
                }
                if last.is_none() {
                    put_length(group(&name).consumers().len() as u64, out);
                    return Some(Tail::Consumers(name, None));
                }
                Tail::Pending(name, last)
            }
            Tail::Consumers(name, before) => {
                let Some(consumer) = group(&name).consumer_behind(before.as_deref()) else {
                    return Some(Tail::Groups(Some(name)));
                };
                encoder.string(consumer.name(), out);
                out.extend(consumer.seen_ms.to_le_bytes());
                if encoder.version() >= Version::V11 {
                    out.extend(consumer.active_ms.unwrap_or(NEVER_MS).to_le_bytes());
                }
                put_length(consumer.pending_count() as u64, out);
                Tail::Owned(name, consumer.name().into(), None)
            }
            Tail::Owned(name, consumer, from) => {
                let mut last = None;
                for id in owner(&name, &consumer).pending(behind(from)).take(TOGETHER) {
                    out.extend(id.to_bytes());
                    last = Some(id);
                }
                match last {
                    None => Tail::Consumers(name, Some(consumer)),
                    last => Tail::Owned(name, consumer, last),
                }
            }
        })
    }
}

fn put_id(id: Id, out: &mut Vec<u8>) {
    put_length(id.ms, out);
    put_length(id.seq, out);
}

fn put_head(stream: &Stream, out: &mut Vec<u8>) {
    let Head { last_id, max_deleted_id, entries_added } = stream.head();
    put_length(stream.len() as u64, out);
    for id in [last_id, stream.first_id(), max_deleted_id] {
        put_id(id, out);
    }
    put_length(entries_added, out);
}

fn id<R: Read>(source: &mut Source<R>) -> Result<Id, Fault> {
    Ok(Id::new(source.length()?, source.length()?))
}

pub fn read<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    buffer: &mut Vec<u8>,
) -> Result<Collection, Fault> {
    let mut stream = Stream::new();
    for _ in 0..source.length()? {
        source.string(buffer)?;
        let Ok(base) = <[u8; ID_BYTES]>::try_from(buffer.as_slice()) else {
            return Fault::corrupt("the id of a block of a stream has not sixteen bytes");
        };
        source.string(buffer)?;
        read_block(&mut stream, Id::from_bytes(base), Listpack::new(buffer)?)?;
    }
    if source.length()? != stream.len() as u64 {
        return Fault::corrupt("a stream has not as many entries as it claims");
    }
    let last_id = id(source)?;
    if last_id < stream.last_id() {
        return Fault::corrupt("an entry of a stream is behind its last id");
    }
    let mut head = Head { last_id, entries_added: stream.len() as u64, ..Head::default() };
    if kind != kind::STREAM_LISTPACKS {
        id(source)?;
        head.max_deleted_id = id(source)?;
        head.entries_added = source.length()?.min(COUNT_MAX);
    }
    stream.set_head(head);
    for _ in 0..source.length()? {
        source.string(buffer)?;
        let name = Name::from(buffer.as_slice());
        let mut group = read_group(source, kind, buffer)?;
        if kind == kind::STREAM_LISTPACKS {
            // It was not counted then.
            group.entries_read = stream.added_up_to(group.last_id);
        }
        if stream.put_group(&name, group).is_some() {
            return Fault::corrupt("a stream has a consumer group twice");
        }
    }
    Ok(Collection::Stream(stream))
}

/// A pending entry whose consumer is to come.
struct Unowned {
    id: Id,
    delivered_ms: i64,
    deliveries: u64,
    is_owned: bool,
}

fn read_group<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    buffer: &mut Vec<u8>,
) -> Result<Group, Fault> {
    let last_id = id(source)?;
    let entries_read = match kind {
        kind::STREAM_LISTPACKS => None,
        _ => Some(source.length()?).filter(|count| *count <= COUNT_MAX),
    };
    let mut group = Group::new(last_id, entries_read);
    let mut pending: Vec<Unowned> = Vec::new();
    for _ in 0..source.length()? {
        let id = Id::from_bytes(source.array()?);
        if pending.last().is_some_and(|last| last.id >= id) {
            return Fault::corrupt("what is pending in a consumer group does not ascend");
        }
        let delivered_ms = i64::from_le_bytes(source.array()?);
        let deliveries = source.length()?.min(COUNT_MAX);
        pending.push(Unowned { id, delivered_ms, deliveries, is_owned: false });
    }
    for _ in 0..source.length()? {
        source.string(buffer)?;
        let seen_ms = i64::from_le_bytes(source.array()?);
        let active_ms = match kind {
            kind::STREAM_LISTPACKS_3 => {
                Some(i64::from_le_bytes(source.array()?)).filter(|when| *when != NEVER_MS)
            }
            // The best that is known.
            _ => Some(seen_ms),
        };
        if !group.add_consumer(buffer, seen_ms, active_ms) {
            return Fault::corrupt(
                "Duplicate stream consumer detected: a consumer group has a consumer twice",
            );
        }
        for _ in 0..source.length()? {
            let id = Id::from_bytes(source.array()?);
            let found = pending.binary_search_by_key(&id, |entry| entry.id);
            let entry = found.ok().map(|at| &mut pending[at]).filter(|entry| !entry.is_owned);
            let Some(entry) = entry else {
                return Fault::corrupt("a consumer has an entry that is not pending in its group");
            };
            entry.is_owned = true;
            group.set_pending(id, buffer, entry.delivered_ms, entry.deliveries);
        }
    }
    if group.pending_count() != pending.len() {
        return Fault::corrupt("what is pending in a consumer group is with no consumer");
    }
    Ok(group)
}

/// Reads a block as it is: the names that its entries share are never there more than once.
fn read_block(stream: &mut Stream, base: Id, mut elements: Listpack<'_>) -> Result<(), Fault> {
    if base <= stream.last_id() {
        return Fault::corrupt("the blocks of a stream do not ascend");
    }
    let live = integer(&mut elements)?;
    let deleted = integer(&mut elements)?;
    let mut names = Vec::new();
    for _ in 0..integer(&mut elements)? {
        names.push(text(&mut elements)?);
    }
    integer(&mut elements)?;
    let mut block = Block::new(names.iter().map(|name| (&name[..], &b""[..])));
    let (mut found, mut last_id) = ((0, 0), stream.last_id());
    let mut words: Vec<Vec<u8>> = Vec::new();
    while let Some(flags) = elements.next() {
        let flags = match flags? {
            Element::Integer(flags) => flags,
            Element::Bytes(_) => return Fault::corrupt("an entry of a stream has no flags"),
        };
        let ms = base.ms.wrapping_add(integer(&mut elements)? as u64);
        let seq = base.seq.wrapping_add(integer(&mut elements)? as u64);
        let is_same = flags & SAME_FIELDS != 0;
        words.clear();
        match is_same {
            true => {
                for _ in &names {
                    words.push(text(&mut elements)?);
                }
            }
            false => {
                for _ in 0..integer(&mut elements)? {
                    words.extend([text(&mut elements)?, text(&mut elements)?]);
                }
            }
        }
        // The flags, both parts of the id, and how many fields follow, where that is said.
        let head = if is_same { 3 } else { 4 };
        if integer(&mut elements)? != head + words.len() as i64 {
            return Fault::corrupt("an entry of a stream has not the elements it claims");
        }
        if flags & DELETED != 0 {
            found.1 += 1;
            continue;
        }
        found.0 += 1;
        let id = Id::new(ms, seq);
        if id < base || id <= last_id {
            return Fault::corrupt("the ids of a stream do not ascend");
        }
        last_id = id;
        match is_same {
            true => block.push_same(base, id, words.iter().map(|value| &value[..])),
            false => block.push(base, id, words.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1]))),
        }
    }
    if found != (live, deleted) {
        return Fault::corrupt("a block of a stream has not the entries it claims");
    }
    stream.add_block(base, block);
    Ok(())
}

fn integer(elements: &mut Listpack<'_>) -> Result<i64, Fault> {
    match elements.next() {
        Some(Ok(Element::Integer(value))) => Ok(value),
        Some(Err(broken)) => Err(broken.into()),
        _ => Fault::corrupt("a block of a stream has no number where one belongs"),
    }
}

fn text(elements: &mut Listpack<'_>) -> Result<Vec<u8>, Fault> {
    match elements.next() {
        Some(Ok(Element::Bytes(bytes))) => Ok(bytes.to_vec()),
        Some(Ok(Element::Integer(value))) => Ok(number::format_i64(value).as_bytes().to_vec()),
        Some(Err(broken)) => Err(broken.into()),
        None => Fault::corrupt("a block of a stream ends early"),
    }
}

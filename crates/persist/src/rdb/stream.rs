//! Streams: blocks of entries as listpacks, then what the stream remembers. Consumer groups are not
//! built yet.

use std::io::Read;

use data::stream::{Block, Head, Id};
use data::{Limits, Stream, number};
use engine::Collection;

use super::encode::{Encoder, put_entry, put_length};
use super::packed::{Element, Listpack};
use super::source::Source;
use super::{Fault, kind};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
const ID_BYTES: usize = 16;

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

/// What stands behind the blocks.
pub fn put_tail(stream: &Stream, out: &mut Vec<u8>) {
    let Head { last_id, max_deleted_id, entries_added } = stream.head();
    let first_id = stream.first_id();
    put_length(stream.len() as u64, out);
    for id in [last_id, first_id, max_deleted_id] {
        put_length(id.ms, out);
        put_length(id.seq, out);
    }
    put_length(entries_added, out);
    // Groups.
    put_length(0, out);
}

fn id<R: Read>(source: &mut Source<R>) -> Result<Id, Fault> {
    Ok(Id::new(source.length()?, source.length()?))
}

pub fn read<R: Read>(
    source: &mut Source<R>,
    kind: u8,
    limits: &Limits,
    buffer: &mut Vec<u8>,
) -> Result<Collection, Fault> {
    let mut stream = Stream::new();
    for _ in 0..source.length()? {
        source.string(buffer)?;
        let Ok(base) = <[u8; ID_BYTES]>::try_from(buffer.as_slice()) else {
            return Fault::corrupt("the id of a block of a stream has not sixteen bytes");
        };
        source.string(buffer)?;
        read_block(&mut stream, Id::from_bytes(base), Listpack::new(buffer)?, limits)?;
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
        head.entries_added = source.length()?;
    }
    stream.set_head(head);
    if source.length()? > 0 {
        return Err(Fault::NotBuilt("a stream with consumer groups".to_owned()));
    }
    Ok(Collection::Stream(stream))
}

fn read_block(
    stream: &mut Stream,
    base: Id,
    mut elements: Listpack<'_>,
    limits: &Limits,
) -> Result<(), Fault> {
    let live = integer(&mut elements)?;
    let deleted = integer(&mut elements)?;
    let mut names = Vec::new();
    for _ in 0..integer(&mut elements)? {
        names.push(text(&mut elements)?);
    }
    integer(&mut elements)?;
    let mut found = (0, 0);
    while let Some(flags) = elements.next() {
        let flags = match flags? {
            Element::Integer(flags) => flags,
            Element::Bytes(_) => return Fault::corrupt("an entry of a stream has no flags"),
        };
        let ms = base.ms.wrapping_add(integer(&mut elements)? as u64);
        let seq = base.seq.wrapping_add(integer(&mut elements)? as u64);
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if flags & SAME_FIELDS != 0 {
            for name in &names {
                fields.push((name.clone(), text(&mut elements)?));
            }
        } else {
            for _ in 0..integer(&mut elements)? {
                fields.push((text(&mut elements)?, text(&mut elements)?));
            }
        }
        integer(&mut elements)?;
        if flags & DELETED != 0 {
            found.1 += 1;
            continue;
        }
        found.0 += 1;
        let id = Id::new(ms, seq);
        if id < base || id <= stream.last_id() {
            return Fault::corrupt("the ids of a stream do not ascend");
        }
        let pairs = fields.iter().map(|(field, value)| (&**field, &**value));
        stream.add(id, pairs, limits);
    }
    if found != (live, deleted) {
        return Fault::corrupt("a block of a stream has not the entries it claims");
    }
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

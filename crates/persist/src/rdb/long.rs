//! A long value, written in parts between which its lock is free.
//!
//! Where the next part begins is a place in the value and no borrow of it. So the value must be the
//! same for all parts: whoever is to change it has the rest written first.

use data::stream::Id;
use engine::ValueRef;

use super::encode::{Encoder, put_length, put_timed_field, whole_block};
use super::stream::{Tail, put_block};
use super::writer::{Access, Records};
use super::{json, kind};

/// Elements between two looks at how much was written.
const ELEMENTS: usize = 16;

/// Where the next part begins.
enum At {
    Byte(usize),
    Block(usize),
    /// The blocks of a stream behind this one.
    Entries(Option<Id>),
    /// What stands behind the blocks of a stream.
    Tail(Tail),
    Cursor(u64),
    /// The same of a hash whose fields have times, the earliest of which is this.
    TimedCursor(i64, u64),
    Text(json::Text),
    /// So many members are left, from the lowest rank up to here.
    Rank(usize),
    End,
}

/// A value of which some is written.
pub struct Long(At);

impl Long {
    /// Writes what stands before the elements.
    pub fn begin(
        records: &mut Records,
        db: u32,
        key: &[u8],
        value: ValueRef<'_>,
        expire_at_ms: Option<i64>,
        access: Access,
    ) -> Long {
        records.head(db, key, value, expire_at_ms, access);
        let (encoder, out) = records.parts();
        let (count, at) = match (value, encoder.kind(value)) {
            (ValueRef::Str(engine::Str::Bytes(bytes)), _) => (bytes.len(), At::Byte(0)),
            (ValueRef::List(list), _) => (list.block_count(), At::Block(0)),
            (ValueRef::Stream(stream), _) => (stream.block_count(), At::Entries(None)),
            (ValueRef::Set(set), kind::SET) => (set.len(), At::Cursor(0)),
            (ValueRef::Hash(hash), kind::HASH) => (hash.len(), At::Cursor(0)),
            (ValueRef::Hash(hash), kind::HASH_METADATA) => {
                let (earliest_ms, _) = hash.earliest().unwrap_or_default();
                out.extend_from_slice(&earliest_ms.to_le_bytes());
                (hash.len(), At::TimedCursor(earliest_ms, 0))
            }
            (ValueRef::Json(_), _) => return Long(At::Text(json::Text::begin(out))),
            (ValueRef::Zset(zset), kind::ZSET_2) => (zset.len(), At::Rank(zset.len())),
            _ => {
                // Compact after all.
                records.value(value);
                return Long(At::End);
            }
        };
        put_length(count as u64, out);
        Long(at)
    }

    /// Writes some more, of about so many bytes; true when that was the last of it.
    pub fn go_on(&mut self, records: &mut Records, value: ValueRef<'_>, bytes: usize) -> bool {
        let (encoder, out) = records.parts();
        let end = out.len().saturating_add(bytes.max(1));
        while out.len() < end {
            self.0 = match (std::mem::replace(&mut self.0, At::End), value) {
                (At::End, _) => return true,
                (At::Byte(from), ValueRef::Str(engine::Str::Bytes(text))) => {
                    let to = text.len().min(from.saturating_add(end - out.len()));
                    out.extend_from_slice(&text[from..to]);
                    if to < text.len() { At::Byte(to) } else { At::End }
                }
                (At::Block(number), ValueRef::List(list)) => match list.block(number) {
                    Some(block) => {
                        whole_block(block, encoder, out);
                        At::Block(number + 1)
                    }
                    None => At::End,
                },
                (At::Entries(behind), ValueRef::Stream(stream)) => {
                    match stream.block_behind(behind) {
                        Some((base, block)) => {
                            put_block(base, block, encoder, out);
                            At::Entries(Some(base))
                        }
                        None => At::Tail(Tail::Head),
                    }
                }
                (At::Tail(tail), ValueRef::Stream(stream)) => {
                    tail.put(stream, encoder, out).map_or(At::End, At::Tail)
                }
                (At::Cursor(cursor), ValueRef::Set(set)) => {
                    next_cursor(set.scan(cursor, ELEMENTS, |member| encoder.string(&member, out)))
                }
                (At::Cursor(cursor), ValueRef::Hash(hash)) => {
                    next_cursor(hash.scan(cursor, ELEMENTS, |field, value| {
                        encoder.string(field, out);
                        encoder.string(value, out);
                    }))
                }
                (At::TimedCursor(earliest_ms, cursor), ValueRef::Hash(hash)) => {
                    let next = hash.scan(cursor, ELEMENTS, |field, value| {
                        put_timed_field(hash, earliest_ms, field, value, encoder, out);
                    });
                    if next == 0 { At::End } else { At::TimedCursor(earliest_ms, next) }
                }
                (At::Text(text), ValueRef::Json(json)) => {
                    let is_counted = matches!(text, json::Text::Count(..));
                    let next = text.put(json, end - out.len(), encoder, out);
                    self.0 = next.map_or(At::End, At::Text);
                    if is_counted {
                        // That took as long as if it were written.
                        return false;
                    }
                    continue;
                }
                (At::Rank(left), ValueRef::Zset(zset)) => {
                    let from = left.saturating_sub(ELEMENTS);
                    put_scored(zset.range(from..left), encoder, out);
                    if from > 0 { At::Rank(from) } else { At::End }
                }
                _ => unreachable!("the value is what it was"),
            };
        }
        matches!(self.0, At::End)
    }
}

fn next_cursor(cursor: u64) -> At {
    if cursor == 0 { At::End } else { At::Cursor(cursor) }
}

/// From the highest score down, as Redis has them.
fn put_scored(members: data::zset::Iter<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for (member, score) in members.rev() {
        encoder.string(member, out);
        out.extend_from_slice(&score.to_le_bytes());
    }
}

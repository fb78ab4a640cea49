//! The change log said in commands: what an append-only file holds and SCRIPT DRYRUN shows.
//!
//! Every command written here does the same wherever it is run again, in Redis 7 too, as long as
//! nothing expires meanwhile: whoever replays them sets the clock back. Changes of one kind that
//! follow each other on one key become one command.

use std::iter::Peekable;

use data::End;
use data::number::{format_f64, format_i64};
use data::stream::{COUNT_MAX, Id, unpack};
use engine::{Change, Expiry, Record, Records};
use resp::{Protocol, Reply};

/// Changes that become one command at most.
const TOGETHER_MAX: usize = 1024;

/// Writes commands as clients send them, with a SELECT wherever the database changes.
pub struct Propagation {
    db: Option<u32>,
}

impl Propagation {
    /// For a reader that is in this database; `None` where that is not known.
    pub fn new(db: Option<u32>) -> Propagation {
        Propagation { db }
    }

    /// Appends the commands that make these changes; answers how many they are.
    pub fn write(&mut self, records: Records<'_>, out: &mut Vec<u8>) -> usize {
        let mut records = records.peekable();
        let mut count = 0;
        while let Some(record) = records.next() {
            if self.db != Some(record.db) && uses_database(&record.change) {
                self.db = Some(record.db);
                select(record.db, out);
                count += 1;
            }
            match together(&record.change) {
                Some((name, _)) => write_together(name, record, &mut records, out),
                None => write_alone(record, &mut records, out),
            }
            count += 1;
        }
        count
    }
}

/// Commands whose place in a file is not known yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    pub count: usize,
    /// The database that the reader must be in, and where they leave it; `None` where that is all
    /// the same.
    pub dbs: Option<(u32, u32)>,
}

/// Appends the commands that make these changes, for a reader that is in the right database.
pub fn say(records: Records<'_>, out: &mut Vec<u8>) -> Said {
    if let Some((db, key, value)) = records.single_set() {
        command(out, &[b"SET", key, value]);
        return Said { count: 1, dbs: Some((db, db)) };
    }
    let first = records.clone().find(|record| uses_database(&record.change));
    let mut propagation = Propagation::new(first.map(|record| record.db));
    let count = propagation.write(records, out);
    Said { count, dbs: first.map(|record| record.db).zip(propagation.db) }
}

/// Appends the command that moves a reader to a database.
pub fn select(db: u32, out: &mut Vec<u8>) {
    command(out, &[b"SELECT", number(db.into()).as_bytes()]);
}

fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    resp::write_request(out, args);
}

fn number(number: i64) -> data::number::Digits {
    format_i64(number)
}

fn uses_database(change: &Change<'_>) -> bool {
    !matches!(change, Change::FlushAll | Change::SwapDbs { .. } | Change::Beside { .. })
}

/// The name of the command that makes many such changes of one key, and how many arguments each
/// takes.
fn together(change: &Change<'_>) -> Option<(&'static str, usize)> {
    Some(match change {
        Change::Push { end: End::Head, .. } => ("LPUSH", 1),
        Change::Push { end: End::Tail, .. } => ("RPUSH", 1),
        Change::AddMember { .. } => ("SADD", 1),
        Change::RemoveMember { .. } => ("SREM", 1),
        Change::SetField { .. } => ("HSET", 2),
        Change::RemoveField { .. } => ("HDEL", 1),
        Change::SetScore { .. } => ("ZADD", 2),
        Change::RemoveScored { .. } => ("ZREM", 1),
        Change::DeleteEntry { .. } => ("XDEL", 1),
        Change::Observe { .. } => ("PFADD", 1),
        _ => return None,
    })
}

fn write_together(
    name: &'static str,
    first: Record<'_>,
    records: &mut Peekable<Records<'_>>,
    out: &mut Vec<u8>,
) {
    let is_same = |record: &Record<'_>| {
        let same_place = record.db == first.db && record.key == first.key;
        same_place && together(&record.change).is_some_and(|(other, _)| other == name)
    };
    let arguments = together(&first.change).map_or(0, |(_, arguments)| arguments);
    // The number of arguments comes first, so the records are looked at twice.
    let behind = records.clone().take(TOGETHER_MAX - 1).take_while(is_same).count();
    let mut writer = Reply::new(out, Protocol::Resp2);
    writer.array(2 + arguments * (1 + behind));
    writer.bulk(name.as_bytes());
    writer.bulk(first.key);
    let others = records.by_ref().take(behind).map(|record| record.change);
    for change in std::iter::once(first.change).chain(others) {
        match change {
            Change::Push { value, .. } => writer.bulk(value),
            Change::AddMember { member }
            | Change::RemoveMember { member }
            | Change::RemoveScored { member } => writer.bulk(member),
            Change::RemoveField { field } => writer.bulk(field),
            Change::Observe { element } => writer.bulk(element),
            Change::DeleteEntry { id } => writer.bulk(id.text().as_bytes()),
            Change::SetField { field, value } => {
                writer.bulk(field);
                writer.bulk(value);
            }
            Change::SetScore { member, score } => {
                writer.bulk(format_f64(score).as_bytes());
                writer.bulk(member);
            }
            _ => unreachable!("these do not go together"),
        }
    }
}

fn write_alone<'a>(record: Record<'a>, records: &mut Peekable<Records<'a>>, out: &mut Vec<u8>) {
    let key = record.key;
    match record.change {
        Change::Set { value, expiry: Expiry::Clear } => command(out, &[b"SET", key, value]),
        Change::Set { value, expiry: Expiry::Keep } => {
            command(out, &[b"SET", key, value, b"KEEPTTL"]);
        }
        Change::Set { value, expiry: Expiry::At(when) } => {
            command(out, &[b"SET", key, value, b"PXAT", number(when).as_bytes()]);
        }
        Change::Append { bytes } => command(out, &[b"APPEND", key, bytes]),
        Change::Overwrite { offset, bytes } => {
            command(out, &[b"SETRANGE", key, size(offset).as_bytes(), bytes]);
        }
        Change::Remove => command(out, &[b"DEL", key]),
        Change::Expire { at_ms: Some(when) } => {
            command(out, &[b"PEXPIREAT", key, number(when).as_bytes()]);
        }
        Change::Expire { at_ms: None } => command(out, &[b"PERSIST", key]),
        Change::Move { to, to_db } if to_db == record.db => command(out, &[b"RENAME", key, to]),
        Change::Move { to, to_db } => {
            debug_assert_eq!(key, to, "no command moves a key to another name and database");
            command(out, &[b"MOVE", key, number(to_db.into()).as_bytes()]);
        }
        Change::Copy { to, to_db } => {
            let db = number(to_db.into());
            command(out, &[b"COPY", key, to, b"DB", db.as_bytes(), b"REPLACE"]);
        }
        Change::ExpireField { field, at_ms: Some(when) } => {
            let when = number(when);
            command(out, &[b"HPEXPIREAT", key, when.as_bytes(), b"FIELDS", b"1", field]);
        }
        Change::ExpireField { field, at_ms: None } => {
            command(out, &[b"HPERSIST", key, b"FIELDS", b"1", field]);
        }
        Change::Pop { end, mut count } => {
            let same = |next: &Record<'_>| match next.change {
                Change::Pop { end: other, .. } => {
                    other == end && next.db == record.db && next.key == key
                }
                _ => false,
            };
            while let Some(Record { change: Change::Pop { count: more, .. }, .. }) =
                records.next_if(same)
            {
                count += more;
            }
            let name: &[u8] = if end == End::Head { b"LPOP" } else { b"RPOP" };
            match count {
                1 => command(out, &[name, key]),
                _ => command(out, &[name, key, size(count).as_bytes()]),
            }
        }
        Change::Replace { index, value } => {
            command(out, &[b"LSET", key, size(index).as_bytes(), value]);
        }
        Change::Insert { pivot, before, value } => {
            let place: &[u8] = if before { b"BEFORE" } else { b"AFTER" };
            command(out, &[b"LINSERT", key, place, pivot, value]);
        }
        Change::RemoveEqual { value, count } => {
            command(out, &[b"LREM", key, number(count).as_bytes(), value]);
        }
        Change::Retain { start, end } => {
            command(out, &[b"LTRIM", key, size(start).as_bytes(), size(end - 1).as_bytes()]);
        }
        Change::RemoveRanks { start, end } => {
            let (start, stop) = (size(start), size(end - 1));
            command(out, &[b"ZREMRANGEBYRANK", key, start.as_bytes(), stop.as_bytes()]);
        }
        Change::AddEntry { id, fields } => {
            let fields = unpack(fields);
            let mut writer = Reply::new(out, Protocol::Resp2);
            writer.array(3 + 2 * fields.len());
            for word in [&b"XADD"[..], key, id.text().as_bytes()] {
                writer.bulk(word);
            }
            for (field, value) in fields {
                writer.bulk(field);
                writer.bulk(value);
            }
        }
        Change::TrimEntries { first: Some(id) } => {
            command(out, &[b"XTRIM", key, b"MINID", b"=", id.text().as_bytes()]);
        }
        Change::TrimEntries { first: None } => {
            command(out, &[b"XTRIM", key, b"MAXLEN", b"=", b"0"]);
        }
        Change::SetHead { head } => {
            let (last, deleted) = (head.last_id.text(), head.max_deleted_id.text());
            let added = head.entries_added.to_string();
            command(
                out,
                &[
                    b"XSETID",
                    key,
                    last.as_bytes(),
                    b"ENTRIESADDED",
                    added.as_bytes(),
                    b"MAXDELETEDID",
                    deleted.as_bytes(),
                ],
            );
        }
        Change::AddGroup { group, last_id, entries_read } => {
            let (id, read) = (last_id.text(), group_read(entries_read));
            let (id, read) = (id.as_bytes(), read.as_bytes());
            let behind = [b"MKSTREAM", &b"ENTRIESREAD"[..], read];
            command(out, &[&[b"XGROUP", b"CREATE", key, group, id][..], &behind].concat());
        }
        Change::SetGroup { group, last_id, entries_read } => {
            let (id, read) = (last_id.text(), group_read(entries_read));
            let (id, read) = (id.as_bytes(), read.as_bytes());
            command(out, &[b"XGROUP", b"SETID", key, group, id, b"ENTRIESREAD", read]);
        }
        Change::RemoveGroup { group } => command(out, &[b"XGROUP", b"DESTROY", key, group]),
        Change::AddConsumer { group, consumer } => {
            command(out, &[b"XGROUP", b"CREATECONSUMER", key, group, consumer]);
        }
        Change::RemoveConsumer { group, consumer } => {
            command(out, &[b"XGROUP", b"DELCONSUMER", key, group, consumer]);
        }
        Change::Deliver { .. } => deliver(record, records, out),
        Change::Acknowledge { group, .. } => {
            let id_of = |next: &Record<'_>| match next.change {
                Change::Acknowledge { group: other, id } if other == group => Some(id),
                _ => None,
            };
            with_ids(&[b"XACK", key, group], &[], record, records, id_of, out);
        }
        Change::Restore { payload } => command(out, &[b"RESTORE", key, b"0", payload, b"REPLACE"]),
        Change::JsonSet { path, json } => command(out, &[b"JSON.SET", key, path, json]),
        Change::JsonRemove { path } => command(out, &[b"JSON.DEL", key, path]),
        Change::JsonInsert { path, index, json } => {
            command(out, &[b"JSON.ARRINSERT", key, path, size(index).as_bytes(), json]);
        }
        Change::JsonRetain { path, start, end } => {
            let (start, stop) = (size(start), size(end - 1));
            command(out, &[b"JSON.ARRTRIM", key, path, start.as_bytes(), stop.as_bytes()]);
        }
        Change::JsonAppend { path, json } => command(out, &[b"JSON.STRAPPEND", key, path, json]),
        Change::FlushDb => command(out, &[b"FLUSHDB"]),
        Change::FlushAll => command(out, &[b"FLUSHALL"]),
        Change::SwapDbs { a, b } => {
            command(out, &[b"SWAPDB", number(a.into()).as_bytes(), number(b.into()).as_bytes()]);
        }
        Change::Beside { request } => out.extend_from_slice(request),
        Change::Push { .. }
        | Change::AddMember { .. }
        | Change::RemoveMember { .. }
        | Change::SetField { .. }
        | Change::RemoveField { .. }
        | Change::SetScore { .. }
        | Change::DeleteEntry { .. }
        | Change::Observe { .. }
        | Change::RemoveScored { .. } => unreachable!("these go together"),
    }
}

/// How many entries a group has read, as XGROUP takes it.
fn group_read(entries_read: Option<u64>) -> data::number::Digits {
    number(entries_read.map_or(-1, |read| read.min(COUNT_MAX) as i64))
}

/// Entries that went to one consumer at one time.
fn deliver<'a>(record: Record<'a>, records: &mut Peekable<Records<'a>>, out: &mut Vec<u8>) {
    let Change::Deliver { group, consumer, delivered_ms, deliveries, .. } = record.change else {
        unreachable!("the caller has looked")
    };
    let id_of = |next: &Record<'_>| match next.change {
        Change::Deliver { group: g, consumer: c, id, delivered_ms: at, deliveries: count }
            if (g, c, at, count) == (group, consumer, delivered_ms, deliveries) =>
        {
            Some(id)
        }
        _ => None,
    };
    let (when, count) = (number(delivered_ms), number(deliveries.min(COUNT_MAX) as i64));
    let before = [&b"XCLAIM"[..], record.key, group, consumer, b"0"];
    let (when, count) = (when.as_bytes(), count.as_bytes());
    let behind = [&b"TIME"[..], when, b"RETRYCOUNT", count, b"FORCE", b"JUSTID"];
    with_ids(&before, &behind, record, records, id_of, out);
}

/// A command for this change and those behind it that differ from it by an id only.
fn with_ids<'a>(
    before: &[&[u8]],
    behind: &[&[u8]],
    first: Record<'a>,
    records: &mut Peekable<Records<'a>>,
    id_of: impl Fn(&Record<'_>) -> Option<Id>,
    out: &mut Vec<u8>,
) {
    let same = |next: &Record<'_>| (next.db, next.key) == (first.db, first.key);
    let id_of = |next: &Record<'_>| id_of(next).filter(|_| same(next));
    let more = records.clone().take(TOGETHER_MAX - 1).map_while(|next| id_of(&next)).count();
    let mut writer = Reply::new(out, Protocol::Resp2);
    writer.array(before.len() + 1 + more + behind.len());
    before.iter().for_each(|word| writer.bulk(word));
    for record in std::iter::once(first).chain(records.by_ref().take(more)) {
        writer.bulk(id_of(&record).expect("counted above").text().as_bytes());
    }
    behind.iter().for_each(|word| writer.bulk(word));
}

/// Places and counts are below the length of a value.
fn size(size: usize) -> data::number::Digits {
    number(size as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Changes;

    /// The commands for these changes, a line each.
    fn said(records: &[(u32, &str, Change<'_>)]) -> String {
        let mut changes = Changes::default();
        for (db, key, change) in records {
            changes.add(Record { db: *db, key: key.as_bytes(), change: *change });
        }
        let mut out = Vec::new();
        let count = Propagation::new(Some(0)).write(changes.records(), &mut out);
        let mut reader = resp::Reader::new(&out);
        let mut lines = Vec::new();
        while let Ok(Some(resp::Item::Array(len))) = reader.next_item() {
            let words = (0..len).map(|_| match reader.next_item() {
                Ok(Some(resp::Item::Bulk(word))) => String::from_utf8_lossy(word).into_owned(),
                other => panic!("{other:?} is no argument"),
            });
            lines.push(words.collect::<Vec<_>>().join(" "));
        }
        assert_eq!(lines.len(), count);
        lines.join("\n")
    }

    #[test]
    fn neighbours_of_one_kind_and_key_are_one_command() {
        let push = |value| Change::Push { end: End::Tail, value };
        let pop = |count| Change::Pop { end: End::Head, count };
        let said = said(&[
            (0, "l", push(b"a")),
            (0, "l", push(b"b")),
            (0, "m", push(b"c")),
            (1, "m", push(b"d")),
            (1, "m", pop(1)),
            (1, "m", pop(2)),
            (1, "m", Change::Pop { end: End::Tail, count: 1 }),
            (0, "h", Change::SetField { field: b"f", value: b"1" }),
            (0, "h", Change::SetField { field: b"g", value: b"2" }),
            (0, "h", Change::RemoveField { field: b"f" }),
            (0, "z", Change::SetScore { member: b"m", score: 0.1 }),
            (0, "z", Change::SetScore { member: b"n", score: f64::INFINITY }),
        ]);
        assert_eq!(
            said,
            "RPUSH l a b\nRPUSH m c\nSELECT 1\nRPUSH m d\nLPOP m 3\nRPOP m\nSELECT 0\n\
             HSET h f 1 g 2\nHDEL h f\nZADD z 0.1 m inf n"
        );
    }

    #[test]
    fn long_runs_are_many_commands() {
        let added = Change::AddMember { member: b"m" };
        let said = said(&vec![(0, "s", added); 2 * TOGETHER_MAX + 1]);
        let lengths: Vec<usize> = said.lines().map(|line| line.split(' ').count() - 2).collect();
        assert_eq!(lengths, [TOGETHER_MAX, TOGETHER_MAX, 1]);
    }

    #[test]
    fn all_databases_need_no_select() {
        let said = said(&[
            (3, "", Change::FlushAll),
            (3, "", Change::SwapDbs { a: 1, b: 2 }),
            (3, "", Change::Beside { request: b"*1\r\n$4\r\nPING\r\n" }),
            (3, "", Change::FlushDb),
        ]);
        assert_eq!(said, "FLUSHALL\nSWAPDB 1 2\nPING\nSELECT 3\nFLUSHDB");
    }
}

//! The change log: what a transaction did, in a form that does the same wherever it is done again.
//!
//! The door notes every change here while somebody wants to know: an append-only file, replicas, a
//! dry run of a script. What was random or relative to the clock is settled in it: a popped member
//! is named, an expiry is a point in time. It is what became of the keys and not the commands that
//! did it; `command::propagate` says it in commands. What is rolled back is cut off.
//!
//! The changes of a transaction are one block of bytes. It is handed to the [`Journal`] while the
//! locks are still held, so blocks that touch the same key come in the order of their changes.

use data::End;
use data::stream::{Head, Id};

use crate::door::Expiry;

/// Where the blocks of all transactions go. Called by many threads at once, each of which holds
/// the locks of what it has changed: it must not look at the keyspace, and be quick.
pub trait Journal: Send + Sync {
    /// Takes a block; answers its place in the order of all blocks, counted from 1.
    fn append(&self, block: &Changes) -> u64;
}

/// One change of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<'a> {
    /// The key holds this string, whatever it held before.
    Set {
        value: &'a [u8],
        expiry: Expiry,
    },
    /// These bytes came behind the string, or behind none.
    Append {
        bytes: &'a [u8],
    },
    /// These bytes, one at least, stand at the offset; zeros fill a gap.
    Overwrite {
        offset: usize,
        bytes: &'a [u8],
    },
    /// The HyperLogLog, if need be a new one, has seen this element.
    Observe {
        element: &'a [u8],
    },
    /// The key is gone.
    Remove,
    /// The key expires then (Unix ms), or never.
    Expire {
        at_ms: Option<i64>,
    },
    /// The value with its expiry is at another key, in another database, or both. Nothing else is
    /// there, unless only the key is another.
    Move {
        to: &'a [u8],
        to_db: u32,
    },
    /// A copy of the value with its expiry is there, whatever was there before.
    Copy {
        to: &'a [u8],
        to_db: u32,
    },
    /// The list has one more element at an end.
    Push {
        end: End,
        value: &'a [u8],
    },
    /// So many elements are gone from an end of the list.
    Pop {
        end: End,
        count: usize,
    },
    /// The list has another element at the index.
    Replace {
        index: usize,
        value: &'a [u8],
    },
    /// The element stands beside the first one that equals the pivot.
    Insert {
        pivot: &'a [u8],
        before: bool,
        value: &'a [u8],
    },
    /// Elements of this value are gone: all, so many from the head, or from the tail if negative.
    RemoveEqual {
        value: &'a [u8],
        count: i64,
    },
    /// Only the elements of this range, one at least, are left.
    Retain {
        start: usize,
        end: usize,
    },
    AddMember {
        member: &'a [u8],
    },
    RemoveMember {
        member: &'a [u8],
    },
    SetField {
        field: &'a [u8],
        value: &'a [u8],
    },
    RemoveField {
        field: &'a [u8],
    },
    /// The field goes then (Unix ms), or never.
    ExpireField {
        field: &'a [u8],
        at_ms: Option<i64>,
    },
    SetScore {
        member: &'a [u8],
        score: f64,
    },
    RemoveScored {
        member: &'a [u8],
    },
    /// The members of these ranks, one at least, are gone.
    RemoveRanks {
        start: usize,
        end: usize,
    },
    /// The stream has one more entry, its fields and values as `data::stream::pack` has them.
    AddEntry {
        id: Id,
        fields: &'a [u8],
    },
    DeleteEntry {
        id: Id,
    },
    /// The stream begins with this entry, or has none.
    TrimEntries {
        first: Option<Id>,
    },
    SetHead {
        head: Head,
    },
    /// The stream, which is made if need be, has one more consumer group.
    AddGroup {
        group: &'a [u8],
        last_id: Id,
        entries_read: Option<u64>,
    },
    /// The group has come so far.
    SetGroup {
        group: &'a [u8],
        last_id: Id,
        entries_read: Option<u64>,
    },
    RemoveGroup {
        group: &'a [u8],
    },
    AddConsumer {
        group: &'a [u8],
        consumer: &'a [u8],
    },
    RemoveConsumer {
        group: &'a [u8],
        consumer: &'a [u8],
    },
    /// The entry is pending with the consumer, whoever had it before.
    Deliver {
        group: &'a [u8],
        consumer: &'a [u8],
        id: Id,
        delivered_ms: i64,
        deliveries: u64,
    },
    /// The entry is not pending any more.
    Acknowledge {
        group: &'a [u8],
        id: Id,
    },
    /// The key holds the value that was dumped as these bytes, and never expires.
    Restore {
        payload: &'a [u8],
    },
    /// The document has this value at the path, or is this value if the path is the root.
    JsonSet {
        path: &'a [u8],
        json: &'a [u8],
    },
    /// What the path leads to is gone.
    JsonRemove {
        path: &'a [u8],
    },
    /// The array has one more element, at this index.
    JsonInsert {
        path: &'a [u8],
        index: usize,
        json: &'a [u8],
    },
    /// Only the elements of this range, one at least, are left in the array.
    JsonRetain {
        path: &'a [u8],
        start: usize,
        end: usize,
    },
    /// The text, a string in JSON, stands behind that of the path.
    JsonAppend {
        path: &'a [u8],
        json: &'a [u8],
    },
    /// The database of this record is empty. It has no key, like those below.
    FlushDb,
    FlushAll,
    SwapDbs {
        a: u32,
        b: u32,
    },
    /// Something that is not in the keyspace; the bytes say how to do it again.
    Beside {
        request: &'a [u8],
    },
}

/// A change and where it happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    pub db: u32,
    pub key: &'a [u8],
    pub change: Change<'a>,
}

// A record begins with a byte: what it is, and whether database and key follow or are those of the
// record before. Numbers are written in groups of seven bits, bytes behind their length.
const SET: u8 = 0;
const SET_KEEPING: u8 = 1;
const SET_EXPIRING: u8 = 2;
const APPEND: u8 = 3;
const OVERWRITE: u8 = 4;
const REMOVE: u8 = 5;
const EXPIRE: u8 = 6;
const PERSIST: u8 = 7;
const MOVE: u8 = 8;
const COPY: u8 = 9;
const PUSH_HEAD: u8 = 10;
const PUSH_TAIL: u8 = 11;
const POP_HEAD: u8 = 12;
const POP_TAIL: u8 = 13;
const REPLACE: u8 = 14;
const INSERT_BEFORE: u8 = 15;
const INSERT_BEHIND: u8 = 16;
const REMOVE_EQUAL: u8 = 17;
const RETAIN: u8 = 18;
const ADD_MEMBER: u8 = 19;
const REMOVE_MEMBER: u8 = 20;
const SET_FIELD: u8 = 21;
const REMOVE_FIELD: u8 = 22;
const SET_SCORE: u8 = 23;
const REMOVE_SCORED: u8 = 24;
const REMOVE_RANKS: u8 = 25;
const FLUSH_DB: u8 = 26;
const FLUSH_ALL: u8 = 27;
const SWAP_DBS: u8 = 28;
const ADD_ENTRY: u8 = 29;
const DELETE_ENTRY: u8 = 30;
const TRIM_ENTRIES: u8 = 31;
const EMPTY_STREAM: u8 = 32;
const SET_HEAD: u8 = 33;
const OBSERVE: u8 = 34;
const ADD_GROUP: u8 = 35;
const SET_GROUP: u8 = 36;
const REMOVE_GROUP: u8 = 37;
const ADD_CONSUMER: u8 = 38;
const REMOVE_CONSUMER: u8 = 39;
const DELIVER: u8 = 40;
const ACKNOWLEDGE: u8 = 41;
const RESTORE: u8 = 42;
const JSON_SET: u8 = 50;
const JSON_REMOVE: u8 = 51;
const JSON_INSERT: u8 = 52;
const JSON_RETAIN: u8 = 53;
const JSON_APPEND: u8 = 54;
const BESIDE: u8 = 63;
const EXPIRE_FIELD: u8 = 43;
const PERSIST_FIELD: u8 = 44;
const KIND: u8 = 0x3f;
const SAME_DB: u8 = 0x40;
const SAME_KEY: u8 = 0x80;

/// Bytes that a block keeps room for when it is used again.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The changes of one transaction, in their order.
#[derive(Default)]
pub struct Changes {
    bytes: Vec<u8>,
    /// Of the last record.
    db: Option<u32>,
    /// Where the key of the last record stands.
    key: Option<(usize, usize)>,
    last_set: Option<LastSet>,
}

/// The last record, if it is a string that a key holds: one that follows it covers it.
struct LastSet {
    at: usize,
    /// Where the key is told already.
    body: usize,
    expiry: Expiry,
}

impl Changes {
    /// Bytes of the block; also a mark to come back to.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The block, for [`Records::new`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn records(&self) -> Records<'_> {
        Records::new(&self.bytes)
    }

    /// A mark from which on the records can be read without those before it.
    pub(crate) fn mark(&mut self) -> usize {
        (self.db, self.key, self.last_set) = (None, None, None);
        self.bytes.len()
    }

    /// Forgets what came behind a mark.
    pub(crate) fn cut_back(&mut self, mark: usize) {
        self.bytes.truncate(mark);
        self.mark();
    }

    /// Makes it ready for another transaction.
    pub(crate) fn clear(&mut self) {
        self.cut_back(0);
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }

    pub fn add(&mut self, record: Record<'_>) {
        self.add_change(record.db, record.key, &record.change);
    }

    /// The same, with the change read where it stands: it is large, and most are a word and a text.
    pub(crate) fn add_change(&mut self, db: u32, key: &[u8], change: &Change<'_>) {
        if let Some(last) = self.last_set.take()
            && let Change::Set { value, expiry } = *change
            && self.db == Some(db)
            && self.key.is_some_and(|(start, end)| self.bytes[start..end] == *key)
        {
            let expiry = if expiry == Expiry::Keep { last.expiry } else { expiry };
            self.bytes.truncate(last.body);
            let kind = self.change(&Change::Set { value, expiry });
            self.bytes[last.at] = self.bytes[last.at] & !KIND | kind;
            self.last_set = Some(LastSet { expiry, ..last });
            return;
        }
        let at = self.bytes.len();
        self.bytes.push(0);
        let mut head = 0;
        match self.db == Some(db) {
            true => head |= SAME_DB,
            false => self.number(u64::from(db)),
        }
        match self.key {
            Some((start, end)) if self.bytes[start..end] == *key => head |= SAME_KEY,
            _ => {
                self.text(key);
                self.key = Some((self.bytes.len() - key.len(), self.bytes.len()));
            }
        }
        self.db = Some(db);
        if let Change::Set { expiry, .. } = *change {
            self.last_set = Some(LastSet { at, body: self.bytes.len(), expiry });
        }
        self.bytes[at] = head | self.change(change);
    }

    /// Writes all of a change but its kind, which it answers.
    fn change(&mut self, change: &Change<'_>) -> u8 {
        match *change {
            Change::Set { value, expiry } => {
                let kind = match expiry {
                    Expiry::Clear => SET,
                    Expiry::Keep => SET_KEEPING,
                    Expiry::At(when) => {
                        self.signed(when);
                        SET_EXPIRING
                    }
                };
                self.text(value);
                kind
            }
            Change::Append { bytes } => self.one(APPEND, bytes),
            Change::Overwrite { offset, bytes } => {
                self.number(offset as u64);
                self.one(OVERWRITE, bytes)
            }
            Change::Observe { element } => self.one(OBSERVE, element),
            Change::Remove => REMOVE,
            Change::Expire { at_ms: None } => PERSIST,
            Change::Expire { at_ms: Some(when) } => {
                self.signed(when);
                EXPIRE
            }
            Change::Move { to, to_db } => {
                self.number(u64::from(to_db));
                self.one(MOVE, to)
            }
            Change::Copy { to, to_db } => {
                self.number(u64::from(to_db));
                self.one(COPY, to)
            }
            Change::Push { end: End::Head, value } => self.one(PUSH_HEAD, value),
            Change::Push { end: End::Tail, value } => self.one(PUSH_TAIL, value),
            Change::Pop { end, count } => {
                self.number(count as u64);
                match end {
                    End::Head => POP_HEAD,
                    End::Tail => POP_TAIL,
                }
            }
            Change::Replace { index, value } => {
                self.number(index as u64);
                self.one(REPLACE, value)
            }
            Change::Insert { pivot, before, value } => {
                self.text(pivot);
                self.one(if before { INSERT_BEFORE } else { INSERT_BEHIND }, value)
            }
            Change::RemoveEqual { value, count } => {
                self.signed(count);
                self.one(REMOVE_EQUAL, value)
            }
            Change::Retain { start, end } => self.two(RETAIN, start, end),
            Change::AddMember { member } => self.one(ADD_MEMBER, member),
            Change::RemoveMember { member } => self.one(REMOVE_MEMBER, member),
            Change::SetField { field, value } => {
                self.text(field);
                self.one(SET_FIELD, value)
            }
            Change::RemoveField { field } => self.one(REMOVE_FIELD, field),
            Change::ExpireField { field, at_ms: Some(when) } => {
                self.signed(when);
                self.one(EXPIRE_FIELD, field)
            }
            Change::ExpireField { field, at_ms: None } => self.one(PERSIST_FIELD, field),
            Change::SetScore { member, score } => {
                self.bytes.extend_from_slice(&score.to_bits().to_le_bytes());
                self.one(SET_SCORE, member)
            }
            Change::RemoveScored { member } => self.one(REMOVE_SCORED, member),
            Change::RemoveRanks { start, end } => self.two(REMOVE_RANKS, start, end),
            Change::AddEntry { id, fields } => {
                self.id(id);
                self.one(ADD_ENTRY, fields)
            }
            Change::DeleteEntry { id } => self.id_of(DELETE_ENTRY, id),
            Change::TrimEntries { first: Some(id) } => self.id_of(TRIM_ENTRIES, id),
            Change::TrimEntries { first: None } => EMPTY_STREAM,
            Change::SetHead { head } => {
                self.id(head.last_id);
                self.id(head.max_deleted_id);
                self.number(head.entries_added);
                SET_HEAD
            }
            Change::AddGroup { group, last_id, entries_read } => {
                self.progress(last_id, entries_read);
                self.one(ADD_GROUP, group)
            }
            Change::SetGroup { group, last_id, entries_read } => {
                self.progress(last_id, entries_read);
                self.one(SET_GROUP, group)
            }
            Change::RemoveGroup { group } => self.one(REMOVE_GROUP, group),
            Change::AddConsumer { group, consumer } => {
                self.text(group);
                self.one(ADD_CONSUMER, consumer)
            }
            Change::RemoveConsumer { group, consumer } => {
                self.text(group);
                self.one(REMOVE_CONSUMER, consumer)
            }
            Change::Deliver { group, consumer, id, delivered_ms, deliveries } => {
                self.text(group);
                self.text(consumer);
                self.signed(delivered_ms);
                self.number(deliveries);
                self.id_of(DELIVER, id)
            }
            Change::Acknowledge { group, id } => {
                self.text(group);
                self.id_of(ACKNOWLEDGE, id)
            }
            Change::Restore { payload } => self.one(RESTORE, payload),
            Change::JsonSet { path, json } => {
                self.text(path);
                self.one(JSON_SET, json)
            }
            Change::JsonRemove { path } => self.one(JSON_REMOVE, path),
            Change::JsonInsert { path, index, json } => {
                self.text(path);
                self.number(index as u64);
                self.one(JSON_INSERT, json)
            }
            Change::JsonRetain { path, start, end } => {
                self.text(path);
                self.two(JSON_RETAIN, start, end)
            }
            Change::JsonAppend { path, json } => {
                self.text(path);
                self.one(JSON_APPEND, json)
            }
            Change::FlushDb => FLUSH_DB,
            Change::FlushAll => FLUSH_ALL,
            Change::SwapDbs { a, b } => self.two(SWAP_DBS, a as usize, b as usize),
            Change::Beside { request } => self.one(BESIDE, request),
        }
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn signed(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn id(&mut self, id: Id) {
        self.bytes.extend_from_slice(&id.to_bytes());
    }

    /// How far a group has come.
    fn progress(&mut self, last_id: Id, entries_read: Option<u64>) {
        self.id(last_id);
        self.number(entries_read.map_or(0, |read| read.saturating_add(1)));
    }

    fn id_of(&mut self, kind: u8, id: Id) -> u8 {
        self.id(id);
        kind
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }

    fn one(&mut self, kind: u8, text: &[u8]) -> u8 {
        self.text(text);
        kind
    }

    fn two(&mut self, kind: u8, first: usize, second: usize) -> u8 {
        self.number(first as u64);
        self.number(second as u64);
        kind
    }
}

/// The records of a block, one after the other.
#[derive(Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    db: u32,
    key: &'a [u8],
}

impl<'a> Records<'a> {
    /// Reads the bytes of one block. Those of anything else make it panic.
    pub fn new(block: &'a [u8]) -> Records<'a> {
        Records { rest: block, db: 0, key: b"" }
    }

    /// The database, key and value, if the block is nothing but a string that a key holds without an
    /// expiry, as most are.
    #[inline]
    pub fn single_set(&self) -> Option<(u32, &'a [u8], &'a [u8])> {
        if self.rest.first() != Some(&SET) {
            return None;
        }
        let mut fields = self.clone();
        fields.byte();
        let (db, key, value) = (fields.number() as u32, fields.text(), fields.text());
        fields.rest.is_empty().then_some((db, key, value))
    }

    fn byte(&mut self) -> u8 {
        let byte = self.rest[0];
        self.rest = &self.rest[1..];
        byte
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    fn size(&mut self) -> usize {
        self.number() as usize
    }

    fn eight(&mut self) -> [u8; 8] {
        self.bytes(8).try_into().expect("eight were asked for")
    }

    fn signed(&mut self) -> i64 {
        i64::from_le_bytes(self.eight())
    }

    fn id(&mut self) -> Id {
        Id::from_bytes(self.bytes(16).try_into().expect("sixteen were asked for"))
    }

    fn text(&mut self) -> &'a [u8] {
        let len = self.size();
        self.bytes(len)
    }

    fn entries_read(&mut self) -> Option<u64> {
        self.number().checked_sub(1)
    }

    // The fields of a literal are read in the order they are written in.
    fn change(&mut self, kind: u8) -> Change<'a> {
        match kind {
            SET => Change::Set { expiry: Expiry::Clear, value: self.text() },
            SET_KEEPING => Change::Set { expiry: Expiry::Keep, value: self.text() },
            SET_EXPIRING => Change::Set { expiry: Expiry::At(self.signed()), value: self.text() },
            APPEND => Change::Append { bytes: self.text() },
            OVERWRITE => Change::Overwrite { offset: self.size(), bytes: self.text() },
            OBSERVE => Change::Observe { element: self.text() },
            REMOVE => Change::Remove,
            EXPIRE => Change::Expire { at_ms: Some(self.signed()) },
            PERSIST => Change::Expire { at_ms: None },
            MOVE => Change::Move { to_db: self.number() as u32, to: self.text() },
            COPY => Change::Copy { to_db: self.number() as u32, to: self.text() },
            PUSH_HEAD => Change::Push { end: End::Head, value: self.text() },
            PUSH_TAIL => Change::Push { end: End::Tail, value: self.text() },
            POP_HEAD => Change::Pop { end: End::Head, count: self.size() },
            POP_TAIL => Change::Pop { end: End::Tail, count: self.size() },
            REPLACE => Change::Replace { index: self.size(), value: self.text() },
            INSERT_BEFORE | INSERT_BEHIND => Change::Insert {
                pivot: self.text(),
                before: kind == INSERT_BEFORE,
                value: self.text(),
            },
            REMOVE_EQUAL => Change::RemoveEqual { count: self.signed(), value: self.text() },
            RETAIN => Change::Retain { start: self.size(), end: self.size() },
            ADD_MEMBER => Change::AddMember { member: self.text() },
            REMOVE_MEMBER => Change::RemoveMember { member: self.text() },
            SET_FIELD => Change::SetField { field: self.text(), value: self.text() },
            REMOVE_FIELD => Change::RemoveField { field: self.text() },
            EXPIRE_FIELD => Change::ExpireField { at_ms: Some(self.signed()), field: self.text() },
            PERSIST_FIELD => Change::ExpireField { at_ms: None, field: self.text() },
            SET_SCORE => Change::SetScore {
                score: f64::from_bits(u64::from_le_bytes(self.eight())),
                member: self.text(),
            },
            REMOVE_SCORED => Change::RemoveScored { member: self.text() },
            REMOVE_RANKS => Change::RemoveRanks { start: self.size(), end: self.size() },
            ADD_ENTRY => Change::AddEntry { id: self.id(), fields: self.text() },
            DELETE_ENTRY => Change::DeleteEntry { id: self.id() },
            TRIM_ENTRIES => Change::TrimEntries { first: Some(self.id()) },
            EMPTY_STREAM => Change::TrimEntries { first: None },
            SET_HEAD => Change::SetHead {
                head: Head {
                    last_id: self.id(),
                    max_deleted_id: self.id(),
                    entries_added: self.number(),
                },
            },
            ADD_GROUP => Change::AddGroup {
                last_id: self.id(),
                entries_read: self.entries_read(),
                group: self.text(),
            },
            SET_GROUP => Change::SetGroup {
                last_id: self.id(),
                entries_read: self.entries_read(),
                group: self.text(),
            },
            REMOVE_GROUP => Change::RemoveGroup { group: self.text() },
            ADD_CONSUMER => Change::AddConsumer { group: self.text(), consumer: self.text() },
            REMOVE_CONSUMER => Change::RemoveConsumer { group: self.text(), consumer: self.text() },
            DELIVER => Change::Deliver {
                group: self.text(),
                consumer: self.text(),
                delivered_ms: self.signed(),
                deliveries: self.number(),
                id: self.id(),
            },
            ACKNOWLEDGE => Change::Acknowledge { group: self.text(), id: self.id() },
            RESTORE => Change::Restore { payload: self.text() },
            JSON_SET => Change::JsonSet { path: self.text(), json: self.text() },
            JSON_REMOVE => Change::JsonRemove { path: self.text() },
            JSON_INSERT => {
                Change::JsonInsert { path: self.text(), index: self.size(), json: self.text() }
            }
            JSON_RETAIN => {
                Change::JsonRetain { path: self.text(), start: self.size(), end: self.size() }
            }
            JSON_APPEND => Change::JsonAppend { path: self.text(), json: self.text() },
            FLUSH_DB => Change::FlushDb,
            FLUSH_ALL => Change::FlushAll,
            SWAP_DBS => Change::SwapDbs { a: self.number() as u32, b: self.number() as u32 },
            BESIDE => Change::Beside { request: self.text() },
            _ => unreachable!("no kind of change"),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let head = self.byte();
        if head & SAME_DB == 0 {
            self.db = self.number() as u32;
        }
        if head & SAME_KEY == 0 {
            self.key = self.text();
        }
        let change = self.change(head & KIND);
        Some(Record { db: self.db, key: self.key, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of every kind, and numbers of every length.
    fn samples(long: &[u8]) -> Vec<Record<'_>> {
        let (head, tail) = (End::Head, End::Tail);
        let changes = [
            Change::Set { value: b"", expiry: Expiry::Clear },
            Change::Set { value: long, expiry: Expiry::Keep },
            Change::Append { bytes: b"more" },
            Change::Set { value: b"v", expiry: Expiry::At(i64::MIN) },
            Change::Overwrite { offset: usize::MAX, bytes: b"x" },
            Change::Observe { element: b"e" },
            Change::Remove,
            Change::Expire { at_ms: Some(-1) },
            Change::Expire { at_ms: None },
            Change::Move { to: b"other", to_db: u32::MAX },
            Change::Copy { to: b"", to_db: 0 },
            Change::Push { end: head, value: b"a" },
            Change::Push { end: tail, value: long },
            Change::Pop { end: head, count: 127 },
            Change::Pop { end: tail, count: 128 },
            Change::Replace { index: 16384, value: b"v" },
            Change::Insert { pivot: b"p", before: true, value: b"v" },
            Change::Insert { pivot: b"p", before: false, value: b"" },
            Change::RemoveEqual { value: b"v", count: -3 },
            Change::Retain { start: 1, end: 300 },
            Change::AddMember { member: b"m" },
            Change::RemoveMember { member: b"m" },
            Change::SetField { field: b"f", value: b"v" },
            Change::RemoveField { field: b"f" },
            Change::ExpireField { field: b"f", at_ms: Some(7) },
            Change::ExpireField { field: long, at_ms: None },
            Change::SetScore { member: b"m", score: f64::NEG_INFINITY },
            Change::RemoveScored { member: b"m" },
            Change::RemoveRanks { start: 0, end: 1 },
            Change::AddEntry { id: Id::MAX, fields: b"packed" },
            Change::DeleteEntry { id: Id::new(1, 2) },
            Change::TrimEntries { first: Some(Id::MIN) },
            Change::TrimEntries { first: None },
            Change::SetHead {
                head: Head {
                    last_id: Id::MAX,
                    max_deleted_id: Id::new(3, 4),
                    entries_added: u64::MAX,
                },
            },
            Change::AddGroup { group: b"g", last_id: Id::MAX, entries_read: None },
            Change::SetGroup { group: b"", last_id: Id::MIN, entries_read: Some(0) },
            Change::SetGroup { group: long, last_id: Id::MIN, entries_read: Some(500) },
            Change::RemoveGroup { group: b"g" },
            Change::AddConsumer { group: b"g", consumer: long },
            Change::RemoveConsumer { group: long, consumer: b"" },
            Change::Deliver {
                group: b"g",
                consumer: b"c",
                id: Id::new(1, 2),
                delivered_ms: i64::MAX,
                deliveries: 300,
            },
            Change::Acknowledge { group: b"g", id: Id::MAX },
            Change::Restore { payload: long },
            Change::JsonSet { path: b"$", json: long },
            Change::JsonRemove { path: b"$[\"a\"]" },
            Change::JsonInsert { path: long, index: 200, json: b"1" },
            Change::JsonRetain { path: b"$", start: 1, end: 1000 },
            Change::JsonAppend { path: b"$", json: b"\"x\"" },
            Change::FlushDb,
            Change::FlushAll,
            Change::SwapDbs { a: 0, b: 15 },
            Change::Beside { request: long },
        ];
        let place = |at: usize| {
            (at as u32 / 4 * 100, if at.is_multiple_of(3) { &b"key"[..] } else { long })
        };
        let records = changes.into_iter().enumerate();
        records.map(|(at, change)| Record { db: place(at).0, key: place(at).1, change }).collect()
    }

    #[test]
    fn a_single_set_is_known_as_such() {
        let long = vec![b'x'; 70_000];
        for record in samples(&long) {
            let mut changes = Changes::default();
            changes.add(record);
            let expected = match record.change {
                Change::Set { value, expiry: Expiry::Clear } => {
                    Some((record.db, record.key, value))
                }
                _ => None,
            };
            assert_eq!(changes.records().single_set(), expected);
            changes.add(Record { db: record.db, key: b"another", change: Change::Remove });
            assert_eq!(changes.records().single_set(), None);
        }
    }

    #[test]
    fn what_is_added_is_read() {
        let long = [b'x'; 20_000];
        let records = samples(&long);
        let mut changes = Changes::default();
        records.iter().for_each(|record| changes.add(*record));
        assert_eq!(changes.records().collect::<Vec<_>>(), records);
    }

    #[test]
    fn a_string_covers_the_one_before() {
        let set =
            |db, key, value, expiry| Record { db, key, change: Change::Set { value, expiry } };
        let (clear, keep, at) = (Expiry::Clear, Expiry::Keep, Expiry::At(7));
        let cases: [(&[Record<'_>], &[Record<'_>]); 5] = [
            (
                &[
                    set(0, b"k", b"long value", at),
                    set(0, b"k", b"v", keep),
                    set(0, b"k", b"w", keep),
                ],
                &[set(0, b"k", b"w", at)],
            ),
            (&[set(0, b"k", b"v", keep), set(0, b"k", b"w", clear)], &[set(0, b"k", b"w", clear)]),
            (&[set(0, b"k", b"v", keep), set(0, b"k", b"w", keep)], &[set(0, b"k", b"w", keep)]),
            (
                &[set(0, b"k", b"v", at), set(0, b"l", b"w", at), set(1, b"l", b"x", keep)],
                &[set(0, b"k", b"v", at), set(0, b"l", b"w", at), set(1, b"l", b"x", keep)],
            ),
            (
                &[
                    set(0, b"k", b"v", keep),
                    Record { db: 0, key: b"k", change: Change::Append { bytes: b"x" } },
                    set(0, b"k", b"w", keep),
                ],
                &[
                    set(0, b"k", b"v", keep),
                    Record { db: 0, key: b"k", change: Change::Append { bytes: b"x" } },
                    set(0, b"k", b"w", keep),
                ],
            ),
        ];
        for (added, kept) in cases {
            let mut changes = Changes::default();
            added.iter().for_each(|record| changes.add(*record));
            assert_eq!(changes.records().collect::<Vec<_>>(), kept);
        }
        let mut changes = Changes::default();
        changes.add(set(0, b"k", b"v", keep));
        let mark = changes.mark();
        changes.add(set(0, b"k", b"w", keep));
        changes.cut_back(mark);
        assert_eq!(changes.records().collect::<Vec<_>>(), [set(0, b"k", b"v", keep)]);
    }

    #[test]
    fn what_is_cut_back_leaves_nothing() {
        let long = [b'x'; 300];
        let records = samples(&long);
        for cut in 0..records.len() {
            let mut changes = Changes::default();
            records[..cut].iter().for_each(|record| changes.add(*record));
            let mark = changes.mark();
            records[cut..].iter().for_each(|record| changes.add(*record));
            assert_eq!(
                Records::new(&changes.as_bytes()[mark..]).collect::<Vec<_>>(),
                records[cut..]
            );
            changes.cut_back(mark);
            assert_eq!(changes.records().collect::<Vec<_>>(), records[..cut]);
            // What comes next does not refer to what was cut off.
            changes.add(records[0]);
            assert_eq!(changes.records().last(), Some(records[0]));
        }
    }
}

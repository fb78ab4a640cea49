//! Undo: what a transaction needs to put everything back.
//!
//! The log holds pre-images, one per key, not a list of operations: the first change of a key
//! saves what it was. A value that is replaced or removed moves into the log; a small one is
//! copied before it is edited; a large one stays where it is and the log notes the inverse of
//! each change ([`Deltas`]). Once a key is saved whole, nothing more is noted for it.
//!
//! Keys are independent of each other, so the order of the records does not matter. What touches
//! more than one key at once (a value that moves to another key, FLUSHALL, SWAPDB) is a barrier:
//! the records behind it are a new segment, undone before it, as those in front are undone after.
//!
//! Knows nothing of scripts: the server says when to record, roll back and commit. Only the door
//! calls the notes here.

mod deltas;
mod groups;
mod trial;

use std::mem;

use ahash::AHashSet;
use data::{Encoding, Table};

use crate::engine::Engine;
use crate::entry::{Collection, Entry, EntryRef, Str, Value, ValueRef};
use crate::shard::{Db, same};
use crate::txn::Txn;
use crate::wait::KeyName;

use deltas::Deltas;
pub(crate) use deltas::{Delta, SMALL_BYTES, Small};
pub(crate) use groups::{GroupDelta, Was};
pub use trial::Trial;

/// With more keys than this in a segment they are found by their hash.
const LINEAR_MAX: usize = 8;
/// Records that a recorder keeps room for when it is used again, and values under deltas.
const KEPT_MAX: usize = 1024;
const KEPT_DELTAS_MAX: usize = 8;
/// How many records ahead memory is asked for while a log is undone.
const AHEAD: usize = 16;
/// No record.
const NONE: u32 = u32::MAX;

/// What a key was.
enum Saved {
    /// There was no such key.
    Absent,
    /// The entry itself, or a copy of it.
    Entry(Entry),
    /// The entry itself, too long to be saved for a snapshot in passing, and the database that the
    /// snapshot has it in. Should it not come back, the walk gets it.
    Unsaved(Entry, u32),
    /// An integer and its expiry.
    Int(i64, Option<i64>),
    /// A string short enough to be copied into the record, and its expiry.
    Text(Text, Option<i64>),
    /// A copy of a small collection, and its expiry.
    Collection(Collection, Option<i64>),
    /// The same value with this expiry.
    Expiry(Option<i64>),
    /// The same value with these changes undone.
    Deltas(Box<Deltas>),
    /// This entry with these changes undone.
    Parted(Entry, Box<Deltas>),
}

impl Saved {
    /// Whether it needs nothing of what the key holds now.
    fn is_whole(&self) -> bool {
        !matches!(self, Saved::Expiry(_) | Saved::Deltas(_))
    }

    /// Whether it holds something that has to be freed.
    #[inline]
    fn owns(&self) -> bool {
        !matches!(self, Saved::Absent | Saved::Int(..) | Saved::Text(..) | Saved::Expiry(_))
    }
}

struct Record {
    hash: u64,
    db: u32,
    key: Text,
    saved: Saved,
}

/// A place in the texts of a log.
#[derive(Clone, Copy)]
struct Text {
    at: usize,
    len: usize,
}

/// Keys and short strings of a log, one behind the other.
#[derive(Default)]
struct Texts(Vec<u8>);

impl Texts {
    #[inline]
    fn add(&mut self, text: &[u8]) -> Text {
        let at = self.0.len();
        // Most are short: these words, which may overlap in the middle, are cheaper than a call.
        match (text.len(), text.first_chunk::<8>(), text.last_chunk::<8>()) {
            (len @ 8..=16, Some(&first), Some(&last)) => {
                self.0.reserve(16);
                // SAFETY: there is room for the text, and both words lie within it and cover it.
                unsafe {
                    let to = self.0.as_mut_ptr().add(at);
                    to.cast::<[u8; 8]>().write_unaligned(first);
                    to.add(len - 8).cast::<[u8; 8]>().write_unaligned(last);
                    self.0.set_len(at + len);
                }
            }
            _ => self.0.extend_from_slice(text),
        }
        Text { at, len: text.len() }
    }

    #[inline]
    fn get(&self, text: Text) -> &[u8] {
        &self.0[text.at..text.at + text.len]
    }
}

/// A change of more than one key.
enum Barrier {
    /// The value of the first key went to the second, which was empty.
    Relocated {
        from: (u32, Small),
        to: (u32, Small),
    },
    /// The tables of these shards and databases were taken out; so many keys.
    Flushed {
        taken: Vec<(u16, u32, Db)>,
        removed: usize,
    },
    Swapped(u32, u32),
}

/// The log of one transaction. A worker keeps one for the next.
#[derive(Default)]
pub(crate) struct Recorder {
    records: Vec<Record>,
    texts: Texts,
    /// With the number of records before each.
    barriers: Vec<(usize, Barrier)>,
    /// First record of the current segment.
    segment: usize,
    /// The records of the segment, once there are many.
    index: Index,
    bytes: usize,
    /// Effects when the recording began.
    dirty: u64,
    flushed_all: bool,
    ready: usize,
    /// Bytes of the change log then, and notices.
    changes: usize,
    notices: usize,
    /// Keys whose watches are marked at commit.
    marks: AHashSet<KeyName>,
    /// Empty, to be used again.
    spare_deltas: SpareDeltas,
}

/// Numbers of records by the hash of their keys: open addressing, at most half full.
#[derive(Default)]
struct Index {
    /// `NONE` where none is; a power of two of them, or none at all.
    slots: Vec<u32>,
    used: usize,
}

impl Index {
    const SLOTS_MIN: usize = 64;

    /// The record of this hash that is it, or the free slot where it would be.
    #[inline]
    fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Result<usize, Vacancy> {
        let mut at = self.home(hash);
        while let Some(&number) = self.slots.get(at) {
            if number == NONE {
                break;
            }
            if is_it(number as usize) {
                return Ok(number as usize);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        Err(Vacancy(at))
    }

    /// The low bits say the shard: keys that a script touches may have them in common.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> 16) as usize & self.slots.len().wrapping_sub(1)
    }

    /// Adds the last of these records in its slot, and if the index is empty all those of the
    /// segment.
    #[inline]
    fn add(&mut self, records: &[Record], segment: usize, Vacancy(at): Vacancy) {
        if self.used == 0 || 2 * (self.used + 1) > self.slots.len() {
            return self.rebuild(records, segment);
        }
        debug_assert_eq!(self.slots[at], NONE);
        self.slots[at] = (records.len() - 1) as u32;
        self.used += 1;
    }

    fn put(&mut self, records: &[Record], number: usize) {
        let mut at = self.home(records[number].hash);
        while self.slots[at] != NONE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = number as u32;
        self.used += 1;
    }

    #[cold]
    fn rebuild(&mut self, records: &[Record], segment: usize) {
        let slots = (4 * (records.len() - segment)).next_power_of_two();
        self.clear();
        self.slots.resize(slots.max(Self::SLOTS_MIN).max(self.slots.len()), NONE);
        for number in segment..records.len() {
            self.put(records, number);
        }
    }

    fn clear(&mut self) {
        if self.used > 0 {
            self.slots.fill(NONE);
            self.used = 0;
        }
    }
}

/// The slot of the index for a key that has no record yet; any number while there is no index.
#[derive(Clone, Copy)]
struct Vacancy(usize);

impl Recorder {
    /// The record of a key in this segment, or where one is to be added.
    #[inline(always)]
    fn find(&self, hash: u64, db: u32, key: &[u8]) -> Result<usize, Vacancy> {
        let is_it = |record: &Record| {
            record.hash == hash && record.db == db && same(self.texts.get(record.key), key)
        };
        if self.records.len() - self.segment > LINEAR_MAX {
            return self.index.find(hash, |at| is_it(&self.records[at]));
        }
        let mut segment = self.records[self.segment..].iter();
        segment.position(is_it).map(|at| self.segment + at).ok_or(Vacancy(0))
    }

    /// Adds a record of a key that has none in this segment.
    #[inline(always)]
    fn push(&mut self, vacancy: Vacancy, name: (u64, u32, &[u8]), saved: Saved) -> usize {
        let (hash, db, key) = name;
        let at = self.records.len();
        self.bytes += size_of::<Record>() + key.len();
        let key = self.texts.add(key);
        self.records.push(Record { hash, db, key, saved });
        if at - self.segment >= LINEAR_MAX {
            self.index.add(&self.records, self.segment, vacancy);
            self.bytes += 4 * size_of::<u32>();
        }
        at
    }

    fn barrier(&mut self, barrier: Barrier) {
        self.bytes += size_of::<(usize, Barrier)>();
        self.barriers.push((self.records.len(), barrier));
        self.segment = self.records.len();
        self.index.clear();
    }

    /// Where the changes of a record under deltas are noted.
    pub fn log(&mut self, at: usize) -> Log<'_> {
        let Saved::Deltas(deltas) = &mut self.records[at].saved else {
            unreachable!("the door has seen the deltas")
        };
        Log { deltas, bytes: &mut self.bytes }
    }

    /// Makes it ready for another transaction; the old values are freed.
    fn clear(mut self: Box<Self>, engine: &Engine) -> Box<Self> {
        let is_empty = self.records.is_empty() && self.texts.0.is_empty();
        if is_empty && self.barriers.is_empty() && self.marks.is_empty() {
            // The transaction only read.
            (self.segment, self.bytes) = (0, 0);
            return self;
        }
        if self.records.iter().any(|record| record.saved.owns()) {
            while let Some(record) = self.records.pop() {
                match record.saved {
                    Saved::Entry(entry) | Saved::Parted(entry, _) => engine.discard(entry),
                    Saved::Unsaved(..) => unreachable!("handed over under the locks, or put back"),
                    Saved::Deltas(deltas) => self.spare_deltas.give_back(deltas),
                    _ => {}
                }
            }
        }
        // Most scripts that write many keys leave only copies of short strings and numbers here, which
        // need no look at each.
        // SAFETY: shorter than it is, and what is let go owns nothing.
        unsafe { self.records.set_len(0) };
        while let Some((_, barrier)) = self.barriers.pop() {
            if let Barrier::Flushed { taken, removed } = barrier {
                engine.let_go(taken.into_iter().map(|(_, _, db)| db).collect(), removed);
            }
        }
        self.texts.0.clear();
        self.texts.0.shrink_to(KEPT_MAX * SMALL_BYTES);
        self.records.shrink_to(KEPT_MAX);
        self.barriers.shrink_to(KEPT_MAX);
        if self.index.slots.len() > 4 * KEPT_MAX {
            self.index = Index::default();
        }
        self.index.clear();
        self.marks.clear();
        (self.segment, self.bytes) = (0, 0);
        self
    }
}

/// The deltas of one key.
pub(crate) struct Log<'a> {
    deltas: &'a mut Deltas,
    /// Of the whole log.
    bytes: &'a mut usize,
}

impl Log<'_> {
    pub fn covers(&self, member: &[u8]) -> bool {
        self.deltas.covers(member)
    }

    pub fn note(&mut self, delta: Delta) {
        *self.bytes += self.deltas.note(delta);
    }

    pub fn note_push(&mut self, end: data::End) {
        *self.bytes += self.deltas.note_push(end);
    }

    pub fn note_pop(&mut self, end: data::End, value: &[u8]) {
        *self.bytes += self.deltas.note_pop(end, value);
    }

    pub fn note_json(&mut self, inverse: data::json::Inverse) {
        *self.bytes += self.deltas.note_json(inverse);
    }
}

/// How the changes of a value that is being edited are recorded.
#[derive(Clone, Copy)]
pub(crate) enum Edits {
    /// Not recording.
    Off,
    /// Not asked yet.
    Unknown,
    /// The key is saved whole: nothing more to do.
    Whole,
    /// One by one, in the record of this number.
    Deltas(usize),
}

fn is_small(collection: &Collection) -> bool {
    let encoding = match collection {
        Collection::Stream(stream) => return stream.is_small(),
        Collection::Json(json) => return json.is_small(),
        Collection::List(list) => list.encoding(),
        Collection::Set(set) => set.encoding(),
        Collection::Hash(hash) => hash.encoding(),
        Collection::Zset(zset) => zset.encoding(),
    };
    !matches!(encoding, Encoding::Quicklist | Encoding::Hashtable | Encoding::Skiplist)
}

/// Deltas that were let go: making them anew takes longer than noting one change.
#[derive(Default)]
struct SpareDeltas(#[expect(clippy::vec_box, reason = "they move as they are")] Vec<Box<Deltas>>);

impl SpareDeltas {
    fn take(&mut self, expire_at_ms: Option<Option<i64>>, text_bytes: usize) -> Box<Deltas> {
        let mut deltas = self.0.pop().unwrap_or_default();
        deltas.begin(expire_at_ms, text_bytes);
        deltas
    }

    fn give_back(&mut self, mut deltas: Box<Deltas>) {
        if deltas.clear() && self.0.len() < KEPT_DELTAS_MAX {
            self.0.push(deltas);
        }
    }
}

/// What saves an entry before it is edited in place. `expire_at_ms` is the expiry before, if that
/// changed already.
fn before_edit(
    entry: &Entry,
    expire_at_ms: Option<Option<i64>>,
    spare_deltas: &mut SpareDeltas,
) -> Saved {
    let expire = expire_at_ms.unwrap_or(entry.expire_at_ms());
    match entry.collection() {
        Some(collection) if is_small(collection) => Saved::Collection(collection.clone(), expire),
        Some(_) => Saved::Deltas(spare_deltas.take(expire_at_ms, 0)),
        None => match (entry.get(), entry.heap_bytes()) {
            (ValueRef::Str(Str::Int(number)), _) => Saved::Int(number, expire),
            (_, Some(bytes)) => Saved::Deltas(spare_deltas.take(expire_at_ms, bytes.len())),
            _ => {
                let mut copy = entry.duplicate(entry.key());
                copy.set_expire(expire);
                Saved::Entry(copy)
            }
        },
    }
}

impl Saved {
    /// Bytes that saving has allocated; a value that moved here was there before.
    fn copied_bytes(&self) -> usize {
        match self {
            Saved::Entry(entry) | Saved::Unsaved(entry, _) => entry.memory_bytes(),
            Saved::Collection(Collection::List(list), _) => list.memory_bytes(),
            Saved::Collection(Collection::Set(set), _) => set.memory_bytes(),
            Saved::Collection(Collection::Hash(hash), _) => hash.memory_bytes(),
            Saved::Collection(Collection::Zset(zset), _) => zset.memory_bytes(),
            Saved::Collection(Collection::Stream(stream), _) => stream.memory_bytes(),
            Saved::Collection(Collection::Json(json), _) => json.memory_bytes(),
            Saved::Deltas(_) | Saved::Parted(..) => size_of::<Deltas>(),
            Saved::Absent | Saved::Int(..) | Saved::Text(..) | Saved::Expiry(_) => 0,
        }
    }
}

impl Txn<'_> {
    /// From here on, changes can be rolled back; until then no watch is marked. Does nothing when
    /// it records already.
    pub fn record(&mut self) {
        if self.undo.is_none() {
            let mut log = self.worker.spare_log.take().unwrap_or_default();
            log.dirty = self.effects.dirty;
            log.flushed_all = self.effects.flushed_all;
            log.ready = self.effects.ready.len();
            log.changes = self.mark_changes();
            log.notices = self.heard();
            self.undo = Some(log);
            self.forget_found();
        }
    }

    pub fn is_recording(&self) -> bool {
        self.undo.is_some()
    }

    /// Memory that recording has taken, and what the changes since then take in the change log and
    /// the notices take.
    /// Values that moved into the log are not counted: they were there before.
    #[inline]
    pub fn undo_bytes(&self) -> usize {
        let Some(log) = &self.undo else { return 0 };
        let changes = self.changes.as_ref().map_or(0, |changes| changes.len() - log.changes);
        log.bytes + changes + self.notice_bytes()
    }

    /// Puts everything back as it was when the recording began, and ends it. The locks are kept
    /// and the transaction can go on. Does nothing when it does not record.
    pub fn roll_back(&mut self) {
        let Some(mut log) = self.undo.take() else { return };
        self.forget_found();
        let home = self.db;
        loop {
            let first = log.barriers.last().map_or(0, |(first, _)| *first);
            self.restore_all(&mut log.records, &log.texts, first);
            let Some((_, barrier)) = log.barriers.pop() else { break };
            self.undo_barrier(barrier);
        }
        self.db = home;
        self.effects.dirty = log.dirty;
        self.effects.flushed_all = log.flushed_all;
        self.effects.ready.truncate(log.ready);
        self.cut_changes_back(log.changes);
        self.cut_notices_back(log.notices);
        self.worker.spare_log.set(Some(log.clear(self.engine)));
    }

    /// Ends the recording while the transaction goes on: what was done so far stays, whatever comes
    /// (a script in MULTI that has ended well). A commit does this by itself.
    pub fn keep(&mut self) {
        if let Some(log) = self.keep_changes() {
            self.drop_log(log);
        }
    }

    /// Has the watches of these keys marked at commit. Only keys that are watched, so there are
    /// few.
    pub(crate) fn mark_at_commit(&mut self, names: impl IntoIterator<Item = KeyName>) {
        if let Some(log) = &mut self.undo {
            log.marks.extend(names);
        }
    }

    /// Ends the recording: the changes stay. What is left of the log is to be dropped when the
    /// locks are free.
    pub(crate) fn keep_changes(&mut self) -> Option<Box<Recorder>> {
        let mut log = self.undo.take()?;
        self.forget_found();
        if self.has_snapshot() {
            self.hand_over_unsaved(&mut log);
        }
        for name in &log.marks {
            let shard = self.engine.key_shard(&name.1);
            if let Some(watches) = self.shard(shard).watches.get(name) {
                watches.iter().for_each(|watch| watch.mark());
            }
        }
        Some(log)
    }

    /// What is gone for good goes to the snapshot, while the walk cannot have missed it.
    #[cold]
    fn hand_over_unsaved(&self, log: &mut Recorder) {
        for record in &mut log.records {
            if let Saved::Unsaved(..) = record.saved
                && let Saved::Unsaved(entry, db) = mem::replace(&mut record.saved, Saved::Absent)
            {
                self.engine.hand_over(db, entry);
            }
        }
    }

    pub(crate) fn drop_log(&self, log: Box<Recorder>) {
        self.worker.spare_log.set(Some(log.clear(self.engine)));
    }

    /// Restores the records from `first` on. The memory that each will touch is asked for while
    /// those before it are restored, or the locks would be held for one cache miss after the
    /// other.
    fn restore_all(&mut self, records: &mut Vec<Record>, texts: &Texts, first: usize) {
        let mut ahead: Vec<(u64, u32)> = Vec::new();
        if records.len() - first > AHEAD {
            ahead.extend(records[first..].iter().map(|record| (record.hash, record.db)));
        }
        for (at, record) in records.drain(first..).enumerate() {
            // Each step of the way takes a load that the step before has waited for.
            if let Some(&(hash, db)) = ahead.get(at + AHEAD) {
                self.keys_of(hash, db).inspect(|keys| keys.prefetch(hash));
            }
            if let Some(&(hash, db)) = ahead.get(at + AHEAD / 2) {
                self.keys_of(hash, db).inspect(|keys| {
                    keys.prefetch_values(hash);
                });
            }
            self.restore(record, texts);
        }
    }

    fn keys_of(&self, hash: u64, db: u32) -> Option<&Table<Entry>> {
        self.shard(Engine::shard_of(hash)).db(db).map(|tables| &tables.keys)
    }

    fn restore(&mut self, record: Record, texts: &Texts) {
        let Record { hash, db, key, saved, .. } = record;
        let key = texts.get(key);
        self.db = db;
        let (engine, limits) = (self.engine, self.limits());
        let entry = match saved {
            Saved::Absent => {
                let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
                if let Some(now) = tables.remove(&engine.hasher, hash, key) {
                    engine.discard(now);
                }
                return;
            }
            Saved::Expiry(when) => {
                let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
                tables.set_expire(&engine.hasher, hash, key, when);
                return;
            }
            Saved::Deltas(mut deltas) => {
                let when = deltas.expire_at_ms.take();
                let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(db);
                let entry = tables.find_mut(hash, key).expect("what has deltas is still there");
                deltas.undo(entry, limits);
                if let Some(when) = when {
                    tables.set_expire(&engine.hasher, hash, key, when);
                }
                return;
            }
            Saved::Entry(entry) => entry,
            Saved::Unsaved(entry, _) => {
                if let Some(now) = self.put_back(hash, entry) {
                    engine.discard(now);
                }
                return;
            }
            Saved::Int(number, expire) => Entry::value(key, Value::Int(number), expire),
            Saved::Text(text, expire) => {
                Entry::value(key, Value::Bytes(texts.get(text).to_vec()), expire)
            }
            Saved::Collection(collection, expire) => Entry::value(key, collection.into(), expire),
            Saved::Parted(mut entry, deltas) => {
                deltas.undo(&mut entry, limits);
                entry
            }
        };
        if let Some(now) = self.put_in(hash, entry) {
            engine.discard(now);
        }
    }

    fn undo_barrier(&mut self, barrier: Barrier) {
        let engine = self.engine;
        match barrier {
            Barrier::Relocated { from, to } => {
                let hash = engine.hash(&to.1);
                let tables = self.shard_mut(Engine::shard_of(hash)).db_mut(to.0);
                let entry = tables.remove(&engine.hasher, hash, &to.1);
                let entry = entry.expect("what moved is where it went");
                let entry = if from.1 == to.1 { entry } else { entry.renamed(&from.1) };
                self.db = from.0;
                let before = self.put_in(engine.hash(&from.1), entry);
                debug_assert!(before.is_none(), "its place was empty");
            }
            Barrier::Flushed { taken, .. } => {
                for (shard, db, tables) in taken {
                    let now = mem::replace(self.shard_mut(shard).db_mut(db), tables);
                    debug_assert!(now.keys.is_empty(), "what came after the flush is undone");
                }
            }
            Barrier::Swapped(a, b) => self.swap_tables(a, b),
        }
    }

    /// Whether a key needs no more recording. Only while recording.
    pub(crate) fn is_saved_whole(&self, hash: u64, key: &[u8]) -> bool {
        let log = self.undo.as_ref().expect("asked while recording");
        log.find(hash, self.db, key).is_ok_and(|at| log.records[at].saved.is_whole())
    }

    /// An entry was taken out of the table, or none was there before one was put in: saves it, or
    /// frees it when it is not needed. A snapshot that has not saved it does so or gets it.
    #[inline]
    pub(crate) fn release(&mut self, hash: u64, key: &[u8], old: Option<Entry>) {
        let is_saved = old.as_ref().is_none_or(|old| self.preserve_short(old));
        if self.undo.is_some() {
            self.note_replaced(hash, key, old, is_saved);
        } else if let Some(old) = old {
            match is_saved {
                true => self.engine.discard(old),
                false => self.engine.hand_over(self.snapshot_db(hash), old),
            }
        }
    }

    fn note_replaced(&mut self, hash: u64, key: &[u8], old: Option<Entry>, is_saved: bool) {
        let (engine, db) = (self.engine, self.db);
        let snapshot_db = if is_saved { db } else { self.snapshot_db(hash) };
        let log = self.undo.as_mut().expect("called while recording");
        let at = match log.find(hash, db, key) {
            Ok(at) => at,
            Err(vacancy) => {
                let saved = match old {
                    None => Saved::Absent,
                    Some(old) if is_saved => Saved::Entry(old),
                    Some(old) => Saved::Unsaved(old, snapshot_db),
                };
                log.push(vacancy, (hash, db, key), saved);
                return;
            }
        };
        debug_assert!(is_saved, "what was changed before was saved before");
        let Some(mut old) = old else { return };
        let saved = &mut log.records[at].saved;
        *saved = match mem::replace(saved, Saved::Absent) {
            Saved::Expiry(when) => {
                old.set_expire(when);
                Saved::Entry(old)
            }
            Saved::Deltas(deltas) => Saved::Parted(old, deltas),
            whole => {
                engine.discard(old);
                whole
            }
        };
    }

    /// Whether a string may be overwritten where it stands: a short one is copied first. All
    /// others are to be replaced, so that what is there moves into the log. Only while recording.
    pub(crate) fn note_overwritten(&mut self, hash: u64, place: EntryRef) -> bool {
        if self.is_known_saved(place) {
            return true;
        }
        // SAFETY: as in `begin_edit`.
        let entry = unsafe { place.entry() };
        let db = self.db;
        let log = self.undo.as_mut().expect("called while recording");
        let key = entry.key();
        let vacancy = match log.find(hash, db, key) {
            Err(vacancy) => vacancy,
            Ok(at) => {
                let is_whole = log.records[at].saved.is_whole();
                if is_whole {
                    self.note_saved(place);
                }
                return is_whole;
            }
        };
        let expire = entry.expire_at_ms();
        let saved = match entry.get() {
            ValueRef::Str(Str::Int(number)) => Saved::Int(number, expire),
            ValueRef::Str(Str::Bytes(text)) if text.len() <= SMALL_BYTES && !entry.is_raw() => {
                log.bytes += text.len();
                Saved::Text(log.texts.add(text), expire)
            }
            _ => return false,
        };
        log.push(vacancy, (hash, db, key), saved);
        self.note_saved(place);
        true
    }

    /// An integer is about to be overwritten where it stands.
    #[inline]
    pub(crate) fn note_int(
        &mut self,
        hash: u64,
        entry: EntryRef,
        stored: i64,
        expire: Option<i64>,
    ) {
        if !self.is_known_saved(entry) {
            self.note_int_now(hash, entry, stored, expire);
        }
    }

    fn note_int_now(&mut self, hash: u64, place: EntryRef, stored: i64, expire: Option<i64>) {
        let db = self.db;
        let Some(log) = &mut self.undo else { return };
        // SAFETY: as in `begin_edit`.
        let key = unsafe { place.entry() }.key();
        let at = match log.find(hash, db, key) {
            Err(vacancy) => log.push(vacancy, (hash, db, key), Saved::Int(stored, expire)),
            Ok(at) => {
                if let Saved::Expiry(when) = log.records[at].saved {
                    log.records[at].saved = Saved::Int(stored, when);
                }
                at
            }
        };
        if log.records[at].saved.is_whole() {
            self.note_saved(place);
        }
    }

    /// The expiry of a live entry is about to change.
    pub(crate) fn note_expiry(&mut self, hash: u64, key: &[u8], expire: Option<i64>) {
        let db = self.db;
        let Some(log) = &mut self.undo else { return };
        match log.find(hash, db, key) {
            Err(vacancy) => {
                log.push(vacancy, (hash, db, key), Saved::Expiry(expire));
            }
            Ok(at) => {
                if let Saved::Deltas(deltas) = &mut log.records[at].saved {
                    deltas.expire_at_ms.get_or_insert(expire);
                }
            }
        }
    }

    /// A value is about to be edited in place. Only while recording.
    pub(crate) fn begin_edit(&mut self, hash: u64, place: EntryRef) -> Edits {
        if self.is_known_saved(place) {
            return Edits::Whole;
        }
        // SAFETY: the caller has found it in its table and holds the shard; nothing moves here.
        let entry = unsafe { place.entry() };
        let db = self.db;
        let log = self.undo.as_mut().expect("called while recording");
        let at = match log.find(hash, db, entry.key()) {
            Err(vacancy) => {
                let saved = before_edit(entry, None, &mut log.spare_deltas);
                log.bytes += saved.copied_bytes();
                log.push(vacancy, (hash, db, entry.key()), saved)
            }
            Ok(at) => {
                if let Saved::Expiry(when) = log.records[at].saved {
                    let saved = before_edit(entry, Some(when), &mut log.spare_deltas);
                    log.bytes += saved.copied_bytes();
                    log.records[at].saved = saved;
                }
                at
            }
        };
        if let Saved::Deltas(_) = &log.records[at].saved {
            return Edits::Deltas(at);
        }
        self.note_saved(place);
        Edits::Whole
    }

    /// A value under deltas is about to be edited again: saves it whole if its deltas have
    /// outgrown it.
    #[inline]
    pub(crate) fn go_on_editing(&mut self, at: usize, entry: EntryRef) -> Edits {
        let limits = self.limits();
        let log = self.undo.as_mut().expect("called while recording");
        let record = &mut log.records[at];
        let Saved::Deltas(deltas) = &mut record.saved else { return Edits::Whole };
        // SAFETY: as in `begin_edit`.
        match deltas.outgrown(unsafe { entry.entry() }, limits) {
            None => Edits::Deltas(at),
            Some(copy) => {
                record.saved = Saved::Entry(copy);
                log.bytes += record.saved.copied_bytes();
                Edits::Whole
            }
        }
    }

    /// So many bytes of a string are about to be written at an offset, or at the end. Only while
    /// recording.
    pub(crate) fn note_text(
        &mut self,
        hash: u64,
        entry: EntryRef,
        offset: Option<usize>,
        count: usize,
    ) {
        let mut edits = self.begin_edit(hash, entry);
        if let Edits::Deltas(at) = edits {
            edits = self.go_on_editing(at, entry);
        }
        if let Edits::Deltas(at) = edits {
            // SAFETY: as in `begin_edit`.
            let text =
                unsafe { entry.entry() }.heap_bytes().expect("only long strings have deltas");
            let log = self.undo.as_mut().expect("called while recording").log(at);
            let start = offset.unwrap_or(text.len());
            *log.bytes += log.deltas.note_bytes(text, start, start + count);
        }
    }

    /// All elements of a value under deltas go at once: they move into the log.
    pub(crate) fn note_emptied(&mut self, at: usize, entry: Entry) {
        let log = self.undo.as_mut().expect("called while recording");
        let saved = &mut log.records[at].saved;
        let Saved::Deltas(deltas) = mem::replace(saved, Saved::Absent) else {
            unreachable!("the door has seen the deltas")
        };
        *saved = Saved::Parted(entry, deltas);
    }

    /// The value of one key is about to move to another, which is empty now.
    pub(crate) fn note_relocated(&mut self, from: (u32, &[u8]), to: (u32, &[u8])) {
        self.forget_found();
        let log = self.undo.as_mut().expect("called while recording");
        let own = |name: (u32, &[u8])| (name.0, Small::from_slice(name.1));
        log.barrier(Barrier::Relocated { from: own(from), to: own(to) });
    }

    /// The tables of whole databases were taken out. Frees them when it does not record.
    pub(crate) fn release_tables(&mut self, taken: Vec<(u16, u32, Db)>, removed: usize) {
        self.forget_found();
        match &mut self.undo {
            Some(log) => log.barrier(Barrier::Flushed { taken, removed }),
            None => {
                let dbs = taken.into_iter().map(|(_, _, db)| db).collect();
                self.engine.let_go(dbs, removed);
            }
        }
    }

    /// Two databases are swapped.
    pub(crate) fn note_swapped(&mut self, a: u32, b: u32) {
        self.forget_found();
        if let Some(log) = &mut self.undo {
            log.barrier(Barrier::Swapped(a, b));
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking() || self.records.is_empty(),
            "a log is committed or rolled back"
        );
    }
}

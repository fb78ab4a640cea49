//! Notices: what became of keys, in the words of keyspace events, for those who listen.
//!
//! The door notes them beside the change log while somebody listens: subscribers of keyspace events,
//! clients with a cache of their own. Most changes have a name of their own; a command whose changes
//! are told under another one says so (`Txn::tell_as`). What is rolled back is cut off. The notices
//! of a transaction go to the one [`Herald`] while its locks are still held, so those about the same
//! key come in the order of its changes.

use data::End;

use crate::change::Change;
use crate::door::Expiry;
use crate::entry::Type;
use crate::txn::Txn;

/// What kind of event it is: those who listen choose among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Generic = b'g',
    String = b'$',
    List = b'l',
    Set = b's',
    Hash = b'h',
    Zset = b'z',
    Stream = b't',
    /// Types that came later.
    Module = b'd',
    Expired = b'x',
    Evicted = b'e',
    New = b'n',
    Miss = b'm',
}

impl Class {
    const ALL: [Class; 12] = [
        Class::Generic,
        Class::String,
        Class::List,
        Class::Set,
        Class::Hash,
        Class::Zset,
        Class::Stream,
        Class::Module,
        Class::Expired,
        Class::Evicted,
        Class::New,
        Class::Miss,
    ];

    fn bit(self) -> u16 {
        match self {
            Class::Generic => 1,
            Class::String => 1 << 1,
            Class::List => 1 << 2,
            Class::Set => 1 << 3,
            Class::Hash => 1 << 4,
            Class::Zset => 1 << 5,
            Class::Stream => 1 << 6,
            Class::Module => 1 << 7,
            Class::Expired => 1 << 8,
            Class::Evicted => 1 << 9,
            Class::New => 1 << 10,
            Class::Miss => 1 << 11,
        }
    }
}

/// A set of classes, and how events are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u16);

const BY_KEY: u16 = 1 << 12;
const BY_EVENT: u16 = 1 << 13;

impl Classes {
    /// Those whose letter is wanted; `K` has them told by key and `E` by event. Without either
    /// there are none.
    pub fn of(is_wanted: impl Fn(u8) -> bool) -> Classes {
        let by_key = if is_wanted(b'K') { BY_KEY } else { 0 };
        let by_event = if is_wanted(b'E') { BY_EVENT } else { 0 };
        if by_key | by_event == 0 {
            return Classes::default();
        }
        let wanted = Class::ALL.into_iter().filter(|class| is_wanted(*class as u8));
        Classes(wanted.fold(by_key | by_event, |bits, class| bits | class.bit()))
    }

    pub fn tells_by_key(self) -> bool {
        self.0 & BY_KEY != 0
    }

    pub fn tells_by_event(self) -> bool {
        self.0 & BY_EVENT != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub class: Class,
    pub name: &'static str,
}

impl Event {
    pub const NEW: Event = Event { class: Class::New, name: "new" };
    pub const MISS: Event = Event { class: Class::Miss, name: "keymiss" };
    pub const EXPIRED: Event = Event { class: Class::Expired, name: "expired" };
    pub const EVICTED: Event = Event { class: Class::Evicted, name: "evicted" };
    pub const DEL: Event = Event::generic("del");

    pub const fn generic(name: &'static str) -> Event {
        Event { class: Class::Generic, name }
    }

    pub const fn string(name: &'static str) -> Event {
        Event { class: Class::String, name }
    }

    pub const fn list(name: &'static str) -> Event {
        Event { class: Class::List, name }
    }

    pub const fn set(name: &'static str) -> Event {
        Event { class: Class::Set, name }
    }

    pub const fn hash(name: &'static str) -> Event {
        Event { class: Class::Hash, name }
    }

    pub const fn zset(name: &'static str) -> Event {
        Event { class: Class::Zset, name }
    }

    pub const fn stream(name: &'static str) -> Event {
        Event { class: Class::Stream, name }
    }

    pub const fn module(name: &'static str) -> Event {
        Event { class: Class::Module, name }
    }

    /// What a change is told as unless its command has another word for it; some are not told.
    fn of(change: &Change<'_>) -> Option<Event> {
        Some(match change {
            Change::Set { .. } => Event::string("set"),
            Change::Append { .. } => Event::string("append"),
            Change::Overwrite { .. } => Event::string("setrange"),
            Change::Observe { .. } => Event::string("pfadd"),
            Change::Remove => Event::DEL,
            Change::Expire { at_ms: Some(_) } => Event::generic("expire"),
            Change::Expire { at_ms: None } => Event::generic("persist"),
            Change::Move { .. } => Event::generic("rename_from"),
            Change::Copy { .. } => Event::generic("copy_to"),
            Change::Push { end: End::Head, .. } => Event::list("lpush"),
            Change::Push { end: End::Tail, .. } => Event::list("rpush"),
            Change::Pop { end: End::Head, .. } => Event::list("lpop"),
            Change::Pop { end: End::Tail, .. } => Event::list("rpop"),
            Change::Replace { .. } => Event::list("lset"),
            Change::Insert { .. } => Event::list("linsert"),
            Change::RemoveEqual { .. } => Event::list("lrem"),
            Change::Retain { .. } => Event::list("ltrim"),
            Change::AddMember { .. } => Event::set("sadd"),
            Change::RemoveMember { .. } => Event::set("srem"),
            Change::SetField { .. } => Event::hash("hset"),
            Change::RemoveField { .. } => Event::hash("hdel"),
            Change::ExpireField { at_ms: Some(_), .. } => Event::hash("hexpire"),
            Change::ExpireField { at_ms: None, .. } => Event::hash("hpersist"),
            Change::SetScore { .. } => Event::zset("zadd"),
            Change::RemoveScored { .. } => Event::zset("zrem"),
            Change::RemoveRanks { .. } => Event::zset("zremrangebyrank"),
            Change::AddEntry { .. } => Event::stream("xadd"),
            Change::DeleteEntry { .. } => Event::stream("xdel"),
            Change::TrimEntries { .. } => Event::stream("xtrim"),
            Change::SetHead { .. } => Event::stream("xsetid"),
            Change::AddGroup { .. } => Event::stream("xgroup-create"),
            Change::RemoveGroup { .. } => Event::stream("xgroup-destroy"),
            Change::AddConsumer { .. } => Event::stream("xgroup-createconsumer"),
            Change::RemoveConsumer { .. } => Event::stream("xgroup-delconsumer"),
            // Reading with a group is not told, only what is done to the group itself.
            Change::SetGroup { .. } | Change::Deliver { .. } | Change::Acknowledge { .. } => {
                return None;
            }
            Change::JsonSet { .. } => Event::module("json.set"),
            Change::JsonRemove { .. } => Event::module("json.del"),
            Change::JsonInsert { .. } => Event::module("json.arrinsert"),
            Change::JsonRetain { .. } => Event::module("json.arrtrim"),
            Change::JsonAppend { .. } => Event::module("json.strappend"),
            Change::Restore { .. } => Event::generic("restore"),
            Change::FlushDb | Change::FlushAll | Change::SwapDbs { .. } | Change::Beside { .. } => {
                return None;
            }
        })
    }
}

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client's whose transaction it is.
    Client,
    /// Nobody's: the key's time was over, or memory was short.
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    Event {
        db: u32,
        key: &'a [u8],
        event: Event,
        cause: Cause,
    },
    /// The client has read a key that it keeps a copy of from here on: what was done to the key
    /// before is in there.
    Read {
        key: &'a [u8],
    },
    /// One database is empty, or all are.
    Flush,
    /// A message for subscribers, to be heard among the events in its place.
    Message {
        is_sharded: bool,
        channel: &'a [u8],
        message: &'a [u8],
    },
}

#[derive(Clone, Copy)]
enum What {
    Event(Event, Cause),
    Read,
    Flush,
    /// The channel is so many bytes of the text.
    Message {
        is_sharded: bool,
        channel_len: usize,
    },
}

struct Noted {
    db: u32,
    /// Where the key or the text stands.
    at: usize,
    len: usize,
    what: What,
}

/// The notices of one transaction, in their order.
#[derive(Default)]
pub struct Notices {
    list: Vec<Noted>,
    texts: Vec<u8>,
    /// Of which subscribers want to hear.
    pub classes: Classes,
    /// Clients keep caches, and want to hear of every change.
    pub is_tracked: bool,
    /// What the running command calls its changes, and how many notices there were when it said so.
    name: Option<(Event, usize)>,
}

/// Notices that a list keeps room for when it is used again.
const KEPT_MAX: usize = 1024;

impl Notices {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.list.len() * size_of::<Noted>() + self.texts.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = Notice<'_>> {
        self.list.iter().map(|noted| {
            let text = self.text(noted);
            match noted.what {
                What::Read => Notice::Read { key: text },
                What::Flush => Notice::Flush,
                What::Event(event, cause) => {
                    Notice::Event { db: noted.db, key: text, event, cause }
                }
                What::Message { is_sharded, channel_len } => {
                    let (channel, message) = text.split_at(channel_len);
                    Notice::Message { is_sharded, channel, message }
                }
            }
        })
    }

    fn text(&self, noted: &Noted) -> &[u8] {
        &self.texts[noted.at..noted.at + noted.len]
    }

    fn is_about(&self, noted: &Noted, db: u32, key: &[u8], event: Event) -> bool {
        let is_event = matches!(noted.what, What::Event(told, _) if told == event);
        noted.db == db && is_event && self.text(noted) == key
    }

    fn wants(&self, event: Event) -> bool {
        let changes = !matches!(event.class, Class::New | Class::Miss);
        self.classes.contains(event.class) || (self.is_tracked && changes)
    }

    fn add(&mut self, db: u32, key: &[u8], event: Event, cause: Cause) {
        if self.wants(event) {
            self.push(db, &[key], What::Event(event, cause));
        }
    }

    fn push(&mut self, db: u32, parts: &[&[u8]], what: What) {
        let at = self.texts.len();
        parts.iter().for_each(|part| self.texts.extend_from_slice(part));
        self.list.push(Noted { db, at, len: self.texts.len() - at, what });
    }

    /// Forgets what came behind a mark.
    pub(crate) fn cut_back(&mut self, mark: usize) {
        self.list.truncate(mark);
        if self.list.is_empty() {
            self.texts.clear();
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.texts.clear();
        self.list.shrink_to(KEPT_MAX);
        self.texts.shrink_to(64 * KEPT_MAX);
    }
}

/// Who tells the world. Called by many threads at once, each of which holds the locks of what it
/// has changed: it must not look at the keyspace, and be quick.
pub trait Herald: Send + Sync {
    /// Tells of the doings of a client, by its number; 0 for nobody. Answers what that client
    /// itself is to be sent behind its reply.
    fn tell(&self, notices: &Notices, client: u64) -> Vec<u8>;
}

impl Txn<'_> {
    /// Whether somebody listens to what this transaction does.
    #[inline]
    pub fn is_heard(&self) -> bool {
        self.notices.is_some()
    }

    /// The client whose doing it is; 0 for nobody.
    pub fn set_client(&mut self, client: u64) {
        self.client = client;
    }

    /// A command begins.
    #[inline(always)]
    pub fn begin_command(&mut self) {
        if let Some(notices) = &mut self.notices {
            notices.get_mut().name = None;
        }
    }

    /// What the running command calls all its changes of a value, where the change does not say it.
    /// Those of one key are told once.
    pub fn tell_as(&mut self, event: Event) {
        if let Some(notices) = &mut self.notices {
            let notices = notices.get_mut();
            notices.name = Some((event, notices.list.len()));
        }
    }

    /// Tells of something that the door does not see.
    pub fn tell(&mut self, key: &[u8], event: Event) {
        let db = self.db;
        self.note_in(db, key, event, Cause::Client);
    }

    /// The client keeps a copy of a key, which it did not before the last command.
    pub fn note_read(&mut self, key: &[u8]) {
        if let Some(notices) = &mut self.notices
            && !notices.get_mut().is_empty()
        {
            notices.get_mut().push(0, &[key], What::Read);
        }
    }

    pub(crate) fn note_in(&mut self, db: u32, key: &[u8], event: Event, cause: Cause) {
        if let Some(notices) = &mut self.notices {
            notices.get_mut().add(db, key, event, cause);
        }
    }

    /// A read has found no key.
    #[inline]
    pub(crate) fn note_miss(&self, key: &[u8]) {
        if let Some(notices) = &self.notices {
            notices.borrow_mut().add(self.db, key, Event::MISS, Cause::Client);
        }
    }

    /// A key has been found expired. It is told once, though it is removed later.
    pub(crate) fn note_expired_once(&self, key: &[u8]) {
        let Some(notices) = &self.notices else { return };
        let mut notices = notices.borrow_mut();
        let is_told = |noted| notices.is_about(noted, self.db, key, Event::EXPIRED);
        if !notices.list.iter().rev().any(is_told) {
            notices.add(self.db, key, Event::EXPIRED, Cause::Server);
        }
    }

    /// A change, which went into the change log too.
    pub(crate) fn note_change(&mut self, key: &[u8], change: &Change<'_>) {
        let db = self.db;
        let Some(notices) = &mut self.notices else { return };
        let notices = notices.get_mut();
        match (change, notices.name) {
            (Change::Remove | Change::Expire { .. }, _) | (_, None) => {
                if let Some(event) = Event::of(change) {
                    notices.add(db, key, event, Cause::Client);
                }
            }
            (_, Some((event, since))) => {
                let mut told = notices.list[since..].iter();
                if !told.any(|noted| notices.is_about(noted, db, key, event)) {
                    notices.add(db, key, event, Cause::Client);
                }
            }
        }
        if let Change::Set { expiry: Expiry::At(_), .. } = change {
            notices.add(db, key, Event::generic("expire"), Cause::Client);
        }
    }

    /// A change of a collection. Those through one handle are told once.
    pub(crate) fn note_edit(&mut self, key: &[u8], change: &Change<'_>, again: bool) {
        let db = self.db;
        let Some(notices) = &mut self.notices else { return };
        let notices = notices.get_mut();
        let name = notices.name.map(|(event, _)| event);
        let Some(event) = name.or_else(|| Event::of(change)) else { return };
        let last = notices.list.last();
        if !again || !last.is_some_and(|last| notices.is_about(last, db, key, event)) {
            notices.add(db, key, event, Cause::Client);
        }
    }

    /// A whole value was put under its key.
    pub(crate) fn note_put(&mut self, key: &[u8], kind: Type) {
        let Some(notices) = &mut self.notices else { return };
        let name = notices.get_mut().name;
        let event = name.map_or(
            match kind {
                Type::String => Event::string("set"),
                Type::List => Event::list("rpush"),
                Type::Set => Event::set("sadd"),
                Type::Hash => Event::hash("hset"),
                Type::Zset => Event::zset("zadd"),
                Type::Stream => Event::stream("xadd"),
                Type::Json => Event::module("json.set"),
            },
            |(event, _)| event,
        );
        self.tell(key, event);
    }

    /// A key that was made for a collection goes again, as nothing came into it.
    pub(crate) fn forget_new(&mut self, db: u32, key: &[u8]) {
        let Some(notices) = &mut self.notices else { return };
        let notices = notices.get_mut();
        let last = notices.list.last();
        if last.is_some_and(|last| notices.is_about(last, db, key, Event::NEW)) {
            notices.cut_back(notices.list.len() - 1);
        }
    }

    pub(crate) fn note_flush(&mut self) {
        if let Some(notices) = &mut self.notices {
            notices.get_mut().push(0, &[], What::Flush);
        }
    }

    /// Sends a message when the transaction commits, among its events. Only while it is heard.
    pub fn say(&mut self, is_sharded: bool, channel: &[u8], message: &[u8]) {
        let notices = self.notices.as_mut().expect("the caller has asked whether it is heard");
        let what = What::Message { is_sharded, channel_len: channel.len() };
        notices.get_mut().push(0, &[channel, message], what);
    }

    /// How many notices there are: a mark.
    pub fn heard(&self) -> usize {
        self.notices.as_ref().map_or(0, |notices| notices.borrow().list.len())
    }

    /// Has what came behind the second mark told before what came between the two.
    pub fn tell_last_first(&mut self, first: usize, second: usize) {
        if let Some(notices) = &mut self.notices {
            notices.get_mut().list[first..].rotate_left(second - first);
        }
    }

    pub(crate) fn cut_notices_back(&mut self, mark: usize) {
        if let Some(notices) = &mut self.notices {
            notices.get_mut().cut_back(mark);
        }
    }

    pub(crate) fn notice_bytes(&self) -> usize {
        self.notices.as_ref().map_or(0, |notices| notices.borrow().bytes())
    }

    /// Tells all. The locks are still held.
    pub(crate) fn tell_notices(&mut self) {
        let Some(notices) = &mut self.notices else { return };
        let notices = notices.get_mut();
        if let Some(herald) = self.engine.herald()
            && !notices.is_empty()
        {
            self.effects.pushes.extend(herald.tell(notices, self.client));
        }
        notices.clear();
    }
}

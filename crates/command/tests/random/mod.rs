//! Random commands, made from the rows of the table, and full dumps of the keyspace.
//!
//! Each row with the `WRITE` flag gets random arguments by its syntax line: `testkit::draw`.

use std::collections::BTreeMap;

use command::{Blocking, Call, Command, FAMILIES, Handler, flag, syntax};
use data::{Encoding, Hash, Limits, List, Set, Stream, Zset, stream};
use engine::{Entry, Str, Txn, ValueRef};
use fastrand::Rng;
use resp::{Protocol, Reply};
pub use testkit::draw::DBS;
use testkit::draw::{self, Draw, Shape, Taste};

pub const START_MS: i64 = 1_700_000_000_000;

/// A command and what can be drawn for it.
pub struct Row {
    pub command: &'static Command<Handler>,
    pub shape: Shape,
}

/// Every row that writes, subcommands included.
pub fn rows() -> Vec<Row> {
    let commands = FAMILIES.iter().flat_map(|family| family.iter());
    let all = commands.flat_map(|command| {
        let name = command.row.name;
        let subcommands = command.subcommands.iter();
        let named = subcommands.map(move |inner| (inner, vec![name, inner.row.name]));
        std::iter::once((command, vec![name])).chain(named)
    });
    let writing = all.filter(|(command, _)| command.row.has(flag::WRITE));
    writing
        .map(|(command, words)| {
            let row = &command.row;
            let arguments = syntax::parse(row.syntax, row.keys.len()).expect("checked");
            let shape = Shape {
                words: words.into_iter().map(str::to_owned).collect(),
                group: row.group.name().to_owned(),
                arity: row.arity.into(),
                arguments: arguments.iter().map(argument).collect(),
            };
            Row { command, shape }
        })
        .collect()
}

fn argument(argument: &syntax::Argument) -> draw::Argument {
    draw::Argument {
        name: argument.name.clone(),
        kind: draw::Kind::named(argument.kind.name()).expect("the names of COMMAND DOCS"),
        token: argument.token.clone(),
        optional: argument.optional,
        multiple: argument.multiple,
        multiple_token: argument.multiple_token,
        arguments: argument.arguments.iter().map(self::argument).collect(),
    }
}

/// What DUMP would answer for a value of any type.
fn payload(rng: &mut Rng) -> Vec<u8> {
    let limits = small_limits();
    let members: Vec<Vec<u8>> = (0..rng.usize(1..14)).map(|_| draw::member(rng)).collect();
    let (mut list, mut set) = (List::new(), Set::new());
    let (mut hash, mut zset) = (Hash::new(), Zset::new());
    for (number, member) in members.iter().enumerate() {
        list.push_back(member, &limits);
        set.add(member, &limits);
        hash.set(member, b"value", &limits);
        zset.insert(member, number as f64, &limits);
    }
    let text = Entry::string(b"", &draw::text(rng), None);
    let stream = stream(rng, &limits);
    let value = match rng.u8(..6) {
        5 => ValueRef::Stream(&stream),
        0 => text.get(),
        1 => ValueRef::List(&list),
        2 => ValueRef::Set(&set),
        3 => ValueRef::Hash(&hash),
        _ => ValueRef::Zset(&zset),
    };
    persist::rdb::dump(value, persist::rdb::Version::V11)
}

/// With a group where one and the other that is pending was deleted.
fn stream(rng: &mut Rng, limits: &Limits) -> Stream {
    let mut stream = Stream::new();
    let mut group = stream::Group::new(stream::Id::new(20, 0), Some(3));
    group.add_consumer(b"c", 5, None);
    for ms in 1..rng.u64(2..30) {
        let id = stream::Id::new(ms, 0);
        stream.add(id, [(&b"field"[..], &b"value"[..])].into_iter(), limits);
        if rng.bool() {
            group.set_pending(id, b"c", 7, 1);
        }
        if rng.u8(..5) == 0 {
            stream.delete(id);
        }
    }
    if rng.bool() {
        stream.put_group(b"g", group);
    }
    stream
}

pub fn draw(rng: &mut Rng, row: &Row, now_ms: i64) -> Vec<Vec<u8>> {
    let mut payload = payload;
    Draw { rng, now_ms, taste: Taste::Valid, payload: &mut payload }.command(&row.shape)
}

/// Runs a command while the clock shows this; whether it answered without an error.
pub fn run(txn: &mut Txn<'_>, command: &Command<Handler>, args: &[Vec<u8>], clock_ms: i64) -> bool {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let mut out = Vec::new();
    let mut call = Call::new(txn, Reply::new(&mut out, Protocol::Resp2), Blocking::Never);
    call.bulk_bytes_max = 1 << 20;
    call.clock_ms = clock_ms;
    let handler = command.handler.expect("rows that write are no containers");
    let result = handler(&mut call, &args);
    assert!(call.wait.is_none(), "waits in a transaction");
    result.is_ok()
}

/// A string as a failure shows it; of a long one, which nobody reads, only whether it is the same.
pub fn string_text(bytes: &[u8]) -> String {
    match bytes.len() {
        ..=4096 => bytes.escape_ascii().to_string(),
        len => format!("{len} bytes {:x}", data::hash_bytes(bytes)),
    }
}

/// What is seen of a key from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub value_type: &'static str,
    pub encoding: &'static str,
    pub expire_at_ms: Option<i64>,
    pub elements: Vec<String>,
}

impl Seen {
    pub fn of(entry: &Entry) -> Seen {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let mut elements: Vec<String> = match entry.get() {
            ValueRef::Str(Str::Int(number)) => vec![number.to_string()],
            ValueRef::Str(Str::Bytes(bytes)) => vec![string_text(bytes)],
            ValueRef::List(list) => list.iter().map(text).collect(),
            ValueRef::Set(set) => set.iter().map(|member| text(&member)).collect(),
            ValueRef::Hash(hash) => {
                let time = |field| hash.time_ms(field).map(|at_ms| format!(" at {at_ms}"));
                let all = hash.iter().map(|(field, value)| {
                    text(field) + "=" + &text(value) + &time(field).unwrap_or_default()
                });
                all.collect()
            }
            ValueRef::Zset(zset) => {
                zset.iter().map(|(member, score)| format!("{}={score}", text(member))).collect()
            }
            ValueRef::Json(json) => {
                let mut json_text = Vec::new();
                json.root().write(&mut json_text);
                vec![text(&json_text)]
            }
            ValueRef::Stream(stream) => {
                let entries = stream.iter().map(|entry| {
                    let pairs = entry.fields.map(|(field, value)| text(field) + "=" + &text(value));
                    format!("{} {:?}", entry.id, pairs.collect::<Vec<_>>())
                });
                let groups = stream.groups().flat_map(|(name, group)| group_lines(name, group));
                let head = std::iter::once(format!("{:?}", stream.head()));
                head.chain(entries).chain(groups).collect()
            }
        };
        // The order of a table means nothing; that of compact encodings is seen by clients.
        if entry.encoding() == Encoding::Hashtable.name() {
            elements.sort();
        }
        Seen {
            value_type: entry.value_type().name(),
            encoding: entry.encoding(),
            expire_at_ms: entry.expire_at_ms(),
            elements,
        }
    }
}

/// A consumer group, what is pending in it, and its consumers. What only the clock says stands at
/// the end of a line.
fn group_lines(name: &[u8], group: &stream::Group) -> Vec<String> {
    let name = name.escape_ascii();
    let mut lines = vec![format!("group {name} {} {:?}", group.last_id, group.entries_read)];
    for (id, pending) in group.pending(..) {
        let owner = group.owner(pending);
        assert!(owner.pending(id..=id).eq([id]), "{id} is pending with who does not know");
        lines.push(format!(
            "pending {name} {id} {} {} at={}",
            owner.name().escape_ascii(),
            pending.deliveries,
            pending.delivered_ms
        ));
    }
    let mut pending_count = 0;
    for consumer in group.consumers() {
        pending_count += consumer.pending_count();
        lines.push(format!(
            "consumer {name} {} {} seen={} {:?}",
            consumer.name().escape_ascii(),
            consumer.pending_count(),
            consumer.seen_ms,
            consumer.active_ms
        ));
    }
    assert_eq!(pending_count, group.pending_count());
    lines
}

pub type Dump = BTreeMap<(u32, Vec<u8>), Seen>;

/// All live keys, and how many entries and expiries each database has, stale ones included.
pub fn dump(txn: &mut Txn<'_>) -> (Dump, Vec<(usize, usize)>) {
    let home = txn.db();
    let mut dump = Dump::new();
    let mut sizes = Vec::new();
    for db in 0..DBS {
        txn.select(db);
        txn.for_each(|entry| {
            let before = dump.insert((db, entry.key().to_vec()), Seen::of(entry));
            assert!(before.is_none(), "a key is there twice");
        });
        let size = txn.db_size();
        sizes.push((size.keys, size.expires));
    }
    txn.select(home);
    (dump, sizes)
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Limits that a few random elements exceed.
pub fn small_limits() -> Limits {
    Limits {
        list_max_listpack_size: 6,
        hash_max_listpack_entries: 8,
        hash_max_listpack_value: 50,
        set_max_intset_entries: 8,
        set_max_listpack_entries: 8,
        zset_max_listpack_entries: 8,
        stream_node_max_entries: 5,
        ..Limits::default()
    }
}

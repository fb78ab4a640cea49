//! Random commands, made from the rows of the table, and full dumps of the keyspace.
//!
//! Each row with the `WRITE` flag gets random arguments by its syntax line.

use std::collections::BTreeMap;

use command::syntax::{Argument, Kind, parse};
use command::{Blocking, Call, Command, FAMILIES, Group, Handler, flag};
use data::{Encoding, Hash, Limits, List, Set, Zset};
use engine::{Entry, Str, Txn, ValueRef};
use fastrand::Rng;
use resp::{Protocol, Reply};

pub const DBS: u32 = 3;
/// Keys of each kind.
const KEYS: u8 = 3;
pub const START_MS: i64 = 1_700_000_000_000;

/// A command with its arguments parsed from its syntax line.
pub struct Row {
    pub command: &'static Command<Handler>,
    pub arguments: Vec<Argument>,
}

/// Every row that writes.
pub fn rows() -> Vec<Row> {
    let commands = FAMILIES.iter().flat_map(|family| family.iter());
    let writing = commands.filter(|command| command.row.has(flag::WRITE));
    writing
        .map(|command| {
            assert!(command.subcommands.is_empty(), "{}: draw subcommands too", command.row.name);
            let arguments = parse(command.row.syntax, command.row.keys.len()).expect("checked");
            Row { command, arguments }
        })
        .collect()
}

/// Draws the arguments of one command.
struct Draw<'a> {
    rng: &'a mut Rng,
    row: &'a Row,
    now_ms: i64,
    args: Vec<Vec<u8>>,
    /// What `numkeys` said of the keys to come.
    numkeys: Option<usize>,
}

impl Draw<'_> {
    fn sequence(&mut self, arguments: &[Argument]) {
        for argument in arguments {
            if argument.optional && self.rng.u8(..3) > 0 {
                continue;
            }
            let turns = match (argument.multiple, argument.kind, self.numkeys) {
                (true, Kind::Key, Some(numkeys)) => numkeys,
                // Enough, now and then, to go beyond a compact encoding at once.
                (true, ..) if self.rng.u8(..8) == 0 => self.rng.usize(8..14),
                (true, ..) => self.rng.usize(1..4),
                (false, ..) => 1,
            };
            for turn in 0..turns {
                if let Some(token) = &argument.token
                    && (turn == 0 || argument.multiple_token)
                {
                    self.args.push(token.clone().into_bytes());
                }
                self.one(argument);
            }
        }
    }

    fn one(&mut self, argument: &Argument) {
        match argument.kind {
            // Its token is there.
            Kind::PureToken => {}
            Kind::OneOf => {
                let choice = self.rng.usize(..argument.arguments.len());
                self.sequence(&argument.arguments[choice..=choice]);
            }
            Kind::Block => self.sequence(&argument.arguments),
            _ => {
                let value = self.value(argument);
                self.args.push(value);
            }
        }
    }

    fn pick(&mut self, choices: &[&str]) -> Vec<u8> {
        choices[self.rng.usize(..choices.len())].as_bytes().to_vec()
    }

    fn value(&mut self, argument: &Argument) -> Vec<u8> {
        if argument.kind == Kind::Key {
            return self.key();
        }
        if self.rng.u8(..40) == 0 {
            return self.pick(&[
                "x",
                "",
                "-1",
                "9223372036854775807",
                "-9223372036854775808",
                "nan",
            ]);
        }
        let now_ms = self.now_ms;
        let lex = self.row.command.row.name.ends_with("lex");
        let number = match argument.name.as_str() {
            "numkeys" => {
                let numkeys = self.rng.usize(1..4);
                self.numkeys = Some(numkeys);
                numkeys as i64
            }
            "seconds" => [100, 1, 0, -5, 100_000][self.rng.usize(..5)],
            "milliseconds" => [100_000, 1, 500, 0, -5][self.rng.usize(..5)],
            "unix-time-seconds" => now_ms / 1000 + self.rng.i64(-5..100),
            "unix-time-milliseconds" => now_ms + self.rng.i64(-5000..100_000),
            "db" | "destination-db" | "index1" | "index2" => self.rng.i64(0..i64::from(DBS)),
            "encoding" => {
                return self.pick(&["u8", "i5", "u63", "i64", "u1", "i16"]);
            }
            "offset" if self.row.command.row.name == "bitfield" && self.rng.bool() => {
                return self.pick(&["#0", "#3", "#17"]);
            }
            "value" if self.row.command.row.name == "setbit" => self.rng.i64(0..2),
            "offset" if self.rng.bool() => self.rng.i64(0..6),
            "offset" => self.rng.i64(0..3000),
            "count" => self.rng.i64(-3..20),
            "timeout" => 0,
            "threshold" | "id" | "last-id" | "max-deleted-id" => {
                let ms = self.rng.u8(..40);
                return match self.rng.u8(..6) {
                    0 => format!("{ms}-{}", self.rng.u8(..3)).into_bytes(),
                    1 if argument.name == "id" => format!("{ms}-*").into_bytes(),
                    _ => ms.to_string().into_bytes(),
                };
            }
            "entries-added" => self.rng.i64(0..300),
            "min" | "max" if lex => {
                return self.pick(&["-", "+", "[1", "(3", "[member:2", "(member:5", "+", "-"]);
            }
            "min" | "max" => {
                return self.pick(&["-inf", "+inf", "0", "(1", "-2", "3", "(5", "[member:3", "-1"]);
            }
            "increment" if self.row.command.row.group == Group::SortedSet => {
                return self.pick(&["1", "-2", "0.5", "inf", "-inf"]);
            }
            "score" | "weight" => {
                return self.pick(&["1", "2", "-1", "0.5", "inf", "-inf", "0", "7"]);
            }
            _ => match argument.kind {
                Kind::Integer if self.rng.u8(..6) == 0 => {
                    [i64::MAX, i64::MIN, i64::MAX - 3][self.rng.usize(..3)]
                }
                Kind::Integer => self.rng.i64(-10..10),
                Kind::Double => return self.pick(&["1", "-0.5", "2.25", "1e10", "-3", "inf"]),
                _ if argument.name == "value" => return self.text(),
                _ if argument.name == "serialized-value" => return self.payload(),
                _ => return self.member(),
            },
        };
        number.to_string().into_bytes()
    }

    /// Mostly one of the kind that the command works on.
    fn key(&mut self) -> Vec<u8> {
        let own = match self.row.command.row.group {
            Group::String | Group::Bitmap => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "zset",
            Group::Hash => "hash",
            Group::Stream => "stream",
            _ => "",
        };
        let kind = match self.rng.u8(..10) {
            0..9 if !own.is_empty() => own.to_owned(),
            _ => String::from_utf8(self.pick(&["string", "list", "set", "zset", "hash", "stream"]))
                .unwrap(),
        };
        format!("{kind}:{}", self.rng.u8(..KEYS)).into_bytes()
    }

    fn member(&mut self) -> Vec<u8> {
        match self.rng.u8(..8) {
            0..2 => self.rng.u8(..4).to_string().into_bytes(),
            2..4 => self.rng.u8(..30).to_string().into_bytes(),
            4..7 => format!("member:{}", self.rng.u8(..30)).into_bytes(),
            _ => vec![b'm'; self.rng.usize(..80)],
        }
    }

    /// What DUMP would answer for a value of any type.
    fn payload(&mut self) -> Vec<u8> {
        let limits = small_limits();
        let members: Vec<Vec<u8>> = (0..self.rng.usize(1..14)).map(|_| self.member()).collect();
        let (mut list, mut set) = (List::new(), Set::new());
        let (mut hash, mut zset) = (Hash::new(), Zset::new());
        for (number, member) in members.iter().enumerate() {
            list.push_back(member, &limits);
            set.add(member, &limits);
            hash.set(member, b"value", &limits);
            zset.insert(member, number as f64, &limits);
        }
        let text = Entry::string(b"", &self.text(), None);
        let value = match self.rng.u8(..5) {
            0 => text.get(),
            1 => ValueRef::List(&list),
            2 => ValueRef::Set(&set),
            3 => ValueRef::Hash(&hash),
            _ => ValueRef::Zset(&zset),
        };
        persist::rdb::dump(value, persist::rdb::Version::V11)
    }

    fn text(&mut self) -> Vec<u8> {
        match self.rng.u8(..7) {
            0 | 6 => self.rng.i64(-9..9).to_string().into_bytes(),
            1 => self.rng.i64(..).to_string().into_bytes(),
            2 => vec![b'x'; self.rng.usize(1000..2500)],
            3 => b"1.5".to_vec(),
            _ => vec![b'v'; self.rng.usize(..60)],
        }
    }
}

pub fn draw(rng: &mut Rng, row: &Row, now_ms: i64) -> Vec<Vec<u8>> {
    let mut args = vec![row.command.row.name.as_bytes().to_vec()];
    loop {
        let mut draw = Draw { rng: &mut *rng, row, now_ms, args, numkeys: None };
        draw.sequence(&row.arguments);
        args = draw.args;
        if row.command.row.accepts(args.len()) {
            return args;
        }
        args.truncate(1);
    }
}

/// Runs a command; whether it answered without an error.
pub fn run(txn: &mut Txn<'_>, row: &Row, args: &[Vec<u8>]) -> bool {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let mut out = Vec::new();
    let mut call = Call::new(txn, Reply::new(&mut out, Protocol::Resp2), Blocking::Never);
    call.bulk_bytes_max = 1 << 20;
    let handler = row.command.handler.expect("rows that write are no containers");
    let result = handler(&mut call, &args);
    assert!(call.wait.is_none(), "waits in a transaction");
    result.is_ok()
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
            ValueRef::Str(Str::Bytes(bytes)) => vec![text(bytes)],
            ValueRef::List(list) => list.iter().map(text).collect(),
            ValueRef::Set(set) => set.iter().map(|member| text(&member)).collect(),
            ValueRef::Hash(hash) => {
                hash.iter().map(|(field, value)| text(field) + "=" + &text(value)).collect()
            }
            ValueRef::Zset(zset) => {
                zset.iter().map(|(member, score)| format!("{}={score}", text(member))).collect()
            }
            ValueRef::Stream(stream) => {
                let entries = stream.iter().map(|entry| {
                    let pairs = entry.fields.map(|(field, value)| text(field) + "=" + &text(value));
                    format!("{} {:?}", entry.id, pairs.collect::<Vec<_>>())
                });
                std::iter::once(format!("{:?}", stream.head())).chain(entries).collect()
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

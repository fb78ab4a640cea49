//! Every keyspace command answers any arguments with exactly one well-formed reply, touches no
//! key outside its lock plan, leaves no empty collection behind, and never panics.
//!
//! The bytes are read as a script of commands on one keyspace: a byte chooses the command, others
//! its surroundings (protocol, database, the clock) and, one by one, where an argument comes from.
#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use command::{Blocking, Call, Command, FAMILIES, Handler, Row, Scope};
use engine::{Engine, Plan, Settings, Txn, Worker};
use libfuzzer_sys::fuzz_target;
use resp::{Protocol, Reply, decode};

/// Longest script, longest command, and the longest string a command may make.
const COMMANDS_MAX: usize = 64;
const ARGS_MAX: usize = 12;
const STRING_BYTES_MAX: usize = 1 << 16;
/// How many members with repetition are asked for: Redis sets no sensible bound of its own.
const DRAWN_MAX: i64 = 1000;

const KEYS: &[&[u8]] = &[b"a", b"b", b"c", b"list", b"set", b"hash", b"zset", b"text"];
const MEMBERS: &[&[u8]] = &[b"x", b"y", b"z", b"", b"xx", b"long member that is no number", b"17"];
const NUMBERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"3",
    b"10",
    b"-2",
    b"100",
    b"1.5",
    b"-0.5",
    b"1e3",
    b"0.1",
    b"inf",
    b"-inf",
    b"nan",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"4294967295",
    b"4294967296",
    b"2147483647",
    b"-2147483648",
    b"1e308",
    b"-1e308",
    b"1e-320",
    b"1700000000",
    b"1700000001000",
    b"536870912",
    b"01",
    b"+1",
    b" 1",
    b"0x10",
];
const WORDS: &[&[u8]] = &[
    b"(1",
    b"[a",
    b"(a",
    b"-",
    b"+",
    b"(inf",
    b"*",
    b"?*",
    b"[",
    b"[^",
    b"\\",
    b"a*[b-",
    b"BEFORE",
    b"AFTER",
    b"LEFT",
    b"RIGHT",
    b"MIN",
    b"MAX",
    b"ASYNC",
    b"SYNC",
    b"WITHSCORES",
    b"WITHSCORE",
    b"WITHVALUES",
    b"COUNT",
    b"MATCH",
    b"LIMIT",
    b"GET",
    b"STORE",
    b"#",
];

struct Entry {
    container: Option<&'static str>,
    command: &'static Command<Handler>,
    /// The words in capitals of its syntax line.
    tokens: Vec<&'static [u8]>,
}

fn entry(container: Option<&'static str>, command: &'static Command<Handler>) -> Entry {
    let tokens = command
        .row
        .syntax
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase()))
        .map(str::as_bytes)
        .collect();
    Entry { container, command, tokens }
}

static COMMANDS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for command in FAMILIES.iter().flat_map(|family| family.iter()) {
        if command.handler.is_some() {
            all.push(entry(None, command));
        }
        for sub in command.subcommands {
            all.push(entry(Some(command.row.name), sub));
        }
    }
    all
});

struct Keyspace {
    engine: Engine,
    worker: Worker,
}

thread_local! {
    // Made once: its shards cost more than most scripts.
    static KEYSPACE: RefCell<Keyspace> = RefCell::new({
        let engine = Engine::new(1);
        let mut settings = Settings::default();
        // Small limits, so that short scripts get past the compact encodings.
        settings.limits.hash_max_listpack_entries = 3;
        settings.limits.set_max_listpack_entries = 3;
        settings.limits.set_max_intset_entries = 3;
        settings.limits.zset_max_listpack_entries = 3;
        settings.limits.list_max_listpack_size = 3;
        let worker = Worker::new(0, Arc::new(settings), engine.stats(0));
        Keyspace { engine, worker }
    });
}

/// The script: bytes from the front, zeros beyond its end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn choice<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.byte() % from.len()]
    }

    fn argument(&mut self, entry: &Entry) -> Vec<u8> {
        match self.byte() % 8 {
            0..=2 => self.choice(KEYS).to_vec(),
            3 => self.choice(MEMBERS).to_vec(),
            4 => self.choice(NUMBERS).to_vec(),
            5 if !entry.tokens.is_empty() => self.choice(&entry.tokens).to_vec(),
            5 => self.choice(WORDS).to_vec(),
            6 => (self.byte() as i64 - 128).to_string().into_bytes(),
            _ => {
                let len = (self.byte() % 80).min(self.0.len());
                let (bytes, rest) = self.0.split_at(len);
                self.0 = rest;
                bytes.to_vec()
            }
        }
    }

    fn command(&mut self) -> (&'static Entry, Vec<Vec<u8>>) {
        let entry = &COMMANDS[self.byte() % COMMANDS.len()];
        let row = &entry.command.row;
        let mut args: Vec<Vec<u8>> = Vec::new();
        args.extend(entry.container.map(|name| name.as_bytes().to_vec()));
        args.push(row.name.as_bytes().to_vec());
        let least = usize::from(row.arity.unsigned_abs());
        let more =
            if row.arity < 0 { self.byte() % (ARGS_MAX - least.min(ARGS_MAX - 1)) } else { 0 };
        while args.len() < least + more {
            args.push(self.argument(entry));
        }
        (entry, args)
    }
}

/// As the server plans.
fn plan(engine: &Engine, row: &Row, args: &[&[u8]]) -> Plan {
    match row.scope {
        Scope::Exclusive => Plan::Exclusive,
        Scope::Walk => Plan::Walk,
        Scope::Keys => match row.key_positions(args) {
            Ok(keys) => Plan::shards(keys.iter().map(|&at| engine.key_shard(args[at])).collect()),
            Err(_) => Plan::Exclusive,
        },
    }
}

fn draws_too_much(row: &Row, args: &[&[u8]]) -> bool {
    matches!(row.name, "srandmember" | "hrandfield" | "zrandmember")
        && args
            .iter()
            .skip(2)
            .any(|arg| data::number::parse_i64(arg).is_some_and(|count| count < -DRAWN_MAX))
}

fuzz_target!(|input: &[u8]| {
    KEYSPACE.with_borrow_mut(|Keyspace { engine, worker }| {
        worker.rng.borrow_mut().seed(1);
        assert!(engine.gates().enter_all(None, || false), "one thread has all gates");
        let mut txn = Txn::begin(engine, worker, Plan::Exclusive, 0);
        txn.flush(None);
        txn.commit();

        let mut script = Script(input);
        let mut now_ms: i64 = 1_700_000_000_000;
        let mut out = Vec::new();
        for _ in 0..COMMANDS_MAX {
            if script.0.is_empty() {
                break;
            }
            let (entry, args) = script.command();
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
            let row = &entry.command.row;
            if draws_too_much(row, &args) {
                continue;
            }
            let surroundings = script.byte();
            now_ms += [0, 0, 1, 1000][surroundings & 3];
            let db = [0, 0, 0, 1][surroundings >> 2 & 3];
            let protocol = [Protocol::Resp2, Protocol::Resp3][surroundings >> 4 & 1];
            let blocking =
                [Blocking::Never, Blocking::First, Blocking::Again][(surroundings >> 5) % 3];
            out.clear();
            let plan = plan(engine, row, &args);
            let mut txn = Txn::begin(engine, worker, plan, now_ms);
            txn.select(db);
            let mut call = Call::new(&mut txn, Reply::new(&mut out, protocol), blocking);
            call.bulk_bytes_max = STRING_BYTES_MAX;
            let handler = entry.command.handler.expect("only those with a handler are listed");
            let result = handler(&mut call, &args);
            let waits = call.wait.is_some();
            txn.commit();
            if let Err(error) = result {
                out.clear();
                Reply::new(&mut out, protocol).error(&error.0);
            } else if waits {
                assert!(blocking != Blocking::Never, "{} waits where it must not", row.name);
                assert!(out.is_empty(), "{} waits and has answered", row.name);
                continue;
            }
            match decode(&out) {
                Ok(Some((_, end))) if end == out.len() => {}
                other => panic!("{:?}: {other:?} from {}", args, out.escape_ascii()),
            }
        }

        for db in 0..2 {
            let mut txn = Txn::begin(engine, worker, Plan::Exclusive, 0);
            txn.select(db);
            let (mut keys, mut expires) = (0, 0);
            txn.for_each(|entry| {
                keys += 1;
                expires += usize::from(entry.expire_at_ms().is_some());
                let empty = match entry.get() {
                    engine::ValueRef::Str(_) => false,
                    engine::ValueRef::List(list) => list.is_empty(),
                    engine::ValueRef::Set(set) => set.is_empty(),
                    engine::ValueRef::Hash(hash) => hash.is_empty(),
                    engine::ValueRef::Zset(zset) => zset.is_empty(),
                    engine::ValueRef::Stream(_) | engine::ValueRef::Json(_) => false,
                };
                assert!(!empty, "an empty collection stayed");
            });
            let size = txn.db_size();
            assert_eq!((size.keys, size.expires), (keys, expires));
        }
        // SAFETY: entered above.
        unsafe { engine.gates().leave_all() };
    });
});

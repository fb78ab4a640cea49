//! What a few commands, transactions and scripts do to a store of strings and lists, written down
//! a second time and simply: the model that histories are checked against.
//!
//! Operations are made at random, and say themselves what is to be sent. Called by
//! `linearizability`; knows nothing of clients and threads.

use std::collections::{BTreeMap, VecDeque};

use super::Random;
use crate::value::Value;

/// Keys, few, so that everything overlaps.
const KEYS: usize = 6;

pub fn key(number: usize) -> String {
    format!("k{number}")
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    Text(String),
    List(VecDeque<String>),
}

pub type Store = BTreeMap<usize, Item>;

/// A command that can stand alone, in MULTI and in a script.
#[derive(Clone, Debug)]
pub enum Command {
    Get(usize),
    Set(usize, String),
    GetDel(usize),
    Incr(usize),
    Append(usize, String),
    Push(usize, String),
    Pop(usize),
    Range(usize),
    Move(usize, usize),
    Rename(usize, usize),
    MSet(usize, usize, String),
    MSetNx(usize, usize, String),
    MGet(usize, usize),
    Del(usize, usize),
    FlushDb,
    /// Only where other commands cannot come between: it walks.
    DbSize,
}

/// A line of a script.
#[derive(Clone, Debug)]
pub enum Line {
    Call(Command),
    /// Under `redis.pcall`, whose error becomes a value.
    Caught(Command),
    /// Under Lua's `pcall`, with an error after the command, which stays.
    Inner(Command),
    /// Sets one key to the text of another, a little longer.
    Carry(usize, usize),
    /// Increments a key whose name depends on what another holds.
    Follow(usize),
    /// Takes a while.
    Spin(usize),
    /// An error that nobody catches.
    Fail,
}

#[derive(Clone, Debug)]
pub struct Script {
    /// The keys it declares; it may touch all.
    declared: Vec<usize>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub enum Operation {
    Command(Command),
    Script(Script),
    Multi(Vec<Operation>),
    /// MULTI ROLLBACK.
    Undoing(Vec<Operation>),
    /// WATCH and GET of a key, then MULTI with these: if EXEC answers, nobody came between.
    Watched(usize, Vec<Operation>),
}

fn error(word: &str) -> Value {
    Value::Error(word.as_bytes().to_vec())
}

/// Replies of the server without what the model does not say: the words of errors, and which of
/// the nils it was.
pub fn simplified(reply: Value) -> Value {
    match reply {
        Value::Error(text) => {
            let text = String::from_utf8_lossy(&text);
            if text.contains("Script killed by user") {
                return killed();
            }
            error(text.split(' ').next().unwrap_or_default())
        }
        Value::NilArray => Value::Nil,
        Value::Array(items) => Value::Array(items.into_iter().map(simplified).collect()),
        other => other,
    }
}

/// The answer of a script that somebody ended.
pub fn killed() -> Value {
    error("killed")
}

fn status() -> Value {
    Value::Status(b"OK".to_vec())
}

fn number(value: usize) -> Value {
    Value::Integer(value as i64)
}

fn wrong_type() -> Value {
    error("WRONGTYPE")
}

fn bulk_or_nil(text: Option<String>) -> Value {
    text.map_or(Value::Nil, |text| Value::bulk(&text))
}

/// The text of a key, or the answer if it holds no text.
fn text(store: &Store, key: usize) -> Result<Option<String>, Value> {
    match store.get(&key) {
        None => Ok(None),
        Some(Item::Text(text)) => Ok(Some(text.clone())),
        Some(Item::List(_)) => Err(wrong_type()),
    }
}

fn list(store: &Store, key: usize) -> Result<VecDeque<String>, Value> {
    match store.get(&key) {
        None => Ok(VecDeque::new()),
        Some(Item::List(items)) => Ok(items.clone()),
        Some(Item::Text(_)) => Err(wrong_type()),
    }
}

fn put_list(store: &mut Store, key: usize, items: VecDeque<String>) {
    if items.is_empty() {
        store.remove(&key);
    } else {
        store.insert(key, Item::List(items));
    }
}

/// What it answers; an error is an `Err` and has changed nothing.
fn run(store: &mut Store, command: &Command) -> Result<Value, Value> {
    Ok(match command {
        Command::Get(key) => bulk_or_nil(text(store, *key)?),
        Command::Set(key, value) => {
            store.insert(*key, Item::Text(value.clone()));
            status()
        }
        Command::GetDel(key) => {
            let old = text(store, *key)?;
            store.remove(key);
            bulk_or_nil(old)
        }
        Command::Incr(key) => {
            let old = text(store, *key)?.unwrap_or_else(|| "0".to_owned());
            let value: i64 = old.parse().map_err(|_| error("ERR"))?;
            // 007 is no integer to Redis.
            if value.to_string() != old {
                return Err(error("ERR"));
            }
            let value = value.checked_add(1).ok_or_else(|| error("ERR"))?;
            store.insert(*key, Item::Text(value.to_string()));
            Value::Integer(value)
        }
        Command::Append(key, more) => {
            let value = text(store, *key)?.unwrap_or_default() + more;
            let length = value.len();
            store.insert(*key, Item::Text(value));
            number(length)
        }
        Command::Push(key, value) => {
            let mut items = list(store, *key)?;
            items.push_front(value.clone());
            let length = items.len();
            put_list(store, *key, items);
            number(length)
        }
        Command::Pop(key) => {
            let mut items = list(store, *key)?;
            let first = items.pop_front();
            put_list(store, *key, items);
            bulk_or_nil(first)
        }
        Command::Range(key) => {
            Value::Array(list(store, *key)?.iter().map(|item| Value::bulk(item)).collect())
        }
        Command::Move(from, to) => {
            let mut source = list(store, *from)?;
            let Some(item) = source.pop_front() else { return Ok(Value::Nil) };
            list(store, *to)?;
            put_list(store, *from, source);
            let mut target = list(store, *to)?;
            target.push_back(item.clone());
            put_list(store, *to, target);
            Value::bulk(&item)
        }
        Command::Rename(from, to) => {
            let item = store.remove(from).ok_or_else(|| error("ERR"))?;
            store.insert(*to, item);
            status()
        }
        Command::MSet(first, second, value) => {
            store.insert(*first, Item::Text(value.clone()));
            store.insert(*second, Item::Text(value.clone()));
            status()
        }
        Command::MSetNx(first, second, value) => {
            if store.contains_key(first) || store.contains_key(second) {
                return Ok(number(0));
            }
            store.insert(*first, Item::Text(value.clone()));
            store.insert(*second, Item::Text(value.clone()));
            number(1)
        }
        Command::MGet(first, second) => Value::Array(
            [first, second].map(|key| bulk_or_nil(text(store, *key).unwrap_or_default())).to_vec(),
        ),
        Command::Del(first, second) => {
            let first = store.remove(first).is_some();
            number(usize::from(first) + usize::from(store.remove(second).is_some()))
        }
        Command::FlushDb => {
            store.clear();
            status()
        }
        Command::DbSize => number(store.len()),
    })
}

/// What a line adds to the answer of its script; an error ends the script.
fn run_line(store: &mut Store, line: &Line, answers: &mut Vec<Value>) -> Result<(), Value> {
    match line {
        Line::Call(command) => answers.push(run(store, command)?),
        Line::Caught(command) => answers.push(run(store, command).unwrap_or_else(|error| error)),
        Line::Inner(command) => answers.extend(run(store, command).ok()),
        Line::Carry(from, to) => {
            let value = text(store, *from)?.map_or("7".to_owned(), |text| text + "3");
            store.insert(*to, Item::Text(value));
        }
        Line::Follow(key) => {
            let next = text(store, *key)?.unwrap_or_default().len() % KEYS;
            answers.push(run(store, &Command::Incr(next))?);
        }
        Line::Spin(_) => {}
        Line::Fail => return Err(error("ERR")),
    }
    Ok(())
}

/// What they answer one after the other, and the store after them; the error of the first one
/// that answers one.
fn run_all(store: &Store, parts: &[Operation]) -> Result<(Vec<Value>, Store), Value> {
    let mut after = store.clone();
    let mut answers = Vec::new();
    for part in parts {
        let (answer, next) = part.answered(&after);
        if answer.is_error() {
            return Err(answer);
        }
        answers.push(answer);
        after = next;
    }
    Ok((answers, after))
}

impl Operation {
    /// What the model answers where nobody comes between and what fails is undone, and the store
    /// after that.
    pub fn answered(&self, store: &Store) -> (Value, Store) {
        let mut after = store.clone();
        match self {
            Operation::Command(command) => {
                let answer = run(&mut after, command).unwrap_or_else(|error| error);
                (answer, after)
            }
            Operation::Script(script) => {
                let mut answers = Vec::new();
                let lines = &script.lines;
                match lines.iter().try_for_each(|line| run_line(&mut after, line, &mut answers)) {
                    Ok(()) => (Value::Array(answers), after),
                    Err(error) => (error, store.clone()),
                }
            }
            Operation::Multi(parts) => {
                let mut answers = Vec::new();
                for part in parts {
                    let (answer, next) = part.answered(&after);
                    answers.push(answer);
                    after = next;
                }
                (Value::Array(answers), after)
            }
            Operation::Undoing(parts) => match run_all(store, parts) {
                Ok((answers, after)) => (Value::Array(answers), after),
                Err(_) => (error("EXECABORT"), after),
            },
            Operation::Watched(key, parts) => {
                let seen = run(&mut after, &Command::Get(*key)).unwrap_or_else(|error| error);
                let (answers, after) = Operation::Multi(parts.clone()).answered(store);
                (Value::Array(vec![seen, answers]), after)
            }
        }
    }

    /// The store after it, if it can answer so. A script that fails leaves nothing if the server
    /// rolls back.
    pub fn apply(&self, store: &Store, answer: &Value, rolls_back: bool) -> Option<Store> {
        let mut after = store.clone();
        match self {
            Operation::Command(command) => {
                let wanted = run(&mut after, command).unwrap_or_else(|error| error);
                (wanted == *answer).then_some(after)
            }
            // Without rolling back only those can be killed that have not written.
            Operation::Script(_) if *answer == killed() => Some(after),
            Operation::Script(script) => {
                let mut answers = Vec::new();
                let outcome = script
                    .lines
                    .iter()
                    .try_for_each(|line| run_line(&mut after, line, &mut answers));
                let wanted = match outcome {
                    Ok(()) => Value::Array(answers),
                    Err(error) => {
                        if rolls_back {
                            after = store.clone();
                        }
                        error
                    }
                };
                (wanted == *answer).then_some(after)
            }
            Operation::Multi(parts) => {
                let answers = answer.elements().filter(|answers| answers.len() == parts.len())?;
                for (part, answer) in parts.iter().zip(answers) {
                    after = part.apply(&after, answer, rolls_back)?;
                }
                Some(after)
            }
            Operation::Undoing(parts) => {
                let has_script = parts.iter().any(|part| matches!(part, Operation::Script(_)));
                if *answer == killed() && has_script {
                    return Some(after);
                }
                let (wanted, after) = self.answered(store);
                (wanted == *answer).then_some(after)
            }
            Operation::Watched(key, parts) => {
                let [seen, answers] = answer.elements()? else { return None };
                if *answers == Value::Nil {
                    return Some(after);
                }
                let now = run(&mut after, &Command::Get(*key)).unwrap_or_else(|error| error);
                let multi = Operation::Multi(parts.clone());
                (now == *seen).then(|| multi.apply(store, answers, rolls_back))?
            }
        }
    }

    /// The operation's answer, from those to all its requests.
    pub fn answer(&self, mut replies: Vec<Value>) -> Value {
        let last = replies.pop().map_or(Value::Nil, simplified);
        match self {
            Operation::Watched(..) => {
                let seen = replies.into_iter().nth(1).map_or(Value::Nil, simplified);
                Value::Array(vec![seen, last])
            }
            _ => last,
        }
    }

    /// The commands to send.
    pub fn requests(&self) -> Vec<Vec<String>> {
        match self {
            Operation::Command(command) => vec![command.words()],
            Operation::Script(script) => vec![script.words()],
            Operation::Multi(parts) => in_multi(&["MULTI"], parts),
            Operation::Undoing(parts) => in_multi(&["MULTI", "ROLLBACK"], parts),
            Operation::Watched(watched, parts) => {
                let watch = vec!["WATCH".to_owned(), key(*watched)];
                let mut all = vec![watch, Command::Get(*watched).words()];
                all.extend(in_multi(&["MULTI"], parts));
                all
            }
        }
    }

    /// For a reader.
    pub fn shown(&self) -> String {
        let lines: Vec<String> = self.requests().iter().map(|words| words.join(" ")).collect();
        lines.join("; ").replace('\n', " | ")
    }
}

/// The requests of a transaction.
fn in_multi(multi: &[&str], parts: &[Operation]) -> Vec<Vec<String>> {
    let mut all = vec![multi.iter().map(|word| (*word).to_owned()).collect()];
    all.extend(parts.iter().flat_map(Operation::requests));
    all.push(vec!["EXEC".to_owned()]);
    all
}

impl Command {
    fn words(&self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Command::Get(k) => words(&["GET", &key(*k)]),
            Command::Set(k, value) => words(&["SET", &key(*k), value]),
            Command::GetDel(k) => words(&["GETDEL", &key(*k)]),
            Command::Incr(k) => words(&["INCR", &key(*k)]),
            Command::Append(k, more) => words(&["APPEND", &key(*k), more]),
            Command::Push(k, value) => words(&["LPUSH", &key(*k), value]),
            Command::Pop(k) => words(&["LPOP", &key(*k)]),
            Command::Range(k) => words(&["LRANGE", &key(*k), "0", "-1"]),
            Command::Move(a, b) => words(&["LMOVE", &key(*a), &key(*b), "LEFT", "RIGHT"]),
            Command::Rename(a, b) => words(&["RENAME", &key(*a), &key(*b)]),
            Command::MSet(a, b, value) => words(&["MSET", &key(*a), value, &key(*b), value]),
            Command::MSetNx(a, b, value) => words(&["MSETNX", &key(*a), value, &key(*b), value]),
            Command::MGet(a, b) => words(&["MGET", &key(*a), &key(*b)]),
            Command::Del(a, b) => words(&["DEL", &key(*a), &key(*b)]),
            Command::FlushDb => words(&["FLUSHDB"]),
            Command::DbSize => words(&["DBSIZE"]),
        }
    }

    /// Its arguments in Lua.
    fn arguments(&self, declared: &[usize]) -> String {
        let argument = |word: &String| {
            let place = declared.iter().position(|number| key(*number) == *word);
            place.map_or(format!("'{word}'"), |place| format!("KEYS[{}]", place + 1))
        };
        self.words().iter().map(argument).collect::<Vec<_>>().join(", ")
    }
}

impl Script {
    fn words(&self) -> Vec<String> {
        let mut words = vec!["EVAL".to_owned(), self.body(), self.declared.len().to_string()];
        words.extend(self.declared.iter().map(|number| key(*number)));
        words
    }

    fn body(&self) -> String {
        let mut body = "local r = {}".to_owned();
        for line in &self.lines {
            let arguments = |command: &Command| command.arguments(&self.declared);
            let get = |key: usize| format!("redis.call({})", arguments(&Command::Get(key)));
            body.push('\n');
            body += &match line {
                Line::Call(command) => format!("r[#r + 1] = redis.call({})", arguments(command)),
                Line::Caught(command) => format!("r[#r + 1] = redis.pcall({})", arguments(command)),
                Line::Inner(command) => format!(
                    "pcall(function() r[#r + 1] = redis.call({}) error('inner') end)",
                    arguments(command)
                ),
                Line::Carry(from, to) => {
                    let set = arguments(&Command::Set(*to, String::new()));
                    let set = set.trim_end_matches("''");
                    format!("local v = {}; redis.call({set}v and v .. '3' or '7')", get(*from))
                }
                Line::Follow(from) => format!(
                    "r[#r + 1] = redis.call('INCR', 'k' .. #({} or '') % {KEYS})",
                    get(*from)
                ),
                Line::Spin(turns) => {
                    format!("local n = 0 for i = 1, {turns} do n = n + i % 7 end")
                }
                Line::Fail => "if true then error('failed') end".to_owned(),
            };
        }
        body + "\nreturn r"
    }
}

/// A command at random; `whole`: those that tell or change the whole keyspace, too.
fn command(random: &mut Random, whole: bool) -> Command {
    let (first, second) = (random.below(KEYS), random.below(KEYS));
    // One key with itself is an ordinary case of two.
    let value = random.below(100).to_string();
    match random.below(if whole { 34 } else { 32 }) {
        0..4 => Command::Get(first),
        4..7 => Command::Set(first, value),
        7..9 => Command::GetDel(first),
        9..13 => Command::Incr(first),
        13..16 => Command::Append(first, value),
        16..19 => Command::Push(first, value),
        19..21 => Command::Pop(first),
        21..23 => Command::Range(first),
        23 => Command::Move(first, second),
        24 => Command::Rename(first, second),
        25..27 => Command::MSet(first, second, value),
        27 => Command::MSetNx(first, second, value),
        28..31 => Command::MGet(first, second),
        31 => Command::Del(first, second),
        32 => Command::FlushDb,
        _ => Command::DbSize,
    }
}

pub fn script(random: &mut Random) -> Script {
    let declared = match random.below(3) {
        0 => Vec::new(),
        1 => (0..KEYS).filter(|_| random.below(2) == 0).collect(),
        _ => (0..KEYS).collect(),
    };
    // Scripts that need the whole keyspace always restart: some, not most.
    let whole = random.below(8) == 0;
    let mut lines: Vec<Line> = (0..2 + random.below(4))
        .map(|_| match random.below(12) {
            0..6 => Line::Call(command(random, whole)),
            6..8 => Line::Caught(command(random, whole)),
            8 => Line::Inner(command(random, whole)),
            9 => Line::Carry(random.below(KEYS), random.below(KEYS)),
            10 => Line::Follow(random.below(KEYS)),
            _ => Line::Spin(1 << random.below(17)),
        })
        .collect();
    if random.below(5) == 0 {
        lines.push(Line::Spin(1 << random.below(15)));
        lines.push(Line::Fail);
    }
    Script { declared, lines }
}

/// An operation at random. Scripts come from a pool, so that the server knows them.
/// `extended`: also those that Redis lacks.
pub fn operation(random: &mut Random, scripts: &[Script], extended: bool) -> Operation {
    let script =
        |random: &mut Random| Operation::Script(scripts[random.below(scripts.len())].clone());
    let parts = |random: &mut Random| {
        (0..2 + random.below(2))
            .map(|_| match random.below(5) {
                0 => script(random),
                _ => Operation::Command(command(random, false)),
            })
            .collect()
    };
    match random.below(10) {
        0..4 => Operation::Command(match command(random, true) {
            Command::DbSize => Command::FlushDb,
            other => other,
        }),
        4 => match random.below(2) {
            0 if extended => Operation::Undoing(parts(random)),
            _ => Operation::Multi(parts(random)),
        },
        5 => Operation::Watched(random.below(KEYS), parts(random)),
        _ => script(random),
    }
}

/// What the store begins with.
pub fn begin(random: &mut Random) -> Vec<Operation> {
    (0..KEYS)
        .filter_map(|key| {
            let value = random.below(100).to_string();
            match random.below(4) {
                0 => None,
                1 => Some(Command::Push(key, value)),
                _ => Some(Command::Set(key, value)),
            }
        })
        .map(Operation::Command)
        .collect()
}

/// Reads all keys: their texts, and their lists.
pub fn read_all() -> Operation {
    let read = |key| [Command::Get(key), Command::Range(key)].map(Operation::Command);
    Operation::Multi((0..KEYS).flat_map(read).collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::history::{Event, History, explain};
    use super::*;

    type Told = History<Operation, Value>;

    fn is_explained(begin: &Store, history: &Told) -> bool {
        explain(begin, history, |store, operation, answer| operation.apply(store, answer, true))
            .is_some()
    }

    /// Operations one after the other, told as if four clients had overlapped.
    fn overlapping(seed: u64) -> Told {
        let mut random = Random::new(seed);
        let scripts: Vec<Script> = (0..20).map(|_| script(&mut random)).collect();
        let zero = Instant::now();
        let at = |ms: usize| zero + Duration::from_millis(ms as u64);
        let mut store = Store::new();
        let mut history: Told = vec![Vec::new(); 4];
        let mut ends = [0; 4];
        for moment in 1..=16 {
            let client = random.below(4);
            let operation = operation(&mut random, &scripts, true);
            let (answer, after) = operation.answered(&store);
            store = after;
            // It takes effect at 10 * moment, the ones of this client do not overlap.
            let invoked = (10 * moment - random.below(30).min(10 * moment)).max(ends[client] + 1);
            ends[client] = 10 * moment + random.below(9);
            let (invoked, answered) = (at(invoked.min(10 * moment)), at(ends[client]));
            history[client].push(Event { invoked, answered, operation, answer });
        }
        let all = read_all();
        let (answer, _) = all.answered(&store);
        history.push(vec![Event { invoked: at(999), answered: at(1000), operation: all, answer }]);
        history
    }

    #[test]
    fn histories_of_the_model_are_explained_and_broken_ones_are_not() {
        for seed in 1..300 {
            let mut history = overlapping(seed);
            assert!(is_explained(&Store::new(), &history), "seed {seed}: {history:#?}");
            // Another value in the end, which nobody wrote.
            let Value::Array(answers) = &mut history[4][0].answer else { panic!("not an array") };
            answers[0] = Value::bulk("nobody wrote this");
            assert!(!is_explained(&Store::new(), &history), "seed {seed}: {history:#?}");
        }
    }

    /// Two clients at the same time, then one reads.
    fn then_read(pair: [(Operation, Value); 2], read: Operation, seen: Value) -> bool {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let event = |(operation, answer), invoked, answered| {
            vec![Event { invoked: at(invoked), answered: at(answered), operation, answer }]
        };
        let [first, second] = pair;
        let history = vec![event(first, 0, 10), event(second, 0, 10), event((read, seen), 11, 12)];
        is_explained(&Store::new(), &history)
    }

    fn one(command: Command) -> Operation {
        Operation::Command(command)
    }

    #[test]
    fn a_torn_write_is_refused() {
        let write = |value: &str| (one(Command::MSet(0, 1, value.to_owned())), status());
        let seen = |first: &str, second: &str| {
            let pair = Value::Array(vec![Value::bulk(first), Value::bulk(second)]);
            then_read([write("1"), write("2")], one(Command::MGet(0, 1)), pair)
        };
        assert!(seen("1", "1") && seen("2", "2"));
        assert!(!seen("1", "2") && !seen("2", "1"));
    }

    #[test]
    fn what_a_failed_script_left_is_refused() {
        let lines = vec![Line::Call(Command::Incr(0)), Line::Fail];
        let failing = Operation::Script(Script { declared: vec![0], lines });
        for answer in [error("ERR"), killed()] {
            let seen = |value: Value| {
                let other = (one(Command::Incr(1)), Value::Integer(1));
                then_read([(failing.clone(), answer.clone()), other], one(Command::Get(0)), value)
            };
            assert!(seen(Value::Nil));
            assert!(!seen(Value::bulk("1")));
        }
    }

    #[test]
    fn what_an_undone_transaction_left_is_refused() {
        let failing = Script { declared: vec![0], lines: vec![Line::Fail] };
        let undoing = Operation::Undoing(vec![one(Command::Incr(0)), Operation::Script(failing)]);
        for answer in [error("EXECABORT"), killed()] {
            let seen = |value: Value| {
                let other = (one(Command::Incr(1)), Value::Integer(1));
                then_read([(undoing.clone(), answer.clone()), other], one(Command::Get(0)), value)
            };
            assert!(seen(Value::Nil));
            assert!(!seen(Value::bulk("1")));
        }
    }

    #[test]
    fn a_change_behind_watch_is_refused() {
        let watched = Operation::Watched(0, vec![one(Command::Incr(0))]);
        let seen = |before: Value, answer: Value, last: &str| {
            let pair = Value::Array(vec![before, answer]);
            let other = (one(Command::Append(0, "5".to_owned())), Value::Integer(1));
            then_read([(watched.clone(), pair), other], one(Command::Get(0)), Value::bulk(last))
        };
        let done = |value| Value::Array(vec![Value::Integer(value)]);
        assert!(seen(Value::bulk("5"), done(6), "6"));
        assert!(seen(Value::Nil, Value::Nil, "5"));
        // It has read before the change and written behind it.
        assert!(!seen(Value::Nil, done(6), "6"));
        assert!(!seen(Value::bulk("5"), Value::Nil, "6"));
    }

    #[test]
    fn a_command_between_those_of_a_transaction_is_refused() {
        let multi = Operation::Multi(vec![one(Command::Incr(0)), one(Command::Incr(0))]);
        let seen = |second: i64, other: i64| {
            let answer = Value::Array(vec![Value::Integer(1), Value::Integer(second)]);
            let pair = [(multi.clone(), answer), (one(Command::Incr(0)), Value::Integer(other))];
            then_read(pair, one(Command::Get(0)), Value::bulk("3"))
        };
        assert!(seen(2, 3));
        assert!(!seen(3, 2));
    }
}

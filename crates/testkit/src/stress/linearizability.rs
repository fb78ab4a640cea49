//! Commands, transactions and scripts of several clients on the same few keys: there must be an
//! order, one that fits the times, in which they would have answered as they did.
//!
//! Each round is short, begins with a known store, ends with a look at all keys, and is checked by
//! itself. `LUAR_HISTORIES` says how many rounds there are in each setting.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::Scope;
use std::time::Instant;

use super::history::{Event, History, explain};
use super::model::{self, Operation, Script, Store};
use super::{Arena, Random, Verdict, call, connect, expect};
use crate::client::{Client, ReadError, encode};
use crate::info;
use crate::value::Value;

const CLIENTS: usize = 5;
/// Operations of one client in one round, at most.
const LENGTH: usize = 4;
/// Scripts that a server gets to see.
const POOL: usize = 120;

type Told = Vec<Event<Operation, Value>>;

/// How a server is set up.
struct Setting {
    name: &'static str,
    workers: usize,
    args: &'static [&'static str],
    rolls_back: bool,
}

const SETTINGS: &[Setting] = &[
    Setting { name: "2 workers", workers: 2, args: &[], rolls_back: true },
    Setting { name: "4 workers", workers: 4, args: &[], rolls_back: true },
    Setting {
        name: "isolation",
        workers: 2,
        args: &["--script-atomicity", "isolation"],
        rolls_back: false,
    },
];

/// Sends the requests of an operation and reads its answer.
fn perform(client: &mut Client, operation: &Operation) -> Result<Value, ReadError> {
    Ok(operation.answer(client.pipeline(&operation.requests())?))
}

/// One after the other, or all sent before the first answer is read.
fn perform_all(
    client: &mut Client,
    operations: Vec<Operation>,
    at_once: bool,
) -> Result<Told, ReadError> {
    let mut told = Told::new();
    if !at_once {
        for operation in operations {
            let invoked = Instant::now();
            let answer = perform(client, &operation)?;
            told.push(Event { invoked, answered: Instant::now(), operation, answer });
        }
        return Ok(told);
    }
    let requests: Vec<_> = operations.iter().map(Operation::requests).collect();
    let mut bytes = Vec::new();
    requests.iter().flatten().for_each(|request| encode(request, &mut bytes));
    let invoked = Instant::now();
    client.send_raw(&bytes).map_err(ReadError::Io)?;
    for (operation, requests) in operations.into_iter().zip(&requests) {
        let replies: Result<_, _> = requests.iter().map(|_| client.read(client.patience)).collect();
        let answer = operation.answer(replies?);
        told.push(Event { invoked, answered: Instant::now(), operation, answer });
    }
    Ok(told)
}

fn shown(history: &History<Operation, Value>, begin: Instant) -> String {
    let mut events: Vec<_> = history
        .iter()
        .enumerate()
        .flat_map(|(client, events)| events.iter().map(move |event| (client, event)))
        .collect();
    events.sort_by_key(|(client, event)| (event.invoked, *client));
    let line = |(client, event): (usize, &Event<Operation, Value>)| {
        format!(
            "\n  client {client}, {} to {} us: {} -> {}",
            event.invoked.duration_since(begin).as_micros(),
            event.answered.duration_since(begin).as_micros(),
            event.operation.shown(),
            event.answer.to_talk().replace('\n', " ")
        )
    };
    events.into_iter().map(line).collect()
}

/// A client in a thread of its own, as the leader of the rounds sees it.
struct Remote {
    errands: Sender<(Vec<Operation>, bool)>,
    told: Receiver<Result<Told, String>>,
}

impl Remote {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>, mut client: Client) -> Remote {
        let (errands, inbox) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        // Ends when the leader has dropped its end.
        scope.spawn(move || {
            while let Ok((operations, at_once)) = inbox.recv() {
                let outcome = perform_all(&mut client, operations, at_once);
                if tell.send(outcome.map_err(|error| error.to_string())).is_err() {
                    break;
                }
            }
        });
        Remote { errands, told }
    }

    fn told(&self) -> Result<Told, String> {
        self.told.recv().map_err(|_| "a client thread panicked".to_owned())?
    }
}

/// One server, many rounds. Answers how many operations, and how many of them were killed.
fn rounds(arena: &Arena, setting: &Setting, count: usize) -> Result<(usize, usize), String> {
    let args = if arena.oracle { &[] } else { setting.args };
    let server = arena.start(setting.workers, args)?;
    let rolls_back = setting.rolls_back && !arena.oracle;
    let mut leader = connect(&server)?;
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(&server)).collect::<Result<_, _>>()?;
    let counts = std::thread::scope(|scope| {
        let remotes: Vec<_> =
            clients.into_iter().map(|client| Remote::start(scope, client)).collect();
        let mut random = Random::new(arena.seed);
        let scripts: Vec<Script> = (0..POOL).map(|_| model::script(&mut random)).collect();
        let (mut operations, mut killed) = (0, 0);
        for number in 0..count {
            let draw = |random: &mut Random| model::operation(random, &scripts, !arena.oracle);
            let history = round(&mut leader, &remotes, &mut random, draw, rolls_back)
                .map_err(|why| format!("round {number} of {}: {why}", setting.name))?;
            operations += history.iter().map(Vec::len).sum::<usize>();
            let events = history.iter().flatten();
            killed += events.filter(|event| event.answer == model::killed()).count();
        }
        Ok::<_, String>((operations, killed))
    })?;
    // Few rounds may have nothing of one kind.
    if rolls_back && count >= 1_000 {
        for field in ["script_parallel_runs", "script_restarts", "script_exclusive_runs"] {
            let runs = info::number(&mut leader, field)?;
            expect(runs > 0, || format!("{}: {field} is {runs}", setting.name))?;
        }
    }
    Ok(counts)
}

fn round(
    leader: &mut Client,
    remotes: &[Remote],
    random: &mut Random,
    draw: impl Fn(&mut Random) -> Operation,
    rolls_back: bool,
) -> Result<History<Operation, Value>, String> {
    let text = |error: ReadError| error.to_string();
    call(leader, &["FLUSHALL"])?;
    let mut store = Store::new();
    for operation in model::begin(random) {
        let answer = perform(leader, &operation).map_err(text)?;
        let after = operation.apply(&store, &answer, rolls_back);
        store = after.ok_or_else(|| format!("{} answered {answer:?}", operation.shown()))?;
    }
    let begin = Instant::now();
    for remote in remotes {
        let length = 1 + random.below(LENGTH);
        let operations = (0..length).map(|_| draw(random)).collect();
        let at_once = random.below(2) == 0;
        remote.errands.send((operations, at_once)).map_err(|error| error.to_string())?;
    }
    // Kills hit what they hit, or nothing.
    if random.below(4) == 0 {
        for _ in 0..10 {
            leader.call(&["SCRIPT", "KILL"]).map_err(text)?;
        }
    }
    let mut history = History::new();
    for remote in remotes {
        history.push(remote.told()?);
    }
    history.push(perform_all(leader, vec![model::read_all()], false).map_err(text)?);
    let order = explain(&store, &history, |store, operation, answer| {
        operation.apply(store, answer, rolls_back)
    });
    expect(order.is_some(), || {
        format!("no order explains this, beginning with {store:?}{}", shown(&history, begin))
    })?;
    Ok(history)
}

pub fn histories(arena: &Arena) -> Verdict {
    let count = match std::env::var("LUAR_HISTORIES") {
        Ok(text) => text.parse().map_err(|_| format!("LUAR_HISTORIES is {text:?}"))?,
        Err(_) => arena.count(2_000),
    };
    println!("seed of the histories: {}", arena.seed);
    let (mut operations, mut killed) = (0, 0);
    let settings = if arena.oracle { &SETTINGS[..1] } else { SETTINGS };
    for setting in settings {
        let counts =
            rounds(arena, setting, count).map_err(|why| format!("{why}\nseed {}", arena.seed))?;
        operations += counts.0;
        killed += counts.1;
    }
    let histories = count * settings.len();
    Ok(format!("{histories} histories, {operations} operations, {killed} scripts killed"))
}

//! MIGRATE: what is asked for, and what it begins. How keys are sent stands in `migrate/`.

use std::ops::Range;
use std::time::Duration;

use command::call::{integer, is};
use command::keys::{Begin, Find, KeySpec, MoreKeys, key_flag as k};
use command::row::category;
use command::row::flag::{MOVABLE_KEYS, NOSCRIPT, WRITE};
use command::{Blocking, Command, Error, Group, OnTimeout, Result, Wait};

use crate::migrate::{Batch, Migration, Target, outcome};
use crate::request::{Request, SessionHandler, row};

pub const NO_ANSWER: Error = Error::of("IOERR error or timeout reading to target instance");

const FLAGS: u16 = k::RW | k::ACCESS | k::DELETE;

pub const TABLE: &[Command<SessionHandler>] = &[row(Group::Generic, "migrate", -6, migrate)
    // A script may begin anew or be undone, which what has been sent cannot be.
    .flags(WRITE | MOVABLE_KEYS | NOSCRIPT)
    .categories(category::KEYSPACE | category::DANGEROUS)
    .keys(&[
        KeySpec::at(3, FLAGS),
        KeySpec {
            begin: Begin::Keyword("KEYS", -2),
            find: Find::Range { last: -1, step: 1, limit: 0 },
            flags: FLAGS | k::INCOMPLETE,
            notes: "",
        },
    ])
    .more_keys(keys)
    .since("2.6.0")
    .complexity("O(N) with N the size of the values, here and at the target")
    .tips(&["nondeterministic_output"])
    .history(&[
        ("3.0.0", "Takes COPY and REPLACE."),
        ("3.0.6", "Takes KEYS."),
        ("4.0.7", "Takes AUTH."),
        ("6.0.0", "Takes AUTH2."),
    ])
    .summary("Moves keys to another server.")
    .syntax(
        "host port key-selector:(key | \"\") destination-db:integer timeout:integer [COPY] [REPLACE] \
         [authentication:(AUTH auth | auth2:(AUTH2 username password))] [KEYS keys:key [keys:key ...]]",
    )];

/// What stands behind the fixed arguments.
#[derive(Default)]
struct Options {
    copies: bool,
    replaces: bool,
    /// Where the password stands, and the user before it.
    credentials: Range<usize>,
    keys: Option<Range<usize>>,
}

impl Options {
    fn parse(args: &[&[u8]]) -> Result<Options> {
        let mut options = Options::default();
        let mut at = 6;
        while at < args.len() {
            let left = args.len() - at - 1;
            let word = args[at];
            at += 1;
            if is(word, "COPY") {
                options.copies = true;
            } else if is(word, "REPLACE") {
                options.replaces = true;
            } else if (is(word, "AUTH") && left >= 1) || (is(word, "AUTH2") && left >= 2) {
                let count = if is(word, "AUTH") { 1 } else { 2 };
                options.credentials = at..at + count;
                at += count;
            } else if is(word, "KEYS") {
                if !args[3].is_empty() {
                    return Err(Error::of(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty \
                         string",
                    ));
                }
                options.keys = Some(at..args.len());
                break;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(options)
    }
}

/// Looks over arguments that may be wrong, too.
fn keys(args: &[&[u8]]) -> MoreKeys {
    let mut only = (3, 4.min(args.len()));
    let mut at = 6;
    while at < args.len() {
        at += match args[at] {
            word if is(word, "KEYS") => {
                // With a key besides it is refused.
                only = if args[3].is_empty() { (at + 1, args.len()) } else { (0, 0) };
                break;
            }
            word if is(word, "AUTH") => 2,
            word if is(word, "AUTH2") => 3,
            _ => 1,
        };
    }
    MoreKeys { only: Some(only), ..MoreKeys::default() }
}

/// The arguments that nobody else is to read.
pub fn credentials(args: &[&[u8]]) -> Range<usize> {
    // Of what is refused the arguments behind the word are hidden, whatever they are.
    let behind = |args: &[&[u8]]| {
        let mut words = args.iter().skip(6);
        let at = words.position(|word| is(word, "AUTH") || is(word, "AUTH2"));
        at.map_or(0..0, |at| at + 7..args.len())
    };
    Options::parse(args).map_or_else(|_| behind(args), |options| options.credentials)
}

fn migrate(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let options = Options::parse(args)?;
    let timeout_ms = match integer(args[5])? {
        ..=0 => 1000,
        timeout_ms => timeout_ms as u64,
    };
    let target = Target {
        host: String::from_utf8_lossy(args[1]).into_owned(),
        port: String::from_utf8_lossy(args[2]).into_owned(),
        db: integer(args[4])?,
        timeout: Duration::from_millis(timeout_ms.min(TIMEOUT_MS_MAX)),
        credentials: args[options.credentials].iter().map(|word| Box::from(*word)).collect(),
    };
    let keys = &args[options.keys.unwrap_or(3..4)];
    let batch = Batch::pack(request.txn, keys.iter().copied(), options.replaces);
    if batch.is_empty() {
        request.reply.status("NOKEY");
        return Ok(());
    }
    if request.blocking != Blocking::Never {
        if !options.copies {
            batch.watch(request.txn);
        }
        let (info, protocol) = (request.client.info.clone(), request.client.protocol);
        let copies = options.copies;
        let db = request.txn.db();
        request.lp.migration.set(Some(Migration { target, batch, copies, db, info, protocol }));
        request.wait = Some(Wait {
            keys: Vec::new(),
            deadline_ms: None,
            on_timeout: OnTimeout::Target,
            again_as: None,
        });
        return Ok(());
    }
    // In a transaction everything is held until it is over.
    let server = request.server();
    let is_over = || server.ending.is_insisted();
    let answers = server.migrations.links.ask(&target, &batch.requests, batch.keys.len(), &is_over);
    if !options.copies {
        for (key, _) in batch.arrived(&answers) {
            request.txn.remove(key);
        }
    }
    outcome(&answers)?;
    request.reply.ok();
    Ok(())
}

/// A longer time is as good as none.
const TIMEOUT_MS_MAX: u64 = 1000 * 60 * 60 * 24 * 365;

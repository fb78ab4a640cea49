//! What a keyspace handler is given: the transaction, the reply, and whether it may wait.

use engine::{KeyName, Txn};
use resp::{Reply, Simple};

use crate::error::{Error, Result};
use crate::row::Row;

/// A keyspace handler. `args[0]` is the command's name as the client wrote it; the arity was
/// checked. Either the reply was written or an error is returned.
pub type Handler = fn(&mut Call<'_, '_>, &[&[u8]]) -> Result;

/// Answers the plain case of a command for scripts, which call some commands very often: the value
/// is of the type it works on, and there are no options. Its one key is the first argument. `None`
/// where the handler is to do it; then nothing was done.
pub type Quick = for<'t> fn(&'t mut Txn<'_>, &[&[u8]]) -> Option<Simple<'t>>;

/// Whether a blocking command may wait for its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// In MULTI or a script: answers at once what it would answer at its timeout.
    Never,
    /// A client that may be put into the queues.
    First,
    /// A waiting client's command is tried again.
    Again,
}

/// What is answered when the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    Null,
    NullArray,
    /// How many replicas have confirmed something: none, as there are none.
    Replicas,
    /// The same, behind whether the block of this number is in the append-only file for good. `local`:
    /// that is waited for; `replicas`: they are, too.
    Synced {
        block: u64,
        local: bool,
        replicas: bool,
    },
    /// That the target of a MIGRATE did not answer.
    Target,
}

/// A handler's wish to wait until one of the keys is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub keys: Vec<KeyName>,
    /// Unix ms; `None` waits for ever.
    pub deadline_ms: Option<i64>,
    pub on_timeout: OnTimeout,
    /// The arguments to try it again with, where they are not those it came with.
    pub again_as: Option<Vec<Box<[u8]>>>,
}

/// Lets go of the fields whose time has come, of all keys that a command names. To be called before
/// its handler, under its locks.
#[inline]
pub fn expire_fields(txn: &mut Txn<'_>, row: &Row, args: &[&[u8]]) {
    if txn.engine().has_field_times() && !row.keys.is_empty() {
        expire_fields_now(txn, row, args);
    }
}

#[cold]
fn expire_fields_now(txn: &mut Txn<'_>, row: &Row, args: &[&[u8]]) {
    // Arguments that do not tell their keys are refused in a moment.
    for at in row.key_positions(args).unwrap_or_default() {
        txn.expire_fields(args[at]);
    }
}

/// One run of a handler.
pub struct Call<'c, 'e> {
    pub txn: &'c mut Txn<'e>,
    pub reply: Reply<'c>,
    pub blocking: Blocking,
    /// Set by `wait`: nothing was replied.
    pub wait: Option<Wait>,
    /// proto-max-bulk-len: longest string a command may make.
    pub bulk_bytes_max: usize,
    /// What the clock shows, Unix ms. Commands of a file are run again with `now_ms` long before
    /// that, so that nothing expires; what is only noted for people to see asks this clock.
    pub clock_ms: i64,
}

impl<'c, 'e> Call<'c, 'e> {
    #[inline]
    pub fn new(txn: &'c mut Txn<'e>, reply: Reply<'c>, blocking: Blocking) -> Call<'c, 'e> {
        txn.begin_command();
        let clock_ms = txn.now_ms();
        Call { txn, reply, blocking, wait: None, bulk_bytes_max: 512 << 20, clock_ms }
    }

    pub fn now_ms(&self) -> i64 {
        self.txn.now_ms()
    }

    /// Whether a blocking command must queue up behind clients that wait for this key already.
    pub fn must_queue(&self, key: &[u8]) -> bool {
        self.blocking == Blocking::First && self.txn.has_waiters(key)
    }

    /// Waits for any of the keys, or answers the timeout's reply where waiting is not possible.
    pub fn wait(&mut self, keys: &[&[u8]], deadline_ms: Option<i64>, on_timeout: OnTimeout) {
        if self.blocking == Blocking::Never {
            match on_timeout {
                OnTimeout::NullArray => self.reply.null_array(),
                _ => self.reply.null(),
            }
            return;
        }
        let db = self.txn.db();
        let mut names: Vec<KeyName> = Vec::with_capacity(keys.len());
        for key in keys {
            let name = (db, Box::from(*key));
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.wait = Some(Wait { keys: names, deadline_ms, on_timeout, again_as: None });
    }

    /// A blocking command's timeout argument in seconds as an absolute deadline; 0 is none.
    pub fn deadline(&self, arg: &[u8]) -> Result<Option<i64>> {
        // Redis reads a long double: what overflows only a double is a number, but too large.
        data::LongDouble::parse(arg).ok_or(Error::TIMEOUT_NOT_FLOAT)?;
        let seconds = data::number::parse_f64_bound(arg).ok_or(Error::TIMEOUT_NOT_FLOAT)?;
        let ms = (seconds * 1000.0).ceil();
        if ms >= i64::MAX as f64 {
            return Err(Error::TIMEOUT_RANGE);
        }
        if ms < 0.0 {
            return Err(Error::TIMEOUT_NEGATIVE);
        }
        let ms = ms as i64;
        if ms == 0 {
            return Ok(None);
        }
        self.now_ms().checked_add(ms).map(Some).ok_or(Error::TIMEOUT_RANGE)
    }
}

/// Looks now and then, in a loop that can take long, whether the script that runs it is to end.
/// What a stopped command has answered is thrown away, so readers may just break off; who writes
/// what the loop made asks `unless_stopped` before.
pub struct Pace<'t, 'e> {
    txn: &'t Txn<'e>,
    steps: u32,
}

impl<'t, 'e> Pace<'t, 'e> {
    const LOOKS_EVERY: u32 = 1024;

    pub fn of(txn: &'t Txn<'e>) -> Pace<'t, 'e> {
        Pace { txn, steps: 0 }
    }

    /// Whether to take another step.
    #[inline]
    pub fn goes_on(&mut self) -> bool {
        self.steps = self.steps.wrapping_add(1);
        !self.steps.is_multiple_of(Self::LOOKS_EVERY) || !self.txn.should_stop()
    }
}

/// The items until the script is to end.
pub fn paced<I: Iterator>(txn: &Txn<'_>, items: I) -> impl Iterator<Item = I::Item> {
    let mut pace = Pace::of(txn);
    items.take_while(move |_| pace.goes_on())
}

/// Fails if the script that runs the command is to end.
pub fn unless_stopped(txn: &Txn<'_>) -> Result {
    if txn.should_stop() { Err(Error::STOPPED) } else { Ok(()) }
}

/// A strict 64-bit integer argument.
pub fn integer(arg: &[u8]) -> Result<i64> {
    data::number::parse_i64(arg).ok_or(Error::NOT_INTEGER)
}

/// An integer argument with bounds, both allowed.
pub fn integer_within(arg: &[u8], min: i64, max: i64) -> Result<i64> {
    let value = integer(arg)?;
    if !(min..=max).contains(&value) {
        return Err(Error::new(format!(
            "ERR value is out of range, value must between {min} and {max}"
        )));
    }
    Ok(value)
}

/// A double argument; NaN is refused.
pub fn float(arg: &[u8]) -> Result<f64> {
    match data::number::parse_f64(arg) {
        Some(value) if !value.is_nan() => Ok(value),
        _ => Err(Error::NOT_FLOAT),
    }
}

/// Whether an argument is this word, in any case.
pub fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

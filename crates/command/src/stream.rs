//! Commands about the entries of streams.

use data::Stream;
use data::stream::{
    ENTRY_BYTES_MAX, Entry, Head, Id, Pair, References, Seq, Strategy, Trim, Written,
};
use engine::{Mut, Txn, ValueRef};
use resp::Reply;

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::Stream, name, arity, handler).since("5.0.0")
}

pub const TABLE: &[Command<Handler>] = &[
    row("xadd", -5, xadd)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .complexity("O(1), and O(N) for N entries that are trimmed.")
        .tips(&["nondeterministic_output"])
        .summary("Adds an entry to a stream, which is made if need be.")
        .syntax(
            "key [NOMKSTREAM] [condition:(KEEPREF | DELREF | ACKED)] [trim:(strategy:(MAXLEN | MINID) [operator:(equal:= | \
             approximately:~)] threshold [LIMIT count])] id-selector:(auto-id:* | id) \
             data:(field value) [data:(field value) ...]",
        ),
    row("xackdel", -6, xackdel)
        .since("8.2.0")
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE | k::DELETE)])
        .complexity("O(log N) for each id.")
        .summary("Ends that entries are pending in a consumer group, and deletes them.")
        .syntax(
            "key group [condition:(KEEPREF | DELREF | ACKED)] IDS ids:(numids:integer id [id ...])",
        ),
    row("xdel", -3, xdel)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(log N) for each id.")
        .summary("Deletes entries of a stream, answers how many.")
        .syntax("key id [id ...]"),
    row("xdelex", -5, xdelex)
        .since("8.2.0")
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(log N) for each id.")
        .summary("Deletes entries of a stream, with an eye on consumer groups.")
        .syntax("key [condition:(KEEPREF | DELREF | ACKED)] IDS ids:(numids:integer id [id ...])"),
    row("xlen", 2, xlen)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Answers how many entries a stream has.")
        .syntax("key"),
    row("xrange", -4, xrange)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(log N + M) for M entries that are answered.")
        .summary("Answers the entries of a range of ids.")
        .syntax("key start:string end:string [COUNT count]"),
    row("xrevrange", -4, xrevrange)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(log N + M) for M entries that are answered.")
        .summary("Answers the entries of a range of ids, the last first.")
        .syntax("key end:string start:string [COUNT count]"),
    row("xsetid", -3, xsetid)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .summary("Sets what a stream remembers of its ids.")
        .syntax(
            "key last-id [ENTRIESADDED entries-added:integer] \
             [MAXDELETEDID max-deleted-id]",
        ),
    row("xtrim", -4, xtrim)
        .flags(WRITE)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(N) for N entries that go; whole blocks of them go at once.")
        .tips(&["nondeterministic_output"])
        .summary("Deletes entries from the beginning of a stream, answers how many.")
        .syntax(
            "key trim:(strategy:(MAXLEN | MINID) [operator:(equal:= | approximately:~)] \
             threshold [LIMIT count] [condition:(KEEPREF | DELREF | ACKED)])",
        ),
];

const INVALID_ID: Error = Error::of("ERR Invalid stream ID specified as stream command argument");

/// An id; the sequence number may be missing.
pub(crate) fn id(arg: &[u8], missing_seq: u64) -> Result<Id> {
    Id::parse(arg, missing_seq).ok_or(INVALID_ID)
}

/// The beginning of a range: `-`, `+`, an id, or one that is not in it.
pub(crate) fn range_start(arg: &[u8]) -> Result<Id> {
    match range_end_of(arg, 0)? {
        (id, false) => Ok(id),
        (id, true) => id.next().ok_or(Error::of("ERR invalid start ID for the interval")),
    }
}

/// The end of a range.
pub(crate) fn range_end(arg: &[u8]) -> Result<Id> {
    match range_end_of(arg, u64::MAX)? {
        (id, false) => Ok(id),
        (id, true) => id.previous().ok_or(Error::of("ERR invalid end ID for the interval")),
    }
}

fn range_end_of(arg: &[u8], missing_seq: u64) -> Result<(Id, bool)> {
    match arg {
        b"-" => Ok((Id::MIN, false)),
        b"+" => Ok((Id::MAX, false)),
        [b'(', inner @ ..] if !inner.is_empty() => Ok((id(inner, missing_seq)?, true)),
        _ => Ok((id(arg, missing_seq)?, false)),
    }
}

/// The stream that a command may change: counts neither a hit nor a miss.
pub(crate) fn look_at_stream<'t>(txn: &'t Txn<'_>, key: &[u8]) -> Result<Option<&'t Stream>> {
    match txn.look(key).map(engine::Entry::get) {
        None => Ok(None),
        Some(ValueRef::Stream(stream)) => Ok(Some(stream)),
        Some(_) => Err(Error::WRONG_TYPE),
    }
}

pub(crate) fn reply_entry(reply: &mut Reply<'_>, entry: Entry<'_>) {
    reply.array(2);
    reply.bulk(entry.id.text().as_bytes());
    reply.array(entry.fields.len() * 2);
    for (field, value) in entry.fields {
        reply.bulk(field);
        reply.bulk(value);
    }
}

/// What a word says of references.
fn references(word: &[u8]) -> Option<References> {
    if is(word, "KEEPREF") {
        Some(References::Keep)
    } else if is(word, "DELREF") {
        Some(References::Drop)
    } else if is(word, "ACKED") {
        Some(References::Respect)
    } else {
        None
    }
}

/// What stands before the id of XADD, or behind the key of XTRIM.
struct Options {
    trim: Option<Trim>,
    references: References,
    makes_stream: bool,
    /// Where the id stands.
    id_at: usize,
}

impl Options {
    fn parse(args: &[&[u8]], adds: bool, node_entries_max: usize) -> Result<Options> {
        let mut trim: Option<(Strategy, bool)> = None;
        let mut limit = None;
        let mut makes_stream = true;
        let mut references = None;
        let mut at = 2;
        while let Some(&option) = args.get(at) {
            let more = args.len() - 1 - at;
            if adds && option == b"*" {
                break;
            } else if (is(option, "MAXLEN") || is(option, "MINID")) && more > 0 {
                if trim.is_some() {
                    return Err(Error::of(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not \
                         compatible",
                    ));
                }
                at += 1;
                let approximate = more >= 2 && args[at] == b"~";
                if approximate || more >= 2 && args[at] == b"=" {
                    at += 1;
                }
                let strategy = match is(option, "MAXLEN") {
                    true => match integer(args[at])? {
                        len @ 0.. => Strategy::MaxLen(len as u64),
                        _ => return Err(Error::of("ERR The MAXLEN argument must be >= 0.")),
                    },
                    false => Strategy::MinId(id(args[at], 0)?),
                };
                trim = Some((strategy, approximate));
            } else if is(option, "LIMIT") && more > 0 {
                at += 1;
                match integer(args[at])? {
                    count @ 0.. => limit = Some(count as u64),
                    _ => return Err(Error::of("ERR The LIMIT argument must be >= 0.")),
                }
            } else if let Some(given) = self::references(option).filter(|_| references.is_none()) {
                references = Some(given);
            } else if adds && is(option, "NOMKSTREAM") {
                makes_stream = false;
            } else if adds {
                break;
            } else {
                return Err(Error::SYNTAX);
            }
            at += 1;
        }
        if adds
            && let Some(&written) = args.get(at)
            && written != b"*"
        {
            Written::parse(written).ok_or(INVALID_ID)?;
        }
        let Some((strategy, approximate)) = trim else {
            if limit.is_some_and(|limit| limit > 0) {
                return Err(Error::of(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                ));
            }
            if !adds {
                return Err(Error::of(
                    "ERR syntax error, XTRIM must be called with a trimming strategy",
                ));
            }
            let references = references.unwrap_or_default();
            return Ok(Options { trim: None, references, makes_stream, id_at: at });
        };
        if limit.is_some() && !approximate {
            return Err(Error::of(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        // As much as can be done at once without being noticed.
        let by_itself = match node_entries_max {
            0 => 10_000,
            entries => (entries as u64).saturating_mul(100).min(1_000_000),
        };
        let limit = match limit {
            Some(0) => None,
            None if approximate => Some(by_itself),
            given => given,
        };
        let trim = Some(Trim { strategy, approximate, limit });
        let references = references.unwrap_or_default();
        Ok(Options { trim, references, makes_stream, id_at: at })
    }
}

/// Words that are fields and values in turn.
#[derive(Clone)]
struct Pairs<'a>(std::slice::ChunksExact<'a, &'a [u8]>);

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        self.0.next().map(|pair| (pair[0], pair[1]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Pairs<'_> {}

fn xadd(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let options = Options::parse(args, true, call.txn.limits().stream_node_max_entries)?;
    let words = args.get(options.id_at + 1..).unwrap_or_default();
    if words.len() < 2 || words.len() % 2 == 1 {
        return Err(Error::arity("xadd"));
    }
    let written = match args[options.id_at] {
        b"*" => None,
        written => Written::parse(written),
    };
    if written == Some(Written { ms: 0, seq: Seq::Given(0) })
        || written == Some(Written { ms: 0, seq: Seq::Missing })
    {
        return Err(Error::of("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let now_ms = call.now_ms().max(0) as u64;
    let (exists, last) = match look_at_stream(call.txn, args[1])? {
        None => (false, Id::MIN),
        Some(stream) => (true, stream.last_id()),
    };
    if !exists && !options.makes_stream {
        call.reply.null();
        return Ok(());
    }
    if last == Id::MAX {
        return Err(Error::of(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = match written {
        None if now_ms > last.ms => Some(Id::new(now_ms, 0)),
        None => last.next(),
        Some(Written { ms, seq: Seq::Any }) if ms == last.ms => {
            last.seq.checked_add(1).map(|seq| Id::new(ms, seq))
        }
        Some(Written { ms, seq: Seq::Given(seq) }) => Some(Id::new(ms, seq)),
        Some(Written { ms, seq: Seq::Missing | Seq::Any }) => Some(Id::new(ms, 0)),
    };
    let Some(id) = id.filter(|id| *id > last) else {
        return Err(Error::of(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ));
    };
    if words.iter().map(|word| word.len()).sum::<usize>() > ENTRY_BYTES_MAX {
        return Err(Error::of("ERR Elements are too large to be stored"));
    }
    let mut stream: Mut<'_, '_, Stream> = call.txn.write_or_create(args[1])?;
    stream.add(id, Pairs(words.chunks_exact(2)));
    if let Some(trim) = options.trim {
        stream.trim_referenced(&trim, options.references);
    }
    call.reply.bulk(id.text().as_bytes());
    Ok(())
}

fn xtrim(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let options = Options::parse(args, false, call.txn.limits().stream_node_max_entries)?;
    let gone = match (call.txn.write::<Stream>(args[1])?, options.trim) {
        (Some(mut stream), Some(trim)) => stream.trim_referenced(&trim, options.references),
        _ => 0,
    };
    call.reply.integer(gone as i64);
    Ok(())
}

fn xdel(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let stream = call.txn.write::<Stream>(args[1])?;
    let Some(mut stream) = stream else {
        call.reply.integer(0);
        return Ok(());
    };
    let ids: Vec<Id> = args[2..].iter().map(|arg| id(arg, 0)).collect::<Result<_>>()?;
    let deleted = ids.into_iter().filter(|id| stream.delete(*id)).count();
    call.reply.integer(deleted as i64);
    Ok(())
}

/// The ids of XDELEX and XACKDEL, and what becomes of references to them.
fn ids_and_references<'a>(words: &'a [&'a [u8]]) -> Result<(&'a [&'a [u8]], References)> {
    let (mut ids, mut given) = (None, None);
    let mut rest = words;
    while let [word, behind @ ..] = rest {
        rest = behind;
        if let Some(references) = references(word).filter(|_| given.is_none()) {
            given = Some(references);
        } else if is(word, "IDS")
            && let [count, behind @ ..] = rest
        {
            let count = match integer(count) {
                Ok(count @ 1..) => count as usize,
                _ => return Err(Error::of("ERR Number of IDs must be a positive integer")),
            };
            let Some((these, behind)) = behind.split_at_checked(count) else {
                return Err(Error::of(
                    "ERR The `numids` parameter must match the number of arguments",
                ));
            };
            (ids, rest) = (Some(these), behind);
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let ids = ids.ok_or(Error::of("ERR IDS option is required"))?;
    Ok((ids, given.unwrap_or_default()))
}

/// What XDELEX and XACKDEL answer for an id.
mod outcome {
    pub const NONE: i64 = -1;
    pub const DELETED: i64 = 1;
    pub const REFERENCED: i64 = 2;
}

/// Deletes an entry as far as its references let it go; answers what became of it, and whether it
/// was there.
fn delete(stream: &mut Mut<'_, '_, Stream>, id: Id, references: References) -> (i64, bool) {
    match references {
        References::Respect if stream.is_referenced(id) => return (outcome::REFERENCED, true),
        References::Drop => stream.acknowledge_everywhere(id),
        References::Respect | References::Keep => {}
    }
    (outcome::DELETED, stream.delete(id))
}

fn reply_outcomes(reply: &mut Reply<'_>, outcomes: impl ExactSizeIterator<Item = i64>) {
    reply.array(outcomes.len());
    outcomes.for_each(|outcome| reply.integer(outcome));
}

fn xdelex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let is_there = look_at_stream(call.txn, args[1])?.is_some();
    let (words, references) = ids_and_references(&args[2..])?;
    if !is_there {
        reply_outcomes(&mut call.reply, words.iter().map(|_| outcome::NONE));
        return Ok(());
    }
    let ids: Vec<Id> = words.iter().map(|word| id(word, 0)).collect::<Result<_>>()?;
    let Some(mut stream) = call.txn.write::<Stream>(args[1])? else { return Err(Error::NO_KEY) };
    let outcomes = ids.into_iter().map(|id| match delete(&mut stream, id, references) {
        (outcome, true) => outcome,
        (_, false) => outcome::NONE,
    });
    reply_outcomes(&mut call.reply, outcomes);
    Ok(())
}

fn xackdel(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let group = args[2];
    let stream = call.txn.read_stream(args[1])?;
    let is_there = stream.is_some_and(|stream| stream.group(group).is_some());
    let (words, references) = ids_and_references(&args[3..])?;
    if !is_there {
        reply_outcomes(&mut call.reply, words.iter().map(|_| outcome::NONE));
        return Ok(());
    }
    let ids: Vec<Id> = words.iter().map(|word| id(word, 0)).collect::<Result<_>>()?;
    let Some(mut stream) = call.txn.write::<Stream>(args[1])? else { return Err(Error::NO_KEY) };
    let outcomes = ids.into_iter().map(|id| match stream.acknowledge(group, id) {
        // One that was pending and is not in the stream any more counts as deleted.
        true => delete(&mut stream, id, references).0,
        false => outcome::NONE,
    });
    reply_outcomes(&mut call.reply, outcomes);
    Ok(())
}

fn xlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let len = call.txn.read_stream(args[1])?.map_or(0, Stream::len);
    call.reply.integer(len as i64);
    Ok(())
}

fn xrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    range(call, args, args[2], args[3], false)
}

fn xrevrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    range(call, args, args[3], args[2], true)
}

fn range(
    call: &mut Call<'_, '_>,
    args: &[&[u8]],
    start: &[u8],
    end: &[u8],
    backwards: bool,
) -> Result {
    let ids = range_start(start)?..=range_end(end)?;
    let mut count = None;
    for option in args[4..].chunks(2) {
        match option {
            [word, value] if is(word, "COUNT") => count = Some(integer(value)?.max(0) as usize),
            _ => return Err(Error::SYNTAX),
        }
    }
    let Some(stream) = call.txn.read_stream(args[1])? else {
        call.reply.array(0);
        return Ok(());
    };
    if count == Some(0) {
        call.reply.null_array();
        return Ok(());
    }
    let deferred = call.reply.deferred_array();
    let entries = stream.range(ids);
    let most = count.unwrap_or(usize::MAX);
    let reply = &mut call.reply;
    let mut answered = 0;
    let mut answer = |entry| {
        reply_entry(reply, entry);
        answered += 1;
    };
    match backwards {
        true => paced(call.txn, entries.rev().take(most)).for_each(&mut answer),
        false => paced(call.txn, entries.take(most)).for_each(&mut answer),
    }
    call.reply.finish_array(deferred, answered);
    Ok(())
}

fn xsetid(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let last_id = id(args[2], 0)?;
    let (mut added, mut deleted) = (None, Id::MIN);
    for option in args[3..].chunks(2) {
        match option {
            [word, value] if is(word, "ENTRIESADDED") => match integer(value)? {
                count @ 0.. => added = Some(count as u64),
                _ => return Err(Error::of("ERR entries_added must be positive")),
            },
            [word, value] if is(word, "MAXDELETEDID") => {
                deleted = id(value, 0)?;
                if last_id < deleted {
                    return Err(Error::of(
                        "ERR The ID specified in XSETID is smaller than the provided \
                         max_deleted_entry_id",
                    ));
                }
            }
            _ => return Err(Error::SYNTAX),
        }
    }
    let Some(mut stream) = call.txn.write::<Stream>(args[1])? else {
        return Err(Error::NO_KEY);
    };
    let head = stream.head();
    if last_id < head.max_deleted_id {
        return Err(Error::of(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if !stream.is_empty() {
        if last_id < stream.last_entry_id() {
            return Err(Error::of(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|added| added < stream.len() as u64) {
            return Err(Error::of(
                "ERR The entries_added specified in XSETID is smaller than the target stream \
                 length",
            ));
        }
    }
    stream.set_head(Head {
        last_id,
        max_deleted_id: if deleted == Id::MIN { head.max_deleted_id } else { deleted },
        entries_added: added.unwrap_or(head.entries_added),
    });
    call.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn ids_ascend() {
        let mut db = Keyspace::new();
        db.check("XADD s 0-0 f v", "-ERR The ID specified in XADD must be greater than 0-0");
        db.check("EXISTS s", ":0");
        db.check("XADD s NOMKSTREAM * f v", "$-1");
        db.check("XADD s 5-1 f v", "$3 5-1");
        db.check("XADD s 5-* f v", "$3 5-2");
        db.check("XADD s 6 f v g w", "$3 6-0");
        db.check(
            "XADD s 6-0 f v",
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
        );
        db.check("XADD s * f v", "$15 1700000000000-0");
        db.check("XADD s * f v", "$15 1700000000000-1");
        db.check("XLEN s", ":5");
        db.check("XRANGE s 5 6 COUNT 1", "*1 *2 $3 5-1 *2 $1 f $1 v");
        db.check("XREVRANGE s 6 (5-1 COUNT 1", "*1 *2 $3 6-0 *4 $1 f $1 v $1 g $1 w");
        db.check("XDEL s 5-2 5-2 7", ":1");
        db.check("XTRIM s MAXLEN 2", ":2");
        db.check("XRANGE s - + COUNT 0", "*-1");
        db.check("XADD s MINID 9 5-1 f", "-ERR wrong number of arguments for 'xadd' command");
        db.check("XTRIM s MINID = 1700000000000-1", ":1");
        db.check("XDEL s 1700000000000-1", ":1");
        db.check("TYPE s", "+stream");
    }
}

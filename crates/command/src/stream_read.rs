//! XREAD and XREADGROUP: entries behind an id, or behind those that a consumer group has read, of
//! several streams at once, waited for if need be.

use std::ops::Bound::{Excluded, Unbounded};

use data::Stream;
use data::stream::{COUNT_MAX, Id};
use engine::Mut;
use resp::{Protocol, Reply};

use crate::call::{Blocking, Call, Handler, OnTimeout, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{Begin, Find, KeySpec, key_flag as k};
use crate::row::flag::{BLOCKING, MOVABLE_KEYS, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::stream::{id, reply_entry};

const fn streams(from: i16) -> KeySpec {
    KeySpec {
        begin: Begin::Keyword("STREAMS", from),
        find: Find::Range { last: -1, step: 1, limit: 2 },
        flags: k::RO | k::ACCESS,
        notes: "",
    }
}

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Stream, "xread", -4, xread)
        .flags(READONLY | BLOCKING | MOVABLE_KEYS)
        .keys(&[streams(1)])
        .since("5.0.0")
        .complexity("O(log N + M) for each stream, for M entries that are answered.")
        .summary("Answers the entries behind an id of each stream, waiting for some if asked to.")
        .syntax("[COUNT count] [BLOCK milliseconds] STREAMS streams:(key [key ...] id [id ...])"),
    Command::new(Group::Stream, "xreadgroup", -7, xreadgroup)
        .flags(WRITE | BLOCKING | MOVABLE_KEYS)
        .keys(&[streams(4)])
        .since("5.0.0")
        .complexity("O(log N + M) for each stream, for M entries that are answered.")
        .summary(
            "Answers a consumer the entries that its group has not read yet, or those pending \
             with it, waiting for some if asked to.",
        )
        .syntax(
            "GROUP group-block:(group consumer) [COUNT count] [BLOCK milliseconds] [NOACK] \
             STREAMS streams:(key [key ...] id [id ...])",
        ),
];

/// Entries between two looks whether the script that reads them is to end.
const LOOKS_EVERY: usize = 1024;

fn deadline(call: &Call<'_, '_>, arg: &[u8]) -> Result<Option<i64>> {
    let ms = data::number::parse_i64(arg)
        .ok_or(Error::of("ERR timeout is not an integer or out of range"))?;
    match ms {
        0 => Ok(None),
        1.. => call.now_ms().checked_add(ms).map(Some).ok_or(Error::TIMEOUT_RANGE),
        _ => Err(Error::TIMEOUT_NEGATIVE),
    }
}

/// What both commands are asked.
struct Request<'a> {
    /// Whether it waits, and until when.
    waits: Option<Option<i64>>,
    most: usize,
    /// Group and consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    is_acknowledged: bool,
    keys: &'a [&'a [u8]],
    texts: &'a [&'a [u8]],
}

impl<'a> Request<'a> {
    fn parse(call: &Call<'_, '_>, args: &'a [&'a [u8]], by_group: bool) -> Result<Request<'a>> {
        let (mut waits, mut most) = (None, usize::MAX);
        let (mut group, mut is_acknowledged) = (None, false);
        let mut at = 1;
        let streams = loop {
            let Some(&option) = args.get(at) else { return Err(Error::SYNTAX) };
            let more = args.len() - 1 - at;
            if is(option, "BLOCK") && more > 0 {
                waits = Some(deadline(call, args[at + 1])?);
                at += 2;
            } else if is(option, "COUNT") && more > 0 {
                most = match integer(args[at + 1])? {
                    count @ 1.. => count as usize,
                    _ => usize::MAX,
                };
                at += 2;
            } else if is(option, "STREAMS") && more > 0 {
                break &args[at + 1..];
            } else if is(option, "GROUP") && more > 1 {
                if !by_group {
                    return Err(Error::of(
                        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD \
                         instead.",
                    ));
                }
                group = Some((args[at + 1], args[at + 2]));
                at += 3;
            } else if is(option, "NOACK") {
                if !by_group {
                    return Err(Error::of(
                        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD \
                         instead.",
                    ));
                }
                is_acknowledged = true;
                at += 1;
            } else {
                return Err(Error::SYNTAX);
            }
        };
        if streams.len() % 2 == 1 {
            return Err(Error::of(match by_group {
                true => {
                    "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or \
                     '>' must be specified."
                }
                false => {
                    "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must \
                     be specified."
                }
            }));
        }
        let (keys, texts) = streams.split_at(streams.len() / 2);
        Ok(Request { waits, most, group, is_acknowledged, keys, texts })
    }
}

/// Writes what stands before the entries of a stream.
fn begin_stream(reply: &mut Reply<'_>, key: &[u8]) {
    if reply.protocol() == Protocol::Resp2 {
        reply.array(2);
    }
    reply.bulk(key);
}

fn xread(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Request { waits, most, keys, texts, .. } = Request::parse(call, args, false)?;
    let mut behind = Vec::with_capacity(keys.len());
    for (key, text) in keys.iter().zip(texts) {
        let stream = match call.txn.read_stream(key) {
            // What was waited for may have become something else: it is waited out.
            Err(_) if call.blocking == Blocking::Again => None,
            stream => stream?,
        };
        behind.push(match *text {
            b"$" => stream.map_or(Id::MIN, Stream::last_id),
            b"+" => match stream.map(Stream::last_entry_id) {
                None => Id::MIN,
                Some(Id::MIN) => stream.map_or(Id::MIN, Stream::last_id),
                Some(last) => last.previous().unwrap_or(Id::MIN),
            },
            b">" => {
                return Err(Error::of(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP \
                     <group> <consumer> option.",
                ));
            }
            text => id(text, 0)?,
        });
    }
    let found: Vec<(&[u8], Id, &Stream)> = keys
        .iter()
        .zip(&behind)
        .filter_map(|(key, behind)| {
            let stream = call.txn.read_stream(key).ok()??;
            let start = behind.next()?;
            stream.range(start..=Id::MAX).next().map(|_| (*key, start, stream))
        })
        .collect();
    if !found.is_empty() {
        match call.reply.protocol() {
            Protocol::Resp3 => call.reply.map(found.len()),
            Protocol::Resp2 => call.reply.array(found.len()),
        }
        for (key, start, stream) in found {
            begin_stream(&mut call.reply, key);
            let deferred = call.reply.deferred_array();
            let mut answered = 0;
            for entry in paced(call.txn, stream.range(start..=Id::MAX).take(most)) {
                reply_entry(&mut call.reply, entry);
                answered += 1;
            }
            call.reply.finish_array(deferred, answered);
        }
        return Ok(());
    }
    drop(found);
    let Some(deadline_ms) = waits else {
        call.reply.null_array();
        return Ok(());
    };
    call.wait(keys, deadline_ms, OnTimeout::NullArray);
    if let Some(wait) = &mut call.wait {
        // Tried again, it asks for what is behind the entries of now.
        let ids = behind.iter().map(|id| Box::from(id.text().as_bytes()));
        let unchanged = args[..args.len() - keys.len()].iter().map(|arg| Box::from(*arg));
        wait.again_as = Some(unchanged.chain(ids).collect());
    }
    Ok(())
}

/// What a consumer asks for.
#[derive(Clone, Copy)]
enum Wanted {
    /// What its group has not read yet.
    New,
    /// What is pending with it behind this id.
    Behind(Id),
}

fn wanted(text: &[u8]) -> Result<Wanted> {
    match text {
        b">" => Ok(Wanted::New),
        b"$" => Err(Error::of(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the \
             history of this consumer by specifying a proper ID, or use the > ID to get new \
             messages. The $ ID would just return an empty result set.",
        )),
        b"+" => Err(Error::of(
            "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the \
             history of this consumer by specifying a proper ID, or use the > ID to get new \
             messages. The + ID would just return an empty result set.",
        )),
        text => match id(text, 0)? {
            // It stands for `>` in Redis.
            Id::MAX => Ok(Wanted::New),
            id => Ok(Wanted::Behind(id)),
        },
    }
}

fn xreadgroup(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let request = Request::parse(call, args, true)?;
    let Request { waits, most, keys, .. } = request;
    let Some((group, consumer)) = request.group else {
        return Err(Error::of("ERR Missing GROUP option for XREADGROUP"));
    };
    let mut wants = Vec::with_capacity(keys.len());
    for (key, text) in keys.iter().zip(request.texts) {
        let stream = call.txn.read_stream(key)?;
        if stream.is_none_or(|stream| stream.group(group).is_none()) {
            return Err(Error::new(format!(
                "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
                String::from_utf8_lossy(key),
                String::from_utf8_lossy(group)
            )));
        }
        wants.push(wanted(text)?);
    }
    let now_ms = call.now_ms();
    let (before, deferred) = (call.reply.position(), call.reply.deferred_array());
    let mut answered = 0;
    for (key, wanted) in keys.iter().zip(wants) {
        let Some(mut stream) = call.txn.write::<Stream>(key)? else { continue };
        stream.add_consumer(group, consumer, now_ms);
        stream.see_consumer(group, consumer, now_ms, false);
        let reader = Reader { group, consumer, now_ms, most };
        match wanted {
            Wanted::Behind(id) => {
                begin_stream(&mut call.reply, key);
                reader.read_pending(&mut stream, id, &mut call.reply);
            }
            Wanted::New => {
                let last_id = stream.group(group).map_or(Id::MAX, |group| group.last_id);
                if stream.last_entry_id() <= last_id {
                    continue;
                }
                begin_stream(&mut call.reply, key);
                reader.read_new(&mut stream, last_id, request.is_acknowledged, &mut call.reply);
            }
        }
        answered += 1;
    }
    if answered > 0 {
        match call.reply.protocol() {
            Protocol::Resp3 => call.reply.finish_map(deferred, answered),
            Protocol::Resp2 => call.reply.finish_array(deferred, answered),
        }
        return Ok(());
    }
    call.reply.truncate(before);
    match waits {
        Some(deadline_ms) => call.wait(keys, deadline_ms, OnTimeout::NullArray),
        None => call.reply.null_array(),
    }
    Ok(())
}

/// A consumer that reads a stream with its group.
struct Reader<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    now_ms: i64,
    most: usize,
}

impl Reader<'_> {
    /// Answers what the group has not read yet, which is pending from now on.
    fn read_new(
        &self,
        stream: &mut Mut<'_, '_, Stream>,
        last_id: Id,
        is_acknowledged: bool,
        reply: &mut Reply<'_>,
    ) {
        let Reader { group, consumer, now_ms, most } = *self;
        let Some(start) = last_id.next() else { return reply.array(0) };
        let deferred = reply.deferred_array();
        let (mut ids, mut last_id) = (Vec::new(), last_id);
        let mut read = stream.group(group).and_then(|group| group.entries_read);
        for entry in stream.range(start..=Id::MAX).take(most) {
            reply_entry(reply, entry);
            read = stream.read_by(last_id, read, entry.id);
            last_id = entry.id;
            ids.push(entry.id);
            if ids.len().is_multiple_of(LOOKS_EVERY) && stream.may_break_off() {
                break;
            }
        }
        reply.finish_array(deferred, ids.len());
        stream.set_group(group, last_id, read);
        if !is_acknowledged && !ids.is_empty() {
            for id in ids {
                stream.deliver(group, consumer, id, now_ms, 1);
            }
            stream.see_consumer(group, consumer, now_ms, true);
        }
    }

    /// Answers what is pending with the consumer, which is delivered once more.
    fn read_pending(&self, stream: &mut Mut<'_, '_, Stream>, behind: Id, reply: &mut Reply<'_>) {
        let Reader { group, consumer, now_ms, most } = *self;
        let pending = stream.group(group).and_then(|group| group.consumer(consumer));
        let deferred = reply.deferred_array();
        let (mut answered, mut delivered) = (0_usize, Vec::new());
        let ids = pending.map(|consumer| consumer.pending((Excluded(behind), Unbounded)));
        for id in ids.into_iter().flatten().take(most) {
            match stream.get(id) {
                Some(entry) => {
                    reply_entry(reply, entry);
                    delivered.push(id);
                }
                // Deleted meanwhile.
                None => {
                    reply.array(2);
                    reply.bulk(id.text().as_bytes());
                    reply.null_array();
                }
            }
            answered += 1;
            if answered.is_multiple_of(LOOKS_EVERY) && stream.may_break_off() {
                break;
            }
        }
        reply.finish_array(deferred, answered);
        for id in delivered {
            let before = stream.group(group).and_then(|group| group.get(id));
            let deliveries = before.map_or(1, |pending| counted(pending.deliveries));
            stream.deliver(group, consumer, id, now_ms, deliveries);
        }
    }
}

/// One delivery more.
pub(crate) fn counted(deliveries: u64) -> u64 {
    deliveries.saturating_add(1).min(COUNT_MAX)
}

#[cfg(test)]
mod tests {
    use crate::Blocking;
    use crate::testing::Keyspace;

    #[test]
    fn reads_what_is_behind_an_id() {
        let mut db = Keyspace::new();
        db.run("XADD s 1-1 f v");
        db.run("XADD s 2-1 f w");
        db.check("XREAD STREAMS s t 1-1 0", "*1 *2 $1 s *1 *2 $3 2-1 *2 $1 f $1 w");
        db.check("XREAD COUNT 1 STREAMS s 0", "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 f $1 v");
        db.check("XREAD STREAMS s +", "*1 *2 $1 s *1 *2 $3 2-1 *2 $1 f $1 w");
        db.check("XREAD STREAMS s $", "*-1");
        db.check("XREAD BLOCK 10 STREAMS s 2-1", "*-1");
        db.check("XREAD BLOCK -1 STREAMS s $", "-ERR timeout is negative");
    }

    #[test]
    fn waits_for_what_comes() {
        let mut db = Keyspace::new();
        db.run("XADD s 1-1 f v");
        db.blocking = Blocking::First;
        db.check("XREAD BLOCK 0 STREAMS s t $ $", "");
        let wait = db.wait.take().expect("it waits");
        let again = wait.again_as.expect("the ids are settled");
        let words: Vec<String> =
            again.iter().map(|word| String::from_utf8_lossy(word).into()).collect();
        assert_eq!(words.join(" "), "XREAD BLOCK 0 STREAMS s t 1-1 0-0");
        db.run("XADD s 1-2 f w");
        db.blocking = Blocking::Again;
        db.check(&words.join(" "), "*1 *2 $1 s *1 *2 $3 1-2 *2 $1 f $1 w");
    }
}

//! XREAD: entries behind an id, of several streams at once, waited for if need be.

use data::Stream;
use data::stream::Id;

use crate::call::{Blocking, Call, Handler, OnTimeout, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{Begin, Find, KeySpec, key_flag as k};
use crate::row::flag::{BLOCKING, MOVABLE_KEYS, READONLY};
use crate::row::{Command, Group};
use crate::stream::{id, reply_entry};

const KEYS: &[KeySpec] = &[KeySpec {
    begin: Begin::Keyword("STREAMS", 1),
    find: Find::Range { last: -1, step: 1, limit: 2 },
    flags: k::RO | k::ACCESS,
    notes: "",
}];

pub const TABLE: &[Command<Handler>] = &[Command::new(Group::Stream, "xread", -4, xread)
    .flags(READONLY | BLOCKING | MOVABLE_KEYS)
    .keys(KEYS)
    .since("5.0.0")
    .complexity("O(log N + M) for each stream, for M entries that are answered.")
    .summary("Answers the entries behind an id of each stream, waiting for some if asked to.")
    .syntax("[COUNT count] [BLOCK milliseconds] STREAMS streams:(key [key ...] id [id ...])")];

fn deadline(call: &Call<'_, '_>, arg: &[u8]) -> Result<Option<i64>> {
    let ms = data::number::parse_i64(arg)
        .ok_or(Error::of("ERR timeout is not an integer or out of range"))?;
    match ms {
        0 => Ok(None),
        1.. => call.now_ms().checked_add(ms).map(Some).ok_or(Error::TIMEOUT_RANGE),
        _ => Err(Error::TIMEOUT_NEGATIVE),
    }
}

fn xread(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let mut waits = None;
    let mut most = usize::MAX;
    let mut at = 1;
    let streams = loop {
        let Some(&option) = args.get(at) else { return Err(Error::SYNTAX) };
        let more = args.len() - 1 - at;
        if is(option, "BLOCK") && more > 0 {
            waits = Some(deadline(call, args[at + 1])?);
        } else if is(option, "COUNT") && more > 0 {
            most = match integer(args[at + 1])? {
                count @ 1.. => count as usize,
                _ => usize::MAX,
            };
        } else if is(option, "STREAMS") && more > 0 {
            break &args[at + 1..];
        } else if is(option, "GROUP") && more > 1 {
            return Err(Error::of(
                "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
            ));
        } else if is(option, "NOACK") {
            return Err(Error::of(
                "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
            ));
        } else {
            return Err(Error::SYNTAX);
        }
        at += 2;
    };
    if streams.len() % 2 == 1 {
        return Err(Error::of(
            "ERR Unbalanced 'xread' list of streams: for each stream key an ID, '+', or '$' must \
             be specified.",
        ));
    }
    let (keys, texts) = streams.split_at(streams.len() / 2);
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
        let by_name = call.reply.protocol() == resp::Protocol::Resp3;
        match by_name {
            true => call.reply.map(found.len()),
            false => call.reply.array(found.len()),
        }
        for (key, start, stream) in found {
            if !by_name {
                call.reply.array(2);
            }
            call.reply.bulk(key);
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

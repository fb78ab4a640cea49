//! What is pending in a consumer group: XPENDING shows it, XCLAIM and XAUTOCLAIM give it to another
//! consumer.

use std::ops::Bound::{Excluded, Unbounded};

use data::Stream;
use data::stream::Id;
use engine::Mut;
use resp::Reply;

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::stream::{id, range_end, range_start, reply_entry};
use crate::stream_group::no_group;
use crate::stream_read::counted;

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Stream, "xautoclaim", -6, xautoclaim)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .since("6.2.0")
        .complexity("O(log N) for each pending entry that is looked at, ten times COUNT at most.")
        .tips(&["nondeterministic_output"])
        .history(&[("7.0.0", "Forgets entries that were deleted, and answers their ids.")])
        .summary("Gives a consumer what has been pending for a while.")
        .syntax("key group consumer min-idle-time start:string [COUNT count] [JUSTID]"),
    Command::new(Group::Stream, "xclaim", -6, xclaim)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("5.0.0")
        .complexity("O(log N) for each id.")
        .tips(&["nondeterministic_output"])
        .summary("Gives a consumer what is pending with another.")
        .syntax(
            "key group consumer min-idle-time id [id ...] [IDLE ms:integer] \
             [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
        ),
    Command::new(Group::Stream, "xpending", -3, xpending)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("5.0.0")
        .complexity("O(log N + M) for M pending entries that are looked at.")
        .tips(&["nondeterministic_output"])
        .history(&[("6.2.0", "Takes IDLE, and ranges without their ends.")])
        .summary("Answers what is pending in a consumer group.")
        .syntax(
            "key group [filters:([IDLE min-idle-time:integer] start:string end:string count \
             [consumer])]",
        ),
];

/// What XPENDING is to list.
struct Filters<'a> {
    start: Id,
    end: Id,
    count: usize,
    idle_ms_min: i64,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filters<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Option<Filters<'a>>> {
        if args.len() == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&args.len()) {
            return Err(Error::SYNTAX);
        }
        let (mut words, mut idle_ms_min) = (&args[3..], 0);
        if is(words[0], "IDLE") {
            idle_ms_min = integer(words[1])?;
            words = &words[2..];
            if words.len() < 3 {
                return Err(Error::SYNTAX);
            }
        }
        let count = integer(words[2])?.max(0) as usize;
        let (start, end) = (range_start(words[0])?, range_end(words[1])?);
        Ok(Some(Filters { start, end, count, idle_ms_min, consumer: words.get(3).copied() }))
    }
}

fn xpending(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let filters = Filters::parse(args)?;
    let now_ms = call.now_ms();
    let stream = call.txn.read_stream(args[1])?;
    let Some(group) = stream.and_then(|stream| stream.group(args[2])) else {
        return Err(no_group(args[1], args[2]));
    };
    let reply = &mut call.reply;
    let Some(Filters { start, end, count, idle_ms_min, consumer }) = filters else {
        reply.array(4);
        reply.integer(group.pending_count() as i64);
        let (first, last) = (group.pending(..).next(), group.pending(..).next_back());
        let (Some((first, _)), Some((last, _))) = (first, last) else {
            reply.null();
            reply.null();
            reply.null_array();
            return Ok(());
        };
        reply.bulk(first.text().as_bytes());
        reply.bulk(last.text().as_bytes());
        let deferred = reply.deferred_array();
        let mut owners = 0;
        for consumer in group.consumers().filter(|consumer| consumer.pending_count() > 0) {
            reply.array(2);
            reply.bulk(consumer.name());
            reply.bulk_integer(consumer.pending_count() as i64);
            owners += 1;
        }
        reply.finish_array(deferred, owners);
        return Ok(());
    };
    let deferred = reply.deferred_array();
    let mut answered = 0;
    let mut answer = |id: Id| {
        let pending = group.get(id).expect("what a consumer has is pending in its group");
        let idle_ms = now_ms.saturating_sub(pending.delivered_ms);
        if answered == count || idle_ms_min != 0 && idle_ms < idle_ms_min {
            return answered < count;
        }
        reply.array(4);
        reply.bulk(id.text().as_bytes());
        reply.bulk(group.owner(pending).name());
        reply.integer(idle_ms.max(0));
        reply.integer(pending.deliveries as i64);
        answered += 1;
        answered < count
    };
    if start <= end && count > 0 {
        match consumer.map(|name| group.consumer(name)) {
            None => {
                let all = group.pending(start..=end).map(|(id, _)| id);
                paced(call.txn, all).all(&mut answer);
            }
            Some(Some(owner)) => {
                paced(call.txn, owner.pending(start..=end)).all(&mut answer);
            }
            Some(None) => {}
        }
    }
    call.reply.finish_array(deferred, answered);
    Ok(())
}

fn idle_ms_min(arg: &[u8], text: &'static str) -> Result<i64> {
    Ok(integer(arg).map_err(|_| Error::of(text))?.max(0))
}

/// How entries change hands.
struct Claim<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    idle_ms_min: i64,
    delivered_ms: i64,
    deliveries: Option<u64>,
    is_forced: bool,
    only_ids: bool,
}

/// What became of an entry.
#[derive(PartialEq)]
enum Claimed {
    Yes,
    No,
    /// It is not in the stream any more, and not pending either.
    Gone,
}

impl Claim<'_> {
    /// Claims an entry and answers it.
    fn one(
        &self,
        stream: &mut Mut<'_, '_, Stream>,
        id: Id,
        now_ms: i64,
        reply: &mut Reply<'_>,
    ) -> Claimed {
        let pending = stream.group(self.group).and_then(|group| group.get(id)).copied();
        let Some(entry) = stream.get(id) else {
            return match stream.acknowledge(self.group, id) {
                true => Claimed::Gone,
                false => Claimed::No,
            };
        };
        let deliveries = match pending {
            None if !self.is_forced => return Claimed::No,
            None => 0,
            Some(pending) => {
                let idle_ms = now_ms.saturating_sub(pending.delivered_ms);
                if self.idle_ms_min > 0 && idle_ms < self.idle_ms_min {
                    return Claimed::No;
                }
                pending.deliveries
            }
        };
        match self.only_ids {
            true => reply.bulk(id.text().as_bytes()),
            false => reply_entry(reply, entry),
        }
        // An entry that nobody had counts as delivered once.
        let deliveries = match (self.deliveries, pending) {
            (Some(given), _) => given,
            (None, None) if self.only_ids => 1,
            (None, None) => 2,
            (None, Some(_)) if self.only_ids => deliveries,
            (None, Some(_)) => counted(deliveries),
        };
        stream.deliver(self.group, self.consumer, id, self.delivered_ms, deliveries);
        Claimed::Yes
    }
}

fn xclaim(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (group, consumer) = (args[2], args[3]);
    let (now_ms, clock_ms) = (call.now_ms(), call.clock_ms);
    let stream = call.txn.read_stream(args[1])?;
    let Some(found) = stream.and_then(|stream| stream.group(group)) else {
        return Err(no_group(args[1], group));
    };
    let (group_id, entries_read) = (found.last_id, found.entries_read);
    let idle_ms_min = idle_ms_min(args[4], "ERR Invalid min-idle-time argument for XCLAIM")?;
    let ids: Vec<Id> = args[5..].iter().map_while(|arg| Id::parse(arg, 0)).collect();
    let (mut delivered_ms, mut deliveries, mut last_id) = (None, None, Id::MIN);
    let (mut is_forced, mut only_ids) = (false, false);
    let mut rest = &args[5 + ids.len()..];
    while let [word, behind @ ..] = rest {
        let value = behind.first().copied();
        let number = |value, text| integer(value).map_err(|_| Error::of(text));
        rest = behind.get(1..).unwrap_or_default();
        match value {
            _ if is(word, "FORCE") => (is_forced, rest) = (true, behind),
            _ if is(word, "JUSTID") => (only_ids, rest) = (true, behind),
            Some(value) if is(word, "IDLE") => {
                let idle_ms = number(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                delivered_ms = Some(now_ms.wrapping_sub(idle_ms));
            }
            Some(value) if is(word, "TIME") => {
                delivered_ms = Some(number(value, "ERR Invalid TIME option argument for XCLAIM")?);
            }
            Some(value) if is(word, "RETRYCOUNT") => {
                let count = number(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                deliveries = u64::try_from(count).ok();
            }
            Some(value) if is(word, "LASTID") => last_id = id(value, 0)?,
            _ => {
                let word = String::from_utf8_lossy(word);
                return Err(Error::new(format!("ERR Unrecognized XCLAIM option '{word}'")));
            }
        }
    }
    // A time that has not come yet is as good as now. So the clock is asked that shows the truth.
    let delivered_ms = match delivered_ms {
        Some(when) if (0..=now_ms.max(clock_ms)).contains(&when) => when,
        _ => now_ms,
    };
    let Some(mut stream) = call.txn.write::<Stream>(args[1])? else { return Err(Error::NO_KEY) };
    if last_id > group_id {
        stream.set_group(group, last_id, entries_read);
    }
    stream.add_consumer(group, consumer, clock_ms);
    stream.see_consumer(group, consumer, clock_ms, false);
    let claim =
        Claim { group, consumer, idle_ms_min, delivered_ms, deliveries, is_forced, only_ids };
    let deferred = call.reply.deferred_array();
    let mut answered = 0;
    for id in ids {
        let claimed = claim.one(&mut stream, id, now_ms, &mut call.reply);
        answered += usize::from(claimed == Claimed::Yes);
    }
    if answered > 0 {
        stream.see_consumer(group, consumer, clock_ms, true);
    }
    call.reply.finish_array(deferred, answered);
    Ok(())
}

/// Pending entries that are looked at for each that may be claimed.
const LOOKS_EACH: u64 = 10;
const CLAIMS_MAX: i64 = i64::MAX / 16;

fn xautoclaim(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (group, consumer) = (args[2], args[3]);
    // Read first; what is wrong with it is told after mistakes.
    let stream = call.txn.read_stream(args[1]);
    let has_group = stream.map(|stream| stream.is_some_and(|stream| stream.group(group).is_some()));
    let idle_ms_min = idle_ms_min(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let start = range_start(args[5])?;
    let (mut count, mut only_ids) = (100, false);
    let mut rest = &args[6..];
    while let [word, behind @ ..] = rest {
        rest = behind;
        if is(word, "COUNT")
            && let [value, behind @ ..] = rest
        {
            rest = behind;
            count = match integer(value) {
                Ok(count @ 1..=CLAIMS_MAX) => count as u64,
                _ => return Err(Error::of("ERR COUNT must be > 0")),
            };
        } else if is(word, "JUSTID") {
            only_ids = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let now_ms = call.now_ms();
    if !has_group? {
        return Err(no_group(args[1], group));
    }
    let Some(mut stream) = call.txn.write::<Stream>(args[1])? else { return Err(Error::NO_KEY) };
    stream.add_consumer(group, consumer, now_ms);
    stream.see_consumer(group, consumer, now_ms, false);
    let claim = Claim {
        group,
        consumer,
        idle_ms_min,
        delivered_ms: now_ms,
        deliveries: None,
        is_forced: false,
        only_ids,
    };
    let next = |stream: &Stream, from| {
        let group = stream.group(group)?;
        group.pending((from, Unbounded)).next().map(|(id, _)| id)
    };
    // Where to go on comes first, and is known last.
    let mut claimed = Vec::new();
    let mut reply = Reply::new(&mut claimed, call.reply.protocol());
    let (mut answered, mut deleted) = (0, Vec::new());
    let mut looks = count.saturating_mul(LOOKS_EACH);
    let mut at = next(&stream, std::ops::Bound::Included(start));
    while let Some(id) = at
        && looks > 0
        && count > 0
        && !(looks.is_multiple_of(1024) && stream.may_break_off())
    {
        looks -= 1;
        match claim.one(&mut stream, id, now_ms, &mut reply) {
            Claimed::Yes => {
                answered += 1;
                count -= 1;
            }
            Claimed::Gone => {
                deleted.push(id);
                count -= 1;
            }
            Claimed::No => {}
        }
        at = next(&stream, Excluded(id));
    }
    if answered > 0 {
        stream.see_consumer(group, consumer, now_ms, true);
    }
    drop(stream);
    call.reply.array(3);
    call.reply.bulk(at.unwrap_or(Id::MIN).text().as_bytes());
    call.reply.array(answered);
    call.reply.raw(&claimed);
    call.reply.array(deleted.len());
    deleted.iter().for_each(|id| call.reply.bulk(id.text().as_bytes()));
    Ok(())
}

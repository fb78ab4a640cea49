//! Lists: pushing, popping, reading and editing. What moves elements between lists or takes them
//! from the first of several is in `list_move.rs`, what waits for them in `list_blocking.rs`.

use data::{End, List};
use engine::{Event, Mut, Txn};

use crate::call::{Call, Handler, integer, is, paced};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::set::signed_count;

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::List, name, arity, handler)
}

pub const TABLE: &[Command<Handler>] = &[
    row("lindex", 3, lindex)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(N) where N is the distance to the nearer end of the list.")
        .summary("Answers the element at an index of a list.")
        .syntax("key index"),
    row("linsert", 5, linsert)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .since("2.2.0")
        .complexity("O(N) where N is the number of elements before the pivot.")
        .summary("Inserts an element before or after the first element that equals a pivot.")
        .syntax("key where:(BEFORE | AFTER) pivot element"),
    row("llen", 2, llen)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .summary("Answers the number of elements in a list.")
        .syntax("key"),
    row("lpop", -2, lpop)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::DELETE)])
        .complexity("O(N) where N is the number of elements answered.")
        .history(&[("6.2.0", "Takes a count.")])
        .summary("Removes elements from the head of a list and answers them.")
        .syntax("key [count]"),
    row("lpos", -3, lpos)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("6.0.6")
        .complexity("O(N) where N is the number of elements looked at.")
        .summary("Answers where in a list elements equal to a value stand.")
        .syntax("key element [RANK rank] [COUNT num-matches] [MAXLEN len]"),
    row("lpush", -3, lpush)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .complexity("O(N) where N is the number of elements pushed.")
        .history(&[("2.4.0", "Takes several elements.")])
        .summary("Pushes elements one by one to the head of a list, creating it if need be.")
        .syntax("key element [element ...]"),
    row("lpushx", -3, lpushx)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .since("2.2.0")
        .complexity("O(N) where N is the number of elements pushed.")
        .history(&[("4.0.0", "Takes several elements.")])
        .summary("Pushes elements to the head of a list that exists.")
        .syntax("key element [element ...]"),
    row("lrange", 4, lrange)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .complexity("O(S+N) where S is the distance of the start to the nearer end and N is the number of elements answered.")
        .summary("Answers a range of a list's elements.")
        .syntax("key start stop"),
    row("lrem", 4, lrem)
        .flags(WRITE)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(N) where N is the length of the list.")
        .summary("Removes elements equal to a value from a list, counted from one of its ends.")
        .syntax("key count element"),
    row("lset", 4, lset)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .complexity("O(N) where N is the distance to the nearer end of the list.")
        .summary("Replaces the element at an index of a list.")
        .syntax("key index element"),
    row("ltrim", 4, ltrim)
        .flags(WRITE)
        .keys(&[KeySpec::first(k::RW | k::DELETE)])
        .complexity("O(N) where N is the number of elements removed.")
        .summary("Removes the elements at both ends of a list that are outside a range.")
        .syntax("key start stop"),
    row("rpop", -2, rpop)
        .flags(WRITE | FAST)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::DELETE)])
        .complexity("O(N) where N is the number of elements answered.")
        .history(&[("6.2.0", "Takes a count.")])
        .summary("Removes elements from the tail of a list and answers them.")
        .syntax("key [count]"),
    row("rpush", -3, rpush)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .complexity("O(N) where N is the number of elements pushed.")
        .history(&[("2.4.0", "Takes several elements.")])
        .summary("Pushes elements one by one to the tail of a list, creating it if need be.")
        .syntax("key element [element ...]"),
    row("rpushx", -3, rpushx)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .since("2.2.0")
        .complexity("O(N) where N is the number of elements pushed.")
        .history(&[("4.0.0", "Takes several elements.")])
        .summary("Pushes elements to the tail of a list that exists.")
        .syntax("key element [element ...]"),
];

fn lpush(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    push(call, args, End::Head)
}

fn rpush(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    push(call, args, End::Tail)
}

fn push(call: &mut Call<'_, '_>, args: &[&[u8]], end: End) -> Result {
    let mut list = call.txn.write_or_create::<List>(args[1])?;
    for value in &args[2..] {
        list.push(end, value);
    }
    call.reply.integer(list.len() as i64);
    Ok(())
}

fn lpushx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    push_to_existing(call, args, End::Head)
}

fn rpushx(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    push_to_existing(call, args, End::Tail)
}

fn push_to_existing(call: &mut Call<'_, '_>, args: &[&[u8]], end: End) -> Result {
    let Some(mut list) = call.txn.write::<List>(args[1])? else {
        call.reply.integer(0);
        return Ok(());
    };
    for value in &args[2..] {
        list.push(end, value);
    }
    call.reply.integer(list.len() as i64);
    Ok(())
}

fn lpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop(call, args, "lpop", End::Head)
}

fn rpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop(call, args, "rpop", End::Tail)
}

fn pop(call: &mut Call<'_, '_>, args: &[&[u8]], name: &str, end: End) -> Result {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(data::number::parse_i64(count).and_then(|n| usize::try_from(n).ok())),
        _ => return Err(Error::arity(name)),
    };
    let count = match count {
        Some(None) => return Err(Error::NOT_POSITIVE),
        Some(count) => count,
        None => None,
    };
    let Some(mut list) = call.txn.write::<List>(args[1])? else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.null_array(),
        }
        return Ok(());
    };
    match count {
        None => {
            list.pop_with(end, |value| call.reply.bulk(value));
        }
        Some(0) => call.reply.array(0),
        Some(count) => pop_many(&mut list, end, count, &mut call.reply),
    }
    Ok(())
}

/// Takes up to `count` elements from an end, the outermost first, and answers them as an array.
pub(crate) fn pop_many(
    list: &mut Mut<'_, '_, List>,
    end: End,
    count: usize,
    reply: &mut resp::Reply<'_>,
) {
    let len = list.len();
    let count = count.min(len);
    reply.array(count);
    // What a script that is to end hears, nobody sees.
    let goes_on = |step: usize| step % 1024 != 1023 || !list.may_break_off();
    let range = match end {
        End::Head => {
            let values = list.range(0..count).enumerate();
            values.take_while(|(step, _)| goes_on(*step)).for_each(|(_, value)| reply.bulk(value));
            0..count
        }
        End::Tail => {
            let values = list.range(len - count..len).rev().enumerate();
            values.take_while(|(step, _)| goes_on(*step)).for_each(|(_, value)| reply.bulk(value));
            len - count..len
        }
    };
    list.remove_range(range);
}

fn llen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let len = call.txn.read_list(args[1])?.map_or(0, List::len);
    call.reply.integer(len as i64);
    Ok(())
}

fn lindex(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    // A missing key is answered before the index is looked at.
    let Some(list) = call.txn.read_list(args[1])? else {
        call.reply.null();
        return Ok(());
    };
    match list.get(integer(args[2])?) {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
    Ok(())
}

fn lset(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(mut list) = call.txn.write::<List>(args[1])? else {
        return Err(Error::NO_KEY);
    };
    if !list.set(integer(args[2])?, args[3]) {
        return Err(Error::INDEX_RANGE);
    }
    call.reply.ok();
    Ok(())
}

fn lrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    let Some(list) = call.txn.read_list(args[1])? else {
        call.reply.array(0);
        return Ok(());
    };
    let range = data::index_range(start, stop, list.len());
    call.reply.array(range.len());
    paced(call.txn, list.range(range)).for_each(|value| call.reply.bulk(value));
    Ok(())
}

fn ltrim(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    if let Some(mut list) = call.txn.write::<List>(args[1])? {
        list.tell_as(Event::list("ltrim"));
        let range = data::index_range(start, stop, list.len());
        if list.retain_range(range) == 0 {
            list.tell(Event::list("ltrim"));
        }
    }
    call.reply.ok();
    Ok(())
}

fn lrem(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let count = integer(args[2])?;
    let Some(mut list) = call.txn.write::<List>(args[1])? else {
        call.reply.integer(0);
        return Ok(());
    };
    let removed = list.remove(args[3], count);
    call.reply.integer(removed as i64);
    Ok(())
}

fn linsert(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let before = is(args[2], "BEFORE");
    if !before && !is(args[2], "AFTER") {
        return Err(Error::SYNTAX);
    }
    let Some(mut list) = call.txn.write::<List>(args[1])? else {
        call.reply.integer(0);
        return Ok(());
    };
    match list.insert_at_pivot(args[3], before, args[4]) {
        Some(_) => call.reply.integer(list.len() as i64),
        None => call.reply.integer(-1),
    }
    Ok(())
}

fn lpos(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (mut rank, mut count, mut scanned_max) = (1, None, 0);
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        let value = options.as_slice().first().ok_or(Error::SYNTAX)?;
        let not_negative = |error: &'static str| match data::number::parse_i64(value) {
            Some(value) if value >= 0 => Ok(value as usize),
            _ => Err(Error::of(error)),
        };
        if is(option, "RANK") {
            rank = signed_count(value)?;
            if rank == 0 {
                return Err(Error::of(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                     second ... or use negative to start from the end of the list",
                ));
            }
        } else if is(option, "COUNT") {
            count = Some(not_negative("ERR COUNT can't be negative")?);
        } else if is(option, "MAXLEN") {
            scanned_max = not_negative("ERR MAXLEN can't be negative")?;
        } else {
            return Err(Error::SYNTAX);
        }
        options.next();
    }
    let Some(list) = call.txn.read_list(args[1])? else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.array(0),
        }
        return Ok(());
    };
    let scanned_max = if scanned_max == 0 { usize::MAX } else { scanned_max };
    let skipped = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let matches = positions(call.txn, list, args[2], rank < 0, scanned_max).skip(skipped);
    let Some(count) = count else {
        match { matches }.next() {
            Some(position) => call.reply.integer(position as i64),
            None => call.reply.null(),
        }
        return Ok(());
    };
    let array = call.reply.deferred_array();
    let mut found = 0;
    for position in matches.take(if count == 0 { usize::MAX } else { count }) {
        call.reply.integer(position as i64);
        found += 1;
    }
    call.reply.finish_array(array, found);
    Ok(())
}

/// Indexes of the elements that equal `value`, from the head or from the tail, looking at no more
/// than `scanned_max` elements.
fn positions(
    txn: &Txn<'_>,
    list: &List,
    value: &[u8],
    from_tail: bool,
    scanned_max: usize,
) -> impl Iterator<Item = usize> {
    let mut elements = list.iter();
    let last = list.len().wrapping_sub(1);
    let next = move || if from_tail { elements.next_back() } else { elements.next() };
    paced(txn, std::iter::from_fn(next))
        .take(scanned_max)
        .enumerate()
        .filter(move |(_, element)| *element == value)
        .map(move |(step, _)| if from_tail { last - step } else { step })
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn pushes_and_pops() {
        let mut db = Keyspace::new();
        db.check("RPUSH l a b c", ":3");
        db.check("LPUSH l x y", ":5");
        db.check("LRANGE l 0 -1", "*5 $1 y $1 x $1 a $1 b $1 c");
        db.check("LPOP l", "$1 y");
        db.check("RPOP l 2", "*2 $1 c $1 b");
        db.check("LPOP l 0", "*0");
        db.check("LPOP l 9", "*2 $1 x $1 a");
        db.check("GET l", "$-1");
        db.check("LPOP l", "$-1");
        db.check("LPOP l 1", "*-1");
        db.check("LPUSHX l a", ":0");
        db.check("LLEN l", ":0");
        db.check("LPOP l -1", "-ERR value is out of range, must be positive");
        db.check("LPOP l x", "-ERR value is out of range, must be positive");
        db.check("LPOP l 1 2", "-ERR wrong number of arguments for 'lpop' command");
    }

    #[test]
    fn lpos_ranks_counts_and_bounds() {
        let mut db = Keyspace::new();
        db.check("RPUSH l a b c 1 2 3 c c", ":8");
        db.check("LPOS l c", ":2");
        db.check("LPOS l c RANK -1", ":7");
        db.check("LPOS l c RANK 2 COUNT 0", "*2 :6 :7");
        db.check("LPOS l c RANK -1 COUNT 2", "*2 :7 :6");
        db.check("LPOS l c COUNT 0 MAXLEN 7", "*2 :2 :6");
        db.check("LPOS l c RANK -9223372036854775807", "$-1");
        db.check("LPOS none c COUNT 1", "*0");
        db.check("LPOS l c MAXLEN", "-ERR syntax error");
        db.check("LPOS l c COUNT x", "-ERR COUNT can't be negative");
        db.check(
            "LPOS l c RANK -9223372036854775808",
            "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        );
    }

    #[test]
    fn what_changes_nothing_counts_as_no_change() {
        let mut db = Keyspace::new();
        db.check("RPUSH l a b", ":2");
        for line in ["LREM l 0 z", "LTRIM l 0 -1", "LINSERT l BEFORE z x", "LSET l 5 x", "LPOP l 0"]
        {
            db.run(line);
            assert_eq!(db.effects.dirty, 0, "{line}");
        }
        db.check("LTRIM l 5 9", "+OK");
        assert_eq!(db.effects.dirty, 1);
        db.check("LLEN l", ":0");
    }
}

//! Taking elements from one list to another, and from the first of several lists that has any.
//! `list_blocking.rs` runs the same with waiting.

use data::{End, List};
use engine::{Mut, ValueRef};

use crate::call::{Call, Handler, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::list::pop_many;
use crate::row::flag::{DENYOOM, MOVABLE_KEYS, WRITE};
use crate::row::{Command, Group};

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::List, name, arity, handler)
}

/// Source and destination of a move.
pub(crate) const MOVE_KEYS: &[KeySpec] =
    &[KeySpec::at(1, k::RW | k::ACCESS | k::DELETE), KeySpec::at(2, k::RW | k::INSERT)];

pub const TABLE: &[Command<Handler>] = &[
    row("lmove", 5, lmove)
        .flags(WRITE | DENYOOM)
        .keys(MOVE_KEYS)
        .since("6.2.0")
        .summary("Moves an element from an end of a list to an end of another or the same list.")
        .syntax("source:key destination:key wherefrom:(LEFT | RIGHT) whereto:(LEFT | RIGHT)"),
    row("lmpop", -4, lmpop)
        .flags(WRITE | MOVABLE_KEYS)
        .keys(&[KeySpec::counted(1, k::RW | k::ACCESS | k::DELETE)])
        .since("7.0.0")
        .complexity(
            "O(N+M) where N is the number of keys and M is the number of elements answered.",
        )
        .summary("Removes elements from an end of the first list that has any and answers them.")
        .syntax("numkeys key [key ...] where:(LEFT | RIGHT) [COUNT count]"),
    row("rpoplpush", 3, rpoplpush)
        .flags(WRITE | DENYOOM)
        .keys(MOVE_KEYS)
        .since("1.2.0")
        .deprecated("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments")
        .summary("Moves the last element of a list to the head of another or the same list.")
        .syntax("source:key destination:key"),
];

/// LEFT or RIGHT.
pub(crate) fn end(arg: &[u8]) -> Result<End> {
    if is(arg, "LEFT") {
        Ok(End::Head)
    } else if is(arg, "RIGHT") {
        Ok(End::Tail)
    } else {
        Err(Error::SYNTAX)
    }
}

fn lmove(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (from, to) = (end(args[3])?, end(args[4])?);
    move_or_null(call, args[1], args[2], from, to)
}

fn rpoplpush(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    move_or_null(call, args[1], args[2], End::Tail, End::Head)
}

fn move_or_null(
    call: &mut Call<'_, '_>,
    source: &[u8],
    destination: &[u8],
    from: End,
    to: End,
) -> Result {
    if !move_element(call, source, destination, from, to)? {
        call.reply.null();
    }
    Ok(())
}

/// Whether there is something at the key that is no list.
pub(crate) fn holds_other_type(call: &Call<'_, '_>, key: &[u8]) -> bool {
    call.txn.peek(key).is_some_and(|entry| !matches!(entry.get(), ValueRef::List(_)))
}

/// Moves one element and answers it; false, with nothing answered, when there is no source.
pub(crate) fn move_element(
    call: &mut Call<'_, '_>,
    source: &[u8],
    destination: &[u8],
    from: End,
    to: End,
) -> Result<bool> {
    // Seen before the source is opened, answered after: a missing source comes first.
    let wrong_destination = source != destination && holds_other_type(call, destination);
    let before = call.txn.heard();
    let dirty = call.txn.dirty();
    let Some(mut list) = call.txn.write::<List>(source)? else { return Ok(false) };
    if wrong_destination {
        drop(list);
        call.txn.look(destination);
        return Err(Error::WRONG_TYPE);
    }
    let Some(value) = list.pop(from) else { return Ok(false) };
    let popped;
    if source == destination {
        popped = list.heard();
        list.push(to, &value);
        drop(list);
    } else {
        drop(list);
        popped = call.txn.heard();
        call.txn.write_or_create::<List>(destination)?.push(to, &value);
    }
    // Where it comes is told before where it goes.
    call.txn.tell_last_first(before, popped);
    call.txn.count_as(dirty, 1);
    call.reply.bulk(&value);
    Ok(true)
}

/// The arguments that LMPOP and BLMPOP share.
pub(crate) struct MultiPop<'a> {
    pub keys: &'a [&'a [u8]],
    pub end: End,
    pub count: usize,
}

impl<'a> MultiPop<'a> {
    /// Reads the arguments from `numkeys` on.
    pub fn parse(args: &'a [&'a [u8]]) -> Result<MultiPop<'a>> {
        let (numkeys, rest) = args.split_first().ok_or(Error::SYNTAX)?;
        let numkeys = positive(numkeys).ok_or(Error::NUMKEYS_POSITIVE)?;
        let (keys, rest) = rest.split_at_checked(numkeys).ok_or(Error::SYNTAX)?;
        let (side, options) = rest.split_first().ok_or(Error::SYNTAX)?;
        let end = end(side)?;
        let count = match options {
            [] => 1,
            [word, count, more @ ..] if is(word, "COUNT") => {
                let count =
                    positive(count).ok_or(Error::of("ERR count should be greater than 0"))?;
                if !more.is_empty() {
                    return Err(Error::SYNTAX);
                }
                count
            }
            _ => return Err(Error::SYNTAX),
        };
        Ok(MultiPop { keys, end, count })
    }

    /// Answers key and elements.
    pub fn reply(
        &self,
        call_reply: &mut resp::Reply<'_>,
        key: &[u8],
        list: &mut Mut<'_, '_, List>,
    ) {
        call_reply.array(2);
        call_reply.bulk(key);
        pop_many(list, self.end, self.count, call_reply);
    }
}

fn positive(arg: &[u8]) -> Option<usize> {
    data::number::parse_i64(arg).filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok())
}

fn lmpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let pop = MultiPop::parse(&args[1..])?;
    for key in pop.keys {
        if let Some(mut list) = call.txn.write::<List>(key)? {
            pop.reply(&mut call.reply, key, &mut list);
            return Ok(());
        }
    }
    call.reply.null_array();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;

    #[test]
    fn lmove_between_and_within_lists() {
        let mut db = Keyspace::new();
        db.check("RPUSH a 1 2 3", ":3");
        db.check("LMOVE a b LEFT RIGHT", "$1 1");
        db.check("RPOPLPUSH a b", "$1 3");
        db.check("LRANGE b 0 -1", "*2 $1 3 $1 1");
        db.check("LMOVE b b LEFT RIGHT", "$1 3");
        db.check("LRANGE b 0 -1", "*2 $1 1 $1 3");
        db.check("LMOVE a a LEFT RIGHT", "$1 2");
        db.check("SET s text", "+OK");
        db.check("LMOVE none s LEFT LEFT", "$-1");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        db.check("LMOVE a s LEFT LEFT", wrong);
        db.check("LMOVE s a LEFT LEFT", wrong);
        db.check("LMOVE a b LEFT UP", "-ERR syntax error");
        db.check("LRANGE a 0 -1", "*1 $1 2");
    }

    #[test]
    fn lmpop_takes_from_the_first_list() {
        let mut db = Keyspace::new();
        db.check("RPUSH b 1 2 3", ":3");
        db.check("LMPOP 2 a b RIGHT COUNT 2", "*2 $1 b *2 $1 3 $1 2");
        db.check("LMPOP 2 a b LEFT", "*2 $1 b *1 $1 1");
        db.check("LMPOP 2 a b LEFT", "*-1");
        db.check("LMPOP 0 a LEFT", "-ERR numkeys should be greater than 0");
        db.check("LMPOP x a LEFT", "-ERR numkeys should be greater than 0");
        db.check("LMPOP 2 a LEFT", "-ERR syntax error");
        db.check("LMPOP 9223372036854775807 a LEFT", "-ERR syntax error");
        db.check("LMPOP 1 a LEFT COUNT 0", "-ERR count should be greater than 0");
        db.check("LMPOP 1 a LEFT COUNT 1 COUNT 2", "-ERR syntax error");
        db.check("LMPOP 1 a LEFT COUNT", "-ERR syntax error");
    }
}

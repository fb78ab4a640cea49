//! List commands that wait for an element: BLPOP, BRPOP, BLMOVE, BRPOPLPUSH, BLMPOP.
//!
//! A handler looks at its keys in their order and takes what it finds, unless others wait for the
//! key already; else it waits. Tried again, it goes on waiting where a key holds something else.

use data::{End, List};
use engine::Mut;

use crate::call::{Blocking, Call, Handler, OnTimeout};
use crate::error::Result;
use crate::keys::{KeySpec, key_flag as k};
use crate::list_move::{MOVE_KEYS, MultiPop, end, holds_other_type, move_element};
use crate::row::flag::{BLOCKING, DENYOOM, MOVABLE_KEYS, WRITE};
use crate::row::{Command, Group};

const fn row(name: &'static str, arity: i16, handler: Handler) -> Command<Handler> {
    Command::new(Group::List, name, arity, handler)
}

/// All arguments but the timeout.
const POP_KEYS: &[KeySpec] = &[KeySpec::range(1, -2, 1, k::RW | k::ACCESS | k::DELETE)];
const DOUBLE_TIMEOUT: (&str, &str) = ("6.0.0", "The timeout may have a fraction.");

pub const TABLE: &[Command<Handler>] = &[
    row("blmove", 6, blmove)
        .flags(WRITE | DENYOOM | BLOCKING)
        .keys(MOVE_KEYS)
        .since("6.2.0")
        .summary("Moves an element from list to list as LMOVE does, waiting until there is one.")
        .syntax(
            "source:key destination:key wherefrom:(LEFT | RIGHT) whereto:(LEFT | RIGHT) timeout:double",
        ),
    row("blmpop", -5, blmpop)
        .flags(WRITE | BLOCKING | MOVABLE_KEYS)
        .keys(&[KeySpec::counted(2, k::RW | k::ACCESS | k::DELETE)])
        .since("7.0.0")
        .complexity(
            "O(N+M) where N is the number of keys and M is the number of elements answered.",
        )
        .summary("Removes elements from the first list that has any, waiting until one has.")
        .syntax("timeout:double numkeys key [key ...] where:(LEFT | RIGHT) [COUNT count]"),
    row("blpop", -3, blpop)
        .flags(WRITE | BLOCKING)
        .keys(POP_KEYS)
        .since("2.0.0")
        .complexity("O(N) where N is the number of keys.")
        .history(&[DOUBLE_TIMEOUT])
        .summary("Removes the first element of the first list that has any, waiting for one.")
        .syntax("key [key ...] timeout:double"),
    row("brpop", -3, brpop)
        .flags(WRITE | BLOCKING)
        .keys(POP_KEYS)
        .since("2.0.0")
        .complexity("O(N) where N is the number of keys.")
        .history(&[DOUBLE_TIMEOUT])
        .summary("Removes the last element of the first list that has any, waiting for one.")
        .syntax("key [key ...] timeout:double"),
    row("brpoplpush", 4, brpoplpush)
        .flags(WRITE | DENYOOM | BLOCKING)
        .keys(MOVE_KEYS)
        .since("2.2.0")
        .history(&[DOUBLE_TIMEOUT])
        .deprecated("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments")
        .summary("Moves the last element of a list to the head of another, waiting for one.")
        .syntax("source:key destination:key timeout:double"),
];

fn blpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop(call, args, End::Head)
}

fn brpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    pop(call, args, End::Tail)
}

fn pop(call: &mut Call<'_, '_>, args: &[&[u8]], end: End) -> Result {
    let keys = &args[1..args.len() - 1];
    let deadline_ms = call.deadline(args[args.len() - 1])?;
    first_or_wait(call, keys, deadline_ms, |key, list, reply| {
        reply.array(2);
        reply.bulk(key);
        list.pop_with(end, |value| reply.bulk(value));
    })
}

fn blmpop(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let pop = MultiPop::parse(&args[2..])?;
    let deadline_ms = call.deadline(args[1])?;
    first_or_wait(call, pop.keys, deadline_ms, |key, list, reply| {
        pop.reply(reply, key, list);
    })
}

/// Gives the first list among the keys to `take`, or waits for one.
fn first_or_wait(
    call: &mut Call<'_, '_>,
    keys: &[&[u8]],
    deadline_ms: Option<i64>,
    take: impl FnOnce(&[u8], &mut Mut<'_, '_, List>, &mut resp::Reply<'_>),
) -> Result {
    for key in keys {
        let others_first = call.must_queue(key);
        match call.txn.write::<List>(key) {
            Ok(Some(mut list)) if !others_first => {
                take(key, &mut list, &mut call.reply);
                return Ok(());
            }
            Err(error) if call.blocking != Blocking::Again => return Err(error.into()),
            _ => {}
        }
    }
    call.wait(keys, deadline_ms, OnTimeout::NullArray);
    Ok(())
}

fn blmove(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (from, to) = (end(args[3])?, end(args[4])?);
    let deadline_ms = call.deadline(args[5])?;
    move_or_wait(call, args[1], args[2], (from, to), deadline_ms)
}

fn brpoplpush(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let deadline_ms = call.deadline(args[3])?;
    move_or_wait(call, args[1], args[2], (End::Tail, End::Head), deadline_ms)
}

fn move_or_wait(
    call: &mut Call<'_, '_>,
    source: &[u8],
    destination: &[u8],
    (from, to): (End, End),
    deadline_ms: Option<i64>,
) -> Result {
    let takes = match call.blocking {
        Blocking::Never => true,
        Blocking::First => !call.must_queue(source) || holds_other_type(call, source),
        Blocking::Again => !holds_other_type(call, source),
    };
    if takes && move_element(call, source, destination, from, to)? {
        return Ok(());
    }
    if call.blocking == Blocking::Never {
        // At its timeout the same command answers a null array; so does Redis.
        call.reply.null();
    } else {
        call.wait(&[source], deadline_ms, OnTimeout::NullArray);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Keyspace;
    use crate::{Blocking, OnTimeout};

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn takes_what_is_there() {
        let mut db = Keyspace::new();
        db.blocking = Blocking::First;
        db.check("RPUSH b 1 2 3 4", ":4");
        db.check("BLPOP a b 0", "*2 $1 b $1 1");
        db.check("BRPOP a b 0", "*2 $1 b $1 4");
        db.check("BLMOVE b c LEFT LEFT 0", "$1 2");
        db.check("BLMPOP 0 2 a b LEFT COUNT 5", "*2 $1 b *1 $1 3");
        db.check("BRPOPLPUSH c c 0", "$1 2");
        assert_eq!(db.wait, None);
    }

    #[test]
    fn waits_for_its_keys_until_its_deadline() {
        let mut db = Keyspace::new();
        db.blocking = Blocking::First;
        db.check("BLPOP a b a 1.5", "");
        let wait = db.wait.take().expect("it waits");
        let names: Vec<&[u8]> = wait.keys.iter().map(|name| &*name.1).collect();
        assert_eq!(names, [b"a", b"b"]);
        assert_eq!(wait.deadline_ms, Some(db.now_ms + 1500));
        assert_eq!(wait.on_timeout, OnTimeout::NullArray);
        db.check("BLMOVE a b LEFT LEFT 0", "");
        let wait = db.wait.take().expect("it waits");
        assert_eq!((wait.keys.len(), wait.deadline_ms), (1, None));
    }

    #[test]
    fn never_waits_in_transactions() {
        let mut db = Keyspace::new();
        db.check("BLPOP a 0", "*-1");
        db.check("BLMPOP 0 1 a LEFT", "*-1");
        db.check("BLMOVE a b LEFT LEFT 0", "$-1");
        db.check("BRPOPLPUSH a b 0", "$-1");
    }

    #[test]
    fn another_type_is_an_error_first_and_waited_out_later() {
        let mut db = Keyspace::new();
        db.run("SET s text");
        db.blocking = Blocking::First;
        for line in ["BLPOP a s 0", "BLMOVE s a LEFT LEFT 0", "BLMPOP 0 1 s LEFT"] {
            db.check(line, WRONG_TYPE);
        }
        db.blocking = Blocking::Again;
        for line in ["BLPOP a s 0", "BLMOVE s a LEFT LEFT 0", "BLMPOP 0 1 s LEFT"] {
            db.check(line, "");
            assert!(db.wait.is_some(), "{line}");
        }
        db.run("RPUSH l v");
        db.check("BLPOP s l 0", "*2 $1 l $1 v");
        db.run("RPUSH l v");
        db.check("BLMOVE l s LEFT LEFT 0", WRONG_TYPE);
    }

    #[test]
    fn arguments_in_their_order() {
        let mut db = Keyspace::new();
        db.check("BLMOVE a b UP LEFT x", "-ERR syntax error");
        db.check("BLMOVE a b LEFT LEFT x", "-ERR timeout is not a float or out of range");
        db.check("BLPOP a -1", "-ERR timeout is negative");
        db.check("BLPOP a -inf", "-ERR timeout is negative");
        db.check("BLPOP a inf", "-ERR timeout is out of range");
        db.check("BLPOP a 1e400", "-ERR timeout is out of range");
        db.check("BLPOP a 9223372036854775.807", "-ERR timeout is out of range");
        db.check("BLPOP a nan", "-ERR timeout is not a float or out of range");
        db.check("BLPOP a -0.0001", "*-1");
        db.check("BLMPOP x 1 a LEFT", "-ERR timeout is not a float or out of range");
        db.check("BLMPOP x 1 a UP", "-ERR syntax error");
        db.check("BLMPOP 0 0 a LEFT", "-ERR numkeys should be greater than 0");
    }
}

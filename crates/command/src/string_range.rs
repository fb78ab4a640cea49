//! Strings as rows of bytes: APPEND, GETRANGE, SETRANGE, STRLEN.

use engine::{Event, Expiry, Str};

use crate::call::{Call, Handler, integer};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};
use crate::string::{Text, look_at_string};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::String, "append", 3, append)
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[KeySpec::first(k::RW | k::INSERT)])
        .since("2.0.0")
        .complexity("O(1) amortized, beside copying the value")
        .summary("Adds bytes at the end of the string stored at a key.")
        .syntax("key value"),
    Command::new(Group::String, "getrange", 4, getrange)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .since("2.4.0")
        .complexity("O(N) with N the length of the answer")
        .summary("Answers a part of the string stored at a key.")
        .syntax("key start end"),
    Command::new(Group::String, "setrange", 4, setrange)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::UPDATE)])
        .since("2.2.0")
        .complexity("O(M) with M the length of the value, beside growing the string")
        .summary("Overwrites a part of the string stored at a key, filling gaps with zero bytes.")
        .syntax("key offset value"),
    Command::new(Group::String, "strlen", 2, strlen)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO)])
        .since("2.2.0")
        .summary("Answers the length of the string stored at a key.")
        .syntax("key"),
    Command::new(Group::String, "substr", 4, substr)
        .flags(READONLY)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .deprecated("2.0.0", "`GETRANGE`")
        .complexity("O(N) with N the length of the answer")
        .summary("Answers a part of the string stored at a key.")
        .syntax("key start end"),
];

/// Refuses strings longer than a client may send at once.
fn check_length(call: &Call<'_, '_>, before: usize, more: usize) -> Result {
    match before.checked_add(more) {
        Some(total) if total <= call.bulk_bytes_max => Ok(()),
        _ => Err(Error::STRING_TOO_LONG),
    }
}

fn append(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, value) = (args[1], args[2]);
    let len = match look_at_string(call.txn, key)? {
        None => {
            call.txn.tell_as(Event::string("append"));
            // Not by an edit: a string made by one APPEND is encoded as one made by SET.
            call.txn.set_string(key, value, Expiry::Clear);
            value.len()
        }
        Some(stored) => {
            let before = Text::from(stored).len();
            check_length(call, before, value.len())?;
            call.txn.append(key, value)?
        }
    };
    call.reply.integer(len as i64);
    Ok(())
}

fn getrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (start, end) = (integer(args[2])?, integer(args[3])?);
    let text = Text::from(call.txn.read_string(args[1])?.unwrap_or(Str::Bytes(b"")));
    call.reply.bulk(part(&text, start, end));
    Ok(())
}

fn substr(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    getrange(call, args)
}

/// The bytes from `start` to `end`, both included, counted from the back when negative. As in
/// Redis an end before the first byte means the first byte, unless both count from the back.
fn part(text: &[u8], start: i64, end: i64) -> &[u8] {
    if text.is_empty() || (start < 0 && end < 0 && start > end) {
        return b"";
    }
    let len = text.len() as i64;
    let from_front = |at: i64| if at < 0 { (at + len).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    if start > end { b"" } else { &text[start as usize..=end as usize] }
}

fn setrange(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, value) = (args[1], args[3]);
    let offset = usize::try_from(integer(args[2])?).map_err(|_| Error::OFFSET_RANGE)?;
    let before = look_at_string(call.txn, key)?.map_or(0, |stored| Text::from(stored).len());
    if value.is_empty() {
        call.reply.integer(before as i64);
        return Ok(());
    }
    check_length(call, offset, value.len())?;
    let len = call.txn.overwrite(key, offset, value)?;
    call.reply.integer(len as i64);
    Ok(())
}

fn strlen(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let len = call.txn.read_string(args[1])?.map_or(0, |stored| Text::from(stored).len());
    call.reply.integer(len as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::part;
    use crate::testing::Keyspace;

    #[test]
    fn parts_of_a_text() {
        for (start, end, expected) in [
            (0, -1, "hello"),
            (0, 0, "h"),
            (1, 3, "ell"),
            (-3, -1, "llo"),
            (-100, 1, "he"),
            (3, 100, "lo"),
            (5, 6, ""),
            (3, 1, ""),
            (-1, -3, ""),
            (0, -100, "h"),
            (-100, -90, "h"),
            (i64::MIN, i64::MAX, "hello"),
            (i64::MAX, i64::MIN, ""),
        ] {
            assert_eq!(part(b"hello", start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
    }

    #[test]
    fn append_and_setrange() {
        let mut keys = Keyspace::new();
        keys.check("APPEND k 12", ":2");
        keys.check("APPEND k ab", ":4");
        keys.check("SETRANGE k 6 z", ":7");
        assert_eq!(keys.run_args(&[b"GET", b"k"]), b"$7\r\n12ab\0\0z\r\n");
        keys.check("STRLEN k", ":7");
        keys.check("SETRANGE k 0 \"\"", ":7");
        keys.check("SETRANGE none 5 \"\"", ":0");
        keys.check("EXISTS none", ":0");
        keys.check("SETRANGE k -1 x", "-ERR offset is out of range");
        let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        for offset in [512 << 20, i64::MAX] {
            keys.check(&format!("SETRANGE k {offset} x"), too_long);
        }
        keys.check("SET n 12345", "+OK");
        keys.check("GETRANGE n 1 -2", "$3 234");
    }
}

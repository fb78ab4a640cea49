//! Strings: GET, SET and their kin.

use engine::{Expiry, Str};

use crate::call::{Call, Handler, integer, is};
use crate::error::{Error, Result};
use crate::keys::{KeySpec, key_flag as k};
use crate::row::flag::{DENYOOM, FAST, READONLY, WRITE};
use crate::row::{Command, Group};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::String, "get", 2, get)
        .flags(READONLY | FAST)
        .keys(&[KeySpec::first(k::RO | k::ACCESS)])
        .summary("Answers the string stored at a key.")
        .syntax("key"),
    Command::new(Group::String, "set", -3, set)
        .flags(WRITE | DENYOOM)
        .keys(&[KeySpec::first(k::RW | k::ACCESS | k::UPDATE | k::VARIABLE_FLAGS).notes(
            "RW and ACCESS due to the optional `GET` argument",
        )])
        .summary("Stores a string at a key, whatever it held before.")
        .syntax("key value [condition:(NX | XX)] [GET] [expiration:(EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL)]"),
];

/// Writes a string value as a bulk reply.
pub(crate) fn reply_str(call: &mut Call<'_, '_>, value: Option<Str<'_>>) {
    match value {
        None => call.reply.null(),
        Some(Str::Int(n)) => call.reply.bulk_integer(n),
        Some(Str::Bytes(bytes)) => call.reply.bulk(bytes),
    }
}

fn get(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    match call.txn.read_string(args[1])? {
        None => call.reply.null(),
        Some(Str::Int(n)) => call.reply.bulk_integer(n),
        Some(Str::Bytes(bytes)) => call.reply.bulk(bytes),
    }
    Ok(())
}

/// The time of EX, PX, EXAT or PXAT as Unix ms.
pub(crate) fn expire_at_ms(
    call: &Call<'_, '_>,
    name: &str,
    amount: &[u8],
    in_seconds: bool,
    absolute: bool,
) -> Result<i64> {
    let amount = integer(amount)?;
    let invalid = || Error::invalid_expire(name);
    if amount <= 0 {
        return Err(invalid());
    }
    let ms = if in_seconds { amount.checked_mul(1000).ok_or_else(invalid)? } else { amount };
    if absolute { Ok(ms) } else { ms.checked_add(call.now_ms()).ok_or_else(invalid) }
}

fn set(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let (key, value) = (args[1], args[2]);
    if args.len() == 3 {
        call.txn.set_string(key, value, Expiry::Clear);
        call.reply.ok();
        return Ok(());
    }
    let (mut only_new, mut only_old, mut get_old) = (false, false, false);
    let mut expiry: Option<Expiry> = None;
    let mut at = 3;
    while at < args.len() {
        let option = args[at];
        let timed = [
            ("EX", true, false),
            ("PX", false, false),
            ("EXAT", true, true),
            ("PXAT", false, true),
        ]
        .into_iter()
        .find(|(word, _, _)| is(option, word));
        if is(option, "NX") && !only_old {
            only_new = true;
        } else if is(option, "XX") && !only_new {
            only_old = true;
        } else if is(option, "GET") {
            get_old = true;
        } else if is(option, "KEEPTTL") && expiry.is_none() {
            expiry = Some(Expiry::Keep);
        } else if let Some((_, in_seconds, absolute)) = timed
            && expiry.is_none()
            && at + 1 < args.len()
        {
            at += 1;
            expiry = Some(Expiry::At(expire_at_ms(call, "set", args[at], in_seconds, absolute)?));
        } else {
            return Err(Error::SYNTAX);
        }
        at += 1;
    }
    let exists = if get_old {
        let old = call.txn.read_string(key)?;
        match old {
            None => call.reply.null(),
            Some(Str::Int(n)) => call.reply.bulk_integer(n),
            Some(Str::Bytes(bytes)) => call.reply.bulk(bytes),
        }
        old.is_some()
    } else {
        (only_new || only_old) && call.txn.exists(key)
    };
    if (only_new && exists) || (only_old && !exists) {
        if !get_old {
            call.reply.null();
        }
        return Ok(());
    }
    call.txn.set_string(key, value, expiry.unwrap_or(Expiry::Clear));
    if !get_old {
        call.reply.ok();
    }
    Ok(())
}

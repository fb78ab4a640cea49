//! A base file of commands (`aof-use-rdb-preamble no`): what a snapshot says as an RDB file, said in
//! commands.
//!
//! The RDB file goes through a pipe to a thread that reads it and writes commands. So no lock is held
//! for longer, and there is one way to take a snapshot; of what is in memory more than once, there is
//! one value. How a key was used is not said, as with Redis. A stream is said by RESTORE: no other
//! commands say all that its groups know.

use std::io::{self, ErrorKind, Read, Write};
use std::thread;

use data::number::{format_f64, format_i64};
use engine::{Collection, Value, ValueRef};
use persist::aof;
use persist::rdb::{self, Item, Key, Reader, Version};

use super::save::{self, Snapshot};
use crate::config::Config;
use crate::server::unix_ms;

/// Elements of one command, as with Redis.
const ELEMENTS_MAX: usize = 64;
/// Bytes written at once.
const WRITE_BYTES: usize = 64 << 10;

/// Writes a snapshot as commands.
pub fn write<W: Write + Send>(snapshot: Snapshot<'_>, config: &Config, to: W) -> io::Result<()> {
    let (from, into) = io::pipe()?;
    let (written, said) = thread::scope(|scope| {
        let saying = thread::Builder::new().name("aof-base".into()).spawn_scoped(scope, || {
            crate::memory::register_thread();
            say(from, config, to)
        })?;
        let written = snapshot.write_to(into);
        let said = saying.join().map_err(|_| io::Error::other("a thread panicked"))?;
        Ok::<_, io::Error>((written, said))
    })?;
    match written {
        // The other side has given up, and knows why.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => said.and(Err(error)),
        Err(error) => Err(error),
        Ok(()) => said,
    }
}

/// Appends what time it is, if files are to say that.
pub fn put_time(config: &Config, out: &mut Vec<u8>) {
    aof::Writer::new(config.aof_timestamp_enabled).time(unix_ms() / 1000, out);
}

/// Says in commands what an RDB file has.
fn say(from: impl Read, config: &Config, mut to: impl Write) -> io::Result<()> {
    let damaged = |error: rdb::Error| io::Error::other(error.to_string());
    let version = save::version(config);
    let mut reader = Reader::new(from, &crate::settings::of(config).limits).map_err(damaged)?;
    let mut out = Vec::new();
    put_time(config, &mut out);
    while let Some(item) = reader.item().map_err(damaged)? {
        match item {
            Item::Select(db) => {
                resp::write_request(&mut out, &[&b"SELECT"[..], format_i64(db.into()).as_bytes()]);
            }
            Item::Key(key) => say_key(&key, version, &mut out, &mut to)?,
            Item::Aux { .. } | Item::Resize { .. } => {}
            Item::Function(code) => {
                resp::write_request(&mut out, &[&b"FUNCTION"[..], b"LOAD", &code]);
            }
            // It is our own file.
            Item::Empty(_) | Item::Skipped(_) => unreachable!("nobody writes these"),
        }
        write_full(&mut out, &mut to)?;
    }
    to.write_all(&out)?;
    to.flush()
}

fn write_full(out: &mut Vec<u8>, to: &mut impl Write) -> io::Result<()> {
    if out.len() >= WRITE_BYTES {
        to.write_all(out)?;
        out.clear();
        out.shrink_to(4 * WRITE_BYTES);
    }
    Ok(())
}

fn say_key(key: &Key, version: Version, out: &mut Vec<u8>, to: &mut impl Write) -> io::Result<()> {
    let name = &key.key[..];
    match &key.value {
        Value::Int(value) => {
            resp::write_request(out, &[b"SET", name, format_i64(*value).as_bytes()]);
        }
        Value::Bytes(value) => resp::write_request(out, &[b"SET", name, value]),
        Value::Collection(Collection::List(list)) => {
            let values = list.iter();
            say_elements("RPUSH", name, 1, values, |value, args| args.bulk(value), out, to)?;
        }
        Value::Collection(Collection::Set(set)) => {
            let members = set.iter();
            say_elements("SADD", name, 1, members, |member, args| args.bulk(&member), out, to)?;
        }
        Value::Collection(Collection::Hash(hash)) => {
            let fields = hash.iter();
            let say = |(field, value): (&[u8], &[u8]), args: &mut resp::Reply<'_>| {
                args.bulk(field);
                args.bulk(value);
            };
            say_elements("HMSET", name, 2, fields, say, out, to)?;
            for (field, _) in hash.iter().filter(|_| hash.has_times()) {
                if let Some(at_ms) = hash.time_ms(field) {
                    let when = format_i64(at_ms);
                    let words: [&[u8]; 6] =
                        [b"HPEXPIREAT", name, when.as_bytes(), b"FIELDS", b"1", field];
                    resp::write_request(out, &words);
                    write_full(out, to)?;
                }
            }
        }
        Value::Collection(Collection::Zset(zset)) => {
            let members = zset.iter();
            let say = |(member, score): (&[u8], f64), args: &mut resp::Reply<'_>| {
                args.bulk(format_f64(score).as_bytes());
                args.bulk(member);
            };
            say_elements("ZADD", name, 2, members, say, out, to)?;
        }
        Value::Collection(Collection::Json(json)) => {
            let mut text = Vec::new();
            json.root().write(&mut text);
            resp::write_request(out, &[b"JSON.SET", name, b"$", &text]);
        }
        Value::Collection(Collection::Stream(stream)) => {
            let payload = rdb::dump(ValueRef::Stream(stream), version);
            resp::write_request(out, &[b"RESTORE", name, b"0", &payload]);
        }
    }
    if let Some(when) = key.expire_at_ms {
        resp::write_request(out, &[b"PEXPIREAT", name, format_i64(when).as_bytes()]);
    }
    Ok(())
}

/// `arguments`: how many each element takes.
fn say_elements<T>(
    command: &str,
    name: &[u8],
    arguments: usize,
    mut elements: impl ExactSizeIterator<Item = T>,
    mut say: impl FnMut(T, &mut resp::Reply<'_>),
    out: &mut Vec<u8>,
    to: &mut impl Write,
) -> io::Result<()> {
    while elements.len() > 0 {
        let count = elements.len().min(ELEMENTS_MAX);
        let mut args = resp::Reply::new(out, resp::Protocol::Resp2);
        args.array(2 + arguments * count);
        args.bulk(command.as_bytes());
        args.bulk(name);
        elements.by_ref().take(count).for_each(|element| say(element, &mut args));
        write_full(out, to)?;
    }
    Ok(())
}

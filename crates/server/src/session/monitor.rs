//! MONITOR: every command that runs, as it runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use command::row::flag::{ADMIN, LOADING, NOSCRIPT, SKIP_MONITOR, STALE};
use command::{Command, Error, Group, Result};

use crate::client::Client;
use crate::mailbox::Mail;
use crate::request::{Origin, Request, SessionHandler, row};
use crate::session::acl;
use crate::table::Registered;
use crate::worker::WorkerLoop;

pub const TABLE: &[Command<SessionHandler>] = &[row(Group::Server, "monitor", 1, monitor)
    .flags(ADMIN | NOSCRIPT | LOADING | STALE)
    .summary("Shows every command the server runs from now on.")];

fn monitor(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    if request.origin != Origin::Network {
        return Err(Error::of("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if !request.client.is_monitor {
        request.client.is_monitor = true;
        request.client.info.is_monitor.store(true, Ordering::Relaxed);
        request.lp.server.monitors.write().push(request.client.info.clone());
        request.lp.server.monitor_count.fetch_add(1, Ordering::Relaxed);
    }
    request.reply.ok();
    Ok(())
}

/// Ends it: RESET, or the client is gone.
pub fn stop(lp: &WorkerLoop, client: &mut Client) {
    if std::mem::take(&mut client.is_monitor) {
        client.info.is_monitor.store(false, Ordering::Relaxed);
        lp.server.monitors.write().retain(|info| info.id != client.info.id);
        lp.server.monitor_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lines held back at most. A script that makes more calls may be shown twice.
const HELD_LINES_MAX: usize = 4096;

/// Shows a command to all monitors. `source` is an address, or `lua` for calls of scripts.
pub fn feed(lp: &WorkerLoop, source: &str, db: u32, command: &Registered, args: &[&[u8]]) {
    if command.row.has(SKIP_MONITOR) || command.row.has(ADMIN) {
        return;
    }
    show(lp, source, db, &acl::without_passwords(command, args));
}

/// Shows these words to all monitors.
pub fn show(lp: &WorkerLoop, source: &str, db: u32, args: &[&[u8]]) {
    // The time now, not that of the transaction: a script's calls are told apart by it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = format!("+{}.{:06} [{db} {source}]", now.as_secs(), now.subsec_micros());
    for arg in args {
        line.push(' ');
        quote(&mut line, arg);
    }
    line.push_str("\r\n");
    let line: Arc<[u8]> = line.into_bytes().into();
    let mut held = lp.held_lines.borrow_mut();
    match held.as_mut().filter(|held| held.len() < HELD_LINES_MAX) {
        Some(held) => held.push(line),
        None => {
            held.take().into_iter().flatten().for_each(|line| send(lp, &line));
            send(lp, &line);
        }
    }
}

/// Holds back what is shown from here on, for it may turn out that it did not happen.
pub fn hold(lp: &WorkerLoop) {
    if lp.server.monitor_count.load(Ordering::Relaxed) > 0 {
        *lp.held_lines.borrow_mut() = Some(Vec::new());
    }
}

/// Shows what was held back, or forgets it.
pub fn release(lp: &WorkerLoop, has_happened: bool) {
    if let Some(lines) = lp.held_lines.take()
        && has_happened
    {
        lines.iter().for_each(|line| send(lp, line));
    }
}

fn send(lp: &WorkerLoop, line: &Arc<[u8]>) {
    for info in lp.server.monitors.read().iter() {
        lp.server.send(info, |to| Mail::Push(to, line.clone()));
    }
}

/// An argument in quotes, with what is not printable escaped.
fn quote(line: &mut String, arg: &[u8]) {
    line.push('"');
    for &byte in arg {
        match byte {
            b'\\' | b'"' => {
                line.push('\\');
                line.push(char::from(byte));
            }
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x07 => line.push_str("\\a"),
            0x08 => line.push_str("\\b"),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => line.push_str(&format!("\\x{byte:02x}")),
        }
    }
    line.push('"');
}

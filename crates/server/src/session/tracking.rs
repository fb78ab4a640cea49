//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use command::call::{integer, is};
use command::{Error, Result, Row, flag};
use engine::Txn;

use crate::client::Client;
use crate::request::Request;
use crate::tracking::{Mode, Tracker};
use crate::worker::{Shift, WorkerLoop};

pub fn tracking(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let wanted = Wanted::parse(request, &args[3..])?;
    if is(args[2], "ON") {
        wanted.check(request.client.tracker.as_deref())?;
        let mut tracker = Tracker {
            mode: wanted.mode(),
            skips_own: wanted.skips_own,
            redirect: wanted.redirect,
            is_broken: AtomicBool::new(false),
            prefixes: wanted.prefixes.iter().map(|prefix| Box::from(*prefix)).collect(),
        };
        if wanted.is_broadcast {
            let before =
                request.client.tracker.as_ref().map_or(&[][..], |tracker| &tracker.prefixes);
            if tracker.prefixes.is_empty() {
                tracker.prefixes.push(Box::default());
            }
            let more = before.iter().filter(|prefix| !tracker.prefixes.contains(prefix)).cloned();
            let more: Vec<_> = more.collect();
            tracker.prefixes.extend(more);
        }
        let (server, tracker) = (&request.lp.server, Arc::new(tracker));
        request.client.tracker = Some(tracker.clone());
        server.tracking.enable(&server.engine, &request.client.info, tracker);
    } else if is(args[2], "OFF") {
        stop(request.lp, request.client);
    } else {
        return Err(Error::SYNTAX);
    }
    request.reply.ok();
    Ok(())
}

/// The options of CLIENT TRACKING.
#[derive(Default)]
struct Wanted<'a> {
    redirect: Option<Arc<crate::client::ClientInfo>>,
    prefixes: Vec<&'a [u8]>,
    is_broadcast: bool,
    opts_in: bool,
    opts_out: bool,
    skips_own: bool,
}

impl<'a> Wanted<'a> {
    fn parse(request: &Request<'_, '_>, options: &[&'a [u8]]) -> Result<Wanted<'a>> {
        let mut wanted = Wanted::default();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            if is(option, "BCAST") {
                wanted.is_broadcast = true;
            } else if is(option, "OPTIN") {
                wanted.opts_in = true;
            } else if is(option, "OPTOUT") {
                wanted.opts_out = true;
            } else if is(option, "NOLOOP") {
                wanted.skips_own = true;
            } else if is(option, "PREFIX")
                && let Some(prefix) = options.next()
            {
                wanted.prefixes.push(prefix);
            } else if is(option, "REDIRECT")
                && let Some(id) = options.next()
            {
                if wanted.redirect.is_some() {
                    return Err(Error::of(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                let id = integer(id)?;
                let clients = request.lp.server.clients.lock();
                let found = u64::try_from(id).ok().and_then(|id| clients.get(&id).cloned());
                let found = found.filter(|info| !info.is_closing.load(Acquire));
                let gone = Error::of("ERR The client ID you want redirect to does not exist");
                wanted.redirect = Some(found.ok_or(gone)?);
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(wanted)
    }

    fn mode(&self) -> Mode {
        match (self.is_broadcast, self.opts_in, self.opts_out) {
            (true, ..) => Mode::Broadcast,
            (_, true, _) => Mode::OptIn,
            (_, _, true) => Mode::OptOut,
            _ => Mode::Reads,
        }
    }

    /// Whether the options fit together and to what the client has now.
    fn check(&self, now: Option<&Tracker>) -> Result {
        if !self.is_broadcast && !self.prefixes.is_empty() {
            return Err(Error::of("ERR PREFIX option requires BCAST mode to be enabled"));
        }
        if now.is_some_and(|now| (now.mode == Mode::Broadcast) != self.is_broadcast) {
            return Err(Error::of(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, \
                 and then re-enabling it with a different mode.",
            ));
        }
        if self.is_broadcast && (self.opts_in || self.opts_out) {
            return Err(Error::of("ERR OPTIN and OPTOUT are not compatible with BCAST"));
        }
        if self.opts_in && self.opts_out {
            return Err(Error::of("ERR You can't specify both OPTIN mode and OPTOUT mode"));
        }
        let mode = now.map(|now| now.mode);
        if (self.opts_in && mode == Some(Mode::OptOut))
            || (self.opts_out && mode == Some(Mode::OptIn))
        {
            return Err(Error::of(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, \
                 and then re-enabling it with a different mode.",
            ));
        }
        self.check_prefixes(now)
    }

    fn check_prefixes(&self, now: Option<&Tracker>) -> Result {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let refusal = |new: &[u8], which: &str, other: &[u8]| {
            Err(Error::new(format!(
                "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client \
                 must not overlap.",
                String::from_utf8_lossy(new),
                String::from_utf8_lossy(other)
            )))
        };
        for (at, new) in self.prefixes.iter().enumerate() {
            let before = now.map_or(&[][..], |now| &now.prefixes);
            if let Some(old) = before.iter().find(|old| overlap(new, old)) {
                return refusal(new, "an existing", old);
            }
            if let Some(other) = self.prefixes[at + 1..].iter().find(|other| overlap(new, other)) {
                return refusal(new, "another provided", other);
            }
        }
        Ok(())
    }
}

/// Ends tracking: OFF, RESET, or the client is gone.
pub fn stop(lp: &WorkerLoop, client: &mut Client) {
    client.caching = false;
    if client.tracker.take().is_some() {
        lp.server.tracking.disable(&lp.server.engine, &client.info);
    }
}

/// Whether the keys that a command reads for a client are noted.
pub fn follows(client: &Client, row: &Row) -> bool {
    let Some(tracker) = &client.tracker else { return false };
    let is_noted = match tracker.mode {
        Mode::Reads => true,
        Mode::OptIn => client.caching,
        Mode::OptOut => !client.caching,
        Mode::Broadcast => false,
    };
    is_noted && row.has(flag::READONLY) && !row.has(flag::SCRIPT) && !row.has(flag::PUBSUB)
}

/// Notes the keys of a command that has read them; their locks are still held.
pub fn note_reads(
    lp: &WorkerLoop,
    shift: &Shift,
    txn: &mut Txn<'_>,
    client: u64,
    row: &Row,
    args: &[&[u8]],
) {
    // Arguments that do not tell their keys were refused.
    for at in row.key_positions(args).unwrap_or_default() {
        if lp.server.tracking.remember(client, args[at]) {
            txn.note_read(args[at]);
        }
    }
    lp.server.tracking.limit(shift.config.tracking_table_max_keys);
}

pub fn caching(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let Some(tracker) = &request.client.tracker else {
        return Err(Error::of(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        ));
    };
    match (args[2], tracker.mode) {
        (word, Mode::OptIn) if is(word, "YES") => {}
        (word, Mode::OptOut) if is(word, "NO") => {}
        (word, _) if is(word, "YES") => {
            return Err(Error::of(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        (word, _) if is(word, "NO") => {
            return Err(Error::of(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        _ => return Err(Error::SYNTAX),
    }
    request.client.caching = true;
    request.reply.ok();
    Ok(())
}

pub fn getredir(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let redirect = request.client.tracker.as_ref().map(|tracker| tracker.redirect_id() as i64);
    request.reply.integer(redirect.unwrap_or(-1));
    Ok(())
}

pub fn trackinginfo(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let tracker = request.client.tracker.as_deref();
    let mut flags = vec![if tracker.is_some() { "on" } else { "off" }];
    if let Some(tracker) = tracker {
        let caching = request.client.caching;
        match tracker.mode {
            Mode::Reads => {}
            Mode::Broadcast => flags.push("bcast"),
            Mode::OptIn => {
                flags.push("optin");
                flags.extend(caching.then_some("caching-yes"));
            }
            Mode::OptOut => {
                flags.push("optout");
                flags.extend(caching.then_some("caching-no"));
            }
        }
        flags.extend(tracker.skips_own.then_some("noloop"));
        flags.extend(tracker.is_broken.load(Relaxed).then_some("broken_redirect"));
    }
    let reply = &mut request.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(tracker.map_or(-1, |tracker| tracker.redirect_id() as i64));
    reply.bulk(b"prefixes");
    let mut prefixes: Vec<_> = tracker.map_or(&[][..], |tracker| &tracker.prefixes).to_vec();
    prefixes.sort_unstable();
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}

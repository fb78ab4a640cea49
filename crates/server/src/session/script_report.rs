//! What the server knows of its scripts: SCRIPT LIST, SCRIPT SHOW, SCRIPT STATS and INFO scripts.

use std::fmt::Write;
use std::sync::Arc;

use command::call::is;
use command::{Error, Result};
use lua::Flags;
use resp::Reply;

use crate::request::Request;
use crate::script::{Known, Totals};
use crate::server::Server;
use crate::table::table;

/// Scripts that SCRIPT LIST tells at once unless COUNT says otherwise.
const LIST_COUNT: i64 = 100;
/// Scripts that SCRIPT STATS without one tells of.
const STATS_SCRIPTS_MAX: usize = 100;
/// Scripts that INFO tells of.
const INFO_SCRIPTS_MAX: usize = 20;

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Writes the fields of a map whose length was written before.
struct Fields<'f, 'r> {
    reply: &'f mut Reply<'r>,
}

impl Fields<'_, '_> {
    fn integer(&mut self, name: &str, value: u64) {
        self.reply.bulk(name.as_bytes());
        self.reply.integer(value as i64);
    }

    fn us(&mut self, name: &str, ns: u64) {
        self.reply.bulk(name.as_bytes());
        self.reply.double(us(ns));
    }

    fn text(&mut self, name: &str, value: &[u8]) {
        self.reply.bulk(name.as_bytes());
        self.reply.bulk(value);
    }

    fn text_or_null(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value.as_bytes()),
            None => {
                self.reply.bulk(name.as_bytes());
                self.reply.null();
            }
        }
    }
}

/// How a script came, which says whether it may be evicted.
fn origin(known: &Known) -> &'static [u8] {
    if known.stays() { b"load" } else { b"eval" }
}

fn find(request: &Request<'_, '_>, what: &[u8]) -> Result<Arc<Known>> {
    request.server().scripts.cache.look_up(what).ok_or(Error::NO_SCRIPT)
}

/// SCRIPT LIST [cursor] [COUNT count]: in the order the scripts came in. The cursor is the number
/// of the last script that was told.
pub fn list(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let (cursor, count) = match &args[2..] {
        [] => (0, LIST_COUNT),
        [cursor] => (cursor_of(cursor)?, LIST_COUNT),
        [token, count] if is(token, "COUNT") => (0, command::call::integer(count)?),
        [cursor, token, count] if is(token, "COUNT") => {
            (cursor_of(cursor)?, command::call::integer(count)?)
        }
        _ => return Err(Error::SYNTAX),
    };
    if count < 1 {
        return Err(Error::SYNTAX);
    }
    let all = request.server().scripts.cache.list();
    let rest = &all[all.partition_point(|known| known.number <= cursor)..];
    let told = &rest[..rest.len().min(count as usize)];
    let next = match told.last() {
        Some(last) if told.len() < rest.len() => last.number,
        _ => 0,
    };
    request.reply.array(2);
    request.reply.bulk(next.to_string().as_bytes());
    request.reply.array(told.len());
    for known in told {
        let totals = known.stats.totals();
        request.reply.map(8);
        let mut fields = Fields { reply: &mut request.reply };
        fields.text_or_null("name", known.script.name());
        fields.text("sha1", known.script.sha_hex().as_bytes());
        fields.text("origin", origin(known));
        fields.integer("bytes", known.bytes());
        fields.integer("calls", totals.calls);
        fields.integer("last-used-ms", totals.last_used_ms);
        let flags = known.script.flags();
        tell_flags(fields.reply, flags);
        match flags.deadline_ms {
            Some(ms) => fields.integer("deadline-ms", ms),
            None => fields.text_or_null("deadline-ms", None),
        }
    }
    Ok(())
}

fn cursor_of(text: &[u8]) -> Result<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Error::of("ERR invalid cursor"))
}

/// SCRIPT SHOW sha1|name: the source, as Valkey answers it.
pub fn show(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let known = find(request, args[2])?;
    request.reply.bulk(known.script.source());
    Ok(())
}

/// What the first line of a script declares.
fn tell_flags(reply: &mut Reply<'_>, declared: Flags) {
    let names = declared.names();
    reply.bulk(b"flags");
    reply.set(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
}

/// A script, or a function by its name.
fn find_any(request: &Request<'_, '_>, what: &[u8]) -> Result<Arc<Known>> {
    let function = || request.server().scripts.functions.find(what).ok_or(Error::NO_SCRIPT);
    find(request, what).or_else(|_| function())
}

/// SCRIPT STATS [sha1|name] [RESET].
pub fn stats(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    match &args[2..] {
        [] => tell_all(request),
        [reset] if is(reset, "RESET") => {
            request.server().scripts.reset_stats();
            request.reply.ok();
        }
        [what] => {
            let known = find_any(request, what)?;
            tell_script(&mut request.reply, &known, &known.stats.totals());
        }
        [what, reset] if is(reset, "RESET") => {
            find_any(request, what)?.stats.reset();
            request.reply.ok();
        }
        _ => return Err(Error::SYNTAX),
    }
    Ok(())
}

/// Fields that one script and all scripts have.
const SHARED_FIELDS: usize = 15;

fn tell_totals(fields: &mut Fields<'_, '_>, totals: &Totals) {
    fields.integer("calls", totals.calls);
    fields.integer("errors", totals.errors);
    fields.integer("rollbacks", totals.rollbacks);
    fields.integer("kills", totals.kills);
    fields.integer("deadlines", totals.deadlines);
    fields.integer("restarts", totals.restarts);
    fields.integer("parallel-runs", totals.calls.saturating_sub(totals.exclusive));
    fields.integer("exclusive-runs", totals.exclusive);
    fields.us("usec", totals.ns);
    fields.us("usec-in-lua", totals.ns - totals.command_ns().min(totals.ns));
    fields.us("usec-in-commands", totals.command_ns());
    fields.integer("commands", totals.commands);
    fields.integer("bytes-in", totals.bytes_in);
    fields.integer("bytes-out", totals.bytes_out);
    fields.integer("traces", totals.traces);
}

fn tell_script(reply: &mut Reply<'_>, known: &Known, totals: &Totals) {
    let times = known.stats.times();
    reply.map(SHARED_FIELDS + 11);
    let mut fields = Fields { reply };
    fields.text_or_null("name", known.script.name());
    // A function has none.
    let sha = known.script.library().is_none().then(|| known.script.sha_hex());
    fields.text_or_null("sha1", sha);
    tell_totals(&mut fields, totals);
    for (name, percent) in [("p50-usec", 50.0), ("p99-usec", 99.0), ("p99.9-usec", 99.9)] {
        fields.us(name, times.percentile_ns(percent, totals.max_ns));
    }
    fields.us("max-usec", totals.max_ns);
    fields.integer("sampled-runs", totals.sampled);
    fields.integer("most-keys", totals.keys);
    let slowest = totals.slowest();
    let name = slowest.and_then(|(_, command)| table().all.get(command)).map(|row| row.full_name);
    fields.text_or_null("slowest-command", name);
    fields.us("slowest-command-usec", slowest.map_or(0, |(ns, _)| ns));
    fields.integer("last-used-ms", totals.last_used_ms);
}

/// Each script that has run, with its totals, the one that took most time first; and the totals
/// of all, those included that are gone.
fn by_time(server: &Server) -> (Vec<(Arc<Known>, Totals)>, Totals) {
    let mut all = server.scripts.cache.totals_of_gone();
    let mut scripts: Vec<(Arc<Known>, Totals)> = Vec::new();
    for known in server.scripts.cache.list().into_iter().chain(server.scripts.functions.list()) {
        let totals = known.stats.totals();
        if totals.calls + totals.restarts > 0 {
            all.add(&totals);
            scripts.push((known, totals));
        }
    }
    scripts.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.ns));
    (scripts, all)
}

fn tell_all(request: &mut Request<'_, '_>) {
    let server = request.server();
    let (scripts, all) = by_time(server);
    let cache = &server.scripts.cache;
    request.reply.map(SHARED_FIELDS + 5);
    let mut fields = Fields { reply: &mut request.reply };
    tell_totals(&mut fields, &all);
    fields.integer("cached-scripts", cache.len() as u64);
    fields.integer("cached-bytes", cache.used_bytes());
    fields.integer("evicted-scripts", cache.evicted_scripts());
    fields.reply.bulk(b"vm-bytes");
    let workers = server.scripts.vm_bytes_of_workers();
    fields.reply.array(workers.len());
    workers.iter().for_each(|bytes| fields.reply.integer(*bytes as i64));
    fields.reply.bulk(b"scripts");
    let told = &scripts[..scripts.len().min(STATS_SCRIPTS_MAX)];
    fields.reply.array(told.len());
    told.iter().for_each(|(known, totals)| tell_script(fields.reply, known, totals));
}

/// The lines of INFO scripts about all scripts, and about those that take most of the time.
pub fn write_info(out: &mut String, server: &Server) {
    let (scripts, all) = by_time(server);
    let cache = &server.scripts.cache;
    let lines = [
        ("script_calls", all.calls),
        ("script_errors", all.errors),
        ("script_rollbacks", all.rollbacks),
        ("script_kills", all.kills),
        ("script_deadlines", all.deadlines),
        ("script_usec", all.ns / 1000),
        ("script_usec_in_commands", all.command_ns() / 1000),
        ("script_commands", all.commands),
        ("script_cache_entries", cache.len() as u64),
        ("script_cache_bytes", cache.used_bytes()),
        ("script_cache_evictions", cache.evicted_scripts()),
        ("script_vm_bytes", server.scripts.vm_bytes()),
    ];
    for (name, value) in lines {
        let _ = write!(out, "{name}:{value}\r\n");
    }
    let told = &scripts[..scripts.len().min(INFO_SCRIPTS_MAX)];
    for (known, totals) in told {
        let times = known.stats.times();
        let percentile = |percent| us(times.percentile_ns(percent, totals.max_ns));
        let _ = write!(
            out,
            "scriptstat_{}:calls={},usec={},usec_per_call={:.2},p50_usec={:.2},p99_usec={:.2},\
             max_usec={:.2},errors={},rollbacks={},restarts={}\r\n",
            label(known, told),
            totals.calls,
            totals.ns / 1000,
            us(totals.ns) / totals.calls.max(1) as f64,
            percentile(50.0),
            percentile(99.0),
            us(totals.max_ns),
            totals.errors,
            totals.rollbacks,
            totals.restarts,
        );
    }
}

/// What a script is called in INFO: its name, with a piece of its sha if others have that name
/// too, or its sha.
fn label(known: &Known, told: &[(Arc<Known>, Totals)]) -> String {
    let sha = known.script.sha_hex();
    let Some(name) = known.script.name() else { return sha.to_owned() };
    let namesakes = told.iter().filter(|(other, _)| other.script.name() == Some(name)).count();
    // A line of INFO is cut at colons, commas and equal signs by those who read it.
    let name = name.replace([':', ',', '='], "_");
    if namesakes > 1 { format!("{name}-{}", &sha[..8]) } else { name }
}

//! SCRIPT DRYRUN: what a script would do.

use std::sync::Arc;

use command::Result;
use command::propagate::Propagation;

use crate::request::Request;
use crate::script::{self, Ended, Known, parse_sha};
use crate::session::scripting::{by_sha, by_source, key_count};

/// Runs a script as EVAL or, given a SHA1, EVALSHA would, under the same locks. Answers its reply
/// with the commands that make its changes and those that send its messages; then all is undone,
/// in isolation mode too.
pub fn dryrun(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let keys = key_count(args[3], &args[4..])?;
    let found = request.lp.found_script.take();
    let script = match found {
        Some(script) => script,
        None => match by_sha(request, args[2]) {
            Err(_) if parse_sha(args[2]).is_none() => by_source(request, args[2])?,
            kept => kept?,
        },
    };
    try_out(request, args, script, keys)
}

/// Does so with a script and so many keys.
pub(super) fn try_out(
    request: &mut Request<'_, '_>,
    args: &[&[u8]],
    script: Arc<Known>,
    keys: usize,
) -> Result {
    let (keys, values) = args[4..].split_at(keys);
    let (lp, db) = (request.lp, request.txn.db());
    let trial = request.txn.start_trial();
    let said = lp.outbox.borrow().mark();
    lp.outbox.borrow_mut().set_trial(true);
    let mut out = Vec::new();
    let ended = script::run(
        lp,
        request.shift,
        request.client,
        request.txn,
        script,
        keys,
        values,
        args[0],
        false,
        request.origin,
        &mut out,
    );
    let mut changes = Vec::new();
    let count = Propagation::new(Some(db)).write(request.txn.tried(&trial), &mut changes);
    request.txn.end_trial(trial);
    let mut outbox = lp.outbox.borrow_mut();
    lp.script_ended.set(ended);
    if ended == Ended::Answered {
        let reply = &mut request.reply;
        reply.map(3);
        reply.bulk(b"reply");
        reply.raw(&out);
        reply.bulk(b"changes");
        reply.array(count);
        reply.raw(&changes);
        reply.bulk(b"messages");
        let publications = outbox.publications_since(said);
        reply.array(publications.len());
        for publication in publications {
            reply.array(3);
            reply.bulk(if publication.shard { b"SPUBLISH" } else { b"PUBLISH" });
            reply.bulk(&publication.channel);
            reply.bulk(&publication.message);
        }
    }
    outbox.set_trial(false);
    outbox.cut_back(said);
    Ok(())
}

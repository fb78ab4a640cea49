//! DEBUG RELOAD and LOADAOF: all data thrown away and loaded again from its files, while the server
//! runs. Others are told to wait meanwhile.
//!
//! Whoever calls this holds all gates, and a transaction that changes nothing until it is back.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use engine::{Plan, Txn};
use persist::rdb::Reader;

use super::keeper::Order;
use super::loading::{self, Gates, Part};
use super::replay;
use crate::server::{Server, unix_ms};

/// How long the log may take to be written before it is read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Loads the RDB file. The error is for the log. `flushes`: it begins with nothing; `replaces`: what
/// is in the file takes the place of what is there.
pub fn from_rdb(server: &Server, flushes: bool, replaces: bool) -> Result<(), String> {
    let config = server.config.current();
    let path = config.dbfilename.as_path();
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(&error))?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    unlogged(server, || {
        if flushes {
            flush(server);
        }
        server.durability.loading.begin(bytes);
        let limits = crate::settings::of(&config).limits;
        let gates = Gates::Held;
        let part = Part { before_bytes: 0, bytes, drops_expired: true, replaces, gates };
        let loaded = Reader::new(file, &limits)
            .map_err(|error| error.to_string())
            .and_then(|mut reader| loading::keys(server, &mut reader, &part));
        server.durability.loading.end();
        loaded.map_err(|error| failed(&error))
    })
}

/// Loads the append-only files. The error is for the log.
pub fn from_log(server: &Arc<Server>) -> Result<(), String> {
    let aof = &server.durability.aof;
    if aof.is_wanted() {
        let (answer, answered) = std::sync::mpsc::channel();
        aof.journal.order(Order::Write(answer));
        answered
            .recv_timeout(PATIENCE)
            .map_err(|_| "the log is not written in time".to_owned())?
            .map_err(|error| error.to_string())?;
    }
    unlogged(server, || {
        let (directory, bytes) = replay::open(&server.config.current())?;
        flush(server);
        server.durability.loading.begin(bytes);
        let loaded = replay::load(server, &directory, Gates::Held);
        server.durability.loading.end();
        match loaded? {
            Some((name, torn)) if !torn.is_room => {
                Err(format!("{name} ends in the middle of a block"))
            }
            _ => Ok(()),
        }
    })
}

/// What is loaded is in its files already.
fn unlogged<T>(server: &Server, run: impl FnOnce() -> T) -> T {
    let logs = server.engine.is_logging();
    server.engine.set_logging(false);
    let result = run();
    server.engine.set_logging(logs);
    result
}

fn flush(server: &Server) {
    let worker = server.own_worker();
    let mut txn = Txn::begin(&server.engine, &worker, Plan::Exclusive, unix_ms());
    txn.flush(None);
    let scripts = &server.scripts;
    scripts.functions.set(&scripts.cache, Arc::default());
    txn.commit();
}

//! What a server does in the background can be put off, cancelled and insisted on, as in Redis: saves,
//! rewrites of the log, and the end after a signal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::client::Client;
use testkit::info::{info, wait_for};
use testkit::poll;
use testkit::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

fn luar(args: &[&str]) -> Server {
    let all = [&["--enable-debug-command", "yes"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), &all).expect("the server starts")
}

fn call(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).expect("a reply").to_talk()
}

fn signal(server: &Server, name: &str) {
    let sent = Command::new("kill").args([name, &server.pid().to_string()]).status();
    assert!(sent.expect("there is kill").success());
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

#[test]
fn a_save_is_cancelled_and_a_rewrite_waits_for_it() {
    let server = luar(&["--save", ""]);
    let mut client = server.connect().expect("a connection");
    let none = "-ERR Background saving is currently not in progress or scheduled";
    assert_eq!(call(&mut client, "BGSAVE CANCEL"), none);
    assert_eq!(call(&mut client, "DEBUG POPULATE 100"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 10000000"), "+OK");
    assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
    let scheduled = "+Background append only file rewriting scheduled";
    assert_eq!(call(&mut client, "BGREWRITEAOF"), scheduled);
    assert_eq!(info(&mut client, "aof_rewrite_scheduled"), "1");
    assert_eq!(info(&mut client, "aof_rewrite_in_progress"), "0");
    assert_eq!(call(&mut client, "BGREWRITEAOF"), scheduled);
    assert_eq!(call(&mut client, "BGSAVE CANCEL"), "+Background saving cancelled");
    wait_for(&mut client, "aof_rewrite_in_progress", "1");
    assert_eq!(info(&mut client, "rdb_bgsave_in_progress"), "0");
    assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "ok");
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "100");
    assert_eq!(files(server.directory(), ".rdb"), Vec::<PathBuf>::new());
    assert_eq!(
        call(&mut client, "BGREWRITEAOF"),
        "-ERR Background append only file rewriting already in progress"
    );
    assert_eq!(call(&mut client, "BGSAVE SCHEDULE"), "+Background saving scheduled");
    assert_eq!(call(&mut client, "BGSAVE CANCEL"), "+Scheduled background saving cancelled");
    assert_eq!(call(&mut client, "BGSAVE CANCEL"), none);
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 0"), "+OK");
    wait_for(&mut client, "aof_rewrite_in_progress", "0");
    assert_eq!(info(&mut client, "aof_last_bgrewrite_status"), "ok");
}

#[test]
fn what_flushall_takes_is_not_saved() {
    let server = luar(&["--save", ""]);
    let mut client = server.connect().expect("a connection");
    assert_eq!(call(&mut client, "DEBUG POPULATE 100"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 10000000"), "+OK");
    assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
    assert_eq!(call(&mut client, "FLUSHALL"), "+OK");
    wait_for(&mut client, "rdb_bgsave_in_progress", "0");
    assert_eq!(info(&mut client, "rdb_last_bgsave_status"), "ok");
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "200");
    assert_eq!(files(server.directory(), ".rdb"), Vec::<PathBuf>::new());
}

#[test]
fn a_log_that_is_turned_on_can_be_turned_off_before_it_is() {
    let server = luar(&["--save", ""]);
    let mut client = server.connect().expect("a connection");
    assert_eq!(call(&mut client, "DEBUG POPULATE 100"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 10000000"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET appendonly yes"), "+OK");
    assert_eq!(info(&mut client, "aof_rewrite_in_progress"), "1");
    // What was written since the last file is in none.
    let refused = "-ERR Errors trying to SHUTDOWN. Check logs.";
    assert_eq!(call(&mut client, "SHUTDOWN NOSAVE"), refused);
    signal(&server, "-TERM");
    let told = poll(PATIENCE, || {
        let log = server.log();
        (log.matches("Writing initial AOF, can't exit.").count() == 2).then_some(())
    });
    assert!(told.is_some(), "{}", server.log());
    assert_eq!(call(&mut client, "CONFIG SET appendonly no"), "+OK");
    wait_for(&mut client, "aof_rewrite_in_progress", "0");
    assert_eq!(info(&mut client, "aof_last_bgrewrite_status"), "ok");
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 0"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET appendonly yes"), "+OK");
    wait_for(&mut client, "aof_rewrite_in_progress", "0");
    assert_eq!(manifest(&server), MANIFEST);
}

const MANIFEST: &str = "file appendonly.aof.1.base.rdb seq 1 type b\n\
                        file appendonly.aof.1.incr.aof seq 1 type i\n";

fn manifest(server: &Server) -> String {
    let path = server.directory().join("appendonlydir/appendonly.aof.manifest");
    fs::read_to_string(path).expect("a manifest")
}

#[test]
fn files_of_the_log_are_numbered_as_with_redis() {
    let server = luar(&["--save", "", "--appendonly", "yes"]);
    let mut client = server.connect().expect("a connection");
    let rewrite = |client: &mut Client| {
        let started = "+Background append only file rewriting started";
        assert_eq!(call(client, "BGREWRITEAOF"), started);
        wait_for(client, "aof_rewrite_in_progress", "0");
    };
    assert_eq!(call(&mut client, "SET k v"), "+OK");
    rewrite(&mut client);
    assert_eq!(
        manifest(&server),
        "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n"
    );
    // A rewrite of a log that is off is a base and nothing else.
    assert_eq!(call(&mut client, "CONFIG SET appendonly no"), "+OK");
    rewrite(&mut client);
    assert_eq!(manifest(&server), "file appendonly.aof.3.base.rdb seq 3 type b\n");
    assert_eq!(call(&mut client, "DEBUG LOADAOF"), "+OK");
    assert_eq!(call(&mut client, "GET k"), "\"v\"");
    assert_eq!(call(&mut client, "CONFIG SET appendonly yes"), "+OK");
    wait_for(&mut client, "aof_rewrite_in_progress", "0");
    let on = "file appendonly.aof.4.base.rdb seq 4 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";
    assert_eq!(manifest(&server), on);
    assert_eq!(call(&mut client, "CONFIG SET aof-disable-auto-gc yes"), "+OK");
    rewrite(&mut client);
    rewrite(&mut client);
    assert_eq!(
        manifest(&server),
        "file appendonly.aof.6.base.rdb seq 6 type b\n\
         file appendonly.aof.2.incr.aof seq 2 type h\n\
         file appendonly.aof.5.base.rdb seq 5 type h\n\
         file appendonly.aof.1.incr.aof seq 1 type h\n\
         file appendonly.aof.4.base.rdb seq 4 type h\n\
         file appendonly.aof.3.incr.aof seq 3 type i\n"
    );
    assert_eq!(call(&mut client, "CONFIG SET aof-disable-auto-gc no"), "+OK");
    let now = "file appendonly.aof.6.base.rdb seq 6 type b\nfile appendonly.aof.3.incr.aof seq 3 type i\n";
    assert_eq!(manifest(&server), now);
    assert_eq!(files(&server.directory().join("appendonlydir"), ".aof").len(), 1);
    // A log that waits for a save to end promises nothing yet, and the old files are left alone.
    assert_eq!(call(&mut client, "CONFIG SET appendonly no"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 10000000"), "+OK");
    assert_eq!(call(&mut client, "SET k1 v"), "+OK");
    assert_eq!(call(&mut client, "BGSAVE"), "+Background saving started");
    assert_eq!(call(&mut client, "CONFIG SET appendonly yes"), "+OK");
    assert_eq!(info(&mut client, "aof_rewrite_scheduled"), "1");
    assert_eq!(manifest(&server), now);
    assert_eq!(call(&mut client, "DEBUG LOADAOF"), "+OK");
    // k1 is back only if it was written before the log was gone.
    let log = server.directory().join("appendonlydir/appendonly.aof.3.incr.aof");
    let log = std::fs::read(log).expect("the old log").escape_ascii().to_string();
    let expected = if log.contains("k1") { ":2" } else { ":1" };
    assert_eq!(call(&mut client, "EXISTS k k1"), expected);
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 0"), "+OK");
    wait_for(&mut client, "aof_rewrite_scheduled", "0");
    wait_for(&mut client, "aof_rewrite_in_progress", "0");
    assert_eq!(
        manifest(&server),
        "file appendonly.aof.7.base.rdb seq 7 type b\nfile appendonly.aof.4.incr.aof seq 4 type i\n"
    );
    assert_eq!(call(&mut client, "SET k2 v"), "+OK");
    assert_eq!(call(&mut client, "DEBUG LOADAOF"), "+OK");
    assert_eq!(call(&mut client, "EXISTS k k2"), ":2");
}

#[test]
fn a_log_that_begins_with_nothing_has_a_base() {
    let mut server = luar(&["--appendonly", "yes"]);
    let mut client = server.connect().expect("a connection");
    assert_eq!(manifest(&server), MANIFEST);
    assert_eq!(call(&mut client, "SET k v"), "+OK");
    assert_eq!(call(&mut client, "DEBUG LOADAOF"), "+OK");
    assert_eq!(call(&mut client, "GET k"), "\"v\"");
    assert_eq!(call(&mut client, "SET k w"), "+OK");
    assert_eq!(call(&mut client, "DEBUG LOADAOF"), "+OK");
    server.restart().expect("it starts again");
    let mut client = server.connect().expect("a connection");
    assert_eq!(call(&mut client, "GET k"), "\"w\"");
    assert_eq!(manifest(&server), MANIFEST);
}

#[test]
fn the_end_after_a_signal_can_be_aborted_and_insisted_on() {
    let mut server = luar(&["--save", "3600 1"]);
    let mut client = server.connect().expect("a connection");
    let none = "-ERR No shutdown in progress.";
    assert_eq!(call(&mut client, "SHUTDOWN ABORT"), none);
    assert_eq!(call(&mut client, "DEBUG PAUSE-CRON 1"), "+OK");
    signal(&server, "-TERM");
    let aborted = poll(PATIENCE, || (call(&mut client, "SHUTDOWN ABORT") == "+OK").then_some(()));
    assert!(aborted.is_some());
    assert_eq!(call(&mut client, "DEBUG PAUSE-CRON 0"), "+OK");
    assert_eq!(call(&mut client, "SHUTDOWN ABORT"), none);
    assert!(server.log().contains("Shutdown manually aborted"));

    assert_eq!(call(&mut client, "DEBUG POPULATE 100"), "+OK");
    assert_eq!(call(&mut client, "CONFIG SET rdb-key-save-delay 10000000"), "+OK");
    signal(&server, "-INT");
    let temporary = server.directory().join(format!("temp-{}.rdb", server.pid()));
    assert!(poll(PATIENCE, || temporary.exists().then_some(())).is_some());
    signal(&server, "-INT");
    let ended = poll(PATIENCE, || server.ended());
    assert_eq!(ended.map(|status| status.success()), Some(false));
    assert_eq!(files(server.directory(), ".rdb"), Vec::<PathBuf>::new());
}

//! Libraries of functions: all workers have them, restarts keep them, files are exchanged with a
//! real redis-server both ways, and concurrent calls see one version of a library or the other.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use testkit::client::Client;
use testkit::poll;
use testkit::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

fn luar(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), args).expect("the server starts")
}

fn call(client: &mut Client, args: &[&str]) -> String {
    client.call(args).expect("a reply").to_talk()
}

fn connect(server: &Server) -> Client {
    server.connect().expect("a connection")
}

/// A library with one function, `<name>_get`, that answers a text.
fn library(name: &str, answer: &str) -> String {
    format!(
        "#!lua name={name}\nredis.register_function{{function_name='{name}_get', \
         flags={{'no-writes'}}, description='says so', callback=function() return '{answer}' end}}"
    )
}

fn load(client: &mut Client, name: &str, answer: &str) {
    let reply = call(client, &["FUNCTION", "LOAD", "REPLACE", &library(name, answer)]);
    assert_eq!(reply, format!("\"{name}\""));
}

fn list(client: &mut Client) -> String {
    call(client, &["FUNCTION", "LIST", "WITHCODE"])
}

fn end(mut server: Server, how: &[&str]) {
    let mut client = connect(&server);
    client.send(how).expect("it is sent");
    let ended = poll(PATIENCE, || server.ended());
    assert!(ended.expect("it ends").success(), "{}", server.log());
}

fn args<'a>(folder: &'a TempDir, more: &[&'a str]) -> Vec<&'a str> {
    [&["--dir", folder.path().to_str().expect("a plain path")], more].concat()
}

fn rewrite(client: &mut Client) {
    let reply = call(client, &["BGREWRITEAOF"]);
    assert!(reply.starts_with('+'), "{reply}");
    let done = poll(PATIENCE, || {
        let info = call(client, &["INFO", "persistence"]);
        let is_idle = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
        let rests = is_idle.iter().all(|field| info.contains(field));
        (rests && !info.contains("aof_rewrites:0")).then_some(())
    });
    assert!(done.is_some(), "the rewrite does not end");
}

/// Leaves the libraries `a` and `b`, and the key `n`.
fn change(client: &mut Client) {
    load(client, "a", "old");
    load(client, "a", "new");
    load(client, "gone", "soon");
    assert_eq!(call(client, &["FUNCTION", "DELETE", "gone"]), "+OK");
    let adds = "#!lua name=b\nredis.register_function('add', function(keys, args)
        return redis.call('INCRBY', keys[1], args[1]) end)";
    assert_eq!(call(client, &["FUNCTION", "LOAD", adds]), "\"b\"");
    assert_eq!(call(client, &["FCALL", "add", "1", "n", "5"]), ":5");
}

fn assert_changed(client: &mut Client, libraries: &str) {
    assert_eq!(list(client), libraries);
    assert_eq!(call(client, &["FCALL", "a_get", "0"]), "\"new\"");
    assert_eq!(call(client, &["FCALL_RO", "A_GET", "0"]), "\"new\"");
    assert_eq!(call(client, &["GET", "n"]), "\"5\"");
    assert_eq!(call(client, &["FCALL", "gone_get", "0"]), "-ERR Function not found");
}

#[test]
fn libraries_survive_a_restart() {
    const LOG: &[&str] = &["--appendonly", "yes", "--save", ""];
    const COMMANDS: &[&str] =
        &["--appendonly", "yes", "--save", "", "--aof-use-rdb-preamble", "no"];
    for (options, rewrites) in
        [(&["--save", "3600 1"][..], false), (LOG, false), (LOG, true), (COMMANDS, true)]
    {
        let folder = TempDir::new().expect("a folder");
        let args = args(&folder, options);
        let server = luar(&args);
        let mut client = connect(&server);
        change(&mut client);
        if rewrites {
            rewrite(&mut client);
        }
        let before = list(&mut client);
        end(server, &["SHUTDOWN"]);
        let again = luar(&args);
        assert_changed(&mut connect(&again), &before);
    }
}

#[test]
fn what_changes_libraries_is_in_the_log_and_what_is_undone_is_not() {
    let folder = TempDir::new().expect("a folder");
    let args = args(&folder, &["--appendonly", "yes"]);
    let server = luar(&args);
    let mut client = connect(&server);
    load(&mut client, "kept", "1");
    let payload = client.call(&["FUNCTION", "DUMP"]).expect("a reply");
    assert_eq!(call(&mut client, &["FUNCTION", "FLUSH"]), "+OK");
    load(&mut client, "other", "2");
    let restored = client
        .call(&[&b"FUNCTION"[..], b"RESTORE", payload.bytes().expect("a bulk")])
        .expect("a reply");
    assert_eq!(restored.to_talk(), "+OK");
    for line in [
        &["MULTI", "ROLLBACK"][..],
        &["FUNCTION", "LOAD", &library("undone", "3")],
        &["FUNCTION", "DELETE", "kept"],
        &["FCALL", "undone_get", "0"],
        &["FCALL", "kept_get", "0"],
    ] {
        let reply = call(&mut client, line);
        assert!(reply == "+OK" || reply == "+QUEUED", "{reply}");
    }
    let reply = call(&mut client, &["EXEC"]);
    assert!(reply.contains("because of command 4 'fcall': ERR Function not found"), "{reply}");
    let before = list(&mut client);
    assert!(before.contains("kept") && before.contains("other") && !before.contains("undone"));
    end(server, &["SHUTDOWN", "NOSAVE"]);
    let again = luar(&args);
    let mut client = connect(&again);
    assert_eq!(list(&mut client), before);
    // And loaded from the log while it runs.
    assert_eq!(call(&mut client, &["DEBUG", "LOADAOF"]), "+OK");
    assert_eq!(list(&mut client), before);
    assert_eq!(call(&mut client, &["DEBUG", "RELOAD"]), "+OK");
    assert_eq!(list(&mut client), before);
    assert_eq!(call(&mut client, &["FCALL", "kept_get", "0"]), "\"1\"");
}

#[test]
fn files_with_libraries_go_back_and_forth_between_us_and_redis() {
    let found = std::process::Command::new("redis-server").arg("--version").output();
    if found.is_err() {
        println!("skipped: there is no redis-server");
        return;
    }
    for options in [&["--save", "3600 1"][..], &["--appendonly", "yes", "--save", ""]] {
        let folder = TempDir::new().expect("a folder");
        let redis = || {
            Server::start(Path::new("redis-server"), &args(&folder, options)).expect("it starts")
        };
        let theirs = redis();
        change(&mut connect(&theirs));
        end(theirs, &["SHUTDOWN"]);
        let ours = luar(&args(&folder, &[options, &["--rdb-version", "10"]].concat()));
        let mut client = connect(&ours);
        let seen = list(&mut client);
        assert_changed(&mut client, &seen);
        load(&mut client, "ours", "hello");
        end(ours, &["SHUTDOWN"]);
        let theirs = redis();
        let mut client = connect(&theirs);
        for (function, answer) in [("a_get", "\"new\""), ("ours_get", "\"hello\"")] {
            assert_eq!(call(&mut client, &["FCALL", function, "0"]), answer);
        }
        assert_eq!(call(&mut client, &["FCALL", "add", "1", "n", "1"]), ":6");
    }
}

#[test]
fn calls_see_one_version_of_a_library_or_the_other() {
    let server = luar(&["--workers", "4", "--save", ""]);
    let both = |n: usize| {
        format!(
            "#!lua name=lib\nlocal n = {n}\nredis.register_function('first', function() return n \
             end)\nredis.register_function('second', function(keys) redis.call('SET', keys[1], n) \
             return n end)"
        )
    };
    let mut control = connect(&server);
    assert_eq!(call(&mut control, &["FUNCTION", "LOAD", &both(0)]), "\"lib\"");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let (mut client, key) = (connect(server), format!("k:{caller}"));
                    let (mut last, mut calls) = (0, 0);
                    while !is_over.load(Ordering::Relaxed) {
                        for command in
                            [&["FCALL", "first", "0"][..], &["FCALL", "second", "1", &key]]
                        {
                            let reply = call(&mut client, command);
                            let seen = reply.strip_prefix(':').and_then(|text| text.parse().ok());
                            let seen: u64 = seen.unwrap_or_else(|| panic!("{reply}"));
                            assert!(seen >= last, "{seen} behind {last}");
                            last = seen;
                            calls += 1;
                        }
                    }
                    (last, calls)
                })
            })
            .collect();
        for n in 1..=300 {
            let reply = call(&mut control, &["FUNCTION", "LOAD", "REPLACE", &both(n)]);
            assert_eq!(reply, "\"lib\"");
            // What was answered is what all see from then on.
            assert_eq!(call(&mut control, &["FCALL", "first", "0"]), format!(":{n}"));
        }
        is_over.store(true, Ordering::Relaxed);
        for caller in callers {
            let (last, calls) = caller.join().expect("a caller");
            assert!(last <= 300 && calls > 0);
        }
    });
    for caller in 0..4 {
        let mut client = connect(&server);
        assert_eq!(call(&mut client, &["FCALL", "second", "1", &format!("k:{caller}")]), ":300");
    }
}

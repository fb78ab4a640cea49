//! Directories of a real redis-server are read here, and ours there.
//!
//! Ignored by plain `cargo test` because it needs `redis-server` on the path; the oracle stage of
//! `cargo xtask test` runs it.

use std::path::{Path, PathBuf};

use persist::aof::{Append, Block, Directory, Folder, Load, Writer};
use std::io::{Read, Write};
use testkit::client::Client;
use testkit::server::Server;

const NAME: &str = "appendonly.aof";

/// A directory of the test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("luar-aof-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("it can be made");
        Place(path)
    }

    fn redis(&self) -> Server {
        let directory = self.0.to_string_lossy();
        let args = ["--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--dir", &directory];
        Server::start(Path::new("redis-server"), &args).expect("redis-server starts")
    }

    fn open(&self) -> Directory<Folder> {
        let folder = Folder::open(self.0.join("appendonlydir")).expect("it is there");
        Directory::open(folder, NAME).expect("it is in order")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ask(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).expect("redis-server answers").to_talk()
}

/// The blocks of all files, a line each; what is in an RDB is passed over.
#[derive(Default)]
struct Lines(Vec<String>);

impl Load for Lines {
    fn rdb(&mut self, input: &mut dyn Read) -> Result<u64, String> {
        let limits = data::Limits::default();
        let mut reader = persist::rdb::Reader::new(input, &limits).expect("an RDB");
        while reader.item().expect("it is whole").is_some() {}
        Ok(reader.offset())
    }

    fn block(&mut self, block: Block<'_>) -> Result<(), String> {
        // A file that begins in the second of the one before does not say so again.
        assert!(block.time_s.is_none_or(|time_s| time_s > 1_700_000_000));
        let words = |args: Vec<&[u8]>| {
            let words = args.iter().map(|arg| arg.escape_ascii().to_string());
            words.collect::<Vec<_>>().join(" ")
        };
        self.0.push(block.commands().map(words).collect::<Vec<_>>().join("; "));
        Ok(())
    }
}

fn blocks(directory: &Directory<Folder>) -> Vec<String> {
    let mut lines = Lines::default();
    assert_eq!(directory.load(&mut lines).expect("they are in order"), None);
    lines.0
}

#[test]
#[ignore = "needs redis-server"]
fn what_redis_writes_is_read() {
    let place = Place::new("read");
    let redis = place.redis();
    let mut client = redis.connect().expect("it answers");
    ask(&mut client, "SET k v");
    ask(&mut client, "BGREWRITEAOF");
    let rewritten = testkit::poll(std::time::Duration::from_secs(20), || {
        let info = ask(&mut client, "INFO persistence");
        let is_done =
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0");
        is_done.then_some(())
    });
    assert!(rewritten.is_some(), "the rewrite ends");
    ask(&mut client, "SELECT 3");
    ask(&mut client, "RPUSH l a b");
    ask(&mut client, "MULTI");
    ask(&mut client, "INCR n");
    ask(&mut client, "DEL l");
    ask(&mut client, "EXEC");
    ask(&mut client, "CONFIG SET appendfsync always");
    ask(&mut client, "SET last 1");
    let directory = place.open();
    assert!(
        directory.manifest().base.as_ref().is_some_and(|base| base.name.ends_with(".base.rdb"))
    );
    let mut header = [0; 5];
    directory
        .base()
        .expect("it can be read")
        .expect("it is there")
        .read_exact(&mut header)
        .unwrap();
    assert_eq!(&header, b"REDIS");
    assert_eq!(blocks(&directory), ["SELECT 3", "RPUSH l a b", "INCR n; DEL l", "SET last 1"]);
}

#[test]
#[ignore = "needs redis-server"]
fn redis_reads_what_is_written() {
    let place = Place::new("write");
    let mut directory = place.open();
    let mut file = directory.go_on(None).expect("it can be made");
    let mut writer = Writer::new(true);
    let mut append = |file: &mut std::fs::File, commands: &[&[&str]]| {
        let (mut rendered, mut out) = (Vec::new(), Vec::new());
        commands.iter().for_each(|args| resp::write_request(&mut rendered, args));
        writer.block(&rendered, commands.len(), 1_700_000_001, &mut out);
        file.write_all(&out).expect("it can be written to");
        out.len() as u64
    };
    append(&mut file, &[&["SET", "gone", "1"]]);
    let mut rewrite = directory.begin_rewrite(&mut file).expect("it can be begun");
    append(&mut file, &[&["SELECT", "2"], &["RPUSH", "l", "a", "b"]]);
    append(&mut rewrite.base, &[&["SET", "base", "1"]]);
    directory.finish_rewrite(rewrite, false, true).expect("it can be ended");
    append(&mut file, &[&["LPOP", "l"]]);
    let torn = append(&mut file, &[&["DEL", "l"], &["SET", "torn", "1"]]);
    file.sync().expect("it can be synced");
    let len = file.metadata().expect("it is there").len();
    file.set_len(len - torn / 2).expect("it can be cut");
    let lost = place.open().load(&mut Lines::default()).expect("it is not damaged");
    let (_, lost) = lost.expect("it is torn");
    assert_eq!(lost.keep_bytes, len - torn);
    let redis = place.redis();
    let mut client = redis.connect().expect("it answers");
    assert_eq!(ask(&mut client, "KEYS *"), "[\"base\"]");
    assert_eq!(ask(&mut client, "SELECT 2"), "+OK");
    assert_eq!(ask(&mut client, "KEYS *"), "[\"l\"]");
    assert_eq!(ask(&mut client, "LRANGE l 0 -1"), "[\"b\"]");
}

//! MIGRATE to another Luar, to the redis-server that is installed, and to targets that the tests play.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::client::{Client, Transport};
use testkit::poll;
use testkit::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

fn luar(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), args).expect("the server starts")
}

/// The redis-server that is installed, if there is one.
fn redis(args: &[&str]) -> Option<Server> {
    let binary = Path::new("redis-server");
    if Command::new(binary).arg("--version").output().is_err() {
        let note = "SKIPPED: MIGRATE to a redis-server: there is none\n";
        io::stderr().write_all(note.as_bytes()).expect("standard error is open");
        return None;
    }
    Some(Server::start(binary, args).expect("redis-server starts"))
}

fn connect(server: &Server) -> Client {
    server.connect().expect("a connection")
}

fn ask(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).unwrap_or_else(|error| panic!("{line}: {error}")).to_talk()
}

fn send(client: &mut Client, line: &str) {
    let args: Vec<&str> = line.split(' ').collect();
    client.send(&args).expect("it is sent");
}

fn read(client: &mut Client) -> String {
    client.read(PATIENCE).expect("a reply").to_talk()
}

/// MIGRATE with what stands before and behind the address.
fn migrate(source: &mut Client, port: u16, words: &str) -> String {
    let words: Vec<&str> =
        words.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
    let port = port.to_string();
    let args = [&["MIGRATE", "127.0.0.1", &port], &words[..]].concat();
    source.call(&args).expect("a reply").to_talk()
}

/// A value of every type that redis-server 7.0 has.
const VALUES: [&str; 9] = [
    "SET string hello",
    "SET number 12345",
    "RPUSH list a b 3",
    "SADD integers 1 2 3",
    "SADD set a b c",
    "HSET hash f v g w",
    "ZADD zset 1 m 2.5 n",
    "XADD stream 1-1 f v",
    "PFADD hll a b c",
];

fn name(line: &str) -> &str {
    line.split(' ').nth(1).expect("a key")
}

/// Moves everything there is to a server and back.
fn there_and_back(target: &Server) {
    let source = luar(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut here = connect(&source);
    let mut there = connect(target);
    for line in VALUES {
        ask(&mut here, line);
    }
    assert_eq!(ask(&mut here, "XGROUP CREATE stream g 0"), "+OK");
    assert_eq!(ask(&mut here, "PEXPIRE hash 100000"), ":1");
    let digest = ask(&mut here, "DEBUG DIGEST");
    let keys: Vec<&str> = VALUES.iter().map(|line| name(line)).collect();
    let all = format!("'' 0 5000 KEYS none {}", keys.join(" "));
    assert_eq!(migrate(&mut here, target.port(), &all), "+OK");
    assert_eq!(ask(&mut here, "DBSIZE"), ":0");
    assert_eq!(ask(&mut there, "DEBUG DIGEST"), digest);
    let left_ms: i64 = ask(&mut there, "PTTL hash")[1..].parse().expect("a number");
    assert!((50_000..=100_000).contains(&left_ms), "{left_ms}");
    assert_eq!(ask(&mut there, "PTTL string"), ":-1");
    assert_eq!(migrate(&mut there, source.port(), &all), "+OK");
    assert_eq!(ask(&mut there, "DBSIZE"), ":0");
    assert_eq!(ask(&mut here, "DEBUG DIGEST"), digest);

    // One key, into another database, and what is in the way.
    assert_eq!(migrate(&mut here, target.port(), "string 3 5000 COPY"), "+OK");
    assert_eq!(ask(&mut here, "GET string"), "\"hello\"");
    let busy = "-ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(migrate(&mut here, target.port(), "string 3 5000"), busy);
    assert_eq!(migrate(&mut here, target.port(), "'' 3 5000 KEYS list string set"), busy);
    assert_eq!(ask(&mut here, "EXISTS list set"), ":0");
    assert_eq!(ask(&mut here, "GET string"), "\"hello\"");
    assert_eq!(migrate(&mut here, target.port(), "string 3 5000 REPLACE"), "+OK");
    assert_eq!(migrate(&mut here, target.port(), "string 3 5000"), "+NOKEY");
    assert_eq!(ask(&mut there, "SELECT 3"), "+OK");
    assert_eq!(ask(&mut there, "EXISTS string list set"), ":3");
    let range = "-ERR Target instance replied with error: ERR DB index is out of range";
    assert_eq!(migrate(&mut here, target.port(), "number 999 5000"), range);
    let sockets = ask(&mut here, "INFO stats");
    assert!(sockets.contains("migrate_cached_sockets:1"), "{sockets}");

    // In a transaction, and not in a script.
    send(&mut here, "MULTI");
    let port = target.port();
    send(&mut here, &format!("MIGRATE 127.0.0.1 {port} number 0 5000"));
    send(&mut here, "EXISTS number");
    send(&mut here, "EXEC");
    let replies: Vec<String> = (0..4).map(|_| read(&mut here)).collect();
    assert_eq!(replies[3], "[+OK :0]");
    assert_eq!(ask(&mut there, "SELECT 0"), "+OK");
    assert_eq!(ask(&mut there, "GET number"), "\"12345\"");

    // What was moved is gone from the log, too.
    let digest = ask(&mut here, "DEBUG DIGEST");
    let mut source = source;
    source.crash().expect("it is killed");
    source.restart().expect("it starts again");
    let mut here = connect(&source);
    assert_eq!(ask(&mut here, "DEBUG DIGEST"), digest);
    assert_eq!(ask(&mut here, "EXISTS string number list set"), ":0");
}

#[test]
fn keys_go_to_another_luar_and_back() {
    there_and_back(&luar(&[]));
}

#[test]
fn keys_go_to_a_redis_server_and_back() {
    if let Some(target) = redis(&[]) {
        there_and_back(&target);
    }
}

#[test]
fn who_needs_a_password_gives_it() {
    let Some(target) = redis(&["--requirepass", "secret"]) else { return };
    let source = luar(&[]);
    let (mut here, mut there) = (connect(&source), connect(&target));
    assert_eq!(ask(&mut there, "AUTH secret"), "+OK");
    assert_eq!(ask(&mut there, "ACL SETUSER mover on >word ~* +@all"), "+OK");
    assert_eq!(ask(&mut here, "SET k v"), "+OK");
    let refused = "-ERR Target instance replied with error: NOAUTH Authentication required.";
    assert_eq!(migrate(&mut here, target.port(), "k 0 5000"), refused);
    let wrong = migrate(&mut here, target.port(), "k 0 5000 AUTH wrong");
    assert!(wrong.starts_with("-ERR Target instance replied with error: WRONGPASS "), "{wrong}");
    assert_eq!(ask(&mut here, "GET k"), "\"v\"");
    assert_eq!(migrate(&mut here, target.port(), "k 0 5000 AUTH secret"), "+OK");
    assert_eq!(ask(&mut there, "GET k"), "\"v\"");
    assert_eq!(ask(&mut here, "SET k v2"), "+OK");
    assert_eq!(migrate(&mut here, target.port(), "k 0 5000 REPLACE AUTH2 mover word"), "+OK");
    assert_eq!(ask(&mut there, "GET k"), "\"v2\"");
    // Nor does anybody use the connection of one who gave it.
    assert_eq!(ask(&mut here, "SET k v3"), "+OK");
    assert_eq!(migrate(&mut here, target.port(), "k 0 5000 REPLACE"), refused);
}

/// The source's connection to a target that the test plays.
struct Accepted(TcpStream);

impl Read for Accepted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Accepted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for Accepted {
    fn socket(&self) -> &TcpStream {
        &self.0
    }
}

struct Target(TcpListener);

impl Target {
    fn new() -> Target {
        Target(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("an address").port()
    }

    /// Begins a migration and answers its connection.
    fn receive(&self, source: &mut Client, words: &str) -> Client {
        send(source, &format!("MIGRATE 127.0.0.1 {} {words}", self.port()));
        let (stream, _) = self.0.accept().expect("a connection");
        let mut target = Client::over(Accepted(stream));
        assert_eq!(read(&mut target), r#"["SELECT" "0"]"#);
        target.send_raw(b"+OK\r\n").expect("it is sent");
        target
    }
}

/// The next request, of which only the beginning and the end are plain.
fn expect_restore(target: &mut Client, key: &str, part: &str, end: &str) {
    let request = read(target);
    assert!(request.starts_with(&format!(r#"["RESTORE" "{key}" "0""#)), "{request}");
    assert!(request.contains(part), "{request}");
    assert!(request.ends_with(end), "{request}");
}

#[test]
fn a_target_that_hangs_holds_nobody_but_its_client() {
    let server = luar(&["--workers", "1"]);
    let (mut mover, mut other) = (connect(&server), connect(&server));
    let target = Target::new();
    assert_eq!(ask(&mut mover, "SET k v"), "+OK");
    let id = ask(&mut mover, "CLIENT ID")[1..].to_owned();
    let mut hung = target.receive(&mut mover, "k 0 60000");
    expect_restore(&mut hung, "k", "v", "]");
    assert_eq!(ask(&mut other, "PING"), "+PONG");
    assert_eq!(ask(&mut other, "SET k w"), "+OK");
    assert_eq!(ask(&mut other, "EVAL return(redis.call('get','k')) 1 k"), "\"w\"");
    assert_eq!(ask(&mut other, "DBSIZE"), ":1");
    let unblocked =
        poll(PATIENCE, || (ask(&mut other, &format!("CLIENT UNBLOCK {id}")) == ":1").then_some(()));
    assert!(unblocked.is_some());
    assert_eq!(read(&mut mover), "-IOERR error or timeout reading to target instance");
    assert!(hung.wait_closed(PATIENCE));
    assert_eq!(ask(&mut mover, "GET k"), "\"w\"");
    assert_eq!(
        migrate(&mut mover, target.port(), "k 0 100"),
        "-IOERR error or timeout reading to target instance"
    );
    assert_eq!(ask(&mut mover, "GET k"), "\"w\"");

    // Who leaves takes nothing along.
    let mut leaver = connect(&server);
    let (stream, _) = target.0.accept().expect("that of the migration before");
    drop(stream);
    let mut left = target.receive(&mut leaver, "k 0 60000");
    expect_restore(&mut left, "k", "w", "]");
    drop(leaver);
    assert!(left.wait_closed(PATIENCE));
    assert_eq!(ask(&mut mover, "GET k"), "\"w\"");
    assert!(ask(&mut mover, "INFO clients").contains("blocked_clients:0"));
}

#[test]
fn what_changes_on_the_way_is_sent_again() {
    let server = luar(&["--workers", "2"]);
    let (mut mover, mut other) = (connect(&server), connect(&server));
    let target = Target::new();
    for line in ["SET k first", "SET gone v", "SET same v"] {
        assert_eq!(ask(&mut mover, line), "+OK");
    }
    send(&mut mover, "CLIENT REPLY ON");
    assert_eq!(read(&mut mover), "+OK");
    let port = target.port().to_string();
    let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS", "k", "gone", "same"];
    mover.send(&words).expect("it is sent");
    let (stream, _) = target.0.accept().expect("a connection");
    let mut taker = Client::over(Accepted(stream));
    assert_eq!(read(&mut taker), r#"["SELECT" "0"]"#);
    expect_restore(&mut taker, "k", "first", "]");
    expect_restore(&mut taker, "gone", "v", "]");
    expect_restore(&mut taker, "same", "v", "]");
    assert_eq!(ask(&mut other, "SET k second"), "+OK");
    assert_eq!(ask(&mut other, "DEL gone"), ":1");
    taker.send_raw(b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n").expect("it is sent");
    expect_restore(&mut taker, "k", "second", r#""REPLACE"]"#);
    assert_eq!(read(&mut taker), r#"["DEL" "gone"]"#);
    assert_eq!(ask(&mut other, "EXISTS same"), ":0");
    assert_eq!(ask(&mut other, "SET k third"), "+OK");
    taker.send_raw(b"+OK\r\n:1\r\n").expect("it is sent");
    expect_restore(&mut taker, "k", "third", r#""REPLACE"]"#);
    assert_eq!(ask(&mut other, "SET k fourth"), "+OK");
    taker.send_raw(b"+OK\r\n").expect("it is sent");
    // For the last time it is held: who writes comes behind that.
    expect_restore(&mut taker, "k", "fourth", r#""REPLACE"]"#);
    send(&mut other, "SET k fifth NX");
    taker.send_raw(b"+OK\r\n").expect("it is sent");
    assert_eq!(read(&mut mover), "+OK");
    assert_eq!(read(&mut other), "+OK");
    assert_eq!(ask(&mut other, "GET k"), "\"fifth\"");

    // A connection that has died since is made anew.
    drop(taker);
    let mut taker = target.receive(&mut other, "k 0 60000");
    expect_restore(&mut taker, "k", "fifth", "]");
    taker.send_raw(b"+OK\r\n").expect("it is sent");
    assert_eq!(read(&mut other), "+OK");
    assert_eq!(ask(&mut other, "EXISTS k"), ":0");
}

#[test]
fn nothing_goes_while_clients_are_paused() {
    let server = luar(&["--workers", "2"]);
    let (mut mover, mut other) = (connect(&server), connect(&server));
    let target = Target::new();
    assert_eq!(ask(&mut mover, "SET k v"), "+OK");
    let mut taker = target.receive(&mut mover, "k 0 60000");
    expect_restore(&mut taker, "k", "v", "]");
    assert_eq!(ask(&mut other, "CLIENT PAUSE 100000 WRITE"), "+OK");
    taker.send_raw(b"+OK\r\n").expect("it is sent");
    for _ in 0..1000 {
        assert_eq!(ask(&mut other, "EXISTS k"), ":1");
    }
    assert_eq!(ask(&mut other, "CLIENT UNPAUSE"), "+OK");
    assert_eq!(read(&mut mover), "+OK");
    assert_eq!(ask(&mut other, "EXISTS k"), ":0");
}

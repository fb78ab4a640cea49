//! What an administrator does to a running server, where it takes more than a talk file can say:
//! moving it to another port, changing its configuration amid a pipeline, killing clients that
//! wait.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use testkit::client::Client;
use testkit::poll;
use testkit::server::Server;
use testkit::value::Value;

const PATIENCE: Duration = Duration::from_secs(10);

fn start(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), args).expect("the server starts")
}

fn call(client: &mut Client, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    client.call(&args).expect("a reply").to_talk()
}

#[test]
fn the_port_can_be_changed_while_clients_are_connected() {
    let server = start(&["--workers", "2"]);
    let mut client = server.connect().expect("a connection");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().expect("an address").port();

    let refused = call(&mut client, &format!("CONFIG SET port {taken_port}"));
    assert_eq!(
        refused,
        "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this \
         port. Check server logs."
    );
    let port = server.port().to_string();
    assert_eq!(call(&mut client, "CONFIG GET port"), format!("[\"port\" \"{port}\"]"));
    assert_eq!(call(&mut server.connect().expect("still on its port"), "PING"), "+PONG");

    drop(taken);
    assert_eq!(call(&mut client, &format!("CONFIG SET port {taken_port}")), "+OK");
    let mut moved = Client::connect(&format!("127.0.0.1:{taken_port}")).expect("the new port");
    assert_eq!(call(&mut moved, "PING"), "+PONG");
    assert!(TcpStream::connect(server.address()).is_err(), "the old port is closed");
    assert_eq!(call(&mut client, "PING"), "+PONG");
}

#[test]
fn a_pipeline_sees_what_it_has_set() {
    let server = start(&["--workers", "1"]);
    let mut client = server.connect().expect("a connection");
    let commands = [
        vec!["CONFIG", "SET", "maxmemory", "1"],
        vec!["SET", "k", "v"],
        vec!["CONFIG", "SET", "maxmemory", "0"],
        vec!["SET", "k", "v"],
    ];
    for _ in 0..20 {
        let replies = client.pipeline(&commands).expect("replies");
        let shown: Vec<String> = replies.iter().map(Value::to_talk).collect();
        let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
        assert_eq!(shown, ["+OK", oom, "+OK", "+OK"]);
    }
}

#[test]
fn what_is_pushed_after_a_kill_stays_in_the_list() {
    let server = start(&["--workers", "2"]);
    let mut admin = server.connect().expect("a connection");
    for _ in 0..200 {
        let mut waiting = server.connect().expect("a connection");
        let id = call(&mut waiting, "CLIENT ID");
        waiting.send(&["BLPOP", "queue", "0"]).expect("sent");
        let line = format!("CLIENT LIST ID {}", &id[1..]);
        let blocked = poll(PATIENCE, || call(&mut admin, &line).contains("flags=b").then_some(()));
        assert!(blocked.is_some(), "the client blocks");
        assert_eq!(call(&mut admin, &format!("CLIENT KILL ID {}", &id[1..])), ":1");
        assert_eq!(call(&mut admin, "RPUSH queue element"), ":1");
        assert_eq!(call(&mut admin, "LPOP queue"), "\"element\"");
        assert!(waiting.wait_closed(PATIENCE), "the killed client is disconnected");
    }
}

#[test]
fn a_client_that_ends_along_with_its_last_request_is_answered_and_closed() {
    let server = start(&["--workers", "1"]);
    let mut other = server.connect().expect("a connection");
    let mut client = server.connect().expect("a connection");
    assert_eq!(call(&mut client, "PING"), "+PONG");
    // While the only worker is busy, request and end arrive together.
    other.send(&["DEBUG", "SLEEP", "0.2"]).expect("sent");
    client.send(&["PING"]).expect("sent");
    client.finish_sending().expect("half closed");
    assert_eq!(client.read(PATIENCE).expect("a reply").to_talk(), "+PONG");
    assert!(client.wait_closed(PATIENCE), "the connection is closed");
}

//! The Unix socket from end to end: its permissions, and what is found in its place at start.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use testkit::client::Client;
use testkit::server::Server;

fn start(args: &[&str]) -> std::io::Result<Server> {
    Server::start(Path::new(env!("CARGO_BIN_EXE_luar")), args)
}

#[test]
fn the_socket_has_its_permissions_and_replaces_one_that_was_left_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("luar.sock");
    let address = path.to_str().expect("plain text");
    // A server that was killed leaves its socket.
    drop(UnixListener::bind(&path).expect("a socket"));
    // A process that another test starts has it too, for the moment before it runs its program.
    let is_left = || Client::connect(address).is_err().then_some(());
    assert!(testkit::poll(testkit::PATIENCE, is_left).is_some());

    for permissions in ["700", "770", "755"] {
        let server = start(&["--unixsocket", address, "--unixsocketperm", permissions]);
        let server = server.expect("the server starts");
        let found = fs::symlink_metadata(&path).expect("a socket");
        assert!(found.file_type().is_socket());
        let expected = u32::from_str_radix(permissions, 8).expect("octal");
        assert_eq!(found.permissions().mode() & 0o777, expected);
        let mut client = Client::connect(address).expect("a connection");
        let info = client.call(&["CLIENT", "INFO"]).expect("a reply").to_talk();
        assert!(info.contains(&format!("addr={address}:0 laddr={address}:0 ")), "{info}");
        assert!(info.contains(" flags=U "), "{info}");
        let info = client.call(&["INFO", "server"]).expect("a reply").to_talk();
        assert!(info.contains(&format!("listener1:name=unix,bind={address}")), "{info}");
        // Killed: the next one finds the socket.
        drop(server);
        assert!(path.exists());
    }
    let server = start(&["--unixsocket", address]).expect("the server starts");
    let mut client = Client::connect(address).expect("a connection");
    client.send(&["SHUTDOWN", "NOSAVE"]).expect("sent");
    assert!(client.wait_closed(testkit::PATIENCE));
    let gone = testkit::poll(testkit::PATIENCE, || (!path.exists()).then_some(()));
    assert!(gone.is_some(), "an orderly end removes the socket");
    drop(server);
}

#[test]
fn a_file_in_the_place_of_the_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("precious");
    fs::write(&path, "data").expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_luar"))
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .args([path.as_path(), Path::new("--dir"), directory.path()])
        .output()
        .expect("the server runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("could not listen on "), "{error}");
    assert_eq!(fs::read(&path).expect("the file"), b"data");
}

//! Users in files and in the configuration.

use std::ffi::OsString;
use std::fs;

use server::acl::Acl;
use server::config::{Config, load};

fn config(args: &[&str]) -> Config {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    load(&args, &mut std::io::empty()).unwrap().config
}

fn lines(acl: &Acl) -> Vec<String> {
    acl.lines().into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

const EVERYBODY: &str = "user default on nopass sanitize-payload ~* &* +@all";

#[test]
fn a_file_comes_back_as_it_was_saved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.acl");
    let config = config(&[]);
    let acl = Acl::new(&config).unwrap();
    acl.set_user(b"al", &[b"on", b">pw", b"~a*", b"+@read", b"(", b"%W~b", b"+set", b")"], &config)
        .unwrap();
    acl.set_user(b"bo", &[b"&c*", b"-@all", b"+select|1"], &config).unwrap();
    acl.save(&path).unwrap();
    let saved = lines(&acl);
    assert_eq!(saved.len(), 3);

    let again = Acl::new(&config).unwrap();
    assert_eq!(again.load(&path, &config).unwrap().len(), 0, "nobody was there before");
    assert_eq!(lines(&again), saved);
    assert!(again.authenticate(b"al", b"pw").is_some());
    assert!(again.authenticate(b"al", b"other").is_none());
    assert!(again.authenticate(b"bo", b"").is_none(), "it is off");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_broken_file_changes_nothing_and_names_every_broken_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.acl");
    let config = config(&[]);
    let acl = Acl::new(&config).unwrap();
    acl.set_user(b"kept", &[b"on"], &config).unwrap();
    let before = lines(&acl);
    fs::write(&path, "# users\n\nuser al on +get\nusr bo on\nuser al off\nuser cy +nope\nuser\n")
        .unwrap();
    let error = acl.load(&path, &config).err().unwrap();
    for place in [":4: line should start", ":5: Duplicate user 'al'", ":6: Error in", ":7: "] {
        assert!(error.contains(place), "{place} in {error}");
    }
    assert_eq!(lines(&acl), before);
    assert!(acl.load(&directory.path().join("absent"), &config).is_err());
}

#[test]
fn loading_tells_who_is_gone_or_changed_and_keeps_the_default_user_for_its_clients() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.acl");
    let config = config(&["--requirepass", "secret"]);
    let acl = Acl::new(&config).unwrap();
    assert!(acl.needs_password());
    for name in [&b"same"[..], b"gone", b"changed"] {
        acl.set_user(name, &[b"on", b"+get"], &config).unwrap();
    }
    let default = acl.default_user().clone();
    fs::write(&path, "user same on +get\nuser changed on +set\nuser new on\n").unwrap();
    let affected = acl.load(&path, &config).unwrap();
    let mut affected: Vec<&[u8]> = affected.iter().map(|user| &*user.name).collect();
    affected.sort_unstable();
    assert_eq!(affected, [&b"changed"[..], b"default", b"gone"]);
    assert!(std::sync::Arc::ptr_eq(&default, &acl.user(b"default").unwrap()));
    assert!(!acl.needs_password(), "the file does not speak of it");
}

#[test]
fn users_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.conf");
    fs::write(&path, "user al on >pw ~a* +@read (%W~b +set)\nuser default on nopass +ping\n")
        .unwrap();
    let given = config(&[path.to_str().unwrap()]);
    let acl = Acl::new(&given).unwrap();
    assert_eq!(lines(&acl).len(), 2);
    assert!(acl.authenticate(b"al", b"pw").is_some());
    // What a rewritten file would say is what is.
    let users = acl.as_setting(&given);
    let again = Acl::new(&Config { users, ..Config::default() }).unwrap();
    assert_eq!(lines(&again), lines(&acl));

    let plain = config(&[]);
    let acl = Acl::new(&plain).unwrap();
    assert_eq!(lines(&acl), [EVERYBODY]);
    assert!(acl.as_setting(&plain).is_empty());

    fs::write(&path, "user al +nope\n").unwrap();
    let args = [OsString::from(&path)];
    let error = load(&args, &mut std::io::empty()).unwrap_err().to_string();
    assert!(error.contains("'+nope'"), "{error}");
    fs::write(&path, "user al on\naclfile users.acl\n").unwrap();
    assert!(Acl::new(&config(&[path.to_str().unwrap()])).is_err());
}

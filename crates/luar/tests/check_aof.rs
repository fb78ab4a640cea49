//! `luar check-aof` as a user runs it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A directory of a test's own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("luar-check-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("it can be made");
        Place(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("it can be written");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Exit code and output.
fn check(options: &[&str], path: &PathBuf) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luar"));
    let output = command.arg("check-aof").args(options).arg(path).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("it ends by itself"), text)
}

const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

#[test]
fn files_are_whole_torn_or_damaged() {
    let place = Place::new("file");
    let whole = place.write("whole", &[SET, MULTI, SET, SET, EXEC].concat());
    let (code, said) = check(&[], &whole);
    assert_eq!((code, said.ends_with("whole: 2 blocks, 3 commands: whole\n")), (0, true), "{said}");

    let torn = place.write("torn", &[SET, MULTI, SET, &SET[..20]].concat());
    let (code, said) = check(&[], &torn);
    let at = SET.len();
    assert_eq!(code, 1);
    assert!(said.contains(&format!("torn behind byte {at}: 62 bytes, 2 commands")), "{said}");
    let (code, said) = check(&["--fix"], &torn);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 blocks, 1 commands; cut off: 62 bytes, 2 commands"), "{said}");
    assert_eq!(fs::read(&torn).expect("it is there"), SET);

    let damaged = place.write("damaged", &[SET, b"*x\r\n", SET].concat());
    let (code, said) = check(&["--fix"], &damaged);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("damaged at byte {at}")), "{said}");
    assert_eq!(fs::read(&damaged).expect("it is there").len(), 2 * at + 4);

    let (code, said) = check(&[], &place.0.join("none"));
    assert_eq!((code, &*said), (2, ""));
}

#[test]
fn a_manifest_stands_for_its_files() {
    let place = Place::new("manifest");
    // An RDB without keys: version 11, its end, no checksum.
    let base = [&b"REDIS0011\xff"[..], &[0; 8]].concat();
    place.write("a.1.base.rdb", &base);
    place.write("a.1.incr.aof", SET);
    let last = place.write("a.2.incr.aof", &[SET, b"*"].concat());
    let manifest = "file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\n\
                    file a.2.incr.aof seq 2 type i\n";
    let path = place.write("a.manifest", manifest.as_bytes());
    let (code, said) = check(&[], &path);
    assert_eq!((code, said.lines().count()), (1, 3), "{said}");
    assert!(said.contains("a.1.base.rdb: 0 keys, 0 blocks, 0 commands: whole"), "{said}");
    assert_eq!(check(&["--fix"], &path).0, 0);
    assert_eq!(fs::read(&last).expect("it is there"), SET);
    assert_eq!(check(&[], &path).0, 0);

    // Only the last file may be torn.
    place.write("a.1.incr.aof", &SET[..10]);
    let (code, said) = check(&["--fix"], &path);
    assert_eq!((code, said.contains("it is not the last file")), (1, true), "{said}");
    place.write("a.1.base.rdb", &base[..5]);
    assert_eq!(check(&[], &path).0, 1);
    fs::remove_file(place.0.join("a.1.incr.aof")).expect("it is there");
    assert!(check(&[], &path).1.contains("a.1.incr.aof: the manifest names it"));
    place.write("a.manifest", b"file a\n");
    assert_eq!(check(&[], &path).0, 1);
}

#[test]
fn a_file_is_cut_at_a_time() {
    let place = Place::new("time");
    let bytes =
        [&b"#TS:100\r\n"[..], SET, b"#TS:200\r\n", MULTI, SET, EXEC, b"#TS:300\r\n", SET].concat();
    let file = place.write("timed", &bytes);
    let cut = |until: &str| check(&["--truncate-to-timestamp", until], &file);
    assert_eq!(cut("300").0, 0);
    assert_eq!(fs::read(&file).expect("it is there"), bytes);
    let (code, said) = cut("299");
    assert_eq!(code, 0);
    let gone = SET.len() + 9;
    assert!(said.contains(&format!("{gone} bytes that came after 299 are cut off")), "{said}");
    assert_eq!(fs::read(&file).expect("it is there"), bytes[..bytes.len() - gone]);
    assert_eq!(cut("50").0, 0);
    assert_eq!(fs::read(&file).expect("it is there"), b"");
    assert_eq!(cut("soon").0, 2);
}

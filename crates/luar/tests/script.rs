//! `luar script …` as a shell sees it: exit codes, output, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own with these files, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn with(name: &str, files: &[(&str, &str)]) -> Directory {
        let path = std::env::temp_dir().join(format!("luar-{name}-{}", std::process::id()));
        let directory = Directory(path);
        for (file, text) in files {
            let file = directory.0.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        directory
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn luar(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luar"))
        .arg("script")
        .args(args)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn check_tells_by_its_exit_code() {
    let directory = Directory::with(
        "script-check",
        &[
            ("fine.lua", "return redis.call('GET', KEYS[1])"),
            ("warned.lua", "return redis.call('GET', 'x')"),
            ("all/wrong.lua", "return foo"),
            ("all/notes.txt", "not Lua"),
        ],
    );
    let code = |args: &[&str]| luar(&directory.0, args).status.code();
    assert_eq!(code(&["check", "fine.lua"]), Some(0));
    assert_eq!(code(&["check", "warned.lua"]), Some(0));
    assert_eq!(code(&["check", "--strict", "fine.lua", "warned.lua"]), Some(1));
    assert_eq!(code(&["check", "fine.lua", "all"]), Some(1));
    assert_eq!(code(&["check", "missing.lua"]), Some(2));
    assert_eq!(code(&["check", "--sloppy", "fine.lua"]), Some(2));
    assert_eq!(code(&["check"]), Some(2));
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["--help"]), Some(0));

    let output = luar(&directory.0, &["check", "."]);
    assert_eq!(
        text(&output.stdout),
        "./all/wrong.lua:1:8: error: undefined global 'foo' [undefined-global]\n\
         ./warned.lua:1:26: warning: the key 'x' is not from KEYS [undeclared-key]\n\
         1 error, 1 warning in 3 files\n"
    );
    let output = luar(&directory.0, &["check", "--json", "all/wrong.lua"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout).split_whitespace().collect::<String>(),
        r#"[{"column":8,"file":"all/wrong.lua","line":1,"message":"undefinedglobal'foo'","rule":"undefined-global","severity":"error"}]"#
    );
    let output = luar(&directory.0, &["check", "--json", "fine.lua"]);
    assert_eq!(text(&output.stdout), "[]\n");
}

#[test]
fn types_writes_definition_files() {
    let directory = Directory::with("script-types", &[("keep.lua", "return 1")]);
    let output = luar(&directory.0, &["types", "definitions"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("\"workspace.library\""));
    let written = fs::read_dir(directory.0.join("definitions")).unwrap();
    let mut names: Vec<String> =
        written.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = ["bit", "cjson", "cmsgpack", "library", "redis", "script", "struct", "test"];
    assert_eq!(names, expected.map(|name| format!("{name}.lua")));
    // A file in the way is trouble, not a panic.
    let output = luar(&directory.0, &["types", "keep.lua"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn test_runs_the_files_of_the_cookbook_with_a_clock_that_stands_still() {
    let cookbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let output = luar(&cookbook, &["test", "scripts"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with("13 passed, 0 failed\n"), "{}", text(&output.stdout));
}

#[test]
fn test_shows_what_differs_and_fills_it_in() {
    let talk = "== time stands still\n> EVAL %{script now} 0\n[:1 :2]\n% advance 1500\n\
                > EVAL %{script now} 0\n:1\n";
    let script = "local time = redis.call('TIME')\nreturn { tonumber(time[1]), tonumber(time[2]) }";
    let files =
        [("t/now.talk", talk), ("lua/now.lua", script), ("served.talk", "% server --port 1\n")];
    let directory = Directory::with("script-test", &files);
    let output = luar(&directory.0, &["test", "t", "--scripts", "lua"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout),
        "t/now.talk:2: in \"time stands still\"\n  > EVAL %{script now} 0\n  \
         expected  [:1 :2]\n  got       [:1893456000 :0]\n               ^\n\
         t/now.talk:5: in \"time stands still\"\n  > EVAL %{script now} 0\n  \
         expected  :1\n  got       [:1893456001 :500000]\n            ^\n\
         0 passed, 1 failed\n"
    );
    let output = luar(&directory.0, &["test", "t", "--scripts", "lua", "--rewrite"]);
    assert_eq!(output.status.code(), Some(0));
    let output = luar(&directory.0, &["test", "t/now.talk", "--scripts", "lua"]);
    assert_eq!(text(&output.stdout), "1 passed, 0 failed\n");
    let code = |args: &[&str]| luar(&directory.0, args).status.code();
    // Scripts are looked for beside the talk file.
    assert_eq!(code(&["test", "t"]), Some(1));
    assert_eq!(code(&["test", "served.talk"]), Some(1));
    assert_eq!(code(&["test", "lua"]), Some(2));
    assert_eq!(code(&["test", "nowhere"]), Some(2));
    assert_eq!(code(&["test"]), Some(2));
}

#[test]
fn test_leaves_the_files_of_a_server_in_the_same_directory_alone() {
    let talk = "== saves\n> DBSIZE\n:0\n> SET k v\n+OK\n> SAVE\n+OK\n";
    let files = [("k.talk", talk), ("dump.rdb", "what somebody else has saved")];
    let directory = Directory::with("script-files", &files);
    let output = luar(&directory.0, &["test", "k.talk"]);
    assert_eq!(text(&output.stdout), "1 passed, 0 failed\n", "{}", text(&output.stderr));
    let saved = fs::read_to_string(directory.0.join("dump.rdb")).unwrap();
    assert_eq!(saved, "what somebody else has saved");
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 2);
}

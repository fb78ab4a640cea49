//! Loading, changing and rewriting the configuration.

use proptest::prelude::*;
use server::config::{
    Config, ConfigStore, ConfigView, DIRECTIVES, Effect, Loaded, LogLevel, MaxmemoryPolicy,
    MemoryShare, Place, RewriteError, SavePoint, Users, load,
};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn load_args(args: &[&str]) -> Result<Loaded, String> {
    load_with(args, "")
}

fn load_with(args: &[&str], stdin: &str) -> Result<Loaded, String> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    load(&args, &mut stdin.as_bytes()).map_err(|error| error.to_string())
}

/// Writes `text` to a file and loads it with further arguments. Errors have the directory cut off.
fn load_file(text: &str, args: &[&str]) -> Result<Loaded, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.conf");
    fs::write(&path, text).unwrap();
    let args = [&[path.to_str().unwrap()], args].concat();
    let prefix = format!("{}/", directory.path().display());
    load_args(&args).map_err(|error| error.replace(&prefix, ""))
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(load_file(text, &[]).unwrap_err(), expected);
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = load_args(&[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!((loaded.file, loaded.warnings.len()), (None, 0));
}

#[test]
fn a_file_and_arguments() {
    let text = "# a comment\n\n  PORT 7000  \r\nrequirepass \"a b\\x21\"\nmaxmemory 100mb\n\
                maxmemory-policy ALLKEYS-LFU\nbind 127.0.0.1 -::1\nlua-time-limit 10\n";
    let loaded = load_file(text, &["--port", "7001", "--loglevel", "warning", "--hz 20"]).unwrap();
    let config = loaded.config;
    assert_eq!((config.port, config.hz), (7001, 20));
    assert_eq!(config.requirepass.as_bytes(), b"a b!");
    assert_eq!(config.maxmemory_bytes, 100 << 20);
    assert_eq!(config.maxmemory_policy, MaxmemoryPolicy::AllkeysLfu);
    assert_eq!(config.loglevel, LogLevel::Warning);
    assert_eq!(config.bind.iter().collect::<Vec<_>>(), [&b"127.0.0.1"[..], b"-::1"]);
    assert_eq!(config.busy_reply_threshold_ms, 10);
    assert!(loaded.file.unwrap().is_absolute());
}

#[test]
fn standard_input() {
    for args in [&["-"][..], &["-", "--hz", "20"], &["--hz", "20", "-"]] {
        let config = load_with(args, "port 7000\nhz 30\n").unwrap().config;
        assert_eq!((config.port, config.hz), (7000, if args.len() == 1 { 30 } else { 20 }));
    }
    let error = load_with(&["-"], "port 7000\nprot 1\n").unwrap_err();
    assert_eq!(error, "standard input:2: unknown directive 'prot'");
}

#[test]
fn values_that_start_with_dashes() {
    let config = load_args(&["--requirepass", "--secret", "--port", "1"]).unwrap().config;
    assert_eq!((config.requirepass.as_bytes(), config.port), (&b"--secret"[..], 1));
    let config = load_args(&["--slowlog-log-slower-than", "-1"]).unwrap().config;
    assert_eq!(config.slowlog_log_slower_than_us, -1);
}

#[test]
fn save_points() {
    let points = |text: &str, args: &[&str]| {
        let points = load_file(text, args).unwrap().config.save.0;
        points.iter().map(|point| (point.seconds, point.changes)).collect::<Vec<_>>()
    };
    assert_eq!(points("save 900 1\nsave 300 10\n", &[]), [(900, 1), (300, 10)]);
    assert_eq!(points("save 900 1 300 10\n", &[]), [(900, 1), (300, 10)]);
    assert_eq!(points("save 900 1\nsave \"\"\nsave 5 6\n", &[]), [(5, 6)]);
    assert_eq!(points("save 900 1\n", &["--save", "60 2"]), [(900, 1), (60, 2)]);
    for args in [&["--save", ""][..], &["--save"], &["--save", "--port", "1"]] {
        assert_eq!(points("save 900 1\n", args), []);
    }
    let default = [(3600, 1), (300, 100), (60, 10_000)];
    assert_eq!(points("port 1\n", &[]), default);
    assert_eq!(points("save 3600 1\n", &[]), default[..1], "what is said takes its place");
}

#[test]
fn what_has_no_effect_is_said() {
    let loaded = load_file("save 900 1\nio-threads 4\nio-threads-do-reads no\n", &[]).unwrap();
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(warning.starts_with("Without effect in this version: io-threads ("), "{warning}");
    assert!(warning.contains("test.conf:2: the number of threads"), "{warning}");
    assert!(!warning.contains("save") && !warning.contains("do-reads"), "{warning}");
}

#[test]
fn errors_name_file_and_line() {
    refused("port 1\n\nprot 1\n", "test.conf:3: unknown directive 'prot'");
    refused("port \"1\n", "test.conf:1: unbalanced quotes in configuration line");
    refused("port 1 2\n", "test.conf:1: port: wrong number of arguments");
    refused("port\n", "test.conf:1: port: wrong number of arguments");
    refused("bind\n", "test.conf:1: bind: wrong number of arguments");
    refused("#\nPort x\n", "test.conf:2: port: argument couldn't be parsed into an integer");
    refused(
        "maxclients 0\n",
        "test.conf:1: maxclients: argument must be between 1 and 4294967295 inclusive",
    );
    refused(
        "unixsocketperm 888\n",
        "test.conf:1: unixsocketperm: argument couldn't be parsed as an octal number",
    );
    refused("dir /does/not/exist\n", "test.conf:1: dir: No such file or directory");
    refused(
        "include /does/not/exist.conf\n",
        "test.conf:1: include: can't open '/does/not/exist.conf': No such file or directory",
    );
    assert_eq!(
        load_args(&["/does/not/exist.conf"]).unwrap_err(),
        "can't open config file '/does/not/exist.conf': No such file or directory"
    );
    assert_eq!(load_args(&["--prot", "1"]).unwrap_err(), "command line: unknown directive 'prot'");
    assert_eq!(load_args(&["--"]).unwrap_err(), "command line: unknown directive ''");
    assert_eq!(load_args(&["-x"]).unwrap_err(), "command line: unknown directive '-x'");
    assert_eq!(
        load_args(&["--port"]).unwrap_err(),
        "command line: port: wrong number of arguments"
    );
}

#[test]
fn what_is_not_built_is_refused() {
    for line in [
        "cluster-enabled yes",
        "tls-replication yes",
        "replicaof 127.0.0.1 6379",
        "slaveof 127.0.0.1 6379",
        "loadmodule x.so",
        "rename-command GET G",
        "activedefrag yes",
        "syslog-enabled yes",
    ] {
        let error = load_file(line, &[]).unwrap_err();
        assert!(error.starts_with("test.conf:1: "), "{error}");
        assert!(error.ends_with(" is not built into this version of Luar"), "{error}");
    }
    for line in ["appendonly no", "tls-cluster no", "replicaof no one"] {
        assert_eq!(load_file(line, &[]).unwrap().config, Config::default(), "{line}");
    }
}

#[test]
fn a_rule_of_a_user_that_is_refused_has_its_place() {
    let error = load_file("port 1\nuser alice on +nope", &[]).unwrap_err();
    assert!(error.starts_with("test.conf:2: "), "{error}");
    assert!(error.contains("'+nope': Unknown command or category name in ACL"), "{error}");
}

#[test]
fn included_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a.conf"), "port 1\nhz 1\n").unwrap();
    fs::write(path("b.conf"), "\nhz 2\n").unwrap();
    let main = format!("include {}\ninclude {}\nport 3\n", path("?.conf"), path("none*.conf"));
    fs::write(path("main"), main).unwrap();
    let config = load_args(&[&path("main")]).unwrap().config;
    assert_eq!((config.port, config.hz), (3, 2));

    fs::write(path("b.conf"), "\nhz x\n").unwrap();
    let error = load_args(&[&path("main")]).unwrap_err();
    let expected = "b.conf:2: hz: argument couldn't be parsed into an integer";
    assert!(error.ends_with(expected), "{error}");

    fs::write(path("loop"), format!("include {}\n", path("loop"))).unwrap();
    let error = load_args(&[&path("loop")]).unwrap_err();
    assert!(error.ends_with("loop:1: include: more than 16 files include each other"), "{error}");
}

#[test]
fn places_are_kept_apart() {
    let path = Path::new("/a.conf").to_owned();
    assert_eq!(Place::File { path, line: 3 }.to_string(), "/a.conf:3");
}

/// What Debian ships, in its own directives but with a directory that exists here.
#[test]
fn a_distribution_file_loads() {
    let text = include_str!("fixtures/distribution.conf");
    let options = ["--save", "60 1", "--oom-score-adj", "absolute", "--hz", "20"];
    let warnings = load_file(text, &options).unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("not one line: {warnings:?}") };
    assert!(!warning.contains("save"), "{warning}");
    assert!(warning.contains("oom-score-adj (command line: "), "{warning}");
    assert!(!warning.contains("hz"), "{warning}");
    let again = [&options[..], &["--save", "", "--oom-score-adj", "no"]].concat();
    let loaded = load_file(text, &again).unwrap();
    assert_eq!(loaded.config.hash_max_listpack_entries, 512);
    assert_eq!(loaded.config.client_output_buffer_limit.replica.hard_bytes, 256 << 20);
    assert_eq!(loaded.config.pidfile.as_path(), Path::new("/run/redis/redis-server.pid"));
    assert_eq!(loaded.warnings.len(), 0, "what is set last counts: {:?}", loaded.warnings);
}

fn store() -> ConfigStore {
    ConfigStore::new(Config::default(), None)
}

fn set(store: &ConfigStore, args: &[&str]) -> Result<Vec<Effect>, String> {
    let args: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
    let mut effects = Vec::new();
    let outcome = store.set(&args, true, |effect, _| {
        effects.push(effect);
        Ok(())
    });
    outcome.map(|()| effects).map_err(|error| String::from_utf8(error.reply()).unwrap())
}

fn get(store: &ConfigStore, patterns: &[&str]) -> Vec<(String, String)> {
    let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    store
        .get(&patterns, matches)
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let [pattern, name] = [pattern, name].map(|text| std::str::from_utf8(text).unwrap());
    let options = glob::MatchOptions { case_sensitive: false, ..Default::default() };
    glob::Pattern::new(pattern).unwrap().matches_with(name, options)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn get_takes_names_and_globs() {
    let store = store();
    assert_eq!(get(&store, &["PORT"]), [pair("PORT", "6379")]);
    assert_eq!(get(&store, &["port", "p*t", "port"]), [pair("port", "6379")]);
    assert_eq!(get(&store, &["nope", "nope*"]), []);
    assert_eq!(
        get(&store, &["lua-time-l[a-z]mit", "busy-reply-threshold"]),
        [pair("lua-time-limit", "5000"), pair("busy-reply-threshold", "5000")]
    );
    let shown = DIRECTIVES
        .iter()
        .filter(|directive| !directive.traits.hidden && !directive.traits.concealed);
    let names = shown.map(|directive| directive.names().count()).sum::<usize>();
    assert_eq!(get(&store, &["*"]).len(), names);
}

#[test]
fn set_changes_all_or_nothing() {
    let store = store();
    let effects = set(&store, &["maxmemory", "1mb", "hz", "20", "maxmemory-samples", "7"]);
    assert_eq!(effects.unwrap(), [Effect::Memory, Effect::Timers]);
    assert_eq!(store.current().maxmemory_bytes, 1 << 20);

    let error = set(&store, &["maxmemory", "2mb", "hz", "x"]).unwrap_err();
    assert!(error.contains("argument 'hz'"), "{error}");
    assert_eq!(store.current().maxmemory_bytes, 1 << 20);

    assert_eq!(set(&store, &["hz", "20"]).unwrap(), [], "nothing changed, nothing to do");
    assert_eq!(set(&store, &["maxmemory-clients", "5%"]).unwrap(), [Effect::Memory]);
    assert_eq!(store.current().maxmemory_clients, MemoryShare::Percent(5));
    assert_eq!(set(&store, &["save", "10 1 20 2"]).unwrap(), [], "nothing to do at once");
    assert_eq!(store.current().save.0[1], SavePoint { seconds: 20, changes: 2 });
    let effects = set(&store, &["oom-score-adj", "absolute"]).unwrap();
    assert!(matches!(effects[..], [Effect::Idle(_), ..]), "the caller may refuse it: {effects:?}");
    assert_eq!(set(&store, &["save", ""]).unwrap(), []);
    assert_eq!(store.current().save.0, []);
}

#[test]
fn a_failed_effect_takes_everything_back() {
    let store = store();
    let mut acted = Vec::new();
    let args: [&[u8]; 4] = [b"hz", b"20", b"port", b"7000"];
    let error = store.set(&args, true, |effect, config| {
        acted.push((effect, config.hz, config.port));
        match (effect, config.port) {
            (Effect::Listen, 7000) => Err("Unable to listen on this port.".into()),
            _ => Ok(()),
        }
    });
    assert_eq!(
        String::from_utf8(error.unwrap_err().reply()).unwrap(),
        "ERR CONFIG SET failed (possibly related to argument 'port') - \
         Unable to listen on this port."
    );
    let (timers, listen) = (Effect::Timers, Effect::Listen);
    assert_eq!(
        acted,
        [(timers, 20, 7000), (listen, 20, 7000), (timers, 10, 6379), (listen, 10, 6379)]
    );
    assert_eq!(*store.current(), Config::default());
}

#[test]
fn protected_directives() {
    let args: [&[u8]; 2] = [b"dbfilename", b"x.rdb"];
    for (allowed, remote, local) in
        [("no", false, false), ("local", false, true), ("yes", true, true)]
    {
        let config = load_args(&["--enable-protected-configs", allowed]).unwrap().config;
        let store = ConfigStore::new(config, None);
        for (is_local, expected) in [(false, remote), (true, local)] {
            let outcome = store.set(&args, is_local, |_, _| Ok(()));
            assert_eq!(outcome.is_ok(), expected, "{allowed}, local: {is_local}");
        }
    }
}

#[test]
fn views_follow_changes() {
    let store = Arc::new(store());
    let mut view = ConfigView::new(Arc::clone(&store));
    let mut other = view.clone();
    assert!(!view.refresh());
    set(&store, &["timeout", "5"]).unwrap();
    assert_eq!(view.timeout_seconds, 0, "until it looks");
    assert!(view.refresh() && other.refresh());
    assert!(!view.refresh());
    assert_eq!((view.timeout_seconds, other.timeout_seconds), (5, 5));
}

/// Writes `text`, loads it, sets `args` and rewrites the file. What comes out is loaded again and
/// must mean the same.
fn rewrite(text: &str, options: &[&str], args: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.conf");
    fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let loaded = load_args(&[&[file], options].concat()).unwrap();
    let store = ConfigStore::new(loaded.config, loaded.file);
    if !args.is_empty() {
        set(&store, args).unwrap();
    }
    store.rewrite(Users::default()).unwrap();
    let rewritten = fs::read_to_string(&path).unwrap();
    assert_eq!(load_args(&[file]).unwrap().config, *store.current(), "{rewritten}");
    store.rewrite(Users::default()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), rewritten, "a second time changes nothing");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    rewritten
}

#[test]
fn rewrite_keeps_comments_order_and_spelling() {
    let text = "# Network\nport 7000\n\nbind  127.0.0.1\n# Memory\nmaxmemory 100mb\n\
                hash-max-ziplist-entries 5\ntimeout 0\n";
    assert_eq!(rewrite(text, &[], &[]), {
        text.replace("hash-max-ziplist-entries", "hash-max-listpack-entries")
    });
    let changed = rewrite(text, &[], &["maxmemory", "200mb", "timeout", "3", "hz", "50"]);
    let expected = "# Network\nport 7000\n\nbind  127.0.0.1\n# Memory\nmaxmemory 200mb\n\
                    hash-max-listpack-entries 5\ntimeout 3\n# Generated by CONFIG REWRITE\nhz 50\n";
    assert_eq!(changed, expected);
}

#[test]
fn rewrite_adds_and_drops_lines() {
    let text = "save 900 1\n# between\nsave 300 10\n";
    assert_eq!(rewrite(text, &[], &["save", "5 6"]), "save 5 6\n# between\n");
    assert_eq!(rewrite(text, &[], &["save", ""]), "save \"\"\n# between\n");
    let grown = "save 900 1\n# between\nsave 300 10\n# Generated by CONFIG REWRITE\nsave 5 6\n";
    assert_eq!(rewrite(text, &[], &["save", "900 1 300 10 5 6"]), grown);
    let signed = |line: &str| format!("# Generated by CONFIG REWRITE\n{line}\n");
    assert_eq!(rewrite("", &[], &["save", ""]), signed("save \"\""), "the default comes not back");
    assert_eq!(rewrite("", &[], &["save", "3600 1 300 100 60 10000"]), "");
    assert_eq!(rewrite(text, &[], &["save", "3600 1 300 100 60 10000"]), {
        "save 3600 1\n# between\nsave 300 100\n# Generated by CONFIG REWRITE\nsave 60 10000\n"
    });
}

#[test]
fn rewrite_survives_any_value() {
    let rewritten = rewrite(
        "",
        &["--port", "7000", "--unixsocketperm", "700", "--lua-memory-limit", "1000000000"],
        &[
            "requirepass",
            "a \"b\\\n'c'#",
            "client-output-buffer-limit",
            "pubsub 1000 2kb 3",
            "notify-keyspace-events",
            "KEA",
            "latency-tracking-info-percentiles",
            "",
            "bind",
            "",
            "maxmemory-clients",
            "10%",
            "shutdown-on-sigterm",
            "nosave force",
            "oom-score-adj-values",
            "-1 0 1",
        ],
    );
    assert!(rewritten.starts_with("# Generated by CONFIG REWRITE\n"), "{rewritten}");
    assert!(rewritten.contains("requirepass \"a \\\"b\\\\\\n'c'#\"\n"), "{rewritten}");
    assert!(rewritten.contains("client-output-buffer-limit pubsub 1000 2kb 3\n"), "{rewritten}");
}

#[test]
fn rewrite_of_every_directive_given_explicitly() {
    let text: String = DIRECTIVES
        .iter()
        .map(|directive| match (directive.default, directive.multi) {
            ("", _) => format!("{} \"\"\n", directive.name),
            (default, true) => format!("{} {default}\n", directive.name),
            (default, false) => format!("{} \"{default}\"\n", directive.name),
        })
        .collect();
    rewrite(&text, &[], &["hz", "11"]);
}

#[test]
fn rewrite_without_a_file() {
    assert_eq!(store().rewrite(Users::default()), Err(RewriteError::NoFile));
    let missing = Path::new("/does/not/exist.conf").to_owned();
    let error =
        ConfigStore::new(Config::default(), Some(missing)).rewrite(Users::default()).unwrap_err();
    assert_eq!(error.to_string(), "ERR Rewriting config file: No such file or directory");
}

/// A directive with a value that it may or may not accept.
fn line() -> impl Strategy<Value = (String, String)> {
    let names: Vec<_> = DIRECTIVES.iter().flat_map(|directive| directive.names()).collect();
    const WORDS: &[&str] = &[
        "0",
        "1",
        "7",
        "-1",
        "yes",
        "no",
        "local",
        "1kb",
        "5%",
        "1 2",
        "1 2 3",
        "debug",
        "A$K",
        "nosave now",
        "normal 1 2 3",
        "pubsub 1k 1mb 5",
        "alice on >pw ~a* +@read",
        "99.5",
        "a b",
        "{port}",
        "always",
        ".",
        "allkeys-lru",
        "systemd",
        "777",
    ];
    let value = prop_oneof![
        4 => prop::sample::select(WORDS).prop_map(String::from),
        1 => "[ -~\\n]{0,12}",
    ];
    (prop::sample::select(names).prop_map(String::from), value)
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "([a-z -]{0,12}[ \"'a-z0-9*#\\\\]{0,12}\r?\n){0,5}") {
        let _ = load_with(&["-"], &text);
    }

    /// Whatever can be set, by file and then by `CONFIG SET`, is still there after a rewrite.
    #[test]
    fn rewriting_loses_nothing(
        lines in prop::collection::vec(line(), 0..12),
        changes in prop::collection::vec(line(), 0..12),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.conf");
        let file = path.to_str().unwrap();
        let mut text = String::new();
        for (name, value) in &lines {
            let value = value.replace(['\n', '"', '\\'], "");
            let line = format!("{name} \"{value}\"\n# about {name}\n");
            if load_with(&["-"], &line).is_ok() {
                text.push_str(&line);
            }
        }
        fs::write(&path, &text).unwrap();
        let loaded = load_args(&[file]).unwrap();
        let store = ConfigStore::new(loaded.config, loaded.file);
        for (name, value) in &changes {
            let _ = set(&store, &[name, value]);
        }
        store.rewrite(store.current().users.clone()).unwrap();
        let rewritten = fs::read_to_string(&path).unwrap();
        let again = load_args(&[file]).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&again.config, &*store.current(), "{}\n->\n{}", text, rewritten);
        prop_assert_eq!(rewritten.matches("# about").count(), text.matches("# about").count());
    }
}

//! Exact findings for small sources, and none for the cookbook.

use std::path::Path;

use author::{Checker, Finding};

/// Findings as `line:column severity [rule] message`.
fn findings(source: &str) -> Vec<String> {
    findings_of(source.as_bytes())
}

fn findings_of(source: &[u8]) -> Vec<String> {
    let line = |found: &Finding| {
        let rule = found.rule;
        let severity = rule.severity().name();
        format!("{}:{} {severity} [{}] {}", found.line, found.column, rule.name(), found.message)
    };
    Checker::default().check(source, false).iter().map(line).collect()
}

#[track_caller]
fn one(source: &str, expected: &str) {
    assert_eq!(findings(source), [expected], "{source}");
}

#[track_caller]
fn fine(source: &str) {
    assert_eq!(findings(source), [""; 0], "{source}");
}

#[test]
fn syntax_is_what_the_compiler_says() {
    one("local x = = 2", "1:9 error [syntax] unexpected symbol near '='");
    one("return 1\nlocal x = 2", "2:1 error [syntax] '<eof>' expected near 'local'");
    one(
        "if x then\n  return 1",
        "2:11 error [syntax] 'end' expected (to close 'if' at line 1) near '<eof>'",
    );
    one(
        "#!lua flags=nothing\nreturn 1",
        "1:1 error [syntax] Unexpected flag in script shebang: nothing",
    );
    one("#!python\nreturn 1", "1:1 error [syntax] Unexpected engine in script shebang: #!python");
    // One trouble at a time: nothing else is said about a source that does not compile.
    assert_eq!(findings("foo = 1 1").len(), 1);
    fine("#!lua flags=no-writes\nreturn 1");
    fine("for i = 1, 2 do if i == 1 then goto next end ::next:: end");
    fine("");
}

#[test]
fn globals_cannot_be_made() {
    one("total = 1", "1:1 error [global-assignment] assignment to global 'total'; make it local");
    one(
        "local a\na, b = 1, 2",
        "2:4 error [global-assignment] assignment to global 'b'; make it local",
    );
    one(
        "function helper() end",
        "1:10 error [global-assignment] assignment to global 'helper'; make it local",
    );
    one("KEYS = {}", "1:1 error [global-assignment] assignment to global 'KEYS'; make it local");
    fine("local function helper() return helper end return helper()");
    fine("local t = {} function t.f() end function t:g() return self end return 1");
}

#[test]
fn globals_must_be_there() {
    one("return foo", "1:8 error [undefined-global] undefined global 'foo'");
    one("print('x')", "1:1 error [undefined-global] undefined global 'print'");
    one("return os.time()", "1:11 warning [unknown-member] 'os.time' is not there");
    one(
        "return redis.cal('GET', KEYS[1])",
        "1:14 warning [unknown-member] 'redis.cal' is not there",
    );
    one("redis.x = 1", "1:1 error [readonly-table] 'redis' is read-only");
    one(
        "function string.trim(s) return s end",
        "1:10 error [readonly-table] 'string' is read-only",
    );
    fine("return cjson.encode({ foo = 1, ['bar'] = 2 })");
    fine("local redis = { x = 1 } redis.x = 2 return redis.y");
    fine("KEYS[1] = 'x' return KEYS[1]");
}

#[test]
fn names_live_as_long_as_their_blocks() {
    one("do local x = 1 end\nreturn x", "2:8 error [undefined-global] undefined global 'x'");
    one("local x = x", "1:11 error [undefined-global] undefined global 'x'");
    one("for i = 1, 2 do end\nreturn i", "2:8 error [undefined-global] undefined global 'i'");
    one(
        "for k, v in pairs(ARGV) do end return k",
        "1:39 error [undefined-global] undefined global 'k'",
    );
    one(
        "local function f(a, ...) return a end\nreturn a",
        "2:8 error [undefined-global] undefined global 'a'",
    );
    fine("local n = 0 repeat local done = n > 3 n = n + 1 until done");
    fine("local f = function(a, b) local c = a + b return c end return f(1, 2)");
    fine("for i = 1, 3 do local j = i for k = j, i do local _ = k end end");
    fine("local x = 1 if x == 1 then local y = x elseif x == 2 then x = 3 else x = 4 end return x");
}

#[test]
fn columns_count_characters() {
    one("local t = 'äöü' .. foo", "1:20 error [undefined-global] undefined global 'foo'");
    one("-- ä\n\treturn foo", "2:9 error [undefined-global] undefined global 'foo'");
    assert_eq!(
        findings_of(b"local t = '\xff\xfe' .. foo"),
        ["1:19 error [undefined-global] undefined global 'foo'"]
    );
}

#[test]
fn commands_must_be_there() {
    one(
        "return redis.call('GETT', KEYS[1])",
        "1:19 error [unknown-command] unknown command 'GETT'",
    );
    one(
        "return redis.call('object', 'size', KEYS[1])",
        "1:29 error [unknown-command] unknown subcommand 'size' of 'object'",
    );
    one(
        "return redis.pcall('EVAL', ARGV[1], 0)",
        "1:20 error [not-in-scripts] 'eval' cannot be called from scripts",
    );
    one(
        "return redis.call('SCRIPT', 'LOAD', ARGV[1])",
        "1:19 error [not-in-scripts] 'script load' cannot be called from scripts",
    );
    one("return redis.call()", "1:8 error [arity] a command is missing");
    fine("return redis.call(ARGV[1], KEYS[1])");
    fine("return redis.call('ob' .. 'ject', 'size')");
    fine("return redis.call('OBJECT', ARGV[1], KEYS[1])");
    fine("return redis['call']('GETT')");
    fine("local redis = {} return redis.call('GETT')");
    fine(
        "return server.call [[get]] == 1 or redis.call('get', KEYS[1])"
            .replace(" [[get]] == 1 or redis.call", "")
            .as_str(),
    );
}

#[test]
fn arity_is_checked_as_far_as_it_is_known() {
    one("return redis.call('GET')", "1:19 error [arity] 0 arguments for 'get'; usage: GET key");
    one(
        "return redis.call('GET', KEYS[1], KEYS[2])",
        "1:19 error [arity] 2 arguments for 'get'; usage: GET key",
    );
    one(
        "return redis.call('HSET', KEYS[1], 'a')",
        "1:19 error [arity] 2 arguments for 'hset'; usage: HSET key field value [field value ...]",
    );
    one(
        "return redis.call('OBJECT', 'ENCODING')",
        "1:19 error [arity] 0 arguments for 'object encoding'; usage: OBJECT ENCODING key",
    );
    one(
        "return redis.call('GET', KEYS[1], KEYS[2], unpack(ARGV))",
        "1:19 error [arity] 2 arguments and more for 'get'; usage: GET key",
    );
    one("return redis.call 'INCR'", "1:19 error [arity] 0 arguments for 'incr'; usage: INCR key");
    fine("return redis.call('GET', unpack(KEYS))");
    fine("return redis.call('HSET', KEYS[1], unpack(ARGV))");
    fine("return redis.call(unpack(ARGV))");
    fine("local function all(...) return redis.call('DEL', ...) end return all(KEYS[1])");
}

#[test]
fn calls_are_known_by_other_names() {
    let expected = "2:13 error [unknown-command] unknown command 'GETT'";
    one("local call = redis.call\nreturn call('GETT', KEYS[1])", expected);
    one(
        "local r = redis local rcall = r.call\nreturn rcall('GETT')",
        &expected.replace("13", "14"),
    );
    one("local get = 'GETT'\nreturn redis.call(get, KEYS[1])", &expected.replace("13", "19"));
    // What may change is not followed.
    fine("local name = 'GETT'\nname = 'GET'\nreturn redis.call(name, KEYS[1])");
    fine("local call = redis.call\ncall = tostring\nreturn call('GETT')");
}

#[test]
fn arguments_are_strings_and_numbers() {
    let expected = "1:35 error [argument-type] arguments must be strings or numbers, this is ";
    for (argument, what) in [("nil", "nil"), ("true", "a boolean"), ("{}", "a table")] {
        let source = format!("return redis.call('SET', KEYS[1], {argument})");
        one(&source, &(expected.to_owned() + what));
    }
    fine("return redis.call('SET', KEYS[1], 5)");
}

#[test]
fn keys_come_from_keys() {
    one(
        "return redis.call('GET', 'counter')",
        "1:26 warning [undeclared-key] the key 'counter' is not from KEYS",
    );
    one(
        "return redis.call('GET', 'user:' .. ARGV[1])",
        "1:26 warning [undeclared-key] a key put together is not from KEYS",
    );
    one(
        "return redis.call('GET', KEYS[1] .. ':seq')",
        "1:26 warning [undeclared-key] a key put together is not from KEYS",
    );
    one(
        "return redis.call('GET', ARGV[1])",
        "1:26 warning [undeclared-key] a key from ARGV is not from KEYS",
    );
    one(
        "local key = 'a' .. ARGV[1]\nreturn redis.call('GET', key)",
        "2:26 warning [undeclared-key] a key put together is not from KEYS",
    );
    one(
        "redis.call('MSET', KEYS[1], 'x', 'b', 'y')",
        "1:34 warning [undeclared-key] the key 'b' is not from KEYS",
    );
    one(
        "redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[2], 'b', 'WEIGHTS', 1, 2)",
        "1:48 warning [undeclared-key] the key 'b' is not from KEYS",
    );
    fine("local key = KEYS[1] return redis.call('GET', key)");
    fine("for _, key in ipairs(KEYS) do redis.call('DEL', key) end");
    fine("redis.call('ZUNIONSTORE', KEYS[1], #KEYS - 1, KEYS[2], KEYS[3])");
    fine("redis.call('PUBLISH', 'channel', ARGV[1])");
    fine("local key = KEYS[1] if not key then key = 'none' end return redis.call('GET', key)");
    // Another function's key is its caller's matter.
    fine("local function get(key) return redis.call('GET', key) end return get(KEYS[1])");
}

#[test]
fn suspicious_things() {
    one(
        "return KEYS[0]",
        "1:8 warning [index-zero] 'KEYS[0]' is always nil, 'KEYS[1]' is the first",
    );
    one(
        "return loadstring(ARGV[1])()",
        "1:8 warning [dynamic-code] code made at run time is compiled at every call",
    );
    one(
        "return redis.call('GET', KEYS[1] ) == '${user.name}'",
        "1:39 warning [template-text] '${user.name}' looks filled in by a program; pass values in \
         ARGV, so that the script is compiled once",
    );
    assert_eq!(findings("return '{{user}}'").len(), 1);
    fine("return loadstring('return 1')()");
    fine("return { { 1 }, '{{', '}}', '${' }");
}

#[test]
fn a_comment_switches_rules_off() {
    fine("-- @allow undeclared-key index-zero\nreturn redis.call('GET', ARGV[0] .. 'x')");
    assert_eq!(findings("-- @allow arity\nreturn redis.call('GET', 'x')").len(), 1);
    assert_eq!(findings("return '-- @allow undefined-global' .. foo").len(), 1);
}

#[test]
fn what_is_not_understood_is_said_and_harmless() {
    one(
        "local t = 1_000\nreturn t .. foo",
        "1:12 warning [not-checked] not everything from here on is understood and checked",
    );
    // Escapes that only the compiler knows do no harm.
    one(
        "local t = 'a\\-b'\nreturn t .. foo",
        "2:13 error [undefined-global] undefined global 'foo'",
    );
    // As deep as the compiler goes and deeper.
    let sum = format!("return {}1", "1 + ".repeat(50_000));
    assert!(findings(&sum).iter().all(|line| line.contains("[not-checked]")));
    let texts = format!("return {}'x'", "'x' .. ".repeat(150));
    fine(&texts);
}

#[test]
fn lines_for_people_and_objects_for_programs() {
    let found = &Checker::default().check(b"return foo", false)[0];
    let path = Path::new("scripts/x.lua");
    assert_eq!(
        found.text(path),
        "scripts/x.lua:1:8: error: undefined global 'foo' [undefined-global]"
    );
    assert_eq!(
        found.json(path).to_string(),
        r#"{"column":8,"file":"scripts/x.lua","line":1,"message":"undefined global 'foo'","rule":"undefined-global","severity":"error"}"#
    );
}

#[test]
fn the_cookbook_is_clean() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scripts");
    let mut checker = Checker::default();
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "lua") {
            continue;
        }
        let source = std::fs::read(&path).unwrap();
        let is_test = path.to_string_lossy().ends_with(".test.lua");
        let found = checker.check(&source, is_test);
        assert!(found.is_empty(), "{}: {found:?}", path.display());
        if is_test {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(source.starts_with(format!("-- @name {name}\n").as_bytes()), "{name}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}

/// Pieces of the cookbook in random order and number: whatever comes out, a check ends, and its
/// findings point into the source.
#[test]
fn any_source_can_be_checked() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scripts");
    let mut texts: Vec<Vec<u8>> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    texts.sort();
    let mut checker = Checker::default();
    let mut compiled = 0;
    for _ in 0..2000 {
        let mut text = texts[below(texts.len())].clone();
        for _ in 0..1 + below(3) {
            let other = &texts[below(texts.len())];
            let from = below(other.len());
            let to = from + below((other.len() - from).min(40));
            let at = below(text.len());
            let end = if below(2) == 0 { at } else { (at + below(10)).min(text.len()) };
            text.splice(at..end, other[from..to].iter().copied());
            if text.is_empty() || below(8) == 0 {
                text.push(below(256) as u8);
            }
        }
        let found = checker.check(&text, false);
        compiled += usize::from(found.iter().all(|found| found.rule.name() != "syntax"));
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        for found in found {
            let width = lines.get(found.line - 1).map_or(0, |line| line.len() + 1);
            assert!((1..=width).contains(&found.column), "seed {seed}: {found:?}");
        }
    }
    assert!(compiled > 100, "seed {seed}: only {compiled} compiled");
}

#[test]
fn libraries_register_functions() {
    let library = |body: &str| format!("#!lua name=lib\n{body}\nredis.register_function('f', f)");
    fine(&library("local function f(keys, args) return redis.call('GET', keys[1]) end"));
    fine(&library(
        "local function f(keys) return redis.call('GET', keys[1]) end\n\
         redis.register_function{ function_name = 'g', callback = f, flags = { 'no-writes' } }",
    ));
    // Keys and arguments are parameters, whatever they are called.
    one(
        &library("local f = function(k, a)\nreturn redis.call('GET', a[1]) end"),
        "3:26 warning [undeclared-key] a key from the arguments is not from the keys",
    );
    one(
        "#!lua name=lib\nlocal register = redis.register_function\nregister{ function_name = 'f',\n\
         callback = function(_, args) return redis.call('DEL', args[2]) end }",
        "4:55 warning [undeclared-key] a key from the arguments is not from the keys",
    );
    fine(&library(
        "local function helper(_, list) return redis.call('GET', list[1]) end\n\
         local function f(keys) return helper(nil, keys) end",
    ));
    one(
        &library("local function f() return KEYS[1] end"),
        "2:27 error [undefined-global] undefined global 'KEYS'",
    );
    one(
        &library("local function f(keys) return redis.call('GETT', keys[1]) end"),
        "2:42 error [unknown-command] unknown command 'GETT'",
    );
    // A script may have a name, too.
    fine("#!lua name=script\nreturn redis.call('GET', KEYS[1])");
    one(
        "redis.register_function('f', function() end)",
        "1:7 warning [unknown-member] 'redis.register_function' is not there",
    );
}

//! `luar script test` on `*.test.lua`: what it says of tests that fail.
//!
//! In a file of its own: the server under test is a thread of this process, and so is its clock.

use std::fs;
use std::path::Path;

use author::{TestPlan, run_tests};

/// One test for each way to fail, and two that do not.
const TESTS: &str = "\
test('differs', function()
  redis.call('SET', 'a', 1)
  equal(redis.call('MGET', 'a', 'b'), {'1', 'x'})
end)
test('differs inside', function()
  equal({ a = 1, b = { 'one', 'two', 'something long enough that it fills a line by itself' } },
    { a = 1, b = { 'one', 'three', 'something long enough that it fills a line by itself' } })
end)
test('a command fails', function()
  equal(redis.call('GET', 'a'), false)
  redis.call('SET')
end)
test('Lua fails', function()
  local nothing = nil
  nothing.x = 1
end)
test('a script fails', function()
  run('broken', { 'a' })
end)
test('a script is not there', function()
  run('absent')
end)
test('nothing fails', function()
  fails('x', function() end)
end)
test('another error', function()
  fails('this', function() error('that') end)
end)
test('is well', function()
  redis.setresp(3)
  redis.call('HSET', 'h', 'f', '1')
  equal(redis.call('HGETALL', 'h'), { map = { f = '1' } })
end)
test('time passes', function()
  redis.call('SET', 'k', 'v', 'PX', 1000)
  advance(999)
  equal(redis.call('PTTL', 'k'), 1)
  advance(1)
  equal(redis.call('EXISTS', 'k'), 0)
  fails('ERR ', function() run('broken', { 'a' }) end)
end)
error('outside')
";

#[test]
fn failures_name_line_test_and_difference_and_the_cookbook_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::write(directory.join("all.test.lua"), TESTS).unwrap();
    fs::write(directory.join("broken.lua"), "return redis.call('INCRBY', KEYS[1], 'x')").unwrap();
    let plan = TestPlan { path: directory.to_owned(), scripts: None, rewrite: false };
    let outcome = run_tests(&plan).unwrap();

    assert_eq!(outcome.passed, 2);
    let told: Vec<(usize, &str, &str)> = outcome
        .failures
        .iter()
        .map(|failure| (failure.line, &*failure.section, &*failure.step))
        .collect();
    let [differs, inside, command, lua, script, absent, nothing, another, outside] = told[..]
    else {
        panic!("{told:#?}");
    };
    assert_eq!(differs, (3, "differs", "not equal"));
    assert_eq!(outcome.failures[0].expected, "{\"1\", \"x\"}");
    assert_eq!(outcome.failures[0].actual, "{\"1\", false}");
    assert_eq!(inside, (6, "differs inside", "not equal"));
    assert!(outcome.failures[1].expected.contains("\n    \"three\",\n"), "{outcome:#?}");
    assert_eq!(command, (11, "a command fails", "wrong number of arguments for 'set' command"));
    assert_eq!((lua.0, lua.1), (15, "Lua fails"));
    assert!(lua.2.contains("'nothing'"), "{}", lua.2);
    assert_eq!((script.0, script.1), (18, "a script fails"));
    assert!(script.2.contains("not an integer"), "{}", script.2);
    assert_eq!((absent.0, absent.1), (21, "a script is not there"));
    assert_eq!(nothing, (24, "nothing fails", "it did not fail"));
    assert_eq!(another, (27, "another error", "it failed otherwise"));
    assert_eq!(outcome.failures[7].expected, "this");
    assert_eq!(outside, (42, "", "outside"));

    // One after the other: there is one clock.
    let cookbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scripts");
    let plan = TestPlan { path: cookbook, scripts: None, rewrite: false };
    let outcome = run_tests(&plan).unwrap();
    assert!(outcome.passed > 8, "{outcome:?}");
    assert_eq!(outcome.failed, 0, "{outcome:?}");
}

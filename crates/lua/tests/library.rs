//! Libraries of functions: loading, calling, what they see, and VMs that meet them later.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lua::{Library, Outcome, Protocol, Vm, VmOptions};
use support::Bench;

fn load(bench: &mut Bench, body: &str) -> Result<Arc<Library>, String> {
    let source = format!("#!lua name=lib\n{body}");
    let loaded = bench.vm.load_library(&mut bench.host, source.as_bytes());
    loaded.map(Arc::new).map_err(|text| String::from_utf8(text).unwrap())
}

/// The reply with CRLF as `|`.
fn call(bench: &mut Bench, library: &Arc<Library>, keys: &[&[u8]], args: &[&[u8]]) -> String {
    let mut out = Vec::new();
    let script = library.scripts().remove(0);
    bench.vm.run(&mut bench.host, &script, keys, args, Protocol::Resp2, &mut out);
    String::from_utf8_lossy(&out).replace("\r\n", "|")
}

fn answer(body: &str) -> String {
    let mut bench = Bench::new();
    let library =
        load(&mut bench, &format!("redis.register_function('f', function(keys, args) {body} end)"));
    call(&mut bench, &library.unwrap(), &[b"a"], &[b"b", b"c"])
}

#[test]
fn functions_get_keys_and_arguments() {
    assert_eq!(
        answer("return {keys[1], args[1], args[2], #keys, #args}"),
        "*5|$1|a|$1|b|$1|c|:1|:2|"
    );
    assert_eq!(answer("return redis.call('set', keys[1], 1)"), "+OK|");
    assert_eq!(answer("keys.x = 1 return keys.x"), ":1|");
    assert_eq!(
        answer("return KEYS"),
        "-ERR user_function:2: Script attempted to access nonexistent global variable 'KEYS' \
         script: f, on @user_function:2.|"
    );
    assert_eq!(
        answer("x = 1"),
        "-ERR user_function:2: Attempt to modify a readonly table script: f, on @user_function:2.|"
    );
    assert_eq!(answer("return rawget(_G, 'redis').register_function == nil"), ":1|");
    assert_eq!(answer("return loadstring('return 1 + 1')()"), ":2|");
}

#[test]
fn texts_loaded_by_functions_see_no_keys_of_scripts() {
    let mut bench = Bench::new();
    bench.eval_args(b"return KEYS[1]", &[b"secret"], &[]);
    let body = "redis.register_function('f', function() return loadstring('return KEYS')() end)";
    let library = load(&mut bench, body).unwrap();
    assert!(call(&mut bench, &library, &[], &[]).contains("nonexistent global variable 'KEYS'"));
    // And scripts are as they were.
    assert_eq!(bench.eval_args(b"return KEYS[1]", &[b"k"], &[]), b"$1\r\nk\r\n");
    assert_eq!(bench.eval("return redis.register_function"), "$-1|");
}

#[test]
fn what_is_loaded_sees_little() {
    for name in ["string", "KEYS", "cjson", "error", "_G", "pcall"] {
        assert_eq!(
            load(&mut Bench::new(), &format!("local x = {name}")).unwrap_err(),
            format!(
                "ERR Error registering functions: ERR user_function:2: Script attempted to access \
                 nonexistent global variable '{name}'"
            )
        );
    }
    let failure = load(&mut Bench::new(), "redis.call('get', 'x')").unwrap_err();
    assert!(failure.ends_with("nonexistent global variable 'call'"), "{failure}");
}

#[test]
fn a_failed_load_leaves_the_vm_as_it_was() {
    let mut bench = Bench::new();
    for body in ["local x = nosuch", "redis.register_function('f', function() end) x = 1", "("] {
        assert!(load(&mut bench, body).is_err(), "{body}");
        assert_eq!(bench.eval("return string.rep('a', 3)"), "$3|aaa|");
    }
    let library = load(&mut bench, "redis.register_function('f', function() return 1 end)");
    assert_eq!(call(&mut bench, &library.unwrap(), &[], &[]), ":1|");
    // What fails in one VM only does not keep that one from loading others.
    let fickle = "local n = 0 redis.register_function('f', function() n = n + 1 return n end)";
    let library = load(&mut bench, fickle).unwrap();
    assert_eq!(call(&mut bench, &library, &[], &[]), ":1|");
    assert_eq!(call(&mut bench, &library, &[], &[]), ":2|");
}

#[test]
fn other_vms_load_a_library_silently_when_they_meet_it() {
    let mut bench = Bench::new();
    let body = "redis.log(redis.LOG_NOTICE, 'loaded')
        local function shared() return 7 end
        redis.register_function('f', shared)
        redis.register_function{function_name='g', callback=function() return shared() + 1 end,
          flags={'no-writes', 'Allow-OOM'}, description='adds'}";
    let library = load(&mut bench, body).unwrap();
    assert_eq!(bench.host.log.len(), 1);
    let [f, g] = library.functions() else { panic!("two functions") };
    assert_eq!((f.name(), f.description(), f.flags().no_writes), ("f", None, false));
    assert_eq!((g.name(), g.description()), ("g", Some(&b"adds"[..])));
    assert!(g.flags().no_writes && g.flags().allow_oom && !g.flags().allow_stale);
    bench.vm = Vm::new(VmOptions::default());
    assert_eq!(call(&mut bench, &library, &[], &[]), ":7|");
    assert_eq!(bench.host.log.len(), 1);
    assert_eq!(bench.vm.loaded_scripts(), 2);
    for script in library.scripts() {
        bench.vm.forget(script.sha());
    }
    assert_eq!(bench.vm.loaded_scripts(), 0);
    assert_eq!(call(&mut bench, &library, &[], &[]), ":7|");
}

#[test]
fn loading_can_be_ended() {
    let mut bench = Bench::new();
    let interrupter = bench.vm.interrupter();
    let is_done = AtomicBool::new(false);
    let failure = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                interrupter.request();
                std::thread::yield_now();
            }
        });
        let failure = load(&mut bench, "while true do end").unwrap_err();
        is_done.store(true, Ordering::Relaxed);
        failure
    });
    assert_eq!(
        failure,
        "ERR Error registering functions: ERR Script killed by user with SCRIPT KILL..."
    );
    let library = load(&mut bench, "redis.register_function('f', function() return 1 end)");
    assert_eq!(call(&mut bench, &library.unwrap(), &[], &[]), ":1|");
}

#[test]
fn a_function_that_dies_of_memory_can_be_called_again() {
    let mut bench = Bench::with(VmOptions { memory_limit_bytes: 8 << 20, ..VmOptions::default() });
    let body = "redis.register_function('f', function(keys) \
                if #keys > 0 then return string.rep('x', 1e8) end return 1 end)";
    let library = load(&mut bench, body).unwrap();
    let mut out = Vec::new();
    let script = library.scripts().remove(0);
    let outcome = bench.vm.run(&mut bench.host, &script, &[b"k"], &[], Protocol::Resp2, &mut out);
    assert_eq!(outcome, Outcome::OutOfMemory);
    assert_eq!(out, b"-ERR not enough memory script: f\r\n");
    assert_eq!(call(&mut bench, &library, &[], &[]), ":1|");
}

#[test]
fn registering_many_functions_is_bounded_by_memory() {
    let mut bench = Bench::with(VmOptions { memory_limit_bytes: 8 << 20, ..VmOptions::default() });
    let body = "for i = 1, 1e9 do redis.register_function('f' .. i, function() return i end) end";
    assert_eq!(
        load(&mut bench, body).unwrap_err(),
        "ERR Error registering functions: ERR not enough memory"
    );
}

//! Scripts that do not end by themselves end when the host says so.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lua::{Interrupter, Outcome, VmOptions};
use support::{Bench, tidy};

/// How often a watchdog asks again.
const RETRY: Duration = Duration::from_millis(10);

/// Far beyond what any of these scripts should take once it is to be killed.
const PATIENCE: Duration = Duration::from_secs(20);

const KILLED: &[u8] = b"-ERR Script killed by user with SCRIPT KILL... script: ";

/// Asks the VM to tick from another thread until the guard is dropped.
struct Watchdog {
    done: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    fn start(interrupter: Interrupter, name: String) -> Watchdog {
        let done = Arc::new(AtomicBool::new(false));
        let seen = done.clone();
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while !seen.load(Ordering::Relaxed) {
                interrupter.request();
                thread::park_timeout(RETRY);
                if start.elapsed() > PATIENCE {
                    eprintln!("not interrupted: {name}");
                    std::process::abort();
                }
            }
        });
        Watchdog { done, thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}

const RUNAWAYS: &[&str] = &[
    "while true do end",
    "repeat until false",
    "for i = 1, math.huge do end",
    "local i = 0 while true do i = i + 1 end",
    "local s = 0 for i = 1, 1e18 do s = s + i % 7 end return s",
    "local t = {} local i = 0 while true do i = i + 1 t[i % 100] = i end",
    "local s = '' while true do s = ('x'):rep(10) end",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(error, 'x') end",
    "return pcall(function() while true do end end)",
    "local function f() return pcall(f) or f() end while true do f() end",
    "while true do xpcall(function() while true do end end, function(e) while true do end end) end",
    "xpcall(function() while true do end end, function(e) while true do end end)",
    "xpcall(function() error('x') end, function(e) while true do end end)",
    "return xpcall(error, function() while true do end end)",
    "while true do coroutine.wrap(function() while true do end end)() end",
    "while true do local c = coroutine.create(function() while true do end end) coroutine.resume(c) end",
    "local c = coroutine.wrap(function() while true do coroutine.yield() end end) while true do c() end",
    "local function f() return f() end f()",
    "local function f() while true do end end local t = setmetatable({}, {__index = f}) return t.x",
    "local t = setmetatable({}, {__tostring = function() while true do end end}) tostring(t)",
    "table.sort({3, 2, 1}, function() while true do end end)",
    "('x'):gsub('.', function() while true do end end)",
    "load(function() while true do end end)",
    "load(function() return ' ' end)",
    "while true do load(function() while true do end end) end",
    "load(function() while true do end end) while true do end",
    "load(function() while true do end end) local function f() return f() end f()",
    "while true do redis.call('incr', 'n') end",
    "while true do redis.pcall('nosuch') end",
    "while true do pcall(redis.call, 'nosuch') end",
    "while true do cjson.decode(cjson.encode({1, 2, {a = 3}})) end",
    "while true do pcall(cjson.decode, '{') end",
    "while true do cmsgpack.unpack(cmsgpack.pack({1, 2, {a = 3}})) end",
    "while true do struct.unpack('i', struct.pack('i', 1)) end",
    "while true do redis.sha1hex('x') end",
    "while true do redis.log(redis.LOG_DEBUG, 'x') end",
    "while true do for k in pairs({1, 2, a = 3}) do end end",
    "while true do loadstring('return 1')() end",
    "while true do collectgarbage() end",
    "while true do string.format('%d', 5) end",
    // Long work inside one C function.
    "return ('a'):rep(35):find(('a?'):rep(35) .. ('a'):rep(36))",
    "return ('a'):rep(1e6):find('.-.-.-.-b')",
    "return ('a'):rep(1e6):match('(.*)(.*)(.*)(.*)b')",
    "return ('a'):rep(1e5):gsub('.*.*.*b', '')",
    "for w in ('a'):rep(1e6):gmatch('a*a*a*a*b') do end",
    "local t = {} for i = 1, 3e6 do t[i] = i % 2 end while true do table.sort(t) end",
    "local t = {1} for i = 1, 60 do t = {t, t} end return cjson.encode(t)",
    "local t = {1} for i = 1, 15 do t = {t,t,t,t,t,t,t,t,t,t} end while true do cmsgpack.pack(t) end",
    "local t = {} for i = 1, 60 do t = {t, t} end return t",
];

#[test]
fn runaway_scripts_are_killed() {
    for jit in [true, false] {
        let mut bench = Bench::with(VmOptions { jit, ..VmOptions::default() });
        bench.host.strings.insert(b"n".to_vec(), b"0".to_vec());
        for source in RUNAWAYS {
            // A few ticks first, so that loops are compiled when the kill comes.
            (bench.host.ticks, bench.host.kill_after_ticks) = (0, 3);
            let start = Instant::now();
            let watchdog = Watchdog::start(bench.vm.interrupter(), format!("{source} (jit {jit})"));
            let (outcome, reply) = bench.outcome_args(source.as_bytes(), &[], &[]);
            drop(watchdog);
            let took = start.elapsed();
            assert_eq!(outcome, Outcome::Killed, "{source}: {}", tidy(&reply));
            assert!(reply.starts_with(KILLED), "{source}: {}", tidy(&reply));
            assert!(took < PATIENCE, "{source}: {took:?}");
            assert_eq!(bench.eval("return 1"), ":1|", "after {source}");
        }
    }
}

#[test]
fn interrupted_but_not_killed_scripts_go_on() {
    let mut bench = Bench::new();
    bench.host.kill_after_ticks = u64::MAX;
    let watchdog = Watchdog::start(bench.vm.interrupter(), "counting".into());
    for _ in 0..20 {
        let reply = bench.eval(
            "local s = 0 for i = 1, 2e7 do s = s + i % 7 end \
             local t = {} for i = 1, 1000 do t[i] = redis.call('incr', 'n') end \
             return {s, #t, #('a'):rep(1000):match('a*')}",
        );
        assert_eq!(reply, "*3|:60000003|:1000|:1000|");
    }
    drop(watchdog);
    assert!(bench.host.ticks > 0, "the host was asked at least once");
}

#[test]
fn many_kills_lose_nothing() {
    let mut bench = Bench::new();
    for round in 0..300 {
        let watchdog = Watchdog::start(bench.vm.interrupter(), format!("round {round}"));
        let source = RUNAWAYS[round % 8].as_bytes();
        (bench.host.ticks, bench.host.kill_after_ticks) = (0, 0);
        assert_eq!(bench.outcome_args(source, &[], &[]).0, Outcome::Killed);
        drop(watchdog);
    }
}

#[test]
fn an_idle_or_finished_vm_ignores_requests() {
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || {
        let mut bench = Bench::new();
        bench.host.kill_after_ticks = u64::MAX;
        send.send(bench.vm.interrupter()).unwrap();
        let mut sum = 0;
        for _ in 0..2000 {
            sum += bench.eval("return 1").len();
        }
        sum
    });
    let interrupter = receive.recv().unwrap();
    while !worker.is_finished() {
        interrupter.request();
        thread::yield_now();
    }
    assert_eq!(worker.join().unwrap(), 6000);
    // The VM and its thread are gone.
    interrupter.request();
}

/// A host whose ticks run a script in a second VM of the same thread.
struct NestingHost {
    inner: Bench,
    source: String,
    replies: Vec<String>,
    ticks_max: usize,
}

impl lua::Host for NestingHost {
    fn resolve(&mut self, _: &[u8]) -> Option<u32> {
        None
    }

    fn call(&mut self, _: u32, _: &[&[u8]], _: lua::Protocol, _: &mut lua::Answer) {}

    fn log(&mut self, _: lua::LogLevel, _: &[u8]) {}

    fn acl_check(&mut self, _: &[&[u8]]) -> Result<bool, ()> {
        Err(())
    }

    fn tick(&mut self) -> lua::Tick {
        let reply = self.inner.eval(&self.source);
        self.replies.push(reply);
        match self.replies.len() < self.ticks_max {
            true => lua::Tick::Continue,
            false => lua::Tick::Kill,
        }
    }
}

#[test]
fn a_script_runs_from_within_the_tick_of_another() {
    // Endless in an interpreted loop, in a compiled one, in a C function, in a deep recursion.
    let outer = [
        "while true do local f = loadstring('return 1') f() end",
        "local n = 0 while true do n = n + 1 end",
        "while true do string.find(string.rep('a', 3000), '.-.-.-b') end",
        "local function f(n) return n == 0 and 0 or 1 + f(n - 1) end while true do f(5000) end",
        "local t = {} for i = 1, 200 do t = {t} end while true do cjson.encode(t) end",
        "while true do pcall(function() table.sort({3, 2, 1}, function(a, b) return a < b end) end) end",
    ];
    let inner = [
        ("local n = 0 for i = 1, 1000 do n = n + i end return n", ":500500|"),
        ("error('inner')", "-ERR user_script:1: inner, on @user_script:1.|"),
        ("local function f() return 1 + f() end return pcall(f) and 1 or 2", ":2|"),
        // Killed by its own host's first tick, which the same requests lead to.
        (
            "while true do end",
            "-ERR Script killed by user with SCRIPT KILL..., on @user_script:1.|",
        ),
    ];
    for outer in outer {
        for (source, expected) in inner {
            let mut vm = lua::Vm::new(VmOptions::default());
            let script = vm.compile(outer.as_bytes()).unwrap();
            let mut host = NestingHost {
                inner: Bench::new(),
                source: source.into(),
                replies: Vec::new(),
                ticks_max: 5,
            };
            if !source.starts_with("while") {
                host.inner.host.kill_after_ticks = u64::MAX;
            }
            let mut out = Vec::new();
            let watchdog = Watchdog::start(vm.interrupter(), outer.into());
            let outcome = vm.run(&mut host, &script, &[], &[], lua::Protocol::Resp2, &mut out);
            drop(watchdog);
            assert_eq!(outcome, Outcome::Killed, "{outer}");
            assert_eq!(host.replies, vec![expected; 5], "{outer}");
            // Both are as good as before.
            let script = vm.compile(b"return 7").unwrap();
            out.clear();
            vm.run(&mut host, &script, &[], &[], lua::Protocol::Resp2, &mut out);
            assert_eq!(out, b":7\r\n");
            host.inner.host.kill_after_ticks = u64::MAX;
            assert_eq!(host.inner.eval("return 8"), ":8|");
        }
    }
}

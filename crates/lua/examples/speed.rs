//! Measures the crate alone, in CPU time of this thread: calls of a host that does next to
//! nothing, cjson, and a few plain scripts. `cargo run --release -p lua --example speed`, with
//! words behind `--` to measure only what has one of them in its name.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use lua::{Answer, Host, LogLevel, Protocol, Tick, Vm, VmOptions};

/// Answers at once from constants: what is left is the price of the way there and back.
struct Constant {
    counter: i64,
}

impl Host for Constant {
    fn resolve(&mut self, name: &[u8]) -> Option<u32> {
        let names: [&[u8]; 5] = [b"get", b"incr", b"set", b"zadd", b"lrange"];
        names.iter().position(|known| name.eq_ignore_ascii_case(known)).map(|at| at as u32)
    }

    fn call(&mut self, command: u32, _args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        let mut reply = answer.reply(protocol);
        match command {
            0 => reply.bulk(b"17"),
            1 => {
                self.counter += 1;
                reply.integer(self.counter);
            }
            2 => reply.ok(),
            3 => reply.integer(1),
            _ => {
                reply.array(3);
                for element in [b"a", b"b", b"c"] {
                    reply.bulk(element);
                }
            }
        }
    }

    fn log(&mut self, _level: LogLevel, _message: &[u8]) {}

    fn acl_check(&mut self, _args: &[&[u8]]) -> Result<bool, ()> {
        Ok(true)
    }

    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
}

fn thread_cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every supported system and `time` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

struct Bench {
    vm: Vm,
    host: Constant,
    out: Vec<u8>,
    /// Words of the command line; empty measures all.
    wanted: Vec<String>,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|word| name.contains(word.as_str()))
    }

    /// Best of seven, in nanoseconds per run.
    fn measure(&mut self, source: &str, args: &[&[u8]], runs: usize) -> f64 {
        let script = self
            .vm
            .compile(source.as_bytes())
            .unwrap_or_else(|text| panic!("{}", String::from_utf8_lossy(&text)));
        let mut best = f64::INFINITY;
        for _ in 0..7 {
            let start = thread_cpu_ns();
            for _ in 0..runs {
                self.out.clear();
                self.vm.run(
                    &mut self.host,
                    &script,
                    &[b"key"],
                    args,
                    Protocol::Resp2,
                    &mut self.out,
                );
            }
            best = best.min((thread_cpu_ns() - start) / runs as f64);
        }
        assert!(!self.out.starts_with(b"-"), "{}", String::from_utf8_lossy(&self.out));
        best
    }
}

fn main() {
    let vm = Vm::new(VmOptions::default());
    let wanted = std::env::args().skip(1).collect();
    let mut bench = Bench { vm, host: Constant { counter: 0 }, out: Vec::new(), wanted };
    const LOOP: f64 = 100_000.0;
    for (name, body) in [
        ("INCR", "redis.call('incr', KEYS[1])"),
        ("GET", "redis.call('get', KEYS[1])"),
        ("GET + tonumber", "s = s + tonumber(redis.call('get', KEYS[1]))"),
        ("SET string", "redis.call('set', KEYS[1], 'value')"),
        ("SET number", "redis.call('set', KEYS[1], i)"),
        ("SET key..i", "redis.call('set', 'key' .. i, 'value')"),
        ("ZADD, 3 arguments", "redis.call('zadd', KEYS[1], i, 'member')"),
        ("array of 3", "redis.call('lrange', KEYS[1], 0, -1)"),
        ("pcall INCR", "redis.pcall('incr', KEYS[1])"),
        ("unknown by pcall", "redis.pcall('nosuch')"),
    ] {
        if !bench.wants(name) {
            continue;
        }
        let source = format!("local s = 0 for i = 1, {LOOP} do {body} end return s");
        let ns = bench.measure(&source, &[], 1) / LOOP;
        println!("{name:24} {ns:8.1} ns per call");
    }
    for (name, source) in [
        ("run: return 1", "return 1"),
        ("run: one call", "return redis.call('get', KEYS[1])"),
        ("run: two arguments", "return ARGV[2]"),
    ] {
        if bench.wants(name) {
            let args: &[&[u8]] = if name.ends_with("arguments") { &[b"one", b"two"] } else { &[] };
            println!("{name:24} {:8.1} ns per run", bench.measure(source, args, 50_000));
        }
    }
    for count in [10, 100, 1000] {
        if !bench.wants(&format!("cjson {count}")) {
            continue;
        }
        let item = |at: usize| {
            format!(
                "{{\"id\":{at},\"name\":\"user {at}\",\"email\":\"user{at}@example.com\",\
                 \"score\":{}.25,\"active\":true,\"tags\":[\"a\",\"b\"]}}",
                at * 3
            )
        };
        let text = format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(","));
        let bytes = text.len() as f64;
        let args: &[&[u8]] = &[text.as_bytes()];
        let empty = bench.measure("return #ARGV[1]", args, 200);
        let decode = bench.measure("cjson.decode(ARGV[1]) return 1", args, 200) - empty;
        let both = bench.measure("return #cjson.encode(cjson.decode(ARGV[1]))", args, 200) - empty;
        let merge = bench.measure(
            "local a, b = cjson.decode(ARGV[1]), cjson.decode(ARGV[1]) \
             for i = 1, #b do a[#a + 1] = b[i] end return cjson.encode(a)",
            args,
            200,
        );
        println!(
            "cjson, {count:4} objects: decode {:6.0} MB/s, encode {:6.0} MB/s, merge {:8.1} us",
            bytes / decode * 1e3,
            bytes / (both - decode) * 1e3,
            merge / 1e3
        );
    }
    for (name, source) in [
        ("numeric loop 1e6", "local s = 0 for i = 1, 1e6 do s = s + i % 7 * 2 end return s"),
        (
            "1e5 parts concatenated",
            "local t = {} for i = 1, 1e5 do t[#t + 1] = 'part' .. i end return #table.concat(t)",
        ),
        (
            "1e5 parts, table.insert",
            "local t = {} for i = 1, 1e5 do table.insert(t, 'part' .. i) end return #table.concat(t)",
        ),
        (
            "sort of 1e4",
            "local t, x = {}, 1 for i = 1, 1e4 do x = x * 16807 % 2147483647 t[i] = x end \
          table.sort(t) return t[1]",
        ),
        (
            "sort of 1e4, function",
            "local t, x = {}, 1 for i = 1, 1e4 do x = x * 16807 % 2147483647 t[i] = x end \
          table.sort(t, function(a, b) return a > b end) return t[1]",
        ),
        (
            "sort of 1e4 strings",
            "local t, x = {}, 1 for i = 1, 1e4 do x = x * 16807 % 2147483647 t[i] = 'k' .. x end \
          table.sort(t) return t[1]",
        ),
        (
            "pairs over 1e4",
            "local t = {} for i = 1, 1e4 do t['k' .. i] = i end local s = 0 \
          for k, v in pairs(t) do s = s + v end return s",
        ),
    ] {
        if !bench.wants(name) {
            continue;
        }
        println!("{name:24} {:8.1} us per run", bench.measure(source, &[], 5) / 1e3);
    }
    println!("traces {}, heap {} KB", bench.vm.compiled_traces(), bench.vm.used_bytes() / 1024);
}

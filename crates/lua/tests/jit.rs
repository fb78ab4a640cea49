//! The JIT compiler is on, and calls of commands do not leave compiled code.

use lua::{Answer, Host, LogLevel, Protocol, Tick, Vm, VmOptions, in_compiled_code};

/// Counts how many of its calls came from compiled code.
#[derive(Default)]
struct Witness {
    calls: u32,
    compiled: u32,
}

impl Host for Witness {
    fn resolve(&mut self, _name: &[u8]) -> Option<u32> {
        Some(0)
    }

    fn call(&mut self, _command: u32, args: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        self.calls += 1;
        self.compiled += u32::from(in_compiled_code());
        let mut reply = answer.reply(protocol);
        match args[0] {
            b"string" => reply.bulk(b"value"),
            b"encoded" => answer.encoded().extend_from_slice(b"$5\r\nvalue\r\n"),
            b"ok" => reply.ok(),
            b"status" => reply.status("PONG"),
            b"null" => reply.null(),
            b"error" => reply.error("ERR no"),
            _ => reply.integer(1),
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

fn run(vm: &mut Vm, source: &str) -> (Witness, Vec<u8>) {
    let (mut witness, mut out) = (Witness::default(), Vec::new());
    let script = vm.compile(source.as_bytes()).unwrap();
    vm.run(&mut witness, &script, &[b"key"], &[b"value"], Protocol::Resp2, &mut out);
    (witness, out)
}

#[test]
fn loops_are_compiled_and_run() {
    let mut vm = Vm::new(VmOptions::default());
    let before = vm.compiled_traces();
    let (_, reply) = run(&mut vm, "local s = 0 for i = 1, 1e6 do s = s + i % 3 end return s");
    assert_eq!(reply, b":1000000\r\n");
    assert!(vm.compiled_traces() > before);
}

#[test]
fn commands_are_called_from_compiled_code() {
    for body in [
        "redis.call('incr', KEYS[1])",
        "redis.call('string', KEYS[1])",
        "redis.call('encoded', KEYS[1])",
        "redis.call('ok', KEYS[1], 'v')",
        "redis.call('status', KEYS[1], 'v')",
        "redis.call('set', KEYS[1], i)",
        "redis.call('null', KEYS[1], i, 'x')",
        "redis.call('a', 'b', 'c', 'd', i)",
        "redis.call('a', i, i, i, i, i, i, i, i, i)",
        "redis.pcall('incr', 'key' .. i)",
        "redis.pcall('error', KEYS[1])",
        "local v = redis.call('string', KEYS[1]) if v == 'value' then redis.call('x') end",
    ] {
        let mut vm = Vm::new(VmOptions::default());
        let (witness, reply) = run(&mut vm, &format!("for i = 1, 10000 do {body} end return 1"));
        assert_eq!(reply, b":1\r\n", "{body}");
        assert!(
            witness.compiled * 10 > witness.calls * 9,
            "{body}: {} of {} calls",
            witness.compiled,
            witness.calls
        );
    }
}

#[test]
fn the_jit_can_be_turned_off() {
    let mut vm = Vm::new(VmOptions { jit: false, ..VmOptions::default() });
    let (witness, _) = run(&mut vm, "for i = 1, 10000 do redis.call('incr', KEYS[1]) end");
    assert_eq!((witness.calls, witness.compiled, vm.compiled_traces()), (10000, 0, 0));
}

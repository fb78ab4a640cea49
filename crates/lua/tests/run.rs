//! Runs of scripts against a host in memory: calls, conversions, errors, the life of a VM.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use lua::{LogLevel, Outcome, Protocol, Vm, VmOptions};
use support::{Bench, FakeHost};

#[test]
fn values_become_replies() {
    let mut bench = Bench::new();
    for (source, reply) in [
        ("return 1", ":1|"),
        ("return -3.99", ":-3|"),
        ("return 0/0", ":-9223372036854775808|"),
        ("return 1e300", ":-9223372036854775808|"),
        ("return 'a\\r\\nb'", "$4|a|b|"),
        ("return true", ":1|"),
        ("return false", "$-1|"),
        ("return nil", "$-1|"),
        ("return", "$-1|"),
        (
            "return print_is_not_here == 1",
            "-ERR user_script:1: Script attempted to access \
          nonexistent global variable 'print_is_not_here', on @user_script:1.|",
        ),
        ("return {1,'two',{3},false,nil,5}", "*4|:1|$3|two|*1|:3|$-1|"),
        ("return {}", "*0|"),
        ("return {ok='fine\\r\\n'}", "+fine  |"),
        ("return {err='MY way\\nout\\n'}", "-MY way out|"),
        ("return {ok=1, 7}", "*1|:7|"),
        ("return {double=3.5}", "$3|3.5|"),
        ("return {map={a=1}}", "*2|$1|a|:1|"),
        ("return {set={a=true}}", "*1|$1|a|"),
        ("return {big_number='12\\n3'}", "$4|12 3|"),
        ("return {verbatim_string={format='txt',string='hello'}}", "$5|hello|"),
        ("return function() end", "$-1|"),
        ("return 1, 2", ":1|"),
    ] {
        assert_eq!(bench.eval(source), reply, "{source}");
    }
    bench.protocol = Protocol::Resp3;
    for (source, reply) in [
        ("return true", ":1|"),
        ("return false", "_|"),
        ("redis.setresp(3) return {true,false}", "*2|#t|#f|"),
        ("return {double=3.5}", ",3.5|"),
        ("return {double=0/0}", ",nan|"),
        ("return {double=1/0}", ",inf|"),
        ("return {map={a={1}}}", "%1|$1|a|*1|:1|"),
        ("return {set={a=true}}", "~1|$1|a|"),
        ("return {big_number='12\\n3'}", "(12 3|"),
        ("return {verbatim_string={format='txt',string='hello'}}", "=9|txt:hello|"),
    ] {
        assert_eq!(bench.eval(source), reply, "{source}");
    }
}

#[test]
fn a_cyclic_table_ends() {
    let mut bench = Bench::new();
    let reply = bench.eval("local t = {} t[1] = t return t");
    assert!(reply.starts_with("*1|*1|") && reply.ends_with("-ERR reached lua stack limit|"));
    assert_eq!(bench.eval("return 1"), ":1|");
}

#[test]
fn calls_reach_the_host() {
    let mut bench = Bench::new();
    assert_eq!(bench.eval("return redis.call('SET','k','v')"), "+OK|");
    assert_eq!(bench.eval("return redis.call('get','k')"), "$1|v|");
    assert_eq!(bench.eval("return redis.call('get','nosuch')"), "$-1|");
    assert_eq!(bench.eval("return type(redis.call('get','nosuch'))"), "$7|boolean|");
    assert_eq!(
        bench.eval("local s = 0 for i = 1, 1000 do s = s + redis.call('incr','n') end return s"),
        ":500500|"
    );
    assert_eq!(bench.eval("return server.call('Incr','n')"), ":1001|");
    assert_eq!(bench.eval("return redis.call('rpush','l','a','b',3)"), ":3|");
    assert_eq!(bench.eval("return redis.call('lrange','l',0,-1)"), "*3|$1|a|$1|b|$1|3|");
    assert_eq!(bench.eval("return redis.call('nested')"), "*2|-ERR inner|$-1|");
}

#[test]
fn arguments_of_every_count_arrive() {
    let mut bench = Bench::new();
    for count in 0..40 {
        let values: Vec<String> = (0..count)
            .map(|at| if at % 3 == 0 { format!("{at}.5") } else { format!("'v{at}'") })
            .collect();
        let expected: String = (0..count)
            .map(|at| if at % 3 == 0 { format!("{at}.5") } else { format!("v{at}") })
            .map(|text| format!("${}|{text}|", text.len()))
            .collect();
        for function in ["call", "pcall"] {
            let arguments: String = values.iter().map(|value| format!(",{value}")).collect();
            let reply = bench.eval(&format!("return redis.{function}('eChO'{arguments})"));
            assert_eq!(reply, format!("*{count}|{expected}"), "{function} {count}");
            assert_eq!(bench.host.last_args[0], b"eChO");
        }
    }
    let reply = bench.eval(
        "local t = {} for i = 1, 7000 do t[i] = i end \
                            return redis.call('count', unpack(t))",
    );
    assert_eq!(reply, ":7000|");
    for (value, text) in [("1e15", "1000000000000000"), ("-0", "0"), ("1/3", "0.3333333333333333")]
    {
        bench.eval(&format!("return redis.call('echo', {value})"));
        assert_eq!(bench.host.last_args[1], text.as_bytes());
    }
}

#[test]
fn replies_become_values() {
    let mut bench = Bench::new();
    let describe = "local function d(v) if type(v) ~= 'table' then return type(v)..':'..tostring(v) \
        end local n = {} for k in pairs(v) do n[#n+1] = tostring(k) end table.sort(n) \
        for i, k in ipairs(n) do local e = v[k] if e == nil then e = v[tonumber(k)] end \
        n[i] = k..'='..d(e) end return '{'..table.concat(n, ' ')..'}' end ";
    let reply = bench.eval(&format!("{describe} return d(redis.call('shapes'))"));
    assert_eq!(
        reply,
        "$169|{1={1=string:key 2=number:1} 2={1=string:a 2=string:b} 3=string:1.5 4=number:1 \
         5=boolean:false 6=string:123456789012345678901234567890 7=string:hello 8={ok=string:FINE}}|"
    );
    let reply = bench.eval(&format!("redis.setresp(3) {describe} return d(redis.call('shapes'))"));
    assert_eq!(
        reply,
        "$233|{1={map={key=number:1}} 2={set={a=boolean:true b=boolean:true}} \
         3={double=number:1.5} 4=boolean:true \
         6={big_number=string:123456789012345678901234567890} \
         7={verbatim_string={format=string:txt string=string:hello}} 8={ok=string:FINE}}|"
    );
    assert_eq!(bench.eval("return type(redis.call('get','nosuch'))"), "$7|boolean|");
    assert_eq!(bench.eval("redis.setresp(3) return type(redis.call('get','x'))"), "$3|nil|");
}

#[test]
fn errors_carry_text_and_place() {
    let mut bench = Bench::new();
    bench.eval("return redis.call('set','s','abc')");
    let not_an_integer = "ERR value is not an integer or out of range";
    for (source, reply) in [
        ("\nreturn redis.call('incr','s')", format!("-{not_an_integer}, on @user_script:2.|")),
        ("return redis.pcall('incr','s')", format!("-{not_an_integer}|")),
        ("return {pcall(redis.call,'incr','s')}", format!("*2|$-1|$43|{not_an_integer}|")),
        ("return select(2, pcall(redis.call,'incr','s'))", format!("$43|{not_an_integer}|")),
        ("error('x')", "-ERR user_script:1: x, on @user_script:1.|".into()),
        ("\n\nerror('x', 0)", "-ERR x, on @user_script:3.|".into()),
        ("error({err='My err'})", "-My err, on @user_script:1.|".into()),
        ("error()", "-ERR nil, on @user_script:1.|".into()),
        ("error({})", "-ERR unknown error, on @user_script:1.|".into()),
        ("local x = nil + 1", "-ERR user_script:1: attempt to perform arithmetic on a nil value, \
                               on @user_script:1.|".into()),
        ("redis.call('nosuch')",
         "-ERR Unknown Redis command called from script, on @user_script:1.|".into()),
        ("redis.call()",
         "-ERR Please specify at least one argument for this redis lib call, on @user_script:1.|"
             .into()),
        ("redis.call('get',{})", "-ERR Lua redis lib command arguments must be strings or \
                                  integers, on @user_script:1.|".into()),
        ("return redis.pcall('get',{})",
         "-ERR Lua redis lib command arguments must be strings or integers|".into()),
        ("x x", "-ERR Error compiling script (new function): user_script:1: '=' expected near 'x'|"
            .into()),
        ("return redis.pcall('get',1,2,3,4,5,6,7,8,9,10,11)",
         "-ERR Wrong number of args calling Redis command from script|".into()),
    ] {
        assert_eq!(bench.eval(source), reply, "{source}");
    }
}

#[test]
fn the_suffix_names_the_script() {
    let mut bench = Bench::new();
    let reply = bench.eval_args(b"error('x')", &[], &[]);
    let sha = bench.vm.compile(b"error('x')").unwrap().sha_hex().to_string();
    let expected = format!("-ERR user_script:1: x script: {sha}, on @user_script:1.\r\n");
    assert_eq!(String::from_utf8(reply).unwrap(), expected);
}

#[test]
fn keys_and_arguments_belong_to_one_run() {
    let mut bench = Bench::new();
    let source = b"return {#KEYS, #ARGV, KEYS[1] or '-', ARGV[1] or '-'}";
    let reply = bench.eval_args(source, &[b"k", b"l"], &[b"a"]);
    assert_eq!(reply, b"*4\r\n:2\r\n:1\r\n$1\r\nk\r\n$1\r\na\r\n");
    let reply = bench.eval_args(source, &[], &[]);
    assert_eq!(reply, b"*4\r\n:0\r\n:0\r\n$1\r\n-\r\n$1\r\n-\r\n");
}

#[test]
fn the_rest_of_the_api() {
    let mut bench = Bench::new();
    for (source, reply) in [
        ("return redis.error_reply('x')", "-ERR x|"),
        ("return redis.error_reply('-CODE x y')", "-CODE x y|"),
        ("return redis.error_reply('-x')", "-ERR x|"),
        ("return redis.error_reply({})", "-ERR wrong number or type of arguments|"),
        ("return redis.status_reply('fine')", "+fine|"),
        ("return redis.sha1hex('')", "$40|da39a3ee5e6b4b0d3255bfef95601890afd80709|"),
        ("return redis.replicate_commands()", ":1|"),
        ("return redis.breakpoint()", "$-1|"),
        ("return redis.debug('x')", "$-1|"),
        ("return redis.acl_check_cmd('get','k')", ":1|"),
        ("return redis.acl_check_cmd('get','k','l','m')", "$-1|"),
        (
            "return redis.acl_check_cmd('nosuch')",
            "-ERR Invalid command passed to redis.acl_check_cmd(), on @user_script:1.|",
        ),
        ("return {redis.REDIS_VERSION, redis.REDIS_VERSION_NUM}", "*2|$5|7.2.4|:459268|"),
        ("redis.set_repl(redis.REPL_AOF)", "$-1|"),
        ("redis.log(redis.LOG_WARNING, 'a', 1, 'b')", "$-1|"),
        ("return redis.register_function", "$-1|"),
    ] {
        assert_eq!(bench.eval(source), reply, "{source}");
    }
    assert_eq!(bench.host.replication, Some((true, false)));
    assert_eq!(bench.host.log, [(LogLevel::Warning, b"a 1 b".to_vec())]);
}

#[test]
fn scripts_are_shared_between_vms() {
    let script = std::sync::Arc::new(Bench::new().vm.compile(b"return #ARGV[1]").unwrap());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let script = script.clone();
            std::thread::spawn(move || {
                let (mut vm, mut out) = (Vm::new(VmOptions::default()), Vec::new());
                let mut host = FakeHost::default();
                for _ in 0..100 {
                    vm.run(&mut host, &script, &[], &[b"four"], Protocol::Resp2, &mut out);
                }
                assert_eq!(vm.loaded_scripts(), 1);
                vm.forget(script.sha());
                assert_eq!(vm.loaded_scripts(), 0);
                vm.run(&mut host, &script, &[], &[b"four"], Protocol::Resp2, &mut out);
                assert_eq!(out, b":4\r\n".repeat(101));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_panicking_host_is_not_lost() {
    let mut bench = Bench::new();
    let source = "return pcall(redis.call, 'panic')";
    let panic = catch_unwind(AssertUnwindSafe(|| bench.eval(source))).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "the host panicked");
    assert_eq!(bench.eval("return 1"), ":1|");
}

#[test]
fn memory_has_a_limit() {
    let mut bench = Bench::with(VmOptions { memory_limit_bytes: 8 << 20, ..VmOptions::default() });
    for source in [
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "return #string.rep('x', 1e9)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t = {t} end",
        "local t = {} for i = 1, 1e8 do t[i] = function() return t end end",
        "local t = {} for i = 1, 1e8 do t['key' .. i] = i end",
        "local t = {} for i = 1, 1e8 do t[i] = coroutine.create(function() end) end",
        "return table.concat({string.rep('x', 4e6), string.rep('y', 4e6), string.rep('z', 4e6)})",
        "local t = {} for i = 1, 1e8 do t[i] = KEYS end return t",
        "return cjson.decode('[' .. string.rep('1,', 1.2e6) .. '1]')",
    ] {
        let (outcome, reply) = bench.outcome_args(source.as_bytes(), &[], &[]);
        assert_eq!(outcome, Outcome::OutOfMemory, "{source}: {}", support::tidy(&reply));
        assert!(reply.starts_with(b"-ERR not enough memory"), "{}", support::tidy(&reply));
        assert_eq!(bench.eval("return 1"), ":1|");
    }
    // A caught one leaves the script running.
    assert_eq!(bench.eval("local ok = pcall(string.rep, 'x', 1e9) return {ok, 1}"), "*2|$-1|:1|");
    assert!(bench.vm.used_bytes() < 8 << 20);
}

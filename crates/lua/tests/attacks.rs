//! Known ways out of a Lua sandbox, tried here; and ways to leave something for the next script.

mod support;

use lua::{Outcome, VmOptions};
use support::{Bench, tidy};

/// Runs a script that must fail or return without harm, then checks that the VM still works and
/// that the shared tables are what they were.
fn survives(bench: &mut Bench, source: &str) -> (Outcome, String) {
    let (outcome, reply) = bench.outcome_args(source.as_bytes(), &[], &[]);
    assert_eq!(bench.eval(INTACT), "$6|intact|", "after {source}");
    (outcome, tidy(&reply))
}

const INTACT: &str = "
  assert(type(redis.call) == 'function' and redis.sha1hex('') == 'da39a3ee5e6b4b0d3255bfef95601890afd80709')
  assert(('x'):rep(3) == 'xxx' and string.rep('x', 3) == 'xxx' and ('x').evil == nil)
  assert(cjson.encode({a = {1, 2}}) == '{\"a\":[1,2]}' and cjson.decode('[1]')[1] == 1)
  assert(bit.band(7, 2) == 2 and struct.size('i') == 4 and math.floor(1.5) == 1)
  assert(rawget(_G, 'evil') == nil and rawget(redis, 'evil') == nil and rawget(string, 'evil') == nil)
  for name, value in pairs(_G) do assert(name ~= 'evil', name) end
  for _, library in pairs({_G, redis, string, table, math, cjson, bit, coroutine, cmsgpack, struct, os}) do
    assert(next(library) ~= nil and rawget(library, 1) == nil)
  end
  assert(#KEYS == 0 and #ARGV == 0 and KEYS.evil == nil)
  return 'intact'";

#[test]
fn bit_tohex_with_the_smallest_integer() {
    let mut bench = Bench::new();
    for digits in ["-2147483648", "2147483647", "-2147483649", "1e300", "-1e300", "0/0"] {
        let (_, reply) = survives(&mut bench, &format!("return bit.tohex(65535, {digits})"));
        assert!(reply.len() < 120, "{reply}");
    }
}

#[test]
fn garbage_collection_and_userdata() {
    let mut bench = Bench::new();
    for source in [
        "setmetatable(cjson.null, {__gc = function() end})",
        "local p = newproxy(true) getmetatable(p).__gc = function() redis.call('set', 'a', 1) end",
        "local t = setmetatable({}, {__gc = function() evil() end}) t = nil collectgarbage() \
         collectgarbage()",
        "collectgarbage('stop') local t = {} for i = 1, 1e5 do t = {t} end",
        "collectgarbage('setpause', 1e9) collectgarbage('setstepmul', 0) return 1",
        "for i = 1, 100 do collectgarbage('step', i) end",
        "local t = setmetatable({}, {__mode = 'kv'}) for i = 1, 1e4 do t[{}] = {} end \
         collectgarbage() local n = 0 for k in pairs(t) do n = n + 1 end return n",
        "return cjson.new() and collectgarbage() and cjson.new().encode({1})",
        "local e = cjson.new().encode collectgarbage() collectgarbage() return e({1})",
        "local t = cjson.decode('[[1,2],{\"a\":[3]}]') collectgarbage() collectgarbage() \
         return t[2].a[1]",
        "local n = 0 for i = 1, 200 do local t = cjson.decode('{\"k' .. i .. '\":[1,2,\"x' .. i .. \
         '\"]}') if i % 7 == 0 then collectgarbage() end n = n + #t['k' .. i][3] end return n",
    ] {
        survives(&mut bench, source);
    }
}

#[test]
fn the_parser_and_its_strings() {
    let mut bench = Bench::new();
    for source in [
        "for i = 1, 300 do local f = loadstring('return \"' .. ('y'):rep(i) .. '\"', \
         ('name'):rep(i)) collectgarbage() assert(#f() == i) end",
        "local n = 0 local f = load(function() n = n + 1 collectgarbage() \
         if n < 500 then return 'local a' .. n % 100 .. ' = \"' .. ('z'):rep(n) .. '\" ' end end)",
        "local f = load(function() error('in the reader') end) return f == nil",
        "local f = load(function() return {} end)",
        "load(coroutine.wrap(function() while true do coroutine.yield('x = ') end end))",
        "return loadstring(('('):rep(1e5))",
        "return loadstring('return ' .. ('{'):rep(1e5))",
        "return loadstring('return ' .. ('-'):rep(1e5) .. '1')",
        "return loadstring('return ' .. ('a.'):rep(1e5) .. 'b')",
        "return loadstring(('do '):rep(1e5))",
        "return loadstring('return ' .. ('not '):rep(1e5) .. '1')",
        "return loadstring('return ' .. ('\"a\"..'):rep(1e5) .. '1')",
        "return loadstring('return ' .. ('1,'):rep(1e5) .. '1')",
        "return loadstring('local ' .. ('a,'):rep(1e5) .. 'a')",
        "return loadstring(('local a '):rep(300))",
        "return loadstring('return {' .. ('{},'):rep(1e5) .. '}')",
        "return loadstring('x = ' .. ('function() return '):rep(1e4))",
        "return loadstring('goto ' .. ('x'):rep(1e6))",
        "return loadstring(('x'):rep(1e7))",
        "return loadstring('\"' .. ('\\\\1'):rep(1e6) .. '\"')",
        "return #loadstring('return \"' .. ('\\\\065'):rep(1e5) .. '\"')()",
    ] {
        survives(&mut bench, source);
    }
}

#[test]
fn unpack_with_huge_ranges() {
    let mut bench = Bench::new();
    for range in [
        "1, 1e8",
        "1, 2^31",
        "-2^31, 2^31 - 1",
        "0, 2147483647",
        "2147483647, 2147483648",
        "-2147483648, -1",
        "1, 1e300",
        "1, 0/0",
        "-1e300, 1e300",
        "1, 1e6",
    ] {
        let (outcome, reply) = survives(&mut bench, &format!("return unpack({{}}, {range})"));
        let harmless = outcome == Outcome::Ok || reply.contains("too many results to unpack");
        assert!(harmless, "{range}: {reply}");
    }
    for source in [
        "return ('x'):byte(1, 1e9)",
        "return ('x'):rep(1e6):byte(1, -1)",
        "return string.char(unpack({}, 1, 1e7))",
        "return cmsgpack.unpack(('\\1'):rep(1e6))",
        "return struct.unpack(('b'):rep(1e6), ('x'):rep(1e6))",
        "return select('#', unpack({}, 1, 7900))",
        "return redis.call('echo', unpack({}, 1, 7900))",
        "return math.max(unpack({}, 1, 7900))",
        "return ('x'):rep(9000):gsub(('(.)'):rep(32), function(...) return select('#', ...) end)",
        "return ('x'):find(('('):rep(100))",
    ] {
        survives(&mut bench, source);
    }
}

#[test]
fn metatables_of_basic_types() {
    let mut bench = Bench::new();
    for source in [
        "getmetatable('').__index = function() return 'evil' end",
        "getmetatable('').evil = 1",
        "getmetatable('').__add = function() return 'evil' end",
        "rawset(getmetatable(''), '__index', {})",
        "getmetatable('').__index.evil = 1",
        "rawset(getmetatable('').__index, 'evil', 1)",
        "setmetatable(getmetatable('').__index, {__index = function() return 'evil' end})",
        "table.insert(getmetatable('').__index, 'evil')",
        "getmetatable(1).__index = {}",
        "getmetatable(nil).__index = {}",
        "getmetatable(true).__index = {}",
        "getmetatable(redis.call).__index = {}",
        "getmetatable(coroutine.create(function() end)).__index = {}",
        "getmetatable(cjson.null).__index = {}",
        "getmetatable(_G).__index = function() return 'evil' end",
        "getmetatable(_G).__newindex = nil",
        "getmetatable(redis).__newindex = nil",
        "local m = {} setmetatable(_G, m) m.__index = function() return 'evil' end",
        "setmetatable(string, {__index = {evil = 1}})",
        "for k, v in pairs(_G) do if type(v) == 'table' then v.evil = 1 end end",
        "for k, v in pairs(_G) do if type(v) == 'table' then rawset(v, 'evil', 1) end end",
        "for k, v in pairs(_G) do if type(v) == 'table' then table.insert(v, 'evil') end end",
        "for k, v in pairs(_G) do if type(v) == 'table' then setmetatable(v, {}) end end",
        "local f, t = pairs(redis) t.call = function() return 'evil' end",
        "local f, t = pairs(_G) t.redis = nil t.evil = 1",
        "local f, t = pairs(getmetatable('')) t.__index = nil",
        "local f, t = ipairs(redis) t.evil = 1",
        "local _, t = next(_G, 'string') rawset(t, 'evil', 1)",
        "local m = getmetatable(setmetatable({}, {__index = string})) m.__index.evil = 1",
        "table.foreach(_G, function(k, v) if type(v) == 'table' then v.evil = 1 end end)",
        "table.sort(redis, function() return true end) table.remove(redis) table.remove(_G, 1)",
        "table.setn(redis, 5)",
        "('').format = 1",
        "('evil'):rep(3).x = 1",
    ] {
        survives(&mut bench, source);
    }
}

#[test]
fn long_brackets() {
    let mut bench = Bench::new();
    for source in [
        "return loadstring('return [' .. ('='):rep(1e6) .. '[x]' .. ('='):rep(1e6) .. ']')",
        "return loadstring('return [' .. ('='):rep(1e6))",
        "return loadstring('return [' .. ('='):rep(1e6) .. '[' .. ('x'):rep(1e6))",
        "return loadstring('--[' .. ('='):rep(1e6) .. '[' .. (']'):rep(1e6))",
        "return loadstring('return [' .. ('='):rep(1e7) .. '[')",
    ] {
        survives(&mut bench, source);
    }
}

#[test]
fn nothing_dangerous_is_within_reach() {
    let mut bench = Bench::new();
    for name in [
        "io", "package", "debug", "require", "module", "dofile", "loadfile", "print", "newproxy",
        "getfenv", "setfenv", "jit", "ffi",
    ] {
        let reply = bench.eval(&format!("return {name}"));
        assert!(reply.contains("nonexistent global variable"), "{name}: {reply}");
        assert_eq!(bench.eval(&format!("return rawget(_G, '{name}')")), "$-1|");
    }
    for name in [
        "os.execute",
        "os.getenv",
        "os.exit",
        "os.remove",
        "os.rename",
        "os.time",
        "os.tmpname",
        "os.date",
        "os.setlocale",
        "string.buffer",
        "table.new",
        "table.clear",
        "table.move",
        "coroutine.isyieldable",
        "math.mystery",
        "debug_",
        "cjson.integer_mt",
    ] {
        assert_ne!(bench.eval(&format!("return {name} ~= nil")), ":1|", "{name}");
    }
    // Bytecode, made here or elsewhere, in one piece or by a reader.
    for source in [
        "return loadstring(string.dump(function() return 1 end))",
        "return loadstring('\\27LJ\\2\\0\\0')",
        "return loadstring('\\27Lua')",
        "local d = string.dump(function() return 1 end) local f = load(function() local s = d \
         d = nil return s end) return f",
        "return load(string.dump(function() end), 'x', 'b')",
        "return loadstring(string.dump(function() end), 'x', 'b')",
        "return load('return 1', 'x', 'bt', {})",
        "return loadstring(string.dump(loadstring('return 1')))",
    ] {
        let (outcome, reply) = survives(&mut bench, source);
        assert!(outcome == Outcome::Error || reply == "$-1|", "{source}: {reply}");
    }
    assert!(bench.eval("return string.dump(redis.call)").starts_with("-ERR"));
    // Integer and complex literals would be cdata.
    for source in ["return 1LL", "return 1ULL", "return 1i", "return 0x1LL", "return 12ull"] {
        assert!(bench.eval(source).contains("malformed number"), "{source}");
    }
    for text in ["1LL", "1ULL", "1i", "0x1ull"] {
        assert_eq!(bench.eval(&format!("return tonumber('{text}')")), "$-1|");
    }
    assert!(bench.eval("return bit.tobit('1LL')").starts_with("-ERR"));
    // Frames of our own are not visible in texts.
    for source in [
        "local ok, e = pcall(redis.call, 'get', {}) return tostring(e)",
        "local ok, e = pcall(rawset, redis, 1, 1) return e",
        "return select(2, pcall(loadstring))",
        "return select(2, pcall(math.random, 0))",
        "return select(2, pcall(bit.tohex))",
        "return select(2, pcall(setmetatable, 1, 1))",
        "return select(2, pcall(table.insert, nil, 1))",
        "return select(2, pcall(string.rep))",
        "return select(2, pcall(xpcall))",
        "return select(2, pcall(next, {}, 'x'))",
        "local co = coroutine.create(function() redis.call('nosuch') end) \
         local ok, e = coroutine.resume(co) return e.err",
    ] {
        let reply = bench.eval(source);
        assert!(!reply.contains("luar"), "{source}: {reply}");
    }
}

#[test]
fn a_script_leaves_nothing_for_the_next() {
    let mut bench = Bench::new();
    for (first, second, expected) in [
        ("redis.setresp(3)", "return redis.call('shapes')[4]", ":1|"),
        (
            "cjson.encode_max_depth(2) cjson.encode_number_precision(3)",
            "return cjson.encode({{{1/3}}})",
            "$22|[[[0.33333333333333]]]|",
        ),
        ("cjson.decode_max_depth(1)", "return cjson.decode('[[1]]')[1][1]", ":1|"),
        (
            "cjson.encode_sparse_array(true)",
            "return {pcall(cjson.encode, {[1000]=1})}",
            "*2|$-1|$48|Cannot serialise table: excessively sparse array|",
        ),
        ("cjson.encode_invalid_numbers(true)", "return pcall(cjson.encode, 0/0)", "$-1|"),
        ("KEYS.evil = 1 ARGV[1] = 'evil'", "return {KEYS.evil or 0, #ARGV}", "*2|:0|:0|"),
        ("local k = KEYS k[1] = 'evil'", "return #KEYS", ":0|"),
        ("pcall(function() evil = 1 end)", "return rawget(_G, 'evil')", "$-1|"),
        ("loadstring('evil = 1')", "return rawget(_G, 'evil')", "$-1|"),
        (
            "coroutine.wrap(function() pcall(rawset, _G, 'evil', 1) end)()",
            "return rawget(_G, 'evil')",
            "$-1|",
        ),
    ] {
        bench.eval(first);
        let reply = bench.eval(second);
        assert_eq!(reply, expected, "{first} then {second}");
        assert_eq!(bench.eval(INTACT), "$6|intact|", "after {first}");
    }
    assert_ne!(bench.eval("return math.random(1e9)"), Bench::new().eval("return math.random(1e9)"));
}

#[test]
fn a_script_leaves_nothing_in_the_lists_of_the_next() {
    let mut bench = Bench::new();
    let seen = "local t = {} for k, v in pairs(KEYS) do t[#t + 1] = k .. '=' .. v end \
                table.sort(t) return {#KEYS, tostring(getmetatable(KEYS)), table.concat(t, ' '), \
                unpack(ARGV)}";
    for first in [
        "return #KEYS",
        "KEYS[0] = 'evil'",
        "KEYS[1], KEYS[2], KEYS[3] = nil, nil, nil",
        "KEYS[3] = {} ARGV[1] = KEYS",
        "table.insert(KEYS, 'evil') table.remove(KEYS)",
        "table.insert(KEYS, 'evil')",
        "table.remove(KEYS)",
        "KEYS.evil = 1",
        "KEYS.evil = 1 KEYS.evil = nil",
        "KEYS[1000] = 'evil'",
        "setmetatable(KEYS, {__index = function() return 'evil' end})",
        "setmetatable(KEYS, {__mode = 'kv'}) collectgarbage()",
        "table.sort(KEYS, function(a, b) return a > b end) collectgarbage()",
        "collectgarbage() for i = 1, 100 do KEYS[2] = 'evil' .. i end",
        "local ok, evil = pcall(rawset, _G, 'KEYS', {'a', 'b', 'c', 'd'})",
    ] {
        bench.outcome_args(first.as_bytes(), &[b"x", b"y", b"z"], &[b"v"]);
        for round in 0..3 {
            let keys = [format!("a{round}"), format!("b{round}"), format!("c{round}")];
            let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
            let (_, reply) = bench.outcome_args(seen.as_bytes(), &keys, &[b"w"]);
            let expected = format!("*4|:3|$3|nil|$14|1=a{round} 2=b{round} 3=c{round}|$1|w|");
            assert_eq!(tidy(&reply), expected, "after {first}");
        }
        let (_, reply) = bench.outcome_args(seen.as_bytes(), &[b"k"], &[]);
        assert_eq!(tidy(&reply), "*3|:1|$3|nil|$3|1=k|", "after {first}");
    }
}

#[test]
fn deep_recursion_ends_in_an_error() {
    let mut bench = Bench::new();
    for source in [
        "local function f() return 1 + f() end return f()",
        "local function f() f() end f()",
        "local function f() return pcall(f) end f()",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k .. 'x'] end \
         return t.a",
        "local t = {} t = setmetatable(t, {__index = t}) return t.x",
        "local t = {} for i = 1, 1000 do t = setmetatable({}, {__index = t}) end return t.x",
        "local function f() return coroutine.wrap(f)() end f()",
        "local function f(s) return s:gsub('.', f) end f('x')",
        "local function f() table.sort({2, 1}, f) end f()",
        "local function f() xpcall(f, f) end f()",
        "local function f() return loadstring('return ...')(f()) end f()",
        "local function f() return load(f) end f()",
        "local t = setmetatable({}, {}) getmetatable(t).__tostring = function() return tostring(t) end \
         tostring(t)",
        "local t = setmetatable({}, {}) getmetatable(t).__concat = function(a) return a .. t end \
         return t .. t",
        "return ('x'):rep(1e5):match(('(x)'):rep(31) .. ('x?'):rep(500))",
        "return ('('):rep(1e4):match('%b()')",
        "local t = {} t[1] = t return t",
        "local t = {} t.map = t return t",
        "local t = {} for i = 1, 1e5 do t = {t} end return t",
        "local t = {} for i = 1, 1e5 do t = {map = {a = t}} end return t",
        "local t = {} for i = 1, 1e5 do t = {t} end return cjson.encode(t)",
        "cjson.encode_max_depth(1e9) local t = {} t[1] = t return cjson.encode(t)",
        "cjson.encode_max_depth(1e9) local t = {} t.x = t return cjson.encode(t)",
        "cjson.decode_max_depth(1e9) return cjson.decode(('['):rep(1e6))",
        "cjson.decode_max_depth(1e9) return cjson.decode(('{\"a\":'):rep(1e6))",
        "return cmsgpack.unpack(('\\145'):rep(1e6))",
        "local t = {} t[1] = t return #cmsgpack.pack(t)",
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
        "return cmsgpack.unpack('\\223\\127\\255\\255\\255')",
        "return cmsgpack.unpack('\\219\\255\\255\\255\\255')",
    ] {
        survives(&mut bench, source);
    }
}

#[test]
fn random_calls_of_every_function_do_no_harm() {
    // Values chosen to be awkward, functions from every library, in a fixed random order.
    let mut bench = Bench::with(VmOptions { memory_limit_bytes: 32 << 20, ..VmOptions::default() });
    let seed = 0x5EED_u64;
    println!("seed {seed:#x}");
    let mut state = seed;
    let mut next = |bound: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % bound
    };
    let values = [
        "nil",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "2",
        "1.5",
        "0/0",
        "1/0",
        "-1/0",
        "2^31",
        "-2^31",
        "2^53",
        "1e300",
        "''",
        "'x'",
        "'%'",
        "'[['",
        "'(.-)'",
        "('x'):rep(100)",
        "'\\0'",
        "{}",
        "{1,2,3}",
        "{a=1}",
        "_G",
        "redis",
        "string",
        "KEYS",
        "redis.call",
        "error",
        "function() end",
        "function(...) return ... end",
        "coroutine.create(function() end)",
        "cjson.null",
        "setmetatable({}, {__index = _G})",
        "'>!4i'",
        "'[1,2]'",
        "'\\145\\1'",
        "getmetatable('')",
    ];
    let functions = [
        "assert",
        "collectgarbage",
        "error",
        "gcinfo",
        "getmetatable",
        "ipairs",
        "load",
        "loadstring",
        "next",
        "pairs",
        "pcall",
        "rawequal",
        "rawget",
        "rawset",
        "select",
        "setmetatable",
        "tonumber",
        "tostring",
        "type",
        "unpack",
        "xpcall",
        "string.byte",
        "string.char",
        "string.dump",
        "string.find",
        "string.format",
        "string.gmatch",
        "string.gsub",
        "string.len",
        "string.lower",
        "string.match",
        "string.reverse",
        "string.sub",
        "string.upper",
        "table.concat",
        "table.foreach",
        "table.foreachi",
        "table.getn",
        "table.insert",
        "table.maxn",
        "table.remove",
        "table.setn",
        "table.sort",
        "math.abs",
        "math.ceil",
        "math.floor",
        "math.fmod",
        "math.frexp",
        "math.ldexp",
        "math.max",
        "math.modf",
        "math.pow",
        "math.random",
        "math.randomseed",
        "coroutine.create",
        "coroutine.resume",
        "coroutine.running",
        "coroutine.status",
        "coroutine.wrap",
        "coroutine.yield",
        "bit.arshift",
        "bit.band",
        "bit.bswap",
        "bit.rol",
        "bit.tobit",
        "bit.tohex",
        "cjson.decode",
        "cjson.encode",
        "cjson.encode_max_depth",
        "cjson.encode_number_precision",
        "cjson.encode_sparse_array",
        "cjson.new",
        "cmsgpack.pack",
        "cmsgpack.unpack",
        "cmsgpack.unpack_one",
        "cmsgpack.unpack_limit",
        "struct.pack",
        "struct.unpack",
        "struct.size",
        "redis.call",
        "redis.pcall",
        "redis.error_reply",
        "redis.status_reply",
        "redis.sha1hex",
        "redis.setresp",
        "redis.set_repl",
        "redis.log",
        "redis.acl_check_cmd",
        "os.clock",
    ];
    for round in 0..400 {
        let mut source = String::from("local results = {} ");
        for _ in 0..20 {
            let function = functions[next(functions.len() as u64) as usize];
            let count = next(4);
            let args: Vec<&str> =
                (0..count).map(|_| values[next(values.len() as u64) as usize]).collect();
            let args = args.join(", ");
            let comma = if args.is_empty() { "" } else { ", " };
            source += &format!("results[#results + 1] = {{pcall({function}{comma}{args})}} ");
        }
        source += "return results";
        let (_, reply) = bench.outcome_args(source.as_bytes(), &[], &[]);
        assert!(!reply.is_empty(), "round {round}");
        if round % 20 == 0 {
            assert_eq!(bench.eval(INTACT), "$6|intact|", "round {round}");
        }
    }
}

//! What cjson has beyond Redis's copy, and texts that go through it and come back.

mod support;

use support::Bench;

#[track_caller]
fn check(source: &str, expected: &str) {
    assert_eq!(Bench::new().eval(source), expected, "{source}");
}

/// A bulk string's reply.
fn bulk(text: &str) -> String {
    format!("${}|{text}|", text.len())
}

#[test]
fn empty_arrays() {
    let encodes = |source: &str, text: &str| {
        check(&format!("return cjson.encode({source})"), &bulk(text));
    };
    encodes("{}", "{}");
    encodes("cjson.empty_array", "[]");
    encodes("{a = cjson.empty_array, b = {}}", r#"{"a":[],"b":{}}"#);
    encodes("setmetatable({}, cjson.empty_array_mt)", "[]");
    encodes("setmetatable({1}, cjson.empty_array_mt)", "[1]");
    encodes("setmetatable({a = 1}, cjson.empty_array_mt)", r#"{"a":1}"#);
    encodes("setmetatable({}, cjson.array_mt)", "[]");
    encodes("setmetatable({1, 2}, cjson.array_mt)", "[1,2]");
    encodes("setmetatable({a = 1}, cjson.array_mt)", "[]");
    check("return type(cjson.empty_array)", "$8|userdata|");
    check("return cjson.empty_array ~= cjson.null", ":1|");
}

#[test]
fn empty_tables_as_arrays() {
    check(
        "cjson.encode_empty_table_as_object(false) return cjson.encode({{}, a = {}})",
        &bulk(r#"{"1":[],"a":[]}"#),
    );
    check("return {cjson.encode_empty_table_as_object()}", "*1|:1|");
    check("return {cjson.encode_empty_table_as_object('off')}", "*1|$-1|");
}

#[test]
fn decoded_arrays_stay_arrays() {
    let text = r#"{"a":[],"b":[[],{}],"c":{}}"#;
    check(
        &format!(
            "cjson.decode_array_with_array_mt(true) local v = cjson.decode('{text}') \
             assert(getmetatable(v.a) == cjson.array_mt and not getmetatable(v.c)) \
             return cjson.encode(v)"
        ),
        &bulk(text),
    );
    check(
        &format!("return cjson.encode(cjson.decode('{text}'))"),
        &bulk(r#"{"a":{},"b":[{},{}],"c":{}}"#),
    );
}

#[test]
fn exact_integers() {
    let text =
        "[1,-1,0,100000000000000,9007199254740991,-9007199254740993,12345678901234567890,1.5]";
    check(
        &format!("cjson.exact_integers(true) return cjson.encode(cjson.decode('{text}'))"),
        &bulk(text),
    );
    check(
        "cjson.exact_integers(true) local v = cjson.decode('[9007199254740993, 9007199254740993, 7]') \
         return {tostring(v[1]), v[1] .. '!', type(v[1]), type(v[3]), tostring(v[1] == v[2])}",
        "*5|$16|9007199254740993|$17|9007199254740993!|$5|table|$6|number|$4|true|",
    );
    check(
        "return cjson.encode({cjson.integer('-98765432109876543210')})",
        "$23|[-98765432109876543210]|",
    );
    check("return cjson.encode(cjson.integer(17))", "$2|17|");
    for bad in ["''", "'-'", "'1.5'", "'01'", "'1e5'", "' 1'", "{}", "nil", "'1,\"x\":2'"] {
        let reply = Bench::new().eval(&format!("return cjson.integer({bad})"));
        assert!(reply.starts_with("-ERR"), "{bad}: {reply}");
    }
    // Nobody can make encode write what is no integer, or change what they are.
    for bad in [
        "local v = cjson.integer('1') v[1] = '1,2' return cjson.encode(v)",
        "local v = cjson.integer('1') v[1] = nil return cjson.encode(v)",
        "getmetatable(cjson.integer('1')).__tostring = error",
        "setmetatable(cjson.integer('1'), nil)",
    ] {
        let reply = Bench::new().eval(bad);
        assert!(reply.starts_with("-ERR"), "{bad}: {reply}");
    }
}

#[test]
fn marks_cannot_be_changed() {
    let mut bench = Bench::new();
    for change in [
        "cjson.array_mt.x = 1",
        "rawset(cjson.array_mt, 'x', 1)",
        "setmetatable(cjson.array_mt, {})",
        "setmetatable(cjson.empty_array_mt, nil)",
        "table.insert(cjson.array_mt, 1)",
        "cjson.array_mt = nil",
        "getmetatable(cjson.array_mt).__newindex = nil",
        "local t = setmetatable({}, cjson.array_mt) getmetatable(t).__index = error",
        "local c = cjson.new() c.array_mt.x = 1",
    ] {
        let reply = bench.eval(change);
        assert!(reply.starts_with("-ERR"), "{change}: {reply}");
        assert_eq!(
            bench.eval("return {next(cjson.array_mt) == nil, next(cjson.empty_array_mt) == nil}"),
            "*2|:1|:1|",
            "{change}"
        );
    }
}

#[test]
fn settings_last_for_one_run() {
    let mut bench = Bench::new();
    let probe = "return cjson.encode({{}, cjson.decode('[]'), 123456789012345})";
    let default = "$30|[{},{},1.2345678901234e+14]|".replace("30", "27");
    assert_eq!(bench.eval(probe), default);
    bench.eval(
        "cjson.encode_empty_table_as_object(false) cjson.decode_array_with_array_mt(true) \
         cjson.exact_integers(true)",
    );
    assert_eq!(bench.eval(probe), default);
    // A table of one's own has settings of its own.
    let own = "local c = cjson.new() c.exact_integers(true) \
               return {c.encode(123456789012345), cjson.encode(123456789012345)}";
    assert_eq!(bench.eval(own), "*2|$15|123456789012345|$19|1.2345678901234e+14|");
}

#[test]
fn decoded_objects_serve_as_metatables() {
    check(
        r#"local list = cjson.decode('[{"__index":{"x":1}},{"__index":{"x":2}},{"__index":{"x":3}}]')
           local r = {} for i, mt in ipairs(list) do r[i] = setmetatable({}, mt).x end return r"#,
        "*3|:1|:2|:3|",
    );
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn string(&mut self) -> String {
        const PIECES: [&str; 12] =
            ["a", "name", "\\n", "\\\"", "0123456789", "é", "x", "\\u0001", "", "\\/", "key", "~"];
        (0..self.below(4)).map(|_| PIECES[self.below(12) as usize]).collect()
    }

    /// A text as `encode` writes it: keys sorted, no empty arrays.
    fn value(&mut self, depth: u32) -> String {
        match self.below(if depth > 3 { 5 } else { 9 }) {
            0 => (self.below(2_000_000) as i64 - 1_000_000).to_string(),
            1 => format!("{}.{}", self.below(1000), 1 + self.below(9)),
            2 => ["true", "false", "null"][self.below(3) as usize].to_owned(),
            3 | 4 => format!("\"{}\"", self.string()),
            5 => {
                let items: Vec<String> =
                    (0..1 + self.below(6)).map(|_| self.value(depth + 1)).collect();
                format!("[{}]", items.join(","))
            }
            // Lists of objects that are alike but for some.
            6 => {
                let keys: Vec<String> = (0..self.below(7)).map(|_| self.string()).collect();
                let items: Vec<String> = (0..1 + self.below(6))
                    .map(|_| {
                        let mut keys = keys.clone();
                        if self.below(3) == 0 {
                            keys.push(self.string());
                        }
                        if self.below(4) == 0 && !keys.is_empty() {
                            let at = self.below(keys.len() as u64) as usize;
                            keys[at] = self.string();
                        }
                        self.object(keys, depth + 1)
                    })
                    .collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let keys = (0..self.below(9)).map(|_| self.string()).collect();
                self.object(keys, depth + 1)
            }
        }
    }

    fn object(&mut self, mut keys: Vec<String>, depth: u32) -> String {
        let plain = |key: &String| {
            key.replace("\\n", "\n")
                .replace("\\\"", "\"")
                .replace("\\u0001", "\u{1}")
                .replace("\\/", "/")
        };
        keys.sort_by_key(plain);
        keys.dedup();
        let items: Vec<String> =
            keys.iter().map(|key| format!("\"{key}\":{}", self.value(depth))).collect();
        format!("{{{}}}", items.join(","))
    }
}

#[test]
fn random_texts_come_back_as_they_were() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        u64::from(std::process::id()) << 20
            | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros())
            | 1
    });
    println!("SEED={seed}");
    let mut random = Random(seed);
    let mut bench = Bench::new();
    for _ in 0..3000 {
        let text = random.value(0);
        for source in [
            "return cjson.encode(cjson.decode(ARGV[1]))",
            // Decoded a second time in the same run, changed and put back.
            "local v = cjson.decode(ARGV[1]) local w = cjson.decode(ARGV[1]) \
             if type(w) == 'table' then w[#w + 1] = 1 w.extra = {} end return cjson.encode(v)",
        ] {
            let reply = bench.eval_args(source.as_bytes(), &[], &[text.as_bytes()]);
            let expected = format!("${}\r\n{text}\r\n", text.len());
            assert_eq!(String::from_utf8_lossy(&reply), expected);
        }
    }
}

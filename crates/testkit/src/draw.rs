//! Random commands, made from what the command table says of their arguments.
//!
//! A `Shape` is a command as COMMAND DOCS tells it, or as the tests of `command` read it from their
//! rows. Values are drawn by the names and types of arguments, over few keys and members, so that
//! types clash, collections grow and shrink, and the limits of numbers are met often. Called by
//! `peer` and by the undo and propagation tests.

use fastrand::Rng;

/// Databases that commands go to.
pub const DBS: u32 = 3;
/// Keys of each kind.
const KEYS: u8 = 3;
/// Libraries of functions, and functions in all of them.
const LIBRARIES: u8 = 3;
const FUNCTIONS: u8 = 4;
const KINDS: [&str; 8] = ["string", "list", "set", "zset", "hash", "stream", "hll", "json"];

/// What kind of value an argument takes, in the words of COMMAND DOCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl Kind {
    pub fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "double" => Kind::Double,
            "key" => Kind::Key,
            "pattern" => Kind::Pattern,
            "unix-time" => Kind::UnixTime,
            "pure-token" => Kind::PureToken,
            "oneof" => Kind::OneOf,
            "block" => Kind::Block,
            _ => return None,
        })
    }
}

/// One argument, or a group of them.
#[derive(Clone, Debug)]
pub struct Argument {
    pub name: String,
    pub kind: Kind,
    pub token: Option<String>,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub arguments: Vec<Argument>,
}

/// A command that can be drawn.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The name as a client writes it: two words for a subcommand.
    pub words: Vec<String>,
    pub group: String,
    pub arity: i64,
    pub arguments: Vec<Argument>,
}

impl Shape {
    /// `config|get` for a subcommand.
    pub fn name(&self) -> String {
        self.words.join("|")
    }

    fn own_name(&self) -> &str {
        self.words.last().map_or("", String::as_str)
    }

    fn accepts(&self, count: usize) -> bool {
        let count = count as i64;
        if self.arity < 0 { count >= -self.arity } else { count == self.arity }
    }
}

/// What commands are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taste {
    /// Most of them succeed, and times are near.
    Valid,
    /// Two servers must answer the same: nothing that depends on when it runs or on chance, and
    /// mistakes of all kinds.
    Steady,
}

/// Draws commands one after the other.
pub struct Draw<'a> {
    pub rng: &'a mut Rng,
    pub now_ms: i64,
    pub taste: Taste,
    /// What DUMP would answer for some value.
    pub payload: &'a mut dyn FnMut(&mut Rng) -> Vec<u8>,
}

impl Draw<'_> {
    /// A command of this shape, with as many arguments as it takes.
    pub fn command(&mut self, shape: &Shape) -> Vec<Vec<u8>> {
        let words: Vec<_> = shape.words.iter().map(|word| word.clone().into_bytes()).collect();
        loop {
            let mut line = Line { draw: &mut *self, shape, args: words.clone(), numkeys: None };
            line.sequence(&shape.arguments);
            let mut args = line.args;
            if !shape.accepts(args.len()) {
                continue;
            }
            if self.taste == Taste::Steady {
                self.ranges_of_members(shape.own_name(), &mut args);
            }
            return args;
        }
    }
}

impl Draw<'_> {
    /// Ranges of members mean something only where all scores are the same: they have keys of their
    /// own. What begins and ends a range follows from its kind.
    fn ranges_of_members(&mut self, name: &str, args: &mut [Vec<u8>]) {
        let key = |rng: &mut Rng| format!("lex:{}", rng.u8(..KEYS)).into_bytes();
        let source = match name {
            "zadd" if self.rng.u8(..4) == 0 => {
                args[1] = key(self.rng);
                // Behind the options, if any, scores and members take turns.
                let first = args
                    .iter()
                    .skip(2)
                    .position(|arg| !arg.first().is_some_and(u8::is_ascii_uppercase));
                for score in args.iter_mut().skip(2 + first.unwrap_or(0)).step_by(2) {
                    *score = b"0".to_vec();
                }
                return;
            }
            // Those who would give members other scores.
            "zrange" => 1,
            "zrangestore" => 2,
            _ if name.ends_with("lex") || name == "zlexcount" => {
                args[1] = key(self.rng);
                return;
            }
            _ => return,
        };
        let has = |args: &[Vec<u8>], token: &str| args.iter().any(|arg| arg == token.as_bytes());
        let choices: &[&str] = if has(args, "BYLEX") {
            args[source] = key(self.rng);
            if name == "zrangestore" {
                args[1] = key(self.rng);
            }
            &["-", "+", "[1", "(3", "[member:2", "(member:5", "+", "-", "x"]
        } else if has(args, "BYSCORE") {
            &["-inf", "+inf", "0", "(1", "-2", "3", "(5", "1e300", "-1", "x", "(inf", "nan"]
        } else {
            &["0", "-1", "1", "-3", "2", "5", "100", "x", "9223372036854775807"]
        };
        for bound in &mut args[source + 1..source + 3] {
            *bound = choices[self.rng.usize(..choices.len())].into();
        }
    }
}

/// The arguments of one command.
struct Line<'a, 'b> {
    draw: &'a mut Draw<'b>,
    shape: &'a Shape,
    args: Vec<Vec<u8>>,
    /// What `numkeys` said of the keys to come.
    numkeys: Option<usize>,
}

impl Line<'_, '_> {
    fn rng(&mut self) -> &mut Rng {
        self.draw.rng
    }

    fn steady(&self) -> bool {
        self.draw.taste == Taste::Steady
    }

    fn group(&self) -> &str {
        &self.shape.group
    }

    fn sequence(&mut self, arguments: &[Argument]) {
        for argument in arguments {
            if argument.optional && self.rng().u8(..3) > 0 {
                continue;
            }
            let turns = match (argument.multiple, argument.kind, self.numkeys) {
                (true, Kind::Key, Some(numkeys)) => numkeys,
                (true, _, Some(numids)) if argument.name == "id" => numids,
                (true, _, Some(numfields)) if self.group() == "hash" => numfields,
                (true, _, Some(numkeys)) if argument.name == "weight" => numkeys,
                // Enough, now and then, to go beyond a compact encoding at once.
                (true, ..) if self.rng().u8(..8) == 0 => self.rng().usize(8..14),
                (true, ..) => self.rng().usize(1..4),
                (false, ..) => 1,
            };
            // As many ids as keys.
            if argument.name == "key" && argument.multiple && self.group() == "stream" {
                self.numkeys = Some(turns);
            }
            for turn in 0..turns {
                if let Some(token) = &argument.token
                    && (turn == 0 || argument.multiple_token)
                {
                    self.args.push(token.clone().into_bytes());
                }
                self.one(argument);
            }
        }
    }

    fn one(&mut self, argument: &Argument) {
        match argument.kind {
            // Its token is there.
            Kind::PureToken => {}
            Kind::OneOf => {
                let choice = self.rng().usize(..argument.arguments.len());
                self.sequence(&argument.arguments[choice..=choice]);
            }
            Kind::Block => self.sequence(&argument.arguments),
            _ => {
                let value = self.value(argument);
                self.args.push(value);
            }
        }
    }

    fn pick(&mut self, choices: &[&str]) -> Vec<u8> {
        choices[self.rng().usize(..choices.len())].as_bytes().to_vec()
    }

    fn odd(&mut self) -> Vec<u8> {
        if !self.steady() {
            let choices = ["x", "", "-1", "9223372036854775807", "-9223372036854775808", "nan"];
            return self.pick(&choices);
        }
        match self.rng().u8(..12) {
            0 => b"\xff\x00\xc3\x28".to_vec(),
            1 => vec![b'l'; self.draw.rng.usize(60..300)],
            2 => self.rng().i64(..).to_string().into_bytes(),
            _ => self.pick(&[
                "x",
                "",
                "0",
                "-1",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775808",
                "-9223372036854775809",
                "18446744073709551615",
                "4294967296",
                "2147483648",
                "nan",
                "inf",
                "-inf",
                "1e400",
                "1e308",
                "-1e308",
                "2.3e-308",
                "0.1",
                "-0",
                "3.0e3",
                "0x10",
                "+5",
                "05",
                " 1",
                "1 ",
                "1.5.",
                "-",
                "+",
                "(1",
                "[a",
                "$",
                "*",
                ">",
            ]),
        }
    }

    fn value(&mut self, argument: &Argument) -> Vec<u8> {
        if argument.kind == Kind::Key {
            return self.key();
        }
        let odd = if self.steady() { 20 } else { 40 };
        if self.rng().u8(..odd) == 0 && !self.is_by_chance(argument) {
            return self.odd();
        }
        let own_name = self.shape.own_name().to_owned();
        let own_name = own_name.as_str();
        if self.group() == "json"
            && let Some(value) = self.of_json(argument)
        {
            return value;
        }
        if self.steady()
            && let Some(value) = self.of_steady(argument, own_name)
        {
            return value;
        }
        let now_ms = self.draw.now_ms;
        let number = match argument.name.as_str() {
            "numkeys" | "numids" | "numfields" => {
                let numkeys = self.rng().usize(1..4);
                self.numkeys = Some(numkeys);
                numkeys as i64
            }
            "seconds" => [100, 1, 0, -5, 100_000][self.rng().usize(..5)],
            "milliseconds" => [100_000, 1, 500, 0, -5][self.rng().usize(..5)],
            "unix-time-seconds" => now_ms / 1000 + self.rng().i64(-5..100),
            "unix-time-milliseconds" => now_ms + self.rng().i64(-5000..100_000),
            "db" | "destination-db" | "index1" | "index2" => self.rng().i64(0..i64::from(DBS)),
            "encoding" => {
                return self.pick(&["u8", "i5", "u63", "i64", "u1", "i16"]);
            }
            "offset" if own_name.starts_with("bitfield") && self.rng().bool() => {
                return self.pick(&["#0", "#3", "#17"]);
            }
            "value" if own_name == "setbit" => self.rng().i64(0..2),
            "offset" if self.rng().bool() => self.rng().i64(0..6),
            "offset" => self.rng().i64(0..3000),
            "group" | "groupname" => return self.pick(&["g", "h"]),
            "consumer" | "consumername" => return self.pick(&["c", "d", "e"]),
            "min-idle-time" => [0, 0, 0, 10, 5000][self.rng().usize(..5)],
            // Of what has been added already, as far as one can know.
            "start" | "lastid" if self.group() == "stream" => {
                return self.rng().u8(..40).to_string().into_bytes();
            }
            "id" if own_name == "xreadgroup" && self.rng().u8(..4) > 0 => {
                return b">".to_vec();
            }
            "count" => self.rng().i64(-3..20),
            "timeout" => 0,
            "threshold" | "id" | "last-id" | "max-deleted-id" => {
                let ms = self.rng().u8(..40);
                return match self.rng().u8(..6) {
                    0 => format!("{ms}-{}", self.rng().u8(..3)).into_bytes(),
                    1 if own_name == "xadd" && argument.name == "id" => {
                        format!("{ms}-*").into_bytes()
                    }
                    _ => ms.to_string().into_bytes(),
                };
            }
            "entries-added" => self.rng().i64(0..300),
            "min" | "max" if own_name.ends_with("lex") => {
                return self.pick(&["-", "+", "[1", "(3", "[member:2", "(member:5", "+", "-"]);
            }
            "min" | "max" => {
                return self.pick(&["-inf", "+inf", "0", "(1", "-2", "3", "(5", "[member:3", "-1"]);
            }
            "increment" if self.group() == "sorted-set" => {
                return self.pick(&["1", "-2", "0.5", "inf", "-inf"]);
            }
            "subcommand" => return self.pick(&["todense", "getreg", "encoding"]),
            "longitude" | "latitude" => {
                return self.pick(&["13.361389", "38.115556", "15.08", "-0.5", "37.5", "84"]);
            }
            "radius" | "width" | "height" => return self.pick(&["1", "200", "5000", "0"]),
            "score" | "weight" => {
                return self.pick(&["1", "2", "-1", "0.5", "inf", "-inf", "0", "7"]);
            }
            _ => match argument.kind {
                Kind::Integer if self.rng().u8(..6) == 0 => {
                    [i64::MAX, i64::MIN, i64::MAX - 3][self.rng().usize(..3)]
                }
                Kind::Integer => self.rng().i64(-10..10),
                Kind::Double => return self.pick(&["1", "-0.5", "2.25", "1e10", "-3", "inf"]),
                _ if argument.name == "value" => return text(self.draw.rng),
                _ if argument.name == "serialized-value" => {
                    return (self.draw.payload)(self.draw.rng);
                }
                _ => return member(self.draw.rng),
            },
        };
        number.to_string().into_bytes()
    }

    /// Whether a value of any kind could make the command depend on the clock or on chance.
    fn is_by_chance(&self, argument: &Argument) -> bool {
        let is_time = matches!(
            argument.name.as_str(),
            "timeout" | "seconds" | "milliseconds" | "ms" | "ttl" | "min-idle-time"
        );
        self.steady()
            && (is_time || argument.kind == Kind::UnixTime || self.shape.own_name() == "spop")
    }

    /// Where two servers must do the same at slightly different times.
    fn of_steady(&mut self, argument: &Argument, own_name: &str) -> Option<Vec<u8>> {
        let far_seconds = self.draw.now_ms / 1000 + 1_000_000_000;
        Some(match argument.name.as_str() {
            "timeout" => self.pick(&["0", "0.01", "1", "-1", "x", "inf", "1e300", "nan", "0x1p1"]),
            "milliseconds" if own_name.starts_with("xread") => self.pick(&["0", "1", "-1", "x"]),
            "seconds" | "milliseconds" | "ttl" | "unix-time-seconds" | "unix-time-milliseconds"
                if self.rng().u8(..4) == 0 =>
            {
                self.pick(&[
                    "0",
                    "-5",
                    "x",
                    "",
                    "1.5",
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775",
                    "9223370000000000",
                ])
            }
            // How long a key has not been used: within what Redis's clock knows always.
            "seconds" if own_name.starts_with("restore") => {
                (1000 * self.rng().u32(1..10)).to_string().into_bytes()
            }
            // Far away, and far from each other, so that GT and LT do not hang on a millisecond.
            "seconds" => (1_000_000 + self.apart_seconds()).to_string().into_bytes(),
            "milliseconds" | "ttl" => {
                ((1_000_000 + self.apart_seconds()) * 1000).to_string().into_bytes()
            }
            "unix-time-seconds" => (far_seconds + self.apart_seconds()).to_string().into_bytes(),
            "unix-time-milliseconds" => {
                ((far_seconds + self.apart_seconds()) * 1000).to_string().into_bytes()
            }
            // Whether an entry has been idle for long enough is clear.
            "min-idle-time" | "ms" => self.pick(&["0", "0", "0", "100000000", "-1"]),
            "function-code" => self.library(),
            "library-name" => format!("lib{}", self.rng().u8(..LIBRARIES)).into_bytes(),
            "library-name-pattern" => self.pick(&["lib*", "lib0", "*1", "x", "[", "LIB?"]),
            "function" => format!("f{}", self.rng().u8(..FUNCTIONS)).into_bytes(),
            "count" if own_name == "spop" => self.pick(&["0", "1000000", "1000000", "-1", "x"]),
            "cursor" => self.pick(&["0", "0", "0", "0", "x"]),
            "count" if own_name.ends_with("scan") => self.pick(&["100000", "1000000"]),
            "index" if own_name == "select" => self.rng().u32(..DBS).to_string().into_bytes(),
            "index" => self.pick(&["0", "-1", "1", "2", "-2", "7", "-8", "x"]),
            "operation" if own_name == "bitop" => self.pick(&["AND", "or", "XOR", "NOT", "x", ""]),
            "pattern" => self.pick(&[
                "*",
                "string:*",
                "?et:1",
                "[lh]i*",
                "member:1*",
                "hash:*->1",
                "string:*",
                "nokey",
                "#",
                "[^a-m]*",
                "\\*",
                "[",
                "hash:1->*",
            ]),
            "type" if own_name == "scan" => self.pick(&["string", "ZSET", "list", "stream", "x"]),
            "field" | "member" | "element" | "value" | "pivot" if self.rng().u8(..12) == 0 => {
                self.odd()
            }
            "increment" | "decrement" | "value" if self.rng().u8(..8) == 0 => self.odd(),
            "encoding" => self.pick(&["u8", "i5", "u63", "i64", "u1", "i16", "u64", "i65", "i0"]),
            "longitude" | "latitude" if self.rng().u8(..6) == 0 => {
                self.pick(&["180", "-180", "85.05112878", "-85.05112878", "180.1", "-86"])
            }
            "score" if self.rng().u8(..5) == 0 => {
                let score = f64::from_bits(self.rng().u64(..));
                format!("{score:e}").into_bytes()
            }
            "score" if self.rng().u8(..4) == 0 => {
                (self.rng().i64(-100..100) as f64 / 8.0).to_string().into_bytes()
            }
            "increment" if argument.kind == Kind::Double && self.rng().u8(..3) == 0 => {
                format!("{}.{}", self.draw.rng.i64(-20..20), self.draw.rng.u32(..)).into_bytes()
            }
            _ => return None,
        })
    }

    /// A library of functions, or what is none. A function changes one thing at most, and last: one
    /// that fails may have been undone, or not.
    fn library(&mut self) -> Vec<u8> {
        if self.rng().u8(..5) == 0 {
            return self.pick(&[
                "",
                "redis.register_function('f0', function() end)",
                "#!lua\nredis.register_function('f0', function() end)",
                "#!lua name=\nreturn",
                "#!lua name=lib0",
                "#!lua name=lib0\nreturn 1",
                "#!lua name=lib-0\nredis.register_function('f0', function() end)",
                "#!lua name=lib0 name=lib1\nredis.register_function('f0', function() end)",
                "#!lua name=lib0 engine=x\nredis.register_function('f0', function() end)",
                "#!js name=lib0\nredis.register_function('f0', function() end)",
                "#!lua name=lib0\nredis.register_function('f 0', function() end)",
                "#!lua name=lib0\nredis.register_function('f0', 'f1')",
                "#!lua name=lib0\nredis.register_function{function_name='f0'}",
                "#!lua name=lib0\nredis.register_function{function_name='f0', \
                 callback=function() end, flags={'x'}}",
                "#!lua name=lib0\nredis.register_function('f0', function() end)\n\
                 redis.register_function('f0', function() end)",
                "#!lua name=lib0\nredis.call('GET', 'string:0')",
            ]);
        }
        let mut code = format!("#!lua name=lib{}\n", self.rng().u8(..LIBRARIES));
        for _ in 0..self.rng().u8(1..4) {
            let body = self.pick(&[
                "return {#keys, keys, args}",
                "return args[1]",
                "return redis.status_reply('fine')",
                "return redis.error_reply('MINE it failed')",
                "return {err='MINE it failed'}",
                "return redis.pcall('SET', keys[1], args[1])",
                "return redis.pcall('RPUSH', keys[1], unpack(args))",
                "return redis.pcall('HSET', keys[1], unpack(args))",
                "return redis.pcall('GET', keys[1])",
                "return redis.pcall('FCALL', 'f0', 0)",
                "redis.setresp(3) return redis.pcall('ZSCORE', keys[1], args[1])",
                "return redis.pcall('DEL', unpack(keys))",
                "return {1.9, true, false, {ok='x'}, 'y', nil, 3}",
                "return {double=1.5}",
                "return",
            ]);
            let body = String::from_utf8_lossy(&body).into_owned();
            let name = self.rng().u8(..FUNCTIONS);
            let flags = ["", "'no-writes'", "'allow-stale', 'no-writes'", "'allow-oom'"];
            let flags = flags[self.rng().usize(..flags.len())];
            code += &format!(
                "redis.register_function{{function_name='f{name}', flags={{{flags}}}, \
                 callback=function(keys, args) {body} end}}\n"
            );
        }
        code.into_bytes()
    }

    fn apart_seconds(&mut self) -> i64 {
        120 * self.rng().i64(0..1_000_000)
    }

    fn of_json(&mut self, argument: &Argument) -> Option<Vec<u8>> {
        Some(match argument.name.as_str() {
            "path" => self.pick(&[
                "$",
                ".",
                "$.a",
                ".b",
                "$.a.b",
                "$..a",
                "$..*",
                "$.list",
                "$.list[0]",
                "list[-1]",
                "$.list[*]",
                "$..list",
                "$.n",
                "$..[?(@.a)]",
                "$.new",
                "$.a.new",
                "$.text",
            ]),
            "value" if argument.kind == Kind::Double => {
                self.pick(&["1", "-2", "0.5", "1e300", "9223372036854775807"])
            }
            "value" => json(self.draw.rng, 3).into_bytes(),
            "text" => self.pick(&["\"more\"", "\"ä\"", "\"a text of some letters\""]),
            _ => return None,
        })
    }

    /// Mostly one of the kind that the command works on.
    fn key(&mut self) -> Vec<u8> {
        let own = match self.group() {
            "string" | "bitmap" => "string",
            "list" => "list",
            "set" => "set",
            "sorted-set" | "geo" => "zset",
            "hash" => "hash",
            "stream" => "stream",
            "hyperloglog" => "hll",
            "json" => "json",
            _ => "",
        };
        let foreign = if self.steady() { 6 } else { 10 };
        let kind = if self.rng().u8(..foreign) > 0 && !own.is_empty() {
            own
        } else {
            KINDS[self.rng().usize(..KINDS.len())]
        };
        format!("{kind}:{}", self.rng().u8(..KEYS)).into_bytes()
    }
}

/// A short member, field or element.
pub fn member(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..8) {
        0..2 => rng.u8(..4).to_string().into_bytes(),
        2..4 => rng.u8(..30).to_string().into_bytes(),
        4..7 => format!("member:{}", rng.u8(..30)).into_bytes(),
        _ => vec![b'm'; rng.usize(..80)],
    }
}

/// A string value.
pub fn text(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..7) {
        0 | 6 => rng.i64(-9..9).to_string().into_bytes(),
        1 => rng.i64(..).to_string().into_bytes(),
        2 => vec![b'x'; rng.usize(1000..2500)],
        3 => b"1.5".to_vec(),
        _ => vec![b'v'; rng.usize(..60)],
    }
}

/// A JSON value of so many levels at most.
pub fn json(rng: &mut Rng, levels: u8) -> String {
    let kind = if levels == 0 { rng.u8(3..8) } else { rng.u8(..8) };
    match kind {
        0 | 1 => {
            let names = ["a", "b", "list", "n", "text", "c"];
            let mut members = Vec::new();
            for name in &names[..rng.usize(1..=names.len())] {
                members.push(format!("\"{name}\":{}", json(rng, levels - 1)));
            }
            // Enough to be found by hash, now and then.
            let more = if rng.u8(..4) == 0 { 25 } else { 0 };
            members.extend((0..more).map(|number| format!("\"m{number}\":{number}")));
            rng.shuffle(&mut members);
            format!("{{{}}}", members.join(","))
        }
        2 => {
            let count = if rng.u8(..5) == 0 { 60 } else { rng.usize(..5) };
            let elements: Vec<String> = (0..count).map(|_| json(rng, levels - 1)).collect();
            format!("[{}]", elements.join(","))
        }
        3 => rng.i64(-9..9).to_string(),
        4 => format!("{}.5", rng.u8(..9)),
        5 => format!("\"{}\"", "x".repeat(rng.usize(..40))),
        6 => rng.bool().to_string(),
        _ => "null".to_owned(),
    }
}

//! What is measured: the commands, the scripts and the memory loads, each with the keys it needs
//! beforehand and the targets it is held to.
//!
//! Knows nothing of servers and sockets. Called by the bench's main.

use super::wire::Template;

/// Keys that the random numbers choose from.
const KEYS: u64 = 100_000;
/// More than one, so that not every operation meets the same lock; few enough to grow large. It
/// shares no factor with [`MEMBERS`]: counting through both reaches every pair.
const COLLECTIONS: u64 = 101;
const MEMBERS: u64 = 1000;

const APPEND: &str = include_str!("scripts/merge.lua");
const FIXED_WINDOW: &str = include_str!("../../../../examples/scripts/fixed-window.lua");
const SLIDING_WINDOW: &str = include_str!("../../../../examples/scripts/sliding-window.lua");

/// A limit on what Luar takes or gives, relative to Redis in the same run.
#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    /// Server CPU per operation at most this many times Redis's.
    CpuMax(f64),
    /// Throughput at least this many times Redis's.
    ThroughputMin(f64),
    /// Redis's server CPU per operation at least this many times ours: how much faster a script is
    /// where the connection is not what limits it.
    SpeedMin(f64),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Group {
    Command,
    Script,
    /// Luar against itself: what it costs that a script can be undone.
    Undo,
}

pub struct Workload {
    pub name: String,
    pub group: Group,
    /// Sent in turn.
    pub templates: Vec<Template>,
    /// Loaded before the first round, with counting numbers: a template and how many copies.
    pub preload: Vec<(Template, u64)>,
    /// Both for Luar, where Redis has no such command and does the same in another way.
    pub ours: Option<Traffic>,
    pub connections: usize,
    pub pipeline: usize,
    pub targets: Vec<Target>,
    /// How the answers of two servers to the same first operation are compared.
    pub answers: Answers,
}

/// What is sent, and what is loaded before.
pub struct Traffic {
    templates: Vec<Template>,
    preload: Vec<(Template, u64)>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Answers {
    Equal,
    /// The same bytes in any order: JSON objects whose keys may be ordered differently.
    Reordered,
    /// Random by nature.
    Any,
}

impl Workload {
    /// What is sent to the first server, which is Redis, or to another.
    pub fn sends(&self, is_first: bool) -> (&[Template], &[(Template, u64)]) {
        match &self.ours {
            Some(ours) if !is_first => (&ours.templates, &ours.preload),
            _ => (&self.templates, &self.preload),
        }
    }
}

/// A script body together with its SHA1, which the caller learns from SCRIPT LOAD.
pub struct ScriptText {
    pub name: &'static str,
    pub body: &'static str,
}

pub const SCRIPTS: &[ScriptText] = &[
    ScriptText { name: "one-call", body: "return redis.call('GET', KEYS[1])" },
    ScriptText { name: "merge", body: APPEND },
    ScriptText { name: "fixed-window", body: FIXED_WINDOW },
    ScriptText { name: "sliding-window", body: SLIDING_WINDOW },
    ScriptText {
        name: "incr-1000",
        body: "local count\n\
               for _ = 1, 1000 do count = redis.call('INCR', KEYS[1]) end\n\
               return count",
    },
    ScriptText {
        name: "pairs-100",
        body: "for index = 1, #KEYS do\n\
               local value = redis.call('GET', KEYS[index])\n\
               redis.call('SET', KEYS[index], value)\n\
               end\n\
               return #KEYS",
    },
    ScriptText {
        name: "numeric-loop",
        body: "local sum = 0\n\
               for index = 1, 1000000 do sum = sum + index % 7 * 0.5 end\n\
               return tostring(sum)",
    },
    ScriptText {
        name: "string-building",
        body: "local parts = {}\n\
               for index = 1, 100000 do parts[#parts + 1] = 'part ' .. index .. ';' end\n\
               return #table.concat(parts)",
    },
    ScriptText {
        name: "sort",
        body: "local numbers, state = {}, tonumber(ARGV[1])\n\
               for index = 1, 10000 do\n\
               state = (state * 16807) % 2147483647\n\
               numbers[index] = state\n\
               end\n\
               table.sort(numbers)\n\
               return numbers[1]",
    },
    ScriptText { name: "one-set", body: "return redis.call('SET', KEYS[1], ARGV[1])" },
    ScriptText { name: "one-hset", body: "return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])" },
    ScriptText { name: "one-zadd", body: "return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])" },
];

/// What the issue asks of plain commands.
fn command_targets(pipeline: usize) -> Vec<Target> {
    if pipeline == 1 {
        vec![Target::CpuMax(1.0)]
    } else {
        vec![Target::CpuMax(0.6), Target::ThroughputMin(1.6)]
    }
}

fn template(args: &[&str]) -> Template {
    Template::new(args)
}

/// `GET`, `SET` … at each pipeline depth.
/// What is compared with Redis.
pub fn all(sha: &dyn Fn(&str) -> String) -> Vec<Workload> {
    let mut all = commands();
    all.extend(scripts(sha));
    all
}

fn commands() -> Vec<Workload> {
    let mut workloads = Vec::new();
    let key = format!("key:{{{KEYS}}}");
    for (size, value) in [(16, "v".repeat(16)), (256, "v".repeat(256))] {
        let strings = || vec![(template(&["SET", &key, &value]), KEYS)];
        let tail = format!("{size} B");
        let mset: Vec<&str> =
            std::iter::once("MSET").chain((0..10).flat_map(|_| [&key[..], &value])).collect();
        let queue = format!("queue:{{{}}}", KEYS / 10);
        let hash = format!("hash:{{{COLLECTIONS}}}");
        let field = format!("field:{{{MEMBERS}}}");
        add(&mut workloads, &format!("GET {tail}"), &[&["GET", &key]], strings);
        add(&mut workloads, &format!("SET {tail}"), &[&["SET", &key, &value]], strings);
        add(
            &mut workloads,
            &format!("LPUSH/LPOP {tail}"),
            &[&["LPUSH", &queue, &value], &["LPOP", &queue]],
            || vec![(template(&["LPUSH", &queue, &value]), KEYS)],
        );
        add(&mut workloads, &format!("HSET {tail}"), &[&["HSET", &hash, &field, &value]], || {
            vec![(template(&["HSET", &hash, &field, &value]), COLLECTIONS * MEMBERS)]
        });
        add(&mut workloads, &format!("MSET of 10, {tail}"), &[&mset], strings);
    }
    let set = format!("set:{{{COLLECTIONS}}}");
    let zset = format!("zset:{{{COLLECTIONS}}}");
    let member = format!("member:{{{MEMBERS}}}");
    let score = format!("{{{KEYS}}}");
    add(&mut workloads, "INCR", &[&["INCR", &format!("counter:{{{KEYS}}}")]], Vec::new);
    // A wide range of members: most of them are new, as in a set of visitors.
    let visitor = format!("member:{{{KEYS}}}");
    add(&mut workloads, "SADD", &[&["SADD", &set, &visitor]], Vec::new);
    add(&mut workloads, "ZADD", &[&["ZADD", &zset, &score, &member]], || {
        vec![(template(&["ZADD", &zset, &score, &member]), COLLECTIONS * MEMBERS)]
    });
    add(
        &mut workloads,
        "ZRANGEBYSCORE of 10",
        &[&["ZRANGEBYSCORE", "board", &score, "+inf", "LIMIT", "0", "10"]],
        || vec![(template(&["ZADD", "board", &score, &format!("member:{{{KEYS}}}")]), KEYS)],
    );
    streams(&mut workloads);
    families(&mut workloads);
    documents(&mut workloads);
    workloads
}

/// Commands that look at much for each byte of the request.
fn families(workloads: &mut Vec<Workload>) {
    let first = workloads.len();
    let counter = format!("hll:{{{COLLECTIONS}}}");
    add(workloads, "PFADD", &[&["PFADD", &counter, "element:{1000000}"]], Vec::new);
    // A hundred thousand places, some 14 in each degree by degree. The ranges share no factor.
    let (longitude, latitude) = ("{8999}e-2", "{7993}e-2");
    let places = || {
        let place = format!("place:{{{KEYS}}}");
        vec![(template(&["GEOADD", "places", longitude, latitude, &place]), KEYS)]
    };
    let search = ["GEOSEARCH", "places", "FROMLONLAT", longitude, latitude];
    let circle = [&search[..], &["BYRADIUS", "100", "km", "ASC", "COUNT", "10"]].concat();
    add(workloads, "GEOSEARCH BYRADIUS", &[&circle], places);
    let rectangle = [&search[..], &["BYBOX", "200", "200", "km", "ASC", "COUNT", "10"]].concat();
    add(workloads, "GEOSEARCH BYBOX", &[&rectangle], places);
    let bits = format!("bits:{{{COLLECTIONS}}}");
    add(workloads, "BITCOUNT of 4 KB", &[&["BITCOUNT", &bits]], || {
        vec![(template(&["SET", &bits, &"bits".repeat(1024)]), COLLECTIONS)]
    });
    let hash = format!("hash:{{{COLLECTIONS}}}");
    add(workloads, "HGETALL of 1,000 fields", &[&["HGETALL", &hash]], || {
        let (field, value) = (format!("field:{{{MEMBERS}}}"), format!("value:{{{MEMBERS}}}"));
        vec![(template(&["HSET", &hash, &field, &value]), COLLECTIONS * MEMBERS)]
    });
    let list = format!("list:{{{COLLECTIONS}}}");
    add(workloads, "SORT of 100", &[&["SORT", &list, "LIMIT", "0", "10"]], || {
        vec![(template(&["RPUSH", &list, &format!("{{{KEYS}}}")]), COLLECTIONS * 100)]
    });
    for workload in &mut workloads[first..] {
        workload.targets = vec![Target::CpuMax(1.0)];
        if workload.name.starts_with("HGETALL") {
            workload.answers = Answers::Reordered;
        }
    }
}

/// Documents. Redis 7 has none: there the same text is a string, as those have it who use Redis 7.
fn documents(workloads: &mut Vec<Workload>) {
    let first = workloads.len();
    let key = format!("order:{{{KEYS}}}");
    let text = order(7);
    let set = template(&["JSON.SET", &key, "$", &text]);
    let get = template(&["JSON.GET", &key]);
    let strings = || vec![(template(&["SET", &key, &text]), KEYS)];
    let ours = vec![(set.clone(), KEYS)];
    add(workloads, "JSON.SET (Redis: SET)", &[&["SET", &key, &text]], strings);
    add(workloads, "JSON.GET (Redis: GET)", &[&["GET", &key]], strings);
    for workload in &mut workloads[first..] {
        let is_set = workload.name.starts_with("JSON.SET");
        let template = if is_set { set.clone() } else { get.clone() };
        workload.ours = Some(Traffic { templates: vec![template], preload: ours.clone() });
        workload.targets = Vec::new();
        workload.answers = Answers::Any;
    }
}

/// Streams whose length is kept, and a consumer group that reads all that comes. Ids are times, so
/// answers differ.
fn streams(workloads: &mut Vec<Workload>) {
    let stream = format!("stream:{{{COLLECTIONS}}}");
    let value = "v".repeat(16);
    let first = workloads.len();
    let xadd = ["XADD", &stream, "MAXLEN", "~", "1000", "*", "field", &value];
    add(workloads, "XADD 16 B", &[&xadd], Vec::new);
    let read = ["XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", &stream, ">"];
    add(workloads, "XADD/XREADGROUP 16 B", &[&xadd, &read], || {
        let create = ["XGROUP", "CREATE", &stream, "g", "0", "MKSTREAM"];
        vec![(template(&create), COLLECTIONS)]
    });
    for workload in &mut workloads[first..] {
        workload.targets = vec![Target::CpuMax(1.0)];
        workload.answers = Answers::Any;
    }
}

fn add(
    workloads: &mut Vec<Workload>,
    name: &str,
    commands: &[&[&str]],
    preload: impl Fn() -> Vec<(Template, u64)>,
) {
    for pipeline in [1, 16, 64] {
        workloads.push(Workload {
            name: name.to_owned(),
            group: Group::Command,
            templates: commands.iter().map(|args| template(args)).collect(),
            preload: preload(),
            ours: None,
            connections: 50,
            pipeline,
            targets: command_targets(pipeline),
            answers: Answers::Equal,
        });
    }
}

/// The scripts, called by the SHA1 that `sha` gives for a name in [`SCRIPTS`].
fn scripts(sha: impl Fn(&str) -> String) -> Vec<Workload> {
    let mut workloads = Vec::new();
    let mut push = |name: &str,
                    (connections, pipeline): (usize, usize),
                    script: &str,
                    tail: &[&str],
                    preload: Vec<(Template, u64)>,
                    targets: &[Target],
                    answers: Answers| {
        let sha = sha(script);
        let mut args = vec!["EVALSHA", &sha];
        args.extend_from_slice(tail);
        workloads.push(Workload {
            name: name.to_owned(),
            group: Group::Script,
            templates: vec![template(&args)],
            preload,
            ours: None,
            connections,
            pipeline,
            targets: targets.to_vec(),
            answers,
        });
    };
    let key = format!("key:{{{KEYS}}}");
    let value = "v".repeat(16);
    let strings = || vec![(template(&["SET", &key, &value]), KEYS)];
    for pipeline in [1, 16] {
        let targets = [Target::SpeedMin(if pipeline == 1 { 1.5 } else { 2.0 })];
        let call = ["1", &key];
        let name = "EVALSHA, one GET";
        push(name, (50, pipeline), "one-call", &call, strings(), &targets, Answers::Equal);
    }
    for objects in [10, 100, 1000] {
        let list: Vec<String> = (0..objects).map(order).collect();
        let stored = format!("[{}]", list.join(","));
        let more = format!("[{}]", order(objects));
        let preload = vec![(template(&["SET", "orders", &stored]), 1)];
        let call = ["2", "orders", "merged:{100}", &more];
        let name = format!("JSON merge, {objects} objects");
        for (load, targets) in long(Target::SpeedMin(3.5)) {
            push(&name, load, "merge", &call, preload.clone(), &targets, Answers::Reordered);
        }
    }
    for pipeline in [1, 16] {
        let call = ["1", "fixed:{10000}", "100", "3600"];
        let name = "rate limiter, fixed window";
        push(name, (50, pipeline), "fixed-window", &call, Vec::new(), &[], Answers::Any);
        let call = ["1", "sliding:{1000}", "1000000", "3600000", "request-{1000000000}"];
        let name = "rate limiter, sliding window";
        let targets: &[Target] = if pipeline == 1 { &[] } else { &[Target::SpeedMin(3.0)] };
        push(name, (50, pipeline), "sliding-window", &call, Vec::new(), targets, Answers::Equal);
    }
    let call = ["1", "counter:{100}"];
    for (load, targets) in long(Target::SpeedMin(10.0)) {
        push("1,000 INCR", load, "incr-1000", &call, Vec::new(), &targets, Answers::Equal);
    }
    let keys: Vec<String> = (0..100).map(|index| format!("pair:{index}")).collect();
    let mut call = vec!["100"];
    call.extend(keys.iter().map(String::as_str));
    let preload: Vec<(Template, u64)> =
        keys.iter().map(|key| (template(&["SET", key, "some value"]), 1)).collect();
    for (load, targets) in long(Target::SpeedMin(8.0)) {
        let preload = preload.clone();
        push("100 GET+SET pairs", load, "pairs-100", &call, preload, &targets, Answers::Equal);
    }
    let faster = [Target::SpeedMin(2.0)];
    let name = "numeric loop of 1e6";
    push(name, (2, 1), "numeric-loop", &["0"], Vec::new(), &faster, Answers::Equal);
    let faster = [Target::SpeedMin(4.0)];
    let name = "string of 1e5 parts";
    push(name, (2, 1), "string-building", &["0"], Vec::new(), &faster, Answers::Equal);
    let call = ["0", "1{100000}"];
    let faster = [Target::SpeedMin(1.5)];
    push("sort of 10,000", (2, 1), "sort", &call, Vec::new(), &faster, Answers::Equal);
    append_to_documents(&mut workloads, &sha("merge"));
    workloads
}

/// What the script of the JSON merge is for, as the one command that does it: an order is appended to
/// those there are. Redis does it with the script.
fn append_to_documents(workloads: &mut Vec<Workload>, sha: &str) {
    let list: Vec<String> = (0..100).map(order).collect();
    let stored = format!("[{}]", list.join(","));
    let more = order(100);
    // The script writes its result elsewhere, so that the orders stay as many as they are.
    let script = template(&["EVALSHA", sha, "2", "orders", "merged:{100}", &format!("[{more}]")]);
    let append = template(&["JSON.ARRAPPEND", "orders:{100}", "$", &more]);
    let trim = template(&["JSON.ARRTRIM", "orders:{100}", "$", "0", "99"]);
    for (connections, pipeline) in [(16, 1), (4, 16)] {
        let load = vec![(template(&["JSON.SET", "orders:{100}", "$", &stored]), 100)];
        workloads.push(Workload {
            name: "JSON.ARRAPPEND/ARRTRIM, 100 objects (Redis: script)".to_owned(),
            group: Group::Script,
            templates: vec![script.clone()],
            preload: vec![(template(&["SET", "orders", &stored]), 1)],
            ours: Some(Traffic { templates: vec![append.clone(), trim.clone()], preload: load }),
            connections,
            pipeline,
            targets: vec![Target::SpeedMin(3.5)],
            answers: Answers::Any,
        });
    }
}

/// Scripts of one small write each. The first server cannot undo them, the other can.
pub fn undo(sha: &dyn Fn(&str) -> String) -> Vec<Workload> {
    const BOARD: u64 = 1_000_000;
    let value = "v".repeat(16);
    let (key, board) = (format!("key:{{{KEYS}}}"), format!("member:{{{BOARD}}}"));
    let (collection, field) = (format!("hash:{{{COLLECTIONS}}}"), format!("field:{{{MEMBERS}}}"));
    let score = format!("{{{BOARD}}}");
    let hash = template(&["HSET", &collection, &field, &value]);
    let rows: [(_, _, &[&str], _); 3] = [
        ("SET", "one-set", &[&key, &value], (template(&["SET", &key, &value]), KEYS)),
        ("HSET", "one-hset", &[&collection, &field, &value], (hash, COLLECTIONS * MEMBERS)),
        (
            "ZADD to 1,000,000",
            "one-zadd",
            &["board", &score, &board],
            (template(&["ZADD", "board", &score, &board]), BOARD),
        ),
    ];
    let workload = |(name, script, call, preload): (&str, &str, &[&str], (Template, u64))| {
        let sha = sha(script);
        let args = [&["EVALSHA", &sha, "1"], call].concat();
        Workload {
            name: format!("EVALSHA, one {name}"),
            group: Group::Undo,
            templates: vec![template(&args)],
            preload: vec![preload],
            ours: None,
            connections: 50,
            pipeline: 16,
            targets: vec![Target::CpuMax(1.1)],
            answers: Answers::Equal,
        }
    };
    rows.into_iter().map(workload).collect()
}

/// Connections and pipeline, with targets, of a script that takes some tens of µs. Alone on its way,
/// half of its time goes into the socket's system calls, which are the same for both servers: what
/// is asked of scripts is held against the pipelined load, and the other is shown beside it.
fn long(target: Target) -> [((usize, usize), Vec<Target>); 2] {
    [((16, 1), Vec::new()), ((4, 16), vec![target])]
}

/// An order as the examples' producers make it.
fn order(id: u32) -> String {
    format!(
        r#"{{"id":{id},"customer":"customer-{}","amount":{}.25,"tags":["new","web"],"paid":true}}"#,
        id % 97,
        id % 500
    )
}

/// What fills a server to weigh it.
pub struct MemoryLoad {
    pub name: &'static str,
    pub template: Template,
    pub count: u64,
    /// Bytes per item relative to Redis, at most.
    pub target: Option<f64>,
}

pub fn memory_loads(count: u64) -> Vec<MemoryLoad> {
    let key = format!("key:{{{count}}}");
    let load =
        |name, args: &[&str], target| MemoryLoad { name, template: template(args), count, target };
    vec![
        load("string key, 16 B value", &["SET", &key, "sixteen bytes it"], Some(0.85)),
        load(
            "hash of 3 fields",
            &["HSET", &key, "name", "user {1000}", "visits", "17", "plan", "pro"],
            None,
        ),
        load(
            "member of one sorted set",
            &["ZADD", "board", &format!("{{{count}}}"), &format!("member:{{{count}}}")],
            None,
        ),
        load(
            "entry of one stream",
            &["XADD", "events", "*", "user", "user {1000}", "page", "{100}", "ms", "{1000}"],
            Some(1.0),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::wire::Numbers;
    use super::*;

    /// Every template must be one well-formed command: the parser of the load generator reads an
    /// array of bulk strings as readily as a reply.
    #[test]
    fn every_template_is_one_command() {
        let sha = |name: &str| {
            assert!(SCRIPTS.iter().any(|script| script.name == name), "{name}");
            "f".repeat(40)
        };
        let mut all = all(&sha);
        all.extend(undo(&sha));
        assert!(all.len() > 40);
        for workload in &all {
            let sends = [workload.sends(true), workload.sends(false)];
            let all = sends.iter().flat_map(|(templates, preload)| {
                templates.iter().chain(preload.iter().map(|(one, _)| one))
            });
            for template in all {
                let mut out = Vec::new();
                template.append(&mut out, &mut Numbers::Random(7));
                let end = super::super::wire::reply_end(&out, 0);
                assert_eq!(end, Ok(Some(out.len())), "{}", workload.name);
            }
        }
    }
}

//! The ways a talk file is replayed, and which steps each of them may change.
//!
//! A replay sends the same commands under other circumstances; every answer must stay what the
//! file says. Steps that a circumstance cannot apply to are sent as they are.

/// How a talk file is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    Plain,
    /// Every command as a transaction of its own.
    Multi,
    /// Every command as a script of one call.
    Eval,
    /// Collections leave their compact encodings after one element.
    Tiny,
}

impl Replay {
    pub const ALL: [Replay; 4] = [Replay::Plain, Replay::Multi, Replay::Eval, Replay::Tiny];

    pub fn name(self) -> &'static str {
        match self {
            Replay::Plain => "plain",
            Replay::Multi => "multi",
            Replay::Eval => "eval",
            Replay::Tiny => "tiny",
        }
    }

    pub fn named(name: &str) -> Option<Replay> {
        Replay::ALL.into_iter().find(|replay| replay.name() == name)
    }

    /// Directives set at the start of a file and left alone afterwards.
    pub fn config(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Replay::Tiny => &[
                ("list-max-listpack-size", "1"),
                ("list-compress-depth", "1"),
                ("hash-max-listpack-entries", "1"),
                ("hash-max-listpack-value", "1"),
                ("set-max-intset-entries", "1"),
                ("set-max-listpack-entries", "1"),
                ("set-max-listpack-value", "1"),
                ("zset-max-listpack-entries", "1"),
                ("zset-max-listpack-value", "1"),
            ],
            _ => &[],
        }
    }

    /// Whether this replay may wrap a command, by its name.
    pub fn wraps(self, name: &str) -> bool {
        match self {
            Replay::Plain | Replay::Tiny => false,
            Replay::Multi => !STATE_OF_CONNECTION.contains(&name),
            Replay::Eval => !STATE_OF_CONNECTION.contains(&name) && !NOT_IN_SCRIPTS.contains(&name),
        }
    }

    /// Whether the answer of this command is bound to differ.
    pub fn skips(self, name: &str, first: &str) -> bool {
        self == Replay::Tiny
            && ((name == "object" && first == "encoding")
                || (name == "debug" && first != "sleep")
                || name == "memory")
    }
}

/// Commands that change what their connection may do next; they keep their own meaning only
/// outside a transaction.
const STATE_OF_CONNECTION: &[&str] = &[
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "hello",
    "auth",
    "reset",
    "quit",
    "select",
    "client",
    "monitor",
    "shutdown",
    "sync",
    "psync",
    "slowlog",
    "latency",
    "info",
];

/// Commands with the noscript flag.
const NOT_IN_SCRIPTS: &[&str] = &[
    "eval",
    "evalsha",
    "eval_ro",
    "evalsha_ro",
    "script",
    "function",
    "fcall",
    "fcall_ro",
    "blpop",
    "brpop",
    "blmove",
    "brpoplpush",
    "blmpop",
    "bzpopmin",
    "bzpopmax",
    "bzmpop",
    "config",
    "debug",
    "acl",
    "save",
    "bgsave",
    "bgrewriteaof",
    "wait",
    "waitaof",
    "module",
    "memory",
    "command",
    "pubsub",
    "lolwut",
    "role",
    "time",
    "failover",
    "replicaof",
    "cluster",
    "migrate",
];

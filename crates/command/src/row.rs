//! The row of a command: one declaration that dispatch, lock planning, COMMAND, COMMAND DOCS,
//! GETKEYS, ACL and the tests all read. Knows nothing of handlers' work or of sockets.

use crate::call::{Handler, Quick};
use crate::keys::{FindMore, KeySpec};

/// Command flags, a bit set. The names are those COMMAND answers.
pub mod flag {
    pub const WRITE: u32 = 1 << 0;
    pub const READONLY: u32 = 1 << 1;
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const PUBSUB: u32 = 1 << 4;
    pub const NOSCRIPT: u32 = 1 << 5;
    pub const BLOCKING: u32 = 1 << 6;
    pub const LOADING: u32 = 1 << 7;
    pub const STALE: u32 = 1 << 8;
    pub const SKIP_MONITOR: u32 = 1 << 9;
    pub const SKIP_SLOWLOG: u32 = 1 << 10;
    pub const ASKING: u32 = 1 << 11;
    pub const FAST: u32 = 1 << 12;
    pub const NO_AUTH: u32 = 1 << 13;
    /// Not shown by COMMAND: it may write elsewhere, so CLIENT PAUSE holds it back like a write.
    pub const MAY_REPLICATE: u32 = 1 << 14;
    pub const NO_ASYNC_LOADING: u32 = 1 << 15;
    pub const NO_MULTI: u32 = 1 << 16;
    pub const MOVABLE_KEYS: u32 = 1 << 17;
    pub const NO_MANDATORY_KEYS: u32 = 1 << 18;
    pub const ALLOW_BUSY: u32 = 1 << 19;
    /// Not shown by COMMAND: the command runs a script, so it is not `@read` by itself.
    pub const SCRIPT: u32 = 1 << 20;

    /// Flags with the names COMMAND answers, in its order.
    pub const NAMES: &[(u32, &str)] = &[
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (PUBSUB, "pubsub"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_MONITOR, "skip_monitor"),
        (SKIP_SLOWLOG, "skip_slowlog"),
        (ASKING, "asking"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MANDATORY_KEYS, "no_mandatory_keys"),
        (NO_ASYNC_LOADING, "no_async_loading"),
        (NO_MULTI, "no_multi"),
        (MOVABLE_KEYS, "movablekeys"),
        (ALLOW_BUSY, "allow_busy"),
    ];
}

/// ACL categories, a bit set.
pub mod category {
    pub const KEYSPACE: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const WRITE: u32 = 1 << 2;
    pub const SET: u32 = 1 << 3;
    pub const SORTEDSET: u32 = 1 << 4;
    pub const LIST: u32 = 1 << 5;
    pub const HASH: u32 = 1 << 6;
    pub const STRING: u32 = 1 << 7;
    pub const BITMAP: u32 = 1 << 8;
    pub const HYPERLOGLOG: u32 = 1 << 9;
    pub const GEO: u32 = 1 << 10;
    pub const STREAM: u32 = 1 << 11;
    pub const PUBSUB: u32 = 1 << 12;
    pub const ADMIN: u32 = 1 << 13;
    pub const FAST: u32 = 1 << 14;
    pub const SLOW: u32 = 1 << 15;
    pub const BLOCKING: u32 = 1 << 16;
    pub const DANGEROUS: u32 = 1 << 17;
    pub const CONNECTION: u32 = 1 << 18;
    pub const TRANSACTION: u32 = 1 << 19;
    pub const SCRIPTING: u32 = 1 << 20;
    /// As Redis 8 has it.
    pub const JSON: u32 = 1 << 21;

    /// Categories with their names, in the order COMMAND answers them.
    pub const NAMES: &[(u32, &str)] = &[
        (KEYSPACE, "@keyspace"),
        (READ, "@read"),
        (WRITE, "@write"),
        (SET, "@set"),
        (SORTEDSET, "@sortedset"),
        (LIST, "@list"),
        (HASH, "@hash"),
        (STRING, "@string"),
        (BITMAP, "@bitmap"),
        (HYPERLOGLOG, "@hyperloglog"),
        (GEO, "@geo"),
        (STREAM, "@stream"),
        (PUBSUB, "@pubsub"),
        (ADMIN, "@admin"),
        (FAST, "@fast"),
        (SLOW, "@slow"),
        (BLOCKING, "@blocking"),
        (DANGEROUS, "@dangerous"),
        (CONNECTION, "@connection"),
        (TRANSACTION, "@transaction"),
        (SCRIPTING, "@scripting"),
        (JSON, "@json"),
    ];
}

/// The group COMMAND DOCS names; most groups have an ACL category of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
    Bitmap,
    HyperLogLog,
    Geo,
    Json,
    PubSub,
    Transactions,
    Connection,
    Server,
    Scripting,
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::Stream => "stream",
            Group::Bitmap => "bitmap",
            Group::HyperLogLog => "hyperloglog",
            Group::Geo => "geo",
            Group::Json => "json",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Scripting => "scripting",
        }
    }

    const fn category(self) -> u32 {
        match self {
            Group::Generic => category::KEYSPACE,
            Group::String => category::STRING,
            Group::List => category::LIST,
            Group::Set => category::SET,
            Group::SortedSet => category::SORTEDSET,
            Group::Hash => category::HASH,
            Group::Stream => category::STREAM,
            Group::Bitmap => category::BITMAP,
            Group::HyperLogLog => category::HYPERLOGLOG,
            Group::Geo => category::GEO,
            Group::Json => category::JSON,
            Group::PubSub => category::PUBSUB,
            Group::Transactions => category::TRANSACTION,
            Group::Connection => category::CONNECTION,
            Group::Server => 0,
            Group::Scripting => category::SCRIPTING,
        }
    }
}

/// Which locks the command takes; see `engine::Plan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The shards of its keys, as its key specs find them. Without keys: no lock at all.
    Keys,
    /// The whole keyspace at once.
    Exclusive,
    /// The whole keyspace, shard by shard, others running in between.
    Walk,
}

/// All there is to know of a command but how it runs.
pub struct Row {
    /// Lower case; of a subcommand without its container.
    pub name: &'static str,
    /// Arguments with the name (and container) counted; negative: at least so many.
    pub arity: i16,
    pub flags: u32,
    /// Categories beside those that follow from the flags.
    pub categories: u32,
    pub keys: &'static [KeySpec],
    /// Finds keys beside those of the specs.
    pub find_more: Option<FindMore>,
    pub scope: Scope,
    pub group: Group,
    /// First Redis version that has it.
    pub since: &'static str,
    pub complexity: &'static str,
    pub summary: &'static str,
    /// Its arguments in one line, in the notation of `syntax.rs`; COMMAND DOCS is made from it.
    pub syntax: &'static str,
    pub tips: &'static [&'static str],
    /// Versions and words on how it changed, for COMMAND DOCS.
    pub history: &'static [(&'static str, &'static str)],
    /// What replaces it, and since when it is deprecated.
    pub deprecated: Option<(&'static str, &'static str)>,
}

impl Row {
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// All ACL categories, the implied ones included.
    pub fn all_categories(&self) -> u32 {
        let mut all = self.categories;
        if self.has(flag::WRITE) {
            all |= category::WRITE;
        }
        if self.has(flag::READONLY) && !self.has(flag::SCRIPT) {
            all |= category::READ;
        }
        if self.has(flag::ADMIN) {
            all |= category::ADMIN | category::DANGEROUS;
        }
        if self.has(flag::PUBSUB) {
            all |= category::PUBSUB;
        }
        if self.has(flag::BLOCKING) {
            all |= category::BLOCKING;
        }
        all | if self.has(flag::FAST) { category::FAST } else { category::SLOW }
    }

    /// Whether this many arguments (name included) fit the arity.
    pub fn accepts(&self, argc: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { argc == arity } else { argc >= arity }
    }
}

/// A row with its handler and subcommands. `H` is the kind of handler: keyspace handlers live in
/// this crate, session handlers in the server.
pub struct Command<H: 'static> {
    pub row: Row,
    /// `None` for containers, which only have subcommands.
    pub handler: Option<H>,
    pub subcommands: &'static [Command<H>],
    pub quick: Option<Quick>,
}

impl Command<Handler> {
    /// A keyspace command of a group, in whose ACL category it stands.
    pub const fn new(
        group: Group,
        name: &'static str,
        arity: i16,
        handler: Handler,
    ) -> Command<Handler> {
        Command::with(group, name, arity, handler)
    }

    /// How scripts call it in the plain case.
    pub const fn quick(mut self, quick: Quick) -> Self {
        self.quick = Some(quick);
        self
    }
}

impl<H: Copy> Command<H> {
    /// A command with any kind of handler.
    pub const fn with(group: Group, name: &'static str, arity: i16, handler: H) -> Command<H> {
        Command { handler: Some(handler), ..Command::container(group, name, arity, &[]) }
    }

    /// A command that only holds subcommands.
    pub const fn container(
        group: Group,
        name: &'static str,
        arity: i16,
        subcommands: &'static [Command<H>],
    ) -> Command<H> {
        let row = Row {
            name,
            arity,
            flags: 0,
            categories: group.category(),
            keys: &[],
            find_more: None,
            scope: Scope::Keys,
            group,
            since: "1.0.0",
            complexity: "O(1)",
            summary: "",
            syntax: "",
            tips: &[],
            history: &[],
            deprecated: None,
        };
        Command { row, handler: None, subcommands, quick: None }
    }

    /// Subcommands of a command that also runs by itself (COMMAND).
    pub const fn subcommands(mut self, subcommands: &'static [Command<H>]) -> Self {
        self.subcommands = subcommands;
        self
    }

    pub const fn flags(mut self, flags: u32) -> Self {
        self.row.flags |= flags;
        self
    }

    /// Replaces the categories that follow from the group.
    pub const fn categories(mut self, categories: u32) -> Self {
        self.row.categories = categories;
        self
    }

    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.row.keys = keys;
        self
    }

    pub const fn more_keys(mut self, find: FindMore) -> Self {
        self.row.find_more = Some(find);
        self
    }

    pub const fn scope(mut self, scope: Scope) -> Self {
        self.row.scope = scope;
        self
    }

    pub const fn since(mut self, since: &'static str) -> Self {
        self.row.since = since;
        self
    }

    pub const fn complexity(mut self, complexity: &'static str) -> Self {
        self.row.complexity = complexity;
        self
    }

    /// One sentence in our own words.
    pub const fn summary(mut self, summary: &'static str) -> Self {
        self.row.summary = summary;
        self
    }

    pub const fn syntax(mut self, syntax: &'static str) -> Self {
        self.row.syntax = syntax;
        self
    }

    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.row.tips = tips;
        self
    }

    pub const fn history(mut self, history: &'static [(&'static str, &'static str)]) -> Self {
        self.row.history = history;
        self
    }

    pub const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.row.deprecated = Some((since, replaced_by));
        self
    }
}

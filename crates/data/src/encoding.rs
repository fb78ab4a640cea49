//! The encodings a value can have and the limits that choose between them.
//!
//! Both are names from Redis: the texts are what `OBJECT ENCODING` answers, the limits are the
//! `*-max-*` directives. Limits come in as an argument with every operation that may grow a value,
//! because the configuration can change while values live.

/// How a value is stored, named as `OBJECT ENCODING` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Raw,
    Int,
    Embstr,
    Listpack,
    /// A listpack of fields with times.
    ListpackEx,
    Quicklist,
    Intset,
    Hashtable,
    Skiplist,
    Stream,
}

impl Encoding {
    /// The text of `OBJECT ENCODING`.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Raw => "raw",
            Encoding::Int => "int",
            Encoding::Embstr => "embstr",
            Encoding::Listpack => "listpack",
            Encoding::ListpackEx => "listpackex",
            Encoding::Quicklist => "quicklist",
            Encoding::Intset => "intset",
            Encoding::Hashtable => "hashtable",
            Encoding::Skiplist => "skiplist",
            Encoding::Stream => "stream",
        }
    }
}

/// Bounds of the compact encodings; field names are the directives of redis.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Positive: entries per block; -1 to -5: 4, 8, 16, 32, 64 KB per block.
    pub list_max_listpack_size: i32,
    /// Accepted for compatibility; blocks are never compressed.
    pub list_compress_depth: u32,
    pub hash_max_listpack_entries: usize,
    pub hash_max_listpack_value: usize,
    pub set_max_intset_entries: usize,
    pub set_max_listpack_entries: usize,
    pub set_max_listpack_value: usize,
    pub zset_max_listpack_entries: usize,
    pub zset_max_listpack_value: usize,
    /// 0: none but that of the format.
    pub stream_node_max_bytes: usize,
    /// 0: none.
    pub stream_node_max_entries: usize,
    pub hll_sparse_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            list_max_listpack_size: -2,
            list_compress_depth: 0,
            hash_max_listpack_entries: 128,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
            hll_sparse_max_bytes: 3000,
        }
    }
}

//! Value types and their compact encodings.
//!
//! The crate knows no keys, expiry, clock, locks or protocol: `engine` keeps its keyspace in
//! [`Table`]s, command handlers call the collections through the engine's guard. Elements come in
//! and go out as plain `&[u8]`. Operations that may grow a value take `&Limits`, because the
//! configuration decides the encoding; randomness comes in as `&mut impl FnMut() -> u64`. Every
//! collection is `Send`, its handle is at most 16 bytes, and it has `new`, `len`, `is_empty`,
//! `encoding`, `memory_bytes`, `iter` and `clone` (a deep copy, for COPY).
//!
//! # Summary of signatures
//!
//! ```text
//! Table<T>  (T as wide as a pointer; low bits of the hash choose the bucket, the top eight tag)
//!   find(hash, eq) -> Option<&T>            find_mut(hash, eq) -> Option<&mut T>
//!   insert_unique(hash, T, hasher) -> &mut T
//!   replace(hash, T, eq, hasher) -> Option<T>   remove(hash, eq, hasher) -> Option<T>
//!   scan(cursor, |&T|) -> u64               random(rng) -> Option<&T>    sample(n, rng, |&T|)
//!   iter()  drain(|T|)  clear()  reserve(n)  prefetch(hash)
//!   rehash_step(buckets, hasher) -> bool    is_rehashing()  bucket_counts()  memory_bytes()
//!
//! List      push(End, value, limits)  push_front / push_back(value, limits)
//!   peek(End) / front() / back() -> Option<&[u8]>
//!   pop(End, limits) / pop_front / pop_back(limits) -> Option<Vec<u8>>
//!   pop_with(End, limits, |&[u8]| -> R) -> Option<R>
//!   get(index: i64) -> Option<&[u8]>        set(index: i64, value, limits) -> bool
//!   insert(index, value, limits)            insert_at_pivot(pivot, before, value, limits) -> Option<usize>
//!   remove(value, count: i64, limits) -> usize   remove_at(index, limits) -> bool
//!   remove_range(Range, limits) -> usize    retain_range(Range, limits) -> usize   (LTRIM)
//!   range(Range) -> double-ended iterator of &[u8]
//!
//! Set       add(member, limits) -> bool     remove(member) -> bool       contains(member) -> bool
//!   iter() -> Member (derefs to [u8])       scan(cursor, count, |Member|) -> u64
//!   random(rng) -> Option<Member>           random_distinct(n, rng) -> Vec<Member>
//!   pop(rng) -> Option<Vec<u8>>
//!   for_members(first, count, limits)  prepare(count, limits)  compact_integers(limits)
//!
//! Hash      set(field, value, limits) -> bool (new)   get(field) -> Option<&[u8]>
//!   contains(field) -> bool                 remove(field) -> bool
//!   iter() -> (&[u8], &[u8])                scan(cursor, count, |field, value|) -> u64
//!   random(rng) -> Option<(field, value)>   random_distinct(n, rng) -> Vec<(field, value)>
//!   prepare(count, limits)
//!
//! Zset      insert(member, score, limits) -> Option<f64> (old)   remove(member) -> Option<f64>
//!   score(member) -> Option<f64>            rank(member) -> Option<usize>
//!   at(rank) -> Option<(&[u8], f64)>        range(Range of ranks) -> double-ended (&[u8], f64)
//!   score_range(&ScoreRange) -> Range<usize>   lex_range(&LexRange) -> Range<usize>
//!   remove_range(Range) -> usize            remove_range_with(Range, |member, score|) -> usize
//!   pop_min() / pop_max() -> Option<(Vec<u8>, f64)>
//!   scan(cursor, count, |member, score|) -> u64   random(rng)  random_distinct(n, rng)
//!   prepare(count, longest, limits)  compact(limits)
//!
//! Stream    add(Id, pairs, limits)      delete(Id) -> bool               get(Id) -> Option<Entry>
//!   range(ids) -> double-ended iterator of Entry { id, fields }      trim(&Trim) -> u64
//!   head() / set_head(Head)             next_id(now_ms) -> Option<Id>
//!   group(name) -> Option<&Group>       put_group(name, Group)   remove_group(name)   lag(&Group)
//!
//! Json      parse(text)   root() -> &Node   at(place)   spell(place) -> the path there
//!   replace / add / remove / insert / take / append_text -> Inverse   undo(Inverse)
//!   json::Path::parse(text), select(json) -> nodes, locate(json) -> places
//!
//! ScoreRange::parse(min, max), LexRange::parse(min, max): `(1`, `-inf`, `[a`, `-`, `+`
//! index_range(start, stop, len) -> Range<usize>      index_at(index, len) -> Option<usize>
//! number::{parse_i64, format_i64, write_i64, parse_f64, format_f64, write_f64}
//! LongDouble::{parse, add, is_finite, write, to_text} and From<i64>   (INCRBYFLOAT)
//! glob::matches(pattern, text, ignore_case) -> bool
//! hash_bytes(&[u8]) -> u64      class_size(bytes) -> bytes the allocator really gives
//! ```

mod ahead;
pub mod bits;
mod bucket;
pub mod bytes;
mod encoding;
mod float_text;
pub mod geo;
pub mod glob;
pub mod hash;
pub mod hyperloglog;
pub mod intset;
pub mod json;
pub mod list;
pub mod listpack;
pub mod long_double;
pub mod number;
mod random;
mod score_range;
mod scored;
pub mod set;
mod size_class;
mod span;
pub mod stream;
pub mod table;
mod tree;
pub mod zset;

pub use ahead::Part;
pub use bucket::prefetch;
pub use bytes::Bytes;
pub use encoding::{Encoding, Limits};
pub use hash::Hash;
pub use json::Json;
pub use list::{End, List};
pub use long_double::LongDouble;
pub use random::hash_bytes;
pub use score_range::{LexBound, LexRange, ScoreBound, ScoreRange};
pub use set::{Member, Set};
pub use size_class::class_size;
pub use span::{index_at, index_range};
pub use stream::Stream;
pub use table::Table;
pub use zset::Zset;

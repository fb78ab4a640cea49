//! DEBUG DIGEST and DIGEST-VALUE: a number of 160 bits that is the same for the same data, in whatever
//! order and encoding it is held, and the same as that of Redis.
//!
//! What has no order is joined by XOR of the SHA-1 of each part; what has one is mixed in: joined, and
//! hashed once more.

use engine::{Entry, Str, Txn, ValueRef};
use sha1::{Digest as _, Sha1};

/// What a value is called in a digest.
mod kind {
    pub const STRING: u32 = 0;
    pub const LIST: u32 = 1;
    pub const SET: u32 = 2;
    pub const ZSET: u32 = 3;
    pub const HASH: u32 = 4;
    pub const MODULE: u32 = 5;
    pub const STREAM: u32 = 6;
}

#[derive(Clone, Copy, Default)]
pub struct Digest([u8; 20]);

impl Digest {
    /// Of all databases. The transaction is exclusive.
    pub fn of_all(txn: &mut Txn<'_>) -> Digest {
        let home = txn.db();
        let mut all = Digest::default();
        for db in 0..txn.databases() {
            txn.select(db);
            if txn.db_size().keys == 0 {
                continue;
            }
            all.mix(&db.to_be_bytes());
            txn.for_each(|entry| {
                let mut key = Digest::default();
                key.mix(entry.key());
                key.value(entry);
                all.join(&key.0);
            });
        }
        txn.select(home);
        all
    }

    /// Of a key's value and expiry.
    pub fn of_value(entry: &Entry) -> Digest {
        let mut digest = Digest::default();
        digest.value(entry);
        digest
    }

    pub fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn join_digest(&mut self, other: Digest) {
        self.0.iter_mut().zip(other.0).for_each(|(byte, other)| *byte ^= other);
    }

    /// The order of what is joined plays no part.
    fn join(&mut self, bytes: &[u8]) {
        self.join_digest(Digest(Sha1::digest(bytes).into()));
    }

    /// The order of what is mixed in does.
    fn mix(&mut self, bytes: &[u8]) {
        self.join(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn value(&mut self, entry: &Entry) {
        let mut begin = |kind: u32| self.mix(&kind.to_be_bytes());
        match entry.get() {
            ValueRef::Str(text) => {
                begin(kind::STRING);
                match text {
                    Str::Int(value) => self.mix(data::number::format_i64(value).as_bytes()),
                    Str::Bytes(bytes) => self.mix(bytes),
                }
            }
            ValueRef::List(list) => {
                begin(kind::LIST);
                list.iter().for_each(|element| self.mix(element));
            }
            ValueRef::Set(set) => {
                begin(kind::SET);
                set.iter().for_each(|member| self.join(&member));
            }
            ValueRef::Zset(zset) => {
                begin(kind::ZSET);
                zset.iter().for_each(|(member, score)| {
                    self.pair(member, data::number::format_f64(score).as_bytes());
                });
            }
            ValueRef::Hash(hash) => {
                begin(kind::HASH);
                hash.iter().for_each(|(field, value)| self.pair(field, value));
            }
            ValueRef::Json(json) => {
                begin(kind::MODULE);
                let mut text = Vec::new();
                json.root().write(&mut text);
                self.mix(&text);
            }
            ValueRef::Stream(stream) => {
                begin(kind::STREAM);
                for entry in stream.iter() {
                    self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                    for (field, value) in entry.fields {
                        self.mix(field);
                        self.mix(value);
                    }
                }
            }
        }
        if entry.expire_at_ms().is_some() {
            self.join(b"!!expire!!");
        }
    }

    /// Of two that belong together, among others like them.
    fn pair(&mut self, first: &[u8], second: &[u8]) {
        let mut pair = Digest::default();
        pair.mix(first);
        pair.mix(second);
        self.join(&pair.0);
    }
}

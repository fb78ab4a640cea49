//! Changes that take more than one word to log.

use data::End;

use crate::change::Change;
use crate::door::Expiry;
use crate::engine::Engine;
use crate::entry::{Entry, Str, ValueRef};
use crate::txn::Txn;

impl Txn<'_> {
    /// Notes that a key holds this integer now, with the expiry it had.
    #[inline]
    pub(super) fn changed_to(&mut self, hash: u64, key: &[u8], value: i64) {
        if self.logs() {
            let digits = data::number::format_i64(value);
            let change = Change::Set { value: digits.as_bytes(), expiry: Expiry::Keep };
            self.log_and_note(key, change);
        }
        self.announce(hash, key);
    }

    /// Logs a whole value that was put under its key, element by element.
    pub(super) fn log_value(&mut self, entry: &Entry, replaced: bool) {
        let (key, expire) = (entry.key(), entry.expire_at_ms());
        if let ValueRef::Str(text) = entry.get() {
            let expiry = expire.map_or(Expiry::Clear, Expiry::At);
            match text {
                Str::Int(number) => {
                    let digits = data::number::format_i64(number);
                    self.log(key, Change::Set { value: digits.as_bytes(), expiry });
                }
                Str::Bytes(value) => self.log(key, Change::Set { value, expiry }),
            }
            return;
        }
        if replaced {
            self.log(key, Change::Remove);
        }
        match entry.get() {
            ValueRef::Str(_) => unreachable!("seen above"),
            ValueRef::List(list) => {
                list.iter().for_each(|value| self.log(key, Change::Push { end: End::Tail, value }));
            }
            ValueRef::Set(set) => {
                set.iter().for_each(|member| self.log(key, Change::AddMember { member: &member }));
            }
            ValueRef::Hash(hash) => {
                hash.iter()
                    .for_each(|(field, value)| self.log(key, Change::SetField { field, value }));
                if hash.has_times() {
                    for (field, _) in hash.iter() {
                        if let at_ms @ Some(_) = hash.time_ms(field) {
                            self.log(key, Change::ExpireField { field, at_ms });
                        }
                    }
                }
            }
            ValueRef::Zset(zset) => {
                zset.iter()
                    .for_each(|(member, score)| self.log(key, Change::SetScore { member, score }));
            }
            ValueRef::Stream(_) => unreachable!("`put_stream` stores them"),
            ValueRef::Json(json) => {
                let mut text = Vec::new();
                json.root().write(&mut text);
                self.log(key, Change::JsonSet { path: b"$", json: &text });
            }
        }
        if expire.is_some() {
            self.log(key, Change::Expire { at_ms: expire });
        }
    }

    /// Logs that a value goes to another key or database; before it arrives there.
    pub(super) fn log_move(&mut self, key: &[u8], to: &[u8], to_db: u32) {
        let home = self.db;
        let to_hash = self.engine.hash(to);
        let there = self.shard(Engine::shard_of(to_hash)).db(to_db);
        if to_db != home && there.is_some_and(|db| db.find(to_hash, to).is_some()) {
            self.db = to_db;
            self.log(to, Change::Remove);
            self.db = home;
        }
        self.log(key, Change::Move { to, to_db });
    }
}

//! Looking ahead over a batch of commands: the memory they will touch is asked for, one dependent
//! load after the other but for all of them at a time, so that the loads overlap instead of coming
//! one after the other.
//!
//! Only hints: a wrong guess costs time and nothing else. The server calls it between the commands
//! of a pipeline; see `docs/ARCHITECTURE.md`.

use data::{Part, hash_bytes};
use lock_api::RawMutex as _;
use smallvec::SmallVec;

use crate::engine::Engine;
use crate::entry::{Collection, Entry};
use crate::shard::{Db, SHARDS, Shard};

/// Keys whose memory is asked for at once: about what the processor keeps in flight.
pub const PREFETCH_KEYS_MAX: usize = 16;

/// With fewer keys than this in a database they are in the processor's cache anyway.
const KEYS_MIN: usize = 4000;

/// What a command will look at.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub key: &'a [u8],
    pub inside: Inside<'a>,
}

/// What a command will look at inside the value of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside<'a> {
    /// A string: it stands beside the key.
    Nothing,
    /// A collection.
    Body,
    /// This member or field of a collection.
    Member(&'a [u8]),
}

/// One target on its way through the loads.
struct Look<'e, 'a> {
    shard: u16,
    /// Who locked the shard gives it back.
    owns_lock: bool,
    hash: u64,
    member_hash: u64,
    inside: Inside<'a>,
    db: Option<&'e Db>,
    collection: Option<&'e Collection>,
}

type Looks<'e, 'a> = SmallVec<[Look<'e, 'a>; PREFETCH_KEYS_MAX]>;

/// Gives the shards back.
struct Glance<'e, 'a> {
    engine: &'e Engine,
    looks: Looks<'e, 'a>,
}

impl Drop for Glance<'_, '_> {
    fn drop(&mut self) {
        for look in &mut self.looks {
            (look.db, look.collection) = (None, None);
            if look.owns_lock {
                // SAFETY: locked by `Engine::prefetch` on this thread.
                unsafe { self.engine.shards[look.shard as usize].lock.unlock() };
            }
        }
    }
}

impl Engine {
    /// Asks for the lock and the first database of a shard.
    #[inline]
    pub(crate) fn prefetch_shard(&self, shard: u16) {
        let at = (&raw const self.shards[shard as usize]).cast::<u8>();
        data::prefetch(at);
        data::prefetch(at.wrapping_add(64));
    }

    /// Asks the processor for the memory that commands on these targets will look at, at most
    /// [`PREFETCH_KEYS_MAX`] of them. Nothing needs to exist, and shards that are locked are passed
    /// over: it never waits. The caller is in its worker's gate and holds no shard.
    pub fn prefetch(&self, db: u32, targets: &[Target<'_>]) {
        let mut glance = Glance { engine: self, looks: SmallVec::new() };
        let looks = &mut glance.looks;
        for target in targets.iter().take(PREFETCH_KEYS_MAX) {
            let hash = self.hash(target.key);
            let shard = Engine::shard_of(hash);
            self.prefetch_shard(shard);
            looks.push(Look {
                shard,
                owns_lock: false,
                hash,
                member_hash: 0,
                inside: target.inside,
                db: None,
                collection: None,
            });
        }
        let mut keys_seen = 0;
        for at in 0..looks.len() {
            let (before, rest) = looks.split_at_mut(at);
            let look = &mut rest[0];
            let shard: &Shard = &self.shards[look.shard as usize];
            look.owns_lock = shard.lock.try_lock();
            look.db = if look.owns_lock {
                // SAFETY: the lock is held until `Glance` drops, nothing is written meanwhile, and
                // the gate keeps exclusive plans away.
                unsafe { &*shard.data.get() }.db(db)
            } else {
                // Two commands of the batch on one shard; or another worker has it.
                let same = before.iter().find(|other| other.owns_lock && other.shard == look.shard);
                same.and_then(|other| other.db)
            };
            if let Some(db) = look.db {
                keys_seen += db.keys.len();
                db.keys.prefetch(look.hash);
            }
        }
        let is_small = keys_seen * SHARDS < KEYS_MIN * looks.len();
        if !is_small {
            let mut chained: SmallVec<[(&Db, u64); PREFETCH_KEYS_MAX]> = SmallVec::new();
            for look in &*looks {
                if let Some(db) = look.db
                    && db.keys.prefetch_values(look.hash)
                {
                    chained.push((db, look.hash));
                }
            }
            for (db, hash) in chained {
                db.keys.prefetch_chained_values(hash);
            }
        }
        prefetch_inside(looks);
    }
}

/// The same for what is inside the values.
fn prefetch_inside(looks: &mut [Look<'_, '_>]) {
    let mut any = false;
    for look in looks.iter_mut().filter(|look| look.inside != Inside::Nothing) {
        let Some(db) = look.db else { continue };
        look.collection = db.keys.likely(look.hash).and_then(Entry::collection);
        if let (Some(_), Inside::Member(member)) = (look.collection, look.inside) {
            look.member_hash = hash_bytes(member);
        }
        any |= look.ask(Part::Body);
    }
    for part in [Part::Bucket, Part::Values, Part::ChainedValues] {
        if !any {
            return;
        }
        any = false;
        for look in looks.iter_mut() {
            any |= look.ask(part);
        }
    }
}

impl Look<'_, '_> {
    /// Asks for a part of the collection, if there is one; false when nothing comes after it.
    fn ask(&mut self, part: Part) -> bool {
        let goes_on = match self.collection {
            None => return false,
            Some(Collection::List(list)) => {
                list.prefetch();
                false
            }
            Some(Collection::Set(set)) => set.prefetch(part, self.member_hash),
            Some(Collection::Hash(hash)) => hash.prefetch(part, self.member_hash),
            Some(Collection::Stream(_) | Collection::Json(_)) => false,
            Some(Collection::Zset(zset)) => zset.prefetch(part, self.member_hash),
        };
        let goes_on = goes_on && matches!(self.inside, Inside::Member(_));
        if !goes_on {
            self.collection = None;
        }
        goes_on
    }
}

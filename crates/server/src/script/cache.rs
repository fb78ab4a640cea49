//! The scripts the server knows, compiled once and shared by the VMs of all workers.
//!
//! Those of SCRIPT LOAD stay until SCRIPT FLUSH. Of those that only came with EVAL the least
//! recently used ones go beyond `script-cache-entries`, and beyond a fixed number of bytes, so that
//! an application which writes values into its scripts costs bounded memory.
//!
//! Thread safety: finding a script takes the lock for reading and, at most once between two new
//! scripts, one plain store. All else takes it for writing. The list of evicted scripts has a lock
//! of its own, taken inside that one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use lua::{Script, Sha};
use parking_lot::{Mutex, RwLock};

use super::plan::Known;
use super::{Gone, ScriptStats, Totals};

/// What scripts that came with EVAL may take together; the newest one may be larger.
const EVALED_BYTES_MAX: u64 = 64 << 20;
/// An eviction passes over so many scripts that were used since they were looked at, no more.
const LOOKS_MAX: usize = 64;
/// Evicted scripts remembered for VMs that have to forget them. One that has missed more goes
/// through all it has.
const EVICTED_MAX: usize = 256;

/// Who brings a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// SCRIPT LOAD: it stays.
    ToStay,
    /// EVAL: it stays while there is room.
    ByEval,
}

pub struct Cache {
    workers: usize,
    /// Totals of the scripts that are gone.
    gone: Gone,
    /// Scripts that were taken out and may still be held by a worker, which counts them later.
    leaving: Mutex<Vec<Weak<Known>>>,
    kept: RwLock<Kept>,
    evicted: Mutex<VecDeque<Sha>>,
    /// How many were ever evicted, and how many of them before the statistics were reset.
    evictions: AtomicU64,
    evictions_before: AtomicU64,
    used_bytes: AtomicU64,
    generation: AtomicU64,
    /// Counts new scripts: the clock of least recent use. It is read twice as fast, so that a use
    /// has a place between two scripts.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Kept {
    by_sha: HashMap<Sha, Arc<Known>>,
    /// Last use as it was when looked at, number, sha; the least first. Scripts that
    /// stay may be in it too and are passed over.
    candidates: BinaryHeap<Reverse<(u64, u64, Sha)>>,
    /// Scripts that do not stay, and their bytes.
    evaled: usize,
    evaled_bytes: u64,
}

impl Kept {
    /// Takes out the script that was used least recently of those that do not stay.
    fn evict(&mut self) -> Option<Arc<Known>> {
        let mut looks = 0;
        while let Some(Reverse((seen, number, sha))) = self.candidates.pop() {
            let Some(known) = self.by_sha.get(&sha).filter(|known| !known.stays()) else {
                continue;
            };
            let used = known.last_use();
            if used > seen && looks < LOOKS_MAX {
                looks += 1;
                self.candidates.push(Reverse((used, number, sha)));
                continue;
            }
            let known = self.by_sha.remove(&sha)?;
            known.set_gone();
            self.evaled -= 1;
            self.evaled_bytes -= known.bytes();
            return Some(known);
        }
        None
    }
}

impl Cache {
    pub fn new(workers: usize) -> Cache {
        Cache {
            workers,
            gone: Gone::default(),
            leaving: Mutex::default(),
            kept: RwLock::default(),
            evicted: Mutex::default(),
            evictions: AtomicU64::new(0),
            evictions_before: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
        }
    }

    /// Finds a script that is about to be used.
    pub fn get(&self, sha: &Sha) -> Option<Arc<Known>> {
        let kept = self.kept.read();
        let known = kept.by_sha.get(sha)?;
        self.note_use(known);
        Some(known.clone())
    }

    /// A script is used that was found before.
    pub fn note_use(&self, known: &Known) {
        // Later than the newest script came.
        known.note_use(2 * self.epoch.load(Ordering::Relaxed) + 1);
    }

    /// Whether it is there, which is no use.
    pub fn contains(&self, sha: &Sha) -> bool {
        self.kept.read().by_sha.contains_key(sha)
    }

    /// Keeps a script; answers the one that is kept.
    pub fn insert(&self, script: Script, brought: Brought, entries_max: u64) -> Arc<Known> {
        let mut kept = self.kept.write();
        let sha = *script.sha();
        if !kept.by_sha.contains_key(&sha) {
            let number = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
            let stats = ScriptStats::new(self.workers, self.gone.clone());
            let known = Arc::new(Known::new(script, number, stats));
            self.used_bytes.fetch_add(known.bytes(), Ordering::Relaxed);
            kept.evaled += 1;
            kept.evaled_bytes += known.bytes();
            kept.candidates.push(Reverse((known.last_use(), number, sha)));
            kept.by_sha.insert(sha, known);
        }
        let known = kept.by_sha[&sha].clone();
        if brought == Brought::ToStay {
            Self::mark_to_stay(&mut kept, &known);
        }
        self.shorten_kept(&mut kept, entries_max);
        known
    }

    /// SCRIPT LOAD of a script that is there.
    pub fn keep(&self, known: &Known) {
        if !known.stays() {
            let mut kept = self.kept.write();
            // It may have been evicted meanwhile.
            if kept.by_sha.get(known.script.sha()).is_some_and(|kept| std::ptr::eq(&**kept, known))
            {
                Self::mark_to_stay(&mut kept, known);
            }
        }
    }

    fn mark_to_stay(kept: &mut Kept, known: &Known) {
        if known.set_stays() {
            kept.evaled -= 1;
            kept.evaled_bytes -= known.bytes();
        }
    }

    /// Evicts what is too much.
    pub fn shorten(&self, entries_max: u64) {
        self.shorten_kept(&mut self.kept.write(), entries_max);
    }

    fn shorten_kept(&self, kept: &mut Kept, entries_max: u64) {
        while kept.evaled as u64 > entries_max
            || (kept.evaled_bytes > EVALED_BYTES_MAX && kept.evaled > 1)
        {
            let Some(known) = kept.evict() else { return };
            self.used_bytes.fetch_sub(known.bytes(), Ordering::Relaxed);
            self.let_go(std::iter::once(&known));
            let mut evicted = self.evicted.lock();
            if evicted.len() == EVICTED_MAX {
                evicted.pop_front();
            }
            evicted.push_back(*known.script.sha());
            self.evictions.fetch_add(1, Ordering::Release);
        }
    }

    /// Scripts evicted so far. VMs compare it with what they have seen.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Acquire)
    }

    /// The scripts evicted behind the first `seen`, and how many there are now; no list when they
    /// are too many to remember. One may be back already.
    pub fn evicted_since(&self, seen: u64) -> (Option<Vec<Sha>>, u64) {
        let evicted = self.evicted.lock();
        let now = self.evictions.load(Ordering::Acquire);
        let missed = (now - seen) as usize;
        let list = (missed <= evicted.len())
            .then(|| evicted.iter().skip(evicted.len() - missed).copied().collect());
        (list, now)
    }

    /// For INFO: evicted since the statistics were reset.
    pub fn evicted_scripts(&self) -> u64 {
        self.evictions() - self.evictions_before.load(Ordering::Relaxed)
    }

    pub fn reset_stats(&self) {
        self.evictions_before.store(self.evictions(), Ordering::Relaxed);
        for known in self.leaving.lock().iter().filter_map(Weak::upgrade) {
            known.stats.reset();
        }
        *self.gone.lock() = Totals::default();
        self.kept.read().by_sha.values().for_each(|known| known.stats.reset());
    }

    /// All scripts in the order they came in.
    pub fn list(&self) -> Vec<Arc<Known>> {
        let mut list: Vec<Arc<Known>> = self.kept.read().by_sha.values().cloned().collect();
        list.sort_unstable_by_key(|known| known.number);
        list
    }

    /// By 40 hexadecimal digits or by its name; of several with one name the newest. It is looked
    /// at, not used.
    pub fn look_up(&self, what: &[u8]) -> Option<Arc<Known>> {
        let kept = self.kept.read();
        if let Some(known) = super::parse_sha(what).and_then(|sha| kept.by_sha.get(&sha)) {
            return Some(known.clone());
        }
        let is_it =
            |known: &&Arc<Known>| known.script.name().is_some_and(|name| name.as_bytes() == what);
        kept.by_sha.values().filter(is_it).max_by_key(|known| known.number).cloned()
    }

    /// Of the scripts that are gone.
    pub fn totals_of_gone(&self) -> Totals {
        let held: Vec<Arc<Known>> = self.leaving.lock().iter().filter_map(Weak::upgrade).collect();
        let mut totals = self.gone.lock().clone();
        held.iter().for_each(|known| totals.add(&known.stats.totals()));
        totals
    }

    /// What is to be counted of a function, which is not in here.
    pub(super) fn new_stats(&self) -> ScriptStats {
        ScriptStats::new(self.workers, self.gone.clone())
    }

    /// Functions are gone: the VMs are to forget them too.
    pub(super) fn forget_functions(&self, gone: &[&Arc<Known>]) {
        self.let_go(gone.iter().copied());
        let mut evicted = self.evicted.lock();
        for known in gone {
            if evicted.len() == EVICTED_MAX {
                evicted.pop_front();
            }
            evicted.push_back(*known.script.sha());
        }
        // They are no evictions of scripts.
        self.evictions.fetch_add(gone.len() as u64, Ordering::Release);
        self.evictions_before.fetch_add(gone.len() as u64, Ordering::Relaxed);
    }

    /// Scripts are taken out.
    fn let_go<'k>(&self, scripts: impl Iterator<Item = &'k Arc<Known>>) {
        // Few are held for long: those that workers ran last.
        let mut leaving = self.leaving.lock();
        leaving.retain(|known| known.strong_count() > 0);
        leaving.extend(scripts.filter(|known| !known.never_ran()).map(Arc::downgrade));
    }

    /// SCRIPT FLUSH.
    pub fn flush(&self) {
        let gone = {
            let mut kept = self.kept.write();
            self.used_bytes.store(0, Ordering::Relaxed);
            self.generation.fetch_add(1, Ordering::Release);
            kept.by_sha.values().for_each(|known| known.set_gone());
            self.let_go(kept.by_sha.values());
            std::mem::take(&mut *kept)
        };
        // Freed while nobody waits for the lock.
        drop(gone);
        self.leaving.lock().retain(|known| known.strong_count() > 0);
    }

    pub fn len(&self) -> usize {
        self.kept.read().by_sha.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Raised by every flush: VMs forget what they loaded.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lua::{Vm, VmOptions};

    struct Fixture {
        vm: Vm,
        cache: Cache,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture { vm: Vm::new(VmOptions::default()), cache: Cache::new(1) }
        }

        fn insert(&mut self, source: &str, brought: Brought, entries_max: u64) {
            let script = self.vm.compile(source.as_bytes()).unwrap();
            self.cache.insert(script, brought, entries_max);
        }

        fn eval(&mut self, source: &str) {
            self.insert(source, Brought::ByEval, 3);
        }

        fn has(&self, source: &str) -> bool {
            self.cache.contains(&lua::sha_of(source.as_bytes()))
        }

        fn used(&self, source: &str) -> bool {
            self.cache.get(&lua::sha_of(source.as_bytes())).is_some()
        }

        fn which(&self, sources: &[&'static str]) -> Vec<&'static str> {
            sources.iter().copied().filter(|source| self.has(source)).collect()
        }
    }

    const SOURCES: [&str; 6] =
        ["return 1", "return 2", "return 3", "return 4", "return 5", "return 6"];

    #[test]
    fn the_least_recently_used_one_goes() {
        let mut fixture = Fixture::new();
        for source in &SOURCES[..3] {
            fixture.eval(source);
        }
        assert!(fixture.used("return 1"));
        fixture.eval("return 4");
        assert_eq!(fixture.which(&SOURCES), ["return 1", "return 3", "return 4"]);
        assert!(fixture.used("return 1"));
        assert!(fixture.used("return 3"));
        fixture.insert("return 5", Brought::ByEval, 4);
        assert_eq!(fixture.which(&SOURCES), ["return 1", "return 3", "return 4", "return 5"]);
        fixture.eval("return 6");
        assert_eq!(fixture.which(&SOURCES), ["return 3", "return 5", "return 6"]);
        assert_eq!(fixture.cache.evicted_scripts(), 3);
        fixture.cache.reset_stats();
        assert_eq!((fixture.cache.evicted_scripts(), fixture.cache.evictions()), (0, 3));
    }

    #[test]
    fn a_use_is_later_than_the_newest_script() {
        let mut fixture = Fixture::new();
        fixture.insert("return 1", Brought::ByEval, 2);
        fixture.insert("return 2", Brought::ByEval, 2);
        assert!(fixture.used("return 1"));
        fixture.insert("return 3", Brought::ByEval, 2);
        assert_eq!(fixture.which(&SOURCES), ["return 1", "return 3"]);
    }

    #[test]
    fn loaded_ones_stay_whoever_came_first() {
        let mut fixture = Fixture::new();
        fixture.insert("return 1", Brought::ToStay, 3);
        fixture.eval("return 1");
        fixture.eval("return 2");
        let known = fixture.cache.get(&lua::sha_of(b"return 2")).unwrap();
        fixture.cache.keep(&known);
        for source in &SOURCES[2..] {
            fixture.eval(source);
        }
        assert_eq!(
            fixture.which(&SOURCES),
            ["return 1", "return 2", "return 4", "return 5", "return 6"]
        );
        fixture.cache.shorten(1);
        assert_eq!(fixture.which(&SOURCES), ["return 1", "return 2", "return 6"]);
        fixture.cache.flush();
        assert!(fixture.cache.is_empty());
        assert_eq!(fixture.cache.used_bytes(), 0);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut fixture = Fixture::new();
        let source = |n: usize| format!("return '{n}{}'", "x".repeat(10 << 20));
        for n in 0..5 {
            fixture.insert(&source(n), Brought::ByEval, 1000);
        }
        // Each is kept as source and as bytecode, so three of them are within 64 MB.
        assert_eq!(fixture.cache.len(), 3);
        assert!(fixture.cache.used_bytes() <= EVALED_BYTES_MAX);
        assert!(fixture.has(&source(4)) && !fixture.has(&source(1)));
    }

    #[test]
    fn who_missed_too_much_is_told_so() {
        let mut fixture = Fixture::new();
        for n in 0..EVICTED_MAX + 3 {
            fixture.eval(&format!("return {n}"));
        }
        let (list, now) = fixture.cache.evicted_since(0);
        assert_eq!((list.map(|list| list.len()), now), (Some(EVICTED_MAX), EVICTED_MAX as u64));
        fixture.eval("return 'one more'");
        assert_eq!(fixture.cache.evicted_since(0), (None, now + 1));
        let last = lua::sha_of(format!("return {EVICTED_MAX}").as_bytes());
        assert_eq!(fixture.cache.evicted_since(now), (Some(vec![last]), now + 1));
    }
}

//! Hot keys: which keys cost the most time and the most bytes on the wire, while somebody asks.
//!
//! Off, it costs one look at a flag for each command. On, each command adds to the counts of its keys;
//! of many keys those with the lowest counts are forgotten now and then, so that memory is bounded.
//!
//! Thread safety: one lock, taken by every command while it is on.

use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Keys whose counts are kept; with twice as many the lower half goes.
const KEYS_KEPT: usize = 4096;
/// Longer keys are not counted.
const KEY_BYTES_MAX: usize = 4096;

/// What is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    pub time: bool,
    pub bytes: bool,
    /// Keys that are answered.
    pub count: usize,
    /// One command of so many is looked at.
    pub ratio: u64,
    pub duration_ms: Option<i64>,
}

/// What the process has used up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub user_ms: i64,
    pub system_ms: i64,
    pub net_bytes: u64,
}

#[derive(Default)]
struct Counts(HashMap<Box<[u8]>, u64>);

impl Counts {
    fn add(&mut self, key: &[u8], amount: u64) {
        *self.0.entry_ref(key).or_insert(0) += amount;
        if self.0.len() >= 2 * KEYS_KEPT {
            let mut amounts: Vec<u64> = self.0.values().copied().collect();
            let (_, median, _) = amounts.select_nth_unstable(KEYS_KEPT);
            let (limit, mut room) = (*median, KEYS_KEPT);
            self.0.retain(|_, amount| {
                let stays = *amount > limit || (*amount == limit && room > 0);
                room -= usize::from(stays && room > 0);
                stays
            });
        }
    }

    /// The largest, the largest first.
    fn top(&self, count: usize) -> Vec<(Box<[u8]>, u64)> {
        let mut all: Vec<(&Box<[u8]>, u64)> = self.0.iter().map(|(key, n)| (key, *n)).collect();
        all.retain(|(_, amount)| *amount > 0);
        all.sort_unstable_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
        all.truncate(count);
        all.into_iter().map(|(key, amount)| (key.clone(), amount)).collect()
    }
}

struct Session {
    wish: Wish,
    started_ms: i64,
    /// Once it is over.
    ended_ms: Option<i64>,
    started: Used,
    ended: Used,
    by_ns: Counts,
    by_bytes: Counts,
    ns: u64,
    bytes: u64,
}

/// What was found.
pub struct Report {
    pub wish: Wish,
    pub is_on: bool,
    pub started_ms: i64,
    pub duration_ms: i64,
    /// In all commands.
    pub us: u64,
    pub bytes: u64,
    pub used: Used,
    pub by_us: Vec<(Box<[u8]>, u64)>,
    pub by_bytes: Vec<(Box<[u8]>, u64)>,
}

#[derive(Default)]
pub struct HotKeys {
    is_on: AtomicBool,
    session: Mutex<Option<Session>>,
}

impl HotKeys {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Begins to count; false when it counts already.
    pub fn start(&self, wish: Wish, used: Used, now_ms: i64) -> bool {
        self.end_if_over(used, now_ms);
        let mut session = self.session.lock();
        if self.is_on() {
            return false;
        }
        *session = Some(Session {
            wish,
            started_ms: now_ms,
            ended_ms: None,
            started: used,
            ended: used,
            by_ns: Counts::default(),
            by_bytes: Counts::default(),
            ns: 0,
            bytes: 0,
        });
        self.is_on.store(true, Ordering::Relaxed);
        true
    }

    /// Ends the counting; false when it did not count.
    pub fn stop(&self, used: Used, now_ms: i64) -> bool {
        self.end_if_over(used, now_ms);
        let mut session = self.session.lock();
        let Some(session) = session.as_mut().filter(|_| self.is_on()) else { return false };
        session.ended_ms = Some(now_ms);
        session.ended = used;
        self.is_on.store(false, Ordering::Relaxed);
        true
    }

    /// Forgets what was counted; false while it counts.
    pub fn reset(&self, used: Used, now_ms: i64) -> bool {
        self.end_if_over(used, now_ms);
        let mut session = self.session.lock();
        if self.is_on() {
            return false;
        }
        *session = None;
        true
    }

    fn end_if_over(&self, used: Used, now_ms: i64) {
        let mut session = self.session.lock();
        if let Some(session) = &mut *session
            && session.ended_ms.is_none()
            && let Some(duration_ms) = session.wish.duration_ms
            && now_ms - session.started_ms >= duration_ms
        {
            session.ended_ms = Some(session.started_ms.saturating_add(duration_ms));
            session.ended = used;
            self.is_on.store(false, Ordering::Relaxed);
        }
    }

    /// A command ran. What it took is shared among its keys.
    pub fn note<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
        ns: u64,
        bytes: u64,
        now_ms: i64,
    ) {
        let mut session = self.session.lock();
        let Some(session) = session.as_mut().filter(|session| session.ended_ms.is_none()) else {
            return;
        };
        let wish = session.wish;
        if wish.duration_ms.is_some_and(|duration_ms| now_ms - session.started_ms >= duration_ms) {
            return;
        }
        session.ns += ns;
        session.bytes += bytes;
        if wish.ratio > 1 && fastrand::u64(..wish.ratio) > 0 {
            return;
        }
        let shares = keys.len().max(1) as u64;
        for key in keys.filter(|key| key.len() <= KEY_BYTES_MAX) {
            if wish.time {
                session.by_ns.add(key, ns / shares);
            }
            if wish.bytes {
                session.by_bytes.add(key, bytes / shares);
            }
        }
    }

    pub fn report(&self, used: Used, now_ms: i64) -> Option<Report> {
        self.end_if_over(used, now_ms);
        let session = self.session.lock();
        let session = session.as_ref()?;
        let until = if session.ended_ms.is_some() { session.ended } else { used };
        let by_ns = session.by_ns.top(session.wish.count).into_iter();
        Some(Report {
            wish: session.wish,
            is_on: session.ended_ms.is_none(),
            started_ms: session.started_ms,
            duration_ms: session.ended_ms.unwrap_or(now_ms) - session.started_ms,
            us: session.ns / 1000,
            bytes: session.bytes,
            used: Used {
                user_ms: until.user_ms - session.started.user_ms,
                system_ms: until.system_ms - session.started.system_ms,
                net_bytes: until.net_bytes.saturating_sub(session.started.net_bytes),
            },
            // What took less than a microsecond took some time.
            by_us: by_ns.map(|(key, ns)| (key, ns.div_ceil(1000))).collect(),
            by_bytes: session.by_bytes.top(session.wish.count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { time: true, bytes: true, count: 3, ratio: 1, duration_ms: None };

    fn names(list: &[(Box<[u8]>, u64)]) -> Vec<&str> {
        list.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
    }

    #[test]
    fn the_hottest_come_first() {
        let hot = HotKeys::default();
        assert!(hot.report(Used::default(), 0).is_none());
        assert!(hot.start(WISH, Used::default(), 0));
        assert!(!hot.start(WISH, Used::default(), 0), "it is on");
        hot.note([&b"a"[..], b"b"].into_iter(), 4000, 10, 1);
        hot.note([&b"b"[..]].into_iter(), 1, 90, 1);
        hot.note([].into_iter(), 1000, 1, 1);
        assert!(!hot.reset(Used::default(), 1), "not while it is on");
        assert!(hot.stop(Used::default(), 5));
        hot.note([&b"late"[..]].into_iter(), 1_000_000, 1000, 6);
        let report = hot.report(Used::default(), 9).unwrap();
        assert_eq!(names(&report.by_us), ["b", "a"]);
        assert_eq!(names(&report.by_bytes), ["b", "a"]);
        assert_eq!((report.us, report.bytes, report.duration_ms), (5, 101, 5));
        assert!(hot.reset(Used::default(), 9) && hot.report(Used::default(), 9).is_none());
    }

    #[test]
    fn it_ends_by_itself() {
        let hot = HotKeys::default();
        assert!(hot.start(Wish { duration_ms: Some(10), ..WISH }, Used::default(), 0));
        hot.note([&b"a"[..]].into_iter(), 1000, 1, 9);
        hot.note([&b"b"[..]].into_iter(), 1000, 1, 10);
        let report = hot.report(Used::default(), 50).unwrap();
        assert_eq!(
            (names(&report.by_us), report.is_on, report.duration_ms),
            (vec!["a"], false, 10)
        );
        assert!(!hot.stop(Used::default(), 50));
    }

    #[test]
    fn memory_is_bounded_and_the_hot_stay() {
        let hot = HotKeys::default();
        assert!(hot.start(WISH, Used::default(), 0));
        for number in 0..20 * KEYS_KEPT {
            let cold = format!("cold{number}").into_bytes();
            hot.note([&cold[..]].into_iter(), 1000, 1, 1);
            hot.note([&b"hot"[..]].into_iter(), 1000, 1, 1);
            hot.note([&[b'x'; KEY_BYTES_MAX + 1][..]].into_iter(), 1_000_000_000, 1 << 30, 1);
        }
        let report = hot.report(Used::default(), 2).unwrap();
        assert_eq!(&*report.by_us[0].0, b"hot");
        assert_eq!(report.by_bytes[0], (b"hot"[..].into(), 20 * KEYS_KEPT as u64));
        let session = hot.session.lock();
        assert!(session.as_ref().is_some_and(|session| session.by_ns.0.len() <= 2 * KEYS_KEPT));
    }
}

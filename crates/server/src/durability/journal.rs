//! The queue between transactions and the thread that writes the append-only file.
//!
//! A transaction appends its block under its locks, said in commands as the file will have it, and
//! gets a number, its place in the order of all blocks. The keeper takes what has gathered. With
//! `appendfsync always` replies wait in their connections until `durable` has reached the number of
//! the last block that they tell of; many of them are covered by one sync.
//!
//! Thread safety: `queue` is locked for a copy of a block's commands, by whoever holds the locks of
//! the keys; no other lock is taken under it. What else is shared are single numbers.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use command::propagate::{self, Said};
use engine::{Changes, Engine};
use parking_lot::{Condvar, Mutex};
use persist::aof::{Buffer, put_block};

/// Bytes that may wait to be written; who wants to change something then waits for the keeper. As
/// much again may be in its hands.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// So much is worth being written at once.
const BATCH_BYTES: usize = 1 << 20;
/// How long blocks gather that nobody waits for.
const GATHER: Duration = Duration::from_millis(5);
/// What was answered may be in this process alone for so long before commands that change something
/// wait: with the time between two looks, and that of an answer on its way, less than a second.
pub const UNWRITTEN_MS_MAX: u64 = 500;
/// A block is said here before it is queued, so that nobody waits for that.
const KEPT_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static COMMANDS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How commands that change something fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pressure {
    None,
    /// They wait: there is too much to be written, or the disk takes too long.
    Full,
    /// They are refused: the file cannot be written.
    Denied,
}

/// What the keeper is to do at its place among the blocks.
pub struct Order<T> {
    /// Bytes that come before it.
    pub at: usize,
    /// The last block before it.
    pub last: u64,
    pub what: T,
}

struct Queue<T> {
    bytes: Buffer,
    /// The database that a reader of the file is in behind these bytes, if that is known.
    db: Option<u32>,
    /// When the first of them came, ms as `Journal::now_ms` has it.
    since_ms: u64,
    /// The number of the last block, and of the last one that the keeper has taken.
    last: u64,
    taken: u64,
    /// Blocks are numbered, and nothing else becomes of them.
    is_closed: bool,
    /// The keeper waits, and for nothing in particular.
    is_idle: bool,
    /// Somebody waits for a sync.
    wants_sync: bool,
    /// The keeper waits for the block of this number before it syncs.
    awaited: u64,
    /// In their order.
    orders: Vec<Order<T>>,
}

/// In cache lines of its own: what is beside it is looked at by every command that writes.
#[repr(align(128))]
struct Apart<T>(T);

/// How long the keeper waits for those to come back whom the last sync has let go, so that the next
/// one is for them too.
#[derive(Clone, Copy, Default)]
pub struct Patience {
    /// Blocks of the last sync.
    pub blocks: u64,
    pub wait: Duration,
}

/// What the keeper takes.
pub struct Batch<T> {
    pub bytes: Buffer,
    /// The number of its last block, and how many there are.
    pub last: u64,
    pub count: u64,
    pub wants_sync: bool,
    pub orders: Vec<Order<T>>,
}

/// What came while a batch could not be written.
pub struct Orders<T> {
    pub contains_overtaking: bool,
    pub others: Vec<T>,
}

/// `T`: orders to the keeper.
pub struct Journal<T> {
    queue: Apart<Mutex<Queue<T>>>,
    wake: Condvar,
    /// The last block that is safe.
    durable: AtomicU64,
    /// Replies wait for it.
    holds_replies: AtomicBool,
    /// By worker: replies wait there.
    waiting: Box<[AtomicBool]>,
    pressure: AtomicU8,
    /// Why commands are refused.
    trouble: Mutex<String>,
    /// When the first block came that is not written yet, ms as `now_ms` has it; 0 when all are.
    unwritten_since_ms: AtomicU64,
    is_syncing: AtomicBool,
    started: Instant,
    /// Syncs that were so late that commands had to wait.
    pub delayed_syncs: AtomicU64,
}

impl<T> Journal<T> {
    pub fn new(workers: usize) -> Journal<T> {
        let queue = Queue {
            bytes: Buffer::default(),
            db: None,
            since_ms: 0,
            last: 0,
            taken: 0,
            is_closed: false,
            is_idle: false,
            wants_sync: false,
            awaited: 0,
            orders: Vec::new(),
        };
        Journal {
            queue: Apart(Mutex::new(queue)),
            wake: Condvar::new(),
            durable: AtomicU64::new(0),
            holds_replies: AtomicBool::new(false),
            waiting: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            pressure: AtomicU8::new(Pressure::None as u8),
            trouble: Mutex::default(),
            unwritten_since_ms: AtomicU64::new(0),
            is_syncing: AtomicBool::new(false),
            started: Instant::now(),
            delayed_syncs: AtomicU64::new(0),
        }
    }

    // --- transactions ------------------------------------------------------------------------

    /// Takes a block; answers its number.
    pub fn append(&self, block: &Changes) -> u64 {
        COMMANDS.with_borrow_mut(|commands| {
            commands.clear();
            let said = propagate::say(block.records(), commands);
            let number = self.queue(commands, said);
            commands.shrink_to(KEPT_BYTES_MAX);
            number
        })
    }

    fn queue(&self, commands: &[u8], said: Said) -> u64 {
        let mut queue = self.queue.0.lock();
        if queue.is_closed {
            queue.last += 1;
            return queue.last;
        }
        if queue.bytes.is_empty() {
            queue.since_ms = self.now_ms();
            if self.unwritten_since_ms.load(Ordering::Relaxed) == 0 {
                self.unwritten_since_ms.store(queue.since_ms, Ordering::SeqCst);
            }
        }
        if let Some((first, last)) = said.dbs {
            if queue.db != Some(first) {
                propagate::select(first, queue.bytes.tail());
            }
            queue.db = Some(last);
        }
        put_block(commands, said.count, queue.bytes.tail());
        queue.last += 1;
        let number = queue.last;
        if queue.bytes.len() >= BATCH_BYTES {
            queue.is_idle = false;
            self.wake.notify_one();
            if queue.bytes.len() >= QUEUE_BYTES_MAX {
                self.raise(Pressure::None, Pressure::Full);
            }
        } else if std::mem::take(&mut queue.is_idle) {
            self.wake.notify_one();
        }
        number
    }

    // --- workers -----------------------------------------------------------------------------

    #[inline]
    pub fn is_pressed(&self) -> bool {
        self.pressure.load(Ordering::Relaxed) != Pressure::None as u8
    }

    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Ordering::Acquire) {
            0 => Pressure::None,
            1 => Pressure::Full,
            _ => Pressure::Denied,
        }
    }

    fn raise(&self, from: Pressure, to: Pressure) -> bool {
        let (from, to) = (from as u8, to as u8);
        self.pressure.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Why commands are refused.
    pub fn trouble(&self) -> String {
        self.trouble.lock().clone()
    }

    #[inline]
    pub fn holds_replies(&self) -> bool {
        self.holds_replies.load(Ordering::Acquire)
    }

    /// The last block that is safe.
    #[inline]
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// Whether commands are refused: what is not safe now may never be.
    pub fn is_denied(&self) -> bool {
        self.pressure.load(Ordering::SeqCst) == Pressure::Denied as u8
    }

    /// The number of the last block.
    pub fn last(&self) -> u64 {
        self.queue.0.lock().last
    }

    /// Replies of this worker wait: it is to be woken when some may go.
    pub fn wait(&self, worker: usize) {
        self.waiting[worker].store(true, Ordering::SeqCst);
        let mut queue = self.queue.0.lock();
        if !std::mem::replace(&mut queue.wants_sync, true) || queue.last >= queue.awaited {
            queue.is_idle = false;
            self.wake.notify_one();
        }
    }

    /// This worker is to be woken when more is safe, whenever that is.
    pub fn watch(&self, worker: usize) {
        self.waiting[worker].store(true, Ordering::SeqCst);
    }

    /// Now and then: has commands wait if blocks were answered and have not been written for so long,
    /// because a write or a sync takes its time or the keeper does not get its turn.
    pub fn look_at_age(&self, ms_max: u64) {
        if self.holds_replies() || !self.is_late(ms_max) {
            return;
        }
        if self.raise(Pressure::None, Pressure::Full) {
            if self.is_syncing() {
                self.delayed_syncs.fetch_add(1, Ordering::Relaxed);
            }
            // All may be written meanwhile, and the keeper at rest.
            if !self.is_late(ms_max) {
                self.raise(Pressure::Full, Pressure::None);
            }
        }
    }

    fn is_late(&self, ms_max: u64) -> bool {
        let since_ms = self.unwritten_since_ms.load(Ordering::SeqCst);
        since_ms > 0 && self.now_ms().saturating_sub(since_ms) >= ms_max
    }

    /// Ms after the start, counted from 1.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    /// Waits until all blocks so far are safe; false when that takes longer, or cannot be.
    pub fn wait_durable(&self, number: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.durable() < number {
            if self.is_denied() || Instant::now() > deadline {
                return false;
            }
            self.want_sync();
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }

    fn want_sync(&self) {
        let mut queue = self.queue.0.lock();
        queue.wants_sync = true;
        queue.is_idle = false;
        self.wake.notify_one();
    }

    // --- orders ------------------------------------------------------------------------------

    /// Has the keeper do something behind all blocks so far.
    pub fn order(&self, what: T) {
        let mut queue = self.queue.0.lock();
        let (at, last) = (queue.bytes.len(), queue.last);
        queue.orders.push(Order { at, last, what });
        // Another file may begin there.
        queue.db = None;
        queue.is_idle = false;
        self.wake.notify_one();
    }

    /// Whether blocks are passed over from here on. The keeper writes those that came before.
    pub fn set_closed(&self, is_closed: bool) {
        self.queue.0.lock().is_closed = is_closed;
    }

    /// Has the keeper look at the configuration.
    pub fn nudge(&self) {
        self.queue.0.lock().is_idle = false;
        self.wake.notify_one();
    }

    /// What waits to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queue.0.lock().bytes.len()
    }

    /// Whether a sync runs.
    pub fn is_syncing(&self) -> bool {
        self.is_syncing.load(Ordering::Relaxed)
    }

    // --- the keeper --------------------------------------------------------------------------

    /// Waits for something to do, until `until` at most, and takes all there is. `spare` is an
    /// empty buffer.
    pub fn next(&self, until: Option<Instant>, spare: Buffer, patience: Patience) -> Batch<T> {
        debug_assert!(spare.is_empty());
        let mut queue = self.queue.0.lock();
        // Those who wait already, and those who were let go.
        queue.awaited = queue.last + patience.blocks;
        let is_due = |queue: &Queue<T>| queue.wants_sync || !queue.orders.is_empty();
        if queue.bytes.is_empty() && !is_due(&queue) {
            queue.is_idle = true;
            match until {
                None => self.wake.wait(&mut queue),
                Some(until) => {
                    self.wake.wait_until(&mut queue, until);
                }
            }
            queue.is_idle = false;
        }
        if queue.bytes.len() < BATCH_BYTES && !queue.bytes.is_empty() && !is_due(&queue) {
            self.wake.wait_for(&mut queue, GATHER);
        }
        if queue.wants_sync && !patience.wait.is_zero() {
            let until = Instant::now() + patience.wait;
            while queue.last < queue.awaited
                && queue.orders.is_empty()
                && queue.bytes.len() < BATCH_BYTES
                && !self.wake.wait_until(&mut queue, until).timed_out()
            {}
        }
        queue.awaited = 0;
        let bytes = std::mem::replace(&mut queue.bytes, spare);
        let count = queue.last - queue.taken;
        queue.taken = queue.last;
        let wants_sync = std::mem::take(&mut queue.wants_sync);
        let orders = std::mem::take(&mut queue.orders);
        Batch { bytes, last: queue.last, count, wants_sync, orders }
    }

    /// Waits a moment, while what was taken cannot be written. Answers whether orders came that make
    /// it needless, which stay where they are, and else takes the others.
    pub fn orders_within(&self, patience: Duration, overtakes: impl Fn(&T) -> bool) -> Orders<T> {
        let mut queue = self.queue.0.lock();
        if queue.orders.is_empty() {
            self.wake.wait_for(&mut queue, patience);
        }
        let contains_overtaking = queue.orders.iter().any(|order| overtakes(&order.what));
        let others = match contains_overtaking {
            true => Vec::new(),
            false => queue.orders.drain(..).map(|order| order.what).collect(),
        };
        Orders { contains_overtaking, others }
    }

    /// Blocks up to this one are written, or need not be any more.
    pub fn note_written(&self, number: u64) {
        let queue = self.queue.0.lock();
        if number < queue.taken {
            return;
        }
        let since_ms = if queue.bytes.is_empty() { 0 } else { queue.since_ms };
        self.unwritten_since_ms.store(since_ms, Ordering::SeqCst);
        if queue.bytes.len() < QUEUE_BYTES_MAX && !self.is_late(UNWRITTEN_MS_MAX) {
            self.raise(Pressure::Full, Pressure::None);
        }
    }

    /// A sync begins or ends.
    pub fn note_sync(&self, runs: bool) {
        self.is_syncing.store(runs, Ordering::Relaxed);
    }

    /// All blocks up to this one are safe. Answers which workers have replies waiting.
    pub fn set_durable(&self, number: u64) -> Vec<usize> {
        self.durable.store(number, Ordering::SeqCst);
        self.workers_waiting()
    }

    fn workers_waiting(&self) -> Vec<usize> {
        let waits = |flag: &AtomicBool| flag.swap(false, Ordering::SeqCst);
        (0..self.waiting.len()).filter(|&worker| waits(&self.waiting[worker])).collect()
    }

    /// Whether replies wait for blocks.
    pub fn set_holds_replies(&self, holds: bool) {
        self.holds_replies.store(holds, Ordering::Release);
    }

    /// From now on commands are refused. Answers which workers have replies waiting.
    pub fn deny(&self, why: String) -> Vec<usize> {
        *self.trouble.lock() = why;
        self.pressure.store(Pressure::Denied as u8, Ordering::SeqCst);
        self.workers_waiting()
    }

    /// Commands are welcome again.
    pub fn allow(&self) {
        self.pressure.store(Pressure::None as u8, Ordering::Release);
    }
}

/// What the engine is given.
pub struct Ear<T>(pub std::sync::Arc<Journal<T>>);

impl<T: Send> engine::Journal for Ear<T> {
    fn append(&self, block: &Changes) -> u64 {
        self.0.append(block)
    }
}

/// Has the engine tell the journal of all changes.
pub fn connect<T: Send + 'static>(journal: &std::sync::Arc<Journal<T>>, engine: &Engine) {
    engine.set_journal(Box::new(Ear(journal.clone())));
}

#[cfg(test)]
mod tests {
    use engine::{Change, Expiry, Record};

    use super::*;

    fn append(journal: &Journal<()>) {
        let mut block = Changes::default();
        let change = Change::Set { value: b"v", expiry: Expiry::Clear };
        block.add(Record { db: 0, key: b"k", change });
        journal.append(&block);
    }

    fn take(journal: &Journal<()>) -> u64 {
        journal.next(None, Buffer::default(), Patience::default()).last
    }

    #[test]
    fn commands_wait_while_something_old_is_not_written() {
        let journal = Journal::new(1);
        // Nothing there is of any age, and everything is old enough for no time at all.
        let is_held = || {
            journal.look_at_age(0);
            journal.pressure() == Pressure::Full
        };
        assert!(!is_held());
        append(&journal);
        journal.look_at_age(u64::MAX);
        assert!(!journal.is_pressed());
        assert!(is_held());
        // Taken is not written, and what is written is not all that there is.
        let first = take(&journal);
        append(&journal);
        assert!(is_held());
        journal.note_written(first);
        assert!(!journal.is_pressed() && is_held());
        let second = take(&journal);
        journal.note_written(first);
        assert!(journal.is_pressed());
        journal.note_written(second);
        assert!(!journal.is_pressed() && !is_held());
        // Whose answers wait for a sync need not wait for it twice.
        append(&journal);
        journal.set_holds_replies(true);
        assert!(!is_held());
    }
}

//! The keeper on a disk that fails at random: writes that stop in the middle, syncs that fail and
//! leave nothing of what they were for, and power that is lost.
//!
//! Blocks are numbered. What was said to be durable is there after a crash, whole and without a gap,
//! and once the disk works again so does the keeper. `KEEPER_SEED` repeats a run, `KEEPER_COUNT` sets
//! how many there are.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard};

use command::propagate::Propagation;
use engine::{Change, Changes, Expiry, Record};
use fastrand::Rng;
use persist::aof::{Block, Load, PIECE_BYTES};

use super::*;
use crate::config::{Config, ConfigStore};

const NAME: &str = "appendonly.aof";

/// What is written as a whole or not at all. Lines of room are not cut by it.
const SECTOR_BYTES: usize = 64;

#[derive(Clone, Default)]
struct Node {
    /// As the system shows it.
    data: Vec<u8>,
    /// As it is on the disk.
    disk: Vec<u8>,
    /// As the system takes it for written. What is different from it is to be written.
    clean: Vec<u8>,
    /// The system holds something that is to be written.
    has_cached: bool,
}

impl Node {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at..end].copy_from_slice(bytes);
    }

    fn cut(&mut self, keep_bytes: usize) {
        for bytes in [&mut self.data, &mut self.disk, &mut self.clean] {
            bytes.truncate(keep_bytes);
        }
    }

    /// Writes the sectors that are to be written, those that are chosen.
    fn flush(&mut self, mut chooses: impl FnMut() -> bool) {
        let Node { data, disk, clean, .. } = self;
        let old_bytes = clean.len();
        if disk.len() < data.len() {
            disk.resize(data.len(), 0);
        }
        for at in (0..old_bytes).step_by(SECTOR_BYTES) {
            let sector = at..old_bytes.min(at + SECTOR_BYTES);
            if data[sector.clone()] != clean[sector.clone()] && chooses() {
                disk[sector.clone()].copy_from_slice(&data[sector]);
            }
        }
        if old_bytes < data.len() && chooses() {
            disk[old_bytes..].copy_from_slice(&data[old_bytes..]);
        }
        *clean = data.clone();
        self.has_cached = false;
    }
}

#[derive(Default)]
struct State {
    /// What files do that are to be written past the cache.
    direct: Way,
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// Of a hundred operations.
    failing_percent: u8,
    rng: Rng,
}

#[derive(Clone, Copy, Default)]
enum Way {
    #[default]
    Possible,
    Refused,
    RefusedLater,
}

#[derive(Clone, Default)]
struct Moody(Arc<Mutex<State>>);

struct Handle {
    disk: Moody,
    node: usize,
    /// Where it goes on.
    at: usize,
    is_direct: bool,
}

impl Moody {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    fn try_state(&self, error: i32) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match state.fails() {
            true => Err(io::Error::from_raw_os_error(error)),
            false => Ok(state),
        }
    }

    /// The power is lost: what was to be written is there in part.
    fn crash(&self) {
        let State { nodes, rng, .. } = &mut *self.state();
        for node in nodes {
            let old_bytes = node.clean.len();
            let kept = rng.usize(old_bytes..=node.data.len());
            let more = node.data[old_bytes..kept].to_vec();
            node.data.truncate(old_bytes);
            // What was there is written over in any order.
            node.flush(|| rng.bool());
            node.disk.truncate(old_bytes);
            node.disk.extend(more);
            node.data = node.disk.clone();
            node.clean = node.disk.clone();
        }
    }
}

impl State {
    fn fails(&mut self) -> bool {
        self.rng.u8(..100) < self.failing_percent
    }

    fn node(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let mut count = bytes.len();
        let node = &mut state.nodes[self.node];
        if self.is_direct {
            for place in [self.at, bytes.as_ptr().addr(), count] {
                assert_eq!(place % PIECE_BYTES, 0);
            }
            assert!(!node.has_cached, "what stands before it may be lost alone");
        } else {
            node.has_cached = true;
        }
        if let (true, Way::RefusedLater) = (self.is_direct, state.direct) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if state.fails() {
            count = state.rng.usize(..bytes.len());
            if self.is_direct {
                count -= count % PIECE_BYTES;
            }
            if count == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
        }
        state.nodes[self.node].write(self.at, &bytes[..count]);
        self.at += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Append for Handle {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fails = state.fails();
        // The system takes it for written even if it fails.
        state.nodes[self.node].flush(|| !fails);
        if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let fails = state.fails();
        let count = if fails { state.rng.usize(..bytes.len()) } else { bytes.len() };
        assert!(!self.is_direct);
        let node = &mut state.nodes[self.node];
        node.has_cached = true;
        node.write(at as usize, &bytes[..count]);
        if fails { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn cut(&mut self, keep_bytes: u64) -> io::Result<()> {
        self.disk.try_state(libc::EIO)?.nodes[self.node].cut(keep_bytes as usize);
        self.sync()
    }

    fn set_direct(&mut self, is_direct: bool) -> io::Result<()> {
        if let (true, Way::Refused) = (is_direct, self.disk.state().direct) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.is_direct = is_direct;
        Ok(())
    }
}

impl Disk for Moody {
    type File = Handle;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        Ok(state.nodes[state.node(name)?].data.len() as u64)
    }

    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + '_>> {
        let state = self.state();
        let data = &state.nodes[state.node(name)?].data;
        Ok(Box::new(Cursor::new(data[from as usize..].to_vec())))
    }

    fn create(&self, name: &str) -> io::Result<Handle> {
        let mut state = self.try_state(libc::ENOSPC)?;
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.names.insert(name.to_owned(), node);
        drop(state);
        Ok(Handle { disk: self.clone(), node, at: 0, is_direct: false })
    }

    fn extend(&self, name: &str, keep_bytes: u64) -> io::Result<Handle> {
        let mut state = self.try_state(libc::EIO)?;
        let node = state.node(name)?;
        state.nodes[node].cut(keep_bytes.try_into().unwrap_or(usize::MAX));
        let at = state.nodes[node].data.len();
        drop(state);
        let mut handle = Handle { disk: self.clone(), node, at, is_direct: false };
        handle.sync()?;
        Ok(handle)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.try_state(libc::EIO)?;
        let node = state.node(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.try_state(libc::EIO)?;
        state.node(name)?;
        state.names.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.try_state(libc::EIO).map(drop)
    }
}

fn parts(number: u64) -> u64 {
    number % 4 + 1
}

/// The block of this number.
fn block(number: u64) -> Changes {
    let mut changes = Changes::default();
    for part in 0..parts(number) {
        let key = format!("{number}:{part}");
        let value = "x".repeat((number as usize * 7) % 50);
        let change = Change::Set { value: value.as_bytes(), expiry: Expiry::Clear };
        changes.add(Record { db: (number % 3) as u32, key: key.as_bytes(), change });
    }
    changes
}

/// The number of the last block that was loaded, each of which follows the one before.
struct Last(u64);

impl Load for Last {
    fn rdb(&mut self, _: &mut dyn Read) -> Result<u64, String> {
        Err("no RDB was written".into())
    }

    fn block(&mut self, block: Block<'_>) -> Result<(), String> {
        // It moves the reader, and is nobody's.
        if block.command_count() == 1 && block.commands().all(|args| args[0] == b"SELECT") {
            return Ok(());
        }
        let number = self.0 + 1;
        let keys: Vec<String> = block
            .commands()
            .filter(|args| args[0] == b"SET")
            .map(|args| String::from_utf8_lossy(args[1]).into_owned())
            .collect();
        let wanted: Vec<String> =
            (0..parts(number)).map(|part| format!("{number}:{part}")).collect();
        assert_eq!(keys, wanted);
        self.0 = number;
        Ok(())
    }
}

/// A keeper and the one who gives it work.
struct Run {
    disk: Moody,
    keeper: Keeper<Moody>,
    journal: Arc<Journal<Order<Moody>>>,
    /// The keeper wants a rewrite.
    is_asked: Arc<AtomicBool>,
    /// What was there when it began; its blocks are numbered from there.
    before: u64,
    rewrite: Option<(Rewrite<Handle>, u64)>,
    rng: Rng,
}

impl Run {
    /// Starts on what the disk has; `None` when it fails meanwhile.
    fn start(disk: &Moody, config: &Arc<ConfigStore>, seed: u64) -> (u64, Option<Run>) {
        let directory = Directory::open(disk.clone(), NAME).expect("the files are in order");
        let mut last = Last(0);
        let torn = directory.load(&mut last).expect("no file is damaged");
        let journal = Arc::new(Journal::new(1));
        let is_asked = Arc::new(AtomicBool::new(false));
        let asked = is_asked.clone();
        let mut keeper = Keeper::new(
            journal.clone(),
            Arc::default(),
            ConfigView::new(config.clone()),
            Box::new(|_| {}),
            Box::new(move || asked.store(true, Ordering::Relaxed)),
        );
        keeper.retry_period = Duration::ZERO;
        let mut rng = Rng::with_seed(seed);
        // Small enough that there is room now and then, and it ends.
        keeper.room = Room {
            after_bytes: rng.u64(..3000),
            least_bytes: rng.u64(1..300),
            more_bytes: rng.u64(1..2000),
        };
        keeper.room_retry_period = Duration::ZERO;
        let (from_bytes, least_bytes) = (rng.usize(..600), rng.usize(..300));
        let (most_bytes, pause) = (rng.usize(200..3000), Duration::ZERO);
        keeper.direct = Direct { from_bytes, least_bytes, most_bytes, pause };
        let mut directory = directory;
        let opened = directory
            .clean_up()
            .and_then(|()| directory.go_on(torn))
            .and_then(|file| keeper.go_on(directory, file));
        let run = opened.ok().map(|()| Run {
            disk: disk.clone(),
            keeper,
            journal,
            is_asked,
            before: last.0,
            rewrite: None,
            rng,
        });
        (last.0, run)
    }

    fn step(&mut self) {
        // What nobody waits for is taken after a while, if there is something.
        if self.journal.queued_bytes() == 0 || self.rng.u8(..30) > 0 {
            self.journal.wait(0);
        }
        let mut batch = self.journal.next(None, Buffer::default(), Patience::default());
        assert!(self.keeper.process(&mut batch), "nobody told it to stop");
        self.keeper.look_around();
    }

    fn begin_rewrite(&mut self) {
        self.is_asked.store(false, Ordering::Relaxed);
        let (answer, answered) = channel();
        self.journal.order(Order::Begin { directory: None, answer });
        let last = self.before + self.journal.last();
        self.append();
        self.step();
        if let Ok(rewrite) = answered.recv().expect("it answers") {
            self.rewrite = Some((rewrite, last));
        }
    }

    fn end_rewrite(&mut self) {
        let Some((mut rewrite, last)) = self.rewrite.take() else { return };
        let mut out = Vec::new();
        let mut propagation = Propagation::new(None);
        for number in 1..=last {
            let mut rendered = Vec::new();
            let count = propagation.write(block(number).records(), &mut rendered);
            Writer::new(false).block(&rendered, count, 0, &mut out);
        }
        let written = rewrite.base.write_all(&out).and_then(|()| rewrite.base.sync());
        if written.is_err() {
            self.journal.order(Order::Abandon(rewrite));
            return self.step();
        }
        let (answer, answered) = channel();
        let base_bytes = out.len() as u64;
        self.journal.order(Order::Finish {
            rewrite,
            base_bytes,
            is_rdb: false,
            keeps_blocks: true,
            answer,
        });
        self.append();
        self.step();
        let _ = answered.recv().expect("it answers");
    }

    fn append(&mut self) {
        // While commands are refused some keys still expire.
        let count = if self.journal.is_denied() { self.rng.u64(..2) } else { self.rng.u64(..6) };
        for _ in 0..count {
            let number = self.before + self.journal.last() + 1;
            self.journal.append(&block(number));
        }
    }

    fn work(&mut self, steps: u32, acknowledged: &Cell<u64>) {
        for _ in 0..steps {
            match self.rng.u8(..10) {
                0 if self.rewrite.is_none() => self.begin_rewrite(),
                1 | 2 if self.rewrite.is_some() => self.end_rewrite(),
                _ => self.append(),
            }
            if self.rewrite.is_none() && self.is_asked.load(Ordering::Relaxed) {
                self.begin_rewrite();
            }
            if self.rng.u8(..20) == 0 {
                let policies: [&[u8]; 3] = [b"always", b"everysec", b"no"];
                let policy = policies[self.rng.usize(..3)];
                let store = self.keeper.config.store().clone();
                store
                    .set(&[b"appendfsync", policy], true, |_, _| Ok(()))
                    .unwrap_or_else(|_| panic!("it can be set"));
                self.keeper.config.refresh();
            }
            self.step();
            let durable = self.journal.durable();
            assert!(durable <= self.journal.last());
            acknowledged.set(acknowledged.get().max(self.before + durable));
        }
    }

    /// Once the disk works, all becomes safe.
    fn recover(&mut self) {
        self.disk.state().failing_percent = 0;
        let done = (0..20).any(|_| {
            self.end_rewrite();
            // It would be asked for within a second.
            self.keeper.needs_rewrite_at =
                self.keeper.needs_rewrite_at.map(|at| at.min(Instant::now()));
            self.step();
            if self.is_asked.load(Ordering::Relaxed) {
                self.begin_rewrite();
            }
            self.rewrite.is_none()
                && !self.journal.is_denied()
                && self.journal.durable() == self.journal.last()
        });
        assert!(done, "the keeper does not recover");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn what_is_durable_survives_a_disk_that_fails() {
    // The disk's troubles are nothing to read of.
    crate::log::set_file(std::path::Path::new("/dev/null")).expect("it can be written to");
    let first_seed = number("KEEPER_SEED", fastrand::u64(..));
    let count = number("KEEPER_COUNT", 1000);
    let seed_of_this = Cell::new(first_seed);
    for seed in (0..count).map(|index| first_seed.wrapping_add(index)) {
        seed_of_this.set(seed);
        let mut rng = Rng::with_seed(seed);
        let policies = [Appendfsync::Always, Appendfsync::Everysec, Appendfsync::No];
        let policy = policies[rng.usize(..3)];
        let config = Config { appendfsync: policy, ..Config::default() };
        let config = Arc::new(ConfigStore::new(config, None));
        let disk = Moody::default();
        disk.state().rng = Rng::with_seed(rng.u64(..));
        let ways = [Way::Possible, Way::Possible, Way::Refused, Way::RefusedLater];
        disk.state().direct = ways[rng.usize(..4)];
        let acknowledged = Cell::new(0);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..rng.u8(1..5) {
                disk.state().failing_percent = 0;
                let (there, run) = Run::start(&disk, &config, rng.u64(..));
                assert!(there >= acknowledged.get(), "{there} of {}", acknowledged.get());
                acknowledged.set(there);
                let mut run = run.expect("the disk works");
                disk.state().failing_percent = rng.u8(..30);
                run.work(rng.u32(..40), &acknowledged);
                if rng.bool() {
                    run.recover();
                    acknowledged.set(run.before + run.journal.last());
                }
                disk.crash();
            }
        }));
        if let Err(panic) = told {
            eprintln!("KEEPER_SEED={} KEEPER_COUNT=1", seed_of_this.get());
            std::panic::resume_unwind(panic);
        }
    }
}

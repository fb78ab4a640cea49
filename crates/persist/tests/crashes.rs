//! The append-only files of a server that crashes at random moments, on a disk that forgets what
//! was not synced.
//!
//! Blocks are numbered; a block is whole or not there, those that were acknowledged are there, and
//! none is there without all before it. `CRASH_SEED` repeats a run, `CRASH_COUNT` sets its length.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use persist::aof::{
    Append, Block, Buffer, Directory, Disk, Load, Log, PIECE_BYTES, Rewrite, Writer,
};

const NAME: &str = "appendonly.aof";

/// What is written as a whole or not at all. Lines of room are not cut by it.
const SECTOR_BYTES: usize = 64;

#[derive(Clone, Default)]
struct Node {
    data: Vec<u8>,
    synced: Vec<u8>,
    /// The system holds something that is not on the disk.
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
}

enum NameChange {
    Put(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// As of the last `sync_names`.
    synced_names: BTreeMap<String, usize>,
    /// Since then.
    changes: Vec<NameChange>,
    /// Operations until the crash.
    left: usize,
}

impl State {
    fn node(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    /// The machine lost power: some of what was not synced is there. Names may have changed in
    /// another order than they were changed in.
    fn crash(&mut self, rng: &mut Rng) {
        let all = rng.bool();
        for change in std::mem::take(&mut self.changes) {
            if all || rng.bool() {
                apply(&mut self.synced_names, &change);
            }
        }
        self.names = self.synced_names.clone();
        for node in &mut self.nodes {
            let len = node.data.len();
            let synced_bytes = node.synced.len().min(len);
            // What was there is written over in any order.
            for at in (0..synced_bytes).step_by(SECTOR_BYTES) {
                let sector = at..synced_bytes.min(at + SECTOR_BYTES);
                if rng.bool() {
                    node.data[sector.clone()].copy_from_slice(&node.synced[sector]);
                }
            }
            let kept = rng.usize(synced_bytes..=len);
            node.data.truncate(kept);
            if rng.bool() {
                // There was room for the rest already.
                node.data.resize(rng.usize(kept..=len), 0);
            }
            node.synced = node.data.clone();
            node.has_cached = false;
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Put(name, node) => {
            names.insert(name.clone(), *node);
        }
        NameChange::Rename(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

/// The disk, and whoever holds it.
#[derive(Clone, Default)]
struct Forgetful(Arc<Mutex<State>>);

struct Handle {
    disk: Forgetful,
    node: usize,
    /// Where it goes on.
    at: usize,
    is_direct: bool,
}

impl Forgetful {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    /// The state, for one more operation.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.left = state.left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(state)
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let node = &mut self.disk.step()?.nodes[self.node];
        if self.is_direct {
            for place in [self.at, bytes.as_ptr().addr(), bytes.len()] {
                assert_eq!(place % PIECE_BYTES, 0);
            }
            assert!(!node.has_cached, "what stands before it may be lost alone");
        } else {
            node.has_cached = true;
        }
        node.write(self.at, bytes);
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Append for Handle {
    fn sync(&mut self) -> io::Result<()> {
        let node = &mut self.disk.step()?.nodes[self.node];
        node.synced = node.data.clone();
        node.has_cached = false;
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.is_direct);
        let node = &mut self.disk.step()?.nodes[self.node];
        node.has_cached = true;
        node.write(at as usize, bytes);
        Ok(())
    }

    fn cut(&mut self, keep_bytes: u64) -> io::Result<()> {
        self.disk.step()?.nodes[self.node].data.truncate(keep_bytes as usize);
        self.sync()
    }

    fn set_direct(&mut self, is_direct: bool) -> io::Result<()> {
        self.is_direct = is_direct;
        Ok(())
    }
}

impl Disk for Forgetful {
    type File = Handle;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        let node = state.node(name)?;
        Ok(state.nodes[node].data.len() as u64)
    }

    fn read(&self, name: &str, from: u64) -> io::Result<Box<dyn Read + '_>> {
        let state = self.state();
        let node = state.node(name)?;
        Ok(Box::new(Cursor::new(state.nodes[node].data[from as usize..].to_vec())))
    }

    fn create(&self, name: &str) -> io::Result<Handle> {
        let mut state = self.step()?;
        state.nodes.push(Node::default());
        let node = state.nodes.len() - 1;
        state.change(NameChange::Put(name.to_owned(), node));
        Ok(Handle { disk: self.clone(), node, at: 0, is_direct: false })
    }

    fn extend(&self, name: &str, keep_bytes: u64) -> io::Result<Handle> {
        let mut state = self.step()?;
        let node = state.node(name)?;
        let Node { data, synced, .. } = &mut state.nodes[node];
        if data.len() as u64 > keep_bytes {
            data.truncate(keep_bytes as usize);
            *synced = data.clone();
        }
        let at = data.len();
        drop(state);
        Ok(Handle { disk: self.clone(), node, at, is_direct: false })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.step()?;
        let node = state.node(from)?;
        state.change(NameChange::Rename(from.to_owned(), to.to_owned(), node));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.step()?;
        state.node(name)?;
        state.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.step()?;
        state.changes.clear();
        state.synced_names = state.names.clone();
        Ok(())
    }
}

/// The block of this number: one command, or a few that belong together.
fn block(number: u64) -> (Vec<u8>, usize) {
    let count = number as usize % 4 + 1;
    let mut out = Vec::new();
    for part in 0..count {
        let padding = "x".repeat((number as usize * 7 + part) % 40);
        let args = ["ADD".to_owned(), number.to_string(), part.to_string(), padding];
        resp::write_request(&mut out, &args);
    }
    (out, count)
}

/// The number of a block, which must be whole.
fn number_of(block: &Block<'_>) -> u64 {
    let commands: Vec<Vec<&[u8]>> = block.commands().collect();
    let number = std::str::from_utf8(commands[0][1]).expect("digits").parse().expect("a number");
    let (_, count) = self::block(number);
    assert_eq!(commands.len(), count, "block {number} is torn");
    for (part, command) in commands.iter().enumerate() {
        assert_eq!(command[1], number.to_string().as_bytes());
        assert_eq!(command[2], part.to_string().as_bytes());
    }
    number
}

/// The number of the last block, each of which follows the one before.
struct Last(u64);

impl Load for Last {
    fn rdb(&mut self, _: &mut dyn Read) -> Result<u64, String> {
        Err("no RDB was written".into())
    }

    fn block(&mut self, block: Block<'_>) -> Result<(), String> {
        let number = number_of(&block);
        assert_eq!(number, self.0 + 1);
        self.0 = number;
        Ok(())
    }
}

/// Loads what is there: the last number of all blocks, which must be without a gap.
fn load(directory: &Directory<Forgetful>) -> (u64, Option<(String, persist::aof::Torn)>) {
    let mut last = Last(0);
    let torn = directory.load(&mut last);
    (last.0, torn.expect("no file is damaged, and none torn but the last"))
}

/// A server: blocks up to these numbers.
#[derive(Default)]
struct Numbers {
    written: u64,
    acknowledged: u64,
}

/// Works until the disk fails.
fn work(disk: &Forgetful, rng: &mut Rng, numbers: &mut Numbers) -> io::Result<()> {
    let mut directory = Directory::open(disk.clone(), NAME).expect("the files are in order");
    let (last, torn) = load(&directory);
    assert!(last >= numbers.acknowledged, "{} was acknowledged", numbers.acknowledged);
    assert!(last <= numbers.written, "{} was never written", last);
    numbers.written = last;
    directory.clean_up()?;
    let name = directory.current_name(None).map(str::to_owned);
    let current = directory.go_on(torn)?;
    let bytes = name.map_or(Ok(0), |name| disk.bytes(&name))?;
    let mut current = Log::new(current, bytes);
    // What is there is not safe before it is synced again.
    current.sync()?;
    numbers.acknowledged = last;
    let mut writer = Writer::new(rng.bool());
    let mut rewrite: Option<(Rewrite<Handle>, u64, u64)> = None;
    // What was appended to until a rewrite began that makes a new beginning.
    let mut before: Option<Log<Handle>> = None;
    loop {
        match rng.u8(..13) {
            0..6 => {
                if current.needs_sync() {
                    current.sync()?;
                }
                let (commands, count) = block(numbers.written + 1);
                let mut out = Vec::new();
                writer.block(&commands, count, rng.i64(..3), &mut out);
                numbers.written += 1;
                if current.room_bytes() == 0 && rng.u8(..4) == 0 {
                    if !current.may_go_direct() {
                        current.fill_up()?;
                        current.sync()?;
                    }
                    let mut blocks = Buffer::default();
                    blocks.tail().extend_from_slice(&out);
                    assert!(current.write_direct(&mut blocks)?);
                } else if current.room_bytes() > 0 {
                    current.write(&out)?;
                } else {
                    // In pieces, as a full pipe would take them.
                    let middle = rng.usize(..=out.len());
                    current.write(&out[..middle])?;
                    current.write(&out[middle..])?;
                }
            }
            11 => match rng.u8(..4) {
                0 => current.cut_room()?,
                _ if current.needs_sync() => {}
                _ => {
                    current.make_room(rng.u64(1..1000))?;
                    current.sync()?;
                }
            },
            6..8 => {
                current.sync()?;
                if before.is_none() {
                    numbers.acknowledged = numbers.written;
                }
            }
            8..11 => match &mut rewrite {
                None if rng.u8(..3) == 0 => {
                    // What is not synced is in the base alone.
                    let (begun, fresh) = directory.begin_anew()?;
                    before = Some(std::mem::replace(&mut current, Log::new(fresh, 0)));
                    writer = Writer::new(rng.bool());
                    rewrite = Some((begun, numbers.written, 0));
                }
                None => {
                    if rng.bool() {
                        current.cut_room()?;
                    }
                    let begun = directory.begin_rewrite(current.file())?;
                    current.begin_again();
                    numbers.acknowledged = numbers.written;
                    rewrite = Some((begun, numbers.written, 0));
                }
                Some((running, wanted, done)) if *done < *wanted => {
                    for _ in 0..rng.u64(1..20).min(*wanted - *done) {
                        *done += 1;
                        let (commands, count) = block(*done);
                        let mut out = Vec::new();
                        Writer::new(false).block(&commands, count, 0, &mut out);
                        running.base.write_all(&out)?;
                    }
                }
                Some(_) => {
                    let (running, ..) = rewrite.take().expect("it runs");
                    current.sync()?;
                    directory.finish_rewrite(running, false, true)?;
                    numbers.acknowledged = numbers.written;
                    before = None;
                    if rng.bool() {
                        directory.forget_history()?;
                    }
                }
            },
            _ => {
                // Without its new beginning the log would have a gap.
                if rng.u8(..4) == 0
                    && before.is_none()
                    && let Some((running, ..)) = rewrite.take()
                {
                    directory.abandon_rewrite(running)?;
                }
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn what_was_acknowledged_survives() {
    let seed = number("CRASH_SEED", fastrand::u64(..));
    let count = number("CRASH_COUNT", 3000);
    println!("CRASH_SEED={seed} CRASH_COUNT={count}");
    let mut rng = Rng::with_seed(seed);
    let (mut disk, mut numbers) = (Forgetful::default(), Numbers::default());
    let (mut rewritten, mut most) = (0, 0);
    for _ in 0..count {
        disk.state().left = rng.usize(..80);
        let error = work(&disk, &mut rng, &mut numbers).expect_err("it works until it cannot");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
        disk.state().crash(&mut rng);
        most = most.max(numbers.acknowledged);
        if rng.u8(..30) == 0 {
            rewritten += u64::from(disk.state().names.keys().any(|name| name.contains(".base.")));
            (disk, numbers) = (Forgetful::default(), Numbers::default());
        }
    }
    assert!(count < 1000 || (rewritten > 10 && most > 50), "{rewritten} rewritten, {most} at most");
}

#[test]
fn nothing_is_left_behind() {
    let mut rng = Rng::with_seed(number("CRASH_SEED", fastrand::u64(..)));
    let (disk, mut numbers) = (Forgetful::default(), Numbers::default());
    for _ in 0..50 {
        disk.state().left = rng.usize(..200);
        work(&disk, &mut rng, &mut numbers).expect_err("it works until it cannot");
        disk.state().crash(&mut rng);
    }
    disk.state().left = usize::MAX;
    let mut directory = Directory::open(disk.clone(), NAME).expect("the files are in order");
    directory.clean_up().expect("the disk works");
    let mut wanted: Vec<String> =
        directory.manifest().files().map(|file| file.name.clone()).collect();
    wanted.push(format!("{NAME}.manifest"));
    wanted.sort();
    // Files that no manifest ever named may be left, to be written over by the next of their name.
    let names = disk.names().expect("they can be read");
    let extra: Vec<&String> = names.iter().filter(|name| !wanted.contains(name)).collect();
    assert!(wanted.iter().all(|name| names.contains(name)));
    assert!(extra.len() <= 2, "{extra:?}");
    assert!(extra.iter().all(|name| !name.starts_with("temp-")), "{extra:?}");
}

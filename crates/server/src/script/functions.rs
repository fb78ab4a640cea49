//! The libraries of functions that the server knows.
//!
//! A library is loaded in one VM, which tells what functions it has; other VMs load it when they
//! first call one of these. A function is a script that is known by its name: it runs, and is
//! measured, like any other.
//!
//! All of them together are one immutable value. Whoever changes something puts another one in its
//! place, under all gates, so that a snapshot and the log agree about it; and a transaction that is
//! undone puts back the one that was there.
//!
//! Thread safety: finding a function takes the lock for reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use command::Error;
use hashbrown::{HashMap, HashSet};
use lua::{Host, Library, LogLevel, Sha, Tick, Vm, VmOptions};
use parking_lot::RwLock;
use persist::rdb;
use resp::{Answer, Protocol};

use super::host::log_level;
use super::{Cache, Known};
use crate::config::Config;
use crate::server::Server;
use crate::worker::{Shift, WorkerLoop};

/// How long the code of a library may run, as with Redis.
const LOAD_TIME_MAX: Duration = Duration::from_millis(500);

/// A library and its functions.
pub struct Loaded {
    pub library: Arc<Library>,
    pub functions: Vec<Arc<Known>>,
}

impl Loaded {
    fn new(library: Library, cache: &Cache) -> Arc<Loaded> {
        let library = Arc::new(library);
        let known = |script| Arc::new(Known::new(script, 0, cache.new_stats()));
        let functions = library.scripts().into_iter().map(known).collect();
        Arc::new(Loaded { library, functions })
    }

    fn bytes(&self) -> u64 {
        let functions: u64 = self.functions.iter().map(|known| known.bytes()).sum();
        self.library.used_bytes() as u64 + functions
    }
}

/// What to do about libraries that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    Stay,
    GiveWay,
}

/// All libraries, by their names.
#[derive(Clone, Default)]
pub struct Libraries {
    by_name: BTreeMap<Box<str>, Arc<Loaded>>,
    /// Functions by their names in lower case.
    functions: HashMap<Box<[u8]>, Arc<Known>>,
}

impl Libraries {
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.by_name.values()
    }

    pub fn library_count(&self) -> usize {
        self.by_name.len()
    }

    pub fn function_count(&self) -> usize {
        self.by_name.values().map(|loaded| loaded.functions.len()).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.by_name.values().map(|loaded| loaded.bytes()).sum()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// A function by its name in any case.
    fn find(&self, name: &[u8]) -> Option<&Arc<Known>> {
        let mut lower = [0u8; SHORT_NAME_BYTES];
        let Some(short) = lower.get_mut(..name.len()) else {
            return self.functions.get(&name.to_ascii_lowercase()[..]);
        };
        short.copy_from_slice(name);
        short.make_ascii_lowercase();
        self.functions.get(&*short)
    }

    /// Adds a library, or says which of its functions another one has.
    fn add(&mut self, loaded: Arc<Loaded>) -> Result<(), String> {
        self.remove(loaded.library.name());
        let name_of = |known: &Known| known.script.label().to_owned();
        if let Some(taken) =
            loaded.functions.iter().find(|known| self.find(name_of(known).as_bytes()).is_some())
        {
            return Err(name_of(taken));
        }
        for known in &loaded.functions {
            let name = name_of(known).to_ascii_lowercase().into_bytes();
            // Of functions that differ in case only the first is called, in the same library.
            self.functions.entry(name.into()).or_insert_with(|| known.clone());
        }
        self.by_name.insert(loaded.library.name().into(), loaded);
        Ok(())
    }

    /// Takes out a library; false if there is none of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(old) = self.by_name.remove(name) else { return false };
        self.functions
            .retain(|_, known| !old.functions.iter().any(|gone| Arc::ptr_eq(gone, known)));
        true
    }

    /// Adds all of others. The error is Redis's text for FUNCTION RESTORE.
    pub fn join(&mut self, others: &Libraries, present: Present) -> Result<(), String> {
        for name in others.by_name.keys() {
            if self.contains(name) {
                if present == Present::Stay {
                    return Err(format!("Library {name} already exists"));
                }
                self.remove(name);
            }
        }
        let mut all = others.by_name.values();
        all.try_for_each(|loaded| self.add(loaded.clone()))
            .map_err(|function| format!("Function {function} already exists"))
    }

    /// The payload of FUNCTION DUMP.
    pub fn dump(&self, version: rdb::Version) -> Vec<u8> {
        rdb::dump_functions(self.iter().map(|loaded| loaded.library.source()), version)
    }
}

/// Names up to this length are looked up without an allocation.
const SHORT_NAME_BYTES: usize = 64;

#[derive(Default)]
pub struct Functions {
    current: RwLock<Arc<Libraries>>,
}

impl Functions {
    pub fn current(&self) -> Arc<Libraries> {
        self.current.read().clone()
    }

    /// Finds a function that is about to be called.
    pub fn find(&self, name: &[u8]) -> Option<Arc<Known>> {
        self.current.read().find(name).cloned()
    }

    /// All functions.
    pub fn list(&self) -> Vec<Arc<Known>> {
        let libraries = self.current();
        libraries.iter().flat_map(|loaded| loaded.functions.iter().cloned()).collect()
    }

    /// The identities of all functions.
    pub fn shas(&self) -> HashSet<Sha> {
        self.list().iter().map(|known| *known.script.sha()).collect()
    }

    pub fn reset_stats(&self) {
        self.list().iter().for_each(|known| known.stats.reset());
    }

    /// Puts other libraries in the place of those that are there. To be called under all gates.
    pub fn set(&self, cache: &Cache, libraries: Arc<Libraries>) {
        let old = std::mem::replace(&mut *self.current.write(), libraries.clone());
        let stays = |loaded: &Loaded| {
            let same = libraries.by_name.get(loaded.library.name());
            same.is_some_and(|kept| Arc::ptr_eq(&kept.library, &loaded.library))
        };
        let gone: Vec<&Arc<Known>> = old
            .iter()
            .filter(|loaded| !stays(loaded))
            .flat_map(|loaded| loaded.functions.iter())
            .collect();
        cache.forget_functions(&gone);
    }
}

impl Functions {
    /// Has these libraries again, if others have taken their place meanwhile. As `set`.
    pub fn put_back(&self, cache: &Cache, libraries: Arc<Libraries>) {
        if !Arc::ptr_eq(&self.current(), &libraries) {
            self.set(cache, libraries);
        }
    }
}

/// The server, as the code of a library sees it.
struct LoadHost<'l> {
    /// Where it may run until then.
    worker: Option<(&'l WorkerLoop, Instant)>,
}

impl Host for LoadHost<'_> {
    fn resolve(&mut self, _: &[u8]) -> Option<u32> {
        None
    }

    fn call(&mut self, _: u32, _: &[&[u8]], protocol: Protocol, answer: &mut Answer) {
        answer.reply(protocol).error("ERR This Redis command is not allowed from script");
    }

    fn log(&mut self, level: LogLevel, message: &[u8]) {
        crate::log::write(log_level(level), format_args!("{}", String::from_utf8_lossy(message)));
    }

    fn acl_check(&mut self, _: &[&[u8]]) -> Result<bool, ()> {
        Err(())
    }

    fn tick(&mut self) -> Tick {
        let is_over = |(lp, until): (&WorkerLoop, Instant)| {
            Instant::now() >= until || lp.server.scripts.watch.is_stopped(lp.id)
        };
        if self.worker.is_some_and(is_over) { Tick::Kill } else { Tick::Continue }
    }

    fn kill_reason(&self) -> String {
        "ERR FUNCTION LOAD timeout".into()
    }
}

fn load_in(
    vm: &mut Vm,
    cache: &Cache,
    source: &[u8],
    worker: Option<&WorkerLoop>,
) -> Result<Arc<Loaded>, Error> {
    let mut host = LoadHost { worker: worker.map(|lp| (lp, Instant::now() + LOAD_TIME_MAX)) };
    match vm.load_library(&mut host, source) {
        Ok(library) => Ok(Loaded::new(library, cache)),
        Err(text) => Err(Error::new(String::from_utf8_lossy(&text).into_owned())),
    }
}

/// Adds the library of a source, which a VM has yet to load.
fn add_to(
    libraries: &mut Libraries,
    source: &[u8],
    present: Present,
    load: impl FnOnce(&[u8]) -> Result<Arc<Loaded>, Error>,
) -> Result<Arc<Loaded>, Error> {
    let name = lua::library_name(source)
        .map_err(|text| Error::new(String::from_utf8_lossy(&text).into_owned()))?;
    if present == Present::Stay && libraries.contains(&name) {
        return Err(Error::new(format!("ERR Library '{name}' already exists")));
    }
    let loaded = load(source)?;
    libraries
        .add(loaded.clone())
        .map_err(|function| Error::new(format!("ERR Function {function} already exists")))?;
    Ok(loaded)
}

/// Loads libraries in the VM of a worker. All gates are held.
pub struct WorkerLoader<'l> {
    pub lp: &'l WorkerLoop,
    pub shift: &'l Shift,
}

impl WorkerLoader<'_> {
    /// Adds the library of a source.
    pub fn add(
        &self,
        libraries: &mut Libraries,
        source: &[u8],
        present: Present,
    ) -> Result<Arc<Loaded>, Error> {
        let (lp, shift) = (self.lp, self.shift);
        add_to(libraries, source, present, |source| {
            let scripts = &lp.server.scripts;
            let level = lp.pin();
            debug_assert_eq!(level, 0, "no script runs while all gates are held");
            let mut worker_vm = lp.vms[level].borrow_mut();
            let vm = worker_vm.vm(lp, shift, level);
            // So that it is interrupted now and then.
            scripts.watch.begin(lp.id, true, true, scripts.watch.now_ms(), None);
            let loaded = load_in(vm, &scripts.cache, source, Some(lp));
            scripts.watch.end(lp.id, vm.used_bytes());
            drop(worker_vm);
            lp.unpin();
            loaded
        })
    }
}

/// Loads libraries outside of workers, while a file is loaded: they were loaded in time once.
pub struct FileLoader {
    vm: Vm,
}

impl FileLoader {
    pub fn new(config: &Config) -> FileLoader {
        let vm = Vm::new(VmOptions {
            memory_limit_bytes: config.lua_memory_limit_bytes as usize,
            jit: config.script_jit,
            redis_version: crate::REDIS_VERSION.into(),
        });
        FileLoader { vm }
    }

    pub fn add(
        &mut self,
        server: &Server,
        libraries: &mut Libraries,
        source: &[u8],
        present: Present,
    ) -> Result<Arc<Loaded>, Error> {
        let cache = &server.scripts.cache;
        add_to(libraries, source, present, |source| load_in(&mut self.vm, cache, source, None))
    }
}

/// What FUNCTION RESTORE makes of the sources in a payload.
pub fn restored(
    payload: &[u8],
    mut add: impl FnMut(&mut Libraries, &[u8]) -> Result<Arc<Loaded>, Error>,
) -> Result<Libraries, Error> {
    let sources = rdb::restore_functions(payload).map_err(|error| match error {
        rdb::FunctionsError::Footer => Error::of("ERR DUMP payload version or checksum are wrong"),
        rdb::FunctionsError::PreGa => Error::of("ERR Pre-GA function format not supported"),
        rdb::FunctionsError::OtherKind => Error::of("ERR given type is not a function"),
        rdb::FunctionsError::Broken => Error::of("ERR Failed loading library payload"),
    })?;
    let mut libraries = Libraries::default();
    for source in sources {
        add(&mut libraries, &source)?;
    }
    Ok(libraries)
}

//! The configuration of a running server: one current [`Config`], replaced as a whole.
//!
//! # Thread safety
//! `current` is written under `changes`, which serializes `CONFIG SET` and `REWRITE`; the order is
//! `changes`, then `current`. `generation` is raised after `current` is replaced. A worker compares
//! one number with its own and takes the lock of `current` only when it differs, so reading costs
//! a load and the fields are plain.

use super::directives::{Config, DIRECTIVES, Directive, Effect, lookup};
use super::rewrite::{self, RewriteError};
use super::special::Users;
use super::value::Source;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all workers.
#[derive(Debug)]
pub struct ConfigStore {
    generation: AtomicU64,
    current: Mutex<Arc<Config>>,
    changes: Mutex<()>,
    file: Option<PathBuf>,
    /// As of the start: the default of `dir` is where the process was then.
    defaults: Config,
}

/// Why `CONFIG SET` changed nothing. Displays as the error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// A name without a value.
    Odd,
    Unknown {
        name: Vec<u8>,
    },
    Refused {
        name: Vec<u8>,
        reason: String,
    },
}

impl SetError {
    /// The error reply; the name in it is the client's bytes.
    pub fn reply(&self) -> Vec<u8> {
        match self {
            SetError::Odd => b"ERR syntax error".to_vec(),
            SetError::Unknown { name } => {
                let text = b"ERR Unknown option or number of arguments for CONFIG SET - '";
                [text, name.as_slice(), b"'"].concat()
            }
            SetError::Refused { name, reason } => {
                let text = b"ERR CONFIG SET failed (possibly related to argument '";
                [text, name.as_slice(), b"') - ", reason.as_bytes()].concat()
            }
        }
    }
}

impl ConfigStore {
    /// To be made before the process goes to its directory. `file` is the one that [`ConfigStore::rewrite`] writes.
    pub fn new(config: Config, file: Option<PathBuf>) -> ConfigStore {
        ConfigStore {
            generation: AtomicU64::new(0),
            current: Mutex::new(Arc::new(config)),
            changes: Mutex::new(()),
            file,
            defaults: Config::default(),
        }
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The values now. Takes a lock: workers read through a [`ConfigView`].
    pub fn current(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.current))
    }

    /// `CONFIG GET`: the directives whose names match one of the patterns, each once, with their
    /// values. A name without wildcards is answered as it was asked for. `matches` compares a
    /// pattern with a name, whatever the case; it is an argument since globs belong to `data`.
    pub fn get(
        &self,
        patterns: &[&[u8]],
        matches: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let config = self.current();
        let mut found: Vec<(&'static str, Vec<u8>, Vec<u8>)> = Vec::new();
        let mut add = |spelling, name: &[u8], directive: &Directive| {
            if !found.iter().any(|(known, ..)| *known == spelling) {
                found.push((spelling, name.to_vec(), directive.text(&config)));
            }
        };
        for pattern in patterns {
            if !pattern.iter().any(|byte| b"[*?".contains(byte)) {
                if let Some((directive, spelling)) = lookup(pattern)
                    && !directive.traits.hidden
                {
                    add(spelling, pattern, directive);
                }
                continue;
            }
            let shown =
                |directive: &&Directive| !directive.traits.hidden && !directive.traits.concealed;
            for directive in DIRECTIVES.iter().filter(shown) {
                for name in directive.names() {
                    if matches(pattern, name.as_bytes()) {
                        add(name, name.as_bytes(), directive);
                    }
                }
            }
        }
        found.into_iter().map(|(_, name, text)| (name, text)).collect()
    }

    /// `CONFIG SET` with names and values alternating: all of them take effect or none.
    ///
    /// `act` is called once for each effect of what changed, with the new values, before anybody
    /// else sees them. If it fails, what was acted on is acted on again with the old values, and
    /// nothing changes. `act` must not call back into the store. `local` tells whether the client
    /// connects from this machine, which protected directives may ask for.
    pub fn set(
        &self,
        args: &[&[u8]],
        local: bool,
        mut act: impl FnMut(Effect, &Config) -> Result<(), String>,
    ) -> Result<(), SetError> {
        let (pairs, rest) = args.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(SetError::Odd);
        }
        let _changes = lock(&self.changes);
        let old = self.current();
        let targets = targets(pairs, &old, local)?;

        let mut new = Config::clone(&old);
        for (directive, name, value) in &targets {
            let words: Vec<&[u8]> = match (directive.multi, *value) {
                (true, b"") => Vec::new(),
                (true, value) => value.split(|byte| *byte == b' ').collect(),
                (false, value) => vec![value],
            };
            directive
                .apply(&mut new, &words, Source::Client)
                .map_err(|reason| SetError::Refused { name: name.as_bytes().to_vec(), reason })?;
        }

        let mut done: Vec<Effect> = Vec::new();
        let changed = targets.iter().filter(|(directive, ..)| {
            directive.traits.volatile || directive.text(&old) != directive.text(&new)
        });
        let effects = changed.flat_map(|(directive, name, _)| {
            let is_default = directive.text(&new) == directive.text(&self.defaults);
            let idle = directive.traits.idle.filter(|_| !is_default).map(Effect::Idle);
            [idle, directive.traits.effect].into_iter().flatten().map(move |effect| (effect, name))
        });
        for (effect, name) in effects {
            if done.contains(&effect) {
                continue;
            }
            if let Err(reason) = act(effect, &new) {
                for effect in done.into_iter().rev().chain([effect]) {
                    // The old values were in force a moment ago; if they cannot be had back, the
                    // client learns of the first failure, which is the one to act on.
                    let _ = act(effect, &old);
                }
                return Err(SetError::Refused { name: name.as_bytes().to_vec(), reason });
            }
            done.push(effect);
        }
        *lock(&self.current) = Arc::new(new);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// `CONFIG REWRITE`: brings the file up to date with the values, and with the users as they
    /// are now.
    pub fn rewrite(&self, users: Users) -> Result<(), RewriteError> {
        let _changes = lock(&self.changes);
        let file = self.file.as_deref().ok_or(RewriteError::NoFile)?;
        let config = Config { users, ..Config::clone(&self.current()) };
        rewrite::rewrite_file(file, &config, &self.defaults)
    }
}

type Target<'a> = (&'static Directive, &'static str, &'a [u8]);

/// Looks up all names before any value is looked at; the first one that cannot be set is reported.
fn targets<'a>(
    pairs: &[[&'a [u8]; 2]],
    config: &Config,
    local: bool,
) -> Result<Vec<Target<'a>>, SetError> {
    let mut targets: Vec<Target<'a>> = Vec::with_capacity(pairs.len());
    for [name, value] in pairs {
        let known = lookup(name).filter(|(directive, _)| !directive.traits.hidden);
        let Some((directive, spelling)) = known else {
            return Err(SetError::Unknown { name: name.to_vec() });
        };
        let unprotected = config.enable_protected_configs.includes(local);
        let refused = if directive.traits.immutable {
            "can't set immutable config"
        } else if directive.traits.protected && !unprotected {
            "can't set protected config"
        } else if targets.iter().any(|(_, known, _)| *known == spelling) {
            "duplicate parameter"
        } else {
            targets.push((directive, spelling, value));
            continue;
        };
        return Err(SetError::Refused { name: name.to_vec(), reason: refused.into() });
    }
    Ok(targets)
}

/// One worker's view of the configuration.
#[derive(Clone, Debug)]
pub struct ConfigView {
    store: Arc<ConfigStore>,
    generation: u64,
    config: Arc<Config>,
}

impl ConfigView {
    pub fn new(store: Arc<ConfigStore>) -> ConfigView {
        // The generation first: a change in between is then taken for new once more, not missed.
        let generation = store.generation.load(Ordering::Acquire);
        let config = store.current();
        ConfigView { store, generation, config }
    }

    /// Looks for a change; true if there was one. Called once in a while, such as before a batch
    /// of commands, so that all of it sees the same values.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        let generation = self.store.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return false;
        }
        self.generation = generation;
        self.config = self.store.current();
        true
    }

    /// Whether a refresh would find a change.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.store.generation.load(Ordering::Acquire) != self.generation
    }

    pub fn store(&self) -> &Arc<ConfigStore> {
        &self.store
    }

    /// The snapshot, to be kept beyond the next refresh.
    pub fn snapshot(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }
}

impl std::ops::Deref for ConfigView {
    type Target = Config;

    #[inline]
    fn deref(&self) -> &Config {
        &self.config
    }
}

/// A panic while a lock was held cannot leave half a change behind: values are replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Reading the configuration when the server starts: files, standard input and arguments.

use super::directives::{Config, DIRECTIVES, lookup};
use super::reason;
use super::value::{Source, path_of};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How deep files may include files: a file that includes itself ends here.
const INCLUDE_DEPTH_MAX: usize = 16;

/// Directives that Redis still accepts and ignores, since they once meant something, and those of
/// Valkey, and of its tests, about what Luar never does: its log has no data of users, it has no
/// DEBUG ASSERT, and a bug ends it in one way only.
const FORGOTTEN: &[&str] = &[
    "list-max-ziplist-entries",
    "list-max-ziplist-value",
    "lua-replicate-commands",
    "enable-debug-assert",
    "hide-user-data-from-log",
    "use-exit-on-panic",
];

/// Directives of features that are not built, and have no value of their own.
const UNBUILT: &[(&str, &str)] = &[
    ("rename-command", "renaming commands"),
    ("loadmodule", "loading modules"),
    ("sentinel", "Sentinel mode"),
];

/// The configuration a server starts with.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file given as first argument, absolute: the one that `CONFIG REWRITE` writes.
    pub file: Option<PathBuf>,
    /// One line each, to be logged: what was asked for and has no effect.
    pub warnings: Vec<String>,
}

/// Where a directive stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File { path: PathBuf, line: usize },
    StandardInput { line: usize },
    CommandLine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{}:{line}", path.display()),
            Place::StandardInput { line } => write!(f, "standard input:{line}"),
            Place::CommandLine => f.write_str("command line"),
        }
    }
}

/// Why the server cannot start with this configuration. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file named by the first argument, or standard input.
    Unreadable {
        what: String,
        reason: String,
    },
    UnknownDirective {
        place: Place,
        name: String,
    },
    /// The directive is known, its arguments are not accepted.
    Refused {
        place: Place,
        name: String,
        reason: String,
    },
    Unbalanced {
        place: Place,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { what, reason } => write!(f, "{what}: {reason}"),
            Self::UnknownDirective { place, name } => {
                write!(f, "{place}: unknown directive '{name}'")
            }
            Self::Refused { place, name, reason } => write!(f, "{place}: {name}: {reason}"),
            Self::Unbalanced { place } => {
                write!(f, "{place}: unbalanced quotes in configuration line")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads the configuration from the arguments of the process, its name not among them, as
/// redis-server does: `[file] [-] [--directive value…]…`. A `-` at either end reads lines from
/// `stdin`. The file is read first, then standard input, then the arguments; later ones win.
pub fn load(args: &[OsString], stdin: &mut dyn Read) -> Result<Loaded, LoadError> {
    let arguments = Arguments::split(args);
    let mut loader = Loader { config: Config::default(), given: HashMap::new() };
    let file = match arguments.file {
        Some(path) => {
            let unreadable = |error: std::io::Error| LoadError::Unreadable {
                what: format!("can't open config file '{}'", Path::new(path).display()),
                reason: reason(&error),
            };
            let absolute = std::path::absolute(path).map_err(unreadable)?;
            let text = std::fs::read(&absolute).map_err(unreadable)?;
            let at = |line| Place::File { path: absolute.clone(), line };
            loader.text(&text, at, 0)?;
            Some(absolute)
        }
        None => None,
    };
    if arguments.stdin {
        let mut text = Vec::new();
        stdin.read_to_end(&mut text).map_err(|error| LoadError::Unreadable {
            what: "can't read the configuration from standard input".into(),
            reason: reason(&error),
        })?;
        loader.text(&text, |line| Place::StandardInput { line }, 0)?;
    }
    for option in arguments.options {
        loader.directive(&option, &Place::CommandLine, 0)?;
    }
    let warnings = loader.warnings();
    Ok(Loaded { config: loader.config, file, warnings })
}

/// The arguments of the process, taken apart.
#[derive(Debug, Default)]
struct Arguments<'a> {
    file: Option<&'a OsString>,
    stdin: bool,
    /// Directives with their arguments.
    options: Vec<Vec<Vec<u8>>>,
}

impl<'a> Arguments<'a> {
    fn split(args: &'a [OsString]) -> Arguments<'a> {
        let mut arguments = Arguments::default();
        // Whether the last option has its argument, so that `--` starts another one: a value may
        // itself start with two dashes.
        let mut satisfied = true;
        for (index, arg) in args.iter().enumerate() {
            let bytes = arg.as_bytes();
            if index == 0 && !bytes.starts_with(b"-") {
                arguments.file = Some(arg);
            } else if bytes == b"-" && (index == 0 || index == args.len() - 1) {
                arguments.stdin = true;
            } else if satisfied && let Some(option) = bytes.strip_prefix(b"--") {
                // `"--port 6380"` in one argument is a whole option.
                let words = resp::split_args(option).unwrap_or_else(|_| vec![option.to_vec()]);
                satisfied = words.len() != 1;
                // A bare `--save` has always meant no save points.
                let bare =
                    args.get(index + 1).is_none_or(|next| next.as_bytes().starts_with(b"--"));
                let words = if bare && words.len() == 1 && words[0].eq_ignore_ascii_case(b"save") {
                    satisfied = true;
                    vec![words[0].clone(), Vec::new()]
                } else {
                    words
                };
                arguments.options.push(words);
            } else {
                satisfied = true;
                match arguments.options.last_mut() {
                    Some(option) => option.push(bytes.to_vec()),
                    // Before any option it can only be meant as one, and is none.
                    None => arguments.options.push(vec![bytes.to_vec()]),
                }
            }
        }
        arguments
    }
}

struct Loader {
    config: Config,
    /// The directives given so far, and where they stand last.
    given: HashMap<&'static str, Place>,
}

impl Loader {
    /// What is set to something that has no effect, in one line, after all lines are read.
    fn warnings(&self) -> Vec<String> {
        let defaults = Config::default();
        let idle = DIRECTIVES.iter().filter_map(|directive| {
            let why = directive.traits.idle?;
            let place = self.given.get(directive.name)?;
            let is_idle = directive.text(&self.config) != directive.text(&defaults);
            is_idle.then(|| format!("{} ({place}: {why})", directive.name))
        });
        let idle: Vec<_> = idle.collect();
        match &idle[..] {
            [] => Vec::new(),
            idle => vec![format!("Without effect in this version: {}", idle.join(", "))],
        }
    }

    fn text(
        &mut self,
        text: &[u8],
        at: impl Fn(usize) -> Place,
        depth: usize,
    ) -> Result<(), LoadError> {
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = at(index + 1);
            let Ok(words) = resp::split_args(line) else {
                return Err(LoadError::Unbalanced { place });
            };
            if !words.is_empty() {
                self.directive(&words, &place, depth)?;
            }
        }
        Ok(())
    }

    /// Takes over one directive: its name and its arguments.
    fn directive(
        &mut self,
        words: &[Vec<u8>],
        place: &Place,
        depth: usize,
    ) -> Result<(), LoadError> {
        let Some((name, args)) = words.split_first() else {
            // A lone `--`.
            return Err(LoadError::UnknownDirective { place: place.clone(), name: String::new() });
        };
        let refused = |reason: String| LoadError::Refused {
            place: place.clone(),
            name: String::from_utf8_lossy(name).to_ascii_lowercase(),
            reason,
        };
        let Some((directive, _)) = lookup(name) else {
            let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
            if lower == "include" {
                let [path] = args else {
                    return Err(refused(super::value::WRONG_ARGUMENTS.into()));
                };
                return self.include(path, depth, refused);
            }
            if FORGOTTEN.contains(&lower.as_str()) {
                return Ok(());
            }
            if let Some((_, what)) = UNBUILT.iter().find(|(name, _)| *name == lower) {
                return Err(refused(format!("{what} is not built into this version of Luar")));
            }
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(LoadError::UnknownDirective { place: place.clone(), name });
        };

        // `--save "900 1"` and `bind "a b"`: several arguments in one.
        let unpacked = match args {
            [arg] if directive.multi && !arg.is_empty() => {
                resp::split_args(arg).map_err(|error| refused(error.to_string()))?
            }
            args => args.to_vec(),
        };
        let mut args: Vec<&[u8]> = unpacked.iter().map(Vec::as_slice).collect();
        // A bare `save` takes all points back.
        if args.is_empty() && directive.name != "save" {
            return Err(refused(super::value::WRONG_ARGUMENTS.into()));
        }
        if directive.name == "replicaof" && args.len() == 2 && is_no_one(&args) {
            args = vec![b""];
        }
        let first = self.given.insert(directive.name, place.clone()).is_none();
        directive.apply(&mut self.config, &args, Source::Line { first }).map_err(refused)
    }

    /// Reads the file, or the files if the path is a pattern, which may match none.
    fn include(
        &mut self,
        path: &[u8],
        depth: usize,
        refused: impl Fn(String) -> LoadError,
    ) -> Result<(), LoadError> {
        if depth == INCLUDE_DEPTH_MAX {
            return Err(refused(format!("more than {INCLUDE_DEPTH_MAX} files include each other")));
        }
        let paths = if path.iter().any(|byte| b"*?[".contains(byte)) {
            let pattern = std::str::from_utf8(path).map_err(|error| refused(error.to_string()))?;
            let matches = glob::glob(pattern).map_err(|error| refused(error.to_string()))?;
            matches.collect::<Result<Vec<_>, _>>().map_err(|error| refused(error.to_string()))?
        } else {
            vec![path_of(path).to_owned()]
        };
        for path in paths {
            let read =
                std::path::absolute(&path).and_then(|path| Ok((std::fs::read(&path)?, path)));
            let (text, path) = read.map_err(|error| {
                refused(format!("can't open '{}': {}", path.display(), reason(&error)))
            })?;
            self.text(&text, |line| Place::File { path: path.clone(), line }, depth + 1)?;
        }
        Ok(())
    }
}

fn is_no_one(args: &[&[u8]]) -> bool {
    args[0].eq_ignore_ascii_case(b"no") && args[1].eq_ignore_ascii_case(b"one")
}

//! A compiled script: what SCRIPT LOAD keeps and every worker's VM can run.

use std::sync::Arc;

use sha1::{Digest, Sha1};

use crate::library::Library;

/// A script's identity: the SHA-1 of its source.
pub type Sha = [u8; 20];

/// What a script declares about itself in its `#!lua flags=…` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The script begins with a `#!lua` line. Without one Redis applies its older, laxer rules.
    pub declared: bool,
    pub no_writes: bool,
    pub allow_oom: bool,
    pub allow_stale: bool,
    pub no_cluster: bool,
    pub allow_cross_slot_keys: bool,
    /// `deadline=50`, ours: the script ends by itself after so many ms; 0 for never.
    pub deadline_ms: Option<u64>,
}

impl Flags {
    /// Those that a source declares; none if its first line is wrong.
    pub fn of(source: &[u8]) -> Option<Flags> {
        split_shebang(source).ok().map(|head| head.flags)
    }

    /// Those that are set, except for the deadline.
    pub fn names(&self) -> Vec<&'static str> {
        let flags = [
            ("no-writes", self.no_writes),
            ("allow-oom", self.allow_oom),
            ("allow-stale", self.allow_stale),
            ("no-cluster", self.no_cluster),
            ("allow-cross-slot-keys", self.allow_cross_slot_keys),
        ];
        flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect()
    }

    /// Sets a flag of a function by its name in any case; false if there is none of that name.
    pub(crate) fn set(&mut self, name: &[u8]) -> bool {
        let flags = [
            (&b"no-writes"[..], &mut self.no_writes),
            (b"allow-oom", &mut self.allow_oom),
            (b"allow-stale", &mut self.allow_stale),
            (b"no-cluster", &mut self.no_cluster),
            (b"allow-cross-slot-keys", &mut self.allow_cross_slot_keys),
        ];
        let mut flags = flags.into_iter();
        let found = flags.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, flag)| *flag = true).is_some()
    }
}

/// What a run begins with.
#[derive(Debug)]
pub(crate) enum Code {
    Script {
        source: Box<[u8]>,
        bytecode: Box<[u8]>,
    },
    /// The function of that number.
    Function {
        library: Arc<Library>,
        at: usize,
    },
}

/// A script, or a function of a library. Immutable, so shared between threads freely. The bytecode
/// was made by `Vm::compile` or `Vm::load_library` and nothing else can put bytecode here.
#[derive(Debug)]
pub struct Script {
    sha: Sha,
    sha_hex: [u8; 40],
    flags: Flags,
    name: Option<Box<str>>,
    code: Code,
}

impl Script {
    pub(crate) fn new(source: &[u8], head: Head<'_>, bytecode: Vec<u8>) -> Script {
        let name = head.name.or_else(|| name_in_comment(source)).map(String::into_boxed_str);
        let code = Code::Script { source: source.into(), bytecode: bytecode.into_boxed_slice() };
        Script::with_code(sha_of(source), head.flags, name, code)
    }

    pub(crate) fn with_code(sha: Sha, flags: Flags, name: Option<Box<str>>, code: Code) -> Script {
        Script { sha, sha_hex: hex(&sha), flags, name, code }
    }

    pub fn sha(&self) -> &Sha {
        &self.sha
    }

    /// 40 lower-case hexadecimal digits.
    pub fn sha_digits(&self) -> &[u8] {
        &self.sha_hex
    }

    /// The same as text.
    pub fn sha_hex(&self) -> &str {
        std::str::from_utf8(&self.sha_hex).unwrap_or_default()
    }

    /// The source as the client sent it, shebang line included; of a function that of its library.
    pub fn source(&self) -> &[u8] {
        match &self.code {
            Code::Script { source, .. } => source,
            Code::Function { library, .. } => library.source(),
        }
    }

    /// The library of a function.
    pub fn library(&self) -> Option<&Arc<Library>> {
        self.called().map(|(library, _)| library)
    }

    pub(crate) fn called(&self) -> Option<(&Arc<Library>, usize)> {
        match &self.code {
            Code::Script { .. } => None,
            Code::Function { library, at } => Some((library, *at)),
        }
    }

    /// What errors call it: the SHA-1 of a script, the name of a function.
    pub fn label(&self) -> &str {
        match (&self.code, &self.name) {
            (Code::Function { .. }, Some(name)) => name,
            _ => self.sha_hex(),
        }
    }

    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// What its author calls it: `#!lua name=x` or `-- @name x`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Bytes this script keeps on the Rust side, its library not counted.
    pub fn used_bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.len());
        let code = match &self.code {
            Code::Script { source, bytecode } => source.len() + bytecode.len(),
            Code::Function { .. } => 0,
        };
        std::mem::size_of::<Script>() + code + name
    }

    pub(crate) fn bytecode(&self) -> &[u8] {
        match &self.code {
            Code::Script { bytecode, .. } => bytecode,
            Code::Function { library, .. } => library.bytecode(),
        }
    }
}

pub fn sha_of(source: &[u8]) -> Sha {
    Sha1::digest(source).into()
}

pub(crate) fn hex(sha: &Sha) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 40];
    for (pair, byte) in text.chunks_exact_mut(2).zip(sha) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// What the first line of a source says, and the text the compiler gets: the shebang line goes,
/// its newline stays, so that line numbers in errors count it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'s> {
    pub flags: Flags,
    pub name: Option<String>,
    pub text: &'s [u8],
}

/// Longer names are cut.
const NAME_CHARS_MAX: usize = 64;

/// A name as it may stand in replies and logs; `None` if nothing is left of it.
fn clean_name(name: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(name);
    let is_fine = |char: &char| !char.is_control() && !char.is_whitespace();
    let name: String = text.chars().filter(is_fine).take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then_some(name)
}

/// The name in a line `-- @name x` among the comments that the source begins with.
fn name_in_comment(source: &[u8]) -> Option<String> {
    for (number, line) in source.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || (number == 0 && line.starts_with(b"#!")) {
            continue;
        }
        let comment = line.strip_prefix(b"--")?.trim_ascii_start();
        if let Some(name) = comment.strip_prefix(b"@name")
            && name.first().is_some_and(u8::is_ascii_whitespace)
        {
            return clean_name(name);
        }
    }
    None
}

pub(crate) fn split_shebang(source: &[u8]) -> Result<Head<'_>, Vec<u8>> {
    let (mut flags, mut name) = (Flags::default(), None);
    if !source.starts_with(b"#!") {
        return Ok(Head { flags, name, text: source });
    }
    let Some(end) = source.iter().position(|&byte| byte == b'\n') else {
        return Err(b"ERR Invalid script shebang".to_vec());
    };
    let parts = match split_words(&source[..end]) {
        Some(parts) if !parts.is_empty() => parts,
        _ => return Err(b"ERR Invalid engine in script shebang".to_vec()),
    };
    if parts[0] != b"#!lua" {
        return Err([b"ERR Unexpected engine in script shebang: ", parts[0].as_slice()].concat());
    }
    flags.declared = true;
    for part in &parts[1..] {
        if let Some(value) = part.strip_prefix(b"name=") {
            name = clean_name(value);
            continue;
        }
        if let Some(value) = part.strip_prefix(b"deadline=") {
            let digits = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
            let Some(ms) = digits.and_then(|digits| digits.parse().ok()) else {
                return Err([b"ERR Invalid deadline in script shebang: ", value].concat());
            };
            flags.deadline_ms = Some(ms);
            continue;
        }
        let Some(names) = part.strip_prefix(b"flags=") else {
            return Err([b"ERR Unknown lua shebang option: ", part.as_slice()].concat());
        };
        if names.is_empty() {
            continue;
        }
        for name in names.split(|&byte| byte == b',') {
            match name {
                b"no-writes" => flags.no_writes = true,
                b"allow-oom" => flags.allow_oom = true,
                b"allow-stale" => flags.allow_stale = true,
                b"no-cluster" => flags.no_cluster = true,
                b"allow-cross-slot-keys" => flags.allow_cross_slot_keys = true,
                _ => return Err([b"ERR Unexpected flag in script shebang: ", name].concat()),
            }
        }
    }
    Ok(Head { flags, name, text: &source[end..] })
}

/// Words of a shebang line by the rules of Redis's command lines: blanks separate, quotes of
/// either kind group. None when a quote stays open or is followed by no blank.
pub(crate) fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                quote @ (b'"' | b'\'') => {
                    let close = rest.iter().position(|&byte| byte == quote)?;
                    word.extend_from_slice(&rest[..close]);
                    rest = &rest[close + 1..];
                    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                        return None;
                    }
                }
                blank if blank.is_ascii_whitespace() => break,
                other => word.push(other),
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(source: &[u8]) -> String {
        String::from_utf8(split_shebang(source).unwrap_err()).unwrap()
    }

    #[test]
    fn shebang_lines() {
        let plain = split_shebang(b"return 1").unwrap();
        assert_eq!((plain.flags, plain.text), (Flags::default(), &b"return 1"[..]));
        let Head { flags, text, .. } =
            split_shebang(b"#!lua flags=no-writes,allow-oom flags=no-cluster\nreturn 1").unwrap();
        let expected = Flags {
            declared: true,
            no_writes: true,
            allow_oom: true,
            no_cluster: true,
            ..Flags::default()
        };
        assert_eq!((flags, text), (expected, &b"\nreturn 1"[..]));
        assert!(split_shebang(b"#!lua flags=\n").unwrap().flags.declared);
        assert!(split_shebang(b"#!lua flags=\"allow-stale\"\n").unwrap().flags.allow_stale);
        assert_eq!(error_of(b"#!lua"), "ERR Invalid script shebang");
        assert_eq!(error_of(b"#!luax\n"), "ERR Unexpected engine in script shebang: #!luax");
        assert_eq!(error_of(b"#!lua x=1\n"), "ERR Unknown lua shebang option: x=1");
        assert_eq!(error_of(b"#!lua flags=a\n"), "ERR Unexpected flag in script shebang: a");
        assert_eq!(error_of(b"#!lua 'a\n"), "ERR Invalid engine in script shebang");
    }

    #[test]
    fn names_and_deadlines() {
        let head = split_shebang(b"#!lua name=limiter deadline=50\n").unwrap();
        assert_eq!((head.name.as_deref(), head.flags.deadline_ms), (Some("limiter"), Some(50)));
        assert_eq!(error_of(b"#!lua deadline=+5\n"), "ERR Invalid deadline in script shebang: +5");
        assert_eq!(error_of(b"#!lua deadline=\n"), "ERR Invalid deadline in script shebang: ");
        let named = |source: &[u8]| name_in_comment(source);
        assert_eq!(named(b"-- Counts.\n--  @name  counter \nreturn 1"), Some("counter".into()));
        assert_eq!(named(b"#!lua\n\n-- @name a"), Some("a".into()));
        assert_eq!(named(b"return 1\n-- @name late"), None);
        assert_eq!(named(b"-- @named a"), None);
        assert_eq!(named(b"-- @name\n"), None);
    }

    #[test]
    fn sha_is_lower_case_hexadecimal() {
        assert_eq!(&hex(&sha_of(b"return 1")), b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}

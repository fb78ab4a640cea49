//! The manifest: a line for each file that counts.
//!
//! `file appendonly.aof.2.base.rdb seq 2 type b`. Source: the format as Redis 7.0 reads and writes
//! it. Words may be quoted; `#` begins a comment; pairs with other names are for later versions.

use std::fmt;

/// The longest line, its end included.
const LINE_BYTES_MAX: usize = 1024;
/// The longest name: quoted, it still fits into a line.
const NAME_BYTES_MAX: usize = 240;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Base,
    /// What came after the base.
    Incremental,
    /// No longer needed, and not removed yet.
    History,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Kind::Base => 'b',
            Kind::Incremental => 'i',
            Kind::History => 'h',
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// In the same directory as the manifest.
    pub name: String,
    pub sequence: u64,
    pub kind: Kind,
}

/// Which files count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub base: Option<File>,
    /// In the order of their sequence numbers.
    pub incremental: Vec<File>,
    pub history: Vec<File>,
}

/// The manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// Counted from 1.
    pub line: usize,
    pub what: &'static str,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the manifest: {}", self.line, self.what)
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let mut manifest = Manifest::default();
        let text = text.strip_suffix(b"\n").ok_or(ManifestError {
            line: 1 + text.iter().filter(|byte| **byte == b'\n').count(),
            what: match text {
                b"" => "Found an empty AOF manifest",
                _ => "Invalid AOF manifest file format: the last line does not end",
            },
        })?;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let added = match line {
                [b'#', ..] => Ok(()),
                _ if line.len() >= LINE_BYTES_MAX => {
                    Err("The AOF manifest file contains too long line")
                }
                _ => parse_line(line).and_then(|file| manifest.add(file)),
            };
            added.map_err(|what| ManifestError { line: index + 1, what })?;
        }
        Ok(manifest)
    }

    fn add(&mut self, file: File) -> Result<(), &'static str> {
        match file.kind {
            Kind::Base if self.base.is_some() => {
                return Err("Found duplicate base file information");
            }
            Kind::Base => self.base = Some(file),
            Kind::History => self.history.push(file),
            Kind::Incremental => {
                if self.incremental.last().is_some_and(|last| last.sequence >= file.sequence) {
                    return Err("Found a non-monotonic sequence number");
                }
                self.incremental.push(file);
            }
        }
        Ok(())
    }

    /// Its text, as Redis writes it.
    pub fn to_text(&self) -> String {
        let files = self.base.iter().chain(&self.history).chain(&self.incremental);
        files.map(line).collect()
    }

    /// The files that make up the data, in the order they are loaded in.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.base.iter().chain(&self.incremental)
    }
}

fn parse_line(line: &[u8]) -> Result<File, &'static str> {
    const FORMAT: &str = "Invalid AOF manifest file format";
    let words = resp::split_args(line).map_err(|_| FORMAT)?;
    if words.len() < 6 || words.len() % 2 != 0 {
        return Err(FORMAT);
    }
    let (mut name, mut sequence, mut kind) = (None, None, None);
    for pair in words.chunks_exact(2) {
        let value = std::str::from_utf8(&pair[1])
            .map_err(|_| "Invalid AOF manifest file format: a value is not UTF-8")?;
        if pair[0].eq_ignore_ascii_case(b"file") {
            if value.is_empty() || value.contains(['/', '\\']) || matches!(value, "." | "..") {
                return Err("File can't be a path, just a filename");
            }
            if value.len() > NAME_BYTES_MAX {
                return Err("a file's name is too long");
            }
            name = Some(value.to_owned());
        } else if pair[0].eq_ignore_ascii_case(b"seq") {
            sequence = value.parse().ok().filter(|sequence| *sequence > 0);
        } else if pair[0].eq_ignore_ascii_case(b"type") {
            kind = Some(match value {
                "b" => Kind::Base,
                "i" => Kind::Incremental,
                "h" => Kind::History,
                _ => return Err("Unknown AOF file type"),
            });
        }
    }
    match (name, sequence, kind) {
        (Some(name), Some(sequence), Some(kind)) => Ok(File { name, sequence, kind }),
        _ => Err("Invalid AOF manifest file format: a file, its seq and its type are expected"),
    }
}

fn line(file: &File) -> String {
    let File { name, sequence, kind } = file;
    format!("file {} seq {sequence} type {}\n", quoted(name), kind.letter())
}

/// A word of a line, in quotes if it needs them.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'\'');
    if word.bytes().all(is_plain) {
        return word.to_owned();
    }
    let escape = |byte: u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b'\t' => "\\t".into(),
        0x07 => "\\a".into(),
        0x08 => "\\b".into(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    format!("\"{}\"", word.bytes().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, sequence: u64, kind: Kind) -> File {
        File { name: name.into(), sequence, kind }
    }

    #[test]
    fn a_manifest_of_redis_is_read() {
        let text = "# a comment\nfile appendonly.aof.2.base.rdb seq 2 type b\n\
                    file appendonly.aof.1.incr.aof seq 1 type h\n\
                    file \"a b\\x22.aof\" seq 2 type i later 1\n\
                    FILE appendonly.aof.3.incr.aof SEQ 3 TYPE i\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(
            manifest,
            Manifest {
                base: Some(file("appendonly.aof.2.base.rdb", 2, Kind::Base)),
                history: vec![file("appendonly.aof.1.incr.aof", 1, Kind::History)],
                incremental: vec![
                    file("a b\".aof", 2, Kind::Incremental),
                    file("appendonly.aof.3.incr.aof", 3, Kind::Incremental),
                ],
            }
        );
        assert_eq!(Manifest::parse(manifest.to_text().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn names_come_back() {
        let longest = "\x01".repeat(NAME_BYTES_MAX);
        for name in ["a", "a b", "\"", "\t\u{e4}\u{1f600}", "'x'", "a#b", &longest] {
            let incremental = vec![file(name, u64::MAX, Kind::Incremental)];
            let manifest = Manifest { incremental, ..Manifest::default() };
            let text = manifest.to_text();
            assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest), "{text}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let base = "file a seq 1 type b\n";
        let incremental = "file a seq 2 type i\n";
        let cases = [
            ("", 1),
            ("file a seq 1 type i", 1),
            (&base[..base.len() - 1], 1),
            ("\n", 1),
            ("file a seq 1\n", 1),
            ("file a seq 1 type\n", 1),
            ("file a seq 0 type i\n", 1),
            ("file a seq x type i\n", 1),
            ("file a seq 1 type x\n", 1),
            ("file ../a seq 1 type i\n", 1),
            ("file a\" seq 1 type i\n", 1),
            (&format!("file {} seq 1 type i\n", "x".repeat(NAME_BYTES_MAX + 1)), 1),
            (&format!("{base}{base}"), 2),
            (&format!("{incremental}{incremental}"), 2),
            (&format!("{base}file {} seq 2 type i\n", "x".repeat(LINE_BYTES_MAX)), 2),
        ];
        for (text, line) in cases {
            assert_eq!(
                Manifest::parse(text.as_bytes()).map_err(|error| error.line),
                Err(line),
                "{text}"
            );
        }
    }
}

//! The list of tests that are known to fail, and why.
//!
//! ```text
//! [unit/type/list]
//! the name of a test
//! the name of another, or of many: a * stands for anything
//!     The reason of all names above, back to the one before it.
//! ```
//!
//! A name that is only a `*` means the file as a whole, which is then not run. `! name` means a test
//! that is not run, since those behind it could not be run after it.

use std::collections::BTreeMap;
use std::path::Path;

pub struct Expected {
    /// By file: names, each with its reason.
    files: BTreeMap<String, Vec<(String, String)>>,
}

const NOT_RUN: &str = "! ";

impl Expected {
    pub fn read(path: &Path) -> Result<Expected, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Expected::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Expected, String> {
        let mut files: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        let mut file: Option<&mut Vec<(String, String)>> = None;
        // How many of the last names of the file wait for their reason, and whether it goes on.
        let (mut waiting, mut explained) = (0, 0);
        for (index, line) in text.lines().enumerate() {
            let failed = |what: &str| Err(format!("line {}: {what}", index + 1));
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with(' ') {
                let Some(names) = &mut file else { return failed("a reason of no file") };
                if waiting > 0 {
                    (explained, waiting) = (waiting, 0);
                }
                if explained == 0 {
                    return failed("a reason of no test");
                }
                let first = names.len() - explained;
                for (_, reason) in &mut names[first..] {
                    if !reason.is_empty() {
                        reason.push(' ');
                    }
                    reason.push_str(line.trim());
                }
                continue;
            }
            explained = 0;
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'))
                && name.contains('/')
                && !name.contains(' ')
            {
                if waiting > 0 {
                    return failed("the names before it have no reason");
                }
                file = Some(files.entry(name.to_owned()).or_default());
            } else if let Some(names) = &mut file {
                names.push((line.to_owned(), String::new()));
                waiting += 1;
            } else {
                return failed("a test of no file");
            }
        }
        match waiting {
            0 => Ok(Expected { files }),
            _ => Err("the last names have no reason".into()),
        }
    }

    /// Why a file is not run at all.
    pub fn whole(&self, file: &str) -> Option<&str> {
        let names = self.files.get(file)?;
        names.iter().find(|(name, _)| name == "*").map(|(_, reason)| reason.as_str())
    }

    /// The tests of a file that are not to be run.
    pub fn not_run(&self, file: &str) -> impl Iterator<Item = &str> {
        self.of(file).filter_map(|name| name.strip_prefix(NOT_RUN))
    }

    pub fn of(&self, file: &str) -> impl Iterator<Item = &str> {
        self.files.get(file).into_iter().flatten().map(|(name, _)| name.as_str())
    }

    pub fn has(&self, file: &str, test: &str) -> bool {
        self.of(file).any(|name| matches(name, test))
    }
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.into_iter().any(|at| matches(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::{Expected, matches};

    #[test]
    fn patterns() {
        assert!(matches("a*c", "abbc") && matches("*", "") && matches("a*b*c", "a1b2c"));
        assert!(!matches("a*c", "abcd") && !matches("ab", "abc"));
    }

    #[test]
    fn reasons_belong_to_the_names_above_them() {
        let text = "# all\n[unit/a]\none\n[two] words\n    because\n    of it\n\nthree\n  why\n\
                    [unit/b]\n*\n  never\n";
        let expected = Expected::parse(text).unwrap();
        assert_eq!(expected.files["unit/a"][1], ("[two] words".into(), "because of it".into()));
        assert_eq!(expected.files["unit/a"][2], ("three".into(), "why".into()));
        assert_eq!((expected.whole("unit/a"), expected.whole("unit/b")), (None, Some("never")));
        assert!(expected.has("unit/a", "one") && !expected.has("unit/a", "four"));
        let expected = Expected::parse("[unit/a]\none\n! two\n  because\n").unwrap();
        assert_eq!(expected.not_run("unit/a").collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn everything_has_a_reason() {
        assert!(Expected::parse("[unit/a]\none\n").is_err());
        assert!(Expected::parse("[unit/a]\none\n[unit/b]\n").is_err());
        assert!(Expected::parse("one\n  because\n").is_err());
        assert!(Expected::parse("[unit/a]\n  because\n").is_err());
    }
}

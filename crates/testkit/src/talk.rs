//! Talk files: the notation of `tests/talk/README.md`, read into sections and steps.
//!
//! Knows nothing of sockets. Steps remember which lines their expectations stand on, so that
//! `rewrite` can replace them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::pattern::{self, Pattern, Saved};
use crate::value::unescape;

#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    pub lines: Vec<String>,
    /// Extra arguments for the server this file runs against.
    pub server_args: Vec<String>,
    pub sections: Vec<Section>,
}

#[derive(Debug)]
pub struct Section {
    pub title: String,
    pub line: usize,
    pub config: Vec<(String, String)>,
    pub not: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub struct Step {
    /// Zero-based line of the command.
    pub line: usize,
    pub connection: String,
    pub action: Action,
    pub expected: Expectation,
    /// What Redis 7.0 answers instead, where we differ on purpose.
    pub redis: Option<Difference>,
    pub not: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Expectation {
    pub lines: Range<usize>,
    pub patterns: Vec<Pattern>,
}

#[derive(Debug)]
pub struct Difference {
    pub reason: String,
    /// Without patterns the oracle's reply is not looked at.
    pub expected: Expectation,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send a command and read its reply.
    Call(Vec<Arg>),
    /// Send a command that blocks, and wait until the server says so.
    Block(Vec<Arg>),
    /// Send a command without reading anything.
    Send(Vec<Arg>),
    /// Send a command again and again until the reply fits.
    Poll(Vec<Arg>),
    /// Run a SCAN command until its cursor is zero; the reply is every distinct element.
    Scan(Vec<Arg>),
    Receive,
    Raw(Vec<Arg>),
    Hello3,
    Close,
    /// The server closes the connection.
    Closed,
    /// So many ms pass on a clock that stands still otherwise.
    Advance(i64),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Literal(Vec<u8>),
    Repeat(usize, Vec<u8>),
    /// For every number in the range, one argument per template with `*` replaced.
    Range(i64, i64, Vec<String>),
    Saved(String),
    /// The text of a script, by its name.
    Script(String),
    UnixSeconds(i64),
    UnixMillis(i64),
}

impl File {
    pub fn read(path: &Path) -> Result<File, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        File::parse(path, &text)
    }

    pub fn parse(path: &Path, text: &str) -> Result<File, String> {
        let mut file = File {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            server_args: Vec::new(),
            sections: Vec::new(),
        };
        let mut at = 0;
        while at < file.lines.len() {
            let line = file.lines[at].clone();
            let next = file
                .take_line(&line, at)
                .map_err(|error| format!("{}:{}: {error}", path.display(), at + 1))?;
            at = next;
        }
        Ok(file)
    }

    /// Takes what begins at line `at`; answers the line after it.
    fn take_line(&mut self, line: &str, at: usize) -> Result<usize, String> {
        if line.trim().is_empty() || line == "#" || line.starts_with("# ") {
            return Ok(at + 1);
        }
        if let Some(title) = line.strip_prefix("== ") {
            self.sections.push(Section {
                title: title.trim().to_owned(),
                line: at,
                config: Vec::new(),
                not: Vec::new(),
                steps: Vec::new(),
            });
            return Ok(at + 1);
        }
        if let Some(directive) = line.strip_prefix("% ") {
            self.directive(directive, at)?;
            return Ok(at + 1);
        }
        let lines = block(&self.lines, at + 1);
        let patterns = pattern::parse(&self.lines[lines.clone()].join("\n"))
            .map_err(|error| format!("in the expectation below: {error}"))?;
        let next = lines.end;
        let expected = Expectation { lines, patterns };
        let section = self.sections.last_mut().ok_or("a step before the first `== title`")?;
        if let Some(marker) = line.strip_prefix("! ") {
            let step = section.steps.last_mut().ok_or("a marker before the first step")?;
            let (kind, reason) = marker.split_once(':').unwrap_or((marker, ""));
            let mut words = kind.split_whitespace();
            match words.next() {
                Some("redis") if reason.trim().is_empty() => {
                    return Err("`! redis:` needs a reason".to_owned());
                }
                Some("redis") => {
                    step.redis = Some(Difference { reason: reason.trim().to_owned(), expected });
                }
                Some("not") => step.not.extend(words.map(str::to_owned)),
                _ => return Err(format!("unknown marker: {line}")),
            }
            return Ok(next);
        }
        let (connection, action) = action(line)?;
        section.steps.push(Step {
            line: at,
            connection,
            action,
            expected,
            redis: None,
            not: Vec::new(),
        });
        Ok(next)
    }

    fn directive(&mut self, directive: &str, line: usize) -> Result<(), String> {
        let (name, rest) = directive.split_once(' ').ok_or("a directive needs a value")?;
        match (name, self.sections.last_mut()) {
            ("server", None) => {
                for arg in arguments(rest)? {
                    let Arg::Literal(bytes) = arg else {
                        return Err("server arguments are plain words".to_owned());
                    };
                    self.server_args.push(String::from_utf8_lossy(&bytes).into_owned());
                }
            }
            ("config", Some(section)) => {
                let (name, value) = rest.split_once(' ').ok_or("config needs name and value")?;
                section.config.push((name.to_owned(), value.trim_matches('"').to_owned()));
            }
            ("not", Some(section)) => {
                let modes = rest.split(':').next().unwrap_or_default();
                section.not.extend(modes.split_whitespace().map(str::to_owned));
            }
            ("advance", Some(section)) => {
                let ms = rest.trim().parse().ok().filter(|ms: &i64| *ms >= 0);
                section.steps.push(Step {
                    line,
                    connection: "main".to_owned(),
                    action: Action::Advance(ms.ok_or("advance needs milliseconds")?),
                    expected: Expectation::default(),
                    redis: None,
                    not: Vec::new(),
                });
            }
            _ => return Err(format!("unknown directive: % {directive}")),
        }
        Ok(())
    }
}

/// The lines of an expectation that starts at `from`: up to a blank line or the next item.
fn block(lines: &[String], from: usize) -> Range<usize> {
    let ends = |line: &String| {
        line.trim().is_empty()
            || line.starts_with(['>', '<', '?', '@', '!', '%'])
            || line.starts_with("# ")
            || line.starts_with("== ")
    };
    let end = lines[from..].iter().position(ends).map_or(lines.len(), |count| from + count);
    from..end
}

fn action(line: &str) -> Result<(String, Action), String> {
    let (connection, rest) = match line.strip_prefix('@') {
        Some(named) => {
            let end = named.find(['>', '<', '?', ' ']).ok_or("a connection without an action")?;
            (named[..end].to_owned(), named[end..].trim_start())
        }
        None => ("main".to_owned(), line),
    };
    let action = if let Some(command) = rest.strip_prefix(">>") {
        Action::Block(arguments(command)?)
    } else if let Some(command) = rest.strip_prefix('>') {
        Action::Call(arguments(command)?)
    } else if let Some(command) = rest.strip_prefix('?') {
        Action::Poll(arguments(command)?)
    } else if rest.starts_with('<') {
        Action::Receive
    } else {
        let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "send" => Action::Send(arguments(more)?),
            "scan" => Action::Scan(arguments(more)?),
            "raw" => Action::Raw(arguments(more)?),
            "hello3" => Action::Hello3,
            "close" => Action::Close,
            "closed" => Action::Closed,
            _ => return Err(format!("cannot read {line:?}")),
        }
    };
    Ok((connection, action))
}

/// Splits a command as redis-cli does, plus `%{…}` generators.
pub fn arguments(text: &str) -> Result<Vec<Arg>, String> {
    let mut args = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix("%{") {
            let end = inner.find('}').ok_or("unclosed %{")?;
            args.push(generator(&inner[..end])?);
            rest = inner[end + 1..].trim_start();
            continue;
        }
        let quote = rest.chars().next().filter(|c| *c == '"' || *c == '\'');
        let (literal, after) = match quote {
            Some(quote) => {
                let end = closing_quote(&rest[1..], quote)
                    .ok_or_else(|| format!("unclosed quote in {text:?}"))?;
                let inner = &rest[1..1 + end];
                let bytes = if quote == '"' {
                    unescape(inner)
                } else {
                    inner.replace("\\'", "'").into_bytes()
                };
                (bytes, &rest[end + 2..])
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest.as_bytes()[..end].to_vec(), &rest[end..])
            }
        };
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err(format!("text right after a closing quote in {text:?}"));
        }
        args.push(Arg::Literal(literal));
        rest = after.trim_start();
    }
    if args.is_empty() { Err("no command".to_owned()) } else { Ok(args) }
}

fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (offset, character) in text.char_indices() {
        if character == quote && !escaped {
            return Some(offset);
        }
        escaped = character == '\\' && !escaped;
    }
    None
}

fn generator(text: &str) -> Result<Arg, String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let mut number = |what: &str| {
        words
            .next()
            .and_then(|word| word.parse::<i64>().ok())
            .ok_or_else(|| format!("{name} needs {what}"))
    };
    Ok(match name {
        "repeat" => {
            let count = number("a count")?;
            let word = words.next().ok_or("repeat needs a text")?;
            Arg::Repeat(count as usize, unescape(word.trim_matches('"')))
        }
        "range" => {
            let (from, to) = (number("a start")?, number("an end")?);
            let templates: Vec<String> = words.map(str::to_owned).collect();
            Arg::Range(from, to, if templates.is_empty() { vec!["*".into()] } else { templates })
        }
        "script" => {
            let name = words.next().ok_or("script needs a name")?;
            Arg::Script(name.to_owned())
        }
        _ => {
            for (clock, make) in
                [("unix_ms", Arg::UnixMillis as fn(i64) -> Arg), ("unix", Arg::UnixSeconds)]
            {
                if let Some(offset) = text.strip_prefix(clock) {
                    let offset = if offset.is_empty() { "0" } else { offset };
                    let offset = offset.trim_start_matches('+');
                    return offset.parse().map(make).map_err(|_| format!("bad offset in {text}"));
                }
            }
            Arg::Saved(name.to_owned())
        }
    })
}

/// The bytes of a command, with generators run and saved values filled in.
/// Scripts are read from `scripts`.
pub fn expand(
    args: &[Arg],
    saved: &Saved,
    unix_ms: i64,
    scripts: &Path,
) -> Result<Vec<Vec<u8>>, String> {
    let mut out = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            Arg::Literal(bytes) => out.push(bytes.clone()),
            Arg::Repeat(count, text) => out.push(text.repeat(*count)),
            Arg::Range(from, to, templates) => {
                for number in *from..=*to {
                    let number = number.to_string();
                    out.extend(templates.iter().map(|t| t.replace('*', &number).into_bytes()));
                }
            }
            Arg::Saved(name) => out
                .push(saved.get(name).cloned().ok_or_else(|| format!("nothing saved as {name}"))?),
            Arg::Script(name) => {
                let path = scripts.join(format!("{name}.lua"));
                let text = std::fs::read(&path);
                out.push(text.map_err(|error| format!("{}: {error}", path.display()))?);
            }
            Arg::UnixSeconds(offset) => {
                out.push((unix_ms / 1000 + offset).to_string().into_bytes());
            }
            Arg::UnixMillis(offset) => out.push((unix_ms + offset).to_string().into_bytes()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Vec<String> {
        let args = arguments(text).unwrap();
        let bytes = expand(&args, &Saved::new(), 5000, Path::new(".")).unwrap();
        bytes.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn commands_split_like_redis_cli() {
        assert_eq!(expanded(r#"SET "a b" 'c d' "" \x"#), ["SET", "a b", "c d", "", "\\x"]);
        assert_eq!(arguments(r#""\x00\n""#).unwrap(), [Arg::Literal(vec![0, b'\n'])]);
        assert_eq!(expanded("MSET %{range 1 2 k* v*} x"), ["MSET", "k1", "v1", "k2", "v2", "x"]);
        assert_eq!(expanded("SET k %{repeat 3 ab}"), ["SET", "k", "ababab"]);
        assert_eq!(expanded("A %{unix+10} %{unix_ms-1}"), ["A", "15", "4999"]);
        assert!(arguments(r#"SET "a"#).is_err());
        assert!(arguments(r#"SET "a"b"#).is_err());
    }

    #[test]
    fn a_file_is_read_into_sections_and_steps() {
        let text = "# why\n% server --requirepass x\n\n== first\n% config maxmemory 5\n% not multi: state\n> GET k\n(nil)\n@a>> BLPOP q 0\n> OBJECT ENCODING l\n\"listpack\"\n! redis: 7.0 has no such lists\n\"quicklist\"\n! not tiny: asks for the encoding\n@a<\n[\n  \"q\"\n  \"v\"\n]\n";
        let file = File::parse(Path::new("x.talk"), text).unwrap();
        assert_eq!(file.server_args, ["--requirepass", "x"]);
        let section = &file.sections[0];
        assert_eq!(section.config, [("maxmemory".to_owned(), "5".to_owned())]);
        assert_eq!(section.not, ["multi"]);
        assert_eq!(section.steps.len(), 4);
        assert_eq!(section.steps[1].connection, "a");
        let encoding = &section.steps[2];
        assert_eq!(encoding.not, ["tiny"]);
        assert_eq!(encoding.redis.as_ref().unwrap().expected.patterns.len(), 1);
        assert_eq!(section.steps[3].action, Action::Receive);
        assert_eq!(section.steps[3].expected.lines, 15..19);
    }
}

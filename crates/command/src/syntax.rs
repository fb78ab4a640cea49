//! The arguments of a command, read from the `syntax` line of its row. COMMAND DOCS answers them,
//! and with them clients and `redis-cli` show hints. Knows nothing of replies.
//!
//! The notation is that of manual pages, with names and types where they do not follow by
//! themselves:
//!
//! | written | means |
//! |---|---|
//! | `value` | an argument; its type follows from its name, a string by default |
//! | `value:integer` | with a type: `key`, `string`, `integer`, `double`, `pattern`, `unix-time` |
//! | `key@1` | taken by the key spec of that index, where it is not simply the next one |
//! | `addr=ip:port` | shown to people under another name |
//! | `NX`, `change:CH` | a word to be written as it is, under its own name or another |
//! | `EX seconds` | an argument behind a word |
//! | `[LIMIT offset count]` | a word with several arguments is a block of its own |
//! | `[x]` | may be left out |
//! | `x [x ...]`, `x ...` | may be repeated; `PREFIX x [PREFIX x ...]`: with the word each time |
//! | `where:(LEFT \| RIGHT)` | one of several, under a name |
//! | `data:(score member)` | several arguments that belong together |

use std::fmt;

/// What kind of value an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl Kind {
    const NAMES: [(Kind, &'static str); 9] = [
        (Kind::String, "string"),
        (Kind::Integer, "integer"),
        (Kind::Double, "double"),
        (Kind::Key, "key"),
        (Kind::Pattern, "pattern"),
        (Kind::UnixTime, "unix-time"),
        (Kind::PureToken, "pure-token"),
        (Kind::OneOf, "oneof"),
        (Kind::Block, "block"),
    ];

    /// As COMMAND DOCS names it.
    pub fn name(self) -> &'static str {
        Kind::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<Kind> {
        Kind::NAMES[..6].iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// The kind of an argument that is written without one.
    fn of_name(name: &str) -> Kind {
        match name {
            "key" | "key1" | "key2" | "newkey" | "source" | "destination" | "src" | "dst" => {
                Kind::Key
            }
            "client-id" | "count" | "cursor" | "db" | "decrement" | "destination-db" | "end"
            | "increment" | "index" | "index1" | "index2" | "len" | "limit" | "maxage"
            | "milliseconds" | "min-match-len" | "num-matches" | "numfields" | "numkeys"
            | "numlocal" | "numreplicas" | "offset" | "port" | "protover" | "rank" | "seconds"
            | "start" | "stop" | "timeout" | "ttl" | "version" => Kind::Integer,
            "max" | "min" | "score" => Kind::Double,
            "pattern" => Kind::Pattern,
            "unix-time-milliseconds" | "unix-time-seconds" => Kind::UnixTime,
            _ => Kind::String,
        }
    }
}

/// One argument, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub kind: Kind,
    /// What people are shown instead of the name.
    pub display: Option<String>,
    /// Index of the key spec that finds it.
    pub key_spec: Option<usize>,
    /// The word before it, or which it is.
    pub token: Option<String>,
    pub optional: bool,
    pub multiple: bool,
    /// When it is repeated, so is its token.
    pub multiple_token: bool,
    /// Those of a block, or the choices.
    pub arguments: Vec<Argument>,
}

impl Argument {
    fn new(name: &str, kind: Kind) -> Argument {
        Argument {
            name: name.into(),
            kind,
            display: None,
            key_spec: None,
            token: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            arguments: Vec::new(),
        }
    }

    fn group(name: &str, kind: Kind, arguments: Vec<Argument>) -> Argument {
        Argument { arguments, ..Argument::new(name, kind) }
    }
}

/// A line that is not in the notation: a mistake in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub reason: &'static str,
    /// What is left of the line where it was noticed.
    pub rest: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} before '{}'", self.reason, self.rest)
    }
}

impl std::error::Error for SyntaxError {}

/// Reads the syntax line of a command with that many key specs. O(length).
pub fn parse(line: &str, key_specs: usize) -> Result<Vec<Argument>, SyntaxError> {
    let mut parser = Parser { words: words(line), at: 0, keys: 0, key_specs };
    let arguments = parser.sequence(false)?;
    if parser.peek().is_some() {
        return Err(parser.error("something that does not belong here"));
    }
    Ok(arguments)
}

/// The line in pieces: brackets, bars and what stands between them.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_mark = |c: char| matches!(c, '[' | ']' | '(' | ')' | '|');
        let end = match first {
            first if is_mark(first) => 1,
            _ => rest.find(|c: char| is_mark(c) || c == ' ').unwrap_or(rest.len()),
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

fn is_token(word: &str) -> bool {
    let is_mark = |c: char| matches!(c, '-' | '_' | '*' | '=' | '~' | '>' | '"' | '$');
    word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || is_mark(c))
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    /// Keys met so far.
    keys: usize,
    key_specs: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn error(&self, reason: &'static str) -> SyntaxError {
        SyntaxError { reason, rest: self.words[self.at..].join(" ") }
    }

    fn expect(&mut self, mark: &str, reason: &'static str) -> Result<(), SyntaxError> {
        if self.peek() != Some(mark) {
            return Err(self.error(reason));
        }
        self.at += 1;
        Ok(())
    }

    /// Whether an argument starts here that may stand behind a token.
    fn value_follows(&self) -> bool {
        match self.peek() {
            None | Some("[" | "]" | "(" | ")" | "|" | "...") => false,
            Some(word) => !is_token(word),
        }
    }

    /// Arguments up to the end of what encloses them. If that is bare, a token at its beginning
    /// takes all that follow.
    fn sequence(&mut self, bare: bool) -> Result<Vec<Argument>, SyntaxError> {
        let start = self.at;
        let mut arguments: Vec<Argument> = Vec::new();
        loop {
            match self.peek() {
                None | Some("]" | ")" | "|") => break,
                Some("...") => return Err(self.error("nothing to repeat")),
                Some("[") => arguments.push(self.optional()?),
                Some(_) => {
                    let from = self.at;
                    let mut argument = self.item()?;
                    self.repeat(&mut argument, from)?;
                    arguments.push(argument);
                }
            }
        }
        if bare && arguments.len() > 1 {
            let first = &mut arguments[0];
            let has_value = first.kind != Kind::PureToken;
            let Some(token) = first.token.take().filter(|_| has_value) else {
                self.at = start;
                return Err(self.error("several arguments without a token or a name"));
            };
            let name = token.to_ascii_lowercase();
            let block = Argument::group(&name, Kind::Block, arguments);
            return Ok(vec![Argument { token: Some(token), ..block }]);
        }
        Ok(arguments)
    }

    /// `[…]`.
    fn optional(&mut self) -> Result<Argument, SyntaxError> {
        self.expect("[", "no '['")?;
        let start = self.at;
        let mut inside = self.sequence(true)?;
        self.expect("]", "no ']'")?;
        match inside.pop() {
            Some(argument) => Ok(Argument { optional: true, ..argument }),
            None => {
                self.at = start;
                Err(self.error("an empty '[]'"))
            }
        }
    }

    /// A word, an argument, an argument behind a word, or a named group.
    fn item(&mut self) -> Result<Argument, SyntaxError> {
        let word = self.words[self.at];
        self.at += 1;
        if is_token(word) {
            if self.value_follows() {
                let argument = self.item()?;
                return Ok(Argument { token: Some(word.into()), ..argument });
            }
            let name = word.to_ascii_lowercase();
            let name = if word == "\"\"" { "empty-string" } else { &name };
            return Ok(Argument {
                token: Some(word.into()),
                ..Argument::new(name, Kind::PureToken)
            });
        }
        if let Some(name) = word.strip_suffix(':') {
            return self.group(name);
        }
        let (word, display) = match word.split_once('=') {
            Some((word, display)) => (word, Some(display.into())),
            None => (word, None),
        };
        let (word, spec) = match word.split_once('@') {
            Some((word, spec)) => (word, Some(spec)),
            None => (word, None),
        };
        let (name, kind) = match word.split_once(':') {
            Some((name, token)) if is_token(token) => {
                let argument = Argument::new(name, Kind::PureToken);
                return Ok(Argument { token: Some(token.into()), ..argument });
            }
            Some((name, kind)) => (name, Kind::parse(kind)),
            None => (word, Some(Kind::of_name(word))),
        };
        let Some(kind) = kind else {
            self.at -= 1;
            return Err(self.error("an unknown type"));
        };
        let key_spec = match spec {
            Some(spec) => Some(spec.parse().map_err(|_| self.error("no index behind '@'"))?),
            None if kind == Kind::Key => {
                self.keys += 1;
                // One spec may find several keys, as that of LCS does.
                Some((self.keys - 1).min(self.key_specs.saturating_sub(1)))
            }
            None => None,
        };
        Ok(Argument { display, key_spec, ..Argument::new(name, kind) })
    }

    /// What follows `name:`.
    fn group(&mut self, name: &str) -> Result<Argument, SyntaxError> {
        self.expect("(", "no '('")?;
        let (start, keys) = (self.at, self.keys);
        let first = self.sequence(false)?;
        if self.peek() == Some(")") {
            self.at += 1;
            return Ok(Argument::group(name, Kind::Block, first));
        }
        (self.at, self.keys) = (start, keys);
        let mut choices = Vec::new();
        loop {
            let mut choice = self.sequence(true)?;
            choices.push(choice.pop().ok_or_else(|| self.error("an empty choice"))?);
            match self.peek() {
                Some("|") => self.at += 1,
                _ => break,
            }
        }
        self.expect(")", "no ')'")?;
        Ok(Argument::group(name, Kind::OneOf, choices))
    }

    /// `...` or `[x ...]` behind an argument that was read from `from` on.
    fn repeat(&mut self, argument: &mut Argument, from: usize) -> Result<(), SyntaxError> {
        if self.peek() == Some("...") {
            self.at += 1;
            argument.multiple = true;
            return Ok(());
        }
        if self.peek() != Some("[") {
            return Ok(());
        }
        let inside = &self.words[self.at + 1..];
        let nested = |word: &&str| matches!(*word, "[" | "]");
        let Some(end) = inside.iter().position(nested) else { return Ok(()) };
        let [repeated @ .., "..."] = &inside[..end] else { return Ok(()) };
        let whole = &self.words[from..self.at];
        let without_token = whole.split_first().map(|(_, rest)| rest);
        let bare = whole.strip_prefix(&[whole[0], "("]).and_then(|rest| rest.strip_suffix(&[")"]));
        argument.multiple_token =
            repeated == whole && argument.kind != Kind::PureToken && is_token(whole[0]);
        let is_same = repeated == whole
            || (argument.token.is_some() && Some(repeated) == without_token)
            || Some(repeated) == bare;
        if !is_same {
            return Err(self.error("what is repeated is not what stands before it"));
        }
        argument.multiple = true;
        self.at += end + 2;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments written out in one line, so that expectations can be read.
    fn shown(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let mut text = String::new();
            if let Some(token) = &argument.token {
                text += &format!("{token}=");
            }
            text += &argument.name;
            if let Some(display) = &argument.display {
                text += &format!("'{display}'");
            }
            match argument.kind {
                Kind::OneOf => text += &format!("|{}|", shown(&argument.arguments)),
                Kind::Block => text += &format!("({})", shown(&argument.arguments)),
                Kind::PureToken => {}
                kind => text += &format!(":{}", kind.name()),
            }
            if let Some(spec) = argument.key_spec {
                text += &spec.to_string();
            }
            for (is, mark) in
                [(argument.optional, "?"), (argument.multiple, "*"), (argument.multiple_token, "+")]
            {
                text += if is { mark } else { "" };
            }
            text
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(line: &str, key_specs: usize, expected: &str) {
        match parse(line, key_specs) {
            Ok(arguments) => assert_eq!(shown(&arguments), expected, "{line}"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn plain_arguments_have_the_type_of_their_name() {
        check("", 0, "");
        check("key value", 1, "key:key0 value:string");
        check("key seconds", 1, "key:key0 seconds:integer");
        check("key min max", 1, "key:key0 min:double max:double");
        check("key increment:double", 1, "key:key0 increment:double");
        check("key newkey", 2, "key:key0 newkey:key1");
        check("key1 key2", 1, "key1:key0 key2:key0");
        check("key by:pattern@1 to:key@2", 3, "key:key0 by:pattern1 to:key2");
        check("addr=ip:port", 0, "addr'ip:port':string");
    }

    #[test]
    fn tokens() {
        check("[REPLACE]", 0, "REPLACE=replace?");
        check("[CH] [increment:INCR]", 0, "CH=ch? INCR=increment?");
        check("[MATCH pattern]", 0, "MATCH=pattern:pattern?");
        check("[DB destination-db]", 0, "DB=destination-db:integer?");
        check(
            "FIELDS fields:(numfields field ...)",
            0,
            "FIELDS=fields(numfields:integer field:string*)",
        );
        check("[LIMIT offset count]", 0, "LIMIT=limit(offset:integer count:integer)?");
        check("no-one:(NO ONE)", 0, "no-one(NO=no ONE=one)");
    }

    #[test]
    fn repetition() {
        check("key [key ...]", 1, "key:key0*");
        check("key ...", 1, "key:key0*");
        check("[arg [arg ...]]", 0, "arg:string?*");
        check("key [key ...] timeout:double", 1, "key:key0* timeout:double");
        check("data:(score member) [score member ...]", 0, "data(score:double member:string)*");
        check("data:(key value) [data:(key value) ...]", 1, "data(key:key0 value:string)*");
        check("[WEIGHTS weight:integer [weight:integer ...]]", 0, "WEIGHTS=weight:integer?*");
        check("[PREFIX prefix [PREFIX prefix ...]]", 0, "PREFIX=prefix:string?*+");
    }

    #[test]
    fn groups() {
        check("where:(LEFT | RIGHT)", 0, "where|LEFT=left RIGHT=right|");
        check(
            "[expiration:(EX seconds | PXAT unix-time-milliseconds | KEEPTTL)]",
            0,
            "expiration|EX=seconds:integer PXAT=unix-time-milliseconds:unix-time KEEPTTL=keepttl|?",
        );
        check(
            "[TYPE client-type:(NORMAL | PUBSUB)]",
            0,
            "TYPE=client-type|NORMAL=normal PUBSUB=pubsub|?",
        );
        check(
            "[options:(count [WITHSCORES])]",
            0,
            "options(count:integer WITHSCORES=withscores?)?",
        );
        check(
            "[arguments:(protover [AUTH username password])]",
            0,
            "arguments(protover:integer AUTH=auth(username:string password:string)?)?",
        );
        check(
            "filter:(one | many:([ID client-id] | [USER username]) ...)",
            0,
            "filter|one:string many|ID=client-id:integer? USER=username:string?|*|",
        );
    }

    #[test]
    fn mistakes() {
        for (line, reason) in [
            ("[key", "no ']'"),
            ("key]", "something that does not belong here"),
            ("a:(b", "no ')'"),
            ("a: b", "no '('"),
            ("a:number", "an unknown type"),
            ("[]", "an empty '[]'"),
            ("... x", "nothing to repeat"),
            ("x [y ...]", "what is repeated is not what stands before it"),
            ("[a b]", "several arguments without a token or a name"),
            ("x:(A | )", "an empty choice"),
        ] {
            assert_eq!(parse(line, 0).map_err(|error| error.reason), Err(reason), "{line}");
        }
    }
}

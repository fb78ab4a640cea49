//! Paths: JSONPath as RedisJSON speaks it, and the legacy paths of its first version.
//!
//! Not RFC 9535: names may have signs in them, a dot may stand before a bracket, filters know `=~`,
//! `in` and `nin`. A path that does not begin with `$` and then ends, or goes on with `.` or `[`, is
//! a legacy one: the same language without the `$`.

use std::fmt;

use super::Node;

/// Brackets and parentheses that may stand in each other.
const NESTING_MAX: usize = 64;

/// A path, ready to be followed.
#[derive(Debug)]
pub struct Path {
    pub(super) segments: Vec<Segment>,
    is_legacy: bool,
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError {
    /// In bytes of the path with its `$`.
    position: usize,
    expected: &'static str,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PathError { position, expected } = self;
        write!(
            f,
            "Error occurred on position {position}, expected one of the following: {expected}"
        )
    }
}

impl std::error::Error for PathError {}

#[derive(Debug)]
pub(super) struct Segment {
    /// Whether it goes on from all nodes below, too.
    pub descends: bool,
    pub selector: Selector,
}

#[derive(Debug)]
pub(super) enum Selector {
    All,
    Name(String),
    Names(Vec<String>),
    Index(i64),
    Indexes(Vec<i64>),
    Slice { start: Option<i64>, end: Option<i64>, step: usize },
    Filter(Filter),
}

#[derive(Debug)]
pub(super) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    /// Whether it leads to anything.
    Exists(Term),
    Compare(Comparison, Term, Term),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Matches,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) enum Term {
    Literal(Node),
    Path { from_root: bool, segments: Vec<Segment> },
}

impl Path {
    pub fn parse(text: &str) -> Result<Path, PathError> {
        let bytes = text.as_bytes();
        let is_legacy =
            bytes.first() != Some(&b'$') || !matches!(bytes.get(1), None | Some(b'.' | b'['));
        let whole = match (is_legacy, text) {
            (false, _) => text.to_owned(),
            (true, ".") => "$".to_owned(),
            (true, _) if text.starts_with('.') => format!("${text}"),
            (true, _) => format!("$.{text}"),
        };
        let mut parser = Parser { text: &whole, at: 1, nesting: 0 };
        let segments = parser.segments(false)?;
        parser.blank();
        match parser.at == whole.len() {
            true => Ok(Path { segments, is_legacy }),
            false => parser.expected("'.', '..', '['"),
        }
    }

    /// Whether it answers one value, not an array of them.
    pub fn is_legacy(&self) -> bool {
        self.is_legacy
    }

    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether it leads to one node at most, whatever the document.
    pub fn is_static(&self) -> bool {
        let is_one = |segment: &Segment| {
            !segment.descends && matches!(segment.selector, Selector::Name(_) | Selector::Index(_))
        };
        self.segments.iter().all(is_one)
    }

    /// The name of a member that it ends with.
    pub fn last_name(&self) -> Option<&str> {
        match &self.segments.last()?.selector {
            Selector::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// Appends a step to the member of this name.
pub(super) fn spell_key(name: &str, path: &mut String) {
    path.push_str("[\"");
    for letter in name.chars() {
        if matches!(letter, '"' | '\\') {
            path.push('\\');
        }
        path.push(letter);
    }
    path.push_str("\"]");
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    nesting: usize,
}

type Parsed<T> = Result<T, PathError>;

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_`~+#%$^/:".contains(&byte) || byte >= 0x80
}

impl Parser<'_> {
    fn rest(&self) -> &[u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn next(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn blank(&mut self) {
        while self.next() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Steps over a word if it comes next.
    fn eat(&mut self, word: &str) -> bool {
        let comes = self.rest().starts_with(word.as_bytes());
        if comes {
            self.at += word.len();
        }
        comes
    }

    /// The same behind blanks.
    fn eat_token(&mut self, word: &str) -> bool {
        self.blank();
        self.eat(word)
    }

    fn expected<T>(&self, expected: &'static str) -> Parsed<T> {
        Err(PathError { position: self.at, expected })
    }

    fn need(&mut self, word: &'static str) -> Parsed<()> {
        if self.eat_token(word) { Ok(()) } else { self.expected(word) }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == NESTING_MAX {
            return self.expected("less nesting");
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// The steps of a path, as far as they go. In a filter the first may lack its dot.
    fn segments(&mut self, in_filter: bool) -> Parsed<Vec<Segment>> {
        let mut segments = Vec::new();
        if in_filter && self.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
            let selector = self.name()?;
            segments.push(Segment { descends: false, selector });
        }
        loop {
            if !in_filter {
                self.blank();
            }
            let descends = self.eat("..");
            let dotted = descends || self.eat(".");
            let selector = if self.eat("[") {
                self.deeper(Parser::bracket)?
            } else if dotted && self.eat("*") {
                Selector::All
            } else if dotted {
                self.name()?
            } else {
                return Ok(segments);
            };
            segments.push(Segment { descends, selector });
        }
    }

    fn name(&mut self) -> Parsed<Selector> {
        let len = self.rest().iter().take_while(|&&byte| is_name(byte)).count();
        if len == 0 {
            return self.expected("a name, '*', '['");
        }
        let name = self.text[self.at..self.at + len].to_owned();
        self.at += len;
        Ok(Selector::Name(name))
    }

    /// What stands in brackets, behind the first of them.
    fn bracket(&mut self) -> Parsed<Selector> {
        self.blank();
        let selector = match self.next() {
            Some(b'*') => {
                self.at += 1;
                Selector::All
            }
            Some(b'?') => {
                self.at += 1;
                Selector::Filter(self.filter()?)
            }
            Some(b'"' | b'\'') => {
                let mut names = vec![self.quoted()?];
                while self.eat_token(",") {
                    self.blank();
                    names.push(self.quoted()?);
                }
                match names.len() {
                    1 => Selector::Name(names.remove(0)),
                    _ => Selector::Names(names),
                }
            }
            Some(b'-' | b'0'..=b'9' | b':') => self.numbers()?,
            _ => return self.expected("a number, a string, '*', ':', '?'"),
        };
        self.need("]")?;
        Ok(selector)
    }

    fn numbers(&mut self) -> Parsed<Selector> {
        let first = if self.next() == Some(b':') { None } else { Some(self.integer()?) };
        if self.eat_token(":") {
            self.blank();
            let end = match self.next() {
                Some(b'-' | b'0'..=b'9') => Some(self.integer()?),
                _ => None,
            };
            let mut step = 1;
            if self.eat_token(":") {
                self.blank();
                if let Some(b'0'..=b'9') = self.next() {
                    step = self.integer()?;
                    if step == 0 {
                        return self.expected("a positive number");
                    }
                }
            }
            return Ok(Selector::Slice { start: first, end, step: step as usize });
        }
        let mut indexes = vec![first.unwrap_or(0)];
        while self.eat_token(",") {
            self.blank();
            indexes.push(self.integer()?);
        }
        Ok(match indexes[..] {
            [index] => Selector::Index(index),
            _ => Selector::Indexes(indexes),
        })
    }

    /// What is too large is as large as can be: no element is there.
    fn integer(&mut self) -> Parsed<i64> {
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || (digits > 1 && rest[sign] == b'0') {
            return self.expected("a number");
        }
        let text = &self.text[self.at..self.at + sign + digits];
        let beyond = if sign == 1 { i64::MIN } else { i64::MAX };
        let value = text.parse().unwrap_or(beyond);
        self.at += text.len();
        Ok(value)
    }

    fn quoted(&mut self) -> Parsed<String> {
        let Some(quote @ (b'"' | b'\'')) = self.next() else { return self.expected("a string") };
        let mut text = String::new();
        let mut letters = self.text[self.at + 1..].char_indices();
        let start = self.at + 1;
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some((_, escaped)) if escaped == '\\' || escaped == char::from(quote) => {
                        text.push(escaped);
                    }
                    _ => {
                        self.at = start + at;
                        return self.expected("an escaped quote or backslash");
                    }
                },
                _ if letter == char::from(quote) => {
                    self.at = start + at + 1;
                    return Ok(text);
                }
                _ => text.push(letter),
            }
        }
        self.at = self.text.len();
        self.expected("the end of the string")
    }

    fn filter(&mut self) -> Parsed<Filter> {
        let mut any = vec![self.all_of()?];
        while self.eat_token("||") {
            any.push(self.all_of()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Filter::Or(any) })
    }

    fn all_of(&mut self) -> Parsed<Filter> {
        let mut all = vec![self.condition()?];
        while self.eat_token("&&") {
            all.push(self.condition()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Filter::And(all) })
    }

    fn condition(&mut self) -> Parsed<Filter> {
        if self.eat_token("!") {
            return Ok(Filter::Not(Box::new(self.deeper(Parser::condition)?)));
        }
        if self.eat_token("(") {
            let filter = self.deeper(Parser::filter)?;
            self.need(")")?;
            return Ok(filter);
        }
        let left = self.term()?;
        Ok(match self.comparison() {
            Some(comparison) => Filter::Compare(comparison, left, self.term()?),
            None => Filter::Exists(left),
        })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        const WORDS: [(&str, Comparison); 9] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
            ("=~", Comparison::Matches),
            ("in ", Comparison::In),
            ("nin ", Comparison::NotIn),
        ];
        self.blank();
        WORDS.into_iter().find(|(word, _)| self.eat(word)).map(|(_, comparison)| comparison)
    }

    fn term(&mut self) -> Parsed<Term> {
        self.blank();
        match self.next() {
            Some(root @ (b'$' | b'@')) => {
                self.at += 1;
                let segments = self.segments(true)?;
                Ok(Term::Path { from_root: root == b'$', segments })
            }
            Some(b'"' | b'\'') => Ok(Term::Literal(Node::text(&self.quoted()?))),
            _ => self.literal(),
        }
    }

    /// A number, a word, an array or an object, as JSON has them.
    fn literal(&mut self) -> Parsed<Term> {
        let rest = &self.text[self.at..];
        let (node, len) = if rest.starts_with(['[', '{']) {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter();
            let node = values.next().and_then(Result::ok);
            (node, values.byte_offset())
        } else {
            let is_part = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
            let len = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
            (Node::parse(&rest[..len]).ok(), len)
        };
        let Some(node) = node else { return self.expected("'@', '$', a value") };
        self.at += len;
        Ok(Term::Literal(node))
    }
}

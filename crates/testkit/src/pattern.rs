//! What a talk file expects: a value, or a marker where the value may vary.
//!
//! `parse` reads the text of an expectation, `Pattern::check` compares it with a reply. The
//! notation is described in `tests/talk/README.md`.

use std::collections::HashMap;

use regex::Regex;

use crate::value::{Value, unescape};

/// Values remembered by `(save name)` for later steps of the same section.
pub type Saved = HashMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
pub enum Pattern {
    Exact(Value),
    Array(Vec<Pattern>),
    Set(Vec<Pattern>),
    Push(Vec<Pattern>),
    Map(Vec<(Pattern, Pattern)>),
    /// The same elements in any order.
    AnyOrder(Box<Pattern>),
    /// A flat array of pairs, the pairs in any order.
    AnyOrderPairs(Vec<Pattern>),
    Any,
    AnyBulk,
    Integer {
        low: i64,
        high: i64,
    },
    /// A number written as a bulk or a double, within bounds.
    Number {
        low: f64,
        high: f64,
    },
    Text {
        kind: TextKind,
        regex: Regex,
    },
    OneOf(Vec<Pattern>),
    /// `count` elements out of a list, each at most once if `distinct`.
    Draw {
        count: usize,
        distinct: bool,
        from: Vec<Pattern>,
    },
    /// An array, set or push of this many elements.
    Length(usize),
    /// One element or more, and each fits.
    Every(Box<Pattern>),
    Save(String),
    Saved(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    Bulk,
    Status,
    Error,
}

/// What a replay is allowed to answer differently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leniency {
    /// All nulls are the same (a script turns a null array into a null bulk).
    pub nulls: bool,
    /// Errors may end in ` script: …`, as those raised in a script do.
    pub script_errors: bool,
}

impl Pattern {
    pub fn check(&self, value: &Value, saved: &mut Saved, lenient: Leniency) -> bool {
        match self {
            Pattern::Exact(expected) => equal(expected, value, lenient),
            Pattern::Array(items) => {
                matches!(value, Value::Array(_)) && in_order(items, value, saved, lenient)
            }
            Pattern::Set(items) => {
                matches!(value, Value::Set(_)) && in_order(items, value, saved, lenient)
            }
            Pattern::Push(items) => {
                matches!(value, Value::Push(_)) && in_order(items, value, saved, lenient)
            }
            Pattern::Map(pairs) => match value {
                Value::Map(actual) => {
                    pairs.len() == actual.len()
                        && pairs.iter().zip(actual).all(|(pair, (key, value))| {
                            pair.0.check(key, saved, lenient) && pair.1.check(value, saved, lenient)
                        })
                }
                _ => false,
            },
            Pattern::AnyOrder(inner) => any_order(inner, value, saved, lenient),
            Pattern::AnyOrderPairs(items) => match value {
                Value::Array(actual) if actual.len() == items.len() => {
                    let mut rest: Vec<&[Value]> = actual.chunks(2).collect();
                    items.chunks(2).all(|pair| {
                        take(&mut rest, |found| {
                            found.len() == pair.len()
                                && pair
                                    .iter()
                                    .zip(found.iter())
                                    .all(|(pattern, value)| pattern.check(value, saved, lenient))
                        })
                    })
                }
                _ => false,
            },
            Pattern::Any => true,
            Pattern::AnyBulk => matches!(value, Value::Bulk(_)),
            Pattern::Integer { low, high } => {
                matches!(value, Value::Integer(number) if (*low..=*high).contains(number))
            }
            Pattern::Number { low, high } => {
                let digits = match value {
                    Value::Double(digits) => Some(digits.clone()),
                    Value::Bulk(_) => value.text(),
                    _ => None,
                };
                digits
                    .and_then(|digits| digits.parse::<f64>().ok())
                    .is_some_and(|number| number >= *low && number <= *high)
            }
            Pattern::Text { kind, regex } => {
                let same_kind = match value {
                    Value::Bulk(_) | Value::Verbatim(_) => *kind == TextKind::Bulk,
                    Value::Status(_) => *kind == TextKind::Status,
                    Value::Error(_) => *kind == TextKind::Error,
                    _ => false,
                };
                same_kind && value.text().is_some_and(|text| regex.is_match(&text))
            }
            Pattern::OneOf(choices) => {
                choices.iter().any(|choice| choice.check(value, saved, lenient))
            }
            Pattern::Draw { count, distinct, from } => {
                let Some(items) = value.elements() else { return false };
                let mut rest: Vec<&Pattern> = from.iter().collect();
                items.len() == *count
                    && items.iter().all(|item| {
                        if *distinct {
                            take(&mut rest, |pattern| pattern.check(item, saved, lenient))
                        } else {
                            from.iter().any(|pattern| pattern.check(item, saved, lenient))
                        }
                    })
            }
            Pattern::Length(count) => match value {
                Value::Map(pairs) => pairs.len() == *count,
                _ => value.elements().is_some_and(|items| items.len() == *count),
            },
            Pattern::Every(inner) => value.elements().is_some_and(|items| {
                !items.is_empty() && items.iter().all(|item| inner.check(item, saved, lenient))
            }),
            Pattern::Save(name) => {
                let bytes = match value {
                    Value::Integer(number) => number.to_string().into_bytes(),
                    _ => match value.bytes() {
                        Some(bytes) => bytes.to_vec(),
                        None => return false,
                    },
                };
                saved.insert(name.clone(), bytes);
                true
            }
            Pattern::Saved(name) => match (saved.get(name), value) {
                (Some(bytes), Value::Integer(number)) => *bytes == number.to_string().into_bytes(),
                (Some(bytes), value) => value.bytes() == Some(bytes),
                (None, _) => false,
            },
        }
    }

    /// True if an integer beyond what a Lua number holds exactly appears.
    pub fn exceeds_lua_integers(&self) -> bool {
        match self {
            Pattern::Exact(Value::Integer(number)) => number.unsigned_abs() > 1 << 53,
            Pattern::Array(items) | Pattern::Set(items) | Pattern::Push(items) => {
                items.iter().any(Pattern::exceeds_lua_integers)
            }
            Pattern::AnyOrder(inner) => inner.exceeds_lua_integers(),
            _ => false,
        }
    }
}

fn in_order(items: &[Pattern], value: &Value, saved: &mut Saved, lenient: Leniency) -> bool {
    value.elements().is_some_and(|actual| {
        actual.len() == items.len()
            && items.iter().zip(actual).all(|(item, value)| item.check(value, saved, lenient))
    })
}

fn any_order(inner: &Pattern, value: &Value, saved: &mut Saved, lenient: Leniency) -> bool {
    match (inner, value) {
        (Pattern::Array(items), Value::Array(actual))
        | (Pattern::Set(items), Value::Set(actual))
        | (Pattern::Push(items), Value::Push(actual)) => {
            let mut rest: Vec<&Value> = actual.iter().collect();
            items.len() == actual.len()
                && items
                    .iter()
                    .all(|item| take(&mut rest, |found| item.check(found, saved, lenient)))
        }
        (Pattern::Map(pairs), Value::Map(actual)) => {
            let mut rest: Vec<&(Value, Value)> = actual.iter().collect();
            pairs.len() == actual.len()
                && pairs.iter().all(|(key, value)| {
                    take(&mut rest, |found| {
                        key.check(&found.0, saved, lenient) && value.check(&found.1, saved, lenient)
                    })
                })
        }
        _ => inner.check(value, saved, lenient),
    }
}

/// Removes the first element that fits and says whether there was one.
fn take<T>(rest: &mut Vec<T>, mut fits: impl FnMut(&T) -> bool) -> bool {
    match rest.iter().position(&mut fits) {
        Some(at) => {
            rest.swap_remove(at);
            true
        }
        None => false,
    }
}

fn equal(expected: &Value, actual: &Value, lenient: Leniency) -> bool {
    let null = |value: &Value| matches!(value, Value::Nil | Value::NilArray | Value::Null);
    if lenient.nulls && null(expected) && null(actual) {
        return true;
    }
    if let (true, Value::Error(expected), Value::Error(actual)) =
        (lenient.script_errors, expected, actual)
    {
        let expected = String::from_utf8_lossy(expected);
        let actual = String::from_utf8_lossy(actual);
        let cause = actual.split(" script: ").next().unwrap_or_default();
        return cause == expected
            || (expected.starts_with("ERR wrong number of arguments")
                && cause == "ERR Wrong number of args calling Redis command from script")
            || (expected.starts_with("ERR unknown")
                && cause == "ERR Unknown Redis command called from script");
    }
    expected == actual
}

/// Reads all expected values of a step.
pub fn parse(text: &str) -> Result<Vec<Pattern>, String> {
    let mut parser = Parser { text, at: 0 };
    let mut patterns = Vec::new();
    parser.skip_space();
    while parser.at < text.len() {
        patterns.push(parser.pattern()?);
        parser.skip_space();
    }
    Ok(patterns)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        self.skip_space();
        if self.eat(token) {
            return Ok(());
        }
        Err(format!("expected {token:?} at {:?}", self.rest().chars().take(30).collect::<String>()))
    }

    /// The rest of the line if nothing but spaces stands before, else up to a space or bracket.
    fn phrase(&mut self) -> &'a str {
        let before = &self.text[..self.at];
        let first = before.rsplit('\n').next().unwrap_or_default().trim().len() <= 1;
        let rest = self.rest();
        let end = if first {
            rest.find('\n')
        } else {
            rest.find(|c: char| c.is_whitespace() || "]})=".contains(c))
        };
        let phrase = &rest[..end.unwrap_or(rest.len())];
        self.at += phrase.len();
        if first { phrase.trim_end() } else { phrase }
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "()[]{}=".contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn quoted(&mut self) -> Result<Vec<u8>, String> {
        self.expect("\"")?;
        let rest = self.rest();
        let mut escaped = false;
        for (offset, character) in rest.char_indices() {
            match character {
                '"' if !escaped => {
                    self.at += offset + 1;
                    return Ok(unescape(&rest[..offset]));
                }
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        Err("unclosed quote".to_owned())
    }

    fn list(&mut self, close: &str) -> Result<Vec<Pattern>, String> {
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.eat(close) {
                return Ok(items);
            }
            if self.rest().is_empty() {
                return Err(format!("missing {close:?}"));
            }
            items.push(self.pattern()?);
        }
    }

    fn pattern(&mut self) -> Result<Pattern, String> {
        self.skip_space();
        if self.eat("any-order-pairs") {
            self.expect("[")?;
            return Ok(Pattern::AnyOrderPairs(self.list("]")?));
        }
        if self.eat("any-order") {
            return Ok(Pattern::AnyOrder(Box::new(self.pattern()?)));
        }
        if self.eat("set[") {
            return Ok(Pattern::Set(self.list("]")?));
        }
        if self.eat("push[") {
            return Ok(Pattern::Push(self.list("]")?));
        }
        if self.eat("[") {
            return Ok(Pattern::Array(self.list("]")?));
        }
        if self.eat("{") {
            let mut pairs = Vec::new();
            loop {
                self.skip_space();
                if self.eat("}") {
                    return Ok(Pattern::Map(pairs));
                }
                let key = self.pattern()?;
                self.expect("=>")?;
                pairs.push((key, self.pattern()?));
            }
        }
        if self.eat("(") {
            return self.marker();
        }
        if self.eat("=") {
            return Ok(Pattern::Exact(Value::Verbatim(self.quoted()?)));
        }
        if self.eat("#") {
            let word = self.word();
            return match word {
                "t" | "f" => Ok(Pattern::Exact(Value::Boolean(word == "t"))),
                _ => Err(format!("unknown boolean #{word}")),
            };
        }
        if self.eat(":") {
            let digits = self.phrase();
            let number = digits.parse().map_err(|_| format!("not an integer: {digits}"))?;
            return Ok(Pattern::Exact(Value::Integer(number)));
        }
        if self.eat(",") {
            return Ok(Pattern::Exact(Value::Double(self.phrase().to_owned())));
        }
        if self.eat("+") {
            return text(self.phrase(), TextKind::Status);
        }
        if self.eat("-") {
            return text(self.phrase(), TextKind::Error);
        }
        if self.rest().starts_with('/') {
            self.at += 1;
            let rest = self.rest();
            let end = rest.find('/').ok_or("unclosed regular expression")?;
            self.at += end + 1;
            return regex(&rest[..end], TextKind::Bulk);
        }
        if self.rest().starts_with('"') {
            return Ok(Pattern::Exact(Value::Bulk(self.quoted()?)));
        }
        Err(format!("cannot read {:?}", self.rest().chars().take(40).collect::<String>()))
    }

    fn marker(&mut self) -> Result<Pattern, String> {
        let name = self.word();
        let pattern = match name {
            "nil" => Pattern::Exact(Value::Nil),
            "nil-array" => Pattern::Exact(Value::NilArray),
            "null" => Pattern::Exact(Value::Null),
            "any" => Pattern::Any,
            "bulk" => Pattern::AnyBulk,
            "big" => Pattern::Exact(Value::BigNumber(self.word().to_owned())),
            "int" => {
                let (low, high) = range(self.word(), i64::MIN, i64::MAX)?;
                Pattern::Integer { low, high }
            }
            "number" => {
                let (low, high) = range(self.word(), f64::NEG_INFINITY, f64::INFINITY)?;
                Pattern::Number { low, high }
            }
            "array" => Pattern::Length(self.count()?),
            "every" => Pattern::Every(Box::new(self.pattern()?)),
            "save" => Pattern::Save(self.word().to_owned()),
            "saved" => Pattern::Saved(self.word().to_owned()),
            "repeat" => {
                let count = self.count()?;
                self.skip_space();
                let text =
                    if self.rest().starts_with('"') { self.quoted()? } else { self.word().into() };
                Pattern::Exact(Value::Bulk(text.repeat(count)))
            }
            "oneof" => {
                let choices = self.list(")")?;
                return Ok(Pattern::OneOf(choices));
            }
            "draw" | "distinct" => {
                let count = self.count()?;
                self.expect("of")?;
                self.expect("[")?;
                Pattern::Draw { count, distinct: name == "distinct", from: self.list("]")? }
            }
            _ => return Err(format!("unknown marker ({name}")),
        };
        self.expect(")")?;
        Ok(pattern)
    }

    fn count(&mut self) -> Result<usize, String> {
        let word = self.word();
        word.parse().map_err(|_| format!("not a count: {word:?}"))
    }
}

fn text(phrase: &str, kind: TextKind) -> Result<Pattern, String> {
    if let Some(inner) = phrase.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
        return regex(inner, kind);
    }
    let bytes = unescape(phrase);
    Ok(Pattern::Exact(match kind {
        TextKind::Error => Value::Error(bytes),
        _ => Value::Status(bytes),
    }))
}

fn regex(source: &str, kind: TextKind) -> Result<Pattern, String> {
    // Anchored, so that a marker never passes because a part of the text happened to fit.
    let regex = Regex::new(&format!("^(?s:{source})$")).map_err(|error| error.to_string())?;
    Ok(Pattern::Text { kind, regex })
}

fn range<T: std::str::FromStr + Copy>(text: &str, low: T, high: T) -> Result<(T, T), String> {
    if text.is_empty() {
        return Ok((low, high));
    }
    let broken = || format!("not a range: {text}");
    let (from, to) = text.split_once("..").ok_or_else(broken)?;
    let bound = |text: &str, open: T| {
        if text.is_empty() { Ok(open) } else { text.parse().map_err(|_| broken()) }
    };
    Ok((bound(from, low)?, bound(to, high)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, value: &Value) -> bool {
        let patterns = parse(expected).unwrap();
        assert_eq!(patterns.len(), 1, "{expected}");
        patterns[0].check(value, &mut Saved::new(), Leniency::default())
    }

    fn bulks(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| Value::bulk(text)).collect())
    }

    #[test]
    fn printed_values_read_back() {
        let long = "x".repeat(120);
        let values = [
            Value::Status(b"OK".to_vec()),
            Value::Error(b"ERR it \"said\" [so]".to_vec()),
            Value::Integer(-5),
            Value::Bulk(b"a \"b\" \\ \x00\xff\n".to_vec()),
            Value::Nil,
            Value::NilArray,
            Value::Null,
            Value::Double("1.5".to_owned()),
            Value::Boolean(true),
            Value::BigNumber("123".to_owned()),
            Value::Verbatim(b"txt:hi".to_vec()),
            Value::Array(vec![]),
            Value::Array(vec![
                Value::Error(b"ERR in array".to_vec()),
                Value::Status(b"OK".to_vec()),
                Value::Map(vec![(Value::bulk("k"), Value::Array(vec![Value::bulk(&long)]))]),
            ]),
            Value::Set(vec![Value::Integer(1), Value::Double("inf".to_owned())]),
            Value::Push(vec![Value::Boolean(false), Value::Null]),
            Value::Map(vec![(Value::Status(b"a".to_vec()), Value::Integer(1))]),
        ];
        for value in &values {
            assert!(check(&value.to_talk(), value), "{}", value.to_talk());
        }
        let all: Vec<String> = values.iter().map(Value::to_talk).collect();
        assert_eq!(parse(&all.join("\n")).unwrap().len(), values.len());
    }

    #[test]
    fn markers_accept_and_refuse() {
        assert!(check("any-order [\"a\" \"b\"]", &bulks(&["b", "a"])));
        assert!(!check("any-order [\"a\" \"b\"]", &bulks(&["a", "a"])));
        assert!(check("any-order-pairs [\"a\" \"1\" \"b\" \"2\"]", &bulks(&["b", "2", "a", "1"])));
        assert!(!check("any-order-pairs [\"a\" \"1\" \"b\" \"2\"]", &bulks(&["a", "2", "b", "1"])));
        assert!(check("(int 3..5)", &Value::Integer(5)));
        assert!(!check("(int 3..5)", &Value::Integer(6)));
        assert!(check("(distinct 2 of [\"a\" \"b\" \"c\"])", &bulks(&["c", "a"])));
        assert!(!check("(distinct 2 of [\"a\" \"b\" \"c\"])", &bulks(&["c", "c"])));
        assert!(check("(draw 2 of [\"a\" \"b\"])", &bulks(&["a", "a"])));
        assert!(!check("(draw 2 of [\"a\" \"b\"])", &bulks(&["a", "x"])));
        assert!(check("-/ERR .*/", &Value::Error(b"ERR x".to_vec())));
        assert!(!check("-/ERR/", &Value::Error(b"ERR x".to_vec())));
        assert!(check("/[0-9]+/", &Value::bulk("12")));
        assert!(!check("\"1\"", &Value::Integer(1)));
        assert!(check("(repeat 3 ab)", &Value::bulk("ababab")));
        assert!(check("(oneof :1 :2)", &Value::Integer(2)));
        assert!(check("(every (bulk))", &bulks(&["a", "b"])));
        assert!(!check("(every (bulk))", &bulks(&[])));
        assert!(!check("(every :1)", &bulks(&["a"])));
        assert!(!check("(nil)", &Value::NilArray));
    }
}

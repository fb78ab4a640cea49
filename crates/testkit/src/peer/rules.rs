//! What two servers may answer differently, and what cannot be compared, each with its reason:
//! `tests/peer/differences.txt`.
//!
//! A line is `commands | peers | when | rule | reason`. Commands are names (`object|freq` for a
//! subcommand) or `*` at an end; peers are the beginnings of versions the line is for, or `*`; `when`
//! is a regular expression that the words of the command must fit, or nothing. All rules that are
//! for a command apply to both replies before these are compared.

use regex::Regex;

use crate::value::Value;

#[derive(Debug)]
enum Rule {
    /// Never sent.
    Skip,
    /// Never sent otherwise.
    Only,
    /// Any reply will do.
    Ignore,
    /// Errors, nulls, numbers, texts or lists on both sides.
    Kind,
    /// As many elements.
    Length,
    /// Elements in any order.
    Unordered,
    /// Elements in any order, and theirs, too.
    UnorderedDeep,
    /// Pairs in any order.
    UnorderedPairs,
    /// Texts that are numbers are compared as such.
    Numbers,
    /// The same for those of fifteen digits and more.
    LongNumbers,
    /// -0 is 0.
    Zero,
    /// Milliseconds of our days are not compared.
    Times,
    /// Integers above zero may be this far apart.
    Near(u64),
    /// Both are errors of the same code, in whatever words.
    ErrorText,
    /// Fields of maps that do not count.
    Without(Vec<String>),
    /// This element of inner lists does not count.
    WithoutColumn(usize),
    /// What we answer and what the peer may answer then.
    Replies(Regex, Regex),
}

#[derive(Debug)]
struct Line {
    commands: Vec<String>,
    peers: Vec<String>,
    when: Option<Regex>,
    rule: Rule,
}

impl Line {
    fn is_for(&self, name: &str, text: &str) -> bool {
        let fits = |pattern: &String| match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
            (Some(start), _) => name.starts_with(start),
            (None, Some(end)) => name.ends_with(end),
            (None, None) => name == pattern,
        };
        let when = || match &self.when {
            Some(when) => when.is_match(text) != matches!(self.rule, Rule::Only),
            None => true,
        };
        self.commands.iter().any(fits) && when()
    }
}

/// The lines that concern one peer.
#[derive(Debug)]
pub struct Rules {
    lines: Vec<Line>,
}

/// Lua tables have no order: what was a map or a set comes out of scripts in any.
pub fn sort_tables(value: &mut Value) {
    match value {
        Value::Map(pairs) => {
            pairs.iter_mut().for_each(|(_, value)| sort_tables(value));
            pairs.sort_by_cached_key(|(key, _)| key.to_talk());
        }
        Value::Set(items) => items.sort_by_cached_key(Value::to_talk),
        Value::Array(items) => items.iter_mut().for_each(sort_tables),
        _ => {}
    }
}

/// The words of a command in one line, as `when` sees it.
pub fn words(args: &[Vec<u8>]) -> String {
    let words: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
    words.join(" ").to_ascii_lowercase()
}

impl Rules {
    pub fn parse(text: &str, version: &str) -> Result<Rules, String> {
        let mut lines = Vec::new();
        for (number, text) in text.lines().enumerate() {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let line = parse_line(text).map_err(|why| format!("line {}: {why}", number + 1))?;
            if line.peers.iter().any(|peer| peer == "*" || version.starts_with(peer)) {
                lines.push(line);
            }
        }
        Ok(Rules { lines })
    }

    fn of<'a>(&'a self, name: &'a str, text: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.lines.iter().filter(move |line| line.is_for(name, text)).map(|line| &line.rule)
    }

    /// Whether a command is never sent, whatever its arguments.
    pub fn skip_all(&self, name: &str) -> bool {
        let skips = |line: &&Line| line.when.is_none() && matches!(line.rule, Rule::Skip);
        self.lines.iter().filter(skips).any(|line| line.is_for(name, ""))
    }

    pub fn skip(&self, name: &str, args: &[Vec<u8>]) -> bool {
        self.of(name, &words(args)).any(|rule| matches!(rule, Rule::Skip | Rule::Only))
    }

    /// Whether both replies to a command may be what they are.
    pub fn alike(&self, name: &str, args: &[Vec<u8>], ours: &Value, theirs: &Value) -> bool {
        if ours == theirs {
            return true;
        }
        let text = words(args);
        let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
        for rule in self.of(name, &text) {
            match rule {
                Rule::Skip | Rule::Only => {}
                Rule::Ignore => return true,
                Rule::Kind if kind(&ours) == kind(&theirs) => return true,
                Rule::Length if length(&ours).is_some() && length(&ours) == length(&theirs) => {
                    return true;
                }
                Rule::ErrorText if code(&ours).is_some() && code(&ours) == code(&theirs) => {
                    return true;
                }
                Rule::Near(distance) => match (&ours, &theirs) {
                    (Value::Integer(ours), Value::Integer(theirs))
                        if *ours >= 0 && *theirs >= 0 && ours.abs_diff(*theirs) <= *distance =>
                    {
                        return true;
                    }
                    _ => {}
                },
                Rule::Replies(our, their)
                    if our.is_match(&ours.to_talk()) && their.is_match(&theirs.to_talk()) =>
                {
                    return true;
                }
                Rule::Kind | Rule::Length | Rule::ErrorText | Rule::Replies(..) => {}
                normal => {
                    normalize(normal, &mut ours);
                    normalize(normal, &mut theirs);
                }
            }
        }
        ours == theirs
    }
}

fn normalize(rule: &Rule, value: &mut Value) {
    match rule {
        Rule::Unordered => match value {
            Value::Array(items) | Value::Set(items) => {
                // A cursor and what it found.
                if let [Value::Bulk(_), Value::Array(found)] = &mut items[..] {
                    found.sort_by_cached_key(Value::to_talk);
                } else {
                    items.sort_by_cached_key(Value::to_talk);
                }
            }
            _ => {}
        },
        Rule::UnorderedDeep => sort_all(value),
        Rule::UnorderedPairs => match value {
            Value::Map(pairs) => pairs.sort_by_cached_key(|(key, _)| key.to_talk()),
            Value::Array(items) => {
                let list = match &mut items[..] {
                    [Value::Bulk(_), Value::Array(found)] => found,
                    _ => items,
                };
                let mut pairs: Vec<Vec<Value>> = list.chunks(2).map(<[Value]>::to_vec).collect();
                pairs.sort_by_cached_key(|pair| pair[0].to_talk());
                *list = pairs.concat();
            }
            _ => {}
        },
        Rule::Numbers => numbers(value, 0),
        Rule::LongNumbers => numbers(value, 15),
        Rule::Times => times(value),
        Rule::Zero => zero(value),
        Rule::Without(names) => without(names, value),
        Rule::WithoutColumn(column) => {
            if let Value::Array(rows) = value {
                for row in rows {
                    match row {
                        Value::Array(cells) if cells.len() > *column => drop(cells.remove(*column)),
                        _ => {}
                    }
                }
            }
        }
        _ => {}
    }
}

fn sort_all(value: &mut Value) {
    match value {
        Value::Array(items) | Value::Set(items) => {
            items.iter_mut().for_each(sort_all);
            items.sort_by_cached_key(Value::to_talk);
        }
        Value::Map(pairs) => {
            pairs.iter_mut().for_each(|(_, value)| sort_all(value));
            pairs.sort_by_cached_key(|(key, _)| key.to_talk());
        }
        _ => {}
    }
}

/// Writes numbers of so many digits in one way.
fn numbers(value: &mut Value, digits_min: usize) {
    let number = |text: &str| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        text.parse::<f64>().ok().filter(|_| digits >= digits_min)
    };
    match value {
        Value::Bulk(bytes) => {
            if let Some(number) = std::str::from_utf8(bytes).ok().and_then(number) {
                *bytes = number.to_string().into_bytes();
            }
        }
        Value::Double(digits) => {
            if let Some(number) = number(digits) {
                *digits = number.to_string();
            }
        }
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            items.iter_mut().for_each(|item| numbers(item, digits_min));
        }
        Value::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            numbers(key, digits_min);
            numbers(value, digits_min);
        }),
        _ => {}
    }
}

fn zero(value: &mut Value) {
    match value {
        Value::Bulk(text) if text == b"-0" => *text = b"0".to_vec(),
        Value::Double(text) if text == "-0" => "0".clone_into(text),
        Value::Array(items) | Value::Set(items) => items.iter_mut().for_each(zero),
        _ => {}
    }
}

fn times(value: &mut Value) {
    match value {
        Value::Integer(number @ 1_000_000_000_000..10_000_000_000_000) => *number = 0,
        Value::Array(items) => items.iter_mut().for_each(times),
        Value::Map(pairs) => pairs.iter_mut().for_each(|(_, value)| times(value)),
        _ => {}
    }
}

fn without(names: &[String], value: &mut Value) {
    let is_named = |key: &Value| key.text().is_some_and(|text| names.contains(&text));
    match value {
        Value::Array(items) => {
            let mut at = 0;
            while at < items.len() {
                if at % 2 == 0 && at + 1 < items.len() && is_named(&items[at]) {
                    items.drain(at..at + 2);
                } else {
                    without(names, &mut items[at]);
                    at += 1;
                }
            }
        }
        Value::Map(pairs) => {
            pairs.retain(|(key, _)| !is_named(key));
            pairs.iter_mut().for_each(|(_, value)| without(names, value));
        }
        _ => {}
    }
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Error(_) => 0,
        Value::Nil | Value::NilArray | Value::Null => 1,
        Value::Integer(_) | Value::Boolean(_) => 2,
        Value::Array(_) | Value::Set(_) | Value::Push(_) | Value::Map(_) => 3,
        _ => 4,
    }
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::Map(pairs) => Some(pairs.len()),
        Value::Bulk(_) => Some(1),
        other => other.elements().map(<[Value]>::len),
    }
}

/// The first word of an error.
fn code(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Error(text) => text.split(|byte| *byte == b' ').next(),
        _ => None,
    }
}

fn parse_line(text: &str) -> Result<Line, String> {
    let columns: Vec<&str> = text.split(" | ").map(str::trim).collect();
    let [commands, peers, when, rule, reason] = columns[..] else {
        return Err("not five columns".to_owned());
    };
    if reason.is_empty() {
        return Err("no reason".to_owned());
    }
    let regex = |text: &str| Regex::new(text).map_err(|error| error.to_string());
    let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (name, value) = rule.split_once(' ').unwrap_or((rule, ""));
    let rule = match name {
        "skip" => Rule::Skip,
        "only" => Rule::Only,
        "ignore" => Rule::Ignore,
        "kind" => Rule::Kind,
        "length" => Rule::Length,
        "unordered" => Rule::Unordered,
        "unordered-deep" => Rule::UnorderedDeep,
        "unordered-pairs" => Rule::UnorderedPairs,
        "numbers" => Rule::Numbers,
        "long-numbers" => Rule::LongNumbers,
        "times" => Rule::Times,
        "zero" => Rule::Zero,
        "near" => Rule::Near(value.parse().map_err(|_| "near what?")?),
        "error-text" => Rule::ErrorText,
        "without" => Rule::Without(list(value)),
        "without-column" => Rule::WithoutColumn(value.parse().map_err(|_| "which column?")?),
        "replies" => {
            let (ours, theirs) = value.split_once(" => ").ok_or("replies OURS => THEIRS")?;
            Rule::Replies(regex(ours)?, regex(theirs)?)
        }
        other => return Err(format!("no rule {other}")),
    };
    Ok(Line {
        commands: list(commands),
        peers: list(peers),
        when: (!when.is_empty()).then(|| regex(when)).transpose()?,
        rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
smembers | * |  | unordered | sets have no order
hgetall | * |  | unordered-pairs | nor have hashes
zs* | 7.0 |  | numbers | 7.0 prints 17 digits
mget | * |  | long-numbers | shortest or not
ttl | * |  | near 5 | the clock
*pop | * | count 3$ | skip | chance
scan | * | count 9 | only | chance
xinfo|stream | * |  | without idle seen | the clock
get | * | ^get x$ | replies ^:1$ => ^:2$ | for this test
";

    fn bulks(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::bulk(word)).collect())
    }

    #[track_caller]
    fn check(command: &str, ours: Value, theirs: Value, expected: bool) {
        let rules = Rules::parse(TEXT, "7.0.15").unwrap_or_else(|why| panic!("{why}"));
        let args: Vec<Vec<u8>> = command.split(' ').map(|word| word.into()).collect();
        let name = command.split(' ').next().unwrap_or_default();
        assert_eq!(rules.alike(name, &args, &ours, &theirs), expected, "{command}");
    }

    #[test]
    fn only_what_a_line_says_may_differ() {
        check("smembers x", bulks(&["a", "b"]), bulks(&["b", "a"]), true);
        check("smembers x", bulks(&["a", "b"]), bulks(&["b", "b"]), false);
        check("hgetall x", bulks(&["a", "1", "b", "2"]), bulks(&["b", "2", "a", "1"]), true);
        check("hgetall x", bulks(&["a", "1", "b", "2"]), bulks(&["b", "1", "a", "2"]), false);
        check("zscore x y", Value::bulk("0.1"), Value::bulk("0.10000000000000001"), true);
        check("get y", Value::bulk("0.1"), Value::bulk("0.10000000000000001"), false);
        let digits = |text: &str| bulks(&[text]);
        check("mget x", digits("1342889254212284.8"), digits("1342889254212284.7"), true);
        check("mget x", digits("1342889254212284.8"), digits("1342889254212285.8"), false);
        check("mget x", digits("1.0"), digits("1"), false);
        check("ttl x", Value::Integer(100), Value::Integer(98), true);
        check("ttl x", Value::Integer(100), Value::Integer(90), false);
        check("ttl x", Value::Integer(1), Value::Integer(-1), false);
        check("get x", Value::Integer(1), Value::Integer(2), true);
        check("get x", Value::Integer(2), Value::Integer(1), false);
        let map = |idle: &str| bulks(&["name", "x", "idle", idle]);
        check("xinfo|stream x", map("3"), map("4"), true);
    }

    #[test]
    fn lines_are_for_commands_and_peers() {
        let rules = |version| Rules::parse(TEXT, version).unwrap_or_else(|why| panic!("{why}"));
        let args = |text: &str| text.split(' ').map(|word| word.into()).collect::<Vec<Vec<u8>>>();
        assert!(rules("7.0.1").skip("spop", &args("spop x count 3")));
        assert!(!rules("7.0.1").skip("spop", &args("spop x count 31")));
        assert!(rules("7.0.1").skip("scan", &args("scan 0")));
        assert!(!rules("7.0.1").skip("scan", &args("scan 0 count 9")));
        let digits = (Value::bulk("0.1"), Value::bulk("0.10000000000000001"));
        let args = args("zscore x y");
        assert!(!rules("7.2.4").alike("zscore", &args, &digits.0, &digits.1));
        assert!(Rules::parse("get | * |  | ignore", "7.0").is_err());
        assert!(Rules::parse("get | * |  | nothing | reason", "7.0").is_err());
    }
}

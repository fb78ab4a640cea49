//! SORT and SORT_RO: the elements of a list, set or sorted set in order, by themselves or by what
//! other keys hold.

use std::cmp::Ordering;
use std::ops::Range;

use data::number::{format_i64, parse_i64};
use data::{List, Member};
use engine::{Collection, Entry, Event, Str, Txn, ValueRef};

use crate::call::{Blocking, Call, Handler, Pace, integer, is, unless_stopped};
use crate::error::{Error, Result};
use crate::keys::{Begin, Find, KeySpec, MoreKeys, key_flag as k};
use crate::row::category::{DANGEROUS, LIST, SET, SORTEDSET};
use crate::row::flag::{DENYOOM, MOVABLE_KEYS, READONLY, WRITE};
use crate::row::{Command, Group};

const PATTERNS: KeySpec = KeySpec {
    begin: Begin::Unknown,
    find: Find::Unknown,
    flags: k::RO | k::ACCESS,
    notes: "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive \
            from the content of the key we sort",
};

pub const TABLE: &[Command<Handler>] = &[
    Command::new(Group::Generic, "sort", -2, sort)
        .flags(WRITE | DENYOOM | MOVABLE_KEYS)
        .categories(SET | SORTEDSET | LIST | DANGEROUS)
        .keys(&[
            KeySpec::first(k::RO | k::ACCESS),
            PATTERNS,
            KeySpec {
                flags: k::OW | k::UPDATE,
                notes: "For the optional STORE keyword. It is marked 'unknown' because the \
                        keyword can appear anywhere in the argument array",
                ..PATTERNS
            },
        ])
        .more_keys(of_sort)
        .complexity("O(N+M*log(N)) with N elements of which M are answered")
        .summary("Sorts a list, a set or a sorted set, and answers or stores the result.")
        .syntax(
            "key [BY by-pattern:pattern@1] [LIMIT offset count] \
             [GET get-pattern:pattern@1 [GET get-pattern:pattern@1 ...]] [order:(ASC | DESC)] \
             [sorting:ALPHA] [STORE destination:key@2]",
        ),
    Command::new(Group::Generic, "sort_ro", -2, sort_ro)
        .flags(READONLY | MOVABLE_KEYS)
        .categories(SET | SORTEDSET | LIST | DANGEROUS)
        .keys(&[KeySpec::first(k::RO | k::ACCESS), PATTERNS])
        .more_keys(of_sort_ro)
        .since("7.0.0")
        .complexity("O(N+M*log(N)) with N elements of which M are answered")
        .summary("Sorts a list, a set or a sorted set, and answers the result.")
        .syntax(
            "key [BY by-pattern:pattern@1] [LIMIT offset count] \
             [GET get-pattern:pattern@1 [GET get-pattern:pattern@1 ...]] [order:(ASC | DESC)] \
             [sorting:ALPHA]",
        ),
];

fn of_sort(args: &[&[u8]]) -> MoreKeys {
    more_keys(args, true)
}

fn of_sort_ro(args: &[&[u8]]) -> MoreKeys {
    more_keys(args, false)
}

/// Looks over arguments that may be wrong, too: then it does not matter what it finds.
fn more_keys(args: &[&[u8]], stores: bool) -> MoreKeys {
    let mut more = MoreKeys::default();
    let mut at = 2;
    while at + 1 < args.len() {
        let (word, argument) = (args[at], args[at + 1]);
        let is_pattern = Pattern::parse(argument).is_ok();
        at += match word {
            word if is(word, "LIMIT") => 3,
            word if is(word, "BY") || is(word, "GET") => {
                more.reaches_others |= is_pattern;
                // As in Redis any GET counts, even that of the element itself.
                if more.by.is_none() && (is_pattern || is(word, "GET")) {
                    more.by = Some(at);
                }
                2
            }
            word if is(word, "STORE") && stores => {
                more.named = Some((at + 1, k::OW | k::UPDATE));
                2
            }
            _ => 1,
        };
    }
    more
}

/// Where something is looked up for an element.
#[derive(Clone, Copy)]
enum Pattern<'a> {
    /// The element itself.
    Element,
    /// In a key, and there in a field if one is told. The element comes in between.
    Key { prefix: &'a [u8], postfix: &'a [u8], field: Option<&'a [u8]> },
}

/// It has no place for the element.
struct Constant;

impl<'a> Pattern<'a> {
    fn parse(text: &'a [u8]) -> std::result::Result<Pattern<'a>, Constant> {
        if text == b"#" {
            return Ok(Pattern::Element);
        }
        let star = text.iter().position(|byte| *byte == b'*').ok_or(Constant)?;
        let (prefix, rest) = (&text[..star], &text[star + 1..]);
        let arrow = rest.windows(2).position(|two| two == b"->");
        let (postfix, field) = match arrow {
            // An arrow to nothing belongs to the key.
            Some(at) if at + 2 < rest.len() => (&rest[..at], Some(&rest[at + 2..])),
            _ => (rest, None),
        };
        Ok(Pattern::Key { prefix, postfix, field })
    }

    fn look_up<'t>(
        self,
        txn: &'t Txn<'_>,
        element: Text<'t>,
        name: &mut Vec<u8>,
    ) -> Option<Text<'t>> {
        let Pattern::Key { prefix, postfix, field } = self else { return Some(element) };
        name.clear();
        name.extend_from_slice(prefix);
        element.with(|bytes| name.extend_from_slice(bytes));
        name.extend_from_slice(postfix);
        match (txn.read(name)?.get(), field) {
            (ValueRef::Str(text), None) => Some(Text::from(text)),
            (ValueRef::Hash(hash), Some(field)) => {
                // The keys that are looked up are not those for which fields were let go of.
                let is_over = hash.time_ms(field).is_some_and(|at_ms| at_ms <= txn.now_ms());
                hash.get(field).filter(|_| !is_over).map(Text::Bytes)
            }
            _ => None,
        }
    }
}

/// An element or what was looked up for it.
#[derive(Clone, Copy)]
enum Text<'t> {
    Bytes(&'t [u8]),
    Int(i64),
}

impl<'t> From<Str<'t>> for Text<'t> {
    fn from(text: Str<'t>) -> Text<'t> {
        match text {
            Str::Bytes(bytes) => Text::Bytes(bytes),
            Str::Int(number) => Text::Int(number),
        }
    }
}

impl<'t> From<Member<'t>> for Text<'t> {
    fn from(member: Member<'t>) -> Text<'t> {
        match member {
            Member::Bytes(bytes) => Text::Bytes(bytes),
            Member::Integer(digits) => {
                Text::Int(parse_i64(digits.as_bytes()).expect("digits of an integer"))
            }
        }
    }
}

impl Text<'_> {
    fn with<R>(self, look: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Text::Bytes(bytes) => look(bytes),
            Text::Int(number) => look(format_i64(number).as_bytes()),
        }
    }

    fn compare(self, other: Text<'_>) -> Ordering {
        self.with(|mine| other.with(|theirs| mine.cmp(theirs)))
    }

    /// As C's `strtod` reads it.
    fn number(self) -> Result<f64> {
        let number = match self {
            Text::Int(number) => Some(number as f64),
            // A zero byte ends a text in C.
            Text::Bytes(bytes) => match bytes.split(|byte| *byte == 0).next() {
                None | Some(b"") => Some(0.0),
                Some(bytes) => data::number::parse_f64(bytes.trim_ascii_start()),
            },
        };
        // A zero below zero is no less than one above.
        let number = number.map(|number| number + 0.0);
        number.ok_or(Error::of("ERR One or more scores can't be converted into double"))
    }
}

struct Options<'a> {
    by: Option<Pattern<'a>>,
    /// BY without a place for the element: the order is left as it is.
    keeps_order: bool,
    offset: i64,
    count: i64,
    /// `None`: a pattern that finds nothing.
    gets: Vec<Option<Pattern<'a>>>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], may_store: bool) -> Result<Options<'a>> {
        let mut options = Options {
            by: None,
            keeps_order: false,
            offset: 0,
            count: -1,
            gets: Vec::new(),
            descending: false,
            alpha: false,
            store: None,
        };
        let mut rest = args;
        while let [word, behind @ ..] = rest {
            rest = match behind {
                _ if is(word, "ASC") => {
                    options.descending = false;
                    behind
                }
                _ if is(word, "DESC") => {
                    options.descending = true;
                    behind
                }
                _ if is(word, "ALPHA") => {
                    options.alpha = true;
                    behind
                }
                [offset, count, behind @ ..] if is(word, "LIMIT") => {
                    (options.offset, options.count) = (integer(offset)?, integer(count)?);
                    behind
                }
                [key, behind @ ..] if is(word, "STORE") && may_store => {
                    options.store = Some(key);
                    behind
                }
                [pattern, behind @ ..] if is(word, "BY") => {
                    match Pattern::parse(pattern) {
                        // `#` has no place for the element.
                        Ok(pattern @ Pattern::Key { .. }) => options.by = Some(pattern),
                        _ => options.keeps_order = true,
                    }
                    behind
                }
                [pattern, behind @ ..] if is(word, "GET") => {
                    options.gets.push(Pattern::parse(pattern).ok());
                    behind
                }
                _ => return Err(Error::SYNTAX),
            };
        }
        Ok(options)
    }
}

/// An element with what it is compared by.
struct Item<'t> {
    element: Text<'t>,
    score: f64,
    by: Option<Text<'t>>,
}

fn sort(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let options = Options::parse(&args[2..], true)?;
    sorted(call, args[1], options)
}

fn sort_ro(call: &mut Call<'_, '_>, args: &[&[u8]]) -> Result {
    let options = Options::parse(&args[2..], false)?;
    sorted(call, args[1], options)
}

fn sorted(call: &mut Call<'_, '_>, key: &[u8], mut options: Options<'_>) -> Result {
    let value = call.txn.read(key).map(Entry::get);
    let len = match value {
        None => 0,
        Some(ValueRef::List(list)) => list.len(),
        Some(ValueRef::Set(set)) => set.len(),
        Some(ValueRef::Zset(zset)) => zset.len(),
        Some(_) => return Err(Error::WRONG_TYPE),
    };
    if let Some(ValueRef::Set(_)) = value
        && options.keeps_order
        && (options.store.is_some() || call.blocking == Blocking::Never)
    {
        // What is stored, or seen by a script, must not depend on how a set is laid out.
        (options.keeps_order, options.alpha, options.by) = (false, true, None);
    }
    let start = usize::try_from(options.offset).unwrap_or(0).min(len);
    let count = usize::try_from(options.count).unwrap_or(usize::MAX);
    let part = start..len.min(start.saturating_add(count));
    // In the order they have, only those that are wanted are looked at.
    let wanted = match options.keeps_order {
        true if options.descending => len - part.end..len - part.start,
        true => part.clone(),
        false => 0..len,
    };
    let mut items: Vec<Item<'_>> = Vec::with_capacity(wanted.len());
    let mut pace = Pace::of(call.txn);
    let item = |element| Item { element, score: 0.0, by: None };
    match value {
        Some(ValueRef::List(list)) => {
            let elements = list.range(wanted).take_while(|_| pace.goes_on());
            items.extend(elements.map(|element| item(Text::Bytes(element))));
        }
        Some(ValueRef::Zset(zset)) => {
            let members = zset.range(wanted).take_while(|_| pace.goes_on());
            items.extend(members.map(|(member, _)| item(Text::Bytes(member))));
        }
        Some(ValueRef::Set(set)) => {
            let members = set.iter().skip(wanted.start).take(wanted.len());
            items.extend(members.take_while(|_| pace.goes_on()).map(|one| item(one.into())));
        }
        _ => {}
    }
    unless_stopped(call.txn)?;
    if options.keeps_order {
        if options.descending {
            items.reverse();
        }
    } else {
        weigh(call.txn, &mut items, &options)?;
        order(&mut items, part.clone(), &options);
        items.truncate(part.end);
        items.drain(..part.start);
    }
    unless_stopped(call.txn)?;
    let Some(destination) = options.store else {
        call.reply.array(items.len() * options.gets.len().max(1));
        return results(call.txn, &items, &options.gets, |found| match found {
            Some(text) => text.with(|bytes| call.reply.bulk(bytes)),
            None => call.reply.null(),
        });
    };
    let (mut list, limits) = (List::new(), call.txn.limits());
    results(call.txn, &items, &options.gets, |found| match found {
        Some(text) => text.with(|bytes| list.push_back(bytes, limits)),
        None => list.push_back(b"", limits),
    })?;
    call.reply.integer(list.len() as i64);
    match list.is_empty() {
        true => _ = call.txn.remove(destination),
        false => {
            call.txn.tell_as(Event::list("sortstore"));
            call.txn.put(destination, Collection::List(list), None);
        }
    }
    Ok(())
}

/// What is answered for each element: itself, or what was asked for.
fn results<'t>(
    txn: &'t Txn<'_>,
    items: &[Item<'t>],
    gets: &[Option<Pattern<'_>>],
    mut take: impl FnMut(Option<Text<'t>>),
) -> Result {
    let mut pace = Pace::of(txn);
    let mut name = Vec::new();
    for item in items {
        if gets.is_empty() {
            take(Some(item.element));
        }
        for get in gets {
            if !pace.goes_on() {
                return Err(Error::STOPPED);
            }
            take(get.and_then(|pattern| pattern.look_up(txn, item.element, &mut name)));
        }
    }
    Ok(())
}

/// Looks up what each element is compared by.
fn weigh<'t>(txn: &'t Txn<'_>, items: &mut [Item<'t>], options: &Options<'_>) -> Result {
    let mut pace = Pace::of(txn);
    let mut name = Vec::new();
    for item in items {
        if !pace.goes_on() {
            return Err(Error::STOPPED);
        }
        let by = match options.by {
            Some(pattern) => pattern.look_up(txn, item.element, &mut name),
            None => Some(item.element),
        };
        match by {
            Some(_) if options.alpha => item.by = by,
            Some(by) => item.score = by.number()?,
            None => {}
        }
    }
    Ok(())
}

/// Brings the items of a part to their places; the others are anywhere else.
fn order(items: &mut [Item<'_>], part: Range<usize>, options: &Options<'_>) {
    let compare = |one: &Item<'_>, other: &Item<'_>| {
        let ordering = match options.alpha {
            true => match (one.by, other.by) {
                (Some(one), Some(other)) => one.compare(other),
                (one, other) => one.is_some().cmp(&other.is_some()),
            },
            // Equal scores leave no chance either.
            false => {
                one.score.total_cmp(&other.score).then_with(|| one.element.compare(other.element))
            }
        };
        if options.descending { ordering.reverse() } else { ordering }
    };
    if part.is_empty() {
        return;
    }
    let mut items = items;
    let mut part = part;
    if part.end < items.len() {
        items.select_nth_unstable_by(part.end, compare);
        items = &mut items[..part.end];
    }
    if part.start > 0 {
        items.select_nth_unstable_by(part.start, compare);
        items = &mut items[part.start..];
        part = 0..part.len();
    }
    items[part].sort_by(compare);
}

//! Where a path leads in a document.
//!
//! A node is found once, however many ways lead there, so that what is found is never more than the
//! document. What filters look at is counted, as filters in filters multiply.

use std::cmp::Ordering;
use std::ops::Range;

use ahash::AHashSet;
use regex::{Regex, RegexBuilder};

use super::path::{Comparison, Filter, Path, Segment, Selector, Term};
use super::{Json, Node, Place};

/// Nodes and bytes that the filters of a path may look at.
const LOOKS_MAX: u64 = 20_000_000;
/// Memory a compiled pattern may take, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// What compiling a pattern counts for.
const PATTERN_LOOKS: u64 = 10_000;

/// Nodes that paths may walk over beside one whole walk through the document.
const WALK_MAX: u64 = 50_000_000;

/// A path, or the filters in it, look at too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// What the paths of a request may walk over, together.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
    /// The walk through the whole document was added. Documents are counted only when it is needed.
    has_whole: bool,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: WALK_MAX, has_whole: false }
    }
}

impl Budget {
    /// Another document follows, of which a whole walk is free, too.
    pub fn renew(&mut self) {
        self.has_whole = false;
    }

    fn spend(&mut self, count: usize, root: &Node) -> Result<(), TooMuch> {
        let count = count as u64;
        if count > self.left && !std::mem::replace(&mut self.has_whole, true) {
            self.left += root.weight(usize::MAX) as u64;
        }
        self.left = self.left.checked_sub(count).ok_or(TooMuch)?;
        Ok(())
    }
}

impl Path {
    /// The nodes it leads to, in the order of the document.
    pub fn select<'d>(&self, json: &'d Json) -> Result<Vec<&'d Node>, TooMuch> {
        self.select_within(json, &mut Budget::default())
    }

    /// The same with a budget that several paths share.
    pub fn select_within<'d>(
        &self,
        json: &'d Json,
        budget: &mut Budget,
    ) -> Result<Vec<&'d Node>, TooMuch> {
        let found = Search::new(json.root(), budget).follow(&self.segments, json.root(), ())?;
        Ok(found.into_iter().map(|(node, ())| node).collect())
    }

    /// The places of these nodes.
    pub fn locate(&self, json: &Json) -> Result<Vec<Place>, TooMuch> {
        locate(&self.segments, json)
    }

    /// The places that all of it but the last step leads to.
    pub fn locate_parents(&self, json: &Json) -> Result<Vec<Place>, TooMuch> {
        locate(&self.segments[..self.segments.len().saturating_sub(1)], json)
    }
}

fn locate(segments: &[Segment], json: &Json) -> Result<Vec<Place>, TooMuch> {
    let mut budget = Budget::default();
    let mut search = Search::new(json.root(), &mut budget);
    let found = search.follow(segments, json.root(), Place::new())?;
    Ok(found.into_iter().map(|(_, place)| place).collect())
}

/// What is kept of the way to a node.
trait Way: Clone {
    fn step(&self, number: usize) -> Self;
}

impl Way for () {
    fn step(&self, _: usize) {}
}

impl Way for Place {
    fn step(&self, number: usize) -> Place {
        let mut place = self.clone();
        place.push(number);
        place
    }
}

type Found<'d, W> = Vec<(&'d Node, W)>;

struct Search<'d, 'b> {
    root: &'d Node,
    budget: &'b mut Budget,
    looks: u64,
    /// The last pattern; `None` behind it if it is none.
    pattern: Option<(String, Option<Regex>)>,
}

impl<'d, 'b> Search<'d, 'b> {
    fn new(root: &'d Node, budget: &'b mut Budget) -> Search<'d, 'b> {
        Search { root, budget, looks: 0, pattern: None }
    }

    fn look(&mut self, count: u64) -> Result<(), TooMuch> {
        self.looks += count;
        if self.looks > LOOKS_MAX { Err(TooMuch) } else { Ok(()) }
    }

    fn follow<W: Way>(
        &mut self,
        segments: &[Segment],
        from: &'d Node,
        way: W,
    ) -> Result<Found<'d, W>, TooMuch> {
        let mut found = vec![(from, way)];
        for segment in segments {
            let mut next = Vec::new();
            for (node, way) in &found {
                match segment.descends {
                    true => self.descend(&segment.selector, node, way, &mut next)?,
                    false => self.apply(&segment.selector, node, way, &mut next)?,
                }
            }
            let may_meet = segment.descends && found.len() > 1
                || matches!(segment.selector, Selector::Names(_) | Selector::Indexes(_));
            if may_meet {
                let mut seen = AHashSet::with_capacity(next.len());
                next.retain(|(node, _)| seen.insert(std::ptr::from_ref(*node)));
            }
            found = next;
            self.budget.spend(found.len(), self.root)?;
        }
        Ok(found)
    }

    fn descend<W: Way>(
        &mut self,
        selector: &Selector,
        node: &'d Node,
        way: &W,
        found: &mut Found<'d, W>,
    ) -> Result<(), TooMuch> {
        self.apply(selector, node, way, found)?;
        let below = match node {
            Node::Array(nodes) => nodes.len(),
            Node::Object(object) => object.len(),
            _ => 0,
        };
        self.budget.spend(below, self.root)?;
        for number in 0..below {
            if let Some(child @ (Node::Array(_) | Node::Object(_))) = node.child(number) {
                self.descend(selector, child, &way.step(number), found)?;
            }
        }
        Ok(())
    }

    fn apply<W: Way>(
        &mut self,
        selector: &Selector,
        node: &'d Node,
        way: &W,
        found: &mut Found<'d, W>,
    ) -> Result<(), TooMuch> {
        let mut add = |number: usize| {
            if let Some(child) = node.child(number) {
                found.push((child, way.step(number)));
            }
        };
        match (selector, node) {
            (Selector::All, Node::Array(nodes)) => (0..nodes.len()).for_each(add),
            (Selector::All, Node::Object(object)) => (0..object.len()).for_each(add),
            (Selector::Name(name), Node::Object(object)) => {
                object.find(name).into_iter().for_each(add);
            }
            (Selector::Names(names), Node::Object(object)) => {
                names.iter().filter_map(|name| object.find(name)).for_each(add);
            }
            (Selector::Index(index), Node::Array(nodes)) => {
                element(*index, nodes.len()).into_iter().for_each(add);
            }
            (Selector::Indexes(indexes), Node::Array(nodes)) => {
                indexes.iter().filter_map(|index| element(*index, nodes.len())).for_each(add);
            }
            (Selector::Slice { start, end, step }, Node::Array(nodes)) => {
                slice(*start, *end, nodes.len()).step_by(*step).for_each(add);
            }
            (Selector::Filter(filter), Node::Array(_) | Node::Object(_)) => {
                let mut number = 0;
                while let Some(child) = node.child(number) {
                    if self.holds(filter, child)? {
                        add(number);
                    }
                    number += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn holds(&mut self, filter: &Filter, node: &'d Node) -> Result<bool, TooMuch> {
        self.look(1)?;
        match filter {
            Filter::And(filters) => {
                for filter in filters {
                    if !self.holds(filter, node)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Or(filters) => {
                for filter in filters {
                    if self.holds(filter, node)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::Not(filter) => Ok(!self.holds(filter, node)?),
            Filter::Exists(Term::Literal(literal)) => Ok(*literal == Node::Bool(true)),
            Filter::Exists(Term::Path { from_root, segments }) => {
                Ok(!self.nodes(*from_root, segments, node)?.is_empty())
            }
            Filter::Compare(comparison, left, right) => {
                self.compares(*comparison, left, right, node)
            }
        }
    }

    /// Where a path in a filter leads.
    fn nodes(
        &mut self,
        from_root: bool,
        segments: &[Segment],
        node: &'d Node,
    ) -> Result<Vec<&'d Node>, TooMuch> {
        let from = if from_root { self.root } else { node };
        if segments.iter().any(|segment| {
            segment.descends || !matches!(segment.selector, Selector::Name(_) | Selector::Index(_))
        }) {
            self.look(from.weight(LOOKS_MAX as usize) as u64)?;
        }
        let found = self.follow(segments, from, ())?;
        self.look(found.len() as u64)?;
        Ok(found.into_iter().map(|(node, ())| node).collect())
    }

    /// Any of the nodes on the left with any on the right; `!=` and `nin` are the contrary of
    /// `==` and `in`.
    fn compares(
        &mut self,
        comparison: Comparison,
        left: &Term,
        right: &Term,
        node: &'d Node,
    ) -> Result<bool, TooMuch> {
        let (asked, turned) = match comparison {
            Comparison::NotEqual => (Comparison::Equal, true),
            Comparison::NotIn => (Comparison::In, true),
            other => (other, false),
        };
        let mut found = false;
        let (lefts, rights);
        let lefts: &[&Node] = match left {
            Term::Literal(literal) => &[literal],
            Term::Path { from_root, segments } => {
                lefts = self.nodes(*from_root, segments, node)?;
                &lefts
            }
        };
        let rights: &[&Node] = match right {
            Term::Literal(literal) => &[literal],
            Term::Path { from_root, segments } => {
                rights = self.nodes(*from_root, segments, node)?;
                &rights
            }
        };
        'any: for left in lefts {
            for right in rights {
                if self.compare(asked, left, right)? {
                    found = true;
                    break 'any;
                }
            }
        }
        Ok(found != turned)
    }

    fn compare(
        &mut self,
        comparison: Comparison,
        left: &Node,
        right: &Node,
    ) -> Result<bool, TooMuch> {
        self.look(1 + left.text_bytes() as u64)?;
        let order = || order(left, right);
        Ok(match comparison {
            Comparison::Equal => self.equal(left, right)?,
            Comparison::Less => order() == Some(Ordering::Less),
            Comparison::LessOrEqual => order().is_some_and(Ordering::is_le),
            Comparison::Greater => order() == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
            Comparison::Matches => match (left.as_str(), right.as_str()) {
                (Some(text), Some(pattern)) => self.matches(pattern, text)?,
                _ => false,
            },
            Comparison::In => {
                for element in right.as_array().unwrap_or_default() {
                    if self.equal(left, element)? {
                        return Ok(true);
                    }
                }
                false
            }
            Comparison::NotEqual | Comparison::NotIn => unreachable!("turned round by the caller"),
        })
    }

    fn equal(&mut self, left: &Node, right: &Node) -> Result<bool, TooMuch> {
        match (left, right) {
            (Node::Array(_), Node::Array(_)) | (Node::Object(_), Node::Object(_)) => {
                self.look(left.weight(LOOKS_MAX as usize) as u64)?;
                Ok(left == right)
            }
            _ => {
                self.look(1)?;
                Ok(order(left, right) == Some(Ordering::Equal))
            }
        }
    }

    /// Whether the pattern is found in the text. One that is none is found nowhere.
    fn matches(&mut self, pattern: &str, text: &str) -> Result<bool, TooMuch> {
        if self.pattern.as_ref().is_none_or(|(known, _)| known != pattern) {
            self.look(PATTERN_LOOKS + 10 * pattern.len() as u64)?;
            let regex = RegexBuilder::new(pattern)
                .size_limit(PATTERN_BYTES_MAX)
                .dfa_size_limit(PATTERN_BYTES_MAX)
                .build();
            self.pattern = Some((pattern.to_owned(), regex.ok()));
        }
        self.look(10 * text.len() as u64)?;
        let regex = self.pattern.as_ref().and_then(|(_, regex)| regex.as_ref());
        Ok(regex.is_some_and(|regex| regex.is_match(text)))
    }
}

impl Node {
    fn text_bytes(&self) -> usize {
        self.as_str().map_or(0, str::len)
    }

    /// Nodes here and below.
    fn weight(&self, most: usize) -> usize {
        let mut left = most;
        self.count_down(&mut left);
        most - left
    }
}

/// The order of two scalars of a kind; `None` if they cannot be compared.
fn order(left: &Node, right: &Node) -> Option<Ordering> {
    match (left, right) {
        (Node::Null, Node::Null) => Some(Ordering::Equal),
        (Node::Bool(left), Node::Bool(right)) => Some(left.cmp(right)),
        (Node::Text(left), Node::Text(right)) => Some(left.as_str().cmp(right.as_str())),
        (Node::Int(left), Node::Int(right)) => Some(left.cmp(right)),
        (Node::Unsigned(left), Node::Unsigned(right)) => Some(left.cmp(right)),
        (Node::Int(_), Node::Unsigned(_)) => Some(Ordering::Less),
        (Node::Unsigned(_), Node::Int(_)) => Some(Ordering::Greater),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

/// The element of an index that may count from the end.
fn element(index: i64, len: usize) -> Option<usize> {
    crate::index_at(index, len)
}

fn slice(start: Option<i64>, end: Option<i64>, len: usize) -> Range<usize> {
    let bound = |index: i64| {
        let index = if index < 0 { index.saturating_add_unsigned(len as u64) } else { index };
        usize::try_from(index).unwrap_or(0).min(len)
    };
    let (start, end) = (start.map_or(0, bound), end.map_or(len, bound));
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).expect("a path")
    }

    #[test]
    fn paths_share_what_they_may_walk_over() {
        let json = Json::of(Node::parse(r#"{"a":[1,2,3],"b":{"c":4}}"#).expect("a document"));
        let everything = path("$..*");
        let mut budget = Budget { left: 0, has_whole: false };
        // A whole walk is free, whatever else there is.
        assert_eq!(path("$..c").select_within(&json, &mut budget).map(|found| found.len()), Ok(1));
        assert_eq!(everything.select_within(&json, &mut budget), Err(TooMuch));
        budget.renew();
        assert_eq!(path("$..c").select_within(&json, &mut budget).map(|found| found.len()), Ok(1));
        // So are those that WALK_MAX allows.
        let mut budget = Budget { left: 1000, has_whole: false };
        let walks =
            (0..10_000).take_while(|_| everything.select_within(&json, &mut budget).is_ok());
        let walks = walks.count();
        assert!((50..200).contains(&walks), "{walks}");
        // What has no steps downwards costs what it finds.
        let mut budget = Budget { left: 5, has_whole: true };
        assert!(path("$.a").select_within(&json, &mut budget).is_ok());
        assert!(path("$.a[*]").select_within(&json, &mut budget).is_ok());
        assert_eq!(path("$.b").select_within(&json, &mut budget), Err(TooMuch));
    }
}

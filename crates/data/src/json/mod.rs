//! JSON documents: a compact tree of values, paths into it, and edits that can be undone.
//!
//! A node takes 16 bytes; short texts stand in it. Integers and doubles are told apart and keep what
//! they were written as. Members of an object come in the order they were added; one that is removed
//! leaves its place to the last, as in RedisJSON. Nothing nests deeper than [`DEPTH_MAX`], so
//! everything here may recurse. Knows nothing of keys, commands and undo logs.
//!
//! `parse` and `write` are JSON text, `path` and `select` find nodes, `edit` changes them.

mod edit;
mod parse;
mod path;
mod select;
mod write;

use std::mem::size_of;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::random::hash_bytes;

pub use edit::Inverse;
pub use parse::ParseError;
pub use path::{Path, PathError};
pub use select::{Budget, TooMuch};
pub use write::{Progress, Style, TooLong, Writer};

/// How deep arrays and objects stand in each other at most; what is deeper is not even parsed.
pub const DEPTH_MAX: usize = 127;

/// Bytes of a text that stand in its node.
const SHORT_BYTES: usize = 14;
/// Objects with more members find them by hash.
const LINEAR_MAX: usize = 16;

/// The way from the root to a node: the number of the member or element in each step.
pub type Place = SmallVec<[usize; 4]>;

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub struct Json {
    root: Node,
}

/// A value in a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond what `Int` holds.
    Unsigned(u64),
    Float(f64),
    Text(Text),
    Array(Box<Vec<Node>>),
    Object(Box<Object>),
}

const _: () = assert!(size_of::<Node>() == 16);

/// A string.
#[derive(Clone)]
pub enum Text {
    Short { len: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<String>),
}

/// The members of an object.
#[derive(Clone, Default)]
pub struct Object {
    members: Vec<(Text, Node)>,
    /// The numbers of the members by the hash of their names, once there are many.
    index: Option<Box<HashTable<usize>>>,
}

impl Json {
    pub fn new() -> Json {
        Json::of(Node::Null)
    }

    pub fn of(root: Node) -> Json {
        Json { root }
    }

    pub fn root(&self) -> &Node {
        &self.root
    }

    pub fn at(&self, place: &[usize]) -> Option<&Node> {
        place.iter().try_fold(&self.root, |node, &step| node.child(step))
    }

    /// The path that leads to a place and nowhere else, as commands take it. `None` if there is no
    /// such place.
    pub fn spell(&self, place: &[usize]) -> Option<String> {
        let mut path = String::from("$");
        let mut node = &self.root;
        for &step in place {
            match node {
                Node::Object(object) => path::spell_key(object.member(step)?.0, &mut path),
                _ => path += &format!("[{step}]"),
            }
            node = node.child(step)?;
        }
        Some(path)
    }

    pub fn memory_bytes(&self) -> usize {
        self.root.heap_bytes()
    }

    /// Nodes that freeing the document visits; counts no further than `most`.
    pub fn count_nodes(&self, most: usize) -> usize {
        let mut left = most;
        self.root.count_down(&mut left);
        most - left
    }

    /// Whether its text may have more than so many bytes, or it has more nodes. Visits no more of them.
    pub fn exceeds(&self, nodes: usize, bytes: usize) -> bool {
        let (mut nodes_left, mut bytes_left) = (nodes + 1, bytes);
        self.root.count_text_down(&mut nodes_left, &mut bytes_left);
        nodes_left == 0 || bytes_left == 0
    }

    /// Whether a copy is as cheap as notes of what changes.
    pub fn is_small(&self) -> bool {
        const NODES: usize = 32;
        const BYTES: usize = 2048;
        self.count_nodes(NODES + 1) <= NODES && self.memory_bytes() <= BYTES
    }
}

impl Default for Json {
    fn default() -> Json {
        Json::new()
    }
}

impl Node {
    pub fn text(text: &str) -> Node {
        Node::Text(Text::new(text))
    }

    pub fn array(nodes: Vec<Node>) -> Node {
        Node::Array(Box::new(nodes))
    }

    pub fn object(object: Object) -> Node {
        Node::Object(Box::new(object))
    }

    /// What JSON.TYPE calls it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "boolean",
            Node::Int(_) | Node::Unsigned(_) => "integer",
            Node::Float(_) => "number",
            Node::Text(_) => "string",
            Node::Array(_) => "array",
            Node::Object(_) => "object",
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Node]> {
        match self {
            Node::Array(nodes) => Some(nodes),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Node::Int(value) => Some(value as f64),
            Node::Unsigned(value) => Some(value as f64),
            Node::Float(value) => Some(value),
            _ => None,
        }
    }

    pub fn child(&self, step: usize) -> Option<&Node> {
        match self {
            Node::Array(nodes) => nodes.get(step),
            Node::Object(object) => object.member(step).map(|(_, node)| node),
            _ => None,
        }
    }

    /// How deep arrays and objects stand in each other here.
    pub fn depth(&self) -> usize {
        match self {
            Node::Array(nodes) => 1 + nodes.iter().map(Node::depth).max().unwrap_or(0),
            Node::Object(object) => {
                1 + object.iter().map(|(_, node)| node.depth()).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Bytes that it owns beside itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Node::Text(text) => text.heap_bytes(),
            Node::Array(nodes) => {
                size_of::<Vec<Node>>()
                    + nodes.capacity() * size_of::<Node>()
                    + nodes.iter().map(Node::heap_bytes).sum::<usize>()
            }
            Node::Object(object) => object.heap_bytes(),
            _ => 0,
        }
    }

    fn count_down(&self, left: &mut usize) {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match self {
            Node::Array(nodes) => {
                nodes.iter().take(*left).for_each(|node| node.count_down(left));
            }
            Node::Object(object) => {
                object.iter().take(*left).for_each(|(_, node)| node.count_down(left));
            }
            _ => {}
        }
    }

    /// The same, and of what its texts take.
    fn count_text_down(&self, nodes_left: &mut usize, bytes_left: &mut usize) {
        if *nodes_left == 0 || *bytes_left == 0 {
            return;
        }
        *nodes_left -= 1;
        match self {
            Node::Text(text) => *bytes_left = bytes_left.saturating_sub(text.as_str().len()),
            Node::Array(nodes) => {
                for node in nodes.iter().take(*nodes_left) {
                    node.count_text_down(nodes_left, bytes_left);
                }
            }
            Node::Object(object) => {
                for (name, node) in object.iter().take(*nodes_left) {
                    *bytes_left = bytes_left.saturating_sub(name.len());
                    node.count_text_down(nodes_left, bytes_left);
                }
            }
            _ => {}
        }
    }
}

impl From<f64> for Node {
    fn from(value: f64) -> Node {
        Node::Float(value)
    }
}

impl From<i64> for Node {
    fn from(value: i64) -> Node {
        Node::Int(value)
    }
}

impl From<u64> for Node {
    fn from(value: u64) -> Node {
        i64::try_from(value).map_or(Node::Unsigned(value), Node::Int)
    }
}

impl Text {
    pub fn new(text: &str) -> Text {
        if text.len() > SHORT_BYTES {
            return Text::Long(Box::new(text.to_owned()));
        }
        let mut bytes = [0; SHORT_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Text::Short { len: text.len() as u8, bytes }
    }

    pub fn as_str(&self) -> &str {
        match self {
            // SAFETY: only `new`, `push_str` and `truncate` make one, of whole characters.
            Text::Short { len, bytes } => unsafe {
                std::str::from_utf8_unchecked(&bytes[..usize::from(*len)])
            },
            Text::Long(text) => text,
        }
    }

    fn push_str(&mut self, more: &str) {
        match self {
            Text::Long(text) => text.push_str(more),
            Text::Short { .. } => *self = Text::new(&[self.as_str(), more].concat()),
        }
    }

    /// Cuts it off behind so many bytes, where a character must end.
    fn truncate(&mut self, len: usize) {
        if len <= SHORT_BYTES {
            *self = Text::new(&self.as_str()[..len]);
        } else if let Text::Long(text) = self {
            text.truncate(len);
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Text::Short { .. } => 0,
            Text::Long(text) => size_of::<String>() + text.capacity(),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str()
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Object {
    pub fn new() -> Object {
        Object::default()
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Node)> {
        self.members.iter().map(|(name, node)| (name.as_str(), node))
    }

    pub fn member(&self, number: usize) -> Option<(&str, &Node)> {
        self.members.get(number).map(|(name, node)| (name.as_str(), node))
    }

    /// The number of a member.
    pub fn find(&self, name: &str) -> Option<usize> {
        match &self.index {
            None => self.members.iter().position(|(own, _)| own.as_str() == name),
            Some(index) => {
                let hash = hash_bytes(name.as_bytes());
                index.find(hash, |&at| self.members[at].0.as_str() == name).copied()
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        self.find(name).map(|at| &self.members[at].1)
    }

    /// Adds a member or replaces its value.
    pub fn set(&mut self, name: &str, node: Node) {
        match self.find(name) {
            Some(at) => self.members[at].1 = node,
            None => self.push(Text::new(name), node),
        }
    }

    /// Adds a member of a name that there is not yet.
    fn push(&mut self, name: Text, node: Node) {
        let at = self.members.len();
        self.members.push((name, node));
        if self.index.is_some() {
            self.note(at);
        } else if self.members.len() > LINEAR_MAX {
            self.index = Some(Box::default());
            (0..self.members.len()).for_each(|at| self.note(at));
        }
    }

    fn note(&mut self, at: usize) {
        let members = &self.members;
        let Some(index) = &mut self.index else { return };
        let hash = |&at: &usize| hash_bytes(members[at].0.as_str().as_bytes());
        index.insert_unique(hash(&at), at, hash);
    }

    /// Removes a member; the last one takes its place.
    fn remove(&mut self, number: usize) -> (Text, Node) {
        let last = self.members.len() - 1;
        self.renumber(number, None);
        if number < last {
            self.renumber(last, Some(number));
        }
        self.members.swap_remove(number)
    }

    /// Takes back a removal.
    fn restore(&mut self, number: usize, member: (Text, Node)) {
        let (name, node) = member;
        self.push(name, node);
        let last = self.members.len() - 1;
        if number < last {
            if self.index.is_some() {
                self.renumber(last, None);
                self.renumber(number, Some(last));
            }
            self.members.swap(number, last);
            if self.index.is_some() {
                self.note(number);
            }
        }
    }

    /// Forgets the number of a member, or replaces it.
    fn renumber(&mut self, from: usize, to: Option<usize>) {
        let members = &self.members;
        let Some(index) = &mut self.index else { return };
        let hash = hash_bytes(members[from].0.as_str().as_bytes());
        let Ok(mut found) = index.find_entry(hash, |&at| at == from) else {
            unreachable!("every member is in the index")
        };
        match to {
            Some(to) => *found.get_mut() = to,
            None => {
                found.remove();
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |index| {
            size_of::<HashTable<usize>>() + index.capacity() * (size_of::<usize>() + 1)
        });
        let members = self.members.iter().map(|(name, node)| name.heap_bytes() + node.heap_bytes());
        size_of::<Object>()
            + self.members.capacity() * size_of::<(Text, Node)>()
            + index
            + members.sum::<usize>()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.len() == other.len()
            && self.iter().all(|(name, node)| other.get(name).is_some_and(|own| own == node))
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

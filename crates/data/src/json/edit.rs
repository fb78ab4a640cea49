//! Edits of a document, each of which answers what takes it back.

use super::{Json, Node, Place, Text};

/// What takes an edit back. Inverses are undone in the opposite order of their edits: their places
/// are those of that moment.
#[derive(Debug)]
pub enum Inverse {
    /// Another node was there.
    Replaced { place: Place, old: Node },
    /// The last member of the object was not there.
    Added { place: Place },
    /// The object had this member.
    Removed { place: Place, number: usize, name: Text, node: Node },
    /// The array had not these elements.
    Inserted { place: Place, index: usize, count: usize },
    /// The array had these elements.
    Taken { place: Place, index: usize, nodes: Vec<Node> },
    /// The text had so many bytes.
    Appended { place: Place, len: usize },
}

impl Inverse {
    /// Bytes that it owns, without what the edit has moved here.
    pub fn own_bytes(&self) -> usize {
        let (place, nodes) = match self {
            Inverse::Taken { place, nodes, .. } => (place, nodes.capacity()),
            Inverse::Replaced { place, .. }
            | Inverse::Removed { place, .. }
            | Inverse::Added { place }
            | Inverse::Inserted { place, .. }
            | Inverse::Appended { place, .. } => (place, 0),
        };
        let spilled = if place.spilled() { place.capacity() * size_of::<usize>() } else { 0 };
        spilled + nodes * size_of::<Node>()
    }

    /// Bytes that the edit has moved from the document to here. O(nodes).
    pub fn moved_bytes(&self) -> usize {
        match self {
            Inverse::Replaced { old, .. } => old.heap_bytes(),
            Inverse::Removed { name, node, .. } => name.heap_bytes() + node.heap_bytes(),
            Inverse::Taken { nodes, .. } => nodes.iter().map(Node::heap_bytes).sum(),
            Inverse::Added { .. } | Inverse::Inserted { .. } | Inverse::Appended { .. } => 0,
        }
    }

    /// Whether this one, of the edit before, takes back the next edit, too: then the next inverse
    /// is not needed. Grows to do so, if that is all.
    pub fn covers(&mut self, next: &Inverse) -> bool {
        match (self, next) {
            (Inverse::Replaced { place, .. }, Inverse::Replaced { place: next, .. })
            | (Inverse::Appended { place, .. }, Inverse::Appended { place: next, .. })
            | (Inverse::Replaced { place, .. }, Inverse::Appended { place: next, .. }) => {
                place == next
            }
            (
                Inverse::Inserted { place, index, count },
                Inverse::Inserted { place: next, index: behind, count: more },
            ) if place == next && *index + *count == *behind => {
                *count += more;
                true
            }
            _ => false,
        }
    }
}

/// Places are those of nodes of the right kind: whoever calls has looked.
impl Json {
    fn node_mut(&mut self, place: &[usize]) -> &mut Node {
        place.iter().fold(&mut self.root, |node, &step| match node {
            Node::Array(nodes) => &mut nodes[step],
            Node::Object(object) => &mut object.members[step].1,
            _ => unreachable!("the place is there"),
        })
    }

    fn array_mut(&mut self, place: &[usize]) -> &mut Vec<Node> {
        let Node::Array(nodes) = self.node_mut(place) else { unreachable!("an array is there") };
        nodes
    }

    fn object_mut(&mut self, place: &[usize]) -> &mut super::Object {
        let Node::Object(object) = self.node_mut(place) else { unreachable!("an object is there") };
        object
    }

    fn text_mut(&mut self, place: &[usize]) -> &mut Text {
        let Node::Text(text) = self.node_mut(place) else { unreachable!("a text is there") };
        text
    }

    pub fn replace(&mut self, place: &[usize], node: Node) -> Inverse {
        let old = std::mem::replace(self.node_mut(place), node);
        Inverse::Replaced { place: place.into(), old }
    }

    /// Adds a member to an object that has none of this name.
    pub fn add(&mut self, place: &[usize], name: &str, node: Node) -> Inverse {
        self.object_mut(place).push(Text::new(name), node);
        Inverse::Added { place: place.into() }
    }

    /// Removes a member or an element, which the last step of the place says. Not the root.
    pub fn remove(&mut self, place: &[usize]) -> Inverse {
        let (&number, parent) = place.split_last().expect("the root is removed with its key");
        match self.node_mut(parent) {
            Node::Array(nodes) => {
                let node = nodes.remove(number);
                Inverse::Taken { place: parent.into(), index: number, nodes: vec![node] }
            }
            Node::Object(object) => {
                let (name, node) = object.remove(number);
                Inverse::Removed { place: parent.into(), number, name, node }
            }
            _ => unreachable!("the place is there"),
        }
    }

    /// Puts elements before that of the index, or at the end.
    pub fn insert(&mut self, place: &[usize], index: usize, new: Vec<Node>) -> Inverse {
        let count = new.len();
        let nodes = self.array_mut(place);
        match index == nodes.len() {
            true => nodes.extend(new),
            false => drop(nodes.splice(index..index, new)),
        }
        Inverse::Inserted { place: place.into(), index, count }
    }

    /// Takes elements out.
    pub fn take(&mut self, place: &[usize], range: std::ops::Range<usize>) -> Inverse {
        let index = range.start;
        let nodes = self.array_mut(place).drain(range).collect();
        Inverse::Taken { place: place.into(), index, nodes }
    }

    pub fn append_text(&mut self, place: &[usize], more: &str) -> Inverse {
        let text = self.text_mut(place);
        let len = text.as_str().len();
        text.push_str(more);
        Inverse::Appended { place: place.into(), len }
    }

    pub fn undo(&mut self, inverse: Inverse) {
        match inverse {
            Inverse::Replaced { place, old } => *self.node_mut(&place) = old,
            Inverse::Added { place } => {
                let object = self.object_mut(&place);
                object.remove(object.len() - 1);
            }
            Inverse::Removed { place, number, name, node } => {
                self.object_mut(&place).restore(number, (name, node));
            }
            Inverse::Inserted { place, index, count } => {
                self.array_mut(&place).drain(index..index + count);
            }
            Inverse::Taken { place, index, nodes } => {
                self.array_mut(&place).splice(index..index, nodes);
            }
            Inverse::Appended { place, len } => self.text_mut(&place).truncate(len),
        }
    }
}

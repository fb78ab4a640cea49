//! The objects of a list are mostly alike: how the keys of the last one at a depth lay in memory,
//! and their order and texts, serve for the next one that looks the same.

use super::encode;
use crate::internals::{self, Bits, Node, Value, value_of};

/// Larger objects, and those that lie deeper than there are shapes, are written without.
pub const NODES_MAX: usize = 64;
pub const DEPTHS: usize = 8;
const KEY_BYTES_MAX: usize = 1024;

#[derive(Default)]
pub struct Shape {
    /// The key of every node, nil for free ones.
    keys: Vec<Bits>,
    /// For each key in sorted order its node, and where its text ends: the key as JSON with the
    /// colon behind it and, but for the first one, a comma in front.
    order: Vec<(u8, u32)>,
    texts: Vec<u8>,
}

impl Shape {
    /// Before a new encoding: the strings that keys point to may be gone.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    #[inline]
    pub fn fits(&self, nodes: &[Node]) -> bool {
        self.keys.len() == nodes.len()
            && nodes.iter().zip(&self.keys).all(|(node, &key)| key_of(node) == key)
    }

    /// Takes on the shape of this object; false if a key is no string, or a long one.
    ///
    /// # Safety
    /// The nodes are those of a live table, of at most `NODES_MAX`.
    pub unsafe fn learn(&mut self, nodes: &[Node]) -> bool {
        self.keys.clear();
        self.order.clear();
        self.texts.clear();
        for (at, node) in nodes.iter().enumerate() {
            match value_of(key_of(node)) {
                Value::Nil => {}
                Value::Str(key) => {
                    // SAFETY: the key of a live table.
                    if unsafe { internals::string_bytes(key) }.len() > KEY_BYTES_MAX {
                        return false;
                    }
                    self.order.push((at as u8, 0));
                }
                _ => return false,
            }
        }
        let bytes = |place: u8| match value_of(nodes[usize::from(place)].key) {
            // SAFETY: the key of a live table.
            Value::Str(key) => unsafe { internals::string_bytes(key) },
            _ => &[],
        };
        self.order.sort_unstable_by(|a, b| bytes(a.0).cmp(bytes(b.0)));
        for (place, end) in &mut self.order {
            if !self.texts.is_empty() {
                self.texts.push(b',');
            }
            if let Value::Str(key) = value_of(nodes[usize::from(*place)].key) {
                // SAFETY: the key of a live table.
                unsafe { encode::write_string(&mut self.texts, key) };
            }
            self.texts.push(b':');
            *end = self.texts.len() as u32;
        }
        self.keys.extend(nodes.iter().map(key_of));
        true
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Appends the text of the key at `place` of the sorted ones; says in which node it lies.
    #[inline]
    pub fn write_key(&self, place: usize, out: &mut Vec<u8>) -> usize {
        const SHORT: usize = 32;
        let (node, end) = self.order[place];
        let start = if place == 0 { 0 } else { self.order[place - 1].1 } as usize;
        let end = end as usize;
        match self.texts.get(start..start + SHORT) {
            // Most are short: a copy of constant size, of which the rest is taken back.
            Some(text) if end - start <= SHORT => {
                let len = out.len() + end - start;
                out.extend_from_slice(text);
                out.truncate(len);
            }
            _ => out.extend_from_slice(&self.texts[start..end]),
        }
        usize::from(node)
    }
}

#[inline]
fn key_of(node: &Node) -> Bits {
    if node.value == internals::NIL { internals::NIL } else { node.key }
}

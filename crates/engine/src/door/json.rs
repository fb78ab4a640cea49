//! Changes of a document. Places are those of nodes of the right kind.

use std::ops::Range;

use data::Json;
use data::json::{Inverse, Node};

use crate::change::Change;
use crate::door::Mut;

impl Mut<'_, '_, Json> {
    /// Puts another node in the place of one.
    pub fn replace(&mut self, place: &[usize], node: Node) {
        self.inverse();
        let inverse = self.value().replace(place, node);
        self.note(inverse);
        self.did_set(place);
    }

    /// Adds a member to an object that has none of this name.
    pub fn add(&mut self, place: &[usize], name: &str, node: Node) {
        self.inverse();
        let inverse = self.value().add(place, name, node);
        self.note(inverse);
        let number = self.at(place).and_then(Node::as_object).map_or(0, |object| object.len() - 1);
        self.did_set(&[place, &[number]].concat());
    }

    /// Removes a member or an element; not the root.
    pub fn remove(&mut self, place: &[usize]) {
        let path = self.path(place);
        self.inverse();
        let inverse = self.value().remove(place);
        self.note(inverse);
        self.did(Change::JsonRemove { path: path.as_bytes() });
    }

    /// Puts elements before that of the index, or at the end of the array.
    pub fn insert(&mut self, place: &[usize], index: usize, nodes: Vec<Node>) {
        let count = nodes.len();
        self.inverse();
        let inverse = self.value().insert(place, index, nodes);
        self.note(inverse);
        if !self.txn.logs() {
            self.changed = true;
            return;
        }
        let path = self.path(place);
        for index in index..index + count {
            let json = self.text_at(&[place, &[index]].concat());
            self.did(Change::JsonInsert { path: path.as_bytes(), index, json: &json });
        }
    }

    /// Leaves only the elements of this range, one at least, in an array.
    pub fn retain(&mut self, place: &[usize], range: Range<usize>) {
        let len = self.at(place).and_then(Node::as_array).map_or(0, <[Node]>::len);
        for gone in [range.end..len, 0..range.start] {
            if !gone.is_empty() {
                self.inverse();
                let inverse = self.value().take(place, gone);
                self.note(inverse);
            }
        }
        let path = self.path(place);
        let (start, end) = (range.start, range.end);
        self.did(Change::JsonRetain { path: path.as_bytes(), start, end });
    }

    /// Adds letters behind a text.
    pub fn append_text(&mut self, place: &[usize], more: &str) {
        self.inverse();
        let inverse = self.value().append_text(place, more);
        self.note(inverse);
        if !self.txn.logs() {
            self.changed = true;
            return;
        }
        let (path, mut json) = (self.path(place), Vec::new());
        Node::text(more).write(&mut json);
        self.did(Change::JsonAppend { path: path.as_bytes(), json: &json });
    }

    fn note(&mut self, inverse: Inverse) {
        if let Some(mut log) = self.log() {
            log.note_json(inverse);
        }
    }

    fn did_set(&mut self, place: &[usize]) {
        if !self.txn.logs() {
            self.changed = true;
            return;
        }
        let (path, json) = (self.path(place), self.text_at(place));
        self.did(Change::JsonSet { path: path.as_bytes(), json: &json });
    }

    /// The path to a place, for the change log; nothing while nobody wants to know.
    fn path(&self, place: &[usize]) -> String {
        match self.txn.logs() {
            true => self.spell(place).unwrap_or_default(),
            false => String::new(),
        }
    }

    fn text_at(&self, place: &[usize]) -> Vec<u8> {
        let mut json = Vec::new();
        if let Some(node) = self.at(place) {
            node.write(&mut json);
        }
        json
    }
}

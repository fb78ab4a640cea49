//! Small questions to the syntax tree. The kinds and fields are those of tree-sitter-lua.

use tree_sitter::{Node, Parser, Tree};

use crate::finding::{Finding, Rule};

/// A source and its tree.
pub struct Source<'a> {
    pub text: &'a [u8],
    tree: Tree,
}

impl<'a> Source<'a> {
    /// `None` only if the grammar does not fit the parser.
    pub fn parse(text: &'a [u8]) -> Option<Source<'a>> {
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_lua::LANGUAGE.into()).ok()?;
        Some(Source { text, tree: parser.parse(plain_escapes(text), None)? })
    }

    pub fn root(&self) -> Node<'_> {
        self.tree.root_node()
    }

    pub fn bytes(&self, node: Node<'_>) -> &'a [u8] {
        &self.text[node.byte_range()]
    }

    /// The text of a name; names that are not UTF-8 are nobody's.
    pub fn name(&self, node: Node<'_>) -> &'a str {
        std::str::from_utf8(self.bytes(node)).unwrap_or_default()
    }

    /// What a string literal or a number says, if it says it without escapes.
    pub fn literal(&self, node: Node<'_>) -> Option<&'a [u8]> {
        match node.kind() {
            "number" => Some(self.bytes(node)),
            "string" => {
                let Some(content) = node.child_by_field_name("content") else { return Some(b"") };
                let text = self.bytes(content);
                (content.kind() == "string_content" && !text.contains(&b'\\')).then_some(text)
            }
            "parenthesized_expression" => self.literal(node.named_child(0)?),
            _ => None,
        }
    }

    pub fn finding(&self, node: Node<'_>, rule: Rule, message: String) -> Finding {
        let start = node.start_position();
        Finding {
            rule,
            line: start.row + 1,
            column: column(self.text, node.start_byte(), start.column),
            message,
        }
    }
}

/// The source with the backslash of unusual escapes replaced: our compiler takes `\-` for `-`, the
/// grammar takes it for a mistake. Only for the shape of the tree; no byte moves.
fn plain_escapes(text: &[u8]) -> Vec<u8> {
    let mut plain = text.to_vec();
    let mut at = 0;
    while at + 1 < plain.len() {
        if plain[at] != b'\\' {
            at += 1;
            continue;
        }
        let rest = &plain[at + 1..];
        let is_known = match rest[0] {
            b'x' => rest.len() > 2 && rest[1..3].iter().all(u8::is_ascii_hexdigit),
            b'u' => rest.get(1) == Some(&b'{'),
            other => b"\n\\abfnrtvz\"'0123456789".contains(&other),
        };
        if !is_known {
            plain[at] = b'_';
        }
        at += 2;
    }
    plain
}

/// The column in characters of a byte that stands `offset` bytes into its line.
fn column(text: &[u8], at: usize, offset: usize) -> usize {
    let is_first = |byte: &&u8| **byte & 0xC0 != 0x80;
    text[at - offset..at].iter().filter(is_first).count() + 1
}

pub fn named_children<'tree>(node: Node<'tree>) -> impl Iterator<Item = Node<'tree>> {
    let count = u32::try_from(node.named_child_count()).unwrap_or(u32::MAX);
    (0..count).filter_map(move |at| node.named_child(at)).filter(|child| !child.is_extra())
}

pub fn child_of_kind<'tree>(node: Node<'tree>, kind: &str) -> Option<Node<'tree>> {
    named_children(node).find(|child| child.kind() == kind)
}

/// Whether a declaration begins with `local`.
pub fn is_local(node: Node<'_>) -> bool {
    node.child(0).is_some_and(|first| first.kind() == "local")
}

/// An argument that may be any number of values: a call or `...` at the end of a list.
pub fn may_be_many(node: Node<'_>) -> bool {
    matches!(node.kind(), "function_call" | "vararg_expression")
}

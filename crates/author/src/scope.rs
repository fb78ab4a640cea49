//! Which name means what: locals, globals, libraries. Reports names that no script has and
//! assignments that a script may not make, and collects the calls for `calls`.

use std::collections::HashMap;

use tree_sitter::Node;

use crate::finding::{Finding, Rule};
use crate::names::Names;
use crate::tree::{Source, child_of_kind, is_local, named_children};

/// Deeper than any source that people write; `Checker` brings the stack for it.
const DEPTH_MAX: usize = 10_000;

/// A local variable.
#[derive(Debug)]
pub struct Local<'tree> {
    /// The expression it is declared with.
    value: Option<Node<'tree>>,
    /// It gets another value later on.
    assigned: bool,
    /// The node of the identifier that declares it.
    declared_at: Option<usize>,
}

/// What the walk over a source found out.
pub struct Scopes<'s, 'tree> {
    pub source: &'s Source<'s>,
    names: &'s Names,
    pub findings: Vec<Finding>,
    /// Every call, in the order of the source.
    pub calls: Vec<Node<'tree>>,
    locals: Vec<Local<'tree>>,
    /// The local that an identifier refers to, by the identifier's node.
    uses: HashMap<usize, usize>,
    open: Vec<HashMap<&'s str, usize>>,
    depth: usize,
    /// Parts are not understood, so a name that seems undefined may be defined there.
    is_partial: bool,
}

impl<'s, 'tree> Scopes<'s, 'tree> {
    pub fn walk(source: &'s Source<'s>, root: Node<'tree>, names: &'s Names) -> Scopes<'s, 'tree> {
        let mut scopes = Scopes {
            source,
            names,
            findings: Vec::new(),
            calls: Vec::new(),
            locals: Vec::new(),
            uses: HashMap::new(),
            open: vec![HashMap::new()],
            depth: 0,
            is_partial: false,
        };
        if let Some(lost) = not_understood(root) {
            scopes.partial(lost);
        }
        scopes.children(root);
        scopes
    }

    /// The value of a local that keeps the one it was declared with.
    pub fn constant(&self, identifier: Node<'_>) -> Option<Node<'tree>> {
        let local = &self.locals[*self.uses.get(&identifier.id())?];
        if local.assigned { None } else { local.value }
    }

    /// The identifier that declares what this one means.
    pub fn declared_at(&self, identifier: Node<'_>) -> Option<usize> {
        self.locals[*self.uses.get(&identifier.id())?].declared_at
    }

    /// Whether this is a global of that name.
    pub fn is_global(&self, node: Node<'_>, name: &str) -> bool {
        node.kind() == "identifier"
            && self.source.name(node) == name
            && !self.uses.contains_key(&node.id())
    }

    fn report(&mut self, node: Node<'_>, rule: Rule, message: String) {
        self.findings.push(self.source.finding(node, rule, message));
    }

    /// Says so once: what follows from it would be noise.
    fn partial(&mut self, node: Node<'_>) {
        if !self.is_partial {
            self.is_partial = true;
            let message = "not everything from here on is understood and checked".to_owned();
            self.report(node, Rule::NotChecked, message);
        }
    }

    fn declare(&mut self, identifier: Node<'_>, value: Option<Node<'tree>>) {
        let name = self.source.name(identifier);
        self.declare_name(name, value, Some(identifier.id()));
    }

    fn declare_name(
        &mut self,
        name: &'s str,
        value: Option<Node<'tree>>,
        declared_at: Option<usize>,
    ) {
        self.locals.push(Local { value, assigned: false, declared_at });
        if let Some(scope) = self.open.last_mut() {
            scope.insert(name, self.locals.len() - 1);
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.open.iter().rev().find_map(|scope| scope.get(name).copied())
    }

    fn scoped(&mut self, inside: impl FnOnce(&mut Self)) {
        self.open.push(HashMap::new());
        inside(self);
        self.open.pop();
    }

    fn children(&mut self, node: Node<'tree>) {
        for child in named_children(node) {
            self.visit(child);
        }
    }

    fn field(&mut self, node: Node<'tree>, field: &str) {
        if let Some(child) = node.child_by_field_name(field) {
            self.visit(child);
        }
    }

    fn visit(&mut self, node: Node<'tree>) {
        if self.depth == DEPTH_MAX {
            return self.partial(node);
        }
        if node.is_error() {
            return;
        }
        self.depth += 1;
        self.enter(node);
        self.depth -= 1;
    }

    fn enter(&mut self, node: Node<'tree>) {
        match node.kind() {
            "identifier" => self.reference(node),
            "block" => self.scoped(|this| this.children(node)),
            "variable_declaration" if is_local(node) => self.local_declaration(node),
            "function_declaration" => self.function_declaration(node),
            "function_definition" => self.function(node, false),
            "for_statement" => self.for_statement(node),
            // The condition sees the locals of the body.
            "repeat_statement" => self.scoped(|this| {
                if let Some(body) = node.child_by_field_name("body") {
                    this.children(body);
                }
                this.field(node, "condition");
            }),
            "assignment_statement" => {
                if let Some(values) = child_of_kind(node, "expression_list") {
                    self.children(values);
                }
                if let Some(targets) = child_of_kind(node, "variable_list") {
                    for target in named_children(targets) {
                        self.assign(target);
                    }
                }
            }
            "dot_index_expression" => {
                self.field(node, "table");
                self.member(node);
            }
            "bracket_index_expression" => {
                self.children(node);
                self.index(node);
            }
            "method_index_expression" => self.field(node, "table"),
            "field" => {
                // `name = value` names no variable, `[name] = value` does.
                if node.child(0).is_some_and(|first| first.kind() == "[") {
                    self.field(node, "name");
                }
                self.field(node, "value");
            }
            "function_call" => {
                self.calls.push(node);
                self.children(node);
            }
            "string" => self.template(node),
            "goto_statement" | "label_statement" | "hash_bang_line" | "comment" => {}
            _ => self.children(node),
        }
    }

    fn reference(&mut self, node: Node<'tree>) {
        let name = self.source.name(node);
        if let Some(local) = self.find(name) {
            self.uses.insert(node.id(), local);
        } else if !self.names.is_global(name) && !self.is_partial {
            self.report(node, Rule::UndefinedGlobal, format!("undefined global '{name}'"));
        }
    }

    fn local_declaration(&mut self, node: Node<'tree>) {
        let Some(list) = named_children(node).next() else { return };
        let (names, values) = match list.kind() {
            "assignment_statement" => {
                (child_of_kind(list, "variable_list"), child_of_kind(list, "expression_list"))
            }
            _ => (Some(list), None),
        };
        if let Some(values) = values {
            self.children(values);
        }
        let values: Vec<Node<'tree>> = values.map_or(Vec::new(), |v| named_children(v).collect());
        let Some(names) = names else { return };
        let identifiers = named_children(names).filter(|child| child.kind() == "identifier");
        for (at, identifier) in identifiers.enumerate() {
            self.declare(identifier, values.get(at).copied());
        }
    }

    fn function_declaration(&mut self, node: Node<'tree>) {
        let Some(name) = node.child_by_field_name("name") else { return };
        if is_local(node) {
            self.declare(name, Some(node));
            return self.function(node, false);
        }
        if name.kind() == "method_index_expression" {
            self.field(name, "table");
            self.readonly(name);
        } else {
            self.assign(name);
        }
        self.function(node, name.kind() == "method_index_expression");
    }

    fn function(&mut self, node: Node<'tree>, has_self: bool) {
        self.scoped(|this| {
            if has_self {
                this.declare_name("self", None, None);
            }
            if let Some(parameters) = node.child_by_field_name("parameters") {
                for name in named_children(parameters).filter(|n| n.kind() == "identifier") {
                    this.declare(name, None);
                }
            }
            this.field(node, "body");
        });
    }

    fn for_statement(&mut self, node: Node<'tree>) {
        let Some(clause) = node.child_by_field_name("clause") else { return };
        let mut names = Vec::new();
        if clause.kind() == "for_numeric_clause" {
            for field in ["start", "end", "step"] {
                self.field(clause, field);
            }
            names.extend(clause.child_by_field_name("name"));
        } else {
            if let Some(values) = child_of_kind(clause, "expression_list") {
                self.children(values);
            }
            if let Some(list) = child_of_kind(clause, "variable_list") {
                names.extend(named_children(list));
            }
        }
        self.scoped(|this| {
            for name in names {
                this.declare(name, None);
            }
            this.field(node, "body");
        });
    }

    fn assign(&mut self, target: Node<'tree>) {
        if target.kind() != "identifier" {
            self.visit_target(target);
            return self.readonly(target);
        }
        let name = self.source.name(target);
        if let Some(local) = self.find(name) {
            self.locals[local].assigned = true;
            self.uses.insert(target.id(), local);
        } else if !self.is_partial {
            let message = format!("assignment to global '{name}'; make it local");
            self.report(target, Rule::GlobalAssignment, message);
        }
    }

    /// Like `visit`, but a member that is assigned to need not be there.
    fn visit_target(&mut self, target: Node<'tree>) {
        match target.kind() {
            "dot_index_expression" => self.field(target, "table"),
            _ => self.visit(target),
        }
    }

    /// The library that an index expression looks into.
    fn library(&self, node: Node<'tree>) -> Option<&'s str> {
        let table = node.child_by_field_name("table")?;
        let name = self.source.name(table);
        let is_ours = self.is_global(table, name) && self.names.library(name).is_some();
        (is_ours || self.is_global(table, "_G")).then_some(name)
    }

    fn readonly(&mut self, target: Node<'tree>) {
        if let Some(library) = self.library(target) {
            let message = format!("'{library}' is read-only");
            self.report(target, Rule::ReadonlyTable, message);
        }
    }

    fn member(&mut self, node: Node<'tree>) {
        let Some(members) = self.library(node).and_then(|name| self.names.library(name)) else {
            return;
        };
        let Some(field) = node.child_by_field_name("field") else { return };
        if !members.contains(self.source.name(field)) {
            let whole = String::from_utf8_lossy(self.source.bytes(node)).into_owned();
            self.report(field, Rule::UnknownMember, format!("'{whole}' is not there"));
        }
    }

    fn index(&mut self, node: Node<'tree>) {
        let (Some(table), Some(field)) =
            (node.child_by_field_name("table"), node.child_by_field_name("field"))
        else {
            return;
        };
        for name in ["KEYS", "ARGV"] {
            if self.is_global(table, name) && self.source.bytes(field) == b"0" {
                let message = format!("'{name}[0]' is always nil, '{name}[1]' is the first");
                self.report(node, Rule::IndexZero, message);
            }
        }
    }

    /// Strings with a hole as template languages write them.
    fn template(&mut self, node: Node<'tree>) {
        let text = self.source.bytes(node);
        for (open, close) in [(&b"${"[..], &b"}"[..]), (b"{{", b"}}")] {
            let Some(from) = find(text, open) else { continue };
            let inside = &text[from + open.len()..];
            let Some(length) = find(inside, close) else { continue };
            let hole = &inside[..length];
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_. ".contains(byte);
            if !hole.is_empty() && hole.iter().all(is_name) {
                let whole = &text[from..from + open.len() + length + close.len()];
                let message = format!(
                    "'{}' looks filled in by a program; pass values in ARGV, so that the script \
                     is compiled once",
                    String::from_utf8_lossy(whole)
                );
                return self.report(node, Rule::TemplateText, message);
            }
        }
    }
}

/// The first place that the grammar does not understand although the compiler does.
fn not_understood<'tree>(root: Node<'tree>) -> Option<Node<'tree>> {
    let mut node = root;
    if !node.has_error() {
        return None;
    }
    loop {
        if node.is_error() || node.is_missing() {
            return Some(node);
        }
        let mut children = (0..node.child_count()).filter_map(|at| node.child(at));
        node = children.find(|child| child.has_error())?;
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

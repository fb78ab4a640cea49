//! `redis.call` and `redis.pcall` against the command table: names, arity, argument types, keys.
//! Only what can be seen without running: literal command names, and locals that never change.

use std::collections::HashSet;

use command::flag;
use server::table::{Registered, table};
use tree_sitter::Node;

use crate::finding::{Finding, Rule, counted};
use crate::scope::Scopes;
use crate::tree::{may_be_many, named_children};
use crate::usage;

/// How many locals are followed from one to the next.
const STEPS_MAX: usize = 8;

/// What stands in for an argument that is not known: no option, no number.
const UNKNOWN: &[u8] = b"\0";

/// Checks every call that the walk has found.
pub fn check(scopes: &Scopes<'_, '_>) -> Vec<Finding> {
    let mut checker = Calls { scopes, findings: Vec::new(), arguments: HashSet::new() };
    for call in &scopes.calls {
        checker.note_callback(*call);
    }
    for call in &scopes.calls {
        checker.call(*call);
    }
    checker.findings
}

struct Calls<'a, 's, 'tree> {
    scopes: &'a Scopes<'s, 'tree>,
    findings: Vec<Finding>,
    /// Parameters that take what ARGV is to a script, by the node that declares them.
    arguments: HashSet<usize>,
}

impl<'a, 'tree> Calls<'a, '_, 'tree> {
    fn report(&mut self, node: Node<'_>, rule: Rule, message: String) {
        self.findings.push(self.scopes.source.finding(node, rule, message));
    }

    fn call(&mut self, call: Node<'tree>) {
        let Some(function) = call.child_by_field_name("name") else { return };
        let function = self.resolved(function);
        let Some(arguments) = call.child_by_field_name("arguments") else { return };
        if ["load", "loadstring"].iter().any(|name| self.scopes.is_global(function, name)) {
            let text = named_children(arguments).next().map(|node| self.resolved(node));
            if text.is_some_and(|text| self.scopes.source.literal(text).is_none()) {
                let message = "code made at run time is compiled at every call".to_owned();
                self.report(call, Rule::DynamicCode, message);
            }
        } else if self.is_of_redis(function, &["call", "pcall"]) {
            let arguments: Vec<Node<'tree>> = named_children(arguments).collect();
            self.command(call, &arguments);
        }
    }

    /// Follows locals that keep their first value.
    fn resolved(&self, node: Node<'tree>) -> Node<'tree> {
        let mut node = node;
        for _ in 0..STEPS_MAX {
            match self.scopes.constant(node) {
                Some(value) => node = value,
                None => break,
            }
        }
        node
    }

    /// Notes the parameters of a function that `redis.register_function` is given, in either form.
    fn note_callback(&mut self, call: Node<'tree>) {
        let Some(function) = call.child_by_field_name("name") else { return };
        let Some(arguments) = call.child_by_field_name("arguments") else { return };
        if !self.is_of_redis(self.resolved(function), &["register_function"]) {
            return;
        }
        let arguments: Vec<Node<'tree>> = named_children(arguments).collect();
        let callback = match &arguments[..] {
            [_, callback] => Some(*callback),
            [table] => named_children(self.resolved(*table)).find_map(|field| {
                let name = field.child_by_field_name("name")?;
                let is_it = self.scopes.source.name(name) == "callback";
                is_it.then(|| field.child_by_field_name("value")).flatten()
            }),
            _ => None,
        };
        let function = callback.map(|callback| self.resolved(callback));
        let parameters = function.and_then(|function| function.child_by_field_name("parameters"));
        let second = parameters.and_then(|parameters| named_children(parameters).nth(1));
        self.arguments.extend(second.map(|parameter| parameter.id()));
    }

    fn is_of_redis(&self, function: Node<'tree>, members: &[&str]) -> bool {
        if function.kind() != "dot_index_expression" {
            return false;
        }
        let (Some(library), Some(member)) =
            (function.child_by_field_name("table"), function.child_by_field_name("field"))
        else {
            return false;
        };
        let library = self.resolved(library);
        let is_redis = ["redis", "server"].iter().any(|name| self.scopes.is_global(library, name));
        is_redis && members.contains(&self.scopes.source.name(member))
    }

    fn command(&mut self, call: Node<'tree>, arguments: &[Node<'tree>]) {
        let Some(name_node) = arguments.first() else {
            return self.report(call, Rule::Arity, "a command is missing".to_owned());
        };
        for argument in arguments {
            self.argument_type(*argument);
        }
        // Of the last one it is not known how many there are.
        let is_open = arguments.last().is_some_and(|last| may_be_many(*last));
        let known = arguments.len() - usize::from(is_open);
        let values: Vec<Option<&[u8]>> = arguments[..known]
            .iter()
            .map(|node| self.scopes.source.literal(self.resolved(*node)))
            .collect();
        let Some(Some(name)) = values.first() else { return };
        let Some(mut found) = table().by_name(name).filter(|found| found.parent.is_none()) else {
            let message = format!("unknown command '{}'", String::from_utf8_lossy(name));
            return self.report(*name_node, Rule::UnknownCommand, message);
        };
        if !found.subcommands.is_empty() && arguments.len() > 1 {
            let Some(Some(wanted)) = values.get(1) else { return };
            let Some(subcommand) = subcommand(found, wanted) else {
                let message = format!(
                    "unknown subcommand '{}' of '{}'",
                    String::from_utf8_lossy(wanted),
                    found.full_name
                );
                return self.report(arguments[1], Rule::UnknownCommand, message);
            };
            found = subcommand;
        }
        if found.row.has(flag::NOSCRIPT) {
            let message = format!("'{}' cannot be called from scripts", spoken(found));
            return self.report(*name_node, Rule::NotInScripts, message);
        }
        let fits = match is_open {
            false => found.row.accepts(known) && found.run.is_some(),
            true => found.row.arity < 0 || known <= found.row.arity.unsigned_abs().into(),
        };
        if !fits {
            let count = known - usize::from(found.parent.is_some()) - 1;
            let message = format!(
                "{}{} for '{}'; usage: {}",
                counted(count, "argument"),
                if is_open { " and more" } else { "" },
                spoken(found),
                usage::line(found)
            );
            return self.report(*name_node, Rule::Arity, message);
        }
        self.keys(found, &arguments[..known], &values);
    }

    fn argument_type(&mut self, argument: Node<'tree>) {
        let what = match self.resolved(argument).kind() {
            "nil" => "nil",
            "true" | "false" => "a boolean",
            "table_constructor" => "a table",
            "function_definition" | "function_declaration" => "a function",
            _ => return,
        };
        let message = format!("arguments must be strings or numbers, this is {what}");
        self.report(argument, Rule::ArgumentType, message);
    }

    fn keys(&mut self, found: &Registered, arguments: &[Node<'tree>], values: &[Option<&[u8]>]) {
        let bytes: Vec<&[u8]> = values.iter().map(|value| value.unwrap_or(UNKNOWN)).collect();
        // A number of keys that is not known makes the positions invalid: then nothing is said.
        let Ok(positions) = found.row.key_positions(&bytes) else { return };
        for position in positions {
            let Some(argument) = arguments.get(position) else { continue };
            if let Some(why) = self.undeclared(*argument) {
                self.report(*argument, Rule::UndeclaredKey, why);
            }
        }
    }

    /// Why this key cannot be one that the caller declared.
    fn undeclared(&self, key: Node<'tree>) -> Option<String> {
        let node = self.resolved(key);
        match node.kind() {
            "string" | "number" => {
                let text = String::from_utf8_lossy(self.scopes.source.bytes(node)).into_owned();
                Some(format!("the key {text} is not from KEYS"))
            }
            "binary_expression" => {
                let operator = node.child_by_field_name("operator")?;
                (operator.kind() == "..").then(|| "a key put together is not from KEYS".to_owned())
            }
            "bracket_index_expression" => {
                let table = self.resolved(node.child_by_field_name("table")?);
                let declared_at = self.scopes.declared_at(table);
                let is_parameter = declared_at.is_some_and(|at| self.arguments.contains(&at));
                if is_parameter {
                    return Some("a key from the arguments is not from the keys".to_owned());
                }
                let is_argument = self.scopes.is_global(table, "ARGV");
                is_argument.then(|| "a key from ARGV is not from KEYS".to_owned())
            }
            "parenthesized_expression" => self.undeclared(node.named_child(0)?),
            _ => None,
        }
    }
}

fn subcommand(container: &Registered, wanted: &[u8]) -> Option<&'static Registered> {
    let mut all = container.subcommands.iter().map(|&id| &table().all[id]);
    all.find(|sub| sub.row.name.as_bytes().eq_ignore_ascii_case(wanted))
}

/// `object encoding`, not `object|encoding`.
fn spoken(found: &Registered) -> String {
    found.full_name.replace('|', " ")
}

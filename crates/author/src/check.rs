//! One source to findings. The compiler is asked first; a source it refuses has one finding.

use std::thread;

use lua::{Vm, VmOptions};

use crate::calls;
use crate::finding::{Finding, Rule};
use crate::lua_test;
use crate::names::Names;
use crate::scope::Scopes;
use crate::tree::Source;

/// For the walk over deeply nested sources.
const STACK_BYTES: usize = 64 << 20;

/// Checks one source after another.
pub struct Checker {
    vm: Vm,
    names: Names,
    /// Of files with tests.
    test_names: Names,
    library_names: Names,
}

impl Default for Checker {
    fn default() -> Checker {
        let mut vm = Vm::new(VmOptions { jit: false, ..VmOptions::default() });
        let names = Names::of(&mut vm);
        let test_names = names.with(&lua_test::NAMES);
        let library_names = names.of_library();
        Checker { vm, names, test_names, library_names }
    }
}

impl Checker {
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Findings in the order of their places. A file of tests has more names than a script.
    pub fn check(&mut self, text: &[u8], is_test: bool) -> Vec<Finding> {
        if let Err(message) = self.vm.compile(text) {
            return vec![syntax_error(text, &String::from_utf8_lossy(&message))];
        }
        let names = match is_test {
            true => &self.test_names,
            false if is_library(text) => &self.library_names,
            false => &self.names,
        };
        let mut findings = thread::scope(|scope| {
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || walk(text, names))
                .ok()
                .and_then(|walking| walking.join().ok())
                .unwrap_or_else(|| vec![not_checked()])
        });
        let allowed = allowed(text);
        // A test is a client: there are no KEYS to take its keys from.
        let is_off = |rule: Rule| is_test && rule == Rule::UndeclaredKey;
        findings.retain(|finding| !is_off(finding.rule) && !allowed.contains(&finding.rule.name()));
        findings.sort_by_key(|finding| (finding.line, finding.column));
        findings
    }
}

/// Whether this is a library of functions: a script may have a name in its first line as well.
fn is_library(text: &[u8]) -> bool {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = first.split(u8::is_ascii_whitespace);
    let registers = b"register_function";
    first.starts_with(b"#!")
        && words.any(|word| word.starts_with(b"name="))
        && text.windows(registers.len()).any(|window| window == registers)
}

fn walk(text: &[u8], names: &Names) -> Vec<Finding> {
    let Some(source) = Source::parse(text) else { return vec![not_checked()] };
    let mut scopes = Scopes::walk(&source, source.root(), names);
    let calls = calls::check(&scopes);
    let mut findings = std::mem::take(&mut scopes.findings);
    findings.extend(calls);
    findings
}

fn not_checked() -> Finding {
    let message = "only the syntax of this source could be checked".to_owned();
    Finding { rule: Rule::NotChecked, line: 1, column: 1, message }
}

/// Rules that a comment `-- @allow rule …` switches off for its file.
fn allowed(text: &[u8]) -> Vec<&str> {
    let mut allowed = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        if let Some(rules) = line.trim_start().strip_prefix("-- @allow ") {
            allowed.extend(rules.split_whitespace());
        }
    }
    allowed
}

/// Where the compiler's message points to: it names a line and often a token on it.
fn syntax_error(text: &[u8], message: &str) -> Finding {
    let located = message.split_once("user_script:").and_then(|(_, rest)| {
        let (line, message) = rest.split_once(": ")?;
        Some((line.parse::<usize>().ok()?, message))
    });
    let Some((line, message)) = located else {
        // About the shebang line.
        let message = message.strip_prefix("ERR ").unwrap_or(message).to_owned();
        return Finding { rule: Rule::Syntax, line: 1, column: 1, message };
    };
    let source_line = text.split(|&byte| byte == b'\n').nth(line - 1).unwrap_or_default();
    let source_line = String::from_utf8_lossy(source_line);
    let characters = |bytes: usize| source_line[..bytes].chars().count() + 1;
    let near = message.rsplit_once(" near ").map(|(_, token)| token);
    let column = match near {
        Some("'<eof>'" | "<eof>") => characters(source_line.len()),
        Some(token) => source_line.find(token.trim_matches('\'')).map_or(1, characters),
        None => 1,
    };
    Finding { rule: Rule::Syntax, line, column, message: message.to_owned() }
}

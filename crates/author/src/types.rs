//! Definition files for editors that speak LuaLS annotations: what a script can name, and
//! `redis.call` with an overload for every command of the table that scripts may call.

use std::fmt::Write as _;

use command::flag;
use command::syntax::{Argument, Kind};
use server::table::{Registered, table};

use crate::{returns, usage};

/// One file to write.
#[derive(Debug)]
pub struct TypeFile {
    pub name: &'static str,
    pub text: String,
}

/// Where `meta/redis.lua` wants the overloads.
const OVERLOADS: &str = "---@overloads\n";

/// All definition files. Equal for equal versions of the program.
pub fn type_files() -> Vec<TypeFile> {
    let overloads = overloads();
    [
        ("redis.lua", include_str!("meta/redis.lua")),
        ("library.lua", include_str!("meta/library.lua")),
        ("script.lua", include_str!("meta/script.lua")),
        ("cjson.lua", include_str!("meta/cjson.lua")),
        ("cmsgpack.lua", include_str!("meta/cmsgpack.lua")),
        ("struct.lua", include_str!("meta/struct.lua")),
        ("bit.lua", include_str!("meta/bit.lua")),
        ("test.lua", include_str!("meta/test.lua")),
    ]
    .map(|(name, text)| TypeFile { name, text: text.replace(OVERLOADS, &overloads) })
    .into()
}

/// An `---@overload` line for every command, in the order of their names.
fn overloads() -> String {
    let mut commands: Vec<&Registered> = callable().collect();
    commands.sort_by_key(|command| command.full_name);
    let mut text = String::new();
    for command in commands {
        for signature in signatures(command) {
            let _ = writeln!(text, "---@overload {signature}");
        }
    }
    text
}

/// What scripts may call; of containers, the subcommands.
fn callable() -> impl Iterator<Item = &'static Registered> {
    let all = table().all.iter();
    all.filter(|command| command.run.is_some() && command.subcommands.is_empty())
        .filter(|command| !command.row.has(flag::NOSCRIPT))
}

/// `fun(command: "GET"|"get", key: string): string|false`; more than one where the reply depends on
/// how many arguments there are.
fn signatures(command: &Registered) -> Vec<String> {
    let mut parameters = Parameters { all: Vec::new(), is_open: false };
    for (at, word) in command.full_name.split('|').enumerate() {
        let name = if at == 0 { "command" } else { "subcommand" };
        let kind = format!("\"{}\"|\"{word}\"", word.to_ascii_uppercase());
        parameters.all.push((name.to_owned(), kind));
    }
    parameters.sequence(&usage::arguments(command));
    let mut words: Vec<String> =
        parameters.all.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
    let of = |words: &[String], kind: &str| format!("fun({}): {kind}", words.join(", "));
    if returns::COUNTED.split_whitespace().any(|name| name == command.full_name) {
        let one = of(&words, "string|false");
        words.push("count: integer|string".to_owned());
        words.push("...: redis.argument".to_owned());
        return vec![one, of(&words, "string[]|false")];
    }
    if parameters.is_open {
        words.push("...: redis.argument".to_owned());
    }
    vec![of(&words, returns::of(command.full_name))]
}

struct Parameters {
    /// Names and types of those that are always there.
    all: Vec<(String, String)>,
    /// Others may follow, of which only the number is open.
    is_open: bool,
}

impl Parameters {
    /// Takes arguments until one may be left out: behind it positions mean nothing.
    fn sequence(&mut self, arguments: &[Argument]) {
        for argument in arguments {
            if self.is_open {
                return;
            }
            self.argument(argument);
        }
    }

    fn argument(&mut self, argument: &Argument) {
        if argument.optional {
            self.is_open = true;
            return;
        }
        let token = argument.token.as_deref();
        match argument.kind {
            Kind::PureToken => self.add(&argument.name, words(token.unwrap_or_default())),
            Kind::OneOf => {
                let tokens = argument.arguments.iter().filter(|of| of.kind == Kind::PureToken);
                let tokens: Vec<&str> = tokens.filter_map(|of| of.token.as_deref()).collect();
                if tokens.len() == argument.arguments.len() {
                    let kinds: Vec<String> = tokens.iter().map(|token| words(token)).collect();
                    self.add(&argument.name, kinds.join("|"));
                } else {
                    // Choices of different length.
                    self.is_open = true;
                }
            }
            kind => {
                if let Some(token) = token {
                    self.add(&token.to_ascii_lowercase(), words(token));
                }
                match kind {
                    Kind::Block => self.sequence(&argument.arguments),
                    Kind::Key | Kind::Pattern => self.add(&argument.name, "string".to_owned()),
                    Kind::Integer | Kind::UnixTime => {
                        self.add(&argument.name, "integer|string".to_owned());
                    }
                    Kind::Double => self.add(&argument.name, "number|string".to_owned()),
                    _ => self.add(&argument.name, "redis.argument".to_owned()),
                }
            }
        }
        self.is_open |= argument.multiple;
    }

    fn add(&mut self, name: &str, kind: String) {
        let mut name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if matches!(name.as_str(), "end" | "function" | "not" | "or" | "and" | "for" | "if") {
            name.push('_');
        }
        let same = self.all.iter().filter(|(other, _)| other.trim_end_matches('_') == name);
        for _ in 0..same.count() {
            name.push('_');
        }
        self.all.push((name, kind));
    }
}

/// A word of the command in both cases that people write.
fn words(token: &str) -> String {
    let lower = token.to_ascii_lowercase();
    if lower == token { format!("\"{token}\"") } else { format!("\"{token}\"|\"{lower}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature_of(name: &str) -> String {
        signatures(table().by_name(name.as_bytes()).unwrap()).join("; ")
    }

    #[test]
    fn signatures_of_commands() {
        assert_eq!(signature_of("get"), r#"fun(command: "GET"|"get", key: string): string|false"#);
        assert_eq!(
            signature_of("rpop"),
            r#"fun(command: "RPOP"|"rpop", key: string): string|false; "#.to_owned()
                + r#"fun(command: "RPOP"|"rpop", key: string, count: integer|string, "#
                + "...: redis.argument): string[]|false"
        );
        assert_eq!(
            signature_of("object|encoding"),
            r#"fun(command: "OBJECT"|"object", subcommand: "ENCODING"|"encoding", key: string): any"#
        );
        assert_eq!(
            signature_of("linsert"),
            "fun(command: \"LINSERT\"|\"linsert\", key: string, \
             where: \"BEFORE\"|\"before\"|\"AFTER\"|\"after\", pivot: redis.argument, \
             element: redis.argument): integer"
        );
        assert_eq!(
            signature_of("mset"),
            "fun(command: \"MSET\"|\"mset\", key: string, value: redis.argument, \
             ...: redis.argument): redis.status"
        );
    }

    #[test]
    fn signatures_take_as_many_arguments_as_the_arity_says() {
        for command in callable() {
            let mut parameters = Parameters { all: Vec::new(), is_open: false };
            parameters.sequence(&usage::arguments(command));
            let names = command.full_name.split('|').count();
            let count = parameters.all.len() + names;
            let least = usize::from(command.row.arity.unsigned_abs());
            let fits = if command.row.arity > 0 {
                !parameters.is_open && count == least
            } else {
                parameters.is_open && count <= least
            };
            assert!(fits, "{}: {} for arity {}", command.full_name, count, command.row.arity);
        }
    }

    #[test]
    fn replies_are_of_commands_that_scripts_may_call() {
        let counted = [("", returns::COUNTED)];
        let all = || returns::RETURNS.iter().chain(&counted);
        for (_, names) in all() {
            for name in names.split_whitespace() {
                let found = table().by_name(name.as_bytes());
                let callable = found.is_none_or(|found| !found.row.has(flag::NOSCRIPT));
                assert!(callable, "{name}");
                let once = all()
                    .flat_map(|(_, names)| names.split_whitespace())
                    .filter(|other| *other == name);
                assert_eq!(once.count(), 1, "{name}");
            }
        }
    }
}

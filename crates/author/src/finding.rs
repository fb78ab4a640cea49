//! What a check has to say about a place in a source.

use std::path::Path;

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The script does not run, or this line of it ends in an error.
    Error,
    /// It runs, and is probably not what was meant.
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident = $name:literal, $severity:ident;)*) => {
        /// Why something is reported.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $($(#[$doc])* $rule),* }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$rule),*];

            /// As `-- @allow name` and the output write it.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$rule => $name),* }
            }

            pub fn severity(self) -> Severity {
                match self { $(Rule::$rule => Severity::$severity),* }
            }
        }
    };
}

rules! {
    /// The compiler refuses it.
    Syntax = "syntax", Error;
    /// A global that no script has.
    UndefinedGlobal = "undefined-global", Error;
    /// Globals cannot be made.
    GlobalAssignment = "global-assignment", Error;
    /// Library tables cannot be changed.
    ReadonlyTable = "readonly-table", Error;
    /// A library has nothing of that name.
    UnknownMember = "unknown-member", Warning;
    UnknownCommand = "unknown-command", Error;
    /// Too many or too few arguments.
    Arity = "arity", Error;
    /// An argument that is neither a string nor a number.
    ArgumentType = "argument-type", Error;
    /// A command that scripts may not call.
    NotInScripts = "not-in-scripts", Error;
    /// A key that is not from KEYS.
    UndeclaredKey = "undeclared-key", Warning;
    /// Lua tables begin at 1.
    IndexZero = "index-zero", Warning;
    /// Code made at run time, compiled again and again.
    DynamicCode = "dynamic-code", Warning;
    /// Text with a hole that a program seems to fill in.
    TemplateText = "template-text", Warning;
    /// A part the checks do not understand although it compiles.
    NotChecked = "not-checked", Warning;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}

impl Finding {
    /// The line for people, as compilers print it.
    pub fn text(&self, path: &Path) -> String {
        format!(
            "{}:{}:{}: {}: {} [{}]",
            path.display(),
            self.line,
            self.column,
            self.rule.severity().name(),
            self.message,
            self.rule.name()
        )
    }

    /// The object for programs.
    pub fn json(&self, path: &Path) -> Value {
        json!({
            "file": path.to_string_lossy(),
            "line": self.line,
            "column": self.column,
            "severity": self.rule.severity().name(),
            "rule": self.rule.name(),
            "message": self.message,
        })
    }
}

/// `1 error`, `2 errors`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

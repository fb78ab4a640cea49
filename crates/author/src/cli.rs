//! `luar script …`: arguments, files and exit codes.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use crate::check::Checker;
use crate::finding::{Severity, counted};
use crate::test::{self, TestPlan, run_tests};
use crate::types::type_files;

const USAGE: &str = "\
Usage: luar script check FILE|DIR ... [--json] [--strict]
       luar script test FILE|DIR [--scripts DIR] [--rewrite]
       luar script types [DIR]

check  reads Lua scripts and reports what cannot work or is probably not meant. A directory stands
       for every .lua file below it. Exit code 1 when there are errors, with --strict also when
       there are warnings, 2 when a file cannot be read. --json writes one array for programs.
       A comment `-- @allow RULE ...` on a line of its own switches rules off for its file.
test   runs the files *.talk and *.test.lua below a directory against an engine of its own, whose
       clock stands still until a test moves it. Scripts are found beside the test, or in the
       directory of --scripts. --rewrite fills in what was answered into talk files.
types  writes definition files for editors with LuaLS annotations (default: lua-types).
";

/// What went wrong before there was anything to check.
const TROUBLE: u8 = 2;

/// Runs `luar script` with what stands behind these two words.
pub fn main(args: &[OsString]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect();
    let outcome = match words.first() {
        Some(&"check") => check(&args[1..]),
        Some(&"test") => test(&args[1..]),
        Some(&"types") => types(&args[1..]),
        Some(&"--help" | &"-h") => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(format!("check, test or types?\n\n{USAGE}")),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("luar script: {message}");
        ExitCode::from(TROUBLE)
    })
}

fn check(args: &[OsString]) -> Result<ExitCode, String> {
    let (mut json, mut strict) = (false, false);
    let mut files = Vec::new();
    for arg in args {
        match arg.to_str() {
            Some("--json") => json = true,
            Some("--strict") => strict = true,
            Some(option) if option.starts_with("--") => {
                return Err(format!("unknown option {option}\n\n{USAGE}"));
            }
            _ => collect(Path::new(arg), true, &mut files)?,
        }
    }
    if files.is_empty() {
        return Err(format!("no Lua files to check\n\n{USAGE}"));
    }
    let mut checker = Checker::default();
    let mut count = [0; 2];
    let mut objects = Vec::new();
    let mut text = String::new();
    for path in &files {
        let source = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for finding in checker.check(&source, test::is_lua(path)) {
            count[usize::from(finding.rule.severity() == Severity::Warning)] += 1;
            if json {
                objects.push(finding.json(path));
            } else {
                text += &finding.text(path);
                text.push('\n');
            }
        }
    }
    let [errors, warnings] = count;
    if json {
        text = format!("{:#}\n", Value::Array(objects));
    } else if errors + warnings > 0 {
        let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
        text += &format!("{errors}, {warnings} in {}\n", counted(files.len(), "file"));
    }
    // Whoever reads may have had enough.
    let _ = io::stdout().write_all(text.as_bytes());
    let fails = errors > 0 || (strict && warnings > 0);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds a file that was named, or every Lua file below a directory, sorted.
fn collect(path: &Path, is_named: bool, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if fs::metadata(path).map_err(failed)?.is_dir() {
        let mut inside: Vec<PathBuf> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(failed)?;
        inside.sort();
        for path in inside.iter().filter(|path| !path.is_symlink()) {
            collect(path, false, files)?;
        }
    } else if is_named || path.extension().is_some_and(|extension| extension == "lua") {
        files.push(path.to_owned());
    }
    Ok(())
}

fn test(args: &[OsString]) -> Result<ExitCode, String> {
    let mut plan = TestPlan { path: PathBuf::new(), scripts: None, rewrite: false };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("--rewrite") => plan.rewrite = true,
            Some("--scripts") => {
                let directory = rest.next().ok_or("--scripts needs a directory")?;
                plan.scripts = Some(PathBuf::from(directory));
            }
            Some(option) if option.starts_with("--") => {
                return Err(format!("unknown option {option}\n\n{USAGE}"));
            }
            _ if plan.path.as_os_str().is_empty() => plan.path = PathBuf::from(arg),
            _ => return Err(format!("one file or directory, please\n\n{USAGE}")),
        }
    }
    if plan.path.as_os_str().is_empty() {
        return Err(format!("no test files to run\n\n{USAGE}"));
    }
    let outcome = run_tests(&plan)?;
    Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn types(args: &[OsString]) -> Result<ExitCode, String> {
    let directory = match args {
        [] => Path::new("lua-types"),
        [directory] if !directory.to_string_lossy().starts_with('-') => Path::new(directory),
        _ => return Err(format!("one directory, please\n\n{USAGE}")),
    };
    let failed = |error: io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    for file in type_files() {
        fs::write(directory.join(file.name), file.text).map_err(failed)?;
    }
    let settings = serde_json::json!({
        "runtime.version": "LuaJIT",
        "workspace.library": [directory.to_string_lossy()],
    });
    println!("{} is written. In .luarc.json:\n{settings:#}", directory.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use crate::finding::Rule;

    #[test]
    fn rules_have_names_of_their_own() {
        for rule in Rule::ALL {
            let same = Rule::ALL.iter().filter(|other| other.name() == rule.name());
            assert_eq!(same.count(), 1, "{}", rule.name());
        }
    }
}

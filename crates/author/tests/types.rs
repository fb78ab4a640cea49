//! Definition files: valid Lua, and complete.

use author::{Checker, type_files};

#[test]
fn files_are_valid_lua() {
    let mut checker = Checker::default();
    for file in type_files() {
        assert!(file.text.starts_with("---@meta\n"), "{}", file.name);
        for found in checker.check(file.text.as_bytes(), false) {
            // They define what scripts may not: that is all there is to say.
            let rule = found.rule.name();
            assert!(
                matches!(rule, "global-assignment" | "readonly-table"),
                "{}: {found:?}",
                file.name
            );
        }
    }
}

#[test]
fn every_member_is_described_and_none_else() {
    let checker = Checker::default();
    let files = type_files();
    for library in ["redis", "cjson", "cmsgpack", "struct", "bit"] {
        let file = files.iter().find(|file| file.name == format!("{library}.lua")).unwrap();
        let members = checker.names().library(library).unwrap();
        let described: Vec<&str> = file
            .text
            .lines()
            .skip_while(|line| *line != format!("---@class {library}"))
            .filter_map(|line| {
                let function = line.strip_prefix(&format!("function {library}."));
                function
                    .and_then(|rest| Some(rest.split_once('(')?.0))
                    .or_else(|| Some(line.strip_prefix("---@field ")?.split_once(' ')?.0))
            })
            .collect();
        for member in members {
            assert!(described.contains(&member.as_str()), "{library}.{member} is missing");
        }
        for name in described {
            assert!(members.contains(name), "{library}.{name} is not there");
        }
    }
    assert!(checker.names().is_global("KEYS"));
}

#[test]
fn calls_have_an_overload_for_each_command() {
    let files = type_files();
    let redis = &files.iter().find(|file| file.name == "redis.lua").unwrap().text;
    let get = "---@overload fun(command: \"GET\"|\"get\", key: string): string|false\n";
    assert_eq!(redis.matches(get).count(), 2, "for call and for pcall");
    assert!(redis.matches("---@overload ").count() > 300);
    assert!(!redis.contains("---@overloads"));
    assert!(!redis.contains("\"EVAL\""), "scripts cannot call it");
}

//! Filling in expectations: replaces the lines of those that a run did not fit.

use std::ops::Range;

/// New text for the lines of one expectation.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit {
    pub lines: Range<usize>,
    pub text: String,
}

/// Applies edits to the lines of a file; they must not overlap.
pub fn apply(lines: &[String], mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.lines.start);
    let mut out = String::new();
    let mut at = 0;
    let copy = |from: usize, to: usize, out: &mut String| {
        for line in &lines[from..to] {
            out.push_str(line);
            out.push('\n');
        }
    };
    for edit in edits {
        copy(at, edit.lines.start, &mut out);
        out.push_str(&edit.text);
        out.push('\n');
        at = edit.lines.end;
    }
    copy(at, lines.len(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_replace_and_insert() {
        let lines: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let edits = vec![
            Edit { lines: 3..3, text: "end".to_owned() },
            Edit { lines: 1..2, text: "x\ny".to_owned() },
        ];
        assert_eq!(apply(&lines, edits), "a\nx\ny\nc\nend\n");
    }
}

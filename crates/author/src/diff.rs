//! Expected and actual text side by side, for people.

/// More lines than this are not matched with each other: the table would be large.
const LINES_MAX: usize = 2000;

/// Two single lines with a mark under the first difference; more lines as a diff.
pub fn show(expected: &str, actual: &str) -> String {
    let expected: Vec<&str> = expected.lines().collect();
    let actual: Vec<&str> = actual.lines().collect();
    match (&expected[..], &actual[..]) {
        ([expected], [actual]) => one_line(expected, actual),
        _ => many_lines(&expected, &actual),
    }
}

fn one_line(expected: &str, actual: &str) -> String {
    let same = expected.chars().zip(actual.chars()).take_while(|(a, b)| a == b).count();
    let mark = " ".repeat(same);
    format!("  expected  {expected}\n  got       {actual}\n            {mark}^")
}

/// Lines only expected with `-`, lines only answered with `+`, others with neither.
fn many_lines(expected: &[&str], actual: &[&str]) -> String {
    let mut out = vec!["  - expected, + got".to_owned()];
    let mut line = |mark: char, text: &str| out.push(format!("  {mark} {text}"));
    let is_large = expected.len() > LINES_MAX || actual.len() > LINES_MAX;
    let common = if is_large { Vec::new() } else { common_lengths(expected, actual) };
    let (mut from, mut to) = (0, 0);
    while from < expected.len() && to < actual.len() && !is_large {
        if expected[from] == actual[to] {
            line(' ', expected[from]);
            (from, to) = (from + 1, to + 1);
        } else if common[from + 1][to] >= common[from][to + 1] {
            line('-', expected[from]);
            from += 1;
        } else {
            line('+', actual[to]);
            to += 1;
        }
    }
    expected[from..].iter().for_each(|text| line('-', text));
    actual[to..].iter().for_each(|text| line('+', text));
    out.join("\n")
}

/// Length of the longest common subsequence of what is left, for each pair of places.
/// O(n·m) in time and memory.
fn common_lengths(expected: &[&str], actual: &[&str]) -> Vec<Vec<u32>> {
    let mut common = vec![vec![0; actual.len() + 1]; expected.len() + 1];
    for from in (0..expected.len()).rev() {
        for to in (0..actual.len()).rev() {
            common[from][to] = if expected[from] == actual[to] {
                common[from + 1][to + 1] + 1
            } else {
                common[from + 1][to].max(common[from][to + 1])
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_marked() {
        assert_eq!(
            show("[:1 :2]", "[:1 :3]"),
            "  expected  [:1 :2]\n  got       [:1 :3]\n                 ^"
        );
        assert_eq!(show("a", "ab"), "  expected  a\n  got       ab\n             ^");
    }

    #[test]
    fn lines_in_common_stand_once() {
        assert_eq!(
            show("[\n  :1\n  :2\n]", "[\n  :2\n  :3\n]"),
            "  - expected, + got\n    [\n  -   :1\n      :2\n  +   :3\n    ]"
        );
        assert_eq!(show("", ":1"), "  - expected, + got\n  + :1");
        assert_eq!(show(":1", ":1\n:2"), "  - expected, + got\n    :1\n  + :2");
    }
}

//! Glob patterns of KEYS, SCAN, PSUBSCRIBE, CONFIG GET and ACLs.
//!
//! `?` any byte, `*` any bytes, `[abc]`, `[a-z]`, `[^a-z]`, backslash for a literal; quirks as in
//! Redis (an unclosed class ends with the pattern), but for one: an empty text matches stars.
//! One star is remembered at a time, as in the classical iterative wildcard match: a later star
//! makes going back to an earlier one pointless, so matching takes at most pattern × text steps.

/// Whether all of `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    let mut p = 0;
    let mut t = 0;
    // Pattern position behind the last star, and the text position it was last tried at.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            while p < pattern.len() && pattern[p] == b'*' {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            star = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        if p < pattern.len() {
            let (matched, next) = match_one(pattern, p, text[t], ignore_case);
            if matched {
                p = next;
                t += 1;
                continue;
            }
        }
        match star {
            Some((behind, tried)) => {
                star = Some((behind, tried + 1));
                p = behind;
                t = tried + 1;
            }
            None => return false,
        }
    }
}

/// Whether the pattern item at `p` matches the byte, and where the next item begins.
fn match_one(pattern: &[u8], p: usize, byte: u8, ignore_case: bool) -> (bool, usize) {
    let fold = |byte: u8| if ignore_case { byte.to_ascii_lowercase() } else { byte };
    match pattern[p] {
        b'?' => (true, p + 1),
        b'[' => match_class(pattern, p + 1, byte, ignore_case),
        b'\\' if p + 1 < pattern.len() => (fold(pattern[p + 1]) == fold(byte), p + 2),
        literal => (fold(literal) == fold(byte), p + 1),
    }
}

/// As [`match_one`] for a class whose text begins at `p`, behind the bracket.
fn match_class(pattern: &[u8], mut p: usize, byte: u8, ignore_case: bool) -> (bool, usize) {
    let fold = |byte: u8| if ignore_case { byte.to_ascii_lowercase() } else { byte };
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let byte = fold(byte);
    let mut matched = false;
    loop {
        match pattern[p.min(pattern.len())..] {
            [] => break,
            [b']', ..] => {
                p += 1;
                break;
            }
            [b'\\', literal, ..] => {
                matched |= fold(literal) == byte;
                p += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (from.min(to), from.max(to));
                matched |= (fold(from)..=fold(to)).contains(&byte);
                p += 3;
            }
            [literal, ..] => {
                matched |= fold(literal) == byte;
                p += 1;
            }
        }
    }
    (matched != negated, p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), false)
    }

    #[test]
    fn the_usual_patterns() {
        assert!(check("*", ""));
        assert!(check("h?llo", "hello"));
        assert!(!check("h?llo", "hllo"));
        assert!(check("h*llo", "heeeello"));
        assert!(check("h[ae]llo", "hallo"));
        assert!(!check("h[ae]llo", "hillo"));
        assert!(check("h[^e]llo", "hallo"));
        assert!(!check("h[^e]llo", "hello"));
        assert!(check("h[a-b]llo", "hbllo"));
        assert!(check("h[b-a]llo", "hallo"));
        assert!(check(r"h\*llo", "h*llo"));
        assert!(!check(r"h\*llo", "hello"));
        assert!(check(r"[\]]", "]"));
        assert!(check("user:*:name", "user:1:2:name"));
        assert!(!check("user:*:name", "user:1:2:nam"));
        assert!(check("a*b*c", "axxbxxbc"));
        assert!(!check("", "a"));
        assert!(check("", ""));
        assert!(matches(b"HeLLo[A-C]", b"hEllOb", true));
        assert!(!matches(b"HeLLo", b"hEllO", false));
    }

    #[test]
    fn odd_ends_of_patterns() {
        assert!(check("[abc", "b"));
        assert!(!check("[", ""));
        assert!(check("a\\", "a\\"));
        assert!(check("[^", "x"));
        assert!(!check("[]", "x"));
        assert!(check("[a-", "-"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(2000) + "b";
        let text = "a".repeat(20_000);
        assert!(!check(&pattern, &text));
    }

    /// The definition, exponential and obviously right, for patterns without classes.
    fn model(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                model(rest, text) || !text.is_empty() && model(pattern, &text[1..])
            }
            ([b'?', p @ ..], [_, t @ ..]) => model(p, t),
            ([a, p @ ..], [b, t @ ..]) if a == b => model(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[abc]{0,10}") {
            prop_assert_eq!(check(&pattern, &text), model(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_bytes_end(pattern in prop::collection::vec(any::<u8>(), 0..30),
                         text in prop::collection::vec(any::<u8>(), 0..30)) {
            matches(&pattern, &text, true);
            let mut class = b"[".to_vec();
            class.extend(&pattern);
            matches(&class, &text, false);
        }
    }
}

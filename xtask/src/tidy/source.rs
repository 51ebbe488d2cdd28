//! Rust text without its comments and literals, and the words that remain.
//! It refuses to parse further: a rule about names needs no syntax tree.

/// Replaces comments and the contents of string and character literals by blanks. Lines keep their numbers.
pub(super) fn code_of(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        let skipped = comment(rest)
            .or_else(|| raw_string(rest, at.checked_sub(1).map(|before| characters[before])))
            .or_else(|| string(rest))
            .or_else(|| character(rest));
        match skipped {
            Some(length) => {
                code.extend(
                    rest[..length]
                        .iter()
                        .map(|c| if *c == '\n' { '\n' } else { ' ' }),
                );
                at += length;
            }
            None => {
                code.push(characters[at]);
                at += 1;
            }
        }
    }
    code
}

/// Identifiers, keywords and numbers with the line they are on, from 1.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split(|c: char| !is_word(c))
            .filter(|word| !word.is_empty())
            .map(move |word| (index + 1, word))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment that `rest` starts with. Block comments nest.
fn comment(rest: &[char]) -> Option<usize> {
    match rest {
        ['/', '/', ..] => Some(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => {
            let mut depth = 0_usize;
            let mut at = 0;
            loop {
                match &rest[at..] {
                    ['/', '*', ..] => {
                        depth += 1;
                        at += 2;
                    }
                    ['*', '/', ..] => {
                        depth -= 1;
                        at += 2;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    [] => return Some(at),
                    _ => at += 1,
                }
            }
        }
        _ => None,
    }
}

/// The length of `r"…"`, `r#"…"#` and their `br`, `cr` forms (which arrive here at their `r`).
fn raw_string(rest: &[char], before: Option<char>) -> Option<usize> {
    let ['r', tail @ ..] = rest else {
        return None;
    };
    // The end of an identifier such as `for`; `b` and `c` alone are prefixes, or as rare as `b r"…"`.
    if before.is_some_and(|c| is_word(c) && c != 'b' && c != 'c') {
        return None;
    }
    let hashes = tail.iter().take_while(|c| **c == '#').count();
    if tail.get(hashes) != Some(&'"') {
        return None;
    }
    let start = 1 + hashes + 1;
    let closes = |at: usize| {
        rest[at] == '"'
            && rest[at + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes
    };
    let end = (start..rest.len()).find(|at| closes(*at));
    Some(end.map_or(rest.len(), |at| at + 1 + hashes))
}

/// The length of `"…"`.
fn string(rest: &[char]) -> Option<usize> {
    if rest.first() != Some(&'"') {
        return None;
    }
    let mut at = 1;
    while let Some(c) = rest.get(at) {
        match c {
            '"' => return Some(at + 1),
            '\\' => at += 2,
            _ => at += 1,
        }
    }
    Some(rest.len())
}

/// The length of `'…'`; a lifetime is none.
fn character(rest: &[char]) -> Option<usize> {
    match rest {
        ['\'', '\\', _, tail @ ..] => Some(3 + tail.iter().position(|c| *c == '\'')? + 1),
        ['\'', _, '\'', ..] => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remaining(text: &str) -> Vec<String> {
        words(&code_of(text))
            .map(|(_, word)| word.to_owned())
            .collect()
    }

    #[test]
    fn comments_of_both_kinds_are_blank() {
        assert_eq!(
            remaining("a // b\nc /* d /* e */ f */ g /// h"),
            ["a", "c", "g"]
        );
    }

    #[test]
    fn strings_are_blank_whatever_they_contain() {
        assert_eq!(
            remaining(r##"a("b \" c", r"d\", br#"e " f"#, b"g") h"##),
            ["a", "b", "b", "h"],
            "only the prefixes b remain"
        );
        assert_eq!(remaining("for x in \"//\" { y }"), ["for", "x", "in", "y"]);
    }

    #[test]
    fn characters_are_blank_and_lifetimes_are_not() {
        assert_eq!(
            remaining(r"f::<'a>('\'', '\u{41}', '/', '/', 'b') g"),
            ["f", "a", "g"]
        );
    }

    #[test]
    fn raw_identifiers_are_words() {
        assert_eq!(remaining("r#type = 1"), ["r", "type", "1"]);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = code_of("/* one\ntwo */\n\"three\nfour\"\nfive");
        assert_eq!(words(&code).collect::<Vec<_>>(), [(5, "five")]);
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_file() {
        for text in ["\"abc", "/* abc", "r#\"abc\"", "'\\", "\"abc\\", "// abc"] {
            assert_eq!(
                code_of(text).chars().count(),
                text.chars().count(),
                "{text}"
            );
        }
    }
}

//! Tests of path patterns.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{PathError, PathPattern};

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap()
}

#[test]
fn a_pattern_means_what_it_says() {
    for (pattern_text, path, expected) in [
        ("/v1/messages", "/v1/messages", true),
        ("/v1/messages", "/v1/messages/", false),
        ("/v1/messages", "/v1/Messages", false),
        ("/v1/messages", "/v1/message", false),
        ("/v1/messages", "", false),
        ("/v1/*", "/v1/models", true),
        ("/v1/*", "/v1/", true),
        ("/v1/*", "/v1", false),
        ("/v1/*", "/v1/models/gpt", false),
        ("/v1/*/edit", "/v1/a/edit", true),
        ("/v1/*/edit", "/v1/a/b/edit", false),
        ("/v1/m*s", "/v1/models", true),
        ("/v1/m*s", "/v1/model", false),
        ("/v1/**", "/v1/a/b/c", true),
        ("/v1/**", "/v1/", true),
        ("/v1/**", "/v2/a", false),
        ("/**/edit", "/a/b/edit", true),
        ("/**/edit", "/edit", false),
        ("/a***b", "/a/x/b", true),
        ("/", "/", true),
        ("/", "/a", false),
    ] {
        assert_eq!(
            pattern(pattern_text).matches(path),
            expected,
            "{pattern_text} and {path}"
        );
    }
}

#[test]
fn a_path_that_servers_read_differently_is_meant_by_everything_alone() {
    for path in [
        "/v1/../admin",
        "/v1/./admin",
        "/v1/..",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/%2fadmin",
        "/v1/%5cadmin",
        "/v1/..\\admin",
        "/v1/..;x=1/admin",
        "/v1/a%00",
    ] {
        assert!(!pattern("/v1/**").matches(path), "{path}");
        assert!(pattern("/**").matches(path), "{path}");
    }
    for path in ["/v1/...", "/v1/a..b", "/v1/.well-known", "/v1/%20"] {
        assert!(pattern("/v1/**").matches(path), "{path}");
    }
}

#[test]
fn what_could_never_match_is_refused() {
    for (text, error) in [
        ("v1", PathError::Relative),
        ("", PathError::Relative),
        ("**", PathError::Relative),
        ("/a?b", PathError::Query),
        ("/a#b", PathError::Query),
        ("/a b", PathError::Character),
        ("/ü", PathError::Character),
        ("/a/../b", PathError::Unmatchable),
        ("/a%2Fb", PathError::Unmatchable),
    ] {
        assert_eq!(PathPattern::parse(text), Err(error), "{text}");
    }
    assert!(PathPattern::parse(&format!("/{}", "a".repeat(1023))).is_ok());
    assert_eq!(
        PathPattern::parse(&format!("/{}", "a".repeat(1024))),
        Err(PathError::TooLong)
    );
}

#[test]
fn the_worst_pattern_is_linear_in_the_path() {
    let worst = pattern(&format!("/{}b", "*a".repeat(40)));
    let time = |length: usize| {
        let path = format!("/{}", "a".repeat(length));
        let start = Instant::now();
        assert!(!worst.matches(&path));
        start.elapsed()
    };
    time(1000);
    // With backtracking, 40 wildcards over 60,000 characters would not end.
    assert!(time(60_000) < Duration::from_secs(10));
}

/// The definition, by trying every split; exponential, hence for short texts.
fn reference(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|cut| reference(rest, &path[cut..])),
        [b'*', rest @ ..] => (0..=path.len())
            .take_while(|cut| !path[..*cut].contains(&b'/'))
            .any(|cut| reference(rest, &path[cut..])),
        [byte, rest @ ..] => path.first() == Some(byte) && reference(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_the_definition(text in "/[ab/*]{0,7}", path in "/[ab/]{0,8}") {
        prop_assert_eq!(
            pattern(&text).matches(&path),
            reference(text.as_bytes(), path.as_bytes())
        );
    }

    #[test]
    fn a_pattern_without_wildcards_means_itself_alone(text in "/[a-z/]{0,12}", path in "/[a-z/]{0,12}") {
        let pattern = pattern(&text);
        prop_assert!(pattern.matches(&text));
        prop_assert_eq!(pattern.matches(&path), text == path);
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,40}", path in "\\PC{0,40}") {
        if let Ok(pattern) = PathPattern::parse(&text) {
            let relative = format!("x{path}");
            prop_assert!(!pattern.matches(&relative), "{relative}");
            prop_assert_eq!(pattern.to_string(), text);
        }
    }
}

#[test]
fn a_prefix_ends_where_a_segment_does_and_an_exact_path_is_itself() {
    let prefix = |text: &str| PathPattern::prefix(text).unwrap();
    for (text, path, expected) in [
        ("/repos/acme", "/repos/acme", true),
        ("/repos/acme", "/repos/acme/", true),
        ("/repos/acme", "/repos/acme/a/b", true),
        ("/repos/acme", "/repos/acmex", false),
        ("/repos/acme", "/repos", false),
        ("/repos/acme/", "/repos/acme", true),
        ("/repos/acme", "/repos/acme/../other", false),
        ("/repos/acme", "/repos/acme/%2e%2e/other", false),
        ("/a*", "/ab", false),
        ("/a*", "/a*/b", true),
        ("/", "/anything/at/all", true),
    ] {
        assert_eq!(prefix(text).matches(path), expected, "{text} and {path}");
    }
    let exact = |text: &str| PathPattern::exact(text).unwrap();
    assert!(exact("/a*").matches("/a*"));
    assert!(!exact("/a*").matches("/ab"));
    assert!(!exact("/a").matches("/a/"));
    assert_eq!(PathPattern::exact("a"), Err(PathError::Relative));
    assert_eq!(PathPattern::prefix("/a/../b"), Err(PathError::Unmatchable));
}

#[test]
fn a_prefix_covers_and_meets_what_lies_below_it() {
    let prefix = PathPattern::prefix("/repos").unwrap();
    for (text, covers, overlaps) in [
        ("/repos", true, true),
        ("/repos/*/x", true, true),
        ("/repos*", false, true),
        ("/other/**", false, false),
        ("/**", false, true),
    ] {
        assert_eq!(prefix.covers(&pattern(text)), covers, "{text}");
        assert_eq!(prefix.overlaps(&pattern(text)), overlaps, "{text}");
    }
    assert!(pattern("/**").covers(&prefix));
    assert!(!pattern("/repos").covers(&prefix));
}

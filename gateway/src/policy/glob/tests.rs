//! Tests of globs: the questions that paths, models and cgroups ask of them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::Glob;

/// Every text of at most `length` letters.
fn texts(length: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..length {
        last = last
            .iter()
            .flat_map(|text| ["a", "b", "/"].map(|letter| format!("{text}{letter}")))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

#[test]
fn a_pattern_without_segments_crosses_slashes() {
    assert!(Glob::whole("us.*claude*").matches("us.anthropic/claude-3"));
    assert!(!Glob::whole("claude-*").matches("Claude-3"));
    assert!(!Glob::segmented("claude*").matches("claude/3"));
    assert!(Glob::whole("*").matches(""));
}

#[test]
fn a_literal_star_is_itself() {
    assert!(Glob::literal("/a*").matches("/a*"));
    assert!(!Glob::literal("/a*").matches("/ab"));
    assert!(Glob::below("/a*").matches("/a*/b/c"));
    assert!(!Glob::below("/a").matches("/ab"));
    assert!(!Glob::below("/a").matches("/a"));
}

#[test]
fn what_covers_what() {
    for (one, other, expected) in [
        ("/v1/**", "/v1/a", true),
        ("/v1/**", "/v1/*/b", true),
        ("/v1/**", "/v1", false),
        ("/v1/*", "/v1/a", true),
        ("/v1/*", "/v1/a/b", false),
        ("/v1/*", "/v1/**", false),
        ("/v1/*/x", "/v1/a/x", true),
        ("/v1/a", "/v1/*", false),
        ("/**", "/", true),
    ] {
        let (one_glob, other_glob) = (Glob::segmented(one), Glob::segmented(other));
        assert_eq!(one_glob.covers(&other_glob), expected, "{one} over {other}");
    }
}

proptest! {
    #[test]
    fn two_patterns_overlap_if_some_text_matches_both(one in "[ab/*]{0,4}", other in "[ab/*]{0,4}") {
        let (one, other) = (Glob::segmented(&one), Glob::segmented(&other));
        let meet = texts(5).iter().any(|text| one.matches(text) && other.matches(text));
        // The shortest text that both match is no longer than all their letters.
        if meet {
            prop_assert!(one.overlaps(&other));
        }
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
    }

    #[test]
    fn patterns_of_few_letters_overlap_only_if_some_short_text_matches_both(
        one in "[ab/*]{0,3}", other in "[ab/*]{0,3}"
    ) {
        let (one, other) = (Glob::segmented(&one), Glob::segmented(&other));
        let meet = texts(6).iter().any(|text| one.matches(text) && other.matches(text));
        prop_assert_eq!(one.overlaps(&other), meet);
    }

    #[test]
    fn a_pattern_that_covers_another_matches_what_it_matches(one in "[ab/*]{0,5}", other in "[ab/*]{0,5}") {
        let (one, other) = (Glob::segmented(&one), Glob::segmented(&other));
        if one.covers(&other) {
            for text in texts(5) {
                prop_assert!(!other.matches(&text) || one.matches(&text), "{}", text);
            }
        }
    }
}

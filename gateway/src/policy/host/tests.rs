//! Tests of host names and patterns.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::{Host, HostError, HostPattern};

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn pattern(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

#[test]
fn one_name_has_one_spelling() {
    for (written, canonical) in [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ。com", "example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("r3---sn-a.example.com", "r3---sn-a.example.com"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(host(written).as_str(), canonical, "{written}");
    }
}

#[test]
fn what_is_no_name_is_refused() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = ["a".repeat(63).as_str(); 4].join(".");
    for text in [
        "a b",
        "a\0b",
        "a\tb",
        "a\nb",
        "a..b",
        ".a",
        "a..",
        "a/b",
        "a:443",
        "user@a",
        "a%41",
        "a?b",
        "a#b",
        "a\\b",
        "a*b",
        "a,b",
        "xn--a",
        long_label.as_str(),
        long_name.as_str(),
    ] {
        assert_eq!(Host::parse(text), Err(HostError::Invalid), "{text:?}");
    }
    for text in ["", "."] {
        assert_eq!(Host::parse(text), Err(HostError::Empty), "{text:?}");
    }
}

#[test]
fn an_address_in_any_spelling_is_no_name() {
    for text in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0x7f000001",
        "0X7F000001",
        "0x",
        "example.1",
        "[::1]",
        "::1",
        "::ffff:10.0.0.1",
        "１２７.0.0.1",
    ] {
        assert_eq!(Host::parse(text), Err(HostError::Address), "{text:?}");
    }
    assert_eq!(host("0x7f.example").as_str(), "0x7f.example");
    assert_eq!(
        host("127.0.0.1.nip.example").as_str(),
        "127.0.0.1.nip.example"
    );
}

#[test]
fn a_name_may_have_253_bytes_and_no_more() {
    let label = "a".repeat(63);
    let at_the_limit = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(at_the_limit.len(), 253);
    assert_eq!(host(&at_the_limit).as_str(), at_the_limit);
    assert_eq!(host(&format!("{at_the_limit}.")).as_str(), at_the_limit);
    assert_eq!(
        Host::parse(&format!("{at_the_limit}a")),
        Err(HostError::Invalid)
    );
}

#[test]
fn wildcards_count_labels_and_never_mean_the_name_below() {
    for (pattern_text, matching, other) in [
        (
            "example.com",
            vec!["example.com", "EXAMPLE.com."],
            vec!["a.example.com", "com"],
        ),
        (
            "*.example.com",
            vec!["a.example.com"],
            vec![
                "example.com",
                "a.b.example.com",
                "aexample.com",
                "a.example.com.evil",
            ],
        ),
        (
            "**.example.com",
            vec!["a.example.com", "a.b.example.com"],
            vec!["example.com", "badexample.com", "example.com.evil"],
        ),
        ("**", vec!["example.com", "localhost"], vec![]),
        (
            "*.BÜCHER.example",
            vec!["a.xn--bcher-kva.example"],
            vec!["bücher.example"],
        ),
    ] {
        let pattern = pattern(pattern_text);
        for text in matching {
            assert!(pattern.matches(&host(text)), "{pattern_text} means {text}");
        }
        for text in other {
            assert!(
                !pattern.matches(&host(text)),
                "{pattern_text} does not mean {text}"
            );
        }
    }
}

#[test]
fn patterns_that_could_be_misread_are_refused() {
    assert_eq!(HostPattern::parse("*"), Err(HostError::LoneStar));
    for text in [
        "a.*",
        "a*.example.com",
        "*a.example.com",
        "*.*.example.com",
        "**.*.a",
        "***",
        "***.a",
    ] {
        assert_eq!(HostPattern::parse(text), Err(HostError::Wildcard), "{text}");
    }
    assert_eq!(HostPattern::parse("*."), Err(HostError::Empty));
    assert_eq!(HostPattern::parse("*.10.0.0.1"), Err(HostError::Address));
}

#[test]
fn a_pattern_prints_as_it_is_written() {
    for text in ["a.example", "*.a.example", "**.a.example", "**"] {
        assert_eq!(pattern(text).to_string(), text);
    }
}

fn any_host() -> impl Strategy<Value = Host> {
    proptest::collection::vec("[ab]", 1..5).prop_map(|labels| host(&labels.join(".")))
}

fn any_pattern() -> impl Strategy<Value = HostPattern> {
    (any_host(), 0..4_u8).prop_map(|(host, kind)| match kind {
        0 => HostPattern::Exact(host),
        1 => HostPattern::OneLabel(host),
        2 => HostPattern::Labels(host),
        _ => HostPattern::Any,
    })
}

proptest! {
    #[test]
    fn parsing_never_panics_and_is_idempotent(text in "\\PC{0,80}") {
        if let Ok(parsed) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(parsed.as_str()), Ok(parsed.clone()));
            prop_assert!(parsed.as_str().is_ascii() && parsed.as_str().len() <= 253);
        }
        if let Ok(parsed) = HostPattern::parse(&text) {
            prop_assert_eq!(HostPattern::parse(&parsed.to_string()), Ok(parsed));
        }
    }

    #[test]
    fn matching_agrees_with_counting_labels(pattern in any_pattern(), host in any_host()) {
        let labels = |host: &Host| host.as_str().split('.').map(str::to_owned).collect::<Vec<_>>();
        let name = labels(&host);
        let expected = match &pattern {
            HostPattern::Exact(exact) => name == labels(exact),
            HostPattern::OneLabel(parent) => name.get(1..) == Some(&labels(parent)[..]),
            HostPattern::Labels(parent) => {
                let parent = labels(parent);
                name.len() > parent.len() && name.ends_with(&parent)
            }
            HostPattern::Any => true,
        };
        prop_assert_eq!(pattern.matches(&host), expected);
    }

    #[test]
    fn two_patterns_that_mean_one_host_overlap(one in any_pattern(), other in any_pattern(), host in any_host()) {
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
        if one.matches(&host) && other.matches(&host) {
            prop_assert!(one.overlaps(&other));
        }
    }

    #[test]
    fn patterns_that_overlap_mean_some_host_both(one in any_pattern(), other in any_pattern()) {
        // A witness lies at or just below one of the two names.
        let names = [&one, &other].map(|pattern| match pattern {
            HostPattern::Exact(host) | HostPattern::OneLabel(host) | HostPattern::Labels(host) => host.clone(),
            HostPattern::Any => host("a"),
        });
        let witness = names.iter().any(|name| {
            let below = host(&format!("a.{name}"));
            [name, &below].into_iter().any(|host| one.matches(host) && other.matches(host))
        });
        prop_assert_eq!(one.overlaps(&other), witness);
    }
}

proptest! {
    #[test]
    fn a_pattern_that_covers_another_means_its_hosts_too(
        one in r"(\*\.|\*\*\.)?[ab](\.[ab]){0,2}", other in r"(\*\.|\*\*\.)?[ab](\.[ab]){0,2}", name in r"[abc](\.[ab]){0,4}"
    ) {
        let (one, other, name) = (pattern(&one), pattern(&other), host(&name));
        if one.covers(&other) {
            prop_assert!(!other.matches(&name) || one.matches(&name));
            prop_assert!(one.overlaps(&other));
        }
        prop_assert!(one.covers(&one) && HostPattern::Any.covers(&one));
        prop_assert!(!one.covers(&HostPattern::Any));
    }
}

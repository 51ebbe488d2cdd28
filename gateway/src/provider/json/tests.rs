//! The extractor against serde_json: the same scalars, however the text is spelt and cut. Knows nothing of providers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

const PATHS: &[(Path, usize)] = &[
    (&["a"], 0),
    (&["a", "b"], 1),
    (&["a", EACH, "b"], 2),
    (&[EACH, "a"], 3),
    (&[EACH, EACH], 4),
    (&["b", EACH], 5),
    (&["b", "a", "a"], 6),
    (&["\u{e9}\u{1f600}"], 7),
    (&["a"], 8),
    (&[EACH, "a", "*", "a"], 9),
];

/// What was reported, as text: the same for a scalar of serde_json's.
type Found = Vec<(usize, String)>;

fn found(chunks: &[&[u8]]) -> Found {
    let (mut extractor, mut found) = (Extractor::new(PATHS), Vec::new());
    for chunk in chunks {
        extractor.feed(chunk, &mut |tag, scalar| found.push((tag, shown(scalar))));
    }
    found
}

fn shown(scalar: Scalar<'_>) -> String {
    match scalar {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(value) => value.to_string(),
        Scalar::Number(digits) => digits.to_owned(),
        Scalar::Text(text) => format!("{text:?}"),
        Scalar::TooLong(_) => "too long".to_owned(),
    }
}

fn expected(value: &Value, at: &[(Path, usize)], depth: usize, found: &mut Found) {
    let below = |matches: &dyn Fn(&str) -> bool| -> Vec<(Path, usize)> {
        at.iter()
            .filter(|(path, _)| path.get(depth).is_some_and(|segment| matches(segment)))
            .copied()
            .collect()
    };
    let here = at.iter().filter(|(path, _)| path.len() == depth);
    match value {
        Value::Array(elements) => {
            let at = below(&|segment| segment == EACH);
            elements
                .iter()
                .for_each(|element| expected(element, &at, depth + 1, found));
        }
        Value::Object(members) => {
            for (key, member) in members {
                expected(
                    member,
                    &below(&|segment| segment == key && segment != EACH),
                    depth + 1,
                    found,
                );
            }
        }
        Value::String(text) if text.len() > MAX_SCALAR => {
            found.extend(here.map(|(_, tag)| (*tag, "too long".to_owned())))
        }
        Value::String(text) => found.extend(here.map(|(_, tag)| (*tag, format!("{text:?}")))),
        scalar => found.extend(here.map(|(_, tag)| (*tag, scalar.to_string()))),
    }
}

/// Writes a value with the blanks and escapes that `spelling` asks for.
fn spelt(value: &Value, spelling: u8, out: &mut String) {
    let blank = ["", " ", "\n\t", "\r\n  "][usize::from(spelling & 3)];
    let text = |text: &str, out: &mut String| match spelling >> 2 & 3 {
        0 | 1 => out.push_str(&Value::from(text).to_string()),
        style => {
            out.push('"');
            for unit in text.encode_utf16() {
                match u8::try_from(unit) {
                    Ok(b'"') if style == 2 => out.push_str("\\\""),
                    Ok(b'\\') if style == 2 => out.push_str("\\\\"),
                    Ok(b'/') if style == 2 => out.push_str("\\/"),
                    Ok(plain @ 0x20..0x7f) if style == 2 => out.push(char::from(plain)),
                    _ => out.push_str(&format!("\\u{unit:04X}")),
                }
            }
            out.push('"');
        }
    };
    match value {
        Value::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(blank);
                spelt(element, spelling, out);
                out.push_str(blank);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (key, member)) in members.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                out.push_str(blank);
                text(key, out);
                out.push_str(blank);
                out.push(':');
                out.push_str(blank);
                spelt(member, spelling, out);
                out.push_str(blank);
            }
            out.push('}');
        }
        Value::String(string) => text(string, out),
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    let starts = std::iter::once(0).chain(at.iter().copied());
    let ends = at.iter().copied().chain(std::iter::once(bytes.len()));
    starts
        .zip(ends)
        .map(|(start, end)| &bytes[start..end])
        .collect()
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "*", "", "\u{e9}\u{1f600}", "c\"\\\n"]).prop_map(str::to_owned),
        1 => ".{0,4}",
        1 => Just("a".repeat(MAX_SCALAR + 1)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        (MAX_SCALAR - 1..MAX_SCALAR + 3).prop_map(|len| Value::from("x".repeat(len))),
    ];
    scalar.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_scalars_are_found_as_by_serde_json(
        value in value(), spelling in any::<u8>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)
    ) {
        let mut text = String::new();
        spelt(&value, spelling, &mut text);
        prop_assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok());
        let mut scalars = Vec::new();
        expected(&value, PATHS, 0, &mut scalars);
        prop_assert_eq!(found(&cut(text.as_bytes(), &cuts)), &scalars[..]);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(found(&bytes), scalars);
    }

    #[test]
    fn a_document_is_whole_when_serde_json_takes_it(pieces in prop::collection::vec(piece(), 0..12)) {
        let bytes = pieces.concat();
        let mut extractor = Extractor::<()>::new(&[]);
        extractor.feed(&bytes, &mut |(), _| {});
        // A number at the root ends with the document, which the extractor is not told.
        let number = bytes.trim_ascii().first().is_some_and(|first| Number::first(*first).is_some());
        prop_assume!(!number);
        prop_assert_eq!(extractor.is_whole(), serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
    }

    #[test]
    fn nothing_makes_it_panic_or_depend_on_the_cuts(
        pieces in prop::collection::vec(piece(), 0..16), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)
    ) {
        let bytes = pieces.concat();
        prop_assert_eq!(found(&cut(&bytes, &cuts)), found(&[&bytes]));
    }
}

/// Pieces of JSON, which together are a document now and then.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"a\"",
        b"\"b\":",
        b"{\"a\":",
        b"[1]",
        b"{}",
        b"[]",
        b"0",
        b"-",
        b"01",
        b"1.5",
        b"1e9",
        b"E+",
        b"true",
        b"false",
        b"null",
        b"nul",
        b" ",
        b"\n",
        b"\"",
        b"\\",
        b"\\u",
        b"\"\\uD83D\"",
        b"\"\\ud83d\\ude00\"",
        b"\"\\x\"",
        b"\x01",
        b"\xff",
        b"\xc3\xa9",
    ];
    prop_oneof![9 => prop::sample::select(known).prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..3)]
}

#[test]
fn surrogates_are_joined_and_lone_ones_replaced() {
    for (text, plain) in [
        (r#"{"a":"\ud83d\ude00"}"#, "\u{1f600}"),
        (r#"{"a":"\ud83d"}"#, "\u{fffd}"),
        (r#"{"a":"\ude00"}"#, "\u{fffd}"),
        (r#"{"a":"\ud83dx"}"#, "\u{fffd}x"),
        (r#"{"a":"\ud83d\n"}"#, "\u{fffd}\n"),
        (r#"{"a":"\ud83d\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
        (r#"{"a":"\ud83d\u0041"}"#, "\u{fffd}A"),
    ] {
        let expected = vec![(0, format!("{plain:?}")), (8, format!("{plain:?}"))];
        assert_eq!(found(&[text.as_bytes()]), expected, "{text}");
    }
}

#[test]
fn a_key_that_comes_twice_is_reported_twice() {
    let tags: Vec<_> = found(&[br#"{"b":[1],"b":[2]}"#]);
    assert_eq!(tags, [(5, "1".to_owned()), (5, "2".to_owned())]);
}

#[test]
fn malformed_input_silences_it_from_there_on() {
    for broken in [
        r#"{"a":1,"a" 2}"#,
        r#"{"a":1,,"a":2}"#,
        r#"{"a":1]"#,
        r#"{"a":1,"c":01,"a":2}"#,
        "{\"a\":1,\"c\":\"\n\",\"a\":2}",
        r#"{"a":1,"c":tru,"a":2}"#,
        r#"{"a":1} {"a":2}"#,
        r#"{"a":1,"c":"\x","a":2}"#,
    ] {
        assert_eq!(
            found(&[broken.as_bytes()]),
            [(0, "1".to_owned()), (8, "1".to_owned())],
            "{broken}"
        );
    }
    assert_eq!(found(&[b"{\"a\":\"\xff\",\"a\":2}"]), []);
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let whole = |text: &str| {
        let mut extractor = Extractor::<()>::new(&[]);
        extractor.feed(text.as_bytes(), &mut |(), _| {});
        extractor.is_whole()
    };
    assert!(whole(&nested(MAX_DEPTH)));
    assert!(!whole(&nested(MAX_DEPTH + 1)));
    assert_eq!(
        found(&[format!("{{\"b\":[{}],\"a\":1}}", nested(MAX_DEPTH)).as_bytes()]),
        []
    );
}

#[test]
fn memory_stays_bounded() {
    let mut extractor = Extractor::new(PATHS);
    let mut sink = |_: usize, scalar: Scalar<'_>| {
        assert!(matches!(scalar, Scalar::TooLong(length) if length == scalar.text_len()))
    };
    extractor.feed(b"{\"a\":\"", &mut sink);
    for _ in 0..1000 {
        extractor.feed(&[b'x'; 4096], &mut sink);
    }
    extractor.feed(b"\",\"a\":[", &mut sink);
    for _ in 0..1000 {
        extractor.feed(b"[[[[[[[[[[[[[[[[[[[[", &mut sink);
    }
    assert!(extractor.text.capacity() <= MAX_SCALAR && extractor.stack.capacity() <= MAX_DEPTH);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(
        found(&[b"\xef", b"\xbb", b"\xbf{\"b\":[1]}"]),
        [(5, "1".to_owned())]
    );
    assert_eq!(found(&[b"\xef\xbb{\"b\":[1]}"]), []);
}

#[test]
fn only_whole_numbers_are_counts() {
    for (digits, count) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-1", None),
        ("1.0", None),
        ("1e3", None),
    ] {
        assert_eq!(Scalar::Number(digits).as_u64(), count);
    }
    assert_eq!(Scalar::Text("1").as_u64(), None);
}

//! Inputs nobody would write: the compiler answers all of them, soon, and shows no secret.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{folder, report, source, workspace};
use crate::policy::{MAX_FILE_BYTES, Style, compile};

fn worked_example() -> String {
    let files = folder(&workspace().join("policies/worked-example"));
    files
        .into_iter()
        .map(|file| file.text.to_string())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,300}|[a-z:\\-\\[\\]{}&*!#|>'\" \\n]{0,200}") {
        let files = [source("a.yaml", &text)];
        let compiled = compile(&files);
        prop_assert!(compiled.policy.is_none(), "no such text is a policy");
        prop_assert!(!compiled.diagnostics.is_empty());
        prop_assert!(!report(&compiled, &files).is_empty());
        let style = Style { color: true, unicode: true };
        let drawn = compiled.report(&files, style);
        prop_assert!(drawn.contains('\u{1b}'), "{}", drawn);
    }

    #[test]
    fn the_worked_example_with_holes_and_scars_is_answered(
        edits in proptest::collection::vec((0..3000_usize, 0..40_usize, "[ -~\\nü]{0,3}"), 1..6)
    ) {
        let mut text: Vec<char> = worked_example().chars().collect();
        for (at, length, inserted) in edits {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        let files = [source("a.yaml", &text)];
        let compiled = compile(&files);
        prop_assert!(compiled.policy.is_some() || !compiled.diagnostics.is_empty());
        report(&compiled, &files);
        for diagnostic in &compiled.diagnostics {
            if let Some(span) = diagnostic.span() {
                prop_assert!(span.start <= span.end && span.end <= text.len());
                let before = text.get(..span.start);
                let before = before.map(|before| before.matches('\n').count() + 1);
                prop_assert_eq!(before, Some(span.line), "a place is a character's, on its line");
            }
        }
    }
}

#[test]
fn no_single_slip_of_a_finger_shows_a_secret() {
    const TEXT: &str = "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: g}
spec:
  listeners: [{name: egress, protocol: TLS}]
---
apiVersion: v1
kind: Secret
metadata:
  name: s
data: {token: c2stbmV2ZXItc2hvd24=}
stringData:
  other: sk-never-shown
";
    for at in 0..TEXT.len() {
        for slip in ["", "x", " ", ":", "\"", "{", "\n", "-", "#", "<", "&"] {
            let text = format!("{}{slip}{}", &TEXT[..at], &TEXT[at + 1..]);
            let files = [source("a.yaml", &text)];
            let told = report(&compile(&files), &files);
            assert!(
                !told.contains("never-shown") && !told.contains("c2stbmV2ZX"),
                "{text}\n{told}"
            );
        }
    }
}

#[test]
fn a_file_may_have_a_mebibyte_and_no_more() {
    let comment = |length: usize| format!("#{}", "x".repeat(length - 1));
    for (length, told) in [
        (MAX_FILE_BYTES, "there is no EgressGateway"),
        (MAX_FILE_BYTES + 1, "the file has 1048577 bytes"),
    ] {
        let compiled = compile(&[source("a.yaml", &comment(length))]);
        let messages: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(|found| found.message())
            .collect();
        assert_eq!(messages, [told]);
    }
}

#[test]
fn files_made_to_be_slow_are_answered_soon() {
    let lines = |line: &str| line.repeat(MAX_FILE_BYTES / line.len());
    let keys: String = (0..60_000).map(|key| format!("k{key}: {key}\n")).collect();
    for (what, text) in [
        ("open brackets", lines("[")),
        ("open braces", lines("{a: ")),
        (
            "nested lists",
            (0..1000)
                .map(|depth| format!("{}-\n", " ".repeat(depth)))
                .collect(),
        ),
        ("aliases", format!("a: &a [x]\nb: [{}]", lines("*a, "))),
        ("anchors", lines("- &a x\n")),
        ("unknown fields", keys),
        ("one key again and again", lines("k: 1\n")),
        ("documents", lines("---\na: 1\n")),
        ("empty documents", lines("---\n")),
        ("one scalar", lines("x")),
        (
            "one quoted scalar",
            format!("\"{}\"", lines("\\n").split_off(2)),
        ),
    ] {
        let start = Instant::now();
        let files = [source("a.yaml", &text)];
        let compiled = compile(&files);
        assert!(compiled.policy.is_none(), "{what}");
        assert!(
            compiled.diagnostics.len() <= 501,
            "{what}: {}",
            compiled.diagnostics.len()
        );
        report(&compiled, &files);
        // In a debug build on a busy machine; a release build takes a fraction of a second.
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{what}: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn problems_beyond_the_limit_are_counted() {
    let text: String = (0..700).map(|key| format!("k{key}: 1\n")).collect();
    let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{text}");
    let compiled = compile(&[source("a.yaml", &text)]);
    assert_eq!(compiled.diagnostics.len(), 501);
    let last = compiled.diagnostics.last().map(|found| found.message());
    // Seven hundred fields and the missing gateway.
    assert_eq!(last, Some("201 more problems are not shown"));
}

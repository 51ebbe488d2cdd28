//! Tests of how a problem is shown; the golden cases of `policy::tests` show the rest.

use super::{Diagnostic, Severity, Span, Style};

fn diagnostic(span: Span, sensitive: bool) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: Some("a.yaml".to_owned()),
        span: Some(span),
        message: "something is wrong".to_owned(),
        expected: Some("something else".to_owned()),
        help: None,
        sensitive,
    }
}

const SOURCE: &str = "kind: Secret\ndata: {token: abc}\nlast: line\n";

/// Of `abc`.
const TOKEN: Span = Span {
    start: 27,
    end: 30,
    line: 2,
    column: 15,
};

#[test]
fn a_problem_quotes_its_line_and_no_other() {
    let shown = diagnostic(TOKEN, false).render(SOURCE, false);
    assert!(shown.contains("a.yaml:2:15"), "{shown}");
    assert!(shown.contains("data: {token: abc}"), "{shown}");
    assert!(!shown.contains("kind: Secret"), "{shown}");
    assert!(!shown.contains("last: line"), "{shown}");
    assert!(shown.is_ascii(), "{shown}");
}

#[test]
fn a_sensitive_problem_names_its_place_and_quotes_nothing() {
    for style in [
        Style::default(),
        Style {
            color: true,
            unicode: true,
        },
    ] {
        let shown = diagnostic(TOKEN, true).render_with(SOURCE, style);
        assert!(shown.contains("a.yaml:2:15"), "{shown}");
        assert!(shown.contains("expected something else"), "{shown}");
        assert!(
            !shown.contains("abc") && !shown.contains("token"),
            "{shown}"
        );
    }
}

#[test]
fn colour_is_asked_for() {
    let plain = diagnostic(TOKEN, false).render(SOURCE, false);
    let coloured = diagnostic(TOKEN, false).render(SOURCE, true);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    assert!(coloured.contains('\u{1b}'), "{coloured:?}");
}

#[test]
fn a_line_too_long_to_read_and_a_place_outside_the_text_are_not_quoted() {
    let long = format!("{}: 1", "x".repeat(500));
    for (source, start) in [(long.as_str(), 0), (SOURCE, 1000), ("", 5)] {
        let span = Span {
            start,
            end: start + 1,
            line: 1,
            column: 1,
        };
        let shown = diagnostic(span, false).render(source, false);
        assert!(shown.contains("something is wrong"), "{shown}");
        assert!(shown.contains("a.yaml:1:1"), "{shown}");
        assert!(!shown.contains("xxx"), "{shown}");
    }
}

#[test]
fn one_line_is_enough_for_a_log() {
    assert_eq!(
        diagnostic(TOKEN, false).to_string(),
        "a.yaml:2:15: error: something is wrong"
    );
}

#[test]
fn what_a_file_says_cannot_command_the_terminal() {
    let source = "kind: x\nname: '\u{1b}[2J\u{202e}\u{9b}é'\n";
    let quoted = Span {
        start: 14,
        end: source.len() - 1,
        line: 2,
        column: 7,
    };
    let mut problem = diagnostic(quoted, false);
    problem.file = Some("a\u{1b}.yaml".to_owned());
    let shown = problem.render(source, false);
    assert!(shown.contains("name: '?[2J?????é'"), "{shown}");
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{9b}'),
        "{shown:?}"
    );
    assert!(!problem.to_string().contains('\u{1b}'));
    problem.sensitive = true;
    assert!(!problem.render(source, false).contains('\u{1b}'));
}

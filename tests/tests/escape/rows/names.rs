//! Names: questions as tunnels ask them, and names that lead where no name may.

use anyhow::Result;

use super::Row;
use crate::attempt::{Attempt, Control, Verdict, attempt, denied, refused};
use crate::judge::held;
use crate::nameserver::REBOUND;

pub(crate) fn rows() -> Vec<Row> {
    vec![foreign(), allowed(), malformed(), rebinding()]
}

fn foreign() -> Row {
    let no = || denied("name_not_allowed", "dns").saying(&["rcode 3, 0 answers"]);
    let one = |name, words: &str| attempt(name, words, no());
    Row {
        name: "foreign names",
        attempts: vec![
            one("A", "ask {v4} {name} 1"),
            one("AAAA by IPv6", "ask {v6} {name} 28"),
            one("TXT", "ask {v4} {name} 16"),
            one("NULL", "ask {v4} {name} 10"),
            one("MX", "ask {v4} {name} 15"),
            one("CNAME", "ask {v4} {name} 5"),
            one("SRV", "ask {v4} _x._tcp.{name} 33"),
            one("HTTPS", "ask {v4} {name} 65"),
            one("SVCB", "ask {v4} {name} 64"),
            one("ANY", "ask {v4} {name} 255"),
            one("over TCP", "ask {v4} {name} 16 tcp"),
            one("over TCP, IPv6", "ask {v6} {name} 1 tcp"),
            one("a zone transfer", "transfer {v4} {name}"),
            one("a name as long as may be", "long-name {v4} {name}"),
            one("many random names", "many {v4} {name}").seconds(20),
            one("by a connected socket", "ask-connected {v4} {name}"),
            one(
                "an allowed name with an ending",
                "ask {v4} echo.test.{name} 1",
            ),
            one(
                "an allowed name with data in front",
                "ask {v4} secret.{tag}.echo.test 1",
            ),
            one("data in an option", "with-option {v4} {name}"),
            one(
                "data in a record that rides along",
                "with-additional {v4} {name}",
            ),
            one("the local stub", "ask 127.0.0.53 {name} 1").control(Control::Not),
            one("by the C library", "resolver {name}").control(Control::Not),
            one(
                "a reverse name",
                "ask {v4} 9.113.0.203.{tag}.in-addr.arpa 12",
            ),
        ]
        .into_iter()
        .map(|mut attempt| {
            if attempt.words.starts_with("resolver") {
                attempt.verdict = no().saying(&["gai -2", "gai -5"]);
            }
            attempt
        })
        .collect(),
    }
}

fn allowed() -> Row {
    // There is such a name, and no such data; nothing is asked of anybody.
    let one = |name, words: &str| {
        let nothing = denied("dns_type_not_allowed", "dns").saying(&["rcode 0, 0 answers"]);
        attempt(name, words, nothing)
    };
    let answered = || refused(&["rcode 0, 1 answers"]);
    Row {
        name: "more of allowed names than their addresses",
        attempts: vec![
            one("TXT of an allowed name", "ask {v4} {tag}.rebind.test 16"),
            one("HTTPS of an allowed name", "ask {v4} {tag}.rebind.test 65"),
            one("SVCB of an allowed name", "ask {v6} {tag}.rebind.test 64"),
            one("NULL of an allowed name", "ask {v4} {tag}.rebind.test 10"),
            one("ANY of an allowed name", "ask {v4} {tag}.rebind.test 255"),
            one(
                "MX of an allowed name over TCP",
                "ask {v4} {tag}.rebind.test 15 tcp",
            ),
            attempt(
                "the case of an allowed name",
                "in-case {v4} echo.test",
                answered(),
            ),
            attempt(
                "an option with an allowed name",
                "with-option {v4} echo.test",
                answered(),
            ),
            attempt(
                "a server that is asked directly",
                "ask {v6} echo.test 1",
                answered(),
            ),
        ],
    }
}

fn malformed() -> Row {
    let unanswered = || {
        refused(&[
            "timeout",
            "closed",
            "rcode 1, 0 answers",
            "rcode 4, 0 answers",
            "rcode 5, 0 answers",
        ])
    };
    let one = |name, words: &str| attempt(name, words, unanswered());
    Row {
        name: "questions that are none",
        attempts: vec![
            one("garbage", "garbage {v4}"),
            one("half a question", "cut-off {v4}"),
            one("an answer", "answer-unasked {v4} {name}"),
            one("two questions", "two-questions {v4} echo.test {name}"),
            one("another class", "ask-class {v4} {name} 3"),
            one("any class", "ask-class {v4} {name} 255"),
            one("an update", "ask-opcode {v4} {name} 5"),
            one("a notification", "ask-opcode {v4} {name} 4"),
            one("a name that points to itself", "pointer-loop {v4} {name}"),
            one(
                "a hundred names that point into each other",
                "pointer-bomb {v4} {name}",
            ),
            one("a name longer than may be", "too-long-name {v4} {name}"),
        ],
    }
}

fn rebinding() -> Row {
    let guarded = || denied("address_guard", "dial").saying(&["said HTTP/1.1 403"]);
    let attempts: Vec<Attempt> = REBOUND
        .iter()
        .map(|(label, _)| {
            let request = format!(
                "request {{v4}} {label}.rebind.test GET~/{{tag}}~HTTP/1.1 Host:{label}.rebind.test"
            );
            attempt(leak(format!("to {label}")), request, guarded())
        })
        .collect();
    let by_address =
        |name, words: &str, verdict: Verdict| attempt(name, words, verdict).control(Control::Not);
    let mut all = attempts;
    all.extend([
        by_address(
            "plain HTTP to loopback",
            "plain {v4} GET~/{tag}~HTTP/1.1 Host:loopback.rebind.test",
            guarded(),
        ),
        by_address(
            "plain HTTP to metadata",
            "plain {v4} GET~/{tag}~HTTP/1.1 Host:metadata.rebind.test",
            guarded(),
        ),
    ]);
    Row {
        name: "names that lead where no name may",
        attempts: all,
    }
}

/// Attempts live as long as the test.
fn leak(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

#[test]
fn a_foreign_name_is_answered_by_policy_only() -> Result<()> {
    held(&foreign())
}

#[test]
fn an_allowed_name_gives_its_addresses_and_nothing_else() -> Result<()> {
    held(&allowed())
}

#[test]
fn a_question_that_is_none_gets_no_further() -> Result<()> {
    held(&malformed())
}

#[test]
fn a_name_that_leads_inside_is_denied_at_dial() -> Result<()> {
    held(&rebinding())
}

//! Openings of connections: names that hide in ClientHellos, hellos in odd shapes, and none at all.

use anyhow::Result;

use super::Row;
use crate::attempt::{Mode, attempt, denied, refused, served};
use crate::judge::held;

pub(crate) fn rows() -> Vec<Row> {
    vec![server_names(), shapes()]
}

fn server_names() -> Row {
    let malformed =
        || denied("malformed", "sniff").saying(&["alert", "closed", "ECONNRESET", "ssl"]);
    let no_rule = || denied("no_rule", "sniff");
    Row {
        name: "server names",
        attempts: vec![
            attempt(
                "an allowed and a foreign one",
                "named-twice {v4} echo.test {name}",
                malformed(),
            ),
            attempt(
                "a foreign and an allowed one",
                "named-twice {v4} {name} echo.test",
                malformed(),
            ),
            attempt(
                "the extension twice",
                "extension-twice {v4} echo.test {name}",
                malformed(),
            ),
            attempt(
                "of a type that does not exist",
                "no-library-would {v4} 7 echo.test",
                malformed(),
            ),
            attempt(
                "with a NUL",
                "named-oddly {v4} echo.test\\x00.{name}",
                malformed(),
            ),
            attempt(
                "with a blank",
                "named-oddly {v4} echo.test\\x20{name}",
                malformed(),
            ),
            attempt(
                "with a colon",
                "named-oddly {v4} echo.test:443",
                malformed(),
            ),
            attempt(
                "with userinfo",
                "named-oddly {v4} echo.test@{name}",
                malformed(),
            ),
            attempt(
                "with a slash",
                "named-oddly {v4} echo.test/.{name}",
                malformed(),
            ),
            attempt(
                "in UTF-8",
                "named-oddly {v4} \\xd0\\xb5cho.test",
                malformed(),
            ),
            attempt(
                "that looks like it, in punycode",
                "tls-named {v4} 443 xn--cho-7cd.test",
                no_rule(),
            ),
            attempt("empty", "named-oddly {v4} ", malformed()),
            attempt(
                "of 300 bytes",
                format!("named-oddly {{v4}} {}echo.test", "a.".repeat(145)),
                malformed(),
            ),
            attempt("an IPv6 address", "named-oddly {v4} ::1", malformed()),
            attempt("a number", "tls-named {v4} 443 2130706433", malformed()),
            attempt(
                "a name below an allowed one",
                "tls-named {v4} 443 {tag}.echo.test",
                no_rule(),
            ),
            attempt(
                "a name above an allowed one",
                "tls-named {v4} 443 test",
                no_rule(),
            ),
            attempt(
                "an allowed one with an ending",
                "tls-named {v4} 443 echo.test.{name}",
                no_rule(),
            ),
            attempt(
                "an allowed one with a final dot",
                "handshake-with-dot {v4} echo.test.",
                refused(&["alert", "a ServerHello"]),
            ),
        ],
    }
}

fn shapes() -> Row {
    let malformed =
        || denied("malformed", "sniff").saying(&["alert", "closed", "ECONNRESET", "ssl"]);
    let late =
        || denied("sniff_timeout", "sniff").saying(&["closed", "ECONNRESET", "said HTTP/1.1 408"]);
    Row {
        name: "openings",
        attempts: vec![
            attempt(
                "in records of one byte, a byte at a time",
                "in-pieces {v4} echo.test 1",
                served(),
            ),
            attempt(
                "in records of a hundred bytes",
                "in-pieces {v4} echo.test 100",
                served(),
            ),
            attempt(
                "foreign, in records of one byte",
                "in-pieces {v4} {name} 1",
                denied("no_rule", "http").saying(&["said HTTP/1.1 403"]),
            ),
            attempt("of 64 KiB", "oversized {v4} echo.test", malformed()),
            attempt("noise that begins like TLS", "noise {v4}", malformed()),
            attempt("nothing at all", "silence {v4} 443", late())
                .seconds(14)
                .only(&[Mode::Private, Mode::Attached]),
            attempt("a byte a second", "slowly {v4}", late())
                .seconds(14)
                .only(&[Mode::Private, Mode::Attached]),
            attempt(
                "a connection that is closed at once",
                "sh:exec 3<>/dev/tcp/{v4}/443 && exec 3>&- && echo closed",
                refused(&["closed"]),
            ),
        ],
    }
}

#[test]
fn a_server_name_has_one_meaning_or_none() -> Result<()> {
    held(&server_names())
}

#[test]
fn an_opening_is_bounded_in_bytes_and_in_time() -> Result<()> {
    held(&shapes())
}

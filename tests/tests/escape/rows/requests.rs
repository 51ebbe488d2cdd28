//! Requests in connections that are allowed: for another host than the connection's, in forms that two
//! readers read differently, and for credentials. The whole of HTTP has suites of its own.

use anyhow::Result;

use super::Row;
use crate::attempt::{Attempt, Control, Verdict, attempt, denied, refused, served};
use crate::judge::held;

pub(crate) fn rows() -> Vec<Row> {
    vec![authorities(), forms(), credentials()]
}

/// A request over TLS for echo.test; `~` is a blank inside a line.
fn to_echo(name: &'static str, lines: &str, verdict: Verdict) -> Attempt {
    attempt(name, format!("request {{v4}} echo.test {lines}"), verdict)
}

fn authorities() -> Row {
    let mismatch = || denied("authority_mismatch", "http").saying(&["said HTTP/1.1 421"]);
    let unclear =
        || denied("bad_authority", "http").saying(&["said HTTP/1.1 400", "closed", "ssl"]);
    // What the parser refuses never becomes a request: the answer is 400, and there is no authority to record.
    let unparsed = || refused(&["said HTTP/1.1 400", "closed", "ssl"]);
    let get = "GET~/{tag}~HTTP/1.1";
    Row {
        name: "authorities",
        attempts: vec![
            to_echo(
                "a foreign Host",
                &format!("{get} Host:{{name}}"),
                mismatch(),
            ),
            to_echo(
                "another allowed Host",
                &format!("{get} Host:git.test"),
                mismatch(),
            ),
            to_echo(
                "an injected Host",
                &format!("{get} Host:injected.test"),
                mismatch(),
            ),
            to_echo(
                "a Host with another port",
                &format!("{get} Host:echo.test:8443"),
                mismatch(),
            ),
            to_echo(
                "an absolute target",
                "GET~https://{name}/{tag}~HTTP/1.1 Host:echo.test",
                unclear(),
            ),
            to_echo(
                "an absolute target twice foreign",
                "GET~https://{name}/{tag}~HTTP/1.1 Host:{name}",
                mismatch(),
            ),
            to_echo(
                "two Hosts",
                &format!("{get} Host:echo.test Host:{{name}}"),
                denied("malformed_request", "http").saying(&["said HTTP/1.1 400"]),
            ),
            to_echo(
                "two Hosts alike",
                &format!("{get} Host:echo.test Host:echo.test"),
                denied("malformed_request", "http").saying(&["said HTTP/1.1 400"]),
            ),
            to_echo(
                "a list of Hosts",
                &format!("{get} Host:echo.test,{{name}}"),
                unclear(),
            ),
            to_echo(
                "userinfo",
                &format!("{get} Host:echo.test@{{name}}"),
                unclear(),
            ),
            to_echo(
                "userinfo the other way",
                &format!("{get} Host:{{name}}@echo.test"),
                unclear(),
            ),
            to_echo(
                "a NUL in the Host",
                &format!("{get} Host:echo.test\\x00.{{name}}"),
                unparsed(),
            ),
            to_echo(
                "a blank in the Host",
                &format!("{get} Host:echo.test~{{name}}"),
                unclear(),
            ),
            to_echo(
                "a fragment in the Host",
                &format!("{get} Host:echo.test#{{name}}"),
                unclear(),
            ),
            to_echo(
                "a path in the Host",
                &format!("{get} Host:{{name}}/echo.test"),
                unclear(),
            ),
            to_echo(
                "no Host",
                get,
                denied("malformed_request", "http").saying(&["said HTTP/1.1 400"]),
            ),
            to_echo(
                "an address as the Host",
                &format!("{get} Host:{{v4}}"),
                mismatch(),
            ),
            to_echo(
                "a Host with a final dot, in capitals",
                "GET~/dotted~HTTP/1.1 Host:ECHO.test.",
                served(),
            ),
            attempt(
                "a foreign :authority",
                "http2 {v4} echo.test {name}",
                denied("authority_mismatch", "http").saying(&["said HTTP/2 421"]),
            ),
            attempt(
                "an :authority with userinfo",
                "http2 {v4} echo.test x@{name}",
                refused(&["said HTTP/2 400", "reset", "goaway", "closed"]),
            ),
        ],
    }
}

fn forms() -> Row {
    let form = || denied("request_form_not_allowed", "http").saying(&["said HTTP/1.1 400"]);
    let unparsed = || refused(&["said HTTP/1.1 400", "closed", "ssl"]);
    let get = "GET~/{tag}~HTTP/1.1 Host:echo.test";
    let post = "POST~/{tag}~HTTP/1.1 Host:echo.test";
    Row {
        name: "forms of requests",
        attempts: vec![
            to_echo(
                "CONNECT",
                "CONNECT~{name}:443~HTTP/1.1 Host:{name}:443",
                form(),
            ),
            to_echo(
                "CONNECT to the allowed host",
                "CONNECT~echo.test:443~HTTP/1.1 Host:echo.test:443",
                form(),
            ),
            attempt(
                "CONNECT without TLS",
                "plain {v4} CONNECT~{name}:443~HTTP/1.1 Host:{name}:443",
                form(),
            ),
            to_echo("an asterisk", "OPTIONS~*~HTTP/1.1 Host:echo.test", form()),
            to_echo(
                "an upgrade to HTTP/2",
                &format!(
                    "{get} Connection:Upgrade,HTTP2-Settings Upgrade:h2c HTTP2-Settings:AAMAAABkAAQAAP__"
                ),
                form(),
            ),
            to_echo(
                "both lengths",
                &format!("{post} Content-Length:4 Transfer-Encoding:chunked"),
                unparsed(),
            ),
            to_echo(
                "two lengths",
                &format!("{post} Content-Length:4 Content-Length:5"),
                unparsed(),
            ),
            to_echo("a folded line", &format!("{get} X:a ~b"), unparsed()),
            to_echo(
                "a blank before the colon",
                &format!("{get} X~:a"),
                unparsed(),
            ),
            to_echo(
                "HTTP/3 on a stream",
                "GET~/{tag}~HTTP/3.0 Host:echo.test",
                denied("malformed_request", "http").saying(&["said HTTP/1.1 505"]),
            ),
        ],
    }
}

fn credentials() -> Row {
    let to = |name, host: &str, lines: &str, verdict| {
        attempt(name, format!("request {{v4}} {host} {lines}"), verdict).control(Control::Not)
    };
    Row {
        name: "credentials",
        attempts: vec![
            to(
                "TRACE",
                "injected.test",
                "TRACE~/{tag}~HTTP/1.1 Host:injected.test",
                denied("trace_refused", "http").saying(&["said HTTP/1.1 405"]),
            ),
            to(
                "a credential that is gone",
                "missing.test",
                "GET~/{tag}~HTTP/1.1 Host:missing.test",
                denied("secret_missing", "http").saying(&["said HTTP/1.1 503"]),
            ),
            to(
                "an endpoint beside the allowed ones",
                "api.anthropic.com",
                "GET~/v1/files/{tag}~HTTP/1.1 Host:api.anthropic.com",
                denied("request_not_allowed", "http").saying(&["said HTTP/1.1 403"]),
            ),
            to(
                "the endpoint by dots",
                "api.anthropic.com",
                "GET~/v1/messages/../files/{tag}~HTTP/1.1 Host:api.anthropic.com",
                denied("request_not_allowed", "http")
                    .saying(&["said HTTP/1.1 403", "said HTTP/1.1 400"]),
            ),
            to(
                "the endpoint by encoded dots",
                "api.anthropic.com",
                "GET~/v1/messages/%2e%2e/files/{tag}~HTTP/1.1 Host:api.anthropic.com",
                denied("request_not_allowed", "http")
                    .saying(&["said HTTP/1.1 403", "said HTTP/1.1 400"]),
            ),
        ],
    }
}

#[test]
fn one_authority_decides_and_a_second_one_is_refused() -> Result<()> {
    held(&authorities())
}

#[test]
fn a_request_that_two_could_read_differently_is_not_forwarded() -> Result<()> {
    held(&forms())
}

#[test]
fn a_credential_goes_where_policy_says_and_does_not_come_back() -> Result<()> {
    held(&credentials())
}

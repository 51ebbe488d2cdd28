//! The record of a request as it begins: what is known from its head and its connection.

use super::authority::{Authority, AuthorityError};
use super::capture::text;
use super::server::Session;
use crate::live::View;
use crate::provider::usage::Usage;
use crate::telemetry::RequestRecord;
use crate::telemetry::redact::Headers;
use crate::upstream::Scheme;
use http::Version;
use http::header::HeaderName;
use http::request::Parts;
use std::time::{Instant, SystemTime};

/// W3C Trace Context.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest method, path, query or explanation in a record, bytes. Real ones are shorter; the limit of heads, 64 KiB,
/// would let a sandbox write a line as long as it likes.
const MAX_TEXT: usize = 2048;

/// The beginning of a text that is too long for a record, marked with the length that it has.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let length = text.len();
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push_str(&format!("… ({length} bytes)"));
    }
    text
}

/// For a request whose head has just been read.
pub(super) fn begin(
    session: &Session,
    view: &View,
    parts: &Parts,
    authority: &Result<Authority, AuthorityError>,
) -> Box<RequestRecord> {
    let redactor = view.telemetry.redactor();
    let mut who = session.who.clone();
    who.generation = view.generation;
    Box::new(RequestRecord {
        who,
        started: SystemTime::now(),
        clock: Instant::now(),
        scheme: match session.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        },
        method: cut(parts.method.to_string()),
        host: match authority {
            Ok(authority) => authority.name.to_string(),
            Err(_unclear) => String::new(),
        },
        port: session.destination().port(),
        path: cut(redactor.text(parts.uri.path())),
        query: parts.uri.query().map(|query| cut(redactor.query(query))),
        version: match parts.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        },
        rule: None,
        reason: None,
        error: None,
        detail: None,
        credential: None,
        provider: None,
        operation: None,
        model: None,
        reused: false,
        status: None,
        request_headers: Headers::default(),
        response_headers: Headers::default(),
        bytes_up: 0,
        bytes_down: 0,
        scrubbed: 0,
        usage: Usage::default(),
        request_body: None,
        response_body: None,
        sent: None,
        answered: None,
        span: view
            .telemetry
            .begin(text(&parts.headers, &TRACEPARENT).as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_within_no_letter_and_marked() {
        assert_eq!(cut("a".repeat(MAX_TEXT)), "a".repeat(MAX_TEXT));
        let long = format!("{}é{}", "a".repeat(MAX_TEXT - 1), "b".repeat(60_000));
        let marked = format!("{}… (62049 bytes)", "a".repeat(MAX_TEXT - 1));
        assert_eq!(cut(long), marked);
    }
}

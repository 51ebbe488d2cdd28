//! The record of a request as it begins: what is known from its head and its connection.

use super::authority;
use super::capture::text;
use super::server::Session;
use crate::live::View;
use crate::provider::usage::Usage;
use crate::telemetry::RequestRecord;
use crate::upstream::Scheme;
use http::Version;
use http::header::HeaderName;
use http::request::Parts;
use std::time::{Instant, SystemTime};

/// W3C Trace Context.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// For a request whose head has just been read.
pub(super) fn begin(session: &Session, view: &View, parts: &Parts) -> RequestRecord {
    let redactor = view.telemetry.redactor();
    let mut who = session.who.clone();
    who.generation = view.generation;
    RequestRecord {
        who,
        started: SystemTime::now(),
        clock: Instant::now(),
        scheme: match session.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        },
        method: parts.method.to_string(),
        host: authority::of_request(parts)
            .map(|authority| authority.name.to_string())
            .unwrap_or_default(),
        port: session.destination().port(),
        path: redactor.text(parts.uri.path()),
        query: parts.uri.query().map(|query| redactor.query(query)),
        version: match parts.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        },
        rule: None,
        reason: None,
        error: None,
        credential: None,
        provider: None,
        operation: None,
        model: None,
        reused: false,
        status: None,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
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
    }
}

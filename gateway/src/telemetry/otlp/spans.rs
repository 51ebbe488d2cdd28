//! Spans of requests, connections and denials: what is said, by which names (OpenTelemetry's semantic
//! conventions for HTTP and GenAI where they have one). Knows not how spans travel.

use super::attributes::{flag, nanoseconds, number, of_who, text, texts};
use crate::outcome::DenyReason;
use crate::telemetry::record::{Body, ConnectionRecord, DenialRecord, RequestRecord};
use crate::telemetry::semantic;
use crate::telemetry::trace::Begun;
use base64::Engine as _;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};
use std::time::SystemTime;

/// Every span is recorded (W3C Trace Context §3.2.2.5).
const SAMPLED: u32 = 1;

/// A request that has ended.
pub(super) fn request(record: &RequestRecord, begun: &Begun) -> Span {
    let end = nanoseconds(record.started + record.clock.elapsed());
    let mut span = span(begun, name(record), record.started, end);
    span.attributes = of_who(&record.who);
    span.attributes.extend(of_request(record));
    span.attributes.extend(of_call(record));
    span.events = events(record, end);
    span.status = semantic::server_error(record).map(|error| Status {
        code: StatusCode::Error.into(),
        message: error.into_owned(),
    });
    span
}

/// A connection that was spliced and has ended.
pub(super) fn connection(record: &ConnectionRecord, begun: &Begun) -> Span {
    let end = nanoseconds(SystemTime::now());
    let mut span = span(begun, "egress.connection".to_owned(), record.started, end);
    span.attributes = of_who(&record.who);
    let taken = record.started.elapsed().unwrap_or_default();
    let milliseconds = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
    span.attributes.extend([
        text("postern.decision", "allowed"),
        text("postern.rule", &*record.rule),
        number("postern.bytes.up", record.bytes_up),
        number("postern.bytes.down", record.bytes_down),
        number("postern.duration_ms", milliseconds),
        text("postern.outcome", record.error.as_deref().unwrap_or("ok")),
    ]);
    let optional = [
        ("server.address", record.host.as_deref()),
        ("error.type", record.error.as_deref()),
    ];
    span.attributes.extend(present(optional));
    span.status = record.error.as_ref().map(|error| Status {
        code: StatusCode::Error.into(),
        message: error.clone(),
    });
    span
}

/// A denial.
pub(super) fn denied(record: &DenialRecord, begun: &Begun) -> Span {
    let now = SystemTime::now();
    let mut span = span(begun, "egress.denied".to_owned(), now, nanoseconds(now));
    span.attributes = of_who(&record.who);
    span.attributes.extend(of_denial(record));
    span
}

/// What is said of a denial, in spans and in logs.
pub(super) fn of_denial(record: &DenialRecord) -> Vec<KeyValue> {
    let mut all = vec![
        text("postern.decision", "denied"),
        text("postern.deny.reason", record.reason.as_str()),
        text("postern.deny.stage", record.stage.as_str()),
    ];
    all.extend(present([
        ("server.address", record.host.as_deref()),
        ("postern.deny.detail", record.detail.as_deref()),
    ]));
    all
}

fn span(begun: &Begun, name: String, started: SystemTime, end: u64) -> Span {
    let parent = match begun.parent {
        Some(_) => SpanFlags::ContextHasIsRemoteMask as u32 | SpanFlags::ContextIsRemoteMask as u32,
        None => SpanFlags::ContextHasIsRemoteMask as u32,
    };
    Span {
        trace_id: begun.trace.to_vec(),
        span_id: begun.span.to_vec(),
        parent_span_id: begun.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: SAMPLED | parent,
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanoseconds(started),
        end_time_unix_nano: end,
        ..Span::default()
    }
}

fn name(record: &RequestRecord) -> String {
    match (record.operation, record.model.as_deref()) {
        (Some(operation), Some(model)) => format!("{operation} {model}"),
        (Some(operation), None) => operation.to_owned(),
        (None, _) => format!("{} {}", record.method, record.host),
    }
}

/// The request itself and what was decided.
pub(super) fn of_request(record: &RequestRecord) -> Vec<KeyValue> {
    let denied = record.reason.is_some();
    let method = semantic::method(&record.method);
    let mut all = vec![
        text("http.request.method", method),
        text("server.address", record.host.clone()),
        number("server.port", u64::from(record.port)),
        text("url.scheme", record.scheme),
        text("url.path", record.path.clone()),
        text("network.protocol.name", "http"),
        text("network.protocol.version", record.version),
        text(
            "postern.decision",
            if denied { "denied" } else { "allowed" },
        ),
        flag("postern.upstream.reused", record.reused),
        number("http.request.body.size", record.bytes_up),
        number("http.response.body.size", record.bytes_down),
        number("postern.scrubbed", record.scrubbed),
    ];
    if method != record.method {
        all.push(text("http.request.method_original", record.method.clone()));
    }
    all.extend(present([
        ("url.query", record.query.as_deref()),
        ("postern.rule", record.rule.as_deref()),
        ("postern.credential.injected", record.credential.as_deref()),
        ("postern.deny.reason", record.reason.map(DenyReason::as_str)),
        ("postern.deny.stage", denied.then_some("http")),
        ("error.type", semantic::server_error(record).as_deref()),
    ]));
    all.extend(
        record
            .status
            .map(|status| number("http.response.status_code", u64::from(status))),
    );
    all
}

/// What a provider was asked, and what it said that it cost.
fn of_call(record: &RequestRecord) -> Vec<KeyValue> {
    let usage = &record.usage;
    let mut all = present([
        ("gen_ai.provider.name", record.provider),
        // The name that older consumers know.
        ("gen_ai.system", record.provider),
        ("gen_ai.operation.name", record.operation),
        ("gen_ai.request.model", record.model.as_deref()),
        ("gen_ai.response.model", usage.response_model.as_deref()),
        ("gen_ai.response.id", usage.response_id.as_deref()),
    ]);
    let counts = [
        ("input_tokens", usage.input_tokens),
        ("output_tokens", usage.output_tokens),
        ("cache_read.input_tokens", usage.cache_read_input_tokens),
        (
            "cache_creation.input_tokens",
            usage.cache_creation_input_tokens,
        ),
        ("reasoning.output_tokens", usage.reasoning_tokens),
    ];
    for (of, count) in counts {
        all.extend(count.map(|count| number(format!("gen_ai.usage.{of}"), count)));
    }
    let estimated = usage.estimated_output_tokens;
    // Under a name of our own: whoever adds up counts must not add it.
    let name = "postern.usage.estimated_output_tokens";
    all.extend(estimated.map(|count| number(name.to_owned(), count)));
    if !usage.finish_reasons.is_empty() {
        all.push(texts(
            "gen_ai.response.finish_reasons",
            &usage.finish_reasons,
        ));
    }
    all
}

fn events(record: &RequestRecord, end: u64) -> Vec<Event> {
    let started = nanoseconds(record.started);
    let mut all = vec![event(
        "http.request.headers",
        started,
        headers("request", &record.request_headers),
    )];
    if let Some(body) = &record.request_body {
        all.push(event("http.request.body", started, of_body(body)));
    }
    if !record.response_headers.is_empty() {
        let attributes = headers("response", &record.response_headers);
        let at = record.answered.map_or(end, |at| {
            nanoseconds(record.started + at.saturating_duration_since(record.clock))
        });
        all.push(event("http.response.headers", at, attributes));
    }
    if let Some(body) = &record.response_body {
        all.push(event("http.response.body", end, of_body(body)));
    }
    all
}

fn event(name: &str, time_unix_nano: u64, attributes: Vec<KeyValue>) -> Event {
    Event {
        time_unix_nano,
        name: name.to_owned(),
        attributes,
        ..Event::default()
    }
}

/// One attribute a header: keys are unique, so a field that is repeated has its values joined as one
/// field would have them (RFC 9110 §5.3).
fn headers(of: &str, headers: &[(String, String)]) -> Vec<KeyValue> {
    let mut merged: Vec<(&str, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.push_str(", ");
                values.push_str(value);
            }
            None => merged.push((name, value.clone())),
        }
    }
    merged
        .into_iter()
        .map(|(name, value)| text(format!("http.{of}.header.{name}"), value))
        .collect()
}

fn of_body(body: &Body) -> Vec<KeyValue> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(&body.bytes);
    let mut all = vec![
        text("postern.body.base64", encoded),
        number("postern.body.bytes", body.bytes.len() as u64),
        flag("postern.body.truncated", body.truncated),
    ];
    let encoding = [("postern.body.content_encoding", body.encoding.as_deref())];
    all.extend(present(encoding));
    all
}

fn present<const N: usize>(optional: [(&'static str, Option<&str>); N]) -> Vec<KeyValue> {
    optional
        .into_iter()
        .filter_map(|(key, value)| Some(text(key, value?)))
        .collect()
}

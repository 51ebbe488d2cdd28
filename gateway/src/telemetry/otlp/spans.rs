//! Spans of requests, connections and denials: what is said, by which names (OpenTelemetry's semantic
//! conventions for HTTP and GenAI where they have one). Knows not how spans travel.

use super::attributes::{nanoseconds, of_who};
use super::encode::{Attributes, Encoder, Field, Said};
use crate::outcome::DenyReason;
use crate::telemetry::record::{Body, ConnectionRecord, DenialRecord, RequestRecord};
use crate::telemetry::redact::Headers;
use crate::telemetry::semantic;
use crate::telemetry::trace::Begun;
use base64::Engine as _;
use opentelemetry_proto::tonic::trace::v1::SpanFlags;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use std::time::SystemTime;

/// Every span is recorded (W3C Trace Context §3.2.2.5).
const SAMPLED: u32 = 1;

/// Fields of `Span`, and below of `Span.Event` and `Status` (opentelemetry/proto/trace/v1/trace.proto).
mod field {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;

    pub(super) mod event {
        pub(in super::super) const TIME: u32 = 1;
        pub(in super::super) const NAME: u32 = 2;
        pub(in super::super) const ATTRIBUTES: u32 = 3;
    }

    pub(super) mod status {
        pub(in super::super) const MESSAGE: u32 = 2;
        pub(in super::super) const CODE: u32 = 3;
    }
}

/// A request that has ended.
pub(super) fn request(record: &RequestRecord, begun: &Begun, span: &mut Encoder) {
    let end = nanoseconds(record.started + record.clock.elapsed());
    begin(begun, &name(record), record.started, end, span);
    let mut attributes = span.attributes(field::ATTRIBUTES);
    of_who(&record.who, &mut attributes);
    of_request(record, &mut attributes);
    of_call(record, &mut attributes);
    events(record, end, span);
    failed(semantic::server_error(record).as_deref(), span);
}

/// A connection that was spliced and has ended.
pub(super) fn connection(record: &ConnectionRecord, begun: &Begun, span: &mut Encoder) {
    let end = nanoseconds(SystemTime::now());
    begin(begun, "egress.connection", record.started, end, span);
    let mut attributes = span.attributes(field::ATTRIBUTES);
    of_who(&record.who, &mut attributes);
    let taken = record.started.elapsed().unwrap_or_default();
    let milliseconds = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
    let error = record.error.as_deref();
    attributes.text("postern.decision", "allowed");
    attributes.text("postern.rule", &record.rule);
    attributes.number("postern.bytes.up", record.bytes_up);
    attributes.number("postern.bytes.down", record.bytes_down);
    attributes.number("postern.duration_ms", milliseconds);
    attributes.text("postern.outcome", error.unwrap_or("ok"));
    attributes.present([
        ("server.address", record.host.as_deref()),
        ("error.type", error),
    ]);
    failed(error, span);
}

/// A denial.
pub(super) fn denied(record: &DenialRecord, begun: &Begun, span: &mut Encoder) {
    let now = SystemTime::now();
    begin(begun, "egress.denied", now, nanoseconds(now), span);
    let mut attributes = span.attributes(field::ATTRIBUTES);
    of_who(&record.who, &mut attributes);
    of_denial(record, &mut attributes);
}

/// What is said of a denial, in spans and in logs.
pub(super) fn of_denial(record: &DenialRecord, to: &mut impl Attributes) {
    to.text("postern.decision", "denied");
    to.text("postern.deny.reason", record.reason.as_str());
    to.text("postern.deny.stage", record.stage.as_str());
    to.present([
        ("server.address", record.host.as_deref()),
        ("postern.deny.detail", record.detail.as_deref()),
    ]);
}

fn begin(begun: &Begun, name: &str, started: SystemTime, end: u64, span: &mut Encoder) {
    span.bytes(field::TRACE_ID, &begun.trace);
    span.bytes(field::SPAN_ID, &begun.span);
    let mut flags = SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32;
    if let Some(parent) = &begun.parent {
        span.bytes(field::PARENT_SPAN_ID, parent);
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    span.bytes(field::NAME, name.as_bytes());
    span.varint(field::KIND, SpanKind::Server as u64);
    span.fixed64(field::START, nanoseconds(started));
    span.fixed64(field::END, end);
    span.fixed32(field::FLAGS, flags);
}

fn failed(error: Option<&str>, span: &mut Encoder) {
    if let Some(error) = error {
        span.message(field::STATUS, |status| {
            status.bytes(field::status::MESSAGE, error.as_bytes());
            status.varint(field::status::CODE, StatusCode::Error as u64);
        });
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
pub(super) fn of_request(record: &RequestRecord, to: &mut impl Attributes) {
    let denied = record.reason.is_some();
    let method = semantic::method(&record.method);
    to.text("http.request.method", method);
    to.text("server.address", &record.host);
    to.number("server.port", record.port.into());
    to.text("url.scheme", record.scheme);
    to.text("url.path", &record.path);
    to.text("network.protocol.name", "http");
    to.text("network.protocol.version", record.version);
    to.text(
        "postern.decision",
        if denied { "denied" } else { "allowed" },
    );
    to.flag("postern.upstream.reused", record.reused);
    to.number("http.request.body.size", record.bytes_up);
    to.number("http.response.body.size", record.bytes_down);
    to.number("postern.scrubbed", record.scrubbed);
    if method != record.method {
        to.text("http.request.method_original", &record.method);
    }
    to.present([
        ("url.query", record.query.as_deref()),
        ("postern.rule", record.rule.as_deref()),
        ("postern.credential.injected", record.credential.as_deref()),
        ("postern.deny.reason", record.reason.map(DenyReason::as_str)),
        ("postern.deny.stage", denied.then_some("http")),
        ("error.type", semantic::server_error(record).as_deref()),
    ]);
    if let Some(status) = record.status {
        to.number("http.response.status_code", status.into());
    }
}

/// What a provider was asked, and what it said that it cost.
fn of_call(record: &RequestRecord, to: &mut impl Attributes) {
    let usage = &record.usage;
    to.present([
        ("gen_ai.provider.name", record.provider),
        // The name that older consumers know.
        ("gen_ai.system", record.provider),
        ("gen_ai.operation.name", record.operation),
        ("gen_ai.request.model", record.model.as_deref()),
        ("gen_ai.response.model", usage.response_model.as_deref()),
        ("gen_ai.response.id", usage.response_id.as_deref()),
    ]);
    let counts = [
        ("gen_ai.usage.input_tokens", usage.input_tokens),
        ("gen_ai.usage.output_tokens", usage.output_tokens),
        (
            "gen_ai.usage.cache_read.input_tokens",
            usage.cache_read_input_tokens,
        ),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            usage.cache_creation_input_tokens,
        ),
        (
            "gen_ai.usage.reasoning.output_tokens",
            usage.reasoning_tokens,
        ),
        // Under a name of our own: whoever adds up counts must not add it.
        (
            "postern.usage.estimated_output_tokens",
            usage.estimated_output_tokens,
        ),
    ];
    for (key, count) in counts {
        if let Some(count) = count {
            to.number(key, count);
        }
    }
    if !usage.finish_reasons.is_empty() {
        let reasons = Said::Texts(&usage.finish_reasons);
        to.say(&["gen_ai.response.finish_reasons"], reasons);
    }
}

fn events(record: &RequestRecord, end: u64, span: &mut Encoder) {
    let started = nanoseconds(record.started);
    event(span, "http.request.headers", started, |event| {
        headers("http.request.header.", &record.request_headers, event);
    });
    if let Some(body) = &record.request_body {
        event(span, "http.request.body", started, |event| {
            of_body(body, event)
        });
    }
    if !record.response_headers.is_empty() {
        let at = record.answered.map_or(end, |at| {
            nanoseconds(record.started + at.saturating_duration_since(record.clock))
        });
        event(span, "http.response.headers", at, |event| {
            headers("http.response.header.", &record.response_headers, event);
        });
    }
    if let Some(body) = &record.response_body {
        event(span, "http.response.body", end, |event| {
            of_body(body, event)
        });
    }
}

fn event(span: &mut Encoder, name: &str, at: u64, tell: impl FnOnce(&mut Field<'_>)) {
    span.message(field::EVENTS, |event| {
        event.fixed64(field::event::TIME, at);
        event.bytes(field::event::NAME, name.as_bytes());
        tell(&mut event.attributes(field::event::ATTRIBUTES));
    });
}

/// One attribute a header: keys are unique, so a field that is repeated has its values joined as one
/// field would have them (RFC 9110 §5.3).
fn headers(of: &str, headers: &Headers, to: &mut impl Attributes) {
    for (at, (name, value)) in headers.iter().enumerate() {
        let same = headers.iter().filter(|(other, _)| *other == name);
        let is_first = !headers.iter().take(at).any(|(other, _)| other == name);
        let key = [of, name.as_str()];
        match same.clone().nth(1) {
            None => to.say(&key, Said::Text(value)),
            Some(_) if is_first => {
                let values: Vec<&str> = same.map(|(_, value)| value).collect();
                to.say(&key, Said::Text(&values.join(", ")));
            }
            Some(_) => {}
        }
    }
}

fn of_body(body: &Body, to: &mut impl Attributes) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(&body.bytes);
    to.text("postern.body.base64", &encoded);
    to.number("postern.body.bytes", body.bytes.len() as u64);
    to.flag("postern.body.truncated", body.truncated);
    to.present([("postern.body.content_encoding", body.encoding.as_deref())]);
}

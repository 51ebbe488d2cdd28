//! What the sandbox is told when a request does not go through: a problem document (RFC 9457) that
//! says plainly what was refused and which rule was missing, so that nobody hunts for a way around.

use super::body::ResponseBody;
use crate::guard::Violation;
use crate::outcome::{DenyReason, UpstreamError};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

/// A denial.
pub(super) fn denied(
    reason: DenyReason,
    gateway: &str,
    destination: &str,
    detail: Option<&str>,
) -> Response<ResponseBody> {
    let status = reason.status();
    let document = denial(reason, status, gateway, destination, detail);
    respond(status, &document)
}

/// A request whose body breaks a rule of HTTP.
pub(super) fn malformed(
    violation: Violation,
    gateway: &str,
    destination: &str,
) -> Response<ResponseBody> {
    let reason = DenyReason::MalformedRequest;
    let detail = violation.to_string();
    let status = violation.status();
    let document = denial(reason, status, gateway, destination, Some(&detail));
    respond(status, &document)
}

/// The whole answer to what is not even a request, as it goes over HTTP/1.
pub(super) fn raw(violation: Violation, gateway: &str, destination: &str) -> Bytes {
    let reason = DenyReason::MalformedRequest;
    let detail = violation.to_string();
    let status = violation.status();
    let document = denial(reason, status, gateway, destination, Some(&detail));
    let phrase = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let text = format!("{document}\n");
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status} {phrase}\r\ncontent-type: {PROBLEM}\r\ncache-control: no-store\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    Bytes::from(head + &text)
}

/// RFC 9457 §3.
const PROBLEM: &str = "application/problem+json";

fn denial(
    reason: DenyReason,
    status: u16,
    gateway: &str,
    destination: &str,
    detail: Option<&str>,
) -> serde_json::Value {
    json!({
        "type": format!("urn:postern:denied:{}", reason.as_str()),
        "title": "denied by the egress policy",
        "status": status,
        "reason": reason.as_str(),
        "detail": detail.unwrap_or_else(|| reason.explanation()),
        "gateway": gateway,
        "destination": destination,
    })
}

/// A failure between the gateway and the upstream.
pub(super) fn failed(
    error: &UpstreamError,
    gateway: &str,
    destination: &str,
) -> Response<ResponseBody> {
    let document = json!({
        "type": format!("urn:postern:failed:{}", error.as_str()),
        "title": "the upstream did not answer",
        "status": error.status(),
        "reason": error.as_str(),
        "detail": error.to_string(),
        "gateway": gateway,
        "destination": destination,
    });
    respond(error.status(), &document)
}

fn respond(status: u16, document: &serde_json::Value) -> Response<ResponseBody> {
    let mut text = document.to_string();
    text.push('\n');
    let mut response = Response::new(ResponseBody::whole(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! What the sandbox is told when a request does not go through: a problem document (RFC 9457) that
//! says plainly what was refused and which rule was missing, so that nobody hunts for a way around.

use super::body::ResponseBody;
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
    let document = json!({
        "type": format!("urn:postern:denied:{}", reason.as_str()),
        "title": "denied by the egress policy",
        "status": reason.status(),
        "reason": reason.as_str(),
        "detail": detail.unwrap_or_else(|| reason.explanation()),
        "gateway": gateway,
        "destination": destination,
    });
    respond(reason.status(), &document)
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
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

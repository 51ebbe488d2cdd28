//! What the sandbox is told when a request does not go through: a problem document (RFC 9457) that
//! says plainly what was refused and which rule was missing, so that nobody hunts for a way around.

use super::body::ResponseBody;
use crate::budget::Exceeded;
use crate::guard::Violation;
use crate::inject::InjectError;
use crate::outcome::{DenyReason, UpstreamError};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a request goes no further.
pub(super) struct Refused {
    pub(super) reason: DenyReason,
    /// What the sandbox is told.
    pub(super) detail: Option<String>,
    /// What the record says, where it is more.
    pub(super) recorded: Option<String>,
    /// The budget that it goes beyond.
    pub(super) exceeded: Option<Box<Exceeded>>,
}

impl Refused {
    /// With words of its own.
    pub(super) fn saying(reason: DenyReason, detail: impl ToString) -> Self {
        Self {
            reason,
            detail: Some(detail.to_string()),
            recorded: None,
            exceeded: None,
        }
    }
}

impl From<InjectError> for Refused {
    fn from(error: InjectError) -> Self {
        let mut refused = Self::saying(error.reason(), error.told());
        refused.recorded = Some(error.to_string());
        refused
    }
}

impl From<DenyReason> for Refused {
    fn from(reason: DenyReason) -> Self {
        Self {
            reason,
            detail: None,
            recorded: None,
            exceeded: None,
        }
    }
}

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
    raw_denial(reason, status, gateway, destination, Some(&detail))
}

/// The same for an opening that shows before its end that it is no request.
pub(super) fn raw_opening(detail: Option<&str>, gateway: &str, destination: &str) -> Bytes {
    let reason = DenyReason::Malformed;
    raw_denial(reason, reason.status(), gateway, destination, detail)
}

fn raw_denial(
    reason: DenyReason,
    status: u16,
    gateway: &str,
    destination: &str,
    detail: Option<&str>,
) -> Bytes {
    let document = denial(reason, status, gateway, destination, detail);
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
        "detail": error.told(),
        "gateway": gateway,
        "destination": destination,
    });
    respond(error.status(), &document)
}

/// A request that goes beyond a token budget, on top of what [`denied`] says. A client that tries again at once gets
/// the same answer: the SDKs of OpenAI and Anthropic leave off when told so.
pub(super) fn over_budget(
    reason: DenyReason,
    gateway: &str,
    destination: &str,
    detail: Option<&str>,
    exceeded: &Exceeded,
) -> Response<ResponseBody> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mut document = denial(reason, reason.status(), gateway, destination, detail);
    document["budget"] = json!({
        "rule": &*exceeded.route,
        "bound": exceeded.bound.as_str(),
        "limit": exceeded.limit,
        "used": exceeded.used,
        "requested": exceeded.asked,
        "resets_at": exceeded.resets_at.map(timestamp),
    });
    let mut response = respond(reason.status(), &document);
    let headers = response.headers_mut();
    headers.insert("x-should-retry", HeaderValue::from_static("false"));
    if let Some(at) = exceeded.resets_at {
        headers.insert(RETRY_AFTER, at.saturating_sub(now).into());
    }
    response
}

/// Midnight of a day, `YYYY-MM-DDT00:00:00Z`, by its seconds since the epoch.
fn timestamp(seconds: u64) -> String {
    // Howard Hinnant's `civil_from_days`, for days after 1970; years begin in March.
    let days = seconds / (24 * 60 * 60) + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02}T00:00:00Z",
        year + era * 400 + later
    )
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn addresses_that_are_kept_from_a_sandbox_are_not_in_its_answers() {
        let guarded = UpstreamError::Guarded {
            host: "a.test".to_owned(),
            address: [10, 1, 2, 3].into(),
            kind: "private",
        };
        let refused = UpstreamError::Connect {
            address: ([10, 1, 2, 3], 443).into(),
            source: std::io::Error::from_raw_os_error(111),
        };
        let resolve = UpstreamError::Resolve {
            host: "a.test".to_owned(),
            cause: "asked 10.1.2.3".to_owned(),
        };
        for error in [guarded, refused, resolve] {
            assert!(error.to_string().contains("10.1.2.3"), "{error}");
            let response = failed(&error, "g", "a.test:443");
            let ResponseBody::Whole(Some(told)) = response.into_body() else {
                panic!("no document");
            };
            let told = String::from_utf8(told.to_vec()).unwrap();
            assert!(told.contains(error.as_str()), "{told}");
            for kept in ["10.1.2.3", "111", "refused", "private"] {
                assert!(!told.contains(kept), "{told}");
            }
        }
    }

    #[test]
    fn midnights_have_dates() {
        for (days, date) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_454, "2026-01-01"),
            (20_778, "2026-11-21"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            let expected = format!("{date}T00:00:00Z");
            assert_eq!(super::timestamp(days * 24 * 60 * 60), expected);
        }
    }
}

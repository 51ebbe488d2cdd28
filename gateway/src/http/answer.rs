//! What the client gets: the upstream's answer, or why there is none.

use super::body::{Open, Passing, ResponseBody};
use super::capture::{Capture, text};
use super::problem::Refused;
use super::record::cut;
use super::scrubbed::Scrubbed;
use super::server::Session;
use super::upgrade::{self, Opening};
use super::{headers, problem};
use crate::outcome::DenyReason;
use crate::provider::{Operation, ResponseTap};
use crate::scrub::Scrubber;
use crate::upstream::Answer;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode, Version};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Passes an answer on: its head now, its body as it comes.
pub(super) fn pass_on(
    session: &Arc<Session>,
    answer: Answer,
    mut open: Open,
    operation: Option<Operation>,
    opening: Option<Opening>,
    scrubber: Option<Scrubber>,
) -> Response<ResponseBody> {
    let view = Arc::clone(&open.view);
    open.answered.store(true, Ordering::Relaxed);
    open.record.answered = Some(Instant::now());
    open.record.reused = answer.reused;
    let mut response = answer.response;
    if let Some(scrubber) = &scrubber {
        open.record.scrubbed += scrubber.headers(response.headers_mut());
    }
    open.record.status = Some(response.status().as_u16());
    open.record.response_headers = view.telemetry.headers(response.headers());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::tunnel(session, response, open, opening);
    }
    if let Some(Opening::Http2(..)) = opening
        && response.status().is_success()
    {
        return upgrade::not_agreed(session, open, "it answered as if nobody had asked for one");
    }
    headers::strip_hop_by_hop(response.headers_mut());
    let (mut parts, body) = response.into_parts();
    let usage = operation.and_then(|operation| {
        let tap = ResponseTap::new(
            &operation,
            text(&parts.headers, &CONTENT_TYPE).as_deref(),
            text(&parts.headers, &CONTENT_ENCODING).as_deref(),
        )?;
        let header = |name: &str| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
        Some(Box::new(tap.with_head(header)))
    });
    let is_head = open.record.method == "HEAD";
    let body = Scrubbed::new(scrubber, &mut parts, body, is_head, usage);
    if let Some(spending) = &mut open.spending {
        // Its last words go to the client: the head is the one that the client gets.
        spending.answered(parts.status, &parts.headers);
    }
    let policy = view.gateway.otlp.as_ref();
    let captured = Capture::new(
        policy.and_then(|otlp| otlp.capture_body.as_ref()),
        &parts.headers,
    );
    let passing = Passing::new(body, open, captured);
    let mut response = Response::from_parts(parts, ResponseBody::Upstream(passing));
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    response
}

/// Says why a request goes no further. Nothing of it was sent.
pub(super) fn refuse(
    session: &Session,
    mut open: Open,
    headers: &HeaderMap,
    refused: &Refused,
) -> Response<ResponseBody> {
    open.unspend();
    open.refused = true;
    // Nobody has it.
    open.record.credential = None;
    open.ended = true;
    let destination = match open.record.host.as_str() {
        "" => session.destination().to_string(),
        host => format!("{host}:{}", open.record.port),
    };
    let (gateway, detail) = (&session.who.gateway, refused.detail.as_deref());
    // The body did not come, for a reason that its connection knows better.
    if refused.reason == DenyReason::MalformedRequest
        && let Some(violation) = open.malformed()
    {
        return problem::malformed(violation, gateway, &destination);
    }
    let record = &mut open.record;
    record.reason = Some(refused.reason);
    let recorded = refused.recorded.as_ref().or(refused.detail.as_ref());
    record.detail = recorded.cloned().map(cut);
    record.status = Some(refused.reason.status());
    if record.request_headers.is_empty() {
        record.request_headers = open.view.telemetry.headers(headers);
    }
    match &refused.exceeded {
        None => problem::denied(refused.reason, gateway, &destination, detail),
        Some(exceeded) => {
            problem::over_budget(refused.reason, gateway, &destination, detail, exceeded)
        }
    }
}

/// Policy changed while the upstream was being asked.
pub(super) fn revoked(session: &Session, open: Open) -> Response<ResponseBody> {
    broken_off(session, open, DenyReason::PolicyChanged)
}

/// There was no room for what had to be held of the body while it was sent.
pub(super) fn crowded(session: &Session, open: Open) -> Response<ResponseBody> {
    broken_off(session, open, DenyReason::TooMuchHeld)
}

fn broken_off(session: &Session, mut open: Open, reason: DenyReason) -> Response<ResponseBody> {
    open.ended = true;
    open.record.reason = Some(reason);
    open.record.status = Some(reason.status());
    let destination = format!("{}:{}", open.record.host, open.record.port);
    problem::denied(reason, &session.who.gateway, &destination, None)
}

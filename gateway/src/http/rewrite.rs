//! A permitted request as the upstream gets it: its head rewritten, its body on its way.

use super::asking::Asking;
use super::body::Open;
use super::capture::{Capture, text};
use super::exchange::Granted;
use super::headers;
use super::outgoing::{Outgoing, Seen, Wanted};
use super::problem::Refused;
use super::record::TRACEPARENT;
use super::server::Session;
use crate::inject::{self, Late, Recipient};
use crate::live::View;
use crate::outcome::DenyReason;
use crate::provider::RequestTap;
use crate::scrub;
use crate::secrets::SecretValue;
use crate::telemetry::RequestRecord;
use crate::upstream::{RequestBody, Scheme};
use http::header::{CONTENT_ENCODING, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{Request, Uri};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a body with `Expect: 100-continue` waits for an upstream that does not answer the
/// expectation (RFC 9110 §10.1.1 says not to wait indefinitely; curl waits this long).
const PATIENCE: Duration = Duration::from_secs(1);

/// Turns the client's head into the upstream's.
///
/// What remains to be done in the end, and the credentials that are set so far.
pub(super) fn rewrite(
    session: &Session,
    view: &View,
    granted: &Granted,
    parts: &mut Parts,
    record: &mut RequestRecord,
) -> Result<(Option<Late>, Vec<SecretValue>), Refused> {
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::join_cookies(&mut parts.headers);
    if granted.upgrade {
        parts.headers.insert(
            http::header::CONNECTION,
            HeaderValue::from_static("upgrade"),
        );
        parts
            .headers
            .insert(http::header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    let permit = &granted.request_permit;
    let host = granted.authority.name.text();
    let recipient = Recipient {
        host: &host,
        tls: session.scheme == Scheme::Https,
    };
    let late = inject::apply(permit, &view.secrets, recipient, &mut parts.headers)?;
    record.credential = granted.request_permit.credential().cloned();
    let injected = scrub::injected(permit, &view.secrets, &parts.headers);
    // A token comes later, and is looked for in the answer too.
    if scrub::is_sought(&injected) || late.as_ref().is_some_and(Late::is_token) {
        scrub::limit_codings(&mut parts.headers);
    }
    if !parts.headers.contains_key(&TRACEPARENT)
        && let Some(span) = &record.span
        && let Ok(value) = HeaderValue::try_from(span.traceparent())
    {
        parts.headers.insert(TRACEPARENT, value);
    }
    let default = match session.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let port = granted.permit.port();
    let name = &granted.authority.name;
    let authority = if port == default {
        name.text()
    } else {
        format!("{name}:{port}").into()
    };
    let query = inject::query(permit, &view.secrets, parts.uri.query())?;
    let path = match query.as_str() {
        // `/x?` stays what it is, unless nothing but credentials was there.
        "" if parts.uri.query() != Some("") => parts.uri.path().to_owned(),
        query => format!("{}?{query}", parts.uri.path()),
    };
    let unclear = |error: String| Refused::saying(DenyReason::BadAuthority, error);
    parts.uri = Uri::builder()
        .scheme(record.scheme)
        .authority(&*authority)
        .path_and_query(path)
        .build()
        .map_err(|error| unclear(error.to_string()))?;
    let host = HeaderValue::from_str(&authority).map_err(|error| unclear(error.to_string()))?;
    parts.headers.insert(HOST, host);
    Ok((late, injected))
}

/// What is looked for in the body in passing.
pub(super) fn watch(view: &View, parts: &Parts, is_call: bool) -> Seen {
    let policy = view.gateway.otlp.as_ref();
    let encoding = text(&parts.headers, &CONTENT_ENCODING);
    Seen {
        bytes: 0,
        model: is_call
            .then(|| RequestTap::new(encoding.as_deref()))
            .flatten(),
        captured: Capture::new(
            policy.and_then(|otlp| otlp.capture_body.as_ref()),
            &parts.headers,
        ),
    }
}

/// The request as it is sent, and whom to tell that its body is wanted; `over` is dropped when all is.
pub(super) fn outgoing(
    granted: &Granted,
    mut parts: Parts,
    body: Asking,
    open: &Open,
    over: oneshot::Receiver<()>,
) -> (Request<RequestBody>, Option<oneshot::Sender<()>>) {
    let expects = parts
        .headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    // What the server side left there is for the client's connection.
    parts.extensions = http::Extensions::new();
    let forbidden = inject::credential_headers(&granted.request_permit);
    if !expects {
        let body = Outgoing::new(body, open, forbidden, None);
        return (Request::from_parts(parts, body.boxed_unsync()), None);
    }
    let (say, said) = oneshot::channel();
    let body = Outgoing::new(
        body,
        open,
        forbidden,
        Some(Wanted::new(
            said,
            PATIENCE,
            Arc::clone(&open.answered),
            over,
        )),
    );
    (Request::from_parts(parts, body.boxed_unsync()), Some(say))
}

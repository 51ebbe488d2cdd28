//! One request, in the order of the pipeline: authority → authorisation → injection → upstream →
//! record. Each refusal is recorded and explained to the client.

use super::authority::{self, Authority, Name};
use super::body::{Open, Outgoing, Passing, ResponseBody, Seen, Wanted, text};
use super::capture::Capture;
use super::headers::{self, Upgrade};
use super::record::{TRACEPARENT, begin};
use super::scrubbed::Scrubbed;
use super::server::{Route, Session};
use super::standing::{check_authority, permit_by};
use super::{problem, upgrade};
use crate::inject::{self, InjectError, Late, Recipient};
use crate::lease::Subject;
use crate::live::View;
use crate::outcome::{DenyReason, hyper_error::Error};
use crate::policy::{Class, Permit, RequestFacts, RequestPermit};
use crate::provider::request::{Operation, RequestTap, operation};
use crate::provider::usage::ResponseTap;
use crate::scrub::{self, Scrubber};
use crate::telemetry::RequestRecord;
use crate::upstream::{Answer, RequestBody, Scheme, Verb};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a body with `Expect: 100-continue` waits for an upstream that does not answer the
/// expectation (RFC 9110 §10.1.1 says not to wait indefinitely; curl waits this long).
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that has its permits.
struct Granted {
    authority: Authority,
    /// The header fields that policy looked at.
    read: HeaderMap,
    permit: Permit,
    request_permit: RequestPermit,
    upgrade: bool,
}

/// Why a request goes no further.
struct Refused {
    reason: DenyReason,
    detail: Option<String>,
}

impl From<InjectError> for Refused {
    fn from(error: InjectError) -> Self {
        Self {
            reason: error.reason(),
            detail: Some(error.to_string()),
        }
    }
}

impl From<DenyReason> for Refused {
    fn from(reason: DenyReason) -> Self {
        Self {
            reason,
            detail: None,
        }
    }
}

/// Answers one request.
pub(super) async fn handle(
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let view = session.live.view();
    let record = begin(&session, &view, &parts);
    let mut open = Open::new(&session, Arc::clone(&view), record);
    let granted = match admit(&view, &mut open).and_then(|()| authorize(&session, &view, &parts)) {
        Ok(granted) => granted,
        Err(refused) => return Ok(refuse(&session, open, &parts.headers, &refused)),
    };
    open.held = Some(
        session
            .live
            .grant(&view, subject(&session, &granted, &parts)),
    );
    open.record.host = granted.authority.name.to_string();
    open.record.rule = Some(Arc::clone(granted.request_permit.rule()));
    let on_upgrade = granted.upgrade.then(|| parts.extensions.remove()).flatten();
    let (late, scrubber) = match rewrite(&session, &view, &granted, &mut parts, &mut open.record) {
        Ok(last) => last,
        Err(refused) => return Ok(refuse(&session, open, &parts.headers, &refused)),
    };
    let call = granted
        .request_permit
        .provider()
        .and_then(|provider| Some((provider, operation(provider, &open.record.path)?)));
    if let Some((provider, operation)) = &call {
        open.record.provider = Some(provider.as_str());
        open.record.operation = Some(operation.name);
        open.record.model.clone_from(&operation.model_from_path);
    }
    open.request = Arc::new(Mutex::new(watch_request(&view, &parts, call.is_some())));
    let verb = if granted.upgrade {
        Verb::Upgrade
    } else {
        Verb::Exchange
    };
    let (over, ended) = oneshot::channel();
    open.over = Some(over);
    let mut request = outgoing(&granted, parts, body, &open, ended);
    if let Some(late) = late {
        let limit = view.gateway.request_timeout;
        let finished = tokio::select! {
            finished = late.finish(&view.tokens, &view.secrets, limit, request) => finished,
            () = open.revoked() => return Ok(revoked(&session, open)),
        };
        request = match finished {
            Ok(request) => request,
            Err(error) => return Ok(refuse(&session, open, &HeaderMap::new(), &error.into())),
        };
    }
    open.record.sent = Some(Instant::now());
    let sent = tokio::select! {
        sent = view.upstream.send(&granted.permit, session.scheme, verb, request) => sent,
        () = open.revoked() => return Ok(revoked(&session, open)),
    };
    match sent {
        Err(error) => {
            if let Some(violation) = open.malformed() {
                let destination = granted.permit.target().to_string();
                return Ok(problem::malformed(
                    violation,
                    &session.who.gateway,
                    &destination,
                ));
            }
            open.ended = true;
            tracing::info!(%error, host = %open.record.host, "no answer from upstream");
            let telemetry = &view.telemetry;
            telemetry.not_dialled(&open.record.who, &open.record.host, &error);
            open.record.error = Some(error.as_str());
            open.record.status = Some(error.status());
            let destination = granted.permit.target().to_string();
            Ok(problem::failed(&error, &session.who.gateway, &destination))
        }
        Ok(answer) => Ok(pass_on(&session, answer, open, call, on_upgrade, scrubber)),
    }
}

/// Is there room for one more, and a log to write it to?
fn admit(view: &View, open: &mut Open) -> Result<(), Refused> {
    if !view.telemetry.is_recording() {
        return Err(DenyReason::AuditUnavailable.into());
    }
    match Arc::clone(&view.requests).try_acquire_owned() {
        Ok(place) => {
            open.place = Some(place);
            Ok(())
        }
        Err(_full) => Err(DenyReason::TooManyRequests.into()),
    }
}

fn authorize(session: &Session, view: &View, parts: &Parts) -> Result<Granted, Refused> {
    if let Route::Denied(reason) = &session.route {
        return Err((*reason).into());
    }
    let authority = authority::of_request(parts).map_err(|error| Refused {
        reason: DenyReason::BadAuthority,
        detail: Some(error.to_string()),
    })?;
    let upgrade = request_form(parts)?;
    let host = match &authority.name {
        Name::Host(host) => Some(host),
        Name::Address(_) => None,
    };
    let port = session.destination().port();
    let permit = match &session.route {
        Route::Denied(reason) => return Err((*reason).into()),
        Route::Connection {
            permit,
            generation,
            name,
            ..
        } => {
            if *name != authority.name || authority.port.is_some_and(|written| written != port) {
                return Err(DenyReason::AuthorityMismatch.into());
            }
            if *generation == view.generation {
                permit.clone()
            } else {
                permit_by(view, Class::Tls, session.destination(), host)?
            }
        }
        Route::Request => {
            check_authority(session.destination(), &authority)?;
            permit_by(view, Class::Http, session.destination(), host)?
        }
    };
    let passed_on = if view.gateway.reads_headers() {
        headers::passed_on(&parts.headers)
    } else {
        HeaderMap::new()
    };
    let facts = RequestFacts {
        host,
        port,
        method: parts.method.as_str(),
        path: parts.uri.path(),
        headers: &passed_on,
        // No rule asks for a model: such rules are refused when the policy is read.
        model: None,
        tls: session.scheme == Scheme::Https,
    };
    let request_permit = view
        .gateway
        .authorize_request(&permit, &facts)
        .map_err(|denial| match parts.method {
            Method::TRACE => DenyReason::TraceRefused,
            _ => denial.into(),
        })?;
    Ok(Granted {
        authority,
        read: passed_on,
        permit,
        request_permit,
        upgrade,
    })
}

fn subject(session: &Session, granted: &Granted, parts: &Parts) -> Subject {
    Subject::Request {
        address: session.destination(),
        host: match &granted.authority.name {
            Name::Host(host) => Some(host.clone()),
            Name::Address(_) => None,
        },
        tls: session.scheme == Scheme::Https,
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        headers: granted.read.clone(),
    }
}

/// Origin-form, or absolute-form that says the same; CONNECT and unknown upgrades would make the
/// gateway blind to what follows.
fn request_form(parts: &Parts) -> Result<bool, Refused> {
    let upgrade = headers::asks_for(&parts.headers);
    let http1 = parts.version <= Version::HTTP_11;
    let plain_form = parts.uri.path().starts_with('/');
    if parts.method == Method::CONNECT || !plain_form || upgrade == Upgrade::Other {
        return Err(DenyReason::RequestFormNotAllowed.into());
    }
    Ok(http1 && upgrade == Upgrade::WebSocket)
}

/// Turns the client's head into the upstream's.
fn rewrite(
    session: &Session,
    view: &View,
    granted: &Granted,
    parts: &mut Parts,
    record: &mut RequestRecord,
) -> Result<(Option<Late>, Option<Scrubber>), Refused> {
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
    let host = granted.authority.name.to_string();
    let recipient = Recipient {
        host: &host,
        tls: session.scheme == Scheme::Https,
    };
    let late = inject::apply(permit, &view.secrets, recipient, &mut parts.headers)?;
    record.credential = granted.request_permit.credential().cloned();
    let scrubber =
        view.scrubbers
            .of_request(&granted.request_permit, &view.secrets, &parts.headers);
    if scrubber.is_some() {
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
        name.to_string()
    } else {
        format!("{name}:{port}")
    };
    let query = inject::query(permit, &view.secrets, parts.uri.query())?;
    let path = match query.as_str() {
        // `/x?` stays what it is, unless nothing but credentials was there.
        "" if parts.uri.query() != Some("") => parts.uri.path().to_owned(),
        query => format!("{}?{query}", parts.uri.path()),
    };
    let unclear = |error: String| Refused {
        reason: DenyReason::BadAuthority,
        detail: Some(error),
    };
    parts.uri = Uri::builder()
        .scheme(record.scheme)
        .authority(authority.as_str())
        .path_and_query(path)
        .build()
        .map_err(|error| unclear(error.to_string()))?;
    let host = HeaderValue::try_from(&authority).map_err(|error| unclear(error.to_string()))?;
    parts.headers.insert(HOST, host);
    record.request_headers = view.telemetry.redactor().headers(&parts.headers);
    Ok((late, scrubber))
}

fn watch_request(view: &View, parts: &Parts, is_call: bool) -> Seen {
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

fn outgoing(
    granted: &Granted,
    mut parts: Parts,
    body: Incoming,
    open: &Open,
    over: oneshot::Receiver<()>,
) -> Request<RequestBody> {
    let seen = Arc::clone(&open.request);
    let expects = parts
        .headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    // What the server side left there is for the client's connection.
    parts.extensions = http::Extensions::new();
    let forbidden = inject::credential_headers(&granted.request_permit);
    if !expects {
        let body = Outgoing::new(body, seen, forbidden, None);
        return Request::from_parts(parts, body.boxed_unsync());
    }
    let (say, said) = oneshot::channel();
    let body = Outgoing::new(
        body,
        seen,
        forbidden,
        Some(Wanted::new(
            said,
            PATIENCE,
            Arc::clone(&open.answered),
            over,
        )),
    );
    let mut request = Request::from_parts(parts, body.boxed_unsync());
    let say = Mutex::new(Some(say));
    hyper::ext::on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE
            && let Ok(mut say) = say.lock()
            && let Some(say) = say.take()
            && say.send(()).is_err()
        {
            tracing::debug!("the body did not wait for 100 Continue");
        }
    });
    request
}

fn pass_on(
    session: &Arc<Session>,
    answer: Answer,
    mut open: Open,
    call: Option<(crate::policy::Provider, Operation)>,
    on_upgrade: Option<hyper::upgrade::OnUpgrade>,
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
    open.record.response_headers = view.telemetry.redactor().headers(response.headers());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::tunnel(session, response, open, on_upgrade);
    }
    headers::strip_hop_by_hop(response.headers_mut());
    let (mut parts, body) = response.into_parts();
    let is_head = open.record.method == "HEAD";
    let body = Scrubbed::new(scrubber, &mut parts, body, is_head);
    let usage = call.and_then(|(provider, operation)| {
        ResponseTap::new(
            provider,
            &operation,
            text(&parts.headers, &CONTENT_TYPE).as_deref(),
            text(&parts.headers, &CONTENT_ENCODING).as_deref(),
        )
    });
    let policy = view.gateway.otlp.as_ref();
    let captured = Capture::new(
        policy.and_then(|otlp| otlp.capture_body.as_ref()),
        &parts.headers,
    );
    let passing = Passing::new(body, open, usage, captured);
    let mut response = Response::from_parts(parts, ResponseBody::Upstream(Box::new(passing)));
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    response
}

fn refuse(
    session: &Session,
    mut open: Open,
    headers: &HeaderMap,
    refused: &Refused,
) -> Response<ResponseBody> {
    open.ended = true;
    let record = &mut open.record;
    record.reason = Some(refused.reason);
    record.status = Some(refused.reason.status());
    if record.request_headers.is_empty() {
        record.request_headers = open.view.telemetry.redactor().headers(headers);
    }
    let destination = match record.host.as_str() {
        "" => session.destination().to_string(),
        host => format!("{host}:{}", record.port),
    };
    problem::denied(
        refused.reason,
        &session.who.gateway,
        &destination,
        refused.detail.as_deref(),
    )
}

/// Policy changed while the upstream was being asked.
fn revoked(session: &Session, mut open: Open) -> Response<ResponseBody> {
    let reason = DenyReason::PolicyChanged;
    open.ended = true;
    open.record.reason = Some(reason);
    open.record.status = Some(reason.status());
    let destination = format!("{}:{}", open.record.host, open.record.port);
    problem::denied(reason, &session.who.gateway, &destination, None)
}

/// Errors of bodies are boxed on both sides.
const _: fn(hyper::Error) -> Error = |error| Box::new(error);

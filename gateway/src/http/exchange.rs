//! One request, in the order of the pipeline: authority → authorisation → injection → upstream →
//! record. Each refusal is recorded and explained to the client.

use super::asking::Asking;
use super::authority::{self, Authority, Name};
use super::body::{Capture, Open, Outgoing, Passing, ResponseBody, Seen, Wanted, text};
use super::headers::{self, Upgrade};
use super::problem::Refused;
use super::server::{Route, Session};
use super::{problem, upgrade};
use crate::inject;
use crate::lease::Subject;
use crate::live::View;
use crate::outcome::{DenyReason, hyper_error::Error};
use crate::policy::{
    Class, Destination, Host, Listener, Permit, RequestFacts, RequestPermit, TlsMode,
};
use crate::provider::{Operation, RequestTap, ResponseTap, Usage, operation};
use crate::telemetry::RequestRecord;
use crate::upstream::{Answer, RequestBody, Scheme, Verb};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
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
    /// The model, where policy had to know it.
    model: Option<String>,
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
    let mut body = Asking::Client(body);
    let granted = async {
        admit(&view, &mut open)?;
        authorize(&session, &view, &parts, &mut body).await
    };
    let granted = match granted.await {
        Ok(granted) => granted,
        Err(refused) => return Ok(refuse(&session, open, &parts, &refused)),
    };
    open.held = Some(
        session
            .live
            .grant(&view, subject(&session, &granted, &parts)),
    );
    open.record.host = granted.authority.name.to_string();
    open.record.rule = Some(Arc::clone(granted.request_permit.rule()));
    let on_upgrade = granted.upgrade.then(|| parts.extensions.remove()).flatten();
    if let Err(refused) = rewrite(&session, &view, &granted, &mut parts, &mut open.record) {
        return Ok(refuse(&session, open, &parts, &refused));
    }
    let permit = &granted.request_permit;
    match body
        .reserve(permit, &view, &mut parts, granted.upgrade)
        .await
    {
        Ok(spending) => open.spending = spending,
        Err(refused) => return Ok(refuse(&session, open, &parts, &refused)),
    }
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
    let request = outgoing(&granted, parts, body, &open, ended);
    let sent = tokio::select! {
        sent = view.upstream.send(&granted.permit, session.scheme, verb, request) => sent,
        () = open.revoked() => return Ok(revoked(&session, open)),
    };
    match sent {
        Err(error) => {
            open.ended = true;
            if let Some(spending) = open.spending.take() {
                spending.failed(&error);
            }
            tracing::info!(%error, host = %open.record.host, "no answer from upstream");
            open.record.error = Some(error.as_str());
            open.record.status = Some(error.status());
            let destination = granted.permit.target().to_string();
            Ok(problem::failed(&error, &session.who.gateway, &destination))
        }
        Ok(answer) => Ok(pass_on(&session, answer, open, call, on_upgrade)),
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

async fn authorize(
    session: &Session,
    view: &View,
    parts: &Parts,
    body: &mut Asking,
) -> Result<Granted, Refused> {
    if let Route::Denied(reason) = &session.route {
        return Err((*reason).into());
    }
    let authority = authority::of_request(parts).map_err(|error| Refused {
        reason: DenyReason::BadAuthority,
        detail: Some(error.to_string()),
        exceeded: None,
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
    let mut facts = RequestFacts {
        host,
        port,
        method: parts.method.as_str(),
        path: parts.uri.path(),
        headers: &passed_on,
        model: None,
        tls: session.scheme == Scheme::Https,
    };
    let model = match view.gateway.model_provider(&permit, &facts) {
        Some(provider) => body.model(provider, view, parts).await?,
        None => None,
    };
    facts.model = model.as_deref();
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
        model,
    })
}

/// In the clear there is no server name: each request's authority is the evidence, and the port is
/// the one that the client connected to.
fn check_authority(address: SocketAddr, authority: &Authority) -> Result<(), Refused> {
    if authority.port.unwrap_or(80) != address.port() {
        return Err(DenyReason::AuthorityMismatch.into());
    }
    match authority.name {
        Name::Address(ip) if ip != address.ip() => Err(DenyReason::AuthorityMismatch.into()),
        _ => Ok(()),
    }
}

/// What the policy that is in force now says of the connection.
fn permit_by(
    view: &View,
    class: Class,
    address: SocketAddr,
    host: Option<&Host>,
) -> Result<Permit, Refused> {
    let listener = view.gateway.listener(class, address.port());
    // A gateway that has ceased to read what it ends TLS for would let it pass unread.
    let reads = |listener: &&Listener| {
        listener.class == Class::Http || listener.tls_mode == TlsMode::Terminate
    };
    let Some(listener) = listener.filter(reads) else {
        return Err(DenyReason::NoListener.into());
    };
    let to = Destination {
        address,
        host,
        listener,
    };
    view.gateway
        .authorize(&to)
        .map_err(|denial| DenyReason::from(denial).into())
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
        model: granted.model.as_deref().map(Into::into),
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
) -> Result<(), Refused> {
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
    inject::apply(&granted.request_permit, &view.secrets, &mut parts.headers).map_err(|error| {
        Refused {
            reason: DenyReason::SecretMissing,
            detail: Some(error.to_string()),
            exceeded: None,
        }
    })?;
    record.credential = granted.request_permit.credential().cloned();
    let traceparent = text(&parts.headers, &TRACEPARENT);
    record.span = view.telemetry.begin(traceparent.as_deref());
    if traceparent.is_none()
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
    let query = parts
        .uri
        .query()
        .map(|query| inject::without_credentials(&granted.request_permit, query));
    let path = match query.as_deref() {
        None | Some("") => parts.uri.path().to_owned(),
        Some(query) => format!("{}?{query}", parts.uri.path()),
    };
    let unclear = |error: String| Refused {
        reason: DenyReason::BadAuthority,
        detail: Some(error),
        exceeded: None,
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
    Ok(())
}

/// W3C Trace Context.
const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");

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
    body: Asking,
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
) -> Response<ResponseBody> {
    let view = Arc::clone(&open.view);
    open.answered.store(true, Ordering::Relaxed);
    open.record.reused = answer.reused;
    let mut response = answer.response;
    open.record.status = Some(response.status().as_u16());
    open.record.response_headers = view.telemetry.redactor().headers(response.headers());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::tunnel(session, response, open, on_upgrade);
    }
    headers::strip_hop_by_hop(response.headers_mut());
    if let Some(spending) = &mut open.spending {
        spending.answered(response.headers());
    }
    let (parts, body) = response.into_parts();
    let usage = call.and_then(|(_, operation)| {
        ResponseTap::new(
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
    let passing = Passing {
        body,
        open,
        usage,
        captured,
        cut: false,
    };
    let mut response = Response::from_parts(parts, ResponseBody::Upstream(Box::new(passing)));
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    response
}

fn refuse(
    session: &Session,
    mut open: Open,
    parts: &Parts,
    refused: &Refused,
) -> Response<ResponseBody> {
    open.ended = true;
    let record = &mut open.record;
    // Nothing was sent.
    record.credential = None;
    record.reason = Some(refused.reason);
    record.status = Some(refused.reason.status());
    if record.request_headers.is_empty() {
        record.request_headers = open.view.telemetry.redactor().headers(&parts.headers);
    }
    let destination = match record.host.as_str() {
        "" => session.destination().to_string(),
        host => format!("{host}:{}", record.port),
    };
    let (gateway, detail) = (&session.who.gateway, refused.detail.as_deref());
    match &refused.exceeded {
        None => problem::denied(refused.reason, gateway, &destination, detail),
        Some(exceeded) => {
            problem::over_budget(refused.reason, gateway, &destination, detail, exceeded)
        }
    }
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

fn begin(session: &Session, view: &View, parts: &Parts) -> RequestRecord {
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
        usage: Usage::default(),
        request_body: None,
        response_body: None,
        span: None,
    }
}

/// Errors of bodies are boxed on both sides.
const _: fn(hyper::Error) -> Error = |error| Box::new(error);

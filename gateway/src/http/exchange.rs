//! One request, in the order of the pipeline: authority → authorisation → injection → upstream →
//! record. Each refusal is recorded and explained to the client.

use super::answer::{crowded, pass_on, refuse, revoked};
use super::asking::Asking;
use super::authority::{self, Authority, Name};
use super::body::{Open, ResponseBody};
use super::headers::{self, Upgrade};
use super::overrides;
use super::problem::{self, Refused};
use super::record::{begin, cut};
use super::rewrite::{outgoing, rewrite, watch};
use super::server::{Route, Session};
use super::spending::Spending;
use super::standing::{check_authority, permit_by};
use crate::inject::{Late, Room};
use crate::lease::Subject;
use crate::live::View;
use crate::outcome::{DenyReason, UpstreamError, hyper_error::Error};
use crate::policy::{Class, Permit, RequestFacts, RequestPermit};
use crate::provider::operation;
use crate::scrub;
use crate::upstream::{Scheme, Verb};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

/// A request that has its permits.
pub(super) struct Granted {
    pub(super) authority: Authority,
    /// The header fields that policy looked at.
    read: HeaderMap,
    pub(super) permit: Permit,
    pub(super) request_permit: RequestPermit,
    pub(super) upgrade: bool,
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
    let rewritten = rewrite(&session, &view, &granted, &mut parts, &mut open.record);
    let (mut late, mut injected) = match rewritten {
        Ok(last) => last,
        Err(refused) => return Ok(refuse(&session, open, &parts.headers, &refused)),
    };
    let known = tokio::select! {
        known = know(&view, &granted, &mut parts, &mut body, late.as_mut()) => known,
        () = open.revoked() => return Ok(revoked(&session, open)),
    };
    match known {
        Ok(spending) => open.spending = spending,
        Err(refused) => return Ok(refuse(&session, open, &parts.headers, &refused)),
    }
    let call = granted
        .request_permit
        .provider()
        .and_then(|provider| Some((provider, operation(provider, parts.uri.path())?)));
    if let Some((provider, operation)) = &call {
        open.record.provider = Some(provider.as_str());
        open.record.operation = Some(operation.name);
        open.record.model.clone_from(&operation.model_from_path);
    }
    open.request = Arc::new(Mutex::new(watch(&view, &parts, call.is_some())));
    let verb = if granted.upgrade {
        Verb::Upgrade
    } else {
        Verb::Exchange
    };
    let (over, ended) = oneshot::channel();
    open.over = Some(over);
    let mut request = outgoing(&granted, parts, body, &open, ended);
    let room = Room::new(Arc::clone(&view.bodies));
    if let Some(late) = late {
        let head = request.headers().clone();
        let finished = tokio::select! {
            finished = late.finish(&view.tokens, &view.secrets, &room, request) => finished,
            () = open.revoked() => {
                open.unspend();
                return Ok(revoked(&session, open));
            }
        };
        request = match finished {
            Ok(request) => request,
            Err(error) => return Ok(refuse(&session, open, &head, &error.into())),
        };
        injected.extend(scrub::token(&granted.request_permit, request.headers()));
    }
    open.record.request_headers = view.telemetry.headers(request.headers());
    let scrubber = view.scrubbers.of(&injected);
    open.record.sent = Some(Instant::now());
    let (permit, progress) = (&granted.permit, &open.progress);
    let sent = tokio::select! {
        sent = view.upstream.send(permit, session.scheme, verb, request, progress) => sent,
        () = open.revoked() => return Ok(revoked(&session, open)),
    };
    match sent {
        Err(_) if room.is_missing() => Ok(crowded(&session, open)),
        Err(error) => Ok(unanswered(&session, open, &granted, &error)),
        Ok(answer) => {
            let operation = call.map(|(_, operation)| operation);
            Ok(pass_on(
                &session, answer, open, operation, on_upgrade, scrubber,
            ))
        }
    }
}

/// What must be known of the body: what it may spend, which is reserved, and what its signature covers.
async fn know(
    view: &View,
    granted: &Granted,
    parts: &mut Parts,
    body: &mut Asking,
    late: Option<&mut Late>,
) -> Result<Option<Spending>, Refused> {
    let permit = &granted.request_permit;
    let spending = body.reserve(permit, view, parts, granted.upgrade).await?;
    if let Some(late) = late {
        // What was read for its tokens is read already: nothing is left to fail that would leave them reserved.
        body.cover(late, view).await?;
    }
    Ok(spending)
}

/// The upstream could not be reached, or gave no answer.
fn unanswered(
    session: &Session,
    mut open: Open,
    granted: &Granted,
    error: &UpstreamError,
) -> Response<ResponseBody> {
    if let Some(spending) = open.spending.take() {
        spending.failed(error);
    }
    let gateway = &session.who.gateway;
    let destination = granted.permit.target().to_string();
    if let Some(violation) = open.malformed() {
        return problem::malformed(violation, gateway, &destination);
    }
    open.ended = true;
    tracing::info!(%error, host = %open.record.host, "no answer from upstream");
    let view = Arc::clone(&open.view);
    view.not_dialled(&open.record.who, &open.record.host, error);
    open.record.detail = Some(cut(error.to_string()));
    open.record.error = Some(error.as_str());
    open.record.status = Some(error.status());
    problem::failed(error, gateway, &destination)
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
    let authority = authority::of_request(parts)
        .map_err(|error| Refused::saying(DenyReason::BadAuthority, error))?;
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
    overrides::check(session, view, &facts, &request_permit, &parts.headers)?;
    Ok(Granted {
        authority,
        read: passed_on,
        permit,
        request_permit,
        upgrade,
        model,
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

/// Errors of bodies are boxed on both sides.
const _: fn(hyper::Error) -> Error = |error| Box::new(error);

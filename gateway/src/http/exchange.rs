//! One request, in the order of the pipeline: authority → authorisation → injection → upstream →
//! record. Each refusal is recorded and explained to the client.

use super::answer::{crowded, pass_on, refuse, revoked};
use super::asking::Asking;
use super::authority::{self, Authority, AuthorityError, Name};
use super::body::{Open, ResponseBody};
use super::headers::{self, Upgrade};
use super::interim::{self, Awaiting};
use super::overrides;
use super::problem::{self, Refused};
use super::record::{begin, cut};
use super::rewrite::{outgoing, rewrite, watch};
use super::server::{Route, Session};
use super::spending::Spending;
use super::standing::{check_authority, permit_by};
use super::upgrade::Opening;
use super::websocket;
use crate::guard;
use crate::inject::{self, Late, Room};
use crate::lease::Subject;
use crate::live::View;
use crate::outcome::{DenyReason, UpstreamError, hyper_error::Error};
use crate::policy::{Class, Permit, Provider, RequestFacts, RequestPermit};
use crate::provider::{Operation, operation};
use crate::scrub;
use crate::telemetry::RequestRecord;
use crate::upstream::{Scheme, Verb};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
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
    let translated = websocket::translate(&mut parts);
    let view = session.live.view();
    let authority = authority::of_request(&parts);
    let record = begin(&session, &view, &parts, &authority);
    let mut open = Open::new(&session, Arc::clone(&view), record);
    let mut body = Asking::Client(body);
    let granted = async {
        admit(&view, &mut open)?;
        let consent = translated?;
        let over_http2 = consent.is_some();
        let granted = authorize(
            &session,
            &view,
            &parts,
            authority,
            over_http2,
            &mut body,
            &mut open.record,
        )
        .await?;
        Ok((granted, consent))
    };
    let (granted, consent) = match granted.await {
        Ok(granted) => granted,
        Err(refused) => return Ok(turned_away(&session, open, &parts, body, &refused)),
    };
    let provider = granted.request_permit.provider();
    let operation = describe(&mut open.record, provider, &parts);
    open.held = Some(
        session
            .live
            .grant(&view, subject(&session, &granted, &parts)),
    );
    open.record.rule = Some(Arc::clone(granted.request_permit.rule()));
    let opening = granted
        .upgrade
        .then(|| Opening::new(&mut parts.extensions, consent))
        .flatten();
    let rewritten = rewrite(&session, &view, &granted, &mut parts, &mut open.record);
    let (mut late, mut injected) = match rewritten {
        Ok(last) => last,
        Err(refused) => return Ok(turned_away(&session, open, &parts, body, &refused)),
    };
    let known = tokio::select! {
        known = know(&view, &granted, &mut parts, &mut body, late.as_mut()) => known,
        () = open.revoked() => {
            body.let_arrive(parts.version);
            return Ok(revoked(&session, open));
        }
    };
    match known {
        Ok(spending) => open.spending = spending,
        Err(refused) => return Ok(turned_away(&session, open, &parts, body, &refused)),
    }
    open.request = Arc::new(Mutex::new(watch(&view, &parts, operation.is_some())));
    let verb = if granted.upgrade {
        Verb::Upgrade
    } else {
        Verb::Exchange
    };
    let (over, ended) = oneshot::channel();
    open.over = Some(over);
    // Others could not read it (RFC 9110 §15.2), or cannot be sent it.
    let awaiting = (parts.version == Version::HTTP_11).then(|| session.interim.await_final());
    let (mut request, wanted) = outgoing(&granted, parts, body, &open, ended);
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
    interim::listen(&mut request, wanted, awaiting.as_ref(), scrubber.as_ref());
    open.record.sent = Some(Instant::now());
    let (permit, progress) = (&granted.permit, &open.progress);
    let sent = tokio::select! {
        sent = view.upstream.send(permit, session.scheme, verb, request, progress) => sent,
        () = open.revoked() => return Ok(revoked(&session, open)),
    };
    open.record.scrubbed += awaiting.as_ref().map_or(0, Awaiting::scrubbed);
    match sent {
        Err(_) if room.is_missing() => Ok(crowded(&session, open)),
        Err(error) => Ok(unanswered(&session, open, &granted, &error)),
        Ok(answer) => {
            if answer.response.status() == StatusCode::UNAUTHORIZED {
                inject::doubt(&granted.request_permit, &view.tokens, &view.secrets);
            }
            Ok(pass_on(
                &session, answer, open, operation, opening, scrubber,
            ))
        }
    }
}

/// Refused before it was sent: what its body had to say of it is on record, and the rest of it is let arrive.
fn turned_away(
    session: &Session,
    mut open: Open,
    parts: &Parts,
    body: Asking,
    refused: &Refused,
) -> Response<ResponseBody> {
    body.name_model(&mut open.record);
    body.let_arrive(parts.version);
    refuse(session, open, &parts.headers, refused)
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
    authority: Result<Authority, AuthorityError>,
    over_http2: bool,
    body: &mut Asking,
    record: &mut RequestRecord,
) -> Result<Granted, Refused> {
    if let Route::Denied(reason) = &session.route {
        return Err((*reason).into());
    }
    if parts.version == Version::HTTP_2 {
        guard::delivered(&parts.method, &parts.uri, &parts.headers)
            .map_err(|violation| Refused::saying(DenyReason::MalformedRequest, violation))?;
    }
    let authority = authority.map_err(|error| Refused::saying(DenyReason::BadAuthority, error))?;
    let upgrade = request_form(parts, over_http2)?;
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
    // Whoever is refused for its call has it on record.
    describe(record, view.gateway.asked_provider(&permit, &facts), parts);
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

/// Puts on record which call of which provider it is, as far as its path says.
fn describe(
    record: &mut RequestRecord,
    provider: Option<Provider>,
    parts: &Parts,
) -> Option<Operation> {
    let operation = provider.and_then(|provider| operation(provider, parts.uri.path()));
    record.provider = provider.map(Provider::as_str);
    record.operation = operation.as_ref().map(|operation| operation.name);
    record.model = operation
        .as_ref()
        .and_then(|operation| operation.model_from_path.clone());
    operation
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

/// Is it a WebSocket that is asked for, by HTTP/1.1 or `over_http2`? Otherwise it is origin-form, or absolute-form that
/// says the same; CONNECT and unknown upgrades would make the
/// gateway blind to what follows.
fn request_form(parts: &Parts, over_http2: bool) -> Result<bool, Refused> {
    let upgrade = headers::asks_for(&parts.headers);
    let http1 = parts.version <= Version::HTTP_11;
    let plain_form = parts.uri.path().starts_with('/');
    if parts.method == Method::CONNECT || !plain_form || upgrade == Upgrade::Other {
        return Err(DenyReason::RequestFormNotAllowed.into());
    }
    Ok(over_http2 || (http1 && upgrade == Upgrade::WebSocket))
}

/// Errors of bodies are boxed on both sides.
const _: fn(hyper::Error) -> Error = |error| Box::new(error);

#[cfg(test)]
mod tests {
    use super::*;

    /// It is copied with each request: what few requests need is boxed.
    #[test]
    fn an_exchange_has_no_room_for_what_it_seldom_needs() {
        fn size<S, R, F>(_: fn(S, R) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(handle);
        assert!(bytes <= 6 * 1024, "{bytes} bytes");
    }
}

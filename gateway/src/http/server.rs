//! Runs the HTTP server for one connection.

use super::activity::Activity;
use super::authority::Name;
use super::guarded::{Guarded, Watch};
use super::interim::Interim;
use super::observed::Observed;
use super::{exchange, problem};
use crate::guard::{Refusal, Violation};
use crate::lease::{Held, Subject};
use crate::listener::Place;
use crate::live::{Live, View};
use crate::outcome::{DenyReason, Stage};
use crate::policy::{Host, Permit};
use crate::telemetry::{DenialRecord, Who};
use crate::upstream::Scheme;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Header fields in one message; common servers stop at 100.
const MAX_HEADERS: usize = 256;
/// Requests at once on one HTTP/2 connection (RFC 9113 §6.5.2 recommends no fewer than 100).
const MAX_STREAMS: u32 = 256;
/// Resets that a client may have pending: enough for cancelled requests, too few for CVE-2023-44487.
const MAX_RESET_STREAMS: usize = 64;
/// How much an HTTP/2 client may send ahead of the upstream, per stream and in all.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// An HTTP/2 client that answers no ping for this long is gone.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_WITHIN: Duration = Duration::from_secs(20);

/// One connection that carries HTTP.
pub struct Session {
    /// The sandbox; each request takes the view that is in force.
    pub(super) live: Arc<Live>,
    pub(super) who: Who,
    /// Its place among the sandbox's connections.
    pub(super) place: Arc<Place>,
    /// Its requests.
    pub(super) activity: Arc<Activity>,
    /// What its guard has found.
    pub(super) watch: Arc<Watch>,
    /// What its client is told before a final response.
    pub(super) interim: Arc<Interim>,
    /// What its requests may reach.
    pub(super) route: Route,
    /// In the clear, or TLS on both sides.
    pub(super) scheme: Scheme,
}

/// How requests of a connection find their permit.
pub(super) enum Route {
    /// By the connection: every request must be for this name.
    Connection {
        /// From authorisation, good for the generation that it was made by.
        permit: Permit,
        /// The generation.
        generation: u64,
        /// The server name, or the address where there was none.
        name: Name,
        /// Ends the connection when policy no longer allows it.
        held: Held,
    },
    /// By each request's authority.
    Request,
    /// Not at all: the connection is served only to say so.
    Denied(DenyReason),
}

impl Session {
    /// A TLS connection that `view` lets go to `permit`. `host` is the server name, if there was one.
    pub fn tls(
        live: Arc<Live>,
        view: &View,
        who: Who,
        place: Arc<Place>,
        permit: Permit,
        host: Option<Host>,
    ) -> Self {
        let held = live.grant(
            view,
            Subject::Session {
                address: who.destination,
                host: host.clone(),
            },
        );
        let name = match host {
            Some(host) => Name::Host(host),
            None => Name::Address(who.destination.ip()),
        };
        let route = Route::Connection {
            permit,
            generation: view.generation,
            name,
            held,
        };
        Self::new(live, who, place, route, Scheme::Https)
    }

    /// A plaintext connection.
    pub fn plain(live: Arc<Live>, who: Who, place: Arc<Place>) -> Self {
        Self::new(live, who, place, Route::Request, Scheme::Http)
    }

    /// A connection that is served only to explain why it goes nowhere.
    pub fn denied(
        live: Arc<Live>,
        who: Who,
        place: Arc<Place>,
        scheme: Scheme,
        reason: DenyReason,
    ) -> Self {
        Self::new(live, who, place, Route::Denied(reason), scheme)
    }

    fn new(live: Arc<Live>, who: Who, place: Arc<Place>, route: Route, scheme: Scheme) -> Self {
        Self {
            live,
            who,
            place,
            activity: Arc::default(),
            watch: Arc::default(),
            interim: Arc::default(),
            route,
            scheme,
        }
    }

    /// Returns when policy no longer allows the connection.
    async fn revoked(&self) {
        match &self.route {
            Route::Connection { held, .. } => held.lease().revoked().await,
            Route::Request | Route::Denied(_) => std::future::pending().await,
        }
    }

    /// Records what is not even a request.
    fn refused(&self, detail: String) {
        let view = self.live.view();
        let mut who = self.who.clone();
        who.generation = view.generation;
        let host = match &self.route {
            Route::Connection { name, .. } => Some(name.to_string()),
            Route::Request | Route::Denied(_) => None,
        };
        view.denied(&DenialRecord {
            who,
            reason: DenyReason::MalformedRequest,
            stage: Stage::Http,
            host,
            detail: Some(detail),
        });
    }

    /// Records it, and says what to answer.
    fn refuse(&self, violation: Violation) -> bytes::Bytes {
        if let Some(violation) = self.watch.unrecorded() {
            self.refused(violation.to_string());
        }
        let destination = self.destination().to_string();
        problem::raw(violation, &self.who.gateway, &destination)
    }

    /// Where the client meant to go.
    pub(super) fn destination(&self) -> SocketAddr {
        self.who.destination
    }
}

/// Serves a connection until it ends, is idle for too long, is no longer allowed, or the gateway lets
/// it finish because it drains itself.
pub async fn serve<S>(session: Session, http2: bool, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = session.live.view().gateway.limits;
    let max_header_bytes = limits.max_request_header_bytes;
    let idle = limits.idle_timeout;
    let session = Arc::new(session);
    let served = Arc::clone(&session);
    let service = service_fn(move |request| {
        let session = Arc::clone(&served);
        async move { exchange::handle(session, request).await }
    });
    let _unrecorded = Unrecorded(Arc::clone(&session));
    let draining = &session.live.draining;
    // The two builders have no trait in common.
    let ended = if http2 {
        let teller = Arc::clone(&session);
        let tell = move |refusal: Refusal| {
            let name = refusal.name().unwrap_or("an error");
            let what = match refusal.stream {
                0 => "the connection".to_owned(),
                stream => format!("stream {stream}"),
            };
            teller.refused(format!("{what} was refused with {name} (RFC 9113 §7)"));
        };
        let counted = Arc::clone(&session);
        let requests = Box::new(move || counted.activity.begun());
        let io = TokioIo::new(Observed::new(stream, idle, requests, Box::new(tell)));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(MAX_STREAMS)
            // WebSockets over HTTP/2 (RFC 8441).
            .enable_connect_protocol()
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let until_shutdown = async {
            tokio::select! {
                // HTTP/1 connections are timed by their guard.
                () = session.activity.idle(idle) => {}
                () = draining.cancelled() => {}
                () = session.revoked() => {}
            }
        };
        let served = async {
            tokio::select! {
                ended = &mut connection => return ended,
                () = until_shutdown => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        tokio::select! {
            ended = served => ended,
            // A window that is never opened: nothing but the end of the connection frees what waits.
            () = session.activity.stalled(idle) => {
                tracing::info!("an HTTP/2 client stopped reading a response");
                return;
            }
        }
    } else {
        let refuser = Arc::clone(&session);
        let refuse = Box::new(move |violation| refuser.refuse(violation));
        let watch = Arc::clone(&session.watch);
        let interim = Arc::clone(&session.interim);
        let guarded = Guarded::new(stream, max_header_bytes, idle, watch, interim, refuse);
        let io = TokioIo::new(guarded);
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(max_header_bytes.max(MIN_BUFFER) + MARGIN)
            .max_headers(MAX_HEADERS)
            .half_close(true)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            ended = &mut connection => ended,
            () = draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = session.revoked() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        // What the guard lets pass the library should take; if not, it answered by itself.
        if !http2 && error.is_parse() && session.watch.is_clean() {
            session.refused(error.to_string());
        }
        tracing::debug!(%error, "client connection ended");
    }
}

/// Records, when the connection has ended, what nobody else has.
struct Unrecorded(Arc<Session>);

impl Drop for Unrecorded {
    fn drop(&mut self) {
        if let Some(violation) = self.0.watch.unrecorded() {
            self.0.refused(violation.to_string());
        }
    }
}

/// The guard counts a head's bytes first; hyper must not find it too long before.
const MARGIN: usize = 1024;
/// hyper reads heads and bodies through one buffer and asks for at least this.
const MIN_BUFFER: usize = 8192;

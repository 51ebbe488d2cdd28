//! One client connection that carries HTTP: whose it is, what its requests may reach, and what it leaves on record. How
//! its bytes are read is for [`http1`] and [`http2`].

use super::activity::Activity;
use super::authority::Name;
use super::guarded::Watch;
use super::interim::Interim;
use super::{http1, http2, problem};
use crate::guard::Violation;
use crate::lease::{Held, Subject};
use crate::listener::Place;
use crate::live::{Live, View};
use crate::outcome::{DenyReason, Stage};
use crate::policy::{Host, Permit};
use crate::telemetry::{DenialRecord, Who};
use crate::upstream::Scheme;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

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
    pub(super) async fn revoked(&self) {
        match &self.route {
            Route::Connection { held, .. } => held.lease().revoked().await,
            Route::Request | Route::Denied(_) => std::future::pending().await,
        }
    }

    /// Records what is not even a request.
    pub(super) fn refused(&self, detail: String) {
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
    pub(super) fn refuse(&self, violation: Violation) -> bytes::Bytes {
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
pub fn serve<S>(
    session: Session,
    http2: bool,
    stream: S,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Arc::new(session);
    // Each as large as it has to be.
    if http2 {
        Box::pin(http2::serve(session, stream))
    } else {
        http1::serve(session, stream)
    }
}

/// Records, when the connection has ended, what nobody else has.
pub(super) struct Unrecorded(pub(super) Arc<Session>);

impl Drop for Unrecorded {
    fn drop(&mut self) {
        if let Some(violation) = self.0.watch.unrecorded() {
            self.0.refused(violation.to_string());
        }
    }
}

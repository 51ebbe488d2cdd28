//! The life of one redirected connection, from its record to its end. The order of the stages is
//! here and nothing else: no parsing, no policy.

use crate::authorize::{Authorized, Denied, Tell, authorize, may_be_silent};
use crate::http::{Session, refuse_opening, serve};
use crate::lease::{Held, Subject};
use crate::listener::{Place, Redirected};
use crate::live::{Live, View};
use crate::outcome::{DenyReason, Stage};
use crate::peek::{Peeked, peek};
use crate::policy::{Host, Permit};
use crate::sniff::Sniffed;
use crate::splice::{Meter, splice_sockets};
use crate::stream::Prefixed;
use crate::telemetry::{ConnectionRecord, DenialRecord, Telemetry, Who};
use crate::tls;
use crate::upstream::Scheme;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The DNS port (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;
/// From the ClientHello to the end of the handshake. The client is on this machine.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What becomes of a connection that was let through. Each stage is boxed: what one has needed is given back when it is over,
/// where a connection that waits for its client would have kept it.
type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What follows the opening.
enum Next {
    /// TLS comes first.
    Handshake(Pin<Box<dyn Future<Output = Option<Served>> + Send>>),
    Serve(Served),
}

/// Takes a connection to its end, by the policy that is in force as it begins.
pub async fn run(live: Arc<Live>, redirected: Redirected) {
    let served = match Box::pin(open(live, redirected)).await {
        Some(Next::Handshake(handshake)) => handshake.await,
        Some(Next::Serve(served)) => Some(served),
        None => None,
    };
    if let Some(served) = served {
        served.await;
    }
}

/// From the first byte to the decision.
async fn open(live: Arc<Live>, redirected: Redirected) -> Option<Next> {
    let view = live.view();
    let gateway = &view.gateway;
    let who = Who::new(
        Arc::clone(&gateway.name),
        Arc::clone(&live.label),
        view.generation,
        &redirected.origin,
    );
    let destination = redirected.origin.destination;
    if destination.port() == DNS_PORT {
        let stream = redirected.stream;
        return Some(Next::Serve(Box::pin(async move {
            if let Err(error) = live.responder.serve_tcp(stream, &who).await {
                tracing::debug!(%error, "DNS over TCP");
            }
        })));
    }
    let silence = may_be_silent(gateway, destination.port());
    let place = redirected.place;
    let (sniffed, stream) = match peek(redirected.stream, silence).await {
        Peeked::Sniffed(sniffed, stream) => (sniffed, stream),
        Peeked::Denied {
            reason,
            detail,
            http,
        } => {
            let gateway = Arc::clone(&who.gateway);
            record_denial(&view, who, reason, None, detail.clone());
            if let Some(stream) = http {
                refuse_opening(stream, detail.as_deref(), &gateway, destination).await;
            }
            return None;
        }
        Peeked::Gone => return None,
    };
    let answered = match sniffed {
        Sniffed::Opaque => live
            .responder
            .pins()
            .names(destination.ip(), Instant::now()),
        _ => Vec::new(),
    };
    let authorized = authorize(gateway, destination, &sniffed, &answered);
    if authorized.is_ok() {
        view.telemetry.metrics().connection_allowed();
    }
    match authorized {
        Ok(Authorized::Splice {
            class,
            permit,
            host,
        }) => {
            let subject = Subject::Splice {
                address: destination,
                host: host.clone(),
                class,
                target: permit.target().clone(),
            };
            let held = live.grant(&view, subject);
            let copied = copy(view, held, who, permit, host, stream);
            Some(Next::Serve(Box::pin(copied)))
        }
        Ok(Authorized::Terminate { permit, host }) => {
            let name = match &host {
                Some(host) => host.to_string(),
                None => destination.ip().to_string(),
            };
            let session = Session::tls(Arc::clone(&live), &view, who, place, permit, host);
            Some(terminate(view, session, name, stream))
        }
        Ok(Authorized::Http { http2 }) => {
            let session = Session::plain(live, who, place);
            Some(Next::Serve(serve(session, http2, stream)))
        }
        Err(denied) => tell(&live, view, who, place, denied, stream).await,
    }
}

fn terminate(view: Arc<View>, session: Session, name: String, stream: Prefixed<TcpStream>) -> Next {
    Next::Handshake(Box::pin(async move {
        match timeout(HANDSHAKE, tls::terminate(&view.leaves, &name, stream)).await {
            Ok(Ok(stream)) => {
                let http2 = tls::is_http2(&stream);
                return Some(serve(session, http2, stream));
            }
            // Most often a client that does not trust the gateway's authority.
            Ok(Err(error)) => tracing::info!(%error, name, "TLS with the client failed"),
            Err(_elapsed) => tracing::info!(name, "TLS with the client took too long"),
        }
        None
    }))
}

async fn copy(
    view: Arc<View>,
    held: Held,
    who: Who,
    permit: Permit,
    host: Option<Host>,
    stream: Prefixed<TcpStream>,
) {
    let mut open = Open {
        telemetry: &view.telemetry,
        meter: Meter::default(),
        record: ConnectionRecord {
            who,
            rule: Arc::clone(permit.rule()),
            host: host.map(|host| host.to_string()),
            bytes_up: 0,
            bytes_down: 0,
            started: SystemTime::now(),
            error: Some("cut off".to_owned()),
        },
    };
    let idle = view.gateway.limits.idle_timeout;
    let through = async {
        match view.upstream.connect(&permit).await {
            Ok(upstream) => splice_sockets(stream, upstream, &open.meter, idle)
                .await
                .err()
                .map(|error| error.kind().to_string()),
            Err(error) => {
                tracing::info!(%error, "no connection to upstream");
                let host = open.record.host.as_deref().unwrap_or_default();
                view.not_dialled(&open.record.who, host, &error);
                Some(error.as_str().to_owned())
            }
        }
    };
    open.record.error = tokio::select! {
        error = through => error,
        () = held.lease().revoked() => Some(DenyReason::PolicyChanged.as_str().to_owned()),
    };
}

/// A spliced connection's record: told when the connection ends, however it ends.
struct Open<'a> {
    telemetry: &'a Telemetry,
    meter: Meter,
    record: ConnectionRecord,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.record.bytes_up = self.meter.up();
        self.record.bytes_down = self.meter.down();
        self.telemetry.connection(&self.record);
    }
}

/// Explains a denial in the client's own terms. Where that is HTTP, each request is recorded as
/// denied; otherwise the connection is.
async fn tell(
    live: &Arc<Live>,
    view: Arc<View>,
    who: Who,
    place: Arc<Place>,
    denied: Denied,
    mut stream: Prefixed<TcpStream>,
) -> Option<Next> {
    let Denied { reason, host, tell } = denied;
    let host = host.map(|host| host.to_string());
    let live = Arc::clone(live);
    match (tell, host) {
        (Tell::TlsThenHttp, Some(name)) => {
            record_denial(&view, who.clone(), reason, Some(name.clone()), None);
            let session = Session::denied(live, who, place, Scheme::Https, reason);
            return Some(terminate(view, session, name, stream));
        }
        (Tell::Http { http2 }, _) => {
            let metrics = view.telemetry.metrics();
            metrics.connection_denied(reason, Stage::Sniff);
            let session = Session::denied(live, who, place, Scheme::Http, reason);
            return Some(Next::Serve(serve(session, http2, stream)));
        }
        (Tell::TlsAlert | Tell::TlsThenHttp, host) => {
            record_denial(&view, who, reason, host, None);
            if let Err(error) = tls::refuse(stream.stream_mut()).await {
                tracing::debug!(%error, "TLS alert not sent");
            }
        }
        (Tell::Close, host) => record_denial(&view, who, reason, host, None),
    }
    None
}

fn record_denial(
    view: &View,
    who: Who,
    reason: DenyReason,
    host: Option<String>,
    detail: Option<String>,
) {
    view.denied(&DenialRecord {
        who,
        reason,
        stage: Stage::Sniff,
        host,
        detail,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what `_of` gives.
    fn size_of_future<A, B, F: Future>(_of: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_keeps_nothing_of_the_stages_before() {
        let task = size_of_future(run);
        assert!(task <= 512, "{task}");
    }
}

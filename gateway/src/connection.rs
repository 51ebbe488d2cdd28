//! The life of one redirected connection, from its record to its end. The order of the stages is
//! here and nothing else: no parsing, no policy.

use crate::authorize::{Authorized, Denied, Tell, authorize, may_be_silent};
use crate::dns::Responder;
use crate::http::{Front, Session, serve};
use crate::listener::{Place, Redirected};
use crate::outcome::{DenyReason, Stage};
use crate::peek::{Peeked, peek};
use crate::policy::Permit;
use crate::sniff::Sniffed;
use crate::splice::{Meter, splice};
use crate::stream::Prefixed;
use crate::telemetry::{ConnectionRecord, DenialRecord, Telemetry, Who};
use crate::tls::{self, Leaves};
use crate::upstream::Scheme;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The DNS port (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;
/// From the ClientHello to the end of the handshake. The client is on this machine.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the connections of one sandbox need.
pub struct Sandbox {
    /// Shown in records.
    pub label: Arc<str>,
    /// Policy generation.
    pub generation: u64,
    /// What HTTP needs, the gateway's policy included.
    pub front: Arc<Front>,
    /// Certificates for its clients.
    pub leaves: Arc<Leaves>,
    /// Its resolver.
    pub responder: Arc<Responder>,
    /// Cancelled when the gateway stops taking new requests.
    pub draining: CancellationToken,
}

/// Takes a connection to its end.
pub async fn run(sandbox: Arc<Sandbox>, redirected: Redirected) {
    let gateway = &sandbox.front.gateway;
    let who = Who::new(
        Arc::clone(&gateway.name),
        Arc::clone(&sandbox.label),
        sandbox.generation,
        &redirected.origin,
    );
    let destination = redirected.origin.destination;
    if destination.port() == DNS_PORT {
        if let Err(error) = sandbox.responder.serve_tcp(redirected.stream, &who).await {
            tracing::debug!(%error, "DNS over TCP");
        }
        return;
    }
    let silence = may_be_silent(gateway, destination.port());
    let place = redirected.place;
    let (sniffed, stream) = match peek(redirected.stream, silence).await {
        Peeked::Sniffed(sniffed, stream) => (sniffed, stream),
        Peeked::Denied { reason, detail } => {
            return record_denial(&sandbox, who, reason, None, detail);
        }
        Peeked::Gone => return,
    };
    let answered = match sniffed {
        Sniffed::Opaque => sandbox
            .responder
            .pins()
            .names(destination.ip(), Instant::now()),
        _ => Vec::new(),
    };
    match authorize(gateway, destination, &sniffed, &answered) {
        Ok(Authorized::Splice { permit, host }) => {
            let host = host.map(|host| host.to_string());
            copy(&sandbox, who, permit, host, stream).await;
        }
        Ok(Authorized::Terminate {
            listener,
            permit,
            host,
        }) => {
            let name = match &host {
                Some(host) => host.to_string(),
                None => destination.ip().to_string(),
            };
            let front = Arc::clone(&sandbox.front);
            let session = Session::tls(front, who, place, listener, permit, host);
            terminate(&sandbox, session, &name, stream).await;
        }
        Ok(Authorized::Http { listener, http2 }) => {
            let session = Session::plain(Arc::clone(&sandbox.front), who, place, listener);
            serve(session, http2, stream, sandbox.draining.clone()).await;
        }
        Err(denied) => tell(&sandbox, who, place, denied, stream).await,
    }
}

async fn terminate(sandbox: &Sandbox, session: Session, name: &str, stream: Prefixed<TcpStream>) {
    match timeout(HANDSHAKE, tls::terminate(&sandbox.leaves, name, stream)).await {
        Ok(Ok(stream)) => {
            let http2 = tls::is_http2(&stream);
            serve(session, http2, stream, sandbox.draining.clone()).await;
        }
        // Most often a client that does not trust the gateway's authority.
        Ok(Err(error)) => tracing::info!(%error, name, "TLS with the client failed"),
        Err(_elapsed) => tracing::info!(name, "TLS with the client took too long"),
    }
}

async fn copy(
    sandbox: &Sandbox,
    who: Who,
    permit: Permit,
    host: Option<String>,
    stream: Prefixed<TcpStream>,
) {
    let mut open = Open {
        telemetry: &sandbox.front.telemetry,
        meter: Meter::default(),
        record: ConnectionRecord {
            who,
            rule: Arc::clone(permit.rule()),
            host,
            bytes_up: 0,
            bytes_down: 0,
            started: SystemTime::now(),
            error: Some("cut off".to_owned()),
        },
    };
    let mut client = stream;
    let idle = sandbox.front.gateway.limits.idle_timeout;
    open.record.error = match sandbox.front.upstream.connect(&permit).await {
        Ok(mut upstream) => splice(&mut client, &mut upstream, &open.meter, idle)
            .await
            .err()
            .map(|error| error.kind().to_string()),
        Err(error) => {
            tracing::info!(%error, "no connection to upstream");
            let host = open.record.host.as_deref().unwrap_or_default();
            open.telemetry.not_dialled(&open.record.who, host, &error);
            Some(error.as_str().to_owned())
        }
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
    sandbox: &Sandbox,
    who: Who,
    place: Arc<Place>,
    denied: Denied,
    mut stream: Prefixed<TcpStream>,
) {
    let Denied { reason, host, tell } = denied;
    let host = host.map(|host| host.to_string());
    let front = Arc::clone(&sandbox.front);
    match (tell, host) {
        (Tell::TlsThenHttp, Some(name)) => {
            record_denial(sandbox, who.clone(), reason, Some(name.clone()), None);
            let session = Session::denied(front, who, place, Scheme::Https, reason);
            terminate(sandbox, session, &name, stream).await;
        }
        (Tell::Http { http2 }, _) => {
            let session = Session::denied(front, who, place, Scheme::Http, reason);
            serve(session, http2, stream, sandbox.draining.clone()).await;
        }
        (Tell::TlsAlert | Tell::TlsThenHttp, host) => {
            record_denial(sandbox, who, reason, host, None);
            if let Err(error) = tls::refuse(stream.stream_mut()).await {
                tracing::debug!(%error, "TLS alert not sent");
            }
        }
        (Tell::Close, host) => record_denial(sandbox, who, reason, host, None),
    }
}

fn record_denial(
    sandbox: &Sandbox,
    who: Who,
    reason: DenyReason,
    host: Option<String>,
    detail: Option<String>,
) {
    sandbox.front.telemetry.denied(&DenialRecord {
        who,
        reason,
        stage: Stage::Sniff,
        host,
        detail,
    });
}

//! HTTP servers that stand for the world outside: each listens on an address of the test's choice,
//! records every request it saw and answers as the real service would. This file serves and
//! records; it refuses to know any service's answers (a file each, below).

pub mod anthropic;
pub mod body;
pub mod dns;
pub mod echo;
pub mod git;
pub mod google;
pub mod metered;
pub mod openai;
pub mod otlp;
pub mod record;
pub mod reflect;
pub mod sse;
pub mod websocket;
pub mod wiki;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use hyper::body::Body as _;
use hyper::body::Incoming;
use hyper::header::CONTENT_LENGTH;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use body::Body;
pub use record::{BodySeen, Recorder, Seen};

/// One request, and the place where what is learnt of it is written down.
pub struct Exchange {
    /// The request as hyper gives it; its body is still in the socket.
    pub request: Request<Incoming>,
    /// The recorder of the server, and this request's number in it.
    pub record: record::Entry,
}

/// What a service answers.
pub trait Service: Send + Sync + 'static {
    /// One request in, one response out.
    fn answer(&self, exchange: Exchange) -> impl Future<Output = Response<Body>> + Send;
}

/// A server that listens until it is dropped.
pub struct Mock {
    address: SocketAddr,
    recorder: Recorder,
    server: JoinHandle<()>,
}

impl Mock {
    /// Serves `service` on `address` (port 0: any), over TLS if `tls` is given.
    pub fn start(
        runtime: &Handle,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        service: impl Service,
    ) -> Result<Self> {
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("a mock cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let recorder = Recorder::default();
        let server = runtime.spawn(accept(
            listener,
            tls.map(TlsAcceptor::from),
            Arc::new(service),
            recorder.clone(),
        ));
        Ok(Self {
            address,
            recorder,
            server,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it saw.
    pub fn seen(&self) -> &Recorder {
        &self.recorder
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // The task owns the set of its connections: they end with it.
        self.server.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: Arc<impl Service>,
    recorder: Recorder,
) {
    let numbers = AtomicU64::new(1);
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for a moment: the clients wait in the backlog.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        recorder.connected();
        connections.spawn(connection(
            stream,
            tls.clone(),
            Arc::clone(&service),
            recorder.clone(),
            number,
        ));
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    service: Arc<impl Service>,
    recorder: Recorder,
    number: u64,
) {
    // An event of a stream is a segment of its own, as from a real server.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match tls {
        None => serve(stream, None, service, recorder, number).await,
        Some(acceptor) => {
            // A client that goes away in the handshake is a client's matter; suites that care
            // look at `Recorder::connections`.
            if let Ok(stream) = acceptor.accept(stream).await {
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                serve(stream, name, service, recorder, number).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server_name: Option<String>,
    service: Arc<impl Service>,
    recorder: Recorder,
    number: u64,
) {
    let respond = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        let record = recorder.open(&request, server_name.as_deref(), number);
        let is_head = request.method() == Method::HEAD;
        async move {
            let response = service.answer(Exchange { request, record }).await;
            Ok::<_, Infallible>(if is_head {
                headless(response)
            } else {
                response
            })
        }
    });
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), respond)
        .await;
    // A connection that breaks off is what some suites are about; they assert on the client side.
    drop(served);
}

/// The answer to HEAD: over HTTP/2 hyper would send the body.
fn headless(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, body::whole(""))
}

//! Delivers OTLP exports. The collector is the operator's, named in the policy: no sandbox decides
//! where this connects to. Knows HTTP and not what is exported.

use super::verify::{Offer, Verifier, is_http2};
use crate::telemetry::{OtlpTransport, TransportError};
use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// One export, connection included (the default of `OTEL_EXPORTER_OTLP_TIMEOUT`).
const DEADLINE: Duration = Duration::from_secs(10);
/// A collector's answer is a small protobuf message.
const MAX_ANSWER: usize = 64 * 1024;
/// Idle HTTP/1.1 connections kept: one a signal.
const MAX_IDLE: usize = 3;

/// Speaks HTTP to a collector, over verified TLS for `https`, and keeps its connections.
pub struct Collector(Arc<Inner>);

struct Inner {
    verifier: Verifier,
    // Held to take one out or put one back.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    http1: Vec<http1::SendRequest<Full<Bytes>>>,
    http2: Option<http2::SendRequest<Full<Bytes>>>,
}

impl Collector {
    /// Verifies collectors as upstreams are verified.
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(Inner {
            verifier,
            kept: Mutex::default(),
        }))
    }
}

impl OtlpTransport for Collector {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { tokio::time::timeout(DEADLINE, inner.deliver(request)).await? })
    }
}

impl Inner {
    async fn deliver(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, Full::new(body));
        if request.version() == Version::HTTP_2 {
            self.over_http2(request).await
        } else {
            self.over_http1(request).await
        }
    }

    /// A request that fails on a kept connection is tried again by who exports: to receive twice what
    /// was sent twice is a collector's everyday life.
    async fn over_http1(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, TransportError> {
        let uri = request.uri().clone();
        let kept = loop {
            match self.kept().http1.pop() {
                Some(sender) if !sender.is_ready() => {}
                found => break found,
            }
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.dial_http1(&uri).await?,
        };
        let authority = uri.authority().ok_or(NO_HOST)?.as_str().parse()?;
        request.headers_mut().insert(http::header::HOST, authority);
        // Origin form (RFC 9112 §3.2.1).
        *request.uri_mut() = uri.path_and_query().cloned().ok_or(NO_HOST)?.into();
        let answer = whole(sender.send_request(request).await?).await?;
        let mut kept = self.kept();
        if kept.http1.len() < MAX_IDLE {
            kept.http1.push(sender);
        }
        Ok(answer)
    }

    async fn over_http2(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, TransportError> {
        let kept = self.kept().http2.clone();
        let mut sender = match kept.filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let sender = self.dial_http2(request.uri()).await?;
                self.kept().http2 = Some(sender.clone());
                sender
            }
        };
        whole(sender.send_request(request).await?).await
    }

    async fn dial_http1(
        &self,
        uri: &Uri,
    ) -> Result<http1::SendRequest<Full<Bytes>>, TransportError> {
        let (host, stream) = dial(uri).await?;
        if uri.scheme_str() == Some("https") {
            let stream = self.verifier.connect(Offer::Http1, &host, stream).await?;
            handshake_http1(stream).await
        } else {
            handshake_http1(stream).await
        }
    }

    /// In the clear the collector is known to speak HTTP/2 (RFC 9113 §3.3): it was named for gRPC.
    async fn dial_http2(
        &self,
        uri: &Uri,
    ) -> Result<http2::SendRequest<Full<Bytes>>, TransportError> {
        let (host, stream) = dial(uri).await?;
        if uri.scheme_str() == Some("https") {
            let stream = self.verifier.connect(Offer::AnyHttp, &host, stream).await?;
            if !is_http2(&stream) {
                return Err("the collector does not speak HTTP/2, which gRPC needs".into());
            }
            handshake_http2(stream).await
        } else {
            handshake_http2(stream).await
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic leaves connections: still good, or found closed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_HOST: &str = "the OTLP endpoint has no host";

async fn dial(uri: &Uri) -> Result<(String, TcpStream), TransportError> {
    let host = uri.host().ok_or(NO_HOST)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let default = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    let port = uri.port_u16().unwrap_or(default);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok((host.to_owned(), stream))
}

async fn handshake_http1<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    run(connection);
    Ok(sender)
}

async fn handshake_http2<S>(stream: S) -> Result<http2::SendRequest<Full<Bytes>>, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let executor = TokioExecutor::new();
    let (sender, connection) = http2::handshake(executor, TokioIo::new(stream)).await?;
    run(connection);
    Ok(sender)
}

fn run(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the collector ended");
        }
    });
}

/// The answer with its trailers among its headers: where gRPC has its status depends on the answer.
async fn whole<B>(response: Response<B>) -> Result<Response<Bytes>, TransportError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<TransportError>,
{
    let (mut parts, body) = response.into_parts();
    let collected = Limited::new(body, MAX_ANSWER).collect().await?;
    parts
        .headers
        .extend(collected.trailers().cloned().unwrap_or_default());
    Ok(Response::from_parts(parts, collected.to_bytes()))
}

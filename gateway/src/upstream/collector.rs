//! Delivers OTLP exports. The collector is the operator's, named in the policy: no sandbox decides
//! where this connects to.

use super::verify::{Offer, Verifier};
use crate::telemetry::OtlpTransport;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::HttpError;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// One export, connection included.
const DEADLINE: Duration = Duration::from_secs(10);
/// A collector's answer is a small protobuf message.
const MAX_ANSWER: usize = 64 * 1024;

/// Speaks HTTP/1.1 to a collector, over verified TLS for `https`.
pub struct Collector {
    verifier: Verifier,
}

impl Collector {
    /// Verifies collectors as upstreams are verified.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl OtlpTransport for Collector {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send>> {
        let verifier = self.verifier.clone();
        Box::pin(async move { tokio::time::timeout(DEADLINE, deliver(verifier, request)).await? })
    }
}

async fn deliver(
    verifier: Verifier,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let uri = request.uri().clone();
    let host = uri.host().ok_or("the OTLP endpoint has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if tls {
        let stream = verifier.connect(Offer::Http1, host, stream).await?;
        exchange(stream, request, &uri).await
    } else {
        exchange(stream, request, &uri).await
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Bytes>,
    uri: &Uri,
) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the collector ended");
        }
    });
    let (mut parts, body) = request.into_parts();
    let authority = uri
        .authority()
        .ok_or("the OTLP endpoint has no authority")?;
    parts
        .headers
        .insert(http::header::HOST, authority.as_str().parse()?);
    parts.uri = uri
        .path_and_query()
        .cloned()
        .map_or_else(|| Uri::from_static("/v1/traces"), Uri::from);
    let response = sender
        .send_request(Request::from_parts(parts, Full::new(body)))
        .await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

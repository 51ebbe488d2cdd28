//! The beginning of a connection to an upstream: how much may come on it, and who serves it. Knows no request.

use super::client::{RequestBody, http_error};
use super::guarded::{Announce, Guarded};
use super::pool::{Http1, Key};
use crate::guard::MAX_HEAD;
use crate::outcome::UpstreamError;
use crate::workers::Worker;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// An upstream that has no more than this to say of a stream at once waits for us (RFC 9113 §5.2):
/// memory per response stays bounded, and 40 ms away 1 MiB is still 200 Mbit/s.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Header fields in one response, as many as in a request.
const MAX_HEADERS: usize = 256;
/// An upstream that answers no ping while requests wait for it is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(10);
/// What a new connection speaks.
pub(super) enum Dialled {
    Http1(Http1),
    Http2(http2::SendRequest<RequestBody>),
}

/// Runs what the library needs for each of a connection's requests. That has room for what a connection needs, too, and
/// would be moved ten times on its way into a task: it stays where it is, and a pointer to it is moved.
#[derive(Clone)]
struct Apart;

impl<F> Executor<F> for Apart
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Box::pin(future));
    }
}

/// HTTP/1.1 on `stream`.
pub(super) async fn handshake_http1<S>(key: &Key, stream: S) -> Result<Dialled, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let announce = Announce::default();
    let stream = Guarded::new(stream, announce.clone());
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_error(key, Box::new(error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream HTTP/1 connection ended");
        }
    });
    Ok(Dialled::Http1(Http1 {
        sender,
        announce,
        home: Worker::here(),
    }))
}

/// HTTP/2 on `stream`.
pub(super) async fn handshake_http2<S>(key: &Key, stream: S) -> Result<Dialled, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(Apart)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN)
        .handshake(TokioIo::new(Box::new(stream)))
        .await
        .map_err(|error| http_error(key, Box::new(error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream HTTP/2 connection ended");
        }
    });
    Ok(Dialled::Http2(sender))
}

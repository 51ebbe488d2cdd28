//! Serves HTTP/2 on one connection. It refuses to know what a request is.

use super::exchange;
use super::gathered::{Outlet, gathered};
use super::observed::Observed;
use super::server::Session;
use crate::guard::Refusal;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

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

/// Until it ends, is idle for too long, is no longer allowed, or drains.
pub(super) async fn serve<S>(session: Arc<Session>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = session.live.view().gateway.limits;
    let max_header_bytes = limits.max_request_header_bytes;
    let idle = limits.idle_timeout;
    let draining = &session.live.draining;
    let served = Arc::clone(&session);
    let service =
        service_fn(move |request| Box::pin(exchange::handle(Arc::clone(&served), request)));
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
    let (stream, outlet) = gathered(stream, idle);
    let io = TokioIo::new(Observed::new(stream, idle, requests, Box::new(tell)));
    let connection = Builder::new(TokioExecutor::new())
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
            ended = poll_fn(|cx| turn(connection.as_mut(), &outlet, cx)) => return ended,
            () = until_shutdown => {}
        }
        connection.as_mut().graceful_shutdown();
        // An answer that its client takes no window for is nobody's request any more, and would keep it for ever.
        let untaken = async {
            tokio::time::sleep(idle).await;
            session.activity.idle(idle).await;
        };
        tokio::select! {
            ended = poll_fn(|cx| turn(connection.as_mut(), &outlet, cx)) => ended,
            () = untaken => Ok(()),
        }
    };
    let ended = tokio::select! {
        ended = served => ended,
        // A window that is never opened: nothing but the end of the connection frees what waits.
        () = session.activity.stalled(idle) => {
            return tracing::info!("an HTTP/2 client stopped reading a response");
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "client connection ended");
    }
}

/// Gives the library its turn, and hands on what it has written in it.
fn turn<C, E, S>(
    connection: Pin<&mut C>,
    outlet: &Outlet<S>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Box<dyn Error + Send + Sync>>>
where
    C: Future<Output = Result<(), E>>,
    E: Error + Send + Sync + 'static,
    S: AsyncWrite + Unpin,
{
    if let Poll::Ready(ended) = connection.poll(cx) {
        // What others on it were told last, where the library has not parted in peace.
        drop(outlet.poll_flush(cx));
        return Poll::Ready(ended.map_err(Into::into));
    }
    match outlet.poll_flush(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

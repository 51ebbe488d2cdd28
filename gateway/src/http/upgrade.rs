//! WebSockets: once the upstream has agreed, the connection, or the client's stream, is copied both ways, unread.

use super::body::{Open, ResponseBody};
use super::headers::strip_hop_by_hop;
use super::problem;
use super::record::cut;
use super::server::Session;
use super::websocket::{Consent, agreed};
use crate::outcome::{DenyReason, UpstreamError};
use crate::splice::{Meter, splice};
use crate::upstream::PooledBody;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Extensions, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

/// How long the end of what an HTTP/2 client sends waits for the news that its stream was reset. Both come from one frame,
/// by two tasks.
const SETTLING: Duration = Duration::from_millis(50);

/// A client that waits for a WebSocket.
pub(super) enum Opening {
    /// On its connection; it looks at the upstream's consent itself.
    Http1(OnUpgrade),
    /// On its stream.
    Http2(OnUpgrade, Consent),
}

impl Opening {
    /// From what the library has left with the request. `consent`: it came over HTTP/2.
    pub(super) fn new(extensions: &mut Extensions, consent: Option<Consent>) -> Option<Self> {
        let client = extensions.remove()?;
        Some(match consent {
            None => Self::Http1(client),
            Some(consent) => Self::Http2(client, consent),
        })
    }
}

/// Passes the 101 on and joins the two connections. The record ends when they do, and the
/// connection keeps its place among the sandbox's until then.
pub(super) fn tunnel(
    session: &Session,
    mut response: Response<PooledBody>,
    mut open: Open,
    opening: Option<Opening>,
) -> Response<ResponseBody> {
    let client = match opening {
        // Nobody asked for it (RFC 9110 §15.2.2): the upstream is confused, or worse.
        None => return not_agreed(session, open, "nobody asked for one"),
        Some(Opening::Http2(_, consent)) if !consent.is_given(response.headers()) => {
            return not_agreed(session, open, "it did not answer the key that it was given");
        }
        Some(Opening::Http1(client)) => {
            session.watch.release();
            strip_hop_by_hop(response.headers_mut());
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            client
        }
        Some(Opening::Http2(client, _)) => {
            agreed(&mut response);
            open.record.status = Some(response.status().as_u16());
            client
        }
    };
    let upstream = hyper::upgrade::on(&mut response);
    let idle = open.view.gateway.limits.idle_timeout;
    Arc::clone(&session.place).spawn(join(client, upstream, open, idle));
    response.extensions_mut().clear();
    response.map(|_nothing| ResponseBody::whole(Bytes::new()))
}

/// The upstream answered, and not so that it could be passed on.
pub(super) fn not_agreed(
    session: &Session,
    mut open: Open,
    what: &'static str,
) -> Response<ResponseBody> {
    let error = UpstreamError::Http {
        host: open.record.host.clone(),
        source: format!("no WebSocket was opened: {what}").into(),
    };
    open.ended = true;
    open.record.error = Some(error.as_str());
    open.record.detail = Some(cut(error.to_string()));
    open.record.status = Some(error.status());
    let destination = format!("{}:{}", open.record.host, open.record.port);
    problem::failed(&error, &session.who.gateway, &destination)
}

async fn join(client: OnUpgrade, upstream: OnUpgrade, open: Open, idle: Duration) {
    let is_stream = open.record.version == "2";
    let mut tunnel = Tunnel {
        open,
        meter: Meter::default(),
    };
    // It may have something left when the copy has ended.
    let mut joined = None;
    let copy = async {
        let (client, upstream) = tokio::try_join!(client, upstream).map_err(|e| e.to_string())?;
        let mut upstream = TokioIo::new(upstream);
        let client = joined.insert(Client {
            stream: TokioIo::new(client),
            is_stream,
            ended: None,
            has_heard_all: false,
            parted: None,
        });
        splice(client, &mut upstream, &tunnel.meter, idle)
            .await
            .map_err(|error| error.to_string())
    };
    let (copied, reason) = tokio::select! {
        copied = copy => (copied, None),
        () = tunnel.open.revoked() => (Ok(()), Some(DenyReason::PolicyChanged)),
    };
    tunnel.open.ended = true;
    tunnel.open.record.reason = reason;
    let parted = joined.as_mut().and_then(|client| client.parted.take());
    tunnel.open.record.detail = parted.map(|error| cut(error.to_string()));
    if let Err(error) = copied {
        tunnel.open.record.error = Some("tunnel");
        tunnel.open.record.detail = Some(cut(error));
    }
    tunnel.tell();
    if let Some(client) = joined.filter(|client| client.is_stream) {
        client.leave(&tunnel.open, idle).await;
    }
}

/// The client's side of a tunnel. The library reads a stream that was reset with CANCEL as one that has ended; it
/// is over for both directions, and only who writes to it learns that.
struct Client {
    stream: TokioIo<Upgraded>,
    is_stream: bool,
    /// The end was read; until then it waits for the news of a reset.
    ended: Option<Pin<Box<Sleep>>>,
    /// It was told that there is no more: the last of it is with the library, or on its way. Whoever goes then, with or
    /// without a word, has not failed.
    has_heard_all: bool,
    /// How it went then.
    parted: Option<io::Error>,
}

impl Client {
    /// Waits until the stream has ended. The library keeps it, and up to three pieces of 64 KiB that were written to it,
    /// until the client has opened its window for them, whoever has dropped it. Until then it counts as a request under
    /// way, with its place, and as one whose client reads nothing: its connection is closed when that lasts for `idle`.
    async fn leave(mut self, open: &Open, idle: Duration) {
        open.handed_over();
        // The connection is looked at four times in that.
        let left = tokio::time::timeout(idle * 2, self.shutdown()).await;
        tracing::debug!(?left, "the stream of a tunnel ended");
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.is_none() {
            let before = out.filled().len();
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, out));
            match read {
                Err(error) if self.has_heard_all => {
                    self.parted = Some(error);
                    return Poll::Ready(Ok(()));
                }
                read => read?,
            }
            if !self.is_stream || out.filled().len() > before || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let ended = self
            .ended
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(SETTLING)));
        if !ended.is_elapsed() {
            ready!(ended.as_mut().poll(cx));
        }
        // Has nothing to flush: it tells whether what is written goes anywhere.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(reset)) => Poll::Ready(Err(reset)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let told = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        self.has_heard_all |= self.is_stream && told.is_ok();
        Poll::Ready(told)
    }
}

/// What went through is on record even if the tunnel is cut off.
struct Tunnel {
    open: Open,
    meter: Meter,
}

impl Tunnel {
    /// Ends the record. It is told once; what is done to it afterwards is nobody's.
    fn tell(&mut self) {
        self.open.record.bytes_up += self.meter.up();
        self.open.record.bytes_down += self.meter.down();
        self.open.finish();
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.tell();
    }
}

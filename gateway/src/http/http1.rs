//! Serves HTTP/1 on one connection. While its client has nothing to ask, the HTTP library is put away with its buffers, and
//! nothing is kept but the stream. It refuses to know what a request is.

use super::body::ResponseBody;
use super::exchange;
use super::guarded::Guarded;
use super::server::{Session, Unrecorded};
use crate::outcome::hyper_error::Error;
use crate::workers;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};

/// Header fields in one message; common servers stop at 100.
const MAX_HEADERS: usize = 256;
/// The guard counts a head's bytes first; hyper must not find it too long before.
const MARGIN: usize = 1024;
/// hyper reads heads and bodies through one buffer and asks for at least this.
const MIN_BUFFER: usize = 8192;

/// Until it ends, is idle for too long, is no longer allowed, or drains.
pub(super) fn serve<S>(session: Arc<Session>, stream: S) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let refuser = Arc::clone(&session);
    let refuse = Box::new(move |violation| refuser.refuse(violation));
    let limits = session.live.view().gateway.limits;
    let longest = limits.max_request_header_bytes;
    let (watch, interim) = (Arc::clone(&session.watch), Arc::clone(&session.interim));
    let guarded = Guarded::new(stream, longest, limits.idle_timeout, watch, interim, refuse);
    Box::pin(run(session, Box::new(guarded), longest))
}

async fn run<S>(session: Arc<Session>, stream: Box<Guarded<S>>, longest: usize)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _unrecorded = Unrecorded(Arc::clone(&session));
    if let Err(error) = carry(stream, longest, &session).await {
        // What the guard lets pass the library should take; if not, it answered by itself.
        if error.is_parse() && session.watch.is_clean() {
            session.refused(error.to_string());
        }
        tracing::debug!(%error, "client connection ended");
    }
}

/// What a connection is served for.
trait Purpose: Sync {
    /// Takes its requests.
    fn exchanges(&self) -> impl Exchanges;
    /// Does it rest? Asked when the library has done all it can for now.
    fn rests(&self) -> bool;
    /// Over when it is to be ended.
    fn over(&self) -> impl Future<Output = ()> + Send;
}

/// A service as the library wants it.
trait Exchanges:
    Service<Request<Incoming>, Response = Response<Self::Answer>, Error = Infallible, Future: Send>
    + Unpin
    + Send
{
    /// What is answered.
    type Answer: Body<Data: Send, Error: Into<Error>> + Send + 'static;
}

impl<B, T> Exchanges for T
where
    T: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    T: Unpin + Send,
    B: Body<Data: Send, Error: Into<Error>> + Send + 'static,
{
    type Answer = B;
}

impl Purpose for Arc<Session> {
    fn exchanges(&self) -> impl Exchanges {
        Answering(Arc::clone(self))
    }

    fn rests(&self) -> bool {
        self.watch.is_resting() && self.activity.is_none()
    }

    async fn over(&self) {
        tokio::select! {
            () = self.live.draining.cancelled() => {}
            () = self.revoked() => {}
        }
    }
}

/// Has the library serve a connection, with heads of `longest` bytes at most, while it is at work.
async fn carry<S>(
    mut stream: Box<Guarded<S>>,
    longest: usize,
    purpose: &impl Purpose,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        let connection = connection(stream, longest, purpose.exchanges());
        // What it needs is given back before the connection rests.
        match Box::pin(work(connection, purpose)).await {
            Worked::Over(ended) => return ended,
            Worked::Rests(resting) => stream = resting,
        }
        tokio::select! {
            // The library is the one to learn what it was.
            () = poll_fn(|cx| stream.poll_stir(cx)) => {}
            () = purpose.over() => {}
        }
    }
}

/// What came of a connection's work.
enum Worked<S> {
    Over(hyper::Result<()>),
    /// For now its client has nothing to ask.
    Rests(Box<Guarded<S>>),
}

type Connection<S, E> = UpgradeableConnection<TokioIo<Box<Guarded<S>>>, E>;

async fn work<S, E>(mut connection: Connection<S, E>, purpose: &impl Purpose) -> Worked<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Exchanges,
{
    let until_rest = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if purpose.rests() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    tokio::select! {
        ended = until_rest => return match ended {
            Some(ended) => Worked::Over(ended),
            None => put_away(connection),
        },
        () = purpose.over() => {}
    }
    Pin::new(&mut connection).graceful_shutdown();
    Worked::Over(connection.await)
}

fn connection<S, E>(stream: Box<Guarded<S>>, longest: usize, exchanges: E) -> Connection<S, E>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Exchanges,
{
    Builder::new()
        .header_read_timeout(None)
        .max_buf_size(longest.max(MIN_BUFFER) + MARGIN)
        .max_headers(MAX_HEADERS)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), exchanges)
        .with_upgrades()
}

/// Keeps the stream alone.
fn put_away<S, E>(connection: Connection<S, E>) -> Worked<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Exchanges,
{
    let Some(parts) = connection.into_parts() else {
        // It is another protocol's by now, which whoever speaks that sees to.
        return Worked::Over(Ok(()));
    };
    if !parts.read_buf.is_empty() {
        // The guard hands over whole messages, and those have been answered.
        tracing::error!("a client connection is closed: part of a message would be lost");
        return Worked::Over(Ok(()));
    }
    let mut stream = parts.io.into_inner();
    stream.rest();
    workers::has_freed();
    Worked::Rests(stream)
}

/// Answers the requests of one connection.
struct Answering(Arc<Session>);

impl Service<Request<Incoming>> for Answering {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    // Not in the library's own memory, which it has from a connection's first moment to its last.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(exchange::handle(Arc::clone(&self.0), request))
    }
}

#[cfg(test)]
mod tests;

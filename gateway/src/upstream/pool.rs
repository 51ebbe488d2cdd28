//! Connections that have been used and can be used again. One pool a sandbox: what one sandbox did
//! to a connection is never another's to find.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::client::RequestBody;
use super::guarded::Announce;
use crate::workers::Worker;

/// An idle connection older than this is not trusted any more: servers close theirs after 60 s and
/// more (nginx 75 s, Envoy 1 h, AWS load balancers 60 s).
const IDLE: Duration = Duration::from_secs(50);
/// Idle HTTP/1 connections kept for one target.
const MAX_IDLE: usize = 64;
/// Idle HTTP/1 connections kept for one sandbox.
const MAX_IDLE_IN_ALL: usize = 256;
/// Requests on one HTTP/2 connection before another is opened; RFC 9113 §6.5.2 recommends that
/// servers allow no fewer than 100.
const MAX_STREAMS: usize = 100;

/// Requests on an HTTP/2 connection of another worker before this one makes its own.
const FEW_STREAMS: usize = 8;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// What the permit named.
    pub(super) target: String,
    /// The name verified, empty without TLS.
    pub(super) verified: String,
}

/// A pool.
#[derive(Default)]
pub(super) struct Pool {
    targets: Mutex<HashMap<Key, Connections>>,
}

#[derive(Default)]
struct Connections {
    http1: Vec<(Instant, Http1)>,
    http2: Vec<Http2>,
    /// Held while the first connection is made, so that a burst learns the protocol before it dials.
    first: Arc<tokio::sync::Mutex<()>>,
    /// It spoke HTTP/1 last: a connection is for one request, and nobody's turn to make.
    is_http1: bool,
}

impl Connections {
    /// The one used last of those that `is_wanted` and still good.
    fn idle(&mut self, is_wanted: impl Fn(&Http1) -> bool) -> Option<Http1> {
        loop {
            let at = self.http1.iter().rposition(|(_, idle)| is_wanted(idle))?;
            let (since, connection) = self.http1.remove(at);
            if since.elapsed() < IDLE && connection.sender.is_ready() {
                return Some(connection);
            }
        }
    }
}

/// An HTTP/1 connection.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    /// Its guard learns from this what is sent.
    pub(super) announce: Announce,
    /// Where it was made, and is served.
    pub(super) home: Worker,
}

/// A share of an HTTP/2 connection.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    usage: Arc<Use>,
    home: Worker,
}

/// How much an HTTP/2 connection is in use.
struct Use {
    streams: AtomicUsize,
    /// No stream is begun on it any more.
    retired: AtomicBool,
    last: Mutex<Instant>,
}

/// A connection to send one request on.
pub(super) enum Connection {
    Http1(Http1),
    Http2(http2::SendRequest<RequestBody>, Stream),
}

/// One stream's place on an HTTP/2 connection, given back when dropped.
pub(super) struct Stream(Arc<Use>);

impl Stream {
    /// The connection takes no more streams; those that it has go on.
    pub(super) fn retire(&self) {
        self.0.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http2 {
    pub(super) fn new(sender: http2::SendRequest<RequestBody>) -> Self {
        Self {
            sender,
            usage: Arc::new(Use {
                streams: AtomicUsize::new(0),
                retired: AtomicBool::new(false),
                last: Mutex::new(Instant::now()),
            }),
            home: Worker::here(),
        }
    }

    pub(super) fn stream(&self) -> Option<Connection> {
        let before = self.usage.streams.fetch_add(1, Ordering::Relaxed);
        let stream = Stream(Arc::clone(&self.usage));
        (before < MAX_STREAMS).then(|| Connection::Http2(self.sender.clone(), stream))
    }
}

impl Http2 {
    /// May another stream be begun on it?
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.usage.retired.load(Ordering::Relaxed)
    }

    /// Has it few requests?
    fn is_quiet(&self) -> bool {
        self.usage.streams.load(Ordering::Relaxed) < FEW_STREAMS
    }

    fn is_worth_keeping(&self) -> bool {
        let last = *self
            .usage
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.is_open() && (self.usage.streams.load(Ordering::Relaxed) > 0 || last.elapsed() < IDLE)
    }
}

impl Pool {
    /// A connection that can be used now.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut targets = self.lock();
        let connections = targets.get_mut(key)?;
        connections.http2.retain(Http2::is_open);
        let here = Worker::here();
        let mut shared = connections.http2.iter();
        let near = shared.find_map(|one| (one.home == here).then(|| one.stream()).flatten());
        if near.is_some() {
            return near;
        }
        if let Some(connection) = connections.idle(|idle| idle.home == here) {
            return Some(Connection::Http1(connection));
        }
        // A few wake-ups cost less than a connection; more of them do not.
        let mut quiet = connections.http2.iter().filter(|one| one.is_quiet());
        let far = quiet.find_map(Http2::stream);
        if far.is_some() {
            return far;
        }
        connections.idle(|_far| true).map(Connection::Http1)
    }

    /// The turn to make a connection that others will share; `None` where there is nothing to share.
    pub(super) fn first(&self, key: &Key) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut targets = self.lock();
        let connections = targets.entry(key.clone()).or_default();
        (!connections.is_http1).then(|| Arc::clone(&connections.first))
    }

    /// The target speaks HTTP/1.
    pub(super) fn speaks_http1(&self, key: &Key) {
        self.lock().entry(key.clone()).or_default().is_http1 = true;
    }

    pub(super) fn share(&self, key: &Key, connection: Http2) {
        let mut targets = self.lock();
        let connections = targets.entry(key.clone()).or_default();
        connections.is_http1 = false;
        connections.http2.push(connection);
    }

    fn put(&self, key: &Key, connection: Http1) {
        let mut targets = self.lock();
        let total: usize = targets
            .values()
            .map(|connections| connections.http1.len())
            .sum();
        if total >= MAX_IDLE_IN_ALL {
            return;
        }
        let idle = &mut targets.entry(key.clone()).or_default().http1;
        idle.retain(|(since, idle)| since.elapsed() < IDLE && !idle.sender.is_closed());
        if idle.len() < MAX_IDLE {
            idle.push((Instant::now(), connection));
        }
    }

    /// Takes a connection back once hyper has finished with the exchange before.
    pub(super) fn give_back(self: Arc<Self>, key: Key, mut connection: Http1) {
        if connection.sender.is_ready() {
            self.put(&key, connection);
        } else if !connection.sender.is_closed() {
            tokio::spawn(async move {
                if connection.sender.ready().await.is_ok() {
                    self.put(&key, connection);
                }
            });
        }
    }

    /// Drops what has been idle for too long.
    pub(super) fn sweep(&self) {
        self.lock().retain(|_, connections| {
            connections
                .http1
                .retain(|(since, idle)| since.elapsed() < IDLE && !idle.sender.is_closed());
            connections.http2.retain(Http2::is_worth_keeping);
            !connections.http1.is_empty()
                || !connections.http2.is_empty()
                || Arc::strong_count(&connections.first) > 1
        });
    }

    /// How many idle HTTP/1 connections there are.
    #[cfg(test)]
    pub(super) fn idle(&self, key: &Key) -> usize {
        self.lock().get(key).map_or(0, |found| found.http1.len())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Connections>> {
        // A panic while it was held leaves lists of connections: still good.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response body that gives its connection back when it has been read to the end. Dropped earlier,
/// the connection is closed (HTTP/1) or the stream reset (HTTP/2): by hyper.
pub struct PooledBody {
    body: Incoming,
    back: Option<Back>,
}

enum Back {
    Http1(Arc<Pool>, Key, Http1),
    Http2(#[expect(dead_code, reason = "held for its Drop")] Stream),
}

impl PooledBody {
    pub(super) fn http1(body: Incoming, pool: Arc<Pool>, key: Key, connection: Http1) -> Self {
        let back = Some(Back::Http1(pool, key, connection));
        let mut this = Self { body, back };
        if this.body.is_end_stream() {
            this.finished();
        }
        this
    }

    pub(super) fn http2(body: Incoming, stream: Stream) -> Self {
        let back = Some(Back::Http2(stream));
        Self { body, back }
    }

    /// For a connection that is nobody's afterwards.
    pub(super) fn unpooled(body: Incoming) -> Self {
        Self { body, back: None }
    }

    fn finished(&mut self) {
        if let Some(Back::Http1(pool, key, connection)) = self.back.take() {
            pool.give_back(key, connection);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.finished(),
            Some(Ok(_)) if self.body.is_end_stream() => self.finished(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.back = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

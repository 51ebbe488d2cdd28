//! Sends one permitted request on a pooled or a new connection.

use super::connect;
use super::handshake::{Dialled, handshake_http1, handshake_http2};
use super::pool::{Connection, Http1, Http2, Key, Pool, PooledBody, Stream};
use super::replay::Replay;
use super::resolve::Resolver;
use super::verify::{Offer, Verifier, is_http2};
use super::{Permit, Ration};
use crate::guard::{Exchange, Progress, Violation};
use crate::outcome::UpstreamError;
use crate::policy::{Gateway, Target};
use crate::stream::Prefixed;
use crate::telemetry::{Metrics, PoolUse};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// A request body on its way.
pub type RequestBody = UnsyncBoxBody<Bytes, crate::outcome::hyper_error::Error>;

/// Pooled connections that may turn out to be closed before a new one is made.
const MAX_STALE: usize = 8;
/// How often a request that the upstream has provably not begun with is sent again.
const RETRIES: u32 = 1;
/// How often pools are swept.
const SWEEP: Duration = Duration::from_secs(15);

/// How the upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over verified TLS.
    Https,
}

/// What kind of exchange it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Request and response.
    Exchange,
    /// May turn the connection into something else: a connection of its own, over HTTP/1.1.
    Upgrade,
}

/// A response, and whether its connection had been used before.
pub struct Answer {
    /// The response, as the upstream sent it.
    pub response: Response<PooledBody>,
    /// `postern.upstream.reused`.
    pub reused: bool,
}

/// Dials for one sandbox.
pub struct Upstream {
    gateway: Arc<Gateway>,
    resolver: Arc<Resolver>,
    verifier: Verifier,
    ration: Arc<dyn Ration>,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    /// Bytes that are free for what is kept of bodies that may be sent again.
    bodies: Arc<Semaphore>,
}

impl Upstream {
    /// Must be called in a tokio runtime, which then also sweeps the pool while this lives. `bodies` are the bytes that
    /// are free for all that is held of the sandbox's bodies.
    pub fn new(
        gateway: Arc<Gateway>,
        resolver: Arc<Resolver>,
        verifier: Verifier,
        metrics: Arc<Metrics>,
        ration: Arc<dyn Ration>,
        bodies: Arc<Semaphore>,
    ) -> Self {
        let pool = Arc::new(Pool::default());
        let swept = Arc::downgrade(&pool);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP);
            loop {
                tick.tick().await;
                match swept.upgrade() {
                    Some(pool) => pool.sweep(),
                    None => return,
                }
            }
        });
        Self {
            gateway,
            resolver,
            verifier,
            ration,
            pool,
            metrics,
            bodies,
        }
    }

    /// A socket to what the permit names, for splicing.
    pub async fn connect(&self, permit: &Permit) -> Result<TcpStream, UpstreamError> {
        connect::connect(&self.gateway, &self.resolver, &*self.ration, permit).await
    }

    /// Sends a request whose URI has scheme and authority, and waits for the head of the answer, which may take
    /// `requestTimeout` from the last `progress` of the request's body.
    /// A request that provably never left is sent again on a new connection, and one that the upstream provably has not
    /// begun with, once; and no other.
    pub async fn send(
        &self,
        permit: &Permit,
        scheme: Scheme,
        verb: Verb,
        request: Request<RequestBody>,
        progress: &Progress,
    ) -> Result<Answer, UpstreamError> {
        let limit = self.gateway.request_timeout;
        let sending = pin!(self.send_untimed(permit, scheme, verb, request));
        let answer = progress.within(limit, sending).await;
        answer.unwrap_or_else(|| {
            Err(UpstreamError::Timeout {
                host: permit.target().to_string(),
                seconds: limit.as_secs(),
            })
        })
    }

    async fn send_untimed(
        &self,
        permit: &Permit,
        scheme: Scheme,
        verb: Verb,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, UpstreamError> {
        let verified = match scheme {
            Scheme::Http => String::new(),
            Scheme::Https => server_name(permit),
        };
        let key = Key {
            target: permit.target().to_string(),
            verified,
        };
        if verb == Verb::Upgrade {
            let sender = match Box::pin(self.dial(permit, &key, Offer::Http1)).await? {
                Dialled::Http1(sender) => sender,
                Dialled::Http2(_) => return Err(http_error(&key, "HTTP/2 was not offered".into())),
            };
            sender.announce.next(Exchange::Upgrade);
            return self
                .exchange_http1(&key, sender, request, None)
                .await
                .map_err(Failed::into_error);
        }
        let head = Head::of(&request);
        let mut left = RETRIES;
        for _ in 0..MAX_STALE {
            let Some(connection) = self.pool.take(&key) else {
                break;
            };
            match self.exchange(&key, connection, request, true).await {
                Ok(answer) => {
                    self.metrics.pool(PoolUse::Reused);
                    return Ok(answer);
                }
                Err(Failed::Unsent(unsent)) => {
                    self.metrics.pool(PoolUse::Stale);
                    request = head.restored(*unsent);
                }
                Err(Failed::Unprocessed(unprocessed, _)) => {
                    self.metrics.pool(PoolUse::Stale);
                    request = head.restored(*unprocessed);
                    left -= 1;
                    break;
                }
                Err(Failed::Sent(error)) => {
                    self.metrics.pool(PoolUse::Reused);
                    return Err(error);
                }
            }
        }
        loop {
            // Apart: most requests need none, and carry no room for it.
            let connection = Box::pin(self.new_connection(permit, &key)).await?;
            match self.exchange(&key, connection, request, false).await {
                Err(Failed::Unsent(unsent)) if left > 0 => {
                    self.metrics.pool(PoolUse::Stale);
                    request = head.restored(*unsent);
                    left -= 1;
                }
                Err(Failed::Unprocessed(unprocessed, error)) if left > 0 => {
                    tracing::debug!(%error, "the upstream has not begun with the request");
                    request = head.restored(*unprocessed);
                    left -= 1;
                }
                done => return done.map_err(Failed::into_error),
            }
        }
    }

    async fn new_connection(
        &self,
        permit: &Permit,
        key: &Key,
    ) -> Result<Connection, UpstreamError> {
        let turn = self.pool.first(key);
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        // Whoever had the turn before may have left something to share.
        if turn.is_some()
            && let Some(connection) = self.pool.take(key)
        {
            self.metrics.pool(PoolUse::Reused);
            return Ok(connection);
        }
        Ok(match self.dial(permit, key, Offer::AnyHttp).await? {
            Dialled::Http1(sender) => {
                self.pool.speaks_http1(key);
                Connection::Http1(sender)
            }
            Dialled::Http2(sender) => {
                let shared = Http2::new(sender);
                let stream = shared.stream();
                self.pool.share(key, shared);
                match stream {
                    Some(connection) => connection,
                    None => return Err(http_error(key, "no stream on a new connection".into())),
                }
            }
        })
    }

    async fn dial(
        &self,
        permit: &Permit,
        key: &Key,
        offer: Offer,
    ) -> Result<Dialled, UpstreamError> {
        let dialled = self.dial_uncounted(permit, key, offer).await;
        self.metrics.pool(match dialled {
            Ok(_) => PoolUse::New,
            Err(_) => PoolUse::Failed,
        });
        dialled
    }

    async fn dial_uncounted(
        &self,
        permit: &Permit,
        key: &Key,
        offer: Offer,
    ) -> Result<Dialled, UpstreamError> {
        // Nothing was read from it before: for the way it writes.
        let stream = Prefixed::new(Bytes::new(), self.connect(permit).await?);
        if key.verified.is_empty() {
            return handshake_http1(key, stream).await;
        }
        let stream = self
            .verifier
            .connect(offer, &key.verified, stream)
            .await
            .map_err(|source| UpstreamError::Tls {
                host: key.verified.clone(),
                source,
            })?;
        if is_http2(&stream) {
            handshake_http2(key, stream).await
        } else {
            handshake_http1(key, stream).await
        }
    }

    async fn exchange(
        &self,
        key: &Key,
        connection: Connection,
        request: Request<RequestBody>,
        reused: bool,
    ) -> Result<Answer, Failed> {
        match connection {
            Connection::Http1(sender) => {
                sender.announce.next(match request.method() {
                    &Method::HEAD => Exchange::Head,
                    _ => Exchange::Plain,
                });
                let pool = Some(Arc::clone(&self.pool));
                let mut answer = self.exchange_http1(key, sender, request, pool).await?;
                answer.reused = reused;
                Ok(answer)
            }
            Connection::Http2(sender, stream) => {
                let answer = self
                    .exchange_http2(key, sender, &stream, request, reused)
                    .await?;
                Ok(Answer {
                    response: answer.map(|body| PooledBody::http2(body, stream)),
                    reused,
                })
            }
        }
    }

    async fn exchange_http1(
        &self,
        key: &Key,
        mut connection: Http1,
        request: Request<RequestBody>,
        pool: Option<Arc<Pool>>,
    ) -> Result<Answer, Failed> {
        let reused = pool.is_some();
        match connection
            .sender
            .try_send_request(origin_form(request))
            .await
        {
            Ok(response) => Ok(Answer {
                response: response.map(|body: Incoming| match pool {
                    Some(pool) => PooledBody::http1(body, pool, key.clone(), connection),
                    None => PooledBody::unpooled(body),
                }),
                reused: false,
            }),
            Err(mut error) => Err(match error.take_message() {
                Some(unsent) if reused => Failed::Unsent(Box::new(unsent)),
                _ => Failed::Sent(http_error(key, Box::new(error.into_error()))),
            }),
        }
    }

    async fn exchange_http2(
        &self,
        key: &Key,
        mut sender: http2::SendRequest<RequestBody>,
        stream: &Stream,
        mut request: Request<RequestBody>,
        reused: bool,
    ) -> Result<Response<Incoming>, Failed> {
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        let (request, replay) = Replay::of(request, &self.bodies);
        let mut error = match sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let is_unsent = error.take_message().is_some();
        let error = error.into_error();
        let is_unprocessed = is_unsent || replay.is_unprocessed(&error);
        if is_unprocessed {
            stream.retire();
        }
        let source = http_error(key, Box::new(error));
        match replay.again().filter(|_| is_unprocessed) {
            Some(request) if is_unsent && reused => Err(Failed::Unsent(Box::new(request))),
            Some(request) => Err(Failed::Unprocessed(Box::new(request), source)),
            None => Err(Failed::Sent(source)),
        }
    }
}

/// What a connection's protocol takes out of a request's head.
struct Head {
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Head {
    fn of(request: &Request<RequestBody>) -> Self {
        Self {
            uri: request.uri().clone(),
            host: request.headers().get(HOST).cloned(),
        }
    }

    /// The request with it again.
    fn restored(&self, mut request: Request<RequestBody>) -> Request<RequestBody> {
        *request.uri_mut() = self.uri.clone();
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        request
    }
}

/// Did the request leave?
enum Failed {
    Unsent(Box<Request<RequestBody>>),
    /// It did, and the upstream has not begun with it.
    Unprocessed(Box<Request<RequestBody>>, UpstreamError),
    Sent(UpstreamError),
}

impl Failed {
    fn into_error(self) -> UpstreamError {
        match self {
            Self::Sent(error) | Self::Unprocessed(_, error) => error,
            Self::Unsent(request) => UpstreamError::Http {
                host: request.uri().host().unwrap_or_default().to_owned(),
                source: "the upstream closes connections before a request is sent".into(),
            },
        }
    }
}

/// HTTP/1.1 wants the path in the request line and the authority in `Host` (RFC 9112 §3.2.1).
fn origin_form(mut request: Request<RequestBody>) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    // Without this hyper leaves the body of a GET away whose length it does not know.
    let body = request.body();
    let unknown = !body.is_end_stream() && body.size_hint().exact().is_none();
    if unknown && !request.headers().contains_key(CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    request
}

fn server_name(permit: &Permit) -> String {
    match permit.target() {
        Target::Name { host, .. } => host.to_string(),
        Target::Address(address) => address.ip().to_string(),
    }
}

/// Of a connection to `key`.
pub(super) fn http_error(key: &Key, source: crate::outcome::hyper_error::Error) -> UpstreamError {
    let malformed = Violation::behind(source.as_ref());
    UpstreamError::Http {
        host: key.target.clone(),
        source: malformed.map_or(source, |violation| Box::new(violation)),
    }
}

#[cfg(test)]
mod tests;

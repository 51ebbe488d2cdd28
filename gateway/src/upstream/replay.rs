//! Requests over HTTP/2 that the upstream has provably not begun with (RFC 9113 §8.7), and what is needed to send one again:
//! its head, and what was read of its body. Sends nothing, and does not know why a request went.

mod kept;

use super::client::RequestBody;
use crate::outcome::hyper_error::Error;
use bytes::Bytes;
use h2::Reason;
use http::request::Parts;
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use kept::Kept;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::Semaphore;

/// What is kept of a request while its answer is awaited. Dropped when there is one.
pub(super) struct Replay {
    head: Parts,
    body: Option<Arc<Mutex<Shared>>>,
}

/// The body of a request, and what was read of it.
struct Shared {
    body: RequestBody,
    kept: Kept,
    /// Which reader has the body. Those before it read for streams that are over.
    reader: usize,
    /// That reader has asked for something.
    is_read: bool,
}

/// A body on a stream.
struct Reader {
    shared: Arc<Mutex<Shared>>,
    number: usize,
}

impl Replay {
    /// The request as it is to be sent, and what it takes to do that again: of `free`, the bytes that are free for all
    /// bodies of its sandbox. Where none are left, the request is not sent again.
    pub(super) fn of(
        request: Request<RequestBody>,
        free: &Arc<Semaphore>,
    ) -> (Request<RequestBody>, Self) {
        let (head, body) = request.into_parts();
        if body.is_end_stream() {
            let this = Self {
                head: head.clone(),
                body: None,
            };
            return (Request::from_parts(head, body), this);
        }
        let shared = Arc::new(Mutex::new(Shared {
            body,
            kept: Kept::new(Arc::clone(free)),
            reader: 0,
            is_read: false,
        }));
        let this = Self {
            head: head.clone(),
            body: Some(Arc::clone(&shared)),
        };
        let reader = Reader { shared, number: 0 };
        (Request::from_parts(head, reader.boxed_unsync()), this)
    }

    /// Has the upstream said, by `error`, that it did not begin with the request?
    ///
    /// A stream beyond the last one that GOAWAY names, or refused, was not begun with. But the library tells one request
    /// that GOAWAY came while it was being queued, whatever stream it names: that one may be on its way. Its body has not
    /// been asked for by then; without one, only what may be done twice is sent again (RFC 9110 §9.2.2).
    pub(super) fn is_unprocessed(&self, error: &hyper::Error) -> bool {
        let Some(error) = cause(error).filter(|error| error.is_remote()) else {
            return false;
        };
        if error.is_reset() {
            return error.reason() == Some(Reason::REFUSED_STREAM);
        }
        let was_sent = || {
            let body = self.body.as_deref();
            body.is_some_and(|shared| lock(shared).is_read)
        };
        error.is_go_away() && (may_be_repeated(&self.head.method) || was_sent())
    }

    /// The request once more; `None` if too much of it is gone.
    pub(super) fn again(mut self) -> Option<Request<RequestBody>> {
        let body = match self.body.take() {
            None => nothing(),
            Some(shared) => {
                let mut state = lock(&shared);
                if !state.kept.rewind() {
                    return None;
                }
                state.reader += 1;
                state.is_read = false;
                if state.kept.ahead().is_none() {
                    std::mem::replace(&mut state.body, nothing())
                } else {
                    let number = state.reader;
                    drop(state);
                    Reader { shared, number }.boxed_unsync()
                }
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.version_mut() = self.head.version;
        *request.headers_mut() = std::mem::take(&mut self.head.headers);
        *request.extensions_mut() = std::mem::take(&mut self.head.extensions);
        Some(request)
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Some(shared) = &self.body {
            lock(shared).kept.forget();
        }
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut shared = lock(&self.shared);
        if shared.reader != self.number {
            return Poll::Ready(Some(Err("the request is sent on another stream".into())));
        }
        shared.is_read = true;
        if let Some(frame) = shared.kept.next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let next = ready!(Pin::new(&mut shared.body).poll_frame(cx));
        if let Some(Ok(frame)) = &next {
            shared.kept.add(frame);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.kept.ahead().is_none() && shared.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        let hint = shared.body.size_hint();
        match (shared.kept.ahead(), hint.exact()) {
            (None, _) => hint,
            (Some(ahead), Some(left)) => SizeHint::with_exact(left.saturating_add(ahead)),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

/// RFC 9110 §9.2.2.
fn may_be_repeated(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn nothing() -> RequestBody {
    Empty::new()
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync()
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Whatever panicked, what was read is either kept or not whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! A request's body on its way to the upstream: every frame is passed on as it comes, and looked at in passing for the
//! record. With `Expect: 100-continue` it waits until it is wanted.

use super::asking::Asking;
use super::body::Open;
use super::capture::Capture;
use crate::guard;
use crate::guard::Progress;
use crate::inject::remove_fields;
use crate::outcome::hyper_error::Error;
use crate::provider::RequestTap;
use bytes::Bytes;
use http::header::HeaderName;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// What has been seen of a body.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) bytes: u64,
    pub(super) model: Option<RequestTap>,
    pub(super) captured: Option<Capture>,
}

/// A request body on its way to the upstream.
pub(super) struct Outgoing {
    body: Asking,
    seen: Arc<Mutex<Seen>>,
    progress: Progress,
    /// Trailers of these names are dropped: a credential may not come that way either.
    forbidden: Vec<HeaderName>,
    /// With `Expect: 100-continue` the body waits until the upstream wants it.
    wanted: Option<Wanted>,
}

/// Whether the upstream wants the body of a request with `Expect: 100-continue`.
pub(super) struct Wanted {
    /// It said "100 Continue". `None`: nobody is left who could tell.
    said: Option<oneshot::Receiver<()>>,
    /// It has had its time to say so.
    patience: Pin<Box<tokio::time::Sleep>>,
    /// It gave its final answer instead.
    answered: Arc<AtomicBool>,
    /// Dropped when that answer has reached the client.
    over: oneshot::Receiver<()>,
}

impl Wanted {
    pub(super) fn new(
        said: oneshot::Receiver<()>,
        patience: std::time::Duration,
        answered: Arc<AtomicBool>,
        over: oneshot::Receiver<()>,
    ) -> Self {
        Self {
            said: Some(said),
            patience: Box::pin(tokio::time::sleep(patience)),
            answered,
            over,
        }
    }

    /// `Ready(true)` to go on, `Ready(false)` to end without the body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(said) = &mut self.said {
            match Pin::new(said).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(true),
                Poll::Ready(Err(_gone)) => self.said = None,
                Poll::Pending => {}
            }
        }
        if !self.patience.is_elapsed() {
            ready!(self.patience.as_mut().poll(cx));
        }
        if !self.answered.load(Ordering::Relaxed) {
            return Poll::Ready(true);
        }
        // Asking the client for it now would be wrong. The connection to the upstream ends with an
        // incomplete body, so not before the answer is through.
        match Pin::new(&mut self.over).poll(cx) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Outgoing {
    pub(super) fn new(
        body: Asking,
        open: &Open,
        forbidden: Vec<HeaderName>,
        wanted: Option<Wanted>,
    ) -> Self {
        Self {
            body,
            seen: Arc::clone(&open.request),
            progress: open.progress.clone(),
            forbidden,
            wanted,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(wanted) = &mut self.wanted {
            if !ready!(wanted.poll(cx)) {
                return Poll::Ready(None);
            }
            self.wanted = None;
        }
        let mut frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        self.progress.moved();
        if let Some(data) = frame.data_ref() {
            let mut seen = lock(&self.seen);
            seen.bytes += data.len() as u64;
            if let Some(tap) = &mut seen.model {
                tap.feed(data);
            }
            if let Some(capture) = &mut seen.captured {
                capture.add(data);
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            remove_fields(trailers, &self.forbidden);
            // HTTP/2's, that HTTP/1 would not have let in.
            guard::drop_head_fields(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What has been seen so far.
pub(super) fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    // Never held across a wait, and counters are good whatever panicked.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Bodies on their way through: every frame is passed on as it comes, and looked at in passing for
//! the record (bytes, token usage, capture). Back-pressure is the stream's own: nothing is buffered.

use super::activity::Activity;
use super::capture::Capture;
use super::guarded::Watch;
use super::scrubbed::Scrubbed;
use super::server::Session;
use crate::guard::{Patience, Violation};
use crate::inject::remove_fields;
use crate::lease::Held;
use crate::live::View;
use crate::outcome::hyper_error::Error;
use crate::outcome::{DenyReason, Revoked};
use crate::provider::request::RequestTap;
use crate::provider::usage::ResponseTap;
use crate::telemetry::RequestRecord;
use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What has been seen of a body.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) bytes: u64,
    pub(super) model: Option<RequestTap>,
    pub(super) captured: Option<Capture>,
}

/// The text of a header.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// A request body on its way to the upstream.
pub(super) struct Outgoing {
    body: Incoming,
    seen: Arc<Mutex<Seen>>,
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
        body: Incoming,
        seen: Arc<Mutex<Seen>>,
        forbidden: Vec<HeaderName>,
        wanted: Option<Wanted>,
    ) -> Self {
        Self {
            body,
            seen,
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
            Some(Err(error)) => return Poll::Ready(Some(Err(Box::new(error)))),
            None => return Poll::Ready(None),
        };
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

/// A response body on its way to the client.
pub(super) enum ResponseBody {
    /// The gateway's own words.
    Whole(Option<Bytes>),
    /// The upstream's.
    Upstream(Box<Passing>),
}

impl ResponseBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

/// A request under way and its record, which is told when the request ends, however it ends: the
/// client may leave at any moment, and what went upstream by then must not be forgotten.
pub(super) struct Open {
    pub(super) record: RequestRecord,
    pub(super) request: Arc<Mutex<Seen>>,
    /// Among those of its connection.
    number: u64,
    /// It ended as it should.
    pub(super) ended: bool,
    pub(super) view: Arc<View>,
    /// Revoked when policy no longer allows the request.
    pub(super) held: Option<Held>,
    activity: Arc<Activity>,
    watch: Arc<Watch>,
    /// Its place among the sandbox's requests.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// Tells the request's body, by being dropped, that all is over.
    pub(super) over: Option<oneshot::Sender<()>>,
    /// The upstream has answered.
    pub(super) answered: Arc<AtomicBool>,
    /// The record has been told.
    finished: bool,
}

impl Open {
    pub(super) fn new(session: &Session, view: Arc<View>, record: RequestRecord) -> Self {
        Self {
            number: session.activity.begin(),
            record,
            request: Arc::default(),
            ended: false,
            view,
            held: None,
            activity: Arc::clone(&session.activity),
            watch: Arc::clone(&session.watch),
            place: None,
            over: None,
            answered: Arc::default(),
            finished: false,
        }
    }

    /// What is wrong with the request's body, if something is. Then the record says so.
    pub(super) fn malformed(&mut self) -> Option<Violation> {
        let violation = self.watch.claim()?;
        self.ended = true;
        self.record.reason = Some(DenyReason::MalformedRequest);
        self.record.status.get_or_insert(violation.status());
        Some(violation)
    }

    /// Returns when policy no longer allows the request.
    pub(super) async fn revoked(&self) {
        match &self.held {
            Some(held) => held.lease().revoked().await,
            None => std::future::pending().await,
        }
    }

    /// Has it come to that? Wakes the task when it does.
    fn poll_revoked(&self, cx: &mut Context<'_>) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.lease().poll_revoked(cx).is_ready())
    }
}

impl Open {
    /// Ends the record, once. A response's last byte follows its record, so that whoever has seen the whole of
    /// it is on record, whatever becomes of the gateway.
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if self.record.reason.is_none() {
            // An answer may have been there before the body went wrong.
            self.malformed();
        }
        let record = &mut self.record;
        if !self.ended && record.error.is_none() {
            record.error = Some("client_closed");
        }
        let mut seen = lock(&self.request);
        record.bytes_up += seen.bytes;
        if let Some(tap) = seen.model.take()
            && record.model.is_none()
        {
            record.model = tap.model().map(str::to_owned);
        }
        let redactor = self.view.telemetry.redactor();
        record.request_body = seen
            .captured
            .take()
            .map(|capture| capture.into_body(redactor));
        drop(seen);
        self.view.telemetry.request(record);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.finish();
        self.activity.end(self.number);
    }
}

/// An upstream's body on its way to the client.
pub(super) struct Passing {
    pub(super) body: Scrubbed,
    pub(super) open: Open,
    pub(super) usage: Option<ResponseTap>,
    pub(super) captured: Option<Capture>,
    /// How long the upstream may say nothing.
    pub(super) patience: Patience,
}

impl Passing {
    pub(super) fn new(
        body: Scrubbed,
        open: Open,
        usage: Option<ResponseTap>,
        captured: Option<Capture>,
    ) -> Self {
        let mut this = Self {
            body,
            open,
            usage,
            captured,
            patience: Patience::default(),
        };
        // The head is all there is.
        if this.is_over() {
            this.finish();
        }
        this
    }

    fn look(&mut self, data: &[u8]) {
        self.open.record.bytes_down += data.len() as u64;
        if let Some(tap) = &mut self.usage {
            tap.feed(data);
        }
        if let Some(capture) = &mut self.captured {
            capture.add(data);
        }
    }
}

impl Passing {
    /// Nothing more comes of the body, or nobody waits for it.
    fn finish(&mut self) {
        self.open.ended |= self.is_over();
        self.open.record.scrubbed += self.body.count();
        if let Some(tap) = self.usage.take() {
            self.open.record.usage = tap.finish();
        }
        let redactor = self.open.view.telemetry.redactor();
        let captured = self.captured.take();
        if let Some(captured) = captured {
            self.open.record.response_body = Some(captured.into_body(redactor));
        }
        self.open.finish();
    }

    /// Has the client all that it was promised? An upstream may announce the end apart from the last byte.
    fn is_over(&self) -> bool {
        self.body.is_end_stream() || self.body.size_hint().exact() == Some(0)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let passing = match &mut *self {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Upstream(passing) => passing,
        };
        if passing.open.poll_revoked(cx) {
            passing.open.record.reason = Some(DenyReason::PolicyChanged);
            passing.open.ended = true;
            return Poll::Ready(Some(Err(Box::new(Revoked))));
        }
        passing.open.activity.polled(passing.open.number);
        let Poll::Ready(next) = Pin::new(&mut passing.body).poll_frame(cx) else {
            let idle = passing.open.view.gateway.limits.idle_timeout;
            if passing.patience.is_over(idle, cx) {
                passing.open.record.error = Some("upstream_stalled");
                return Poll::Ready(Some(Err(Box::new(Broken::Stalled))));
            }
            return Poll::Pending;
        };
        passing.patience.reset();
        match next {
            Some(Ok(frame)) => {
                passing.open.activity.handed_over(passing.open.number);
                if let Some(data) = frame.data_ref() {
                    passing.look(data);
                }
                if passing.is_over() {
                    passing.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                passing.open.record.error = Some("upstream_body");
                // Not the error itself: the library would pass an upstream's HTTP/2 error code on as ours.
                Poll::Ready(Some(Err(Box::new(Broken::of(&*error)))))
            }
            None => {
                passing.open.ended = true;
                passing.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(passing) => passing.body.size_hint(),
        }
    }
}

/// Why a response breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the upstream said nothing for too long")]
    Stalled,
    #[error("the upstream's response is malformed: {0}")]
    Malformed(Violation),
    #[error("the upstream broke off: {0}")]
    Off(String),
}

impl Broken {
    fn of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Self {
        let broken = match Violation::behind(error) {
            Some(violation) => Self::Malformed(violation),
            None => Self::Off(error.to_string()),
        };
        tracing::info!(%broken, "response cut off");
        broken
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    // Never held across a wait, and counters are good whatever panicked.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

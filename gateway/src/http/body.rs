//! Bodies on their way through: every frame is passed on as it comes, and looked at in passing for
//! the record (bytes, token usage, capture). Back-pressure is the stream's own: nothing is buffered.

use super::asking::Asking;
use super::server::{Activity, Session};
use super::spending::Spending;
use crate::inject::remove_fields;
use crate::lease::Held;
use crate::live::View;
use crate::outcome::hyper_error::Error;
use crate::outcome::{DenyReason, Overrun, Revoked};
use crate::policy::CaptureBody;
use crate::provider::Decoder;
use crate::provider::request::RequestTap;
use crate::provider::usage::ResponseTap;
use crate::telemetry::redact::Redactor;
use crate::telemetry::{Body as CapturedBody, RequestRecord};
use crate::upstream::PooledBody;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http_body::{Body, Frame, SizeHint};
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

/// The beginning of a body, up to a limit, without its content coding: redaction must see the text.
pub(super) struct Capture {
    limit: usize,
    /// `None` for a coding that cannot be undone: then nothing is kept.
    decoder: Option<Decoder>,
    body: CapturedBody,
}

/// Kept beyond the limit until a secret that lies across it has been redacted.
const MARGIN: usize = 8 * 1024;

impl Capture {
    /// Captures if the policy asks for it and the media type is one of the policy's.
    pub(super) fn new(policy: Option<&CaptureBody>, headers: &HeaderMap) -> Option<Self> {
        let policy = policy?;
        let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media_type = media_type.split(';').next()?.trim().to_ascii_lowercase();
        let wanted = policy.include_content_types.contains(&media_type);
        let encoding = text(headers, &CONTENT_ENCODING);
        wanted.then(|| Self {
            limit: policy.max_bytes,
            decoder: Decoder::new(encoding.as_deref()),
            body: CapturedBody {
                encoding,
                ..CapturedBody::default()
            },
        })
    }

    fn add(&mut self, data: &[u8]) {
        let Self {
            limit,
            decoder,
            body,
        } = self;
        let Some(decoder) = decoder else {
            body.truncated = true;
            return;
        };
        if body.bytes.len() >= *limit + MARGIN {
            body.truncated |= !data.is_empty();
            return;
        }
        decoder.feed(data, &mut |decoded: &[u8]| {
            let room = (*limit + MARGIN).saturating_sub(body.bytes.len());
            let taken = decoded.get(..room).unwrap_or(decoded);
            body.bytes.extend_from_slice(taken);
            body.truncated |= taken.len() < decoded.len();
        });
    }

    /// What was captured, redacted.
    pub(super) fn into_body(self, redactor: &Redactor) -> CapturedBody {
        let mut body = self.body;
        body.bytes = redactor.bytes(std::mem::take(&mut body.bytes));
        body.truncated |= body.bytes.len() > self.limit;
        body.bytes.truncate(self.limit);
        body
    }
}

/// The text of a header.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// A request body on its way to the upstream.
pub(super) struct Outgoing {
    body: Asking,
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
        body: Asking,
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
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
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
    /// It ended as it should.
    pub(super) ended: bool,
    pub(super) view: Arc<View>,
    /// Revoked when policy no longer allows the request.
    pub(super) held: Option<Held>,
    activity: Arc<Activity>,
    /// Its place among the sandbox's requests.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// What it spends of a token budget.
    pub(super) spending: Option<Spending>,
    /// Tells the request's body, by being dropped, that all is over.
    pub(super) over: Option<oneshot::Sender<()>>,
    /// The upstream has answered.
    pub(super) answered: Arc<AtomicBool>,
}

impl Open {
    pub(super) fn new(session: &Session, view: Arc<View>, record: RequestRecord) -> Self {
        session.activity.begin();
        Self {
            record,
            request: Arc::default(),
            ended: false,
            view,
            held: None,
            activity: Arc::clone(&session.activity),
            place: None,
            spending: None,
            over: None,
            answered: Arc::default(),
        }
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

impl Drop for Open {
    fn drop(&mut self) {
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
        self.activity.end();
    }
}

/// An upstream's body on its way to the client.
pub(super) struct Passing {
    pub(super) body: PooledBody,
    pub(super) open: Open,
    pub(super) usage: Option<ResponseTap>,
    pub(super) captured: Option<Capture>,
    /// Cut off: its tokens are spent.
    pub(super) cut: bool,
}

/// What a body has next: a frame, an error, or its end.
type NextFrame = Option<Result<Frame<Bytes>, Error>>;

impl Passing {
    /// Ready when the tokens that have come so far are covered, or with the last frame.
    fn poll_spending(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextFrame>> {
        if self.cut {
            return Poll::Ready(Some(None));
        }
        let Some(spending) = &mut self.open.spending else {
            return Poll::Ready(None);
        };
        let down = self.open.record.bytes_down;
        let Some(cut) = ready!(spending.poll(cx, self.usage.as_ref(), down)) else {
            return Poll::Ready(None);
        };
        self.cut = true;
        self.open.ended = true;
        self.open.record.reason = Some(cut.reason);
        let last = match cut.last {
            Some(last) => Ok(Frame::data(last)),
            None => Err(Error::from(Overrun)),
        };
        Poll::Ready(Some(Some(last)))
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

impl Drop for Passing {
    fn drop(&mut self) {
        self.open.ended |= self.body.is_end_stream();
        let mut is_final = false;
        if let Some(tap) = self.usage.take() {
            is_final = tap.is_final() && self.open.ended && self.open.record.reason.is_none();
            self.open.record.usage = tap.finish();
        }
        if let Some(spending) = self.open.spending.take() {
            spending.settle(self.open.record.status, &self.open.record.usage, is_final);
        }
        let redactor = self.open.view.telemetry.redactor();
        let captured = self.captured.take();
        self.open.record.response_body = captured.map(|capture| capture.into_body(redactor));
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
        if let Some(last) = ready!(passing.poll_spending(cx)) {
            return Poll::Ready(last);
        }
        match ready!(Pin::new(&mut passing.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    passing.look(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                passing.open.record.error = Some("upstream_body");
                Poll::Ready(Some(Err(Box::new(error))))
            }
            None => {
                passing.open.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream(passing) => passing.cut || passing.body.is_end_stream(),
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

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    // Never held across a wait, and counters are good whatever panicked.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Responses on their way through: every frame is passed on as it comes, and looked at in passing for
//! the record (bytes, token usage, capture). Back-pressure is the stream's own: nothing is buffered.

use super::activity::Activity;
use super::capture::Capture;
use super::guarded::Watch;
use super::outgoing::{Seen, lock};
use super::scrubbed::Scrubbed;
use super::server::Session;
use super::spending::Spending;
use crate::guard::{Patience, Progress, Violation};
use crate::lease::Held;
use crate::live::View;
use crate::outcome::hyper_error::Error;
use crate::outcome::{DenyReason, Overrun, Revoked};
use crate::telemetry::RequestRecord;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

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
    /// Apart: it is large, and what it belongs to is moved from hand to hand.
    pub(super) record: Box<RequestRecord>,
    pub(super) request: Arc<Mutex<Seen>>,
    /// Of the request's body.
    pub(super) progress: Progress,
    /// Among those of its connection.
    number: u64,
    /// It ended as it should.
    pub(super) ended: bool,
    /// Nothing of it went anywhere.
    pub(super) refused: bool,
    pub(super) view: Arc<View>,
    /// Revoked when policy no longer allows the request.
    pub(super) held: Option<Held>,
    activity: Arc<Activity>,
    watch: Arc<Watch>,
    /// Its place among the sandbox's requests.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// What it spends of a token budget.
    pub(super) spending: Option<Spending>,
    /// Tells the request's body, by being dropped, that all is over.
    pub(super) over: Option<oneshot::Sender<()>>,
    /// The upstream has answered.
    pub(super) answered: Arc<AtomicBool>,
    /// The record has been told.
    finished: bool,
}

impl Open {
    pub(super) fn new(session: &Session, view: Arc<View>, record: Box<RequestRecord>) -> Self {
        Self {
            number: session.activity.begin(),
            record,
            request: Arc::default(),
            progress: Progress::default(),
            ended: false,
            refused: false,
            view,
            held: None,
            activity: Arc::clone(&session.activity),
            watch: Arc::clone(&session.watch),
            place: None,
            spending: None,
            over: None,
            answered: Arc::default(),
            finished: false,
        }
    }

    /// What is left for the client has been handed over, and waits for it.
    pub(super) fn handed_over(&self) {
        self.activity.handed_over(self.number);
    }

    /// What is wrong with the request's body, if something is. Then the record says so.
    pub(super) fn malformed(&mut self) -> Option<Violation> {
        let violation = self.watch.claim()?;
        self.ended = true;
        self.record.reason = Some(DenyReason::MalformedRequest);
        self.record.status.get_or_insert(violation.status());
        Some(violation)
    }

    /// Nothing of it is going to be sent: it spends nothing.
    pub(super) fn unspend(&mut self) {
        if let Some(spending) = self.spending.take() {
            spending.unsent();
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

impl Open {
    /// Ends the record, once. A response's last byte follows its record, so that whoever has seen the whole of
    /// it is on record, whatever becomes of the gateway.
    pub(super) fn finish(&mut self) {
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
        if self.refused {
            self.view.refused(record);
        } else {
            self.view.telemetry.request(record);
        }
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
    body: Scrubbed,
    open: Open,
    captured: Option<Capture>,
    /// Cut off: its tokens are spent.
    cut: bool,
    /// How long the upstream may say nothing.
    patience: Patience,
}

/// What a body has next: a frame, an error, or its end.
type NextFrame = Option<Result<Frame<Bytes>, Error>>;

impl Passing {
    pub(super) fn new(body: Scrubbed, open: Open, captured: Option<Capture>) -> Box<Self> {
        let mut this = Box::new(Self {
            body,
            open,
            captured,
            cut: false,
            patience: Patience::default(),
        });
        // The head is all there is.
        if this.is_over() {
            this.finish();
        }
        this
    }

    /// Ready when the tokens that have come so far are covered, or with the last frame.
    fn poll_spending(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextFrame>> {
        if self.cut {
            return Poll::Ready(Some(None));
        }
        let Some(spending) = &mut self.open.spending else {
            return Poll::Ready(None);
        };
        let down = self.open.record.bytes_down;
        let Some(cut) = ready!(spending.poll(cx, self.body.usage.as_deref(), down)) else {
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

    /// Nothing has come from the upstream for too long, nor gone to it.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.open.view.gateway.limits.idle_timeout;
        let mut wait = idle;
        while self.patience.is_over(wait, cx) {
            match self.open.progress.left(idle) {
                None => return true,
                Some(left) => wait = left,
            }
            self.patience.reset();
        }
        false
    }

    fn look(&mut self, data: &[u8]) {
        self.open.record.bytes_down += data.len() as u64;
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
        let tap = self.body.usage.take();
        if let Some(spending) = self.open.spending.take() {
            let whole = self.open.ended && self.open.record.reason.is_none();
            spending.settle(tap.as_deref(), self.open.record.bytes_down, whole);
        }
        if let Some(tap) = tap {
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
        // What came last must be covered before the next is asked for.
        if let Some(last) = ready!(passing.poll_spending(cx)) {
            return Poll::Ready(last);
        }
        let Poll::Ready(next) = Pin::new(&mut passing.body).poll_frame(cx) else {
            if passing.is_stalled(cx) {
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

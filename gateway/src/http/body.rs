//! Bodies on their way through: every frame is passed on as it comes, and looked at in passing for
//! the record (bytes, token usage, capture). Back-pressure is the stream's own: nothing is buffered.

use super::server::Front;
use crate::outcome::hyper_error::Error;
use crate::policy::CaptureBody;
use crate::provider::request::RequestTap;
use crate::provider::usage::ResponseTap;
use crate::telemetry::{Body as CapturedBody, RequestRecord};
use crate::upstream::PooledBody;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
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

/// The beginning of a body, up to a limit.
pub(super) struct Capture {
    limit: usize,
    body: CapturedBody,
}

impl Capture {
    /// Captures if the policy asks for it and the media type is one of the policy's.
    pub(super) fn new(policy: Option<&CaptureBody>, headers: &HeaderMap) -> Option<Self> {
        let policy = policy?;
        let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media_type = media_type.split(';').next()?.trim().to_ascii_lowercase();
        let wanted = policy.include_content_types.contains(&media_type);
        wanted.then(|| Self {
            limit: policy.max_bytes,
            body: CapturedBody {
                encoding: text(headers, &CONTENT_ENCODING),
                ..CapturedBody::default()
            },
        })
    }

    fn add(&mut self, data: &[u8]) {
        let room = self.limit.saturating_sub(self.body.bytes.len());
        let taken = data.get(..room).unwrap_or(data);
        self.body.bytes.extend_from_slice(taken);
        self.body.truncated |= taken.len() < data.len();
    }

    /// What was captured.
    pub(super) fn into_body(self) -> CapturedBody {
        self.body
    }
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

/// Resolves when the upstream said "100 Continue", or has had its time to.
pub(super) struct Wanted {
    said: oneshot::Receiver<()>,
    patience: Pin<Box<tokio::time::Sleep>>,
}

impl Wanted {
    pub(super) fn new(said: oneshot::Receiver<()>, patience: std::time::Duration) -> Self {
        Self {
            said,
            patience: Box::pin(tokio::time::sleep(patience)),
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
            let said = Pin::new(&mut wanted.said).poll(cx).is_ready();
            if !said && wanted.patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
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
            for name in &self.forbidden {
                trailers.remove(name);
            }
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

/// An upstream's body and the record that ends with it, however it ends.
pub(super) struct Passing {
    pub(super) body: PooledBody,
    pub(super) record: RequestRecord,
    pub(super) front: Arc<Front>,
    pub(super) request: Arc<Mutex<Seen>>,
    pub(super) usage: Option<ResponseTap>,
    pub(super) captured: Option<Capture>,
    pub(super) ended: bool,
}

impl Passing {
    fn look(&mut self, data: &[u8]) {
        self.record.bytes_down += data.len() as u64;
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
        if !self.ended && !self.body.is_end_stream() && self.record.error.is_none() {
            self.record.error = Some("client_closed");
        }
        if let Some(tap) = self.usage.take() {
            self.record.usage = tap.finish();
        }
        self.record.response_body = self.captured.take().map(Capture::into_body);
        finish(&self.front, &mut self.record, &self.request);
    }
}

/// Completes a record with what was seen of the request body, and tells it.
pub(super) fn finish(front: &Front, record: &mut RequestRecord, request: &Mutex<Seen>) {
    let mut seen = lock(request);
    record.bytes_up = seen.bytes;
    if let Some(tap) = seen.model.take()
        && record.model.is_none()
    {
        record.model = tap.model().map(str::to_owned);
    }
    record.request_body = seen.captured.take().map(Capture::into_body);
    drop(seen);
    let redactor = front.telemetry.redactor();
    for body in [&mut record.request_body, &mut record.response_body]
        .into_iter()
        .flatten()
    {
        body.bytes = redactor.bytes(std::mem::take(&mut body.bytes));
    }
    front.telemetry.request(record);
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
        match ready!(Pin::new(&mut passing.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    passing.look(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                passing.record.error = Some("upstream_body");
                Poll::Ready(Some(Err(Box::new(error))))
            }
            None => {
                passing.ended = true;
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

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    // Never held across a wait, and counters are good whatever panicked.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Informational responses on their way from an upstream to an HTTP/1.1 client (RFC 9110 §15.2): written anew from what the
//! HTTP library has read, and kept until the client's connection is between two messages. The library itself sends none
//! but 100. Knows neither connection; when it is between two messages is for who writes to it to say.

use super::headers::strip_hop_by_hop;
use crate::scrub::Scrubber;
use crate::upstream::RequestBody;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, TE, TRAILER};
use http::{Request, StatusCode};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use tokio::sync::oneshot;

/// For one request; a server that gives hints as it finds them sends a handful.
const MAX_RESPONSES: usize = 8;
/// All those of one request, bytes: some forty `Link` fields each.
const MAX_BYTES: usize = 16 * 1024;

/// What the client of one HTTP/1 connection is to be told before the final response that is due.
#[derive(Default)]
pub(super) struct Interim(Mutex<State>);

#[derive(Default)]
struct State {
    /// Which request; what comes late for one before it is nobody's.
    request: u64,
    /// No byte of its final response has been made.
    is_awaited: bool,
    /// Nothing of the response before is left in the library's buffer.
    is_settled: bool,
    responses: usize,
    bytes: usize,
    pending: VecDeque<Bytes>,
    writer: Option<Waker>,
}

/// A request that waits for its final response. Dropped before that is handed over.
pub(super) struct Awaiting {
    interim: Arc<Interim>,
    request: u64,
    scrubbed: Arc<AtomicU64>,
}

impl Interim {
    /// The connection's next request.
    pub(super) fn await_final(self: &Arc<Self>) -> Awaiting {
        let mut state = self.lock();
        let request = state.request + 1;
        let writer = state.writer.take();
        *state = State {
            request,
            is_awaited: true,
            writer,
            ..State::default()
        };
        Awaiting {
            interim: Arc::clone(self),
            request,
            scrubbed: Arc::default(),
        }
    }

    /// The library has nothing left in its buffer. It hands a request over when it has made all of the response before.
    pub(super) fn flushes(&self) {
        self.lock().is_settled = true;
    }

    /// The next response to write, by who is between two messages; who gets none is woken when there is one.
    pub(super) fn take(&self, cx: &mut Context<'_>) -> Option<Bytes> {
        let mut state = self.lock();
        let next = match state.is_settled {
            true => state.pending.pop_front(),
            false => None,
        };
        if next.is_none() {
            match &mut state.writer {
                Some(writer) => writer.clone_from(cx.waker()),
                None => state.writer = Some(cx.waker().clone()),
            }
        }
        next
    }

    /// Bytes of the library's are about to be written. If the final response may be among them, all others are late.
    pub(super) fn writes(&self) {
        let mut state = self.lock();
        if !state.is_awaited {
            state.pending.clear();
        }
    }

    fn give(&self, request: u64, head: Bytes) {
        let mut state = self.lock();
        let bytes = state.bytes + head.len();
        if !state.is_awaited
            || state.request != request
            || state.responses == MAX_RESPONSES
            || bytes > MAX_BYTES
        {
            tracing::debug!("an informational response is not passed on");
            return;
        }
        state.responses += 1;
        state.bytes = bytes;
        state.pending.push_back(head);
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-done, whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaiting {
    /// How many secrets were taken out of what was passed on.
    pub(super) fn scrubbed(&self) -> u64 {
        self.scrubbed.load(Ordering::Relaxed)
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let mut state = self.interim.lock();
        if state.request == self.request {
            state.is_awaited = false;
        }
    }
}

/// Has the request's informational responses told: 100 to the body that waits for it, by `wanted`, and others to the
/// client, by `awaiting`.
pub(super) fn listen(
    request: &mut Request<RequestBody>,
    wanted: Option<oneshot::Sender<()>>,
    awaiting: Option<&Awaiting>,
    scrubber: Option<&Scrubber>,
) {
    if wanted.is_none() && awaiting.is_none() {
        return;
    }
    let wanted = Mutex::new(wanted);
    let client = awaiting.map(|awaiting| {
        let scrubbed = Arc::clone(&awaiting.scrubbed);
        (Arc::clone(&awaiting.interim), awaiting.request, scrubbed)
    });
    let scrubber = scrubber.cloned();
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            if let Ok(mut wanted) = wanted.lock()
                && let Some(wanted) = wanted.take()
                && wanted.send(()).is_err()
            {
                tracing::debug!("the body did not wait for 100 Continue");
            }
        } else if let Some((interim, request, scrubbed)) = &client {
            let mut headers = response.headers().clone();
            if let Some(scrubber) = &scrubber {
                scrubbed.fetch_add(scrubber.headers(&mut headers), Ordering::Relaxed);
            }
            if let Some(head) = head(response.status(), headers) {
                interim.give(*request, head);
            }
        }
    });
}

/// The head as it goes over HTTP/1.1; `None` for what is no such response, or could not be read in one way alone.
fn head(status: StatusCode, mut headers: HeaderMap) -> Option<Bytes> {
    let own = [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS];
    if !status.is_informational() || own.contains(&status) {
        return None;
    }
    strip_hop_by_hop(&mut headers);
    // There is nothing to frame (RFC 9110 §8.6).
    for name in [CONTENT_LENGTH, TE, TRAILER] {
        headers.remove(name);
    }
    let mut head = BytesMut::new();
    let reason = status.canonical_reason().unwrap_or_default();
    head.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    for (name, value) in &headers {
        let value = value.as_bytes();
        if !value
            .iter()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
        {
            return None;
        }
        head.put_slice(name.as_str().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value);
        head.put_slice(b"\r\n");
    }
    head.put_slice(b"\r\n");
    Some(head.freeze())
}

#[cfg(test)]
mod tests;

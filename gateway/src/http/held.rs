//! A request's body that has been read whole before it is sent: for its model, its tokens, or a signature. It is held
//! once, whoever asks, within what its sandbox may hold, and sent on as it came. It refuses to know what it says.

use super::problem::Refused;
use crate::outcome::DenyReason;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    frames: VecDeque<Frame<Bytes>>,
    left: u64,
    has_trailers: bool,
    memory: Option<OwnedSemaphorePermit>,
}

/// How much may be held, and for how long nothing may come.
pub(super) struct Bounds<'a> {
    /// Bytes.
    pub(super) longest: usize,
    /// Bytes that are free, for all of a sandbox's bodies.
    pub(super) memory: &'a Arc<Semaphore>,
    /// Between two pieces.
    pub(super) patience: Duration,
}

impl Held {
    /// Reads to the end; `look` sees each piece.
    pub(super) async fn read(
        body: &mut Incoming,
        bounds: Bounds<'_>,
        mut look: impl FnMut(&[u8]),
    ) -> Result<Self, Refused> {
        let mut held = Self::default();
        if body.size_hint().lower() > bounds.longest as u64 {
            return Err(too_large(bounds.longest));
        }
        let mut length = 0;
        loop {
            let Ok(next) = tokio::time::timeout(bounds.patience, body.frame()).await else {
                return Err(too_slow(bounds.patience));
            };
            let Some(frame) = next else {
                return Ok(held);
            };
            let frame = frame.map_err(|error| {
                let said = format!("the body did not arrive: {error}");
                Refused::saying(DenyReason::MalformedRequest, said)
            })?;
            if let Some(data) = frame.data_ref() {
                length += data.len();
                if length > bounds.longest {
                    return Err(too_large(bounds.longest));
                }
                held.take_memory(bounds.memory, data.len())?;
                held.left += data.len() as u64;
                look(data);
            } else {
                held.has_trailers = true;
            }
            held.frames.push_back(frame);
        }
    }

    /// Many at once share what there is for a sandbox.
    fn take_memory(&mut self, memory: &Arc<Semaphore>, bytes: usize) -> Result<(), Refused> {
        let count = u32::try_from(bytes).or(Err(DenyReason::BodyTooLarge))?;
        let more = Arc::clone(memory).try_acquire_many_owned(count);
        let more = more.or(Err(DenyReason::TooManyRequests))?;
        match &mut self.memory {
            Some(all) => all.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// The pieces that are still here.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let data = self.frames.iter().filter_map(Frame::data_ref);
        data.map(|data| data.as_ref())
    }

    /// Where they have no place, trailers end here.
    pub(super) fn drop_trailers(&mut self) {
        self.frames.retain(Frame::is_data);
        self.has_trailers = false;
    }

    /// What is sent next.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front()?;
        let sent = frame.data_ref().map_or(0, Bytes::len);
        self.left = self.left.saturating_sub(sent as u64);
        Some(frame)
    }

    /// Nothing is left, trailers included.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// With trailers the length must stay open: HTTP/1.1 sends them after chunks only.
    pub(super) fn size_hint(&self) -> SizeHint {
        if self.has_trailers {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.left)
        }
    }
}

fn too_large(longest: usize) -> Refused {
    let most = longest / (1024 * 1024);
    Refused::saying(
        DenyReason::BodyTooLarge,
        format!(
            "the gateway has to read this body before it sends it, and reads {most} MiB at most"
        ),
    )
}

fn too_slow(patience: Duration) -> Refused {
    let seconds = patience.as_secs();
    Refused::saying(
        DenyReason::SniffTimeout,
        format!(
            "the gateway has to read this body before it sends it, and nothing of it came for {seconds} s"
        ),
    )
}

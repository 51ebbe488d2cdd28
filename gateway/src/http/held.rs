//! A request's body that has been read whole before it is sent: for its model, its tokens, or a signature. It is held
//! once, whoever asks, within what its sandbox may hold, and sent on as it came. It refuses to know what it says.

use super::problem::Refused;
use crate::outcome::DenyReason;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is held is copied into pieces of this size, bytes: a frame of one byte would keep the whole buffer that it was
/// read into.
const PIECE: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    frames: VecDeque<Frame<Bytes>>,
    /// The last piece, while more comes.
    piece: BytesMut,
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
    pub(super) async fn read<B>(
        body: &mut B,
        bounds: Bounds<'_>,
        mut look: impl FnMut(&[u8]),
    ) -> Result<Self, Refused>
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
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
                held.end_piece();
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
                held.add(data);
                look(data);
            } else {
                held.end_piece();
                held.has_trailers = true;
                held.frames.push_back(frame);
            }
        }
    }

    fn add(&mut self, data: &[u8]) {
        self.left += data.len() as u64;
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        let piece = std::mem::take(&mut self.piece).freeze();
        if !piece.is_empty() {
            self.frames.push_back(Frame::data(piece));
        }
    }

    /// Many at once share what there is for a sandbox.
    fn take_memory(&mut self, memory: &Arc<Semaphore>, bytes: usize) -> Result<(), Refused> {
        let count = u32::try_from(bytes).or(Err(DenyReason::BodyTooLarge))?;
        let more = Arc::clone(memory).try_acquire_many_owned(count);
        let more = more.or(Err(DenyReason::TooMuchHeld))?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    const FREE: usize = 1024 * 1024;

    async fn hold(memory: &Arc<Semaphore>, pieces: Vec<Bytes>) -> Result<Held, Refused> {
        let frames = pieces
            .into_iter()
            .map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let bounds = Bounds {
            longest: FREE,
            memory,
            patience: Duration::from_secs(1),
        };
        Held::read(&mut StreamBody::new(stream::iter(frames)), bounds, |_| ()).await
    }

    #[tokio::test]
    async fn tiny_and_empty_pieces_take_no_more_than_their_bytes() {
        let memory = Arc::new(Semaphore::new(FREE));
        // Each piece keeps a buffer a thousand times its size, as one cut from what was read does.
        let buffer = Bytes::from(vec![b'x'; 4096]);
        let tiny = (0..200_000).map(|at| buffer.slice(0..at % 2)).collect();
        let mut held = hold(&memory, tiny)
            .await
            .unwrap_or_else(|_| panic!("refused"));
        assert_eq!(held.left(), 100_000);
        assert!(held.frames.len() <= 100_000 / PIECE + 1);
        assert!(buffer.is_unique(), "a buffer is kept");
        assert_eq!(memory.available_permits(), FREE - 100_000);
        let mut sent = 0;
        while let Some(frame) = held.next() {
            sent += frame.into_data().unwrap().len();
        }
        assert_eq!(sent, 100_000);
        drop(held);
        assert_eq!(memory.available_permits(), FREE);
    }

    #[tokio::test]
    async fn what_many_hold_together_is_bounded_and_given_back() {
        let memory = Arc::new(Semaphore::new(FREE));
        let body = || vec![Bytes::from(vec![b'x'; 300 * 1024])];
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(
                hold(&memory, body())
                    .await
                    .unwrap_or_else(|_| panic!("refused")),
            );
        }
        let Err(refused) = hold(&memory, body()).await else {
            panic!("more than there is");
        };
        assert_eq!(refused.reason, DenyReason::TooMuchHeld);
        held.pop();
        assert!(hold(&memory, body()).await.is_ok());
    }
}

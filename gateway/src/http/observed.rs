//! The client's side of an HTTP/2 connection, watched for streams that the HTTP library refuses by
//! itself, and bounded in how long a client may take nothing of what is written.

use crate::guard::{FrameWatch, Patience, Refusal};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many requests the library has handed on.
pub(super) type Requests = Box<dyn Fn() -> u64 + Send>;
/// Learns of each refusal.
pub(super) type Tell = Box<dyn FnMut(Refusal) + Send>;

/// See the module.
pub(super) struct Observed<S> {
    stream: S,
    frames: FrameWatch,
    requests: Requests,
    tell: Tell,
    stalled: Patience,
    idle: Duration,
}

impl<S> Observed<S> {
    pub(super) fn new(stream: S, idle: Duration, requests: Requests, tell: Tell) -> Self {
        Self {
            stream,
            frames: FrameWatch::default(),
            requests,
            tell,
            stalled: Patience::default(),
            idle,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = &outcome {
            let written = bytes.get(..*length).unwrap_or(bytes);
            this.frames.written(written, &mut this.tell);
            this.frames.compare((this.requests)(), &mut this.tell);
        }
        this.stalled.written(outcome, this.idle, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(length)) = &outcome {
            let mut left = *length;
            for slice in slices {
                let written = slice.get(..left).unwrap_or(slice);
                this.frames.written(written, &mut this.tell);
                left -= written.len();
            }
            this.frames.compare((this.requests)(), &mut this.tell);
        }
        this.stalled.written(outcome, this.idle, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        let idle = self.idle;
        self.stalled.written(outcome, idle, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        let idle = self.idle;
        self.stalled.written(outcome, idle, cx)
    }
}

//! An upstream's HTTP/1 connection behind a [`ResponseGuard`]: the HTTP library reads no response that
//! was not judged, and none to a request that was not sent. Knows nothing of what responses mean.

use crate::guard::{Exchange, Held, Position, ResponseGuard, Violation};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Asked for at once when a head is awaited; most heads fit.
const READ: usize = 8192;

/// Tells a connection what is going to be sent on it.
#[derive(Clone, Default)]
pub(super) struct Announce(Arc<Mutex<Option<Exchange>>>);

impl Announce {
    /// The next bytes written begin this.
    pub(super) fn next(&self, exchange: Exchange) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(exchange);
    }

    fn take(&self) -> Option<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// See the module.
pub(super) struct Guarded<S> {
    stream: S,
    guard: ResponseGuard,
    announced: Announce,
    /// Nothing goes on after this.
    found: Option<Violation>,
    held: Held,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, announced: Announce) -> Self {
        Self {
            stream,
            guard: ResponseGuard::default(),
            announced,
            found: None,
            held: Held::default(),
        }
    }

    fn judge(&mut self) {
        let judged = self.held.judge(|bytes| self.guard.take(bytes));
        self.found = judged.err();
    }

    fn judge_body(&mut self, out: &mut ReadBuf<'_>, before: usize) {
        let judged = self
            .held
            .judge_body(out, before, |bytes| self.guard.take(bytes));
        self.found = judged.err();
    }

    /// A request begins, unless something was there before it: that would pass for its answer.
    fn begin(&mut self) -> io::Result<()> {
        if let Some(exchange) = self.announced.take() {
            if !self.held.is_empty() {
                self.found.get_or_insert(Violation::Unasked);
            }
            self.guard.expect(exchange);
        }
        match self.found {
            None => Ok(()),
            Some(violation) => Err(violation.into()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.held.is_ready() {
                this.held.hand_over(out);
                return Poll::Ready(Ok(()));
            }
            if let Some(violation) = this.found {
                return Poll::Ready(Err(violation.into()));
            }
            if !this.held.is_judged() {
                this.judge();
                continue;
            }
            if this.guard.position() != Position::InBody {
                let read = pin!(this.stream.read_buf(this.held.room(READ))).poll(cx);
                if ready!(read)? > 0 {
                    continue;
                }
                if this.guard.position() == Position::InHead {
                    this.found = Some(Violation::CutOff);
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            let before = out.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
            if out.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            this.judge_body(out, before);
            if out.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.begin()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

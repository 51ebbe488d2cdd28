//! Much that the HTTP/2 library writes in one turn, handed on in one piece. The library flushes after each frame of data,
//! which below would be a TLS record and a system call each; here much that is flushed leaves when the library has had its
//! turn. A little leaves at once: a head is not to come with the reset behind it, which some clients (curl 7.88) take for
//! the whole answer. It refuses to know frames.

use crate::guard::Patience;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Kept at most, bytes: four full TLS records, which is what the TLS library keeps too when its peer takes nothing.
const MOST: usize = 64 * 1024;
/// Less than this leaves at once: heads, and what the library says for itself.
const LITTLE: usize = 4 * 1024;

thread_local! {
    /// Memory for whoever writes next on this thread, which a connection that has nothing to say does not keep.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The library's end.
pub(super) struct Gathered<S>(Arc<Mutex<State<S>>>);

/// The other end, of whoever gives the library its turns.
pub(super) struct Outlet<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    /// What was written, and how much of that is handed on.
    bytes: Vec<u8>,
    done: usize,
    unflushed: bool,
    idle: Duration,
    stalled: Patience,
}

/// Both ends of `stream`, whose peer may take nothing for `idle` at a time.
pub(super) fn gathered<S>(stream: S, idle: Duration) -> (Gathered<S>, Outlet<S>) {
    let state = State {
        stream,
        bytes: Vec::new(),
        done: 0,
        unflushed: false,
        idle,
        stalled: Patience::default(),
    };
    let shared = Arc::new(Mutex::new(state));
    (Gathered(Arc::clone(&shared)), Outlet(shared))
}

/// Both ends are one task's: nobody ever waits.
fn locked<S>(shared: &Mutex<State<S>>) -> MutexGuard<'_, State<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Hands on what is kept.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.poll_write_all(cx);
        self.stalled.written(outcome, self.idle, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        // One clock for both: the peer takes nothing, wherever it waits.
        let outcome = match self.poll_write_all(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(cx),
            other => other,
        };
        ready!(self.stalled.written(outcome, self.idle, cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.done..)
            && !rest.is_empty()
        {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.done += written;
            // Who takes a little at a time takes something.
            self.stalled.reset();
        }
        let mut spare = std::mem::take(&mut self.bytes);
        if spare.capacity() >= MOST {
            spare.clear();
            SPARE.set(spare);
        }
        self.done = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Hands on and flushes what the library has written. To be called after each of its turns.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        locked(&self.0).poll_flush(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut locked(&self.0).stream).poll_read(cx, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = locked(&self.0);
        if state.bytes.len() >= MOST {
            ready!(state.poll_out(cx))?;
        }
        if state.bytes.capacity() == 0 {
            state.bytes = SPARE.take();
        }
        let before = state.bytes.len();
        let coming: usize = slices.iter().map(|slice| slice.len()).sum();
        if before > 0 && state.bytes.capacity() - before < coming {
            // Where one frame follows another more will.
            state.bytes.reserve_exact(MOST - before);
        }
        for slice in slices {
            let room = MOST.saturating_sub(state.bytes.len());
            let taken = slice.get(..room).unwrap_or(slice);
            state.bytes.extend_from_slice(taken);
        }
        state.unflushed = true;
        Poll::Ready(Ok(state.bytes.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = locked(&self.0);
        if state.bytes.len() < LITTLE {
            return state.poll_flush(cx);
        }
        // At the end of the turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = locked(&self.0);
        ready!(state.poll_flush(cx))?;
        Pin::new(&mut state.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

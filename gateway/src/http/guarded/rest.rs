//! When a connection is at rest, and what is kept of it then: the stream, and how long it may be idle. It refuses to know
//! what else there is to put away.

use super::{Guarded, READ};
use crate::guard::{Held, Position};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};

/// A client that asks for nothing for this long has nothing to ask for now: longer than what lies between the requests of one
/// that works, short against the minutes for which others keep their connections.
pub(super) const REST: Duration = Duration::from_secs(1);
/// Read at once while the connection rests: enough to know that it is over.
const STIR: usize = 64;

impl<S> Guarded<S> {
    /// Gives back what only a connection at work needs. To be called when [`Watch::is_resting`], and nobody reads or writes
    /// until [`poll_stir`](Self::poll_stir) is ready.
    pub(in crate::http) fn rest(&mut self) {
        self.watch.resting.store(false, Ordering::Relaxed);
        self.reader = None;
        self.held = Held::default();
    }

    /// The next request is no longer likely.
    pub(super) fn become_calm(&mut self) {
        if !self.is_calm {
            self.patience.reset();
            self.is_calm = true;
        }
        self.settle();
    }

    /// Notes whether the connection rests.
    pub(super) fn settle(&mut self) {
        let rests = self.is_calm
            && self.guard.position() == Position::Between
            && !self.unflushed
            && self.is_through
            && self.held.is_empty()
            && self.watch.is_clean()
            && !self.watch.released.load(Ordering::Acquire);
        self.watch.resting.store(rests, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Ready when there is something to read, or the end, or nothing was heard for too long: the next read says which.
    pub(in crate::http) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut few = [0; STIR];
        let mut few = ReadBuf::new(&mut few);
        match Pin::new(&mut self.stream).poll_read(cx, &mut few) {
            Poll::Ready(Ok(())) => self.held.room(READ).extend_from_slice(few.filled()),
            Poll::Ready(Err(error)) => self.broken = Some(error),
            Poll::Pending if self.wait(cx).is_some() => {}
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

//! A copy between two streams, unread: bounded in memory, metered as it goes, and ended when nothing
//! moves for too long. Between two sockets ([`splice_sockets`]) bulk does not come into this process at all.

mod pipe;
mod sockets;

pub use sockets::splice_sockets;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Per direction: fills a 10 Gbit/s loopback without holding much for an idle connection.
const BUFFER: usize = 64 * 1024;

/// What has gone through so far: readable at any time, so that a record is right however the copy ends.
#[derive(Debug)]
pub struct Meter {
    up: AtomicU64,
    down: AtomicU64,
    started: Instant,
    /// Milliseconds since `started`.
    moved: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            started: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// Bytes from the client.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes from the upstream.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    fn note(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        self.note_motion();
    }

    fn note_motion(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns when nothing has moved for `limit`.
    async fn idle(&self, limit: Duration) {
        loop {
            let still = Duration::from_millis(
                self.now() - self.moved.load(Ordering::Relaxed).min(self.now()),
            );
            if still >= limit {
                return;
            }
            tokio::time::sleep(limit - still).await;
        }
    }
}

/// Copies both ways until both sides have ended. `Err(TimedOut)` when nothing moved for `idle`.
pub async fn splice<C, U>(
    client: &mut C,
    upstream: &mut U,
    meter: &Meter,
    idle: Duration,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut client = Metered {
        stream: client,
        counter: &meter.up,
        meter,
    };
    let mut upstream = Metered {
        stream: upstream,
        counter: &meter.down,
        meter,
    };
    tokio::select! {
        copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER) => {
            copied.map(|_counts| ())
        }
        () = meter.idle(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Counts what is read from a stream; whatever is read here is written to the other.
struct Metered<'a, S> {
    stream: &'a mut S,
    counter: &'a AtomicU64,
    meter: &'a Meter,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *this.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            this.meter.note(this.counter, read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;

//! The client's side of an HTTP/1 connection behind a [`RequestGuard`]: the HTTP library reads nothing
//! that was not judged, no head before it is whole, and nothing of a message before it asks for that
//! message. Bounds how long a client may take. What to answer and to record is the server's business.

mod rest;

use super::interim::Interim;
use crate::guard::{Held, Patience, Position, RequestGuard, Violation};
use bytes::{Buf, Bytes};
use rest::REST;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// From a head's first byte to its last. Clients are on this machine and send heads in one piece.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Asked for at once when a head is awaited; most heads fit.
const READ: usize = 4096;
/// Read and thrown away after an answer that comes before the end of a body, so that it is not lost to a reset (RFC 9112
/// §9.6): what two sockets hold, and a client sends before it looks up …
const MAX_DRAINED: usize = 16 * 1024 * 1024;
/// … or after what breaks a rule: such a client is owed little …
const MAX_REFUSED: usize = 256 * 1024;
/// … and for how long. Also how long the client has to take the answer.
const PARTING: Duration = Duration::from_secs(1);

/// What the stream and the requests on it tell each other.
#[derive(Default)]
pub(super) struct Watch {
    released: AtomicBool,
    resting: AtomicBool,
    found: OnceLock<Found>,
    recorded: AtomicBool,
}

#[derive(Clone, Copy)]
struct Found {
    violation: Violation,
    /// The head of the message has been passed on: its request is under way.
    under_way: bool,
}

impl Watch {
    /// From here on the connection is not HTTP.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// What is wrong with the body of the request that is under way. Who asks sees to the record.
    pub(super) fn claim(&self) -> Option<Violation> {
        let found = self.found.get().filter(|found| found.under_way)?;
        self.recorded.store(true, Ordering::Relaxed);
        Some(found.violation)
    }

    /// What was found and is on nobody's record yet. Says so once.
    pub(super) fn unrecorded(&self) -> Option<Violation> {
        let found = self.found.get()?;
        (!self.recorded.swap(true, Ordering::Relaxed)).then_some(found.violation)
    }

    /// The client has asked for nothing for [`REST`], and all that was written for it is on its way.
    pub(super) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// Was anything found?
    pub(super) fn is_clean(&self) -> bool {
        self.found.get().is_none()
    }
}

/// Makes the whole answer to a request that breaks a rule, and its record.
pub(super) type Refuse = Box<dyn FnOnce(Violation) -> Bytes + Send>;

/// See the module.
pub(super) struct Guarded<S> {
    stream: S,
    guard: RequestGuard,
    watch: Arc<Watch>,
    refuse: Option<Refuse>,
    idle: Duration,
    held: Held,
    /// Part of the message under way has been passed on.
    under_way: bool,
    patience: Patience,
    /// Its first part is over, in which the next request was likely.
    is_calm: bool,
    /// What was found of the stream while the connection rested.
    broken: Option<io::Error>,
    stalled: Patience,
    /// Something was written since the last flush; whoever waits for that to be over.
    unflushed: bool,
    reader: Option<Waker>,
    parting: Parting,
    /// What the client is to be told besides what the library says …
    interim: Arc<Interim>,
    /// … and what is left of that which has been begun.
    between: Bytes,
    /// The library has nothing left to write of what it has made so far: its buffer was empty when it last flushed, and it
    /// has written nothing since. While a request is with the gateway, that is between two messages.
    is_through: bool,
}

enum Parting {
    NotYet,
    Answer(Bytes),
    Flush,
    Shutdown,
    Drain(usize),
    Over,
}

impl<S> Guarded<S> {
    /// Heads of at most `max_head` bytes; `idle` is how long nothing may happen.
    pub(super) fn new(
        stream: S,
        max_head: usize,
        idle: Duration,
        watch: Arc<Watch>,
        interim: Arc<Interim>,
        refuse: Refuse,
    ) -> Self {
        Self {
            stream,
            guard: RequestGuard::new(max_head),
            watch,
            refuse: Some(refuse),
            idle,
            held: Held::default(),
            under_way: false,
            patience: Patience::default(),
            is_calm: false,
            broken: None,
            stalled: Patience::default(),
            unflushed: false,
            reader: None,
            parting: Parting::NotYet,
            interim,
            between: Bytes::new(),
            is_through: true,
        }
    }

    fn found(&mut self, violation: Violation) {
        let under_way = self.under_way;
        self.watch.found.get_or_init(|| Found {
            violation,
            under_way,
        });
    }

    fn judge(&mut self) {
        let before = self.guard.position();
        match self.held.judge(|bytes| self.guard.take(bytes)) {
            Ok(judged) => {
                if before != Position::InHead || judged.at != Position::InHead {
                    self.heard();
                }
            }
            Err(violation) => self.found(violation),
        }
    }

    /// Reads body bytes straight to where they are wanted.
    fn judge_body(&mut self, out: &mut ReadBuf<'_>, before: usize) {
        self.heard();
        let judged = self
            .held
            .judge_body(out, before, |bytes| self.guard.take(bytes));
        match judged {
            Ok(judged) => self.under_way = judged.at != Position::Between,
            Err(violation) => self.found(violation),
        }
    }

    /// Something has come.
    fn heard(&mut self) {
        self.patience.reset();
        self.is_calm = false;
        self.watch.resting.store(false, Ordering::Relaxed);
    }

    /// Nobody says anything. `Some` if that has lasted too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Option<Violation> {
        let (limit, violation) = match self.guard.position() {
            Position::Between if self.idle > REST => {
                if !self.is_calm && !self.patience.is_over(REST, cx) {
                    return None;
                }
                self.become_calm();
                (self.idle - REST, None)
            }
            Position::Between => (self.idle, None),
            Position::InHead => (HEAD_TIME, Some(Violation::SlowHead)),
            Position::InBody => (self.idle, Some(Violation::SlowBody)),
        };
        if !self.patience.is_over(limit, cx) {
            return None;
        }
        Some(violation.unwrap_or(Violation::CutOff))
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    fn refused(&mut self, found: Found, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if found.under_way {
            return Poll::Ready(Err(found.violation.into()));
        }
        // For the library the connection ends here, before the message. It would end it even with an
        // earlier answer still on its way.
        if self.unflushed {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// `Ready(true)` when there was something, or something was found; `Ready(false)` at the end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        let read = pin!(self.stream.read_buf(self.held.room(READ))).poll(cx);
        match read {
            Poll::Ready(Ok(0)) if self.guard.position() == Position::Between => {
                Poll::Ready(Ok(false))
            }
            Poll::Ready(Ok(0)) => {
                self.found(Violation::CutOff);
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(true)),
            Poll::Ready(Err(error)) => self.broke_off(error),
            Poll::Pending => self.waited(cx),
        }
    }

    /// TLS that ends without saying so is an end like any other within a message.
    fn broke_off(&mut self, error: io::Error) -> Poll<io::Result<bool>> {
        let end = error.kind() == io::ErrorKind::UnexpectedEof;
        if !end || self.guard.position() == Position::Between {
            return Poll::Ready(Err(error));
        }
        self.found(Violation::CutOff);
        Poll::Ready(Ok(true))
    }

    fn waited(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self.wait(cx) {
            None => Poll::Pending,
            Some(_) if self.guard.position() == Position::Between => Poll::Ready(Ok(false)),
            Some(violation) => {
                self.found(violation);
                Poll::Ready(Ok(true))
            }
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
                this.under_way = this.held.is_ready() || this.guard.position() != Position::Between;
                return Poll::Ready(Ok(()));
            }
            if this.watch.released.load(Ordering::Acquire) {
                if this.held.is_empty() {
                    return Pin::new(&mut this.stream).poll_read(cx, out);
                }
                this.held.release();
                continue;
            }
            if let Some(found) = this.watch.found.get().copied() {
                return this.refused(found, cx);
            }
            if !this.held.is_judged() {
                this.judge();
                continue;
            }
            if this.guard.position() != Position::InBody {
                if ready!(this.fill(cx))? {
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            let before = out.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, out) {
                Poll::Ready(Ok(())) if out.filled().len() == before => {
                    this.found(Violation::CutOff);
                }
                Poll::Ready(Ok(())) => {
                    this.judge_body(out, before);
                    if out.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => {
                    ready!(this.broke_off(error))?;
                }
                Poll::Pending => {
                    ready!(this.waited(cx))?;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// The answer, the end of what is written, and a moment for the client to read it all.
    fn part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.parting, Parting::NotYet) {
            self.patience.reset();
        }
        if self.patience.is_over(PARTING, cx) {
            self.parting = Parting::Over;
        }
        loop {
            if matches!(self.parting, Parting::Answer(_) | Parting::Shutdown) {
                ready!(self.finish_between(cx))?;
            }
            self.parting = match &mut self.parting {
                Parting::NotYet => match self.watch.found.get() {
                    // Answered before the end of its body.
                    None => Parting::Shutdown,
                    Some(found) => match self.refuse.take() {
                        Some(refuse) if !found.under_way => {
                            Parting::Answer(refuse(found.violation))
                        }
                        _ => Parting::Shutdown,
                    },
                },
                Parting::Answer(answer) if answer.is_empty() => Parting::Flush,
                Parting::Answer(answer) => {
                    let written = ready!(Pin::new(&mut self.stream).poll_write(cx, answer))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    answer.advance(written);
                    continue;
                }
                Parting::Flush => {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    Parting::Shutdown
                }
                Parting::Shutdown => {
                    ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                    let is_clean = self.watch.is_clean();
                    Parting::Drain(if is_clean { MAX_DRAINED } else { MAX_REFUSED })
                }
                Parting::Drain(left) => {
                    self.held.clear();
                    let read = pin!(self.stream.read_buf(self.held.room(READ))).poll(cx);
                    match ready!(read) {
                        Ok(read) if read > 0 && *left > read => Parting::Drain(*left - read),
                        _ => Parting::Over,
                    }
                }
                Parting::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Writes the rest of what has been begun.
    fn finish_between(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.between.is_empty() {
            self.unflushed = true;
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.between))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.between.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// The same for a client that may take nothing for so long.
    fn finish_between_in_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.between.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let outcome = self.finish_between(cx);
        self.stalled.written(outcome, self.idle, cx)
    }

    /// Writes the informational responses that there are, if it is the moment. Ready when the library may go on.
    fn interject(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.finish_between_in_time(cx))?;
            if !self.is_through {
                return Poll::Ready(Ok(()));
            }
            match self.interim.take(cx) {
                Some(head) => self.between = head,
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// The library is about to write.
    fn before_writing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.interject(cx))?;
        self.is_through = false;
        self.watch.resting.store(false, Ordering::Relaxed);
        self.interim.writes();
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.before_writing(cx))?;
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        let idle = self.idle;
        self.stalled.written(outcome, idle, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.before_writing(cx))?;
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        let idle = self.idle;
        self.stalled.written(outcome, idle, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library flushes when it has written all it has.
        self.is_through = true;
        self.interim.flushes();
        ready!(self.interject(cx))?;
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        if outcome.is_ready() {
            self.unflushed = false;
            self.settle();
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        let idle = self.idle;
        self.stalled.written(outcome, idle, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.resting.store(false, Ordering::Relaxed);
        if self.watch.is_clean() && self.guard.position() != Position::InBody {
            ready!(self.finish_between_in_time(cx))?;
            let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
            let idle = self.idle;
            return self.stalled.written(outcome, idle, cx);
        }
        self.part(cx)
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! The copy between two TCP connections. Small pieces go through memory, which is held only while there is something in it;
//! bulk goes through a [`Pipe`], where the kernel moves pages from one connection to the other. Refuses to know what passes.

use super::Meter;
use super::pipe::{Pipe, is_refusal};
use crate::stream::Prefixed;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Read at once where bytes are copied.
const BUFFER: usize = 64 * 1024;
/// Less than this at once is cheaper to copy than to find pages for.
const LARGE: usize = 16 * 1024;
/// So many large pieces in a row are bulk.
const IN_A_ROW: u32 = 4;
/// After so many bytes the other connections of the thread have their turn: a fraction of a millisecond.
const TURN: usize = 2 * 1024 * 1024;
/// A receiver that takes nothing for this long gets what is in the pipe from memory: the pipe is for others.
const PATIENCE: Duration = Duration::from_secs(1);

/// Copies both ways until both sides have ended, as [`splice`](super::splice()) does.
///
/// # Errors
/// `TimedOut` when nothing moved for `idle`; else what a socket said.
pub async fn splice_sockets(
    client: Prefixed<TcpStream>,
    mut upstream: TcpStream,
    meter: &Meter,
    idle: Duration,
) -> io::Result<()> {
    let (opening, mut client) = client.into_parts();
    let (client_reads, client_writes) = client.split();
    let (upstream_reads, mut upstream_writes) = upstream.split();
    let up = async {
        if !opening.is_empty() {
            meter.note(&meter.up, opening.len());
            upstream_writes.write_all(&opening).await?;
        }
        drop(opening);
        let up = Direction::new(client_reads, upstream_writes, meter, &meter.up);
        up.run().await
    };
    let down = Direction::new(upstream_reads, client_writes, meter, &meter.down);
    tokio::select! {
        done = async { tokio::try_join!(up, down.run()) } => done.map(|_both| ()),
        () = meter.idle(idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// One of the two.
struct Direction<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    meter: &'a Meter,
    counter: &'a AtomicU64,
    /// Large pieces since the last small one.
    large: u32,
    /// Bytes since the others had their turn.
    turn: usize,
    /// Pages cannot be moved here.
    refused: bool,
}

impl<'a> Direction<'a> {
    fn new(
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        meter: &'a Meter,
        counter: &'a AtomicU64,
    ) -> Self {
        Self {
            from,
            to,
            meter,
            counter,
            large: 0,
            turn: 0,
            refused: false,
        }
    }

    /// To the end, which is passed on.
    async fn run(mut self) -> io::Result<()> {
        loop {
            let moved = match self.pipe() {
                Some(pipe) => self.move_pages(pipe).await?,
                None => Some(self.copy().await?),
            };
            match moved {
                Some(0) => return self.to.shutdown().await,
                Some(count) => self.pause(count).await,
                None => self.from.readable().await?,
            }
        }
    }

    fn pipe(&self) -> Option<Pipe> {
        let is_bulk = self.large >= IN_A_ROW && !self.refused;
        is_bulk.then(Pipe::take).flatten()
    }

    async fn copy(&mut self) -> io::Result<usize> {
        let bytes = self.read().await?;
        self.took(bytes.len());
        self.to.write_all(&bytes).await?;
        Ok(bytes.len())
    }

    /// What there is, once there is something; no memory is held until then.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        poll_fn(|cx| {
            ready!(self.from.as_ref().poll_read_ready(cx))?;
            let mut bytes = Vec::with_capacity(BUFFER);
            ready!(pin!(self.from.read_buf(&mut bytes)).poll(cx))?;
            Poll::Ready(Ok(bytes))
        })
        .await
    }

    /// `None`: nothing is there yet.
    async fn move_pages(&mut self, mut pipe: Pipe) -> io::Result<Option<usize>> {
        let from = self.from.as_ref();
        let mut bytes = Vec::new();
        let filled = match from.try_io(Interest::READABLE, || filled(&mut pipe, from, &mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipe.keep();
                return Ok(None);
            }
            Err(error) if is_refusal(&error) => {
                self.refused = true;
                return Ok(Some(self.copy().await?));
            }
            filled => filled?,
        };
        self.took(filled);
        if pipe.is_empty() {
            pipe.keep();
            self.large = 0;
            self.to.write_all(&bytes).await?;
        } else {
            self.drain(pipe).await?;
        }
        Ok(Some(filled))
    }

    async fn drain(&mut self, mut pipe: Pipe) -> io::Result<()> {
        let to = self.to.as_ref();
        while !pipe.is_empty() {
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(_some) => self.meter.note_motion(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Ok(ready) = timeout(PATIENCE, to.writable()).await {
                        ready?;
                        continue;
                    }
                    return self.write_out(pipe).await;
                }
                Err(error) if is_refusal(&error) => {
                    self.refused = true;
                    return self.write_out(pipe).await;
                }
                Err(error) => return Err(error),
            }
        }
        pipe.keep();
        Ok(())
    }

    async fn write_out(&mut self, mut pipe: Pipe) -> io::Result<()> {
        let bytes = pipe.empty()?;
        pipe.keep();
        self.to.write_all(&bytes).await
    }

    fn took(&mut self, count: usize) {
        self.meter.note(self.counter, count);
        self.large = if count < LARGE {
            0
        } else {
            self.large.saturating_add(1)
        };
    }

    async fn pause(&mut self, moved: usize) {
        self.turn += moved;
        if self.turn >= TURN {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// From a socket into a pipe, or into memory what stands there between pages: urgent data (RFC 6093) is a wall to
/// splice(2), which says "nothing yet" before it, or even "the end". Only read(2) is to be believed there, and it
/// goes on behind it.
fn filled(pipe: &mut Pipe, from: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    match pipe.fill(from) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(0) => {}
        filled => return filled,
    }
    let mut some = [0; 4096];
    let count = nix::unistd::read(from, &mut some)?;
    bytes.extend_from_slice(some.get(..count).unwrap_or_default());
    Ok(count)
}

#[cfg(test)]
mod tests;

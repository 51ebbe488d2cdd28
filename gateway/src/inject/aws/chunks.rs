//! Bodies of S3 that are signed chunk by chunk (`aws-chunked`): the sandbox's signatures are replaced by real
//! ones as the body passes. It refuses to know where keys come from.
//!
//! The framing stays as it was, byte for byte but for the signatures, so the length that the head announces
//! stays right. A chunk is held back until it is whole: its signature stands before it.

use super::super::{MAX_SIGNED_BODY, Room};
use crate::outcome::hyper_error::Error;
use crate::upstream::RequestBody;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::sign::v4::calculate_signature;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

/// `SIZE;chunk-signature=…`: sizes have eight digits at most, trailing headers are checksums.
const MAX_LINE: usize = 4096;
/// Trailing headers of one body; S3 knows one.
const MAX_TRAILERS: usize = 16;
/// Hexadecimal digits of a signature.
const SIGNATURE: usize = 64;
const CHUNK_EXTENSION: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature:";

/// Why a body is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChunkError {
    #[error("the body is not aws-chunked with a signature of 64 hexadecimal digits in each chunk")]
    Malformed,
    #[error("a signed chunk may have {} MiB at most", MAX_SIGNED_BODY / 1024 / 1024)]
    TooLarge,
    #[error("the body goes on after its last chunk")]
    GoesOn,
    #[error("the body ends before its last chunk")]
    BreaksOff,
    #[error("the gateway holds as much of the sandbox's bodies as it may")]
    NoRoom,
}

/// Signs one body's chunks, each by the one before ("Signature Calculations for the Authorization Header:
/// Transferring Payload in Multiple Chunks").
pub(super) struct Signer {
    key: Zeroizing<Vec<u8>>,
    date: String,
    scope: String,
    last: String,
}

impl Signer {
    /// `seed` is the signature of the head.
    pub(super) fn new(key: &[u8], date: &str, scope: &str, seed: String) -> Self {
        Self {
            key: Zeroizing::new(key.to_vec()),
            date: date.to_owned(),
            scope: scope.to_owned(),
            last: seed,
        }
    }

    fn chunk(&mut self, data: &[u8]) -> &str {
        let hashes = format!("{}\n{}", hash(b""), hash(data));
        self.sign("AWS4-HMAC-SHA256-PAYLOAD", &hashes)
    }

    fn trailer(&mut self, canonical: &[u8]) -> &str {
        self.sign("AWS4-HMAC-SHA256-TRAILER", &hash(canonical))
    }

    fn sign(&mut self, algorithm: &str, hashes: &str) -> &str {
        let Self {
            key,
            date,
            scope,
            last,
        } = self;
        let text = format!("{algorithm}\n{date}\n{scope}\n{last}\n{hashes}");
        *last = calculate_signature(&**key, text.as_bytes());
        last
    }
}

fn hash(data: &[u8]) -> String {
    let mut text = String::with_capacity(SIGNATURE);
    for byte in digest(&SHA256, data).as_ref() {
        // Writing to a string cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            break;
        }
    }
    text
}

/// Replaces signatures.
pub(super) struct Resigner {
    signer: Signer,
    trailer: bool,
    room: Room,
    /// As many bytes as are held.
    place: Option<OwnedSemaphorePermit>,
    held: BytesMut,
    state: State,
}

/// A chunk on its way, and its place among what is held.
struct Placed {
    data: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Placed {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// What can go, in order.
#[derive(Default)]
struct Ready {
    pieces: VecDeque<Bytes>,
    /// The last piece, while it grows.
    text: BytesMut,
}

impl Ready {
    fn put(&mut self, text: &[&str]) {
        for part in text {
            self.text.extend_from_slice(part.as_bytes());
        }
    }

    fn put_whole(&mut self, data: Bytes) {
        self.end();
        self.pieces.push_back(data);
    }

    fn end(&mut self) {
        if !self.text.is_empty() {
            self.pieces.push_back(self.text.split().freeze());
        }
    }
}

enum State {
    /// Before a chunk's first line.
    Chunk,
    /// In a chunk: its line up to the signature, and how much is to come with the line end after it.
    Data {
        head: String,
        size: usize,
    },
    /// After the last chunk's line; the canonical form of what has been read, and how many headers.
    Trailer {
        canonical: Vec<u8>,
        read: usize,
    },
    /// Before the empty line.
    End,
    Done,
}

impl Resigner {
    pub(super) fn new(signer: Signer, trailer: bool, room: Room) -> Self {
        Self {
            signer,
            trailer,
            room,
            place: None,
            held: BytesMut::new(),
            state: State::Chunk,
        }
    }

    /// Takes what comes and returns what can go.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<VecDeque<Bytes>, ChunkError> {
        let more = self.room.take(data.len()).ok_or(ChunkError::NoRoom)?;
        match &mut self.place {
            Some(place) => place.merge(more),
            none => *none = Some(more),
        }
        self.held.extend_from_slice(data);
        let mut out = Ready::default();
        while self.step(&mut out)? {}
        // Lines are gone as soon as they are read.
        let read = self
            .place
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        drop(self.leave(read.saturating_sub(self.held.len())));
        out.end();
        Ok(out.pieces)
    }

    /// A part of the place.
    fn leave(&mut self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.place.as_mut().and_then(|place| place.split(bytes))
    }

    /// Is it complete?
    pub(super) fn finish(&self) -> Result<(), ChunkError> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(ChunkError::BreaksOff),
        }
    }

    /// Says whether there may be more to do with what is held.
    fn step(&mut self, out: &mut Ready) -> Result<bool, ChunkError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Chunk => {
                let Some(line) = self.line()? else {
                    self.state = State::Chunk;
                    return Ok(false);
                };
                let (head, size) = chunk_line(&line)?;
                self.state = if size > 0 {
                    State::Data { head, size }
                } else {
                    self.put_signed(&head, 0, out);
                    if self.trailer {
                        let (canonical, read) = (Vec::new(), 0);
                        State::Trailer { canonical, read }
                    } else {
                        State::End
                    }
                };
            }
            State::Data { head, size } => {
                if self.held.len() < size + 2 {
                    self.state = State::Data { head, size };
                    return Ok(false);
                }
                if self.held.get(size..size + 2) != Some(b"\r\n") {
                    return Err(ChunkError::Malformed);
                }
                self.put_signed(&head, size, out);
                out.put_whole(Bytes::from_owner(Placed {
                    data: self.held.split_to(size + 2).freeze(),
                    _place: self.leave(size + 2),
                }));
                self.state = State::Chunk;
            }
            State::Trailer { canonical, read } => {
                let Some(line) = self.line()? else {
                    self.state = State::Trailer { canonical, read };
                    return Ok(false);
                };
                self.state = self.trailer_line(&line, canonical, read, out)?;
            }
            State::End => {
                let Some(line) = self.line()? else {
                    self.state = State::End;
                    return Ok(false);
                };
                if !line.is_empty() {
                    return Err(ChunkError::Malformed);
                }
                out.put(&["\r\n"]);
            }
            State::Done if self.held.is_empty() => return Ok(false),
            State::Done => return Err(ChunkError::GoesOn),
        }
        Ok(true)
    }

    fn put_signed(&mut self, head: &str, size: usize, out: &mut Ready) {
        let signature = self.signer.chunk(&self.held[..size]);
        out.put(&[head, signature, "\r\n"]);
    }

    /// Trailing headers, in the order sent, then their signature.
    fn trailer_line(
        &mut self,
        line: &str,
        mut canonical: Vec<u8>,
        read: usize,
        out: &mut Ready,
    ) -> Result<State, ChunkError> {
        if let Some(signature) = line.strip_prefix(TRAILER_SIGNATURE) {
            is_signature(signature)?;
            let signature = self.signer.trailer(&canonical);
            out.put(&[TRAILER_SIGNATURE, signature, "\r\n"]);
            return Ok(State::End);
        }
        let (name, value) = line.split_once(':').ok_or(ChunkError::Malformed)?;
        if read == MAX_TRAILERS || name.is_empty() {
            return Err(ChunkError::Malformed);
        }
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        canonical.extend_from_slice(format!("{name}:{value}\n").as_bytes());
        out.put(&[line, "\r\n"]);
        let read = read + 1;
        Ok(State::Trailer { canonical, read })
    }

    /// The next line without its end, if it is there.
    fn line(&mut self) -> Result<Option<String>, ChunkError> {
        let Some(end) = memchr::memmem::find(&self.held, b"\r\n") else {
            if self.held.len() > MAX_LINE {
                return Err(ChunkError::Malformed);
            }
            return Ok(None);
        };
        let line = self.held.split_to(end);
        self.held.advance(2);
        let visible = |byte: &u8| matches!(byte, b' '..=b'~');
        if line.len() > MAX_LINE || !line.iter().all(visible) {
            return Err(ChunkError::Malformed);
        }
        Ok(Some(line.iter().map(|byte| char::from(*byte)).collect()))
    }
}

/// What stands before the signature, and the chunk's size.
fn chunk_line(line: &str) -> Result<(String, usize), ChunkError> {
    let at = line.find(CHUNK_EXTENSION).ok_or(ChunkError::Malformed)?;
    let (size, rest) = line.split_at(at);
    is_signature(rest.strip_prefix(CHUNK_EXTENSION).unwrap_or_default())?;
    let digits = size.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || size.is_empty() {
        return Err(ChunkError::Malformed);
    }
    let bytes = usize::from_str_radix(size, 16).unwrap_or(usize::MAX);
    if bytes > MAX_SIGNED_BODY {
        return Err(ChunkError::TooLarge);
    }
    Ok((format!("{size}{CHUNK_EXTENSION}"), bytes))
}

/// Any 64 digits will do: they are replaced.
fn is_signature(text: &str) -> Result<(), ChunkError> {
    if text.len() == SIGNATURE && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(ChunkError::Malformed)
    }
}

/// A body whose chunks are signed as they pass.
pub(super) struct Chunked {
    body: RequestBody,
    resigner: Resigner,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Chunked {
    pub(super) fn new(body: RequestBody, signer: Signer, trailer: bool, room: Room) -> Self {
        Self {
            body,
            resigner: Resigner::new(signer, trailer, room),
            ready: VecDeque::new(),
            ended: false,
        }
    }
}

impl Body for Chunked {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.ended = true;
                    let complete = self.resigner.finish();
                    return Poll::Ready(complete.err().map(|error| Err(error.into())));
                }
            };
            // HTTP's own trailers are not part of what is signed, and end here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            match self.resigner.feed(&data) {
                Ok(signed) => self.ready = signed,
                Err(error) => {
                    self.ended = true;
                    tracing::info!(%error, "body that has to be signed");
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }

    /// Signatures are as long as those that they replace.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;

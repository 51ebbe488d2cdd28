//! Bodies of S3 that are signed chunk by chunk (`aws-chunked`): the sandbox's signatures are replaced by real
//! ones as the body passes. It refuses to know where keys come from.
//!
//! The framing stays as it was, byte for byte but for the signatures, so the length that the head announces
//! stays right. A chunk is held back until it is whole: its signature stands before it.

use super::super::MAX_SIGNED_BODY;
use crate::outcome::hyper_error::Error;
use crate::upstream::RequestBody;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::sign::v4::calculate_signature;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
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
    held: BytesMut,
    state: State,
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
    pub(super) fn new(signer: Signer, trailer: bool) -> Self {
        Self {
            signer,
            trailer,
            held: BytesMut::new(),
            state: State::Chunk,
        }
    }

    /// Takes what comes and returns what can go.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<Bytes, ChunkError> {
        self.held.extend_from_slice(data);
        let mut out = BytesMut::new();
        while self.step(&mut out)? {}
        Ok(out.freeze())
    }

    /// Is it complete?
    pub(super) fn finish(&self) -> Result<(), ChunkError> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(ChunkError::BreaksOff),
        }
    }

    /// Says whether there may be more to do with what is held.
    fn step(&mut self, out: &mut BytesMut) -> Result<bool, ChunkError> {
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
                out.extend_from_slice(&self.held[..size + 2]);
                self.held.advance(size + 2);
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
                out.extend_from_slice(b"\r\n");
            }
            State::Done if self.held.is_empty() => return Ok(false),
            State::Done => return Err(ChunkError::GoesOn),
        }
        Ok(true)
    }

    fn put_signed(&mut self, head: &str, size: usize, out: &mut BytesMut) {
        let signature = self.signer.chunk(&self.held[..size]);
        for part in [head, signature, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Trailing headers, in the order sent, then their signature.
    fn trailer_line(
        &mut self,
        line: &str,
        mut canonical: Vec<u8>,
        read: usize,
        out: &mut BytesMut,
    ) -> Result<State, ChunkError> {
        if let Some(signature) = line.strip_prefix(TRAILER_SIGNATURE) {
            is_signature(signature)?;
            let signature = self.signer.trailer(&canonical);
            for part in [TRAILER_SIGNATURE, signature, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
            return Ok(State::End);
        }
        let (name, value) = line.split_once(':').ok_or(ChunkError::Malformed)?;
        if read == MAX_TRAILERS || name.is_empty() {
            return Err(ChunkError::Malformed);
        }
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        canonical.extend_from_slice(format!("{name}:{value}\n").as_bytes());
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
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
    ended: bool,
}

impl Chunked {
    pub(super) fn new(body: RequestBody, signer: Signer, trailer: bool) -> Self {
        Self {
            body,
            resigner: Resigner::new(signer, trailer),
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
        while !self.ended {
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
                Ok(signed) if signed.is_empty() => {}
                Ok(signed) => return Poll::Ready(Some(Ok(Frame::data(signed)))),
                Err(error) => {
                    self.ended = true;
                    tracing::info!(%error, "body that has to be signed");
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        Poll::Ready(None)
    }

    /// Signatures are as long as those that they replace.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;

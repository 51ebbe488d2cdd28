//! Response bodies: whole, from a channel, or made up while they are read. It refuses to know what
//! they say.

use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, SizeHint};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::digest::Sha256;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// `data` in one piece.
pub fn whole(data: impl Into<Bytes>) -> Body {
    Full::new(data.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer with a JSON document.
pub fn json(status: StatusCode, value: &Value) -> Response<Body> {
    typed(status, "application/json", value.to_string())
}

/// An answer of `content_type`.
pub fn typed(status: StatusCode, content_type: &str, data: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(data));
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

/// An answer without content type: a status and a word.
pub fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response
}

/// The writing end of a streamed body: dropping it ends the body, [`Writer::fail`] breaks it off.
pub struct Writer(mpsc::Sender<Result<Frame<Bytes>, io::Error>>);

impl Writer {
    /// Sends one piece; false if the reader has gone.
    pub async fn data(&self, data: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(data.into()))).await.is_ok()
    }

    /// Ends with `trailers`.
    pub async fn trailers(self, trailers: HeaderMap) -> bool {
        self.0.send(Ok(Frame::trailers(trailers))).await.is_ok()
    }

    /// Breaks the body off in its middle.
    pub async fn fail(self) -> bool {
        self.0
            .send(Err(io::ErrorKind::ConnectionReset.into()))
            .await
            .is_ok()
    }
}

/// A body written piece by piece; one piece waits at most, so that the writer feels the reader.
pub fn streamed() -> (Writer, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (Writer(sender), Channel(receiver).boxed_unsync())
}

/// `length` bytes with a known pattern (see [`pattern`]), made while they are read.
pub fn generated(length: u64) -> Body {
    Generated { at: 0, length }.boxed_unsync()
}

/// The byte at `offset` of a generated body: a period that no power of two divides.
pub fn pattern(offset: u64) -> u8 {
    u8::try_from(offset % PERIOD).unwrap_or_default()
}

/// The SHA-256 of a generated body, in hexadecimal.
pub fn digest(length: u64) -> String {
    let mut digest = Sha256::new();
    let mut body = Generated { at: 0, length };
    while let Some(piece) = body.piece() {
        digest.update(&piece);
    }
    digest.finish()
}

struct Channel(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context)
    }
}

/// See [`pattern`].
const PERIOD: u64 = 251;
/// What a generated body gives at once.
const PIECE: u64 = 64 * 1024;

/// Enough of the pattern to cut a piece from, wherever in its period that begins: a byte at a time, a long body would take
/// an emulated machine minutes.
static SAMPLE: LazyLock<Bytes> = LazyLock::new(|| (0..PERIOD + PIECE).map(pattern).collect());

struct Generated {
    at: u64,
    length: u64,
}

impl Generated {
    fn piece(&mut self) -> Option<Bytes> {
        let end = self.length.min(self.at + PIECE);
        let start = usize::try_from(self.at % PERIOD).ok()?;
        let length = usize::try_from(end - self.at).ok()?;
        self.at = end;
        (length > 0).then(|| SAMPLE.slice(start..start + length))
    }
}

impl hyper::body::Body for Generated {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(self.piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_pattern_across_their_borders() {
        for length in [0, 1, PERIOD, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let mut body = Generated { at: 0, length };
            let mut whole = Vec::new();
            while let Some(piece) = body.piece() {
                whole.extend_from_slice(&piece);
            }
            let expected: Vec<u8> = (0..length).map(pattern).collect();
            assert!(whole == expected, "{length}");
            assert_eq!(digest(length), crate::digest::sha256(&expected));
        }
    }
}

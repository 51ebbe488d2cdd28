//! What an HTTP/2 server writes, read for its refusals: the library resets a malformed stream by itself
//! (RFC 9113 §8.1.1) and tells nobody else. Knows frame headers and error codes, and no other payload.

use std::collections::BTreeSet;

/// The length of a frame header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// Of a payload: the stream that a GOAWAY names, and an error code.
const KEPT: usize = 8;
/// Frame types (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// The flag that ends a stream's direction.
const END_STREAM: u8 = 1;
/// Refusals told of one connection: the peer could cause as many as it likes.
const MAX_TOLD: usize = 64;
/// Streams remembered as being answered. A server has fewer open at once; what is beyond was reset by the client,
/// which the server's own frames do not show.
const MAX_ANSWERING: usize = 1024;

/// A stream or connection that the server ended because of what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stream; 0 for the whole connection.
    pub stream: u32,
    /// The error code.
    pub code: u32,
}

impl Refusal {
    /// Stands where an error code would for the answer that the library gives to a head that is too
    /// large: 431, and no reset.
    const TOO_LARGE: u32 = u32::MAX;

    /// The code's name, if it says that the client broke a rule (RFC 9113 §7).
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self.code {
            1 => "PROTOCOL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            Self::TOO_LARGE => "431, its fields being too large",
            _ => return None,
        })
    }
}

/// Follows the frames that are written.
#[derive(Debug, Default)]
pub struct FrameWatch {
    header: [u8; HEADER],
    read: usize,
    payload: [u8; KEPT],
    kept: usize,
    left: usize,
    told: usize,
    /// Streams whose response has begun and not ended; and how many have begun.
    answering: BTreeSet<u32>,
    /// The latest of those forgotten while they seemed open; 0 for none.
    forgotten: u32,
    answers: u64,
    own_answers: u64,
}

impl FrameWatch {
    /// Takes bytes as they are written; `tell` learns of each refusal among them.
    pub fn written(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(Refusal)) {
        while !bytes.is_empty() {
            if self.read < HEADER {
                let (now, later) = bytes.split_at(bytes.len().min(HEADER - self.read));
                if let Some(place) = self.header.get_mut(self.read..self.read + now.len()) {
                    place.copy_from_slice(now);
                }
                self.read += now.len();
                bytes = later;
                if self.read < HEADER {
                    return;
                }
                let [a, b, c, ..] = self.header;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.kept = 0;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.left));
            let room = now.get(..KEPT - self.kept).unwrap_or(now);
            if let Some(place) = self.payload.get_mut(self.kept..self.kept + room.len()) {
                place.copy_from_slice(room);
            }
            self.kept += room.len();
            self.left -= now.len();
            bytes = later;
            if self.left == 0 {
                self.read = 0;
                self.frame(tell);
            }
        }
    }

    /// Tells of answers beyond the `requests` that anybody has been given to answer.
    pub fn compare(&mut self, requests: u64, tell: &mut dyn FnMut(Refusal)) {
        while self.answers > requests + self.own_answers {
            self.own_answers += 1;
            self.tell(
                Refusal {
                    stream: 0,
                    code: Refusal::TOO_LARGE,
                },
                tell,
            );
        }
    }

    fn frame(&mut self, tell: &mut dyn FnMut(Refusal)) {
        let [_, _, _, kind, flags, stream @ ..] = self.header;
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        let ends = flags & END_STREAM != 0;
        if kind == HEADERS {
            self.begin(stream, ends);
        }
        if kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && ends) {
            self.answering.remove(&stream);
        }
        let [a @ .., e, f, g, h] = self.payload;
        let refusal = match (kind, self.kept) {
            (RST_STREAM, 4) => Refusal {
                stream,
                code: u32::from_be_bytes(a),
            },
            (GOAWAY, KEPT) => Refusal {
                stream: 0,
                code: u32::from_be_bytes([e, f, g, h]),
            },
            _ => return,
        };
        if refusal.name().is_some() {
            self.tell(refusal, tell);
        }
    }

    fn begin(&mut self, stream: u32, ends: bool) {
        // On a stream as old as that, the end of its fields is that of an answer that was counted.
        let trailers = ends && stream <= self.forgotten;
        if trailers || !self.answering.insert(stream) {
            return;
        }
        self.answers += 1;
        if self.answering.len() > MAX_ANSWERING
            && let Some(oldest) = self.answering.pop_first()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
    }

    fn tell(&mut self, refusal: Refusal, tell: &mut dyn FnMut(Refusal)) {
        if self.told < MAX_TOLD {
            self.told += 1;
            tell(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(stream: u32, flags: u8) -> [u8; HEADER] {
        let [a, b, c, d] = stream.to_be_bytes();
        [0, 0, 0, HEADERS, flags, a, b, c, d]
    }

    #[test]
    fn answers_that_never_end_are_forgotten_and_a_late_end_is_no_second_answer() {
        let mut watch = FrameWatch::default();
        let mut told = Vec::new();
        let mut tell = |refusal| told.push(refusal);
        let mut requests = 0;
        for stream in (1..400_000).step_by(2) {
            watch.written(&headers(stream, 0), &mut tell);
            requests += 1;
            watch.compare(requests, &mut tell);
            assert!(watch.answering.len() <= MAX_ANSWERING);
        }
        // A stream that was open all along ends in trailers.
        watch.written(&headers(1, END_STREAM), &mut tell);
        watch.compare(requests, &mut tell);
        // And an answer that nobody was asked for is still one.
        watch.written(&headers(400_001, END_STREAM), &mut tell);
        watch.compare(requests, &mut tell);
        let own = Refusal {
            stream: 0,
            code: Refusal::TOO_LARGE,
        };
        assert_eq!(told, [own]);
    }
}

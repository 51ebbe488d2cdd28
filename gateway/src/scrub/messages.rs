//! Where messages end in bodies that are made of messages, each with its length in front: what a server has said whole
//! needs not wait for what it says next. It refuses to know what is in them.

use crc32fast::Hasher;
use http::header::{CONTENT_TYPE, HeaderMap};

/// How a message says its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A flag, then the length of what follows: gRPC ("Length-Prefixed-Message" of its protocol over HTTP/2), gRPC-Web
    /// and the streams of Connect ("Enveloped-Message").
    Enveloped,
    /// The length of all of it, first thing: AWS's event streams (the prelude of `vnd.amazon.eventstream`).
    Prelude,
}

impl Format {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (kind, subtype) = value.split(';').next()?.trim().split_once('/')?;
        let subtype = subtype.split('+').next()?;
        let is = |name: &&str| subtype.eq_ignore_ascii_case(name);
        if !kind.eq_ignore_ascii_case("application") {
            None
        } else if is(&"vnd.amazon.eventstream") {
            Some(Self::Prelude)
        } else {
            let enveloped = ["grpc", "grpc-web", "connect"].iter().any(is);
            enveloped.then_some(Self::Enveloped)
        }
    }

    /// Bytes up to the end of the length.
    fn head(self) -> usize {
        match self {
            Self::Enveloped => 5,
            Self::Prelude => 4,
        }
    }

    /// Bytes that follow those, of a message that begins with `flag` and is of this length. One that cannot be never
    /// ends: it is another kind of text under a wrong name.
    fn rest(self, flag: u8, length: u32) -> u64 {
        let rest = match self {
            Self::Enveloped => (flag & !FLAGS == 0).then_some(length.into()),
            Self::Prelude => length
                .checked_sub(4)
                .filter(|rest| *rest >= LEAST)
                .map(u64::from),
        };
        rest.unwrap_or(u64::MAX)
    }
}

/// Of an envelope: compressed (all three), the stream's end (Connect), trailers (gRPC-Web).
const FLAGS: u8 = 0x83;

/// What follows the length of an event: another length, two checksums.
const LEAST: u32 = 12;

/// The checksum of an event (CRC-32), which is its last four bytes. An event that ends in the middle of what its author
/// does not know has a wrong one.
#[derive(Debug, Default)]
struct Sum {
    of: Hasher,
    told: u32,
}

impl Sum {
    /// `piece` of the event, of which so many bytes are `left` with it.
    fn add(&mut self, piece: &[u8], left: u64) {
        let covered = usize::try_from(left.saturating_sub(4)).unwrap_or(usize::MAX);
        let (covered, told) = piece.split_at(covered.min(piece.len()));
        self.of.update(covered);
        for byte in told {
            self.told = self.told << 8 | u32::from(*byte);
        }
    }

    fn is_right(&mut self) -> bool {
        let Self { of, told } = std::mem::take(self);
        of.finalize() == told
    }
}

/// Follows one body.
#[derive(Debug)]
pub(super) struct Messages {
    format: Format,
    /// Of the next message's head: how many bytes have come, the first and the last four of them.
    head: usize,
    flag: u8,
    length: u32,
    /// Of the message that is under way.
    left: u64,
    sum: Sum,
}

impl Messages {
    /// By the head of the response; `None` of a body of another kind.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Format::of(headers).map(|format| Self {
            format,
            head: 0,
            flag: 0,
            length: 0,
            left: 0,
            sum: Sum::default(),
        })
    }

    /// Takes what comes next, and says how much of it belongs to messages that are whole.
    pub(super) fn feed(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        let mut whole = 0;
        while let Some(byte) = data.get(at) {
            if self.head < self.format.head() {
                if self.head == 0 {
                    self.flag = *byte;
                }
                self.head += 1;
                self.length = self.length << 8 | u32::from(*byte);
                at += 1;
                if self.head == self.format.head() {
                    self.left = self.format.rest(self.flag, self.length);
                    if self.format == Format::Prelude {
                        self.sum.of.update(&self.length.to_be_bytes());
                    }
                }
            } else {
                let there = data.len() - at;
                let taken = usize::try_from(self.left).map_or(there, |left| left.min(there));
                if self.format == Format::Prelude {
                    self.sum
                        .add(data.get(at..at + taken).unwrap_or_default(), self.left);
                }
                at += taken;
                self.left -= u64::try_from(taken).unwrap_or(self.left);
            }
            if self.head == self.format.head() && self.left == 0 {
                if self.format == Format::Prelude && !self.sum.is_right() {
                    self.left = u64::MAX;
                    continue;
                }
                self.head = 0;
                self.length = 0;
                whole = at;
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(content_type: &'static str) -> Option<Messages> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Messages::of(&headers)
    }

    /// An event with so many bytes of headers and payload.
    fn event(length: usize) -> Vec<u8> {
        let mut event = u32::try_from(length + 16).unwrap().to_be_bytes().to_vec();
        event.extend_from_slice(&[0; 4]);
        event.extend_from_slice(&crc32fast::hash(&event).to_be_bytes());
        event.resize(event.len() + length, b'x');
        event.extend_from_slice(&crc32fast::hash(&event).to_be_bytes());
        event
    }

    #[test]
    fn an_event_with_a_wrong_checksum_is_none() {
        let mut events = [event(10), event(10)].concat();
        let mut messages = of("application/vnd.amazon.eventstream").unwrap();
        assert_eq!(messages.feed(&events), events.len());
        events[14] ^= 1;
        let mut messages = of("application/vnd.amazon.eventstream").unwrap();
        assert_eq!(messages.feed(&events), 0);
    }

    #[test]
    fn only_bodies_of_messages_are_followed() {
        for (content_type, expected) in [
            ("application/grpc", Some(Format::Enveloped)),
            ("application/grpc+proto", Some(Format::Enveloped)),
            ("application/gRPC-web+json; v=1", Some(Format::Enveloped)),
            ("application/connect+proto", Some(Format::Enveloped)),
            ("application/vnd.amazon.eventstream", Some(Format::Prelude)),
            ("application/grpcx", None),
            ("application/connection", None),
            ("application/octet-stream", None),
            ("text/grpc", None),
        ] {
            let format = of(content_type).map(|messages| messages.format);
            assert_eq!(format, expected, "{content_type}");
        }
        assert!(Messages::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_message_that_cannot_be_never_ends() {
        let mut messages = of("application/vnd.amazon.eventstream").unwrap();
        assert_eq!(messages.feed(&[0, 0, 0, 3, 1, 2, 3, 4, 5, 6]), 0);
        assert_eq!(messages.feed(&[0; 64]), 0);
        let mut messages = of("application/grpc").unwrap();
        assert_eq!(messages.feed(b"{\0\0\0\x01x\0\0\0\0\x01x"), 0);
    }

    proptest! {
        #[test]
        fn each_end_is_seen_however_the_body_is_cut(
            lengths in prop::collection::vec(0..70_usize, 1..8),
            cuts in prop::collection::vec(1..40_usize, 1..20),
            prelude in any::<bool>(),
        ) {
            let mut body = Vec::new();
            let mut ends = vec![0];
            for length in lengths {
                if prelude {
                    body.extend_from_slice(&event(length));
                } else {
                    body.push(1);
                    body.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
                    body.resize(body.len() + length, b'x');
                }
                ends.push(body.len());
            }
            let content_type = if prelude { "application/vnd.amazon.eventstream" } else { "application/grpc" };
            let mut messages = of(content_type).unwrap();
            let (mut at, mut seen) = (0, 0);
            for cut in cuts.iter().cycle() {
                let next = (at + cut).min(body.len());
                let whole = messages.feed(&body[at..next]);
                if whole > 0 {
                    seen = at + whole;
                }
                prop_assert_eq!(seen, *ends.iter().rfind(|end| **end <= next).unwrap());
                at = next;
                if at == body.len() {
                    break;
                }
            }
        }
    }
}

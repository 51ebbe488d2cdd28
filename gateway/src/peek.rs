//! Reads just enough of a connection to know what it speaks: bounded in bytes and in time, and
//! nothing is lost for the stage that follows.

use crate::outcome::DenyReason;
use crate::sniff::{MAX_SNIFF, Progress, Sniffed, Sniffer};
use crate::stream::Prefixed;
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// The whole sniff. Clients are on this machine: more than a moment means that they have nothing to say.
const DEADLINE: Duration = Duration::from_secs(10);
/// Where opaque traffic may pass at all, a client that says nothing for this long waits for the
/// server to speak first (SMTP, MySQL).
const SERVER_FIRST: Duration = Duration::from_millis(300);
/// Most openings fit: a ClientHello with a post-quantum key share is about 1.8 KiB.
const FIRST_READ: usize = 4096;

/// What came of it.
pub enum Peeked<S> {
    /// Known; the stream starts from the beginning again.
    Sniffed(Sniffed, Prefixed<S>),
    /// To be denied.
    Denied {
        /// Why.
        reason: DenyReason,
        /// What exactly, for people.
        detail: Option<String>,
        /// The connection, where what came is HTTP/1, so that it can be told.
        http: Option<S>,
    },
    /// The client left before saying anything.
    Gone,
}

/// Reads until the opening is understood.
pub async fn peek<S: AsyncRead + Unpin>(mut stream: S, opaque_allowed: bool) -> Peeked<S> {
    let deadline = Instant::now() + DEADLINE;
    let patience = Instant::now() + SERVER_FIRST;
    let mut sniffer = Sniffer::default();
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    loop {
        let silent = buffer.is_empty() && opaque_allowed;
        let until = if silent { patience } else { deadline };
        match timeout_at(until, stream.read_buf(&mut buffer)).await {
            Err(_elapsed) if silent => {
                let stream = Prefixed::new(buffer.freeze(), stream);
                return Peeked::Sniffed(Sniffed::Opaque, stream);
            }
            Err(_elapsed) => {
                return Peeked::Denied {
                    reason: DenyReason::SniffTimeout,
                    detail: Some(format!("{} bytes in {DEADLINE:?}", buffer.len())),
                    http: None,
                };
            }
            Ok(Ok(0)) if buffer.is_empty() => return Peeked::Gone,
            Ok(Ok(0)) => {
                return Peeked::Denied {
                    reason: DenyReason::Malformed,
                    detail: Some("the opening is cut off".to_owned()),
                    http: None,
                };
            }
            Ok(Ok(_)) => {}
            Ok(Err(_reset)) => return Peeked::Gone,
        }
        match sniffer.advance(&buffer) {
            Progress::Done(sniffed) => {
                return Peeked::Sniffed(sniffed, Prefixed::new(buffer.freeze(), stream));
            }
            Progress::Malformed(error) => {
                return Peeked::Denied {
                    reason: DenyReason::Malformed,
                    detail: Some(error.to_string()),
                    http: error.is_about_http().then_some(stream),
                };
            }
            Progress::NeedMore if buffer.len() >= MAX_SNIFF => {
                return Peeked::Denied {
                    reason: DenyReason::Malformed,
                    detail: Some(format!("not understood within {MAX_SNIFF} bytes")),
                    http: None,
                };
            }
            Progress::NeedMore => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn one_byte_at_a_time_is_understood_and_nothing_is_lost() {
        let (mut client, server) = tokio::io::duplex(1);
        let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\nbody";
        let writer = tokio::spawn(async move {
            for byte in request {
                client.write_all(&[*byte]).await.unwrap();
            }
        });
        let Peeked::Sniffed(Sniffed::Http1(_), mut stream) = peek(server, false).await else {
            panic!("not HTTP");
        };
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        assert_eq!(all, request);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_timed_out_or_waits_for_the_server() {
        let (_client, server) = tokio::io::duplex(64);
        let Peeked::Denied { reason, .. } = peek(server, false).await else {
            panic!("not denied");
        };
        assert_eq!(reason, DenyReason::SniffTimeout);
        let (_client, server) = tokio::io::duplex(64);
        assert!(matches!(
            peek(server, true).await,
            Peeked::Sniffed(Sniffed::Opaque, _)
        ));
    }

    #[tokio::test]
    async fn only_what_is_http_can_be_told_so() {
        for (opening, told) in [
            (&b"GET / HTTP/1.1\n"[..], true),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", true),
            (b"\x16\x03\x01\x00\x00", false),
        ] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(opening).await.unwrap();
            let Peeked::Denied { http, .. } = peek(server, false).await else {
                panic!("not denied: {opening:?}");
            };
            assert_eq!(http.is_some(), told, "{opening:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_loris_is_timed_out() {
        let (mut client, server) = tokio::io::duplex(64);
        tokio::spawn(async move {
            while client.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let started = Instant::now();
        assert!(matches!(peek(server, true).await, Peeked::Denied { .. }));
        assert!(started.elapsed() <= DEADLINE + Duration::from_secs(1));
    }
}

//! Tests of the classification as a whole; TLS and HTTP have a file each. Knows nothing of sockets either.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;

mod fuzzed;
mod hello;
mod http;

/// Every proper prefix of `opening` needs more; the whole is `expected`, and so is the whole with anything after it.
fn decided_by_the_last_byte(opening: &[u8], expected: &Progress) {
    let mut sniffer = Sniffer::default();
    for len in 0..opening.len() {
        let prefix = &opening[..len];
        assert_eq!(
            sniff(prefix),
            Progress::NeedMore,
            "{}",
            prefix.escape_ascii()
        );
        assert_eq!(sniffer.advance(prefix), Progress::NeedMore);
    }
    assert_eq!(&sniff(opening), expected, "{}", opening.escape_ascii());
    assert_eq!(&sniffer.advance(opening), expected);
    for tail in [
        &b"\0"[..],
        b"\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 0, 0],
    ] {
        let longer = [opening, tail].concat();
        assert_eq!(&sniff(&longer), expected);
        assert_eq!(&sniffer.advance(&longer), expected);
    }
}

fn malformed(error: SniffError) -> Progress {
    Progress::Malformed(error)
}

#[test]
fn http2_is_told_by_its_whole_preface() {
    decided_by_the_last_byte(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &Progress::Done(Sniffed::Http2Preface),
    );
}

#[test]
fn something_that_only_begins_like_the_preface_is_not_http2() {
    assert_eq!(
        sniff(b"PRI * HTTP/2.0\r\n\r\nSN"),
        malformed(SniffError::HttpVersion)
    );
    assert_eq!(sniff(b"PRI * HTTP/2.1"), malformed(SniffError::HttpVersion));
    assert!(matches!(
        sniff(b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n"),
        Progress::Done(Sniffed::Http1(_))
    ));
}

#[test]
fn what_cannot_be_a_known_protocol_is_opaque_at_the_first_byte_that_proves_it() {
    let openings: &[&[u8]] = &[
        b"SSH-",              // SSH
        b"\0",                // many binary protocols
        b"\x16\x02",          // handshake of no TLS
        b"\x80",              // SSL 2.0
        b"\x13",              // BitTorrent
        b"*3\r",              // Redis
        b"\x10",              // MQTT
        b"PING\r",            // IRC, NATS, Redis inline
        b"EHLO mail\r",       // SMTP
        b"set key 0",         // memcached
        b"CONNECT {\"a\": 1", // NATS
        b" ",                 // no method
        b"GET  ",             // no target
        b"GET /\r",           // HTTP/0.9
        b"GET /\n",
        b"GET / HTTQ",
        b"GET / h",
        b"GET\t",
        b"\r",
        b"\xef", // a byte order mark
    ];
    for opening in openings {
        decided_by_the_last_byte(opening, &Progress::Done(Sniffed::Opaque));
    }
}

#[test]
fn a_method_may_have_32_bytes_and_no_more() {
    let method = "M".repeat(MAX_METHOD);
    let longest = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        matches!(sniff(longest.as_bytes()), Progress::Done(Sniffed::Http1(head)) if head.method == method)
    );
    decided_by_the_last_byte(
        format!("{method}M").as_bytes(),
        &Progress::Done(Sniffed::Opaque),
    );
}

#[test]
fn nothing_is_read_beyond_the_limit() {
    let head = |len: usize| {
        let fixed = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(len - fixed)
        )
        .into_bytes()
    };
    assert!(matches!(
        sniff(&head(MAX_SNIFF)),
        Progress::Done(Sniffed::Http1(_))
    ));
    let long = head(MAX_SNIFF + 1);
    assert_eq!(sniff(&long[..MAX_SNIFF - 1]), Progress::NeedMore);
    assert_eq!(sniff(&long[..MAX_SNIFF]), malformed(SniffError::TooLong));
    assert_eq!(sniff(&long), malformed(SniffError::TooLong));
    assert_eq!(
        sniff(&[b"GET /", "x".repeat(MAX_SNIFF).as_bytes()].concat()),
        malformed(SniffError::TooLong)
    );
}

/// Openings that come near the interesting states more often than random bytes do.
fn openings() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        prop::sample::select(vec![
            &b"GET "[..],
            b"CONNECT ",
            b"http://a:80",
            b"/",
            b"*",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b"Host: a\r\n",
            b"Host: b\r\n",
            b"X: y\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b":",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH",
            b"-2.0",
            b"\x16\x03\x01",
            b"\x00\x01\x01",
            b"\x00\x10",
            b"\xff",
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let mutated = (
        hello::hellos(),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    )
        .prop_map(|(mut bytes, changes)| {
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            bytes
        });
    prop_oneof![pieces, mutated]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_never_changes_and_pieces_make_no_difference(bytes in openings(), cut in any::<prop::sample::Index>()) {
        let whole = sniff(&bytes);
        let first = &bytes[..cut.index(bytes.len() + 1)];
        let early = sniff(first);
        if early != Progress::NeedMore {
            prop_assert_eq!(&early, &whole);
        }
        let mut sniffer = Sniffer::default();
        prop_assert_eq!(sniffer.advance(first), early);
        prop_assert_eq!(sniffer.advance(&bytes), whole.clone());
        let mut sniffer = Sniffer::default();
        let mut last = Progress::NeedMore;
        for len in 0..=bytes.len() {
            last = sniffer.advance(&bytes[..len]);
        }
        prop_assert_eq!(last, whole);
    }
}

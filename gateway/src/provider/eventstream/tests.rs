//! Event streams at every cut, damaged at every bit, and at the limits.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;

/// Written by hand from the specification: one header, `:event-type` = `a`, and the payload `{}`.
const KNOWN: &[u8] = b"\0\0\0\x22\0\0\0\x10";

fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    encode(
        &[(":message-type", "event"), (":event-type", name)],
        payload,
    )
    .unwrap()
}

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Option<String>, Vec<u8>)> {
    let (mut reader, mut read) = (Reader::default(), Vec::new());
    for chunk in chunks {
        reader.feed(chunk, &mut |message| {
            read.push((message.event.map(str::to_owned), message.payload.to_vec()));
        });
    }
    read
}

#[test]
fn the_lengths_and_checksums_are_those_of_the_specification() {
    let message = encode(&[(":event-type", "a")], b"{}").unwrap();
    assert_eq!(&message[..8], KNOWN);
    assert_eq!(&message[12..28], b"\x0b:event-type\x07\0\x01a");
    assert_eq!(message.len(), 34);
    // An empty message: the example of the specification.
    let empty = b"\0\0\0\x10\0\0\0\0\x05\xc2\x48\xeb\x7d\x98\xc8\xff";
    assert_eq!(encode(&[], b"").unwrap(), empty);
    assert!(matches!(parse(empty), Ok(Some(Parsed::Message(_, 16)))));
}

#[test]
fn messages_are_told_apart_at_every_cut() {
    let stream = [
        event("one", b"{\"a\":1}"),
        event("two", b""),
        event("three", &[7; 3000]),
    ]
    .concat();
    let expected = [
        (Some("one".to_owned()), b"{\"a\":1}".to_vec()),
        (Some("two".to_owned()), Vec::new()),
        (Some("three".to_owned()), vec![7; 3000]),
    ];
    assert_eq!(read([&stream[..]]), expected);
    assert_eq!(read(stream.chunks(1)), expected);
    for at in 0..stream.len() {
        let (first, second) = stream.split_at(at);
        assert_eq!(read([first, second]), expected, "{at}");
    }
}

#[test]
fn a_damaged_message_ends_the_reading() {
    let (message, next) = (event("one", b"{\"a\":1}"), event("two", b"{}"));
    for bit in 0..message.len() * 8 {
        let mut damaged = message.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let stream = [damaged, next.clone()].concat();
        assert_eq!(read([&stream[..]]), [], "{bit}");
    }
}

#[test]
fn a_long_message_is_skipped_and_an_impossible_one_refused() {
    let overhead = event("image", b"").len();
    let longest = event("image", &vec![1; MAX_MESSAGE - overhead]);
    assert_eq!(longest.len(), MAX_MESSAGE);
    let longer = event("image", &vec![1; MAX_MESSAGE - overhead + 1]);
    let stream = [longer, longest, event("end", b"{}")].concat();
    let names: Vec<_> = read(stream.chunks(60_000))
        .into_iter()
        .map(|(name, _)| name.unwrap())
        .collect();
    assert_eq!(names, ["image", "end"]);
    for (total, headers) in [(15_u32, 0_u32), (16, 1), (300_000, 131_073), (u32::MAX, 0)] {
        let mut prelude = [total.to_be_bytes(), headers.to_be_bytes()].concat();
        let sum = checksum(&prelude);
        prelude.extend_from_slice(&sum.to_be_bytes());
        assert_eq!(parse(&prelude), Err(Malformed::Length), "{total} {headers}");
    }
}

#[test]
fn headers_of_every_type_are_passed_over() {
    let mut headers = Vec::new();
    for (kind, value) in [
        (0_u8, &b""[..]),
        (1, b""),
        (2, b"1"),
        (3, b"12"),
        (4, b"1234"),
        (5, b"12345678"),
        (6, b"\0\x03abc"),
        (8, b"12345678"),
        (9, b"1234567812345678"),
    ] {
        headers.extend_from_slice(&[1, b'h', kind]);
        headers.extend_from_slice(value);
    }
    headers.extend_from_slice(b"\x0b:event-type\x07\0\x01a");
    let mut message = Message {
        kind: None,
        event: None,
        payload: b"",
    };
    read_headers(&headers, &mut message).unwrap();
    assert_eq!(message.event, Some("a"));
    for end in 1..headers.len() {
        // Cut in the middle of a header, or between two: never beyond the end.
        let mut cut = message;
        let read = read_headers(&headers[..end], &mut cut);
        assert!(read.is_ok() || read == Err(Malformed::Header));
    }
    assert_eq!(
        read_headers(b"\x01h\x0a", &mut message),
        Err(Malformed::Header)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_cuts_make_no_difference(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 1usize..50) {
        let stream = [event("one", b"1"), bytes].concat();
        prop_assert_eq!(read(stream.chunks(size)), read([&stream[..]]));
    }
}

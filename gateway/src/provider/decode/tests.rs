//! Content codings: what was encoded comes out, at any cut, up to the limit. Knows the encoders of the same crates.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    encoder.write_all(plain).unwrap();
    encoder.into_inner()
}

fn decoded(coding: &str, limit: u64, chunks: &[&[u8]]) -> Vec<u8> {
    let mut decoder = Decoder::with_limit(Some(coding), limit).unwrap();
    let mut plain = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk, &mut |bytes| plain.extend_from_slice(bytes));
    }
    plain
}

fn codings(plain: &[u8]) -> [(&'static str, Vec<u8>); 8] {
    [
        ("identity", plain.to_vec()),
        ("", plain.to_vec()),
        ("gzip", gzip(plain)),
        ("X-GZip", gzip(plain)),
        (" deflate ", zlib(plain)),
        ("deflate", deflate(plain)),
        ("br", brotli(plain)),
        ("zstd", ::zstd::encode_all(plain, 3).unwrap()),
    ]
}

#[test]
fn each_coding_is_undone_at_any_cut() {
    let plain = b"{\"model\":\"a\",\"text\":\"the quick brown fox, the quick brown fox, the quick red fox\"}";
    for (coding, encoded) in codings(plain) {
        assert_eq!(decoded(coding, 1000, &[&encoded]), plain, "{coding}");
        assert_eq!(
            decoded(coding, 1000, &encoded.chunks(1).collect::<Vec<_>>()),
            plain,
            "{coding}"
        );
        for at in 0..encoded.len() {
            let (first, second) = encoded.split_at(at);
            assert_eq!(
                decoded(coding, 1000, &[first, &[], second]),
                plain,
                "{coding} {at}"
            );
        }
    }
}

#[test]
fn what_was_sent_so_far_comes_out_at_once() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut decoder = Decoder::new(Some("gzip")).unwrap();
    let mut plain = Vec::new();
    let mut sent = 0;
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        decoder.feed(&encoder.get_ref()[sent..], &mut |bytes| {
            plain.extend_from_slice(bytes)
        });
        sent = encoder.get_ref().len();
        assert!(plain.ends_with(event.as_bytes()));
    }
}

#[test]
fn several_gzip_members_are_one_body() {
    let body = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
    assert_eq!(decoded("gzip", 100, &[&body]), b"{\"a\":1}");
    assert_eq!(
        decoded("gzip", 100, &body.chunks(1).collect::<Vec<_>>()),
        b"{\"a\":1}"
    );
}

#[test]
fn nothing_comes_out_beyond_the_limit() {
    let plain = vec![b' '; 100_000];
    for (coding, encoded) in codings(&plain) {
        for limit in [0, 1, 65_536, 99_999, 100_000, 100_001] {
            let expected = 100_000.min(usize::try_from(limit).unwrap());
            assert_eq!(
                decoded(coding, limit, &[&encoded]).len(),
                expected,
                "{coding} {limit}"
            );
            assert_eq!(
                decoded(coding, limit, &encoded.chunks(7).collect::<Vec<_>>()).len(),
                expected,
                "{coding} {limit}"
            );
        }
    }
}

#[test]
fn a_bomb_is_let_off_in_small_parts_and_not_wholly() {
    let plain = vec![0; 64 << 20];
    for (coding, bomb) in [
        ("gzip", gzip(&plain)),
        ("deflate", deflate(&plain)),
        ("br", brotli(&plain)),
        ("zstd", ::zstd::encode_all(&plain[..], 3).unwrap()),
    ] {
        let mut decoder = Decoder::new(Some(coding)).unwrap();
        let (mut total, mut largest) = (0, 0);
        decoder.feed(&bomb, &mut |bytes| {
            total += bytes.len();
            largest = largest.max(bytes.len());
        });
        let earned = UNMEASURED + MAX_EXPANSION * u64::try_from(bomb.len()).unwrap();
        assert_eq!(total, usize::try_from(earned).unwrap(), "{coding}");
        assert!(largest <= 2 << 20, "{coding} {largest}");
        decoder.feed(&bomb, &mut |_| panic!("it had stopped"));
    }
}

#[test]
fn a_long_stream_of_like_events_is_read_to_its_end() {
    let event = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"a a\"}}}}],\"pad\":\"{}\"}}\n\n",
        "x".repeat(120)
    );
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let events = 2 * usize::try_from(UNMEASURED).unwrap() / event.len();
    for _ in 0..events {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
    }
    assert_eq!(
        decoded("gzip", MAX_DECODED, &[&encoder.finish().unwrap()]).len(),
        events * event.len()
    );
}

#[test]
fn corrupt_bodies_end_quietly() {
    for (coding, mut encoded) in codings(&[b'x'; 3000]).into_iter().skip(2) {
        let middle = encoded.len() / 2;
        encoded[0] ^= 0xff;
        encoded[middle] ^= 0xff;
        assert!(decoded(coding, 1 << 20, &[&encoded, &encoded]).len() <= 1 << 20);
    }
}

#[test]
fn a_window_of_a_gibibyte_is_refused() {
    // Large-window brotli: 0x11, then the window's bits.
    assert_eq!(
        decoded("br", 1000, &[&[0x11, 0x1e, 0x0b, 0x00, 0x80, 0x61, 0x03]]),
        b""
    );
}

#[test]
fn unknown_and_stacked_codings_are_refused() {
    for coding in ["zstd, br", "gzip, br", "compress", "gzip gzip", "*"] {
        assert!(Decoder::new(Some(coding)).is_none(), "{coding}");
    }
    assert!(Decoder::new(None).is_some());
}

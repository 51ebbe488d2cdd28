//! Against the examples of the S3 reference, in pieces of every size, and with bodies that are not what they
//! should be.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use aws_sigv4::sign::v4::generate_signing_key;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// Bytes that may be held.
const FREE: usize = 1024 * 1024;

const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2013-05-24T00:00:00Z
const TIME: Duration = Duration::from_secs(1_369_353_600);
/// Signatures of "Example: PUT Object" of the two pages on chunked uploads: of the head, of the chunks, of
/// the trailing header.
const PLAIN: [&str; 4] = [
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
];
const TRAILING: [&str; 5] = [
    "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
];

fn resigner(seed: &str, trailer: bool) -> Resigner {
    let time = SystemTime::UNIX_EPOCH + TIME;
    let key = generate_signing_key(KEY, time, "us-east-1", "s3");
    let scope = "20130524/us-east-1/s3/aws4_request";
    let signer = Signer::new(key.as_ref(), "20130524T000000Z", scope, seed.to_owned());
    Resigner::new(signer, trailer, Room::new(Arc::new(Semaphore::new(FREE))))
}

/// 65 KiB of `a` in chunks of 64 KiB, each with its signature.
fn body(signatures: &[&str], trailer: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in [65536, 1024, 0].into_iter().zip(signatures) {
        body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
        if size > 0 {
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend_from_slice(b"\r\n");
        }
    }
    if let Some(signature) = trailer {
        let trailer =
            format!("x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{signature}\r\n");
        body.extend_from_slice(trailer.as_bytes());
    }
    body.extend_from_slice(b"\r\n");
    body
}

fn pass(resigner: &mut Resigner, body: &[u8], piece: usize) -> Result<Vec<u8>, ChunkError> {
    let mut out = Vec::new();
    for piece in body.chunks(piece) {
        for piece in resigner.feed(piece)? {
            out.extend_from_slice(&piece);
        }
    }
    resigner.finish()?;
    Ok(out)
}

#[test]
fn dummy_signatures_become_those_of_the_reference_in_pieces_of_any_size() {
    let dummy = "0".repeat(64);
    let dummies = [&*dummy; 3];
    for piece in [1, 7, 4096, 65540, usize::MAX >> 1] {
        let sent = body(&dummies, None);
        let out = pass(&mut resigner(PLAIN[0], false), &sent, piece).unwrap();
        assert!(out == body(&PLAIN[1..], None), "{piece}");
        assert_eq!(out.len(), 66824, "the length of the reference");
        let sent = body(&dummies, Some(&dummy));
        let out = pass(&mut resigner(TRAILING[0], true), &sent, piece).unwrap();
        assert!(out == body(&TRAILING[1..4], Some(TRAILING[4])), "{piece}");
    }
}

#[test]
fn what_is_no_signed_chunk_is_not_passed_on() {
    let signature = "0".repeat(64);
    let with = |text: &str| text.replace("SIG", &format!("chunk-signature={signature}"));
    for (text, error) in [
        ("5\r\nhello\r\n0\r\n\r\n", ChunkError::Malformed),
        ("5;SIG0\r\nhello\r\n", ChunkError::Malformed),
        ("5;chunk-signature=abc\r\nhello\r\n", ChunkError::Malformed),
        ("+5;SIG\r\nhello\r\n", ChunkError::Malformed),
        (";SIG\r\n", ChunkError::Malformed),
        ("5;SIG\r\nhelloXX", ChunkError::Malformed),
        ("5;SIG\r\nhello\r\n", ChunkError::BreaksOff),
        ("5;SIG\r\nhel", ChunkError::BreaksOff),
        ("", ChunkError::BreaksOff),
        ("1000001;SIG\r\n", ChunkError::TooLarge),
        ("fffffffffffffffffffffff;SIG\r\n", ChunkError::TooLarge),
        ("0;SIG\r\n\r\nmore", ChunkError::GoesOn),
        ("0;SIG\r\nx:y\r\n\r\n", ChunkError::Malformed),
    ] {
        let passed = pass(&mut resigner(PLAIN[0], false), with(text).as_bytes(), 3);
        assert_eq!(passed, Err(error), "{text}");
    }
    let endless = "a".repeat(MAX_LINE + 2);
    let passed = pass(&mut resigner(PLAIN[0], false), endless.as_bytes(), 100);
    assert_eq!(passed, Err(ChunkError::Malformed));
    // Trailing headers that nobody signs.
    let unsigned = with("0;SIG\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\r\n");
    let passed = pass(&mut resigner(PLAIN[0], true), unsigned.as_bytes(), 100);
    assert_eq!(passed, Err(ChunkError::Malformed));
}

#[test]
fn what_is_held_takes_room_until_it_is_sent_and_no_more_than_there_is() {
    let memory = Arc::new(Semaphore::new(FREE));
    let room = || Room::new(Arc::clone(&memory));
    let line = format!("1000000;chunk-signature={}\r\n", "0".repeat(64));
    let begun = || {
        let room = room();
        let mut resigner = resigner(PLAIN[0], false);
        resigner.room = room.clone();
        assert!(resigner.feed(line.as_bytes()).unwrap().is_empty());
        (resigner, room)
    };
    // A declared size takes nothing.
    let (mut one, _) = begun();
    let (mut other, crowded) = begun();
    assert_eq!(memory.available_permits(), FREE);
    let piece = vec![b'a'; FREE / 4];
    for _ in 0..2 {
        assert!(one.feed(&piece).unwrap().is_empty());
        assert!(other.feed(&piece).unwrap().is_empty());
    }
    assert_eq!(memory.available_permits(), 0);
    assert_eq!(other.feed(b"a"), Err(ChunkError::NoRoom));
    assert!(crowded.is_missing() && !room().is_missing());
    drop((one, other));
    assert_eq!(memory.available_permits(), FREE);

    // What is whole goes on its way, and its place with it.
    let mut resigner = resigner(PLAIN[0], false);
    resigner.room = room();
    let sent = body(&[&*"0".repeat(64); 3], None);
    let ready = resigner.feed(&sent).unwrap();
    resigner.finish().unwrap();
    assert_eq!(memory.available_permits(), FREE - 65536 - 1024 - 4);
    drop(ready);
    assert_eq!(memory.available_permits(), FREE);
}

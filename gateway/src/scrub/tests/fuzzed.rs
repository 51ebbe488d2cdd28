//! Random responses: secrets in random spellings at random places, in random pieces, under random
//! codings. No secret comes out, and everything else does, byte by byte.

use super::super::*;
use super::oracle::can_read;
use super::spelling::{Kind, Random, encoded, secret, spelled};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many responses, unless `POSTERN_SCRUB_CASES` says otherwise.
const CASES: u64 = 2000;
/// Bytes of the longest spelling of a character: two escapes.
const LONGEST: usize = 12;
/// Responses for one set of secrets.
const EACH: u64 = 25;

#[test]
fn no_fuzzed_response_tells_a_secret_and_none_loses_anything_else() {
    let cases = std::env::var("POSTERN_SCRUB_CASES");
    let cases = cases.map_or(CASES, |cases| cases.parse().unwrap());
    let sets = AtomicU64::new(0);
    let planted = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let set = sets.fetch_add(1, Ordering::Relaxed);
                    if set >= cases.div_ceil(EACH) {
                        break;
                    }
                    planted.fetch_add(responses(set), Ordering::Relaxed);
                }
            });
        }
    });
    let planted = planted.into_inner();
    assert!(
        u64::try_from(planted).unwrap() > cases,
        "{planted} secrets in {cases} responses"
    );
}

/// Responses for one set of secrets, and how many of those were in them.
fn responses(set: u64) -> usize {
    let random = &mut Random(set);
    let kind = random.pick(&[Kind::Key, Kind::Key, Kind::Signs, Kind::Text, Kind::Escapes]);
    let secrets: Vec<Vec<u8>> = (0..=random.below(3))
        .map(|_| secret(random, kind))
        .collect();
    let scrubber = Scrubber::new(secrets.iter().map(Vec::as_slice)).unwrap();
    (0..EACH)
        .map(|case| {
            let case = format!("set {set}, case {case}");
            told_in_fields(random, &secrets, &scrubber, &case);
            respond(random, kind, &secrets, &scrubber, &case)
        })
        .sum()
}

/// The same in fields of the head and of trailers.
fn told_in_fields(random: &mut Random, secrets: &[Vec<u8>], scrubber: &Scrubber, case: &str) {
    let secret = &secrets[random.below(secrets.len())];
    let spelled = match random.below(2) {
        0 => spelled(random, secret),
        _ => encoded(random, secret).concat(),
    };
    let value = [b"v=", &spelled[..], b"; path=/"].concat();
    let Ok(value) = HeaderValue::from_bytes(&value) else {
        return;
    };
    let mut fields = HeaderMap::new();
    fields.insert("x-told", value.clone());
    fields.insert("x-none", HeaderValue::from_static("v=none; path=/"));
    assert_eq!(scrubber.headers(&mut fields), 1, "{case}: {value:?}");
    assert!(!can_read(fields["x-told"].as_bytes(), secret), "{case}");
    assert_eq!(fields["x-none"], "v=none; path=/", "{case}");
}

/// A part of a response, and whether it is to be replaced.
struct Part {
    bytes: Vec<u8>,
    secret: bool,
}

fn respond(
    random: &mut Random,
    kind: Kind,
    secrets: &[Vec<u8>],
    scrubber: &Scrubber,
    case: &str,
) -> usize {
    let parts = parts(random, kind, secrets);
    let content: Vec<u8> = parts.iter().flat_map(|part| part.bytes.clone()).collect();
    let (coding, coded) = coded(random, &content);
    let types = [
        "application/json",
        "text/event-stream",
        "text/plain",
        "",
        "application/octet-stream",
        "application/grpc",
        "application/vnd.amazon.eventstream",
    ];
    let content_type = random.pick(&types);
    let mut head = HeaderMap::new();
    if !content_type.is_empty() {
        head.insert("content-type", HeaderValue::from_static(content_type));
    }
    head.insert("content-encoding", HeaderValue::from_static(coding));
    let mut body = scrubber.body(StatusCode::OK, &mut head);
    let mut out = Vec::new();
    let mut rest = &coded[..];
    let most = random.pick(&[1, 2, 7, 60, 5000]);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(most)));
        rest = after;
        body.feed(Bytes::copy_from_slice(piece));
        while let Some(data) = body.pull().unwrap() {
            out.extend_from_slice(&data);
        }
    }
    out.extend_from_slice(&body.finish().unwrap());
    for secret in secrets {
        assert!(
            !can_read(&out, secret),
            "{case} told {:?}",
            String::from_utf8_lossy(secret)
        );
    }
    let planted = parts.iter().filter(|part| part.secret).count();
    // With escapes in the secret itself more than one reading is right.
    if kind != Kind::Escapes {
        let is_binary = content_type.starts_with("application/") && !content_type.ends_with("json");
        let expected: Vec<u8> = parts
            .iter()
            .flat_map(|part| match (part.secret, is_binary) {
                (false, _) => part.bytes.clone(),
                (true, false) => b"[redacted]".to_vec(),
                (true, true) => vec![b'*'; part.bytes.len()],
            })
            .collect();
        assert_eq!(
            String::from_utf8_lossy(&out),
            String::from_utf8_lossy(&expected),
            "{case}: {content_type} {coding}, secrets {:?}",
            secrets
                .iter()
                .map(|secret| String::from_utf8_lossy(secret))
                .collect::<Vec<_>>()
        );
        assert_eq!(body.count(), u64::try_from(planted).unwrap(), "{case}");
    }
    planted
}

fn parts(random: &mut Random, kind: Kind, secrets: &[Vec<u8>]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut add = |bytes: Vec<u8>, secret| parts.push(Part { bytes, secret });
    for _ in 0..random.below(12) {
        let secret = &secrets[random.below(secrets.len())];
        match random.below(6) {
            0 => {
                add(spelled(random, secret), true);
                // What ends in an escape may go on in what follows.
                add(b"|".to_vec(), false);
            }
            1 => {
                let [before, middle, after] = encoded(random, secret);
                add([b":", &before[..]].concat(), false);
                add(middle, true);
                add([&after[..], b"|"].concat(), false);
            }
            2 if kind != Kind::Escapes => {
                // Almost: the beginning of one, or one with a byte too many.
                let mut almost = spelled(random, secret);
                let at = 1 + random.below(almost.len() - 1);
                // Within the first character it could be another spelling of the rest.
                if random.one_in(2) && at > LONGEST {
                    almost.insert(at, 0x07);
                } else {
                    almost.truncate(at);
                }
                almost.push(0x07);
                add(almost, false);
            }
            _ => {
                let filler = b"data: {\"delta\":\"\\u00e9 %20 \\n AAAA//++==sk-\"}\n\n";
                let from = random.below(filler.len());
                let length = random.below(filler.len() - from);
                for _ in 0..random.below(4) {
                    add(
                        [b"\x07", &filler[from..from + length], b"\x07"].concat(),
                        false,
                    );
                }
            }
        }
    }
    parts
}

fn coded(random: &mut Random, content: &[u8]) -> (&'static str, Vec<u8>) {
    let pieces = content.chunks(1 + random.below(400)).collect::<Vec<_>>();
    let level = Compression::new(u32::try_from(random.below(10)).unwrap());
    match random.below(6) {
        0 => (
            "gzip",
            written(GzEncoder::new(Vec::new(), level), &pieces, |it| {
                it.finish().unwrap()
            }),
        ),
        1 => (
            "deflate",
            written(ZlibEncoder::new(Vec::new(), level), &pieces, |it| {
                it.finish().unwrap()
            }),
        ),
        2 if content.len() > 1 => (
            "deflate",
            written(DeflateEncoder::new(Vec::new(), level), &pieces, |it| {
                it.finish().unwrap()
            }),
        ),
        3 => {
            let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 3, 18);
            (
                "br",
                written(encoder, &pieces, brotli::CompressorWriter::into_inner),
            )
        }
        4 => {
            let encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            ("zstd", written(encoder, &pieces, |it| it.finish().unwrap()))
        }
        _ => ("identity", content.to_vec()),
    }
}

/// Written and flushed piece by piece, as streams of events are.
fn written<W: Write>(mut to: W, pieces: &[&[u8]], finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
    for piece in pieces {
        to.write_all(piece).unwrap();
        to.flush().unwrap();
    }
    finish(to)
}

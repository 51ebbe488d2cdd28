//! The upstream that tells its client the key: in a header, in a trailer, and in a body that has it in
//! several spellings, cut in its middle, under a coding. It refuses to know what a gateway makes of it.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use hyper::{HeaderMap, Response};

use super::body::{Body, streamed};

/// The header and the trailer that tell the key.
pub const HEADER: HeaderName = HeaderName::from_static("x-reflected");

/// What stands before and after the keys of a body.
pub const EDGES: (&str, &str) = ("{\"first\":1,", "\"last\":2}");

/// Answers with `key`; `coding` is `identity`, `gzip`, `br` or `zstd`.
pub fn answer(key: &str, coding: &str, content_type: &'static str) -> Response<Body> {
    let pieces = coded(coding, &pieces(key));
    let (writer, body) = streamed();
    let value = HeaderValue::try_from(format!("<{key}>"));
    let told = value.unwrap_or(HeaderValue::from_static("no header can have it"));
    let trailers = HeaderMap::from_iter([(HEADER, told.clone())]);
    tokio::spawn(async move {
        for piece in pieces {
            if !writer.data(piece).await {
                return;
            }
        }
        writer.trailers(trailers).await;
    });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(HEADER, told);
    headers.insert(TRAILER, HeaderValue::from_static("x-reflected"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let ("gzip" | "br" | "zstd", Ok(coding)) = (coding, HeaderValue::try_from(coding)) {
        headers.insert(CONTENT_ENCODING, coding);
    }
    response
}

/// JSON with the key in each spelling, in two parts that meet in the middle of one.
fn pieces(key: &str) -> [String; 2] {
    let percent: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: String = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let basic = STANDARD.encode(format!("user:{key}"));
    let (one, other) = key.split_at(key.len() / 2);
    let (before, after) = EDGES;
    [
        format!("{before}\"percent\":\"{percent}\",\"escaped\":\"{escaped}\",\"raw\":\"{one}"),
        format!("{other}\",\"basic\":\"{basic}\",{after}"),
    ]
}

/// Each piece as the bytes that a flush after it sends.
fn coded(coding: &str, pieces: &[String; 2]) -> Vec<Vec<u8>> {
    let end = match coding {
        "gzip" => flushed(
            GzEncoder::new(Vec::new(), Compression::fast()),
            pieces,
            |it| it.finish(),
        ),
        "br" => {
            let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 4, 18);
            flushed(encoder, pieces, |it| Ok(it.into_inner()))
        }
        "zstd" => zstd::stream::write::Encoder::new(Vec::new(), 1)
            .and_then(|encoder| flushed(encoder, pieces, |it| it.finish())),
        _ => Ok(pieces.concat().into_bytes()),
    };
    // Small enough that no coding has the key in one of them.
    let all = end.unwrap_or_default();
    all.chunks(7).map(<[u8]>::to_vec).collect()
}

fn flushed<W: Write>(
    mut to: W,
    pieces: &[String],
    finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> std::io::Result<Vec<u8>> {
    for piece in pieces {
        to.write_all(piece.as_bytes())?;
        to.flush()?;
    }
    finish(to)
}

//! A server that says what it saw, and that can do the things of HTTP which a gateway might spoil:
//! long and slow bodies, trailers, early answers, upgrades. It refuses nobody.
//!
//! - `/bytes/N`: N bytes of [`pattern`](super::body::pattern)
//! - `/part/N`: the part of those that `Range` asks for, which is one of the form `bytes=A-B`
//! - `/head/N`: an answer with N fields of a kilobyte
//! - `/sse/N/M`: N events, M milliseconds apart
//! - `/elsewhere`: an answer that says that HTTP/3 is spoken too
//! - `/trailers`: a body and the trailer `x-checksum`
//! - `/slow/M`: an answer after M milliseconds
//! - `/status/N`: an empty answer of status N
//! - `/meanwhile`: the head of the answer at once, its body when the request's is there
//! - `/unread`: 413 after four seconds, in which the body is not read
//! - `/early`, `/early/N`: 413 before the body was read, with so many bytes to say
//! - `/reflect/CODING/KIND`: the client's `x-api-key` (see [`reflect`]); KIND is `text` or `binary`
//! - `/cut`: a body that breaks off
//! - `/ws`: a WebSocket that echoes
//! - anything else, by any method: the request as JSON

use std::time::Duration;

use hyper::header::{ALT_SVC, CONTENT_RANGE, EXPECT, HeaderName, HeaderValue, TRAILER};
use hyper::{HeaderMap, Response, StatusCode};

use super::body::{Body, generated, json as answer, pattern, plain, streamed, whole};
use super::sse::{Event, stream};
use super::{Exchange, Service, reflect, websocket};

/// The value of the trailer `x-checksum`.
pub const CHECKSUM: &str = "sha256=beef";

const UNREAD: Duration = Duration::from_secs(4);

/// See the module.
pub struct Echo;

impl Service for Echo {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let Exchange { request, record } = exchange;
        let path = request.uri().path().to_owned();
        let mut segments = path.trim_start_matches('/').split('/');
        let what = segments.next().unwrap_or_default();
        let more: Vec<&str> = segments.clone().collect();
        let mut number = || -> u64 {
            let segment = segments.next().unwrap_or_default();
            segment.parse().unwrap_or_default()
        };
        match what {
            "ws" => return websocket::upgrade(request),
            "meanwhile" => {
                let (writer, body) = streamed();
                tokio::spawn(async move {
                    if record.read(request.into_body()).await.is_ok() {
                        writer.data("all of it\n").await;
                    }
                });
                return Response::new(body);
            }
            "unread" => {
                tokio::time::sleep(UNREAD).await;
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "not a byte was read\n");
            }
            "early" => {
                if request.headers().contains_key(EXPECT) {
                    // Long enough for an impatient intermediary to ask for the body itself.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                } else {
                    // Reads on, as servers do: closing at once would reset the connection, and the
                    // client might never see the answer.
                    tokio::spawn(async move { drop(record.read(request.into_body()).await) });
                }
                let mut answer = plain(StatusCode::PAYLOAD_TOO_LARGE, "no more, please\n");
                if let length @ 1.. = number() {
                    *answer.body_mut() = generated(length);
                }
                return answer;
            }
            _ => {}
        }
        if let Err(error) = record.read(request.into_body()).await {
            let error = serde_json::json!({"error": error.to_string()});
            return answer(StatusCode::BAD_REQUEST, &error);
        }
        match what {
            "bytes" => Response::new(generated(number())),
            "sse" => {
                let events = (0..number()).map(|number| Event::data(format!("event {number}")));
                let events = events.collect();
                stream(events, Duration::from_millis(number()))
            }
            "part" => part(number(), &record.seen().header("range").concat()),
            "head" => {
                let mut response = Response::new(whole("after a long head\n"));
                for count in 0..number() {
                    let value = HeaderValue::try_from("x".repeat(1000 - 32));
                    let name = HeaderName::try_from(format!("x-long-{count}"));
                    if let (Ok(name), Ok(value)) = (name, value) {
                        response.headers_mut().insert(name, value);
                    }
                }
                response
            }
            "elsewhere" => {
                let mut response = plain(StatusCode::OK, "or over QUIC\n");
                let value = HeaderValue::from_static("h3=\":443\"; ma=3600");
                response.headers_mut().insert(ALT_SVC, value);
                response
            }
            "trailers" => trailers(),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(number())).await;
                plain(StatusCode::OK, "at last\n")
            }
            "status" => {
                let status = u16::try_from(number()).unwrap_or_default();
                let mut response = Response::new(whole(""));
                *response.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
                response
            }
            "reflect" => {
                let seen = record.seen();
                let key = seen.header("x-api-key").concat();
                match more[..] {
                    [coding, "text"] => reflect::answer(&key, coding, "application/json"),
                    [coding, ..] => reflect::answer(&key, coding, "application/octet-stream"),
                    [] => plain(StatusCode::NOT_FOUND, "in which coding?\n"),
                }
            }
            "cut" => cut(),
            _ => answer(StatusCode::OK, &record.seen().to_json()),
        }
    }
}

fn part(length: u64, range: &str) -> Response<Body> {
    let asked = range.strip_prefix("bytes=");
    let bounds = asked.and_then(|asked| asked.split_once('-'));
    let bounds = bounds.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let range: Option<(u64, u64)> = bounds;
    let Some((from, to)) = range.filter(|(from, to)| from <= to && *to < length) else {
        let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "no such part\n");
        let whole = HeaderValue::try_from(format!("bytes */{length}"));
        response
            .headers_mut()
            .extend(whole.map(|whole| (CONTENT_RANGE, whole)));
        return response;
    };
    let bytes: Vec<u8> = (from..=to).map(pattern).collect();
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let told = HeaderValue::try_from(format!("bytes {from}-{to}/{length}"));
    response
        .headers_mut()
        .extend(told.map(|told| (CONTENT_RANGE, told)));
    response
}

fn trailers() -> Response<Body> {
    let (writer, body) = streamed();
    tokio::spawn(async move {
        if writer.data("body, then trailers\n").await {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static(CHECKSUM));
            writer.trailers(trailers).await;
        }
    });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    // Over HTTP/1.1 only announced trailers are sent.
    headers.insert(TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

fn cut() -> Response<Body> {
    let (writer, body) = streamed();
    tokio::spawn(async move {
        if writer.data("half of ").await {
            writer.fail().await;
        }
    });
    Response::new(body)
}

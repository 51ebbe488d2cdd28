//! What a client reads when others speak before the final response: whole heads, between whole messages, or nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::guard::{Exchange, ResponseGuard, Violation};
use crate::http::guarded::Guarded;
use http::header::{HeaderName, HeaderValue};
use http::{Response, Version};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const IDLE: Duration = Duration::from_secs(30);

fn hints(fields: &[(&'static str, &str)]) -> HeaderMap {
    let named = |(name, value): &(&'static str, &str)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        (HeaderName::from_static(name), value)
    };
    fields.iter().map(named).collect()
}

/// A guarded server with so much room to write in, which gives the hints of a request's path (`/HINTS`, or `/HINTS/late`
/// for those that come after the final response is made) and then answers; and its client.
fn served(room: usize) -> DuplexStream {
    let (client, server) = tokio::io::duplex(room);
    let interim = Arc::new(Interim::default());
    let refuse = Box::new(|_: Violation| Bytes::new());
    let guarded = Guarded::new(
        server,
        4096,
        IDLE,
        Arc::default(),
        Arc::clone(&interim),
        refuse,
    );
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let interim = Arc::clone(&interim);
        async move {
            let path = request.uri().path().to_owned();
            let mut segments = path.trim_start_matches('/').split('/');
            let number: usize = segments.next().unwrap_or_default().parse().unwrap_or(0);
            let is_late = segments.next() == Some("late");
            let awaiting = (request.version() == Version::HTTP_11).then(|| interim.await_final());
            let (of, request) = (Arc::clone(&interim), awaiting.as_ref().map(|a| a.request));
            let give = async move {
                for hint in 0..number {
                    let link = format!("<{path}?{hint}>");
                    let head = head(StatusCode::EARLY_HINTS, hints(&[("link", &link)]));
                    of.give(request.unwrap_or_default(), head.unwrap());
                    if hint % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            };
            if is_late {
                tokio::spawn(give);
            } else {
                give.await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; 3000]))))
        }
    });
    tokio::spawn(async move {
        drop(
            http1::Builder::new()
                .serve_connection(TokioIo::new(guarded), service)
                .await,
        );
    });
    client
}

/// The statuses of what a client reads until the end, each response whole.
fn statuses(mut all: &[u8]) -> Vec<u16> {
    let mut seen = Vec::new();
    while !all.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = response.parse(all).unwrap() else {
            panic!("half a head: {}", String::from_utf8_lossy(all));
        };
        let code = response.code.unwrap();
        seen.push(code);
        let length = if code == 200 { 3000 } else { 0 };
        let (body, rest) = all[end..].split_at(length);
        assert!(body.iter().all(|byte| *byte == b'x'), "not the body");
        all = rest;
    }
    seen
}

async fn asked(room: usize, requests: &str) -> Vec<u16> {
    let mut client = served(room);
    let mut all = Vec::new();
    let (mut reader, mut writer) = tokio::io::split(&mut client);
    let write = async {
        writer.write_all(requests.as_bytes()).await.unwrap();
    };
    let read = async {
        // As slowly as the room makes it.
        let mut piece = [0; 700];
        loop {
            match reader.read(&mut piece).await.unwrap() {
                0 => break,
                length => all.extend_from_slice(&piece[..length]),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, read);
    statuses(&all)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn last(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn hints_come_before_their_response_and_after_the_one_before() {
    let three = get("/2") + &get("/0") + &last("/1");
    for room in [16, 61, 1000, 1 << 16] {
        let seen = asked(room, &three).await;
        let finals = seen.iter().filter(|status| **status == 200).count();
        assert_eq!(finals, 3, "{room}: {seen:?}");
        assert_eq!(seen.last(), Some(&200));
    }
    // Where there is room, none is lost.
    assert_eq!(asked(1 << 16, &three).await, [103, 103, 200, 200, 103, 200]);
}

#[tokio::test]
async fn what_is_late_or_too_much_is_nothing() {
    let more = format!("/{}", MAX_RESPONSES + 5);
    let seen = asked(1 << 16, &last(&more)).await;
    assert_eq!(seen.len(), MAX_RESPONSES + 1, "{seen:?}");
    for room in [16, 1 << 16] {
        let requests = get("/3/late") + &get("/0") + &last("/3/late");
        let seen = asked(room, &requests).await;
        assert_eq!(seen, [200, 200, 200]);
    }
    let old = "GET /3 HTTP/1.0\r\nHost: a\r\n\r\n";
    assert_eq!(asked(1 << 16, old).await, [200]);
}

#[tokio::test]
async fn all_the_hints_of_a_request_have_their_limit_in_bytes() {
    let interim = Arc::new(Interim::default());
    let awaiting = interim.await_final();
    let half = Bytes::from(vec![b'x'; MAX_BYTES / 2]);
    for _ in 0..4 {
        interim.give(awaiting.request, half.clone());
    }
    assert_eq!(interim.lock().pending.len(), 2);
    // Those of another request are nobody's.
    let next = interim.await_final();
    interim.give(awaiting.request, Bytes::from_static(b"x"));
    drop(awaiting);
    assert!(interim.lock().pending.is_empty());
    interim.give(next.request, Bytes::from_static(b"x"));
    assert_eq!(interim.lock().pending.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_hint_and_breaks_a_rule_is_parted_with_in_time() {
    let (mut client, server) = tokio::io::duplex(16);
    let interim = Arc::new(Interim::default());
    let refuse = Box::new(|_: Violation| Bytes::from_static(b"no"));
    let watch = Arc::default();
    let mut guarded = Guarded::new(server, 4096, IDLE, watch, Arc::clone(&interim), refuse);
    let awaiting = interim.await_final();
    let hint = head(StatusCode::EARLY_HINTS, HeaderMap::new()).unwrap();
    interim.give(awaiting.request, hint.clone());
    let short = Duration::from_millis(10);
    assert!(tokio::time::timeout(short, guarded.flush()).await.is_err());
    client.write_all(b"G\n").await.unwrap();
    let read = guarded.read_u8();
    assert!(tokio::time::timeout(short, read).await.is_err());
    let parted = tokio::time::timeout(Duration::from_secs(5), guarded.shutdown()).await;
    parted.unwrap().unwrap();
    drop(guarded);
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, hint[..16], "half a hint, and nothing in its midst");
}

#[test]
fn a_head_is_written_anew_without_what_belongs_to_its_hop() {
    let fields = [
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("keep-alive", "5"),
        ("link", "</a.css>; rel=preload"),
        ("link", "</b.js>; rel=preload"),
    ];
    let written = head(StatusCode::EARLY_HINTS, hints(&fields)).unwrap();
    let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\
                    link: </b.js>; rel=preload\r\n\r\n";
    assert_eq!(written, expected);
    for (status, begin) in [
        (102, "HTTP/1.1 102 Processing\r\n"),
        (104, "HTTP/1.1 104 \r\n"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let written = head(status, HeaderMap::new()).unwrap();
        assert_eq!(written, format!("{begin}\r\n"));
    }
    for status in [100, 101, 200, 204, 304, 599] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(head(status, HeaderMap::new()), None, "{status}");
    }
}

proptest! {
    #[test]
    fn whatever_the_fields_the_head_is_one_informational_response_and_nothing_after_it(
        status in 102_u16..200,
        fields in prop::collection::vec(("[a-zA-Z][a-zA-Z-]{0,20}", prop::collection::vec(any::<u8>(), 0..60)), 0..20),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            // As the library makes values: of whatever was on the line.
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(HeaderName::try_from(name.as_str()).unwrap(), value);
            }
        }
        let status = StatusCode::from_u16(status).unwrap();
        if let Some(written) = head(status, headers) {
            let mut guard = ResponseGuard::default();
            guard.expect(Exchange::Plain);
            let end = b"HTTP/1.1 204 No Content\r\n\r\n";
            let all = [&written[..], end].concat();
            let judged = guard.take(&all).unwrap();
            prop_assert_eq!(judged.taken, all.len());
            let mut parsed = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut parsed);
            prop_assert_eq!(response.parse(&written).unwrap(), httparse::Status::Complete(written.len()));
            prop_assert_eq!(response.code, Some(status.as_u16()));
        }
    }
}

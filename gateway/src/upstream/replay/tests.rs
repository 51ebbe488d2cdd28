//! What can be sent again is what was sent, and nothing that an upstream may have begun with is.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::kept::{LEFT_ALONE, MAX_KEPT};
use super::*;
use http::HeaderMap;
use http_body_util::{Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn pieces(pieces: Vec<Bytes>) -> RequestBody {
    let mut frames: Vec<Result<Frame<Bytes>, Error>> = Vec::new();
    frames.extend(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("1"));
    frames.push(Ok(Frame::trailers(trailers)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

fn request(method: Method, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = "https://a.example/x".parse().unwrap();
    request
}

fn whole(text: &'static [u8]) -> RequestBody {
    Full::new(Bytes::from_static(text))
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync()
}

/// Reads `count` frames, or all.
async fn read(body: &mut RequestBody, count: usize) -> (Vec<u8>, bool) {
    let (mut data, mut trailers) = (Vec::new(), false);
    for _ in 0..count {
        match body.frame().await {
            None => break,
            Some(frame) => match frame.unwrap().into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(_frame) => trailers = true,
            },
        }
    }
    (data, trailers)
}

const ALL: usize = 1000;
/// What a sandbox has, bytes.
const ROOM: usize = 64 * 1024 * 1024;

fn plenty() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM))
}

#[tokio::test]
async fn a_body_is_sent_again_from_its_beginning_wherever_it_was_left() {
    let letters: Vec<Bytes> = (b'a'..=b'z')
        .map(|letter| Bytes::from(vec![letter; 10]))
        .collect();
    let expected: Vec<u8> = letters.concat();
    for left in 0..30 {
        let (sent, replay) = Replay::of(request(Method::POST, pieces(letters.clone())), &plenty());
        let mut first = sent.into_body();
        read(&mut first, left).await;
        let again = replay.again().unwrap();
        assert_eq!((again.method(), again.uri().path()), (&Method::POST, "/x"));
        // And a third time, from where the second was left.
        let (sent, replay) = Replay::of(again, &plenty());
        let mut second = sent.into_body();
        read(&mut second, left / 2).await;
        let mut third = replay.again().unwrap().into_body();
        assert_eq!(
            read(&mut third, ALL).await,
            (expected.clone(), true),
            "{left}"
        );
        assert!(third.frame().await.is_none());
        // The streams before have nothing more to say.
        if left > 0 {
            assert!(first.frame().await.unwrap().is_err());
        }
    }
}

#[tokio::test]
async fn what_was_kept_is_forgotten_once_there_is_an_answer_and_nothing_is_lost() {
    let letters: Vec<Bytes> = (b'a'..=b'z')
        .map(|letter| Bytes::from(vec![letter; 10]))
        .collect();
    for left in 0..27 {
        let (sent, replay) = Replay::of(request(Method::POST, pieces(letters.clone())), &plenty());
        read(&mut sent.into_body(), left).await;
        let (sent, replay) = Replay::of(replay.again().unwrap(), &plenty());
        let mut body = sent.into_body();
        let (mut data, early) = read(&mut body, left / 2).await;
        drop(replay);
        let (rest, late) = read(&mut body, ALL).await;
        data.extend(rest);
        assert_eq!((data, early ^ late), (letters.concat(), true), "{left}");
    }
}

#[tokio::test]
async fn what_is_too_long_goes_through_and_is_not_sent_again() {
    for (length, again) in [
        (MAX_KEPT, true),
        (MAX_KEPT + 1, false),
        (MAX_KEPT * 3, false),
    ] {
        let body = pieces(vec![
            Bytes::from(vec![b'x'; 1000]),
            Bytes::from(vec![b'y'; length - 1000]),
        ]);
        let (sent, replay) = Replay::of(request(Method::POST, body), &plenty());
        let (data, trailers) = read(&mut sent.into_body(), ALL).await;
        assert_eq!((data.len(), trailers), (length, true));
        assert_eq!(replay.again().is_some(), again, "{length}");
    }
}

#[tokio::test]
async fn what_is_left_is_told() {
    let (sent, replay) = Replay::of(request(Method::POST, whole(b"hello")), &plenty());
    let mut first = sent.into_body();
    assert_eq!(first.size_hint().exact(), Some(5));
    read(&mut first, 1).await;
    assert!(first.is_end_stream());
    let again = replay.again().unwrap().into_body();
    assert_eq!(again.size_hint().exact(), Some(5));
    assert!(!again.is_end_stream());
    let (sent, replay) = Replay::of(request(Method::GET, nothing()), &plenty());
    assert!(sent.body().is_end_stream());
    assert!(replay.again().unwrap().body().is_end_stream());
}

#[tokio::test]
async fn tiny_pieces_keep_no_more_than_their_bytes_and_are_paid_for() {
    // Each has a buffer a thousand times its size, as a chunk that came by itself has.
    let buffer = Bytes::from(vec![b'x'; 8192]);
    let tiny: Vec<Bytes> = (0..120_000).map(|at| buffer.slice(0..at % 2)).collect();
    let free = plenty();
    let (sent, replay) = Replay::of(request(Method::POST, pieces(tiny)), &free);
    let mut first = sent.into_body();
    assert_eq!(read(&mut first, 120_000).await, (vec![b'x'; 60_000], false));
    drop(first);
    assert!(buffer.is_unique(), "a buffer is kept");
    let paid = ROOM - free.available_permits();
    assert!((60_000..=MAX_KEPT).contains(&paid), "{paid}");
    let mut again = replay.again().unwrap().into_body();
    let all = read(&mut again, ALL).await;
    assert_eq!(all, (vec![b'x'; 60_000], true));
    drop(again);
    assert_eq!(free.available_permits(), ROOM);
}

#[tokio::test]
async fn without_room_a_body_goes_through_and_is_not_sent_again() {
    // What is left is for those that must be held.
    for (room, again) in [
        (LEFT_ALONE, false),
        (LEFT_ALONE + 4999, false),
        (LEFT_ALONE + 9000, true),
    ] {
        let free = Arc::new(Semaphore::new(room));
        let body = pieces(vec![Bytes::from(vec![b'x'; 1000]); 5]);
        let (sent, replay) = Replay::of(request(Method::POST, body), &free);
        let all = read(&mut sent.into_body(), ALL).await;
        assert_eq!(all, (vec![b'x'; 5000], true));
        assert_eq!(replay.again().is_some(), again, "{room}");
        assert_eq!(free.available_permits(), room);
    }
}

#[tokio::test]
async fn an_answer_gives_back_what_was_paid_once_the_reader_has_it() {
    let free = plenty();
    let body = pieces(vec![Bytes::from(vec![b'x'; 1000]); 5]);
    let (sent, replay) = Replay::of(request(Method::POST, body), &free);
    read(&mut sent.into_body(), 4).await;
    let (sent, replay) = Replay::of(replay.again().unwrap(), &free);
    let mut body = sent.into_body();
    drop(replay);
    assert!(free.available_permits() < ROOM, "it is still to be sent");
    assert_eq!(read(&mut body, 1).await, (vec![b'x'; 4000], false));
    assert_eq!(free.available_permits(), ROOM);
    assert_eq!(read(&mut body, ALL).await, (vec![b'x'; 1000], true));
}

/// Frames of a server (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Sends `request` to a server that says `answer` once it has the whole of it, and is gone if `ends`.
async fn failure(
    request: Request<RequestBody>,
    answer: Vec<u8>,
    ends: bool,
) -> (hyper::Error, Replay) {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move {
        server.write_all(&frame(4, 0, 0, b"")).await.unwrap();
        ended(&mut server).await;
        server.write_all(&answer).await.unwrap();
        if !ends {
            let mut rest = Vec::new();
            drop(server.read_to_end(&mut rest).await);
        }
    });
    let io = TokioIo::new(client);
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    let (request, replay) = Replay::of(request, &plenty());
    let mut error = sender.try_send_request(request).await.unwrap_err();
    assert!(error.take_message().is_none());
    serving.abort();
    (error.into_error(), replay)
}

/// Reads to the end of the first stream.
async fn ended(server: &mut DuplexStream) {
    let mut preface = [0; 24];
    server.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        server.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        server.read_exact(&mut payload).await.unwrap();
        if matches!(head[3], 0 | 1) && head[4] & 1 != 0 {
            return;
        }
    }
}

#[tokio::test]
async fn only_what_the_upstream_says_it_has_not_begun_with_is_sent_again() {
    let refused = 7_u32.to_be_bytes();
    for (name, answer, ends, expected) in [
        ("beyond the last stream", goaway(0, 0), false, true),
        ("the same with an error", goaway(0, 11), false, true),
        ("the same, and gone", goaway(0, 0), true, true),
        ("refused", frame(3, 0, 1, &refused), false, true),
        (
            "cancelled",
            frame(3, 0, 1, &8_u32.to_be_bytes()),
            false,
            false,
        ),
        (
            "reset without an error",
            frame(3, 0, 1, &[0; 4]),
            false,
            false,
        ),
        ("the last stream, and gone", goaway(1, 0), true, false),
        (
            "the last stream with an error, and gone",
            goaway(1, 2),
            true,
            false,
        ),
        (
            "any stream, and gone",
            goaway(u32::MAX >> 1, 0),
            true,
            false,
        ),
        ("gone", Vec::new(), true, false),
        ("nonsense", frame(6, 0, 0, b"x"), false, false),
    ] {
        for method in [Method::POST, Method::GET] {
            let request = request(method.clone(), whole(b"hello"));
            let (error, replay) = failure(request, answer.clone(), ends).await;
            assert_eq!(
                replay.is_unprocessed(&error),
                expected,
                "{method} {name}: {error:?}"
            );
            let mut body = replay.again().unwrap().into_body();
            assert_eq!(read(&mut body, ALL).await.0, b"hello");
        }
    }
}

#[tokio::test]
async fn without_a_body_only_what_may_be_done_twice_is_sent_again_after_goaway() {
    for (method, expected) in [
        (Method::GET, true),
        (Method::DELETE, true),
        (Method::POST, false),
    ] {
        let (error, replay) =
            failure(request(method.clone(), nothing()), goaway(0, 0), false).await;
        assert_eq!(replay.is_unprocessed(&error), expected, "{method}");
    }
    let refused = frame(3, 0, 1, &7_u32.to_be_bytes());
    let (error, replay) = failure(request(Method::POST, nothing()), refused, false).await;
    assert!(
        replay.is_unprocessed(&error),
        "a stream that is refused is no guess"
    );
}

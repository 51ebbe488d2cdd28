//! The guards against tables of good and bad messages, against every way to cut them, and against a
//! strict reading of what httparse makes of them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;

mod reference;

const MAX: usize = 4096;

/// What a stream of requests comes to: how many are whole, and what is wrong with the next one.
type Verdict = (usize, Result<Position, Violation>);

fn requests(stream: &[u8], cut: impl Fn(usize) -> usize) -> Verdict {
    let mut guard = RequestGuard::new(MAX);
    let mut whole = 0;
    let (mut at, mut piece) = (0, 0);
    while at < stream.len() {
        let end = at.saturating_add(cut(piece).max(1)).min(stream.len());
        piece += 1;
        while at < end {
            match guard.take(&stream[at..end]) {
                Ok(judged) => {
                    assert!(judged.taken > 0);
                    at += judged.taken;
                    whole += usize::from(judged.at == Position::Between);
                }
                Err(violation) => return (whole, Err(violation)),
            }
        }
    }
    (whole, Ok(guard.position()))
}

fn request(stream: impl AsRef<[u8]>) -> Verdict {
    let stream = stream.as_ref();
    let verdict = requests(stream, |_| usize::MAX / 2);
    assert_eq!(requests(stream, |_| 1), verdict, "byte by byte");
    verdict
}

/// A head with these lines after a good request line and Host.
fn with(lines: &str) -> Verdict {
    request(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"))
}

fn chunked(body: &str) -> Verdict {
    request(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
    ))
}

#[test]
fn good_requests_are_taken_one_by_one() {
    let good = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a%20b?c=d&e HTTP/1.1\r\nHost:a\r\nAccept: \t */* \t\r\nX-Empty:\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nTRANSFER-encoding: Chunked\r\n\r\n5\r\nhello\r\n00\r\nX-Sum: 1\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Text: caf\u{e9}\r\n\r\n",
    ];
    for one in good {
        assert_eq!(request(one), (1, Ok(Position::Between)), "{one:?}");
    }
    assert_eq!(request(good.concat()), (good.len(), Ok(Position::Between)));
}

#[test]
fn each_rule_has_its_violation() {
    use Violation as V;
    let lines: &[(&str, V)] = &[
        ("Host: b", V::SeveralHosts),
        ("X: 1\r\n y", V::ObsFold),
        ("X: 1\r\n\ty: 2", V::ObsFold),
        ("X : 1", V::SpaceBeforeColon),
        ("X\t: 1", V::SpaceBeforeColon),
        (": 1", V::FieldName),
        ("X(: 1", V::FieldName),
        ("X\u{e9}: 1", V::FieldName),
        ("no colon\r\nX: 1", V::SpaceBeforeColon),
        ("nocolon", V::FieldName),
        ("X: \0", V::FieldValue),
        ("X: \u{7f}", V::FieldValue),
        ("X: a\rb", V::BareCarriageReturn),
        ("X: a\r\rb", V::BareCarriageReturn),
        ("X: a\nY: b", V::BareLineFeed),
        ("Content-Length: +5", V::ContentLength),
        ("Content-Length: -5", V::ContentLength),
        ("Content-Length: 5, 5", V::ContentLength),
        ("Content-Length: 0x5", V::ContentLength),
        ("Content-Length: 5 5", V::ContentLength),
        ("Content-Length:", V::ContentLength),
        ("Content-Length: 9223372036854775809", V::ContentLength),
        ("Content-Length: 00000000000000000005", V::ContentLength),
        (
            "Content-Length: 5\r\nContent-Length: 5",
            V::SeveralContentLengths,
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            V::TwoFramings,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            V::TwoFramings,
        ),
        ("Transfer-Encoding: gzip, chunked", V::TransferEncoding),
        ("Transfer-Encoding: chunked, identity", V::TransferEncoding),
        ("Transfer-Encoding: \u{b}chunked", V::FieldValue),
        ("Transfer-Encoding: chunked;q=1", V::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", V::TransferEncoding),
        ("Transfer-Encoding:", V::TransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            V::TransferEncoding,
        ),
        ("Transfer_Encoding: chunked", V::FoldedName),
        ("Content_Length: 5", V::FoldedName),
    ];
    for (line, violation) in lines {
        assert_eq!(with(line).1, Err(*violation), "{line:?}");
    }
    let starts: &[(&str, V)] = &[
        (" GET / HTTP/1.1", V::Method),
        ("G\u{e9}T / HTTP/1.1", V::Method),
        ("GET\t/ HTTP/1.1", V::Method),
        ("GET  / HTTP/1.1", V::Target),
        ("GET /\t HTTP/1.1", V::Target),
        ("GET /#x HTTP/1.1", V::Target),
        ("GET /\\x HTTP/1.1", V::Target),
        ("GET /\u{e9} HTTP/1.1", V::Target),
        ("GET * HTTP/1.1", V::Target),
        ("GET x HTTP/1.1", V::Target),
        ("GET ftp://a/ HTTP/1.1", V::Target),
        ("CONNECT / HTTP/1.1", V::Target),
        ("GET / x HTTP/1.1", V::Version),
        ("GET /  HTTP/1.1", V::Version),
        ("GET / HTTP/1.1 ", V::Version),
        ("GET / http/1.1", V::Version),
        ("GET / HTTP/1.10", V::Version),
        ("GET / HTTP/1.2", V::OtherVersion),
        ("GET / HTTP/2.0", V::OtherVersion),
        ("GET / HTTP/0.9", V::OtherVersion),
        ("GET /", V::Target),
        ("GET / HTTP/1.1\n", V::BareLineFeed),
        ("\r\n\r\nGET / HTTP/1.1", V::Method),
        ("\nGET / HTTP/1.1", V::BareLineFeed),
    ];
    for (start, violation) in starts {
        let head = format!("{start}\r\nHost: a\r\n\r\n");
        assert_eq!(request(&head).1, Err(*violation), "{start:?}");
    }
    assert_eq!(request("GET / HTTP/1.1\r\nX: a\r\n\r\n").1, Err(V::NoHost));
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(old).1, Err(V::TransferEncodingIn10));
}

#[test]
fn each_rule_of_chunks_has_its_violation() {
    use Violation as V;
    let bodies: &[(&str, V)] = &[
        ("5;a=b\r\nhello\r\n0\r\n\r\n", V::ChunkExtension),
        ("5 \r\nhello\r\n0\r\n\r\n", V::ChunkSize),
        (" 5\r\nhello\r\n0\r\n\r\n", V::ChunkSize),
        ("0x5\r\nhello\r\n0\r\n\r\n", V::ChunkSize),
        ("+5\r\nhello\r\n0\r\n\r\n", V::ChunkSize),
        ("\r\nhello", V::ChunkSize),
        ("g\r\n", V::ChunkSize),
        ("00000000000000005\r\nhello", V::ChunkSize),
        ("ffffffffffffffff\r\n", V::ChunkSize),
        ("5\nhello\r\n0\r\n\r\n", V::BareLineFeed),
        ("5\r\nhello\n0\r\n\r\n", V::ChunkEnd),
        ("5\r\nhello0\r\n\r\n", V::ChunkEnd),
        ("5\r\nhello\r0\r\n\r\n", V::ChunkEnd),
        ("5\r0hello\r\n0\r\n\r\n", V::BareCarriageReturn),
        ("0\r\nX: 1\n\r\n", V::BareLineFeed),
        ("0\r\nX : 1\r\n\r\n", V::SpaceBeforeColon),
        ("0\r\n x: 1\r\n\r\n", V::ObsFold),
        ("0\r\nHost: b\r\n\r\n", V::TrailerField),
        ("0\r\nContent-Length: 5\r\n\r\n", V::TrailerField),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", V::TrailerField),
        ("0\r\nAuthorization: x\r\n\r\n", V::TrailerField),
        ("0\r\nCookie: x\r\n\r\n", V::TrailerField),
        ("0\r\nContent_Length: 5\r\n\r\n", V::FoldedName),
    ];
    for (body, violation) in bodies {
        assert_eq!(chunked(body), (0, Err(*violation)), "{body:?}");
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let head = |padding: usize| {
        let fixed = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        let padding = "x".repeat(padding - fixed);
        request(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {padding}\r\n\r\n"))
    };
    assert_eq!(head(MAX), (1, Ok(Position::Between)));
    assert_eq!(head(MAX + 1).1, Err(Violation::HeadTooLong));
    let fields = |count: usize| with("X:\r\n".repeat(count - 1).trim_end());
    assert_eq!(fields(256), (1, Ok(Position::Between)));
    assert_eq!(fields(257).1, Err(Violation::TooManyFields));
    let name = |length: usize| with(&format!("{}: 1", "x".repeat(length)));
    assert_eq!(name(256), (1, Ok(Position::Between)));
    assert_eq!(name(257).1, Err(Violation::FieldName));
    let trailers = |count: usize| chunked(&format!("0\r\n{}\r\n", "X:\r\n".repeat(count)));
    assert_eq!(trailers(64), (1, Ok(Position::Between)));
    assert_eq!(trailers(65).1, Err(Violation::TrailersTooLong));
    let trailer = |length: usize| chunked(&format!("0\r\nX:{}\r\n\r\n", "x".repeat(length - 6)));
    assert_eq!(trailer(8192), (1, Ok(Position::Between)));
    assert_eq!(trailer(8193).1, Err(Violation::TrailersTooLong));
    let mut guard = RequestGuard::new(1 << 20);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(65_534));
    assert_eq!(guard.take(long.as_bytes()), Err(Violation::TargetTooLong));
    let huge = with("Content-Length: 9223372036854775807");
    assert_eq!(huge, (0, Ok(Position::InBody)));
}

fn responses(exchange: Exchange, stream: &str, size: usize) -> Verdict {
    let mut guard = ResponseGuard::default();
    guard.expect(exchange);
    let mut whole = 0;
    for piece in stream.as_bytes().chunks(size) {
        let mut at = 0;
        while at < piece.len() {
            match guard.take(&piece[at..]) {
                Ok(judged) => at += judged.taken,
                Err(violation) => return (whole, Err(violation)),
            }
            if guard.position() == Position::Between && guard.exchange().is_none() {
                whole += 1;
            }
        }
    }
    (whole, Ok(guard.position()))
}

fn response(exchange: Exchange, stream: &str) -> Verdict {
    let verdict = responses(exchange, stream, usize::MAX);
    assert_eq!(responses(exchange, stream, 1), verdict, "{stream:?}");
    verdict
}

#[test]
fn good_responses_end_where_they_should() {
    use Exchange::{Head, Plain, Upgrade};
    let whole = [
        (Plain, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        (Plain, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
        (
            Plain,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            Plain,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        ),
        (Head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        (
            Head,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            Plain,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX: 1\r\n\r\n",
        ),
        (
            Upgrade,
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    for (exchange, one) in whole {
        assert_eq!(response(exchange, one), (1, Ok(Position::Between)), "{one}");
    }
    let open = [
        (Plain, "HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        (
            Upgrade,
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\0\n\r",
        ),
    ];
    for (exchange, one) in open {
        assert_eq!(response(exchange, one), (0, Ok(Position::InBody)), "{one}");
    }
}

#[test]
fn bad_responses_are_refused() {
    use Violation as V;
    let bad: &[(&str, V)] = &[
        (
            "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            V::BareLineFeed,
        ),
        ("HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n", V::BareLineFeed),
        ("HTTP/1.1 200 O\0K\r\n\r\n", V::StatusLine),
        ("HTTP/1.1 20 OK\r\n\r\n", V::StatusLine),
        ("HTTP/1.1 999 OK\r\n\r\n", V::StatusLine),
        ("HTTP/2 200\r\n\r\n", V::StatusLine),
        ("ICY 200 OK\r\n\r\n", V::StatusLine),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
            V::SeveralContentLengths,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            V::TwoFramings,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            V::TransferEncoding,
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            V::TransferEncodingIn10,
        ),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", V::ObsFold),
        ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", V::SpaceBeforeColon),
        (
            "HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nhi",
            V::BodyNotAllowed,
        ),
        (
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
            V::UnaskedSwitch,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n",
            V::Unasked,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi",
            V::BareLineFeed,
        ),
    ];
    for (one, violation) in bad {
        assert_eq!(response(Exchange::Plain, one).1, Err(*violation), "{one:?}");
    }
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33);
    let verdict = response(Exchange::Plain, &hints);
    assert_eq!(verdict.1, Err(Violation::TooManyInformational));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(128 * 1024));
    let verdict = responses(Exchange::Plain, &endless, 4096);
    assert_eq!(verdict.1, Err(Violation::HeadTooLong));
    let extensions = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}",
        "x".repeat(9000)
    );
    let verdict = responses(Exchange::Plain, &extensions, 4096);
    assert_eq!(verdict.1, Err(Violation::ChunkExtensionsTooLong));
}

#[test]
fn refusals_are_seen_among_frames_however_they_are_written() {
    let frame = |kind: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    };
    let stream = [
        frame(4, 0, &[]),
        frame(0, 1, &[3; 300]),
        frame(3, 5, &1_u32.to_be_bytes()),
        frame(3, 7, &8_u32.to_be_bytes()),
        frame(7, 0, &[[0, 0, 0, 9], [0, 0, 0, 11], *b"why?"].concat()),
        frame(7, 0, &[0; 8]),
    ]
    .concat();
    let expected = [
        Refusal { stream: 5, code: 1 },
        Refusal {
            stream: 0,
            code: 11,
        },
    ];
    for size in [1, 2, 7, 9, 10, 64, 4096] {
        let mut seen = Vec::new();
        let mut watch = FrameWatch::default();
        for piece in stream.chunks(size) {
            watch.written(piece, &mut |refusal| seen.push(refusal));
        }
        assert_eq!(seen, expected, "in pieces of {size}");
    }
}

#[test]
fn an_answer_that_nobody_was_asked_for_is_the_library_s_own() {
    let head =
        |flags: u8, stream: u32| [&[0, 0, 1, 1, flags][..], &stream.to_be_bytes(), b"x"].concat();
    let mut watch = FrameWatch::default();
    let mut seen = Vec::new();
    // An informational head, a head and trailers are one answer.
    for frame in [head(4, 1), head(4, 1), head(5, 1), head(5, 3)] {
        watch.written(&frame, &mut |refusal| seen.push(refusal));
    }
    watch.compare(2, &mut |refusal| seen.push(refusal));
    assert_eq!(seen, []);
    watch.written(&head(5, 5), &mut |refusal| seen.push(refusal));
    for _ in 0..2 {
        watch.compare(2, &mut |refusal| seen.push(refusal));
    }
    assert_eq!(seen.len(), 1, "told once");
    assert!(seen[0].name().is_some_and(|name| name.contains("431")));
}

/// Pieces of requests, good and bad, so that what is put together of them is nearly right.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known: &[&str] = &[
        "GET / HTTP/1.1\r\n",
        "POST /x?y HTTP/1.1\r\n",
        "PUT /\u{e9} HTTP/1.0\r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "GET / HTTP/1.2\r\n",
        "Host: a\r\n",
        "Host: b\r\n",
        "host : a\r\n",
        "X-Y: z\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: +3\r\n",
        "content-length:\t3 \r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "3;x\r\nabc\r\n",
        ": ",
        "\0",
    ];
    prop_oneof![
        8 => prop::sample::select(known).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(
        &[
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\n",
            "",
        ][..],
    );
    (start, prop::collection::vec(piece(), 0..8))
        .prop_map(|(start, pieces)| [start.as_bytes().to_vec(), pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_verdict_does_not_depend_on_the_cut(stream in head(), cuts in prop::collection::vec(1_usize..9, 1..20)) {
        let whole = requests(&stream, |_| usize::MAX / 2);
        prop_assert_eq!(requests(&stream, |piece| cuts[piece % cuts.len()]), whole);
    }

    #[test]
    fn what_is_accepted_is_what_a_strict_reader_accepts(stream in head()) {
        let mine = requests(&stream, |_| usize::MAX / 2);
        match reference::read(&stream) {
            // The reference reads one request; what follows is not its business.
            reference::Read::Whole => prop_assert!(mine.0 >= 1, "refused {mine:?}"),
            reference::Read::Bad => prop_assert!(mine.0 == 0 && mine.1.is_err(), "taken {mine:?}"),
            reference::Read::More => prop_assert!(mine.0 == 0, "whole {mine:?}"),
        }
    }

    #[test]
    fn no_bytes_make_a_response_guard_panic(
        stream in prop::collection::vec(any::<u8>(), 0..200), start in 0_usize..3, size in 1_usize..50
    ) {
        let start = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][start];
        let stream = [start.as_bytes(), &stream].concat();
        let stream = String::from_utf8_lossy(&stream).into_owned();
        let cut = responses(Exchange::Plain, &stream, size);
        prop_assert_eq!(cut, responses(Exchange::Plain, &stream, usize::MAX));
    }
}

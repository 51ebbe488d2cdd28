//! What is found in which spelling, what a head becomes, and what bodies do at their edges.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fuzzed;
mod oracle;
mod spelling;

use super::*;
use crate::policy::{Class, Destination, Host, RequestFacts, SecretRef, SourceFile, compile};
use std::io::Write;

const KEY: &[u8] = b"sk-ant/api03-Zz09";

fn scrubber() -> Scrubber {
    Scrubber::new([KEY]).unwrap()
}

fn text(scrubber: &Scrubber, text: &str) -> String {
    let scrubbed = scrubber.text(text.as_bytes());
    scrubbed.map_or(text.to_owned(), |(bytes, _)| {
        String::from_utf8(bytes.to_vec()).unwrap()
    })
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::try_from(*value).unwrap(),
        );
    }
    headers
}

/// A body in these pieces, as the client gets it.
fn body(status: u16, head: &mut HeaderMap, pieces: &[&[u8]]) -> Result<Vec<u8>, Corrupt> {
    let mut body = scrubber().body(StatusCode::from_u16(status).unwrap(), head);
    let mut out = Vec::new();
    for piece in pieces {
        body.feed(Bytes::copy_from_slice(piece));
        while let Some(data) = body.pull()? {
            out.extend_from_slice(&data);
        }
    }
    out.extend_from_slice(&body.finish()?);
    Ok(out)
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_secret_is_found_in_every_spelling() {
    let scrubber = scrubber();
    for spelled in [
        "sk-ant/api03-Zz09",
        "sk-ant%2Fapi03-Zz09",
        "sk%2dant%2fapi03%2DZz09",
        "%73%6B%2D%61%6e%74%2F%61%70%69%30%33%2D%5A%7A%30%39",
        "sk-ant\\/api03-Zz09",
        "\\u0073k-ant\\u002Fapi03-Zz0\\u0039",
        "sk%2Dant\\/api03\\u002dZz09",
        "c2stYW50L2FwaTAzLVp6MDk",
        "c2stYW50L2FwaTAzLVp6MDk",
    ] {
        assert_eq!(text(&scrubber, &format!("<{spelled}>")), "<[redacted]>");
    }
    for near in [
        "sk-ant/api03-Zz0",
        "sk-ant%2api03-Zz09",
        "sk-ant\\\\/api03-Zz09",
    ] {
        assert_eq!(text(&scrubber, near), near);
    }
}

#[test]
fn base64_of_a_longer_text_is_found_wherever_the_secret_begins_in_it() {
    let scrubber = scrubber();
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "!", "!!", "!!!"] {
            let whole = [before.as_bytes(), KEY, after.as_bytes()].concat();
            let standard = STANDARD.encode(&whole);
            let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&whole);
            for encoded in [
                &standard,
                &url,
                &standard.replace('/', "\\/"),
                &standard.replace('+', "%2B"),
            ] {
                let out = text(&scrubber, encoded);
                let from = before.len() * 8 / 6;
                assert!(out.contains("[redacted]"), "{before}|{after}: {encoded}");
                assert_eq!(out.find('['), Some(from), "{out}");
                assert!(out.len() <= from + 10 + 6, "{out}");
            }
        }
    }
}

#[test]
fn characters_beyond_ascii_are_found_as_utf_8_as_escapes_and_as_latin_1() {
    let scrubber = Scrubber::new(["pässwörd😀".as_bytes()]).unwrap();
    for spelled in [
        "pässwörd😀",
        "p%C3%A4sswörd%F0%9f%98%80",
        "p\\u00e4ssw\\u00F6rd\\uD83D\\ude00",
        "pÃ¤sswÃ¶rdð\u{9f}\u{98}\u{80}",
        "p\\u00c3\\u00a4sswörd😀",
    ] {
        assert_eq!(text(&scrubber, spelled), "[redacted]", "{spelled}");
    }
}

#[test]
fn a_space_may_be_a_plus_as_forms_have_it() {
    let scrubber = Scrubber::new([&b"correct horse"[..]]).unwrap();
    assert_eq!(text(&scrubber, "p=correct+horse&"), "p=[redacted]&");
}

#[test]
fn secrets_that_overlap_are_all_replaced() {
    let scrubber = Scrubber::new([&b"abcdefgh"[..], b"efghijkl", b"abcdefghij--"]).unwrap();
    assert_eq!(text(&scrubber, "<abcdefghijkl>"), "<[redacted]>");
    assert_eq!(text(&scrubber, "<abcdefghij-->"), "<[redacted]>");
    assert_eq!(text(&scrubber, "abcdefghabcdefgh"), "[redacted][redacted]");
    // Two next to one another share a digit of base64.
    let encoded = STANDARD.encode("abcdefghefghijkl");
    let out = text(&scrubber, &encoded);
    assert!(out.starts_with("[redacted]") && out.len() < 16, "{out}");
}

#[test]
fn what_is_too_short_is_left_alone() {
    assert!(Scrubber::new([&b"seven77"[..], b""]).is_none());
    let scrubber = Scrubber::new([&b"seven77"[..], b"eight888"]).unwrap();
    assert_eq!(text(&scrubber, "seven77 eight888"), "seven77 [redacted]");
}

#[test]
fn headers_lose_secrets_and_nothing_else() {
    let mut map = headers(&[
        ("location", "https://a.example/?k=sk-ant%2Fapi03-Zz09&x=1"),
        ("set-cookie", "a=1"),
        ("set-cookie", "k=sk-ant/api03-Zz09, sk-ant/api03-Zz09"),
        ("x-other", "sk-ant"),
    ]);
    assert_eq!(scrubber().headers(&mut map), 3);
    assert_eq!(map["location"], "https://a.example/?k=[redacted]&x=1");
    let cookies: Vec<_> = map.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "k=[redacted], [redacted]"]);
    assert_eq!(map["x-other"], "sk-ant");
    let lower = Scrubber::new([&b"x-lower-case-secret"[..]]).unwrap();
    let mut map = headers(&[("x-lower-case-secret", "1"), ("x", "2")]);
    assert_eq!((lower.headers(&mut map), map.len()), (1, 1));
}

#[test]
fn an_event_is_never_held_back_and_a_word_only_until_it_ends() {
    let mut head = headers(&[("content-type", "text/event-stream")]);
    let mut body = scrubber().body(StatusCode::OK, &mut head);
    let mut feed = |data: &str| {
        body.feed(Bytes::copy_from_slice(data.as_bytes()));
        body.pull()
            .unwrap()
            .map(|out| String::from_utf8(out.to_vec()).unwrap())
    };
    assert_eq!(feed("data: x\n\n").as_deref(), Some("data: x\n\n"));
    assert_eq!(feed("data: sk-ant").as_deref(), Some("data: "));
    assert_eq!(feed("/api03-").as_deref(), None);
    assert_eq!(feed("X\n\n").as_deref(), Some("sk-ant/api03-X\n\n"));
    assert_eq!(feed("ask-ant/").as_deref(), None);
    assert_eq!(feed("api03-Zz09").as_deref(), None);
    assert_eq!(feed(" s").as_deref(), Some("a[redacted] "));
    assert_eq!(&body.finish().unwrap()[..], b"s");
}

#[test]
fn nothing_can_be_told_of_a_secret_from_less_than_all_of_it() {
    let other = b"Qq-xyz/lmno4-7wBf";
    assert_eq!(KEY.len(), other.len());
    let scrubbers = [scrubber(), Scrubber::new([&other[..]]).unwrap()];
    // What each shows of a body, and when.
    let shown = |scrubber: &Scrubber, pieces: &[&[u8]], content_type: &'static str| {
        let mut head = headers(&[("content-type", content_type), ("content-length", "9")]);
        let mut body = scrubber.body(StatusCode::OK, &mut head);
        let mut seen = Vec::new();
        for piece in pieces {
            body.feed(Bytes::copy_from_slice(piece));
            while let Some(data) = body.pull().unwrap() {
                seen.push(data);
            }
            seen.push(Bytes::from(format!("idle: {}", body.is_idle())));
        }
        seen.push(body.finish().unwrap());
        (seen, head)
    };
    for length in 1..KEY.len() {
        let guess = &KEY[..length];
        let encoded = STANDARD.encode(guess);
        let spelled: String = guess.iter().map(|byte| format!("%{byte:02x}")).collect();
        for guess in [guess, encoded.as_bytes(), spelled.as_bytes()] {
            for content_type in ["text/plain", "application/octet-stream"] {
                for pieces in [
                    &[b"~~~~", guess][..],
                    &[guess, b" and more"],
                    &[b"ab ", guess, b"-", guess],
                ] {
                    let [right, wrong] = [0, 1].map(|n| shown(&scrubbers[n], pieces, content_type));
                    assert_eq!(right, wrong, "{:?}", String::from_utf8_lossy(guess));
                }
            }
        }
    }
}

#[test]
fn text_gets_a_word_and_everything_else_keeps_its_length() {
    for (content_type, is_text) in [
        (Some("text/html; charset=utf-8"), true),
        (Some("Application/JSON"), true),
        (Some("application/problem+json"), true),
        (Some("application/x-www-form-urlencoded"), true),
        (None, true),
        (Some("application/grpc"), false),
        (Some("application/octet-stream"), false),
        (Some("application/vnd.amazon.eventstream"), false),
        (Some("multipart/byteranges"), false),
    ] {
        let mut head = headers(&[("content-length", "19"), ("etag", "\"e\"")]);
        if let Some(value) = content_type {
            head.insert("content-type", HeaderValue::from_static(value));
        }
        let out = body(200, &mut head, &[b"<sk-ant/api", b"03-Zz09>"]).unwrap();
        let expected: &[u8] = if is_text {
            b"<[redacted]>"
        } else {
            b"<*****************>"
        };
        assert_eq!(out, expected, "{content_type:?}");
        assert_eq!(head.contains_key("content-length"), !is_text);
        assert_eq!(head["etag"], "\"e\"");
    }
}

#[test]
fn a_coded_body_is_decoded_and_its_head_says_so() {
    let mut head = headers(&[
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("content-length", "99"),
        ("etag", "\"e\""),
        ("content-digest", "sha-256=:x:"),
    ]);
    let coded = gzip(b"{\"k\":\"sk-ant\\/api03-Zz09\"}");
    let (one, other) = coded.split_at(20);
    let out = body(200, &mut head, &[one, other]).unwrap();
    assert_eq!(out, b"{\"k\":\"[redacted]\"}");
    let left: Vec<_> = head.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["content-type", "etag"]);
    assert_eq!(head["etag"], "W/\"e\"");
}

#[test]
fn what_cannot_be_decoded_keeps_its_length_and_loses_what_shows() {
    for (status, coding) in [(200, "zstd, gzip"), (200, "compress"), (206, "gzip")] {
        let mut head = headers(&[
            ("content-type", "text/plain"),
            ("content-length", "17"),
            ("content-encoding", coding),
        ]);
        let out = body(status, &mut head, &[KEY]).unwrap();
        assert_eq!(out, [b'*'; 17], "{coding}");
        assert_eq!(head["content-encoding"], coding);
        assert_eq!(head["content-length"], "17");
    }
}

#[test]
fn a_corrupt_or_shortened_body_is_an_error() {
    let whole = gzip(b"hello, hello, hello");
    let zstd = zstd::bulk::compress(b"hello, hello, hello", 1).unwrap();
    for (coding, data) in [
        ("gzip", &whole[..whole.len() - 3]),
        ("gzip", b"plain text, whatever the head says"),
        ("br", b"plain text, whatever the head says"),
        ("zstd", b"plain text, whatever the head says"),
        ("zstd", &zstd[..zstd.len() - 3]),
        ("deflate", b"x"),
    ] {
        let mut head = headers(&[("content-encoding", coding)]);
        assert!(body(200, &mut head, &[data]).is_err(), "{coding}");
    }
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let mut head = headers(&[("content-encoding", coding)]);
        assert_eq!(body(200, &mut head, &[]).unwrap(), b"", "{coding}");
    }
}

#[test]
fn a_bomb_comes_out_in_small_pieces() {
    let zeros = vec![0; 64 * 1024 * 1024];
    let mut brotli = Vec::new();
    let mut from = &zeros[..];
    let params = brotli::enc::BrotliEncoderParams {
        quality: 1,
        ..Default::default()
    };
    brotli::BrotliCompress(&mut from, &mut brotli, &params).unwrap();
    for (coding, data) in [
        ("gzip", gzip(&zeros)),
        ("zstd", zstd::bulk::compress(&zeros, 1).unwrap()),
        ("br", brotli),
    ] {
        let mut head = headers(&[("content-encoding", coding)]);
        let mut body = scrubber().body(StatusCode::OK, &mut head);
        body.feed(data.into());
        let mut total = 0;
        while let Some(piece) = body.pull().unwrap() {
            assert!(piece.len() <= 1024 * 1024, "{coding}: {}", piece.len());
            total += piece.len();
        }
        total += body.finish().unwrap().len();
        assert_eq!(total, zeros.len(), "{coding}");
    }
}

#[test]
fn only_codings_that_can_be_undone_are_asked_for() {
    for (asked, range, sent) in [
        (
            Some("gzip, br;q=0.8, zstd, sdch, *;q=0.1"),
            false,
            "gzip, br;q=0.8, zstd",
        ),
        (Some("compress"), false, "identity"),
        (None, false, "identity"),
        (Some("gzip"), true, "identity"),
    ] {
        let mut head = HeaderMap::new();
        head.extend(asked.map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value))));
        head.extend(range.then(|| (RANGE, HeaderValue::from_static("bytes=0-1"))));
        limit_codings(&mut head);
        assert_eq!(head[ACCEPT_ENCODING], sent);
    }
}

#[test]
fn a_request_s_scrubber_knows_each_form_of_its_credentials_and_is_made_once() {
    const POLICY: &str = include_str!("../../../policies/openai/policy.yaml");
    let file = SourceFile {
        name: "p.yaml".into(),
        text: POLICY.to_owned().into(),
    };
    let policy = compile(&[file]).policy.unwrap();
    let gateway = policy.gateways.values().next().unwrap();
    let host = Host::parse("api.openai.com").unwrap();
    let to = Destination {
        address: "203.0.113.9:443".parse().unwrap(),
        host: Some(&host),
        listener: gateway.listener(Class::Tls, 443).unwrap(),
    };
    let facts = RequestFacts {
        host: Some(&host),
        port: 443,
        method: "POST",
        path: "/v1/chat/completions",
        headers: &HeaderMap::new(),
        model: None,
        tls: true,
    };
    let permit = gateway.authorize(&to).unwrap();
    let permit = gateway.authorize_request(&permit, &facts).unwrap();
    let references: Vec<SecretRef> = permit
        .injections()
        .iter()
        .flat_map(|injection| injection.secret_refs().into_iter().cloned())
        .collect();
    let secrets = Secrets::from_values(
        references
            .into_iter()
            .map(|reference| (reference, SecretValue::new(KEY.to_vec()))),
    );
    let sent = headers(&[
        ("authorization", "Bearer sk-ant/api03-Zz09"),
        ("accept", "text/plain"),
    ]);
    let scrubbers = Scrubbers::default();
    let values = || injected(&permit, &secrets, &sent);
    assert!(is_sought(&values()) && token(&permit, &sent).is_empty());
    let one = scrubbers.of(&values()).unwrap();
    assert_eq!(text(&one, "Bearer sk-ant/api03-Zz09"), "Bearer [redacted]");
    assert_eq!(
        text(&one, "sk-ant/api03-Zz09 text/plain"),
        "[redacted] text/plain"
    );
    let again = scrubbers.of(&values()).unwrap();
    assert!(Arc::ptr_eq(&one.0, &again.0));
    // Too short alone, not in what is sent.
    for (value, expected) in [
        ("Basic dXNlcjpwYXNz", &["dXNlcjpwYXNz", "user:pass"][..]),
        ("Token short", &["Token short"]),
        ("as-it-is", &["as-it-is"]),
    ] {
        let all = forms(value.as_bytes());
        let all: Vec<&[u8]> = all.iter().map(SecretValue::expose).collect();
        let expected: Vec<&[u8]> = expected.iter().map(|form| form.as_bytes()).collect();
        assert_eq!(all, expected);
    }
}

/// What the client has after each piece of a body of this type, and after its end.
fn shown(scrubber: &Scrubber, content_type: &str, pieces: &[&[u8]]) -> Vec<String> {
    let mut head = headers(&[("content-type", content_type)]);
    let mut body = scrubber.body(StatusCode::OK, &mut head);
    let mut all = Vec::new();
    for piece in pieces {
        body.feed(Bytes::copy_from_slice(piece));
        let mut now = Vec::new();
        while let Some(data) = body.pull().unwrap() {
            now.extend_from_slice(&data);
        }
        all.push(String::from_utf8(now).unwrap());
    }
    all.push(String::from_utf8(body.finish().unwrap().to_vec()).unwrap());
    all
}

#[test]
fn no_pause_in_a_secret_shows_a_byte_of_it() {
    let spaced = b"correct horse; battery {staple}".as_slice();
    let lines = b"first line\nsecond line".as_slice();
    for secret in [KEY, spaced, lines] {
        let scrubber = Scrubber::new([secret]).unwrap();
        for cut in 1..secret.len() {
            let (before, after) = secret.split_at(cut);
            let pieces: [&[u8]; 2] = [&[b"<", before].concat(), &[after, b">\n"].concat()];
            let text = shown(&scrubber, "text/plain", &pieces);
            assert!(["", "<"].contains(&&*text[0]), "{text:?}");
            assert_eq!(text.concat(), "<[redacted]>\n");
            for content_type in ["application/octet-stream", "application/grpc"] {
                let other = shown(&scrubber, content_type, &pieces);
                assert!(["", "<"].contains(&&*other[0]), "{other:?}");
                assert_eq!(other.concat(), format!("<{}>\n", "*".repeat(secret.len())));
            }
        }
    }
}

#[test]
fn what_has_been_said_whole_is_not_kept_from_who_waits_for_it() {
    let spaced = Scrubber::new([b"correct horse {staple}".as_slice()]).unwrap();
    for scrubber in [scrubber(), spaced] {
        for (content_type, message) in [
            ("text/event-stream", "data: ask {\"s\":\"sk-ant\"}\n\n"),
            ("application/x-ndjson", "{\"a\":\"correct\"}\n"),
            ("text/plain", "the task\r\n"),
            ("application/grpc", "\0\0\0\0\x06sk-ant"),
            ("application/grpc+proto", "\x01\0\0\0\x07correct"),
        ] {
            let seen = shown(&scrubber, content_type, &[message.as_bytes(); 2]);
            assert_eq!(seen, [message, message, ""], "{content_type}");
        }
    }
    // Without such a secret a JSON document ends where it ends.
    let seen = shown(
        &scrubber(),
        "application/json",
        &[b"{\"a\":1}", b"{\"a\":2}"],
    );
    assert_eq!(seen, ["{\"a\":1}", "{\"a\":2}", ""]);
}

/// What a connection reads into is large, and an upstream may say one byte and then nothing.
#[test]
fn a_word_that_waits_keeps_no_memory_but_its_own() {
    let scrubber = Scrubber::new([b"sk-a-secret-value".as_slice()]).unwrap();
    let mut body = scrubber.body(StatusCode::OK, &mut HeaderMap::new());
    let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
    for at in 0..3 {
        body.feed(buffer.slice(at..=at));
        assert_eq!(body.pull().unwrap(), None);
        assert!(buffer.is_unique(), "after {} bytes", at + 1);
    }
    assert_eq!(body.finish().unwrap(), "xxx");
}

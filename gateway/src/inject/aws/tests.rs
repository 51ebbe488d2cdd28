//! Signatures against the published test suite of Signature Version 4, and what becomes of what the sandbox
//! signed itself.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::secrets::SecretValue;
use bytes::Bytes;
use http_body_util::Full;
use std::time::Duration;

/// Of the test suite.
const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
/// 2015-08-30T12:36:00Z
const TIME: Duration = Duration::from_secs(1_440_938_160);

fn hashed(declared: bool) -> Payload {
    Payload::Hashed {
        declared,
        hash: None,
    }
}

fn plan(service: &str, token: Option<&str>, payload: Payload) -> Plan {
    let token = token.map(str::to_owned);
    Plan {
        credentials: Credentials::new(ID, KEY, token, None, "test"),
        service: service.to_owned(),
        region: "us-east-1".to_owned(),
        payload,
        time: SystemTime::UNIX_EPOCH + TIME,
    }
}

fn request(method: &str, target: &str, body: &str) -> Request<RequestBody> {
    let body = Full::new(Bytes::from(body.to_owned()));
    Request::builder()
        .method(method)
        .uri(format!("https://example.amazonaws.com{target}"))
        .header(HOST, "example.amazonaws.com")
        .body(body.map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

fn signed(mut plan: Plan, request: Request<RequestBody>) -> HeaderMap {
    // Those that are hashed have no body.
    plan.cover(std::iter::empty());
    plan.sign(request, &room()).unwrap().headers().clone()
}

fn authorization(headers: &HeaderMap) -> &str {
    headers[AUTHORIZATION].to_str().unwrap()
}

#[test]
fn signatures_are_those_of_the_published_test_suite() {
    for (method, target, signature) in [
        (
            "GET",
            "/",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/example/..",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/./example",
            "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        ),
        (
            "GET",
            "//example//",
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        (
            "GET",
            "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "GET",
            "/?Param1=value1",
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "GET",
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "POST",
            "/",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "POST",
            "/?Param1=value1",
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
    ] {
        let plan = plan("service", None, hashed(false));
        let headers = signed(plan, request(method, target, ""));
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential={ID}/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        assert_eq!(authorization(&headers), expected, "{method} {target}");
        assert_eq!(headers[DATE], "20150830T123600Z");
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert!(!headers.contains_key(CONTENT_SHA256));
    }
}

#[test]
fn a_session_token_is_sent_and_signed() {
    let payload = hashed(false);
    let headers = signed(
        plan("service", Some(TOKEN), payload),
        request("POST", "/", ""),
    );
    assert!(
        authorization(&headers).ends_with(
            "SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
        ),
        "{headers:?}"
    );
    assert_eq!(headers["x-amz-security-token"], TOKEN);
    assert!(headers["x-amz-security-token"].is_sensitive());
}

#[test]
fn s3_signs_a_path_alike_however_it_is_escaped_and_as_it_is() {
    let mut seen = Vec::new();
    for target in ["/b/a(1)%2Bx/../y", "/b/a%281%29%2bx/%2E./y"] {
        let plan = plan("s3", None, Payload::Said(UNSIGNED.to_owned()));
        let headers = signed(plan, request("PUT", target, "body"));
        assert_eq!(headers[CONTENT_SHA256], UNSIGNED);
        seen.push(authorization(&headers).to_owned());
    }
    assert_eq!(seen[0], seen[1]);
    let plan = plan("s3", None, Payload::Said(UNSIGNED.to_owned()));
    let headers = signed(plan, request("PUT", "/b/y", "body"));
    assert_ne!(seen[0], authorization(&headers));
}

#[test]
fn a_body_is_signed_alike_in_whatever_pieces_it_came_and_never_unread() {
    // Of the test suite: post-x-www-form-urlencoded.
    let signature = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
    let body = b"Param1=value1";
    for size in 1..=body.len() {
        let mut request = request("POST", "/", "");
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        let mut plan = plan("service", None, hashed(false));
        assert!(plan.covers_body());
        plan.cover(body.chunks(size));
        let signed = plan.sign(request, &room()).unwrap();
        let said = authorization(signed.headers());
        assert!(said.ends_with(signature), "{said}");
    }
    let unread = plan("service", None, hashed(true)).sign(request("POST", "/", ""), &room());
    assert!(matches!(unread, Err(InjectError::Unsignable(_))));
    let said = plan("s3", None, Payload::Said(UNSIGNED.to_owned()));
    assert!(!said.covers_body());
}

#[test]
fn the_sandbox_s_word_for_its_body_decides_how_it_is_signed() {
    let hash = "E".repeat(64);
    let said = |word: &str| Payload::Said(word.to_owned());
    for (service, tls, words, expected) in [
        ("s3", true, vec![], Some(said(UNSIGNED))),
        ("s3", false, vec![], Some(hashed(true))),
        ("s3", true, vec![&*hash], Some(said(&"e".repeat(64)))),
        ("s3", true, vec![UNSIGNED], Some(said(UNSIGNED))),
        ("s3", false, vec![UNSIGNED], Some(hashed(true))),
        (
            "s3",
            true,
            vec![UNSIGNED_TRAILER],
            Some(said(UNSIGNED_TRAILER)),
        ),
        (
            "s3",
            true,
            vec![CHUNKED],
            Some(Payload::Chunked { trailer: false }),
        ),
        (
            "s3",
            true,
            vec![CHUNKED_TRAILER],
            Some(Payload::Chunked { trailer: true }),
        ),
        (
            "s3",
            true,
            vec!["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"],
            None,
        ),
        ("s3", true, vec!["anything"], None),
        ("s3", true, vec![UNSIGNED, UNSIGNED], None),
        ("bedrock", true, vec![], Some(hashed(false))),
        ("glacier", true, vec![&*hash], Some(hashed(true))),
        (
            "transcribe",
            true,
            vec!["STREAMING-AWS4-HMAC-SHA256-EVENTS"],
            None,
        ),
        ("bedrock", true, vec![CHUNKED], None),
    ] {
        let mut headers = HeaderMap::new();
        for word in &words {
            headers.append(CONTENT_SHA256, word.parse().unwrap());
        }
        let payload = Payload::of(&headers, service, tls).ok();
        assert_eq!(payload, expected, "{service} {tls} {words:?}");
    }
}

#[test]
fn keys_that_are_missing_or_cannot_be_keys_sign_nothing() {
    let secret = |key: &str| SecretRef {
        name: "aws".into(),
        key: key.into(),
    };
    let [id, key, token] = ["access_key_id", "secret_access_key", "session_token"].map(secret);
    let with = |values: &[(&SecretRef, &str)]| {
        let values = values.iter();
        Secrets::from_values(
            values.map(|(of, value)| ((*of).clone(), SecretValue::new(value.as_bytes().to_vec()))),
        )
    };
    let read = |secrets: &Secrets| credentials(secrets, &id, &key, &token);
    let whole = read(&with(&[(&id, ID), (&key, KEY)])).unwrap();
    assert_eq!((whole.access_key_id(), whole.session_token()), (ID, None));
    let whole = read(&with(&[(&id, ID), (&key, KEY), (&token, TOKEN)])).unwrap();
    assert_eq!(whole.session_token(), Some(TOKEN));
    assert!(matches!(
        read(&with(&[(&id, ID)])),
        Err(InjectError::Missing(MissingSecret(missing))) if missing == key
    ));
    assert!(matches!(
        read(&with(&[(&id, "two\nlines"), (&key, KEY)])),
        Err(InjectError::Unusable { .. })
    ));
}

fn room() -> Room {
    Room::new(std::sync::Arc::new(tokio::sync::Semaphore::new(
        1024 * 1024,
    )))
}

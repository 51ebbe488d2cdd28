//! What an extended CONNECT becomes, and which consent counts.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use http::Request;
use http::header::{SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};

fn connect(protocol: &'static str) -> Parts {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://a.example/chat?x=1")
        .version(http::Version::HTTP_2)
        .extension(Protocol::from_static(protocol))
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, "chat")
        .header(SEC_WEBSOCKET_KEY, "bWluZQ==")
        .header(SEC_WEBSOCKET_KEY, "and again")
        .header(SEC_WEBSOCKET_ACCEPT, "x")
        .header(CONTENT_LENGTH, "0")
        .header(EXPECT, "100-continue");
    request.body(()).unwrap().into_parts().0
}

fn consent(headers: &[(HeaderName, &str)]) -> HeaderMap {
    headers
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::try_from(*value).unwrap()))
        .collect()
}

#[test]
fn the_accept_key_is_the_one_of_the_rfc() {
    let expected = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), expected);
}

#[test]
fn an_extended_connect_becomes_the_get_of_http_1_with_a_key_of_its_own() {
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut parts = connect("WebSocket");
        let given = translate(&mut parts).unwrap().unwrap();
        assert_eq!(parts.method, Method::GET);
        assert_eq!(parts.uri, "https://a.example/chat?x=1");
        let key = parts.headers[SEC_WEBSOCKET_KEY].to_str().unwrap();
        assert_eq!(STANDARD.decode(key).unwrap().len(), NONCE);
        assert_eq!(given.0, accept(key));
        keys.push(key.to_owned());
        let mut left: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let kept = [
            "sec-websocket-key",
            "sec-websocket-protocol",
            "sec-websocket-version",
        ];
        assert_eq!(left, kept);
        assert_eq!(parts.headers.get_all(SEC_WEBSOCKET_KEY).iter().count(), 1);
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn other_protocols_are_not_implemented_and_other_requests_are_not_touched() {
    for other in [
        "connect-udp",
        "connect-ip",
        "webtransport",
        "",
        "websocket2",
    ] {
        let refused = translate(&mut connect(other)).err();
        assert_eq!(refused, Some(DenyReason::ProtocolNotImplemented), "{other}");
    }
    let mut parts = connect("websocket");
    parts.extensions.clear();
    assert!(translate(&mut parts).unwrap().is_none());
    assert_eq!(parts.method, Method::CONNECT);
    assert_eq!(parts.headers.get_all(SEC_WEBSOCKET_KEY).iter().count(), 2);
    let mut parts = connect("websocket");
    parts.method = Method::POST;
    assert!(translate(&mut parts).is_err());
}

#[test]
fn only_a_whole_consent_is_one() {
    let (_, given) = nonce().unwrap();
    let accept = given.0.to_str().unwrap().to_owned();
    let whole = [
        (CONNECTION, "keep-alive, Upgrade"),
        (UPGRADE, "WebSocket"),
        (SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    assert!(given.is_given(&consent(&whole)));
    for missing in 0..whole.len() {
        let mut part = whole.to_vec();
        part.remove(missing);
        assert!(!given.is_given(&consent(&part)), "{missing}");
        let mut twice = consent(&whole);
        let (name, value) = &whole[missing];
        twice.append(name, HeaderValue::try_from(*value).unwrap());
        assert_eq!(given.is_given(&twice), *name == CONNECTION, "{name} twice");
    }
    for (at, wrong) in [
        (0, "close"),
        (1, "h2c"),
        (2, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ] {
        let mut changed = whole.to_vec();
        changed[at].1 = wrong;
        assert!(!given.is_given(&consent(&changed)), "{wrong}");
    }
    let swapped: String = accept
        .chars()
        .map(|letter| match letter {
            'a'..='z' => letter.to_ascii_uppercase(),
            other => other.to_ascii_lowercase(),
        })
        .collect();
    let mut changed = whole.to_vec();
    changed[2].1 = &swapped;
    assert!(!given.is_given(&consent(&changed)));
}

#[test]
fn what_only_http_1_needs_is_gone_from_the_answer() {
    let mut response = Response::builder()
        .status(101)
        .header(CONNECTION, "Upgrade, X-Hop")
        .header(UPGRADE, "websocket")
        .header("x-hop", "1")
        .header(SEC_WEBSOCKET_ACCEPT, "x")
        .header(SEC_WEBSOCKET_PROTOCOL, "chat")
        .header("sec-websocket-extensions", "permessage-deflate")
        .header("set-cookie", "a=b")
        .body(())
        .unwrap();
    agreed(&mut response);
    assert_eq!(response.status(), StatusCode::OK);
    let mut left: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    let kept = [
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "set-cookie",
    ];
    assert_eq!(left, kept);
}

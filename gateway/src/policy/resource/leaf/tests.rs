//! Tests of the values that documents are made of.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use super::{
    parse_cidr, parse_dns_upstream, parse_duration, parse_endpoint, parse_header_name,
    parse_media_type,
};
use crate::policy::DnsTransport;

#[test]
fn durations_are_those_of_the_gateway_api() {
    for (text, expected) in [
        ("300ms", Duration::from_millis(300)),
        ("30s", Duration::from_secs(30)),
        ("5m", Duration::from_secs(300)),
        ("1h30m", Duration::from_secs(5400)),
        ("1h1m1s1ms", Duration::from_millis(3_661_001)),
        ("99999h", Duration::from_secs(99_999 * 3600)),
    ] {
        assert_eq!(parse_duration(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "5 s",
        "-5s",
        "1.5h",
        "5d",
        "100000s",
        "1s1s1s1s1s",
        "0s",
        "0h0m",
        "5mS",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn a_block_has_no_bits_beyond_its_prefix() {
    assert_eq!(parse_cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(parse_cidr("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
    assert_eq!(
        parse_cidr("2001:db8::1").unwrap().to_string(),
        "2001:db8::1/128"
    );
    assert_eq!(
        parse_cidr("10.0.0.1/8").unwrap_err(),
        "the block of that address is 10.0.0.0/8"
    );
    for text in [
        "",
        "10.0.0.0/33",
        "10.0.0/8",
        "example.com",
        "10.0.0.0/-1",
        "::/129",
    ] {
        assert!(parse_cidr(text).is_err(), "{text}");
    }
}

#[test]
fn dns_upstreams_have_a_scheme_and_an_address() {
    for (text, transport, address) in [
        ("udp://1.1.1.1", DnsTransport::Udp, "1.1.1.1:53"),
        ("tcp://1.1.1.1:5353", DnsTransport::Tcp, "1.1.1.1:5353"),
        (
            "udp://[2606:4700::1111]",
            DnsTransport::Udp,
            "[2606:4700::1111]:53",
        ),
        (
            "udp://2606:4700::1111",
            DnsTransport::Udp,
            "[2606:4700::1111]:53",
        ),
        ("tls://9.9.9.9", DnsTransport::Tls, "9.9.9.9:853"),
        ("tls://9.9.9.9:443", DnsTransport::Tls, "9.9.9.9:443"),
        (
            "udp://[2606:4700::1111]:54",
            DnsTransport::Udp,
            "[2606:4700::1111]:54",
        ),
    ] {
        let upstream = parse_dns_upstream(text).unwrap();
        assert_eq!(upstream.transport, transport, "{text}");
        assert_eq!(upstream.address.to_string(), address, "{text}");
    }
    for text in [
        "1.1.1.1",
        "udp://",
        "udp://one.one",
        "udp://1.1.1.1:0",
        "tls://dns.example",
        "http://1.1.1.1",
        "udp://1.1.1.1/",
    ] {
        assert!(parse_dns_upstream(text).is_err(), "{text}");
    }
}

#[test]
fn a_collectors_url_is_http_and_carries_no_credentials() {
    for text in ["http://127.0.0.1:4318", "https://collector.example/base/"] {
        assert_eq!(parse_endpoint(text).unwrap(), text);
    }
    for text in [
        "127.0.0.1:4318",
        "grpc://a",
        "http://u:p@a",
        "http://a?b",
        "http://a#b",
        "/v1/traces",
        "http://",
        "",
    ] {
        assert!(parse_endpoint(text).is_err(), "{text}");
    }
}

#[test]
fn headers_that_frame_the_message_cannot_be_set() {
    assert_eq!(parse_header_name("X-Api-Key").unwrap(), "x-api-key");
    for text in [
        "Connection",
        "HOST",
        "content-length",
        "Transfer-Encoding",
        "te",
        "trailer",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "expect",
        "",
        "a b",
        ":authority",
        "a\r\nb",
    ] {
        assert!(parse_header_name(text).is_err(), "{text:?}");
    }
}

#[test]
fn media_types_have_two_halves_and_no_parameters() {
    assert_eq!(
        parse_media_type("Application/JSON").unwrap(),
        "application/json"
    );
    for text in [
        "json",
        "/json",
        "application/",
        "application/json; charset=utf-8",
        "a/b/c",
        "*/*",
    ] {
        assert!(parse_media_type(text).is_err(), "{text}");
    }
}

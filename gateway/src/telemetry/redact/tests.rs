//! What is redacted, in which forms, and for how long.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::kept::{MAX_RETIRED, RETIRED_FOR};
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use std::time::Duration;

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

/// What is shown of the first.
fn first(redactor: &Redactor, headers: &HeaderMap) -> String {
    let shown = redactor.headers(headers);
    shown.iter().next().unwrap().1.to_owned()
}

fn redactor() -> Redactor {
    Redactor::new(
        [HeaderName::from_static("x-custom-auth")],
        [
            value("sk-ant-1234"),
            value("Bearer sk-ant-1234"),
            value("sk-ant/12+34"),
            value("x"),
        ],
    )
}

#[test]
fn a_secret_is_found_in_the_forms_that_it_travels_in() {
    let redactor = redactor();
    for form in [
        "Bearer sk-ant-1234",
        "c2stYW50LTEyMzQ",
        "QmVhcmVyIHNrLWFudC0xMjM0",
        "sk%2Dant%2D1234",
        "sk%2Dant%2F12%2B34",
        "sk-ant%2F12%2B34",
    ] {
        assert_eq!(
            redactor.text(&format!("<{form}>")),
            "<[redacted]>",
            "{form}"
        );
    }
    assert_eq!(redactor.text("x stays"), "x stays");
}

#[test]
fn a_secret_is_found_within_a_longer_text_in_base64_and_in_other_spellings() {
    let secret = "sk-ant/api03+Zz09<&>=";
    let redactor = Redactor::new([], [value(secret)]);
    for before in ["", "x", "x:", "user:", "user: "] {
        for after in ["", "!", " and more"] {
            for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
                let told = engine.encode(format!("{before}{secret}{after}"));
                let shown = redactor.text(&told);
                assert!(shown.contains(REDACTED), "{before}{after}: {told}");
                // What is left of it are the neighbours, and the digits at its edges.
                let left = shown.replace(REDACTED, "").trim_end_matches('=').len();
                let own = (before.len() + after.len()) * 4 / 3 + 4;
                assert!(left <= own, "{told} shown as {shown}");
            }
        }
    }
    for told in [
        "sk%2dant%2fapi03%2bZz09%3c%26%3e%3d",
        r"sk-ant\/api03+Zz09<&>=",
        r"sk-ant/api03+Zz09\u003c\u0026\u003e=",
    ] {
        assert_eq!(redactor.text(told), REDACTED, "{told}");
    }
}

#[test]
fn credential_headers_and_injected_headers_are_redacted_whatever_their_value() {
    let mut headers = HeaderMap::new();
    for name in CREDENTIAL_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
    }
    headers.insert("x-custom-auth", HeaderValue::from_static("v"));
    headers.insert("accept", HeaderValue::from_static("v"));
    for (name, value) in redactor().headers(&headers).iter() {
        let expected = if name == "accept" { "v" } else { REDACTED };
        assert_eq!(value, expected, "{name}");
    }
}

#[test]
fn a_known_secret_is_redacted_in_any_header_query_and_body() {
    let redactor = redactor();
    let mut headers = HeaderMap::new();
    headers.insert("x-debug", HeaderValue::from_static("got sk-ant-1234!"));
    assert_eq!(first(&redactor, &headers), "got [redacted]!");
    assert_eq!(
        redactor.query("a=1&KEY=abc&b=sk-ant-1234&c"),
        "a=1&KEY=[redacted]&b=[redacted]&c"
    );
    assert_eq!(
        redactor.bytes(b"sk-ant-1234sk-ant-123sk-ant-1234".to_vec()),
        b"[redacted]sk-ant-123[redacted]"
    );
}

#[test]
fn a_long_value_is_cut_and_bytes_that_are_no_text_are_shown_as_far_as_they_are() {
    let mut headers = HeaderMap::new();
    let long = format!("{}é", "a".repeat(1023));
    for value in [long.as_str(), &"a".repeat(1024)] {
        headers.append("x-long", HeaderValue::from_str(value).unwrap());
    }
    let bytes = HeaderValue::from_bytes(b"\xff sk-ant-1234").unwrap();
    headers.append("x-bytes", bytes);
    // Three bytes of text each.
    let bytes = HeaderValue::from_bytes(&[0xff; 1024]).unwrap();
    headers.append("x-bytes", bytes);
    let shown = redactor().headers(&headers);
    let shown: Vec<_> = shown.iter().map(|(_, value)| value).collect();
    let unreadable = format!("{}…", "\u{fffd}".repeat(341));
    let (cut, whole) = (format!("{}…", "a".repeat(1023)), "a".repeat(1024));
    assert_eq!(
        shown,
        [cut.as_str(), &whole, "\u{fffd} [redacted]", &unreadable]
    );
}

#[test]
fn a_former_value_is_redacted_for_an_hour_and_then_forgotten() {
    let start = Instant::now();
    let redactor = Redactor::new([], [value("first-value")]);
    let change = |to: &str, after: Duration| {
        redactor.update_at([], [value(to)], start + after);
        redactor.text("first-value second-value")
    };
    let minute = Duration::from_secs(60);
    assert_eq!(change("second-value", minute), "[redacted] [redacted]");
    let late = RETIRED_FOR - Duration::from_secs(1);
    assert_eq!(
        change("second-value", minute + late),
        "[redacted] [redacted]"
    );
    let over = minute + RETIRED_FOR;
    assert_eq!(change("second-value", over), "first-value [redacted]");
    // A value that comes back is current, however old it is.
    assert_eq!(
        change("first-value", over + minute),
        "[redacted] [redacted]"
    );
    assert_eq!(
        change("first-value", over + 3 * RETIRED_FOR),
        "[redacted] second-value"
    );
}

#[test]
fn a_former_header_is_redacted_as_long() {
    let start = Instant::now();
    let redactor = Redactor::new([HeaderName::from_static("x-first")], []);
    let mut headers = HeaderMap::new();
    headers.insert("x-first", HeaderValue::from_static("v"));
    let later = start + Duration::from_secs(60);
    redactor.update_at([], [], later);
    assert_eq!(first(&redactor, &headers), REDACTED);
    redactor.update_at([], [], later + RETIRED_FOR);
    assert_eq!(first(&redactor, &headers), "v");
}

#[test]
fn former_values_are_bounded_and_the_oldest_go_first() {
    let start = Instant::now();
    let redactor = Redactor::new([], [value("value-number-000000")]);
    let name = |number: usize| format!("value-number-{number:06}");
    let last = MAX_RETIRED + 10;
    for number in 1..=last {
        let seconds = u64::try_from(number).unwrap();
        redactor.update_at(
            [],
            [value(&name(number))],
            start + Duration::from_secs(seconds),
        );
    }
    assert_eq!(redactor.text(&name(last)), REDACTED);
    assert_eq!(redactor.text(&name(last - MAX_RETIRED)), REDACTED);
    assert_eq!(
        redactor.text(&name(last - MAX_RETIRED - 1)),
        name(last - MAX_RETIRED - 1)
    );
}

//! Keeps credentials out of telemetry: by header name, and by value wherever a known secret shows.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::collections::HashSet;
use zeroize::Zeroizing;

/// What stands in place of a credential.
pub const REDACTED: &str = "[redacted]";

/// Headers that carry credentials by convention (the telemetry reference lists them).
const CREDENTIAL_HEADERS: [&str; 11] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "openai-api-key",
    "anthropic-api-key",
    "x-amz-security-token",
];

/// Query parameters that carry credentials by convention.
const CREDENTIAL_PARAMETERS: [&str; 8] = [
    "key",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "token",
    "sig",
    "x-amz-signature",
];

/// Knows the header names and the secrets of one gateway.
pub struct Redactor {
    injected: HashSet<HeaderName>,
    /// Every secret in every form looked for, the longest first: of two that overlap none leaves a tail.
    needles: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    /// `injected` are the headers that the gateway's policies set, `secrets` the values to keep out:
    /// as they are stored and as they are sent.
    pub fn new(
        injected: impl IntoIterator<Item = HeaderName>,
        secrets: impl IntoIterator<Item = Vec<u8>>,
    ) -> Self {
        let mut needles: Vec<Zeroizing<Vec<u8>>> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= MIN_SECRET)
            .flat_map(forms)
            .collect();
        needles.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        needles.dedup();
        Self {
            injected: injected.into_iter().collect(),
            needles,
        }
    }

    /// Headers as a record may have them: in order, repeated ones too.
    pub fn headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        headers
            .iter()
            .map(|(name, value)| {
                let shown = if value.is_sensitive()
                    || CREDENTIAL_HEADERS.contains(&name.as_str())
                    || self.injected.contains(name)
                {
                    REDACTED.to_owned()
                } else {
                    self.text(&String::from_utf8_lossy(value.as_bytes()))
                };
                (name.as_str().to_owned(), shorten(shown))
            })
            .take(MAX_HEADERS)
            .collect()
    }

    /// A query string: credential parameters lose their value, and so does any known secret.
    pub fn query(&self, query: &str) -> String {
        let parts: Vec<String> = query
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, _))
                    if CREDENTIAL_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) =>
                {
                    format!("{name}={REDACTED}")
                }
                _ => self.text(part),
            })
            .collect();
        parts.join("&")
    }

    /// Text with every known secret replaced.
    pub fn text(&self, text: &str) -> String {
        let bytes = self.bytes(text.as_bytes().to_vec());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes with every known secret replaced.
    pub fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for needle in &self.needles {
            if contains(&bytes, needle) {
                bytes = replace(&bytes, needle, REDACTED.as_bytes());
            }
        }
        bytes
    }
}

/// Shorter values would be found everywhere: a secret of a few characters is none.
const MIN_SECRET: usize = 6;

/// A secret as it is, in base64 (both alphabets), percent-encoded, and as a JSON string has it.
fn forms(secret: Vec<u8>) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![
        STANDARD_NO_PAD.encode(&secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(&secret).into_bytes(),
        percent_encode(&secret, NON_ALPHANUMERIC)
            .to_string()
            .into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(&secret) {
        let quoted = serde_json::Value::from(text).to_string();
        forms.push(quoted.trim_matches('"').as_bytes().to_vec());
    }
    forms.push(secret);
    forms.into_iter().map(Zeroizing::new).collect()
}

/// Headers of one message in a record, and bytes of one of them: what a sandbox sends must not fill
/// the telemetry queue. Together less than common servers' limit for a whole head.
const MAX_HEADERS: usize = 64;
const MAX_HEADER: usize = 1024;

fn shorten(mut text: String) -> String {
    if text.len() > MAX_HEADER {
        let end = (0..=MAX_HEADER).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn replace(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(what) {
            out.extend_from_slice(with);
            rest = after;
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use http::HeaderValue;

    fn redactor() -> Redactor {
        Redactor::new(
            [HeaderName::from_static("x-custom-auth")],
            [
                b"sk-ant-1234".to_vec(),
                b"Bearer sk-ant-1234".to_vec(),
                b"x".to_vec(),
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
    fn credential_headers_and_injected_headers_are_redacted_whatever_their_value() {
        let mut headers = HeaderMap::new();
        for name in CREDENTIAL_HEADERS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        headers.insert("x-custom-auth", HeaderValue::from_static("v"));
        headers.insert("accept", HeaderValue::from_static("v"));
        for (name, value) in redactor().headers(&headers) {
            let expected = if name == "accept" { "v" } else { REDACTED };
            assert_eq!(value, expected, "{name}");
        }
    }

    #[test]
    fn a_known_secret_is_redacted_in_any_header_query_and_body() {
        let redactor = redactor();
        let mut headers = HeaderMap::new();
        headers.insert("x-debug", HeaderValue::from_static("got sk-ant-1234!"));
        assert_eq!(redactor.headers(&headers)[0].1, "got [redacted]!");
        assert_eq!(
            redactor.query("a=1&KEY=abc&b=sk-ant-1234&c"),
            "a=1&KEY=[redacted]&b=[redacted]&c"
        );
        assert_eq!(
            redactor.bytes(b"sk-ant-1234sk-ant-123sk-ant-1234".to_vec()),
            b"[redacted]sk-ant-123[redacted]"
        );
    }
}

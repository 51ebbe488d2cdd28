//! Keeps credentials out of telemetry: by header name, and by value wherever a known secret shows. A value
//! that is a secret no more is looked for as long as something may still carry it.

mod header;
mod kept;
mod needles;

pub use header::Headers;

use crate::secrets::SecretValue;
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};
use kept::Kept;
use needles::Needles;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

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

/// Knows the header names and the secrets of one gateway, as they are and as they were lately.
pub struct Redactor {
    kept: Mutex<Kept>,
    now: ArcSwap<Sought>,
}

/// What is looked for.
struct Sought {
    /// Headers whose values are not shown at all: those that the gateway injects, and [`CREDENTIAL_HEADERS`].
    hidden: HeaderMap<()>,
    needles: Needles,
}

impl Redactor {
    /// `injected` are the headers that the gateway's policies set, `secrets` the values to keep out:
    /// as they are stored and as they are sent.
    pub fn new(
        injected: impl IntoIterator<Item = HeaderName>,
        secrets: impl IntoIterator<Item = SecretValue>,
    ) -> Self {
        let mut kept = Kept::default();
        kept.update(injected, secrets, Instant::now());
        Self {
            now: ArcSwap::from_pointee(Sought::new(&kept)),
            kept: Mutex::new(kept),
        }
    }

    /// From now on these are the headers and the values. Those that were are kept out for an hour more.
    pub fn update(
        &self,
        injected: impl IntoIterator<Item = HeaderName>,
        secrets: impl IntoIterator<Item = SecretValue>,
    ) {
        self.update_at(injected, secrets, Instant::now());
    }

    fn update_at(
        &self,
        injected: impl IntoIterator<Item = HeaderName>,
        secrets: impl IntoIterator<Item = SecretValue>,
        now: Instant,
    ) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.update(injected, secrets, now) {
            self.now.store(Sought::new(&kept).into());
        }
    }

    /// Headers as a record may have them.
    pub fn headers(&self, headers: &HeaderMap) -> Headers {
        let sought = self.now.load();
        let kept = || headers.iter().take(MAX_HEADERS);
        let bytes = kept().map(|(_, value)| value.len()).sum();
        let mut shown = Headers::with_capacity(headers.len().min(MAX_HEADERS), bytes);
        for (name, value) in kept() {
            let name = name.clone();
            if value.is_sensitive() || sought.hidden.contains_key(&name) {
                shown.push(name, REDACTED);
            } else if let Some(bytes) = sought.replaced(value.as_bytes()) {
                shown.push(name, &String::from_utf8_lossy(&bytes));
            } else {
                shown.push(name, &String::from_utf8_lossy(value.as_bytes()));
            }
        }
        shown
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
        match self.now.load().replaced(text.as_bytes()) {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => text.to_owned(),
        }
    }

    /// Bytes with every known secret replaced.
    pub fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.now.load().replaced(&bytes).unwrap_or(bytes)
    }
}

impl Sought {
    fn new(kept: &Kept) -> Self {
        let by_convention = CREDENTIAL_HEADERS.map(HeaderName::from_static);
        let hidden = kept.headers().cloned().chain(by_convention);
        Self {
            hidden: hidden.map(|name| (name, ())).collect(),
            needles: Needles::new(kept.secrets().map(SecretValue::expose)),
        }
    }

    /// The bytes without what was found in them, if anything was.
    fn replaced(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.needles.replaced(bytes, REDACTED.as_bytes())
    }
}

/// Headers of one message in a record: what a sandbox sends must not fill the telemetry queue.
const MAX_HEADERS: usize = 64;

#[cfg(test)]
mod tests;

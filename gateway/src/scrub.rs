//! Echo scrubbing: a credential that the gateway put into a request does not come back in the
//! response. It becomes `[redacted]`, in headers, trailers and bodies, in any mixture of raw,
//! percent-encoded and JSON-escaped bytes and in base64 (both alphabets, anywhere in a longer text),
//! across chunks and under gzip, deflate, brotli and zstd.
//!
//! Bodies stream. A word waits for its end, or for that of a message which says its own length; if a secret has blanks
//! or punctuation itself, the last words of a line wait for that of the line. In text the replacement may be shorter or
//! longer than the secret, so that `Content-Length` goes; in everything else (images, protobuf, event streams of AWS,
//! ranges, codings that cannot be undone) each byte becomes `*`. A coded body is decoded, and reaches the client without
//! its coding.
//!
//! What can be seen of a response never depends on less than a whole secret: see [`matcher`].
//!
//! What is not found: a secret of fewer than eight bytes, one cut into pieces (also by whoever can have it echoed as
//! gRPC, behind a length of his own), and one that went through another transformation (another encoding, encryption,
//! a checksum, an encoding twice). It refuses to know connections and policy files.

mod automaton;
mod body;
mod coding;
mod filter;
mod matcher;
mod messages;

pub use body::BodyScrub;
pub use coding::Corrupt;

use crate::policy::{InjectionTarget, RequestPermit};
use crate::secrets::{SecretValue, Secrets};
use automaton::{Automaton, Builder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use body::Plan;
use bytes::Bytes;
use coding::Coding;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RANGE};
use matcher::{Matcher, Replacement};
use messages::Messages;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// A shorter value would be found where it is not: a few letters are a word of any text.
pub const MIN_SECRET: usize = 8;

/// Of a longer value the rest is not looked for: servers take heads of 8 to 64 KiB, and each byte
/// costs about 1 KiB of automaton.
pub const MAX_SECRET: usize = 16 * 1024;

/// Scrubs what answers one request. Clones share the automaton.
#[derive(Clone)]
pub struct Scrubber(Arc<Automaton>);

impl Scrubber {
    /// Looks for these values. `None` if none of them has [`MIN_SECRET`] bytes.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut known: Vec<&[u8]> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= MIN_SECRET)
            .map(|secret| secret.get(..MAX_SECRET).unwrap_or(secret))
            .collect();
        known.sort_unstable();
        known.dedup();
        let mut builder = Builder::new();
        for secret in &known {
            builder.literal(secret);
            for before in 0..3 {
                builder.base64(secret, before);
            }
        }
        (!known.is_empty()).then(|| Self(Arc::new(builder.build())))
    }

    /// Scrubs headers or trailers; says how many secrets there were. A field whose name has one goes.
    pub fn headers(&self, headers: &mut HeaderMap) -> u64 {
        let named: Vec<HeaderName> = headers
            .keys()
            .filter(|name| self.text(name.as_str().as_bytes()).is_some())
            .cloned()
            .collect();
        let mut count = 0;
        for name in &named {
            headers.remove(name);
            count += 1;
        }
        for value in headers.values_mut() {
            if let Some((scrubbed, found)) = self.text(value.as_bytes()) {
                count += found;
                // Less than a field value is no field value: it was one, and has lost some bytes.
                *value = HeaderValue::from_maybe_shared(scrubbed)
                    .unwrap_or(HeaderValue::from_static(crate::telemetry::redact::REDACTED));
            }
        }
        count
    }

    /// Changes the head of a response to that of the scrubbed body, and gives what scrubs the body.
    pub fn body(&self, status: StatusCode, headers: &mut HeaderMap) -> BodyScrub {
        let plan = Plan::of(status, headers);
        let messages = Messages::of(headers);
        plan.announce(headers);
        let matcher = Matcher::new(Arc::clone(&self.0), plan.replacement);
        BodyScrub::new(plan, messages, matcher)
    }

    /// The text without secrets and how many there were; `None` if there are none.
    fn text(&self, text: &[u8]) -> Option<(Bytes, u64)> {
        self.0.candidate(text, 0, text.len())?;
        let mut matcher = Matcher::new(Arc::clone(&self.0), Replacement::Word);
        let mut scrubbed = matcher.push(Bytes::copy_from_slice(text), 0).to_vec();
        scrubbed.extend_from_slice(&matcher.finish());
        let count = matcher.count();
        (count > 0).then(|| (scrubbed.into(), count))
    }
}

/// Limits `Accept-Encoding` to codings that can be undone. With `Range` there shall be none: a part
/// of a coded body cannot be decoded.
pub fn limit_codings(headers: &mut HeaderMap) {
    let known = |part: &&str| {
        let name = part.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("identity") || Coding::named(name).is_some()
    };
    let wanted: Vec<String> = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| {
            let parts: Vec<&str> = value.split(',').map(str::trim).filter(known).collect();
            parts.join(", ")
        })
        .filter(|value| !value.is_empty())
        .collect();
    let allowed = if headers.contains_key(RANGE) || wanted.is_empty() {
        Ok(HeaderValue::from_static("identity"))
    } else {
        HeaderValue::try_from(wanted.join(", "))
    };
    // Absent means that any coding will do (RFC 9110 §12.5.3).
    headers.insert(
        ACCEPT_ENCODING,
        allowed.unwrap_or(HeaderValue::from_static("identity")),
    );
}

/// Scrubbers by what they look for: making one takes longer than a request.
#[derive(Default)]
pub struct Scrubbers(Mutex<HashMap<Key, Option<Scrubber>>>);

/// Credentials that a sandbox uses at once are few; those that change with every request are not
/// worth keeping.
const MAX_CACHED: usize = 64;

impl Scrubbers {
    /// For these values. `None`: there is nothing to look for.
    pub fn of(&self, values: &[SecretValue]) -> Option<Scrubber> {
        if values.is_empty() {
            return None;
        }
        let key = Key::of(values);
        let bytes: &[u8] = &key.0;
        if let Some(known) = self.lock().get(bytes) {
            return known.clone();
        }
        let scrubber = Scrubber::new(values.iter().map(SecretValue::expose));
        let mut all = self.lock();
        if all.len() >= MAX_CACHED {
            all.clear();
        }
        all.insert(key, scrubber.clone());
        scrubber
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Option<Scrubber>>> {
        // A map is good whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The credentials that `permit` had put into the head `sent`, in the forms that a server may tell.
#[must_use]
pub fn injected(permit: &RequestPermit, secrets: &Secrets, sent: &HeaderMap) -> Vec<SecretValue> {
    let mut values = Vec::new();
    for injection in permit.injections() {
        // What is only signed with is never sent: a server that tells it has it from somebody else, and to look for
        // it would tell who guesses it that he is right.
        let references = match &injection.target {
            InjectionTarget::Header { .. } | InjectionTarget::QueryParam { .. } => {
                injection.secret_refs()
            }
            InjectionTarget::AwsV4 {
                access_key_id,
                session_token,
                ..
            } => vec![access_key_id, session_token],
            InjectionTarget::AccessToken(_) => Vec::new(),
        };
        for reference in &references {
            let value = secrets.get(reference);
            values.extend(value.map(|value| SecretValue::new(value.expose().to_vec())));
        }
        // A constant is no secret, a signature is good for one request, and a token is yet to come.
        if let InjectionTarget::Header { name, .. } = &injection.target
            && !references.is_empty()
            && let Some(value) = sent.get(name)
        {
            values.extend(forms(value.as_bytes()));
        }
    }
    values
}

/// The access token in the head `sent`, which is there when all else is done.
#[must_use]
pub fn token(permit: &RequestPermit, sent: &HeaderMap) -> Vec<SecretValue> {
    let is_token = |target: &InjectionTarget| matches!(target, InjectionTarget::AccessToken(_));
    let mut injections = permit.injections().iter();
    sent.get(AUTHORIZATION)
        .filter(|_| injections.any(|injection| is_token(&injection.target)))
        .map_or_else(Vec::new, |value| forms(value.as_bytes()))
}

/// Is one of these long enough to be looked for?
#[must_use]
pub fn is_sought(values: &[SecretValue]) -> bool {
    values
        .iter()
        .any(|value| value.expose().len() >= MIN_SECRET)
}

/// A header value without its scheme (RFC 9110 §11.4), and decoded if that is base64, as `Basic` has it: a server
/// may tell each of them, and the secret inside may be too short alone. With its scheme only where it is too
/// short without.
fn forms(value: &[u8]) -> Vec<SecretValue> {
    let space = value.iter().position(|byte| *byte == b' ');
    let credentials = space.and_then(|space| value.get(space + 1..));
    let sought = credentials.filter(|credentials| credentials.len() >= MIN_SECRET);
    let mut forms = vec![SecretValue::new(sought.unwrap_or(value).to_vec())];
    if let Some(credentials) = credentials {
        forms.extend(STANDARD.decode(credentials).map(SecretValue::new));
    }
    forms
}

/// Values, each after its length; wiped when dropped.
struct Key(Zeroizing<Vec<u8>>);

impl Key {
    fn of(values: &[SecretValue]) -> Self {
        let length = values.iter().map(|value| value.expose().len() + 8).sum();
        // As large as needed from the start: a vector that grows leaves copies behind.
        let mut key = Zeroizing::new(Vec::with_capacity(length));
        for value in values {
            key.extend_from_slice(&value.expose().len().to_ne_bytes());
            key.extend_from_slice(value.expose());
        }
        Self(key)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests;

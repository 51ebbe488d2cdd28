//! Finds known secrets in bytes, in the forms in which they travel. It refuses to know whose they are and
//! for how long they are looked for.

use crate::secrets::SecretValue;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::ops::Range;
use zeroize::Zeroizing;

/// Shorter values would be found everywhere: a secret of a few characters is none.
const MIN_SECRET: usize = 6;

/// What is looked for.
pub(super) struct Needles {
    /// All of them, one after the other, where values are safe.
    bytes: SecretValue,
    /// The longest first: of two that overlap none leaves a tail.
    places: Vec<Range<usize>>,
}

impl Needles {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut all: Vec<Zeroizing<Vec<u8>>> = secrets
            .filter(|secret| secret.len() >= MIN_SECRET)
            .flat_map(forms)
            .collect();
        all.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        all.dedup();
        let length = all.iter().map(|needle| needle.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        let mut places = Vec::with_capacity(all.len());
        for needle in &all {
            places.push(bytes.len()..bytes.len() + needle.len());
            bytes.extend_from_slice(needle);
        }
        Self {
            bytes: SecretValue::kept(&bytes),
            places,
        }
    }

    /// `bytes` with `by` in place of everything that is looked for.
    pub(super) fn replace(&self, mut bytes: Vec<u8>, by: &[u8]) -> Vec<u8> {
        for place in &self.places {
            let needle = &self.bytes.expose()[place.clone()];
            if let Some(replaced) = replace(&bytes, needle, by) {
                bytes = replaced;
            }
        }
        bytes
    }
}

/// A secret as it is, in base64 (both alphabets), percent-encoded, and as a JSON string has it.
fn forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        percent_encode(secret, NON_ALPHANUMERIC)
            .to_string()
            .into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        let quoted = Zeroizing::new(serde_json::Value::from(text).to_string());
        forms.push(quoted.trim_matches('"').as_bytes().to_vec());
    }
    forms.push(secret.to_vec());
    forms.into_iter().map(Zeroizing::new).collect()
}

/// `None` if there is nothing to replace, as nearly always.
fn replace(bytes: &[u8], what: &[u8], by: &[u8]) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut done = 0;
    // The finder keeps no copy of the needle.
    for found in memmem::find_iter(bytes, what) {
        let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
        out.extend_from_slice(&bytes[done..found]);
        out.extend_from_slice(by);
        done = found + what.len();
    }
    if let Some(out) = &mut out {
        out.extend_from_slice(&bytes[done..]);
    }
    out
}

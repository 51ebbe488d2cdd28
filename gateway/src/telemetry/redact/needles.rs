//! Finds known secrets in bytes, in the forms in which they travel. It refuses to know whose they are and
//! for how long they are looked for.

use crate::inject::ESCAPED;
use crate::secrets::SecretValue;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::ops::Range;
use zeroize::Zeroizing;

/// Shorter values would be found everywhere: a secret of a few characters is none.
const MIN_SECRET: usize = 6;

/// The bytes by which a place is told where one may begin; fewer than [`MIN_SECRET`].
const HEAD: usize = 4;
/// Bits of the filter of heads. A hundred secrets in six forms leave 98 of 100 other places alone.
const FILTER_BITS: u32 = 15;

/// What is looked for.
pub(super) struct Needles {
    /// All of them, one after the other, where values are safe.
    bytes: SecretValue,
    /// The longest first: of two that overlap none leaves a tail.
    places: Vec<Range<usize>>,
    /// A bit for each hash that the [`HEAD`] of one has: nearly every text has none, and is not searched.
    heads: SecretValue,
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
        let mut heads = Zeroizing::new(vec![0; (1 << FILTER_BITS) / 8]);
        for needle in &all {
            let (byte, bit) = place_of(needle);
            heads[byte] |= bit;
            places.push(bytes.len()..bytes.len() + needle.len());
            bytes.extend_from_slice(needle);
        }
        Self {
            bytes: SecretValue::kept(&bytes),
            places,
            heads: SecretValue::kept(&heads),
        }
    }

    /// `bytes` with `by` in place of everything that is looked for; `None` if there is nothing, as nearly always.
    pub(super) fn replaced(&self, bytes: &[u8], by: &[u8]) -> Option<Vec<u8>> {
        if !self.is_in(bytes) {
            return None;
        }
        let mut bytes = bytes.to_vec();
        for needle in self.all() {
            if let Some(replaced) = replace(&bytes, needle, by) {
                bytes = replaced;
            }
        }
        Some(bytes)
    }

    /// Is any of them in `bytes`?
    fn is_in(&self, bytes: &[u8]) -> bool {
        let heads = self.heads.expose();
        bytes.windows(HEAD).enumerate().any(|(at, head)| {
            let (byte, bit) = place_of(head);
            heads[byte] & bit != 0 && self.all().any(|needle| bytes[at..].starts_with(needle))
        })
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.bytes.expose();
        self.places.iter().map(|place| &bytes[place.clone()])
    }
}

/// The byte of the filter that knows texts with the [`HEAD`] of this one, and the bit in it.
fn place_of(text: &[u8]) -> (usize, u8) {
    let head = text
        .first_chunk::<HEAD>()
        .map_or(0, |head| u32::from_le_bytes(*head));
    // Knuth's multiplicative hash: the upper bits depend on all.
    let hash = head.wrapping_mul(2_654_435_761) >> (32 - FILTER_BITS);
    let bit = 1 << (hash % 8);
    (usize::try_from(hash / 8).unwrap_or(0), bit)
}

/// A secret as it is, in base64 (both alphabets), percent-encoded, and as a JSON string has it.
fn forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
        percent_encode(secret, NON_ALPHANUMERIC)
            .to_string()
            .into_bytes(),
        // As it travels in a query.
        percent_encode(secret, ESCAPED).to_string().into_bytes(),
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

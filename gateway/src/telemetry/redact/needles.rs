//! Finds known secrets in bytes, in the forms in which they travel. It refuses to know whose they are and
//! for how long they are looked for.

use crate::inject::ESCAPED;
use crate::secrets::SecretValue;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use std::ops::Range;
use zeroize::Zeroizing;

/// Shorter values would be found everywhere: a secret of a few characters is none.
const MIN_SECRET: usize = 6;

/// The bytes by which a place is told where one may begin; fewer than [`MIN_SECRET`]. A shorter form is none.
const HEAD: usize = 4;
/// Bits of the filter of heads. A hundred secrets in fifteen forms leave 98 of 100 other places alone.
const FILTER_BITS: u32 = 16;

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

/// A secret as it is, in base64 (both alphabets, alone or anywhere in a longer text), percent-encoded, and as JSON
/// strings have it.
fn forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![Zeroizing::new(secret.to_vec())];
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.push(Zeroizing::new(engine.encode(secret).into_bytes()));
        forms.extend((0..3).map(|before| within_base64(engine, secret, before)));
    }
    // The second as it travels in a query.
    for set in [NON_ALPHANUMERIC, ESCAPED] {
        let encoded = Zeroizing::new(percent_encode(secret, set).to_string().into_bytes());
        forms.push(with_small_digits(&encoded));
        forms.push(encoded);
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        let quoted = Zeroizing::new(serde_json::Value::from(text).to_string());
        let quoted = quoted.trim_matches('"');
        // As some writers have it who care for HTML (Go's encoding/json, PHP's json_encode).
        let html = Zeroizing::new(quoted.replace('<', "\\u003c"));
        let html = Zeroizing::new(html.replace('>', "\\u003e"));
        let html = Zeroizing::new(html.replace('&', "\\u0026"));
        forms.push(Zeroizing::new(quoted.replace('/', "\\/").into_bytes()));
        forms.push(Zeroizing::new(html.as_bytes().to_vec()));
        forms.push(Zeroizing::new(quoted.as_bytes().to_vec()));
    }
    forms.retain(|form| form.len() >= HEAD);
    forms
}

/// The digits that are the secret's alone when `before` bytes, modulo 3, stand before it. Those at its edges depend
/// on its neighbours, and stay.
fn within_base64(engine: &GeneralPurpose, secret: &[u8], before: usize) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new([&[0; 2][..before], secret].concat());
    let digits = Zeroizing::new(engine.encode(&*text).into_bytes());
    let own = (before * 8).div_ceil(6)..text.len() * 8 / 6;
    Zeroizing::new(digits.get(own).unwrap_or_default().to_vec())
}

/// `%2f` for `%2F`.
fn with_small_digits(encoded: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut small = Zeroizing::new(encoded.to_vec());
    for at in 0..small.len() {
        if small[at] == b'%'
            && let Some(digits) = small.get_mut(at + 1..at + 3)
        {
            digits.make_ascii_lowercase();
        }
    }
    small
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

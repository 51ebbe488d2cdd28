//! `Secret` as written.
//!
//! It refuses to know who uses it. No value ever gets into a message here, and the decoder of such a
//! document quotes none either.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::policy::decode::{Decoder, Fields};
use crate::policy::problems::{Place, Spanned};
use crate::policy::template::is_secret_key;
use crate::secrets::SecretValue;
use crate::secrets::folder::trim_end;

pub(in crate::policy) struct RawSecret {
    pub(in crate::policy) name: Spanned<String>,
    pub(in crate::policy) values: BTreeMap<String, SecretValue>,
}

impl RawSecret {
    pub(super) fn read(
        decoder: &mut Decoder<'_, '_>,
        mut document: Fields<'_>,
        name: Spanned<String>,
    ) -> Self {
        let mut values = BTreeMap::new();
        if let Some(data) = document.optional("data") {
            for (key, value) in decoder.entries(&data) {
                if !key_is_valid(decoder, &key) {
                    continue;
                }
                let Some(text) = decoder.text(&value) else {
                    continue;
                };
                if let Some(value) = decode(decoder, &name.value, &key, &text) {
                    values.insert(key.value.to_owned(), value);
                }
            }
        }
        // As in Kubernetes, `stringData` wins over `data`.
        if let Some(data) = document.optional("stringData") {
            for (key, value) in decoder.entries(&data) {
                if !key_is_valid(decoder, &key) {
                    continue;
                }
                let Some(text) = decoder.text(&value) else {
                    continue;
                };
                let value = trim_end(text.value.as_bytes());
                if value.is_empty() {
                    warn_absent(decoder, text.place, "is empty", &name.value, key.value);
                } else {
                    let value = SecretValue::new(value.to_vec());
                    values.insert(key.value.to_owned(), value);
                }
            }
        }
        // Says what the keys mean to Kubernetes; here that is up to who refers to them.
        if let Some(kind) = document.optional("type") {
            decoder.text(&kind);
        }
        document.finish(decoder);
        Self { name, values }
    }
}

fn key_is_valid(decoder: &mut Decoder<'_, '_>, key: &Spanned<&str>) -> bool {
    let valid = is_secret_key(key.value);
    if !valid {
        decoder
            .problems
            .error(key.place, "not a valid key of a secret")
            .expected("letters, digits, `-`, `_` and `.`");
    }
    valid
}

fn decode(
    decoder: &mut Decoder<'_, '_>,
    name: &str,
    key: &Spanned<&str>,
    text: &Spanned<&str>,
) -> Option<SecretValue> {
    let trimmed = text.value.trim();
    if trimmed.starts_with('<') && trimmed.ends_with('>') {
        warn_absent(decoder, text.place, "is a placeholder", name, key.value);
        return None;
    }
    // Long values are folded over lines; the line breaks are no part of them.
    let mut encoded = Zeroizing::new(Vec::with_capacity(trimmed.len()));
    encoded.extend(trimmed.bytes().filter(|byte| !b"\r\n".contains(byte)));
    match STANDARD.decode(&*encoded).map(Zeroizing::new) {
        Ok(bytes) if trim_end(&bytes).is_empty() => {
            warn_absent(decoder, text.place, "is empty", name, key.value);
            None
        }
        // `echo KEY | base64` encodes a line break that the credential does not have; files end alike.
        Ok(bytes) => Some(SecretValue::new(trim_end(&bytes).to_vec())),
        // The library's error quotes a byte of the value.
        Err(_) => {
            decoder
                .problems
                .error(text.place, format!("`data.{}` is not base64", key.value))
                .expected("standard base64 with padding (RFC 4648 section 4)")
                .help(
                    "encode the value with `base64 -w0`, or write it as it is under `stringData`",
                );
            None
        }
    }
}

fn warn_absent(decoder: &mut Decoder<'_, '_>, place: Place, what: &str, name: &str, key: &str) {
    decoder
        .problems
        .warning(place, format!("the value of `{key}` {what}"))
        .help(format!(
            "put the value into the secrets folder as {name}/{key}; until then the key counts as absent"
        ));
}

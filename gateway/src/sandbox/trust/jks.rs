//! Java's own key store format, version 2, as far as trusted certificates go: what
//! `keytool -importcert` would write. Java reads it since 1.2 whatever its default type.
//!
//! Knows nothing of where the certificates come from. It cannot read stores, nor hold keys.

use sha1::{Digest, Sha1};

/// The password every JDK ships its own `cacerts` with. It protects nothing here: the
/// certificates are public, and the digest only detects damage.
pub(super) const PASSWORD: &str = "changeit";

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
/// Mixed into the digest by sun.security.provider.JavaKeyStore since its first day.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// A key store of trusted certificates (DER), under the aliases `postern-0`, `postern-1`, …
///
/// `created` is the entries' date, in milliseconds since 1970. `None` if there are more
/// certificates, or longer ones, than the format's 32-bit counts can say.
pub(super) fn trust_store<'a>(
    certificates: impl ExactSizeIterator<Item = &'a [u8]>,
    created: u64,
) -> Option<Vec<u8>> {
    let mut store = Vec::new();
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    store.extend(u32::try_from(certificates.len()).ok()?.to_be_bytes());
    for (number, certificate) in certificates.enumerate() {
        store.extend(TRUSTED_CERTIFICATE.to_be_bytes());
        text(&mut store, &format!("postern-{number}"))?;
        store.extend(created.to_be_bytes());
        text(&mut store, "X.509")?;
        store.extend(u32::try_from(certificate.len()).ok()?.to_be_bytes());
        store.extend(certificate);
    }
    let mut digest = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update(WHITENER);
    digest.update(&store);
    store.extend(digest.finalize());
    Some(store)
}

/// DataOutput.writeUTF: two bytes of length; for ASCII the same bytes as UTF-8.
fn text(store: &mut Vec<u8>, text: &str) -> Option<()> {
    store.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    store.extend(text.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn an_empty_store_is_what_keytool_writes() {
        // The digest of a store without entries, from sha1(UTF-16BE password + whitener + header).
        let store = trust_store(std::iter::empty::<&[u8]>(), 0).unwrap();
        assert_eq!(store.len(), 12 + 20);
        assert_eq!(
            store[..12],
            [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 0]
        );
        assert_eq!(
            store[12..],
            [
                0xe2, 0x68, 0x6e, 0x45, 0xfb, 0x43, 0xdf, 0xa4, 0xd9, 0x92, 0xdd, 0x41, 0xce, 0xb6,
                0xb2, 0x1c, 0x63, 0x30, 0xd7, 0x92
            ]
        );
    }
}

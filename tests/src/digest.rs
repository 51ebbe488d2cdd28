//! SHA-256 of whatever passes by, in hexadecimal, from the one crypto provider of the workspace.
//! It refuses to know what it is the digest of.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Context;

/// A running SHA-256.
pub struct Sha256(Option<Box<dyn Context>>);

impl Sha256 {
    /// An empty digest.
    pub fn new() -> Self {
        // The suite's hash is SHA-256 by its definition (RFC 8446, appendix B.4).
        Self(
            TLS13_AES_128_GCM_SHA256
                .tls13()
                .map(|suite| suite.common.hash_provider.start()),
        )
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        if let Some(context) = &mut self.0 {
            context.update(data);
        }
    }

    /// The 64 hexadecimal digits.
    pub fn finish(self) -> String {
        self.0
            .map(|context| hex(context.finish().as_ref()))
            .unwrap_or_default()
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(data);
    digest.finish()
}

/// Lower-case hexadecimal.
pub fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_digest_of_abc_is_the_one_of_fips_180() {
        assert_eq!(
            super::sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

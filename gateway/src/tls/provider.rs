//! Which cryptography is preferred. All that the library takes for safe stays possible.

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The library's own, but that AES-128 comes before AES-256, as in browsers: both are beyond reach, and the shorter key
/// costs a fifth less.
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite().as_str().unwrap_or_default();
        let has = |cipher| name.contains(cipher);
        (!has("AES_128"), !has("AES_256"))
    });
    provider
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CipherSuite, SupportedCipherSuite};

    #[test]
    fn what_is_quick_comes_first_and_nothing_is_lost() {
        let (known, ours) = (aws_lc_rs::default_provider(), provider());
        let suites = ours
            .cipher_suites
            .iter()
            .map(SupportedCipherSuite::suite)
            .collect::<Vec<_>>();
        assert_eq!(suites.first(), Some(&CipherSuite::TLS13_AES_128_GCM_SHA256));
        let last = suites.last().and_then(CipherSuite::as_str);
        assert!(last.is_some_and(|name| name.contains("CHACHA20")));
        assert_eq!(suites.len(), known.cipher_suites.len());
    }
}

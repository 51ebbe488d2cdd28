//! Leaf certificates, one a name, minted when first asked for. The cache holds ready-made server
//! configurations, is bounded, and lets one of several askers do the work while the others wait.

use super::authority::Authority;
use super::provider;
use crate::telemetry::{LeafUse, Metrics};
use quick_cache::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ProducesTickets;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Names kept. A sandbox that asks for more only costs itself: minting one takes about 0.1 ms.
const CACHED: usize = 4096;
/// Short enough to be useless when stolen, long enough for a client that caches.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// A cached leaf older than this is minted anew.
const RENEW_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);
/// Clocks of guests may be behind.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// Why there is no certificate for a name.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// It could not be signed.
    #[error("cannot mint a certificate for {name}: {source}")]
    Mint {
        /// The name.
        name: String,
        /// What rcgen said.
        #[source]
        source: rcgen::Error,
    },
    /// TLS would not take it.
    #[error("cannot serve the certificate for {name}: {source}")]
    Serve {
        /// The name.
        name: String,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
}

/// The leaf certificates of one gateway.
pub struct Leaves {
    authority: Authority,
    /// One key for all leaves: a leaf then costs one signature.
    key: KeyPair,
    tickets: Arc<dyn ProducesTickets>,
    provider: Arc<CryptoProvider>,
    cache: Cache<String, Leaf>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    minted: SystemTime,
}

impl Leaves {
    /// Certificates signed by `authority`.
    pub fn new(authority: Authority, metrics: Arc<Metrics>) -> Result<Self, LeafError> {
        let failed = |source| LeafError::Mint {
            name: "any name".to_owned(),
            source,
        };
        Ok(Self {
            authority,
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?,
            tickets: rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|source| {
                LeafError::Serve {
                    name: "any name".to_owned(),
                    source,
                }
            })?,
            provider: Arc::new(provider::provider()),
            cache: Cache::new(CACHED),
            metrics,
        })
    }

    /// The authority's certificate, for clients to trust.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A server configuration with a certificate for `name`, offering HTTP/2 and HTTP/1.1.
    pub fn server_config(&self, name: &str) -> Result<Arc<ServerConfig>, LeafError> {
        let mut found = LeafUse::Hit;
        let leaf = self.cache.get_or_insert_with(name, || {
            found = LeafUse::Minted;
            self.mint(name)
        })?;
        let stale = leaf.minted.elapsed().map_or(true, |age| age > RENEW_AFTER);
        if !stale {
            self.metrics.leaf(found);
            return Ok(leaf.config);
        }
        self.metrics.leaf(LeafUse::Renewed);
        let leaf = self.mint(name)?;
        self.cache.insert(name.to_owned(), leaf.clone());
        Ok(leaf.config)
    }

    fn mint(&self, name: &str) -> Result<Leaf, LeafError> {
        let now = SystemTime::now();
        let certificate = self
            .parameters(name, now)
            .and_then(|params| params.signed_by(&self.key, self.authority.issuer()))
            .map_err(|source| LeafError::Mint {
                name: name.to_owned(),
                source,
            })?;
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let config = self
            .configuration(certificate.der().clone(), key.into())
            .map_err(|source| LeafError::Serve {
                name: name.to_owned(),
                source,
            })?;
        Ok(Leaf {
            config: Arc::new(config),
            minted: now,
        })
    }

    fn parameters(&self, name: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_not_an_address) => SanType::DnsName(name.try_into()?),
        }];
        params.distinguished_name = DistinguishedName::new();
        // A common name is limited to 64 characters (RFC 5280, ub-common-name) and only decoration.
        if name.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict clients (Python 3.13, OpenSSL's X509_STRICT) want it.
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + LIFETIME).into();
        Ok(params)
    }

    fn configuration(
        &self,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&self.tickets);
        // Client and gateway are one machine: what is quick for the one is for the other.
        config.ignore_client_order = true;
        // A short-lived client uses none of them, and who resumes gets another.
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn leaves() -> Leaves {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(state.path(), "g").unwrap();
        Leaves::new(authority, Arc::default()).unwrap()
    }

    #[test]
    fn a_name_is_minted_once_and_names_do_not_mix() {
        let leaves = leaves();
        let first = leaves.server_config("a.example").unwrap();
        let again = leaves.server_config("a.example").unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = leaves.server_config("b.example").unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn the_longest_name_and_addresses_have_certificates() {
        let leaves = leaves();
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for name in [longest.as_str(), "192.0.2.1", "2001:db8::1"] {
            leaves.server_config(name).unwrap();
        }
    }
}

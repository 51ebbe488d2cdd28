//! Verified TLS towards upstreams: Mozilla's roots and, where the policy adds one, its trust bundle; and
//! the certificate that the gateway itself shows where one is asked for.

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why a trust bundle was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is not PEM.
    #[error("the additional trust bundle is not PEM certificates: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It holds nothing.
    #[error("the additional trust bundle holds no certificate")]
    Empty,
    /// A certificate cannot be a trust anchor, or TLS cannot be set up.
    #[error("the additional trust bundle: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a client certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate is not PEM.
    #[error("tls.crt is not a PEM certificate chain: {0}")]
    Chain(#[source] rustls::pki_types::pem::Error),
    /// The chain holds nothing.
    #[error("tls.crt holds no certificate")]
    NoCertificate,
    /// The key is not PEM.
    #[error("tls.key is not a PEM private key: {0}")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The two are not a pair, or of a kind that TLS does not know.
    #[error("tls.crt and tls.key are not a pair: {0}")]
    Pair(#[source] rustls::Error),
}

/// Client configurations that differ in what they offer by ALPN, and share all else.
#[derive(Clone)]
pub struct Verifier {
    any_http: TlsConnector,
    http1: TlsConnector,
}

/// What to offer the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2 and HTTP/1.1.
    AnyHttp,
    /// HTTP/1.1 alone: an upgrade needs it.
    Http1,
}

impl Verifier {
    /// `bundle` is PEM, trusted besides the public roots.
    pub fn new(bundle: Option<&[u8]>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(bundle) = bundle {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(bundle) {
                roots.add(certificate?)?;
            }
            if roots.len() == before {
                return Err(TrustError::Empty);
            }
        }
        let provider = Arc::new(crate::tls::provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self {
            any_http: TlsConnector::from(Arc::new(config)),
            http1,
        })
    }

    /// The same trust, and a certificate (PEM, the chain and its key) for upstreams that ask for one
    /// (RFC 8446 §4.3.2).
    pub fn with_identity(&self, chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(IdentityError::Chain)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(IdentityError::Key)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(IdentityError::Pair)?;
        let identity = Arc::new(SingleCertAndKey::from(pair));
        let with = |connector: &TlsConnector| {
            let mut config = ClientConfig::clone(connector.config());
            config.client_auth_cert_resolver = Arc::clone(&identity) as _;
            // A session that is resumed is that of who began it (RFC 8446 §2.2).
            config.resumption = Resumption::default();
            TlsConnector::from(Arc::new(config))
        };
        Ok(Self {
            any_http: with(&self.any_http),
            http1: with(&self.http1),
        })
    }

    /// The same trust for DNS over TLS, without ALPN: servers there need not know any (RFC 7858 §3.2).
    pub(super) fn for_dns(&self) -> ClientConfig {
        let mut config = ClientConfig::clone(self.http1.config());
        config.alpn_protocols.clear();
        config
    }

    /// Speaks TLS with the upstream and verifies that it is `name`.
    pub(super) async fn connect<S>(
        &self,
        offer: Offer,
        name: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name =
            ServerName::try_from(name.to_owned()).map_err(|error: InvalidDnsNameError| {
                io::Error::new(io::ErrorKind::InvalidInput, error)
            })?;
        let connector = match offer {
            Offer::AnyHttp => &self.any_http,
            Offer::Http1 => &self.http1,
        };
        connector.connect(name, stream).await
    }
}

/// Did the upstream choose HTTP/2?
pub(super) fn is_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::{IdentityError, TrustError, Verifier};

    #[test]
    fn a_client_certificate_is_taken_with_its_own_key_and_no_other() {
        let verifier = Verifier::new(None).unwrap();
        let pair = || rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        let chain = one.cert.pem();
        let take = |chain: &str, key: &str| {
            verifier
                .with_identity(chain.as_bytes(), key.as_bytes())
                .map(|_taken| ())
        };
        assert!(take(&chain, &one.signing_key.serialize_pem()).is_ok());
        assert!(matches!(
            take(&chain, &other.signing_key.serialize_pem()),
            Err(IdentityError::Pair(_))
        ));
        assert!(matches!(
            take("", &one.signing_key.serialize_pem()),
            Err(IdentityError::NoCertificate)
        ));
        assert!(matches!(take(&chain, &chain), Err(IdentityError::Key(_))));
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        assert!(Verifier::new(None).is_ok());
        assert!(matches!(Verifier::new(Some(b"")), Err(TrustError::Empty)));
        assert!(matches!(
            Verifier::new(Some(b"not pem")),
            Err(TrustError::Empty)
        ));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Verifier::new(Some(broken)).is_err());
    }
}

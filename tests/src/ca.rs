//! A certificate authority of the tests' own, and TLS configurations for the mocks it vouches
//! for. It refuses to know which mock uses which name.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

/// The application protocols a mock offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `h2` and `http/1.1`, as a modern server.
    Both,
    /// `http/1.1` alone.
    Http1,
    /// `h2` alone.
    Http2,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// A self-signed authority, alive for one world.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestCa {
    /// A new authority called `name`.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make the key of the test authority")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server that proves to be each of `names` and offers `alpn`.
    pub fn server(&self, names: &[&str], alpn: Alpn) -> Result<Arc<ServerConfig>> {
        let builder = self.builder()?.with_no_client_auth();
        self.finish(builder, names, alpn)
    }

    /// The same, for clients that prove to be of this authority, and no others.
    pub fn mutual_server(&self, names: &[&str], alpn: Alpn) -> Result<Arc<ServerConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes())?)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = self.builder()?.with_client_cert_verifier(verifier.build()?);
        self.finish(builder, names, alpn)
    }

    /// As [`TestCa::pair`], apart.
    pub fn files(&self, names: &[&str]) -> Result<(String, String)> {
        let [certificate, key] = self.pair(names)?;
        Ok((certificate, key))
    }

    /// A certificate for each of `names` and its key, PEM: for a server elsewhere, or a client.
    pub fn pair(&self, names: &[&str]) -> Result<[String; 2]> {
        let (certificate, key) = self.issue(names)?;
        Ok([certificate.pem(), key.serialize_pem()])
    }

    fn builder(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        Ok(builder.with_safe_default_protocol_versions()?)
    }

    fn finish(
        &self,
        builder: ConfigBuilder<ServerConfig, WantsServerCert>,
        names: &[&str],
        alpn: Alpn,
    ) -> Result<Arc<ServerConfig>> {
        let (certificate, key) = self.issue(names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = alpn.protocols();
        Ok(Arc::new(config))
    }

    fn issue(&self, names: &[&str]) -> Result<(Certificate, KeyPair)> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }
}

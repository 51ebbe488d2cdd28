//! An HTTPS client that trusts the bundle of SSL_CERT_FILE and nothing else, for the programs that
//! run inside a sandbox and for the mocks' own tests. It refuses to know of any gateway.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::TlsConnector;

use hyper::body::Incoming;
use hyper::{Request, Response};

/// The bundle that SSL_CERT_FILE names.
pub fn roots_of_environment() -> Result<RootCertStore> {
    let path = std::env::var_os("SSL_CERT_FILE").context("SSL_CERT_FILE is not set")?;
    let pem = std::fs::read(&path)
        .with_context(|| format!("cannot read {}", Path::new(&path).display()))?;
    roots(&pem)
}

/// The certificates of a PEM bundle.
pub fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        // The bundle of a system may hold certificates too odd to be an anchor.
        roots.add_parsable_certificates([certificate?]);
    }
    Ok(roots)
}

/// A TLS client that offers `alpn`.
pub fn config(roots: RootCertStore, alpn: &[&str]) -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A connection that requests are sent over, one after the other.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects to `address`, over TLS as `name` if `tls` is given; the protocol is the one that
    /// ALPN ends with, HTTP/1.1 without it.
    pub async fn open(
        address: impl ToSocketAddrs,
        tls: Option<(&str, Arc<ClientConfig>)>,
    ) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        let Some((name, config)) = tls else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(Self::Http1(sender));
        };
        let name = ServerName::try_from(name.to_owned())?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .context("no TLS")?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    /// Sends `request`, whose URI must be absolute: HTTP/1.1 gets its path, and a `Host`.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        match self {
            Self::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Self::Http1(sender) => {
                let authority = request
                    .uri()
                    .authority()
                    .context("no authority")?
                    .to_string();
                let path = request.uri().path_and_query().context("no path")?.clone();
                *request.uri_mut() = path.into();
                request
                    .headers_mut()
                    .entry(hyper::header::HOST)
                    .or_insert(authority.parse()?);
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

//! The gateway's side towards the sandbox: a certificate authority of its own, leaf certificates
//! minted for the names that clients ask for, and the TLS server. Knows nothing of policy.

mod authority;
mod leaf;
mod provider;

pub use authority::{Authority, AuthorityError, known};
pub use leaf::{LeafError, Leaves};
pub use provider::provider;

use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Speaks TLS with the client as `name` (a host name or an IP address in text form).
pub async fn terminate<S>(leaves: &Leaves, name: &str, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = leaves.server_config(name).map_err(io::Error::other)?;
    TlsAcceptor::from(config).accept(stream).await
}

/// Did the handshake end in HTTP/2?
pub fn is_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// A fatal `access_denied` alert (49, RFC 8446 §6.2) in a plaintext record: what a client that we
/// will not speak TLS with can still understand.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// Tells a client in the middle of its handshake that it may not go there.
pub async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(&ACCESS_DENIED).await?;
    stream.shutdown().await
}

//! The answer to a connection that begins as HTTP/1 does and then breaks its rules, before it is known where it is to go.
//! Knows nothing of why: that is the sniffer's to say.

use super::problem;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Read and thrown away after the answer, so that it is not lost to a reset (RFC 9112 §9.6) …
const MAX_DRAINED: u64 = 256 * 1024;
/// … and for how long, the answer included.
const PARTING: Duration = Duration::from_secs(1);

/// Says 400, with `detail`, and ends the connection.
pub async fn refuse_opening<S>(
    mut stream: S,
    detail: Option<&str>,
    gateway: &str,
    destination: SocketAddr,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = problem::raw_opening(detail, gateway, &destination.to_string());
    match timeout(PARTING, say(&mut stream, &answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a malformed opening was not answered"),
        Err(_elapsed) => tracing::debug!("a client with a malformed opening goes on and on"),
    }
}

async fn say<S>(stream: &mut S, answer: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(MAX_DRAINED), &mut tokio::io::sink()).await?;
    Ok(())
}

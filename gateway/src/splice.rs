//! An opaque copy between client and upstream.

use crate::telemetry::ConnectionRecord;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Per direction: fills a 10 Gbit/s loopback without holding much for an idle connection.
const BUFFER: usize = 64 * 1024;
/// A connection that carries nothing in either direction for this long is closed.
pub const IDLE: Duration = Duration::from_secs(3600);

/// Copies until both sides have ended, and completes the record.
pub async fn splice<C, U>(client: &mut C, upstream: &mut U, record: &mut ConnectionRecord)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::io::copy_bidirectional_with_sizes(client, upstream, BUFFER, BUFFER).await {
        Ok((up, down)) => {
            record.bytes_up += up;
            record.bytes_down += down;
        }
        Err(error) => record.error = Some(error.kind().to_string()),
    }
}

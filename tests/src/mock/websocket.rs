//! A WebSocket that says back what it is told (RFC 6455, no extensions). It refuses messages of
//! more than 64 KiB and unmasked ones.

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::body::{Body, plain, whole};

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const LONGEST: u64 = 64 * 1024;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Answers the handshake and echoes on a task of its own.
pub fn upgrade(request: Request<Incoming>) -> Response<Body> {
    let Some(accept) = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::from_str(&accept_key(key.as_bytes())).ok())
    else {
        return plain(StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key");
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            // A client that leaves without a close frame ends the echo; nobody asks why.
            drop(echo(TokioIo::new(upgraded)).await);
        }
    });
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn accept_key(key: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(key);
    digest.update(GUID.as_bytes());
    STANDARD.encode(digest.finalize())
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    loop {
        let first = stream.read_u8().await?;
        let second = stream.read_u8().await?;
        if second & 0x80 == 0 {
            bail!("a client's frame must be masked");
        }
        let length = match second & 0x7f {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if length > LONGEST {
            bail!("{length} bytes are too many");
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let opcode = match first & 0x0f {
            PING => PONG,
            other => other,
        };
        stream.write_u8((first & 0xf0) | opcode).await?;
        match u8::try_from(length) {
            Ok(short @ 0..=125) => stream.write_u8(short).await?,
            _ => match u16::try_from(length) {
                Ok(medium) => {
                    stream.write_u8(126).await?;
                    stream.write_u16(medium).await?;
                }
                Err(_) => {
                    stream.write_u8(127).await?;
                    stream.write_u64(length).await?;
                }
            },
        }
        stream.write_all(&payload).await?;
        stream.flush().await?;
        if opcode == CLOSE {
            stream.shutdown().await?;
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(
            super::accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}

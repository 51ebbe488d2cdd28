//! WebSockets over HTTP/2 (RFC 8441) in terms of HTTP/1.1 (RFC 6455): what asks for one becomes the GET that an HTTP/1.1
//! client would have sent, before anybody looks at it, and is judged and sent as that; the upstream's consent becomes what
//! an HTTP/2 client understands. Decides nothing, and knows nothing of what is said on a WebSocket.

use super::headers::strip_hop_by_hop;
use crate::outcome::DenyReason;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::ext::Protocol;
use sha1::{Digest, Sha1};

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The length of the nonce in `Sec-WebSocket-Key`, bytes (RFC 6455 §4.1).
const NONCE: usize = 16;
/// What has no place in an extended CONNECT (RFC 8441 §5), or would speak of a body that it has not.
const MEANINGLESS: [HeaderName; 4] = [
    CONTENT_LENGTH,
    EXPECT,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_ACCEPT,
];

/// What the upstream must answer a key of ours with: the HTTP/2 client, which sent none, cannot look.
pub(super) struct Consent(HeaderValue);

/// Makes an extended CONNECT that asks for a WebSocket the GET that it stands for. `None`: it is something else.
///
/// # Errors
/// It asks for another protocol (501 says RFC 9220 §3), or there is no key to be had.
pub(super) fn translate(parts: &mut Parts) -> Result<Option<Consent>, DenyReason> {
    let Some(protocol) = parts.extensions.remove::<Protocol>() else {
        return Ok(None);
    };
    if parts.method != Method::CONNECT || !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(DenyReason::ProtocolNotImplemented);
    }
    let (key, consent) = nonce()?;
    parts.method = Method::GET;
    for name in &MEANINGLESS {
        parts.headers.remove(name);
    }
    parts.headers.insert(SEC_WEBSOCKET_KEY, key);
    Ok(Some(consent))
}

impl Consent {
    /// Is it in this head of a 101? Everything that RFC 6455 §4.1 has a client look at, but for what only the client
    /// knows: what it offered.
    pub(super) fn is_given(&self, headers: &HeaderMap) -> bool {
        let mut accepted = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let mut upgraded = headers.get_all(UPGRADE).iter();
        let single = |found: Option<&HeaderValue>, more: bool, expected: &[u8]| {
            !more && found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(expected))
        };
        let (upgrade, another) = (upgraded.next(), upgraded.next().is_some());
        let (accept, second) = (accepted.next(), accepted.next().is_some());
        single(upgrade, another, b"websocket")
            && headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
            // Base64 knows capitals from small letters.
            && accept == Some(&self.0)
            && !second
    }
}

/// Makes a 101 the answer to an extended CONNECT: 200, without what only HTTP/1.1 needs (RFC 8441 §5).
pub(super) fn agreed<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    strip_hop_by_hop(headers);
    for name in [SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

fn nonce() -> Result<(HeaderValue, Consent), DenyReason> {
    let mut nonce = [0; NONCE];
    if let Err(error) = getrandom::fill(&mut nonce) {
        tracing::warn!(%error, "no randomness for a WebSocket key");
        return Err(DenyReason::NotReady);
    }
    let key = STANDARD.encode(nonce);
    let accept = accept(&key);
    match (HeaderValue::try_from(key), HeaderValue::try_from(accept)) {
        (Ok(key), Ok(accept)) => Ok((key, Consent(accept))),
        // Base64 is nothing but letters that a field value may have.
        _ => Err(DenyReason::NotReady),
    }
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(GUID);
    STANDARD.encode(digest.finalize())
}

#[cfg(test)]
mod tests;

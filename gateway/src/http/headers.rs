//! Which header fields travel. Hop-by-hop fields end here (RFC 9110 §7.6.1), on both sides, and so does what a server says
//! of other ways to it.

use http::header::{
    ALT_SVC, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Fields between two hops, whether `Connection` names them or not. To the client the hop's other end is the origin, which
/// it reaches in no other way: one that followed `Alt-Svc` (RFC 7838 §3) to HTTP/3 would be refused.
const HOP_BY_HOP: [HeaderName; 8] = [
    ALT_SVC,
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Fields that `Connection` may not take away: without them the message would be another one.
const NEVER_NOMINATED: [HeaderName; 2] = [HOST, CONTENT_LENGTH];

/// Removes what belongs to the hop, including whatever `Connection` names. `TE: trailers` is kept:
/// gRPC needs it, and it is the one value that HTTP/2 allows.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .filter(|name| !NEVER_NOMINATED.contains(name))
        .collect();
    let trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    for name in nominated
        .iter()
        .filter(|name| **name != TE && **name != TRAILER)
    {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The fields as they will be passed on, credentials aside: what a rule sees is what the upstream gets. A field
/// that the client names in `Connection` is not there.
pub(super) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    strip_hop_by_hop(&mut passed);
    join_cookies(&mut passed);
    passed
}

/// HTTP/2 clients may split the cookie; HTTP/1.1 servers expect one (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in headers.get_all(COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(mut value) = HeaderValue::from_bytes(&joined) {
        value.set_sensitive(true);
        headers.insert(COOKIE, value);
    }
}

/// Does the client ask to turn the connection into a WebSocket (RFC 6455 §4.1)?
pub(super) fn asks_for(headers: &HeaderMap) -> Upgrade {
    let mut values = headers.get_all(UPGRADE).iter();
    match (values.next(), values.next()) {
        (None, _) => Upgrade::No,
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"websocket") => {
            Upgrade::WebSocket
        }
        _ => Upgrade::Other,
    }
}

/// What `Upgrade` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    No,
    WebSocket,
    /// h2c, TLS, or several at once: a gateway that let them pass would lose sight of what follows.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn what_connection_names_does_not_travel_and_framing_cannot_be_named() {
        let mut headers = map(&[
            ("connection", "x-api-key, Host , content-length"),
            ("connection", "close"),
            ("x-api-key", "k"),
            ("host", "a.example"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("alt-svc", "h3=\":443\""),
            ("te", "gzip, Trailers"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host", "te"]);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn cookie_crumbs_become_one_cookie() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().count(), 1);
        assert_eq!(headers[COOKIE], "a=1; b=2; c=3");
    }

    #[test]
    fn only_a_single_websocket_upgrade_is_one() {
        assert_eq!(asks_for(&map(&[])), Upgrade::No);
        assert_eq!(
            asks_for(&map(&[("upgrade", "WebSocket")])),
            Upgrade::WebSocket
        );
        assert_eq!(asks_for(&map(&[("upgrade", "h2c")])), Upgrade::Other);
        assert_eq!(
            asks_for(&map(&[("upgrade", "websocket, h2c")])),
            Upgrade::Other
        );
        let two = map(&[("upgrade", "websocket"), ("upgrade", "websocket")]);
        assert_eq!(asks_for(&two), Upgrade::Other);
    }
}

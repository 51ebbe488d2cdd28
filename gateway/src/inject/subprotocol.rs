//! Credentials among the subprotocols of a WebSocket: browsers can set no other field of the handshake, so some services take
//! a key there. It refuses to know which subprotocol the upstream chooses.

use super::is_same_field;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

/// How subprotocols begin that are a credential, in small letters.
const CREDENTIALS: [&[u8]; 2] = [
    // OpenAI, Realtime API: a key or an ephemeral token.
    b"openai-insecure-api-key.",
    // Kubernetes API server (`k8s.io/apiserver/pkg/authentication/request/websocket`): a bearer token in base64url.
    b"base64url.bearer.authorization.k8s.io.",
];

/// Removes them from what the client offers. What is left stays as it was; of nothing there is no field.
pub(super) fn remove_credentials(headers: &mut HeaderMap) {
    let offering = |name: &&HeaderName| is_same_field(name, &SEC_WEBSOCKET_PROTOCOL);
    let names: Vec<HeaderName> = headers.keys().filter(offering).cloned().collect();
    for name in names {
        let values = headers.get_all(&name).iter();
        let mut offered: Vec<&[u8]> = values.flat_map(tokens).collect();
        let all = offered.len();
        offered.retain(|token| !is_credential(token));
        if offered.len() == all {
            continue;
        }
        // A piece of a field value is one.
        let kept = HeaderValue::from_bytes(&offered.join(&b", "[..])).ok();
        headers.remove(&name);
        if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
            headers.insert(name, kept);
        }
    }
}

/// The members of a list (RFC 9110 §5.6.1).
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let members = value.as_bytes().split(|byte| *byte == b',');
    members
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// In any case: a server may be generous.
fn is_credential(token: &[u8]) -> bool {
    CREDENTIALS.iter().any(|beginning| {
        token
            .get(..beginning.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(beginning))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "openai-insecure-api-key.sk-1";
    const BEARER: &str = "Base64URL.bearer.authorization.k8s.io.ZXk";

    fn left(name: &'static str, offered: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in offered {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(name, value);
        }
        remove_credentials(&mut headers);
        let left = headers.get_all(name).iter();
        left.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    #[test]
    fn keys_go_and_what_else_is_offered_stays() {
        let of = |offered: &[&str]| left("sec-websocket-protocol", offered);
        assert_eq!(of(&["realtime,  b"]), ["realtime,  b"]);
        assert_eq!(of(&["a", "b"]), ["a", "b"]);
        let openai = format!("realtime, {KEY}, openai-beta.realtime-v1");
        assert_eq!(of(&[&openai]), ["realtime, openai-beta.realtime-v1"]);
        assert_eq!(of(&[BEARER, "v4.channel.k8s.io"]), ["v4.channel.k8s.io"]);
        assert_eq!(of(&[&format!(",\t{KEY} ,é")]), ["é"]);
        assert!(of(&[KEY, &format!(" ,{BEARER}, ")]).is_empty());
        // It begins like one and is none.
        assert_eq!(
            of(&["openai-insecure-api-key"]),
            ["openai-insecure-api-key"]
        );
    }

    #[test]
    fn another_spelling_of_the_field_is_the_field() {
        assert!(left("sec_websocket_protocol", &[KEY]).is_empty());
        assert_eq!(left("x-protocol", &[KEY]), [KEY]);
    }
}

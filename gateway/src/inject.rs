//! Credential injection: unconditional and last. Whatever the sandbox sent in the credential's place
//! is removed first, so there is nothing the sandbox can do to have its own value sent, or to have
//! the real one sent twice.

use crate::policy::{InjectionTarget, MissingSecret, RequestPermit};
use crate::secrets::Secrets;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// Why nothing may be sent.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The secret does not exist.
    #[error(transparent)]
    Missing(#[from] MissingSecret),
    /// The rendered value cannot stand in a header field (RFC 9110 §5.5): it has a line break, say.
    #[error("the credential for header {0} has bytes that a header field cannot have")]
    NotAFieldValue(HeaderName),
    /// No policy gets this far: what the gateway cannot set is refused when the policy is read.
    #[error("the credential of {0} goes where this gateway sets none")]
    NotSupported(std::sync::Arc<str>),
}

/// Sets the permit's headers. On an error the headers must not be sent.
pub fn apply(
    permit: &RequestPermit,
    secrets: &Secrets,
    headers: &mut HeaderMap,
) -> Result<(), InjectError> {
    remove_fields(headers, &credential_headers(permit));
    for injection in permit.injections() {
        let InjectionTarget::Header { name, template } = &injection.target else {
            return Err(InjectError::NotSupported(injection.policy.clone()));
        };
        let value = template.render(&mut |reference| secrets.get(reference))?;
        let mut value = HeaderValue::from_bytes(value.expose()).map_err(
            |_invalid: http::header::InvalidHeaderValue| InjectError::NotAFieldValue(name.clone()),
        )?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}

/// The fields that a sandbox may not send on this request, as headers or as trailers: the ones to
/// be set, and the provider's other ways to present a credential.
pub fn credential_headers(permit: &RequestPermit) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for injection in permit.injections() {
        names.extend(injection.headers());
        let others = injection
            .provider
            .map_or(&[][..], |p| p.credential_headers());
        names.extend(others.iter().map(|name| HeaderName::from_static(name)));
    }
    names
}

/// Removes fields by name, from headers or trailers. `_` counts as `-`: servers behind CGI-like
/// interfaces read them alike (RFC 3875 §4.1.18).
pub fn remove_fields(headers: &mut HeaderMap, names: &[HeaderName]) {
    let sent: Vec<HeaderName> = headers
        .keys()
        .filter(|sent| names.iter().any(|name| is_same_field(sent, name)))
        .cloned()
        .collect();
    for name in sent {
        headers.remove(name);
    }
}

fn is_same_field(one: &HeaderName, other: &HeaderName) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let folded = |name: &'_ HeaderName| name.as_str().bytes().map(fold).collect::<Vec<_>>();
    one == other || (one.as_str().len() == other.as_str().len() && folded(one) == folded(other))
}

/// Query parameters by which providers take a credential too.
const CREDENTIAL_PARAMETERS: [&str; 7] = [
    "key",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "oauth_token",
    "auth_token",
];

/// The query without a credential of the sandbox's own, on a provider's route that injects one.
pub fn without_credentials(permit: &RequestPermit, query: &str) -> String {
    if permit.provider().is_none() || permit.injections().is_empty() {
        return query.to_owned();
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            let name = percent_decode_str(name)
                .decode_utf8_lossy()
                .to_ascii_lowercase();
            !CREDENTIAL_PARAMETERS.contains(&name.as_str())
        })
        .collect();
    kept.join("&")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::policy::{Class, Destination, Host, RequestFacts, SecretRef, SourceFile, compile};
    use crate::secrets::SecretValue;

    const POLICY: &str = include_str!("../../policies/anthropic/policy.yaml");

    fn permit(path: &str) -> RequestPermit {
        let file = SourceFile {
            name: "p.yaml".into(),
            text: POLICY.to_owned().into(),
        };
        let policy = compile(&[file]).policy.unwrap();
        let gateway = policy.gateways.values().next().unwrap();
        let host = Host::parse("api.anthropic.com").unwrap();
        let permit = gateway
            .authorize(&Destination {
                address: "203.0.113.9:443".parse().unwrap(),
                host: Some(&host),
                listener: gateway.listener(Class::Tls, 443).unwrap(),
            })
            .unwrap();
        let facts = RequestFacts {
            host: Some(&host),
            port: 443,
            method: "POST",
            path,
            headers: &HeaderMap::new(),
            model: None,
            tls: true,
        };
        gateway.authorize_request(&permit, &facts).unwrap()
    }

    fn secrets(permit: &RequestPermit, value: &[u8]) -> Secrets {
        let references: Vec<SecretRef> = permit
            .injections()
            .iter()
            .flat_map(|injection| injection.secret_refs().into_iter().cloned())
            .collect();
        Secrets::from_values(
            references
                .into_iter()
                .map(|reference| (reference, SecretValue::new(value.to_vec()))),
        )
    }

    #[test]
    fn the_real_credential_is_set_once_whatever_the_sandbox_sent() {
        let permit = permit("/v1/messages");
        let mut headers = HeaderMap::new();
        for name in ["x-api-key", "x_api_key", "authorization", "accept"] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static("own"),
            );
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static("two"),
            );
        }
        apply(&permit, &secrets(&permit, b"real"), &mut headers).unwrap();
        let all: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        assert_eq!(headers.get_all("x-api-key").iter().count(), 1, "{all:?}");
        assert_eq!(headers["x-api-key"], "real");
        assert!(headers["x-api-key"].is_sensitive());
        assert_eq!(headers.len(), 3, "{all:?}");
        assert_eq!(headers.get_all("accept").iter().count(), 2);
    }

    #[test]
    fn without_its_secret_or_with_a_line_break_in_it_nothing_may_be_sent() {
        let permit = permit("/v1/messages");
        let mut headers = HeaderMap::new();
        let none = Secrets::from_values([]);
        assert!(matches!(
            apply(&permit, &none, &mut headers),
            Err(InjectError::Missing(_))
        ));
        assert!(matches!(
            apply(&permit, &secrets(&permit, b"a\r\nx: y"), &mut headers),
            Err(InjectError::NotAFieldValue(_))
        ));
    }

    #[test]
    fn the_sandbox_s_own_credential_in_the_query_goes_however_it_is_spelled() {
        let permit = permit("/v1/messages");
        for (query, left) in [
            ("key=mine", ""),
            ("beta=true&API%5Fkey=mine&x=1", "beta=true&x=1"),
            ("access_token", ""),
            ("monkey=1&keys=2", "monkey=1&keys=2"),
        ] {
            assert_eq!(without_credentials(&permit, query), left);
        }
    }
}

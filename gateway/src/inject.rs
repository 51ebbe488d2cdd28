//! Credential injection: unconditional and last. Whatever the sandbox sent in the credential's place
//! is removed first, so there is nothing the sandbox can do to have its own value sent, or to have
//! the real one sent twice.

use crate::policy::{MissingSecret, RequestPermit};
use crate::secrets::Secrets;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Why nothing may be sent.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The secret does not exist.
    #[error(transparent)]
    Missing(#[from] MissingSecret),
    /// The rendered value cannot stand in a header field (RFC 9110 §5.5): it has a line break, say.
    #[error("the credential for header {0} has bytes that a header field cannot have")]
    NotAFieldValue(HeaderName),
}

/// Sets the permit's headers. On an error the headers must not be sent.
pub fn apply(
    permit: &RequestPermit,
    secrets: &Secrets,
    headers: &mut HeaderMap,
) -> Result<(), InjectError> {
    for name in credential_headers(permit) {
        headers.remove(name);
    }
    for injection in permit.injections() {
        let value = injection
            .template
            .render(&mut |reference| secrets.get(reference))?;
        let mut value = HeaderValue::from_bytes(value.expose()).map_err(
            |_invalid: http::header::InvalidHeaderValue| {
                InjectError::NotAFieldValue(injection.header.clone())
            },
        )?;
        value.set_sensitive(true);
        headers.insert(&injection.header, value);
    }
    Ok(())
}

/// The fields that a sandbox may not send on this request, as headers or as trailers: the ones to
/// be set, and the provider's other ways to present a credential.
pub fn credential_headers(permit: &RequestPermit) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for injection in permit.injections() {
        names.push(injection.header.clone());
        let others = injection
            .provider
            .map_or(&[][..], |p| p.credential_headers());
        names.extend(others.iter().map(|name| HeaderName::from_static(name)));
    }
    names
}

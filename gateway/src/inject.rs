//! Credential injection: unconditional and last. Whatever the sandbox sent in the credential's place
//! is removed first, so there is nothing the sandbox can do to have its own value sent, or to have
//! the real one sent twice.
//!
//! Two steps. [`apply`] and [`query`] work on the head alone and at once; what needs the body, or an
//! answer from elsewhere (a signature, an access token), is left to [`Late::finish`].

mod aws;
mod client;
mod google;
mod query;
mod subprotocol;
mod tokens;
mod trial;

pub use aws::copy::{Named, named};
pub use query::query;
pub use tokens::{TokenError, Tokens};
pub use trial::try_out;

use crate::outcome::DenyReason;
use crate::policy::{
    Injection, InjectionTarget, MissingSecret, RequestPermit, SecretRef, TokenSource,
};
use crate::secrets::{SecretValue, Secrets};
use crate::upstream::RequestBody;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest body that is held back to be hashed for a signature, bytes. Services that take more (S3)
/// sign without it.
pub const MAX_SIGNED_BODY: usize = 16 * 1024 * 1024;

/// All but RFC 3986's unreserved characters.
pub(crate) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why nothing may be sent.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The secret does not exist.
    #[error(transparent)]
    Missing(#[from] MissingSecret),
    /// The rendered value cannot stand in a header field (RFC 9110 §5.5): it has a line break, say.
    #[error("the credential for header {0} has bytes that a header field cannot have")]
    NotAFieldValue(HeaderName),
    /// The secret exists and is not what it has to be.
    #[error("secret {secret} cannot be used: {what}")]
    Unusable {
        /// Which.
        secret: SecretRef,
        /// What is wrong, without the value.
        what: &'static str,
    },
    /// No access token was given.
    #[error(transparent)]
    Token(#[from] Arc<TokenError>),
    /// The host does not say which service and region a signature is for.
    #[error(
        "the host {host} does not say for which AWS service and region to sign; set providerAuth.{field} in policy {policy}"
    )]
    Unlocated {
        /// The host.
        host: String,
        /// The field of the policy that would say so.
        field: &'static str,
        /// The policy.
        policy: Arc<str>,
    },
    /// The request is of a form that cannot be signed for the sandbox.
    #[error("the gateway cannot sign this request: {0}")]
    Unsignable(&'static str),
}

impl InjectError {
    /// What the records call it.
    #[must_use]
    pub fn reason(&self) -> DenyReason {
        match self {
            Self::Missing(_) => DenyReason::SecretMissing,
            Self::NotAFieldValue(_)
            | Self::Unusable { .. }
            | Self::Token(_)
            | Self::Unlocated { .. } => DenyReason::CredentialUnavailable,
            Self::Unsignable(_) => DenyReason::RequestFormNotAllowed,
        }
    }

    /// What the sandbox is told of it: no address of the gateway's own surroundings.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Token(error) => error.told(),
            other => other.to_string(),
        }
    }
}

/// Whom a request goes to, as far as credentials depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// The name or address.
    pub host: &'a str,
    /// Over TLS.
    pub tls: bool,
}

/// Where bodies are held that cannot go on at once.
#[derive(Clone, Debug)]
pub struct Room {
    memory: Arc<Semaphore>,
    missing: Arc<AtomicBool>,
}

impl Room {
    /// For one request. `memory` are the bytes that are free for all bodies of its sandbox.
    #[must_use]
    pub fn new(memory: Arc<Semaphore>) -> Self {
        Self {
            memory,
            missing: Arc::default(),
        }
    }

    /// Was there none for the request's body? Then the body broke off.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes).ok();
        let taken = count.and_then(|count| {
            let memory = Arc::clone(&self.memory);
            memory.try_acquire_many_owned(count).ok()
        });
        if taken.is_none() {
            self.missing.store(true, Ordering::Relaxed);
        }
        taken
    }
}

/// What remains to be done when the head is otherwise as it will be sent.
pub struct Late(Kind);

enum Kind {
    Aws(aws::Plan),
    Token(TokenSource),
}

/// Removes the sandbox's own credentials from the headers and sets the permit's. On an error the headers
/// must not be sent, and where something remains, not before [`Late::finish`].
pub fn apply(
    permit: &RequestPermit,
    secrets: &Secrets,
    recipient: Recipient<'_>,
    headers: &mut HeaderMap,
) -> Result<Option<Late>, InjectError> {
    let injections = permit.injections();
    let mut late = None;
    for injection in injections {
        if let Some(kind) = remaining(injection, secrets, recipient, headers)? {
            late = Some(Late(kind));
        }
    }
    remove_fields(headers, &credential_headers(permit));
    if !injections.is_empty() {
        subprotocol::remove_credentials(headers);
    }
    for injection in injections {
        let InjectionTarget::Header { name, template } = &injection.target else {
            continue;
        };
        let value = template.render(&mut |reference| secrets.get(reference))?;
        headers.insert(name, field_value(name, &value)?);
    }
    Ok(late)
}

/// Two of these never meet: both would set `Authorization`, and policies that clash are refused.
fn remaining(
    injection: &Injection,
    secrets: &Secrets,
    recipient: Recipient<'_>,
    headers: &mut HeaderMap,
) -> Result<Option<Kind>, InjectError> {
    Ok(match &injection.target {
        InjectionTarget::Header { .. } | InjectionTarget::QueryParam { .. } => None,
        InjectionTarget::AwsV4 { .. } => {
            aws::Plan::new(injection, secrets, recipient, headers)?.map(Kind::Aws)
        }
        InjectionTarget::AccessToken(source) => Some(Kind::Token(source.clone())),
    })
}

impl Late {
    /// Must the body be known ([`Late::cover`]) before the request can be finished?
    #[must_use]
    pub fn covers_body(&self) -> bool {
        matches!(&self.0, Kind::Aws(plan) if plan.covers_body())
    }

    /// Is the credential one that the upstream shall read, rather than a proof that it is known?
    #[must_use]
    pub fn is_token(&self) -> bool {
        matches!(&self.0, Kind::Token(_))
    }

    /// Takes the whole body, in pieces, into what is signed. What is sent must be the same bytes.
    pub fn cover<'a>(&mut self, body: impl Iterator<Item = &'a [u8]>) {
        if let Kind::Aws(plan) = &mut self.0 {
            plan.cover(body);
        }
    }

    /// Signs the request, or gets the token that it needs. On an error nothing may be sent.
    pub async fn finish(
        self,
        tokens: &Tokens,
        secrets: &Arc<Secrets>,
        room: &Room,
        mut request: Request<RequestBody>,
    ) -> Result<Request<RequestBody>, InjectError> {
        match self.0 {
            Kind::Aws(plan) => plan.finish(request, room),
            Kind::Token(source) => {
                let token = tokens.get(secrets, &source).await?;
                let bearer = [b"Bearer ", token.expose()].concat();
                let value = field_value(&AUTHORIZATION, &SecretValue::new(bearer))?;
                request.headers_mut().insert(AUTHORIZATION, value);
                Ok(request)
            }
        }
    }
}

/// The upstream refuses what it was sent (401): tokens among the permit's credentials may have been revoked.
pub fn doubt(permit: &RequestPermit, tokens: &Tokens, secrets: &Secrets) {
    for injection in permit.injections() {
        if let InjectionTarget::AccessToken(source) = &injection.target {
            tokens.doubt(secrets, source);
        }
    }
}

fn field_value(name: &HeaderName, value: &SecretValue) -> Result<HeaderValue, InjectError> {
    let mut value = HeaderValue::from_bytes(value.expose()).map_err(
        |_invalid: http::header::InvalidHeaderValue| InjectError::NotAFieldValue(name.clone()),
    )?;
    value.set_sensitive(true);
    Ok(value)
}

/// The fields that a sandbox may not send on this request, as headers or as trailers: the ones to
/// be set, and the provider's other ways to present a credential.
pub fn credential_headers(permit: &RequestPermit) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for injection in permit.injections() {
        names.extend_from_slice(injection.headers());
        let others = injection
            .provider
            .map_or(&[][..], |p| p.credential_headers());
        names.extend(others.iter().map(|name| HeaderName::from_static(name)));
        if matches!(injection.target, InjectionTarget::AwsV4 { .. }) {
            names.extend(aws::OTHER_HEADERS);
        }
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

/// Are the two one field to some server? See [`remove_fields`].
pub fn is_same_field(one: &HeaderName, other: &HeaderName) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    one.len() == other.len() && one.iter().map(fold).eq(other.iter().map(fold))
}

#[cfg(test)]
mod tests;

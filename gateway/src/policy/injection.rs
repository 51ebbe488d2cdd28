//! What may be set on a permitted request, last of all: the targets of credentials.
//!
//! It refuses to know how a request is written and how a signature is made; whoever sends the request
//! renders, signs and sets.

use std::sync::Arc;

use http::HeaderName;

use super::{Provider, SecretRef, Template, TokenSource};

/// One credential to set on a permitted request, last of all.
#[derive(Clone, Debug)]
pub struct Injection {
    /// The `CredentialInjectionPolicy` or `SandboxProxyRule` that asks for it.
    pub policy: Arc<str>,
    /// The provider of the route, whose other credential headers are removed too; `None` for a
    /// `SandboxProxyRule` and on an `EgressHTTPRoute`.
    pub provider: Option<Provider>,
    /// Where it goes.
    pub target: InjectionTarget,
}

/// Where a credential goes. Whatever the sandbox sent in its place is removed first.
#[derive(Clone, Debug)]
pub enum InjectionTarget {
    /// A header field.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its value.
        template: Template,
    },
    /// A parameter of the query.
    QueryParam {
        /// Its name, not percent-encoded.
        name: Arc<str>,
        /// Its value, not percent-encoded.
        template: Template,
    },
    /// An AWS Signature Version 4 over the request.
    AwsV4 {
        /// Key `access_key_id` of the policy's secret.
        access_key_id: SecretRef,
        /// Key `secret_access_key`.
        secret_access_key: SecretRef,
        /// Key `session_token`; long-lived keys have none, so its absence is fine.
        session_token: SecretRef,
        /// As written; `None` where the route's hosts are all AWS's own, which carry it.
        region: Option<Arc<str>>,
        /// As written; `None` where the route's hosts are all AWS's own, which carry it.
        service: Option<Arc<str>>,
    },
    /// `Authorization` with a bearer token (RFC 6750) that somebody gives for the credential.
    AccessToken(TokenSource),
}

/// The header that carries an access token.
static BEARER: [HeaderName; 1] = [http::header::AUTHORIZATION];
/// The header that carries an AWS signature, and those that it needs besides (Signature Version 4, "signed headers").
static AWS_HEADERS: [HeaderName; 4] = [
    http::header::AUTHORIZATION,
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
];

impl Injection {
    /// The headers that it sets: of several credentials of one request, no two set the same.
    #[must_use]
    pub fn headers(&self) -> &[HeaderName] {
        match &self.target {
            InjectionTarget::Header { name, .. } => std::slice::from_ref(name),
            InjectionTarget::QueryParam { .. } => &[],
            InjectionTarget::AwsV4 { .. } => &AWS_HEADERS,
            InjectionTarget::AccessToken(_) => &BEARER,
        }
    }

    /// The value to be rendered, of a header or a parameter; signatures and tokens have none.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        match &self.target {
            InjectionTarget::Header { template, .. }
            | InjectionTarget::QueryParam { template, .. } => Some(template),
            InjectionTarget::AwsV4 { .. } | InjectionTarget::AccessToken(_) => None,
        }
    }

    /// The secret values without which nothing may be sent.
    #[must_use]
    pub fn secret_refs(&self) -> Vec<&SecretRef> {
        match &self.target {
            InjectionTarget::Header { template, .. }
            | InjectionTarget::QueryParam { template, .. } => template.secret_refs().collect(),
            InjectionTarget::AwsV4 {
                access_key_id,
                secret_access_key,
                ..
            } => vec![access_key_id, secret_access_key],
            InjectionTarget::AccessToken(source) => source.secret_refs(),
        }
    }

    /// What it occupies in a request, in words: two injections with one in common clash.
    pub(super) fn places(&self) -> Vec<String> {
        match &self.target {
            InjectionTarget::QueryParam { name, .. } => vec![format!("query parameter `{name}`")],
            _ => {
                let headers = self.headers().iter();
                headers.map(|name| format!("header `{name}`")).collect()
            }
        }
    }
}

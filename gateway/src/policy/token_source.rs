//! Who gives access tokens for a credential, and what they are asked for.
//!
//! It refuses to know how a token is asked for, kept and sent.

use std::fmt;
use std::sync::Arc;

use http::Uri;

use super::{HTTPS_PORT, Host, SecretRef};

/// Where an access token comes from. Whoever sends the request asks for one, and keeps it.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// Google's token endpoint, for an assertion signed with a service account's key (RFC 7523).
    GcpServiceAccount {
        /// The service account's key file (JSON), which names the endpoint.
        key: SecretRef,
        /// OAuth scopes asked for; never empty.
        scopes: Arc<[String]>,
    },
    /// An authorization server, for a client's own id and secret (RFC 6749 section 4.4).
    OAuth2Client(Arc<OAuth2Client>),
}

/// A client of an authorization server, and what its tokens are for.
#[derive(Clone, Debug)]
pub struct OAuth2Client {
    /// Where tokens are asked for.
    pub endpoint: TokenUrl,
    /// Key `client_id` of the policy's secret.
    pub id: SecretRef,
    /// Key `client_secret`.
    pub secret: SecretRef,
    /// How the client proves itself.
    pub method: ClientAuthMethod,
    /// Scopes asked for; the server's own default if there are none.
    pub scopes: Arc<[String]>,
    /// Whom the token is for, in the word that some servers want.
    pub audience: Option<Arc<str>>,
    /// Whom the token is for (RFC 8707), an absolute URI without fragment.
    pub resource: Option<Arc<str>>,
}

/// How a client proves itself to the token endpoint (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthMethod {
    /// By HTTP Basic, which every server takes.
    #[default]
    Basic,
    /// By fields of the form.
    Post,
}

/// An https URL with a host name: where tokens are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUrl {
    host: Host,
    port: u16,
    path: Arc<str>,
}

/// Why a text is no [`TokenUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenUrlError {
    /// It cannot be read.
    #[error("not a URL")]
    NotAUrl,
    /// A client's secret in plain text is no secret.
    #[error("not an https URL")]
    NotHttps,
    /// It names no host, or an address: a certificate proves a name.
    #[error("its host is not a host name")]
    NoHost,
    /// RFC 6749 section 3.2 forbids fragments; credentials are kept elsewhere.
    #[error("a token URL has no user information and no fragment")]
    Unexpected,
}

impl TokenSource {
    /// The secret values without which no token can be asked for.
    #[must_use]
    pub fn secret_refs(&self) -> Vec<&SecretRef> {
        match self {
            Self::GcpServiceAccount { key, .. } => vec![key],
            Self::OAuth2Client(client) => vec![&client.id, &client.secret],
        }
    }
}

impl TokenUrl {
    /// Reads an `https://host[:port][/path][?query]`.
    ///
    /// # Errors
    /// [`TokenUrlError`].
    pub fn parse(text: &str) -> Result<Self, TokenUrlError> {
        let Ok(uri) = text.parse::<Uri>() else {
            return Err(TokenUrlError::NotAUrl);
        };
        if uri.scheme_str() != Some("https") {
            return Err(TokenUrlError::NotHttps);
        }
        let Some(authority) = uri.authority() else {
            return Err(TokenUrlError::NoHost);
        };
        // `Uri` forgets fragments.
        if authority.as_str().contains('@') || text.contains('#') {
            return Err(TokenUrlError::Unexpected);
        }
        let Ok(host) = Host::parse(authority.host()) else {
            return Err(TokenUrlError::NoHost);
        };
        let port = authority.port_u16();
        // A port that is no number from 1 is not the default one.
        if authority.as_str().len() != authority.host().len() && port.is_none_or(|port| port == 0) {
            return Err(TokenUrlError::NotAUrl);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host,
            port: port.unwrap_or(HTTPS_PORT),
            path: path.into(),
        })
    }

    /// Whom to ask.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// On which port; never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, with the query if there is one; begins with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The host, and the port where it is not that of https: what a `Host` field says.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            HTTPS_PORT => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for TokenUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "https://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_token_url_is_https_to_a_host_name_and_is_told_as_it_will_be_asked() {
        for (text, shown, port, path) in [
            ("https://a.example", "https://a.example/", 443, "/"),
            (
                "https://A.Example.:443/t?x=1",
                "https://a.example/t?x=1",
                443,
                "/t?x=1",
            ),
            (
                "https://a.example:8443/t",
                "https://a.example:8443/t",
                8443,
                "/t",
            ),
        ] {
            let url = TokenUrl::parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.port(), url.path()),
                (shown, port, path)
            );
        }
    }

    #[test]
    fn what_is_no_token_url_says_why() {
        for (text, why) in [
            ("", TokenUrlError::NotAUrl),
            ("https://a b/", TokenUrlError::NotAUrl),
            ("https://a.example:0/", TokenUrlError::NotAUrl),
            ("https://a.example:/", TokenUrlError::NotAUrl),
            ("/token", TokenUrlError::NotHttps),
            ("http://a.example/token", TokenUrlError::NotHttps),
            ("https://192.0.2.1/token", TokenUrlError::NoHost),
            ("https://[2001:db8::1]/token", TokenUrlError::NoHost),
            ("https://id:secret@a.example/", TokenUrlError::Unexpected),
            ("https://a.example/#token", TokenUrlError::Unexpected),
        ] {
            assert_eq!(TokenUrl::parse(text), Err(why), "{text}");
        }
    }
}

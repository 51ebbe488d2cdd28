//! How a Google service account asks for a token: with an assertion signed with the account's key (RFC 7523 §2.1). It
//! refuses to know how the token is kept.

use super::tokens::{TokenError, urlencoded};
use crate::policy::{SecretRef, TokenUrl};
use crate::secrets::SecretValue;
use crate::upstream::Form;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Life of an assertion, the longest that Google takes.
const ASSERTION_LIFE: Duration = Duration::from_secs(60 * 60);
/// The grant (RFC 7523 §2.1).
const GRANT: &[u8] = b"urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A service account and what its token shall be for.
pub(super) struct Grant<'s> {
    /// Where its key file is kept.
    pub(super) secret: &'s SecretRef,
    /// The key file.
    pub(super) key: Arc<SecretValue>,
    /// What for.
    pub(super) scopes: &'s [String],
}

impl Grant<'_> {
    /// Gives `add` all that decides which token it is.
    pub(super) fn identify(&self, add: &mut dyn FnMut(&[u8])) {
        add(self.key.expose());
        for scope in self.scopes {
            add(scope.as_bytes());
        }
    }

    /// What is asked, and whom.
    ///
    /// # Errors
    /// The key file is none, or its key does not sign.
    pub(super) fn form(&self) -> Result<(TokenUrl, Form), TokenError> {
        let broken = |what| TokenError::Key {
            secret: self.secret.clone(),
            what,
        };
        let key = Key::read(self.key.expose()).map_err(broken)?;
        let assertion = key.assertion(self.scopes, SystemTime::now());
        let assertion = assertion.map_err(broken)?;
        let body = urlencoded(&[("grant_type", GRANT), ("assertion", assertion.as_bytes())]);
        let form = Form {
            body,
            authorization: None,
        };
        Ok((key.url, form))
    }
}

/// A service account's key file.
struct Key {
    email: String,
    id: Option<String>,
    pair: RsaKeyPair,
    /// As written, which is what Google compares.
    endpoint: String,
    url: TokenUrl,
}

#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key_id: Option<String>,
    private_key: Zeroizing<String>,
    token_uri: String,
}

impl Key {
    fn read(file: &[u8]) -> Result<Self, &'static str> {
        let Ok(file) = serde_json::from_slice::<KeyFile>(file) else {
            return Err("it is not the JSON key file of a service account");
        };
        if file.r#type != "service_account" {
            return Err("its `type` is not `service_account`");
        }
        let pair = rsa_key(&file.private_key)?;
        let Ok(url) = TokenUrl::parse(&file.token_uri) else {
            return Err("its `token_uri` is not an https URL with a host name");
        };
        Ok(Self {
            email: file.client_email,
            id: file.private_key_id,
            pair,
            endpoint: file.token_uri,
            url,
        })
    }

    /// A signed JWT (RFC 7519, RS256), good at the endpoint alone.
    fn assertion(&self, scopes: &[String], now: SystemTime) -> Result<String, &'static str> {
        let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else {
            return Err("the clock is before 1970");
        };
        let mut header = serde_json::json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.id {
            header["kid"] = id.as_str().into();
        }
        let claims = serde_json::json!({
            "iss": self.email,
            "scope": scopes.join(" "),
            "aud": self.endpoint,
            "iat": now.as_secs(),
            "exp": (now + ASSERTION_LIFE).as_secs(),
        });
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        match self
            .pair
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
        {
            Ok(()) => Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))),
            Err(_unspecified) => Err("its key does not sign"),
        }
    }
}

/// The key of a PEM text (RFC 7468), as PKCS #8 or PKCS #1.
fn rsa_key(pem: &str) -> Result<RsaKeyPair, &'static str> {
    let between = |label: &str| {
        let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
        let (inside, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let text: Zeroizing<String> = Zeroizing::new(inside.split_whitespace().collect());
        Some(Zeroizing::new(STANDARD.decode(text.as_bytes()).ok()?))
    };
    let read = match (between("PRIVATE KEY"), between("RSA PRIVATE KEY")) {
        (Some(der), _) => RsaKeyPair::from_pkcs8(&der),
        (None, Some(der)) => RsaKeyPair::from_der(&der),
        (None, None) => return Err("its `private_key` is not a PEM private key"),
    };
    match read {
        Ok(pair) => Ok(pair),
        Err(_rejected) => Err("its `private_key` is not an RSA key"),
    }
}

#[cfg(test)]
mod tests;

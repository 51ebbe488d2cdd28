//! How a client asks an authorization server for a token with its own id and secret (RFC 6749 §4.4). It refuses to know
//! how the token is kept.

use super::tokens::{TokenError, escaped, urlencoded};
use crate::policy::{ClientAuthMethod, OAuth2Client, TokenUrl};
use crate::secrets::SecretValue;
use crate::upstream::Form;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A client and what its token shall be for.
pub(super) struct Grant<'s> {
    /// What policy says of it.
    pub(super) client: &'s OAuth2Client,
    /// Its id.
    pub(super) id: Arc<SecretValue>,
    /// Its secret.
    pub(super) secret: Arc<SecretValue>,
}

impl Grant<'_> {
    /// Gives `add` all that decides which token it is, and where it is asked for.
    pub(super) fn identify(&self, add: &mut dyn FnMut(&[u8])) {
        let client = self.client;
        add(self.id.expose());
        add(self.secret.expose());
        add(client.endpoint.to_string().as_bytes());
        add(match client.method {
            ClientAuthMethod::Basic => b"basic",
            ClientAuthMethod::Post => b"post",
        });
        for optional in [&client.audience, &client.resource] {
            add(optional.as_deref().unwrap_or_default().as_bytes());
        }
        for scope in client.scopes.iter() {
            add(scope.as_bytes());
        }
    }

    /// What is asked, and whom.
    ///
    /// # Errors
    /// The secret is longer than a header field may be.
    pub(super) fn form(&self) -> Result<(TokenUrl, Form), TokenError> {
        let client = self.client;
        let scope = client.scopes.join(" ");
        let mut fields: Vec<(&str, &[u8])> = vec![("grant_type", b"client_credentials")];
        for (name, value) in [
            (
                "scope",
                Some(scope.as_str()).filter(|scope| !scope.is_empty()),
            ),
            ("audience", client.audience.as_deref()),
            ("resource", client.resource.as_deref()),
        ] {
            fields.extend(value.map(|value| (name, value.as_bytes())));
        }
        let authorization = match client.method {
            ClientAuthMethod::Basic => Some(self.basic()?),
            ClientAuthMethod::Post => {
                fields.push(("client_id", self.id.expose()));
                fields.push(("client_secret", self.secret.expose()));
                None
            }
        };
        let form = Form {
            body: urlencoded(&fields),
            authorization,
        };
        Ok((client.endpoint.clone(), form))
    }

    /// RFC 6749 §2.3.1: both are escaped as in a form before they are joined, or a `:` in the id would end it.
    fn basic(&self) -> Result<HeaderValue, TokenError> {
        let pair = joined(&self.id, &self.secret);
        let mut text = Zeroizing::new(String::with_capacity(6 + pair.len().div_ceil(3) * 4));
        text.push_str("Basic ");
        STANDARD.encode_string(&*pair, &mut text);
        let mut value =
            HeaderValue::try_from(text.as_str()).map_err(|_too_long| TokenError::Key {
                secret: self.client.secret.clone(),
                what: "a header field does not hold it",
            })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// `id:secret`, each escaped.
fn joined(id: &SecretValue, secret: &SecretValue) -> Zeroizing<Vec<u8>> {
    let most = 3 * (id.expose().len() + secret.expose().len()) + 1;
    let mut pair = Zeroizing::new(Vec::with_capacity(most));
    escaped(id.expose(), &mut pair);
    pair.push(b':');
    escaped(secret.expose(), &mut pair);
    pair
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::policy::SecretRef;

    fn client(method: ClientAuthMethod) -> OAuth2Client {
        let of = |key: &str| SecretRef {
            name: "crm".into(),
            key: key.into(),
        };
        OAuth2Client {
            endpoint: TokenUrl::parse("https://login.example/token?tenant=1").unwrap(),
            id: of("client_id"),
            secret: of("client_secret"),
            method,
            scopes: Arc::new(["a:read".to_owned(), "b".to_owned()]),
            audience: Some("https://api.example/".into()),
            resource: Some("urn:x&y".into()),
        }
    }

    fn grant<'c>(client: &'c OAuth2Client, id: &str, secret: &str) -> Grant<'c> {
        Grant {
            client,
            id: Arc::new(SecretValue::new(id.into())),
            secret: Arc::new(SecretValue::new(secret.into())),
        }
    }

    const FIELDS: &str = "grant_type=client_credentials&scope=a%3Aread%20b\
                          &audience=https%3A%2F%2Fapi.example%2F&resource=urn%3Ax%26y";

    #[test]
    fn by_basic_id_and_secret_are_escaped_and_in_the_head_alone() {
        let client = client(ClientAuthMethod::Basic);
        let (url, form) = grant(&client, "a:b", "p %+~é").form().unwrap();
        assert_eq!(url.to_string(), "https://login.example/token?tenant=1");
        assert_eq!(std::str::from_utf8(&form.body).unwrap(), FIELDS);
        let value = form.authorization.unwrap();
        assert!(value.is_sensitive());
        let pair = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(pair).unwrap(), b"a%3Ab:p%20%25%2B~%C3%A9");
    }

    #[test]
    fn by_post_they_are_fields_of_the_form_alone() {
        let client = client(ClientAuthMethod::Post);
        let (_, form) = grant(&client, "a:b", "p&client_id=c").form().unwrap();
        assert!(form.authorization.is_none());
        let sent = std::str::from_utf8(&form.body).unwrap();
        let more = "&client_id=a%3Ab&client_secret=p%26client_id%3Dc";
        assert_eq!(sent, format!("{FIELDS}{more}"));
    }

    #[test]
    fn what_is_not_asked_for_is_no_field() {
        let mut bare = client(ClientAuthMethod::Basic);
        (bare.audience, bare.resource, bare.scopes) = (None, None, Arc::new([]));
        let (_, form) = grant(&bare, "i", "s").form().unwrap();
        assert_eq!(*form.body, b"grant_type=client_credentials");
    }
}

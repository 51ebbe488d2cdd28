//! Values with holes for secrets.
//!
//! It refuses to know where secrets are kept: whoever renders a template brings the look-up.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secrets::SecretValue;

/// Which value of which secret; shown as `name/key`, which is also its file in a secrets folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    /// The secret's name, an RFC 1123 subdomain.
    pub name: Arc<str>,
    /// The key in it: letters, digits, `-`, `_` and `.`, and neither `.` nor `..`.
    pub key: Arc<str>,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.name, self.key)
    }
}

/// A header value as a sequence of literal text and secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Arc<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Secret(SecretRef),
    Base64(Box<[Part]>),
}

/// A template names a secret that is not there. The request must not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret {0} is missing")]
pub struct MissingSecret(pub SecretRef);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("`{{{{` without `}}}}`")]
    Unclosed,
    #[error("`}}}}` without `{{{{`")]
    Unopened,
    #[error("the literal text cannot stand in a header")]
    Literal,
    #[error("`{{{{ {0} }}}}` is not an expression this field knows")]
    Expression(String),
    #[error("`{0}` is not the name of a secret and a key")]
    Reference(String),
}

impl Template {
    /// Reads the value of a `CredentialInjectionPolicy`: `{{ value }}` is the policy's own secret, and
    /// `{{ base64 user ':' value }}` the base64 of keys of that secret and quoted text, joined.
    pub(super) fn of_policy(text: &str, value: &SecretRef) -> Result<Self, TemplateError> {
        parse(text, |expression| {
            if expression == "value" {
                return Ok(Part::Secret(value.clone()));
            }
            base64(expression, |word| match word {
                "value" => Some(value.clone()),
                key => is_secret_key(key).then(|| SecretRef {
                    name: value.name.clone(),
                    key: key.into(),
                }),
            })
            .ok_or_else(|| TemplateError::Expression(expression.to_owned()))
        })
    }

    /// Reads the value of a `SandboxProxyRule` header: `{{ secret-name.key }}`, split at the last dot, and
    /// `{{ base64 secret-name.user ':' secret-name.password }}`, the base64 of such values and quoted text, joined.
    pub(super) fn of_rule(text: &str) -> Result<Self, TemplateError> {
        parse(text, |expression| {
            reference(expression)
                .map(Part::Secret)
                .or_else(|| base64(expression, reference))
                .ok_or_else(|| TemplateError::Reference(expression.to_owned()))
        })
    }

    /// The secrets it names, in the order of the text.
    pub fn secret_refs(&self) -> impl Iterator<Item = &SecretRef> {
        self.0.iter().flat_map(|part| {
            let inside: &[Part] = match part {
                Part::Base64(items) => items,
                Part::Literal(_) | Part::Secret(_) => std::slice::from_ref(part),
            };
            inside.iter().filter_map(|part| match part {
                Part::Secret(secret) => Some(secret),
                Part::Literal(_) | Part::Base64(_) => None,
            })
        })
    }

    /// The whole value, with every secret looked up now. The result may hold bytes that no header can
    /// (a secret may be anything); that is for the caller to check, and to refuse.
    ///
    /// # Errors
    /// [`MissingSecret`] for the first secret that `lookup` does not have.
    pub fn render(
        &self,
        lookup: &mut dyn FnMut(&SecretRef) -> Option<Arc<SecretValue>>,
    ) -> Result<SecretValue, MissingSecret> {
        render(&self.0, lookup).map(|mut bytes| SecretValue::new(std::mem::take(&mut *bytes)))
    }
}

/// Is the text a name that a secret may have (RFC 1123 subdomain, as Kubernetes wants it)?
pub(crate) fn is_secret_name(text: &str) -> bool {
    let label = |label: &str| {
        let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = label.as_bytes();
        bytes.first().copied().is_some_and(edge)
            && bytes.last().copied().is_some_and(edge)
            && bytes.iter().all(|byte| edge(*byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Is the text a key that a secret may have? Since `name/key` is also a path, `.` and `..` are not.
pub(crate) fn is_secret_key(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// May the text stand in a header's value? Visible ASCII, space and tab: other bytes are obsolete there
/// (RFC 9110 section 5.5), and servers disagree on them.
pub(super) fn is_header_text(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic())
}

fn parse(
    text: &str,
    expression: impl Fn(&str) -> Result<Part, TemplateError>,
) -> Result<Template, TemplateError> {
    let mut parts = Vec::new();
    let literal = |text: &str| -> Result<Option<Part>, TemplateError> {
        if text.contains("}}") {
            return Err(TemplateError::Unopened);
        }
        if !is_header_text(text) {
            return Err(TemplateError::Literal);
        }
        Ok((!text.is_empty()).then(|| Part::Literal(text.into())))
    };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        parts.extend(literal(before)?);
        parts.push(expression(inside.trim())?);
        rest = after;
    }
    parts.extend(literal(rest)?);
    Ok(Template(parts.into()))
}

/// `NAME.KEY`, split at the last dot.
fn reference(text: &str) -> Option<SecretRef> {
    let (name, key) = text.rsplit_once('.')?;
    (is_secret_name(name) && is_secret_key(key)).then(|| SecretRef {
        name: name.into(),
        key: key.into(),
    })
}

/// `base64` and what is to be joined: quoted text, and words that name secrets, one at least.
fn base64(expression: &str, secret: impl Fn(&str) -> Option<SecretRef>) -> Option<Part> {
    let mut rest = expression
        .strip_prefix("base64")
        .filter(|rest| rest.starts_with(char::is_whitespace))?;
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            break;
        };
        if first == '\'' || first == '"' {
            let (text, after) = rest[1..].split_once(first)?;
            items.push(Part::Literal(text.into()));
            rest = after;
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            items.push(Part::Secret(secret(word)?));
            rest = after;
        }
    }
    let uses_secret = items.iter().any(|item| matches!(item, Part::Secret(_)));
    uses_secret.then(|| Part::Base64(items.into()))
}

fn render(
    parts: &[Part],
    lookup: &mut dyn FnMut(&SecretRef) -> Option<Arc<SecretValue>>,
) -> Result<Zeroizing<Vec<u8>>, MissingSecret> {
    let mut pieces: Vec<Zeroizing<Vec<u8>>> = Vec::with_capacity(parts.len());
    for part in parts {
        pieces.push(match part {
            Part::Literal(text) => Zeroizing::new(text.as_bytes().to_vec()),
            Part::Secret(secret) => {
                let value = lookup(secret).ok_or_else(|| MissingSecret(secret.clone()))?;
                Zeroizing::new(value.expose().to_vec())
            }
            Part::Base64(items) => {
                let encoded = STANDARD.encode(&*render(items, lookup)?);
                Zeroizing::new(encoded.into_bytes())
            }
        });
    }
    // Exactly as large as needed from the start: a vector that grows leaves copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(pieces.iter().map(|p| p.len()).sum()));
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests;

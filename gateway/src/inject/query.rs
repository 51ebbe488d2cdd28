//! Credentials in the query: the sandbox's own are taken out, however they are spelled, and the real one
//! is appended. It refuses to know about headers.

use super::{ESCAPED, InjectError, aws};
use crate::policy::{Injection, InjectionTarget, RequestPermit};
use crate::secrets::Secrets;
use http::header::AUTHORIZATION;
use percent_encoding::{percent_decode_str, percent_encode};
use std::collections::BTreeSet;

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
/// The parameter that stands for `Authorization: Bearer` (RFC 6750 §2.3).
const BEARER_PARAMETER: &str = "access_token";

/// The query as it is to be sent: without the sandbox's own credentials, with the permit's. Empty for
/// none. On an error nothing may be sent.
pub fn query(
    permit: &RequestPermit,
    secrets: &Secrets,
    sent: Option<&str>,
) -> Result<String, InjectError> {
    let injections = permit.injections();
    let sent = sent.unwrap_or_default();
    if injections.is_empty() {
        return Ok(sent.to_owned());
    }
    let mut query = match sent {
        "" => String::new(),
        sent => without(sent, &forbidden(injections, sent)),
    };
    for injection in injections {
        let InjectionTarget::QueryParam { name, template } = &injection.target else {
            continue;
        };
        let value = template.render(&mut |reference| secrets.get(reference))?;
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(percent_encode(name.as_bytes(), ESCAPED));
        query.push('=');
        query.extend(percent_encode(value.expose(), ESCAPED));
    }
    Ok(query)
}

/// The parameters that the sandbox may not send, in the form that [`name`] gives them.
fn forbidden(injections: &[Injection], sent: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for injection in injections {
        if injection.provider.is_some() {
            names.extend(CREDENTIAL_PARAMETERS.map(fold));
        }
        if injection.headers().contains(&AUTHORIZATION) {
            names.insert(fold(BEARER_PARAMETER));
        }
        match &injection.target {
            InjectionTarget::QueryParam { name, .. } => {
                names.insert(fold(name));
            }
            InjectionTarget::AwsV4 { .. } => {
                names.extend(aws::PRESIGNED.map(fold));
                // Of the older signature, whose other parameter is a common word.
                if pieces(sent).any(|piece| aws::PRESIGNED_V2.map(fold).contains(&name(piece))) {
                    names.extend(aws::PRESIGNED_V2.map(fold));
                    names.insert(fold("Expires"));
                }
            }
            InjectionTarget::Header { .. } | InjectionTarget::AccessToken(_) => {}
        }
    }
    names
}

/// The pairs whose name is not forbidden. Some servers split at `;` as well (HTML 4.01 §B.2.2), so a
/// name may hide behind one.
fn without(query: &str, forbidden: &BTreeSet<String>) -> String {
    let kept = query.split('&').filter_map(|pair| {
        let allowed = |piece: &&str| !forbidden.contains(&name(piece));
        let left: Vec<&str> = pair.split(';').filter(allowed).collect();
        (!left.is_empty()).then(|| left.join(";"))
    });
    kept.collect::<Vec<_>>().join("&")
}

fn pieces(query: &str) -> impl Iterator<Item = &str> {
    query.split(['&', ';'])
}

/// The name of a pair as the most generous server reads it: decoded, in any case, `+` for a space,
/// `name[]` for `name`, and `.` or a space for `_`.
fn name(pair: &str) -> String {
    let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
    let name = percent_decode_str(&name).decode_utf8_lossy();
    fold(name.split(['[', '\0']).next().unwrap_or_default().trim())
}

fn fold(name: &str) -> String {
    let folded = name.chars().map(|letter| match letter {
        '.' | ' ' => '_',
        other => other.to_ascii_lowercase(),
    });
    folded.collect()
}

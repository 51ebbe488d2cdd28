//! Header fields by which some servers take a request for another one than its line says: another method, another path,
//! another object to read. What policy judged would not be what happens. Decides by policy's own answers alone.

use super::problem::Refused;
use super::server::Session;
use super::standing::permit_by;
use crate::inject::{self, is_same_field};
use crate::live::View;
use crate::outcome::DenyReason;
use crate::policy::{Class, Host, InjectionTarget, RequestFacts, RequestPermit};
use http::{HeaderMap, HeaderName};

/// Of method (Google, Microsoft, Ruby on Rails and many others) and path (IIS, Symfony, Zend).
const OVERRIDES: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// The field that may make it another request.
pub(super) fn found(headers: &HeaderMap) -> Option<&HeaderName> {
    let mut sent = headers.keys();
    sent.find(|sent| OVERRIDES.iter().any(|name| is_same_field(sent, name)))
}

/// May a request that is allowed so have the fields that it has? Where its method or path was looked at, or where it gets
/// a credential, nothing may name others; S3's objects may be named that the sandbox could ask for as well.
pub(super) fn check(
    session: &Session,
    view: &View,
    facts: &RequestFacts<'_>,
    permit: &RequestPermit,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if !permit.is_narrow() && permit.injections().is_empty() {
        return Ok(());
    }
    if let Some(field) = found(headers) {
        return Err(refused(field, permit));
    }
    let is_signed = |target: &InjectionTarget| matches!(target, InjectionTarget::AwsV4 { .. });
    let Some(host) = facts.host else {
        return Ok(());
    };
    if !permit.injections().iter().any(|one| is_signed(&one.target)) {
        return Ok(());
    }
    for named in inject::named(host.as_str(), headers) {
        let allowed = match &named.at {
            Some((at, _)) if at == host.as_str() && !permit.is_narrow_in_path() => true,
            Some((at, path)) => may_read(session, view, facts, permit, (at, path)),
            None => false,
        };
        if !allowed {
            return Err(refused(&named.field, permit));
        }
    }
    Ok(())
}

fn refused(field: &HeaderName, permit: &RequestPermit) -> Refused {
    let rule = permit.rule();
    let said = format!(
        "the header field {field} names another method, path or object than the request line; rule {rule} does not allow that"
    );
    Refused::saying(DenyReason::OverrideHeader, said)
}

/// Would the sandbox get this object, with the same credential, if it asked for it?
fn may_read(
    session: &Session,
    view: &View,
    facts: &RequestFacts<'_>,
    permit: &RequestPermit,
    (host, path): (&str, &str),
) -> bool {
    let Ok(host) = Host::parse(host) else {
        return false;
    };
    let class = if facts.tls { Class::Tls } else { Class::Http };
    let asked = RequestFacts {
        host: Some(&host),
        method: "GET",
        path,
        ..*facts
    };
    permit_by(view, class, session.destination(), Some(&host)).is_ok_and(|connection| {
        let read = view.gateway.authorize_request(&connection, &asked);
        read.is_ok_and(|read| read.credential() == permit.credential())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use http::HeaderValue;

    #[test]
    fn every_spelling_of_an_override_is_found_and_nothing_else() {
        let of = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_static("x"),
            );
            found(&headers).is_some()
        };
        for name in [
            "X-HTTP-Method-Override",
            "x_http_method",
            "X-Rewrite-Url",
            "X_Original-URL",
        ] {
            assert!(of(name), "{name}");
        }
        for name in ["x-http-methods", "x-original-host", "host"] {
            assert!(!of(name), "{name}");
        }
    }
}

//! The one authority of a request. What is returned here decides **and** is sent; a request that
//! could be read in two ways is refused.

use crate::policy::Host;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority as UriAuthority;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// Host and port of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// Name or address.
    pub(super) name: Name,
    /// The port, if it was written.
    pub(super) port: Option<u16>,
}

/// What stands before the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Host(Host),
    Address(IpAddr),
}

impl Name {
    /// As it is written in an authority.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Host(host) => host.as_str().into(),
            Self::Address(_) => self.to_string().into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Address(IpAddr::V4(ip)) => ip.fmt(f),
        }
    }
}

/// Why a request has no clear authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthorityError {
    #[error("the request names no host")]
    Missing,
    #[error("the request names more than one host")]
    Several,
    #[error("the request's host is not a host name or address with an optional port")]
    Invalid,
}

/// From `:authority`, an absolute-form target and `Host`: all that are there must agree (RFC 9112
/// §3.2, RFC 9113 §8.3.1).
pub(super) fn of_request(parts: &Parts) -> Result<Authority, AuthorityError> {
    let mut found: Option<Authority> = match parts.uri.authority() {
        Some(authority) => Some(parse(authority)?),
        None => None,
    };
    let mut hosts = parts.headers.get_all(HOST).iter();
    if let Some(value) = hosts.next() {
        if hosts.next().is_some() {
            return Err(AuthorityError::Several);
        }
        // `http` takes userinfo and more for an authority; `parse` does not.
        let authority = UriAuthority::try_from(value.as_bytes())
            .map_err(|_invalid: http::uri::InvalidUri| AuthorityError::Invalid)?;
        let host = parse(&authority)?;
        if found.as_ref().is_some_and(|first| *first != host) {
            return Err(AuthorityError::Several);
        }
        found = Some(host);
    }
    found.ok_or(AuthorityError::Missing)
}

fn parse(authority: &UriAuthority) -> Result<Authority, AuthorityError> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(AuthorityError::Invalid);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        // "host:" is allowed by RFC 3986 §3.2.3 and means the default.
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(
            digits
                .parse()
                .map_err(|_range: std::num::ParseIntError| AuthorityError::Invalid)?,
        ),
        Some(_) => return Err(AuthorityError::Invalid),
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let name = match (bracketed, host.parse()) {
        (Some(inside), _) => match inside.parse() {
            Ok(ip) => Name::Address(IpAddr::V6(ip)),
            Err(_not_v6) => return Err(AuthorityError::Invalid),
        },
        (None, Ok(ip @ IpAddr::V4(_))) => Name::Address(ip),
        _ => match Host::parse(host) {
            Ok(host) => Name::Host(host),
            Err(_not_a_name) => return Err(AuthorityError::Invalid),
        },
    };
    Ok(Authority { name, port })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use http::Request;

    fn request(uri: &str, hosts: &[&str]) -> Result<String, AuthorityError> {
        let mut builder = Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        let (parts, ()) = builder.body(()).unwrap().into_parts();
        of_request(&parts).map(|a| match a.port {
            Some(port) => format!("{} {port}", a.name),
            None => a.name.to_string(),
        })
    }

    #[test]
    fn one_authority_however_it_is_spelled() {
        assert_eq!(request("/", &["a.example"]).unwrap(), "a.example");
        assert_eq!(request("/", &["A.Example.:443"]).unwrap(), "a.example 443");
        assert_eq!(request("/", &["a.example:"]).unwrap(), "a.example");
        assert_eq!(
            request("http://a.example/x", &["a.example"]).unwrap(),
            "a.example"
        );
        assert_eq!(request("https://a.example/x", &[]).unwrap(), "a.example");
        assert_eq!(request("/", &["192.0.2.1:80"]).unwrap(), "192.0.2.1 80");
        assert_eq!(
            request("/", &["[2001:db8::1]:80"]).unwrap(),
            "[2001:db8::1] 80"
        );
        assert_eq!(request("/", &["[2001:db8::1]"]).unwrap(), "[2001:db8::1]");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use AuthorityError::{Invalid, Missing, Several};
        assert_eq!(request("/", &[]), Err(Missing));
        assert_eq!(request("/", &["a.example", "a.example"]), Err(Several));
        assert_eq!(request("http://b.example/", &["a.example"]), Err(Several));
        assert_eq!(
            request("http://a.example:81/", &["a.example"]),
            Err(Several)
        );
        for bad in [
            "user@a.example",
            "a.example:99999",
            "a.example:+80",
            "a example",
            "a.example/x",
            "",
            "a..example",
            "[::1",
            "a.example:80:80",
            "a.example,b.example",
            "[fe80::1%25eth0]",
        ] {
            assert_eq!(request("/", &[bad]), Err(Invalid), "{bad}");
        }
    }
}

//! Host names and host patterns: one canonical spelling, so that what policy compares is what is dialled.
//!
//! It refuses to know addresses (an IP literal is not a [`Host`]), ports and DNS.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Everything but letters, digits, `-`, `.` and `_` (which real names have: RFC 2181 section 11).
const DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// A DNS name in its one spelling: lower case, IDNA A-labels (UTS 46), no trailing dot, at most 253 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

/// Why a text is no [`Host`] or [`HostPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing, or a dot alone.
    #[error("the host name is empty")]
    Empty,
    /// An address, in any of the spellings that resolvers take for one (`127.1`, `0x7f.0.0.1`, `[::1]`).
    #[error("an IP address is not a host name")]
    Address,
    /// A scheme, a port, a path, user information, a space, a NUL, an empty label, too long…
    #[error("not a valid host name")]
    Invalid,
    /// `*` alone.
    #[error("`*` alone is no pattern, any host is `**`")]
    LoneStar,
    /// A `*` that is not a whole leading label.
    #[error("a wildcard must be the whole leading label")]
    Wildcard,
}

impl Host {
    /// Reads a name as written by a person or a peer; one trailing dot is dropped.
    ///
    /// # Errors
    /// [`HostError`] if the text is no DNS name of at most 253 bytes with labels of at most 63 (RFC 1035).
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.starts_with('[') || text.parse::<std::net::IpAddr>().is_ok() {
            return Err(HostError::Address);
        }
        let ascii = match Uts46::new().to_ascii(
            text.as_bytes(),
            DENIED,
            // Real names have hyphens in the third and fourth place and at the ends of labels.
            Hyphens::Allow,
            DnsLength::Verify,
        ) {
            Ok(ascii) => ascii,
            // The library's error says nothing about what was wrong.
            Err(idna::Errors { .. }) => return Err(HostError::Invalid),
        };
        if ends_in_number(&ascii) {
            return Err(HostError::Address);
        }
        Ok(Self(ascii.as_ref().into()))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names above this one, nearest first: for `a.b.c`, `b.c` and then `c`.
    pub(super) fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').map(|(dot, _)| &self.0[dot + 1..])
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

impl AsRef<str> for Host {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

/// Which hosts a rule means. None of the wildcards matches the name they hang from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `api.example.com`: this name.
    Exact(Host),
    /// `*.example.com`: exactly one label more.
    OneLabel(Host),
    /// `**.example.com`: one or more labels more.
    Labels(Host),
    /// `**`: any name.
    Any,
}

impl HostPattern {
    /// Reads a pattern as written in a policy.
    ///
    /// # Errors
    /// [`HostError`]; a lone `*` is refused since its reader could take it for "any host", which is `**`.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text {
            "*" => return Err(HostError::LoneStar),
            "**" => return Ok(Self::Any),
            _ => {}
        }
        let (make, rest): (fn(Host) -> Self, &str) = if let Some(rest) = text.strip_prefix("**.") {
            (Self::Labels, rest)
        } else if let Some(rest) = text.strip_prefix("*.") {
            (Self::OneLabel, rest)
        } else {
            (Self::Exact, text)
        };
        if rest.contains('*') {
            return Err(HostError::Wildcard);
        }
        Host::parse(rest).map(make)
    }

    /// Does the pattern mean this host?
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::OneLabel(parent) => host.parents().next() == Some(parent.as_str()),
            Self::Labels(ancestor) => host.parents().any(|name| name == ancestor.as_str()),
            Self::Any => true,
        }
    }

    /// Does this pattern mean every host that the other one does?
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (_, Self::Exact(host)) => self.matches(host),
            (Self::OneLabel(one), Self::OneLabel(other)) => one == other,
            // What hangs below P is below A when P is A or lies below it.
            (Self::Labels(ancestor), Self::OneLabel(parent) | Self::Labels(parent)) => {
                at_or_below(parent, ancestor)
            }
            (Self::Exact(_), _) | (Self::OneLabel(_), Self::Labels(_)) => false,
        }
    }

    /// Is there a host that both patterns mean?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(host), pattern) | (pattern, Self::Exact(host)) => pattern.matches(host),
            (Self::OneLabel(one), Self::OneLabel(other)) => one == other,
            // `*.P` and `**.A` meet when P is A or lies below it.
            (Self::OneLabel(parent), Self::Labels(ancestor))
            | (Self::Labels(ancestor), Self::OneLabel(parent)) => at_or_below(parent, ancestor),
            (Self::Labels(one), Self::Labels(other)) => {
                at_or_below(one, other) || at_or_below(other, one)
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(out, "{host}"),
            Self::OneLabel(host) => write!(out, "*.{host}"),
            Self::Labels(host) => write!(out, "**.{host}"),
            Self::Any => out.write_str("**"),
        }
    }
}

fn at_or_below(host: &Host, ancestor: &Host) -> bool {
    host == ancestor || host.parents().any(|name| name == ancestor.as_str())
}

/// The WHATWG URL standard's "ends in a number" check: such a name is an IPv4 address to many
/// resolvers and HTTP libraries (`127.1`, `0x7f000001`), and no top-level domain is a number.
fn ends_in_number(ascii: &str) -> bool {
    let last = ascii.rsplit('.').next().unwrap_or(ascii);
    let hexadecimal = last
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;

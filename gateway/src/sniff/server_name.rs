//! The name a TLS client asks for, checked for its form and otherwise as it was sent.
//!
//! It refuses to know what the name is compared with: folding case and dropping the root dot is the policy's business.

use std::fmt;
use std::ops::Deref;

/// The longest name that DNS can carry, in characters without the root dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// The longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A DNS name as a client sent it: letters, digits, hyphens and underscores in labels of 1 to 63, 253 characters at most.
///
/// Underscores are allowed since names that are in use have them. One trailing dot is allowed: RFC 6066 §3 leaves it out, but
/// clients that are given one send it, and both spellings are the same name. An IP literal is not a name: neither is anything
/// that an URL parser would take for an IPv4 address, such as `127.1` or `1.2.3.0x4`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerName(String);

/// The bytes are not a DNS name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidServerName;

impl ServerName {
    /// Checks a name as it came over the wire.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidServerName> {
        let relative = bytes.strip_suffix(b".").unwrap_or(bytes);
        if !is_name(relative) || ends_in_number(relative) {
            return Err(InvalidServerName);
        }
        // Only ASCII gets here, so that each byte is a character.
        Ok(Self(bytes.iter().copied().map(char::from).collect()))
    }

    /// The name as sent, in its own case and with its own trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ServerName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ServerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a DNS name")
    }
}

impl std::error::Error for InvalidServerName {}

/// Labels of letters, digits, inner hyphens and underscores, joined by dots; no trailing dot.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
            && label
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    bytes.len() <= MAX_NAME && bytes.split(|byte| *byte == b'.').all(is_label)
}

/// Whether the last label is a number, decimal or hexadecimal: then URL parsers read the whole as an IPv4 address
/// (WHATWG URL, "ends in a number"), and no top-level domain is one.
pub(super) fn ends_in_number(name: &[u8]) -> bool {
    let last = name.rsplit(|byte| *byte == b'.').next().unwrap_or(name);
    match last {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn names_keep_their_spelling() {
        for name in [
            "api.anthropic.com",
            "API.Example.COM",
            "a",
            "_dmarc.x_y.example",
            "xn--bcher-kva.example",
            "example.com.",
        ] {
            assert_eq!(ServerName::parse(name.as_bytes()).unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let refused: &[&[u8]] = &[
            b"",
            b".",
            b"a..b",
            b".a",
            b"a..",
            b"-a.b",
            b"a-.b",
            b"a b",
            b"a\0b",
            b"a.b\0",
            b"a/b",
            b"a:443",
            b"[::1]",
            b"::1",
            b"127.0.0.1",
            b"127.1",
            b"1",
            b"1.2.3.0x4",
            b"a.0x",
            b"1.2.3.4.",
            b"caf\xc3\xa9.fr",
            b"user@host",
            b"*.a",
            b"a%41",
        ];
        for name in refused {
            assert_eq!(
                ServerName::parse(name),
                Err(InvalidServerName),
                "{}",
                name.escape_ascii()
            );
        }
    }

    #[test]
    fn labels_and_names_have_limits() {
        let label = "a".repeat(MAX_LABEL);
        assert!(ServerName::parse(label.as_bytes()).is_ok());
        assert!(ServerName::parse(format!("{label}a").as_bytes()).is_err());
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), MAX_NAME);
        assert!(ServerName::parse(longest.as_bytes()).is_ok());
        assert!(ServerName::parse(format!("{longest}.").as_bytes()).is_ok());
        assert!(ServerName::parse(format!("{longest}a").as_bytes()).is_err());
    }
}

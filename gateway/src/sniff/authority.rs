//! The authority of an HTTP request: `host` or `host:port`, as sent.
//!
//! It refuses to know what is allowed: it says where the host ends and the port begins, and when two spellings are one place.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use super::server_name::{ends_in_number, is_name};

/// A host with an optional port (RFC 9110 §7.2), in the client's spelling. Userinfo, percent-encoding, an empty port and port
/// numbers that do not exist are refused: each is read differently by some server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    text: String,
    host_len: usize,
    port: Option<u16>,
}

impl Authority {
    /// Checks the value of a Host header or the authority of a request target. `None` if it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let host_len = match text.strip_prefix('[') {
            Some(inside) => inside.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(host_len)?;
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        is_host(host).then(|| Self {
            text: text.to_owned(),
            host_len,
            port,
        })
    }

    /// The whole, as sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone: a DNS name in the client's case (perhaps with a trailing dot), an IPv4 address, or an IPv6 address in
    /// square brackets.
    pub fn host(&self) -> &str {
        self.text.get(..self.host_len).unwrap_or(&self.text)
    }

    /// The port, if one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether both name one place, given the port that an unwritten one stands for.
    pub(super) fn agrees_with(&self, other: &Self, default_port: Option<u16>) -> bool {
        let name = |authority: &Self| {
            let host = authority.host();
            host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
        };
        name(self) == name(other) && self.port.or(default_port) == other.port.or(default_port)
    }
}

impl Deref for Authority {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl AsRef<str> for Authority {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `u16::from_str` alone would take a plus sign.
fn port(digits: &str) -> Option<u16> {
    let valid =
        (1..=5).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    if valid { digits.parse().ok() } else { None }
}

fn is_host(host: &str) -> bool {
    if let Some(inside) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        return inside.parse::<Ipv6Addr>().is_ok();
    }
    let relative = host.strip_suffix('.').unwrap_or(host).as_bytes();
    if ends_in_number(relative) {
        // Four decimal numbers without leading zeros: every reader agrees on those.
        return host.parse::<Ipv4Addr>().is_ok();
    }
    is_name(relative)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        for (text, host, port) in [
            ("Example.com", "Example.com", None),
            ("example.com.:8080", "example.com.", Some(8080)),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
            ("my_host:0", "my_host", Some(0)),
        ] {
            let authority = Authority::parse(text).unwrap();
            assert_eq!(
                (authority.as_str(), authority.host(), authority.port()),
                (text, host, port)
            );
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:+1",
            "a:65536",
            "a:000080",
            "a:80:80",
            "user@a",
            "user:pw@a",
            "a b",
            "a\0",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[]",
            "[example.com]",
            "[fe80::1%25eth0]",
            "127.1",
            "0x7f.1",
            "1.2.3.4.",
            "01.2.3.4",
            "a%2eb",
            "caf\u{e9}.fr",
            "a..b",
            "a\\b",
            "-a",
        ] {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn spellings_of_one_place_agree() {
        let agree = |a: &str, b: &str, port| {
            Authority::parse(a)
                .unwrap()
                .agrees_with(&Authority::parse(b).unwrap(), port)
        };
        assert!(agree("A.b", "a.B.", Some(80)));
        assert!(agree("a.b:80", "a.b", Some(80)));
        assert!(!agree("a.b:80", "a.b", Some(443)));
        assert!(!agree("a.b:80", "a.b", None));
        assert!(!agree("a.b", "c.b", Some(80)));
    }
}

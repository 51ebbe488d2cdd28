//! The values that documents are made of: durations, addresses, URLs, headers.
//!
//! It refuses to know in which field a value stands.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};
use ipnet::IpNet;

use crate::policy::decode::{At, Decoder, Fields};
use crate::policy::problems::{Spanned, quote};
use crate::policy::template::is_header_text;
use crate::policy::{DnsTransport, DnsUpstream, HostPattern, PathPattern, PortRange};

/// The port of DNS (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;
/// The port of DNS over TLS (RFC 7858 section 3.1).
const DNS_OVER_TLS_PORT: u16 = 853;

/// Headers that belong to the connection or frame the message (RFC 9110 section 7.6.1, RFC 9112): setting
/// one would change where a request ends or goes.
const FRAMING_HEADERS: &[&str] = &[
    "connection",
    "host",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "expect",
];

/// A duration as Kubernetes' Gateway API writes them (GEP-2257): up to four numbers of at most five digits, each
/// with its unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not a duration";
    if text.contains('.') {
        return Err("a duration has no fractions: 1.5h is written 1h30m");
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        parts += 1;
        if number.len() > 5 || parts > 4 {
            return Err(WRONG);
        }
        let number: u64 = number.parse().ok().ok_or(WRONG)?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(WRONG),
        };
        rest = after;
    }
    if total.is_zero() {
        return Err(if parts == 0 { WRONG } else { "it is zero" });
    }
    Ok(total)
}

/// A duration field of a document.
pub(super) fn read_duration(
    decoder: &mut Decoder<'_, '_>,
    at: Option<&At<'_>>,
) -> Option<Duration> {
    const EXPECTED: &str = "a duration such as 300ms, 30s, 5m or 1h30m";
    let duration = decoder.parse(at?, EXPECTED, parse_duration)?;
    Some(duration.value)
}

/// A list of host patterns; without it goes what `otherwise` says.
pub(super) fn read_hosts(
    decoder: &mut Decoder<'_, '_>,
    at: Option<&At<'_>>,
    otherwise: Option<&str>,
) -> Vec<Spanned<HostPattern>> {
    const EXPECTED: &str =
        "a host name, `*.name` (one label), `**.name` (one or more) or `**` (any host)";
    let Some(at) = at else {
        return Vec::new();
    };
    let items = decoder.some_items(at, "host", otherwise);
    decoder.parse_list(&items, EXPECTED, |text| {
        HostPattern::parse(text).map_err(|error| match meant(text) {
            Some(meant) => meant,
            None => error.to_string(),
        })
    })
}

/// What else somebody may have meant who wrote this for a host name.
fn meant(text: &str) -> Option<String> {
    const ADDRESS: &str =
        "an address; addresses are allowed by `destinationCIDRs` of an EgressL4Route";
    if text.parse::<IpAddr>().is_ok() || parse_cidr(text).is_ok() {
        return Some(ADDRESS.to_owned());
    }
    let is_name = |text: &str| HostPattern::parse(text).is_ok();
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#', ':']).next().unwrap_or(rest);
        return is_name(host).then(|| format!("a URL; the host alone is {}", quote(host)));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return is_name(host).then(|| {
            format!(
                "it has a port; the host alone is {}, and ports stand in `ports`",
                quote(host)
            )
        });
    }
    let host = text.split('/').next().filter(|host| *host != text)?;
    is_name(host).then(|| format!("it has a path; the host alone is {}", quote(host)))
}

/// The field `name`, a list of host patterns that must be there and not empty.
pub(super) fn read_some_hosts(
    decoder: &mut Decoder<'_, '_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Vec<Spanned<HostPattern>> {
    let hosts = fields.required(decoder, name);
    read_hosts(decoder, hosts.as_ref(), None)
}

/// A list of path patterns.
pub(super) fn read_paths(
    decoder: &mut Decoder<'_, '_>,
    at: Option<&At<'_>>,
) -> Vec<Spanned<PathPattern>> {
    const EXPECTED: &str = "a path such as /v1/messages, /v1/* (one segment) or /v1/** (any depth)";
    let Some(at) = at else {
        return Vec::new();
    };
    let items = decoder.some_items(at, "path", Some("then every path is meant"));
    decoder.parse_list(&items, EXPECTED, PathPattern::parse)
}

/// A list of methods.
pub(super) fn read_methods(
    decoder: &mut Decoder<'_, '_>,
    at: Option<&At<'_>>,
) -> Vec<Spanned<Method>> {
    let Some(at) = at else {
        return Vec::new();
    };
    let items = decoder.some_items(at, "method", Some("then every method is meant"));
    let methods = decoder.parse_list(&items, "a method such as GET", |text| {
        match Method::from_bytes(text.as_bytes()) {
            // Method names are case-sensitive: `get` would match nothing.
            Ok(method) if text == text.to_ascii_uppercase() => Ok(method),
            Ok(_) => Err("methods are written in upper case".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    });
    for method in &methods {
        if method.value == Method::CONNECT {
            decoder
                .problems
                .warning(method.place, "method CONNECT can never be allowed")
                .help("a tunnel would carry what no rule sees: CONNECT is always refused");
        }
    }
    methods
}

/// One TCP port.
pub(super) fn read_port(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<u16> {
    decoder.integer(at, 1, u16::MAX).map(|port| port.value)
}

/// One TCP port as a range.
pub(super) fn read_single_port(decoder: &mut Decoder<'_, '_>, at: &At<'_>) -> Option<PortRange> {
    read_port(decoder, at).and_then(PortRange::single)
}

/// An address block; an address alone is the block of itself. Bits beyond the prefix are a mistake.
pub(super) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let quad = address.rsplit(':').next().unwrap_or(address);
    // Some read 010 as 8, others as 10.
    if quad.contains('.') && quad.split('.').any(has_leading_zero) {
        return Err("a number of the address has a leading zero: write 10, not 010".to_owned());
    }
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err("not an IP address, with or without a prefix length".to_owned());
    };
    let Some(length) = length else {
        return Ok(address.into());
    };
    let (most, family) = if address.is_ipv4() {
        (32, "IPv4")
    } else {
        (128, "IPv6")
    };
    let digits = length.bytes().all(|byte| byte.is_ascii_digit()) && !has_leading_zero(length);
    let length = length
        .parse()
        .ok()
        .filter(|length| digits && *length <= most);
    let block = length.and_then(|length| IpNet::new(address, length).ok());
    let block = block.ok_or_else(|| format!("the prefix length of {family} is 0 to {most}"))?;
    if block.trunc() == block {
        Ok(block)
    } else {
        Err(format!("the block of that address is {}", block.trunc()))
    }
}

fn has_leading_zero(number: &str) -> bool {
    number.len() > 1 && number.starts_with('0')
}

/// The URL of a collector.
pub(super) fn parse_endpoint(text: &str) -> Result<String, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    match uri.scheme_str() {
        Some("http" | "https") if plain && uri.query().is_none() && !text.contains('#') => {
            Ok(text.to_owned())
        }
        Some("http" | "https") => {
            Err("a collector's URL has no user information, query or fragment".to_owned())
        }
        _ => Err("not an http or https URL".to_owned()),
    }
}

/// `udp://ADDRESS[:PORT]`, `tcp://ADDRESS[:PORT]` or `tls://ADDRESS[:PORT]`.
pub(super) fn parse_dns_upstream(text: &str) -> Result<DnsUpstream, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    let transport = match scheme {
        "udp" => DnsTransport::Udp,
        "tcp" => DnsTransport::Tcp,
        "tls" => DnsTransport::Tls,
        _ => return Err("unknown scheme"),
    };
    let port = match transport {
        DnsTransport::Udp | DnsTransport::Tcp => DNS_PORT,
        DnsTransport::Tls => DNS_OVER_TLS_PORT,
    };
    let bare = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(rest);
    let address = bare
        .parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, port))
        .or_else(|_| rest.parse::<SocketAddr>())
        .ok()
        .filter(|address| address.port() != 0)
        .ok_or("not an IP address with or without a port")?;
    Ok(DnsUpstream { transport, address })
}

/// A header that a policy may set.
pub(super) fn parse_header_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|error| error.to_string())?;
    if FRAMING_HEADERS.contains(&name.as_str()) {
        return Err("a header of the connection, not of the request".to_owned());
    }
    Ok(name)
}

/// A header value without secrets in it.
pub(super) fn parse_header_value(text: &str) -> Result<HeaderValue, String> {
    if !is_header_text(text) {
        return Err("not the value of a header".to_owned());
    }
    HeaderValue::from_str(text).map_err(|error| error.to_string())
}

/// `type/subtype`, without parameters, to lower case.
pub(super) fn parse_media_type(text: &str) -> Result<String, &'static str> {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match text.split_once('/') {
        Some((kind, subtype)) if token(kind) && token(subtype) => Ok(text.to_ascii_lowercase()),
        _ => Err("not a media type"),
    }
}

#[cfg(test)]
mod tests;

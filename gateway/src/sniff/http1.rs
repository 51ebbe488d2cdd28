//! The head of an HTTP/1.x request, as far as needed to know its authority (RFC 9112 §3, §5).
//!
//! It refuses to know what the headers mean: framing, hop-by-hop rules and credentials are the HTTP server's job. It is
//! stricter than servers where leniency would let two parsers see two authorities.

use super::authority::Authority;
use super::{Progress, SniffError, Sniffed};

/// The longest method, in bytes. The longest registered one, UPDATEREDIRECTREF, has 17.
pub const MAX_METHOD: usize = 32;
/// The most header lines of a head; common servers stop at 100.
pub const MAX_HEADERS: usize = 256;

/// The head of a request, reduced to what names its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method token as sent; methods are case-sensitive.
    pub method: String,
    /// The request target as sent, in origin-, absolute-, authority- or asterisk-form.
    pub target: String,
    /// The authority of the target if it has one, else the value of Host; both agree if there are both. `None` only if
    /// Host is empty, or absent from HTTP/1.0.
    pub authority: Option<Authority>,
}

/// Reads a head line by line, and no byte twice.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Where the current line starts.
    line: usize,
    /// Up to where the current line is known not to hold what ends it.
    scanned: usize,
    request: Option<RequestLine>,
    headers: usize,
    host: Option<Vec<u8>>,
}

#[derive(Debug)]
struct RequestLine {
    method: String,
    target: String,
    minor: u8,
}

/// Why reading stopped without a head.
enum Stop {
    NeedMore,
    NotHttp,
    Malformed(SniffError),
}

impl From<SniffError> for Stop {
    fn from(error: SniffError) -> Self {
        Self::Malformed(error)
    }
}

impl HeadReader {
    /// `prefix` is the connection from its first byte.
    pub(super) fn advance(&mut self, prefix: &[u8]) -> Progress {
        match self.read(prefix) {
            Ok(head) => Progress::Done(Sniffed::Http1(head)),
            Err(Stop::NeedMore) => Progress::NeedMore,
            Err(Stop::NotHttp) => Progress::Done(Sniffed::Opaque),
            Err(Stop::Malformed(error)) => Progress::Malformed(error),
        }
    }

    fn read(&mut self, prefix: &[u8]) -> Result<RequestHead, Stop> {
        if self.request.is_none() {
            self.request = Some(self.request_line(prefix)?);
        }
        while let Some(line) = self.header_line(prefix)? {
            self.header(line)?;
        }
        let request = self.request.take().ok_or(Stop::NeedMore)?;
        Ok(head(request, self.host.take())?)
    }

    fn request_line(&mut self, prefix: &[u8]) -> Result<RequestLine, Stop> {
        let space = prefix
            .iter()
            .take(MAX_METHOD + 1)
            .position(|byte| *byte == b' ');
        let method = prefix
            .get(..space.unwrap_or(prefix.len()))
            .unwrap_or(prefix);
        if !method.iter().all(|byte| is_token(*byte))
            || method.len() > MAX_METHOD
            || space == Some(0)
        {
            return Err(Stop::NotHttp);
        }
        let target_start = space.ok_or(Stop::NeedMore)? + 1;
        let from = self.scanned.max(target_start);
        let unseen = prefix.get(from..).unwrap_or_default();
        let Some(end) = unseen
            .iter()
            .position(|byte| *byte <= b' ' || *byte == 0x7f)
        else {
            self.scanned = prefix.len();
            return Err(Stop::NeedMore);
        };
        self.scanned = from + end;
        let (target, version) = prefix.split_at(self.scanned);
        let target = target.get(target_start..).unwrap_or_default();
        if target.is_empty() || version.first() != Some(&b' ') {
            return Err(Stop::NotHttp);
        }
        let version = version.get(1..).unwrap_or_default();
        let minor = minor_version(version)?;
        self.line = self.scanned + 1 + VERSION_LINE;
        self.scanned = self.line;
        Ok(RequestLine {
            method: text(method).ok_or(Stop::NotHttp)?,
            target: text(target).ok_or(SniffError::RequestTarget)?,
            minor,
        })
    }

    /// The next header line without its CRLF, or `None` for the empty line that ends the head.
    fn header_line<'a>(&mut self, prefix: &'a [u8]) -> Result<Option<&'a [u8]>, Stop> {
        let unseen = prefix.get(self.scanned..).unwrap_or_default();
        let Some(lf) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.scanned = prefix.len();
            return Err(Stop::NeedMore);
        };
        let lf = self.scanned + lf;
        let line = prefix.get(self.line..lf).unwrap_or_default();
        let line = line.strip_suffix(b"\r").ok_or(SniffError::BareLineFeed)?;
        (self.line, self.scanned) = (lf + 1, lf + 1);
        Ok((!line.is_empty()).then_some(line))
    }

    fn header(&mut self, line: &[u8]) -> Result<(), SniffError> {
        self.headers += 1;
        if self.headers > MAX_HEADERS {
            return Err(SniffError::TooManyHeaders);
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(SniffError::HeaderSyntax)?;
        let (name, value) = line.split_at(colon);
        // A folded line begins with a blank and a blank before the colon ends a name: neither is a token letter.
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(SniffError::HeaderSyntax);
        }
        if value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(SniffError::HeaderSyntax);
        }
        if name.eq_ignore_ascii_case(b"host") {
            if self.host.is_some() {
                return Err(SniffError::SeveralHosts);
            }
            self.host = Some(value.get(1..).unwrap_or_default().trim_ascii().to_vec());
        }
        Ok(())
    }
}

/// The length of `HTTP/1.x` with its CRLF.
const VERSION_LINE: usize = 10;

/// Reads `HTTP/1.x CR LF` byte by byte, so that what cannot become it is known at once.
fn minor_version(version: &[u8]) -> Result<u8, Stop> {
    let mut minor = 0;
    for (at, byte) in version.iter().copied().enumerate().take(VERSION_LINE) {
        match (at, byte) {
            (0..=4, _) if b"HTTP/".get(at) == Some(&byte) => {}
            (0..=4, _) => return Err(Stop::NotHttp),
            (5, b'1') | (6, b'.') | (8, b'\r') | (9, b'\n') => {}
            (7, b'0'..=b'9') => minor = byte - b'0',
            (8, b'\n') => return Err(SniffError::BareLineFeed.into()),
            _ => return Err(SniffError::HttpVersion.into()),
        }
    }
    if version.len() < VERSION_LINE {
        Err(Stop::NeedMore)
    } else {
        Ok(minor)
    }
}

/// Puts the two places that may name the authority together.
fn head(request: RequestLine, host: Option<Vec<u8>>) -> Result<RequestHead, SniffError> {
    let RequestLine {
        method,
        target,
        minor,
    } = request;
    if host.is_none() && minor > 0 {
        return Err(SniffError::MissingHost);
    }
    let from_host = match host {
        None => None,
        Some(value) if value.is_empty() => None,
        Some(value) => {
            let value = text(&value).ok_or(SniffError::Authority)?;
            Some(Authority::parse(&value).ok_or(SniffError::Authority)?)
        }
    };
    let authority = match target_authority(&method, &target)? {
        None => from_host,
        Some((authority, port)) => match from_host {
            Some(host) if !host.agrees_with(&authority, port) => {
                return Err(SniffError::AuthorityConflict);
            }
            None if minor > 0 => return Err(SniffError::AuthorityConflict),
            _ => Some(authority),
        },
    };
    Ok(RequestHead {
        method,
        target,
        authority,
    })
}

/// The authority in the target and the port that its scheme implies.
fn target_authority(
    method: &str,
    target: &str,
) -> Result<Option<(Authority, Option<u16>)>, SniffError> {
    if method == "CONNECT" {
        let authority = Authority::parse(target).ok_or(SniffError::Authority)?;
        return Ok(Some((authority, None)));
    }
    if target.starts_with('/') || target == "*" {
        return Ok(None);
    }
    let (scheme, rest) = target.split_once("://").ok_or(SniffError::RequestTarget)?;
    let port = if scheme.eq_ignore_ascii_case("http") {
        80
    } else if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        return Err(SniffError::RequestTarget);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest
        .get(..end)
        .and_then(Authority::parse)
        .ok_or(SniffError::Authority)?;
    Ok(Some((authority, Some(port))))
}

/// ASCII bytes as text.
fn text(bytes: &[u8]) -> Option<String> {
    bytes
        .is_ascii()
        .then(|| bytes.iter().copied().map(char::from).collect())
}

/// A letter of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

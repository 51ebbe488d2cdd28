//! The closed list of ways in which an opening can be wrong.
//!
//! It refuses to know what is done about it: the table from errors to audit reasons belongs to the connection.

use std::fmt;

/// Why an opening was refused. Always the client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SniffError {
    /// Not understood within [`MAX_SNIFF`](super::MAX_SNIFF) bytes.
    TooLong,
    /// A TLS record that is empty, longer than 2^14 bytes, or not of the handshake while the ClientHello is incomplete.
    TlsRecord,
    /// The first handshake message is not a ClientHello.
    NotClientHello,
    /// A ClientHello that says it is longer than [`MAX_CLIENT_HELLO`](super::MAX_CLIENT_HELLO).
    ClientHelloTooLong,
    /// A ClientHello whose lengths do not add up.
    ClientHelloSyntax,
    /// A ClientHello of SSL 3.0 or of a version that does not exist.
    ClientHelloVersion,
    /// The same extension twice (RFC 8446 §4.2).
    DuplicateExtension,
    /// A server_name extension with no name, several names, or something that is not a DNS name (RFC 6066 §3).
    ServerName,
    /// An application_layer_protocol_negotiation extension with no protocol or an empty one (RFC 7301 §3.1).
    Alpn,
    /// A line of an HTTP head that ends in LF without CR.
    BareLineFeed,
    /// HTTP of another major version than 1, or a request line with something after the version.
    HttpVersion,
    /// A request target in none of the four forms of RFC 9112 §3.2.
    RequestTarget,
    /// A header line that is folded, has no name, or holds bytes that no header may hold.
    HeaderSyntax,
    /// More than [`MAX_HEADERS`](super::MAX_HEADERS) header lines.
    TooManyHeaders,
    /// HTTP/1.1 without a Host header (RFC 9112 §3.2).
    MissingHost,
    /// More than one Host header, even if they agree.
    SeveralHosts,
    /// A Host or target authority that is not `host` or `host:port`; userinfo is refused too.
    Authority,
    /// The target names one authority and Host another.
    AuthorityConflict,
}

impl SniffError {
    /// Had the client begun as HTTP/1 does?
    pub fn is_about_http(self) -> bool {
        matches!(
            self,
            Self::BareLineFeed
                | Self::HttpVersion
                | Self::RequestTarget
                | Self::HeaderSyntax
                | Self::TooManyHeaders
                | Self::MissingHost
                | Self::SeveralHosts
                | Self::Authority
                | Self::AuthorityConflict
        )
    }

    /// A lower-case sentence fragment for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "the opening is not understood within 65536 bytes",
            Self::TlsRecord => {
                "a TLS record inside the ClientHello is empty, too long or of another type"
            }
            Self::NotClientHello => "the first TLS handshake message is not a ClientHello",
            Self::ClientHelloTooLong => "the ClientHello is longer than 32768 bytes",
            Self::ClientHelloSyntax => "the lengths inside the ClientHello do not add up",
            Self::ClientHelloVersion => "the ClientHello is of no known TLS version",
            Self::DuplicateExtension => "the ClientHello has the same extension twice",
            Self::ServerName => "the server name in the ClientHello is not exactly one DNS name",
            Self::Alpn => {
                "the list of application protocols in the ClientHello is empty or has an empty entry"
            }
            Self::BareLineFeed => "a line of the HTTP head ends in LF without CR",
            Self::HttpVersion => "the request line does not end in HTTP/1.x",
            Self::RequestTarget => "the request target is in no form that HTTP knows",
            Self::HeaderSyntax => "a header line of the HTTP head is malformed",
            Self::TooManyHeaders => "the HTTP head has more than 256 header lines",
            Self::MissingHost => "the HTTP/1.1 request has no Host header",
            Self::SeveralHosts => "the HTTP request has more than one Host header",
            Self::Authority => "the HTTP authority is not a host with an optional port",
            Self::AuthorityConflict => {
                "the request target and the Host header name different authorities"
            }
        }
    }
}

impl fmt::Display for SniffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for SniffError {}

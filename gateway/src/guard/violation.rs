//! What is wrong with a message: one closed list, each with the status to answer and the rule behind it.

use std::fmt;

/// A rule of HTTP/1.x that a message breaks, or a limit of the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The method is no token, or longer than any there is.
    Method,
    /// The request target is none of the four forms, or holds what no target may.
    Target,
    /// The request target is longer than 65,534 bytes.
    TargetTooLong,
    /// What follows the target is no version of HTTP.
    Version,
    /// A version of HTTP other than 1.0 and 1.1.
    OtherVersion,
    /// The status line is not version, three digits and a reason.
    StatusLine,
    /// A line ends with LF alone.
    BareLineFeed,
    /// CR without LF.
    BareCarriageReturn,
    /// A header line begins with a blank.
    ObsFold,
    /// A blank stands between a field's name and the colon.
    SpaceBeforeColon,
    /// A field name is no token, empty, or longer than 256 bytes.
    FieldName,
    /// A field value holds a control character.
    FieldValue,
    /// The head is longer than the limit.
    HeadTooLong,
    /// More fields than 256.
    TooManyFields,
    /// HTTP/1.1 without `Host`.
    NoHost,
    /// More than one `Host`.
    SeveralHosts,
    /// `Content-Length` is not one plain decimal number.
    ContentLength,
    /// More than one `Content-Length`.
    SeveralContentLengths,
    /// `Content-Length` beside `Transfer-Encoding`.
    TwoFramings,
    /// `Transfer-Encoding` in HTTP/1.0.
    TransferEncodingIn10,
    /// `Transfer-Encoding` other than one `chunked`.
    TransferEncoding,
    /// A field name that servers which fold `_` into `-` take for one that frames the message.
    FoldedName,
    /// A field value begins or ends with a blank.
    BlankAtEdge,
    /// A chunk's size is not 1 to 16 hexadecimal digits.
    ChunkSize,
    /// A request's chunk has an extension.
    ChunkExtension,
    /// A response's chunk extensions are longer than the limit.
    ChunkExtensionsTooLong,
    /// No CRLF after a chunk's data.
    ChunkEnd,
    /// A trailer that may only stand in a head.
    TrailerField,
    /// The trailers are longer than 8 KiB, or more than 64.
    TrailersTooLong,
    /// The connection ends within a message.
    CutOff,
    /// The head was not there in time.
    SlowHead,
    /// No byte of the body came in time.
    SlowBody,
    /// A response that may have no body announces one.
    BodyNotAllowed,
    /// 101 that nobody asked for.
    UnaskedSwitch,
    /// More than 32 informational responses before the final one.
    TooManyInformational,
    /// Bytes that answer no request.
    Unasked,
}

impl Violation {
    /// The status that answers a request with it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::OtherVersion => 505,
            Self::HeadTooLong | Self::TooManyFields | Self::TrailersTooLong => 431,
            Self::SlowHead | Self::SlowBody => 408,
            // RFC 9112 §6.1 would have 501 for a coding that is not known; but one that is badly
            // spelled is no coding, and both are refused.
            _ => 400,
        }
    }

    /// The violation behind an error that a guarded stream gave to the HTTP library, however deep.
    #[must_use]
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            // An `io::Error` hides what it was made of from `source`.
            let inner = error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref::<Self>());
            if let Some(violation) = inner.or_else(|| error.downcast_ref()) {
                return Some(*violation);
            }
            next = error.source();
        }
        None
    }

    fn text(self) -> &'static str {
        match self {
            Self::Method => "the method is not a token of at most 32 letters (RFC 9110 §9.1)",
            Self::Target => "the request target is malformed (RFC 9112 §3.2)",
            Self::TargetTooLong => "the request target is longer than 65534 bytes (RFC 9112 §3)",
            Self::Version => "the request line does not end with an HTTP version (RFC 9112 §2.3)",
            Self::OtherVersion => "the version is neither HTTP/1.0 nor HTTP/1.1 (RFC 9112 §2.3)",
            Self::StatusLine => "the status line is malformed (RFC 9112 §4)",
            Self::BareLineFeed => "a line ends with LF instead of CRLF (RFC 9112 §2.2)",
            Self::BareCarriageReturn => "CR without LF (RFC 9112 §2.2)",
            Self::ObsFold => "a header line begins with a blank (RFC 9112 §5.2)",
            Self::SpaceBeforeColon => "a blank before the colon of a field (RFC 9112 §5.1)",
            Self::FieldName => "a field name is not a token of at most 256 bytes (RFC 9110 §5.1)",
            Self::FieldValue => "a field value holds a control character (RFC 9110 §5.5)",
            Self::HeadTooLong => {
                "the head is longer than limits.maxRequestHeaderBytes (a request's) or 128 KiB (an answer's)"
            }
            Self::TooManyFields => "the head has more than 256 fields",
            Self::NoHost => "HTTP/1.1 without Host (RFC 9112 §3.2)",
            Self::SeveralHosts => "more than one Host (RFC 9112 §3.2)",
            Self::ContentLength => "Content-Length is not one decimal number (RFC 9110 §8.6)",
            Self::SeveralContentLengths => "more than one Content-Length (RFC 9112 §6.3)",
            Self::TwoFramings => "Content-Length beside Transfer-Encoding (RFC 9112 §6.1)",
            Self::TransferEncodingIn10 => "Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)",
            Self::TransferEncoding => "Transfer-Encoding is not exactly `chunked` (RFC 9112 §6.1)",
            Self::FoldedName => {
                "a field name with `_` that some servers take for a framing field (RFC 9110 §17.10)"
            }
            Self::BlankAtEdge => "a field value begins or ends with a blank (RFC 9113 §8.2.1)",
            Self::ChunkSize => {
                "a chunk size is not 1 to 16 hexadecimal digits and CRLF (RFC 9112 §7.1)"
            }
            Self::ChunkExtension => "chunk extensions are not forwarded (RFC 9112 §7.1.1)",
            Self::ChunkExtensionsTooLong => "the chunk extensions are too long (RFC 9112 §7.1.1)",
            Self::ChunkEnd => "no CRLF after the data of a chunk (RFC 9112 §7.1)",
            Self::TrailerField => "a trailer that may only be in the head (RFC 9110 §6.5.1)",
            Self::TrailersTooLong => "the trailers are more than 64 fields or 8192 bytes",
            Self::CutOff => "the connection ends within the message (RFC 9112 §8)",
            Self::SlowHead => "the head took too long (RFC 9110 §15.5.9)",
            Self::SlowBody => "the body stood still for too long (RFC 9110 §15.5.9)",
            Self::BodyNotAllowed => "a body where there can be none (RFC 9112 §6.3)",
            Self::UnaskedSwitch => "101 to a request without Upgrade (RFC 9110 §15.2.2)",
            Self::TooManyInformational => "more than 32 informational responses",
            Self::Unasked => "bytes that answer no request (RFC 9112 §9.2)",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Violation {}

impl From<Violation> for std::io::Error {
    fn from(violation: Violation) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, violation)
    }
}

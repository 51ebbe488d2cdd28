//! How a message's body is framed, and where it ends (RFC 9112 §6, §7).

use super::fields::{Fields, Known, Step};
use super::violation::Violation;

/// Bytes of trailers, in all. What uses them (gRPC, checksums) needs a few hundred.
const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Trailers in one message.
const MAX_TRAILERS: usize = 64;
/// Digits of a chunk's size: 16 are all that 64 bits can hold.
const MAX_SIZE_DIGITS: usize = 16;
/// Chunk extensions of one response, in all. Nobody uses them; somebody may send them (RFC 9112 §7.1.1).
const MAX_EXTENSION_BYTES: usize = 8 * 1024;
/// Decimal digits of a length: 19 are enough for 2^63.
const MAX_LENGTH_DIGITS: usize = 19;

/// What the framing fields of a head have said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// Takes a field that has just been read.
    pub(super) fn field(&mut self, known: Known, fields: &Fields) -> Result<(), Violation> {
        match known {
            Known::ContentLength if self.length.is_some() => {
                return Err(Violation::SeveralContentLengths);
            }
            Known::ContentLength => {
                let value = fields.value().and_then(decimal);
                self.length = Some(value.ok_or(Violation::ContentLength)?);
            }
            Known::TransferEncoding => {
                let chunked = fields
                    .value()
                    .is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
                if self.chunked || !chunked {
                    return Err(Violation::TransferEncoding);
                }
                self.chunked = true;
            }
            Known::Host | Known::Upgrade | Known::HeadOnly => {}
        }
        Ok(())
    }

    /// The two ways at the end of a head; `old` is HTTP/1.0.
    pub(super) fn checked(self, old: bool) -> Result<Self, Violation> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Violation::TwoFramings),
            (None, true) if old => Err(Violation::TransferEncodingIn10),
            _ => Ok(self),
        }
    }

    pub(super) fn length(self) -> Option<u64> {
        self.length
    }

    pub(super) fn is_chunked(self) -> bool {
        self.chunked
    }
}

/// One number, digits alone, at most 2^63.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > MAX_LENGTH_DIGITS || !value.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number <= 1 << 63).then_some(number)
}

/// The rest of a body.
#[derive(Clone, Debug)]
pub(super) enum Rest {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Box<Chunks>),
    /// All that comes until the connection ends.
    UntilClosed,
}

impl Rest {
    /// How many of `bytes` belong to the body, and whether it ends with them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        match self {
            Self::Length(left) => {
                let taken = skip(left, bytes.len());
                Ok((taken, *left == 0))
            }
            Self::Chunks(chunks) => chunks.take(bytes),
            Self::UntilClosed => Ok((bytes.len(), false)),
        }
    }
}

/// Takes at most `there` bytes off what is left.
fn skip(left: &mut u64, there: usize) -> usize {
    let taken = usize::try_from(*left).map_or(there, |left| left.min(there));
    *left = left.saturating_sub(taken as u64);
    taken
}

/// Whether chunk extensions may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extensions {
    Refused,
    /// Ignored, within a limit.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// A chunked body.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    state: State,
    extensions: Extensions,
    extension_bytes: usize,
    digits: usize,
    left: u64,
    trailers: Fields,
    trailer_bytes: usize,
}

impl Chunks {
    pub(super) fn new(extensions: Extensions) -> Self {
        Self {
            state: State::Size,
            extensions,
            extension_bytes: 0,
            digits: 0,
            left: 0,
            trailers: Fields::new(),
            trailer_bytes: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.state == State::Data {
                at += skip(&mut self.left, bytes.len() - at);
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.byte(*byte)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn byte(&mut self, byte: u8) -> Result<bool, Violation> {
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (State::Size, b'\n') => return Err(Violation::BareLineFeed),
            (State::Size, _) if self.digits == 0 => return Err(Violation::ChunkSize),
            (State::Size | State::Extension, b'\r') => State::SizeEnd,
            (State::Size, b';' | b' ' | b'\t') => self.extension(Violation::ChunkSize, byte)?,
            (State::Size, _) => return Err(Violation::ChunkSize),
            (State::Extension, b'\n') => return Err(Violation::BareLineFeed),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension(Violation::ChunkExtension, byte)?
            }
            (State::Extension, _) => return Err(Violation::ChunkExtension),
            (State::SizeEnd, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                State::Data
            }
            (State::SizeEnd, _) => return Err(Violation::BareCarriageReturn),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf | State::Data, _) => return Err(Violation::ChunkEnd),
            (State::Trailers, _) => return self.trailer(byte),
        };
        Ok(false)
    }

    fn digit(&mut self, byte: u8) -> Result<State, Violation> {
        self.digits += 1;
        if self.digits > MAX_SIZE_DIGITS {
            return Err(Violation::ChunkSize);
        }
        let value = char::from(byte).to_digit(16).ok_or(Violation::ChunkSize)?;
        self.left = (self.left << 4) | u64::from(value);
        // What adds up to more than 2^63 is nobody's honest chunk.
        if self.left > 1 << 63 {
            return Err(Violation::ChunkSize);
        }
        Ok(State::Size)
    }

    fn extension(&mut self, blank: Violation, byte: u8) -> Result<State, Violation> {
        if self.extensions == Extensions::Refused {
            return Err(match byte {
                b';' => Violation::ChunkExtension,
                _ => blank,
            });
        }
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(Violation::ChunkExtensionsTooLong);
        }
        Ok(State::Extension)
    }

    fn trailer(&mut self, byte: u8) -> Result<bool, Violation> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES || self.trailers.count() > MAX_TRAILERS {
            return Err(Violation::TrailersTooLong);
        }
        match self.trailers.byte(byte)? {
            Step::More | Step::Field(None) => Ok(false),
            Step::Field(Some(_)) => Err(Violation::TrailerField),
            Step::End => Ok(true),
        }
    }
}

//! Field lines, one byte at a time: those of heads and those of trailers (RFC 9112 §5). Remembers of a
//! field only whether it is one of the few that frame a message.

use super::violation::Violation;

/// Fields in one message; common servers stop at 100.
pub(super) const MAX_FIELDS: usize = 256;
/// The longest field name. The longest registered one has about 60 letters.
const MAX_NAME: usize = 256;
/// As much of a name as the names that matter need.
const KEPT_NAME: usize = 24;
/// As much of a value as `chunked`, or 19 digits, or a protocol's name needs, with some blanks.
const KEPT_VALUE: usize = 48;

/// A field that frames, routes or turns a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Upgrade,
    /// May not be a trailer (RFC 9110 §6.5.1): framing, routing, authentication, content control.
    HeadOnly,
}

/// What a byte came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More is needed.
    More,
    /// A line is whole; it was one of these, or none of interest.
    Field(Option<Known>),
    /// The empty line: no more fields.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Name,
    Value,
    ValueEnd,
    LastLine,
}

/// The lines from the first field to the empty line.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    state: State,
    count: usize,
    name_length: usize,
    name: [u8; KEPT_NAME],
    value_length: usize,
    value: [u8; KEPT_VALUE],
    known: Option<Known>,
}

impl Fields {
    pub(super) fn new() -> Self {
        Self {
            state: State::LineStart,
            count: 0,
            name_length: 0,
            name: [0; KEPT_NAME],
            value_length: 0,
            value: [0; KEPT_VALUE],
            known: None,
        }
    }

    /// How many lines there were.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The value of the line that is whole, without blanks around it; `None` if it is longer than any
    /// that matters.
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.value.get(..self.value_length).map(<[u8]>::trim_ascii)
    }

    /// How many of `bytes` are more of a value that nobody wants to know: they may be passed over.
    pub(super) fn plain(&self, bytes: &[u8]) -> usize {
        if self.state != State::Value || self.known.is_some() {
            return 0;
        }
        let odd = |byte: &u8| !matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        bytes.iter().position(odd).unwrap_or(bytes.len())
    }

    pub(super) fn byte(&mut self, byte: u8) -> Result<Step, Violation> {
        match (self.state, byte) {
            (State::LineStart, b'\r') => self.state = State::LastLine,
            (State::LineStart, b' ' | b'\t') => return Err(Violation::ObsFold),
            (State::LineStart | State::Value | State::Name, b'\n') => {
                return Err(Violation::BareLineFeed);
            }
            (State::LineStart, _) => {
                (self.name_length, self.value_length) = (0, 0);
                self.state = State::Name;
                self.count += 1;
                if self.count > MAX_FIELDS {
                    return Err(Violation::TooManyFields);
                }
                self.name_byte(byte)?;
            }
            (State::Name, b':') => {
                self.known = self.recognise()?;
                self.state = State::Value;
            }
            (State::Name, b' ' | b'\t') => return Err(Violation::SpaceBeforeColon),
            (State::Name, _) => self.name_byte(byte)?,
            (State::Value, b'\r') => self.state = State::ValueEnd,
            (State::Value, b'\t' | b' '..=b'~' | 0x80..) => self.value_byte(byte),
            (State::Value, _) => return Err(Violation::FieldValue),
            (State::ValueEnd, b'\n') => {
                self.state = State::LineStart;
                return Ok(Step::Field(self.known));
            }
            (State::LastLine, b'\n') => return Ok(Step::End),
            (State::ValueEnd | State::LastLine, _) => return Err(Violation::BareCarriageReturn),
        }
        Ok(Step::More)
    }

    fn name_byte(&mut self, byte: u8) -> Result<(), Violation> {
        if !is_token(byte) || self.name_length == MAX_NAME {
            return Err(Violation::FieldName);
        }
        if let Some(place) = self.name.get_mut(self.name_length) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_length += 1;
        Ok(())
    }

    fn value_byte(&mut self, byte: u8) {
        // Blanks before the value do not count.
        if self.value_length == 0 && is_blank(byte) {
            return;
        }
        if let Some(place) = self.value.get_mut(self.value_length) {
            *place = byte;
        }
        self.value_length = (self.value_length + 1).min(KEPT_VALUE + 1);
    }

    fn recognise(&self) -> Result<Option<Known>, Violation> {
        let Some(name) = self.name.get(..self.name_length) else {
            return Ok(None);
        };
        let known = lookup(name);
        if frames_by_another_name(name) {
            return Err(Violation::FoldedName);
        }
        Ok(known)
    }
}

fn lookup(name: &[u8]) -> Option<Known> {
    match name {
        b"host" => Some(Known::Host),
        b"content-length" => Some(Known::ContentLength),
        b"transfer-encoding" => Some(Known::TransferEncoding),
        b"upgrade" => Some(Known::Upgrade),
        b"connection"
        | b"keep-alive"
        | b"proxy-connection"
        | b"te"
        | b"trailer"
        | b"expect"
        | b"authorization"
        | b"proxy-authorization"
        | b"cookie"
        | b"set-cookie"
        | b"www-authenticate"
        | b"proxy-authenticate"
        | b"content-encoding"
        | b"content-type"
        | b"content-range"
        | b"cache-control"
        | b"max-forwards"
        | b"range" => Some(Known::HeadOnly),
        _ => None,
    }
}

/// Would it frame the message if its `_` were `-`, as some servers read them? In lower case.
pub(super) fn frames_by_another_name(name: &[u8]) -> bool {
    let mut folded = [0; KEPT_NAME];
    let Some(folded) = folded
        .get_mut(..name.len())
        .filter(|_| name.contains(&b'_'))
    else {
        return false;
    };
    for (to, byte) in folded.iter_mut().zip(name) {
        *to = if *byte == b'_' { b'-' } else { *byte };
    }
    let frames = [Known::ContentLength, Known::TransferEncoding].map(Some);
    frames.contains(&lookup(folded))
}

/// May it not be a trailer, by its own name or by the one that it frames by? In lower case.
pub(super) fn belongs_in_head(name: &[u8]) -> bool {
    lookup(name).is_some() || frames_by_another_name(name)
}

/// What may stand around a value (OWS, RFC 9110 §5.6.3) and is no part of it.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// A letter of a token (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        || byte.is_ascii_alphanumeric()
}

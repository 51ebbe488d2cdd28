//! AWS's binary event stream (`application/vnd.amazon.eventstream`): messages told apart, both checksums verified.
//!
//! It refuses to know what the messages say. Layout (Smithy specification, "Amazon Event Stream Specification"), all
//! numbers big-endian: total length, headers' length, CRC-32 of these 8 bytes, headers, payload, CRC-32 of all before.

use flate2::Crc;

/// The longest message that is read: 1 MiB. What tells usage has a few hundred bytes, a piece of text some more; longer
/// ones (an image) are skipped.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// The longest message there is: 16 MiB of payload and 128 KiB of headers (Smithy specification).
pub const MAX_SKIPPED: usize = 16 * 1024 * 1024 + MAX_HEADERS + OVERHEAD;
/// The longest headers of one message (Smithy specification).
const MAX_HEADERS: usize = 128 * 1024;
/// Both lengths and their checksum.
const PRELUDE: usize = 12;
/// What is neither header nor payload.
const OVERHEAD: usize = PRELUDE + 4;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `:message-type`: `event`, `exception` or `error`.
    pub kind: Option<&'a str>,
    /// `:event-type`.
    pub event: Option<&'a str>,
    /// The payload.
    pub payload: &'a [u8],
}

/// Why bytes are no event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Lengths that no message has.
    #[error("impossible lengths")]
    Length,
    /// A checksum that does not fit.
    #[error("wrong checksum")]
    Checksum,
    /// Headers that are cut off or of no known type.
    #[error("malformed headers")]
    Header,
}

/// What the beginning of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A message and its length.
    Message(Message<'a>, usize),
    /// A message of this length, too long to be read.
    TooLong(usize),
}

/// Reads the message at the beginning of `input`; `None` if there is not enough of it yet.
///
/// # Errors
/// [`Malformed`]; the stream cannot be read on.
pub fn parse(input: &[u8]) -> Result<Option<Parsed<'_>>, Malformed> {
    let Some((prelude, _)) = input.split_at_checked(PRELUDE) else {
        return Ok(None);
    };
    let (total, headers) = (number(prelude, 0)?, number(prelude, 4)?);
    if Some(checksum(prelude.get(..8).unwrap_or_default())) != word(prelude, 8) {
        return Err(Malformed::Checksum);
    }
    if !(OVERHEAD..=MAX_SKIPPED).contains(&total) || headers > MAX_HEADERS.min(total - OVERHEAD) {
        return Err(Malformed::Length);
    }
    if total > MAX_MESSAGE {
        return Ok(Some(Parsed::TooLong(total)));
    }
    let Some(whole) = input.get(..total) else {
        return Ok(None);
    };
    let (checked, sum) = whole.split_at(total - 4);
    if Some(checksum(checked)) != word(sum, 0) {
        return Err(Malformed::Checksum);
    }
    let (headers, payload) = checked
        .get(PRELUDE..)
        .and_then(|rest| rest.split_at_checked(headers))
        .ok_or(Malformed::Length)?;
    let mut message = Message {
        kind: None,
        event: None,
        payload,
    };
    read_headers(headers, &mut message)?;
    Ok(Some(Parsed::Message(message, total)))
}

/// Splits a stream that comes in chunks, holding one message at most.
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    /// Bytes of a long message that are still to come.
    skip: usize,
    broken: bool,
}

impl Reader {
    /// Reads on and hands on whole messages. Malformed input silences it.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl FnMut(Message<'_>)) {
        let mut rest = chunk;
        while !self.broken && !rest.is_empty() {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            let (taken, tail) = rest.split_at(skipped + self.wanted(rest.len() - skipped));
            self.held
                .extend_from_slice(taken.get(skipped..).unwrap_or_default());
            rest = tail;
            self.read(sink);
        }
    }

    /// How much of what is left is taken in at once: no more than one message needs.
    fn wanted(&self, left: usize) -> usize {
        let total = number(&self.held, 0).unwrap_or(MAX_MESSAGE);
        let whole = if self.held.len() < PRELUDE {
            PRELUDE
        } else {
            total.min(MAX_MESSAGE)
        };
        left.min(whole.saturating_sub(self.held.len()).max(1))
    }

    fn read(&mut self, sink: &mut impl FnMut(Message<'_>)) {
        match parse(&self.held) {
            Ok(None) => {}
            Ok(Some(Parsed::Message(message, length))) => {
                sink(message);
                self.held.drain(..length);
            }
            Ok(Some(Parsed::TooLong(length))) => {
                self.skip = length.saturating_sub(self.held.len());
                self.held.clear();
            }
            Err(error) => {
                tracing::debug!(%error, "an event stream cannot be read");
                self.broken = true;
                self.held = Vec::new();
            }
        }
    }
}

/// Writes a message with string headers; `None` if it is too long for the format.
pub fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Option<Vec<u8>> {
    let mut written = Vec::new();
    for (name, value) in headers {
        written.push(u8::try_from(name.len()).ok()?);
        written.extend_from_slice(name.as_bytes());
        written.push(STRING);
        written.extend_from_slice(&u16::try_from(value.len()).ok()?.to_be_bytes());
        written.extend_from_slice(value.as_bytes());
    }
    let total = OVERHEAD + written.len() + payload.len();
    let mut message = Vec::with_capacity(total);
    message.extend_from_slice(&u32::try_from(total).ok()?.to_be_bytes());
    message.extend_from_slice(&u32::try_from(written.len()).ok()?.to_be_bytes());
    message.extend_from_slice(&checksum(&message).to_be_bytes());
    message.extend_from_slice(&written);
    message.extend_from_slice(payload);
    message.extend_from_slice(&checksum(&message).to_be_bytes());
    Some(message)
}

/// The type of a header whose value is a string with a length of two bytes.
const STRING: u8 = 7;

fn read_headers<'a>(mut rest: &'a [u8], message: &mut Message<'a>) -> Result<(), Malformed> {
    let take = |rest: &mut &'a [u8], length: usize| {
        let (taken, tail) = rest.split_at_checked(length).ok_or(Malformed::Header)?;
        *rest = tail;
        Ok(taken)
    };
    let byte = |rest: &mut &'a [u8]| {
        let taken: &[u8] = take(rest, 1)?;
        taken.first().copied().ok_or(Malformed::Header)
    };
    while !rest.is_empty() {
        let length = usize::from(byte(&mut rest)?);
        let name = take(&mut rest, length)?;
        let kind = byte(&mut rest)?;
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            9 => 16,
            6 | STRING => match take(&mut rest, 2)? {
                [high, low] => usize::from(u16::from_be_bytes([*high, *low])),
                _ => return Err(Malformed::Header),
            },
            _ => return Err(Malformed::Header),
        };
        let value = take(&mut rest, length)?;
        let text = || {
            (kind == STRING)
                .then(|| std::str::from_utf8(value).ok())
                .flatten()
        };
        match name {
            b":message-type" => message.kind = text(),
            b":event-type" => message.event = text(),
            _ => {}
        }
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let word = word(bytes, at).ok_or(Malformed::Length)?;
    usize::try_from(word).or(Err(Malformed::Length))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests;

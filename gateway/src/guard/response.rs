//! The responses that an upstream sends on one connection, each to a request that is known.

use super::body::{Chunks, Extensions, Framing, Rest};
use super::fields::{Fields, Known, Step};
use super::violation::Violation;
use super::{Judged, Position, take_steps};

/// Bytes of one head: real ones, with cookies and content security policies, stay below 64 KiB.
pub const MAX_HEAD: usize = 128 * 1024;
/// Informational responses before the final one; a server that streams early hints sends a handful.
const MAX_INFORMATIONAL: usize = 32;
/// How a status line begins.
const VERSION: &[u8] = b"HTTP/1.";

/// What is to be known of a request to read its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// An ordinary one.
    Plain,
    /// HEAD: whatever the head says, no body follows.
    Head,
    /// It asked for an upgrade: after 101 it is HTTP no longer.
    Upgrade,
}

/// Reads responses.
#[derive(Clone, Debug)]
pub struct ResponseGuard {
    exchange: Option<Exchange>,
    informational: usize,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Start,
    Head(Box<Head>),
    Body(Rest),
    /// 101: no longer HTTP.
    Switched,
}

#[derive(Clone, Debug)]
struct Head {
    part: Part,
    bytes: usize,
    old: bool,
    status: u16,
    framing: Framing,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Version(usize),
    Minor,
    Space,
    Status(usize),
    Reason,
    ReasonText,
    LineEnd,
    Fields,
}

/// What comes after a head.
enum After {
    /// Another head: this one was informational.
    Another,
    Nothing,
    Body(Rest),
    Switch,
}

impl Default for ResponseGuard {
    fn default() -> Self {
        Self {
            exchange: None,
            informational: 0,
            state: State::Start,
        }
    }
}

impl ResponseGuard {
    /// A request is about to be sent; the next final response answers it.
    pub fn expect(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
        self.informational = 0;
    }

    /// The request whose final response is not whole yet.
    #[must_use]
    pub fn exchange(&self) -> Option<Exchange> {
        self.exchange
    }

    /// Judges what comes next, up to the end of a final response.
    ///
    /// # Errors
    /// The first rule that the bytes break; the guard is of no use afterwards.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Judged, Violation> {
        Ok(Judged {
            taken: take_steps(bytes, |rest| self.step(rest))?,
            at: self.position(),
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.state {
            State::Start => Position::Between,
            State::Head(_) => Position::InHead,
            State::Body(_) | State::Switched => Position::InBody,
        }
    }

    /// Is it HTTP no longer?
    #[must_use]
    pub fn is_switched(&self) -> bool {
        matches!(self.state, State::Switched)
    }

    fn step(&mut self, rest: &[u8]) -> Result<(usize, bool), Violation> {
        match &mut self.state {
            State::Switched => Ok((rest.len(), false)),
            State::Start if self.exchange.is_none() => Err(Violation::Unasked),
            State::Start => {
                self.state = State::Head(Box::new(Head::new()));
                Ok((0, false))
            }
            State::Head(head) => {
                let (taken, whole) = head.take(rest)?;
                if !whole {
                    return Ok((taken, false));
                }
                let after = head.after(self.exchange)?;
                Ok((taken, self.follow(after)?))
            }
            State::Body(body) => {
                let (taken, ended) = body.take(rest)?;
                Ok((taken, ended && self.finish()))
            }
        }
    }

    fn follow(&mut self, after: After) -> Result<bool, Violation> {
        match after {
            After::Nothing => Ok(self.finish()),
            After::Body(body) => {
                self.state = State::Body(body);
                Ok(false)
            }
            After::Switch => {
                self.state = State::Switched;
                Ok(false)
            }
            After::Another => {
                self.state = State::Start;
                self.informational += 1;
                if self.informational > MAX_INFORMATIONAL {
                    return Err(Violation::TooManyInformational);
                }
                Ok(false)
            }
        }
    }

    fn finish(&mut self) -> bool {
        self.state = State::Start;
        self.exchange = None;
        true
    }
}

impl Head {
    fn new() -> Self {
        Self {
            part: Part::Version(0),
            bytes: 0,
            old: false,
            status: 0,
            framing: Framing::default(),
            fields: Fields::new(),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let rest = bytes.get(at..).unwrap_or_default();
            let plain = self.fields.plain(rest);
            let taken = plain.max(1);
            at += taken;
            self.bytes += taken;
            if self.bytes > MAX_HEAD {
                return Err(Violation::HeadTooLong);
            }
            if plain == 0 && self.byte(*byte)? {
                return Ok((at, true));
            }
        }
        Ok((bytes.len(), false))
    }

    fn byte(&mut self, byte: u8) -> Result<bool, Violation> {
        self.part = match (self.part, byte) {
            (Part::Fields, _) => return self.field_byte(byte),
            (Part::Version(at), _) if VERSION.get(at) == Some(&byte) => {
                if at + 1 == VERSION.len() {
                    Part::Minor
                } else {
                    Part::Version(at + 1)
                }
            }
            (Part::Minor, b'0' | b'1') => {
                self.old = byte == b'0';
                Part::Space
            }
            (Part::Space, b' ') => Part::Status(0),
            (Part::Status(at), b'0'..=b'9') => {
                self.status = self.status * 10 + u16::from(byte - b'0');
                if at == 2 {
                    Part::Reason
                } else {
                    Part::Status(at + 1)
                }
            }
            // The space before an empty reason is often left out.
            (Part::Reason | Part::ReasonText, b'\r') => Part::LineEnd,
            (Part::Reason, b' ') => Part::ReasonText,
            (Part::ReasonText, b'\t' | b' '..=b'~' | 0x80..) => Part::ReasonText,
            (Part::LineEnd, b'\n') if (100..=599).contains(&self.status) => Part::Fields,
            (Part::Reason | Part::ReasonText, b'\n') => return Err(Violation::BareLineFeed),
            _ => return Err(Violation::StatusLine),
        };
        Ok(false)
    }

    fn field_byte(&mut self, byte: u8) -> Result<bool, Violation> {
        match self.fields.byte(byte)? {
            Step::More | Step::Field(None | Some(Known::Host)) => {}
            Step::Field(Some(known)) => self.framing.field(known, &self.fields)?,
            Step::End => return Ok(true),
        }
        Ok(false)
    }

    /// RFC 9112 §6.3.
    fn after(&self, exchange: Option<Exchange>) -> Result<After, Violation> {
        let framing = self.framing.checked(self.old)?;
        match (self.status, exchange) {
            (101, Some(Exchange::Upgrade)) => Ok(After::Switch),
            (101, _) => Err(Violation::UnaskedSwitch),
            (100..=199 | 204, _)
                if framing.is_chunked() || framing.length().is_some_and(|length| length > 0) =>
            {
                Err(Violation::BodyNotAllowed)
            }
            (100..=199, _) => Ok(After::Another),
            (204 | 304, _) | (_, Some(Exchange::Head)) => Ok(After::Nothing),
            _ if framing.is_chunked() => Ok(After::Body(Rest::Chunks(Box::new(Chunks::new(
                Extensions::Skipped,
            ))))),
            _ => Ok(match framing.length() {
                Some(0) => After::Nothing,
                Some(length) => After::Body(Rest::Length(length)),
                None => After::Body(Rest::UntilClosed),
            }),
        }
    }
}

//! The stream of requests that a client sends on one connection.

use super::body::{Chunks, Extensions, Framing, Rest};
use super::fields::{Fields, Known, Step};
use super::target::Target;
use super::violation::Violation;
use super::{Judged, Position, take_steps};

/// What follows the target of a request line.
const VERSION: &[u8] = b"HTTP/1.";

/// Reads requests, one after the other.
#[derive(Clone, Debug)]
pub struct RequestGuard {
    state: State,
    max_head: usize,
}

#[derive(Clone, Debug)]
enum State {
    /// At most one empty line before a request is passed over (RFC 9112 §2.2).
    Start(Empty),
    Head(Box<Head>),
    Body(Rest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Empty {
    None,
    Cr,
    One,
}

#[derive(Clone, Debug)]
struct Head {
    part: Part,
    bytes: usize,
    target: Target,
    old: bool,
    hosts: usize,
    framing: Framing,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Method,
    Target,
    Version(usize),
    Minor,
    VersionCr,
    VersionLf,
    Fields,
}

impl RequestGuard {
    /// Heads may have `max_head` bytes, from the method to the empty line.
    #[must_use]
    pub fn new(max_head: usize) -> Self {
        Self {
            state: State::Start(Empty::None),
            max_head,
        }
    }

    /// Judges what comes next, up to the end of a message. An empty line between messages is taken with
    /// the request that follows it.
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
            State::Start(Empty::None) => Position::Between,
            State::Start(_) | State::Head(_) => Position::InHead,
            State::Body(_) => Position::InBody,
        }
    }

    fn step(&mut self, rest: &[u8]) -> Result<(usize, bool), Violation> {
        match &mut self.state {
            State::Start(_) => self.start(rest),
            State::Head(head) => {
                let (taken, body) = head.take(rest, self.max_head)?;
                let ended = matches!(body, Some(None));
                match body {
                    None => {}
                    Some(None) => self.state = State::Start(Empty::None),
                    Some(Some(body)) => self.state = State::Body(body),
                }
                Ok((taken, ended))
            }
            State::Body(body) => {
                let (taken, ended) = body.take(rest)?;
                if ended {
                    self.state = State::Start(Empty::None);
                }
                Ok((taken, ended))
            }
        }
    }

    fn start(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        let State::Start(empty) = &mut self.state else {
            return Ok((0, false));
        };
        match (*empty, bytes.first()) {
            (Empty::None, Some(b'\r')) => *empty = Empty::Cr,
            (Empty::Cr, Some(b'\n')) => *empty = Empty::One,
            (Empty::Cr, Some(_)) => return Err(Violation::BareCarriageReturn),
            (_, Some(b'\n')) => return Err(Violation::BareLineFeed),
            _ => {
                self.state = State::Head(Box::new(Head::new()));
                return Ok((0, false));
            }
        }
        Ok((1, false))
    }
}

impl Head {
    fn new() -> Self {
        Self {
            part: Part::Method,
            bytes: 0,
            target: Target::new(),
            old: false,
            hosts: 0,
            framing: Framing::default(),
            fields: Fields::new(),
        }
    }

    /// Takes bytes to the end of the head, and then says what body follows it, if any.
    fn take(
        &mut self,
        bytes: &[u8],
        max: usize,
    ) -> Result<(usize, Option<Option<Rest>>), Violation> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let rest = bytes.get(at..).unwrap_or_default();
            let plain = self.fields.plain(rest);
            let taken = plain.max(1);
            at += taken;
            self.bytes += taken;
            if self.bytes > max {
                return Err(Violation::HeadTooLong);
            }
            if plain == 0 && self.byte(*byte)? {
                return Ok((at, Some(self.body()?)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// `true` for the last byte of the head.
    fn byte(&mut self, byte: u8) -> Result<bool, Violation> {
        self.part = match self.part {
            Part::Fields => return self.field_byte(byte),
            Part::Method => {
                if self.target.method_byte(byte)? {
                    Part::Target
                } else {
                    Part::Method
                }
            }
            Part::Target => {
                if self.target.target_byte(byte)? {
                    Part::Version(0)
                } else {
                    Part::Target
                }
            }
            Part::Version(at) => version_byte(at, byte)?,
            Part::Minor => match byte {
                b'0' | b'1' => {
                    self.old = byte == b'0';
                    Part::VersionCr
                }
                _ if byte.is_ascii_digit() => return Err(Violation::OtherVersion),
                _ => return Err(Violation::Version),
            },
            Part::VersionCr => match byte {
                b'\r' => Part::VersionLf,
                b'\n' => return Err(Violation::BareLineFeed),
                _ => return Err(Violation::Version),
            },
            Part::VersionLf => match byte {
                b'\n' => Part::Fields,
                _ => return Err(Violation::BareCarriageReturn),
            },
        };
        Ok(false)
    }

    fn field_byte(&mut self, byte: u8) -> Result<bool, Violation> {
        match self.fields.byte(byte)? {
            Step::More | Step::Field(None) => {}
            Step::Field(Some(Known::Host)) => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(Violation::SeveralHosts);
                }
            }
            Step::Field(Some(known)) => self.framing.field(known, &self.fields)?,
            Step::End => return Ok(true),
        }
        Ok(false)
    }

    fn body(&self) -> Result<Option<Rest>, Violation> {
        if self.hosts == 0 && !self.old {
            return Err(Violation::NoHost);
        }
        let framing = self.framing.checked(self.old)?;
        Ok(if framing.is_chunked() {
            Some(Rest::Chunks(Box::new(Chunks::new(Extensions::Refused))))
        } else {
            framing
                .length()
                .filter(|length| *length > 0)
                .map(Rest::Length)
        })
    }
}

/// The bytes of `HTTP/1.`, and what else may stand in their place.
fn version_byte(at: usize, byte: u8) -> Result<Part, Violation> {
    /// Where the major version stands.
    const MAJOR: usize = 5;
    match VERSION.get(at) {
        Some(wanted) if *wanted == byte && at + 1 == VERSION.len() => Ok(Part::Minor),
        Some(wanted) if *wanted == byte => Ok(Part::Version(at + 1)),
        _ if at == MAJOR && byte.is_ascii_digit() => Err(Violation::OtherVersion),
        _ => Err(Violation::Version),
    }
}

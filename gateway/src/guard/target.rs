//! The method and the target of a request line, one byte at a time (RFC 9112 §3). Which host a target
//! names is none of its business.

use super::fields::is_token;
use super::violation::Violation;

/// The longest method, in bytes. The longest registered one, UPDATEREDIRECTREF, has 17.
pub(super) const MAX_METHOD: usize = 32;
/// The longest target: what the `http` library can hold.
const MAX_TARGET: usize = 65_534;
/// As much of a target as its form shows in.
const KEPT: usize = 8;

/// The forms of RFC 9112 §3.2, by method.
#[derive(Clone, Debug)]
pub(super) struct Target {
    method_length: usize,
    method: [u8; KEPT],
    length: usize,
    start: [u8; KEPT],
}

impl Target {
    pub(super) fn new() -> Self {
        Self {
            method_length: 0,
            method: [0; KEPT],
            length: 0,
            start: [0; KEPT],
        }
    }

    /// A byte before the first space; `true` for the space itself.
    pub(super) fn method_byte(&mut self, byte: u8) -> Result<bool, Violation> {
        if byte == b' ' && self.method_length > 0 {
            return Ok(true);
        }
        if !is_token(byte) || self.method_length == MAX_METHOD {
            return Err(Violation::Method);
        }
        if let Some(place) = self.method.get_mut(self.method_length) {
            *place = byte;
        }
        self.method_length += 1;
        Ok(false)
    }

    /// A byte before the second space; `true` for the space itself.
    pub(super) fn target_byte(&mut self, byte: u8) -> Result<bool, Violation> {
        if byte == b' ' {
            return if self.has_a_form() {
                Ok(true)
            } else {
                Err(Violation::Target)
            };
        }
        if !may_be_in_target(byte) {
            return Err(Violation::Target);
        }
        if self.length == MAX_TARGET {
            return Err(Violation::TargetTooLong);
        }
        if let Some(place) = self.start.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        self.length += 1;
        Ok(false)
    }

    fn has_a_form(&self) -> bool {
        let start = self.start.get(..self.length).unwrap_or(&self.start);
        let method = self.method.get(..self.method_length);
        match method {
            Some(b"CONNECT") => !start.is_empty() && !start.starts_with(b"/"),
            Some(b"OPTIONS") if start == b"*" => true,
            _ => {
                start.starts_with(b"/")
                    || start.starts_with(b"http://")
                    || start.starts_with(b"https://")
            }
        }
    }
}

/// Not what is among no URI's characters, a fragment, and what servers take for a slash.
pub(super) fn may_be_in_target(byte: u8) -> bool {
    let odd = matches!(byte, b'"' | b'<' | b'>' | b'`' | b'\\' | b'#');
    byte.is_ascii_graphic() && !odd
}

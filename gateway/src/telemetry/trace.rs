//! Which trace a request belongs to: W3C Trace Context, read and written. Knows not what is recorded.

use std::cell::RefCell;

/// Bytes of a trace's number and of a span's.
const NUMBERS: usize = 16 + 8;
/// For so many spans. The kernel gives 256 bytes without being interrupted (getrandom(2)).
const AT_ONCE: usize = 10;

/// A request's place in its trace, from the moment it is known until its span is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Shared by all spans of a trace.
    pub(super) trace: [u8; 16],
    /// The request's own.
    pub(super) span: [u8; 8],
    /// The span that the client says it works for.
    pub(super) parent: Option<[u8; 8]>,
}

impl Begun {
    /// Beneath the client's span if `traceparent` names one, else at the root of a new trace. The
    /// client's sampled flag is not read: whether it is recorded is not for the sandbox to say.
    ///
    /// `None` if the system has no random numbers.
    pub(super) fn new(traceparent: Option<&str>) -> Option<Self> {
        let mut random = match random() {
            Ok(random) => random,
            Err(error) => {
                tracing::error!(%error, "no random numbers for a span");
                return None;
            }
        };
        // The one invalid value is all zeroes.
        random[0] |= 1;
        random[16] |= 1;
        let (trace, span) = random.split_at(16);
        let span = span.try_into().ok()?;
        Some(match traceparent.and_then(parse) {
            Some((trace, parent)) => Self {
                trace,
                span,
                parent: Some(parent),
            },
            None => Self {
                trace: trace.try_into().ok()?,
                span,
                parent: None,
            },
        })
    }

    /// The W3C `traceparent` that names this span as the parent.
    pub fn traceparent(&self) -> String {
        let mut value = String::with_capacity(55);
        value.push_str("00-");
        push_hex(&self.trace, &mut value);
        value.push('-');
        push_hex(&self.span, &mut value);
        value.push_str("-01");
        value
    }

    /// The trace in 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        let mut id = String::with_capacity(32);
        push_hex(&self.trace, &mut id);
        id
    }
}

fn push_hex(bytes: &[u8], to: &mut String) {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    for byte in bytes {
        to.push(digit(byte >> 4));
        to.push(digit(byte & 15));
    }
}

/// A trace's and a span's number. The system is asked for many at a time: one call for ten requests.
fn random() -> Result<[u8; NUMBERS], getrandom::Error> {
    thread_local! {
        static LEFT: RefCell<Vec<[u8; NUMBERS]>> = const { RefCell::new(Vec::new()) };
    }
    LEFT.with_borrow_mut(|left| {
        if let Some(random) = left.pop() {
            return Ok(random);
        }
        let mut fresh = [[0; NUMBERS]; AT_ONCE];
        getrandom::fill(fresh.as_flattened_mut())?;
        let [first, others @ ..] = fresh;
        left.extend(others);
        Ok(first)
    })
}

/// Trace and parent of `00-<32 hex>-<16 hex>-<2 hex>`, lower case (W3C Trace Context §3.2). A later
/// version may say more after that, version 00 may not.
fn parse(value: &str) -> Option<([u8; 16], [u8; 8])> {
    let mut parts = value.split('-');
    let version: [u8; 1] = hex(parts.next()?)?;
    let trace = hex(parts.next()?)?;
    let parent = hex(parts.next()?)?;
    let _flags: [u8; 1] = hex(parts.next()?)?;
    let known = match version {
        [0xff] => false,
        [0] => parts.next().is_none(),
        _ => true,
    };
    (known && trace != [0; 16] && parent != [0; 8]).then_some((trace, parent))
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.as_bytes().iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::collections::HashSet;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_the_parent_whether_it_is_sampled_or_not() {
        for flags in ["00", "01", "ff"] {
            let value = format!("{}{flags}", &VALID[..53]);
            let begun = Begun::new(Some(&value)).unwrap();
            assert_eq!(begun.trace_id(), VALID[3..35]);
            assert_eq!(begun.parent, hex(&VALID[36..52]));
            assert_ne!(begun.parent, Some(begun.span));
            assert!(begun.traceparent().ends_with("-01"));
        }
        let later = format!("cc{}-what-ever", &VALID[2..]);
        assert!(parse(&later).is_some());
    }

    #[test]
    fn anything_else_begins_a_trace_of_its_own() {
        let begun = Begun::new(None).unwrap();
        assert_eq!(
            parse(&begun.traceparent()),
            Some((begun.trace, begun.span)),
            "what it writes it can read"
        );
        // More than are asked for at once.
        let many = || (0..3 * AT_ONCE).map(|_| Begun::new(None).unwrap());
        let traces: HashSet<_> = many().map(|begun| begun.trace).collect();
        let spans: HashSet<_> = many().map(|begun| begun.span).collect();
        assert_eq!((traces.len(), spans.len()), (3 * AT_ONCE, 3 * AT_ONCE));
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}

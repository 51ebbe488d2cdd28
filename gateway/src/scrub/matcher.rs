//! Replaces what an [`Automaton`] finds in text that comes piece by piece.
//!
//! Every match is replaced whole, the ones that overlap too: each byte that any pattern covers goes.
//! Of what has come, only the part that may yet turn out to be a match is held back, which is shorter
//! than the longest spelling of the longest pattern. Where nothing more comes for now, the first bytes of
//! that part are given all the same: two that answer each other would wait for ever for the last letter
//! of a message. It refuses to know of HTTP.

use super::automaton::{Automaton, Threads};
use crate::telemetry::redact::REDACTED;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// What stands in the place of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    /// `[redacted]`.
    Word,
    /// As many stars as there were bytes: lengths that a binary format has written down stay true.
    SameLength,
}

/// So many bytes of what may be a match are given when nothing more comes for now: a message seldom ends with
/// more of a secret's beginning, and of the shortest secret ([`MIN_SECRET`](super::MIN_SECRET)) it is the
/// lesser part. What follows them is replaced as ever.
const GIVEN: usize = 3;

/// One text on its way.
pub(super) struct Matcher {
    automaton: Arc<Automaton>,
    replacement: Replacement,
    /// Came, and may be the beginning of a match.
    held: Vec<u8>,
    /// How much of the beginning of `held` has been given or replaced already …
    done: usize,
    /// … and how much of that belongs to a match.
    replaced: usize,
    count: u64,
    threads: Threads,
}

impl Matcher {
    pub(super) fn new(automaton: Arc<Automaton>, replacement: Replacement) -> Self {
        Self {
            automaton,
            replacement,
            held: Vec::new(),
            done: 0,
            replaced: 0,
            count: 0,
            threads: Threads::default(),
        }
    }

    /// Takes what comes next and gives what is decided. Where nothing is found, that is the same memory.
    pub(super) fn push(&mut self, data: Bytes) -> Bytes {
        if self.held.is_empty() {
            return self.scan(&data, false);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(&data);
        self.scan(&Bytes::from(text), false)
    }

    /// Nothing more comes for now: what can be spared of what is held back.
    pub(super) fn yielded(&mut self) -> Bytes {
        let given = self.held.get(self.done..GIVEN.min(self.held.len()));
        let given = Bytes::copy_from_slice(given.unwrap_or_default());
        self.done += given.len();
        given
    }

    /// The rest: nothing follows.
    pub(super) fn finish(&mut self) -> Bytes {
        let text = std::mem::take(&mut self.held);
        self.scan(&Bytes::from(text), true)
    }

    /// How many places have been replaced.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that came and have not been given.
    pub(super) fn held(&self) -> usize {
        self.held.len() - self.done
    }

    fn scan(&mut self, text: &Bytes, last: bool) -> Bytes {
        let automaton = Arc::clone(&self.automaton);
        let mut out = Vec::new();
        // Everything before these has been given or replaced, and is part of a match.
        let (mut done, mut replaced) = (self.done, self.replaced);
        let mut keep = text.len();
        let mut from = 0;
        while let Some(at) = automaton.candidate(text, from) {
            let rest = text.get(at..).unwrap_or_default();
            let found = automaton.longest(rest, &mut self.threads);
            if let Some(end) = found.end.map(|length| at + length) {
                self.replace(text, &mut out, done, at..end, at >= replaced);
                (done, replaced) = (done.max(end), replaced.max(end));
            }
            if found.undecided && !last {
                keep = at;
                break;
            }
            from = at + 1;
        }
        let rest = done..keep.max(done);
        done = rest.end;
        self.held = text.get(keep..).unwrap_or_default().to_vec();
        self.done = done - keep;
        self.replaced = replaced.saturating_sub(keep);
        if out.is_empty() {
            return text.slice(rest);
        }
        out.extend_from_slice(text.get(rest).unwrap_or_default());
        Bytes::from(out)
    }

    fn replace(
        &mut self,
        text: &[u8],
        out: &mut Vec<u8>,
        done: usize,
        at: Range<usize>,
        is_new: bool,
    ) {
        if is_new {
            self.count += 1;
            out.extend_from_slice(text.get(done..at.start).unwrap_or_default());
        }
        match self.replacement {
            Replacement::Word if is_new => out.extend_from_slice(REDACTED.as_bytes()),
            Replacement::Word => {}
            Replacement::SameLength => {
                let stars = at.end.saturating_sub(at.start.max(done));
                out.extend(std::iter::repeat_n(b'*', stars));
            }
        }
    }
}

//! Replaces what an [`Automaton`] finds in text that comes piece by piece.
//!
//! Every match is replaced whole, the ones that overlap too: each byte that any pattern covers goes.
//!
//! What is given when does not depend on the patterns: if the beginning of a secret were held back and a
//! wrong guess were not, whoever has a text of his own sent through here would learn the secret letter by
//! letter. So it is the unfinished last word that waits, whatever it is, until it is finished or all has been
//! said. However long that takes: whoever reads slowly makes a server pause where he wants it to, and what was
//! given for want of more would be a secret's beginning. It refuses to know of HTTP, and of time.

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

/// One text on its way.
pub(super) struct Matcher {
    automaton: Arc<Automaton>,
    replacement: Replacement,
    /// The last word of what came: a match may begin anywhere in it.
    held: Bytes,
    state: State,
    count: u64,
    threads: Threads,
}

/// Of a text: everything before `done` has been given or replaced, and what is replaced ends before `replaced`.
#[derive(Clone, Copy, Default)]
struct State {
    done: usize,
    replaced: usize,
}

impl Matcher {
    pub(super) fn new(automaton: Arc<Automaton>, replacement: Replacement) -> Self {
        Self {
            automaton,
            replacement,
            held: Bytes::new(),
            state: State::default(),
            count: 0,
            threads: Threads::default(),
        }
    }

    /// Takes what comes next and gives what is decided. Where nothing is found or held, that is the same memory.
    /// The first `whole` bytes are said to be complete: nothing that begins in them goes on.
    pub(super) fn push(&mut self, data: Bytes, whole: usize) -> Bytes {
        let whole = if whole == 0 {
            0
        } else {
            self.held.len() + whole
        };
        let is_new = self.held.is_empty();
        let text = match std::mem::take(&mut self.held) {
            _ if is_new => data,
            held if data.is_empty() => held,
            held => [held, data].concat().into(),
        };
        let settled = self.automaton.settled(&text).max(whole);
        let out = self.scan(&text, settled);
        self.held = match text.get(settled..).unwrap_or_default() {
            all if all.len() == text.len() && !is_new => text,
            // A word does not keep the memory that it came in, which may be a whole connection's.
            rest => Bytes::copy_from_slice(rest),
        };
        self.state.done -= settled;
        self.state.replaced = self.state.replaced.saturating_sub(settled);
        out
    }

    /// The rest: nothing follows.
    pub(super) fn finish(&mut self) -> Bytes {
        let text = std::mem::take(&mut self.held);
        let out = self.scan(&text, text.len());
        self.state = State::default();
        out
    }

    /// How many places have been replaced.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that came and have not been given.
    pub(super) fn held(&self) -> usize {
        self.held.len() - self.state.done
    }

    /// Replaces the matches that begin before `settled`, and gives what is then to be given.
    fn scan(&mut self, text: &Bytes, settled: usize) -> Bytes {
        let automaton = Arc::clone(&self.automaton);
        let mut out = Vec::new();
        let mut from = 0;
        while let Some(at) = automaton.candidate(text, from, settled) {
            let rest = text.get(at..).unwrap_or_default();
            if let Some(length) = automaton.longest(rest, &mut self.threads) {
                self.replace(text, &mut out, at..at + length);
            }
            from = at + 1;
        }
        let rest = self.state.done..settled.max(self.state.done);
        self.state.done = rest.end;
        if out.is_empty() {
            return text.slice(rest);
        }
        out.extend_from_slice(text.get(rest).unwrap_or_default());
        Bytes::from(out)
    }

    fn replace(&mut self, text: &[u8], out: &mut Vec<u8>, at: Range<usize>) {
        let State { done, replaced } = self.state;
        let is_new = at.start >= replaced;
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
        self.state = State {
            done: done.max(at.end),
            replaced: replaced.max(at.end),
        };
    }
}

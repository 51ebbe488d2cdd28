//! What was read from a connection and is not passed on yet, because a guard has not judged it or a
//! message ends before it. It refuses to know which guard, and where the bytes come from.

use super::{Judged, Position, Violation};
use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

/// First what may be passed on, then what was judged, then the rest.
#[derive(Default)]
pub struct Held {
    bytes: BytesMut,
    ready: usize,
    judged: usize,
}

impl Held {
    /// May anything be passed on?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready > 0
    }

    /// Has all of it been judged?
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.judged == self.bytes.len()
    }

    /// Is there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where to read more to, with room for `more` bytes.
    pub fn room(&mut self, more: usize) -> &mut BytesMut {
        self.bytes.reserve(more);
        &mut self.bytes
    }

    /// Passes on as much as may be and fits.
    pub fn hand_over(&mut self, out: &mut ReadBuf<'_>) {
        let length = self.ready.min(out.remaining());
        out.put_slice(&self.bytes[..length]);
        self.bytes.advance(length);
        self.ready -= length;
        self.judged -= length;
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.ready, self.judged) = (0, 0);
    }

    /// Nobody judges any more: all of it may be passed on.
    pub fn release(&mut self) {
        (self.ready, self.judged) = (self.bytes.len(), self.bytes.len());
    }

    /// Has `take` judge what is not judged yet. A head may be passed on when it is whole.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn judge(
        &mut self,
        take: impl FnOnce(&[u8]) -> Result<Judged, Violation>,
    ) -> Result<Judged, Violation> {
        let judged = take(&self.bytes[self.judged..])?;
        self.judged += judged.taken;
        if judged.at != Position::InHead {
            self.ready = self.judged;
        }
        Ok(judged)
    }

    /// The same of body bytes that are where they are wanted, from `before` on: what follows the message is
    /// held back, and nothing is left there of what breaks a rule.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn judge_body(
        &mut self,
        out: &mut ReadBuf<'_>,
        before: usize,
        take: impl FnOnce(&[u8]) -> Result<Judged, Violation>,
    ) -> Result<Judged, Violation> {
        let judged = take(&out.filled()[before..]);
        let end = before + judged.map_or(0, |judged| judged.taken);
        if judged.is_ok() {
            self.bytes.extend_from_slice(&out.filled()[end..]);
        }
        out.set_filled(end);
        judged
    }
}

//! Undoes zstd (RFC 8878), a piece at a time. It refuses to know whose body it is, and what becomes of one that is corrupt.

use bytes::Buf;
use std::io;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Bytes that are given out at a time.
const PIECE: usize = 32 * 1024;
/// 8 MiB is the largest window that a zstd content coding may have (RFC 9659 §3).
const WINDOW_LOG: u32 = 23;

/// Decodes one body.
pub(crate) struct Zstd {
    decoder: Decoder<'static>,
    ended: bool,
    full: bool,
}

impl Zstd {
    /// An error if there is no memory for one.
    pub(crate) fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self {
            decoder,
            ended: false,
            full: false,
        })
    }

    /// The next piece; takes from the first chunk of `input` what it has used.
    pub(crate) fn pull(&mut self, input: &mut impl Buf) -> io::Result<Vec<u8>> {
        let mut out = vec![0; PIECE];
        let mut from = InBuffer::around(input.chunk());
        let mut to = OutBuffer::around(&mut out[..]);
        let hint = self.decoder.run(&mut from, &mut to)?;
        let (read, written) = (from.pos(), to.pos());
        input.advance(read);
        self.ended = hint == 0;
        self.full = written == out.len() && !self.ended;
        out.truncate(written);
        Ok(out)
    }

    /// Between two frames.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The output was full: more may come without any input.
    pub(crate) fn has_more(&self) -> bool {
        self.full
    }
}

//! Undoes content codings (RFC 9110 §8.4.1) chunk by chunk, and stops at a limit.
//!
//! It refuses to know what the content is. Codings that are stacked, and those it cannot undo, are refused at once.

mod zstd;

pub(crate) use self::zstd::Zstd;

use std::io::Write;

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// The most bytes of one body that are looked at after decoding.
///
/// 256 MiB: more than any provider accepts or answers.
pub const MAX_DECODED: u64 = 256 * 1024 * 1024;

/// How many bytes may come out for each that went in, beyond the first [`UNMEASURED`].
///
/// A few hundred bytes of brotli can become 256 MiB, which is two seconds of work for the asking. A stream stays far below
/// this even if its events are all alike, since each is flushed; ordinary text shrinks to a fifth or so.
const MAX_EXPANSION: u64 = 100;
/// Bytes that may come out whatever went in: 4 MiB, some 30 ms of work, and more than an answer that is not a stream has.
const UNMEASURED: u64 = 4 * 1024 * 1024;

/// Compressed bytes that are inflated at a time. Deflate expands by 1032 at most, so that no more than 1 MiB is held.
const STRIDE: usize = 1024;
/// Bytes that brotli gives out at a time.
const BROTLI_OUT: usize = 16 * 1024;

/// Decodes one body.
pub(crate) struct Decoder {
    stage: Stage,
    /// Bytes that may still come out in all.
    left: u64,
    /// Bytes that may still come out for those that went in.
    earned: u64,
}

enum Stage {
    Identity,
    Flate(Box<dyn Flate + Send>),
    /// `deflate` may mean zlib (as specified) or raw deflate (as some servers send): two bytes tell.
    Deflate(Option<u8>),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd>),
    Stopped,
}

type Alloc = brotli::enc::StandardAlloc;

struct Brotli {
    state: BrotliState<Alloc, Alloc, Alloc>,
    out: Vec<u8>,
}

impl Decoder {
    /// `None` for a coding that cannot be undone.
    pub(crate) fn new(content_encoding: Option<&str>) -> Option<Self> {
        Self::with_limit(content_encoding, MAX_DECODED)
    }

    fn with_limit(content_encoding: Option<&str>, left: u64) -> Option<Self> {
        let coding = content_encoding
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let stage = match coding.as_str() {
            "" | "identity" => Stage::Identity,
            "gzip" | "x-gzip" => Stage::Flate(Box::new(MultiGzDecoder::new(Vec::new()))),
            "deflate" => Stage::Deflate(None),
            "br" => Stage::Brotli(Box::new(Brotli {
                // Strict: without it a stream may ask for a window of 1 GiB, where RFC 7932 has 16 MiB.
                state: BrotliState::new_strict(
                    Alloc::default(),
                    Alloc::default(),
                    Alloc::default(),
                ),
                out: vec![0; BROTLI_OUT],
            })),
            "zstd" => Stage::Zstd(Box::new(Zstd::new().ok()?)),
            _ => return None,
        };
        Some(Self {
            stage,
            left,
            earned: UNMEASURED,
        })
    }

    /// Decodes the next bytes; all that can be known of the content is handed on before this returns.
    pub(crate) fn feed(&mut self, chunk: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let fed = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.earned = self
            .earned
            .saturating_add(fed.saturating_mul(MAX_EXPANSION));
        let (left, earned) = (&mut self.left, &mut self.earned);
        let mut limited = |bytes: &[u8]| {
            let allowed = usize::try_from(*left.min(earned)).unwrap_or(usize::MAX);
            let taken = bytes.get(..allowed).unwrap_or(bytes);
            sink(taken);
            let len = u64::try_from(taken.len()).unwrap_or(u64::MAX);
            *left = left.saturating_sub(len);
            *earned = earned.saturating_sub(len);
            if *left == 0 || *earned == 0 {
                Err(Stopped)
            } else {
                Ok(())
            }
        };
        let outcome = match &mut self.stage {
            Stage::Identity => limited(chunk),
            Stage::Flate(flate) => inflate(flate.as_mut(), chunk, &mut limited),
            Stage::Brotli(brotli) => brotli.feed(chunk, &mut limited),
            Stage::Zstd(zstd) => unzstd(zstd, chunk, &mut limited),
            Stage::Stopped => return,
            Stage::Deflate(first) => {
                let head = match (*first, chunk) {
                    (_, []) => return,
                    (None, [only]) => {
                        *first = Some(*only);
                        return;
                    }
                    (Some(first), [second, ..]) => [first, *second],
                    (None, [first, second, ..]) => [*first, *second],
                };
                let held = first.take();
                let mut flate: Box<dyn Flate + Send> = if is_zlib(head) {
                    Box::new(ZlibDecoder::new(Vec::new()))
                } else {
                    Box::new(DeflateDecoder::new(Vec::new()))
                };
                let outcome = inflate(flate.as_mut(), held.as_slice(), &mut limited)
                    .and_then(|()| inflate(flate.as_mut(), chunk, &mut limited));
                self.stage = Stage::Flate(flate);
                outcome
            }
        };
        if outcome.is_err() {
            self.stage = Stage::Stopped;
        }
    }
}

/// Corrupt, or over the limit.
struct Stopped;

/// A decoder of flate2's that writes into a vector.
pub(crate) trait Flate: Write {
    /// What was written.
    fn output(&mut self) -> &mut Vec<u8>;
    /// Nothing follows: an error if the checksum is wrong or missing.
    fn end(&mut self) -> std::io::Result<()>;
}

impl Flate for MultiGzDecoder<Vec<u8>> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.try_finish()
    }
}

impl Flate for ZlibDecoder<Vec<u8>> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.try_finish()
    }
}

impl Flate for DeflateDecoder<Vec<u8>> {
    fn output(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.try_finish()
    }
}

fn inflate(
    flate: &mut dyn Flate,
    chunk: &[u8],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    for stride in chunk.chunks(STRIDE) {
        let written = flate.write_all(stride).and_then(|()| flate.flush());
        sink(flate.output())?;
        flate.output().clear();
        if written.is_err() {
            return Err(Stopped);
        }
    }
    Ok(())
}

fn unzstd(
    zstd: &mut Zstd,
    mut chunk: &[u8],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    while !chunk.is_empty() || zstd.has_more() {
        match zstd.pull(&mut chunk) {
            Ok(piece) => sink(&piece)?,
            Err(_corrupt) => return Err(Stopped),
        }
    }
    Ok(())
}

impl Brotli {
    fn feed(
        &mut self,
        chunk: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let (mut available_in, mut offset_in) = (chunk.len(), 0);
        loop {
            let (mut available_out, mut offset_out, mut total) = (self.out.len(), 0, 0);
            let result = BrotliDecompressStream(
                &mut available_in,
                &mut offset_in,
                chunk,
                &mut available_out,
                &mut offset_out,
                &mut self.out,
                &mut total,
                &mut self.state,
            );
            sink(self.out.get(..offset_out).unwrap_or_default())?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::ResultSuccess | BrotliResult::ResultFailure => return Err(Stopped),
            }
        }
    }
}

/// A zlib header (RFC 1950 §2.2): method 8 and a checksum over both bytes.
pub(crate) fn is_zlib([first, second]: [u8; 2]) -> bool {
    first & 0x0f == 8 && u16::from_be_bytes([first, second]) % 31 == 0
}

#[cfg(test)]
mod tests;

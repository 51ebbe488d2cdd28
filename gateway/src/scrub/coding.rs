//! Undoes a content coding (RFC 9110 §8.4.1) for the client, in pieces of bounded size: what little
//! expands to a lot comes out as slowly as its reader takes it.
//!
//! Unlike the decoder of records it loses nothing: what is corrupt or cut short is an error, and the
//! client must see one. It refuses to know what the content is.

use crate::provider::{Flate, Zstd, is_zlib};
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use std::io::Write;

/// Compressed bytes that are inflated at a time. Deflate expands by 1032 at most: 512 KiB.
const STRIDE: usize = 512;
/// Bytes that brotli gives out at a time.
const PIECE: usize = 32 * 1024;

/// The codings that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// `gzip`, `x-gzip`
    Gzip,
    /// `deflate`, zlib or raw
    Deflate,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

impl Coding {
    /// By its name in `Content-Encoding` or `Accept-Encoding`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The body is not what its coding says, or ended early.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the upstream's body is not valid {coding:?}, or was cut short")]
pub struct Corrupt {
    coding: Coding,
}

/// Decodes one body.
pub(super) struct Decoder {
    coding: Coding,
    input: Bytes,
    stage: Stage,
    began: bool,
}

enum Stage {
    /// Two bytes tell zlib from raw deflate.
    Deflate,
    Flate(Box<dyn Flate + Send>),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd>),
    /// There was no memory for a decoder.
    Broken,
}

type Alloc = brotli::enc::StandardAlloc;

struct Brotli {
    state: BrotliState<Alloc, Alloc, Alloc>,
    ended: bool,
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        let stage = match coding {
            Coding::Gzip => Stage::Flate(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => Stage::Deflate,
            Coding::Brotli => Stage::Brotli(Box::new(Brotli {
                // Strict: without it a stream may ask for a window of 1 GiB, where RFC 7932 has 16 MiB.
                state: BrotliState::new_strict(
                    Alloc::default(),
                    Alloc::default(),
                    Alloc::default(),
                ),
                ended: false,
            })),
            Coding::Zstd => Zstd::new().map_or(Stage::Broken, |zstd| Stage::Zstd(Box::new(zstd))),
        };
        Self {
            coding,
            input: Bytes::new(),
            stage,
            began: false,
        }
    }

    /// Takes what comes next. What came before must have been pulled.
    pub(super) fn feed(&mut self, data: Bytes) {
        self.began |= !data.is_empty();
        if self.input.is_empty() {
            self.input = data;
        } else {
            self.input = [&self.input[..], &data[..]].concat().into();
        }
    }

    /// The next piece; `None` when more input is needed for it.
    pub(super) fn pull(&mut self) -> Result<Option<Bytes>, Corrupt> {
        let corrupt = Corrupt {
            coding: self.coding,
        };
        loop {
            let piece = match &mut self.stage {
                Stage::Deflate => {
                    let Some(&[first, second]) = self.input.get(..2) else {
                        return Ok(None);
                    };
                    self.stage = Stage::Flate(if is_zlib([first, second]) {
                        Box::new(ZlibDecoder::new(Vec::new()))
                    } else {
                        Box::new(DeflateDecoder::new(Vec::new()))
                    });
                    continue;
                }
                Stage::Flate(flate) => {
                    if self.input.is_empty() {
                        return Ok(None);
                    }
                    let stride = self.input.split_to(STRIDE.min(self.input.len()));
                    flate
                        .write_all(&stride)
                        .and_then(|()| flate.flush())
                        .map_err(|_corrupt: std::io::Error| corrupt.clone())?;
                    std::mem::take(flate.output())
                }
                Stage::Brotli(brotli) => match brotli.pull(&mut self.input) {
                    None => return Err(corrupt),
                    Some(piece) if piece.is_empty() => return Ok(None),
                    Some(piece) => piece,
                },
                Stage::Broken => return Err(corrupt),
                Stage::Zstd(zstd) => {
                    if self.input.is_empty() && !zstd.has_more() {
                        return Ok(None);
                    }
                    zstd.pull(&mut self.input)
                        .map_err(|_corrupt: std::io::Error| corrupt.clone())?
                }
            };
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
    }

    /// Nothing follows: was it whole? Gives what the coding had kept to itself until now.
    pub(super) fn finish(&mut self) -> Result<Bytes, Corrupt> {
        if !self.began {
            return Ok(Bytes::new());
        }
        let corrupt = Corrupt {
            coding: self.coding,
        };
        match &mut self.stage {
            Stage::Flate(flate) => {
                flate.end().map_err(|_cut_short: std::io::Error| corrupt)?;
                Ok(std::mem::take(flate.output()).into())
            }
            Stage::Brotli(brotli) if brotli.ended => Ok(Bytes::new()),
            Stage::Zstd(zstd) if zstd.has_ended() => Ok(Bytes::new()),
            Stage::Deflate | Stage::Brotli(_) | Stage::Zstd(_) | Stage::Broken => Err(corrupt),
        }
    }

    /// Has nothing come yet?
    pub(super) fn is_fresh(&self) -> bool {
        !self.began
    }
}

impl Brotli {
    /// `None` if it is corrupt, nothing if more is needed.
    fn pull(&mut self, input: &mut Bytes) -> Option<Vec<u8>> {
        if self.ended {
            return input.is_empty().then(Vec::new);
        }
        let mut out = vec![0; PIECE];
        let (mut available_in, mut offset_in) = (input.len(), 0);
        let (mut available_out, mut offset_out, mut total) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut available_in,
            &mut offset_in,
            input,
            &mut available_out,
            &mut offset_out,
            &mut out,
            &mut total,
            &mut self.state,
        );
        input.advance(offset_in);
        out.truncate(offset_out);
        match result {
            BrotliResult::ResultFailure => return None,
            BrotliResult::ResultSuccess => self.ended = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Some(out)
    }
}

//! What a call to an AI provider was: which operation, which model, how many tokens. Read from the bytes that pass by, in
//! constant memory, without holding up or changing one of them.
//!
//! It refuses to know connections, policy and telemetry: it is fed chunks and gives back values. A body that it does not
//! understand yields less, never an error: what passes has been decided elsewhere.
//!
//! In reading order: [`json`] and [`sse`] take the two formats apart, `decode` undoes content codings, `shape` says where
//! each provider puts what, [`usage`] reads responses, [`request`] reads requests and paths.

mod decode;
pub mod json;
pub mod request;
mod shape;
pub mod sse;
pub mod usage;

pub use decode::MAX_DECODED;
pub use request::{Operation, RequestTap, operation};
pub use usage::{ResponseTap, Usage};

#[cfg(test)]
mod tests;

pub(crate) use decode::{Decoder, Flate, is_zlib};

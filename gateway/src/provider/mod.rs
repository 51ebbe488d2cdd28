//! What a call to an AI provider was: which operation, which model, how many tokens. Read from the bytes that pass by, in
//! constant memory, without holding up or changing one of them.
//!
//! It refuses to know connections, policy and telemetry: it is fed chunks and gives back values. A body that it does not
//! understand yields less, never an error: what passes has been decided elsewhere.
//!
//! In reading order: [`json`], [`sse`] and [`eventstream`] take the formats apart, `decode` undoes content codings, `shape` says where
//! each provider puts what, [`usage`] reads responses, `estimate` those that do not count, [`mod@operation`] paths, [`request`] requests.

mod decode;
mod estimate;
pub mod eventstream;
pub mod json;
pub mod operation;
mod refusal;
pub mod request;
mod shape;
pub mod sse;
pub mod usage;

pub use decode::MAX_DECODED;
pub use estimate::says_all;
pub use operation::{Naming, Operation, asks_for_no_work, naming, operation};
pub use refusal::end_of_stream;
pub use request::{RequestTap, Unclear};
pub use usage::{ResponseTap, Usage};

#[cfg(test)]
mod tests;

pub(crate) use decode::{Decoder, Flate, Zstd, is_zlib};

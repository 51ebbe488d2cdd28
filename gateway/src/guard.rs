//! HTTP/1.x framing, checked byte by byte before the HTTP library sees it, and HTTP/2's after. A gateway stands between two
//! parsers: what they could read in two ways is refused here, not repaired.
//!
//! Pure and incremental: slices in, positions out, nothing allocated but what a message's known fields
//! need. It refuses to know what a message means: hosts, policy, credentials.

mod body;
mod delivered;
mod fields;
mod frames;
mod held;
mod patience;
mod progress;
mod request;
mod response;
mod target;
mod violation;

pub use delivered::{delivered, drop_head_fields};
pub use frames::{FrameWatch, Refusal};
pub use held::Held;
pub use patience::Patience;
pub use progress::Progress;
pub use request::RequestGuard;
pub use response::{Exchange, MAX_HEAD, ResponseGuard};
pub use violation::Violation;

/// What a guard made of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// How many bytes of the slice belong to the message under way and are as they should be. Fewer than
    /// there were: a message ends there.
    pub taken: usize,
    /// Where in the message that is.
    pub at: Position,
}

/// Where a guard stands after the bytes it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Between messages: the last byte taken was the last of its message.
    Between,
    /// In a head that is not whole yet: none of it may be passed on.
    InHead,
    /// In a body or its trailers.
    InBody,
}

/// Steps through `bytes` until a message ends: `step` says how many it took, and whether that was it.
fn take_steps(
    bytes: &[u8],
    mut step: impl FnMut(&[u8]) -> Result<(usize, bool), Violation>,
) -> Result<usize, Violation> {
    let mut at = 0;
    while at < bytes.len() {
        let (taken, ended) = step(bytes.get(at..).unwrap_or_default())?;
        at += taken;
        if ended {
            break;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests;

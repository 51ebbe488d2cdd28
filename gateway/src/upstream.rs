//! The gateway's side towards the world: resolves, guards, connects, verifies, pools. Dials nothing
//! without a [`Permit`], and dials what the permit names, never a name derived again.

mod client;
mod collector;
mod connect;
mod direct;
mod guarded;
mod handshake;
mod pool;
mod replay;
mod resolve;
mod verify;

pub use client::{Answer, RequestBody, Scheme, Upstream, Verb};
pub use collector::Collector;
pub use direct::{Direct, Form};
pub use pool::PooledBody;
pub use resolve::{NameError, Resolver};
pub use verify::{IdentityError, TrustError, Verifier};

use crate::outcome::DenyReason;
use crate::policy::{Host, Permit};

/// How much is looked up for one sandbox, whoever asks: it by a question, or the gateway that dials for it. A
/// name that policy allows still carries itself out, to whoever serves the zone.
pub trait Ration: Send + Sync {
    /// May this name be looked up to dial it? One that was looked up lately costs nothing.
    ///
    /// # Errors
    /// Which limit it is beyond.
    fn spend(&self, host: &Host) -> Result<(), DenyReason>;
}

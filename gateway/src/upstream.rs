//! The gateway's side towards the world: resolves, guards, connects, verifies, pools. Dials nothing
//! without a [`Permit`], and dials what the permit names, never a name derived again.

mod client;
mod collector;
mod connect;
mod direct;
mod guarded;
mod pool;
mod resolve;
mod verify;

pub use client::{Answer, RequestBody, Scheme, Upstream, Verb};
pub use collector::Collector;
pub use direct::Direct;
pub use pool::PooledBody;
pub use resolve::{NameError, Resolver};
pub use verify::{IdentityError, TrustError, Verifier};

use crate::policy::Permit;

//! The only place that names aya: loads the cgroup programs, attaches them, writes their maps, reads
//! their events and finds the record of a redirected connection. Knows no names, policy or HTTP.

mod attach;
mod error;
mod events;
mod flow;
mod handover;
mod lsm;
mod maps;
mod numbers;
mod pins;
mod programs;
mod tables;
mod types;

pub use attach::{Attachment, SandboxId};
pub use error::KernelError;
pub use events::{Refusal, RefusalReason};
pub use flow::{FlowTable, Origin};
pub use lsm::active_modules;
pub use pins::Pins;
pub use programs::{Kernel, Protections};
pub use tables::Usage;

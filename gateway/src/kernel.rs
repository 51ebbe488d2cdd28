//! The only place that names aya: loads the cgroup programs, attaches them, writes their maps, reads
//! their events and finds the record of a redirected connection. Knows no names, policy or HTTP.

mod events;
mod flow;
mod maps;
mod pins;
mod programs;

pub use events::{Refusal, RefusalReason};
pub use flow::{FlowTable, Origin};
pub use pins::Pins;
pub use programs::{Attachment, Kernel, KernelError, SandboxId};

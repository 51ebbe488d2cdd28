//! Marks the shared values as plain data for aya.
#![expect(
    unsafe_code,
    reason = "aya::Pod is the promise that a type is plain data"
)]
use super::{
    Allowance, Executable, Flow, Image, ListenerKey, Listeners, PortKey, PortSet, RuleKey,
    SandboxCounters, Settings, SocketFields, TaskFields,
};

// SAFETY: `#[repr(C)]`, `Copy`, made of integers alone, no padding holes: any bytes are a valid
// value and every byte is initialised.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
unsafe impl aya::Pod for ListenerKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Listeners {}
// SAFETY: as above.
unsafe impl aya::Pod for PortKey {}
// SAFETY: as above.
unsafe impl aya::Pod for RuleKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PortSet {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for Allowance {}
// SAFETY: as above.
unsafe impl aya::Pod for SandboxCounters {}
// SAFETY: as above.
unsafe impl aya::Pod for Executable {}
// SAFETY: as above.
unsafe impl aya::Pod for Image {}
// SAFETY: as above.
unsafe impl aya::Pod for TaskFields {}
// SAFETY: as above.
unsafe impl aya::Pod for SocketFields {}

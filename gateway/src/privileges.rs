//! The gateway's defence against what may one day run in it: before it meets its first peer it gives up
//! whatever it will not need. Each layer is taken by itself, and what could not be taken is said. Knows
//! nothing of sandboxes, whose cage is [`crate::sandbox`]'s.

mod calls;
mod capabilities;
mod files;

pub use files::Files;

use caps::Capability;
use serde::{Deserialize, Serialize};
use std::io;

/// What a process keeps.
#[derive(Clone, Debug)]
pub struct Confinement {
    capabilities: Vec<Capability>,
    files: Option<Files>,
    calls: calls::Needs,
}

impl Confinement {
    /// The daemon: attaches programs, enters network namespaces, talks to the network, and reaches the
    /// files named.
    pub fn gateway(files: Files) -> Self {
        let mut capabilities = vec![
            // Maps are written at each reload and attach, links made at each attach.
            Capability::CAP_BPF,
            // Attaching programs of the cgroup socket hooks.
            Capability::CAP_NET_ADMIN,
            // Without it the verifier takes pointer comparisons for leaks, and no LSM program.
            Capability::CAP_PERFMON,
            // setns() into a sandbox's network namespace asks for this one; what else it would give
            // is what the other two layers take away.
            Capability::CAP_SYS_ADMIN,
        ];
        capabilities.extend(files.overrides());
        Self {
            capabilities,
            files: Some(files),
            calls: calls::Needs::Gateway,
        }
    }

    /// [`crate::sandbox::namespaces::Finder`]'s process, which looks into other people's `/proc/PID/ns` and
    /// therefore can have no Landlock domain (which would hide processes outside of it), opens nothing else,
    /// and talks to its parent alone.
    pub fn finder() -> Self {
        Self {
            capabilities: vec![Capability::CAP_SYS_PTRACE],
            files: None,
            calls: calls::Needs::Finder,
        }
    }
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One after the other, in the order in which they were taken.
    pub layers: Vec<Layer>,
}

/// One protection, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name, such as `landlock`.
    pub name: String,
    /// In force as meant.
    pub active: bool,
    /// What it consists of, or why it is not in force.
    pub detail: String,
}

/// Why nothing was confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Capabilities and Landlock are each thread's own: those that exist already would keep theirs.
    #[error("this process has {0} threads already; confine it before the runtime starts")]
    Threads(usize),
    /// `/proc` is not there to be asked.
    #[error("cannot count this process's threads: {0}")]
    Unknown(#[source] io::Error),
}

/// Confines this process for good, with every thread and process that it will start. Must be called while
/// it has one thread, and after everything that needs more: bpffs mounted, helpers started, limits raised.
///
/// # Errors
/// [`ConfineError`]: nothing was changed. A layer that this kernel lacks is no error but a line of the report.
pub fn confine(confinement: &Confinement) -> Result<Report, ConfineError> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => {}
        Ok(threads) => return Err(ConfineError::Threads(threads)),
        Err(error) => return Err(ConfineError::Unknown(error)),
    }
    // Each needs something that the next ones take: Landlock and the filter the flag, rules for files the
    // right to reach them, capabilities the calls that drop them.
    let mut layers = vec![layer("no-new-privileges", no_new_privileges())];
    if let Some(files) = &confinement.files {
        layers.push(layer("landlock", files::restrict(files)));
    }
    let kept = capabilities::keep(&confinement.capabilities);
    layers.push(layer("capabilities", kept));
    layers.push(layer("seccomp", calls::filter(confinement.calls)));
    Ok(Report { layers })
}

/// What is in force, or why it is not.
type Taken = Result<String, String>;

fn layer(name: &str, taken: Taken) -> Layer {
    let (active, detail) = match taken {
        Ok(detail) => (true, detail),
        Err(reason) => (false, reason),
    };
    if !active {
        tracing::warn!(name, detail, "protection not in force");
    }
    Layer {
        name: name.to_owned(),
        active,
        detail,
    }
}

fn no_new_privileges() -> Taken {
    match nix::sys::prctl::set_no_new_privs() {
        Ok(()) => Ok("set-user-id programs give nothing".to_owned()),
        Err(error) => Err(error.desc().to_owned()),
    }
}

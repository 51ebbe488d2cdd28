//! Everything that can go wrong between the gateway and the kernel, in words that say what to do next.
//! Knows no policy.

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use std::io;
use tracing::debug;

/// What can go wrong between the gateway and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object could not be loaded.
    #[error(
        "the kernel did not take the eBPF object: {0}. `postern` needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 6.1 or later with cgroup v2; `postern doctor` says what is missing"
    )]
    Load(#[source] Box<EbpfError>),
    /// A program is not in the object, or was refused by the verifier.
    #[error("the kernel does not take the program {name}: {}", brief(refusal))]
    Program {
        /// The program's name in the object.
        name: &'static str,
        /// What aya or the verifier said. No source of this error: it would be told with its thousands of lines.
        refusal: Box<ProgramError>,
    },
    /// A map or program that the object should have.
    #[error("the eBPF object has no {0}; rebuild the gateway")]
    Missing(&'static str),
    /// A map could not be read or written.
    #[error("map {name}: {source}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// The programs could not be attached.
    #[error("cannot attach {name} to the cgroup: {source}")]
    Attach {
        /// The program's name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The programs could not be told that this process lives.
    #[error(
        "cannot mark the gateway alive for the programs: {0}. It needs a kernel with CONFIG_FUTEX; in a container, a seccomp profile that permits set_robust_list"
    )]
    Alive(#[source] io::Error),
    /// Numbers are never used twice, and all have been used.
    #[error(
        "all {0} numbers have been used since the machine was started; restart it, or detach everything and remove /sys/fs/bpf/postern"
    )]
    Exhausted(&'static str),
    /// Another daemon has the pinned maps in its hands.
    #[error("another `postern run` is in charge on this machine ({0} is locked); end it first")]
    InCharge(String),
    /// Something on the bpffs could not be read or written.
    #[error("{path}: {source}")]
    Pins {
        /// What was touched.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A descriptor could not be copied or watched.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A verifier log is thousands of lines of which the last few say what was wrong; the whole of it
/// goes to the debug log.
fn brief(error: &ProgramError) -> String {
    let text = error.to_string();
    debug!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [first, .., a, b, c, d] => {
            let first = first.split("Verifier output").next().unwrap_or(first);
            format!("{first}… {a}; {b}; {c}; {d}")
        }
        _ => text,
    }
}

pub(super) fn map_error(name: &'static str, source: MapError) -> KernelError {
    KernelError::Map {
        name,
        source: Box::new(source),
    }
}

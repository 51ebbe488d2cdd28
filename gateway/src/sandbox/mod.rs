//! The cage of `postern exec`: a command, possibly hostile, possibly root, in namespaces and a cgroup of
//! its own, whose only way to the network is the gateway.
//!
//! # What is guaranteed
//!
//! - Every process of the sandbox is in its cgroup from birth, and cannot leave: no cgroup file
//!   system is writable inside, none can be mounted, no process outside is visible.
//! - Nothing written inside lasts but in the folder the command was started in (and those named): the
//!   rest is read-only, `/tmp` and the home directory are layers that vanish. `/run`, and with it the
//!   sockets of Docker, D-Bus, systemd and their like, is private.
//! - Policy, secrets and state are hidden under every name that a mount gives them.
//! - The command has no capability over any namespace it is in; set-user-id programs give it
//!   none; hardware, the kernel's settings and log, keyrings, eBPF, io_uring, and sockets other than
//!   Unix, TCP, UDP and netlink ones are out of reach.
//! - It leaves no set-user-id or set-group-id file behind, and as root no file with capabilities. (The price:
//!   `chmod g+s` fails on folders too, and root has no extended attributes.)
//! - Whatever becomes of the gateway, the sandbox dies with it (parent-death signal, and the
//!   [`janitor`], which also cleans up).
//! - A step that fails is a refusal to start.
//!
//! # What is not
//!
//! - Secrecy of the host's files: what the identity may read on the host it may read inside, but
//!   for the masks. Run the command as a user who may not read them (`--user`).
//! - Trust in the work folder afterwards: hooks, build scripts and configuration written there run with your
//!   rights when *you* run them.
//! - Named pipes of the host outside those places can be opened, files locked, folders watched, as far as the
//!   identity may.
//! - Unix sockets of the host that appear outside `/run`, `/tmp` and the home directory after the
//!   start, or that belong to another network namespace, can be connected to, as far as the identity
//!   may. Abstract ones are out of reach in a private network only.
//! - Hidden single *files* come into view if the host replaces them by rename: hide folders. Hard
//!   links and copies of hidden files are not found.
//! - The terminal, and whatever else the caller passes as standard streams: a file passed so can be
//!   reopened with the rights of the identity.
//! - A bug in the kernel, side channels, and use of memory, processors and disk beyond what limits on the
//!   caller's own cgroup allow.
//!
//! # In order
//!
//! [`Janitor::spawn`] → [`Cgroup::create_child`] → [`Init::spawn`] → the gateway's programs and listeners
//! → [`Init::start`] → [`Running::supervise`] → [`Janitor::finish`].

pub mod bindings;
pub mod cgroup;
pub mod environment;
mod helper;
pub mod identity;
pub mod init;
pub mod janitor;
pub mod locate;
pub mod mountinfo;
pub mod namespaces;
pub mod netns;
pub mod plan;
pub mod risks;
pub mod spawn;
pub mod terminal;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;

pub use cgroup::{Cgroup, CgroupError};
pub use identity::{Account, Identity, IdentityError, Keep};
pub use janitor::Janitor;
pub use netns::NetNs;
pub use plan::{Event, Plan, TrustPlan};
pub use spawn::{Init, Network, Outcome, Running, SpawnError};

//! What is said over the admin socket, as plain data. Knows neither sockets nor what becomes of it.

use crate::privileges::Layer;
use crate::sandbox::locate::{Hierarchy, LocateError, Located, Target};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// The only version there is. A question of another version is refused, whatever it asks.
pub const VERSION: u32 = 1;

/// A question, as it stands on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question<T> {
    pub(super) version: u32,
    pub(super) request: T,
}

/// An answer, as it stands on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer<T> {
    pub(super) version: u32,
    pub(super) response: T,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Make a cgroup a sandbox.
    Attach(AttachRequest),
    /// Let go of one.
    Detach {
        /// Of which.
        which: Which,
    },
    /// Let go of all.
    DetachAll,
    /// How things stand.
    Status,
    /// Records as they are made, from now on.
    Tail(TailRequest),
}

/// Which cgroup is to be attached, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Its path below the mount.
    pub cgroup: String,
    /// The kernel's id of it, as who asks sees it: the daemon attaches this one or none.
    pub cgroup_id: u64,
    /// The gateway that it is to belong to.
    pub gateway: String,
    /// What records call it; its path if there is none.
    pub label: Option<String>,
    /// How it was named (`process 12`, `unit agent.service`), for `status`.
    pub origin: String,
}

impl AttachRequest {
    /// Finds the cgroup and makes sure that it may be a sandbox beside those that are attached (paths
    /// below the mount).
    ///
    /// # Errors
    /// [`Failure`]: not there, another than was meant, or one that cannot be attached.
    pub fn locate<'a>(
        &self,
        hierarchy: &Hierarchy,
        attached: impl IntoIterator<Item = &'a str>,
    ) -> Result<Located, Failure> {
        let target = Target::Cgroup(hierarchy.mount().join(self.cgroup.trim_start_matches('/')));
        let located = hierarchy.locate(&target).map_err(Failure::from)?;
        if located.id != self.cgroup_id {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!(
                    "{} is another cgroup for the daemon than for you: it was removed and made again, or you are in another cgroup namespace; try again beside the daemon",
                    self.cgroup
                ),
            ));
        }
        hierarchy.admit(&located, attached)?;
        Ok(located)
    }
}

/// Which sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// By its cgroup's path below the mount.
    Cgroup(String),
    /// By its number in `status`.
    Id(u32),
}

impl Which {
    /// Is it this one?
    pub fn is(&self, sandbox: &SandboxInfo) -> bool {
        match self {
            Self::Cgroup(path) => *path == sandbox.cgroup,
            Self::Id(id) => *id == sandbox.id,
        }
    }
}

/// Which records are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailRequest {
    /// Denials alone.
    #[serde(default)]
    pub denied: bool,
    /// Of one sandbox: its number, cgroup or label.
    #[serde(default)]
    pub sandbox: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// It is attached.
    Attached {
        /// As it is now.
        sandbox: SandboxInfo,
    },
    /// These were let go of.
    Detached {
        /// As they were.
        sandboxes: Vec<SandboxInfo>,
    },
    /// How things stand.
    Status {
        /// Now.
        status: Box<Status>,
    },
    /// [`Streamed`] lines follow.
    Tailing,
    /// Nothing was done.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// A line after [`Response::Tailing`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streamed {
    /// An audit record, as the log has it.
    Record(serde_json::Value),
    /// Who listens is too slow: so many records were not sent, and none will be.
    Lagged(u64),
    /// No more will come, and why.
    Ended(String),
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// For people, with what to do next.
    pub message: String,
}

/// Kinds of failure, which the command line's exit status tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no such cgroup, sandbox or gateway, or it is not clear which is meant.
    NotFound,
    /// It exists and is not to be had.
    Refused,
    /// The daemon does not understand the question.
    BadRequest,
    /// The daemon could not.
    Failed,
}

impl Failure {
    /// A failure.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl From<LocateError> for Failure {
    fn from(error: LocateError) -> Self {
        let kind = match error {
            LocateError::NotFound { .. }
            | LocateError::Ambiguous { .. }
            | LocateError::NotAnId(_)
            | LocateError::NoProcess(_)
            | LocateError::Outside { .. } => FailureKind::NotFound,
            LocateError::Root { .. }
            | LocateError::Own { .. }
            | LocateError::Already { .. }
            | LocateError::Inside { .. }
            | LocateError::Above { .. }
            | LocateError::NotText(_) => FailureKind::Refused,
            LocateError::NoHierarchy | LocateError::Io { .. } => FailureKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's own version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, seconds since 1970.
    pub started: u64,
    /// For how long it has been running, seconds by a clock that nobody sets.
    pub uptime: u64,
    /// The policy folder.
    pub policy: String,
    /// The policy's generation.
    pub generation: u64,
    /// How many changes of the policy were not taken since the start.
    pub reload_failures: u64,
    /// Why the last change was not taken; absent once one was.
    pub reload_error: Option<String>,
    /// When that was, seconds since 1970.
    #[serde(default)]
    pub reload_failed_at: Option<u64>,
    /// It takes no more connections.
    pub draining: bool,
    /// Denials that were too many to record each.
    pub denials_not_recorded: u64,
    /// Of the policy.
    pub gateways: Vec<GatewayInfo>,
    /// Attached now.
    pub sandboxes: Vec<SandboxInfo>,
    /// What guards the sandboxes and the gateway itself.
    pub protections: Vec<Layer>,
}

/// One gateway of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// Its name.
    pub name: String,
    /// What keeps part of it from working, such as a missing secret.
    pub problems: Vec<String>,
}

/// One sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// The daemon's number for it.
    pub id: u32,
    /// Its cgroup's path below the mount.
    pub cgroup: String,
    /// The kernel's id of the cgroup.
    pub cgroup_id: u64,
    /// Its gateway.
    pub gateway: String,
    /// What records call it.
    pub label: String,
    /// How it came to be attached: `process 12`, `binding agents`, `--attach`.
    pub origin: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// It reaches what its policy allows; otherwise nothing.
    pub open: bool,
    /// The policy's generation that is in force for it.
    pub generation: u64,
    /// Connections open now.
    pub connections: u64,
    /// Connections that the kernel sent to the gateway so far.
    pub redirected: u64,
    /// What the kernel and the gateway refused so far, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Where the gateway listens for it.
    pub namespaces: Vec<NamespaceInfo>,
}

impl SandboxInfo {
    /// All that was refused so far.
    pub fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

impl Display for SandboxInfo {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} (sandbox {})", self.cgroup, self.id)
    }
}

/// A network namespace in which the gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// The kernel's number for it.
    pub cookie: u64,
    /// It is not the host's.
    pub private: bool,
    /// Ports on 127.0.0.1, for connections and for DNS.
    pub v4: Option<(u16, u16)>,
    /// Ports on `::1`, the same; absent in a namespace without IPv6.
    pub v6: Option<(u16, u16)>,
}

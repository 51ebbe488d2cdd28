//! The daemon's admin socket: who may ask it what, how questions and answers are written, and both ends of
//! the conversation. What a question means is [`Control`]'s; nothing is attached or counted here.
//!
//! One JSON object a line, either way. A question is `{"version":1,"request":{"op":…}}`, its answer
//! `{"version":1,"response":{"result":…}}`; several may follow one another. After `tail` the connection
//! carries [`Streamed`] lines until either side closes it.

mod client;
mod peer;
mod protocol;
mod server;
mod socket;

pub use client::{Client, ClientError, Tail};
pub use peer::Peer;
pub use protocol::{
    AttachRequest, Failure, FailureKind, GatewayInfo, NamespaceInfo, Request, Response,
    SandboxInfo, Status, Streamed, TailRequest, VERSION, Which,
};
pub use server::Server;
pub use socket::BindError;

use crate::sandbox::locate::Located;
use std::io;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Where the daemon listens unless told otherwise (FHS 3.0 §3.15).
pub const DEFAULT_SOCKET: &str = "/run/postern/admin.sock";
/// The longest question, bytes: some paths, a name and a label.
pub const LONGEST_REQUEST: usize = 64 * 1024;
/// The longest answer, bytes: the status of ten thousand sandboxes.
pub const LONGEST_RESPONSE: usize = 16 * 1024 * 1024;

/// What the daemon does when it is asked. Each is called on a task of its own and runs to its end, whatever
/// becomes of who asked. What changes something says [`Peer::check`] once more when nothing can be attached
/// meanwhile: who asks may wait for its own cgroup to be attached.
pub trait Control: Send + Sync + 'static {
    /// Attaches a cgroup. See [`AttachRequest::locate`], which refuses what cannot be a sandbox.
    ///
    /// # Errors
    /// [`Failure`], said to who asked.
    fn attach(
        &self,
        request: AttachRequest,
        by: &Peer,
    ) -> impl Future<Output = Result<SandboxInfo, Failure>> + Send;

    /// Lets go of a sandbox: its processes reach the network freely afterwards.
    ///
    /// # Errors
    /// [`Failure`]; of kind [`FailureKind::NotFound`] if there is none such.
    fn detach(
        &self,
        which: Which,
        by: &Peer,
    ) -> impl Future<Output = Result<SandboxInfo, Failure>> + Send;

    /// Lets go of all sandboxes, and of what an earlier daemon left pinned. Returns those let go of.
    ///
    /// # Errors
    /// [`Failure`] at the first that could not be let go of.
    fn detach_all(
        &self,
        by: &Peer,
    ) -> impl Future<Output = Result<Vec<SandboxInfo>, Failure>> + Send;

    /// How things stand.
    fn status(&self) -> impl Future<Output = Status> + Send;

    /// Audit records from now on, one JSON object each, without the line's end.
    fn subscribe(&self) -> broadcast::Receiver<Arc<str>>;

    /// Is this cgroup an attached one, one that an earlier daemon left shut, or inside of one? Its processes
    /// are not listened to, root or not.
    ///
    /// # Errors
    /// If what was left shut cannot be looked at.
    fn is_sandboxed(&self, cgroup: &Located) -> io::Result<bool>;
}

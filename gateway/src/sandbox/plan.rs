//! What the gateway tells the sandbox's first process to build and run, and what that process
//! tells back: plain values and their framing. No behaviour beyond that.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identity::Identity;

/// The longest message either side accepts: a full environment and argument list (2 MiB by
/// execve's default) written as JSON numbers.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Exit status when the sandbox could not be made, as `docker run` and `env` have it.
pub const STATUS_REFUSED: u8 = 125;
/// Exit status when the command was found but could not be executed (POSIX shell).
pub const STATUS_NOT_EXECUTABLE: u8 = 126;
/// Exit status when the command was not found (POSIX shell).
pub const STATUS_NOT_FOUND: u8 = 127;

/// The sandbox to build and the command to run in it. All paths are the host's, absolute and
/// in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The command and its arguments; not empty. Looked up in `PATH` of `environment` if it has no slash.
    pub command: Vec<OsString>,
    /// The command's whole environment; see [`super::environment::build`].
    pub environment: Vec<(OsString, OsString)>,
    /// The folder the command starts in, and the one that it may write to for good. Where
    /// that would hand over the host it stays ephemeral or read-only, with a warning: `/`, a home
    /// directory itself, `/tmp` itself, system directories.
    pub cwd: PathBuf,
    /// More files and folders writable for good.
    pub writable: Vec<PathBuf>,
    /// Files and folders hidden under every name they have: policy, secrets, state. They must
    /// exist; none may contain `cwd` or a writable path.
    pub masks: Vec<PathBuf>,
    /// Whom the command runs as.
    pub identity: Identity,
    /// The CA material, if any.
    pub trust: Option<TrustPlan>,
    /// A file to stand in for `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// Where the trust directory ([`super::trust::build`]) is and where it shall appear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustPlan {
    pub source: PathBuf,
    /// Below `/run`, which is empty but for this.
    pub target: PathBuf,
}

/// From the gateway to the init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    Start(Box<Start>),
    /// Send the signal to the command's process group.
    Signal(i32),
    /// Resume the command's process group, as the terminal's foreground group if asked.
    Resume {
        foreground: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) plan: Plan,
    /// Make the command's process group the foreground one of the controlling terminal.
    pub(super) foreground: bool,
    /// Paths of the host's Unix sockets, to be covered where they would be visible.
    pub(super) host_sockets: Vec<PathBuf>,
    /// The network namespace is the gateway's. One of its own cannot be told by looking: modules put tunnels in it.
    pub(super) shares_network: bool,
}

/// From the init to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Something in the sandbox is less than was asked for; said before `Started`.
    Warning(String),
    /// The command is running.
    Started,
    /// There is no sandbox, or no command in it: exit with `status`.
    Failed { status: u8, message: String },
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The command goes on.
    Continued,
    /// The command ended with this code. The last event.
    Exited(i32),
    /// The command was killed by this signal. The last event.
    Signaled(i32),
}

/// A message and its length (four bytes, big-endian) before it.
///
/// # Errors
/// `InvalidInput` for a path that is not UTF-8 or a message beyond [`MAX_MESSAGE`].
pub(super) fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_MESSAGE)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok([&length.to_be_bytes(), &body[..]].concat())
}

/// How long the message behind this prefix is.
///
/// # Errors
/// `InvalidData` if it is longer than [`MAX_MESSAGE`].
pub(super) fn length(prefix: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_be_bytes(prefix))
        .ok()
        .filter(|&length| length <= MAX_MESSAGE)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads one message, blocking. `None` if the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    let mut body = vec![0; length(prefix)?];
    stream.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Writes one message, blocking.
pub(super) fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame(message)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_start_survives_the_wire_with_bytes_that_are_not_text() {
        let odd = OsString::from_vec(vec![b'a', 0xFF, b'=']);
        let order = Order::Start(Box::new(Start {
            plan: Plan {
                command: vec!["sh".into(), odd.clone()],
                environment: vec![("A".into(), odd)],
                cwd: "/work".into(),
                writable: vec![],
                masks: vec!["/etc/postern".into()],
                identity: Identity::namespace_root(),
                trust: None,
                resolv_conf: None,
            },
            foreground: true,
            host_sockets: vec![],
            shares_network: false,
        }));
        let wire = frame(&order).unwrap();
        assert_eq!(receive(&mut &wire[..]).unwrap(), Some(order));
    }

    #[test]
    fn the_other_sides_end_is_no_error_and_half_a_message_is() {
        assert_eq!(receive::<Event>(&mut &[][..]).unwrap(), None);
        let wire = frame(&Event::Started).unwrap();
        assert!(receive::<Event>(&mut &wire[..wire.len() - 1]).is_err());
    }

    #[test]
    fn the_length_is_bounded_on_both_sides() {
        let most = u32::try_from(MAX_MESSAGE).unwrap();
        assert!(length(most.to_be_bytes()).is_ok());
        assert!(length((most + 1).to_be_bytes()).is_err());
        assert!(frame(&"x".repeat(MAX_MESSAGE)).is_err());
    }
}

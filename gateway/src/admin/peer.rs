//! Who is at the other end of the admin socket, and where that process is now. Knows nothing of what it asks.

use super::{Control, Failure, FailureKind};
use crate::sandbox::locate::{Hierarchy, Located};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::net::UnixStream;

/// The process that connected, whoever writes to the connection by now.
#[derive(Debug)]
pub struct Peer {
    pid: u32,
    /// Tells this process from a later one of the same number. Linux 6.5 has it (`SO_PEERPIDFD`); before
    /// that, where the process is gone and its number given to another, the other's place is looked at.
    handle: Option<OwnedFd>,
    hierarchy: Arc<Hierarchy>,
}

impl Peer {
    /// Root or this process's own user.
    ///
    /// # Errors
    /// [`FailureKind::Refused`]: another user, or a process that this one cannot see.
    pub(super) fn of(stream: &UnixStream, hierarchy: Arc<Hierarchy>) -> Result<Self, Failure> {
        let peer = stream
            .peer_cred()
            .map_err(|error| refused(format!("cannot tell who you are: {error}")))?;
        let own = nix::unistd::geteuid().as_raw();
        if peer.uid() != 0 && peer.uid() != own {
            return Err(refused(format!(
                "user {} may not talk to the daemon; only root may (and user {own})",
                peer.uid()
            )));
        }
        // 0 or absent: a process that this one cannot see, hence not tell where it is.
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        let Some(pid) = pid.filter(|&pid| pid != 0) else {
            return Err(refused(
                "cannot see your process: ask from the daemon's own pid namespace".to_owned(),
            ));
        };
        let handle = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(handle) => Some(handle),
            Err(Errno::ENOPROTOOPT) => None,
            // Gone already, and its number perhaps another's.
            Err(error) => return Err(refused(format!("cannot tell who you are: {error}"))),
        };
        Ok(Self {
            pid,
            handle,
            hierarchy,
        })
    }

    /// May it be listened to: is it outside of all sandboxes? One that is root inside is root by number. Asked
    /// for each question, as its cgroup may have become a sandbox since the last.
    ///
    /// # Errors
    /// [`FailureKind::Refused`] if it is in one or is gone; what looking says where that fails.
    pub fn check(&self, control: &impl Control) -> Result<(), Failure> {
        let located = self.located()?;
        let is_sandboxed = control.is_sandboxed(&located).map_err(|error| {
            refused(format!("cannot tell whether you are in a sandbox: {error}"))
        })?;
        if is_sandboxed {
            return Err(refused(
                "processes of a sandbox may not talk to the daemon".to_owned(),
            ));
        }
        Ok(())
    }

    fn located(&self) -> Result<Located, Failure> {
        let located = self.hierarchy.of_pid(self.pid)?;
        // Its number is its own until it has ended: what was read before that is its own too.
        if let Some(handle) = &self.handle {
            let mut ended = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            let count = poll(&mut ended, PollTimeout::ZERO)
                .map_err(|error| refused(format!("cannot tell where you are: {error}")))?;
            if count > 0 {
                return Err(refused(
                    "the process that connected has ended; connect again".to_owned(),
                ));
            }
        }
        Ok(located)
    }
}

fn refused(message: String) -> Failure {
    Failure::new(FailureKind::Refused, message)
}

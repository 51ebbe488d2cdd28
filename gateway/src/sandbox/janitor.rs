//! The janitor: a process outside the sandbox that cleans up once the gateway is gone, however it
//! went. A second process is the only thing that survives `kill -9` of the first.
//!
//! It knows paths to remove, cgroups to kill and descriptors to keep open, nothing else; in
//! particular no policy and no secret. Both the normal and the violent end use this one path.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};

use nix::mount::{MntFlags, umount2};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, send, sendmsg};
use serde::{Deserialize, Serialize};

use super::{cgroup, helper};
use crate::sys;

/// The hidden subcommand by which the binary runs as its own janitor.
pub const SUBCOMMAND: &str = "janitor";
/// The longest order: two paths of PATH_MAX (4096) bytes fit, escaped as JSON.
const MAX_ORDER: usize = 16 * 1024;
/// Descriptors in one message (the kernel's own limit, SCM_MAX_FD, is 253).
const MAX_FDS: usize = 64;
/// What the janitor answers once it has taken note.
const NOTED: &[u8] = b"ok";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Ready,
    Cgroup(PathBuf),
    Directory(PathBuf),
    Hold,
}

/// The parent's end. Dropping it starts the clean-up without waiting for it.
#[derive(Debug)]
pub struct Janitor {
    socket: OwnedFd,
    process: Child,
}

impl Janitor {
    /// Starts the janitor: this same binary, as the hidden subcommand [`SUBCOMMAND`], in a session of its
    /// own, deaf to the terminal's signals, with an empty environment. Returns once it is ready.
    ///
    /// # Errors
    /// If it cannot be started or does not answer.
    pub fn spawn() -> io::Result<Self> {
        let (ours, process) = helper::spawn(SUBCOMMAND)?;
        let janitor = Self {
            socket: ours,
            process,
        };
        janitor.order(&Order::Ready, &[])?;
        Ok(janitor)
    }

    /// Has the cgroup and everything in it killed and removed at the end.
    ///
    /// # Errors
    /// If the janitor does not confirm.
    pub fn clean_cgroup(&self, path: &Path) -> io::Result<()> {
        self.order(&Order::Cgroup(absolute(path)?), &[])
    }

    /// Has a directory tree removed at the end, after the cgroups. Symbolic links in it are
    /// removed, not followed.
    ///
    /// # Errors
    /// If the janitor does not confirm.
    pub fn clean_directory(&self, path: &Path) -> io::Result<()> {
        self.order(&Order::Directory(absolute(path)?), &[])
    }

    /// Has descriptors held open until everything else is cleaned up: an eBPF link so held keeps
    /// its program attached though the gateway be killed, and the sandbox cut off till it is dead.
    ///
    /// # Errors
    /// If the janitor does not confirm. `InvalidInput` for more than 64 at once.
    pub fn hold(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.order(&Order::Hold, descriptors)
    }

    /// Starts the clean-up and waits for its end (some milliseconds; at most about
    /// [`cgroup::EMPTY_WITHIN`] a cgroup).
    ///
    /// # Errors
    /// If something could not be cleaned up; the janitor has said what on standard error.
    pub fn finish(self) -> io::Result<()> {
        let Self {
            socket,
            mut process,
        } = self;
        drop(socket);
        let status = process.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the janitor failed: {status}")))
        }
    }

    fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(order)?;
        if bytes.len() > MAX_ORDER {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[] } else { &rights[..] };
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        let mut answer = [0; NOTED.len()];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if answer.get(..length) == Some(NOTED) {
            Ok(())
        } else {
            Err(io::Error::other("the janitor has died"))
        }
    }
}

/// The janitor's own life, for the binary's hidden subcommand: standard input is its socket.
/// Call it before anything starts a thread.
pub fn run() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            helper::tell(SUBCOMMAND, &error);
            ExitCode::FAILURE
        }
    }
}

fn live() -> io::Result<()> {
    let socket = helper::begin()?;
    let mut work = Work::default();
    let mut buffer = vec![0; MAX_ORDER];
    loop {
        let received = sys::receive_with_fds(socket.as_fd(), &mut buffer, MAX_FDS);
        let (length, descriptors) = match received {
            // A reset is the parent's end as well.
            Ok((0, _)) => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(received) => received,
            Err(error) => {
                // Deaf, but not idle: what is known gets cleaned up.
                helper::tell(SUBCOMMAND, &error);
                break;
            }
        };
        match serde_json::from_slice(&buffer[..length]) {
            Ok(order) => work.note(order, descriptors),
            Err(error) => {
                helper::tell(SUBCOMMAND, &error.into());
                continue;
            }
        }
        // If the parent is gone, the next receive says so.
        send(socket.as_raw_fd(), NOTED, MsgFlags::MSG_NOSIGNAL).ok();
    }
    work.clean()
}

#[derive(Debug, Default)]
struct Work {
    cgroups: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    held: Vec<OwnedFd>,
}

impl Work {
    fn note(&mut self, order: Order, descriptors: Vec<OwnedFd>) {
        match order {
            Order::Ready => {}
            Order::Cgroup(path) => self.cgroups.push(path),
            Order::Directory(path) => self.directories.push(path),
            Order::Hold => self.held.extend(descriptors),
        }
    }

    /// Goes on after a failure, so that one stuck thing leaves no other behind; returns the last.
    fn clean(self) -> io::Result<()> {
        let mut outcome = Ok(());
        for path in &self.cgroups {
            // A cgroup with a process that will not die is not removed, and its programs stay
            // attached to it for as long as the kernel keeps them; that is the safe side.
            let cleaned = cgroup::kill_all(path).and_then(|()| cgroup::remove_tree(path));
            outcome = cleaned.map_err(|error| named(path, &error)).and(outcome);
        }
        for path in &self.directories {
            // It may have been given a file system of its own; where it has none there is nothing to do.
            match umount2(path, MntFlags::MNT_DETACH) {
                Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
                Err(error) => outcome = Err(named(path, &error.into())),
            }
            let cleaned = match std::fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path, &error)),
                _ => Ok(()),
            };
            outcome = cleaned.and(outcome);
        }
        drop(self.held);
        outcome
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot clean up {}: {error}", path.display()),
    )
}

fn absolute(path: &Path) -> io::Result<PathBuf> {
    if path.is_absolute() && path.parent().is_some() {
        Ok(path.to_owned())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

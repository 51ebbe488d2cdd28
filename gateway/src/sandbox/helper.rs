//! Helper processes: this same binary under a hidden subcommand, with one socket to its parent and nothing
//! else of it. What they are for is not known here.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::sys;

/// Starts the binary as a helper, with an empty environment. Returns the parent's end of the socket
/// (sequenced packets), whose closing the helper takes for the parent's end.
///
/// # Errors
/// If it cannot be started.
pub(super) fn spawn(subcommand: &str) -> io::Result<(OwnedFd, Child)> {
    let (ours, its) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let process = Command::new("/proc/self/exe")
        .arg(subcommand)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(its))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok((ours, process))
}

/// The helper's own beginning: a session of its own, deaf to the terminal's signals. Returns its socket,
/// which was its standard input. Call it before anything is opened or a thread is started.
///
/// # Errors
/// What the system calls say.
pub(super) fn begin() -> io::Result<OwnedFd> {
    // Somebody's pipe held open would keep its reader waiting after the gateway's end.
    sys::close_inherited()?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        sys::ignore_signal(signal)?;
    }
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGPIPE] {
        sys::ignore_signal(signal)?;
    }
    nix::unistd::setsid()?;
    sys::take_standard_input()
}

/// A helper has no subscriber and no parent to tell: standard error is all there is.
pub(super) fn tell(name: &str, error: &io::Error) {
    use std::io::Write;
    writeln!(io::stderr(), "postern: {name}: {error}").ok();
}

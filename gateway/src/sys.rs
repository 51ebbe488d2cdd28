//! The remaining unsafe: system calls for which neither std nor nix has a safe wrapper.
//!
//! Every function here takes and gives safe types, and does one thing. What the calls are
//! *for* is not known here: policy lives with the callers.
#![expect(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block states why its preconditions hold"
)]

pub mod bpf;
mod landlock;
mod life;
mod locked;
mod memory;
mod mount;
mod passing;
mod shared;

pub use landlock::{has_scopes, scope_abstract_sockets};
pub use life::Life;
pub use locked::LockedBytes;
pub use memory::{give_back, give_back_freed};
pub use mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, attach_mount,
    clone_mount, detached_mount, mount_setattr, open_in,
};
pub use passing::receive_with_fds;
pub use shared::SharedWords;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_long, c_uint, c_ulong};

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn own(result: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows its
    // number, so we are its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes ownership of a descriptor inherited through `execve` under a number agreed on
/// beforehand, and marks it close-on-exec.
///
/// # Errors
/// `EBADF` if no such descriptor is open; `InvalidInput` for 0, 1 and 2, which the standard
/// library owns.
pub fn adopt_inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    adopt(number)
}

/// Like [`adopt_inherited_fd`], for a program whose standard input *is* the inherited
/// descriptor: a copy of it is returned and standard input becomes `/dev/null`.
///
/// # Errors
/// Whatever duplicating the descriptor or opening `/dev/null` says.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(taken)
}

fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD only looks the number up; a number that is not open gives EBADF.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open (checked above) and was inherited for this caller alone:
    // no object of this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What [`clone_exec`] starts.
#[derive(Debug)]
pub struct CloneExec<'a> {
    /// `CLONE_NEW*` flags for the child.
    pub namespaces: c_int,
    /// Directory of the cgroup (v2) the child is born in.
    pub cgroup: BorrowedFd<'a>,
    /// The program, opened beforehand.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the first being its own name.
    pub arguments: &'a [CString],
    /// Left open across the exec, under its present number, beside the standard streams. Nothing
    /// else is inherited.
    pub keep: BorrowedFd<'a>,
}

/// Starts a program in new namespaces and inside a cgroup, in one `clone3`, with an empty
/// environment. The child is sent SIGKILL when the *calling thread* ends.
///
/// Returns the child's process id and a pidfd for it.
///
/// # Errors
/// What `clone3` says: `EBUSY` or `EOPNOTSUPP` if the cgroup cannot hold processes, `EPERM`
/// without privilege, `EINVAL` on a kernel that lacks a flag. If the exec itself fails the child
/// exits with status 127.
pub fn clone_exec(what: &CloneExec<'_>) -> io::Result<(libc::pid_t, OwnedFd)> {
    let mut arguments: Vec<*const libc::c_char> = what
        .arguments
        .iter()
        .map(|argument| argument.as_ptr())
        .collect();
    arguments.push(std::ptr::null());
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    let mut pidfd: c_int = -1;

    // SAFETY: clone_args is a plain C struct for which all zeroes is the documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let flags = what.namespaces | libc::CLONE_PIDFD;
    // CLONE_INTO_CGROUP does not fit an i32: take it from the 64-bit constant.
    args.flags = u64::from(flags.cast_unsigned()) | CLONE_INTO_CGROUP;
    args.pidfd = std::ptr::from_mut(&mut pidfd).addr() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    args.cgroup = u64::from(what.cgroup.as_raw_fd().cast_unsigned());

    // SAFETY: without CLONE_VM the child runs on a copy of our memory, as after fork. `args` and
    // `pidfd` outlive the call. Everything the child uses was allocated above, and until it
    // execs or exits it calls only async-signal-safe functions, so locks held by other threads
    // of this process at the moment of the clone cannot matter to it.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    };
    if child == 0 {
        // SAFETY: see above; the pointers are to live, NUL-terminated data.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0, 0, 0);
            libc::syscall(
                libc::SYS_close_range,
                3_u32,
                c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            libc::fcntl(what.keep.as_raw_fd(), libc::F_SETFD, 0);
            libc::syscall(
                libc::SYS_execveat,
                what.program.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(127);
        }
    }
    let child = libc::pid_t::try_from(check(child)?).map_err(io::Error::other)?;
    Ok((child, own(pidfd.into())?))
}

/// linux/sched.h; libc has it as a c_int, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks. Returns the child's process id in the parent and `None` in the child.
///
/// # Errors
/// `Other` if this process has more than one thread (the child would inherit locks nobody will
/// ever release), else what `fork` says.
pub fn fork_single_threaded() -> io::Result<Option<libc::pid_t>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork in a process with several threads"));
    }
    // SAFETY: this is the only thread (checked above), so the child's copy of memory is
    // consistent and it may use all of it.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok((pid != 0).then_some(libc::pid_t::try_from(pid).map_err(io::Error::other)?))
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStatus {
    Exited(c_int),
    /// Real-time signals included, which nix cannot name.
    Signaled(c_int),
    Stopped(c_int),
    Continued,
}

/// Collects one child with news, without waiting. `None`: no child has any.
///
/// # Errors
/// `ECHILD` if there are no children.
pub fn wait_for_news() -> io::Result<Option<(libc::pid_t, ChildStatus)>> {
    let mut status = 0;
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    // SAFETY: `status` outlives the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, flags) }.into())?;
    if pid == 0 {
        return Ok(None);
    }
    let news = if libc::WIFEXITED(status) {
        ChildStatus::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        ChildStatus::Signaled(libc::WTERMSIG(status))
    } else if libc::WIFSTOPPED(status) {
        ChildStatus::Stopped(libc::WSTOPSIG(status))
    } else {
        ChildStatus::Continued
    };
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    Ok(Some((pid, news)))
}

/// Sends a signal to a process group. Real-time signals included.
///
/// # Errors
/// `ESRCH` if it is empty; `EINVAL` for a number that is no signal, or a group that is none.
pub fn signal_group(group: nix::unistd::Pid, signal: c_int) -> io::Result<()> {
    if group.as_raw() <= 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only numbers are passed.
    check(unsafe { libc::killpg(group.as_raw(), signal) }.into())?;
    Ok(())
}

/// Sends a signal to the process of a pidfd.
///
/// # Errors
/// `ESRCH` if it has ended, `EPERM`.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: a null siginfo means "as kill() would fill it in"; no memory is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    })?;
    Ok(())
}

/// Gives the calling process a new, empty session keyring. A kernel without keyrings has none
/// to share either, and is no error.
///
/// # Errors
/// What `keyctl` says, but for `ENOSYS`.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1; // linux/keyctl.h
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    });
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// Drops a capability from the bounding set. Returns whether the kernel knows the number.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn drop_bounding_capability(number: u8) -> io::Result<bool> {
    // SAFETY: PR_CAPBSET_DROP takes a number; no memory is passed.
    let result =
        check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, c_ulong::from(number), 0, 0, 0) }.into());
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What `close_range` says: `EINVAL` before Linux 5.11.
pub fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    // SAFETY: only flags of descriptors change; none is closed under its owner.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })?;
    Ok(())
}

/// Closes whatever a careless caller let this program inherit beside the standard streams. For the very
/// start of a program, before it has opened anything itself.
///
/// # Errors
/// What `close_range` says: `ENOSYS` before Linux 5.9.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: nothing of this process owns a descriptor beyond 2 yet, as the caller promises; a
    // descriptor that is owned all the same would make its owner's calls fail with EBADF.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3_u32, c_uint::MAX, 0_u32) })?;
    Ok(())
}

/// Ignores a signal.
///
/// # Errors
/// `EINVAL` for a signal that cannot be ignored.
pub fn ignore_signal(signal: c_int) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives every signal its default disposition and blocks none: what a program expects at birth.
///
/// # Errors
/// What `sigprocmask` says.
pub fn default_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL runs no code of ours. Numbers that cannot be set (SIGKILL, SIGSTOP and
        // those libc keeps for itself) give an error, and have their default disposition anyway.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Stops this process as SIGTSTP's default action would (that is: not if its process group is
/// orphaned, for then nobody could resume it), and returns when it goes on.
///
/// # Errors
/// What `sigaction` or `kill` says.
pub fn stop_self() -> io::Result<()> {
    // SAFETY: all zeroes is SIG_DFL with no flags and an empty mask; both structs are plain C
    // and outlive the calls. The former disposition is put back before returning.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut former: libc::sigaction = std::mem::zeroed();
        check(libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut former).into())?;
        let stopped = check(libc::kill(libc::getpid(), libc::SIGTSTP).into());
        check(libc::sigaction(libc::SIGTSTP, &raw const former, std::ptr::null_mut()).into())?;
        stopped?;
    }
    Ok(())
}

/// The cookie of the network namespace a socket belongs to (`SO_NETNS_COOKIE`, Linux 5.14).
///
/// # Errors
/// `ENOPROTOOPT` on an older kernel.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: c_int = 71; // asm-generic/socket.h
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the buffer is a u64 and `length` says so; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    check(result.into())?;
    Ok(cookie)
}

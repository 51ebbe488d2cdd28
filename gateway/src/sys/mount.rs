//! The file-descriptor mount calls of Linux 5.2 and 5.12: copy a mount, attach it, change its
//! attributes. What is mounted where, and why, is not known here.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{check, own};

/// `MOUNT_ATTR_*` bits for [`mount_setattr`] (linux/mount.h).
pub const MOUNT_ATTR_RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// Set-user-id bits and file capabilities are ignored on the mount.
pub const MOUNT_ATTR_NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// Device nodes cannot be opened on the mount.
pub const MOUNT_ATTR_NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// Programs cannot be executed from the mount.
pub const MOUNT_ATTR_NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// A detached copy of the mount tree at `path` (relative to `directory` if given; an empty path
/// means `directory` itself). With `recursive`, what is mounted beneath it comes along.
///
/// # Errors
/// What `open_tree` says: `ENOENT`, `EPERM`, `EINVAL` for a mount that may not be copied.
pub fn clone_mount(
    directory: Option<BorrowedFd<'_>>,
    path: &CStr,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    flags |= libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    let directory = directory.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: `path` is NUL-terminated and outlives the call.
    own(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) })
}

/// Attaches a detached mount tree at `target`, following symbolic links nowhere but in the
/// directories leading there.
///
/// # Errors
/// What `move_mount` says: `ENOENT`, `EPERM`, `EINVAL`, `ENOTDIR` if one is a file and the other not.
pub fn attach_mount(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Sets `MOUNT_ATTR_*` bits on the mount at `path` (or of `tree`, if `path` is empty), with
/// `recursive` on everything mounted beneath it too, all or nothing.
///
/// # Errors
/// What `mount_setattr` says: `EBUSY` if a file is open for writing, `ENOSYS` before Linux 5.12.
pub fn mount_setattr(
    tree: Option<BorrowedFd<'_>>,
    path: &CStr,
    recursive: bool,
    set: u64,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    let tree = tree.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: `path` is NUL-terminated; `attributes` is the struct the kernel expects, with its
    // size; both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

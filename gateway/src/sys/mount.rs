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

// linux/mount.h.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

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

/// A new mount of a file system that needs no source, attached nowhere: only the descriptor leads into it.
///
/// # Errors
/// What `fsopen`, `fsconfig` or `fsmount` says: `ENODEV` for a kind that the kernel has not, `EPERM`.
pub fn detached_mount(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `kind` is NUL-terminated and outlives the call.
    let context = own(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            nothing,
            nothing,
            0,
        )
    })?;
    // SAFETY: only a descriptor and numbers are passed.
    own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// Opens a file beneath a directory or mount for reading.
///
/// # Errors
/// What `openat` says.
pub fn open_in(directory: BorrowedFd<'_>, path: &CStr) -> io::Result<std::fs::File> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags) };
    Ok(own(fd.into())?.into())
}

//! The part of Landlock that closes Unix sockets without a file (landlock(7), Linux 6.12). Who is
//! restricted, and why, is not known here.

use std::io;
use std::os::fd::AsRawFd;

use super::{check, own};

/// `LANDLOCK_CREATE_RULESET_VERSION` (linux/landlock.h).
const VERSION: libc::c_uint = 1;
/// The first version of the interface with scopes.
const SCOPES_SINCE: libc::c_long = 6;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`.
const ABSTRACT_UNIX_SOCKET: u64 = 1;

/// `struct landlock_ruleset_attr` of that version.
#[repr(C)]
struct Attributes {
    file_system: u64,
    network: u64,
    scoped: u64,
}

/// Can [`scope_abstract_sockets`] do anything on this kernel?
pub fn has_scopes() -> bool {
    // SAFETY: with this flag the kernel takes a null pointer and a length of zero, and answers with a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Attributes>(),
            0_usize,
            VERSION,
        )
    };
    version >= SCOPES_SINCE
}

/// Keeps this thread, and what it will start, from abstract Unix sockets of others; those of its own making
/// stay open to it. Needs `no_new_privs`. Does nothing where [`has_scopes`] says no.
///
/// # Errors
/// What `landlock_create_ruleset` and `landlock_restrict_self` say: `EPERM` without `no_new_privs`.
pub fn scope_abstract_sockets() -> io::Result<()> {
    if !has_scopes() {
        return Ok(());
    }
    let attributes = Attributes {
        file_system: 0,
        network: 0,
        scoped: ABSTRACT_UNIX_SOCKET,
    };
    // SAFETY: the structure is initialised, outlives the call, and its size is the one that is told.
    let ruleset = own(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(&attributes),
            size_of::<Attributes>(),
            0_u32,
        )
    })?;
    // SAFETY: takes two numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) })?;
    Ok(())
}

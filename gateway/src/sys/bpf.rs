//! Cgroup links as plain descriptors. aya attaches too, but keeps a link's descriptor to itself, and
//! a descriptor is what keeps a sandbox shut while another process holds it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `BPF_LINK_CREATE` of `enum bpf_cmd` (linux/bpf.h).
const BPF_LINK_CREATE: libc::c_long = 28;

/// `struct { … } link_create` of `union bpf_attr` (linux/bpf.h), as far as cgroup links read it.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a loaded cgroup program to a cgroup (needs Linux 5.7). It stays attached as long as the
/// link's descriptor, a copy of it or a pin exists. Errors are the kernel's: `EPERM` without
/// CAP_NET_ADMIN/CAP_BPF, or where an exclusive program is attached above.
pub fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd().unsigned_abs(),
        target_fd: cgroup.as_raw_fd().unsigned_abs(),
        attach_type,
        flags: 0,
    };
    // SAFETY: bpf(2) with BPF_LINK_CREATE reads `size` bytes of the attributes, which outlive the
    // call, and both descriptors are borrowed for its duration.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            std::ptr::from_ref(&attributes),
            size_of::<LinkCreate>(),
        )
    };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel returned a new descriptor that nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `BPF_OBJ_PIN` of `enum bpf_cmd` (linux/bpf.h).
const BPF_OBJ_PIN: libc::c_long = 6;

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` reads; `file_flags` and `path_fd` stay zero.
#[repr(C)]
struct ObjectPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Keeps a link attached under a path on a bpffs until the path is removed, whoever dies. Errors are
/// the kernel's: `EEXIST`, `EPERM` where the path is not on a bpffs.
pub fn pin(link: BorrowedFd<'_>, path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectPin {
        pathname: path.as_ptr() as u64,
        bpf_fd: link.as_raw_fd().unsigned_abs(),
        file_flags: 0,
    };
    // SAFETY: bpf(2) with BPF_OBJ_PIN reads `size` bytes of the attributes and the NUL-terminated
    // path that they point to; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_PIN,
            std::ptr::from_ref(&attributes),
            size_of::<ObjectPin>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

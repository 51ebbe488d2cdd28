//! eBPF links, pins and liveness as plain descriptors. aya attaches too, but keeps a link's descriptor to
//! itself, and a descriptor is what keeps a sandbox shut while another process holds it. Knows no names of
//! programs or maps.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, own};

// `enum bpf_cmd` (linux/bpf.h).
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

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
        prog_fd: number(program),
        target_fd: number(cgroup),
        attach_type,
        flags: 0,
    };
    own(call(BPF_LINK_CREATE, &attributes))
}

/// `struct { … } link_update` of `union bpf_attr`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program in the place of a link's, at once: every call of the hook runs the one or the
/// other. Errors are the kernel's: `EINVAL` for a program of another type, `ENOLINK` if the link's
/// cgroup is gone.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdate {
        link_fd: number(link),
        new_prog_fd: number(program),
        flags: 0,
        old_prog_fd: 0,
    };
    check(call(BPF_LINK_UPDATE, &attributes)).map(drop)
}

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` and `BPF_OBJ_GET` read; `file_flags` and `path_fd`
/// stay zero.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Keeps a link or map under a path on a bpffs until the path is removed, whoever dies. Errors are the
/// kernel's: `EEXIST`, `EPERM` where the path is not on a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Pin {
        pathname: path.as_ptr() as u64,
        bpf_fd: number(object),
        file_flags: 0,
    };
    check(call(BPF_OBJ_PIN, &attributes)).map(drop)
}

/// Opens what is pinned. Errors are the kernel's: `ENOENT`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Pin {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    own(call(BPF_OBJ_GET, &attributes))
}

/// What a cgroup link says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLink {
    /// The cgroup's kernel id; zero once the cgroup is gone.
    pub cgroup: u64,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// The head of `struct bpf_link_info` with the part for cgroups (linux/bpf.h). The cgroup's id is aligned to
/// eight bytes, as the union it is in.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    tail: u32,
}

/// `struct { … } info` of `union bpf_attr`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Asks a link where it is attached. `InvalidData` if it is no cgroup link.
pub fn cgroup_link(link: BorrowedFd<'_>) -> io::Result<CgroupLink> {
    /// `BPF_LINK_TYPE_CGROUP` (linux/bpf.h).
    const CGROUP: u32 = 3;
    let mut info = LinkInfo::default();
    let attributes = GetInfo {
        bpf_fd: number(link),
        info_len: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    check(call(BPF_OBJ_GET_INFO_BY_FD, &attributes))?;
    if info.kind != CGROUP {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(CgroupLink {
        cgroup: info.cgroup,
        attach_type: info.attach_type,
    })
}

fn call<A>(command: libc::c_long, attributes: &A) -> libc::c_long {
    // SAFETY: bpf(2) reads `size` bytes of the attributes, and what the commands used here read or
    // write through pointers in them outlives the call: each caller keeps it on its stack.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<A>(),
        )
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

//! The kernel's own file systems, anew and less: `/proc`, `/sys`, `/dev`, and no other mount of their kind
//! anywhere. Their contents are the widest way from a root inside to the host.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::mounts::{attach, bind, copy, cover_with_nothing, detach, make_directories};
use super::{Context, Refusal};
use crate::sandbox::mountinfo;
use crate::sys::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// File systems that show the kernel, or another namespace, rather than files.
const KINDS: [&str; 22] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "bpf",
    "configfs",
    "efivarfs",
    "pstore",
    "devtmpfs",
    "devpts",
    "mqueue",
    "binfmt_misc",
    "fusectl",
    "hugetlbfs",
    "nsfs",
    "rpc_pipefs",
    "nfsd",
    "selinuxfs",
    "smackfs",
];
/// Devices that are only functions: bound one by one into the private `/dev`.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// World-readable files of `/proc` that tell about the machine or its other users.
const SECRETIVE: [&str; 8] = [
    "keys",
    "key-users",
    "kallsyms",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "latency_stats",
    "config.gz",
];
/// Directories of a fresh sysfs that show firmware, tracing, or power readings good enough to spy by.
const HIDDEN: [&str; 7] = [
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/security",
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/devices/virtual/powercap",
];
const QUIET: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
/// Mounts on one point, and tries to get rid of them, before giving up.
const STACKED: usize = 64;

/// Copies of the host's device nodes, which must be taken before everything becomes `nodev`.
#[derive(Debug)]
pub(super) struct Devices {
    nodes: Vec<(&'static str, OwnedFd)>,
    /// The terminal of the standard streams.
    console: Option<OwnedFd>,
}

impl Devices {
    pub(super) fn copy() -> Result<Self, Refusal> {
        let mut nodes = Vec::new();
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            let is_device =
                fs::symlink_metadata(&path).is_ok_and(|status| status.file_type().is_char_device());
            if is_device {
                nodes.push((name, copy(&path, false)?));
            } else if name != "tty" {
                return Err(Refusal(format!("{} is missing here", path.display())));
            }
        }
        let console = nix::unistd::ttyname(std::io::stdin())
            .or_else(|_| nix::unistd::ttyname(std::io::stdout()))
            .or_else(|_| nix::unistd::ttyname(std::io::stderr()))
            .ok()
            .and_then(|path| copy(&path, false).ok());
        Ok(Self { nodes, console })
    }
}

/// Where below `/sys/fs/cgroup` the host has its cgroup v2 hierarchy.
pub(super) fn cgroup_place() -> Result<Option<PathBuf>, Refusal> {
    let mounts = mountinfo::read().doing(|| "read /proc/self/mountinfo".into())?;
    Ok(mounts
        .into_iter()
        .find(|mount| mount.kind == "cgroup2" && mount.point.starts_with("/sys/fs/cgroup"))
        .map(|mount| mount.point))
}

/// Takes away every mount at or below these places and every kernel file system anywhere.
pub(super) fn detach_all(places: &[&str]) -> Result<(), Refusal> {
    let mounts = mountinfo::read().doing(|| "read /proc/self/mountinfo".into())?;
    let unwanted = |mount: &&mountinfo::Mount| {
        KINDS.contains(&mount.kind.as_str())
            && !places.iter().any(|place| mount.point.starts_with(place))
    };
    for mount in mounts.iter().rev().filter(unwanted) {
        // Whether any is left is checked below, with the new /proc.
        detach(&mount.point).ok();
    }
    for place in places {
        let mut left = STACKED;
        // EINVAL: no mount there any more. /proc itself goes, so nothing else can be asked.
        while left > 0 && detach(Path::new(place)).is_ok() {
            left -= 1;
        }
        if left == 0 {
            return Err(Refusal(format!(
                "{place} has too many mounts stacked on it"
            )));
        }
    }
    Ok(())
}

/// Takes away kernel file systems that came in with a writable folder, and makes sure that the only ones
/// left are ours: even one that is out of sight would let a user namespace mount another like it.
pub(super) fn detach_foreign(ours: &[&str]) -> Result<(), Refusal> {
    for last in [false, true] {
        let mounts = mountinfo::read().doing(|| "read /proc/self/mountinfo".into())?;
        let foreign = mounts.iter().rev().filter(|mount| {
            KINDS.contains(&mount.kind.as_str())
                && !ours.iter().any(|place| mount.point.starts_with(place))
        });
        for mount in foreign {
            let gone = detach(&mount.point);
            if last {
                gone.doing(|| {
                    format!(
                        "take the {} file system at {} out of the sandbox",
                        mount.kind,
                        mount.point.display()
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// A fresh `/proc` of this pid namespace; returns `/proc/sys` as it was before becoming read-only.
/// What is not about processes is read-only or gone, which also keeps a user namespace from
/// mounting a procfs without these covers.
pub(super) fn proc() -> Result<OwnedFd, Refusal> {
    let proc = Path::new("/proc");
    mount(
        Some("proc"),
        proc,
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .doing(|| "mount /proc".into())?;
    let doing = || "look through /proc".into();
    let writable = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(proc.join("sys"))
        .doing(doing)?;
    for entry in fs::read_dir(proc).doing(doing)? {
        let entry = entry.doing(doing)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(status) = fs::symlink_metadata(entry.path()) else {
            continue; // a process that has ended
        };
        let mode = status.permissions().mode();
        if status.is_symlink() || name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let hidden = SECRETIVE.contains(&&*name) || mode & 0o004 == 0;
        if status.is_file() && hidden {
            bind(
                Path::new("/dev/null"),
                &entry.path(),
                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
            )?;
        } else if status.is_dir() || mode & 0o222 != 0 {
            bind(&entry.path(), &entry.path(), MOUNT_ATTR_RDONLY | QUIET)?;
        }
    }
    Ok(writable.into())
}

/// A fresh `/sys`, read-only; of the cgroups only version 2, from the sandbox's own downwards.
pub(super) fn sys(cgroups: Option<&Path>) -> Result<(), Refusal> {
    let place = Path::new("/sys");
    if !place.is_dir() {
        return Ok(());
    }
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if mount(Some("sysfs"), place, Some("sysfs"), flags, None::<&str>).is_err() {
        return cover_with_nothing(place, "555");
    }
    for path in HIDDEN.map(Path::new) {
        if path.is_dir() {
            cover_with_nothing(path, "555")?;
        }
    }
    let Some(cgroups) = cgroups else {
        return Ok(());
    };
    let doing = || format!("mount the cgroups at {}", cgroups.display());
    let base = Path::new("/sys/fs/cgroup");
    if cgroups != base {
        let writable = flags.difference(MsFlags::MS_RDONLY);
        mount(
            Some("tmpfs"),
            base,
            Some("tmpfs"),
            writable,
            Some("mode=755,size=64k"),
        )
        .doing(doing)?;
        make_directories(cgroups).doing(doing)?;
        read_only(base)?;
    }
    mount(
        Some("cgroup2"),
        cgroups,
        Some("cgroup2"),
        flags,
        None::<&str>,
    )
    .doing(doing)
}

/// A private `/dev`: devices that are only functions, private terminals, no hardware.
pub(super) fn dev(devices: &Devices) -> Result<(), Refusal> {
    let dev = Path::new("/dev");
    let doing = || "fill /dev".into();
    let tmpfs = |place: &Path, options: &str| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options)).doing(doing)
    };
    tmpfs(dev, "mode=755,size=64k")?;
    // Read-only, or root could change the mode of the host's nodes. Devices can be written to all the same.
    let device = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    for (name, node) in &devices.nodes {
        attach(node.as_fd(), &dev.join(name), device, false)?;
    }
    if let Some(console) = &devices.console {
        attach(console.as_fd(), &dev.join("console"), device, false)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(name)).doing(doing)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        make_directories(&dev.join(name)).doing(doing)?;
    }
    let group = nix::unistd::Group::from_name("tty").ok().flatten();
    let group = group.map_or_else(String::new, |group| format!(",gid={}", group.gid));
    mount(
        Some("devpts"),
        &dev.join("pts"),
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some(format!("newinstance,ptmxmode=0666,mode=0620{group}").as_str()),
    )
    .doing(|| "mount private terminals".into())?;
    tmpfs(&dev.join("shm"), "mode=1777,size=50%")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Message queues are optional in the kernel; without them the directory stays empty.
    mount(
        Some("mqueue"),
        &dev.join("mqueue"),
        Some("mqueue"),
        quiet,
        None::<&str>,
    )
    .ok();
    read_only(dev)
}

fn read_only(place: &Path) -> Result<(), Refusal> {
    sys::mount_setattr(
        None,
        &super::mounts::c_string(place)?,
        false,
        MOUNT_ATTR_RDONLY,
    )
    .doing(|| format!("make {} read-only", place.display()))
}

//! The cgroup (v2) a sandbox is born in and dies in. Finds the hierarchy wherever the host
//! mounts it, pure or hybrid. Knows nothing of the eBPF programs attached to it, nor of the
//! namespaces around it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mountinfo::{self, Mount};

/// How long a killed cgroup may take to become empty: processes in uninterruptible sleep
/// (a dead NFS server, say) do not die at once, and must not hold up the clean-up for ever.
pub const EMPTY_WITHIN: Duration = Duration::from_secs(5);
/// How often emptiness is looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How deep a tree of nested cgroups is removed; the kernel's own `cgroup.max.depth` is rarely set.
pub(super) const DEEPEST: usize = 64;

/// A cgroup of ours. Dropping it removes nothing: that is the janitor's task, so that one
/// path serves the normal end and the violent one.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    id: u64,
}

/// Why there is no cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("making a sandbox needs root (try sudo)")]
    NotRoot,
    #[error("no cgroup v2 hierarchy is mounted here (looked in /proc/self/mountinfo)")]
    NoHierarchy,
    #[error("this process's own cgroup {0} lies outside the mounted cgroup v2 hierarchy")]
    Outside(PathBuf),
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Cgroup {
    /// Makes `postern-<pid>-<random>` below the caller's own cgroup, so that limits which hold
    /// for the caller hold for the sandbox too.
    ///
    /// # Errors
    /// [`CgroupError`]; nothing is left behind.
    pub fn create_child() -> Result<Self, CgroupError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(CgroupError::NotRoot);
        }
        let name = format!("postern-{}-{:016x}", std::process::id(), random()?);
        let path = own_directory()?.join(name);
        fs::create_dir(&path).map_err(|source| CgroupError::Io {
            action: "cannot create the cgroup",
            path: path.clone(),
            source,
        })?;
        Self::open(&path).inspect_err(|_| {
            // Only reached if opening what we have just made fails; the error told is that one.
            fs::remove_dir(&path).ok();
        })
    }

    /// Opens an existing cgroup by its directory.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let told = |source| CgroupError::Io {
            action: "cannot open the cgroup",
            path: path.to_owned(),
            source,
        };
        let directory = fs::File::open(path).map_err(told)?;
        let id = directory.metadata().map_err(told)?.ino();
        Ok(Self {
            path: path.to_owned(),
            directory: directory.into(),
            id,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id that eBPF helpers report (`bpf_get_current_cgroup_id`): on 64-bit machines kernfs uses it
    /// as the inode number.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Kills every process in the cgroup and below it, and waits until it is empty.
///
/// # Errors
/// `TimedOut` if processes are still there after [`EMPTY_WITHIN`]; `NotFound` never: a cgroup
/// that is gone is as dead as can be.
pub fn kill_all(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    // cgroup.kill exists since 5.14 and also catches processes being forked meanwhile.
    let killed_at_once = match fs::write(path.join("cgroup.kill"), "1") {
        Ok(()) => true,
        Err(error) if gone(&error) => !path.exists(),
        Err(error) => return Err(error),
    };
    loop {
        let populated = match fs::read_to_string(path.join("cgroup.events")) {
            Ok(events) => events.lines().any(|line| line == "populated 1"),
            Err(error) if gone(&error) => false,
            Err(error) => return Err(error),
        };
        if !populated {
            return Ok(());
        }
        if !killed_at_once {
            kill_each(path, 0)?;
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Removes an empty cgroup and the empty ones nested in it, deepest first.
///
/// # Errors
/// `ResourceBusy` while a process is left in one of them.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
}

fn kill_each(path: &Path, depth: usize) -> io::Result<()> {
    if depth < DEEPEST {
        for child in children(path)? {
            kill_each(&child, depth + 1)?;
        }
    }
    let processes = match fs::read_to_string(path.join("cgroup.procs")) {
        Ok(processes) => processes,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        // 0 stands for a process outside our pid namespace, and would mean "my own group".
        if pid > 0 {
            // It may be dead already; whether the cgroup is empty is asked of the kernel.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
    Ok(())
}

/// The cgroups directly below; none if it is gone.
pub(super) fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A cgroup removed while one of its files is open answers ENODEV.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn own_directory() -> Result<PathBuf, CgroupError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| CgroupError::Io {
            action: "cannot read",
            path: path.into(),
            source,
        })
    };
    let mounts = mountinfo::read().map_err(|source| CgroupError::Io {
        action: "cannot read",
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    let membership = read("/proc/self/cgroup")?;
    let own = unified(&membership).ok_or(CgroupError::NoHierarchy)?;
    directory_of(&mounts, Path::new(own))
}

/// The line of the v2 hierarchy in a `/proc/PID/cgroup` file (cgroups(7)).
pub(super) fn unified(membership: &str) -> Option<&str> {
    membership.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Where these mounts show a cgroup, given as `/proc/PID/cgroup` gives it.
pub(super) fn directory_of(mounts: &[Mount], own: &Path) -> Result<PathBuf, CgroupError> {
    let mut hierarchies = mounts
        .iter()
        .filter(|mount| mount.kind == "cgroup2")
        .peekable();
    if hierarchies.peek().is_none() {
        return Err(CgroupError::NoHierarchy);
    }
    hierarchies
        .find_map(|mount| {
            let rest = own.strip_prefix(&mount.root).ok()?;
            // "/.." in it means: above the root of this cgroup namespace.
            let inside = rest
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            inside.then(|| mountinfo::join(&mount.point, rest))
        })
        .ok_or_else(|| CgroupError::Outside(own.to_owned()))
}

fn random() -> Result<u64, CgroupError> {
    use std::io::Read;
    let mut bytes = [0_u8; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| CgroupError::Io {
            action: "cannot read",
            path: "/dev/urandom".into(),
            source,
        })?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_hierarchy_is_found_in_a_hybrid_layout() {
        let mounts = mountinfo::parse(
            b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
              32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
              41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        )
        .unwrap();
        assert_eq!(
            directory_of(&mounts, Path::new("/user.slice")).unwrap(),
            Path::new("/sys/fs/cgroup/unified/user.slice")
        );
    }

    #[test]
    fn a_hierarchy_mounted_from_a_subtree_is_understood() {
        let mounts = mountinfo::parse(b"41 31 0:38 /a /cg rw - cgroup2 cgroup2 rw\n").unwrap();
        assert_eq!(
            directory_of(&mounts, Path::new("/a/b")).unwrap(),
            Path::new("/cg/b")
        );
        assert!(matches!(
            directory_of(&mounts, Path::new("/c")),
            Err(CgroupError::Outside(_))
        ));
    }

    #[test]
    fn a_cgroup_above_the_namespace_root_is_refused() {
        let mounts = mountinfo::parse(b"41 31 0:38 / /cg rw - cgroup2 cgroup2 rw\n").unwrap();
        assert!(matches!(
            directory_of(&mounts, Path::new("/../x")),
            Err(CgroupError::Outside(_))
        ));
    }

    #[test]
    fn without_a_hierarchy_the_answer_is_plain() {
        assert!(matches!(
            directory_of(&[], Path::new("/")),
            Err(CgroupError::NoHierarchy)
        ));
    }
}

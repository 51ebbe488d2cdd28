//! The sandbox's view of the file system, in the one order that works: copies of what shall stay
//! as it is, then everything read-only, then the kernel's file systems anew, ephemeral
//! layers, the work folder, and last of all the masks. Knows no reason for any mask.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

use super::covers::{self, Scratch};
use super::masks::Masks;
use super::pseudo;
use super::{Context, Refusal};
use crate::sandbox::mountinfo;
use crate::sandbox::plan::{Plan, Start, TrustPlan};
use crate::sandbox::trust::{self, SystemPath};
use crate::sys::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// Where nothing of the host is visible.
const PRIVATE: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];
/// Writing there, for good, is as good as being outside: these never become writable as a whole,
/// nor does anything that contains them.
const SYSTEM: [&str; 9] = [
    "/bin", "/boot", "/etc", "/lib", "/sbin", "/usr", "/var", "/tmp", "/var/tmp",
];
/// The same for everything in them.
const SYSTEM_TREES: [&str; 2] = ["/etc", "/boot"];

/// The finished view.
#[derive(Debug)]
pub(super) struct View {
    pub(super) warnings: Vec<String>,
    /// `/proc/sys`, writable, for the limits of the command's user namespace.
    pub(super) proc_sys: OwnedFd,
}

/// Builds the view in the calling process's own mount namespace and enters the work folder.
pub(super) fn build(start: &Start) -> Result<View, Refusal> {
    let plan = &start.plan;
    let mut warnings = Vec::new();
    // Modes are given explicitly below; the command keeps the caller's.
    let callers_umask = umask(Mode::empty());

    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .doing(|| "detach from the host's mounts".into())?;
    unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace".into())?;

    let home = plan.identity.account().home.canonicalize().ok();
    let masks = Masks::survey(&plan.masks)?;
    let writable = writable_paths(plan, home.as_deref(), &masks, &mut warnings)?;
    let sources = Sources::copy(plan, &writable)?;
    let resolver = resolver_path();
    let roots = trust::system_paths();
    let devices = pseudo::Devices::copy()?;
    let cgroups = pseudo::cgroup_place()?;

    sys::mount_setattr(
        None,
        c"/",
        true,
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
    )
    .doing(|| "make everything read-only".into())?;

    pseudo::detach_all(&PRIVATE)?;
    pseudo::dev(&devices)?;
    let proc_sys = pseudo::proc()?;
    pseudo::sys(cgroups.as_deref())?;

    let scratch = Scratch::mount()?;
    covers::lay(&scratch, home.as_deref(), &writable, &mut warnings)?;
    scratch.unmount()?;
    covers::run(&plan.identity)?;

    for (path, tree) in &sources.writable {
        attach(
            tree.as_fd(),
            path,
            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
            true,
        )?;
    }
    pseudo::detach_foreign(&PRIVATE)?;
    masks.lay()?;
    covers::hide_sockets(&start.host_sockets, &masks)?;

    if let (Some(trust), Some(tree)) = (&plan.trust, &sources.trust) {
        lay_trust(trust, tree.as_fd(), &roots)?;
    }
    if let Some(tree) = &sources.resolv_conf {
        match resolver {
            Some(path) => attach(tree.as_fd(), &path, READ_ONLY_FILE, false)?,
            None => warnings.push("there is no /etc/resolv.conf to lay the gateway's over".into()),
        }
    }

    umask(callers_umask);
    std::env::set_current_dir(&plan.cwd)
        .doing(|| format!("enter {} inside the sandbox", plan.cwd.display()))?;
    Ok(View { warnings, proc_sys })
}

/// For material that is only read.
const READ_ONLY_FILE: u64 =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// Attaches a copied mount at `path`, made first where the view is ours to write.
pub(super) fn attach(
    tree: BorrowedFd<'_>,
    path: &Path,
    attributes: u64,
    recursive: bool,
) -> Result<(), Refusal> {
    let doing = || format!("lay a mount over {}", path.display());
    sys::mount_setattr(Some(tree), c"", recursive, attributes).doing(doing)?;
    let target = c_string(path)?;
    if fs::symlink_metadata(path).is_err() {
        let is_directory =
            nix::sys::stat::fstat(tree).doing(doing)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        make_mount_point(path, is_directory).doing(doing)?;
    }
    sys::attach_mount(tree, &target).doing(doing)
}

/// A copy of the mount at `path`, resolved as a path from here.
pub(super) fn copy(path: &Path, recursive: bool) -> Result<OwnedFd, Refusal> {
    sys::clone_mount(None, &c_string(path)?, recursive)
        .doing(|| format!("copy the mount of {}", path.display()))
}

/// Lays an existing path over itself, or another, with these attributes.
pub(super) fn bind(from: &Path, to: &Path, attributes: u64) -> Result<(), Refusal> {
    let tree = copy(from, false)?;
    attach(tree.as_fd(), to, attributes, false)
}

/// An empty directory nobody can change, with this mode, over `path`.
pub(super) fn cover_with_nothing(path: &Path, mode: &str) -> Result<(), Refusal> {
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some(format!("mode={mode},size=4k,nr_inodes=2").as_str()),
    )
    .doing(|| format!("hide {}", path.display()))
}

pub(super) fn detach(path: &Path) -> nix::Result<()> {
    umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

pub(super) fn c_string(path: &Path) -> Result<CString, Refusal> {
    CString::new(path.as_os_str().as_bytes()).doing(|| format!("use the path {}", path.display()))
}

fn make_mount_point(path: &Path, directory: bool) -> io::Result<()> {
    if directory {
        return make_directories(path);
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map(drop)
}

/// With modes of its own, as the umask is cleared here.
pub(super) fn make_directories(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

/// Copies taken while the originals are still as the host has them.
#[derive(Debug)]
struct Sources {
    writable: Vec<(PathBuf, OwnedFd)>,
    trust: Option<OwnedFd>,
    resolv_conf: Option<OwnedFd>,
}

impl Sources {
    fn copy(plan: &Plan, writable: &[PathBuf]) -> Result<Self, Refusal> {
        let copies = writable
            .iter()
            .map(|path| Ok((path.clone(), copy(path, true)?)))
            .collect::<Result<_, Refusal>>()?;
        let one = |path: Option<&PathBuf>| path.map(|path| copy(path, false)).transpose();
        Ok(Self {
            writable: copies,
            trust: one(plan.trust.as_ref().map(|trust| &trust.source))?,
            resolv_conf: one(plan.resolv_conf.as_ref())?,
        })
    }
}

/// What stays writable for good: the work folder if it may, and what was named, each checked
/// against the masks. Resolved; containing folders before contained ones.
fn writable_paths(
    plan: &Plan,
    home: Option<&Path>,
    masks: &Masks,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>, Refusal> {
    let resolve = |path: &Path| {
        let resolved = path
            .canonicalize()
            .doing(|| format!("find {}", path.display()))?;
        if PRIVATE.iter().any(|private| resolved.starts_with(private)) {
            return Err(Refusal(format!(
                "{} is in a part of the system that the sandbox does not see: work elsewhere",
                path.display()
            )));
        }
        masks.refuse_inside(&resolved)?;
        Ok(resolved)
    };
    let cwd = resolve(&plan.cwd)?;
    if cwd != plan.cwd {
        return Err(Refusal(format!(
            "the current folder {} is really {}: name it so",
            plan.cwd.display(),
            cwd.display()
        )));
    }
    let mut paths = Vec::new();
    match why_not_writable(&cwd, home, false) {
        None => paths.push(cwd),
        Some(why) if plan.writable.contains(&cwd) => drop(why),
        Some(why) => warnings.push(format!(
            "what is written in {} does not last: {why}; work in a folder below it, \
             or name it as writable",
            cwd.display()
        )),
    }
    for path in &plan.writable {
        let path = resolve(path)?;
        if let Some(why) = why_not_writable(&path, home, true) {
            return Err(Refusal(format!(
                "{} cannot be writable: {why}",
                path.display()
            )));
        }
        paths.push(path);
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Folders through which a sandbox could take over its host: start-up files, keys, other people's
/// sockets. A home may be named explicitly; nothing else of these may.
fn why_not_writable(path: &Path, home: Option<&Path>, named: bool) -> Option<String> {
    if path.parent().is_none() {
        return Some("it is the root of the file system".into());
    }
    if let Some(home) = home.filter(|home| home.starts_with(path))
        && (home != path || !named)
    {
        let is = if home == path { "is" } else { "contains" };
        return Some(format!(
            "it {is} the home directory, start-up files and all"
        ));
    }
    let contains = SYSTEM
        .iter()
        .chain(&PRIVATE)
        .find(|system| Path::new(system).starts_with(path));
    let inside = SYSTEM_TREES.iter().find(|tree| path.starts_with(tree));
    contains
        .or(inside)
        .map(|system| format!("the system's {system} is not for sandboxes to change"))
}

/// The trust directory at its target, and over what programs have compiled in.
fn lay_trust(trust: &TrustPlan, tree: BorrowedFd<'_>, roots: &[SystemPath]) -> Result<(), Refusal> {
    if !plain(&trust.target) || !trust.target.starts_with("/run") {
        return Err(Refusal(format!(
            "the trust directory belongs below /run, not at {}",
            trust.target.display()
        )));
    }
    attach(tree, &trust.target, READ_ONLY_FILE, false)?;
    for root in roots {
        let (path, name) = match root {
            SystemPath::Directory(path) => (path, trust::CERTIFICATES),
            SystemPath::Bundle(path) => (path, trust::BUNDLE),
        };
        // It may have vanished with /run or behind a mask.
        if path.exists() {
            bind(&trust.target.join(name), path, READ_ONLY_FILE)?;
        }
    }
    Ok(())
}

/// Where `/etc/resolv.conf` really is, even if that does not exist (a dangling link into `/run`).
fn resolver_path() -> Option<PathBuf> {
    let path = Path::new("/etc/resolv.conf");
    if let Ok(resolved) = path.canonicalize() {
        return Some(resolved);
    }
    let link = path.parent()?.join(fs::read_link(path).ok()?);
    let mut resolved = PathBuf::from("/");
    for part in link.components() {
        match part {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => drop(resolved.pop()),
            _ => {}
        }
    }
    // A symbolic link on the way, as /var/run is.
    if let Ok(rest) = resolved.strip_prefix("/var/run") {
        resolved = mountinfo::join(Path::new("/run"), rest);
    }
    resolved.starts_with("/run").then_some(resolved)
}

fn plain(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn writable(path: &str, named: bool) -> bool {
        why_not_writable(Path::new(path), Some(Path::new("/home/ada")), named).is_none()
    }

    #[test]
    fn a_project_folder_is_writable_wherever_it_is() {
        for path in [
            "/home/ada/work",
            "/tmp/x",
            "/srv/work",
            "/var/lib/x",
            "/usr/src/x",
        ] {
            assert!(writable(path, false), "{path}");
        }
    }

    #[test]
    fn what_would_hand_over_the_host_is_not() {
        for path in [
            "/", "/home", "/tmp", "/var", "/var/tmp", "/usr", "/etc", "/etc/ssh", "/run",
        ] {
            assert!(!writable(path, false), "{path}");
            assert!(!writable(path, true), "{path}");
        }
    }

    #[test]
    fn a_home_is_writable_only_if_named() {
        assert!(!writable("/home/ada", false));
        assert!(writable("/home/ada", true));
    }
}

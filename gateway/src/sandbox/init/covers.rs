//! Ephemeral layers: `/tmp` and the home as overlays whose changes vanish with the sandbox, private
//! `/run` and `/var/tmp`, and covers for the host's Unix sockets. Knows nothing of masks' reasons.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use super::masks::Masks;
use super::mounts::{attach, bind, copy, detach, make_directories};
use super::{Context, Refusal};
use crate::sandbox::identity::Identity;
use crate::sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// The private memory behind the ephemeral layers, together: half of the machine's, as tmpfs has it by
/// itself, and charged to the sandbox's cgroup.
const SCRATCH_OPTIONS: &str = "mode=755,size=50%";
/// `/run` holds sockets and pid files.
const RUN_OPTIONS: &str = "mode=755,size=64m";
/// A private tmpfs while it is being used to build the layers; mounted where the new `/run` will be.
#[derive(Debug)]
pub(super) struct Scratch {
    place: &'static Path,
}

impl Scratch {
    pub(super) fn mount() -> Result<Self, Refusal> {
        let place = Path::new("/run");
        tmpfs(place, SCRATCH_OPTIONS)?;
        Ok(Self { place })
    }

    /// What is in use lives on; the scratch place itself disappears from the view.
    pub(super) fn unmount(self) -> Result<(), Refusal> {
        detach(self.place).doing(|| "take the scratch space out of sight".into())
    }

    fn directory(&self, name: &str, mode: u32) -> Result<PathBuf, Refusal> {
        let path = self.place.join(name);
        make_directories(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .doing(|| format!("make the directory {}", path.display()))?;
        Ok(path)
    }
}

/// The ephemeral `/tmp`, `/var/tmp` and home. A home that is wholly writable gets none.
pub(super) fn lay(
    scratch: &Scratch,
    home: Option<&Path>,
    writable: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let tmp = Path::new("/tmp");
    if tmp.is_dir() && overlay(scratch, "tmp", tmp).is_err() {
        warnings.push("/tmp starts empty: it cannot be layered on this system".into());
        empty(scratch, "empty-tmp", tmp)?;
    }
    let var_tmp = Path::new("/var/tmp");
    if fs::symlink_metadata(var_tmp).is_ok_and(|status| status.is_dir()) {
        empty(scratch, "var-tmp", var_tmp)?;
    }
    if let Some(home) = home.filter(|home| wants_layer(home, writable))
        && let Err(Refusal(why)) = overlay(scratch, "home", home)
    {
        warnings.push(format!("{} stays read-only: {why}", home.display()));
    }
    Ok(())
}

/// The new `/run`, with what programs expect to find there.
pub(super) fn run(identity: &Identity) -> Result<(), Refusal> {
    let run = Path::new("/run");
    tmpfs(run, RUN_OPTIONS)?;
    let legacy = Path::new("/var/run");
    if fs::symlink_metadata(legacy).is_ok_and(|status| status.is_dir()) {
        bind(run, legacy, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
    }
    let own = run.join("user").join(identity.uid().to_string());
    let make = || {
        make_directories(&own)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
        chown(&own, Some(identity.uid()), Some(identity.gid()))?;
        let lock = run.join("lock");
        fs::create_dir(&lock)?;
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o1777))
    };
    make().doing(|| "fill /run".into())
}

/// Covers the host's sockets where they are still visible. (Through an overlay a socket refuses: it is
/// another inode.) Sockets made later, or in another network namespace of the host, are not known here.
pub(super) fn hide_sockets(sockets: &[PathBuf], masks: &Masks) -> Result<(), Refusal> {
    let null = Path::new("/dev/null");
    for socket in sockets {
        let Ok(path) = socket.canonicalize() else {
            continue;
        };
        let is_socket = path
            .symlink_metadata()
            .is_ok_and(|status| status.file_type().is_socket());
        let layered = statfs(&path).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
        if is_socket && !layered && !masks.cover(&path) {
            let quiet = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
            bind(null, &path, quiet)?;
        }
    }
    Ok(())
}

/// Whether the home is a real directory that nothing else has replaced.
fn wants_layer(home: &Path, writable: &[PathBuf]) -> bool {
    let elsewhere = ["/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys"]
        .iter()
        .any(|place| home.starts_with(place));
    home.parent().is_some()
        && home.is_dir()
        && !elsewhere
        && !writable.iter().any(|path| home.starts_with(path))
}

fn overlay(scratch: &Scratch, name: &str, place: &Path) -> Result<(), Refusal> {
    let doing = || format!("layer {}", place.display());
    let lower = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(place)
        .doing(doing)?;
    let status = lower.metadata().doing(doing)?;
    let upper = scratch.directory(&format!("{name}/upper"), status.mode() & 0o7777)?;
    chown(&upper, Some(status.uid()), Some(status.gid())).doing(doing)?;
    let work = scratch.directory(&format!("{name}/work"), 0o700)?;
    // By descriptor, because a path may hold the characters that separate options.
    let options = format!(
        "lowerdir=/proc/self/fd/{},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=off",
        lower.as_raw_fd(),
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        place,
        Some("overlay"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .doing(doing)?;
    // A layer that cannot be written is worse than none: say so now.
    probe(place).doing(doing)
}

fn probe(place: &Path) -> std::io::Result<()> {
    let file = place.join(format!(".postern-{}", std::process::id()));
    File::create_new(&file)?;
    fs::remove_file(file)
}

fn empty(scratch: &Scratch, name: &str, place: &Path) -> Result<(), Refusal> {
    let directory = scratch.directory(name, 0o1777)?;
    let tree = copy(&directory, false)?;
    attach(
        tree.as_fd(),
        place,
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        false,
    )
}

fn tmpfs(place: &Path, options: &str) -> Result<(), Refusal> {
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options),
    )
    .doing(|| format!("mount a private {}", place.display()))
}

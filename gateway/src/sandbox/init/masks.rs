//! Hiding files and folders from the sandbox under every name they have there, or refusing to
//! start. What is in them, and why they are hidden, is not known here.
//!
//! A folder is found again under other names by its place in its file system, which mountinfo tells for
//! every mount. Not found are hard links to a hidden *file*, and copies. A hidden file which the host
//! replaces by renaming another over it comes into view again, for the kernel takes the cover
//! off with the name; folders do not have that problem, so hide folders.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use super::mounts::{bind, cover_with_nothing};
use super::{Context, Refusal};
use crate::sandbox::mountinfo::{self, Mount};
use crate::sys::{MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// What to hide, as found on the host before anything was covered.
#[derive(Debug)]
pub(super) struct Masks {
    masks: Vec<Mask>,
    /// The host's mounts.
    mounts: Vec<Mount>,
}

#[derive(Debug)]
struct Mask {
    path: PathBuf,
    inode: Inode,
    directory: bool,
    /// The file system, and the place in it.
    device: String,
    place: PathBuf,
}

type Inode = (u64, u64);

impl Masks {
    /// Finds what is to be hidden; links resolved, containing folders before contained ones.
    pub(super) fn survey(paths: &[PathBuf]) -> Result<Self, Refusal> {
        let mounts = mountinfo::read().doing(|| "read /proc/self/mountinfo".into())?;
        let mut masks = paths
            .iter()
            .map(|path| Mask::find(path, &mounts))
            .collect::<Result<Vec<_>, _>>()?;
        masks.sort_by(|one, other| one.path.cmp(&other.path));
        masks.dedup_by(|one, other| one.path == other.path);
        Ok(Self { masks, mounts })
    }

    /// A folder to work in cannot lie in one that is to be hidden, under whatever name.
    pub(super) fn refuse_inside(&self, path: &Path) -> Result<(), Refusal> {
        let located = mountinfo::locate(&self.mounts, path);
        let hiding = self.masks.iter().find(|mask| {
            path.starts_with(&mask.path)
                || located.as_ref().is_some_and(|(mount, place)| {
                    mount.device == mask.device && place.starts_with(&mask.place)
                })
        });
        match hiding {
            None => Ok(()),
            Some(mask) => Err(Refusal(format!(
                "{} must be hidden from the sandbox, and that would hide {} too: \
                 move the former (policy, secrets, state or audit log) to a folder of its own elsewhere",
                mask.path.display(),
                path.display()
            ))),
        }
    }

    /// Whether the path is hidden with one of the folders.
    pub(super) fn cover(&self, path: &Path) -> bool {
        self.masks.iter().any(|mask| path.starts_with(&mask.path))
    }

    /// Hides them all, in the finished view.
    pub(super) fn lay(&self) -> Result<(), Refusal> {
        let mounts = mountinfo::read().doing(|| "read /proc/self/mountinfo".into())?;
        for mask in &self.masks {
            let mut names = vec![mask.path.clone()];
            names.extend(mountinfo::views(&mounts, &mask.device, &mask.place));
            for name in &names {
                if mask.visible_at(name)? {
                    mask.lay(name)?;
                }
            }
            for name in &names {
                if inode(name)?.is_some_and(|seen| seen == mask.inode) {
                    return Err(Refusal(format!("cannot hide {}", name.display())));
                }
            }
        }
        Ok(())
    }
}

impl Mask {
    fn find(path: &Path, mounts: &[Mount]) -> Result<Self, Refusal> {
        let doing = || format!("find {}, which is to be hidden", path.display());
        let path = path.canonicalize().doing(doing)?;
        let status = fs::symlink_metadata(&path).doing(doing)?;
        let (mount, place) = mountinfo::locate(mounts, &path)
            .ok_or_else(|| Refusal(format!("no mount holds {}", path.display())))?;
        Ok(Self {
            inode: (status.dev(), status.ino()),
            directory: status.is_dir(),
            device: mount.device.clone(),
            place,
            path,
        })
    }

    /// The thing itself, or what an overlay shows of it; not the cover laid before, nor a
    /// stranger by the same name.
    fn visible_at(&self, name: &Path) -> Result<bool, Refusal> {
        let Some(seen) = inode(name)? else {
            return Ok(false);
        };
        let layered = || statfs(name).is_ok_and(|fs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
        Ok(seen == self.inode || layered())
    }

    fn lay(&self, name: &Path) -> Result<(), Refusal> {
        if self.directory {
            cover_with_nothing(name, "000")
        } else {
            let quiet = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
            bind(Path::new("/dev/null"), name, quiet)
        }
    }
}

/// `None` if nothing has that name in the view.
fn inode(path: &Path) -> Result<Option<Inode>, Refusal> {
    match fs::symlink_metadata(path) {
        Ok(status) => Ok(Some((status.dev(), status.ino()))),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).doing(|| format!("look at {}", path.display())),
    }
}

//! Pinned links: what keeps a sandbox shut when the daemon is gone. One folder a cgroup, named by
//! the cgroup's kernel id, on a bpffs that only root can enter.

use super::programs::{Attachment, KernelError};
use crate::sys;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where bpffs is by convention (bpf-helpers(7)).
const BPFFS: &str = "/sys/fs/bpf";

/// The pins of all sandboxes.
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Finds bpffs, mounting it where nobody has.
    pub fn open() -> Result<Self, KernelError> {
        let bpffs = Path::new(BPFFS);
        let is_bpffs = statfs(bpffs).map_err(io::Error::from)?.filesystem_type() == BPF_FS_MAGIC;
        if !is_bpffs {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), bpffs, Some("bpf"), flags, Some("mode=0700"))
                .map_err(io::Error::from)?;
        }
        let root = bpffs.join("postern");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        Ok(Self { root })
    }

    /// Keeps an attachment's links, and lets go of those that an earlier daemon kept for the same
    /// cgroup. The new ones are in force already, so there is no moment without.
    pub fn replace(&self, cgroup: u64, attachment: &Attachment) -> Result<(), KernelError> {
        let folder = self.root.join(cgroup.to_string());
        // No dot: bpffs keeps names with dots for itself.
        let draft = self.root.join(format!("{cgroup}-new"));
        remove_folder(&draft)?;
        DirBuilder::new().mode(0o700).create(&draft)?;
        for (index, link) in attachment.links().enumerate() {
            sys::bpf::pin(link, &draft.join(format!("link{index}")))?;
        }
        remove_folder(&folder)?;
        fs::rename(&draft, &folder)?;
        Ok(())
    }

    /// The cgroup ids that have pins.
    pub fn cgroups(&self) -> io::Result<Vec<u64>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            if let Some(id) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                all.push(id);
            }
        }
        Ok(all)
    }

    /// Lets go of a cgroup: what is in it is free afterwards. Says whether there was anything.
    pub fn remove(&self, cgroup: u64) -> io::Result<bool> {
        remove_folder(&self.root.join(cgroup.to_string()))
    }
}

fn remove_folder(folder: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

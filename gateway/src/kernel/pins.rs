//! What outlives the daemon: the maps, and one folder of links a cgroup, on a bpffs folder that only root
//! can enter. The links keep a sandbox shut when the daemon is gone; the maps let the next one go on with it.
//!
//! ```text
//! /sys/fs/bpf/postern/LAYOUT/MAP            LAYOUT names the shape of the maps
//! /sys/fs/bpf/postern/CGROUP/LAYOUT/PROGRAM  links whose programs use those maps
//! ```
//!
//! It refuses to know what the maps say and what the programs do.

use super::error::KernelError;
use crate::sys::{self, bpf::cgroup_link};
use gateway_common::{
    Allowance, Event, Flow, Handover, HandoverHead, LAYOUT, ListenerKey, Listeners, PortKey,
    PortSet, RuleKey, SandboxCounters, Settings, capacity, counter,
};
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::warn;

/// Where bpffs is by convention (bpf-helpers(7)).
const BPFFS: &str = "/sys/fs/bpf";
/// Links being pinned. No dot: bpffs keeps names with dots for itself.
const DRAFT: &str = "-new";
/// Folders of maps begin so; cgroups are numbers.
const MAPS: &str = "maps-";
/// How long a new daemon waits for the lock of one that has just been killed: the kernel closes a dying
/// process's files one after the other.
const PATIENCE: Duration = Duration::from_secs(3);

/// The pins of all sandboxes.
pub struct Pins {
    root: PathBuf,
    layout: String,
}

impl Pins {
    /// Finds bpffs, mounting it where nobody has.
    ///
    /// # Errors
    /// [`KernelError::Pins`]; also where the folder belongs to somebody else than root.
    pub fn open() -> Result<Self, KernelError> {
        let bpffs = Path::new(BPFFS);
        let kind = statfs(bpffs).map_err(|error| at(bpffs, error.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), bpffs, Some("bpf"), flags, Some("mode=0700"))
                .map_err(|error| at(bpffs, error.into()))?;
        }
        let root = bpffs.join("postern");
        let private = || -> io::Result<()> {
            make_folder(&root)?;
            if fs::symlink_metadata(&root)?.uid() != 0 {
                return Err(io::Error::other("does not belong to root; remove it"));
            }
            // Whatever it was made with: who can open a pin can change what is enforced.
            fs::set_permissions(&root, Permissions::from_mode(0o700))
        };
        private().map_err(|error| at(&root, error))?;
        Ok(Self {
            root,
            layout: layout(),
        })
    }

    /// The folder of the maps of this binary's layout, made if need be. Those of other layouts are let
    /// go of: links that still use them keep them.
    pub(super) fn maps(&self) -> Result<PathBuf, KernelError> {
        let folder = self.root.join(&self.layout);
        let work = || -> io::Result<()> {
            for name in names(&self.root)? {
                if name.starts_with(MAPS) && name != self.layout {
                    remove_folder(&self.root.join(name))?;
                }
            }
            make_folder(&folder)
        };
        work().map_err(|error| at(&folder, error))?;
        Ok(folder)
    }

    /// Makes this process the only one that uses the pinned maps, until the lock is dropped.
    pub(super) fn lock(&self) -> Result<Flock<File>, KernelError> {
        let begun = Instant::now();
        let mut file = File::open(&self.root).map_err(|error| at(&self.root, error))?;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((file, _)) if begun.elapsed() < PATIENCE => file,
                Err(_) => return Err(KernelError::InCharge(self.root.display().to_string())),
            };
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pinned links of a cgroup, by program: none where they are of another layout. `None` where
    /// nothing is pinned for it.
    pub(super) fn links(
        &self,
        cgroup: u64,
    ) -> Result<Option<BTreeMap<String, OwnedFd>>, KernelError> {
        let top = self.folder(cgroup);
        if !top.exists() {
            return Ok(self.draft(cgroup).exists().then(BTreeMap::new));
        }
        let folder = top.join(&self.layout);
        let work = || -> io::Result<BTreeMap<String, OwnedFd>> {
            let mut links = BTreeMap::new();
            for name in names(&folder)? {
                let link = sys::bpf::open_pin(&folder.join(&name))?;
                links.insert(name, link);
            }
            Ok(links)
        };
        work().map(Some).map_err(|error| at(&folder, error))
    }

    /// Keeps these links, and lets go of whatever an earlier daemon kept for the same cgroup. The new ones
    /// must be in force already, so that there is no moment without.
    pub(super) fn replace<'a>(
        &self,
        cgroup: u64,
        links: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> Result<(), KernelError> {
        let (folder, draft) = (self.folder(cgroup), self.draft(cgroup));
        let work = || -> io::Result<()> {
            remove_folder(&draft)?;
            make_folder(&draft)?;
            let inner = draft.join(&self.layout);
            make_folder(&inner)?;
            for (name, link) in links {
                sys::bpf::pin(link, &inner.join(name))?;
            }
            if !folder.exists() {
                return fs::rename(&draft, &folder);
            }
            // Linux 5.16 and later; both names lead to links that are in force.
            renameat2(
                AT_FDCWD,
                &draft,
                AT_FDCWD,
                &folder,
                RenameFlags::RENAME_EXCHANGE,
            )?;
            remove_folder(&draft).map(drop)
        };
        work().map_err(|error| at(&folder, error))
    }

    /// Keeps one link more.
    pub(super) fn add(
        &self,
        cgroup: u64,
        name: &str,
        link: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        let path = self.folder(cgroup).join(&self.layout).join(name);
        sys::bpf::pin(link, &path).map_err(|error| at(&path, error))
    }

    /// The kernel ids of the cgroups that have pins.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn cgroups(&self) -> io::Result<Vec<u64>> {
        let mut all: Vec<u64> = names(&self.root)?
            .iter()
            .filter_map(|name| name.strip_suffix(DRAFT).unwrap_or(name).parse().ok())
            .collect();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Lets go of a cgroup: what is in it is free afterwards. Says whether there was anything.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self, cgroup: u64) -> io::Result<bool> {
        let kept = remove_folder(&self.folder(cgroup))?;
        Ok(remove_folder(&self.draft(cgroup))? || kept)
    }

    /// Do these pins keep nothing shut: does each link, of whatever layout, say that its cgroup is gone?
    ///
    /// # Errors
    /// If one cannot be asked: then nobody knows.
    pub fn is_gone(&self, cgroup: u64) -> io::Result<bool> {
        for top in [self.folder(cgroup), self.draft(cgroup)] {
            for layout in names(&top)? {
                let folder = top.join(layout);
                for name in names(&folder)? {
                    let link = sys::bpf::open_pin(&folder.join(name))?;
                    if cgroup_link(link.as_fd())?.cgroup != 0 {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Removes the pins of cgroups that no longer exist. Returns how many.
    pub(super) fn prune(&self) -> Result<usize, KernelError> {
        let mut removed = 0;
        for cgroup in self.cgroups()? {
            match self.is_gone(cgroup) {
                Ok(true) => {
                    self.remove(cgroup)?;
                    removed += 1;
                }
                Ok(false) => {}
                Err(error) => warn!(cgroup, %error, "pinned links not understood; they stay"),
            }
        }
        Ok(removed)
    }

    /// Removes everything, the maps too: for when nothing is attached any more. Not while a daemon runs.
    ///
    /// # Errors
    /// [`KernelError::InCharge`] while one does; otherwise if something cannot be removed.
    pub fn clear(&self) -> Result<(), KernelError> {
        let _lock = self.lock()?;
        for name in names(&self.root)? {
            let path = self.root.join(name);
            remove_folder(&path).map_err(|error| at(&path, error))?;
        }
        Ok(())
    }

    fn folder(&self, cgroup: u64) -> PathBuf {
        self.root.join(cgroup.to_string())
    }

    fn draft(&self, cgroup: u64) -> PathBuf {
        self.root.join(format!("{cgroup}{DRAFT}"))
    }
}

/// Names the shape of the maps: the number that is raised by hand, and a hash of all sizes, so that a
/// struct that grew cannot be mistaken for its former self.
fn layout() -> String {
    let shape = [
        size_of::<Settings>(),
        size_of::<ListenerKey>(),
        size_of::<Listeners>(),
        size_of::<PortKey>(),
        size_of::<RuleKey>(),
        size_of::<PortSet>(),
        size_of::<Flow>(),
        size_of::<Handover>(),
        size_of::<HandoverHead>(),
        size_of::<Event>(),
        size_of::<Allowance>(),
        size_of::<SandboxCounters>(),
        counter::COUNT as usize,
        capacity::LISTENERS,
        capacity::PORTS,
        capacity::RULES,
        capacity::PORT_SETS,
        capacity::FLOWS,
        capacity::SANDBOXES,
        capacity::EVENT_BYTES,
    ];
    // FNV-1a (draft-eastlake-fnv), 32 bits: a fingerprint, no protection.
    let hash = shape
        .iter()
        .flat_map(|size| size.to_le_bytes())
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    format!("{MAPS}{LAYOUT}-{hash:08x}")
}

/// The names in a folder; none if there is no such folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn remove_folder(folder: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn at(path: &Path, source: io::Error) -> KernelError {
    KernelError::Pins {
        path: path.display().to_string(),
        source,
    }
}

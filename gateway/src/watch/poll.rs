//! Looks at files every two seconds, where nobody tells of changes. It refuses to read them: what
//! the file system says of them is enough.

use nix::sys::statfs::statfs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Often enough for a rotation, seldom enough to cost nothing.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// File systems whose changes by other machines inotify does not see (linux/magic.h, and the
/// file systems' own sources for CIFS and SMB2).
const SHARED: [i64; 7] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x0102_1997, // 9P
    0x6573_5546, // FUSE, virtiofs
    0x00C3_6400, // Ceph
];

/// May others than this kernel write to the file system of `path`?
pub(super) fn is_shared(path: &Path) -> bool {
    let Some(there) = path.ancestors().find(|path| path.exists()) else {
        return false;
    };
    #[allow(
        clippy::useless_conversion,
        reason = "the type of the number depends on the C library"
    )]
    statfs(there).is_ok_and(|fs| SHARED.contains(&i64::from(fs.filesystem_type().0)))
}

/// What the files looked like when they were last looked at.
pub(super) struct Poll {
    known: u64,
    ticks: Option<Interval>,
}

impl Poll {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        Self {
            known: fingerprint(paths),
            ticks: None,
        }
    }

    /// Returns when they look different. Cancel-safe: what is known changes with the return alone.
    pub(super) async fn changed(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        let ticks = self.ticks.get_or_insert_with(|| {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            ticks.tick().await;
            let paths = paths.to_vec();
            let found = tokio::task::spawn_blocking(move || fingerprint(&paths)).await?;
            if found != self.known {
                self.known = found;
                return Ok(());
            }
        }
    }
}

/// Names, kinds, sizes, rights and times of everything down to the depth that is watched; of links
/// and of what they lead to.
fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut state = DefaultHasher::new();
    for path in paths {
        add(path, super::DEPTH + 1, &mut state);
    }
    state.finish()
}

fn add(path: &Path, deeper: usize, state: &mut DefaultHasher) {
    path.hash(state);
    for metadata in [std::fs::symlink_metadata(path), std::fs::metadata(path)] {
        let seen = metadata.ok().map(|of| {
            let when = (of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
            (of.dev(), of.ino(), of.size(), of.mode(), of.uid(), when)
        });
        seen.hash(state);
    }
    let is_link = path.is_symlink();
    // Links are followed where they are asked for, and not into folders beside.
    if deeper == 0 || (is_link && deeper <= super::DEPTH) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    for path in inside {
        add(&path, deeper - 1, state);
    }
}

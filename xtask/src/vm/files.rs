//! Files of the guests: cache keys, images and sizes. It refuses to know what is in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Vm;
use crate::Failure;
pub(super) use crate::failure::fail;
use crate::process;

/// An empty draft folder. What else in `folder` starts with `prefix` is an older version or a broken attempt, and goes:
/// these are gigabytes.
pub(super) fn replaced(folder: &Path, prefix: &str) -> Result<PathBuf, Failure> {
    fs::create_dir_all(folder).map_err(|error| fail("make", folder, &error))?;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path())
                .map_err(|error| fail("remove", &entry.path(), &error))?;
        }
    }
    let draft = folder.join(format!("{prefix}draft"));
    fs::create_dir(&draft).map_err(|error| fail("make", &draft, &error))?;
    Ok(draft)
}

/// Writes the folder `tree` as an ext4 image with `spare` MiB of free room. The file is sparse.
pub(super) fn make_image(
    vm: &Vm<'_>,
    tree: &Path,
    image: &Path,
    spare: u64,
) -> Result<(), Failure> {
    let used = process::answer(
        Command::new("du")
            .args(["-sm", "--apparent-size"])
            .arg(tree),
    )
    .and_then(|said| said.split_whitespace().next()?.parse::<u64>().ok())
    .ok_or_else(|| Failure::failed(format!("cannot measure {}", tree.display())))?;
    // Inodes and blocks that are not full take a part of their own.
    let size = used + used / 3 + spare + 16;
    vm.log.run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "root_owner=0:0", "-d"])
            .arg(tree)
            .arg(image)
            .arg(format!("{size}M")),
    )
}

/// What a file takes on the disk, for people.
pub(super) fn size_of(path: &Path) -> Result<String, Failure> {
    mib_of(path).map(|mib| format!("{mib} MiB"))
}

/// What a file takes on the disk, in MiB.
pub(super) fn mib_of(path: &Path) -> Result<u64, Failure> {
    /// `st_blocks` counts these, whatever the file system's blocks are (stat(2)).
    const BLOCK: u64 = 512;
    let found = fs::metadata(path).map_err(|error| fail("read", path, &error))?;
    Ok((found.blocks() * BLOCK) >> 20)
}

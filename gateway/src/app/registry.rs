//! What is attached, written down for the next daemon: one file a sandbox, named by its cgroup's kernel
//! id as the pins are. Without its file a pinned sandbox stays shut until somebody attaches or detaches it.

use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One attached sandbox, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Kernel id of the cgroup.
    pub cgroup: u64,
    /// Its folder. A cgroup of another id there is another one.
    pub path: PathBuf,
    /// Shown in records.
    pub label: String,
    /// Its gateway.
    pub gateway: String,
    /// The `SandboxBinding` that attached it; `None` for a person or a flag.
    pub binding: Option<String>,
}

/// The folder of all entries. Below /run: a reboot detaches everything, and forgets it.
pub struct Registry {
    folder: PathBuf,
}

impl Registry {
    /// Opens the folder, making it (0700) if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Writes an entry, replacing the one of the same cgroup as a whole.
    ///
    /// # Errors
    /// What the file system says; the one before is then still there.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let draft = self.folder.join(format!("{}.draft", entry.cgroup));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(serde_json::to_string(entry)?.as_bytes())?;
        fs::rename(&draft, self.path(entry.cgroup))
    }

    /// Forgets a sandbox.
    ///
    /// # Errors
    /// What the file system says; that there was none is no error.
    pub fn remove(&self, cgroup: u64) -> io::Result<()> {
        match fs::remove_file(self.path(cgroup)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All entries, by cgroup id. One that cannot be read is told and left out: its sandbox stays shut.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut all = Vec::new();
        for found in fs::read_dir(&self.folder)? {
            let path = found?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let entry = fs::read(&path)
                .and_then(|text| Ok(serde_json::from_slice::<Entry>(&text)?))
                .map(|entry| all.push(entry));
            if let Err(error) = entry {
                tracing::error!(path = %path.display(), %error, "not adopted");
            }
        }
        all.sort_by_key(|entry| entry.cgroup);
        Ok(all)
    }

    fn path(&self, cgroup: u64) -> PathBuf {
        self.folder.join(format!("{cgroup}.json"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(cgroup: u64, gateway: &str) -> Entry {
        Entry {
            cgroup,
            path: format!("/sys/fs/cgroup/agents/{cgroup}").into(),
            label: format!("agents/{cgroup}"),
            gateway: gateway.to_owned(),
            binding: None,
        }
    }

    #[test]
    fn what_was_written_last_is_read_and_what_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("attached")).unwrap();
        registry.write(&entry(7, "a")).unwrap();
        registry.write(&entry(3, "a")).unwrap();
        registry.write(&entry(7, "b")).unwrap();
        registry.remove(4).unwrap();
        assert_eq!(registry.entries().unwrap(), [entry(3, "a"), entry(7, "b")]);
        registry.remove(7).unwrap();
        assert_eq!(registry.entries().unwrap(), [entry(3, "a")]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&registry.folder), 0o700);
        assert_eq!(mode(&registry.path(3)), 0o600);
    }

    #[test]
    fn a_broken_entry_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path()).unwrap();
        registry.write(&entry(3, "a")).unwrap();
        fs::write(folder.path().join("5.json"), "{").unwrap();
        assert_eq!(registry.entries().unwrap(), [entry(3, "a")]);
    }
}

//! The file in which the accounts survive: one JSON document, replaced as a whole, read and written under a lock that
//! other gateways with the same state folder respect.
//!
//! It refuses to know what the accounts mean. A file that cannot be read is an error, not an empty one.

use super::ledger::Ledger;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The longest file that is read, bytes: some 100,000 accounts.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

pub(super) struct StateFile {
    folder: PathBuf,
}

/// The file while nobody else may touch it.
pub(super) struct Locked<'a> {
    file: &'a StateFile,
    /// Closing it unlocks.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is damaged: {source}; remove it to begin anew, with nothing counted as spent today"
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl StateFile {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Waits until nobody else has it.
    pub(super) fn lock(&self) -> Result<Locked<'_>, FileError> {
        let path = self.folder.join("budgets.lock");
        let locked = || {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder)?;
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let lock = locked().map_err(|source| FileError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Locked {
            file: self,
            _lock: lock,
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.join("budgets.json")
    }
}

impl Locked<'_> {
    /// An empty ledger if there is no file yet.
    pub(super) fn read(&self) -> Result<Ledger, FileError> {
        let path = self.file.path();
        let read = || {
            let mut text = Vec::new();
            File::open(&path)?.take(MAX_BYTES).read_to_end(&mut text)?;
            Ok(text)
        };
        let text: Vec<u8> = match read() {
            Ok(text) => text,
            Err(error) if is_missing(&error) => return Ok(Ledger::default()),
            Err(source) => return Err(FileError::Io { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| FileError::Damaged { path, source })
    }

    /// Is on disk when this returns.
    pub(super) fn write(&self, ledger: &Ledger) -> Result<(), FileError> {
        let (draft, path) = (self.file.folder.join("budgets.draft"), self.file.path());
        let text = serde_json::to_vec(ledger).map_err(|source| FileError::Damaged {
            path: path.clone(),
            source,
        })?;
        let written = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.file.folder)?.sync_all()
        };
        written().map_err(|source| FileError::Io { path, source })
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// What the kernel calls this boot; where it does not say, every start of the gateway is one.
pub(super) fn boot() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| {
        match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(id) => id.trim().to_owned(),
            Err(error) => {
                tracing::warn!(%error, "no boot id: budgets of executions do not survive a restart");
                format!("process-{}", std::process::id())
            }
        }
    });
    &BOOT
}

//! Reads a secrets folder: `NAME/KEY` files, or mounted Kubernetes secrets under `NAME`. A value that
//! others might know, or might have put there, is a [`Problem`] and no value. It refuses to know
//! who uses the values, and what was read before.
//!
//! The rule. Every folder from the secrets folder down to the file, and the file, belong to root or to
//! the gateway's user, and nobody else may write to them (a sticky folder is as good: others cannot
//! replace what is in it). The file is for its owner alone (0600 or 0400). Mounted secrets are links
//! (`KEY` -> `..data/KEY` -> a dated folder) to files of mode 0644: those are accepted when they lie in
//! the secrets folder and a folder on the way to them is for its owner alone (0700), so that others
//! cannot get at them all the same.

use super::SecretValue;
use crate::policy::{SecretRef, is_secret_key, is_secret_name};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// A larger file is no credential. Service account keys, the largest kind, are about 2.5 KiB; bundles
/// of certificates are up to 300 KiB.
pub const MAX_SECRET: u64 = 1024 * 1024;
/// A mounted secret may be swapped between finding a file and opening it, but not all the time.
const ATTEMPTS: usize = 3;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file or folder could not be read.
    #[error("{path}: {error}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read it.
    #[error("{path} may be read by others (mode {mode:04o}); run `chmod 600 {path}`")]
    Exposed {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may read what a link leads to.
    #[error(
        "{path} may be read by others (mode {mode:04o}), and so may every folder on the way to it; run `chmod 700 {folder}`"
    )]
    ExposedMount {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The secrets folder.
        folder: PathBuf,
    },
    /// Others may change it.
    #[error("others may write to {path} (mode {mode:04o}); run `chmod go-w {path}`")]
    Writable {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("{path} belongs to user {uid}, who could change it; run `chown root {path}`")]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// A link leads out of the folder.
    #[error(
        "{path} is a link to {target}, which is not in the secrets folder; put the value itself there"
    )]
    Outside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A device, pipe or folder.
    #[error("{path} is not a file; a secrets folder holds NAME/KEY files of credentials")]
    NotAFile {
        /// What.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{path} is empty; write the value with `postern secret set`")]
    Empty {
        /// What.
        path: PathBuf,
    },
    /// It cannot be a credential.
    #[error(
        "{path} is larger than {MAX_SECRET} bytes; a secrets folder holds NAME/KEY files of credentials"
    )]
    TooLarge {
        /// What.
        path: PathBuf,
    },
}

/// A key in the folder.
pub struct Found {
    /// Its value, or why it has none.
    pub value: Result<Arc<SecretValue>, Arc<Problem>>,
    /// When it was last written, if that is known.
    pub modified: Option<SystemTime>,
}

/// What is in a secrets folder.
#[derive(Default)]
pub struct Contents {
    /// Its keys.
    pub keys: BTreeMap<SecretRef, Found>,
    /// Names whose keys could not be listed.
    pub unlisted: BTreeMap<Arc<str>, Arc<Problem>>,
    /// What has no name that a secret can have, and is not used.
    pub ignored: Vec<PathBuf>,
}

/// Reads the whole folder.
///
/// # Errors
/// A [`Problem`] of the folder itself.
pub fn read(folder: &Path) -> Result<Contents, Problem> {
    let root = folder.canonicalize().map_err(failed(folder))?;
    check_folder(&root, &fs::metadata(&root).map_err(failed(&root))?)?;
    let mut contents = Contents::default();
    for path in children(&root)? {
        let Some(name) = plain_name(&path) else {
            continue;
        };
        if !path.is_dir() || !is_secret_name(name) {
            contents.ignored.push(path);
            continue;
        }
        let name: Arc<str> = name.into();
        match children(&path) {
            Ok(files) => read_keys(&root, &name, files, &mut contents),
            Err(problem) => {
                contents.unlisted.insert(name, Arc::new(problem));
            }
        }
    }
    Ok(contents)
}

fn read_keys(root: &Path, name: &Arc<str>, files: Vec<PathBuf>, contents: &mut Contents) {
    for path in files {
        let Some(key) = plain_name(&path) else {
            continue;
        };
        if !is_secret_key(key) {
            contents.ignored.push(path);
            continue;
        }
        let reference = SecretRef {
            name: Arc::clone(name),
            key: key.into(),
        };
        contents.keys.insert(reference, read_key(root, &path));
    }
}

fn read_key(root: &Path, path: &Path) -> Found {
    let mut modified = None;
    let mut value = read_file(root, path, &mut modified);
    for _ in 1..ATTEMPTS {
        match &value {
            Err(Problem::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                value = read_file(root, path, &mut modified);
            }
            _ => break,
        }
    }
    Found {
        value: value.map(Arc::new).map_err(Arc::new),
        modified,
    }
}

fn read_file(
    root: &Path,
    path: &Path,
    modified: &mut Option<SystemTime>,
) -> Result<SecretValue, Problem> {
    let target = path.canonicalize().map_err(failed(path))?;
    if !target.starts_with(root) {
        return Err(Problem::Outside {
            path: path.to_owned(),
            target,
        });
    }
    let mut is_shut = false;
    for folder in target
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(root))
    {
        let metadata = fs::metadata(folder).map_err(failed(folder))?;
        check_folder(folder, &metadata)?;
        is_shut |= metadata.mode() & 0o077 == 0;
    }
    // Neither a link put there since, nor a pipe that would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&target)
        .map_err(failed(path))?;
    let metadata = file.metadata().map_err(failed(path))?;
    *modified = metadata.modified().ok();
    if !metadata.is_file() {
        return Err(Problem::NotAFile {
            path: path.to_owned(),
        });
    }
    check_owner(path, &metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        if target == path {
            return Err(Problem::Exposed { path, mode });
        }
        if !is_shut {
            let folder = root.to_owned();
            return Err(Problem::ExposedMount { path, mode, folder });
        }
    }
    contents(file, path, metadata.len())
}

fn contents(mut file: File, path: &Path, length: u64) -> Result<SecretValue, Problem> {
    if length > MAX_SECRET {
        return Err(Problem::TooLarge {
            path: path.to_owned(),
        });
    }
    // All of it at once: a vector that grows leaves copies behind. One byte more shows that the file grew.
    let room = usize::try_from(length).unwrap_or(usize::MAX) + 1;
    let mut bytes = Zeroizing::new(vec![0; room]);
    let mut filled = 0;
    while filled < room {
        match file.read(&mut bytes[filled..]).map_err(failed(path))? {
            0 => break,
            count => filled += count,
        }
    }
    if filled == room {
        let grew = "it grew while it was read; it is read again when it has been written";
        return Err(failed(path)(io::Error::other(grew)));
    }
    // Editors and `echo` end a file with a line break that the credential does not have.
    let value = trim_end(&bytes[..filled]);
    if value.is_empty() {
        return Err(Problem::Empty {
            path: path.to_owned(),
        });
    }
    Ok(SecretValue::kept(value))
}

/// What of a file's bytes is the value: all but line breaks at the end.
pub fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !b"\r\n".contains(byte));
    &bytes[..end.map_or(0, |last| last + 1)]
}

/// Nobody but root and the gateway's user decides what is in the folder.
pub(super) fn check_folder(path: &Path, metadata: &Metadata) -> Result<(), Problem> {
    check_owner(path, metadata)?;
    let mode = metadata.mode() & 0o7777;
    let sticky = mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return Err(Problem::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), Problem> {
    let uid = metadata.uid();
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(Problem::Owner {
        path: path.to_owned(),
        uid,
    })
}

/// Names that start with a dot are not secrets: drafts, editors' files, Kubernetes' own book-keeping.
fn plain_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?;
    if name.as_encoded_bytes().starts_with(b".") {
        return None;
    }
    // What is not UTF-8 is no valid name either, and is told as such.
    Some(name.to_str().unwrap_or_default())
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut paths = fs::read_dir(folder)
        .map_err(failed(folder))?
        .map(|entry| Ok(entry.map_err(failed(folder))?.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_owned();
    move |error| Problem::Read { path, error }
}

#[cfg(test)]
mod tests;

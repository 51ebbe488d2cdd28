//! Writes a secrets folder, for people: whole files, renamed into place, for their owner alone. It refuses
//! to know who reads them, and to touch what something else mounted there.

use super::folder::{MAX_SECRET, Problem, check_folder, trim_end};
use crate::policy::{SecretRef, is_secret_key, is_secret_name};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The name cannot be one.
    #[error(
        "`{0}` is not a name that a secret can have; expected lower-case letters, digits, `-` and `.`, such as anthropic-credentials"
    )]
    Name(String),
    /// The key cannot be one.
    #[error(
        "`{0}` is not a key that a secret can have; expected letters, digits, `-`, `_` and `.`, such as api-key"
    )]
    Key(String),
    /// There is no value.
    #[error(
        "the value of {0} is empty; a secret has a value (use `postern secret rm` to remove one)"
    )]
    Empty(SecretRef),
    /// It is no credential.
    #[error("the value of {0} is larger than {MAX_SECRET} bytes, which is no credential")]
    TooLarge(SecretRef),
    /// Nobody may write there who is not asked to.
    #[error(transparent)]
    Folder(#[from] Problem),
    /// Kubernetes, say, keeps it.
    #[error(
        "{0} is a mounted secret; change it where it is mounted from, here it would be overwritten"
    )]
    Mounted(PathBuf),
    /// There is no such secret.
    #[error("there is no {what} in {folder}; there {known}")]
    Missing {
        /// `NAME` or `NAME/KEY`.
        what: String,
        /// The secrets folder.
        folder: PathBuf,
        /// "is …".
        known: String,
    },
    /// The file system.
    #[error("{path}: {error}{}", hint(.error))]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The name and the key, if both can be those of a secret.
///
/// # Errors
/// [`EditError::Name`] and [`EditError::Key`].
pub fn reference(name: &str, key: &str) -> Result<SecretRef, EditError> {
    check_name(name)?;
    if !is_secret_key(key) || key.starts_with('.') {
        return Err(EditError::Key(key.to_owned()));
    }
    Ok(SecretRef {
        name: name.into(),
        key: key.into(),
    })
}

/// Could the gateway use the value?
///
/// # Errors
/// [`EditError::Empty`] and [`EditError::TooLarge`].
pub fn check_value(of: &SecretRef, value: &[u8]) -> Result<(), EditError> {
    if trim_end(value).is_empty() {
        return Err(EditError::Empty(of.clone()));
    }
    if u64::try_from(value.len()).map_or(true, |length| length > MAX_SECRET) {
        return Err(EditError::TooLarge(of.clone()));
    }
    Ok(())
}

/// Writes one value, making the folders (0700) if need be. A reader sees the former value or
/// this one, and after a power cut too.
///
/// # Errors
/// See [`EditError`]; the former value is then still there.
pub fn set(folder: &Path, of: &SecretRef, value: &[u8]) -> Result<(), EditError> {
    check_value(of, value)?;
    let home = folder.join(&*of.name);
    let is_new = !folder.exists();
    for path in [folder, home.as_path()] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(at(path))?;
        check_folder(path, &fs::metadata(path).map_err(at(path))?)?;
    }
    let target = home.join(&*of.key);
    refuse_mounted(&home)?;
    // A dot in front: nobody takes it for a key.
    let draft = home.join(format!(".{}.{}", of.key, std::process::id()));
    let written = write(&draft, value).and_then(|()| fs::rename(&draft, &target));
    if let Err(error) = written {
        // It may not even exist.
        fs::remove_file(&draft).ok();
        return Err(at(&target)(error));
    }
    sync(&home)?;
    sync(folder)?;
    match folder.parent() {
        Some(parent) if is_new && parent != Path::new("") => sync(parent),
        _ => Ok(()),
    }
}

/// Removes one key, and its name with the last one.
///
/// # Errors
/// [`EditError::Missing`], and others of [`EditError`].
pub fn remove_key(folder: &Path, of: &SecretRef) -> Result<(), EditError> {
    let home = folder.join(&*of.name);
    let path = home.join(&*of.key);
    if !exists(&path)? {
        return Err(missing(folder, &of.to_string()));
    }
    refuse_mounted(&home)?;
    fs::remove_file(&path).map_err(at(&path))?;
    sync(&home)?;
    match fs::remove_dir(&home) {
        Ok(()) => sync(folder),
        // Other keys.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) => Err(at(&home)(error)),
    }
}

/// Removes a name with all its keys.
///
/// # Errors
/// [`EditError::Missing`], and others of [`EditError`].
pub fn remove_name(folder: &Path, name: &str) -> Result<(), EditError> {
    check_name(name)?;
    let home = folder.join(name);
    if !exists(&home)? || home.is_file() {
        return Err(missing(folder, name));
    }
    refuse_mounted(&home)?;
    fs::remove_dir_all(&home).map_err(at(&home))?;
    sync(folder)
}

fn check_name(name: &str) -> Result<(), EditError> {
    if is_secret_name(name) {
        Ok(())
    } else {
        Err(EditError::Name(name.to_owned()))
    }
}

/// What may not be looked at is not known to be absent.
///
/// # Errors
/// [`EditError::Io`].
pub fn exists(path: &Path) -> Result<bool, EditError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(at(path)(error)),
    }
}

fn refuse_mounted(home: &Path) -> Result<(), EditError> {
    let is_mounted = fs::symlink_metadata(home.join("..data")).is_ok() || home.is_symlink();
    if is_mounted {
        return Err(EditError::Mounted(home.to_owned()));
    }
    Ok(())
}

fn write(draft: &Path, value: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(value)?;
    file.sync_all()
}

/// Makes the names in a folder last.
fn sync(folder: &Path) -> Result<(), EditError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at(folder))
}

fn missing(folder: &Path, what: &str) -> EditError {
    let known: Vec<String> = super::folder::read(folder)
        .map(|contents| contents.keys.keys().map(ToString::to_string).collect())
        .unwrap_or_default();
    let known = match known.as_slice() {
        [] => "is nothing; see `postern secret set --help`".to_owned(),
        [one] => format!("is {one}"),
        all => format!("are {}", all.join(", ")),
    };
    EditError::Missing {
        what: what.to_owned(),
        folder: folder.to_owned(),
        known,
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run it with sudo, or name a folder of yours with --secrets"
        }
        _ => "",
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> EditError {
    let path = path.to_owned();
    move |error| EditError::Io { path, error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::secrets::folder::read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn what_is_set_can_be_read_is_for_its_owner_alone_and_leaves_no_draft() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("deep/secrets");
        let of = reference("s", "k").unwrap();
        for value in ["one\n", "two"] {
            set(&folder, &of, value.as_bytes()).unwrap();
            let contents = read(&folder).unwrap();
            let value = value.trim_end().as_bytes();
            assert_eq!(contents.keys[&of].value.as_ref().unwrap().expose(), value);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("s")), 0o700);
        assert_eq!(mode(&folder.join("s/k")), 0o600);
        assert_eq!(fs::read_dir(folder.join("s")).unwrap().count(), 1);
    }

    #[test]
    fn removing_takes_the_name_with_its_last_key_and_says_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let of = |key| reference("s", key).unwrap();
        set(folder, &of("a"), b"1").unwrap();
        set(folder, &of("b"), b"2").unwrap();
        let error = remove_key(folder, &of("c")).unwrap_err().to_string();
        assert!(
            error.contains("no s/c") && error.contains("are s/a, s/b"),
            "{error}"
        );
        remove_key(folder, &of("a")).unwrap();
        assert!(folder.join("s/b").exists());
        remove_key(folder, &of("b")).unwrap();
        assert!(!folder.join("s").exists());
        let error = remove_name(folder, "s").unwrap_err().to_string();
        assert!(error.contains("postern secret set"), "{error}");
        set(folder, &of("a"), b"1").unwrap();
        remove_name(folder, "s").unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn what_may_not_be_looked_at_is_not_said_to_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        assert!(exists(folder.path()).unwrap());
        assert!(!exists(&folder.path().join("s")).unwrap());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(!exists(&file.join("k")).unwrap());
        // A loop stands for what root, too, cannot look behind.
        let ring = folder.path().join("ring");
        symlink("ring", &ring).unwrap();
        assert!(matches!(exists(&ring.join("k")), Err(EditError::Io { .. })));
        let of = reference("ring", "k").unwrap();
        let error = remove_key(folder.path(), &of).unwrap_err();
        assert!(matches!(error, EditError::Io { .. }), "{error}");
    }

    #[test]
    fn what_could_not_be_used_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (name, key) in [
            ("..", "k"),
            ("a/b", "k"),
            ("S", "k"),
            ("s", ".."),
            ("s", ".k"),
            ("s", "a/b"),
            ("s", ""),
        ] {
            assert!(reference(name, key).is_err(), "{name} {key}");
        }
        assert!(remove_name(folder, "../x").is_err());
        let of = reference("s", "k").unwrap();
        assert!(matches!(
            set(folder, &of, b"\r\n"),
            Err(EditError::Empty(_))
        ));
        let large = vec![b'x'; usize::try_from(MAX_SECRET).unwrap() + 1];
        assert!(matches!(
            set(folder, &of, &large),
            Err(EditError::TooLarge(_))
        ));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);

        fs::create_dir(folder.join("s")).unwrap();
        symlink("..1", folder.join("s/..data")).unwrap();
        symlink("..data/k", folder.join("s/k")).unwrap();
        assert!(matches!(set(folder, &of, b"v"), Err(EditError::Mounted(_))));
        assert!(matches!(
            remove_key(folder, &of),
            Err(EditError::Mounted(_))
        ));
        assert!(matches!(
            remove_name(folder, "s"),
            Err(EditError::Mounted(_))
        ));

        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(set(folder, &of, b"v"), Err(EditError::Folder(_))));
    }
}

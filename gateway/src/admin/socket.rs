//! The socket's place in the file system: 0600 in a folder that nobody else can enter, one daemon a socket,
//! what a dead one left replaced. Knows nothing of what is said over it.

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why the daemon does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon.
    #[error(
        "a daemon listens on {0} already; stop it first, or give this one a socket of its own with --admin"
    )]
    Taken(PathBuf),
    /// Somebody else could get at the socket.
    #[error(
        "{folder} can be entered by others (owner {owner}, mode {mode:03o}); the admin socket needs a folder of root's alone: chmod 700 {folder}, or choose another place with --admin"
    )]
    Open {
        /// The socket's folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Something that is not ours to remove.
    #[error("{0} exists and is not a socket; choose another place with --admin")]
    NotASocket(PathBuf),
    /// The path has no folder.
    #[error("{0} is no place for a socket; give --admin the path of a file")]
    NoFolder(PathBuf),
    /// Anything else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A bound socket. Dropping it removes the file, unless it is another's by now.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
    // Held as long as this lives, and let go of by the kernel however the process ends.
    _lock: Flock<File>,
}

/// Listens at this path, non-blocking.
pub(super) fn bind(path: &Path) -> Result<Bound, BindError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Io {
            action,
            path,
            source,
        }
    };
    let folder = match (path.parent(), path.file_name()) {
        (Some(folder), Some(_)) if folder != Path::new("") => folder,
        _ => return Err(BindError::NoFolder(path.to_owned())),
    };
    private_folder(folder)?;
    let lock = lock(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        // A daemon whose lock somebody removed still answers.
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(BindError::Taken(path.to_owned()));
        }
        Ok(_) => fs::remove_file(path).map_err(failed("remove", path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at", path)(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on", path))?;
    // Until here the folder was what kept others out.
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("protect", path))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("listen on", path))?;
    let inode = fs::symlink_metadata(path)
        .map_err(failed("look at", path))?
        .ino();
    Ok(Bound {
        listener,
        path: path.to_owned(),
        inode,
        _lock: lock,
    })
}

impl Drop for Bound {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "admin socket not removed");
        }
    }
}

fn private_folder(folder: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io {
        action: "make the folder",
        path: folder.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let found = folder.metadata().map_err(failed)?;
    let mode = found.mode() & 0o777;
    if found.uid() == geteuid().as_raw() && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(BindError::Open {
        folder: folder.to_owned(),
        owner: found.uid(),
        mode,
    })
}

/// Two daemons that start at once must not both find nobody answering. The file stays: removing it would
/// let a third lock another file of the same name.
fn lock(path: &Path) -> Result<Flock<File>, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |source| BindError::Io {
        action: "lock",
        path: name.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&name)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::Error::EWOULDBLOCK)) => Err(BindError::Taken(path.to_owned())),
        Err((_, error)) => Err(failed(error.into())),
    }
}

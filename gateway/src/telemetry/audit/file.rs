//! A file of lines that only grows, until it is put aside for the next. Several processes may share one:
//! each line is one write(2) to a descriptor with `O_APPEND`, and a lock decides who puts it aside.
//! Knows not what the lines say.

use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a file is put aside, and how many of those are kept: half a gigabyte in all, some weeks of a busy
/// gateway.
pub(super) const LIMITS: Limits = Limits {
    bytes: 100 * 1024 * 1024,
    kept: 5,
};
/// How often it is made sure that the path still leads to the open file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two fdatasync(2): a sandbox that is denied a thousand times a second costs ten of them.
const SYNC_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) kept: u32,
}

/// The open file, and the thread that brings it to the disk.
pub(super) struct LogFile {
    shared: Arc<Shared>,
    ask: SyncSender<()>,
}

struct Shared {
    path: PathBuf,
    limits: Limits,
    // Held for one write, a few microseconds; what follows a line that was cut short must not overtake.
    state: Mutex<State>,
    /// Put aside, and perhaps not on the disk yet.
    aside: Mutex<Vec<Arc<File>>>,
    /// Something could not be brought to the disk.
    broken: AtomicBool,
}

struct State {
    file: Arc<File>,
    bytes: u64,
    looked: Instant,
    /// The last write failed, perhaps half-way, or its process was killed in the middle of it: the kernel heeds
    /// SIGKILL between the pages of a write.
    cut: bool,
}

impl LogFile {
    /// Opens or creates it, readable by its owner alone.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        let state = State {
            bytes,
            cut: is_cut(&file, bytes)?,
            file: Arc::new(file),
            looked: Instant::now(),
        };
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            limits,
            state: Mutex::new(state),
            aside: Mutex::default(),
            broken: AtomicBool::new(false),
        });
        let (ask, asked) = sync_channel(1);
        let kept = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit-sync".to_owned())
            .spawn(move || keep_on_disk(&kept, &asked))?;
        Ok(Self { shared, ask })
    }

    /// Writes a line, which has its end. It outlives this process as soon as this returns, and the
    /// machine [`SYNC_EVERY`] later if it is `urgent`.
    ///
    /// # Errors
    /// What the system says of this write, or of an earlier fdatasync(2).
    pub(super) fn append(&self, line: &[u8], urgent: bool) -> io::Result<()> {
        let mut state = self.shared.state();
        self.shared.look_after(&mut state, line.len())?;
        let mut file = &*state.file;
        let written = if state.cut {
            file.write_all(&[b"\n", line].concat())
        } else {
            file.write_all(line)
        };
        state.cut = written.is_err();
        written?;
        state.bytes += line.len() as u64;
        drop(state);
        if urgent {
            self.ask();
        }
        // This one is written whatever became of those before it.
        if self.shared.broken.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("an earlier record may not be on the disk"));
        }
        Ok(())
    }

    /// Brings everything to the disk. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.shared.sync()
    }

    fn ask(&self) {
        // Full: the thread has been asked and not looked yet. It ends after this only.
        self.ask.try_send(()).ok();
    }
}

impl Shared {
    /// Opens another file if the path leads elsewhere by now, or this one is full.
    fn look_after(&self, state: &mut State, coming: usize) -> io::Result<()> {
        let full = state.bytes + coming as u64 > self.limits.bytes;
        if state.looked.elapsed() < LOOK_EVERY && !full {
            return Ok(());
        }
        // Others may have written too.
        state.bytes = state.file.metadata()?.len();
        if !self.is_ours(&state.file)? {
            self.reopen(state)?;
        }
        if state.bytes > 0 && state.bytes + coming as u64 > self.limits.bytes {
            match self.put_aside(&state.file) {
                Ok(()) => self.reopen(state)?,
                // It grows on; nothing is lost by that.
                Err(error) => {
                    // Said now and then, not with every line.
                    state.bytes = 0;
                    tracing::error!(%error, path = %self.path.display(), "audit log not rotated");
                }
            }
        }
        // Not before: what failed is tried again with the next line.
        state.looked = Instant::now();
        Ok(())
    }

    /// Does the path lead to this file?
    fn is_ours(&self, file: &File) -> io::Result<bool> {
        let own = file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn reopen(&self, state: &mut State) -> io::Result<()> {
        let file = Arc::new(append_to(&self.path)?);
        state.bytes = file.metadata()?.len();
        state.cut = is_cut(&file, state.bytes)?;
        let before = std::mem::replace(&mut state.file, file);
        self.aside().push(before);
        Ok(())
    }

    /// `audit.jsonl` becomes `audit.jsonl.1`, that `audit.jsonl.2`, and so on; the oldest is overwritten.
    fn put_aside(&self, file: &File) -> io::Result<()> {
        let lock = Flock::lock(file.try_clone()?, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, errno)| io::Error::from(errno))?;
        // Another process was first.
        if !self.is_ours(file)? {
            return Ok(());
        }
        for number in (1..self.limits.kept).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(self.path.as_os_str());
        name.push(format!(".{number}"));
        name.into()
    }

    fn sync(&self) -> io::Result<()> {
        let aside = std::mem::take(&mut *self.aside());
        let file = Arc::clone(&self.state().file);
        for file in &aside {
            file.sync_data()?;
        }
        file.sync_data()?;
        if !aside.is_empty()
            && let Some(folder) = self.path.parent()
        {
            // The new names.
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves the file as it is; at worst a line is cut, and known to be.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aside(&self) -> MutexGuard<'_, Vec<Arc<File>>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_on_disk(shared: &Shared, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        if let Err(error) = shared.sync() {
            tracing::error!(%error, "audit records may not be on the disk");
            shared.broken.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(SYNC_EVERY);
    }
}

/// Does a file of this length end within a line? Another process that writes at this very moment makes it look so:
/// then there is an empty line more.
fn is_cut(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    let read = file.read_at(&mut byte, last)?;
    Ok(read == 1 && byte != *b"\n")
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        // For its last byte.
        .read(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests;

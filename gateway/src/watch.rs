//! Says that something below a file or folder has changed, once per burst of changes and after
//! the burst is over. It refuses to know what the files mean, and never says what changed: whoever
//! is told reads everything again, and so can miss nothing.

mod poll;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use poll::Poll;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A burst is over when nothing more has happened for so long. What writes a file in several calls
/// (an editor, `cp`, a shell's `>` and the program's first line) has a few milliseconds between them on
/// a busy machine; a person who waits for the effect does not notice this much.
const QUIET: Duration = Duration::from_millis(75);
/// A burst that never ends is reported all the same: a revoked key must not wait for a log file in
/// the same folder.
const AT_MOST: Duration = Duration::from_secs(1);
/// How deep folders are watched: a secrets folder has `NAME/` in it, and that has the dated folder of
/// a mounted secret (Kubernetes, "atomic writer" layout: `..data` -> `..2024_05_01_…`).
const DEPTH: usize = 2;

/// Nothing will be reported any more.
#[derive(Debug, thiserror::Error)]
#[error("watching {0} has ended")]
pub struct Ended(String);

/// Watches files and folders, those included that are not there (yet).
pub struct Watcher {
    paths: Vec<PathBuf>,
    /// `None`: polling.
    inotify: Option<Inotify>,
    poll: Poll,
    burst: Option<Burst>,
}

struct Inotify {
    watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
    /// Said by the watcher's own thread: it could not do all that it should.
    failed: Arc<AtomicBool>,
    armed: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + AT_MOST)
    }
}

impl Watcher {
    /// Begins to watch: what changes from now on will be reported. Folders are watched with what is in
    /// them, two levels deep, no links followed but `paths` themselves. Where inotify cannot be used (its
    /// limits, a file system that other machines write to) the files are looked at every two seconds.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let mut inotify = None;
        if let Some(path) = paths.iter().find(|path| poll::is_shared(path)) {
            tracing::info!(path = %path.display(), "other machines may write here: looking every {} s", poll::EVERY.as_secs());
        } else {
            match Inotify::start(&paths) {
                Ok(started) => inotify = Some(started),
                Err(error) => fall_back(&error),
            }
        }
        Self {
            poll: Poll::new(&paths),
            paths,
            inotify,
            burst: None,
        }
    }

    /// Returns after the next burst of changes. May return without a change. Cancel-safe: what
    /// happened before a call was dropped is reported by the next.
    ///
    /// # Errors
    /// [`Ended`] if nothing can be reported any more.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        loop {
            let Some(inotify) = &mut self.inotify else {
                return self.poll.changed(&self.paths).await.map_err(|error| {
                    tracing::error!(%error, "the files cannot be looked at");
                    self.ended()
                });
            };
            let due = self.burst.map(Burst::due);
            if due.is_some_and(|due| due <= Instant::now()) {
                let rearmed = inotify.arm(&self.paths);
                self.burst = None;
                if let Err(error) = rearmed {
                    fall_back(&error);
                    self.inotify = None;
                    self.poll = Poll::new(&self.paths);
                }
                return Ok(());
            }
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                event = inotify.events.recv() => {
                    if event.is_none() {
                        return Err(self.ended());
                    }
                    let now = Instant::now();
                    let first = self.burst.map_or(now, |burst| burst.first);
                    self.burst = Some(Burst { first, last: now });
                }
                () = sleep_until(due.unwrap_or(far)) => {}
            }
        }
    }

    fn ended(&self) -> Ended {
        let names: Vec<String> = self.paths.iter().map(|p| p.display().to_string()).collect();
        Ended(names.join(", "))
    }
}

impl Inotify {
    fn start(paths: &[PathBuf]) -> io::Result<Self> {
        // One place: a burst is a burst, however many events it has.
        let (sender, events) = mpsc::channel(1);
        let failed = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&failed);
        let wanted = paths.to_vec();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let wake = match event {
                Ok(event) => is_change(&event) && concerns(&event, &wanted),
                Err(error) => {
                    tracing::warn!(%error, "inotify");
                    told.store(true, Ordering::Release);
                    true
                }
            };
            if wake {
                // Full: the one that waits there will do. Closed: nobody asks any more.
                sender.try_send(()).ok();
            }
        })
        .map_err(io::Error::other)?;
        let mut inotify = Self {
            watcher,
            events,
            failed,
            armed: BTreeSet::new(),
        };
        inotify.arm(paths)?;
        Ok(inotify)
    }

    /// Watches what is there now. Everything is watched anew, since a folder may be another one under the
    /// same name; what happens meanwhile is seen by whoever reads after the report.
    fn arm(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("events were lost"));
        }
        for path in std::mem::take(&mut self.armed) {
            // It may be gone, and its watch with it.
            drop(self.watcher.unwatch(&path));
        }
        for folder in paths.iter().flat_map(|path| folders(path)) {
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.armed.insert(folder);
                }
                // Gone since it was listed. Its parent is watched.
                Err(_) if !folder.exists() => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }
}

fn fall_back(error: &io::Error) {
    tracing::warn!(
        %error,
        "inotify cannot be used (see fs.inotify.max_user_instances and max_user_watches): looking every {} s",
        poll::EVERY.as_secs()
    );
}

/// Reading is none; we read ourselves.
fn is_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// A neighbour of a watched file, or of a folder that does not exist yet, does not.
fn concerns(event: &notify::Event, wanted: &[PathBuf]) -> bool {
    event.paths.is_empty()
        || event.paths.iter().any(|path| {
            wanted
                .iter()
                .any(|wanted| path.starts_with(wanted) || wanted.starts_with(path))
        })
}

/// The folders to watch for `path`: itself and those in it, or the nearest that exists above.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if path.is_dir() {
        collect(path, DEPTH, &mut found);
    } else {
        let above = path.ancestors().skip(1).find(|above| above.is_dir());
        found.extend(above.map(Path::to_owned));
    }
    found
}

fn collect(folder: &Path, deeper: usize, found: &mut Vec<PathBuf>) {
    found.push(folder.to_owned());
    if deeper == 0 {
        return;
    }
    // A folder that has just gone has nothing in it.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), deeper - 1, found);
        }
    }
}

#[cfg(test)]
mod tests;

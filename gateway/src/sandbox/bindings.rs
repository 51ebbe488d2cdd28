//! Which cgroups the policy's bindings own, as cgroups come and go. Watches the tree and says what appeared
//! and what is gone; it attaches nothing, and knows no gateway but by name.
//!
//! What a binding matches is attached when it has appeared, not before: what its first processes send in
//! those milliseconds is not covered. Sockets from that time are cut off once it is attached.

mod scan;

use super::locate::{Hierarchy, LocateError};
use crate::policy::Binding;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use scan::Scan;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How often the tree is read where no event says that it changed: what happened before a watch was in
/// place, watches that the kernel had no room for, processes of `pid` selectors.
const RESCAN: Duration = Duration::from_secs(2);
/// The least time between two readings of the tree, so that whoever makes cgroups in a loop does not
/// have the gateway read it in a loop. Short, for it delays an attach.
const PAUSE: Duration = Duration::from_millis(20);

/// A cgroup that a binding owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its folder.
    pub directory: PathBuf,
    /// Its path below the mount.
    pub path: Arc<str>,
    /// The kernel's id of it. A cgroup removed and made again has another one.
    pub id: u64,
    /// The gateway that it belongs to.
    pub gateway: Arc<str>,
    /// The binding that says so.
    pub binding: Arc<str>,
}

/// What happened. The bound cgroups are never inside one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A cgroup is to be attached. One that was bound to another gateway before is bound to this one from
    /// now on; nothing is told in between.
    Bound(Bound),
    /// The cgroup does not exist any more.
    Gone(Bound),
    /// The cgroup exists, but no binding matches it since the last [`Watch::set`].
    Unbound(Bound),
}

/// The watch, on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    events: UnboundedReceiver<Event>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    bindings: Mutex<Arc<[Binding]>>,
    wake: EventFd,
    stop: AtomicBool,
}

impl Watch {
    /// Begins to watch. What matches already is told first.
    ///
    /// # Errors
    /// If the kernel gives no inotify descriptor (`fs.inotify.max_user_instances`), event descriptor or
    /// thread.
    pub fn start(hierarchy: Hierarchy, bindings: Vec<Binding>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bindings: Mutex::new(bindings.into()),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            stop: AtomicBool::new(false),
        });
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let (sender, events) = unbounded_channel();
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bindings".into())
            .spawn(move || {
                if let Err(error) = watch(hierarchy, &its, &inotify, &sender) {
                    tracing::error!(%error, "the watch for bindings has ended");
                }
            })?;
        Ok(Self {
            events,
            shared,
            thread: Some(thread),
        })
    }

    /// The next event, in the order in which things were seen. `None`: the watch has died, and nothing
    /// that appears will be attached. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Watches for these bindings from now on.
    ///
    /// # Errors
    /// What writing to an event descriptor says.
    pub fn set(&self, bindings: Vec<Binding>) -> io::Result<()> {
        *self
            .shared
            .bindings
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = bindings.into();
        self.wake()
    }

    fn wake(&self) -> io::Result<()> {
        self.shared.wake.write(1)?;
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // If it cannot be woken it ends at its next reading.
        self.wake().ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn watch(
    hierarchy: Hierarchy,
    shared: &Shared,
    inotify: &Inotify,
    events: &UnboundedSender<Event>,
) -> Result<(), LocateError> {
    let failed = |path: &str, error: nix::Error| LocateError::Io {
        path: path.into(),
        source: error.into(),
    };
    let mut scan = Scan::new(hierarchy)?;
    let wait = PollTimeout::try_from(RESCAN).unwrap_or(PollTimeout::MAX);
    while !shared.stop.load(Ordering::Relaxed) {
        let bindings = Arc::clone(
            &shared
                .bindings
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let told = scan.read(&bindings, &mut |folder| {
            // Adding one that is there already changes nothing. None to be had: the next reading finds it.
            let what = AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_ONLYDIR;
            inotify.add_watch(folder, what).ok();
        });
        for event in told {
            if events.send(event).is_err() {
                return Ok(());
            }
        }
        let mut ready = [
            PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, wait) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => {
                std::thread::sleep(PAUSE);
                drain(inotify, &shared.wake);
            }
            Err(error) => return Err(failed("poll", error)),
        }
    }
    Ok(())
}

/// What exactly happened does not matter: the tree says how it is now.
fn drain(inotify: &Inotify, wake: &EventFd) {
    while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    wake.read().ok();
}

#[cfg(test)]
mod tests;

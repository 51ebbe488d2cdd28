//! What `postern run` does besides serving: takes over what an earlier daemon left, attaches what it is
//! asked to and what policy binds, looks after namespaces that appear, and answers the admin socket.

mod control;
mod watch;

use crate::app::{App, AppError, Attached, Entry, Registry};
use crate::privileges::Layer;
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::locate::{Hierarchy, LocateError, Located, Target};
use crate::sandbox::namespaces::Finder;
use crate::sandbox::netns::NetNs;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::SystemTime;
use tokio::sync::Mutex;

/// Why a cgroup was not attached. Whatever was done by then is undone, or leaves it shut.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It cannot be a sandbox.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The gateway or the kernel.
    #[error(transparent)]
    App(#[from] AppError),
    /// Its folder, its namespaces or the registry.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What the daemon is started with.
pub struct Settings {
    /// The cgroup v2 hierarchy.
    pub hierarchy: Hierarchy,
    /// What is attached, on disk.
    pub registry: Registry,
    /// Finds namespaces, with privileges that the daemon itself has given up.
    pub finder: Finder,
    /// The policy folder, for people.
    pub policy: PathBuf,
    /// What protects the daemon itself.
    pub layers: Vec<Layer>,
}

/// The daemon.
pub struct Daemon {
    app: Arc<App>,
    settings: Settings,
    started: SystemTime,
    /// By path below the mount. Held while something is attached or let go of.
    sandboxes: Mutex<BTreeMap<String, Known>>,
    /// Their keys, for who must not wait.
    paths: RwLock<BTreeSet<String>>,
}

/// An attached sandbox, as the daemon knows it.
#[derive(Clone)]
struct Known {
    attached: Arc<Attached>,
    located: Located,
    origin: String,
}

/// How a sandbox came to be attached.
pub struct Origin {
    /// For people: `a flag`, `uid 0`, `SandboxBinding/x`.
    pub text: String,
    /// The binding, if it was one.
    pub binding: Option<String>,
}

impl Daemon {
    /// With nothing attached.
    pub fn new(app: Arc<App>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            app,
            settings,
            started: SystemTime::now(),
            sandboxes: Mutex::default(),
            paths: RwLock::default(),
        })
    }

    /// Takes over what an earlier daemon left: each sandbox is served again, without having been free for an
    /// instant. One that cannot be stays shut, and the log says why.
    pub async fn adopt(&self) -> io::Result<usize> {
        let pinned = self.app.pinned()?;
        let mut adopted = 0;
        for entry in self.settings.registry.entries()? {
            if !pinned.contains(&entry.cgroup) {
                self.settings.registry.remove(entry.cgroup)?;
                continue;
            }
            let found = self
                .settings
                .hierarchy
                .locate(&Target::Cgroup(entry.path.clone()));
            match found {
                Ok(located) if located.id == entry.cgroup => {
                    let origin = Origin {
                        text: "an earlier daemon".to_owned(),
                        binding: entry.binding.clone(),
                    };
                    let outcome = self
                        .attach(located, &entry.gateway, &entry.label, origin)
                        .await;
                    match outcome {
                        Ok(_) => adopted += 1,
                        Err(error) => {
                            tracing::error!(cgroup = %entry.path.display(), %error, "not adopted: it stays shut");
                        }
                    }
                }
                found => self.leave(&entry, found.err())?,
            }
        }
        let known: HashSet<u64> = self
            .app
            .sandboxes()
            .iter()
            .map(|attached| attached.cgroup())
            .collect();
        for cgroup in pinned.into_iter().filter(|id| !known.contains(id)) {
            tracing::warn!(
                cgroup,
                "kept shut, and nobody has said what for; `postern attach` or `postern detach` it"
            );
        }
        Ok(adopted)
    }

    /// What is not found where it was may live on: another mount of the hierarchy may come first by now, and
    /// a look can fail. It is let go of only where the kernel says that it is gone.
    fn leave(&self, entry: &Entry, why: Option<LocateError>) -> io::Result<()> {
        if self.app.is_pinned_in_vain(entry.cgroup) {
            return self.forget(entry.cgroup);
        }
        let another = || "another cgroup is there now".to_owned();
        tracing::error!(
            cgroup = entry.cgroup,
            path = %entry.path.display(),
            why = why.map_or_else(another, |error| error.to_string()),
            "not adopted: it stays shut until `postern attach` is given the folder where it is now, or `postern detach --all` lets go of it"
        );
        Ok(())
    }

    /// Attaches a cgroup that [`Hierarchy::admit`] lets through, and opens it. Where it is attached already
    /// it is moved to the gateway.
    pub async fn attach(
        &self,
        located: Located,
        gateway: &str,
        label: &str,
        origin: Origin,
    ) -> Result<Arc<Attached>, AttachError> {
        self.forget_gone().await;
        let mut sandboxes = self.sandboxes.lock().await;
        self.attach_among(&mut sandboxes, located, gateway, label, origin)
            .await
    }

    async fn attach_among(
        &self,
        sandboxes: &mut BTreeMap<String, Known>,
        located: Located,
        gateway: &str,
        label: &str,
        origin: Origin,
    ) -> Result<Arc<Attached>, AttachError> {
        let entry = Entry {
            cgroup: located.id,
            path: located.directory.clone(),
            label: label.to_owned(),
            gateway: gateway.to_owned(),
            binding: origin.binding,
        };
        if let Some(known) = sandboxes.get(&located.path)
            && known.attached.cgroup() == located.id
        {
            self.app.rebind(&known.attached, gateway)?;
            self.write(&entry)?;
            if !known.attached.is_active() {
                self.open(known).await?;
            }
            return Ok(Arc::clone(&known.attached));
        }
        let others = sandboxes.keys().map(String::as_str);
        self.settings.hierarchy.admit(&located, others)?;
        // Written before it is true: an entry without pins is nothing, pins without an entry stay shut.
        self.write(&entry)?;
        let cgroup = Cgroup::open(&located.directory).map_err(|error| AttachError::Io {
            what: "cannot open the cgroup",
            source: io::Error::other(error),
        })?;
        let attached = self
            .app
            .attach(cgroup.as_fd(), located.id, label, gateway)?;
        let known = Known {
            attached: Arc::clone(&attached),
            located: located.clone(),
            origin: origin.text,
        };
        self.paths().insert(located.path.clone());
        let opened = self.open(&known).await;
        sandboxes.insert(located.path, known);
        opened?;
        tracing::info!(cgroup = %located.directory.display(), gateway, "attached");
        Ok(attached)
    }

    async fn open(&self, known: &Known) -> Result<(), AttachError> {
        let host = NetNs::current().map_err(namespaces)?;
        self.app.listen(&known.attached, &host, 0)?;
        self.look(known).await?;
        self.app.forget_former_listeners(&known.attached);
        Ok(self.app.activate(&known.attached)?)
    }

    /// Looks which namespaces the sandbox's tasks are in and who else is: listeners are opened in those that
    /// have none, and given back in those that nobody is in.
    async fn look(&self, known: &Known) -> Result<(), AttachError> {
        let attached = &known.attached;
        let finder = &self.settings.finder;
        let look = finder
            .find(&known.located.directory, &attached.namespace_inodes())
            .await
            .map_err(namespaces)?;
        self.app.settle(attached, &look);
        Ok(())
    }

    /// Sets a sandbox free.
    async fn detach(&self, path: &str) -> Result<Option<Known>, AttachError> {
        self.detach_among(&mut *self.sandboxes.lock().await, path)
    }

    fn detach_among(
        &self,
        sandboxes: &mut BTreeMap<String, Known>,
        path: &str,
    ) -> Result<Option<Known>, AttachError> {
        let Some(known) = sandboxes.get(path).cloned() else {
            return Ok(None);
        };
        self.app.detach(&known.attached)?;
        sandboxes.remove(path);
        self.paths().remove(path);
        self.settings
            .registry
            .remove(known.located.id)
            .map_err(registry)?;
        tracing::info!(cgroup = %known.located.directory.display(), "detached");
        Ok(Some(known))
    }

    fn paths(&self) -> RwLockWriteGuard<'_, BTreeSet<String>> {
        self.paths.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is pinned beside the sandboxes of this daemon.
    fn left_shut(&self, sandboxes: &BTreeMap<String, Known>) -> io::Result<Vec<u64>> {
        let mut pinned = self.app.pinned()?;
        pinned.retain(|&cgroup| {
            let is_its = |known: &Known| known.attached.cgroup() == cgroup;
            !sandboxes.values().any(is_its)
        });
        Ok(pinned)
    }

    /// Lets go of pins that nothing is behind any more.
    fn forget(&self, cgroup: u64) -> io::Result<()> {
        self.app.unpin(cgroup)?;
        self.settings.registry.remove(cgroup)
    }

    fn write(&self, entry: &Entry) -> Result<(), AttachError> {
        self.settings.registry.write(entry).map_err(registry)
    }
}

fn registry(source: io::Error) -> AttachError {
    AttachError::Io {
        what: "cannot write down what is attached",
        source,
    }
}

fn namespaces(source: io::Error) -> AttachError {
    AttachError::Io {
        what: "cannot look at the sandbox's network namespaces",
        source,
    }
}

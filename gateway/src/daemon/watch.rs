//! What happens while the daemon runs: cgroups that bindings own appear and vanish, namespaces appear, and
//! the policy's bindings change. Each loop is vital: if it ends, so does the daemon.

use super::{Daemon, Known, Origin};
use crate::app::{LOOK, Stray};
use crate::sandbox::bindings::{Bound, Event, Watch};
use crate::sandbox::locate::Located;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often cgroups that are gone are noticed: their pins and listeners cost a little memory until then.
const SWEEP: Duration = Duration::from_secs(5);

impl Daemon {
    /// Begins to watch for cgroups that the policy's bindings own.
    pub fn bindings(self: &Arc<Self>) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut current = self.app.bindings();
        let first = current.borrow_and_update().clone();
        let mut watch = Watch::start(self.settings.hierarchy.clone(), first)?;
        let this = Arc::clone(self);
        Ok(async move {
            loop {
                tokio::select! {
                    event = watch.next() => match event {
                        Some(event) => this.take(event).await,
                        None => return,
                    },
                    changed = current.changed() => {
                        let next = current.borrow_and_update().clone();
                        if changed.is_err() || watch.set(next).is_err() {
                            return;
                        }
                    }
                }
            }
        })
    }

    async fn take(&self, event: Event) {
        match event {
            Event::Bound(bound) => {
                let binding = format!("SandboxBinding/{}", bound.binding);
                let origin = Origin {
                    text: binding,
                    binding: Some(bound.binding.to_string()),
                };
                let (path, gateway) = (Arc::clone(&bound.path), Arc::clone(&bound.gateway));
                let located = located(bound);
                if let Err(error) = self.attach(located, &gateway, &path, origin).await {
                    tracing::error!(cgroup = &*path, gateway = &*gateway, %error, "a binding's cgroup is not attached");
                }
            }
            Event::Gone(bound) => self.gone(&bound.path).await,
            // Less for the sandbox, never more: nobody has said that it may go free.
            Event::Unbound(bound) => tracing::warn!(
                cgroup = &*bound.path,
                "no SandboxBinding matches it any more; it stays attached until `postern detach`"
            ),
        }
    }

    /// Listens where somebody of a sandbox tried to connect without a listener.
    pub async fn strays(self: Arc<Self>, mut strays: mpsc::Receiver<Stray>) {
        while let Some(stray) = strays.recv().await {
            let sandboxes = self.sandboxes.lock().await;
            let of = |known: &&Known| known.attached.is_strange(&stray);
            if let Some(known) = sandboxes.values().find(of)
                && let Err(error) = self.look(known).await
            {
                tracing::warn!(%error, "a network namespace without listener stays so");
            }
        }
    }

    /// Looks again and again who is in the namespaces that sandboxes may have for themselves, or nobody.
    pub async fn namespaces(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            let paths: Vec<String> = self.sandboxes.lock().await.keys().cloned().collect();
            for path in paths {
                // One after the other, so that nobody who attaches waits for all of them.
                let sandboxes = self.sandboxes.lock().await;
                let Some(known) = sandboxes.get(&path) else {
                    continue;
                };
                if !known.attached.is_active() {
                    // What could not be opened is, as soon as it can be.
                    match self.open(known).await {
                        Ok(()) => tracing::info!(path, "opened at last"),
                        Err(error) => {
                            tracing::warn!(path, %error, "the sandbox could not be opened: it stays shut, and is tried again");
                        }
                    }
                } else if known.attached.has_passing_namespaces()
                    && let Err(error) = self.look(known).await
                {
                    tracing::warn!(path, %error, "network namespaces not looked at");
                }
            }
        }
    }

    /// Forgets sandboxes whose cgroup is gone.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tick.tick().await;
            self.forget_gone().await;
            self.forget_vain_pins().await;
        }
    }

    /// A cgroup made again under the path of one that is gone is another one, and nobody's yet.
    pub(super) async fn forget_gone(&self) {
        let paths: Vec<String> = {
            let sandboxes = self.sandboxes.lock().await;
            let gone = sandboxes
                .iter()
                .filter(|(_, known)| self.is_gone(&known.located));
            gone.map(|(path, _)| path.clone()).collect()
        };
        for path in paths {
            self.gone(&path).await;
        }
    }

    /// Lets go of pins that no sandbox of this daemon has, once their cgroups are gone.
    async fn forget_vain_pins(&self) {
        // Nothing is being attached as long as this is held.
        let sandboxes = self.sandboxes.lock().await;
        for cgroup in self.left_shut(&sandboxes).unwrap_or_default() {
            if self.app.is_pinned_in_vain(cgroup)
                && let Err(error) = self.forget(cgroup)
            {
                tracing::warn!(cgroup, %error, "a cgroup that is gone left something behind");
            }
        }
    }

    fn is_gone(&self, located: &Located) -> bool {
        let hierarchy = &self.settings.hierarchy;
        hierarchy.is_gone(&located.directory, located.id)
    }

    async fn gone(&self, path: &str) {
        if let Err(error) = self.detach(path).await {
            tracing::warn!(path, %error, "a cgroup that is gone left something behind");
        }
    }
}

fn located(bound: Bound) -> Located {
    Located {
        directory: bound.directory,
        path: bound.path.to_string(),
        id: bound.id,
    }
}

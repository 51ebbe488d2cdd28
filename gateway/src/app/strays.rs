//! Network namespaces that appear after the attach, in the sandbox of a gateway that looks into processes
//! itself: the first connection from one is refused by the kernel, and told here; it gets listeners, and
//! the next connection finds them. Those that everybody has left give theirs back.

use super::{App, Stray};
use crate::sandbox::namespaces;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often it is looked who is in namespaces that have listeners.
pub const LOOK: Duration = Duration::from_secs(5);

impl App {
    /// Looks after the namespaces of the sandbox with this cgroup, until the app is gone.
    pub fn look_after(self: &Arc<Self>, mut strays: mpsc::Receiver<Stray>, cgroup: &Path) {
        let app = Arc::downgrade(self);
        let cgroup = cgroup.to_owned();
        self.vital("network namespaces", async move {
            let mut tick = tokio::time::interval(LOOK);
            loop {
                let stray = tokio::select! {
                    stray = strays.recv() => match stray {
                        Some(stray) => Some(stray),
                        None => break,
                    },
                    _ = tick.tick() => None,
                };
                let Some(app) = app.upgrade() else { break };
                let cgroup = cgroup.clone();
                let outcome = tokio::task::spawn_blocking(move || app.look(stray, cgroup)).await;
                match outcome {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "network namespaces not looked at"),
                    // What panics there is this task's fault; what is cancelled, the end of the runtime.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => break,
                    },
                }
            }
            // The app is gone, and this task goes with its runtime.
            std::future::pending().await
        });
    }

    fn look(&self, stray: Option<Stray>, cgroup: PathBuf) -> std::io::Result<()> {
        for attached in self.sandboxes() {
            let is_wanted = match stray {
                Some(stray) => attached.is_strange(&stray),
                None => attached.has_passing_namespaces(),
            };
            if is_wanted {
                let look = namespaces::find(&cgroup, &attached.namespace_inodes())?;
                self.settle(&attached, &look);
            }
        }
        Ok(())
    }
}
